package main

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests are the manual of tokens, in the order of auth.go: their form, and what
// is accepted as one; then password hashes. The attacks by name are in attack_tokens_test.go.

const testSecret = "correct horse battery staple, and more of it"

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// The header and the payload of a token. The rows of the tables below change them.
const (
	ourHeader  = `{"alg":"HS256","typ":"JWT"}`
	ourPayload = `{"iss":"stdauth","aud":"stdauth","sub":"1","sid":"QDZ6NYXK3JLHVZ7GF5VTMX2RWA",` +
		`"username":"johndoe","role":"user","iat":1767323045,"exp":1767324845}`
)

// TestOutsideLibraryCanVerifyOurToken does what any JWT library does with a token. It
// needs only the bytes of SECRET_KEY.
func TestOutsideLibraryCanVerifyOurToken(t *testing.T) {
	part := strings.Split(testTokens().SignAccess(johnClaims()), ".")
	wantEqual(t, "the signature", part[2], macOf(testSecret, part[0]+"."+part[1]))
	var header, got map[string]any
	noError(t, json.Unmarshal([]byte(decode(t, part[0])), &header))
	noError(t, json.Unmarshal([]byte(decode(t, part[1])), &got))
	wantEqual(t, "the header", header, map[string]any{"alg": "HS256", "typ": "JWT"})
	want := map[string]any{
		"iss": "stdauth", "aud": "stdauth", "sub": "1", "sid": "QDZ6NYXK3JLHVZ7GF5VTMX2RWA",
		"username": "johndoe", "role": "user", "iat": 1767323045.0, "exp": 1767324845.0,
	}
	wantEqual(t, "claims", got, want)
}

func TestVerifyAccessReturnsWhatAccessSigned(t *testing.T) {
	for _, test := range []struct {
		name   string
		issuer string
		change func(*Claims)
	}{
		{"the claims of a user are returned", "stdauth", func(c *Claims) {}},
		{"the claims of an admin are returned", "stdauth", func(c *Claims) { c.Role = RoleAdmin }},
		{"the largest ID is returned", "stdauth", func(c *Claims) { c.UserID = 1<<63 - 1 }},
		{"a username of 64 characters is returned", "stdauth", func(c *Claims) { c.Username = strings.Repeat("n", 64) }},
		{"a username with every allowed punctuation is returned", "stdauth", func(c *Claims) { c.Username = "a@b.c+d-e_f" }},
		{"an issuer may be a URL", "https://login.example.com/?a=b&c=d", func(c *Claims) {}},
		{"an issuer may need escapes in JSON", "\"<\u2028\\\x01 größe \U0001F511", func(c *Claims) {}},
	} {
		want := johnClaims()
		test.change(&want)
		tokens := NewTokens(test.issuer, testSecret, "")
		wantEqual(t, test.name, need(tokens.VerifyAccess(tokens.SignAccess(want), testNow))(t), want)
	}
}

