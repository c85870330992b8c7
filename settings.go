package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// settings are what flags and environment say. The secrets are in the
// environment only: flags are seen by every user of the machine.
type settings struct {
	Config
	fs *flag.FlagSet

	addr, store, debugAddr string
	certFile, keyFile      string
	certificates           []tls.Certificate

	secret, previous string
	randomKey        bool

	etcdUsername, etcdPassword string

	adminName, adminPassword string
	resetName, newPassword   string
	importFile               string

	logFormat string
	logLevel  slog.Level
}

// memory is the -store that dies with the process.
const memory = "memory"

var errHelp = errors.New("help wanted")

// A settingError names the flag or variable that is wrong.
type settingError struct {
	name string
	err  error
}

func (e *settingError) Error() string { return e.name + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

func badSetting(name string, err error) error {
	return &settingError{name, err}
}

// parseSettings reads the flags, then the environment for the flags that were
// not given.
func parseSettings(args []string, getenv func(string) string) (*settings, error) {
	set := &settings{Config: Config{Iterations: DefaultIterations}}
	set.define()
	if err := set.fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return set, errHelp
	} else if err != nil {
		return set, badSetting("flags", err)
	}
	if set.fs.NArg() > 0 {
		return set, badSetting("flags", fmt.Errorf("%q is not a flag", set.fs.Arg(0)))
	}
	given := map[string]bool{}
	set.fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var err error
	set.fs.VisitAll(func(f *flag.Flag) {
		value := getenv(variable(f.Name))
		if value == "" || given[f.Name] || err != nil {
			return
		}
		given[f.Name] = true
		if e := set.fs.Set(f.Name, value); e != nil {
			err = badSetting(variable(f.Name), fmt.Errorf("%q: %w", value, e))
		}
	})
	if err != nil {
		return set, err
	}
	return set, set.complete(given, getenv)
}

