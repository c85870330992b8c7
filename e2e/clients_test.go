package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
)

// decode reads the JSON of a response that must have the wanted status.
func decode[T any](t testing.TB, resp *http.Response, want int) (v T) {
	t.Helper()
	if err := json.Unmarshal(readAll(t, resp, want), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOAuth2: Go's own OAuth 2.0 package logs in, sends the token, and refreshes it by
// itself.
func TestOAuth2(t *testing.T) {
	// The package treats a token as expired 10 s early.
	s := startServer(t, "-access-ttl", "12s")
	config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token", AuthStyle: oauth2.AuthStyleInParams}}
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

// TestOAuth2Error: the package reads the error of a refused login. It sends the login once if
// it is told how, and otherwise tries another way of sending a client's secret.
func TestOAuth2Error(t *testing.T) {
	for style, tries := range map[oauth2.AuthStyle]int{oauth2.AuthStyleInParams: 1, oauth2.AuthStyleAutoDetect: 2} {
		s := startServer(t)
		config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token", AuthStyle: style}}
		_, err := config.PasswordCredentialsToken(t.Context(), "johndoe", "wrong")
		refused, ok := err.(*oauth2.RetrieveError)
		if !ok || refused.ErrorCode != "invalid_grant" || refused.ErrorDescription != "Incorrect username or password" {
			t.Errorf("error = %#v, want invalid_grant", err)
		}
		s.stop(t) // writes the whole log
		if n := strings.Count(s.log.String(), "login=failed"); n != tries {
			t.Errorf("with AuthStyle %d the package logs in %d times, want %d", style, n, tries)
		}
	}
}

// claims has the claims that the libraries do not know.
type claims struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid"`
	Username  string `json:"username"`
	Role      string `json:"role"`
}

// TestGolangJWT: a library that has the bytes of SECRET_KEY can verify a token.
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
		t.Errorf("the lifetime of the token is %v, want 30m", life)
	}
	if _, err := parse(access, strings.ToUpper(testKey)); err == nil {
		t.Error("the library accepts the token with another key, want an error")
	}
	if _, err := parse(refresh, testKey); err == nil {
		t.Error("the library accepts a refresh token as a JWT, want an error")
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
		t.Error("the library accepts the token with another key, want an error")
	}
}

// TestTokenMadeByLibrary: a token that a library signed with the key of the server is
// valid if it is, byte for byte, what the server writes.
func TestTokenMadeByLibrary(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey)
	access, _ := logIn(t, s, "johndoe", "secret")
	// The claims in the order of the server, which a map does not keep.
	var c struct {
		Issuer     string `json:"iss"`
		Audience   string `json:"aud"`
		Subject    string `json:"sub"`
		SessionID  string `json:"sid"`
		Username   string `json:"username"`
		Role       string `json:"role"`
		IssuedAt   int64  `json:"iat"`
		ExpiresAt  int64  `json:"exp"`
		jwt.Claims `json:"-"`
	}
	payload, err := jwt.NewParser().DecodeSegment(strings.Split(access, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	inAnyOrder := jwt.MapClaims{}
	if err := json.Unmarshal(payload, &inAnyOrder); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		claims jwt.Claims
		status int
	}{
		{"a token with HS256 and the claims in order is accepted", jwt.SigningMethodHS256, []byte(testKey), c, http.StatusOK},
		{"a token with the claims in another order is refused", jwt.SigningMethodHS256, []byte(testKey), inAnyOrder, http.StatusUnauthorized},
		{"a token with another key is refused", jwt.SigningMethodHS256, []byte(strings.ToUpper(testKey)), c, http.StatusUnauthorized},
		{"a token with HS512 and the same key is refused", jwt.SigningMethodHS512, []byte(testKey), c, http.StatusUnauthorized},
		{"a token without a signature is refused", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, c, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := jwt.NewWithClaims(test.method, test.claims).SignedString(test.key)
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

// pythonWith returns a Python that has a package. That of Debian is in /usr/bin, which
// may not be first in the path.
func pythonWith(t testing.TB, module, install string) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if _, err := run(t, "", nil, python, "-c", "import "+module); err == nil {
			return python
		}
	}
	missing(t, "Python's "+module, install)
	return ""
}
