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
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// This file has the attacks with tokens: forged ones, stolen ones, and those of sessions that have ended.

// TestAttackReregisteredName: the name of a deleted account is registered again. The
// new account inherits nothing, and the old tokens and password stay invalid.
func TestAttackReregisteredName(t *testing.T) {
	again := `DELETE /users/1 as admin ; POST /users/ {"username":"johndoe","password":"correct horse"} ; `
	checkRules(t, []apiRule{
		{"an access token of the deleted account is refused", again + "GET /users/me/ as john", badToken},
		{"a refresh token of the deleted account is refused", again + refresh, wrongRefresh},
		{"the password of the deleted account is refused", again + "POST /token username=johndoe&password=secret", wrongLogin},
		{"introspection returns inactive for a token of the deleted account", again + "POST /introspect as admin token=$john", "200\n" + `{"active":false}`},
		{"the ID of the deleted account is not reused", again + "GET /users/1 as admin", notFound},
	})
}

func TestAttackReplay(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		chain := []string{w.vars["john.refresh"]}
		for range 5 {
			time.Sleep(time.Minute)
			w.vars["next"] = chain[len(chain)-1]
			w.do("POST /token grant_type=refresh_token&refresh_token=$next ; keep access_token as live ; keep refresh_token as next")
			chain = append(chain, w.vars["next"])
		}
		w.vars["old"] = chain[1]
		w.want("a refresh token of four rotations ago", "POST /token grant_type=refresh_token&refresh_token=$old", wrongRefresh)
		for _, w.vars["any"] = range chain {
			w.want("a refresh token of the session after a replay", "POST /token grant_type=refresh_token&refresh_token=$any", wrongRefresh)
		}
		w.want("the access token of the session after a replay", "GET /users/me/ as live", badToken)
		w.wantLog(`level=WARN msg="a refresh token was used again: its session has ended" user=1 ip=192.0.2.1`, 1)
	})
}

// TestAttackRefreshRace: fifty refreshes at once all get the same valid successor.
func TestAttackRefreshRace(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		responses := manyAtOnce(w, 50, func(int) string { return "POST /token grant_type=refresh_token&refresh_token=$john.refresh" })
		distinct := map[string]int{}
		for _, a := range responses {
			distinct[fmt.Sprint(a.status, " ", someRefreshToken.FindString(a.body))]++
		}
		if len(distinct) != 1 || responses[0].status != 200 {
			t.Fatalf("50 refreshes at once return %v\n  want the same successor for all", distinct)
		}
		w.last = responses[0]
		w.want("the successor", "keep refresh_token as next ; wait 1m ; POST /token grant_type=refresh_token&refresh_token=$next", tokens)
	})
}

