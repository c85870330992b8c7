package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"
)

// This file holds the two places where mail goes: an SMTP server, and the terminal of
// somebody who tries things out.

// MailConfig says how mail is sent.
type MailConfig struct {
	Target   string // "terminal", "smtp://user@host:587", "smtps://user@host:465", or "" for no mail
	From     string // the sender, "Name <address>"
	Link     string // the page that a mail links to
	Password string // of the user in Target
}

// checkMail returns the first setting that is invalid, and why. No error quotes a value,
// because people put passwords into URLs.
func checkMail(c MailConfig) (setting string, err error) {
	link, badLink := url.Parse(c.Link)
	from, badFrom := mail.ParseAddress(c.From)
	target, bad := url.Parse(c.Target)
	remote := c.Target != "" && c.Target != mailTerminal
	switch {
	case c.Link != "" && (badLink != nil || link.Scheme != "http" && link.Scheme != "https" || link.Host == "" || strings.Contains(c.Link, "#") || link.String() != c.Link):
		return "-mail-link", errors.New("must be a URL such as https://app.example.com/account, without #")
	case c.From != "" && (badFrom != nil || checkEmail(from.Address) != nil || !isASCII(from.Address) || checkFullName(from.Name) != nil):
		return "-mail-from", errors.New("must be a sender such as Example <no-reply@example.com>")
	case remote && (bad != nil || target.Scheme != "smtp" && target.Scheme != "smtps" || target.Hostname() == "" || target.Path+target.RawQuery+target.Fragment != ""):
		return "-mail", errors.New("must be terminal, smtp://user@host:587 or smtps://user@host:465")
	case !remote:
		return "", nil
	}
	_, withPassword := target.User.Password()
	switch {
	case withPassword:
		return "-mail", errors.New("must not contain a password: set MAIL_PASSWORD")
	case (target.User.Username() == "") != (c.Password == ""):
		return "MAIL_PASSWORD", errors.New("must be set if -mail has a user, and only then")
	case c.From == "":
		return "-mail-from", errors.New("is required with an SMTP server")
	case c.Link == "":
		return "-mail-link", errors.New("is required with an SMTP server")
	}
	return "", nil
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c > 126 }) }

// startMail returns a Mailer, or nil if mail is off. A server that does not work yet is
// no error: it may be starting, too.
func startMail(c MailConfig, stdout io.Writer, log *slog.Logger, count func(sample string)) *Mailer {
	if c.Target == "" {
		return nil
	}
	m := NewMailer(newMailSink(c, stdout), log, count)
	if s, ok := m.mailSink.(*smtpServer); ok {
		m.work.Go(func() {
			if err := s.deliver(m.retry, nil); err != nil && m.retry.Err() == nil {
				log.Warn("the mail server does not work at the moment", "error", mailReason(err))
			}
		})
	}
	return m
}

// newMailSink returns the place where mail goes with a MailConfig that checkMail accepts.
func newMailSink(c MailConfig, stdout io.Writer) mailSink {
	if c.Target == mailTerminal {
		return &printer{w: stdout}
	}
	target, _ := url.Parse(c.Target)
	from, _ := mail.ParseAddress(c.From)
	s := &smtpServer{host: target.Hostname(), user: target.User.Username(), password: c.Password, from: from}
	s.config.ServerName, s.implicit = s.host, target.Scheme == "smtps"
	port := map[string]string{"smtp": "587", "smtps": "465"}[target.Scheme]
	s.addr, s.dial = net.JoinHostPort(s.host, cmp.Or(target.Port(), port)), new(net.Dialer).DialContext
	return s
}

// A printer shows mail as a person would read it, and keeps the newest for the page.
type printer struct {
	w      io.Writer
	mu     sync.Mutex
	newest []shownMail
}

type shownMail struct {
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	SentAt  time.Time `json:"sent_at"`
}

const maxPrinted = 20 // that are kept

func (p *printer) deliver(_ context.Context, l *letter) error {
	p.mu.Lock()
	p.newest = append(p.newest, shownMail{l.to, l.subject, l.text, time.Now().UTC().Truncate(time.Second)})
	p.newest = p.newest[max(0, len(p.newest)-maxPrinted):]
	p.mu.Unlock() // before writing, which waits if nobody reads
	line := strings.Repeat("-", 72)
	_, err := fmt.Fprintf(p.w, "\n%s\nTo: %s\nSubject: %s\n\n%s%s\n\n", line, l.to, l.subject, l.text, line)
	return err
}

