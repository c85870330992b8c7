package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// This file holds what mail says and how it waits, so that no request waits for a mail
// server.

// SignMail returns the token of a link for the account.
func (t *Tokens) SignMail(p purpose, u User, expires time.Time) string {
	return t.sign(p, mailProof(p, u), u.ID, expires.Unix())
}

// ErrMailToken means that the token of a link is not valid, or not any more.
var ErrMailToken = errors.New("invalid mail token")

// VerifyMail returns the account of a token, or ErrMailToken if this server did not sign
// it. check returns nil if the token is good for the account as it is now, ErrInactive if
// the account is disabled, else ErrMailToken. No store keeps a token: the write that
// sets a new password checks it and uses it up.
func (t *Tokens) VerifyMail(p purpose, token string) (userID int64, check func(u User) error, err error) {
	proof, userID, expires, err := t.open(p, token)
	if err != nil {
		return 0, nil, ErrMailToken
	}
	return userID, func(u User) error {
		if proof != mailProof(p, u) || time.Now().Unix() >= expires {
			return ErrMailToken
		}
		return Caller{}.Allowed(u)
	}, nil
}

// mailProof changes with the address, and for a reset with the password as well.
func mailProof(p purpose, u User) string {
	if p != resetting {
		u.Epoch = 0
	}
	sum := sha256.Sum256(fmt.Append(nil, u.Epoch, " ", u.Email))
	return base64url.EncodeToString(sum[:])
}

// A letter is a mail to an account.
type letter struct {
	kind              string // of text: reset, verify or notice
	user              int64
	to, subject, text string
	id                string // of the message: a reader may drop copies
	made              time.Time
}

// mailTexts are the texts by kind. The first line is the subject.
//
//go:embed mail_reset.txt mail_verify.txt mail_notice.txt
var mailTexts embed.FS

// newLetter returns a letter to the account's address. The values replace names in the
// text, as those of [strings.NewReplacer]. Nothing changes the subject.
func newLetter(kind string, u User, values ...string) *letter {
	file, err := mailTexts.ReadFile("mail_" + kind + ".txt")
	if err != nil {
		panic(err) // unreachable: it is embedded
	}
	subject, text, _ := strings.Cut(string(file), "\n\n")
	text = strings.NewReplacer(append(values, "{username}", u.Username)...).Replace(text)
	return &letter{kind, u.ID, u.Email, subject, text, rand.Text(), time.Now()}
}

const (
	maxMails     = 256         // that wait, and as many requests for mail
	mailsAnHour  = 5           // of one kind, to one account or address
	mailInterval = time.Minute // between two of them
	mailsInAll   = 1 << 15     // an hour

	mailPause    = 5 * time.Second // before the second attempt; then it doubles
	mailPatience = 10 * time.Minute
	mailDelay    = 100 * time.Millisecond
)

// A mailSink makes one attempt to deliver a letter.
type mailSink interface {
	deliver(context.Context, *letter) error
}

// ErrMailBusy means that too many mails wait.
var ErrMailBusy = errors.New("too many mails wait")

// A Mailer sends mail. Its methods may be called concurrently.
type Mailer struct {
	mailSink
	log     *slog.Logger
	count   func(sample string)
	sending chan struct{} // has room for one

	retry, try   context.Context // done when no attempt may begin again, or go on
	stop, cancel context.CancelFunc
	work         sync.WaitGroup

	// Requests do not share the places of letters: the number of those left would
	// reveal accounts.
	requests, letters  budget[netip.Prefix]
	perMinute, perHour rate[string]
}

