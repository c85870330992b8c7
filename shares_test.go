package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHashQueue: one hash runs for each core, and 128 wait, a quarter of them of known
// clients. A place in the queue is free again when its client has gone or its hash has
// ended.
func TestHashQueue(t *testing.T) {
	inQueue(t, func(q *queueTest) {
		q.occupy()
		patience, giveUp := context.WithCancel(q.ctx)
		var waiting []*entry
		for i := range 96 {
			waiting = append(waiting, q.enter(patience, fmt.Sprintf("10.0.0.%d", i)))
		}
		if e := q.enter(q.ctx, "192.0.2.1"); !e.done() || e.err != ErrBusy {
			t.Errorf("a hash after 96 of strangers = %v, want ErrBusy", e.err)
		}
		for i := range 32 {
			waiting = append(waiting, q.enter(patience, fmt.Sprintf("known 10.0.0.%d", i)))
		}
		if e := q.enter(q.ctx, "known 192.0.2.1"); !e.done() || e.err != ErrBusy {
			t.Errorf("a known client's hash after 96 of strangers and 32 of known clients = %v, want ErrBusy", e.err)
		}
		for i, e := range waiting {
			if e.done() {
				t.Fatalf("hash number %d of 128 = %v, want it to wait", i+1, e.err)
			}
		}
		giveUp()
		synctest.Wait()
		for _, e := range waiting {
			if !e.done() || !errors.Is(e.err, context.Canceled) {
				t.Errorf("the hash of a client that has gone = %v, want %v", e.err, context.Canceled)
			}
		}
		next := q.enter(q.ctx, "192.0.2.1")
		if next.done() {
			t.Fatalf("a hash after all clients have gone = %v, want it to wait", next.err)
		}
		q.entries[0].end()
		if !next.done() || next.err != nil {
			t.Errorf("a hash after another one has ended = %v, want nil", next.err)
		}
	})
}

// TestHashQueueIsShared: the hashes of one client may use a half of the queue.
func TestHashQueueIsShared(t *testing.T) {
	for _, test := range []struct {
		name string
		came []string // addresses; each enters until it is refused
		want []int
	}{
		{"one address gets half of the queue", []string{"192.0.2.1"}, []int{64}},
		{"a second and a third address get less", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, []int{64, 22, 7}},
		{"an IPv6 /48 is one client", []string{"2001:db8:1::1", "2001:db8:1:ffff::1"}, []int{64, 0}},
		{"another IPv6 /48 is another client", []string{"2001:db8:1::1", "2001:db8::1"}, []int{64, 22}},
		{"a known client has places besides", []string{"192.0.2.1", "known 192.0.2.2", "known 192.0.2.3"}, []int{64, 16 + 22, 8 + 7}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inQueue(t, func(q *queueTest) {
				q.occupy()
				for i, from := range test.came {
					got := 0
					for !q.enter(q.ctx, from).done() {
						got++
					}
					wantEqual(t, "the places of "+from, got, test.want[i])
				}
			})
		})
	}
}

// TestKnownClientsGoFirst: a core that is free goes to a known client, however many
// strangers wait.
func TestKnownClientsGoFirst(t *testing.T) {
	inQueue(t, func(q *queueTest) {
		q.occupy()
		stranger := q.enter(q.ctx, "192.0.2.1")
		known := q.enter(q.ctx, "known 192.0.2.2")
		last := q.enter(q.ctx, "known 192.0.2.3")
		q.wantOrder(known, last, stranger)
	})
}

// TestOneClientDoesNotDelayOthers: a client with nothing else in the queue goes before all
// that one client has there, so its wait does not depend on the speed of a hash.
func TestOneClientDoesNotDelayOthers(t *testing.T) {
	inQueue(t, func(q *queueTest) {
		q.occupy()
		attacker := q.enter(q.ctx, "192.0.2.1")
		for range 63 {
			q.enter(q.ctx, "192.0.2.1")
		}
		others := []*entry{q.enter(q.ctx, "192.0.2.2"), q.enter(q.ctx, "192.0.2.3"), q.enter(q.ctx, "known 192.0.2.4")}
		q.wantOrder(others[2], attacker, others[0], others[1])
	})
}

