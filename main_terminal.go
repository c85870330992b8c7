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
	info, _ := f.Stat()
	null, _ := os.Stat(os.DevNull)
	return os.SameFile(info, null) // false if either is nil
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
func (set *settings) newLog(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: set.logLevel}
	handler := slog.Handler(slog.NewTextHandler(w, options))
	if isTerminal(w) {
		handler = terminalHandler{handler, w}
	}
	if set.logFormat == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(handler)
}

// quoted quotes text that a terminal would not show as it is. Another program may have
// written it, such as an etcd member in an error.
func quoted(text string) string {
	if printable(text) {
		return text
	}
	return strconv.Quote(text)
}

// A terminalHandler writes short lines, each at once, such as
//
//	06:51:39 POST /token 200 128ms user 1
//	06:51:40 WARN the store is slow file=users.jsonl
type terminalHandler struct {
	slog.Handler // knows the level
	w            io.Writer
}

func (h terminalHandler) Handle(ctx context.Context, r slog.Record) error {
	request, hidden, line, whose := r.Message == "request", false, " "+r.Message, ""
	if r.Level != slog.LevelInfo {
		line = " " + r.Level.String() + line
	}
	if request {
		line = ""
	}
	r.Attrs(func(a slog.Attr) bool {
		switch value := a.Value.String(); {
		case !request && a.Key == "stack":
			line += " stack=" + value // in lines of its own
		case !request:
			line += " " + a.Key + "=" + quoted(value)
		case a.Key == "route":
			hidden = strings.HasPrefix(value, "/docs/") && !h.Enabled(ctx, slog.LevelDebug) // the page's own files
			line += " " + cmp.Or(value, "-")
		case a.Key == "took":
			line += fmt.Sprintf(" %.0fms", a.Value.Float64())
		case a.Key == "method", a.Key == "status":
			line += " " + value
		case (a.Key == "user" || a.Key == "target") && value != "0":
			whose += " " + a.Key + " " + value
		}
		return true
	})
	if hidden {
		return nil
	}
	_, err := fmt.Fprintln(h.w, r.Time.Format(time.TimeOnly)+line+whose)
	return err
}
