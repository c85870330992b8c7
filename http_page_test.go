package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Each route is an operation of openapi.json, which says who may call it.
func TestOpenAPISaysWhoMay(t *testing.T) {
	_, operations := describedOperations(t)
	closed := describedRoutes(Config{Closed: true})
	got, want := map[string]string{}, map[string]string{}
	for name, op := range operations {
		got[name] = "anyone"
		for _, s := range op.Security {
			if _, ok := s["bearer"]; ok {
				got[name] = "a token"
			}
		}
		if got[name] == "a token" && slices.ContainsFunc(op.Security, func(s map[string][]string) bool { return len(s) == 0 }) {
			got[name] = "anyone, or a token"
		}
	}
	for name, who := range describedRoutes(Config{}) {
		switch {
		case who != anyone:
			want[name] = "a token"
		case closed[name] == anyone:
			want[name] = "anyone"
		default: // as registration is open or closed
			want[name] = "anyone, or a token"
		}
	}
	wantEqual(t, "the callers of each operation of openapi.json, and of each route", got, want)
}

// Which answers an operation can have follows from who may call it, from what it
// takes, and from what it does. An error is described in the form in which fail sends it.
func TestOpenAPIHasEveryStatus(t *testing.T) {
	doc, operations := describedOperations(t)
	own := map[string]string{ // beside the success and what all of their kind have
		"POST /token":                     "200 401 429",
		"POST /revoke":                    "200",
		"POST /introspect":                "200 429",
		"POST /users/":                    "201 429",
		"GET /users/":                     "200 422",
		"GET /users/me/":                  "200",
		"PATCH /users/me/":                "200 429",
		"DELETE /users/me/":               "204 409 429",
		"PUT /users/me/password":          "200 429",
		"GET /users/me/sessions":          "200",
		"DELETE /users/me/sessions":       "204 429",
		"DELETE /users/me/sessions/{sid}": "204 429",
		"GET /users/{id}":                 "200 403",
		"PATCH /users/{id}":               "200 409 429",
		"PUT /users/{id}/password":        "204 429",
		"DELETE /users/{id}":              "204 429",
		"GET /users/{id}/sessions":        "200",
		"DELETE /users/{id}/sessions":     "204 429",
		"POST /forgot-password":           "202 404",
		"POST /reset-password":            "204",
		"POST /request-verify-token":      "202 404",
		"POST /verify":                    "204 404",
		"POST /users/{id}/reset-link":     "201",
		"GET /forward-auth":               "204 403",
		"GET /healthz":                    "200",
		"GET /readyz":                     "200 503",
		"GET /openapi.json":               "200 304",
		"GET /docs":                       "200 304",
		"GET /docs/{file}":                "200 304",
		"GET /docs/source/{file}":         "200 304",

		"GET /.well-known/oauth-authorization-server": "200 404",
		"GET /.well-known/change-password":            "302",
	}
	for name, who := range describedRoutes(Config{Closed: true}) {
		op := operations[name]
		statuses := own[name] + " 400" // two credentials, a secret in the query
		if name == "GET /forward-auth" {
			statuses = own[name] // a proxy knows no 400
		}
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
		if _, page, _ := strings.Cut(name, "/"); !strings.HasPrefix(page, "docs") && !strings.HasPrefix(page, ".well-known") && !strings.HasSuffix(page, "z") && page != "openapi.json" {
			statuses += " 500 503"
		}
		want := slices.Compact(slices.Sorted(strings.FieldsSeq(statuses)))
		wantEqual(t, "the statuses of "+name+", and openapi.json's", slices.Sorted(maps.Keys(op.Responses)), want)
		form := []string{"application/problem+json"}
		if strings.HasSuffix(name, "/token") || strings.HasSuffix(name, "/revoke") || strings.HasSuffix(name, "/introspect") {
			form = []string{"application/json"}
		}
		for status, r := range op.Responses {
			if status >= "400" {
				content := doc.Components.Responses[path.Base(r.Ref)].Content
				wantEqual(t, "the types of "+name+" "+status+" in openapi.json", slices.Collect(maps.Keys(content)), form)
			}
		}
	}
}

