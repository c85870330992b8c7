package main

import (
	"context"
	"errors"
)

// The errors of a Store, to be tested with errors.Is. Any other error means that the
// store is in trouble.
var (
	ErrNotFound      = errors.New("not found")
	ErrUsernameTaken = errors.New("username already registered")
	ErrLastAdmin     = errors.New("the last active admin cannot be demoted, disabled or deleted")
	ErrStale         = errors.New("the account's password has changed since")
	ErrNotEmpty      = errors.New("the store already holds accounts")
	ErrUnavailable   = errors.New("the store is unavailable") // wrapped around the cause
)

// A Store keeps accounts and their sessions. Its methods may be called
// concurrently. All values it returns are the caller's own copies.
//
// A session that has expired, or whose epoch is not its account's, is not there: no
// method returns it. No result, errors included, rests on a change that could still
// be lost.
type Store interface {
	Reader
	Changer

	// Ready returns nil while the store can write, else ErrUnavailable.
	Ready(ctx context.Context) error

	// Close waits for changes under way. No method is called after it.
	Close() error
}

// A Reader is the part of a Store that reads. It sees whole changes.
type Reader interface {
	// User and UserByName return an account, or ErrNotFound. The name may be in any
	// case.
	User(ctx context.Context, id int64) (User, error)
	UserByName(ctx context.Context, name string) (User, error)

	// Users returns at most limit accounts with IDs above after, by ID.
	Users(ctx context.Context, after int64, limit int) ([]User, error)

	// Session returns a session and its account, in one step: every request with a
	// token needs both.
	Session(ctx context.Context, userID int64, id string) (Session, User, error)

	// Sessions returns the sessions of an account, oldest first. None is no error.
	Sessions(ctx context.Context, userID int64) ([]Session, error)
}

// A Changer is the part of a Store that changes.
//
// A method that returns nil has made its change durable, as far as that store can. A
// method that returns an error has changed nothing, except that after ErrUnavailable
// the outcome is unknown, and that ErrReplayed ends a session.
//
// A method that takes a [Caller] refuses it in the same atomic step as the change:
// with ErrEnded if its session is not there, else with the error of
// [Caller.Allowed]. So a change is never made for a session that has ended, whatever
// its request waited for.
//
// The update functions are called with a copy, perhaps more than once, while the
// store holds its locks: they must be quick and must not call the store. The last
// call counts. An error they return is returned as it is.
type Changer interface {
	// CreateUser stores u under the next ID, and returns it with that ID. Names are
	// unique without regard to the case of ASCII letters: ErrUsernameTaken.
	CreateUser(ctx context.Context, by Caller, u User) (User, error)

	// UpdateUser changes an account, except for its ID, Username and CreatedAt.
	// ErrLastAdmin if no active admin would be left. The sessions of the account
	// end in the same step if [User.EndsSessions] says so.
	UpdateUser(ctx context.Context, by Caller, id int64, update func(*User) error) (User, error)

	// DeleteUser removes an account and its sessions. ErrLastAdmin as above.
	DeleteUser(ctx context.Context, by Caller, id int64) error

	// CreateSession stores s, and keeps the newest maxSessions of its account. The
	// account must be as it was when its password was verified: ErrNotFound if it is
	// gone, ErrStale if its epoch is not s.Epoch, ErrInactive if it is disabled.
	CreateSession(ctx context.Context, s Session) error

	// UpdateSession changes the Generation, LastUsedAt and ExpiresAt of a session,
	// and returns it with its account. If update returns ErrReplayed, the session
	// ends in the same step.
	UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (Session, User, error)

	// EndSession ends one session, or returns ErrNotFound. EndSessions ends all
	// sessions of an account but the one called keep; ErrNotFound if there is no
	// such account.
	EndSession(ctx context.Context, by Caller, userID int64, id string) error
	EndSessions(ctx context.Context, by Caller, userID int64, keep string) error

	// Import fills an empty store with accounts, which are in the order of their IDs
	// and keep them; ErrNotEmpty if the store is not. The next ID will be above
	// lastID. What an import that fails leaves must be removed by hand.
	Import(ctx context.Context, users []User, lastID int64) error
}
