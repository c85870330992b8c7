package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of the queue for hashing, and of the throttle within. The rules of the
// throttle for clients are in handlers_test.go.

// TestHashQueue: one hash runs for each core, and 128 wait. A place in the queue is free
// again when its client has gone or its hash has ended.
func TestHashQueue(t *testing.T) {
	inQueue(t, func(q *queueTest) {
		q.occupy()
		patience, giveUp := context.WithCancel(q.ctx)
		var waiting []*entry
		for i := range 128 {
			waiting = append(waiting, q.enter(patience, fmt.Sprintf("10.0.0.%d", i)))
		}
		for i, e := range waiting {
			if e.done() {
				t.Fatalf("enter() of number %d of 128 = %v, want it to wait", i+1, e.err)
			}
		}
		if e := q.enter(q.ctx, "192.0.2.1"); !e.done() || e.err != ErrBusy {
			t.Errorf("enter() after 128 that wait = %v, want ErrBusy", e.err)
		}
		giveUp()
		synctest.Wait()
		for _, e := range waiting {
			if !e.done() || !errors.Is(e.err, context.Canceled) {
				t.Errorf("enter() of a client that has gone = %v, want %v", e.err, context.Canceled)
			}
		}
		next := q.enter(q.ctx, "192.0.2.1")
		if next.done() {
			t.Fatalf("enter() after all clients have gone = %v, want it to wait", next.err)
		}
		q.entries[0].end()
		synctest.Wait()
		if !next.done() || next.err != nil {
			t.Errorf("enter() after a hash has ended = %v, want nil", next.err)
		}
	})
}

// TestHashQueueIsShared: the hashes of one address may use half of the free places.
func TestHashQueueIsShared(t *testing.T) {
	for _, test := range []struct {
		name  string
		came  []string // addresses, each of which enters until it is refused
		want  []int
		total int
	}{
		{"one address gets half of the queue", []string{"192.0.2.1"}, []int{64}, 64},
		{"a second address gets half of the remaining places", []string{"192.0.2.1", "192.0.2.2"}, []int{64, 32}, 96},
		{"a third address gets half of the then remaining places", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, []int{64, 32, 16}, 112},
		{"an IPv6 /64 is one address", []string{"2001:db8::1", "2001:db8::2"}, []int{64, 0}, 64},
		{"another IPv6 /64 is another address", []string{"2001:db8::1", "2001:db8:0:1::1"}, []int{64, 32}, 96},
	} {
		t.Run(test.name, func(t *testing.T) {
			inQueue(t, func(q *queueTest) {
				q.occupy()
				for i, from := range test.came {
					got := 0
					for !q.enter(q.ctx, from).done() {
						got++
					}
					if got != test.want[i] {
						t.Errorf("%s has %d places, want %d", from, got, test.want[i])
					}
				}
				if q.queue.total != test.total {
					t.Errorf("%d places are taken, want %d", q.queue.total, test.total)
				}
			})
		})
	}
}

// TestOneMoreThreadWhileHashing: GOMAXPROCS is one more than the number of cores while
// any hash runs. It belongs to the process, and this test must not run in parallel with
// another one that hashes.
func TestOneMoreThreadWhileHashing(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	hashBegins()
	during := runtime.GOMAXPROCS(0)
	hashBegins()
	both := runtime.GOMAXPROCS(0)
	hashEnds()
	one := runtime.GOMAXPROCS(0)
	hashEnds()
	after := runtime.GOMAXPROCS(0)
	got := fmt.Sprint(during-before, both-before, one-before, after-before)
	if want := "1 1 1 0"; got != want {
		t.Errorf("GOMAXPROCS above its initial value with 1, 2, 1 and 0 hashes = %s, want %s", got, want)
	}
}

// TestThrottleWaitsFromTheResponse: the wait begins with the response to the last attempt,
// which a long queue may delay long after the attempt was reserved.
func TestThrottleWaitsFromTheResponse(t *testing.T) {
	p, keys := NewPasswords(1), throttleKeys("johndoe", netip.MustParseAddr("192.0.2.1"))
	came := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range freeTries {
		if err := p.throttle.take(keys, came); err != nil {
			t.Fatalf("take of one of the first %d tries = %v, want no wait", freeTries, err)
		}
	}
	returned := came.Add(3 * time.Second)
	p.throttle.failed(keys, returned)
	if got := p.throttle.wait(keys, returned); got != (ThrottledError{time.Second}) {
		t.Errorf("wait after a fifth failure that took 3 s = %v, want 1s", got)
	}
	if got := p.throttle.take(keys, returned.Add(time.Second)); got != nil {
		t.Errorf("take a second later = %v, want an attempt", got)
	}
}

// TestThrottleKeysFoldASCII: only ASCII letters are folded. The failures of a name do
// not count for another one that Unicode folds to it.
func TestThrottleKeysFoldASCII(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	john := throttleKeys("johndoe", addr)
	for name, want := range map[string]bool{"JohnDOE": true, "johndoe ": false, "ſohndoe": false} {
		if got := throttleKeys(name, addr) == john; got != want {
			t.Errorf("the key of %q equals that of johndoe: %v, want %v", name, got, want)
		}
	}
	if throttleKeys("admİn", addr) == throttleKeys("admin", addr) || throttleKeys("\u212A", addr) == throttleKeys("k", addr) {
		t.Error("a name with a letter of another script has the key of an ASCII name")
	}
}

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
		q := &queueTest{t: t, ctx: ctx, queue: &NewPasswords(1).queue}
		test(q)
		cancel()
		synctest.Wait()
		for _, e := range q.entries {
			e.end()
		}
		if q.queue.total != 0 || len(q.queue.waiting) != 0 || len(q.queue.running) != 0 {
			t.Errorf("after all hashes have ended, %d wait (%v) and %d run, want none", q.queue.total, q.queue.waiting, len(q.queue.running))
		}
	})
}

// occupy takes all cores.
func (q *queueTest) occupy() {
	for i := range cap(q.queue.running) {
		if e := q.enter(q.ctx, "198.51.100.1"); !e.done() || e.err != nil {
			q.t.Fatalf("hash %d of %d does not run: %v", i+1, cap(q.queue.running), e.err)
		}
	}
}

// An entry is one call of enter.
type entry struct {
	ended chan struct{}
	leave func()
	err   error
}

func (q *queueTest) enter(ctx context.Context, from string) *entry {
	e := &entry{ended: make(chan struct{})}
	q.entries = append(q.entries, e)
	go func() {
		e.leave, e.err = q.queue.enter(ctx, netip.MustParseAddr(from))
		close(e.ended)
	}()
	synctest.Wait()
	return e
}

func (e *entry) done() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}

// end ends the hash if it runs.
func (e *entry) end() {
	if e.leave != nil {
		e.leave()
		e.leave = nil
	}
}
