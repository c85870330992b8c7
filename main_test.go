package main

import (
	"bytes"
	stdcmp "cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestEachFlagAndItsVariable checks the default of each flag, and that its variable has
// the same effect.
func TestEachFlagAndItsVariable(t *testing.T) {
	cert, key := writeCertificate(t)
	for _, test := range []struct {
		flag   string
		with   string // other flags that it needs
		get    func(*settings) any
		absent any
		value  string
		want   any
		other  string // another value of the variable, which the flag overrides
	}{
		{"addr", "", func(s *settings) any { return s.addr }, "127.0.0.1:8000", "127.0.0.1:9000", "127.0.0.1:9000", "127.0.0.1:7000"},
		{"store", "", func(s *settings) any { return s.store }, "memory", "users.jsonl", "users.jsonl", "other.jsonl"},
		{"demo", "", func(s *settings) any { return s.Demo }, true, "false", false, "true"},
		{"admin", "", func(s *settings) any { return s.adminName }, "", "root", "root", "boss"},
		{"reset-password", "-store users.jsonl", func(s *settings) any { return s.resetName }, "", "ada", "ada", "bob"},
		{"import", "-store users.jsonl", func(s *settings) any { return s.importFile }, "", "old.jsonl", "old.jsonl", "older.jsonl"},
		{"registration", "", func(s *settings) any { return s.Closed }, false, "closed", true, "open"},
		{"access-ttl", "", func(s *settings) any { return s.AccessTTL }, 30 * time.Minute, "5m", 5 * time.Minute, "1h"},
		{"refresh-ttl", "", func(s *settings) any { return s.SessionLife.Idle }, 720 * time.Hour, "1h", time.Hour, "2h"},
		{"session-ttl", "", func(s *settings) any { return s.SessionLife.Max }, 2160 * time.Hour, "24h", 24 * time.Hour, "2h"},
		{"issuer", "", func(s *settings) any { return s.Issuer }, "stdauth", "https://id.example.com", "https://id.example.com", "x"},
		{"cors-origin", "", func(s *settings) any { return fmt.Sprint(s.CORSOrigins) }, demoOrigins, "https://a.example.com", "[https://a.example.com]", "https://b.example.com"},
		{"trusted-proxy", "", func(s *settings) any { return fmt.Sprint(s.TrustedProxies) }, "[]", "10.1.2.3/8", "[10.0.0.0/8]", "::1/128"},
		{"tls-cert", "-tls-key " + key, func(s *settings) any { return s.certFile }, nil, cert, cert, "none.pem"},
		{"tls-key", "-tls-cert " + cert, func(s *settings) any { return s.keyFile }, nil, key, key, "none.pem"},
		{"debug-addr", "", func(s *settings) any { return s.debugAddr }, "", "localhost:6060", "localhost:6060", "localhost:7070"},
		{"public-url", "", func(s *settings) any { return s.PublicURL }, "", "https://id.example.com", "https://id.example.com", "https://x.example.com"},
		{"mail", mailFlags, func(s *settings) any { return s.Mail.Target }, "terminal", "smtp://mail.example.com:587", "smtp://mail.example.com:587", "smtps://mail.example.com:465"},
		{"mail-from", "", func(s *settings) any { return s.Mail.From }, "", "root@example.com", "root@example.com", "x@example.com"},
		{"mail-link", "", func(s *settings) any { return s.Mail.Link }, "", "https://app.example.com/reset", "https://app.example.com/reset", "https://x.example.com/"},
		{"check", "", func(s *settings) any { return s.askReady }, false, "true", true, ""},
		{"log-format", "", func(s *settings) any { return s.logFormat }, "text", "json", "json", "text"},
		{"version", "", func(s *settings) any { return s.version }, false, "true", true, ""},
		{"log-level", "", func(s *settings) any { return s.logLevel }, slog.LevelInfo, "warn", slog.LevelWarn, "error"},
	} {
		variable := "STDAUTH_" + strings.ToUpper(strings.ReplaceAll(test.flag, "-", "_"))
		with := strings.Fields(test.with)
		for _, c := range []struct {
			what string
			args []string
			env  []string
			want any
		}{
			{"an absent flag has its default", with, nil, test.absent},
			{"an empty variable counts as unset", with, []string{variable + "="}, test.absent},
			{"the flag sets the value", append(with, "-"+test.flag+"="+test.value), nil, test.want},
			{"the variable sets the value", with, []string{variable + "=" + test.value}, test.want},
			{"the flag overrides the variable", append(with, "-"+test.flag+"="+test.value), []string{variable + "=" + test.other}, test.want},
		} {
			if c.want == nil || (test.flag == "version" || test.flag == "check") && len(c.env) > 0 {
				continue // one of a pair cannot be absent; -version and -check have no variable
			}
			set := need(parseSettings(c.args, envOf(append(c.env, "SECRET_KEY="+settingsKey)...)))(t)
			wantEqual(t, fmt.Sprintf("-%s: %s: parseSettings(%q) with %q", test.flag, c.what, c.args, c.env), test.get(set), c.want)
		}
	}
}

// demoOrigins are allowed while the demo accounts exist.
const demoOrigins = "[http://localhost:* https://localhost:* http://*.localhost:* https://*.localhost:* " +
	"http://127.0.0.1:* https://127.0.0.1:* http://[::1]:* https://[::1]:*]"

// mailFlags are required with -mail smtp://...
const mailFlags = "-mail-from root@example.com -mail-link https://app.example.com/reset"

func TestRepeatableFlags(t *testing.T) {
	for _, test := range []struct{ name, args, env, want string }{
		{"a repeated flag makes a list", "-cors-origin https://a.example.com -cors-origin https://b.example.com:*", "", "[https://a.example.com https://b.example.com:*] []"},
		{"a variable has a list separated by commas", "", "STDAUTH_CORS_ORIGIN=https://a.example.com,https://b.example.com", "[https://a.example.com https://b.example.com] []"},
		{"spaces after a comma are ignored", "", "STDAUTH_TRUSTED_PROXY=10.0.0.0/8,  ::1/128", "[] [10.0.0.0/8 ::1/128]"},
		{"a flag overrides the whole list of the variable", "-trusted-proxy 10.0.0.0/8", "STDAUTH_TRUSTED_PROXY=::1/128,fd00::/8", "[] [10.0.0.0/8]"},
		{"an IPv4-mapped IPv6 prefix is the IPv4 prefix", "-trusted-proxy ::ffff:10.0.0.0/104", "", "[] [10.0.0.0/8]"},
		{"an origin is kept in lower case", "-cors-origin http://App.example.com", "", "[http://app.example.com] []"},
		{"an app or an extension has an origin of its own scheme", "-cors-origin capacitor://localhost", "", "[capacitor://localhost] []"},
		{"the IPv6 loopback address is an origin", "-cors-origin http://[::1]:*", "", "[http://[::1]:*] []"},
		{"a server without demo accounts allows no origins", "-demo=false", "", "[] []"},
	} {
		set := need(parseSettings(strings.Fields(test.args), envOf(test.env)))(t)
		wantEqual(t, test.name, fmt.Sprint(set.CORSOrigins, set.TrustedProxies), test.want)
	}
}

// TestLimitsOfSettings: the minimum and the maximum of a setting are valid.
func TestLimitsOfSettings(t *testing.T) {
	for _, arg := range []string{"-access-ttl=1s", "-session-ttl=876000h", "-issuer=" + strings.Repeat("x", 200)} {
		wantErr(t, "parseSettings("+arg+")", errOf(parseSettings([]string{arg}, envOf())), nil)
	}
}

// TestSecrets: each secret is read from its variable or from a file.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	files := 0
	file := func(content string) string {
		files++
		path := filepath.Join(dir, fmt.Sprint(files))
		write(t, path, content)
		return path
	}
	const other = "another key, of 32 bytes or more"
	for _, test := range []struct {
		name  string
		value string
		with  string // another variable that it needs
		get   func(*settings) string
	}{
		{"SECRET_KEY", settingsKey, "", func(s *settings) string { return s.secret }},
		{"SECRET_KEY_PREVIOUS", other, "SECRET_KEY=" + settingsKey, func(s *settings) string { return s.previous }},
		{"ADMIN_PASSWORD", "staple battery", "", func(s *settings) string { return s.adminPassword }},
		{"NEW_PASSWORD", "staple battery", "", func(s *settings) string { return s.newPassword }},
		{"MAIL_PASSWORD", "hunter2", "", func(s *settings) string { return s.Mail.Password }},
		{"STDAUTH_ETCD_USERNAME", "stdauth", "", func(s *settings) string { return s.etcdUsername }},
		{"STDAUTH_ETCD_PASSWORD", "hunter2", "STDAUTH_ETCD_USERNAME=alice", func(s *settings) string { return s.etcdPassword }},
		{"INTROSPECT_CLIENT", "api:sixteen:bytes---", "", func(s *settings) string { return s.IntrospectID + ":" + s.IntrospectSecret }},
	} {
		for _, c := range []struct {
			name string
			env  []string
			want string // the secret, or the error
		}{
			{"the variable has the secret", []string{test.name + "=" + test.value}, test.value},
			{"the file has the secret", []string{test.name + "_FILE=" + file(test.value)}, test.value},
			{"a line end is not part of the secret", []string{test.name + "_FILE=" + file(test.value+"\n")}, test.value},
			{"a Windows line end is not part of the secret", []string{test.name + "_FILE=" + file(test.value+"\r\n")}, test.value},
			{"an empty variable counts as unset", []string{test.name + "=" + test.value, test.name + "_FILE="}, test.value},
			{"a variable and a file are refused", []string{test.name + "=" + test.value, test.name + "_FILE=" + file(test.value)}, test.name + "_FILE: cannot be set with " + test.name},

			{"a file that does not exist is refused", []string{test.name + "_FILE=" + dir + "/none"}, test.name + "_FILE: open " + dir + "/none: "},
			{"a directory is refused", []string{test.name + "_FILE=" + dir}, test.name + "_FILE: read " + dir + ": "},
			{"an empty file is refused", []string{test.name + "_FILE=" + file("")}, test.name + "_FILE: the file is empty"},
			{"a file with a line end alone is refused", []string{test.name + "_FILE=" + file("\n")}, test.name + "_FILE: the file is empty"},
			{"a file without an end is refused", []string{test.name + "_FILE=" + file(strings.Repeat("x", maxSecretFile))}, test.name + "_FILE: the file is too large"},
			{"a path with a control character is refused", []string{test.name + "_FILE=key\r"}, test.name + "_FILE: must not contain control characters"},
			{"two lines are refused", []string{test.name + "_FILE=" + file(test.value+"\n\n")}, test.name + "_FILE: must not contain control characters"},

			{"a carriage return is refused", []string{test.name + "=" + test.value + "\r"}, test.name + ": must not contain control characters, such as a line end"},
			{"a tab is refused", []string{test.name + "=" + test.value + "\tx"}, test.name + ": must not contain control characters"},
			{"a control character of Latin-1 is refused", []string{test.name + "=" + test.value + "\u0085x"}, test.name + ": must not contain control characters"},
			{"a space before a secret is refused", []string{test.name + "= " + test.value}, test.name + ": must not begin or end with a space"},
			{"a space after a secret is refused", []string{test.name + "=" + test.value + " "}, test.name + ": must not begin or end with a space"},
			{"a space that does not break a line is refused", []string{test.name + "=" + test.value + "\u00A0"}, test.name + ": must not begin or end with a space"},
			{"a byte order mark is refused", []string{test.name + "_FILE=" + file("\uFEFF"+test.value)}, test.name + "_FILE: must not begin with a byte order mark"},
			{"quotes are refused", []string{test.name + `="` + test.value + `"`}, test.name + ": must not be enclosed in quotes"},
			{"single quotes are refused", []string{test.name + "='" + test.value + "'"}, test.name + ": must not be enclosed in quotes"},
			{"a quote within a secret is part of it", []string{test.name + "=" + test.value + `"x`}, test.value + `"x`},
		} {
			set, err := parseSettings(nil, envOf(append(c.env, test.with)...))
			if strings.HasPrefix(c.want, test.value) {
				if err != nil || test.get(set) != c.want {
					t.Errorf("%s: %s: %q gives %q, %v; want %q", test.name, c.name, c.env, test.get(set), err, c.want)
				}
				continue
			}
			if _, ok := errors.AsType[settingError](err); !ok || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), test.value) {
				t.Errorf("%s: %s: %q gives %v, want %s... without the secret", test.name, c.name, c.env, err, c.want)
			}
		}
	}
}

