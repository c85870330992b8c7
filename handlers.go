package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"strings"
	"time"
)

// routes is the API. Tests compare README.md and openapi.json with this table.
func (s *server) routes() []route {
	registrar := anyone
	if s.Closed {
		registrar = admin
	}
	return []route{
		{"POST /token", anyone, formBody, s.token},              // log in, or refresh
		{"POST /revoke", anyone, formBody, s.revoke},            // log out
		{"POST /introspect", inspector, formBody, s.introspect}, // introspect a token

		{"POST /users/{$}", registrar, jsonBody, s.createUser}, // register
		{"GET /users/{$}", admin, noBody, s.listUsers},         // list the accounts

		{"GET /users/me/{$}", activeUser, noBody, s.readMe},                     // who am I
		{"PATCH /users/me/{$}", activeUser, patchBody, s.patchMe},               // change email or full name
		{"DELETE /users/me/{$}", activeUser, jsonBody, s.deleteMe},              // delete my account
		{"PUT /users/me/password", activeUser, jsonBody, s.changePassword},      // change my password
		{"GET /users/me/sessions", activeUser, noBody, s.listSessions},          // where am I logged in
		{"DELETE /users/me/sessions", activeUser, noBody, s.endMyOtherSessions}, // log out everywhere else
		{"DELETE /users/me/sessions/{sid}", activeUser, noBody, s.endMySession}, // log out there

		{"GET /users/{id}", activeUser, noBody, s.readUser},              // read your own account, or any as an admin
		{"PATCH /users/{id}", admin, patchBody, s.patchUser},             // change, disable or promote an account
		{"DELETE /users/{id}", admin, noBody, s.deleteUser},              // delete an account
		{"PUT /users/{id}/password", admin, jsonBody, s.setUserPassword}, // set the password of an account
		{"GET /users/{id}/sessions", admin, noBody, s.listSessions},      // where is an account logged in
		{"DELETE /users/{id}/sessions", admin, noBody, s.endSessions},    // log an account out everywhere

		{"POST /forgot-password", anyone, jsonBody, s.forgotPassword},            // ask for a link to set a new password
		{"POST /reset-password", anyone, jsonBody, s.resetByMail},                // set a new password with it
		{"POST /request-verify-token", activeUser, noBody, s.requestVerifyToken}, // ask for a link to verify my address
		{"POST /verify", anyone, jsonBody, s.verifyEmail},                        // verify the address with it
		{"POST /users/{id}/reset-link", admin, noBody, s.makeResetLink},          // make a link to set a new password

		{"GET /forward-auth", activeUser, noBody, s.forwardAuth},                    // may a proxy's client pass, and who is it
		{"GET /.well-known/oauth-authorization-server", anyone, noBody, s.metadata}, // where are the endpoints
		{"GET /.well-known/change-password", anyone, noBody, s.changePasswordPage},  // redirects to the form of the page

		{"GET /healthz", anyone, noBody, s.healthz},           // is the process alive
		{"GET /readyz", anyone, noBody, s.readyz},             // does the store work
		{"GET /openapi.json", anyone, noBody, s.openAPI},      // this table, for programs
		{"GET /docs", anyone, noBody, s.docs},                 // the interactive page
		{"GET /docs/{file}", anyone, noBody, s.docs},          // its parts
		{"GET /docs/source/{file}", anyone, noBody, s.source}, // the code of this server
		{"GET /{$}", anyone, noBody, s.home},                  // redirects to the page
	}
}

// handler returns the handler of all requests. Those that ServeMux would redirect or
// refuse by itself, in its own words, go to noRoute.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, to := range s.routes() {
		mux.Handle(to.pattern, s.endpoint(to))
	}
	other := s.endpoint(route{who: anyone, handle: func(c *call) (reply, error) { return s.noRoute(c, mux) }})
	mux.Handle("/", other)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !direct(r.URL.Path) {
			other.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// direct reports whether ServeMux takes a path as it is: without cleaning it, adding a
// slash, or taking it for an {id}. "OPTIONS *" and "CONNECT host:port" have no path.
func direct(p string) bool {
	clean := path.Clean(p)
	return strings.HasPrefix(p, "/") && (p == clean || p == clean+"/") && p != "//" && p != "/users" && p != "/users/me"
}

// endpoint makes the call of a request, serves it and writes the reply. Errors become
// replies here.
func (s *server) endpoint(to route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.newCall(w, r, to.pattern)
		out, err := s.serve(c, to)
		if err != nil {
			out = s.refusal(c, err)
		}
		c.write(out)
		s.giveBytes(c)
		s.observe(c)
	})
}

