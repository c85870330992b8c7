package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// Checking a password is made expensive on purpose. This file keeps that cost from
// being turned against the server (too many checks at once) and against its users
// (one guess after the other).

// ErrBusy means that too many passwords are waiting to be hashed.
var ErrBusy = errors.New("too many passwords are being checked")

// ErrPassword means that a password is wrong.
var ErrPassword = errors.New("incorrect password")

// ErrThrottled means that a password was not looked at: too many were wrong before
// it. A ThrottledError is one that says how long to wait.
var ErrThrottled = errors.New("too many failed logins")

type ThrottledError struct{ Wait time.Duration }

func (e ThrottledError) Error() string { return fmt.Sprintf("%v, wait %v", ErrThrottled, e.Wait) }
func (e ThrottledError) Unwrap() error { return ErrThrottled }

// Passwords checks and hashes passwords. Its methods may be called concurrently.
type Passwords struct {
	Hasher
	queue    hashQueue
	throttle throttle
}

// NewPasswords returns Passwords that hash with the given number of iterations.
func NewPasswords(iterations int) *Passwords {
	return &Passwords{
		Hasher:   Hasher{iterations},
		queue:    hashQueue{running: make(chan struct{}, runtime.GOMAXPROCS(0)), waiting: map[netip.Prefix]int{}},
		throttle: throttle{newer: map[throttleKey]failures{}},
	}
}

// Check tries a password for an account: it returns ErrPassword if the hash that
// lookUp finds was not made from it, else whether that hash is weaker than a new
// one. Every way to try a password leads through here. A try that must wait looks
// nothing up and takes no place in the queue.
func (p *Passwords) Check(ctx context.Context, username string, from netip.Addr, password string, lookUp func() (phc string, err error)) (weak bool, err error) {
	keys := throttleKeys(username, from)
	if err := p.throttle.wait(keys, time.Now()); err != nil {
		return false, err
	}
	phc, err := lookUp()
	if err != nil {
		return false, err
	}
	leave, err := p.queue.enter(ctx, from)
	if err != nil {
		return false, err
	}
	defer leave()
	if err := p.throttle.take(keys, time.Now()); err != nil {
		return false, err // one of many sent at once, which all passed the first test
	}
	ok, weak := p.Hasher.Check(password, phc)
	if !ok {
		p.throttle.failed(keys, time.Now())
		return false, ErrPassword
	}
	p.throttle.forget(keys)
	return weak, nil
}

// Hash returns the PHC string of a new password.
func (p *Passwords) Hash(ctx context.Context, from netip.Addr, password string) (string, error) {
	leave, err := p.queue.enter(ctx, from)
	if err != nil {
		return "", err
	}
	defer leave()
	return p.Hasher.Hash(password), nil
}

// Waiting returns how many hashes wait for a core.
func (p *Passwords) Waiting() int {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return p.queue.total
}

// A hashQueue lets one hash run for each core, and some wait.
type hashQueue struct {
	running chan struct{} // has room for one hash per core

	mu      sync.Mutex
	waiting map[netip.Prefix]int // by client network
	total   int
}

// maxWaiting is how many hashes may wait. At 0.1 s each, the last of them waits
// about as long as a person does before giving up.
const maxWaiting = 128

