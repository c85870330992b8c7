package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzReadJSON: any body of PATCH /users/me/ is answered with a 200 or a 4xx in
// the form of the contract; and one that is accepted means what encoding/json,
// made strict, reads in it, and nothing else.
func FuzzReadJSON(f *testing.F) {
	for _, body := range []string{`{"email":"j@example.com","full_name":null}`, `{"email":null,"full_name":"J"}`, `{}`, `[]`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := newWorld(t)
		w.login("john", "johndoe", "secret")
		r := w.request(t.Context(), "PATCH /users/me/ as john")
		r.Header.Set("Content-Type", "application/merge-patch+json")
		r.Body = io.NopCloser(bytes.NewReader(body))
		a := w.serve(r, r.Method+" "+r.URL.Path)
		if a.status != 200 && a.status != 400 && a.status != 413 && a.status != 422 {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want 200, 400, 413 or 422", body, w.show(a))
		}
		if valid := json.Valid(body) && utf8.Valid(body); len(body) <= maxBody && valid == (a.status == 400) {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  but that it is JSON is %v", body, w.show(a), valid)
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
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  but encoding/json says %v", body, w.show(a), err)
		}
		if want.FullName != nil && *want.FullName == "" {
			want.FullName = nil
		}
		var got patch
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatal(err)
		}
		same := func(a, b *string) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
		if !same(got.Email, want.Email) || !same(got.FullName, want.FullName) {
			t.Fatalf("PATCH /users/me/ %q\n  got %s\n  want what encoding/json reads: %+v", body, w.show(a), want)
		}
	})
}

// FuzzForm: any body of POST /token is answered with a 200 or a 4xx in the form
// of the contract; and the right name with the right password, once each, is
// what logs in.
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
			t.Fatalf("POST /token %q\n  got %s\n  but that it is right is %v", body, w.show(a), right)
		}
	})
}
