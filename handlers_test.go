package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// This file is the manual of the API. Each row is a rule, a request that the
// rule decides, and the whole response. The language of the requests is that of
// the scenarios: testdata/scenarios/README.md explains it.
//
// Every password is "secret". The accounts are johndoe (1), admin (2, an admin),
// jane (3), dora (4, disabled) and dave (5, deleted). Their tokens are john, admin,
// jane, dora and dave; ended is a token of johndoe whose session has ended. Requests and
// responses that many rows have are named at the end of the file.

// A rule is one row of the manual.
type apiRule struct{ rule, do, want string }

func TestToken(t *testing.T) {
	otherGrant := oauthRefusal(400, "unsupported_grant_type", "unsupported_grant_type", "grant_type must be password or refresh_token")
	noLifetime := badForm("expires_in must be a whole number from 1 to 1800")
	threeTimes := "wait 700h ; " + refresh + " ; keep refresh_token as next ; wait 700h ; " +
		refreshNext + " ; keep refresh_token as next ; wait 700h ; " + refreshNext + " ; keep refresh_token as next ; "
	longPassword := `POST /users/ {"username":"alice","password":"` + strings.Repeat("x", 72) + `one"}`
	checkRules(t, []apiRule{
		{"a login returns an access token and a refresh token", "POST /token username=johndoe&password=secret", tokens},
		{"a login may state grant_type=password", "POST /token grant_type=password&username=johndoe&password=secret", tokens},
		{"an empty grant_type counts as absent", "POST /token grant_type=&username=johndoe&password=secret", tokens},
		{"a login accepts the username in any case of ASCII letters", "POST /token username=JohnDOE&password=secret", tokens},
		{"unknown form fields are ignored", "POST /token username=johndoe&password=secret&scope=all&client_id=x&client_secret=y", tokens},
		{"Basic credentials of a client are ignored at a login", `POST /token with "Authorization: Basic Y2xpZW50OnNlY3JldA==" username=johndoe&password=secret`, tokens},
		{"a token of an ended session is ignored at a login", "POST /token as ended username=johndoe&password=secret", tokens},
		{"the content type of a login may have parameters and any case of letters",
			`POST /token with "Content-Type: Application/X-WWW-Form-Urlencoded\t; charset=utf-8" username=johndoe&password=secret`, tokens},
		{"a broken parameter of a content type does not matter", `POST /token with "Content-Type: application/x-www-form-urlencoded; charset" username=johndoe&password=secret`, tokens},

		{"a wrong password is refused", "POST /token username=johndoe&password=wrong", wrongLogin},
		{"a password is case-sensitive", "POST /token username=johndoe&password=Secret", wrongLogin},
		{"a space before a password is not trimmed", "POST /token username=johndoe&password=+secret", wrongLogin},
		{"spaces around a username are not part of it", "POST /token username=++johndoe+&password=secret", tokens},
		{"an unknown username gets the same response as a wrong password", "POST /token username=nobody&password=secret", wrongLogin},
		{"a password counts to its last byte, where bcrypt reads 72", longPassword + " ; POST /token username=alice&password=" + strings.Repeat("x", 72) + "two", wrongLogin},
		{"a deleted account gets the same response as a wrong password", "POST /token username=dave&password=secret", wrongLogin},
		{"an invalid username gets the same response as a wrong password", "POST /token username=%00%FF&password=secret", wrongLogin},
		{"a password with NUL gets the same response as a wrong password", "POST /token username=johndoe&password=secret%00", wrongLogin},
		{"a password that is not UTF-8 gets the same response as a wrong password", "POST /token username=johndoe&password=%FF%FEsecret", wrongLogin},
		{"a password of 1025 bytes gets the same response as a wrong password", "POST /token username=johndoe&password=" + strings.Repeat("x", 1025), wrongLogin},
		{"a wrong password for a disabled account gets the same response as for any other", "POST /token username=dora&password=wrong", wrongLogin},
		{"a disabled account with the right password gets the error inactive_user", "POST /token username=dora&password=secret", noLogin},

		{"a refresh token is exchanged for its successor", "wait 1m ; " + refresh, tokens},
		{"the access token from a refresh is valid", refresh + " ; keep access_token as new ; GET /users/me/ as new", "200\n" + john},
		{"a refresh leaves earlier access tokens valid", refresh + " ; GET /users/me/ as john", "200\n" + john},
		{"an invalid refresh token is refused", "POST /token grant_type=refresh_token&refresh_token=rubbish", wrongRefresh},
		{"an access token is refused as a refresh token", "POST /token grant_type=refresh_token&refresh_token=$john", wrongRefresh},
		{"a refresh token of an ended session is refused", "POST /token grant_type=refresh_token&refresh_token=$ended.refresh", wrongRefresh},
		{"a refresh token of a deleted account is refused", "POST /token grant_type=refresh_token&refresh_token=$dave.refresh", wrongRefresh},
		{"a refresh token of a disabled account gets the error inactive_user", "POST /token grant_type=refresh_token&refresh_token=$dora.refresh", noLogin},

		{"a replaced refresh token returns the same successor for 60 s", refresh + " ; keep refresh_token as next ; wait 59999ms ; " + refresh, strings.Replace(tokens, "<refresh token>", "$next", 1)},
		{"a replaced refresh token is refused after 60 s", refresh + " ; wait 60s ; " + refresh, wrongRefresh},
		{"the replay of a refresh token ends its session", refresh + " ; keep access_token as new ; wait 60s ; " + refresh + " ; GET /users/me/ as new", badToken},
		{"the replay of a refresh token revokes its successor", refresh + " ; keep refresh_token as next ; wait 60s ; " + refresh + " ; " + refreshNext, wrongRefresh},
		{"a replaced refresh token returns the same successor after a restart", refresh + " ; keep refresh_token as next ; restart ; wait 59s ; " + refresh,
			strings.Replace(tokens, "<refresh token>", "$next", 1)},
		{"a refresh token two rotations old is refused at once", refresh + " ; keep refresh_token as next ; wait 1s ; " + refreshNext + " ; " + refresh, wrongRefresh},
		{"within a second of a rotation, a refresh token is its own successor", refresh + " ; keep refresh_token as next ; wait 999ms ; " + refreshNext,
			strings.NewReplacer("<access token>", "$john", "<refresh token>", "$next").Replace(tokens)},
		{"the replay of a refresh token ends no other session of the account", "login johndoe as other ; " + refresh + " ; wait 60s ; " + refresh + " ; GET /users/me/ as other", "200\n" + john},

		{"a session unused for 30 days expires", "wait 720h ; " + refresh, wrongRefresh},
		{"a session unused for one second less than 30 days is valid", "wait 719h59m59s ; " + refresh, tokens},
		{"a refresh extends the session", "wait 500h ; " + refresh + " ; keep refresh_token as next ; wait 500h ; " + refreshNext, tokens},
		{"a request with an access token does not extend the session",
			"wait 719h59m59s ; " + refresh + " ; keep access_token as new ; keep refresh_token as next ; GET /users/me/ as new ; wait 720h ; " + refreshNext, wrongRefresh},
		{"a session in use expires after 90 days", threeTimes + "wait 60h ; " + refreshNext, wrongRefresh},
		{"an access token expires no later than its session", threeTimes + "wait 59h50m ; " + refreshNext, strings.Replace(tokens, "1800", "600", 1)},

		{"a login may request a shorter lifetime of its access token", login + "&expires_in=5", strings.Replace(tokens, "1800", "5", 1)},
		{"an access token with a lifetime of 5 s is refused after 5 s", login + "&expires_in=5 ; keep access_token as brief ; wait 5s ; GET /users/me/ as brief", badToken},
		{"a refresh may request a shorter lifetime of its access token", refresh + "&expires_in=1", strings.Replace(tokens, "1800", "1", 1)},
		{"expires_in does not carry over to the next refresh", "wait 1m ; " + refresh + "&expires_in=1 ; keep refresh_token as next ; wait 1s ; " + refreshNext, tokens},
		{"-access-ttl is the life of an access token", "restart -access-ttl=1m ; " + login, strings.Replace(tokens, "1800", "60", 1)},
		{"expires_in may equal -access-ttl", "POST /token username=johndoe&password=secret&expires_in=1800", tokens},
		{"an empty expires_in counts as absent", "POST /token username=johndoe&password=secret&expires_in=", tokens},
		{"an expires_in above -access-ttl is refused", login + "&expires_in=1801", noLifetime},
		{"an expires_in of 0 is refused", login + "&expires_in=0", noLifetime},
		{"an expires_in that is not a whole number is refused", login + "&expires_in=5s", noLifetime},
		{"a request with an invalid expires_in is not a failed login", "repeat 9 POST /token username=johndoe&password=wrong&expires_in=0 ; " + login, tokens},

		{"a shorter -refresh-ttl applies to existing sessions", "wait 1h ; restart -refresh-ttl=1h ; " + refresh, wrongRefresh},
		{"a shorter -session-ttl applies to existing sessions", "wait 59m ; restart -session-ttl=1h ; " + refresh, strings.Replace(tokens, "1800", "60", 1)},
		{"a session in its last second cannot be refreshed",
			"restart -session-ttl=1h ; wait 500ms ; login johndoe as late ; wait 3599700ms ; POST /token grant_type=refresh_token&refresh_token=$late.refresh", wrongRefresh},

		{"a login without a username is refused", "POST /token password=secret", badForm("Missing form field: username")},
		{"a login without a password is refused", "POST /token username=johndoe", badForm("Missing form field: password")},
		{"an empty password counts as absent", "POST /token username=johndoe&password=", badForm("Missing form field: password")},
		{"a refresh without a refresh token is refused", "POST /token grant_type=refresh_token&username=johndoe&password=secret", badForm("Missing form field: refresh_token")},
		{"a grant_type other than password and refresh_token is refused", "POST /token grant_type=client_credentials", otherGrant},
		{"grant_type is case-sensitive", "POST /token grant_type=Password&username=johndoe&password=secret", otherGrant},
		{"a repeated form field is refused", "POST /token username=johndoe&password=wrong&password=secret", badForm("A form field is repeated")},
		{"a repeated unknown form field is refused", login + "&x=1&x=2", badForm("A form field is repeated")},
		{"a form with invalid percent-encoding is refused", "POST /token username=johndoe&password=%zz", badForm("The body is not a valid form")},
		{"a login with a JSON body is refused", `POST /token with "Content-Type: application/json" {"username":"johndoe","password":"secret"}`, notAForm},
		{"a login without a content type is refused", "POST /token", notAForm},
		{"a login with two content types is refused", `POST /token with "Content-Type: application/x-www-form-urlencoded" with "Content-Type: application/json" username=johndoe&password=secret`, notAForm},
		{"a form of 8 KiB is accepted", login + "&x=" + strings.Repeat("x", 8<<10-len("username=johndoe&password=secret&x=")), tokens},
		{"a form of more than 8 KiB is refused", login + "&x=" + strings.Repeat("x", 8<<10-len("username=johndoe&password=secret&x=")+1),
			oauthRefusal(413, "invalid_request", "too_large", "The body must be at most 8192 bytes long")},
		{"a login gets a 503 if the store cannot write", "store fails ; POST /token username=johndoe&password=secret", noStoreOAuth},
		{"a refresh gets a 503 if the store cannot write", "store fails ; " + refresh, noStoreOAuth},
		{"a login gets a 503 while the queue for hashing is full", "queue fills ; " + login, tooBusyOAuth},
		{"a refresh succeeds while the queue for hashing is full", "wait 1m ; queue fills ; " + refresh, tokens},
		{"a login whose form arrives too slowly gets a 408", "slowly " + login, oauthRefusal(408, "invalid_request", "request_timeout", "The request took too long to arrive")},
		{"a login must use POST, which keeps the password out of the URL", "GET /token", wrongMethod("POST")},
	})
}

func TestRevoke(t *testing.T) {
	checkRules(t, []apiRule{
		{"revoking an access token gets a 200 with an empty object", "POST /revoke token=$john", "200\n{}"},
		{"revoking an access token ends its session", "POST /revoke token=$john ; GET /users/me/ as john", badToken},
		{"revoking an access token revokes the refresh token of its session", "POST /revoke token=$john ; " + refresh, wrongRefresh},
		{"revoking a refresh token ends its session", "POST /revoke token=$john.refresh ; GET /users/me/ as john", badToken},
		{"revoking a replaced refresh token ends its session", refresh + " ; wait 1m ; POST /revoke token=$john.refresh ; GET /users/me/ as john", badToken},
		{"revoking a token ends no other session", "login johndoe as other ; POST /revoke token=$john ; GET /users/me/ as other", "200\n" + john},
		{"token_type_hint is ignored", "POST /revoke token=$john&token_type_hint=refresh_token ; GET /users/me/ as john", badToken},
		{"revoking an invalid token gets a 200 with an empty object", "POST /revoke token=rubbish", "200\n{}"},
		{"revoking an expired access token ends its session", "wait 30m ; POST /revoke token=$john ; " + refresh, wrongRefresh},
		{"revoking a token of an ended session gets a 200 with an empty object", "POST /revoke token=$ended", "200\n{}"},
		{"revoking a token of a deleted account gets a 200 with an empty object", "POST /revoke token=$dave.refresh", "200\n{}"},
		{"a disabled account can revoke its token", "POST /revoke token=$dora ; PATCH /users/4 as admin {\"disabled\":false} ; GET /users/me/ as dora", badToken},

		{"a revocation without a token is refused", "POST /revoke token_type_hint=access_token", badForm("Missing form field: token")},
		{"a revocation with an empty token is refused", "POST /revoke token=", badForm("Missing form field: token")},
		{"a revocation of two tokens is refused", "POST /revoke token=$john&token=$jane", badForm("A form field is repeated")},
		{"a revocation that is not a form is refused", `POST /revoke with "Content-Type: text/plain" token=$john`, notAForm},
		{"a revocation gets a 503 if the store cannot write", "store fails ; POST /revoke token=$john", noStoreOAuth},
		{"a revocation must use POST", "DELETE /revoke", wrongMethod("POST")},
	})
}

