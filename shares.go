package main

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
)

// This file bounds what all clients share, in all and for each client, so that no client
// can use it up.

// site returns the network that counts as one client: an IPv4 address, or an IPv6 /48,
// which is what one customer gets at most (RFC 6177).
func site(from netip.Addr) netip.Prefix {
	bits := from.BitLen()
	if from.Is6() {
		bits = 48
	}
	return netip.PrefixFrom(from, bits).Masked()
}

// The refusals of a rate.
var (
	ErrRegistrations = errors.New("too many registrations")
	ErrChanges       = errors.New("too many changes")
)

// shares are the budgets of requests. Connections and hashes have their own.
type shares struct {
	bytes         budget[netip.Prefix] // of requests under way, by site
	registrations rate[netip.Prefix]   // by site
	changes       rate[changer]
}

// A changer is whoever changes an account: an admin, or its owner, and then perhaps with
// the password. Each has a rate, so a thief with a token cannot prevent the owner from
// setting a new password, or an admin from disabling the account.
type changer struct {
	account         int64
	admin, password bool
}

const (
	maxBytes         = 4 << 20
	streamBytes      = 24 << 10 // what a request takes beside those on its HTTP/2 connection
	maxRegistrations = 30       // of a site an hour
	maxChanges       = 60       // of an account a minute
	maxSpent         = 1 << 14  // in all, which bounds the bookkeeping
)

func newShares() shares {
	return shares{
		bytes:         budget[netip.Prefix]{total: maxBytes, share: 1},
		registrations: rate[netip.Prefix]{budget: budget[netip.Prefix]{total: maxSpent, share: 1, most: maxRegistrations}, refusal: ErrRegistrations, period: time.Hour},
		changes:       rate[changer]{budget: budget[changer]{total: maxSpent, share: 1, most: maxChanges}, refusal: ErrChanges, period: time.Minute},
	}
}

// A budget is an amount that clients hold parts of. A client may hold as much as is left
// free, or share times as much: with a share of 1, one alone gets half, and many share
// (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
// Switches", 1998). So no client can use up the budget, and nothing is reserved.
type budget[K comparable] struct {
	total, share int
	most         int // for one client, if not 0
	newcomers    int // a client that holds nothing may take one until so many are used, if not 0

	mu   sync.Mutex
	used int
	held map[K]int
}

// take takes a part of the budget, unless it is too much.
func (b *budget[K]) take(client K, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	holds, free := b.held[client]+n, b.total-b.used-n
	if first := holds == 1 && b.used < b.newcomers; !first && holds > b.share*(free+1) {
		return false // + 1, or the last one would stay free
	}
	if b.most > 0 && holds > b.most {
		return false
	}
	if b.held == nil {
		b.held = map[K]int{}
	}
	b.held[client] = holds
	b.used += n
	return true
}

// give gives a part back.
func (b *budget[K]) give(client K, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.held[client] -= n; b.held[client] == 0 {
		delete(b.held, client)
	}
}

// resize changes the total. Nobody loses what it holds.
func (b *budget[K]) resize(total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = total
}

func (b *budget[K]) inUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// A rate is a budget that comes back by itself: what is spent counts for a period.
type rate[K comparable] struct {
	budget[K]
	refusal error
	period  time.Duration

	ledger sync.Mutex
	spent  []spending[K] // oldest first
}

type spending[K comparable] struct {
	client K
	back   time.Time
}

// A LaterError says when to try again.
type LaterError struct {
	error
	After time.Duration
}

func (e LaterError) Unwrap() error { return e.error }

// spend spends one, or returns a LaterError.
func (r *rate[K]) spend(client K) error {
	r.ledger.Lock()
	defer r.ledger.Unlock()
	now := time.Now()
	for len(r.spent) > 0 && !now.Before(r.spent[0].back) {
		r.give(r.spent[0].client, 1)
		r.spent = r.spent[1:]
	}
	if r.take(client, 1) {
		r.spent = append(r.spent, spending[K]{client, now.Add(r.period)})
		return nil
	}
	// If the client has spent nothing, others have spent it all.
	oldest := max(0, slices.IndexFunc(r.spent, func(s spending[K]) bool { return s.client == client }))
	return LaterError{r.refusal, r.spent[oldest].back.Sub(now)}
}

// undo takes back what a client has just spent.
func (r *rate[K]) undo(client K) {
	r.ledger.Lock()
	defer r.ledger.Unlock()
	for i, s := range slices.Backward(r.spent) {
		if s.client == client {
			r.spent = slices.Delete(r.spent, i, i+1)
			r.give(client, 1)
			return
		}
	}
}

