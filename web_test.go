package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An apiDescription is what these tests read of openapi.json.
type apiDescription struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas   map[string]*apiSchema
		Responses map[string]apiResponse
	}
}

type apiOperation struct {
	OperationID string
	Security    []map[string][]string
	RequestBody struct {
		Content map[string]struct{ Schema *apiSchema }
	}
	Responses map[string]apiResponse
}

type apiResponse struct {
	Ref     string `json:"$ref"`
	Content map[string]struct {
		Schema   *apiSchema
		Examples map[string]struct{ Value json.RawMessage }
	}
}

type apiSchema struct {
	Ref                  string `json:"$ref"`
	Required             []string
	Enum                 []any
	Properties           map[string]*apiSchema
	Items                *apiSchema
	AdditionalProperties *bool
	Examples             []json.RawMessage
}

// describedOperations are the operations of openapi.json, by method and path.
func describedOperations(t testing.TB) (apiDescription, map[string]apiOperation) {
	t.Helper()
	var doc apiDescription
	if err := json.Unmarshal(webFile(t, "openapi.json"), &doc); err != nil {
		t.Fatal(err)
	}
	operations := map[string]apiOperation{}
	for path, item := range doc.Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var op apiOperation
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			operations[strings.ToUpper(method)+" "+path] = op
		}
	}
	return doc, operations
}

// schema follows a reference.
func (d apiDescription) schema(s *apiSchema) *apiSchema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

func webFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := web.ReadFile(path.Join("web", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// describedRoutes is the route table in the words of openapi.json, which leaves
// out the redirect to the page.
func describedRoutes(config Config) map[string]who {
	routes := map[string]who{}
	for _, r := range (&server{Config: config}).routes() {
		if r.pattern != "GET /{$}" {
			routes[strings.ReplaceAll(r.pattern, "{$}", "")] = r.who
		}
	}
	return routes
}

func TestOpenAPIHasEveryRoute(t *testing.T) {
	_, operations := describedOperations(t)
	want, got := slices.Sorted(maps.Keys(describedRoutes(Config{}))), slices.Sorted(maps.Keys(operations))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the routes (-), and the operations of openapi.json (+):\n%s", diff)
	}
}

func TestOpenAPISaysWhoMay(t *testing.T) {
	_, operations := describedOperations(t)
	closed := describedRoutes(Config{Closed: true})
	for name, who := range describedRoutes(Config{}) {
		want := "anyone"
		switch {
		case who != anyone:
			want = "a token"
		case closed[name] != anyone:
			want = "anyone, or a token" // as registration is open or closed
		}
		got, optional := "anyone", false
		for _, s := range operations[name].Security {
			optional = optional || len(s) == 0
			if _, ok := s["bearer"]; ok {
				got = "a token"
			}
		}
		if optional {
			got = "anyone, or " + got
		}
		if got != want {
			t.Errorf("openapi.json says that %s is for %s, want %s", name, got, want)
		}
	}
}

// Which answers an operation can have follows from who may call it, from what it
// takes, and from what it does.
func TestOpenAPIHasEveryStatus(t *testing.T) {
	_, operations := describedOperations(t)
	own := map[string]string{ // beside the success and what all of their kind have
		"POST /token":                     "200 401 429",
		"POST /revoke":                    "200",
		"POST /introspect":                "200",
		"POST /users/":                    "201",
		"GET /users/":                     "200 422",
		"GET /users/me/":                  "200",
		"PATCH /users/me/":                "200",
		"DELETE /users/me/":               "204 409 429",
		"PUT /users/me/password":          "200 429",
		"GET /users/me/sessions":          "200",
		"DELETE /users/me/sessions":       "204",
		"DELETE /users/me/sessions/{sid}": "204",
		"GET /users/{id}":                 "200 403",
		"PATCH /users/{id}":               "200 409",
		"PUT /users/{id}/password":        "204",
		"DELETE /users/{id}":              "204",
		"GET /users/{id}/sessions":        "200",
		"DELETE /users/{id}/sessions":     "204",
		"GET /healthz":                    "200",
		"GET /readyz":                     "200 503",
		"GET /openapi.json":               "200 304",
		"GET /docs":                       "200 304",
		"GET /docs/{file}":                "200 304",
		"GET /docs/source/{file}":         "200 304",
	}
	for name, who := range describedRoutes(Config{Closed: true}) {
		op := operations[name]
		statuses := own[name] + " 400" // two credentials, a secret in the query
		if who != anyone {
			statuses += " 401"
		}
		if who == admin || !strings.HasPrefix(name, "GET ") { // or from a page of another site
			statuses += " 403"
		}
		if strings.Contains(name, "{") {
			statuses += " 404"
		}
		if len(op.RequestBody.Content) > 0 {
			statuses += " 408 413 415"
		}
		if _, ok := op.RequestBody.Content["application/json"]; ok {
			statuses += " 422"
		}
		if _, page, _ := strings.Cut(name, "/"); !strings.HasPrefix(page, "docs") && !strings.HasSuffix(page, "z") && page != "openapi.json" {
			statuses += " 500 503"
		}
		want := slices.Compact(slices.Sorted(strings.FieldsSeq(statuses)))
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(op.Responses))); diff != "" {
			t.Errorf("the statuses of %s (-), and openapi.json's (+):\n%s", name, diff)
		}
	}
}

