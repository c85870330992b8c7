package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
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
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// This file has the attacks by name. The tables of handlers_test.go show the
// response to a wrong request; these tests show that an attacker gains nothing.

func TestAttackMassAssignment(t *testing.T) {
	for _, field := range []string{`"role":"admin"`, `"Role":"admin"`, `"id":1`, `"disabled":false`, `"password_hash":"x"`, `"epoch":1`, `"created_at":"1999-01-01T00:00:00Z"`, `"is_admin":true`, `"role\u0000":"admin"`, `"\u0072ole":"admin"`} {
		t.Run("the member "+field+" is refused", func(t *testing.T) {
			inPeopledWorld(t, func(w *world) {
				for _, call := range []string{
					`POST /users/ {"username":"mallory","password":"correct horse",` + field + `}`,
					`PATCH /users/me/ as john {"full_name":"J",` + field + `}`,
				} {
					if got := w.do(call); !strings.HasPrefix(got, "422\n") {
						t.Errorf("%s\n  got %s\n  want 422", call, got)
					}
				}
				if got := w.do("GET /users/1 as admin"); got != "200\n"+john {
					t.Errorf("after the attack, johndoe is %s\n  want %s", got, john)
				}
				if got := w.do("POST /token username=mallory&password=correct+horse"); got != wrongLogin {
					t.Errorf("after the attack, the login of mallory returns %s\n  want no such account", got)
				}
			})
		})
	}
}

