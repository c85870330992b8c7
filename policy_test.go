package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The server is made of the standard library, and of nothing else.
func TestStandardLibraryOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("asks the go command")
	}
	t.Parallel()
	const template = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	for _, goos := range []string{"linux", "darwin", "windows"} {
		got := goTool(t, []string{"GOOS=" + goos, "CGO_ENABLED=0"}, "list", "-deps", "-f", template, ".")
		if want := "example.com/stdauth\n"; got != want {
			t.Errorf("go list -deps, not standard, on %s:\n%swant only %s", goos, got, want)
		}
	}
	direct := regexp.MustCompile(`(?m)^(?:tool|require|\t)\s*([^\s(]+)( v\S+)?$`).FindAllStringSubmatch(readText(t, "go.mod"), -1)
	var got []string
	for _, m := range direct {
		got = append(got, m[1])
	}
	if diff := cmp.Diff([]string{"github.com/google/go-cmp", "gotest.tools/gotestsum"}, got); diff != "" {
		t.Errorf("go.mod asks for other modules than the tests need:\n%s", diff)
	}
}

// "go run ." works on a machine that has Go and nothing else: no module in a
// cache, no way to download one.
func TestNothingIsDownloaded(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server from nothing")
	}
	t.Parallel()
	cache := t.TempDir()
	offline := []string{"GOMODCACHE=" + cache, "GOPROXY=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOWORK=off"}
	if got := goTool(t, offline, "run", ".", "-help"); !strings.Contains(got, "-access-ttl") {
		t.Errorf("go run . -help prints %q", got)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("the module cache holds %v, %v; want nothing", left, err)
	}
	// The same must fail for the tests, or it has shown nothing.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-test", "-deps", ".")
	cmd.Env = append(os.Environ(), offline...)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the tests need no module that is not in an empty cache:\n%s", out)
	}
}

// Each file knows only what its chapter needs. A new file says here what it
// must not know.
func TestWhatEachFileMustNotKnow(t *testing.T) {
	t.Parallel()
	const (
		http   = "net/http "
		system = "os os/signal syscall flag "
		logs   = "log/slog "
		lower  = http + system + logs + "encoding/json net/url mime "

		clock  = "time.Now time.Since "
		stores = "MemoryStore NewMemoryStore FileStore OpenFileStore ReadFileStore EtcdStore OpenEtcdStore "
		upper  = "server settings response request problem "
		secret = "Hasher Tokens Passwords hashable checkPassword "
	)
	mustNot := map[string]struct{ imports, names string }{
		"users.go":    {lower, clock + stores + secret[:len("Hasher Tokens Passwords ")] + upper + "Session Store"},
		"sessions.go": {lower, clock + stores + secret + upper + "Store"},
		"store.go":    {lower, clock + stores + secret + upper},

		"store_change.go":  {lower, stores + secret + upper + "Store"},
		"store_memory.go":  {lower, secret + upper + "Store FileStore EtcdStore"},
		"auth.go":          {http + system + logs + "context net/url", clock + stores + upper + "Store User Session Passwords"},
		"auth_throttle.go": {lower, stores + upper + "Store User Session"},

		"handlers.go":        {system, stores + "settings"},
		"handlers_token.go":  {system + logs, stores + "settings"},
		"handlers_users.go":  {system + logs, stores + "settings Tokens"},
		"http_body.go":       {system + logs, stores + "Store Session settings Hasher Tokens Passwords"},
		"http_errors.go":     {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_log.go":        {system + "encoding/json net/url", stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_metrics.go":    {http + system + logs, stores + "Session User settings Hasher Tokens Passwords"},
		"http_middleware.go": {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_page.go":       {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_response.go":   {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},

		"main.go":          {"flag crypto/tls", "User Session problem response request"},
		"main_offline.go":  {http + "flag os os/signal", "problem response request Tokens Session"},
		"main_settings.go": {http + "os os/signal syscall", stores + "Store server problem response request"},
		"main_terminal.go": {http + "flag os/signal syscall", stores + "Store problem response"},
		"main_tls.go":      {http + "flag os/signal syscall", stores + upper + "Store User Session"},

		"store_file.go":              {http + "flag", secret + upper + "EtcdStore"},
		"store_file_lines.go":        {http + system + logs, clock + secret + upper + "FileStore EtcdStore"},
		"store_file_lock_unix.go":    {http + "flag", secret + upper + "Store User"},
		"store_file_lock_windows.go": {http + "flag", secret + upper + "Store User"},

		"store_etcd.go":        {http + system, secret + upper + "FileStore"},
		"store_etcd_txn.go":    {http + system + logs, secret + upper + "FileStore"},
		"store_etcd_client.go": {system, stores + secret + upper + "User Session"},
	}
	all := map[string]bool{}
	for _, file := range productionFiles(t) {
		row, ok := mustNot[file]
		if !ok {
			t.Errorf("%s is not in the table: what must it not know?", file)
		}
		imports, names := fileKnows(t, file)
		for name := range strings.FieldsSeq(row.imports) {
			if imports[name] {
				t.Errorf("%s imports %s, and must not", file, name)
			}
		}
		for name := range strings.FieldsSeq(row.names) {
			if names[name] {
				t.Errorf("%s knows of %s, and must not", file, name)
			}
		}
		maps.Copy(all, imports)
		maps.Copy(all, names)
	}
	// A name that nobody has would forbid nothing.
	for file, row := range mustNot {
		for name := range strings.FieldsSeq(row.imports + " " + row.names) {
			if !all[name] {
				t.Errorf("%s must not know of %s, but nothing is called so any more", file, name)
			}
		}
	}
}

// pages are README.md and what it points to in docs/.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("docs/ has the pages %q, %v", docs, err)
	}
	return append([]string{"README.md", "SECURITY.md"}, docs...)
}

