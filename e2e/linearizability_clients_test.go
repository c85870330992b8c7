//go:build unix

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// A plan has the actions of clients and their frequencies.
type plan struct {
	reads      []choice      // and actions that create sessions or keep them
	changes    []choice      // at each beat
	rest       time.Duration // the longest pause of a client after a response
	previous   int           // percentage of refreshes with the replaced token
	operations int           // the maximum of a history
	once       bool          // a trial has one history
	begin      func(*history)
}

type choice struct {
	weight int
	action action
}

// beat is the interval at which all clients send requests that end sessions, which makes
// them concurrent. Between beats the clients read the results.
const beat = 100 * time.Millisecond

// oneAccount is a plan with all actions on one account.
var oneAccount = plan{
	reads: []choice{{30, doReadMe}, {30, doRefresh}, {10, doListSessions}, {10, doIntrospect}, {5, doReadUser}, {2, doMakeLink}},
	changes: []choice{
		{24, doEndOthers}, {20, doRefresh}, {6, doRevoke}, {4, doEndOne}, {2, doChangePassword}, {1, doDeleteMe}, {1, doRegister}, {1, doLogin},
		{2, doDisable}, {2, doEnable}, {2, doPromote}, {2, doDemote}, {1, doReset}, {2, doEndAll}, {1, doDeleteUser},
		{3, doUseLink},
	},
	rest: 10 * time.Millisecond, previous: 15, operations: 500,
	begin: (*history).beginUnregistered,
}

// patient is a plan for sessions with long pauses, in which the grace period of a refresh
// token often ends.
var patient = plan{
	reads: []choice{{40, doReadMe}, {4, doRefresh}, {4, doIntrospect}},
	rest:  time.Second, previous: 50, operations: 500,
	begin: (*history).beginUnregistered,
}

// twoAdmins is a plan for the only two admins.
var twoAdmins = plan{
	reads:   []choice{{20, doReadMe}, {20, doReadUser}, {10, doRefresh}, {5, doPromote}, {5, doEnable}},
	changes: []choice{{10, doDemote}, {6, doDisable}, {3, doEndAll}, {2, doEndOthers}, {1, doDeleteUser}},
	rest:    10 * time.Millisecond, previous: 15, operations: 4000,
	once: true, begin: (*history).beginWithTwoAdmins,
}

// planted is a plan for a server with a planted bug, which a hundred operations show.
var planted = plan{
	reads:   []choice{{30, doReadMe}, {30, doRefresh}, {10, doListSessions}},
	changes: []choice{{3, doEndOthers}, {1, doRevoke}},
	rest:    10 * time.Millisecond, previous: 15, operations: 100,
	begin: (*history).beginUnregistered,
}

func pick(rnd *rand.Rand, choices []choice) action {
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := rnd.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.action
		}
	}
	panic("unreachable")
}

// A history has the operations of clients on one account, or on two related ones, and what
// the clients know of the accounts. With that knowledge most requests make sense.
type history struct {
	tr    *trial
	plan  plan
	name  string
	first state

	mu         sync.Mutex
	operations []porcupine.Operation
	number     int // of the newest request
	passwords  int // number of passwords so far
	hashing    int // requests under way that hash a password
	lost, made int // responses lost, sessions created
	accounts   []known
	sessions   []*held
	links      []heldLink
}

// heldLink is the token of a link, which the clients may use more than once.
type heldLink struct {
	name, account int
	token         string
}

// known has what the clients believe about an account.
type known struct {
	name     string
	id       int64 // 0 if there seems to be no account
	password int   // 0 if it is unknown
	forgot   bool  // the password seems to be wrong
	disabled bool
}

// held is a session whose tokens the clients have.
type held struct {
	name, account int
	id, access    string
	refresh       []string // from generation 1 on
	over          bool     // the session seems to have ended
}

const (
	maxLost = 6  // each may double the number of states for porcupine
	maxMade = 90 // sessions, as an account keeps its newest hundred
)

func newHistory(tr *trial, p plan, name string) *history {
	h := &history{tr: tr, plan: p, name: name, passwords: rootPassword}
	p.begin(h)
	return h
}

