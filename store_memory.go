package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A MemoryStore keeps everything in memory. It is the reference for what a [Store]
// does, and a part of [FileStore]: each change is first decided, as a value of type
// change, and then made by apply from that value alone. Storing the values is enough to
// make the changes again later.
type MemoryStore struct {
	decisions

	mu       sync.RWMutex
	ids      []int64          // in order
	accounts []*account       // with these IDs; nil if deleted
	deleted  int              // how many of them are nil
	names    map[string]int64 // folded, see foldName
	lastID   int64            // the highest ID ever used
	swept    int              // the index in accounts that sweep looked at last

	// A file store sets both; otherwise they are nil. record is called with each change
	// before it is made, with mu held; its error prevents the change. settle is called with
	// the error that a method is about to return, without mu; its result is returned instead.
	record func(change) error
	settle func(error) error
}

// NewMemoryStore returns an empty store.
func NewMemoryStore(life Lifetimes) *MemoryStore {
	m := &MemoryStore{names: map[string]int64{}}
	m.decisions = decisions{life, m.atomically}
	return m
}

// step makes every change: it checks the caller and makes what decide returns, in one
// atomic step. See [decisions].
func (m *MemoryStore) step(by Caller, decide func() (change, error)) (err error) {
	if m.settle != nil {
		defer func() { err = m.settle(err) }()
	}
	m.mu.Lock()
	defer m.mu.Unlock() // deferred, because decide may panic
	if by != (Caller{}) {
		if err := m.account(by.UserID).allow(by, m.life); err != nil {
			return err
		}
	}
	c, refusal := decide()
	if c != (change{}) {
		if err := m.commit(c); err != nil {
			return err
		}
	}
	return refusal
}

// commit checks, records and applies a change. The check makes sure that the next start
// will accept it.
func (m *MemoryStore) commit(c change) error {
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

// atomically is the function that [decisions] needs.
func (m *MemoryStore) atomically(_ context.Context, by Caller, id int64, d decision) error {
	return m.step(by, func() (change, error) {
		a := m.account(id)
		if a == nil {
			return change{}, ErrNotFound
		}
		return d.on(a, func() bool {
			return slices.ContainsFunc(m.accounts, func(other *account) bool { return other != nil && other != a && other.user.ActiveAdmin() })
		})
	})
}

func (m *MemoryStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	err := m.step(by, func() (change, error) {
		if m.names[foldName(u.Username)] != 0 {
			return change{}, ErrUsernameTaken
		}
		u.ID = m.lastID + 1
		return change{ID: u.ID, User: new(u)}, nil
	})
	return u, err
}

func (m *MemoryStore) Import(ctx context.Context, users []User, lastID int64) error {
	return m.step(Caller{}, func() (change, error) {
		if m.lastID != 0 {
			return change{}, ErrNotEmpty
		}
		for _, u := range users {
			if err := m.commit(change{ID: u.ID, User: &u}); err != nil {
				return change{}, err
			}
		}
		// Last, because afterwards only higher IDs are accepted.
		return change{LastID: max(lastID, m.lastID)}, nil
	})
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

func (m *MemoryStore) Users(ctx context.Context, filter UserFilter, after int64, limit int) ([]User, error) {
	users := []User{}
	for _, a := range m.page(filter, after, limit) {
		if a != nil && a.user.ID > after && (filter.Email == "" || a.user.Email == filter.Email) && len(users) < limit {
			users = append(users, *a.user)
		}
	}
	return users, nil
}

// page returns the accounts among which Users searches. No change waits for that
// search, because it needs no lock.
func (m *MemoryStore) page(filter UserFilter, after int64, limit int) []*account {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if filter.Name != "" {
		return []*account{m.account(m.names[foldName(filter.Name)])}
	}
	start, found := slices.BinarySearch(m.ids, after)
	if found {
		start++
	}
	rest := m.accounts[start:]
	if filter.Email != "" {
		return slices.Clone(rest)
	}
	page := make([]*account, 0, min(limit, len(rest)))
	for _, a := range rest {
		if len(page) == limit {
			break
		}
		if a != nil {
			page = append(page, a)
		}
	}
	return page
}

func (m *MemoryStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	a := m.account(userID)
	if s, ok := a.session(id, m.life); ok {
		return s, *a.user, nil
	}
	return Session{}, User{}, ErrNotFound
}

func (m *MemoryStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.account(userID).live(m.life), nil
}

func (m *MemoryStore) Ready(ctx context.Context) error { return nil }
func (m *MemoryStore) Close() error                    { return nil }

// account returns an account, or nil.
func (m *MemoryStore) account(id int64) *account {
	if i, found := slices.BinarySearch(m.ids, id); found {
		return m.accounts[i]
	}
	return nil
}

// check returns an error unless c is valid as the next change. A change that was
// decided here always is; an imported account or a line of a file may not be.
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
	case c.Session != nil && (c.Session.UserID != c.ID || !isPlain(c.Session.ID)):
		return errors.New("not a session")
	}
	return nil
}

// single reports whether c is exactly one change.
func (c change) single() bool {
	switch c {
	case change{LastID: c.LastID}:
		return c.LastID > 0
	case change{ID: c.ID, User: c.User}, change{ID: c.ID, Deleted: c.Deleted}, change{ID: c.ID, Session: c.Session}, change{ID: c.ID, Ended: c.Ended}, change{ID: c.ID, Kept: c.Kept}:
		return c.ID > 0 && c != change{ID: c.ID}
	}
	return false
}

// apply makes a change that check has accepted. Only sweeping reads the clock, so a start
// that makes the changes again gives the same accounts and live sessions.
func (m *MemoryStore) apply(c change) {
	m.lastID = max(m.lastID, c.LastID, c.ID)
	i, found := slices.BinarySearch(m.ids, c.ID)
	switch {
	case c.ID == 0:
	case c.Deleted:
		delete(m.names, foldName(m.accounts[i].user.Username))
		m.accounts[i] = nil // moving all behind it would take long
		if m.deleted++; m.deleted > len(m.accounts)/2 {
			m.tidy()
		}
	case !found: // its ID is the highest
		m.names[foldName(c.User.Username)] = c.ID
		m.ids, m.accounts = append(m.ids, c.ID), append(m.accounts, &account{user: c.User})
	default:
		m.accounts[i] = m.accounts[i].apply(c)
	}
	// A clock that was ahead must not end sessions that are live by the clock of now.
	if s := c.Session; s != nil && !s.LastUsedAt.After(time.Now()) {
		m.sweep(s.LastUsedAt)
	}
}

// tidy removes the places of deleted accounts. It is called when they are more than half,
// so each deletion pays for a small part of it.
func (m *MemoryStore) tidy() {
	ids, accounts := make([]int64, 0, len(m.ids)-m.deleted), make([]*account, 0, len(m.ids)-m.deleted)
	for i, a := range m.accounts {
		if a != nil {
			ids, accounts = append(ids, m.ids[i]), append(accounts, a)
		}
	}
	m.ids, m.accounts, m.deleted, m.swept = ids, accounts, 0, 0
}

// sweep removes expired sessions from the next few accounts. Each new or renewed
// session triggers it, so no expired one stays forever.
func (m *MemoryStore) sweep(now time.Time) {
	for range min(4, len(m.accounts)) {
		m.swept = (m.swept + 1) % len(m.accounts)
		a := m.accounts[m.swept]
		if a == nil {
			continue
		}
		expired := func(s Session) bool { return !s.Live(a.user.Epoch, now) }
		if slices.ContainsFunc(a.sessions, expired) {
			m.accounts[m.swept] = &account{a.user, a.without(expired)}
		}
	}
}