// TestPayloadHasOneSpelling: each row changes the payload of a token in one place and
// signs it with the right key. All are refused, even those with the same meaning: a
// token is valid only if it is, byte for byte, what this server writes.
func TestPayloadHasOneSpelling(t *testing.T) {
	need(testTokens().VerifyAccess(sign(testSecret, ourHeader, ourPayload), testNow))(t)
	for _, test := range []struct{ name, old, new string }{
		{"white space before the payload is refused", `{`, " {"},
		{"white space within the payload is refused", `{`, "{ "},
		{"a line break after the payload is refused", `845}`, "845}\n"},
		{"a payload with its first claims in another order is refused", `{"iss":"stdauth","aud":"stdauth",`, `{"aud":"stdauth","iss":"stdauth",`},
		{"a payload with its last claims in another order is refused", `"iat":1767323045,"exp":1767324845`, `"exp":1767324845,"iat":1767323045`},
		{"a claim name with an escape is refused", `"sub"`, `"\u0073ub"`},
		{"a claim value with an escape is refused", `"johndoe"`, `"\u006aohndoe"`},
		{"an exp with an exponent is refused", `1767324845`, `1.767324845e9`},
		{"an exp with a fraction is refused", `1767324845`, `1767324845.0`},
		{"an aud that is an array is refused", `"aud":"stdauth"`, `"aud":["stdauth"]`},
		{"an aud that is an array of two is refused", `"aud":"stdauth"`, `"aud":["other","stdauth"]`},
		{"an unknown claim before the others is refused", `{`, `{"jti":"7",`},
		{"an unknown claim between the others is refused", `"role"`, `"jti":"7","role"`},
		{"an unknown claim after the others is refused", `845}`, `845,"jti":"7"}`},
		{"a payload with nbf is refused", `845}`, `845,"nbf":0}`},

		{"a payload without iss is refused", `"iss":"stdauth",`, ``},
		{"a payload without aud is refused", `"aud":"stdauth",`, ``},
		{"a payload without sub is refused", `"sub":"1",`, ``},
		{"a payload without sid is refused", `"sid":"QDZ6NYXK3JLHVZ7GF5VTMX2RWA",`, ``},
		{"a payload without username is refused", `"username":"johndoe",`, ``},
		{"a payload without role is refused", `"role":"user",`, ``},
		{"a payload without iat is refused", `"iat":1767323045,`, ``},
		{"a payload without exp is refused", `,"exp":1767324845`, ``},

		{"the iss of another server is refused", `"iss":"stdauth"`, `"iss":"other"`},
		{"an iss in another case is refused", `"iss":"stdauth"`, `"iss":"Stdauth"`},
		{"the aud of another server is refused", `"aud":"stdauth"`, `"aud":"other"`},
		{"a sub that is a number is refused", `"sub":"1"`, `"sub":1`},
		{"a sub that is a username is refused", `"sub":"1"`, `"sub":"johndoe"`},
		{"an empty sub is refused", `"sub":"1"`, `"sub":""`},
		{"a sub with a sign is refused", `"sub":"1"`, `"sub":"+1"`},
		{"a sub with a leading zero is refused", `"sub":"1"`, `"sub":"01"`},
		{"a sub with a space is refused", `"sub":"1"`, `"sub":" 1"`},
		{"a sub that overflows 64 bits is refused", `"sub":"1"`, `"sub":"18446744073709551617"`},
		{"a sid that is a number is refused", `"QDZ6NYXK3JLHVZ7GF5VTMX2RWA"`, `7`},
		{"a username that is an array is refused", `"johndoe"`, `["johndoe"]`},
		{"a role that is a boolean is refused", `"role":"user"`, `"role":true`},
		{"an iat that is a string is refused", `1767323045`, `"1767323045"`},
		{"an exp that is a string is refused", `1767324845`, `"1767324845"`},
		{"an exp that overflows 64 bits is refused", `1767324845`, `17673248450000000000`},
		{"an exp with a leading zero is refused", `1767324845`, `01767324845`},
		{"an exp with a sign is refused", `1767324845`, `+1767324845`},
		{"an exp that is null is refused", `1767324845`, `null`},

		{"the claim name Sub is refused", `"sub"`, `"Sub"`},
		{"the claim name Sub beside sub is refused", `{`, `{"Sub":"2",`},
		{"a payload with another sub before the right one is refused", `"sub":"1"`, `"sub":"2","sub":"1"`},
		{"a payload with another sub after the right one is refused", `845}`, `845,"sub":"2"}`},
		{"a payload with exp twice is refused", `845}`, `845,"exp":1767324845}`},

		{"half of a surrogate pair in a claim is refused", `"johndoe"`, `"john\ud800doe"`},
		{"an array around the payload is refused", `{`, `[{`},
		{"a second object after the payload is refused", `845}`, `845}{}`},
		{"a letter after the payload is refused", `845}`, `845}x`},
		{"NUL after the payload is refused", `845}`, "845}\x00"},
		{"a payload without its last brace is refused", `845}`, `845`},
		{"an empty payload is refused", ourPayload, ``},
		{"a payload that is null is refused", ourPayload, `null`},
	} {
		payload := replaceOnce(t, ourPayload, test.old, test.new)
		refuseSpelling(t, test.name, testTokens(), sign(testSecret, ourHeader, payload))
	}
}

// TestHeaderHasOneSpelling: a header is valid only if it is, byte for byte, what this
// server writes.
func TestHeaderHasOneSpelling(t *testing.T) {
	for _, test := range []struct{ name, header string }{
		{"a header with its members in another order is refused", `{"typ":"JWT","alg":"HS256"}`},
		{"a header with white space is refused", `{"alg":"HS256", "typ":"JWT"}`},
		{"a member name with an escape is refused", `{"\u0061lg":"HS256","typ":"JWT"}`},
		{"a header without typ is refused", `{"alg":"HS256"}`},
		{"a typ in lower case is refused", `{"alg":"HS256","typ":"jwt"}`},
		{"a typ with the prefix application/ is refused", `{"alg":"HS256","typ":"application/jwt"}`},
		{"the typ of another kind of token is refused", `{"alg":"HS256","typ":"at+jwt"}`},
		{"a header with typ twice is refused", `{"alg":"HS256","typ":"JWT","typ":"JWT"}`},
		{"an unknown member of the header is refused", `{"alg":"HS256","typ":"JWT","kid":"1"}`},
		{"a header without alg is refused", `{"typ":"JWT"}`},
		{"an alg that is null is refused", `{"alg":null,"typ":"JWT"}`},
		{"an alg that is an array is refused", `{"alg":["HS256"],"typ":"JWT"}`},
		{"an alg in lower case is refused", `{"alg":"hs256","typ":"JWT"}`},
		{"a header with alg twice is refused", `{"alg":"HS256","alg":"HS256","typ":"JWT"}`},
		// crit lists the extensions that a recipient must understand (RFC 7515, section 4.1.11).
		{"a crit with an unknown name is refused", `{"alg":"HS256","typ":"JWT","crit":["x"],"x":1}`},
		{"a crit with b64 (RFC 7797) is refused", `{"alg":"HS256","typ":"JWT","crit":["b64"],"b64":true}`},
		{"an empty crit is refused", `{"alg":"HS256","typ":"JWT","crit":[]}`},
		{"a header with a trailing space is refused", ourHeader + " "},
		{"a header that is null is refused", `null`},
		{"an empty header is refused", ``},
	} {
		refuseSpelling(t, test.name, testTokens(), sign(testSecret, test.header, ourPayload))
	}
}

