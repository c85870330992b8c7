package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// This file is the manual of the API. Each row is a rule, a request that the
// rule decides, and the whole answer. The language of the requests is that of
// the scenarios: testdata/scenarios/README.md explains it.
//
// Everybody's password is "secret". There are johndoe (user 1), admin (2, an
// admin), jane (3), dora (4, disabled) and, until a moment ago, dave (5). They
// have the tokens john, admin, jane, dora and dave; ended is a token of johndoe's
// who has logged out.

// A rule is one row of the manual.
type apiRule struct{ rule, do, want string }

// The answers that come again and again.
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
)

const (
	tokens = "200\n" + `{"access_token":"<access token>","token_type":"bearer","expires_in":1800,"refresh_token":"<refresh token>"}`

	john  = `{"id":1,"username":"johndoe","email":"johndoe@example.com","full_name":"John Doe","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	boss  = `{"id":2,"username":"admin","email":"admin@example.com","full_name":"Admin User","disabled":false,"role":"admin","created_at":"2000-01-01T00:00:00Z"}`
	jane  = `{"id":3,"username":"jane","email":null,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	dora  = `{"id":4,"username":"dora","email":null,"full_name":null,"disabled":true,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
	alice = `{"id":6,"username":"alice","email":null,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`
)

func TestToken(t *testing.T) {
	checkRules(t, []apiRule{
		{"a login answers both kinds of token", "POST /token username=johndoe&password=secret", tokens},
		{"grant_type may say that it is a login", "POST /token grant_type=password&username=johndoe&password=secret", tokens},
		{"an empty grant_type counts as absent", "POST /token grant_type=&username=johndoe&password=secret", tokens},
		{"a login may write the name in any case of ASCII letters", "POST /token username=JohnDOE&password=secret", tokens},
		{"unknown fields are ignored", "POST /token username=johndoe&password=secret&scope=all&client_id=x&client_secret=y", tokens},
		{"a client's Basic header is ignored", `POST /token with "Authorization: Basic Y2xpZW50OnNlY3JldA==" username=johndoe&password=secret`, tokens},
		{"a dead token beside it is ignored", "POST /token as ended username=johndoe&password=secret", tokens},
		{"the content type may have parameters, in any case", `POST /token with "Content-Type: Application/X-WWW-Form-Urlencoded; charset=utf-8" username=johndoe&password=secret`, tokens},

		{"a wrong password is refused", "POST /token username=johndoe&password=wrong", wrongLogin},
		{"a password differs by case", "POST /token username=johndoe&password=Secret", wrongLogin},
		{"a password is not trimmed", "POST /token username=johndoe&password=+secret", wrongLogin},
		{"a name is not trimmed", "POST /token username=johndoe+&password=secret", wrongLogin},
		{"an unknown name gets the very same answer", "POST /token username=nobody&password=secret", wrongLogin},
		{"a deleted account gets the very same answer", "POST /token username=dave&password=secret", wrongLogin},
		{"a name that can be no account's gets the very same answer", "POST /token username=%00%FF&password=secret", wrongLogin},
		{"a password that can be nobody's gets the very same answer: NUL", "POST /token username=johndoe&password=secret%00", wrongLogin},
		{"a password that can be nobody's gets the very same answer: not UTF-8", "POST /token username=johndoe&password=%FF%FEsecret", wrongLogin},
		{"a password that can be nobody's gets the very same answer: 1025 bytes", "POST /token username=johndoe&password=" + strings.Repeat("x", 1025), wrongLogin},
		{"a disabled account with a wrong password gets the very same answer", "POST /token username=dora&password=wrong", wrongLogin},
		{"a disabled account is told so only for the right password", "POST /token username=dora&password=secret", noLogin},

		{"a refresh token answers its successor", "wait 1m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		{"a refreshed access token works", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep access_token as new ; GET /users/me/ as new", "200\n" + john},
		{"refreshing ends no access token", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; GET /users/me/ as john", "200\n" + john},
		{"rubbish is no refresh token", "POST /token grant_type=refresh_token&refresh_token=rubbish", wrongRefresh},
		{"an access token is no refresh token", "POST /token grant_type=refresh_token&refresh_token=$john", wrongRefresh},
		{"a refresh token of an ended session is refused", "POST /token grant_type=refresh_token&refresh_token=$ended.refresh", wrongRefresh},
		{"a refresh token of a deleted account is refused", "POST /token grant_type=refresh_token&refresh_token=$dave.refresh", wrongRefresh},
		{"a refresh token of a disabled account is refused, and says so", "POST /token grant_type=refresh_token&refresh_token=$dora.refresh", noLogin},

		{"the token just before the current one still answers, a moment before 10 s", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 9999ms ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		{"its answer is the very same successor", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; wait 9999ms ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", strings.Replace(tokens, "<refresh token>", "$next", 1)},
		{"after 10 s it is refused", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 10s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"and has ended its session", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep access_token as new ; wait 10s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; GET /users/me/ as new", badToken},
		{"and its successor is dead", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; wait 10s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; POST /token grant_type=refresh_token&refresh_token=$next", wrongRefresh},
		{"its answer is the same after a restart", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; restart ; wait 9s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", strings.Replace(tokens, "<refresh token>", "$next", 1)},
		{"two steps behind is a replay at once", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; POST /token grant_type=refresh_token&refresh_token=$next ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"a replay ends no other session of the account", "login johndoe as other ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 10s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; GET /users/me/ as other", "200\n" + john},

		{"a session unused for 30 days ends", "wait 720h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"a session lives until then", "wait 719h59m59s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		{"a refresh prolongs it", "wait 500h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; wait 500h ; POST /token grant_type=refresh_token&refresh_token=$next", tokens},
		{"a request with an access token does not", "wait 719h59m59s ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep access_token as new ; keep refresh_token as next ; GET /users/me/ as new ; wait 720h ; POST /token grant_type=refresh_token&refresh_token=$next", wrongRefresh},
		{"at 90 days it ends however busy", "wait 700h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as b ; wait 700h ; POST /token grant_type=refresh_token&refresh_token=$b ; keep refresh_token as c ; wait 700h ; POST /token grant_type=refresh_token&refresh_token=$c ; keep refresh_token as d ; wait 60h ; POST /token grant_type=refresh_token&refresh_token=$d", wrongRefresh},
		{"an access token does not outlive its session", "wait 700h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as b ; wait 700h ; POST /token grant_type=refresh_token&refresh_token=$b ; keep refresh_token as c ; wait 700h ; POST /token grant_type=refresh_token&refresh_token=$c ; keep refresh_token as d ; wait 59h50m ; POST /token grant_type=refresh_token&refresh_token=$d", strings.Replace(tokens, "1800", "600", 1)},

		{"a client may ask for a shorter life of the access token", "POST /token username=johndoe&password=secret&expires_in=5", strings.Replace(tokens, "1800", "5", 1)},
		{"an access token of 5 s is refused after 5 s", "POST /token username=johndoe&password=secret&expires_in=5 ; keep access_token as brief ; wait 5s ; GET /users/me/ as brief", badToken},
		{"a refresh may ask for a shorter life too", "POST /token grant_type=refresh_token&refresh_token=$john.refresh&expires_in=1", strings.Replace(tokens, "1800", "1", 1)},
		{"the shorter life is of this access token only", "wait 1m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh&expires_in=1 ; keep refresh_token as next ; POST /token grant_type=refresh_token&refresh_token=$next", tokens},
		{"a life may be as long as -access-ttl", "POST /token username=johndoe&password=secret&expires_in=1800", tokens},
		{"an empty expires_in counts as absent", "POST /token username=johndoe&password=secret&expires_in=", tokens},
		{"a life longer than -access-ttl is refused", "POST /token username=johndoe&password=secret&expires_in=1801", oauthRefusal(400, "invalid_request", "invalid_request", "expires_in must be a whole number from 1 to 1800")},
		{"a life of 0 s is refused", "POST /token username=johndoe&password=secret&expires_in=0", oauthRefusal(400, "invalid_request", "invalid_request", "expires_in must be a whole number from 1 to 1800")},
		{"a life that is no number is refused", "POST /token username=johndoe&password=secret&expires_in=5s", oauthRefusal(400, "invalid_request", "invalid_request", "expires_in must be a whole number from 1 to 1800")},
		{"a bad expires_in counts as no failed login", "repeat 9 POST /token username=johndoe&password=wrong&expires_in=0 ; POST /token username=johndoe&password=secret", tokens},

		{"a shorter -refresh-ttl binds sessions from before", "wait 1h ; restart -refresh-ttl=1h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"a shorter -session-ttl binds sessions from before", "wait 59m ; restart -session-ttl=1h ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", strings.Replace(tokens, "1800", "60", 1)},
		{"in its last second a session is not refreshed", "restart -session-ttl=1h ; wait 500ms ; login johndoe as late ; wait 3599700ms ; POST /token grant_type=refresh_token&refresh_token=$late.refresh", wrongRefresh},

		{"the username must be there", "POST /token password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: username")},
		{"the password must be there", "POST /token username=johndoe", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: password")},
		{"an empty field counts as absent", "POST /token username=johndoe&password=", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: password")},
		{"the refresh token must be there", "POST /token grant_type=refresh_token&username=johndoe&password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: refresh_token")},
		{"other grants are not supported", "POST /token grant_type=client_credentials", oauthRefusal(400, "unsupported_grant_type", "unsupported_grant_type", "grant_type must be password or refresh_token")},
		{"a grant is written exactly", "POST /token grant_type=Password&username=johndoe&password=secret", oauthRefusal(400, "unsupported_grant_type", "unsupported_grant_type", "grant_type must be password or refresh_token")},
		{"a repeated field is refused", "POST /token username=johndoe&password=wrong&password=secret", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"a repeated unknown field is refused", "POST /token username=johndoe&password=secret&x=1&x=2", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"a broken form is refused", "POST /token username=johndoe&password=%zz", oauthRefusal(400, "invalid_request", "invalid_request", "The body is not a valid form")},
		{"a login is not JSON", `POST /token with "Content-Type: application/json" {"username":"johndoe","password":"secret"}`, oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")},
		{"a login has a content type", "POST /token", oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")},
		{"a login has one content type", `POST /token with "Content-Type: application/x-www-form-urlencoded" with "Content-Type: application/json" username=johndoe&password=secret`, oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")},
		{"a body of 64 KiB is read", "POST /token username=johndoe&password=secret&x=" + strings.Repeat("x", 64<<10-len("username=johndoe&password=secret&x=")), tokens},
		{"a larger one is not", "POST /token username=johndoe&password=secret&x=" + strings.Repeat("x", 64<<10-len("username=johndoe&password=secret&x=")+1), oauthRefusal(413, "invalid_request", "too_large", "The body must be at most 65536 bytes long")},
		{"a store that cannot write is a 503", "store fails ; POST /token username=johndoe&password=secret", oauthRefusal(503, "temporarily_unavailable", "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")},
		{"also for a refresh", "store fails ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", oauthRefusal(503, "temporarily_unavailable", "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")},
		{"while the queue for the hash is full, a login is a 503", "queue fills ; POST /token username=johndoe&password=secret", oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")},
		{"a refresh needs no hash", "wait 1m ; queue fills ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		{"a form that takes too long to arrive is a 408", "slowly POST /token username=johndoe&password=secret", oauthRefusal(408, "invalid_request", "request_timeout", "The request took too long to arrive")},
		{"GET would put the password into the address", "GET /token", refusal(405, "method_not_allowed", "Method not allowed", "Allow: POST")},
	})
}

func TestRevoke(t *testing.T) {
	checkRules(t, []apiRule{
		{"revoking an access token answers nothing", "POST /revoke token=$john", "200"},
		{"it ends the session", "POST /revoke token=$john ; GET /users/me/ as john", badToken},
		{"the refresh token is dead with it", "POST /revoke token=$john ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"revoking a refresh token ends the session too", "POST /revoke token=$john.refresh ; GET /users/me/ as john", badToken},
		{"so does an old refresh token", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 1m ; POST /revoke token=$john.refresh ; GET /users/me/ as john", badToken},
		{"other sessions go on", "login johndoe as other ; POST /revoke token=$john ; GET /users/me/ as other", "200\n" + john},
		{"a hint is ignored", "POST /revoke token=$john&token_type_hint=refresh_token ; GET /users/me/ as john", badToken},
		{"the answer is the same for what is no token", "POST /revoke token=rubbish", "200"},
		{"revoking an expired access token ends its session", "wait 30m ; POST /revoke token=$john ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"and for one that is ended already", "POST /revoke token=$ended", "200"},
		{"and for that of a deleted account", "POST /revoke token=$dave.refresh", "200"},
		{"a disabled account can log out", "POST /revoke token=$dora ; PATCH /users/4 as admin {\"disabled\":false} ; GET /users/me/ as dora", badToken},

		{"the token must be there", "POST /revoke token_type_hint=access_token", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: token")},
		{"an empty token counts as absent", "POST /revoke token=", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: token")},
		{"a repeated token is refused", "POST /revoke token=$john&token=$jane", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"it is a form", `POST /revoke with "Content-Type: text/plain" token=$john`, oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")},
		{"a store that cannot write is a 503", "store fails ; POST /revoke token=$john", oauthRefusal(503, "temporarily_unavailable", "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")},
		{"other methods are told which one to use", "DELETE /revoke", refusal(405, "method_not_allowed", "Method not allowed", "Allow: POST")},
	})
}

func TestIntrospect(t *testing.T) {
	const (
		off       = "200\n" + `{"active":false}`
		onAccess  = "200\n" + `{"active":true,"token_type":"bearer","iss":"stdauth","aud":"stdauth","sub":"1","sid":"$john.sid","username":"johndoe","role":"user","iat":946684800,"exp":946686600}`
		onRefresh = "200\n" + `{"active":true,"iss":"stdauth","aud":"stdauth","sub":"1","sid":"$john.sid","username":"johndoe","role":"user","iat":946684800,"exp":949276800}`
	)
	checkRules(t, []apiRule{
		{"an access token is active", "POST /introspect as admin token=$john", onAccess},
		{"a refresh token is active, until its session ends", "POST /introspect as admin token=$john.refresh", onRefresh},
		{"the role is the store's", "PATCH /users/1 as admin {\"role\":\"admin\"} ; POST /introspect as admin token=$john", strings.Replace(onAccess, `"role":"user"`, `"role":"admin"`, 1)},
		{"a replaced refresh token is active while it would answer", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 9s ; POST /introspect as admin token=$john.refresh", onRefresh},
		{"and not after", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; wait 10s ; POST /introspect as admin token=$john.refresh", off},
		{"asking does not count as using it", "POST /token grant_type=refresh_token&refresh_token=$john.refresh ; keep refresh_token as next ; wait 10s ; POST /introspect as admin token=$john.refresh ; POST /token grant_type=refresh_token&refresh_token=$next", tokens},

		{"rubbish is not active", "POST /introspect as admin token=rubbish", off},
		{"an expired access token is not", "wait 29m ; login admin as boss ; wait 1m ; POST /introspect as boss token=$john", off},
		{"an ended session's tokens are not", "POST /introspect as admin token=$ended", off},
		{"nor its refresh token", "POST /introspect as admin token=$ended.refresh", off},
		{"a disabled account's access token is not", "POST /introspect as admin token=$dora", off},
		{"a disabled account's refresh token is not", "POST /introspect as admin token=$dora.refresh", off},
		{"a deleted account's access token is not", "POST /introspect as admin token=$dave", off},
		{"a deleted account's refresh token is not", "POST /introspect as admin token=$dave.refresh", off},

		{"it is for admins", "POST /introspect as john token=$john", oauthRefusal(403, "insufficient_scope", "not_enough_permissions", "Not enough permissions", `WWW-Authenticate: Bearer error="insufficient_scope"`)},
		{"it asks for a token of one's own", "POST /introspect token=$john", oauthRefusal(401, "invalid_client", "not_authenticated", "Not authenticated", "WWW-Authenticate: Bearer")},
		{"a live one", "POST /introspect as ended token=$john", oauthRefusal(401, "invalid_token", "invalid_token", "Could not validate credentials", `WWW-Authenticate: Bearer error="invalid_token"`)},
		{"of an active account", "POST /introspect as dora token=$john", noLogin},
		{"the token must be there", "POST /introspect as admin x=y", oauthRefusal(400, "invalid_request", "invalid_request", "Missing form field: token")},
		{"a repeated token is refused", "POST /introspect as admin token=$john&token=$jane", oauthRefusal(400, "invalid_request", "invalid_request", "A form field is repeated")},
		{"it is a form", `POST /introspect as admin with "Content-Type: application/json" {"token":"$john"}`, oauthRefusal(415, "invalid_request", "unsupported_media_type", "The Content-Type must be application/x-www-form-urlencoded")},
		{"other methods are told which one to use", "GET /introspect as admin", refusal(405, "method_not_allowed", "Method not allowed", "Allow: POST")},
	})
}

func TestRegister(t *testing.T) {
	created := "201\nLocation: /users/6\n"
	register := func(member string) string {
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
	longest := "a@" + strings.Repeat("b", 252) // bytes

	checkRules(t, []apiRule{
		{"a name and a password make an account", `POST /users/ {"username":"alice","password":"correct horse"}`, created + alice},
		{"email and full name may be given", `POST /users/ {"username":"alice","password":"correct horse","email":"a@example.com","full_name":"Alice Ä."}`, created + `{"id":6,"username":"alice","email":"a@example.com","full_name":"Alice Ä.","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"null is the same as absent", `POST /users/ {"username":"alice","password":"correct horse","email":null,"full_name":null}`, created + alice},
		{"the account is as young as the clock says", `wait 90s ; POST /users/ {"username":"alice","password":"correct horse"}`, created + strings.Replace(alice, "00:00:00Z", "00:01:30Z", 1)},
		{"it can log in", `POST /users/ {"username":"alice","password":"correct horse"} ; POST /token username=alice&password=correct+horse`, tokens},
		{"the name is kept as written", `POST /users/ {"username":"AliCE","password":"correct horse"}`, created + strings.Replace(alice, "alice", "AliCE", 1)},
		{"an ID is never used again", `DELETE /users/4 as admin ; POST /users/ {"username":"alice","password":"correct horse"}`, created + alice},
		{"the content type may have parameters", `POST /users/ with "Content-Type: application/json; charset=utf-8" {"username":"alice","password":"correct horse"}`, created + alice},
		{"the password may be the article's", password("newpassword"), created + alice},
		{"a token beside it changes nothing", `POST /users/ as admin {"username":"alice","password":"correct horse"}`, created + alice},

		{"a name is taken once", name("johndoe"), refusal(400, "username_taken", "Username already registered")},
		{"in any case", name("JohnDoe"), refusal(400, "username_taken", "Username already registered")},
		{"also a disabled account's", name("dora"), refusal(400, "username_taken", "Username already registered")},
		{"a deleted account's name is free", name("dave"), created + strings.Replace(alice, "alice", "dave", 1)},

		{"username and password must be there", `POST /users/ {}`, invalidFields("username is required", "password is required")},
		{"twenty fields are named at most", `POST /users/ {` + manyFields(25) + `}`, invalidFields(manyRefusals(20)...)},
		{"everything that is wrong is said at once", `POST /users/ {"username":"a b","password":"short","email":"x","full_name":"\u0007","role":"admin","disabled":1}`, invalidFields("role "+unknown, "disabled "+unknown, "username "+badName, "password "+badPassword, "email "+badEmail, "full_name "+badFullName)},
		{"nobody gives himself a role", register(`"role":"admin"`), invalidFields("role " + unknown)},
		{"nobody chooses an ID", register(`"id":1`), invalidFields("id " + unknown)},
		{"disabled is refused, even false", register(`"disabled":false`), invalidFields("disabled " + unknown)},
		{"an unknown field is named", register(`"nickname":"al"`), invalidFields("nickname " + unknown)},
		{"a field has one spelling", register(`"Email":"a@example.com"`), invalidFields("Email " + unknown)},
		{"a field comes once", `POST /users/ {"username":"alice","username":"bob","password":"correct horse"}`, invalidFields("username is given more than once")},
		{"a number is no string", `POST /users/ {"username":1,"password":12345678}`, invalidFields("username must be a string", "password must be a string")},
		{"null is no name and no password", `POST /users/ {"username":null,"password":null}`, invalidFields("username must be a string", "password must be a string")},
		{"an array is no email, a boolean no full name", register(`"email":["a@example.com"],"full_name":true`), invalidFields("email must be a string or null", "full_name must be a string or null")},

		{"a name has 1 character at least", name(""), invalidFields("username " + badName)},
		{"1 is enough", name("a"), created + strings.Replace(alice, "alice", "a", 1)},
		{"a name has 64 at most", name(strings.Repeat("a", 65)), invalidFields("username " + badName)},
		{"64 are not too many", name(strings.Repeat("a", 64)), created + strings.Replace(alice, "alice", strings.Repeat("a", 64), 1)},
		{"a name may be an email address and more", name("A.b+c-d_e@example.com0"), created + strings.Replace(alice, "alice", "A.b+c-d_e@example.com0", 1)},
		{"a name has no space", name("al ice"), invalidFields("username " + badName)},
		{"a name has no slash", name("al/ice"), invalidFields("username " + badName)},
		{"a name has no letter that looks like another", name("аlice"), invalidFields("username " + badName)},
		{"a name has no brace, backquote or bracket, the neighbours of letters", name("al{`[@"), invalidFields("username " + badName)},
		{"a name has no colon or slash, the neighbours of digits", name("1:2"), invalidFields("username " + badName)},

		{"a password has 8 characters at least", password("7 signs"), invalidFields("password " + badPassword)},
		{"8 characters are enough for a password", password("8 signs!"), created + alice},
		{"characters count, not bytes", password("äääääää"), invalidFields("password " + badPassword)},
		{"a password has 1024 bytes at most", password(strings.Repeat("x", 1025)), invalidFields("password must be at most 1024 bytes long")},
		{"1024 are not too many", password(strings.Repeat("x", 1024)), created + alice},
		{"a password has no NUL: HMAC would not see it at the end", password(`correct horse\u0000`), invalidFields("password must be valid UTF-8 without NUL and U+FFFD")},
		{"nor in the middle", password(`correct\u0000horse`), invalidFields("password must be valid UTF-8 without NUL and U+FFFD")},
		{"a password does not contain the name", `POST /users/ {"username":"alice","password":"my ALICE in"}`, invalidFields("password must not contain the username")},
		{"a password may contain a name of 3 characters", `POST /users/ {"username":"ali","password":"correct ali horse"}`, created + strings.Replace(alice, "alice", "ali", 1)},
		{"a password is not everybody's", password("password1"), invalidFields("password " + common)},
		{"in any case", password("PassWord1"), invalidFields("password " + common)},

		{"an email is an address", register(`"email":"alice"`), invalidFields("email " + badEmail)},
		{"an email is not empty", register(`"email":""`), invalidFields("email " + badEmail)},
		{"one address", register(`"email":"a@example.com, b@example.com"`), invalidFields("email " + badEmail)},
		{"without a name", register(`"email":"Alice <a@example.com>"`), invalidFields("email " + badEmail)},
		{"without space around it", register(`"email":" a@example.com"`), invalidFields("email " + badEmail)},
		{"without a line break", register(`"email":"a@example.com\nBcc: b@example.com"`), invalidFields("email " + badEmail)},
		{"of 254 bytes at most", register(`"email":"` + longest + `b"`), invalidFields("email " + badEmail)},
		{"254 are not too many", register(`"email":"` + longest + `"`), created + strings.Replace(alice, `"email":null`, `"email":"`+longest+`"`, 1)},

		{"a full name has 200 characters at most", register(`"full_name":"` + strings.Repeat("ä", 201) + `"`), invalidFields("full_name must be at most 200 characters long")},
		{"200 are not too many, and not bytes", register(`"full_name":"` + strings.Repeat("ä", 200) + `"`), created + strings.Replace(alice, `"full_name":null`, `"full_name":"`+strings.Repeat("ä", 200)+`"`, 1)},
		{"a full name is not only spaces", register(`"full_name":"  "`), invalidFields("full_name must not be only spaces")},
		{"a full name has no control character", register(`"full_name":"Alice\u001b[2J"`), invalidFields("full_name " + badFullName)},
		{"a full name has no control character beyond ASCII", register(`"full_name":"Alice\u0085"`), invalidFields("full_name " + badFullName)},

		{"broken JSON is told where it broke", `POST /users/ {"username":"alice",}`, refusal(400, "not_json", "The body is not JSON: invalid character '}' looking for beginning of object key string (byte 21)")},
		{"an empty body is not JSON", `POST /users/ with "Content-Type: application/json"`, refusal(400, "not_json", "The body is not JSON: unexpected end of JSON input (byte 0)")},
		{"trailing data is refused", name("alice") + `{}`, refusal(400, "not_json", "The body is not JSON: invalid character '{' after top-level value (byte 48)")},
		{"what is not UTF-8 is refused", name("alice\xff"), refusal(400, "not_json", "The body is not JSON: not valid UTF-8 (byte 19)")},
		{"an array is JSON, but not the right one", `POST /users/ []`, invalidFields(" must be a JSON object")},
		{"so is null", `POST /users/ null`, invalidFields(" must be a JSON object")},
		{"registration is not a form", `POST /users/ with "Content-Type: application/x-www-form-urlencoded" username=alice&password=correct+horse`, refusal(415, "unsupported_media_type", "The Content-Type must be application/json")},
		{"nor a merge patch", `POST /users/ with "Content-Type: application/merge-patch+json" {"username":"alice","password":"correct horse"}`, refusal(415, "unsupported_media_type", "The Content-Type must be application/json")},
		{"nor text, which a foreign page may send unasked", `POST /users/ with "Content-Type: text/plain" {"username":"alice","password":"correct horse"}`, refusal(415, "unsupported_media_type", "The Content-Type must be application/json")},
		{"a body that takes too long to arrive is a 408", "slowly " + name("alice"), refusal(408, "request_timeout", "The request took too long to arrive")},
		{"while the queue for the hash is full, a registration is a 503", "queue fills ; " + name("alice"), refusal(503, "too_busy", "Too many passwords are being checked", "Retry-After: 1")},
		{"a body over 64 KiB is refused", name("alice") + strings.Repeat(" ", 64<<10), refusal(413, "too_large", "The body must be at most 65536 bytes long")},
		{"a store that cannot write is a 503", "store fails ; " + name("alice"), noStore},

		{"closed registration asks who is calling", "restart -registration=closed ; " + name("alice"), noCredentials},
		{"and wants an admin", `restart -registration=closed ; POST /users/ as john {"username":"alice","password":"correct horse"}`, forbidden},
		{"who makes a user", `restart -registration=closed ; POST /users/ as admin {"username":"alice","password":"correct horse"}`, created + alice},
		{"and no more than a user", `restart -registration=closed ; POST /users/ as admin {"username":"alice","password":"correct horse","role":"admin"}`, invalidFields("role " + unknown)},
	})
}

func TestListUsers(t *testing.T) {
	limit := invalidFields("limit must be a whole number from 1 to 1000")
	after := invalidFields("after must be a whole number from 0 to 4611686018427387904")
	const all = "200\n[" + john + ",\n" + boss + ",\n" + jane + ",\n" + dora + "]"
	checkRules(t, []apiRule{
		{"an admin sees all accounts, by ID", "GET /users/ as admin", all},
		{"limit makes pages, with a link to the next", "GET /users/?limit=2 as admin", "200\n" + `Link: </users/?limit=2&after=2>; rel="next"` + "\n[" + john + ",\n" + boss + "]"},
		{"the last page has no link", "GET /users/?limit=2&after=2 as admin", "200\n[" + jane + ",\n" + dora + "]"},
		{"a page that fits exactly is the last", "GET /users/?limit=4 as admin", all},
		{"after need not be an account's", "PATCH /users/4 as admin {} ; GET /users/?after=3&limit=1000 as admin", "200\n[" + dora + "]"},
		{"behind the last there is nothing", "GET /users/?after=99 as admin", "200\n[]"},
		{"after=0 is the beginning", "GET /users/?limit=1&after=0 as admin", "200\n" + `Link: </users/?limit=1&after=1>; rel="next"` + "\n[" + john + "]"},
		{"an unknown parameter is ignored", "GET /users/?page=2 as admin", all},

		{"limit=0 is none", "GET /users/?limit=0 as admin", limit},
		{"limit=1001 is too many", "GET /users/?limit=1001 as admin", limit},
		{"limit=-1 is too few", "GET /users/?limit=-1 as admin", limit},
		{"limit is a number", "GET /users/?limit=ten as admin", limit},
		{"limit has no sign", "GET /users/?limit=%2B5 as admin", limit},
		{"limit has no zeros before it", "GET /users/?limit=007 as admin", limit},
		{"limit is not empty", "GET /users/?limit= as admin", limit},
		{"limit is given once", "GET /users/?limit=1&limit=2 as admin", limit},
		{"after is a number", "GET /users/?after=johndoe as admin", after},
		{"after is not negative", "GET /users/?after=-1 as admin", after},
		{"after is not beyond all numbers", "GET /users/?after=99999999999999999999 as admin", after},
		{"what is wrong is said at once", "GET /users/?limit=x&after=y as admin", invalidFields("limit must be a whole number from 1 to 1000", "after must be a whole number from 0 to 4611686018427387904")},

		{"it is for admins", "GET /users/ as john", forbidden},
		{"the role is read from the store, not the token: promoted", `PATCH /users/1 as admin {"role":"admin"} ; GET /users/?after=3 as john`, "200\n[" + dora + "]"},
		{"the role is read from the store, not the token: demoted", `PATCH /users/1 as admin {"role":"admin"} ; PATCH /users/2 as john {"role":"user"} ; GET /users/ as admin`, forbidden},
		{"admin is a role, not a name", `PATCH /users/1 as admin {"role":"admin"} ; DELETE /users/2 as john ; POST /users/ {"username":"admin","password":"correct horse"} ; POST /token username=admin&password=correct+horse ; keep access_token as fake ; GET /users/ as fake`, forbidden},
	})

	inWorld(t, func(w *world) {
		for i := range 150 {
			w.addUser(fmt.Sprintf("user%03d", i), "secret")
		}
		w.login("admin", "admin", "secret")
		got := w.do("GET /users/ as admin")
		if count := strings.Count(got, `"id":`); count != 100 || !strings.Contains(got, `Link: </users/?limit=100&after=100>; rel="next"`) {
			t.Errorf("GET /users/ with 152 accounts answers %d of them: %.200s\n  want 100, the default, and a link", count, got)
		}
	})
}

func TestMe(t *testing.T) {
	patched := func(old, new string) string { return "200\n" + strings.Replace(john, old, new, 1) }
	checkRules(t, []apiRule{
		{"a token shows its account", "GET /users/me/ as john", "200\n" + john},
		{"HEAD is GET without the body", "HEAD /users/me/ as john", "200"},
		{"bearer is written in any case", `GET /users/me/ with "Authorization: bEARER $john"`, "200\n" + john},
		{"and may have spaces behind it", `GET /users/me/ with "Authorization: Bearer   $john"`, "200\n" + john},

		{"without a token nobody is known", "GET /users/me/", noCredentials},
		{"Basic is no bearer token", `GET /users/me/ with "Authorization: Basic am9obmRvZTpzZWNyZXQ="`, noCredentials},
		{"Bearer alone is no token", `GET /users/me/ with "Authorization: Bearer "`, noCredentials},
		{"a token alone is no header", `GET /users/me/ with "Authorization: $john"`, noCredentials},
		{"Bearer is a word of its own", `GET /users/me/ with "Authorization: Bearer$john"`, noCredentials},
		{"a cookie is no token", `GET /users/me/ with "Cookie: access_token=$john"`, noCredentials},
		{"rubbish is refused", `GET /users/me/ with "Authorization: Bearer rubbish"`, badToken},
		{"two tokens in one header are refused", `GET /users/me/ with "Authorization: Bearer $john, Bearer $john"`, badToken},
		{"a space behind the token is not part of it", `GET /users/me/ with "Authorization: Bearer $john x"`, badToken},
		{"a refresh token is no access token", `GET /users/me/ as john.refresh`, badToken},
		{"a token works until the second it expires", "wait 29m59s ; GET /users/me/ as john", "200\n" + john},
		{"a token is refused the second it expires", "wait 30m ; GET /users/me/ as john", badToken},
		{"an ended session's token is refused", "GET /users/me/ as ended", badToken},
		{"a deleted account's token is refused", "GET /users/me/ as dave", badToken},
		{"a disabled account's token is told so", "GET /users/me/ as dora", inactive},
		{"enabling an account ends its sessions from before", `PATCH /users/4 as admin {"disabled":false} ; GET /users/me/ as dora`, badToken},

		{"email can be changed", `PATCH /users/me/ as john {"email":"j@example.com"}`, patched("johndoe@example.com", "j@example.com")},
		{"full name can be changed", `PATCH /users/me/ as john {"full_name":"J. \"D\" Doe"}`, patched("John Doe", `J. \"D\" Doe`)},
		{"null removes", `PATCH /users/me/ as john {"email":null,"full_name":null}`, "200\n" + `{"id":1,"username":"johndoe","email":null,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"what is absent stays", `PATCH /users/me/ as john {}`, "200\n" + john},
		{"the change is kept", `PATCH /users/me/ as john {"email":"j@example.com"} ; GET /users/me/ as john`, patched("johndoe@example.com", "j@example.com")},
		{"a patch may call itself JSON", `PATCH /users/me/ as john with "Content-Type: application/json" {"email":"j@example.com"}`, patched("johndoe@example.com", "j@example.com")},
		{"but not anything else", `PATCH /users/me/ as john with "Content-Type: application/json-patch+json" []`, refusal(415, "unsupported_media_type", "The Content-Type must be application/merge-patch+json or application/json")},
		{"nobody gives himself a role", `PATCH /users/me/ as john {"role":"admin"}`, invalidFields("role is not a field of this request")},
		{"nobody enables or disables himself", `PATCH /users/me/ as john {"disabled":true}`, invalidFields("disabled is not a field of this request")},
		{"a name is for life", `PATCH /users/me/ as john {"username":"johnny"}`, invalidFields("username is not a field of this request")},
		{"a password has an endpoint of its own", `PATCH /users/me/ as john {"password":"correct horse"}`, invalidFields("password is not a field of this request")},
		{"the rules are those of registration", `PATCH /users/me/ as john {"email":"j","full_name":"\n"}`, invalidFields("email must be one email address of at most 254 bytes", "full_name must not be only spaces")},
		{"a bad patch changes nothing", `PATCH /users/me/ as john {"email":"j@example.com","full_name":1} ; GET /users/me/ as john`, "200\n" + john},
		{"a patch is an object", `PATCH /users/me/ as john "email"`, invalidFields(" must be a JSON object")},
		{"a broken patch is told where", `PATCH /users/me/ as john {"email"}`, refusal(400, "not_json", "The body is not JSON: invalid character '}' after object key (byte 9)")},
		{"a store that cannot write is a 503", `store fails ; PATCH /users/me/ as john {"email":null}`, noStore},

		{"an account deletes itself with its password", `DELETE /users/me/ as john {"password":"secret"}`, "204"},
		{"its sessions end", `DELETE /users/me/ as john {"password":"secret"} ; GET /users/me/ as john`, badToken},
		{"it is gone", `DELETE /users/me/ as john {"password":"secret"} ; GET /users/1 as admin`, notFound},
		{"a wrong password deletes nothing", `DELETE /users/me/ as john {"password":"wrong"}`, refusal(403, "incorrect_password", "Incorrect password")},
		{"nothing at all", `DELETE /users/me/ as john {"password":"wrong"} ; GET /users/me/ as john`, "200\n" + john},
		{"the password must be there", `DELETE /users/me/ as john {}`, invalidFields("password is required")},
		{"and a string", `DELETE /users/me/ as john {"password":null}`, invalidFields("password must be a string")},
		{"and a body", `DELETE /users/me/ as john`, refusal(415, "unsupported_media_type", "The Content-Type must be application/json")},
		{"the last admin stays", `DELETE /users/me/ as admin {"password":"secret"}`, lastAdmin},
		{"with another admin there, it may go", `PATCH /users/1 as admin {"role":"admin"} ; DELETE /users/me/ as admin {"password":"secret"}`, "204"},
		{"a store that cannot write is a 503", `store fails ; DELETE /users/me/ as john {"password":"secret"}`, noStore},
	})
}

func TestPassword(t *testing.T) {
	const change = `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`
	checkRules(t, []apiRule{
		{"a change answers the tokens of a new session", change, tokens},
		{"they work", change + " ; keep access_token as new ; GET /users/me/ as new", "200\n" + john},
		{"the calling session ends", change + " ; GET /users/me/ as john", badToken},
		{"every other session ends", "login johndoe as other ; " + change + " ; GET /users/me/ as other", badToken},
		{"their refresh tokens are dead", change + " ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"the old password is refused", change + " ; POST /token username=johndoe&password=secret", wrongLogin},
		{"the new one is accepted", change + " ; POST /token username=johndoe&password=correct+horse", tokens},
		{"nobody else is touched", change + " ; GET /users/me/ as jane", "200\n" + jane},

		{"a wrong current password changes nothing", `PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"}`, refusal(403, "incorrect_password", "Incorrect password")},
		{"nothing at all", `PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"} ; GET /users/me/ as john`, "200\n" + john},
		{"both must be there", `PUT /users/me/password as john {}`, invalidFields("current_password is required", "new_password is required")},
		{"the rules are those of registration: length", `PUT /users/me/password as john {"current_password":"secret","new_password":"secret"}`, invalidFields("new_password must be at least 8 characters long")},
		{"the rules are those of registration: the name", `PUT /users/me/password as admin {"current_password":"secret","new_password":"admin"}`, invalidFields("new_password must be at least 8 characters long")},
		{"the rules are those of registration: common ones", `PUT /users/me/password as john {"current_password":"secret","new_password":"12345678"}`, invalidFields("new_password is one of the most common passwords")},
		{"unknown fields are refused", `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse","user_id":2}`, invalidFields("user_id is not a field of this request")},
		{"a store that cannot write is a 503", "store fails ; " + change, noStore},

		{"an admin sets another's password", `PUT /users/1/password as admin {"new_password":"correct horse"}`, "204"},
		{"which is accepted", `PUT /users/1/password as admin {"new_password":"correct horse"} ; POST /token username=johndoe&password=correct+horse`, tokens},
		{"that account's sessions end", `PUT /users/1/password as admin {"new_password":"correct horse"} ; GET /users/me/ as john`, badToken},
		{"the admin's go on", `PUT /users/1/password as admin {"new_password":"correct horse"} ; GET /users/me/ as admin`, "200\n" + boss},
		{"a disabled account stays disabled", `PUT /users/4/password as admin {"new_password":"correct horse"} ; POST /token username=dora&password=correct+horse`, noLogin},
		{"the password must be there", `PUT /users/1/password as admin {}`, invalidFields("new_password is required")},
		{"an admin does not set the own password without the current one", `PUT /users/2/password as admin {"new_password":"correct horse"}`, refusal(403, "own_account", "Change your own password at /users/me/password, with the current one")},
		{"the rules are those of registration: the name of that account", `POST /users/ {"username":"alice.liddell","password":"correct horse"} ; PUT /users/6/password as admin {"new_password":"ALICE.Liddell"}`, invalidFields("new_password must not contain the username")},
		{"there is no account 99", `PUT /users/99/password as admin {"new_password":"correct horse"}`, notFound},
		{"it is for admins, also for oneself", `PUT /users/1/password as john {"new_password":"correct horse"}`, forbidden},
		{"a store that cannot write is a 503", `store fails ; PUT /users/1/password as admin {"new_password":"correct horse"}`, noStore},
	})
}

// The epoch only ever counts up: no session of an older password is of the
// account's epoch again, whoever sets the next.
func TestEpochCountsPasswords(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		for i, call := range []string{
			`PUT /users/1/password as admin {"new_password":"correct horse"}`,
			`POST /token username=johndoe&password=correct+horse ; keep access_token as john ; PUT /users/me/password as john {"current_password":"correct horse","new_password":"battery staple"}`,
			`PUT /users/1/password as admin {"new_password":"correct horse"}`,
		} {
			w.do(call)
			if u, err := w.store.User(w.Context(), 1); err != nil || u.Epoch != int64(i+1) {
				t.Errorf("%s\n  got epoch %d, %v\n  want %d", call, u.Epoch, err, i+1)
			}
		}
	})
}

