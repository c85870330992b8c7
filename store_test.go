package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// This file has what every Store must do, by example. Another implementation passes it
// with
//
//	func TestMyStore(t *testing.T) {
//		testStore(t, func(t *testing.T) Store { return openMyStore(t) })
//	}
//
// The function returns an empty store each time, and closes it with t.Cleanup.

func TestMemoryStore(t *testing.T) {
	open := func(t *testing.T) Store { return NewMemoryStore(testLife) }
	testStore(t, open)
	testStoreClock(t, open)
}

// TestMemoryStoreForgetsExpiredSessions: expired sessions are removed from memory
// without a timer, by the logins of other accounts.
func TestMemoryStoreForgetsExpiredSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore(testLife)
		m := testedStore{memory, t}
		var users []User
		for i := range 20 {
			users = append(users, m.create(newUser(fmt.Sprintf("user%d", i))))
		}
		for _, u := range users {
			for range 3 {
				m.login(u)
			}
		}
		time.Sleep(testLife.Idle)
		for range len(users) {
			m.login(users[0])
		}
		got := 0
		for _, a := range memory.accounts {
			got += len(a.sessions)
		}
		wantEqual(t, "sessions after 60 expired and 20 were created", got, len(users))
	})
}

// TestMemoryStoreForgetsWhatIsGone: deleted accounts and ended sessions use no memory.
func TestMemoryStoreForgetsWhatIsGone(t *testing.T) {
	memory := NewMemoryStore(testLife)
	m := testedStore{memory, t}
	stays := m.create(newUser("stays"))
	for n := range 10 {
		m.login(m.create(newUser(fmt.Sprintf("Goes%d", n))))
		m.login(m.user(stays.ID))
		m.update(stays.ID, func(u *User) { u.Epoch++ })
		m.remove(int64(n + 2))
	}
	left := len(memory.names) + len(memory.accounts) + len(memory.accounts[0].sessions)
	if want := 3; left > want { // a place may stay empty for each account
		t.Errorf("the store holds %d entries for one account without a session, want %d: %+v", left, want, memory)
	}
}

// TestMemoryStoreFindsWhatIsLeft: deletions leave empty places, which are removed when
// there are too many of them.
func TestMemoryStoreFindsWhatIsLeft(t *testing.T) {
	memory := NewMemoryStore(testLife)
	m := testedStore{memory, t}
	left := map[int64]bool{}
	for n := range 1000 {
		left[m.create(newUser(fmt.Sprintf("user%d", n+1))).ID] = true
	}
	for _, n := range rand.Perm(1000) {
		id := int64(n + 1)
		m.remove(id)
		delete(left, id)
		if len(left)%50 != 0 {
			continue
		}
		after := rand.Int64N(1000)
		want := slices.Sorted(maps.Keys(left))
		want = slices.DeleteFunc(want, func(id int64) bool { return id <= after })
		want = want[:min(20, len(want))]
		got := m.users(after, 20)
		for _, u := range got {
			wantEqual(t, "User", m.user(u.ID), u)
		}
		wantEqual(t, fmt.Sprintf("IDs of 20 accounts after %d, of %d", after, len(left)), idsOf(got), want)
		if places := len(memory.accounts); places > 2*len(left)+1 || places != len(memory.ids) {
			t.Errorf("%d accounts have %d places, and %d IDs", len(left), places, len(memory.ids))
		}
	}
	wantEqual(t, "the ID after all accounts were deleted", m.create(newUser("next")).ID, 1001)
}

// testStore is the contract of all stores. A store may be in another process, and the
// clock is the real one.
func testStore(t *testing.T, open func(t *testing.T) Store) {
	rule := func(name string, test func(t *testing.T, s testedStore)) {
		t.Run(name, func(t *testing.T) { test(t, testedStore{open(t), t}) })
	}
	testAccounts(rule)
	testLastAdmin(rule)
	testImport(rule)
	testSessions(rule)
	testCallers(rule)
	testAtOnce(rule)
	rule("random operations have the same results as on a simple model", func(t *testing.T, s testedStore) {
		simulate(t, 400, s.Store, func(s Store) Store { return s })
	})
}

type ruleFunc func(name string, test func(t *testing.T, s testedStore))

