package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests run what docs/stack.md says with the programs that it is for. Each also takes
// decisive lines out of the page's text, one at a time, and wants a failure: so no line is
// there without need, and no check passes by itself.

// A proxy is a program that admits requests to an application.
type proxy struct {
	section  string // of docs/stack.md
	language string // of its block
	start    func(t testing.TB, dir, config string) *exec.Cmd
	offline  bool        // it verifies tokens by itself
	disabled int         // the status for a disabled account
	nameOnly bool        // it passes on the name and the role, and nothing else
	decisive [][2]string // what is taken out of the block, and what replaces it
}

var proxies = []proxy{
	{section: "nginx", language: "nginx", start: startNginx, disabled: http.StatusForbidden, decisive: [][2]string{
		{"auth_request /forward-auth;", ""}, {"auth_request /forward-auth-admin;", "auth_request /forward-auth;"}, {"?role=admin", ""},
		{"auth_request_set $auth_user $upstream_http_remote_user;", "set $auth_user $http_remote_user;"},
		{"proxy_set_header Remote-User $auth_user;", ""}, {"proxy_set_header Remote-Email $auth_email;", ""},
		{"proxy_set_header Remote-Name $auth_name;", ""}, {"proxy_set_header Remote-Groups $auth_groups;", ""},
		{"OPTIONS OPTIONS;", ""},
	}},
	{section: "Caddy", language: "caddy", start: startCaddy, disabled: http.StatusForbidden, decisive: [][2]string{
		{"request_header -Remote-User", ""}, {"?role=admin", "?"}, {"uri /forward-auth?\n", "uri /forward-auth\n"},
		{"@login not method OPTIONS", "@login path *"}, {"copy_headers Remote-User", "copy_headers"}, {"forward_auth @login", "forward_auth @admin"},
	}},
	{section: "HAProxy", language: "haproxy", start: startHAProxy, offline: true, nameOnly: true, decisive: [][2]string{
		{"hs256 signed", "hs256"}, {"for_us in_time", "for_us"}, {"stdauth\n    acl for_us", "other\n    acl for_us"}, {"hdr WWW-Authenticate Bearer", ""},
		{"http-request return status 403 if { path -m beg /admin/ } !METH_OPTIONS !is_admin", ""}, {"http-request del-header Remote-Email", ""},
		{"http-request set-header Remote-User %[http_auth_bearer,jwt_payload_query('$.username')]", ""},
		{"unless METH_OPTIONS || hs256", "unless hs256"},
	}},
	{section: "Apache", language: "apache", start: startApache, disabled: http.StatusUnauthorized, nameOnly: true, decisive: [][2]string{
		{"Require oauth2_claim role:admin", "Require oauth2_claim active:true"}, {"RequestHeader unset Remote-Email early", ""},
		{"client_secret_basic", "none"}, {"AuthzSendForbiddenOnFailure On", ""}, {"Require method OPTIONS", ""}, {"&remote_user_claim=username", ""},
		{"RequestHeader set Remote-Groups expr=%{env:OAUTH2_role}", ""},
	}},
}

// TestStackProxies: a proxy admits who may use the application, and says who it is.
func TestStackProxies(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKeyHex, "INTROSPECT_CLIENT=rs0:"+resourceSecret)
	people := newPeople(t, s)
	for _, p := range proxies {
		t.Run(p.section, func(t *testing.T) {
			text := stackBlock(t, p.section, p.language, 0)
			wrong, err := p.try(t, s, people, text)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range wrong {
				t.Error(w)
			}
			if p.section == "Caddy" && strings.HasPrefix(shell(t, "", "caddy version"), "2.6") {
				p.decisive = append(p.decisive, [2]string{"request_header @no_email -Remote-Email", ""})
			}
			for _, change := range p.decisive {
				wrong, err := p.try(t, s, people, replaced(t, text, change))
				switch {
				case err != nil:
					t.Errorf("with %q instead of %q it does not start: %v", change[1], change[0], err)
				case len(wrong) == 0:
					t.Errorf("nothing is wrong with %q instead of %q", change[1], change[0])
				default:
					t.Logf("with %q instead of %q: %s", change[1], change[0], wrong[0])
				}
			}
		})
	}
}

