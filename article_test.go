package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// docs/article.md names the tests of this file. Each shows that a mistake of the article
// is corrected here.

func TestArticlePageNamesItsTests(t *testing.T) {
	t.Parallel()
	page := readText(t, "docs/article.md")
	var there []string
	for _, m := range regexp.MustCompile(`(?m)^func (TestArticle\w+)\(`).FindAllStringSubmatch(readText(t, "article_test.go"), -1) {
		if m[1] != "TestArticlePageNamesItsTests" {
			there = append(there, m[1])
		}
	}
	named := regexp.MustCompile(`TestArticle\w+`).FindAllString(page, -1)
	slices.Sort(there)
	slices.Sort(named)
	if diff := cmp.Diff(there, slices.Compact(named)); diff != "" {
		t.Errorf("the tests of this file (-), and those that docs/article.md names (+):\n%s", diff)
	}
}

func TestArticleHashNeverLeavesTheServer(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	john, admin := a.login("johndoe", "secret"), a.login("admin", "secret")
	for _, request := range []struct{ method, path, token, body string }{
		{"POST", "/users/", "", `{"username":"newuser","password":"newpassword"}`},
		{"GET", "/users/me/", john, ""},
		{"PATCH", "/users/me/", john, `{"full_name":"John"}`},
		{"GET", "/users/", admin, ""},
		{"GET", "/users/1", admin, ""},
		{"PATCH", "/users/1", admin, `{"disabled":false}`},
	} {
		got := a.do(request.method, request.path, request.token, request.body)
		if got.status >= 300 || strings.Contains(got.body, "hash") || strings.Contains(got.body, "pbkdf2") {
			t.Errorf("%s %s = %d %s, want a response without a hash", request.method, request.path, got.status, got.body)
		}
	}
}

func TestArticleTokenIsSignedNotEncrypted(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	part := strings.Split(a.login("johndoe", "secret"), ".")
	payload, err := base64.RawURLEncoding.DecodeString(part[1]) // without a key
	var claims map[string]any
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		t.Fatalf("the payload is %q, %v; want JSON", payload, err)
	}
	var names []string
	for name := range claims {
		names = append(names, name)
	}
	slices.Sort(names)
	// Everyone who holds the token can read its claims.
	if diff := cmp.Diff([]string{"aud", "exp", "iat", "iss", "role", "sid", "sub", "username"}, names); diff != "" {
		t.Errorf("the claims of a token (-want +got):\n%s", diff)
	}
}

func TestArticleBearerIsWrittenOnce(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	token := a.login("johndoe", "secret")
	if got := a.do("GET", "/users/me/", token, ""); got.status != 200 {
		t.Errorf("GET /users/me/ with the token = %d, want 200", got.status)
	}
	if got := a.do("GET", "/users/me/", "Bearer "+token, ""); got.status != 401 {
		t.Errorf(`GET /users/me/ with "Bearer " pasted before the token = %d, want 401`, got.status)
	}
}

func TestArticleUnknownUserTakesAsLong(t *testing.T) {
	a := readArticle(t) // not parallel, as it measures
	a.server.passwords.hasher.Iterations = 20_000
	a.server.store.UpdateUser(t.Context(), Caller{}, 1, func(u *User) error {
		u.PasswordHash = Hasher{Iterations: 20_000}.Hash("secret")
		return nil
	})
	// The server of the article takes 235 ms and 2.5 ms. This compares the fastest logins,
	// because other programs can only slow logins down, and goes on while they do.
	fastest := map[string]time.Duration{"johndoe": time.Hour, "nobody": time.Hour}
	for i := range 100 {
		for name := range fastest {
			a.from = fmt.Sprintf("192.0.2.%d:1", i) // another address each time, which avoids the throttle
			start := time.Now()
			if got := a.do("POST", "/token", "", "username="+name+"&password=wrong"); got.status != 401 {
				t.Fatalf("a wrong login as %s = %d, want 401", name, got.status)
			}
			fastest[name] = min(fastest[name], time.Since(start))
		}
		if known, unknown := fastest["johndoe"], fastest["nobody"]; i >= 8 && unknown >= known/3 && known >= unknown/3 {
			return
		}
	}
	t.Errorf("the fastest logins with a wrong password and with an unknown username take %v; want the same", fastest)
}

func TestArticleNameThatIsRegisteredAgain(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	first := `{"username":"newuser","password":"newpassword"}`
	a.do("POST", "/users/", "", first)
	old := a.login("newuser", "newpassword")
	if got := a.do("DELETE", "/users/3", a.login("admin", "secret"), ""); got.status != 204 {
		t.Fatalf("DELETE /users/3 = %d %s, want 204", got.status, got.body)
	}
	if got := a.do("POST", "/users/", "", first); got.status != 201 {
		t.Fatalf("POST /users/ with the name of a deleted account = %d %s, want 201", got.status, got.body)
	}
	if got := a.do("GET", "/users/me/", old, ""); got.status != 401 {
		t.Errorf("GET /users/me/ with a token of the deleted account = %d %s, want 401", got.status, got.body)
	}
}