func testAccounts(rule ruleFunc) {
	rule("the IDs of new accounts count up from 1, whatever ID the caller sets", func(t *testing.T, s testedStore) {
		for want := int64(1); want <= 3; want++ {
			u := newUser(fmt.Sprintf("user%d", want))
			u.ID = 77
			wantEqual(t, "the ID of "+u.Username, s.create(u).ID, want)
		}
	})
	rule("an ID is never reused, not even the newest", func(t *testing.T, s testedStore) {
		s.create(newUser("first"))
		newest := s.create(newUser("newest"))
		s.remove(newest.ID)
		wantEqual(t, "the ID of the next account", s.create(newUser("another")).ID, 3)
	})
	rule("an account is found by its ID, and by its username in any case of letters", func(t *testing.T, s testedStore) {
		s.create(newUser("other"))
		want := newUser("John.Doe")
		want.Disabled, want.Role, want.Epoch = true, RoleAdmin, 3
		got := s.create(want)
		want.ID = 2
		wantEqual(t, "CreateUser(John.Doe)", got, want)
		wantEqual(t, "User(2)", s.user(2), want)
		for _, name := range []string{"John.Doe", "john.doe", "JOHN.DOE"} {
			wantEqual(t, "UserByName("+name+")", s.byName(name), want)
		}
	})
	rule("a username matches no letters that fold to ASCII", func(t *testing.T, s testedStore) {
		s.create(newUser("admin"))
		s.create(newUser("kim"))
		for _, name := range []string{"adm\u0130n", "adm\u0131n", "\u212Aim"} { // which strings.EqualFold or ToLower fold to ASCII
			wantErr(t, fmt.Sprintf("UserByName(%q)", name), errOf(s.UserByName(t.Context(), name)), ErrNotFound)
		}
	})
	rule("an account may have no email and no full name", func(t *testing.T, s testedStore) {
		want := User{Username: "plain", Role: RoleUser, CreatedAt: longAgo, PasswordHash: "hash"}
		want.ID = s.create(want).ID
		wantEqual(t, "User", s.user(want.ID), want)
	})
	rule("a username is taken in any case of letters", func(t *testing.T, s testedStore) {
		s.create(newUser("johndoe"))
		for _, name := range []string{"johndoe", "JohnDoe", "JOHNDOE"} {
			wantErr(t, "CreateUser("+name+")", s.tryCreate(name), ErrUsernameTaken)
		}
		wantEqual(t, "the ID after three refused accounts", s.create(newUser("johndoe2")).ID, 2)
	})
	rule("a deleted account is not found, and its username is available", func(t *testing.T, s testedStore) {
		u, old := s.loggedIn("johndoe")
		s.remove(u.ID)
		wantErr(t, "User of a deleted account", errOf(s.User(t.Context(), u.ID)), ErrNotFound)
		wantErr(t, "UserByName of a deleted account", errOf(s.UserByName(t.Context(), "johndoe")), ErrNotFound)
		wantEqual(t, "Users", s.users(0, 10), nil)
		s.wantGone(old)

		again := s.create(newUser("JohnDoe"))
		wantEqual(t, "Sessions of the new account with that username", s.sessions(again.ID), nil)
		s.wantGone(old)
	})
	rule("a call with an unknown ID, username or session returns ErrNotFound", func(t *testing.T, s testedStore) {
		s.create(newUser("johndoe"))
		ctx := t.Context()
		for _, id := range []int64{2, 0, -1, 1 << 40} {
			wantErr(t, fmt.Sprintf("User(%d)", id), errOf(s.User(ctx, id)), ErrNotFound)
			wantErr(t, fmt.Sprintf("UpdateUser(%d)", id), s.tryUpdate(id, func(*User) { t.Error("UpdateUser called change") }), ErrNotFound)
			wantErr(t, fmt.Sprintf("DeleteUser(%d)", id), s.DeleteUser(ctx, Caller{}, id), ErrNotFound)
			wantErr(t, fmt.Sprintf("CreateSession(for %d)", id), s.tryLogin(User{ID: id}), ErrNotFound)
			wantErr(t, fmt.Sprintf("EndSessions(%d)", id), s.EndSessions(ctx, Caller{}, id, ""), ErrNotFound)
			wantEqual(t, fmt.Sprintf("Sessions(%d)", id), s.sessions(id), nil)
		}
		for _, name := range []string{"", "nobody", "johndo", "johndoe1", "\u017Fohndoe"} {
			wantErr(t, fmt.Sprintf("UserByName(%q)", name), errOf(s.UserByName(ctx, name)), ErrNotFound)
		}
		s.wantGone(Session{UserID: 1, ID: "none"})
		s.wantGone(Session{UserID: 1, ID: ""})
	})
	rule("accounts are listed in pages in the order of their IDs", func(t *testing.T, s testedStore) {
		for i := 1; i <= 12; i++ { // from 10 on, the numeric order differs from the lexical one
			s.create(newUser(fmt.Sprintf("user%d", i)))
		}
		s.remove(3)
		s.remove(12)
		for _, page := range []struct {
			after int64
			limit int
			want  []int64
		}{
			{after: 0, limit: 100, want: []int64{1, 2, 4, 5, 6, 7, 8, 9, 10, 11}},
			{after: 0, limit: 2, want: []int64{1, 2}},
			{after: 2, limit: 2, want: []int64{4, 5}}, // 3 was deleted
			{after: 3, limit: 2, want: []int64{4, 5}}, // after need not be the ID of an account
			{after: 8, limit: 3, want: []int64{9, 10, 11}},
			{after: 10, limit: 5, want: []int64{11}},
			{after: 11, limit: 5, want: nil},
			{after: 1 << 40, limit: 5, want: nil},
		} {
			got := s.users(page.after, page.limit)
			for _, u := range got {
				wantEqual(t, fmt.Sprintf("Users and User(%d)", u.ID), u, s.user(u.ID))
			}
			wantEqual(t, fmt.Sprintf("IDs of Users(after %d, limit %d)", page.after, page.limit), idsOf(got), page.want)
		}
	})
	rule("accounts are found by their exact name in any case of letters, by their exact email, or by both", func(t *testing.T, s testedStore) {
		for _, name := range []string{"anna", "Ben", "cleo"} {
			u := newUser(name)
			u.Email = "same@example.com"
			s.create(u)
		}
		s.create(newUser("dora"))
		s.create(User{Username: "plain", Role: RoleUser})
		for _, row := range []struct {
			filter UserFilter
			after  int64
			limit  int
			want   []int64
		}{
			{UserFilter{Name: "ben"}, 0, 10, []int64{2}},
			{UserFilter{Name: "BEN"}, 1, 10, []int64{2}},
			{UserFilter{Name: "ben"}, 2, 10, nil},
			{UserFilter{Name: "be"}, 0, 10, nil},
			{UserFilter{Name: "nobody"}, 0, 10, nil},
			{UserFilter{Name: "\u212Aim"}, 0, 10, nil},
			{UserFilter{Email: "same@example.com"}, 0, 10, []int64{1, 2, 3}},
			{UserFilter{Email: "same@example.com"}, 1, 1, []int64{2}},
			{UserFilter{Email: "dora@example.com"}, 0, 10, []int64{4}},
			{UserFilter{Email: "Dora@example.com"}, 0, 10, nil},
			{UserFilter{Email: "dora@example"}, 0, 10, nil},
			{UserFilter{Name: "ben", Email: "same@example.com"}, 0, 10, []int64{2}},
			{UserFilter{Name: "ben", Email: "dora@example.com"}, 0, 10, nil},
		} {
			got := need(s.Users(t.Context(), row.filter, row.after, row.limit))(t)
			wantEqual(t, fmt.Sprintf("IDs of Users(%+v, after %d, limit %d)", row.filter, row.after, row.limit), idsOf(got), row.want)
		}
	})
	rule("a verified email is no longer verified when it changes", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		for i, row := range []struct {
			change func(*User)
			want   bool
		}{
			{func(u *User) { u.EmailVerified = true }, true},
			{func(u *User) { u.FullName = "New" }, true},
			{func(u *User) { u.Email = strings.Clone(u.Email) }, true},
			{func(u *User) { u.Email = "new@example.com" }, false},
			{func(u *User) { u.Email, u.EmailVerified = "newer@example.com", true }, true},
			{func(u *User) { u.Email = "" }, false},
		} {
			got := s.update(u.ID, row.change)
			wantEqual(t, fmt.Sprintf("EmailVerified after update %d", i+1), got.EmailVerified, row.want)
			wantEqual(t, "User", s.user(u.ID), got)
		}
	})
	rule("an update changes every field of an account but ID, username and created_at", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		s.create(newUser("other"))
		want := User{
			ID: u.ID, Username: u.Username, CreatedAt: u.CreatedAt,
			Email: "new@example.com", FullName: "Jöhn \"Doe\" <&>", Disabled: true, Role: RoleAdmin, PasswordHash: "new hash", Epoch: 7,
		}
		got := s.update(u.ID, func(u *User) {
			*u = want
			u.ID, u.Username, u.CreatedAt = 99, "other", time.Now()
		})
		wantEqual(t, "UpdateUser", got, want)
		wantEqual(t, "User", s.user(u.ID), want)
		wantEqual(t, "UserByName", s.byName("johndoe"), want)

		got = s.update(u.ID, func(u *User) { u.Email, u.FullName, u.Disabled = "", "", false })
		want.Email, want.FullName, want.Disabled = "", "", false
		wantEqual(t, "UpdateUser to empty fields", got, want)
		wantEqual(t, "User", s.user(u.ID), want)
	})
	rule("an update whose function returns an error returns that error and changes nothing", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		before := s.contents()
		own := errors.New("not like this")
		_, err := s.UpdateUser(t.Context(), Caller{}, u.ID, func(u *User) error { u.Email = "changed"; return own })
		wantEqual(t, "whether UpdateUser returns the error itself", err == own, true)
		_, _, err = s.UpdateSession(t.Context(), u.ID, made.ID, func(s *Session, _ User) error { s.Generation++; return own })
		wantEqual(t, "whether UpdateSession returns the error itself", err == own, true)
		wantEqual(t, "the contents of the store afterwards", s.contents(), before)
	})
	rule("accounts and sessions that a store returns or passes are copies", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		before := s.contents()

		var keptUser *User
		s.update(u.ID, func(u *User) { keptUser = u })
		keptUser.FullName = "changed"
		var keptSession *Session
		wantErr(t, "UpdateSession", errOf(s.UpdateSession(t.Context(), u.ID, made.ID, func(s *Session, _ User) error { keptSession = s; return nil })), nil)
		keptSession.Generation = 99
		s.users(0, 10)[0].FullName = "changed"
		s.sessions(u.ID)[0].Generation = 99

		wantEqual(t, "the contents of the store afterwards", s.contents(), before)
	})
	rule("a panic in an update function does not block the store", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		func() {
			defer func() {
				if recover() == nil {
					t.Error("UpdateUser recovered the panic of its update function, want it to pass on")
				}
			}()
			s.UpdateUser(t.Context(), Caller{}, u.ID, func(*User) error { panic("a bug in a handler") })
		}()
		s.update(u.ID, func(u *User) { u.FullName = "still working" })
	})
	rule("an open store is ready", func(t *testing.T, s testedStore) {
		wantErr(t, "Ready()", s.Ready(t.Context()), nil)
	})
}

