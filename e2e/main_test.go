// Package e2e tests the built server from outside, with the clients of others: Go's OAuth
// 2.0 package, JWT libraries, an OpenAPI validator, generated clients, and a browser.
//
// It is a module of its own, as the module of the server has no dependencies. Run it from
// the root of the repository:
//
//	go -C e2e test ./...
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the server, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if d := os.Getenv(onlyHash); d != "" {
			return hashOnly(d)
		}
		dir, err := os.MkdirTemp("", "stdauth-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "stdauth")
		if runtime.GOOS == "windows" {
			binary += ".exe"
		}
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// testKey is a SECRET_KEY for servers whose tokens a test verifies or signs.
const testKey = "a key for tests only, of more than 32 bytes"

// A server is a running stdauth.
type server struct {
	URL  string // http://127.0.0.1:port
	Addr string // 127.0.0.1:port
	cmd  *exec.Cmd
	log  *output
	done chan error
}

// startServer starts the server on a free port of this machine, waits until it is ready,
// and stops it when the test ends. The arguments are as in a shell: NAME=value first, then
// flags.
//
//	startServer(t, "SECRET_KEY="+testKey, "-access-ttl", "10s")
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	var env []string
	for len(args) > 0 && variable.MatchString(args[0]) {
		env, args = append(env, args[0]), args[1:]
	}
	cmd := exec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(cleanEnv(), env...)
	return startCommand(t, cmd)
}

// startCommand starts a server by another command.
func startCommand(t testing.TB, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, log: &output{}, done: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.WaitDelay = time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("the log of the server:\n%s", s.log.end())
		}
	})
	s.waitUntilReady(t)
	return s
}

var (
	variable  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=`)
	listening = regexp.MustCompile(`msg=listening url=(https?://(\S+))`)
)

// cleanEnv returns the environment without the settings of the server.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "STDAUTH_"), strings.HasPrefix(name, "SECRET_KEY"), name == "ADMIN_PASSWORD", name == "NEW_PASSWORD":
		default:
			env = append(env, v)
		}
	}
	return env
}

func (s *server) waitUntilReady(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-s.done:
			s.done <- err
			t.Fatalf("the server ended before it was ready: %v\n%s", err, s.log)
		default:
		}
		found := listening.FindStringSubmatch(s.log.String())
		if found == nil {
			continue
		}
		s.URL, s.Addr = found[1], found[2]
		if !strings.HasPrefix(s.URL, "http:") {
			return // the caller has the certificate
		}
		if resp, err := http.Get(s.URL + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatalf("the server was not ready within 20 s\n%s", s.log)
}

// stop sends SIGTERM to the server and waits until it ends. It may be called twice.
func (s *server) stop(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" { // which has no SIGTERM
		s.kill()
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		s.done <- err
		if err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("the server ended with %v\n%s", err, s.log)
		}
	case <-time.After(15 * time.Second):
		t.Errorf("the server did not end within 15 s of SIGTERM")
		s.kill()
	}
}

// kill kills the server (kill -9).
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.done <- <-s.done
}

// output keeps the output of a process.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// end returns the last part of the output, as the log of a busy server is long.
func (o *output) end() string {
	const most = 20 << 10
	all := o.String()
	if len(all) <= most {
		return all
	}
	return "...\n" + all[len(all)-most:]
}

// missing skips a test that needs a tool which is not installed. With CI in the
// environment the test fails instead.
func missing(t testing.TB, what, install string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing. Install it: %s", what, install)
	}
	t.Skipf("%s is missing. To run this test, install it: %s", what, install)
}

// find returns the path of the first of some programs that is installed.
func find(t testing.TB, install string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, names[0], install)
	return ""
}

// npm makes sure that the packages in package.json are in node_modules, and returns that
// directory.
func npm(t testing.TB) string {
	t.Helper()
	path := find(t, "apt-get install npm, or https://nodejs.org", "npm")
	if err := installed(path); err != nil {
		missing(t, "e2e/node_modules", "npm --prefix e2e ci --ignore-scripts ("+err.Error()+")")
	}
	return "node_modules"
}

var installed = func() func(npm string) error {
	var once sync.Once
	var err error
	return func(npm string) error {
		once.Do(func() {
			wanted, err1 := os.Stat("package-lock.json")
			got, err2 := os.Stat("node_modules/.package-lock.json")
			if err1 == nil && err2 == nil && got.ModTime().After(wanted.ModTime()) {
				return
			}
			out, failed := exec.Command(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund").CombinedOutput()
			if failed != nil {
				err = fmt.Errorf("npm ci: %w\n%s", failed, out)
			}
		})
		return err
	}
}()

// run runs a program to its end and returns its output.
func run(t testing.TB, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(cleanEnv(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// within fails the test unless a condition becomes true in time.
func within(t testing.TB, most time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, most)
		}
	}
}

// logIn returns the tokens of a login.
func logIn(t testing.TB, s *server, username, password string) (access, refresh string) {
	t.Helper()
	resp, err := http.PostForm(s.URL+"/token", map[string][]string{"username": {username}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	body := decode[struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}](t, resp, http.StatusOK)
	return body.AccessToken, body.RefreshToken
}

// readAll reads the body of a response that must have the wanted status.
func readAll(t testing.TB, resp *http.Response, want int) []byte {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s = %d, want %d\n%s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, want, cmp.Or(string(body), "(no body)"))
	}
	return body
}
