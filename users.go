package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A User is one account, in the form in which stores keep it. It is a plain value:
// changing a copy changes nothing in a [Store].
type User struct {
	ID            int64     `json:"id"` // from 1 up, never reused
	Username      string    `json:"username"`
	Email         string    `json:"email,omitempty"`     // empty when absent
	FullName      string    `json:"full_name,omitempty"` // empty when absent
	EmailVerified bool      `json:"email_verified,omitempty"`
	Disabled      bool      `json:"disabled,omitempty"` // errors call it inactive
	Role          Role      `json:"role"`
	CreatedAt     time.Time `json:"created_at"` // UTC, whole seconds
	PasswordHash  string    `json:"password_hash"`

	// Epoch counts the changes of the password. A session records the epoch at its
	// login and has ended once the account's epoch differs. So one write changes the
	// password and ends every session, including one that is being started with the
	// old password.
	Epoch int64 `json:"epoch,omitempty"`
}

// A Role says what an account may do. It is read from the store at every request,
// never from a token.
type Role string

const (
	RoleUser  Role = "user"
	RoleAdmin Role = "admin"
)

// ActiveAdmin reports whether the account is an admin's and not disabled.
func (u *User) ActiveAdmin() bool { return u.Role == RoleAdmin && !u.Disabled }

// SetPassword gives the account a new password, which ends its sessions.
func (u *User) SetPassword(hash string) {
	u.PasswordHash = hash
	u.Epoch++
}

// EndsSessions reports whether changing the account from old to u ends its sessions. A
// new password does, and so does enabling an account, whose sessions were refused while it was disabled.
func (u *User) EndsSessions(old *User) bool {
	return u.Epoch != old.Epoch || old.Disabled && !u.Disabled
}

// The rules for the fields of an account. The text of an error continues the name of
// the field, as in "username must be ...".

// checkUsername checks a username. Most email addresses are valid ones.
func checkUsername(name string) error {
	if !isPlain(name) {
		return errors.New("must be 1 to 64 of ASCII letters, digits and @ . + - _")
	}
	return nil
}

// isPlain reports whether text is short and needs no escaping in a URL path, in JSON or
// in a log. Usernames and the IDs of sessions and requests are plain.
func isPlain(text string) bool {
	return len(text) >= 1 && len(text) <= 64 && !strings.ContainsFunc(text, func(c rune) bool {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		return !letter && (c < '0' || '9' < c) && !strings.ContainsRune("@.+-_", c)
	})
}

// foldName returns the form in which names are compared: ASCII letters in lower case.
// strings.ToLower would also fold the Kelvin sign, U+212A, to k.
func foldName(name string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, name)
}

// checkPassword follows NIST SP 800-63B-4, section 3.1.1.2: a list of common passwords, and
// no rules about which characters to use. That section requires 15 characters where a
// password is the only factor; minPassword is less.
func checkPassword(password, username string) error {
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("must be at least %d characters long", minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("must be at most %d bytes long", maxPassword)
	case !hashable(password):
		return errors.New("must be valid UTF-8 without NUL and U+FFFD")
	case len(username) >= 4 && strings.Contains(foldName(password), foldName(username)):
		return errors.New("must not contain the username")
	case commonPasswords()[strings.ToLower(password)]:
		return errors.New("is one of the most common passwords")
	}
	return nil
}

const (
	minPassword = 8    // characters
	maxPassword = 1024 // bytes
)

// commonPasswords are the 3,000 most common passwords of eight characters or more,
// in lower case. The file names its source.
var commonPasswords = sync.OnceValue(func() map[string]bool {
	common := map[string]bool{}
	for line := range strings.Lines(commonPasswordsFile) {
		if !strings.HasPrefix(line, "#") {
			common[strings.TrimSpace(line)] = true
		}
	}
	return common
})

//go:embed users_common_passwords.txt
var commonPasswordsFile string

// hashable reports whether a password may be hashed at all. HMAC pads its key with zero
// bytes (RFC 2104, section 2), so "x" and "x\x00" would be the same password. Decoders
// replace invalid input with U+FFFD, so a password with it could stand for many.
func hashable(password string) bool {
	return len(password) <= maxPassword && utf8.ValidString(password) && !strings.ContainsAny(password, "\x00\uFFFD")
}

func checkEmail(email string) error {
	if len(email) <= 254 && printable(email) { // first, because parsing a long text is slow
		if a, err := mail.ParseAddress(email); err == nil && a.Address == email {
			return nil
		}
	}
	return errors.New("must be one email address of at most 254 bytes")
}

func checkFullName(name string) error {
	switch {
	case utf8.RuneCountInString(name) > 200:
		return errors.New("must be at most 200 characters long")
	case name != "" && strings.TrimSpace(name) == "":
		return errors.New("must not be only spaces")
	case !printable(name):
		return errors.New("must be text without control characters")
	}
	return nil
}

// printable reports whether text is valid UTF-8 and displays as it is: without control
// characters, line and paragraph separators, and characters that override the direction
// of text (Unicode Standard Annex 9), with which one name can look like another.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(c rune) bool {
		return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || '\u202A' <= c && c <= '\u202E' || '\u2066' <= c && c <= '\u2069'
	})
}

func checkRole(role Role) error {
	if role != RoleUser && role != RoleAdmin {
		return errors.New(`must be "user" or "admin"`)
	}
	return nil
}