// TestStackTrap: with /introspect in place of /forward-auth, nginx lets everybody in, as the
// page says. The response to an invalid token is a 200.
func TestStackTrap(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKeyHex)
	people := newPeople(t, s)
	nginx := proxies[0]
	asked := "proxy_pass http://127.0.0.1:8000/introspect;\nproxy_method POST;\nproxy_set_body token=$http_authorization;\n" +
		"proxy_set_header Content-Type application/x-www-form-urlencoded;\nproxy_set_header Authorization \"Bearer " + people.admin + "\";\n"
	text := stackBlock(t, nginx.section, nginx.language, 0)
	text = replaced(t, text, [2]string{"proxy_pass http://127.0.0.1:8000/forward-auth;\n        proxy_method $auth_method;\n        proxy_pass_request_body off;\n        proxy_set_header Content-Length \"\";\n", asked})
	wrong, err := nginx.try(t, s, people, text)
	if err != nil {
		t.Fatal(err)
	}
	if want := "an invalid token: GET /: the status is 200, want 401"; !slices.Contains(wrong, want) {
		t.Errorf("nginx that asks /introspect: %q, want %q", wrong, want)
	}
}

const (
	testKeyHex     = "6d7f0f6f2f0c4b0a9b6e3a5c8d1e2f30415263748596a7b8c9dae0f102132435"
	resourceSecret = "a+secret:of%two words"
)

// people has a token of each kind.
type people struct{ john, refresh, admin, nameless, loggedOut, disabled, expired string }