func testLastAdmin(rule ruleFunc) {
	ways := []struct {
		verb string
		try  func(s testedStore, id int64) error
	}{
		{"demoted", func(s testedStore, id int64) error { return s.tryUpdate(id, func(u *User) { u.Role = RoleUser }) }},
		{"disabled", func(s testedStore, id int64) error { return s.tryUpdate(id, func(u *User) { u.Disabled = true }) }},
		{"deleted", func(s testedStore, id int64) error { return s.DeleteUser(s.t.Context(), Caller{}, id) }},
	}
	for _, way := range ways {
		rule("the last active admin cannot be "+way.verb, func(t *testing.T, s testedStore) {
			disabled := newAdmin("disabled")
			disabled.Disabled = true
			s.create(disabled) // does not count
			s.create(newUser("user"))
			last := s.create(newAdmin("last"))
			before := s.contents()
			wantErr(t, "the last active admin is "+way.verb, way.try(s, last.ID), ErrLastAdmin)
			wantEqual(t, "the contents of the store afterwards", s.contents(), before)
		})
		rule("an admin can be "+way.verb+" if there is another admin", func(t *testing.T, s testedStore) {
			first, second := s.create(newAdmin("first")), s.create(newAdmin("second"))
			wantErr(t, "the first of two admins is "+way.verb, way.try(s, first.ID), nil)
			wantErr(t, "the second of two admins is "+way.verb, way.try(s, second.ID), ErrLastAdmin)
		})
		rule("one of two admins stays if both are "+way.verb+" at once", func(t *testing.T, s testedStore) {
			left := s.create(newAdmin("admin")).ID
			for i := range 10 {
				ids := []int64{left, s.create(newAdmin(fmt.Sprintf("admin%d", i))).ID}
				errs := atOnce(2, func(n int) error { return way.try(s, ids[n]) })
				left = ids[1-onlyWinner(t, "two admins are "+way.verb+" at once", errs, ErrLastAdmin)]
			}
		})
	}
	rule("the last active admin can change the other fields and sessions", func(t *testing.T, s testedStore) {
		last := s.create(newAdmin("last"))
		s.update(last.ID, func(u *User) { u.FullName, u.PasswordHash, u.Epoch = "Last Admin", "new hash", 2 })
		made := s.login(s.user(last.ID))
		wantErr(t, "EndSession", s.EndSession(t.Context(), Caller{}, last.ID, made.ID), nil)
	})
}

func testImport(rule ruleFunc) {
	imported := func() []User {
		a, b, c := newUser("Anna"), newUser("ben"), newUser("cleo")
		a.ID, b.ID, c.ID = 2, 5, 6
		a.Role, b.Disabled, c.Epoch = RoleAdmin, true, 4
		return []User{a, b, c}
	}
	rule("an import keeps every field of the accounts, even the IDs", func(t *testing.T, s testedStore) {
		want := imported()
		wantErr(t, "Import", s.Import(t.Context(), want, 6), nil)
		wantEqual(t, "Users", s.users(0, 10), want)
		wantEqual(t, "User(5)", s.user(5), want[1])
		wantErr(t, "CreateUser with an imported username", s.tryCreate("anna"), ErrUsernameTaken)
		wantErr(t, "the only imported admin is disabled", s.tryUpdate(2, func(u *User) { u.Disabled = true }), ErrLastAdmin)
		s.login(want[2])
	})
	for _, row := range []struct {
		name         string
		users        []User
		lastID, next int64
	}{
		{"the next ID after an import is above lastID", imported(), 9, 10}, // 7 to 9 were deleted
		{"the next ID after an import is above the imported IDs, whatever lastID is", imported(), 0, 7},
		{"the next ID after an import of no accounts is 1", nil, 0, 1},
	} {
		rule(row.name, func(t *testing.T, s testedStore) {
			wantErr(t, "Import", s.Import(t.Context(), row.users, row.lastID), nil)
			wantEqual(t, "the ID of the next account", s.create(newUser("next")).ID, row.next)
		})
	}
	rule("an import with a name twice is refused", func(t *testing.T, s testedStore) {
		users := imported()
		users[2].Username = "ANNA"
		wantErr(t, "Import", s.Import(t.Context(), users, 6), ErrUsernameTaken)
	})
	rule("a store with an account refuses an import", func(t *testing.T, s testedStore) {
		s.create(newUser("johndoe"))
		before := s.contents()
		wantErr(t, "Import", s.Import(t.Context(), imported(), 6), ErrNotEmpty)
		wantEqual(t, "the contents of the store afterwards", s.contents(), before)
	})
}

