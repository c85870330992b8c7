package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// This file simulates a company that uses the server for a year. Its people log in,
// refresh, lose responses, forget passwords, join and leave; thieves use stolen tokens;
// the server is restarted with rotated keys. A model has the rules of the contract for
// tokens and shares no code with the server. Each response must be that of the model, and
// each evening the sessions, the memory and the log are compared.

var years = flag.Int("years", 1, "number of simulated years")

const (
	companySize = 200
	dailyWork   = 0.5 // of the people, on a working day
)

func TestAYearOfASmallCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		days := 365 * *years
		if testing.Short() {
			days = 60
		}
		c := newCompany(t)
		for day := range days {
			c.live(day)
			c.evening()
			if t.Failed() {
				t.Fatalf("on day %d, after %d requests", day, c.requests)
			}
		}
		for _, t := range c.tokens {
			c.verify(t)
		}
		t.Logf("%d days: %v", days, c)
		for what, n := range c.happened {
			if n == 0 && !testing.Short() {
				t.Errorf("the simulation has no event %q, want some", what)
			}
		}
	})
}

// A company is a world with the tokens and passwords of its people and of the thieves.
type company struct {
	*world
	rng      *rand.Rand
	people   []*person    // including those who have left
	boss     *person      // an admin who never leaves
	tokens   []*heldToken // all tokens ever issued
	verified int          // number of tokens verified by the last evening
	stolen   []*device
	key      int                       // the signing key, counted from 0
	oldest   int                       // the oldest key that verifies
	failures map[string]wrongPasswords // by address, and by address and username
	expired  [7]int                    // sessions that expired on each of the last days
	known    map[*companySession]bool  // live on the last evening
	happened map[string]int            // events; a year must have each of them
	logged   map[string]int            // how often the log has said what
	requests int
}

type person struct {
	id             int64
	name, password string
	ip             string
	disabled, left bool
	admin          bool
	sessions       []*companySession // oldest first
	devices        []*device
}

// A companySession is a session by the rules of the contract.
type companySession struct {
	of            *person
	id            string
	created, used time.Time
	generation    int64
	ended         bool
}

// A heldToken is an access token if its generation is 0.
type heldToken struct {
	text       string
	of         *companySession
	generation int64
	expires    time.Time // of an access token
	key        int
}

// A device has the newest tokens that it received.
type device struct {
	access, refresh *heldToken
	owner           *person
	ip              string
}

// wrongPasswords counts the wrong passwords in a row.
type wrongPasswords struct {
	count int
	until time.Time // the end of the wait
}

func newCompany(t *testing.T) *company {
	c := &company{
		world: newWorld(t), rng: rand.New(rand.NewPCG(1, 0)), failures: map[string]wrongPasswords{}, known: map[*companySession]bool{},
		happened: map[string]int{}, logged: map[string]int{},
	}
	for _, what := range []string{
		"a login", "a wrong password", "a guess that must wait", "a refresh", "a retry after a lost response", "a replay",
		"a thief gets tokens", "a thief causes a replay", "a session expired", "a session above the limit", "a rotation of the keys",
		"a token of a removed key", "a login of a disabled account", "a token of a disabled account", "a new password", "a reset password",
		"a logout", "other sessions ended", "an account disabled", "an account enabled", "an account deleted", "an account deletes itself",
		"an admin promoted", "an admin demoted", "a user refused as an admin", "an account logged out by an admin", "a hire",
	} {
		c.happened[what] = 0
	}
	c.boss = &person{id: 2, name: "admin", password: "secret", ip: "10.0.0.2", admin: true}
	c.people = []*person{{id: 1, name: "johndoe", password: "secret", ip: "10.0.0.1"}, c.boss}
	c.boss.devices = []*device{{owner: c.boss, ip: c.boss.ip}}
	for range companySize {
		c.hire()
	}
	return c
}

func (c *company) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d accounts, %d sessions and %d tokens", c.requests, len(c.people), len(c.sessions()), len(c.tokens))
	fmt.Fprintf(&b, ", %d of them live", len(slices.DeleteFunc(slices.Clone(c.tokens), func(t *heldToken) bool { return !c.isLive(t) })))
	for _, what := range slices.Sorted(maps.Keys(c.happened)) {
		fmt.Fprintf(&b, "\n%7d  %s", c.happened[what], what)
	}
	return b.String()
}

