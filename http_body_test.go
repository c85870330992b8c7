package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// These tests have what this server reads more strictly than encoding/json.

func TestObjectKeepsOrderAndDuplicates(t *testing.T) {
	type list = []member
	for _, test := range []struct {
		name, data string
		want       list
	}{
		{"an empty object has no members", `{}`, nil},
		{"white space around an object is ignored", " \t\r\n{ } \n", nil},
		{"members are returned in their order", `{"b":1,"a":2}`, list{{"b", raw(`1`)}, {"a", raw(`2`)}}},
		{"members with the same name are both returned", `{"a":1,"a":2}`, list{{"a", raw(`1`)}, {"a", raw(`2`)}}},
		{"members whose names differ in case are both returned", `{"a":1,"A":2}`, list{{"a", raw(`1`)}, {"A", raw(`2`)}}},
		{"an escape in a name is decoded", `{"\u0061":1}`, list{{"a", raw(`1`)}}},
		{"an empty name is a name", `{"":1}`, list{{"", raw(`1`)}}},
		{"null is returned as a value", `{"a":null}`, list{{"a", raw(`null`)}}},
		{"values are returned as they were written", `{"a": 1.0e0 ,"b": [ 1, {"c" :"\u0061"} ] }`, list{{"a", raw(`1.0e0`)}, {"b", raw(`[ 1, {"c" :"\u0061"} ]`)}}},
		{"members of an inner object are a part of the value", `{"a":{"b":1,"b":2}}`, list{{"a", raw(`{"b":1,"b":2}`)}}},
	} {
		got, err := parseObject([]byte(test.data))
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(member{})); diff != "" || err != nil {
			t.Errorf("%s: parseObject(%s) = %v (-want +got):\n%s", test.name, test.data, err, diff)
		}
	}
}

func TestObjectSaysWhereItBroke(t *testing.T) {
	const notObject = "must be a JSON object"
	for _, test := range []struct {
		name, data, want string
	}{
		{"an empty text is refused", ``, "unexpected end of JSON input (byte 0)"},
		{"white space alone is refused", "  ", "unexpected end of JSON input (byte 2)"},
		{"an object without its end is refused", `{"a":1`, "unexpected end of JSON input (byte 6)"},
		{"a letter after an object is refused", `{"a":1}x`, "invalid character 'x' after top-level value (byte 8)"},
		{"a second object is refused", `{} {}`, "invalid character '{' after top-level value (byte 4)"},
		{"a comma after the last member is refused", `{"a":1,}`, "invalid character '}' looking for beginning of object key string (byte 8)"},
		{"a line break in a string is refused", "{\"a\":\"\n\"}", `invalid character '\n' in string literal (byte 7)`},
		{"a form is refused", `username=johndoe`, "invalid character 'u' looking for beginning of value (byte 1)"},
		{"a byte order mark is refused", "\ufeff{}", "invalid character 'ï' looking for beginning of value (byte 1)"},

		{"invalid UTF-8 in a value is refused", "{\"a\":\"\xff\"}", "not valid UTF-8 (byte 7)"},
		{"invalid UTF-8 in a name is refused", "{\"\xff\":1}", "not valid UTF-8 (byte 3)"},
		{"half of a surrogate pair in UTF-8 is refused", "{\"a\":\"\xed\xa0\x80\"}", "not valid UTF-8 (byte 7)"},

		{"an array is refused", `[{"a":1}]`, notObject},
		{"a string is refused", `"{}"`, notObject},
		{"a number is refused", `1`, notObject},
		{"a number that overflows is refused", `1e999`, notObject},
		{"null is refused", `null`, notObject},
		{"true is refused", `true`, notObject},
	} {
		got, err := parseObject([]byte(test.data))
		p, _ := problemOf(err)
		said := strings.TrimPrefix(strings.TrimPrefix(p.detail, "The body is not JSON: "), "The request is invalid: ")
		wantEqual(t, fmt.Sprintf("%s: parseObject(%q) = %v", test.name, test.data, got), said, test.want)
	}
}

func TestKindOfAValue(t *testing.T) {
	const lost = "must not contain U+FFFD or half of a surrogate pair"
	for _, test := range []struct {
		name  string
		kind  kind
		value string
		want  string // if it is accepted
		wrong string // if it is refused
	}{
		{"a string is read", textKind, `"secret"`, "secret", ""},
		{"an empty string is read", textKind, `""`, "", ""},
		{"every escape is decoded", textKind, `"\"\\\/\b\f\n\r\t\u0041"`, "\"\\/\b\f\n\r\tA", ""},
		{"a surrogate pair is one character", textKind, `"\ud83d\udd11"`, "\U0001F511", ""},
		{"a string is read where null is allowed", textOrNullKind, `"x"`, "x", ""},
		{"null is read where it is allowed", textOrNullKind, `null`, "", ""},
		{"true is read", boolKind, `true`, "true", ""},
		{"false is read", boolKind, `false`, "false", ""},

		{"a lone high surrogate is refused", textKind, `"\ud800"`, "", lost},
		{"a lone low surrogate is refused", textOrNullKind, `"\udc00"`, "", lost},
		{"a surrogate pair in the wrong order is refused", textKind, `"\udd11\ud83d"`, "", lost},
		{"U+FFFD is refused", textKind, `"\ufffd"`, "", lost},
		{"null is refused as a string", textKind, `null`, "", "must be a string"},
		{"a number is refused as a string", textKind, `1`, "", "must be a string"},
		{"a number that overflows is refused as a string", textKind, `1e999`, "", "must be a string"},
		{"a boolean is refused as a string", textKind, `true`, "", "must be a string"},
		{"an array is refused as a string or null", textOrNullKind, `["x"]`, "", "must be a string or null"},
		{"an object is refused as a string or null", textOrNullKind, `{}`, "", "must be a string or null"},
		{"a string is refused as a boolean", boolKind, `"true"`, "", "must be true or false"},
		{"a number is refused as a boolean", boolKind, `1`, "", "must be true or false"},
		{"null is refused as a boolean", boolKind, `null`, "", "must be true or false"},
	} {
		got, err := test.kind.read(raw(test.value))
		if said(err) != test.wrong || err == nil && got != test.want {
			t.Errorf("%s: read(%s) = %q, %v; want %q, %q", test.name, test.value, got, err, test.want, test.wrong)
		}
	}
}

