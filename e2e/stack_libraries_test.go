package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A library is used by a program in docs/stack.md.
type library struct {
	section  string
	language string
	try      func(t *testing.T, s *server, text string) (wrong []string)
	decisive [][2]string
}

var libraries = []library{
	{section: "openid-client", language: "js", try: printed("main.mjs", "John Doe\nlogged out: invalid_grant\nwrong password: 401\n"), decisive: [][2]string{
		{`algorithm: "oauth2",`, ""}, {"execute: [oauth.allowInsecureRequests],", ""}, {"await oauth.tokenRevocation(config, second.refresh_token);", ""},
	}},
	{section: "oauth4webapi", language: "js", try: verifier("main.mjs", true), decisive: [][2]string{
		{`algorithm: "oauth2", `, ""}, {"[oauth.allowInsecureRequests]: true", ""}, {"process.env.RS0_SECRET", `"guess"`},
	}},
	{section: "simple-oauth2", language: "js", try: printed("main.mjs", "bearer false\nlogged out: invalid_grant\nwrong password: invalid_grant\n"), decisive: [][2]string{
		{`tokenPath: "/token",`, ""}, {`revokePath: "/revoke",`, ""},
	}},
	{section: "Authlib", language: "python", try: printed("main.py", "John Doe\nrefreshed: True\nJohn Doe\nlogged out: invalid_grant\nwrong password: invalid_grant\n"), decisive: [][2]string{
		{"    update_token=save,", ""}, {"    token_endpoint=f", "    tokens=f"},
	}},
	{section: "requests-oauthlib", language: "python", try: printed("main.py", "John Doe\nrefreshed\nJohn Doe\nlogged out: invalid_grant\nwrong password: invalid_grant\n"), decisive: [][2]string{
		{`os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"`, ""}, {`    auto_refresh_url=f"{server}/token",`, ""},
	}},
	{section: "jose", language: "js", try: verifier("main.mjs", false), decisive: [][2]string{
		{"new TextEncoder().encode(process.env.SECRET_KEY)", `Buffer.from(process.env.SECRET_KEY, "hex")`},
		{`algorithms: ["HS256"],`, ""}, {`issuer: "stdauth",`, ""}, {`audience: "stdauth",`, ""}, {`requiredClaims: ["exp"],`, ""},
	}},
	{section: "@fastify/jwt", language: "js", try: resourceServer, decisive: [][2]string{
		{"secret: process.env.SECRET_KEY", `secret: Buffer.from(process.env.SECRET_KEY, "hex")`},
		{`algorithms: ["HS256"],`, ""}, {`allowedIss: "stdauth",`, ""}, {`allowedAud: "stdauth",`, ""}, {`requiredClaims: ["exp"],`, ""},
	}},
	{section: "axios", language: "js", try: twoTabs, decisive: [][2]string{
		{`navigator.locks.request("tokens", async () => {`, `Promise.resolve().then(async () => {`},
		{"await refresh(request.token);", ""}, {"if (access_token === refused) ", ""},
	}},
	{section: "Auth.js", language: "js", try: authJS, decisive: [][2]string{
		{"Date.now() < token.expires_at", "true"}, {"if (user) return {...token, ...user.tokens};", ""}, {"return tokens && {...token, ...tokens};", "return token;"},
		{"signOut: ({token})", "other: ({token})"}, {"if (!tokens) return null;", ""},
	}},
}

// TestStackLibraries runs each program as it is in the page.
func TestStackLibraries(t *testing.T) {
	for _, l := range libraries {
		t.Run(l.section, func(t *testing.T) {
			s := startServer(t, "SECRET_KEY="+testKeyHex, "INTROSPECT_CLIENT=rs0:"+resourceSecret)
			text := stackBlock(t, l.section, l.language, 0)
			for _, wrong := range l.try(t, s, text) {
				t.Error(wrong)
			}
			for _, change := range l.decisive {
				wrong := l.try(t, s, replaced(t, text, change))
				if len(wrong) == 0 {
					t.Errorf("nothing is wrong with %q instead of %q", change[1], change[0])
					continue
				}
				t.Logf("with %q instead of %q: %.300s", change[1], change[0], wrong[0])
			}
		})
	}
}