// TestAttackJSONSmuggling: two parsers must not read one body in two ways.
func TestAttackJSONSmuggling(t *testing.T) {
	checkRules(t, []apiRule{
		{"a repeated field is refused", `POST /users/ {"username":"mallory","password":"correct horse","password":"battery staple"}`, invalidFields("password is given more than once")},
		{"a field that is repeated with an escape in its name is refused", `POST /users/ {"username":"mallory","password":"correct horse","p\u0061ssword":"battery staple"}`, invalidFields("password is given more than once")},
		{"a repeated field is refused even if the first is null", `PATCH /users/me/ as john {"email":null,"email":"m@example.com","current_password":"secret"}`, invalidFields("email is given more than once")},
		{"a field name in another case is refused", `POST /users/ {"username":"mallory","password":"correct horse","PASSWORD":"battery staple"}`, invalidFields("PASSWORD is not a field of this request")},
		{"a field name with the long s, which folds to s, is refused", `POST /users/ {"uſername":"mallory","password":"correct horse"}`, invalidFields("uſername is not a field of this request", "username is required")},
		{"a lone high surrogate, which other parsers replace, is refused", `POST /users/ {"username":"mallory","password":"correct horse\ud800"}`, invalidFields("password must not contain U+FFFD or half of a surrogate pair")},
		{"a surrogate pair in the wrong order is refused", `POST /users/ {"username":"mallory","password":"correct horse\udc00\ud800"}`, invalidFields("password must not contain U+FFFD or half of a surrogate pair")},
		{"an escaped backslash before ud800 is not a surrogate", `POST /users/ {"username":"alice","password":"correct horse\\ud800"} ; POST /token username=alice&password=correct+horse\ud800`, tokens},
		{"a surrogate pair is one character", `POST /users/ {"username":"alice","password":"correct \ud83d\udc0e"} ; POST /token username=alice&password=correct+%F0%9F%90%8E`, tokens},
		{"a password with NUL, which the padding of HMAC hides, is refused", `POST /users/ {"username":"mallory","password":"correct horse\u0000"}`, invalidFields("password must be valid UTF-8 without NUL and U+FFFD")},
		{"a comment in JSON is refused", `POST /users/ {"username":"mallory",/**/"password":"correct horse"}`, refusal(400, "not_json", "The body is not JSON: invalid character '/' looking for beginning of object key string (byte 23)")},
		{"a second object after the first is refused", `POST /users/ {"username":"mallory","password":"correct horse"} {"role":"admin"}`, refusal(400, "not_json", "The body is not JSON: invalid character '{' after top-level value (byte 51)")},
		{"a byte order mark is refused", "POST /users/ \ufeff{}", refusal(400, "not_json", "The body is not JSON: invalid character 'ï' looking for beginning of value (byte 1)")},
		{"20000 nested arrays are refused", `PATCH /users/me/ as john {"email":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}", refusal(400, "not_json", "The body is not JSON: invalid character '[' exceeded max depth (byte 10009)")},
		{"an object in place of a string is refused", `POST /users/ {"username":{"ne":null},"password":{"ne":null}}`, invalidFields("username must be a string", "password must be a string")},
	})
}

func TestAttackParameterPollution(t *testing.T) {
	checkRules(t, []apiRule{
		{"a repeated password is refused", "POST /token username=johndoe&password=secret&password=guess", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"a username that is repeated with percent-encoding in its name is refused", "POST /token username=johndoe&%75sername=admin&password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"a repeated grant_type is refused", "POST /token grant_type=password&grant_type=refresh_token&username=johndoe&password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"a semicolon as a separator is refused", "POST /token username=johndoe;password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "The body is not a valid form")},
		{"the name of a form field is case-sensitive", "POST /token username=johndoe&PASSWORD=guess&password=secret", tokens},
		{"password[], an array in PHP, is not the field password", "POST /token username=johndoe&password[]=secret", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: password")},
		{"the query is not a part of the form", "POST /token?grant_type=refresh_token username=johndoe&password=secret", tokens},
		{"a token in the body is not a credential", `GET /users/me/ with "Content-Type: application/x-www-form-urlencoded" access_token=$john`, noCredentials},
	})
}

func TestAttackTokenConfusion(t *testing.T) {
	checkRules(t, []apiRule{
		{"a refresh token is refused as an access token", "GET /users/me/ as john.refresh", badToken},
		{"an access token is refused as a refresh token", "POST /token grant_type=refresh_token&refresh_token=$john", wrongRefresh},
		{"a token with the algorithm none is refused", `GET /users/me/ with "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIyIn0."`, badToken},
		{"a request with a valid and an invalid token is refused", `GET /users/me/ with "Authorization: Bearer $john" with "Authorization: Bearer x"`, refusal(400, "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)},
		{"a token of 5000 bytes is refused", `GET /users/me/ with "Authorization: Bearer ` + strings.Repeat("a", 5000) + `"`, badToken},
	})
	inPeopledWorld(t, func(w *world) {
		// Each character of a token counts, even the last, whose low bits belong to
		// no byte.
		for name, endpoint := range map[string]string{"john": "GET /users/me/ as forged", "john.refresh": "POST /token grant_type=refresh_token&refresh_token=$forged"} {
			token := w.vars[name]
			for i := range token {
				b := []byte(token)
				b[i] ^= 1
				if strings.IndexByte("&%+;=, /\\", b[i]) >= 0 { // a separator in a form or a header
					b[i] = 'x'
				}
				w.vars["forged"] = string(b)
				if got := w.do(endpoint); !strings.Contains(got, "invalid") {
					t.Fatalf("%s with byte %d of %s changed\n  got %s", endpoint, i, name, got)
				}
			}
		}
	})
}

// TestAttackReregisteredName: the name of a deleted account is registered again. The
// new account inherits nothing, and the old tokens and password stay invalid.
func TestAttackReregisteredName(t *testing.T) {
	again := `DELETE /users/1 as admin ; POST /users/ {"username":"johndoe","password":"correct horse"} ; `
	checkRules(t, []apiRule{
		{"an access token of the deleted account is refused", again + "GET /users/me/ as john", badToken},
		{"a refresh token of the deleted account is refused", again + "POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
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
		if got := w.do("POST /token grant_type=refresh_token&refresh_token=$old"); got != wrongRefresh {
			t.Errorf("a refresh token of four rotations ago\n  got %s\n  want %s", got, wrongRefresh)
		}
		for i, token := range chain {
			w.vars["any"] = token
			if got := w.do("POST /token grant_type=refresh_token&refresh_token=$any"); got != wrongRefresh {
				t.Errorf("refresh token %d of the session after a replay\n  got %s\n  want %s", i, got, wrongRefresh)
			}
		}
		if got := w.do("GET /users/me/ as live"); got != badToken {
			t.Errorf("the access token of the session after a replay\n  got %s\n  want %s", got, badToken)
		}
		if log := w.log.String(); !strings.Contains(log, "used again") || !strings.Contains(log, "user=1") {
			t.Errorf("the log does not have the replay: %s", log)
		}
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
		if got := w.do("keep refresh_token as next ; wait 1m ; POST /token grant_type=refresh_token&refresh_token=$next"); got != tokens {
			t.Errorf("the successor: got %s\n  want %s", got, tokens)
		}
	})
}

// TestAttackRegistrationRace: fifty registrations of one name at once create one account.
func TestAttackRegistrationRace(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		statuses := map[int]int{}
		for _, a := range manyAtOnce(w, 50, func(i int) string {
			return fmt.Sprintf(`POST /users/ from 192.0.2.%d {"username":"%s","password":"correct horse"}`, i, []string{"alice", "Alice", "ALICE"}[i%3])
		}) {
			statuses[a.status]++
		}
		if statuses[201] != 1 || statuses[400] != 49 {
			t.Errorf("50 registrations of one name at once return %v, want one 201 and 49 times 400", statuses)
		}
	})
}

// TestAttackLastAdminRace: if two admins demote and disable each other at once, one stays.
func TestAttackLastAdminRace(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(`PATCH /users/1 as admin {"role":"admin"}`)
		statuses := map[int]int{}
		for _, a := range manyAtOnce(w, 2, func(i int) string {
			return []string{`PATCH /users/1 as admin {"role":"user"}`, `PATCH /users/2 as john {"disabled":true}`}[i]
		}) {
			statuses[a.status]++
		}
		users, _ := w.store.Users(w.Context(), UserFilter{}, 0, 10)
		if count := len(slices.DeleteFunc(users, func(u User) bool { return u.Role != RoleAdmin || u.Disabled })); count != 1 {
			t.Errorf("after two admins demoted and disabled each other: %d active admins and the statuses %v; want one admin", count, statuses)
		}
	})
}

// TestAttackUserEnumeration: the response to a failed login is the same to the byte,
// with all headers, whether the account exists or not.
func TestAttackUserEnumeration(t *testing.T) {
	calls := []string{
		"POST /token username=johndoe&password=guess",
		"POST /token username=nobody&password=guess",
		"POST /token username=dora&password=guess", // disabled
		"POST /token username=dave&password=guess", // deleted
		"POST /token username=no+name+at+all&password=guess",
	}
	inPeopledWorld(t, func(w *world) {
		var want string
		for _, call := range calls {
			a := w.send(w.Context(), call)
			a.header.Del("X-Request-Id")
			got := fmt.Sprint(a.status, a.header, a.body)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s\n  got  %s\n  want %s\n  as for every other", call, got, want)
			}
		}
	})

	// Each response takes one key derivation, which costs far more than everything
	// else. The shortest of several runs is free of other load, and the loop ends when
	// the shortest times are close. A response without a derivation, or with two, never
	// comes close.
	t.Run("a failed login takes the same time for every username", func(t *testing.T) {
		w := loudWorld(t, 20_000)
		least := map[string]time.Duration{}
		quotient := map[string]float64{}
		for run := range 60 {
			for _, call := range calls {
				start := time.Now() // from another address each time, which avoids the throttle
				a := w.send(w.Context(), strings.Replace(call, "/token", fmt.Sprintf("/token from 198.51.100.%d", run), 1))
				if took := time.Since(start); least[call] == 0 || took < least[call] {
					least[call] = took
				}
				if a.status != 401 {
					t.Fatalf("%s\n  got %s", call, w.show(a))
				}
			}
			alike := run >= 3
			for _, call := range calls {
				quotient[call] = float64(least[call]) / float64(least[calls[0]])
				alike = alike && 0.7 < quotient[call] && quotient[call] < 1.4
			}
			if alike {
				return
			}
		}
		t.Errorf("failed logins take %v, in parts of the first: %v\n  want the same time for all", least, quotient)
	})
}

// BenchmarkUserEnumeration reports the medians. They should differ no more than two
// runs of one of them do.
func BenchmarkUserEnumeration(b *testing.B) {
	w := loudWorld(b, DefaultIterations)
	times := map[string][]float64{}
	n := 0
	for b.Loop() {
		for _, name := range []string{"johndoe", "nobody", "dora"} {
			n++
			start := time.Now()
			w.send(b.Context(), fmt.Sprintf("POST /token from 2001:db8:%x:%x::1 username=%s&password=guess", n>>16, n&0xffff, name))
			times[name] = append(times[name], time.Since(start).Seconds()*1e3)
		}
	}
	for name, list := range times {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], name+"-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// TestAttackSecretsInLogs: the log, at its most verbose level, and the responses hold
// no secret. Every test of the API searches for secrets. This one adds requests whose
// secrets occur in no other test, and shows that the search finds each kind of leak.
func TestAttackSecretsInLogs(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		for _, call := range []string{
			"POST /token username=johndoe&password=a-wrong-password",
			"POST /token username=a-password-by-mistake&password=x",
			"POST /token username=johndoe&password=half-%zz-a-form",
			"GET /users/me/?access_token=$john",
			"GET /a-secret-in-the-path/$jane.refresh",
			`GET /users/me/ with "Authorization: Bearer a-forged-token"`,
			`GET /users/me/ with "Authorization: Basic am9obmRvZTphLXdyb25nLXBhc3N3b3Jk"`,
			`GET /users/me/ with "Cookie: session=a-secret-cookie"`,
			`POST /users/ {"username":"alice","password":"a-broken-body`,
			`POST /users/ {"username":"alice","password":"password1"}`,
			`PUT /users/me/password as john {"current_password":"a-wrong-password","new_password":"a-good-new-password"}`,
			`GET /healthz with "X-Request-Id: a-secret-request-id"`,
			"store fails", "POST /token username=johndoe&password=secret", "GET /readyz", "store works",
		} {
			w.obey(call)
		}
		w.note("a-wrong-password", "half-", "a-forged-token", "am9obmRvZTphLXdyb25nLXBhc3N3b3Jk", "a-secret", "a-broken-body", "a-good-new-password", "a-password-by-mistake")
		if log := w.log.String(); strings.Count(log, "msg=request") < 15 {
			t.Errorf("the log has no line for each request: %s", log)
		}
	})
	for what, leak := range map[string]func(w *world){
		"a password in the log": func(w *world) { w.server.log.Debug("login", "with", "correct horse") },
		"a hash in the log":     func(w *world) { u, _ := w.store.User(w.Context(), 1); w.server.log.Debug("user", "is", u) },
		"a key in the log":      func(w *world) { w.server.log.Debug("started", "key", testKey) },
		"a token in the log":    func(w *world) { w.server.log.Debug("token", "is", w.vars["john.refresh"]) },
		"a query in the log": func(w *world) {
			w.send(w.Context(), "GET /healthz?color=green")
			w.server.log.Debug("GET /healthz?color=green")
		},
		"a password in a response": func(w *world) { w.send(w.Context(), `GET /healthz with "X-Request-Id: x"`).body = "correct horse" },
		"a token in a response":    func(w *world) { w.send(w.Context(), "GET /healthz").header.Set("X-Was", w.vars["john"]) },
	} {
		if !fails(t, func(w *world) {
			w.login("john", "johndoe", "secret")
			w.send(w.Context(), `POST /users/ {"username":"alice","password":"correct horse"}`)
			leak(w)
			w.searchForSecrets()
		}) {
			t.Errorf("the search does not find %s", what)
		}
	}
}

func TestAttackCORSOrigin(t *testing.T) {
	for _, tt := range []struct {
		origin  string
		allowed bool
	}{
		{"http://localhost", true},
		{"http://localhost:3000", true},
		{"http://127.0.0.1:65535", true},
		{"https://app.example", true},

		{"null", false},
		{"*", false},
		{"http://localhost.evil.example", false},
		{"http://localhost:3000.evil.example", false},
		{"http://localhost:3000@evil.example", false},
		{"http://localhost:evil", false},
		{"http://localhost:", false},
		{"http://localhost:-1", false},
		{"http://localhost:65536", false},
		{"http://localhost:3000/", false},
		{"http://localhost:*", false},
		{"https://localhost:3000", false},
		{"http://evil-localhost:3000", false},
		{"http://127.0.0.1.evil.example", false},
		{"http://[::1]:3000", false},
		{"https://app.example.evil.example", false},
		{"https://app.example:8443", false},
		{"http://app.example", false},
		{"https://sub.app.example", false},
		{"https://evilapp.example", false},
		{"https://appXexample", false},
		{"https://app.example, https://evil.example", false},
		{"3000", false},
	} {
		verdict := "refused"
		if tt.allowed {
			verdict = "allowed"
		}
		t.Run("the origin "+tt.origin+" is "+verdict, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.restart("-cors-origin=http://localhost:*", "-cors-origin=http://127.0.0.1:*", "-cors-origin=https://app.example")
				for _, call := range []string{"GET /healthz", `OPTIONS /users/me/ with "Access-Control-Request-Method: PATCH"`} {
					a := w.send(w.Context(), call+fmt.Sprintf(" with %q", "Origin: "+tt.origin))
					want := ""
					if tt.allowed {
						want = tt.origin
					}
					if got := a.header.Get("Access-Control-Allow-Origin"); got != want {
						t.Errorf("%s\n  got Access-Control-Allow-Origin: %q\n  want %q", a.call, got, want)
					}
					if a.header.Get("Access-Control-Allow-Credentials") != "" {
						t.Errorf("%s\n  got Access-Control-Allow-Credentials, want none: there are no cookies", a.call)
					}
				}
			})
		})
	}
}