func TestArticleIDsAreNeverUsedAgain(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	a.do("POST", "/users/", "", `{"username":"third","password":"newpassword"}`)
	a.do("DELETE", "/users/3", a.login("admin", "secret"), "")
	if got := a.do("POST", "/users/", "", `{"username":"fourth","password":"newpassword"}`); got.header.Get("Location") != "/users/4" {
		t.Errorf("the account created after the deletion of /users/3 is %s, want /users/4", got.header.Get("Location"))
	}
}

func TestArticleNameIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	var wg sync.WaitGroup
	created := make(chan int, 50)
	for i := range 50 {
		wg.Go(func() {
			name := []string{"newuser", "NewUser"}[i%2]
			created <- a.do("POST", "/users/", "", `{"username":"`+name+`","password":"newpassword"}`).status
		})
	}
	wg.Wait()
	close(created)
	count := map[int]int{}
	for status := range created {
		count[status]++
	}
	if diff := cmp.Diff(map[int]int{201: 1, 400: 49}, count); diff != "" {
		t.Errorf("the statuses of fifty registrations of one name at once (-want +got):\n%s", diff)
	}
}

func TestArticleAdminIsARoleNotAName(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	admin := a.login("admin", "secret")
	a.do("PATCH", "/users/1", admin, `{"role":"admin"}`)
	john := a.login("johndoe", "secret")
	if got := a.do("GET", "/users/", john, ""); got.status != 200 {
		t.Errorf("GET /users/ by johndoe after the promotion = %d %s, want 200", got.status, got.body)
	}
	// A new account with the username admin is not an admin.
	a.do("DELETE", "/users/2", john, "")
	a.do("POST", "/users/", "", `{"username":"admin","password":"newpassword"}`)
	if got := a.do("GET", "/users/", a.login("admin", "newpassword"), ""); got.status != 403 {
		t.Errorf("GET /users/ by a new account named admin = %d %s, want 403", got.status, got.body)
	}
	// The role in an older token does not count either.
	admin = john
	a.do("POST", "/users/", "", `{"username":"second","password":"newpassword"}`)
	a.do("PATCH", "/users/4", admin, `{"role":"admin"}`)
	a.do("PATCH", "/users/1", a.login("second", "newpassword"), `{"role":"user"}`)
	if got := a.do("GET", "/users/", john, ""); got.status != 403 {
		t.Errorf("GET /users/ with a token from before the demotion = %d %s, want 403", got.status, got.body)
	}
}

func TestArticleDisabledAccountGetsNoToken(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	token := a.login("johndoe", "secret")
	a.do("PATCH", "/users/1", a.login("admin", "secret"), `{"disabled":true}`)
	for _, request := range []struct{ method, path, token, body string }{
		{"POST", "/token", "", "username=johndoe&password=secret"},
		{"GET", "/users/me/", token, ""},
	} {
		if got := a.do(request.method, request.path, request.token, request.body); got.status != 400 || !strings.Contains(got.body, "Inactive user") {
			t.Errorf("%s %s of a disabled account = %d %s, want 400 Inactive user", request.method, request.path, got.status, got.body)
		}
	}
	// The response to a wrong password does not tell that the account is disabled.
	if got := a.do("POST", "/token", "", "username=johndoe&password=wrong"); got.status != 401 {
		t.Errorf("a wrong login to a disabled account = %d %s, want 401", got.status, got.body)
	}
}

func TestArticleStateIsWhatEndsATokenAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, method, path, body string }{
		{"a logout ends the token", "POST", "/revoke", "token=TOKEN"},
		{"a password change ends the token", "PUT", "/users/me/password", `{"current_password":"secret","new_password":"newpassword"}`},
		{"the deletion of the account ends the token", "DELETE", "/users/me/", `{"password":"secret"}`},
	} {
		a := readArticle(t)
		token := a.login("johndoe", "secret")
		if got := a.do(test.method, test.path, token, strings.ReplaceAll(test.body, "TOKEN", token)); got.status >= 300 {
			t.Fatalf("%s: %s %s = %d %s", test.name, test.method, test.path, got.status, got.body)
		}
		if got := a.do("GET", "/users/me/", token, ""); got.status != 401 {
			t.Errorf("%s: GET /users/me/ = %d %s, want 401", test.name, got.status, got.body)
		}
	}
}

