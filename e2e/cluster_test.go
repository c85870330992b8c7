package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A cluster is two copies of the server and three members of etcd. Each is a process on
// this machine and may be killed.
type cluster struct {
	etcd   *etcdCluster
	copies []*clusterCopy
}

func startCluster(t testing.TB, args ...string) *cluster {
	t.Helper()
	c := &cluster{etcd: startEtcd(t, 3)}
	for range 2 {
		c.copies = append(c.copies, startCopy(t, nil, append(args, "-store", c.etcd.address())...))
	}
	return c
}

// url returns the URL of one of the copies.
func (c *cluster) url(n int) string { return c.copies[n%len(c.copies)].url }

func TestClusterAdminIsMadeOnce(t *testing.T) {
	etcd := startEtcd(t, 3)
	for round := range 3 {
		store := etcd.address() + fmt.Sprint("/round", round)
		var copies []*clusterCopy
		for range 2 {
			copies = append(copies, launchCopy(t, nil, "-store", store, "-admin", "root"))
		}
		var told strings.Builder
		for _, c := range copies {
			c.wait(t)
		}
		for _, c := range copies {
			c.stop(t)
			told.WriteString(c.stdout.String())
		}
		if strings.Count(told.String(), "created the admin root") != 1 {
			t.Errorf("two copies started at once print:\n%s\nwant one created admin", told.String())
		}
	}
	store := etcd.address() + "/round0"
	reset := clusterCommand(t, []string{"NEW_PASSWORD=correct horse"}, "-store", store, "-reset-password", "root")
	if out, err := reset.CombinedOutput(); err != nil {
		t.Fatalf("-reset-password: %v\n%s", err, out)
	}
	c := startCopy(t, nil, "-store", store)
	u := clusterLogin(t, c.url, "root")
	if a := u.get(c.url, "/users/"); a.status != 200 || len(a.list) != 1 {
		t.Errorf("GET /users/: %v, want one account", a)
	}
}

