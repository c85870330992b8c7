package main

import (
	"cmp"
	"crypto/rand"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// settings are the flags and the environment.
type settings struct {
	Config
	addr, store, debugAddr           string
	certFile, keyFile                string
	keyPair                          *certificate // what start has read from these files
	registration, logFormat          string
	logLevel                         slog.Level
	adminName, resetName, importFile string
	version, askReady                bool

	secret, previous           string // SECRET_KEY and SECRET_KEY_PREVIOUS
	randomKey                  bool   // secret was generated for this process
	adminPassword, newPassword string
	introspectClient           string // INTROSPECT_CLIENT
	etcdUsername, etcdPassword string

	left     string            // what an offline command has changed so far, if anything
	given    map[string]string // flags that were set, with their names in errors
	warnings []string          // about settings that are valid but probably a mistake
}

const (
	memory       = "memory"   // the -store that ends with the process
	mailTerminal = "terminal" // the -mail that is only printed
)

var errHelp = flag.ErrHelp

// help is what -help prints.
//
//go:embed main_help.txt
var help string

// flags defines the flags.
func (set *settings) flags() *flag.FlagSet {
	f := flag.NewFlagSet("stdauth", flag.ContinueOnError)
	f.SetOutput(io.Discard) // run reports errors, once
	f.StringVar(&set.addr, "addr", "127.0.0.1:8000", "")
	f.StringVar(&set.store, "store", memory, "")
	f.BoolVar(&set.Demo, "demo", false, "")
	f.StringVar(&set.registration, "registration", "open", "")
	f.Func("cors-origin", "", list(set.addOrigin))
	f.Func("trusted-proxy", "", list(set.addProxy))
	f.StringVar(&set.PublicURL, "public-url", "", "")
	f.StringVar(&set.Mail.Target, "mail", "", "")
	f.StringVar(&set.Mail.From, "mail-from", "", "")
	f.StringVar(&set.Mail.Link, "mail-link", "", "")
	f.DurationVar(&set.AccessTTL, "access-ttl", 30*time.Minute, "")
	f.DurationVar(&set.Sessions.Idle, "refresh-ttl", 30*24*time.Hour, "")
	f.DurationVar(&set.Sessions.Max, "session-ttl", 90*24*time.Hour, "")
	f.StringVar(&set.Issuer, "issuer", "stdauth", "")
	f.StringVar(&set.adminName, "admin", "", "")
	f.StringVar(&set.resetName, "reset-password", "", "")
	f.StringVar(&set.importFile, "import", "", "")
	f.StringVar(&set.certFile, "tls-cert", "", "")
	f.StringVar(&set.keyFile, "tls-key", "", "")
	f.StringVar(&set.debugAddr, "debug-addr", "", "")
	f.StringVar(&set.logFormat, "log-format", "text", "")
	f.TextVar(&set.logLevel, "log-level", slog.LevelInfo, "")
	f.BoolVar(&set.askReady, "check", false, "")
	f.BoolVar(&set.version, "version", false, "")
	return f
}

// A settingError is an error that names a flag or variable.
type settingError struct{ error }

func (e settingError) Unwrap() error { return e.error }

// bad returns an error that names a setting as it was set: -addr, or -addr
// (STDAUTH_ADDR).
func (set *settings) bad(name string, err error) error {
	return settingError{fmt.Errorf("%s: %w", cmp.Or(set.given[name], name), err)}
}

// parseSettings reads the flags and the secrets. It returns errHelp for -help.
func parseSettings(args []string, getenv func(string) string) (*settings, error) {
	set, err := parseFlags(args, getenv)
	if err != nil || set.version || set.askReady {
		return set, err
	}
	if err := set.readSecrets(getenv); err != nil {
		return set, err
	}
	return set, set.complete(getenv)
}

// parseFlags reads the flags, and the environment for flags that were not set.
func parseFlags(args []string, getenv func(string) string) (*settings, error) {
	set := &settings{Config: Config{Iterations: DefaultIterations}, given: map[string]string{}}
	flags := set.flags()
	err := flags.Parse(args)
	if err == errHelp || err == nil && set.version {
		return set, err
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	if err != nil {
		return set, settingError{fmt.Errorf("%w; see -help", err)}
	}
	flags.Visit(func(f *flag.Flag) { set.given["-"+f.Name] = "-" + f.Name })
	flags.VisitAll(func(f *flag.Flag) {
		name, variable := "-"+f.Name, "STDAUTH_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if err != nil || f.Name == "version" || f.Name == "check" {
			return
		}
		if set.given[name] == "" {
			value := getenv(variable)
			if value == "" {
				return
			}
			set.given[name] = name + " (" + variable + ")"
			if err = flags.Set(f.Name, value); err != nil {
				err = fmt.Errorf("%q: %w", value, err)
			}
		}
		if text, ok := f.Value.(flag.Getter); ok && err == nil && text.Get() == f.Value.String() { // of a string
			err = cmp.Or(must(f.Value.String() != "", "must not be empty"), checkText(f.Value.String()))
		}
		if err != nil {
			err = set.bad(name, err)
		}
	})
	return set, err
}

// complete derives the settings that depend on others.
func (set *settings) complete(getenv func(string) string) error {
	set.etcdUsername = getenv("STDAUTH_ETCD_USERNAME")
	set.PublicURL = strings.TrimSuffix(strings.ToLower(set.PublicURL), "/")
	set.Closed = set.registration == "closed"
	set.TLS = set.certFile != ""
	if set.given["-demo"] == "" {
		set.Demo = set.reachable() == "" && set.adminName == "" && !set.offline()
	}
	set.IntrospectID, set.IntrospectSecret, _ = strings.Cut(set.introspectClient, ":")
	for _, host := range []string{"localhost", "*.localhost", "127.0.0.1", "[::1]"} {
		if set.Demo && set.given["-cors-origin"] == "" {
			set.CORSOrigins = append(set.CORSOrigins, "http://"+host+":*", "https://"+host+":*")
		}
	}
	if set.Demo {
		set.Mail.Target = cmp.Or(set.Mail.Target, mailTerminal)
	}
	misnamed := ""
	if getenv("STDAUTH_SECRET_KEY") != "" {
		misnamed = "; STDAUTH_SECRET_KEY is set, but the variable is SECRET_KEY"
	}
	if err := set.check(misnamed); err != nil {
		return err
	}
	set.warn(misnamed)
	if set.secret == "" {
		set.secret, set.randomKey = rand.Text()+rand.Text(), true
	}
	return nil
}

// check returns an error for the first rule that is broken.
func (set *settings) check(misnamed string) error {
	adminPassword := func(s string) error { return checkPassword(s, set.adminName) }
	newPassword := func(s string) error { return checkPassword(s, set.resetName) }
	keep := set.store != memory // it outlives the process
	mailSetting, badMail := checkMail(set.Mail)
	for _, rule := range []struct {
		name string
		err  error // nil if the rule is kept
	}{
		{"SECRET_KEY", checkIf(set.secret, checkKey)},
		{"SECRET_KEY", must(set.secret != "" || !keep || set.offline(), "is required with a -store that outlives the process"+misnamed+makeKey)},
		{"SECRET_KEY_PREVIOUS", checkIf(set.previous, checkKey)},
		{"SECRET_KEY_PREVIOUS", must(set.secret != "" || set.previous == "", "is useless without SECRET_KEY"+misnamed)},
		{"ADMIN_PASSWORD", checkIf(set.adminPassword, adminPassword)},
		{"NEW_PASSWORD", checkIf(set.newPassword, newPassword)},
		{"INTROSPECT_CLIENT", checkIf(set.introspectClient, checkClient)},
		{"STDAUTH_ETCD_USERNAME", checkText(set.etcdUsername)},
		{"STDAUTH_ETCD_USERNAME", must(set.etcdUsername != "" || set.etcdPassword == "", "is required with STDAUTH_ETCD_PASSWORD")},
		{"-demo", must(!set.Demo || set.reachable() == "", "cannot be set with "+set.reachable()+": everybody knows the demo passwords")},
		{"-registration", must(set.Closed || set.registration == "open", "must be open or closed")},
		{"-access-ttl", checkLifetime(set.AccessTTL)},
		{"-refresh-ttl", checkLifetime(set.Sessions.Idle)},
		{"-session-ttl", checkLifetime(set.Sessions.Max)},
		{"-issuer", must(len(set.Issuer) <= 200 && printable(set.Issuer), "must be 1 to 200 bytes without control characters")},
		{"-public-url", checkIf(set.PublicURL, checkPublicURL)},
		{mailSetting, badMail},
		{"-mail-link", must(set.Mail.Target != mailTerminal || set.Mail.Link != "" || set.PublicURL != "" || isLoopback(set.addr), "is required with -mail terminal on this -addr, unless -public-url is set")},
		{"-admin", checkIf(set.adminName, checkUsername)},
		{"-reset-password", must(keep || set.resetName == "", "requires a -store that outlives the process")},
		{"-import", must(keep || set.importFile == "", "requires a -store that outlives the process")},
		{"-import", must(set.resetName == "" || set.importFile == "", "cannot be set with -reset-password")},
		{"-tls-cert", must(set.certFile != "" || set.keyFile == "", "is required with -tls-key")},
		{"-tls-key", must(set.keyFile != "" || set.certFile == "", "is required with -tls-cert")},
		{"-debug-addr", must(set.debugAddr == "" || isLoopback(set.debugAddr), "must be a loopback address: what it shows is not for others")},
		{"-log-format", must(set.logFormat == "text" || set.logFormat == "json", "must be text or json")},
	} {
		if rule.err != nil {
			return set.bad(rule.name, rule.err)
		}
	}
	return nil
}

// warn collects the warnings.
func (set *settings) warn(misnamed string) {
	for _, w := range []struct {
		when bool
		text string
	}{
		{set.secret == "" && misnamed != "", "the key is random" + misnamed},
		{!set.offline() && !set.TLS && !isLoopback(set.addr), "-addr: passwords and tokens are sent in clear; use -tls-cert and -tls-key, or a proxy that serves HTTPS"},
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

// reachable returns the setting, if any, by which the accounts outlive the process or
// can be reached from other machines.
func (set *settings) reachable() string {
	switch {
	case set.store != memory:
		return "-store " + set.store
	case !isLoopback(set.addr):
		return "-addr " + set.addr
	case set.TLS:
		return "-tls-cert"
	case len(set.TrustedProxies) > 0:
		return "-trusted-proxy"
	}
	return ""
}

// must returns the rule as an error, or nil if it is kept.
func must(ok bool, rule string) error {
	if !ok {
		return errors.New(rule)
	}
	return nil
}

// checkIf applies a rule to a value, unless it is empty.
func checkIf(value string, rule func(string) error) error {
	if value == "" {
		return nil
	}
	return rule(value)
}

func checkLifetime(d time.Duration) error {
	return must(time.Second <= d && d <= 100*365*24*time.Hour, "must be from 1s to 876000h")
}

const (
	makeKey         = "; make one with: openssl rand -hex 32"
	minClientSecret = 16 // bytes
)

func checkKey(key string) error {
	if err := checkSecret(key); err != nil {
		return fmt.Errorf("%w%s", err, makeKey)
	}
	return nil
}

func checkClient(client string) error {
	id, secret, _ := strings.Cut(client, ":")
	return must(id != "" && len(secret) >= minClientSecret, fmt.Sprintf("must be id:secret, with a secret of %d bytes or more", minClientSecret))
}

// checkPublicURL allows no path: the server is at the root of its host, as clients expect
// of an issuer whose metadata has no path (RFC 8414, section 3).
func checkPublicURL(text string) error {
	http := strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://")
	return must(http && isOrigin(text), "must be a URL without a path, such as https://id.example.com")
}

// list returns the Set function of a repeatable flag, whose values may be separated by
// commas.
func list(add func(string) error) func(string) error {
	return func(values string) error {
		for value := range strings.SplitSeq(values, ",") {
			if err := add(strings.Trim(value, " ")); err != nil {
				return err
			}
		}
		return nil
	}
}

// addOrigin adds a pattern for matchOrigin.
func (set *settings) addOrigin(origin string) error {
	origin = strings.ToLower(origin)
	if base, _ := strings.CutSuffix(origin, ":*"); !isOrigin(base) {
		return errors.New("must be an origin as browsers send it, such as https://app.example.com or http://localhost:*")
	}
	set.CORSOrigins = append(set.CORSOrigins, origin)
	return nil
}

// isOrigin reports whether text is an origin as browsers write it: a scheme, a host and
// a port that is not the default one, in ASCII (Fetch standard, "serializing a request
// origin").
func isOrigin(text string) bool {
	u, err := url.Parse(text)
	if err == nil && u.Port() != "" {
		_, err = net.LookupPort("tcp", u.Port())
	}
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != text {
		return false
	}
	port := u.Scheme + ":" + u.Port()
	return strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") == "" && port != "http:80" && port != "https:443"
}

func (set *settings) addProxy(cidr string) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err == nil && prefix.Addr().Is4In6() { // clients are compared as IPv4
		prefix, err = prefix.Addr().Unmap().Prefix(prefix.Bits() - 96)
	}
	if err != nil {
		return errors.New("must be a CIDR, such as 10.0.0.0/8 or ::1/128")
	}
	set.TrustedProxies = append(set.TrustedProxies, prefix.Masked())
	return nil
}
