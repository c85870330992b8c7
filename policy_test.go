package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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
)

// TestStandardLibraryOnly: the server imports only the standard library.
func TestStandardLibraryOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	t.Parallel()
	const template = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	for _, goos := range []string{"linux", "darwin", "windows"} {
		got := goTool(t, []string{"GOOS=" + goos, "CGO_ENABLED=0"}, "list", "-deps", "-f", template, ".")
		wantEqual(t, "the packages outside the standard library on "+goos, got, "example.com/stdauth\n")
	}
	var got []string
	for _, m := range matches(t, 2, `(?m)^(?:tool|require|\t)\s*([^\s(]+)( v\S+)?$`, readText(t, "go.mod")) {
		got = append(got, m[1])
	}
	wantEqual(t, "the modules that go.mod requires", got, []string{"github.com/google/go-cmp", "gotest.tools/gotestsum"})
}

// TestNothingIsDownloaded: "go run ." works with an empty module cache and without a
// network.
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
	// The tests do need modules, which shows that the cache is in use.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-test", "-deps", ".")
	cmd.Env = append(os.Environ(), offline...)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("go list of the tests succeeds with an empty cache, want an error:\n%s", out)
	}
}

// TestWhatEachFileMustNotKnow: a file uses only the packages and the names that its
// layer may use. Each new file needs a row.
func TestWhatEachFileMustNotKnow(t *testing.T) {
	t.Parallel()
	const (
		http   = "net/http "
		system = "os os/signal syscall flag "
		logs   = "log/slog "
		lower  = http + system + logs + "encoding/json net/url "

		clock  = "time.Now time.Since "
		stores = "MemoryStore NewMemoryStore FileStore OpenFileStore ReadFileStore EtcdStore OpenEtcdStore "
		upper  = "server settings call reply problem "
		secret = "Hasher Tokens Passwords hashable checkPassword "
		hashes = "settings Hasher Tokens Passwords"
	)
	mustNot := map[string]struct{ imports, names string }{
		"users.go":    {lower, clock + stores + "Hasher Tokens Passwords " + upper + "Session Store"},
		"sessions.go": {lower, clock + stores + secret + upper + "Store"},
		"store.go":    {lower, clock + stores + secret + upper},

		"store_change.go":  {lower, stores + secret + upper + "Store"},
		"store_memory.go":  {lower, secret + upper + "Store FileStore EtcdStore"},
		"auth.go":          {http + system + logs + "context net/url", clock + stores + upper + "Store User Session Passwords"},
		"auth_throttle.go": {lower, stores + upper + "Store User Session"},
		"shares.go":        {http + "os/signal syscall flag encoding/json net/url " + logs, stores + upper + secret + "Store User Session"},

		"handlers.go":                         {system, stores + "settings"},
		"handlers_mail.go handlers_token.go":  {system + logs, stores + "settings"},
		"handlers_stack.go handlers_users.go": {system + logs, stores + "settings Tokens"},
		"http_body.go":                        {system + logs, stores + "Store Session " + hashes},
		"http_call.go":                        {system + "net/url", stores + "settings problem Hasher"},
		"http_connections.go":                 {system + logs + "encoding/json", stores + "Session User " + hashes},
		"http_errors.go http_middleware.go":   {system + logs, stores + "Store Session User " + hashes},
		"http_browser.go http_page.go":        {system + logs, stores + "Store Session User " + hashes},
		"http_proxy.go":                       {system + logs, stores + "Store Session User " + hashes},
		"http_metrics.go":                     {http + system + logs, stores + "Session User " + hashes},
		"main.go":                             {"flag crypto/tls", "User Session problem call reply"},
		"main_offline.go":                     {http + "flag os os/signal", "problem call reply Tokens Session"},
		"main_settings.go":                    {http + "os/signal syscall", stores + "Store server problem call reply"},
		"main_terminal.go":                    {http + "flag os/signal syscall", stores + "Store problem call"},
		"main_tls.go":                         {http + "flag os/signal syscall", stores + upper + "Store User Session"},
		"main_limits_unix.go":                 {http + "flag", stores + upper + "Store User Session"},
		"main_limits_windows.go":              {http + "flag os syscall", stores + upper + "Store User Session"},
		"mail.go":                             {http + system, stores + "server settings problem reply Store Session"},
		"mail_delivery.go":                    {http + system, stores + secret + "server settings problem Store Session"},

		"store_file.go":         {http + "flag", secret + upper + "EtcdStore"},
		"store_file_compact.go": {http + "flag os/signal syscall", secret + upper + "EtcdStore Store"},
		"store_file_lines.go":   {http + system + logs, clock + secret + upper + "FileStore EtcdStore"},
		"store_file_folder.go":  {http + logs + "flag", clock + secret + upper + stores + "Store User Session"},
		"store_file_lock_unix.go store_file_lock_windows.go": {http + "flag", secret + upper + "Store User"},

		"store_etcd.go":        {http + system, secret + "server settings problem FileStore"},
		"store_etcd_txn.go":    {http + system + logs, secret + "server settings problem FileStore"},
		"store_etcd_client.go": {system, stores + secret + "server settings problem User Session"},
	}
	var ruled []string
	all, forbidden := map[string]bool{}, map[string]string{}
	for files, row := range mustNot {
		for file := range strings.FieldsSeq(files) {
			ruled = append(ruled, file)
			imports, names := fileKnows(t, file)
			for name := range strings.FieldsSeq(row.imports) {
				if forbidden[name] = file; imports[name] {
					t.Errorf("%s must not import %s", file, name)
				}
			}
			for name := range strings.FieldsSeq(row.names) {
				if forbidden[name] = file; names[name] {
					t.Errorf("%s must not use %s", file, name)
				}
			}
			maps.Copy(all, imports)
			maps.Copy(all, names)
		}
	}
	slices.Sort(ruled)
	wantEqual(t, "the files in the table, and those of the program", ruled, productionFiles(t))
	for name, file := range forbidden {
		if !all[name] {
			t.Errorf("the row of %s forbids %s, which no longer exists", file, name)
		}
	}
}