// TestAttackDeadToken: while a request is held, the session of its caller ends, or the
// account is disabled, deleted or demoted. Wherever the request is held, it changes
// nothing, and gets the response that a new request would get.
func TestAttackDeadToken(t *testing.T) {
	calls := map[string]bool{ // whether the request waits for a hash
		`PATCH /users/me/ as john {"email":"mallory@example.com","current_password":"secret"}`:        false,
		`DELETE /users/me/ as john {"password":"secret"}`:                                             true,
		`PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`: true,
		"DELETE /users/me/sessions as john":                                                           false,
		"DELETE /users/me/sessions/$other.sid as john":                                                false,

		`POST /users/ as boss {"username":"mallory","password":"correct horse"}`: true,
		`PATCH /users/3 as boss {"role":"admin"}`:                                false,
		`PUT /users/3/password as boss {"new_password":"correct horse"}`:         true,
		"DELETE /users/3 as boss":                                                false,
		"DELETE /users/3/sessions as boss":                                       false,
	}
	// Another admin, or the owner of the token, ends its power. AS is the name of the
	// token, and ID the ID of its account.
	ways := []struct {
		what, do string
		status   int
		first    string // before the request begins
	}{
		{"its token is revoked", "POST /revoke token=$AS", 401, ""},
		{"its refresh token is replayed", "POST /token grant_type=refresh_token&refresh_token=$AS.refresh", 401,
			"POST /token grant_type=refresh_token&refresh_token=$AS.refresh ; wait " + refreshGrace.String()},
		{"its password is reset", `PUT /users/ID/password as admin {"new_password":"battery staple"}`, 401, ""},
		{"its account is disabled", `PATCH /users/ID as admin {"disabled":true}`, 400, ""},
		{"its account is disabled and enabled", `PATCH /users/ID as admin {"disabled":true} ; PATCH /users/ID as admin {"disabled":false}`, 401, ""},
		{"its account is deleted", "DELETE /users/ID as admin", 401, ""},
		{"its account is demoted", `PATCH /users/ID as admin {"role":"user"}`, 403, ""},
	}
	for call, hashes := range calls {
		places := []string{"its write 1"}
		if strings.Contains(call, "{") {
			places = append(places, "its body")
		}
		if hashes {
			places = append(places, "its hash")
		}
		as, id := "john", int64(1)
		if strings.Contains(call, " as boss") {
			as, id = "boss", 6
		}
		for _, way := range ways {
			if way.status == 403 && as == "john" {
				continue // who needs not be an admin
			}
			for _, place := range places {
				t.Run(call+" changes nothing if it is held at "+place+" while "+way.what, peopled(func(w *world) {
					w.restart("-registration=closed")
					w.addUser("boss", func(u *User) { u.Role = RoleAdmin })
					w.do("login boss as boss ; login johndoe as other")
					names := strings.NewReplacer("AS", as, "ID", fmt.Sprint(id))
					if way.first != "" {
						w.do(names.Replace(way.first))
					}
					release := w.hold(call, place)
					if place == "its hash" && strings.Contains(way.do, "password") { // which waits for a hash itself
						testedStore{w.memory, w}.update(id, func(u *User) { u.SetPassword(Hasher{1}.Hash("battery staple")) })
					} else if got := w.do(names.Replace(way.do)); w.last.status >= 300 && !strings.Contains(way.do, "refresh_token=") {
						w.Fatalf("%s\n  got %s", way.do, got)
					}
					before := w.contents()
					if got := release(); got.status != way.status {
						w.Errorf("got %s\n  want %d", w.show(got), way.status)
					}
					wantEqual(w, "a dead token has changed the store", w.contents(), before)
				}))
			}
		}
	}
}

// TestAttackAlgorithmNone: the header claims that no signature is needed (RFC 8725,
// section 2.1).
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

// TestAttackAlgorithmConfusion: the token is signed with another algorithm, and with a
// key that is public or has another use (RFC 8725, section 2.1). Here the header
// selects nothing: there is one algorithm.
func TestAttackAlgorithmConfusion(t *testing.T) {
	for _, alg := range []string{
		"HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS512", "EdDSA",
		"HS256 ", "hs256", "HS2560", "HS", "HS256\\u0000", "dir", "A128KW",
	} {
		refuseAccess(t, alg+" over an HS256 MAC", sign(testSecret, `{"alg":"`+alg+`","typ":"JWT"}`, ourPayload))
	}

	// Tokens signed with the algorithm that they name, by our secret or a new key.
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

	// The classic attack: a public key, which everyone has, used as an HMAC key.
	key := need(rsa.GenerateKey(rand.Reader, 2048))(t)
	public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	refuseAccess(t, "HS256 with a public key as the secret", sign(string(public), ourHeader, ourPayload))
}

// TestAttackKeyInTheHeader: a header may carry a key, or its address (RFC 7515, sections
// 4.1.2 to 4.1.6). A server that uses it lets the attacker choose the key, or sends
// requests for the attacker (RFC 8725, section 2.9). This one has its key and reads no
// header.
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