// TestClusterImport: an import from a file keeps the accounts, their IDs and passwords.
func TestClusterImport(t *testing.T) {
	etcd := startEtcd(t, 1)
	file := filepath.Join(t.TempDir(), "users.jsonl")
	old := startCopy(t, []string{"ADMIN_PASSWORD=correct horse"}, "-store", file, "-admin", "root")
	for n := range 3 {
		clusterRegister(t, old.url, fmt.Sprint("user", n))
	}
	before := clusterLogin(t, old.url, "root").get(old.url, "/users/").list
	old.stop(t)

	run := func(args ...string) (string, int) {
		cmd := clusterCommand(t, nil, args...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, status := run("-store", etcd.address(), "-import", file); status != 0 || out != "imported 4 accounts\n" {
		t.Fatalf("-import: status %d, %s", status, out)
	}
	if out, status := run("-store", etcd.address(), "-import", file); status != 2 || out != "stdauth: -import: the store already holds accounts\n" {
		t.Errorf("a second -import: status %d, %s", status, out)
	}
	c := startCopy(t, nil, "-store", etcd.address())
	after := clusterLogin(t, c.url, "root").get(c.url, "/users/").list
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the accounts before the import: %v\nafter: %v", before, after)
	}
	if a := clusterCall("POST", c.url+"/users/", "", map[string]string{"username": "next", "password": "correct horse"}); a.body["id"] != 5.0 {
		t.Errorf("the next account: %v, want ID 5", a)
	}
}

// TestClusterWithoutMajority: two of three members die. Each request gets a 503 within a
// few seconds, and when one of the members is back, requests succeed again.
func TestClusterWithoutMajority(t *testing.T) {
	c := startCluster(t)
	u := clusterRegister(t, c.url(0), "johndoe")
	load := c.startLoad(t, 4)
	time.Sleep(time.Second)
	c.etcd.nodes[0].kill()
	c.etcd.nodes[1].kill()
	slowest := time.Duration(0)
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for n := range 2 {
			for _, path := range []string{"/users/me/", "/readyz"} {
				start := time.Now()
				a := u.get(c.url(n), path)
				slowest = max(slowest, time.Since(start))
				if a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("Content-Type") != "application/problem+json" {
					t.Fatalf("GET %s without a majority: %v %v", path, a, a.header)
				}
			}
		}
	}
	if slowest > 6*time.Second {
		t.Errorf("the slowest response took %v, want at most 6s", slowest)
	}
	c.etcd.nodes[1].start(t)
	start := time.Now()
	within(t, 30*time.Second, "requests succeed after the member was started", func() bool {
		return u.get(c.url(0), "/readyz").status == 200 && u.get(c.url(1), "/users/me/").status == 200
	})
	t.Logf("the slowest 503 took %v; requests succeeded %v after the member was started", slowest.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
	time.Sleep(time.Second)
	load.stop(t)
}

// A clusterLoad has clients. Each changes its account, refreshes its token, and records
// the acknowledged changes.
type clusterLoad struct {
	c                         *cluster
	end                       chan struct{}
	wg                        sync.WaitGroup
	acknowledged, unavailable atomic.Int64

	mu     sync.Mutex
	last   time.Time
	pause  time.Duration
	failed []string
}

func (c *cluster) startLoad(t testing.TB, clients int) *clusterLoad {
	t.Helper()
	l := &clusterLoad{c: c, end: make(chan struct{}), last: time.Now()}
	users := make([]*clusterUser, clients)
	var wg sync.WaitGroup
	for n := range users {
		wg.Go(func() { users[n] = clusterRegister(t, c.url(n), fmt.Sprintf("load%d", n)) })
	}
	wg.Wait()
	l.last = time.Now()
	for n, u := range users {
		l.wg.Go(func() { l.client(n, u) })
	}
	return l
}

// client makes one change after the other until the end, and then checks that the
// acknowledged ones are there.
func (l *clusterLoad) client(n int, u *clusterUser) {
	acknowledged, sent := 0, 0
	for turn := 0; ; turn++ {
		select {
		case <-l.end:
			l.check(n, u, acknowledged, sent)
			return
		default:
		}
		at := l.c.url(n + turn)
		var a clusterAnswer
		if turn%3 == 0 {
			if a = clusterRefresh(at, u.refresh); a.status == 200 {
				u.take(a)
			}
		} else {
			sent++
			if a = clusterCall("PATCH", at+"/users/me/", u.access, map[string]string{"full_name": strconv.Itoa(sent)}); a.status == 200 {
				acknowledged = sent
			}
		}
		switch a.status {
		case 200:
			l.success()
		case 503:
			l.unavailable.Add(1)
		case 429: // the account has made all the changes of this minute
			time.Sleep(50 * time.Millisecond)
		case 0: // the copy was killed
		default:
			l.fail("client %d at %s: %v", n, at, a)
			return
		}
	}
}

func (l *clusterLoad) success() {
	l.acknowledged.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.pause = max(l.pause, now.Sub(l.last))
	l.last = now
}

func (l *clusterLoad) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pause
}

func (l *clusterLoad) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf(format, args...))
}

func (l *clusterLoad) check(n int, u *clusterUser, acknowledged, sent int) {
	copies := 0
	for i := range l.c.copies {
		a := u.get(l.c.url(i), "/users/me/")
		if a.status == 0 {
			continue
		}
		copies++
		name, _ := a.body["full_name"].(string)
		if got, err := strconv.Atoi(name); err != nil || got < acknowledged || got > sent {
			l.fail("client %d: change %d was acknowledged and %d was sent, and the account is %v", n, acknowledged, sent, a)
		}
		if a := clusterRefresh(l.c.url(i), u.refresh); a.status != 200 {
			l.fail("client %d: the newest refresh token is refused: %v", n, a)
		}
	}
	if copies == 0 || acknowledged == 0 {
		l.fail("client %d: %d copies respond, and %d changes are acknowledged; want some of each", n, copies, acknowledged)
	}
}

