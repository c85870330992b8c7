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
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

// settings are the flags and the environment.
type settings struct {
	Config
	addr, store, debugAddr           string
	certFile, keyFile                string
	registration, logFormat          string
	logLevel                         slog.Level
	adminName, resetName, importFile string
	version, askReady                bool

	secret, previous           string // SECRET_KEY and SECRET_KEY_PREVIOUS
	randomKey                  bool   // secret was generated for this process
	adminPassword, newPassword string
	introspectClient           string // INTROSPECT_CLIENT, id:secret
	etcdUsername, etcdPassword string

	given      map[string]string // flags that were set, with their names in errors
	leftBehind string            // what an offline command has changed so far, if anything
}

const (
	memory          = "memory" // the -store that ends with the process
	minClientSecret = 16       // bytes
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
	f.DurationVar(&set.SessionLife.Idle, "refresh-ttl", 30*24*time.Hour, "")
	f.DurationVar(&set.SessionLife.Max, "session-ttl", 90*24*time.Hour, "")
	f.StringVar(&set.Issuer, "issuer", "stdauth", "")
	f.Func("admin", "", func(name string) error { set.adminName = name; return checkUsername(name) })
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
	for _, secret := range []struct {
		name string
		to   *string
		rule func(string) error
	}{
		{"SECRET_KEY", &set.secret, checkSecret},
		{"SECRET_KEY_PREVIOUS", &set.previous, checkSecret},
		{"ADMIN_PASSWORD", &set.adminPassword, func(s string) error { return checkPassword(s, set.adminName) }},
		{"NEW_PASSWORD", &set.newPassword, func(s string) error { return checkPassword(s, set.resetName) }},
		{"MAIL_PASSWORD", &set.Mail.Password, checkText},
		{"INTROSPECT_CLIENT", &set.introspectClient, checkText},
		{"STDAUTH_ETCD_USERNAME", &set.etcdUsername, checkText},
		{"STDAUTH_ETCD_PASSWORD", &set.etcdPassword, checkText},
	} {
		from := ""
		if *secret.to, from, err = readSecret(secret.name, getenv); err == nil && *secret.to != "" {
			err = secret.rule(*secret.to)
		}
		if err != nil {
			return set, set.bad(from, err)
		}
	}
	set.complete()
	return set, set.check(getenv)
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
			err = cmp.Or(errUnless(f.Value.String() != "", "must not be empty"), checkText(f.Value.String()))
		}
		if err != nil {
			err = set.bad(name, err)
		}
	})
	return set, err
}

// readSecret returns the secret X from its variable or from the file that X_FILE names,
// and which of the two has it. No flag has a secret, because every user of a machine can
// see the flags of a process.
func readSecret(name string, getenv func(string) string) (secret, from string, err error) {
	secret, from = getenv(name), name
	if path := getenv(name + "_FILE"); path != "" {
		from = name + "_FILE"
		if secret != "" {
			return "", from, errors.New("cannot be set with " + name)
		}
		content, err := readBounded(path)
		if err != nil {
			return "", from, err
		}
		// Most editors put a line end at the end.
		if secret = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"); secret == "" {
			return "", from, errors.New("the file is empty")
		}
	}
	return secret, from, checkPasted(secret)
}

// readBounded reads a file that may be a device without an end.
func readBounded(path string) ([]byte, error) {
	if err := checkText(path); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile))
	if len(content) == maxSecretFile {
		return nil, errors.New("the file is too large")
	}
	return content, err
}

const maxSecretFile = 64 << 10 // bytes

// checkPasted refuses what editors, shells and files of variables add to a secret.
func checkPasted(secret string) error {
	if err := checkText(secret); err != nil {
		return err
	}
	last := len(secret) - 1
	switch {
	case strings.TrimSpace(secret) != secret:
		return errors.New("must not begin or end with a space")
	case strings.HasPrefix(secret, "\uFEFF"):
		return errors.New("must not begin with a byte order mark")
	case last > 0 && secret[0] == secret[last] && (secret[0] == '"' || secret[0] == '\''):
		return errors.New("must not be enclosed in quotes")
	}
	return nil
}

