package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
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
	"time"
)

var soakFor = flag.Duration("soak", 4*time.Second, "duration of the soak test")

// TestSoak: people register, log in, refresh, replay, change their account, log out and
// delete it, for the duration in -soak. In the first half the server is stopped or killed
// (kill -9) again and again, and in the second half it runs on. All acknowledged changes
// must stay, and at the end the server must have no more memory, goroutines and open files
// than in the middle.
//
//	go -C e2e test -v -run TestSoak -soak 3m
func TestSoak(t *testing.T) {
	k := newSoak(t)
	var people sync.WaitGroup
	quit := make(chan struct{})
	for n := range 6 {
		people.Go(func() {
			for life := 0; !t.Failed(); life++ {
				select {
				case <-quit:
					return
				default:
					k.live(fmt.Sprintf("person.%d.%d", n, life))
				}
			}
		})
	}
	// A slow machine gets more time: a number of lives must end between two restarts.
	after := func(d time.Duration, lives int64) {
		lives += k.lives.Load()
		for end := time.Now().Add(d); !t.Failed() && (time.Now().Before(end) || k.lives.Load() < lives && time.Since(end) < 2*time.Minute); {
			time.Sleep(10 * time.Millisecond)
		}
	}

	ends := max(2, min(20, int(*soakFor/(6*time.Second))))
	for n := range ends {
		after(*soakFor/2/time.Duration(ends), 2)
		k.restart(n%2 == 1)
		k.check(k.retired())
	}
	after(*soakFor/8, 6) // caches and pools fill
	middle := k.measure()
	after(*soakFor*3/8, 6)
	end := k.measure()
	close(quit)
	people.Wait()

	k.client.CloseIdleConnections()
	all := k.retired()
	k.check(all)
	k.restart(false)
	k.check(all)

	t.Logf("%v: %d restarts, %d lives, %d accounts checked; requests: %v", *soakFor, ends+1, k.lives.Load(), len(all), k.requests())
	t.Logf("%-12s %8s %8s", "", "middle", "end")
	for _, row := range []struct {
		what             string
		middle, end, may int // the allowed growth
	}{
		{"RSS, KB", middle.rss, end.rss, middle.rss/4 + 8<<10},
		{"heap, KB", middle.heap, end.heap, middle.heap/4 + 2<<10},
		{"goroutines", middle.goroutines, end.goroutines, 20},
		{"open files", middle.files, end.files, 20},
	} {
		t.Logf("%-12s %8d %8d", row.what, row.middle, row.end)
		if row.end > row.middle+row.may {
			t.Errorf("%s: %d in the middle and %d at the end, want no growth", row.what, row.middle, row.end)
		}
	}
}

// A soak is a server that is restarted on the same file, with the memory of its clients.
type soak struct {
	t      *testing.T
	client *http.Client
	file   string
	server atomic.Pointer[server]
	admin  string // an access token, which survives every restart
	lives  atomic.Int64

	mu    sync.Mutex
	past  []*person
	calls map[string]int
}

func newSoak(t *testing.T) *soak {
	k := &soak{t: t, file: filepath.Join(t.TempDir(), "users.jsonl"), calls: map[string]int{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20}, Timeout: time.Minute}}
	t.Cleanup(k.client.CloseIdleConnections)
	k.start()
	k.admin, _ = logIn(t, k.server.Load(), "root", "a password for tests")
	return k
}

func (k *soak) start() {
	k.t.Helper()
	k.server.Store(startServer(k.t, "SECRET_KEY="+testKey, "ADMIN_PASSWORD=a password for tests",
		"-store", k.file, "-admin", "root", "-debug-addr", "127.0.0.1:0", "-trusted-proxy", "127.0.0.1/32"))
}

// restart ends the server during requests and starts it again.
func (k *soak) restart(kill bool) {
	k.t.Helper()
	if s := k.server.Load(); kill {
		s.kill()
	} else {
		s.stop(k.t)
	}
	k.start()
}

// A person is one account with its acknowledged changes.
type person struct {
	name, password string
	id             int64
	fullName       string
	sessions       []*login
	gone           bool

	// lost is the call without a response, or "". It may or may not have taken effect.
	// It is always the last call.
	lost   string
	wanted string   // the full name in that call
	used   []*login // the sessions that the call may have changed
}

// A login is one session with its newest tokens.
type login struct {
	access, refresh string
	ended           bool
}

// errLost is the error of a request without a response, as the server has ended.
var errLost = errors.New("no response")

// live is a life: all requests of a person, up to the deletion of the account or nearly so.
func (k *soak) live(name string) {
	p := &person{name: name, password: "a password for person " + strings.ReplaceAll(name, ".", "-")}
	err := k.liveOn(p)
	switch {
	case errors.Is(err, errLost):
		k.awaitNext()
	case err != nil:
		k.t.Errorf("%s: %v", name, err)
	default:
		k.lives.Add(1)
	}
	if p.id != 0 {
		k.mu.Lock()
		k.past = append(k.past, p)
		k.mu.Unlock()
	}
}

