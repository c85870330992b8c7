package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// TestSignals tests the built program with real signals.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server")
	}
	t.Parallel()
	binary := buildServer(t)
	for name, test := range map[string]func(t *testing.T, binary string){
		"accounts and sessions survive a restart after a signal":           testRestart,
		"a signal during the start stops the server":                       testSignalRightAtTheStart,
		"a signal stops the server even if its standard error is not read": testUnreadStandardError,
		"the server continues if its standard error is closed":             testClosedStandardError,
		"a signal during a command is an error, but for the server":        testInterruptedCommands,
		"a second signal stops the server at once":                         testSecondSignal,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, binary)
		})
	}
}

// start starts the server with a key and a pipe as its standard error, and returns when
// it listens.
func start(t *testing.T, binary string, args ...string) (cmd *exec.Cmd, s *launched, stderr *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd = exec.CommandContext(soon(t), binary, append(args, "-addr", "127.0.0.1:0")...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "SECRET_KEY="+settingsKey), w
	noError(t, cmd.Start())
	w.Close()
	s = &launched{t: t}
	for lines := bufio.NewScanner(r); s.url == "" && lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), "msg=listening url=")
		s.url, _, _ = strings.Cut(rest, " ")
	}
	if s.url == "" {
		t.Fatal("the server does not log that it listens")
	}
	return cmd, s, r
}

// wantStop sends a signal to the server, which must end with exit status 0.
func wantStop(t *testing.T, cmd *exec.Cmd, signal os.Signal) {
	t.Helper()
	noError(t, cmd.Process.Signal(signal))
	wantErr(t, fmt.Sprint("the end of the server on ", signal), cmd.Wait(), nil)
}

// A log that is not read fills its pipe, and requests wait for it. A signal must stop
// the server nevertheless.
func testUnreadStandardError(t *testing.T, binary string) {
	cmd, s, _ := start(t, binary)
	client := http.Client{Timeout: 200 * time.Millisecond}
	for blocked := false; !blocked; {
		resp, err := client.Get(s.url + "/healthz")
		if blocked = err != nil; !blocked {
			resp.Body.Close()
		}
	}
	begin := time.Now()
	wantStop(t, cmd, syscall.SIGTERM)
	if took := time.Since(begin); took > gracePeriod+5*time.Second {
		t.Errorf("the server took %v to end, want at most %v and a little", took, gracePeriod)
	}
}

func testClosedStandardError(t *testing.T, binary string) {
	cmd, s, stderr := start(t, binary)
	stderr.Close()
	for range 3 {
		s.want(200, "GET", "/healthz", "", "")
	}
	wantStop(t, cmd, syscall.SIGTERM)
}

func testSecondSignal(t *testing.T, binary string) {
	cmd, s, stderr := start(t, binary)
	conn := need(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))(t)
	defer conn.Close()
	io.WriteString(conn, "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntok")
	s.do("GET", "/healthz", "", "") // by now the server has the other request
	cmd.Process.Signal(syscall.SIGTERM)
	for lines := bufio.NewScanner(stderr); lines.Scan() && !strings.Contains(lines.Text(), "msg=stopping"); {
	}
	begin := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the server ends with %v, want SIGTERM", err)
	}
	if took := time.Since(begin); took > gracePeriod/2 {
		t.Errorf("the server took %v to end after the second signal, want at most %v", took, gracePeriod/2)
	}
}

func testRestart(t *testing.T, binary string) {
	file := adasFile(t, RoleAdmin)
	token, want := "", ""
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM} {
		cmd, s, _ := start(t, binary, "-store", file)
		if token == "" {
			token = s.login("ada")
			s.do("PATCH", "/users/me/", token, `{"full_name":"Ada Lovelace"}`)
			want = s.do("GET", "/users/", token, "").body
		}
		wantEqual(t, "GET /users/ after each start", s.want(200, "GET", "/users/", token, "").body, want)
		wantStop(t, cmd, signal)
	}
	wantIn(t, "GET /users/", want, "Ada Lovelace")
}

