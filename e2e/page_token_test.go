package e2e

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/golang-jwt/jwt/v5"
)

// These tests are about the token panel: what it says of a token, editing and signing
// one, and the session as a picture.

func (b *tab) failing() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#checks .fail")].map((row) => row.id)`)
}

func (b *tab) text(id string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf(`(it => it.matches("input, textarea") ? it.value : it.textContent)(document.getElementById(%q))`, id))
}

// At first sight there is an example, which nobody takes for a token of this server.
func TestExampleToken(t *testing.T) {
	s := startServer(t, "-issuer", "https://auth.example")
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.until(`document.getElementById("raw").textContent`)
	if source := b.text("token-source"); source != "Only an example" {
		t.Errorf("at first sight the panel shows: %s", source)
	}
	if f := b.failing(); len(f) != 0 {
		t.Errorf("of the example, %q fail before anybody has asked", f)
	}
	meanings := eval[string](b, `document.getElementById("claims").innerText`)
	for _, claim := range []string{"iss", "aud", "sub", "sid", "username", "role", "iat", "exp", "In 29:5"} {
		if !strings.Contains(meanings, claim) {
			t.Errorf("the meanings of the claims lack %s:\n%s", claim, meanings)
		}
	}
	b.click("#ask")
	b.until(`document.getElementById("token-source").textContent.endsWith(": refused")`)

	// Its key is told, and makes its signature.
	key := strings.TrimPrefix(b.text("key-says"), "The key of the example is ")
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), key))
	b.until(`document.getElementById("key-says").textContent === "✓ The signature matches this key."`)
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), "x"))
	b.until(`document.getElementById("key-says").textContent === "✗ The signature does not match this key."`)
}