// checkText refuses control characters, such as the carriage return of a file that was
// written on Windows.
func checkText(value string) error {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("must not contain control characters, such as a line end")
	}
	return nil
}

// complete derives the settings that depend on others.
func (set *settings) complete() {
	set.PublicURL = strings.TrimSuffix(strings.ToLower(set.PublicURL), "/")
	set.Closed = set.registration == "closed"
	set.TLS = set.certFile != ""
	set.IntrospectID, set.IntrospectSecret, _ = strings.Cut(set.introspectClient, ":")
	if set.given["-demo"] == "" {
		set.Demo = set.private() && set.adminName == ""
	}
	if set.Demo {
		set.Mail.Target = cmp.Or(set.Mail.Target, mailTerminal)
	}
	for _, host := range []string{"localhost", "*.localhost", "127.0.0.1", "[::1]"} {
		if set.Demo && set.given["-cors-origin"] == "" {
			set.CORSOrigins = append(set.CORSOrigins, "http://"+host+":*", "https://"+host+":*")
		}
	}
	if set.secret == "" {
		set.secret, set.randomKey = rand.Text()+rand.Text(), true
	}
}

// check returns an error for the first rule that is broken.
func (set *settings) check(getenv func(string) string) error {
	const lifetime = "must be from 1s to 876000h"
	lasts := func(d time.Duration) bool { return time.Second <= d && d <= 876000*time.Hour }
	keep := set.store != memory
	web := strings.HasPrefix(set.PublicURL, "http://") || strings.HasPrefix(set.PublicURL, "https://")
	_, mailSetting, badMail := parseMail(set.Mail)
	for _, rule := range []struct {
		name string
		err  error // nil if the rule is kept
	}{
		{"SECRET_KEY", errUnless(!set.randomKey || getenv("STDAUTH_SECRET_KEY") == "", "is not set; STDAUTH_SECRET_KEY is, but the variable is SECRET_KEY")},
		{"SECRET_KEY", errUnless(!set.randomKey || !keep || set.offline(), "is required with a -store that outlives the process; make one with: openssl rand -hex 32")},
		{"SECRET_KEY_PREVIOUS", errUnless(!set.randomKey || set.previous == "", "is useless without SECRET_KEY")},
		{"INTROSPECT_CLIENT", errUnless(set.introspectClient == "" || set.IntrospectID != "" && len(set.IntrospectSecret) >= minClientSecret,
			fmt.Sprintf("must be id:secret, with a secret of %d bytes or more", minClientSecret))},
		{"STDAUTH_ETCD_USERNAME", errUnless(set.etcdUsername != "" || set.etcdPassword == "", "is required with STDAUTH_ETCD_PASSWORD")},
		{"-demo", errUnless(!set.Demo || set.private(), "requires the memory store and a loopback -addr, without -tls-cert and -trusted-proxy: everybody knows the demo passwords")},
		{"-registration", errUnless(set.Closed || set.registration == "open", "must be open or closed")},
		{"-access-ttl", errUnless(lasts(set.AccessTTL), lifetime)},
		{"-refresh-ttl", errUnless(lasts(set.SessionLife.Idle), lifetime)},
		{"-session-ttl", errUnless(lasts(set.SessionLife.Max), lifetime)},
		{"-issuer", errUnless(len(set.Issuer) <= 200 && printable(set.Issuer), "must be 1 to 200 bytes without control characters")},
		// Without a path, as clients expect of an issuer (RFC 8414, section 3).
		{"-public-url", errUnless(set.PublicURL == "" || isOrigin(set.PublicURL) && web, "must be a URL without a path or the default port, such as https://id.example.com")},
		{mailSetting, badMail},
		{"-mail-link", errUnless(set.Mail.Target != mailTerminal || set.Mail.Link != "" || set.PublicURL != "" || isLoopback(set.addr), "is required with -mail terminal on this -addr, unless -public-url is set")},
		{"-store", errUnless(keep || !set.offline(), "is required with -import and -reset-password: memory ends with the process")},
		{"-import", errUnless(set.resetName == "" || set.importFile == "", "cannot be set with -reset-password")},
		{"-tls-cert, -tls-key", errUnless((set.certFile == "") == (set.keyFile == ""), "require each other")},
		{"-debug-addr", errUnless(set.debugAddr == "" || isLoopback(set.debugAddr), "must be a loopback address: what it shows is not for others")},
		{"-log-format", errUnless(set.logFormat == "text" || set.logFormat == "json", "must be text or json")},
	} {
		if rule.err != nil {
			return set.bad(rule.name, rule.err)
		}
	}
	return nil
}