// allPages is the text of them all.
func allPages(t *testing.T) (text string) {
	t.Helper()
	for _, page := range pages(t) {
		text += readText(t, page) + "\n"
	}
	return text
}

// The reading order has every file, and no other.
func TestReadmeReadingOrder(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+\\.go)` \\|").FindAllStringSubmatch(allPages(t), -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(listed)
	if diff := cmp.Diff(productionFiles(t), listed); diff != "" {
		t.Errorf("the files there are (-), and those of README.md's reading order (+):\n%s", diff)
	}
}

// The table of endpoints is the route table.
func TestReadmeEndpoints(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, r := range new(server).routes() {
		want = append(want, strings.ReplaceAll(r.pattern, "{$}", "")+" by "+string(r.who))
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\| ([^|]+) \\|").FindAllStringSubmatch(allPages(t), -1) {
		got = append(got, m[1]+" by "+m[2])
	}
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" { // POST /token has two rows
		t.Errorf("the routes (-), and README.md's table of endpoints (+):\n%s", diff)
	}
}

// The statuses and fields in it are those of openapi.json.
func TestReadmeEndpointsFitOpenAPI(t *testing.T) {
	t.Parallel()
	var api struct {
		Paths map[string]map[string]json.RawMessage
	}
	description := readText(t, "web/openapi.json")
	if err := json.Unmarshal([]byte(description), &api); err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Z]+) (/[^`]*)` \\| [^|]+ \\| ([^|]*)\\| ([^|]*)\\|$").FindAllStringSubmatch(readText(t, "README.md"), -1)
	if len(rows) < 20 {
		t.Fatalf("README.md has %d endpoints: is the search for them broken?", len(rows))
	}
	for _, m := range rows {
		if m[2] == "/" {
			continue // openapi.json leaves it out
		}
		operation := string(api.Paths[m[2]][strings.ToLower(m[1])])
		for _, status := range regexp.MustCompile(`\b[2-5]\d\d\b`).FindAllString(m[4], -1) {
			if !strings.Contains(operation, `"`+status+`":`) {
				t.Errorf("README.md says that %s %s answers %s, and openapi.json does not", m[1], m[2], status)
			}
		}
		for _, field := range regexp.MustCompile("`(\\w+)").FindAllStringSubmatch(m[3], -1) {
			if !strings.Contains(description, `"`+field[1]+`"`) {
				t.Errorf("README.md says that %s %s takes %s, and openapi.json does not know it", m[1], m[2], field[1])
			}
		}
	}
}