// The token panel: one's own token, an edited one, and one from elsewhere.
func TestTokenPanel(t *testing.T) {
	_, b := openPage(t)
	b.signIn("johndoe")
	if f, p := b.failing(), eval[int](b, `document.querySelectorAll("#checks .pass").length`); len(f) != 0 || p != 10 {
		t.Errorf("of johndoe's token %d checks pass and %q fail, want 10 and none", p, f)
	}
	if n := eval[int](b, `CSS.highlights.get("header").size + CSS.highlights.get("payload").size + CSS.highlights.get("signature").size`); n != 3 {
		t.Errorf("%d of 3 parts have a colour", n)
	}

	// The payload is edited in its own field, as a person would.
	b.do(chromedp.SetValue(chromedp.CSS("#payload"), strings.ReplaceAll(b.text("payload"), `"user"`, `"admin"`)),
		js(`document.getElementById("payload").dispatchEvent(new Event("input"))`))
	b.until(`document.getElementById("token-source").textContent.startsWith("Edited")`)
	if f := b.failing(); len(f) != 0 && !slices.Equal(f, []string{"check-claims"}) { // it is laid out
		t.Errorf("before the server has been asked, %q fail", f)
	}
	_, rest, _ := strings.Cut(b.text("raw"), ".")
	payload, _, _ := strings.Cut(rest, ".")
	if text, err := base64.RawURLEncoding.DecodeString(payload); err != nil || !strings.Contains(string(text), `"admin"`) {
		t.Errorf("the edited payload is %q (%v)", text, err)
	}
	b.click("#ask")
	b.until(`document.querySelector("#check-mac.fail")`)
	if message := b.text("ask-message"); !strings.HasPrefix(message, "401") || !strings.Contains(message, "This page has worked out why: check 3, the signature.") {
		t.Errorf("the response to the edited token is %q", message)
	}
	if focus := eval[string](b, `document.activeElement.id`); focus != "ask" {
		t.Errorf("after asking, the focus is on %q", focus)
	}
	b.openCode("#ask-message")
	if hop, lines := b.hop(), b.lines("refusing"); hop != "authentic" || len(lines) != 1 || b.text("code-note") != "This page has worked out why: check 3, the signature." {
		t.Errorf("the code that refused the edited token is %s with %q, and the panel says %q", hop, lines, b.text("code-note"))
	}
	b.click("#code-close")
	b.click("[data-edit=none]")
	if message := b.text("ask-message"); message != "" {
		t.Errorf("of a token that has changed since, the panel says %q", message)
	}
	if f := b.failing(); !slices.Contains(f, "check-header") {
		t.Errorf("with alg none, %q fail, want the header among them", f)
	}
	if source := eval[string](b, `document.getElementById("token-source").className`); source != "source edited" {
		t.Errorf("edited twice, the token is of the %s", source)
	}
	b.click("#mine")
	b.click("[data-edit=later]")
	if text := b.text("claims"); !strings.Contains(text, "In 365 d") {
		t.Errorf("with a year added, the claims are %q", text)
	}

	// jwt.io's example, pasted. Nothing is sent.
	before := b.requests()
	const foreign = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
	b.do(chromedp.Focus(chromedp.CSS("#raw")), js(`getSelection().selectAllChildren(document.getElementById("raw"))`))
	call(b, input.InsertText, input.InsertTextParams{Text: "Authorization: Bearer " + foreign + "\n"})
	b.until(`document.getElementById("token-source").className === "source foreign"`)
	if f, v := b.failing(), b.text("verdict"); len(f) != 0 || v != "Well formed. Only its key can tell whether it is genuine: type it below." {
		t.Errorf("of a token from elsewhere, %q fail, and the page says %q", f, v)
	}
	b.click("#judge")
	if f, v := b.failing(), b.text("verdict"); !slices.Equal(f, []string{"check-claims", "check-audience", "check-exp"}) || v != "✗ This server would refuse it at check 6: the claims." {
		t.Errorf("of a token from elsewhere, judged by this server's rules, %q fail, and the page says %q", f, v)
	}
	b.click("#judge")
	if !eval[bool](b, `document.getElementById("ask").disabled`) {
		t.Error("a token from elsewhere can be sent")
	}
	if name := eval[string](b, `JSON.parse(document.getElementById("payload").value).name`); name != "John Doe" {
		t.Errorf("the pasted token's name is %q", name)
	}
	if text := b.text("claims"); !strings.Contains(text, "nameNot a claim of this server.") {
		t.Errorf("the claims of the pasted token are %q", text)
	}
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), "your-256-bit-secret")) // as jwt.io has it
	b.until(`document.getElementById("key-says").textContent.startsWith("✓") && document.getElementById("verdict").textContent === "✓ Valid: the key makes its signature."`)
	b.click("[data-edit=role]")
	if !eval[bool](b, `document.getElementById("ask").disabled`) {
		t.Error("a token from elsewhere can be sent once it is edited")
	}
	if after := b.requests(); after != before {
		t.Errorf("%d requests were made while a token was pasted", after-before)
	}
}