// warn logs what is valid but probably a mistake.
func (set *settings) warn(log *slog.Logger) {
	if !set.TLS && !isLoopback(set.addr) {
		log.Warn("-addr: passwords and tokens are sent in clear; use -tls-cert and -tls-key, or a proxy that serves HTTPS")
	}
	if set.SessionLife.Max < set.SessionLife.Idle {
		log.Warn("-session-ttl is below -refresh-ttl, so every session ends by its age")
	}
	if set.adminPassword != "" && set.adminName == "" {
		log.Warn("ADMIN_PASSWORD is set, but -admin is not")
	}
	if set.newPassword != "" { // with -reset-password, nothing is served
		log.Warn("NEW_PASSWORD is set, but -reset-password is not")
	}
}

func (set *settings) offline() bool { return set.resetName != "" || set.importFile != "" }

// private reports whether accounts that everybody knows are harmless: they end with the
// process, and only this machine can reach them.
func (set *settings) private() bool {
	return set.store == memory && isLoopback(set.addr) && !set.TLS && len(set.TrustedProxies) == 0
}

// errUnless returns the rule as an error, or nil if it is kept.
func errUnless(ok bool, rule string) error {
	if !ok {
		return errors.New(rule)
	}
	return nil
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
	set.CORSOrigins = append(set.CORSOrigins, origin)
	return errUnless(isOrigin(strings.TrimSuffix(origin, ":*")), "must be an origin as browsers send it, such as https://app.example.com or http://localhost:*")
}

// isOrigin reports whether text is an origin as browsers write it: a scheme, which an
// extension or an app may have of its own, a host and a port that is not the default one,
// in ASCII (Fetch standard, "serializing a request origin").
func isOrigin(text string) bool {
	u, err := url.Parse(text)
	if err == nil && u.Port() != "" {
		_, err = net.LookupPort("tcp", u.Port())
	}
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != text {
		return false
	}
	port, noPages := u.Scheme+":"+u.Port(), []string{"file", "ftp", "ws", "wss"}
	return strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") == "" &&
		port != "http:80" && port != "https:443" && !slices.Contains(noPages, u.Scheme)
}

func (set *settings) addProxy(cidr string) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err == nil && prefix.Addr().Is4In6() { // clients are compared as IPv4
		prefix, err = prefix.Addr().Unmap().Prefix(prefix.Bits() - 96)
	}
	set.TrustedProxies = append(set.TrustedProxies, prefix.Masked())
	return errUnless(err == nil, "must be a CIDR, such as 10.0.0.0/8 or ::1/128")
}

const (
	minSecret         = 32 // bytes: the size of the hash's output (RFC 7518, section 3.2)
	minDifferentBytes = 8  // a random key has more
)

// knownSecrets are published, so anybody can sign with them.
var knownSecrets = []string{
	"your-secret-key-keep-it-safe-and-dont-share-it-with-anyone",       // the article this server began with
	"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", // the FastAPI tutorial
	"a-string-secret-at-least-256-bits-long",                           // jwt.io
}

// checkSecret checks a signing key.
func checkSecret(secret string) error {
	different := slices.Compact(slices.Sorted(slices.Values([]byte(secret))))
	switch {
	case len(secret) < minSecret:
		return fmt.Errorf("must be at least %d bytes long", minSecret)
	case slices.Contains(knownSecrets, secret):
		return errors.New("is a published example")
	case len(different) < minDifferentBytes:
		return fmt.Errorf("must have at least %d different bytes", minDifferentBytes)
	}
	return nil
}