func TestTimes(t *testing.T) {
	tokens := testTokens()
	token := tokens.SignAccess(johnClaims())
	for _, test := range []struct {
		name  string
		after time.Duration // the token was issued
		ok    bool
	}{
		{"a token from 31 s in the future is refused", -31 * time.Second, false},
		{"a token from 30 s in the future is accepted, as clocks differ", -30 * time.Second, true},
		{"a token is accepted when it is issued", 0, true},
		{"a token is accepted a nanosecond before exp", 30*time.Minute - 1, true},
		{"a token is refused at exp", 30 * time.Minute, false},
		{"a token is refused an hour after exp", 90 * time.Minute, false},
	} {
		_, err := tokens.VerifyAccess(token, testNow.Add(test.after))
		wantAccepted(t, test.name, err, test.ok)
		wantEqual(t, test.name+", but ReadAccess returns its claims at any time", need(tokens.ReadAccess(token))(t), johnClaims())
	}
}

// TestEachPartHasOneSpelling: a second spelling of a token would evade everything that
// compares tokens by their text, such as a list of revoked ones.
func TestEachPartHasOneSpelling(t *testing.T) {
	// With this issuer the last character of the payload has unused bits, and the payload and
	// the signature have characters in which the two alphabets of base64 differ.
	tokens := NewTokens("a???~~~???? ~~~~b", testSecret, "")
	good := strings.Split(tokens.SignAccess(johnClaims()), ".")
	need(tokens.VerifyAccess(strings.Join(good, "."), testNow))(t)
	if !strings.Contains(good[1], "-") || !strings.Contains(good[1], "_") || !strings.ContainsAny(good[2], "-_") {
		t.Fatalf("%q needs a - and a _", good[1:])
	}
	for _, test := range []struct {
		name  string
		spell func(string) string
	}{
		{"padding is refused", func(s string) string { return s + strings.Repeat("=", 4-len(s)%4) }},
		{"a line feed within a part is refused", func(s string) string { return s[:4] + "\n" + s[4:] }},
		{"a carriage return within a part is refused", func(s string) string { return s[:4] + "\r" + s[4:] }},
		{"a line feed after a part is refused", func(s string) string { return s + "\n" }},
		{"a space after a part is refused", func(s string) string { return s + " " }},
		{"a space within a part is refused", func(s string) string { return s[:4] + " " + s[4:] }},
		{"NUL after a part is refused", func(s string) string { return s + "\x00" }},
		{"a part with unused bits set in its last character is refused", func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]+1) }},
		{"a part with one more character is refused", func(s string) string { return s + "A" }},
		{"percent-encoding is refused", func(s string) string { return fmt.Sprintf("%%%02X%s", s[0], s[1:]) }},
		{"an empty part is refused", func(s string) string { return "" }},
		{"the standard alphabet is refused", strings.NewReplacer("-", "+", "_", "/").Replace},
	} {
		for i, part := range []string{"header", "payload", "signature"} {
			spelt := slices.Clone(good)
			if spelt[i] = test.spell(good[i]); spelt[i] == good[i] {
				continue // the header, which has neither - nor _
			}
			if i < 2 { // the signature is that of the changed text
				spelt[2] = macOf(testSecret, spelt[0]+"."+spelt[1])
			}
			refuseSpelling(t, "in the "+part+", "+test.name, tokens, strings.Join(spelt, "."))
		}
	}
}

func TestTokenHasThreeParts(t *testing.T) {
	header, payload := encode(ourHeader), encode(ourPayload)
	signed := func(s string) string { return s + "." + macOf(testSecret, s) }
	for _, test := range []struct{ name, token string }{
		{"an empty token is refused", ""},
		{"a token of one dot is refused", "."},
		{"a token of two dots is refused", ".."},
		{"a token of one word is refused", "token"},
		{"a token without a signature is refused", header + "." + payload},
		{"a signed payload without a header is refused", signed(payload)},
		{"a signature of the empty text is refused", signed("")},
		{"a fourth part after the signature is refused", signed(header+"."+payload) + ".x"},
		{"a dot after the signature is refused", signed(header+"."+payload) + "."},
		{"a signed token of four parts is refused", signed(header + "." + payload + ".x")},
		{"a signed token of four parts with an empty one is refused", signed(header + ".." + payload)},
		{"a dot before the header is refused", "." + signed(header+"."+payload)},
		{"a token of five parts, as an encrypted one has, is refused", signed(header + "..." + payload)},
		{"a token with the scheme Bearer is refused", "Bearer " + signed(header+"."+payload)},
	} {
		refuseAccess(t, test.name, test.token)
	}
}

func TestTokenHasFourKilobytesAtMost(t *testing.T) {
	for size, ok := range map[int]bool{4096: true, 4097: false} {
		tokens, c := testTokens(), johnClaims()
		c.Username = strings.Repeat("n", (size-len(tokens.SignAccess(c)))*3/4+len(c.Username))
		token := tokens.SignAccess(c)
		for ; len(token) < size; token = tokens.SignAccess(c) {
			c.Username += "n"
		}
		wantEqual(t, "the size of the token that the test makes", len(token), size)
		_, err := tokens.VerifyAccess(token, testNow)
		wantAccepted(t, fmt.Sprintf("a token of %d bytes", size), err, ok)
	}
}

