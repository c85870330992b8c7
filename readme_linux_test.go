package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestReadme runs the commands of README.md, and of each page in docs/, in a shell, and
// compares their output with that in the page. The server prints to a terminal, as it
// does for the reader.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts the server many times")
	}
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	all := 0
	for _, page := range pages(t) {
		sessions := consoleSessions(t, page)
		all += len(sessions)
		if len(sessions) > 0 {
			t.Run("the commands in "+page+" print the output in the page", func(t *testing.T) { typeIn(t, page, sessions) })
		}
	}
	if all < 12 {
		t.Fatalf("the test found %d commands in the pages, want 12 or more", all)
	}
}

func typeIn(t *testing.T, page string, sessions []consoleSession) {
	sh := startShell(t)
	for _, s := range sessions {
		got := ""
		if strings.Contains(s.command, "go run .") {
			got = sh.serve(s.command, s.output)
		} else {
			got = sh.run(s.command)
		}
		got = strings.ReplaceAll(got, sh.addr, "127.0.0.1:8000")
		if diff := cmp.Diff(s.output, sameEveryTime(got)); diff != "" {
			t.Fatalf("%s:%d: $ %s\noutput (-page +got):\n%s\nlog of the server:\n%s", page, s.line, s.command, diff, sh.log())
		}
	}
}

// sameEveryTime replaces the values that differ each time by those in the pages.
func sameEveryTime(output string) string {
	for _, varying := range []struct{ pattern, shown string }{
		{`eyJ[\w-]+\.[\w-]+\.[\w-]{43}`, `eyJ...`},
		{`"refresh_token":"[A-Z2-7]{26}\.\d+\.\d+\.[\w-]{43}"`, `"refresh_token":"..."`},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, `2026-01-02T03:04:05Z`},
	} {
		output = regexp.MustCompile(varying.pattern).ReplaceAllString(output, varying.shown)
	}
	return strings.TrimSpace(output)
}

// A consoleSession is a command and its output in a ```console block.
type consoleSession struct {
	line            int
	command, output string
}

func consoleSessions(t *testing.T, file string) (sessions []consoleSession) {
	t.Helper()
	inside := false
	for i, line := range strings.Split(readText(t, file), "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			sessions = append(sessions, consoleSession{line: i + 1, command: command})
		case inside && len(sessions) == 0:
			t.Fatalf("%s:%d: output without a command", file, i+1)
		case inside:
			sessions[len(sessions)-1].output += line + "\n"
		}
	}
	for i := range sessions {
		sessions[i].output = strings.TrimSpace(sessions[i].output)
	}
	return sessions
}

// A shell runs a server in one terminal and sh in another, as a person would.
type shell struct {
	t      *testing.T
	dir    string
	addr   string // in place of 127.0.0.1:8000
	in     io.Writer
	out    *bufio.Reader
	screen *terminal
}

func startShell(t *testing.T) *shell {
	dir := t.TempDir()
	sh := &shell{t: t, dir: dir, addr: freeAddr(t), screen: openTerminal(t)}

	// "go run ." runs the server that the test has built.
	command := fmt.Sprintf("#!/bin/sh\nshift 2\nexec %s \"$@\" >%s 2>>%s/log\n", buildServer(t), sh.screen.name, dir)
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(command), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh") // the cleanup ends it; t.Context is canceled before
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "STDAUTH_ADDR=" + sh.addr}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
		t.Fatal(err1, err2, err)
	}
	sh.in, sh.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		sh.run("kill $server; wait $server")
		in.Close()
		cmd.Wait()
	})
	return sh
}

// run runs a command and returns its standard output.
func (sh *shell) run(command string) string {
	sh.t.Helper()
	const end = "\x1e"
	fmt.Fprintf(sh.in, "%s\nprintf '\\036'\n", strings.ReplaceAll(command, "127.0.0.1:8000", sh.addr))
	output, err := sh.out.ReadString(end[0])
	if err != nil {
		sh.t.Fatalf("%s: the shell ended: %v", command, err)
	}
	return strings.TrimSuffix(output, end)
}

// serve stops the running server, starts another one, and returns its output as soon as
// that is as long as want.
func (sh *shell) serve(command, want string) string {
	sh.t.Helper()
	sh.run("[ -z \"$server\" ] || { kill -INT $server; wait $server; }")
	sh.screen.clear()
	sh.run(command + " & server=$!")
	got := ""
	for range 500 {
		got = strings.ReplaceAll(sh.screen.text(), sh.addr, "127.0.0.1:8000")
		if len(strings.TrimSpace(got)) >= len(want) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return got
}

func (sh *shell) log() string { return readText(sh.t, filepath.Join(sh.dir, "log")) }

// A terminal is a pseudo-terminal and the text written to it.
type terminal struct {
	name string // the file that a program opens to write to it
	mu   sync.Mutex
	seen strings.Builder
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	term := &terminal{name: slave.Name()}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
		}
	}()
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return strings.ReplaceAll(term.seen.String(), "\r\n", "\n")
}

func (term *terminal) clear() {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.seen.Reset()
}

// freeAddr returns an address without a listener, outside the range of ports that the
// system chooses for other tests.
func freeAddr(t *testing.T) string {
	t.Helper()
	for port := 20000 + os.Getpid()%8000; port < 32000; port++ {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}
