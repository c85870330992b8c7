package main

import (
	order "cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// TestScenarios runs the scenarios in testdata/scenarios, whose README.md explains the
// format. With -update it writes the responses of the server into the files. Review the
// difference before you commit it.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/scenarios/*.txt: %d files (%v), want some", len(files), err)
	}
	for _, file := range files {
		t.Run("the scenario "+strings.TrimSuffix(filepath.Base(file), ".txt")+" shows the responses of the server", func(t *testing.T) {
			want := need(os.ReadFile(file))(t)
			inWorld(t, func(w *world) {
				got := playScenario(w, string(want))
				if *update {
					noError(t, os.WriteFile(file, []byte(got), 0o666))
					return
				}
				wantEqual(t, file+", and the responses of the server", strings.Split(got, "\n"), strings.Split(string(want), "\n"))
			})
		})
	}
}

// playScenario runs the indented lines, and returns the text with the responses of the
// server. Lines that begin with "<" are the expected responses, and are replaced.
func playScenario(w *world, text string) string {
	w.Helper()
	var out []string
	var unshown *answered
	show := func() {
		if unshown != nil {
			for line := range strings.SplitSeq(w.show(unshown), "\n") {
				out = append(out, "    < "+line)
			}
		}
		unshown = nil
	}
	commands := 0
	for line := range strings.SplitSeq(text, "\n") {
		command, indented := strings.CutPrefix(line, "    ")
		if indented && strings.HasPrefix(command, "<") {
			continue
		}
		keyword, _, _ := strings.Cut(command, " ")
		if !indented || keyword != "keep" {
			show()
		}
		out = append(out, line)
		if !indented {
			continue
		}
		commands++
		before := w.last
		w.obey(command)
		if w.last != before {
			unshown = w.last
		}
	}
	show()
	if commands == 0 {
		w.Errorf("the scenario has no command; commands are indented by four spaces")
	}
	return strings.Join(out, "\n")
}

// TestScenarioKeywords: whoever writes a scenario finds each command of obey explained.
func TestScenarioKeywords(t *testing.T) {
	readme := readText(t, "testdata/scenarios/README.md")
	_, obey, _ := strings.Cut(readText(t, "scenarios_test.go"), "switch keyword "+"{")
	obey, _, _ = strings.Cut(obey, "default:")
	wantIn(t, "testdata/scenarios/README.md", readme, "`as ", "`from ", "`with ")
	for _, m := range matches(t, 12, `case "(GET|[a-z]+)"`, obey) {
		wantIn(t, "testdata/scenarios/README.md", readme, "`"+m[1])
	}
}

// The tables and the scenarios use one small language for requests, which
// testdata/scenarios/README.md explains. The rest of this file runs it: a world is a server
// with its clients and its own clock. A test says what it needs of one in a few words:
//
//	inWorld, inPeopledWorld   a test in a world of its own
//	alone, peopled            likewise, for t.Run
//	w.do                      commands of the language; returns the last response as text
//	w.want                    likewise, and compares the response
//	w.send                    one request; returns the response in its parts
//	w.hold                    a request that waits in the middle
//	w.restart                 other settings
//	w.wantLog                 what the log has
//	w.leaks                   the secrets in the log and in the responses

var update = flag.Bool("update", false, "write the responses of the server into the scenarios")

const testKey = "the-key-that-signs-in-all-the-tests-of-the-api"

// inWorld runs a test in a world of its own, and afterwards searches the log and all
// responses for secrets. The clock of a synctest bubble starts on 2000-01-01 at 00:00 UTC.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(w)
		for _, leak := range w.leaks() {
			t.Error(leak)
		}
		w.server.mailer.Stop(t.Context())
	})
}

// alone and peopled make a subtest of a test in a world of its own.
func alone(test func(w *world)) func(t *testing.T) {
	return func(t *testing.T) { inWorld(t, test) }
}

