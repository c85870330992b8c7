package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// observe gives each request an ID, records its outcome, and turns a panic into a 500.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		res := &response{ResponseWriter: w, id: s.requestID(r)}
		w.Header()["X-Request-Id"] = []string{res.id}
		defer func() {
			if p := recover(); p != nil {
				s.panicked(res, r, p)
			}
			if res.status == 0 {
				res.status = http.StatusOK // what net/http sends if a handler writes nothing
			}
			took := time.Since(start)
			s.metrics.observe(r.Pattern, res, took)
			if s.log.Enabled(r.Context(), slog.LevelInfo) {
				s.logRequest(res, r, took)
			}
		}()
		next.ServeHTTP(res, r)
	})
}

// logRequest logs a request, with its route instead of its path and query, because
// people paste tokens into both.
func (s *server) logRequest(w *response, r *http.Request, took time.Duration) {
	method := r.Method
	if !slices.Contains(methods, method) && method != http.MethodOptions {
		method = "other" // a client could put anything there
	}
	attrs := []slog.Attr{
		slog.String("id", w.id), slog.String("ip", s.clientIP(r).String()), slog.String("method", method),
		slog.String("route", routeOf(r.Pattern)), slog.Int("status", w.status), slog.Int64("user", w.user),
		slog.Int64("target", w.target), slog.String("login", w.login), slog.Int64("bytes", w.bytes),
		slog.Float64("took", float64(took.Microseconds())/1000), // in milliseconds
	}
	empty := func(a slog.Attr) bool { return a.Key == "target" && w.target == 0 || a.Key == "login" && w.login == "" }
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "request", slices.DeleteFunc(attrs, empty)...)
}

// routeOf returns a pattern without its method and "{$}".
func routeOf(pattern string) string {
	return strings.TrimSuffix(pattern[strings.IndexByte(pattern, ' ')+1:], "{$}")
}

func (s *server) panicked(w *response, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p) // net/http's way to abort a response
	}
	s.log.Error("panic", "id", w.id, "route", routeOf(r.Pattern), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status == 0 {
		s.fail(w, r, errInternal)
	}
}

// requestID returns the ID that a trusted proxy gave the request, or a new one.
func (s *server) requestID(r *http.Request) string {
	if given := r.Header.Get("X-Request-Id"); isPlain(given) && s.trusted(peer(r)) {
		return given
	}
	return rand.Text()
}
