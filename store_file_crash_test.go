package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// This file simulates power cuts. A history of changes runs on a disk in memory, which
// knows which writes are durable. After each step of the disk, the store is opened on
// every state that a power cut could leave (Pillai and others, "All File Systems Are Not
// Created Equal", OSDI 2014). It must hold all changes acknowledged by then, perhaps some
// of the next ones, and no part of a change.

var (
	crashHistories = flag.Int("crashhistories", 4, "number of histories with power cuts")
	crashBytes     = flag.Bool("crashbytes", false, "cut the power at every byte, not only around the ends of lines")
)

// TestNoCrashStateLosesWhatWasAcknowledged plays random histories on a disk that keeps
// the promises of POSIX.
func TestNoCrashStateLosesWhatWasAcknowledged(t *testing.T) {
	all := map[string]int{}
	for seed := range uint64(*crashHistories) {
		h, err := playHistory(t, seed, faults{})
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		h.count["batches of more than one change"] = h.disk.shared
		for what, n := range h.count {
			all[what] += n
		}
	}
	t.Logf("%d histories: %v", *crashHistories, all)
	for _, what := range []string{"compactions", "power cuts", "kills", "restarts", "failed steps", "batches of more than one change", "refusals"} {
		if all[what] == 0 {
			t.Errorf("the histories have no %s, want some", what)
		}
	}
}

// TestCrashStatesFindAFaultyDisk shows that the test above can fail: each of these disks
// breaks one promise that the store relies on.
func TestCrashStatesFindAFaultyDisk(t *testing.T) {
	for name, faulty := range map[string]faults{
		"a disk that does not sync files is found":                             {noSync: true},
		"a disk that does not sync the directory after a rename is found":      {noFolderSync: true},
		"a disk that syncs a file after its rename instead of before is found": {lateSync: true},
		"a disk that does not truncate files is found":                         {noTruncate: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				if h, err := playHistory(t, seed, faulty); err != nil {
					t.Logf("history %d, of %v: %v", seed, h.count, err)
					return
				}
			}
			t.Error("50 histories on this disk have no error, want one")
		})
	}
}

// A history is a store on a disk, and a model that gets the same changes.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	disk  *disk
	store *FileStore
	as    *process // of the store

	// The states of the model, from the last one known to be durable to the newest. The
	// contents of the store must be those of one of them.
	versions []version
	clients  []*client // with changes under way
	seen     map[uint64]string

	count map[string]int // what happened
	last  string         // step of the disk
}

// A version is the model after a change, with its contents as text.
type version struct {
	number int
	model  *modelStore
	text   string
}

// A client waits for the result of a change.
type client struct {
	call    string
	version int   // of the model, after the change
	want    error // the result of the model
	result  chan error
}

const (
	historyLength = 200 // changes
	crashFile     = "users.jsonl"
)

// playHistory returns an error if a power cut breaks a promise.
func playHistory(t *testing.T, seed uint64, f faults) (h *history, err error) {
	synctest.Test(t, func(t *testing.T) {
		h = &history{t: t, rng: rand.New(rand.NewPCG(seed, 0)), disk: newDisk(nil), seen: map[uint64]string{}, count: map[string]int{}}
		h.disk.faults, h.disk.stepped = f, true
		h.versions = []version{{model: newModelStore(), text: contentsText(newModelStore(), 0)}}
		err = h.play()
		h.kill()
		if err != nil {
			err = fmt.Errorf("step %d (%s): %w", h.count["steps"], h.last, err)
		}
	})
	return h, err
}

func (h *history) play() error {
	if err := h.open(); err != nil {
		return err
	}
	for h.count["changes"] < historyLength {
		if err := h.next(); err != nil {
			return err
		}
	}
	return h.restart()
}