// The signature of any JWT is verified with its key, in each form in which keys come.
// Nothing is sent.
func TestVerifiesEveryAlgorithm(t *testing.T) {
	_, b := openPage(t)
	pemOf := func(key any) string {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	b64 := base64.RawURLEncoding.EncodeToString
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret := "a secret of more than thirty-two bytes"
	secrets := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprintf(`{"kty":"oct","k":%q}`, b64([]byte(secret)))}
	rsaKeys := []string{pemOf(&rsaKey.PublicKey), fmt.Sprintf(`{"kty":"RSA","use":"sig","alg":"RS256","n":%q,"e":"AQAB"}`, b64(rsaKey.N.Bytes()))}
	jwk := fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, b64(point[1:33]), b64(point[33:]))
	for _, test := range []struct {
		method jwt.SigningMethod
		key    any
		keys   []string
		wrong  string
	}{
		{jwt.SigningMethodHS256, []byte(secret), secrets, "another"},
		{jwt.SigningMethodHS384, []byte(secret), secrets, "another"},
		{jwt.SigningMethodHS512, []byte(secret), secrets, "another"},
		{jwt.SigningMethodRS256, rsaKey, rsaKeys, ""},
		{jwt.SigningMethodPS256, rsaKey, rsaKeys, ""},
		{jwt.SigningMethodES256, ecKey, []string{pemOf(&ecKey.PublicKey), jwk, `{"keys":[{"kty":"RSA"},` + jwk + `]}`}, ""},
		{jwt.SigningMethodEdDSA, edKey, []string{pemOf(edPublic), fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(edPublic))}, ""},
	} {
		alg := test.method.Alg()
		token, err := jwt.NewWithClaims(test.method, jwt.MapClaims{"sub": "somebody", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(test.key)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(token, ".")
		forged := parts[0] + "." + b64([]byte(`{"sub":"me"}`)) + "." + parts[2]
		verify := func(token, key string) string {
			quoted, err := json.Marshal([]string{token, key})
			if err != nil {
				t.Fatal(err)
			}
			return eval[string](b, fmt.Sprintf(`import("/docs/verify.js").then(({verify}) => verify(...%s)).then(({says}) => says)`, quoted))
		}
		for _, key := range test.keys {
			if says := verify(token, key); !strings.HasPrefix(says, "✓") {
				t.Errorf("%s with the key %.60q: %s", alg, key, says)
			}
			if says := verify(forged, key); !strings.HasPrefix(says, "✗") {
				t.Errorf("%s, forged, with the key %.60q: %s", alg, key, says)
			}
		}
		if says := verify(token, cmp.Or(test.wrong, "no key")); strings.HasPrefix(says, "✓") || test.wrong == "" && !strings.Contains(says, "This is not a key for "+alg) {
			t.Errorf("%s with a wrong key: %s", alg, says)
		}
		// In the panel, with the reason why this server would not take it.
		before := b.requests()
		b.do(js(fmt.Sprintf(`(({raw, key}) => { raw.textContent = %q; key.value = %q; raw.dispatchEvent(new Event("input")); })({raw: document.getElementById("raw"), key: document.getElementById("key")})`, token, test.keys[0])))
		b.until(`document.getElementById("verdict").textContent === "✓ Valid: the key makes its signature."`)
		if says := b.text("alg-says"); alg == "HS256" != strings.Contains(says, "only algorithm that this server accepts") || alg != "HS256" && !strings.Contains(says, "This server refuses "+alg) {
			t.Errorf("of %s the page says %q", alg, says)
		}
		if after := b.requests(); after != before {
			t.Errorf("%s: %d requests were made", alg, after-before)
		}
	}
}

// Keys that the browser has made: Ed25519 under both of its names, and ML-DSA. Of several
// keys, the one of the right type is taken.
func TestVerifiesNewerAlgorithms(t *testing.T) {
	_, b := openPage(t)
	for _, alg := range []string{"EdDSA", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"} {
		said := eval[[]string](b, fmt.Sprintf(`(async (alg) => {
			const [{sign, verify}, {encode}] = [await import("/docs/verify.js"), await import("/docs/jwt.js")];
			const make = async (...how) => { const pair = await crypto.subtle.generateKey(...how, true, ["sign", "verify"]); return Promise.all([pair.privateKey, pair.publicKey].map((key) => crypto.subtle.exportKey("jwk", key))); };
			const [[secret, open], [, other], [, ec]] = [await make({name: alg.replace("EdDSA", "Ed25519")}), await make({name: alg.replace("EdDSA", "Ed25519")}), await make({name: "ECDSA", namedCurve: "P-256"})];
			const token = await sign([encode(JSON.stringify({alg})), encode("{}"), ""].join("."), JSON.stringify(secret));
			const says = async (...keys) => (await verify(token, JSON.stringify(keys.length > 1 ? {keys} : keys[0]))).says;
			return [await says(open), await says(ec, open), await says(other)];
		})(%q)`, alg))
		want := []string{"✓ The signature matches this key.", "✓ The signature matches this key.", "✗ The signature does not match this key."}
		if !slices.Equal(said, want) {
			t.Errorf("%s: the page says %q", alg, said)
		}
	}
}

// A forgery signed with a key of one's own is refused; signed with the server's key it
// is taken, and its role is still the store's.
func TestSignWithAKey(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	b := openTab(t, 1280, 900, "light")
	b.open(s)
	b.signIn("johndoe")
	forge := func(key string) {
		t.Helper()
		b.click("#mine")
		b.click("[data-edit=role]")
		b.do(js(`document.getElementById("key").value = ""`), chromedp.SendKeys(chromedp.CSS("#key"), key+kb.Tab), chromedp.KeyEvent(kb.Enter))
		b.until(`document.getElementById("token-source").textContent.startsWith("Signed by you")`)
		b.click("#ask")
	}
	forge("a key of my own")
	b.until(`document.getElementById("ask-message").textContent.startsWith("401")`)
	if class := eval[string](b, `document.getElementById("check-mac").className`); !strings.HasPrefix(class, "ask") {
		t.Errorf("the signature under another key is said to be %q; the page cannot know", class)
	}
	if source := b.text("token-source"); source != "Signed by you: refused" {
		t.Errorf("the forgery is said to be: %s", source)
	}
	forge(testKey)
	b.until(`document.getElementById("ask-message").textContent.startsWith("200: the server accepts it. It is johndoe, with the role user in the store.")`)
	if p := eval[int](b, `document.querySelectorAll("#checks .pass").length`); p != 10 {
		t.Errorf("of a token under the right key, %d checks pass", p)
	}
}

// The token and its parts are copied as they are.
func TestCopyToken(t *testing.T) {
	_, b := openPage(t)
	b.signIn("johndoe")
	b.do(js(`navigator.clipboard.writeText = async (text) => { window.copied = text; }`)) // a headless browser has none
	raw := b.text("raw")
	parts := strings.Split(raw, ".")
	for id, want := range map[string]string{"raw": raw, "header": parts[0], "payload": parts[1], "signature": parts[2]} {
		b.click("#" + id + "-copy button")
		b.until(fmt.Sprintf(`document.querySelector("#%s-copy button").textContent.startsWith("Copied")`, id))
		if got := eval[string](b, `window.copied`); got != want {
			t.Errorf("copying the %s gives %q, want %q", id, got, want)
		}
	}
}

// The session is drawn as it goes: a successor, the same one again, a replay, the end.
func TestSessionPicture(t *testing.T) {
	s, b := openPage(t)
	b.signIn("johndoe")
	drawn := func(want string) {
		t.Helper()
		b.until(fmt.Sprintf(`document.querySelector("#session figcaption").textContent === %q`, want))
	}
	drawn("The session of johndoe: refresh token 1. The session is active.")
	b.click("#refresh")
	drawn("The session of johndoe: refresh tokens 1 to 2, each replaced by the next. The session is active.")
	b.click("[data-step=refresh] > button")
	drawn("The session of johndoe: refresh tokens 1 to 3, each replaced by the next. A retry of 2, just after it was replaced, got 3 again. The session is active.")
	b.click("[data-step=replay] > button")
	b.until(`document.querySelector("[data-step=replay][data-state=done]")`)
	const replayed = "The session of johndoe: refresh tokens 1 to 3, each replaced by the next. A retry of 2, just after it was replaced, got 3 again. " +
		"Then 1 was sent again, when 2 had been replaced too: a replay. The session has ended: somebody else holds a copy of the token."
	drawn(replayed)
	if text := eval[string](b, `document.querySelector("[data-step=replay] figcaption").textContent`); text != replayed {
		t.Errorf("the step's picture says %q", text)
	}
	for selector, want := range map[string]int{".replayed circle": 1, ".replay path": 2, ".same path": 2, ".cross": 1, "circle": 3} {
		if got := eval[int](b, fmt.Sprintf(`document.querySelectorAll("#session %s").length`, selector)); got != want {
			t.Errorf("the picture has %d of %s, want %d", got, selector, want)
		}
	}
	if red, want := eval[string](b, `getComputedStyle(document.querySelector("#session .replay path")).stroke`), "rgb(150, 22, 16)"; red != want {
		t.Errorf("the replay is drawn in %s, want %s", red, want)
	}
	// A session that ends elsewhere is seen by its next refusal.
	b.signIn("johndoe")
	access := b.text("raw")
	resp, err := http.PostForm(s.URL+"/revoke", map[string][]string{"token": {access}})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp, http.StatusOK)
	b.click("#ask")
	drawn("The session of johndoe: refresh token 1. The session has ended: this page did not see why.")
	if f := b.failing(); !slices.Equal(f, []string{"check-session"}) {
		t.Errorf("of a token whose session has ended, %q fail", f)
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
