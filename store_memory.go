package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A MemoryStore keeps everything in memory, until the process ends. It is the
// reference for what a [Store] does, and the larger part of a [FileStore]: each
// change is first decided, as a value of type change, and then made by apply from
// that value alone. Storing the values is enough to replay the changes later.
type MemoryStore struct {
	life Lifetimes // sessions from before may have been given longer ones

	mu       sync.RWMutex
	accounts []*account       // by ID
	names    map[string]int64 // folded, see foldName
	lastID   int64            // the highest ID ever given
	sweeper  int              // position of the account to look at next for expired sessions

	// A file store sets both. record is called with each change before it is made,
	// while mu is held; its error prevents the change. settle is called when a method
	// has changed or refused, without mu, with the error that it is about to return.
	record func(change) error
	settle func(error) error
}

// An account is a user and the sessions, oldest first. It is never changed in place:
// a new value takes its position, so a copy of the list is a snapshot of it all.
type account struct {
	user     *User
	sessions []Session
}

// A change is what happens to one account: ID and one other field are set. It is
// also one line of a file store.
type change struct {
	LastID  int64    `json:"last_id,omitempty"` // alone: all IDs up to this one have been given
	ID      int64    `json:"id,omitempty"`      // of the account
	User    *User    `json:"user,omitempty"`    // the account has this value now
	Deleted bool     `json:"deleted,omitempty"` // the account is gone
	Session *Session `json:"session,omitempty"` // a new one, or the new value of one
	Ended   string   `json:"ended,omitempty"`   // the session that has ended
	Kept    *string  `json:"kept,omitempty"`    // the one session that has not ended
}

// single reports whether c is one change and no more.
func (c change) single() bool {
	id := c.ID
	switch c {
	case change{LastID: c.LastID}:
		return c.LastID > 0
	case change{ID: id, User: c.User}, change{ID: id, Deleted: c.Deleted}, change{ID: id, Session: c.Session}, change{ID: id, Ended: c.Ended}, change{ID: id, Kept: c.Kept}:
		return id > 0 && c != change{ID: id}
	}
	return false
}

// NewMemoryStore returns an empty store.
func NewMemoryStore(life Lifetimes) *MemoryStore {
	return &MemoryStore{life: life, names: map[string]int64{}}
}

// change is how everything changes: decide returns what shall happen, and it happens
// in one step. An empty change is none. With an error and a change, both count: a
// replay ends the session and is refused.
func (m *MemoryStore) change(by Caller, decide func() (change, error)) error {
	err := m.changeNow(by, decide)
	if m.settle != nil {
		err = m.settle(err)
	}
	return err
}