func peopled(test func(w *world)) func(t *testing.T) {
	return func(t *testing.T) { inPeopledWorld(t, test) }
}

// inPeopledWorld runs a test in a world with the accounts from the top of handlers_test.go.
func inPeopledWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	inWorld(t, func(w *world) {
		for _, name := range []string{"jane", "dora", "dave"} {
			w.addUser(name)
		}
		w.do("login johndoe as john ; login johndoe as ended ; login admin as admin ; login jane as jane ; login dora as dora ; login dave as dave")
		w.want("the end of a session", "POST /revoke token=$ended", "200\n{}")
		w.want("the end of an account", "DELETE /users/5 as admin", "204")
		w.want("a disabled account", `PATCH /users/4 as admin {"disabled":true}`, "200\n"+dora)
		test(w)
	})
}

// A world is a server with its clients: their tokens, the responses so far, and the log.
type world struct {
	testing.TB
	memory     *MemoryStore
	store      *stagedStore
	server     *server
	handler    http.Handler
	vars       map[string]string // $name: value
	iterations int

	mu      sync.Mutex
	log     printed
	secrets map[string]bool // passwords, keys and tokens that were sent or made
	queries []string
	answers []*answered
	ids     map[string]bool // of requests

	last  *answered
	begun func() *answered // lets the request of "begin" go on
}

// newWorld returns a world with the demo accounts: johndoe, who is user 1, and admin, user
// 2. The default is one iteration to hash a password.
func newWorld(t testing.TB, iterations ...int) *world {
	memory := NewMemoryStore(monthLife)
	w := &world{TB: t, iterations: append(iterations, 1)[0], memory: memory, store: &stagedStore{Store: memory}, vars: map[string]string{}, secrets: map[string]bool{}, ids: map[string]bool{}}
	w.restart("-addr=127.0.0.1:8000")
	for _, u := range demoUsers {
		w.addUser(u.Username, func(new *User) { new.Email, new.FullName, new.Role = u.Email, u.FullName, u.Role })
	}
	return w
}

// addUser creates an account with the password "secret", without the rules of registration.
func (w *world) addUser(name string, changes ...func(*User)) User {
	w.Helper()
	u := User{Username: name, Role: RoleUser, CreatedAt: time.Now().UTC().Truncate(time.Second), PasswordHash: Hasher{Iterations: w.iterations}.Hash("secret")}
	for _, change := range changes {
		change(&u)
	}
	return testedStore{w.store, w}.create(u)
}

// withAddress is a change for addUser: an address that is verified.
func withAddress(email string) func(*User) {
	return func(u *User) { u.Email, u.EmailVerified = email, true }
}

// restart starts a new server on the same store. The settings are flags, such as
// "-registration=closed", and variables, such as "SECRET_KEY=...".
func (w *world) restart(settings ...string) {
	w.Helper()
	env := map[string]string{"SECRET_KEY": testKey}
	var flags []string
	for _, s := range settings {
		if name, value, ok := strings.Cut(s, "="); ok && !strings.HasPrefix(s, "-") {
			env[name] = value
		} else {
			flags = append(flags, s)
		}
	}
	set, err := parseSettings(flags, func(name string) string { return env[name] })
	if err != nil {
		w.Fatalf("restart %s: %v", settings, err)
	}
	set.Iterations = w.iterations
	w.memory.life = set.SessionLife
	w.note(env["SECRET_KEY"], env["SECRET_KEY_PREVIOUS"])
	w.start(set.Config, NewTokens(set.Issuer, set.secret, set.previous))
}

func (w *world) start(config Config, tokens *Tokens) {
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if w.server != nil {
		w.server.mailer.Stop(w.Context())
	}
	config.PublicURL = order.Or(config.PublicURL, "http://127.0.0.1:8000")
	w.server = newServer(config, w.store, tokens, log)
	w.server.mailer = startMail(config.Mail, io.Discard, log, w.server.metrics.count)
	w.handler = w.server.handler()
}

