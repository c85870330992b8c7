package e2e

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// These tests are about the page as a whole: signing in, the walkthrough, the server
// that goes and comes back, and how the page looks, loads and is read aloud.

// stepsOf returns what each step has asked and got, in order.
func (b *tab) stepsOf() map[string][]string {
	return eval[map[string][]string](b, `Object.fromEntries([...document.querySelectorAll(".card")].map((card) =>
		[card.dataset.step, [...card.querySelectorAll(".exchange")].map((it) => it.querySelector("code").innerText + " = " + it.querySelector(".status").textContent)]))`)
}

const finished = `!document.querySelector("[data-state=running]") && document.getElementById("run-all").getAttribute("aria-disabled") !== "true"`

// All ten steps, one after the other. Nothing is left of them, and whoever was signed
// in is signed in again.
func TestWalkthrough(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	b.click("#run-all")
	b.until(`document.querySelectorAll("[data-state=done]").length > 0`)
	if focus := eval[string](b, `document.activeElement.id`); focus != "run-all" {
		t.Errorf("while the steps run, the focus is on %q", focus)
	}
	b.until(finished)
	if got := eval[string](b, `document.getElementById("progress").textContent`); got != "12 of 12 done" {
		t.Errorf("the walkthrough ends with: %s", got)
	}
	want := map[string][]string{
		"register":  {"POST /users/ = 201 Created"},
		"login":     {"POST /token = 200 OK"},
		"me":        {"GET /users/me/ = 200 OK"},
		"forbidden": {"GET /users/ = 403 Forbidden"},
		"allowed":   {"POST /token = 200 OK", "GET /users/ = 200 OK"},
		"forge":     {"GET /users/ = 401 Unauthorized"},
		"expire":    {"POST /token = 200 OK", "GET /users/me/ = 401 Unauthorized"},
		"refresh":   {"POST /token = 200 OK", "POST /token = 200 OK"},
		"replay":    {"POST /token = 200 OK", "POST /token = 400 Bad Request", "GET /users/me/ = 401 Unauthorized"},
		"reset": {"POST /token = 200 OK", "POST /verify = 204 No Content", "POST /forgot-password = 202 Accepted", "POST /reset-password = 204 No Content",
			"GET /users/me/ = 401 Unauthorized"},
		"again": {"POST /reset-password = 400 Bad Request"},
		"logout": {"POST /token = 200 OK", "GET /users/me/ = 200 OK", "POST /revoke = 200 OK", "GET /users/me/ = 401 Unauthorized",
			"POST /token = 200 OK", "DELETE /users/me/ = 204 No Content"},
	}
	for step, got := range b.stepsOf() {
		if !slices.Equal(got, want[step]) {
			t.Errorf("step %s: %q, want %q", step, got, want[step])
		}
	}
	if text := eval[string](b, `document.body.textContent`); strings.Contains(text, "Not what was expected") {
		t.Error("a step says that its response was not expected")
	}
	// The reason stands there without unfolding.
	for step, reason := range map[string]string{"forbidden": "Not enough permissions", "forge": "Could not validate credentials", "replay": "Could not validate credentials", "again": "The link is not valid"} {
		if text := eval[string](b, fmt.Sprintf(`document.querySelector("[data-step=%s]").innerText`, step)); !strings.Contains(text, reason) {
			t.Errorf("step %s does not say %q:\n%s", step, reason, text)
		}
	}
	if name := eval[string](b, `document.getElementById("chip-name").textContent`); name != "johndoe" {
		t.Errorf("after the walkthrough, %q is signed in", name)
	}
	// Passed steps are folded to a line that says how they ended. What they teach has its
	// rules and its code.
	if open := eval[int](b, `[...document.querySelectorAll(".card .out")].filter((it) => it.checkVisibility()).length`); open != 0 {
		t.Errorf("%d of the passed steps are unfolded", open)
	}
	if line := eval[string](b, `document.querySelector("[data-step=forge] .outcome").innerText`); line != "401 from GET /users/: Could not validate credentials" {
		t.Errorf("the line of a passed step is %q", line)
	}
	b.click("[data-step=forge] .title")
	if marked := eval[string](b, `[...document.querySelectorAll("[data-step=forge] mark")].map((it) => it.innerText.trim()).join("; ")`); marked != `role: "user"; role: "admin"` {
		t.Errorf("the payloads before and after differ by %q", marked)
	}
	for i := range 5 {
		lesson := fmt.Sprintf("#lessons li:nth-child(%d) .code-link", i+1)
		b.click(lesson)
		b.until(`document.querySelector("#rules-list .rule, #rules-list .rule-group")`)
		b.click(lesson + ":last-child")
		b.until(`document.querySelector("#code[open] #code-source")`)
		b.click("#code-close")
		b.do(js(`document.getElementById("rules-list").replaceChildren()`))
	}
	if me := eval[string](b, `document.querySelector("[data-step=register] .reason").textContent`); !strings.Contains(me, "The last step deletes") {
		t.Errorf("step 1 says: %s", me)
	}
	if got := usernames(t, s); !slices.Equal(got, []string{"johndoe", "admin"}) {
		t.Errorf("after the walkthrough there are the accounts %q", got)
	}
}

