package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What this server reads more strictly than encoding/json, and why: see json.go.

func TestMembersKeepsOrderAndDuplicates(t *testing.T) {
	type list = []member
	for _, test := range []struct {
		name, data string
		want       list
	}{
		{"an empty object", `{}`, nil},
		{"white space around it", " \t\r\n{ } \n", nil},
		{"members in their order", `{"b":1,"a":2}`, list{{"b", raw(`1`)}, {"a", raw(`2`)}}},
		{"duplicates", `{"a":1,"a":2}`, list{{"a", raw(`1`)}, {"a", raw(`2`)}}},
		{"names that differ in case", `{"a":1,"A":2}`, list{{"a", raw(`1`)}, {"A", raw(`2`)}}},
		{"a name spelt with an escape", `{"\u0061":1}`, list{{"a", raw(`1`)}}},
		{"an empty name", `{"":1}`, list{{"", raw(`1`)}}},
		{"a null", `{"a":null}`, list{{"a", raw(`null`)}}},
		{"values as they were written", `{"a": 1.0e0 ,"b": [ 1, {"c" :"\u0061"} ] }`, list{{"a", raw(`1.0e0`)}, {"b", raw(`[ 1, {"c" :"\u0061"} ]`)}}},
		{"duplicates further in are nobody's business", `{"a":{"b":1,"b":2}}`, list{{"a", raw(`{"b":1,"b":2}`)}}},
	} {
		got, err := members([]byte(test.data))
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(member{})); diff != "" || err != nil {
			t.Errorf("%s: members(%s) = %v (-want +got):\n%s", test.name, test.data, err, diff)
		}
	}
}

func TestMembersSaysWhereItBroke(t *testing.T) {
	const notObject = "must be a JSON object"
	for _, test := range []struct {
		name, data, want string
	}{
		{"nothing", ``, "unexpected end of JSON input (byte 0)"},
		{"white space alone", "  ", "unexpected end of JSON input (byte 2)"},
		{"no end", `{"a":1`, "unexpected end of JSON input (byte 6)"},
		{"trailing data", `{"a":1}x`, "invalid character 'x' after top-level value (byte 8)"},
		{"a second object", `{} {}`, "invalid character '{' after top-level value (byte 4)"},
		{"a comma too many", `{"a":1,}`, "invalid character '}' looking for beginning of object key string (byte 8)"},
		{"a name without quotes", `{a:1}`, "invalid character 'a' looking for beginning of object key string (byte 2)"},
		{"single quotes", `{'a':1}`, `invalid character '\'' looking for beginning of object key string (byte 2)`},
		{"a number with a leading zero", `{"a":01}`, "invalid character '1' after object key:value pair (byte 7)"},
		{"a line break in a string", "{\"a\":\"\n\"}", `invalid character '\n' in string literal (byte 7)`},
		{"a form", `username=johndoe`, "invalid character 'u' looking for beginning of value (byte 1)"},
		{"a byte order mark", "\ufeff{}", "invalid character 'ï' looking for beginning of value (byte 1)"},

		{"invalid UTF-8 in a value", "{\"a\":\"\xff\"}", "not valid UTF-8 (byte 7)"},
		{"invalid UTF-8 in a name", "{\"\xff\":1}", "not valid UTF-8 (byte 3)"},
		{"half of a surrogate pair in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", "not valid UTF-8 (byte 7)"},

		{"an array", `[{"a":1}]`, notObject},
		{"a string", `"{}"`, notObject},
		{"a number", `1`, notObject},
		{"a number beyond any", `1e999`, notObject},
		{"null", `null`, notObject},
		{"true", `true`, notObject},
	} {
		if got, err := members([]byte(test.data)); err == nil || err.Error() != test.want {
			t.Errorf("%s: members(%q) = %v, %v, want error %q", test.name, test.data, got, err, test.want)
		}
	}
}

func TestJSONText(t *testing.T) {
	for _, test := range []struct {
		name, value, want string
		ok                bool
	}{
		{"a string", `"secret"`, "secret", true},
		{"an empty string", `""`, "", true},
		{"every escape", `"\"\\\/\b\f\n\r\t\u0041"`, "\"\\/\b\f\n\r\tA", true},
		{"a NUL", `"\u0000"`, "\x00", true},
		{"a pair of surrogates", `"\ud83d\udd11"`, "\U0001F511", true},
		{"a pair in capitals", `"\uD83D\uDD11"`, "\U0001F511", true},
		{"two pairs", `"\ud83d\udd11\ud83d\udd11"`, "\U0001F511\U0001F511", true},
		{"the replacement character itself", `"\ufffd` + "\ufffd" + `"`, "\ufffd\ufffd", true},
		{"the neighbours of the surrogates", `"\ud7ff\ue000"`, "\ud7ff\ue000", true},
		{"an escaped backslash before u", `"\\ud800"`, `\ud800`, true},
		{"two escaped backslashes before u", `"\\\\ud800"`, `\\ud800`, true},
		{"an escaped backslash behind a pair", `"\ud83d\udd11\\ud800"`, "\U0001F511" + `\ud800`, true},

		{"a first half alone", `"\ud800"`, "", false},
		{"a first half in capitals", `"\uD800"`, "", false},
		{"a second half alone", `"\udc00"`, "", false},
		{"the last second half", `"\udfff"`, "", false},
		{"the halves in the wrong order", `"\udd11\ud83d"`, "", false},
		{"two first halves", `"\ud83d\ud83d"`, "", false},
		{"a first half before a pair", `"\ud83d\ud83d\udd11"`, "", false},
		{"a second half behind a pair", `"\ud83d\udd11\udd11"`, "", false},
		{"a first half before a letter", `"\ud83dx"`, "", false},
		{"a first half before another escape", `"\ud83d\n"`, "", false},
		{"a first half before an escaped letter", `"\ud83d\u0041"`, "", false},
		{"a first half before an escaped backslash", `"\ud83d\\udd11"`, "", false},
		{"halves with a letter between", `"\ud83dx\udd11"`, "", false},
		{"an escaped backslash, then half a pair", `"\\\ud800"`, "", false},
		{"half a pair at the end", `"secret\ud83d"`, "", false},

		{"nothing", ``, "", false},
		{"null", `null`, "", false},
		{"a number", `1`, "", false},
		{"an array", `["secret"]`, "", false},
		{"an object", `{"a":"b"}`, "", false},
		{"a string without an end", `"secret`, "", false},
		{"an escape that JSON has not", `"\x41"`, "", false},
	} {
		got, ok := jsonText(raw(test.value))
		if got != test.want || ok != test.ok {
			t.Errorf("%s: jsonText(%s) = %q, %v, want %q, %v", test.name, test.value, got, ok, test.want, test.ok)
		}
	}
}