// do runs a line of commands with " ; " between or after them, and returns the last response in
// the form of show.
func (w *world) do(line string) string {
	w.Helper()
	for command := range strings.SplitSeq(strings.TrimSuffix(line, " ; "), " ; ") {
		w.obey(command)
	}
	return w.show(w.last)
}

// want runs a line of commands, and fails unless the last response is the wanted one. A
// want that ends in "..." is the beginning of a response.
func (w *world) want(what, line, want string) {
	w.Helper()
	got := w.do(line)
	beginning, open := strings.CutSuffix(want, "...")
	if got != want && !(open && strings.HasPrefix(got, beginning)) {
		w.Errorf("%s: %.500s\n  got  %s\n  want %s", what, line, indent(got), indent(want))
	}
}

// wantLog fails unless the log has a text so many times.
func (w *world) wantLog(text string, times int) {
	w.Helper()
	if log := w.log.String(); strings.Count(log, text) != times {
		w.Errorf("the log has %q %d times, want %d: %s", text, strings.Count(log, text), times, log)
	}
}

// obey runs one command.
func (w *world) obey(command string) {
	w.Helper()
	keyword, rest, _ := strings.Cut(command, " ")
	switch keyword {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		w.last = w.send(command)
	case "login": // login NAME as VAR
		name, as, _ := strings.Cut(rest, " as ")
		w.last = w.send("POST /token username=" + name + "&password=secret")
		w.keepTokens(as)
	case "keep":
		where, name, ok := strings.Cut(rest, " as ")
		if !ok {
			w.Fatalf("%s: the form is: keep FIELD as NAME", command)
		}
		w.vars[name] = w.field(where)
	case "mail": // mail KIND as NAME
		kind, as, _ := strings.Cut(rest, " as ")
		w.vars[as] = w.mailed(kind)
	case "wait":
		time.Sleep(need(time.ParseDuration(rest))(w))
	case "repeat":
		count, request, _ := strings.Cut(rest, " ")
		for i := range need(strconv.Atoi(count))(w) {
			w.vars["i"] = strconv.Itoa(i + 1)
			w.last = w.send(request)
		}
	case "restart":
		w.restart(strings.Fields(w.expand(rest))...)
	case "begin": // [N] REQUEST
		nth, request, _ := strings.Cut(rest, " ")
		if strings.Trim(nth, "123456789") != "" {
			nth, request = "1", rest
		}
		w.begun = w.hold(request, "its write "+nth)
	case "end":
		if w.begun == nil {
			w.Fatalf("end: no request has begun")
		}
		w.last, w.begun = w.begun(), nil
	case "slowly":
		r := w.request(w.Context(), rest)
		r.Body = io.NopCloser(iotest.ErrReader(os.ErrDeadlineExceeded))
		w.last = w.serve(r, rest)
	case "queue": // fills
		w.Cleanup(w.occupyHashing(maxWaiting))
	case "store": // works, fails, or vanishes [after N]
		verb, after, _ := strings.Cut(rest, " after ")
		left := need(strconv.Atoi(order.Or(after, "0")))(w) // reads that succeed
		cause, known := map[string]string{"works": "", "fails": "the disk is full", "vanishes": "no route to host"}[verb]
		if !known {
			w.Fatalf("%s: unknown state of a store", command)
		}
		w.store.stage(func(method string) error {
			if left--; cause == "" || reads(method) && (verb == "fails" || left >= 0) {
				return nil
			}
			return fmt.Errorf("%w: %s", ErrUnavailable, cause)
		})
	default:
		w.Fatalf("%s: unknown keyword", command)
	}
}

