package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// description loads openapi.json from the server and validates it with its examples.
func description(t testing.TB, s *server) *openapi3.T {
	t.Helper()
	from, err := url.Parse(s.URL + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromURI(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	// Clients must accept new fields, but here a field that is not described is a mistake.
	for name, schema := range doc.Components.Schemas {
		if name != "PasswordGrant" && name != "RefreshGrant" && name != "TokenOnly" && name != "IntrospectedToken" && schema.Value.Type.Is("object") {
			schema.Value.AdditionalProperties = openapi3.BoolSchema{Has: new(bool)}
		}
	}
	return doc
}

// A checker is a transport that checks each request and response against openapi.json, and
// records the statuses of the responses.
type checker struct {
	t      testing.TB
	router routers.Router
	mu     sync.Mutex
	seen   map[string]bool // "createUser 201"
}

func checkedClient(t testing.TB, s *server) *http.Client {
	return &http.Client{Transport: newChecker(t, description(t, s))}
}

func newChecker(t testing.TB, doc *openapi3.T) *checker {
	t.Helper()
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &checker{t: t, router: router, seen: map[string]bool{}}
}

// illFormed has the statuses of requests that break the description on purpose.
var illFormed = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}

func (c *checker) RoundTrip(req *http.Request) (*http.Response, error) {
	c.t.Helper()
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("%s %s = %d", req.Method, req.URL.RequestURI(), resp.StatusCode)

	route, params, err := c.router.FindRoute(req)
	if err != nil {
		c.t.Errorf("%s is not in openapi.json: %v", what, err)
		return resp, nil
	}
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	input := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true}}
	if !slices.Contains(illFormed, resp.StatusCode) {
		if err := openapi3filter.ValidateRequest(req.Context(), input); err != nil {
			c.t.Errorf("%s: the request does not match openapi.json: %v", what, err)
		}
	}
	if err := openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(text)), Options: input.Options,
	}); err != nil {
		c.t.Errorf("%s: the response does not match openapi.json: %v\n%s", what, err, text)
	}
	if resp.StatusCode >= 400 {
		c.checkCode(what, route.Operation, resp, text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[route.Operation.OperationID+" "+strconv.Itoa(resp.StatusCode)] = true
	return resp, nil
}

// checkCode checks that openapi.json has an example with the code of the response.
func (c *checker) checkCode(what string, op *openapi3.Operation, resp *http.Response, body []byte) {
	c.t.Helper()
	var got struct{ Code string }
	if err := json.Unmarshal(body, &got); err != nil || got.Code == "" {
		c.t.Errorf("%s has no code: %s", what, body)
	}
	described := op.Responses.Status(resp.StatusCode)
	if described == nil {
		return // ValidateResponse has reported it
	}
	var examples []string
	for _, media := range described.Value.Content {
		for _, example := range media.Examples {
			examples = append(examples, fmt.Sprint(example.Value.Value.(map[string]any)["code"]))
		}
	}
	if !slices.Contains(examples, got.Code) {
		c.t.Errorf("%s has the code %s, and openapi.json has examples for %v", what, got.Code, examples)
	}
}

// checked returns the URL of a proxy that checks each request and response against
// openapi.json. It is for clients that can only be given an address.
func checked(t testing.TB, s *server) string {
	t.Helper()
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Accept-Encoding") // the transport decodes what it has asked for itself
		},
		Transport: newChecker(t, description(t, s)),
	})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

func init() {
	for _, mediaType := range []string{"text/html", "text/css", "text/javascript", "image/svg+xml"} {
		openapi3filter.RegisterBodyDecoder(mediaType, openapi3filter.PlainBodyDecoder)
	}
}

// TestEveryResponse calls each operation with the parameters and the body of the examples in
// openapi.json, and with one change for each described error. The responses must match
// the description, with all their fields.
func TestEveryResponse(t *testing.T) {
	doc := description(t, startServer(t))
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			t.Run("the operation "+op.OperationID+" returns each response in openapi.json", func(t *testing.T) {
				t.Parallel()
				c := newChecker(t, doc)
				a := attempt{t: t, client: &http.Client{Transport: c}, method: method, path: path, op: op, parameters: append(slices.Clone(item.Parameters), op.Parameters...)}
				for status := range op.Responses.Map() {
					code, err := strconv.Atoi(status)
					if err != nil {
						t.Fatalf("openapi.json has the status %q, want a number", status)
					}
					switch code {
					case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusServiceUnavailable:
						continue // no request can cause these
					}
					if op.OperationID == "readMetadata" && code == http.StatusNotFound {
						continue // on an address that is not loopback
					}
					a.provoke(code)
					if !c.seen[op.OperationID+" "+status] {
						t.Errorf("%s %s never returned %s, which openapi.json has", method, path, status)
					}
				}
			})
		}
	}
}

// An attempt is one operation. A test provokes all its responses.
type attempt struct {
	t            testing.TB
	client       *http.Client
	method, path string
	op           *openapi3.Operation
	parameters   openapi3.Parameters
}

