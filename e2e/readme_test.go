package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// snippets are the programs in README.md's section on using the API from other
// programs, by language, made to call the given server.
func snippets(t *testing.T, s *server) map[string][]string {
	t.Helper()
	const heading = "\n## From your own program\n"
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), heading)
	if !ok {
		t.Fatalf("README.md has no section %q", strings.TrimSpace(heading))
	}
	section, _, _ = strings.Cut(section, "\n## ")
	found := map[string][]string{}
	for _, m := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(section, -1) {
		if !strings.Contains(m[2], "http://127.0.0.1:8000") && !strings.Contains(m[2], "SECRET_KEY") {
			t.Errorf("a snippet that does not call the server:\n%s", m[2])
		}
		found[m[1]] = append(found[m[1]], strings.ReplaceAll(m[2], "http://127.0.0.1:8000", s.URL))
	}
	return found
}

// snippet is the nth of a language, written to a file.
func snippet(t *testing.T, s *server, language string, n int, name string) (file, text string) {
	t.Helper()
	list := snippets(t, s)[language]
	if n >= len(list) {
		t.Fatalf("README.md has %d snippets in %s, want one more", len(list), language)
	}
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(list[n]), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, list[n]
}

// prints fails unless a program ends well and prints what is wanted.
func prints(t *testing.T, want string, env []string, name string, args ...string) {
	t.Helper()
	out, err := run(t, "", env, name, args...)
	if err != nil || out != want {
		t.Errorf("%s prints %q (%v), want %q", name, out, err, want)
	}
}

func TestReadmeGo(t *testing.T) {
	s := startServer(t)
	file, _ := snippet(t, s, "go", 0, "main.go")
	prints(t, "John Doe\n", nil, "go", "run", file)
}

// The service that verifies a token by itself gets one as its argument.
func TestReadmeGoVerify(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	access, refresh := logIn(t, s, "johndoe", "secret")
	file, _ := snippet(t, s, "go", 1, "main.go")
	prints(t, "johndoe user\n", []string{"SECRET_KEY=" + testKey}, "go", "run", file, access)
	for name, token := range map[string]string{"a refresh token": refresh, "another signature": access[:len(access)-4] + "AAAA"} {
		if out, err := run(t, "", []string{"SECRET_KEY=" + testKey}, "go", "run", file, token); err == nil {
			t.Errorf("%s is accepted: %s", name, out)
		}
	}
}

func TestReadmePython(t *testing.T) {
	s := startServer(t)
	file, _ := snippet(t, s, "python", 0, "client.py")
	prints(t, "John Doe\n", nil, find(t, "apt-get install python3", "python3", "python"), file)
}

// The same JavaScript runs in Node and in a browser. Both also refresh, once
// the token has expired.
const afterExpiry = `
await new Promise((resolve) => setTimeout(resolve, 1500));
console.log((await call("/users/me/")).status);
`

func TestReadmeJavaScript(t *testing.T) {
	s := startServer(t, "-access-ttl", "1s")
	file, text := snippet(t, s, "js", 0, "client.mjs")
	if err := os.WriteFile(file, []byte(text+afterExpiry), 0o600); err != nil {
		t.Fatal(err)
	}
	prints(t, "John Doe\n200\n", nil, find(t, "apt-get install nodejs, or https://nodejs.org", "node"), file)
}

// A front end on another port: its page may call the server if its origin is
// allowed, and otherwise the browser keeps the answers from it.
func TestReadmeFrontEnd(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"with the demo accounts any port of this machine may", []string{"-access-ttl", "1s"}, "John Doe 200"},
		{"a named origin may", []string{"-access-ttl", "1s", "-cors-origin", "ORIGIN"}, "John Doe 200"},
		{"any other may not", []string{"-cors-origin", "https://app.example.com"}, "failed"},
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
			script = text + afterExpiry
			b := openTab(t, 1280, 900, "light")
			b.visit(front.URL)
			b.until(`document.body.dataset.said`)
			if got := eval[string](b, `document.body.dataset.said`); got != test.want {
				t.Errorf("the front end says %q, want %q", got, test.want)
			}
			if test.want == "failed" {
				b.forgive() // the browser's word on CORS
			}
		})
	}
}

// TestReadmeInAFreshClone runs README.md's walkthrough, in a real shell and with
// a real curl, where there is nothing but what is committed. It is the server's
// own test of the same name that knows how.
func TestReadmeInAFreshClone(t *testing.T) {
	git := find(t, "apt-get install git", "git")
	find(t, "apt-get install curl", "curl")
	if _, err := os.Stat("../.git"); err != nil {
		missing(t, "the repository", "clone it; an archive has no commits to try")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := run(t, "", nil, git, "clone", "-q", "..", clone); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	out, err := run(t, clone, nil, "go", "test", "-count=1", "-v", "-run", "^TestReadme$", ".")
	if err != nil || !strings.Contains(out, "--- PASS: TestReadme ") {
		t.Errorf("the walkthrough in a fresh clone: %v\n%s", err, out)
	}
}