func (h *history) beginUnregistered() {
	h.first = state{accounts: make([]account, 1), root: true}
	h.accounts = []known{{name: h.name}}
}

// beginWithTwoAdmins begins with root and another account that root has promoted.
func (h *history) beginWithTwoAdmins() {
	at := h.tr.copies[0].Load().url
	want := func(status int, reply clusterAnswer) clusterAnswer {
		if reply.status != status {
			h.tr.fail(h, "%v, want %d", reply, status)
		}
		return reply
	}
	password := map[string]string{"username": h.name, "password": passwordText(rootPassword)}
	want(201, clusterCall("POST", at+"/users/", h.tr.root, password)) // an admin may register any number
	h.accounts = []known{{name: "root"}, {name: h.name}}
	h.first.accounts = make([]account, len(h.accounts))
	for i := range h.accounts {
		k := &h.accounts[i]
		o := operation{number: i + 1, account: i, action: doLogin}
		h.understand(&o, want(200, clusterCall("POST", at+"/token", "", url.Values{"username": {k.name}, "password": {passwordText(rootPassword)}})))
		k.id, k.password = o.id, rootPassword
		h.first.accounts[i] = account{id: o.id, password: rootPassword, admin: true, sessions: []session{{name: o.number, generation: 1}}}
	}
	h.number, h.first.lastID = len(h.accounts), h.accounts[1].id
	want(200, clusterCall("PATCH", fmt.Sprint(at, "/users/", h.accounts[1].id), h.tr.root, map[string]string{"role": "admin"}))
}

// live makes a number of clients use the account until the history is long enough.
func (h *history) live(clients int, rnd *rand.Rand) {
	var wg sync.WaitGroup
	for n := range clients {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))
		wg.Go(func() {
			for last := time.Duration(0); h.goesOn(); {
				choices := h.plan.reads
				last = max(last, (h.tr.now()-h.plan.rest)/beat)
				if next := (h.tr.now() + h.plan.rest) / beat; next > last && len(h.plan.changes) > 0 {
					last = next
					time.Sleep(next*beat - h.tr.now())
					choices = h.plan.changes
				}
				if o, ok := h.choose(rnd, choices); ok && !h.do(rnd, n, o) {
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Duration(rnd.Int64N(int64(h.plan.rest))))
			}
		})
	}
	wg.Wait()
}

func (h *history) goesOn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tr.goesOn() && len(h.operations) < h.plan.operations && h.lost < maxLost && h.made < maxMade
}

// choose returns the next request of a client, if any.
func (h *history) choose(rnd *rand.Rand, choices []choice) (o operation, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.account = rnd.IntN(len(h.accounts))
	s := h.session(rnd, o.account)
	o.action = h.sensible(rnd, pick(rnd, choices), o.account, s)
	switch {
	case !o.action.hashes():
	case h.hashing == 0 || s != nil && !s.over && rnd.IntN(20) == 0:
		h.hashing++
	case s == nil:
		return o, false
	default:
		// Hashing a password takes a tenth of a second of a core. Usually one client
		// at a time waits for it, and the others send other requests.
		o.action = doRefresh
	}
	if s != nil && s.over && !o.action.hashes() && !o.action.admins() && rnd.IntN(8) > 0 {
		return o, false // another client is about to log in
	}
	h.number++
	o.number = h.number
	h.fillIn(rnd, &o, s)
	return o, true
}

// sensible returns the action, or another one that makes more sense for the account. The
// session is one of the account, or nil if it never had any.
func (h *history) sensible(rnd *rand.Rand, a action, account int, s *held) action {
	k := &h.accounts[account]
	switch {
	case k.id == 0 && rnd.IntN(2) == 0:
		return doRegister
	case k.password != 0 && (s == nil || h.liveSessions(account) < 3 && rnd.IntN(4) == 0):
		return doLogin
	case s == nil:
		return doRegister
	case k.disabled && rnd.IntN(4) == 0:
		return doEnable
	case k.forgot && rnd.IntN(4) == 0:
		return doReset
	case a == doUseLink && !slices.ContainsFunc(h.links, func(l heldLink) bool { return l.account == account }):
		return doReadMe
	case a == doEndAll && !h.tr.endAll || a.admins() && k.id == 0:
		return doReadMe
	}
	return a
}

