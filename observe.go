package main

import (
	"crypto/rand"
	"expvar"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"time"
)

// This file is for whoever runs the server: what became of each request.

// observe is the outermost layer. It gives each request an id, notes what became
// of it, and turns a panic into a 500. What it logs is the route's pattern, not the
// path or the query: people paste tokens into both.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		o := &observed{ResponseWriter: w, id: s.requestID(r)}
		w.Header().Set("X-Request-Id", o.id)
		defer func() {
			if p := recover(); p != nil {
				s.panicked(o, r, p)
			}
			s.stats.Add(statusClass[min(o.status/100, 5)], 1)
			s.log.Info("request", "id", o.id, "ip", s.clientIP(r).String(), "method", knownMethod(r.Method), "route", r.Pattern,
				"status", o.status, "user", o.user, "bytes", o.bytes, "took", time.Since(start))
		}()
		next.ServeHTTP(o, r)
	})
}

var statusClass = [...]string{"answers_none", "answers_1xx", "answers_2xx", "answers_3xx", "answers_4xx", "answers_5xx"}

func (s *server) panicked(o *observed, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p) // net/http's own way to give up an answer
	}
	s.log.Error("panic", "id", o.id, "route", r.Pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if o.status == 0 {
		s.fail(o, r, errInternal)
	}
}

// An observed answer remembers what became of it.
type observed struct {
	http.ResponseWriter
	id     string // see requestID
	status int
	bytes  int64
	user   int64
}

func (o *observed) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the writer below.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// requestID is what a trusted proxy has given the request, or one of its own.
func (s *server) requestID(r *http.Request) string {
	if len(s.TrustedProxies) > 0 {
		given := r.Header.Get("X-Request-Id")
		if given != "" && s.trusted(peer(r)) && checkUsername(given) == nil {
			return given
		}
	}
	return rand.Text()
}

// knownMethod keeps a made-up method, which may hold anything, out of the log.
func knownMethod(method string) string {
	if slices.Contains(methods, method) || method == http.MethodOptions {
		return method
	}
	return "other"
}

// stats are counters for an operator, on the debug listener.
type stats struct{ expvar.Map }