func testSessions(rule ruleFunc) {
	rule("a session is found with its account", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		want := newSession(u)
		want.UserAgent, want.IP = `Mozilla/5.0 ("quoted", <b>)`, "2001:db8::1"
		wantErr(t, "CreateSession", errOf(s.CreateSession(t.Context(), want)), nil)
		got, gotUser, err := s.Session(t.Context(), u.ID, want.ID)
		wantErr(t, "Session", err, nil)
		wantEqual(t, "Session", got, want)
		wantEqual(t, "the account of Session", gotUser, u)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{want})
	})
	rule("a session stays valid when its account changes, except for the epoch", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		want := s.update(u.ID, func(u *User) { u.FullName, u.Role, u.Disabled, u.PasswordHash = "New", RoleAdmin, true, "stronger" })
		_, got, err := s.Session(t.Context(), u.ID, made.ID)
		wantErr(t, "Session", err, nil)
		wantEqual(t, "the account of Session", got, want)
	})
	rule("a session is found only under its own account", func(t *testing.T, s testedStore) {
		john, johns := s.loggedIn("john")
		jane, _ := s.loggedIn("jane")
		s.wantGone(Session{ID: johns.ID, UserID: jane.ID})
		wantEqual(t, "Sessions of john", s.sessions(john.ID), []Session{johns})
	})
	rule("a session cannot be created if the password has changed since it was verified", func(t *testing.T, s testedStore) {
		verified := s.create(newUser("johndoe"))
		s.update(verified.ID, func(u *User) { u.Epoch++ })
		wantErr(t, "CreateSession", s.tryLogin(verified), ErrStale)
		wantEqual(t, "Sessions", s.sessions(verified.ID), nil)
	})
	rule("a session cannot be created while the account is disabled", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		s.update(u.ID, func(u *User) { u.Disabled = true })
		wantErr(t, "CreateSession", s.tryLogin(u), ErrInactive)
		wantEqual(t, "Sessions", s.sessions(u.ID), nil)
		s.update(u.ID, func(u *User) { u.Disabled = false })
		wantErr(t, "CreateSession", s.tryLogin(u), nil)
	})
	rule("enabling an account ends its old sessions", func(t *testing.T, s testedStore) {
		u, before := s.loggedIn("johndoe")
		s.update(u.ID, func(u *User) { u.Disabled = true })
		wantEqual(t, "Sessions of the disabled account", s.sessions(u.ID), []Session{before})
		s.update(u.ID, func(u *User) { u.FullName = "New" })
		wantEqual(t, "Sessions after another change of it", s.sessions(u.ID), []Session{before})
		s.update(u.ID, func(u *User) { u.Disabled = false })
		s.wantGone(before)
		after := s.login(u)
		s.update(u.ID, func(u *User) { u.Disabled = false })
		wantEqual(t, "Sessions after the account was enabled twice", s.sessions(u.ID), []Session{after})
	})
	rule("a new epoch ends all sessions of its account and none of another", func(t *testing.T, s testedStore) {
		john, jane := s.create(newUser("john")), s.create(newUser("jane"))
		first, second, janes := s.login(john), s.login(john), s.login(jane)
		john = s.update(john.ID, func(u *User) { u.Epoch++ })
		s.wantGone(first)
		s.wantGone(second)
		wantEqual(t, "Sessions of jane", s.sessions(jane.ID), []Session{janes})
		after := s.login(john)
		wantEqual(t, "Sessions after the next login", s.sessions(john.ID), []Session{after})
	})
	rule("a new session takes the place of the one of 100 that was used longest ago", func(t *testing.T, s testedStore) {
		john := s.create(newUser("john"))
		jane, janes := s.loggedIn("jane")
		var all []Session
		begin := func(age time.Duration, want string) {
			t.Helper()
			made := NewSession(john, today().Add(-age), testLife)
			ended, err := s.CreateSession(t.Context(), made)
			wantErr(t, "CreateSession", err, nil)
			wantEqual(t, "the session that CreateSession ends", ended, want)
			all = append(all, made)
		}
		for i := range maxSessions {
			begin(200*time.Second-time.Duration(i)*time.Second, "")
		}
		wantEqual(t, "Sessions after 100 logins, from the oldest login to the newest", s.sessions(john.ID), all)
		all[0] = s.rotate(all[0]) // a browser that is used every day
		begin(time.Second, all[1].ID)
		begin(time.Second, all[2].ID)
		wantEqual(t, "Sessions after 102 logins", s.sessions(john.ID), append(all[:1:1], all[3:]...))
		s.wantGone(all[1])
		s.wantGone(all[2])
		wantEqual(t, "Sessions of jane", s.sessions(jane.ID), []Session{janes})
	})
	rule("a session from the future lasts no longer than one of now", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		wantErr(t, "CreateSession", errOf(s.CreateSession(t.Context(), NewSession(u, today().Add(365*24*time.Hour), testLife))), nil)
		got := s.sessions(u.ID)[0]
		if life := time.Until(got.ExpiresAt); life > testLife.Idle {
			t.Errorf("a session that begins in a year expires after %v, want %v at most", life, testLife.Idle)
		}
		got = s.rotate(s.rotate(got))
		if life := got.CreatedAt.Add(testLife.Max).Sub(today()); life > testLife.Max {
			t.Errorf("a session that began in a year can last for %v after a refresh, want %v at most", life, testLife.Max)
		}
	})
	rule("an update changes only the generation and the times of a session", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		other, want := s.login(u), s.login(u)
		want.Generation, want.CreatedAt, want.LastUsedAt, want.ExpiresAt = 2, want.CreatedAt.Add(-time.Second), want.LastUsedAt.Add(-time.Second), want.ExpiresAt.Add(-time.Second)
		got, gotUser, err := s.UpdateSession(t.Context(), u.ID, want.ID, func(s *Session, seen User) error {
			wantEqual(t, "the account that the update function gets", seen, u)
			*s = Session{
				Generation: want.Generation, CreatedAt: want.CreatedAt, LastUsedAt: want.LastUsedAt, ExpiresAt: want.ExpiresAt,
				ID: "stolen", UserID: 99, Epoch: 7, UserAgent: "changed", IP: "changed",
			}
			return nil
		})
		wantErr(t, "UpdateSession", err, nil)
		wantEqual(t, "UpdateSession", got, want)
		wantEqual(t, "the account of UpdateSession", gotUser, u)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{other, want})
	})
	rule("an update of a session that changes nothing returns the session and its account", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		want := s.rotate(s.login(u))
		got, gotUser, err := s.UpdateSession(t.Context(), u.ID, want.ID, func(*Session, User) error { return nil })
		wantErr(t, "UpdateSession", err, nil)
		wantEqual(t, "UpdateSession", got, want)
		wantEqual(t, "the account of UpdateSession", gotUser, u)
	})
	rule("the replay of a refresh token ends its session and no other", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		first, replayed, last := s.login(u), s.rotate(s.rotate(s.login(u))), s.login(u)
		wantErr(t, "a refresh with the first token", errOf(s.refresh(replayed, 1)), ErrReplayed)
		s.wantGone(replayed)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{first, last})
	})
	rule("shorter lifetimes apply to existing sessions", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		longer := Lifetimes{Idle: 100 * testLife.Idle, Max: 100 * testLife.Max}
		over := NewSession(u, today().Add(-testLife.Idle), longer)
		live := NewSession(u, today().Add(-testLife.Idle/2), longer)
		for _, made := range []Session{over, live} {
			wantErr(t, "CreateSession", errOf(s.CreateSession(t.Context(), made)), nil)
		}
		s.wantGone(over)
		live.ExpiresAt = live.CreatedAt.Add(testLife.Idle)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{live})
		got, _, err := s.Session(t.Context(), u.ID, live.ID)
		wantErr(t, "Session", err, nil)
		wantEqual(t, "Session", got, live)
		renewed := s.rotate(live)
		wantEqual(t, "expires_at after a refresh", renewed.ExpiresAt, renewed.LastUsedAt.Add(testLife.Idle))
	})
	rule("an ended session is not found, and the other sessions stay", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		first, ended, last := s.login(u), s.login(u), s.login(u)
		wantErr(t, "EndSession", s.EndSession(t.Context(), Caller{}, u.ID, ended.ID), nil)
		s.wantGone(ended)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{first, last})
	})
	for _, row := range []struct {
		name string
		keep func(all []Session) string
		want func(all []Session) []Session
	}{
		{"all sessions of an account but one can be ended", func(all []Session) string { return all[1].ID }, func(all []Session) []Session { return all[1:2] }},
		{"all sessions of an account can be ended", func([]Session) string { return "" }, func([]Session) []Session { return nil }},
		{"all sessions of an account end if the one to keep is unknown", func([]Session) string { return "unknown" }, func([]Session) []Session { return nil }},
	} {
		rule(row.name, func(t *testing.T, s testedStore) {
			john, jane := s.create(newUser("john")), s.create(newUser("jane"))
			all, janes := []Session{s.login(john), s.login(john), s.login(john)}, s.login(jane)
			wantErr(t, "EndSessions", s.EndSessions(t.Context(), Caller{}, john.ID, row.keep(all)), nil)
			wantEqual(t, "Sessions of john", s.sessions(john.ID), row.want(all))
			wantEqual(t, "Sessions of jane", s.sessions(jane.ID), []Session{janes})
		})
	}
	rule("an expired session is not found", func(t *testing.T, s testedStore) {
		u, live := s.loggedIn("johndoe")
		over := NewSession(u, today().Add(-testLife.Idle-time.Second), testLife)
		wantErr(t, "CreateSession of an expired one", errOf(s.CreateSession(t.Context(), over)), nil)
		s.wantGone(over)

		over = s.login(u)
		expire := func(s *Session, _ User) error { s.ExpiresAt = today().Add(-time.Second); return nil }
		wantErr(t, "UpdateSession to an expired one", errOf(s.UpdateSession(t.Context(), u.ID, over.ID, expire)), nil)
		s.wantGone(over)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{live})
	})
}

// A storeChange is a method that changes a store, which has the account u with a session.
type storeChange struct {
	name   string
	change func(s Store, by Caller, u User, made Session) error
}

// changesOfAll are all such methods. The first five take a Caller.
var changesOfAll = []storeChange{
	{"CreateUser", func(s Store, by Caller, _ User, _ Session) error {
		return errOf(s.CreateUser(context.Background(), by, newUser("new")))
	}},
	{"UpdateUser", func(s Store, by Caller, u User, _ Session) error {
		return errOf(s.UpdateUser(context.Background(), by, u.ID, func(u *User) error { u.FullName += "!"; return nil }))
	}},
	{"DeleteUser", func(s Store, by Caller, u User, _ Session) error {
		return s.DeleteUser(context.Background(), by, u.ID)
	}},
	{"EndSession", func(s Store, by Caller, u User, made Session) error {
		return s.EndSession(context.Background(), by, u.ID, made.ID)
	}},
	{"EndSessions", func(s Store, by Caller, u User, _ Session) error {
		return s.EndSessions(context.Background(), by, u.ID, "")
	}},
	{"CreateSession", func(s Store, _ Caller, u User, _ Session) error {
		return errOf(s.CreateSession(context.Background(), newSession(u)))
	}},
	{"UpdateSession", func(s Store, _ Caller, u User, made Session) error {
		return errOf(s.UpdateSession(context.Background(), u.ID, made.ID, advance))
	}},
}