// next makes one random step.
func (h *history) next() error {
	idle := len(h.clients) == 0 && h.disk.waiting() == 0
	switch n := h.rng.IntN(1000); {
	case h.store.Ready(h.t.Context()) != nil:
		return h.restart()
	case n < 5:
		h.count["kills"]++
		h.kill()
		return h.open()
	case n < 45:
		return h.cutPower()
	case n < 50 && idle:
		return h.restart()
	case n < 70 && idle:
		h.store.live = -compactSlack               // the next change starts a compaction
		h.store.pieceSize = 200 + h.rng.IntN(2000) // which takes many steps, among others
	case n < 90 && idle:
		h.sleep()
	case n < 450 && len(h.clients) < 8:
		return h.begin()
	default:
		return h.step()
	}
	return nil
}

// sleep lets sessions expire.
func (h *history) sleep() {
	time.Sleep(10 * time.Minute)
	clear(h.seen)
	v := &h.versions[len(h.versions)-1] // every change is durable now
	v.text = contentsText(v.model, v.model.lastID)
	h.versions = []version{*v}
}

// begin starts a change. The store decides on it at once, as the model does, and returns
// when it is durable.
func (h *history) begin() error {
	newest := h.versions[len(h.versions)-1]
	op := randomOperation(h.rng, newest.model, 25)
	if strings.HasPrefix(op.call, "UserByName") {
		return nil // a read
	}
	c := &client{call: op.call, result: make(chan error, 1)}
	store := h.store
	go func() {
		_, err := op.do(store)
		c.result <- err
	}()
	synctest.Wait()
	model := newest.model.clone()
	_, c.want = op.do(model)
	if text := contentsText(model, model.lastID); text != newest.text {
		newest = version{newest.number + 1, model, text}
		h.versions = append(h.versions, newest)
	}
	c.version = newest.number
	h.clients = append(h.clients, c)
	return h.check()
}

// step lets the disk do one of the operations that wait for it, or fail at it.
func (h *history) step() error {
	n := h.disk.waiting()
	if n == 0 {
		return nil
	}
	var failure error
	if h.rng.IntN(150) == 0 {
		h.count["failed steps"]++
		failure = syscall.EIO
	}
	h.count["steps"]++
	h.last = h.disk.let(h.rng.IntN(n), failure)
	synctest.Wait()
	return h.check()
}

// until makes steps of the disk until done has a result.
func (h *history) until(done <-chan error) error {
	for {
		synctest.Wait()
		select {
		case err := <-done:
			return err
		default:
		}
		if h.disk.waiting() == 0 {
			return errors.New("deadlock: no operation waits for the disk, and there is no result")
		}
		if err := h.step(); err != nil {
			return err
		}
	}
}

// open opens the store on the files of the disk.
func (h *history) open() error {
	for {
		h.as = &process{disk: h.disk}
		done := make(chan error, 1)
		failures := h.count["failed steps"]
		go func() {
			var err error
			h.store, err = openInMemory(h.t, h.as)
			done <- err
		}()
		err := h.until(done)
		if err != nil && h.count["failed steps"] > failures && errors.Is(err, syscall.EIO) {
			continue // the disk failed; try again
		}
		if err != nil {
			return err
		}
		text := contentsText(h.store, h.store.shown.lastID)
		i := h.version(text)
		if i < 0 {
			return h.unexpected("the store opened again", text)
		}
		h.versions = h.versions[i : i+1]
		return nil
	}
}

// restart closes the store and opens it again.
func (h *history) restart() error {
	h.count["restarts"]++
	h.count["compactions"] += int(h.store.Metrics()["stdauth_store_compactions_total"])
	done := make(chan error, 1)
	go func() { done <- h.store.Close() }()
	if err := h.until(done); err != nil && !errors.Is(err, syscall.EIO) {
		return err
	}
	if err := h.check(); err != nil {
		return err
	}
	if len(h.clients) > 0 {
		return fmt.Errorf("the store is closed, and %s has not returned", h.clients[0].call)
	}
	h.store = nil
	return h.open()
}