func TestArticleStaysLoggedInByRefreshing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := readArticle(t)
		tokens := a.tokens("username=johndoe&password=secret")
		for day := range 7 {
			time.Sleep(24 * time.Hour)
			if got := a.do("GET", "/users/me/", tokens.Access, ""); got.status != 401 {
				t.Errorf("day %d: GET /users/me/ with the token of the day before = %d, want 401", day, got.status)
			}
			used := tokens.Refresh
			tokens = a.tokens("grant_type=refresh_token&refresh_token=" + used)
			if got := a.do("GET", "/users/me/", tokens.Access, ""); got.status != 200 {
				t.Errorf("day %d: GET /users/me/ after a refresh = %d %s, want 200", day, got.status, got.body)
			}
		}
	})
}

func TestArticleSecretIsNotInTheCode(t *testing.T) {
	t.Parallel()
	const published = "your-secret-key-keep-it-safe-and-dont-share-it-with-anyone"
	if err := checkSecret(published); err == nil || err.Error() != "is a published example" {
		t.Errorf("checkSecret(the key of the article) = %v, want an error", err)
	}
	first, err1 := parseSettings(nil, envOf())
	second, err2 := parseSettings(nil, envOf())
	if err1 != nil || err2 != nil || first.secret == second.secret || len(first.secret) < minSecret {
		t.Errorf("without SECRET_KEY, two starts have the keys %q and %q, %v, %v; want two different ones", first.secret, second.secret, err1, err2)
	}
}

func TestArticleLongPasswordsAreNotCutOff(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	same := strings.Repeat("x", 72)
	a.do("POST", "/users/", "", `{"username":"newuser","password":"`+same+`one"}`)
	if got := a.do("POST", "/token", "", "username=newuser&password="+same+"two"); got.status != 401 {
		t.Errorf("a login with a password that differs after 72 bytes = %d %s, want 401", got.status, got.body)
	}
	a.login("newuser", same+"one")
}

// TestArticleTokensThatItsLibraryAccepts: python-jose accepts each of these tokens. All
// have a valid signature.
func TestArticleTokensThatItsLibraryAccepts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := readArticle(t)
		good := a.login("johndoe", "secret")
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(good, ".")[1])
		claims, exp := string(payload), regexp.MustCompile(`,"exp":\d+`).FindString(string(payload))
		const header = `{"alg":"HS256","typ":"JWT"}`
		last := good[len(good)-1:]
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		stray := alphabet[strings.Index(alphabet, last)^1]
		for _, test := range []struct {
			name, token string
			want        int
		}{
			{"the unchanged token is accepted", signHS256(header, claims), 200},
			{"a token without exp is refused", signHS256(header, strings.Replace(claims, exp, "", 1)), 401},
			{"a token with two sub claims is refused", signHS256(header, strings.Replace(claims, `{`, `{"sub":"2",`, 1)), 401},
			{"a token with an unknown critical header is refused", signHS256(`{"alg":"HS256","crit":["x"],"x":1}`, claims), 401},
			{"a token with padding is refused", good + "=", 401},
			{"a token with unused bits set in its signature is refused", good[:len(good)-1] + string(stray), 401},
			{"a token without iss and aud is refused", signHS256(header, regexp.MustCompile(`"iss":"stdauth","aud":"stdauth",`).ReplaceAllString(claims, "")), 401},
		} {
			if got := a.do("GET", "/users/me/", test.token, ""); got.status != test.want {
				t.Errorf("%s: GET /users/me/ = %d %s, want %d", test.name, got.status, got.body, test.want)
			}
		}
		time.Sleep(30*time.Minute - time.Nanosecond)
		if got := a.do("GET", "/users/me/", good, ""); got.status != 200 {
			t.Errorf("GET /users/me/ just before exp = %d %s, want 200", got.status, got.body)
		}
		time.Sleep(time.Nanosecond)
		if got := a.do("GET", "/users/me/", good, ""); got.status != 401 {
			t.Errorf("GET /users/me/ at exp = %d %s, want 401", got.status, got.body)
		}
	})
}

func TestArticleRegistrationHasRules(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	for _, test := range []struct{ name, body, field string }{
		{"an empty username is refused", `{"username":"","password":"newpassword"}`, "username"},
		{"an empty password is refused", `{"username":"newuser","password":""}`, "password"},
		{"a number is refused as password", `{"username":"newuser","password":12345678}`, "password"},
		{"an invalid email is refused", `{"username":"newuser","password":"newpassword","email":"nowhere"}`, "email"},
		{"the field disabled, which the article ignores, is refused", `{"username":"newuser","password":"newpassword","disabled":true}`, "disabled"},
		{"the field role is refused", `{"username":"newuser","password":"newpassword","role":"admin"}`, "role"},
	} {
		got := a.do("POST", "/users/", "", test.body)
		if got.status != 422 || !strings.Contains(got.body, `"field":"`+test.field+`"`) {
			t.Errorf("%s: POST /users/ = %d %s, want a 422 that names %s", test.name, got.status, got.body, test.field)
		}
	}
}

func TestArticleGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := readArticle(t)
		var got []int
		for range 6 {
			got = append(got, a.do("POST", "/token", "", "username=johndoe&password=wrong").status)
		}
		if diff := cmp.Diff([]int{401, 401, 401, 401, 401, 429}, got); diff != "" {
			t.Errorf("the statuses of six wrong logins (-want +got):\n%s", diff)
		}
		a.from = "198.51.100.7:1"
		a.login("johndoe", "secret") // another address is not throttled
	})
}

func TestArticleResponsesSayWhatTheStandardsWant(t *testing.T) {
	t.Parallel()
	a := readArticle(t)
	for _, test := range []struct{ name, method, path, token, body, header, want, inBody string }{
		{"a token must not be cached (RFC 6749, section 5.1)", "POST", "/token", "", "username=johndoe&password=secret", "Cache-Control", "no-store", `"expires_in":1800`},
		{"a refused login has an error code (RFC 6749, section 5.2)", "POST", "/token", "", "username=johndoe&password=wrong", "WWW-Authenticate", "Bearer", `"error":"invalid_grant"`},
		{"an account must not be cached", "GET", "/users/me/", a.login("johndoe", "secret"), "", "Cache-Control", "no-store", `"johndoe"`},
		{"an invalid token gets the error invalid_token (RFC 6750, section 3.1)", "GET", "/users/me/", "nonsense", "", "WWW-Authenticate", `Bearer error="invalid_token"`, "Could not validate credentials"},
		{"a request without a token gets no error code (RFC 6750, section 3.1)", "GET", "/users/me/", "", "", "WWW-Authenticate", "Bearer", "Not authenticated"},
		{"a created account has an address (RFC 9110, section 15.3.2)", "POST", "/users/", "", `{"username":"newuser","password":"newpassword"}`, "Location", "/users/3", `"id":3`},
		{"a token in the query, which may be logged, is refused (RFC 9700, section 4.3.2)", "GET", "/users/me/?access_token=x", "", "", "Content-Type", "application/problem+json", "query"},
	} {
		got := a.do(test.method, test.path, test.token, test.body)
		if h := got.header.Get(test.header); h != test.want || !strings.Contains(got.body, test.inBody) {
			t.Errorf("%s: %s %s = %d, %s: %s\n%s\nwant %s and %s", test.name, test.method, test.path, got.status, test.header, h, got.body, test.want, test.inBody)
		}
	}
}

// An articleWorld is this server with the two accounts of the article, and with a low
// cost of passwords.
type articleWorld struct {
	t      *testing.T
	server *server
	from   string // the address of the client
}

func readArticle(t *testing.T) *articleWorld {
	t.Helper()
	set, err := parseSettings(nil, envOf("SECRET_KEY="+settingsKey))
	if err != nil {
		t.Fatal(err)
	}
	set.Iterations = 1
	store := NewMemoryStore(monthLife)
	for _, u := range demoUsers {
		u.PasswordHash = Hasher{Iterations: 1}.Hash("secret")
		if _, err := store.CreateUser(t.Context(), Caller{}, u); err != nil {
			t.Fatal(err)
		}
	}
	return &articleWorld{t, newServer(set.Config, store, NewTokens(set.Issuer, set.secret, ""), slog.New(slog.DiscardHandler)), "192.0.2.1:1"}
}

func (a *articleWorld) do(method, path, token, body string) received {
	a.t.Helper()
	r := httptest.NewRequestWithContext(a.t.Context(), method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:8000"
	r.RemoteAddr = a.from
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	a.server.handler().ServeHTTP(w, r)
	return received{w.Code, r.Proto, w.Header(), w.Body.String()}
}

// issued is the response to a login or a refresh.
type issued struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (a *articleWorld) tokens(form string) (tokens issued) {
	a.t.Helper()
	got := a.do("POST", "/token", "", form)
	if err := json.Unmarshal([]byte(got.body), &tokens); err != nil || got.status != 200 {
		a.t.Fatalf("POST /token with %s = %d %s, want 200", form, got.status, got.body)
	}
	return tokens
}

func (a *articleWorld) login(username, password string) (token string) {
	a.t.Helper()
	return a.tokens("username=" + username + "&password=" + password).Access
}

// signHS256 signs any header and payload with the key of the tests.
func signHS256(header, payload string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	mac := hmac.New(sha256.New, []byte(settingsKey))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