func TestSessions(t *testing.T) {
	const one = `{"id":"$john.sid","created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-31T00:00:00Z","user_agent":"","ip":"192.0.2.1","current":true}`
	checkRules(t, []apiRule{
		{"a login is a session", "GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"a session says from where and with what", `POST /token from 2001:db8::1 with "User-Agent: Firefox/140" username=johndoe&password=secret ; GET /users/me/sessions as john`, "200\n[" + one + ",\n" +
			`{"id":"<session>","created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-31T00:00:00Z","user_agent":"Firefox/140","ip":"2001:db8::1","current":false}]`},
		{"the calling one is marked", "login johndoe as other ; GET /users/me/sessions as other", "200\n[" + strings.Replace(one, "true", "false", 1) + ",\n" + strings.Replace(one, "john.sid", "other.sid", 1) + "]"},
		{"a refresh is a use, and prolongs", "wait 20m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh ; GET /users/me/sessions as john", "200\n[" +
			`{"id":"$john.sid","created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:20:00Z","expires_at":"2000-01-31T00:20:00Z","user_agent":"","ip":"192.0.2.1","current":true}]`},
		{"a request with an access token is no use", "wait 20m ; GET /users/me/ as john ; GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"a long user agent is cut at a whole character", `POST /token with "User-Agent: ` + strings.Repeat("a", 255) + `ä" username=jane&password=secret ; keep access_token as new ; DELETE /users/me/sessions as new ; GET /users/me/sessions as new`, "200\n[" +
			`{"id":"<session>","created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-31T00:00:00Z","user_agent":"` + strings.Repeat("a", 255) + `?","ip":"192.0.2.1","current":true}]`},

		{"a session can be ended by its ID", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john", "204"},
		{"its token is refused", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john ; GET /users/me/ as other", badToken},
		{"the calling one goes on", "login johndoe as other ; DELETE /users/me/sessions/$other.sid as john ; GET /users/me/ as john", "200\n" + john},
		{"the calling one can be ended too", "DELETE /users/me/sessions/$john.sid as john ; GET /users/me/ as john", badToken},
		{"another user's session is not found", "DELETE /users/me/sessions/$jane.sid as john", notFound},
		{"and goes on", "DELETE /users/me/sessions/$jane.sid as john ; GET /users/me/ as jane", "200\n" + jane},
		{"not even by an admin", "DELETE /users/me/sessions/$jane.sid as admin", notFound},
		{"an ended one is not found", "DELETE /users/me/sessions/$ended.sid as john", notFound},
		{"rubbish is not found", "DELETE /users/me/sessions/rubbish as john", notFound},
		{"a store that cannot write is a 503", "store fails ; DELETE /users/me/sessions/$john.sid as john", noStore},

		{"an admin lists the sessions of an account", "GET /users/1/sessions as admin", "200\n[" + strings.Replace(one, "true", "false", 1) + "]"},
		{"an admin's own session is marked as current", "GET /users/2/sessions as admin", "200\n[" + strings.Replace(one, "john.sid", "admin.sid", 1) + "]"},
		{"an account without sessions has an empty list", "DELETE /users/1/sessions as admin ; GET /users/1/sessions as admin", "200\n[]"},
		{"an admin ends all sessions of an account", "DELETE /users/1/sessions as admin ; GET /users/me/ as john", badToken},
		{"the sessions of others go on", "DELETE /users/1/sessions as admin ; GET /users/me/ as jane", "200\n" + jane},
		{"an admin may end all of the own sessions", "DELETE /users/2/sessions as admin ; GET /users/me/ as admin", badToken},
		{"there is no account 99 to list sessions of", "GET /users/99/sessions as admin", notFound},
		{"there is no account 99 to end sessions of", "DELETE /users/99/sessions as admin", notFound},
		{"listing the sessions of an account is for admins", "GET /users/1/sessions as john", forbidden},
		{"ending the sessions of an account is for admins", "DELETE /users/1/sessions as john", forbidden},
		{"ending the sessions of an account in a store that cannot write is a 503", "store fails ; DELETE /users/1/sessions as admin", noStore},

		{"every other session can be ended", "login johndoe as other ; DELETE /users/me/sessions as john", "204"},
		{"the others are refused", "login johndoe as other ; DELETE /users/me/sessions as john ; GET /users/me/ as other", badToken},
		{"the calling one goes on", "login johndoe as other ; DELETE /users/me/sessions as john ; GET /users/me/sessions as john", "200\n[" + one + "]"},
		{"nobody else is touched", "DELETE /users/me/sessions as john ; GET /users/me/ as jane", "200\n" + jane},
		{"a store that cannot write is a 503", "store fails ; DELETE /users/me/sessions as john", noStore},
	})
}

func TestOneUser(t *testing.T) {
	patch := func(id int, patch string) string { return fmt.Sprintf("PATCH /users/%d as admin %s", id, patch) }
	checkRules(t, []apiRule{
		{"a user reads itself", "GET /users/1 as john", "200\n" + john},
		{"an admin reads anybody", "GET /users/4 as admin", "200\n" + dora},
		{"a user reads nobody else", "GET /users/3 as john", forbidden},
		{"and does not learn who is there", "GET /users/99 as john", forbidden},
		{"nor what can be an ID", "GET /users/x as john", forbidden},
		{"an admin is told", "GET /users/99 as admin", notFound},
		{"a deleted account is not found", "GET /users/5 as admin", notFound},
		{"a name is no ID", "GET /users/johndoe as admin", notFound},
		{"0 is no ID", "GET /users/0 as admin", notFound},
		{"-1 is no ID", "GET /users/-1 as admin", notFound},
		{"01 is no ID", "GET /users/01 as admin", notFound},
		{"+1 is no ID", "GET /users/+1 as admin", notFound},
		{"an ID beyond all numbers is none", "GET /users/99999999999999999999 as admin", notFound},
		{"an ID has no slash behind it", "GET /users/1/ as admin", notFound},

		{"an admin changes email and full name", patch(3, `{"email":"j@example.com","full_name":"Jane"}`), "200\n" + `{"id":3,"username":"jane","email":"j@example.com","full_name":"Jane","disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"an admin removes them", patch(1, `{"email":null,"full_name":null}`), "200\n" + `{"id":1,"username":"johndoe","email":null,"full_name":null,"disabled":false,"role":"user","created_at":"2000-01-01T00:00:00Z"}`},
		{"an admin disables", patch(3, `{"disabled":true}`), "200\n" + strings.Replace(jane, "false", "true", 1)},
		{"which takes effect at once", patch(3, `{"disabled":true}`) + " ; GET /users/me/ as jane", inactive},
		{"an admin enables", patch(4, `{"disabled":false}`), "200\n" + strings.Replace(dora, "true", "false", 1)},
		{"an admin promotes", patch(3, `{"role":"admin"}`), "200\n" + strings.Replace(jane, `"role":"user"`, `"role":"admin"`, 1)},
		{"roles are user and admin", patch(3, `{"role":"root"}`), invalidFields(`role must be "user" or "admin"`)},
		{"a role has one spelling", patch(3, `{"role":"Admin"}`), invalidFields(`role must be "user" or "admin"`)},
		{"a role cannot be removed", patch(3, `{"role":null,"disabled":null}`), invalidFields("role must be a string", "disabled must be true or false")},
		{"1 is not true", patch(3, `{"disabled":1}`), invalidFields("disabled must be true or false")},
		{"a string is not true", patch(3, `{"disabled":"true"}`), invalidFields("disabled must be true or false")},
		{"true is no role", patch(3, `{"role":true}`), invalidFields("role must be a string")},
		{"an admin changes no name and no ID", patch(3, `{"username":"x","id":9}`), invalidFields("username is not a field of this request", "id is not a field of this request")},
		{"nor a password, by this way", patch(3, `{"password_hash":"x"}`), invalidFields("password_hash is not a field of this request")},
		{"there is no account 99", patch(99, `{}`), notFound},
		{"it is for admins, also for oneself", `PATCH /users/1 as john {"email":null}`, forbidden},
		{"the last active admin cannot be demoted", patch(2, `{"role":"user"}`), lastAdmin},
		{"nor disabled", patch(2, `{"disabled":true}`), lastAdmin},
		{"a disabled admin does not count", patch(4, `{"role":"admin"}`) + " ; " + patch(2, `{"role":"user"}`), lastAdmin},
		{"with another one there, it can", patch(3, `{"role":"admin"}`) + " ; " + patch(2, `{"role":"user"}`), "200\n" + strings.Replace(boss, `"role":"admin"`, `"role":"user"`, 1)},
		{"a store that cannot write is a 503", "store fails ; " + patch(3, `{"disabled":true}`), noStore},

		{"an admin deletes", "DELETE /users/3 as admin", "204"},
		{"the account is gone", "DELETE /users/3 as admin ; GET /users/3 as admin", notFound},
		{"its tokens are refused", "DELETE /users/3 as admin ; GET /users/me/ as jane", badToken},
		{"an account is deleted once", "DELETE /users/5 as admin", notFound},
		{"an admin deletes the own account with its password only", "DELETE /users/2 as admin", refusal(403, "own_account", "Delete your own account at /users/me/, with its password")},
		{"it is for admins", "DELETE /users/3 as john", forbidden},
		{"also for oneself", "DELETE /users/1 as john", forbidden},
		{"a store that cannot write is a 503", "store fails ; DELETE /users/3 as admin", noStore},
	})
}

func TestHealth(t *testing.T) {
	const ok = "200\n" + `{"status":"ok"}`
	checkRules(t, []apiRule{
		{"the process is alive", "GET /healthz", ok},
		{"also when the store fails", "store fails ; GET /healthz", ok},
		{"the store works", "GET /readyz", ok},
		{"or fails", "store fails ; GET /readyz", noStore},
		{"reading goes on when writing fails", "store fails ; GET /users/me/ as john", "200\n" + john},
	})
}

func TestPaths(t *testing.T) {
	method := func(allow string) string {
		return refusal(405, "method_not_allowed", "Method not allowed", "Allow: "+allow)
	}
	redirect := func(to string) string { return "307\nLocation: " + to }
	checkRules(t, []apiRule{
		{"/users is spelt /users/", "POST /users {}", redirect("/users/")},
		{"/users/me is spelt /users/me/", "PATCH /users/me {}", redirect("/users/me/")},
		{"the query is kept", "DELETE /users?limit=3&after=2", redirect("/users/?limit=3&after=2")},
		{"every method is redirected", "OPTIONS /users/me?a=b", redirect("/users/me/?a=b")},
		{"a secret in the query is not", "POST /users/me?access_token=x", secretInQuery},
		{"two slashes are one", "POST //users/", redirect("/users/")},
		{"dots are followed", "POST /users/me/../", redirect("/users/")},
		{"never to another host", "POST //evil.example/..//users/", redirect("/users/")},

		{"the root is the page", "HEAD /", "302\nLocation: /docs"},
		{"an unknown path is not found", "GET /nowhere", notFound},
		{"whatever the method", "DELETE /nowhere", notFound},
		{"below a path there is nothing", "GET /users/me/sessions/ as john", notFound},
		{"a path has one spelling", "GET /Users/me/ as john", notFound},
		{"the page has no such part", "GET /docs/passwords.txt", notFound},
		{"nor what is not its own", "GET /docs/..%2fmain.go", notFound},
		{"nor its directory", "GET /docs/%2e", notFound},

		{"the wrong method is told the right ones: /users/", "PUT /users/ {}", method("GET, HEAD, POST")},
		{"the wrong method is told the right ones: /users/me/", "POST /users/me/ {}", method("GET, HEAD, PATCH, DELETE")},
		{"the wrong method is told the right ones: /users/me/password", "GET /users/me/password", method("PUT")},
		{"the wrong method is told the right ones: /users/me/sessions", "POST /users/me/sessions", method("GET, HEAD, DELETE")},
		{"the wrong method is told the right ones: /users/me/sessions/{sid}", "GET /users/me/sessions/x", method("DELETE")},
		{"the wrong method is told the right ones: /users/{id}", "POST /users/1", method("GET, HEAD, PATCH, DELETE")},
		{"the wrong method is told the right ones: /users/{id}/password", "POST /users/1/password", method("PUT")},
		{"the wrong method is told the right ones: /healthz", "DELETE /healthz", method("GET, HEAD")},
		{"the wrong method is told the right ones: /readyz", "DELETE /readyz", method("GET, HEAD")},
		{"the wrong method is told the right ones: /openapi.json", "POST /openapi.json", method("GET, HEAD")},
		{"the wrong method is told the right ones: /docs", "POST /docs", method("GET, HEAD")},
		{"the wrong method is told the right ones: /", "POST /", method("GET, HEAD")},
		{"OPTIONS is one of them", "OPTIONS /users/me/password", method("PUT")},

		{"username in a query is refused", "GET /users/?username=johndoe as admin", secretInQuery},
		{"password in a query is refused", "GET /healthz?password=hunter22", secretInQuery},
		{"token in a query is refused", "GET /users/me/?token=$john", secretInQuery},
		{"refresh_token in a query is refused", "GET /docs?refresh_token=$john.refresh", secretInQuery},
		{"access_token in a query is refused", "GET /users/me/?access_token=$john", secretInQuery},
		{"also an empty one", "GET /users/me/?x=y&access_token as john", secretInQuery},
		{"also an encoded one", "GET /users/me/?%61ccess_token=x as john", secretInQuery},
		{"also where there is nothing", "GET /nowhere?token=x", secretInQuery},
		{"also at a login", "POST /token?username=johndoe&password=secret grant_type=password", oauthRefusal(400, "invalid_request", "invalid_request", "A name or a secret must not be sent in the query string", `WWW-Authenticate: Bearer error="invalid_request"`)},
		{"a query that cannot be read is refused", "GET /users/me/?a;access_token=x as john", refusal(400, "invalid_request", "The query string is not valid")},
		{"an unknown parameter is harmless", "GET /users/me/?x=y as john", "200\n" + john},
		{"two Authorization headers are refused", "GET /users/me/ as john as admin", refusal(400, "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)},
		{"even equal ones", "GET /users/me/ as john as john", refusal(400, "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)},
		{"even where none is needed", `POST /token as john with "Authorization: Basic eDp5" username=johndoe&password=secret`, oauthRefusal(400, "invalid_request", "invalid_request", "More than one Authorization header", `WWW-Authenticate: Bearer error="invalid_request"`)},
	})
}

// TestCrossOrigin: a browser says in Sec-Fetch-Site or Origin for whose page it sends
// a request.
func TestCrossOrigin(t *testing.T) {
	refused := refusal(403, "cross_origin", "Cross-origin request")
	const patch = `PATCH /users/me/ as john with "Content-Type: application/json" `
	checkRules(t, []apiRule{
		{"a program without a browser sends neither header", patch + `{}`, "200\n" + john},
		{"the server's own page may send anything", patch + `with "Sec-Fetch-Site: same-origin" {}`, "200\n" + john},
		{"what a user types into the address bar has no origin", patch + `with "Sec-Fetch-Site: none" {}`, "200\n" + john},
		{"a page of an origin of -cors-origin may send anything", patch + `with "Sec-Fetch-Site: cross-site" with "Origin: http://localhost:3000" {}`, "200\n" + john},
		{"a page of another site is refused", patch + `with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example" {}`, refused},
		{"a page of another name on this site is refused", patch + `with "Sec-Fetch-Site: same-site" with "Origin: https://evil.example" {}`, refused},
		{"an old browser says only the origin", patch + `with "Origin: https://evil.example" {}`, refused},
		{"an old browser's own page has the server's origin", patch + `with "Origin: http://example.com" {}`, "200\n" + john},
		{"GET changes nothing, and is answered", `GET /users/me/ as john with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example"`, "200\n" + john},
		{"it comes before any other refusal", `POST /nowhere with "Sec-Fetch-Site: cross-site" x`, refused},
		{"at the OAuth endpoints it is an OAuth error", `POST /revoke with "Sec-Fetch-Site: cross-site" token=$john`, oauthRefusal(403, "invalid_request", "cross_origin", "Cross-origin request")},
		{"without the demo accounts no other origin may", `restart -demo=false ; ` + patch + `with "Sec-Fetch-Site: same-site" with "Origin: http://localhost:3000" {}`, refused},
	})
}

// TestEveryCodeHasARow: what a program may rely on stands in a table above.
func TestEveryCodeHasARow(t *testing.T) {
	manual := readText(t, "handlers_test.go")
	for _, p := range problems {
		row := fmt.Sprintf(`efusal(%d, "%s", `, p.status, p.code)
		oauth := fmt.Sprintf(`efusal(%d, "%s", "%s", `, p.status, p.oauth, p.code)
		if !strings.Contains(manual, row) && !strings.Contains(manual, oauth) && p.err != errInvalidFields {
			t.Errorf("no row has the code %s with status %d", p.code, p.status)
		}
	}
}

// TestThrottle has the rules; attack_test.go has the ways around them.
func TestThrottle(t *testing.T) {
	const wrong = "POST /token username=johndoe&password=wrong"
	const right = "POST /token username=johndoe&password=secret"
	tooMany := func(retry string) string {
		return oauthRefusal(429, "temporarily_unavailable", "too_many_failed_logins", "Too many failed logins", "Retry-After: "+retry)
	}
	checkRules(t, []apiRule{
		{"five failures are free", "repeat 5 " + wrong, wrongLogin},
		{"the sixth try must wait a second", "repeat 6 " + wrong, tooMany("1")},
		{"even with the right password", "repeat 5 " + wrong + " ; " + right, tooMany("1")},
		{"just so long", "repeat 5 " + wrong + " ; wait 999ms ; " + right, tooMany("1")},
		{"and no longer", "repeat 5 " + wrong + " ; wait 1s ; " + right, tokens},
		{"a try that had to wait does not make it longer", "repeat 50 " + wrong + " ; wait 1s ; " + right, tokens},
		{"the next one waits twice as long", "repeat 5 " + wrong + " ; wait 1s ; repeat 2 " + wrong, tooMany("2")},
		{"and again", "repeat 5 " + wrong + " ; wait 1s ; " + wrong + " ; wait 2s ; repeat 2 " + wrong, tooMany("4")},
		{"a success forgets them", "repeat 4 " + wrong + " ; " + right + " ; repeat 5 " + wrong, wrongLogin},
		{"four failures are not enough", "repeat 4 " + wrong + " ; " + right, tokens},

		{"the name counts in any case", "repeat 5 " + wrong + " ; POST /token username=JOHNDOE&password=secret", tooMany("1")},
		{"a try that must wait reads no store", "repeat 5 " + wrong + " ; store vanishes ; " + right, tooMany("1")},
		{"another account is not affected", "repeat 5 " + wrong + " ; POST /token username=jane&password=secret", tokens},
		{"another address is not affected", "repeat 5 " + wrong + " ; POST /token from 192.0.2.2 username=johndoe&password=secret", tokens},
		{"of IPv6, a /64 is one address", "repeat 5 POST /token from 2001:db8:1:2::1 username=johndoe&password=wrong ; POST /token from 2001:db8:1:2:ffff::9 username=johndoe&password=secret", tooMany("1")},
		{"and the next /64 another", "repeat 5 POST /token from 2001:db8:1:2::1 username=johndoe&password=wrong ; POST /token from 2001:db8:1:3::1 username=johndoe&password=secret", tokens},
		{"IPv4 in IPv6 is IPv4", "repeat 5 " + wrong + " ; POST /token from ::ffff:192.0.2.1 username=johndoe&password=secret", tooMany("1")},
		{"an unknown account is throttled the same", "repeat 6 POST /token username=nobody&password=secret", tooMany("1")},
		{"so is a disabled one", "repeat 6 POST /token username=dora&password=wrong", tooMany("1")},

		{"a session is not affected", "repeat 6 " + wrong + " ; GET /users/me/ as john", "200\n" + john},
		{"nor a refresh", "repeat 6 " + wrong + " ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", strings.Replace(tokens, "<access token>", "$john", 1)},
		{"a wrong current password is a failed login", `repeat 5 PUT /users/me/password as john {"current_password":"wrong","new_password":"correct horse"} ; ` + right, tooMany("1")},
		{"so is a wrong password at deleting", `repeat 5 DELETE /users/me/ as john {"password":"wrong"} ; ` + right, tooMany("1")},
		{"and the reverse", "repeat 5 " + wrong + ` ; DELETE /users/me/ as john {"password":"secret"}`, refusal(429, "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
	})
}

// secretInQuery is what a secret in a query string is told.
var secretInQuery = refusal(400, "invalid_request", "A name or a secret must not be sent in the query string", `WWW-Authenticate: Bearer error="invalid_request"`)

// TestWhoMayCallWhat has every endpoint of the API, who may use it, a call that
// succeeds and its status. No route may be missing.
func TestWhoMayCallWhat(t *testing.T) {
	endpoints := []struct {
		pattern string
		who     who
		call    string // by the least that may
		status  int
	}{
		{"POST /token", anyone, "POST /token username=johndoe&password=secret", 200},
		{"POST /revoke", anyone, "POST /revoke token=x", 200},
		{"POST /introspect", admin, "POST /introspect as admin token=x", 200},

		{"POST /users/{$}", anyone, `POST /users/ {"username":"alice","password":"correct horse"}`, 201},
		{"GET /users/{$}", admin, "GET /users/ as admin", 200},

		{"GET /users/me/{$}", activeUser, "GET /users/me/ as john", 200},
		{"PATCH /users/me/{$}", activeUser, "PATCH /users/me/ as john {}", 200},
		{"DELETE /users/me/{$}", activeUser, `DELETE /users/me/ as john {"password":"secret"}`, 204},
		{"PUT /users/me/password", activeUser, `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`, 200},
		{"GET /users/me/sessions", activeUser, "GET /users/me/sessions as john", 200},
		{"DELETE /users/me/sessions", activeUser, "DELETE /users/me/sessions as john", 204},
		{"DELETE /users/me/sessions/{sid}", activeUser, "DELETE /users/me/sessions/$john.sid as john", 204},

		{"GET /users/{id}", activeUser, "GET /users/1 as john", 200},
		{"PATCH /users/{id}", admin, "PATCH /users/1 as admin {}", 200},
		{"GET /users/{id}/sessions", admin, "GET /users/1/sessions as admin", 200},
		{"DELETE /users/{id}/sessions", admin, "DELETE /users/1/sessions as admin", 204},
		{"PUT /users/{id}/password", admin, `PUT /users/1/password as admin {"new_password":"correct horse"}`, 204},
		{"DELETE /users/{id}", admin, "DELETE /users/1 as admin", 204},

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
		refused := map[string]int{"john": 200, "jane": 200, "admin": 200, "nobody": 401, "dora": 400, "dave": 401, "ended": 401, "john.refresh": 401}
		switch e.who {
		case anyone:
			refused = nil
		case admin:
			refused["john"], refused["jane"] = 403, 403
		}
		t.Run(e.pattern, func(t *testing.T) {
			inPeopledWorld(t, func(w *world) {
				for caller, status := range refused {
					if status == 200 {
						continue
					}
					call := strings.Replace(strings.Replace(e.call, " as john", " as "+caller, 1), " as admin", " as "+caller, 1)
					call = strings.Replace(call, " as nobody", "", 1)
					if w.send(w.Context(), call); w.answers[len(w.answers)-1].status != status {
						t.Errorf("%s\n  got %s\n  want %d, since it is for: %s", call, w.show(w.answers[len(w.answers)-1]), status, e.who)
					}
				}
				if got := w.send(w.Context(), e.call); got.status != e.status {
					t.Errorf("%s\n  got %s\n  want %d", e.call, w.show(got), e.status)
				}
			})
		})
	}
	for _, r := range new(server).routes() {
		there = append(there, r.pattern)
	}
	slices.Sort(here)
	slices.Sort(there)
	if diff := cmp.Diff(there, here); diff != "" {
		t.Errorf("the table of this test against the routes of the server (-routes +test):\n%s", diff)
	}
}

// TestAccessToken shows what a token says, to the byte: other programs read it
// with the JWT library of their choice.
func TestAccessToken(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		part := strings.Split(w.vars["john"], ".")
		for i, want := range []string{
			`{"alg":"HS256","typ":"JWT"}`,
			`{"iss":"stdauth","aud":"stdauth","sub":"1","sid":"` + w.vars["john.sid"] + `","username":"johndoe","role":"user","iat":946684800,"exp":946686600}`,
		} {
			if got, err := base64.RawURLEncoding.DecodeString(part[i]); err != nil || string(got) != want {
				t.Errorf("part %d of the token says %s (%v)\n  want %s", i, got, err, want)
			}
		}
	})
	inWorld(t, func(w *world) {
		w.restart("-issuer=example", "-access-ttl=1m")
		got := w.do("POST /token username=admin&password=secret")
		w.keepTokens("admin")
		if want := strings.Replace(tokens, "1800", "60", 1); got != want {
			t.Errorf("POST /token with -access-ttl=1m\n  got %s\n  want %s", got, want)
		}
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(w.vars["admin"], ".")[1])
		want := `{"iss":"example","aud":"example","sub":"2","sid":"` + w.vars["admin.sid"] + `","username":"admin","role":"admin","iat":946684800,"exp":946684860}`
		if string(payload) != want {
			t.Errorf("the token with -issuer=example says %s\n  want %s", payload, want)
		}
	})
}

// TestTokenAnswerIsNotKept by caches (RFC 6749, section 5.1).
func TestTokenAnswerIsNotKept(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		for _, call := range []string{
			"POST /token username=johndoe&password=secret",
			"POST /token grant_type=refresh_token&refresh_token=$john.refresh",
			`PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`,
		} {
			h := w.send(w.Context(), call).header
			if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" {
				t.Errorf("%s\n  got Cache-Control: %q and Pragma: %q\n  want no-store and no-cache", call, h.Get("Cache-Control"), h.Get("Pragma"))
			}
		}
	})
}

// TestHeaders shows the headers that other tests do not look at.
func TestHeaders(t *testing.T) {
	const (
		exposed = "Link, Location, Retry-After, WWW-Authenticate, X-Request-Id"
		methods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	)
	headers := []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials",
		"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Vary", "Strict-Transport-Security", "Content-Security-Policy"}
	for _, tt := range []struct {
		rule, restart, call string
		status              int
		want                map[string]string
	}{
		{"a page of this machine may call", "", `GET /healthz with "Origin: http://localhost:3000"`, 200,
			map[string]string{"Access-Control-Allow-Origin": "http://localhost:3000", "Access-Control-Expose-Headers": exposed, "Vary": "Origin"}},
		{"and may read why it was refused", "", `GET /users/me/ with "Origin: http://127.0.0.1"`, 401,
			map[string]string{"Access-Control-Allow-Origin": "http://127.0.0.1", "Access-Control-Expose-Headers": exposed, "Vary": "Origin"}},
		{"it may ask before", "", `OPTIONS /users/me/ with "Origin: http://localhost:3000" with "Access-Control-Request-Method: PATCH"`, 204,
			map[string]string{"Access-Control-Allow-Origin": "http://localhost:3000", "Access-Control-Expose-Headers": exposed, "Vary": "Origin",
				"Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": "Authorization, Content-Type", "Access-Control-Max-Age": "600"}},
		{"another page may not", "", `GET /healthz with "Origin: https://evil.example"`, 200, map[string]string{"Vary": "Origin"}},
		{"nor ask", "", `OPTIONS /users/me/ with "Origin: https://evil.example" with "Access-Control-Request-Method: PATCH"`, 405, map[string]string{"Vary": "Origin"}},
		{"an origin can be named", "-cors-origin=https://app.example", `GET /healthz with "Origin: https://app.example"`, 200,
			map[string]string{"Access-Control-Allow-Origin": "https://app.example", "Access-Control-Expose-Headers": exposed, "Vary": "Origin"}},
		{"and is then the only one", "-cors-origin=https://app.example", `GET /healthz with "Origin: http://localhost:3000"`, 200, map[string]string{"Vary": "Origin"}},
		{"without the demo accounts there is none", "-demo=false", `GET /healthz with "Origin: http://localhost:3000"`, 200, map[string]string{}},

		{"the page runs nothing but its own, and is kept for each origin", "-demo=false", "GET /docs", 200, map[string]string{"Content-Security-Policy": contentPolicy, "Vary": "Accept-Encoding, Origin"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if tt.restart != "" {
					w.restart(tt.restart)
				}
				a := w.send(w.Context(), tt.call)
				got := map[string]string{}
				for _, name := range headers {
					if values := a.header.Values(name); len(values) > 0 {
						got[name] = strings.Join(values, " | ")
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" || a.status != tt.status {
					t.Errorf("%s\n  got %d, want %d, and headers (-want +got):\n%s", tt.call, a.status, tt.status, diff)
				}
			})
		})
	}

	t.Run("with TLS, browsers are told to come back by HTTPS only", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.start(Config{TLS: true}, w.server.tokens)
			if got := w.send(w.Context(), "GET /nowhere").header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
				t.Errorf("GET /nowhere\n  got Strict-Transport-Security: %q\n  want a year", got)
			}
		})
	})
}