// Whatever ends the own session is seen by all parts of the page at once. What takes
// something away for good asks first.
func TestEndOfTheOwnSession(t *testing.T) {
	for _, test := range []struct {
		account, operation, body, sure string
		why                            string // "" if the page goes on with a new session
	}{
		{"johndoe", "deleteMe", `{"password":"secret"}`, "Delete my account", "the account was deleted"},
		{"johndoe", "changeMyPassword", `{"current_password":"secret","new_password":"correct horse"}`, "", ""},
		{"johndoe", "endMySession", "", "Log out one session", "logged out"},
		{"admin", "endUserSessions", "", "Log an account out everywhere", "an admin logged the account out everywhere"},
		{"admin", "updateUser", `{"disabled":true}`, "Change an account", "the account was disabled"},
	} {
		t.Run(test.operation, func(t *testing.T) {
			s := startServer(t)
			b := openTab(t, 1280, 900, "light")
			b.open(s)
			if test.operation == "updateUser" { // the last active admin cannot be disabled
				second(t, s)
			}
			b.signIn(test.account)
			b.unfold(test.operation)
			if test.body != "" {
				b.write(test.operation, test.body)
			}
			if id := "#" + test.operation + "-id"; eval[bool](b, `document.querySelector("`+id+`") !== null`) {
				b.do(chromedp.SetValue(chromedp.CSS(id), "2")) // admin
			}
			before := b.requests()
			b.click("#op-" + test.operation + " button[type=submit]")
			if test.sure != "" {
				b.until(fmt.Sprintf(`document.querySelector("#op-%s .ask")`, test.operation))
				if after := b.requests(); after != before || eval[string](b, `document.activeElement.textContent`) != "Cancel" {
					t.Errorf("before the user is sure, %d requests were sent", after-before)
				}
				if text := eval[string](b, fmt.Sprintf(`document.querySelector("#op-%s .ask .primary").textContent`, test.operation)); text != test.sure {
					t.Errorf("the question is answered with %q, want %q", text, test.sure)
				}
				b.click("#op-" + test.operation + " .ask .primary")
			}
			b.until(fmt.Sprintf(`document.querySelector("#op-%s .exchange")`, test.operation))
			if test.why == "" {
				if name, check := b.text("chip-name"), eval[string](b, `document.getElementById("check-session").className`); name != test.account || !strings.HasPrefix(check, "pass") {
					t.Errorf("with a new session, the chip says %q and the check of the session is %q", name, check)
				}
				return
			}
			if name := b.text("chip-name"); name != "Sign in" {
				t.Errorf("the chip says %q", name)
			}
			for id, want := range map[string]string{
				"sign-in-message": "That session has ended: " + test.why + ". Sign in again.",
				"session":         "The session has ended: " + test.why + ".",
				"check-session":   "it has ended: " + test.why,
				"token-source":    "Your access token: refused",
			} {
				if text := b.text(id); !strings.Contains(text, want) {
					t.Errorf("%s says %q, want %q", id, text, want)
				}
			}
			if f := b.failing(); !slices.Equal(f, []string{"check-session"}) {
				t.Errorf("the checks %q fail, want that of the session", f)
			}
		})
	}
}

