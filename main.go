// Command stdauth is an authentication server: accounts with passwords, JSON Web
// Tokens to prove who is calling, refresh tokens to stay logged in, and roles. It
// needs nothing but the standard library.
//
// README.md says how to use it and in which order to read it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" // adds to http.DefaultServeMux, as does expvar
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
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

	maxProfile = time.Minute // of the debug listener

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
		if set, _ := parseFlags(os.Args[1:], os.Getenv); !set.serves() {
			os.Exit(1)
		}
		os.Exit(0)
	})
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the whole program. It runs until ctx is done and returns the exit status: 2
// for a setting that is invalid or does not work, 1 for any other error.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	set, err := parseSettings(args, getenv)
	if err == nil {
		err = set.start(ctx, stdout, set.newLog(stderr))
	}
	stopped := ctx.Err() != nil && errors.Is(err, context.Canceled)
	switch {
	case err == errHelp:
		fmt.Fprint(stdout, help)
		return 0
	case err == nil, stopped && set.serves():
		return 0
	case stopped:
		err = errors.New("interrupted; " + cmp.Or(set.leftBehind, "nothing was changed"))
	}
	fmt.Fprintln(stderr, "stdauth:", quoted(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if _, ok := errors.AsType[settingError](err); ok {
		return 2
	}
	return 1
}

// serves reports whether a signal is what should end the process.
func (set *settings) serves() bool { return !set.offline() && !set.askReady }

// start does what the settings ask for.
func (set *settings) start(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	switch {
	case set.version:
		version, commit := build()
		fmt.Fprintf(stdout, "stdauth %s, %s, commit %s\n", version, runtime.Version(), commit)
		return nil
	case set.askReady:
		return set.ask(ctx)
	}
	if set.TLS && set.offline() { // a server reads them when it listens
		if err := checkKeyPair(set.certFile, set.keyFile); err != nil {
			return set.bad("-tls-cert, -tls-key", err)
		}
	}
	switch {
	case set.importFile != "":
		return set.withStore(ctx, log, func(store Store) error { return set.importAccounts(ctx, store, stdout) })
	case set.resetName != "":
		return set.withStore(ctx, log, func(store Store) error { return set.resetPassword(ctx, store, stdout) })
	}
	return set.serve(ctx, stdout, log)
}

// withStore opens the store for a call of use. If that fails, it leaves no new file.
func (set *settings) withStore(ctx context.Context, log *slog.Logger, use func(Store) error) error {
	_, absent := os.Stat(set.store)
	var store Store
	var err error
	switch {
	case set.store == memory:
		store = NewMemoryStore(set.SessionLife)
	case strings.Contains(set.store, "://"): // an address, not a path
		store, err = OpenEtcdStore(ctx, set.store, set.etcdUsername, set.etcdPassword, set.SessionLife, log)
	default:
		store, err = OpenFileStore(ctx, set.store, set.SessionLife, log)
	}
	if err != nil {
		return cmp.Or(ctx.Err(), set.bad("-store", err))
	}
	if err = use(store); err != nil {
		err = cmp.Or(ctx.Err(), err)
	}
	if info, _ := os.Stat(set.store); err != nil && errors.Is(absent, fs.ErrNotExist) && info != nil && info.Size() == int64(len(fileHeader)) {
		os.Remove(set.store) // while it is locked
	}
	return errors.Join(err, store.Close())
}

// serve listens, opens the store and handles requests until ctx is done. It listens first:
// a large store takes a while, and meanwhile /healthz says that the process is alive.
func (set *settings) serve(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	listener, profiles, err := set.listenAll(log)
	if err != nil {
		return err
	}
	defer listener.Close()
	addr := listener.Addr()
	if set.PublicURL == "" && isLoopback(addr.String()) {
		set.PublicURL = set.url(addr)
	}
	s := newServer(set.Config, nil, NewTokens(set.Issuer, set.secret, set.previous), log)
	s.mailer = startMail(set.Mail, stdout, log, s.metrics.count)
	s.opening.Store(true)
	server := newHTTPServer(s.handler(), log)
	server.ConnState = newConnections(maxConnections(), s.trusted).note
	serving, fail := context.WithCancelCause(ctx)
	go func() { fail(server.Serve(listener)) }()
	defer shutDown(server, s.mailer) // of a start that fails
	if profiles != nil {
		debug := &http.Server{ReadHeaderTimeout: headerTimeout, Handler: debugHandler(s.metrics)}
		defer debug.Close() // without waiting for profiles
		go func() { fail(debug.Serve(profiles)) }()
		log.Info("debugging", "metrics", "http://"+profiles.Addr().String()+"/metrics")
	}
	return set.withStore(ctx, log, func(store Store) error {
		if err := set.createAccounts(ctx, store, stdout, log); err != nil {
			return err
		}
		s.store = store
		s.opening.Store(false)
		var reading sync.WaitGroup
		reading.Go(func() { s.meetAccounts(serving) })
		set.warn(log)
		set.greet(addr, stdout, log)
		<-serving.Done()
		log.Info("stopping")
		shutDown(server, s.mailer)
		reading.Wait()
		if ctx.Err() != nil {
			return nil
		}
		return context.Cause(serving)
	})
}

// shutDown stops accepting connections and lets requests and mails under way finish.
func shutDown(server *http.Server, mailer *Mailer) {
	ctx, cancel := context.WithTimeout(context.Background(), gracePeriod)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
	mailer.Stop(ctx)
}

// meetAccounts looks at each account once, in the background: on etcd this may take a
// while. It shows the hashes to Passwords, and warns if there is no active admin.
func (s *server) meetAccounts(ctx context.Context) {
	const size = 1000 // of a page
	admin := false
	for after := int64(0); after == 0 || ctx.Err() == nil; {
		page, err := s.store.Users(ctx, UserFilter{}, after, size)
		for _, u := range page {
			s.passwords.Meet(u.PasswordHash)
			admin = admin || u.ActiveAdmin()
			after = u.ID
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		case len(page) < size:
			if !admin {
				s.log.Warn("there is no active admin; -admin NAME creates one, -reset-password NAME enables one")
			}
			return
		}
	}
}

func newServer(config Config, store Store, tokens *Tokens, log *slog.Logger) *server {
	s := &server{Config: config, store: store, tokens: tokens, passwords: NewPasswords(config.Iterations), shares: newShares(), log: log}
	s.metrics = newMetrics(s.routes())
	for _, p := range problems {
		s.metrics.samples.Add(errorSample(p.code), 0)
	}
	s.metrics.gauge("stdauth_mail_queue_length", func() any { return s.mailer.Waiting() })
	s.metrics.gauge("stdauth_hash_queue_length", func() any { return s.passwords.queue.waiting() })
	for _, name := range []string{"stdauth_store_file_bytes", "stdauth_store_compactions_total", "stdauth_etcd_failovers_total"} {
		s.metrics.gauge(name, func() any {
			if !s.opening.Load() {
				if store, ok := s.store.(interface{ Metrics() map[string]float64 }); ok {
					return store.Metrics()[name]
				}
			}
			return 0
		})
	}
	return s
}

func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    8 << 10, // twice the longest token
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxBody, MaxReceiveBufferPerStream: maxBody},
		ErrorLog:          newErrorLog(log),

		DisableGeneralOptionsHandler: true, // "OPTIONS *" passes the middleware too
	}
}

