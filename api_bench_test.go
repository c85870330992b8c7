package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"
)

// BenchmarkReadMe is GET /users/me/ through the whole chain, beside a bare
// handler that writes the same bytes in the same run: "ratio" is how much longer
// it takes; over a socket, its inverse is the share of bare net/http.
func BenchmarkReadMe(b *testing.B) {
	w := benchWorld(b)
	r := w.request(b.Context(), "GET /users/me/ as john")
	body := []byte(w.send(b.Context(), "GET /users/me/ as john").body)
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = jsonType
		w.WriteHeader(http.StatusOK)
		w.Write(body)
	})
	b.Run("handler", func(b *testing.B) {
		sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
	})
	b.Run("handler with an access log", func(b *testing.B) {
		w.server.log = slog.New(slog.NewTextHandler(io.Discard, nil))
		defer func() { w.server.log = slog.New(slog.DiscardHandler) }()
		sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
	})
	b.Run("socket", func(b *testing.B) {
		bare, ours := &http.Server{Handler: bare}, httpServer(b, w)
		sideBySide(b, asking(b, bare, loopback(b), w.vars["john"]), asking(b, ours, loopback(b), w.vars["john"]))
	})
}

// BenchmarkBadToken is what a flood of forged tokens costs. They are refused by
// their MAC, and nothing is looked up.
func BenchmarkBadToken(b *testing.B) {
	w := benchWorld(b)
	token := w.vars["john"]
	w.vars["forged"] = token[:len(token)-4] + "AAAA"
	r := w.request(b.Context(), "GET /users/me/ as forged")
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/problem+json"}
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(badToken[strings.LastIndexByte(badToken, '\n')+1:]))
	})
	sideBySide(b, serving(b, bare, r, 401), serving(b, w.handler, r, 401))
}

// BenchmarkRefreshOverHTTP is POST /token with a refresh token on the memory
// store over a connection, each time with the successor of the one before, beside
// GET /users/me/: "ratio" is how much longer it takes.
func BenchmarkRefreshOverHTTP(b *testing.B) {
	w := benchWorld(b)
	server := func() *http.Server { return httpServer(b, w) }
	talk, refresh := talking(b, server(), loopback(b)), w.vars["john.refresh"]
	sideBySide(b, asking(b, server(), loopback(b), w.vars["john"]), func() {
		body := "grant_type=refresh_token&refresh_token=" + url.QueryEscape(refresh)
		answer := talk(fmt.Sprintf("POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		_, next, _ := strings.Cut(strings.TrimSuffix(answer, `"}`), `"refresh_token":"`)
		if next == refresh || next == "" {
			b.Fatalf("POST /token answers %s", answer)
		}
		refresh = next
	})
}

// httpServer is the server as main configures it.
func httpServer(b *testing.B, w *world) *http.Server {
	return new(settings).httpServer(w.handler, w.server.log)
}

// sideBySide measures ours, and in the same run, a part at a time, bare.
func sideBySide(b *testing.B, bare, ours func()) {
	b.Helper()
	var before, after runtime.MemStats
	measure := func(f func(), n int) (nanoseconds, allocs float64) {
		runtime.ReadMemStats(&before)
		start := time.Now()
		for range n {
			f()
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		return float64(took), float64(after.Mallocs - before.Mallocs)
	}
	const part = 500
	var bareTime, bareAllocs, ourTime, ourAllocs float64
	n := 0
	for b.Loop() {
		if n%part == 0 {
			b.StopTimer()
			took, allocs := measure(bare, part)
			bareTime, bareAllocs = bareTime+took, bareAllocs+allocs
			took, allocs = measure(ours, part)
			ourTime, ourAllocs = ourTime+took, ourAllocs+allocs
			b.StartTimer()
		}
		n++
		ours()
	}
	measured := float64((n + part - 1) / part * part)
	b.ReportMetric(ourTime/bareTime, "ratio")
	b.ReportMetric(bareTime/measured, "bare-ns/op")
	b.ReportMetric(math.Round(bareAllocs/measured), "bare-allocs/op")
	b.ReportMetric(math.Round(ourAllocs/measured), "our-allocs/op")
}

// serving calls a handler, with nothing of net/http around it.
func serving(b *testing.B, h http.Handler, r *http.Request, status int) func() {
	w := &nullWriter{header: http.Header{}}
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != status {
			b.Fatalf("answers %d, want %d", w.status, status)
		}
	}
}

// asking asks a server over one connection, again and again.
func asking(b *testing.B, srv *http.Server, listener net.Listener, token string) func() {
	talk := talking(b, srv, listener)
	request := "GET /users/me/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	return func() { talk(request) }
}

// talking sends requests to a server over one connection, and returns the
// answers, which are 200 and small enough to come in one piece.
func talking(b *testing.B, srv *http.Server, listener net.Listener) func(request string) string {
	go srv.Serve(listener)
	b.Cleanup(func() { srv.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	answer := make([]byte, 4096)
	return func(request string) string {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 OK")) || answer[n-1] != '}' {
			b.Fatalf("answers %q (%v)", answer[:n], err)
		}
		return string(answer[:n])
	}
}

func loopback(b *testing.B) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchWorld has no log, so that the figures are those of the API.
func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.server.log = slog.New(slog.DiscardHandler)
	w.login("john", "johndoe", "secret")
	return w
}

// A nullWriter keeps the header and the status, as net/http does, and throws the
// body away.
type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) WriteHeader(status int)      { w.status = status }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