func (k *soak) liveOn(p *person) error {
	if err := k.register(p); err != nil {
		return err
	}
	if err := k.want(401, "POST", "/token", "", url.Values{"username": {p.name}, "password": {"not " + p.password}}); err != nil {
		return err
	}
	for range 2 {
		if err := k.logIn(p); err != nil {
			return err
		}
	}
	first, second := p.sessions[0], p.sessions[1]
	for n := range 5 {
		if err := k.rename(p, fmt.Sprintf("Name %d of %s", n, p.name)); err != nil {
			return err
		}
		if err := k.renew(p, first); err != nil {
			return err
		}
		if err := k.listed(p, first); err != nil {
			return err
		}
	}
	if err := k.end(p, second, "replay", func() error { return k.replay(second) }); err != nil {
		return err
	}
	if rand.IntN(4) == 0 {
		return nil // the account stays with a live session
	}
	if rand.IntN(2) == 0 {
		if err := k.end(p, first, "log out", func() error {
			return k.want(200, "POST", "/revoke", "", url.Values{"token": {first.refresh}})
		}); err != nil {
			return err
		}
		if err := k.logIn(p); err != nil {
			return err
		}
		first = p.sessions[2]
	}
	p.lost, p.used = "delete", nil
	if err := k.want(204, "DELETE", "/users/me/", first.access, map[string]string{"password": p.password}); err != nil {
		return err
	}
	p.lost, p.gone = "", true
	return nil
}

func (k *soak) register(p *person) error {
	var made struct{ ID int64 }
	if err := k.call(201, &made, "POST", "/users/", "", map[string]string{"username": p.name, "password": p.password}); err != nil {
		return err
	}
	p.id = made.ID
	return nil
}

type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

func (k *soak) logIn(p *person) error {
	var got tokens
	if err := k.call(200, &got, "POST", "/token", "", url.Values{"username": {p.name}, "password": {p.password}}); err != nil {
		return err
	}
	p.sessions = append(p.sessions, &login{access: got.AccessToken, refresh: got.RefreshToken})
	return nil
}

func (k *soak) rename(p *person, name string) error {
	p.lost, p.wanted, p.used = "rename", name, nil
	if err := k.want(200, "PATCH", "/users/me/", p.sessions[0].access, map[string]string{"full_name": name}); err != nil {
		return err
	}
	p.lost, p.fullName = "", name
	return nil
}

// againFor is well within the grace period of a minute of a refresh token.
const againFor = 5 * time.Second

// renew refreshes a session. If the response is lost, it sends the request again to the
// next server, as any client would. Both responses have the same successor.
func (k *soak) renew(p *person, s *login) error {
	p.lost, p.used = "refresh", []*login{s}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.refresh}}
	start := time.Now()
	var got, again tokens
	err := k.call(200, &got, "POST", "/token", "", form)
	if errors.Is(err, errLost) {
		k.awaitNext()
		if time.Since(start) > againFor {
			return err
		}
		err = k.call(200, &got, "POST", "/token", "", form)
	}
	if err != nil {
		return err
	}
	// A second tab sends the same request.
	if time.Since(start) < againFor {
		if err := k.call(200, &again, "POST", "/token", "", form); err != nil {
			return err
		}
		if again.RefreshToken != got.RefreshToken {
			return fmt.Errorf("one refresh token has the successors %s and %s", got.RefreshToken, again.RefreshToken)
		}
	}
	p.lost, s.access, s.refresh = "", got.AccessToken, got.RefreshToken
	return nil
}

// replay uses a refresh token that was replaced twice, as a thief would.
func (k *soak) replay(s *login) error {
	stolen := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.refresh}}
	next := stolen
	for range 2 {
		time.Sleep(1100 * time.Millisecond) // within a second, a token gives itself again
		var got tokens
		if err := k.call(200, &got, "POST", "/token", "", next); err != nil {
			return err
		}
		s.access, s.refresh = got.AccessToken, got.RefreshToken
		next = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.refresh}}
	}
	return k.want(400, "POST", "/token", "", stolen)
}

// end ends a session in one of several ways.
func (k *soak) end(p *person, s *login, how string, do func() error) error {
	p.lost, p.used = how, []*login{s}
	if err := do(); err != nil {
		return err
	}
	p.lost, s.ended = "", true
	return k.want(401, "GET", "/users/me/", s.access, nil)
}