func TestIntrospect(t *testing.T) {
	onRefresh := strings.NewReplacer("946686600", "949276800", `"token_type":"bearer",`, "").Replace(onAccess)
	checkRules(t, []apiRule{
		{"an access token is active", "POST /introspect as admin token=$john", onAccess},
		{"a refresh token is active until its session expires", "POST /introspect as admin token=$john.refresh", onRefresh},
		{"the role in the response is the current one of the account", "PATCH /users/1 as admin {\"role\":\"admin\"} ; POST /introspect as admin token=$john",
			strings.Replace(onAccess, `"role":"user"`, `"role":"admin"`, 1)},
		{"a replaced refresh token is active during its grace period", refresh + " ; wait 59s ; POST /introspect as admin token=$john.refresh", onRefresh},
		{"a replaced refresh token is inactive after its grace period", refresh + " ; wait 60s ; POST /introspect as admin token=$john.refresh", off},
		{"introspecting a replaced refresh token is not a replay", refresh + " ; keep refresh_token as next ; wait 60s ; POST /introspect as admin token=$john.refresh ; " + refreshNext, tokens},

		{"an invalid token is inactive", "POST /introspect as admin token=rubbish", off},
		{"an expired access token is inactive", "wait 29m ; login admin as boss ; wait 1m ; POST /introspect as boss token=$john", off},
		{"an access token of an ended session is inactive", "POST /introspect as admin token=$ended", off},
		{"a refresh token of an ended session is inactive", "POST /introspect as admin token=$ended.refresh", off},
		{"an access token of a disabled account is inactive", "POST /introspect as admin token=$dora", off},
		{"a refresh token of a disabled account is inactive", "POST /introspect as admin token=$dora.refresh", off},
		{"an access token of a deleted account is inactive", "POST /introspect as admin token=$dave", off},
		{"a refresh token of a deleted account is inactive", "POST /introspect as admin token=$dave.refresh", off},

		{"introspection is not for users", "POST /introspect as john token=$john", forbiddenOAuth},
		{"introspection without credentials is refused", "POST /introspect token=$john", noClient},
		{"introspection with a token of an ended session is refused", "POST /introspect as ended token=$john",
			oauthRefusal(401, "invalid_token", "invalid_token", "Could not validate credentials", `WWW-Authenticate: Bearer error="invalid_token"`)},
		{"introspection by a disabled account is refused", "POST /introspect as dora token=$john", noLogin},
		{"introspection without the field token is refused", "POST /introspect as admin x=y", badForm("Missing form field: token")},
		{"introspection of two tokens is refused", "POST /introspect as admin token=$john&token=$jane", badForm("A form field is repeated")},
		{"introspection with a JSON body is refused", `POST /introspect as admin with "Content-Type: application/json" {"token":"$john"}`, notAForm},
		{"introspection must use POST", "GET /introspect as admin", wrongMethod("POST")},
		{"an access token is active until it expires, long after the login", "wait 29m59s ; login admin as boss ; POST /introspect as boss token=$john", onAccess},
	})
}

// TestIntrospectClient: a resource server introspects with the ID and secret of
// INTROSPECT_CLIENT, and can do nothing else with them.
func TestIntrospectClient(t *testing.T) {
	const (
		restart  = "restart INTROSPECT_CLIENT=rs0:5+5%is~a:secret! ; "
		form     = restart + "POST /introspect client_id=rs0&client_secret=5%2B5%25is~a:secret!&token="
		wrongKey = "POST /introspect client_id=rs0&client_secret=guess&token=$john"
	)
	basic := func(credentials string) string {
		return `with "Authorization: Basic ` + base64.StdEncoding.EncodeToString([]byte(credentials)) + `" `
	}
	encoded := basic("rs0:5%2B5%25is%7Ea%3Asecret%21")
	wrong := oauthRefusal(401, "invalid_client", "incorrect_login", "Incorrect client ID or secret", `WWW-Authenticate: Basic realm="stdauth"`)
	tooMany := tooManyLogins("1")
	noID := "POST /introspect client_id=%s&client_secret=guess&token=$john ; "
	guesses := fmt.Sprintf(strings.Repeat(noID, freeTries), "a", "b", "c", "d", "e")
	checkRules(t, []apiRule{
		{"a resource server introspects with HTTP Basic, both parts percent-encoded", restart + "POST /introspect " + encoded + "token=$john", onAccess},
		{"a resource server introspects with its ID and secret in the form", form + "$john", onAccess},
		{"the scheme of a resource server may be in any case", restart + "POST /introspect " + strings.Replace(encoded, "Basic", "bAsIC", 1) + "token=$john", onAccess},
		{"a refresh token is inactive for a resource server, or it would pass for an access token", form + "$john.refresh", off},
		{"an access token of an ended session is inactive for a resource server", form + "$ended", off},
		{"an access token of a disabled account is inactive for a resource server", form + "$dora", off},
		{"an admin introspects a refresh token although there is a resource server", restart + "POST /introspect as admin token=$ended.refresh", off},

		{"a wrong secret of a resource server is refused", restart + wrongKey, wrong},
		{"a wrong ID of a resource server is refused", restart + "POST /introspect client_id=rs1&client_secret=5%2B5%25is~a:secret!&token=$john", wrong},
		{"guesses for all IDs count together, so a delay does not tell which ID exists", restart + guesses + wrongKey, tooMany},
		{"a secret in HTTP Basic need not be percent-encoded, as some clients do not", restart + "POST /introspect " + basic("rs0:5+5%is~a:secret!") + "token=$john", onAccess},
		{"a secret in HTTP Basic that is half percent-encoded is another secret", restart + "POST /introspect " + basic("rs0:5+5%25is~a:secret!") + "token=$john", wrong},
		{"another scheme with the ID and secret of a resource server is refused", restart + "POST /introspect " + strings.Replace(encoded, "Basic", "Foo", 1) + "token=$john", noClient},
		{"HTTP Basic with a broken percent sign is refused", restart + "POST /introspect " + basic("rs0:5%") + "token=$john", wrong},
		{"HTTP Basic without a secret is refused", restart + "POST /introspect " + basic("rs0:") + "token=$john", wrong},
		{"a resource server without an ID is refused", restart + "POST /introspect client_secret=5%2B5%25is~a:secret!&token=$john", wrong},
		{"an ID of a resource server without a secret is no credentials", restart + "POST /introspect client_id=rs0&token=$john", noClient},
		{"no resource server is admitted if none is configured", "POST /introspect " + basic("rs0:secret") + "token=$john", wrong},
		{"an empty ID and secret are refused if no resource server is configured", "POST /introspect " + basic(":") + "token=$john", wrong},
		{"the ID and secret of a resource server do not help a user's token", restart + "POST /introspect as john client_id=rs0&client_secret=5%2B5%25is~a:secret!&token=$john", forbiddenOAuth},
		{"a resource server may do nothing else", restart + "GET /users/ " + encoded, noCredentials},
		{"a resource server is not an active user", restart + "GET /forward-auth " + encoded, noCredentials},

		{"the sixth wrong secret of a resource server must wait", restart + "repeat 6 " + wrongKey, tooMany},
		{"a wait applies even to the right secret", restart + "repeat 5 " + wrongKey + " ; " + strings.TrimPrefix(form, restart) + "$john", tooMany},
		{"a resource server at another address need not wait",
			restart + "repeat 5 " + wrongKey + " ; " + strings.Replace(strings.TrimPrefix(form, restart), "client_id", "from 192.0.2.2 client_id", 1) + "$john", onAccess},
		{"wrong secrets of a resource server do not throttle an account of that name",
			restart + `POST /users/ {"username":"rs0","password":"correct horse"} ; repeat 5 ` + wrongKey + " ; POST /token username=rs0&password=correct+horse", tokens},
	})
}

func TestForwardAuth(t *testing.T) {
	const who = "204\nRemote-User: johndoe\nRemote-Groups: user\nRemote-Email: johndoe@example.com\nRemote-Name: John Doe"
	const admin = "204\nRemote-User: admin\nRemote-Groups: admin\nRemote-Email: admin@example.com\nRemote-Name: Admin User"
	disabled := refusal(403, "inactive_user", "Inactive user")
	checkRules(t, []apiRule{
		{"a proxy learns who its client is", "GET /forward-auth as john", who},
		{"a proxy may use HEAD", "HEAD /forward-auth as john", who},
		{"what an account does not have is no header", "GET /forward-auth as jane", "204\nRemote-User: jane\nRemote-Groups: user"},
		{"a name in other letters than ASCII is sent as UTF-8", `PATCH /users/me/ as john {"full_name":"Jürgen Ж"} ; GET /forward-auth as john`, strings.Replace(who, "John Doe", "Jürgen Ж", 1)},
		{"a name with a space at its end is no header", `PATCH /users/me/ as john {"full_name":"John "} ; GET /forward-auth as john`, strings.TrimSuffix(who, "\nRemote-Name: John Doe")},
		{"?role=admin lets admins pass", "GET /forward-auth?role=admin as admin", admin},
		{"?role=admin refuses users", "GET /forward-auth?role=admin as john", forbidden},
		{"a second role in the query does not undo the first", "GET /forward-auth?role=user&role=admin as john", forbidden},
		{"an unknown role refuses users", "GET /forward-auth?role=editor as john", forbidden},
		{"?role=user lets users and admins pass", "GET /forward-auth?role=user as john ; GET /forward-auth?role=user as admin", admin},

		{"a client without a token is refused", "GET /forward-auth", noCredentials},
		{"a client with a refresh token is refused", "GET /forward-auth as john.refresh", badToken},
		{"a client whose session has ended is refused", "GET /forward-auth as ended", badToken},
		{"a disabled account is refused with a 403, as proxies know only 401 and 403", "GET /forward-auth as dora", disabled},
		{"two Authorization headers are refused with a 403, as proxies know only 401 and 403", "GET /forward-auth as john as admin", twoHeaders(403)},
		{"a secret in the query is refused with a 403, as proxies know only 401 and 403", "GET /forward-auth?token=x as john",
			refusal(403, "invalid_request", "A name or a secret must not be sent in the query string", `WWW-Authenticate: Bearer error="invalid_request"`)},
		{"a preflight request that a proxy passes on is answered", `OPTIONS /forward-auth with "Origin: https://app.example" with "Access-Control-Request-Method: PUT"`, "204\nAllow: GET, HEAD"},
		{"a store that cannot be read lets nobody pass", "store vanishes ; GET /forward-auth as john", noStore},
	})
}

// TestForwardAuthLeavesOut: an account of a hand-written file may have a name that would end
// a header.
func TestForwardAuthLeavesOut(t *testing.T) {
	inWorld(t, func(w *world) {
		w.addUser("eve", func(u *User) { u.FullName, u.Email = "Eve\r\nRemote-Groups: admin", "eve@example.com\x7f" })
		w.do("login eve as eve")
		w.want("an account with control characters", "GET /forward-auth as eve", "204\nRemote-User: eve\nRemote-Groups: user")
	})
}

func TestMetadata(t *testing.T) {
	at := func(base string) string {
		return "200\n" + strings.ReplaceAll(`{"grant_types_supported":["password","refresh_token"],"introspection_endpoint":"~/introspect",`+
			`"introspection_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post"],"issuer":"~","response_types_supported":[],"revocation_endpoint":"~/revoke",`+
			`"revocation_endpoint_auth_methods_supported":["none"],"service_documentation":"~/docs","token_endpoint":"~/token","token_endpoint_auth_methods_supported":["none"]}`, "~", base)
	}
	const (
		get     = "GET /.well-known/oauth-authorization-server "
		proxied = "restart -demo=false -trusted-proxy=10.0.0.0/8 ; " + get + "from 10.0.0.1 "
		https   = `with "X-Forwarded-Proto: https" `
	)
	own := at("http://127.0.0.1:8000") // where it listens
	checkRules(t, []apiRule{
		{"the metadata has the endpoints under -public-url", "restart -demo=false -public-url=https://id.example.com ; " + get, at("https://id.example.com")},
		{"without -public-url, the metadata has the loopback address that the server listens on", get, own},
		{"the Host of a stranger is not in the metadata", get + `with "Host: evil.example.com"`, own},
		{"-public-url wins over what a trusted proxy says",
			"restart -demo=false -public-url=https://id.example.com -trusted-proxy=10.0.0.0/8 ; " + get + "from 10.0.0.1 " + https + `with "X-Forwarded-Host: other.example.com"`,
			at("https://id.example.com")},
		{"a trusted proxy says where clients reach the server", proxied + https + `with "X-Forwarded-Host: id.example.com:8443"`, at("https://id.example.com:8443")},
		{"a trusted proxy knows better than the address that the server listens on",
			"restart -demo=false -public-url=http://127.0.0.1:8000 -trusted-proxy=10.0.0.0/8 ; " + get + "from 10.0.0.1 " + https + `with "X-Forwarded-Host: id.example.com"`,
			at("https://id.example.com")},
		{"a stranger does not say where clients reach the server",
			"restart -demo=false -trusted-proxy=10.0.0.0/8 ; " + get + "from 192.0.2.7 " + https + `with "X-Forwarded-Host: evil.example.com"`, own},
		{"a forwarded host with a path is not used", proxied + https + `with "X-Forwarded-Host: id.example.com/evil"`, own},
		{"a forwarded host with a name before it is not used", proxied + https + `with "X-Forwarded-Host: evil@id.example.com"`, own},
		{"of two forwarded hosts none is used", proxied + https + `with "X-Forwarded-Host: evil.example.com, id.example.com"`, own},
		{"of two headers with forwarded hosts none is used", proxied + https + `with "X-Forwarded-Host: evil.example.com" with "X-Forwarded-Host: id.example.com"`, own},
		{"a forwarded scheme other than http and https is not used", proxied + `with "X-Forwarded-Proto: javascript" with "X-Forwarded-Host: id.example.com"`, own},
		{"a password manager is sent to the form of the page", "GET /.well-known/change-password", "302\nLocation: /docs#change-password"},
	})
	inWorld(t, func(w *world) {
		w.server.PublicURL = "" // on an address that is not loopback
		w.want("without an address", get, refusal(404, "not_found", "The server does not know its address: it was started without -public-url"))
	})
}

