package main

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file bounds what all clients share, in all and for each client, so that no client
// can use it up.

// network returns the network that counts as one client: an IPv4 address, or an IPv6 /48,
// the largest prefix that a customer commonly gets (RFC 6177).
func network(from netip.Addr) netip.Prefix {
	prefix, _ := from.Prefix(min(48, from.BitLen())) // no error: it has that many bits
	return prefix
}

// A limit bounds what clients hold. A client may hold no more than what is still free: one
// alone gets half, and many share (Choudhury and Hahne, "Dynamic Queue Length Thresholds
// for Shared-Memory Packet Switches", 1998). So no client can use it up, and nothing is
// reserved.
type limit struct {
	total   int
	share   int           // a client may hold share times what is left free, or once that if it is 0
	most    int           // for one client, if not 0
	period  time.Duration // after which a part comes back by itself, if not 0
	refusal error

	mu   sync.Mutex
	used int
	held map[any]int // by client
	lent []loan      // what comes back by itself, oldest first
}

// A loan is one part that a client holds until it is due.
type loan struct {
	client any
	due    time.Time
}

// A LaterError says when to try again.
type LaterError struct {
	error
	After time.Duration
}

func (e LaterError) Unwrap() error { return e.error }

// take takes a part, or returns the refusal, in a LaterError if parts come back by
// themselves.
func (l *limit) take(client any, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for len(l.lent) > 0 && !now.Before(l.lent[0].due) {
		l.free(l.lent[0].client, 1)
		l.lent = l.lent[1:]
	}
	holds, left := l.held[client]+n, l.total-l.used-n
	tooMuch := holds > cmp.Or(l.share, 1)*(left+1) || l.most > 0 && holds > l.most // + 1, or the last one would stay free
	switch {
	case tooMuch && l.period == 0:
		return l.refusal
	case tooMuch:
		// A client that holds nothing waits for the part of another that is due first.
		first := max(0, slices.IndexFunc(l.lent, func(v loan) bool { return v.client == client }))
		return LaterError{l.refusal, l.lent[first].due.Sub(now)}
	case l.period > 0:
		l.lent = append(l.lent, loan{client, now.Add(l.period)})
	}
	if l.held == nil {
		l.held = map[any]int{}
	}
	l.held[client] = holds
	l.used += n
	return nil
}

// give returns a part: the newest one, if parts come back by themselves.
func (l *limit) give(client any, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, v := range slices.Backward(l.lent) {
		if v.client == client {
			l.lent = slices.Delete(l.lent, i, i+1)
			l.free(client, n)
			return
		}
	}
	if l.period == 0 { // else it has come back already
		l.free(client, n)
	}
}

func (l *limit) free(client any, n int) {
	l.used -= n
	if l.held[client] -= n; l.held[client] == 0 {
		delete(l.held, client)
	}
}

// holds returns what one client holds.
func (l *limit) holds(client any) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[client]
}

// inUse returns what all clients hold.
func (l *limit) inUse() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// The refusals of limits.
var (
	ErrBusy          = errors.New("too many passwords are being checked")
	ErrRegistrations = errors.New("too many registrations")
	ErrChanges       = errors.New("too many changes")
)

// shares are the limits of requests. Connections, hashes and mails have their own.
type shares struct {
	bytes         limit // of requests under way, by network
	registrations limit // by network
	changes       limit // by author
}

// An author is whoever changes an account: an admin, or its owner, and then perhaps with
// the password. Each has a limit, so a thief with a token cannot prevent the owner from
// setting a new password, or an admin from disabling the account.
type author struct {
	account         int64
	admin, password bool
}

const (
	maxBytes         = 4 << 20
	streamBytes      = 24 << 10 // what a request over HTTP/2 takes besides its body
	maxRegistrations = 30       // of a network an hour
	maxChanges       = 60       // of an account a minute
	maxSpent         = 1 << 14  // in all, which bounds the bookkeeping
)

