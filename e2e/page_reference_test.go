package e2e

import (
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// These tests are about the reference and the rules.

func (b *tab) unfold(operation string) {
	b.t.Helper()
	b.click("#op-" + operation + " > summary")
	b.until(fmt.Sprintf(`document.querySelector("#op-%s form")`, operation))
}

// Some operations of the reference are sent, and as code in a real shell, in Python
// and in the browser.
func TestReference(t *testing.T) {
	s, b := openPage(t)
	var operations int
	for _, item := range description(t, s).Paths.Map() {
		operations += len(item.Operations())
	}
	if shown := eval[int](b, `document.querySelectorAll(".op").length`); shown != operations {
		t.Errorf("the page shows %d operations of %d", shown, operations)
	}
	b.signIn("admin")
	send := func(operation string, wants ...string) {
		t.Helper()
		b.do(js(fmt.Sprintf(`document.querySelector("#op-%s .exchange")?.remove()`, operation)))
		b.click("#op-" + operation + " button[type=submit]")
		b.until(fmt.Sprintf(`document.querySelector("#op-%s .exchange .status")?.textContent`, operation))
		got := eval[string](b, fmt.Sprintf(`document.querySelector("#op-%s .exchange").innerText`, operation))
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: the response does not hold %q:\n%s", operation, want, got)
			}
		}
		if !eval[bool](b, fmt.Sprintf(`document.activeElement === document.querySelector("#op-%s button[type=submit]")`, operation)) {
			t.Errorf("%s: after Send, the focus is somewhere else", operation)
		}
	}
	b.unfold("listUsers")
	b.do(chromedp.SendKeys(chromedp.CSS("#listUsers-limit"), "1"))
	send("listUsers", "GET /users/?limit=1", `link: </users/?limit=1&after=1>; rel="next"`)
	b.do(chromedp.SendKeys(chromedp.CSS("#listUsers-after"), "x"+kb.Enter)) // Enter sends, too
	b.until(`document.querySelector("#op-listUsers .exchange").innerText.includes("must be a whole number") && document.getElementById("listUsers-after-error").textContent.startsWith("✗ after must be")`)
	b.unfold("updateMe")
	send("updateMe", `"full_name": "John Q. Doe"`)
	b.unfold("createUser")
	b.write("createUser", `{"username": "x y", "role": "admin"}`)
	send("createUser", "422 Unprocessable Content", "role is not a field of this request", "password is required", "username must be 1 to 64")
	b.unfold("readHealth")
	send("readHealth", `"status": "ok"`)
	b.unfold("createToken")
	send("createToken", "This page uses these tokens from now on.")
	if name := b.text("chip-name"); name != "johndoe" {
		t.Errorf("after a login in the reference, the page says %q, want johndoe", name)
	}
}

// A request as code, before it is sent: the token is hidden until asked for, and what
// is copied works.
func TestSnippets(t *testing.T) {
	_, b := openPage(t)
	b.signIn("admin")
	b.unfold("updateUser")
	const body = `{"full_name": "It's \"J\" $HOME Doe"}`
	b.write("updateUser", body)
	const in = `document.querySelector("#op-updateUser .snippet")`
	access := b.text("raw")
	written := func(language string) (hidden, shown string) {
		t.Helper()
		b.do(js(fmt.Sprintf(`[...%s.querySelectorAll("button")].find((it) => it.textContent === %q).click()`, in, language)))
		hidden = eval[string](b, in+`.querySelector("pre").textContent`)
		b.do(js(in + `.querySelector(".reveal").click()`))
		shown = eval[string](b, in+`.querySelector("pre").textContent`)
		b.do(js(in + `.querySelector(".reveal").click()`))
		if strings.Contains(hidden, access) || strings.Count(shown, access) != 1 {
			t.Errorf("%s: hidden, the token is there, or shown, it is not:\n%s\n%s", language, hidden, shown)
		}
		return hidden, shown
	}
	const want = `"full_name":"It's \"J\" $HOME Doe"`
	hidden, shown := written("curl")
	sh := find(t, "a POSIX shell", "sh")
	find(t, "apt-get install curl", "curl")
	for _, script := range []string{shown, "TOKEN=" + access + "\n" + hidden} {
		if out, err := run(t, "", nil, sh, "-c", script); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v\n%s\nwant %s", script, err, out, want)
		}
	}
	find(t, "apt-get install httpie", "http")
	hidden, shown = written("HTTPie")
	for _, script := range []string{shown, "TOKEN=" + access + "\n" + hidden} {
		if out, err := run(t, "", nil, sh, "-c", script); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v\n%s\nwant %s", script, err, out, want)
		}
	}
	hidden, shown = written("Go")
	for _, script := range []string{shown, hidden} {
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run(t, "", []string{"TOKEN=" + access}, "go", "run", file); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v\n%s\nwant %s", script, err, out, want)
		}
		if formatted, err := format.Source([]byte(script)); err != nil || string(formatted) != script+"\n" && string(formatted) != script {
			t.Errorf("gofmt would write\n%s (%v)", formatted, err)
		}
	}
	python := find(t, "apt-get install python3", "python3")
	hidden, shown = written("Python")
	for _, script := range []string{shown, "token = '" + access + "'\n" + hidden} {
		if out, err := run(t, "", nil, python, "-c", script); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v\n%s\nwant %s", script, err, out, want)
		}
	}
	hidden, shown = written("fetch")
	for _, script := range []string{shown, "const token = '" + access + "';\n" + hidden} {
		script = strings.Replace(script, "console.log(response.status, await response.text());", "return await response.text();", 1)
		if out := eval[string](b, "(async () => {"+script+"})()"); !strings.Contains(out, want) {
			t.Errorf("%s\n%s\nwant %s", script, out, want)
		}
	}
}

