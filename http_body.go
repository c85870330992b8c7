package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads the bodies of requests. A response lists all invalid fields together.

const maxBody = 64 << 10 // bytes

// A bodyType lists the media types that a route accepts.
type bodyType []string

var (
	noBody    bodyType
	formBody  = bodyType{"application/x-www-form-urlencoded"}
	jsonBody  = bodyType{"application/json"}
	patchBody = bodyType{"application/merge-patch+json", "application/json"}
)

// readBody reads the whole body of a request and parses it.
func (r *request) readBody(w http.ResponseWriter, accepted bodyType) error {
	if len(accepted) == 0 {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	given, _, unparsed := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if unparsed != nil || !slices.Contains(accepted, given) || len(r.Header["Content-Type"]) > 1 {
		return detailed(errMediaType, "The Content-Type must be "+strings.Join(accepted, " or "))
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		return errSlow
	}
	if err != nil {
		return detailed(errInvalidRequest, "The body could not be read")
	}
	if given == formBody[0] {
		r.form, err = parseForm(string(body))
	} else {
		r.members, err = parseObject(body)
	}
	return err
}

// A form is the body of an OAuth endpoint. An empty field counts as absent (RFC
// 6749, section 3.2).
type form map[string]string

func parseForm(body string) (form, error) {
	values, err := url.ParseQuery(body)
	if err != nil {
		return nil, detailed(errInvalidRequest, "The body is not a valid form") // err would quote it, with the password
	}
	f := form{}
	for name, given := range values {
		if len(given) > 1 {
			return nil, detailed(errInvalidRequest, "A form field is repeated") // RFC 6749, section 3.2
		}
		f[name] = given[0]
	}
	return f, nil
}

func (f form) require(names ...string) error {
	for _, name := range names {
		if f[name] == "" {
			return detailed(errInvalidRequest, "Missing form field: "+name)
		}
	}
	return nil
}

// A member is a name and an undecoded value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// parseObject returns the members of a JSON object in order. encoding/json alone would
// match names in any case, let the last of two duplicates win, and replace invalid
// UTF-8. Two readers of one body must not see different things in it.
func parseObject(body []byte) ([]member, error) {
	for i, c := range string(body) { // RFC 8259, section 8.1
		if c == utf8.RuneError && !bytes.HasPrefix(body[i:], []byte("\uFFFD")) {
			return nil, detailed(errNotJSON, fmt.Sprintf("The body is not JSON: not valid UTF-8 (byte %d)", i+1))
		}
	}
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, detailed(errNotJSON, fmt.Sprintf("The body is not JSON: %v (byte %d)", syntax, syntax.Offset))
	}
	if err != nil {
		return nil, detailed(errNotJSON, "The body is not JSON: "+err.Error())
	}
	d := json.NewDecoder(bytes.NewReader(whole))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, invalid{{"", "must be a JSON object"}}
	}
	var members []member
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err // unreachable: Unmarshal found no error
		}
		m := member{name: name.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err // unreachable as well
		}
		members = append(members, m)
	}
	return members, nil
}

// A kind is the type of a field in a JSON body. Its text is the error for a value of
// another type.
type kind string

const (
	text       kind = "must be a string"
	textOrNull kind = "must be a string or null"
	boolean    kind = "must be true or false"
)

// read returns the value as a string, a bool or nil. It refuses a string with U+FFFD:
// encoding/json replaces half of a surrogate pair with that character, so two passwords
// could become one.
func (k kind) read(value json.RawMessage) (v any, err error) {
	if json.Unmarshal(value, &v) != nil {
		return nil, errors.New(string(k)) // a number out of range
	}
	s, isText := v.(string)
	_, isBool := v.(bool)
	switch {
	case isText && k != boolean && strings.ContainsRune(s, utf8.RuneError):
		return nil, errors.New("must not contain U+FFFD or half of a surrogate pair")
	case isText && k != boolean, isBool && k == boolean, v == nil && k == textOrNull:
		return v, nil
	}
	return nil, errors.New(string(k))
}

// fields are the members that a JSON body may have.
type fields map[string]kind

// An object is a JSON body: its values, and the errors found so far.
type object struct {
	values map[string]any
	invalid
}

// object decodes the body, and records unknown, repeated and mistyped fields.
func (r *request) object(allowed fields) *object {
	o := &object{values: map[string]any{}}
	for _, m := range r.members {
		kind, known := allowed[m.name]
		if !known {
			o.add(m.name, "is not a field of this request")
			continue
		}
		if _, twice := o.values[m.name]; twice {
			o.add(m.name, "is given more than once")
			continue
		}
		value, err := kind.read(m.value)
		if err != nil {
			o.add(m.name, err.Error())
		}
		o.values[m.name] = value
	}
	return o
}

func (o *object) require(names ...string) {
	for _, name := range names {
		if _, given := o.values[name]; !given {
			o.add(name, "is required")
		}
	}
}

// check applies a rule to a field, if it is a string.
func (o *object) check(name string, rule func(string) error) {
	if s, ok := o.values[name].(string); ok {
		if err := rule(s); err != nil {
			o.add(name, err.Error())
		}
	}
}

func (o *object) text(name string) string {
	s, _ := o.values[name].(string)
	return s
}

// patch applies the given fields to u. A null removes a value (RFC 7396).
func (o *object) patch(u *User) {
	for name, value := range o.values {
		switch name {
		case "email":
			u.Email, _ = value.(string)
		case "full_name":
			u.FullName, _ = value.(string)
		case "disabled":
			u.Disabled = value.(bool)
		case "role":
			u.Role = Role(value.(string))
		}
	}
}

// number reads a whole number from a query, or returns absent if there is none.
func (i *invalid) number(query url.Values, name string, least, most, absent int64) int64 {
	if !query.Has(name) {
		return absent
	}
	n, ok := wholeNumber(query.Get(name), least, most)
	if !ok || len(query[name]) > 1 {
		i.add(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n
}

// wholeNumber parses a number without a sign or leading zeros. If ok is false, n is 0.
func wholeNumber(s string, least, most int64) (n int64, ok bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < least || n > most {
		return 0, false
	}
	return n, true
}