// TestReadmeReadingOrder: the reading order lists every file of the program once.
func TestReadmeReadingOrder(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, m := range matches(t, 10, "(?m)^\\| `([a-z_]+\\.go)` \\|", allPages(t)) {
		listed = append(listed, m[1])
	}
	slices.Sort(listed)
	wantEqual(t, "the files of the program, and those in the reading order of README.md", listed, productionFiles(t))
}

// TestReadmeEndpoints: the table of endpoints lists the routes in their order.
func TestReadmeEndpoints(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, r := range new(server).routes() {
		want = append(want, strings.ReplaceAll(r.pattern, "{$}", "")+" by "+string(r.who))
	}
	for _, m := range matches(t, 20, "(?m)^\\| `([A-Z]+ /[^`]*)` \\| ([^|]+) \\|", allPages(t)) {
		got = append(got, m[1]+" by "+m[2])
	}
	wantEqual(t, "the routes, and the table of endpoints in README.md", slices.Compact(got), want) // POST /token has two rows
}

// TestReadmeEndpointsFitOpenAPI: the table of endpoints has the statuses and fields of
// openapi.json.
func TestReadmeEndpointsFitOpenAPI(t *testing.T) {
	t.Parallel()
	doc, operations := describedOperations(t)
	for _, m := range matches(t, 20, "(?m)^\\| `([A-Z]+ /[^`]*)` \\| [^|]+ \\| ([^|]*)\\| ([^|]*)\\|$", readText(t, "README.md")) {
		if m[1] == "GET /" { // openapi.json leaves it out, and TestPaths has it
			continue
		}
		op := operations[m[1]]
		for _, status := range matches(t, 0, `\b[2-5]\d\d\b`, m[3]) {
			if _, ok := op.Responses[status[0]]; !ok {
				t.Errorf("README.md has for %s the status %s, which openapi.json does not have", m[1], status[0])
			}
		}
		fields := map[string]bool{}
		for _, parameter := range op.Parameters {
			fields[parameter.Name] = true
		}
		for _, media := range op.RequestBody.Content {
			for _, schema := range append(media.Schema.OneOf, media.Schema) {
				for name := range doc.schema(schema).Properties {
					fields[name] = true
				}
			}
		}
		for _, field := range matches(t, 0, "`\\??(\\w+)", m[2]) {
			if !fields[field[1]] {
				t.Errorf("README.md has for %s the field %s, which openapi.json does not have", m[1], field[1])
			}
		}
	}
}