// second makes johndoe an admin too.
func second(t *testing.T, s *server) {
	t.Helper()
	access, _ := logIn(t, s, "admin", "secret")
	req, err := http.NewRequest("PATCH", s.URL+"/users/1", strings.NewReader(`{"role":"admin"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusOK)
}

// write writes the body of an operation, as the raw text.
func (b *tab) write(operation, body string) {
	b.t.Helper()
	b.do(js(fmt.Sprintf(`(it => { it.value = %q; it.dispatchEvent(new Event("input", {bubbles: true})); })(document.getElementById("%s-body"))`, body, operation)))
}

// Without johndoe, the page says so, and the steps go on with an account that they
// register. Whoever registers in step 1 is who logs in, to the end.
func TestWalkthroughWithoutJohndoe(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	b.unfold("deleteMe")
	b.write("deleteMe", `{"password":"secret"}`)
	b.click("#op-deleteMe button[type=submit]")
	b.click("#op-deleteMe .ask .primary")
	b.until(`document.getElementById("chip-name").textContent === "Sign in"`)
	b.click("[data-demo=johndoe]")
	b.until(`document.getElementById("sign-in-message").textContent.includes("The demo account johndoe was deleted")`)
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	if text := eval[string](b, `document.querySelector("[data-step=me] .note").textContent`); !strings.HasPrefix(text, "The demo account johndoe cannot log in") {
		t.Errorf("step 3 says %q", text)
	}
	want := []string{"POST /token = 401 Unauthorized", "POST /users/ = 201 Created", "POST /token = 200 OK", "GET /users/me/ = 200 OK"}
	if got := b.stepsOf()["me"]; !slices.Equal(got, want) {
		t.Errorf("step 3 sends %q, want %q", got, want)
	}
	b.click("#run-all")
	b.until(`document.getElementById("progress").textContent === "12 of 12 done" && ` + finished)
	registered := eval[string](b, `document.querySelector("[data-step=register] .two pre").textContent.match(/newuser-\w+/)[0]`)
	if loggedIn := eval[string](b, `document.querySelector("[data-step=login] .reason").textContent`); loggedIn != registered+" logs in." {
		t.Errorf("step 1 registers %s, and step 2 says %q", registered, loggedIn)
	}
	if got := usernames(t, s); !slices.Equal(got, []string{"admin"}) {
		t.Errorf("after the walkthrough there are the accounts %q", got)
	}
}

// usernames are those of all accounts, as the admin sees them.
func usernames(t *testing.T, s *server) (names []string) {
	t.Helper()
	access, _ := logIn(t, s, "admin", "secret")
	req, err := http.NewRequest("GET", s.URL+"/users/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range decode[[]struct{ Username string }](t, resp, http.StatusOK) {
		names = append(names, u.Username)
	}
	return names
}

// One step, with the keyboard: the focus stays on its button, and the response is
// unfolded.
func TestStepByKeyboard(t *testing.T) {
	_, b := openPage(t)
	b.do(chromedp.Focus(chromedp.CSS("[data-step=me] > button")), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	if !eval[bool](b, `document.activeElement === document.querySelector("[data-step=me] > button")`) {
		t.Error("after a step, the focus is somewhere else")
	}
	if !eval[bool](b, `document.querySelector("[data-step=me] .exchange:last-child .content").checkVisibility()`) {
		t.Error("after a step, its response is folded")
	}
	b.do(chromedp.Focus(chromedp.CSS("[data-step=me] .exchange-head")), chromedp.KeyEvent(" "))
	b.until(`document.querySelector("[data-step=me] .exchange-head").getAttribute("aria-expanded") === "true"`)
}

// Without demo accounts the walkthrough asks first, and then makes do with the
// account it registers.
func TestWalkthroughWithoutDemo(t *testing.T) {
	s := startServer(t, "ADMIN_PASSWORD=staple battery", "-demo=false", "-admin", "root")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	if eval[bool](b, `document.getElementById("demo").checkVisibility({visibilityProperty: true})`) {
		t.Error("demo accounts are offered where there are none")
	}
	const question = `document.querySelector("[data-step=register] .ask")`
	b.click("#run-all")
	b.until(question)
	before := b.requests()
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter)) // over Continue, to Cancel
	b.until(finished)
	if after := b.requests(); after != before || eval[bool](b, `document.querySelector(".exchange") !== null`) {
		t.Errorf("%d requests were sent although the user did not want them", after-before)
	}
	b.click("#run-all")
	b.until(question)
	b.do(chromedp.KeyEvent(kb.Enter)) // Continue has the focus
	b.until(`document.querySelectorAll("[data-state=done]").length >= 9 && ` + finished)
	if got := eval[string](b, `document.getElementById("progress").textContent`); got != "9 of 10 done, 1 needs something" {
		t.Errorf("the walkthrough ends with: %s", got)
	}
	if text := eval[string](b, `document.querySelector("[data-step=allowed][data-state=needs]").innerText`); !strings.Contains(text, "Sign in as an admin above") {
		t.Errorf("the admin's step does not say what it needs:\n%s", text)
	}

	// Signed in as an admin of that name, all ten work.
	b.do(chromedp.SendKeys(chromedp.CSS("#username"), "root"), chromedp.SendKeys(chromedp.CSS("#password"), "staple battery"+kb.Enter))
	b.until(`document.getElementById("chip-name").textContent === "root"`)
	b.click("#run-all")
	b.until(`document.getElementById("progress").textContent === "10 of 10 done" && ` + finished)
	if name := eval[string](b, `document.getElementById("chip-name").textContent`); name != "root" {
		t.Errorf("after the walkthrough, %q is signed in, want root again", name)
	}
}

// Where registration is closed and nobody can register, one message says what to do,
// and nothing is sent.
func TestWalkthroughWithClosedRegistration(t *testing.T) {
	s := startServer(t, "ADMIN_PASSWORD=staple battery", "-demo=false", "-admin", "root", "-registration", "closed")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	if text := b.text("no-demo"); text != "Registration is closed: an admin creates the accounts." {
		t.Errorf("in the place of the demo accounts, the page says %q", text)
	}
	before := b.requests()
	b.click("#run-all")
	b.until(`document.getElementById("run-message").textContent.startsWith("Registration is closed on this server, and it has no demo accounts. Sign in as an admin above")`)
	if b.click("[data-step=register] > button"); eval[int](b, `document.querySelectorAll(".card[data-state], .note.ask").length`) != 1 || b.requests() != before {
		t.Error("where no step can begin, something was sent or asked")
	}
	if text := eval[string](b, `document.querySelector("[data-step=register][data-state=needs]").innerText`); !strings.Contains(text, "Sign in as an admin above") {
		t.Errorf("the first step does not say what it needs:\n%s", text)
	}
	b.do(chromedp.SendKeys(chromedp.CSS("#username"), "root"), chromedp.SendKeys(chromedp.CSS("#password"), "staple battery"+kb.Enter))
	b.until(`document.getElementById("chip-name").textContent === "root"`)
	b.click("#run-all")
	b.until(`document.querySelector(".note.ask")`)
	b.click(".note.ask .primary")
	b.until(`document.getElementById("progress").textContent === "10 of 10 done" && document.getElementById("run-message").textContent === "" && ` + finished)
}

// Names at their longest, with no place to break, widen nothing.
func TestLongNames(t *testing.T) {
	s := startServer(t)
	name := strings.Repeat("W", 64)
	body := fmt.Sprintf(`{"username":%q,"password":"correct horse","email":"%s@example.com","full_name":"%s"}`, name, strings.Repeat("m", 240), strings.Repeat("M", 200))
	resp, err := http.Post(s.URL+"/users/", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusCreated)
	for _, width := range []int64{1440, 768, 360} {
		b := openTab(t, width, 800, "light")
		b.open(s)
		b.do(chromedp.SendKeys(chromedp.CSS("#username"), name), chromedp.SendKeys(chromedp.CSS("#password"), "correct horse"+kb.Enter))
		b.until(`document.getElementById("chip").classList.contains("on")`)
		b.click("[data-step=replay] > button")
		b.until(`document.querySelector("[data-step=replay][data-state=done]")`)
		b.do(js(`for (const head of document.querySelectorAll(".exchange-head[aria-expanded=false]")) head.click()`))
		b.unfold("createToken")
		for _, field := range []string{"", " .exchange", " figcaption"} {
			if wide := eval[[]string](b, `[document.documentElement, ...document.querySelectorAll("main`+field+` *, .bar *")].filter((it) => it.checkVisibility() && it.getBoundingClientRect().right > innerWidth + 1).map((it) => it.outerHTML.slice(0, 120))`); len(wide) > 0 {
				t.Errorf("at %d, beyond the window: %q", width, wide)
			}
		}
		const out = `(() => { const {left, right} = document.querySelector("#session").getBoundingClientRect();
			return [...document.querySelectorAll("#session *")].filter((it) => it.getBoundingClientRect().right > right + 1 || it.getBoundingClientRect().left < left - 1).length; })()`
		if n := eval[int](b, out); n > 0 {
			t.Errorf("at %d, %d parts run out of the picture of the session", width, n)
		}
	}
}

// A list that has more pages leads to the next one, and step 5 does not claim to show
// every account.
func TestNextPage(t *testing.T) {
	s, b := openPage(t)
	b.signIn("admin")
	b.unfold("listUsers")
	b.do(chromedp.SendKeys(chromedp.CSS("#listUsers-limit"), "1"))
	b.click("#op-listUsers button[type=submit]")
	b.click("#op-listUsers .next")
	b.until(`document.querySelectorAll("#op-listUsers .exchange").length === 2`)
	if text := eval[string](b, `[...document.querySelectorAll("#op-listUsers .exchange")].at(-1).innerText`); !strings.Contains(text, "GET /users/?limit=1&after=1") || !strings.Contains(text, `"username": "admin"`) {
		t.Errorf("the next page is:\n%s", text)
	}
	if eval[bool](b, `document.querySelector("#op-listUsers .next") !== null`) {
		t.Error("the last page leads to another")
	}
	access, _ := logIn(t, s, "admin", "secret")
	for i := range 27 { // and one client address may register 30
		register(t, s, access, fmt.Sprintf("someone-%d", i))
	}
	b.do(js(`const real = fetch; window.fetch = (url, options) => real(String(url).replace(/\/users\/$/, (it) => options?.method === "GET" ? it + "?limit=20" : it), options)`))
	b.click("[data-step=allowed] > button")
	b.until(`document.querySelector("[data-step=allowed][data-state=done]")`)
	if text := eval[string](b, `[...document.querySelectorAll("[data-step=allowed] .reason")].at(-1).textContent`); text != "The first 20 accounts, without a password or a hash." {
		t.Errorf("step 5 says %q", text)
	}
}

func register(t *testing.T, s *server, access, name string) {
	t.Helper()
	req, err := http.NewRequest("POST", s.URL+"/users/", strings.NewReader(fmt.Sprintf(`{"username":%q,"password":"correct horse"}`, name)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusCreated)
}

// What goes wrong does not look like a link, and a refusal that a step expected does
// not look like a success.
func TestRefusalsLookLikeRefusals(t *testing.T) {
	_, b := openPage(t)
	link := eval[string](b, `getComputedStyle(document.querySelector("#reference a")).color`)
	b.do(chromedp.SendKeys(chromedp.CSS("#username"), "johndoe"), chromedp.SendKeys(chromedp.CSS("#password"), "wrong"+kb.Enter))
	b.until(`document.querySelector("#sign-in-message.bad")`)
	if colour := eval[string](b, `getComputedStyle(document.getElementById("sign-in-message")).color`); colour == link || colour != "rgb(150, 22, 16)" {
		t.Errorf("an error is written in %s, and a link in %s", colour, link)
	}
	// The form shows its request as a step does, without the password.
	text := eval[string](b, `document.querySelector("#sign-in-out .exchange").textContent`)
	for _, want := range []string{"POST /token", "401 Unauthorized", "username=johndoe&password=••••••••", "incorrect_login", "The code that answered"} {
		if !strings.Contains(text, want) {
			t.Errorf("a failed login lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "wrong") {
		t.Error("the password is shown")
	}
	for _, step := range []string{"me", "forge"} {
		b.click("[data-step=" + step + "] > button")
		b.until(`document.querySelector("[data-step=` + step + `][data-state=done]")`)
	}
	const mark = `(({content, color}) => [content, color])(getComputedStyle(document.querySelector("[data-step=%s]"), "::before"))`
	success, refusal := eval[[]string](b, fmt.Sprintf(mark, "me")), eval[[]string](b, fmt.Sprintf(mark, "forge"))
	if success[0] != `"✓" / "done"` || refusal[0] != `"⊘" / "refused, as expected"` || success[1] == refusal[1] {
		t.Errorf("a success is marked %s, and a refusal %s", success, refusal)
	}
}

// Until their scripts are there, no button looks ready.
func TestButtonsWaitForTheirScripts(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{URLPattern: s.URL + "/docs/dom.js", Block: true}}})
	b.visit(s.URL + "/docs")
	const ready = `[...document.querySelectorAll("button")].filter((it) => it.checkVisibility({visibilityProperty: true}) && !it.disabled).map((it) => it.outerHTML)`
	if buttons := eval[[]string](b, ready); len(buttons) > 0 {
		t.Errorf("without their scripts, these look ready: %q", buttons)
	}
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{})
	b.open(s)
	if waiting := eval[int](b, `document.querySelectorAll("[data-wait]:disabled").length`); waiting > 0 {
		t.Errorf("%d buttons go on waiting", waiting)
	}
	b.forgive()
}

// What is loaded when it is first opened says so until it is there, and is asked for
// again when it could not be read.
func TestOperationOnASlowLine(t *testing.T) {
	s, b := openPage(t)
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{URLPattern: s.URL + "/docs/operation.js", Block: true}}})
	b.do(js(`document.querySelector("#op-readMe > summary").click()`))
	b.until(`document.querySelector("#op-readMe > .empty")?.textContent.startsWith("This could not be read.")`)
	call(b, network.SetBlockedURLs, network.SetBlockedURLsParams{})
	b.do(js(`document.querySelector("#op-readMe > summary").click()`))
	b.until(`!document.querySelector("#op-readMe > .empty")`)
	b.do(js(`document.querySelector("#op-readMe > summary").click()`))
	b.until(`document.querySelector("#op-readMe form")`)
	b.forgive()
}

// Nothing that can be clicked is lower than 24 pixels, but a link in a sentence.
func TestTargetsAreLargeEnough(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 360, 800, "light")
	b.open(s)
	b.signIn("johndoe")
	b.click("[data-step=forge] > button")
	b.until(`document.querySelector("[data-step=forge][data-state=done] .code-link")`)
	b.unfold("listUsers")
	const small = `[...document.querySelectorAll("a, button, summary, input, select")].filter((it) => it.checkVisibility({visibilityProperty: true}) && !it.matches(".skip, p:not(.buttons) > a, input[type=checkbox]"))
		.filter((it) => it.getBoundingClientRect().height < 24 && it.getBoundingClientRect().width > 0).map((it) => it.getBoundingClientRect().height + " " + it.outerHTML.slice(0, 120))`
	if list := eval[[]string](b, small); len(list) > 0 {
		t.Errorf("too low: %q", list)
	}
}

// What a visitor comes for, with the keyboard alone: only Tab, Enter and text.
func TestFiveTasksByKeyboard(t *testing.T) {
	_, b := openPage(t)
	// to presses Tab until the focus is on an element beside some text. It is then in
	// sight.
	to := func(selector, beside string) {
		t.Helper()
		for range 120 {
			if b.do(chromedp.KeyEvent(kb.Tab)); eval[bool](b, fmt.Sprintf(`(it => it.matches(%q) && it.parentElement.textContent.includes(%q))(document.activeElement)`, selector, beside)) {
				const seen = `(({top, bottom}) => top >= 0 && bottom <= innerHeight)(document.activeElement.getBoundingClientRect())`
				b.until(seen)
				return
			}
		}
		t.Fatalf("the Tab key does not come to %s; the focus is on %s", selector, eval[string](b, `document.activeElement.outerHTML.slice(0, 200)`))
	}
	press := func(selector string) {
		t.Helper()
		to(selector, "")
		b.do(chromedp.KeyEvent(kb.Enter))
	}

	// Why is a forged token refused, and by which line?
	press("[data-demo=johndoe]")
	b.until(`document.getElementById("chip-name").textContent === "johndoe"`)
	press("[data-step=forge] > button")
	b.until(`document.querySelector("[data-step=forge][data-state=done]")`)
	press("[data-step=forge] .code-link")
	b.until(`document.querySelector("#code[open] .refusing")`)
	if note := b.text("code-note"); note != "This page has worked out why: check 3, the signature." {
		t.Errorf("the panel says %q", note)
	}
	b.do(chromedp.KeyEvent(kb.Escape))

	// A replay, and what happened.
	press("[data-step=replay] > button")
	b.until(`document.querySelector("[data-step=replay][data-state=done] figcaption")`)
	if text := eval[string](b, `document.querySelector("[data-step=replay] figcaption").textContent`); !strings.Contains(text, "Then 1 was sent again, when 2 had been replaced too: a replay.") {
		t.Errorf("the picture says %q", text)
	}

	// A fetch call that changes a password.
	b.do(chromedp.KeyEvent("/"))
	b.until(`document.querySelector("#search[open]")`)
	b.do(js(`document.querySelector("#search input").value = ""`), chromedp.KeyEvent("change my password"))
	b.until(`document.querySelector(".found")?.textContent.includes("/users/me/password")`)
	b.do(chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#op-changeMyPassword form") && document.activeElement.matches("#op-changeMyPassword > summary")`)
	to("#op-changeMyPassword .snippet button:nth-child(2)", "fetch")
	b.do(js(`navigator.clipboard.writeText = async (text) => { window.copied = text; }`), chromedp.KeyEvent(kb.Enter))
	press("#op-changeMyPassword .snippet .head > :last-child > :last-child")
	b.until(`window.copied`)
	if code := eval[string](b, `window.copied`); !strings.HasPrefix(code, "const response = await fetch(") || !strings.Contains(code, "/users/me/password") {
		t.Errorf("what is copied is:\n%s", code)
	}

	// The rule about the case of usernames.
	to("#rules-filter", "")
	b.do(chromedp.KeyEvent("username case"))
	b.until(`[...document.querySelectorAll("#rules-list .rule-group")].every((it) => it.querySelector(".rule")) && document.getElementById("rules-list").innerText.includes('"username":"JohnDoe"')`)
	to("#rules-list .rule button", `"username":"JohnDoe"`)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(`document.activeElement.parentElement.querySelector(".verdict").textContent === "✓ The response is as promised."`)
}

// Signing in and out, with the keyboard alone.
func TestSignIn(t *testing.T) {
	s, b := openPage(t)
	b.do(chromedp.Focus(chromedp.CSS("#username")), chromedp.KeyEvent("johndoe"+kb.Tab+"wrong"+kb.Enter))
	b.until(`document.getElementById("sign-in-message").textContent === "Incorrect username or password"`)
	b.do(js(`document.getElementById("password").value = ""`), chromedp.Focus(chromedp.CSS("#password")), chromedp.KeyEvent("secret"+kb.Enter))
	b.until(`document.activeElement.id === "signed-in-title" && document.getElementById("chip").innerText.includes("johndoe")`)
	if stored := eval[int](b, `localStorage.length + sessionStorage.length + document.cookie.length`); stored != 0 {
		t.Error("the page has stored something")
	}
	access := eval[string](b, `document.getElementById("raw").textContent`)
	b.do(chromedp.KeyEvent(kb.Tab+kb.Tab), chromedp.KeyEvent(kb.Enter)) // over Refresh, to Sign out
	b.until(`document.activeElement.id === "username" && document.getElementById("chip").innerText.includes("Sign in")`)
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

// The demo buttons are the first of the content that the Tab key comes to.
func TestDemoButtonsComeEarly(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1440, 900, "light")
	b.open(s)
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter)) // the link that skips the bar
	for range 10 {
		if b.do(chromedp.KeyEvent(kb.Tab)); eval[string](b, `document.activeElement.closest("main") ? document.activeElement.dataset.demo ?? "other" : ""`) != "" {
			break
		}
	}
	if got := eval[string](b, `document.activeElement.dataset.demo`); got != "johndoe" {
		t.Errorf("the first stop in the content is %q, want the demo account", got)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(`document.getElementById("chip-name").textContent === "johndoe"`)
}