// TestWeakHashIsReplaced at the next login, so that a raised cost reaches the
// accounts that are in use.
func TestWeakHashIsReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		hash := func() string {
			u, err := w.store.UserByName(w.Context(), "johndoe")
			if err != nil {
				t.Fatal(err)
			}
			return u.PasswordHash
		}
		w.server.passwords.Iterations = 2
		before := hash()
		if got := w.do("POST /token username=johndoe&password=wrong"); got != wrongLogin || hash() != before {
			t.Errorf("a wrong password: got %s and the hash %s\n  want %s and the old hash", got, hash(), wrongLogin)
		}
		w.login("john", "johndoe", "secret")
		if !strings.HasPrefix(before, "$pbkdf2-sha256$i=1,") || !strings.HasPrefix(hash(), "$pbkdf2-sha256$i=2,") {
			t.Errorf("a login made %s of %s, want 2 iterations for 1", hash(), before)
		}
		after := hash()
		w.login("again", "johndoe", "secret")
		if hash() != after {
			t.Errorf("a login made %s of %s, want it left alone", hash(), after)
		}
		w.server.passwords.Iterations = 1
		w.login("lowered", "johndoe", "secret")
		if hash() != after {
			t.Errorf("a lowered cost made %s of %s, want the stronger one kept", hash(), after)
		}

		// Meanwhile the password is reset, or the account is deleted.
		w.login("admin", "admin", "secret")
		w.server.passwords.Iterations = 3
		if got := w.do(`begin POST /token username=johndoe&password=secret ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`); got != wrongLogin {
			t.Errorf("a login whose hash is replaced while the password is reset\n  got %s\n  want %s", got, wrongLogin)
		}
		if got := w.do("POST /token username=johndoe&password=battery+staple"); got != tokens {
			t.Errorf("a login with the password that was reset meanwhile\n  got %s\n  want tokens", got)
		}
		w.server.passwords.Iterations = 4
		if got := w.do("begin POST /token username=johndoe&password=battery+staple ; DELETE /users/1 as admin ; end"); got != wrongLogin {
			t.Errorf("a login whose hash is replaced while the account is deleted\n  got %s\n  want %s", got, wrongLogin)
		}
	})
	inPeopledWorld(t, func(w *world) {
		w.server.passwords.Iterations = 2
		w.do("POST /token username=dora&password=secret")
		if u, err := w.store.UserByName(w.Context(), "dora"); err != nil || !strings.HasPrefix(u.PasswordHash, "$pbkdf2-sha256$i=1,") {
			t.Errorf("a refused login of a disabled account made %s (%v), want its hash left alone", u.PasswordHash, err)
		}
		w.login("john", "johndoe", "secret")
		if got := w.do("GET /users/me/ as john"); got != "200\n"+john {
			t.Errorf("GET /users/me/ after the hash was replaced\n  got %s\n  want the session to go on", got)
		}
	})
}

