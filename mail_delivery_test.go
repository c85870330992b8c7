package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"mime"
	"net"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// These tests are the manual of what an SMTP server gets, and of what a bad one does not
// get. The server is a script at the other end of a pipe.

func TestCheckMail(t *testing.T) {
	const server, from, link = "smtp://user@mail.example.com:587", "Example <no-reply@example.com>", "https://app.example.com/account"
	for _, test := range []struct {
		rule string
		c    MailConfig
		want string // the setting that is named, or empty
	}{
		{"no mail needs no settings", MailConfig{}, ""},
		{"the terminal needs no settings", MailConfig{Target: "terminal"}, ""},
		{"a link without mail is for an admin's reset links", MailConfig{Link: link}, ""},
		{"an SMTP server with all it needs", MailConfig{server, from, link, "secret"}, ""},
		{"a server without a user needs no password", MailConfig{"smtp://127.0.0.1:25", from, link, ""}, ""},
		{"a server without a port", MailConfig{"smtps://mail.example.com", from, link, ""}, ""},
		{"a user with an @", MailConfig{"smtps://me@example.com@mail.example.com", from, link, "secret"}, ""},
		{"a sender without a name", MailConfig{server, "no-reply@example.com", link, "secret"}, ""},
		{"a sender with a name that is not ASCII", MailConfig{server, "Café <no-reply@example.com>", link, "secret"}, ""},
		{"a link with a query", MailConfig{server, from, "http://localhost:3000/?page=account", "secret"}, ""},

		{"another scheme", MailConfig{"http://mail.example.com", from, link, ""}, "-mail"},
		{"a server without a scheme", MailConfig{"mail.example.com:587", from, link, ""}, "-mail"},
		{"a URL without a host", MailConfig{"smtp://:587", from, link, ""}, "-mail"},
		{"a URL with a path", MailConfig{"smtp://mail.example.com/inbox", from, link, ""}, "-mail"},
		{"a URL that is not one", MailConfig{"smtp://%zz", from, link, ""}, "-mail"},
		{"a word", MailConfig{"on", from, link, ""}, "-mail"},
		{"a password in the URL", MailConfig{"smtp://user:secret@mail.example.com", from, link, "secret"}, "-mail"},
		{"a user without a password", MailConfig{server, from, link, ""}, "MAIL_PASSWORD"},
		{"a password without a user", MailConfig{"smtp://mail.example.com", from, link, "secret"}, "MAIL_PASSWORD"},
		{"a server without a sender", MailConfig{server, "", link, "secret"}, "-mail-from"},
		{"a sender without an address", MailConfig{server, "Example", link, "secret"}, "-mail-from"},
		{"two senders", MailConfig{server, "a@example.com, b@example.com", link, "secret"}, "-mail-from"},
		{"a sender with a line break", MailConfig{server, "\"Example\r\nBcc: all\" <no-reply@example.com>", link, "secret"}, "-mail-from"},
		{"a sender whose address is not ASCII", MailConfig{server, "café@example.com", link, "secret"}, "-mail-from"},
		{"a server without a link", MailConfig{server, from, "", "secret"}, "-mail-link"},
		{"a link without a host", MailConfig{server, from, "/account", "secret"}, "-mail-link"},
		{"a link that runs code", MailConfig{server, from, "javascript://x/", "secret"}, "-mail-link"},
		{"a link with a fragment", MailConfig{server, from, "https://app.example.com/#", "secret"}, "-mail-link"},
		{"a link with a space", MailConfig{server, from, "https://app.example.com/my account", "secret"}, "-mail-link"},
		{"a link that is not ASCII", MailConfig{server, from, "https://app.example.com/é", "secret"}, "-mail-link"},
	} {
		setting, err := checkMail(test.c)
		if setting != test.want || (err != nil) != (test.want != "") {
			t.Errorf("%s: checkMail() = %q, %v; want %q", test.rule, setting, err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "%zz")) {
			t.Errorf("%s: the error quotes the value: %v", test.rule, err)
		}
	}
}

func TestPrinterShowsAMailAsAPersonReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newMailSink(MailConfig{Target: "terminal"}, &out).(*printer)
		for i := range maxPrinted + 5 {
			out.Reset()
			u := numberedMailUser(i)
			if err := p.deliver(t.Context(), newLetter("verify", u, "{link}", "http://localhost:8000/docs#verify=x")); err != nil {
				t.Fatal(err)
			}
		}
		const text = "Hello user24,\n\nthis address was given for your account. Open this link to confirm that it is\nyours:\n\n" +
			"http://localhost:8000/docs#verify=x\n\nIt works for one day. If you have no such account, ignore this mail: without\nthe link, the address is not used for anything.\n"
		line := strings.Repeat("-", 72)
		if diff := cmp.Diff("\n"+line+"\nTo: user24@example.com\nSubject: Confirm your email address\n\n"+text+line+"\n\n", out.String()); diff != "" {
			t.Errorf("the terminal shows (-want +got):\n%s", diff)
		}
		if len(p.newest) != maxPrinted || p.newest[0].To != "user5@example.com" {
			t.Errorf("%d mails are kept, the first to %s; want the newest %d", len(p.newest), p.newest[0].To, maxPrinted)
		}
		if diff := cmp.Diff(shownMail{"user24@example.com", "Confirm your email address", text, time.Now().UTC()}, p.newest[maxPrinted-1]); diff != "" {
			t.Errorf("the page shows (-want +got):\n%s", diff)
		}
	})
}