// TestAttackSignatureStripping: the signature is removed, cut, lengthened or invented.
func TestAttackSignatureStripping(t *testing.T) {
	token := testTokens().SignAccess(johnClaims())
	dot := strings.LastIndex(token, ".")
	mac := token[dot+1:]
	for size := range mac {
		refuseAccess(t, fmt.Sprintf("the first %d characters", size), token[:dot+1]+mac[:size])
	}
	for size := range sha256.Size {
		refuseAccess(t, fmt.Sprintf("the first %d bytes", size), token[:dot+1]+encode(decode(t, mac)[:size]))
	}
	refuseAccess(t, "one more byte", token[:dot+1]+encode(decode(t, mac)+"\x00"))
	refuseAccess(t, "the signature twice", token+mac)
	refuseAccess(t, "a signature of zeros", token[:dot+1]+encode(string(make([]byte, sha256.Size))))
	refuseAccess(t, "the signature in hexadecimal", token[:dot+1]+fmt.Sprintf("%x", decode(t, mac)))
	refuseAccess(t, "a plain hash (no key)", token[:dot+1]+encode(fmt.Sprintf("%s", sha256.Sum256([]byte(token[:dot])))))

	// CVE-2022-21449, "psychic signatures": r = s = 0 is valid for careless ECDSA.
	psychic := encode(`{"alg":"ES256","typ":"JWT"}`) + "." + encode(ourPayload)
	refuseAccess(t, "psychic signature", psychic+"."+encode(string(make([]byte, 64))))
	key := need(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	digest := sha256.Sum256([]byte(psychic))
	signature := need(ecdsa.SignASN1(rand.Reader, key, digest[:]))(t)
	refuseAccess(t, "ECDSA with a key of the attacker", psychic+"."+encode(string(signature)))
}

// TestAttackBitFlipping: one byte of the header, the claims or the signature is changed.
func TestAttackBitFlipping(t *testing.T) {
	token := []byte(testTokens().SignAccess(johnClaims()))
	refresh := []byte(testTokens().SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: 7}))
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

// TestAttackSplicing: parts of two valid tokens are joined to a third one.
func TestAttackSplicing(t *testing.T) {
	john, admin := johnClaims(), johnClaims()
	admin.UserID, admin.Username, admin.Role = 2, "admin", RoleAdmin
	a := strings.Split(testTokens().SignAccess(john), ".")
	b := strings.Split(testTokens().SignAccess(admin), ".")
	refuseAccess(t, "the admin's claims under john's signature", a[0]+"."+b[1]+"."+a[2])
	refuseAccess(t, "the admin's claims behind john's", a[0]+"."+a[1]+b[1]+"."+a[2])

	older := strings.Split(testTokens().SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: 1}), ".")
	newer := strings.Split(testTokens().SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: 2}), ".")
	refuseRefresh(t, "an older token with a newer generation", older[0]+"."+older[1]+"."+newer[2]+"."+older[3])

	// A dot that is moved must not yield the same signed text.
	joined := func(id int64, generation int64) string {
		return testTokens().SignRefresh(Claims{UserID: id, SessionID: "S", Generation: generation})
	}
	if x, y := joined(1, 12), joined(11, 2); x[len(x)-43:] == y[len(y)-43:] {
		t.Errorf("the tokens %q and %q have the same MAC", x, y)
	}
}

// TestAttackGuessedSecret: an attacker with one token can try words as its key
// offline (RFC 8725, section 2.2). These are the first words of every list.
func TestAttackGuessedSecret(t *testing.T) {
	words := append(strings.Fields(`secret key jwt password changeme your-256-bit-secret your_jwt_secret
		secretkey mysecret supersecret jwt_secret_key 0123456789abcdef qwerty stdauth`), knownSecrets...)
	for _, word := range words {
		refuseAccess(t, "guessed "+word, sign(word, ourHeader, ourPayload))
		if checkSecret(word) == nil {
			t.Errorf("checkSecret(%q) = nil, want an error", word)
		}
	}
	refuseAccess(t, "our key with one more letter", sign(testSecret+"x", ourHeader, ourPayload))
	refuseAccess(t, "our key in base64", sign(encode(testSecret), ourHeader, ourPayload))
}

// TestAttackOtherEncodings: parsers guess the encoding of JSON (RFC 8725, section 2.6).
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
	refuseAccess(t, "payload in UTF-16 with a byte order mark", sign(testSecret, ourHeader, "\xff\xfe"+utf16le(ourPayload)))
	refuseAccess(t, "header in UTF-16", sign(testSecret, utf16le(ourHeader), ourPayload))
	refuseAccess(t, "payload in UTF-8 with a byte order mark", sign(testSecret, ourHeader, "\xef\xbb\xbf"+ourPayload))
}

