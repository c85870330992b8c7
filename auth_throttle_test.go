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

// Who may hash a password, and when. The rules of the throttle as a client sees
// them are in handlers_test.go.

// One hash runs for each core and 128 wait, from many clients. A place in the queue
// is free again when its client gives up or is done.
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
				t.Fatalf("number %d of 128 that should wait: enter() = %v", i+1, e.err)
			}
		}
		if e := q.enter(q.ctx, "192.0.2.1"); !e.done() || e.err != ErrBusy {
			t.Errorf("behind 128 that wait: enter() = %v, want ErrBusy", e.err)
		}
		giveUp()
		synctest.Wait()
		for _, e := range waiting {
			if !e.done() || !errors.Is(e.err, context.Canceled) {
				t.Errorf("a client that gives up: enter() = %v, want %v", e.err, context.Canceled)
			}
		}
		next := q.enter(q.ctx, "192.0.2.1")
		if next.done() {
			t.Fatalf("behind clients that have given up: enter() = %v, want it to wait", next.err)
		}
		q.entries[0].end()
		synctest.Wait()
		if !next.done() || next.err != nil {
			t.Errorf("after a hash has ended: enter() = %v, want the core", next.err)
		}
	})
}

// An address may have as many hashes waiting as there are places left.
func TestHashQueueIsShared(t *testing.T) {
	for _, test := range []struct {
		name  string
		came  []string // addresses that each ask for as much as they get
		want  []int
		total int
	}{
		{"one address gets half of the queue", []string{"192.0.2.1"}, []int{64}, 64},
		{"the second gets half of what is left", []string{"192.0.2.1", "192.0.2.2"}, []int{64, 32}, 96},
		{"the third gets half of that", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, []int{64, 32, 16}, 112},
		{"of IPv6, a /64 is one address", []string{"2001:db8::1", "2001:db8::2"}, []int{64, 0}, 64},
		{"the next /64 is another address", []string{"2001:db8::1", "2001:db8:0:1::1"}, []int{64, 32}, 96},
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

// Go has one thread more than cores from when the first hash begins to when the
// last one ends. It is the number of the whole process, so no test beside this one
// may hash meanwhile.
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
		t.Errorf("threads more than before, with 1, 2, 1 and 0 hashes: %s, want %s", got, want)
	}
}

// The wait begins with the answer to the last try. Behind a long queue, that may be
// long after the try was reserved.
func TestThrottleWaitsFromTheAnswer(t *testing.T) {
	p, keys := NewPasswords(1), throttleKeys("johndoe", netip.MustParseAddr("192.0.2.1"))
	came := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range freeTries {
		if err := p.throttle.take(keys, came); err != nil {
			t.Fatalf("take of one of the first %d tries = %v, want no wait", freeTries, err)
		}
	}
	answered := came.Add(3 * time.Second)
	p.throttle.failed(keys, answered)
	if got := p.throttle.wait(keys, answered); got != (ThrottledError{time.Second}) {
		t.Errorf("wait after a fifth failure that took 3 s = %v, want 1s", got)
	}
	if got := p.throttle.take(keys, answered.Add(time.Second)); got != nil {
		t.Errorf("take a second later = %v, want an attempt", got)
	}
}

// Only ASCII letters are folded: nobody shares a name's failures by another name
// that some function takes for the same.
func TestThrottleKeysFoldASCII(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	john := throttleKeys("johndoe", addr)
	for name, want := range map[string]bool{"JohnDOE": true, "johndoe ": false, "ſohndoe": false} {
		if got := throttleKeys(name, addr) == john; got != want {
			t.Errorf("the key of %q is that of johndoe: %v, want %v", name, got, want)
		}
	}
	if throttleKeys("admİn", addr) == throttleKeys("admin", addr) || throttleKeys("\u212A", addr) == throttleKeys("k", addr) {
		t.Error("a name with a letter of another script has the key of one in ASCII")
	}
}

// A queueTest is a queue in synthetic time.
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
			t.Errorf("after all have left, %d wait (%v) and %d run", q.queue.total, q.queue.waiting, len(q.queue.running))
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

// end ends the hash, if it runs.
func (e *entry) end() {
	if e.leave != nil {
		e.leave()
		e.leave = nil
	}
}
