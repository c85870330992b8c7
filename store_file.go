package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A FileStore is two memory stores with a log between them. A change is decided and
// made on ahead and joins a batch; the batch is written to the file and synced; then
// the change is made on shown, and the method returns. Reads use shown, so they see
// nothing that could still be lost. It promises:
//
//   - When a method returns, with or without an error, everything that its result
//     depends on is written to the disk and synced (fsync). A crash of the process or
//     the system, or a power cut, does not lose it.
//   - After a crash the file may end in torn lines, which were never acknowledged.
//     They are dropped with a warning. Damage anywhere else stops the start with the
//     line number, and the file is left as it was.
//   - After a failed write or sync the contents of the disk are unknown (Rebello and
//     others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The
//     store takes no more changes until it is opened again, which writes the last
//     lines once more. It still serves reads.
//   - Two processes never use one file. If another program replaces it or changes its
//     length, the store takes no more changes.
//
// When more than half of the file is out of date, a compaction writes the rest to a new
// file, which then takes the place of the old one. Changes go on meanwhile.
type FileStore struct {
	Reader  // shown
	Changer // ahead

	shown, ahead *MemoryStore
	folder       folder
	name         string // of the file in the folder
	log          *slog.Logger

	// Guarded by ahead.mu.
	next   *batch // changes to write next
	newest *batch // the batch of the last change
	failed error  // if set, the store takes no more changes
	closed bool

	wake    chan struct{} // of capacity 1: next has changes
	stopped chan struct{} // closed when the writer has ended

	// Changed under shown.mu by the writer, and by an import before its first change.
	file        file
	size        int64 // bytes in the file, all synced
	compactions int
	live        int64 // bytes that a compaction would leave, roughly; without shown.mu

	compacting *compaction // if one is under way; of the writer alone
	pieceSize  int         // see compactPiece
}

// A batch is changes that share a sync.
type batch struct {
	lines   []byte
	changes []change
	done    chan struct{} // closed when the changes are durable and shown, or err is set
	err     error
}

// compactSlack is how far a file may grow beyond twice its live contents before it is
// compacted.
const compactSlack = 64 << 10 // bytes

// OpenFileStore opens the store in the file at path, which is created if absent.
// Cancelling ctx stops the reading of a large file.
func OpenFileStore(ctx context.Context, path string, life Lifetimes, log *slog.Logger) (*FileStore, error) {
	// A compaction replaces the file, not a link to it.
	target, err := filepath.EvalSymlinks(path)
	if err == nil {
		path = target
	} else if _, exists := os.Lstat(path); exists == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil, err // perhaps a link to a file that is absent
	}
	folder, err := openFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	f, err := openFileStore(ctx, folder, filepath.Base(path), life, log)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return f, nil
}

// openFileStore opens the store in a file of the folder, which it owns afterwards.
func openFileStore(ctx context.Context, in folder, name string, life Lifetimes, log *slog.Logger) (*FileStore, error) {
	f := &FileStore{
		ahead: NewMemoryStore(life), folder: in, name: name, log: log, next: newBatch(), newest: newBatch(),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), pieceSize: compactPiece,
	}
	close(f.newest.done) // no change is under way
	if err := f.load(ctx); err != nil {
		return nil, err
	}
	f.shown = NewMemoryStore(life)
	f.shown.become(f.ahead)
	f.ahead.record, f.ahead.settle = f.record, f.settle
	f.Reader, f.Changer = f.shown, f.ahead
	go f.write()
	return f, nil
}