// TestAttackForwardedFor: an address that the client invented is never used.
func TestAttackForwardedFor(t *testing.T) {
	for _, tt := range []struct {
		rule, peer, forwarded, want string
	}{
		{"without a trusted proxy X-Forwarded-For is ignored", "198.51.100.1", "203.0.113.5", "198.51.100.1"},

		{"the address from a trusted proxy is used", "10.0.0.1", "203.0.113.5", "203.0.113.5"},
		{"an address that the client sent before that of the proxy is ignored", "10.0.0.1", "1.1.1.1, 203.0.113.5", "203.0.113.5"},
		{"two trusted proxies in a row are skipped", "10.0.0.1", "1.1.1.1, 203.0.113.5, 10.0.0.2", "203.0.113.5"},
		{"two X-Forwarded-For headers are read as one list", "10.0.0.1", "1.1.1.1, 203.0.113.5\n10.0.0.2", "203.0.113.5"},
		{"a client cannot pretend to be a trusted proxy", "10.0.0.1", "1.1.1.1, 10.0.0.9, 203.0.113.5", "203.0.113.5"},
		{"a list of trusted proxies alone yields the first of them", "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"an invalid last address yields the address of the proxy", "10.0.0.1", "203.0.113.5, rubbish", "10.0.0.1"},
		{"an invalid address before a proxy yields that proxy", "10.0.0.1", "rubbish, 10.0.0.2", "10.0.0.2"},
		{"an empty X-Forwarded-For yields the address of the proxy", "10.0.0.1", "", "10.0.0.1"},
		{"an IPv6 address is used", "10.0.0.1", "2001:db8::5", "2001:db8::5"},
		{"the port of an IPv4 address is ignored", "10.0.0.1", "203.0.113.5:1234, 10.0.0.2:80", "203.0.113.5"},
		{"the port of an IPv6 address is ignored", "10.0.0.1", "[2001:db8::5]:1234", "2001:db8::5"},
		{"the brackets of an IPv6 address without a port are ignored", "10.0.0.1", "[2001:db8::5]", "2001:db8::5"},
		{"the zone of an IPv6 address is ignored", "10.0.0.1", "fe80::1%eth0", "fe80::1"},
		{"an IPv4-mapped IPv6 address is the IPv4 address", "10.0.0.1", "::ffff:203.0.113.5", "203.0.113.5"},
		{"a trusted proxy may have an IPv4-mapped IPv6 address", "::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"},
		{"an address from a peer that is not a trusted proxy is ignored", "198.51.100.1", "203.0.113.5", "198.51.100.1"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if strings.HasPrefix(tt.rule, "without a trusted proxy") {
					w.restart("-demo=false")
				} else {
					w.restart("-trusted-proxy=10.0.0.0/8")
				}
				words := []string{"POST /token from", tt.peer}
				for line := range strings.SplitSeq(tt.forwarded, "\n") {
					words = append(words, fmt.Sprintf("with %q", "X-Forwarded-For: "+line))
				}
				for _, other := range []string{"X-Real-Ip", "Forwarded", "True-Client-Ip", "Cf-Connecting-Ip"} {
					words = append(words, fmt.Sprintf("with %q", other+": 1.2.3.4"))
				}
				call := strings.Join(words, " ")
				w.do(call + " username=johndoe&password=secret ; keep access_token as john ; GET /users/me/sessions as john")
				if !strings.Contains(w.last.body, `"ip":"`+tt.want+`"`) {
					t.Errorf("%s\n  got  %s\n  want the address %s", call, w.last.body, tt.want)
				}
				if log := w.log.String(); !strings.Contains(log, "ip="+tt.want+" ") {
					t.Errorf("%s\n  got the log %s\n  want the address %s", call, log, tt.want)
				}
			})
		})
	}

	t.Run("a new X-Forwarded-For for each login does not avoid the throttle", func(t *testing.T) {
		inWorld(t, func(w *world) {
			for i := range 6 {
				w.do(fmt.Sprintf(`POST /token with "X-Forwarded-For: 203.0.113.%d" username=johndoe&password=guess`, i))
			}
			if w.last.status != 429 {
				t.Errorf("the sixth guess, each with another X-Forwarded-For\n  got %s\n  want 429", w.show(w.last))
			}
		})
	})
}

func TestAttackRequestID(t *testing.T) {
	for _, tt := range []struct {
		rule, from, id string
		kept           bool
	}{
		{"a request ID from a client is replaced", "198.51.100.1", "my-id", false},
		{"a request ID from a trusted proxy is kept", "10.0.0.1", "4f9c-1", true},
		{"a request ID with a line break is replaced", "10.0.0.1", "a\nlevel=ERROR", false},
		{"a request ID with an equals sign, which separates fields in the log, is replaced", "10.0.0.1", "a=b", false},
		{"a request ID with markup is replaced", "10.0.0.1", "<b>", false},
		{"a request ID of 65 bytes is replaced", "10.0.0.1", strings.Repeat("a", 65), false},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.restart("-trusted-proxy=10.0.0.0/8")
				a := w.send(w.Context(), fmt.Sprintf("GET /nowhere from %s with %q", tt.from, "X-Request-Id: "+tt.id))
				if got := a.header.Get("X-Request-Id"); (got == tt.id) != tt.kept {
					t.Errorf("X-Request-Id: %q from %s\n  got %q\n  want it kept: %v", tt.id, tt.from, got, tt.kept)
				}
				if log := w.log.String(); strings.Contains(log, tt.id) != tt.kept {
					t.Errorf("X-Request-Id: %q from %s\n  got the log %s\n  want it there: %v", tt.id, tt.from, log, tt.kept)
				}
			})
		})
	}
}

// TestAttackMethodInLog: a method may be any word, even a secret. Only known ones are logged.
func TestAttackMethodInLog(t *testing.T) {
	for method, want := range map[string]string{"GET": "GET", "OPTIONS": "OPTIONS", "get": "other", "BREW": "other", "MY-PASSWORD": "other"} {
		inWorld(t, func(w *world) {
			r := w.request(w.Context(), "GET /healthz")
			r.Method = method
			w.handler.ServeHTTP(httptest.NewRecorder(), r)
			if log := w.log.String(); !strings.Contains(log, "method="+want+" ") {
				t.Errorf("%s /healthz\n  got the log %s\n  want method=%s in it", method, log, want)
			}
		})
	}
}

// TestAttackHostHeader: the host that the client names does not appear in a response.
func TestAttackHostHeader(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		for _, call := range []string{`POST /users/ {"username":"alice","password":"correct horse"}`, "GET /users/?limit=1 as admin", "GET /users", "GET /", "GET /nowhere", "GET //users/", "GET /docs"} {
			r := w.request(w.Context(), call)
			r.Host = "evil.example"
			r.Header.Set("X-Forwarded-Host", "evil.example")
			r.Header.Set("X-Forwarded-Proto", "evil")
			rec := httptest.NewRecorder()
			w.handler.ServeHTTP(rec, r)
			if got := fmt.Sprint(rec.Header(), rec.Body); strings.Contains(got, "evil") {
				t.Errorf("%s with Host: evil.example\n  got %s\n  want no evil in it", call, got)
			}
		}
	})
}

