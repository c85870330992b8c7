package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/golang-jwt/jwt/v5"
)

var screenshots = flag.String("screenshots", "", "write the pictures that README.md shows to this `folder`")

// A tab is one page of a headless browser, with an eye on what must not happen
// in it.
type tab struct {
	t    testing.TB
	ctx  context.Context
	mu   sync.Mutex
	bad  []string // console errors, exceptions, violations of the policy
	urls []string // of all requests
}

// openTab starts a browser that can reach nothing but this machine.
func openTab(t testing.TB, width, height int64, scheme string) *tab {
	t.Helper()
	path := find(t, "apt-get install chromium", "chromium", "chromium-browser", "google-chrome", "chrome")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to sandbox for root
	}
	ctx, cancelBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	b := &tab{t: t}
	ctx, cancelTab := chromedp.NewContext(ctx, chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		b.check()
		cancelTab()
		cancelBrowser()
	})
	if err := chromedp.Do(ctx); err != nil { // starts the browser
		t.Fatal(err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancelTime)
	b.ctx = ctx
	b.do(chromedp.EmulateViewport(width, height))
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
	return b
}

// call gives the browser a command of its protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// watch runs in the page before its own scripts.
const watch = `
	window.shift = 0;
	new PerformanceObserver((list) => {
		for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
	}).observe({type: "layout-shift", buffered: true});
	document.addEventListener("securitypolicyviolation", (event) => console.error("violates " + event.violatedDirective + ": " + event.blockedURI));
`

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if slices.Contains([]string{"error", "warning", "assert"}, string(e.Type)) {
			var words []string
			for _, arg := range e.Args {
				words = append(words, string(arg.Value)+arg.Description)
			}
			b.bad = append(b.bad, "console: "+strings.Join(words, " "))
		}
	case *runtime.EventExceptionThrown:
		b.bad = append(b.bad, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		// The browser notes each answer from 400 up as a network error: those
		// are what the walkthrough is about.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.bad = append(b.bad, fmt.Sprintf("log: %s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		b.urls = append(b.urls, e.Request.URL)
	}
}

// check fails the test for anything that must not happen on the page.
func (b *tab) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bad := range b.bad {
		b.t.Error(bad)
	}
	for _, raw := range b.urls {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "data" && u.Hostname() != "127.0.0.1" {
			b.t.Errorf("a request to another host: %s", raw)
		}
	}
}

func (b *tab) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.urls)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the browser did not come to it in time: %w", err)
		}
		b.t.Fatal(err)
	}
}

func (b *tab) open(s *server) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.URL+"/docs"), chromedp.WaitReady(chromedp.CSS(".op")))
}

func (b *tab) visit(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// forgive forgets what has gone wrong so far.
func (b *tab) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = nil
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// eval returns what a JavaScript expression gives.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// js runs JavaScript for its effect.
func js(code string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](code)
}

// until waits for a JavaScript expression to become true.
func (b *tab) until(expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](fmt.Sprintf("Boolean(%s)", expression), chromedp.WithPollingTimeout(45*time.Second))); err != nil {
		b.t.Fatalf("never: %s (%v)\nthe page says: %s", expression, err, eval[string](b, "document.body.innerText.slice(0, 3000)"))
	}
}

func (b *tab) signIn(account string) {
	b.t.Helper()
	b.click(fmt.Sprintf("[data-demo=%s]", account))
	b.until(fmt.Sprintf(`document.getElementById("chip-name").textContent === %q && document.querySelector("#check-session.pass")`, account))
}