// The server goes, and comes back with another key. The page says what it can know.
func TestServerGone(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	s.stop(t)
	b.click("[data-step=me] > button")
	b.until(`!document.getElementById("gone").hidden && document.querySelector("[data-step=me][data-state=failed]")`)
	b.click("#sign-out")
	b.until(`document.getElementById("sign-in-message").textContent.startsWith("The server did not respond")`)
	again := startServer(t, "-addr", s.Addr)
	b.until(`document.getElementById("gone").hidden`) // it asks every few seconds
	b.click("#ask")
	b.until(`document.getElementById("token-source").textContent === "From before the restart: refused"`)
	checks := eval[string](b, `document.getElementById("check-mac").className + document.getElementById("check-session").className + document.getElementById("check-mac").innerText`)
	if strings.Contains(checks, "pass") || strings.Contains(checks, "fail") || !strings.Contains(checks, "unless SECRET_KEY is set, it is signed with a key this server does not have any more") {
		t.Errorf("after a restart, the checks say: %s", checks)
	}
	b.until(`document.getElementById("chip-name").textContent === "Sign in" && document.getElementById("sign-in-message").textContent.startsWith("The server was restarted")`)
	b.signIn("johndoe")
	if source := eval[string](b, `document.getElementById("token-source").textContent`); source != "Your access token" {
		t.Errorf("after signing in again, the panel shows: %s", source)
	}
	again.stop(t)
}

