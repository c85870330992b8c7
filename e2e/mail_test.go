package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// mailFlags are those of a server that sends by SMTP.
func mailFlags(target string) []string {
	return []string{"-mail", target, "-mail-from", "Café Example <no-reply@example.com>", "-mail-link", "https://app.example.com/account"}
}

// TestMailThroughExim plays the story of a forgotten password with a real mail server,
// which verifies the message and the login.
func TestMailThroughExim(t *testing.T) {
	exim := startExim(t)
	for name, target := range map[string]string{"STARTTLS": "smtp://mailer@localhost:" + exim.port, "TLS from the start": "smtps://mailer@localhost:" + exim.tlsPort} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, append([]string{"SSL_CERT_FILE=" + exim.certificate, "MAIL_PASSWORD=hunter22", "-demo=false"}, mailFlags(target)...)...)
			username := strings.ToLower("jane" + strings.Fields(name)[0])
			address := username + "@example.com"
			const old, next = "a first long password", "a second long password"

			postJSON(t, s, "/users/", "", 201, map[string]string{"username": username, "password": old, "email": address})
			verify := exim.mail(t, address, "Confirm your email address")
			postJSON(t, s, "/forgot-password", "", 202, map[string]string{"username": username})
			postJSON(t, s, "/verify", "", 204, map[string]string{"token": link(t, verify, "verify")})
			postJSON(t, s, "/forgot-password", "", 202, map[string]string{"username": username})
			reset := link(t, exim.mail(t, address, "Set a new password"), "reset")
			access, _ := logIn(t, s, username, old)
			postJSON(t, s, "/reset-password", "", 422, map[string]string{"token": reset, "new_password": "short"})
			postJSON(t, s, "/reset-password", "", 204, map[string]string{"token": reset, "new_password": next})
			postJSON(t, s, "/reset-password", "", 400, map[string]string{"token": reset, "new_password": old})
			if notice := exim.mail(t, address, "Your account was changed"); !strings.Contains(notice, "the password of your account") || !strings.Contains(notice, "127.0.0.1") {
				t.Errorf("the notice is\n%s", notice)
			}
			postJSON(t, s, "/request-verify-token", access, 401, nil)
			logIn(t, s, username, next)

			postJSON(t, s, "/users/", "", 201, map[string]string{"username": "n" + username, "password": old, "email": "nobody@example.com"})
			s.waitForLog(t, `mail=failed text=verify user=2 error="the server answered 550"`)
			for _, secret := range []string{address, "nobody@", reset, "hunter22"} {
				if strings.Contains(s.log.String(), secret) {
					t.Errorf("the log has %q:\n%s", secret, s.log)
				}
			}
			if sent := strings.Count(s.log.String(), "mail=sent"); sent != 3 {
				t.Errorf("%d mails were sent, want 3\n%s", sent, s.log)
			}
		})
	}
}