// TestNobodyIsKeptOut: clients that go first and come back without pause slow down those
// with several places, but do not keep them out.
func TestNobodyIsKeptOut(t *testing.T) {
	for _, others := range []string{"known 198.51.100.", "198.51.100."} {
		inQueue(t, func(q *queueTest) {
			q.occupy()
			waiting := []*entry{q.enter(q.ctx, "192.0.2.1"), q.enter(q.ctx, "192.0.2.1")}
			strangers := slices.Clone(waiting)
			for i := range 16 {
				waiting = append(waiting, q.enter(q.ctx, fmt.Sprint(others, 2+i))) // goes first
				q.entries[0].end()
				next := slices.IndexFunc(waiting, (*entry).done)
				q.entries[0] = waiting[next]
				waiting = slices.Delete(waiting, next, next+1)
			}
			for _, e := range strangers {
				if !e.done() {
					t.Errorf("after 16 hashes of %s..., a stranger still waits", others)
				}
			}
		})
	}
}

// TestQueueIsBoundedInTime: no hash waits for longer than maxQueueTime.
func TestQueueIsBoundedInTime(t *testing.T) {
	inQueue(t, func(q *queueTest) {
		q.occupy()
		e := q.enter(q.ctx, "192.0.2.1")
		time.Sleep(maxQueueTime - 1)
		synctest.Wait()
		if e.done() {
			t.Errorf("a hash that waits = %v after less than %v", e.err, maxQueueTime)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !e.done() || e.err != ErrBusy {
			t.Errorf("a hash that has waited for %v = %v, want ErrBusy", maxQueueTime, e.err)
		}
	})
	if most := requestTimeout + 2*maxQueueTime; most >= writeTimeout {
		t.Errorf("a request may arrive and wait for %v, want less than the %v until the server stops writing", most, writeTimeout)
	}
}

// TestLimit: a client may hold as much as is left free.
func TestLimit(t *testing.T) {
	full := errors.New("full")
	b := limit{total: 100, refusal: full}
	for i, step := range []struct {
		client string
		n      int
		ok     bool
	}{
		{"a", 51, false}, {"a", 50, true}, {"a", 1, false},
		{"b", 26, false}, {"b", 25, true},
		{"a", -20, true}, {"b", 11, false}, {"b", 10, true}, {"b", 1, false},
		{"b", -35, true}, {"a", 5, true},
	} {
		ok := step.n < 0
		if ok {
			b.give(step.client, -step.n)
		} else {
			ok = b.take(step.client, step.n) != full
		}
		if ok != step.ok {
			t.Errorf("step %d: taking %d by %s = %v with %v held, want %v", i+1, step.n, step.client, ok, b.held, step.ok)
		}
	}
	if b.give("a", 35); b.used != 0 || len(b.held) != 0 {
		t.Errorf("when all is given back, %d (%v) are used, want none", b.used, b.held)
	}
}

// TestLimitOfAPeriod: what is taken counts for a period, exactly.
func TestLimitOfAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("full")
		r := limit{total: 8, most: 3, refusal: full, period: time.Hour}
		for range 3 {
			wantErr(t, "take", r.take("a", 1), nil)
			time.Sleep(10 * time.Minute)
		}
		wantLater(t, "a fourth within the hour", r.take("a", 1), full, 30*time.Minute)
		wantErr(t, "another client's first", r.take("b", 1), nil)
		time.Sleep(30*time.Minute - 1)
		wantLater(t, "a fourth just before the hour", r.take("a", 1), full, 1)
		time.Sleep(time.Nanosecond)
		wantErr(t, "a fourth after an hour", r.take("a", 1), nil)
		wantLater(t, "a fifth", r.take("a", 1), full, 10*time.Minute)
		r.give("a", 1)
		wantErr(t, "a fifth after the fourth was given back", r.take("a", 1), nil)
		for i := range 8 {
			r.take(fmt.Sprint("c", i), 1)
		}
		wantLater(t, "a client's first when all is taken", r.take("d", 1), full, 10*time.Minute)
		time.Sleep(time.Hour)
		r.take("e", 1)
		if r.used != 1 || len(r.held) != 1 || len(r.lent) != 1 {
			t.Errorf("after an hour, %d are taken by %v (%v), want 1", r.used, r.held, r.lent)
		}
	})
}