// testCallers is the promise that a dead token changes nothing: a caller without the
// right is refused in the step that would make the change.
func testCallers(rule ruleFunc) {
	callerChanges := append(changesOfAll[:5:5], storeChange{"UpdateUser that changes nothing", func(s Store, by Caller, u User, _ Session) error {
		return errOf(s.UpdateUser(context.Background(), by, u.ID, func(*User) error { return nil }))
	}})
	update := func(changes ...func(*User)) func(s testedStore, by *Caller) {
		return func(s testedStore, by *Caller) {
			for _, change := range changes {
				s.update(by.UserID, change)
			}
		}
	}
	promote, demote := func(u *User) { u.Role = RoleAdmin }, func(u *User) { u.Role = RoleUser }
	disable, enable := func(u *User) { u.Disabled = true }, func(u *User) { u.Disabled = false }
	for _, row := range []struct {
		name   string
		happen func(s testedStore, by *Caller)
		admin  bool // the route is for admins
		want   error
	}{
		{"succeeds for a caller with a live session", update(), false, nil},
		{"for admins succeeds for an admin", update(promote), true, nil},
		{"for admins is refused to a user", update(), true, ErrNotAdmin},
		{"for admins is refused to an admin who was demoted", update(promote, demote), true, ErrNotAdmin},
		{"is refused to a caller whose password was changed", update(func(u *User) { u.SetPassword("new") }), false, ErrEnded},
		{"is refused to a caller whose account was disabled", update(disable), false, ErrInactive},
		{"is refused to a caller whose account was disabled and enabled again", update(disable, enable), false, ErrEnded},
		{"is refused to a caller whose account was deleted", func(s testedStore, by *Caller) { s.remove(by.UserID) }, false, ErrEnded},
		{"is refused to a caller whose session was ended", func(s testedStore, by *Caller) {
			noError(s.t, s.EndSession(s.t.Context(), Caller{}, by.UserID, by.SessionID))
		}, false, ErrEnded},
		{"is refused to a caller whose refresh token was replayed", func(s testedStore, by *Caller) {
			replay := func(*Session, User) error { return ErrReplayed }
			wantErr(s.t, "UpdateSession", errOf(s.UpdateSession(s.t.Context(), by.UserID, by.SessionID, replay)), ErrReplayed)
		}, false, ErrEnded},
		{"is refused to a caller whose token has expired", func(s testedStore, by *Caller) { by.Expires = time.Now() }, false, ErrEnded},
		{"succeeds for a caller whose token will expire", func(s testedStore, by *Caller) { by.Expires = time.Now().Add(time.Minute) }, false, nil},
	} {
		for _, way := range callerChanges {
			rule(way.name+" "+row.name, func(t *testing.T, s testedStore) {
				s.create(newAdmin("boss")) // the caller may then be demoted or deleted
				caller, target := s.create(newUser("caller")), s.create(newUser("target"))
				by, targets := Caller{UserID: caller.ID, SessionID: s.login(caller).ID, Admin: row.admin}, s.login(target)
				row.happen(s, &by)
				before := s.contents()
				wantErr(t, way.name, way.change(s.Store, by, target, targets), row.want)
				if row.want != nil {
					wantEqual(t, "the contents of the store afterwards", s.contents(), before)
				}
			})
		}
	}
	rule("a caller whose session belongs to another account is refused", func(t *testing.T, s testedStore) {
		john := s.create(newUser("john"))
		jane, janes := s.loggedIn("jane")
		for _, by := range []Caller{{UserID: john.ID, SessionID: janes.ID}, {UserID: jane.ID}, {UserID: 99, SessionID: janes.ID}} {
			wantErr(t, fmt.Sprintf("DeleteUser by %+v", by), s.DeleteUser(t.Context(), by, john.ID), ErrEnded)
		}
	})
	rule("a caller can end its own session once", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		by := Caller{UserID: u.ID, SessionID: made.ID}
		wantErr(t, "EndSession", s.EndSession(t.Context(), by, u.ID, made.ID), nil)
		wantErr(t, "EndSession again", s.EndSession(t.Context(), by, u.ID, made.ID), ErrEnded)
	})
}

