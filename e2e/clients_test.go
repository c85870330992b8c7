package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"

	"example.com/stdauth/e2e/client"
)

// decode reads the JSON of an answer that must have the wanted status.
func decode[T any](t testing.TB, resp *http.Response, want int) (v T) {
	t.Helper()
	if err := json.Unmarshal(readAll(t, resp, want), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Go's own OAuth 2.0 package logs in, sends the token, and refreshes it without
// being asked to.
func TestOAuth2(t *testing.T) {
	// The package takes a token for expired 10 s early.
	s := startServer(t, "-access-ttl", "12s")
	config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token"}}
	first, err := config.PasswordCredentialsToken(t.Context(), "johndoe", "secret")
	if err != nil {
		t.Fatal(err)
	}
	source := config.TokenSource(t.Context(), first)
	api := oauth2.NewClient(t.Context(), source)
	whoAmI := func() string {
		resp, err := api.Get(s.URL + "/users/me/")
		if err != nil {
			t.Fatal(err)
		}
		return decode[struct{ Username string }](t, resp, http.StatusOK).Username
	}
	if got := whoAmI(); got != "johndoe" {
		t.Errorf("who am I = %q, want johndoe", got)
	}
	time.Sleep(time.Until(first.Expiry.Add(-10*time.Second)) + 100*time.Millisecond)
	if got := whoAmI(); got != "johndoe" {
		t.Errorf("who am I, after a refresh = %q, want johndoe", got)
	}
	second, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	if second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken {
		t.Error("the tokens were not replaced")
	}
}

// What the package makes of a refusal.
func TestOAuth2Error(t *testing.T) {
	s := startServer(t)
	config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token", AuthStyle: oauth2.AuthStyleInParams}}
	_, err := config.PasswordCredentialsToken(t.Context(), "johndoe", "wrong")
	refused, ok := err.(*oauth2.RetrieveError)
	if !ok || refused.ErrorCode != "invalid_grant" || refused.ErrorDescription != "Incorrect username or password" {
		t.Errorf("error = %#v, want invalid_grant", err)
	}
}

// claims are those that the libraries do not know.
type claims struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid"`
	Username  string `json:"username"`
	Role      string `json:"role"`
}

// Whoever has the bytes of SECRET_KEY can verify a token with any library.
func TestGolangJWT(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey, "-issuer", "https://auth.example.com")
	access, refresh := logIn(t, s, "johndoe", "secret")
	parse := func(token string, key string) (claims, error) {
		var c claims
		_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return []byte(key), nil },
			jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer("https://auth.example.com"), jwt.WithAudience("https://auth.example.com"),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding())
		return c, err
	}
	c, err := parse(access, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "1" || c.Username != "johndoe" || c.Role != "user" || c.SessionID == "" {
		t.Errorf("claims = %+v", c)
	}
	if life := c.ExpiresAt.Sub(c.IssuedAt.Time); life != 30*time.Minute {
		t.Errorf("the token lives %v, want 30m", life)
	}
	if _, err := parse(access, strings.ToUpper(testKey)); err == nil {
		t.Error("verified under another key")
	}
	if _, err := parse(refresh, testKey); err == nil {
		t.Error("a refresh token passes for a JWT")
	}
}

func TestGoJOSE(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	access, _ := logIn(t, s, "admin", "secret")
	token, err := josejwt.ParseSigned(access, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		t.Fatal(err)
	}
	var registered josejwt.Claims
	var ours struct {
		SID      string `json:"sid"`
		Username string `json:"username"`
		Role     string `json:"role"`
	}
	if err := token.Claims([]byte(testKey), &registered, &ours); err != nil {
		t.Fatal(err)
	}
	if err := registered.ValidateWithLeeway(josejwt.Expected{Issuer: "stdauth", AnyAudience: josejwt.Audience{"stdauth"}, Subject: "2", Time: time.Now()}, 0); err != nil {
		t.Error(err)
	}
	if ours.Username != "admin" || ours.Role != "admin" || ours.SID == "" {
		t.Errorf("claims = %+v", ours)
	}
	if err := token.Claims([]byte(strings.ToUpper(testKey)), &registered); err == nil {
		t.Error("verified under another key")
	}
}

