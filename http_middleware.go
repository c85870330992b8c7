package main

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// handler returns the routes behind the middleware, which is listed outermost first.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.routes() {
		mux.Handle(route.pattern, s.endpoint(route))
	}
	mux.Handle("/", s.noRoute(mux))
	handler := http.Handler(mux)
	for _, wrap := range slices.Backward([]func(http.Handler) http.Handler{
		oneLength, s.observe, s.headers, s.cors, s.sameOrigin, s.refuse, addSlash,
	}) {
		handler = wrap(handler)
	}
	return handler
}

// oneLength closes the connection after a request that may have had two lengths. If it
// had both Content-Length and Transfer-Encoding, a proxy may have seen the request end
// elsewhere than this server did. net/http does not report this, so every chunked
// request is the last on its connection (RFC 9112, section 6.1).
func oneLength(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// headers sets the headers of every response. No cache may store a response of the API
// (RFC 9111, section 5.2.2.5); the page sets its own rule.
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

// cors lets pages of the configured origins use the API (Fetch standard, "CORS
// protocol"). There are no cookies, so a page needs a token, and for that the user's
// password.
func (s *server) cors(next http.Handler) http.Handler {
	if len(s.CORSOrigins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, h := r.Header.Get("Origin"), w.Header()
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Vary", "Origin")
		if !s.allowedOrigin(origin) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Link, Location, Retry-After, WWW-Authenticate, X-Request-Id")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		h.Set("Access-Control-Max-Age", "600") // seconds
		w.WriteHeader(http.StatusNoContent)
	})
}

// sameOrigin refuses requests that a page of another site makes its visitor's browser
// send. Such a page cannot read the response, but with wrong passwords it could get the
// visitor throttled.
func (s *server) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (protection.Check(r) != nil || s.rebound(r)) && !s.allowedOrigin(r.Header.Get("Origin")) {
			s.fail(w.(*response), r, errCrossOrigin)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rebound reports whether a page may have made its own name resolve to this machine (DNS
// rebinding), so that its requests have one origin with the server. This is checked only
// with the demo accounts, whose passwords everybody knows: otherwise a proxy may pass on
// any name.
func (s *server) rebound(r *http.Request) bool {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	return s.Demo && !safe && r.Header.Get("Origin") != "" && !isLoopback(r.Host)
}

// isLoopback reports whether only this machine can reach an address, which may have a
// port.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (s *server) allowedOrigin(origin string) bool {
	return slices.ContainsFunc(s.CORSOrigins, func(pattern string) bool { return matchOrigin(pattern, origin) })
}

// matchOrigin reports whether an origin matches a pattern, which is an origin, with
// ":*" for any port.
func matchOrigin(pattern, origin string) bool {
	base, anyPort := strings.CutSuffix(pattern, ":*")
	if !anyPort || origin == base {
		return origin == base
	}
	port, ok := strings.CutPrefix(origin, base+":")
	_, err := strconv.ParseUint(port, 10, 16)
	return ok && err == nil
}

// refuse refuses requests that should not have been sent. A query string ends up in
// logs, histories and Referer headers, so a secret in it has leaked (RFC 9700, section
// 4.3.2). With two Authorization headers, a proxy may have checked the other one.
func (s *server) refuse(next http.Handler) http.Handler {
	secrets := []string{"username", "password", "token", "refresh_token", "access_token"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch {
		// "OPTIONS *" and "CONNECT host:port" have no path. ServeMux would respond in
		// plain text.
		case r.RequestURI == "*", r.Method == http.MethodConnect && r.URL.Path == "":
			err = ErrNotFound
		case len(r.Header["Authorization"]) > 1:
			err = errTwoCredentials
		case r.URL.RawQuery != "":
			query, unparsed := url.ParseQuery(r.URL.RawQuery)
			if unparsed != nil {
				err = detailed(errInvalidRequest, "The query string is not valid")
			} else if slices.ContainsFunc(secrets, query.Has) {
				err = errSecretInQuery
			}
		}
		if err != nil {
			s.fail(w.(*response), r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// addSlash redirects to the two paths that end in a slash, as in the article.
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

// noRoute handles requests that no route matches: 405 with the methods that would
// match, else 404. ServeMux would write these in plain text.
func (s *server) noRoute(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range methods {
			probe := http.Request{Method: method, URL: r.URL}
			if _, pattern := mux.Handler(&probe); pattern != "/" {
				allow = append(allow, method)
			}
		}
		r.Pattern = "" // for the log: no route
		err := ErrNotFound
		if allow != nil {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			err = errMethod
		}
		s.fail(w.(*response), r, err)
	})
}

// clientIP returns the address of the client: the peer's, or if that is a trusted
// proxy, the one in X-Forwarded-For. Each proxy appends the address of its client. So
// the list is read from its end up to the first address that is not trusted; a client
// could have sent what is before it.
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

// parseHop parses an address. Some proxies add the port, or brackets.
func parseHop(s string) (netip.Addr, error) {
	if hop, err := netip.ParseAddrPort(s); err == nil {
		return hop.Addr(), nil
	}
	return netip.ParseAddr(strings.Trim(s, "[]"))
}

func (s *server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func peer(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http writes it
	return ap.Addr().Unmap().WithZone("")
}