// variable is the environment's name for a flag.
func variable(flag string) string {
	return "STDAUTH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// define is the table of flags. README's is checked against it.
func (set *settings) define() {
	fs := flag.NewFlagSet("stdauth", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are told once, by run
	set.fs = fs

	set.addr, set.store, set.logFormat = "127.0.0.1:8000", memory, "text"
	fs.Func("addr", "where to listen, `host:port` (default 127.0.0.1:8000)", address(&set.addr))
	fs.Func("store", "memory; or the `path` of a JSON Lines file, made if absent; or etcd://host:port,host:port,... (default memory)", notEmpty(&set.store))
	fs.BoolFunc("demo", "load the article's demo accounts (default: only in memory on a loopback address)", func(s string) (err error) {
		set.Demo, err = parseBool(s)
		return err
	})
	fs.Func("admin", "create `NAME` as an admin if absent, password from ADMIN_PASSWORD, else made up and printed", accountName(&set.adminName))
	fs.Func("reset-password", "offline: set `NAME`'s password from NEW_PASSWORD, else made up and printed; end its sessions, enable it, exit", notEmpty(&set.resetName))
	fs.Func("import", "offline: copy the accounts of a JSON Lines `FILE` into the store, which must be empty, and exit", notEmpty(&set.importFile))
	fs.Func("registration", "`open`, or closed: only an admin may create accounts (default open)", func(s string) error {
		set.Closed = s == "closed"
		return oneOf(s, "open", "closed")
	})
	set.AccessTTL, set.Sessions = 30*time.Minute, Lifetimes{Idle: 30 * 24 * time.Hour, Max: 90 * 24 * time.Hour}
	fs.Func("access-ttl", "`life` of an access token (default 30m)", lifetime(&set.AccessTTL))
	fs.Func("refresh-ttl", "a session unused for this `time` ends (default 720h)", lifetime(&set.Sessions.Idle))
	fs.Func("session-ttl", "a session of this `age` ends, however busy (default 2160h)", lifetime(&set.Sessions.Max))
	fs.StringVar(&set.Issuer, "issuer", "stdauth", "iss and aud of the `tokens`")
	fs.Func("cors-origin", "an `origin` that browsers may call from; port * for any; repeatable (default: any port of this machine with the demo accounts, else none)", set.addOrigin)
	fs.Func("trusted-proxy", "a `CIDR` whose X-Forwarded-For is believed; repeatable", set.addProxy)
	fs.StringVar(&set.certFile, "tls-cert", "", "serve HTTPS with the certificate in this PEM `file`")
	fs.StringVar(&set.keyFile, "tls-key", "", "and the key in this PEM `file`")
	fs.Func("debug-addr", "a second listener, loopback only, with expvar and pprof, `host:port`", address(&set.debugAddr))
	fs.Func("log-format", "`text` or json (default text)", func(s string) error {
		set.logFormat = s
		return oneOf(s, "text", "json")
	})
	fs.Func("log-level", "debug, `info`, warn or error (default info)", func(s string) error {
		set.logLevel.UnmarshalText([]byte(s)) // which takes more, such as INFO+2
		return oneOf(s, "debug", "info", "warn", "error")
	})
}

// complete reads the secrets, and checks what depends on several settings.
func (set *settings) complete(given map[string]bool, getenv func(string) string) error {
	err := errors.Join(
		secretSetting(&set.secret, "SECRET_KEY", getenv, checkKey),
		secretSetting(&set.previous, "SECRET_KEY_PREVIOUS", getenv, checkKey),
		secretSetting(&set.adminPassword, "ADMIN_PASSWORD", getenv, func(s string) error { return checkPassword(s, set.adminName) }),
		secretSetting(&set.newPassword, "NEW_PASSWORD", getenv, func(s string) error { return checkPassword(s, set.resetName) }),
	)
	if err != nil {
		return err
	}
	set.etcdUsername, set.etcdPassword = getenv("STDAUTH_ETCD_USERNAME"), getenv("STDAUTH_ETCD_PASSWORD")
	if set.etcdUsername == "" && set.etcdPassword != "" {
		return badSetting("STDAUTH_ETCD_USERNAME", errors.New("is needed with STDAUTH_ETCD_PASSWORD"))
	}
	if err := set.completeOffline(); err != nil {
		return err
	}
	if err := set.completeKey(); err != nil {
		return err
	}
	local := set.store == memory && isLoopback(set.addr)
	if !given["demo"] {
		set.Demo = local && !set.offline()
	}
	if set.Demo && !local {
		return badSetting("-demo", errors.New("everybody knows the demo passwords, so they are only for -store memory on a loopback -addr"))
	}
	if set.Demo && !given["cors-origin"] {
		set.CORSOrigins = []string{"http://localhost:*", "http://127.0.0.1:*"}
	}
	if err := checkIssuer(set.Issuer); err != nil {
		return badSetting("-issuer", err)
	}
	if set.debugAddr != "" && !isLoopback(set.debugAddr) {
		return badSetting("-debug-addr", errors.New("must be a loopback address: what it shows is not for others"))
	}
	if (set.certFile == "") != (set.keyFile == "") {
		return badSetting("-tls-cert and -tls-key", errors.New("must be given together"))
	}
	if set.certFile != "" {
		certificate, err := tls.LoadX509KeyPair(set.certFile, set.keyFile)
		if err != nil {
			return badSetting("-tls-cert, -tls-key", err)
		}
		set.certificates, set.TLS = []tls.Certificate{certificate}, true
	}
	return nil
}

func (set *settings) offline() bool { return set.resetName != "" || set.importFile != "" }

// completeOffline checks the commands that need no key: they issue no tokens.
func (set *settings) completeOffline() error {
	switch {
	case set.resetName != "" && set.importFile != "":
		return badSetting("-import", errors.New("cannot be given together with -reset-password"))
	case set.resetName != "" && set.store == memory:
		return badSetting("-reset-password", errors.New("needs a -store that outlives the process"))
	case set.importFile != "" && set.store == memory:
		return badSetting("-import", errors.New("needs a -store that outlives the process"))
	}
	return nil
}

func (set *settings) completeKey() error {
	switch {
	case set.secret != "" || set.offline():
		return nil
	case set.previous != "":
		return badSetting("SECRET_KEY_PREVIOUS", errors.New("is of no use without SECRET_KEY"))
	case set.store != memory:
		return badSetting("SECRET_KEY", errors.New("is needed with a -store that outlives the process"+makeKey))
	}
	set.secret, set.randomKey = rand.Text()+rand.Text(), true
	return nil
}

const makeKey = "; make one with: openssl rand -hex 32"

func checkKey(key string) error {
	if err := checkSecret(key); err != nil {
		return errors.New(err.Error() + makeKey)
	}
	return nil
}

// secretSetting reads a secret, which may be absent.
func secretSetting(to *string, name string, getenv func(string) string, rule func(string) error) error {
	*to = getenv(name)
	if *to == "" {
		return nil
	}
	if err := rule(*to); err != nil {
		return badSetting(name, err)
	}
	return nil
}

// The values of the flags.

func notEmpty(to *string) func(string) error {
	return func(s string) error {
		*to = s
		if s == "" {
			return errors.New("must not be empty")
		}
		return nil
	}
}

func oneOf(s string, allowed ...string) error {
	if slices.Contains(allowed, s) {
		return nil
	}
	return errors.New("must be " + strings.Join(allowed, " or "))
}

func parseBool(s string) (bool, error) {
	return s == "true" || s == "1", oneOf(s, "true", "false", "1", "0")
}

func address(to *string) func(string) error {
	return func(s string) error {
		*to = s
		_, port, err := net.SplitHostPort(s)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		return err
	}
}

func accountName(to *string) func(string) error {
	return func(s string) error {
		*to = s
		return checkUsername(s)
	}
}

func lifetime(to *time.Duration) func(string) error {
	return func(s string) (err error) {
		if *to, err = time.ParseDuration(s); err == nil && (*to < time.Second || *to > 100*365*24*time.Hour) {
			err = errors.New("must be from 1s to 876000h")
		}
		return err
	}
}

func checkIssuer(issuer string) error {
	if issuer == "" || len(issuer) > 200 || !printable(issuer) {
		return errors.New("must be 1 to 200 bytes without control characters")
	}
	return nil
}

func (set *settings) addOrigin(list string) error {
	for origin := range strings.SplitSeq(list, ",") {
		base, _ := strings.CutSuffix(strings.TrimSpace(origin), ":*")
		u, err := url.Parse(base)
		if err == nil && u.Port() != "" {
			_, err = net.LookupPort("tcp", u.Port())
		}
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != base || strings.Contains(u.Host, "*") {
			return errors.New("must be an origin, such as https://app.example.com or http://localhost:*")
		}
		set.CORSOrigins = append(set.CORSOrigins, strings.ToLower(strings.TrimSpace(origin)))
	}
	return nil
}

func (set *settings) addProxy(list string) error {
	for cidr := range strings.SplitSeq(list, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(cidr))
		if err != nil {
			return errors.New("must be a CIDR, such as 10.0.0.0/8 or ::1/128")
		}
		set.TrustedProxies = append(set.TrustedProxies, prefix.Masked())
	}
	return nil
}

// isLoopback reports whether an address, with or without a port, is one that
// only this machine can reach.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (set *settings) logHandler(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: set.logLevel}
	if set.logFormat == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func (set *settings) printHelp(w io.Writer) {
	fmt.Fprint(w, "stdauth is an authentication server. Every flag can also be given in the\nenvironment: -access-ttl as STDAUTH_ACCESS_TTL. A flag wins.\n\n")
	set.fs.SetOutput(w)
	set.fs.PrintDefaults()
	fmt.Fprint(w, "\nSecrets are read from the environment only: SECRET_KEY (at least 32 bytes),\nSECRET_KEY_PREVIOUS (still verified, after a change), ADMIN_PASSWORD, NEW_PASSWORD,\nSTDAUTH_ETCD_USERNAME and STDAUTH_ETCD_PASSWORD.\n")
}
