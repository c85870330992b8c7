package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// These tests are about those who listen to the page, use it by key, or see it in other
// colours or on paper.

// hear notes what is written into live regions from now on.
func (b *tab) hear() {
	b.t.Helper()
	b.do(js(`
		window.spoken = [];
		new MutationObserver((changes) => {
			const regions = changes.map(({target}) => (target.closest ? target : target.parentElement)?.closest("[role=status], [role=alert], [aria-live]"));
			for (const region of new Set(regions)) if (region?.textContent) spoken.push(region.id + ": " + region.textContent);
		}).observe(document.body, {subtree: true, childList: true, characterData: true});`))
}

// spoken returns what was written, and forgets it.
func (b *tab) spoken() []string {
	b.t.Helper()
	return eval[[]string](b, `(() => { const all = spoken; spoken = []; return all; })()`)
}

// A status is written when it has changed, not every second, and not with every response.
func TestStatusesAreSpokenOnce(t *testing.T) {
	_, b := openPage(t)
	b.until(`document.getElementById("verdict").textContent`)
	b.hear()
	b.do(chromedp.Sleep(2500 * time.Millisecond))
	if got := b.spoken(); len(got) > 0 {
		t.Errorf("while nothing happens, the page says %q", got)
	}
	b.signIn("johndoe")
	b.spoken()
	b.click("[data-step=me] > button")
	b.until(`spoken.some((it) => it.startsWith("live"))`)
	if got := b.spoken(); !slices.Equal(got, []string{"live: Step 3, Who am I: 200 from GET /users/me/, as expected."}) {
		t.Errorf("a step says %q", got)
	}
	b.click("#ask")
	b.until(`document.querySelector("#ask-message .code-link span")?.textContent && spoken.some((it) => it.startsWith("live"))`)
	if got := b.spoken(); len(got) != 1 || !strings.Contains(got[0], "200: the server accepts it.") {
		t.Errorf("asking the server says %q", got)
	}
}

// A step stays in sight when it runs, although the one before it folds. Only the card for
// signing in, which folds when a step signs in, may move it up.
func TestStepStaysInSight(t *testing.T) {
	_, b := openPage(t)
	for _, step := range []string{"register", "login", "me", "forbidden"} {
		button := fmt.Sprintf(`document.querySelector("[data-step=%s] > button")`, step)
		b.do(js(button+`.scrollIntoView({block: "center"})`), chromedp.Sleep(200*time.Millisecond))
		before := eval[float64](b, button+`.getBoundingClientRect().top`)
		b.click(fmt.Sprintf("[data-step=%s] > button", step))
		b.until(fmt.Sprintf(`document.querySelector("[data-step=%s][data-state=done]")`, step))
		b.do(chromedp.Sleep(200 * time.Millisecond))
		if after := eval[float64](b, button+`.getBoundingClientRect().top`); after > before+2 || after < before-2 && step != "login" || after < 60 {
			t.Errorf("running %s moves its button from %v to %v", step, before, after)
		}
	}
}