// Without JavaScript there is a sentence, a link to the description, and no button
// that does nothing.
func TestWithoutJavaScript(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1280, 900, "light")
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.visit(s.URL + "/docs")
	b.until(`document.querySelector("noscript p")?.checkVisibility()`)
	if text := eval[string](b, `document.querySelector("noscript").innerText`); text != "This page needs JavaScript. The API does not: openapi.json describes it." {
		t.Errorf("without JavaScript the page says: %s", text)
	}
	if href := eval[string](b, `document.querySelector("noscript a").pathname`); href != "/openapi.json" {
		t.Errorf("without JavaScript the page links to %s", href)
	}
	const dead = `[...document.querySelectorAll("button, input, textarea, [contenteditable], .op")].filter((it) => it.checkVisibility()).map((it) => it.outerHTML)`
	if left := eval[[]string](b, dead); len(left) > 0 {
		t.Errorf("without JavaScript there are still %q", left)
	}
}

// The next step is marked. In the first view one button stands out, and on a narrow
// screen the bars leave room for the page.
func TestFirstView(t *testing.T) {
	s := startServer(t)
	for _, size := range [][2]int64{{1440, 900}, {768, 1024}, {360, 740}} {
		b := openTab(t, size[0], size[1], "light")
		b.open(s)
		// What opens the search and what leads to signing in can be told at each width.
		const shown = `(it => it.checkVisibility() && it.getBoundingClientRect().width >= 24 && it.getBoundingClientRect().right <= innerWidth)(document.querySelector("%s"))`
		if !eval[bool](b, fmt.Sprintf(shown, "#search-open")) || !eval[bool](b, fmt.Sprintf(shown, "#chip-name")) {
			t.Errorf("at %d, the search or the chip is not to be seen", size[0])
		}
		const primary = `[...document.querySelectorAll("button.primary")].filter((it) => it.checkVisibility({visibilityProperty: true}) && it.getBoundingClientRect().top < innerHeight).map((it) => it.textContent).join(" ")`
		if got := eval[string](b, primary); got != "Sign in" {
			t.Errorf("at %d, the primary buttons of the first view are %q", size[0], got)
		}
		b.signIn("johndoe")
		if bars := eval[float64](b, `document.querySelector(".bar").offsetHeight + document.querySelector("#mini a").offsetHeight`); bars > 90 && size[0] < 1440 {
			t.Errorf("at %d, the bars take %.0f px", size[0], bars)
		}
		if tall := eval[float64](b, `document.getElementById("sign-in-form").offsetHeight`); tall != 0 {
			t.Errorf("at %d, the form is %.0f px high for somebody who is signed in", size[0], tall)
		}
		const next = `document.querySelector("[data-next]").dataset.step`
		if got := eval[string](b, next); got != "register" {
			t.Errorf("the first step is %q", got)
		}
		b.click("[data-step=register] > button")
		b.until(next + ` === "login"`)
	}
}

