package main

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// handler puts the routes together with all that a request passes before it
// comes to one of them.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.routes() {
		mux.Handle(route.pattern, s.endpoint(route))
	}
	mux.Handle("/", s.noRoute(mux))

	// From the outside in.
	return s.observe(s.headers(s.cors(s.refuse(addSlash(mux)))))
}

// endpoint is the last step: who is calling, may they, and then the handler.
// An error from any of them is answered here and nowhere else.
func (s *server) endpoint(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c caller
		err := s.admit(route.who, r, &c)
		if o, ok := w.(*observed); ok {
			o.user = c.User.ID
		}
		if err == nil {
			err = route.handle(w, r, c)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// A caller is the account and the session that a request comes from.
type caller struct {
	User
	Session Session
}

// by is the caller for the store.
func (c caller) by() Caller { return Caller{UserID: c.User.ID, SessionID: c.Session.ID} }

// unchanged returns ErrStale if the account's password has been changed since
// the request was let in.
func (c caller) unchanged(u User) error {
	if u.Epoch != c.Epoch {
		return ErrStale
	}
	return nil
}

// gone is for changes of the caller's own account: when it is not there any
// more, it has been deleted since the request was let in, and its token with it.
func (c caller) gone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return ErrToken
	}
	return err
}

// who is who may use a route.
type who string

const (
	anyone     who = "anyone"
	activeUser who = "active user"
	admin      who = "admin"
)

// admit fills c with who is calling, if anybody must.
func (s *server) admit(who who, r *http.Request, c *caller) error {
	switch who {
	case anyone:
		return nil
	case activeUser:
		return s.activeUser(r, c)
	case admin:
		return s.adminUser(r, c)
	}
	panic("a route for nobody: " + who)
}

// The three questions of the article, each built on the one before: who is
// calling, is the account active, is it an admin's. A caller is large, and being
// handed up from each to the next would make stacks grow; so they fill one.

func (s *server) currentUser(r *http.Request, c *caller) error {
	token, ok := bearerToken(r)
	if !ok {
		return errNoCredentials
	}
	claims, err := s.tokens.VerifyAccess(token, time.Now())
	if err != nil {
		return err
	}
	c.Session, c.User, err = s.store.Session(r.Context(), claims.UserID, claims.SessionID)
	if errors.Is(err, ErrNotFound) {
		return ErrToken
	}
	return err
}

func (s *server) activeUser(r *http.Request, c *caller) error {
	err := s.currentUser(r, c)
	if err == nil && c.Disabled {
		return ErrInactive
	}
	return err
}

func (s *server) adminUser(r *http.Request, c *caller) error {
	err := s.activeUser(r, c)
	if err == nil && c.Role != RoleAdmin {
		return errForbidden
	}
	return err
}

// bearerToken returns the token of an Authorization header (RFC 6750, section
// 2.1; the scheme in any case: RFC 9110, section 11.1).
func bearerToken(r *http.Request) (token string, ok bool) {
	const scheme = "Bearer "
	h := r.Header.Get("Authorization")
	if len(h) < len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
		return "", false
	}
	token = strings.TrimLeft(h[len(scheme):], " ")
	return token, token != ""
}

// headers sets what every answer has. No answer of the API may be kept by a
// cache, above all not by one that several users share (RFC 9111, section
// 5.2.2.5); the page sets its own.
func (s *server) headers(next http.Handler) http.Handler {
	noStore, noSniff, hsts := []string{"no-store"}, []string{"nosniff"}, []string{"max-age=31536000"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Cache-Control"] = noStore
		h["X-Content-Type-Options"] = noSniff
		if s.TLS {
			h["Strict-Transport-Security"] = hsts // for a year (RFC 6797)
		}
		next.ServeHTTP(w, r)
	})
}

// cors lets pages from the configured origins use the API (Fetch standard,
// "CORS protocol"). Credentials in the browser's sense, cookies, do not exist
// here: a page needs a token, which only the user's password gives it. Answers
// that a cache may keep say "Vary: Origin" themselves.
func (s *server) cors(next http.Handler) http.Handler {
	if len(s.CORSOrigins) == 0 {
		return next
	}
	allowed := func(origin string) bool {
		return slices.ContainsFunc(s.CORSOrigins, func(pattern string) bool { return matchOrigin(pattern, origin) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Vary", "Origin")
		if !allowed(origin) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "Link, Location, Retry-After, WWW-Authenticate, X-Request-Id")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			w.Header().Set("Access-Control-Max-Age", "600") // seconds
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// matchOrigin reports whether origin is the one that pattern names; a pattern
// that ends in ":*" names every port.
func matchOrigin(pattern, origin string) bool {
	base, anyPort := strings.CutSuffix(pattern, ":*")
	if !anyPort || origin == base {
		return origin == base
	}
	port, ok := strings.CutPrefix(origin, base+":")
	_, err := strconv.ParseUint(port, 10, 16)
	return ok && err == nil
}

// refuse stops requests that should never have been sent so. A query string
// ends up in logs, histories and Referer headers, so a secret in one has leaked
// already (RFC 9700, section 4.3.2). Of two Authorization headers, a proxy may
// have checked the other one.
func (s *server) refuse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// "GET *" and "CONNECT host:port" name nothing here; ServeMux would say
		// so in plain text.
		if r.RequestURI == "*" || r.Method == http.MethodConnect && r.URL.Path == "" {
			s.fail(w, r, ErrNotFound)
			return
		}
		// If there was a Content-Length beside it, then a proxy may have seen
		// another end of the request than we do. net/http does not tell, so
		// nothing more is read from such a connection (RFC 9112, section 6.1).
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		if len(r.Header["Authorization"]) > 1 {
			s.fail(w, r, errTwoCredentials)
			return
		}
		if r.URL.RawQuery != "" {
			query, err := url.ParseQuery(r.URL.RawQuery)
			if err != nil {
				s.fail(w, r, errQuery)
				return
			}
			if slices.ContainsFunc([]string{"username", "password", "token", "refresh_token", "access_token"}, query.Has) {
				s.fail(w, r, errSecretInQuery)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// addSlash redirects the two collections of the article to where it has them.
func addSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/users" && r.URL.Path != "/users/me" {
			next.ServeHTTP(w, r)
			return
		}
		to := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
	})
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// noRoute answers what no route matches: 405 with the methods that would match,
// or 404. ServeMux has these answers too, but in plain text.
func (s *server) noRoute(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range methods {
			probe := http.Request{Method: method, URL: r.URL, Host: r.Host}
			if _, pattern := mux.Handler(&probe); pattern != "/" {
				allow = append(allow, method)
			}
		}
		r.Pattern = ""
		if allow == nil {
			s.fail(w, r, ErrNotFound)
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.fail(w, r, errMethod)
	})
}

// clientIP is the address that the request comes from: the peer's, or where
// that is a trusted proxy, what it says. Each proxy appends the address it was
// called from, so the list is read from its end, and no further than the first
// address that is not trusted: what stands before it, anybody could have sent.
func (s *server) clientIP(r *http.Request) netip.Addr {
	addr := peer(r)
	if len(s.TrustedProxies) == 0 {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusted(addr); i-- {
		hop, err := parseHop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr
}

// parseHop reads an address, to which some proxies add the port.
func parseHop(s string) (netip.Addr, error) {
	if hop, err := netip.ParseAddrPort(s); err == nil {
		return hop.Addr(), nil
	}
	return netip.ParseAddr(s)
}

func (s *server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func peer(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http writes it
	return ap.Addr().Unmap().WithZone("")
}