func TestRegister(t *testing.T) {
	created := "201\nLocation: /users/6\n"
	with := func(member string) string {
		return `POST /users/ {"username":"alice","password":"correct horse",` + member + `}`
	}
	name := func(name string) string {
		return `POST /users/ {"username":"` + name + `","password":"correct horse"}`
	}
	password := func(password string) string {
		return `POST /users/ {"username":"alice","password":"` + password + `"}`
	}
	const (
		badName     = "must be 1 to 64 of ASCII letters, digits and @ . + - _"
		badPassword = "must be at least 8 characters long"
		common      = "is one of the most common passwords"
		badEmail    = "must be one email address of at most 254 bytes"
		badFullName = "must be text without control characters"
		unknown     = "is not a field of this request"
	)
	var many, firstTwenty []string
	for i := range 25 {
		many = append(many, fmt.Sprintf(`"field%d":0`, i))
		if i < 20 {
			firstTwenty = append(firstTwenty, fmt.Sprintf("field%d %s", i, unknown))
		}
	}
	checkRules(t, []apiRule{
		{"a username and a password create an account", `POST /users/ {"username":"alice","password":"correct horse"}`, created + alice},
		{"a registration may set an email and a full name", `POST /users/ {"username":"alice","password":"correct horse","email":"a@example.com","full_name":"Alice Ä."}`,
			created + `{"id":6,"username":"alice","email":"a@example.com","email_verified":false,"full_name":"Alice Ä.","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"null as email or full name counts as absent", `POST /users/ {"username":"alice","password":"correct horse","email":null,"full_name":null}`, created + alice},
		{"created_at is the time of the registration", "wait 90s ; " + register, created + strings.Replace(alice, "00:00:00Z", "00:01:30Z", 1)},
		{"a new account can log in", register + " ; POST /token username=alice&password=correct+horse", tokens},
		{"a username keeps the case of its letters", `POST /users/ {"username":"AliCE","password":"correct horse"}`, created + strings.Replace(alice, "alice", "AliCE", 1)},
		{"an ID is never reused", "DELETE /users/4 as admin ; " + register, created + alice},
		{"the content type of a registration may have parameters", `POST /users/ with "Content-Type: application/json; charset=utf-8" {"username":"alice","password":"correct horse"}`, created + alice},
		{"the password of the article is accepted", password("newpassword"), created + alice},
		{"a bearer token sent with a registration changes nothing", `POST /users/ as admin {"username":"alice","password":"correct horse"}`, created + alice},

		{"a taken username is refused", name("johndoe"), nameTaken},
		{"a taken username is refused in any case of letters", name("JohnDoe"), nameTaken},
		{"the username of a disabled account is taken", name("dora"), nameTaken},
		{"the username of a deleted account is available", name("dave"), created + strings.Replace(alice, "alice", "dave", 1)},

		{"username and password are required", `POST /users/ {}`, invalidFields("username is required", "password is required")},
		{"a response lists at most 20 invalid fields", `POST /users/ {` + strings.Join(many, ",") + `}`, invalidFields(firstTwenty...)},
		{"a response lists all invalid fields", `POST /users/ {"username":"a b","password":"short","email":"x","full_name":"\u0007","role":"admin","disabled":1}`,
			invalidFields("username "+badName, "email "+badEmail, "full_name "+badFullName, "role "+unknown, "disabled "+unknown, "password "+badPassword)},
		{"a registration cannot set the role", with(`"role":"admin"`), invalidFields("role " + unknown)},
		{"a registration cannot set the ID", with(`"id":1`), invalidFields("id " + unknown)},
		{"disabled is refused, even if it is false", with(`"disabled":false`), invalidFields("disabled " + unknown)},
		{"an unknown field is refused by its name", with(`"nickname":"al"`), invalidFields("nickname " + unknown)},
		{"field names are case-sensitive", with(`"Email":"a@example.com"`), invalidFields("Email " + unknown)},
		{"a repeated field is refused", `POST /users/ {"username":"alice","username":"bob","password":"correct horse"}`, invalidFields("username is given more than once")},
		{"a number is refused as username and as password", `POST /users/ {"username":1,"password":12345678}`, invalidFields("username must be a string", "password must be a string")},
		{"null is refused as username and as password", `POST /users/ {"username":null,"password":null}`, invalidFields("username must be a string", "password must be a string")},
		{"an array is refused as email, and a boolean as full name", with(`"email":["a@example.com"],"full_name":true`),
			invalidFields("email must be a string or null", "full_name must be a string or null")},

		{"an empty username is refused", name(""), invalidFields("username " + badName)},
		{"a username may be an email address", name("A.b+c-d_e@example.com0"), created + strings.Replace(alice, "alice", "A.b+c-d_e@example.com0", 1)},
		{"a username with a space is refused", name("al ice"), invalidFields("username " + badName)},

		{"a password of 7 characters is refused", password("7 signs"), invalidFields("password " + badPassword)},
		{"a password of 1025 bytes is refused", password(strings.Repeat("x", 1025)), invalidFields("password must be at most 1024 bytes long")},
		{"a password with NUL at the end, which HMAC ignores, is refused", password(`correct horse\u0000`), invalidFields("password must be valid UTF-8 without NUL and U+FFFD")},
		{"a password that contains the username in any case of letters is refused", `POST /users/ {"username":"alice","password":"my ALICE in"}`, invalidFields("password must not contain the username")},
		{"a common password is refused", password("password1"), invalidFields("password " + common)},

		{"an email without an @ is refused", with(`"email":"alice"`), invalidFields("email " + badEmail)},
		{"an empty email counts as absent", with(`"email":""`), created + alice},
		{"spaces around a username are not part of it", name("  alice "), created + alice},

		{"a full name of 201 characters is refused", with(`"full_name":"` + strings.Repeat("ä", 201) + `"`), invalidFields("full_name must be at most 200 characters long")},
		{"a full name of spaces is refused", with(`"full_name":"  "`), invalidFields("full_name must not be only spaces")},
		{"a full name with an ASCII control character is refused", with(`"full_name":"Alice\u001b[2J"`), invalidFields("full_name " + badFullName)},

		{"invalid JSON is refused with the position of the error", `POST /users/ {"username":"alice",}`, notJSON("invalid character '}' looking for beginning of object key string (byte 21)")},
		{"an empty JSON body is refused", `POST /users/ with "Content-Type: application/json"`, notJSON("unexpected end of JSON input (byte 0)")},
		{"data after the JSON object is refused", name("alice") + `{}`, notJSON("invalid character '{' after top-level value (byte 48)")},
		{"a JSON array is refused", `POST /users/ []`, invalidFields(" must be a JSON object")},
		{"a registration as a form is refused", `POST /users/ with "Content-Type: application/x-www-form-urlencoded" username=alice&password=correct+horse`, notJSONType},
		{"a registration as a merge patch is refused", `POST /users/ with "Content-Type: application/merge-patch+json" {"username":"alice","password":"correct horse"}`, notJSONType},
		{"text/plain, which any site may send without a preflight request, is refused", `POST /users/ with "Content-Type: text/plain" {"username":"alice","password":"correct horse"}`, notJSONType},
		{"a registration whose body arrives too slowly gets a 408", "slowly " + name("alice"), refusal(408, "request_timeout", "The request took too long to arrive")},
		{"a registration gets a 503 while the queue for hashing is full", "queue fills ; " + name("alice"), tooBusy},
		{"a JSON body of more than 64 KiB is refused", name("alice") + strings.Repeat(" ", 64<<10), refusal(413, "too_large", "The body must be at most 65536 bytes long")},
		{"a registration gets a 503 if the store cannot write", "store fails ; " + name("alice"), noStore},

		{"closed registration requires a token", "restart -registration=closed ; " + name("alice"), noCredentials},
		{"closed registration refuses a user who is not an admin", `restart -registration=closed ; POST /users/ as john {"username":"alice","password":"correct horse"}`, forbidden},
		{"closed registration lets an admin create an account", `restart -registration=closed ; POST /users/ as admin {"username":"alice","password":"correct horse"}`, created + alice},
		{"closed registration does not let an admin set the role",
			`restart -registration=closed ; POST /users/ as admin {"username":"alice","password":"correct horse","role":"admin"}`, invalidFields("role " + unknown)},
	})
}

func TestListUsers(t *testing.T) {
	limit := invalidFields("limit must be a whole number from 1 to 1000")
	after := invalidFields("after must be a whole number from 0 to 4611686018427387904")
	const all = "200\n[" + john + ",\n" + boss + ",\n" + jane + ",\n" + dora + "]"
	checkRules(t, []apiRule{
		{"an admin lists all accounts in the order of their IDs", "GET /users/ as admin", all},
		{"limit sets the size of a page, and Link leads to the next", "GET /users/?limit=2 as admin", "200\n" + `Link: </users/?limit=2&after=2>; rel="next"` + "\n[" + john + ",\n" + boss + "]"},
		{"the last page has no Link", "GET /users/?limit=2&after=2 as admin", "200\n[" + jane + ",\n" + dora + "]"},
		{"a full page has no Link if it is the last", "GET /users/?limit=4 as admin", all},
		{"after=3 skips accounts 1 to 3, and limit may be 1000", "PATCH /users/4 as admin {} ; GET /users/?after=3&limit=1000 as admin", "200\n[" + dora + "]"},
		{"a page after the last account is empty", "GET /users/?after=99 as admin", "200\n[]"},
		{"after=0 starts at the first account", "GET /users/?limit=1&after=0 as admin", "200\n" + `Link: </users/?limit=1&after=1>; rel="next"` + "\n[" + john + "]"},
		{"an unknown query parameter is ignored", "GET /users/?page=2 as admin", all},

		{"name finds an account in any case of letters", "GET /users/?name=JaNe as admin", "200\n[" + jane + "]"},
		{"name finds no part of a name", "GET /users/?name=jan as admin", "200\n[]"},
		{"email finds the accounts with exactly this address", "GET /users/?email=johndoe@example.com as admin", "200\n[" + john + "]"},
		{"email distinguishes upper and lower case", "GET /users/?email=Johndoe@example.com as admin", "200\n[]"},
		{"name and email must both fit", "GET /users/?name=admin&email=johndoe@example.com as admin", "200\n[]"},
		{"the next page has the same email", `PATCH /users/1 as admin {"email":"a+b@example.com"} ; ` +
			`PATCH /users/3 as admin {"email":"a+b@example.com"} ; GET /users/?email=a%2Bb@example.com&limit=1 as admin`,
			"200\n" + `Link: </users/?limit=1&after=1&email=a%2Bb%40example.com>; rel="next"` + "\n[" + strings.Replace(john, "johndoe@example", "a+b@example", 1) + "]"},

		{"limit=0 is refused", "GET /users/?limit=0 as admin", limit},
		{"limit=1001 is refused", "GET /users/?limit=1001 as admin", limit},
		{"a limit that is not a number is refused", "GET /users/?limit=ten as admin", limit},
		{"an empty limit is refused", "GET /users/?limit= as admin", limit},
		{"a repeated limit is refused", "GET /users/?limit=1&limit=2 as admin", limit},
		{"after=-1 is refused", "GET /users/?after=-1 as admin", after},
		{"an after that overflows 64 bits is refused", "GET /users/?after=99999999999999999999 as admin", after},
		{"an invalid limit and an invalid after are reported together", "GET /users/?limit=x&after=y as admin",
			invalidFields("limit must be a whole number from 1 to 1000", "after must be a whole number from 0 to 4611686018427387904")},

		{"listing the accounts is for admins only", "GET /users/ as john", forbidden},
		{"a promotion takes effect on existing tokens", `PATCH /users/1 as admin {"role":"admin"} ; GET /users/?after=3 as john`, "200\n[" + dora + "]"},
		{"a demotion takes effect on existing tokens", `PATCH /users/1 as admin {"role":"admin"} ; PATCH /users/2 as john {"role":"user"} ; GET /users/ as admin`, forbidden},
		{"a new account named admin is not an admin",
			`PATCH /users/1 as admin {"role":"admin"} ; ` + `DELETE /users/2 as john ; ` + `POST /users/ {"username":"admin","password":"correct horse"} ; ` +
				`POST /token username=admin&password=correct+horse ; ` + `keep access_token as fake ; ` + `GET /users/ as fake`,
			forbidden},
	})

	inWorld(t, func(w *world) {
		for i := range 150 {
			w.addUser(fmt.Sprintf("user%03d", i))
		}
		w.do("login admin as admin")
		got := w.do("GET /users/ as admin")
		if count := strings.Count(got, `"id":`); count != 100 || !strings.Contains(got, `Link: </users/?limit=100&after=100>; rel="next"`) {
			t.Errorf("GET /users/ with 152 accounts returns %d of them: %.200s\n  want 100, the default, and a link", count, got)
		}
	})
}

func TestMe(t *testing.T) {
	patched := func(old, new string) string { return "200\n" + strings.Replace(john, old, new, 1) }
	checkRules(t, []apiRule{
		{"a token identifies its account", "GET /users/me/ as john", "200\n" + john},
		{"HEAD is GET without the body", "HEAD /users/me/ as john", "200"},
		{"the scheme Bearer is case-insensitive", `GET /users/me/ with "Authorization: bEARER $john"`, "200\n" + john},
		{"the scheme Bearer may be followed by several spaces", `GET /users/me/ with "Authorization: Bearer   $john"`, "200\n" + john},

		{"a request without a token is refused", "GET /users/me/", noCredentials},
		{"Basic credentials are refused", `GET /users/me/ with "Authorization: Basic am9obmRvZTpzZWNyZXQ="`, noCredentials},
		{"the scheme Bearer without a token is refused", `GET /users/me/ with "Authorization: Bearer "`, noCredentials},
		{"the scheme Bearer twice is refused", `GET /users/me/ with "Authorization: Bearer Bearer $john"`, badToken},
		{"a token without the scheme Bearer is refused", `GET /users/me/ with "Authorization: $john"`, noCredentials},
		{"the scheme Bearer without a space before the token is refused", `GET /users/me/ with "Authorization: Bearer$john"`, noCredentials},
		{"a token in a cookie is ignored", `GET /users/me/ with "Cookie: access_token=$john"`, noCredentials},
		{"an invalid token is refused", `GET /users/me/ with "Authorization: Bearer rubbish"`, badToken},
		{"two tokens in one Authorization header are refused", `GET /users/me/ with "Authorization: Bearer $john, Bearer $john"`, badToken},
		{"text after the token is refused", `GET /users/me/ with "Authorization: Bearer $john x"`, badToken},
		{"a refresh token is refused as an access token", `GET /users/me/ as john.refresh`, badToken},
		{"an access token is accepted in its last second", "wait 29m59s ; GET /users/me/ as john", "200\n" + john},
		{"an access token is refused when it expires", "wait 30m ; GET /users/me/ as john", badToken},
		{"a token of an ended session is refused", "GET /users/me/ as ended", badToken},
		{"a token of a deleted account is refused", "GET /users/me/ as dave", badToken},
		{"a token of a disabled account gets the error inactive_user", "GET /users/me/ as dora", inactive},
		{"enabling an account does not restore its sessions", `PATCH /users/4 as admin {"disabled":false} ; GET /users/me/ as dora`, badToken},

		{"a user changes their email", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"secret"}`, patched("johndoe@example.com", "j@example.com")},
		{"a user changes their full name", `PATCH /users/me/ as john {"full_name":"J. \"D\" Doe"}`, patched("John Doe", `J. \"D\" Doe`)},
		{"null removes the email and the full name", `PATCH /users/me/ as john {"email":null,"full_name":null,"current_password":"secret"}`,
			"200\n" + `{"id":1,"username":"johndoe","email":null,"email_verified":false,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"an empty patch changes nothing", `PATCH /users/me/ as john {}`, "200\n" + john},
		{"a patch is stored", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"secret"} ; GET /users/me/ as john`, patched("johndoe@example.com", "j@example.com")},
		{"a patch may have the content type application/json", `PATCH /users/me/ as john with "Content-Type: application/json" {"email":"j@example.com","current_password":"secret"}`,
			patched("johndoe@example.com", "j@example.com")},
		{"a patch with the content type application/json-patch+json is refused", `PATCH /users/me/ as john with "Content-Type: application/json-patch+json" []`,
			refusal(415, "unsupported_media_type", "The Content-Type must be application/merge-patch+json or application/json")},
		{"a user cannot change their role", `PATCH /users/me/ as john {"role":"admin"}`, invalidFields("role is not a field of this request")},
		{"a patch follows the rules of registration", `PATCH /users/me/ as john {"email":"j","full_name":"\n","current_password":"secret"}`,
			invalidFields("email must be one email address of at most 254 bytes", "full_name must not be only spaces")},
		{"an invalid patch changes nothing", `PATCH /users/me/ as john {"email":"j@example.com","full_name":1,"current_password":"secret"} ; GET /users/me/ as john`, "200\n" + john},
		{"a patch of invalid JSON is refused with the position of the error", `PATCH /users/me/ as john {"email"}`, notJSON("invalid character '}' after object key (byte 9)")},
		{"a patch gets a 503 if the store cannot write", `store fails ; PATCH /users/me/ as john {"email":null,"current_password":"secret"}`, noStore},

		{"a user deletes their account with their password", `DELETE /users/me/ as john {"password":"secret"}`, "204"},
		{"deleting an account ends its sessions", `DELETE /users/me/ as john {"password":"secret"} ; GET /users/me/ as john`, badToken},
		{"a deleted account is not found", `DELETE /users/me/ as john {"password":"secret"} ; GET /users/1 as admin`, notFound},
		{"deleting an account with a wrong password is refused", `DELETE /users/me/ as john {"password":"wrong"}`, wrongPassword},
		{"deleting an account with a wrong password changes nothing", `DELETE /users/me/ as john {"password":"wrong"} ; GET /users/me/ as john`, "200\n" + john},
		{"deleting an account without a password is refused", `DELETE /users/me/ as john {}`, invalidFields("password is required")},
		{"deleting an account with null as password is refused", `DELETE /users/me/ as john {"password":null}`, invalidFields("password must be a string")},
		{"deleting an account without a body is refused", `DELETE /users/me/ as john`, notJSONType},
		{"the last admin cannot delete their account", `DELETE /users/me/ as admin {"password":"secret"}`, lastAdmin},
		{"an admin can delete their account if there is another admin", `PATCH /users/1 as admin {"role":"admin"} ; DELETE /users/me/ as admin {"password":"secret"}`, "204"},
		{"deleting an account gets a 503 if the store cannot write", `store fails ; DELETE /users/me/ as john {"password":"secret"}`, noStore},
	})
}