// TestReadmeSettings: the tables of settings list all flags with their variables and
// defaults, and the secrets.
func TestReadmeSettings(t *testing.T) {
	t.Parallel()
	readme := allPages(t)
	absent := describeSettings(t)
	var flags, variables []string
	for _, m := range matches(t, 20, "(?m)^\\| `(-[a-z-]+)` \\| `?([A-Z_]*)`? ?\\| ([^|]*)\\|", readme) {
		name, byDefault := m[1], strings.TrimSpace(m[3])
		flags = append(flags, name)
		hasVariable := name != "-version" && name != "-check"
		if hasVariable {
			variables = append(variables, m[2])
		}
		if hasVariable && m[2] != variableOf(name) {
			t.Errorf("README.md gives %s the variable %s, want %s", name, m[2], variableOf(name))
		}
		if value := strings.Trim(byDefault, "`"); value != byDefault {
			wantEqual(t, fmt.Sprintf("README.md gives %s the default %s, which changes the settings", name, value), describeSettings(t, name+"="+value), absent)
		}
		if want := usageDefault(name[1:]); strings.Trim(byDefault, "`") != want {
			t.Errorf("README.md gives %s the default %q, and -help %q", name, byDefault, want)
		}
	}
	slices.Sort(flags)
	wantEqual(t, "the flags, and those in the pages", flags, flagNames())
	for _, m := range matches(t, 4, "(?m)^\\| `(-[a-z-]+) ([^`]+)` \\|", readText(t, "README.md")) {
		if _, err := parseSettings(m[1:], envOf("SECRET_KEY="+settingsKey)); err != nil {
			t.Errorf("README.md recommends %s %s: %v", m[1], m[2], err)
		}
	}
	for _, m := range matches(t, 3, "(?m)^\\| `([A-Z_]+)` \\|", readme) {
		variables = append(variables, m[1], m[1]+"_FILE") // each row is a secret
	}
	var asked []string
	parseSettings(nil, func(name string) string { asked = append(asked, name); return "" })
	asked = slices.DeleteFunc(asked, func(name string) bool { return name == "STDAUTH_SECRET_KEY" }) // read only to report the mistake
	slices.Sort(asked)
	slices.Sort(variables)
	wantEqual(t, "the variables that are read, and those in the pages", variables, asked)
}

// TestPagesLimits: the table of limits has the values of the constants in the code.
func TestPagesLimits(t *testing.T) {
	t.Parallel()
	constants := map[string]any{
		"DefaultIterations": DefaultIterations, "minPassword": minPassword, "maxPassword": maxPassword,
		"minSecret": minSecret, "minDifferentBytes": minDifferentBytes, "maxToken": maxToken, "leeway": leeway,
		"refreshGrace": refreshGrace, "refreshPause": refreshPause, "maxSessions": maxSessions, "freeTries": freeTries, "freeAddressTries": freeAddressTries,
		"maxDelay": maxDelay, "maxWaiting": maxWaiting, "knownWaiting": knownWaiting, "maxQueueTime": maxQueueTime,
		"clientConnections": clientConnections, "maxStreams": maxStreams, "maxBytes": maxBytes, "streamBytes": streamBytes,
		"maxRegistrations": maxRegistrations, "maxChanges": maxChanges, "maxSpent": maxSpent, "maxBody": maxBody, "maxInvalid": maxInvalid,
		"headerTimeout": headerTimeout, "requestTimeout": requestTimeout, "writeTimeout": writeTimeout, "idleTimeout": idleTimeout,
		"gracePeriod": gracePeriod, "maxProfile": maxProfile, "minClientSecret": minClientSecret,
		"mailsAnHour": mailsAnHour, "mailInterval": mailInterval, "maxMails": maxMails, "mailPatience": mailPatience, "smtpPatience": smtpPatience,
		"compactSlack": compactSlack, "maxLine": maxLine, "etcdPatience": etcdPatience,
	}
	listed := map[string]bool{}
	for _, m := range matches(t, 20, "(?m)^\\| [^|]+ \\| ([0-9]\\w*)[^|]* \\| [^|]+ \\| `(\\w+)` \\|$", allPages(t)) {
		value, name := m[1], m[2]
		if strings.HasPrefix(name, "Test") {
			continue // a version, in docs/stack.md
		}
		listed[name] = true
		want := fmt.Sprint(constants[name])
		if d, ok := constants[name].(time.Duration); ok {
			if given, err := time.ParseDuration(value); err == nil && given == d {
				continue
			}
		}
		if value != want {
			t.Errorf("the limit %s is %s in the pages, and %s in the code", name, value, want)
		}
	}
	for name := range constants {
		if !listed[name] {
			t.Errorf("the pages do not list the limit %s", name)
		}
	}
}