// load opens the file and makes its changes. If that fails, it leaves no new file.
func (f *FileStore) load(ctx context.Context) (err error) {
	f.file, err = f.folder.OpenFile(f.name, os.O_RDWR, 0)
	created := errors.Is(err, fs.ErrNotExist)
	if created {
		f.file, err = f.folder.OpenFile(f.name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && created {
			f.folder.Remove(f.name)
		}
		if err != nil {
			f.file.Close()
		}
	}()
	found, err := loadFile(ctx, f.ahead, f.file)
	if err != nil {
		return err
	}
	if err := f.mend(&found); err != nil {
		return err
	}
	needed, now := int64(1), time.Now() // lines
	for _, a := range f.ahead.accounts {
		if a != nil {
			a.bound(f.ahead.life, now)
			needed += 1 + int64(len(a.sessions))
		}
	}
	f.size, f.live = found.whole, found.whole*needed/max(found.lines, needed)
	f.folder.Remove(f.name + ".new") // of a compaction that was interrupted
	return errors.Join(f.file.Sync(), f.folder.Sync(), f.ours())
}

// bound fixes the end of the sessions whose times are in the future. Otherwise it would
// move with each read. It changes them in place: nobody else has the account yet.
func (a *account) bound(life Lifetimes, now time.Time) {
	for i, s := range a.sessions {
		if s != s.bounded(now) {
			a.sessions[i] = s.Within(life, now)
		}
	}
}

// mend drops what a crash has left of the last lines, and adds what a new file or one
// that was written by hand lacks.
func (f *FileStore) mend(found *loaded) error {
	if dropped := found.size - found.whole; dropped > 0 {
		f.log.Warn("dropped the last lines: they are incomplete and were never acknowledged", "file", f.name, "line", found.lines+1, "bytes", dropped)
	}
	if err := errors.Join(f.file.Truncate(found.whole), f.file.Chmod(0o600)); err != nil {
		return err
	}
	missing := ""
	if found.whole == 0 {
		missing, found.lines = fileHeader, 1
	} else if found.unended {
		missing = "\n"
	}
	if n, err := io.WriteString(io.NewOffsetWriter(f.file, found.whole), missing); err != nil {
		return err
	} else {
		found.whole += int64(n)
	}
	// After a failed sync these lines may be only in the system's cache, which considers
	// them written.
	last := io.NewSectionReader(f.file, found.synced, found.whole-found.synced)
	_, err := io.Copy(io.NewOffsetWriter(f.file, found.synced), last)
	return err
}

// ReadFileStore reads the accounts of a file store that may be in use. It changes
// nothing.
func ReadFileStore(ctx context.Context, path string) (*MemoryStore, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m := NewMemoryStore(Lifetimes{})
	found, err := loadFile(ctx, m, file)
	switch {
	case err != nil:
		return nil, err
	case found.whole == 0:
		return nil, errors.New("the file is empty")
	case found.whole < found.size:
		return nil, fmt.Errorf("line %d: it is incomplete; if no server is writing it, remove or complete it", found.lines+1)
	}
	return m, nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// record is ahead's record function: it adds a change to the next batch.
func (f *FileStore) record(c change) (err error) {
	if err := f.usable(); err != nil {
		return err
	}
	if f.next.lines, err = appendLine(f.next.lines, c, len(f.next.changes) > 0); err != nil {
		return err
	}
	f.next.changes = append(f.next.changes, c)
	f.newest = f.next
	select {
	case f.wake <- struct{}{}:
	default: // the writer is awake
	}
	return nil
}

func (f *FileStore) usable() error {
	if f.closed {
		return unavailable(errors.New("it is closed"))
	}
	return f.failed
}

// become gives m the contents of another store.
func (m *MemoryStore) become(other *MemoryStore) {
	m.ids, m.accounts, m.deleted = slices.Clone(other.ids), slices.Clone(other.accounts), other.deleted
	m.names, m.lastID, m.swept = maps.Clone(other.names), other.lastID, other.swept
}

// settle is ahead's settle function: it waits until all changes so far are durable, and
// returns err, or the error if they are not. A refusal waits too, because it may depend
// on a change that was made just before.
func (f *FileStore) settle(err error) error {
	f.ahead.mu.RLock()
	b := f.newest
	f.ahead.mu.RUnlock()
	<-b.done
	if b.err != nil {
		return b.err
	}
	return err
}

// Ready returns an error if the store takes no more changes.
func (f *FileStore) Ready(ctx context.Context) error {
	f.ahead.mu.RLock()
	defer f.ahead.mu.RUnlock()
	return f.failed
}

// Metrics returns samples for [metrics].
func (f *FileStore) Metrics() map[string]float64 {
	f.shown.mu.RLock()
	defer f.shown.mu.RUnlock()
	return map[string]float64{
		"stdauth_store_file_bytes":        float64(f.size),
		"stdauth_store_compactions_total": float64(f.compactions),
	}
}

// Close writes the last changes and releases the file.
func (f *FileStore) Close() error {
	f.ahead.mu.Lock()
	closed := f.closed
	f.closed = true
	f.ahead.mu.Unlock()
	if closed {
		return nil
	}
	close(f.wake)
	<-f.stopped
	return errors.Join(f.file.Close(), f.folder.Close())
}

// write is the writer. Until Close, nothing else writes to the file.
func (f *FileStore) write() {
	defer close(f.stopped)
	defer f.stopCompaction()
	for {
		var compacted chan struct{}
		if f.compacting != nil {
			compacted = f.compacting.done
		}
		select {
		case _, open := <-f.wake:
			if !open {
				return
			}
			if f.flush() && f.compacting == nil {
				f.startCompaction()
			}
		case <-compacted:
			f.finishCompaction()
		}
	}
}

// flush writes and syncs the next batch and makes its changes on shown. It reports
// whether the file should be compacted.
func (f *FileStore) flush() (grown bool) {
	f.ahead.mu.Lock()
	b := f.next
	f.next = newBatch()
	f.ahead.mu.Unlock()
	if len(b.changes) == 0 {
		return false
	}
	defer close(b.done)
	if b.err = f.failed; b.err != nil { // set by the writer or a failed import
		return false
	}
	if b.err = f.ours(); b.err == nil {
		b.err = f.append(b.lines)
	}
	if b.err != nil {
		b.err = f.fail(b.err)
		return false
	}
	f.shown.mu.Lock()
	defer f.shown.mu.Unlock()
	f.size += int64(len(b.lines))
	for _, c := range b.changes {
		f.shown.apply(c)
	}
	return f.size > 2*f.live+compactSlack
}

// append writes and syncs lines at the end of the file.
func (f *FileStore) append(lines []byte) error {
	_, err := f.file.WriteAt(lines, f.size)
	if err != nil && f.compacting != nil {
		f.stopCompaction() // the new file may have taken the last space
		_, err = f.file.WriteAt(lines, f.size)
	}
	if err != nil {
		return err
	}
	return f.file.Sync()
}

// fail makes the store take no more changes. The writer calls it.
func (f *FileStore) fail(cause error) error {
	f.stopCompaction()
	f.log.Error("the store takes no more changes until the server is started again", "file", f.name, "error", cause)
	f.ahead.mu.Lock()
	defer f.ahead.mu.Unlock()
	f.failed = unavailable(cause)
	return f.failed
}

// ours returns an error if another program has replaced or changed the file. The next
// start would miss what is written to it.
func (f *FileStore) ours() error {
	same, err := f.folder.Holds(f.name, f.file)
	if err == nil && !same {
		return errors.New("another file has taken its place")
	}
	if err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err == nil && info.Size() != f.size {
		err = errors.New("another program has changed it")
	}
	return err
}
