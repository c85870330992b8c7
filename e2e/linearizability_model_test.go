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

// This file is the contract as a state machine: what one account may answer to
// each request, and what becomes of it. Porcupine compares histories with it.
//
// The machine knows no text. Passwords are numbers, a session is the number of
// the request that made it, and a token is a session with a generation: 1 for
// the first refresh token and 0 for an access token.

// An action is what a request asks for.
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

	// An admin's.
	doReadUser   action = "GET /users/{id}"
	doDisable    action = "PATCH /users/{id} disabled=true"
	doEnable     action = "PATCH /users/{id} disabled=false"
	doPromote    action = "PATCH /users/{id} role=admin"
	doDemote     action = "PATCH /users/{id} role=user"
	doReset      action = "PUT /users/{id}/password"
	doEndAll     action = "DELETE /users/{id}/sessions"
	doDeleteUser action = "DELETE /users/{id}"

	// No request: the only copy of the server was killed.
	crash action = "kill -9"
)

// reads reports whether a request changes nothing, whatever its answer.
func (a action) reads() bool {
	return slices.Contains([]action{doIntrospect, doReadMe, doListSessions, doReadUser}, a)
}

// admins reports whether it is for admins, about an account of which they know
// the ID.
func (a action) admins() bool {
	return slices.Contains([]action{doReadUser, doDisable, doEnable, doPromote, doDemote, doReset, doEndAll, doDeleteUser}, a)
}

// root stands for the session of an admin who is outside of the history, so that
// nothing ever happens to it.
const root = -1

// An operation is one request, and what is known of it afterwards.
type operation struct {
	number     int // of the request; and of the session, if it makes one
	action     action
	account    int   // which of the history's accounts it is about
	id         int64 // of that account: in the path, or in the answer; 0 if in neither
	by         int   // the session whose access token it carries, or root
	session    int   // the session that it names
	generation int   // of the token that it names
	password   int   // which it presents
	next       int   // and which it sets
	begin, end time.Duration
}

// An answer is the part of an answer that the contract decides.
type answer struct {
	status          int    // 0 if it was lost
	detail          string // where two refusals share a status
	generation      int    // of the refresh token in it
	disabled, admin bool   // of the user in it
	sessions        string // the list in it, the current one with a star
	active          bool
}

const (
	inactive      = "Inactive user"
	wrongPassword = "Incorrect password"
	forbidden     = "Not enough permissions"
)

// impossible is an answer that no server gives.
var impossible = answer{status: -1}

// lost reports whether nobody knows if the request has happened: no answer came,
// or a 503.
func (a answer) lost() bool { return a.status == 0 }

// forever is when a request ends whose answer was lost.
const forever = time.Duration(1<<63 - 1)

const (
	grace = 10 * time.Second

	// Copies of the server and this test look at the clock at different moments
	// of a request, and the clock may be set. The model takes either side of the
	// grace period for possible when its end is as near as this.
	graceSlack = time.Second
)

// A state is what is so at one moment.
type state struct {
	accounts []account

	// Requests whose answer was lost, and which have not happened. Each of them
	// may happen once, at any later moment, or never.
	pending []operation

	lastID int64 // the highest ID that is known to have been given
	root   bool  // there is one more admin
	key    string
}

type account struct {
	id              int64 // 0 if there is no account
	password        int
	disabled, admin bool
	sessions        []session // those that have not ended
}

// unknownID is the ID of an account whose registration was not answered.
const unknownID = -1

type session struct {
	name       int
	generation int // of the current refresh token

	// The server took the time of the last rotation between these.
	from, to time.Duration
}

// newModel returns the model of a history that begins in the state.
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

