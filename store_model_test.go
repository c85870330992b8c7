package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A modelStore is a Store that is too simple to be wrong: a map, a list, one
// lock, and every question answered by looking through all of it.
type modelStore struct {
	mu       sync.Mutex
	accounts map[int64]User
	logins   []Session // of all accounts, in order
	lastID   int64
}

func newModelStore() *modelStore { return &modelStore{accounts: map[int64]User{}} }

// The model passes the contract itself: so the contract asks for nothing that
// only the real stores can know.
func TestModelStore(t *testing.T) {
	open := func(t *testing.T) Store { return newModelStore() }
	testStore(t, open)
	testStoreClock(t, open)
}

// simulate does random things to a store and to a model of it. Both must give
// the same answers, and in the end hold the same. Now and then between is
// called, to open the store again or to let time go by.
func simulate(t *testing.T, steps int, s Store, between func(Store) Store) {
	t.Helper()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	model := newModelStore()
	loginShare := 10 + 50*rng.IntN(2) // in percent: now and then enough for 100 sessions
	for step := range steps {
		op := randomOperation(rng, model, loginShare)
		got, gotErr := op.do(s)
		want, wantErr := op.do(model)
		if !errors.Is(gotErr, wantErr) {
			t.Fatalf("seed %d, step %d: %s: got error %v, want %v", seed, step, op.call, gotErr, wantErr)
		}
		if wantErr == nil {
			wantEqual(t, fmt.Sprintf("seed %d, step %d: %s", seed, step, op.call), got, want)
		}
		if rng.IntN(50) == 0 || step == steps-1 {
			s = between(s)
			call := fmt.Sprintf("seed %d, step %d: the whole store after %s", seed, step, op.call)
			wantEqual(t, call, testedStore{s, t}.contents(), testedStore{model, t}.contents())
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// An operation is one call, with all that is random in it decided.
type operation struct {
	call string
	do   func(Store) (any, error)
}

func randomOperation(rng *rand.Rand, model *modelStore, loginShare int) operation {
	ctx, now := context.Background(), today()
	id := 1 + rng.Int64N(model.lastID+1) // now and then one that is not there
	u := model.accounts[id]
	name := fmt.Sprintf("name%d", rng.IntN(8))
	if rng.IntN(2) == 0 {
		name = strings.ToUpper(name)
	}
	sid := "none"
	if list := model.live(id); len(list) > 0 && rng.IntN(10) > 0 {
		sid = list[rng.IntN(len(list))].ID
	} else if len(model.logins) > 0 {
		sid = model.logins[rng.IntN(len(model.logins))].ID // of another account, or ended
	}
	var own error // what an update function returns
	if rng.IntN(10) == 0 {
		own = errors.New("the caller's own error")
	}
	by := randomCaller(rng, model)

	if rng.IntN(100) < loginShare {
		s := NewSession(u, now, testLife)
		s.UserID = id
		switch rng.IntN(10) {
		case 0:
			if !u.Disabled { // which of two errors is not promised
				s.Epoch++
			}
		case 1:
			s.ExpiresAt = now.Add(-time.Hour)
		}
		return operation{fmt.Sprintf("CreateSession(%+v)", s), func(store Store) (any, error) {
			return nil, store.CreateSession(ctx, s)
		}}
	}
	text := fmt.Sprint(rng.Uint64())
	switch rng.IntN(10) {
	case 0, 1:
		u := newUser(name)
		u.FullName = text
		if rng.IntN(4) == 0 {
			u.Role = RoleAdmin
		}
		return operation{fmt.Sprintf("CreateUser(by %v, %s, %s)", by, name, u.Role), func(store Store) (any, error) {
			return store.CreateUser(ctx, by, u)
		}}
	case 2, 3:
		what := rng.IntN(6)
		return operation{fmt.Sprintf("UpdateUser(by %v, %d, change %d, %v)", by, id, what, own), func(store Store) (any, error) {
			return store.UpdateUser(ctx, by, id, func(u *User) error {
				switch what {
				case 0:
					u.FullName = text
				case 1:
					u.Disabled = !u.Disabled
				case 2:
					u.Role = RoleAdmin
				case 3:
					u.Role = RoleUser
				case 4:
					u.PasswordHash, u.Epoch = text, u.Epoch+1
				}
				return own
			})
		}}
	case 4:
		return operation{fmt.Sprintf("DeleteUser(by %v, %d)", by, id), func(store Store) (any, error) {
			return nil, store.DeleteUser(ctx, by, id)
		}}
	case 5, 6:
		what := rng.IntN(12)
		return operation{fmt.Sprintf("UpdateSession(%d, %s, change %d, %v)", id, sid, what, own), func(store Store) (any, error) {
			s, u, err := store.UpdateSession(ctx, id, sid, func(s *Session, u User) error {
				switch what {
				case 0:
					s.ExpiresAt = now.Add(-time.Second)
				case 1:
					return s.Rotate(s.Generation-1, now, testLife)
				case 2:
					return own
				case 3:
					return s.Rotate(s.Generation-2, now, testLife) // replayed, if there was one
				default:
					return s.Rotate(s.Generation, now, testLife)
				}
				return nil
			})
			return []any{s, u}, err
		}}
	case 7:
		return operation{fmt.Sprintf("EndSession(by %v, %d, %s)", by, id, sid), func(store Store) (any, error) {
			return nil, store.EndSession(ctx, by, id, sid)
		}}
	case 8:
		if rng.IntN(4) > 0 {
			break
		}
		return operation{fmt.Sprintf("EndSessions(by %v, %d, %s)", by, id, sid), func(store Store) (any, error) {
			return nil, store.EndSessions(ctx, by, id, sid)
		}}
	}
	limit := rng.IntN(5)
	return operation{fmt.Sprintf("UserByName(%s), Session(%d, %s), Users(%d, %d)", name, id, sid, id, limit), func(store Store) (any, error) {
		byName, nameErr := store.UserByName(ctx, name)
		s, u, sessionErr := store.Session(ctx, id, sid)
		page, err := store.Users(ctx, id, limit)
		return []any{byName, nameErr == nil, s, u, sessionErr == nil, len(page), page}, err
	}}
}

// randomCaller is nobody, or a session that may be live, of an account that may be
// active and an admin's.
func randomCaller(rng *rand.Rand, model *modelStore) Caller {
	if len(model.logins) == 0 || rng.IntN(2) == 0 {
		return Caller{}
	}
	s := model.logins[rng.IntN(len(model.logins))]
	return Caller{UserID: s.UserID, SessionID: s.ID, Admin: rng.IntN(3) == 0}
}

func (m *modelStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allow(by); err != nil {
		return User{}, err
	}
	if _, taken := m.byName(u.Username); taken {
		return User{}, ErrUsernameTaken
	}
	m.lastID++
	u.ID = m.lastID
	m.accounts[u.ID] = u
	return u, nil
}

func (m *modelStore) User(ctx context.Context, id int64) (User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return orNotFound(m.accounts[id])
}

func (m *modelStore) UserByName(ctx context.Context, name string) (User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, _ := m.byName(name)
	return orNotFound(u)
}

func (m *modelStore) Users(ctx context.Context, after int64, limit int) (page []User, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range slices.SortedFunc(maps.Values(m.accounts), func(a, b User) int { return cmp.Compare(a.ID, b.ID) }) {
		if u.ID > after && len(page) < limit {
			page = append(page, u)
		}
	}
	return page, nil
}

func (m *modelStore) UpdateUser(ctx context.Context, by Caller, id int64, change func(*User) error) (User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allow(by); err != nil {
		return User{}, err
	}
	old, err := orNotFound(m.accounts[id])
	if err != nil {
		return User{}, err
	}
	u := old
	if err := change(&u); err != nil {
		return User{}, err
	}
	u.ID, u.Username, u.CreatedAt = old.ID, old.Username, old.CreatedAt
	if m.lastAdmin(old) && (u.Disabled || u.Role != RoleAdmin) {
		return User{}, ErrLastAdmin
	}
	m.accounts[id] = u
	return u, nil
}

func (m *modelStore) DeleteUser(ctx context.Context, by Caller, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allow(by); err != nil {
		return err
	}
	u, err := orNotFound(m.accounts[id])
	if err != nil {
		return err
	}
	if m.lastAdmin(u) {
		return ErrLastAdmin
	}
	delete(m.accounts, id)
	return nil
}

func (m *modelStore) CreateSession(ctx context.Context, s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := orNotFound(m.accounts[s.UserID])
	switch {
	case err != nil:
		return err
	case u.Epoch != s.Epoch:
		return ErrStale
	case u.Disabled:
		return ErrInactive
	}
	m.logins = append(m.logins, s)
	if list := m.live(u.ID); len(list) > maxSessions {
		m.end(u.ID, list[0].ID)
	}
	return nil
}

func (m *modelStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.live(userID) {
		if s.ID == id {
			return s, m.accounts[userID], nil
		}
	}
	return Session{}, User{}, ErrNotFound
}

func (m *modelStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live(userID), nil
}

func (m *modelStore) UpdateSession(ctx context.Context, userID int64, id string, change func(*Session, User) error) (Session, User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, exists := m.accounts[userID]
	for i := range m.logins {
		s := &m.logins[i]
		if bound := s.Within(testLife); s.UserID != userID || s.ID != id || !exists || !bound.Live(u.Epoch, time.Now()) {
			continue
		}
		next := s.Within(testLife)
		if err := change(&next, u); err != nil {
			if errors.Is(err, ErrReplayed) {
				m.end(userID, id)
			}
			return Session{}, User{}, err
		}
		s.Generation, s.LastUsedAt, s.ExpiresAt = next.Generation, next.LastUsedAt, next.ExpiresAt
		return *s, u, nil
	}
	return Session{}, User{}, ErrNotFound
}

func (m *modelStore) EndSession(ctx context.Context, by Caller, userID int64, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allow(by); err != nil {
		return err
	}
	if !slices.ContainsFunc(m.live(userID), func(s Session) bool { return s.ID == id }) {
		return ErrNotFound
	}
	m.end(userID, id)
	return nil
}

func (m *modelStore) EndSessions(ctx context.Context, by Caller, userID int64, keep string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allow(by); err != nil {
		return err
	}
	if _, err := orNotFound(m.accounts[userID]); err != nil {
		return err
	}
	for _, s := range m.live(userID) {
		if s.ID != keep {
			m.end(userID, s.ID)
		}
	}
	return nil
}

func (m *modelStore) Import(ctx context.Context, users []User, lastID int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.accounts) > 0 {
		return ErrNotEmpty
	}
	m.lastID = lastID
	for _, u := range users {
		m.accounts[u.ID] = u
		m.lastID = max(m.lastID, u.ID)
	}
	return nil
}

func (m *modelStore) Ready(ctx context.Context) error { return nil }

func (m *modelStore) Close() error { return nil }

// allow says the same as the real stores, without their help.
func (m *modelStore) allow(by Caller) error {
	if by == (Caller{}) {
		return nil
	}
	u := m.accounts[by.UserID]
	live := slices.ContainsFunc(m.live(by.UserID), func(s Session) bool { return s.ID == by.SessionID })
	switch {
	case !live:
		return ErrEnded
	case u.Disabled:
		return ErrInactive
	case by.Admin && u.Role != RoleAdmin:
		return ErrNotAdmin
	}
	return nil
}

func (m *modelStore) byName(name string) (User, bool) {
	for _, u := range m.accounts {
		if len(u.Username) == len(name) && strings.EqualFold(u.Username, name) { // ASCII folds to no other length
			return u, true
		}
	}
	return User{}, false
}

func (m *modelStore) live(userID int64) (list []Session) {
	for _, s := range m.logins {
		if u, ok := m.accounts[userID]; ok && s.UserID == userID {
			if s = s.Within(testLife); s.Live(u.Epoch, time.Now()) {
				list = append(list, s)
			}
		}
	}
	return list
}

func (m *modelStore) end(userID int64, id string) {
	m.logins = slices.DeleteFunc(m.logins, func(s Session) bool { return s.UserID == userID && s.ID == id })
}

func (m *modelStore) lastAdmin(u User) bool {
	admins := 0
	for _, other := range m.accounts {
		if other.Role == RoleAdmin && !other.Disabled {
			admins++
		}
	}
	return admins == 1 && u.Role == RoleAdmin && !u.Disabled
}

func orNotFound(u User) (User, error) {
	if u.ID == 0 {
		return User{}, ErrNotFound
	}
	return u, nil
}
