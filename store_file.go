package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A FileStore is a [MemoryStore] whose changes are also lines of a file. It
// promises:
//
//   - When a method returns nil, the change is on the disk: written, and the
//     disk told to keep it (fsync). A crash of the process, the system or the
//     power loses none of them, and readers never see one that could be lost.
//   - After a crash the file may end in a line that was never acknowledged and
//     is not whole. It is dropped, with a warning. Damage anywhere else stops
//     the start, with the number of the line, and the file is left as it was.
//   - After a write or a sync that failed nobody knows what the disk holds
//     (Rebello and others, "Can Applications Recover from fsync Failures?",
//     USENIX ATC 2020), so the store takes no more changes until it is opened
//     again. It still answers reads.
//   - Two processes never use one file.
//
// The file is JSON Lines: a header, then one change a line in the order in
// which they happened. Each line has a checksum of the text behind it. A line
// without one is taken as it is, so that a file may be written by hand.
//
//	{"format":"stdauth","version":1}
//	{"crc":"5b0c6b6e","id":1,"user":{"id":1,"username":"johndoe",...}}
//	{"crc":"00c4d0e1","id":1,"session":{"id":"IYV3...","generation":1,...}}
//	{"crc":"7d21a9f4","id":1,"ended":"IYV3..."}
//
// Changes that come while the disk is busy wait together and share the next
// sync. When what is out of date outweighs what is not, the file is written
// anew beside itself and takes its own place.
type FileStore struct {
	*MemoryStore
	path string
	log  *slog.Logger
	lock *os.File

	// Guarded by MemoryStore.mu.
	filling *batch // changes to write next
	writing *batch // changes being written, or those written last
	failed  error  // why no more changes are taken, or nil
	closed  bool

	wake    chan struct{} // has room for one: there is something to write
	stopped chan struct{} // closed when the writer has ended

	// The writer's own.
	file       appender
	spare      []byte // a buffer for the next batch but one
	size       int64  // bytes in the file
	live       int64  // bytes of it that a compaction would leave, about
	lastID     int64  // the highest ID in the file
	compacting bool
	compacted  chan *compaction
}

// An appender is the part of *os.File that the writer uses.
type appender interface {
	io.WriteCloser
	Sync() error
}

// A batch is changes that share a sync.
type batch struct {
	lines   []byte
	changes []change
	next    []*account    // what each change makes of its account
	done    chan struct{} // closed when all are durable, or err is set
	err     error
}

const (
	fileHeader = `{"format":"stdauth","version":1}` + "\n"

	maxLine = 1 << 16 // bytes; ours are under 4,000

	// A small file is not compacted before it has grown by so much.
	compactSlack = 64 << 10 // bytes
)

var errLocked = errors.New("another process is using it")

// OpenFileStore opens the store in the file at path, made if absent. Cancelling
// ctx stops the reading of a large one.
func OpenFileStore(ctx context.Context, path string, log *slog.Logger) (*FileStore, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	file.Close()
	// Where path is a link, it is the file that will be replaced, not the link.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	f := &FileStore{
		MemoryStore: NewMemoryStore(), path: path, log: log, lock: lock, filling: newBatch(), writing: newBatch(),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), compacted: make(chan *compaction, 1),
	}
	close(f.writing.done) // there was nothing to write
	if err := f.load(ctx); err != nil {
		lock.Close()
		return nil, err
	}
	f.persist = f.enqueue
	go f.write()
	return f, nil
}

// load reads the file, and leaves it open at its end.
func (f *FileStore) load(ctx context.Context) (err error) {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	lines, whole, err := replayFile(ctx, f.MemoryStore, file, f.log)
	if err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size > whole {
		f.log.Warn("dropped the last line: it was not written to its end, and never acknowledged",
			"file", f.path, "line", lines+1, "bytes", size-whole)
	}
	if err := errors.Join(file.Truncate(whole), file.Chmod(0o600)); err != nil {
		return err
	}
	if _, err := file.Seek(whole, io.SeekStart); err != nil {
		return err
	}
	if whole == 0 {
		if _, err := file.WriteString(fileHeader); err != nil {
			return err
		}
		lines, whole = 1, int64(len(fileHeader))
	}
	os.Remove(f.path + ".new") // what a compaction that was cut off has left
	needed := int64(1)         // lines
	for _, a := range f.accounts {
		needed += 1 + int64(len(a.sessions))
	}
	f.file, f.size, f.live, f.lastID = file, whole, whole*needed/max(lines, needed), f.MemoryStore.lastID
	return errors.Join(file.Sync(), syncDir(f.path))
}

