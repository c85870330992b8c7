package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// These tests are about the code that answered: the panel with the functions that a
// request has passed.

// openCode opens the panel under the last of some exchanges.
func (b *tab) openCode(exchanges string) {
	b.t.Helper()
	link := fmt.Sprintf(`[...document.querySelectorAll("%s .code-link")].at(-1)`, exchanges)
	b.do(js(`for (const it of document.querySelectorAll(".folded .title")) it.click()`))
	b.until(link + `?.textContent.includes("functions")`)
	b.do(js(link+`.focus()`), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#code[open] #code-source")`)
	b.do(js(`(it => { if (it.textContent.startsWith("All")) it.click(); })(document.getElementById("code-all"))`))
}

// hop is the function that the panel shows.
func (b *tab) hop() string {
	b.t.Helper()
	return eval[string](b, `document.querySelector("#code-hop h3").textContent`)
}

// lines are those of a kind in the function shown, "refusing" or "deciding".
func (b *tab) lines(kind string) []string {
	b.t.Helper()
	return eval[[]string](b, fmt.Sprintf(`[...document.querySelectorAll("#code-source .%s")].map((line) => line.textContent.replace("%s: ", "").trim())`, kind, kind))
}

// The way of a request that succeeds, from the first function to the last, by key.
func TestCodeOfASuccess(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	b.openCode("[data-step=me]")
	b.do(chromedp.KeyEvent(kb.Home))
	names := eval[[]string](b, `[...document.querySelectorAll("#code-hops .hop-name")].map((hop) => hop.textContent)`)
	if names[0] != "server.handler" || b.hop() != names[0] {
		t.Errorf("the panel begins with %s of %q", b.hop(), names)
	}
	if place := b.text("code-place"); !strings.HasPrefix(place, fmt.Sprintf("1 of %d: server.handler. ", len(names))) {
		t.Errorf("the panel says %q for %d functions", place, len(names))
	}
	resp, err := http.Get(s.URL + "/docs/source/handlers.go")
	if err != nil {
		t.Fatal(err)
	}
	source := readAll(t, resp, http.StatusOK)
	at := strings.Count(string(source[:strings.Index(string(source), "func (s *server) handler()")]), "\n") + 1
	if got := eval[string](b, `document.querySelector("#code-hop .time").textContent`); got != fmt.Sprintf("handlers.go, line %d", at) {
		t.Errorf("the function is said to stand in %s, and is on line %d", got, at)
	}
	if got := eval[[]string](b, `["comment", "string", "keyword"].map((kind) => document.querySelector("#code-source .go-" + kind)?.textContent ?? "")`); strings.Join(got, "") == "" {
		t.Errorf("the source has the colours %q", got)
	}
	for _, name := range names[1:] {
		if b.do(chromedp.KeyEvent(kb.ArrowRight)); b.hop() != name {
			t.Fatalf("the next key shows %s, want %s", b.hop(), name)
		}
	}
	b.do(chromedp.KeyEvent("n")) // there is none
	if b.hop() != names[len(names)-1] || b.hop() != "server.observe" {
		t.Errorf("the last function is %s", b.hop())
	}
	b.do(chromedp.KeyEvent("p"))
	if b.hop() != names[len(names)-2] {
		t.Errorf("the key p shows %s, want %s", b.hop(), names[len(names)-2])
	}
	b.do(chromedp.KeyEvent(kb.Home))
	b.click("#code-next")
	if b.hop() != names[1] {
		t.Errorf("the button shows %s, want %s", b.hop(), names[1])
	}
	b.click("#code-hops li:nth-child(3) button")
	if b.hop() != names[2] {
		t.Errorf("a click in the list shows %s, want %s", b.hop(), names[2])
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.querySelector("#code[open]")`)
	if !eval[bool](b, `document.activeElement.matches("[data-step=me] .code-link")`) {
		t.Error("when the panel has closed, the focus is not where it was opened")
	}
}

func TestCodeOfRefusals(t *testing.T) {
	_, b := openPage(t)
	b.signIn("johndoe")
	b.click("#run-all")
	b.until(`document.querySelectorAll("[data-state=done]").length === 12 && ` + finished)
	b.signIn("johndoe")
	send := func(operation string, fields map[string]string) string {
		t.Helper()
		b.do(js(fmt.Sprintf(`document.getElementById("op-%s").open = true`, operation)))
		b.until(fmt.Sprintf(`document.querySelector("#op-%s form")`, operation))
		for id, value := range fields {
			b.do(js(fmt.Sprintf(`document.getElementById(%q).value = %q`, id, value)))
		}
		b.do(js(fmt.Sprintf(`document.querySelector("#op-%s .exchange")?.remove()`, operation)))
		b.click("#op-" + operation + " button[type=submit]")
		b.do(js(fmt.Sprintf(`document.querySelector("#op-%s .ask .primary")?.click()`, operation)))
		b.until(fmt.Sprintf(`document.querySelector("#op-%s .exchange")`, operation))
		return "#op-" + operation
	}
	for _, test := range []struct {
		name, in, hop, line string
		missed              string // a function that was not reached
	}{
		{"403, not an admin", "[data-step=forbidden]", "Caller.Allowed", "return ErrNotAdmin", "server.listUsers"},
		{"401, a forgery", "[data-step=forge]", "authentic", "match |= subtle.ConstantTimeCompare(m.sign()[dot:], []byte(token[dot:]))", "Tokens.readClaims"},
		{"401, expired", "[data-step=expire]", "Claims.ValidAt", "return now.Unix() < c.ExpiresAt && c.IssuedAt <= now.Add(leeway).Unix()", "MemoryStore.Session"},
		{"401, the session has ended", "[data-step=replay]", "server.admit", "return ErrEnded", "Caller.Allowed"},
		{"400, a replay", "[data-step=replay] .exchange:nth-of-type(2)", "Session.Rotate", "return ErrReplayed", "server.replyToken"},
		{"422, a rule", send("createUser", map[string]string{"createUser-body": `{"username":"alice","password":"12345678"}`}), "checkPassword", `return errors.New("is one of the most common passwords")`, "Hasher.Hash"},
		{"400, not JSON", send("updateMe", map[string]string{"updateMe-body": `{`}), "parseObject", `return nil, detailed(errNotJSON, fmt.Sprintf("The body is not JSON: %v (byte %d)", syntax, syntax.Offset))`, "server.patchMe"},
		{"401, a wrong password", send("createToken", map[string]string{"createToken-body": "username=johndoe&password=wrong"}), "Passwords.Check", "err = ErrPassword", "server.startSession"},
		{"404, no such session", send("endMySession", map[string]string{"endMySession-sid": "x"}), "decisions.EndSession", "return change{}, ErrNotFound", "MemoryStore.commit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.openCode(test.in)
			if got := b.lines("refusing"); b.hop() != test.hop || len(got) != 1 || got[0] != test.line {
				t.Errorf("%s: the panel shows %s with %q, want %s with %q", test.name, b.hop(), got, test.hop, test.line)
			}
			if missed := eval[string](b, `[...document.querySelectorAll("#code-hops .missed")].map((it) => it.textContent).join(" ")`); !strings.Contains(missed, test.missed) {
				t.Errorf("%s: not reached is said to be %q, want %s among them", test.name, missed, test.missed)
			}
			reached := eval[string](b, `[...document.querySelectorAll("#code-hops .hop")].map((it) => it.textContent).join(" ")`)
			if !strings.Contains(reached, "server.refusal") || strings.Contains(reached, test.missed) {
				t.Errorf("%s: reached is said to be %q", test.name, reached)
			}
			// The row of the table of errors is marked as well.
			b.do(js(`[...document.querySelectorAll("#code-hops .hop")].find((it) => it.textContent.startsWith("problems")).click()`))
			if rows := b.lines("deciding"); len(rows) == 0 || !strings.Contains(rows[0], strings.Fields(test.name)[0][:3]) {
				t.Errorf("%s: the marked rows are %q", test.name, rows)
			}
			b.click("#code-close")
		})
	}
	// Too many wrong passwords: the line that makes them wait.
	for range 6 {
		send("createToken", map[string]string{"createToken-body": "username=nobody&password=wrong"})
	}
	b.openCode("#op-createToken")
	if got := b.lines("refusing"); b.hop() != "throttle.check" || len(got) != 1 {
		t.Errorf("429: the panel shows %s with %q", b.hop(), got)
	}
}

// At first there are the few functions that decide, and the others on demand.
func TestCodeShowsTheDecisions(t *testing.T) {
	_, b := openPage(t)
	b.signIn("johndoe")
	for step, want := range map[string][]string{
		"me":        {"server.admit", "authentic", "Claims.ValidAt", "Caller.Allowed", "server.readMe"},
		"forbidden": {"server.admit", "authentic", "Claims.ValidAt", "Caller.Allowed ✗ refused", "problems"},
		"forge":     {"server.admit", "authentic ✗ refused", "problems"},
	} {
		b.do(js(`document.querySelector("[data-step=` + step + `] > button").click()`)) // the steps move when one folds
		b.until(`document.querySelector("[data-step=` + step + `][data-state=done] .code-link")?.textContent.includes("functions")`)
		b.do(js(`document.querySelector("[data-step=` + step + `] .code-link").click()`))
		b.until(`document.querySelector("#code[open] #code-source")`)
		const names = `[...document.querySelectorAll("#code-hops .hop-name")].map((hop) => hop.textContent)`
		if got := eval[[]string](b, names); !slices.Equal(got, want) {
			t.Errorf("the decisions of %s are %q, want %q", step, got, want)
		}
		hop := b.hop()
		b.click("#code-all")
		if got := eval[[]string](b, names); len(got) < 15 || b.hop() != hop {
			t.Errorf("all functions of %s are %q, with %s shown, want %s", step, got, b.hop(), hop)
		}
		b.click("#code-all")
		if got := eval[[]string](b, names); !slices.Equal(got, want) {
			t.Errorf("the decisions of %s are then %q", step, got)
		}
		b.click("#code-close")
	}
}

// Back closes the code, and leads nowhere else.
func TestBackClosesTheCode(t *testing.T) {
	_, b := openPage(t)
	b.click(".bar a[href='#reference']")
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	for _, leave := range []string{`history.back()`, `document.getElementById("code-close").click()`} {
		b.openCode("[data-step=me]")
		at := eval[float64](b, `scrollY`)
		b.do(js(leave))
		b.until(`!document.querySelector("#code[open]") && history.state === null`)
		if hash := eval[string](b, `location.hash`); hash != "#reference" {
			t.Errorf("%s leads to %q", leave, hash)
		}
		b.until(fmt.Sprintf(`document.activeElement.matches("[data-step=me] .code-link") && Math.abs(scrollY - %f) < 2`, at))
	}
	b.do(js(`history.back()`))
	b.until(`location.hash === ""`)
}

// Each check of the token panel leads to the line that makes it.
func TestCodeOfChecks(t *testing.T) {
	_, b := openPage(t)
	for check, want := range map[string]string{
		"size":     "authentic: if dot < 0 || len(token) > maxToken {",
		"mac":      "authentic: match |= subtle.ConstantTimeCompare(m.sign()[dot:], []byte(token[dot:]))",
		"header":   `Tokens.ReadAccess: encoded, ours := strings.CutPrefix(signed, jwtHeader+".")`,
		"claims":   "Tokens.ReadAccess: if !bytes.Equal(t.appendClaims(written[:0], c), payload) {",
		"exp":      "Claims.ValidAt: return now.Unix() < c.ExpiresAt && c.IssuedAt <= now.Add(leeway).Unix()",
		"session":  "server.admit: return ErrEnded",
		"audience": "Tokens.appendClaims: b = strconv.AppendInt(append(b, t.prefix...), c.UserID, 10)",
	} {
		b.click("#check-" + check + " summary")
		b.click("#check-" + check + " .code-link")
		b.until(`document.querySelector("#code[open] .deciding")`)
		if hop, marked := b.hop(), b.lines("deciding"); !strings.Contains(want, hop+": ") || !strings.Contains(strings.Join(marked, "\n"), strings.TrimPrefix(want, hop+": ")) {
			t.Errorf("the check %s leads to %s with %q, want %s", check, hop, marked, want)
		}
		b.do(chromedp.KeyEvent(kb.Escape))
	}
}

// The code that cannot be read is said to be so, and is asked for again.
func TestCodeUnreadable(t *testing.T) {
	s, b := openPage(t)
	b.click("[data-step=me] > button")
	b.until(`[...document.querySelectorAll("[data-step=me] .code-link")].at(-1)?.textContent.includes("functions")`)
	s.stop(t)
	b.do(js(`[...document.querySelectorAll("[data-step=me] .code-link")].at(-1).click()`))
	b.until(`document.getElementById("code-title")?.textContent === "The code cannot be read"`)
	b.click("#code-close")
	again := startServer(t, "-addr", s.Addr)
	b.openCode("[data-step=me]")
	if b.hop() != "server.admit" {
		t.Errorf("asked again, the panel shows %q", b.hop())
	}
	again.stop(t)
}