func TestPassword(t *testing.T) {
	const change = `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`
	checkRules(t, []apiRule{
		{"a password change returns the tokens of a new session", change, tokens},
		{"the access token from a password change is valid", change + " ; keep access_token as new ; GET /users/me/ as new", "200\n" + john},
		{"a password change ends the calling session", change + " ; GET /users/me/ as john", badToken},
		{"a password change ends every other session of the account", "login johndoe as other ; " + change + " ; GET /users/me/ as other", badToken},
		{"a password change revokes refresh tokens", change + " ; " + refresh, wrongRefresh},
		{"the old password is refused after a password change", change + " ; POST /token username=johndoe&password=secret", wrongLogin},
		{"the new password is accepted after a password change", change + " ; POST /token username=johndoe&password=correct+horse", tokens},
		{"a password change ends no session of another account", change + " ; GET /users/me/ as jane", "200\n" + jane},

		{"a password change with a wrong current password is refused", `PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"}`, wrongPassword},
		{"a password change with a wrong current password changes nothing",
			`PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"} ; GET /users/me/ as john`, "200\n" + john},
		{"current_password and new_password are required", `PUT /users/me/password as john {}`, invalidFields("current_password is required", "new_password is required")},
		{"a new password of 6 characters is refused", `PUT /users/me/password as john {"current_password":"secret","new_password":"secret"}`,
			invalidFields("new_password must be at least 8 characters long")},
		{"a common password is refused as a new password", `PUT /users/me/password as john {"current_password":"secret","new_password":"12345678"}`,
			invalidFields("new_password is one of the most common passwords")},
		{"a password change with an unknown field is refused", `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse","user_id":2}`,
			invalidFields("user_id is not a field of this request")},
		{"a password change gets a 503 if the store cannot write", "store fails ; " + change, noStore},

		{"an admin resets the password of another account", `PUT /users/1/password as admin {"new_password":"correct horse"}`, "204"},
		{"the new password is accepted after a password reset", setPassword + " ; POST /token username=johndoe&password=correct+horse", tokens},
		{"a password reset ends the sessions of the account", setPassword + " ; GET /users/me/ as john", badToken},
		{"a password reset does not end the admin's session", setPassword + " ; GET /users/me/ as admin", "200\n" + boss},
		{"a password reset does not enable a disabled account", `PUT /users/4/password as admin {"new_password":"correct horse"} ; POST /token username=dora&password=correct+horse`, noLogin},
		{"a password reset without new_password is refused", `PUT /users/1/password as admin {}`, invalidFields("new_password is required")},
		{"an admin cannot reset their own password", `PUT /users/2/password as admin {"new_password":"correct horse"}`, ownPassword},
		{"a new password that contains the username of its account is refused",
			`POST /users/ {"username":"alice.liddell","password":"correct horse"} ; PUT /users/6/password as admin {"new_password":"ALICE.Liddell"}`,
			invalidFields("new_password must not contain the username")},
		{"a password reset of an unknown account gets a 404", `PUT /users/99/password as admin {"new_password":"correct horse"}`, notFound},
		{"a user cannot reset a password, not even their own", `PUT /users/1/password as john {"new_password":"correct horse"}`, forbidden},
		{"a password reset gets a 503 if the store cannot write", "store fails ; " + setPassword, noStore},
	})
}

