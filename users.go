package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A User is one account. It is a plain value: whoever holds one may change its
// copy, and nothing is kept until a [Store] is asked to.
type User struct {
	ID           int64     `json:"id"` // counts up from 1, never used again
	Username     string    `json:"username"`
	Email        string    `json:"email,omitempty"`     // empty when absent
	FullName     string    `json:"full_name,omitempty"` // empty when absent
	Disabled     bool      `json:"disabled,omitempty"`
	Role         Role      `json:"role"`
	CreatedAt    time.Time `json:"created_at"` // UTC, whole seconds
	PasswordHash string    `json:"password_hash"`

	// Epoch counts the changes of password. A session remembers the epoch it
	// was made in and is over when the account has moved on, so one write of
	// the account changes the password and ends every session at once.
	Epoch int64 `json:"epoch,omitempty"`
}

// A Role says what an account may do. It is read from the store at every
// request, never from a token.
type Role string

const (
	RoleUser  Role = "user"
	RoleAdmin Role = "admin"
)

// A Session is one login: the thing that a refresh token prolongs, that both
// kinds of token name, and that ends when the user logs out.
type Session struct {
	ID         string    `json:"id"`
	UserID     int64     `json:"user_id"`
	Epoch      int64     `json:"epoch,omitempty"` // of the account, at login
	Generation int64     `json:"generation"`      // of the newest refresh token, from 1
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"` // the login or the newest rotation
	ExpiresAt  time.Time `json:"expires_at"`
	UserAgent  string    `json:"user_agent,omitempty"`
	IP         string    `json:"ip,omitempty"`
}

// Lifetimes bound a session: it ends when unused for Idle, and Max after the
// login however busy it is.
type Lifetimes struct {
	Idle, Max time.Duration
}

const (
	maxSessions = 100 // an account keeps its newest

	// A lost answer or a second tab makes an honest client send the refresh
	// token that has just been replaced. For so long it is forgiven.
	refreshGrace = 10 * time.Second
)

// NewSession starts a session for the account as it was verified: the store
// refuses it if the password has changed since.
func NewSession(u User, now time.Time, life Lifetimes) Session {
	s := Session{ID: rand.Text(), UserID: u.ID, Epoch: u.Epoch, Generation: 1, CreatedAt: now, LastUsedAt: now}
	s.ExpiresAt = s.expiry(now, life)
	return s
}

// Rotate moves the session on for a refresh token of the given generation.
// Afterwards s.Generation is that of the successor to hand out. A token that
// was replaced longer ago than the grace period was used twice, by two parties
// of which one is a thief: ErrReplayed, and the session must end (RFC 9700,
// section 4.14.2).
func (s *Session) Rotate(generation int64, now time.Time, life Lifetimes) error {
	switch {
	case generation == s.Generation:
		s.Generation++
		s.LastUsedAt, s.ExpiresAt = now, s.expiry(now, life)
		return nil
	case s.Superseded(generation, now):
		return nil // the same successor again
	case generation < s.Generation:
		return ErrReplayed
	}
	return ErrNotFound // a token from the future: the store is an older backup
}

// Superseded reports whether generation is the one just before the current,
// and still within its grace period.
func (s *Session) Superseded(generation int64, now time.Time) bool {
	return generation == s.Generation-1 && now.Sub(s.LastUsedAt) < refreshGrace
}

// Live reports whether the session can still be used, its account being in that
// epoch.
func (s *Session) Live(epoch int64, now time.Time) bool {
	return s.Epoch == epoch && now.Before(s.ExpiresAt)
}

func (s *Session) expiry(now time.Time, life Lifetimes) time.Time {
	idle, old := now.Add(life.Idle), s.CreatedAt.Add(life.Max)
	if old.Before(idle) {
		return old
	}
	return idle
}

// The errors a Store returns, to be recognised with errors.Is. Any other error
// means that the store is in trouble.
var (
	ErrNotFound      = errors.New("not found")
	ErrUsernameTaken = errors.New("username already registered")
	ErrLastAdmin     = errors.New("the last active admin cannot be demoted, disabled or deleted")
	ErrStale         = errors.New("the account's password has changed since")
	ErrInactive      = errors.New("inactive user")
	ErrReplayed      = errors.New("refresh token used again")
	ErrNotEmpty      = errors.New("the store already holds accounts")
	ErrUnavailable   = errors.New("the store is unavailable") // wrapped around the cause
)

