package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config holds the settings that the handlers need.
type Config struct {
	Issuer         string
	AccessTTL      time.Duration
	SessionLife    Lifetimes
	Closed         bool           // only an admin may create accounts
	Demo           bool           // the demo accounts exist: the page offers them
	TLS            bool           // browsers are told to use HTTPS only
	CORSOrigins    []string       // see matchOrigin
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
	mailer    *Mailer // nil if mail is off
	log       *slog.Logger
	metrics   *metrics
	shares    shares
	opening   atomic.Bool // the store is being read, and store is not set yet

	crossOrigin http.CrossOriginProtection
	warnOfProxy sync.Once
}

// A route says who may call it, what body it takes, and which handler serves it.
type route struct {
	pattern string
	who     admission
	body    bodyType
	handle  func(*call) (reply, error)
}

// An admission says who may call a route.
type admission string

const (
	anyone     admission = "anyone"
	activeUser admission = "active user"
	admin      admission = "admin"
	inspector  admission = "admin or resource server" // the one of INTROSPECT_CLIENT
)

// A call is one request on its way through the server. endpoint makes it and passes it
// to everything below; nothing else travels with a request.
type call struct {
	*http.Request
	body
	w     http.ResponseWriter // for reading the body and for the headers of every response: handlers return a reply
	route string              // the pattern that matched, "" for none
	id    string              // X-Request-Id
	from  netip.Addr          // the client
	start time.Time

	// The caller, unless the route is for anyone. When somebody who is no admin registers
	// an account, user and session are set, but by is not.
	user    User
	session Session
	by      Caller
	subject int64 // the account that the request is about: the {id} of the path, or the caller's
	taken   int   // of shares.bytes, until the reply is written

	// For the log and the metrics.
	account int64  // the ID of the account that called, or that a login was for
	target  int64  // the ID of the account that an admin's request was about
	login   string // the outcome of a login: "ok", "failed" or "refused"
	status  int
	bytes   int64 // of the body that was written
}

// near reports whether a session began in the client's network.
func (c *call) near(v Session) bool {
	from, err := netip.ParseAddr(v.IP)
	return err == nil && network(from) == network(c.from)
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// routeName returns a pattern without its method and "{$}".
func routeName(pattern string) string {
	return strings.TrimSuffix(pattern[strings.IndexByte(pattern, ' ')+1:], "{$}")
}

// A reply is the response to a call. The zero reply is an empty 200.
type reply struct {
	status int
	header map[string]string // besides those of every response, in canonical form
	body   []byte            // JSON, unless header has another Content-Type
}

var noContent = reply{status: http.StatusNoContent}

func redirect(status int, to string) reply {
	return reply{status: status, header: map[string]string{"Location": to}}
}

// replyJSON ends the body with a line break, so that a shell prompts on a new line.
func replyJSON(status int, v any) (reply, error) {
	b, err := json.Marshal(v)
	return reply{status: status, body: append(b, '\n')}, err
}

// refusal returns the reply to an error.
func (s *server) refusal(c *call, err error) reply {
	p, fields := problemOf(err)
	switch {
	case c.Context().Err() != nil && errors.Is(err, context.Canceled): // the client has hung up
		return reply{status: statusClientGone}
	case err == errInternal, err == errOpening: // the log has the panic; a store that is being read is no fault
	case p.err == errInternal, p.err == ErrUnavailable:
		s.log.Error("request failed", "id", c.id, "route", routeName(c.route), "error", err)
	}
	if p.status == http.StatusBadRequest && routeName(c.route) == "/forward-auth" {
		p.status = http.StatusForbidden // the other refusal that proxies know
	}
	s.metrics.count(errorSample(p.code))
	header := map[string]string{}
	if p.challenge != "" {
		header["Www-Authenticate"] = p.challenge
	}
	if p.retry > 0 {
		header["Retry-After"] = strconv.Itoa(int((p.retry + time.Second - 1) / time.Second))
	}
	body := struct {
		Title       string       `json:"title,omitempty"`
		Status      int          `json:"status,omitempty"`
		Error       string       `json:"error,omitempty"`
		Description string       `json:"error_description,omitempty"`
		Detail      string       `json:"detail"`
		Code        string       `json:"code"`
		Errors      []fieldError `json:"errors,omitempty"`
	}{Detail: p.detail, Code: p.code, Errors: fields}
	if p.oauth != "" && (c.URL.Path == "/token" || c.URL.Path == "/revoke" || c.URL.Path == "/introspect") {
		body.Error, body.Description = p.oauth, p.detail
	} else {
		header["Content-Type"] = "application/problem+json"
		body.Title, body.Status = http.StatusText(p.status), p.status
	}
	out, _ := replyJSON(p.status, body) // these values can be marshalled
	out.header = header
	return out
}

var jsonType = []string{"application/json"}

// write writes a reply. Nothing else writes a response.
func (c *call) write(r reply) {
	h := c.w.Header()
	if len(r.body) > 0 {
		h["Content-Type"] = jsonType
	}
	for name, value := range r.header {
		h[name] = []string{value}
	}
	c.status = cmp.Or(r.status, http.StatusOK)
	c.w.WriteHeader(c.status)
	n, _ := c.w.Write(r.body) // an error means that the client has gone
	c.bytes = int64(n)
}

// observe records the outcome of a call in the metrics and the log. The log has the route
// instead of the path and the query, because people paste tokens into both.
func (s *server) observe(c *call) {
	took := time.Since(c.start)
	s.metrics.observe(c, took)
	if !s.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	method := c.Method
	if !slices.Contains(methods, method) && method != http.MethodOptions {
		method = "other" // a client could put anything there
	}
	attrs := []slog.Attr{
		slog.String("id", c.id), slog.String("ip", c.from.String()), slog.String("method", method),
		slog.String("route", routeName(c.route)), slog.Int("status", c.status), slog.Int64("user", c.account),
		slog.Int64("target", c.target), slog.String("login", c.login), slog.Int64("bytes", c.bytes),
		slog.Float64("took", float64(took.Microseconds())/1000), // in milliseconds
	}
	empty := func(a slog.Attr) bool { return a.Key == "target" && c.target == 0 || a.Key == "login" && c.login == "" }
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "request", slices.DeleteFunc(attrs, empty)...)
}
