package main

import (
	"bytes"
	"compress/flate"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// The known attacks on JWT by name, most of them from RFC 8725, section 2. An
// attacker has tokens, reads this code and knows everything but the key. Where
// a test signs with the right key, it grants the attacker more than that, to
// reach the check behind the MAC.

func refuseAccess(t *testing.T, attack, token string) {
	t.Helper()
	if c, err := testTokens().VerifyAccess(token, testNow); err == nil {
		t.Errorf("%s: VerifyAccess(%q) = %+v, want ErrToken", attack, token, c)
	}
}

// RFC 8725, section 2.1: the token says that it needs no signature.
func TestAttackAlgorithmNone(t *testing.T) {
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "none ", "", "null"} {
		header := `{"alg":"` + alg + `","typ":"JWT"}`
		unsigned := encode(header) + "." + encode(ourPayload)
		refuseAccess(t, alg+" without a signature", unsigned+".")
		refuseAccess(t, alg+" without a third part", unsigned)
		refuseAccess(t, alg+" with the signature of another token", unsigned+"."+macOf(testSecret, "x"))
		refuseAccess(t, alg+" with a right MAC", sign(testSecret, header, ourPayload))
	}
}

// RFC 8725, section 2.1: the token is signed with another algorithm, by a key
// that the server uses for something else or lets everybody read. Here the
// header chooses nothing: there is one algorithm.
func TestAttackAlgorithmConfusion(t *testing.T) {
	for _, alg := range []string{
		"HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS512", "EdDSA",
		"HS256 ", "hs256", "HS2560", "HS", "HS256\\u0000", "dir", "A128KW",
	} {
		refuseAccess(t, alg+" over an HS256 MAC", sign(testSecret, `{"alg":"`+alg+`","typ":"JWT"}`, ourPayload))
	}

	// And by the algorithm that it names, with our secret or with a new key.
	signed := func(alg string) string { return encode(`{"alg":"`+alg+`","typ":"JWT"}`) + "." + encode(ourPayload) }
	hs512 := hmac.New(sha512.New, []byte(testSecret))
	hs512.Write([]byte(signed("HS512")))
	refuseAccess(t, "HS512 with our secret", signed("HS512")+"."+encode(string(hs512.Sum(nil))))
	refuseAccess(t, "HS512 with our secret, cut to 32 bytes", signed("HS512")+"."+encode(string(hs512.Sum(nil)[:32])))

	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	refuseAccess(t, "EdDSA with a key of the attacker", signed("EdDSA")+"."+encode(string(ed25519.Sign(private, []byte(signed("EdDSA"))))))

	// The classic: a public key, which everybody has, taken for an HMAC key.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	refuseAccess(t, "HS256 with a public key as the secret", sign(string(public), ourHeader, ourPayload))
}

// RFC 8725, section 2.9: a header may carry a key, or say where to find it (RFC
// 7515, sections 4.1.2 to 4.1.6). A server that believes it lets the attacker bring
// the key, or sends requests for him. This one knows its key and reads no header.
func TestAttackKeyInTheHeader(t *testing.T) {
	const attackersKey = "a key of the attacker, long enough for HS256"
	for name, member := range map[string]string{
		"jwk (CVE-2018-0114)":     `"jwk":{"kty":"oct","k":"` + encode(attackersKey) + `"}`,
		"jku":                     `"jku":"http://127.0.0.1:1/keys.json"`,
		"x5u":                     `"x5u":"http://127.0.0.1:1/chain.pem"`,
		"x5c":                     `"x5c":["` + encode(attackersKey) + `"]`,
		"kid with a path":         `"kid":"../../../../dev/null"`,
		"kid with an SQL query":   `"kid":"x' UNION SELECT 'a key of the attacker'; --"`,
		"kid with a command":      `"kid":"x|curl http://127.0.0.1:1"`,
		"kid of the previous key": `"kid":"1"`,
	} {
		header := `{"alg":"HS256","typ":"JWT",` + member + `}`
		refuseAccess(t, name+", signed by the attacker", sign(attackersKey, header, ourPayload))
		refuseAccess(t, name+", signed with an empty key", sign("", header, ourPayload))
		refuseAccess(t, name+", signed with our key", sign(testSecret, header, ourPayload))
	}
}

