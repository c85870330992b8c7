package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"
)

// FuzzReadJSON: any body of PATCH /users/me/ gets a 200, or a 4xx in the form of an
// error. A strict decoder of encoding/json reads the same values in an accepted body.
func FuzzReadJSON(f *testing.F) {
	for _, body := range []string{`{"email":"j@example.com","full_name":null}`, `{"email":null,"full_name":"J"}`, `{}`, `[]`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := newWorld(t)
		w.do("login johndoe as john")
		r := w.request(t.Context(), "PATCH /users/me/ as john")
		r.Header.Set("Content-Type", "application/merge-patch+json")
		r.Body = io.NopCloser(bytes.NewReader(body))
		a := w.serve(r, r.Method+" "+r.URL.Path)
		if a.status != 200 && a.status != 400 && a.status != 413 && a.status != 422 {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want 200, 400, 413 or 422", body, w.show(a))
		}
		if valid := json.Valid(body) && utf8.Valid(body); len(body) <= maxBody && valid == (a.status == 400) {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want 400 if and only if it is not JSON; it is: %v", body, w.show(a), valid)
		}
		if a.status != 200 {
			return
		}
		type patch struct {
			Email    *string `json:"email"`
			FullName *string `json:"full_name"`
		}
		before := patch{new("johndoe@example.com"), new("John Doe")}
		want := before
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil || d.More() {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want it refused, as encoding/json returns %v", body, w.show(a), err)
		}
		if want.FullName != nil && *want.FullName == "" {
			want.FullName = nil
		}
		var got patch
		noError(t, json.Unmarshal([]byte(a.body), &got))
		same := func(a, b *string) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
		if !same(got.Email, want.Email) || !same(got.FullName, want.FullName) {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want the values of encoding/json: %+v", body, w.show(a), want)
		}
	})
}

// FuzzForm: any body of POST /token gets a 200, or a 4xx in the form of an error. It is
// a 200 only for a right username with its right password, each given once.
func FuzzForm(f *testing.F) {
	for _, body := range []string{"username=johndoe&password=secret", "grant_type=refresh_token&refresh_token=x", "grant_type=password", "username=a&username=b"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := newWorld(t)
		r := w.request(t.Context(), "POST /token")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = io.NopCloser(bytes.NewReader(body))
		a := w.serve(r, r.Method+" "+r.URL.Path)
		if a.status != 200 && a.status != 400 && a.status != 401 && a.status != 413 {
			t.Fatalf("POST /token %q\n  got %s\n  want 200, 400, 401 or 413", body, w.show(a))
		}
		form, err := url.ParseQuery(string(body))
		once := err == nil && len(body) <= maxBody
		for _, values := range form {
			once = once && len(values) == 1
		}
		name, grant := strings.ToLower(form.Get("username")), form.Get("grant_type")
		right := once && (name == "johndoe" || name == "admin") && form.Get("password") == "secret" && (grant == "" || grant == "password")
		if right != (a.status == 200) {
			t.Fatalf("POST /token %q\n  got %s\n  want 200 if and only if the credentials are right; they are: %v", body, w.show(a), right)
		}
	})
}

// The properties of the cryptography follow. The corpora are in testdata/fuzz. Extend
// one with: go test -fuzz FuzzClaims

// FuzzVerifyAccess: no text makes a verifier panic. An accepted one has a MAC made with
// the key, is one kind of token only, and has no other spelling.
func FuzzVerifyAccess(f *testing.F) {
	f.Fuzz(func(t *testing.T, token string) {
		tokens := testTokens()
		_, accessErr := tokens.VerifyAccess(token, testNow)
		r, refreshErr := tokens.VerifyRefresh(token)
		if accessErr == nil && refreshErr == nil {
			t.Fatalf("%q is accepted as both kinds of token", token)
		}
		if refreshErr == nil && tokens.SignRefresh(r) != token {
			t.Errorf("VerifyRefresh(%q) = %+v, which is signed as %q", token, r, tokens.SignRefresh(r))
		}
		if accessErr != nil {
			return
		}
		part := strings.Split(token, ".")
		if len(part) != 3 || len(token) > 4096 {
			t.Fatalf("VerifyAccess(%q) accepts %d parts, %d bytes", token, len(part), len(token))
		}
		if want := sign(testSecret, decode(t, part[0]), decode(t, part[1])); token != want {
			t.Errorf("VerifyAccess(%q) accepts it, but its header and payload are signed as %q", token, want)
		}
	})
}