func TestAppendText(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
	}{
		{"plain text", "johndoe", `"johndoe"`},
		{"nothing", "", `""`},
		{"the ends of ASCII", " ~", `" ~"`},
		{"a quote", `a"b`, `"a\"b"`},
		{"a backslash", `a\b`, `"a\\b"`},
		{"control characters", "\x00\n", `"\u0000\n"`},
		{"the last control character", "\x1f", `"\u001f"`},
		{"DEL", "\x7f", "\"\x7f\""},
		{"not ASCII", "größe", `"größe"`},
		{"line separators, which break JavaScript", "\u2028\u2029", `"\u2028\u2029"`},
		{"invalid UTF-8 is mended", "\xff\x80", `"\ufffd\ufffd"`},
	} {
		if got := string(appendText([]byte("x:"), test.text)); got != "x:"+test.want {
			t.Errorf("%s: appendText(x:, %q) = %s, want x:%s", test.name, test.text, got, test.want)
		}
	}
}

// What is plain takes the quick road: all of ASCII that needs no escape.
func TestPlainLength(t *testing.T) {
	for _, test := range []struct {
		text string
		want int
	}{
		{" ~", 2},
		{"john.doe+1@example.com", 22},
		{"a\x1f", 1},
		{"a\x7f", 1},
		{`a"b`, 1},
		{`a\b`, 1},
		{"größe", 2},
		{"", 0},
	} {
		if got := plainLength(test.text); got != test.want {
			t.Errorf("plainLength(%q) = %d, want %d", test.text, got, test.want)
		}
	}
}

// Property: what appendText writes, encoding/json reads as the same text.
func FuzzAppendText(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		quoted := appendText(nil, text)
		var got string
		if err := json.Unmarshal(quoted, &got); err != nil {
			t.Fatalf("appendText(%q) = %s, which is no JSON: %v", text, quoted, err)
		}
		if want := string([]rune(text)); got != want { // text, with U+FFFD for each byte that is not UTF-8
			t.Errorf("appendText(%q) = %s, read as %q, want %q", text, quoted, got, want)
		}
	})
}

// Property: what members accepts is an object in valid UTF-8 that encoding/json
// accepts too, and finds the same in; it refuses nothing else.
func FuzzMembers(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		before := slices.Clone(data)
		list, err := members(data)
		if !bytes.Equal(data, before) {
			t.Fatalf("members(%q) changed its input to %q", before, data)
		}
		object := utf8.Valid(data) && json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if (err == nil) != object {
			t.Fatalf("members(%q) = %v, want accepted: %v", data, err, object)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage // the last duplicate wins there
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("members(%q) accepts what encoding/json refuses: %v", data, err)
		}
		got := map[string]json.RawMessage{}
		for _, m := range list {
			got[m.name] = m.value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("members(%q) (-encoding/json +members):\n%s", data, diff)
		}
	})
}

// Property: jsonText reads a string as encoding/json does, and refuses it just
// when that had to put U+FFFD where none was written.
func FuzzJSONText(f *testing.F) {
	f.Fuzz(func(t *testing.T, value string) {
		var want *string
		if !utf8.ValidString(value) || strings.TrimSpace(value) != value || json.Unmarshal([]byte(value), &want) != nil || want == nil {
			return // not the text of one JSON string, which is all that members gives it
		}
		// Written as itself, or as an escape whose backslash is not escaped.
		unescaped := strings.ReplaceAll(strings.ToLower(value), `\\`, "")
		written := strings.Count(unescaped, "\ufffd") + strings.Count(unescaped, `\ufffd`)
		mended := strings.Count(*want, "\ufffd") != written

		got, ok := jsonText(raw(value))
		if ok == mended || ok && got != *want {
			t.Errorf("jsonText(%s) = %q, %v; encoding/json reads %q, with U+FFFD written %d times", value, got, ok, *want, written)
		}
	})
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }
