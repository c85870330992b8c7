// Command stdauth is an authentication server: accounts with passwords, JSON Web
// Tokens to prove who is calling, refresh tokens to stay logged in, and roles. It
// needs nothing but the standard library.
//
// README.md says how to use it and in which order to read it.
package main

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// Limits for slow clients.
	headerTimeout  = 10 * time.Second
	requestTimeout = 30 * time.Second // with the body
	writeTimeout   = time.Minute      // from the end of the headers: read, wait for hashes, write
	idleTimeout    = 2 * time.Minute  // between requests

	gracePeriod = 10 * time.Second // for requests under way after a signal to stop

	mostConnections = 1 << 14 // if the system allows more
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a closed standard error must not end the process
	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, end := context.WithCancel(context.Background())
	context.AfterFunc(signals, func() {
		stop() // a second signal ends the process at once
		end()
		// If nobody reads the log, writing to it can block the shutdown. What was
		// acknowledged is on the disk, so ending here is safe.
		time.Sleep(gracePeriod + 200*time.Millisecond) // and a moment to close the store
		os.Exit(0)
	})
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the whole program. It runs until ctx is done and returns the exit status: 2
// for an invalid setting, 1 for any other error.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	set, err := parseSettings(args, getenv)
	switch {
	case err == errHelp:
		fmt.Fprint(stdout, help)
		return 0
	case err == nil && set.version:
		version, commit := build()
		fmt.Fprintf(stdout, "stdauth %s, %s, commit %s\n", version, runtime.Version(), commit)
		return 0
	case err == nil && set.askReady:
		err = set.ask(ctx)
	case err == nil:
		err = set.start(ctx, stdout, set.newLog(stderr, getenv))
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(stderr, "stdauth:", quoted(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if _, ok := errors.AsType[settingError](err); ok {
		return 2
	}
	return 1
}

// start runs one of the offline commands, or serve.
func (set *settings) start(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	if set.TLS {
		var err error
		if set.certificate, err = loadCertificate(set.certFile, set.keyFile, log); err != nil {
			return set.bad("-tls-cert, -tls-key", err)
		}
	}
	store, err := set.openStore(ctx, log)
	if err != nil {
		return set.bad("-store", err)
	}
	switch {
	case set.importFile != "":
		err = set.importAccounts(ctx, store, stdout, log)
	case set.resetName != "":
		err = set.resetPassword(ctx, store, stdout)
	default:
		err = set.serve(ctx, store, stdout, log)
	}
	return errors.Join(err, store.Close())
}

func (set *settings) openStore(ctx context.Context, log *slog.Logger) (Store, error) {
	if set.store == memory {
		return NewMemoryStore(set.Sessions), nil
	}
	if strings.Contains(set.store, "://") { // an address, not a path
		return OpenEtcdStore(ctx, set.store, set.etcdUsername, set.etcdPassword, set.Sessions, log)
	}
	if set.resetName != "" { // a new file would have no accounts
		if _, err := os.Stat(set.store); err != nil {
			return nil, err
		}
	}
	return OpenFileStore(ctx, set.store, set.Sessions, log)
}

// serve handles requests until ctx is done.
func (set *settings) serve(ctx context.Context, store Store, stdout io.Writer, log *slog.Logger) error {
	s := newServer(set.Config, store, NewTokens(set.Issuer, set.secret, set.previous), log)
	server := set.httpServer(s.handler(), log)
	api, err := set.listen("-addr", set.addr)
	if err != nil {
		return err
	}
	defer api.Close()
	failed := make(chan error, 2)
	if set.debugAddr != "" {
		listener, err := set.listen("-debug-addr", set.debugAddr)
		if err != nil {
			return err
		}
		debug := &http.Server{Handler: debugHandler(s.metrics), ReadHeaderTimeout: headerTimeout}
		go func() { failed <- debug.Serve(listener) }()
		defer debug.Close() // without waiting for profiles
		log.Info("debugging", "metrics", "http://"+listener.Addr().String()+"/metrics")
	}
	if err := set.createAccounts(ctx, store, stdout, log); err != nil {
		return err
	}
	for _, text := range set.warnings {
		log.Warn(text)
	}
	go func() {
		if set.TLS {
			failed <- server.ServeTLS(api, "", "")
		} else {
			failed <- server.Serve(api)
		}
	}()
	set.greet(api.Addr(), stdout, log)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	log.Info("stopping")
	shutDown(server)
	return err
}

// shutDown stops accepting connections and lets requests under way finish.
func shutDown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), gracePeriod)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

func newServer(config Config, store Store, tokens *Tokens, log *slog.Logger) *server {
	s := &server{Config: config, store: store, tokens: tokens, passwords: NewPasswords(config.Iterations), log: log}
	s.metrics = newMetrics(s.routes(), s.gauges)
	return s
}

func (set *settings) httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10, // four times the longest token
		ErrorLog:          newErrorLog(log),

		DisableGeneralOptionsHandler: true, // "OPTIONS *" passes the middleware too
	}
	if set.TLS {
		server.TLSConfig = set.certificate.config()
	}
	return server
}

func (set *settings) listen(name, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	const wsaEADDRINUSE = syscall.Errno(10048) // its number on Windows
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaEADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is in use, perhaps by another stdauth or a development server; choose another, such as %s 127.0.0.1:8001", name, addr, name)
	}
	return nil, set.bad(name, err)
}

// ask asks the server at -addr whether it is ready, for -check.
func (set *settings) ask(ctx context.Context) error {
	scheme := "http"
	if set.certFile != "" {
		scheme = "https"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost/readyz", nil)
	if err != nil {
		return err // unreachable: the URL is constant
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, set.addr)
	}
	resp, err := (&http.Transport{DialContext: dial, TLSClientConfig: anyCertificate}).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("-check: %w", err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("-check: %s: %s %s", set.addr, resp.Status, body)
	}
	return nil
}

// debugHandler serves metrics and profiles to users of this machine. It accepts only
// names of this machine as the host, which keeps out a web page that resolves its own
// name to 127.0.0.1 (DNS rebinding).
func debugHandler(m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.write(w)
	})
	mux.Handle("GET /debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			http.Error(w, "ask for localhost", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