// A request is a request of an attempt.
type request struct {
	as          string // "", "johndoe" or "admin"
	id, query   string
	etag        string
	site        string // Sec-Fetch-Site
	contentType string
	body        string
}

// provoke sends a request that should get the status to a fresh server.
func (a *attempt) provoke(status int) {
	a.t.Helper()
	r := a.example()
	var flags []string
	times := 1
	switch status {
	case http.StatusBadRequest:
		r.query = "?password=secret"
	case http.StatusNotModified:
		times = 2 // the second time with the ETag of the first
		if a.op.OperationID == "readPageFile" {
			r.id = "app.js" // settings.json has none
		}
	case http.StatusUnauthorized:
		r.as = ""
		if a.op.OperationID == "createToken" {
			r.body = "username=johndoe&password=wrong"
		}
		flags = []string{"-registration", "closed"}
	case http.StatusForbidden:
		if a.method != http.MethodGet {
			r.site = "cross-site" // see net/http.CrossOriginProtection
			a.play(r, nil, 1)
			r.site = ""
		}
		r.as = "johndoe"
		flags = []string{"-registration", "closed"}
		switch a.op.OperationID {
		case "forwardAuth":
			r.query = "?role=admin"
		case "readUser":
			r.id = "2"
		case "deleteMe":
			r.body = `{"password":"wrong"}`
		case "changeMyPassword":
			r.body = `{"current_password":"wrong","new_password":"newpassword"}`
		}
	case http.StatusNotFound:
		r.id = "999"
		switch a.op.OperationID {
		case "forgotPassword", "verifyEmail", "requestVerifyToken": // without mail
			flags = []string{"ADMIN_PASSWORD=" + adminPassword, "-demo=false", "-admin", "admin"}
		}
	case http.StatusConflict:
		r.as, r.id = "admin", "2"
		if a.op.OperationID == "updateUser" {
			r.body = `{"role":"user"}`
		}
	case http.StatusNoContent:
		switch a.op.OperationID {
		case "verifyEmail":
			r.body = `{"token":"$verify"}`
		case "resetPasswordByMail":
			r.body = `{"token":"$reset","new_password":"correct horse"}`
		}
	case http.StatusRequestEntityTooLarge:
		r.body = strings.Repeat(" ", 64<<10+1)
	case http.StatusUnsupportedMediaType:
		r.contentType = "text/plain"
	case http.StatusUnprocessableEntity:
		r.body, r.query = `{"unknown":1}`, "?limit=0&after=x"
	case http.StatusTooManyRequests:
		times = 6
		switch a.op.OperationID {
		case "createUser":
			times, r.as, r.body = 31, "", `{"username":"new$N","password":"correct horse"}`
		case "updateMe", "updateUser":
			times, r.body = 61, `{"full_name":"x"}`
		case "deleteUser", "endUserSessions", "endMyOtherSessions":
			times = 61
		case "endMySession":
			times, r.id = 61, "999"
		case "resetPassword":
			times, r.body = 61, `{"new_password":"correct horse"}`
		case "createToken":
			r.body = "username=johndoe&password=wrong"
		case "introspectToken":
			r.as, r.body = "", "client_id=rs0&client_secret=wrong&token=x"
			flags = []string{"INTROSPECT_CLIENT=rs0:0123456789abcdef"}
		case "deleteMe":
			r.body = `{"password":"wrong"}`
		default:
			r.body = `{"current_password":"wrong","new_password":"newpassword"}`
		}
	}
	a.play(r, flags, times)
}

// play sends a request to a fresh server a number of times.
func (a *attempt) play(r request, flags []string, times int) {
	a.t.Helper()
	s := startServer(a.t, flags...)
	var access string
	if r.as != "" {
		password := "secret"
		if slices.Contains(flags, "-demo=false") {
			password = adminPassword
		}
		access, _ = logIn(a.t, s, r.as, password)
	}
	body := withLink(a.t, s, r.body)
	for i := range times {
		r.body = strings.ReplaceAll(body, "$N", strconv.Itoa(i))
		r.etag = a.send(s, r, access)
	}
}

const adminPassword = "staple battery"

