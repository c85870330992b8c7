package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"
)

// This file holds what a link can do: set a new password, or prove an address.

const (
	resetLife      = time.Hour
	adminResetLife = 24 * time.Hour // an admin may hand it over by letter
	verifyLife     = 24 * time.Hour
)

// linkNames are what links and texts call their purposes.
var linkNames = map[purpose]string{resetting: "reset", verifying: "verify"}

// mailLink returns a link with a token. The token stands behind #, so browsers send it to
// no server, not even in Referer (RFC 9110, section 10.1.3). Where a mailed link leads is a
// setting, never what a request says, which a stranger may have chosen.
func (s *server) mailLink(base string, p purpose, u User, expires time.Time) string {
	return cmp.Or(s.Mail.Link, base+"/docs") + "#" + linkNames[p] + "=" + s.tokens.SignMail(p, u, expires)
}

// sendLink sends a link that is good for a time.
func (s *server) sendLink(c *call, p purpose, u User, life time.Duration) {
	s.mailer.Send(newLetter(linkNames[p], u, "{link}", s.mailLink(s.PublicURL, p, u, time.Now().Add(life))), c.from)
}

// forgotPassword sends a link for a reset, to a verified address only. The response is the
// same for every name. The look-up comes a moment later, when the request has normally
// been answered.
func (s *server) forgotPassword(c *call) (reply, error) {
	in := c.object(fields{"username": textField}, "username")
	if err := in.err(); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusAccepted}, s.mailer.Later(c.from, func(ctx context.Context) {
		u, err := s.store.UserByName(ctx, in.text("username"))
		switch {
		case err == nil && u.EmailVerified && !u.Disabled:
			s.sendLink(c, resetting, u, resetLife)
		case err != nil && !errors.Is(err, ErrNotFound):
			s.log.Error("request failed", "id", c.id, "route", routeName(c.route), "error", err)
		}
	})
}

func (s *server) requestVerifyToken(c *call) (reply, error) {
	return reply{status: http.StatusAccepted}, s.mailer.Later(c.from, func(context.Context) { s.sendVerify(c, c.user) })
}

// sendVerify sends a link that proves the address of the account.
func (s *server) sendVerify(c *call, u User) {
	if s.mailer != nil && u.Email != "" && !u.EmailVerified {
		s.sendLink(c, verifying, u, verifyLife)
	}
}

// tell tells the owner of a verified address what was changed.
func (s *server) tell(c *call, u User, what string) {
	if s.mailer != nil && u.EmailVerified {
		at := time.Now().UTC().Format("2 January 2006 at 15:04:05 UTC")
		l := newLetter("notice", u, "{what}", what, "{time}", at, "{client}", c.from.String())
		l.kind += " of " + what // with limits of its own, or one change could hide another
		s.mailer.Send(l, c.from)
	}
}

// passwordChanged tells the owner, and forgets failed logins with the old password.
func (s *server) passwordChanged(c *call, u User) {
	s.passwords.Forget(u.Username)
	s.tell(c, u, "password")
}

// emailChanged tells the old address and asks the new one.
func (s *server) emailChanged(c *call, old, u User) {
	if u.Email != old.Email {
		s.tell(c, old, "email address")
		s.sendVerify(c, u)
	}
}

// confirmPatch returns the errors of a patch. While mail is on, changing one's own address
// takes the password: a reset goes to that address, so otherwise a stolen access token
// would become the account.
func (s *server) confirmPatch(c *call, in *object) error {
	_, email := in.values["email"]
	_, given := in.values["current_password"]
	switch mine := email && s.mailer != nil && c.subject == c.user.ID; {
	case mine && c.by.Admin:
		return detailed(errOwnAccount, "Change your own email address at /users/me/, with your password")
	case mine && !given:
		in.add("current_password", "is required to change the email address")
	}
	if !given {
		return in.err()
	}
	return s.confirm(c, in, "current_password")
}

// useLink makes the change that a link is for, in the step of the store that finds the
// token good. It calls prepare first, which may take time.
func (s *server) useLink(c *call, p purpose, token string, prepare func(User) error, change func(*User)) (u User, err error) {
	id, check, err := s.tokens.VerifyMail(p, token)
	if err != nil {
		return User{}, err
	}
	c.account = id
	u, err = s.store.User(c.Context(), id)
	if err = cmp.Or(err, check(u)); err == nil {
		err = prepare(u)
	}
	if err == nil {
		u, err = s.store.UpdateUser(c.Context(), Caller{}, id, func(u *User) error {
			if err := check(*u); err != nil {
				return err
			}
			change(u)
			return nil
		})
	}
	if errors.Is(err, ErrNotFound) {
		err = ErrMailToken // of an account that was deleted
	}
	return u, err
}

// resetByMail sets a new password. All errors of the password come before the token is
// used up, so a user can correct it. SetPassword ends the token and all sessions.
func (s *server) resetByMail(c *call) (reply, error) {
	in := c.object(fields{"token": textField, "new_password": textField}, "token", "new_password")
	if err := in.err(); err != nil {
		return reply{}, err
	}
	var hash string
	u, err := s.useLink(c, resetting, in.text("token"), func(u User) (err error) {
		in.check("new_password", func(password string) error { return checkPassword(password, u.Username) })
		if err = in.err(); err == nil {
			hash, err = s.passwords.Hash(c.Context(), c.from, true, in.text("new_password"))
		}
		return err
	}, func(u *User) { u.SetPassword(hash) })
	if err == nil {
		s.passwordChanged(c, u)
	}
	return s.replyEnded(err)
}

// verifyEmail marks the address of an account as verified.
func (s *server) verifyEmail(c *call) (reply, error) {
	if s.mailer == nil {
		return reply{}, ErrMailOff
	}
	in := c.object(fields{"token": textField}, "token")
	if err := in.err(); err != nil {
		return reply{}, err
	}
	_, err := s.useLink(c, verifying, in.text("token"), func(User) error { return nil }, func(u *User) { u.EmailVerified = true })
	return noContent, err
}

// makeResetLink returns a link that an admin hands over. Nothing is verified by it. The
// admin's own request may say where it leads.
func (s *server) makeResetLink(c *call) (reply, error) {
	base := s.publicURL(c)
	switch {
	case c.subject == c.user.ID:
		return reply{}, errOwnPassword
	case s.Mail.Link == "" && base == "":
		return reply{}, errNoAddress
	}
	u, err := s.store.User(c.Context(), c.subject)
	if err != nil {
		return reply{}, err
	}
	expires := time.Now().UTC().Add(adminResetLife).Truncate(time.Second)
	return replyJSON(http.StatusCreated, struct {
		Link      string    `json:"link"`
		ExpiresAt time.Time `json:"expires_at"`
	}{s.mailLink(base, resetting, u, expires), expires})
}