// From nothing to a response that is copied: five clicks.
func TestFiveClicks(t *testing.T) {
	_, b := openPage(t)
	b.click("[data-demo=admin]") // authorise
	b.until(`document.getElementById("chip-name").textContent === "admin"`)
	b.click(".bar a[href='#reference']") // find
	b.click("#op-listUsers > summary")   // read what it takes
	b.until(`document.querySelector("#op-listUsers form")`)
	b.click("#op-listUsers button[type=submit]") // try
	b.until(`document.querySelector("#op-listUsers .exchange")?.innerText.includes('"username": "johndoe"')`)
	b.click("#op-listUsers .snippet .head > :last-child > :last-child") // copy
	b.until(`/Copied|by hand/.test(document.querySelector("#op-listUsers .snippet .head").innerText)`)
}

// Links to one operation, who may call, and what openapi.json says of
// bodies and responses.
func TestReferenceSaysWhatTheDescriptionHas(t *testing.T) {
	s := startServer(t, "-registration", "closed")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	for operation, want := range map[string]string{"createToken": "anyone", "createUser": "admin", "listUsers": "admin", "readMe": "user"} {
		if got := eval[string](b, fmt.Sprintf(`document.querySelector("#op-%s .who").textContent`, operation)); got != want {
			t.Errorf("%s is said to be for %s, want %s", operation, got, want)
		}
	}
	if got := b.text("server"); !strings.Contains(got, s.URL) {
		t.Errorf("the server's address is not %s: %s", s.URL, got)
	}

	// A link opens its operation, on arrival and later.
	b.visit("about:blank")
	b.visit(s.URL + "/docs#op-updateUser")
	b.until(`document.querySelector("#op-updateUser[open] form")`)
	const near = `Math.abs(document.querySelector("#op-%s").getBoundingClientRect().top - 80) < 40`
	b.until(fmt.Sprintf(near, "updateUser"))
	b.do(js(`location.hash = "#op-createToken"`))
	b.until(`document.querySelector("#op-createToken[open] form")`)
	b.until(fmt.Sprintf(near, "createToken"))

	text := func(operation string) string {
		b.do(js(fmt.Sprintf(`document.querySelector("#op-%s .raw-text").click()`, operation)))
		b.do(js(fmt.Sprintf(`for (const fold of document.querySelectorAll("#op-%s .fold:not(.rules)")) fold.open = true`, operation)))
		return eval[string](b, fmt.Sprintf(`document.getElementById("op-%s").innerText`, operation))
	}
	for operation, wants := range map[string][]string{
		"updateUser": {"role\n", `string, "user" or "admin"`, "string or null, at most 254 characters", "integer (int64), at least 1", "application/merge-patch+json",
			"409 Conflict", "No active admin would be left.", "The last active admin cannot be demoted, disabled or deleted", "WWW-Authenticate", "created_at required"},
		"createToken": {"PasswordGrant", "RefreshGrant", "expires_in", `"access_token": "eyJ`, "Wrong password, or no such account", "Retry-After"},
	} {
		got := text(operation)
		for _, want := range wants {
			if !strings.Contains(strings.ReplaceAll(got, "\u00a0", " "), want) {
				t.Errorf("%s lacks %q:\n%s", operation, want, got)
			}
		}
	}
}

