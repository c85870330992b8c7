package main

import (
	"context"
	"errors"
	"fmt"
)

// The errors of a Store, for errors.Is. The methods also return ErrNotFound, those of a
// [Caller] and those of an update function.
var (
	ErrUsernameTaken = errors.New("username already registered")
	ErrLastAdmin     = errors.New("the last active admin cannot be demoted, disabled or deleted")
	ErrStale         = errors.New("the account's password has changed since")
	ErrNotEmpty      = errors.New("the store already holds accounts")
	ErrUnavailable   = errors.New("the store is unavailable") // wrapped with the cause
)

// An Alarm is the store's own name for why it is unavailable, such as etcd's NOSPACE.
// Clients may see it.
type Alarm string

func (a Alarm) Error() string { return "alarm " + string(a) }

func unavailable(cause error) error { return fmt.Errorf("%w: %w", ErrUnavailable, cause) }

// A Store keeps accounts and their sessions. Its methods may be called concurrently.
// The values they return are copies that the caller owns.
//
// No method returns a session that has expired or whose epoch is not that of its
// account. No result, errors included, depends on a change that could still be lost.
type Store interface {
	Reader
	Changer

	// Ready returns nil if the store can write, else ErrUnavailable.
	Ready(ctx context.Context) error

	// Close waits for changes that this process still has to make. No method may be called
	// after it.
	Close() error
}

// A Reader is the part of a Store that reads. It never sees half a change.
type Reader interface {
	// User and UserByName return an account, or ErrNotFound. Names are compared without
	// regard to the case of ASCII letters.
	User(ctx context.Context, id int64) (User, error)
	UserByName(ctx context.Context, name string) (User, error)

	// Users returns at most limit accounts with IDs above after that pass the filter,
	// in order of their IDs.
	Users(ctx context.Context, filter UserFilter, after int64, limit int) ([]User, error)

	// Session returns a session and its account in one atomic step. Every request with
	// a token needs both.
	Session(ctx context.Context, userID int64, id string) (Session, User, error)

	// Sessions returns the sessions of an account, oldest first. No sessions is not an
	// error.
	Sessions(ctx context.Context, userID int64) ([]Session, error)
}

// A UserFilter selects accounts. An empty field selects all.
type UserFilter struct {
	Name  string // compared like that of UserByName
	Email string // exact
}

// A Changer is the part of a Store that makes changes.
//
// A method that returns nil has made its change durable, as far as the store can. A method
// that returns an error has changed nothing, with three exceptions: ErrReplayed has ended a
// session, after ErrUnavailable the outcome is unknown, and Import may have made a part.
//
// A method that takes a [Caller] checks it in the same atomic step as it makes the
// change: ErrEnded if its session is not live or its token has expired, else the error of
// [Caller.Allowed]. So a dead token makes no change, however long its request waited.
//
// An update function is called with a copy, perhaps more than once, while the store
// holds its locks: it must be quick and must not call the store. The last call counts.
// Its error is returned unchanged.
type Changer interface {
	// CreateUser stores u under the next ID and returns it with that ID, or returns
	// ErrUsernameTaken.
	CreateUser(ctx context.Context, by Caller, u User) (User, error)

	// UpdateUser changes an account, except its ID, Username and CreatedAt. It returns
	// ErrLastAdmin if no active admin would be left. If [User.EndsSessions], the
	// sessions of the account end in the same step. If Email changes, a verified
	// account is no longer EmailVerified.
	UpdateUser(ctx context.Context, by Caller, id int64, update func(*User) error) (User, error)

	// DeleteUser removes an account and its sessions. It returns ErrLastAdmin like
	// UpdateUser.
	DeleteUser(ctx context.Context, by Caller, id int64) error

	// CreateSession stores s. If the account already has maxSessions, the one that was
	// used longest ago ends in the same step, and its ID is returned. It returns
	// ErrNotFound if there is no such account, ErrStale if its epoch is not s.Epoch, and
	// ErrInactive if it is disabled.
	CreateSession(ctx context.Context, s Session) (ended string, err error)

	// UpdateSession changes the Generation and the times of a session and returns it
	// with its account. If update returns ErrReplayed, the session ends in the same
	// step.
	UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (Session, User, error)

	// EndSession ends one session, or returns ErrNotFound. EndSessions ends all
	// sessions of an account except the one with the ID keep, or returns ErrNotFound if
	// there is no such account.
	EndSession(ctx context.Context, by Caller, userID int64, id string) error
	EndSessions(ctx context.Context, by Caller, userID int64, keep string) error

	// Import fills an empty store with accounts, which must be in order of their IDs
	// and keep them. The next ID will be above lastID. It returns ErrNotEmpty if the
	// store is not empty. What a failed import leaves behind must be removed by hand.
	Import(ctx context.Context, users []User, lastID int64) error
}
