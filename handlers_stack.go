package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// This file is for the programs around the server: clients that look for its endpoints,
// proxies that ask it on behalf of others, and resource servers.

var errNoAddress = detailed(ErrNotFound, "The server does not know its address: it was started without -public-url")

// metadata says where the endpoints are and what they support (RFC 8414, section 2).
func (s *server) metadata(c *call) (reply, error) {
	base := s.publicURL(c)
	if base == "" {
		return reply{}, errNoAddress
	}
	return replyJSON(http.StatusOK, map[string]any{
		"issuer":                                        base,
		"token_endpoint":                                base + "/token",
		"token_endpoint_auth_methods_supported":         []string{"none"},
		"grant_types_supported":                         []string{"password", "refresh_token"},
		"response_types_supported":                      []string{}, // of an authorization endpoint
		"revocation_endpoint":                           base + "/revoke",
		"revocation_endpoint_auth_methods_supported":    []string{"none"},
		"introspection_endpoint":                        base + "/introspect",
		"introspection_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"service_documentation":                         base + "/docs",
	})
}

// publicURL returns where clients reach the server, or "". That is -public-url, or
// without it a loopback address that the server listens on. Instead of that or of "", a
// trusted proxy may name another. The Host of a request never counts: its sender chooses it.
func (s *server) publicURL(c *call) string {
	proto, host := c.Header["X-Forwarded-Proto"], c.Header["X-Forwarded-Host"]
	_, public, _ := strings.Cut(s.PublicURL, "://")
	if public != "" && !isLoopback(public) || !s.trusted(peer(c.RemoteAddr)) || len(proto) != 1 || len(host) != 1 {
		return s.PublicURL
	}
	u := url.URL{Scheme: proto[0], Host: host[0]}
	same, err := url.Parse(u.String())
	if err != nil || *same != u || u.Scheme != "http" && u.Scheme != "https" || strings.Contains(u.Host, ",") {
		return s.PublicURL
	}
	return u.String()
}

// forwardAuth tells a proxy whether its client may use an application, and who it is. The
// headers have the names that applications know from other servers of this kind. An
// admin has every role.
func (s *server) forwardAuth(c *call) (reply, error) {
	if c.URL.RawQuery != "" {
		for _, role := range c.URL.Query()["role"] {
			if c.user.Role != RoleAdmin && Role(role) != c.user.Role {
				return reply{}, ErrNotAdmin
			}
		}
	}
	who := map[string]string{
		"Remote-User": c.user.Username, "Remote-Groups": string(c.user.Role), "Remote-Email": c.user.Email, "Remote-Name": c.user.FullName,
	}
	// A header has no control characters, and no space at its ends (RFC 9110, section 5.5).
	// An account from a store may have any.
	maps.DeleteFunc(who, func(_, value string) bool {
		return value == "" || !printable(value) || strings.Trim(value, " ") != value
	})
	return reply{status: http.StatusNoContent, header: who}, nil
}

// introspect tells an admin about tokens of either kind (RFC 7662, section 2.2). To a
// resource server, a refresh token is not active: it must not pass for an access token.
func (s *server) introspect(c *call) (reply, error) {
	var session Session
	var u User
	g, err := s.readToken(c.form)
	if err == nil {
		session, u, err = s.store.Session(c.Context(), g.UserID, g.SessionID)
	}
	now := time.Now()
	usable := g.ValidAt(now)
	if g.Generation != 0 {
		usable = c.user.ID != 0 && (g.Generation == session.Generation || session.Superseded(g.Generation, now))
	}
	switch {
	case errors.Is(err, ErrToken), errors.Is(err, ErrNotFound), err == nil && (u.Disabled || !usable):
		return replyJSON(http.StatusOK, map[string]any{"active": false})
	case err != nil:
		return reply{}, err
	}
	active := map[string]any{
		"active": true, "iss": s.Issuer, "aud": s.Issuer, "sub": strconv.FormatInt(u.ID, 10), "sid": session.ID,
		"username": u.Username, "role": u.Role, "iat": session.LastUsedAt.Unix(), "exp": session.ExpiresAt.Unix(),
	}
	if g.Generation == 0 {
		active["token_type"], active["iat"], active["exp"] = "bearer", g.IssuedAt, g.ExpiresAt
	}
	return replyJSON(http.StatusOK, active)
}

// admitClient admits the resource server that may introspect access tokens. If the
// request has no credentials of a client, tried is false.
func (s *server) admitClient(c *call) (tried bool, err error) {
	id, secret, basic := c.BasicAuth()
	if !basic {
		id, secret = c.form["client_id"], c.form["client_secret"]
		if secret == "" || c.Header.Get("Authorization") != "" {
			return false, nil
		}
	}
	if s.IntrospectSecret == "" {
		return true, errClient // there is nothing to guess
	}
	isRight := s.isClient(id, secret)
	if basic && !isRight { // both are encoded (RFC 6749, section 2.3.1), but not by all clients
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
		isRight = s.isClient(id, secret)
	}
	return true, s.passwords.countGuess(c.from, isRight)
}

func (s *server) isClient(id, secret string) bool {
	given, want := sha256.Sum256([]byte(id+"\x00"+secret)), sha256.Sum256([]byte(s.IntrospectID+"\x00"+s.IntrospectSecret))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// countGuess counts a try of a client's secret, which needs no hash, as Check does for one
// that does. It takes no time, so it waits for no other try. All IDs count as one name,
// which no account can have: such guesses are cheap, and the throttle has limited room.
func (p *Passwords) countGuess(from netip.Addr, isRight bool) error {
	keys := throttleKeys("a client", from)
	p.throttle.mu.Lock()
	defer p.throttle.mu.Unlock()
	if err := p.throttle.check(keys); err != nil {
		return err
	}
	p.throttle.note(keys, isRight)
	if !isRight {
		return errClient
	}
	return nil
}

// changePasswordPage is where a password manager sends its user (W3C, "A Well-Known URL
// for Changing Passwords").
func (s *server) changePasswordPage(c *call) (reply, error) {
	return redirect(http.StatusFound, "/docs#change-password"), nil
}
