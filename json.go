package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json is made to be lenient: it matches names without regard to
// case, lets the last of two duplicates win, and mends what is not UTF-8. Where
// a signature or a permission hangs on the text, two readers must never see two
// things in it, so this file reads the outermost object itself.

// A member is one name and value of a JSON object, as they were written.
type member struct {
	name  string
	value json.RawMessage
}

// errNotObject says that the text is JSON, but not an object.
var errNotObject = errors.New("must be a JSON object")

// members returns the members of the one JSON object in data, in their order,
// duplicates and all. The text must be valid UTF-8 (RFC 8259, section 8.1) with
// nothing behind the object. A syntax error says where it is.
func members(data []byte) ([]member, error) {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if i += size; r == utf8.RuneError && size == 1 {
			return nil, fmt.Errorf("not valid UTF-8 (byte %d)", i)
		}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("%w (byte %d)", syntax, syntax.Offset)
		}
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(whole))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errNotObject
	}
	var list []member
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: name.(string)} // inside an object it can be nothing else
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// jsonText reads value as a string. Half of a surrogate pair ("\ud800") is
// refused: encoding/json would read each of them as U+FFFD, and so make one
// password of two.
func jsonText(value json.RawMessage) (s string, ok bool) {
	if len(value) == 0 || value[0] != '"' || hasLoneSurrogate(value) {
		return "", false
	}
	return s, json.Unmarshal(value, &s) == nil
}

func hasLoneSurrogate(value []byte) bool {
	unit := func(at int) rune { // the UTF-16 code unit escaped there, or 0
		if at+6 > len(value) || value[at] != '\\' || value[at+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(value[at+2:at+6]), 16, 16)
		return rune(n)
	}
	for i := 0; i < len(value); i++ {
		if value[i] != '\\' {
			continue
		}
		if u := unit(i); utf16.IsSurrogate(u) {
			if utf16.DecodeRune(u, unit(i+6)) == utf8.RuneError {
				return true
			}
			i += 6 // over the first of the pair
		}
		i++ // over the escaped character, which may be a backslash
	}
	return false
}

// appendText appends s to b as a JSON string. Nearly every string of ours needs
// no escape, and then this is four times as fast as encoding/json.
func appendText(b []byte, s string) []byte {
	if plainLength(s) < len(s) {
		quoted, err := json.Marshal(s)
		if err != nil {
			panic(err) // a string can always be written
		}
		return append(b, quoted...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// plainLength returns how much of s, from its start, is ASCII that stands for
// itself in a JSON string.
func plainLength(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}
