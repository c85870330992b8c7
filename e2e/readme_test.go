package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// snippets returns the programs of docs/clients.md in one language, for the given server.
func snippets(t *testing.T, s *server, language string) (found []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(repoFile(t, "docs/clients.md"), -1) {
		found = append(found, strings.ReplaceAll(m[1], "http://127.0.0.1:8000", s.URL))
	}
	return found
}

// snippet writes the nth snippet of a language to a file.
func snippet(t *testing.T, s *server, language string, n int, name string) (file, text string) {
	t.Helper()
	list := snippets(t, s, language)
	if n >= len(list) {
		t.Fatalf("docs/clients.md has %d snippets in %s, want one more", len(list), language)
	}
	file = filepath.Join(t.TempDir(), name)
	writeFile(t, file, list[n])
	return file, list[n]
}

// prints runs a program, which must succeed and print the wanted text.
func prints(t *testing.T, want string, env []string, name string, args ...string) {
	t.Helper()
	out, err := run(t, "", env, name, args...)
	if err != nil || out != want {
		t.Errorf("%s prints %q (%v), want %q", name, out, err, want)
	}
}

// TestReadmeGo runs the client in Go with the commands in the page.
func TestReadmeGo(t *testing.T) {
	s := startServer(t)
	file, _ := snippet(t, s, "go", 0, "main.go")
	out, err := run(t, filepath.Dir(file), offlineGo, "sh", "-ec", commandsWith(t, s, "golang.org/x/oauth2"))
	if err != nil || !strings.HasSuffix(out, "\nJohn Doe\n") {
		t.Errorf("the commands of docs/clients.md print %q (%v), want John Doe", out, err)
	}
}

// offlineGo takes modules from the cache, where those of the tests are.
var offlineGo = []string{"GOFLAGS=-mod=mod", "GOPROXY=off", "GOSUMDB=off", "GOWORK=off"}

// commandsWith returns the block of commands in docs/clients.md that has this text.
func commandsWith(t *testing.T, s *server, part string) string {
	t.Helper()
	for _, block := range snippets(t, s, "sh") {
		if strings.Contains(block, part) {
			return block
		}
	}
	t.Fatalf("docs/clients.md has no commands with %q", part)
	return ""
}

// TestReadmeGoVerify runs the service that verifies a token by itself, with the commands in
// the page and the module that the tests use.
func TestReadmeGoVerify(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	find(t, "apt-get install curl", "curl")
	file, _ := snippet(t, s, "go", 1, "main.go")
	commands, env := commandsWith(t, s, "golang-jwt"), append([]string{"SECRET_KEY=" + testKey}, offlineGo...)
	verify := func(arg string) (string, error) {
		dir := t.TempDir()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "main.go"), string(text))
		return run(t, dir, env, "sh", "-ec", strings.Replace(commands, `"$TOKEN"`, arg, 1))
	}
	if out, err := verify(`"$TOKEN"`); err != nil || !strings.HasSuffix(out, "\njohndoe user\n") {
		t.Errorf("the commands of docs/clients.md print %q (%v), want johndoe user", out, err)
	}
	for name, arg := range map[string]string{"a token with another signature": `"${TOKEN%????}AAAA"`, "an invalid token": `"x"`} {
		if out, err := verify(arg); err == nil {
			t.Errorf("%s is accepted, want it refused: %s", name, out)
		}
	}
}

// TestReadmeTypeScript: the client in TypeScript installs what it needs, generates its types,
// compiles, and refreshes.
func TestReadmeTypeScript(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	_, text := snippet(t, s, "ts", 0, "client.ts")
	_, config := snippet(t, s, "json", 0, "tsconfig.json")
	writeFile(t, filepath.Join(dir, "tsconfig.json"), config)
	writeFile(t, filepath.Join(dir, "client.ts"), text+`
tokens = {...tokens, access_token: "expired"};
console.log((await api.GET("/users/me/")).response.status);
`)
	installs(t, dir, commandsWith(t, s, "openapi-fetch"))
	if out := shell(t, dir, "npx tsc && node client.js"); out != "John Doe\nemail\n200\n" {
		t.Errorf("client.js prints %q", out)
	}
}