// The signature is left out, cut, lengthened or made up.
func TestAttackSignatureStripping(t *testing.T) {
	token := testTokens().Access(johnClaims())
	dot := strings.LastIndex(token, ".")
	mac := token[dot+1:]
	for size := range mac {
		refuseAccess(t, fmt.Sprintf("the first %d characters", size), token[:dot+1]+mac[:size])
	}
	for size := range sha256.Size {
		refuseAccess(t, fmt.Sprintf("the first %d bytes", size), token[:dot+1]+encode(decode(t, mac)[:size]))
	}
	refuseAccess(t, "a byte more", token[:dot+1]+encode(decode(t, mac)+"\x00"))
	refuseAccess(t, "twice", token+mac)
	refuseAccess(t, "all zero", token[:dot+1]+encode(string(make([]byte, sha256.Size))))
	refuseAccess(t, "in hexadecimal", token[:dot+1]+fmt.Sprintf("%x", decode(t, mac)))
	refuseAccess(t, "a plain hash (no key)", token[:dot+1]+encode(fmt.Sprintf("%s", sha256.Sum256([]byte(token[:dot])))))

	// CVE-2022-21449, "psychic signatures": r = s = 0 is valid for careless ECDSA.
	psychic := encode(`{"alg":"ES256","typ":"JWT"}`) + "." + encode(ourPayload)
	refuseAccess(t, "psychic signature", psychic+"."+encode(string(make([]byte, 64))))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(psychic))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	refuseAccess(t, "ECDSA with a key of the attacker", psychic+"."+encode(string(signature)))
}

// Any one character is another: the claims, the header or the signature.
func TestAttackBitFlipping(t *testing.T) {
	token := []byte(testTokens().Access(johnClaims()))
	refresh := []byte(testTokens().Refresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 7}))
	for _, flip := range []byte{1, 2, 4, 0x20, 0x80} {
		for i := range token {
			token[i] ^= flip
			refuseAccess(t, fmt.Sprintf("byte %d xor %#x", i, flip), string(token))
			token[i] ^= flip
		}
		for i := range refresh {
			refresh[i] ^= flip
			refuseRefresh(t, fmt.Sprintf("byte %d xor %#x", i, flip), string(refresh))
			refresh[i] ^= flip
		}
	}
}

// Parts of two genuine tokens make no third one.
func TestAttackSplicing(t *testing.T) {
	john, admin := johnClaims(), johnClaims()
	admin.UserID, admin.Username, admin.Role = 2, "admin", RoleAdmin
	a := strings.Split(testTokens().Access(john), ".")
	b := strings.Split(testTokens().Access(admin), ".")
	refuseAccess(t, "the admin's claims under john's signature", a[0]+"."+b[1]+"."+a[2])
	refuseAccess(t, "the admin's claims behind john's", a[0]+"."+a[1]+b[1]+"."+a[2])

	older := strings.Split(testTokens().Refresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 1}), ".")
	newer := strings.Split(testTokens().Refresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 2}), ".")
	refuseRefresh(t, "an older token with a newer generation", older[0]+"."+older[1]+"."+newer[2]+"."+older[3])

	// A dot moved to the left or right must not give the same signed text.
	joined := func(id int64, generation int64) string {
		return testTokens().Refresh(RefreshToken{UserID: id, SessionID: "S", Generation: generation})
	}
	if x, y := joined(1, 12), joined(11, 2); x[len(x)-43:] == y[len(y)-43:] {
		t.Errorf("tokens %q and %q have one MAC", x, y)
	}
}

// RFC 8725, section 2.2: a weak key is found by trying words on one token, with
// no server asked. These are the first that everybody tries.
func TestAttackGuessedSecret(t *testing.T) {
	words := append(strings.Fields(`secret key jwt password changeme your-256-bit-secret your_jwt_secret
		secretkey mysecret supersecret jwt_secret_key 0123456789abcdef qwerty stdauth`), knownSecrets...)
	for _, word := range words {
		refuseAccess(t, "guessed "+word, sign(word, ourHeader, ourPayload))
		if checkSecret(word) == nil {
			t.Errorf("checkSecret(%q) = nil: a server may run with it", word)
		}
	}
	refuseAccess(t, "our key and a letter", sign(testSecret+"x", ourHeader, ourPayload))
	refuseAccess(t, "our key in base64", sign(encode(testSecret), ourHeader, ourPayload))
}

// RFC 8725, section 2.6: not all JSON is UTF-8, and readers guess.
func TestAttackOtherEncodings(t *testing.T) {
	utf16le := func(text string) string {
		var b strings.Builder
		for _, unit := range utf16.Encode([]rune(text)) {
			b.WriteByte(byte(unit))
			b.WriteByte(byte(unit >> 8))
		}
		return b.String()
	}
	refuseAccess(t, "payload in UTF-16", sign(testSecret, ourHeader, utf16le(ourPayload)))
	refuseAccess(t, "payload in UTF-16 with a mark", sign(testSecret, ourHeader, "\xff\xfe"+utf16le(ourPayload)))
	refuseAccess(t, "header in UTF-16", sign(testSecret, utf16le(ourHeader), ourPayload))
	refuseAccess(t, "payload in UTF-8 with a mark", sign(testSecret, ourHeader, "\xef\xbb\xbf"+ourPayload))
}