// All ten steps, one after the other.
func TestWalkthrough(t *testing.T) {
	s := startServer(t, "-access-ttl", "6s")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.click("#run-all")
	b.until(`document.querySelectorAll("[data-state=done]").length === 10 || document.querySelector("[data-state=failed]")`)

	got := eval[map[string][]string](b, `Object.fromEntries([...document.querySelectorAll(".card")].map((card) =>
		[card.dataset.step, [...card.querySelectorAll("details")].map((d) => d.querySelector("summary code").innerText + " = " + d.querySelector(".status").textContent)]))`)
	// A step first refreshes a token that is about to expire, so what counts is
	// how each ends.
	for step, want := range map[string][]string{
		"register":  {"POST /users/ = 201 Created"},
		"login":     {"POST /token = 200 OK"},
		"me":        {"GET /users/me/ = 200 OK"},
		"forbidden": {"GET /users/ = 403 Forbidden"},
		"allowed":   {"POST /token = 200 OK", "GET /users/ = 200 OK"},
		"forge":     {"GET /users/ = 401 Unauthorized"},
		"expire":    {"POST /token = 200 OK", "GET /users/me/ = 401 Unauthorized"},
		"refresh":   {"POST /token = 200 OK", "POST /token = 200 OK"},
		"replay":    {"POST /token = 400 Bad Request", "GET /users/me/ = 401 Unauthorized"},
		"logout":    {"GET /users/me/ = 200 OK", "POST /revoke = 200 OK", "GET /users/me/ = 401 Unauthorized"},
	} {
		if len(got[step]) < len(want) || !slices.Equal(got[step][len(got[step])-len(want):], want) {
			t.Errorf("step %s: %q, want it to end with %q", step, got[step], want)
		}
	}
	if text := eval[string](b, `document.body.textContent`); strings.Contains(text, "Not what was expected") {
		t.Error("a step says that its answer was not expected")
	}

	// Two of the commands, in a real shell: a form, and JSON.
	sh := find(t, "a POSIX shell", "sh")
	find(t, "apt-get install curl", "curl")
	for step, want := range map[string]string{"allowed": `"access_token":"`, "register": "Username already registered"} {
		command := eval[string](b, fmt.Sprintf(`document.querySelector("[data-step=%s] [aria-label='As a command']").textContent`, step))
		if out, err := run(t, "", nil, sh, "-c", command); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v\n%s\nwant %s", command, err, out, want)
		}
	}
}

// Without demo accounts, the walkthrough makes do with the account it registers.
func TestWalkthroughWithoutDemo(t *testing.T) {
	s := startServer(t, "-demo=false", "-access-ttl", "4s")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	if eval[bool](b, `getComputedStyle(document.getElementById("demo")).visibility === "visible"`) {
		t.Error("demo accounts are offered where there are none")
	}
	b.click("#run-all")
	b.until(`document.querySelectorAll("[data-state=done]").length === 9 && document.querySelector("[data-step=allowed][data-state=failed]")`)
	if text := eval[string](b, `document.querySelector("[data-step=allowed]").innerText`); !strings.Contains(text, "Sign in as an admin above") {
		t.Errorf("the admin's step does not say what to do:\n%s", text)
	}
}