// maxConnections returns how many connections the server may have: three quarters of the
// descriptors, which leaves some for the store and for proxies of the operator.
func maxConnections() int { return int(min(descriptors()/4*3, mostConnections)) }

// listenAll returns the listener of the API and that of -debug-addr, which may be nil.
func (set *settings) listenAll(log *slog.Logger) (api, profiles net.Listener, err error) {
	if api, err = set.listen("-addr", set.addr); err != nil {
		return nil, nil, err
	}
	if set.TLS {
		secure, err := listenTLS(api, set.certFile, set.keyFile, log)
		if err != nil {
			api.Close()
			return nil, nil, set.bad("-tls-cert, -tls-key", err)
		}
		api = secure
	}
	if set.debugAddr != "" {
		profiles, err = set.listen("-debug-addr", set.debugAddr)
	}
	if err != nil {
		api.Close()
	}
	return api, profiles, err
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
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/readyz", nil) // which is valid
	if set.certFile != "" {
		r.URL.Scheme = "https"
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, set.addr)
	}
	resp, err := (&http.Transport{DialContext: dial, TLSClientConfig: anyCertificate}).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("-check: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	return errUnless(resp.StatusCode == http.StatusOK, fmt.Sprintf("-check: %s: %s %s", set.addr, resp.Status, body))
}

// debugHandler serves metrics and profiles to users of this machine. It accepts only
// names of this machine as the host, which keeps out a web page that resolves its own
// name to 127.0.0.1 (DNS rebinding), and no requests that other pages make a browser send.
func debugHandler(m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.write(w)
	})
	mux.Handle("/debug/", http.DefaultServeMux) // nothing else serves it
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Check accepts every GET, so it is asked about a POST.
		post := http.Request{Method: http.MethodPost, URL: r.URL, Host: r.Host, Header: r.Header}
		seconds, _ := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
		switch {
		case !isLoopback(r.Host):
			http.Error(w, "ask for localhost", http.StatusMisdirectedRequest)
		case protection.Check(&post) != nil:
			http.Error(w, "cross-origin request", http.StatusForbidden)
		case !(seconds <= maxProfile.Seconds()): // which may be NaN
			http.Error(w, fmt.Sprintf("a profile may take %v", maxProfile), http.StatusBadRequest)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}
