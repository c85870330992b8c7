package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// token issues tokens for a password or a refresh token (RFC 6749, sections 4.3 and
// 6).
func (s *server) token(c *call) (out reply, err error) {
	ttl, err := s.requestedTTL(c.form)
	if err != nil {
		return reply{}, err
	}
	switch c.form["grant_type"] {
	case "", "password":
		out, err = s.login(c, ttl)
		switch {
		case err == nil:
			c.login = "ok"
		case errors.Is(err, errLogin), errors.Is(err, ErrInactive), errors.Is(err, errInvalidRequest):
			c.login = "failed"
		default: // for no fault of its own
			c.login = "refused"
		}
		return out, err
	case "refresh_token":
		return s.refresh(c, ttl)
	}
	return reply{}, errGrantType
}

// requestedTTL returns the lifetime of the access token to issue. A client may ask for a
// shorter one than the server's.
func (s *server) requestedTTL(f form) (time.Duration, error) {
	if f["expires_in"] == "" {
		return s.AccessTTL, nil
	}
	seconds, ok := wholeNumber(f["expires_in"], 1, int64(s.AccessTTL/time.Second))
	if !ok {
		return 0, detailed(errInvalidRequest, fmt.Sprintf("expires_in must be a whole number from 1 to %d", s.AccessTTL/time.Second))
	}
	return time.Duration(seconds) * time.Second, nil
}

// login starts a session for a password.
func (s *server) login(c *call, ttl time.Duration) (reply, error) {
	if err := c.form.require("username", "password"); err != nil {
		return reply{}, err
	}
	name, password := c.form["username"], c.form["password"]
	var u User
	better, err := s.passwords.Check(c.Context(), name, c.from, password, func() (_ string, known bool, err error) {
		u, err = s.store.UserByName(c.Context(), name)
		c.account = u.ID
		if err == nil || errors.Is(err, ErrNotFound) { // an empty hash takes as long to check
			known, err = s.known(c, u.ID)
		}
		return u.PasswordHash, known, err
	})
	switch {
	case errors.Is(err, ErrPassword):
		return reply{}, errLogin
	case err != nil:
		return reply{}, err
	case u.Disabled:
		return reply{}, ErrInactive
	case s.Demo && c.fromAfar(): // everybody knows these passwords
		return reply{}, errCrossOrigin
	}
	if better != "" {
		s.rehash(c, u, better)
	}
	return s.startSession(c, u, ttl, errLogin)
}

// known reports whether the account, if there is one, has a live session that began in
// the client's network. On etcd this costs a round trip, so it is asked only while hashes
// wait, and then for unknown names too: the time does not reveal whether an account exists.
func (s *server) known(c *call, id int64) (bool, error) {
	if s.passwords.queue.waiting() == 0 {
		return false, nil
	}
	sessions, err := s.store.Sessions(c.Context(), id)
	return slices.ContainsFunc(sessions, c.near), err
}

// rehash replaces a hash that is weaker than new ones. If it cannot, the next login will.
func (s *server) rehash(c *call, u User, hash string) {
	_, err := s.store.UpdateUser(c.Context(), Caller{}, u.ID, func(current *User) error {
		if current.Epoch == u.Epoch {
			current.PasswordHash = hash
		}
		return nil
	})
	if err != nil {
		s.log.Warn("could not replace a weak password hash", "user", u.ID, "error", err)
	}
}

// startSession logs in the account as it was when its password was verified. It returns
// stale if the password has changed since, or the account was deleted.
func (s *server) startSession(c *call, u User, ttl time.Duration, stale error) (reply, error) {
	now := time.Now().UTC()
	session := NewSession(u, now, s.SessionLife)
	session.IP = c.from.String()
	session.UserAgent = displayable(c.UserAgent())
	ended, err := s.store.CreateSession(c.Context(), session)
	if errors.Is(err, ErrStale) || errors.Is(err, ErrNotFound) {
		return reply{}, stale
	}
	if err != nil {
		return reply{}, err
	}
	if ended != "" {
		s.log.Warn("the account has too many sessions: the one used longest ago has ended", "user", u.ID, "session", ended)
		s.metrics.count("stdauth_sessions_ended_total")
	}
	s.metrics.count("stdauth_sessions_started_total")
	return s.replyToken(u, session, now, ttl)
}

// displayable returns the first 256 bytes of a header with a question mark for each character
// that could change how a list of sessions is displayed.
func displayable(header string) string {
	return strings.Map(func(c rune) rune {
		if !printable(string(c)) {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(header[:min(len(header), 256)], "?"))
}

// refresh rotates a refresh token and issues its successors.
func (s *server) refresh(c *call, ttl time.Duration) (reply, error) {
	if err := c.form.require("refresh_token"); err != nil {
		return reply{}, err
	}
	token, err := s.tokens.VerifyRefresh(c.form["refresh_token"])
	if err != nil {
		return reply{}, errRefresh
	}
	c.account = token.UserID
	now := time.Now().UTC()
	session, u, err := s.store.UpdateSession(c.Context(), token.UserID, token.SessionID, func(session *Session, u User) error {
		if err := session.Rotate(token.Generation, now, s.SessionLife); err != nil {
			return err
		}
		if session.ExpiresAt.Unix() <= now.Unix() {
			return ErrNotFound // its last second: too short for an access token
		}
		if u.Disabled {
			return ErrInactive
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrReplayed):
		s.metrics.count("stdauth_replays_total")
		s.metrics.count("stdauth_sessions_ended_total")
		s.log.Warn("a refresh token was used again: its session has ended", "user", token.UserID, "ip", c.from)
		return reply{}, errRefresh
	case errors.Is(err, ErrNotFound):
		return reply{}, errRefresh
	case err != nil:
		return reply{}, err
	}
	s.metrics.count("stdauth_refreshes_total")
	return s.replyToken(u, session, now, ttl)
}

// replyToken returns the reply to a login or a refresh (RFC 6749, section 5.1).
func (s *server) replyToken(u User, session Session, now time.Time, ttl time.Duration) (reply, error) {
	// An access token does not outlive its session.
	expires := min(now.Add(ttl).Unix(), session.ExpiresAt.Unix())
	claims := Claims{u.ID, session.ID, session.Generation, u.Username, u.Role, now.Unix(), expires}
	out, err := replyJSON(http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"` // seconds
		RefreshToken string `json:"refresh_token"`
	}{s.tokens.SignAccess(claims), "bearer", expires - now.Unix(), s.tokens.SignRefresh(claims)})
	out.header = map[string]string{"Pragma": "no-cache"}
	return out, err
}

// readToken returns the claims of the token in the form, of either kind, expired or not.
func (s *server) readToken(f form) (Claims, error) {
	if err := f.require("token"); err != nil {
		return Claims{}, err
	}
	if claims, err := s.tokens.ReadAccess(f["token"]); err == nil {
		return claims, nil
	}
	return s.tokens.VerifyRefresh(f["token"])
}

// revoke ends the session of a token of either kind. An invalid token gets the same
// response (RFC 7009, section 2.2).
func (s *server) revoke(c *call) (reply, error) {
	claims, err := s.readToken(c.form)
	if err == nil {
		c.account = claims.UserID
		err = s.store.EndSession(c.Context(), Caller{}, claims.UserID, claims.SessionID)
	}
	if err != nil && !errors.Is(err, ErrToken) && !errors.Is(err, ErrNotFound) {
		return reply{}, err
	}
	if err == nil {
		s.metrics.count("stdauth_sessions_ended_total")
	}
	return replyJSON(http.StatusOK, struct{}{}) // some clients parse even this
}
