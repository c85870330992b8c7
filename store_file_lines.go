package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
)

// This file is the format of a file store: writing a change as a line, and reading
// the lines again.

const (
	fileHeader = `{"format":"stdauth","version":1}` + "\n"
	crcOpening = `{"crc":"`

	maxLine = 1 << 16 // bytes; ours are under 4,000
)

// replayFile makes all the changes in file. It returns how many lines and bytes are
// whole: what follows them, if anything, is a torn last line.
func replayFile(ctx context.Context, m *MemoryStore, file file) (lines, whole int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, 0, errors.New("not a regular file")
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, 0, math.MaxInt64), maxLine)
	for ; ; lines++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && (lines > 0 || strings.HasPrefix(fileHeader, string(bytes.TrimRight(line, "\x00")))) {
			return lines, whole, nil
		}
		if err == nil || lines == 0 {
			err = replayLine(m, lines, line)
		}
		if err != nil && lines > 0 && torn(file, whole) {
			return lines, whole, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("line %d: %w", lines+1, err)
		}
		whole += int64(len(line))
		if lines%1024 == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
	}
}

// torn reports whether the text from offset on is one line that a crash cut off: it
// has no end, or zero bytes where its data had not arrived.
func torn(file io.ReaderAt, offset int64) bool {
	r := bufio.NewReader(io.NewSectionReader(file, offset, math.MaxInt64-offset))
	zeros := false
	for {
		c, err := r.ReadByte()
		if err != nil {
			return err == io.EOF
		}
		if c == '\n' {
			_, err := r.ReadByte()
			return zeros && err == io.EOF
		}
		zeros = zeros || c == 0
	}
}

func replayLine(m *MemoryStore, before int64, line []byte) error {
	if before == 0 {
		if string(line) == fileHeader {
			return nil
		}
		if bytes.HasPrefix(line, []byte(`{"format":"stdauth",`)) {
			return errors.New("written by another version of stdauth")
		}
		return errors.New("not a file of stdauth")
	}
	if err := checkSum(line); err != nil {
		return err
	}
	var c change
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	return m.perform(c)
}

// appendLine appends the line of a change: its JSON, with a first member that is the
// CRC-32 (IEEE) of the text behind that member and its comma.
func appendLine(b []byte, c change) ([]byte, error) {
	object, err := json.Marshal(c)
	if err != nil {
		return b, err // a year of five digits
	}
	summed := object[1:] // behind the brace
	if n := len(crcOpening) + len(`00000000",`) + len(summed) + 1; n > maxLine {
		return b, fmt.Errorf("a change of %d bytes is too long for a line", n)
	}
	return fmt.Appendf(b, "%s%08x\",%s\n", crcOpening, crc32.ChecksumIEEE(summed), summed), nil
}

func checkSum(line []byte) error {
	after, ok := bytes.CutPrefix(line, []byte(crcOpening))
	if !ok {
		return nil
	}
	sum, rest, ok := bytes.Cut(after, []byte(`",`))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != crc32.ChecksumIEEE(bytes.TrimSuffix(rest, []byte("\n"))) {
		return errors.New("the checksum does not match the line")
	}
	return nil
}
