package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Checking a password is expensive on purpose. This file protects the server from too
// many checks at once, and its users from repeated guesses.

// The reasons why a password does not count as right.
var (
	ErrPassword  = errors.New("incorrect password")
	ErrThrottled = errors.New("too many failed logins") // wrapped in a LaterError; it was not checked
)

// Passwords checks and hashes passwords. Its methods may be called concurrently.
type Passwords struct {
	hasher   Hasher
	slowest  atomic.Int64 // iterations of the strongest hash met
	queue    *hashQueue
	throttle throttle
}

// NewPasswords returns Passwords that hash with the given number of iterations.
func NewPasswords(iterations int) *Passwords {
	return &Passwords{
		hasher:   Hasher{iterations},
		queue:    newHashQueue(runtime.GOMAXPROCS(0)),
		throttle: throttle{newer: map[throttleKey]failures{}, flying: map[throttleKey]int{}, landed: map[throttleKey]chan struct{}{}},
	}
}

// Check tries a password for an account. It returns ErrPassword if the password does not
// match the hash that lookUp returns. If it does, but the hash is weaker than new ones,
// Check returns a better one. lookUp also returns whether the client is known (see
// hashQueue). Every try of an account's password goes through Check. One that comes during
// a delay does not call lookUp.
func (p *Passwords) Check(ctx context.Context, username string, from netip.Addr, password string, lookUp func() (phc string, known bool, err error)) (better string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueueTime, ErrBusy)
	defer cancel()
	keys := throttleKeys(username, from)
	if err := p.beginInTurn(ctx, keys, from); err != nil {
		return "", err
	}
	defer p.throttle.end(keys)
	phc, known, err := lookUp()
	if err != nil {
		return "", err
	}
	ok, weak := false, false
	err = p.queue.run(ctx, from, known, func() {
		ok, weak = p.hasher.Check(password, phc)
		if missing := p.Meet(phc); missing > 0 {
			derive(password, make([]byte, saltSize), int(missing), keySize)
		}
		p.throttle.count(keys, ok)
		if weak {
			better = p.hasher.Hash(password)
		}
	})
	if err == nil && !ok {
		err = ErrPassword
	}
	return better, err
}

