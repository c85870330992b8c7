package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// Properties of the cryptography over arbitrary input. The corpora are in
// testdata/fuzz; run one further with: go test -fuzz FuzzClaims

// Property: no text makes a verifier panic; an accepted one has a MAC that the
// key alone can make, is one kind of token only, and has no other spelling.
func FuzzVerifyAccess(f *testing.F) {
	f.Fuzz(func(t *testing.T, token string) {
		tokens := testTokens()
		_, accessErr := tokens.VerifyAccess(token, testNow)
		r, refreshErr := tokens.VerifyRefresh(token)
		if accessErr == nil && refreshErr == nil {
			t.Fatalf("%q passes for both kinds of token", token)
		}
		if refreshErr == nil && tokens.Refresh(r) != token {
			t.Errorf("VerifyRefresh(%q) = %+v, which is signed as %q", token, r, tokens.Refresh(r))
		}
		if accessErr != nil {
			return
		}
		part := strings.Split(token, ".")
		if len(part) != 3 || len(token) > 4096 {
			t.Fatalf("VerifyAccess(%q) accepts %d parts, %d bytes", token, len(part), len(token))
		}
		if want := sign(testSecret, decode(t, part[0]), decode(t, part[1])); token != want {
			t.Errorf("VerifyAccess(%q) accepts it, but its texts are signed as %q", token, want)
		}
	})
}

// Property: a header and a payload signed with the right key are accepted only if
// they are what this server writes for the claims that encoding/json reads there.
func FuzzClaims(f *testing.F) {
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := sign(testSecret, header, payload)
		got, err := testTokens().VerifyAccess(token, testNow)
		if err != nil {
			return
		}
		var c struct {
			Iss, Aud, Sub, Sid, Username, Role string
			Iat, Exp                           int64
		}
		d := json.NewDecoder(strings.NewReader(payload))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil || c.Iss != "stdauth" || c.Aud != "stdauth" {
			t.Fatalf("VerifyAccess() accepts the payload %q, which encoding/json reads as %+v, %v", payload, c, err)
		}
		id, err := strconv.ParseInt(c.Sub, 10, 64)
		if want := (Claims{id, c.Sid, c.Username, Role(c.Role), c.Iat, c.Exp}); got != want || err != nil {
			t.Errorf("VerifyAccess() of %q = %+v, but encoding/json reads %+v", payload, got, want)
		}
		if testTokens().Access(got) != token {
			t.Errorf("VerifyAccess() accepts %q, but its claims are signed as %q", token, testTokens().Access(got))
		}
		if now := testNow.Unix(); now >= c.Exp || c.Iat > now+30 {
			t.Errorf("VerifyAccess() accepts %q at %d", payload, now)
		}
	})
}

// Property: a password hash that is read has one spelling, and parameters that
// neither panic, nor match every password, nor keep the server busy.
func FuzzPHC(f *testing.F) {
	f.Fuzz(func(t *testing.T, phc string) {
		iterations, salt, key, ok := parsePHC(phc)
		if !ok {
			if match, _ := (Hasher{Iterations: 1}).Check("secret", phc); match {
				t.Errorf("Check(secret, %q) = true, though parsePHC refuses it", phc)
			}
			return
		}
		if again := formatPHC(iterations, salt, key); again != phc {
			t.Errorf("parsePHC(%q) is written as %q", phc, again)
		}
		if iterations < 1 || iterations > 6_000_000 || len(salt) < 8 || len(key) < 16 || len(key) > 64 {
			t.Errorf("parsePHC(%q) = %d iterations, %d bytes of salt, %d of key", phc, iterations, len(salt), len(key))
		}
	})
}