// withLink replaces $reset and $verify by the token of a link.
func withLink(t testing.TB, s *server, body string) string {
	t.Helper()
	switch {
	case strings.Contains(body, "$reset"):
		admin, _ := logIn(t, s, "admin", "secret")
		_, token, _ := strings.Cut(string(sendJSON(t, s, "POST", "/users/1/reset-link", admin, http.StatusCreated, nil)), "#reset=")
		return strings.Replace(body, "$reset", token[:strings.IndexByte(token, '"')], 1)
	case strings.Contains(body, "$verify"):
		john, _ := logIn(t, s, "johndoe", "secret")
		sendJSON(t, s, "POST", "/request-verify-token", john, http.StatusAccepted, nil)
		for range 100 {
			if _, token, ok := strings.Cut(string(sendJSON(t, s, "GET", "/docs/mail.json", "", http.StatusOK, nil)), "#verify="); ok {
				return strings.Replace(body, "$verify", token[:strings.IndexByte(token, '\\')], 1)
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatal("no mail came")
	}
	return body
}

// example returns the request with the examples of openapi.json.
func (a *attempt) example() request {
	r := request{id: "1"}
	if len(*a.op.Security) > 0 {
		r.as = "admin"
	}
	if a.op.OperationID == "deleteMe" {
		r.as = "johndoe" // the last admin cannot be deleted
	}
	if a.op.RequestBody == nil {
		return r
	}
	for contentType, media := range a.op.RequestBody.Value.Content {
		r.contentType = contentType
		var value any
		for _, name := range []string{"login"} {
			if example := media.Examples[name]; example != nil {
				value = example.Value.Value
			}
		}
		if value == nil {
			value = media.Schema.Value.Examples[0]
		}
		if contentType == "application/x-www-form-urlencoded" {
			form := url.Values{}
			for name, v := range value.(map[string]any) {
				form.Set(name, v.(string))
			}
			r.body = form.Encode()
			continue
		}
		b, err := json.Marshal(value)
		if err != nil {
			a.t.Fatal(err)
		}
		r.body = string(b)
	}
	return r
}

// send sends a request and returns the ETag of the response.
func (a *attempt) send(s *server, r request, access string) string {
	a.t.Helper()
	path := a.path
	for _, p := range a.parameters {
		value := r.id
		switch {
		case p.Value.Name == "sid" && r.id != "999" && access != "":
			value = sessionOf(a.t, s, access)
		case p.Value.Name == "file" && r.id == "1":
			value = p.Value.Example.(string)
		}
		path = strings.ReplaceAll(path, "{"+p.Value.Name+"}", value)
	}
	req, err := http.NewRequest(a.method, s.URL+path+r.query, strings.NewReader(r.body))
	if err != nil {
		a.t.Fatal(err)
	}
	if r.body == "" {
		req.Body = nil
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if access != "" {
		req.Header.Set("Authorization", "Bearer "+access)
	}
	if r.etag != "" {
		req.Header.Set("If-None-Match", r.etag)
	}
	if r.site != "" {
		req.Header.Set("Sec-Fetch-Site", r.site)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("ETag")
}

func sessionOf(t testing.TB, s *server, access string) string {
	t.Helper()
	req, err := http.NewRequest("GET", s.URL+"/users/me/sessions", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return decode[[]struct{ ID string }](t, resp, http.StatusOK)[0].ID
}

// TestPageFiles: the response of each file of the page matches openapi.json.
func TestPageFiles(t *testing.T) {
	s := startServer(t)
	api := checkedClient(t, s)
	files, err := filepath.Glob("../web/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in web", err)
	}
	for _, file := range append(files, "settings.json") {
		path := "/docs/" + filepath.Base(file)
		switch path {
		case "/docs/index.html":
			path = "/docs"
		case "/docs/openapi.json":
			path = "/openapi.json"
		}
		resp, err := api.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, resp, http.StatusOK)
	}
}

// TestLint runs Redocly and Spectral, two public linters, with all recommended rules and as
// docs/stack.md says. They find nothing but what the page silences by name.
func TestLint(t *testing.T) {
	s := startServer(t)
	const tools = "Tools for openapi.json"
	lint := func(command, ruleset string) (string, error) {
		dir := t.TempDir()
		linkModules(t, dir)
		writeFile(t, filepath.Join(dir, ".spectral.yaml"), ruleset)
		command = strings.ReplaceAll(command, "http://127.0.0.1:8000", s.URL)
		return run(t, dir, []string{"REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true"}, "sh", "-c", command)
	}
	redocly, spectral, ruleset := stackBlock(t, tools, "sh", 0), stackBlock(t, tools, "sh", 1), stackBlock(t, tools, "yaml", 0)
	for _, test := range []struct {
		name, command, ruleset string
		findings               int
	}{
		{"redocly finds nothing", redocly, "", 0},
		{"redocly finds the two paths that end in a slash, if they are not silenced", replaced(t, redocly, [2]string{"--skip-rule no-path-trailing-slash", ""}), "", 2},
		{"spectral finds nothing", spectral, ruleset, 0},
		{"spectral finds the two paths that end in a slash, if they are not silenced", spectral, replaced(t, ruleset, [2]string{"slash: off", "slash: warn"}), 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := lint(test.command, test.ruleset)
			found := strings.Count(out, "should not have a trailing slash") + strings.Count(out, "must not end with slash")
			if (err == nil) != (test.findings == 0) || found != test.findings || !strings.Contains(out, "valid") && !strings.Contains(out, "No results") && found == 0 {
				t.Errorf("%d findings, want %d (%v)\n%s", found, test.findings, err, out)
			}
		})
	}
}
