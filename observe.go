package main

import (
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// This file is for whoever runs the server: what became of each request.

// observe is the outermost layer. It notes what became of each request, and
// turns a panic into an answer. What it logs is the route's pattern, not the
// path or the query: people paste tokens into both.
func (s *server) observe(next http.Handler) http.Handler {
	var count atomic.Uint64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := &observed{ResponseWriter: w, number: count.Add(1)}
		logged := s.log.Enabled(r.Context(), slog.LevelInfo)
		var start time.Time
		if logged {
			start = time.Now()
			s.identify(o, r)
		}
		defer func() {
			if p := recover(); p != nil {
				s.panicked(o, r, p)
			}
			s.stats.Add(statusClass[min(o.status/100, 5)], 1)
			if logged {
				s.logRequest(o, r, start)
			}
		}()
		next.ServeHTTP(o, r)
	})
}

var statusClass = [...]string{"answers_none", "answers_1xx", "answers_2xx", "answers_3xx", "answers_4xx", "answers_5xx"}

// logRequest writes a line of the access log. It goes past s.log, which would
// look for the line of code that logs, for nobody to see.
func (s *server) logRequest(o *observed, r *http.Request, start time.Time) {
	now := time.Now()
	line := slog.NewRecord(now, slog.LevelInfo, "request", 0)
	line.AddAttrs(slog.String("id", o.id), slog.String("ip", s.clientIP(r).String()),
		slog.String("method", knownMethod(r.Method)), slog.String("route", r.Pattern), slog.Int("status", o.status),
		slog.Int64("user", o.user), slog.Int64("bytes", o.bytes), slog.Duration("took", now.Sub(start)))
	s.log.Handler().Handle(r.Context(), line)
}

func (s *server) panicked(o *observed, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p) // net/http's own way to give up an answer
	}
	s.identify(o, r)
	s.log.Error("panic", "id", o.id, "route", r.Pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if o.status == 0 {
		s.fail(o, r, errInternal)
	}
}

// An observed answer remembers what became of it.
type observed struct {
	http.ResponseWriter
	number uint64 // of the request, since the start
	id     string // see identify
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

// identify gives an answer its X-Request-Id: the one that a trusted proxy has
// given the request, or one that is unique among those of this and all other
// runs. An answer bears it where the log has it: if requests are logged always,
// else if it is an error.
func (s *server) identify(o *observed, r *http.Request) {
	if o.id != "" {
		return
	}
	o.id = s.started + "-" + strconv.FormatUint(o.number, 10)
	if len(s.TrustedProxies) > 0 {
		given := r.Header.Get("X-Request-Id")
		if given != "" && s.trusted(peer(r)) && usernameProblem(given) == "" {
			o.id = given
		}
	}
	o.Header().Set("X-Request-Id", o.id)
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

// A lineWriter writes the lines of the log, those of a moment together: to hand
// the system each by itself costs more than all the rest of logging it. A process
// that is killed takes those of its last moment with it.
type lineWriter struct {
	w       io.Writer
	writing sync.Mutex // held while w writes; taken before mu
	spare   []byte     // the buffer that is not in use

	mu    sync.Mutex
	lines []byte
	soon  bool // somebody is about to flush
}

// maxLines is how many bytes may wait. A log that cannot be written fast enough
// slows the server down; it does not fill the memory, and no line is dropped.
const maxLines = 64 << 10

func (l *lineWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	l.lines = append(l.lines, line...)
	full, first := len(l.lines) >= maxLines, !l.soon
	l.soon = true
	l.mu.Unlock()
	if full {
		l.Flush()
	} else if first {
		go func() {
			runtime.Gosched() // whoever can run now may have a line too
			l.Flush()
		}()
	}
	return len(line), nil
}

// Flush returns when all that has been written so far is on its way. What
// cannot be written is lost: there is nowhere to say so.
func (l *lineWriter) Flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lines := l.lines
	l.lines, l.soon = l.spare[:0], false
	l.mu.Unlock()
	if len(lines) > 0 {
		l.w.Write(lines)
	}
	l.spare = lines
}
