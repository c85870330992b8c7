package main

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Config holds the settings that the handlers need.
type Config struct {
	Issuer         string
	AccessTTL      time.Duration
	Sessions       Lifetimes
	Closed         bool           // only an admin may create accounts
	Demo           bool           // the demo accounts exist: the page offers them
	TLS            bool           // browsers are told to use HTTPS only
	CORSOrigins    []string       // "http://localhost:3000", or ":*" for any port
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is trusted
	Iterations     int            // of the password hash
	PublicURL      string         // where clients reach the server, without a slash at its end; may be empty
	Mail           MailConfig

	IntrospectID, IntrospectSecret string // of the client that may introspect, or empty
}

// A server handles requests. It holds nothing that must survive a restart.
type server struct {
	Config
	store     Store
	tokens    *Tokens
	passwords *Passwords
	log       *slog.Logger
	metrics   *metrics
}

// A route says who may call it, what body it takes, and which handler serves it.
type route struct {
	pattern string
	who     who
	body    bodyType
	handle  func(*response, *request) error
	what    string
}

// who says who may call a route.
type who string

const (
	anyone     who = "anyone"
	activeUser who = "active user"
	admin      who = "admin"
)

// routes is the API. Tests compare README.md and openapi.json with this table.
func (s *server) routes() []route {
	registrar := anyone
	if s.Closed {
		registrar = admin
	}
	return []route{
		{"POST /token", anyone, formBody, s.token, "log in, or refresh"},
		{"POST /revoke", anyone, formBody, s.revoke, "log out"},
		{"POST /introspect", admin, formBody, s.introspect, "introspect a token"},

		{"POST /users/{$}", registrar, jsonBody, s.createUser, "register"},
		{"GET /users/{$}", admin, noBody, s.listUsers, "list the accounts"},

		{"GET /users/me/{$}", activeUser, noBody, s.readMe, "who am I"},
		{"PATCH /users/me/{$}", activeUser, patchBody, s.patchMe, "change email or full name"},
		{"DELETE /users/me/{$}", activeUser, jsonBody, s.deleteMe, "delete my account"},
		{"PUT /users/me/password", activeUser, jsonBody, s.changePassword, "change my password"},
		{"GET /users/me/sessions", activeUser, noBody, s.listMySessions, "where am I logged in"},
		{"DELETE /users/me/sessions", activeUser, noBody, s.endMyOtherSessions, "log out everywhere else"},
		{"DELETE /users/me/sessions/{sid}", activeUser, noBody, s.endMySession, "log out there"},

		{"GET /users/{id}", activeUser, noBody, s.readUser, "read your own account, or any as an admin"},
		{"PATCH /users/{id}", admin, patchBody, s.patchUser, "change, disable or promote an account"},
		{"DELETE /users/{id}", admin, noBody, s.deleteUser, "delete an account"},
		{"PUT /users/{id}/password", admin, jsonBody, s.resetPassword, "set the password of an account"},
		{"GET /users/{id}/sessions", admin, noBody, s.listSessions, "where is an account logged in"},
		{"DELETE /users/{id}/sessions", admin, noBody, s.endSessions, "log an account out everywhere"},

		{"GET /healthz", anyone, noBody, s.healthz, "is the process alive"},
		{"GET /readyz", anyone, noBody, s.readyz, "does the store work"},
		{"GET /openapi.json", anyone, noBody, s.openAPI, "this table, for programs"},
		{"GET /docs", anyone, noBody, s.docs, "the interactive page"},
		{"GET /docs/{file}", anyone, noBody, s.docs, "its parts"},
		{"GET /docs/source/{file}", anyone, noBody, s.source, "the code of this server"},
		{"GET /{$}", anyone, noBody, s.home, "redirects to the page"},
	}
}

// endpoint reads the body, admits the caller and calls the handler. Errors of all three
// get their response here and nowhere else.
//
// The body is read before the caller is admitted, because a slow client may take 30 s
// to send it and its session may end meanwhile. An error about the caller still comes
// before one about the body.
func (s *server) endpoint(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, req := w.(*response), &request{Request: r}
		unread := req.readBody(res.ResponseWriter, route.body)
		err := s.admit(route.who, res, req)
		if err == nil {
			err = unread
		}
		if err == nil {
			err = route.handle(res, req)
		}
		if err != nil {
			s.fail(res, r, err)
		}
	})
}

// A request is an [http.Request] whose body was read and whose caller was admitted.
type request struct {
	*http.Request
	form    form     // of a formBody
	members []member // of a jsonBody or a patchBody

	// The caller, unless the route is for anyone.
	user    User
	session Session
	by      Caller
}

// admit finds out who is calling and whether they may call the route. A [Store] checks
// r.by again when it makes a change.
func (s *server) admit(who who, w *response, r *request) error {
	if who == anyone {
		return nil
	}
	token, ok := bearerToken(r.Request)
	if !ok {
		return errNoCredentials
	}
	claims, err := s.tokens.VerifyAccess(token, time.Now())
	if err != nil {
		return err
	}
	r.session, r.user, err = s.store.Session(r.Context(), claims.UserID, claims.SessionID)
	if errors.Is(err, ErrNotFound) {
		return ErrEnded
	}
	if err != nil {
		return err
	}
	w.user = r.user.ID
	if r.user.Role == RoleAdmin {
		w.target = pathID(r)
	}
	r.by = Caller{UserID: r.user.ID, SessionID: r.session.ID, Admin: who == admin}
	return r.by.Allowed(r.user)
}

// bearerToken returns the token of an Authorization header (RFC 6750, section 2.1).
// The scheme may be in any case (RFC 9110, section 11.1).
func bearerToken(r *http.Request) (token string, ok bool) {
	const scheme = "Bearer "
	h := r.Header.Get("Authorization")
	if len(h) < len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
		return "", false
	}
	token = strings.TrimLeft(h[len(scheme):], " ")
	return token, token != ""
}

func (s *server) healthz(w *response, r *request) error {
	return respondJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *server) readyz(w *response, r *request) error {
	if err := s.store.Ready(r.Context()); err != nil {
		return err
	}
	return respondJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *server) home(w *response, r *request) error {
	http.Redirect(w, r.Request, "/docs", http.StatusFound)
	return nil
}
