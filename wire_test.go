package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// These tests write bytes to a socket: what they are about is decided between
// net/http, its limits and our layers, and not by a handler alone.

// TestAttackOnTheWire: one row is what is sent, and the statuses of all that
// comes back until the server closes the connection, or has nothing more to say.
func TestAttackOnTheWire(t *testing.T) {
	const (
		get    = " HTTP/1.1\r\nHost: x\r\n\r\n"
		form   = "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
		hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	)
	for _, tt := range []struct{ rule, send, want string }{
		{"two requests on one connection are two answers", "GET /healthz" + get + "GET /healthz" + get, "200 200 open"},
		{"a chunked body is read, and the connection closed", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n", "200 closed"},

		{"smuggling: two lengths", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 7\r\nContent-Length: 4\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"smuggling: a length and chunks", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"smuggling: chunks and a length", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"smuggling: chunks in another spelling", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: xchunked\r\nContent-Length: 7\r\n\r\ntoken=x" + hidden, "501 closed"},
		{"smuggling: two transfer encodings", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, "501 closed"},
		{"smuggling: a space before the colon", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length : 7\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"smuggling: a sign before the length", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: +7\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"smuggling: a chunk of no size", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\nzz\r\ntoken=x\r\n0\r\n\r\n" + hidden, "400 closed"},
		{"smuggling: a chunk's line that ends in LF alone", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7;a=b\ntoken=x\r\n0\r\n\r\n" + hidden, "400 closed"},
		{"two hosts", "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400 closed"},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", "400 closed"},
		{"NUL in a header", "GET /users/me/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\x00b\r\n\r\n", "400 closed"},
		{"a version that never was", "GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", "505 closed"},
		{"headers without end", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", "431 closed"},
		{"the longest token with room to spare", "GET /users/me/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("a", 4097) + "\r\n\r\n", "401 open"},

		{"headers that come too slowly", "GET /heal", "400 closed"},
		{"a body that comes too slowly", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 7\r\n\r\ntok", "408 closed"},
		{"a body that ends too soon, in chunks", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7\r\ntok", "408 closed"},

		{"path: two slashes", "GET //users/me/" + get, "307 /users/me/ open"},
		{"path: two slashes are no host", "GET //evil.example" + get, "307 /evil.example open"},
		{"path: dots", "GET /docs/../users/me/" + get, "307 /users/me/ open"},
		{"path: dots beyond the root", "GET /../../users/me/" + get, "307 /users/me/ open"},
		{"path: encoded dots are not followed", "GET /users/%2e%2e/users/me/" + get, "404 open"},
		{"path: encoded slash is part of an ID", "GET /users/me%2f" + get, "401 open"},
		{"path: encoded slashes join nothing", "GET /users%2fme%2f" + get, "404 open"},
		{"path: encoded slash in the page's parts", "GET /docs/..%2f..%2fgo.mod" + get, "404 open"},
		{"path: a letter may be encoded, and then is the letter", "GET /%75sers/me/" + get, "401 open"},
		{"path: NUL", "GET /users/1%00" + get, "401 open"},
		{"path: parameters", "GET /users/me/;admin=true" + get, "404 open"},
		{"path: a backslash is no slash", "GET /docs\\..\\users" + get, "404 open"},
		{"path: no slash", "GET healthz" + get, "400 closed"},
		{"path: another server's", "GET http://evil.example/healthz" + get, "200 open"},
		{"path: another server's, empty", "GET http://evil.example" + get, "307 / open"},
		{"path: a star", "GET *" + get, "404 open"},
		{"path: a tunnel", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "404 open"},
		{"a made-up method", "BREW /users/me/" + get, "405 open"},
		{"TRACE, which would send the token back", "TRACE /users/me/" + get, "405 open"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(onTheWire(t, tt.send, tt.want), " "); got != tt.want {
				t.Errorf("%.300q\n  got  %s\n  want %s", tt.send, got, tt.want)
			}
		})
	}
}

// onTheWire sends to a server with short patience. It returns the statuses (and
// Locations) of the answers, and "open" or "closed". It knows what is wanted only
// to know when waiting for more is of no use.
func onTheWire(t *testing.T, send, want string) (answers []string) {
	const patience = 200 * time.Millisecond
	w := newWorld(t)
	srv := new(settings).httpServer(w.handler, slog.New(slog.DiscardHandler))
	if srv.ReadHeaderTimeout != 10*time.Second || srv.ReadTimeout != 30*time.Second || srv.IdleTimeout != 2*time.Minute {
		t.Errorf("the server waits %v for headers, %v for a request, %v between requests; want 10s, 30s, 2m", srv.ReadHeaderTimeout, srv.ReadTimeout, srv.IdleTimeout)
	}
	srv.ReadHeaderTimeout, srv.ReadTimeout = patience, 2*patience
	listener, err := listen("-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(listener)
	defer srv.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, send)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	method, _, _ := strings.Cut(send, " ")
	for r := bufio.NewReader(conn); ; {
		if strings.Join(answers, " ")+" open" == want {
			conn.SetReadDeadline(time.Now().Add(patience / 2))
		}
		if _, err := r.Peek(1); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return append(answers, "open")
			}
			return append(answers, "closed")
		}
		res, err := http.ReadResponse(r, &http.Request{Method: strings.Replace(method, "CONNECT", "GET", 1)})
		if err != nil {
			t.Fatalf("%q: %v", send, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%q: %v", send, err)
		}
		answers = append(answers, strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location"))))
		ours := res.Header.Get("X-Request-Id") != ""
		if res.StatusCode >= 400 && ours && !strings.HasSuffix(res.Header.Get("Content-Type"), "json") {
			t.Errorf("%q\n  got %d as %q: %s\n  want JSON", send, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
	}
}