// kill ends the process and its operations on the disk.
func (h *history) kill() {
	h.disk.kill(h.as)
	if h.store != nil {
		h.count["compactions"] += int(h.store.Metrics()["stdauth_store_compactions_total"])
		go h.store.Close()
	}
	synctest.Wait()
	h.store, h.clients = nil, nil // the results are lost
}

// cutPower continues with one of the states that a power cut may leave.
func (h *history) cutPower() error {
	left := h.disk.leftovers(*crashBytes)
	if len(left) == 1 {
		return h.step() // until a power cut could lose something
	}
	h.count["power cuts"]++
	h.kill()
	after := newDisk(left[h.rng.IntN(len(left))])
	after.faults, after.stepped, after.shared = h.disk.faults, true, h.disk.shared
	h.disk = after
	return h.open()
}

// check takes the results that have arrived, and then cuts the power in every way.
func (h *history) check() error {
	for i := len(h.clients) - 1; i >= 0; i-- {
		c := h.clients[i]
		select {
		case err := <-c.result:
			h.clients = slices.Delete(h.clients, i, i+1)
			if err := h.finished(c, err); err != nil {
				return err
			}
		default:
		}
	}
	if h.store != nil {
		text := contentsText(h.store, h.store.shown.lastID)
		i := h.version(text)
		if i < 0 {
			return h.unexpected("the store of the readers", text)
		}
		h.acknowledged(h.versions[i].number)
	}
	for _, files := range h.disk.leftovers(*crashBytes) {
		h.count["states"]++
		key := maphash.String(hashSeed, files[crashFile])
		text, ok := h.seen[key]
		if !ok {
			h.count["states that differ"]++
			var err error
			if text, err = openLeftovers(h.t, files); err != nil {
				return fmt.Errorf("after a power cut: %w\n%s", err, showTail(files[crashFile]))
			}
			h.seen[key] = text
		}
		if h.version(text) < 0 {
			return fmt.Errorf("%w\n%s", h.unexpected("the store after a power cut", text), showTail(files[crashFile]))
		}
	}
	return nil
}

// finished compares a result with that of the model. Every result but ErrUnavailable
// promises that the changes up to this one are durable, even a refusal, which may depend
// on them.
func (h *history) finished(c *client, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return nil // the outcome is unknown
	}
	if !errors.Is(err, c.want) {
		return fmt.Errorf("%s: got error %v, want %v", c.call, err, c.want)
	}
	if err == nil {
		h.count["changes"]++
	} else {
		h.count["refusals"]++
	}
	h.acknowledged(c.version)
	return nil
}

// acknowledged drops the versions before number, which must not be read again.
func (h *history) acknowledged(number int) {
	h.versions = slices.DeleteFunc(h.versions, func(v version) bool { return v.number < number })
}

// version returns the index of the first version with this text, or -1.
func (h *history) version(text string) int {
	return slices.IndexFunc(h.versions, func(v version) bool { return v.text == text })
}

func (h *history) unexpected(what, text string) error {
	return fmt.Errorf("%s has none of the %d states since the last acknowledged change\n  got %s\n  acknowledged: %s", what, len(h.versions), text, h.versions[0].text)
}

func (m *modelStore) clone() *modelStore {
	return &modelStore{accounts: maps.Clone(m.accounts), logins: slices.Clone(m.logins), lastID: m.lastID}
}

// contentsText returns the accounts and sessions of a store, and its last ID, as text.
func contentsText(s Reader, lastID int64) string {
	var b strings.Builder
	users, err := s.Users(context.Background(), UserFilter{}, 0, 1000)
	fmt.Fprintln(&b, "last ID", lastID, err)
	for _, u := range users {
		sessions, err := s.Sessions(context.Background(), u.ID)
		fmt.Fprintln(&b, u, err)
		for _, s := range sessions {
			fmt.Fprintln(&b, "\t", s)
		}
	}
	return b.String()
}