// The methods below are the rules of the model.

func (s *companySession) expires() time.Time {
	idle, old := s.used.Add(30*24*time.Hour), s.created.Add(90*24*time.Hour)
	return slices.MinFunc([]time.Time{idle, old}, time.Time.Compare)
}

// isThere reports whether the session exists. One of a disabled account does, but cannot
// be used.
func (s *companySession) isThere() bool {
	return !s.ended && !s.of.left && time.Now().Before(s.expires())
}

func (c *company) isLive(t *heldToken) bool {
	if !t.of.isThere() || t.of.of.disabled || t.key < c.oldest {
		return false
	}
	if t.generation == 0 {
		return time.Now().Unix() < t.expires.Unix()
	}
	return t.generation == t.of.generation || t.superseded()
}

// superseded reports whether a refresh token was replaced within the grace period.
func (t *heldToken) superseded() bool {
	return t.generation == t.of.generation-1 && time.Since(t.of.used) < time.Minute
}

func (p *person) endSessions() {
	for _, s := range p.sessions {
		s.ended = true
	}
}

func (p *person) there() (list []*companySession) {
	for _, s := range p.sessions {
		if s.isThere() {
			list = append(list, s)
		}
	}
	return list
}

func (c *company) sessions() (list []*companySession) {
	for _, p := range c.people {
		list = append(list, p.there()...)
	}
	return list
}

// forget is what a new password does to the throttle.
func (c *company) forget(name string) {
	maps.DeleteFunc(c.failures, func(key string, _ wrongPasswords) bool { return strings.HasSuffix(key, " "+name) })
}

// mustWait reports whether another attempt at a password gets a 429.
func (c *company) mustWait(name, ip string) bool {
	now := time.Now()
	return now.Before(c.failures[ip+" "+name].until) || now.Before(c.failures[ip].until)
}

func (c *company) tried(name, ip string, right bool) {
	for key, free := range map[string]int{ip + " " + name: 5, ip: 100} {
		if right {
			delete(c.failures, key)
			continue
		}
		f := c.failures[key]
		f.count++
		if f.count >= free {
			f.until = time.Now().Add(min(time.Second<<min(f.count-free, 10), 5*time.Minute))
		}
		c.failures[key] = f
	}
}

// The methods below send requests. Each response is compared with the rules.

// ask sends a request, with an access token if t is not nil, and returns the body of the
// response, which must have the status.
func (c *company) ask(t *heldToken, ip, call, body string, status int) string {
	c.requests++
	call += " from " + ip
	if t != nil {
		c.vars["token"] = t.text
		call += " as token"
	}
	rec := httptest.NewRecorder() // and not send, which would keep every response
	c.handler.ServeHTTP(rec, c.request(c.Context(), call+" "+body))
	if rec.Code != status {
		c.Fatalf("%v: %s %s\n  got %d %s\n  want %d", time.Now(), call, body, rec.Code, rec.Body, status)
	}
	return rec.Body.String()
}

// as sends a request with an access token, and returns whether the rules accept the token.
// If they do, the response must have the given status, and otherwise a 400 or 401.
func (c *company) as(t *heldToken, ip, call, body string, status int) bool {
	passes := c.isLive(t)
	switch {
	case passes:
	case t.key >= c.oldest && t.of.isThere() && t.of.of.disabled && time.Now().Unix() < t.expires.Unix():
		status = 400
		c.happened["a token of a disabled account"]++
	default:
		status = 401
	}
	if t.key < c.oldest {
		c.happened["a token of a removed key"]++
	}
	c.ask(t, ip, call, body, status)
	return passes
}

func (c *company) whoAmI(t *heldToken, ip string) bool {
	return c.as(t, ip, "GET /users/me/", "", 200)
}