// TestMessage: the message is what RFC 5322 and RFC 2047 say, and the conversation what
// RFC 5321 says.
func TestMessage(t *testing.T) {
	atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
		l := newLetter("reset", mailUser, "{link}", "https://app.example.com/account#reset=token")
		l.text += ".\n..a line that begins with a dot\nGrüße\n"
		if err := s.deliver(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"EHLO example.com", "STARTTLS", "EHLO example.com",
			"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00user\x00secret")),
			"MAIL FROM:<no-reply@example.com> BODY=8BITMIME", "RCPT TO:<johndoe@example.com>", "DATA", "QUIT",
		}
		if diff := cmp.Diff(want, f.heard); diff != "" {
			t.Errorf("the server hears (-want +got):\n%s", diff)
		}
		got, err := mail.ReadMessage(strings.NewReader(f.message))
		if err != nil {
			t.Fatal(err)
		}
		wantHeader := mail.Header{
			"From": {"=?utf-8?q?Caf=C3=A9?= <no-reply@example.com>"}, "To": {"<johndoe@example.com>"}, "Subject": {"Set a new password"},
			"Date": {"Sat, 01 Jan 2000 00:00:00 +0000"}, "Message-Id": {"<" + l.id + "@example.com>"}, "Mime-Version": {"1.0"},
			"Content-Type": {"text/plain; charset=utf-8"}, "Content-Transfer-Encoding": {"8bit"}, "Auto-Submitted": {"auto-generated"},
		}
		if diff := cmp.Diff(wantHeader, got.Header); diff != "" {
			t.Errorf("the header (-want +got):\n%s", diff)
		}
		body, err := io.ReadAll(got.Body)
		if text := strings.ReplaceAll(string(body), "\r\n", "\n"); text != l.text || err != nil || strings.Contains(text, "\r") {
			t.Errorf("the body (-want +got), %v:\n%s", err, cmp.Diff(l.text, text))
		}
		name, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("From"))
		if name != "Café <no-reply@example.com>" || err != nil {
			t.Errorf("the sender is %q, %v", name, err)
		}
	})
}