// TestPreviousKeyVerifiesAndNeverSigns: a new key ends no session if the old SECRET_KEY
// becomes SECRET_KEY_PREVIOUS until its last token has expired.
func TestPreviousKeyVerifiesAndNeverSigns(t *testing.T) {
	const newSecret = "a new key of thirty-two bytes or more"
	before := NewTokens("stdauth", testSecret, "")
	during := NewTokens("stdauth", newSecret, testSecret)
	after := NewTokens("stdauth", newSecret, "")
	for _, test := range []struct {
		name             string
		signer, verifier *Tokens
		ok               bool
	}{
		{"a token of the old key is accepted while that key is the previous one", before, during, true},
		{"a token of the old key is refused after that key is removed", before, after, false},
		{"a token of the new key is accepted beside the previous key", during, during, true},
		{"a token of the new key is accepted without the previous key", during, after, true},
		{"a token of the new key is refused by a server with only the old key", during, before, false},
	} {
		_, access := test.verifier.VerifyAccess(test.signer.SignAccess(johnClaims()), testNow)
		_, refresh := test.verifier.VerifyRefresh(test.signer.SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: 1}))
		_, _, _, reset := test.verifier.open(resetting, test.signer.sign(resetting, "word", 1, 7))
		_, _, _, verify := test.verifier.open(verifying, test.signer.sign(verifying, "word", 1, 7))
		for kind, err := range map[string]error{"access": access, "refresh": refresh, "reset": reset, "verify": verify} {
			wantAccepted(t, test.name+", of the kind "+kind, err, test.ok)
		}
	}
	_, err := after.VerifyAccess(sign("", ourHeader, ourPayload), testNow)
	wantErr(t, "a token that is signed with an empty key, without a previous key", err, ErrToken)
}

func TestRefreshTokenReturnsWhatWasSigned(t *testing.T) {
	for _, want := range []Claims{
		{UserID: 1, SessionID: "QDZ6NYXK3JLHVZ7GF5VTMX2RWA", Generation: 1},
		{UserID: 2, SessionID: "QDZ6NYXK3JLHVZ7GF5VTMX2RWA", Generation: 1},
		{UserID: 1, SessionID: "QDZ6NYXK3JLHVZ7GF5VTMX2RWA", Generation: 2},
		{UserID: 1<<63 - 1, SessionID: "x", Generation: 1<<63 - 1},
	} {
		wantEqual(t, "VerifyRefresh(SignRefresh())", need(testTokens().VerifyRefresh(testTokens().SignRefresh(want)))(t), want)
	}
}

// TestEachPurposeHasItsOwnKey: an opaque token is readable text and a MAC, with a key that
// HKDF derives from the secret. It is not stored: for a generation of a session it is always
// the same. The labels are part of the contract with tokens that were signed before an update.
func TestEachPurposeHasItsOwnKey(t *testing.T) {
	purposes := map[purpose]string{refreshing: "stdauth refresh token", resetting: "stdauth reset token", verifying: "stdauth verify token"}
	for p, label := range purposes {
		key := need(hkdf.Key(sha256.New, []byte(testSecret), nil, label, sha256.Size))(t)
		token := testTokens().sign(p, "word", 1, 7)
		wantEqual(t, fmt.Sprintf("sign(%s)", p), token, "word.1.7."+macOf(string(key), "word.1.7"))
		for other := range purposes {
			_, _, _, err := testTokens().open(other, token)
			wantAccepted(t, fmt.Sprintf("a token for %s, opened for %s", p, other), err, p == other)
		}
	}
}

// TestOpaqueTokenHasOneSpelling: even under the right key, a text that sign does not write
// is refused.
func TestOpaqueTokenHasOneSpelling(t *testing.T) {
	for _, text := range []string{
		"", ".", "..", "S", "S.1", "S.1.", "S..7", "S.1.7.", "S.1.7.8", "S.01.7", "S.1.07", "S.+1.7", "S.1.-0", "S.1.7 ", "S. 1.7", "S.1.0x7",
		"S.1.9223372036854775808", "S.9223372036854775808.7", "S.1.7\n", "S.1.1e1", "S.1_0.7", "S.\u0661.7",
	} {
		m := testTokens().opaque[resetting][0].Get().(*mac)
		m.text = append(m.text[:0], text...)
		if word, user, number, err := testTokens().open(resetting, string(m.sign())); err != ErrToken || word != "" || user != 0 || number != 0 {
			t.Errorf("open() of the text %q = %q, %d, %d, %v; want ErrToken", text, word, user, number, err)
		}
	}
}