// fillIn sets the caller, the token and the password of a request.
func (h *history) fillIn(rnd *rand.Rand, o *operation, s *held) {
	k := &h.accounts[o.account]
	o.id, o.password = k.id, k.password
	switch o.action {
	case doRegister:
		o.password = h.newPassword()
	case doLogin, doDeleteMe:
		if rnd.IntN(20) == 0 {
			o.password = 0
		}
	case doChangePassword, doReset, doUseLink:
		o.next = h.newPassword()
	}
	switch {
	case o.action == doRegister || o.action == doLogin:
	case o.action == doUseLink:
		o.session = h.link(rnd, o.account)
	case o.action == doRefresh:
		o.session, o.generation = s.name, h.generation(rnd, s)
	case o.action == doRevoke:
		o.session, o.generation = s.name, h.generation(rnd, s)*rnd.IntN(2)
	case o.action == doIntrospect:
		o.session, o.generation, o.by = s.name, h.generation(rnd, s)*rnd.IntN(2), root
	case o.action.admins() && h.first.root:
		o.by = root
	case o.action.admins():
		o.by = h.session(rnd, rnd.IntN(len(h.accounts))).name
	case o.action == doEndOne:
		o.session, o.by = h.session(rnd, o.account).name, s.name
	default:
		o.by = s.name
	}
}

// hashes reports whether a request hashes a password.
func (a action) hashes() bool {
	return slices.Contains([]action{doRegister, doLogin, doChangePassword, doDeleteMe, doReset, doUseLink}, a)
}

func (h *history) newPassword() int {
	h.passwords++
	return h.passwords
}

// session picks one of the newest sessions of an account, usually one that is not over. It
// returns nil if the account never had any.
func (h *history) session(rnd *rand.Rand, account int) *held {
	var all, live []*held
	for _, s := range h.sessions {
		if s.account == account {
			all = append(all, s)
			if !s.over {
				live = append(live, s)
			}
		}
	}
	if len(live) > 0 && rnd.IntN(8) > 0 {
		all = live
	}
	all = all[max(0, len(all)-6):]
	if len(all) == 0 {
		return nil
	}
	return all[rnd.IntN(len(all))]
}

// link picks one of the two newest links of an account, so that it is often used twice.
func (h *history) link(rnd *rand.Rand, account int) int {
	var names []int
	for _, l := range h.links {
		if l.account == account {
			names = append(names, l.name)
		}
	}
	names = names[max(0, len(names)-2):]
	return names[rnd.IntN(len(names))]
}

func (h *history) liveSessions(account int) (n int) {
	for _, s := range h.sessions {
		if s.account == account && !s.over {
			n++
		}
	}
	return n
}

// generation picks one of the refresh tokens of a session, usually the newest.
func (h *history) generation(rnd *rand.Rand, s *held) int {
	newest := len(s.refresh)
	switch n := rnd.IntN(100); {
	case n == 99:
		return 1 + rnd.IntN(newest)
	case n < h.plan.previous:
		return max(1, newest-1)
	}
	return newest
}

// do sends a request to one of the copies, records the operation, and reports whether there
// was a response.
func (h *history) do(rnd *rand.Rand, client int, o operation) bool {
	method, path, token, body := h.request(o)
	copies := h.tr.copies
	if !o.action.reads() {
		copies = copies[:h.tr.writers]
	}
	r := clusterRequest(method, copies[rnd.IntN(len(copies))].Load().url+path, token, body)
	r.Header.Set("User-Agent", strconv.Itoa(o.number)) // identifies the session in the list
	r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", rnd.IntN(256), rnd.IntN(256), rnd.IntN(256)))
	o.begin = h.tr.now()
	reply := clusterSend(h.tr.client, r)
	o.end = h.tr.now()

	h.mu.Lock()
	defer h.mu.Unlock()
	if o.action.hashes() {
		h.hashing--
	}
	// A request whose dial failed was never sent, as net/http sends only a GET a second
	// time.
	if dial, ok := errors.AsType[*net.OpError](reply.err); ok && dial.Op == "dial" {
		return false
	}
	out := h.understand(&o, reply)
	h.write(client, o, out)
	h.learn(o, out)
	return !out.lost()
}