// TestDelivery: what a server does, and what comes of it. Whatever it does, it gets a
// password and a letter only under TLS, with a certificate of its name.
func TestDelivery(t *testing.T) {
	for _, test := range []struct {
		rule   string
		server func(s *smtpServer, f *fakeSMTP)
		want   string // the reason in the log, or "sent"
		within time.Duration
	}{
		{"a server with STARTTLS takes a mail", func(*smtpServer, *fakeSMTP) {}, "sent", 0},
		{"so does one with TLS from the start", func(s *smtpServer, f *fakeSMTP) { s.implicit, f.implicit = true, true }, "sent", 0},
		{"a server that needs no password is asked for no login", func(s *smtpServer, f *fakeSMTP) { s.user = ""; f.answers["AUTH"] = "drop" }, "sent", 0},
		{"a server on this machine needs no TLS without a password", func(s *smtpServer, f *fakeSMTP) { s.user, s.host, f.noTLS = "", "127.0.0.1", true }, "sent", 0},
		{"a server that answers QUIT with an error has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "500 what?" }, "sent", 0},
		{"a server that drops the connection at QUIT has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "drop" }, "sent", 0},
		{"a server that hangs at QUIT has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "hang" }, "sent", 10 * time.Second},

		{"a server without STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.noTLS = true }, "the server does not offer STARTTLS", 0},
		{"a server on this machine without STARTTLS gets the mail, but not the password", func(s *smtpServer, f *fakeSMTP) { s.host, f.noTLS, f.answers["AUTH"] = "localhost", true, "drop" }, "sent", 0},
		{"a server without STARTTLS that needs no password gets nothing", func(s *smtpServer, f *fakeSMTP) { s.user, f.noTLS = "", true }, "the server does not offer STARTTLS", 0},
		{"a server that refuses STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.answers["STARTTLS"] = "454 not now" }, "the server answered 454", 0},
		{"a server that goes on in clear after STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.clearTLS = true }, "tls: first record does not look like a TLS handshake", 0},
		{"a certificate of another name is refused", func(s *smtpServer, _ *fakeSMTP) { s.config.ServerName = "other.example.com" }, "x509: certificate is valid for mail.example.com, not other.example.com", 0},
		{"a certificate of nobody is refused", func(s *smtpServer, _ *fakeSMTP) { s.config.RootCAs = x509.NewCertPool() }, "x509: certificate signed by unknown authority", 0},
		{"an expired certificate is refused", func(*smtpServer, *fakeSMTP) { time.Sleep(25 * time.Hour) }, "x509: certificate has expired or is not yet valid", 0},
		{"answers that came before TLS do not count after it", func(_ *smtpServer, f *fakeSMTP) {
			f.answers["STARTTLS"] = "220 ready\r\n250 mail.example.com\r\n235 you are in"
		}, "sent", 0},
		{"TLS 1.1 is refused", func(_ *smtpServer, f *fakeSMTP) { f.config.MaxVersion = tls.VersionTLS11 }, "remote error: tls: protocol version not supported", 0},

		{"a wrong password is final", func(_ *smtpServer, f *fakeSMTP) { f.answers["AUTH"] = "535 wrong" }, "the server answered 535", 0},
		{"an unknown recipient is final", func(_ *smtpServer, f *fakeSMTP) { f.answers["RCPT"] = "550 johndoe@example.com is unknown" }, "the server answered 550", 0},
		{"a server that is busy is asked again", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "421 busy" }, "the server answered 421", 0},
		{"a refused message", func(_ *smtpServer, f *fakeSMTP) { f.answers["."] = "554 spam" }, "the server answered 554", 0},
		{"a server that drops the connection after the message", func(_ *smtpServer, f *fakeSMTP) { f.answers["."] = "drop" }, "EOF", 0},
		{"a server that speaks something else", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "johndoe@example.com HTTP/1.1 400" }, "the server does not speak SMTP", 0},
		{"an endless line", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "220 " + strings.Repeat("x", 1<<20) }, "the server sends too much", 0},
		{"a million lines", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = strings.Repeat("220-x\r\n", 1<<17) }, "the server sends too much", 0},
		{"an address that is not ASCII, at a server that knows only ASCII", func(_ *smtpServer, f *fakeSMTP) { f.to = "jürgen@example.com" }, "the server answered 553", 0},
		{"an address that is not ASCII, at a server that knows Unicode", func(_ *smtpServer, f *fakeSMTP) { f.to, f.unicode = "jürgen@example.com", true }, "sent", 0},

		{"a server that hangs at the greeting", hangAt("greeting"), "i/o timeout", smtpPatience},
		{"a server that hangs at EHLO", hangAt("EHLO"), "i/o timeout", smtpPatience},
		{"a server that hangs at STARTTLS", hangAt("STARTTLS"), "i/o timeout", smtpPatience},
		{"a server that hangs in the handshake", hangAt("TLS"), "i/o timeout", smtpPatience},
		{"a server that hangs at AUTH", hangAt("AUTH"), "i/o timeout", smtpPatience},
		{"a server that hangs at MAIL", hangAt("MAIL"), "i/o timeout", smtpPatience},
		{"a server that hangs at RCPT", hangAt("RCPT"), "i/o timeout", smtpPatience},
		{"a server that hangs at DATA", hangAt("DATA"), "i/o timeout", smtpPatience},
		{"a server that hangs in the message", hangAt("message"), "i/o timeout", smtpPatience},
		{"a server that hangs after the message", hangAt("."), "i/o timeout", smtpPatience},
		{"a server that sends a byte a second", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "drip" }, "the server does not speak SMTP", smtpPatience},
		{"a server that cannot be reached", func(s *smtpServer, _ *fakeSMTP) {
			s.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, "context deadline exceeded", smtpPatience},
	} {
		t.Run(test.rule, func(t *testing.T) {
			atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
				f.to = "johndoe@example.com"
				test.server(s, f)
				start, got := time.Now(), "sent"
				l := newLetter("reset", User{ID: 1, Username: "johndoe", Email: f.to}, "{link}", "https://app.example.com/#reset=token")
				if err := s.deliver(t.Context(), l); err != nil {
					got = mailReason(err)
				}
				if !strings.Contains(got, test.want) || strings.Contains(got, "@") {
					t.Errorf("%q, want %q", got, test.want)
				}
				if took := time.Since(start); took > test.within {
					t.Errorf("it took %v, want %v at most", took, test.within)
				}
				synctest.Wait()
				if delivered := strings.Contains(f.message, "reset=token"); delivered != (test.want == "sent") && f.answers["."] == "" && f.answers["message"] == "" {
					t.Errorf("the server has the message: %v", delivered)
				}
				if i := slices.IndexFunc(f.inClear, func(line string) bool {
					return strings.HasPrefix(line, "AUTH") || !isLoopback(s.host) && strings.Contains(line, "example.com>")
				}); i >= 0 {
					t.Errorf("the server hears in clear: %q", f.inClear[i])
				}
			})
		})
	}
}