// openLeftovers opens a store after a power cut and returns its contents.
func openLeftovers(t *testing.T, files map[string]string) (string, error) {
	d := newDisk(files)
	f, err := openInMemory(t, &process{disk: d})
	if err != nil {
		return "", fmt.Errorf("the store does not open: %w", err)
	}
	defer f.Close()
	if left := d.leftovers(false); len(left) > 1 {
		return "", fmt.Errorf("the store is open, but the next power cut could leave %d different states, want 1", len(left))
	}
	return contentsText(f.shown, f.shown.lastID), nil
}

func openInMemory(t *testing.T, p *process) (*FileStore, error) {
	return openFileStore(t.Context(), p, crashFile, testLife, slog.New(slog.DiscardHandler))
}

// showTail returns the end of a file, where the error is.
func showTail(text string) string { return fmt.Sprintf("...%q", text[max(0, len(text)-2000):]) }

var hashSeed = maphash.MakeSeed()

// A disk is a directory in memory. Like a file system without a data journal, it keeps
// the promises of POSIX and no more:
//
//   - Until a file is synced, its writes and its new length may be lost, in whole or in
//     part: each sector on its own, and any part of the end. A lost sector has its former
//     bytes, or zero bytes if it is new.
//   - Until the directory is synced, each created, renamed or removed name may have its
//     former state. A rename is atomic.
//   - After a failed sync of a file, reads return the written bytes, and the next sync
//     succeeds without writing them (Rebello and others, "Can Applications Recover from
//     fsync Failures?", USENIX ATC 2020). After a failed sync of the directory, the next
//     one syncs the same names, as a file system whose own journal fails stops completely.
type disk struct {
	faults
	stepped bool // each operation waits until the test releases it
	shared  int  // writes of more than one line

	mu      sync.Mutex
	turns   []turn
	names   map[string]*inode         // as read
	durable map[string]*inode         // as of the last sync of the directory
	changes []func(map[string]*inode) // from durable to names
}

// faults are promises that a disk breaks.
type faults struct{ noSync, noFolderSync, lateSync, noTruncate bool }

// A turn is an operation that waits for the disk. It gets nil to proceed, or the error
// of the disk.
type turn struct {
	step string
	do   chan error
}

// An inode is the contents of a file.
type inode struct {
	cache []byte       // as read
	disk  []byte       // as of the last sync
	dirty map[int]bool // sectors that the next sync writes
	lost  map[int]bool // sectors that a sync failed to write and no later sync will
	late  bool         // the sync comes only after the rename
}

// A process uses the disk as its folder until it is killed.
type process struct {
	*disk
	dead bool
}

// An openInode is a file that a process has opened.
type openInode struct {
	*inode
	name string // when it was opened
	by   *process
}

const sector = 512 // bytes

var errDead = errors.New("the process was killed")

func newDisk(files map[string]string) *disk {
	d := &disk{names: map[string]*inode{}}
	for name, text := range files {
		n := newInode()
		n.cache, n.disk = []byte(text), []byte(text)
		d.names[name] = n
	}
	d.durable = maps.Clone(d.names)
	return d
}

func newInode() *inode { return &inode{dirty: map[int]bool{}, lost: map[int]bool{}} }

// turn waits until the process may do the next step.
func (p *process) turn(step string) error {
	p.mu.Lock()
	if p.dead || !p.stepped {
		defer p.mu.Unlock()
		if p.dead {
			return errDead
		}
		return nil
	}
	mine := turn{step, make(chan error)}
	p.turns = append(p.turns, mine)
	slices.SortStableFunc(p.turns, func(a, b turn) int { return strings.Compare(a.step, b.step) })
	p.mu.Unlock()
	return <-mine.do
}

func (d *disk) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.turns)
}

// let releases one of the waiting operations and returns its step.
func (d *disk) let(i int, failure error) (step string) {
	d.mu.Lock()
	next := d.turns[i]
	d.turns = slices.Delete(d.turns, i, i+1)
	d.mu.Unlock()
	next.do <- failure
	return next.step
}