// step returns the states that may follow when o was answered with out.
//
// A lost request is pending from the moment at which it was sent, so that is where
// it stands in the history, and it may happen before any later step. Porcupine
// need not search for the moment: what is answered later rules states out.
func (s *state) step(o operation, out answer) (next []any) {
	if out.lost() {
		n := s.clone()
		n.pending = append(n.pending, o)
		return []any{n.settled()}
	}
	for _, f := range s.futures(o.end) {
		if o.action == crash {
			n := f.clone()
			n.pending = nil // what a dead process has not done, it never does
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

// futures returns the states that s may have become by now without any answer:
// some of the pending requests have happened, in some order.
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

// late returns what may be true of the refresh token in a request that happens
// before end: that the grace period for the token before the current one is
// over, or not. The server compares two times, that of the last rotation and
// that of this request. The first lies in [from, to] and the second in
// [begin, end], so their distance lies between begin-to and end-from.
func (s *state) late(o operation, end time.Duration) []bool {
	_, v := s.find(o.session)
	if o.action != doRefresh && o.action != doIntrospect || v == nil || o.generation != v.generation-1 {
		return []bool{false} // it does not matter
	}
	switch {
	case end-v.from < grace-graceSlack:
		return []bool{false}
	case o.begin-v.to > grace+graceSlack:
		return []bool{true}
	}
	return []bool{false, true}
}

// perform does what o asks for, as far as the contract allows it, and returns
// the answer.
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
		a.id, s.lastID = o.id, o.id // told by the token
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
	case current:
		v.generation++
		v.from, v.to = round(o.begin, o.end)
	}
	return answer{status: 200, generation: v.generation}
}

// round widens an interval a little, so that states which differ by nothing else
// are equal.
func round(from, to time.Duration) (time.Duration, time.Duration) {
	const step = 100 * time.Millisecond
	if to < forever-step {
		to += step
	}
	return from.Truncate(step), to.Truncate(step)
}

// admit finds out who is calling, and whether it may.
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
	case o.action == doReadUser && o.id == a.id: // may be read by its user
	case o.action.admins() && !a.admin:
		refusal = answer{status: 403, detail: forbidden}
	}
	return a, refusal
}

// active is what an introspection says of a token.
func (s *state) active(o operation, late bool) bool {
	a, v := s.find(o.session)
	if v == nil || a.disabled {
		return false
	}
	return o.generation == 0 || o.generation == v.generation || o.generation == v.generation-1 && !late
}

// own is what an account may do to itself.
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
		a.password, a.sessions = o.next, []session{{name: o.number, generation: 1}}
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

// administer is what an admin may do to an account.
func (s *state) administer(o operation, a *account, own bool) answer {
	switch {
	case own && (o.action == doReset || o.action == doDeleteUser):
		return answer{status: 403} // there is another path for that
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
		a.password, a.sessions = o.next, nil
		return answer{status: 204}
	case doEndAll:
		a.sessions = nil
		return answer{status: 204}
	case doDeleteUser:
		*a = account{}
		return answer{status: 204}
	}
	return answer{status: 200, disabled: a.disabled, admin: a.admin}
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

// find returns a session that has not ended with its account, or nil.
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

// list is the account's sessions in the order of their names, which is not
// always that in which they were made.
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
	}
	return n
}

// settled drops the pending requests that can do nothing any more, brings the
// rest into one order, and makes the key by which states are compared.
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

// hopeless reports whether a request can change nothing, whatever happens before
// it: a session that has ended never comes back, nor does an account's ID. Its
// token was known before the request was sent, so the session has been made.
func (s *state) hopeless(o operation) bool {
	gone := func(name int) bool {
		_, v := s.find(name)
		return v == nil
	}
	switch o.action {
	case doRegister, doLogin:
		return false
	case doRefresh, doRevoke:
		return gone(o.session)
	case doEndOne:
		return gone(o.session) || gone(o.by)
	}
	return o.by != root && gone(o.by) || o.action.admins() && s.accounts[o.account].id != o.id
}