// TestMeanwhile has what happens when something changes while a request is
// under way: it is held where it writes.
func TestMeanwhile(t *testing.T) {
	const login = "begin POST /token username=johndoe&password=secret ; "
	const refresh = "begin POST /token grant_type=refresh_token&refresh_token=$john.refresh ; "
	checkRules(t, []apiRule{
		{"nothing happens", login + "end", tokens},
		{"the password is changed: a login with the old one fails", login + `PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; end`, wrongLogin},
		{"the password is reset: a login with the old one fails", login + `PUT /users/1/password as admin {"new_password":"correct horse"} ; end`, wrongLogin},
		{"the account is deleted: a login fails", login + "DELETE /users/1 as admin ; end", wrongLogin},
		{"the account is disabled: a login fails", login + `PATCH /users/1 as admin {"disabled":true} ; end`, noLogin},
		{"the password is changed: a refresh fails", refresh + `PUT /users/1/password as admin {"new_password":"correct horse"} ; end`, wrongRefresh},
		{"the account is deleted: a refresh fails", refresh + "DELETE /users/1 as admin ; end", wrongRefresh},
		{"the account is disabled: a refresh fails", refresh + `PATCH /users/1 as admin {"disabled":true} ; end`, noLogin},
		{"the session is ended: a refresh fails", refresh + "POST /revoke token=$john ; end", wrongRefresh},
		{"the password is reset before it is changed: the change fails", `begin PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`, badToken},
		{"the reset password stays", `begin PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end ; POST /token username=johndoe&password=battery+staple`, tokens},
		{"the password is reset before the account is deleted: it stays", `begin DELETE /users/me/ as john {"password":"secret"} ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`, badToken},
		{"the account is deleted: its change of password fails", `begin PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; DELETE /users/1 as admin ; end`, badToken},
		{"the account is deleted: the session after it fails", `begin 2 PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; DELETE /users/1 as admin ; end`, badToken},
		{"the account is deleted: its patch fails", `begin PATCH /users/me/ as john {"email":null} ; DELETE /users/1 as admin ; end`, badToken},
		{"the account is deleted: it is not deleted again", `begin DELETE /users/me/ as john {"password":"secret"} ; DELETE /users/1 as admin ; end`, badToken},
		{"the account is deleted: it ends no sessions", `begin DELETE /users/me/sessions as john ; DELETE /users/1 as admin ; end`, badToken},
		{"the account is deleted: an admin's patch does not find it", `begin PATCH /users/1 as admin {"email":null} ; DELETE /users/1 as admin ; end`, notFound},
		{"the name is taken: a registration fails", `begin POST /users/ {"username":"alice","password":"correct horse"} ; POST /users/ {"username":"ALICE","password":"correct horse"} ; end`, refusal(400, "username_taken", "Username already registered")},
		{"the password is changed again: the first change leaves no session", `begin 2 PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"} ; PUT /users/1/password as admin {"new_password":"battery staple"} ; end`, badToken},
	})
}