// TestControlCharactersInSettings: no flag and no variable may have one.
func TestControlCharactersInSettings(t *testing.T) {
	refused := func(name, value, c string, args []string, env string) {
		_, err := parseSettings(args, envOf(env))
		if _, ok := errors.AsType[settingError](err); !ok || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), c) {
			t.Errorf("%s=%q gives %v, want an error with that name and without the control character", name, value, err)
		}
	}
	valid := map[string]string{
		"-access-ttl": "1h", "-addr": "127.0.0.1:0", "-check": "true", "-cors-origin": "https://a.example.com", "-debug-addr": "127.0.0.1:0",
		"-demo": "true", "-log-format": "json", "-log-level": "warn", "-mail": "terminal", "-public-url": "https://id.example.com",
		"-refresh-ttl": "1h", "-registration": "open", "-session-ttl": "1h", "-trusted-proxy": "10.0.0.0/8", "-version": "true",
	}
	for _, name := range flagNames() {
		for _, c := range []string{"\r", "\n", "\x00", "\x1b", "\u0085"} {
			for _, value := range []string{stdcmp.Or(valid[name], "x") + c, c + stdcmp.Or(valid[name], "x")} {
				refused(name, value, c, []string{name + "=" + value}, "")
				if name != "-version" && name != "-check" { // which have no variable
					refused(variableOf(name), value, c, nil, variableOf(name)+"="+value)
				}
			}
		}
	}
	if _, err := parseSettings(nil, envOf("STDAUTH_ETCD_USERNAME=alice\r")); err == nil {
		t.Error("a carriage return in STDAUTH_ETCD_USERNAME is accepted")
	}
}