// runPage writes the text of the page to a file and runs it.
func runPage(t testing.TB, address, file, text string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	program := node(t)
	if strings.HasSuffix(file, ".py") {
		program = pythonWith(t, "authlib, requests_oauthlib", "apt-get install python3-authlib python3-requests-oauthlib")
	} else {
		linkModules(t, dir)
	}
	writeFile(t, filepath.Join(dir, file), strings.ReplaceAll(text, "http://127.0.0.1:8000", address))
	return run(t, dir, []string{"SECRET_KEY=" + testKeyHex, "RS0_SECRET=" + resourceSecret}, program, append([]string{file}, args...)...)
}

func linkModules(t testing.TB, dir string) {
	t.Helper()
	modules, err := filepath.Abs(npm(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
}

// printed tries a program that logs in, and compares what it prints.
func printed(file, want string) func(t *testing.T, s *server, text string) []string {
	return func(t *testing.T, s *server, text string) []string {
		out, err := runPage(t, s.URL, file, text)
		if err != nil || out != want {
			return []string{fmt.Sprintf("prints %q (%v), want %q", out, err, want)}
		}
		return nil
	}
}

// A trialToken is one that a verifier must accept or refuse.
type trialToken struct {
	name, token string
	want        string // "" if it is refused
}

func trialTokens(t testing.TB, s *server) []trialToken {
	t.Helper()
	access, refresh := logIn(t, s, "johndoe", "secret")
	sign := func(method jwt.SigningMethod, key any, change jwt.MapClaims) string {
		claims := jwt.MapClaims{"iss": "stdauth", "aud": "stdauth", "sub": "1", "sid": "x", "username": "johndoe", "role": "user", "iat": time.Now().Unix() - 60, "exp": time.Now().Unix() + 60}
		for name, value := range change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	key := []byte(testKeyHex)
	return []trialToken{
		{"a token", access, "johndoe user"},
		{"a refresh token", refresh, ""},
		{"a token with another key", sign(jwt.SigningMethodHS256, []byte(testKey), nil), ""},
		{"a token with HS512", sign(jwt.SigningMethodHS512, key, nil), ""},
		{"a token without a signature", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), ""},
		{"a token of another issuer", sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"iss": "other"}), ""},
		{"a token for another audience", sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"aud": "other"}), ""},
		{"an expired token", sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": time.Now().Unix() - 1}), ""},
		{"a token that never expires", sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": nil}), ""},
	}
}

// verifier tries a program that prints who the token of its argument is for. If it asks the
// server, "refused" is a refusal, otherwise an exception is.
func verifier(file string, asks bool) func(t *testing.T, s *server, text string) []string {
	return func(t *testing.T, s *server, text string) (wrong []string) {
		for _, try := range trialTokens(t, s) {
			out, err := runPage(t, s.URL, file, text, try.token)
			accepted := err == nil && strings.TrimSpace(out) != "refused"
			if asks && err != nil {
				return []string{fmt.Sprintf("%s: %v\n%s", try.name, err, out)}
			}
			if accepted != (try.want != "") || accepted && strings.TrimSpace(out) != try.want {
				return []string{fmt.Sprintf("%s: %s (%v), want %q", try.name, out, err, try.want)}
			}
		}
		return nil
	}
}

