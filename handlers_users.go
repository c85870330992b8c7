package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// createUser registers an account, for anybody or for an admin.
func (s *server) createUser(c *call) (out reply, err error) {
	in := c.object(fields{"username": usernameField, "password": textField, "email": emailField, "full_name": fullNameField}, "username", "password")
	in.check("password", func(password string) error { return checkPassword(password, in.text("username")) })
	if err := in.err(); err != nil {
		return reply{}, err
	}
	if !c.by.Admin && s.admit(c, admin) != nil { // an admin's do not count
		c.by = Caller{}
		if err := s.shares.registrations.take(network(c.from), 1); err != nil {
			return reply{}, err
		}
		defer func() {
			if err != nil {
				s.shares.registrations.give(network(c.from), 1)
			}
		}()
	}
	// This avoids hashing if the name is taken. CreateUser decides.
	if _, err := s.store.UserByName(c.Context(), in.text("username")); err == nil {
		return reply{}, ErrUsernameTaken
	} else if !errors.Is(err, ErrNotFound) {
		return reply{}, err
	}
	hash, err := s.passwords.Hash(c.Context(), c.from, c.near(c.session), in.text("password"))
	if err != nil {
		return reply{}, err
	}
	u := User{Username: in.text("username"), Role: RoleUser, CreatedAt: time.Now().UTC().Truncate(time.Second), PasswordHash: hash}
	in.patch(&u)
	if u, err = s.store.CreateUser(c.Context(), c.by, u); err != nil {
		return reply{}, err
	}
	if c.by.Admin {
		c.target = u.ID
	}
	s.sendVerify(c, u)
	out = replyUser(http.StatusCreated, u)
	out.header = map[string]string{"Location": fmt.Sprintf("/users/%d", u.ID)}
	return out, nil
}

func (s *server) listUsers(c *call) (reply, error) {
	var bad invalid
	query := c.URL.Query()
	limit := bad.number(query, "limit", 1, 1000, 100)
	after := bad.number(query, "after", 0, 1<<62, 0)
	if err := bad.err(); err != nil {
		return reply{}, err
	}
	filter := UserFilter{Name: trimName(query.Get("name")), Email: query.Get("email")}
	users, err := s.store.Users(c.Context(), filter, after, int(limit)+1)
	if err != nil {
		return reply{}, err
	}
	var out reply
	if len(users) > int(limit) {
		users = users[:limit]
		next := fmt.Sprintf("/users/?limit=%d&after=%d", limit, users[limit-1].ID)
		if filter.Email != "" {
			next += "&email=" + url.QueryEscape(filter.Email) // a name has one account
		}
		out.header = map[string]string{"Link": "<" + next + `>; rel="next"`}
	}
	out.body = []byte{'['}
	for _, u := range users {
		out.body = append(appendUser(out.body, u), ',')
	}
	out.body = append(bytes.TrimSuffix(out.body, []byte{','}), "]\n"...)
	return out, nil
}

func (s *server) readMe(c *call) (reply, error) { return replyUser(http.StatusOK, c.user), nil }

func (s *server) patchMe(c *call) (reply, error) {
	return s.patch(c, fields{"email": emailField, "full_name": fullNameField, "current_password": textField})
}

// patch applies a merge patch (RFC 7396) of the allowed fields to an account.
func (s *server) patch(c *call, allowed fields) (reply, error) {
	in := c.object(allowed)
	if err := s.confirmPatch(c, in); err != nil { // of the body, or of a password that the change takes
		return reply{}, err
	}
	var old User
	u, err := s.store.UpdateUser(c.Context(), c.by, c.subject, func(u *User) error {
		old = *u
		in.patch(u)
		return nil
	})
	if err != nil {
		return reply{}, err
	}
	s.emailChanged(c, old, u)
	if u.EndsSessions(&old) {
		s.metrics.count("stdauth_sessions_ended_total")
	}
	return replyUser(http.StatusOK, u), nil
}

func (s *server) deleteMe(c *call) (reply, error) {
	in := c.object(fields{"password": textField}, "password")
	if err := s.confirm(c, in, "password"); err != nil {
		return reply{}, err
	}
	return s.replyEnded(s.store.DeleteUser(c.Context(), c.by, c.user.ID))
}