// TestBytesOfRequestsAreShared: requests that send no body hold what theirs may take. A
// network alone holds half of the memory for bodies.
func TestBytesOfRequestsAreShared(t *testing.T) {
	for _, test := range []struct {
		name           string
		length         int64
		version, among int // among so many requests at once, one finds no room
	}{
		{"a form of unknown length takes 8 KiB", -1, 1, 257},
		{"a form that says its length takes it", 4 << 10, 1, 513},
		{"a form over HTTP/2 takes 24 KiB more, for its request", -1, 2, 65},
		{"an empty form over HTTP/2 takes those alone", 0, 2, 86},
	} {
		t.Run(test.name, alone(func(w *world) {
			const call = "POST /revoke token=x"
			body, end := io.Pipe()
			var refused atomic.Int64
			var all sync.WaitGroup
			send := func() *answered {
				r := w.request(w.Context(), call)
				r.Body, r.ContentLength, r.ProtoMajor = body, test.length, test.version
				return w.serve(r, call)
			}
			for range test.among {
				all.Go(func() {
					if send().status == 503 {
						refused.Add(1)
					}
				})
			}
			synctest.Wait()
			wantEqual(w, "requests that are refused", refused.Load(), 1)
			w.want("another network", "POST /revoke from 198.51.100.1 token=x", "200\n{}")
			wantEqual(w, "one more of the same", w.show(send()), oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many requests are being read", "Retry-After: 1"))
			end.Close()
			all.Wait()
			w.want("one more after these", call, "200\n{}")
		}))
	}
}

// TestConnectionsMakeRoom: above its limits, the server closes the connection that has
// been idle longest, of the client that has the most. A step is "open ADDRESS", "busy NAME",
// "idle NAME" or "close NAME"; open names a connection a, b, c ... Behind a colon stand the
// connections that are closed for it, or that it is refused.
func TestConnectionsMakeRoom(t *testing.T) {
	for _, test := range []struct {
		name  string
		total int
		steps string
	}{
		{"one client keeps as many connections as are left free", 8,
			"open 192.0.2.1; open 192.0.2.1; open 192.0.2.1; open 192.0.2.1; open 192.0.2.1: a; open 192.0.2.1: b"},
		{"the connection that has been idle longest makes room", 4,
			"open 192.0.2.1; open 192.0.2.1; busy a; idle a; open 192.0.2.1: b; open 192.0.2.1: a"},
		{"a connection that serves a request is not closed", 4,
			"open 192.0.2.1; open 192.0.2.1; busy a; open 192.0.2.1: b; busy c; open 192.0.2.1: refused; idle c; open 192.0.2.1: c"},
		{"a client whose connections all serve requests takes no place of one with fewer", 6,
			"open 192.0.2.1; open 192.0.2.1; open 192.0.2.1; busy a; busy b; busy c; open 192.0.2.2; open 192.0.2.1: refused"},
		{"a client with few connections takes the place of one with many", 6,
			"open 192.0.2.1; open 192.0.2.1; open 192.0.2.1; open 192.0.2.2; open 192.0.2.2; open 192.0.2.3; open 192.0.2.4: a"},
		{"the client with the most makes room, though others have been idle longer", 8,
			"open 192.0.2.1; open 192.0.2.2; open 192.0.2.3; open 192.0.2.4; open 192.0.2.1; open 192.0.2.1; busy a; idle a; open 192.0.2.5; open 192.0.2.6; open 192.0.2.7: e"},
		{"of clients with equally many, the one that has been idle longest makes room", 4,
			"open 192.0.2.1; open 192.0.2.2; open 192.0.2.3; busy a; idle a; open 192.0.2.4; open 192.0.2.5: b"},
		{"an IPv6 /48 is one client", 4,
			"open 2001:db8:1::1; open 2001:db8:1:2::1; open 2001:db8:1:3::1: a; open 2001:db8:2::1"},
		{"a proxy may have all connections, and no more", 3,
			"open 198.51.100.1; open 198.51.100.1; open 198.51.100.1; busy a; busy b; busy c; open 198.51.100.1: refused; open 192.0.2.1: refused"},
		{"a connection that its client has closed makes room", 4,
			"open 192.0.2.1; open 192.0.2.1; close a; open 192.0.2.1; open 192.0.2.1: b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newConnections(test.total, netip.MustParsePrefix("198.51.100.0/24").Contains)
				open := map[string]*fakeConn{}
				for step := range strings.SplitSeq(test.steps, "; ") {
					time.Sleep(time.Second)
					do, want, _ := strings.Cut(step, ": ")
					keyword, object, _ := strings.Cut(do, " ")
					got := ""
					switch keyword {
					case "open":
						c := &fakeConn{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(object), 1234))}
						if l.note(c, http.StateNew); c.closed {
							got = "refused"
						} else {
							open[string(rune('a'+len(open)))] = c
						}
					case "busy":
						l.note(open[object], http.StateActive)
					case "idle":
						l.note(open[object], http.StateIdle)
					case "close":
						l.note(open[object], http.StateClosed)
						open[object].told = true
					}
					for name, c := range open {
						if c.closed && !c.told {
							got += name
							c.told = true
						}
					}
					wantEqual(t, test.steps+", at "+step, got, want)
				}
				for _, c := range open {
					l.note(c, http.StateClosed)
				}
				l.open.Range(func(conn, _ any) bool { t.Errorf("when all are closed, %v is open", conn); return true })
				if l.limit.used != 0 || len(l.limit.held) != 0 {
					t.Errorf("when all are closed, %v are held, want none", l.limit.held)
				}
			})
		})
	}
}

