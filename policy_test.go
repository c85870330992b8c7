package main

import (
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
		if want := "example.com/stdauth\n"; got != want {
			t.Errorf("packages outside the standard library on %s:\n%swant only %s", goos, got, want)
		}
	}
	direct := regexp.MustCompile(`(?m)^(?:tool|require|\t)\s*([^\s(]+)( v\S+)?$`).FindAllStringSubmatch(readText(t, "go.mod"), -1)
	var got []string
	for _, m := range direct {
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
	)
	mustNot := map[string]struct{ imports, names string }{
		"users.go":    {lower, clock + stores + secret[:len("Hasher Tokens Passwords ")] + upper + "Session Store"},
		"sessions.go": {lower, clock + stores + secret + upper + "Store"},
		"store.go":    {lower, clock + stores + secret + upper},

		"store_change.go":  {lower, stores + secret + upper + "Store"},
		"store_memory.go":  {lower, secret + upper + "Store FileStore EtcdStore"},
		"auth.go":          {http + system + logs + "context net/url", clock + stores + upper + "Store User Session Passwords"},
		"auth_throttle.go": {lower, stores + upper + "Store User Session"},
		"shares.go":        {http + "os/signal syscall flag encoding/json net/url " + logs, stores + upper + secret + "Store User Session"},

		"handlers.go":         {system, stores + "settings"},
		"handlers_stack.go":   {system + logs, stores + "settings Tokens"},
		"handlers_token.go":   {system + logs, stores + "settings"},
		"handlers_users.go":   {system + logs, stores + "settings Tokens"},
		"http_body.go":        {system + logs, stores + "Store Session settings Hasher Tokens Passwords"},
		"http_connections.go": {system + logs + "encoding/json", stores + "Session User settings Hasher Tokens Passwords"},
		"http_errors.go":      {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_metrics.go":     {http + system + logs, stores + "Session User settings Hasher Tokens Passwords"},
		"http_middleware.go":  {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_browser.go":     {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_proxy.go":       {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_page.go":        {system + logs, stores + "Store Session User settings Hasher Tokens Passwords"},
		"http_call.go":        {system + "net/url", stores + "settings problem Hasher"},

		"main.go":          {"flag crypto/tls", "User Session problem call reply"},
		"main_offline.go":  {http + "flag os os/signal", "problem call reply Tokens Session"},
		"main_settings.go": {http + "os/signal syscall", stores + "Store server problem call reply"},
		"main_terminal.go": {http + "flag os/signal syscall", stores + "Store problem call"},
		"main_tls.go":      {http + "flag os/signal syscall", stores + upper + "Store User Session"},

		"main_limits_unix.go":    {http + "flag", stores + upper + "Store User Session"},
		"main_limits_windows.go": {http + "flag os syscall", stores + upper + "Store User Session"},

		"store_file.go":              {http + "flag", secret + upper + "EtcdStore"},
		"store_file_compact.go":      {http + "flag os/signal syscall", secret + upper + "EtcdStore Store"},
		"store_file_lines.go":        {http + system + logs, clock + secret + upper + "FileStore EtcdStore"},
		"store_file_folder.go":       {http + logs + "flag", clock + secret + upper + stores + "FileStore EtcdStore Store User Session"},
		"store_file_lock_unix.go":    {http + "flag", secret + upper + "Store User"},
		"store_file_lock_windows.go": {http + "flag", secret + upper + "Store User"},

		"store_etcd.go":        {http + system, secret + "server settings problem " + "FileStore"},
		"store_etcd_txn.go":    {http + system + logs, secret + "server settings problem " + "FileStore"},
		"store_etcd_client.go": {system, stores + secret + "server settings problem " + "User Session"},

		"handlers_mail.go": {system + logs, stores + "settings"},
		"mail.go":          {http + system, stores + "server settings problem reply Store Session"},
		"mail_delivery.go": {http + system, stores + secret + "server settings problem Store Session"},
	}
	all := map[string]bool{}
	for _, file := range productionFiles(t) {
		row, ok := mustNot[file]
		if !ok {
			t.Errorf("%s has no row in the table", file)
		}
		imports, names := fileKnows(t, file)
		for name := range strings.FieldsSeq(row.imports) {
			if imports[name] {
				t.Errorf("%s must not import %s", file, name)
			}
		}
		for name := range strings.FieldsSeq(row.names) {
			if names[name] {
				t.Errorf("%s must not use %s", file, name)
			}
		}
		maps.Copy(all, imports)
		maps.Copy(all, names)
	}
	// A row with a name that no longer exists would forbid nothing.
	for file, row := range mustNot {
		for name := range strings.FieldsSeq(row.imports + " " + row.names) {
			if !all[name] {
				t.Errorf("the row of %s forbids %s, which no longer exists", file, name)
			}
		}
	}
}

// TestReadmeReadingOrder: the reading order lists every file of the program once.
func TestReadmeReadingOrder(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+\\.go)` \\|").FindAllStringSubmatch(allPages(t), -1) {
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
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\| ([^|]+) \\|").FindAllStringSubmatch(allPages(t), -1) {
		got = append(got, m[1]+" by "+m[2])
	}
	wantEqual(t, "the routes, and the table of endpoints in README.md", slices.Compact(got), want) // POST /token has two rows
}

// TestReadmeEndpointsFitOpenAPI: the table of endpoints has the statuses and fields of
// openapi.json.
func TestReadmeEndpointsFitOpenAPI(t *testing.T) {
	t.Parallel()
	doc, operations := describedOperations(t)
	rows := regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\| [^|]+ \\| ([^|]*)\\| ([^|]*)\\|$").FindAllStringSubmatch(readText(t, "README.md"), -1)
	if len(rows) < 20 {
		t.Fatalf("the test found %d endpoints in README.md, want 20 or more", len(rows))
	}
	for _, m := range rows {
		if m[1] == "GET /" { // openapi.json leaves it out, and TestPaths has it
			continue
		}
		op := operations[m[1]]
		for _, status := range regexp.MustCompile(`\b[2-5]\d\d\b`).FindAllString(m[3], -1) {
			if _, ok := op.Responses[status]; !ok {
				t.Errorf("README.md has for %s the status %s, which openapi.json does not have", m[1], status)
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
		for _, field := range regexp.MustCompile("`\\??(\\w+)").FindAllStringSubmatch(m[2], -1) {
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
	for _, m := range regexp.MustCompile("(?m)^\\| `(-[a-z-]+)` \\| `?([A-Z_]*)`? ?\\| ([^|]*)\\|").FindAllStringSubmatch(readme, -1) {
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
	few := regexp.MustCompile("(?m)^\\| `(-[a-z-]+) ([^`]+)` \\|").FindAllStringSubmatch(readText(t, "README.md"), -1)
	for _, m := range few {
		if _, err := parseSettings(m[1:], envOf("SECRET_KEY="+settingsKey)); err != nil {
			t.Errorf("README.md recommends %s %s: %v", m[1], m[2], err)
		}
	}
	if len(few) < 4 {
		t.Errorf("the test found the settings %q in README.md, want 4 or more", few)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(readme, -1) {
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
	for _, m := range regexp.MustCompile("(?m)^\\| [^|]+ \\| ([0-9]\\w*)[^|]* \\| [^|]+ \\| `(\\w+)` \\|$").FindAllStringSubmatch(allPages(t), -1) {
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

// TestPagesNumbersInProse: each number with a unit, each status and each version in a page
// is in this list, either made from the code or a fact about something else. Other tests
// check the tables of README.md and docs/promises.md.
func TestPagesNumbersInProse(t *testing.T) {
	t.Parallel()
	set := defaultSettings(t)
	seconds := func(d time.Duration) int { return int(d.Seconds()) }
	status := func(err error) int {
		p, _ := problemOf(err)
		return p.status
	}
	grouped := func(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }
	_, goVersion, _ := strings.Cut(readText(t, "go.mod"), "\ngo ")
	goVersion = regexp.MustCompile(`^\d+\.\d+`).FindString(goVersion)
	_, imageUser, _ := strings.Cut(readText(t, "Dockerfile"), "\nUSER ")
	imageUser, _, _ = strings.Cut(imageUser, ":")
	known := []string{
		fmt.Sprintf("with PBKDF2-HMAC-SHA256, %s iterations", grouped(DefaultIterations)),
		fmt.Sprintf("An access token lives %d minutes", int(set.AccessTTL.Minutes())),
		fmt.Sprintf("an access token, which is valid for %d minutes", int(set.AccessTTL.Minutes())),
		fmt.Sprintf("the %s most common", grouped(len(commonPasswords()))),
		fmt.Sprintf("requires 15 characters where a password is the only factor; stdauth requires %d", minPassword),
		fmt.Sprintf("6.2.1 %d characters or more", minPassword),
		fmt.Sprintf("up to %s bytes", grouped(maxPassword)),
		fmt.Sprintf("dynamic tokens of 128 random bits | yes | session IDs have %d", 5*len(NewSession(User{}, time.Now(), Lifetimes{}).ID)), // base32
		fmt.Sprintf("recommends at most 30 days where a password is the only factor; the default is %d", int(set.Sessions.Max.Hours()/24)),
		fmt.Sprintf("rotation with %d s of grace", seconds(refreshGrace)),
		fmt.Sprintf("each attempt after the %s must wait", map[int]string{5: "fifth"}[freeTries]),
		fmt.Sprintf("the body is over %d KiB, or over %d KiB for a form", maxBody>>10, maxForm>>10),
		fmt.Sprintf("the secret has %d bytes or more", minClientSecret),
		fmt.Sprintf("the request did not arrive within %d s", seconds(requestTimeout)),
		fmt.Sprintf("the server finishes requests under way, for %d s at most", seconds(gracePeriod)),

		fmt.Sprintf("A %d also has `", status(errInvalidFields)),
		fmt.Sprintf("A %d and a %d have `", status(ErrThrottled), status(ErrBusy)),
		fmt.Sprintf("A %d has `", status(errNoCredentials)),
		fmt.Sprintf("gets a %d with `: the first", status(ErrUnavailable)),
		fmt.Sprintf("also gets a %d, although", status(ErrUnavailable)),
		fmt.Sprintf("` responds with %d too", status(ErrUnavailable)),
		fmt.Sprintf("Reads still work, and ` responds with %d", status(ErrUnavailable)),
		fmt.Sprintf("takes no changes; ` responds with %d", status(ErrUnavailable)),
		fmt.Sprintf("The clocks of the copies may differ by %d s", seconds(leeway)),
		fmt.Sprintf("clocks of copies differ by more than %d s", seconds(leeway)),
		fmt.Sprintf("shows the same %d here", status(ErrToken)),
		fmt.Sprintf("The %d for a disabled account is the article's, and kept", status(ErrInactive)),
		"has an address (201 and `)", // TestRegister
		"a status of 400 or above",

		fmt.Sprintf("It needs Go %s and downloads nothing", goVersion),
		fmt.Sprintf("needs only Go %s,", goVersion),
		"uses TLS 1.2 or later", // TestTLS
		fmt.Sprintf("runs as user ID %s.", imageUser),
		"only its owner can read it (mode 0600)", // TestFileIsForItsOwnerOnly
		"a start reads about 30 MB of it a second",

		// Facts about the server of the article, etcd, systemd and others.
		"` responds with 401 to the login that the article shows",
		"responds with 200 to an invalid token too", // TestIntrospect
		"The response to an invalid token is 200 with `",
		"It treats a token as expired 10 s early",
		"64 hexadecimal digits are a key of 64 bytes",
		"makes a 500 of any other refusal than 401 and 403",
		"a disabled account gets a 403 too",
		"the 503 of ` becomes a 500",
		"with a 500, not a 401",
		"A wrong password is a 401 with `",
		"their error has the ` 401 but not the code",
		fmt.Sprintf("a secret of %d bytes or more", minClientSecret),
		"and the response is 401",
		"Python 3.11, FastAPI",
		"deprecated since Python 3.12",
		"For an unknown name, no password is hashed: the response takes 2.5 ms instead of 235 ms.",
		"bcrypt reads 72 bytes",
		"etcd 3.4 or later",
		"the server answered 535 | the user or the password",
		"the server answered 550 | the mail server does not know",
		"the server answered 450 or the like",
		"From etcd 3.6 on",
		"etcd stores up to 2 GiB by default",
		"| | 2 GiB | 8 GiB |",
		"An account takes about 510 bytes of it and a session 410",
		"100 refreshes a second add 150 MB an hour",
		"over 10 ms is slow",
		"rates the exposure 1.3, of 10",
		"90 days before you publish",
	}
	number := regexp.MustCompile(`\b\d[\d,.]*[  -]?(s|ms|seconds?|minutes?|hours?|days?|bytes|(random )?bits|KiB|GiB|MB|GB|%|characters|sessions|iterations|tries|accounts|requests|most common)\b` +
		`|\bmode \d+|\bID \d+|\b(Go|etcd|Python|TLS|exposure) \d\.\d+|\b[2-5]\d\d\b`)
	tested := regexp.MustCompile("RFC [0-9]+|pull request [0-9]+|` \\| [2-5][0-9][0-9] \\|") // the last: TestReadmeCodes
	used := map[string]bool{}
	for _, page := range pages(t) {
		text := readText(t, page)
		switch page {
		case "docs/reading.md": // made from web/ways.json
			continue
		case "docs/mutation.md", "docs/growth.md", "docs/page.md": // what one run measured
			continue
		}
		if page == "README.md" || page == "docs/promises.md" {
			text = regexp.MustCompile(`(?m)^\|.*$`).ReplaceAllString(text, "")
		}
		text = tested.ReplaceAllString(prose(text), "")
		for _, fact := range known {
			if strings.Contains(text, fact) {
				used[fact] = true
				text = strings.ReplaceAll(text, fact, "")
			}
		}
		for _, m := range number.FindAllStringIndex(text, -1) {
			t.Errorf("%s has a number that is not in the list: ...%s...", page, text[max(0, m[0]-60):min(len(text), m[1]+40)])
		}
	}
	for _, fact := range known {
		if !used[fact] {
			t.Errorf("no page has %q", fact)
		}
	}
}

// TestReadmeCodes: the table of codes lists the codes of http_errors.go in their order.
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
	wantEqual(t, "the codes with their status, and those in the pages", got, want)

	want, got = nil, nil
	for _, p := range problems {
		if code := "`" + p.code + "`"; !slices.Contains(want, code) {
			want = append(want, code)
		}
	}
	_, list, _ := strings.Cut(readText(t, "README.md"), "explains them: ")
	list, _, _ = strings.Cut(list, ".")
	for code := range strings.SplitSeq(list, ",") {
		got = append(got, strings.TrimSpace(code))
	}
	wantEqual(t, "the codes, and those in README.md", got, want)
}

// TestReadmeLinks: every link in a page leads to a file and a heading that exist.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]+)?\)`).FindAllStringSubmatch(readText(t, page), -1) {
			file, anchor := filepath.Join(filepath.Dir(page), m[1]), strings.TrimPrefix(m[2], "#")
			if m[1] == "" {
				file = page
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(headings(readText(t, file)), anchor) {
				t.Errorf("%s links to %s, want one of %v", page, m[0], headings(readText(t, file)))
			}
		}
	}
}

// TestReadmeNames: the metrics, codes, functions and types that the pages name exist.
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
		t.Errorf("the test found the metrics %v in the pages, want 5 or more", found)
	}
	for _, m := range regexp.MustCompile(`code="(\w+)"`).FindAllStringSubmatch(readme, -1) {
		if !slices.ContainsFunc(problems, func(p problem) bool { return p.code == m[1] }) {
			t.Errorf("a page names the code %s, which does not exist", m[1])
		}
	}

	known := map[string]bool{}
	for _, file := range productionFiles(t) {
		_, names := fileKnows(t, file)
		maps.Copy(known, names)
	}
	// In "`Tokens.SignAccess` in `auth.go`", SignAccess is a name in the code.
	mapping := section(t, readme, "From FastAPI to net/http")
	names := 0
	for row := range strings.SplitSeq(mapping, "\n| ") {
		_, here, _ := strings.Cut(row, " | ")
		for _, m := range regexp.MustCompile("`(?:[A-Z]\\w*\\.)?([A-Za-z][A-Za-z0-9]*)`").FindAllStringSubmatch(here, -1) {
			names++
			if !known[m[1]] {
				t.Errorf("docs/article.md maps the article to %s, which no file has", m[0])
			}
		}
	}
	if names < 15 {
		t.Errorf("the test found %d names in the table of docs/article.md, want 15 or more", names)
	}
	for _, m := range regexp.MustCompile("`(?:\\w+\\.)?(\\w+)` in\\s`(\\w+\\.go)`").FindAllStringSubmatch(readme, -1) {
		if _, names := fileKnows(t, m[2]); !names[m[1]] {
			t.Errorf("a page says %s, but nothing has that name", m[0])
		}
	}
	_, types, _ := strings.Cut(readme, "four types to know: ")
	types, _, _ = strings.Cut(types, ".\n")
	if types == "" {
		t.Error("README.md does not name the types")
	}
	var code strings.Builder
	for _, file := range productionFiles(t) {
		code.WriteString(readText(t, file))
	}
	for name := range strings.SplitSeq(types, ", ") {
		if !strings.Contains(code.String(), "\ntype "+name+" ") {
			t.Errorf("README.md names the type %s, which does not exist", name)
		}
	}
}

// TestPagesNameTests: the tests and benchmarks that the pages name, alone or in a command,
// exist.
func TestPagesNameTests(t *testing.T) {
	t.Parallel()
	functions := func(pattern string) (names []string) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:[Tt]est|Benchmark|Fuzz)\w+)\(`).FindAllStringSubmatch(readText(t, file), -1) {
				names = append(names, m[1])
			}
		}
		return names
	}
	ours, endToEnd := functions("*_test.go"), functions("e2e/*_test.go")
	placeholders := []string{"TestName", "FuzzName", "TestMyStore"}
	alone, commands := 0, 0
	for _, page := range pages(t) {
		text := readText(t, page)
		for _, name := range regexp.MustCompile(`\b(?:[Tt]est|Fuzz)[A-Z]\w+`).FindAllString(text, -1) {
			alone++
			if !slices.Contains(slices.Concat(ours, endToEnd, placeholders), name) {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
		for _, command := range regexp.MustCompile("go (?:-C e2e )?test [^`\n#]*").FindAllString(text, -1) {
			names := ours
			if strings.Contains(command, "-C e2e") {
				names = endToEnd
			}
			for _, m := range regexp.MustCompile(`-(run|bench|fuzz) '?([^' ]+)`).FindAllStringSubmatch(command, -1) {
				kind := map[string]string{"run": "Test", "bench": "Benchmark", "fuzz": "Fuzz"}[m[1]]
				pattern, _, _ := strings.Cut(strings.ReplaceAll(m[2], `\|`, "|"), "/")
				for pattern := range strings.SplitSeq(pattern, "|") {
					commands++
					selects := func(name string) bool {
						return strings.HasPrefix(name, kind) && regexp.MustCompile(pattern).MatchString(name)
					}
					if pattern != "^$" && !slices.ContainsFunc(append(placeholders, names...), selects) {
						t.Errorf("%s: %q selects nothing", page, command)
					}
				}
			}
		}
	}
	if alone < 50 || commands < 15 {
		t.Errorf("the test found %d names of tests and %d in commands, want 50 and 15 or more", alone, commands)
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
	store := EtcdStore{prefix: "/stdauth/"}
	keys := store.userKey(1) + store.nameKey("x") + store.adminKey(1) + store.sessionsOf(1)
	elsewhere := regexp.MustCompile(`^/(data|etc|var|tmp|accounts|stdauth|admin|x)/`) // files, prefixes of keys, paths of an application
	count := 0
	for _, page := range pages(t) {
		text := readText(t, page)
		for _, m := range regexp.MustCompile("`((?:[A-Z]+ )?/[a-z][^` ]*|-[a-z][a-z-]*|[A-Z][A-Z_]{5,}|users\\.jsonl\\.\\w+)[` ]").FindAllStringSubmatch(text, -1) {
			count++
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
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
		for _, m := range regexp.MustCompile(`/stdauth/\w+/`).FindAllString(text, -1) {
			if !strings.Contains(keys, m) {
				t.Errorf("%s names the keys %s, which the store does not have", page, m)
			}
		}
	}
	if count < 80 {
		t.Errorf("the test found %d settings and paths in the pages, want 80 or more", count)
	}
}

// TestNothingIsLeftUndone: no file has a note of unfinished work.
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
		t.Errorf("the test read %d files, %v; want 20 or more", files, err)
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

// fileKnows returns the imports of a file and the names that it uses, including those
// with a package ("time.Now").
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

// headings returns the anchors of the headings of a page.
func headings(page string) (anchors []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
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
	set, err := parseSettings(nil, envOf())
	if err != nil {
		t.Fatal(err)
	}
	return set
}