// login returns whether d has tokens afterwards.
func (c *company) login(d *device, name, password string) bool {
	p, status := d.owner, 200
	right := p != nil && !p.left && password == p.password
	switch {
	case c.mustWait(name, d.ip):
		status = 429
		c.happened["a guess that must wait"]++
	case !right:
		status = 401
		c.happened["a wrong password"]++
	case p.disabled:
		status = 400
		c.happened["a login of a disabled account"]++
	default:
		c.happened["a login"]++
		if there := p.there(); len(there) == 100 {
			slices.MinFunc(there, func(a, b *companySession) int { return a.used.Compare(b.used) }).ended = true
			c.happened["a session above the limit"]++
		}
	}
	if status != 429 {
		c.tried(name, d.ip, right)
	}
	body := c.ask(nil, d.ip, "POST /token", "username="+name+"&password="+url.QueryEscape(password), status)
	if status == 200 {
		c.start(d, body)
	}
	return status == 200
}

// start records a new session.
func (c *company) start(d *device, body string) {
	p := d.owner
	s := &companySession{of: p, created: time.Now(), used: time.Now(), generation: 1}
	c.keep(d, s, body)
	s.id, _, _ = strings.Cut(d.refresh.text, ".")
	p.sessions = append(p.sessions, s)
}

// keep records the tokens of a response.
func (c *company) keep(d *device, s *companySession, body string) {
	var got struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Expires < 1 || got.Expires > 1800 {
		c.Fatalf("got %s (%v), want the tokens of a session", body, err)
	}
	d.access = &heldToken{text: got.Access, of: s, expires: time.Now().Add(time.Duration(got.Expires) * time.Second), key: c.key}
	d.refresh = &heldToken{text: got.Refresh, of: s, generation: s.generation, key: c.key}
	c.tokens = append(c.tokens, d.access, d.refresh)
}

// refresh returns whether the server issued tokens, even if the response is lost.
func (c *company) refresh(d *device, lost bool) bool {
	t, now, issued := d.refresh, time.Now(), false
	s := t.of
	next := *s
	switch {
	case t.key < c.oldest:
		c.happened["a token of a removed key"]++
	case !s.isThere():
	case t.generation == s.generation && s.generation > 1 && now.Sub(s.used) < time.Second:
		if issued = !s.of.disabled; issued {
			c.happened["a refresh within a second of another"]++
		}
	case t.generation == s.generation:
		next.generation, next.used = s.generation+1, now
		issued = next.expires().Unix() > now.Unix() && !s.of.disabled
	case t.superseded():
		if issued = !s.of.disabled; issued {
			c.happened["a retry after a lost response"]++
		}
	default:
		s.ended = true
		c.happened["a replay"]++
	}
	status := 400
	if issued {
		*s, status = next, 200
		c.happened["a refresh"]++
	}
	body := c.ask(nil, d.ip, "POST /token", "grant_type=refresh_token&refresh_token="+t.text, status)
	if issued {
		before := *d
		c.keep(d, s, body)
		if lost {
			*d = before
		}
	}
	return issued
}

// introspect compares the result of /introspect with the rules, which changes nothing.
func (c *company) introspect(t *heldToken) {
	body := c.ask(c.admin(c.boss), c.boss.ip, "POST /introspect", "token="+t.text, 200)
	if active := strings.HasPrefix(body, `{"active":true`); active != c.isLive(t) {
		c.Fatalf("%v: POST /introspect of %+v of %+v of %+v\n  got %s\n  want active: %v", time.Now(), *t, *t.of, *t.of.of, body, c.isLive(t))
	}
}

// admin returns a live access token of an admin, after a login if necessary.
func (c *company) admin(p *person) *heldToken {
	d := p.devices[0]
	if d.access == nil || !c.isLive(d.access) {
		c.open(d)
	}
	return d.access
}

// The methods below are the actions of the people.

func (c *company) chance(p float64) bool { return c.rng.Float64() < p }

// anybody returns a random person of the company other than the boss.
func (c *company) anybody() *person {
	for {
		if p := c.people[c.rng.IntN(len(c.people))]; !p.left && p != c.boss && len(p.devices) > 0 {
			return p
		}
	}
}

// hire registers an account.
func (c *company) hire() {
	p := &person{id: int64(len(c.people) + 1), password: c.newPassword()}
	p.name = fmt.Sprintf("person%d", p.id)
	p.ip = fmt.Sprintf("10.1.%d.%d", p.id/250, p.id%250)
	c.ask(nil, p.ip, "POST /users/", fmt.Sprintf(`{"username":%q,"password":%q}`, p.name, p.password), 201)
	for range 1 + c.rng.IntN(2) {
		p.devices = append(p.devices, &device{owner: p, ip: p.ip})
	}
	c.people = append(c.people, p)
	c.happened["a hire"]++
}