// TestPagesNumbersInProse: a number in a sentence is that of the code. Other tests check the
// tables of README.md and docs/promises.md.
func TestPagesNumbersInProse(t *testing.T) {
	t.Parallel()
	set := defaultSettings(t)
	seconds := func(d time.Duration) int { return int(d.Seconds()) }
	status := func(err error) int { p, _ := problemOf(err); return p.status }
	grouped := func(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }
	version := func(file, after string) string {
		_, line, _ := strings.Cut(readText(t, file), after)
		return regexp.MustCompile(`^\d+(\.\d+)?`).FindString(line)
	}
	var text strings.Builder
	for _, page := range pages(t) {
		text.WriteString(prose(readText(t, page)) + "\n")
	}
	for _, sentence := range []string{
		fmt.Sprintf("with PBKDF2-HMAC-SHA256, %s iterations", grouped(DefaultIterations)),
		fmt.Sprintf("An access token lives %d minutes", int(set.AccessTTL.Minutes())),
		fmt.Sprintf("an access token, which is valid for %d minutes", int(set.AccessTTL.Minutes())),
		fmt.Sprintf("the %s most common", grouped(len(commonPasswords()))),
		fmt.Sprintf("requires 15 characters where a password is the only factor; stdauth requires %d", minPassword),
		fmt.Sprintf("6.2.1 %d characters or more", minPassword),
		fmt.Sprintf("up to %s bytes", grouped(maxPassword)),
		fmt.Sprintf("session IDs have %d", 5*len(NewSession(User{}, time.Now(), Lifetimes{}).ID)), // base32
		fmt.Sprintf("recommends at most 30 days where a password is the only factor; the default is %d", int(set.SessionLife.Max.Hours()/24)),
		fmt.Sprintf("rotation with %d s of grace", seconds(refreshGrace)),
		fmt.Sprintf("each attempt after the %s must wait", map[int]string{5: "fifth"}[freeTries]),
		fmt.Sprintf("the body is over %d KiB, or over %d KiB for a form", maxBody>>10, maxForm>>10),
		fmt.Sprintf("the secret has %d bytes or more", minClientSecret),
		fmt.Sprintf("a secret of %d bytes or more", minClientSecret),
		fmt.Sprintf("the request did not arrive within %d s", seconds(requestTimeout)),
		fmt.Sprintf("the server finishes requests under way, for %d s at most", seconds(gracePeriod)),
		fmt.Sprintf("The clocks of the copies may differ by %d s", seconds(leeway)),
		fmt.Sprintf("clocks of copies differ by more than %d s", seconds(leeway)),

		fmt.Sprintf("A %d also has `", status(errInvalidFields)),
		fmt.Sprintf("A %d and a %d have `", status(ErrThrottled), status(ErrBusy)),
		fmt.Sprintf("A %d has `", status(errNoCredentials)),
		fmt.Sprintf("gets a %d with `: the first", status(ErrUnavailable)),
		fmt.Sprintf("Reads still work, and ` responds with %d", status(ErrUnavailable)),
		fmt.Sprintf("takes no changes; ` responds with %d", status(ErrUnavailable)),
		fmt.Sprintf("shows the same %d here", status(ErrToken)),
		fmt.Sprintf("The %d for a disabled account is the article's, and kept", status(ErrInactive)),

		fmt.Sprintf("It needs Go %s and downloads nothing", version("go.mod", "\ngo ")),
		fmt.Sprintf("needs only Go %s,", version("go.mod", "\ngo ")),
		fmt.Sprintf("runs as user ID %s.", version("Dockerfile", "\nUSER ")),
	} {
		if !strings.Contains(text.String(), sentence) {
			t.Errorf("no page has %q, which the code says", sentence)
		}
	}
}