// TestMailServerThatMisbehaves: whatever the mail server does, requests are served, the
// password goes only where the certificate is right, and the end of the server waits for
// no more than its grace period.
func TestMailServerThatMisbehaves(t *testing.T) {
	good, other := newCertificate(t, "localhost"), newCertificate(t, "elsewhere.example.com")
	for _, test := range []struct {
		name   string
		server badSMTP
		want   string // in the log
	}{
		{"answers 4xx, then takes it", badSMTP{certificate: good, answers: map[string]string{"RCPT": "451 later"}, once: true}, "mail=sent text=verify user=1"},
		{"drops the connection after the message, then takes it", badSMTP{certificate: good, answers: map[string]string{".": "drop"}, once: true}, "mail=sent text=verify user=1"},
		{"refuses the recipient", badSMTP{certificate: good, answers: map[string]string{"RCPT": "550 jane@example.com is unknown"}}, `mail=failed text=verify user=1 error="the server answered 550"`},
		{"refuses the login", badSMTP{certificate: good, answers: map[string]string{"AUTH": "535 no"}}, `mail=failed text=verify user=1 error="the server answered 535"`},
		{"offers no STARTTLS on this machine", badSMTP{}, "mail=sent text=verify user=1"},
		{"has a certificate of another name", badSMTP{certificate: other}, "certificate is valid for elsewhere.example.com, not localhost"},
		{"sends 1 MB of banner", badSMTP{certificate: good, answers: map[string]string{"greeting": "220 " + strings.Repeat("x", 1<<20)}}, "error=EOF"},
		{"refuses connections", badSMTP{refuse: true}, "connection refused"},
		{"hangs at the greeting", badSMTP{certificate: good, answers: map[string]string{"greeting": "hang"}}, ""},
		{"hangs at STARTTLS", badSMTP{certificate: good, answers: map[string]string{"STARTTLS": "hang"}}, ""},
		{"hangs at AUTH", badSMTP{certificate: good, answers: map[string]string{"AUTH": "hang"}}, ""},
		{"hangs after the message", badSMTP{certificate: good, answers: map[string]string{".": "hang"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address := test.server.start(t)
			roots := filepath.Join(t.TempDir(), "roots.pem")
			if err := os.WriteFile(roots, append(bytes.Clone(good.pem), other.pem...), 0o600); err != nil {
				t.Fatal(err)
			}
			s := startServer(t, append([]string{"SSL_CERT_FILE=" + roots, "MAIL_PASSWORD=hunter22", "-demo=false"}, mailFlags("smtp://mailer@"+address)...)...)
			const password = "a long password for tests"
			postJSON(t, s, "/users/", "", 201, map[string]string{"username": "jane", "password": password, "email": "jane@example.com"})
			access, _ := logIn(t, s, "jane", password)
			for range 3 { // the letter is on its way
				start := time.Now()
				postJSON(t, s, "/forgot-password", "", 202, map[string]string{"username": "jane"})
				sendJSON(t, s, "GET", "/users/me/", access, 200, nil)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("two requests took %v", took)
				}
			}
			s.waitForLog(t, test.want)
			start := time.Now()
			s.stop(t)
			if took := time.Since(start); took > 12*time.Second {
				t.Errorf("the end took %v, want 10 s at most", took)
			}
			if test.want == "" && !strings.Contains(s.log.String(), "mail=dropped text=verify user=1") {
				t.Errorf("the log does not say that the mail was dropped:\n%s", s.log)
			}
			if clear := test.server.clear.String(); strings.Contains(clear, "AUTH") || test.server.certificate != nil && strings.Contains(clear, "example.com>") {
				t.Errorf("the mail server hears in clear:\n%s", clear)
			}
			if log := s.log.String(); strings.Contains(log, "jane@example.com") || strings.Contains(log, "hunter22") || strings.Contains(log, "#verify") {
				t.Errorf("the log has a secret:\n%s", log)
			}
		})
	}
}