func (d *disk) kill(p *process) {
	d.mu.Lock()
	p.dead = true
	turns := d.turns
	d.turns = nil
	d.mu.Unlock()
	for _, t := range turns {
		t.do <- errDead
	}
}

// rename gives the file the name to, unless that is empty, and removes the name from.
func (d *disk) rename(n *inode, from, to string) {
	change := func(names map[string]*inode) {
		if names[from] == n {
			delete(names, from)
		}
		if to != "" {
			names[to] = n
		}
	}
	change(d.names)
	d.changes = append(d.changes, change)
}

func (p *process) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	p.mu.Lock()
	n, exists := p.names[name]
	p.mu.Unlock()
	switch {
	case exists && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case exists:
		return &openInode{n, name, p}, nil
	case flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	}
	if err := p.turn("create " + name); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n = newInode()
	p.rename(n, "", name)
	return &openInode{n, name, p}, nil
}

func (p *process) Close() error { return nil }

func (p *process) Holds(name string, f file) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[name] == f.(*openInode).inode, nil
}

func (p *process) Rename(from, to string) error {
	if err := p.turn("rename " + from); err != nil {
		return err
	}
	p.mu.Lock()
	n := p.names[from]
	p.rename(n, from, to)
	p.mu.Unlock()
	if n.late {
		return (&openInode{n, to, p}).sync()
	}
	return nil
}

func (p *process) Remove(name string) error {
	p.mu.Lock()
	n, exists := p.names[name]
	p.mu.Unlock()
	if !exists {
		return fs.ErrNotExist
	}
	if err := p.turn("remove " + name); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rename(n, name, "")
	return nil
}