// NewMailer returns a Mailer, to be ended by Stop.
func NewMailer(sink mailSink, log *slog.Logger, count func(sample string)) *Mailer {
	m := &Mailer{mailSink: sink, log: log, count: count, sending: make(chan struct{}, 1)}
	m.requests = budget[netip.Prefix]{total: maxMails, share: 1}
	m.letters = budget[netip.Prefix]{total: maxMails, share: 1}
	m.perMinute = rate[string]{budget: budget[string]{total: mailsInAll, share: 1, most: 1}, period: mailInterval}
	m.perHour = rate[string]{budget: budget[string]{total: mailsInAll, share: 1, most: mailsAnHour}, period: time.Hour}
	m.try, m.cancel = context.WithCancel(context.Background())
	m.retry, m.stop = context.WithCancel(m.try)
	return m
}

// Later calls lookUp a moment later, when the request has been answered, so the answer
// cannot show what was found. It returns ErrMailBusy if too many requests wait.
func (m *Mailer) Later(from netip.Addr, lookUp func(context.Context)) error {
	return m.begin(&m.requests, site(from), func() {
		time.Sleep(mailDelay)
		lookUp(m.try)
	})
}

// Send sends a letter in the background, unless its account, its address or the network
// that caused it has got too much.
func (m *Mailer) Send(l *letter, from netip.Addr) {
	var err error
	switch {
	case checkEmail(l.to) != nil: // a store may be older than the rule
		err = errors.New("not an address")
	case !m.allow(l):
		err = errors.New("too many to one account or address")
	default:
		err = m.begin(&m.letters, site(from), func() { m.send(l) })
	}
	if err != nil {
		m.report(l, "dropped", err)
	}
}

// begin starts work in the background, on one of the places of the client's network.
func (m *Mailer) begin(places *budget[netip.Prefix], client netip.Prefix, work func()) error {
	if !places.take(client, 1) {
		return ErrMailBusy
	}
	m.work.Go(func() {
		defer places.give(client, 1)
		work()
	})
	return nil
}

// allow reports whether one more letter is within the limits. The address counts too,
// because many accounts can be registered with one.
func (m *Mailer) allow(l *letter) bool {
	for _, key := range []string{fmt.Sprint(l.kind, l.user), l.kind + strings.ToLower(l.to)} {
		if m.perMinute.spend(key) != nil || m.perHour.spend(key) != nil {
			return false
		}
	}
	return true
}

// send tries until the letter is delivered, refused or too old.
func (m *Mailer) send(l *letter) {
	for pause := mailPause; ; pause *= 2 {
		err := errors.New("it has waited for too long")
		m.sending <- struct{}{}
		if time.Since(l.made) <= mailPatience {
			err = m.deliver(m.try, l)
		}
		<-m.sending
		refused, _ := errors.AsType[*textproto.Error](err)
		left := mailPatience - time.Since(l.made)
		switch {
		case err == nil:
			m.report(l, "sent", nil)
			return
		case refused != nil && refused.Code >= 500, left <= 0:
			m.report(l, "failed", err)
			return
		}
		select {
		case <-time.After(min(pause, left)):
		case <-m.retry.Done():
			m.report(l, "dropped", err)
			return
		}
	}
}

// report says what became of a letter: whose it was, but not its address or its link.
func (m *Mailer) report(l *letter, outcome string, err error) {
	level, attrs := slog.LevelInfo, []any{"mail", outcome, "text", l.kind, "user", l.user}
	if err != nil {
		level, attrs = slog.LevelWarn, append(attrs, "error", mailReason(err))
	}
	m.log.Log(context.Background(), level, "mail", attrs...)
	m.count(mailSample(outcome))
}

func mailSample(outcome string) string { return `stdauth_mails_total{outcome="` + outcome + `"}` }

// Waiting returns how many letters wait. A nil Mailer has none.
func (m *Mailer) Waiting() int {
	if m == nil {
		return 0
	}
	return m.letters.inUse()
}

// Stop lets each letter have one attempt, and ends those too when ctx is done. No method
// may be called after it.
func (m *Mailer) Stop(ctx context.Context) {
	if m == nil {
		return
	}
	defer context.AfterFunc(ctx, m.cancel)()
	m.stop()
	m.work.Wait()
}