func (m *MemoryStore) changeNow(by Caller, decide func() (change, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock() // deferred, for the case that decide panics
	if err := m.allow(by); err != nil {
		return err
	}
	c, refusal := decide()
	if c != (change{}) {
		if err := m.make(c); err != nil {
			return err
		}
	}
	return refusal
}

// allow returns why the caller may not ask for a change.
func (m *MemoryStore) allow(by Caller) error {
	if by == (Caller{}) {
		return nil
	}
	a := m.account(by.UserID)
	if _, ok := m.session(a, by.SessionID); !ok {
		return ErrEnded
	}
	return by.Allowed(*a.user)
}

// make checks, records and applies a change. So nothing is recorded that a replay
// would refuse.
func (m *MemoryStore) make(c change) error {
	if err := m.check(c); err != nil {
		return err
	}
	if m.record != nil {
		if err := m.record(c); err != nil {
			return err
		}
	}
	m.apply(c)
	return nil
}

// changeAccount is change for an account that must exist.
func (m *MemoryStore) changeAccount(by Caller, id int64, decide func(a *account) (change, error)) error {
	return m.change(by, func() (change, error) {
		a := m.account(id)
		if a == nil {
			return change{}, ErrNotFound
		}
		return decide(a)
	})
}

func (m *MemoryStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	err := m.change(by, func() (change, error) {
		if m.names[foldName(u.Username)] != 0 {
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
	return m.user(m.names[foldName(name)])
}

func (m *MemoryStore) user(id int64) (User, error) {
	if a := m.account(id); a != nil {
		return *a.user, nil
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
		users[i] = *page[i].user
	}
	return users, nil
}

func (m *MemoryStore) UpdateUser(ctx context.Context, by Caller, id int64, update func(*User) error) (u User, err error) {
	err = m.changeAccount(by, id, func(a *account) (change, error) {
		u = *a.user
		if err := update(&u); err != nil {
			return change{}, err
		}
		u.ID, u.Username, u.CreatedAt = a.user.ID, a.user.Username, a.user.CreatedAt
		if u == *a.user {
			return change{}, nil
		}
		if a.user.ActiveAdmin() && !u.ActiveAdmin() && !m.anotherAdmin(id) {
			return change{}, ErrLastAdmin
		}
		next := u
		return change{ID: id, User: &next}, nil
	})
	return u, err
}

func (m *MemoryStore) DeleteUser(ctx context.Context, by Caller, id int64) error {
	return m.changeAccount(by, id, func(a *account) (change, error) {
		if a.user.ActiveAdmin() && !m.anotherAdmin(id) {
			return change{}, ErrLastAdmin
		}
		return change{ID: id, Deleted: true}, nil
	})
}

func (m *MemoryStore) anotherAdmin(id int64) bool {
	return slices.ContainsFunc(m.accounts, func(a *account) bool { return a.user.ID != id && a.user.ActiveAdmin() })
}

func (m *MemoryStore) CreateSession(ctx context.Context, s Session) error {
	return m.changeAccount(Caller{}, s.UserID, func(a *account) (change, error) {
		switch {
		case a.user.Epoch != s.Epoch:
			return change{}, ErrStale
		case a.user.Disabled:
			return change{}, ErrInactive
		}
		return change{ID: s.UserID, Session: &s}, nil
	})
}

func (m *MemoryStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	a := m.account(userID)
	if s, ok := m.session(a, id); ok {
		return s, *a.user, nil
	}
	return Session{}, User{}, ErrNotFound
}

func (m *MemoryStore) Sessions(ctx context.Context, userID int64) (live []Session, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if a := m.account(userID); a != nil {
		for _, s := range a.sessions {
			if s = s.Within(m.life); s.Live(a.user.Epoch, time.Now()) {
				live = append(live, s)
			}
		}
	}
	return live, nil
}

func (m *MemoryStore) UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (s Session, u User, err error) {
	err = m.changeAccount(Caller{}, userID, func(a *account) (change, error) {
		old, ok := m.session(a, id)
		if !ok {
			return change{}, ErrNotFound
		}
		next := old
		if err := update(&next, *a.user); errors.Is(err, ErrReplayed) {
			return change{ID: userID, Ended: id}, err
		} else if err != nil {
			return change{}, err
		}
		s, u = old, *a.user
		s.Generation, s.LastUsedAt, s.ExpiresAt = next.Generation, next.LastUsedAt, next.ExpiresAt
		if s == old {
			return change{}, nil
		}
		stored := s
		return change{ID: userID, Session: &stored}, nil
	})
	return s, u, err
}

func (m *MemoryStore) EndSession(ctx context.Context, by Caller, userID int64, id string) error {
	return m.changeAccount(by, userID, func(a *account) (change, error) {
		if _, ok := m.session(a, id); !ok {
			return change{}, ErrNotFound
		}
		return change{ID: userID, Ended: id}, nil
	})
}

func (m *MemoryStore) EndSessions(ctx context.Context, by Caller, userID int64, keep string) error {
	return m.changeAccount(by, userID, func(a *account) (change, error) {
		return change{ID: userID, Kept: &keep}, nil
	})
}

func (m *MemoryStore) Import(ctx context.Context, users []User, lastID int64) error {
	return m.change(Caller{}, func() (change, error) {
		if m.lastID != 0 {
			return change{}, ErrNotEmpty
		}
		for _, u := range users {
			if err := m.make(change{ID: u.ID, User: &u}); err != nil {
				return change{}, err
			}
		}
		// After the accounts, whose IDs are not above it.
		return change{LastID: max(lastID, m.lastID)}, nil
	})
}

// clone returns a store with the same contents.
func (m *MemoryStore) clone() *MemoryStore {
	return &MemoryStore{life: m.life, accounts: slices.Clone(m.accounts), names: maps.Clone(m.names), lastID: m.lastID}
}

func (m *MemoryStore) Ready(ctx context.Context) error { return nil }

func (m *MemoryStore) Close() error { return nil }

// position finds an account: where it is, or where it would be.
func (m *MemoryStore) position(id int64) (i int, found bool) {
	return slices.BinarySearchFunc(m.accounts, id, func(a *account, id int64) int { return cmp.Compare(a.user.ID, id) })
}

// account returns an account, or nil.
func (m *MemoryStore) account(id int64) *account {
	if i, found := m.position(id); found {
		return m.accounts[i]
	}
	return nil
}

// session returns a live session of an account, which may be nil. It begins with the
// newest, the likeliest.
func (m *MemoryStore) session(a *account, id string) (Session, bool) {
	if a == nil {
		return Session{}, false
	}
	for _, s := range slices.Backward(a.sessions) {
		if s.ID == id {
			s = s.Within(m.life)
			return s, s.Live(a.user.Epoch, time.Now())
		}
	}
	return Session{}, false
}

// check returns why c cannot be the next change. Decided here it always can, but a
// file may have been written by hand.
func (m *MemoryStore) check(c change) error {
	a := m.account(c.ID)
	switch {
	case !c.single():
		return errors.New("not a change")
	case c.ID == 0:
		return nil
	case a == nil && c.User == nil:
		return fmt.Errorf("no account has the ID %d", c.ID)
	case a == nil && c.ID <= m.lastID:
		return fmt.Errorf("the ID %d is not above all before it", c.ID)
	case a == nil && m.names[foldName(c.User.Username)] != 0:
		return ErrUsernameTaken
	case c.User != nil && (c.User.ID != c.ID || checkUsername(c.User.Username) != nil || checkRole(c.User.Role) != nil):
		return errors.New("not an account")
	case a != nil && c.User != nil && c.User.Username != a.user.Username:
		return errors.New("an account does not change its name")
	case c.Session != nil && (c.Session.UserID != c.ID || checkUsername(c.Session.ID) != nil):
		return errors.New("not a session")
	}
	return nil
}

// apply makes a change that check allows. It knows no clock, so that a replay comes
// to the same state.
func (m *MemoryStore) apply(c change) {
	m.lastID = max(m.lastID, c.LastID, c.ID)
	i, found := m.position(c.ID)
	switch {
	case c.ID == 0:
	case c.Deleted:
		delete(m.names, foldName(m.accounts[i].user.Username))
		m.accounts = slices.Delete(m.accounts, i, i+1)
	case !found:
		m.names[foldName(c.User.Username)] = c.ID
		m.accounts = append(m.accounts, &account{user: c.User}) // its ID is the highest
	default:
		m.accounts[i] = m.accounts[i].after(c)
	}
	if c.Session != nil {
		m.sweep(c.Session.LastUsedAt)
	}
}

// after returns the account as a change makes it.
func (a *account) after(c change) *account {
	next := *a
	switch {
	case c.User != nil:
		if next.user = c.User; c.User.EndsSessions(a.user) {
			next.sessions = nil
		}
	case c.Session != nil:
		next.sessions = a.with(*c.Session)
	case c.Ended != "":
		next.sessions = a.without(func(s Session) bool { return s.ID == c.Ended })
	case c.Kept != nil:
		next.sessions = a.without(func(s Session) bool { return s.ID != *c.Kept })
	}
	return &next
}

// with returns the sessions of the account with s added, or in its old place. To
// make room, those that have expired go first, then the oldest.
func (a *account) with(s Session) []Session {
	same := func(old Session) bool { return old.ID == s.ID }
	if i := slices.IndexFunc(a.sessions, same); i >= 0 {
		sessions := slices.Clone(a.sessions)
		sessions[i] = s
		return sessions
	}
	sessions := a.sessions
	if len(sessions) >= maxSessions {
		sessions = a.without(func(old Session) bool { return !old.Live(a.user.Epoch, s.CreatedAt) })
	}
	sessions = append(slices.Clip(sessions), s)
	return sessions[max(0, len(sessions)-maxSessions):]
}

func (a *account) without(gone func(Session) bool) []Session {
	return slices.DeleteFunc(slices.Clone(a.sessions), gone)
}

// sweep removes the sessions that have expired from the next few accounts. Each new
// or renewed session pays for a few, so that none stays for good.
func (m *MemoryStore) sweep(now time.Time) {
	for range min(4, len(m.accounts)) {
		m.sweeper = (m.sweeper + 1) % len(m.accounts)
		a := m.accounts[m.sweeper]
		expired := func(s Session) bool { return !s.Live(a.user.Epoch, now) }
		if slices.ContainsFunc(a.sessions, expired) {
			m.accounts[m.sweeper] = &account{a.user, a.without(expired)}
		}
	}
}