func (s *server) changePassword(c *call) (reply, error) {
	in := c.object(fields{"current_password": textField, "new_password": textField}, "current_password", "new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, c.user.Username) })
	if err := s.confirm(c, in, "current_password"); err != nil {
		return reply{}, err
	}
	u, err := s.setPassword(c, in.text("new_password"))
	if err != nil {
		return reply{}, err
	}
	s.metrics.count("stdauth_sessions_ended_total")
	return s.startSession(c, u, s.AccessTTL, ErrEnded)
}

// confirm returns the errors of a body, or else checks the password of the calling
// account in one of its fields. If the password changes before the confirmed change is
// made, the store refuses that change, because the calling session has ended.
func (s *server) confirm(c *call, in *object, field string) error {
	if err := in.err(); err != nil {
		return err
	}
	_, err := s.passwords.Check(c.Context(), c.user.Username, c.from, in.text(field), func() (string, bool, error) {
		return c.user.PasswordHash, c.near(c.session), nil
	})
	return err
}

// setPassword changes the password of an account, which ends its sessions.
func (s *server) setPassword(c *call, password string) (User, error) {
	if err := s.shares.changes.take(author{account: c.subject, admin: c.by.Admin, password: true}, 1); err != nil {
		return User{}, err
	}
	hash, err := s.passwords.Hash(c.Context(), c.from, c.near(c.session), password)
	if err != nil {
		return User{}, err
	}
	u, err := s.store.UpdateUser(c.Context(), c.by, c.subject, func(u *User) error {
		u.SetPassword(hash)
		return nil
	})
	if err == nil {
		s.passwordChanged(c, u)
	}
	return u, err
}

func (s *server) listSessions(c *call) (reply, error) {
	sessions, err := s.store.Sessions(c.Context(), c.subject)
	if err == nil && len(sessions) == 0 && c.subject != c.user.ID {
		_, err = s.store.User(c.Context(), c.subject) // there may be no such account
	}
	if err != nil {
		return reply{}, err
	}
	calling := func(v Session) bool { return v.ID == c.session.ID }
	if c.subject == c.user.ID && !slices.ContainsFunc(sessions, calling) {
		return reply{}, ErrEnded // since it was admitted
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
	return replyJSON(http.StatusOK, views)
}

// replyEnded returns the reply to a change that ended sessions, or its error.
func (s *server) replyEnded(err error) (reply, error) {
	if err == nil {
		s.metrics.count("stdauth_sessions_ended_total")
	}
	return noContent, err
}

func (s *server) endMyOtherSessions(c *call) (reply, error) {
	return s.replyEnded(s.store.EndSessions(c.Context(), c.by, c.user.ID, c.session.ID))
}

func (s *server) endMySession(c *call) (reply, error) {
	return s.replyEnded(s.store.EndSession(c.Context(), c.by, c.user.ID, c.PathValue("sid")))
}

func (s *server) readUser(c *call) (reply, error) {
	if c.subject == c.user.ID {
		return s.readMe(c) // as admitted; it may be disabled by now
	}
	// Only admins may learn whether another account exists.
	if c.user.Role != RoleAdmin {
		return reply{}, ErrNotAdmin
	}
	u, err := s.store.User(c.Context(), c.subject)
	return replyUser(http.StatusOK, u), err
}

func (s *server) patchUser(c *call) (reply, error) {
	return s.patch(c, fields{"email": emailField, "full_name": fullNameField, "disabled": disabledField, "role": roleField})
}

func (s *server) deleteUser(c *call) (reply, error) {
	if c.subject == c.user.ID {
		return reply{}, detailed(errOwnAccount, "Delete your own account at /users/me/, with its password")
	}
	return s.replyEnded(s.store.DeleteUser(c.Context(), c.by, c.subject))
}

func (s *server) setUserPassword(c *call) (reply, error) {
	if c.subject == c.user.ID {
		return reply{}, errOwnPassword
	}
	u, err := s.store.User(c.Context(), c.subject)
	if err != nil {
		return reply{}, err
	}
	in := c.object(fields{"new_password": textField}, "new_password")
	in.check("new_password", func(password string) error { return checkPassword(password, u.Username) })
	if err := in.err(); err != nil {
		return reply{}, err
	}
	_, err = s.setPassword(c, in.text("new_password"))
	return s.replyEnded(err)
}

func (s *server) endSessions(c *call) (reply, error) {
	return s.replyEnded(s.store.EndSessions(c.Context(), c.by, c.subject, ""))
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

func replyUser(status int, u User) reply {
	return reply{status: status, body: append(appendUser(make([]byte, 0, 256), u), '\n')}
}