// An error is described in the form in which fail sends it.
func TestOpenAPIErrors(t *testing.T) {
	doc, operations := describedOperations(t)
	for name, op := range operations {
		for status, r := range op.Responses {
			if status < "400" {
				continue
			}
			want := "application/problem+json"
			if strings.HasSuffix(name, "/token") || strings.HasSuffix(name, "/revoke") || strings.HasSuffix(name, "/introspect") {
				want = "application/json"
			}
			content := doc.Components.Responses[path.Base(r.Ref)].Content
			if _, ok := content[want]; !ok || len(content) != 1 {
				t.Errorf("openapi.json gives %s %s the types %v, want %s", name, status, slices.Collect(maps.Keys(content)), want)
			}
		}
	}
}

// Its examples of errors are what the server answers, and there is one for each code
// but that of a method which no operation has.
func TestOpenAPIErrorExamples(t *testing.T) {
	doc, _ := describedOperations(t)
	seen := map[string]bool{"method_not_allowed": true}
	for name, r := range doc.Components.Responses {
		for _, media := range r.Content {
			for title, example := range media.Examples {
				got := struct {
					Title, Detail, Code, Error string
					Status                     int
					Description                string `json:"error_description"`
					Errors                     []fieldError
				}{}
				if err := json.Unmarshal(example.Value, &got); err != nil {
					t.Fatalf("%s, %s: %v", name, title, err)
				}
				seen[got.Code] = true
				if !slices.ContainsFunc(problems, func(p problem) bool {
					words := got.Status == p.status && got.Title == http.StatusText(p.status)
					if got.Error != "" {
						words = got.Error == p.oauth && got.Description == got.Detail
					}
					return words && got.Code == p.code && (got.Detail == p.detail || p.detail == "" && got.Detail != "") &&
						(got.Errors != nil) == (p.err == errInvalidFields)
				}) {
					t.Errorf("%s, %s: no error is answered with %s", name, title, example.Value)
				}
			}
		}
	}
	if diff := cmp.Diff(problemCodes(), slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("the codes (-), and those of openapi.json's examples (+):\n%s", diff)
	}
}

// problemCodes are the codes of errors, sorted.
func problemCodes() (codes []string) {
	for _, p := range problems {
		codes = append(codes, p.code)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

func TestOpenAPICodes(t *testing.T) {
	doc, _ := describedOperations(t)
	var listed []string
	for _, code := range doc.Components.Schemas["ErrorCode"].Enum {
		listed = append(listed, code.(string))
	}
	slices.Sort(listed)
	if diff := cmp.Diff(problemCodes(), listed); diff != "" {
		t.Errorf("the codes (-), and openapi.json's enum (+):\n%s", diff)
	}
}

// Everything that a client sends or gets has an example, and nothing that it sends
// has a default: generators take a field with one for required.
func TestOpenAPIHasExamples(t *testing.T) {
	var doc any
	if err := json.Unmarshal(webFile(t, "openapi.json"), &doc); err != nil {
		t.Fatal(err)
	}
	checked := 0
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for i, item := range v {
				walk(fmt.Sprintf("%s/%d", at, i), item)
			}
		case map[string]any:
			parent := path.Base(path.Dir(at))
			_, isParameter := v["in"]
			_, scheme := v["scheme"]
			schema, isMedia := v["schema"]
			_, defaulted := v["default"]
			_, reference := v["$ref"]
			switch {
			case reference || scheme:
			case parent == "schemas" || parent == "properties":
				checked++
				if v["examples"] == nil {
					t.Errorf("%s has no examples", at)
				}
				if defaulted {
					t.Errorf("%s has a default", at)
				}
			case isParameter || parent == "headers":
				checked++
				if v["example"] == nil {
					t.Errorf("%s has no example", at)
				}
			case isMedia && strings.HasSuffix(at, "json") && v["examples"] == nil:
				checked++
				of, _ := schema.(map[string]any)
				if items, ok := of["items"].(map[string]any); ok {
					of = items
				}
				if of["examples"] == nil && of["$ref"] == nil {
					t.Errorf("%s has no examples", at)
				}
			}
			for name, member := range v {
				if name != "example" && name != "examples" {
					walk(at+"/"+strings.ReplaceAll(name, "/", "~1"), member)
				}
			}
		}
	}
	walk("", doc)
	if checked < 100 {
		t.Errorf("%d things were looked at, want 100 or more: is the search broken?", checked)
	}
}