// TestReadmeCodes: the table of codes, and the list in README.md, have the codes of
// http_errors.go in their order.
func TestReadmeCodes(t *testing.T) {
	t.Parallel()
	var rows, codes, inTable, inList []string
	for _, p := range problems {
		if row := fmt.Sprintf("%s %d", p.code, p.status); !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
		if code := "`" + p.code + "`"; !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	for _, m := range matches(t, 20, "(?m)^\\| `([a-z_]+)` \\| (\\d{3}) \\|", allPages(t)) {
		inTable = append(inTable, m[1]+" "+m[2])
	}
	_, list, _ := strings.Cut(readText(t, "README.md"), "explains them: ")
	list, _, _ = strings.Cut(list, ".")
	for code := range strings.SplitSeq(list, ",") {
		inList = append(inList, strings.TrimSpace(code))
	}
	wantEqual(t, "the codes with their status, and those in the pages", inTable, rows)
	wantEqual(t, "the codes, and those in README.md", inList, codes)
}

// TestReadmeLinks: every link in a page leads to a file and a heading that exist.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for _, m := range matches(t, 0, `\]\(([^)#]*)(#[^)]+)?\)`, readText(t, page)) {
			file, anchor := filepath.Join(filepath.Dir(page), m[1]), strings.TrimPrefix(m[2], "#")
			if m[1] == "" {
				file = page
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(headings(t, readText(t, file)), anchor) {
				t.Errorf("%s links to %s, want one of %v", page, m[0], headings(t, readText(t, file)))
			}
		}
	}
}

// TestReadmeNames: the metrics, codes, functions and types that the pages name exist.
func TestReadmeNames(t *testing.T) {
	t.Parallel()
	text := allPages(t)
	known, source := map[string]bool{}, ""
	for _, file := range productionFiles(t) {
		_, names := fileKnows(t, file)
		maps.Copy(known, names)
		source += readText(t, file)
	}
	for _, f := range families {
		known[f.name] = true
		if f.kind == "histogram" {
			known[f.name+"_bucket"], known[f.name+"_sum"], known[f.name+"_count"] = true, true, true
		}
	}
	for _, p := range problems {
		known["code="+p.code] = true
	}
	_, types, _ := strings.Cut(text, "five types to know: ")
	types, _, _ = strings.Cut(types, ".\n")
	for name := range strings.SplitSeq(types, ", ") {
		if !strings.Contains(source, "\ntype "+name+" ") {
			t.Errorf("README.md names the type %q, which does not exist", name)
		}
	}
	var named []string
	for _, m := range matches(t, 5, `\bstdauth_[a-z_]+`, text) {
		named = append(named, m[0])
	}
	for _, m := range matches(t, 1, `code="(\w+)"`, text) {
		named = append(named, "code="+m[1])
	}
	for row := range strings.SplitSeq(section(t, text, "From FastAPI to net/http"), "\n| ") {
		_, here, _ := strings.Cut(row, " | ")
		for _, m := range matches(t, 0, "`(?:[A-Z]\\w*\\.)?([A-Za-z][A-Za-z0-9]*)`", here) { // SignAccess of "`Tokens.SignAccess` in `auth.go`"
			named = append(named, m[1])
		}
	}
	for _, name := range named {
		if !known[name] {
			t.Errorf("a page names %s, which does not exist", name)
		}
	}
	for _, m := range matches(t, 5, "`(?:\\w+\\.)?(\\w+)` in\\s`(\\w+\\.go)`", text) {
		if _, names := fileKnows(t, m[2]); !names[m[1]] {
			t.Errorf("a page says %s, but nothing has that name", m[0])
		}
	}
}