func hangAt(step string) func(*smtpServer, *fakeSMTP) {
	return func(_ *smtpServer, f *fakeSMTP) { f.answers[step] = "hang" }
}

// TestDeliveryEndsWithItsContext: a server that hangs does not delay the end.
func TestDeliveryEndsWithItsContext(t *testing.T) {
	for _, step := range []string{"greeting", "TLS", "AUTH", "."} {
		atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
			f.answers[step] = "hang"
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			err := s.deliver(ctx, newLetter("reset", mailUser))
			if took := time.Since(start); err == nil || took != time.Second {
				t.Errorf("hanging at %s: deliver() = %v after %v, want an error after 1 s", step, err, took)
			}
		})
	}
}

// A fakeSMTP is an SMTP server that misbehaves as told.
type fakeSMTP struct {
	config                             tls.Config
	implicit, noTLS, clearTLS, unicode bool
	to                                 string

	// answers replaces answers, by command; besides, "greeting", "TLS" for the handshake,
	// "message" before the message was read and "." after. "hang" answers nothing, "drop"
	// closes the connection, "drip" sends a byte a second.
	answers map[string]string

	heard, inClear []string
	message        string
}

// atServer runs a test with a server and a client that trusts it.
func atServer(t *testing.T, test func(t *testing.T, s *smtpServer, f *fakeSMTP)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"mail.example.com"}}
		der, err2 := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		leaf, err3 := x509.ParseCertificate(der)
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		f := &fakeSMTP{answers: map[string]string{}}
		f.config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		s := newMailSink(MailConfig{Target: "smtp://user@mail.example.com", From: "Café <no-reply@example.com>", Password: "secret"}, nil).(*smtpServer)
		s.config.RootCAs = x509.NewCertPool()
		s.config.RootCAs.AddCert(leaf)
		s.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if network != "tcp" || addr != "mail.example.com:587" {
				t.Errorf("dial(%s, %s)", network, addr)
			}
			ours, theirs := net.Pipe()
			go f.serve(theirs)
			return ours, nil
		}
		test(t, s, f)
		time.Sleep(2 * time.Hour) // until the server has given up
	})
}

func (f *fakeSMTP) serve(conn net.Conn) {
	defer conn.Close()
	secure := f.implicit
	if f.implicit {
		conn = tls.Server(conn, &f.config)
	}
	if !f.answer(conn, "greeting", "220 mail.example.com ESMTP") {
		return
	}
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		f.heard = append(f.heard, line)
		if !secure {
			f.inClear = append(f.inClear, line)
		}
		verb, _, _ := strings.Cut(line, " ")
		usual := "250 ok"
		switch verb {
		case "EHLO":
			extensions := []string{"mail.example.com", "8BITMIME", "AUTH PLAIN"}
			if f.unicode {
				extensions = append(extensions, "SMTPUTF8")
			}
			if !secure && !f.noTLS {
				extensions = append(extensions, "STARTTLS")
			}
			last := len(extensions) - 1
			usual = strings.Join(append([]string{""}, extensions[:last]...), "\r\n250-")[2:] + "\r\n250 " + extensions[last]
		case "STARTTLS":
			usual = "220 ready"
		case "AUTH":
			usual = "235 ok"
		case "DATA":
			usual = "354 go on"
		case "QUIT":
			usual = "221 bye"
		}
		if !f.answer(conn, verb, usual) {
			return
		}
		switch verb {
		case "STARTTLS":
			if f.answers["STARTTLS"] == "454 not now" {
				continue
			}
			if f.clearTLS {
				continue
			}
			if f.answers["TLS"] == "hang" {
				io.Copy(io.Discard, conn)
				return
			}
			conn, secure = tls.Server(conn, &f.config), true
			r = bufio.NewReader(conn)
		case "DATA":
			if f.answers["message"] == "hang" {
				time.Sleep(time.Hour)
			}
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				f.message += strings.TrimPrefix(line, ".")
			}
			if !f.answer(conn, ".", "250 taken") {
				return
			}
		case "QUIT":
			return
		}
	}
}

// answer sends the answer to a command, and reports whether to go on.
func (f *fakeSMTP) answer(conn net.Conn, command, usual string) bool {
	switch special := f.answers[command]; special {
	case "":
		_, err := io.WriteString(conn, usual+"\r\n")
		return err == nil
	case "hang":
		io.Copy(io.Discard, conn)
		return false
	case "drop":
		return false
	case "drip":
		for {
			time.Sleep(time.Second)
			if _, err := io.WriteString(conn, "x"); err != nil {
				return false
			}
		}
	default:
		_, err := io.WriteString(conn, special+"\r\n")
		return err == nil
	}
}