func (c *company) newPassword() string { return fmt.Sprintf("correct horse %d", c.rng.Uint64()) }

// open gets a device a live access token by a refresh, or otherwise by a login.
func (c *company) open(d *device) bool {
	if d.refresh != nil {
		if c.chance(0.05) && c.refresh(d, true) {
			wait := time.Duration(1+c.rng.IntN(59)) * time.Second
			if c.chance(0.2) {
				wait = 61 * time.Second // after the grace period
			}
			time.Sleep(wait)
		}
		if c.refresh(d, false) {
			return true
		}
	}
	if c.chance(0.05) {
		for range 1 + c.rng.IntN(2) {
			c.login(d, d.owner.name, "a wrong password")
		}
	}
	return c.login(d, d.owner.name, d.owner.password)
}

// work is one visit of a person to the server.
func (c *company) work(p *person) {
	d := p.devices[c.rng.IntN(len(p.devices))]
	if d.access == nil || !c.whoAmI(d.access, d.ip) {
		if p.left || !c.open(d) {
			return
		}
		c.whoAmI(d.access, d.ip)
	}
	switch n := c.rng.IntN(1000); {
	case n < 20:
		c.logout(d)
	case n < 30:
		c.newOwnPassword(d)
	case n < 40:
		c.happened["other sessions ended"]++
		p.endSessions()
		d.access.of.ended = false
		c.as(d.access, d.ip, "DELETE /users/me/sessions", "", 204)
	case n < 50:
		c.endOne(d)
	case n < 60 && !p.admin:
		c.happened["a user refused as an admin"]++
		c.as(d.access, d.ip, "GET /users/", "", 403)
	case n < 70:
		c.as(d.access, d.ip, "PATCH /users/me/", `{"full_name":"A New Name"}`, 200)
	case n < 76:
		stolen := *d
		stolen.ip = fmt.Sprintf("203.0.113.%d", c.rng.IntN(250))
		c.stolen = append(c.stolen, &stolen)
	case n < 77 && !p.admin:
		c.happened["an account deletes itself"]++
		c.as(d.access, d.ip, "DELETE /users/me/", fmt.Sprintf(`{"password":%q}`, p.password), 204)
		c.tried(p.name, d.ip, true)
		p.left = true
		c.whoAmI(d.access, d.ip)
	}
}

func (c *company) logout(d *device) {
	c.happened["a logout"]++
	t := d.refresh
	if c.chance(0.5) {
		t = d.access
	}
	t.of.ended = t.of.ended || t.key >= c.oldest
	c.ask(nil, d.ip, "POST /revoke", "token="+t.text, 200)
	c.whoAmI(d.access, d.ip)
}

func (c *company) newOwnPassword(d *device) {
	c.happened["a new password"]++
	p, old, new := d.owner, d.access, c.newPassword()
	body := c.ask(old, d.ip, "PUT /users/me/password", fmt.Sprintf(`{"current_password":%q,"new_password":%q}`, p.password, new), 200)
	c.tried(p.name, d.ip, true)
	p.password = new
	c.forget(p.name)
	p.endSessions()
	c.start(d, body)
	c.whoAmI(old, d.ip)
	c.whoAmI(d.access, d.ip)
}

func (c *company) endOne(d *device) {
	there := d.owner.there()
	s := there[c.rng.IntN(len(there))]
	c.as(d.access, d.ip, "DELETE /users/me/sessions/"+s.id, "", 204)
	s.ended = true
	c.whoAmI(d.access, d.ip)
}

// workLate uses an access token just before it expires, and when it has expired.
func (c *company) workLate() {
	t := c.admin(c.boss)
	time.Sleep(time.Until(t.expires.Truncate(time.Second)) - 1)
	for _, want := range []bool{true, false} {
		if c.whoAmI(t, c.boss.ip) != want {
			c.Errorf("%v: a token that expires at %v: want accepted: %v", time.Now(), t.expires, want)
		}
		time.Sleep(time.Nanosecond)
	}
}