// testAtOnce has the rules for concurrent calls.
func testAtOnce(rule ruleFunc) {
	const many = 50
	rule("one of 50 registrations of one username at once succeeds", func(t *testing.T, s testedStore) {
		errs := atOnce(many, func(n int) error {
			name := "johndoe"
			if n%2 == 1 {
				name = "JohnDoe"
			}
			return s.tryCreate(name)
		})
		onlyWinner(t, "CreateUser", errs, ErrUsernameTaken)
		wantEqual(t, "accounts", len(s.users(0, many)), 1)
	})
	rule("50 registrations at once get 50 IDs without a gap", func(t *testing.T, s testedStore) {
		got := make([]User, many)
		errs := atOnce(many, func(n int) (err error) {
			got[n], err = s.CreateUser(t.Context(), Caller{}, newUser(fmt.Sprintf("user%d", n)))
			return err
		})
		wantErr(t, "CreateUser", errors.Join(errs...), nil)
		want := make([]User, many)
		for _, u := range got {
			if u.ID < 1 || u.ID > many || want[u.ID-1].ID != 0 {
				t.Fatalf("CreateUser(%s) = ID %d: out of range, or given twice", u.Username, u.ID)
			}
			want[u.ID-1] = u
		}
		wantEqual(t, "Users", s.users(0, 2*many), want)
	})
	rule("50 updates of an account and of its session at once all take effect", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		errs := atOnce(many, func(n int) error {
			if n%2 == 0 {
				return s.tryUpdate(u.ID, func(u *User) { u.FullName += "!" })
			}
			return errOf(s.UpdateSession(t.Context(), u.ID, made.ID, advance))
		})
		wantErr(t, "UpdateUser and UpdateSession", errors.Join(errs...), nil)
		wantEqual(t, "the full name after 25 updates", s.user(u.ID).FullName, u.FullName+strings.Repeat("!", many/2))
		wantEqual(t, "the generation after 25 updates", s.sessions(u.ID)[0].Generation, made.Generation+many/2)
	})
	rule("50 refreshes of one token at once get one successor", func(t *testing.T, s testedStore) {
		_, made := s.loggedIn("johndoe")
		now, got := today(), make([]Session, many)
		errs := atOnce(many, func(n int) (err error) {
			got[n], _, err = s.UpdateSession(t.Context(), made.UserID, made.ID, func(s *Session, _ User) error {
				return s.Rotate(1, now, testLife)
			})
			return err
		})
		wantErr(t, "UpdateSession", errors.Join(errs...), nil)
		want := made
		want.Generation, want.LastUsedAt, want.ExpiresAt = 2, now, now.Add(testLife.Idle)
		for _, s := range got {
			wantEqual(t, "UpdateSession", s, want)
		}
		wantEqual(t, "Sessions", s.sessions(made.UserID), []Session{want})
	})
	rule("a password change ends the sessions of concurrent logins and refreshes", func(t *testing.T, s testedStore) {
		u, old := s.loggedIn("johndoe")
		errs := atOnce(many, func(n int) error {
			switch {
			case n == many/2:
				return s.tryUpdate(u.ID, func(u *User) { u.Epoch++ })
			case n%2 == 0:
				if err := s.tryLogin(u); !errors.Is(err, ErrStale) {
					return err
				}
			default:
				if err := errOf(s.UpdateSession(t.Context(), u.ID, old.ID, advance)); !errors.Is(err, ErrNotFound) {
					return err
				}
			}
			return nil
		})
		wantErr(t, "CreateSession, UpdateSession and UpdateUser at once", errors.Join(errs...), nil)
		wantEqual(t, "Sessions", s.sessions(u.ID), nil)
		s.wantGone(old)
	})
	rule("a deletion ends the sessions of concurrent logins", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		errs := atOnce(many, func(n int) error {
			if n == many/2 {
				return s.DeleteUser(t.Context(), Caller{}, u.ID)
			}
			if err := s.tryLogin(u); !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		})
		wantErr(t, "CreateSession and DeleteUser at once", errors.Join(errs...), nil)
		wantEqual(t, "Sessions", s.sessions(u.ID), nil)
	})
	rule("one of 50 calls that end one session at once succeeds", func(t *testing.T, s testedStore) {
		_, made := s.loggedIn("johndoe")
		errs := atOnce(many, func(int) error { return s.EndSession(t.Context(), Caller{}, made.UserID, made.ID) })
		onlyWinner(t, "EndSession", errs, ErrNotFound)
	})
	rule("one session stays if two sessions end all others at once", func(t *testing.T, s testedStore) {
		u := s.create(newUser("johndoe"))
		for range 20 {
			pair := []Session{s.login(u), s.login(u)}
			errs := atOnce(2, func(n int) error {
				return s.EndSessions(t.Context(), Caller{UserID: u.ID, SessionID: pair[n].ID}, u.ID, pair[n].ID)
			})
			won := onlyWinner(t, "EndSessions by two sessions at once", errs, ErrEnded)
			wantEqual(t, "the sessions that are left", s.sessions(u.ID), pair[won:won+1])
		}
	})
	rule("one admin stays if two admins demote each other at once", func(t *testing.T, s testedStore) {
		s.create(newAdmin("boss"))
		for i := range 10 {
			var admins []User
			var by []Caller
			for n := range 2 {
				u := s.create(newAdmin(fmt.Sprintf("admin%d.%d", i, n)))
				admins, by = append(admins, u), append(by, Caller{UserID: u.ID, SessionID: s.login(u).ID, Admin: true})
			}
			errs := atOnce(2, func(n int) error {
				return errOf(s.UpdateUser(t.Context(), by[n], admins[1-n].ID, func(u *User) error { u.Role = RoleUser; return nil }))
			})
			onlyWinner(t, "two admins demote each other at once", errs, ErrNotAdmin)
		}
	})
	rule("a read sees a concurrent change as a whole", func(t *testing.T, s testedStore) {
		whole := func(u *User, n int) {
			u.Email, u.FullName, u.PasswordHash = fmt.Sprint(n), fmt.Sprint(n), fmt.Sprint(n)
		}
		u := newUser("johndoe")
		whole(&u, 0)
		u = s.create(u)
		made := s.login(u)
		errs := atOnce(5, func(n int) error {
			for i := range 40 {
				var got User
				var err error
				switch n {
				case 0:
					got, err = s.UpdateUser(t.Context(), Caller{}, u.ID, func(u *User) error { whole(u, i); return nil })
				case 1:
					got, err = s.User(t.Context(), u.ID)
				case 2:
					got, err = s.UserByName(t.Context(), u.Username)
				case 3:
					_, got, err = s.Session(t.Context(), u.ID, made.ID)
				case 4:
					_, got, err = s.UpdateSession(t.Context(), u.ID, made.ID, advance)
				}
				if err == nil && (got.Email != got.FullName || got.Email != got.PasswordHash) {
					err = fmt.Errorf("a part of a change was read: %+v", got)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		wantErr(t, "reads and writes at once", errors.Join(errs...), nil)
	})
}

// testStoreClock has the rules about time, to the nanosecond. It is for stores within
// the process, whose clock testing/synctest controls.
func testStoreClock(t *testing.T, open func(t *testing.T) Store) {
	rule := func(name string, test func(t *testing.T, s testedStore)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, testedStore{open(t), t}) })
		})
	}
	rule("a session is found until it expires, to the nanosecond", func(t *testing.T, s testedStore) {
		u, made := s.loggedIn("johndoe")
		time.Sleep(testLife.Idle - 1)
		wantEqual(t, "Sessions 1 ns before", s.sessions(u.ID), []Session{made})
		wantErr(t, "Session 1 ns before", errOf(s.Session(t.Context(), u.ID, made.ID)), nil)
		time.Sleep(time.Nanosecond)
		s.wantGone(made)
	})
	rule("a refresh extends a session, but not beyond its maximum lifetime", func(t *testing.T, s testedStore) {
		_, made := s.loggedIn("johndoe")
		for range int(testLife.Max/testLife.Idle)*2 - 1 {
			time.Sleep(testLife.Idle / 2)
			made = s.rotate(made)
		}
		time.Sleep(testLife.Idle/2 - 1)
		wantErr(t, "Session 1 ns before its maximum lifetime", errOf(s.Session(t.Context(), made.UserID, made.ID)), nil)
		time.Sleep(time.Nanosecond)
		s.wantGone(made)
	})
	rule("expired sessions do not count toward the 100 of an account", func(t *testing.T, s testedStore) {
		u, first := s.loggedIn("johndoe")
		for range maxSessions - 1 {
			s.login(u)
		}
		time.Sleep(testLife.Idle / 2)
		first = s.rotate(first)
		time.Sleep(testLife.Idle / 2) // the other 99 expire
		last := s.login(u)
		wantEqual(t, "Sessions", s.sessions(u.ID), []Session{first, last})
	})
	rule("random operations over several days have the same results as on a simple model", func(t *testing.T, s testedStore) {
		simulate(t, 1500, s.Store, func(s Store) Store { time.Sleep(10 * time.Minute); return s })
	})
}

// testFirstVersion checks a store that the first version of the server wrote. It has
// root (1, an admin), John.Doe (2) with two sessions, jane (3) with one session since
// her last password change, dora (5, disabled), and the ID of last (6, deleted). The
// tokens are from that version too.
func testFirstVersion(t *testing.T, s testedStore, tokens map[string]string) {
	t.Helper()
	var names []string
	for _, u := range s.users(0, 10) {
		names = append(names, fmt.Sprintf("%d %s %s %v", u.ID, u.Username, u.Role, u.Disabled))
	}
	wantEqual(t, "Users", names, []string{"1 root admin false", "2 John.Doe user false", "3 jane user false", "5 dora user true"})
	john := s.byName("JOHN.doe")
	wantEqual(t, "the full name", john.FullName, `John "J" Doe <&> é`)
	wantPassword(t, john, "correct horse")
	wantEqual(t, "sessions of root, John.Doe, jane and dora", fmt.Sprint(len(s.sessions(1)), len(s.sessions(2)), len(s.sessions(3)), len(s.sessions(5))), "1 2 1 1")

	refresh := func(token string) (Session, error) {
		r := need(NewTokens("stdauth", testKey, "").VerifyRefresh(tokens[token]))(t)
		got, _, err := s.UpdateSession(t.Context(), r.UserID, r.SessionID, func(s *Session, _ User) error {
			return s.Rotate(r.Generation, s.LastUsedAt.Add(time.Minute), monthLife)
		})
		return got, err
	}
	wantErr(t, "a refresh of a session that a new password ended", errOf(refresh("ended by a new password")), ErrNotFound)
	got := need(refresh("current"))(t)
	wantEqual(t, "the generation after that refresh", got.Generation, 3)
	wantErr(t, "a refresh with a token replaced long ago", errOf(refresh("replaced")), ErrReplayed)
	s.wantGone(got)
	wantEqual(t, "the ID after those that the first version used", s.create(newUser("next")).ID, 7)
}

