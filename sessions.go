package main

import (
	"crypto/rand"
	"errors"
	"time"
)

// A Session is one login of an account, which each refresh extends. Both kinds of token
// contain its ID. A refresh token is both IDs and the generation, signed, so the same one
// can be made again.
type Session struct {
	ID         string    `json:"id"` // ASCII letters and digits
	UserID     int64     `json:"user_id"`
	Epoch      int64     `json:"epoch,omitempty"` // of the account, at the login
	Generation int64     `json:"generation"`      // of the current refresh token, from 1
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"` // the login or the last rotation
	ExpiresAt  time.Time `json:"expires_at"`
	UserAgent  string    `json:"user_agent,omitempty"`
	IP         string    `json:"ip,omitempty"`
}

// Lifetimes bound a session: it ends when it has not been used for Idle, and Max after
// the login in any case.
type Lifetimes struct {
	Idle, Max time.Duration
}

const (
	maxSessions = 100 // an account keeps those that were used last

	// After a lost response, or in a second tab, an honest client sends the refresh
	// token that was just replaced. During this grace period it is accepted.
	refreshGrace = time.Minute

	// A session rotates at most once in this time, so its client cannot fill the store.
	refreshPause = time.Second

	// Copies of the server can share a store. The clock of another may be this far ahead.
	leeway = 30 * time.Second
)

var (
	ErrReplayed = errors.New("refresh token used again") // after it was replaced
	ErrNotFound = errors.New("not found")                // of accounts and sessions
)

// NewSession returns a session of the account as it was when its password was verified.
// A store refuses the session if the password has changed since.
func NewSession(u User, now time.Time, life Lifetimes) Session {
	s := Session{ID: rand.Text(), UserID: u.ID, Epoch: u.Epoch, Generation: 1, CreatedAt: now, LastUsedAt: now}
	s.ExpiresAt = s.expiry(life)
	return s
}

// Rotate accepts a refresh token of the given generation: the current one, or the one
// before it in its grace period. Afterwards s.Generation is that of the token to hand
// out. It does not change within refreshPause of the last rotation. An older token has two
// holders, and one of them is a thief: Rotate returns ErrReplayed, and the session must end
// (RFC 9700, section 4.14.2).
func (s *Session) Rotate(generation int64, now time.Time, life Lifetimes) error {
	age := now.Sub(s.LastUsedAt) // negative if the clock was ahead, here or at another copy
	switch {
	case generation == s.Generation:
		if s.Generation == 1 || age < -leeway || refreshPause <= age {
			s.Generation++
			s.LastUsedAt = now
			s.CreatedAt = past(s.CreatedAt, now)
			s.ExpiresAt = s.expiry(life)
		}
		return nil
	case s.Superseded(generation, now):
		return nil // the same successor as before
	case generation == s.Generation-1 && age < -leeway:
		return ErrNotFound // the clock was set back, so its grace period is unknown
	case generation < s.Generation:
		return ErrReplayed
	}
	return ErrNotFound // from the future: the store was restored from a backup
}

// Superseded reports whether generation is the previous one, in its grace period.
func (s *Session) Superseded(generation int64, now time.Time) bool {
	age := now.Sub(s.LastUsedAt)
	return generation == s.Generation-1 && -leeway <= age && age < refreshGrace
}

// Live reports whether the session can be used at the given epoch of its account.
func (s *Session) Live(epoch int64, now time.Time) bool {
	return s.Epoch == epoch && now.Before(s.ExpiresAt)
}

// Within returns the session with its expiry bounded by the current lifetimes, which
// may be shorter than when it was stored. Longer ones do not extend it.
func (s Session) Within(life Lifetimes, now time.Time) Session {
	if end := s.bounded(now).expiry(life); end.Before(s.ExpiresAt) {
		s.ExpiresAt = end
	}
	return s
}

// bounded returns the session with no time in the future. A clock that was ahead must not
// make a session last longer.
func (s Session) bounded(now time.Time) Session {
	s.CreatedAt, s.LastUsedAt = past(s.CreatedAt, now), past(s.LastUsedAt, now)
	return s
}

// past returns t, or now if t is further ahead than the clock of another copy may be.
func past(t, now time.Time) time.Time {
	if t.Sub(now) > leeway {
		return now
	}
	return t
}

func (s Session) expiry(life Lifetimes) time.Time {
	idle, old := s.LastUsedAt.Add(life.Idle), s.CreatedAt.Add(life.Max)
	if old.Before(idle) {
		return old
	}
	return idle
}

// A Caller is the session that asks for a change. The zero Caller makes changes that need
// no session.
type Caller struct {
	UserID    int64
	SessionID string
	Admin     bool      // the change is for admins
	Expires   time.Time // of its access token; none if zero
}

// The reasons why a caller may not make a change.
var (
	ErrEnded    = errors.New("the session has ended")
	ErrInactive = errors.New("inactive user")
	ErrNotAdmin = errors.New("not an admin")
)

// Allowed returns why the caller, whose account is u, may not make the change, or nil.
// The store checks that the session is live and that its token has not expired.
func (c Caller) Allowed(u User) error {
	switch {
	case u.Disabled:
		return ErrInactive
	case c.Admin && u.Role != RoleAdmin:
		return ErrNotAdmin
	}
	return nil
}