// hold begins a request and holds it at a place: "its body", "its hash", or "its write 1",
// the number of its write to the store. The returned function releases the request and
// returns its response.
func (w *world) hold(call, place string) (release func() *answered) {
	w.Helper()
	r, done := w.request(w.Context(), call), make(chan *answered, 1)
	begin := func() {
		go func() { done <- w.serve(r, call) }()
		synctest.Wait()
	}
	switch place {
	case "its body":
		body := need(io.ReadAll(r.Body))(w)
		pipe, rest := io.Pipe()
		r.Body = pipe
		go rest.Write(body[:1]) // the first byte comes at once
		begin()
		return func() *answered {
			rest.Write(body[1:])
			rest.Close()
			return <-done
		}
	case "its hash":
		leave := w.occupyHashing(0)
		begin()
		if n := w.server.passwords.queue.waiting(); n != 1 {
			w.Fatalf("%s: %d requests wait for a hash, want this one", call, n)
		}
		return func() *answered { leave(); return <-done }
	}
	var n int64
	fmt.Sscanf(place, "its write %d", &n)
	held := &hold{reached: make(chan struct{}), release: make(chan struct{})}
	held.writes.Store(n)
	r = r.WithContext(context.WithValue(r.Context(), holdKey{}, held))
	begin()
	select {
	case <-held.reached:
	default:
		w.Fatalf("%s: the request was not held at %s", call, place)
	}
	return func() *answered { close(held.release); return <-done }
}

// occupyHashing takes all cores, and as many places in the queue as told: first those of
// known clients.
func (w *world) occupyHashing(queue int) (release func()) {
	hashes := w.server.passwords.queue
	for range cap(hashes.running) {
		hashes.running <- struct{}{}
	}
	pool := func(i int) *limit {
		if i < knownWaiting {
			return &hashes.known
		}
		return &hashes.places
	}
	for i := range queue {
		noError(w, pool(i).take(i, 1))
	}
	return func() {
		for i := range queue {
			pool(i).give(i, 1)
		}
		for range cap(hashes.running) {
			hashes.passOn()
		}
	}
}

// manyAtOnce sends n requests at once and returns their responses.
func manyAtOnce(w *world, n int, call func(i int) string) []*answered {
	responses := make([]*answered, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { responses[i] = w.send(call(i)) })
	}
	wg.Wait()
	return responses
}

// keepTokens keeps the tokens of the last response under NAME, NAME.refresh and NAME.sid.
func (w *world) keepTokens(as string) {
	w.Helper()
	if w.last.status != 200 {
		w.Fatalf("%s\n  got %s\n  want tokens", w.last.call, w.show(w.last))
	}
	w.vars[as], w.vars[as+".refresh"] = w.field("access_token"), w.field("refresh_token")
	claims, err := w.server.tokens.VerifyAccess(w.vars[as], time.Now())
	if err != nil {
		w.Fatalf("%s: the access token of the response is refused: %v", w.last.call, err)
	}
	w.vars[as+".sid"] = claims.SessionID
}

// mailed returns the token of the newest mail with a link of this kind.
func (w *world) mailed(kind string) string {
	w.Helper()
	time.Sleep(2 * mailDelay)
	for _, m := range slices.Backward(w.server.mailer.printed()) {
		if _, token, ok := strings.Cut(m.Text, "#"+kind+"="); ok {
			token, _, _ = strings.Cut(token, "\n")
			w.note(token)
			return token
		}
	}
	w.Fatalf("no mail has a link for %s", kind)
	return ""
}

