package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A MemoryStore keeps everything in maps and slices, for as long as the process
// lives. It is the reference for what a [Store] does, and the larger half of
// the [FileStore]: every change is first decided, as a value of type change,
// and then made from that value alone. What is needed to have the change again
// later is to keep the value.
type MemoryStore struct {
	mu sync.RWMutex

	// What readers see. Accounts are in the order of their IDs. An account is
	// never changed in place: a new value takes its position.
	accounts []*account
	names    map[string]int64 // in lower case

	// What the next change builds on: the accounts whose newest value is not
	// durable yet, and so not for readers; nil if deleted.
	pending map[int64]*account

	claimed map[string]int64 // names of pending new accounts, in lower case
	admins  int              // active ones
	lastID  int64            // the highest ID ever given

	sweeper int // position of the account to look at next for expired sessions

	// persist, if not nil, is told of each change while mu is held. It returns
	// a function that waits, without mu, until all it was told so far is
	// durable, and published.
	persist func(c change, next *account) (wait func() error, err error)
}

// An account is a user with the sessions, in the order of their logins. A store
// may hold a million of them, so all the text of a user is one string: that
// takes 284 bytes for an account where a User takes 380.
type account struct {
	id, epoch, created int64  // created in Unix seconds
	text               string // username, email, full name and password hash
	ends               [3]int32
	disabled, admin    bool
	sessions           []Session
}

func newAccount(u User, sessions []Session) *account {
	a := &account{id: u.ID, epoch: u.Epoch, created: u.CreatedAt.Unix(), disabled: u.Disabled, admin: u.Role == RoleAdmin, sessions: sessions}
	a.text = u.Username + u.Email + u.FullName + u.PasswordHash
	for i, part := range []string{u.Username, u.Email, u.FullName} {
		a.ends[i] = a.ends[max(i-1, 0)] + int32(len(part))
	}
	return a
}

func (a *account) name() string { return a.text[:a.ends[0]] }

func (a *account) user() User {
	name, email, full := a.ends[0], a.ends[1], a.ends[2]
	u := User{
		ID: a.id, Username: a.name(), Email: a.text[name:email], FullName: a.text[email:full], PasswordHash: a.text[full:],
		Disabled: a.disabled, Role: RoleUser, CreatedAt: time.Unix(a.created, 0).UTC(), Epoch: a.epoch,
	}
	if a.admin {
		u.Role = RoleAdmin
	}
	return u
}

// A change is what happens to one account: ID and one field more are set. It
// is also one line of the file store.
type change struct {
	LastID  int64    `json:"last_id,omitempty"` // alone: all IDs up to this have been given
	ID      int64    `json:"id,omitempty"`      // of the account
	User    *User    `json:"user,omitempty"`    // the account is now so
	Deleted bool     `json:"deleted,omitempty"` // the account is gone
	Session *Session `json:"session,omitempty"` // made or renewed
	Ended   string   `json:"ended,omitempty"`   // the session that is over
	Kept    *string  `json:"kept,omitempty"`    // the one session that is not over
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{names: map[string]int64{}, pending: map[int64]*account{}, claimed: map[string]int64{}}
}

func (m *MemoryStore) CreateUser(ctx context.Context, u User) (User, error) {
	err := m.change(func() (change, error) {
		if m.taken(u.Username) {
			return change{}, ErrUsernameTaken
		}
		u.ID = m.lastID + 1
		return change{ID: u.ID, User: &u}, nil
	})
	return u, err
}

func (m *MemoryStore) User(ctx context.Context, id int64) (User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.user(id)
}

func (m *MemoryStore) UserByName(ctx context.Context, name string) (User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.user(m.names[strings.ToLower(name)])
}

func (m *MemoryStore) user(id int64) (User, error) {
	if i, ok := m.position(id); ok {
		return m.accounts[i].user(), nil
	}
	return User{}, ErrNotFound
}