func newShares() shares {
	return shares{
		bytes:         limit{total: maxBytes, refusal: ErrBusy},
		registrations: limit{total: maxSpent, most: maxRegistrations, period: time.Hour, refusal: ErrRegistrations},
		changes:       limit{total: maxSpent, most: maxChanges, period: time.Minute, refusal: ErrChanges},
	}
}

// A hashQueue lets one hash run on each core, and a limited number wait. A known client is
// one in whose network the account has a live session already. Known clients have some
// places to themselves and go first, so that strangers cannot keep them out. Next come
// clients with nothing else in the queue. A client that fills its places cannot keep them
// out, even on slow cores.
type hashQueue struct {
	running       chan struct{}    // has room for one hash per core
	first         [2]chan struct{} // hand a core to a known client, or else to one with nothing else in the queue
	places, known limit
	passed        atomic.Int64 // cores handed on
}

const (
	// At 0.1 s each, the last one waits about as long as a person would.
	maxWaiting   = 128
	knownWaiting = maxWaiting / 4

	// A request may take 30 s to arrive (requestTimeout) and wait for two hashes. Its
	// response must be on its way a minute after its headers (writeTimeout).
	maxQueueTime = 14 * time.Second
)

func newHashQueue(cores int) *hashQueue {
	return &hashQueue{
		running: make(chan struct{}, cores),
		first:   [2]chan struct{}{make(chan struct{}), make(chan struct{})},
		places:  limit{total: maxWaiting - knownWaiting, share: 2, refusal: ErrBusy}, // one alone gets half of the queue
		known:   limit{total: knownWaiting, refusal: ErrBusy},
	}
}

// waiting returns how many hashes wait for a core.
func (q *hashQueue) waiting() int { return q.places.inUse() + q.known.inUse() }

// run waits for a core and calls hash. It returns ErrBusy if too many wait or for too
// long, or the error of ctx if the client has gone.
func (q *hashQueue) run(ctx context.Context, from netip.Addr, known bool, hash func()) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueueTime, ErrBusy)
	defer cancel()
	client, places := network(from), &q.places
	var first chan struct{}
	switch {
	case known && q.known.take(client, 1) == nil:
		places, first = &q.known, q.first[0]
	case q.places.take(client, 1) != nil:
		return ErrBusy
	case known:
		first = q.first[0]
	case q.places.holds(client) == 1:
		first = q.first[1]
	}
	countHashes(+1) // before it waits, or the last hash would end in between
	defer countHashes(-1)
	var err error
	select {
	case q.running <- struct{}{}:
	case <-first:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if places.give(client, 1); err != nil {
		return err
	}
	defer q.passOn()
	hash()
	return nil
}

// passOn hands a core to a client that goes first, or frees it for the one that has waited
// longest. Of eight turns, two pass over the known clients, and one goes by time alone. So
// those who go first slow the others down, but do not keep them out.
func (q *hashQueue) passOn() {
	first := q.first[:]
	switch q.passed.Add(1) % 8 {
	case 3, 7:
		first = first[1:]
	case 5:
		first = nil
	}
	for _, next := range first {
		select {
		case next <- struct{}{}:
			return
		default:
		}
	}
	<-q.running
}

// hashing counts the hashes of this process that run or wait.
var hashing struct {
	sync.Mutex
	count   int
	threads int // GOMAXPROCS before the first
}

// countHashes gives Go one thread more than there are cores while there are hashes. A
// hash keeps its thread busy, and Go would let a request wait 10 ms or more for it. With
// one more thread, the operating system shares the cores among all of them. While no hash
// runs, it would cost a fifth of the throughput. Taking it away also lets Go follow the CPU
// limit of its container again, which a call of GOMAXPROCS ends.
func countHashes(change int) {
	hashing.Lock()
	defer hashing.Unlock()
	before := hashing.count
	hashing.count += change
	switch {
	case before == 0:
		hashing.threads = runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(hashing.threads + 1)
	case hashing.count == 0 && os.Getenv("GOMAXPROCS") != "":
		runtime.GOMAXPROCS(hashing.threads) // as the operator has set it
	case hashing.count == 0:
		runtime.SetDefaultGOMAXPROCS()
	}
}