// TestAttackGuessesAtOnce: of fifty guesses at once only five are hashed. They wait in
// the queue for hashing, and are counted when they leave it.
func TestAttackGuessesAtOnce(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		release := w.occupyHashing(0)
		responses := make(chan int, 50)
		for i := range cap(responses) {
			go func() {
				responses <- w.send(w.Context(), fmt.Sprintf("POST /token username=johndoe&password=guess%d", i)).status
			}()
		}
		synctest.Wait()
		if len(responses) > 0 {
			t.Errorf("%d of 50 guesses return while all cores hash, want them to wait", len(responses))
		}
		release()
		statuses := map[int]int{}
		for range cap(responses) {
			statuses[<-responses]++
		}
		if statuses[401] != 5 || statuses[429] != 45 {
			t.Errorf("50 guesses at once return %v, want 5 times 401 and 45 times 429", statuses)
		}
	})
}

// TestAttackFullQueue: while the queue for hashing is full, a request with a password
// is refused at once, and a request with a token succeeds.
func TestAttackFullQueue(t *testing.T) {
	const busy = "Too many passwords are being checked"
	const register = `POST /users/ {"username":"alice","password":"correct horse"}`
	inPeopledWorld(t, func(w *world) {
		w.do("repeat 5 POST /token from 192.0.2.9 username=johndoe&password=guess")
		release := w.occupyHashing(maxWaiting)
		for _, tt := range []struct{ do, want string }{
			{"POST /token username=johndoe&password=secret", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"POST /token username=nobody&password=secret", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"repeat 9 POST /token username=johndoe&password=guess", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"repeat 31 " + register, refusal(503, "too_busy", busy, "Retry-After: 1")}, // none of which counts
			{`PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},
			{`DELETE /users/me/ as john {"password":"secret"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},
			{`PUT /users/1/password as admin {"new_password":"correct horse"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},

			{`POST /users/ {"username":"johndoe","password":"correct horse"}`, refusal(400, "username_taken", "Username already registered")},
			{`POST /users/ {"username":"alice","password":"short"}`, invalidFields("password must be at least 8 characters long")},
			{"POST /token from 192.0.2.9 username=johndoe&password=secret", oauthRefusal(429, "temporarily_unavailable", "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
			{"GET /users/me/ as john", "200\n" + john},
			{"wait 1m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		} {
			if got := w.do(tt.do); got != tt.want {
				t.Errorf("with a full queue, %s\n  got %s\n  want %s", tt.do, got, tt.want)
			}
		}
		if log := w.log.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("the log of a full queue has errors, want none: the load is not a fault of the server: %s", log)
		}
		release()
		if got := w.do("POST /token username=johndoe&password=secret"); got != tokens {
			t.Errorf("a login when the queue is empty again\n  got %s\n  want tokens: the refused logins do not count", got)
		}
		if got := w.do(register); !strings.HasPrefix(got, "201\n") {
			t.Errorf("%s when the queue is empty again\n  got %s", register, got)
		}

		// A request whose client has gone gives its place in the queue back.
		release = w.occupyHashing(0)
		response := make(chan *answered, 1)
		gone, giveUp := context.WithCancel(w.Context())
		go func() { response <- w.send(gone, "POST /token username=dora&password=secret") }()
		synctest.Wait()
		giveUp()
		if a := <-response; a.status != 499 {
			t.Errorf("a request whose client has gone is logged as %d, want 499, which is no error of the server", a.status)
		}
		go func() { response <- w.send(w.Context(), "POST /token username=jane&password=secret") }()
		synctest.Wait()
		release()
		if a := <-response; a.status != 200 {
			t.Errorf("%s after all waiting clients have gone\n  got %s\n  want tokens", a.call, w.show(a))
		}
	})
}

// TestAttackPatientGuessing: the wait doubles from one second to five minutes and stays there.
func TestAttackPatientGuessing(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do("repeat 5 POST /token username=johndoe&password=guess")
		for _, wait := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.header.Get("Retry-After") != fmt.Sprint(wait) {
				t.Fatalf("one more guess\n  got %s\n  want a wait of %d s", got, wait)
			}
			time.Sleep(time.Duration(wait)*time.Second - time.Millisecond)
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.status != 429 {
				t.Fatalf("a guess 1 ms before %d s\n  got %s\n  want 429", wait, got)
			}
			time.Sleep(time.Millisecond)
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.status != 401 {
				t.Fatalf("a guess after %d s\n  got %s\n  want 401", wait, got)
			}
		}
	})
}

// TestAttackThrottleMemory: guesses at a hundred thousand names from as many addresses
// do not fill the memory, and do not erase the failures of an attacker during a wait.
func TestAttackThrottleMemory(t *testing.T) {
	keys := func(i int) [2]throttleKey {
		return throttleKeys(fmt.Sprint("name", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	synctest.Test(t, func(t *testing.T) { // where the delay does not end meanwhile
		throttle := &NewPasswords(1).throttle
		mine := keys(-1)
		for range freeTries {
			throttle.fail(mine)
		}
		most := 0
		for i := range 3 * throttleHalf {
			throttle.fail(keys(i))
			most = max(most, len(throttle.newer)+len(throttle.older))
			if i == throttleHalf/2-2 && throttle.check(mine) == nil {
				t.Errorf("after %d other failures, the delay is lost", i)
			}
		}
		if most > 2*throttleHalf {
			t.Errorf("the throttle has had %d entries, want %d at most", most, 2*throttleHalf)
		}
	})
}

// TestAttackLoginStorm: logins beyond the queue are refused at once, and a login whose
// client has gone takes no place in it.
func TestAttackLoginStorm(t *testing.T) {
	w := loudWorld(t, 1)
	w.addUser("slow", "secret", func(u *User) { u.PasswordHash = Hasher{Iterations: 100_000}.Hash("secret") })
	w.login("john", "johndoe", "secret")
	storm := 3 * (maxWaiting + cap(w.server.passwords.queue.running))
	ctx, giveUp := context.WithCancel(w.Context())
	defer giveUp()
	responses := make(chan *answered, storm)
	for i := range storm {
		go func() {
			responses <- w.send(ctx, fmt.Sprintf("POST /token from 10.0.%d.%d username=slow&password=guess", i>>8, i&255))
		}()
	}
	turnedAway := oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")
	count, received := map[int]int{}, 0
	for count[503] == 0 {
		a := <-responses
		count[a.status]++
		received++
		if got := w.show(a); a.status != 401 && got != turnedAway {
			t.Errorf("in a storm of logins\n  got %s\n  want %s", got, turnedAway)
		}
		if count[401] == storm {
			t.Fatalf("%d logins at once were all hashed, want 503 for some", storm)
		}
	}
	if got := w.do("GET /users/me/ as john"); !strings.HasPrefix(got, "200\n") {
		t.Errorf("GET /users/me/ in a storm of logins\n  got %s", got)
	}
	giveUp()
	for ; received < storm; received++ {
		count[(<-responses).status]++
	}
	if count[401] > maxWaiting/2+cap(w.server.passwords.queue.running) {
		t.Errorf("%d logins whose clients have gone have the statuses %v\n  want the waiting ones out of the queue", storm, count)
	}
	if got, want := w.server.metrics.counts[errorSample("too_busy")], int64(count[503]); got != want {
		t.Errorf("the metric of refused hashes is %d, want %d, the number of 503", got, want)
	}
	if got := w.do("POST /token username=johndoe&password=secret"); !strings.HasPrefix(got, "200\n") {
		t.Errorf("a login after the storm\n  got %s\n  want 200", got)
	}
}

// loudWorld is a world in real time with a real cost of hashing.
func loudWorld(t testing.TB, iterations int) *world {
	w := newWorld(t, iterations)
	w.addUser("dora", "secret", func(u *User) { u.Disabled = true })
	return w
}

// occupyHashing takes all cores, and as many places in the queue as told: first those of
// known clients.
func (w *world) occupyHashing(queue int) (release func()) {
	hashes := w.server.passwords.queue
	for range cap(hashes.running) {
		hashes.running <- struct{}{}
	}
	var places []*place
	for i := range queue {
		place, err := hashes.enter(w.Context(), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), i < knownWaiting)
		if err != nil {
			w.Fatal(err)
		}
		places = append(places, place)
	}
	return func() {
		for _, place := range places {
			place.leave()
		}
		for range cap(hashes.running) {
			hashes.passOn()
		}
	}
}

// manyAtOnce sends n requests at once and returns their responses.
func manyAtOnce(w *world, n int, call func(i int) string) []*answered {
	responses := make([]*answered, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { responses[i] = w.send(w.Context(), call(i)) })
	}
	wg.Wait()
	return responses
}

// TestAttackDeadToken: while a request is held, the session of its caller ends, or the
// account is disabled, deleted or demoted. Wherever the request is held, it changes
// nothing, and gets the response that a new request would get.
func TestAttackDeadToken(t *testing.T) {
	calls := []struct {
		as, call string
		hashes   bool // the request waits for a hash
	}{
		{"john", `PATCH /users/me/ as john {"email":"mallory@example.com","current_password":"secret"}`, false},
		{"john", `DELETE /users/me/ as john {"password":"secret"}`, true},
		{"john", `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`, true},
		{"john", "DELETE /users/me/sessions as john", false},
		{"john", "DELETE /users/me/sessions/$other.sid as john", false},
		{"boss", `POST /users/ as boss {"username":"mallory","password":"correct horse"}`, true},
		{"boss", `PATCH /users/3 as boss {"role":"admin"}`, false},
		{"boss", `PUT /users/3/password as boss {"new_password":"correct horse"}`, true},
		{"boss", "DELETE /users/3 as boss", false},
		{"boss", "DELETE /users/3/sessions as boss", false},
	}
	// Another admin, or the owner of the token, ends its power. AS is the name of the
	// token, and ID the ID of its account.
	ways := []struct {
		what, do string
		user     int    // the status for a route of any user
		admin    int    // the status for a route of admins
		first    string // before the request begins
	}{
		{"its token is revoked", "POST /revoke token=$AS", 401, 401, ""},
		{"its refresh token is replayed", "POST /token grant_type=refresh_token&refresh_token=$AS.refresh", 401, 401,
			"POST /token grant_type=refresh_token&refresh_token=$AS.refresh ; wait " + refreshGrace.String()},
		{"its password is reset", `PUT /users/ID/password as admin {"new_password":"battery staple"}`, 401, 401, ""},
		{"its account is disabled", `PATCH /users/ID as admin {"disabled":true}`, 400, 400, ""},
		{"its account is disabled and enabled", `PATCH /users/ID as admin {"disabled":true} ; PATCH /users/ID as admin {"disabled":false}`, 401, 401, ""},
		{"its account is deleted", "DELETE /users/ID as admin", 401, 401, ""},
		{"its account is demoted", `PATCH /users/ID as admin {"role":"user"}`, 0, 403, ""},
	}
	for _, c := range calls {
		for _, way := range ways {
			want := way.user
			if c.as == "boss" {
				want = way.admin
			}
			if want == 0 {
				continue
			}
			for _, place := range []string{"its body", "its hash", "its write"} {
				if place == "its body" && !strings.Contains(c.call, "{") || place == "its hash" && !c.hashes {
					continue
				}
				t.Run(c.call+" changes nothing if it is held at "+place+" while "+way.what, func(t *testing.T) {
					inPeopledWorld(t, func(w *world) {
						w.restart("-registration=closed")
						boss := w.addUser("boss", "secret", func(u *User) { u.Role = RoleAdmin })
						w.login("boss", "boss", "secret")
						w.login("other", "johndoe", "secret")
						id := int64(1)
						if c.as == "boss" {
							id = boss.ID
						}
						names := strings.NewReplacer("AS", c.as, "ID", fmt.Sprint(id))
						if way.first != "" {
							w.do(names.Replace(way.first))
						}
						release := w.hold(c.call, place)
						steps := names.Replace(way.do)
						if place == "its hash" && strings.Contains(steps, "password") { // which waits for a hash itself
							testedStore{w.memory, t}.update(id, func(u *User) { u.SetPassword(Hasher{1}.Hash("battery staple")) })
							steps = ""
						}
						for step := range strings.SplitSeq(steps, " ; ") {
							if step == "" {
								continue
							}
							if got := w.do(step); w.last.status >= 300 && !strings.Contains(step, "refresh_token=") {
								t.Fatalf("%s\n  got %s", step, got)
							}
						}
						before := w.contents()
						got := release()
						if got.status != want {
							t.Errorf("got %s\n  want %d", w.show(got), want)
						}
						if diff := cmp.Diff(before, w.contents()); diff != "" {
							t.Errorf("a dead token has changed the store (-before +after):\n%s", diff)
						}
					})
				})
			}
		}
	}
}

// hold begins a request and holds it where it waits for its body, for a hash or for
// its write. The returned function releases the request and returns its response.
func (w *world) hold(call, place string) (release func() *answered) {
	w.Helper()
	done := make(chan *answered, 1)
	switch place {
	case "its body":
		r := w.request(w.Context(), call)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.Fatal(err)
		}
		pipe, rest := io.Pipe()
		r.Body = pipe
		go func() { done <- w.serve(r, call) }()
		rest.Write(body[:1]) // the first byte comes at once
		synctest.Wait()
		return func() *answered {
			rest.Write(body[1:])
			rest.Close()
			return <-done
		}
	case "its hash":
		leave := w.occupyHashing(0)
		go func() { done <- w.send(w.Context(), call) }()
		synctest.Wait()
		if n := w.server.passwords.queue.waiting(); n != 1 {
			w.Fatalf("%s: %d requests wait for a hash, want this one", call, n)
		}
		return func() *answered { leave(); return <-done }
	}
	w.begin(call)
	return func() *answered {
		close(w.begun.held)
		defer func() { w.begun = nil }()
		return <-w.begun.done
	}
}

// contents are the accounts and sessions of a world.
func (w *world) contents() map[string]any { return testedStore{w.memory, w}.contents() }

// The known attacks on JWT follow, most of them from RFC 8725, section 2. The attacker
// has tokens and this code, and knows everything but the key. A test that signs with
// the right key grants the attacker even more, to reach the checks behind the MAC.

func refuseAccess(t *testing.T, attack, token string) {
	t.Helper()
	if c, err := testTokens().VerifyAccess(token, testNow); err == nil {
		t.Errorf("%s: VerifyAccess(%q) = %+v, want ErrToken", attack, token, c)
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
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
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

// TestAttackBitFlipping: one byte of the header, the claims or the signature is changed.
func TestAttackBitFlipping(t *testing.T) {
	token := []byte(testTokens().SignAccess(johnClaims()))
	refresh := []byte(testTokens().SignRefresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 7}))
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

	older := strings.Split(testTokens().SignRefresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 1}), ".")
	newer := strings.Split(testTokens().SignRefresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 2}), ".")
	refuseRefresh(t, "an older token with a newer generation", older[0]+"."+older[1]+"."+newer[2]+"."+older[3])

	// A dot that is moved must not yield the same signed text.
	joined := func(id int64, generation int64) string {
		return testTokens().SignRefresh(RefreshToken{UserID: id, SessionID: "S", Generation: generation})
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
	r := RefreshToken{UserID: 1, SessionID: "S", Generation: 7}
	access, refresh := testTokens().SignAccess(johnClaims()), testTokens().SignRefresh(r)
	refuseAccess(t, "a refresh token", refresh)
	refuseRefresh(t, "an access token", access)

	// The text of one kind is signed with the key of the other.
	refuseRefresh(t, "a refresh token signed with the key of access tokens", "S.1.7."+macOf(testSecret, "S.1.7"))
	m := testTokens().opaque[refreshing][0].get()
	m.text = append(m.text, encode(ourHeader)+"."+encode(ourPayload)...)
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
	good := testTokens().SignRefresh(RefreshToken{UserID: 1, SessionID: "S", Generation: 7})
	refuseRefresh(t, "cut", good[:len(good)-1])
	refuseRefresh(t, "with padding", good+"=")
	refuseRefresh(t, "with a line break", good+"\n")
	refuseRefresh(t, "longer than any token", strings.Repeat("S", maxToken)+good)
}

// TestAttackDecompressionBomb: a small token decompresses to a large one. "zip" is a
// header of JWE alone (RFC 7516, section 4.1.3).
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

func refuseRefresh(t *testing.T, attack, token string) {
	t.Helper()
	if r, err := testTokens().VerifyRefresh(token); err == nil {
		t.Errorf("%s: VerifyRefresh(%q) = %+v, want ErrToken", attack, token, r)
	}
}

// TestAttackOnTheWire writes bytes to a socket, as no handler alone decides these
// cases, but net/http, its limits and the middleware. A row has the bytes sent, the
// statuses of all responses, and whether the connection is then open or closed.
func TestAttackOnTheWire(t *testing.T) {
	const (
		get    = " HTTP/1.1\r\nHost: x\r\n\r\n"
		form   = "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
		hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	)
	for _, tt := range []struct{ rule, send, want string }{
		{"two requests on one connection get two responses", "GET /healthz" + get + "GET /healthz" + get, "200 200 open"},
		{"a chunked body is read and the connection is closed", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n", "200 closed"},

		{"two Content-Length headers are refused", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 7\r\nContent-Length: 4\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"Content-Length before Transfer-Encoding is ignored and smuggles no request", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"Content-Length after Transfer-Encoding is ignored and smuggles no request", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"Content-Length and Transfer-Encoding in a preflight request smuggle no request", "OPTIONS /users/me/ HTTP/1.1\r\nHost: x\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: PATCH\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "204 closed"},
		{"Content-Length and Transfer-Encoding in OPTIONS * smuggle no request", "OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "404 closed"},
		{"an unknown Transfer-Encoding is refused", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: xchunked\r\nContent-Length: 7\r\n\r\ntoken=x" + hidden, "501 closed"},
		{"two Transfer-Encoding headers are refused", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, "501 closed"},
		{"a space before the colon of a header is refused", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length : 7\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"a Content-Length with a sign is refused", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: +7\r\n\r\ntoken=x" + hidden, "400 closed"},
		{"a chunk with an invalid size is refused", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\nzz\r\ntoken=x\r\n0\r\n\r\n" + hidden, "400 closed"},
		{"a chunk size line that ends in LF alone is refused", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7;a=b\ntoken=x\r\n0\r\n\r\n" + hidden, "400 closed"},
		{"two Host headers are refused", "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400 closed"},
		{"a request without a Host header is refused", "GET /healthz HTTP/1.1\r\n\r\n", "400 closed"},
		{"NUL in a header is refused", "GET /users/me/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\x00b\r\n\r\n", "400 closed"},
		{"the version HTTP/0.9 is refused", "GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", "505 closed"},
		{"headers of more than 64 KiB are refused", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", "431 closed"},
		{"headers with a token of 4097 bytes are read", "GET /users/me/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("a", 4097) + "\r\n\r\n", "401 open"},

		{"headers that arrive too slowly get a 400", "GET /heal", "400 closed"},
		{"a body that arrives too slowly gets a 408", "POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 7\r\n\r\ntok", "408 closed"},
		{"a chunked body that arrives too slowly gets a 408", "POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n7\r\ntok", "408 closed"},

		{"a path with two slashes redirects to the path with one", "GET //users/me/" + get, "307 /users/me/ open"},
		{"two slashes at the start of a path do not redirect to another host", "GET //evil.example" + get, "404 open"},
		{"a path with dots redirects to the path without", "GET /docs/../users/me/" + get, "307 /users/me/ open"},
		{"dots beyond the root redirect to a path below it", "GET /../../users/me/" + get, "307 /users/me/ open"},
		{"percent-encoded dots are not followed", "GET /users/%2e%2e/users/me/" + get, "404 open"},
		{"a percent-encoded slash is a part of an ID", "GET /users/me%2f" + get, "401 open"},
		{"percent-encoded slashes do not separate parts of a path", "GET /users%2fme%2f" + get, "404 open"},
		{"percent-encoded slashes do not lead out of the files of the page", "GET /docs/..%2f..%2fgo.mod" + get, "404 open"},
		{"a percent-encoded letter is the letter", "GET /%75sers/me/" + get, "401 open"},
		{"NUL in an ID requires a token like any other ID", "GET /users/1%00" + get, "401 open"},
		{"a path with parameters is not found", "GET /users/me/;admin=true" + get, "404 open"},
		{"a backslash is not a slash", "GET /docs\\..\\users" + get, "404 open"},
		{"a path without a slash at its start is refused", "GET healthz" + get, "400 closed"},
		{"a request line with the URL of another server gets the path of this one", "GET http://evil.example/healthz" + get, "200 open"},
		{"a request line with the URL of another server and no path is not found", "GET http://evil.example" + get, "404 open"},
		{"GET * is not found", "GET *" + get, "404 open"},
		{"CONNECT to a path is refused", "CONNECT /users/me/password HTTP/1.1\r\nHost: x\r\n\r\n", "405 open"},
		{"CONNECT opens no tunnel", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "404 open"},
		{"an unknown method gets a 405", "BREW /users/me/" + get, "405 open"},
		{"TRACE, which would return the token, gets a 405", "TRACE /users/me/" + get, "405 open"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(onTheWire(t, tt.send, tt.want), " "); got != tt.want {
				t.Errorf("%.300q\n  got  %s\n  want %s", tt.send, got, tt.want)
			}
		})
	}
}

// onTheWire sends bytes to a server with short timeouts. It returns the statuses (and
// Locations) of the responses, and "open" or "closed". It uses what is wanted only to
// stop waiting when no more responses are expected.
func onTheWire(t *testing.T, send, want string) (responses []string) {
	const patience = 200 * time.Millisecond
	w := newWorld(t)
	srv := new(settings).httpServer(w.handler, slog.New(slog.DiscardHandler))
	if srv.ReadHeaderTimeout != 10*time.Second || srv.ReadTimeout != 30*time.Second || srv.IdleTimeout != 2*time.Minute {
		t.Errorf("the server waits %v for headers, %v for a request, %v between requests; want 10s, 30s, 2m", srv.ReadHeaderTimeout, srv.ReadTimeout, srv.IdleTimeout)
	}
	srv.ReadHeaderTimeout, srv.ReadTimeout = patience, 2*patience
	listener, err := new(settings).listen("-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(listener)
	defer srv.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, send)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	method, _, _ := strings.Cut(send, " ")
	for r := bufio.NewReader(conn); ; {
		if strings.Join(responses, " ")+" open" == want {
			conn.SetReadDeadline(time.Now().Add(patience / 2))
		}
		if _, err := r.Peek(1); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return append(responses, "open")
			}
			return append(responses, "closed")
		}
		res, err := http.ReadResponse(r, &http.Request{Method: strings.Replace(method, "CONNECT", "GET", 1)})
		if err != nil {
			t.Fatalf("%q: %v", send, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%q: %v", send, err)
		}
		responses = append(responses, strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location"))))
		ours := res.Header.Get("X-Request-Id") != ""
		if res.StatusCode >= 400 && ours && !strings.HasSuffix(res.Header.Get("Content-Type"), "json") {
			t.Errorf("%q\n  got %d as %q: %s\n  want JSON", send, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
	}
}

// TestAttackPasswordSpraying: one password is tried on every account. Each account has
// one failure, but the address has a hundred.
func TestAttackPasswordSpraying(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		const right = "POST /token username=jane&password=secret"
		spray := func(n int) {
			for i := range n {
				if got := w.do(fmt.Sprintf("POST /token username=name%d&password=Summer2026", i)); got != wrongLogin {
					t.Fatalf("guess %d of %d, each at another account\n  got %s\n  want %s", i+1, n, got, wrongLogin)
				}
			}
		}
		spray(99)
		if got := w.do(right); got != tokens {
			t.Errorf("%s after 99 failures from its address\n  got %s\n  want tokens", right, got)
		}
		spray(100)
		if got := w.do(right); w.last.status != 429 || w.last.header.Get("Retry-After") != "1" {
			t.Errorf("%s after 100 failures in a row from its address\n  got %s\n  want a wait of 1 s", right, got)
		}
		if got := w.do(strings.Replace(right, " username", " from 192.0.2.2 username", 1)); got != tokens {
			t.Errorf("%s from another address\n  got %s\n  want tokens", right, got)
		}
		if got := w.do("wait 1s ; POST /token username=name7&password=Summer2026 ; " + right); w.last.header.Get("Retry-After") != "2" {
			t.Errorf("%s after one more failure\n  got %s\n  want a wait of 2 s", right, got)
		}
		if got := w.do("wait 2s ; " + right + " ; POST /token username=name7&password=Summer2026"); got != wrongLogin {
			t.Errorf("a guess after a success\n  got %s\n  want %s: the failures are reset", got, wrongLogin)
		}
	})
}

// TestAttackLoginsOfAVisitor: a page of another site sends wrong passwords from the
// browser of its visitor, to lock the visitor out.
func TestAttackLoginsOfAVisitor(t *testing.T) {
	refused := oauthRefusal(403, "invalid_request", "cross_origin", "Cross-origin request")
	for _, headers := range []string{
		`with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example"`,
		`with "Sec-Fetch-Site: same-site" with "Origin: https://other.app.example"`,
		`with "Sec-Fetch-Site: cross-site"`,
		`with "Origin: https://evil.example"`,
		`with "Origin: null"`,
		`with "Sec-Fetch-Site: cross-site" with "Origin: http://localhost.evil.example:3000"`,
		`with "Origin: http://example.com"`, // the Host: the page has made its name resolve to this machine
	} {
		inPeopledWorld(t, func(w *world) {
			if got := w.do("repeat 6 POST /token " + headers + " username=johndoe&password=wrong"); got != refused {
				t.Errorf("POST /token %s\n  got %s\n  want %s", headers, got, refused)
			}
			if got := w.do("POST /token username=johndoe&password=secret"); got != tokens {
				t.Errorf("a login after six requests %s\n  got %s\n  want tokens", headers, got)
			}
		})
	}
}

// TestAttackPlantedLink: an attacker who can write to the directory of the store plants
// a symbolic link where the store writes next.
func TestAttackPlantedLink(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	target := filepath.Join(t.TempDir(), "precious")
	write(t, target, "precious")
	if err := os.Symlink(target, f.path+".new"); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	f.compactNow()
	wantEqual(t, "the store beside a planted link", f.reopen().contents(), want)
	wantEqual(t, "the file behind a planted link", read(t, target), "precious")
}

// TestAttackSecondName: the file of a running store has a second name, so another
// process could use it without finding a lock beside it.
func TestAttackSecondName(t *testing.T) {
	f := filledStore(t)
	second := filepath.Join(t.TempDir(), "second.jsonl")
	if err := os.Link(f.path, second); err != nil {
		t.Skip("no hard links here:", err)
	}
	_, err := OpenFileStore(t.Context(), second, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore by a second name", err, errLocked)
	f.compactNow()
	_, err = OpenFileStore(t.Context(), f.path, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore after a compaction", err, errLocked)
}

// TestAttackDescriptors: clients take every file descriptor that a compaction frees. It
// needs one for the new file, and none once the old file is no longer in use.
func TestAttackDescriptors(t *testing.T) {
	f := filledStore(t)
	few := &fewDescriptors{folder: f.file.folder, left: 1}
	f.file.folder = few
	f.compactNow()
	wantErr(t, "Ready after a compaction with one descriptor", f.Ready(t.Context()), nil)
	f.compact()
	f.logs.await("could not compact the store")
	f.create(newUser("late"))
	want := f.contents()
	wantEqual(t, "the store opened again", f.reopen().contents(), want)
}

// A fewDescriptors opens only so many files.
type fewDescriptors struct {
	folder
	left int
}

func (d *fewDescriptors) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if d.left--; d.left < 0 {
		return nil, syscall.EMFILE
	}
	return d.folder.OpenFile(name, flag, perm)
}

// TestAttackReplacedFile: the file is replaced or removed while the store runs. Writes
// to the old file would be lost at the next start, and none is acknowledged.
func TestAttackReplacedFile(t *testing.T) {
	for what, replace := range map[string]func(path string) error{
		"replaced by another": func(path string) error { return os.Rename(path+".other", path) },
		"removed":             os.Remove,
		"replaced by a link":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink(path+".other", path)) },
		"truncated":           func(path string) error { return os.Truncate(path, 0) },
		"appended to": func(path string) error {
			other, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = other.WriteString("{}\n")
			return errors.Join(err, other.Close())
		},
	} {
		f := filledStore(t)
		before := f.contents()
		write(t, f.path+".other", fileHeader)
		if err := replace(f.path); err != nil {
			t.Skip("not on this system:", err)
		}
		_, err := f.CreateUser(t.Context(), Caller{}, newUser("late"))
		wantErr(t, "CreateUser in a file that was "+what, err, ErrUnavailable)
		wantErr(t, "Ready with a file that was "+what, f.Ready(t.Context()), ErrUnavailable)
		f.logs.await("takes no more changes")
		wantEqual(t, "the contents that readers see of a file that was "+what, f.contents(), before)
	}
	// The file is replaced after the last change, while a compaction is under way.
	f := filledStore(t)
	write(t, f.path+".other", fileHeader)
	f.file.folder = replacingFolder{f.file.folder, f.path}
	f.compact()
	f.logs.await("takes no more changes")
	wantEqual(t, "the file that took the place of the store's", read(t, f.path), fileHeader)
	if _, err := os.Stat(f.path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of the new file = %v, want none", err)
	}
}

// A replacingFolder replaces the file of a store when a compaction creates the new one.
type replacingFolder struct {
	folder
	path string
}

func (d replacingFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if err := os.Rename(d.path+".other", d.path); err != nil {
		return nil, err
	}
	return d.folder.OpenFile(name, flag, perm)
}

// TestAttackEtcdRedirect: a member of the cluster, or an impostor, redirects to another
// address. The name and the password of the etcd user are not sent there.
func TestAttackEtcdRedirect(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++ }))
	defer elsewhere.Close()
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer member.Close()
	_, err := OpenEtcdStore(t.Context(), "etcd://"+member.Listener.Addr().String(), "alice", "a secret", testLife, slog.New(slog.DiscardHandler))
	if err == nil || asked > 0 {
		t.Errorf("OpenEtcdStore with a member that redirects: %v, and %d requests to the other address; want an error and none", err, asked)
	}
}