// Each operation is called with the example that openapi.json gives for its
// body; the answer has the fields that it says, and no others.
func TestOpenAPIFieldsOfAnswers(t *testing.T) {
	doc, operations := describedOperations(t)
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.login("admin", "admin", "secret")
				w.login("john", "johndoe", "secret")
				call := callFromExample(doc, name, op)
				w.do(call)
				r, described := op.Responses[strconv.Itoa(w.last.status)]
				if !described || w.last.status >= 300 {
					t.Fatalf("%s\n  got %s\n  want a success that openapi.json describes", call, w.show(w.last))
				}
				media, isJSON := r.Content["application/json"]
				if !isJSON || media.Schema == nil || strings.HasSuffix(call, ".json") && !strings.HasSuffix(call, "settings.json") {
					return
				}
				want := doc.schema(media.Schema)
				body := []byte(w.last.body)
				if want.Items != nil {
					want = doc.schema(want.Items)
					var list []json.RawMessage
					if err := json.Unmarshal(body, &list); err != nil || len(list) == 0 {
						t.Fatalf("%s = %s, want a list (%v)", call, body, err)
					}
					body = list[0]
				}
				var object map[string]json.RawMessage
				if err := json.Unmarshal(body, &object); err != nil {
					t.Fatalf("%s = %s: %v", call, body, err)
				}
				if diff := cmp.Diff(slices.Sorted(maps.Keys(object)), slices.Sorted(maps.Keys(want.Properties))); diff != "" {
					t.Errorf("the fields of the answer to %s (-), and openapi.json's (+):\n%s", call, diff)
				}
			})
		})
	}
}

// callFromExample is the call of an operation, in the language of the scenarios.
func callFromExample(doc apiDescription, name string, op apiOperation) string {
	file := "settings.json"
	if strings.Contains(name, "source") {
		file = "auth.go"
	}
	call := strings.NewReplacer("{id}", "1", "{sid}", "$john.sid", "{file}", file).Replace(name)
	as := "admin"
	switch {
	case strings.Contains(name, "/users/me/") || name == "GET /users/{id}":
		as = "john"
	case len(op.Security) == 0 || len(op.Security[0]) == 0:
		as = ""
	}
	if as != "" {
		call += " as " + as
	}
	switch content := op.RequestBody.Content; {
	case name == "POST /token":
		return call + " username=johndoe&password=secret"
	case content["application/x-www-form-urlencoded"].Schema != nil:
		return call + " token=$john"
	case content["application/json"].Schema != nil:
		return call + " " + string(doc.schema(content["application/json"].Schema).Examples[0])
	}
	return call
}

// The fields that a JSON body may have are those of its schema: each name that
// occurs anywhere in openapi.json is tried.
func TestOpenAPIFieldsOfRequests(t *testing.T) {
	doc, operations := describedOperations(t)
	names := map[string]bool{"is_admin": true}
	for _, schema := range doc.Components.Schemas {
		for name := range schema.Properties {
			names[name] = true
		}
	}
	for name, op := range operations {
		media, ok := op.RequestBody.Content["application/json"]
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.login("admin", "admin", "secret")
				schema := doc.schema(media.Schema)
				if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
					t.Errorf("openapi.json lets %s have unknown fields", name)
				}
				path := strings.ReplaceAll(name, "{id}", "1")
				var answer struct{ Errors []fieldError }
				refusals := func(body string) map[string]string {
					a := w.send(t.Context(), path+" as admin "+body)
					if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.status != http.StatusUnprocessableEntity {
						t.Fatalf("%s = %s, want 422 (%v)", a.call, w.show(a), err)
					}
					found := map[string]string{}
					for _, e := range answer.Errors {
						found[e.Field] = e.Message
					}
					return found
				}
				var known []string
				for field := range names {
					value := fmt.Sprintf(`{%q:[]}`, field) // of no field's type
					if refusals(value)[field] != "is not a field of this request" {
						known = append(known, field)
					}
				}
				slices.Sort(known)
				if diff := cmp.Diff(known, slices.Sorted(maps.Keys(schema.Properties))); diff != "" {
					t.Errorf("the fields that %s takes (-), and openapi.json's (+):\n%s", name, diff)
				}
				var required []string
				for field, message := range refusals(`{"is_admin":true}`) {
					if message == "is required" {
						required = append(required, field)
					}
				}
				slices.Sort(required)
				if diff := cmp.Diff(required, slices.Sorted(slices.Values(schema.Required))); diff != "" {
					t.Errorf("the fields that %s needs (-), and openapi.json's (+):\n%s", name, diff)
				}
			})
		})
	}
}