// Every operation can be opened and says something, whatever its schemas are.
func TestEveryOperationOpens(t *testing.T) {
	_, b := openPage(t)
	b.signIn("admin")
	b.do(js(`for (const op of document.querySelectorAll(".op")) op.open = true`))
	b.until(`[...document.querySelectorAll(".op")].every((op) => op.querySelector("form"))`)
	text := eval[string](b, `for (const fold of document.querySelectorAll(".op .fold:not(.rules)")) fold.open = true; document.getElementById("operations").innerText`)
	for _, bad := range []string{"undefined", "[object", "NaN"} {
		if i := strings.Index(text, bad); i >= 0 {
			t.Errorf("the reference says %q: %s", bad, text[max(0, i-200):i+50])
		}
	}
}

// The rules of one operation, and one that is run, by key.
func TestRulesOfAnOperation(t *testing.T) {
	_, b := openPage(t)
	b.unfold("createUser")
	b.do(chromedp.Focus(chromedp.CSS("#op-createUser .rules > summary")), chromedp.KeyEvent(kb.Enter))
	b.until(`/^[5-9]\d rules$/.test(document.querySelector("#op-createUser .rules .because")?.textContent)`)
	b.do(js(`for (const it of document.querySelectorAll("#op-createUser .rule-group")) it.open = true`))
	b.until(`document.querySelectorAll("#op-createUser .rule").length >= 20`)
	const rule = `[...document.querySelectorAll("#op-createUser .rule")].find((it) => it.innerText.includes('"username":"JohnDoe"'))`
	if text := eval[string](b, rule+`.innerText`); !strings.Contains(text, "400") || !strings.Contains(text, "Username already registered (username_taken)") {
		t.Errorf("the rule about the case of names says:\n%s", text)
	}
	b.do(js(rule+`.querySelector("button").focus()`), chromedp.KeyEvent(kb.Enter))
	b.until(rule + `.querySelector(".verdict").textContent === "✓ The response is as promised."`)
	if !eval[bool](b, `document.activeElement === `+rule+`.querySelector("button")`) {
		t.Error("after Run, the focus is somewhere else")
	}
}

// The filter over all rules: what matches is counted, by any word of sentence,
// request or response.
func TestRulesFilter(t *testing.T) {
	_, b := openPage(t)
	b.click("#rules-open")
	b.until(`/^\d{3} rules$/.test(document.getElementById("rules-count").textContent)`)
	b.do(chromedp.SendKeys(chromedp.CSS("#rules-filter"), "replay other session"))
	b.until(`document.getElementById("rules-count").textContent === "1 rule"`)
	b.until(`document.getElementById("rules-list").innerText.includes("the replay of a refresh token ends no other session of the account")`)
	b.do(chromedp.SendKeys(chromedp.CSS("#rules-filter"), "xyz"))
	b.until(`document.getElementById("rules-count").textContent === "No rule matches."`)

	// Folded by test, those that can be run first, twenty at a time.
	b.do(js(`(it => { it.value = ""; it.dispatchEvent(new Event("input")); })(document.getElementById("rules-filter"))`))
	b.until(`document.querySelectorAll(".rule-group:not([open])").length > 5 && !document.querySelector("#rules-list .rule")`)
	const group = `[...document.querySelectorAll("#rules-list .rule-group")].find((it) => /[1-9]\d\d? rules/.test(it.innerText) && it.innerText.match(/(\d+) rules/)[1] > 40)`
	b.do(js(group + `.firstChild.click()`))
	b.until(group + `.querySelectorAll(".rule").length === 20`)
	b.do(js(group + `.querySelector(":scope > div > button").click()`))
	b.until(group + `.querySelectorAll(".rule").length === 40`)
	if order := eval[[]bool](b, `[...`+group+`.querySelectorAll(".rule")].map((it) => it.querySelector("button") !== null)`); !slices.IsSortedFunc(order, func(a, b bool) int {
		if a == b {
			return 0
		} else if a {
			return -1
		}
		return 1
	}) {
		t.Errorf("of the rules of a test, those that can be run are not first: %v", order)
	}
}

