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
	"slices"
	"strings"
	"sync"
	"time"
)

// This file holds the two places where mail goes: an SMTP server, and the terminal of
// somebody who tries things out.

// MailConfig says how mail is sent.
type MailConfig struct {
	Target   string // mailTerminal, "smtp://user@host:587", "smtps://user@host:465", or "" for no mail
	From     string // the sender, "Name <address>"
	Link     string // the page that a mail links to
	Password string // of the user in Target
}

const mailTerminal = "terminal" // the Target that only prints

// parseMail returns the server of the settings, if they name one, or the first setting
// that is invalid, and why. No error quotes a value, because people put passwords into
// URLs.
func parseMail(c MailConfig) (s *smtpServer, setting string, err error) {
	link, badLink := url.Parse(c.Link)
	from, badFrom := mail.ParseAddress(c.From)
	target, bad := url.Parse(c.Target)
	switch {
	case c.Link != "" && (badLink != nil || link.Scheme != "http" && link.Scheme != "https" || link.Host == "" || strings.Contains(c.Link, "#") || link.String() != c.Link):
		return nil, "-mail-link", errors.New("must be a URL such as https://app.example.com/account, without #")
	case c.From != "" && (badFrom != nil || checkEmail(from.Address) != nil || !isASCII(from.Address) || checkFullName(from.Name) != nil):
		return nil, "-mail-from", errors.New("must be a sender such as Example <no-reply@example.com>")
	case c.Target == "", c.Target == mailTerminal:
		return nil, "", nil
	case bad != nil, target.Scheme != "smtp" && target.Scheme != "smtps", target.Hostname() == "", target.Path+target.RawQuery+target.Fragment != "":
		return nil, "-mail", errors.New("must be terminal, smtp://user@host:587 or smtps://user@host:465")
	}
	_, withPassword := target.User.Password()
	switch {
	case withPassword:
		return nil, "-mail", errors.New("must not contain a password: set MAIL_PASSWORD")
	case (target.User.Username() == "") != (c.Password == ""):
		return nil, "MAIL_PASSWORD", errors.New("must be set if -mail has a user, and only then")
	case c.From == "":
		return nil, "-mail-from", errors.New("is required with an SMTP server")
	case c.Link == "":
		return nil, "-mail-link", errors.New("is required with an SMTP server")
	}
	s = &smtpServer{host: target.Hostname(), user: target.User.Username(), password: c.Password, from: from}
	s.config.ServerName, s.implicit = s.host, target.Scheme == "smtps"
	port := map[string]string{"smtp": "587", "smtps": "465"}[target.Scheme]
	s.addr, s.dial = net.JoinHostPort(s.host, cmp.Or(target.Port(), port)), new(net.Dialer).DialContext
	return s, "", nil
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c > 126 }) }

// startMail returns a Mailer, or nil if mail is off. A server that does not work yet is
// no error: it may be starting, too.
func startMail(c MailConfig, stdout io.Writer, log *slog.Logger, count func(sample string)) *Mailer {
	switch c.Target {
	case "":
		return nil
	case mailTerminal:
		return NewMailer(&printer{w: stdout}, log, count)
	}
	s, _, _ := parseMail(c) // which the settings have passed
	m := NewMailer(s, log, count)
	m.work.Go(func() {
		if err := s.talk(m.retry, func(*smtp.Client) error { return nil }); err != nil && m.retry.Err() == nil {
			log.Warn("the mail server does not work at the moment", "error", mailReason(err))
		}
	})
	return m
}

// A printer shows mail as a person would read it, and keeps the newest for the page.
type printer struct {
	w      io.Writer
	mu     sync.Mutex
	newest []letter
}

const maxPrinted = 20 // that are kept

func (p *printer) deliver(_ context.Context, l *letter) error {
	p.mu.Lock()
	if !slices.Contains(p.newest, *l) { // as it is if an earlier attempt failed
		p.newest = append(p.newest, *l)
	}
	p.newest = p.newest[max(0, len(p.newest)-maxPrinted):]
	p.mu.Unlock() // before writing, which waits if nobody reads
	line := strings.Repeat("-", 72)
	_, err := fmt.Fprintf(p.w, "\n%s\nTo: %s\nSubject: %s\n\n%s%s\n\n", line, l.To, l.Subject, l.Text, line)
	return err
}

// printed returns what the terminal has shown, or should have. Only demo servers tell it
// to others.
func (m *Mailer) printed() []letter {
	p, ok := m.mailSink.(*printer)
	if !ok {
		return []letter{} // which is not null in JSON
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]letter{}, p.newest...)
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
	smtpPatience = time.Minute // for an attempt
	maxSMTPReply = 256 << 10   // bytes that the server may send in all, with its certificates
)

// talk connects to the server for a call of use.
func (s *smtpServer) talk(ctx context.Context, use func(*smtp.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, smtpPatience)
	defer cancel() // closes the connection
	conn, err := s.dial(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	c, err := s.logIn(boundedConn{conn, io.LimitReader(conn, maxSMTPReply)})
	if err == nil {
		err = use(c)
	}
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	time.AfterFunc(time.Second, cancel)
	c.Quit() // the server has the letter, whatever it answers
	return nil
}

// A boundedConn ends when the other side has sent too much.
type boundedConn struct {
	net.Conn
	bounded io.Reader
}

func (c boundedConn) Read(b []byte) (int, error) { return c.bounded.Read(b) }

// logIn returns a client that is logged in under TLS only, under a certificate that the
// system trusts. A server on this machine may take letters, but not the password, in
// clear.
func (s *smtpServer) logIn(conn net.Conn) (*smtp.Client, error) {
	if s.implicit {
		conn = tls.Client(conn, &s.config)
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return nil, err
	}
	if err := c.Hello(s.domain()); err != nil {
		return nil, err
	}
	offered, _ := c.Extension("STARTTLS")
	switch {
	case s.implicit, isLoopback(s.host) && (s.user == "" || !offered):
	case !offered: // or somebody between it and us has removed the offer
		return nil, errors.New("the server does not offer STARTTLS")
	default:
		err = c.StartTLS(&s.config)
	}
	if _, secure := c.TLSConnectionState(); err == nil && s.user != "" && secure {
		err = c.Auth(smtp.PlainAuth("", s.user, s.password, s.host))
	}
	return c, err
}

// deliver makes one attempt.
func (s *smtpServer) deliver(ctx context.Context, l *letter) error {
	return s.talk(ctx, func(c *smtp.Client) error {
		if err := c.Mail(s.from.Address); err != nil {
			return err
		}
		if unicode, _ := c.Extension("SMTPUTF8"); !unicode && !isASCII(l.To) {
			return &textproto.Error{Code: 553, Msg: "the server takes only ASCII addresses"} // RFC 6531, section 3.5
		}
		if err := c.Rcpt(l.To); err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		// A user can choose nothing in the header but the address in To, which was checked.
		fmt.Fprintf(w, "From: %s\nTo: <%s>\nSubject: %s\nDate: %s\nMessage-ID: <%s@%s>\nMIME-Version: 1.0\n"+
			"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n%s",
			s.from, l.To, l.Subject, l.SentAt.Format(time.RFC1123Z), l.id, s.domain(), l.Text)
		return w.Close()
	})
}

func (s *smtpServer) domain() string {
	return s.from.Address[strings.LastIndexByte(s.from.Address, '@')+1:]
}