// A hashQueue lets one hash run on each core, and a limited number wait. Known clients
// have some places to themselves and go first, so that strangers cannot keep them out.
type hashQueue struct {
	running       chan struct{} // has room for one hash per core
	next          chan struct{} // hands a core to a known client
	places, known budget[netip.Prefix]

	mu   sync.Mutex
	took time.Duration // by a hash, lately
}

const (
	// At 0.1 s each, the last one waits about as long as a person would.
	maxWaiting   = 128
	knownWaiting = maxWaiting / 4

	// A request takes requestTimeout to arrive and may wait twice. Its response must be
	// on its way before the server stops writing it, which is a minute after the headers.
	maxQueueTime = 14 * time.Second
)

func newHashQueue(cores int) *hashQueue {
	pinnedThreads()
	q := &hashQueue{running: make(chan struct{}, cores), next: make(chan struct{})}
	q.places = budget[netip.Prefix]{share: 2, newcomers: maxWaiting - knownWaiting} // one alone gets half of the queue
	q.known = budget[netip.Prefix]{share: 1, newcomers: knownWaiting}
	q.setLength(maxWaiting)
	return q
}

// waiting returns how many hashes wait for a core.
func (q *hashQueue) waiting() int { return q.places.inUse() + q.known.inUse() }

// A place in the queue must be left. Leaving twice is harmless.
type place struct {
	queue *hashQueue
	ctx   context.Context // ends when the client has gone or has waited for too long
	next  chan struct{}   // of a known client
	leave func()
}

// enter takes a place in the queue, or returns ErrBusy.
func (q *hashQueue) enter(ctx context.Context, from netip.Addr, known bool) (*place, error) {
	p, places := &place{queue: q}, &q.places
	if known {
		p.next = q.next
	}
	switch client := site(from); {
	case known && q.known.take(client, 1):
		places = &q.known
	case !q.places.take(client, 1):
		return nil, ErrBusy
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueueTime, ErrBusy)
	p.ctx, p.leave = ctx, sync.OnceFunc(func() { places.give(site(from), 1); cancel() })
	return p, nil
}

// run waits for a core, leaves the queue and calls hash.
func (p *place) run(hash func()) error {
	hashBegins() // before it waits, or the last hash would end in between
	defer hashEnds()
	q := p.queue
	select {
	case q.running <- struct{}{}:
	case <-p.next:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.leave()
	defer q.passOn()
	start := time.Now()
	hash()
	q.measure(time.Since(start))
	return nil
}

// passOn frees a core, for a known client if one waits.
func (q *hashQueue) passOn() {
	select {
	case q.next <- struct{}{}:
	default:
		<-q.running
	}
}

// measure makes the queue no longer than what can be hashed in maxQueueTime, at the
// speed of the last hashes. A client with nothing waiting may still enter.
func (q *hashQueue) measure(took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.took = cmp.Or(q.took, took)
	if q.took += (took - q.took) / 4; q.took > 0 {
		q.setLength(min(maxWaiting, cap(q.running)*int(maxQueueTime/q.took)))
	}
}

func (q *hashQueue) setLength(n int) {
	q.known.resize(n / 4)
	q.places.resize(n - n/4)
}

// hashing counts the hashes that run in this process.
var hashing struct {
	sync.Mutex
	running int
}

// hashBegins gives Go one thread more than there are cores, until the last hash ends. A
// hash keeps its thread busy, and Go would let a request wait 10 ms or more for it.
// With one more thread, the operating system shares the cores among all of them.
// Without a hash, the extra thread would cost a fifth of the throughput.
func hashBegins() {
	hashing.Lock()
	defer hashing.Unlock()
	if hashing.running == 0 {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
	hashing.running++
}

// hashEnds lets Go follow the CPU limit of its container again, which a call of
// GOMAXPROCS ends.
func hashEnds() {
	hashing.Lock()
	defer hashing.Unlock()
	if hashing.running--; hashing.running > 0 {
		return
	}
	if n := pinnedThreads(); n > 0 {
		runtime.GOMAXPROCS(n)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
}

// pinnedThreads returns GOMAXPROCS if the operator has set it, else 0. Go does not tell,
// but its default differs then. The first call must come before the first hash.
var pinnedThreads = sync.OnceValue(func() int {
	n := runtime.GOMAXPROCS(0)
	if runtime.SetDefaultGOMAXPROCS(); runtime.GOMAXPROCS(0) == n {
		return 0
	}
	runtime.GOMAXPROCS(n)
	return n
})