// A Store keeps accounts and their sessions. All its methods may be called at
// once. It answers with copies. A method that returns nil after a change has
// made it durable, as far as that store can; a method that returns an error has
// changed nothing, except that after ErrUnavailable the outcome is unknown.
//
// Reads see whole changes, never a part of one. A session that is expired, or
// of an older epoch than its account, is not there: no method returns it.
//
// The change functions are called with a fresh copy, perhaps more than once,
// while the store holds its locks: they must be quick, must not call the store,
// and their last call counts. An error they return comes back as it is, and
// nothing is changed.
type Store interface {
	// CreateUser keeps u under the next ID and returns it so. Names are unique
	// without regard to case: ErrUsernameTaken.
	CreateUser(ctx context.Context, u User) (User, error)

	// User and UserByName find an account, or ErrNotFound. The name may be in
	// any case.
	User(ctx context.Context, id int64) (User, error)
	UserByName(ctx context.Context, name string) (User, error)

	// Users lists at most limit accounts with IDs above after, in their order.
	Users(ctx context.Context, after int64, limit int) ([]User, error)

	// UpdateUser changes an account, all but its ID, Username and CreatedAt.
	// ErrLastAdmin if no active admin would be left. A new Epoch ends all its
	// sessions.
	UpdateUser(ctx context.Context, id int64, change func(*User) error) (User, error)

	// DeleteUser removes an account with its sessions, if check returns nil.
	// ErrLastAdmin as above.
	DeleteUser(ctx context.Context, id int64, check func(User) error) error

	// CreateSession keeps s, and of its account's sessions the newest
	// maxSessions. The account must be as it was verified: ErrNotFound if it is
	// gone, ErrStale if its epoch is not s.Epoch, ErrInactive if it is disabled.
	CreateSession(ctx context.Context, s Session) error

	// Session finds a session with its account, in one step: every request
	// with a token asks for both.
	Session(ctx context.Context, userID int64, id string) (Session, User, error)

	// Sessions lists an account's sessions, the oldest first; none is no error.
	Sessions(ctx context.Context, userID int64) ([]Session, error)

	// UpdateSession changes the Generation, LastUsedAt and ExpiresAt of a
	// session and returns it with its account. Where change changes nothing,
	// what it saw is durable when UpdateSession returns.
	UpdateSession(ctx context.Context, userID int64, id string, change func(*Session, User) error) (Session, User, error)

	// EndSession ends one session, ErrNotFound if it is not there; EndSessions
	// all of an account's but the one named keep.
	EndSession(ctx context.Context, userID int64, id string) error
	EndSessions(ctx context.Context, userID int64, keep string) error

	// Import fills an empty store (else ErrNotEmpty) with users, which come in
	// the order of their IDs and keep them. The next ID will be above lastID.
	// If it fails half way, what it left must be removed by hand.
	Import(ctx context.Context, users []User, lastID int64) error

	// Ready returns nil while the store can write, else ErrUnavailable.
	Ready(ctx context.Context) error

	// Close waits for changes under way. No method is called after it.
	Close() error
}

// The rules for what people may choose. Each returns what is wrong, in words
// that follow the field's name, or "".

// usernameProblem keeps names to characters that look alike nowhere, need no
// escaping anywhere, and allow an email address.
func usernameProblem(name string) string {
	const others = "@.+-_"
	ok := len(name) >= 1 && len(name) <= 64
	for _, c := range []byte(name) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		ok = ok && (letter || '0' <= c && c <= '9' || strings.IndexByte(others, c) >= 0)
	}
	if !ok {
		return "must be 1 to 64 of ASCII letters, digits and @ . + - _"
	}
	return ""
}

// foldName returns a name as names are compared: with its ASCII letters in lower
// case. strings.ToLower would also fold letters of other scripts into ASCII, such
// as U+212A, the Kelvin sign.
func foldName(name string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, name)
}

// passwordProblem follows NIST SP 800-63B, section 5.1.1.2: a minimum length,
// a list of passwords that everybody tries first, no rules about characters.
func passwordProblem(password, username string) string {
	switch {
	case len(password) < 8 || len(password) > 1024:
		return "must be 8 to 1024 bytes long"
	case !hashable(password):
		return "must be valid UTF-8 without NUL"
	case strings.EqualFold(password, username):
		return "must not be the username"
	case slices.Contains(commonPasswords, strings.ToLower(password)):
		return "is one of the most common passwords"
	}
	return ""
}

// commonPasswords are those of eight bytes or more that head the lists made
// from leaked passwords. A longer list belongs in a service of its own.
var commonPasswords = strings.Fields(`
	password password1 password12 password123 passw0rd p@ssw0rd p@ssword
	12345678 123456789 1234567890 0123456789 87654321 987654321 0987654321
	11111111 111111111 00000000 88888888 12341234 11223344 123123123 123321123
	qwertyui qwertyuiop qwerty12 qwerty123 qwerty1234 1q2w3e4r 1q2w3e4r5t 1qaz2wsx
	zaq12wsx qazwsxedc asdfghjk asdfghjkl zxcvbnm1 abcd1234 abc12345 a1b2c3d4 aa123456
	iloveyou iloveyou1 sunshine princess football baseball basketball superman
	starwars trustno1 whatever computer internet michelle jennifer liverpool
	letmein1 welcome1 welcome123 admin123 admin1234 administrator changeme secret123`)

// hashable reports whether a password may be hashed at all. HMAC pads its key
// with zero bytes (RFC 2104, section 2), so "x" and "x\x00" would be one.
func hashable(password string) bool {
	return len(password) <= 1024 && utf8.ValidString(password) && !strings.Contains(password, "\x00")
}

func emailProblem(email string) string {
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email || len(email) > 254 {
		return "must be one email address of at most 254 bytes"
	}
	return ""
}

func fullNameProblem(name string) string {
	if utf8.RuneCountInString(name) > 200 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "must be at most 200 characters without control characters"
	}
	return ""
}

func roleProblem(role Role) string {
	if role != RoleUser && role != RoleAdmin {
		return `must be "user" or "admin"`
	}
	return ""
}