// listed checks the sessions and the full name that a person reads.
func (k *soak) listed(p *person, s *login) error {
	var me struct {
		FullName string `json:"full_name"`
	}
	if err := k.call(200, &me, "GET", "/users/me/", s.access, nil); err != nil {
		return err
	}
	if me.FullName != p.fullName {
		return fmt.Errorf("GET /users/me/ has the full name %q, want %q", me.FullName, p.fullName)
	}
	var list []struct{ Current bool }
	if err := k.call(200, &list, "GET", "/users/me/sessions", s.access, nil); err != nil {
		return err
	}
	if len(list) != 2 || !list[0].Current || list[1].Current {
		return fmt.Errorf("GET /users/me/sessions has %v, want two and the first the current one", list)
	}
	return nil
}

// retired returns the people whose lives have ended.
func (k *soak) retired() []*person {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.past)
}

// check compares the acknowledged changes of people with the server.
func (k *soak) check(people []*person) {
	k.t.Helper()
	for _, p := range people {
		if err := k.checkOne(p); err != nil {
			k.t.Errorf("%s (lost response: %q): %v", p.name, p.lost, err)
		}
	}
}

func (k *soak) checkOne(p *person) error {
	var now struct {
		Username string
		FullName string `json:"full_name"`
	}
	path := fmt.Sprintf("/users/%d", p.id)
	if p.gone {
		return k.want(404, "GET", path, k.admin, nil)
	}
	err := k.call(200, &now, "GET", path, k.admin, nil)
	if err != nil && p.lost == "delete" {
		return k.want(404, "GET", path, k.admin, nil)
	}
	if err != nil {
		return err
	}
	if now.Username != p.name || now.FullName != p.fullName && !(p.lost == "rename" && now.FullName == p.wanted) {
		return fmt.Errorf("GET %s = %+v, want %s, %q", path, now, p.name, p.fullName)
	}
	for i, s := range p.sessions {
		if p.lost != "" && slices.Contains(p.used, s) {
			continue // the outcome is unknown
		}
		var got struct{ Active bool }
		if err := k.call(200, &got, "POST", "/introspect", k.admin, url.Values{"token": {s.refresh}}); err != nil {
			return err
		}
		if got.Active == s.ended {
			return fmt.Errorf("session %d: active is %t, want %t", i, got.Active, !s.ended)
		}
	}
	return nil
}

// want is like call, without reading the response.
func (k *soak) want(status int, method, path, token string, body any) error {
	return k.call(status, nil, method, path, token, body)
}

// call sends a form or an object. The response must have the wanted status, and is decoded
// into v.
func (k *soak) call(want int, v any, method, path, token string, body any) error {
	var text []byte
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case url.Values:
		text, kind = []byte(b.Encode()), "application/x-www-form-urlencoded"
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, k.server.Load().URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// One network registers only 30 accounts an hour.
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), rand.IntN(256)))
	resp, err := k.client.Do(req)
	if err != nil {
		return errLost
	}
	defer resp.Body.Close()
	response, err := io.ReadAll(resp.Body)
	if err != nil {
		return errLost
	}
	k.mu.Lock()
	k.calls[fmt.Sprint(resp.StatusCode)]++
	k.mu.Unlock()
	if resp.StatusCode != want {
		return fmt.Errorf("%s %s = %d %s, want %d", method, path, resp.StatusCode, response, want)
	}
	if v != nil {
		return json.Unmarshal(response, v)
	}
	return nil
}

// requests returns the numbers of responses by status.
func (k *soak) requests() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for _, status := range slices.Sorted(maps.Keys(k.calls)) {
		list = append(list, fmt.Sprintf("%d of %s", k.calls[status], status))
	}
	return strings.Join(list, ", ")
}

// awaitNext waits until a server responds again.
func (k *soak) awaitNext() {
	for range 3000 {
		if resp, err := k.client.Get(k.server.Load().URL + "/healthz"); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	k.t.Error("no server responds")
}

// usage has the resources of the process of the server.
type usage struct{ rss, heap, goroutines, files int }

var (
	residentSize    = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)
	heapInUse       = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`)
	totalGoroutines = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

// measure returns the usage after a garbage collection.
func (k *soak) measure() usage {
	k.t.Helper()
	s := k.server.Load()
	number := func(from *regexp.Regexp, text []byte) int {
		found := from.FindSubmatch(text)
		if found == nil {
			k.t.Fatalf("%v is not in\n%s", from, text)
		}
		n, _ := strconv.Atoi(string(found[1]))
		return n
	}
	profile := func(name string) []byte {
		resp, err := http.Get(debugURL(k.t, s) + "/debug/pprof/" + name)
		if err != nil {
			k.t.Fatal(err)
		}
		return readAll(k.t, resp, http.StatusOK)
	}
	heap := profile("heap?gc=1&debug=1")
	process := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	status, err := os.ReadFile(process + "status")
	if err != nil {
		k.t.Fatal(err)
	}
	files, err := os.ReadDir(process + "fd")
	if err != nil {
		k.t.Fatal(err)
	}
	return usage{number(residentSize, status), number(heapInUse, heap) >> 10, number(totalGoroutines, profile("goroutine?debug=1")), len(files)}
}