// The page is served with its types, may be kept, and is asked for again.
func TestPageFilesAreServed(t *testing.T) {
	inWorld(t, func(w *world) {
		for path, want := range map[string]string{
			"/docs":               "text/html; charset=utf-8",
			"/docs/style.css":     "text/css; charset=utf-8",
			"/docs/app.js":        "text/javascript; charset=utf-8",
			"/docs/icon.svg":      "image/svg+xml",
			"/docs/settings.json": "application/json",
			"/openapi.json":       "application/json",
		} {
			a := w.send(t.Context(), "GET "+path)
			if got := a.header.Get("Content-Type"); a.status != 200 || got != want {
				t.Errorf("GET %s = %d, %s; want 200, %s", path, a.status, got, want)
			}
			if path == "/docs/settings.json" {
				continue // may change with each start
			}
			if got := a.header.Get("Cache-Control"); got != "no-cache" {
				t.Errorf("GET %s: Cache-Control: %s, want no-cache", path, got)
			}
			again := w.send(t.Context(), fmt.Sprintf("GET %s with %q", path, "If-None-Match: "+a.header.Get("ETag")))
			if again.status != http.StatusNotModified || again.body != "" {
				t.Errorf("GET %s again = %s, want 304 and no body", path, w.show(again))
			}
			weak := w.send(t.Context(), fmt.Sprintf("GET %s with %q", path, `If-None-Match: "old", W/`+a.header.Get("ETag")))
			if weak.status != http.StatusNotModified {
				t.Errorf("GET %s, with a list of ETags = %d, want 304", path, weak.status)
			}
			if other := w.send(t.Context(), fmt.Sprintf("GET %s with %q", path, `If-None-Match: "old"`)); other.status != 200 {
				t.Errorf("GET %s, of an older version = %d, want 200", path, other.status)
			}
		}
	})
}

func TestPageHasOneAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, path := range []string{"/docs/index.html", "/docs/openapi.json", "/docs/web", "/docs/nothing.js"} {
			if a := w.send(t.Context(), "GET "+path); a.status != 404 {
				t.Errorf("GET %s = %d, want 404", path, a.status)
			}
		}
	})
}

// All that the page could load is its own, there is nothing inline that its
// policy would stop, and it is told of each script early.
func TestPageKeepsItsPolicy(t *testing.T) {
	index := string(webFile(t, "index.html"))
	for what, pattern := range map[string]string{
		"an inline script":     `<script[^>]*>\s*[^<\s]`,
		"an inline style":      `<style|\sstyle=`,
		"an inline handler":    `\son[a-z]+=`,
		"an address of others": `(src|href|action)="(https?:)?//`,
	} {
		if found := regexp.MustCompile(pattern).FindString(index); found != "" {
			t.Errorf("index.html has %s: %s", what, found)
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="/docs/([^"]+)"`).FindAllStringSubmatch(index, -1) {
		webFile(t, m[1])
	}
	for _, name := range webNames(t) {
		text := string(webFile(t, name))
		if path.Ext(name) == ".js" && !strings.Contains(index, `"/docs/`+name+`"`) {
			t.Errorf("index.html does not mention %s, so it is loaded late", name)
		}
		if name == "openapi.json" || name == "icon.svg" {
			continue // which name others, and load nothing
		}
		if found := regexp.MustCompile(`https?://[^\s"'<]+`).FindString(text); found != "" {
			t.Errorf("%s names another host: %s", name, found)
		}
		for _, never := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage.", "sessionStorage", "document.cookie"} {
			if strings.Contains(text, never) {
				t.Errorf("%s uses %s", name, never)
			}
		}
	}
}

func webNames(t testing.TB) []string {
	t.Helper()
	files, err := fs.ReadDir(web, "web")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// The page learns from the server what it can offer.
func TestPageSettings(t *testing.T) {
	for _, test := range []struct{ flags, want string }{
		{"-addr=127.0.0.1:8000", `{"demo":true,"issuer":"stdauth","access_ttl":1800,"registration":"open"}`},
		{"-demo=false -registration=closed -access-ttl=20s -issuer=https://x", `{"demo":false,"issuer":"https://x","access_ttl":20,"registration":"closed"}`},
	} {
		inWorld(t, func(w *world) {
			w.restart(strings.Fields(test.flags)...)
			if got := strings.TrimSpace(w.send(t.Context(), "GET /docs/settings.json").body); got != test.want {
				t.Errorf("settings.json with %s = %s, want %s", test.flags, got, test.want)
			}
		})
	}
}