func (m *MemoryStore) Users(ctx context.Context, after int64, limit int) ([]User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	start, found := m.position(after)
	if found {
		start++
	}
	page := m.accounts[start:]
	users := make([]User, min(limit, len(page)))
	for i := range users {
		users[i] = page[i].user()
	}
	return users, nil
}

func (m *MemoryStore) UpdateUser(ctx context.Context, id int64, update func(*User) error) (u User, err error) {
	err = m.change(func() (change, error) {
		a := m.latest(id)
		if a == nil {
			return change{}, ErrNotFound
		}
		old := a.user()
		u = old
		if err := update(&u); err != nil {
			return change{}, err
		}
		u.ID, u.Username, u.CreatedAt = old.ID, old.Username, old.CreatedAt
		if u == old {
			return change{}, nil
		}
		return change{ID: id, User: &u}, nil
	})
	return u, err
}

func (m *MemoryStore) DeleteUser(ctx context.Context, id int64, check func(User) error) error {
	return m.change(func() (change, error) {
		a := m.latest(id)
		if a == nil {
			return change{}, ErrNotFound
		}
		return change{ID: id, Deleted: true}, check(a.user())
	})
}

func (m *MemoryStore) CreateSession(ctx context.Context, s Session) error {
	return m.change(func() (change, error) {
		a := m.latest(s.UserID)
		switch {
		case a == nil:
			return change{}, ErrNotFound
		case a.epoch != s.Epoch:
			return change{}, ErrStale
		case a.disabled:
			return change{}, ErrInactive
		}
		return change{ID: s.UserID, Session: &s}, nil
	})
}

func (m *MemoryStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if i, ok := m.position(userID); ok {
		a := m.accounts[i]
		if s := a.session(id); s != nil {
			return *s, a.user(), nil
		}
	}
	return Session{}, User{}, ErrNotFound
}

func (m *MemoryStore) Sessions(ctx context.Context, userID int64) (live []Session, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if i, ok := m.position(userID); ok {
		live = m.accounts[i].live(time.Now())
	}
	return live, nil
}

func (m *MemoryStore) UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (s Session, u User, err error) {
	err = m.change(func() (change, error) {
		a := m.latest(userID)
		old := a.session(id)
		if old == nil {
			return change{}, ErrNotFound
		}
		next := *old
		if err := update(&next, a.user()); err != nil {
			return change{}, err
		}
		s, u = *old, a.user()
		s.Generation, s.LastUsedAt, s.ExpiresAt = next.Generation, next.LastUsedAt, next.ExpiresAt
		if s == *old {
			return change{}, nil
		}
		return change{ID: userID, Session: &s}, nil
	})
	return s, u, err
}

func (m *MemoryStore) EndSession(ctx context.Context, userID int64, id string) error {
	return m.change(func() (change, error) {
		a := m.latest(userID)
		if a.session(id) == nil {
			return change{}, ErrNotFound
		}
		return change{ID: userID, Ended: id}, nil
	})
}

func (m *MemoryStore) EndSessions(ctx context.Context, userID int64, keep string) error {
	return m.change(func() (change, error) {
		if m.latest(userID) == nil {
			return change{}, ErrNotFound
		}
		return change{ID: userID, Kept: &keep}, nil
	})
}

func (m *MemoryStore) Import(ctx context.Context, users []User, lastID int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lastID != 0 {
		return ErrNotEmpty
	}
	var changes []change
	for _, u := range users {
		changes = append(changes, change{ID: u.ID, User: &u})
	}
	if lastID > 0 {
		changes = append(changes, change{LastID: lastID}) // last: no new account may have an ID below it
	}
	wait := func() error { return nil }
	for _, c := range changes {
		var err error
		if wait, err = m.make(c); err != nil {
			return err
		}
	}
	m.mu.Unlock()
	defer m.mu.Lock()
	return wait()
}

func (m *MemoryStore) Ready(ctx context.Context) error { return nil }

func (m *MemoryStore) Close() error { return nil }

// change is how everything changes: decide looks at the newest state and says
// what shall happen, which then happens in one step. Where it wants nothing to
// happen, with an empty change and no error, what it saw is made durable.
func (m *MemoryStore) change(decide func() (change, error)) error {
	wait, err := m.decide(decide)
	if err != nil {
		return err
	}
	return wait()
}

func (m *MemoryStore) decide(decide func() (change, error)) (wait func() error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock() // deferred: one request that panics must not stop all others
	c, err := decide()
	if err != nil {
		return nil, err
	}
	if old := m.latest(c.ID); m.admins == 1 && old.activeAdmin() && !old.after(c).activeAdmin() {
		return nil, ErrLastAdmin
	}
	return m.make(c)
}

// make makes a change, and returns what waits, without mu, until it is durable.
func (m *MemoryStore) make(c change) (wait func() error, err error) {
	if err := m.possible(c); err != nil && c != (change{}) {
		return nil, err // nothing is kept that a replay would refuse
	}
	old := m.latest(c.ID)
	next := old.after(c)
	if m.persist == nil {
		m.stage(c, old, next)
		m.publish(c, next)
		m.sweep(c)
		return func() error { return nil }, nil
	}
	if wait, err = m.persist(c, next); err == nil {
		m.stage(c, old, next)
	}
	return wait, err
}

// possible says why c cannot be a change of the newest state.
func (m *MemoryStore) possible(c change) error {
	a := m.latest(c.ID)
	switch {
	case c.ID == 0 && c.LastID > 0:
		return nil
	case a == nil && c.User == nil:
		return fmt.Errorf("no account has the ID %d", c.ID)
	case a == nil && c.ID <= m.lastID:
		return fmt.Errorf("the ID %d is not above all before it", c.ID)
	case a == nil && m.taken(c.User.Username):
		return ErrUsernameTaken
	case c.User != nil && (c.User.ID != c.ID || usernameProblem(c.User.Username) != "" || roleProblem(c.User.Role) != ""):
		return errors.New("not an account")
	case a != nil && c.User != nil && c.User.Username != a.name():
		return errors.New("an account does not change its name")
	case c.Session != nil && (c.Session.UserID != c.ID || c.Session.ID == ""):
		return errors.New("not a session")
	case c.User == nil && !c.Deleted && c.Session == nil && c.Ended == "" && c.Kept == nil:
		return errors.New("not a change")
	}
	return nil
}

// replay makes a change that was durable already.
func (m *MemoryStore) replay(c change) error {
	if err := m.possible(c); err != nil {
		return err
	}
	old := m.latest(c.ID)
	next := old.after(c)
	m.stage(c, old, next)
	m.publish(c, next)
	return nil
}

// latest returns the newest value of an account, or nil.
func (m *MemoryStore) latest(id int64) *account {
	if a, ok := m.pending[id]; ok {
		return a
	}
	if i, ok := m.position(id); ok {
		return m.accounts[i]
	}
	return nil
}

// taken reports whether an account has the name now. One that is about to be
// deleted has not.
func (m *MemoryStore) taken(name string) bool {
	name = strings.ToLower(name)
	return m.latest(m.names[name]) != nil || m.latest(m.claimed[name]) != nil
}

// position finds an account among those that readers see: where it is, or
// where it would be. Since IDs count up from 1, it stands at its ID less one,
// or before that if accounts have been deleted.
func (m *MemoryStore) position(id int64) (int, bool) {
	most := int(min(id, int64(len(m.accounts))))
	if most > 0 && m.accounts[most-1].id == id {
		return most - 1, true
	}
	return slices.BinarySearchFunc(m.accounts[:max(most, 0)], id, func(a *account, id int64) int { return cmp.Compare(a.id, id) })
}

