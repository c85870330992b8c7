package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// This file replaces the file of a store by one without outdated lines, while the store
// goes on in the old one:
//
//  1. The writer takes a snapshot, which is a copy of the list of accounts.
//  2. A goroutine writes it to a new file, and then the lines that the old file has
//     got since.
//  3. The writer adds the last of these lines and gives the new file the name.
//
// A crash leaves the name with one of the two files, and each of them has every change
// that was acknowledged by then. The new file is synced in pieces, because a disk that
// is busy with all of it would let the writer wait.

type compaction struct {
	store    *FileStore
	accounts []*account // the snapshot
	lastID   int64
	old      file
	copied   int64 // bytes of the old file that the new one contains

	file  file // the new one
	piece []byte
	size  int64 // bytes before the piece
	live  int64 // bytes of the snapshot

	stop chan struct{} // closed to give up
	done chan struct{} // closed when err is set, or only the last lines are missing
	err  error
}

const (
	compactPiece  = 1 << 18 // bytes between two syncs of the new file
	compactRounds = 8       // of lines from the old file, before the writer adds the rest
)

// newCompaction takes the snapshot.
func (f *FileStore) newCompaction(m *MemoryStore) *compaction {
	return &compaction{
		store: f, accounts: slices.Clone(m.accounts), lastID: m.lastID, old: f.file, copied: f.size,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// startCompaction is called by the writer.
func (f *FileStore) startCompaction() {
	c := f.newCompaction(f.shown)
	f.compacting = c
	go func() {
		defer close(c.done)
		c.err = c.write()
	}()
}

// finishCompaction is called by the writer when the goroutine is done.
func (f *FileStore) finishCompaction() {
	c, before := f.compacting, f.size
	f.compacting = nil
	if failed, err := f.replaceFile(c); err != nil && failed {
		f.fail(err)
	} else if err != nil {
		f.log.Warn("could not compact the store; it goes on in the old file", "file", f.name, "error", err)
		f.live = f.size // try again when it has doubled
	} else {
		f.shown.mu.Lock()
		f.compactions++
		f.shown.mu.Unlock()
		f.log.Debug("compacted the store", "file", f.name, "from", before, "to", f.size)
	}
}

// stopCompaction removes the new file, if there is one. It is called by the writer.
func (f *FileStore) stopCompaction() {
	if c := f.compacting; c != nil {
		f.compacting, f.live = nil, f.size // try again when it has doubled
		close(c.stop)
		<-c.done
		c.discard()
	}
}

// write creates and writes the new file. Nothing is written through a link that has its
// name.
func (c *compaction) write() (err error) {
	f := c.store
	f.folder.Remove(f.name + ".new")
	if c.file, err = f.folder.OpenFile(f.name+".new", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := c.writeSnapshot(); err != nil {
		return err
	}
	c.live = c.size
	for range compactRounds {
		f.shown.mu.RLock()
		end := f.size
		f.shown.mu.RUnlock()
		if end-c.copied < int64(f.pieceSize) {
			break
		}
		if err := c.copyLines(end); err != nil {
			return err
		}
	}
	return nil
}

func (c *compaction) writeSnapshot() error {
	c.piece = append(c.piece, fileHeader...)
	now := time.Now()
	for _, a := range c.accounts {
		if a == nil {
			continue
		}
		if err := c.put(change{ID: a.user.ID, User: a.user}); err != nil {
			return err
		}
		for _, s := range a.sessions {
			if s.Live(a.user.Epoch, now) {
				if err := c.put(change{ID: a.user.ID, Session: &s}); err != nil {
					return err
				}
			}
		}
	}
	if c.lastID > 0 { // last, because afterwards only higher IDs are accepted
		if err := c.put(change{LastID: c.lastID}); err != nil {
			return err
		}
	}
	return c.flush()
}

func (c *compaction) put(next change) (err error) {
	if c.piece, err = appendLine(c.piece, next, false); err == nil && len(c.piece) >= c.store.pieceSize {
		start := time.Now()
		err = c.flush()
		time.Sleep(time.Since(start)) // so the writer has the disk at least half of the time
	}
	return err
}

// copyLines adds the lines of the old file up to end.
func (c *compaction) copyLines(end int64) error {
	for c.copied < end {
		n := min(end-c.copied, int64(c.store.pieceSize))
		c.piece = slices.Grow(c.piece[:0], int(n))[:n]
		if _, err := c.old.ReadAt(c.piece, c.copied); err != nil {
			return err
		}
		c.copied += n
		if err := c.flush(); err != nil {
			return err
		}
	}
	return nil
}

// flush writes and syncs the piece, and empties it.
func (c *compaction) flush() error {
	select {
	case <-c.stop:
		return errors.New("stopped")
	default:
	}
	if _, err := c.file.WriteAt(c.piece, c.size); err != nil {
		return err
	}
	c.size += int64(len(c.piece))
	c.piece = c.piece[:0]
	return c.file.Sync()
}

// discard closes and removes the new file, if there is one.
func (c *compaction) discard() error {
	if c.file == nil {
		return nil
	}
	return errors.Join(c.file.Close(), c.store.folder.Remove(c.store.name+".new"))
}

// replaceFile gives the new file its last lines and the name. After an error, it reports
// whether the name may have another file than f.file, so that the store has failed.
func (f *FileStore) replaceFile(c *compaction) (failed bool, err error) {
	if err = c.err; err == nil {
		err = c.copyLines(f.size)
	}
	if err == nil {
		err = f.ours()
		failed = err != nil // another program has replaced it
	}
	if err == nil {
		err = f.folder.Rename(f.name+".new", f.name)
	}
	if err != nil {
		return failed, errors.Join(err, c.discard())
	}
	go f.file.Close() // which frees the space of a large file, and that takes a while
	f.shown.mu.Lock()
	f.file, f.size, f.live = c.file, c.size, c.live
	f.shown.mu.Unlock()
	// The name must be durable before a change that only the new file has is
	// acknowledged.
	return true, f.folder.Sync()
}

// Import replaces the empty file, as a compaction does. So an import that is interrupted
// leaves nothing behind.
func (f *FileStore) Import(ctx context.Context, users []User, lastID int64) error {
	whole := NewMemoryStore(f.ahead.life)
	if err := whole.Import(ctx, users, lastID); err != nil {
		return err
	}
	f.ahead.mu.Lock()
	if f.ahead.lastID != 0 {
		f.ahead.mu.Unlock()
		return f.settle(ErrNotEmpty)
	}
	defer f.ahead.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	// Nothing was ever changed, so the writer does not use the file.
	c := f.newCompaction(whole)
	defer context.AfterFunc(ctx, func() { close(c.stop) })()
	c.err = c.write()
	if failed, err := f.replaceFile(c); err != nil {
		if failed {
			f.failed = unavailable(err)
		}
		return err
	}
	f.ahead.become(whole)
	f.shown.mu.Lock()
	defer f.shown.mu.Unlock()
	f.shown.become(whole)
	return nil
}
