package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// These tests are the manual of mail below the handlers: tokens, texts, limits, and how
// a mail waits. What an SMTP server gets is in mail_delivery_test.go.

var mailUser = User{ID: 1, Username: "johndoe", Email: "johndoe@example.com", Role: RoleUser, Epoch: 3}

func TestMailTokens(t *testing.T) {
	expires := testNow.Add(time.Hour)
	change := func(f func(*User)) User { u := mailUser; f(&u); return u }
	for _, test := range []struct {
		rule          string
		u             User // as it is now
		at            time.Duration
		reset, verify bool // whether its token is good
	}{
		{"a token is good for the account it was made for", mailUser, 0, true, true},
		{"a token is good until it expires", mailUser, time.Hour - time.Second, true, true},
		{"a token has expired at its expiry", mailUser, time.Hour, false, false},
		{"a new password ends a token for a reset", change(func(u *User) { u.SetPassword("x") }), 0, false, true},
		{"a new address ends both", change(func(u *User) { u.Email = "other@example.com" }), 0, false, false},
		{"an address that was removed ends both", change(func(u *User) { u.Email = "" }), 0, false, false},
		{"an address in another case is another address", change(func(u *User) { u.Email = "JohnDoe@example.com" }), 0, false, false},
		{"epoch and address do not run into each other", change(func(u *User) { u.Epoch = 0; u.Email = "3 johndoe@example.com" }), 0, false, false},
		{"a disabled account can use neither", change(func(u *User) { u.Disabled = true }), 0, false, false},
		{"a verified address can be verified again", change(func(u *User) { u.EmailVerified = !u.EmailVerified }), 0, true, true},
		{"a name or a role is not part of a token", change(func(u *User) { u.FullName, u.Role = "John", RoleAdmin }), 0, true, true},
	} {
		for p, want := range map[purpose]bool{resetting: test.reset, verifying: test.verify} {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(testNow.Add(test.at)))
				id, check, err := testTokens().VerifyMail(p, testTokens().SignMail(p, mailUser, expires))
				if id != mailUser.ID || err != nil {
					t.Fatalf("%s: VerifyMail() = %d, %v", test.rule, id, err)
				}
				if err := check(test.u); (err == nil) != want {
					t.Errorf("%s: for %s, check() = %v, want good: %v", test.rule, p, err, want)
				}
			})
		}
	}
}

func TestAttackMailTokenAsAnotherKind(t *testing.T) {
	expires := testNow.Add(time.Hour)
	reset, verify := testTokens().SignMail(resetting, mailUser, expires), testTokens().SignMail(verifying, mailUser, expires)
	refresh := testTokens().SignRefresh(RefreshToken{UserID: 1, SessionID: "S", Generation: expires.Unix()})
	for name, token := range map[string]string{"a reset token": reset, "a verify token": verify} {
		refuseAccess(t, name, token)
		refuseRefresh(t, name, token)
	}
	for _, test := range []struct {
		name, token string
		p           purpose
	}{
		{"a verify token for a reset", verify, resetting},
		{"a reset token to verify", reset, verifying},
		{"a refresh token for a reset", refresh, resetting},
		{"a refresh token to verify", refresh, verifying},
		{"an access token for a reset", testTokens().SignAccess(johnClaims()), resetting},
		{"a reset token with another account", strings.Replace(reset, ".1.", ".2.", 1), resetting},
		{"a reset token with a later expiry", strings.Replace(reset, fmt.Sprint(expires.Unix()), fmt.Sprint(expires.Unix()+1), 1), resetting},
		{"a reset token of another server", NewTokens("stdauth", "another key of thirty-two bytes or so", "").SignMail(resetting, mailUser, expires), resetting},
		{"an empty token", "", resetting},
	} {
		if id, _, err := testTokens().VerifyMail(test.p, test.token); err != ErrMailToken {
			t.Errorf("%s: VerifyMail() = %d, %v; want ErrMailToken", test.name, id, err)
		}
	}
}