func TestCheckSecret(t *testing.T) {
	for _, test := range []struct{ name, secret, want string }{
		{"a key of 43 characters is accepted", testSecret, "<nil>"},
		{"a key of 32 bytes, the length of the hash, is accepted", "0123456701234567" + "0123456701234567", "<nil>"},
		{"a key of 16 characters of two bytes is accepted", "äöüßéèêëáàâçñøåæ", "<nil>"},
		{"a key of 31 bytes is refused", "0123456789abcdef0123456789abcde", "must be at least 32 bytes long"},
		{"an empty key is refused", "", "must be at least 32 bytes long"},
		{"a key of one repeated byte is refused", strings.Repeat("k", 64), "must have at least 8 different bytes"},
		{"a key of 7 different bytes is refused", strings.Repeat("0123456", 8), "must have at least 8 different bytes"},
		{"the key of the article is refused", "your-secret-key-keep-it-safe-and-dont-share-it-with-anyone", "is a published example"},
		{"the key of the FastAPI tutorial is refused", "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "is a published example"},
		{"the key of jwt.io is refused", "a-string-secret-at-least-256-bits-long", "is a published example"},
	} {
		wantEqual(t, test.name, fmt.Sprint(checkSecret(test.secret)), test.want)
	}
}

// TestKeyIsRandom: without SECRET_KEY, each start has a key of its own.
func TestKeyIsRandom(t *testing.T) {
	first, second := defaultSettings(t).secret, defaultSettings(t).secret
	if first == second || checkSecret(first) != nil {
		t.Errorf("two starts have the keys %q and %q, want two good ones", first, second)
	}
}

// TestVerifyAllocations: a request costs few allocations, and a forged one none, as
// strangers must not be able to make work for the garbage collector.
func TestVerifyAllocations(t *testing.T) {
	build, _ := debug.ReadBuildInfo()
	race := slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	tokens := testTokens()
	token := tokens.SignAccess(johnClaims())
	forged := token[:len(token)-43] + strings.Repeat("A", 43)
	for _, test := range []struct {
		name string
		most float64
		call func()
	}{
		{"signing allocates once", 1, func() { tokens.SignAccess(johnClaims()) }},
		{"verifying allocates twice", 2, func() { tokens.VerifyAccess(token, testNow) }},
		{"refusing a wrong signature allocates nothing", 0, func() { tokens.VerifyAccess(forged, testNow) }},
		{"refusing an access token as a refresh token allocates nothing", 0, func() { tokens.VerifyRefresh(token) }},
	} {
		// Under the race detector a sync.Pool drops values on purpose.
		if got := testing.AllocsPerRun(1000, test.call); got > test.most && !race {
			t.Errorf("%s: %v allocations, want at most %v", test.name, got, test.most)
		}
	}
}

// The published vectors below check our HMAC, which reuses its buffer.

// TestVectorRFC7515A1 has a JWT signed with HS256 (RFC 7515, appendix A.1).
func TestVectorRFC7515A1(t *testing.T) {
	key := []byte(decode(t, "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"))
	const token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" +
		".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ" +
		".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

	signed, ok := authentic([]*hs256{newHS256(key)}, token)
	if !ok || signed+".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" != token {
		t.Fatalf("authentic() = %q, %v", signed, ok)
	}
	_, payload, _ := strings.Cut(signed, ".")
	// The line breaks in the text are signed.
	if got, want := decode(t, payload), "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"; got != want {
		t.Errorf("payload = %q, want %q", got, want)
	}
	// The signature is valid, but the token lacks claims that this server requires.
	if _, err := NewTokens("joe", string(key), "").VerifyAccess(token, time.Unix(1300819379, 0)); err == nil {
		t.Error("VerifyAccess() accepts a token without our claims")
	}
}

// TestVectorsWycheproof has the vectors of testdata/wycheproof_jws.txt. They sign plain text,
// and test what VerifyAccess does before it reads the claims.
func TestVectorsWycheproof(t *testing.T) {
	count := 0
	for line := range strings.Lines(readText(t, "testdata/wycheproof_jws.txt")) {
		var id int
		var result, key, jws string
		if n, _ := fmt.Sscanf(line, "%d %s %s %q", &id, &result, &key, &jws); n != 4 {
			continue // a line of the header
		}
		count++
		keys := []*hs256{newHS256([]byte(decode(t, key)))}
		for range 2 { // the second use reuses the buffer
			if _, ok := authentic(keys, jws); ok != (result != "invalid") {
				t.Errorf("authentic() = %v: %s", ok, line)
			}
		}
		_, err := (&Tokens{access: keys}).VerifyAccess(jws, testNow)
		wantErr(t, "VerifyAccess, as none has our header and our claims, "+line, err, ErrToken)
	}
	wantEqual(t, "the number of vectors", count, 37)
}

// The tests of password hashes follow. All but one use a low cost.

var testHasher = Hasher{Iterations: 1000}

// hashOfSecret was made by Python's hashlib: pbkdf2_hmac("sha256", b"secret", b"0123456789abcdef", 1000).
const hashOfSecret = "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl8"

func TestHashIsAPHCStringThatMatchesItsPasswordAlone(t *testing.T) {
	shape := regexp.MustCompile(`^\$pbkdf2-sha256\$i=1000,l=32\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`)
	for _, password := range []string{
		"secret", "correct horse battery staple", "größe \U0001F511 пароль", " a b ", "$pbkdf2-sha256$", strings.Repeat("p", 1024),
	} {
		phc := testHasher.Hash(password)
		if !shape.MatchString(phc) {
			t.Errorf("Hash(%q) = %q, want the form %s", password, phc, shape)
		}
		wantCheck(t, "a password matches its hash", testHasher, password, phc, true, false)
		for _, other := range []string{"", password + " ", password[1:], password[:len(password)-1], strings.ToUpper(password) + "A"} {
			wantCheck(t, "another password matches nothing", testHasher, other, phc, false, false)
		}
	}
}

// TestEachHashHasItsOwnSalt: two accounts with one password have different hashes, and
// a table of hashes made in advance is of no use.
func TestEachHashHasItsOwnSalt(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		phc := testHasher.Hash("secret")
		salt := strings.Split(phc, "$")[3]
		if seen[salt] {
			t.Fatalf("Hash() used the salt %q twice", salt)
		}
		seen[salt] = true
	}
}

