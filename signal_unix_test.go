//go:build unix

package main

import (
	"bufio"
	"context"
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