// RFC 8725, section 2.7: a token made for somebody else is shown to us.
func TestAttackSubstitution(t *testing.T) {
	refuseAccess(t, "of a server with another key", NewTokens("stdauth", "another key of thirty-two bytes or so", "").Access(johnClaims()))
	refuseAccess(t, "of a server with the same key and another name", NewTokens("billing", testSecret, "").Access(johnClaims()))
	refuseAccess(t, "an ID token for a client of ours", sign(testSecret, ourHeader, replaceOnce(t, ourPayload, `"aud":"stdauth"`, `"aud":"client"`)))
	refuseAccess(t, "a token in the article's form", sign(testSecret, ourHeader, `{"sub":"johndoe","exp":1767324845}`))
}

// RFC 8725, section 2.8, cross-JWT confusion: one kind of token used as the other.
func TestAttackRefreshTokenAsAccessTokenAndTheReverse(t *testing.T) {
	r := RefreshToken{UserID: 1, SessionID: "S", Generation: 7}
	access, refresh := testTokens().Access(johnClaims()), testTokens().Refresh(r)
	refuseAccess(t, "a refresh token", refresh)
	refuseRefresh(t, "an access token", access)

	// Nor the text of one kind under the key of the other.
	refuseRefresh(t, "a refresh token signed with the key of access tokens", "S.1.7."+macOf(testSecret, "S.1.7"))
	m := testTokens().refresh[0].get()
	m.text = append(m.text, encode(ourHeader)+"."+encode(ourPayload)...)
	refuseAccess(t, "an access token signed with the key of refresh tokens", string(m.sign()))
}

// A refresh token is forged from all that its owner, or a thief of the store,
// can know: session, account and generation.
func TestAttackForgedRefreshToken(t *testing.T) {
	for _, token := range []string{
		"", ".", "...", "S", "S.1.7", "S.1.7.", "S.1.7." + encode("S.1.7"), "S.1.7." + macOf("", "S.1.7"),
		"S.1.7." + encode(string(make([]byte, 32))),
		"S.1.7." + encode(fmt.Sprintf("%s", sha256.Sum256([]byte("S.1.7")))),
	} {
		refuseRefresh(t, "forged", token)
	}
	good := testTokens().Refresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 7})
	refuseRefresh(t, "cut", good[:len(good)-1])
	refuseRefresh(t, "with padding", good+"=")
	refuseRefresh(t, "with a line break", good+"\n")
	refuseRefresh(t, "longer than any token", strings.Repeat("S", maxToken)+good)
}

// A small token that becomes a large one ("zip" is a header of JWE alone).
func TestAttackDecompressionBomb(t *testing.T) {
	var small bytes.Buffer
	w, err := flate.NewWriter(&small, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, replaceOnce(t, ourPayload, "{", `{"x":"`+strings.Repeat("x", 1<<20)+`",`))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	refuseAccess(t, "zip", sign(testSecret, `{"alg":"HS256","zip":"DEF"}`, small.String()))
}

// A signed object inside the payload is data, not a token.
func TestAttackNestedToken(t *testing.T) {
	inner := testTokens().Access(johnClaims())
	refuseAccess(t, "a token as the payload", sign(testSecret, `{"alg":"HS256","cty":"JWT"}`, inner))
	refuseAccess(t, "a token as a string", sign(testSecret, `{"alg":"HS256","cty":"JWT"}`, `"`+inner+`"`))
	refuseAccess(t, "the JSON serialization (RFC 7515, section 7.2)", `{"payload":"`+encode(ourPayload)+`","protected":"`+encode(ourHeader)+`","signature":"`+inner[len(inner)-43:]+`"}`)
}

// RFC 7797: a payload that is not base64url, which a reader without b64 would
// not see as such. It needs crit, and we refuse every crit.
func TestAttackUnencodedPayload(t *testing.T) {
	header := encode(`{"alg":"HS256","b64":false,"crit":["b64"]}`)
	signed := header + "." + ourPayload
	refuseAccess(t, "b64 false", signed+"."+macOf(testSecret, signed))
	header = encode(`{"alg":"HS256","b64":false}`)
	signed = header + "." + ourPayload
	refuseAccess(t, "b64 false without crit", signed+"."+macOf(testSecret, signed))
}

// A token without an end, or with an end that a careless reader takes for none.
func TestAttackTokenThatNeverExpires(t *testing.T) {
	for _, exp := range []string{``, `,"exp":0`, `,"exp":-1`, `,"exp":null`, `,"exp":"never"`, `,"exp":1e99`, `,"exp":18446744073709551615`, `,"exp":{}`, `,"exp":""`} {
		payload := replaceOnce(t, ourPayload, `,"exp":1767324845`, exp)
		refuseAccess(t, "exp is "+exp, sign(testSecret, ourHeader, payload))
	}
	token := testTokens().Access(johnClaims())
	if _, err := testTokens().VerifyAccess(token, testNow.Add(100*365*24*time.Hour)); err == nil {
		t.Error("VerifyAccess() accepts a token of a century ago")
	}
}

func refuseRefresh(t *testing.T, attack, token string) {
	t.Helper()
	if r, err := testTokens().VerifyRefresh(token); err == nil {
		t.Errorf("%s: VerifyRefresh(%q) = %+v, want ErrToken", attack, token, r)
	}
}