// TestAttackTextInHeader: nothing that a user chose is in the header. A text has the
// username, which is letters, digits and @ . + - _ alone.
func TestAttackTextInHeader(t *testing.T) {
	u := User{ID: 7, Username: "{link}", Email: "mallory@example.com", FullName: "Free.money\r\nBcc: all@example.com"}
	for _, kind := range []string{"reset", "verify", "notice"} {
		l := newLetter(kind, u, "{link}", "https://app.example.com/#reset=x", "{what}", "password", "{time}", "{client}", "{client}", "192.0.2.1")
		plain := newLetter(kind, mailUser)
		if l.subject != plain.subject || strings.ContainsAny(l.subject, "{}\r\n") || l.to != u.Email {
			t.Errorf("%s: subject %q, to %q", kind, l.subject, l.to)
		}
		if strings.Contains(l.text, "money") || strings.Contains(l.text, u.Email) {
			t.Errorf("the text has what the user typed:\n%s", l.text)
		}
		if !strings.Contains(l.text, "Hello {link},\n") {
			t.Errorf("a value was replaced in a value:\n%s", l.text)
		}
		for line := range strings.Lines(plain.text) {
			if !isASCII(line) || len(line) > 78+1 {
				t.Errorf("mail_%s.txt has the line %q", kind, line)
			}
		}
	}
}

func TestMailer(t *testing.T) {
	const ms, minute, hour = time.Millisecond, time.Minute, time.Hour
	refused := &textproto.Error{Code: 550, Msg: "johndoe@example.com is unknown"}
	later := &textproto.Error{Code: 451, Msg: "later"}
	broken := errors.New("connection reset")
	many := func(n int, every time.Duration) (at []time.Duration) {
		for i := range n {
			at = append(at, time.Duration(i)*every)
		}
		return at
	}
	for _, test := range []struct {
		rule    string
		send    []time.Duration // when letters of one kind are sent to the account
		results []error         // of the attempts; then nil
		want    string          // the log: when, and what
	}{
		{"a mail is sent at once", []time.Duration{0}, nil, "0s sent"},
		{"a refusal is final", []time.Duration{0}, []error{refused}, "0s failed: the server answered 550"},
		{"a mail that the server cannot take now is sent again", []time.Duration{0}, []error{later}, "5s sent"},
		{"so is a mail whose connection broke", []time.Duration{0}, []error{broken}, "5s sent"},
		{"the pauses grow", []time.Duration{0}, []error{later, broken, later}, "35s sent"},
		{"a refusal after a pause is final", []time.Duration{0}, []error{later, refused}, "5s failed: the server answered 550"},
		{"after ten minutes a mail is given up", []time.Duration{0}, []error{later, later, later, later, later, later, later, later}, "10m0s failed: the server answered 451"},
		{"an account gets one mail a minute", []time.Duration{0, minute - ms, minute}, nil, "0s sent, 59.999s dropped: too many to one account or address, 1m0s sent"},
		{"an account gets five mails an hour", many(7, minute), nil, "0s sent, 1m0s sent, 2m0s sent, 3m0s sent, 4m0s sent, 5m0s dropped: too many to one account or address, 6m0s dropped: too many to one account or address"},
		{"a sixth mail is sent an hour after the first", append(many(5, minute), hour-minute-ms, hour), nil, "0s sent, 1m0s sent, 2m0s sent, 3m0s sent, 4m0s sent, 58m59.999s dropped: too many to one account or address, 1h0m0s sent"},
		{"a mail that failed counts", []time.Duration{0, ms}, []error{refused}, "0s failed: the server answered 550, 1ms dropped: too many to one account or address"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			inPost(t, func(p *post) {
				p.results = test.results
				for _, at := range test.send {
					time.Sleep(time.Until(p.start.Add(at)))
					p.Send(newLetter("reset", mailUser), testClient)
					synctest.Wait()
				}
				time.Sleep(hour)
				if got := strings.Join(p.reports(), ", "); got != test.want {
					t.Errorf("the log says %q, want %q", got, test.want)
				}
				if n := p.Waiting(); n != 0 {
					t.Errorf("%d letters wait at the end", n)
				}
			})
		})
	}
}

