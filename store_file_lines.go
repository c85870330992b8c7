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

// This file defines the format of a file store: it writes changes as lines, and reads
// them.

const (
	fileHeader = `{"format":"stdauth","version":1}` + "\n"
	crcOpening = `{"crc":"`
	sameSync   = `"same_sync":true,`

	maxLine = 1 << 16 // bytes; ours are under 4,000
)

// A loaded is the result of loadFile. It counts from the beginning of the file.
type loaded struct {
	lines, whole int64 // lines and bytes; the rest is torn
	synced       int64 // bytes; the rest may never have been synced
	size         int64 // bytes of the file when reading began
}

// loadFile makes the changes in a file on m.
func loadFile(ctx context.Context, m *MemoryStore, file file) (loaded, error) {
	info, err := file.Stat()
	if err != nil {
		return loaded{}, err
	}
	if !info.Mode().IsRegular() {
		return loaded{}, errors.New("not a regular file")
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, 0, math.MaxInt64), maxLine)
	for found := (loaded{size: info.Size()}); ; found.lines++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && (found.lines > 0 || strings.HasPrefix(fileHeader, string(bytes.TrimRight(line, "\x00")))) {
			return found, nil
		}
		if err == nil || found.lines == 0 {
			err = loadLine(m, found.lines, line)
		}
		if err != nil && found.lines > 0 && torn(file, found.whole) {
			return found, nil
		}
		if err != nil {
			return loaded{}, fmt.Errorf("line %d: %w", found.lines+1, err)
		}
		if !sharesSync(line) {
			found.synced = found.whole
		}
		found.whole += int64(len(line))
		if found.lines%1024 == 0 && ctx.Err() != nil {
			return loaded{}, ctx.Err()
		}
	}
}

// torn reports whether the damaged line at offset, and what follows it, can be what a
// crash left of changes that shared a sync. A disk writes sectors in any order, so the
// text may end anywhere, and lines have zero bytes where data is missing. Whole lines
// may follow the damaged one if they shared its sync. A line that did not was written
// after the damaged one had been synced, and a crash does not damage synced lines.
func torn(file io.ReaderAt, offset int64) bool {
	r := bufio.NewReaderSize(io.NewSectionReader(file, offset, math.MaxInt64-offset), maxLine)
	first, zeros := true, false
	for {
		line, err := r.ReadSlice('\n')
		zeros = zeros || bytes.IndexByte(line, 0) >= 0
		switch {
		case err == bufio.ErrBufferFull && zeros:
			continue // to the end of the line
		case err != nil:
			return err == io.EOF
		case !zeros && (first || !sharesSync(line) || checkSum(line) != nil):
			return false
		}
		first, zeros = false, false
	}
}

func loadLine(m *MemoryStore, before int64, line []byte) error {
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
	return m.commit(c)
}

// appendLine appends a change as a line of JSON. Its first member is the CRC-32 (IEEE)
// of the text after that member and its comma. The second, same_sync, is there if the
// line shares the sync of the line before.
func appendLine(b []byte, c change, shared bool) ([]byte, error) {
	object, err := json.Marshal(c)
	if err != nil {
		return b, err // a time whose year has five digits
	}
	summed := object[1:] // after the brace
	if shared {
		summed = append([]byte(sameSync), summed...)
	}
	if n := len(crcOpening) + len(`00000000",`) + len(summed) + 1; n > maxLine {
		return b, fmt.Errorf("a change of %d bytes is too long for a line", n)
	}
	return fmt.Appendf(b, "%s%08x\",%s\n", crcOpening, crc32.ChecksumIEEE(summed), summed), nil
}

func sharesSync(line []byte) bool {
	behind := min(len(crcOpening)+len(`00000000",`), len(line))
	return bytes.HasPrefix(line[behind:], []byte(sameSync))
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