// TestMailFrontEnd runs the page of docs/mail.md in a browser. The token reaches its server
// neither in a path nor in a Referer.
func TestMailFrontEnd(t *testing.T) {
	var s *server
	var mu sync.Mutex
	var seen []string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.URL.String(), r.Referer())
		_, page, _ := strings.Cut(repoFile(t, "docs/mail.md"), "```html\n")
		page, _, _ = strings.Cut(page, "```")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, strings.Replace(page, "https://id.example.com", s.URL, 1))
	}))
	t.Cleanup(front.Close)
	s = startServer(t, "-mail-link", front.URL+"/account", "-cors-origin", front.URL)
	newest := func(subject string) string {
		var mails []struct{ To, Subject, Text string }
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err := json.Unmarshal(sendJSON(t, s, "GET", "/docs/mail.json", "", 200, nil), &mails); err != nil {
				t.Fatal(err)
			}
			if n := len(mails); n > 0 && mails[n-1].Subject == subject {
				return regexp.MustCompile(`http://\S+`).FindString(mails[n-1].Text)
			}
		}
		t.Fatalf("no mail %q in %v", subject, mails)
		return ""
	}
	b := openTab(t, 800, 600, "light")
	says := func(want string) {
		t.Helper()
		b.until(fmt.Sprintf("document.getElementById('says').textContent === %q", want))
		if hash := eval[string](b, "location.hash"); hash != "" {
			t.Errorf("the address bar still has %s", hash)
		}
	}
	access, _ := logIn(t, s, "johndoe", "secret")
	postJSON(t, s, "/request-verify-token", access, 202, nil)
	b.visit(newest("Confirm your email address"))
	says("Your address is verified.")

	postJSON(t, s, "/forgot-password", "", 202, map[string]string{"username": "johndoe"})
	reset := newest("Set a new password")
	set := func(password string) {
		t.Helper()
		b.visit(strings.Replace(reset, "#", "?"+password[:1]+"#", 1)) // another fragment alone loads nothing
		b.until("!document.getElementById('reset').hidden")
		b.do(js(fmt.Sprintf("document.getElementById('password').value = %q", password)))
		b.click("button")
	}
	set("johndoe1")
	says("The request is invalid: new_password must not contain the username")
	set("correct horse")
	says("Your password is set. Log in with it.")
	logIn(t, s, "johndoe", "correct horse")
	set("battery staple")
	says("The link is not valid: it was used, has expired or is broken")
	mu.Lock()
	defer mu.Unlock()
	for _, text := range seen {
		if strings.Contains(text, "#") || strings.Contains(text, "=") {
			t.Errorf("the server of the page sees %q", text)
		}
	}
}

// link returns the token of the link in a mail.
func link(t testing.TB, text, kind string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^https://app\.example\.com/account#` + kind + `=([\w.-]+)\r?$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no link for %s in\n%s", kind, text)
	}
	return m[1]
}

// postJSON posts a body, or none, and wants a status.
func postJSON(t testing.TB, s *server, path, token string, want int, body any) []byte {
	t.Helper()
	return sendJSON(t, s, "POST", path, token, want, body)
}

func sendJSON(t testing.TB, s *server, method, path, token string, want int, body any) []byte {
	t.Helper()
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, resp, want)
}

func (s *server) waitForLog(t testing.TB, text string) {
	t.Helper()
	within(t, 30*time.Second, "the log has "+text, func() bool { return strings.Contains(s.log.String(), text) })
}

// An eximServer is a mail server that accepts mail for everybody but nobody, after a
// login under TLS, and puts it in a folder.
type eximServer struct {
	port, tlsPort string
	certificate   string // a file
	folder        string
}