// A signal takes effect from the start of the program. Here it arrives while the
// program reads its certificate from a pipe.
func testSignalRightAtTheStart(t *testing.T, binary string) {
	certFile, keyFile := writeCertificate(t)
	pipe := filepath.Join(t.TempDir(), "cert.pem")
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		os.Remove(pipe)
		noError(t, syscall.Mkfifo(pipe, 0o600))
		cmd := exec.CommandContext(soon(t), binary, "-addr", "127.0.0.1:0", "-tls-cert", pipe, "-tls-key", keyFile)
		noError(t, cmd.Start())
		w := need(os.OpenFile(pipe, os.O_WRONLY, 0))(t) // waits for the program to open it
		noError(t, cmd.Process.Signal(signal))
		time.Sleep(20 * time.Millisecond) // time for the signal to kill a program that does not handle it
		w.WriteString(readText(t, certFile))
		w.Close()
		wantErr(t, fmt.Sprintf("the end of the server on %v while it reads its settings", signal), cmd.Wait(), nil)
	}
}

// A script must notice that its command did not finish. Here each command waits for a
// program that does not respond.
func testInterruptedCommands(t *testing.T, binary string) {
	file, addr := adasFile(t, RoleAdmin), freeAddr(t)
	for _, test := range []struct {
		name, args string
		signal     os.Signal
		want       int
		says       string
	}{
		{"a password reset", "-store etcd://SILENT -reset-password ada", syscall.SIGTERM, 1, "stdauth: interrupted; nothing was changed\n"},
		{"an import", "-store etcd://SILENT -import " + file, syscall.SIGINT, 1, "stdauth: interrupted; nothing was changed\n"},
		{"a check", "-check -addr SILENT", syscall.SIGTERM, 1, "stdauth: interrupted; nothing was changed\n"},
		{"a server that opens its store", "-store etcd://SILENT -log-level warn -addr " + addr, syscall.SIGINT, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			silent := loopback(t)
			var stderr strings.Builder
			cmd := exec.CommandContext(soon(t), binary, strings.Fields(strings.ReplaceAll(test.args, "SILENT", silent.Addr().String()))...)
			cmd.Env, cmd.Stderr = append(os.Environ(), "SECRET_KEY="+settingsKey), &stderr
			noError(t, cmd.Start())
			conn := need(silent.Accept())(t)
			defer conn.Close()
			if test.want == 0 {
				s := &launched{t: t, url: "http://" + addr}
				s.want(200, "GET", "/healthz", "", "")
				s.want(503, "GET", "/readyz", "", "")
			}
			cmd.Process.Signal(test.signal)
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != test.want || stderr.String() != test.says {
				t.Errorf("on %v: exit status %d, %q; want %d, %q", test.signal, got, &stderr, test.want, test.says)
			}
		})
	}
}

// soon returns a context of one minute, for a program that may not end by itself.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestTerminal: only a terminal gets the greeting for people. Everything else gets the log.
func TestTerminal(t *testing.T) {
	_, slave := openPTY(t)
	null := need(os.OpenFile(os.DevNull, os.O_WRONLY, 0))(t)
	defer null.Close()
	file := need(os.CreateTemp(t.TempDir(), ""))(t)
	defer file.Close()
	for _, test := range []struct {
		name string
		file *os.File
		want bool
	}{
		{"a terminal is a terminal", slave, true},
		{"a file is not a terminal", file, false},
		{"the null device is not a terminal", null, false},
	} {
		wantEqual(t, test.name+": isTerminal", isTerminal(test.file), test.want)
	}
}

// TestTerminalSession: at a terminal, the greeting and the log below it are for people.
func TestTerminalSession(t *testing.T) {
	t.Parallel()
	master, slave := openPTY(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"-addr=127.0.0.1:0"}, envOf("ADMIN_PASSWORD=correct-horse"), slave, slave)
		slave.Close() // ends the reader below
	}()
	var screen []string
	s := &launched{t: t}
	for lines := bufio.NewScanner(master); lines.Scan(); {
		line := strings.TrimSuffix(lines.Text(), "\r")
		screen = append(screen, line)
		if url, ok := strings.CutPrefix(line, "stdauth listens on "); ok {
			s.url = url
		}
		if strings.HasPrefix(line, "  curl ") {
			s.login("johndoe")
			s.do("GET", "/docs/app.js", "", "")
			s.do("GET", "/nowhere", "", "")
			cancel()
		}
	}
	wantEqual(t, "run at a terminal", <-status, 0)
	text := strings.Join(screen, "\n")
	text = regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`).ReplaceAllString(text, "06:51:39")
	text = regexp.MustCompile(`\b\d+ms\b`).ReplaceAllString(text, "128ms")
	want := `06:51:39 WARN ADMIN_PASSWORD is set, but -admin is not
