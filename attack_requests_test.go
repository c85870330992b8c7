package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// This file has the attacks with requests that a program may read in two ways, and on what the log says of them.
// handlers_test.go shows the response to a wrong request; these tests show that an attacker gains nothing.

func TestAttackMassAssignment(t *testing.T) {
	for _, field := range []string{`"role":"admin"`, `"Role":"admin"`, `"id":1`, `"disabled":false`, `"password_hash":"x"`, `"epoch":1`,
		`"created_at":"1999-01-01T00:00:00Z"`, `"is_admin":true`, `"role\u0000":"admin"`, `"\u0072ole":"admin"`} {
		t.Run("the member "+field+" is refused", peopled(func(w *world) {
			for _, call := range []string{
				`POST /users/ {"username":"mallory","password":"correct horse",` + field + `}`,
				`PATCH /users/me/ as john {"full_name":"J",` + field + `}`,
			} {
				w.want("the attack", call, "422...")
			}
			w.want("johndoe after the attack", "GET /users/1 as admin", "200\n"+john)
			w.want("a login of mallory after the attack", "POST /token username=mallory&password=correct+horse", wrongLogin)
		}))
	}
}

// TestAttackJSONSmuggling: two parsers must not read one body in two ways.
func TestAttackJSONSmuggling(t *testing.T) {
	checkRules(t, []apiRule{
		{"a field that is repeated with an escape in its name is refused", `POST /users/ {"username":"mallory","password":"correct horse","p\u0061ssword":"battery staple"}`,
			invalidFields("password is given more than once")},
		{"a repeated field is refused even if the first is null", `PATCH /users/me/ as john {"email":null,"email":"m@example.com","current_password":"secret"}`,
			invalidFields("email is given more than once")},
		{"a field name with the long s, which folds to s, is refused", `POST /users/ {"uſername":"mallory","password":"correct horse"}`,
			invalidFields("uſername is not a field of this request", "username is required")},
		{"a lone high surrogate, which other parsers replace, is refused", `POST /users/ {"username":"mallory","password":"correct horse\ud800"}`,
			invalidFields("password must not contain U+FFFD or half of a surrogate pair")},
		{"a surrogate pair in the wrong order is refused", `POST /users/ {"username":"mallory","password":"correct horse\udc00\ud800"}`,
			invalidFields("password must not contain U+FFFD or half of a surrogate pair")},
		{"an escaped backslash before ud800 is not a surrogate", `POST /users/ {"username":"alice","password":"correct horse\\ud800"} ; POST /token username=alice&password=correct+horse\ud800`, tokens},
		{"a surrogate pair is one character", `POST /users/ {"username":"alice","password":"correct \ud83d\udc0e"} ; POST /token username=alice&password=correct+%F0%9F%90%8E`, tokens},
		{"a comment in JSON is refused", `POST /users/ {"username":"mallory",/**/"password":"correct horse"}`, notJSON("invalid character '/' looking for beginning of object key string (byte 23)")},
		{"20000 nested arrays are refused", `PATCH /users/me/ as john {"email":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}",
			notJSON("invalid character '[' exceeded max depth (byte 10009)")},
		{"an object in place of a string is refused", `POST /users/ {"username":{"ne":null},"password":{"ne":null}}`, invalidFields("username must be a string", "password must be a string")},
	})
}

func TestAttackParameterPollution(t *testing.T) {
	checkRules(t, []apiRule{
		{"a username that is repeated with percent-encoding in its name is refused", "POST /token username=johndoe&%75sername=admin&password=secret", badForm("A form field is repeated")},
		{"a repeated grant_type is refused", "POST /token grant_type=password&grant_type=refresh_token&username=johndoe&password=secret", badForm("A form field is repeated")},
		{"a semicolon as a separator is refused", "POST /token username=johndoe;password=secret", badForm("The body is not a valid form")},
		{"the name of a form field is case-sensitive", "POST /token username=johndoe&PASSWORD=guess&password=secret", tokens},
		{"password[], an array in PHP, is not the field password", "POST /token username=johndoe&password[]=secret", badForm("Missing form field: password")},
		{"the query is not a part of the form", "POST /token?grant_type=refresh_token username=johndoe&password=secret", tokens},
		{"a token in the body is not a credential", `GET /users/me/ with "Content-Type: application/x-www-form-urlencoded" access_token=$john`, noCredentials},
	})
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
		"a password in the log":    func(w *world) { w.server.log.Debug("login", "with", "correct horse") },
		"a hash in the log":        func(w *world) { u, _ := w.store.User(w.Context(), 1); w.server.log.Debug("user", "is", u) },
		"a key in the log":         func(w *world) { w.server.log.Debug("started", "key", testKey) },
		"a token in the log":       func(w *world) { w.server.log.Debug("token", "is", w.vars["john.refresh"]) },
		"a query in the log":       func(w *world) { w.do("GET /healthz?color=green"); w.server.log.Debug("GET /healthz?color=green") },
		"a password in a response": func(w *world) { w.do("GET /healthz"); w.last.body = "correct horse" },
		"a token in a response":    func(w *world) { w.do("GET /healthz"); w.last.header.Set("X-Was", w.vars["john"]) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.do("login johndoe as john ; " + register)
			leak(w)
			if len(w.leaks()) == 0 {
				t.Errorf("the search does not find %s", what)
			}
		})
	}
}

func TestAttackCORSOrigin(t *testing.T) {
	allowed := []string{"http://localhost", "http://localhost:3000", "http://127.0.0.1:65535", "https://app.example"}
	refused := []string{
		"null", "*", "3000", "http://localhost.evil.example", "http://localhost:3000.evil.example", "http://localhost:3000@evil.example",
		"http://localhost:evil", "http://localhost:", "http://localhost:-1", "http://localhost:65536", "http://localhost:3000/", "http://localhost:*",
		"https://localhost:3000", "http://evil-localhost:3000", "http://127.0.0.1.evil.example", "http://[::1]:3000",
		"https://app.example.evil.example", "https://app.example:8443", "http://app.example", "https://sub.app.example", "https://evilapp.example",
		"https://appXexample", "https://app.example, https://evil.example",
	}
	for _, origin := range slices.Concat(allowed, refused) {
		want, verdict := "", "refused"
		if slices.Contains(allowed, origin) {
			want, verdict = origin, "allowed"
		}
		t.Run("the origin "+origin+" is "+verdict, alone(func(w *world) {
			w.restart("-cors-origin=http://localhost:*", "-cors-origin=http://127.0.0.1:*", "-cors-origin=https://app.example")
			for _, call := range []string{"GET /healthz", `OPTIONS /users/me/ with "Access-Control-Request-Method: PATCH"`} {
				a := w.send(call + fmt.Sprintf(" with %q", "Origin: "+origin))
				wantEqual(w, a.call+": Access-Control-Allow-Origin", a.header.Get("Access-Control-Allow-Origin"), want)
				wantEqual(w, a.call+": Access-Control-Allow-Credentials, as there are no cookies", a.header.Get("Access-Control-Allow-Credentials"), "")
			}
		}))
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
		t.Run(tt.rule, alone(func(w *world) {
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
				w.Errorf("%s\n  got  %s\n  want the address %s", call, w.last.body, tt.want)
			}
			if log := w.log.String(); !strings.Contains(log, "ip="+tt.want+" ") {
				w.Errorf("%s\n  got the log %s\n  want the address %s", call, log, tt.want)
			}
		}))
	}

	inWorld(t, func(w *world) {
		w.want("the sixth guess, each with another address", `repeat 6 POST /token with "X-Forwarded-For: 203.0.113.$i" username=johndoe&password=guess`, tooManyLogins("1"))
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
		t.Run(tt.rule, alone(func(w *world) {
			w.restart("-trusted-proxy=10.0.0.0/8")
			a := w.send(fmt.Sprintf("GET /nowhere from %s with %q", tt.from, "X-Request-Id: "+tt.id))
			if got := a.header.Get("X-Request-Id"); (got == tt.id) != tt.kept {
				w.Errorf("X-Request-Id: %q from %s\n  got %q\n  want it kept: %v", tt.id, tt.from, got, tt.kept)
			}
			if log := w.log.String(); strings.Contains(log, tt.id) != tt.kept {
				w.Errorf("X-Request-Id: %q from %s\n  got the log %s\n  want it there: %v", tt.id, tt.from, log, tt.kept)
			}
		}))
	}
}

// TestAttackMethodInLog: a method may be any word, even a secret. Only known ones are logged.
func TestAttackMethodInLog(t *testing.T) {
	for method, want := range map[string]string{"GET": "GET", "OPTIONS": "OPTIONS", "get": "other", "BREW": "other", "MY-PASSWORD": "other"} {
		inWorld(t, func(w *world) {
			r := w.request(w.Context(), "GET /healthz")
			r.Method = method
			w.handler.ServeHTTP(httptest.NewRecorder(), r)
			w.wantLog("method="+want+" ", 1)
		})
	}
}

// TestAttackHostHeader: the host that the client names does not appear in a response.
func TestAttackHostHeader(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		const evil = ` with "Host: evil.example" with "X-Forwarded-Host: evil.example" with "X-Forwarded-Proto: evil"`
		for _, call := range []string{"GET /users/?limit=1 as admin", "GET /users", "GET /", "GET /nowhere", "GET //users/", "GET /docs", "POST /users/"} {
			if a := w.send(call + evil); strings.Contains(fmt.Sprint(a.header, a.body), "evil") {
				t.Errorf("%s\n  got %s\n  want no evil in it", a.call, w.show(a))
			}
		}
	})
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
		{"Content-Length before Transfer-Encoding is ignored and smuggles no request",
			"POST /revoke HTTP/1.1\r\n" + form + "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"Content-Length after Transfer-Encoding is ignored and smuggles no request",
			"POST /revoke HTTP/1.1\r\n" + form + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n7\r\ntoken=x\r\n0\r\n\r\n" + hidden, "200 closed"},
		{"Content-Length and Transfer-Encoding in a preflight request smuggle no request",
			"OPTIONS /users/me/ HTTP/1.1\r\nHost: x\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: PATCH\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			"204 closed"},
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
			wantEqual(t, fmt.Sprintf("%.300q", tt.send), strings.Join(onTheWire(t, tt.send, tt.want), " "), tt.want)
		})
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
		{"GET /users/me/ as ended", "method=GET route=/users/me/ status=401 user=0 bytes"},
		{"POST /token grant_type=refresh_token&refresh_token=$ended.refresh", "method=POST route=/token status=400 user=1 bytes"},
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

// onTheWire sends bytes to a server with short timeouts. It returns the statuses (and
// Locations) of the responses, and "open" or "closed". It uses what is wanted only to
// stop waiting when no more responses are expected.
func onTheWire(t *testing.T, send, want string) (responses []string) {
	const patience = 200 * time.Millisecond
	w := newWorld(t)
	srv := newHTTPServer(w.handler, slog.New(slog.DiscardHandler))
	patient := []time.Duration{srv.ReadHeaderTimeout, srv.ReadTimeout, srv.IdleTimeout}
	wantEqual(t, "how long the server waits for headers, for a request, and between requests", patient, []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute})
	srv.ReadHeaderTimeout, srv.ReadTimeout = patience, 2*patience
	listener := need(new(settings).listen("-addr", "127.0.0.1:0"))(t)
	go srv.Serve(listener)
	defer srv.Close()
	conn := need(net.Dial("tcp", listener.Addr().String()))(t)
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
		res := need(http.ReadResponse(r, &http.Request{Method: strings.Replace(method, "CONNECT", "GET", 1)}))(t)
		body := need(io.ReadAll(res.Body))(t)
		responses = append(responses, strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location"))))
		ours := res.Header.Get("X-Request-Id") != ""
		if res.StatusCode >= 400 && ours && !strings.HasSuffix(res.Header.Get("Content-Type"), "json") {
			t.Errorf("%q\n  got %d as %q: %s\n  want JSON", send, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
	}
}