// The reverse: a token that a library has signed with the server's key is good
// as long as it names a live session.
func TestTokenMadeByLibrary(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	access, _ := logIn(t, s, "johndoe", "secret")
	var c jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(access, &c); err != nil {
		t.Fatal(err)
	}
	c["aud"] = []string{"others", "stdauth"}
	for _, test := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		status int
	}{
		{"HS256", jwt.SigningMethodHS256, []byte(testKey), http.StatusOK},
		{"HS512 with the same key", jwt.SigningMethodHS512, []byte(testKey), http.StatusUnauthorized},
		{"no signature", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := jwt.NewWithClaims(test.method, c).SignedString(test.key)
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequest("GET", s.URL+"/users/me/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			readAll(t, resp, test.status)
		})
	}
}

// The article's walkthrough, with a client that was generated from
// openapi.json. What it receives has the types that the description promises.
func TestGeneratedClient(t *testing.T) {
	s := startServer(t)
	api, err := client.NewClientWithResponses(s.URL, client.WithHTTPClient(checkedClient(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()

	// Register.
	created, err := api.CreateUserWithResponse(ctx, client.NewUser{Username: "newuser", Password: "newpassword"})
	if err != nil {
		t.Fatal(err)
	}
	if u := created.JSON201; u == nil || u.Username != "newuser" || u.Id != 3 || u.Role != "user" {
		t.Fatalf("register = %s\n%s", created.Status(), created.Body)
	}

	// Log in, and say who that is from then on.
	logIn := func(username, password string) client.RequestEditorFn {
		t.Helper()
		answer, err := api.CreateTokenWithFormdataBodyWithResponse(ctx, client.TokenRequest{Username: &username, Password: &password})
		if err != nil {
			t.Fatal(err)
		}
		if answer.JSON200 == nil || answer.JSON200.TokenType != "bearer" {
			t.Fatalf("log in = %s\n%s", answer.Status(), answer.Body)
		}
		return func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+answer.JSON200.AccessToken)
			return nil
		}
	}
	asJohn, asAdmin := logIn("johndoe", "secret"), logIn("admin", "secret")

	// Who am I.
	me, err := api.ReadMeWithResponse(ctx, asJohn)
	if err != nil {
		t.Fatal(err)
	}
	if me.JSON200 == nil || me.JSON200.Username != "johndoe" || *me.JSON200.Email != "johndoe@example.com" {
		t.Errorf("who am I = %s\n%s", me.Status(), me.Body)
	}

	// All users: not for johndoe, but for admin.
	refused, err := api.ListUsersWithResponse(ctx, &client.ListUsersParams{}, asJohn)
	if err != nil {
		t.Fatal(err)
	}
	if refused.ApplicationproblemJSON403 == nil || refused.ApplicationproblemJSON403.Detail != "Not enough permissions" {
		t.Errorf("list as johndoe = %s\n%s", refused.Status(), refused.Body)
	}
	list, err := api.ListUsersWithResponse(ctx, &client.ListUsersParams{}, asAdmin)
	if err != nil {
		t.Fatal(err)
	}
	if list.JSON200 == nil || len(*list.JSON200) != 3 {
		t.Errorf("list as admin = %s\n%s", list.Status(), list.Body)
	}
}

func TestGeneratedClientIsCurrent(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "client.gen.go")
	if out, err := run(t, "client", nil, "go", "tool", "oapi-codegen", "-config", "config.yaml", "-o", fresh, "../../web/openapi.json"); err != nil {
		t.Fatalf("oapi-codegen: %v\n%s", err, out)
	}
	want, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("client/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("client/client.gen.go is not what web/openapi.json gives; run: go -C e2e generate ./...")
	}
}