func (l *clusterLoad) stop(t testing.TB) {
	t.Helper()
	close(l.end)
	l.wg.Wait()
	for _, what := range l.failed {
		t.Error(what)
	}
}

// A clusterUser has the tokens of a session.
type clusterUser struct {
	access, refresh string
}

const clusterPassword = "correct horse"

func clusterRegister(t testing.TB, at, name string) *clusterUser {
	t.Helper()
	if a := clusterCall("POST", at+"/users/", "", map[string]string{"username": name, "password": clusterPassword}); a.status != 201 {
		t.Errorf("registration of %s: %v", name, a)
	}
	return clusterLogin(t, at, name)
}

func clusterLogin(t testing.TB, at, name string) *clusterUser {
	t.Helper()
	u := &clusterUser{}
	a := clusterCall("POST", at+"/token", "", url.Values{"username": {name}, "password": {clusterPassword}})
	if a.status != 200 {
		t.Errorf("login of %s: %v", name, a)
		return u
	}
	u.take(a)
	return u
}

func (u *clusterUser) take(a clusterAnswer) {
	u.access, u.refresh = a.body["access_token"].(string), a.body["refresh_token"].(string)
}

func (u *clusterUser) get(at, path string) clusterAnswer {
	return clusterCall("GET", at+path, u.access, nil)
}

func clusterRefresh(at, token string) clusterAnswer {
	return clusterCall("POST", at+"/token", "", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// A clusterAnswer is a response. Its status is 0 if there is none.
type clusterAnswer struct {
	status int
	header http.Header
	body   map[string]any
	list   []any
	text   string
	err    error // if there is no response
}

func (a clusterAnswer) String() string { return fmt.Sprint(a.status, " ", a.text) }

var clusterClient = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

func clusterCall(method, address, token string, in any) clusterAnswer {
	return clusterSend(clusterClient, clusterRequest(method, address, token, in))
}

func clusterRequest(method, address, token string, in any) *http.Request {
	var body io.Reader = http.NoBody
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case url.Values:
		body, kind = strings.NewReader(in.Encode()), "application/x-www-form-urlencoded"
	default:
		text, err := json.Marshal(in)
		if err != nil {
			panic(err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, address, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", kind)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func clusterSend(client *http.Client, r *http.Request) clusterAnswer {
	w, err := client.Do(r)
	if err != nil {
		return clusterAnswer{text: err.Error(), err: err}
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		return clusterAnswer{text: err.Error(), err: err}
	}
	a := clusterAnswer{status: w.StatusCode, header: w.Header, text: string(text)}
	if json.Unmarshal(text, &a.body) != nil {
		json.Unmarshal(text, &a.list)
	}
	return a
}

func clusterTrusting(t testing.TB, pem []byte) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%q is not a certificate", pem)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// TestClusterBadMember: of two addresses of etcd, the one that a copy uses begins to respond
// with something else. The copy goes on with the other one, and no request fails.
func TestClusterBadMember(t *testing.T) {
	upstream := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: startEtcd(t, 1).nodes[0].Client})
	var asked atomic.Int64 // the address that was asked last
	var bad [2]atomic.Pointer[http.HandlerFunc]
	var store []string
	for i := range bad {
		address := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Store(int64(i))
			if respond := bad[i].Load(); respond != nil {
				(*respond)(w, r)
				return
			}
			upstream.ServeHTTP(w, r)
		}))
		t.Cleanup(address.Close)
		store = append(store, address.Listener.Addr().String())
	}
	c := startCopy(t, nil, "-store", "etcd://"+strings.Join(store, ","))
	u := clusterRegister(t, c.url, "johndoe")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the copy followed a redirect") }))
	t.Cleanup(elsewhere.Close)
	for name, respond := range map[string]http.HandlerFunc{
		"404":                  http.NotFound,
		"http.StatusForbidden": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "forbidden", http.StatusForbidden) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"{}": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") },
		"half a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		},
	} {
		now := asked.Load()
		bad[now].Store(&respond)
		failed := 0
		for range 7 {
			if a := u.get(c.url, "/users/me/"); a.status != 200 {
				failed++
			}
		}
		if a := clusterCall("PATCH", c.url+"/users/me/", u.access, map[string]string{"full_name": name}); a.status != 200 {
			failed++
		}
		if failed > 0 || asked.Load() == now {
			t.Errorf("of 8 requests while a member responds with %s, %d failed", name, failed)
		}
		bad[now].Store(nil)
	}
}

