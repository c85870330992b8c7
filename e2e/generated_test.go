package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Clients that three generators make from openapi.json, in Go and in TypeScript. None
// is kept in the repository: a test generates it with the command in docs/clients.md,
// compiles it with the strictest settings, and goes through the whole article with it.
// A proxy holds each request and answer against openapi.json.

// article is what each of the programs in client/ prints.
const article = `register: newuser 3 user
register again: username_taken
register badly: invalid_fields password email
log in: bearer 1800
log in badly: incorrect_login
who am I: newuser true true
change: New User
list as newuser: not_enough_permissions
list as admin: johndoe admin newuser
refresh: 1800 true
sessions: [true false]
delete: 204
who am I, after it: invalid_token
`

// generator is the command of docs/clients.md that starts so, for a server of the
// test's own.
func generator(t *testing.T, s *server, start string) string {
	t.Helper()
	for line := range strings.Lines(repoFile(t, "docs/clients.md")) {
		if strings.HasPrefix(line, start) {
			return strings.ReplaceAll(strings.TrimSpace(line), "http://127.0.0.1:8000", s.URL)
		}
	}
	t.Fatalf("docs/clients.md has no line that starts with %q", start)
	return ""
}

// The generated file stands beside client/main.go only for the compiler.
func TestGeneratedGo(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	const named = "go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@"
	command := strings.TrimPrefix(generator(t, s, named), named)
	version, args, _ := strings.Cut(command, " ")
	if out, err := run(t, "", nil, "go", "list", "-m", "-f", "{{.Version}}", "github.com/oapi-codegen/oapi-codegen/v2"); err != nil || strings.TrimSpace(out) != version {
		t.Errorf("docs/clients.md names version %s of oapi-codegen, and go.mod %s (%v)", version, out, err)
	}
	// The version that is tested, which the module has already.
	generated := filepath.Join(dir, "client.gen.go")
	args = strings.NewReplacer("-package client", "-package main", "client.gen.go", generated).Replace(args)
	if out, err := run(t, "", nil, "go", append([]string{"tool", "oapi-codegen"}, strings.Fields(args)...)...); err != nil {
		t.Fatalf("oapi-codegen %s: %v\n%s", args, err, out)
	}
	beside, err := filepath.Abs("client/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	// With it, what the page shows of it.
	snippet := filepath.Join(dir, "snippet.go")
	writeFile(t, snippet, "package main\n"+`import ("context"; "strings"; "github.com/oapi-codegen/runtime")
func snippet(ctx context.Context, api *ClientWithResponses) error {
	`+strings.ReplaceAll(snippets(t, s, "go")[2], "client.", "")+`
	_ = token
	return nil
}
`)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {beside: generated, filepath.Join(filepath.Dir(beside), "snippet.go"): snippet}})
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"-tags", "generated", "-overlay", filepath.Join(dir, "overlay.json")}
	writeFile(t, flags[3], string(overlay))
	if out, err := run(t, "", nil, "go", append(append([]string{"vet"}, flags...), "./client")...); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
	prints(t, article, nil, "go", append(append([]string{"run"}, flags...), "./client", checked(t, s))...)
}

func TestGeneratedOpenAPIFetch(t *testing.T) {
	s := startServer(t)
	dir := typescript(t, "client/openapi-fetch.ts")
	shell(t, dir, generator(t, s, "npx openapi-typescript "))
	compile(t, dir)
	prints(t, article, nil, node(t), filepath.Join(dir, "openapi-fetch.js"), checked(t, s))
}

func TestGeneratedHeyAPI(t *testing.T) {
	s := startServer(t)
	dir := typescript(t, "client/hey-api.ts")
	shell(t, dir, generator(t, s, "npx @hey-api/openapi-ts "))
	compile(t, dir)
	prints(t, article, nil, node(t), filepath.Join(dir, "hey-api.js"), checked(t, s))
}

// typescript is a folder with a program and what npm has installed.
func typescript(t *testing.T, program string) (dir string) {
	t.Helper()
	modules, err := filepath.Abs(npm(t))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{program, "tsconfig.json"} {
		writeFile(t, filepath.Join(dir, filepath.Base(name)), repoFile(t, "e2e/"+name))
	}
	writeFile(t, filepath.Join(dir, "package.json"), `{"type": "module"}`)
	return dir
}

func compile(t *testing.T, dir string) {
	t.Helper()
	if !regexp.MustCompile(`"strict": true`).MatchString(repoFile(t, "e2e/tsconfig.json")) {
		t.Error("tsconfig.json is not strict")
	}
	shell(t, dir, "npx tsc -p .")
}

// shell runs a line as a reader would type it.
func shell(t testing.TB, dir, command string) string {
	t.Helper()
	out, err := run(t, dir, nil, "sh", "-c", command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// repoFile is a file of the repository.
func repoFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func node(t testing.TB) string {
	t.Helper()
	return find(t, "apt-get install nodejs, or https://nodejs.org", "node")
}
