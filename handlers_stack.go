package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// This file is for the programs around the server: clients that look for its endpoints,
// proxies that ask it on behalf of others, and resource servers.

// errClient means that a client's ID or secret is wrong.
var errClient = errors.New("wrong client")

// metadata says where the endpoints are and what they support (RFC 8414, section 2).
func (s *server) metadata(c *call) (reply, error) {
	base := s.publicURL(c)
	if base == "" {
		return reply{}, detailed(ErrNotFound, "The server does not know its address: it was started without -public-url")
	}
	none, secret := []string{"none"}, []string{"client_secret_basic", "client_secret_post"}
	return replyJSON(http.StatusOK, struct {
		Issuer            string   `json:"issuer"`
		Token             string   `json:"token_endpoint"`
		TokenAuth         []string `json:"token_endpoint_auth_methods_supported"`
		Grants            []string `json:"grant_types_supported"`
		ResponseTypes     []string `json:"response_types_supported"` // of an authorization endpoint
		Revocation        string   `json:"revocation_endpoint"`
		RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`
		Introspection     string   `json:"introspection_endpoint"`
		IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
		Documentation     string   `json:"service_documentation"`
	}{base, base + "/token", none, []string{"password", "refresh_token"}, []string{},
		base + "/revoke", none, base + "/introspect", secret, base + "/docs"})
}

// publicURL returns where clients reach the server, or "". That is -public-url, or else
// what a trusted proxy says, or else the loopback address that the server listens on.
// What a stranger says in Host is never part of it.
func (s *server) publicURL(c *call) string {
	proto, host := c.Header["X-Forwarded-Proto"], c.Header["X-Forwarded-Host"]
	_, known, _ := strings.Cut(s.PublicURL, "://")
	if known != "" && !isLoopback(known) || !s.trusted(peer(c.Request)) || len(proto) != 1 || len(host) != 1 {
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
	out := reply{status: http.StatusNoContent, header: make(map[string]string, 4)}
	for _, h := range [...]struct{ name, value string }{
		{"Remote-User", c.user.Username}, {"Remote-Groups", string(c.user.Role)},
		{"Remote-Email", c.user.Email}, {"Remote-Name", c.user.FullName},
	} {
		// A header has no control characters, and no space at its ends (RFC 9110, section
		// 5.5). An account from a store may have any.
		if h.value != "" && printable(h.value) && strings.Trim(h.value, " ") == h.value {
			out.header[h.name] = h.value
		}
	}
	return out, nil
}

// introspection is the response of RFC 7662, section 2.2.
type introspection struct {
	Active    bool   `json:"active"`
	TokenType string `json:"token_type,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Subject   string `json:"sub,omitempty"`
	SessionID string `json:"sid,omitempty"`
	Username  string `json:"username,omitempty"`
	Role      Role   `json:"role,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
}

// introspect tells an admin about tokens of either kind. To a resource server, a refresh
// token is not active: it must not pass for an access token.
func (s *server) introspect(c *call) (reply, error) {
	g, err := s.readToken(c.form)
	if errors.Is(err, ErrToken) || g.Generation != 0 && c.user.ID == 0 {
		return replyJSON(http.StatusOK, introspection{})
	}
	if err != nil {
		return reply{}, err
	}
	session, u, err := s.store.Session(c.Context(), g.UserID, g.SessionID)
	if errors.Is(err, ErrNotFound) || u.Disabled {
		return replyJSON(http.StatusOK, introspection{})
	}
	if err != nil {
		return reply{}, err
	}
	now := time.Now()
	usable := g.Generation == session.Generation || session.Superseded(g.Generation, now)
	if g.Generation == 0 {
		usable = g.ValidAt(now)
	}
	if !usable {
		return replyJSON(http.StatusOK, introspection{})
	}
	active := introspection{
		Active: true, Issuer: s.Issuer, Audience: s.Issuer, Subject: strconv.FormatInt(u.ID, 10), SessionID: session.ID,
		Username: u.Username, Role: u.Role, IssuedAt: session.LastUsedAt.Unix(), ExpiresAt: session.ExpiresAt.Unix(),
	}
	if g.Generation == 0 {
		active.TokenType, active.IssuedAt, active.ExpiresAt = "bearer", g.IssuedAt, g.ExpiresAt
	}
	return replyJSON(http.StatusOK, active)
}

// admitClient admits the resource server that may introspect access tokens. If the
// request has no credentials of a client, tried is false.
func (s *server) admitClient(c *call) (tried bool, err error) {
	id, secret, basic := c.BasicAuth()
	if !basic {
		id, secret = c.form["client_id"], c.form["client_secret"]
	}
	if !basic && (secret == "" || c.Header.Get("Authorization") != "") {
		return false, nil
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
	return true, s.passwords.countGuess(c.Context(), "client "+id, c.from, isRight)
}

func (s *server) isClient(id, secret string) bool {
	given, want := sha256.Sum256([]byte(id+"\x00"+secret)), sha256.Sum256([]byte(s.IntrospectID+"\x00"+s.IntrospectSecret))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// countGuess counts a try of a secret that needs no hash, as Check does for one that does.
func (p *Passwords) countGuess(ctx context.Context, name string, from netip.Addr, isRight bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueueTime, ErrBusy)
	defer cancel()
	keys := throttleKeys(name, from)
	if err := p.throttle.take(ctx, keys); err != nil {
		return err
	}
	defer p.throttle.end(keys)
	p.throttle.count(keys, isRight)
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