// TestRefusedSettings: an invalid setting ends the process with exit status 2 and a
// one-line error that names the flag or the variable.
func TestRefusedSettings(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t)
	full := adasFile(t, RoleAdmin)
	broken := filepath.Join(dir, "broken.jsonl")
	write(t, broken, fileHeader+"{}\n{}\n")
	taken := openFile(t, filepath.Join(dir, "taken.jsonl")).path
	secret := "SECRET_KEY=" + settingsKey

	for _, test := range []struct{ name, args, env, want string }{
		{"an unknown flag is refused", "-nonsense", "", "-nonsense; see -help"},
		{"an argument that is not a flag is refused", "memory", "", `"memory" is not a flag; see -help`},
		{"a flag without its value is refused", "-addr", "", "-addr"},

		{"an address without a port is refused", "-addr localhost", "", "-addr: listen tcp: address localhost: missing port"},
		{"a port above 65535 is refused", "-addr localhost:65536", "", "-addr: "},
		{"an address of another machine is refused", "-addr 192.0.2.1:80", "", "-addr: listen tcp 192.0.2.1:80"},
		{"an error names the variable that has the value", "", "STDAUTH_ADDR=localhost", "-addr (STDAUTH_ADDR): listen tcp: address localhost: missing port"},

		{"an empty store is refused", "-store=", "", "-store: must not be empty"},
		{"a directory as a store is refused", "-store " + dir, secret, "-store: open " + dir},
		{"a store in a directory that does not exist is refused", "-store " + dir + "/none/users.jsonl", secret, "-store: open " + dir + "/none"},
		{"a damaged store is refused", "-store " + broken, secret, "-store: line 2"},
		{"a store in use is refused", "-store " + taken, secret, "-store: another process is using it"},

		{"an address of etcd without a port is refused", "-store etcd://localhost", secret, `-store: "localhost" in an etcd address is not host:port`},
		{"a store in a file without a key is refused", "-store users.jsonl", "", "SECRET_KEY: is required with a -store that outlives the process; make one with: openssl rand -hex 32"},
		{"STDAUTH_SECRET_KEY in place of SECRET_KEY is refused", "", "STDAUTH_SECRET_KEY=" + settingsKey, "SECRET_KEY: is not set; STDAUTH_SECRET_KEY is, but the variable is SECRET_KEY"},
		{"a key of one repeated byte is refused", "", "SECRET_KEY=" + strings.Repeat("k", 64), "SECRET_KEY: must have at least 8 different bytes"},
		{"a key of 31 bytes is refused", "", "SECRET_KEY=" + settingsKey[:31], "SECRET_KEY: must be at least 32 bytes long"},
		{"the key of the article is refused", "", "SECRET_KEY=your-secret-key-keep-it-safe-and-dont-share-it-with-anyone", "SECRET_KEY: is a published example"},
		{"the key of the FastAPI tutorial is refused", "", "SECRET_KEY=09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "SECRET_KEY: is a published example"},
		{"the key of jwt.io is refused", "", "SECRET_KEY=a-string-secret-at-least-256-bits-long", "SECRET_KEY: is a published example"},
		{"a previous key of 31 bytes is refused", "", secret + " SECRET_KEY_PREVIOUS=" + settingsKey[:31], "SECRET_KEY_PREVIOUS: must be at least 32 bytes long"},
		{"a published previous key is refused", "", secret + " SECRET_KEY_PREVIOUS=a-string-secret-at-least-256-bits-long", "SECRET_KEY_PREVIOUS: is a published example"},
		{"a previous key without a key is refused", "", "SECRET_KEY_PREVIOUS=" + settingsKey, "SECRET_KEY_PREVIOUS: is useless without SECRET_KEY"},
		{"an error about two invalid keys names SECRET_KEY", "", "SECRET_KEY=x SECRET_KEY_PREVIOUS=y", "SECRET_KEY: must be at least"},

		{"demo accounts in a file are refused", "-demo -store users.jsonl", secret, "-demo: requires the memory store"},
		{"demo accounts on every address are refused", "-demo -addr :0", "", "-demo: requires the memory store"},
		{"demo accounts set by the variable are refused on every address", "-addr :0", "STDAUTH_DEMO=1", "-demo (STDAUTH_DEMO): requires the memory store"},
		{"demo accounts with TLS are refused", "-demo -tls-cert " + cert + " -tls-key " + key, "", "-demo: requires the memory store and a loopback -addr, without -tls-cert"},
		{"demo accounts behind a proxy are refused", "-demo -trusted-proxy 10.0.0.0/8", "", "-demo: requires the memory store and a loopback -addr, without -tls-cert and -trusted-proxy: everybody knows"},
		{"an error about two invalid variables names the flag that comes first", "", "STDAUTH_DEMO=perhaps STDAUTH_ACCESS_TTL=soon", "-access-ttl (STDAUTH_ACCESS_TTL): "},
		{"a variable that is neither true nor false is refused", "", "STDAUTH_DEMO=perhaps", "-demo (STDAUTH_DEMO): "},
		{"a flag that is neither true nor false is refused", "-demo=perhaps", "", "-demo: parse error"},

		{"an admin with a slash in the username is refused", "-admin=a/b", "", "-admin: must be 1 to 64 of ASCII letters"},
		{"an admin with an empty username is refused", "-admin=", "", "-admin: must be 1 to 64 of ASCII letters"},
		{"a short password of the admin is refused", "-admin root", "ADMIN_PASSWORD=short", "ADMIN_PASSWORD: must be at least 8 characters long"},
		{"a password that contains the username of the admin is refused", "-admin administratrix", "ADMIN_PASSWORD=Administratrix", "ADMIN_PASSWORD: must not contain the username"},
		{"a common password of the admin is refused", "-admin root", "ADMIN_PASSWORD=password123", "ADMIN_PASSWORD: is one of the most common"},

		{"a password reset in memory is refused", "-reset-password ada", "", "-store: is required with -import and -reset-password"},
		{"a password reset of an empty username is refused", "-reset-password=", "", "-reset-password: must not be empty"},
		{"a password reset of an unknown username is refused", "-reset-password nobody -store " + full, "", "-reset-password: nobody in " + full + ": not found"},
		{"a password reset to a short password is refused", "-reset-password ada -store " + full, "NEW_PASSWORD=short", "NEW_PASSWORD: must be at least 8 characters long"},

		{"an import into memory is refused", "-import " + full, "", "-store: is required with -import and -reset-password"},
		{"an import with a password reset is refused", "-import " + full + " -reset-password ada -store x.jsonl", "", "-import: cannot be set with -reset-password"},
		{"an import of a file that does not exist is refused", "-import " + dir + "/none -store " + dir + "/new.jsonl", "", "-import: open"},
		{"an import of a damaged file is refused", "-import " + broken + " -store " + dir + "/new.jsonl", "", "-import: line 2"},
		{"an import into a store with accounts is refused", "-import " + full + " -store " + full, "", "-import: the store already holds accounts"},

		{"a registration neither open nor closed is refused", "-registration ajar", "", "-registration: must be open or closed"},
		{"a password for etcd without a user is refused", "", "STDAUTH_ETCD_PASSWORD=hunter2", "STDAUTH_ETCD_USERNAME: is required"},

		{"a lifetime without a unit is refused", "-access-ttl 30", "", "-access-ttl: parse error"},
		{"a negative lifetime is refused", "-refresh-ttl -1h", "", "-refresh-ttl: must be from 1s"},
		{"a lifetime below a second is refused", "-access-ttl 999ms", "", "-access-ttl: must be from 1s"},
		{"a lifetime of more than 876000 hours is refused", "-session-ttl 876000h1ns", "", "-session-ttl: must be from 1s to 876000h"},
		{"an empty issuer is refused", "-issuer=", "", "-issuer: must not be empty"},
		{"an issuer of 201 bytes is refused", "-issuer=" + strings.Repeat("x", 201), "", "-issuer: must be 1 to 200 bytes"},

		{"the origin * is refused", "-cors-origin *", "", "-cors-origin: must be an origin"},
		{"an origin with the default port of HTTP is refused", "-cors-origin http://a.example.com:80", "", "-cors-origin: must be an origin as browsers send it"},
		{"an origin with the default port of HTTPS is refused", "-cors-origin https://a.example.com:443", "", "-cors-origin: must be an origin as browsers send it"},
		{"an origin of FTP is refused, as no page comes from there", "-cors-origin ftp://a.example.com", "", "-cors-origin: must be an origin as browsers send it"},
		{"an origin of a WebSocket is refused", "-cors-origin wss://a.example.com:8443", "", "-cors-origin: must be an origin as browsers send it"},
		{"an origin that is not ASCII is refused", "-cors-origin https://bücher.example", "", "-cors-origin: must be an origin as browsers send it"},
		{"an origin with a path is refused", "-cors-origin https://a.example.com/", "", "-cors-origin: must be an origin"},
		{"an origin with a port above 65535 is refused", "-cors-origin http://a.example.com:99999", "", "-cors-origin: must be an origin"},
		{"an origin with a wildcard in its host is refused", "-cors-origin https://*.example.com", "", "-cors-origin: must be an origin"},
		{"an origin without a scheme is refused", "-cors-origin a.example.com", "", "-cors-origin: must be an origin"},
		{"an empty origin in a list is refused", "", "STDAUTH_CORS_ORIGIN=https://a.example.com,", "-cors-origin (STDAUTH_CORS_ORIGIN): "},
		{"an IPv6 prefix that contains all IPv4 addresses and more is refused", "-trusted-proxy ::ffff:10.0.0.0/90", "", "-trusted-proxy: must be a CIDR"},
		{"a proxy that is not a CIDR prefix is refused", "-trusted-proxy 10.0.0.1", "", "-trusted-proxy: must be a CIDR"},

		{"a certificate without a key is refused", "-tls-cert " + cert, "", "-tls-cert, -tls-key: require each other"},
		{"a key without a certificate is refused", "-tls-key " + key, "", "-tls-cert, -tls-key: require each other"},
		{"a file that is not a certificate is refused", "-tls-cert " + key + " -tls-key " + key, "", "-tls-cert"},
		{"a certificate that does not exist is refused", "-tls-cert none.pem -tls-key " + key, "", "-tls-cert, -tls-key: open none.pem"},
		{"a certificate that does not exist stops an offline command too", "-reset-password ada -store " + full + " -tls-cert none.pem -tls-key " + key, "", "-tls-cert, -tls-key: open none.pem"},

		{"a public URL with a path is refused", "-public-url https://id.example.com/auth", "", "-public-url: must be a URL without a path"},
		{"a public URL with a query is refused", "-public-url https://id.example.com?x=1", "", "-public-url: must be a URL without a path"},
		{"a public URL with a fragment is refused", "-public-url https://id.example.com#x", "", "-public-url: must be a URL without a path"},
		{"a public URL with a user is refused", "-public-url https://me@id.example.com", "", "-public-url: must be a URL without a path"},
		{"a public URL without a scheme is refused", "-public-url id.example.com", "", "-public-url: must be a URL without a path"},
		{"a public URL of another scheme is refused", "-public-url ftp://id.example.com", "", "-public-url: must be a URL without a path"},
		{"a public URL of a scheme that only begins with http is refused", "-public-url httpx://id.example.com", "", "-public-url: must be a URL without a path"},
		{"a public URL without a host is refused", "", "STDAUTH_PUBLIC_URL=https://", "-public-url (STDAUTH_PUBLIC_URL): must be a URL without a path"},
		{"a public URL with a bracket in its host is refused", "-public-url https://id<b>.example.com", "", "-public-url: must be a URL without a path"},
		{"mail that is printed needs a link if nobody knows the URL of the server", "-addr :0 -mail terminal", "", "-mail-link: is required with -mail"},

		{"a client without a secret is refused", "", "INTROSPECT_CLIENT=api", "INTROSPECT_CLIENT: must be id:secret, with a secret of 16 bytes or more"},
		{"a client with a secret of 15 bytes is refused", "", "INTROSPECT_CLIENT=api:123456789012345", "INTROSPECT_CLIENT: must be id:secret"},
		{"a client without an ID is refused", "", "INTROSPECT_CLIENT=:1234567890123456", "INTROSPECT_CLIENT: must be id:secret"},

		{"a debug address on every address is refused", "-debug-addr :6060", "", "-debug-addr: must be a loopback address"},
		{"an unknown log format is refused", "-log-format xml", "", "-log-format: must be text or json"},
		{"an unknown log level is refused", "-log-level loud", "", "-log-level: slog: level string"},
	} {
		args := strings.Fields(test.args)
		if !strings.Contains(test.args, "-addr") && !strings.Contains(test.env, "STDAUTH_ADDR") {
			args = append(args, "-addr=127.0.0.1:0")
		}
		status, stdout, stderr := runFor(t, 5*time.Second, args, strings.Fields(test.env)...)
		if status != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "stdauth: ") || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: run(%q) with %q\n got %d, stdout %q, stderr %q\nwant 2, nothing, one line with %q", test.name, args, test.env, status, stdout, stderr, test.want)
		}
	}
	if new(settings).flags().Output() != io.Discard {
		t.Error("the flag package writes errors, want them from run alone, once")
	}
}

