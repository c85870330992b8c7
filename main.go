// Command stdauth is an authentication server: accounts with passwords, JSON
// Web Tokens to prove who is calling, refresh tokens to stay logged in, and
// roles. It needs nothing but the standard library.
//
// README.md says how to use it, and in which order to read it.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the whole program. It ends when ctx does, and returns the exit status:
// 2 for a setting that cannot be, 1 for anything else that went wrong.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	set, err := parseSettings(args, getenv)
	if err == errHelp {
		set.printHelp(stdout)
		return 0
	}
	if err == nil {
		err = set.start(ctx, stdout, stderr)
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(stderr, "stdauth:", strings.ReplaceAll(err.Error(), "\n", "; "))
	if _, ok := errors.AsType[*settingError](err); ok {
		return 2
	}
	return 1
}

// start does what the settings say: one of the offline commands, or serve.
func (set *settings) start(ctx context.Context, stdout, stderr io.Writer) error {
	log := slog.New(set.logHandler(stderr))
	var source *MemoryStore
	if set.importFile != "" {
		var err error
		if source, err = ReadFileStore(ctx, set.importFile, log); err != nil {
			return badSetting("-import", err)
		}
	}
	store, err := set.openStore(ctx, log)
	if err != nil {
		return badSetting("-store", err)
	}
	switch {
	case source != nil:
		err = importAccounts(ctx, store, source, stdout)
	case set.resetName != "":
		err = resetPassword(ctx, store, set.resetName, set.newPassword, stdout)
	default:
		err = set.serve(ctx, store, stdout, log)
	}
	return errors.Join(err, store.Close())
}

func (set *settings) openStore(ctx context.Context, log *slog.Logger) (Store, error) {
	if set.store == memory {
		return NewMemoryStore(set.Sessions), nil
	}
	if strings.Contains(set.store, "://") { // no path has that by chance
		return OpenEtcdStore(ctx, set.store, set.etcdUsername, set.etcdPassword, set.Sessions, log)
	}
	if set.resetName != "" { // a file that is made now holds nobody
		if _, err := os.Stat(set.store); err != nil {
			return nil, err
		}
	}
	return OpenFileStore(ctx, set.store, set.Sessions, log)
}

func importAccounts(ctx context.Context, store Store, source *MemoryStore, stdout io.Writer) error {
	users, err := source.Users(ctx, 0, math.MaxInt)
	if err != nil {
		return err
	}
	if err := store.Import(ctx, users, source.lastID); err != nil {
		return badSetting("-import", err)
	}
	fmt.Fprintf(stdout, "imported %d accounts\n", len(users))
	return nil
}

func resetPassword(ctx context.Context, store Store, name, password string, stdout io.Writer) error {
	u, err := store.UserByName(ctx, name)
	if err != nil {
		return badSetting("-reset-password", fmt.Errorf("%s: %w", name, err))
	}
	hash, shown := hashGiven(password)
	_, err = store.UpdateUser(ctx, Caller{}, u.ID, func(u *User) error {
		u.SetPassword(hash)
		u.SetDisabled(false)
		return nil
	})
	if err == nil {
		fmt.Fprintf(stdout, "set the password of %s%s; its sessions have ended\n", u.Username, shown)
	}
	return err
}

// hashGiven hashes the password of an operator's choice, or if that is empty,
// one that is made up and therefore to be shown.
func hashGiven(password string) (hash, shown string) {
	if password == "" {
		password = rand.Text()
		shown = " to " + password + ", shown only now"
	}
	return Hasher{Iterations: DefaultIterations}.Hash(password), shown
}