// A fakeConn is a connection that only knows whether it was closed.
type fakeConn struct {
	net.Conn
	addr         net.Addr
	closed, told bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.addr }

func (c *fakeConn) Close() error { c.closed = true; return nil }

// A queueTest is a queue in a synctest bubble.
type queueTest struct {
	t       *testing.T
	ctx     context.Context
	queue   *hashQueue
	entries []*entry
}

func inQueue(t *testing.T, test func(q *queueTest)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := &queueTest{t: t, ctx: ctx, queue: newHashQueue(4)}
		test(q)
		cancel()
		synctest.Wait()
		for _, e := range q.entries {
			e.end()
		}
		if len(q.queue.places.held)+len(q.queue.known.held)+q.queue.waiting()+len(q.queue.running) != 0 {
			t.Errorf("after all hashes have ended, %d wait (%v, %v) and %d run, want none", q.queue.waiting(), q.queue.places.held, q.queue.known.held, len(q.queue.running))
		}
	})
}

// occupy takes all cores.
func (q *queueTest) occupy() {
	for i := range cap(q.queue.running) {
		e := q.enter(q.ctx, "198.51.100.1")
		if len(q.queue.running) != i+1 {
			q.t.Fatalf("hash %d of %d does not run: %v", i+1, cap(q.queue.running), e.err)
		}
	}
}

// wantOrder ends one hash after another. Each time, the next one begins.
func (q *queueTest) wantOrder(order ...*entry) {
	q.t.Helper()
	for i, next := range order {
		if next.done() {
			q.t.Fatalf("number %d hashes before a core is free", i+1)
		}
		q.entries[0].end()
		if !next.done() || next.err != nil {
			q.t.Fatalf("when a core is free, number %d still waits (%v)", i+1, next.err)
		}
		q.entries[0] = next
	}
}

// An entry is one hash in the queue.
type entry struct {
	began, over chan struct{} // over ends the hash
	err         error
}

// enter waits for a hash, from an address or from that of a "known" client.
func (q *queueTest) enter(ctx context.Context, from string) *entry {
	addr, known := strings.CutPrefix(from, "known ")
	e := &entry{began: make(chan struct{}), over: make(chan struct{})}
	q.entries = append(q.entries, e)
	go func(over <-chan struct{}) {
		e.err = q.queue.run(ctx, netip.MustParseAddr(addr), known, func() { close(e.began); <-over })
		if e.err != nil {
			close(e.began)
		}
	}(e.over)
	synctest.Wait()
	return e
}

// done reports whether the hash has begun or was refused.
func (e *entry) done() bool {
	select {
	case <-e.began:
		return true
	default:
		return false
	}
}

// end ends the hash, once.
func (e *entry) end() {
	if e.over != nil {
		close(e.over)
		e.over = nil
	}
	synctest.Wait()
}