// axe-core finds nothing to complain about, contrast for the rating AAA included, in
// any state, size or colour scheme.
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
					for _, v := range eval[[]string](b, `axe.run({rules: {"color-contrast-enhanced": {enabled: true}}}).then(({violations}) => violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.html.slice(0, 200) + " " + n.failureSummary)))`) {
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
				b.click("#ask")
				b.until(`document.querySelector("#check-mac.fail, #check-mac.ask") && document.getElementById("ask-message").textContent`)
				b.do(chromedp.SendKeys(chromedp.CSS("#key"), "x"))
				b.until(`document.getElementById("key-says").textContent.startsWith("✗")`)
				look("a wrong key")
				b.signIn("johndoe")
				look("signed in")
				b.click("[data-step=forge] > button")
				b.until(`document.querySelector("[data-step=forge][data-state=done]")`)
				look("forged")
				b.click("[data-step=forge] .code-link")
				b.until(`document.querySelector("#code[open] .refusing")`)
				look("the code at a refusal")
				b.click("#code-close")
				for _, step := range []string{"refresh", "replay"} {
					b.until(`history.state === null`) // the code has closed
					b.do(js(`document.querySelector("[data-step=` + step + `] > button").click()`))
					b.until(`document.querySelector("[data-step=` + step + `][data-state=done] .session")`)
				}
				look("a replay")
				b.unfold("listUsers")
				b.unfold("updateUser")
				b.click("#op-listUsers button[type=submit]")
				b.until(`document.querySelector("#op-listUsers .exchange")`)
				b.do(js(`for (const fold of document.querySelectorAll("#op-listUsers details, #op-updateUser details")) fold.open = true`))
				b.until(`document.querySelector("#op-listUsers .rule-group") && document.querySelector("#op-updateUser .rule-group")`)
				b.do(js(`for (const group of document.querySelectorAll(".rule-group")) group.open = true`))
				b.until(`document.querySelector("#op-listUsers .rule") && document.querySelector("#op-updateUser .rule")`)
				look("the reference and its rules")
				b.do(js(`document.getElementById("gone").hidden = false`))
				look("server gone")
			})
		}
	}
}