func sameAccounts(a, b []account) bool {
	return slices.EqualFunc(a, b, func(a, b account) bool {
		return a.id == b.id && a.password == b.password && a.disabled == b.disabled && a.admin == b.admin && slices.Equal(a.sessions, b.sessions)
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
		fmt.Fprintf(&b, "May still happen: %v. ", o)
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

// Each row is a history of an account with the password 1 and the sessions 1 and 2.
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
	change := func(from, to, password, status int) porcupine.Operation {
		return event(from, to, operation{number: 4, action: doChangePassword, by: 1, password: password, next: 2}, answer{status: status, generation: 1})
	}
	register := func(from, to int, id int64, status int) porcupine.Operation {
		return event(from, to, operation{action: doRegister, id: id, password: 1}, answer{status: status})
	}
	killed := func(from, to int) porcupine.Operation {
		return event(from, to, operation{action: crash}, answer{status: 1})
	}
	const lost = 0
	type history = []porcupine.Operation
	for _, test := range []struct {
		what    string
		allowed bool
		history history
	}{
		{"a session is refused after a logout", true, history{revoke(0, 1, 200), me(2, 3, 1, 401)}},
		{"a session is let in after a logout", false, history{revoke(0, 1, 200), me(2, 3, 1, 200)}},
		{"a session is let in and then refused during a logout", true, history{revoke(0, 9, 200), me(1, 2, 1, 200), me(3, 4, 1, 401)}},
		{"a session is refused and then let in during a logout", false, history{revoke(0, 9, 200), me(1, 2, 1, 401), me(3, 4, 1, 200)}},

		{"two sessions end all others at once, one is refused", true, history{endOthers(0, 2, 1, 204), endOthers(1, 3, 2, 401)}},
		{"two sessions end all others at once, none is refused", false, history{endOthers(0, 2, 1, 204), endOthers(1, 3, 2, 204)}},

		{"a lost logout has happened", true, history{revoke(0, 1, lost), me(2, 3, 1, 401)}},
		{"a lost logout happens late", true, history{revoke(0, 1, lost), me(2, 3, 1, 200), me(4, 5, 1, 401)}},
		{"a lost logout never happens", true, history{revoke(0, 1, lost), me(2, 3, 1, 200), me(4, 5, 1, 200)}},
		{"a lost logout is undone", false, history{revoke(0, 1, lost), me(2, 3, 1, 401), me(4, 5, 1, 200)}},
		{"a lost login happens late", true, history{login(0, 1, 1, lost), list(2, 3, "1* 2"), list(4, 5, "1* 2 3")}},
		{"a lost login happens twice", false, history{login(0, 1, 1, lost), list(2, 3, "1* 2 3"), endOthers(4, 5, 1, 204), list(6, 7, "1*"), list(8, 9, "1* 3")}},

		{"a logout that was cut off by a crash has happened", true, history{revoke(0, 1, lost), killed(1, 2), me(3, 4, 1, 401)}},
		{"a logout that was cut off by a crash happens afterwards", false, history{revoke(0, 1, lost), killed(1, 2), me(3, 4, 1, 200), me(5, 6, 1, 401)}},
		{"a logout is forgotten in a crash", false, history{revoke(0, 1, 200), killed(1, 2), me(3, 4, 1, 200)}},

		{"two refreshes of one token have one successor", true, history{refresh(0, 2, 1, 2), refresh(1, 3, 1, 2)}},
		{"two refreshes of one token have two successors", false, history{refresh(0, 2, 1, 2), refresh(1, 3, 1, 3)}},
		{"the token before the current one is answered after 5 s", true, history{refresh(0, 1, 1, 2), refresh(5*second, 5*second+1, 1, 2)}},
		{"the token before the current one is refused after 5 s", false, history{refresh(0, 1, 1, 2), refresh(5*second, 5*second+1, 1, 0)}},
		{"the token before the current one is answered at 10 s", true, history{refresh(0, 1, 1, 2), refresh(10*second, 10*second+1, 1, 2)}},
		{"the token before the current one is refused at 10 s", true, history{refresh(0, 1, 1, 2), refresh(10*second, 10*second+1, 1, 0)}},
		{"the token before the current one is answered after 15 s", false, history{refresh(0, 1, 1, 2), refresh(15*second, 15*second+1, 1, 2)}},
		{"the token before the current one ends its session after 15 s", true, history{refresh(0, 1, 1, 2), refresh(15*second, 15*second+1, 1, 0), me(16*second, 17*second, 1, 401)}},
		{"the token before the current one is answered late after a long rotation", true, history{refresh(0, 8*second, 1, 2), refresh(15*second, 15*second+1, 1, 2)}},
		{"an old token is refused and its session goes on", false, history{refresh(0, 1, 1, 2), refresh(2, 3, 2, 3), refresh(4, 5, 1, 0), me(6, 7, 1, 200)}},

		{"a session sleeps while its account is disabled", true, history{admin(0, 1, doDisable, answer{status: 200, disabled: true}), event(2, 3, operation{action: doReadMe, by: 1}, answer{status: 400, detail: inactive})}},
		{"a session survives that its account is disabled and enabled", false, history{admin(0, 1, doDisable, answer{status: 200, disabled: true}), admin(2, 3, doEnable, answer{status: 200}), me(4, 5, 1, 200)}},
		{"enabling an account that is not disabled ends nothing", true, history{admin(0, 1, doEnable, answer{status: 200}), me(2, 3, 1, 200)}},
		{"a reset ends all sessions", true, history{admin(0, 1, doReset, answer{status: 204}), me(2, 3, 1, 401), login(4, 5, 1, 401), login(6, 7, 2, 200)}},
		{"a login with the old password ends after a reset", false, history{admin(0, 1, doReset, answer{status: 204}), login(2, 3, 1, 200)}},
		{"a login is under way during a reset", true, history{admin(1, 2, doReset, answer{status: 204}), login(0, 3, 1, 200)}},
		{"a password change ends the session that asks for it", true, history{change(0, 1, 1, 200), me(2, 3, 1, 401), me(4, 5, 2, 401), me(6, 7, 4, 200)}},
		{"a password is changed by a session that has ended", false, history{revoke(0, 1, 200), change(2, 3, 1, 200)}},
		{"a password is changed with a wrong one", false, history{change(0, 1, 5, 200)}},
		{"a name is taken", true, history{register(0, 1, 8, 400), admin(2, 3, doDeleteUser, answer{status: 204}), register(4, 5, 8, 201)}},
		{"a name is given twice", false, history{register(0, 1, 8, 201)}},
		{"an ID is given twice", false, history{admin(0, 1, doDeleteUser, answer{status: 204}), register(2, 3, 7, 201)}},
		{"a deleted account is there", false, history{admin(0, 1, doDeleteUser, answer{status: 204}), me(2, 3, 1, 200)}},
	} {
		t.Run(test.what, func(t *testing.T) {
			number := 100
			for i, p := range test.history {
				o := p.Input.(operation)
				if number++; o.number == 0 {
					o.number = number
				}
				test.history[i].Input = o
			}
			if got := porcupine.CheckOperations(newModel(first), test.history); got != test.allowed {
				t.Errorf("allowed = %t, want %t", got, test.allowed)
			}
			if explained := explain(first, test.history) != unexplained; explained == test.allowed {
				t.Errorf("explained = %t, want %t", explained, !test.allowed)
			}
		})
	}
}

// event is an operation between two milliseconds.
func event(from, to int, o operation, out answer) porcupine.Operation {
	o.begin, o.end = time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond
	p := porcupine.Operation{Call: int64(o.begin), Return: int64(o.end)}
	if out.lost() {
		o.end, p.Return = forever, p.Call
	}
	p.Input, p.Output = o, out
	return p
}
