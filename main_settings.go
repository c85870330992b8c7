package main

import (
	"crypto/rand"
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

// settings are what the flags and the environment say. Secrets are in the environment
// only: every user of a machine can see the flags of a process.
type settings struct {
	Config
	fs    *flag.FlagSet
	table []setting

	addr, store, debugAddr string
	certFile, keyFile      string
	certificate            *certificate // of these files, once start has read them

	secret, previous string
	randomKey        bool

	etcdUsername, etcdPassword string

	adminName, adminPassword string
	resetName, newPassword   string
	importFile               string

	logFormat string
	logLevel  slog.Level
	version   bool

	warnings []string // about settings that are valid, but hardly meant
}

// A setting is a flag, and the variable of the same name.
type setting struct {
	group, name, value string // value is what stands behind the flag in -help
	byDefault          string // what applies when it is absent
	usage              string
	set                func(string) error
}

// memory is the -store that ends with the process.
const memory = "memory"

var errHelp = errors.New("help wanted")

// A settingError names the flag or variable that is invalid.
type settingError struct {
	name string
	err  error
}

func (e *settingError) Error() string { return e.name + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

func badSetting(name string, err error) error { return &settingError{name, err} }

// parseSettings reads the flags, then the environment for flags that were not given.
func parseSettings(args []string, getenv func(string) string) (*settings, error) {
	set := &settings{Config: Config{Iterations: DefaultIterations}}
	set.define()
	if err := set.fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return set, errHelp
	} else if err != nil {
		return set, badSetting("flags", fmt.Errorf("%w; -help lists them", err))
	}
	if set.fs.NArg() > 0 {
		return set, badSetting("flags", fmt.Errorf("%q is not a flag; -help lists them", set.fs.Arg(0)))
	}
	if set.version {
		return set, nil
	}
	given := map[string]bool{}
	set.fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, f := range set.table {
		if f.name == "version" || given[f.name] {
			continue
		}
		value := getenv(variable(f.name))
		if value == "" {
			continue
		}
		given[f.name] = true
		if err := set.fs.Set(f.name, value); err != nil {
			return set, badSetting(variable(f.name), fmt.Errorf("%q: %w", value, err))
		}
	}
	return set, set.complete(given, getenv)
}

// variable returns the environment's name for a flag.
func variable(flag string) string {
	return "STDAUTH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const (
	groupServing     = "Serving"
	groupTokens      = "Tokens and sessions"
	groupAdmin       = "Admin tasks"
	groupTLS         = "TLS"
	groupDiagnostics = "Diagnostics"
)

// define fills the table of flags. README's is checked against it.
func (set *settings) define() {
	set.addr, set.store, set.logFormat, set.Issuer = "127.0.0.1:8000", memory, "text", "stdauth"
	set.AccessTTL, set.Sessions = 30*time.Minute, Lifetimes{Idle: 30 * 24 * time.Hour, Max: 90 * 24 * time.Hour}
	set.table = []setting{
		{groupServing, "addr", "HOST:PORT", set.addr, "where to listen", address(&set.addr)},
		{groupServing, "store", "STORE", memory, "memory; or the path of a JSON Lines file, made if absent; or etcd://host:port,host:port,... (etcds:// with TLS)", notEmpty(&set.store)},
		{groupServing, "demo", "", "in memory on a loopback address without TLS, -admin or -trusted-proxy", "load the article's two demo accounts", yesOrNo(&set.Demo)},
		{groupServing, "registration", "WHO", "open", "open, or closed: only an admin may create accounts", set.setRegistration},
		{groupServing, "cors-origin", "ORIGIN", "any port of this machine with the demo accounts, else none", "an origin that browsers may call from; port * for any; repeatable", set.addOrigin},
		{groupServing, "trusted-proxy", "CIDR", "", "addresses whose X-Forwarded-For is believed; repeatable", set.addProxy},

		{groupTokens, "access-ttl", "TIME", "30m", "life of an access token", lifetime(&set.AccessTTL)},
		{groupTokens, "refresh-ttl", "TIME", "720h", "a session that is unused for this long ends", lifetime(&set.Sessions.Idle)},
		{groupTokens, "session-ttl", "TIME", "2160h", "a session this old ends, however busy", lifetime(&set.Sessions.Max)},
		{groupTokens, "issuer", "NAME", set.Issuer, "iss and aud of the tokens", set.setIssuer},

		{groupAdmin, "admin", "NAME", "", "create NAME as an admin if absent, with ADMIN_PASSWORD, else a generated password, printed once", accountName(&set.adminName)},
		{groupAdmin, "reset-password", "NAME", "", "offline: set NAME's password to NEW_PASSWORD, else a generated one, printed once; end its sessions, enable it, exit", notEmpty(&set.resetName)},
		{groupAdmin, "import", "FILE", "", "offline: copy the accounts of a store file into the store, which must be empty, and exit", notEmpty(&set.importFile)},

		{groupTLS, "tls-cert", "FILE", "", "serve HTTPS with the certificate in this PEM file; a renewed one is used without a restart", notEmpty(&set.certFile)},
		{groupTLS, "tls-key", "FILE", "", "the private key of -tls-cert, in PEM", notEmpty(&set.keyFile)},

		{groupDiagnostics, "debug-addr", "HOST:PORT", "", "a second listener, loopback only, with metrics and profiles", address(&set.debugAddr)},
		{groupDiagnostics, "log-format", "FORMAT", "text", "text or json, on standard error; text is short lines at a terminal", choice(&set.logFormat, "text", "json")},
		{groupDiagnostics, "log-level", "LEVEL", "info", "debug, info, warn or error", set.setLogLevel},
		{groupDiagnostics, "version", "", "", "print the version and exit", yesOrNo(&set.version)},
	}
	set.fs = flag.NewFlagSet("stdauth", flag.ContinueOnError)
	set.fs.SetOutput(io.Discard) // run reports errors, once
	for _, f := range set.table {
		if f.value == "" {
			set.fs.BoolFunc(f.name, f.usage, f.set)
		} else {
			set.fs.Func(f.name, f.usage, f.set)
		}
	}
}

// complete reads the secrets, and checks what depends on several settings.
func (set *settings) complete(given map[string]bool, getenv func(string) string) error {
	for _, secret := range []struct {
		to    *string
		name  string
		check func(string) error
	}{
		{&set.secret, "SECRET_KEY", checkKey},
		{&set.previous, "SECRET_KEY_PREVIOUS", checkKey},
		{&set.adminPassword, "ADMIN_PASSWORD", func(s string) error { return checkPassword(s, set.adminName) }},
		{&set.newPassword, "NEW_PASSWORD", func(s string) error { return checkPassword(s, set.resetName) }},
	} {
		if *secret.to = getenv(secret.name); *secret.to == "" {
			continue
		}
		if err := secret.check(*secret.to); err != nil {
			return badSetting(secret.name, err)
		}
	}
	set.etcdUsername, set.etcdPassword = getenv("STDAUTH_ETCD_USERNAME"), getenv("STDAUTH_ETCD_PASSWORD")
	if set.etcdUsername == "" && set.etcdPassword != "" {
		return badSetting("STDAUTH_ETCD_USERNAME", errors.New("is needed with STDAUTH_ETCD_PASSWORD"))
	}
	if err := set.completeOffline(); err != nil {
		return err
	}
	if err := set.completeKey(getenv); err != nil {
		return err
	}
	if (set.certFile == "") != (set.keyFile == "") {
		return badSetting("-tls-cert and -tls-key", errors.New("must be given together"))
	}
	set.TLS = set.certFile != ""
	if err := set.completeDemo(given); err != nil {
		return err
	}
	if set.debugAddr != "" && !isLoopback(set.debugAddr) {
		return badSetting("-debug-addr", errors.New("must be a loopback address: what it shows is not for others"))
	}
	set.warn()
	return nil
}

// warn collects what is worth a line at the start.
func (set *settings) warn() {
	for _, w := range []struct {
		when bool
		text string
	}{
		{!set.offline() && !set.TLS && !isLoopback(set.addr), "-addr: passwords and tokens travel in clear; use -tls-cert and -tls-key, or a proxy that serves HTTPS"},
		{set.Sessions.Max < set.Sessions.Idle, "-session-ttl is below -refresh-ttl, so every session ends by its age"},
		{set.adminPassword != "" && set.adminName == "", "ADMIN_PASSWORD is set, but -admin is not"},
		{set.newPassword != "" && set.resetName == "", "NEW_PASSWORD is set, but -reset-password is not"},
	} {
		if w.when {
			set.warnings = append(set.warnings, w.text)
		}
	}
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

func (set *settings) completeKey(getenv func(string) string) error {
	misnamed := ""
	if getenv("STDAUTH_SECRET_KEY") != "" {
		misnamed = "; STDAUTH_SECRET_KEY is set, but the variable is SECRET_KEY"
	}
	switch {
	case set.secret != "" || set.offline():
		return nil
	case set.previous != "":
		return badSetting("SECRET_KEY_PREVIOUS", errors.New("is useless without SECRET_KEY"+misnamed))
	case set.store != memory:
		return badSetting("SECRET_KEY", errors.New("is needed with a -store that outlives the process"+misnamed+makeKey))
	}
	if misnamed != "" {
		set.warnings = append(set.warnings, "the key is random"+misnamed)
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

// completeDemo decides on the demo accounts, whose passwords everybody knows.
func (set *settings) completeDemo(given map[string]bool) error {
	reachable := ""
	switch {
	case set.store != memory:
		reachable = "-store " + set.store
	case !isLoopback(set.addr):
		reachable = "-addr " + set.addr
	case set.TLS:
		reachable = "-tls-cert"
	case len(set.TrustedProxies) > 0:
		reachable = "-trusted-proxy"
	}
	if !given["demo"] {
		set.Demo = reachable == "" && set.adminName == "" && !set.offline()
	}
	if set.Demo && reachable != "" {
		return badSetting("-demo", fmt.Errorf("cannot be given with %s: everybody knows the demo passwords", reachable))
	}
	if set.Demo && !given["cors-origin"] {
		set.CORSOrigins = []string{"http://localhost:*", "http://127.0.0.1:*"}
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

func choice(to *string, allowed ...string) func(string) error {
	return func(s string) error {
		*to = s
		if !slices.Contains(allowed, s) {
			return errors.New("must be " + strings.Join(allowed, " or "))
		}
		return nil
	}
}

func yesOrNo(to *bool) func(string) error {
	return func(s string) error {
		*to = s == "true" || s == "1"
		return choice(new(string), "true", "false", "1", "0")(s)
	}
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

func (set *settings) setRegistration(s string) error {
	set.Closed = s == "closed"
	return choice(new(string), "open", "closed")(s)
}

func (set *settings) setLogLevel(s string) error {
	set.logLevel.UnmarshalText([]byte(s)) // which accepts more, such as INFO+2
	return choice(new(string), "debug", "info", "warn", "error")(s)
}

func (set *settings) setIssuer(s string) error {
	set.Issuer = s
	if s == "" || len(s) > 200 || !printable(s) {
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
		if err == nil && prefix.Addr().Is4In6() { // clients are compared as IPv4
			prefix, err = prefix.Addr().Unmap().Prefix(prefix.Bits() - 96)
		}
		if err != nil {
			return errors.New("must be a CIDR, such as 10.0.0.0/8 or ::1/128")
		}
		set.TrustedProxies = append(set.TrustedProxies, prefix.Masked())
	}
	return nil
}

// isLoopback reports whether an address, with or without a port, is one that only
// this machine can reach.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// printHelp lists the flags by group, in lines of 100 columns at most.
func (set *settings) printHelp(w io.Writer) {
	fmt.Fprint(w, "stdauth is an authentication server. Every flag but -version can also be given in the\nenvironment: -access-ttl as STDAUTH_ACCESS_TTL. A flag wins.\n")
	group := ""
	for _, f := range set.table {
		if f.group != group {
			group = f.group
			fmt.Fprintf(w, "\n%s\n", group)
		}
		usage := f.usage
		if f.byDefault != "" {
			usage += " (default: " + f.byDefault + ")"
		}
		fmt.Fprintf(w, "  %s\n%s", strings.TrimSpace("-"+f.name+" "+f.value), wrap(usage, "        ", 100))
	}
	fmt.Fprint(w, `
Secrets, from the environment only
  SECRET_KEY           signs the tokens; at least 32 bytes; needed with a store that is not memory
  SECRET_KEY_PREVIOUS  still verifies tokens after SECRET_KEY was changed
  ADMIN_PASSWORD       for -admin
  NEW_PASSWORD         for -reset-password
  STDAUTH_ETCD_USERNAME, STDAUTH_ETCD_PASSWORD

Examples
  stdauth
  SECRET_KEY=$(openssl rand -hex 32) stdauth -store users.jsonl -admin root
  stdauth -store users.jsonl -reset-password root
`)
}

// wrap breaks text into indented lines.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	return b.String() + line + "\n"
}
