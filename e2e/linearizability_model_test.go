package e2e

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// This file has the contract as a state machine: the possible responses to each request
// about an account, and the state after it. Porcupine compares histories with it.
//
// The machine has no text. A password is a number, a session is the number of the request
// that created it, and a token is a session with a generation: 1 for the first refresh
// token and 0 for an access token.

// An action is the kind of a request.
type action string

const (
	doRegister       action = "POST /users/"
	doLogin          action = "POST /token (password)"
	doRefresh        action = "POST /token (refresh)"
	doRevoke         action = "POST /revoke"
	doIntrospect     action = "POST /introspect"
	doReadMe         action = "GET /users/me/"
	doListSessions   action = "GET /users/me/sessions"
	doEndOthers      action = "DELETE /users/me/sessions"
	doEndOne         action = "DELETE /users/me/sessions/{sid}"
	doChangePassword action = "PUT /users/me/password"
	doDeleteMe       action = "DELETE /users/me/"

	// The actions of an admin.
	doReadUser   action = "GET /users/{id}"
	doDisable    action = "PATCH /users/{id} disabled=true"
	doEnable     action = "PATCH /users/{id} disabled=false"
	doPromote    action = "PATCH /users/{id} role=admin"
	doDemote     action = "PATCH /users/{id} role=user"
	doReset      action = "PUT /users/{id}/password"
	doEndAll     action = "DELETE /users/{id}/sessions"
	doDeleteUser action = "DELETE /users/{id}"
	doMakeLink   action = "POST /users/{id}/reset-link"

	// Whoever has a link sets a new password.
	doUseLink action = "POST /reset-password"

	// A crash is not a request: the only copy of the server is killed.
	crash action = "kill -9"
)

// reads reports whether a request changes nothing, whatever its response.
func (a action) reads() bool {
	return slices.Contains([]action{doIntrospect, doReadMe, doListSessions, doReadUser}, a)
}

// admins reports whether a request is for admins, and names an account by its ID.
func (a action) admins() bool {
	return slices.Contains([]action{doReadUser, doDisable, doEnable, doPromote, doDemote, doReset, doEndAll, doDeleteUser, doMakeLink}, a)
}

// root stands for the session of an admin outside of the history, which no request of the
// history changes.
const root = -1

// An operation is one request, with what its response has told about it.
type operation struct {
	number     int // of the request, and of the session that it creates
	action     action
	account    int   // the index of the account in the history
	id         int64 // of the account, in the path or in the response; 0 if in neither
	by         int   // the session of the access token, or root
	session    int   // the session in the request, or the link: the number of the request that made it
	generation int   // of the token in the request
	password   int   // the current password in the request
	next       int   // the new password in the request
	begin, end time.Duration
}

// An answer is the part of a response that the contract decides.
type answer struct {
	status          int    // 0 if the response was lost
	detail          string // if two refusals have the same status
	generation      int    // of the refresh token
	disabled, admin bool   // of the user
	sessions        string // the list, with a star after the current one
	active          bool
}

const (
	inactive      = "Inactive user"
	wrongPassword = "Incorrect password"
	forbidden     = "Not enough permissions"
)

// impossible is a response that no server sends.
var impossible = answer{status: -1}

// lost reports whether the outcome of the request is unknown: there was no response, or a
// 503.
func (a answer) lost() bool { return a.status == 0 }

// forever is the end of a request whose response was lost.
const forever = time.Duration(1<<63 - 1)

const (
	grace = time.Minute
	pause = time.Second // after a rotation, the current token is its own successor

	// Copies of the server and this test read the clock at different moments of a
	// request, and the clock may be set. This close to the end of the grace period
	// or of the pause, the model allows both outcomes.
	graceSlack = time.Second
	pauseSlack = 300 * time.Millisecond
)

// A state has the accounts at one moment.
type state struct {
	accounts []account

	// Requests whose response was lost and which have not taken effect. Each may take
	// effect once, at any later moment, or never.
	pending []operation

	lastID int64 // the highest ID known to be used
	root   bool  // root is an admin too
	key    string
}

type account struct {
	id              int64 // 0 if there is no account
	password        int
	disabled, admin bool
	sessions        []session // that have not ended
	links           []int     // that can still set a password
}

// unknownID is the ID of an account whose registration had no response.
const unknownID = -1

type session struct {
	name       int
	generation int // of the current refresh token

	// The server read the time of the last rotation between these.
	from, to time.Duration
}

