package main

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of the throttle within. Its rules for clients are in handlers_test.go, and
// the attempts to get around them in attack_passwords_test.go.

var clientAddr = netip.MustParseAddr("192.0.2.1")

// TestTriesAtOnce: a try under way is no failure. Beyond those that may still fail, a try
// waits for another one to end.
func TestTriesAtOnce(t *testing.T) {
	const cores = 16
	type results map[string]int
	kinds := map[error]string{nil: "right", ErrPassword: "wrong", ErrThrottled: "throttled", ErrBusy: "busy"}
	for _, test := range []struct {
		name     string
		failures int
		tries    string // r is the right password, w a wrong one
		atOnce   int    // hash together
		want     results
	}{
		{"sixteen right logins at once all succeed", 0, "rrrrrrrrrrrrrrrr", 5, results{"right": 16}},
		{"sixteen right logins at once after four failures all succeed", 4, "rrrrrrrrrrrrrrrr", 1, results{"right": 16}},
		{"sixteen right logins at once after a delay all succeed", 5, "rrrrrrrrrrrrrrrr", 1, results{"right": 16}},
		{"of a hundred right logins at once those beyond the places of a client are refused", 0, strings.Repeat("r", 100), 5, results{"right": 64, "busy": 36}},
		{"of sixteen guesses at once five are hashed", 0, "wwwwwwwwwwwwwwww", 5, results{"wrong": 5, "throttled": 11}},
		{"of sixteen guesses at once after four failures one is hashed", 4, "wwwwwwwwwwwwwwww", 1, results{"wrong": 1, "throttled": 15}},
		{"of sixteen guesses at once after a delay one is hashed", 5, "wwwwwwwwwwwwwwww", 1, results{"wrong": 1, "throttled": 15}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPasswords(1)
				p.queue = newHashQueue(cores)
				phc := p.hasher.Hash("secret")
				try := func(password string) error {
					_, err := p.Check(t.Context(), "johndoe", clientAddr, password, func() (string, bool, error) { return phc, false, nil })
					return err
				}
				for range test.failures {
					wantErr(t, "a failure", try("wrong"), ErrPassword)
				}
				time.Sleep(time.Second)
				for range cores {
					p.queue.running <- struct{}{}
				}
				errs := make(chan error, len(test.tries))
				for _, c := range test.tries {
					go func() { errs <- try(map[rune]string{'r': "secret", 'w': "wrong"}[c]) }()
				}
				synctest.Wait()
				flying, waiting := p.throttle.flying[throttleKeys("johndoe", clientAddr)[0]], p.queue.waiting()
				wantEqual(t, "the tries that are under way and that wait", []int{flying, waiting}, []int{test.atOnce, min(len(test.tries), 64)})
				for range cores {
					<-p.queue.running
				}
				got := results{}
				for range test.tries {
					err := <-errs
					if later, ok := err.(LaterError); ok {
						err = later.error
					}
					got[kinds[err]]++
				}
				wantEqual(t, "the results", got, test.want)
				wantEqual(t, "the tries that are under way and that wait afterwards", []int{len(p.throttle.flying), p.queue.waiting()}, []int{0, 0})
			})
		})
	}
}

// TestTryWhoseClientHasGone: it is no failure, and lets the next one begin.
func TestTryWhoseClientHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPasswords(1)
		keys := throttleKeys("johndoe", clientAddr)
		ctx, giveUp := context.WithCancel(t.Context())
		for range freeTries {
			wantErr(t, "begin", p.beginInTurn(ctx, keys, clientAddr), nil)
		}
		errs := make(chan error)
		go func() { errs <- p.beginInTurn(ctx, keys, clientAddr) }()
		synctest.Wait()
		giveUp()
		wantErr(t, "begin of a client that has gone", <-errs, context.Canceled)
		go func() { errs <- p.beginInTurn(t.Context(), keys, clientAddr) }()
		synctest.Wait()
		p.throttle.end(keys)
		wantErr(t, "begin after another one has ended", <-errs, nil)
		for range freeTries {
			p.throttle.end(keys)
		}
		wantEqual(t, "what the throttle holds", len(p.throttle.newer)+len(p.throttle.flying), 0)
	})
}

