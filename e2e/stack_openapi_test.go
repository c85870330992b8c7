package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// These tests use openapi.json with the tools that docs/stack.md names.

// startPrism starts Prism, which checks requests and responses, in front of the server. It
// returns the address of a proxy that records the responses in which Prism finds a violation.
// Requests may be in violation: the rules send such on purpose, and Prism does not know that
// the fields of a form are text.
func startPrism(t *testing.T, server string) (address string, found func() []string) {
	t.Helper()
	command := stackBlock(t, "Tools for openapi.json", "sh", 2)
	_, args, ok := strings.Cut(strings.TrimSpace(command), " prism ")
	if !ok {
		t.Fatalf("the command of docs/stack.md is %q", command)
	}
	listen := etcdFreeAddress(t)
	_, port, _ := strings.Cut(listen, ":")
	args = strings.NewReplacer("http://127.0.0.1:8000", server, "4010", port).Replace(args)
	if _, err := startProgram(t, exec.Command(node(t), append([]string{filepath.Join(npm(t), ".bin", "prism")}, strings.Fields(args)...)...), listen); err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse("http://" + listen)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var violations []string
	recorder := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(resp *http.Response) error {
			header := resp.Header.Get("sl-violations")
			resp.Header.Del("sl-violations")
			if header == "" {
				return nil
			}
			var list []struct {
				Location []string
				Message  string
			}
			if err := json.Unmarshal([]byte(header), &list); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range list {
				if len(v.Location) > 0 && v.Location[0] == "response" {
					violations = append(violations, fmt.Sprintf("%s %s = %d: %v %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, v.Location, v.Message))
				}
			}
			return nil
		},
	})
	t.Cleanup(recorder.Close)
	return recorder.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return violations
	}
}

// TestStackPrism: Prism finds no violation while the page runs its walkthrough and its rules.
func TestStackPrism(t *testing.T) {
	s := startServer(t)
	address, found := startPrism(t, s.URL)
	b := openTab(t, 1280, 900, "light")
	b.open(&server{URL: address})
	b.signIn("johndoe")
	b.click("#run-all")
	b.until(`document.querySelectorAll("[data-state=done]").length > 0`)
	b.until(finished)
	got := eval[string](b, `document.getElementById("progress").textContent`)
	if done, all, _ := strings.Cut(strings.TrimSuffix(got, " done"), " of "); done != all || done == "" {
		t.Errorf("the walkthrough ends with: %s", got)
	}
	// Prism never answers a body that is not JSON, and ends at a name that is not ASCII. A
	// busy machine does not run all rules in the time of a test.
	ran := eval[[]int](b, `import("/docs/run.js").then(async ({run, whyNot}) => {
		const settings = await (await fetch("/docs/settings.json")).json();
		const rules = (await (await fetch("/docs/rules.json")).json()).flatMap(({rules}) => rules).filter((rule) => !whyNot(rule, settings));
		const possible = rules.filter((rule) => !/not_json|[^\n -~]|\\u/.test(rule.do + rule.want));
		const end = Date.now() + 60_000;
		let n = 0, hung = 0;
		for (const rule of possible) {
			if (Date.now() > end) break;
			const late = new Promise((resolve) => setTimeout(resolve, 10_000, "late"));
			if (await Promise.race([run(rule), late]) === "late") { hung++; console.info(rule.do); }
			n++;
		}
		return [n, possible.length, hung];
	})`)
	if ran[0] == 0 || ran[1] < 150 {
		t.Errorf("%d of %d rules were run, want some of 150 or more", ran[0], ran[1])
	}
	t.Logf("%d of %d rules were run, and Prism did not answer %d", ran[0], ran[1], ran[2])
	for _, violation := range found() {
		t.Error(violation)
	}
}

// TestStackPrismFinds: Prism finds a response that openapi.json does not describe.
func TestStackPrismFinds(t *testing.T) {
	s := startServer(t)
	description := repoFile(t, "web/openapi.json")
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/openapi.json" {
			fmt.Fprint(w, description)
			return
		}
		fmt.Fprint(w, `{"status":1}`)
	}))
	defer broken.Close()
	for server, finds := range map[string]bool{s.URL: false, broken.URL: true} {
		address, found := startPrism(t, server)
		resp, err := http.Get(address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, resp, http.StatusOK)
		if got := found(); (len(got) > 0) != finds {
			t.Errorf("Prism finds %q, want something: %v", got, finds)
		}
	}
}

// TestStackPostman: Postman's converter makes a collection from openapi.json, and all its
// requests run.
func TestStackPostman(t *testing.T) {
	s := startServer(t)
	access, _ := logIn(t, s, "admin", "secret")
	dir := t.TempDir()
	linkModules(t, dir)
	commands := strings.ReplaceAll(stackBlock(t, "Tools for openapi.json", "sh", 3), "http://127.0.0.1:8000", checked(t, s))
	out, err := run(t, dir, []string{"TOKEN=" + access}, "sh", "-ec", strings.TrimSpace(commands)+" -r cli,json --reporter-json-export report.json")
	text, unread := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil || unread != nil {
		t.Fatalf("%v, %v\n%s", err, unread, out)
	}
	var report struct {
		Run struct {
			Executions []struct {
				Item     struct{ Name string }
				Response struct{ Code int }
			}
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if n := len(report.Run.Executions); n < 25 {
		t.Errorf("newman sent %d requests, want 25 or more", n)
	}
	succeeded := 0
	for _, e := range report.Run.Executions {
		if e.Response.Code == 0 || e.Response.Code >= 500 {
			t.Errorf("%s: %d", e.Item.Name, e.Response.Code)
		}
		if e.Response.Code < 300 {
			succeeded++
		}
	}
	if succeeded < 15 {
		t.Errorf("%d requests succeed with the examples of openapi.json, want 15 or more", succeeded)
	}
}