// write records a request and its response, unless they carry no information.
func (h *history) write(client int, o operation, out answer) {
	h.tr.count(out)
	if (out.lost() || out.status == http.StatusOK) && (o.action == doLogin || o.action == doChangePassword) {
		h.made++
	}
	p := porcupine.Operation{ClientId: client, Call: int64(o.begin), Return: int64(o.end)}
	switch {
	case out.status == http.StatusTooManyRequests: // no effect, and no information
		return
	case out.lost() && (o.action.reads() || o.action == doMakeLink): // nobody has that link
		return
	case out.lost():
		h.lost++
		o.end, p.Return = forever, p.Call // see [state.step]
	}
	p.Input, p.Output = o, out
	h.operations = append(h.operations, p)
}

// request returns the HTTP request of an operation.
func (h *history) request(o operation) (method, path, token string, body any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	method, path, _ = strings.Cut(string(o.action), " ")
	path, _, _ = strings.Cut(path, " ")
	path = strings.Replace(path, "{id}", fmt.Sprint(o.id), 1)
	switch o.by {
	case 0:
	case root:
		token = h.tr.root
	default:
		token = h.held(o.by).access
	}
	named := ""
	if o.action == doUseLink {
		i := slices.IndexFunc(h.links, func(l heldLink) bool { return l.name == o.session })
		named = h.links[i].token
	} else if o.session != 0 {
		s := h.held(o.session)
		if named = s.access; o.generation > 0 {
			named = s.refresh[o.generation-1]
		}
		path = strings.Replace(path, "{sid}", s.id, 1)
	}
	return method, path, token, requestBody(o, h.accounts[o.account].name, named)
}

// requestBody returns the body of a request, with the username or the token.
func requestBody(o operation, username, token string) any {
	type object = map[string]any
	password, next := passwordText(o.password), passwordText(o.next)
	switch o.action {
	case doRegister:
		return object{"username": username, "password": password}
	case doLogin:
		return url.Values{"username": {username}, "password": {password}}
	case doRefresh:
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	case doRevoke, doIntrospect:
		return url.Values{"token": {token}}
	case doChangePassword:
		return object{"current_password": password, "new_password": next}
	case doDeleteMe:
		return object{"password": password}
	case doReset:
		return object{"new_password": next}
	case doUseLink:
		return object{"token": token, "new_password": next}
	case doDisable, doEnable:
		return object{"disabled": o.action == doDisable}
	case doPromote:
		return object{"role": "admin"}
	case doDemote:
		return object{"role": "user"}
	}
	return nil
}

func passwordText(n int) string { return fmt.Sprint("correct horse ", n) }

func (h *history) held(name int) *held {
	i := slices.IndexFunc(h.sessions, func(s *held) bool { return s.name == name })
	return h.sessions[i]
}

// understand returns a response in the terms of the model, and records its tokens.
func (h *history) understand(o *operation, reply clusterAnswer) answer {
	if reply.err != nil || reply.status == http.StatusServiceUnavailable {
		return answer{} // the outcome is unknown
	}
	out := answer{status: reply.status}
	if detail, _ := reply.body["detail"].(string); slices.Contains([]string{inactive, wrongPassword, forbidden}, detail) {
		out.detail = detail
	}
	if reply.status >= 300 {
		return out
	}
	switch o.action {
	case doRegister:
		id, _ := reply.body["id"].(float64)
		o.id = int64(id)
	case doLogin, doChangePassword:
		s := &held{name: o.number, account: o.account}
		o.id, s.id = tokenClaims(reply)
		s.access, _ = reply.body["access_token"].(string)
		token, _ := reply.body["refresh_token"].(string)
		s.refresh = []string{token}
		h.sessions = append(h.sessions, s)
		out.generation = 1
	case doMakeLink:
		link, _ := reply.body["link"].(string)
		_, token, _ := strings.Cut(link, "#reset=")
		h.links = append(h.links, heldLink{o.number, o.account, token})
	case doRefresh:
		out.generation = h.refreshed(o, reply)
	case doListSessions:
		out.sessions = listed(reply)
	case doReadMe, doReadUser, doDisable, doEnable, doPromote, doDemote:
		out.admin = reply.body["role"] == "admin"
		out.disabled, _ = reply.body["disabled"].(bool)
	case doIntrospect:
		out.active, _ = reply.body["active"].(bool)
	}
	return out
}