// newModel returns the model of a history with this first state.
func newModel(first state) porcupine.Model {
	first = *first.clone().settled()
	seed := maphash.MakeSeed()
	m := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{&first} },
		Step:  func(s, in, out any) []any { return s.(*state).step(in.(operation), out.(answer)) },
		Equal: func(a, b any) bool { return a.(*state).key == b.(*state).key },
		Hash:  func(s any) uint64 { return maphash.String(seed, s.(*state).key) },

		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v = %v", in, out) },
		DescribeState:     func(s any) string { return s.(*state).String() },
	}
	return m.ToModel()
}

// step returns the states that may follow if the response to o is out.
//
// A lost request is pending from the moment at which it was sent, which is its place in
// the history, and may take effect before any later step. Porcupine need not search for
// the moment, as later responses exclude states.
func (s *state) step(o operation, out answer) (next []any) {
	if out.lost() {
		n := s.clone()
		n.pending = append(n.pending, o)
		return []any{n.settled()}
	}
	for _, f := range s.futures(o.end) {
		if o.action == crash {
			n := f.clone()
			n.pending = nil // the requests of a dead process never take effect
			next = append(next, n.settled())
			continue
		}
		for _, late := range f.late(o, o.end) {
			n := f.clone()
			if n.perform(o, late) == out {
				next = append(next, n.settled())
			}
		}
	}
	return next
}