func startExim(t *testing.T) *eximServer {
	t.Helper()
	path := find(t, "apt-get install exim4-daemon-light", "exim4", "/usr/sbin/exim4")
	dir, err := os.MkdirTemp("", "exim-") // of a path that exim's own user can read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" { // exim delivers nothing as root
		me.Username = "Debian-exim"
	}
	c := newCertificate(t, "localhost")
	_, port, _ := strings.Cut(etcdFreeAddress(t), ":")
	_, tlsPort, _ := strings.Cut(etcdFreeAddress(t), ":")
	e := &eximServer{port: port, tlsPort: tlsPort, certificate: filepath.Join(dir, "cert.pem"), folder: filepath.Join(dir, "mail")}
	config := regexp.MustCompile(`\$(\w+)\$`).ReplaceAllStringFunc(eximConfig, func(name string) string {
		return map[string]string{"$dir$": dir, "$port$": e.port, "$tls$": e.tlsPort, "$user$": me.Username}[name]
	})
	for name, content := range map[string]string{"cert.pem": string(c.pem), "key.pem": string(c.keyPEM), "exim.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".", "spool", "log", "mail"} {
		os.Mkdir(filepath.Join(dir, name), 0o777)
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if me.Username != "Debian-exim" { // exim takes no configuration that others could have written
		os.Chmod(filepath.Join(dir, "exim.conf"), 0o600)
	}
	out := &output{}
	cmd := exec.Command(path, "-C", filepath.Join(dir, "exim.conf"), "-bdf")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "log", "mainlog")); t.Failed() {
			t.Logf("exim: %s\n%s", out, log)
		}
	})
	within(t, 20*time.Second, "exim listens", func() bool {
		conn, err := net.Dial("tcp", "localhost:"+e.port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return e
}

const eximConfig = `
primary_hostname = localhost
keep_environment =
spool_directory = $dir$/spool
log_file_path = $dir$/log/%slog
pid_file_path = $dir$/pid
local_interfaces = <; 127.0.0.1 ; ::1
daemon_smtp_ports = $port$ : $tls$
tls_on_connect_ports = $tls$
tls_advertise_hosts = *
tls_certificate = $dir$/cert.pem
tls_privatekey = $dir$/key.pem
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny local_parts = nobody
  accept authenticated = *
data:
  deny !verify = header_syntax
  accept
begin routers
all:
  driver = accept
  transport = folder
begin transports
folder:
  driver = appendfile
  directory = $dir$/mail
  maildir_format
  user = $user$
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{mailer}}{eq{$auth3}{hunter22}}}}
  server_set_id = $auth2
`

// mail waits for a mail and returns its text.
func (e *eximServer) mail(t testing.TB, to, subject string) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(e.folder, "new", "*"))
		for _, name := range files {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := mail.ReadMessage(bytes.NewReader(content))
			if err != nil {
				t.Fatalf("%v\n%s", err, content)
			}
			if m.Header.Get("Subject") != subject || m.Header.Get("To") != "<"+to+">" {
				continue
			}
			from, err := m.Header.AddressList("From")
			if err != nil || len(from) != 1 || from[0].Name != "Café Example" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Message-Id") == "" {
				t.Errorf("from %v, %v\n%s", from, err, content)
			}
			text, _ := io.ReadAll(m.Body)
			return string(text)
		}
		if time.Now().After(end) {
			t.Fatalf("no mail %q to %s", subject, to)
		}
	}
}

type testCertificate struct {
	tls.Certificate
	pem, keyPEM []byte
}

func newCertificate(t testing.TB, name string) *testCertificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &testCertificate{
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// A badSMTP is a mail server that misbehaves: it gives special answers to commands, by
// name, or at the "greeting" or after the message ("."). "hang" gives none, "drop" closes
// the connection.
type badSMTP struct {
	certificate *testCertificate // nil for no STARTTLS
	answers     map[string]string
	once        bool // only in the first conversation that has reached the special answer
	refuse      bool

	clear *output // what it hears without TLS
}

// start returns the address of the server, as localhost:port.
func (b *badSMTP) start(t *testing.T) string {
	t.Helper()
	b.clear = &output{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("localhost:", l.Addr().(*net.TCPAddr).Port)
	if b.refuse {
		l.Close()
		return address
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.serve(conn)
		}
	}()
	return address
}

func (b *badSMTP) serve(conn net.Conn) {
	defer conn.Close()
	secure := false
	if !b.answer(conn, "greeting", "220 localhost") {
		return
	}
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if !secure {
			io.WriteString(b.clear, line)
		}
		command, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		usual := map[string]string{"EHLO": "250-localhost\r\n250 AUTH PLAIN", "STARTTLS": "220 go on", "AUTH": "235 ok", "DATA": "354 go on", "QUIT": "221 bye"}[command]
		if usual == "" {
			usual = "250 ok"
		}
		if command == "EHLO" && !secure && b.certificate != nil {
			usual = "250-localhost\r\n250 STARTTLS"
		}
		if !b.answer(conn, command, usual) || command == "QUIT" {
			return
		}
		switch command {
		case "STARTTLS":
			conn, secure = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{b.certificate.Certificate}}), true
			r = bufio.NewReader(conn)
		case "DATA":
			for line != ".\r\n" {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
			if !b.answer(conn, ".", "250 taken") {
				return
			}
		}
	}
}

func (b *badSMTP) answer(conn net.Conn, command, usual string) bool {
	special := b.answers[command]
	if special != "" && b.once {
		b.answers = nil
	}
	switch special {
	case "":
		special = usual
	case "hang":
		io.Copy(io.Discard, conn)
		return false
	case "drop":
		return false
	}
	_, err := io.WriteString(conn, special+"\r\n")
	return err == nil
}