// TestVanishedStore is one that cannot even be read, as a cluster may be.
func TestVanishedStore(t *testing.T) {
	noLogin := oauthRefusal(503, "temporarily_unavailable", "store_unavailable", "The store cannot be used at the moment", "Retry-After: 5")
	checkRules(t, []apiRule{
		{"a login is a 503, and no wrong password", "store vanishes ; POST /token username=johndoe&password=secret", noLogin},
		{"a refresh is a 503, and no bad token", "store vanishes ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", noLogin},
		{"a token is a 503, and no bad token", "store vanishes ; GET /users/me/ as john", noStore},
		{"introspection is a 503, and not inactive", "store vanishes ; POST /introspect as admin token=$john", noLogin},
		{"a registration is a 503", `store vanishes ; POST /users/ {"username":"alice","password":"correct horse"}`, noStore},
		{"a bad token is one all the same", "store vanishes ; GET /users/me/ as john.refresh", badToken},
		{"nobody was logged out", "store vanishes ; GET /users/me/ as john ; store works ; GET /users/me/ as john", "200\n" + john},
		{"nor counted as guessing", "store vanishes ; repeat 9 POST /token username=johndoe&password=secret ; store works ; POST /token username=johndoe&password=secret", tokens},
	})
}

// TestTokenFromTheFuture: a store that was put back from a backup knows nothing of
// the refresh tokens handed out since. They are no replay.
func TestTokenFromTheFuture(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.vars["future"] = w.server.tokens.Refresh(RefreshToken{UserID: 1, SessionID: w.vars["john.sid"], Generation: 7})
		w.note(w.vars["future"])
		if got := w.do("POST /token grant_type=refresh_token&refresh_token=$future"); got != wrongRefresh {
			t.Errorf("a refresh token of a later generation\n  got %s\n  want %s", got, wrongRefresh)
		}
		if got := w.do("GET /users/me/ as john"); got != "200\n"+john {
			t.Errorf("GET /users/me/ after it\n  got %s\n  want the session to go on", got)
		}
	})
}