// TestDemoOrigins: with the demo accounts, the pages of this machine may call the server,
// and no others.
func TestDemoOrigins(t *testing.T) {
	s := server{Config: defaultSettings(t).Config}
	for origin, want := range map[string]bool{
		"http://localhost": true, "http://localhost:3000": true, "https://localhost:5173": true, "http://127.0.0.1:8080": true,
		"https://127.0.0.1": true, "http://[::1]:3000": true, "https://[::1]:3000": true, "http://app.localhost:3000": true,
		"https://a.b.localhost": true,

		"null": false, "http://localhost.evil.example": false, "http://app.localhost.evil.example:3000": false, "http://evillocalhost:3000": false,
		"http://.localhost": false, "http://evil.example/.localhost": false, "http://evil.example:1.localhost:3000": false,
		"http://evil@app.localhost": false, "http://app.localhost:evil": false, "http://app.localhost:65536": false, "http://127.0.0.2:3000": false,
		"http://[::2]:3000": false, "ftp://localhost": false, "ftp://app.localhost": false, "http://*.localhost:*": false,
	} {
		wantEqual(t, "allowedOrigin("+origin+")", s.allowedOrigin(origin), want)
	}
}

// TestPublicURL: a public URL is kept as an origin, without a slash at its end.
func TestPublicURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://id.example.com": "https://id.example.com", "https://ID.example.com/": "https://id.example.com",
		"http://127.0.0.1:8000": "http://127.0.0.1:8000", "http://[::1]:8000": "http://[::1]:8000",
	} {
		wantEqual(t, "-public-url "+given, need(parseSettings([]string{"-public-url", given}, envOf()))(t).PublicURL, want)
	}
}

// TestPublicURLByDefault: a server on a loopback address knows where its clients are. Any
// other must be told.
func TestPublicURLByDefault(t *testing.T) {
	t.Parallel()
	const path = "/.well-known/oauth-authorization-server"
	s := launch(t, nil)
	wantIn(t, "GET "+path+" on a loopback address", s.want(200, "GET", path, "", "").body, `"issuer":"`+s.url+`"`)
	s = launch(t, []string{"-addr", ":0", "-admin", "root"}, "ADMIN_PASSWORD=staple battery")
	s.want(404, "GET", path, "", "")
}

// TestErrorsAfterASignal: what fails then was interrupted, whatever the store says.
func TestErrorsAfterASignal(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for ctx, want := range map[context.Context]error{t.Context(): ErrUnavailable, ended: context.Canceled} {
		set := &settings{store: memory}
		err := set.withStore(ctx, slog.New(slog.DiscardHandler), func(Store) error { return ErrUnavailable })
		wantErr(t, "withStore", err, want)
	}
}

// TestCheck: -check asks a running server whether it is ready.
func TestCheck(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t)
	plain, secure := launch(t, nil), launch(t, []string{"-tls-cert", cert, "-tls-key", key})
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the disk is\x1bfull", http.StatusServiceUnavailable)
	}))
	defer full.Close()
	moved := httptest.NewServer(http.RedirectHandler(plain.url+"/readyz", http.StatusFound))
	defer moved.Close()
	closed := loopback(t)
	closed.Close()
	addr := func(url string) string { return url[strings.LastIndex(url, "/")+1:] }
	_, port, _ := net.SplitHostPort(addr(plain.url))
	for _, test := range []struct {
		name, args, env string
		status          int
		want            string
	}{
		{"a server that is ready", "-addr " + addr(plain.url), "", 0, ""},
		{"the address in the variable", "", "STDAUTH_ADDR=" + addr(plain.url), 0, ""},
		{"a server with TLS, whatever the name in its certificate", "-addr " + addr(secure.url) + " -tls-cert " + cert + " -tls-key " + key, "", 0, ""},
		{"the address of all interfaces", "-addr :" + port, "", 0, ""},
		{"the settings of another process do not matter", "-addr " + addr(plain.url), "STDAUTH_STORE=users.jsonl", 0, ""},
		{"a server whose store takes no changes", "-addr " + full.Listener.Addr().String(), "", 1, `503 Service Unavailable the disk is\x1bfull`},
		{"a redirect is not followed", "-addr " + moved.Listener.Addr().String(), "", 1, "302 Found"},
		{"no server", "-addr " + closed.Addr().String(), "", 1, "-check: dial tcp " + closed.Addr().String()},
		{"a server with TLS that is asked without", "-addr " + addr(secure.url), "", 1, "-check: " + addr(secure.url) + ": 400 Bad Request"},
		{"a server without TLS that is asked with it", "-addr " + addr(plain.url) + " -tls-cert " + cert, "", 1, "-check: tls: "},
	} {
		status, stdout, stderr := runFor(t, 20*time.Second, append(strings.Fields(test.args), "-check"), test.env)
		lines := strings.Count(stderr, "\n")
		if status != test.status || stdout != "" || lines != test.status || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: run(%s -check) = %d, %q, %q; want %d and %q", test.name, test.args, status, stdout, stderr, test.status, test.want)
		}
	}
}

// TestOpening: while its store is being read, a server is alive but not ready.
func TestOpening(t *testing.T) {
	set := defaultSettings(t)
	s := newServer(set.Config, nil, NewTokens("stdauth", settingsKey, ""), slog.New(slog.DiscardHandler))
	s.opening.Store(true)
	server := httptest.NewServer(s.handler())
	defer server.Close()
	c := &launched{t: t, url: server.URL}
	for _, test := range []struct {
		call   string
		status int
		kind   string
		want   string
	}{
		{"GET /healthz", 200, "application/json", `{"status":"ok"}`},
		{"GET /readyz", 503, "application/problem+json", `{"title":"Service Unavailable","status":503,"detail":"The store is being read","code":"store_unavailable"}`},
		{"GET /users/me/", 503, "application/problem+json", `"code":"store_unavailable"`},
		{"POST /users/", 503, "application/problem+json", `"code":"store_unavailable"`},
		{"GET /docs", 503, "application/problem+json", `"code":"store_unavailable"`},
		{"GET /nowhere", 503, "application/problem+json", `"code":"store_unavailable"`},
		{"DELETE /token", 503, "application/json", `"code":"store_unavailable"`},
		{"POST /token", 503, "application/json", `{"error":"temporarily_unavailable","error_description":"The store is being read","detail":"The store is being read","code":"store_unavailable"}`},
	} {
		method, path, _ := strings.Cut(test.call, " ")
		got := c.do(method, path, "", "")
		if got.status != test.status || got.header.Get("Content-Type") != test.kind || !strings.Contains(got.body, test.want) || got.header.Get("X-Request-Id") == "" {
			t.Errorf("%s = %d %q %s, want %d and %s", test.call, got.status, got.header, got.body, test.status, test.want)
		}
		if retry := got.header.Get("Retry-After"); (retry != "") != (test.status == 503) {
			t.Errorf("%s has Retry-After %q", test.call, retry)
		}
	}
}

func TestAnAddressInUseIsNoBadSetting(t *testing.T) {
	l := loopback(t)
	for _, args := range [][]string{
		{"-addr", l.Addr().String()},
		{"-addr", "127.0.0.1:0", "-debug-addr", l.Addr().String()},
	} {
		status, _, stderr := runFor(t, 5*time.Second, args)
		if status != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, l.Addr().String()) {
			t.Errorf("run(%q) = %d, stderr %q; want 1 and one line with the address", args, status, stderr)
		}
	}
}

// TestAnEndBeforeTheStart: a signal may arrive before the server listens.
func TestAnEndBeforeTheStart(t *testing.T) {
	file := adasFile(t, RoleAdmin)
	for _, args := range []string{"", "-store " + file, "-store " + file + " -tls-cert x"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var stdout, stderr bytes.Buffer
		want := 0
		if strings.Contains(args, "-tls-cert") {
			want = 2 // an invalid setting is reported even then
		}
		if got := run(ctx, append(strings.Fields(args), "-addr=127.0.0.1:0"), envOf("SECRET_KEY="+settingsKey), &stdout, &stderr); got != want {
			t.Errorf("run(%q) with a context that has ended = %d, want %d\n%s", args, got, want, &stderr)
		}
	}
}