// ReadFileStore reads the accounts of a file store that may be in use, and
// changes nothing.
func ReadFileStore(ctx context.Context, path string, log *slog.Logger) (*MemoryStore, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m := NewMemoryStore()
	_, whole, err := replayFile(ctx, m, file, log)
	if err == nil && whole == 0 {
		err = errors.New("the file is empty")
	}
	return m, err
}

// replayFile makes all the changes in file. It returns how many lines and bytes
// are whole: what follows them, if anything, is a torn last line.
func replayFile(ctx context.Context, m *MemoryStore, file *os.File, log *slog.Logger) (lines, whole int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, 0, errors.New("not a regular file")
	}
	r := bufio.NewReaderSize(file, maxLine)
	for said := time.Now(); ; lines++ {
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
		if lines%1024 != 0 {
			continue
		}
		if ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			log.Info("reading the store", "file", file.Name(), "percent", 100*whole/max(info.Size(), 1), "lines", lines)
		}
	}
}

// torn reports whether all that follows offset is one line which a crash cut
// off: it has no end, or zero bytes where the data had not come yet.
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
	var c change
	if err := checkSum(line); err != nil {
		return err
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	return m.replay(c)
}

const crcOpening = `{"crc":"`

// appendLine appends the line of a change: its JSON, with a first member that
// is the CRC-32 (IEEE) of all behind that member and its comma.
func appendLine(b []byte, c change) (_ []byte, err error) {
	given := b
	b = append(b, crcOpening+`00000000",`...)
	summed := len(b)
	if c == (change{ID: c.ID, Session: c.Session}) && c.Session != nil {
		b, err = appendSession(b, c)
	} else {
		var object []byte
		object, err = json.Marshal(c)
		b = append(b, bytes.TrimPrefix(object, []byte("{"))...)
	}
	if err != nil {
		return given, err
	}
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE(b[summed:]))
	hex.Encode(b[len(given)+len(crcOpening):], sum[:])
	b = append(b, '\n')
	if n := len(b) - len(given); n > maxLine {
		return given, fmt.Errorf("a change of %d bytes is too long for a line", n)
	}
	return b, nil
}

// appendSession appends what encoding/json would, but for the first brace and for
// <, > and &, which it lets stand, in a sixth of the time: nearly every change is
// a session's.
func appendSession(b []byte, c change) (_ []byte, err error) {
	number := func(name string, n int64) {
		b = strconv.AppendInt(append(b, name...), n, 10)
	}
	date := func(name string, t time.Time) {
		text, wrong := t.AppendText(append(b, name...))
		if wrong != nil {
			err = wrong // a year of five digits
			return
		}
		b = append(text, '"')
	}
	s := c.Session
	number(`"id":`, c.ID)
	b = appendText(append(b, `,"session":{"id":`...), s.ID)
	number(`,"user_id":`, s.UserID)
	if s.Epoch != 0 {
		number(`,"epoch":`, s.Epoch)
	}
	number(`,"generation":`, s.Generation)
	date(`,"created_at":"`, s.CreatedAt)
	date(`,"last_used_at":"`, s.LastUsedAt)
	date(`,"expires_at":"`, s.ExpiresAt)
	if s.UserAgent != "" {
		b = appendText(append(b, `,"user_agent":`...), s.UserAgent)
	}
	if s.IP != "" {
		b = appendText(append(b, `,"ip":`...), s.IP)
	}
	return append(b, "}}"...), err
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

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (b *batch) wait() error {
	<-b.done
	return b.err
}

// enqueue is MemoryStore.persist.
func (f *FileStore) enqueue(c change, next *account) (wait func() error, err error) {
	b := f.filling
	switch {
	case f.failed != nil:
		return nil, f.failed
	case f.closed:
		return nil, fmt.Errorf("%w: it is closed", ErrUnavailable)
	case c == change{} && len(b.lines) == 0:
		return f.writing.wait, nil
	case c == change{}:
		return b.wait, nil
	}
	if b.lines, err = appendLine(b.lines, c); err != nil {
		return nil, err
	}
	b.changes, b.next = append(b.changes, c), append(b.next, next)
	select {
	case f.wake <- struct{}{}:
	default: // the writer has been woken already
	}
	return b.wait, nil
}

// Ready says why the store takes no changes, if so.
func (f *FileStore) Ready(ctx context.Context) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.failed
}

// Close writes what waits to be written, and lets another process have the
// file.
func (f *FileStore) Close() error {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return nil
	}
	close(f.wake)
	<-f.stopped
	return errors.Join(f.file.Close(), f.lock.Close())
}