// refreshed returns the generation of the refresh token in a response, or -1 if it is not
// the successor of the one in the request.
func (h *history) refreshed(o *operation, reply clusterAnswer) int {
	s := h.held(o.session)
	token, _ := reply.body["refresh_token"].(string)
	if i := slices.Index(s.refresh, token); i >= 0 {
		return i + 1
	}
	_, id := tokenClaims(reply)
	if o.generation != len(s.refresh) || id != s.id {
		return -1
	}
	s.refresh = append(s.refresh, token)
	s.access, _ = reply.body["access_token"].(string)
	return len(s.refresh)
}

// tokenClaims returns the account and the session of the access token in a response.
func tokenClaims(reply clusterAnswer) (id int64, sid string) {
	token, _ := reply.body["access_token"].(string)
	_, payload, _ := strings.Cut(token, ".")
	payload, _, _ = strings.Cut(payload, ".")
	text, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct{ Sub, Sid string }
	json.Unmarshal(text, &claims)
	id, _ = strconv.ParseInt(claims.Sub, 10, 64)
	return id, claims.Sid
}

func listed(reply clusterAnswer) string {
	var names []int
	current := 0
	for _, v := range reply.list {
		v, _ := v.(map[string]any)
		agent, _ := v["user_agent"].(string)
		name, _ := strconv.Atoi(agent)
		names = append(names, name)
		if v["current"] == true {
			current = name
		}
	}
	return sessionList(names, current)
}

// learn updates what the clients believe after a response. It may be wrong, as it only
// selects requests that make sense.
func (h *history) learn(o operation, out answer) {
	k := &h.accounts[o.account]
	switch {
	case out.lost() && o.action == doRegister && k.id == 0:
		k.password = o.password // an earlier lost change took effect
	case out.lost() && o.next != 0:
		k.password = o.next
	case out.lost():
	case out.status >= 300:
		h.learnRefusal(o, out, k)
	default:
		h.learnSuccess(o, k)
	}
}

func (h *history) learnRefusal(o operation, out answer, k *known) {
	switch {
	case out.detail == inactive && o.by > 0:
		h.accounts[h.held(o.by).account].disabled = true
	case out.detail == inactive:
		k.disabled = true
	case out.status == 401 && o.action == doLogin:
		k.forgot = o.password == k.password
	case out.status == 401:
		h.over(func(s *held) bool { return s.name == o.by })
	case out.status == 404 && o.action.admins() && k.id == o.id:
		k.id, k.password = 0, 0
		h.over(func(s *held) bool { return s.account == o.account })
	case o.action == doRefresh || o.action == doEndOne:
		h.over(func(s *held) bool { return s.name == o.session })
	}
}

func (h *history) learnSuccess(o operation, k *known) {
	switch o.action {
	case doRegister:
		*k = known{name: k.name, id: o.id, password: o.password}
	case doLogin:
		k.id, k.disabled, k.forgot = o.id, false, false
	case doDisable:
		k.disabled = true
	case doRevoke, doEndOne:
		h.over(func(s *held) bool { return s.name == o.session })
	case doEndOthers:
		h.over(func(s *held) bool { return s.account == o.account && s.name != o.by })
	case doChangePassword, doReset, doUseLink:
		k.password, k.forgot = o.next, false
		h.over(func(s *held) bool { return s.account == o.account && s.name != o.number })
	case doDeleteMe, doDeleteUser:
		k.id, k.password = 0, 0
		fallthrough
	case doEndAll:
		h.over(func(s *held) bool { return s.account == o.account })
	case doEnable:
		h.over(func(s *held) bool { return s.account == o.account && k.disabled })
		k.disabled = false
	}
}

// over records that sessions seem to have ended.
func (h *history) over(which func(*held) bool) {
	for _, s := range h.sessions {
		s.over = s.over || which(s)
	}
}