// shown returns what the terminal has shown. Only demo servers tell it to others.
func (m *Mailer) shown() []shownMail {
	shown := []shownMail{}
	if m != nil {
		if p, ok := m.mailSink.(*printer); ok {
			p.mu.Lock()
			defer p.mu.Unlock()
			shown = append(shown, p.newest...)
		}
	}
	return shown
}

// An smtpServer takes mail (RFC 5321).
type smtpServer struct {
	host, addr     string
	user, password string
	from           *mail.Address
	implicit       bool // TLS from the first byte (RFC 8314, section 3.3)
	config         tls.Config
	dial           func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	smtpPatience = 30 * time.Second // for each step
	maxSMTPReply = 256 << 10        // bytes that the server may send in all, with its certificates
)

// errNoTLS means that the server offers no TLS, or somebody between it and us has
// removed the offer.
var errNoTLS = errors.New("the server does not offer STARTTLS")

// deliver makes one attempt. It logs in and sends the letter under TLS only, under a
// certificate that the system trusts. A server on this machine may take the letter, but
// not the password, in clear. Without a letter, it only tries whether it could send one.
func (s *smtpServer) deliver(ctx context.Context, l *letter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes the connection
	dialing, stop := context.WithTimeout(ctx, smtpPatience)
	defer stop()
	raw, err := s.dial(dialing, "tcp", s.addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { raw.Close() })
	conn := net.Conn(&boundedConn{raw, maxSMTPReply})
	if s.implicit {
		conn = tls.Client(conn, &s.config)
	}
	var c *smtp.Client
	for _, step := range []func() error{
		func() error { c, err = smtp.NewClient(conn, s.host); return err },
		func() error { return c.Hello(s.domain()) },
		func() error { return s.startTLS(c) },
		func() error { return s.logIn(c) },
		func() error { return c.Mail(s.from.Address) },
		func() error { return s.recipient(c, l) },
		func() error { return s.data(c, l) },
	} {
		raw.SetDeadline(time.Now().Add(smtpPatience))
		if err := step(); err != nil {
			return err
		}
	}
	raw.SetDeadline(time.Now().Add(time.Second))
	c.Quit() // the server has the letter, whatever it answers
	return nil
}

func (s *smtpServer) startTLS(c *smtp.Client) error {
	if s.implicit || s.user == "" && isLoopback(s.host) {
		return nil
	}
	if offered, _ := c.Extension("STARTTLS"); !offered && isLoopback(s.host) {
		return nil // in clear, and so without the password
	} else if !offered {
		return errNoTLS
	}
	return c.StartTLS(&s.config)
}

func (s *smtpServer) logIn(c *smtp.Client) error {
	if _, secure := c.TLSConnectionState(); s.user == "" || !secure {
		return nil
	}
	return c.Auth(smtp.PlainAuth("", s.user, s.password, s.host))
}

func (s *smtpServer) recipient(c *smtp.Client, l *letter) error {
	if l == nil {
		return nil
	}
	if unicode, _ := c.Extension("SMTPUTF8"); !unicode && !isASCII(l.to) {
		return &textproto.Error{Code: 553, Msg: "the server takes only ASCII addresses"} // RFC 6531, section 3.5
	}
	return c.Rcpt(l.to)
}

func (s *smtpServer) data(c *smtp.Client, l *letter) error {
	if l == nil {
		return nil
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	// A user can choose nothing in the header but the address in To, which was checked.
	fmt.Fprintf(w, "From: %s\nTo: <%s>\nSubject: %s\nDate: %s\nMessage-ID: <%s@%s>\nMIME-Version: 1.0\n"+
		"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n%s",
		s.from, l.to, l.subject, l.made.Format(time.RFC1123Z), l.id, s.domain(), l.text)
	return w.Close()
}

func (s *smtpServer) domain() string {
	return s.from.Address[strings.LastIndexByte(s.from.Address, '@')+1:]
}

// A boundedConn ends when the other side has sent too much.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, errors.New("the server sends too much")
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// mailReason is the text of an error for the log. What a server says may contain an
// address, so only its code counts.
func mailReason(err error) string {
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Sprintf("the server answered %d", reply.Code)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return "the server does not speak SMTP"
	}
	return err.Error()
}