var (
	testLife = Lifetimes{Idle: time.Hour, Max: 3 * time.Hour}
	longAgo  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// today returns the time in whole seconds, which is all that a store must keep.
func today() time.Time { return time.Now().UTC().Truncate(time.Second) }

func newUser(name string) User {
	return User{
		Username: name, Email: strings.ToLower(name) + "@example.com", FullName: "Full Name of " + name,
		Role: RoleUser, CreatedAt: longAgo, PasswordHash: "$pbkdf2-sha256$hash of " + name,
	}
}

func newAdmin(name string) User {
	u := newUser(name)
	u.Role = RoleAdmin
	return u
}

func newSession(u User) Session {
	s := NewSession(u, today(), testLife)
	s.UserAgent, s.IP = "curl/8.5.0", "192.0.2.1"
	return s
}

// A testedStore is a store with methods that fail the test on an error.
type testedStore struct {
	Store
	t testing.TB
}

func (s testedStore) tryCreate(name string) error {
	return errOf(s.CreateUser(s.t.Context(), Caller{}, newUser(name)))
}

func (s testedStore) tryUpdate(id int64, change func(*User)) error {
	return errOf(s.UpdateUser(s.t.Context(), Caller{}, id, func(u *User) error { change(u); return nil }))
}

func (s testedStore) tryLogin(u User) error {
	return errOf(s.CreateSession(s.t.Context(), newSession(u)))
}

func (s testedStore) create(u User) User {
	s.t.Helper()
	return need(s.CreateUser(s.t.Context(), Caller{}, u))(s.t)
}

func (s testedStore) update(id int64, change func(*User)) User {
	s.t.Helper()
	return need(s.UpdateUser(s.t.Context(), Caller{}, id, func(u *User) error { change(u); return nil }))(s.t)
}

func (s testedStore) remove(id int64) {
	s.t.Helper()
	noError(s.t, s.DeleteUser(s.t.Context(), Caller{}, id))
}

func (s testedStore) login(u User) Session {
	s.t.Helper()
	made := newSession(u)
	noError(s.t, errOf(s.CreateSession(s.t.Context(), made)))
	return made
}

// loggedIn creates an account with a session.
func (s testedStore) loggedIn(name string) (User, Session) {
	s.t.Helper()
	u := s.create(newUser(name))
	return u, s.login(u)
}

// rotate refreshes a session with its current token, even within a second of the last time.
func (s testedStore) rotate(old Session) Session {
	s.t.Helper()
	renewed, _, err := s.UpdateSession(s.t.Context(), old.UserID, old.ID, rotateSoon)
	noError(s.t, err)
	return renewed
}

// refresh refreshes a session with the token of a generation.
func (s testedStore) refresh(old Session, generation int64) (Session, error) {
	renewed, _, err := s.UpdateSession(s.t.Context(), old.UserID, old.ID, func(s *Session, _ User) error {
		return s.Rotate(generation, today(), testLife)
	})
	return renewed, err
}

func (s testedStore) user(id int64) User {
	s.t.Helper()
	return need(s.User(s.t.Context(), id))(s.t)
}

func (s testedStore) byName(name string) User {
	s.t.Helper()
	return need(s.UserByName(s.t.Context(), name))(s.t)
}

func (s testedStore) users(after int64, limit int) []User {
	s.t.Helper()
	return need(s.Users(s.t.Context(), UserFilter{}, after, limit))(s.t)
}

func (s testedStore) sessions(userID int64) []Session {
	s.t.Helper()
	return need(s.Sessions(s.t.Context(), userID))(s.t)
}

func idsOf(users []User) (ids []int64) {
	for _, u := range users {
		ids = append(ids, u.ID)
	}
	return ids
}

// wantGone checks that no method finds the session.
func (s testedStore) wantGone(gone Session) {
	s.t.Helper()
	wantErr(s.t, "Session of one that must be gone", errOf(s.Session(s.t.Context(), gone.UserID, gone.ID)), ErrNotFound)
	update := func(*Session, User) error {
		s.t.Error("UpdateSession of one that must be gone called change")
		return nil
	}
	wantErr(s.t, "UpdateSession of one that must be gone", errOf(s.UpdateSession(s.t.Context(), gone.UserID, gone.ID, update)), ErrNotFound)
	wantErr(s.t, "EndSession of one that must be gone", s.EndSession(s.t.Context(), Caller{}, gone.UserID, gone.ID), ErrNotFound)
	listed := slices.ContainsFunc(s.sessions(gone.UserID), func(s Session) bool { return s.ID == gone.ID })
	wantEqual(s.t, "whether Sessions lists one that must be gone", listed, false)
}

// contents returns everything that can be read from a store.
func (s testedStore) contents() map[string]any {
	s.t.Helper()
	all := map[string]any{}
	for after := int64(0); ; {
		page := s.users(after, 7)
		for _, u := range page {
			all[fmt.Sprintf("User(%d)", u.ID)] = s.user(u.ID)
			wantEqual(s.t, "UserByName("+u.Username+")", s.byName(u.Username), u)
			list := s.sessions(u.ID)
			all[fmt.Sprintf("Sessions(%d)", u.ID)] = list
			for _, listed := range list {
				found, foundUser, err := s.Session(s.t.Context(), u.ID, listed.ID)
				wantErr(s.t, "Session that Sessions lists", err, nil)
				wantEqual(s.t, "Session that Sessions lists", found, listed)
				wantEqual(s.t, "the account of Session", foundUser, u)
			}
			after = u.ID
		}
		if len(page) < 7 {
			return all
		}
	}
}

// atOnce calls f with 0 to n-1, all at once, and returns the errors.
func atOnce(n int, f func(n int) error) []error {
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// onlyWinner returns the index of the only call that succeeded. The others must have
// failed with want.
func onlyWinner(t testing.TB, call string, errs []error, want error) int {
	t.Helper()
	won := slices.Index(errs, nil)
	for i, err := range errs {
		if won < 0 || i != won && !errors.Is(err, want) {
			t.Fatalf("%s: got errors %v, want nil once and else %v", call, errs, want)
		}
	}
	return won
}

// wantEqual reports an error unless got equals want. An empty list equals nil.
func wantEqual[T any](t testing.TB, call string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", call, d)
	}
}

// wantErr reports an error unless got is want or wraps it.
func wantErr(t testing.TB, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", call, got, want)
	}
}

// wantErrText reports an error unless got contains text.
func wantErrText(t testing.TB, call string, got error, text string) {
	t.Helper()
	if got == nil || !strings.Contains(got.Error(), text) {
		t.Errorf("%s: got error %v, want one with %q", call, got, text)
	}
}

// wantIn reports an error unless got contains all parts.
func wantIn(t testing.TB, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s has no %q:\n%s", what, part, got)
		}
	}
}

// rotateSoon and advance are changes for UpdateSession.
func rotateSoon(s *Session, _ User) error {
	s.LastUsedAt = s.LastUsedAt.Add(-refreshPause)
	return s.Rotate(s.Generation, today(), testLife)
}

func advance(s *Session, _ User) error { s.Generation++; return nil }

// need returns a function that returns value, or ends the test for the error:
//
//	file := need(os.Open(path))(t)
func need[T any](value T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		noError(t, err)
		return value
	}
}

// noError ends the test unless err is nil.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errOf returns the last result of a call, its error.
func errOf(results ...any) error {
	last := results[len(results)-1]
	if last == nil {
		return nil
	}
	return last.(error)
}

// A modelStore is a Store that is too simple to be wrong: a map, a list, one lock, and
// a linear search for every call.
type modelStore struct {
	mu       sync.Mutex
	accounts map[int64]User
	logins   []Session // of all accounts, in order
	lastID   int64
}

func newModelStore() *modelStore { return &modelStore{accounts: map[int64]User{}} }

// TestModelStore: the model passes the contract too, which shows that the contract
// requires nothing of the implementation.
func TestModelStore(t *testing.T) {
	open := func(t *testing.T) Store { return newModelStore() }
	testStore(t, open)
	testStoreClock(t, open)
}