// installs runs commands that install packages of npm, which npm has already in its cache.
func installs(t *testing.T, dir, commands string) {
	t.Helper()
	npm(t)
	out, err := run(t, dir, []string{"npm_config_prefer_offline=true", "npm_config_audit=false", "npm_config_ignore_scripts=true"}, "sh", "-ec", commands)
	if err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// TestHTTPFile runs the requests in stdauth.http. Their titles have the expected status.
func TestHTTPFile(t *testing.T) {
	s := startServer(t)
	const local = "@host = http://127.0.0.1:8000\n"
	text := repoFile(t, "stdauth.http")
	if strings.Count(text, local) != 1 {
		t.Fatalf("stdauth.http does not have the line %q", local)
	}
	dir := t.TempDir()
	linkModules(t, dir)
	writeFile(t, filepath.Join(dir, "stdauth.http"), strings.Replace(text, local, "@host = "+checked(t, s)+"\n", 1))
	command := generator(t, s, "npx httpyac ")
	for range 2 { // the requests can be repeated
		out := shell(t, dir, command+" --json 2>/dev/null")
		var report struct {
			Requests []struct {
				Title    string
				Response struct{ StatusCode int }
			}
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		if want := strings.Count(text, "\n### "); len(report.Requests) != want || want < 20 {
			t.Errorf("httpyac sent %d requests, want %d, and 20 or more", len(report.Requests), want)
		}
		for _, r := range report.Requests {
			if _, want, _ := strings.Cut(r.Title, ": "); want != strconv.Itoa(r.Response.StatusCode) {
				t.Errorf("%s, but the response is %d", r.Title, r.Response.StatusCode)
			}
		}
	}
}

func TestReadmePython(t *testing.T) {
	s := startServer(t)
	file, _ := snippet(t, s, "python", 0, "client.py")
	prints(t, "John Doe\n", nil, find(t, "apt-get install python3", "python3", "python"), file)
}

// afterRefusal makes the JavaScript, which runs in Node and in a browser, refresh when five
// calls at once are refused.
const afterRefusal = `
tokens = {...tokens, access_token: "expired"};
const together = await Promise.all([1, 2, 3, 4, 5].map(() => call("/users/me/")));
console.log(together.map(({status}) => status).join(" "));
`

func TestReadmeJavaScript(t *testing.T) {
	s := startServer(t)
	file, text := snippet(t, s, "js", 0, "client.mjs")
	if err := os.WriteFile(file, []byte(text+afterRefusal), 0o600); err != nil {
		t.Fatal(err)
	}
	prints(t, "John Doe\n200 200 200 200 200\n", nil, node(t), file)
	s.stop(t) // writes the whole log
	if n := strings.Count(s.log.String(), "route=/token "); n != 2 {
		t.Errorf("five calls at once asked for tokens %d times, want 2: the login and one refresh", n)
	}
}

// TestReadmeFrontEnd: a page of another origin may call the server if the origin is
// allowed. Otherwise the browser withholds the responses.
func TestReadmeFrontEnd(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"a front end on localhost may call a server with demo accounts", nil, "John Doe 200 200 200 200 200"},
		{"a front end of an origin in -cors-origin may call the server", []string{"-cors-origin", "ORIGIN"}, "John Doe 200 200 200 200 200"},
		{"a front end of another origin may not call the server", []string{"-cors-origin", "https://app.example.com"}, "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var script string
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/app.js" {
					w.Header().Set("Content-Type", "text/javascript")
					w.Write([]byte(script))
					return
				}
				w.Header().Set("Content-Type", "text/html")
				w.Write([]byte(`<!doctype html><title>A front end</title><link rel="icon" href="data:,"><body><script type="module">
					const said = [];
					console.log = (words) => { said.push(words); };
					import("/app.js").then(() => { document.body.dataset.said = said.join(" "); }, () => { document.body.dataset.said = "failed"; });
				</script>`))
			}))
			defer front.Close()
			for i := range test.flags {
				test.flags[i] = strings.ReplaceAll(test.flags[i], "ORIGIN", front.URL)
			}
			s := startServer(t, test.flags...)
			_, text := snippet(t, s, "js", 0, "client.js")
			script = text + afterRefusal
			b := openTab(t, 1280, 900, "light")
			b.visit(front.URL)
			b.until(`document.body.dataset.said`)
			if got := eval[string](b, `document.body.dataset.said`); got != test.want {
				t.Errorf("the front end prints %q, want %q", got, test.want)
			}
			if test.want == "failed" {
				b.forgive() // the error of the browser about CORS
			}
		})
	}
}

// TestReadmeInAFreshClone runs TestReadme of the server in a fresh clone, which has only
// the committed files.
func TestReadmeInAFreshClone(t *testing.T) {
	git := find(t, "apt-get install git", "git")
	find(t, "apt-get install curl", "curl")
	if _, err := os.Stat("../.git"); err != nil {
		missing(t, "the repository", "clone it, as an archive has no commits")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := run(t, "", nil, git, "clone", "-q", "..", clone); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	out, err := run(t, clone, nil, "go", "test", "-count=1", "-v", "-run", "^TestReadme$", ".")
	if err != nil || !strings.Contains(out, "--- PASS: TestReadme ") {
		t.Errorf("TestReadme in a fresh clone: %v\n%s", err, out)
	}
}