func TestCheckHonoursTheHashsOwnParameters(t *testing.T) {
	const match, differ = true, false
	const weak, strong = true, false
	for _, test := range []struct {
		name, password, phc string
		ok, weak            bool
	}{
		{"a hash of the current cost is not weak", "secret", hashOfSecret, match, strong},
		{"a password beyond ASCII matches its hash", "größe \U0001F511", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$VI9hOJHcQPq45DZqkB26qS7Pzt8V2wpxzWBD9CVGvEw", match, strong},
		{"a hash of a higher cost is not weak", "secret", "$pbkdf2-sha256$i=2000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$MNNTwnCaMAYmrmE7v5+nTtN5kMiuSDOXHq5jqsVOVS8", match, strong},
		{"a hash with a longer key is not weak", "secret",
			"$pbkdf2-sha256$i=1000,l=64$MDEyMzQ1Njc4OWFiY2RlZg$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl/foRckHfOcAI54QvKaR6xa3uNCirtSqhf67vdhI1arVQ", match, strong},

		// A weak hash is replaced at the next login, which has the password.
		{"a hash of one iteration, the minimum, is weak", "secret", "$pbkdf2-sha256$i=1,l=32$MDEyMzQ1Njc4OWFiY2RlZg$YbpH4MTVriL1J0gKQnQQxyQwQcvFOwk4v2eQkU0Lbag", match, weak},
		{"a hash of one iteration less than the current cost is weak", "secret", "$pbkdf2-sha256$i=999,l=32$MDEyMzQ1Njc4OWFiY2RlZg$XdUCsxllGQ00e9UA9ElSPR2Rj+0KgGDNcdoj3ThxsG8", match, weak},
		{"a hash with a shorter key is weak", "secret", "$pbkdf2-sha256$i=1000,l=16$MDEyMzQ1Njc4OWFiY2RlZg$tiKWHy4FAGCWE8gn6GtKhQ", match, weak},
		{"a hash with a shorter salt is weak", "secret", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc$gmXJMVhdatNfVsJ9ypeofsgQYGm4+3G7niyjLFz1pDU", match, weak},

		{"a wrong password does not match", "Secret", hashOfSecret, differ, strong},
		{"a wrong password does not match a weak hash", "Secret", "$pbkdf2-sha256$i=999,l=32$MDEyMzQ1Njc4OWFiY2RlZg$XdUCsxllGQ00e9UA9ElSPR2Rj+0KgGDNcdoj3ThxsG8", differ, strong},
		{"a hash with a changed cost does not match", "secret", strings.Replace(hashOfSecret, "i=1000", "i=1001", 1), differ, strong},
		{"a hash with a changed salt does not match", "secret", strings.Replace(hashOfSecret, "$MD", "$ND", 1), differ, strong},
	} {
		wantCheck(t, test.name, testHasher, test.password, test.phc, test.ok, test.weak)
	}
}

func TestMalformedHashMatchesNothing(t *testing.T) {
	// The key is always the right one, and only the form is wrong.
	const salt, key = "MDEyMzQ1Njc4OWFiY2RlZg", "tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl8"
	for _, test := range []struct{ name, phc string }{
		{"an empty hash matches nothing", ""},
		{"a password in place of a hash matches nothing", "secret"},
		{"a hash of another algorithm matches nothing", "$pbkdf2-sha512$i=1000,l=32$" + salt + "$" + key},
		{"a hash with its algorithm in upper case matches nothing", "$PBKDF2-SHA256$i=1000,l=32$" + salt + "$" + key},
		{"the bcrypt hash of the article matches nothing", "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"},
		{"an argon2 hash matches nothing", "$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$" + key},

		{"text before a hash matches nothing", "x$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key},
		{"a dollar sign after a hash matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "$"},
		{"a line feed after a hash matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "\n"},
		{"a hash without its key matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt},
		{"a hash with one more part matches nothing", "$pbkdf2-sha256$v=1$i=1000,l=32$" + salt + "$" + key},

		{"a hash without a cost matches nothing", "$pbkdf2-sha256$l=32$" + salt + "$" + key},
		{"a hash without a length matches nothing", "$pbkdf2-sha256$i=1000$" + salt + "$" + key},
		{"a hash with an unknown parameter matches nothing", "$pbkdf2-sha256$i=1000,l=32,x=1$" + salt + "$" + key},
		{"a hash with its parameters in another order matches nothing", "$pbkdf2-sha256$l=32,i=1000$" + salt + "$" + key},
		{"a cost without its name matches nothing", "$pbkdf2-sha256$1000,l=32$" + salt + "$" + key},
		{"a cost with a sign matches nothing", "$pbkdf2-sha256$i=+1000,l=32$" + salt + "$" + key},
		{"a cost with a leading zero matches nothing", "$pbkdf2-sha256$i=01000,l=32$" + salt + "$" + key},
		{"a cost in hexadecimal matches nothing", "$pbkdf2-sha256$i=0x3e8,l=32$" + salt + "$" + key},
		{"a cost of zero, which would count as one, matches nothing", "$pbkdf2-sha256$i=0,l=32$" + salt + "$YbpH4MTVriL1J0gKQnQQxyQwQcvFOwk4v2eQkU0Lbag"},
		{"a negative cost matches nothing", "$pbkdf2-sha256$i=-1,l=32$" + salt + "$YbpH4MTVriL1J0gKQnQQxyQwQcvFOwk4v2eQkU0Lbag"},
		{"a cost above the maximum matches nothing", "$pbkdf2-sha256$i=6000001,l=32$" + salt + "$6wKIG7IEeY82s+wz15Zal11qYt5WKgXUag2WQfZ2tkg"},
		{"a cost that overflows 64 bits matches nothing", "$pbkdf2-sha256$i=99999999999999999999,l=32$" + salt + "$" + key},
		{"a length other than that of the key matches nothing", "$pbkdf2-sha256$i=1000,l=31$" + salt + "$" + key},

		{"a hash with an empty salt matches nothing", "$pbkdf2-sha256$i=1000,l=32$$p6kS+jPkrCLgm+JMAAwOXmRYf18G94OuMOAM+cnoiXM"},
		{"a salt of 7 bytes matches nothing", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Ng$7VNtvg8pM6cyiooKy6fYz+j/MrdyQyMZK9lvS8Rc7VY"},
		{"a salt that is not base64 matches nothing", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZ*$" + key},
		{"a salt with padding matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "==$" + key},
		{"a salt with a line break matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt[:4] + "\n" + salt[4:] + "$" + key},
		{"a salt with unused bits set matches nothing", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZh$" + key},

		// An empty key would match every password, and a short one many.
		{"a hash with an empty key matches nothing", "$pbkdf2-sha256$i=1000,l=0$" + salt + "$"},
		{"a key of 15 bytes matches nothing", "$pbkdf2-sha256$i=1000,l=15$" + salt + "$tiKWHy4FAGCWE8gn6GtK"},
		{"a key of one byte matches nothing", "$pbkdf2-sha256$i=1000,l=1$" + salt + "$tg"},
		{"a key of 65 bytes matches nothing", "$pbkdf2-sha256$i=1000,l=65$" + salt + "$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl/foRckHfOcAI54QvKaR6xa3uNCirtSqhf67vdhI1arVS0"},
		{"a key that is not base64 matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl*"},
		{"a key in the URL-safe alphabet matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + strings.Replace(key, "/", "_", 1)},
		{"a key with padding matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "="},
		{"a key with unused bits set matches nothing", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key[:42] + "9"},
	} {
		for _, password := range []string{"secret", ""} {
			wantCheck(t, test.name, testHasher, password, test.phc, false, false)
		}
	}
}

// TestGreatestCostIsTenTimesTodays parses the greatest cost. Hashing with it would take a
// second.
func TestGreatestCostIsTenTimesTodays(t *testing.T) {
	for iterations, want := range map[int]bool{10 * 600_000: true, 10*600_000 + 1: false} {
		if _, _, _, ok := parsePHC(formatPHC(iterations, make([]byte, 16), make([]byte, 32))); ok != want {
			t.Errorf("parsePHC() of %d iterations = %v, want %v", iterations, ok, want)
		}
	}
}

// TestEveryHashCostsTheSame: if an unknown username were refused sooner than a wrong
// password, the time of a response would tell which names exist (user enumeration).
func TestEveryHashCostsTheSame(t *testing.T) {
	h := Hasher{Iterations: 10_000}
	known := h.Hash("secret")
	weak := Hasher{Iterations: 10}.Hash("secret")
	hashes := []string{known, "", "secret", "$pbkdf2-sha256$i=1,l=32$$", strings.Replace(known, "$i=", "$i=+", 1), weak}

	// The quickest of ten each, in turns, is free of other load. A leak would be a
	// factor of thousands; the limit of ten is far from both.
	quickest := make([]time.Duration, len(hashes))
	for range 10 {
		for i, phc := range hashes {
			start := time.Now()
			h.Check("wrong password", phc)
			if took := time.Since(start); quickest[i] == 0 || took < quickest[i] {
				quickest[i] = took
			}
		}
	}
	for i, phc := range hashes {
		if quickest[i] < quickest[0]/10 || quickest[i] > quickest[0]*10 {
			t.Errorf("Check(_, %q) takes %v, a real hash %v", phc, quickest[i], quickest[0])
		}
	}
}

// TestUnhashablePasswordsNeverMatch: HMAC pads its key with zero bytes, and PBKDF2
// cannot tell "secret\x00" from "secret". Neither such a password nor any other that
// cannot be registered may match.
func TestUnhashablePasswordsNeverMatch(t *testing.T) {
	for _, password := range []string{
		"secret\x00", "secret\x00\x00", "\x00", "s\x00ecret", "secret\xff", "\xed\xa0\x80", "\xc1\xb3ecret",
		strings.Repeat("p", 1025), strings.Repeat("p", 100_000),
	} {
		for _, phc := range []string{hashOfSecret, testHasher.Hash(password)} {
			wantCheck(t, "a password that cannot be registered matches nothing", testHasher, password, phc, false, false)
		}
	}
}

func TestRealCostIs600000Iterations(t *testing.T) {
	h := Hasher{Iterations: DefaultIterations}
	phc := h.Hash("secret")
	if !strings.HasPrefix(phc, "$pbkdf2-sha256$i=600000,l=32$") {
		t.Errorf("Hash() = %q, want 600,000 iterations and 32 bytes", phc)
	}
	wantCheck(t, "its hash is not weak", h, "secret", phc, true, false)
	wantCheck(t, "a hash of 1,000 iterations is weak", h, "secret", hashOfSecret, true, true)
}

// TestVectorsWycheproofPBKDF2 derives each of Wycheproof's vectors for PBKDF2. As a PHC
// string it matches its password, unless this server never makes such a hash.
func TestVectorsWycheproofPBKDF2(t *testing.T) {
	var derived, matched int
	for line := range strings.Lines(readText(t, "testdata/wycheproof_pbkdf2.txt")) {
		var id, iterations int
		var consists, password, salt, key string
		if n, _ := fmt.Sscanf(line, "%d %s %s %s %d %s", &id, &consists, &password, &salt, &iterations, &key); n != 6 {
			continue // a line of the header
		}
		derived++
		var raw [3]string // password, salt, key
		for i, text := range []string{strings.TrimPrefix(password, "-"), salt, key} {
			raw[i] = string(need(hex.DecodeString(text))(t))
		}
		wantEqual(t, fmt.Sprintf("PBKDF2 of the vector %d", id), fmt.Sprintf("%x", derive(raw[0], []byte(raw[1]), iterations, len(raw[2]))), key)
		want := consists != "NonUtf8" && !strings.Contains(raw[0], "\x00") && len(raw[1]) >= 8 && len(raw[2]) <= 64
		phc := formatPHC(iterations, []byte(raw[1]), []byte(raw[2]))
		if ok, _ := (Hasher{Iterations: 1}).Check(raw[0], phc); ok != want {
			t.Errorf("%d: Check(%q, %s) = %v, want %v", id, raw[0], phc, ok, want)
		}
		if want {
			matched++
		}
	}
	if derived != 60 || matched != 26 {
		t.Errorf("%d vectors were derived and %d can be hashes of passwords, want 60 and 26", derived, matched)
	}
}

// wantAccepted checks whether a token is accepted.
func wantAccepted(t *testing.T, what string, err error, want bool) {
	t.Helper()
	if (err == nil) != want {
		t.Errorf("%s: got error %v, want it accepted: %v", what, err, want)
	}
}

// wantCheck checks whether a password matches a hash, and whether the hash is weak.
func wantCheck(t *testing.T, what string, h Hasher, password, phc string, ok, weak bool) {
	t.Helper()
	if gotOK, gotWeak := h.Check(password, phc); gotOK != ok || gotWeak != weak {
		t.Errorf("%s: Check(%.100q, %q) = %v, %v, want %v, %v", what, password, phc, gotOK, gotWeak, ok, weak)
	}
}

// sign makes a token without our code, as anyone with the key can.
func sign(secret, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + macOf(secret, signed)
}

// refuseSpelling checks that a token with a valid signature is no token.
func refuseSpelling(t *testing.T, what string, tokens *Tokens, token string) {
	t.Helper()
	_, err := tokens.VerifyAccess(token, testNow)
	if _, read := tokens.ReadAccess(token); err != ErrToken || read != ErrToken {
		t.Errorf("%s: VerifyAccess(%q) = %v and ReadAccess() = %v, want ErrToken", what, token, err, read)
	}
}

func macOf(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return encode(string(mac.Sum(nil)))
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func decode(tb testing.TB, part string) string {
	tb.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		tb.Fatalf("decode(%q) = %v", part, err)
	}
	return string(text)
}

// replaceOnce replaces old in text, and fails if old does not occur exactly once.
func replaceOnce(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q occurs %d times in %s, want once", old, strings.Count(text, old), text)
	}
	return strings.Replace(text, old, new, 1)
}

func testTokens() *Tokens { return NewTokens("stdauth", testSecret, "") }

func johnClaims() Claims {
	return Claims{
		UserID: 1, SessionID: "QDZ6NYXK3JLHVZ7GF5VTMX2RWA", Username: "johndoe", Role: RoleUser,
		IssuedAt: testNow.Unix(), ExpiresAt: testNow.Unix() + 1800,
	}
}
