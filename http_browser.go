package main

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// This file decides what pages in a browser may do: those of the configured origins, and
// those of all others.

// allowPage lets pages of the configured origins use the API (Fetch standard, "CORS
// protocol"). There are no cookies, so a page needs a token, and for that the user's
// password.
func (s *server) allowPage(c *call) {
	origin := c.Header.Get("Origin")
	if origin == "" || len(s.CORSOrigins) == 0 {
		return
	}
	h := c.w.Header()
	h.Set("Vary", "Origin")
	if s.allowedOrigin(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Link, Location, Retry-After, WWW-Authenticate, X-Request-Id")
	}
}

// preflight reports whether a browser asks if a page may send a request, and answers it
// if so. The request may have any header: without cookies, a header gives a page nothing.
func (s *server) preflight(c *call) bool {
	if c.Method != http.MethodOptions || c.Header.Get("Access-Control-Request-Method") == "" || !s.allowedOrigin(c.Header.Get("Origin")) {
		return false
	}
	h, headers := c.w.Header(), []string{"Authorization", "Content-Type"}
	for _, name := range strings.FieldsFunc(c.Header.Get("Access-Control-Request-Headers"), separates) {
		if !slices.Contains(headers, http.CanonicalHeaderKey(name)) {
			headers = append(headers, name)
		}
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	h.Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	h.Set("Access-Control-Max-Age", "600") // seconds
	return true
}

// separates reports whether a character cannot be part of the name of a header (RFC 9110,
// section 5.6.2).
func separates(c rune) bool {
	return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
}

// sameOrigin refuses requests that a page of another site makes its visitor's browser
// send. Such a page cannot read the response, but with wrong passwords it could get the
// visitor throttled.
func (s *server) sameOrigin(c *call) error {
	if (s.crossOrigin.Check(c.Request) != nil || s.rebound(c)) && !s.allowedOrigin(c.Header.Get("Origin")) {
		return errCrossOrigin
	}
	return nil
}

// rebound reports whether a page may have made its own name resolve to this machine (DNS
// rebinding), so that its requests have one origin with the server. This is checked only
// with the demo accounts, whose passwords everybody knows: otherwise a proxy may pass on
// any name.
func (s *server) rebound(c *call) bool {
	safe := c.Method == http.MethodGet || c.Method == http.MethodHead || c.Method == http.MethodOptions
	return s.Demo && !safe && c.Header.Get("Origin") != "" && !isLoopback(c.Host)
}

func (s *server) allowedOrigin(origin string) bool {
	return slices.ContainsFunc(s.CORSOrigins, func(pattern string) bool { return matchOrigin(pattern, origin) })
}

// matchOrigin reports whether an origin matches a pattern, which is an origin, with "*."
// for any name below its host and ":*" for any port.
func matchOrigin(pattern, origin string) bool {
	base, anyPort := strings.CutSuffix(pattern, ":*")
	if i := strings.LastIndexByte(origin, ':'); anyPort && i >= 0 {
		if _, err := strconv.ParseUint(origin[i+1:], 10, 16); err == nil {
			origin = origin[:i]
		}
	}
	if scheme, domain, wild := strings.Cut(base, "*"); wild {
		name, ours := strings.CutPrefix(origin, scheme)
		name, below := strings.CutSuffix(name, domain)
		return ours && below && name != "" && !strings.ContainsAny(name, "/:@")
	}
	return origin == base
}