// A body has fields, made from its schema; the raw text is one click away. What a 422
// says of a field stands beside it.
func TestBodyFields(t *testing.T) {
	_, b := openPage(t)
	b.signIn("admin")
	b.unfold("createUser")
	text := func(operation string) string {
		return eval[string](b, fmt.Sprintf(`document.getElementById("%s-body").value`, operation))
	}
	set := func(id, value string) {
		b.do(js(fmt.Sprintf(`(it => { it.value = %q; it.dispatchEvent(new Event("input", {bubbles: true})); })(document.getElementById(%q))`, value, id)))
	}
	if required := eval[string](b, `[...document.querySelectorAll("#op-createUser .rows [aria-required]")].map((it) => it.name).join(" ")`); required != "username password" {
		t.Errorf("the required fields are %q", required)
	}
	set("createUser-body-username", "x y")
	set("createUser-body-password", "u\u0308berlang") // typed as two code points, as some systems do
	b.do(chromedp.Focus(chromedp.CSS("#createUser-body-email ~ .check input")), chromedp.KeyEvent(" "))
	if got, want := text("createUser"), "{\n  \"username\": \"x y\",\n  \"password\": \"\u00fcberlang\",\n  \"email\": null\n}"; got != want {
		t.Errorf("the body is %s, want %s", got, want)
	}
	b.click("#op-createUser button[type=submit]")
	b.until(`document.querySelector("#createUser-body-username[aria-invalid=true]")`)
	if said := b.text("createUser-body-username-error"); said != "✗ username must be 1 to 64 of ASCII letters, digits and @ . + - _" {
		t.Errorf("beside the field stands %q", said)
	}
	if said := b.text("createUser-body-password-error"); said != "" {
		t.Errorf("beside the good password stands %q", said)
	}
	set("createUser-body-username", "alice")
	b.click("#op-createUser button[type=submit]")
	b.until(`document.querySelector("#op-createUser .exchange .status").textContent === "201 Created" && !document.querySelector("#op-createUser [aria-invalid=true]")`)

	b.click("#op-createUser .raw-text")
	if !eval[bool](b, `document.getElementById("createUser-body").checkVisibility() && !document.querySelector("#op-createUser .rows").checkVisibility()`) {
		t.Error("the raw text is not shown in place of the fields")
	}
	b.write("createUser", `{"username": "bob"}`)
	b.click("#op-createUser .raw-text")
	if name := b.text("createUser-body-username"); name != "bob" {
		t.Errorf("the field has %q of the text", name)
	}

	b.unfold("updateUser") // choices
	b.do(js(`(it => { it.value = "true"; it.dispatchEvent(new Event("input", {bubbles: true})); })(document.getElementById("updateUser-body-disabled"))`))
	if got := text("updateUser"); !strings.Contains(got, `"disabled": true`) {
		t.Errorf("the body is %s", got)
	}
	b.unfold("createToken") // two kinds of form
	b.do(js(`(it => { it.selectedIndex = 1; it.dispatchEvent(new Event("change", {bubbles: true})); })(document.querySelector("#op-createToken .choice select"))`))
	if fields := eval[string](b, `[...document.querySelectorAll("#op-createToken .rows [name]")].map((it) => it.name).join(" ")`); !strings.HasPrefix(fields, "grant_type refresh_token") {
		t.Errorf("to refresh, the fields are %q", fields)
	}
	if copies := eval[int](b, `document.querySelectorAll("#op-createUser .snippet").length`); copies != 1 {
		t.Errorf("the request as code stands %d times", copies)
	}
}

// Search finds operations, steps, checks and rules by everyday words, and leads to them
// with the keyboard alone.
func TestSearch(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1440, 900, "light")
	b.open(s)
	for query, want := range map[string]string{
		"login":                 "POST /token",
		"brute force":           "POST /token",
		"jwt":                   "POST /token",
		"rate limit":            "POST /token",
		"alg none":              "The header is the server's own",
		"logout":                "POST /revoke",
		"401":                   "GET /users/me/",
		"last_admin":            "DELETE /users/me/",
		"sessions":              "GET /users/me/sessions",
		"forge":                 "Forge an admin's token",
		"sessions admin delete": "DELETE /users/{id}/sessions",
		"no such thing at all":  "Nothing has all of these words.",
	} {
		b.do(js(`document.activeElement.blur()`), chromedp.KeyEvent("/"))
		b.until(`document.querySelector("#search[open]")`)
		b.do(js(`document.querySelector("#search input").value = ""`), chromedp.KeyEvent(query)) // the protocol types the / too
		b.until(fmt.Sprintf(`document.getElementById("found").innerText.includes(%q)`, want))
		b.do(chromedp.KeyEvent(kb.Escape))
		b.until(`!document.querySelector("#search[open]")`)
	}
	b.do(js(`document.activeElement.blur()`), chromedp.KeyEvent("/"))
	b.until(`document.querySelector("#search[open]")`)
	b.do(js(`document.querySelector("#search input").value = ""`), chromedp.KeyEvent("change my password"))
	b.until(`document.querySelector(".found")?.textContent.includes("/users/me/password")`)
	b.do(chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.Enter))
	b.until(`!document.querySelector("#search[open]") && document.querySelector("#op-changeMyPassword[open] form")`)

	// On a wide window there is a list of all operations as well.
	if n := eval[int](b, `[...document.querySelectorAll("#side a")].filter((it) => it.checkVisibility() && document.querySelector(it.hash)).length`); n != eval[int](b, `document.querySelectorAll(".op").length`) {
		t.Errorf("the list at the side has %d operations", n)
	}
	b.do(js(`[...document.querySelectorAll("#side a")].find((it) => it.hash === "#op-readMe").click()`))
	b.until(`document.querySelector("#op-readMe[open] form")`)
}