// FuzzClaims: a header and a payload that are signed with the right key are accepted
// only if this server writes them for the claims that encoding/json reads in them.
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
		if want := (Claims{id, c.Sid, 0, c.Username, Role(c.Role), c.Iat, c.Exp}); got != want || err != nil {
			t.Errorf("VerifyAccess() of %q = %+v, but encoding/json reads %+v", payload, got, want)
		}
		if testTokens().SignAccess(got) != token {
			t.Errorf("VerifyAccess() accepts %q, but its claims are signed as %q", token, testTokens().SignAccess(got))
		}
		if now := testNow.Unix(); now >= c.Exp || c.Iat > now+30 {
			t.Errorf("VerifyAccess() accepts %q at %d", payload, now)
		}
	})
}

// FuzzPHC: a password hash that is parsed has one spelling. Its parameters do not panic,
// do not match every password, and do not block the server.
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

// FuzzAppendText: encoding/json reads the output of appendText as the same text.
func FuzzAppendText(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		quoted := appendText(nil, text)
		var got string
		if err := json.Unmarshal(quoted, &got); err != nil {
			t.Fatalf("appendText(%q) = %s, which is not JSON: %v", text, quoted, err)
		}
		if want := string([]rune(text)); got != want { // text, with U+FFFD for each byte that is not UTF-8
			t.Errorf("appendText(%q) = %s, read as %q, want %q", text, quoted, got, want)
		}
	})
}

// FuzzParseObject: parseObject accepts exactly the objects in valid UTF-8 that
// encoding/json accepts, and reads the same members in them.
func FuzzParseObject(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		before := slices.Clone(data)
		list, err := parseObject(data)
		if !bytes.Equal(data, before) {
			t.Fatalf("parseObject(%q) changed its input to %q", before, data)
		}
		object := utf8.Valid(data) && json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if (err == nil) != object {
			t.Fatalf("parseObject(%q) = %v, want accepted: %v", data, err, object)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage // the last duplicate wins there
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("parseObject(%q) accepts it, but encoding/json returns %v", data, err)
		}
		got := map[string]json.RawMessage{}
		for _, m := range list {
			got[m.name] = m.value
		}
		wantEqual(t, fmt.Sprintf("parseObject(%q), as encoding/json reads it", data), got, want)
	})
}

// FuzzReadText: a field of text is read as encoding/json reads it, or refused.
func FuzzReadText(f *testing.F) {
	f.Fuzz(func(t *testing.T, value string) {
		if !utf8.ValidString(value) || !json.Valid([]byte(value)) || strings.Trim(value, " \t\r\n") != value {
			return // parseObject refuses these, and does not return space around a value
		}
		var want *string
		isText := json.Unmarshal([]byte(value), &want) == nil && want != nil
		got, err := textKind.read(raw(value))
		if accept := isText && !strings.Contains(*want, "\uFFFD"); accept != (err == nil) || accept && got != *want {
			t.Errorf("read(%s) = %q, %v; want accepted: %v", value, got, err, accept)
		}
	})
}

// FuzzJournal: any file is either refused and not changed, or has the same contents when
// it is read, opened, and compacted.
func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte) {
		synctest.Test(t, func(t *testing.T) {
			path := storePath(t)
			write(t, path, string(file))
			readOnly, readErr := ReadFileStore(t.Context(), path)
			wantEqual(t, "the file after ReadFileStore", readText(t, path), string(file))
			store, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
			if err != nil {
				wantEqual(t, "the refused file", readText(t, path), string(file))
				if readErr == nil {
					t.Errorf("OpenFileStore: %v, but ReadFileStore read it", err)
				}
				return
			}
			store.Close()

			opened := openFile(t, path)
			want, lastID := opened.contents(), opened.file.shown.lastID
			if readErr == nil {
				wantEqual(t, "accounts of ReadFileStore", testedStore{readOnly, t}.users(0, 1000), opened.users(0, 1000))
			}
			if lastID == 0 {
				return // nothing to compact
			}
			opened.compact()
			if !strings.Contains(<-opened.logs, "compacted the store") {
				return // a compaction may lengthen lines written by hand beyond the maximum
			}
			opened = opened.reopen()
			wantEqual(t, "the store after a compaction", opened.contents(), want)
			wantEqual(t, "the highest ID after a compaction", opened.file.shown.lastID, lastID)
		})
	})
}
