package main

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// This file is what every request passes before its handler. It is a list of guards
// instead of the usual chain of func(http.Handler) http.Handler: a link of such a chain
// sees only a ResponseWriter and a Request, so what one link finds out, the next must
// find out again or fish out of a context. A guard is given the call, which knows it.

// newCall returns the call of a request and sets the headers of every response.
func (s *server) newCall(w http.ResponseWriter, r *http.Request, pattern string) *call {
	c := &call{Request: r, w: w, route: pattern, start: time.Now()}
	peer := peer(r.RemoteAddr)
	trusted := s.trusted(peer)
	c.from = s.client(r, peer, trusted)
	if c.id = r.Header.Get("X-Request-Id"); !trusted || !isPlain(c.id) {
		c.id = rand.Text()
	}
	s.setHeaders(c)
	return c
}

var neverCached, noSniff, oneYear = []string{"no-store"}, []string{"nosniff"}, []string{"max-age=31536000"}

// setHeaders sets the headers of every response; a reply may have its own. No cache may
// store a response of the API (RFC 9111, section 5.2.2.5).
func (s *server) setHeaders(c *call) {
	h := c.w.Header()
	h["X-Request-Id"] = []string{c.id}
	h["Cache-Control"] = neverCached
	h["X-Content-Type-Options"] = noSniff
	// A browser would apply this to every other server on this machine as well.
	if s.TLS && !isLoopback(c.Host) {
		h["Strict-Transport-Security"] = oneYear // RFC 6797
	}
	// With both Content-Length and Transfer-Encoding, a proxy may have seen the request
	// end elsewhere than this server did. net/http does not report this, so every chunked
	// request is the last on its connection (RFC 9112, section 6.1).
	if len(c.TransferEncoding) > 0 {
		h.Set("Connection", "close")
	}
	s.allowPage(c)
}

// guards refuse requests, in this order.
var guards = []func(*server, *call) error{
	(*server).storeIsOpen,
	(*server).sameOrigin,
	(*server).oneCredential,
	(*server).noSecretInQuery,
}

// storeIsOpen refuses requests while the store is being read. The process is alive, and an
// orchestrator must not kill it for that.
func (s *server) storeIsOpen(c *call) error {
	if s.opening.Load() && c.URL.Path != "/healthz" {
		return errOpening
	}
	return nil
}

// oneCredential refuses two Authorization headers: a proxy may have checked the other one.
func (s *server) oneCredential(c *call) error {
	if len(c.Header["Authorization"]) > 1 {
		return detailed(errCredentials, "More than one Authorization header")
	}
	return nil
}

var secretNames = []string{
	"username", "password", "current_password", "new_password", "client_secret", "token", "refresh_token", "access_token",
}

// noSecretInQuery refuses secrets in the query string, which ends up in logs, histories
// and Referer headers: such a secret has leaked (RFC 9700, section 4.3.2).
func (s *server) noSecretInQuery(c *call) error {
	if c.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return detailed(errInvalidRequest, "The query string is not valid")
	}
	if slices.ContainsFunc(secretNames, query.Has) {
		return detailed(errCredentials, "A name or a secret must not be sent in the query string")
	}
	return nil
}