// stage makes next what later changes build on, in place of old; either is nil
// for "no account".
func (m *MemoryStore) stage(c change, old, next *account) {
	m.lastID = max(m.lastID, c.LastID, c.ID)
	if c.ID == 0 {
		return
	}
	m.pending[c.ID] = next
	if old.activeAdmin() {
		m.admins--
	}
	if next.activeAdmin() {
		m.admins++
	}
	if old == nil {
		m.claimed[strings.ToLower(next.name())] = c.ID
	}
}

// publish makes next what readers see. Accounts are published in the order in
// which they were staged, so a new one always comes last.
func (m *MemoryStore) publish(c change, next *account) {
	if c.ID == 0 {
		return
	}
	if m.pending[c.ID] == next {
		delete(m.pending, c.ID)
	}
	i, found := m.position(c.ID)
	switch {
	case next == nil:
		delete(m.names, strings.ToLower(m.accounts[i].name()))
		m.accounts = slices.Delete(m.accounts, i, i+1)
	case found:
		m.accounts[i] = next
	default:
		m.accounts = append(m.accounts, next)
		name := strings.ToLower(next.name())
		m.names[name] = c.ID
		if m.claimed[name] == c.ID {
			delete(m.claimed, name)
		}
	}
}

// sweep looks at the next few accounts for sessions that have expired. Each new
// session pays for a few, so that the dead go without ever stopping the living.
// It is no part of a replay: what is dead now may be renewed some lines on.
func (m *MemoryStore) sweep(c change) {
	if c.Session == nil {
		return
	}
	now := time.Now()
	for range min(4, len(m.accounts)) {
		m.sweeper = (m.sweeper + 1) % len(m.accounts)
		a := m.accounts[m.sweeper]
		dead := func(s Session) bool { return !s.Live(a.epoch, now) }
		if _, changing := m.pending[a.id]; changing || !slices.ContainsFunc(a.sessions, dead) {
			continue
		}
		next := *a
		next.sessions = a.live(now)
		m.accounts[m.sweeper] = &next
	}
}

// after returns the account as the change makes it, nil if deleted.
func (a *account) after(c change) *account {
	switch {
	case c.User != nil:
		next := newAccount(*c.User, nil)
		if a != nil && a.epoch == next.epoch {
			next.sessions = a.sessions
		}
		return next
	case c.Deleted:
		return nil
	case a == nil:
		return nil
	}
	next := *a
	switch {
	case c.Session != nil:
		next.sessions = a.with(*c.Session)
	case c.Ended != "":
		next.sessions = slices.DeleteFunc(slices.Clone(a.sessions), func(s Session) bool { return s.ID == c.Ended })
	case c.Kept != nil:
		next.sessions = slices.DeleteFunc(slices.Clone(a.sessions), func(s Session) bool { return s.ID != *c.Kept })
	}
	return &next
}

// with returns the account's sessions with s renewed or added. To make room,
// those that have expired go first. The time that counts is that of the login,
// so that a replay comes to the same result.
func (a *account) with(s Session) []Session {
	if i := slices.IndexFunc(a.sessions, func(old Session) bool { return old.ID == s.ID }); i >= 0 {
		renewed := slices.Clone(a.sessions)
		renewed[i] = s
		return renewed
	}
	all := append(slices.Clone(a.sessions), s)
	if len(all) > maxSessions {
		all = append(a.live(s.CreatedAt), s)
	}
	return all[max(0, len(all)-maxSessions):]
}

// live returns the account's sessions that can still be used, in a slice of
// the caller's own.
func (a *account) live(now time.Time) (live []Session) {
	for _, s := range a.sessions {
		if s.Live(a.epoch, now) {
			live = append(live, s)
		}
	}
	return live
}

// session finds a session that can still be used, or nil. The newest is the
// likeliest.
func (a *account) session(id string) *Session {
	if a == nil {
		return nil
	}
	for i := range a.sessions {
		if s := &a.sessions[len(a.sessions)-1-i]; s.ID == id && s.Live(a.epoch, time.Now()) {
			return s
		}
	}
	return nil
}

func (a *account) activeAdmin() bool {
	return a != nil && a.admin && !a.disabled
}
