package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// handler puts the routes together with what every request passes before it comes to
// one of them, outermost first.
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

// oneLength ends the connection of a request that may have had two lengths. With a
// Content-Length beside Transfer-Encoding, a proxy may have seen another end of the
// request than this server does. net/http does not tell, so nothing more is read
// from a connection with a chunked request (RFC 9112, section 6.1).
func oneLength(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// headers sets what every response has. No cache may keep a response of the API,
// least of all one that several users share (RFC 9111, section 5.2.2.5); the page
// sets its own.
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

// cors lets pages from the configured origins use the API (Fetch standard, "CORS
// protocol"). There are no cookies: a page needs a token, which only the user's
// password gives it.
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

// sameOrigin refuses what a page of another site makes its visitor's browser send:
// it can read no response, but five wrong passwords would lock the visitor out.
func (s *server) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if protection.Check(r) != nil && !s.allowedOrigin(r.Header.Get("Origin")) {
			s.fail(w.(*response), r, errCrossOrigin)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) allowedOrigin(origin string) bool {
	return slices.ContainsFunc(s.CORSOrigins, func(pattern string) bool { return matchOrigin(pattern, origin) })
}

// matchOrigin reports whether origin is the one of the pattern. A pattern that ends
// in ":*" is for every port.
func matchOrigin(pattern, origin string) bool {
	base, anyPort := strings.CutSuffix(pattern, ":*")
	if !anyPort || origin == base {
		return origin == base
	}
	port, ok := strings.CutPrefix(origin, base+":")
	_, err := strconv.ParseUint(port, 10, 16)
	return ok && err == nil
}

// refuse stops requests that should never have been sent. A query string ends up in
// logs, histories and Referer headers, so a secret in one has leaked already (RFC
// 9700, section 4.3.2). Of two Authorization headers, a proxy may have checked the
// other one.
func (s *server) refuse(next http.Handler) http.Handler {
	secrets := []string{"username", "password", "token", "refresh_token", "access_token"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch {
		// "OPTIONS *" and "CONNECT host:port" name no path; ServeMux would say so in
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

// noRoute answers what no route matches: 405 with the methods that would match, or
// 404. ServeMux has these answers too, but in plain text.
func (s *server) noRoute(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range methods {
			probe := http.Request{Method: method, URL: r.URL, Host: r.Host}
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

// clientIP is the address that the request comes from: the peer's, or where that is a
// trusted proxy, what it says. Each proxy appends the address that it was called from,
// so the list is read from its end, up to the first address that is not trusted:
// anybody could have sent what stands before it.
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

// parseHop parses an address, to which some proxies add the port.
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
