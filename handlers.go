package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config is what the handlers are told by the settings.
type Config struct {
	Issuer         string
	AccessTTL      time.Duration
	Sessions       Lifetimes
	Closed         bool           // only an admin may create accounts
	Demo           bool           // the demo accounts exist: the page offers them
	TLS            bool           // browsers are told to come back by HTTPS only
	CORSOrigins    []string       // "http://localhost:3000", or ":*" for any port
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Iterations     int            // of the password hash
}

// A server answers the requests. It holds no state of its own that a restart
// must not lose.
type server struct {
	Config
	store     Store
	tokens    *Tokens
	passwords *Passwords
	log       *slog.Logger
	stats     *stats
}

// A route says who may do what, and which handler does it.
type route struct {
	pattern string
	who     who
	handle  func(http.ResponseWriter, *http.Request, caller) error
	what    string
}

// routes is the API. README, openapi.json and the answers to other methods are
// checked against this table.
func (s *server) routes() []route {
	registrar := anyone
	if s.Closed {
		registrar = admin
	}
	return []route{
		{"POST /token", anyone, s.token, "log in, or refresh"},
		{"POST /revoke", anyone, s.revoke, "log out"},
		{"POST /introspect", admin, s.introspect, "ask what a token is worth"},

		{"POST /users/{$}", registrar, s.createUser, "register"},
		{"GET /users/{$}", admin, s.listUsers, "list the accounts"},

		{"GET /users/me/{$}", activeUser, s.readMe, "who am I"},
		{"PATCH /users/me/{$}", activeUser, s.patchMe, "change email or full name"},
		{"DELETE /users/me/{$}", activeUser, s.deleteMe, "delete my account"},
		{"PUT /users/me/password", activeUser, s.changePassword, "change my password"},
		{"GET /users/me/sessions", activeUser, s.listSessions, "where am I logged in"},
		{"DELETE /users/me/sessions", activeUser, s.endOtherSessions, "log out everywhere else"},
		{"DELETE /users/me/sessions/{sid}", activeUser, s.endSession, "log out there"},

		{"GET /users/{id}", activeUser, s.readUser, "read an account: one's own, or as an admin"},
		{"PATCH /users/{id}", admin, s.patchUser, "change, disable or promote an account"},
		{"PUT /users/{id}/password", admin, s.resetPassword, "set an account's password"},
		{"DELETE /users/{id}", admin, s.deleteUser, "delete an account"},

		{"GET /healthz", anyone, s.healthz, "is the process alive"},
		{"GET /readyz", anyone, s.readyz, "does the store work"},
		{"GET /openapi.json", anyone, s.openAPI, "this table, for programs"},
		{"GET /docs", anyone, s.docs, "the interactive page"},
		{"GET /docs/{file}", anyone, s.docs, "its parts"},
		{"GET /{$}", anyone, s.home, "redirects to the page"},
	}
}

// token issues tokens, for a password or for a refresh token (RFC 6749,
// sections 4.3 and 6).
func (s *server) token(w http.ResponseWriter, r *http.Request, _ caller) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	switch form["grant_type"] {
	case "", "password":
		return s.login(w, r, form)
	case "refresh_token":
		return s.refresh(w, r, form)
	}
	return &problem{status: http.StatusBadRequest, code: "unsupported_grant_type", detail: "grant_type must be password or refresh_token"}
}