stdauth listens on URL

  page      URL/docs
  accounts  johndoe / secret (user) and admin / secret (admin)
  key       random: all tokens end with this process (set SECRET_KEY to keep them)

Try it from another terminal:

  curl -d username=johndoe -d password=secret URL/token

06:51:39 POST /token 200 128ms user 1
06:51:39 GET - 404 128ms
06:51:39 stopping`
	wantEqual(t, "the text on the terminal", text, strings.ReplaceAll(want, "URL", s.url))
}

// openPTY opens a pseudo-terminal. The text written to slave can be read from master.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master = need(os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0))(t)
	t.Cleanup(func() { master.Close() })
	var lock, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &lock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatalf("ioctl %#x: %v", request, errno)
		}
	}
	slave = need(os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0))(t)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

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
			t.Fatalf("%s: $ %s\noutput (-page +got):\n%s\nlog of the server:\n%s", page, s.command, diff, sh.log())
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
type consoleSession struct{ command, output string }

func consoleSessions(t *testing.T, file string) (sessions []consoleSession) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(readText(t, file), -1) {
		parts := strings.Split("\n"+block[1], "\n$ ")
		if parts[0] != "" {
			t.Fatalf("%s: output without a command: %s", file, parts[0])
		}
		for _, part := range parts[1:] {
			command, output, _ := strings.Cut(part, "\n")
			sessions = append(sessions, consoleSession{command, strings.TrimSpace(output)})
		}
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
	noError(t, os.WriteFile(filepath.Join(dir, "go"), []byte(command), 0o755))
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
	sh.screen.Reset()
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
	printed
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	term := &terminal{name: slave.Name()}
	go io.Copy(&term.printed, master)
	return term
}

func (term *terminal) text() string { return strings.ReplaceAll(term.String(), "\r\n", "\n") }

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

// TestAttackIdleConnections: one address opens more connections than the process has
// descriptors, and leaves them idle. Others are served nevertheless.
func TestAttackIdleConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server")
	}
	t.Parallel()
	cmd, s, stderr := start(t, "sh", "-c", `ulimit -n 64 && exec "$0" "$@"`, buildServer(t))
	defer cmd.Wait()
	defer cmd.Process.Kill()
	go io.Copy(io.Discard, stderr)
	addr := strings.TrimPrefix(s.url, "http://")
	for i := range 100 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("idle connection %d: %v", i+1, err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") // else it is closed after 10 s
		conn.SetReadDeadline(time.Now().Add(time.Second))
		conn.Read(make([]byte, 1000)) // an error means that the server does not accept it
	}
	for i := range 3 {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))}
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: from}).DialContext}}
		resp, err := client.Get(fmt.Sprintf("http://%s/healthz", addr))
		if err != nil {
			t.Errorf("a request from %v beside 100 idle connections, with 64 descriptors: %v", from, err)
			continue
		}
		resp.Body.Close() // and stays open
	}
}

// TestOneMoreThreadWhileHashing: GOMAXPROCS is one more than the number of cores while
// any hash runs. It belongs to the process, so this runs in one of its own. Afterwards Go
// follows the CPU limit of its container again, unless the operator has set GOMAXPROCS.
func TestOneMoreThreadWhileHashing(t *testing.T) {
	const child = "STDAUTH_TEST_THREADS"
	if os.Getenv(child) != "" {
		threads := func() int { return runtime.GOMAXPROCS(0) }
		before := threads()
		got := []int{threads() - before}
		for _, change := range []int{1, 1, -1, -1} {
			countHashes(change)
			got = append(got, threads()-before)
		}
		fmt.Println("threads", got, followsLimit(t))
		return
	}
	for _, test := range []struct{ env, want string }{
		{"", "threads [0 1 1 1 0] true"},
		{"GOMAXPROCS=7", "threads [0 1 1 1 0] false"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneMoreThreadWhileHashing$", "-test.count=1")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=", child+"=1", test.env)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("with %q in the environment, GOMAXPROCS relative to its initial value with 0, 1, 2, 1 and 0 hashes, and whether it follows the limit: %s (%v)\nwant %s", test.env, out, err, test.want)
		}
	}
}

// followsLimit reports whether GOMAXPROCS changes when the process may use one CPU only.
func followsLimit(t *testing.T) bool {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || runtime.NumCPU() == 1 {
		t.Fatalf("%d threads (%v) on %d CPUs, want two CPUs", len(threads), err, runtime.NumCPU())
	}
	var allowed, one [128]byte
	size, set := uintptr(len(one)), uintptr(unsafe.Pointer(&one))
	if _, _, errno := syscall.Syscall(syscall.SYS_SCHED_GETAFFINITY, 0, size, uintptr(unsafe.Pointer(&allowed))); errno != 0 {
		t.Fatal(errno)
	}
	for i, b := range allowed {
		if b != 0 {
			one[i] = b & -b // its lowest bit
			break
		}
	}
	for _, thread := range threads {
		id := need(strconv.Atoi(filepath.Base(thread)))(t)
		if _, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(id), size, set); errno != 0 && errno != syscall.ESRCH {
			t.Fatal(errno)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if runtime.GOMAXPROCS(0) == 1 {
			return true
		}
	}
	return false
}

// TestAttackUserEnumerationByTime: a failed login costs the same for every username, namely
// one check of the strongest hash that the server has met, which was imported. It measures
// the time of the processor, because other programs do not change that much; and of
// several runs the shortest. A login without a check, or with two, never comes close.
func TestAttackUserEnumerationByTime(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := loudWorld(t, 1000)
	w.addUser("imported", func(u *User) { u.PasswordHash = Hasher{Iterations: 20_000}.Hash("secret") })
	w.server.meetAccounts(t.Context())
	calls := append(slices.Clone(failedLogins), "POST /token username=imported&password=guess")
	least, quotient := map[string]time.Duration{}, map[string]float64{}
	for run := range 60 {
		for _, call := range calls {
			start := threadTime(t) // from another address each time, which avoids the throttle
			a := w.send(strings.Replace(call, "/token", fmt.Sprintf("/token from 198.51.100.%d", run), 1))
			if took := threadTime(t) - start; least[call] == 0 || took < least[call] {
				least[call] = took
			}
			if a.status != 401 {
				t.Fatalf("%s\n  got %s", call, w.show(a))
			}
		}
		alike := run >= 3
		for _, call := range calls {
			quotient[call] = float64(least[call]) / float64(least[calls[0]])
			alike = alike && 0.7 < quotient[call] && quotient[call] < 1.4
		}
		if alike {
			return
		}
	}
	t.Errorf("failed logins take %v, in parts of the first: %v\n  want the same time for all", least, quotient)
}

// threadTime returns the time for which the thread has had a processor.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	const threadCPU = 3 // CLOCK_THREAD_CPUTIME_ID; getrusage lags behind by milliseconds
	var now syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, threadCPU, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		t.Fatal(errno)
	}
	return time.Duration(now.Nano())
}

// TestFailedListenerEndsTheServer: a server that cannot accept connections any more ends, so
// that whatever started it starts it again.
func TestFailedListenerEndsTheServer(t *testing.T) {
	for _, name := range []string{"listening url", "debugging metrics"} {
		s := launch(t, []string{"-debug-addr", "127.0.0.1:0"})
		s.once.Do(func() {}) // it ends by itself
		_, rest, _ := strings.Cut(s.stderr.String(), name+"=http://")
		addr := regexp.MustCompile(`^[\d.:]+`).FindString(rest)
		breakListener(t, addr)
		if got := <-s.status; got != 1 || !strings.Contains(s.stderr.String(), "accept tcp "+addr) {
			t.Errorf("after the listener at %s has failed, which is %s, run() = %d, want 1 and the reason:\n%s", addr, name, got, s.stderr)
		}
	}
}

// breakListener makes a listener of this process fail for good.
func breakListener(t *testing.T, addr string) {
	t.Helper()
	for fd := range 1024 {
		at, _ := syscall.Getsockname(fd)
		listens, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if ip4, ok := at.(*syscall.SockaddrInet4); ok && listens == 1 && strings.HasSuffix(addr, fmt.Sprint(":", ip4.Port)) {
			noError(t, syscall.Shutdown(fd, syscall.SHUT_RDWR))
			return
		}
	}
	t.Fatalf("there is no listener at %s", addr)
}