// TestMailLimits: which letters share a limit.
func TestMailLimits(t *testing.T) {
	first := newLetter("reset", mailUser)
	for _, test := range []struct {
		rule  string
		other *letter
		want  string
	}{
		{"another kind of mail to the same account has a limit of its own", &letter{kind: "notice", user: 1, to: "johndoe@example.com"}, "sent"},
		{"another account has a limit of its own", &letter{kind: "reset", user: 2, to: "jane@example.com"}, "sent"},
		{"another account with the same address shares its limit", &letter{kind: "reset", user: 2, to: "johndoe@example.com"}, "dropped"},
		{"so does one with the address in another case", &letter{kind: "reset", user: 2, to: "JohnDoe@Example.com"}, "dropped"},
		{"a new address of an account shares its limit", &letter{kind: "reset", user: 1, to: "other@example.com"}, "dropped"},
		{"an address with a line break gets no mail", &letter{kind: "reset", user: 2, to: "jane@example.com\r\nBcc: all@example.com"}, "dropped"},
		{"an account without an address gets no mail", &letter{kind: "reset", user: 2}, "dropped"},
	} {
		inPost(t, func(p *post) {
			test.other.made = time.Now()
			p.Send(first, testClient)
			p.Send(test.other, testClient)
			synctest.Wait()
			if got := p.reports(); len(got) != 2 || !strings.Contains(strings.Join(got, ", "), "0s sent") || strings.Count(strings.Join(got, ", "), test.want) != map[string]int{"sent": 2, "dropped": 1}[test.want] {
				t.Errorf("%s: %q, want %s", test.rule, got, test.want)
			}
		})
	}
}

// TestAttackMailBomb: one client, or many, ask for mail as fast as they can.
func TestAttackMailBomb(t *testing.T) {
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	for _, test := range []struct {
		attack       string
		from         func(i int) netip.Addr
		user         func(i int) User
		letters      int // of 600, that wait at most
		victimWaits  bool
		sentToVictim int
	}{
		{"one account from one address", func(int) netip.Addr { return testClient }, func(int) User { return mailUser }, 1, true, 1},
		{"one account from 300 addresses", func(i int) netip.Addr { return client(i % 300) }, func(int) User { return mailUser }, 1, true, 1},
		{"600 accounts from one address", func(int) netip.Addr { return testClient }, numberedMailUser, 128, true, 1},
		{"600 accounts from 300 addresses", func(i int) netip.Addr { return client(i % 300) }, numberedMailUser, maxMails, false, 0},
		{"600 accounts with one address", func(i int) netip.Addr { return client(i % 300) }, func(i int) User { u := numberedMailUser(i); u.Email = "victim@example.com"; return u }, 1, true, 1},
	} {
		inPost(t, func(p *post) {
			p.hang = true // the queue must hold them all
			for i := range 600 {
				p.Send(newLetter("reset", test.user(i)), test.from(i))
			}
			synctest.Wait()
			if p.Waiting() > test.letters || p.Waiting() < min(test.letters, maxMails-1) {
				t.Errorf("%s: %d letters wait, want %d", test.attack, p.Waiting(), test.letters)
			}
			before := p.Waiting()
			p.Send(newLetter("reset", User{ID: 1000, Username: "jane", Email: "jane@example.com"}), client(1000))
			if got := p.Waiting() > before; got != test.victimWaits {
				t.Errorf("%s: a mail of somebody else is taken: %v, want %v", test.attack, got, test.victimWaits)
			}
		})
	}
}

func numberedMailUser(i int) User {
	return User{ID: int64(i + 2), Username: fmt.Sprint("user", i), Email: fmt.Sprintf("user%d@example.com", i)}
}

// TestRequestsForMailAreShared: too many requests are refused, whether there are accounts
// or not, and however many letters wait.
func TestRequestsForMailAreShared(t *testing.T) {
	for _, known := range []bool{false, true} {
		inPost(t, func(p *post) {
			p.hang = true
			taken := 0
			for i := range 300 {
				err := p.Later(testClient, func(context.Context) {
					if known {
						p.Send(newLetter("reset", numberedMailUser(i)), testClient)
					}
				})
				if err == nil {
					taken++
				} else if !errors.Is(err, ErrMailBusy) {
					t.Errorf("Later() = %v, want ErrMailBusy", err)
				}
			}
			if taken != maxMails/2 {
				t.Errorf("one client may have %d requests wait, want half of %d", taken, maxMails)
			}
			time.Sleep(mailDelay)
			synctest.Wait()
			for taken = 0; p.Later(testClient, func(context.Context) {}) == nil; {
				taken++
			}
			if taken != maxMails/2 {
				t.Errorf("with accounts: %v, one client may have %d requests wait after the first, want half of %d", known, taken, maxMails)
			}
			time.Sleep(time.Second)
		})
	}
}