// A forgotten password: the form, the mail as it arrived, the form that its link opens.
// The token does not stay in the address.
func TestForgottenPassword(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	b.click("#signed-in a[href='#request-verify']")
	b.click("#account button[type=submit]")
	mail := func(subject string) {
		t.Helper()
		b.until(fmt.Sprintf(`[...document.querySelectorAll("#mails summary")].some((it) => it.textContent.includes(%q))`, subject+", to johndoe@example.com"))
		b.do(js(fmt.Sprintf(`(it => { it.click(); it.parentElement.querySelector("a").click(); })([...document.querySelectorAll("#mails summary")].find((it) => it.textContent.includes(%q)))`, subject)))
	}
	mail("Confirm your email address")
	b.until(`document.getElementById("account-title").textContent === "Confirm the address" && location.hash === ""`)
	b.click("#account button[type=submit]")
	b.until(`document.querySelector("#account .reason")?.textContent.startsWith("The address is verified")`)

	b.click("#sign-out")
	b.click("a[href='#forgot']")
	b.do(chromedp.SendKeys(chromedp.CSS("#account-username"), "johndoe"+kb.Enter))
	mail("Set a new password")
	b.until(`document.getElementById("account-title").textContent === "Set a new password" && location.href.endsWith("/docs")`)
	b.do(chromedp.SendKeys(chromedp.CSS("#account-new_password"), "short"+kb.Enter))
	b.until(`document.querySelector("#account .reason")?.textContent.includes("must be at least 8")`)
	b.do(js(`document.getElementById("account-new_password").value = ""`), chromedp.SendKeys(chromedp.CSS("#account-new_password"), "correct horse"+kb.Enter))
	b.until(`document.querySelector("#account .reason")?.textContent.startsWith("The password is set")`)
	if shown := eval[string](b, `document.querySelector("#account .exchange").textContent`); strings.Contains(shown, "correct horse") || !strings.Contains(shown, `"token":"••••••••"`) {
		t.Errorf("the request shows its secrets:\n%s", shown)
	}
	if stored := eval[int](b, `history.length`); stored > 12 {
		t.Errorf("the history has %d entries", stored)
	}
	logIn(t, s, "johndoe", "correct horse")

	// The address that password managers know leads to the form.
	b.visit("about:blank")
	b.do(chromedp.Navigate(s.URL+"/docs#change-password"), chromedp.WaitReady(chromedp.CSS(".op")))
	b.until(`document.getElementById("account-title")?.textContent === "Change my password"`)
	b.do(chromedp.SendKeys(chromedp.CSS("#account-current_password"), "secret"), chromedp.SendKeys(chromedp.CSS("#account-new_password"), "battery staple"+kb.Enter))
	b.until(`document.querySelector("#account .note")?.textContent === "Sign in first, above."`)
	b.signIn("admin")
	b.click("#account button[type=submit]")
	b.until(`document.querySelector("#account .reason")?.textContent.startsWith("The password is changed")`)
	if check := eval[string](b, `document.getElementById("check-session").className`); !strings.HasPrefix(check, "pass") {
		t.Errorf("after the change, the check of the session is %q", check)
	}
}

// The addresses of the demo accounts are not verified, so they get no mail. The page says
// why, and leads to what helps.
func TestForgottenPasswordWithoutAVerifiedAddress(t *testing.T) {
	_, b := openPage(t)
	b.click("a[href='#forgot']")
	b.do(chromedp.SendKeys(chromedp.CSS("#account-username"), "johndoe"+kb.Enter))
	b.until(`document.querySelector("#account .note")?.textContent.startsWith("No mail has come. Mail about a password goes only to an address that is verified")`)
	b.click("#account .note a[href='#request-verify']")
	b.until(`document.getElementById("account-title").textContent === "Verify my address"`)
}