func TestSessions(t *testing.T) {
	const one = `{"id":"$john.sid","created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-31T00:00:00Z",` +
		`"user_agent":"","ip":"192.0.2.1","current":true}`
	by := func(agent string) string {
		return strings.NewReplacer("$john.sid", "<session>", `"user_agent":""`, `"user_agent":"`+agent+`"`).Replace(one)
	}
	const shown = ` username=jane&password=secret ; keep access_token as new ; DELETE /users/me/sessions as new ; GET /users/me/sessions as new`
	checkRules(t, []apiRule{
		{"a login appears in the list of sessions", "GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"a session has the address and the user agent of its login",
			`POST /token from 2001:db8::1 with "User-Agent: Firefox/140" username=johndoe&password=secret ; GET /users/me/sessions as john`,
			"200\n[" + one + ",\n" + strings.NewReplacer("192.0.2.1", "2001:db8::1", "true", "false").Replace(by("Firefox/140")) + "]"},
		{"the calling session is marked as current", "login johndoe as other ; GET /users/me/sessions as other",
			"200\n[" + strings.Replace(one, "true", "false", 1) + ",\n" + strings.Replace(one, "john.sid", "other.sid", 1) + "]"},
		{"a refresh updates last_used_at and expires_at", "wait 20m ; " + refresh + " ; GET /users/me/sessions as john",
			"200\n[" + strings.NewReplacer(`used_at":"2000-01-01T00:00`, `used_at":"2000-01-01T00:20`, "31T00:00", "31T00:20").Replace(one) + "]"},
		{"a request with an access token does not update last_used_at", "wait 20m ; GET /users/me/ as john ; GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"a user agent is cut to 256 bytes, and a character that is cut becomes a question mark",
			`POST /token with "User-Agent: ` + strings.Repeat("a", 255) + `ä"` + shown, "200\n[" + by(strings.Repeat("a", 255)+"?") + "]"},
		{"a character of a user agent that turns text around becomes a question mark",
			"POST /token with \"User-Agent: a\u202eb\u2066c\u0085d\"" + shown, "200\n[" + by("a?b?c?d") + "]"},

		{"a session can be ended by its ID", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john", "204"},
		{"a token of a session that was ended by its ID is refused", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john ; GET /users/me/ as other", badToken},
		{"ending another session by its ID does not end the calling session", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john ; GET /users/me/ as john", "200\n" + john},
		{"the calling session can be ended by its ID", "DELETE /users/me/sessions/$john.sid as john ; GET /users/me/ as john", badToken},
		{"ending the session of another account by its ID gets a 404", "DELETE /users/me/sessions/$jane.sid as john", notFound},
		{"a session cannot be ended by another account", "DELETE /users/me/sessions/$jane.sid as john ; GET /users/me/ as jane", "200\n" + jane},
		{"an admin cannot end another account's session under /users/me/", "DELETE /users/me/sessions/$jane.sid as admin", notFound},
		{"ending an ended session gets a 404", "DELETE /users/me/sessions/$ended.sid as john", notFound},
		{"ending a session by an invalid ID gets a 404", "DELETE /users/me/sessions/rubbish as john", notFound},
		{"ending a session gets a 503 if the store cannot write", "store fails ; DELETE /users/me/sessions/$john.sid as john", noStore},

		{"an admin lists the sessions of an account", "GET /users/1/sessions as admin", "200\n[" + strings.Replace(one, "true", "false", 1) + "]"},
		{"an admin's own session is marked as current", "GET /users/2/sessions as admin", "200\n[" + strings.Replace(one, "john.sid", "admin.sid", 1) + "]"},
		{"an account without sessions has an empty list", "DELETE /users/1/sessions as admin ; GET /users/1/sessions as admin", "200\n[]"},
		{"an admin ends all sessions of an account", "DELETE /users/1/sessions as admin ; GET /users/me/ as john", badToken},
		{"ending all sessions of an account ends none of another account", "DELETE /users/1/sessions as admin ; GET /users/me/ as jane", "200\n" + jane},
		{"an admin can end all of their own sessions", "DELETE /users/2/sessions as admin ; GET /users/me/ as admin", badToken},
		{"listing the sessions of an unknown account gets a 404", "GET /users/99/sessions as admin", notFound},
		{"ending the sessions of an unknown account gets a 404", "DELETE /users/99/sessions as admin", notFound},
		{"ending the sessions of an account gets a 503 if the store cannot write", "store fails ; DELETE /users/1/sessions as admin", noStore},

		{"a user ends all their other sessions", "login johndoe as other ; DELETE /users/me/sessions as john", "204"},
		{"a token of a session that was ended from another one is refused", "login johndoe as other ; DELETE /users/me/sessions as john ; GET /users/me/ as other", badToken},
		{"ending all other sessions does not end the calling session", "login johndoe as other ; DELETE /users/me/sessions as john ; GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"ending all other sessions ends none of another account", "DELETE /users/me/sessions as john ; GET /users/me/ as jane", "200\n" + jane},
		{"ending all other sessions gets a 503 if the store cannot write", "store fails ; DELETE /users/me/sessions as john", noStore},
	})
}

func TestOneUser(t *testing.T) {
	patch := func(id int, patch string) string { return fmt.Sprintf("PATCH /users/%d as admin %s", id, patch) }
	checkRules(t, []apiRule{
		{"a user reads their own account by its ID", "GET /users/1 as john", "200\n" + john},
		{"an admin reads any account", "GET /users/4 as admin", "200\n" + dora},
		{"a user cannot read another account", "GET /users/3 as john", forbidden},
		{"a user does not learn whether an account exists", "GET /users/99 as john", forbidden},
		{"a user does not learn whether an ID is valid", "GET /users/x as john", forbidden},
		{"an admin gets a 404 for an unknown account", "GET /users/99 as admin", notFound},
		{"an admin gets a 404 for a deleted account", "GET /users/5 as admin", notFound},
		{"a username is not an ID", "GET /users/johndoe as admin", notFound},
		{"0 is not an ID", "GET /users/0 as admin", notFound},
		{"a number that overflows 64 bits is not an ID", "GET /users/99999999999999999999 as admin", notFound},

		{"an admin changes the email and full name of an account", patch(3, `{"email":"j@example.com","full_name":"Jane"}`),
			"200\n" + `{"id":3,"username":"jane","email":"j@example.com","email_verified":false,"full_name":"Jane","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"an admin removes the email and full name of an account", patch(1, `{"email":null,"full_name":null}`),
			"200\n" + `{"id":1,"username":"johndoe","email":null,"email_verified":false,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"an admin disables an account", patch(3, `{"disabled":true}`), "200\n" + strings.Replace(jane, `"disabled":false`, `"disabled":true`, 1)},
		{"disabling an account takes effect at once", patch(3, `{"disabled":true}`) + " ; GET /users/me/ as jane", inactive},
		{"an admin enables an account", patch(4, `{"disabled":false}`), "200\n" + strings.Replace(dora, "true", "false", 1)},
		{"an admin promotes an account", patch(3, `{"role":"admin"}`), "200\n" + strings.Replace(jane, `"role":"user"`, `"role":"admin"`, 1)},
		{"an unknown role is refused", patch(3, `{"role":"root"}`), invalidFields(`role must be "user" or "admin"`)},
		{"the name of a role is case-sensitive", patch(3, `{"role":"Admin"}`), invalidFields(`role must be "user" or "admin"`)},
		{"null is refused as role and as disabled", patch(3, `{"role":null,"disabled":null}`), invalidFields("role must be a string", "disabled must be true or false")},
		{"a string with U+FFFD is refused for a boolean field", patch(3, `{"disabled":"\uFFFD"}`), invalidFields("disabled must be true or false")},
		{"an admin cannot change a username or an ID", patch(3, `{"username":"x","id":9}`), invalidFields("username is not a field of this request", "id is not a field of this request")},
		{"an admin cannot change a password hash", patch(3, `{"password_hash":"x"}`), invalidFields("password_hash is not a field of this request")},
		{"a patch of an unknown account gets a 404", patch(99, `{}`), notFound},
		{"a user cannot patch an account by its ID, not even their own", `PATCH /users/1 as john {"email":null}`, forbidden},
		{"the last active admin cannot be demoted", patch(2, `{"role":"user"}`), lastAdmin},
		{"the last active admin cannot be disabled", patch(2, `{"disabled":true}`), lastAdmin},
		{"a disabled admin does not count as an active one", patch(4, `{"role":"admin"}`) + " ; " + patch(2, `{"role":"user"}`), lastAdmin},
		{"an admin can be demoted if there is another one", patch(3, `{"role":"admin"}`) + " ; " + patch(2, `{"role":"user"}`), "200\n" + strings.Replace(boss, `"role":"admin"`, `"role":"user"`, 1)},
		{"a patch of an account gets a 503 if the store cannot write", "store fails ; " + patch(3, `{"disabled":true}`), noStore},

		{"an admin deletes an account", "DELETE /users/3 as admin", "204"},
		{"an account that an admin deleted is not found", "DELETE /users/3 as admin ; GET /users/3 as admin", notFound},
		{"a token of an account that an admin deleted is refused", "DELETE /users/3 as admin ; GET /users/me/ as jane", badToken},
		{"deleting a deleted account gets a 404", "DELETE /users/5 as admin", notFound},
		{"an admin cannot delete their own account without the password", "DELETE /users/2 as admin", refusal(403, "own_account", "Delete your own account at /users/me/, with its password")},
		{"a user cannot delete another account", "DELETE /users/3 as john", forbidden},
		{"a user cannot delete their account by its ID", "DELETE /users/1 as john", forbidden},
		{"deleting an account by its ID gets a 503 if the store cannot write", "store fails ; DELETE /users/3 as admin", noStore},
	})
}

func TestHealth(t *testing.T) {
	const ok = "200\n" + `{"status":"ok"}`
	checkRules(t, []apiRule{
		{"healthz is ok while the process runs", "GET /healthz", ok},
		{"healthz is ok even if the store cannot write", "store fails ; GET /healthz", ok},
		{"readyz is ok if the store can write", "GET /readyz", ok},
		{"readyz returns a 503 if the store cannot write", "store fails ; GET /readyz", noStore},
		{"reads succeed if the store cannot write", "store fails ; GET /users/me/ as john", "200\n" + john},
	})
}

func TestPaths(t *testing.T) {
	redirect := func(to string) string { return "307\nLocation: " + to }
	checkRules(t, []apiRule{
		{"/users redirects to /users/", "POST /users {}", redirect("/users/")},
		{"/users/me redirects to /users/me/", "PATCH /users/me {}", redirect("/users/me/")},
		{"a redirect keeps the query", "DELETE /users?limit=3&after=2", redirect("/users/?limit=3&after=2")},
		{"OPTIONS is redirected like any other method", "OPTIONS /users/me?a=b", redirect("/users/me/?a=b")},
		{"a request with a secret in the query is refused, not redirected", "POST /users/me?access_token=x", secretInQuery},
		{"a path with two slashes redirects to the path with one", "POST //users/", redirect("/users/")},
		{"a path with dots redirects to the path without", "POST /users/me/../", redirect("/users/")},
		{"a redirect does not lead to another host", "POST //evil.example/..//users/", redirect("/users/")},
		{"two slashes before the name of another host are not found", "GET //evil.example/", notFound},

		{"the root redirects to the page", "HEAD /", "302\nLocation: /docs"},
		{"GET of an unknown path is not found", "GET /nowhere", notFound},
		{"DELETE of an unknown path is not found", "DELETE /nowhere", notFound},
		{"a path with one slash too many redirects to the path without", "GET /users/me/sessions/ as john", redirect("/users/me/sessions")},
		{"a login with a slash redirects with its method", "POST /token/?a=b x", redirect("/token?a=b")},
		{"the page with a slash redirects to the page", "GET /docs/", redirect("/docs")},
		{"an account with a slash redirects to the account", "GET /users/1/ as admin", redirect("/users/1")},
		{"a path without its slash redirects for a method that it does not have", "PUT /users/me", redirect("/users/me/")},
		{"an unknown path with a slash is not found", "GET /nowhere/", notFound},
		{"a path with percent-encoded parts is not redirected", "GET /doc%73/", notFound},
		{"a path is case-sensitive", "GET /Users/me/ as john", notFound},
		{"an unknown file of the page is not found", "GET /docs/passwords.txt", notFound},
		{"the page has no second address", "GET /docs/index.html", notFound},
		{"a file of the server has no second address", "GET /docs/source%2Fauth.go", notFound},
		{"a file outside the page is not found", "GET /docs/..%2fmain.go", notFound},
		{"the directory of the page is not found", "GET /docs/%2e", notFound},

		{"a wrong method for /users/ gets a 405 with the allowed methods", "PUT /users/ {}", wrongMethod("GET, HEAD, POST")},
		{"a wrong method for /users/me/ gets a 405 with the allowed methods", "POST /users/me/ {}", wrongMethod("GET, HEAD, PATCH, DELETE")},
		{"a wrong method for /users/{id} gets a 405 with the allowed methods", "POST /users/1", wrongMethod("GET, HEAD, PATCH, DELETE")},
		{"a wrong method for / gets a 405 with the allowed methods", "POST /", wrongMethod("GET, HEAD")},
		{"OPTIONS names the methods of a path", "OPTIONS /users/me/password", "204\nAllow: PUT"},
		{"OPTIONS of the root gets a 204", "OPTIONS /", "204\nAllow: GET, HEAD"},
		{"OPTIONS of an unknown path is not found", "OPTIONS /nowhere", notFound},

		{"username in a query is refused", "GET /users/?username=johndoe as admin", secretInQuery},
		{"password in a query is refused", "GET /healthz?password=hunter22", secretInQuery},
		{"current_password in a query is refused", `PATCH /users/me/?current_password=secret as john {"full_name":"John"}`, secretInQuery},
		{"new_password in a query is refused", "PUT /users/me/password?new_password=hunter22 as john {}", secretInQuery},
		{"client_secret in a query is refused", "POST /introspect?client_secret=hunter22 token=x", secretInQueryOAuth},
		{"token in a query is refused", "GET /users/me/?token=$john", secretInQuery},
		{"refresh_token in a query is refused", "GET /docs?refresh_token=$john.refresh", secretInQuery},
		{"access_token in a query is refused", "GET /users/me/?access_token=$john", secretInQuery},
		{"an empty access_token in a query is refused", "GET /users/me/?x=y&access_token as john", secretInQuery},
		{"a percent-encoded access_token in a query is refused", "GET /users/me/?%61ccess_token=x as john", secretInQuery},
		{"a token in the query of an unknown path is refused", "GET /nowhere?token=x", secretInQuery},
		{"a username and a password in the query of a login are refused", "POST /token?username=johndoe&password=secret grant_type=password", secretInQueryOAuth},
		{"an invalid query is refused", "GET /users/me/?a;access_token=x as john", refusal(400, "invalid_request", "The query string is not valid")},
		{"an unknown query parameter is ignored", "GET /users/me/?x=y as john", "200\n" + john},
		{"two Authorization headers are refused", "GET /users/me/ as john as admin", twoHeaders(400)},
		{"two equal Authorization headers are refused", "GET /users/me/ as john as john", twoHeaders(400)},
		{"two Authorization headers are refused even at a login", `POST /token as john with "Authorization: Basic eDp5" username=johndoe&password=secret`, twoHeadersOAuth},
	})
}

// TestCrossOrigin: a browser states the origin of a request in Sec-Fetch-Site or Origin.
func TestCrossOrigin(t *testing.T) {
	refused := crossOrigin
	const patch = `PATCH /users/me/ as john with "Content-Type: application/json" `
	checkRules(t, []apiRule{
		{"a client without a browser sends neither header and is accepted", patch + `{}`, "200\n" + john},
		{"a page of the server itself is accepted", patch + `with "Sec-Fetch-Site: same-origin" {}`, "200\n" + john},
		{"a request from the address bar is accepted", patch + `with "Sec-Fetch-Site: none" {}`, "200\n" + john},
		{"a page of an origin in -cors-origin is accepted", patch + `with "Sec-Fetch-Site: cross-site" with "Origin: http://localhost:3000" {}`, "200\n" + john},
		{"a page of another site is refused", patch + `with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example" {}`, refused},
		{"a page of another origin on the same site is refused", patch + `with "Sec-Fetch-Site: same-site" with "Origin: https://evil.example" {}`, refused},
		{"a page of another origin in a browser without Sec-Fetch-Site is refused", patch + `with "Origin: https://evil.example" {}`, refused},
		{"a page of the server itself in a browser without Sec-Fetch-Site is accepted", `restart -demo=false ; ` + patch + `with "Origin: http://127.0.0.1:8000" {}`, "200\n" + john},
		{"with demo accounts, a page of the server itself is refused if its host is not this machine", patch + `with "Host: example.com" with "Origin: http://example.com" {}`, refused},
		{"with demo accounts, nobody logs in through a proxy by another name", `POST /token with "Host: example.com" username=johndoe&password=secret`, crossOriginOAuth},
		{"with demo accounts, nobody logs in through a proxy that names its client", `POST /token with "X-Forwarded-For: 203.0.113.5" username=johndoe&password=secret`, crossOriginOAuth},
		{"with demo accounts, nobody logs in through a proxy with Forwarded",
			`POST /token with "Forwarded: for=203.0.113.5" with "Origin: http://localhost:3000" username=johndoe&password=secret`, crossOriginOAuth},
		{"GET from another site is accepted, as it changes nothing", `GET /users/me/ as john with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example"`, "200\n" + john},
		{"with demo accounts, GET is accepted if its host is not this machine", `GET /users/me/ as john with "Host: example.com" with "Origin: http://example.com"`, "200\n" + john},
		{"a cross-origin request is refused before its path is looked up", `POST /nowhere with "Sec-Fetch-Site: cross-site" x`, refused},
		{"a cross-origin revocation gets an OAuth error", `POST /revoke with "Sec-Fetch-Site: cross-site" token=$john`, crossOriginOAuth},
		{"a page of localhost is refused if there are no demo accounts", `restart -demo=false ; ` + patch + `with "Sec-Fetch-Site: same-site" with "Origin: http://localhost:3000" {}`, refused},
	})
}

// TestThrottle has the rules; attack_passwords_test.go has the attempts to get around them.
func TestThrottle(t *testing.T) {
	const wrong = "POST /token username=johndoe&password=wrong"
	const right = "POST /token username=johndoe&password=secret"
	checkRules(t, []apiRule{
		{"the first five failed logins cause no wait", "repeat 5 " + wrong, wrongLogin},
		{"the sixth failed login must wait 1 s", "repeat 6 " + wrong, tooManyLogins("1")},
		{"a wait applies even to the right password", "repeat 5 " + wrong + " ; " + right, tooManyLogins("1")},
		{"a login 1 ms before the end of the wait is refused", "repeat 5 " + wrong + " ; wait 999ms ; " + right, tooManyLogins("1")},
		{"a login at the end of the wait is accepted", "repeat 5 " + wrong + " ; wait 1s ; " + right, tokens},
		{"a login that is refused during a wait does not extend it", "repeat 50 " + wrong + " ; wait 1s ; " + right, tokens},
		{"the second wait is 2 s", "repeat 5 " + wrong + " ; wait 1s ; repeat 2 " + wrong, tooManyLogins("2")},
		{"the third wait is 4 s", "repeat 5 " + wrong + " ; wait 1s ; " + wrong + " ; wait 2s ; repeat 2 " + wrong, tooManyLogins("4")},
		{"a successful login resets the failed logins", "repeat 4 " + wrong + " ; " + right + " ; repeat 5 " + wrong, wrongLogin},
		{"a new password that an admin sets forgets the failed logins", "repeat 5 " + wrong + " ; " + setPassword + " ; POST /token username=johndoe&password=correct+horse", tokens},

		{"a wait applies to the username in any case of letters", "repeat 5 " + wrong + " ; POST /token username=JOHNDOE&password=secret", tooManyLogins("1")},
		{"a login that must wait does not read the store", "repeat 5 " + wrong + " ; store vanishes ; " + right, tooManyLogins("1")},
		{"a wait does not apply to another account", "repeat 5 " + wrong + " ; POST /token username=jane&password=secret", tokens},
		{"a wait does not apply to another address", "repeat 5 " + wrong + " ; POST /token from 192.0.2.2 username=johndoe&password=secret", tokens},
		{"an IPv6 /64 is one address",
			"repeat 5 POST /token from 2001:db8:1:2::1 username=johndoe&password=wrong ; POST /token from 2001:db8:1:2:ffff::9 username=johndoe&password=secret", tooManyLogins("1")},
		{"another IPv6 /64 is another address", "repeat 5 POST /token from 2001:db8:1:2::1 username=johndoe&password=wrong ; POST /token from 2001:db8:1:3::1 username=johndoe&password=secret", tokens},
		{"an IPv4-mapped IPv6 address is the IPv4 address", "repeat 5 " + wrong + " ; POST /token from ::ffff:192.0.2.1 username=johndoe&password=secret", tooManyLogins("1")},
		{"an unknown account is throttled like any other", "repeat 6 POST /token username=nobody&password=secret", tooManyLogins("1")},
		{"a disabled account is throttled like any other", "repeat 6 POST /token username=dora&password=wrong", tooManyLogins("1")},

		{"a wait does not apply to requests with an access token", "repeat 6 " + wrong + " ; GET /users/me/ as john", "200\n" + john},
		{"a wait does not apply to a refresh", "repeat 6 " + wrong + " ; " + refresh, strings.Replace(tokens, "<access token>", "$john", 1)},
		{"a wrong current password counts as a failed login", `repeat 5 PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"} ; ` + right, tooManyLogins("1")},
		{"a wrong password in a deletion counts as a failed login", `repeat 5 DELETE /users/me/ as john {"password":"wrong"} ; ` + right, tooManyLogins("1")},
		{"a wait after failed logins applies to a deletion", "repeat 5 " + wrong + ` ; DELETE /users/me/ as john {"password":"secret"}`,
			refusal(429, "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
	})
}

// TestChanges has how often one account may be changed. attack_passwords_test.go has what else one
// client may use.
func TestChanges(t *testing.T) {
	const change = `PATCH /users/me/ as john {"full_name":"John Doe"}`
	const many = "repeat 61 " + change + " ; "
	tooMany := refusal(429, "too_many_changes", "Too many changes of this account", "Retry-After: 60")
	checkRules(t, []apiRule{
		{"an account may be changed 60 times a minute", "repeat 60 " + change, "200\n" + john},
		{"a change beyond 60 a minute is refused", many + change, tooMany},
		{"a minute later, an account may be changed again", many + "wait 1m ; " + change, "200\n" + john},
		{"ending other sessions is a change", "repeat 60 DELETE /users/me/sessions as john ; " + change, tooMany},
		{"requests without a route, which need no token, are no changes", "repeat 61 DELETE /nowhere ; PATCH /users/me", "307\nLocation: /users/me/"},
		{"reading is no change", "repeat 61 GET /users/me/ as john ; " + change, "200\n" + john},
		{"the changes of one account do not count for another", many + "DELETE /users/me/sessions as jane", "204"},
		{"too many changes do not prevent a new password", many + newPassword, tokens},
		{"too many changes do not prevent a logout", many + "POST /revoke token=$john", "200\n{}"},
		{"too many changes do not prevent a login", many + "POST /token username=johndoe&password=secret", tokens},
		{"too many changes do not prevent those of an admin", many + "DELETE /users/1/sessions as admin", "204"},
		{"an admin may change one account 60 times a minute", "repeat 61 DELETE /users/1/sessions as admin", tooMany},
		{"the changes of an admin do not count for the account", "repeat 60 DELETE /users/3/sessions as admin ; DELETE /users/1/sessions as admin", "204"},
		{"an admin may set one password 60 times a minute", "repeat 61 " + setPassword, tooMany},
		{"the passwords that an admin sets for one account do not count for another", "repeat 61 " + setPassword + ` ; PUT /users/3/password as admin {"new_password":"correct horse"}`, "204"},
	})
}

// TestRegistrations: a network registers 30 accounts an hour.
func TestRegistrations(t *testing.T) {
	const many = `repeat 30 POST /users/ {"username":"new$i","password":"correct horse"} ; `
	tooMany := func(retry string) string {
		return refusal(429, "too_many_registrations", "Too many accounts were registered from this network", "Retry-After: "+retry)
	}
	created := func(id string) string {
		return "201\nLocation: /users/" + id + "\n" + strings.Replace(alice, `"id":6`, `"id":`+id, 1)
	}
	late := func(user string) string { return strings.Replace(user, "01T00", "01T01", 1) }
	checkRules(t, []apiRule{
		{"a network may register 30 accounts in an hour", strings.Replace(many, "30", "29", 1) + register, created("35")},
		{"a registration beyond 30 in an hour is refused", many + register, tooMany("3600")},
		{"a registration just before the hour has passed is refused", many + "wait 3599s ; " + register, tooMany("1")},
		{"an hour later, a network may register again", many + "wait 1h ; " + register, late(created("36"))},
		{"a name that is taken gets the same response as one that is free", many + `POST /users/ {"username":"johndoe","password":"correct horse"}`, tooMany("3600")},
		{"an IPv6 /48 is one network", strings.Replace(many, "/users/", "/users/ from 2001:db8:1::1", 1) + strings.Replace(register, "/users/", "/users/ from 2001:db8:1:ffff::1", 1), tooMany("3600")},
		{"the registrations of one network do not count for another", many + strings.Replace(register, "/users/", "/users/ from 192.0.2.2", 1), created("36")},
		{"too many registrations do not prevent those by an admin", many + strings.Replace(register, "/users/", "/users/ as admin", 1), created("36")},
		{"registrations by an admin do not count", strings.Replace(many, "/users/", "/users/ as admin", 1) + register, created("36")},
		{"a refused registration does not count", `repeat 40 POST /users/ {"username":"alice","password":"short"} ; ` + register, created("6")},
	})
}

// TestWhoMayCallWhat has every endpoint of the API, who may call it, a call that
// succeeds and its status. No route may be missing.
func TestWhoMayCallWhat(t *testing.T) {
	endpoints := []struct {
		pattern string
		who     admission
		call    string // by the caller with the fewest rights that suffice
		status  int
	}{
		{"POST /token", anyone, "POST /token username=johndoe&password=secret", 200},
		{"POST /revoke", anyone, "POST /revoke token=x", 200},
		{"POST /introspect", inspector, "POST /introspect as admin token=x", 200},

		{"POST /users/{$}", anyone, `POST /users/ {"username":"alice","password":"correct horse"}`, 201},
		{"GET /users/{$}", admin, "GET /users/ as admin", 200},

		{"GET /users/me/{$}", activeUser, "GET /users/me/ as john", 200},
		{"PATCH /users/me/{$}", activeUser, "PATCH /users/me/ as john {}", 200},
		{"DELETE /users/me/{$}", activeUser, `DELETE /users/me/ as john {"password":"secret"}`, 204},
		{"PUT /users/me/password", activeUser, newPassword, 200},
		{"GET /users/me/sessions", activeUser, "GET /users/me/sessions as john", 200},
		{"DELETE /users/me/sessions", activeUser, "DELETE /users/me/sessions as john", 204},
		{"DELETE /users/me/sessions/{sid}", activeUser, "DELETE /users/me/sessions/$john.sid as john", 204},

		{"GET /users/{id}", activeUser, "GET /users/1 as john", 200},
		{"PATCH /users/{id}", admin, "PATCH /users/1 as admin {}", 200},
		{"GET /users/{id}/sessions", admin, "GET /users/1/sessions as admin", 200},
		{"DELETE /users/{id}/sessions", admin, "DELETE /users/1/sessions as admin", 204},
		{"PUT /users/{id}/password", admin, `PUT /users/1/password as admin {"new_password":"correct horse"}`, 204},
		{"DELETE /users/{id}", admin, "DELETE /users/1 as admin", 204},

		{"POST /forgot-password", anyone, `POST /forgot-password {"username":"johndoe"}`, 202},
		{"POST /reset-password", anyone, `POST /reset-password {"token":"x","new_password":"a new password"}`, 400},
		{"POST /request-verify-token", activeUser, "POST /request-verify-token as john", 202},
		{"POST /verify", anyone, `POST /verify {"token":"x"}`, 400},
		{"POST /users/{id}/reset-link", admin, "POST /users/1/reset-link as admin", 201},
		{"GET /forward-auth", activeUser, "GET /forward-auth as john", 204},
		{"GET /.well-known/oauth-authorization-server", anyone, "GET /.well-known/oauth-authorization-server", 200},
		{"GET /.well-known/change-password", anyone, "GET /.well-known/change-password", 302},

		{"GET /healthz", anyone, "GET /healthz", 200},
		{"GET /readyz", anyone, "GET /readyz", 200},
		{"GET /openapi.json", anyone, "GET /openapi.json", 200},
		{"GET /docs", anyone, "GET /docs", 200},
		{"GET /docs/{file}", anyone, "GET /docs/settings.json", 200},
		{"GET /docs/source/{file}", anyone, "GET /docs/source/auth.go", 200},
		{"GET /{$}", anyone, "GET /", 302},
	}
	var here, there []string
	for _, e := range endpoints {
		here = append(here, e.pattern)
		callers, refused := "active users only", map[string]int{"nobody": 401, "dora": 400, "dave": 401, "ended": 401, "john.refresh": 401}
		switch e.who {
		case anyone:
			callers, refused = "everyone", nil
		case admin, inspector:
			callers, refused["john"], refused["jane"] = "admins only", 403, 403
		}
		if e.pattern == "GET /forward-auth" {
			refused["dora"] = 403 // for proxies
		}
		t.Run(e.pattern+" is for "+callers, peopled(func(w *world) {
			for caller, status := range refused {
				call := regexp.MustCompile(" as (john|admin)").ReplaceAllString(e.call, " as "+caller)
				if got := w.send(strings.Replace(call, " as nobody", "", 1)); got.status != status {
					w.Errorf("%s\n  got %s\n  want %d: it is for %s", call, w.show(got), status, callers)
				}
			}
			if got := w.send(e.call); got.status != e.status {
				w.Errorf("%s\n  got %s\n  want %d", e.call, w.show(got), e.status)
			}
		}))
	}
	for _, r := range new(server).routes() {
		there = append(there, r.pattern)
	}
	slices.Sort(here)
	slices.Sort(there)
	wantEqual(t, "the routes of the server and the table of this test differ", here, there)
}

// TestAccessToken shows the content of a token, to the byte: other programs read it
// with the JWT library of their choice.
func TestAccessToken(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do("restart -issuer=example -access-ttl=1m ; login admin as brief")
		for name, want := range map[string]string{
			"john":  `{"iss":"stdauth","aud":"stdauth","sub":"1","sid":"$john.sid","username":"johndoe","role":"user","iat":946684800,"exp":946686600}`,
			"brief": `{"iss":"example","aud":"example","sub":"2","sid":"$brief.sid","username":"admin","role":"admin","iat":946684800,"exp":946684860}`,
		} {
			part := strings.Split(w.vars[name], ".")
			wantEqual(t, "the token of "+name, decode(t, part[0])+decode(t, part[1]), `{"alg":"HS256","typ":"JWT"}`+w.expand(want))
		}
	})
}

// TestClientThatHasGone: a read of etcd ends with the client that waits for it. That is no
// fault of the store, and no alert for the operator.
func TestClientThatHasGone(t *testing.T) {
	inWorld(t, func(w *world) {
		gone, hangUp := context.WithCancel(w.Context())
		c := &call{Request: w.request(gone, "GET /users/me/"), route: "GET /users/me/{$}"}
		before := w.server.metrics.samples.Get(errorSample("store_unavailable")).String()
		hangUp()
		wantEqual(t, "the status of the reply to a client that has gone", w.server.refusal(c, unavailable(context.Canceled)).status, statusClientGone)
		wantEqual(t, "the metric of the store's faults", w.server.metrics.samples.Get(errorSample("store_unavailable")).String(), before)
		w.wantLog("level=ERROR", 0)
		damaged := errors.New("the value of etcd's key users/7 is damaged")
		if got := w.server.refusal(c, damaged).status; got != http.StatusInternalServerError {
			t.Errorf("the reply to a fault that a client did not wait for has the status %d, want 500", got)
		}
		w.wantLog("level=ERROR", 1)
	})
}

// TestHeaders checks the headers that no other test checks.
func TestHeaders(t *testing.T) {
	headers := []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials",
		"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Vary", "Strict-Transport-Security", "Content-Security-Policy"}
	type wanted map[string]string
	none := wanted{"Vary": "Origin"}
	cors := func(origin string) wanted {
		return wanted{"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Link, Location, Retry-After, WWW-Authenticate, X-Request-Id", "Vary": "Origin"}
	}
	preflight := cors("http://localhost:3000")
	maps.Copy(preflight, wanted{"Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE", "Access-Control-Allow-Headers": "Authorization, Content-Type", "Access-Control-Max-Age": "600"})
	wide := maps.Clone(preflight)
	wide["Access-Control-Allow-Headers"] += ", traceparent, x-requested-with, x"
	const local = ` with "Origin: http://localhost:3000"`
	const evil = ` with "Origin: https://evil.example"`
	const method = ` with "Access-Control-Request-Method: PATCH"`
	for _, tt := range []struct {
		rule, do string
		status   int
		want     wanted
	}{
		{"a page of localhost may call the API of a server with demo accounts", "GET /healthz" + local, 200, cors("http://localhost:3000")},
		{"a page of 127.0.0.1 may read an error and its headers", `GET /users/me/ with "Origin: http://127.0.0.1"`, 401, cors("http://127.0.0.1")},
		{"a page of localhost may send a preflight request", "OPTIONS /users/me/" + local + method, 204, preflight},
		{"a page of another origin gets no CORS headers", "GET /healthz" + evil, 200, none},
		{"a preflight request may ask for any header",
			"OPTIONS /token" + local + method + ` with "Access-Control-Request-Headers: authorization, traceparent,x-requested-with, (x), "`, 204,
			wide},
		{"a preflight request from another origin is OPTIONS like any other", "OPTIONS /users/me/" + evil + method, 204, none},
		{"a page of an origin in -cors-origin may call the API", `restart -cors-origin=https://app.example ; GET /healthz with "Origin: https://app.example"`, 200, cors("https://app.example")},
		{"an origin in -cors-origin replaces localhost", "restart -cors-origin=https://app.example ; GET /healthz" + local, 200, none},
		{"a server without demo accounts allows no other origin", "restart -demo=false ; GET /healthz" + local, 200, wanted{}},

		{"the page has a Content-Security-Policy and varies by origin", "restart -demo=false ; GET /docs", 200, wanted{"Content-Security-Policy": contentPolicy, "Vary": "Accept-Encoding, Origin"}},

		{"a request without an Origin gets no CORS headers", "GET /healthz", 200, wanted{}},
		{"an empty response to a page of an allowed origin keeps its status", "POST /revoke" + local + " token=rubbish", 200, cors("http://localhost:3000")},
		{"OPTIONS without a method to ask for is no preflight", "OPTIONS /users/me/" + local, 204, cors("http://localhost:3000")},
		{"GET that asks for a method is no preflight", "GET /healthz" + local + method, 200, cors("http://localhost:3000")},
	} {
		t.Run(tt.rule, alone(func(w *world) {
			w.do(tt.do)
			got := wanted{}
			for _, name := range headers {
				if values := w.last.header.Values(name); len(values) > 0 {
					got[name] = strings.Join(values, " | ")
				}
			}
			wantEqual(w, tt.do+": the status", w.last.status, tt.status)
			wantEqual(w, tt.do+": the headers", got, tt.want)
		}))
	}

	t.Run("a server with TLS sends Strict-Transport-Security, but not for this machine", alone(func(w *world) {
		w.start(Config{TLS: true}, w.server.tokens)
		for host, want := range map[string]string{"auth.example.com": "max-age=31536000", "localhost:8000": "", "api.LOCALHOST": "", "127.0.0.1": "", "[::1]:8443": ""} {
			call := fmt.Sprintf("GET /nowhere with %q", "Host: "+host)
			wantEqual(w, call+": Strict-Transport-Security", w.send(call).header.Get("Strict-Transport-Security"), want)
		}
		w.start(Config{}, w.server.tokens)
		plain := w.send(`GET /nowhere with "Host: auth.example.com"`)
		wantEqual(w, "Strict-Transport-Security without TLS (RFC 6797, section 7.2)", plain.header.Get("Strict-Transport-Security"), "")
	}))
}

// TestWeakHashIsReplaced: a login replaces a hash of a lower cost than the current one.
// A raised cost thus reaches the accounts in use.
func TestWeakHashIsReplaced(t *testing.T) {
	const resetMeanwhile = ` ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`
	const battery = "POST /token username=johndoe&password=battery+staple"
	inPeopledWorld(t, func(w *world) {
		for _, step := range []struct {
			rule, name string
			cost       int // of the server's hashes
			do, want   string
			now        string // the cost of the account's hash
		}{
			{"a login with a wrong password keeps the hash", "johndoe", 2, "POST /token username=johndoe&password=wrong", wrongLogin, "i=1,"},
			{"a refused login of a disabled account keeps the hash", "dora", 2, "POST /token username=dora&password=secret", noLogin, "i=1,"},
			{"a login replaces the hash and starts a session", "johndoe", 2, login + " ; keep access_token as new ; GET /users/me/ as new", "200\n" + john, "i=2,"},
			{"a second login keeps the hash", "johndoe", 2, login, tokens, "i=2,"},
			{"a login at a lower cost keeps the hash", "johndoe", 1, login, tokens, "i=2,"},
			{"a login fails if the password is reset while it replaces the hash", "johndoe", 3, "begin " + login + resetMeanwhile, wrongLogin, "i=3,"},
			{"the password that was reset meanwhile is the right one", "johndoe", 3, battery, tokens, "i=3,"},
			{"a login fails if the account is deleted while it replaces the hash", "johndoe", 4, "begin " + battery + " ; DELETE /users/1 as admin ; end", wrongLogin, ""},
		} {
			before, _ := w.store.UserByName(w.Context(), step.name)
			w.server.passwords.hasher.Iterations = step.cost
			w.want(step.rule, step.do, step.want)
			after, _ := w.store.UserByName(w.Context(), step.name)
			replaced := !strings.Contains(before.PasswordHash, step.now)
			if !strings.Contains(after.PasswordHash, step.now) || step.now != "" && (after.PasswordHash != before.PasswordHash) != replaced {
				t.Errorf("%s: the hash was %s and is %s, want %s", step.rule, before.PasswordHash, after.PasswordHash, step.now)
			}
		}
	})
}

// TestMeanwhile has requests that are held before their write while another request
// changes what they depend on.
func TestMeanwhile(t *testing.T) {
	const beginLogin = "begin " + login + " ; "
	const beginRefresh = "begin " + refresh + " ; "
	checkRules(t, []apiRule{
		{"a login that is held before its write succeeds if nothing changes meanwhile", beginLogin + "end", tokens},
		{"a login with the old password fails if the password is changed meanwhile", beginLogin + newPassword + " ; end", wrongLogin},
		{"a login with the old password fails if the password is reset meanwhile", beginLogin + setPassword + " ; end", wrongLogin},
		{"a login fails if the account is deleted meanwhile", beginLogin + "DELETE /users/1 as admin ; end", wrongLogin},
		{"a login fails if the account is disabled meanwhile", beginLogin + `PATCH /users/1 as admin {"disabled":true} ; end`, noLogin},
		{"a refresh fails if the password is reset meanwhile", beginRefresh + setPassword + " ; end", wrongRefresh},
		{"a refresh fails if the account is deleted meanwhile", beginRefresh + "DELETE /users/1 as admin ; end", wrongRefresh},
		{"a refresh fails if the account is disabled meanwhile", beginRefresh + `PATCH /users/1 as admin {"disabled":true} ; end`, noLogin},
		{"a refresh fails if the session is ended meanwhile", beginRefresh + "POST /revoke token=$john ; end", wrongRefresh},
		{"a password that is reset during a password change stays",
			"begin " + newPassword + ` ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end ; POST /token username=johndoe&password=battery+staple`, tokens},
		{"a password change returns no tokens if the account is deleted before its new session", "begin 2 " + newPassword + " ; DELETE /users/1 as admin ; end", badToken},
		{"a patch by an admin gets a 404 if the account is deleted meanwhile", `begin PATCH /users/1 as admin {"email":null} ; DELETE /users/1 as admin ; end`, notFound},
		{"a registration fails if the username is taken meanwhile", "begin " + register + ` ; POST /users/ {"username":"ALICE","password":"correct horse"} ; end`, nameTaken},
		{"a password change returns no tokens if the password is reset before its new session",
			"begin 2 " + newPassword + ` ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`, badToken},
		{"a password change starts no session if the account is disabled meanwhile", "begin 2 " + newPassword + ` ; PATCH /users/1 as admin {"disabled":true} ; end`, inactive},
		{"a password change gets a 503 if the store fails meanwhile", "begin " + newPassword + " ; store fails ; end", noStore},
		{"a password change gets a 503 if the store fails before the new session", "begin 2 " + newPassword + " ; store fails ; end", noStore},
	})
}

// TestVanishedStore: a store cannot even be read, as a cluster without a quorum, from the
// beginning or after some reads of a request.
func TestVanishedStore(t *testing.T) {
	checkRules(t, []apiRule{
		{"a login gets a 503 if the store cannot be read", "store vanishes ; " + login, noStoreOAuth},
		{"a refresh gets a 503 if the store cannot be read", "store vanishes ; " + refresh, noStoreOAuth},
		{"a request with a token gets a 503 if the store cannot be read", "store vanishes ; GET /users/me/ as john", noStore},
		{"introspection gets a 503 if the store cannot be read", "store vanishes ; POST /introspect as admin token=$john", noStoreOAuth},
		{"a registration gets a 503 if the store cannot be read", "store vanishes ; " + register, noStore},
		{"an invalid token is refused even if the store cannot be read", "store vanishes ; GET /users/me/ as john.refresh", badToken},
		{"sessions are valid again when the store can be read again", "store vanishes ; GET /users/me/ as john ; store works ; GET /users/me/ as john", "200\n" + john},
		{"a login that gets a 503 does not count as failed", "store vanishes ; repeat 9 " + login + " ; store works ; " + login, tokens},
		{"a revocation of an invalid token does not ask the store", "store vanishes ; POST /revoke token=rubbish", "200\n{}"},
		{"a registration gets a 503 for the store before it waits for a hash", "store vanishes ; queue fills ; " + register, noStore},

		{"a list of one's own sessions gets a 503 if the sessions cannot be read", "store vanishes after 1 ; GET /users/me/sessions as john", noStore},
		{"a list of an account's sessions gets a 503 if the sessions cannot be read", "store vanishes after 1 ; GET /users/1/sessions as admin", noStore},
		{"a list without sessions gets a 503 if the account cannot be read", "store vanishes after 2 ; GET /users/9/sessions as admin", noStore},
		{"a list of accounts gets a 503 if it cannot be read", "store vanishes after 1 ; GET /users/ as admin", noStore},
		{"a request for an account gets a 503 if the account cannot be read", "store vanishes after 1 ; GET /users/1 as admin", noStore},
		{"a request for one's own account reads the store once, as it admits the caller", "store vanishes after 1 ; GET /users/1 as john", "200\n" + john},
		{"a password reset gets a 503 if the account cannot be read", "store vanishes after 1 ; " + setPassword, noStore},
		{"introspection gets a 503 if the session cannot be read", "store vanishes after 1 ; POST /introspect as admin token=$john", noStoreOAuth},
	})
}

// TestWeakHashMayStay: a login does not fail because its hash cannot be replaced.
func TestWeakHashMayStay(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.server.passwords.hasher.Iterations = 2
		w.store.stage(func(method string) error {
			if method == "UpdateUser" {
				return unavailable(errors.New("read only"))
			}
			return nil
		})
		w.want("a login whose weak hash cannot be replaced", "POST /token username=johndoe&password=secret", tokens)
		w.wantLog(`level=WARN msg="could not replace a weak password hash" user=1 `, 1)
	})
}

// TestSessionThatMakesRoom: the log says which session ends for the 101st of an account.
func TestSessionThatMakesRoom(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do("wait 1s ; repeat 100 POST /token username=jane&password=secret")
		w.wantLog(`level=WARN msg="the account has too many sessions: the one used longest ago has ended" user=3 session=`+w.vars["jane.sid"], 1)
	})
}