func TestHelpShowsEachFlag(t *testing.T) {
	for _, flag := range []string{"-help", "-h"} {
		stdout := succeed(t, flag)
		wantIn(t, "run("+flag+")", stdout, append(flagNames(), "SECRET_KEY", "SECRET_KEY_PREVIOUS", "ADMIN_PASSWORD", "NEW_PASSWORD", "STDAUTH_ACCESS_TTL")...)
		for line := range strings.Lines(stdout) {
			if len(line) > 100 {
				t.Errorf("run(%s): a line has %d columns, want 100 at most: %s", flag, len(line), line)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	matches(t, 1, `^stdauth \S+, go1\.\S+, commit \S+\n$`, succeed(t, "-version -store=/nonexistent/x"))
}

// TestWarningsAtTheStart: a setting that is valid but probably a mistake causes a one-line
// warning.
func TestWarningsAtTheStart(t *testing.T) {
	t.Parallel()
	file := adasFile(t, RoleUser)
	for _, test := range []struct{ name, args, env, want string }{
		{"the default settings cause no warning", "-addr 127.0.0.1:0", "", ""},
		{"STDAUTH_SECRET_KEY beside SECRET_KEY causes no warning", "-addr 127.0.0.1:0", "SECRET_KEY=" + settingsKey + " STDAUTH_SECRET_KEY=x", ""},
		{"plain HTTP on every address causes a warning", "-addr :0 -admin root", "ADMIN_PASSWORD=correct-horse", "-addr: passwords and tokens are sent in clear"},
		{"a store without an admin causes a warning", "-addr 127.0.0.1:0 -store " + file, "SECRET_KEY=" + settingsKey, "there is no active admin; -admin NAME creates one"},
		{"a -session-ttl below -refresh-ttl causes a warning", "-addr 127.0.0.1:0 -session-ttl 1h", "", "-session-ttl is below -refresh-ttl"},
		{"ADMIN_PASSWORD without -admin causes a warning", "-addr 127.0.0.1:0", "ADMIN_PASSWORD=correct-horse", "ADMIN_PASSWORD is set, but -admin is not"},
		{"NEW_PASSWORD without -reset-password causes a warning", "-addr 127.0.0.1:0", "NEW_PASSWORD=correct-horse", "NEW_PASSWORD is set, but -reset-password is not"},
	} {
		s := launch(t, strings.Fields(test.args), strings.Fields(test.env)...)
		s.stop()
		var warnings []string
		for line := range strings.Lines(s.stderr.String()) {
			if strings.Contains(line, "level=WARN") {
				warnings = append(warnings, line)
			}
		}
		if all := strings.Join(warnings, ""); test.want == "" && all != "" || len(warnings) > 1 || !strings.Contains(all, test.want) {
			t.Errorf("%s: run(%s) with %q warns\n%swant one line with %q", test.name, test.args, test.env, all, test.want)
		}
	}
}

func TestDemoIsForTryingThingsOut(t *testing.T) {
	t.Parallel()
	for want, all := range map[bool][]string{
		true: {"", "-addr localhost:0", "-addr [::1]:0", "-addr 127.1.2.3:0", "-demo", "-admin root -demo"},
		false: {
			"-demo=false", "-addr :0", "-addr 0.0.0.0:0", "-addr [::]:0", "-addr 192.0.2.1:0", "-store users.jsonl", "-admin root",
			"-store users.jsonl -import old.jsonl", "-trusted-proxy 127.0.0.1/32", "-tls-cert x -tls-key y",
		},
	} {
		for _, args := range all {
			set := need(parseSettings(strings.Fields(args), envOf("SECRET_KEY="+settingsKey)))(t)
			wantEqual(t, "whether a server with "+args+" has the demo accounts", set.Demo, want)
		}
	}
	for _, u := range demoUsers {
		wantPassword(t, u, "secret")
	}
}

// TestAdmin: -admin creates an account once and never changes one.
func TestAdmin(t *testing.T) {
	t.Parallel()
	file := storePath(t)
	log := ""
	admin := func(args string, env ...string) (stdout string, u User) {
		t.Helper()
		s := launch(t, append(strings.Fields(args), "-store", file), append(env, "SECRET_KEY="+settingsKey)...)
		s.stop()
		log = s.stderr.String()
		u = need(accountsOf(t, file).UserByName(t.Context(), "root"))(t)
		return s.stdout.String(), u
	}

	stdout, made := admin("-admin root")
	m := matches(t, 1, `^the new password of root is ([A-Z2-7]{26}), shown only now\ncreated the admin root and set its password\n$`, stdout)[0]
	wantPassword(t, made, m[1])
	wantEqual(t, "whether the first -admin root creates an active admin", made.Role == RoleAdmin && !made.Disabled, true)
	for _, args := range []string{"-admin root", "-admin ROOT"} {
		if stdout, now := admin(args, "ADMIN_PASSWORD=correct horse"); stdout != "" || now != made || strings.Contains(log, "level=WARN") {
			t.Errorf("the second %s prints %q, leaves %+v and logs %s\nwant nothing printed or changed, and no warning", args, stdout, now, log)
		}
	}

	// An account that is no longer an admin is not changed either.
	f := openFile(t, file)
	f.create(newAdmin("boss"))
	f.update(made.ID, func(u *User) { u.Role, u.Disabled = RoleUser, true })
	f.close()
	if stdout, now := admin("-admin root"); stdout != "" || now.Role != RoleUser || !now.Disabled {
		t.Errorf("-admin root for a disabled user prints %q and leaves %+v; want nothing printed or changed", stdout, now)
	}
	wantIn(t, "the log of -admin root for a user", log, `level=WARN msg="the account of -admin exists, but is not an admin" account=root`)
}

func TestAdminPassword(t *testing.T) {
	t.Parallel()
	file := storePath(t)
	s := launch(t, []string{"-store", file, "-admin", "root"}, "SECRET_KEY="+settingsKey, "ADMIN_PASSWORD=correct horse")
	s.stop()
	if got := s.stdout.String() + s.stderr.String(); strings.Contains(got, "correct horse") {
		t.Errorf("the password from ADMIN_PASSWORD is printed: %s", got)
	}
	wantPassword(t, need(accountsOf(t, file).UserByName(t.Context(), "root"))(t), "correct horse")
}

// TestLostPassword: a generated password that nobody can read changes nothing.
func TestLostPassword(t *testing.T) {
	null := need(os.OpenFile(os.DevNull, os.O_WRONLY, 0))(t)
	defer null.Close()
	closed := need(os.Create(filepath.Join(t.TempDir(), "closed")))(t)
	closed.Close()
	file, absent := adasFile(t, RoleUser), storePath(t)
	before := readText(t, file)
	full := writerFunc(func([]byte) (int, error) { return 0, syscall.ENOSPC })
	outputs := map[string]io.Writer{"full": full, "the null device": null, "closed": closed}
	if runtime.GOOS == "windows" {
		delete(outputs, "the null device") // which Go cannot tell from a console
	}
	for name, stdout := range outputs {
		for _, args := range []string{"-admin root -store " + absent, "-admin root -store " + file, "-reset-password ada -store " + file} {
			var stderr bytes.Buffer
			status := run(t.Context(), append(strings.Fields(args), "-addr=127.0.0.1:0"), envOf("SECRET_KEY="+settingsKey), stdout, &stderr)
			if status != 1 || !strings.Contains(stderr.String(), "cannot be shown") || strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("%s with a standard output that is %s = %d, %q; want 1 and one line", args, name, status, &stderr)
			}
		}
	}
	wantEqual(t, "the file", readText(t, file), before)
	wantErr(t, "Stat of the file of a start that failed", errOf(os.Stat(absent)), os.ErrNotExist)
}

// TestAFailedStartLeavesNoFile: nor does a failed import.
func TestAFailedStartLeavesNoFile(t *testing.T) {
	l := loopback(t)
	dir := t.TempDir()
	taken := l.Addr().String()
	for _, args := range []string{
		"-addr " + taken, "-addr localhost", "-addr 127.0.0.1:0 -debug-addr " + taken, "-addr 127.0.0.1:0 -tls-cert none -tls-key none",
		"-addr 127.0.0.1:0 -import none", "-addr 127.0.0.1:0 -reset-password ada", "-addr 127.0.0.1:0 -public-url x",
	} {
		args += " -store " + filepath.Join(dir, "users.jsonl")
		if status, _, stderr := runFor(t, 5*time.Second, strings.Fields(args), "SECRET_KEY="+settingsKey); status == 0 {
			t.Errorf("run(%s) = 0, %s", args, stderr)
		}
		wantEqual(t, "files that run("+args+") leaves", len(need(os.ReadDir(dir))(t)), 0)
	}
}

func TestAccountsThatCannotBeCreatedStopTheStart(t *testing.T) {
	t.Parallel()
	demo, admin := &settings{Config: Config{Demo: true}}, &settings{adminName: "root"}
	lookUp := func(method string) bool { return method == "UserByName" }
	write := func(method string) bool { return !reads(method) }
	for _, test := range []struct {
		name  string
		set   *settings
		fails func(method string) bool
		err   error // of the store
		want  error
	}{
		{"the demo accounts cannot be written", demo, write, ErrUnavailable, ErrUnavailable},
		{"an admin cannot be written", admin, write, ErrUnavailable, ErrUnavailable},
		{"an admin cannot be read", admin, reads, ErrUnavailable, ErrUnavailable},
		{"an admin cannot be looked up", admin, lookUp, ErrUnavailable, ErrUnavailable},
		{"another copy has just created the admin", admin, write, ErrUsernameTaken, nil},
	} {
		store := &stagedStore{Store: NewMemoryStore(testLife), before: func(method string) error {
			if test.fails(method) {
				return test.err
			}
			return nil
		}}
		wantErr(t, test.name, test.set.createAccounts(t.Context(), store, io.Discard, slog.New(slog.DiscardHandler)), test.want)
	}
}

func TestResetPassword(t *testing.T) {
	t.Parallel()
	file := storePath(t)
	hash := Hasher{Iterations: 1}.Hash("forgotten")
	writeAccounts(t, file, User{Username: "Ada", Role: RoleAdmin, PasswordHash: hash}, User{Username: "bob", Role: RoleUser, PasswordHash: hash, Disabled: true})
	f := openFile(t, file)
	f.login(f.user(1))
	f.close()

	// No SECRET_KEY is required, as no token is issued.
	stdout := succeed(t, "-reset-password ada -store "+file, "NEW_PASSWORD=correct horse")
	wantEqual(t, "-reset-password ada", stdout, "set the password of Ada; its sessions have ended\n")
	stdout = succeed(t, "-reset-password bob -store "+file)
	m := matches(t, 1, `^the new password of bob is ([A-Z2-7]{26}), shown only now\nset the password of bob; its sessions have ended\n$`, stdout)[0]

	after := accountsOf(t, file)
	for name, password := range map[string]string{"ada": "correct horse", "bob": m[1]} {
		u, _ := after.UserByName(t.Context(), name)
		wantPassword(t, u, password)
		wantEqual(t, "whether "+name+" is enabled, with a new epoch", !u.Disabled && u.Epoch > 0, true)
	}
	wantEqual(t, "Sessions(Ada)", need(after.Sessions(t.Context(), 1))(t), nil)

	absent := storePath(t)
	status, _, stderr := runFor(t, 20*time.Second, []string{"-store", absent, "-reset-password", "ada"})
	if _, err := os.Stat(absent); status != 2 || !strings.Contains(stderr, "-reset-password: ada in "+absent+": not found") || err == nil {
		t.Errorf("-reset-password in a file that does not exist = %d, %q, and the file exists then: %t; want 2, the path, false", status, stderr, err == nil)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.jsonl"), filepath.Join(dir, "to.jsonl")
	writeAccounts(t, from, User{Username: "ada", Role: RoleAdmin}, User{Username: "bob", Role: RoleUser}, User{Username: "eve", Role: RoleUser}, User{Username: "last", Role: RoleUser})
	source := openFile(t, from)
	source.remove(2)
	source.remove(4)
	want := source.users(0, 10)
	// The imported file may be in use.
	wantEqual(t, "-import", succeed(t, "-store "+to+" -import "+from), "imported 2 accounts\n")
	target := openFile(t, to)
	wantEqual(t, "the accounts after the import", target.users(0, 10), want)
	wantEqual(t, "the ID after that of the last deleted account", target.create(newUser("new")).ID, 5)
}

func TestPasswordsOfTheServerCost600000Iterations(t *testing.T) {
	t.Parallel()
	file := adasFile(t, RoleAdmin)
	s := launch(t, []string{"-store", file}, "SECRET_KEY="+settingsKey)
	s.login("ada") // which replaces the weak hash
	s.want(201, "POST", "/users/", "", `{"username":"bob","password":"correct horse"}`)
	s.stop()
	wantEqual(t, "hashes of 600,000 iterations in the file", strings.Count(readText(t, file), "$pbkdf2-sha256$i=600000,l=32$"), 2)
}

// TestKeyRotation: a new key ends no session if the old one is SECRET_KEY_PREVIOUS, and
// all sessions otherwise.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	file := adasFile(t, RoleAdmin)
	oldKey, newKey := "SECRET_KEY=the-old-key-"+testKey, "SECRET_KEY=the-new-key-"+testKey
	s := launch(t, []string{"-store", file}, oldKey)
	token := s.login("ada")
	s.stop()
	for _, test := range []struct {
		name string
		env  []string
		want int
	}{
		{"a token is accepted after a restart with the same key", []string{oldKey}, 200},
		{"a token is accepted after a restart with a new key and its key as the previous one", []string{newKey, strings.Replace(oldKey, "KEY", "KEY_PREVIOUS", 1)}, 200},
		{"a token is refused after a restart with a new key alone", []string{newKey}, 401},
	} {
		s := launch(t, []string{"-store", file}, test.env...)
		wantEqual(t, test.name+": GET /users/me/", s.do("GET", "/users/me/", token, "").status, test.want)
		s.stop()
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t)
	s := launch(t, []string{"-tls-cert", cert, "-tls-key", key})
	if !strings.HasPrefix(s.url, "https://127.0.0.1:") {
		t.Errorf("the server logs that it listens on %s, want https://", s.url)
	}
	got := s.do("GET", "/healthz", "", "")
	if got.status != 200 || got.proto != "HTTP/2.0" {
		t.Errorf("GET /healthz = %d, %s; want 200, HTTP/2.0", got.status, got.proto)
	}
	addr := strings.TrimPrefix(s.url, "https://")
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if (err == nil) != want {
			t.Errorf("a handshake with %s: %v, want success: %t", tls.VersionName(version), err, want)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestRenewedCertificate: a renewed certificate is used from the next handshake on. No
// connection is closed, and a certificate that does not match its key is not used.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t)
	s := launch(t, []string{"-tls-cert", certFile, "-tls-key", keyFile})
	dial := func() (*tls.Conn, string) {
		conn := need(tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true}))(t)
		t.Cleanup(func() { conn.Close() })
		return conn, string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	replace := func(file, by string) {
		write(t, file, by)
		later := time.Now().Add(time.Minute) // file systems may have coarse times
		noError(t, os.Chtimes(file, later, later))
	}
	before, old := dial()

	newCert, newKey := writeCertificate(t)
	replace(certFile, readText(t, newCert))
	if _, got := dial(); got != old {
		t.Error("a certificate without its key is used")
	}
	dial()
	const unusable = "cannot use the new certificate; the old one stays in use"
	wantEqual(t, "lines of the log about a certificate without its key", strings.Count(s.stderr.String(), unusable), 1)
	replace(keyFile, readText(t, newKey))
	_, renewed := dial()
	if renewed == old {
		t.Error("the renewed certificate is not used")
	}
	if _, again := dial(); again != renewed {
		t.Error("the next handshake has another certificate")
	}
	noError(t, os.Remove(certFile))
	if _, got := dial(); got != renewed {
		t.Error("after the file was removed, the certificate in use has changed")
	}
	fmt.Fprint(before, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(before, line); err != nil || string(line) != "HTTP/1.1 200" {
		t.Errorf("a request on a connection from before the renewal: %q, %v; want a 200", line, err)
	}
}

// TestCertificateThatBecameReadable: files that could not be used are tried again within
// about a minute, though nothing shows a change, as after chmod. The log has one line a minute.
func TestCertificateThatBecameReadable(t *testing.T) {
	certFile, keyFile := writeCertificate(t)
	newCert, newKey := writeCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		var log printed
		conns, at := newPipeListener(), time.Now()
		l := need(listenTLS(conns, certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil))))(t)
		replace := func(file, text string) { // always with the same time, and a key with the same length
			write(t, file, text)
			noError(t, os.Chtimes(file, at, at))
		}
		served := func() string {
			go func() {
				conn := need(l.Accept())(t)
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
			conn := tls.Client(conns.dial(), &tls.Config{InsecureSkipVerify: true})
			defer conn.Close()
			noError(t, conn.Handshake())
			return string(conn.ConnectionState().PeerCertificates[0].Raw)
		}
		const unusable, using = "cannot use the new certificate", "using the new certificate"
		wantLog := func(when string, failed, used int) {
			t.Helper()
			if text := log.String(); strings.Count(text, unusable) != failed || strings.Count(text, using) != used {
				t.Errorf("%s, the log is\n%s\nwant %d failures and %d uses", when, text, failed, used)
			}
		}
		old := served()
		replace(certFile, readText(t, newCert))
		replace(keyFile, strings.Repeat("x", len(readText(t, newKey))))
		for range 100 {
			wantEqual(t, "the old certificate stays in use", served() == old, true)
		}
		wantLog("after 100 handshakes at once", 1, 0)
		time.Sleep(time.Minute)
		wantEqual(t, "the old certificate stays in use for another minute", served() == old, true)
		wantLog("after a minute", 2, 0)
		replace(keyFile, readText(t, newKey))
		time.Sleep(time.Minute)
		wantEqual(t, "the new certificate is in use once it can be read", served() != old, true)
		time.Sleep(time.Hour)
		served()
		wantLog("at the end", 2, 1)
	})
}