// TestLookUpComesAfterTheAnswer: what Later does takes no time of the request.
func TestLookUpComesAfterTheAnswer(t *testing.T) {
	inPost(t, func(p *post) {
		var done atomic.Bool
		p.Later(testClient, func(context.Context) { done.Store(true) })
		time.Sleep(mailDelay - 1)
		synctest.Wait()
		if done.Load() {
			t.Error("the look-up came before the answer can have gone")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !done.Load() {
			t.Error("the look-up did not come")
		}
	})
}

func TestMailerStops(t *testing.T) {
	t.Run("a mail that is being sent is finished", func(t *testing.T) {
		inPost(t, func(p *post) {
			p.takes = 5 * time.Second
			p.Send(newLetter("reset", mailUser), testClient)
			p.Send(newLetter("verify", mailUser), testClient)
			synctest.Wait()
			p.stop(gracePeriod + 1)
			wantReports(t, p, "5s sent", "10s sent")
		})
	})
	t.Run("a request that was answered is still looked up", func(t *testing.T) {
		inPost(t, func(p *post) {
			p.Later(testClient, func(context.Context) { p.Send(newLetter("reset", mailUser), testClient) })
			p.stop(gracePeriod)
			wantReports(t, p, "100ms sent")
		})
	})
	t.Run("a mail that waits for its next attempt is dropped", func(t *testing.T) {
		inPost(t, func(p *post) {
			p.results = []error{errors.New("connection refused")}
			p.Send(newLetter("reset", mailUser), testClient)
			time.Sleep(time.Second)
			p.stop(gracePeriod)
			wantReports(t, p, "1s dropped: connection refused")
		})
	})
	t.Run("a server that hangs delays the end by the grace period at most", func(t *testing.T) {
		inPost(t, func(p *post) {
			p.hang = true
			p.Send(newLetter("reset", mailUser), testClient)
			p.Send(newLetter("verify", mailUser), testClient)
			p.stop(gracePeriod)
			wantReports(t, p, "10s dropped: context canceled", "10s dropped: context canceled")
		})
	})
}

func wantReports(t *testing.T, p *post, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, p.reports()); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

var testClient = netip.MustParseAddr("192.0.2.1")

// A post is a Mailer whose letters go nowhere.
type post struct {
	*Mailer
	start   time.Time
	results []error       // of the next attempts; then nil
	takes   time.Duration // each attempt
	hang    bool          // each attempt lasts until the end

	log    printed
	mu     sync.Mutex
	counts map[string]int
	busy   bool
}

func inPost(t *testing.T, test func(p *post)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &post{start: time.Now(), counts: map[string]int{}}
		p.Mailer = NewMailer(p, slog.New(slog.NewTextHandler(&p.log, nil)), func(sample string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.counts[sample]++
		})
		test(p)
		p.cancel()
		p.work.Wait()
	})
}

func (p *post) stop(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.Stop(ctx)
}

func (p *post) deliver(ctx context.Context, l *letter) error {
	p.mu.Lock()
	two := p.busy
	p.busy = true
	var err error
	if len(p.results) > 0 {
		err, p.results = p.results[0], p.results[1:]
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy = false
	}()
	if two {
		panic("two letters are delivered at once")
	}
	if p.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(p.takes)
	return err
}

// reports returns what the log says of letters: when, and what became of them.
func (p *post) reports() (reports []string) {
	for line := range strings.Lines(p.log.String()) {
		field := func(name string) (value string) {
			_, rest, _ := strings.Cut(line, name+"=")
			if quoted, ok := strings.CutPrefix(rest, `"`); ok {
				value, _, _ = strings.Cut(quoted, `"`)
			} else {
				value, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
			}
			return value
		}
		at, _ := time.Parse(time.RFC3339Nano, field("time"))
		report := fmt.Sprint(at.Sub(p.start.Truncate(time.Millisecond)), " ", field("mail"))
		if field("error") != "" {
			report += ": " + field("error")
		}
		reports = append(reports, report)
	}
	return reports
}