// TestForgottenProxy: behind a proxy that no flag names, all clients share one address.
// The log says so, once.
func TestForgottenProxy(t *testing.T) {
	const warning = `level=WARN msg="a request has X-Forwarded-For, but no -trusted-proxy names its sender: behind a proxy, all clients share one address" sender=192.0.2.1`
	inWorld(t, func(w *world) {
		w.do("GET /healthz")
		w.wantLog("-trusted-proxy", 0)
		w.do(`repeat 3 GET /healthz with "X-Forwarded-For: 203.0.113.5"`)
		w.wantLog(warning, 1)
		w.restart("-trusted-proxy=192.0.2.0/24")
		w.do(`GET /healthz with "X-Forwarded-For: 203.0.113.5"`)
		w.wantLog("-trusted-proxy", 1)
	})
}

// TestCounters: each row lists the counters that a request changes.
func TestCounters(t *testing.T) {
	type counts map[string]int64 // of stdauth_..._total
	for _, tt := range []struct {
		rule, do string
		want     counts
	}{
		{"a login counts as a login and as a session", "POST /token username=johndoe&password=secret", counts{`logins{outcome="ok"}`: 1, "sessions_started": 1}},
		{"a wrong password counts as a failed login", "POST /token username=johndoe&password=wrong", counts{`logins{outcome="failed"}`: 1}},
		{"a login of a disabled account counts as failed", "POST /token username=dora&password=secret", counts{`logins{outcome="failed"}`: 1}},
		{"a login that must wait has not failed", "repeat 5 POST /token username=jane&password=wrong ; POST /token username=jane&password=secret",
			counts{`logins{outcome="failed"}`: 5, `logins{outcome="refused"}`: 1}},
		{"a login without a store has not failed", "store vanishes ; POST /token username=jane&password=secret", counts{`logins{outcome="refused"}`: 1}},
		{"enabling an account ends its sessions", `PATCH /users/4 as admin {"disabled":false}`, counts{"sessions_ended": 1}},
		{"disabling an account suspends its sessions", `PATCH /users/3 as admin {"disabled":true}`, counts{}},
		{"a refresh counts as a refresh", refresh, counts{"refreshes": 1}},
		{"a refused refresh is not counted", "POST /token grant_type=refresh_token&refresh_token=rubbish", counts{}},
		{"a replay counts as a replay and ends a session", refresh + " ; wait 60s ; " + refresh, counts{"refreshes": 1, "replays": 1, "sessions_ended": 1}},
		{"a revocation ends a session", "POST /revoke token=$john", counts{"sessions_ended": 1}},
		{"a revocation of an invalid token ends no session", "POST /revoke token=rubbish", counts{}},
		{"a request that ends all other sessions counts once", "DELETE /users/me/sessions as john", counts{"sessions_ended": 1}},
		{"a request to end an unknown session is not counted", "DELETE /users/me/sessions/x as john", counts{}},
		{"a password change ends sessions and starts one", newPassword, counts{"sessions_ended": 1, "sessions_started": 1}},
	} {
		t.Run(tt.rule, peopled(func(w *world) {
			got, short := counts{}, strings.NewReplacer("stdauth_", "", "_total", "")
			count := func(sign int64) {
				w.server.metrics.samples.Do(func(sample expvar.KeyValue) {
					family, _, _ := strings.Cut(sample.Key, "{")
					if n, ok := sample.Value.(*expvar.Int); ok && family != "stdauth_requests_total" && family != "stdauth_errors_total" {
						got[short.Replace(sample.Key)] += sign * n.Value()
					}
				})
			}
			count(-1)
			w.do(tt.do)
			count(1)
			maps.DeleteFunc(got, func(_ string, n int64) bool { return n == 0 })
			wantEqual(w, tt.do+" counts", got, tt.want)
		}))
	}
}

