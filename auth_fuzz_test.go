package main

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// Property: a header and a payload, rightly signed, are accepted only if
// encoding/json reads the same in them; and readOwn, the quick road, accepts
// nothing that readClaims would not read alike.
func FuzzClaims(f *testing.F) {
	f.Fuzz(func(t *testing.T, header, payload string) {
		tokens := testTokens()
		own, ownNotBefore, ok := tokens.readOwn(payload)
		read, notBefore, err := tokens.readClaims([]byte(payload))
		if ok && (err != nil || !cmp.Equal(own, read) || ownNotBefore != notBefore) {
			t.Errorf("readOwn(%q) = %+v, but readClaims = %+v, %v", payload, own, read, err)
		}
		got, err := tokens.VerifyAccess(sign(testSecret, header, payload), testNow)
		if err != nil {
			return
		}

		var h struct {
			Alg  string
			Crit any
		}
		if err := json.Unmarshal([]byte(header), &h); err != nil || h.Alg != "HS256" || h.Crit != nil {
			t.Errorf("VerifyAccess() accepts the header %q, which encoding/json reads as %+v, %v", header, h, err)
		}
		var c struct {
			Iss, Sub, Sid, Username, Role string
			Aud                           any
			Iat, Exp, Nbf                 *float64
		}
		if err := json.Unmarshal([]byte(payload), &c); err != nil || c.Iat == nil || c.Exp == nil {
			t.Fatalf("VerifyAccess() accepts the payload %q, which encoding/json reads as %+v, %v", payload, c, err)
		}
		list, _ := c.Aud.([]any)
		if c.Iss != "stdauth" || c.Aud != "stdauth" && !slices.Contains(list, any("stdauth")) {
			t.Errorf("VerifyAccess() accepts %q of iss %q, aud %v", payload, c.Iss, c.Aud)
		}
		now := float64(testNow.Unix())
		if now >= *c.Exp || *c.Iat > now+30 || c.Nbf != nil && *c.Nbf > now+30 {
			t.Errorf("VerifyAccess() accepts %q at %f", payload, now)
		}
		want := Claims{UserID: got.UserID, SessionID: c.Sid, Username: c.Username, Role: Role(c.Role), IssuedAt: got.IssuedAt, ExpiresAt: got.ExpiresAt}
		near := func(got int64, want float64) bool { return math.Abs(float64(got)-want) <= 1 }
		if got != want || !near(got.IssuedAt.Unix(), *c.Iat) || !near(got.ExpiresAt.Unix(), *c.Exp) || c.Sub != strconv.FormatInt(got.UserID, 10) {
			t.Errorf("VerifyAccess() of %q = %+v, but encoding/json reads %+v", payload, got, c)
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