// The table of settings is what the program asks for: the flags with their
// variables and defaults, and the secrets.
func TestReadmeSettings(t *testing.T) {
	t.Parallel()
	readme := allPages(t)
	absent := describeSettings(t)
	var flags, variables []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(-[a-z-]+)` \\| `?([A-Z_]*)`? ?\\| ([^|]*)\\|").FindAllStringSubmatch(readme, -1) {
		name, byDefault := m[1], strings.TrimSpace(m[3])
		flags = append(flags, name)
		if name != "-version" {
			variables = append(variables, m[2])
		}
		if name != "-version" && m[2] != variableOf(name) {
			t.Errorf("README.md gives %s the variable %s, want %s", name, m[2], variableOf(name))
		}
		if value := strings.Trim(byDefault, "`"); value != byDefault {
			if diff := cmp.Diff(absent, describeSettings(t, name+"="+value)); diff != "" {
				t.Errorf("README.md gives %s the default %s, which changes the settings:\n%s", name, value, diff)
			}
		}
		if want := usageDefault(name[1:]); strings.Trim(byDefault, "`") != want {
			t.Errorf("README.md gives %s the default %q, and -help %q", name, byDefault, want)
		}
	}
	slices.Sort(flags)
	if diff := cmp.Diff(flagNames(), flags); diff != "" {
		t.Errorf("the flags (-), and README.md's (+):\n%s", diff)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(readme, -1) {
		variables = append(variables, m[1])
	}
	var asked []string
	parseSettings(nil, func(name string) string { asked = append(asked, name); return "" })
	asked = slices.DeleteFunc(asked, func(name string) bool { return name == "STDAUTH_SECRET_KEY" }) // a mistake that is pointed out
	slices.Sort(asked)
	slices.Sort(variables)
	if diff := cmp.Diff(asked, variables); diff != "" {
		t.Errorf("the variables that are read (-), and README.md's (+):\n%s", diff)
	}
}

// The table of limits gives the constants of the code.
func TestPagesLimits(t *testing.T) {
	t.Parallel()
	constants := map[string]any{
		"DefaultIterations": DefaultIterations, "minPassword": minPassword, "maxPassword": maxPassword,
		"minSecret": minSecret, "minDifferentBytes": minDifferentBytes, "maxToken": maxToken, "leeway": leeway * time.Second,
		"refreshGrace": refreshGrace, "maxSessions": maxSessions, "freeTries": freeTries, "freeAddressTries": freeAddressTries,
		"maxWait": maxWait, "maxWaiting": maxWaiting, "maxBody": maxBody, "maxInvalid": maxInvalid,
		"headerTimeout": headerTimeout, "requestTimeout": requestTimeout, "idleTimeout": idleTimeout, "gracePeriod": gracePeriod,
		"compactSlack": compactSlack, "maxLine": maxLine, "etcdPatience": etcdPatience,
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| [^|]+ \\| ([0-9]\\w*)[^|]* \\| [^|]+ \\| `(\\w+)` \\|$").FindAllStringSubmatch(allPages(t), -1) {
		value, name := m[1], m[2]
		listed[name] = true
		want := fmt.Sprint(constants[name])
		if d, ok := constants[name].(time.Duration); ok {
			if given, err := time.ParseDuration(value); err == nil && given == d {
				continue
			}
		}
		if value != want {
			t.Errorf("the pages give the limit %s the value %s, and the code %s", name, value, want)
		}
	}
	for name := range constants {
		if !listed[name] {
			t.Errorf("the pages do not list the limit %s", name)
		}
	}
}

