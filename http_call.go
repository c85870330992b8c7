package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// A call is one request on its way through the server. endpoint makes it and passes it
// to everything below; nothing else travels with a request.
type call struct {
	*http.Request
	w     http.ResponseWriter // for endpoint and readBody alone: handlers return a reply
	route string              // the pattern that matched, "" for none
	id    string              // X-Request-Id
	from  netip.Addr          // the client
	start time.Time

	form    form     // of a formBody
	members []member // of a jsonBody or a patchBody

	// The caller, unless the route is for anyone.
	user    User
	session Session
	by      Caller

	// For the log and the metrics.
	account int64  // that called, or that a login was for
	target  int64  // the account that an admin's request was about
	login   string // the outcome of a login: "ok", "failed" or "refused"
	status  int
	bytes   int64 // of the body that was written
	holds   int   // of the budget of bytes
}

// near reports whether a session began in the client's network.
func (c *call) near(v Session) bool {
	from, err := netip.ParseAddr(v.IP)
	return err == nil && site(from) == site(c.from)
}

// routeName returns the route without its method and "{$}".
func (c *call) routeName() string { return routeName(c.route) }

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
	if c.status = r.status; c.status == 0 {
		c.status = http.StatusOK
	}
	c.w.WriteHeader(c.status)
	n, _ := c.w.Write(r.body) // an error means that the client has gone
	c.bytes = int64(n)
}
