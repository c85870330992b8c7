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
func (t *Tokens) VerifyMail(p purpose, token string) (userID int64, check func(User) error, err error) {
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

// A letter is a mail to an account. In JSON, it is what the page of a demo server shows.
type letter struct {
	kind    string // of text: reset, verify, or notice of what was changed
	user    int64
	id      string    // of the message: a reader may drop copies
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	SentAt  time.Time `json:"sent_at"`
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
	return &letter{kind, u.ID, rand.Text(), u.Email, subject, text, time.Now().UTC().Truncate(time.Second)}
}

const (
	maxMails     = 256         // that wait, and as many requests for mail
	mailsAnHour  = 5           // of one kind, to one account or address
	mailInterval = time.Minute // between two of them
	mailsInAll   = 1 << 15     // an hour

	mailPause    = 5 * time.Second // before the second attempt; then it doubles, up to a minute
	mailPatience = 10 * time.Minute
	mailDelay    = 100 * time.Millisecond
)

// A mailSink makes one attempt to deliver a letter.
type mailSink interface {
	deliver(context.Context, *letter) error
}

var (
	ErrMailOff     = errors.New("no mail")
	ErrMailBusy    = errors.New("too many mails wait")
	errManyLetters = errors.New("too many to one account or address")
)

// A Mailer sends mail. Its methods may be called concurrently. It is nil if mail is off.
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
	requests, letters  limit // by network
	perMinute, perHour limit // by kind with account or address
}

// NewMailer returns a Mailer, to be ended by Stop.
func NewMailer(sink mailSink, log *slog.Logger, count func(sample string)) *Mailer {
	m := &Mailer{
		mailSink: sink, log: log, count: count, sending: make(chan struct{}, 1),
		requests:  limit{total: maxMails, refusal: ErrMailBusy},
		letters:   limit{total: maxMails, refusal: ErrMailBusy},
		perMinute: limit{total: mailsInAll, most: 1, period: mailInterval, refusal: errManyLetters},
		perHour:   limit{total: mailsInAll, most: mailsAnHour, period: time.Hour, refusal: errManyLetters},
	}
	m.try, m.cancel = context.WithCancel(context.Background())
	m.retry, m.stop = context.WithCancel(m.try)
	return m
}

// Later calls lookUp a moment later, when the request has normally been answered. The
// answer waits for nothing and so cannot show what was found. It returns ErrMailBusy if
// too many requests wait.
func (m *Mailer) Later(from netip.Addr, lookUp func(context.Context)) error {
	if m == nil {
		return ErrMailOff
	}
	return m.background(&m.requests, from, func() {
		time.Sleep(mailDelay)
		lookUp(m.try)
	})
}

// Send sends a letter in the background, unless the network that caused it has too many
// that wait.
func (m *Mailer) Send(l *letter, from netip.Addr) {
	err := m.background(&m.letters, from, func() {
		outcome, err := m.send(l)
		m.report(l, outcome, err)
	})
	if err != nil {
		m.report(l, "dropped", err)
	}
}

// background starts work in the background, on one of the places of the client's network.
func (m *Mailer) background(places *limit, from netip.Addr, work func()) error {
	if err := places.take(network(from), 1); err != nil {
		return err
	}
	m.work.Go(func() {
		defer places.give(network(from), 1)
		work()
	})
	return nil
}

// allow returns an error if a letter is over the limits. The address counts too, because
// many accounts can be registered with one. A letter that is refused does not count.
func (m *Mailer) allow(l *letter) (err error) {
	if checkEmail(l.To) != nil { // a store may be older than the rule
		return errors.New("not an address")
	}
	for _, key := range []string{fmt.Sprint(l.kind, l.user), l.kind + strings.ToLower(l.To)} {
		for _, often := range []*limit{&m.perMinute, &m.perHour} {
			if err = often.take(key, 1); err != nil {
				return err
			}
			defer func() {
				if err != nil {
					often.give(key, 1)
				}
			}()
		}
	}
	return nil
}

// send tries until the letter is delivered, refused or too old.
func (m *Mailer) send(l *letter) (outcome string, err error) {
	if err := m.allow(l); err != nil {
		return "dropped", err
	}
	ctx, cancel := context.WithTimeout(m.try, mailPatience)
	defer cancel()
	for pause := mailPause; ; pause = min(2*pause, time.Minute) {
		m.sending <- struct{}{}
		err := m.deliver(ctx, l)
		<-m.sending
		if err == nil {
			return "sent", nil
		}
		if refused, ok := errors.AsType[*textproto.Error](err); ok && refused.Code >= 500 {
			return "failed", err
		}
		select {
		case <-time.After(pause):
			continue
		case <-ctx.Done():
		case <-m.retry.Done():
		}
		if m.retry.Err() != nil {
			return "dropped", err
		}
		return "failed", err
	}
}

// report says what became of a letter: whose it was, but not its address or its link.
func (m *Mailer) report(l *letter, outcome string, err error) {
	m.count(mailSample(outcome))
	what := []any{"mail", outcome, "text", l.kind, "user", l.user}
	if err != nil {
		m.log.Warn("mail", append(what, "error", mailReason(err))...)
	} else {
		m.log.Info("mail", what...)
	}
}

func mailSample(outcome string) string { return `stdauth_mails_total{outcome="` + outcome + `"}` }

// mailReason is the text of an error for the log. What a server says may contain an
// address, so only its code counts.
func mailReason(err error) string {
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Sprintf("the server answered %d", answer.Code)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return "the server does not speak SMTP"
	}
	return err.Error()
}

// Waiting returns how many letters wait.
func (m *Mailer) Waiting() int {
	if m == nil {
		return 0
	}
	return m.letters.inUse()
}

// Stop lets each letter have one attempt, and ends those too when ctx is done. No method
// but Stop may be called after it.
func (m *Mailer) Stop(ctx context.Context) {
	if m == nil {
		return
	}
	defer context.AfterFunc(ctx, m.cancel)()
	m.stop()
	m.work.Wait()
}
