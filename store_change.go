package main

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A change describes one change of one account: ID and exactly one other field are set,
// or LastID alone. A file store writes it as one line.
type change struct {
	LastID  int64    `json:"last_id,omitempty"` // alone: all IDs up to this one have been used
	ID      int64    `json:"id,omitempty"`      // of the account
	User    *User    `json:"user,omitempty"`    // the new value of the account
	Deleted bool     `json:"deleted,omitempty"` // the account was deleted
	Session *Session `json:"session,omitempty"` // a new session, or its new value
	Ended   string   `json:"ended,omitempty"`   // the ID of the session that ended
	Kept    *string  `json:"kept,omitempty"`    // the ID of the only session that did not end
}

// An account is, for a store, a user with its sessions, oldest first. It is never changed
// in place, so a copy of a list of accounts is a snapshot.
type account struct {
	user     *User
	sessions []Session // some may have ended
}

// decisions implements the methods of [Changer] that change one account, for all
// stores: each method decides on a change, and the store makes it. UpdateUser, for
// example, passes a decision to atomically, which calls it with the account.
type decisions struct {
	life Lifetimes // they bound older sessions as well

	// atomically checks the caller, calls the decision with the account, makes the change
	// that it returns, and returns its error, all in one atomic step. It returns
	// ErrNotFound if there is no such account.
	atomically func(ctx context.Context, by Caller, id int64, d decision) error
}

// A decision returns the change to make to an account. An empty change is no change. A
// decision may return both a change and an error: the replay of a refresh token ends the
// session and is refused.
type decision func(*account) (change, error)

// on calls the decision with an account. It refuses a change after which there would be
// no active admin. anotherAdmin reports whether there is one besides this account.
func (d decision) on(a *account, anotherAdmin func() bool) (change, error) {
	c, refusal := d(a)
	if a.endsAdmin(c) && !anotherAdmin() {
		return change{}, ErrLastAdmin
	}
	return c, refusal
}

// endsAdmin reports whether the account is an active admin's, but not after the change.
func (a *account) endsAdmin(c change) bool {
	return a.user.ActiveAdmin() && (c.Deleted || c.User != nil && !c.User.ActiveAdmin())
}

func (d decisions) UpdateUser(ctx context.Context, by Caller, id int64, update func(*User) error) (updated User, err error) {
	err = d.atomically(ctx, by, id, func(a *account) (change, error) {
		u := *a.user
		if err := update(&u); err != nil {
			return change{}, err
		}
		u.ID, u.Username, u.CreatedAt = a.user.ID, a.user.Username, a.user.CreatedAt
		if u.Email != a.user.Email && a.user.EmailVerified {
			u.EmailVerified = false // it was the old one that was verified
		}
		updated = u
		if u == *a.user {
			return change{}, nil
		}
		return change{ID: id, User: &u}, nil
	})
	return updated, err
}

func (d decisions) DeleteUser(ctx context.Context, by Caller, id int64) error {
	return d.atomically(ctx, by, id, func(*account) (change, error) { return change{ID: id, Deleted: true}, nil })
}

func (d decisions) CreateSession(ctx context.Context, s Session) (ended string, err error) {
	err = d.atomically(ctx, Caller{}, s.UserID, func(a *account) (change, error) {
		switch {
		case a.user.Epoch != s.Epoch:
			return change{}, ErrStale
		case a.user.Disabled:
			return change{}, ErrInactive
		}
		_, ended = a.with(s) // apply will end the same one
		return change{ID: s.UserID, Session: &s}, nil
	})
	return ended, err
}

func (d decisions) UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (updated Session, u User, err error) {
	err = d.atomically(ctx, Caller{}, userID, func(a *account) (change, error) {
		old, ok := a.session(id, d.life)
		if !ok {
			return change{}, ErrNotFound
		}
		s := old
		if err := update(&s, *a.user); errors.Is(err, ErrReplayed) {
			return change{ID: userID, Ended: id}, err
		} else if err != nil {
			return change{}, err
		}
		s.ID, s.UserID, s.Epoch, s.UserAgent, s.IP = old.ID, old.UserID, old.Epoch, old.UserAgent, old.IP
		updated, u = s, *a.user
		if s == old {
			return change{}, nil
		}
		return change{ID: userID, Session: &s}, nil
	})
	return updated, u, err
}

func (d decisions) EndSession(ctx context.Context, by Caller, userID int64, id string) error {
	return d.atomically(ctx, by, userID, func(a *account) (change, error) {
		if _, ok := a.session(id, d.life); !ok {
			return change{}, ErrNotFound
		}
		return change{ID: userID, Ended: id}, nil
	})
}

func (d decisions) EndSessions(ctx context.Context, by Caller, userID int64, keep string) error {
	return d.atomically(ctx, by, userID, func(*account) (change, error) { return change{ID: userID, Kept: &keep}, nil })
}

// session returns a live session of the account, which may be nil. It tries the newest
// first, because that is the likeliest.
func (a *account) session(id string, life Lifetimes) (Session, bool) {
	if a == nil {
		return Session{}, false
	}
	for _, s := range slices.Backward(a.sessions) {
		if s.ID == id {
			now := time.Now()
			s = s.Within(life, now)
			return s, s.Live(a.user.Epoch, now)
		}
	}
	return Session{}, false
}

// allow returns why a caller may not make a change, given its account, which may be
// nil.
func (a *account) allow(by Caller, life Lifetimes) error {
	if _, ok := a.session(by.SessionID, life); !ok || !by.Expires.IsZero() && !time.Now().Before(by.Expires) {
		return ErrEnded
	}
	return by.Allowed(*a.user)
}

// live returns the live sessions of the account, which may be nil.
func (a *account) live(life Lifetimes) (live []Session) {
	if a == nil {
		return nil
	}
	now := time.Now()
	for _, s := range a.sessions {
		if s = s.Within(life, now); s.Live(a.user.Epoch, now) {
			live = append(live, s)
		}
	}
	return live
}

// apply returns the account after a change.
func (a *account) apply(c change) *account {
	next := *a
	switch {
	case c.User != nil:
		if next.user = c.User; c.User.EndsSessions(a.user) {
			next.sessions = nil
		}
	case c.Session != nil:
		next.sessions, _ = a.with(*c.Session)
	case c.Ended != "":
		next.sessions = a.without(func(s Session) bool { return s.ID == c.Ended })
	case c.Kept != nil:
		next.sessions = a.without(func(s Session) bool { return s.ID != *c.Kept })
	}
	return &next
}

// with returns the sessions of the account with s added, or replaced in its place. To
// make room, it drops expired sessions first, and then the one that was used longest ago,
// whose ID it returns as ended.
func (a *account) with(s Session) (sessions []Session, ended string) {
	same := func(old Session) bool { return old.ID == s.ID }
	if i := slices.IndexFunc(a.sessions, same); i >= 0 {
		sessions = slices.Clone(a.sessions)
		sessions[i] = s
		return sessions, ""
	}
	sessions = slices.Clip(a.sessions)
	if len(sessions) >= maxSessions {
		sessions = a.without(func(old Session) bool { return !old.Live(a.user.Epoch, s.CreatedAt) })
	}
	if len(sessions) >= maxSessions {
		oldest := slices.MinFunc(sessions, func(a, b Session) int { return a.LastUsedAt.Compare(b.LastUsedAt) })
		ended = oldest.ID
		sessions = slices.DeleteFunc(sessions, func(old Session) bool { return old.ID == ended })
	}
	return append(sessions, s), ended
}

func (a *account) without(gone func(Session) bool) []Session {
	return slices.DeleteFunc(slices.Clone(a.sessions), gone)
}
