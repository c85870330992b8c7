package main

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Checking a password is made expensive on purpose. This file keeps that from
// being turned against the server (too many at once) and against its users (one
// guess after the other).

// checkPassword returns errIncorrect if password is not the one that phc was
// made of, and else whether phc is weak. Every way to try a password goes
// through here.
func (s *server) checkPassword(r *http.Request, username, phc, password string) (weak bool, err error) {
	key := throttleKey(username, s.clientIP(r))
	// Whoever must wait is told so before taking a place in the queue.
	if err := s.throttled(s.throttle.wait(key, time.Now())); err != nil {
		return false, err
	}
	turn, err := s.enterHashing(r.Context())
	if err != nil {
		return false, err
	}
	defer turn.leave()
	if err := s.throttled(s.throttle.take(key, time.Now())); err != nil {
		return false, err
	}
	ok, weak := Hasher{s.Iterations}.Check(password, phc)
	if !ok {
		s.stats.Add("wrong_passwords", 1)
		s.throttle.failed(key, time.Now())
		return false, errIncorrect
	}
	s.throttle.forget(key)
	return weak, nil
}

func (s *server) throttled(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	s.stats.Add("throttled", 1)
	return &problem{status: http.StatusTooManyRequests, code: "temporarily_unavailable", detail: "Too many failed logins", retry: wait}
}

// hash makes the PHC string of a new password.
func (s *server) hash(r *http.Request, password string) (string, error) {
	turn, err := s.enterHashing(r.Context())
	if err != nil {
		return "", err
	}
	defer turn.leave()
	return Hasher{s.Iterations}.Hash(password), nil
}

func (s *server) enterHashing(ctx context.Context) (*turn, error) {
	t, err := s.hashing.enter(ctx)
	if err == errBusy {
		s.stats.Add("hashing_refused", 1)
	}
	return t, err
}

// A gate lets one hash run for each processor and some wait, in their order;
// the rest are sent away at once.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64 // those who run too
}

// maxWaiting is how many may wait for the hash: at 0.1 s each, whoever comes
// last waits about as long as people do before they give up.
const maxWaiting = 100

func newGate() *gate {
	return &gate{slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// enter waits for a turn, and leaves the queue if the client does.
func (g *gate) enter(ctx context.Context) (*turn, error) {
	if g.waiting.Add(1) > int64(maxWaiting+cap(g.slots)) {
		g.waiting.Add(-1)
		return nil, errBusy
	}
	select {
	case g.slots <- struct{}{}:
		return newTurn(g), nil
	case <-ctx.Done():
		g.waiting.Add(-1)
		return nil, ctx.Err()
	}
}

// A turn is the right to hash, one password at a time. Without pauses, a hash
// keeps its processor for 10 ms at a stretch, and each request that came in the
// meantime waits for so long, or several times so long.
//
// What a pause must achieve is that the runtime looks for what has come from
// the network. It does so only when it has nothing else to run, so
// runtime.Gosched is no help: the hash itself is what there is to run. A short
// sleep is, but costs a whole millisecond, the least that the runtime waits for
// the network. So the hash waits for the network too, in the same queue as all
// the connections: for a byte that it has sent to itself.
type turn struct {
	gate           *gate
	reader, writer *os.File // a pipe; nil if there is none to be had
	buf            [1]byte
}

func newTurn(g *gate) *turn {
	t := &turn{gate: g}
	var err error
	if t.reader, t.writer, err = os.Pipe(); err != nil {
		t.reader = nil // out of files: hash without pauses
	}
	return t
}

func (t *turn) pause() {
	if t.reader == nil {
		runtime.Gosched()
		return
	}
	go t.writer.Write([]byte{0}) // later than the read, which must find nothing and wait
	t.reader.Read(t.buf[:])
}

func (t *turn) leave() {
	if t.reader != nil {
		t.reader.Close()
		t.writer.Close()
	}
	<-t.gate.slots
	t.gate.waiting.Add(-1)
}

// A throttle slows down guessing: after freeTries failures in a row for one
// account from one address, each further try must wait, twice as long as the
// one before. Other addresses are not affected, so nobody can lock a user out.
//
// It remembers up to 2*throttleHalf pairs of account and address, in two maps:
// when the newer is full, the older is dropped. To be forgotten so, an attacker
// must fail throttleHalf other logins, which takes far longer than to wait.
type throttle struct {
	mu       sync.Mutex
	new, old map[[16]byte]tries
}

// tries is what is known of one account and address.
type tries struct {
	failed int32
	until  time.Time // when the next may come
}

const (
	freeTries    = 5
	maxWait      = 5 * time.Minute
	throttleHalf = 1 << 15
)

func newThrottle() *throttle { return &throttle{new: map[[16]byte]tries{}} }

// throttleKey is of a fixed size, whatever somebody sends as a name. Of IPv6,
// one customer has a /64 (RFC 6177).
func throttleKey(username string, addr netip.Addr) [16]byte {
	if addr.Is6() {
		addr = netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	sum := sha256.Sum256([]byte(addr.String() + " " + strings.ToLower(username)))
	return [16]byte(sum[:])
}

// wait returns how long the next try must wait still.
func (t *throttle) wait(key [16]byte, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(key).until.Sub(now)
}

// take is wait, and where that is over, takes the place of the next try: it
// counts as failed until forget says otherwise, so that guesses that are sent
// all at once are counted like any others.
func (t *throttle) take(key [16]byte, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.get(key)
	if wait := e.until.Sub(now); wait > 0 {
		return wait
	}
	e.failed++
	t.put(key, e.waiting(now))
	return 0
}

// failed lets the wait for the next try begin: not when this one came, which
// may have been a queue ago, but when it is answered.
func (t *throttle) failed(key [16]byte, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(key, t.get(key).waiting(now))
}

// waiting is e with the wait that it has earned, from now.
func (e tries) waiting(now time.Time) tries {
	if over := e.failed - freeTries; over >= 0 {
		e.until = now.Add(min(time.Second<<min(over, 20), maxWait))
	}
	return e
}

func (t *throttle) put(key [16]byte, e tries) {
	if len(t.new) >= throttleHalf {
		t.new, t.old = map[[16]byte]tries{}, t.new
	}
	t.new[key] = e
	delete(t.old, key)
}

// forget is called after a success.
func (t *throttle) forget(key [16]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.new, key)
	delete(t.old, key)
}

func (t *throttle) get(key [16]byte) tries {
	if e, ok := t.new[key]; ok {
		return e
	}
	return t.old[key]
}