// Signing in and out, with the keyboard alone.
func TestSignIn(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.do(chromedp.Focus(chromedp.CSS("#username")), chromedp.KeyEvent("johndoe"+kb.Tab+"wrong"+kb.Enter))
	b.until(`document.getElementById("sign-in-message").textContent === "Incorrect username or password"`)
	b.do(js(`document.getElementById("password").value = ""`), chromedp.Focus(chromedp.CSS("#password")), chromedp.KeyEvent("secret"+kb.Enter))
	b.until(`document.activeElement.id === "signed-in-title" && document.getElementById("chip").innerText.includes("johndoe")`)
	if stored := eval[int](b, `localStorage.length + sessionStorage.length + document.cookie.length`); stored != 0 {
		t.Error("the page has stored something")
	}
	access := eval[string](b, `document.getElementById("raw").textContent`)
	b.do(chromedp.KeyEvent(kb.Tab+kb.Tab), chromedp.KeyEvent(kb.Enter)) // over Refresh, to Sign out
	b.until(`document.activeElement.id === "username" && document.getElementById("chip").innerText.includes("Not signed in")`)
	req, err := http.NewRequest("GET", s.URL+"/users/me/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusUnauthorized) // the server knows too
}

// The token panel: one's own token, an edited one, and one from elsewhere.
func TestTokenPanel(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.signIn("johndoe")
	failing := func() []string {
		t.Helper()
		return eval[[]string](b, `[...document.querySelectorAll("#checks .fail")].map((row) => row.id)`)
	}
	passing := func() int { return eval[int](b, `document.querySelectorAll("#checks .pass").length`) }
	if f, p := failing(), passing(); len(f) != 0 || p != 11 {
		t.Errorf("of johndoe's token %d checks pass and %q fail, want 11 and none", p, f)
	}
	if n := eval[int](b, `CSS.highlights.get("header").size + CSS.highlights.get("payload").size + CSS.highlights.get("signature").size`); n != 3 {
		t.Errorf("%d of 3 parts have a colour", n)
	}

	// The payload is edited in its own field, as a person would.
	b.do(chromedp.SetValue(chromedp.CSS("#payload"), strings.ReplaceAll(eval[string](b, `document.getElementById("payload").value`), `"user"`, `"admin"`)),
		js(`document.getElementById("payload").dispatchEvent(new Event("input"))`))
	b.until(`document.getElementById("token-source").textContent.includes("edited")`)
	if f := failing(); len(f) != 0 {
		t.Errorf("before the server has been asked, %q fail", f)
	}
	_, rest, _ := strings.Cut(eval[string](b, `document.getElementById("raw").textContent`), ".")
	payload, _, _ := strings.Cut(rest, ".")
	if text, err := base64.RawURLEncoding.DecodeString(payload); err != nil || !strings.Contains(string(text), `"admin"`) {
		t.Errorf("the edited payload is %q (%v)", text, err)
	}
	b.click("#ask")
	b.until(`document.querySelector("#check-mac.fail")`)
	if message := eval[string](b, `document.getElementById("ask-message").textContent`); !strings.HasPrefix(message, "401") {
		t.Errorf("the answer to the edited token is %q", message)
	}
	b.click("[data-edit=none]")
	if f := failing(); !slices.Contains(f, "check-header") {
		t.Errorf("with alg none, %q fail, want the header among them", f)
	}
	if source := eval[string](b, `document.getElementById("token-source").className`); source != "source edited" {
		t.Errorf("edited twice, the token is of the %s", source)
	}
	b.click("#mine")
	b.click("[data-edit=later]")
	if text := eval[string](b, `document.getElementById("times").innerText`); !strings.Contains(text, "in 365 d") {
		t.Errorf("with a year added, the times are %q", text)
	}

	// jwt.io's example, pasted. Nothing is sent.
	before := b.requests()
	const foreign = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
	b.do(chromedp.Focus(chromedp.CSS("#raw")), js(`getSelection().selectAllChildren(document.getElementById("raw"))`))
	call(b, input.InsertText, input.InsertTextParams{Text: foreign})
	b.until(`document.getElementById("token-source").className === "source foreign"`)
	if f := failing(); !slices.Equal(f, []string{"check-claims", "check-audience", "check-exp"}) {
		t.Errorf("of a token from elsewhere, %q fail", f)
	}
	if !eval[bool](b, `document.getElementById("ask").disabled`) {
		t.Error("a token from elsewhere can be sent")
	}
	if name := eval[string](b, `JSON.parse(document.getElementById("payload").value).name`); name != "John Doe" {
		t.Errorf("the pasted token's name is %q", name)
	}
	b.click("[data-edit=role]")
	if !eval[bool](b, `document.getElementById("ask").disabled`) {
		t.Error("a token from elsewhere can be sent once it is edited")
	}
	if after := b.requests(); after != before {
		t.Errorf("%d requests were made while a token was pasted", after-before)
	}
}

// The page's checks are the server's: each of these tokens is about one of them,
// has a right signature, and is taken by the server exactly if it passes them.
func TestChecksInBrowser(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	access, _ := logIn(t, s, "johndoe", "secret")
	var c claims
	if _, _, err := jwt.NewParser().ParseUnverified(access, &c); err != nil {
		t.Fatal(err)
	}
	now := c.IssuedAt.Unix()
	const header = `{"alg":"HS256","typ":"JWT"}`
	good := fmt.Sprintf(`{"iss":"stdauth","aud":"stdauth","sub":"1","sid":%q,"username":"johndoe","role":"user","iat":%d,"exp":%d}`, c.SessionID, now, now+1800)
	sign := func(header, payload string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
		mac := hmac.New(sha256.New, []byte(testKey))
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s has no %s", good, old)
		}
		return sign(header, strings.Replace(good, old, new, 1))
	}
	ours := sign(header, good)
	// Of a MAC's last character two bits mean nothing, so it has a neighbour
	// that decodes to the same.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	stray := ours[:len(ours)-1] + string(alphabet[strings.IndexByte(alphabet, ours[len(ours)-1])+1])
	at := func(seconds int64) string { return strconv.FormatInt(now+seconds, 10) }

	for _, test := range []struct {
		name, token string
		want        []string
	}{
		{"ours", ours, nil},

		{"more than 4096 bytes", with(`johndoe`, strings.Repeat("x", 4000)), []string{"size"}},
		{"two parts", ours[:strings.LastIndexByte(ours, '.')], []string{"parts"}},
		{"four parts", ours + ".x", []string{"parts"}},
		{"no parts", "x", []string{"parts"}},
		{"alg none", sign(`{"alg":"none"}`, good), []string{"header"}},
		{"no typ", sign(`{"alg":"HS256"}`, good), []string{"header"}},
		{"typ in small letters", sign(`{"alg":"HS256","typ":"jwt"}`, good), []string{"header"}},
		{"an unknown header member", sign(`{"alg":"HS256","typ":"JWT","kid":"1"}`, good), []string{"header"}},
		{"crit", sign(`{"alg":"HS256","typ":"JWT","crit":["x"]}`, good), []string{"header"}},
		{"padding", ours + "=", []string{"base64"}},
		{"stray bits", stray, []string{"base64"}},
		{"a payload that is an array", sign(header, `[]`), []string{"claims"}},
		{"a second object behind the payload", sign(header, good+`{}`), []string{"claims"}},
		{"a claim twice", with(`}`, `,"sub":"2"}`), []string{"claims"}},
		{"a claim in the wrong case", with(`}`, `,"Sub":"2"}`), []string{"claims"}},
		{"an unknown claim", with(`}`, `,"jti":"1"}`), []string{"claims"}},
		{"nbf", with(`}`, `,"nbf":`+at(0)+`}`), []string{"claims"}},
		{"white space", with(`,"sub"`, `, "sub"`), []string{"claims"}},
		{"an escape", with(`johndoe`, `\u006aohndoe`), []string{"claims"}},
		{"another order", with(`"iss":"stdauth","aud":"stdauth"`, `"aud":"stdauth","iss":"stdauth"`), []string{"claims"}},
		{"aud as an array", with(`"aud":"stdauth"`, `"aud":["stdauth"]`), []string{"claims", "audience"}},
		{"a fraction of a second", with(`"exp":`+at(1800), `"exp":`+at(1800)+`.5`), []string{"claims"}},
		{"no exp", with(`,"exp":`+at(1800), ``), []string{"claims", "exp"}},
		{"exp as text", with(at(1800), `"`+at(1800)+`"`), []string{"claims"}},
		{"sub as a number", with(`"1"`, `1`), []string{"claims"}},
		{"sub with a zero before it", with(`"1"`, `"01"`), []string{"claims"}},
		{"no sid", with(`"sid":"`+c.SessionID+`",`, ``), []string{"claims"}},
		{"another issuer", with(`"iss":"stdauth"`, `"iss":"other"`), []string{"audience"}},
		{"another audience", with(`"aud":"stdauth"`, `"aud":"other"`), []string{"audience"}},
		{"the second it expires", with(`"exp":`+at(1800), `"exp":`+at(0)), []string{"exp"}},
		{"iat 40 s ahead", with(`"iat":`+at(0), `"iat":`+at(40)), []string{"iat"}},
	} {
		quoted, err := json.Marshal(test.token)
		if err != nil {
			t.Fatal(err)
		}
		got := eval[[]string](b, fmt.Sprintf(`import("/docs/jwt.js").then(({inspect}) =>
			inspect(%s, {issuer: "stdauth", now: Date.now() / 1000}).filter(({result}) => result === "fail").map(({check}) => check.id))`, quoted))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: the page says that %q fail, want %q", test.name, got, test.want)
		}
		req, err := http.NewRequest("GET", s.URL+"/users/me/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+test.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if taken := resp.StatusCode == http.StatusOK; taken != (test.want == nil) {
			t.Errorf("%s: the server says %d, and the page that %q fail", test.name, resp.StatusCode, test.want)
		}
	}
}