// TestPagesNameTests: the tests and benchmarks that the pages name, alone or in a command,
// exist.
func TestPagesNameTests(t *testing.T) {
	t.Parallel()
	functions := func(pattern string) (names []string) {
		files := need(filepath.Glob(pattern))(t)
		for _, file := range files {
			for _, m := range matches(t, 0, `(?m)^func ((?:[Tt]est|Benchmark|Fuzz)\w+)\(`, readText(t, file)) {
				names = append(names, m[1])
			}
		}
		return names
	}
	placeholders := []string{"TestName", "FuzzName", "TestMyStore"}
	ours, endToEnd := append(functions("*_test.go"), placeholders...), functions("e2e/*_test.go")
	text := allPages(t)
	for _, m := range matches(t, 50, `\b(?:[Tt]est|Fuzz)[A-Z]\w+`, text) {
		if !slices.Contains(ours, m[0]) && !slices.Contains(endToEnd, m[0]) {
			t.Errorf("a page names %s, which does not exist", m[0])
		}
	}
	for _, command := range matches(t, 10, "go (-C e2e )?test [^`\n#]*", text) {
		names := ours
		if command[1] != "" {
			names = endToEnd
		}
		for _, m := range matches(t, 0, `-(run|bench|fuzz) '?([^' ]+)`, command[0]) {
			kind := map[string]string{"run": "Test", "bench": "Benchmark", "fuzz": "Fuzz"}[m[1]]
			pattern, _, _ := strings.Cut(strings.ReplaceAll(m[2], `\|`, "|"), "/")
			for pattern := range strings.SplitSeq(pattern, "|") {
				selects := func(name string) bool {
					return strings.HasPrefix(name, kind) && regexp.MustCompile(pattern).MatchString(name)
				}
				if pattern != "^$" && !slices.ContainsFunc(names, selects) {
					t.Errorf("%q in a page selects nothing", command[0])
				}
			}
		}
	}
}

// TestPagesNameSettingsAndPaths: the flags, variables, paths, files and keys that the pages
// name in passing exist.
func TestPagesNameSettingsAndPaths(t *testing.T) {
	t.Parallel()
	variables := []string{"SSL_CERT_FILE", "OAUTHLIB_INSECURE_TRANSPORT"}
	parseSettings(nil, func(name string) string { variables = append(variables, name); return "" })
	paths := []string{"/metrics", "/debug/vars", "/debug/pprof/"}
	for _, r := range new(server).routes() {
		_, path, _ := strings.Cut(strings.TrimSuffix(r.pattern, "{$}"), " ")
		paths = append(paths, path)
	}
	elsewhere := regexp.MustCompile(`^/(data|etc|var|tmp|accounts|stdauth|admin|x)/`) // files, prefixes of keys, paths of an application
	text := allPages(t)
	for _, m := range matches(t, 80, "`((?:[A-Z]+ )?/[a-z][^` ]*|-[a-z][a-z-]*|[A-Z][A-Z_]{5,}|users\\.jsonl\\.\\w+)[` ]", text) {
		name, ok := m[1][strings.IndexByte(m[1], ' ')+1:], false // without the method
		switch name[0] {
		case '-':
			ok = slices.Contains(flagNames(), name)
		case '/':
			ok = slices.Contains(paths, name) || elsewhere.MatchString(name)
		case 'u': // beside the file of a store
			ok = strings.Contains(readText(t, "store_file.go"), strconv.Quote(strings.TrimPrefix(name, "users.jsonl")))
		default:
			ok = slices.Contains(variables, name) || strings.Contains(readText(t, "store_etcd_client.go"), "Alarm("+strconv.Quote(name)+")")
		}
		if !ok {
			t.Errorf("a page names %s, which does not exist", name)
		}
	}
	store := EtcdStore{prefix: "/stdauth/"}
	keys := store.userKey(1) + store.nameKey("x") + store.adminKey(1) + store.sessionsOf(1)
	for _, m := range matches(t, 1, `/stdauth/\w+/`, text) {
		if !strings.Contains(keys, m[0]) {
			t.Errorf("a page names the keys %s, which the store does not have", m[0])
		}
	}
}

