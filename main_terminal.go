package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file writes to terminals, for people.

// isTerminal reports whether w is probably a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || discards(w) {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// discards reports whether w is the null device, to which many services write. Go also
// opens it in place of a standard output that is closed. On Windows, os.SameFile takes all
// devices and pipes for one file, so there the answer is no.
func discards(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || runtime.GOOS == "windows" {
		return false
	}
	info, err := f.Stat()
	null, nullErr := os.Stat(os.DevNull)
	return err == nil && nullErr == nil && os.SameFile(info, null)
}

// greet says what to do next: in words at a terminal, else in the log.
func (set *settings) greet(addr net.Addr, stdout io.Writer, log *slog.Logger) {
	url := set.url(addr)
	curl := "curl -d username=johndoe -d password=secret " + url + "/token"
	const random = "random: all tokens end with this process (set SECRET_KEY to keep them)"
	if !isTerminal(stdout) {
		log.Info("listening", "url", url, "page", url+"/docs")
		if set.Demo {
			log.Info("demo accounts", "user", "johndoe / secret", "admin", "admin / secret", "try", curl)
		}
		if set.randomKey {
			log.Info("signing key", "key", random)
		}
		return
	}
	fmt.Fprintf(stdout, "stdauth listens on %s\n\n  page      %s/docs\n", url, url)
	if set.Demo {
		fmt.Fprintf(stdout, "  accounts  johndoe / secret (user) and admin / secret (admin)\n")
	}
	if set.randomKey {
		fmt.Fprintf(stdout, "  key       %s\n", random)
	}
	if set.Demo {
		fmt.Fprintf(stdout, "\nTry it from another terminal:\n\n  %s\n", curl)
	}
	fmt.Fprintln(stdout)
}

func (set *settings) url(addr net.Addr) string {
	scheme := "http://"
	if set.TLS {
		scheme = "https://"
	}
	host, port, _ := net.SplitHostPort(addr.String())
	if net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	return scheme + net.JoinHostPort(host, port)
}

// newLog returns the log that the settings ask for.
func (set *settings) newLog(w io.Writer, getenv func(string) string) *slog.Logger {
	options := &slog.HandlerOptions{Level: set.logLevel}
	switch {
	case set.logFormat == "json":
		return slog.New(slog.NewJSONHandler(w, options))
	case isTerminal(w):
		return slog.New(&terminalHandler{w: w, level: set.logLevel, colour: getenv("NO_COLOR") == "" && runtime.GOOS != "windows"})
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// quoted quotes text that a terminal would not show as it is. Another program may have
// written it, such as an etcd member in an error.
func quoted(text string) string {
	if printable(text) {
		return text
	}
	return strconv.Quote(text)
}

// A terminalHandler writes short lines, such as
//
//	06:51:39 POST /token 200 128ms user 1
//	06:51:40 WARN the store is slow file=users.jsonl
type terminalHandler struct {
	mu     sync.Mutex
	w      io.Writer
	level  slog.Level
	colour bool
}

func (h *terminalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }
func (h *terminalHandler) WithAttrs([]slog.Attr) slog.Handler               { return h } // not used
func (h *terminalHandler) WithGroup(string) slog.Handler                    { return h } // not used

func (h *terminalHandler) Handle(_ context.Context, r slog.Record) error {
	attrs, rest := map[string]slog.Value{}, ""
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value
		text := a.Value.String()
		if a.Key != "stack" {
			text = quoted(text)
		}
		rest += fmt.Sprintf(" %s=%s", a.Key, text)
		return true
	})
	line := r.Message + rest
	switch {
	case r.Message == "request" && strings.HasPrefix(attrs["route"].String(), "/docs/") && h.level > slog.LevelDebug:
		return nil // the page's own files
	case r.Message == "request":
		line = h.request(attrs)
	case r.Level != slog.LevelInfo:
		line = r.Level.String() + " " + line
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintf(h.w, "%s %s\n", r.Time.Format(time.TimeOnly), line)
	return err
}

func (h *terminalHandler) request(attrs map[string]slog.Value) string {
	status := attrs["status"].String()
	if colours := map[byte]int{'2': 32, '3': 36, '4': 33, '5': 31}; h.colour {
		status = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[status[0]], status)
	}
	line := fmt.Sprintf("%s %s %s %.0fms", attrs["method"], cmp.Or(attrs["route"].String(), "-"), status, attrs["took"].Float64())
	for _, account := range []string{"user", "target"} {
		if id := attrs[account]; id.Kind() == slog.KindInt64 && id.Int64() != 0 {
			line = fmt.Sprintf("%s %s %v", line, account, id)
		}
	}
	return line
}