// Some operations of the reference, and a command from it in a real shell.
func TestReference(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	var operations int
	for _, item := range description(t, s).Paths.Map() {
		operations += len(item.Operations())
	}
	if shown := eval[int](b, `document.querySelectorAll(".op").length`); shown != operations {
		t.Errorf("the page shows %d operations of %d", shown, operations)
	}
	b.signIn("admin")
	send := func(operation, want string) {
		t.Helper()
		b.do(js(fmt.Sprintf(`document.querySelector("#op-%s .exchange")?.remove()`, operation)))
		b.click("#op-" + operation + " button[type=submit]")
		b.until(fmt.Sprintf(`document.querySelector("#op-%s .exchange .status")?.textContent`, operation))
		if got := eval[string](b, fmt.Sprintf(`document.querySelector("#op-%s .exchange").innerText`, operation)); !strings.Contains(got, want) {
			t.Errorf("%s: the answer does not hold %q:\n%s", operation, want, got)
		}
	}
	unfold := func(operation string) { t.Helper(); b.click("#op-" + operation + " > summary") }

	unfold("listUsers")
	b.do(chromedp.SendKeys(chromedp.CSS("#listUsers-limit"), "1"))
	send("listUsers", "GET /users/?limit=1")
	send("listUsers", `link: </users/?limit=1&after=1>; rel="next"`)
	command := eval[string](b, `document.querySelector("#op-listUsers .exchange [aria-label='As a command']").textContent`)
	sh := find(t, "a POSIX shell", "sh")
	find(t, "apt-get install curl", "curl")
	if out, err := run(t, "", nil, sh, "-c", command); err != nil || !strings.Contains(out, "HTTP/1.1 200 OK") || !strings.Contains(out, `"username":"johndoe"`) {
		t.Errorf("%s\n%v\n%s", command, err, out)
	}

	unfold("updateMe")
	send("updateMe", `"full_name": "John Q. Doe"`)
	unfold("createUser")
	b.do(chromedp.SetValue(chromedp.CSS("#createUser-body"), `{"username": "x y", "role": "admin"}`))
	send("createUser", "422 Unprocessable Content")
	send("createUser", "is not a field of this request")
	unfold("readHealth")
	send("readHealth", `"status": "ok"`)
	unfold("createToken")
	send("createToken", "This page uses these tokens from now on.")
	if name := eval[string](b, `document.getElementById("chip-name").textContent`); name != "johndoe" {
		t.Errorf("after a login in the reference, the page says %q, want johndoe", name)
	}
}