// TestNothingIsLeftUndone: no file has a note of unfinished work.
func TestNothingIsLeftUndone(t *testing.T) {
	t.Parallel()
	undone := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	files := 0
	for _, pattern := range []string{"*", "docs/*", "web/*", "e2e/*", "e2e/*/*", "testdata/*", "testdata/scenarios/*", ".ci/*"} {
		for _, file := range need(filepath.Glob(pattern))(t) {
			text, err := os.ReadFile(file)
			if err != nil { // a folder
				continue
			}
			files++
			if m := undone.Find(text); m != nil && utf8.Valid(text) {
				t.Errorf("%s has a %s", file, m)
			}
		}
	}
	if files < 100 {
		t.Errorf("the test read %d files, want 100 or more", files)
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
	all := need(filepath.Glob("*.go"))(t)
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

// fileKnows returns the imports of a file and the names that it uses, including those
// with a package ("time.Now").
func fileKnows(t *testing.T, name string) (imports, names map[string]bool) {
	t.Helper()
	file := need(parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution))(t)
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

// variableOf returns the environment variable of a flag.
func variableOf(flag string) string {
	return "STDAUTH" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// describeSettings returns all settings with the given args.
func describeSettings(t *testing.T, args ...string) string {
	t.Helper()
	set, err := parseSettings(args, envOf("SECRET_KEY="+settingsKey))
	if err != nil {
		t.Fatalf("parseSettings(%q): %v", args, err)
	}
	set.given = nil
	return fmt.Sprintf("%+v", *set)
}

// usageDefault returns the default of a flag in -help.
func usageDefault(name string) string {
	_, usage, _ := strings.Cut(help, "\n  -"+name+" ")
	usage, _, _ = strings.Cut(usage, "\n  -")
	m := regexp.MustCompile(`(?s)\(default:? ([^;)]*)`).FindStringSubmatch(usage)
	if m == nil {
		return ""
	}
	return strings.Join(strings.Fields(m[1]), " ")
}

// matches returns what a pattern finds in a text, with its groups. If it finds fewer than
// least, the text has another form than the test knows.
func matches(t *testing.T, least int, pattern, text string) [][]string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	if len(found) < least {
		t.Fatalf("%s finds %d times what it looks for, want %d or more, in:\n%.2000s", pattern, len(found), least, text)
	}
	return found
}

// headings returns the anchors of the headings of a page.
func headings(t *testing.T, page string) (anchors []string) {
	for _, m := range matches(t, 0, `(?m)^#+ (.*)$`, page) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		anchors = append(anchors, regexp.MustCompile(`[^a-z0-9-]`).ReplaceAllString(anchor, ""))
	}
	return anchors
}

// section returns the text from a heading to the next one of any level.
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

// pages are README.md, SECURITY.md and the pages in docs/.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("docs/ has the pages %q, %v", docs, err)
	}
	return append([]string{"README.md", "SECURITY.md"}, docs...)
}

// allPages returns the text of all pages.
func allPages(t *testing.T) (text string) {
	t.Helper()
	for _, page := range pages(t) {
		text += readText(t, page) + "\n"
	}
	return text
}

// prose returns a page without its code, in one line.
func prose(page string) string {
	page = regexp.MustCompile("(?s)```.*?\n```").ReplaceAllString(page, "")
	return strings.Join(strings.Fields(regexp.MustCompile("`[^`]*`").ReplaceAllString(page, "`")), " ")
}

func defaultSettings(t *testing.T) *settings {
	t.Helper()
	set := need(parseSettings(nil, envOf()))(t)
	return set
}