// TestAttackNamesThatFold: some functions fold letters of other scripts to ASCII. No
// such letter matches one of a username, neither at a login nor in the throttle.
func TestAttackNamesThatFold(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim", "secret")
		for _, name := range []string{"adm%C4%B0n", "adm%C4%B1n", "%E2%84%AAim", "%C5%BFara"} {
			if got := w.do("POST /token username=" + name + "&password=secret"); got != wrongLogin {
				t.Errorf("POST /token of %s\n  got %s\n  want %s", name, got, wrongLogin)
			}
		}
		w.do("repeat 5 POST /token username=%E2%84%AAim&password=wrong")
		if got := w.do("POST /token username=kim&password=secret"); got != tokens {
			t.Errorf("a login after five failures of a name that folds to this one\n  got %s\n  want tokens", got)
		}
	})
}

// TestAttackFileDescriptors: an attacker opens connections until the process has no
// file descriptors left. That is logged once a minute, not a thousand times a second.
func TestAttackFileDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		errorLog := newErrorLog(slog.New(slog.NewTextHandler(&log, nil)))
		for range 100 {
			errorLog.Print("http: Accept error: accept tcp 127.0.0.1:8000: accept4: too many open files; retrying in 1s")
			errorLog.Print("http: TLS handshake error from 192.0.2.1:1234: EOF")
			time.Sleep(time.Second)
		}
		got := log.String()
		if strings.Count(got, "level=ERROR") != 2 || !strings.Contains(got, "too many open files") || strings.Contains(got, "handshake") {
			t.Errorf("the log of 100 s is\n%s\nwant an error at once, one after a minute, and nothing about clients", got)
		}
	})
}