// field returns the value of "access_token", or "0.id", in the last response.
func (w *world) field(where string) string {
	w.Helper()
	var v any
	if err := json.Unmarshal([]byte(w.last.body), &v); err != nil {
		w.Fatalf("keep %s: %s\n  got %s\n  want JSON: %v", where, w.last.call, w.show(w.last), err)
	}
	for part := range strings.SplitSeq(where, ".") {
		switch parent := v.(type) {
		case map[string]any:
			v = parent[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(parent) {
				w.Fatalf("keep %s: no %s in %s", where, part, w.last.body)
			}
			v = parent[i]
		}
	}
	switch v := v.(type) {
	case string:
		_, token, _ := strings.Cut(v, "#reset=")
		return order.Or(token, v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	w.Fatalf("keep %s: no string or number in %s", where, w.last.body)
	return ""
}

// An answered request has a call and its response.
type answered struct {
	call   string
	path   string
	status int
	header http.Header
	body   string
}

// send sends one request: METHOD PATH [as NAME] [from ADDRESS] [with "Header: value"] [BODY].
func (w *world) send(call string) *answered {
	w.Helper()
	return w.sendIn(w.Context(), call)
}

// sendIn is like send, for a client that may go away, or that begin holds.
func (w *world) sendIn(ctx context.Context, call string) *answered {
	w.Helper()
	return w.serve(w.request(ctx, call), call)
}

// serve is like send, for a request that exists.
func (w *world) serve(r *http.Request, call string) *answered {
	w.Helper()
	w.noteRequest(r)
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := &answered{call, r.URL.Path, rec.Code, rec.Result().Header, rec.Body.String()}
	if r.Method == http.MethodHead {
		a.body = "" // net/http drops it
	}
	if page := a.path == "/openapi.json" || strings.HasPrefix(a.path, "/docs"); a.body != "" && (!page || a.status >= 400) {
		if a.body, _ = strings.CutSuffix(a.body, "\n"); len(a.body) == rec.Body.Len() && a.header.Get("Location") == "" {
			w.Errorf("%s\n  got %q\n  want a line break at the end of the body", call, a.body)
		}
	}
	w.check(a)
	return a
}

// someCall is METHOD PATH, options and a body, and someOption one of the options.
var (
	someCall   = regexp.MustCompile(`(?s)^(\S+) (\S+)((?: as \S+| from \S+| with "(?:[^"\\]|\\.)*")*) ?(.*)$`)
	someOption = regexp.MustCompile(` (as|from|with) ("(?:[^"\\]|\\.)*"|\S+)`)
)

// request returns the request of a call. A body is a form for the OAuth endpoints, a merge
// patch with PATCH, and JSON otherwise, unless "with" sets its Content-Type.
func (w *world) request(ctx context.Context, call string) *http.Request {
	w.Helper()
	parts := someCall.FindStringSubmatch(call)
	if parts == nil || strings.HasPrefix(parts[4], "with ") {
		w.Fatalf("%s: the form is: METHOD PATH [as NAME] [from ADDRESS] [with \"Header: value\"] [BODY]", call)
	}
	method, path, from, header := parts[1], w.expand(parts[2]), "192.0.2.1", http.Header{}
	for _, option := range someOption.FindAllStringSubmatch(parts[3], -1) {
		switch option[1] {
		case "as":
			header.Add("Authorization", "Bearer "+w.expand("$"+option[2]))
		case "from":
			from = option[2]
		case "with":
			name, value, _ := strings.Cut(need(strconv.Unquote(option[2]))(w), ": ")
			header.Add(name, w.expand(value))
		}
	}
	body := w.expand(parts[4])
	target, _, _ := strings.Cut(path, "?")
	if body != "" && header["Content-Type"] == nil {
		switch {
		case target == "/token" || target == "/revoke" || target == "/introspect":
			header.Set("Content-Type", "application/x-www-form-urlencoded")
		case method == http.MethodPatch:
			header.Set("Content-Type", "application/merge-patch+json")
		default:
			header.Set("Content-Type", "application/json")
		}
	}
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = order.Or(header.Get("Host"), "127.0.0.1:8000"), net.JoinHostPort(from, "1234")
	maps.Copy(r.Header, header)
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	return r
}

var variableName = regexp.MustCompile(`\$[a-z][a-z0-9.-]*[a-z0-9]|\$[a-z]`)

// expand replaces variables by their values.
func (w *world) expand(text string) string {
	w.Helper()
	return variableName.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := w.vars[name[1:]]
		if !ok {
			w.Fatalf("%s: no value has the name %s", text, name)
		}
		return value
	})
}

// shownHeaders are the headers with information that is not in the status or the body.
var shownHeaders = []string{"WWW-Authenticate", "Location", "Link", "Retry-After", "Allow", "Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name"}

const sessionIDSize = 26

var (
	someAccessToken  = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]{43}`)
	someRefreshToken = regexp.MustCompile(`[A-Z2-7]{26}\.\d+\.\d+\.[\w-]{43}`)
	someMailToken    = regexp.MustCompile(`[\w-]{43}\.\d+\.\d+\.[\w-]{43}`)
	someSession      = regexp.MustCompile(`[A-Z2-7]{26}`)
)

// show returns a response as text: the status, shownHeaders and the body. The values of
// variables are replaced by their names, and other tokens by their kind.
func (w *world) show(a *answered) string {
	var b strings.Builder
	fmt.Fprint(&b, a.status)
	for _, name := range shownHeaders {
		for _, value := range a.header.Values(name) {
			fmt.Fprintf(&b, "\n%s: %s", name, value)
		}
	}
	if a.body != "" {
		body := a.body
		if strings.HasPrefix(body, "[{") {
			body = strings.ReplaceAll(body, "},{", "},\n{")
		}
		fmt.Fprint(&b, "\n", body)
	}
	text := b.String()
	names := slices.SortedFunc(maps.Keys(w.vars), func(a, b string) int {
		return order.Or(order.Compare(len(w.vars[b]), len(w.vars[a])), order.Compare(a, b))
	})
	byName := func(shortest int) {
		for _, name := range names {
			if len(w.vars[name]) >= shortest {
				text = strings.ReplaceAll(text, w.vars[name], "$"+name)
			}
		}
	}
	byName(sessionIDSize + 1) // tokens
	text = someAccessToken.ReplaceAllString(text, "<access token>")
	text = someRefreshToken.ReplaceAllString(text, "<refresh token>")
	text = someMailToken.ReplaceAllString(text, "<mail token>")
	byName(sessionIDSize) // not an ID such as 1
	return someSession.ReplaceAllString(text, "<session>")
}

// check checks the rules for all responses.
func (w *world) check(a *answered) {
	w.Helper()
	wrong := func(format string, args ...any) {
		w.Helper()
		w.Errorf("%s\n  got %s\n  %s", a.call, w.show(a), fmt.Sprintf(format, args...))
	}
	w.mu.Lock()
	id := a.header.Get("X-Request-Id")
	repeated := w.ids[id] && id != "" && !strings.Contains(a.call, "X-Request-Id")
	w.ids[id] = true
	w.answers = append(w.answers, a)
	w.mu.Unlock()
	if id == "" || repeated {
		wrong("X-Request-Id: %q, want a unique one", id)
	}
	page := (a.path == "/openapi.json" || strings.HasPrefix(a.path, "/docs")) && a.status < 400
	oauth := (a.path == "/token" || a.path == "/revoke" || a.path == "/introspect") && a.status != 405
	headers := map[string]string{"X-Content-Type-Options": "nosniff"}
	if !page {
		headers["Cache-Control"] = "no-store"
	}
	switch {
	case page, a.status == statusClientGone: // of many types, or read by nobody
	case a.status >= 400 && !oauth:
		headers["Content-Type"] = "application/problem+json"
	case a.status >= 400, a.body != "" && a.status < 300:
		headers["Content-Type"] = "application/json"
	}
	if strings.HasPrefix(a.body, `{"access_token":`) {
		headers["Pragma"] = "no-cache" // RFC 6749, section 5.1
	}
	for name, want := range headers {
		if got := a.header.Get(name); got != want {
			wrong("%s: %q, want %q", name, got, want)
		}
	}
	if scheme, _, _ := strings.Cut(a.header.Get("WWW-Authenticate"), " "); a.status == 401 && scheme != "Bearer" && scheme != "Basic" {
		wrong("want a WWW-Authenticate with a 401 (RFC 9110, section 15.5.2)")
	}
	if a.status < 400 || a.body == "" {
		return
	}
	var got errorBody
	noError(w, json.Unmarshal([]byte(a.body), &got))
	want := errorBody{Title: http.StatusText(a.status), Status: a.status, Detail: got.Detail, Code: got.Code, Errors: got.Errors}
	if oauth {
		want = errorBody{Error: got.Error, Description: got.Detail, Detail: got.Detail, Code: got.Code}
	}
	status := a.status
	if a.path == "/forward-auth" && status == 403 && got.Code != "not_enough_permissions" {
		status = 400 // which proxies do not know
	}
	switch form := shown(a.status, nil, want); {
	case fmt.Sprintf("%d\n%s", a.status, a.body) != form || got.Detail == "" || oauth && got.Error == "" || (len(got.Errors) > 0) != (a.status == 422):
		wrong("want the form of an error: %s", form)
	case !slices.ContainsFunc(problems, func(p problem) bool { return p.code == got.Code && p.status == status }):
		wrong("want a code with this status from the table of problems")
	}
}

// contents are the accounts and sessions of a world.
func (w *world) contents() map[string]any { return testedStore{w.memory, w}.contents() }

// note records secrets for leaks.
func (w *world) note(secrets ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range secrets {
		if len(s) >= 5 {
			w.secrets[s] = true
		}
	}
}

func (w *world) noteRequest(r *http.Request) {
	text := need(r.GetBody())(w)
	body, _ := io.ReadAll(text)
	w.note(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if len(r.URL.RawQuery) >= 5 {
		w.mu.Lock()
		w.queries = append(w.queries, r.URL.RawQuery)
		w.mu.Unlock()
	}
	if form, err := url.ParseQuery(string(body)); err == nil {
		w.note(form["password"]...)
		w.note(form["refresh_token"]...)
		w.note(form["token"]...)
	}
	var object map[string]any
	if json.Unmarshal(body, &object) == nil {
		for name, value := range object {
			if s, ok := value.(string); ok && strings.Contains(name, "password") || name == "token" {
				w.note(s)
			}
		}
	}
}

// leaks returns where the log and the responses have a secret of this world. A token may be
// in the response that issues it, and nowhere else.
func (w *world) leaks() (found []string) {
	w.Helper()
	leak := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	w.store.stage(nil)
	users := need(w.store.Users(context.Background(), UserFilter{}, 0, math.MaxInt32))(w)
	for _, u := range users {
		parts := strings.Split(u.PasswordHash, "$")
		w.note(u.PasswordHash, parts[len(parts)-1], parts[len(parts)-2])
	}
	w.note(base64.StdEncoding.EncodeToString([]byte(testKey)), base64.RawURLEncoding.EncodeToString([]byte(testKey)), fmt.Sprintf("%x", testKey))
	for _, a := range w.answers {
		w.note(someAccessToken.FindAllString(a.body, -1)...)
		w.note(someRefreshToken.FindAllString(a.body, -1)...)
	}
	log := w.log.String()
	for _, query := range w.queries {
		if strings.Contains(log, query) {
			leak("the log has the query string %q: %s", query, log)
		}
	}
	for secret := range w.secrets {
		if i := strings.Index(log, secret); i >= 0 {
			leak("the log has the secret %q: %s", secret, log[max(0, i-100):min(len(log), i+len(secret)+100)])
		}
		for _, a := range w.answers {
			handsOut := strings.HasPrefix(a.body, `{"access_token":`) || strings.HasPrefix(a.body, `{"link":`) || a.path == "/docs/mail.json"
			// "secret", the demo password, is also a word that a response may use.
			if secret != "secret" && !handsOut && strings.Contains(fmt.Sprint(a.header)+a.body, secret) {
				leak("%s\n  got %d %v %s\n  with the secret %q in it", a.call, a.status, a.header, a.body, secret)
			}
		}
	}
	return found
}

// A stagedStore is a store that can hold a request before a write, and whose methods a test
// can make fail.
type stagedStore struct {
	Store
	mu     sync.Mutex
	before func(method string) error // if not nil: its error is that of the method
}

func (s *stagedStore) stage(before func(method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// reads reports whether a method of a store only reads. Ready counts as a write.
func reads(method string) bool {
	return strings.HasPrefix(method, "User") || strings.HasPrefix(method, "Session")
}

type holdKey struct{}

type hold struct {
	writes           atomic.Int64 // number of writes up to the one that is held
	reached, release chan struct{}
}

func (s *stagedStore) begins(ctx context.Context, method string) error {
	if h, ok := ctx.Value(holdKey{}).(*hold); ok && !reads(method) && h.writes.Add(-1) == 0 {
		close(h.reached)
		<-h.release
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before == nil {
		return nil
	}
	return s.before(method)
}

func staged[T any](s *stagedStore, ctx context.Context, method string, call func() (T, error)) (result T, err error) {
	if err := s.begins(ctx, method); err != nil {
		return result, err
	}
	return call()
}

func (s *stagedStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	return staged(s, ctx, "CreateUser", func() (User, error) { return s.Store.CreateUser(ctx, by, u) })
}

func (s *stagedStore) User(ctx context.Context, id int64) (User, error) {
	return staged(s, ctx, "User", func() (User, error) { return s.Store.User(ctx, id) })
}

func (s *stagedStore) UserByName(ctx context.Context, name string) (User, error) {
	return staged(s, ctx, "UserByName", func() (User, error) { return s.Store.UserByName(ctx, name) })
}

func (s *stagedStore) Users(ctx context.Context, filter UserFilter, after int64, limit int) ([]User, error) {
	return staged(s, ctx, "Users", func() ([]User, error) { return s.Store.Users(ctx, filter, after, limit) })
}

func (s *stagedStore) UpdateUser(ctx context.Context, by Caller, id int64, change func(*User) error) (User, error) {
	return staged(s, ctx, "UpdateUser", func() (User, error) { return s.Store.UpdateUser(ctx, by, id, change) })
}

func (s *stagedStore) DeleteUser(ctx context.Context, by Caller, id int64) error {
	return errOf(staged(s, ctx, "DeleteUser", func() (string, error) { return "", s.Store.DeleteUser(ctx, by, id) }))
}

func (s *stagedStore) CreateSession(ctx context.Context, session Session) (ended string, err error) {
	return staged(s, ctx, "CreateSession", func() (string, error) { return s.Store.CreateSession(ctx, session) })
}

func (s *stagedStore) Session(ctx context.Context, userID int64, id string) (session Session, u User, err error) {
	if err = s.begins(ctx, "Session"); err == nil {
		session, u, err = s.Store.Session(ctx, userID, id)
	}
	return session, u, err
}

func (s *stagedStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	return staged(s, ctx, "Sessions", func() ([]Session, error) { return s.Store.Sessions(ctx, userID) })
}

func (s *stagedStore) UpdateSession(ctx context.Context, userID int64, id string, change func(*Session, User) error) (session Session, u User, err error) {
	if err = s.begins(ctx, "UpdateSession"); err == nil {
		session, u, err = s.Store.UpdateSession(ctx, userID, id, change)
	}
	return session, u, err
}

func (s *stagedStore) EndSession(ctx context.Context, by Caller, userID int64, id string) error {
	return errOf(staged(s, ctx, "EndSession", func() (string, error) { return "", s.Store.EndSession(ctx, by, userID, id) }))
}

func (s *stagedStore) EndSessions(ctx context.Context, by Caller, userID int64, keep string) error {
	return errOf(staged(s, ctx, "EndSessions", func() (string, error) { return "", s.Store.EndSessions(ctx, by, userID, keep) }))
}

func (s *stagedStore) Ready(ctx context.Context) error {
	return errOf(staged(s, ctx, "Ready", func() (string, error) { return "", s.Store.Ready(ctx) }))
}