// beginInTurn begins a try, which the caller must end, or returns an error. If as many
// tries are under way as may still fail, it waits for one of them, on a place of the queue.
func (p *Passwords) beginInTurn(ctx context.Context, keys [2]throttleKey, from netip.Addr) error {
	landed, err := p.throttle.begin(keys)
	if landed == nil {
		return err
	}
	if err := p.queue.places.take(network(from), 1); err != nil {
		return err
	}
	defer p.queue.places.give(network(from), 1)
	for landed != nil {
		select {
		case <-landed:
			landed, err = p.throttle.begin(keys)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

// Meet takes note of a hash in the store. From then on every check takes as long as one
// of the strongest hash, so an imported hash of a higher cost does not reveal an account.
// Meet returns how many fewer iterations this hash has.
func (p *Passwords) Meet(phc string) (missing int64) {
	cost := int64(p.hasher.Iterations)
	if iterations, _, _, ok := parsePHC(phc); ok {
		cost = max(cost, int64(iterations))
	}
	for {
		if most := p.slowest.Load(); cost <= most || p.slowest.CompareAndSwap(most, cost) {
			return most - cost
		}
	}
}

// Hash returns the PHC string of a new password.
func (p *Passwords) Hash(ctx context.Context, from netip.Addr, known bool, password string) (phc string, err error) {
	err = p.queue.run(ctx, from, known, func() { phc = p.hasher.Hash(password) })
	return phc, err
}

// Forget forgets the failures of an account from all addresses. It is for a new
// password: whoever mistyped the old one tries the new one next.
func (p *Passwords) Forget(username string) {
	p.throttle.mu.Lock()
	defer p.throttle.mu.Unlock()
	name := nameSum(username)
	same := func(key throttleKey, _ failures) bool { return key.name == name }
	maps.DeleteFunc(p.throttle.newer, same)
	maps.DeleteFunc(p.throttle.older, same)
}

// A throttle slows down guessing. After a number of failures in a row, each further try
// is delayed twice as long as the one before. It counts failures for one account from
// one address, and failures from one address for all accounts, because a guesser may
// try one password on every account. Tries from other addresses are not affected, so
// nobody can lock a user out.
//
// It remembers at most 2*throttleHalf keys in two maps: when the newer is full, the
// older is dropped. To make it forget a key, an attacker needs thousands of failed
// logins from other addresses.
type throttle struct {
	mu           sync.Mutex
	newer, older map[throttleKey]failures
	flying       map[throttleKey]int           // tries under way
	landed       map[throttleKey]chan struct{} // closed when one of them ends, if others wait
}

// A throttleKey stands for an account and an address, or for an address alone.
type throttleKey struct {
	name [16]byte     // see nameSum; zero for an address alone
	from netip.Prefix // an IPv4 address or an IPv6 /64
}

// failures counts failed tries in a row.
type failures struct {
	count int
	until time.Time // the end of the delay
}

const (
	freeTries        = 5   // of one account from one address
	freeAddressTries = 100 // from one address
	maxDelay         = 5 * time.Minute
	throttleHalf     = 1 << 15
)

// harmless is how many tries in a row may fail before there is a delay, for each of
// throttleKeys.
var harmless = [2]int{freeTries, freeAddressTries}

func throttleKeys(username string, from netip.Addr) [2]throttleKey {
	// An IPv6 /64 is one link. A larger network would let neighbours delay each other.
	link, _ := from.Prefix(min(64, from.BitLen())) // no error: it has that many bits
	return [2]throttleKey{{nameSum(username), link}, {from: link}}
}

// nameSum stands for a name, however long.
func nameSum(username string) [16]byte {
	sum := sha256.Sum256([]byte(foldName(username)))
	return [16]byte(sum[:])
}

// begin begins a try, which the caller must end, or returns what to wait for. During a
// delay it returns a LaterError. At most as many tries are under way as may fail before the
// next delay, so guesses sent at once gain nothing. Further ones wait.
func (t *throttle) begin(keys [2]throttleKey) (landed <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(keys); err != nil {
		return nil, err
	}
	for i, key := range keys {
		if t.flying[key] >= max(1, harmless[i]-t.get(key).count) {
			t.landed[key] = cmp.Or(t.landed[key], make(chan struct{}))
			return t.landed[key], nil
		}
	}
	for _, key := range keys {
		t.flying[key]++
	}
	return nil, nil
}

// check returns a LaterError during a delay.
func (t *throttle) check(keys [2]throttleKey) error {
	now := time.Now()
	if after := max(t.get(keys[0]).until.Sub(now), t.get(keys[1]).until.Sub(now)); after > 0 {
		return LaterError{ErrThrottled, after}
	}
	return nil
}

// count counts a try whose outcome is known. A success forgets all failures, and a
// failure may start a delay.
func (t *throttle) count(keys [2]throttleKey, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(keys, ok)
}

// note is count for a caller that holds mu, see countGuess.
func (t *throttle) note(keys [2]throttleKey, ok bool) {
	for i, key := range keys {
		f := t.get(key)
		delete(t.newer, key)
		delete(t.older, key)
		if ok {
			continue
		}
		f.count++
		if over := f.count - harmless[i]; over >= 0 {
			f.until = time.Now().Add(min(time.Second<<min(over, 20), maxDelay))
		}
		if len(t.newer) >= throttleHalf {
			t.newer, t.older = map[throttleKey]failures{}, t.newer
		}
		t.newer[key] = f
	}
}

// end ends a try. One that was not counted has no outcome: its client has gone, or it
// waited for too long.
func (t *throttle) end(keys [2]throttleKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		if t.flying[key]--; t.flying[key] == 0 {
			delete(t.flying, key)
		}
		if landed := t.landed[key]; landed != nil {
			close(landed)
			delete(t.landed, key)
		}
	}
}

func (t *throttle) get(key throttleKey) failures {
	if f, ok := t.newer[key]; ok {
		return f
	}
	return t.older[key]
}