// The server goes, and comes back.
func TestServerGone(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.signIn("johndoe")
	s.stop(t)
	b.click("[data-step=me] button")
	b.until(`!document.getElementById("gone").hidden && document.querySelector("[data-step=me][data-state=failed]")`)
	b.click("#sign-out")
	b.until(`document.getElementById("sign-in-message").textContent.startsWith("The server did not answer")`)
	again := startServer(t, "-addr", s.Addr)
	b.click("#gone-retry")
	b.until(`document.getElementById("gone").hidden`)
	// It is another server with another key: the old session is over.
	b.click("#refresh")
	b.until(`document.getElementById("chip-name").textContent === "Not signed in"`)
	b.signIn("johndoe")
	again.stop(t)
}

// The description cannot be read, and then it can.
func TestReferenceUnreadable(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{URLPattern: s.URL + "/openapi.json", Block: true}}})
	b.visit(s.URL + "/docs")
	b.until(`document.getElementById("operations").innerText.includes("could not be read")`)
	b.signIn("johndoe") // all else works
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{})
	b.click("#operations button")
	b.until(`document.querySelector(".op")`)
}

// axe-core finds nothing to complain about, in any state, size or colour scheme.
func TestAccessibility(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join(npm(t), "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t)
	for _, size := range [][2]int64{{360, 800}, {768, 1024}, {1440, 900}} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprintf("%d %s", size[0], scheme), func(t *testing.T) {
				b := openTab(t, size[0], size[1], scheme)
				look := func(state string) {
					t.Helper()
					b.do(js(string(axe)))
					for _, v := range eval[[]string](b, `axe.run().then(({violations}) => violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.html.slice(0, 200) + " " + n.failureSummary)))`) {
						t.Errorf("%s: %s", state, v)
					}
					if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > int(size[0]) {
						t.Errorf("%s: the page is %d wide", state, wide)
					}
				}
				b.open(s)
				look("empty")
				if shift := eval[float64](b, `window.shift`); shift > 0.01 {
					t.Errorf("the layout jumps by %.3f while it loads", shift)
				}
				b.signIn("johndoe")
				look("signed in")
				b.click("[data-step=forge] button")
				b.until(`document.querySelector("[data-step=forge] details[open]")`)
				look("forged")
				b.click("#op-listUsers > summary")
				b.click("#op-updateUser > summary")
				b.click("#op-listUsers button[type=submit]")
				b.until(`document.querySelector("#op-listUsers .exchange")`)
				b.click("#op-listUsers .answers > summary")
				look("reference")
				b.do(js(`document.getElementById("gone").hidden = false`))
				look("server gone")
			})
		}
	}
}

