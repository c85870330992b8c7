package main

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"
)

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
