package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Password hashes: what one looks like, whose parameters count, and what never
// matches. All but one of these tests use a low cost.

var testHasher = Hasher{Iterations: 1000}

// Made by Python's hashlib: pbkdf2_hmac("sha256", b"secret", b"0123456789abcdef", 1000).
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
		if ok, weak := testHasher.Check(password, phc); !ok || weak {
			t.Errorf("Check(%q, its hash) = %v, %v, want true, false", password, ok, weak)
		}
		for _, other := range []string{"", password + " ", password[1:], password[:len(password)-1], strings.ToUpper(password) + "A"} {
			if ok, weak := testHasher.Check(other, phc); ok || weak {
				t.Errorf("Check(%q, hash of %q) = %v, %v, want false, false", other, password, ok, weak)
			}
		}
	}
}

// No two accounts share a hash, so nobody sees that they share a password, and
// no table made in advance fits.
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
		name     string
		password string
		phc      string
		ok, weak bool
	}{
		{"the cost of today", "secret", hashOfSecret, match, strong},
		{"not ASCII", "größe \U0001F511", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$VI9hOJHcQPq45DZqkB26qS7Pzt8V2wpxzWBD9CVGvEw", match, strong},
		{"a higher cost", "secret", "$pbkdf2-sha256$i=2000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$MNNTwnCaMAYmrmE7v5+nTtN5kMiuSDOXHq5jqsVOVS8", match, strong},
		{"a longer key", "secret", "$pbkdf2-sha256$i=1000,l=64$MDEyMzQ1Njc4OWFiY2RlZg$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl/foRckHfOcAI54QvKaR6xa3uNCirtSqhf67vdhI1arVQ", match, strong},

		// A weak one is replaced at the next login, when the password is at hand.
		{"one iteration, the least there is", "secret", "$pbkdf2-sha256$i=1,l=32$MDEyMzQ1Njc4OWFiY2RlZg$YbpH4MTVriL1J0gKQnQQxyQwQcvFOwk4v2eQkU0Lbag", match, weak},
		{"one iteration less", "secret", "$pbkdf2-sha256$i=999,l=32$MDEyMzQ1Njc4OWFiY2RlZg$XdUCsxllGQ00e9UA9ElSPR2Rj+0KgGDNcdoj3ThxsG8", match, weak},
		{"a shorter key", "secret", "$pbkdf2-sha256$i=1000,l=16$MDEyMzQ1Njc4OWFiY2RlZg$tiKWHy4FAGCWE8gn6GtKhQ", match, weak},
		{"a shorter salt", "secret", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc$gmXJMVhdatNfVsJ9ypeofsgQYGm4+3G7niyjLFz1pDU", match, weak},

		{"a wrong password", "Secret", hashOfSecret, differ, strong},
		{"a wrong password for a weak hash", "Secret", "$pbkdf2-sha256$i=999,l=32$MDEyMzQ1Njc4OWFiY2RlZg$XdUCsxllGQ00e9UA9ElSPR2Rj+0KgGDNcdoj3ThxsG8", differ, strong},
		{"another cost than the key was made with", "secret", strings.Replace(hashOfSecret, "i=1000", "i=1001", 1), differ, strong},
		{"another salt than the key was made with", "secret", strings.Replace(hashOfSecret, "$MD", "$ND", 1), differ, strong},
	} {
		ok, weak := testHasher.Check(test.password, test.phc)
		if ok != test.ok || weak != test.weak {
			t.Errorf("%s: Check(%q, %q) = %v, %v, want %v, %v", test.name, test.password, test.phc, ok, weak, test.ok, test.weak)
		}
	}
}

func TestMalformedHashMatchesNothing(t *testing.T) {
	// The key is always the right one, so that nothing but the form is wrong.
	const salt, key = "MDEyMzQ1Njc4OWFiY2RlZg", "tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl8"
	for _, test := range []struct {
		name, phc string
	}{
		{"the hash of no account", ""},
		{"the password itself", "secret"},
		{"another algorithm", "$pbkdf2-sha512$i=1000,l=32$" + salt + "$" + key},
		{"the algorithm in another case", "$PBKDF2-SHA256$i=1000,l=32$" + salt + "$" + key},
		{"the article's bcrypt", "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"},
		{"argon2", "$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$" + key},

		{"something before", "x$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key},
		{"something behind", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "$"},
		{"a line end", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "\n"},
		{"a part missing", "$pbkdf2-sha256$i=1000,l=32$" + salt},
		{"a part more", "$pbkdf2-sha256$v=1$i=1000,l=32$" + salt + "$" + key},

		{"no cost", "$pbkdf2-sha256$l=32$" + salt + "$" + key},
		{"no length", "$pbkdf2-sha256$i=1000$" + salt + "$" + key},
		{"another parameter", "$pbkdf2-sha256$i=1000,l=32,x=1$" + salt + "$" + key},
		{"the parameters in another order", "$pbkdf2-sha256$l=32,i=1000$" + salt + "$" + key},
		{"a cost without its name", "$pbkdf2-sha256$1000,l=32$" + salt + "$" + key},
		{"a cost with a sign", "$pbkdf2-sha256$i=+1000,l=32$" + salt + "$" + key},
		{"a cost with a leading zero", "$pbkdf2-sha256$i=01000,l=32$" + salt + "$" + key},
		{"a cost in hexadecimal", "$pbkdf2-sha256$i=0x3e8,l=32$" + salt + "$" + key},
		{"a cost of zero", "$pbkdf2-sha256$i=0,l=32$" + salt + "$" + key},
		{"a negative cost", "$pbkdf2-sha256$i=-1000,l=32$" + salt + "$" + key},
		{"a cost that would keep the server busy", "$pbkdf2-sha256$i=6000001,l=32$" + salt + "$6wKIG7IEeY82s+wz15Zal11qYt5WKgXUag2WQfZ2tkg"},
		{"a cost beyond any number", "$pbkdf2-sha256$i=99999999999999999999,l=32$" + salt + "$" + key},
		{"another length than the key's", "$pbkdf2-sha256$i=1000,l=31$" + salt + "$" + key},

		{"no salt", "$pbkdf2-sha256$i=1000,l=32$$p6kS+jPkrCLgm+JMAAwOXmRYf18G94OuMOAM+cnoiXM"},
		{"a salt of 7 bytes", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Ng$7VNtvg8pM6cyiooKy6fYz+j/MrdyQyMZK9lvS8Rc7VY"},
		{"a salt that is not base64", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZ*$" + key},
		{"a salt with padding", "$pbkdf2-sha256$i=1000,l=32$" + salt + "==$" + key},
		{"a salt with a line break", "$pbkdf2-sha256$i=1000,l=32$" + salt[:4] + "\n" + salt[4:] + "$" + key},
		{"a salt with stray bits", "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZh$" + key},

		// An empty key would be the key of every password, a short one of many.
		{"no key", "$pbkdf2-sha256$i=1000,l=0$" + salt + "$"},
		{"a key of 15 bytes", "$pbkdf2-sha256$i=1000,l=15$" + salt + "$tiKWHy4FAGCWE8gn6GtK"},
		{"a key of one byte", "$pbkdf2-sha256$i=1000,l=1$" + salt + "$tg"},
		{"a key of 65 bytes", "$pbkdf2-sha256$i=1000,l=65$" + salt + "$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl/foRckHfOcAI54QvKaR6xa3uNCirtSqhf67vdhI1arVS0"},
		{"a key that is not base64", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$tiKWHy4FAGCWE8gn6GtKhaxD2OeeAUUWXFT/p1aaNl*"},
		{"a key in the alphabet of tokens", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + strings.Replace(key, "/", "_", 1)},
		{"a key with padding", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key + "="},
		{"a key with stray bits", "$pbkdf2-sha256$i=1000,l=32$" + salt + "$" + key[:42] + "9"},
	} {
		for _, password := range []string{"secret", ""} {
			if ok, weak := testHasher.Check(password, test.phc); ok || weak {
				t.Errorf("%s: Check(%q, %q) = %v, %v, want false, false", test.name, password, test.phc, ok, weak)
			}
		}
	}
}

// The greatest cost is read; trying it would take a second.
func TestGreatestCostIsTenTimesTodays(t *testing.T) {
	for iterations, want := range map[int]bool{10 * 600_000: true, 10*600_000 + 1: false} {
		if _, _, _, ok := parsePHC(formatPHC(iterations, make([]byte, 16), make([]byte, 32))); ok != want {
			t.Errorf("parsePHC() of %d iterations is read: %v, want %v", iterations, ok, want)
		}
	}
}

// The attack is called user enumeration: if an unknown name is refused sooner
// than a wrong password, the time of an answer tells which names exist.
func TestUnreadableHashCostsAsMuchAsAnother(t *testing.T) {
	h := Hasher{Iterations: 10_000}
	known := h.Hash("secret")
	hashes := []string{known, "", "secret", "$pbkdf2-sha256$i=1,l=32$$", strings.Replace(known, "$i=", "$i=+", 1)}

	// The quickest of ten each, taken in turns: the machine is not ours alone.
	// What leaks is a factor of thousands; ten is far from both.
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

// HMAC pads its key with zero bytes, so that PBKDF2 cannot tell these passwords
// from "secret". They must not match; nor may what can never be registered.
func TestUnhashablePasswordsNeverMatch(t *testing.T) {
	for _, password := range []string{
		"secret\x00", "secret\x00\x00", "\x00", "s\x00ecret", "secret\xff", "\xed\xa0\x80", "\xc1\xb3ecret",
		strings.Repeat("p", 1025), strings.Repeat("p", 100_000),
	} {
		for _, phc := range []string{hashOfSecret, testHasher.Hash(password)} {
			if ok, weak := testHasher.Check(password, phc); ok || weak {
				t.Errorf("Check(%.20q of %d bytes, %q) = %v, %v, want false, false", password, len(password), phc, ok, weak)
			}
		}
	}
}

func TestRealCostIs600000Iterations(t *testing.T) {
	h := Hasher{Iterations: DefaultIterations}
	phc := h.Hash("secret")
	if !strings.HasPrefix(phc, "$pbkdf2-sha256$i=600000,l=32$") {
		t.Errorf("Hash() = %q, want 600,000 iterations and 32 bytes", phc)
	}
	if ok, weak := h.Check("secret", phc); !ok || weak {
		t.Errorf("Check(its password) = %v, %v, want true, false", ok, weak)
	}
	if ok, weak := h.Check("secret", hashOfSecret); !ok || !weak {
		t.Errorf("Check(a hash of 1,000 iterations) = %v, %v, want true, true", ok, weak)
	}
}

// RFC 7914, section 11: PBKDF2-HMAC-SHA256.
func TestVectorsRFC7914Section11(t *testing.T) {
	for _, test := range []struct {
		password, salt string
		iterations     int
		want           string
	}{
		{"passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc" +
			"49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
		{"Password", "NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56" +
			"a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},
	} {
		got := fmt.Sprintf("%x", derive(test.password, []byte(test.salt), test.iterations, 64))
		if got != test.want {
			t.Errorf("PBKDF2(%q, %q, %d, 64) = %s, want %s", test.password, test.salt, test.iterations, got, test.want)
		}
	}
}