// Small and quick: all that the page loads but openapi.json, and its first paint.
func TestPageWeight(t *testing.T) {
	files, err := filepath.Glob("../web/*")
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		sizes[filepath.Base(file)] = info.Size()
	}
	delete(sizes, "openapi.json")
	var sum int64
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		sum += sizes[name]
	}
	t.Logf("%d files, %d bytes", len(sizes), sum)
	if sum > 80_000 {
		t.Errorf("the page has %d bytes, want at most 80,000", sum)
	}
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.open(s) // the first includes the start of the browser's renderer
	const paint = `performance.getEntriesByName("first-contentful-paint")[0]`
	b.until(paint) // it may come after the load
	t.Logf("first contentful paint after %.0f ms, loaded after %.0f ms",
		eval[float64](b, paint+".startTime"),
		eval[float64](b, `performance.getEntriesByType("navigation")[0].loadEventEnd`))
}

// The pictures that README.md shows:
//
//	go -C e2e test -run Screenshots -screenshots ../docs .
func TestScreenshots(t *testing.T) {
	folder, flags := t.TempDir(), []string(nil) // to see that it works
	if *screenshots != "" {
		folder, flags = *screenshots, []string{"-addr", "127.0.0.1:8000"} // as README.md has it
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, flags...)
	for _, picture := range []struct {
		name          string
		width, height int64
		scheme        string
	}{
		{"page-light", 1280, 860, "light"},
		{"page-dark", 1280, 860, "dark"},
	} {
		b := openTab(t, picture.width, picture.height, picture.scheme)
		b.open(s)
		b.signIn("johndoe")
		b.click("[data-step=me] button")
		b.until(`document.querySelector("[data-step=me] details[open]")`)
		b.click("[data-step=forge] button")
		b.until(`document.querySelector("[data-step=forge] details[open]")`)
		b.do(js(`document.activeElement.blur(); document.querySelector("[data-step=forge]").scrollIntoView(); scrollBy(0, -6)`))
		b.do(chromedp.Sleep(300 * time.Millisecond))
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, picture.name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