// A number with a unit in the prose of a page is one of these, which are made from
// the code or, where they are not ours, known here.
func TestPagesNumbersInProse(t *testing.T) {
	t.Parallel()
	known := []string{
		fmt.Sprintf("with PBKDF2-HMAC-SHA256, %d,000 iterations", DefaultIterations/1000),
		fmt.Sprintf("An access token lives %d minutes", int(defaultSettings(t).AccessTTL.Minutes())),
		fmt.Sprintf("requires 15 characters where a password is the only factor; stdauth requires %d", minPassword),
		fmt.Sprintf("an access token, which is valid for %d minutes", int(defaultSettings(t).AccessTTL.Minutes())),
		fmt.Sprintf("the server finishes requests under way, for %d s at most", int(gracePeriod.Seconds())),

		// Not ours: of the article's server, of etcd, of people.
		"For an unknown name, no password is hashed: the response takes 2.5 ms instead of 235 ms.",
		"bcrypt reads 72 bytes",
		"etcd stores up to 2 GiB by default",
		"An account takes about 510 bytes of it and a session 410",
		"100 refreshes a second add 150 MB an hour",
		"90 days before you publish",
	}
	unit := regexp.MustCompile(`\b\d[\d,.]*[  -]?(s|ms|seconds?|minutes?|hours?|days?|bytes|bits|KiB|GiB|MB|GB|%|characters|sessions|iterations|tries|accounts|requests)\b`)
	used := map[string]bool{}
	for _, page := range pages(t) {
		text := prose(readText(t, page))
		for _, fact := range known {
			if strings.Contains(text, fact) {
				used[fact] = true
				text = strings.ReplaceAll(text, fact, "")
			}
		}
		for _, m := range unit.FindAllStringIndex(text, -1) {
			t.Errorf("%s has a number that no test knows: ...%s...", page, text[max(0, m[0]-60):min(len(text), m[1]+40)])
		}
	}
	for _, fact := range known {
		if !used[fact] {
			t.Errorf("no page says %q any more", fact)
		}
	}
}

// prose is a page without its code and tables, in one line.
func prose(page string) string {
	page = regexp.MustCompile("(?s)```.*?\n```").ReplaceAllString(page, "")
	page = regexp.MustCompile(`(?m)^\|.*$`).ReplaceAllString(page, "")
	return strings.Join(strings.Fields(regexp.MustCompile("`[^`]*`").ReplaceAllString(page, "`")), " ")
}

func defaultSettings(t *testing.T) *settings {
	t.Helper()
	set, err := parseSettings(nil, envOf())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// The table of codes is that of http_errors.go, in its order.
func TestReadmeCodes(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, p := range problems {
		if row := fmt.Sprintf("%s %d", p.code, p.status); !slices.Contains(want, row) {
			want = append(want, row)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d{3}) \\|").FindAllStringSubmatch(allPages(t), -1) {
		got = append(got, m[1]+" "+m[2])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the codes with their status (-), and those of the pages (+):\n%s", diff)
	}
}

// What the pages point to is there.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]+)?\)`).FindAllStringSubmatch(readText(t, page), -1) {
			file, anchor := filepath.Join(filepath.Dir(page), m[1]), strings.TrimPrefix(m[2], "#")
			if m[1] == "" {
				file = page
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s points to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(headings(readText(t, file)), anchor) {
				t.Errorf("%s points to %s, want one of %v", page, m[0], headings(readText(t, file)))
			}
		}
	}
}