// The examples of errors are what the server answers, and there is one for each code
// but that of a method which no operation has.
func TestOpenAPIErrorExamples(t *testing.T) {
	doc, _ := describedOperations(t)
	seen := map[string]bool{"method_not_allowed": true}
	for name, r := range doc.Components.Responses {
		for _, media := range r.Content {
			for title, example := range media.Examples {
				var got errorBody
				noError(t, json.Unmarshal(example.Value, &got))
				seen[got.Code] = true
				if !slices.ContainsFunc(problems, func(p problem) bool {
					if name == "MayNotPass" && p.status == http.StatusBadRequest {
						p.status = http.StatusForbidden // which proxies know
					}
					if name == "NoAddress" && p.err == ErrNotFound {
						p.detail = "The server does not know its address: it was started without -public-url"
					}
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
	wantEqual(t, "the codes, and those of openapi.json's examples", slices.Sorted(maps.Keys(seen)), problemCodes())
	var listed []string
	for _, code := range doc.Components.Schemas["ErrorCode"].Enum {
		listed = append(listed, code.(string))
	}
	slices.Sort(listed)
	wantEqual(t, "the codes, and openapi.json's enum", listed, problemCodes())
}

// Everything that a client sends or gets has an example, and nothing that it sends
// has a default: generators take a field with one for required.
func TestOpenAPIHasExamples(t *testing.T) {
	var doc any
	noError(t, json.Unmarshal(webFile(t, "openapi.json"), &doc))
	checked := 0
	need := func(ok bool, at, what string) {
		if checked++; !ok {
			t.Errorf("%s has %s", at, what)
		}
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for i, item := range v {
				walk(fmt.Sprintf("%s/%d", at, i), item)
			}
		case map[string]any:
			parent := path.Base(path.Dir(at))
			schema, isMedia := v["schema"].(map[string]any)
			switch {
			case v["$ref"] != nil || v["scheme"] != nil:
			case parent == "schemas" || parent == "properties":
				need(v["examples"] != nil, at, "no examples")
				need(v["default"] == nil, at, "a default")
			case v["in"] != nil || parent == "headers":
				need(v["example"] != nil, at, "no example")
			case isMedia && strings.HasSuffix(at, "json") && v["example"] == nil && v["examples"] == nil:
				if items, ok := schema["items"].(map[string]any); ok {
					schema = items
				}
				need(schema["examples"] != nil || schema["$ref"] != nil, at, "no examples")
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
func TestOpenAPIFieldsOfResponses(t *testing.T) {
	doc, operations := describedOperations(t)
	for name, op := range operations {
		t.Run(name, alone(func(w *world) {
			w.do("login admin as admin")
			w.do("login johndoe as john")
			w.do("POST /users/1/reset-link as admin ; keep link as reset ; POST /request-verify-token as john ; mail verify as verify")
			token := map[string]string{"POST /reset-password": "$reset", "POST /verify": "$verify"}[name]
			call := strings.Replace(callFromExample(doc, name, op), "cHJvb2Y.1.1767323045.c2lnbmF0dXJl", token, 1)
			w.server.PublicURL = "https://id.example.com"
			w.do(call)
			r, described := op.Responses[strconv.Itoa(w.last.status)]
			if !described || w.last.status >= 400 {
				w.Fatalf("%s\n  got %s\n  want a success that openapi.json describes", call, w.show(w.last))
			}
			media, isJSON := r.Content["application/json"]
			if !isJSON || media.Schema == nil || strings.HasSuffix(call, ".json") && !strings.HasSuffix(call, "settings.json") {
				return
			}
			want, body := doc.schema(media.Schema), "["+w.last.body+"]"
			if want.Items != nil {
				want, body = doc.schema(want.Items), w.last.body
			}
			var objects []map[string]json.RawMessage
			noError(w, json.Unmarshal([]byte(body), &objects))
			wantEqual(w, "the fields of the answer to "+call+", and openapi.json's", slices.Sorted(maps.Keys(want.Properties)), slices.Sorted(maps.Keys(objects[0])))
		}))
	}
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
		t.Run(name, alone(func(w *world) {
			w.do("login admin as admin")
			schema := doc.schema(media.Schema)
			wantEqual(w, "the unknown fields that openapi.json lets "+name+" have", string(schema.AdditionalProperties), "false")
			refusals := func(body string) map[string]string { // by field
				a := w.send(strings.ReplaceAll(name, "{id}", "1") + " as admin " + body)
				var answer errorBody
				noError(w, json.Unmarshal([]byte(a.body), &answer))
				wantEqual(w, a.call+": the status", a.status, http.StatusUnprocessableEntity)
				found := map[string]string{}
				for _, e := range answer.Errors {
					found[e.Field] = e.Message
				}
				return found
			}
			var known, required []string
			for field := range names {
				value := fmt.Sprintf(`{%q:[]}`, field) // of no field's type
				if refusals(value)[field] != "is not a field of this request" {
					known = append(known, field)
				}
			}
			for field, message := range refusals(`{"is_admin":true}`) {
				if message == "is required" {
					required = append(required, field)
				}
			}
			slices.Sort(known)
			slices.Sort(required)
			wantEqual(w, "the fields that "+name+" takes, and openapi.json's", slices.Sorted(maps.Keys(schema.Properties)), known)
			wantEqual(w, "the fields that "+name+" needs, and openapi.json's", slices.Sorted(slices.Values(schema.Required)), required)
		}))
	}
}

// The files of the page and of the source are served with their types, compressed
// if the client accepts that, and revalidated.
func TestPageFilesAreServed(t *testing.T) {
	codings := map[string]string{"": "", "gzip;q=0": "", "gzip, deflate, br": "gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1": "gzip"}
	inWorld(t, func(w *world) {
		for path, contentType := range map[string]string{
			"/docs":                "text/html; charset=utf-8",
			"/docs/style.css":      "text/css; charset=utf-8",
			"/docs/app.js":         "text/javascript; charset=utf-8",
			"/docs/icon.svg":       "image/svg+xml",
			"/docs/ways.json":      "application/json",
			"/docs/source/auth.go": "text/plain; charset=utf-8",
			"/openapi.json":        "application/json",
		} {
			plain, etags := w.send("GET "+path), map[string]string{}
			for accept, coding := range codings {
				send := func(method, more string) *answered {
					return w.send(fmt.Sprintf("%s %s with %q %s", method, path, "Accept-Encoding: "+accept, more))
				}
				a := send("GET", "")
				etags[coding] = a.header.Get("ETag")
				content := a.body
				if coding == "gzip" {
					r, err := gzip.NewReader(strings.NewReader(a.body))
					if err != nil {
						t.Fatalf("%s: %v", a.call, err)
					}
					unzipped, _ := io.ReadAll(r)
					content = string(unzipped)
				}
				if a.status != 200 || content != plain.body {
					t.Errorf("%s = %d with %d bytes, want 200 with the %d of a plain response", a.call, a.status, len(content), len(plain.body))
				}
				length := strconv.Itoa(len(a.body))
				for name, want := range map[string]string{
					"Content-Type": contentType, "Content-Encoding": coding, "Content-Length": length, "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Origin",
				} {
					wantEqual(t, a.call+": "+name, a.header.Get(name), want)
				}
				wantEqual(t, "HEAD "+path+": Content-Length", send("HEAD", "").header.Get("Content-Length"), length)
				for match, want := range map[string]int{etags[coding]: 304, `"old", W/` + etags[coding]: 304, `"old"`: 200} {
					if again := send("GET", fmt.Sprintf("with %q", "If-None-Match: "+match)); again.status != want || want == 304 && again.body != "" {
						t.Errorf("%s\n  got %d and %d bytes\n  want %d", again.call, again.status, len(again.body), want)
					}
				}
			}
			for accept, other := range map[string]string{"": etags["gzip"], "gzip": etags[""]} {
				a := w.send(fmt.Sprintf("GET %s with %q with %q", path, "Accept-Encoding: "+accept, "If-None-Match: "+other))
				wantEqual(t, a.call+": the status for the ETag of another coding", a.status, 200)
			}
		}
	})
}

// Each Go file of the server is part of the binary, and no test is.
func TestSourceIsWhole(t *testing.T) {
	wantEqual(t, "the files of the server, and those that it serves", namesIn(t, code, "."), productionFiles(t))
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
	later := map[string]bool{"account.js": true, "code.js": true, "go.js": true, "operation.js": true, "rules.js": true, "run.js": true, "search.js": true} // when they are first needed
	for _, name := range namesIn(t, web, "web") {
		text := string(webFile(t, name))
		if path.Ext(name) == ".js" && !strings.Contains(index, `"/docs/`+name+`"`) && !later[name] {
			t.Errorf("index.html does not mention %s, so it is loaded late", name)
		}
		if name == "openapi.json" || name == "rules.json" || name == "icon.svg" {
			continue // which name others, and load nothing
		}
		text = strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")         // a name, and no address
		text = strings.ReplaceAll(text, "https://www.rfc-editor.org/rfc/rfc", "") // to follow; nothing is loaded
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

// The page learns from the server what it can offer, and who may call what.
func TestPageSettings(t *testing.T) {
	for _, test := range []struct{ flags, want, register string }{
		{"-addr=127.0.0.1:8000", `true stdauth 1800 open`, "anyone"},
		{"-demo=false -registration=closed -access-ttl=20s -issuer=https://x", `false https://x 20 closed`, "admin"},
	} {
		inWorld(t, func(w *world) {
			w.restart(strings.Fields(test.flags)...)
			var got struct {
				Demo         bool
				Issuer       string
				AccessTTL    int `json:"access_ttl"`
				Registration string
				Start        string
				Callers      map[string]string
			}
			body := w.send("GET /docs/settings.json").body
			noError(t, json.Unmarshal([]byte(body), &got))
			if text := fmt.Sprintf("%t %s %d %s", got.Demo, got.Issuer, got.AccessTTL, got.Registration); text != test.want || len(got.Start) < 20 {
				t.Errorf("settings.json with %s = %s, want %s and a start", test.flags, body, test.want)
			}
			for route, want := range map[string]string{"POST /users/": test.register, "GET /users/": "admin", "GET /users/me/": "active user", "POST /token": "anyone"} {
				wantEqual(t, "the callers of "+route+" in settings.json with "+test.flags, got.Callers[route], want)
			}
		})
	}
}

// The ways: which functions a request passes, in web/ways.json. The page shows them
// with their source, and docs/reading.md is made from them.

// Every function that a way names exists, and every refusal has its line. With -update,
// the files and sentences in ways.json are written from the code.
func TestWaysNameWhatIsThere(t *testing.T) {
	book, declared := readWays(t), declarations(t)
	files := map[string]map[string]string{}
	hops := book.hops(book.Parts["fail"])
	for _, way := range book.Ways {
		hops = append(hops, book.hops(way.Hops)...)
	}
	for _, h := range hops {
		d, ok := declared[h.name]
		if !ok {
			t.Errorf("ways.json has %s, which the server does not have", h.name)
			continue
		}
		if files[d.file] == nil {
			files[d.file] = map[string]string{}
		}
		files[d.file][h.name] = d.says
	}
	for _, r := range book.Refusals {
		declared[r.In].hasLine(t, r.In, r.Line)
	}
	for _, name := range book.Decisions {
		if !slices.ContainsFunc(hops, func(h hop) bool { return h.name == name }) {
			t.Errorf("ways.json has the decision %s, which is on no way", name)
		}
	}
	if *update {
		writeWayFiles(t, files)
		book.Files = files
	}
	wantEqual(t, "the functions of the ways with their comments, and those of ways.json, which go test -run Ways -update writes", book.Files, files)
}

// Each function of a way is called by the one above it, or is handed to it by one
// further up.
func TestWaysFollowTheCalls(t *testing.T) {
	book, declared := readWays(t), declarations(t)
	ways := append(book.Ways, pageWay{Route: "an error", Hops: []string{"server.endpoint", "  @fail"}})
	for _, way := range ways {
		handler := handlerName(way.Route)
		var above []string // the last function of each depth
		for i, h := range book.hops(way.Hops) {
			if h.depth > len(above) || i > 0 && h.depth == 0 {
				t.Fatalf("%s: %s is indented by %d below %q", way.Route, h.name, h.depth, above)
			}
			above = append(above[:h.depth], h.name)
			base := h.name[strings.LastIndexByte(h.name, '.')+1:]
			called := i == 0 || h.name == handler && above[h.depth-1] == "server.serve"
			for _, name := range above[:h.depth] {
				called = called || declared[name].names[base]
			}
			if !called {
				t.Errorf("%s: %s does not follow from %q", way.Route, h.name, above[:h.depth])
			}
		}
	}
}

// Every route has a way, which ends in its handler. The way reads the body that the
// route takes, and admits whom the route is for.
func TestEveryRouteHasAWay(t *testing.T) {
	book := readWays(t)
	for _, config := range []Config{{}, {Closed: true}} {
		for _, route := range (&server{Config: config}).routes() {
			name, found := strings.TrimSuffix(route.pattern, "{$}"), false
			for _, way := range book.Ways {
				closed := way.When == "registration=closed"
				if way.Route != name || name == "POST /users/" && closed != config.Closed {
					continue
				}
				found = true
				passes := map[string]bool{}
				for _, h := range book.hops(way.Hops) {
					passes[h.name] = true
				}
				isForm := route.body.limit == maxForm
				for function, want := range map[string]bool{
					"parseForm":       isForm,
					"parseObject":     route.body.limit > 0 && !isForm,
					"bearerToken":     route.who != anyone,
					handlerName(name): true,
				} {
					wantEqual(t, "the way of "+name+" passes "+function, passes[function], want)
				}
			}
			if !found {
				t.Errorf("%s has no way", name)
			}
		}
	}
	for _, way := range book.Ways {
		if way.Route != "" && handlerName(way.Route) == "" {
			t.Errorf("ways.json has a way for %s, which is no route", way.Route)
		}
	}
}

// Every code has the line that gives it, but for those of a store in trouble and of
// what nobody has foreseen. A token's causes are the checks of the page.
func TestEveryRefusalHasALine(t *testing.T) {
	book := readWays(t)
	var checks, causes []string
	for _, m := range regexp.MustCompile(`\{id: "(\w+)", title:`).FindAllSubmatch(webFile(t, "jwt.js"), -1) {
		checks = append(checks, string(m[1]))
	}
	codes := map[string]bool{"store_unavailable": true, "internal_error": true}
	for _, r := range book.Refusals {
		codes[r.Code] = true
		if r.Code == "invalid_token" {
			causes = append(causes, r.Cause)
		}
		behind := r.After == ""
		for _, way := range book.Ways {
			in := false
			for _, h := range book.hops(way.Hops) {
				in = in || h.name == r.In
				behind = behind || in && h.name == r.After
			}
		}
		if !behind {
			t.Errorf("the refusal %s in %s comes after %s, which no way has behind it", r.Code, r.In, r.After)
		}
	}
	for _, p := range problems {
		if !codes[p.code] {
			t.Errorf("ways.json has no line for the code %s", p.code)
		}
	}
	if diff := cmp.Diff(checks, causes); diff != "" || len(checks) < 10 {
		t.Errorf("the checks of jwt.js (-), and the causes of invalid_token in ways.json (+):\n%s", diff)
	}
}

// The manual shows each code, and the page can name the line for each of its refusals whose
// cause the response tells.
func TestManualsRefusalsHaveALine(t *testing.T) {
	book, seen := readWays(t), map[string]bool{"internal_error": true} // TestUnforeseen
	for _, section := range readRules(t) {
		for _, rule := range section.Rules {
			_, body, _ := strings.Cut(rule.Want, "\n{")
			var answer struct{ Code string }
			if rule.Want < "400" || json.Unmarshal([]byte("{"+body), &answer) != nil {
				continue
			}
			requests := requestsOf(rule.Do)
			last := requests[len(requests)-1]
			seen[answer.Code] = true
			if answer.Code == "invalid_token" || answer.Code == "store_unavailable" {
				continue // see the checks; no memory store is in trouble
			}
			way := book.wayOf(routeOfCall(last), last+rule.Do)
			if _, ok := book.refusedBy(way, answer.Code, body); !ok {
				t.Errorf("%s: %s\n  got %s\n  which no line of the way of %q decides about", section.Test, rule.Do, rule.Want, way.Route)
			}
		}
	}
	wantEqual(t, "the codes of the manual, and those of http_errors.go", slices.Sorted(maps.Keys(seen)), problemCodes())
}

// docs/reading.md follows the requests through the code, in the order of ways.json.
// Each shows only what none before it has shown.
func TestReadingOrder(t *testing.T) {
	book, files, seen := readWays(t), map[string]string{}, map[string]bool{}
	for file, functions := range book.Files {
		for name := range functions {
			files[name] = file
		}
	}
	var b strings.Builder
	b.WriteString("# Reading the code, request by request\n\n" +
		"Each request below passes the functions under it, in this order. Functions that an earlier request\n" +
		"has passed are left out, and some that concern few requests. The page at `/docs` shows the same functions with their source, under each request\n" +
		"that it sends. `go test -run ReadingOrder -update` writes this file from `web/ways.json`.\n")
	list := func(hops []hop) {
		above := []int{} // the depths of the functions that are shown above
		for _, h := range hops {
			for len(above) > 0 && above[len(above)-1] >= h.depth {
				above = above[:len(above)-1]
			}
			if !seen[h.name] {
				says := strings.TrimSuffix(": "+book.Files[files[h.name]][h.name], ": ")
				fmt.Fprintf(&b, "%s- `%s` in [%s](../%s)%s\n", strings.Repeat("  ", len(above)), h.name, files[h.name], files[h.name], says)
				above = append(above, h.depth)
				seen[h.name] = true
			}
		}
	}
	for _, way := range book.Ways {
		hops := book.hops(way.Hops)
		if !slices.ContainsFunc(hops, func(h hop) bool { return !seen[h.name] }) {
			continue
		}
		name := "`" + way.Route + "`"
		if way.Route == "" {
			name = "Any other path or method"
		}
		fmt.Fprintf(&b, "\n## %s: %s\n\n", name, way.Title)
		list(hops)
	}
	b.WriteString("\n## Any error\n\n")
	list(book.hops(book.Parts["fail"]))
	const file = "docs/reading.md"
	if *update {
		noError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	wantEqual(t, file+" is out of date; go test -run ReadingOrder -update writes it", readText(t, file), b.String())
}

// The rules: the rows of handlers_test.go, and of attack_*_test.go that are like them,
// in web/rules.json. The page shows them under each operation.

// Each section is a test of the manual, and all of the manual is there.
func TestPageRules(t *testing.T) {
	manual, total := readText(t, "handlers_test.go")+readText(t, "mail_test.go")+readText(t, "attack_requests_test.go")+readText(t, "attack_tokens_test.go"), 0
	sections := readRules(t)
	if *update {
		sections = slices.DeleteFunc(sections, func(s ruleSection) bool { return !strings.Contains(manual, "\nfunc "+s.Test+"(") })
		writeRules(t, sections)
	}
	for _, s := range sections {
		total += len(s.Rules)
		if !strings.Contains(manual, "\nfunc "+s.Test+"(") {
			t.Errorf("%s has rules of %s, which is no test of these files", rulesFile, s.Test)
		}
	}
	if total < 400 || strings.Count(manual, "\tcheckRules(t, ") != len(sections) {
		t.Errorf("%s has %d rules of %d tests, want those of %d", rulesFile, total, len(sections), strings.Count(manual, "\tcheckRules(t, "))
	}
}

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
	Parameters  []struct{ Name string }
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
	AnyOf, OneOf         []*apiSchema
	AdditionalProperties json.RawMessage
	Examples             []json.RawMessage
}

// describedOperations are the operations of openapi.json, by method and path.
func describedOperations(t testing.TB) (apiDescription, map[string]apiOperation) {
	t.Helper()
	var doc apiDescription
	noError(t, json.Unmarshal(webFile(t, "openapi.json"), &doc))
	operations := map[string]apiOperation{}
	for path, item := range doc.Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var op apiOperation
			noError(t, json.Unmarshal(raw, &op))
			operations[strings.ToUpper(method)+" "+path] = op
		}
	}
	return doc, operations
}

// schema follows a reference. Of alternatives it takes the first.
func (d apiDescription) schema(s *apiSchema) *apiSchema {
	if len(s.AnyOf) > 0 {
		s = s.AnyOf[0]
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

func webFile(t testing.TB, name string) []byte {
	t.Helper()
	b := need(web.ReadFile(path.Join("web", name)))(t)
	return b
}

func namesIn(t *testing.T, files fs.FS, folder string) (names []string) {
	t.Helper()
	for _, file := range need(fs.ReadDir(files, folder))(t) {
		names = append(names, file.Name())
	}
	return names
}

// describedRoutes is the route table in the words of openapi.json, which leaves
// out the redirect to the page.
func describedRoutes(config Config) map[string]admission {
	routes := map[string]admission{}
	for _, r := range (&server{Config: config}).routes() {
		if r.pattern != "GET /{$}" {
			routes[strings.ReplaceAll(r.pattern, "{$}", "")] = r.who
		}
	}
	return routes
}

// problemCodes are the codes of errors, sorted.
func problemCodes() (codes []string) {
	for _, p := range problems {
		codes = append(codes, p.code)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
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

// A wayBook is web/ways.json.
type wayBook struct {
	Files    map[string]map[string]string // the first sentence of each comment, by file and name
	Parts    map[string][]string          // hops that several ways have in common
	Ways     []pageWay                    // in the order in which they are read
	Refusals []pageRefusal                // the first that fits a response counts
	// Functions at which a request can turn out differently: a few.
	Decisions []string
}

// A pageWay is the functions that answer a request, each indented below the one
// that calls it. A hop that begins with @ stands for the hops of a part.
type pageWay struct {
	Route, When, Title string
	Hops               []string
}

// A pageRefusal is the line that decides about a refusal, or a part of it, and the last
// function that has been reached by then, if it is not In.
type pageRefusal struct{ Code, Cause, Says, In, Line, After string }

func readWays(t testing.TB) (book wayBook) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(webFile(t, "ways.json")))
	d.DisallowUnknownFields()
	noError(t, d.Decode(&book))
	return book
}

// A hop is one function of a way.
type hop struct {
	name  string
	depth int
}

// hops puts the parts into a way.
func (b wayBook) hops(lines []string) (list []hop) {
	for _, line := range lines {
		name := strings.TrimLeft(line, " ")
		depth := (len(line) - len(name)) / 2
		part, isPart := strings.CutPrefix(name, "@")
		if !isPart {
			list = append(list, hop{name, depth})
			continue
		}
		for _, h := range b.hops(b.Parts[part]) {
			list = append(list, hop{h.name, h.depth + depth})
		}
	}
	return list
}

// A declaration is a function or a variable of the server.
type declaration struct {
	file  string
	lines []string        // without white space around them
	names map[string]bool // that occur in it
	says  string          // the first sentence of its comment
}

// declarations are those of the server by name: "server.admit" is a method.
func declarations(t *testing.T) map[string]declaration {
	t.Helper()
	set, files, all := token.NewFileSet(), []*ast.File{}, map[string]declaration{}
	for _, name := range productionFiles(t) {
		files = append(files, need(parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution))(t))
	}
	pkg := need(doc.NewFromFiles(set, files, "example.com/stdauth", doc.AllDecls|doc.PreserveAST))(t)
	add := func(of, name, comment string, decl ast.Decl) {
		from, to := set.Position(decl.Pos()), set.Position(decl.End())
		d := declaration{file: from.Filename, names: map[string]bool{}, says: pkg.Synopsis(comment)}
		for line := range strings.SplitSeq(readText(t, d.file)[from.Offset:to.Offset], "\n") {
			d.lines = append(d.lines, strings.TrimSpace(line))
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if ident, ok := n.(*ast.Ident); ok {
				d.names[ident.Name] = true
			}
			return true
		})
		if rest, ok := strings.CutPrefix(d.says, name+" "); ok {
			d.says = strings.ToUpper(rest[:1]) + rest[1:]
		}
		all[strings.TrimPrefix(of+"."+name, ".")] = d
	}
	funcs, vars := pkg.Funcs, pkg.Vars
	for _, of := range pkg.Types {
		for _, method := range of.Methods {
			add(of.Name, method.Name, method.Doc, method.Decl)
		}
		funcs, vars = append(funcs, of.Funcs...), append(vars, of.Vars...)
	}
	for _, f := range funcs {
		add("", f.Name, f.Doc, f.Decl)
	}
	for _, v := range vars {
		add("", v.Names[0], v.Doc, v.Decl)
	}
	return all
}

func writeWayFiles(t *testing.T, files map[string]map[string]string) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("  ", "  ")
	noError(t, e.Encode(files))
	_, rest, _ := strings.Cut(readText(t, "web/ways.json"), "\n  \"parts\": ")
	text := "{\n  \"files\": " + strings.TrimSpace(b.String()) + ",\n  \"parts\": " + rest
	noError(t, os.WriteFile("web/ways.json", []byte(text), 0o644))
}

func (d declaration) hasLine(t *testing.T, name, line string) {
	t.Helper()
	count := 0
	for _, l := range d.lines {
		if strings.Contains(l, line) {
			count++
		}
	}
	wantEqual(t, fmt.Sprintf("the lines of %s with %q", name, line), count, 1)
}

// handlerName returns the name of the method that the route table has for a route.
func handlerName(route string) string {
	for _, r := range new(server).routes() {
		if strings.TrimSuffix(r.pattern, "{$}") == route {
			name := runtime.FuncForPC(reflect.ValueOf(r.handle).Pointer()).Name() // main.(*server).token-fm
			return "server." + strings.TrimSuffix(path.Ext(name)[1:], "-fm")
		}
	}
	return ""
}

// wayOf returns the way of a request.
func (b wayBook) wayOf(route, body string) (way pageWay) {
	for _, w := range b.Ways {
		if w.Route == route && strings.Contains(body, w.When) {
			if w.When != "" {
				return w
			}
			way = w
		}
	}
	return way
}

// refusedBy returns the line of a way that decides about a response, as code.js finds
// it.
func (b wayBook) refusedBy(way pageWay, code, response string) (pageRefusal, bool) {
	hops := b.hops(way.Hops)
	for _, r := range b.Refusals {
		inWay := slices.ContainsFunc(hops, func(h hop) bool { return h.name == r.In })
		if r.Code == code && r.Cause == "" && strings.Contains(response, strings.ReplaceAll(r.Says, `"`, `\"`)) && inWay {
			return r, true
		}
	}
	return pageRefusal{}, false
}

// A ruleSection is the rules of one test.
type ruleSection struct {
	Test  string     `json:"test"`
	Rules []pageRule `json:"rules"`
}

// A pageRule is an apiRule and the operation that it is about.
type pageRule struct {
	Rule      string `json:"rule"`
	Operation string `json:"operation,omitempty"`
	Do        string `json:"do"`
	Want      string `json:"want"`
}

const rulesFile = "web/rules.json"

func readRules(t *testing.T) (sections []ruleSection) {
	t.Helper()
	noError(t, json.Unmarshal([]byte(readText(t, rulesFile)), &sections))
	return sections
}

// checkPageRules fails if web/rules.json has other rules of this test. With -update,
// it writes them.
func checkPageRules(t *testing.T, rules []apiRule) {
	t.Helper()
	section := ruleSection{t.Name(), pageRules(t, rules)}
	sections := readRules(t)
	i := slices.IndexFunc(sections, func(s ruleSection) bool { return s.Test == section.Test })
	if *update {
		if i < 0 {
			i, sections = len(sections), append(sections, ruleSection{})
		}
		sections[i] = section
		writeRules(t, sections)
	}
	if i < 0 {
		t.Fatalf("%s has no rules of %s; go test -update writes them", rulesFile, section.Test)
	}
	wantEqual(t, "the rules, and those of "+rulesFile+", which go test -update writes", sections[i], section)
}

// writeRules writes a rule a line.
func writeRules(t *testing.T, sections []ruleSection) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i, s := range sections {
		fmt.Fprintf(&b, "%c{\"test\": %q, \"rules\": [\n", "[,"[min(i, 1)], s.Test)
		for j, rule := range s.Rules {
			if j > 0 {
				b.WriteByte(',')
			}
			noError(t, e.Encode(rule))
		}
		b.WriteString("]}\n")
	}
	b.WriteString("]\n")
	noError(t, os.WriteFile(rulesFile, b.Bytes(), 0o644))
}

// pageRules finds the operation of each rule: the first of its requests that is also
// the only one of some rule of this test.
func pageRules(t *testing.T, rules []apiRule) (list []pageRule) {
	t.Helper()
	_, operations := describedOperations(t)
	operation := func(call string) string { return operations[routeOfCall(call)].OperationID }
	about := map[string]bool{}
	for _, r := range rules {
		if calls := requestsOf(r.do); len(calls) == 1 {
			about[operation(calls[0])] = true
		}
	}
	for _, r := range rules {
		id := ""
		for _, call := range requestsOf(r.do) {
			if id = operation(call); about[id] {
				break
			}
		}
		list = append(list, pageRule{r.rule, id, abbreviate(r.do), abbreviate(r.want)})
	}
	return list
}

// someRequest is a command that makes a request, perhaps behind a keyword such as
// "begin 2".
var someRequest = regexp.MustCompile(`^(?:([a-z]+) (?:\d+ )?)?((?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) .*)`)

// requestsOf are the requests of a line of commands, in the order of their responses.
func requestsOf(do string) (calls []string) {
	begun := ""
	for command := range strings.SplitSeq(do, " ; ") {
		switch m := someRequest.FindStringSubmatch(command); {
		case command == "end":
			calls = append(calls, begun)
		case m != nil && m[1] == "begin":
			begun = m[2]
		case m != nil:
			calls = append(calls, m[2])
		}
	}
	return calls
}

// routeOfCall is the route that a request comes to, or "".
func routeOfCall(call string) string {
	mux := http.NewServeMux()
	for _, r := range new(server).routes() {
		mux.Handle(r.pattern, http.NotFoundHandler())
	}
	method, rest, _ := strings.Cut(call, " ")
	target, _, _ := strings.Cut(rest, " ")
	u, err := url.ParseRequestURI(target)
	if err != nil || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") {
		return ""
	}
	_, pattern := mux.Handler(&http.Request{Method: method, URL: u})
	return strings.TrimSuffix(pattern, "{$}")
}

// abbreviate writes many equal characters as ⟨x × 1025⟩, and what is not UTF-8 as
// U+FFFD.
func abbreviate(text string) string {
	var b strings.Builder
	text = strings.ToValidUTF8(text, "\uFFFD")
	for len(text) > 0 {
		c, size := utf8.DecodeRuneInString(text)
		rest := strings.TrimLeft(text, string(c))
		count := (len(text) - len(rest)) / size
		if count >= 30 {
			fmt.Fprintf(&b, "⟨%c × %d⟩", c, count)
		} else {
			b.WriteString(text[:len(text)-len(rest)])
		}
		text = rest
	}
	return b.String()
}
