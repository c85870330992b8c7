package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
)

// One hash runs for each processor, maxWaiting wait, and the next is sent away.
// A place in the queue is free again when its client gives up or is done.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		type entered struct {
			turn *turn
			err  error
		}
		come := func(ctx context.Context) chan entered {
			result := make(chan entered, 1)
			go func() {
				turn, err := g.enter(ctx)
				result <- entered{turn, err}
			}()
			synctest.Wait()
			return result
		}

		var running, waiting []chan entered
		for range runtime.GOMAXPROCS(0) {
			running = append(running, come(t.Context()))
		}
		patience, giveUp := context.WithCancel(t.Context())
		for range maxWaiting {
			waiting = append(waiting, come(patience))
		}
		for _, r := range running {
			if len(r) == 0 {
				t.Fatalf("of the first %d, not all have a turn", len(running))
			}
		}
		for i, w := range waiting {
			if len(w) > 0 {
				t.Fatalf("of those who should wait, number %d has %+v", i+1, <-w)
			}
		}
		if e := <-come(t.Context()); e.err != errBusy {
			t.Errorf("behind %d who wait: enter() = %v, want errBusy", maxWaiting, e.err)
		}

		giveUp()
		synctest.Wait()
		for _, w := range waiting {
			if e := <-w; !errors.Is(e.err, context.Canceled) {
				t.Errorf("who gives up: enter() = %v, want %v", e.err, context.Canceled)
			}
		}
		next := come(t.Context())
		if len(next) > 0 {
			t.Fatalf("behind those who have given up: enter() = %+v, want to wait", <-next)
		}
		(<-running[0]).turn.leave()
		if e := <-next; e.err != nil {
			t.Errorf("after a turn has ended: enter() = %v, want the turn", e.err)
		} else {
			e.turn.leave()
		}
		for _, r := range running[1:] {
			(<-r).turn.leave()
		}
		if left := g.waiting.Load(); left != 0 || len(g.slots) != 0 {
			t.Errorf("after all have left, %d are counted and %d run", left, len(g.slots))
		}
	})
}

// A pause waits for a byte that the hash has sent to itself, and a turn takes
// its pipe away when it ends.
func TestTurnPausesInTheNetworksQueue(t *testing.T) {
	turn, err := newGate().enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if turn.reader == nil {
		t.Fatal("the turn has no pipe to wait on")
	}
	for range 3 {
		turn.buf[0] = 1
		turn.pause()
		if turn.buf[0] != 0 {
			t.Error("pause() returned before the byte came that it waits for")
		}
	}
	turn.leave()
	if err := turn.reader.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closing the pipe after leave() = %v, want %v", err, os.ErrClosed)
	}
	if err := turn.writer.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closing the pipe's other end after leave() = %v, want %v", err, os.ErrClosed)
	}
}