// TestClusterClocks: the clocks of two copies differ. Up to 30 s nobody notices. Beyond
// that, a copy refuses what it cannot judge, and keeps no session for longer.
func TestClusterClocks(t *testing.T) {
	store := startEtcd(t, 1).address()
	skewed := buildSkewed(t)
	exact := startCopy(t, nil, "-store", store)
	clusterRegister(t, exact.url, "johndoe")
	for _, test := range []struct {
		ahead                                   string
		token, early, current, late, afterwards int
	}{
		{ahead: "25s", token: 200, early: 200, current: 200, late: 200, afterwards: 200},
		{ahead: "10m", token: 401, early: 400, current: 200, late: 400, afterwards: 400},
	} {
		t.Run("the clock of another copy is "+test.ahead+" ahead", func(t *testing.T) {
			other := launchCopyOf(t, skewed, []string{"STDAUTH_TEST_SKEW=" + test.ahead}, "-store", store)
			other.wait(t)
			want := func(what string, a clusterAnswer, status int) {
				t.Helper()
				if a.status != status {
					t.Errorf("%s: %v, want %d", what, a, status)
				}
			}
			here, there := clusterLogin(t, exact.url, "johndoe"), clusterLogin(t, other.url, "johndoe")
			want("the token of the exact copy at the other", here.get(other.url, "/users/me/"), 200)
			want("the token of the other copy at the exact one", there.get(exact.url, "/users/me/"), test.token)

			first := there.refresh
			there.take(clusterRefresh(other.url, first))
			want("the exact copy gets a token that the other has just replaced", clusterRefresh(exact.url, first), test.early)
			want("the exact copy gets the token that replaced it", clusterRefresh(exact.url, there.refresh), test.current)

			first = here.refresh
			here.take(clusterRefresh(exact.url, first))
			want("the other copy gets a token that the exact one has just replaced", clusterRefresh(other.url, first), test.late)
			want("the exact copy gets the token that replaced it", clusterRefresh(exact.url, here.refresh), test.afterwards)
		})
	}
}

// buildSkewed builds the server with a clock that is ahead by STDAUTH_TEST_SKEW.
func buildSkewed(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("../*.go")
	etcdMust(t, err)
	replaced := map[string]string{}
	for _, file := range append(files, "../skew.go") {
		code := []byte("package main\n\nimport (\n\t\"os\"\n\t\"time\"\n)\n\n" +
			"var skew, _ = time.ParseDuration(os.Getenv(\"STDAUTH_TEST_SKEW\"))\n\n" +
			"func skewedNow() time.Time { return time.Now().Add(skew) }\n\n" +
			"func skewedSince(t time.Time) time.Duration { return skewedNow().Sub(t) }\n\n" +
			"func skewedUntil(t time.Time) time.Duration { return t.Sub(skewedNow()) }\n")
		if file != "../skew.go" {
			original, err := os.ReadFile(file)
			etcdMust(t, err)
			code = regexp.MustCompile(`\btime\.(Now|Since|Until)\b`).ReplaceAll(original, []byte("skewed$1"))
			if bytes.Equal(code, original) {
				continue
			}
			code = append(code, "\nvar _ time.Time\n"...)
		}
		path, err := filepath.Abs(file)
		etcdMust(t, err)
		replaced[path] = filepath.Join(dir, filepath.Base(file))
		etcdMust(t, os.WriteFile(replaced[path], code, 0o600))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	etcdMust(t, err)
	etcdMust(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "skewed"), ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "skewed")
}