func (p *process) Sync() error {
	if err := p.turn("sync the folder"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.noFolderSync || p.durable[crashFile] == nil {
		p.durable, p.changes = maps.Clone(p.names), nil
	}
	return nil
}

func (o *openInode) ReadAt(b []byte, offset int64) (int, error) {
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	return bytes.NewReader(o.cache).ReadAt(b, offset)
}

// WriteAt writes half of b if the disk fails.
func (o *openInode) WriteAt(b []byte, offset int64) (int, error) {
	err := o.by.turn("write to " + o.name)
	if err == errDead {
		return 0, err
	}
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	if o.by.names[crashFile] == o.inode && bytes.Count(b, []byte("\n")) > 1 {
		o.by.shared++
	}
	if err != nil {
		b = b[:len(b)/2]
	}
	end := int(offset) + len(b)
	if missing := end - len(o.cache); missing > 0 {
		o.cache = append(o.cache, make([]byte, missing)...)
	}
	copy(o.cache[offset:], b)
	for s := int(offset) / sector; s*sector < end; s++ {
		o.dirty[s] = true
		delete(o.lost, s)
	}
	return len(b), err
}

func (o *openInode) Truncate(size int64) error {
	if o.by.noTruncate || size == int64(len(o.cache)) {
		return nil
	}
	if err := o.by.turn("truncate " + o.name); err != nil {
		return err
	}
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	o.cache = slices.Clone(o.cache[:size])
	beyond := func(s int, _ bool) bool { return s*sector >= len(o.cache) }
	maps.DeleteFunc(o.dirty, beyond)
	maps.DeleteFunc(o.lost, beyond)
	return nil
}

func (o *openInode) Sync() error {
	o.by.mu.Lock()
	o.late = o.by.lateSync && o.by.names[crashFile] != o.inode
	nothing := o.by.noSync || o.late
	o.by.mu.Unlock()
	if nothing {
		return nil
	}
	return o.sync()
}

func (o *openInode) sync() error {
	err := o.by.turn("sync " + o.name)
	if err == errDead {
		return err
	}
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	if err != nil {
		maps.Copy(o.lost, o.dirty)
	} else {
		o.disk = o.with(o.dirty, len(o.cache))
	}
	clear(o.dirty)
	return err
}

func (o *openInode) Stat() (fs.FileInfo, error) {
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	return inodeInfo{size: int64(len(o.cache))}, nil
}

func (o *openInode) Chmod(fs.FileMode) error { return nil }
func (o *openInode) Close() error            { return nil }

// An inodeInfo has the properties of a file that a FileStore uses.
type inodeInfo struct {
	fs.FileInfo
	size int64
}

func (i inodeInfo) Size() int64       { return i.size }
func (i inodeInfo) Mode() fs.FileMode { return 0o600 }

// leftovers returns the states that a power cut may leave. One state of the other file is
// enough, as it is never read.
func (d *disk) leftovers(everyByte bool) (left []map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := map[[2]*inode]bool{}
	for set := range 1 << len(d.changes) {
		names := maps.Clone(d.durable)
		for i, change := range d.changes {
			if set&(1<<i) != 0 {
				change(names)
			}
		}
		main, other := names[crashFile], names[crashFile+".new"]
		if known[[2]*inode{main, other}] {
			continue
		}
		known[[2]*inode{main, other}] = true
		files := map[string]string{}
		if other != nil {
			files[crashFile+".new"] = string(other.cache)
		}
		if main == nil {
			left = append(left, files)
			continue
		}
		for _, text := range main.leftovers(everyByte) {
			files := maps.Clone(files)
			files[crashFile] = string(text)
			left = append(left, files)
		}
	}
	return left
}

// leftovers returns the contents that a power cut may leave in the file.
func (n *inode) leftovers(everyByte bool) (left [][]byte) {
	unsynced := map[int]bool{}
	maps.Copy(unsynced, n.dirty)
	maps.Copy(unsynced, n.lost)
	sectors := slices.Sorted(maps.Keys(unsynced))
	if len(sectors) == 0 && len(n.cache) == len(n.disk) {
		return append(left, n.disk)
	}
	// The end of the file is lost.
	if len(sectors) > 0 {
		for _, end := range n.cuts(min(sectors[0]*sector, len(n.cache)), everyByte) {
			text := n.with(unsynced, max(end, len(n.disk)))
			copy(text[end:], n.disk[min(end, len(n.disk)):])
			left = append(left, text)
		}
	}
	// Some sectors are lost: any of a few, or one, all but one, the first, the last ones.
	for _, size := range []int{len(n.cache), len(n.disk)} {
		for set := range subsets(len(sectors)) {
			some := map[int]bool{}
			for i, s := range sectors {
				if set(i) {
					some[s] = true
				}
			}
			left = append(left, n.with(some, size))
		}
	}
	return left
}

// with returns the contents of the disk after these sectors of the cache are written.
func (n *inode) with(sectors map[int]bool, size int) []byte {
	text := make([]byte, size)
	copy(text, n.disk)
	for s := range sectors {
		start, end := s*sector, min((s+1)*sector, len(n.cache), size)
		if start < end {
			copy(text[start:end], n.cache[start:end])
		}
	}
	return text
}

// cuts returns the places from start on where the file may end: around the ends of lines,
// and some in between.
func (n *inode) cuts(start int, everyByte bool) (ends []int) {
	for i := start; i <= len(n.cache); i++ {
		near := n.cache[max(0, i-2):min(i+2, len(n.cache))]
		if everyByte || i%sector < 2 || i%97 == 0 || bytes.IndexByte(near, '\n') >= 0 {
			ends = append(ends, i)
		}
	}
	return ends
}

// subsets yields sets of the numbers below n: all of them if n is small.
func subsets(n int) func(yield func(has func(int) bool) bool) {
	return func(yield func(has func(int) bool) bool) {
		if n <= 4 {
			for set := range 1 << n {
				if !yield(func(i int) bool { return set&(1<<i) != 0 }) {
					return
				}
			}
			return
		}
		for k := range n {
			for _, has := range []func(int) bool{
				func(i int) bool { return i == k },
				func(i int) bool { return i != k },
				func(i int) bool { return i <= k },
				func(i int) bool { return i > k },
			} {
				if !yield(has) {
					return
				}
			}
		}
	}
}