// TestRenewalsUnderLoad: while clients connect without pause, certificates are renewed as
// different tools do it. No handshake fails, and the last certificate is in use at the end.
func TestRenewalsUnderLoad(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t)
	s := launch(t, []string{"-tls-cert", certFile, "-tls-key", keyFile, "-log-level", "info"})
	var clients sync.WaitGroup
	done, stop := context.WithCancel(t.Context())
	for range 4 {
		clients.Go(func() {
			for done.Err() == nil {
				client := s.client() // so each request is a connection
				resp, err := client.Get(s.url + "/healthz")
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("GET /healthz during a renewal: %v", err)
					return
				}
				resp.Body.Close()
				client.CloseIdleConnections()
			}
		})
	}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
	}
	cut := func(from, to string) { // in two writes
		text := readText(t, from)
		write(t, to, text[:len(text)/2])
		write(t, to, text)
	}
	var newCert string
	for i := range 30 {
		var newKey string
		newCert, newKey = writeCertificate(t)
		text := readText(t, newCert)
		put := []func(from, to string){move, cut}[i%2]
		if put(newCert, certFile); i%3 == 0 {
			time.Sleep(5 * time.Millisecond) // for clients that see one file without the other
		}
		put(newKey, keyFile)
		newCert = text
		time.Sleep(5 * time.Millisecond) // file systems may have coarse times
	}
	conn := need(tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true}))(t)
	conn.Close()
	block, _ := pem.Decode([]byte(newCert))
	if !bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, block.Bytes) {
		t.Error("after the last renewal, another certificate is in use")
	}
	stop()
	clients.Wait()
}