// What the pages name in code is there: metrics, functions.
func TestReadmeNames(t *testing.T) {
	t.Parallel()
	readme := allPages(t)
	metrics := map[string]bool{}
	for _, f := range families {
		metrics[f.name] = true
		if f.kind == "histogram" {
			metrics[f.name+"_bucket"], metrics[f.name+"_sum"], metrics[f.name+"_count"] = true, true, true
		}
	}
	found := regexp.MustCompile(`\bstdauth_[a-z_]+`).FindAllString(readme, -1)
	for _, name := range found {
		if !metrics[name] {
			t.Errorf("a page names the metric %s, which does not exist", name)
		}
	}
	if len(found) < 5 {
		t.Errorf("the pages name the metrics %v, want more: is the search for them broken?", found)
	}

	known := map[string]bool{}
	for _, file := range productionFiles(t) {
		_, names := fileKnows(t, file)
		maps.Copy(known, names)
	}
	// "`Tokens.Access` in `auth.go`": the last part is a name of ours.
	mapping := section(t, readme, "From FastAPI to net/http")
	names := 0
	for row := range strings.SplitSeq(mapping, "\n| ") {
		_, here, _ := strings.Cut(row, " | ")
		for _, m := range regexp.MustCompile("`(?:[A-Z]\\w*\\.)?([A-Za-z][A-Za-z0-9]*)`").FindAllStringSubmatch(here, -1) {
			names++
			if !known[m[1]] {
				t.Errorf("README.md maps the article to %s, which no file knows of", m[0])
			}
		}
	}
	if names < 15 {
		t.Errorf("README.md maps the article to %d names, want more: is the search for them broken?", names)
	}
}

// Nothing is left to be done.
func TestNothingIsLeftUndone(t *testing.T) {
	t.Parallel()
	undone := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "fuzz") {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		text := readText(t, path)
		if m := undone.FindString(text); m != "" && utf8.ValidString(text) {
			t.Errorf("%s has a %s", path, m)
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Errorf("the search read %d files, %v; want more", files, err)
	}
}

// goTool runs the go command and returns what it prints.
func goTool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// productionFiles are the Go files of the program, for any system, sorted.
func productionFiles(t *testing.T) (files []string) {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if !strings.HasSuffix(file, "_test.go") {
			files = append(files, file)
		}
	}
	if len(files) < 10 {
		t.Fatalf("the program has the files %q, want more", files)
	}
	return files
}

// fileKnows returns what a file imports, and all that it names, with what it
// takes from packages ("time.Now").
func fileKnows(t *testing.T, name string) (imports, names map[string]bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	imports, names = map[string]bool{}, map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			path, _ := strconv.Unquote(n.Path.Value)
			imports[path] = true
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				names[x.Name+"."+n.Sel.Name] = true
			}
		case *ast.Ident:
			names[n.Name] = true
		}
		return true
	})
	return imports, names
}

// variableOf is the environment's name for a flag.
func variableOf(flag string) string {
	return "STDAUTH" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// describeSettings returns all that the settings say, given args.
func describeSettings(t *testing.T, args ...string) string {
	t.Helper()
	set, err := parseSettings(args, envOf("SECRET_KEY="+settingsKey))
	if err != nil {
		t.Fatalf("parseSettings(%q): %v", args, err)
	}
	set.given = nil
	return fmt.Sprintf("%+v", *set)
}

// usageDefault is what -help says that a flag is when absent.
func usageDefault(name string) string {
	_, usage, _ := strings.Cut(help, "\n  -"+name+" ")
	usage, _, _ = strings.Cut(usage, "\n  -")
	m := regexp.MustCompile(`(?s)\(default:? ([^;)]*)`).FindStringSubmatch(usage)
	if m == nil {
		return ""
	}
	return strings.Join(strings.Fields(m[1]), " ")
}

// headings returns the anchors of a page's headings.
func headings(page string) (anchors []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		anchors = append(anchors, regexp.MustCompile(`[^a-z0-9-]`).ReplaceAllString(anchor, ""))
	}
	return anchors
}

// section is what follows a heading, up to the next of any level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut(page, heading)
	for ok && !strings.Contains(after[:min(len(after), 40)], "| ") { // not the table of contents
		_, after, ok = strings.Cut(after, heading)
	}
	if !ok {
		t.Fatalf("no page has a section %s with a table", heading)
	}
	before, _, _ := strings.Cut(after, "\n#")
	return before
}