// TestTokenFromTheFuture: a store that was restored from a backup does not know the
// refresh tokens issued since. They are refused, but they are not a replay.
func TestTokenFromTheFuture(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.vars["future"] = w.server.tokens.SignRefresh(Claims{UserID: 1, SessionID: w.vars["john.sid"], Generation: 7})
		w.note(w.vars["future"])
		w.want("a refresh token of a later generation", "POST /token grant_type=refresh_token&refresh_token=$future", wrongRefresh)
		w.want("GET /users/me/ after a refresh token of a later generation", "GET /users/me/ as john", "200\n"+john)
	})
}

// TestUnforeseen: the details of an unforeseen error are logged and not sent to the client,
// and so is why the store is unavailable.
func TestUnforeseen(t *testing.T) {
	for _, tt := range []struct {
		rule string
		err  error // of the store; nil for a panic
		want string
	}{
		{"an unforeseen error is logged and gets a 500", errors.New("the moon is in the wrong house"), refusal(500, "internal_error", "Internal error")},
		{"a panic is logged and gets a 500", nil, refusal(500, "internal_error", "Internal error")},
		{"an unavailable store is logged and gets a 503", unavailable(errors.New("on the moon")), noStore},
	} {
		t.Run(tt.rule, peopled(func(w *world) {
			w.store.stage(func(string) error {
				if tt.err == nil {
					panic("the moon has come down")
				}
				return tt.err
			})
			w.want("GET /users/me/", "GET /users/me/ as john", tt.want)
			w.wantLog("level=ERROR", 1)
			if log := w.log.String(); !strings.Contains(log, "moon") {
				w.Errorf("the log does not have the error: %s", log)
			}
		}))
	}
}