func TestDebugListener(t *testing.T) {
	t.Parallel()
	file := adasFile(t, RoleAdmin)
	s := launch(t, []string{"-store", file, "-debug-addr", "127.0.0.1:0"}, "SECRET_KEY="+settingsKey)
	s.want(404, "GET", "/debug/vars", "", "") // of the API
	s.login("ada")
	s.do("POST", "/token", "", "username=ada&password=wrong")

	s.url = matches(t, 1, `msg=debugging metrics=(\S+)/metrics`, s.stderr.String())[0][1]
	got := s.do("GET", "/metrics", "", "")
	for _, sample := range []string{
		`stdauth_logins_total{outcome="ok"} 1`, `stdauth_logins_total{outcome="failed"} 1`, `stdauth_errors_total{code="incorrect_login"} 1`,
		`stdauth_requests_total{method="POST",route="/token",class="2xx"} 1`, `stdauth_requests_total{method="POST",route="/token",class="4xx"} 1`,
		`stdauth_requests_total{method="",route="",class="4xx"} 1`, `stdauth_requests_total{method="GET",route="/users/",class="2xx"} 0`,
		`stdauth_requests_total{method="GET",route="/users/",class="1xx"} 0`, `stdauth_requests_total{method="GET",route="/users/",class="5xx"} 0`,
		"# TYPE stdauth_replays_total counter\nstdauth_replays_total 0", "stdauth_sessions_started_total 1", "stdauth_etcd_failovers_total 0",
		"stdauth_mail_queue_length 0", "stdauth_hash_queue_length 0", "stdauth_request_duration_seconds_count 3",
		fmt.Sprint("stdauth_store_file_bytes ", len(readText(t, file))), `stdauth_request_duration_seconds_bucket{le="+Inf"} 3`, "# TYPE stdauth_request_duration_seconds histogram",
	} {
		wantIn(t, "GET /metrics", got.body, sample+"\n")
	}
	wantIn(t, "GET /debug/vars", s.do("GET", "/debug/vars", "", "").body, `"memstats": {`)
	var bounds []string
	for _, m := range matches(t, 1, `_bucket\{le="([^"]*)"\}`, got.body) {
		bounds = append(bounds, m[1])
	}
	wantEqual(t, "the buckets of GET /metrics", bounds, strings.Fields("0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf"))
	for profile, want := range map[string]int{
		"": 200, "heap": 200, "cmdline": 200, "symbol": 200, "trace?seconds=0.01": 200, "profile?seconds=1": 200,
		"profile?seconds=61": 400, "trace?seconds=60.1": 400, "trace?seconds=NaN": 400, "trace?seconds=1e999": 400, "heap?seconds=9999": 400,
	} {
		s.want(want, "GET", "/debug/pprof/"+profile, "", "")
	}
	s.want(405, "POST", "/debug/pprof/profile", "", "seconds=9999")
	for _, test := range []struct {
		name, host, header string
		want               int
	}{
		{"a page that makes its own name resolve to 127.0.0.1 (DNS rebinding)", "evil.example.com", "", 421},
		{"such a page, with a port", "evil.example.com:6060", "", 421},
		{"a tool of this machine", "localhost:6060", "", 200},
		{"the IPv6 loopback address", "[::1]:6060", "", 200},
		{"a person who has typed the address", "localhost:6060", "Sec-Fetch-Site: none", 200},
		{"a link on one of these pages", "localhost:6060", "Sec-Fetch-Site: same-origin", 200},
		{"an image in a page of another site", "localhost:6060", "Sec-Fetch-Site: cross-site", 403},
		{"a page of another port of this machine", "localhost:6060", "Sec-Fetch-Site: same-site", 403},
		{"a page in a browser without Sec-Fetch-Site", "localhost:6060", "Origin: https://evil.example.com", 403},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.url+"/debug/vars", nil)
		r.Host = test.host
		if name, value, ok := strings.Cut(test.header, ": "); ok {
			r.Header.Set(name, value)
		}
		resp := need(http.DefaultClient.Do(r))(t)
		resp.Body.Close()
		wantEqual(t, "GET /debug/vars by "+test.name, resp.StatusCode, test.want)
	}
}

// TestNothingStartsBeforeTheSettingsAreGood: a server that refuses a setting has asked no
// mail server yet, whose answer would be a second line.
func TestNothingStartsBeforeTheSettingsAreGood(t *testing.T) {
	taken, smtp := loopback(t), loopback(t)
	args := append(strings.Fields(mailFlags), "-addr=127.0.0.1:0", "-mail=smtp://"+smtp.Addr().String(), "-debug-addr="+taken.Addr().String())
	for range 500 { // a mail server is asked in the background, so not in each run
		var stderr strings.Builder
		if got := run(t.Context(), args, envOf(), io.Discard, &stderr); got != 1 || strings.Count(stderr.String(), "\n") != 1 {
			t.Fatalf("run(%q) = %d with %q, want 1 with one line", args, got, &stderr)
		}
	}
	smtp.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if conn, err := smtp.Accept(); err == nil {
		conn.Close()
		t.Error("the mail server was asked, want nothing before all settings are good")
	}
}

// TestLog: if the output is not a terminal, the greeting is lines of the log.
func TestLog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args      string
		want, not []string
	}{
		{"", []string{"level=INFO msg=listening url=http://127.0.0.1:", `user="johndoe / secret" admin="admin / secret"`, `try="curl -d username=johndoe`,
			`key="random`, "msg=request", "route=/healthz", "msg=stopping"}, nil},
		{"-log-format json", []string{`"msg":"listening","url":"http://127.0.0.1:`, `"msg":"request"`}, []string{"msg="}},
		{"-demo=false", []string{"msg=listening", `key="random`}, []string{"johndoe", "try="}},
	} {
		s := launch(t, strings.Fields(test.args))
		s.do("GET", "/healthz", "", "")
		s.stop()
		wantEqual(t, "the standard output of run("+test.args+")", s.stdout.String(), "")
		wantIn(t, "the log of run("+test.args+")", s.stderr.String(), test.want...)
		for _, not := range test.not {
			if strings.Contains(s.stderr.String(), not) {
				t.Errorf("run(%s) logs %s:\n%s", test.args, not, s.stderr)
			}
		}
	}
	// At the level warn, a server without problems logs nothing.
	status, stdout, stderr := runFor(t, 200*time.Millisecond, []string{"-addr=127.0.0.1:0", "-log-level=warn"})
	if status != 0 || stdout+stderr != "" {
		t.Errorf("run(-log-level=warn) = %d, %q, %q; want 0, nothing, nothing", status, stdout, stderr)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestTheEndWaitsForItsLog: the last lines of the log are not lost if its reader is slow.
func TestTheEndWaitsForItsLog(t *testing.T) {
	t.Parallel()
	var got, out bytes.Buffer
	slow := writerFunc(func(b []byte) (int, error) {
		time.Sleep(50 * time.Millisecond)
		return got.Write(b)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	wantEqual(t, "run", run(ctx, []string{"-addr=127.0.0.1:0"}, envOf(), &out, slow), 0)
	wantIn(t, "the log", got.String(), "msg=stopping\n")
}

// TestGreetingsCommandWorks: the command in the greeting works as printed.
func TestGreetingsCommandWorks(t *testing.T) {
	t.Parallel()
	s := launch(t, nil)
	m := matches(t, 1, `try="curl -d (\S+) -d (\S+) (http://[^ "]+)"`, s.stderr.String())[0]
	s.url = m[3]
	wantIn(t, "the response to that command", s.want(200, "POST", "", "", m[1]+"&"+m[2]).body, "access_token")
}

func TestURL(t *testing.T) {
	for _, test := range []struct {
		tls        bool
		addr, want string
	}{
		{false, "127.0.0.1:8000", "http://127.0.0.1:8000"},
		{true, "127.0.0.1:8443", "https://127.0.0.1:8443"},
		{false, "[::1]:80", "http://[::1]:80"},
		{false, "0.0.0.0:80", "http://localhost:80"}, // a browser cannot open 0.0.0.0
		{false, "[::]:80", "http://localhost:80"},
	} {
		addr := need(net.ResolveTCPAddr("tcp", test.addr))(t)
		set := settings{Config: Config{TLS: test.tls}}
		wantEqual(t, "url("+test.addr+")", set.url(addr), test.want)
	}
}

func TestTerminalLines(t *testing.T) {
	for _, test := range []struct {
		name  string
		level slog.Level
		log   func(*slog.Logger)
		want  string
	}{
		{"a request of an admin has the IDs of the admin and of the account", slog.LevelInfo, func(l *slog.Logger) {
			l.Info("request", "method", "DELETE", "route", "/users/{id}", "status", 204, "user", int64(2), "target", int64(7), "took", 0.2)
		}, "DELETE /users/{id} 204 0ms user 2 target 7\n"},
		{"a request without a token has no user", slog.LevelInfo, func(l *slog.Logger) {
			l.Info("request", "method", "GET", "route", "/healthz", "status", 200, "took", 1.6, "user", int64(0))
		}, "GET /healthz 200 2ms\n"},
		{"a file of the page is not shown", slog.LevelInfo, func(l *slog.Logger) {
			l.Info("request", "method", "GET", "route", "/docs/{file}", "status", 200, "took", 0.1)
		}, ""},
		{"a file of the page is shown at the level debug", slog.LevelDebug, func(l *slog.Logger) {
			l.Info("request", "method", "GET", "route", "/docs/{file}", "status", 200, "took", 0.1)
		}, "GET /docs/{file} 200 0ms\n"},
		{"a warning has its level and its attributes", slog.LevelInfo, func(l *slog.Logger) {
			l.Warn("the disk is full", "file", "users.jsonl")
		}, "WARN the disk is full file=users.jsonl\n"},
		{"text that a terminal would not show as it is gets quoted", slog.LevelInfo, func(l *slog.Logger) {
			l.Error("request failed", "error", "\x1b]0;title\anext\nline", "stack", "a\nb")
		}, `ERROR request failed error="\x1b]0;title\anext\nline" stack=a` + "\nb\n"},
		{"a message below the level is not shown", slog.LevelWarn, func(l *slog.Logger) { l.Info("stopping") }, ""},
	} {
		var out []string // one for each write, so the lines of two requests do not mix
		w := writerFunc(func(b []byte) (int, error) { out = append(out, string(b)); return len(b), nil })
		test.log(slog.New(terminalHandler{slog.NewTextHandler(nil, &slog.HandlerOptions{Level: test.level}), w}))
		_, got, _ := strings.Cut(strings.Join(out, "|"), " ")
		wantEqual(t, test.name+": what is written once, after the time", got, test.want)
	}
}

// TestGracefulStop: a request under way when the signal arrives is completed.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	s := launch(t, []string{"-demo=false"})
	conn := need(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))(t)
	defer conn.Close()
	const body = `token=nonsense`
	fmt.Fprintf(conn, "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(body))
	buf := make([]byte, 4096)
	n, err := conn.Read(buf) // the handler asks for the body: the request is under way
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 100 ") {
		t.Fatalf("POST /revoke: %q, %v; want 100 Continue", buf[:n], err)
	}

	s.end()
	for dials := 0; ; dials++ { // until no new connection is accepted
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			break
		}
		c.Close()
		if dials > 1000 {
			t.Fatal("the server accepts connections after the signal")
		}
		time.Sleep(time.Millisecond)
	}
	io.WriteString(conn, body)
	rest, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(rest), "HTTP/1.1 200 ") {
		t.Errorf("POST /revoke, under way at the signal: %q, %v; want 200", rest, err)
	}
}