// TestAttackDeadTokenOverHTTP is TestAttackDeadToken over sockets, with HTTP/1 and
// HTTP/2 and a file: the token is revoked before the body is complete.
func TestAttackDeadTokenOverHTTP(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.jsonl")
	hash := Hasher{Iterations: 1}.Hash("secret")
	writeAccounts(t, file, User{Username: "root", Role: RoleAdmin, PasswordHash: hash}, User{Username: "ada", Role: RoleUser, PasswordHash: hash})
	cert, key := writeCertificate(t)
	for _, args := range [][]string{{"-store", file}, {"-store", file, "-tls-cert", cert, "-tls-key", key}} {
		s := launch(t, args, "SECRET_KEY="+settingsKey)
		for _, call := range []struct{ method, path, body string }{
			{"PATCH", "/users/2", `{"role":"admin"}`},
			{"PUT", "/users/2/password", `{"new_password":"correct horse"}`},
			{"PATCH", "/users/me/", `{"full_name":"Mallory"}`},
		} {
			token := s.login("root")
			want := s.do("GET", "/users/", token, "").body
			body, rest := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), call.method, s.url+call.path, body)
			if err != nil {
				t.Fatal(err)
			}
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
			if got := s.do("GET", "/users/", s.login("root"), "").body; got != want {
				t.Errorf("%s: %s %s with a dead token has changed\n  %s\n  to %s", resp.Proto, call.method, call.path, want, got)
			}
		}
		s.stop()
	}
}

