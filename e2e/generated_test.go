package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Three generators make clients from openapi.json, in Go and in TypeScript. None is in the
// repository: each test generates one with the command in docs/clients.md, compiles it
// with the strictest settings, and runs all steps of the article with it. A proxy checks
// each request and response against openapi.json.

// article is the output of each of the programs in client/.
const article = `register: newuser 3 user
register again: username_taken
register badly: invalid_fields email password
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

// generator returns the command of docs/clients.md with this start, for the server of the
// test.
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

// TestGeneratedGo: an overlay puts the generated file beside client/main.go for the compiler.
func TestGeneratedGo(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	const named = "go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@"
	command := strings.TrimPrefix(generator(t, s, named), named)
	version, args, _ := strings.Cut(command, " ")
	if out, err := run(t, "", nil, "go", "list", "-m", "-f", "{{.Version}}", "github.com/oapi-codegen/oapi-codegen/v2"); err != nil || strings.TrimSpace(out) != version {
		t.Errorf("docs/clients.md names version %s of oapi-codegen, and go.mod %s (%v)", version, out, err)
	}
	// The version in go.mod is the one that is tested.
	generated := filepath.Join(dir, "client.gen.go")
	args = strings.NewReplacer("-package client", "-package main", "client.gen.go", generated).Replace(args)
	if out, err := run(t, "", nil, "go", append([]string{"tool", "oapi-codegen"}, strings.Fields(args)...)...); err != nil {
		t.Fatalf("oapi-codegen %s: %v\n%s", args, err, out)
	}
	beside, err := filepath.Abs("client/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	// The snippet in the page is compiled too.
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
	installs(t, dir, commandsWith(t, s, "openapi-fetch"))
	compile(t, dir)
	prints(t, article, nil, node(t), filepath.Join(dir, "openapi-fetch.js"), checked(t, s))
}

func TestGeneratedHeyAPI(t *testing.T) {
	s := startServer(t)
	dir := typescript(t, "client/hey-api.ts")
	installs(t, dir, commandsWith(t, s, "@hey-api"))
	compile(t, dir)
	prints(t, article, nil, node(t), filepath.Join(dir, "hey-api.js"), checked(t, s))
}

// typescript returns a directory with a program and the tsconfig.json of docs/clients.md.
func typescript(t *testing.T, program string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, filepath.Base(program)), repoFile(t, "e2e/"+program))
	writeFile(t, filepath.Join(dir, "tsconfig.json"), snippets(t, &server{}, "json")[0])
	return dir
}

func compile(t *testing.T, dir string) {
	t.Helper()
	if !strings.Contains(repoFile(t, "docs/clients.md"), `"strict": true`) {
		t.Error("the tsconfig.json of docs/clients.md does not have \"strict\": true")
	}
	shell(t, dir, "npx tsc -p .")
}

// shell runs a line in a shell, as a reader would.
func shell(t testing.TB, dir, command string) string {
	t.Helper()
	out, err := run(t, dir, nil, "sh", "-c", command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// repoFile returns the text of a file of the repository.
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