// TestTryThatWaitsTooLong: a try that waits for others to end is refused before its
// response would come too late, and has not looked up its account.
func TestTryThatWaitsTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, start := NewPasswords(1), time.Now()
		for range freeTries {
			wantErr(t, "begin", p.beginInTurn(t.Context(), throttleKeys("johndoe", clientAddr), clientAddr), nil)
		}
		_, err := p.Check(t.Context(), "johndoe", clientAddr, "secret", func() (string, bool, error) {
			t.Error("the account is looked up")
			return "", false, nil
		})
		wantErr(t, "Check", err, ErrBusy)
		wantEqual(t, "the time until the try is refused", time.Since(start), maxQueueTime)
	})
}

// TestDelayBeginsWithTheResponse: a long queue may delay the response to a try long after
// the try has begun.
func TestDelayBeginsWithTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, keys := NewPasswords(1), throttleKeys("johndoe", clientAddr)
		for range freeTries {
			wantErr(t, "begin", p.beginInTurn(t.Context(), keys, clientAddr), nil)
		}
		time.Sleep(3 * time.Second)
		for range freeTries {
			p.throttle.count(keys, false)
			p.throttle.end(keys)
		}
		wantLater(t, "a try after a fifth failure that took 3 s", p.throttle.check(keys), ErrThrottled, time.Second)
		time.Sleep(time.Second)
		wantErr(t, "a try a second later", p.throttle.check(keys), nil)
	})
}

func TestPasswordOfAnAccountThatCannotBeReadIsNotRight(t *testing.T) {
	_, err := NewPasswords(1).Check(t.Context(), "johndoe", clientAddr, "secret", func() (string, bool, error) { return "", false, ErrUnavailable })
	wantErr(t, "Check", err, ErrUnavailable)
}

func TestSuccessForgetsFailuresAmongTheOlderOnes(t *testing.T) {
	throttle, keys := &NewPasswords(1).throttle, throttleKeys("johndoe", clientAddr)
	for range freeTries {
		throttle.fail(keys)
	}
	for addr := netip.MustParseAddr("10.0.0.0"); len(throttle.older) == 0; addr = addr.Next() {
		throttle.fail(throttleKeys("another", addr))
	}
	wantErr(t, "a try before the success", throttle.check(keys), ErrThrottled)
	throttle.count(keys, true)
	wantErr(t, "a try after the success", throttle.check(keys), nil)
}

// TestForget: a new password that somebody else has set forgets the failures of that
// account from all addresses, and no others.
func TestForget(t *testing.T) {
	p := NewPasswords(1)
	other := netip.MustParseAddr("2001:db8::1")
	for range freeTries {
		p.throttle.fail(throttleKeys("johndoe", clientAddr))
		p.throttle.fail(throttleKeys("JohnDoe", other))
		p.throttle.fail(throttleKeys("jane", clientAddr))
	}
	p.throttle.newer, p.throttle.older = map[throttleKey]failures{}, p.throttle.newer
	for range freeTries {
		p.throttle.fail(throttleKeys("johndoe", netip.MustParseAddr("192.0.2.2")))
	}
	p.Forget("JOHNDOE")
	for _, addr := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
		wantErr(t, "a try from "+addr, p.throttle.check(throttleKeys("johndoe", netip.MustParseAddr(addr))), nil)
	}
	wantErr(t, "a try of another account", p.throttle.check(throttleKeys("jane", clientAddr)), ErrThrottled)
	wantEqual(t, "the failures of the address", p.throttle.get(throttleKeys("", clientAddr)[1]).count, 2*freeTries)
}

// wantLater checks for a LaterError.
func wantLater(t *testing.T, what string, got error, want error, after time.Duration) {
	t.Helper()
	if got != (LaterError{want, after}) {
		t.Errorf("%s = %v, want %v and to try again after %v", what, got, want, after)
	}
}

// fail makes a try fail.
func (t *throttle) fail(keys [2]throttleKey) {
	if _, err := t.begin(keys); err == nil {
		t.count(keys, false)
		t.end(keys)
	}
}