// enter waits for a core, and leaves the queue when ctx ends. The caller calls
// leave after the hash.
//
// A client may have as many hashes waiting as there are places left: one alone gets
// half of them, and many share the rest (Choudhury and Hahne, "Dynamic Queue Length
// Thresholds for Shared-Memory Packet Switches", 1998). So no client can fill the
// queue, and no place is kept for nobody.
func (q *hashQueue) enter(ctx context.Context, from netip.Addr) (leave func(), err error) {
	client := network(from)
	q.mu.Lock()
	full := q.waiting[client] >= maxWaiting-q.total
	if !full {
		q.waiting[client]++
		q.total++
	}
	q.mu.Unlock()
	if full {
		return nil, ErrBusy
	}
	defer q.stopWaiting(client)
	select {
	case q.running <- struct{}{}:
		hashBegins()
		return func() { <-q.running; hashEnds() }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (q *hashQueue) stopWaiting(client netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.waiting[client]--; q.waiting[client] == 0 {
		delete(q.waiting, client)
	}
}

// hashing counts the hashes of the process.
var hashing struct {
	sync.Mutex
	running, threads int
}

// hashBegins gives Go one thread more than it has cores, until the last hash ends.
// A hash keeps its thread busy, and Go would let a request wait 10 ms or more for it.
// With one more thread, the operating system shares the cores among all of them.
// Not for good: without a hash, it would cost a fifth of the throughput.
func hashBegins() {
	hashing.Lock()
	defer hashing.Unlock()
	if hashing.running == 0 {
		hashing.threads = runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(hashing.threads + 1)
	}
	hashing.running++
}

func hashEnds() {
	hashing.Lock()
	defer hashing.Unlock()
	if hashing.running--; hashing.running == 0 {
		runtime.GOMAXPROCS(hashing.threads)
	}
}

// A throttle slows down guessing. After a number of failures in a row, each further
// try must wait, twice as long as the one before: failures for one account from one
// address, and failures from one address for any account, so that trying one
// password on every account is no way out. Tries from other addresses go on: nobody
// can lock a user out.
//
// It remembers at most 2*throttleHalf keys, in two maps: when the newer one is full,
// the older one is dropped. To make it forget, an attacker must fail throttleHalf
// other logins, which takes far longer than waiting.
type throttle struct {
	mu           sync.Mutex
	newer, older map[throttleKey]failures
}

// A throttleKey is what failures are counted for.
type throttleKey struct {
	sum  [16]byte // of a fixed size, whatever is sent as a name
	free int      // failures that cost no wait
}

// failures are those in a row so far.
type failures struct {
	count int
	until time.Time // no try before this
}

const (
	freeTries        = 5   // of one account from one address
	freeAddressTries = 100 // from one address
	maxWait          = 5 * time.Minute
	throttleHalf     = 1 << 15
)

func throttleKeys(username string, from netip.Addr) [2]throttleKey {
	key := func(text string, free int) throttleKey {
		sum := sha256.Sum256([]byte(text))
		return throttleKey{[16]byte(sum[:]), free}
	}
	address := network(from).String()
	return [2]throttleKey{key(address+" "+foldName(username), freeTries), key(address, freeAddressTries)}
}

// network is the part of an address that one client is assumed to have: all of
// IPv4, and of IPv6 a /64 (RFC 6177).
func network(from netip.Addr) netip.Prefix {
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(from, bits).Masked()
}

// wait returns a ThrottledError if the next try must wait.
func (t *throttle) wait(keys [2]throttleKey, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mustWait(keys, now)
}

func (t *throttle) mustWait(keys [2]throttleKey, now time.Time) error {
	if wait := max(t.get(keys[0]).until.Sub(now), t.get(keys[1]).until.Sub(now)); wait > 0 {
		return ThrottledError{wait}
	}
	return nil
}

// take is like wait, but if no wait is left it also reserves an attempt: it counts
// as failed until forget says otherwise.
func (t *throttle) take(keys [2]throttleKey, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.mustWait(keys, now); err != nil {
		return err
	}
	for _, key := range keys {
		f := t.get(key)
		f.count++
		t.put(key, f, now)
	}
	return nil
}

// failed starts the wait for the next try when this one is answered, not when it
// was reserved.
func (t *throttle) failed(keys [2]throttleKey, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		t.put(key, t.get(key), now)
	}
}

// forget is called after a success.
func (t *throttle) forget(keys [2]throttleKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		delete(t.newer, key)
		delete(t.older, key)
	}
}

func (t *throttle) get(key throttleKey) failures {
	if f, ok := t.newer[key]; ok {
		return f
	}
	return t.older[key]
}

// put remembers f, with the wait that it has earned, from now on.
func (t *throttle) put(key throttleKey, f failures, now time.Time) {
	if over := f.count - key.free; over >= 0 {
		f.until = now.Add(min(time.Second<<min(over, 20), maxWait))
	}
	if len(t.newer) >= throttleHalf {
		t.newer, t.older = map[throttleKey]failures{}, t.newer
	}
	t.newer[key] = f
	delete(t.older, key)
}
