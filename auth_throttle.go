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

// Checking a password is expensive on purpose. This file protects the server from too
// many checks at once, and its users from repeated guesses.

// ErrBusy means that too many passwords are waiting to be hashed.
var ErrBusy = errors.New("too many passwords are being checked")

// ErrPassword means that a password is wrong.
var ErrPassword = errors.New("incorrect password")

// ErrThrottled means that a password was not checked, because too many before it were
// wrong.
var ErrThrottled = errors.New("too many failed logins")

// A ThrottledError wraps ErrThrottled and says how long to wait.
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

// Check tries a password for an account. It returns ErrPassword if the hash that lookUp
// returns was not made from it, and otherwise whether that hash is weaker than a new
// one. Every attempt goes through Check. One that must wait is refused at once, without
// calling lookUp or entering the queue.
func (p *Passwords) Check(ctx context.Context, username string, from netip.Addr, password string, lookUp func() (phc string, err error)) (weak bool, err error) {
	keys := throttleKeys(username, from)
	if err := p.throttle.check(keys, time.Now()); err != nil {
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
		return false, err // one of many sent at once, which all passed the first check
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

// A hashQueue lets one hash run on each core, and a limited number wait.
type hashQueue struct {
	running chan struct{} // has room for one hash per core

	mu      sync.Mutex
	waiting map[netip.Prefix]int // by client network
	total   int
}

// maxWaiting is the number of hashes that may wait. At 0.1 s each, the last one waits
// about as long as a person would.
const maxWaiting = 128

// enter waits for a core, or until ctx is done. The caller must call leave after the
// hash.
//
// A client may have as many hashes waiting as there are places free: one alone gets
// half of them, and many share (Choudhury and Hahne, "Dynamic Queue Length Thresholds
// for Shared-Memory Packet Switches", 1998). So no client can fill the queue, and no
// place is reserved.
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

// hashing counts the hashes that run in this process.
var hashing struct {
	sync.Mutex
	running, threads int
}

// hashBegins gives Go one thread more than there are cores, until the last hash ends. A
// hash keeps its thread busy, and Go would let a request wait 10 ms or more for it.
// With one more thread, the operating system shares the cores among all of them.
// Without a hash, the extra thread would cost a fifth of the throughput.
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
// attempt must wait twice as long as the one before. It counts failures for one account
// from one address, and failures from one address for all accounts, because a guesser
// may try one password on every account. Attempts from other addresses are not
// affected, so nobody can lock a user out.
//
// It remembers at most 2*throttleHalf keys in two maps: when the newer is full, the
// older is dropped. To make it forget a key, an attacker needs thousands of failed
// logins from other addresses.
type throttle struct {
	mu           sync.Mutex
	newer, older map[throttleKey]failures
}

// A throttleKey stands for an account and an address, or for an address alone.
type throttleKey struct {
	sum  [16]byte // a hash, so that a long name takes no more memory
	free int      // failures before the first wait
}

// failures counts failed attempts in a row.
type failures struct {
	count int
	until time.Time // the end of the wait
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

// network returns the network that one client is assumed to have: an IPv4 address, or
// an IPv6 /64 (RFC 6177).
func network(from netip.Addr) netip.Prefix {
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(from, bits).Masked()
}

// check returns a ThrottledError if the next attempt must wait.
func (t *throttle) check(keys [2]throttleKey, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkLocked(keys, now)
}

func (t *throttle) checkLocked(keys [2]throttleKey, now time.Time) error {
	if wait := max(t.get(keys[0]).until.Sub(now), t.get(keys[1]).until.Sub(now)); wait > 0 {
		return ThrottledError{wait}
	}
	return nil
}

// take is like check, but if no wait is left it also reserves an attempt: it counts
// as failed until forget says otherwise.
func (t *throttle) take(keys [2]throttleKey, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(keys, now); err != nil {
		return err
	}
	for _, key := range keys {
		f := t.get(key)
		f.count++
		t.put(key, f, now)
	}
	return nil
}

// failed starts the wait again: it counts from the response, not from the reservation.
func (t *throttle) failed(keys [2]throttleKey, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		t.put(key, t.get(key), now)
	}
}

// forget clears the failures after a success.
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

// put remembers f and starts its wait.
func (t *throttle) put(key throttleKey, f failures, now time.Time) {
	if over := f.count - key.free; over >= 0 {
		f.until = now.Add(min(time.Second<<min(over, 20), maxWait))
	}
	if len(t.newer) >= throttleHalf {
		t.newer, t.older = map[throttleKey]failures{}, t.newer
	}
	t.newer[key] = f
}
