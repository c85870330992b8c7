//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The program itself, as an operator has it.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server")
	}
	t.Parallel()
	binary := buildServer(t)
	t.Run("restart", func(t *testing.T) { testRestart(t, binary) })
	t.Run("right at the start", func(t *testing.T) { testSignalRightAtTheStart(t, binary) })
	t.Run("a standard error that nobody reads", func(t *testing.T) { testUnreadStandardError(t, binary) })
	t.Run("a standard error that is closed", func(t *testing.T) { testClosedStandardError(t, binary) })
	t.Run("a second signal", func(t *testing.T) { testSecondSignal(t, binary) })
}

// start starts the server, whose standard error is a pipe, and returns when it
// listens.
func start(t *testing.T, binary string, args ...string) (cmd *exec.Cmd, s *launched, stderr *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd = exec.CommandContext(soon(t), binary, append(args, "-addr", "127.0.0.1:0")...)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s = &launched{t: t}
	for lines := bufio.NewScanner(r); s.url == "" && lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), "msg=listening url=")
		s.url, _, _ = strings.Cut(rest, " ")
	}
	if s.url == "" {
		t.Fatal("the server does not say that it listens")
	}
	return cmd, s, r
}

// A log that nobody reads fills its pipe, and requests wait for it. The server stops
// all the same.
func testUnreadStandardError(t *testing.T, binary string) {
	t.Parallel()
	cmd, s, _ := start(t, binary)
	client := http.Client{Timeout: 200 * time.Millisecond}
	for blocked := false; !blocked; {
		resp, err := client.Get(s.url + "/healthz")
		if blocked = err != nil; !blocked {
			resp.Body.Close()
		}
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ends with %v, want exit status 0", err)
	}
	if took := time.Since(begin); took > gracePeriod+5*time.Second {
		t.Errorf("the server took %v to end, want about %v at most", took, gracePeriod)
	}
}

// When the reader of the log goes away, the server goes on without it.
func testClosedStandardError(t *testing.T, binary string) {
	t.Parallel()
	cmd, s, stderr := start(t, binary)
	stderr.Close()
	for range 3 {
		if got := s.do("GET", "/healthz", "", ""); got.status != 200 {
			t.Errorf("GET /healthz with a closed standard error = %d, want 200", got.status)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ends with %v, want exit status 0", err)
	}
}

// The first signal waits for a request under way, the second for nothing.
func testSecondSignal(t *testing.T, binary string) {
	t.Parallel()
	cmd, s, stderr := start(t, binary)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntok")
	s.do("GET", "/healthz", "", "") // the server has seen the other one by now
	cmd.Process.Signal(syscall.SIGTERM)
	for lines := bufio.NewScanner(stderr); lines.Scan() && !strings.Contains(lines.Text(), "msg=stopping"); {
	}
	begin := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the server ends with %v, want the second signal to end it", err)
	}
	if took := time.Since(begin); took > gracePeriod/2 {
		t.Errorf("the server took %v to end after the second signal", took)
	}
}

// It is started, sent a signal, and started again: everything is still there,
// and nobody has been logged out.
func testRestart(t *testing.T, binary string) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.jsonl")
	writeAccounts(t, file, User{Username: "ada", Role: RoleAdmin, PasswordHash: Hasher{Iterations: 1}.Hash("secret")})

	token, want := "", ""
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.CommandContext(soon(t), binary, "-addr", "127.0.0.1:0", "-store", file)
		cmd.Env = append(os.Environ(), "SECRET_KEY="+settingsKey)
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s := &launched{t: t}
		lines := bufio.NewScanner(log)
		for s.url == "" && lines.Scan() {
			_, rest, _ := strings.Cut(lines.Text(), "msg=listening url=")
			s.url, _, _ = strings.Cut(rest, " ")
		}
		if s.url == "" {
			t.Fatal("the server does not say that it listens")
		}
		if token == "" {
			token = s.login("ada")
			s.do("PATCH", "/users/me/", token, `{"full_name":"Ada Lovelace"}`)
			want = s.do("GET", "/users/", token, "").body
		} else if got := s.do("GET", "/users/", token, ""); got.status != 200 || got.body != want {
			t.Errorf("GET /users/ after a restart = %d %s, want 200 %s", got.status, got.body, want)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ends on %v with %v, want exit status 0", signal, err)
		}
	}
	if !strings.Contains(want, "Ada Lovelace") {
		t.Errorf("GET /users/ = %s, want the change in it", want)
	}
}

// A signal counts from the first moment on: here one comes while the program
// still reads its certificate, which is a pipe.
func testSignalRightAtTheStart(t *testing.T, binary string) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t)
	pipe := filepath.Join(t.TempDir(), "cert.pem")
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		os.Remove(pipe)
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(soon(t), binary, "-addr", "127.0.0.1:0", "-tls-cert", pipe, "-tls-key", keyFile)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the program to open it
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // for a program that would die of it
		w.WriteString(readText(t, certFile))
		w.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ends on %v while it reads its settings with %v, want exit status 0", signal, err)
		}
	}
}

// soon ends a program that does not end by itself.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