// Every rule that can be run holds on this server, and leaves nothing behind.
func TestRulesHold(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	before := usernames(t, s)
	const all = `import("/docs/run.js").then(async ({run, whyNot}) => {
		const settings = await (await fetch("/docs/settings.json")).json();
		const rules = (await (await fetch("/docs/rules.json")).json()).flatMap(({rules}) => rules).filter((rule) => !whyNot(rule, settings));
		const broken = [String(rules.length)];
		for (const rule of rules) {
			const {kept, got, trouble} = await run(rule);
			if (!kept) broken.push(rule.rule + ": " + rule.do.slice(0, 200) + "\n got  " + (trouble ?? got) + "\n want " + rule.want.slice(0, 300));
		}
		return broken;
	})`
	broken := eval[[]string](b, all)
	if len(broken[0]) < 3 {
		t.Errorf("only %s rules can be run", broken[0])
	}
	t.Logf("%s rules", broken[0])
	for _, rule := range broken[1:] {
		t.Error(rule)
	}
	if after := usernames(t, s); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("running the rules makes %q of %q", after, before)
	}
	if name := b.text("chip-name"); name != "johndoe" {
		t.Errorf("running the rules signs out: %q", name)
	}
}

// An RFC that the checks, the reference or the code name is a link to its section. It opens
// beside the page, which would lose its tokens, and is high enough for a finger.
func TestRFCsAreLinks(t *testing.T) {
	_, b := openPage(t)
	b.click("[data-step=login] > button")
	b.until(`document.querySelector("[data-step=login][data-state=done]")`)
	b.do(js(`for (const it of document.querySelectorAll("#checks details, .op")) it.open = true`))
	b.until(`document.querySelectorAll(".op .try").length === document.querySelectorAll(".op").length`)
	b.do(js(`for (const it of document.querySelectorAll(".op .fold:not(.rules)")) it.open = true`))
	b.openCode("[data-step=login]")
	b.do(js(`[...document.querySelectorAll(".hop")].find((it) => it.textContent.startsWith("server.token")).click()`))
	b.until(`document.querySelector("#code-hop a[href='https://www.rfc-editor.org/rfc/rfc6749#section-4.3']")`)
	const plain = `(() => {
		const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (texts.nextNode()) if (/RFC \d/.test(texts.currentNode.data) && !texts.currentNode.parentElement.closest("pre, textarea, .unseen, a[href^='https://www.rfc-editor.org/rfc/rfc']")) found.push(texts.currentNode.data);
		return found;
	})()`
	if got := eval[[]string](b, plain); len(got) > 0 {
		t.Errorf("no link: %q", got)
	}
	const links = `document.querySelectorAll("a[href^='https:']")`
	if n := eval[int](b, links+`.length`); n < 60 {
		t.Errorf("only %d links to RFCs", n)
	}
	wrong := eval[[]string](b, `[...`+links+`].filter((it) => {
		const [, number, section] = it.textContent.match(/^RFC (\d+)(?:, (?:sections? )?([\d.]+))?/) ?? [];
		return it.href !== "https://www.rfc-editor.org/rfc/rfc" + number + (section ? "#section-" + section : "") || it.target !== "_blank" || it.rel !== "noreferrer" ||
			it.checkVisibility() && it.getBoundingClientRect().height < 24;
	}).map((it) => it.outerHTML)`)
	if len(wrong) > 0 {
		t.Errorf("%d links are wrong, such as %s", len(wrong), wrong[0])
	}
}