// futures returns the states that may follow s without a response: some of the pending
// requests have taken effect, in some order.
func (s *state) futures(now time.Duration) []*state {
	all := []*state{s}
	known := map[string]bool{s.key: true}
	for i := 0; i < len(all); i++ {
		f := all[i]
		for p, o := range f.pending {
			for _, late := range f.late(o, now) {
				n := f.clone()
				n.pending = slices.Delete(n.pending, p, p+1)
				n.perform(o, late)
				if n.settled(); !sameAccounts(n.accounts, f.accounts) && !known[n.key] {
					known[n.key] = true
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// late returns whether the grace period of a replaced refresh token, or the pause of a
// current one, may be over, and may not be over, in a request that ends before end. The
// server compares the time of the last rotation, which is in [from, to], with that of the
// request, which is in [begin, end]. Their distance is between begin-to and end-from.
func (s *state) late(o operation, end time.Duration) []bool {
	_, v := s.find(o.session)
	limit, slack := grace, graceSlack
	switch {
	case v == nil:
		return []bool{false} // irrelevant
	case o.action == doRefresh && o.generation == v.generation && v.generation > 1:
		limit, slack = pause, pauseSlack
	case o.action != doRefresh && o.action != doIntrospect || o.generation != v.generation-1:
		return []bool{false} // irrelevant
	}
	switch {
	case end-v.from < limit-slack:
		return []bool{false}
	case o.begin-v.to > limit+slack:
		return []bool{true}
	}
	return []bool{false, true}
}

// perform makes the change of o if the contract allows it, and returns the response.
func (s *state) perform(o operation, late bool) answer {
	a := &s.accounts[o.account]
	switch o.action {
	case doRegister:
		return s.register(o, a)
	case doLogin:
		return s.login(o, a)
	case doRefresh:
		return s.refresh(o, late)
	case doRevoke:
		s.end(o.session)
		return answer{status: 200}
	case doUseLink:
		return a.useLink(o)
	}
	caller, refusal := s.admit(o)
	switch {
	case refusal != answer{}:
		return refusal
	case o.action == doIntrospect:
		return answer{status: 200, active: s.active(o, late)}
	case o.action.admins():
		return s.administer(o, a, a == caller)
	}
	return s.own(o, a)
}

func (s *state) register(o operation, a *account) answer {
	switch {
	case a.id != 0:
		return answer{status: 400}
	case o.id != 0 && o.id <= s.lastID:
		return impossible // IDs count up
	}
	*a = account{id: cmp.Or(o.id, unknownID), password: o.password}
	s.lastID = max(s.lastID, o.id)
	return answer{status: 201}
}

func (s *state) login(o operation, a *account) answer {
	switch {
	case a.id == 0 || a.password != o.password:
		return answer{status: 401}
	case a.disabled:
		return answer{status: 400, detail: inactive}
	case a.id == unknownID && o.id > s.lastID:
		a.id, s.lastID = o.id, o.id // from the claims of the token
	case a.id != o.id && o.id != 0:
		return impossible
	}
	a.sessions = append(a.sessions, session{name: o.number, generation: 1})
	return answer{status: 200, generation: 1}
}

func (s *state) refresh(o operation, late bool) answer {
	a, v := s.find(o.session)
	if v == nil {
		return answer{status: 400}
	}
	current, before := o.generation == v.generation, o.generation == v.generation-1 && !late
	switch {
	case !current && !before:
		s.end(v.name)
		return answer{status: 400}
	case a.disabled:
		return answer{status: 400, detail: inactive}
	case current && (v.generation == 1 || late):
		v.generation++
		v.from, v.to = round(o.begin, o.end)
	}
	return answer{status: 200, generation: v.generation}
}

// round widens an interval a little, to make states equal that differ by nothing else.
func round(from, to time.Duration) (time.Duration, time.Duration) {
	const step = 100 * time.Millisecond
	if to < forever-step {
		to += step
	}
	return from.Truncate(step), to.Truncate(step)
}

// admit returns the account of the caller, or the refusal.
func (s *state) admit(o operation) (caller *account, refusal answer) {
	if o.by == root {
		return nil, answer{}
	}
	a, v := s.find(o.by)
	switch {
	case v == nil:
		refusal = answer{status: 401}
	case a.disabled:
		refusal = answer{status: 400, detail: inactive}
	case o.action == doReadUser && o.id == a.id: // a user may read their own account
	case o.action.admins() && !a.admin:
		refusal = answer{status: 403, detail: forbidden}
	}
	return a, refusal
}

// active reports whether introspection returns active for a token.
func (s *state) active(o operation, late bool) bool {
	a, v := s.find(o.session)
	if v == nil || a.disabled {
		return false
	}
	return o.generation == 0 || o.generation == v.generation || o.generation == v.generation-1 && !late
}

// own performs the actions of an account on itself.
func (s *state) own(o operation, a *account) answer {
	switch o.action {
	case doReadMe:
		return answer{status: 200, admin: a.admin}
	case doListSessions:
		return answer{status: 200, sessions: a.list(o.by)}
	case doEndOthers:
		a.sessions = slices.DeleteFunc(a.sessions, func(v session) bool { return v.name != o.by })
		return answer{status: 204}
	case doEndOne:
		if owner, _ := s.find(o.session); owner != a {
			return answer{status: 404}
		}
		s.end(o.session)
		return answer{status: 204}
	case doChangePassword:
		if a.password != o.password {
			return answer{status: 403, detail: wrongPassword}
		}
		a.password, a.sessions, a.links = o.next, []session{{name: o.number, generation: 1}}, nil
		return answer{status: 200, generation: 1}
	case doDeleteMe:
		switch {
		case a.password != o.password:
			return answer{status: 403, detail: wrongPassword}
		case s.lastAdmin(a):
			return answer{status: 409}
		}
		*a = account{}
		return answer{status: 204}
	}
	panic("no such action: " + o.action)
}

// administer performs the actions of an admin on an account.
func (s *state) administer(o operation, a *account, own bool) answer {
	switch {
	case own && (o.action == doReset || o.action == doDeleteUser || o.action == doMakeLink):
		return answer{status: 403} // their own account has another path
	case a.id == 0 || a.id != o.id:
		return answer{status: 404}
	case s.lastAdmin(a) && (o.action == doDisable || o.action == doDemote || o.action == doDeleteUser):
		return answer{status: 409}
	}
	switch o.action {
	case doDisable:
		a.disabled = true
	case doEnable:
		if a.disabled {
			a.disabled, a.sessions = false, nil
		}
	case doPromote, doDemote:
		a.admin = o.action == doPromote
	case doReset:
		a.password, a.sessions, a.links = o.next, nil, nil
		return answer{status: 204}
	case doMakeLink:
		a.links = append(a.links, o.number)
		return answer{status: 201}
	case doEndAll:
		a.sessions = nil
		return answer{status: 204}
	case doDeleteUser:
		*a = account{}
		return answer{status: 204}
	}
	return answer{status: 200, disabled: a.disabled, admin: a.admin}
}

// useLink sets a new password, which ends all links and sessions.
func (a *account) useLink(o operation) answer {
	switch {
	case !slices.Contains(a.links, o.session):
		return answer{status: 400}
	case a.disabled:
		return answer{status: 400, detail: inactive}
	}
	a.password, a.sessions, a.links = o.next, nil, nil
	return answer{status: 204}
}

// lastAdmin reports whether a is the last active admin.
func (s *state) lastAdmin(a *account) bool {
	if s.root || !a.admin || a.disabled {
		return false
	}
	others := 0
	for i := range s.accounts {
		if b := &s.accounts[i]; b != a && b.admin && !b.disabled {
			others++
		}
	}
	return others == 0
}

// find returns a session that has not ended, and its account, or nil.
func (s *state) find(name int) (*account, *session) {
	for i := range s.accounts {
		a := &s.accounts[i]
		for j := range a.sessions {
			if a.sessions[j].name == name {
				return a, &a.sessions[j]
			}
		}
	}
	return nil, nil
}

func (s *state) end(name int) {
	for i := range s.accounts {
		a := &s.accounts[i]
		a.sessions = slices.DeleteFunc(a.sessions, func(v session) bool { return v.name == name })
	}
}

// list returns the sessions of an account in the order of their names, which may differ
// from the order of their creation.
func (a *account) list(current int) string {
	var names []int
	for _, v := range a.sessions {
		names = append(names, v.name)
	}
	return sessionList(names, current)
}

func sessionList(names []int, current int) string {
	slices.Sort(names)
	var list []string
	for _, name := range names {
		text := strconv.Itoa(name)
		if name == current {
			text += "*"
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func (s *state) clone() *state {
	n := &state{accounts: slices.Clone(s.accounts), pending: slices.Clone(s.pending), lastID: s.lastID, root: s.root}
	for i := range n.accounts {
		n.accounts[i].sessions = slices.Clone(n.accounts[i].sessions)
		n.accounts[i].links = slices.Clone(n.accounts[i].links)
	}
	return n
}

// settled drops the pending requests that can no longer take effect, sorts the rest, and
// sets the key by which states are compared.
func (s *state) settled() *state {
	s.pending = slices.DeleteFunc(s.pending, s.hopeless)
	for i := range s.accounts {
		slices.SortFunc(s.accounts[i].sessions, func(a, b session) int { return cmp.Compare(a.name, b.name) })
	}
	var key []byte
	number := func(n int64) { key = append(strconv.AppendInt(key, n, 36), ' ') }
	flag := func(b bool) { key = strconv.AppendBool(key, b) }
	number(s.lastID)
	for _, a := range s.accounts {
		number(a.id)
		number(int64(a.password))
		flag(a.disabled)
		flag(a.admin)
		slices.Sort(a.links)
		number(int64(len(a.links)))
		for _, name := range a.links {
			number(int64(name))
		}
		number(int64(len(a.sessions)))
		for _, v := range a.sessions {
			number(int64(v.name))
			number(int64(v.generation))
			number(int64(v.from))
			number(int64(v.to))
		}
	}
	slices.SortFunc(s.pending, func(a, b operation) int { return cmp.Compare(a.number, b.number) })
	for _, o := range s.pending {
		number(int64(o.number))
	}
	s.key = string(key)
	return s
}

// hopeless reports whether a request can change nothing, whatever happens before it. An
// ended session never becomes live again, and an ID is never reused. The session exists, as
// its token was known before the request was sent.
func (s *state) hopeless(o operation) bool {
	gone := func(name int) bool {
		_, v := s.find(name)
		return v == nil
	}
	switch o.action {
	case doRegister, doLogin:
		return false
	case doUseLink:
		return !slices.Contains(s.accounts[o.account].links, o.session)
	case doRefresh, doRevoke:
		return gone(o.session)
	case doEndOne:
		return gone(o.session) || gone(o.by)
	}
	return o.by != root && gone(o.by) || o.action.admins() && s.accounts[o.account].id != o.id
}

func sameAccounts(a, b []account) bool {
	return slices.EqualFunc(a, b, func(a, b account) bool {
		return a.id == b.id && a.password == b.password && a.disabled == b.disabled && a.admin == b.admin && slices.Equal(a.sessions, b.sessions) && slices.Equal(a.links, b.links)
	})
}

func (s *state) String() string {
	var b strings.Builder
	for _, a := range s.accounts {
		if a.id == 0 {
			b.WriteString("no account. ")
			continue
		}
		role := "user"
		if a.admin {
			role = "admin"
		}
		if a.disabled {
			role = "disabled " + role
		}
		fmt.Fprintf(&b, "%s %d, password %d, sessions:", role, a.id, a.password)
		for _, v := range a.sessions {
			fmt.Fprintf(&b, " %d/%d", v.name, v.generation)
		}
		b.WriteString(". ")
	}
	for _, o := range s.pending {
		fmt.Fprintf(&b, "Pending: %v. ", o)
	}
	return b.String()
}

func (o operation) String() string {
	text := string(o.action)
	if o.action.admins() {
		text = strings.Replace(text, "{id}", fmt.Sprint(o.id), 1)
	}
	switch o.action {
	case doLogin:
		text += fmt.Sprintf(", password %d, for session %d", o.password, o.number)
	case doRegister, doDeleteMe:
		text += fmt.Sprint(", password ", o.password)
	case doChangePassword:
		text += fmt.Sprintf(", password %d to %d, for session %d", o.password, o.next, o.number)
	case doReset:
		text += fmt.Sprint(", password ", o.next)
	case doMakeLink:
		text += fmt.Sprint(", link ", o.number)
	case doUseLink:
		text += fmt.Sprintf(", link %d, password %d", o.session, o.next)
	case doRefresh, doRevoke, doIntrospect:
		text += fmt.Sprintf(", token %d of session %d", o.generation, o.session)
	case doEndOne:
		text += fmt.Sprint(", session ", o.session)
	}
	switch {
	case o.by == root:
		text += ", by root"
	case o.by != 0:
		text += fmt.Sprint(", by session ", o.by)
	}
	return text
}

func (a answer) String() string {
	if a.lost() {
		return "lost"
	}
	text := strconv.Itoa(a.status)
	if a.detail != "" {
		text += " " + a.detail
	}
	if a.generation != 0 {
		text += fmt.Sprint(", token ", a.generation)
	}
	if a.sessions != "" {
		text += ", sessions " + a.sessions
	}
	if a.disabled {
		text += ", disabled"
	}
	if a.admin {
		text += ", admin"
	}
	if a.active {
		text += ", active"
	}
	return text
}

// TestModelTellsHistoriesThatTheContractAllows: each row is a history of an account with
// the password 1 and the sessions 1 and 2.
func TestModelTellsHistoriesThatTheContractAllows(t *testing.T) {
	const second = 1000
	first := state{root: true, lastID: 7, accounts: []account{{id: 7, password: 1, sessions: []session{{name: 1, generation: 1}, {name: 2, generation: 1}}}}}
	me := func(from, to, by, status int) porcupine.Operation {
		return event(from, to, operation{action: doReadMe, by: by}, answer{status: status})
	}
	list := func(from, to int, sessions string) porcupine.Operation {
		return event(from, to, operation{action: doListSessions, by: 1}, answer{status: 200, sessions: sessions})
	}
	revoke := func(from, to, status int) porcupine.Operation {
		return event(from, to, operation{action: doRevoke, session: 1}, answer{status: status})
	}
	refresh := func(from, to, sent, got int) porcupine.Operation {
		out := answer{status: 200, generation: got}
		if got == 0 {
			out.status = 400
		}
		return event(from, to, operation{action: doRefresh, session: 1, generation: sent}, out)
	}
	endOthers := func(from, to, by, status int) porcupine.Operation {
		return event(from, to, operation{action: doEndOthers, by: by}, answer{status: status})
	}
	login := func(from, to, password, status int) porcupine.Operation {
		out := answer{status: status}
		if status == 200 {
			out.generation = 1
		}
		return event(from, to, operation{number: 3, action: doLogin, password: password}, out)
	}
	admin := func(from, to int, what action, out answer) porcupine.Operation {
		return event(from, to, operation{action: what, by: root, id: 7, next: 2}, out)
	}
	useLink := func(from, to, status int) porcupine.Operation {
		return event(from, to, operation{action: doUseLink, session: 101, next: 2}, answer{status: status})
	}
	change := func(from, to, password, status int) porcupine.Operation {
		return event(from, to, operation{number: 4, action: doChangePassword, by: 1, password: password, next: 2}, answer{status: status, generation: 1})
	}
	register := func(from, to int, id int64, status int) porcupine.Operation {
		return event(from, to, operation{action: doRegister, id: id, password: 1}, answer{status: status})
	}
	killed := func(from, to int) porcupine.Operation {
		return event(from, to, operation{action: crash}, answer{status: 1})
	}
	disabled := admin(0, 1, doDisable, answer{status: 200, disabled: true})
	const lost = 0
	type history = []porcupine.Operation
	for _, test := range []struct {
		what    string
		allowed bool
		history history
	}{
		{"a session is refused after a logout", true, history{revoke(0, 1, 200), me(2, 3, 1, 401)}},
		{"a session is accepted after a logout", false, history{revoke(0, 1, 200), me(2, 3, 1, 200)}},
		{"a session is accepted and then refused during a logout", true, history{revoke(0, 9, 200), me(1, 2, 1, 200), me(3, 4, 1, 401)}},
		{"a session is refused and then accepted during a logout", false, history{revoke(0, 9, 200), me(1, 2, 1, 401), me(3, 4, 1, 200)}},

		{"one of two sessions is refused if both end all others at once", true, history{endOthers(0, 2, 1, 204), endOthers(1, 3, 2, 401)}},
		{"neither of two sessions is refused if both end all others at once", false, history{endOthers(0, 2, 1, 204), endOthers(1, 3, 2, 204)}},

		{"a lost logout takes effect", true, history{revoke(0, 1, lost), me(2, 3, 1, 401)}},
		{"a lost logout takes effect late", true, history{revoke(0, 1, lost), me(2, 3, 1, 200), me(4, 5, 1, 401)}},
		{"a lost logout never takes effect", true, history{revoke(0, 1, lost), me(2, 3, 1, 200), me(4, 5, 1, 200)}},
		{"a lost logout takes effect and is undone", false, history{revoke(0, 1, lost), me(2, 3, 1, 401), me(4, 5, 1, 200)}},
		{"a lost login takes effect late", true, history{login(0, 1, 1, lost), list(2, 3, "1* 2"), list(4, 5, "1* 2 3")}},
		{"a lost login takes effect twice", false, history{login(0, 1, 1, lost), list(2, 3, "1* 2 3"), endOthers(4, 5, 1, 204), list(6, 7, "1*"), list(8, 9, "1* 3")}},

		{"a logout that a crash interrupts takes effect", true, history{revoke(0, 1, lost), killed(1, 2), me(3, 4, 1, 401)}},
		{"a logout that a crash interrupts takes effect after the crash", false, history{revoke(0, 1, lost), killed(1, 2), me(3, 4, 1, 200), me(5, 6, 1, 401)}},
		{"a crash undoes a logout", false, history{revoke(0, 1, 200), killed(1, 2), me(3, 4, 1, 200)}},

		{"two refreshes of one token have one successor", true, history{refresh(0, 2, 1, 2), refresh(1, 3, 1, 2)}},
		{"two refreshes of one token have two successors", false, history{refresh(0, 2, 1, 2), refresh(1, 3, 1, 3)}},
		{"a replaced refresh token is accepted after 55 s", true, history{refresh(0, 1, 1, 2), refresh(55*second, 55*second+1, 1, 2)}},
		{"a replaced refresh token is refused after 55 s", false, history{refresh(0, 1, 1, 2), refresh(55*second, 55*second+1, 1, 0)}},
		{"a replaced refresh token is accepted at 60 s", true, history{refresh(0, 1, 1, 2), refresh(60*second, 60*second+1, 1, 2)}},
		{"a replaced refresh token is refused at 60 s", true, history{refresh(0, 1, 1, 2), refresh(60*second, 60*second+1, 1, 0)}},
		{"a replaced refresh token is accepted after 65 s", false, history{refresh(0, 1, 1, 2), refresh(65*second, 65*second+1, 1, 2)}},
		{"a replaced refresh token ends its session after 65 s", true, history{refresh(0, 1, 1, 2), refresh(65*second, 65*second+1, 1, 0), me(66*second, 67*second, 1, 401)}},
		{"a replaced refresh token is accepted 57 s after a rotation that took 8 s", true, history{refresh(0, 8*second, 1, 2), refresh(65*second, 65*second+1, 1, 2)}},
		{"a refresh token two rotations old is refused but its session stays", false, history{
			refresh(0, 1, 1, 2), refresh(2*second, 2*second+1, 2, 3), refresh(4*second, 4*second+1, 1, 0), me(6*second, 7*second, 1, 200),
		}},
		{"a current refresh token is its own successor half a second after a rotation", true, history{refresh(0, 1, 1, 2), refresh(500, 501, 2, 2), refresh(2*second, 2*second+1, 1, 2)}},
		{"a current refresh token has a successor half a second after a rotation", false, history{refresh(0, 1, 1, 2), refresh(500, 501, 2, 3)}},
		{"a current refresh token is its own successor two seconds after a rotation", false, history{refresh(0, 1, 1, 2), refresh(2*second, 2*second+1, 2, 2)}},

		{"a session of a disabled account gets a 400", true, history{disabled, event(2, 3, operation{action: doReadMe, by: 1}, answer{status: 400, detail: inactive})}},
		{"a session is accepted after its account was disabled and enabled", false, history{disabled, admin(2, 3, doEnable, answer{status: 200}), me(4, 5, 1, 200)}},
		{"a session stays when its account is enabled without being disabled", true, history{admin(0, 1, doEnable, answer{status: 200}), me(2, 3, 1, 200)}},
		{"a password reset ends all sessions", true, history{admin(0, 1, doReset, answer{status: 204}), me(2, 3, 1, 401), login(4, 5, 1, 401), login(6, 7, 2, 200)}},
		{"a login with the old password succeeds after a password reset", false, history{admin(0, 1, doReset, answer{status: 204}), login(2, 3, 1, 200)}},
		{"a login with the old password succeeds during a password reset", true, history{admin(1, 2, doReset, answer{status: 204}), login(0, 3, 1, 200)}},
		{"a password change ends the calling session and creates a new one", true, history{change(0, 1, 1, 200), me(2, 3, 1, 401), me(4, 5, 2, 401), me(6, 7, 4, 200)}},
		{"an ended session changes the password", false, history{revoke(0, 1, 200), change(2, 3, 1, 200)}},
		{"a wrong current password changes the password", false, history{change(0, 1, 5, 200)}},
		{"a link sets a new password and ends all sessions", true, history{admin(0, 1, doMakeLink, answer{status: 201}), useLink(2, 3, 204), me(4, 5, 1, 401), login(6, 7, 1, 401), login(8, 9, 2, 200)}},
		{"a link works twice", false, history{admin(0, 1, doMakeLink, answer{status: 201}), useLink(2, 3, 204), useLink(4, 5, 204)}},
		{"of two resets with one link at once, one wins", true, history{admin(0, 1, doMakeLink, answer{status: 201}), useLink(2, 4, 204), useLink(3, 5, 400)}},
		{"two resets with one link at once both win", false, history{admin(0, 1, doMakeLink, answer{status: 201}), useLink(2, 4, 204), useLink(3, 5, 204)}},
		{"a link works after a password reset", false, history{admin(0, 1, doMakeLink, answer{status: 201}), admin(2, 3, doReset, answer{status: 204}), useLink(4, 5, 204)}},
		{"a login with the old password during a reset leaves a session", false, history{admin(0, 1, doMakeLink, answer{status: 201}), useLink(3, 4, 204), login(2, 5, 1, 200), me(6, 7, 3, 200)}},
		{"a username is taken until its account is deleted", true, history{register(0, 1, 8, 400), admin(2, 3, doDeleteUser, answer{status: 204}), register(4, 5, 8, 201)}},
		{"two accounts have one username", false, history{register(0, 1, 8, 201)}},
		{"a new account has the ID of a deleted one", false, history{admin(0, 1, doDeleteUser, answer{status: 204}), register(2, 3, 7, 201)}},
		{"a session of a deleted account is accepted", false, history{admin(0, 1, doDeleteUser, answer{status: 204}), me(2, 3, 1, 200)}},
	} {
		verb := "rejects"
		if test.allowed {
			verb = "allows"
		}
		t.Run("the model "+verb+" that "+test.what, func(t *testing.T) {
			number := 100
			for i, p := range test.history {
				o := p.Input.(operation)
				if number++; o.number == 0 {
					o.number = number
				}
				test.history[i].Input = o
			}
			if got := porcupine.CheckOperations(newModel(first), test.history); got != test.allowed {
				t.Errorf("CheckOperations() = %t, want %t", got, test.allowed)
			}
			if explained := explain(first, test.history) != unexplained; explained == test.allowed {
				t.Errorf("explain() has an explanation: %t, want %t", explained, !test.allowed)
			}
		})
	}
}

// event returns an operation from one millisecond to another.
func event(from, to int, o operation, out answer) porcupine.Operation {
	o.begin, o.end = time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond
	p := porcupine.Operation{Call: int64(o.begin), Return: int64(o.end)}
	if out.lost() {
		o.end, p.Return = forever, p.Call
	}
	p.Input, p.Output = o, out
	return p
}