func newPeople(t testing.TB, s *server) (p people) {
	t.Helper()
	for _, name := range []string{"nameless", "disabled"} {
		resp, err := http.Post(s.URL+"/users/", "application/json", strings.NewReader(`{"username":"`+name+`","password":"newpassword"}`))
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, resp, http.StatusCreated)
	}
	p.john, p.refresh = logIn(t, s, "johndoe", "secret")
	p.admin, _ = logIn(t, s, "admin", "secret")
	p.nameless, _ = logIn(t, s, "nameless", "newpassword")
	p.disabled, _ = logIn(t, s, "disabled", "newpassword")
	p.loggedOut, _ = logIn(t, s, "johndoe", "secret")
	resp, err := http.PostForm(s.URL+"/revoke", url.Values{"token": {p.loggedOut}})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusOK)
	req, err := http.NewRequest("PATCH", s.URL+"/users/4", strings.NewReader(`{"disabled":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + p.admin}}
	if resp, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusOK)
	if resp, err = http.PostForm(s.URL+"/token", url.Values{"username": {"johndoe"}, "password": {"secret"}, "expires_in": {"1"}}); err != nil {
		t.Fatal(err)
	}
	p.expired = decode[struct {
		AccessToken string `json:"access_token"`
	}](t, resp, http.StatusOK).AccessToken
	time.Sleep(1100 * time.Millisecond)
	return p
}

// try starts the proxy with a configuration and returns what is wrong with it.
func (p *proxy) try(t *testing.T, s *server, people people, config string) (wrong []string, err error) {
	t.Helper()
	var mu sync.Mutex
	var seen http.Header // by the application
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = r.Header.Clone()
	}))
	defer app.Close()
	listen := etcdFreeAddress(t)
	config = strings.NewReplacer("127.0.0.1:8000", s.Addr, "127.0.0.1:8080", listen, "127.0.0.1:3000", app.Listener.Addr().String()).Replace(config)
	stop, err := startProgram(t, p.start(t, t.TempDir(), config), listen)
	if err != nil {
		return nil, err
	}
	defer stop()

	// ask sends a request and compares the response and what the application has seen.
	forged := map[string]string{"Remote-User": "root", "Remote-Email": "root@example.com", "Remote-Name": "Root", "Remote-Groups": "admin"}
	ask := func(what, method, path, token string, status int, want ...string) {
		mu.Lock()
		seen = nil
		mu.Unlock()
		req, err := http.NewRequest(method, "http://"+listen+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range forged {
			req.Header.Set(name, value)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		add := func(format string, a ...any) {
			wrong = append(wrong, fmt.Sprintf("%s: %s %s: ", what, method, path)+fmt.Sprintf(format, a...))
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			add("%v", err)
			return
		}
		resp.Body.Close()
		mu.Lock()
		defer mu.Unlock()
		if resp.StatusCode != status {
			add("the status is %d, want %d", resp.StatusCode, status)
		}
		if status == http.StatusUnauthorized && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
			add("WWW-Authenticate is %q, want Bearer", resp.Header.Get("WWW-Authenticate"))
		}
		if (seen != nil) != (status == http.StatusOK) {
			add("the application was asked: %v", seen != nil)
		}
		for i, name := range []string{"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name"} {
			if seen == nil || i >= len(want) {
				continue
			}
			if p.nameOnly && i > 1 {
				want[i] = ""
			}
			if seen.Get(name) != want[i] {
				add("the application sees %s: %q, want %q", name, seen.Get(name), want[i])
			}
		}
	}
	ask("no token", "GET", "/", "", 401)
	ask("an invalid token", "GET", "/", people.john[:len(people.john)-4]+"AAAA", 401)
	ask("a refresh token", "GET", "/", people.refresh, 401)
	ask("an expired token", "GET", "/", people.expired, 401)
	ask("a user's token", "GET", "/page?token=x&role=admin", people.john, 200, "johndoe", "user", "johndoe@example.com", "John Doe")
	ask("a user's form", "POST", "/form", people.john, 200, "johndoe", "user", "johndoe@example.com", "John Doe")
	ask("a user without email and name", "GET", "/", people.nameless, 200, "nameless", "user", "", "")
	ask("a user where only admins may go", "GET", "/admin/?role=user", people.john, 403)
	ask("nobody where only admins may go", "GET", "/admin/", "", 401)
	ask("an admin where only admins may go", "GET", "/admin/", people.admin, 200, "admin", "admin", "admin@example.com", "Admin User")
	ask("a preflight", "OPTIONS", "/", "", 200, "", "", "", "")
	ask("a preflight where only admins may go", "OPTIONS", "/admin/", "", 200, "", "", "", "")
	if !p.offline {
		ask("a token that has been revoked", "GET", "/", people.loggedOut, 401)
		ask("a disabled account", "GET", "/", people.disabled, p.disabled)
	}
	return wrong, nil
}

// startProgram starts a program and waits until it listens on an address. stop ends it.
func startProgram(t testing.TB, cmd *exec.Cmd, address string) (stop func(), err error) {
	t.Helper()
	log := &output{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-done
		}
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			text := log.String()
			t.Logf("%s says at the end:\n%s", cmd.Path, text[max(0, len(text)-2000):])
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			return stop, fmt.Errorf("%s ended: %v\n%s", cmd.Path, err, log)
		default:
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return stop, nil
		}
	}
	stop()
	return stop, errors.New(cmd.Path + " does not listen\n" + log.String())
}

func startNginx(t testing.TB, dir, config string) *exec.Cmd {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	writeFile(t, filepath.Join(dir, "app.conf"), config)
	writeFile(t, filepath.Join(dir, "nginx.conf"), user+`daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	include app.conf;
}
`)
	return exec.Command(find(t, "apt-get install nginx-light", "nginx", "/usr/sbin/nginx"), "-p", dir, "-e", "stderr", "-c", "nginx.conf")
}

func startCaddy(t testing.TB, dir, config string) *exec.Cmd {
	writeFile(t, filepath.Join(dir, "Caddyfile"), "{\n\tadmin off\n}\n"+config)
	cmd := exec.Command(find(t, "apt-get install caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", filepath.Join(dir, "Caddyfile"))
	cmd.Env = append(cleanEnv(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd
}

func startHAProxy(t testing.TB, dir, config string) *exec.Cmd {
	writeFile(t, filepath.Join(dir, "haproxy.cfg"), config)
	cmd := exec.Command(find(t, "apt-get install haproxy", "haproxy", "/usr/sbin/haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	cmd.Env = append(cleanEnv(), "SECRET_KEY="+testKeyHex)
	return cmd
}

func startApache(t testing.TB, dir, config string) *exec.Cmd {
	const modules = "/usr/lib/apache2/modules"
	var load strings.Builder
	for _, name := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "headers", "proxy", "proxy_http", "oauth2"} {
		fmt.Fprintf(&load, "LoadModule %s_module %s/mod_%s.so\n", name, modules, name)
	}
	user := ""
	if os.Getuid() == 0 {
		user = "User www-data\nGroup www-data\n"
	}
	writeFile(t, filepath.Join(dir, "httpd.conf"), load.String()+user+fmt.Sprintf("ServerRoot %s\nDefaultRuntimeDir %s\nPidFile httpd.pid\nServerName localhost\nErrorLog /dev/stderr\nLogLevel warn\n", dir, dir)+config)
	cmd := exec.Command(find(t, "apt-get install apache2 libapache2-mod-oauth2", "apache2", "/usr/sbin/apache2"), "-f", filepath.Join(dir, "httpd.conf"), "-D", "FOREGROUND")
	cmd.Env = append(cleanEnv(), "RS0_SECRET="+strings.NewReplacer("%", "%25", "+", "%2B", " ", "%20", ":", "%3A").Replace(resourceSecret))
	return cmd
}

// stackBlock returns the nth block in a language of a section of docs/stack.md.
func stackBlock(t testing.TB, section, language string, n int) string {
	t.Helper()
	_, text, found := strings.Cut(repoFile(t, "docs/stack.md"), "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/stack.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1)
	if n >= len(blocks) {
		t.Fatalf("the section %q of docs/stack.md has %d blocks of %s, want more", section, len(blocks), language)
	}
	return blocks[n][1]
}

// replaced returns the text with each occurrence of a part replaced.
func replaced(t testing.TB, text string, change [2]string) string {
	t.Helper()
	if !strings.Contains(text, change[0]) {
		t.Fatalf("docs/stack.md has no %q there", change[0])
	}
	return strings.ReplaceAll(text, change[0], change[1])
}