func (s *server) login(w http.ResponseWriter, r *http.Request, form form) error {
	if err := form.require("username", "password"); err != nil {
		return err
	}
	var u User
	weak, err := s.passwords.Check(r.Context(), form["username"], s.clientIP(r), form["password"], func() (string, error) {
		var err error
		if u, err = s.store.UserByName(r.Context(), form["username"]); errors.Is(err, ErrNotFound) {
			return "", nil // costs as much to check as any other hash
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
		err = s.rehash(r, u, form["password"])
	}
	if err == nil {
		err = s.startSession(w, r, u)
	}
	if errors.Is(err, ErrStale) || errors.Is(err, ErrNotFound) {
		return errLogin // the password was changed, or the account deleted, meanwhile
	}
	return err
}

// rehash replaces a hash that is cheaper to guess than today's.
func (s *server) rehash(r *http.Request, u User, password string) error {
	hash, err := s.passwords.Hash(r.Context(), s.clientIP(r), password)
	if err != nil {
		return err
	}
	_, err = s.store.UpdateUser(r.Context(), Caller{}, u.ID, func(now *User) error {
		if now.Epoch == u.Epoch {
			now.PasswordHash = hash
		}
		return nil
	})
	return err
}

// startSession logs in the account as it was verified.
func (s *server) startSession(w http.ResponseWriter, r *http.Request, u User) error {
	now := time.Now().UTC()
	session := NewSession(u, now, s.Sessions)
	session.IP = s.clientIP(r).String()
	agent := r.UserAgent()
	session.UserAgent = strings.ToValidUTF8(agent[:min(len(agent), 256)], "?")
	if err := s.store.CreateSession(r.Context(), session); err != nil {
		return err
	}
	s.stats.Add("logins", 1)
	return s.answerToken(w, u, session, now)
}

func (s *server) refresh(w http.ResponseWriter, r *http.Request, form form) error {
	if err := form.require("refresh_token"); err != nil {
		return err
	}
	token, err := s.tokens.VerifyRefresh(form["refresh_token"])
	if err != nil {
		return errRefresh
	}
	now := time.Now().UTC()
	session, u, err := s.store.UpdateSession(r.Context(), token.UserID, token.SessionID, func(session *Session, u User) error {
		if err := session.Rotate(token.Generation, now, s.Sessions); err != nil {
			return err
		}
		if u.Disabled {
			return ErrInactive
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrReplayed):
		s.stats.Add("replays", 1)
		s.log.Warn("a refresh token was used again: the session is ended", "user", token.UserID, "ip", s.clientIP(r))
		return errRefresh
	case errors.Is(err, ErrNotFound):
		return errRefresh
	case err != nil:
		return err
	}
	s.stats.Add("refreshes", 1)
	return s.answerToken(w, u, session, now)
}

// answerToken is the answer to every login and refresh (RFC 6749, section 5.1).
func (s *server) answerToken(w http.ResponseWriter, u User, session Session, now time.Time) error {
	// An access token does not outlive its session.
	issued, expires := now.Unix(), min(now.Add(s.AccessTTL).Unix(), session.ExpiresAt.Unix())
	access := s.tokens.Access(Claims{
		UserID: u.ID, SessionID: session.ID, Username: u.Username, Role: u.Role,
		IssuedAt: issued, ExpiresAt: expires,
	})
	refresh := s.tokens.Refresh(RefreshToken{UserID: u.ID, SessionID: session.ID, Generation: session.Generation})
	w.Header().Set("Pragma", "no-cache")
	return answerJSON(w, http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"` // seconds
		RefreshToken string `json:"refresh_token"`
	}{access, "bearer", expires - issued, refresh})
}

// A named session is what a genuine token of either kind leads to.
type named struct {
	RefreshToken        // with a Generation of 0 for an access token
	access       Claims // of an access token
}

// tokenNames reads the form field that /revoke and /introspect have. The error
// of a token that is none is ErrToken.
func (s *server) tokenNames(w http.ResponseWriter, r *http.Request) (n named, err error) {
	form, err := readForm(w, r)
	if err == nil {
		err = form.require("token")
	}
	if err != nil {
		return n, err
	}
	if n.access, err = s.tokens.VerifyAccess(form["token"], time.Now()); err == nil {
		n.UserID, n.SessionID = n.access.UserID, n.access.SessionID
		return n, nil
	}
	n.RefreshToken, err = s.tokens.VerifyRefresh(form["token"])
	return n, err
}

// revoke ends the session of either kind of token. The answer is the same for
// what is no token at all (RFC 7009, section 2.2).
func (s *server) revoke(w http.ResponseWriter, r *http.Request, _ caller) error {
	n, err := s.tokenNames(w, r)
	if err == nil {
		err = s.store.EndSession(r.Context(), Caller{}, n.UserID, n.SessionID)
	}
	if errors.Is(err, ErrToken) || errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// introspection is the answer of RFC 7662, section 2.2.
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

func (s *server) introspect(w http.ResponseWriter, r *http.Request, _ caller) error {
	var session Session
	var u User
	n, err := s.tokenNames(w, r)
	if err == nil {
		session, u, err = s.store.Session(r.Context(), n.UserID, n.SessionID)
	}
	if err != nil && !errors.Is(err, ErrToken) && !errors.Is(err, ErrNotFound) {
		return err
	}
	current := n.Generation == 0 || n.Generation == session.Generation || session.Superseded(n.Generation, time.Now())
	if err != nil || u.Disabled || !current {
		return answerJSON(w, http.StatusOK, introspection{})
	}
	answer := introspection{
		Active: true, Issuer: s.Issuer, Audience: s.Issuer, Subject: strconv.FormatInt(u.ID, 10), SessionID: session.ID,
		Username: u.Username, Role: u.Role, IssuedAt: session.LastUsedAt.Unix(), ExpiresAt: session.ExpiresAt.Unix(),
	}
	if n.Generation == 0 {
		answer.TokenType, answer.IssuedAt, answer.ExpiresAt = "bearer", n.access.IssuedAt, n.access.ExpiresAt
	}
	return answerJSON(w, http.StatusOK, answer)
}

func (s *server) createUser(w http.ResponseWriter, r *http.Request, _ caller) error {
	in, err := readJSON(w, r, fields{"username": text, "password": text, "email": textOrNull, "full_name": textOrNull})
	if err != nil {
		return err
	}
	in.require("username", "password")
	in.check("username", checkUsername)
	in.check("password", func(password string) error { return checkPassword(password, in.text("username")) })
	in.check("email", checkEmail)
	in.check("full_name", checkFullName)
	if err := in.err(); err != nil {
		return err
	}
	// A taken name costs no hash. It is CreateUser that decides.
	if _, err := s.store.UserByName(r.Context(), in.text("username")); err == nil {
		return ErrUsernameTaken
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	u := User{Username: in.text("username"), Role: RoleUser, CreatedAt: time.Now().UTC().Truncate(time.Second)}
	in.patch(&u)
	if u.PasswordHash, err = s.passwords.Hash(r.Context(), s.clientIP(r), in.text("password")); err != nil {
		return err
	}
	if u, err = s.store.CreateUser(r.Context(), Caller{}, u); err != nil {
		return err
	}
	s.stats.Add("registrations", 1)
	w.Header().Set("Location", fmt.Sprintf("/users/%d", u.ID))
	return answerUser(w, http.StatusCreated, u)
}

func (s *server) listUsers(w http.ResponseWriter, r *http.Request, _ caller) error {
	var bad invalid
	limit := bad.number(r, "limit", 1, 1000, 100)
	after := bad.number(r, "after", 0, 1<<62, 0)
	if len(bad) > 0 {
		return bad
	}
	users, err := s.store.Users(r.Context(), after, int(limit)+1)
	if err != nil {
		return err
	}
	if len(users) > int(limit) {
		users = users[:limit]
		w.Header().Set("Link", fmt.Sprintf(`</users/?limit=%d&after=%d>; rel="next"`, limit, users[limit-1].ID))
	}
	b := []byte{'['}
	for i, u := range users {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendUser(b, u)
	}
	return answer(w, http.StatusOK, append(b, ']'))
}

func (s *server) readMe(w http.ResponseWriter, r *http.Request, c caller) error {
	return answerUser(w, http.StatusOK, c.User)
}

func (s *server) patchMe(w http.ResponseWriter, r *http.Request, c caller) error {
	return c.gone(s.patch(w, r, c.User.ID, fields{"email": textOrNull, "full_name": textOrNull}))
}

// patch is a merge patch (RFC 7396) of those fields of an account.
func (s *server) patch(w http.ResponseWriter, r *http.Request, id int64, allowed fields) error {
	in, err := readJSON(w, r, allowed)
	if err != nil {
		return err
	}
	in.check("email", checkEmail)
	in.check("full_name", checkFullName)
	in.check("role", func(role string) error { return checkRole(Role(role)) })
	if err := in.err(); err != nil {
		return err
	}
	u, err := s.store.UpdateUser(r.Context(), Caller{}, id, func(u *User) error {
		in.patch(u)
		return nil
	})
	if err != nil {
		return err
	}
	return answerUser(w, http.StatusOK, u)
}

func (s *server) deleteMe(w http.ResponseWriter, r *http.Request, c caller) error {
	in, err := readJSON(w, r, fields{"password": text})
	if err != nil {
		return err
	}
	in.require("password")
	if err := in.err(); err != nil {
		return err
	}
	if err := s.confirm(r, c, in.text("password")); err != nil {
		return err
	}
	return noContent(w, c.gone(s.store.DeleteUser(r.Context(), c.by(), c.User.ID)))
}

func (s *server) changePassword(w http.ResponseWriter, r *http.Request, c caller) error {
	in, err := readJSON(w, r, fields{"current_password": text, "new_password": text})
	if err != nil {
		return err
	}
	in.require("current_password", "new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, c.Username) })
	if err := in.err(); err != nil {
		return err
	}
	if err := s.confirm(r, c, in.text("current_password")); err != nil {
		return err
	}
	u, err := s.setPassword(r, c.User.ID, in.text("new_password"), c.unchanged)
	if err != nil {
		return c.gone(err)
	}
	return c.gone(s.startSession(w, r, u))
}

// confirm checks the password of the account that is calling.
func (s *server) confirm(r *http.Request, c caller, password string) error {
	_, err := s.passwords.Check(r.Context(), c.Username, s.clientIP(r), password, func() (string, error) { return c.PasswordHash, nil })
	return err
}

// setPassword changes a password, which ends the account's sessions, if the
// account still passes check.
func (s *server) setPassword(r *http.Request, id int64, password string, check func(User) error) (User, error) {
	hash, err := s.passwords.Hash(r.Context(), s.clientIP(r), password)
	if err != nil {
		return User{}, err
	}
	return s.store.UpdateUser(r.Context(), Caller{}, id, func(u *User) error {
		if err := check(*u); err != nil {
			return err
		}
		u.SetPassword(hash)
		return nil
	})
}

func (s *server) listSessions(w http.ResponseWriter, r *http.Request, c caller) error {
	sessions, err := s.store.Sessions(r.Context(), c.User.ID)
	if err != nil {
		return err
	}
	type view struct {
		ID         string    `json:"id"`
		CreatedAt  time.Time `json:"created_at"`
		LastUsedAt time.Time `json:"last_used_at"`
		ExpiresAt  time.Time `json:"expires_at"`
		UserAgent  string    `json:"user_agent"`
		IP         string    `json:"ip"`
		Current    bool      `json:"current"`
	}
	views := make([]view, len(sessions))
	for i, v := range sessions {
		second := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
		views[i] = view{v.ID, second(v.CreatedAt), second(v.LastUsedAt), second(v.ExpiresAt), v.UserAgent, v.IP, v.ID == c.Session.ID}
	}
	return answerJSON(w, http.StatusOK, views)
}

func (s *server) endOtherSessions(w http.ResponseWriter, r *http.Request, c caller) error {
	return noContent(w, c.gone(s.store.EndSessions(r.Context(), Caller{}, c.User.ID, c.Session.ID)))
}

func (s *server) endSession(w http.ResponseWriter, r *http.Request, c caller) error {
	return noContent(w, s.store.EndSession(r.Context(), Caller{}, c.User.ID, r.PathValue("sid")))
}

func (s *server) readUser(w http.ResponseWriter, r *http.Request, c caller) error {
	// Whether the account exists is the admin's to know.
	if c.Role != RoleAdmin && pathID(r) != c.User.ID {
		return errForbidden
	}
	u, err := s.store.User(r.Context(), pathID(r))
	if err != nil {
		return err
	}
	return answerUser(w, http.StatusOK, u)
}

func (s *server) patchUser(w http.ResponseWriter, r *http.Request, _ caller) error {
	return s.patch(w, r, pathID(r), fields{"email": textOrNull, "full_name": textOrNull, "disabled": boolean, "role": text})
}

func (s *server) resetPassword(w http.ResponseWriter, r *http.Request, _ caller) error {
	u, err := s.store.User(r.Context(), pathID(r))
	if err != nil {
		return err
	}
	in, err := readJSON(w, r, fields{"new_password": text})
	if err != nil {
		return err
	}
	in.require("new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, u.Username) })
	if err := in.err(); err != nil {
		return err
	}
	_, err = s.setPassword(r, u.ID, in.text("new_password"), func(User) error { return nil })
	return noContent(w, err)
}

func (s *server) deleteUser(w http.ResponseWriter, r *http.Request, _ caller) error {
	return noContent(w, s.store.DeleteUser(r.Context(), Caller{}, pathID(r)))
}

// pathID is the {id} of the path, or 0, which no account has.
func pathID(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || strconv.FormatInt(id, 10) != r.PathValue("id") {
		return 0
	}
	return id
}

func (s *server) healthz(w http.ResponseWriter, r *http.Request, _ caller) error {
	return answer(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request, _ caller) error {
	if err := s.store.Ready(r.Context()); err != nil {
		return err
	}
	return answer(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (s *server) home(w http.ResponseWriter, r *http.Request, _ caller) error {
	http.Redirect(w, r, "/docs", http.StatusFound)
	return nil
}

// appendUser appends what an account looks like from outside. It names each
// field, so that nothing secret can come along.
func appendUser(b []byte, u User) []byte {
	textOrNull := func(b []byte, s string) []byte {
		if s == "" {
			return append(b, "null"...)
		}
		return appendText(b, s)
	}
	b = strconv.AppendInt(append(b, `{"id":`...), u.ID, 10)
	b = appendText(append(b, `,"username":`...), u.Username)
	b = textOrNull(append(b, `,"email":`...), u.Email)
	b = textOrNull(append(b, `,"full_name":`...), u.FullName)
	b = strconv.AppendBool(append(b, `,"disabled":`...), u.Disabled)
	b = appendText(append(b, `,"role":`...), string(u.Role))
	b = u.CreatedAt.AppendFormat(append(b, `,"created_at":"`...), time.RFC3339)
	return append(b, `"}`...)
}

func answerUser(w http.ResponseWriter, status int, u User) error {
	return answer(w, status, appendUser(make([]byte, 0, 256), u))
}