func TestWholeNumber(t *testing.T) {
	for s, want := range map[string]bool{
		"1": true, "10": true, "0": false, "11": false, "-1": false, "+1": false, "01": false, "1.0": false, "1e0": false, "": false, " 1": false, "99999999999999999999": false,
	} {
		if n, ok := wholeNumber(s, 1, 10); ok != want || !ok && n != 0 {
			t.Errorf("wholeNumber(%q, 1, 10) = %d, %v; want accepted: %v", s, n, ok, want)
		}
	}
}

// TestInvalidFieldsAreBounded: 8,187 unknown fields fit in a body. The response names twenty.
func TestInvalidFieldsAreBounded(t *testing.T) {
	var bad invalid
	for i := range 8187 {
		bad.add(fmt.Sprint("field", i), "is not a field of this request")
	}
	bad.add("field1", "is not a field of this request")
	_, fields := problemOf(bad.err())
	if len(fields) != 20 || fields[19].Field != "field19" {
		t.Errorf("the response names %d fields, want the first 20: %v", len(fields), fields)
	}
	var twice invalid
	twice.add("field1", "must be a string")
	twice.add("field1", "is given more than once")
	wantEqual(t, "the times that a field that is wrong twice is named", len(twice), 1)
	var long invalid
	long.add(strings.Repeat("ä", 100), "x")
	wantEqual(t, "a name of 200 bytes is cut to 100", long[0].Field, strings.Repeat("ä", 50)+"...")
}

// TestVectorsJSONTestSuite sends the texts of JSONTestSuite to every endpoint that takes
// JSON. A text that is not JSON gets a 400. One that is JSON gets a 422, or a 200 if it is
// an empty patch.
func TestVectorsJSONTestSuite(t *testing.T) {
	calls := []string{"POST /users/", "PATCH /users/me/ as john", "PUT /users/me/password as john", "DELETE /users/me/ as john", "PATCH /users/1 as admin"}
	inWorld(t, func(w *world) {
		w.do("login johndoe as john ; login admin as admin")
		read := map[byte]int{}
		for _, v := range jsonTestSuite(t) {
			read[v.name[0]]++
			for _, call := range calls {
				r := w.request(w.Context(), call+` with "Content-Type: application/json"`)
				r.Body = io.NopCloser(strings.NewReader(v.text))
				a := w.serve(r, call+" "+v.name)
				ok := a.status == 400 || a.status == 422
				switch {
				case len(v.text) > maxBody:
					ok = a.status == 413
				case v.name[0] == 'n':
					ok = a.status == 400
				case v.name[0] == 'y':
					ok = a.status == 422 || a.status == 200 && v.text == "{}" && r.Method == "PATCH"
				}
				if !ok {
					w.Errorf("%s %.100q\n  got %s", a.call, v.text, w.show(a))
				}
			}
		}
		wantEqual(t, "the number of texts that are JSON (y), are not (n), and may be (i)", read, map[byte]int{'y': 95, 'n': 188 + 2, 'i': 35})
	})
}

func TestBodyThatBreaksOffIsNotRead(t *testing.T) {
	for _, err := range []error{io.ErrUnexpectedEOF, &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/revoke", io.MultiReader(strings.NewReader("token=x"), iotest.ErrReader(err)))
		r.Header.Set("Content-Type", formType)
		var b body
		wantErr(t, "read", b.read(httptest.NewRecorder(), r, formBody), errInvalidRequest)
		if len(b.form) > 0 {
			t.Errorf("the form of a body that breaks off is %v, want none", b.form)
		}
	}
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }

// jsonTestSuite returns the texts of testdata/json_suite.txt. A text that is longer than
// a body may be occurs twice, once cut to the maximum.
func jsonTestSuite(t *testing.T) (all []struct{ name, text string }) {
	for line := range strings.Lines(readText(t, "testdata/json_suite.txt")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil || name[1] != '_' {
			continue // a line of the header
		}
		text := need(strconv.Unquote(quoted))(t)
		if times := strings.TrimSpace(rest[len(quoted):]); times != "" {
			n := need(strconv.Atoi(times))(t)
			text = strings.Repeat(text, n)
			all = append(all, struct{ name, text string }{name + ", cut off", text[:maxBody]})
		}
		all = append(all, struct{ name, text string }{name, text})
	}
	return all
}
