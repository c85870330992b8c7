package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// token issues tokens for a password or a refresh token (RFC 6749, sections 4.3 and
// 6).
func (s *server) token(w *response, r *request) error {
	ttl, err := s.requestedTTL(r.form)
	if err != nil {
		return err
	}
	switch r.form["grant_type"] {
	case "", "password":
		w.login = "failed" // until it succeeds
		return s.login(w, r, ttl)
	case "refresh_token":
		return s.refresh(w, r, ttl)
	}
	return errGrantType
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

func (s *server) login(w *response, r *request, ttl time.Duration) error {
	if err := r.form.require("username", "password"); err != nil {
		return err
	}
	name, password := r.form["username"], r.form["password"]
	var u User
	weak, err := s.passwords.Check(r.Context(), name, s.clientIP(r.Request), password, func() (phc string, err error) {
		u, err = s.store.UserByName(r.Context(), name)
		w.user = u.ID
		if errors.Is(err, ErrNotFound) {
			return "", nil // an empty hash takes as long to check
		}
		return u.PasswordHash, err
	})
	if errors.Is(err, ErrPassword) {
		return errLogin
	}
	if err != nil {
		return err
	}
	if u.Disabled {
		return ErrInactive
	}
	if weak {
		err = s.rehash(r, u, password)
	}
	if err == nil {
		err = s.startSession(w, r, u, ttl)
	}
	if errors.Is(err, ErrStale) || errors.Is(err, ErrNotFound) {
		return errLogin // the password has changed, or the account was deleted
	}
	if err == nil {
		w.login = "ok"
	}
	return err
}

// rehash replaces a hash that is weaker than new ones.
func (s *server) rehash(r *request, u User, password string) error {
	hash, err := s.passwords.Hash(r.Context(), s.clientIP(r.Request), password)
	if err != nil {
		return err
	}
	_, err = s.store.UpdateUser(r.Context(), Caller{}, u.ID, func(current *User) error {
		if current.Epoch == u.Epoch {
			current.PasswordHash = hash
		}
		return nil
	})
	return err
}

// startSession logs in the account as it was when its password was verified.
func (s *server) startSession(w *response, r *request, u User, ttl time.Duration) error {
	now := time.Now().UTC()
	session := NewSession(u, now, s.Sessions)
	session.IP = s.clientIP(r.Request).String()
	agent := r.UserAgent()
	session.UserAgent = strings.ToValidUTF8(agent[:min(len(agent), 256)], "?")
	ended, err := s.store.CreateSession(r.Context(), session)
	if err != nil {
		return err
	}
	if ended != "" {
		s.log.Warn("the account has too many sessions: the one used longest ago has ended", "user", u.ID, "session", ended)
		s.metrics.count("stdauth_sessions_ended_total")
	}
	s.metrics.count("stdauth_sessions_started_total")
	return s.respondToken(w, u, session, now, ttl)
}

func (s *server) refresh(w *response, r *request, ttl time.Duration) error {
	if err := r.form.require("refresh_token"); err != nil {
		return err
	}
	token, err := s.tokens.VerifyRefresh(r.form["refresh_token"])
	if err != nil {
		return errRefresh
	}
	w.user = token.UserID
	now := time.Now().UTC()
	session, u, err := s.store.UpdateSession(r.Context(), token.UserID, token.SessionID, func(session *Session, u User) error {
		if err := session.Rotate(token.Generation, now, s.Sessions); err != nil {
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
	if errors.Is(err, ErrReplayed) {
		s.metrics.count("stdauth_replays_total")
		s.metrics.count("stdauth_sessions_ended_total")
		s.log.Warn("a refresh token was used again: its session has ended", "user", token.UserID, "ip", s.clientIP(r.Request))
		return errRefresh
	}
	if errors.Is(err, ErrNotFound) {
		return errRefresh
	}
	if err != nil {
		return err
	}
	s.metrics.count("stdauth_refreshes_total")
	return s.respondToken(w, u, session, now, ttl)
}

// respondToken writes the response to a login or a refresh (RFC 6749, section 5.1).
func (s *server) respondToken(w *response, u User, session Session, now time.Time, ttl time.Duration) error {
	// An access token does not outlive its session.
	issued, expires := now.Unix(), min(now.Add(ttl).Unix(), session.ExpiresAt.Unix())
	access := s.tokens.SignAccess(Claims{
		UserID: u.ID, SessionID: session.ID, Username: u.Username, Role: u.Role, IssuedAt: issued, ExpiresAt: expires,
	})
	refresh := s.tokens.SignRefresh(RefreshToken{UserID: u.ID, SessionID: session.ID, Generation: session.Generation})
	w.Header().Set("Pragma", "no-cache")
	return respondJSON(w, http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"` // seconds
		RefreshToken string `json:"refresh_token"`
	}{access, "bearer", expires - issued, refresh})
}

// An anyToken holds the contents of a token of either kind that this server signed.
type anyToken struct {
	RefreshToken        // its Generation is 0 for an access token
	access       Claims // of an access token
}

// readToken returns the contents of the token in the form, expired or not.
func (s *server) readToken(f form) (g anyToken, err error) {
	if err := f.require("token"); err != nil {
		return g, err
	}
	if g.access, err = s.tokens.ReadAccess(f["token"]); err == nil {
		g.UserID, g.SessionID = g.access.UserID, g.access.SessionID
		return g, nil
	}
	g.RefreshToken, err = s.tokens.VerifyRefresh(f["token"])
	return g, err
}

// revoke ends the session of a token of either kind. An invalid token gets the same
// response (RFC 7009, section 2.2).
func (s *server) revoke(w *response, r *request) error {
	g, err := s.readToken(r.form)
	if err == nil {
		w.user = g.UserID
		err = s.store.EndSession(r.Context(), Caller{}, g.UserID, g.SessionID)
	}
	if errors.Is(err, ErrToken) || errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		s.metrics.count("stdauth_sessions_ended_total")
	}
	return err
}

// introspection is the response of RFC 7662, section 2.2.
type introspection struct {
	Active    bool   `json:"active"`
	TokenType string `json:"token_type,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Subject   string `json:"sub,omitempty"`
	SessionID string `json:"sid,omitempty"`
	Username  string `json:"username,omitempty"`
	Role      Role   `json:"role,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
}

func (s *server) introspect(w *response, r *request) error {
	g, err := s.readToken(r.form)
	if errors.Is(err, ErrToken) {
		return respondJSON(w, http.StatusOK, introspection{})
	}
	if err != nil {
		return err
	}
	session, u, err := s.store.Session(r.Context(), g.UserID, g.SessionID)
	if errors.Is(err, ErrNotFound) || u.Disabled {
		return respondJSON(w, http.StatusOK, introspection{})
	}
	if err != nil {
		return err
	}
	now := time.Now()
	usable := g.Generation == session.Generation || session.Superseded(g.Generation, now)
	if g.Generation == 0 {
		usable = g.access.ValidAt(now)
	}
	if !usable {
		return respondJSON(w, http.StatusOK, introspection{})
	}
	active := introspection{
		Active: true, Issuer: s.Issuer, Audience: s.Issuer, Subject: strconv.FormatInt(u.ID, 10), SessionID: session.ID,
		Username: u.Username, Role: u.Role, IssuedAt: session.LastUsedAt.Unix(), ExpiresAt: session.ExpiresAt.Unix(),
	}
	if g.Generation == 0 {
		active.TokenType, active.IssuedAt, active.ExpiresAt = "bearer", g.access.IssuedAt, g.access.ExpiresAt
	}
	return respondJSON(w, http.StatusOK, active)
}