// The title of a step is a button once there is something to fold. It then has the number,
// as a mark has taken its place.
func TestTitleOfAStep(t *testing.T) {
	_, b := openPage(t)
	if n := eval[int](b, `document.querySelectorAll("h3 button").length`); n > 0 {
		t.Errorf("%d titles of steps that have not run are buttons", n)
	}
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done] h3 button[aria-expanded=true]:enabled")?.textContent === "3. Who am I"`)
	b.do(chromedp.Focus(chromedp.CSS("[data-step=me] .title")), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("[data-step=me].folded h3 button[aria-expanded=false]") === document.activeElement`)
}

// What is wrong with a request is spoken, and each box names its field.
func TestErrorsAreSpoken(t *testing.T) {
	_, b := openPage(t)
	b.unfold("createUser")
	b.write("createUser", `{"username": "x y", "password": "longenough77"}`)
	b.hear()
	b.click("#op-createUser button[type=submit]")
	b.until(`spoken.some((it) => it.startsWith("live: Response: 422. username must be 1 to 64 of ASCII letters"))`)
	names := eval[[]string](b, `[...document.querySelectorAll("#op-createUser .rows input[type=checkbox]")].map((it) => it.ariaLabel)`)
	if !slices.Equal(names, []string{"null: email", "null: full_name"}) {
		t.Errorf("the boxes are named %q", names)
	}
}

// The panel with the code says which function it shows, not all its lines, and marks it
// in the list by more than a colour.
func TestCodeIsNotReadOut(t *testing.T) {
	_, b := openPage(t)
	b.click("[data-step=me] > button")
	b.until(`document.querySelector("[data-step=me][data-state=done]")`)
	b.openCode("[data-step=me]")
	b.hear()
	b.do(chromedp.KeyEvent(kb.End), chromedp.KeyEvent(kb.Home))
	b.until(`document.querySelector("#code-hop h3").textContent === "server.handler"`)
	if got := b.spoken(); len(got) != 2 || !strings.HasPrefix(got[1], "code-place: 1 of ") || !strings.Contains(got[1], ": server.handler. ") || len(got[1]) > 300 {
		t.Errorf("the panel says %q", got)
	}
	const weight = `getComputedStyle(document.querySelector(".hop[aria-current=%s]")).fontWeight`
	if now, other := eval[string](b, fmt.Sprintf(weight, "step")), eval[string](b, fmt.Sprintf(weight, "false")); now == other {
		t.Errorf("the function shown is marked by its colour alone: both have the weight %s", now)
	}
}

// Search says how much it has found, not everything.
func TestSearchSaysCounts(t *testing.T) {
	_, b := openPage(t)
	b.do(js(`document.activeElement.blur()`), chromedp.KeyEvent("/"))
	b.until(`document.querySelector("#search[open]")`)
	b.hear()
	find := func(query string) {
		t.Helper()
		b.do(js(fmt.Sprintf(`(it => { it.value = %q; it.dispatchEvent(new Event("input")); })(document.querySelector("#search input"))`, query)))
	}
	find("replay")
	b.until(`document.querySelector(".found")`)
	if got := b.spoken(); len(got) != 1 || !strings.HasPrefix(got[0], "found-count: Steps: ") || strings.Contains(got[0], "Replay an old refresh token") {
		t.Errorf("search says %q", got)
	}
	find("no such thing at all")
	b.until(`!document.querySelector(".found")`)
	if got := b.spoken(); !slices.Equal(got, []string{"found-count: Nothing has all of these words."}) {
		t.Errorf("search says %q", got)
	}
}

// The button that shows all rules goes, and the focus with it to the first of them. What
// a rule comes to is spoken once.
func TestRulesByEar(t *testing.T) {
	_, b := openPage(t)
	b.do(chromedp.Focus(chromedp.CSS("#rules-open")), chromedp.KeyEvent(kb.Enter))
	b.until(`document.activeElement.matches("#rules-list .rule-group:first-child > summary")`)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#rules-list .rule button")`)
	if name, sentence := eval[string](b, `document.querySelector("#rules-list .rule button").ariaLabel ?? ""`), eval[string](b, `document.querySelector("#rules-list .sentence").textContent`); name != "Run: "+sentence {
		t.Errorf("the button of %q is named %q", sentence, name)
	}
	b.hear()
	b.click("#rules-list .rule button")
	b.until(`document.querySelector("#rules-list .verdict.good") && spoken.some((it) => it.startsWith("live"))`)
	if got := b.spoken(); !slices.Equal(got, []string{"live: ✓ The response is as promised."}) {
		t.Errorf("a rule says %q", got)
	}
}

// Of a token from elsewhere the words for screen readers do not speak of the server, which
// never sees it, and a header that is not JSON is called that.
func TestForeignTokenByEar(t *testing.T) {
	_, b := openPage(t)
	for token, want := range map[string]string{
		"eyJhbGciOiJub25lIn0.eyJhIjoxfQ.": "The signature is valid not known yet, but an earlier check failed. ",
		"eyJhbGciOiJIUzI1NiI.eyJhIjoxfQ.": "An algorithm that signs fails.  – the header is not JSON",
	} {
		b.do(js(fmt.Sprintf(`(it => { it.textContent = %q; it.dispatchEvent(new Event("input")); })(document.getElementById("raw"))`, token)))
		b.until(`document.getElementById("token-source").textContent === "From elsewhere: never sent" && document.querySelector("#check-alg.fail")`)
		if got := eval[string](b, `[...document.querySelectorAll("#checks summary > :last-child")].map((it) => it.textContent).join("\n")`); !strings.Contains(got, want) || strings.Contains(got, "server") {
			t.Errorf("the checks of %s do not say %q:\n%s", token, want, got)
		}
	}
}

// The list at the side is lists, one for each group; each operation says who may call it.
func TestSideList(t *testing.T) {
	s := startServer(t)
	b := openTab(t, 1440, 900, "light")
	b.open(s)
	if got := eval[[]string](b, `[...document.querySelectorAll("#side ul")].map((it) => it.ariaLabel)`); !slices.Equal(got, []string{"Tokens", "Me", "Users", "Mail", "Server"}) {
		t.Errorf("the lists at the side are %q", got)
	}
	if n := eval[int](b, `document.querySelectorAll("#side li > a").length`); n != eval[int](b, `document.querySelectorAll(".op").length`) {
		t.Errorf("the lists have %d links", n)
	}
	if got := eval[[]string](b, `[...document.querySelectorAll(".op")].filter((it) => it.querySelector(".who").textContent === "").map((it) => it.id)`); len(got) > 0 {
		t.Errorf("nobody is said to call %q", got)
	}
}

// On paper nothing lies over the text. In forced colours the token does not look selected.
func TestPaperAndForcedColours(t *testing.T) {
	s, b := openPage(t)
	if n := eval[int](b, `CSS.highlights.size`); n != 3 {
		t.Errorf("the token has %d colours", n)
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
	if got := eval[[]string](b, `[...document.querySelectorAll("body *")].filter((it) => ["fixed", "sticky"].includes(getComputedStyle(it).position) && it.checkVisibility()).map((it) => it.outerHTML.slice(0, 100))`); len(got) > 0 {
		t.Errorf("over the text on paper: %q", got)
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "forced-colors", Value: "active"}}})
	b.open(s)
	b.until(`document.getElementById("verdict").textContent`)
	if n := eval[int](b, `CSS.highlights.size`); n > 0 {
		t.Error("in forced colours the token looks selected")
	}
}
