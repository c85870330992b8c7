package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

func (s *server) createUser(w *response, r *request) error {
	in := r.object(fields{"username": text, "password": text, "email": textOrNull, "full_name": textOrNull})
	in.require("username", "password")
	in.check("username", checkUsername)
	in.check("password", func(password string) error { return checkPassword(password, in.text("username")) })
	in.check("email", checkEmail)
	in.check("full_name", checkFullName)
	if err := in.err(); err != nil {
		return err
	}
	// This avoids hashing if the name is taken. CreateUser decides.
	if _, err := s.store.UserByName(r.Context(), in.text("username")); err == nil {
		return ErrUsernameTaken
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	hash, err := s.passwords.Hash(r.Context(), s.clientIP(r.Request), in.text("password"))
	if err != nil {
		return err
	}
	u := User{Username: in.text("username"), Role: RoleUser, CreatedAt: time.Now().UTC().Truncate(time.Second), PasswordHash: hash}
	in.patch(&u)
	if u, err = s.store.CreateUser(r.Context(), r.by, u); err != nil {
		return err
	}
	if r.by.Admin {
		w.target = u.ID
	}
	w.Header().Set("Location", fmt.Sprintf("/users/%d", u.ID))
	return respondUser(w, http.StatusCreated, u)
}

func (s *server) listUsers(w *response, r *request) error {
	var bad invalid
	query := r.URL.Query()
	limit := bad.number(query, "limit", 1, 1000, 100)
	after := bad.number(query, "after", 0, 1<<62, 0)
	if err := bad.err(); err != nil {
		return err
	}
	users, err := s.store.Users(r.Context(), UserFilter{}, after, int(limit)+1)
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
	return respond(w, http.StatusOK, append(b, ']'))
}

func (s *server) readMe(w *response, r *request) error {
	return respondUser(w, http.StatusOK, r.user)
}

func (s *server) patchMe(w *response, r *request) error {
	return s.patch(w, r, r.user.ID, fields{"email": textOrNull, "full_name": textOrNull})
}

// patch applies a merge patch (RFC 7396) of the allowed fields to an account.
func (s *server) patch(w *response, r *request, id int64, allowed fields) error {
	in := r.object(allowed)
	in.check("email", checkEmail)
	in.check("full_name", checkFullName)
	in.check("role", func(role string) error { return checkRole(Role(role)) })
	if err := in.err(); err != nil {
		return err
	}
	u, err := s.store.UpdateUser(r.Context(), r.by, id, func(u *User) error {
		in.patch(u)
		return nil
	})
	if err != nil {
		return err
	}
	return respondUser(w, http.StatusOK, u)
}

func (s *server) deleteMe(w *response, r *request) error {
	in := r.object(fields{"password": text})
	in.require("password")
	if err := in.err(); err != nil {
		return err
	}
	if err := s.confirm(r, in.text("password")); err != nil {
		return err
	}
	return s.respondEnded(w, s.store.DeleteUser(r.Context(), r.by, r.user.ID))
}

func (s *server) changePassword(w *response, r *request) error {
	in := r.object(fields{"current_password": text, "new_password": text})
	in.require("current_password", "new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, r.user.Username) })
	if err := in.err(); err != nil {
		return err
	}
	if err := s.confirm(r, in.text("current_password")); err != nil {
		return err
	}
	u, err := s.setPassword(r, r.user.ID, in.text("new_password"))
	if err != nil {
		return err
	}
	s.metrics.count("stdauth_sessions_ended_total")
	err = s.startSession(w, r, u, s.AccessTTL)
	if errors.Is(err, ErrStale) || errors.Is(err, ErrNotFound) {
		return ErrEnded // the password was reset, or the account deleted, since
	}
	return err
}

// confirm checks the password of the calling account. If the password changes before
// the confirmed change is made, the store refuses that change, because the calling
// session has ended.
func (s *server) confirm(r *request, password string) error {
	_, err := s.passwords.Check(r.Context(), r.user.Username, s.clientIP(r.Request), password, func() (string, error) {
		return r.user.PasswordHash, nil
	})
	return err
}

// setPassword changes the password of an account, which ends its sessions.
func (s *server) setPassword(r *request, id int64, password string) (User, error) {
	hash, err := s.passwords.Hash(r.Context(), s.clientIP(r.Request), password)
	if err != nil {
		return User{}, err
	}
	return s.store.UpdateUser(r.Context(), r.by, id, func(u *User) error {
		u.SetPassword(hash)
		return nil
	})
}

func (s *server) listMySessions(w *response, r *request) error {
	return s.respondSessions(w, r, r.user.ID)
}

func (s *server) respondSessions(w *response, r *request, userID int64) error {
	sessions, err := s.store.Sessions(r.Context(), userID)
	if err != nil {
		return err
	}
	calling := func(v Session) bool { return v.ID == r.session.ID }
	if userID == r.user.ID && !slices.ContainsFunc(sessions, calling) {
		return ErrEnded // since it was admitted
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
	second := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	views := make([]view, len(sessions))
	for i, v := range sessions {
		views[i] = view{v.ID, second(v.CreatedAt), second(v.LastUsedAt), second(v.ExpiresAt), v.UserAgent, v.IP, calling(v)}
	}
	return respondJSON(w, http.StatusOK, views)
}

func (s *server) endMyOtherSessions(w *response, r *request) error {
	return s.respondEnded(w, s.store.EndSessions(r.Context(), r.by, r.user.ID, r.session.ID))
}

func (s *server) endMySession(w *response, r *request) error {
	return s.respondEnded(w, s.store.EndSession(r.Context(), r.by, r.user.ID, r.PathValue("sid")))
}

func (s *server) readUser(w *response, r *request) error {
	if pathID(r) == r.user.ID {
		return respondUser(w, http.StatusOK, r.user) // as admitted; it may be disabled by now
	}
	// Only admins may learn whether another account exists.
	if r.user.Role != RoleAdmin {
		return ErrNotAdmin
	}
	u, err := s.store.User(r.Context(), pathID(r))
	if err != nil {
		return err
	}
	return respondUser(w, http.StatusOK, u)
}

func (s *server) patchUser(w *response, r *request) error {
	return s.patch(w, r, pathID(r), fields{"email": textOrNull, "full_name": textOrNull, "disabled": boolean, "role": text})
}

func (s *server) deleteUser(w *response, r *request) error {
	if pathID(r) == r.user.ID {
		return detailed(errOwnAccount, "Delete your own account at /users/me/, with its password")
	}
	return s.respondEnded(w, s.store.DeleteUser(r.Context(), r.by, pathID(r)))
}

func (s *server) resetPassword(w *response, r *request) error {
	if pathID(r) == r.user.ID {
		return detailed(errOwnAccount, "Change your own password at /users/me/password, with the current one")
	}
	u, err := s.store.User(r.Context(), pathID(r))
	if err != nil {
		return err
	}
	in := r.object(fields{"new_password": text})
	in.require("new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, u.Username) })
	if err := in.err(); err != nil {
		return err
	}
	_, err = s.setPassword(r, u.ID, in.text("new_password"))
	return s.respondEnded(w, err)
}

func (s *server) listSessions(w *response, r *request) error {
	if _, err := s.store.User(r.Context(), pathID(r)); err != nil {
		return err
	}
	return s.respondSessions(w, r, pathID(r))
}

func (s *server) endSessions(w *response, r *request) error {
	return s.respondEnded(w, s.store.EndSessions(r.Context(), r.by, pathID(r), ""))
}

// pathID returns the {id} of the path, or 0, which no account has.
func pathID(r *request) int64 {
	id, _ := wholeNumber(r.PathValue("id"), 1, math.MaxInt64)
	return id
}

// appendUser appends an account as clients see it. It names each field, so no secret
// can slip out. Most responses contain one, and appending is several times as fast as
// encoding/json.
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
	b = strconv.AppendBool(append(b, `,"email_verified":`...), u.EmailVerified)
	b = textOrNull(append(b, `,"full_name":`...), u.FullName)
	b = strconv.AppendBool(append(b, `,"disabled":`...), u.Disabled)
	b = appendText(append(b, `,"role":`...), string(u.Role))
	b = u.CreatedAt.UTC().AppendFormat(append(b, `,"created_at":"`...), time.RFC3339)
	return append(b, `"}`...)
}

func respondUser(w *response, status int, u User) error {
	return respond(w, status, appendUser(make([]byte, 0, 256), u))
}