// resourceServer tries a server at 127.0.0.1:3000.
func resourceServer(t *testing.T, s *server, text string) (wrong []string) {
	dir := t.TempDir()
	linkModules(t, dir)
	address := etcdFreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	writeFile(t, filepath.Join(dir, "main.mjs"), strings.ReplaceAll(text, "3000", port))
	cmd := exec.Command(node(t), "main.mjs")
	cmd.Dir, cmd.Env = dir, append(cleanEnv(), "SECRET_KEY="+testKeyHex)
	stop, err := startProgram(t, cmd, address)
	if err != nil {
		return []string{err.Error()}
	}
	defer stop()
	for _, try := range append(trialTokens(t, s), trialToken{name: "no token"}) {
		req, err := http.NewRequest("GET", "http://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if try.token != "" {
			req.Header.Set("Authorization", "Bearer "+try.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(body)); (resp.StatusCode == http.StatusOK) != (try.want != "") || try.want != "" && got != try.want {
			wrong = append(wrong, fmt.Sprintf("%s: %d %s, want %q", try.name, resp.StatusCode, body, try.want))
		}
	}
	return wrong
}

// twoTabs tries a module in two frames of one page, which share what two tabs share. They
// send four requests each, at once, with an access token that the server refuses.
func twoTabs(t *testing.T, s *server, text string) (wrong []string) {
	npm(t)
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	var asked atomic.Int32 // for tokens
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			asked.Add(1)
			time.Sleep(300 * time.Millisecond) // so that all requests have been refused by then
		}
		forward.ServeHTTP(w, r)
	}))
	defer slow.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/app.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, strings.ReplaceAll(text, "http://127.0.0.1:8000", slow.URL))
		case "/axios.js":
			http.ServeFile(w, r, "node_modules/axios/dist/esm/axios.min.js")
		case "/tab":
			fmt.Fprint(w, `<!doctype html><script type="importmap">{"imports": {"axios": "/axios.js"}}</script>
				<script type="module">import * as app from "/app.js"; window.app = app;</script>`)
		default:
			fmt.Fprint(w, `<!doctype html><title>Two tabs</title><link rel="icon" href="data:,"><body><iframe src="/tab"></iframe><iframe src="/tab"></iframe>`)
		}
	}))
	defer front.Close()
	b := openTab(t, 1280, 900, "light")
	b.visit(front.URL)
	b.until(`frames.length === 2 && frames[0].app && frames[1].app`)
	got := eval[string](b, `(async () => {
		try {
			await frames[0].app.logIn("johndoe", "secret");
			const tokens = JSON.parse(localStorage.getItem("tokens"));
			localStorage.setItem("tokens", JSON.stringify({...tokens, access_token: tokens.access_token + "x"}));
			const asked = [0, 1, 0, 1, 0, 1, 0, 1].map((i) => frames[i].app.api.get("/users/me/"));
			return (await Promise.all(asked)).map(({data}) => data.username).join(" ");
		} catch (error) {
			return String(error);
		}
	})()`)
	if want := strings.TrimSpace(strings.Repeat("johndoe ", 8)); got != want {
		wrong = append(wrong, fmt.Sprintf("the tabs get %q, want %q", got, want))
	}
	if n := asked.Load(); n != 2 {
		wrong = append(wrong, fmt.Sprintf("the tabs asked for tokens %d times, want 2: the login and one refresh", n))
	}
	return wrong
}