// simulate makes random calls to a store and to a model of it. Both must return the
// same results and hold the same contents. From time to time it calls between, which
// may open the store again or let time pass.
func simulate(t *testing.T, steps int, s Store, between func(Store) Store) {
	t.Helper()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	model := newModelStore()
	loginShare := 10 + 50*rng.IntN(2) // in percent: 60 is enough for 100 sessions of an account
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

// An operation is one call, with its random arguments decided.
type operation struct {
	call string
	do   func(Store) (any, error)
}

func randomOperation(rng *rand.Rand, model *modelStore, loginShare int) operation {
	ctx, now := context.Background(), today()
	id := 1 + rng.Int64N(model.lastID+1) // sometimes an unknown one
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
			if !u.Disabled { // the contract does not say which of two errors is returned
				s.Epoch++
			}
		case 1:
			s.ExpiresAt = now.Add(-time.Hour)
		}
		return operation{fmt.Sprintf("CreateSession(%+v)", s), func(store Store) (any, error) {
			return nil, errOf(store.CreateSession(ctx, s))
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
		page, err := store.Users(ctx, UserFilter{}, id, limit)
		return []any{byName, nameErr == nil, s, u, sessionErr == nil, len(page), page}, err
	}}
}

// randomCaller returns the zero Caller, or one of a session that may have ended, of an
// account that may be disabled or not an admin.
func randomCaller(rng *rand.Rand, model *modelStore) Caller {
	if len(model.logins) == 0 || rng.IntN(2) == 0 {
		return Caller{}
	}
	s := model.logins[rng.IntN(len(model.logins))]
	return Caller{UserID: s.UserID, SessionID: s.ID, Admin: rng.IntN(3) == 0}
}

func (m *modelStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	defer m.lock()()
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
	defer m.lock()()
	return m.account(Caller{}, id)
}

func (m *modelStore) UserByName(ctx context.Context, name string) (User, error) {
	defer m.lock()()
	u, _ := m.byName(name)
	return m.account(Caller{}, u.ID)
}

func (m *modelStore) Users(ctx context.Context, filter UserFilter, after int64, limit int) (page []User, err error) {
	defer m.lock()()
	for _, id := range slices.Sorted(maps.Keys(m.accounts)) {
		u := m.accounts[id]
		passes := (filter.Name == "" || sameName(u.Username, filter.Name)) && (filter.Email == "" || u.Email == filter.Email)
		if id > after && len(page) < limit && passes {
			page = append(page, u)
		}
	}
	return page, nil
}

func (m *modelStore) UpdateUser(ctx context.Context, by Caller, id int64, change func(*User) error) (User, error) {
	defer m.lock()()
	old, err := m.account(by, id)
	if err != nil {
		return User{}, err
	}
	u := old
	if err := change(&u); err != nil {
		return User{}, err
	}
	u.ID, u.Username, u.CreatedAt = old.ID, old.Username, old.CreatedAt
	if old.EmailVerified && u.Email != old.Email {
		u.EmailVerified = false
	}
	if m.lastAdmin(old) && (u.Disabled || u.Role != RoleAdmin) {
		return User{}, ErrLastAdmin
	}
	m.accounts[id] = u
	if old.Disabled && !u.Disabled {
		m.end(id, func(Session) bool { return true })
	}
	return u, nil
}

func (m *modelStore) DeleteUser(ctx context.Context, by Caller, id int64) error {
	defer m.lock()()
	u, err := m.account(by, id)
	switch {
	case err != nil:
		return err
	case m.lastAdmin(u):
		return ErrLastAdmin
	}
	delete(m.accounts, id)
	return nil
}

func (m *modelStore) CreateSession(ctx context.Context, s Session) (ended string, err error) {
	defer m.lock()()
	u, err := m.account(Caller{}, s.UserID)
	switch {
	case err != nil:
		return "", err
	case u.Epoch != s.Epoch:
		return "", ErrStale
	case u.Disabled:
		return "", ErrInactive
	}
	if list := m.live(u.ID); len(list) == maxSessions {
		ended = slices.MinFunc(list, func(a, b Session) int { return a.LastUsedAt.Compare(b.LastUsedAt) }).ID
		m.end(u.ID, func(s Session) bool { return s.ID == ended })
	}
	m.logins = append(m.logins, s)
	return ended, nil
}

func (m *modelStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	defer m.lock()()
	return m.session(userID, id)
}

func (m *modelStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	defer m.lock()()
	return m.live(userID), nil
}

func (m *modelStore) UpdateSession(ctx context.Context, userID int64, id string, change func(*Session, User) error) (Session, User, error) {
	defer m.lock()()
	next, u, err := m.session(userID, id)
	if err == nil {
		err = change(&next, u)
	}
	if errors.Is(err, ErrReplayed) {
		m.end(userID, func(s Session) bool { return s.ID == id })
	}
	if err != nil {
		return Session{}, User{}, err
	}
	s := &m.logins[slices.IndexFunc(m.logins, func(s Session) bool { return s.ID == id })]
	s.Generation, s.CreatedAt, s.LastUsedAt, s.ExpiresAt = next.Generation, next.CreatedAt, next.LastUsedAt, next.ExpiresAt
	return *s, u, nil
}

func (m *modelStore) EndSession(ctx context.Context, by Caller, userID int64, id string) error {
	defer m.lock()()
	if err := m.allow(by); err != nil {
		return err
	}
	_, _, err := m.session(userID, id)
	m.end(userID, func(s Session) bool { return s.ID == id })
	return err
}

func (m *modelStore) EndSessions(ctx context.Context, by Caller, userID int64, keep string) error {
	defer m.lock()()
	_, err := m.account(by, userID)
	if err == nil {
		m.end(userID, func(s Session) bool { return s.ID != keep })
	}
	return err
}

func (m *modelStore) Import(ctx context.Context, users []User, lastID int64) error {
	defer m.lock()()
	if len(m.accounts) > 0 {
		return ErrNotEmpty
	}
	m.lastID = lastID
	for _, u := range users {
		if _, taken := m.byName(u.Username); taken {
			return ErrUsernameTaken
		}
		m.accounts[u.ID] = u
		m.lastID = max(m.lastID, u.ID)
	}
	return nil
}

func (m *modelStore) Ready(ctx context.Context) error { return nil }

func (m *modelStore) Close() error { return nil }

func (m *modelStore) lock() (unlock func()) { m.mu.Lock(); return m.mu.Unlock }

// allow has the rules of Caller.Allowed without its code.
func (m *modelStore) allow(by Caller) error {
	if by == (Caller{}) {
		return nil
	}
	_, u, err := m.session(by.UserID, by.SessionID)
	switch {
	case err != nil || by.Expires != (time.Time{}) && !time.Now().Before(by.Expires):
		return ErrEnded
	case u.Disabled:
		return ErrInactive
	case by.Admin && u.Role != RoleAdmin:
		return ErrNotAdmin
	}
	return nil
}

// account returns an account for a call, if its caller is allowed to make it.
func (m *modelStore) account(by Caller, id int64) (User, error) {
	u, exists := m.accounts[id]
	err := m.allow(by)
	if err == nil && !exists {
		err = ErrNotFound
	}
	return u, err
}

func (m *modelStore) byName(name string) (User, bool) {
	for _, u := range m.accounts {
		if sameName(u.Username, name) {
			return u, true
		}
	}
	return User{}, false
}

func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) } // ASCII folds to no other length

func (m *modelStore) session(userID int64, id string) (Session, User, error) {
	for _, s := range m.live(userID) {
		if s.ID == id {
			return s, m.accounts[userID], nil
		}
	}
	return Session{}, User{}, ErrNotFound
}

func (m *modelStore) live(userID int64) (list []Session) {
	for _, s := range m.logins {
		if u, ok := m.accounts[userID]; ok && s.UserID == userID {
			if s = s.Within(testLife, time.Now()); s.Live(u.Epoch, time.Now()) {
				list = append(list, s)
			}
		}
	}
	return list
}

// end ends those sessions of an account that are over.
func (m *modelStore) end(userID int64, over func(Session) bool) {
	m.logins = slices.DeleteFunc(m.logins, func(s Session) bool { return s.UserID == userID && over(s) })
}

func (m *modelStore) lastAdmin(u User) bool {
	active := func(u User) bool { return u.Role == RoleAdmin && !u.Disabled }
	for _, other := range m.accounts {
		if other.ID != u.ID && active(other) {
			return false
		}
	}
	return active(u)
}