// The requests that many rows send.
const (
	login       = "POST /token username=johndoe&password=secret"
	refresh     = "POST /token grant_type=refresh_token&refresh_token=$john.refresh"
	register    = `POST /users/ {"username":"alice","password":"correct horse"}`
	refreshNext = "POST /token grant_type=refresh_token&refresh_token=$next"
	newPassword = `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`
	setPassword = `PUT /users/1/password as admin {"new_password":"correct horse"}`
)

// The accounts and tokens, as responses show them.
const (
	onAccess = "200\n" + `{"active":true,"aud":"stdauth","exp":946686600,"iat":946684800,"iss":"stdauth","role":"user","sid":"$john.sid","sub":"1","token_type":"bearer","username":"johndoe"}`
	off      = "200\n" + `{"active":false}`

	tokens = "200\n" + `{"access_token":"<access token>","token_type":"bearer","expires_in":1800,"refresh_token":"<refresh token>"}`

	john  = `{"id":1,"username":"johndoe","email":"johndoe@example.com","email_verified":false,"full_name":"John Doe","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	boss  = `{"id":2,"username":"admin","email":"admin@example.com","email_verified":false,"full_name":"Admin User","disabled":false,"role":"admin","created_at":"2000-01-01T00:00:00Z"}`
	jane  = `{"id":3,"username":"jane","email":null,"email_verified":false,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	dora  = `{"id":4,"username":"dora","email":null,"email_verified":false,"full_name":null,"disabled":true,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	alice = `{"id":6,"username":"alice","email":null,"email_verified":false,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
)

const inQuery = "A name or a secret must not be sent in the query string"

// The responses that many rows want.
var (
	noCredentials = refusal(401, "not_authenticated", "Not authenticated", "WWW-Authenticate: Bearer")
	badToken      = refusal(401, "invalid_token", "Could not validate credentials", `WWW-Authenticate: Bearer error="invalid_token"`)
	inactive      = refusal(400, "inactive_user", "Inactive user")
	forbidden     = refusal(403, "not_enough_permissions", "Not enough permissions", `WWW-Authenticate: Bearer error="insufficient_scope"`)
	notFound      = refusal(404, "not_found", "Not found")
	lastAdmin     = refusal(409, "last_admin", "The last active admin cannot be demoted, disabled or deleted")
	noStore       = refusal(503, "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")

	wrongLogin   = oauthRefusal(401, "invalid_grant", "incorrect_login", "Incorrect username or password", "WWW-Authenticate: Bearer")
	wrongRefresh = oauthRefusal(400, "invalid_grant", "invalid_refresh_token", "The refresh token is not valid")
	noLogin      = oauthRefusal(400, "invalid_grant", "inactive_user", "Inactive user")
	noStoreOAuth = oauthRefusal(503, "temporarily_unavailable", "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")

	noClient       = oauthRefusal(401, "invalid_client", "not_authenticated", "Not authenticated", "WWW-Authenticate: Bearer")
	forbiddenOAuth = oauthRefusal(403, "insufficient_scope", "not_enough_permissions", "Not enough permissions", `WWW-Authenticate: Bearer error="insufficient_scope"`)

	wrongPassword = refusal(403, "incorrect_password", "Incorrect password")
	ownPassword   = refusal(403, "own_account", "Change your own password at /users/me/password, with the current one")
	nameTaken     = refusal(400, "username_taken", "Username already registered")
	tooBusy       = refusal(503, "too_busy", "Too many passwords are being checked", "Retry-After: 1")
	tooBusyOAuth  = oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")

	notAForm           = oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")
	notJSONType        = refusal(415, "unsupported_media_type", "The Content-Type must be application/json")
	crossOrigin        = refusal(403, "cross_origin", "Cross-origin request")
	crossOriginOAuth   = oauthRefusal(403, "invalid_request", "cross_origin", "Cross-origin request")
	secretInQuery      = refusal(400, "invalid_request", inQuery, `WWW-Authenticate: Bearer error="invalid_request"`)
	twoHeadersOAuth    = oauthRefusal(400, "invalid_request", "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)
	secretInQueryOAuth = oauthRefusal(400, "invalid_request", "invalid_request", inQuery, `WWW-Authenticate: Bearer error="invalid_request"`)
)

func badForm(detail string) string {
	return oauthRefusal(400, "invalid_request", "invalid_request", detail)
}

func notJSON(detail string) string { return refusal(400, "not_json", "The body is not JSON: "+detail) }

func wrongMethod(allow string) string {
	return refusal(405, "method_not_allowed", "Method not allowed", "Allow: "+allow)
}

func twoHeaders(status int) string {
	return refusal(status, "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)
}

func tooManyLogins(retry string) string {
	return oauthRefusal(429, "temporarily_unavailable", "too_many_failed_logins", "Too many failed logins", "Retry-After: "+retry)
}

// checkRules runs each row in a world of its own. The page shows the rows too.
func checkRules(t *testing.T, rules []apiRule) {
	t.Helper()
	checkPageRules(t, rules)
	for _, tt := range rules {
		t.Run(tt.rule, peopled(func(w *world) {
			w.want(tt.rule, tt.do, tt.want)
		}))
	}
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n       ") }

// An errorBody is a problem (RFC 9457) or an error of OAuth (RFC 6749, section 5.2). It is
// not the server's own type, so that a change of that type shows.
type errorBody struct {
	Title       string         `json:"title,omitempty"`
	Status      int            `json:"status,omitempty"`
	Error       string         `json:"error,omitempty"`
	Description string         `json:"error_description,omitempty"`
	Detail      string         `json:"detail"`
	Code        string         `json:"code"`
	Errors      []invalidField `json:"errors,omitempty"`
}

type invalidField struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// refusal is a problem, in the form of world.show.
func refusal(status int, code, detail string, headers ...string) string {
	return shown(status, headers, errorBody{Title: http.StatusText(status), Status: status, Detail: detail, Code: code})
}

// oauthRefusal is an error of the OAuth endpoints.
func oauthRefusal(status int, oauth, code, detail string, headers ...string) string {
	return shown(status, headers, errorBody{Error: oauth, Description: detail, Detail: detail, Code: code})
}

// invalidFields is a 422 with an entry for each "field message".
func invalidFields(entries ...string) string {
	body := errorBody{Title: "Unprocessable Entity", Status: 422, Detail: "The request is invalid: ", Code: "invalid_fields"}
	if len(entries) == 1 {
		body.Detail += strings.TrimSpace(entries[0])
	} else {
		body.Detail += fmt.Sprintf("%d fields are invalid", len(entries))
	}
	for _, e := range entries {
		field, message, _ := strings.Cut(e, " ")
		body.Errors = append(body.Errors, invalidField{field, message})
	}
	return shown(422, nil, body)
}

func shown(status int, headers []string, body errorBody) string {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return strings.Join(slices.Concat([]string{fmt.Sprint(status)}, headers, []string{string(b)}), "\n")
}