// administer makes a random change of an account by an admin.
func (c *company) administer() {
	admin, p := c.boss, c.anybody()
	disabled := func(p *person) bool { return p.disabled && !p.left }
	if i := slices.IndexFunc(c.people, disabled); i >= 0 && c.chance(0.5) {
		p = c.people[i]
	}
	t := c.admin(admin)
	change := func(what, method, below, body string, status int) {
		c.happened[what]++
		c.as(t, admin.ip, fmt.Sprintf("%s /users/%d%s", method, p.id, below), body, status)
	}
	switch n := c.rng.IntN(10); {
	case p.disabled:
		change("an account enabled", "PATCH", "", `{"disabled":false}`, 200)
		p.disabled = false
		p.endSessions()
	case n < 3:
		change("an account disabled", "PATCH", "", `{"disabled":true}`, 200)
		p.disabled = true
	case n < 5:
		p.password = c.newPassword()
		change("a reset password", "PUT", "/password", fmt.Sprintf(`{"new_password":%q}`, p.password), 204)
		c.forget(p.name)
		p.endSessions()
	case n < 6:
		change("an account logged out by an admin", "DELETE", "/sessions", "", 204)
		p.endSessions()
	case n < 8 && p.admin:
		change("an admin demoted", "PATCH", "", `{"role":"user"}`, 200)
		p.admin = false
	case n < 8:
		change("an admin promoted", "PATCH", "", `{"role":"admin"}`, 200)
		p.admin = true
	default:
		change("an account deleted", "DELETE", "", "", 204)
		p.left = true
		c.hire()
	}
	for _, d := range p.devices {
		if d.access != nil {
			c.whoAmI(d.access, d.ip)
		}
	}
}

// steal uses a pair of stolen tokens.
func (c *company) steal() {
	if len(c.stolen) == 0 {
		return
	}
	d := c.stolen[c.rng.IntN(len(c.stolen))]
	c.whoAmI(d.access, d.ip)
	replays := c.happened["a replay"]
	if c.refresh(d, false) {
		c.happened["a thief gets tokens"]++
		c.whoAmI(d.access, d.ip)
		return
	}
	c.happened["a thief causes a replay"] += c.happened["a replay"] - replays
	c.stolen = slices.DeleteFunc(c.stolen, func(other *device) bool { return other == d })
}

// guess tries passwords of an account from one address, all at once.
func (c *company) guess() {
	d := &device{owner: c.anybody(), ip: "198.51.100.66"}
	for range 8 {
		c.login(d, d.owner.name, "guess")
	}
}

// rotate restarts the server with a new key. The previous one still verifies.
func (c *company) rotate() {
	c.happened["a rotation of the keys"]++
	key := func(n int) string { return fmt.Sprintf("the key number %d of a year in the life of a company", n) }
	c.key++
	c.oldest = c.key - 1
	settings := []string{"-addr=127.0.0.1:8000", "SECRET_KEY=" + key(c.key), "SECRET_KEY_PREVIOUS=" + key(c.oldest)}
	if c.oldest == 0 {
		settings[2] = "SECRET_KEY_PREVIOUS=" + testKey
	}
	c.restart(settings...)
	clear(c.failures) // a restart resets the throttle
}