func TestAStopTakes10sAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
		go server.Serve(l)
		client := l.dial()
		io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		start := time.Now()
		shutDown(server, nil)
		wantEqual(t, "the time that shutDown with a request that never ends took", time.Since(start), 10*time.Second)
		wantErr(t, "Read of the client after that", errOf(client.Read(make([]byte, 1))), io.EOF)
		client.Close()
	})
}

// TestSlowClients: a client that sends too little cannot keep a connection.
func TestSlowClients(t *testing.T) {
	for _, test := range []struct {
		name, sends string
		want        time.Duration
	}{
		{"a client that sends nothing is disconnected after 10 s", "", 10 * time.Second},
		{"a client that sends half a header is disconnected after 10 s", "GET / HTTP/1.1\r\nHost: ", 10 * time.Second},
		{"a client that sends half a body is disconnected after 30 s", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", 30 * time.Second},
		{"a client that sends nothing after a response is disconnected after 2 minutes", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
			server := newHTTPServer(handler, slog.New(slog.DiscardHandler))
			l := newPipeListener()
			go server.Serve(l)
			client := l.dial()
			start := time.Now()
			go io.WriteString(client, test.sends)
			io.Copy(io.Discard, client)
			if took := time.Since(start); took < test.want || took > test.want+time.Second {
				t.Errorf("%s: it took %v, want %v", test.name, took, test.want)
			}
			server.Close()
		})
	}
}

// settingsKey is a SECRET_KEY of the minimum length.
const settingsKey = "0123456789abcdef0123456789abcdef"

func envOf(pairs ...string) func(string) string {
	env := map[string]string{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return func(name string) string { return env[name] }
}

// runFor calls run and ends it after d, unless it returns before.
func runFor(t *testing.T, d time.Duration, args []string, env ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var out, err printed
	status = run(ctx, args, envOf(env...), &out, &err)
	return status, out.String(), err.String()
}

// succeed runs a command that must end with exit status 0 and an empty standard error.
func succeed(t *testing.T, args string, env ...string) (stdout string) {
	t.Helper()
	status, stdout, stderr := runFor(t, 20*time.Second, strings.Fields(args), env...)
	if status != 0 || stderr != "" {
		t.Errorf("run(%s) = %d, stderr %q; want 0 and nothing", args, status, stderr)
	}
	return stdout
}

// A launched server is run in this process.
type launched struct {
	t              *testing.T
	url            string
	stdout, stderr *printed
	end            func()
	status         chan int
	once           sync.Once // for stop
}

// launch returns when the server listens. It stops at the end of the test.
func launch(t *testing.T, args []string, env ...string) *launched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &launched{t: t, stdout: &printed{}, stderr: &printed{}, end: cancel, status: make(chan int, 1)}
	t.Cleanup(cancel)
	go func() {
		s.status <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), envOf(env...), s.stdout, s.stderr)
	}()
	listening := regexp.MustCompile(`listening"?[ ,]"?url[=":]+(https?://[^ "]+)`)
	for range 2000 {
		if m := listening.FindStringSubmatch(s.stderr.String()); m != nil {
			s.url = m[1]
			t.Cleanup(s.stop)
			return s
		}
		select {
		case status := <-s.status:
			t.Fatalf("run(%q) = %d before it listened\n%s", args, status, s.stderr)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("run(%q) does not log that it listens\n%s", args, s.stderr)
	return nil
}

// stop ends the server and checks that its exit status is 0.
func (s *launched) stop() {
	s.t.Helper()
	s.once.Do(func() {
		s.end()
		select {
		case status := <-s.status:
			if status != 0 {
				s.t.Errorf("run = %d after its context ended, want 0\n%s", status, s.stderr)
			}
		case <-time.After(20 * time.Second):
			s.t.Fatal("run does not end with its context")
		}
	})
}

// A received has the parts of a response that tests check.
type received struct {
	status int
	proto  string
	header http.Header
	body   string
}

// do sends a request. A body that begins with { is JSON, and any other a form.
func (s *launched) do(method, path, token, body string) received {
	s.t.Helper()
	r := need(http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body)))(s.t)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	client := s.client()
	defer client.CloseIdleConnections()
	resp := need(client.Do(r))(s.t)
	defer resp.Body.Close()
	return received{resp.StatusCode, resp.Proto, resp.Header, string(need(io.ReadAll(resp.Body))(s.t))}
}

// want is do for a status that is known.
func (s *launched) want(status int, method, path, token, body string) received {
	s.t.Helper()
	got := s.do(method, path, token, body)
	if got.status != status {
		s.t.Errorf("%s %s = %d %s, want %d", method, path, got.status, got.body, status)
	}
	return got
}

// client returns a client that uses HTTP/2 with TLS.
func (s *launched) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
}

// login logs in with the password "secret".
func (s *launched) login(username string) (token string) {
	s.t.Helper()
	var response struct {
		Token string `json:"access_token"`
	}
	got := s.want(200, "POST", "/token", "", "username="+username+"&password=secret")
	noError(s.t, json.Unmarshal([]byte(got.body), &response))
	return response.Token
}

// printed has the output of a program, and may be read while the program runs.
type printed struct {
	mu sync.Mutex
	b  strings.Builder
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *printed) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b.Reset()
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// A pipeListener has connections that work in testing/synctest.
type pipeListener struct {
	conns chan net.Conn
	close func()
}

func newPipeListener() *pipeListener {
	conns := make(chan net.Conn)
	return &pipeListener{conns, sync.OnceFunc(func() { close(conns) })}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if c, open := <-l.conns; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *pipeListener) Close() error {
	l.close()
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// writeAccounts creates a file store with users, whose IDs count up from 1.
func writeAccounts(t *testing.T, file string, users ...User) {
	t.Helper()
	f := openFile(t, file)
	for _, u := range users {
		u.CreatedAt = longAgo
		f.create(u)
	}
	f.close()
}

// adasFile returns a file store with one account: ada, whose password is "secret".
func adasFile(t *testing.T, role Role) (file string) {
	t.Helper()
	file = storePath(t)
	writeAccounts(t, file, User{Username: "ada", Role: role, PasswordHash: Hasher{Iterations: 1}.Hash("secret")})
	return file
}

// wantPassword checks that an account has a password, with a hash of full strength.
func wantPassword(t *testing.T, u User, password string) {
	t.Helper()
	if ok, weak := (Hasher{Iterations: DefaultIterations}).Check(password, u.PasswordHash); !ok || weak {
		t.Errorf("Check(%s, the hash of %s) = %t, weak %t; want true, false", password, u.Username, ok, weak)
	}
}

func accountsOf(t *testing.T, file string) *MemoryStore {
	t.Helper()
	return need(ReadFileStore(t.Context(), file))(t)
}

func flagNames() (names []string) {
	new(settings).flags().VisitAll(func(f *flag.Flag) { names = append(names, "-"+f.Name) })
	return names
}

// writeCertificate makes a self-signed certificate for 127.0.0.1.
func writeCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key := need(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err1 := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	der, err2 := x509.MarshalPKCS8PrivateKey(key)
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	err3 := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600)
	err4 := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	noError(t, errors.Join(err1, err2, err3, err4))
	return certFile, keyFile
}

// buildServer builds the program as "go build" does.
func buildServer(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "stdauth")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}