// serve takes a call through the guards, reads its body, admits its caller and calls the
// handler.
//
// The body is read before the caller is admitted, because a slow client may take 30 s
// to send it and its session may end meanwhile. An error about the caller still comes
// before one about the body.
func (s *server) serve(c *call, to route) (out reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "id", c.id, "route", routeName(c.route), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errInternal
		}
	}()
	if s.preflight(c) {
		return noContent, nil
	}
	for _, guard := range guards {
		if err := guard(s, c); err != nil {
			return reply{}, err
		}
	}
	if err := s.takeBytes(c, to.body.limit); err != nil {
		return reply{}, err
	}
	unread := c.body.read(c.w, c.Request, to.body)
	if err := s.admit(c, to.who); err != nil {
		return reply{}, err
	}
	if unread != nil {
		return reply{}, unread
	}
	// A PUT sets a password. setPassword counts it, when the body is known to be valid.
	if c.user.ID != 0 && (c.Method == http.MethodPatch || c.Method == http.MethodDelete) {
		if err := s.shares.changes.take(author{account: c.subject, admin: c.by.Admin}, 1); err != nil {
			return reply{}, err
		}
	}
	return to.handle(c)
}

// admit finds out who is calling and whether they may call the route. A [Store] checks
// c.by again when it makes a change.
func (s *server) admit(c *call, who admission) error {
	switch who {
	case anyone:
		return nil
	case inspector:
		if tried, err := s.admitClient(c); tried {
			return err
		}
	}
	token := bearerToken(c.Request)
	if token == "" {
		return errNoCredentials
	}
	claims, err := s.tokens.VerifyAccess(token, time.Now())
	if err != nil {
		return err
	}
	c.session, c.user, err = s.store.Session(c.Context(), claims.UserID, claims.SessionID)
	if errors.Is(err, ErrNotFound) {
		return ErrEnded
	}
	if err != nil {
		return err
	}
	c.account, c.subject = c.user.ID, c.user.ID
	if id := c.PathValue("id"); id != "" {
		c.subject, _ = wholeNumber(id, 1, math.MaxInt64) // else 0, which no account has
		if c.user.Role == RoleAdmin {
			c.target = c.subject
		}
	}
	c.by = Caller{UserID: c.user.ID, SessionID: c.session.ID, Admin: who == admin || who == inspector, Expires: time.Unix(claims.ExpiresAt, 0)}
	return c.by.Allowed(c.user)
}

// bearerToken returns the token of an Authorization header (RFC 6750, section 2.1), or "".
// The scheme may be in any case (RFC 9110, section 11.1).
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimLeft(token, " ")
}

// noRoute handles requests that no route matches. If one would match with or without a
// slash at the end, it redirects there. If one would match with another method,
// it names the methods: 204 for OPTIONS, else 405.
func (s *server) noRoute(c *call, mux *http.ServeMux) (reply, error) {
	allow := allowedMethods(mux, c.URL)
	if allow == nil {
		return otherSlash(c, mux)
	}
	out := reply{status: http.StatusNoContent, header: map[string]string{}}
	if c.Method != http.MethodOptions {
		out = s.refusal(c, errMethod)
	}
	out.header["Allow"] = strings.Join(allow, ", ")
	return out, nil
}

// otherSlash redirects to the path that a client probably meant. "OPTIONS *" and
// "CONNECT host:port" have no path.
func otherSlash(c *call, mux *http.ServeMux) (reply, error) {
	clean := path.Clean(c.URL.Path)
	for _, other := range []string{clean, strings.TrimSuffix(clean, "/") + "/"} {
		to := url.URL{Path: other, RawQuery: c.URL.RawQuery}
		if other != c.URL.Path && c.URL.RawPath == "" && strings.HasPrefix(c.URL.Path, "/") && allowedMethods(mux, &to) != nil {
			return redirect(http.StatusTemporaryRedirect, to.String()), nil
		}
	}
	return reply{}, ErrNotFound
}

// allowedMethods returns the methods that have a route for a path.
func allowedMethods(mux *http.ServeMux, u *url.URL) (allow []string) {
	if !direct(u.Path) {
		return nil
	}
	for _, method := range methods {
		probe := http.Request{Method: method, URL: u}
		if _, pattern := mux.Handler(&probe); pattern != "/" {
			allow = append(allow, method)
		}
	}
	return allow
}

func (s *server) healthz(c *call) (reply, error) {
	return replyJSON(http.StatusOK, map[string]string{"status": "ok"})
}

func (s *server) readyz(c *call) (reply, error) {
	if err := s.store.Ready(c.Context()); err != nil {
		return reply{}, err
	}
	return s.healthz(c)
}

func (s *server) home(c *call) (reply, error) { return redirect(http.StatusFound, "/docs"), nil }