// TestAuditLog: the log tells who did what to whom. It does not have the username of a
// login, which may be a password typed into the wrong field.
func TestAuditLog(t *testing.T) {
	for _, tt := range []struct{ do, want string }{
		{"POST /token username=johndoe&password=secret", "method=POST route=/token status=200 user=1 login=ok"},
		{"POST /token username=johndoe&password=wrong", "method=POST route=/token status=401 user=1 login=failed"},
		{"POST /token username=nobody&password=secret", "method=POST route=/token status=401 user=0 login=failed"},
		{"POST /token username=dora&password=secret", "method=POST route=/token status=400 user=4 login=failed"},
		{"POST /token grant_type=refresh_token&refresh_token=$jane.refresh", "method=POST route=/token status=200 user=3 bytes"},
		{"POST /revoke token=$jane", "method=POST route=/revoke status=200 user=3 bytes=3"},
		{"GET /users/me/ as john", "method=GET route=/users/me/ status=200 user=1 bytes"},
		{"GET /users/me/ as dora", "method=GET route=/users/me/ status=400 user=4 bytes"},
		{"GET /users/ as admin", "method=GET route=/users/ status=200 user=2 bytes"},
		{`PATCH /users/1 as admin {"disabled":true}`, "method=PATCH route=/users/{id} status=200 user=2 target=1 bytes"},
		{`PUT /users/3/password as admin {"new_password":"correct horse"}`, "method=PUT route=/users/{id}/password status=204 user=2 target=3 bytes=0"},
		{"DELETE /users/3 as admin", "method=DELETE route=/users/{id} status=204 user=2 target=3 bytes=0"},
		{"DELETE /users/3/sessions as admin", "method=DELETE route=/users/{id}/sessions status=204 user=2 target=3"},
		{"GET /users/3 as john", "method=GET route=/users/{id} status=403 user=1 bytes"},
		{`restart -registration=closed ; POST /users/ as admin {"username":"alice","password":"correct horse"}`, "method=POST route=/users/ status=201 user=2 target=6 bytes"},
		{"GET /a-typed-password", "method=GET route=\"\" status=404 user=0 bytes"},
		{"GET /docs/settings.json", "method=GET route=/docs/{file} status=200 user=0 bytes"},
		{"GET /users", "method=GET route=\"\" status=307 user=0 bytes"},
		{"restart -demo=false ; repeat 5 POST /token username=johndoe&password=wrong ; POST /token username=johndoe&password=secret", "method=POST route=/token status=429 user=0 login=refused"},
	} {
		inPeopledWorld(t, func(w *world) {
			w.do(tt.do)
			lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
			last := lines[len(lines)-1]
			if !strings.Contains(last, tt.want) || !strings.Contains(last, " id="+w.last.header.Get("X-Request-Id")+" ip=192.0.2.1 ") || !strings.Contains(last, " took=0") {
				t.Errorf("%s\n  logs %s\n  want %s, with the ID and the address of the request", tt.do, last, tt.want)
			}
			if strings.Contains(w.log.String(), "johndoe") || strings.Contains(w.log.String(), "typed") {
				t.Errorf("%s: the log has a username or a path as the client sent it: %s", tt.do, w.log.String())
			}
		})
	}
}