// authJS tries a module that exports handler, as a browser with cookies would.
func authJS(t *testing.T, s *server, text string) []string {
	dir := t.TempDir()
	linkModules(t, dir)
	writeFile(t, filepath.Join(dir, "auth.mjs"), strings.ReplaceAll(text, "http://127.0.0.1:8000", s.URL))
	writeFile(t, filepath.Join(dir, "main.mjs"), `
import {handler} from "./auth.mjs";
const jar = new Map();
async function browse(path, form) {
	const headers = {cookie: [...jar].map((pair) => pair.join("=")).join("; ")};
	const body = form && new URLSearchParams(form);
	const response = await handler(new Request("http://127.0.0.1:3000/auth/" + path, {method: form ? "POST" : "GET", headers: {...headers, "X-Auth-Return-Redirect": "1"}, body}));
	for (const [, name, value] of response.headers.getSetCookie().map((cookie) => cookie.match(/^([^=]+)=([^;]*)/))) value ? jar.set(name, value) : jar.delete(name);
	return response.json();
}
const status = async (token) => (await fetch(process.argv[2] + "/users/me/", {headers: {Authorization: "Bearer " + token}})).status;
const {csrfToken} = await browse("csrf");
const wrong = await browse("callback/credentials", {csrfToken, username: "johndoe", password: "guess"});
console.log(new URL(wrong.url).searchParams.get("error"));
await browse("callback/credentials", {csrfToken, username: "johndoe", password: "secret"});
const first = await browse("session");
console.log(first.user.name, first.user.email, await status(first.access_token));
await new Promise((resolve) => setTimeout(resolve, 1100)); // a token of another second
const now = Date.now;
Date.now = () => now() + 31 * 60 * 1000;
const second = await browse("session");
console.log(first.access_token !== second.access_token, await status(second.access_token));
await browse("signout", {csrfToken});
console.log(await browse("session"), await status(second.access_token));
`)
	out, err := run(t, dir, []string{"AUTH_SECRET=" + testKey}, node(t), "main.mjs", s.URL)
	const want = "CredentialsSignin\nJohn Doe johndoe@example.com 200\ntrue 200\nnull 401\n"
	if got := regexp.MustCompile(`(?m)^\S*\[auth\]\[error\][^\n]*\n(    at [^\n]*\n)*`).ReplaceAllString(out, ""); err != nil || got != want {
		return []string{fmt.Sprintf("prints %q (%v), want %q", got, err, want)}
	}
	return nil
}

// TestStackTable: the table of docs/stack.md has the versions that the tests use, and names
// tests that exist.
func TestStackTable(t *testing.T) {
	var tested []string
	for _, p := range proxies {
		tested = append(tested, "TestStackProxies/"+p.section)
	}
	for _, l := range libraries {
		tested = append(tested, "TestStackLibraries/"+l.section)
	}
	text := repoFile(t, "docs/stack.md")
	for _, name := range tested {
		if !strings.Contains(text, "`"+name+"` |") {
			t.Errorf("the table does not name %s", name)
		}
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range files {
		code.WriteString(repoFile(t, "e2e/"+name))
	}
	for _, m := range regexp.MustCompile("`(Test\\w+)[`/]").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(code.String(), "func "+m[1]+"(t *testing.T)") {
			t.Errorf("the table names %s, which does not exist", m[1])
		}
	}
	modules, packages := repoFile(t, "e2e/go.mod"), repoFile(t, "e2e/package.json")
	for _, m := range regexp.MustCompile(`[ "](@?[a-z][\w/-]*)@(\d[\d.]*\d)`).FindAllStringSubmatch(text+repoFile(t, "docs/clients.md"), -1) {
		if !strings.Contains(packages, fmt.Sprintf("%q: %q", m[1], m[2])) {
			t.Errorf("a page installs %s@%s, and package.json has another version", m[1], m[2])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\| (\S+\.\S+/\S+|\S+)(?: and (\S+))? ?(\(npm\)|\(Python\)|)[^|]*\| (\S+?)(?:, (\S+))? \|`).FindAllStringSubmatch(text, -1) {
		switch {
		case m[3] == "(npm)":
			for i := range 2 {
				if name := m[1+i]; name != "" && !strings.Contains(packages, fmt.Sprintf("%q: %q", name, m[4+i])) {
					t.Errorf("the table has version %s of %s, and package.json another", m[4+i], name)
				}
			}
		case strings.Contains(m[1], "/"):
			if !regexp.MustCompile(`(?m)^\s` + regexp.QuoteMeta(m[1]+" "+m[4]) + `( //.*)?$`).MatchString(modules) {
				t.Errorf("the table has version %s of %s, and go.mod another", m[4], m[1])
			}
		}
	}
}