// TestUnforeseen errors are for the log, not for the client.
func TestUnforeseen(t *testing.T) {
	for _, tt := range []struct {
		rule string
		err  error
	}{
		{"an error that nobody has foreseen", fmt.Errorf("the moon is in the wrong house")},
		{"a panic", nil},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			inPeopledWorld(t, func(w *world) {
				w.server.store = moonStore{w.store, tt.err}
				want := refusal(500, "internal_error", "Internal error")
				if got := w.do("GET /users/me/ as john"); got != want {
					t.Errorf("GET /users/me/\n  got %s\n  want %s", got, want)
				}
				if log := w.log.String(); !strings.Contains(log, "moon") {
					t.Errorf("the log does not say what happened: %s", log)
				}
			})
		})
	}
}

// A moonStore fails in a way that no store should.
type moonStore struct {
	Store
	err error
}

func (s moonStore) Session(context.Context, int64, string) (Session, User, error) {
	if s.err == nil {
		panic("the moon has come down")
	}
	return Session{}, User{}, s.err
}

// checkRules asks for each row in a world of its own. The page shows the rows too.
func checkRules(t *testing.T, rules []apiRule) {
	t.Helper()
	checkPageRules(t, rules)
	for _, tt := range rules {
		t.Run(tt.rule, func(t *testing.T) {
			inPeopledWorld(t, func(w *world) {
				if got := w.do(tt.do); got != tt.want {
					t.Errorf("%.500s\n  got  %s\n  want %s", tt.do, indent(got), indent(tt.want))
				}
			})
		})
	}
}