// TestAttackSubstitution: a token for another server is sent to this one (RFC 8725,
// section 2.7).
func TestAttackSubstitution(t *testing.T) {
	refuseAccess(t, "a token of a server with another key", NewTokens("stdauth", "another key of thirty-two bytes or so", "").SignAccess(johnClaims()))
	refuseAccess(t, "a token of a server with the same key and another name", NewTokens("billing", testSecret, "").SignAccess(johnClaims()))
	refuseAccess(t, "an ID token for a client of ours", sign(testSecret, ourHeader, replaceOnce(t, ourPayload, `"aud":"stdauth"`, `"aud":"client"`)))
	refuseAccess(t, "a token in the article's form", sign(testSecret, ourHeader, `{"sub":"johndoe","exp":1767324845}`))
}

// TestAttackRefreshTokenAsAccessTokenAndTheReverse: one kind of token is used as the
// other (RFC 8725, section 2.8, cross-JWT confusion).
func TestAttackRefreshTokenAsAccessTokenAndTheReverse(t *testing.T) {
	r := Claims{UserID: 1, SessionID: "S", Generation: 7}
	access, refresh := testTokens().SignAccess(johnClaims()), testTokens().SignRefresh(r)
	refuseAccess(t, "a refresh token", refresh)
	refuseRefresh(t, "an access token", access)

	// The text of one kind is signed with the key of the other.
	refuseRefresh(t, "a refresh token signed with the key of access tokens", "S.1.7."+macOf(testSecret, "S.1.7"))
	m := testTokens().opaque[refreshing][0].Get().(*mac)
	m.text = append(m.text[:0], encode(ourHeader)+"."+encode(ourPayload)...)
	refuseAccess(t, "an access token signed with the key of refresh tokens", string(m.sign()))
}

// TestAttackForgedRefreshToken: a refresh token is forged from everything that its
// owner, or a thief of the store, knows: session, account and generation.
func TestAttackForgedRefreshToken(t *testing.T) {
	for _, token := range []string{
		"", ".", "...", "S", "S.1.7", "S.1.7.", "S.1.7." + encode("S.1.7"), "S.1.7." + macOf("", "S.1.7"),
		"S.1.7." + encode(string(make([]byte, 32))),
		"S.1.7." + encode(fmt.Sprintf("%s", sha256.Sum256([]byte("S.1.7")))),
	} {
		refuseRefresh(t, "forged", token)
	}
	good := testTokens().SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: 7})
	refuseRefresh(t, "cut", good[:len(good)-1])
	refuseRefresh(t, "with padding", good+"=")
	refuseRefresh(t, "with a line break", good+"\n")
	refuseRefresh(t, "longer than any token", strings.Repeat("S", maxToken)+good)
}

// TestAttackDecompressionBomb: a small token decompresses to a large one. "zip" is a
// header of JWE alone (RFC 7516, section 4.1.3).
func TestAttackDecompressionBomb(t *testing.T) {
	var small bytes.Buffer
	w := need(flate.NewWriter(&small, flate.BestCompression))(t)
	fmt.Fprint(w, replaceOnce(t, ourPayload, "{", `{"x":"`+strings.Repeat("x", 1<<20)+`",`))
	noError(t, w.Close())
	refuseAccess(t, "zip", sign(testSecret, `{"alg":"HS256","zip":"DEF"}`, small.String()))
}

// TestAttackNestedToken: a signed token inside the payload is data, not a token.
func TestAttackNestedToken(t *testing.T) {
	inner := testTokens().SignAccess(johnClaims())
	refuseAccess(t, "a token as the payload", sign(testSecret, `{"alg":"HS256","cty":"JWT"}`, inner))
	refuseAccess(t, "a token as a string", sign(testSecret, `{"alg":"HS256","cty":"JWT"}`, `"`+inner+`"`))
	refuseAccess(t, "the JSON serialization (RFC 7515, section 7.2)", `{"payload":"`+encode(ourPayload)+`","protected":"`+encode(ourHeader)+`","signature":"`+inner[len(inner)-43:]+`"}`)
}