// live simulates a day, from midnight to midnight.
func (c *company) live(day int) {
	morning := time.Now()
	type event struct {
		at time.Duration
		do func()
	}
	var events []event
	plan := func(from, to time.Duration, do func()) {
		events = append(events, event{from + time.Duration(c.rng.Int64N(int64(to-from))), do})
	}
	share := dailyWork
	if day%7 >= 5 {
		share = 0.1
	}
	for _, p := range c.people {
		if p.left || p == c.boss || len(p.devices) == 0 || !c.chance(share) {
			continue
		}
		plan(8*time.Hour, 10*time.Hour, func() { c.work(p) })
		if c.chance(0.3) {
			plan(10*time.Hour, 18*time.Hour, func() { c.work(p) })
		}
	}
	for range 2 {
		plan(9*time.Hour, 17*time.Hour, c.administer)
		plan(0, 23*time.Hour, c.steal)
	}
	plan(2*time.Hour, 4*time.Hour, c.guess)
	plan(20*time.Hour, 21*time.Hour, c.workLate)
	if day%45 == 44 || day%200 == 20 {
		plan(12*time.Hour, 13*time.Hour, c.rotate)
	}
	if day%45 == 44 { // a script that logs in at each run
		p := c.anybody()
		for range 130 {
			plan(0, 12*time.Hour, func() { c.login(&device{owner: p, ip: p.ip}, p.name, p.password) })
		}
	}
	if day%200 == 20 { // a leaked key: a second rotation ends all its tokens
		plan(13*time.Hour, 14*time.Hour, c.rotate)
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	for _, e := range events {
		time.Sleep(time.Until(morning.Add(e.at)))
		e.do()
	}
	time.Sleep(time.Until(morning.Add(24 * time.Hour)))
}

// evening compares the server with the rules.
func (c *company) evening() {
	live := c.sessions()
	c.countExpired(live)
	for _, p := range c.people {
		c.checkSessions(p)
	}
	for range 20 {
		c.verify(c.tokens[c.rng.IntN(len(c.tokens))])
	}
	for _, t := range c.tokens[c.verified:] {
		c.verify(t)
	}
	c.verified = len(c.tokens)
	c.checkMemory(len(live))
	c.checkLog()
}

// checkLog compares what the log counts with what has happened.
func (c *company) checkLog() {
	log := c.log.String()
	c.log.Reset()
	for text, want := range map[string]int{
		"msg=request ":   c.requests,
		"login=ok ":      c.happened["a login"],
		"login=failed ":  c.happened["a wrong password"] + c.happened["a login of a disabled account"],
		"login=refused ": c.happened["a guess that must wait"],
		`msg="a refresh token was used again: its session has ended"`:                 c.happened["a replay"],
		`msg="the account has too many sessions: the one used longest ago has ended"`: c.happened["a session above the limit"],
		"level=ERROR": 0,
	} {
		if c.logged[text] += strings.Count(log, text); c.logged[text] != want {
			c.Errorf("the log has had %q %d times, want %d", text, c.logged[text], want)
		}
	}
}

// checkSessions compares the sessions of a person with the rules.
func (c *company) checkSessions(p *person) {
	var got, want []string
	list, err := c.store.Sessions(c.Context(), p.id)
	for _, s := range list {
		got = append(got, s.ID)
	}
	for _, s := range p.there() {
		want = append(want, s.id)
	}
	if err != nil || !slices.Equal(got, want) {
		c.Errorf("%s has the sessions %v (%v), want %v", p.name, got, err, want)
	}
}

// countExpired counts the sessions that have expired since the last evening.
func (c *company) countExpired(live []*companySession) {
	copy(c.expired[1:], c.expired[:])
	c.expired[0] = 0
	for s := range c.known {
		if !s.ended && !s.of.left && !s.isThere() {
			c.expired[0]++
			c.happened["a session expired"]++
		}
	}
	clear(c.known)
	for _, s := range live {
		c.known[s] = true
	}
}

// checkMemory: the server holds the live sessions, and expired ones for a few days at most.
func (c *company) checkMemory(live int) {
	stored, expired, here := 0, 0, 0
	for _, a := range c.memory.accounts {
		if a != nil {
			stored += len(a.sessions)
		}
	}
	for _, n := range c.expired {
		expired += n
	}
	for _, p := range c.people {
		if !p.left {
			here++
		}
	}
	if stored < live || stored > live+expired {
		c.Errorf("the store holds %d sessions, want the %d live ones, and at most the %d that expired on the last days", stored, live, expired)
	}
	if len(c.memory.accounts)-c.memory.deleted != here || len(c.memory.names) != here {
		c.Errorf("the store holds %d accounts and %d names, want %d", len(c.memory.accounts), len(c.memory.names), here)
	}
	throttle := &c.server.passwords.throttle
	wantEqual(c, "the failures that the throttle holds", len(throttle.newer)+len(throttle.older), len(c.failures))
	wantEqual(c, "the passwords that wait to be hashed in the evening", c.server.passwords.queue.waiting(), 0)
}

// verify compares the validity of a token with the rules, which changes nothing.
func (c *company) verify(t *heldToken) {
	if t.generation == 0 {
		c.whoAmI(t, "192.0.2.9")
	} else {
		c.introspect(t)
	}
}