// write is the writer: until Close, it alone touches the file.
func (f *FileStore) write() {
	defer close(f.stopped)
	for {
		select {
		case _, open := <-f.wake:
			f.flush()
			if !open {
				if f.compacting {
					f.abandon(<-f.compacted)
				}
				return
			}
			if f.size > 2*f.live+compactSlack && !f.compacting {
				f.compacting = true
				go f.compact(f.snapshot())
			}
		case c := <-f.compacted:
			f.compacting = false
			if err := f.replace(c); err != nil {
				f.abandon(c)
				f.log.Warn("could not compact the store; it goes on in the old file", "file", f.path, "error", err)
				f.live = f.size // not again before it has doubled
			}
		}
	}
}

// flush writes all that waits, syncs it, and lets readers see it.
func (f *FileStore) flush() {
	f.mu.Lock()
	b := f.filling
	if len(b.lines) == 0 {
		f.mu.Unlock()
		return
	}
	f.filling, f.writing = newBatch(), b
	f.filling.lines = f.spare[:0]
	f.mu.Unlock()

	if b.err = f.failed; b.err == nil { // only the writer sets it
		_, b.err = f.file.Write(b.lines)
	}
	if b.err == nil {
		b.err = f.file.Sync()
	}
	if b.err != nil {
		b.err = f.fail(b.err)
		close(b.done)
		return
	}
	f.size += int64(len(b.lines))
	f.spare = b.lines

	f.mu.Lock()
	for i, c := range b.changes {
		f.publish(c, b.next[i])
		f.sweep(c)
		f.lastID = max(f.lastID, c.ID, c.LastID)
	}
	f.mu.Unlock()
	close(b.done)
}

// fail makes the store take no more changes. Only the writer calls it.
func (f *FileStore) fail(cause error) error {
	if f.failed != nil {
		return f.failed
	}
	f.log.Error("the store takes no more changes until the server is started again", "file", f.path, "error", cause)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	return f.failed
}

// A compaction is a file without outdated lines on its way to take the place of
// the one in use.
type compaction struct {
	accounts []*account
	lastID   int64
	from     int64 // what the old file has from here on is not in accounts

	file *os.File
	size int64 // bytes written
	err  error
}

// snapshot returns what the file says now. Accounts are never changed in place,
// so a copy of the list is enough.
func (f *FileStore) snapshot() *compaction {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return &compaction{accounts: slices.Clone(f.accounts), lastID: f.lastID, from: f.size}
}

// compact writes the new file while requests, and the writer, go on.
func (f *FileStore) compact(c *compaction) {
	c.file, c.err = os.OpenFile(f.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if c.err == nil {
		c.err = errors.Join(c.writeLines(), c.file.Sync())
	}
	f.compacted <- c
}

func (c *compaction) writeLines() error {
	w := bufio.NewWriterSize(c.file, 1<<20)
	n, err := w.WriteString(fileHeader)
	c.size = int64(n)
	var line []byte
	put := func(ch change) {
		if err == nil {
			line, err = appendLine(line[:0], ch)
			c.size += int64(len(line))
			w.Write(line) // w keeps its first error for Flush
		}
	}
	now := time.Now()
	for _, a := range c.accounts {
		u := a.user()
		put(change{ID: a.id, User: &u})
		for _, s := range a.live(now) {
			put(change{ID: a.id, Session: &s})
		}
	}
	if c.lastID > 0 {
		put(change{LastID: c.lastID}) // last: no new account may have an ID below it
	}
	return errors.Join(err, w.Flush())
}

// replace adds to the new file what has been written to the old since the
// snapshot, and gives it the name of the old. If it returns an error, all is as
// it was.
func (f *FileStore) replace(c *compaction) error {
	if c.err != nil || f.failed != nil {
		return errors.Join(c.err, f.failed)
	}
	old, err := os.Open(f.path)
	if err != nil {
		return err
	}
	tail, err := io.Copy(c.file, io.NewSectionReader(old, c.from, f.size-c.from))
	if err := errors.Join(err, old.Close(), c.file.Sync(), c.file.Close()); err != nil {
		return err
	}
	f.file.Close() // Windows does not replace a file that is open
	renamed := os.Rename(f.path+".new", f.path)
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0) // whichever has the name now
	if err == nil {
		f.file = file
	}
	if renamed != nil && err == nil {
		return renamed
	}
	// The name must last before anything is acknowledged that only the new
	// file holds.
	if err := errors.Join(err, syncDir(f.path)); err != nil {
		f.fail(err)
		return nil
	}
	f.log.Debug("compacted the store", "file", f.path, "from", f.size, "to", c.size+tail)
	f.live, f.size = c.size, c.size+tail
	return nil
}

func (f *FileStore) abandon(c *compaction) {
	if c.file != nil {
		c.file.Close()
		os.Remove(c.file.Name())
	}
}

// syncDir makes the name of the file at path last.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there; NTFS keeps a journal of its own
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
