package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
)

// This file defines the format of a file store. It is JSON Lines: a header, then one change
// on each line, in order. A line begins with a checksum of the text that follows it. The
// checksum may be missing, so a file can be written by hand.
//
//	{"format":"stdauth","version":1}
//	{"crc":"5b0c6b6e","id":1,"user":{"id":1,"username":"johndoe",...}}
//	{"crc":"00c4d0e1","id":1,"session":{"id":"IYV3...","generation":1,...}}
//	{"crc":"7d21a9f4","id":1,"ended":"IYV3..."}
//
// Changes that come while the disk is busy share the next sync (fsync). All but the first
// of them are marked with "same_sync":true after the checksum.

const (
	fileHeader = `{"format":"stdauth","version":1}` + "\n"
	crcOpening = `{"crc":"`
	sameSync   = `"same_sync":true,`

	maxLine   = 1 << 16 // bytes; ours are under 4,000
	blockSize = 2 * maxLine
)

// A loaded is what loadFile has found, counted from the beginning of the file.
type loaded struct {
	lines, whole int64 // lines and bytes; the rest is torn
	synced       int64 // bytes; the rest may never have been synced, so mend writes it again
	size         int64 // bytes of the file when reading began
	unended      bool  // the last line has no LF
}

// A fileLine is a line of a file with the change that it contains.
type fileLine struct {
	text   []byte
	change change
	err    error
}

// loadFile makes the changes that a file contains on m, in order. Other goroutines decode
// the lines, which is six sevenths of the work.
func loadFile(ctx context.Context, m *MemoryStore, file file) (found loaded, err error) {
	info, err := file.Stat()
	if err != nil {
		return loaded{}, err
	}
	if !info.Mode().IsRegular() {
		return loaded{}, errors.New("not a regular file")
	}
	found.size = info.Size()
	ctx, cancel := context.WithCancel(ctx)
	blocks := make(chan chan []fileLine, 8*runtime.GOMAXPROCS(0))
	var readErr error
	go func() {
		defer close(blocks)
		readErr = readBlocks(ctx, file, blocks)
	}()
	defer func() {
		cancel()
		for range blocks { // until the goroutine has ended
		}
	}()
	for block := range blocks {
		for _, line := range <-block {
			if isTorn, err := found.add(m, file, line); err != nil || isTorn {
				return found, err
			}
		}
	}
	return found, readErr
}

// readBlocks reads a file in blocks of whole lines and sends a channel for each, from
// which the decoded lines can be received.
func readBlocks(ctx context.Context, file io.ReaderAt, blocks chan<- chan []fileLine) error {
	for offset, more := int64(0), true; more && ctx.Err() == nil; {
		text := make([]byte, blockSize)
		n, err := file.ReadAt(text, offset)
		if err != nil && err != io.EOF {
			return err
		}
		text, more = text[:n], err == nil
		if end := bytes.LastIndexByte(text, '\n') + 1; more && end > 0 {
			text = text[:end]
		} else if more {
			more = false // a line that is too long
		}
		decoded := make(chan []fileLine, 1)
		first := offset == 0
		go func() { decoded <- decodeLines(text, first) }()
		offset += int64(len(text))
		select {
		case blocks <- decoded:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func decodeLines(text []byte, first bool) (lines []fileLine) {
	for line := range bytes.Lines(text) {
		next := fileLine{text: line}
		if first {
			next.err = checkHeader(line)
		} else {
			next.change, next.err = decodeLine(line)
		}
		lines, first = append(lines, next), false
	}
	return lines
}

// add makes the change of the next line on m. It reports whether that line is torn, and
// so the end of what counts.
func (found *loaded) add(m *MemoryStore, file io.ReaderAt, line fileLine) (isTorn bool, err error) {
	unended := !bytes.HasSuffix(line.text, []byte("\n"))
	cut := unended && len(line.text) <= maxLine
	switch {
	case errors.Is(line.err, errEdited): // not torn
	case found.lines == 0 && cut && strings.HasPrefix(fileHeader, string(bytes.TrimRight(line.text, "\x00"))):
		return true, nil // a torn header
	case found.lines > 0 && line.err == nil:
		line.err = m.commit(line.change)
	case found.lines > 0 && (cut || torn(file, found.whole)):
		return true, nil
	}
	if line.err != nil {
		return false, fmt.Errorf("line %d: %w", found.lines+1, line.err)
	}
	if !sharesSync(line.text) {
		found.synced = found.whole
	}
	found.lines++
	found.whole += int64(len(line.text))
	found.unended = unended
	return false, nil
}

// torn reports whether the damaged line at offset, and what follows it, can be what a
// crash left of changes that shared a sync. A disk writes sectors in any order, so the
// text may end anywhere, and lines have zero bytes where data is missing. Whole lines
// may follow the damaged one if they shared its sync, and it has zero bytes then. A line
// that did not was written after the damaged one had been synced, and a crash does not
// damage synced lines.
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

func checkHeader(line []byte) error {
	switch {
	case string(withoutEnd(line)) == strings.TrimSpace(fileHeader):
		return nil
	case bytes.HasPrefix(line, []byte(`{"format":"stdauth",`)):
		return errors.New("written by another version of stdauth")
	}
	return cmp.Or(checkEdited(line), errors.New("not a file of stdauth"))
}

func decodeLine(line []byte) (c change, err error) {
	if len(line) > maxLine {
		return c, errors.New("it is too long")
	}
	if err := cmp.Or(checkEdited(line), checkSum(line)); err != nil {
		return c, err
	}
	return c, json.Unmarshal(line, &c)
}

// errEdited marks an error that says how to repair a file that an editor has changed.
var errEdited = errors.New("an editor has changed it")

func checkEdited(line []byte) error {
	for _, mark := range []string{"\xEF\xBB\xBF", "\xFE\xFF", "\xFF\xFE"} { // of UTF-8 and UTF-16
		if bytes.HasPrefix(line, []byte(mark)) {
			return fmt.Errorf("%w: it begins with a byte order mark; save the file as UTF-8 without one", errEdited)
		}
	}
	if bytes.HasPrefix(line, []byte(crcOpening)) && bytes.HasSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")) {
		return fmt.Errorf("%w: it ends in CRLF; save the file with LF as line ends", errEdited)
	}
	return nil
}

// withoutEnd returns a line without its LF or CRLF.
func withoutEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// appendLine appends a change as a line of JSON. Its first member is the CRC-32 (IEEE)
// of the text after that member and its comma. The second, same_sync, is there if the
// line shares the sync of the line before.
func appendLine(b []byte, c change, shared bool) ([]byte, error) {
	object, err := json.Marshal(c)
	if err != nil {
		return b, err // a time with a year of five digits; no clock of now has one
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