// TestAttackStrangersFromEverywhere: strangers from many networks fill the queue for
// hashing. A client from whose network the account has a live session still logs in, and
// no stranger learns which names have an account.
func TestAttackStrangersFromEverywhere(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim", "secret")
		for _, from := range []string{"2001:db8:1::1", "192.0.2.77"} {
			w.do("POST /token from " + from + " username=johndoe&password=secret")
		}
		w.keepTokens("left")
		w.do("POST /revoke token=$left")
		q := w.server.passwords.queue
		for range cap(q.running) {
			q.running <- struct{}{}
		}
		for i := 0; ; i++ {
			if _, err := q.enter(w.Context(), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), false); err != nil {
				break
			}
		}
		counting := &countingStore{Store: w.store}
		w.server.store = counting
		busy := oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")
		for _, tt := range []struct{ who, login, want string }{
			{"the owner from the network of a session", "POST /token username=johndoe&password=secret", tokens},
			{"the owner from the /48 of a session", "POST /token from 2001:db8:1:9::1 username=johndoe&password=secret", tokens},
			{"the owner from another network", "POST /token from 192.0.2.9 username=johndoe&password=secret", busy},
			{"the owner from the network of a session that has ended", "POST /token from 192.0.2.77 username=johndoe&password=secret", busy},
			{"an owner without sessions", "POST /token username=kim&password=secret", busy},
			{"a stranger who tries a name without an account", "POST /token from 192.0.2.9 username=nobody&password=secret", busy},
			{"a stranger who tries a name with an account", "POST /token from 192.0.2.9 username=johndoe&password=guess", busy},
			{"a stranger who registers", `POST /users/ from 192.0.2.9 {"username":"mallory","password":"correct horse"}`, refusal(503, "too_busy", "Too many passwords are being checked", "Retry-After: 1")},
		} {
			response := make(chan *answered, 1)
			counting.calls = ""
			go func() { response <- w.send(w.Context(), tt.login) }()
			synctest.Wait()
			if strings.Contains(tt.login, "/token") && counting.calls != "UserByName Sessions " {
				t.Errorf("%s: the server calls %sof the store, want the same for all", tt.who, counting.calls)
			}
			q.passOn() // a core is free, and goes to a known client if one waits
			synctest.Wait()
			for len(q.running) < cap(q.running) {
				q.running <- struct{}{}
			}
			if got := w.show(<-response); got != tt.want {
				t.Errorf("%s\n  got %s\n  want %s", tt.who, got, tt.want)
			}
		}
	})
}

// A countingStore writes down the reads of a login.
type countingStore struct {
	Store
	calls string
}

func (s *countingStore) UserByName(ctx context.Context, name string) (User, error) {
	s.calls += "UserByName "
	return s.Store.UserByName(ctx, name)
}

func (s *countingStore) Sessions(ctx context.Context, id int64) ([]Session, error) {
	s.calls += "Sessions "
	return s.Store.Sessions(ctx, id)
}

// TestAttackImportedHash: a hash in the store is stronger than those of the server. Once
// the server has met it, every login takes as long, so it does not reveal its account.
func TestAttackImportedHash(t *testing.T) {
	w := newWorld(t, 1000)
	w.addUser("imported", "secret", func(u *User) { u.PasswordHash = Hasher{Iterations: 300_000}.Hash("secret") })
	w.server.meetHashes(t.Context())
	quickest := map[string]time.Duration{}
	for i := range 100 {
		for _, name := range []string{"imported", "johndoe", "nobody"} {
			start := time.Now()
			w.do(fmt.Sprintf("POST /token from 192.0.2.%d username=%s&password=wrong", i, name))
			took := time.Since(start)
			if w.last.status != 401 {
				t.Fatalf("a wrong login as %s = %d, want 401", name, w.last.status)
			}
			if quickest[name] == 0 || took < quickest[name] {
				quickest[name] = took
			}
		}
		// Other programs can only slow logins down. A leak is a factor of 300.
		if most, least := max(quickest["imported"], quickest["johndoe"], quickest["nobody"]), min(quickest["imported"], quickest["johndoe"], quickest["nobody"]); i >= 4 && most < 3*least {
			return
		}
	}
	t.Errorf("the quickest wrong logins take %v, want the same for all names", quickest)
}