// Two refreshes in one second give the same token, and the page says why.
func TestRefreshTwiceInOneSecond(t *testing.T) {
	_, b := openPage(t)
	b.signIn("johndoe")
	const message = `document.getElementById("sign-in-message").textContent`
	// Two responses are of one second more often than not: it is tried until they are.
	b.until(`(() => {
		if (` + message + `.startsWith("The same token again: in the same second, the same claims")) return true;
		document.getElementById("refresh").click();
		return false;
	})()`)
	b.until(`(document.getElementById("refresh").click(), ` + message + ` === "A new pair of tokens.")`)
}

// Without mail, nothing about it is offered.
func TestWithoutMail(t *testing.T) {
	s := startServer(t, "ADMIN_PASSWORD=staple battery", "-demo=false", "-admin", "root")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	if offered := eval[int](b, `[...document.querySelectorAll("[data-mail]")].filter((it) => it.checkVisibility()).length`); offered != 0 {
		t.Errorf("without mail, %d parts about it are shown", offered)
	}
}

// On a narrow screen a small token with its checks stays in sight, and forging moves
// nothing.
func TestSmallToken(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 390, 844, "light")
	b.open(s)
	b.signIn("johndoe")
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	b.do(js(`document.querySelector("[data-step=forge] > button").scrollIntoView({block: "center"})`), chromedp.Sleep(200*time.Millisecond))
	const top = `document.querySelector("[data-step=forge] > button").getBoundingClientRect().top`
	before := eval[float64](b, top)
	b.click("[data-step=forge] > button")
	b.until(`document.querySelector("[data-step=forge][data-state=done]")`)
	if after := eval[float64](b, top); math.Abs(after-before) > 1 {
		t.Errorf("forging moves the button from %v to %v", before, after)
	}
	const seen = `(() => { const {top, bottom} = document.querySelector("#mini a").getBoundingClientRect(); return document.getElementById("mini").checkVisibility({visibilityProperty: true}) && top > 0 && bottom <= innerHeight + 1; })()`
	if !eval[bool](b, seen) {
		t.Error("the small token is out of sight")
	}
	if text := eval[string](b, `document.getElementById("mini").innerText + document.querySelectorAll("#mini .fail").length`); !strings.Contains(text, "Edited by you: refused") || !strings.HasSuffix(text, "1") {
		t.Errorf("the small token says %q", text)
	}
	b.click("#mini a")
	b.until(`!document.getElementById("mini").checkVisibility({visibilityProperty: true})`)
	if top := eval[float64](b, `document.getElementById("token").getBoundingClientRect().top`); top < 0 || top > 300 {
		t.Errorf("the small token leads to where the panel's top is at %v", top)
	}
}

// Small and quick: at most 66,000 bytes come over the wire before anything is opened.
func TestPageWeight(t *testing.T) {
	s, b := openPage(t)
	sizes := eval[map[string]int](b, `Object.fromEntries(performance.getEntries().filter((it) => "encodedBodySize" in it).map((it) => [new URL(it.name).pathname, it.encodedBodySize]))`)
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		sum += sizes[name]
		if strings.Contains(name, "rules.json") || strings.Contains(name, "ways.json") || strings.Contains(name, "source") {
			t.Errorf("%s is loaded before it is needed", name)
		}
	}
	t.Logf("%d files, %d bytes", len(sizes), sum)
	if sum > 66_000 || sum < 20_000 {
		t.Errorf("the first load is %d bytes, want at most 66,000: %v", sum, sizes)
	}
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
//
// With -every, those of each state, size and colour scheme as well.
func TestScreenshots(t *testing.T) {
	folder, flags := t.TempDir(), []string(nil) // to see that it works
	if *screenshots != "" {
		folder, flags = *screenshots, []string{"-addr", "127.0.0.1:8000"} // as README.md has it
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, flags...)
	for _, scheme := range []string{"light", "dark"} {
		b := openTab(t, 1280, 860, scheme)
		b.open(s)
		b.signIn("johndoe")
		b.click("[data-step=forge] > button")
		b.until(`document.querySelector("[data-step=forge][data-state=done]")`)
		b.do(js(`document.activeElement.blur(); document.querySelector("[data-step=forge]").scrollIntoView(); scrollBy(0, -6)`))
		b.capture(folder, "page-"+scheme)
	}
	if !*everyState {
		return
	}
	for _, size := range [][2]int64{{1440, 900}, {768, 1024}, {390, 844}} {
		for _, scheme := range []string{"light", "dark"} {
			b := openTab(t, size[0], size[1], scheme)
			capture := func(name, show string) {
				b.do(js(`document.activeElement.blur(); ` + show))
				b.capture(folder, fmt.Sprintf("%s-%d-%s", name, size[0], scheme))
			}
			b.open(s)
			capture("1-first", "")
			b.signIn("johndoe")
			b.click("#run-all")
			b.until(`document.querySelectorAll("[data-state=done]").length === 12 && ` + finished)
			capture("2-all", `document.getElementById("walkthrough").scrollIntoView()`)
			capture("3-replay", `document.querySelector("[data-step=replay]").scrollIntoView()`)
			b.click("[data-step=forge] .code-link")
			b.until(`document.querySelector("#code[open] .refusing")`)
			capture("4-code", "")
			b.click("#code-close")
			b.do(js(`location.hash = "#op-createUser"`))
			b.until(`document.querySelector("#op-createUser .rules")`)
			b.click("#op-createUser .rules > summary")
			b.until(`document.querySelector("#op-createUser .rule")`)
			capture("5-rules", `document.querySelector("#op-createUser .rules").scrollIntoView()`)
			capture("6-operation", `document.querySelector("#op-createUser").scrollIntoView()`)
			capture("7-token", `document.getElementById("checks-title").scrollIntoView()`)
		}
	}
}

func (b *tab) capture(folder, name string) {
	b.t.Helper()
	b.do(chromedp.Sleep(300 * time.Millisecond))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
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