// TestAttackUnencodedPayload: a payload without base64url, which a parser that ignores
// b64 would decode. RFC 7797 requires crit for it, and every crit is refused.
func TestAttackUnencodedPayload(t *testing.T) {
	header := encode(`{"alg":"HS256","b64":false,"crit":["b64"]}`)
	signed := header + "." + ourPayload
	refuseAccess(t, "b64 false", signed+"."+macOf(testSecret, signed))
	header = encode(`{"alg":"HS256","b64":false}`)
	signed = header + "." + ourPayload
	refuseAccess(t, "b64 false without crit", signed+"."+macOf(testSecret, signed))
}

// TestAttackTokenThatNeverExpires: exp is missing, or careless parsers take it for missing.
func TestAttackTokenThatNeverExpires(t *testing.T) {
	for _, exp := range []string{``, `,"exp":0`, `,"exp":-1`, `,"exp":null`, `,"exp":"never"`, `,"exp":1e99`, `,"exp":18446744073709551615`, `,"exp":{}`, `,"exp":""`} {
		payload := replaceOnce(t, ourPayload, `,"exp":1767324845`, exp)
		refuseAccess(t, "the last claim is "+exp, sign(testSecret, ourHeader, payload))
	}
	token := testTokens().SignAccess(johnClaims())
	if _, err := testTokens().VerifyAccess(token, testNow.Add(100*365*24*time.Hour)); err == nil {
		t.Error("VerifyAccess() accepts a token that expired a century ago")
	}
}

// TestAttackDeadTokenOverHTTP is TestAttackDeadToken over sockets, with HTTP/1 and
// HTTP/2 and a file: the token is revoked before the body is complete.
func TestAttackDeadTokenOverHTTP(t *testing.T) {
	t.Parallel()
	hash := Hasher{Iterations: 1}.Hash("secret")
	cert, key := writeCertificate(t)
	for _, args := range [][]string{nil, {"-tls-cert", cert, "-tls-key", key}} {
		file := filepath.Join(t.TempDir(), "users.jsonl")
		writeAccounts(t, file, User{Username: "root", Role: RoleAdmin, PasswordHash: hash}, User{Username: "ada", Role: RoleUser, PasswordHash: hash})
		s := launch(t, append(args, "-store", file), "SECRET_KEY="+settingsKey)
		for _, call := range []struct{ method, path, body string }{
			{"PATCH", "/users/2", `{"role":"admin"}`},
			{"PUT", "/users/2/password", `{"new_password":"correct horse"}`},
			{"PATCH", "/users/me/", `{"full_name":"Mallory"}`},
		} {
			token := s.login("root")
			want := s.do("GET", "/users/", token, "").body
			body, rest := io.Pipe()
			r := need(http.NewRequestWithContext(t.Context(), call.method, s.url+call.path, body))(t)
			r.ContentLength = int64(len(call.body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+token)
			responses := make(chan *http.Response, 1)
			go func() {
				resp, err := s.client().Do(r)
				if err != nil {
					t.Error(err)
				}
				responses <- resp
			}()
			io.WriteString(rest, call.body[:1])
			time.Sleep(20 * time.Millisecond) // for a server that would admit the caller now
			s.do("POST", "/revoke", "", "token="+token)
			io.WriteString(rest, call.body[1:])
			rest.Close()
			resp := <-responses
			if resp == nil {
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s %s with a token that was revoked before the last byte arrived = %d, want 401", resp.Proto, call.method, call.path, resp.StatusCode)
			}
			wantEqual(t, fmt.Sprintf("%s: the accounts after %s %s with a dead token", resp.Proto, call.method, call.path), s.do("GET", "/users/", s.login("root"), "").body, want)
		}
		s.stop()
	}
}

func refuseAccess(t *testing.T, attack, token string) {
	t.Helper()
	if c, err := testTokens().VerifyAccess(token, testNow); err == nil {
		t.Errorf("%s: VerifyAccess(%q) = %+v, want ErrToken", attack, token, c)
	}
}

func refuseRefresh(t *testing.T, attack, token string) {
	t.Helper()
	if r, err := testTokens().VerifyRefresh(token); err == nil {
		t.Errorf("%s: VerifyRefresh(%q) = %+v, want ErrToken", attack, token, r)
	}
}