// inPeopledWorld has all those that the head of this file speaks of.
func inPeopledWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	inWorld(t, func(w *world) {
		w.addUser("jane", "secret")
		dora := w.addUser("dora", "secret")
		dave := w.addUser("dave", "secret")
		for as, name := range map[string]string{"john": "johndoe", "ended": "johndoe", "admin": "admin", "jane": "jane", "dora": "dora", "dave": "dave"} {
			w.login(as, name, "secret")
		}
		if err := w.store.EndSession(w.Context(), Caller{}, 1, w.vars["ended.sid"]); err != nil {
			t.Fatal(err)
		}
		if err := w.store.DeleteUser(w.Context(), Caller{}, dave.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.UpdateUser(w.Context(), Caller{}, dora.ID, func(u *User) error { u.Disabled = true; return nil }); err != nil {
			t.Fatal(err)
		}
		test(w)
	})
}

// manyFields are members that no request has.
func manyFields(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"field%d":0`, i))
	}
	return strings.Join(list, ",")
}

func manyRefusals(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("field%d is not a field of this request", i))
	}
	return list
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n       ") }

// refusal is a problem (RFC 9457), as it is shown.
func refusal(status int, code, detail string, headers ...string) string {
	return shown(status, headers, struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}{http.StatusText(status), status, detail, code})
}

// oauthRefusal is an error of the OAuth endpoints (RFC 6749, section 5.2).
func oauthRefusal(status int, oauth, code, detail string, headers ...string) string {
	return shown(status, headers, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Detail      string `json:"detail"`
		Code        string `json:"code"`
	}{oauth, detail, detail, code})
}

// invalidFields is a 422 with an entry for each "field message".
func invalidFields(entries ...string) string {
	type entry struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	}
	detail := fmt.Sprintf("%d fields are invalid", len(entries))
	if len(entries) == 1 {
		detail = strings.TrimSpace(entries[0])
	}
	list := make([]entry, len(entries))
	for i, e := range entries {
		list[i].Field, list[i].Message, _ = strings.Cut(e, " ")
	}
	return shown(422, nil, struct {
		Title  string  `json:"title"`
		Status int     `json:"status"`
		Detail string  `json:"detail"`
		Code   string  `json:"code"`
		Errors []entry `json:"errors"`
	}{"Unprocessable Entity", 422, "The request is invalid: " + detail, "invalid_fields", list})
}

func shown(status int, headers []string, body any) string {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return strings.Join(slices.Concat([]string{fmt.Sprint(status)}, headers, []string{string(b)}), "\n")
}