// serve answers requests until ctx ends.
func (set *settings) serve(ctx context.Context, store Store, stdout io.Writer, log *slog.Logger) error {
	if set.Demo {
		if err := createDemo(ctx, store); err != nil {
			return err
		}
	}
	if set.adminName != "" {
		if err := createAdmin(ctx, store, set.adminName, set.adminPassword, stdout, log); err != nil {
			return err
		}
	}
	s := newServer(set.Config, store, NewTokens(set.Issuer, set.secret, set.previous), log)
	api, err := listen("-addr", set.addr)
	if err != nil {
		return err
	}
	server, debug := set.httpServer(s.handler(), log), &http.Server{Handler: debugHandler(s.stats), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	if set.debugAddr != "" {
		listener, err := listen("-debug-addr", set.debugAddr)
		if err != nil {
			return errors.Join(err, api.Close())
		}
		go func() { failed <- debug.Serve(listener) }()
		log.Info("debugging", "url", "http://"+listener.Addr().String()+"/debug/vars")
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
		log.Info("stopping")
	}
	debug.Close() // a profile may take as long as its reader likes
	shutDown(server)
	return err
}

// shutDown stops accepting, and gives the requests under way 10 s.
func shutDown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

func newServer(config Config, store Store, tokens *Tokens, log *slog.Logger) *server {
	return &server{
		Config: config, store: store, tokens: tokens, passwords: NewPasswords(config.Iterations),
		log: log, stats: new(stats),
	}
}

// httpServer bounds what a slow client can hold on to.
func (set *settings) httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, Certificates: set.certificates},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute, // from the end of the headers: reading, hashing in turn, writing
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10, // four times the longest token
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	const wsaEADDRINUSE = syscall.Errno(10048) // what Windows calls it
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaEADDRINUSE) {
		return nil, err
	}
	return nil, badSetting(flag, err)
}

// demoUsers are the article's. Their hashes are of "secret", which is too short
// for anybody else; computing them would take longer than all the rest of the
// start.
var demoUsers = []User{
	{Username: "johndoe", FullName: "John Doe", Email: "johndoe@example.com", Role: RoleUser,
		PasswordHash: "$pbkdf2-sha256$i=600000,l=32$wCTYlC4myfQbaqlDOdUSrw$7ElW5ggu6RMgfHStGE2PAsH0YYTxThsZ8MMOwvxoqnk"},
	{Username: "admin", FullName: "Admin User", Email: "admin@example.com", Role: RoleAdmin,
		PasswordHash: "$pbkdf2-sha256$i=600000,l=32$QMED7Cw3tivP4CeWpYQDFA$UyPh6yQ1oNfPqQNoeXG4iXWahuuOcyno5UrzeYqHu2s"},
}

func createDemo(ctx context.Context, store Store) error {
	for _, u := range demoUsers {
		u.CreatedAt = time.Now().UTC().Truncate(time.Second)
		if _, err := store.CreateUser(ctx, Caller{}, u); err != nil {
			return err
		}
	}
	return nil
}

// createAdmin makes an admin of that name, unless the name is taken.
func createAdmin(ctx context.Context, store Store, name, password string, stdout io.Writer, log *slog.Logger) error {
	if u, err := store.UserByName(ctx, name); !errors.Is(err, ErrNotFound) {
		if err == nil && u.Role != RoleAdmin {
			log.Warn("the account that -admin names is there already, and not an admin", "account", u.Username)
		}
		return err
	}
	hash, shown := hashGiven(password)
	u := User{Username: name, Role: RoleAdmin, CreatedAt: time.Now().UTC().Truncate(time.Second), PasswordHash: hash}
	_, err := store.CreateUser(ctx, Caller{}, u)
	if errors.Is(err, ErrUsernameTaken) {
		return nil // by another copy of the server, just now
	}
	if err == nil {
		fmt.Fprintf(stdout, "created the admin %s and set its password%s\n", name, shown)
	}
	return err
}

// greet says how to go on: to a person at a terminal in words, else in the log.
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
		fmt.Fprintf(stdout, "\nTry it from another terminal:\n\n  %s\n\n", curl)
	}
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

// isTerminal reports whether somebody is likely to read w. The null device is a
// character device like a terminal, and what a service has for its output.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	null, nullErr := os.Stat(os.DevNull)
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && (nullErr != nil || !os.SameFile(info, null))
}

// debugHandler shows counters and profiles. It is for the machine's own users,
// so it answers only to names of this machine: a page in their browser that
// resolves its own name to 127.0.0.1 is not one.
func debugHandler(stats *stats) http.Handler {
	stats.Set("memstats", expvar.Get("memstats"))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/vars", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, stats.String())
	})
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
