package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads the bodies of requests. A response lists all invalid fields together.

// A bodyType says what body a route takes: media types, and a limit in bytes.
type bodyType struct {
	types []string
	limit int64
}

const (
	maxBody = 64 << 10 // bytes
	maxForm = 8 << 10  // bytes: room for two tokens
)

const formType = "application/x-www-form-urlencoded"

var (
	noBody    bodyType
	formBody  = bodyType{[]string{formType}, maxForm}
	jsonBody  = bodyType{[]string{"application/json"}, maxBody}
	patchBody = bodyType{[]string{"application/merge-patch+json", "application/json"}, maxBody}
)

// readBody reads the whole body of a request and parses it.
func (c *call) readBody(accepted bodyType) error {
	if accepted.limit == 0 {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, accepted.limit))
	given, _, _ := strings.Cut(c.Header.Get("Content-Type"), ";") // a parameter changes nothing
	given = strings.ToLower(strings.TrimSpace(given))
	if !slices.Contains(accepted.types, given) || len(c.Header["Content-Type"]) > 1 {
		return detailed(errMediaType, "The Content-Type must be "+strings.Join(accepted.types, " or "))
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return detailed(errTooLarge, fmt.Sprintf("The body must be at most %d bytes long", accepted.limit))
	}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		return errSlow
	}
	if err != nil {
		return detailed(errInvalidRequest, "The body could not be read")
	}
	if given == formType {
		c.form, err = parseForm(string(body))
	} else {
		c.members, err = parseObject(body)
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
	f["username"] = trimName(f["username"])
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

// trimName removes spaces around a username. Keyboards of phones add one.
func trimName(name string) string { return strings.Trim(name, " ") }

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
	textKind       kind = "must be a string"
	textOrNullKind kind = "must be a string or null"
	boolKind       kind = "must be true or false"
)

// read returns the value as a string, a bool or nil. It refuses a string with U+FFFD:
// encoding/json replaces half of a surrogate pair with that character, so two passwords
// could become one.
func (k kind) read(value json.RawMessage) (v any, err error) {
	if json.Unmarshal(value, &v) != nil {
		v = 0 // a number that is out of range
	}
	s, isText := v.(string)
	_, isBool := v.(bool)
	switch {
	case isText && k != boolKind && strings.ContainsRune(s, utf8.RuneError):
		return nil, errors.New("must not contain U+FFFD or half of a surrogate pair")
	case s == "" && k == textOrNullKind && (isText || v == nil):
		return nil, nil // as empty fields of a form are sent
	case isText && k != boolKind, isBool && k == boolKind:
		return v, nil
	}
	return nil, errors.New(string(k))
}

// A field is the type of a member and a rule for its text.
type field struct {
	kind kind
	rule func(string) error // may be nil
}

// fields are the members that a JSON body may have.
type fields map[string]field

var usernameField = field{textKind, checkUsername}
var passwordField = field{textKind, nil} // a new one has a rule that depends on the username
var emailField = field{textOrNullKind, checkEmail}
var fullNameField = field{textOrNullKind, checkFullName}
var disabledField = field{boolKind, nil}
var roleField = field{textKind, func(role string) error { return checkRole(Role(role)) }}

// An object is a JSON body: its values, and the errors found so far.
type object struct {
	values map[string]any
	invalid
}

// object decodes the body. It records unknown, repeated and mistyped fields, missing
// ones, and those that break their rule.
func (c *call) object(allowed fields, required ...string) *object {
	o := &object{values: map[string]any{}}
	for _, m := range c.members {
		field, known := allowed[m.name]
		if !known {
			o.add(m.name, "is not a field of this request")
			continue
		}
		if _, twice := o.values[m.name]; twice {
			o.add(m.name, "is given more than once")
			continue
		}
		value, err := field.kind.read(m.value)
		if err != nil {
			o.add(m.name, err.Error())
		}
		if name, ok := value.(string); ok && m.name == "username" {
			value = trimName(name)
		}
		o.values[m.name] = value
	}
	for _, name := range required {
		if _, given := o.values[name]; !given {
			o.add(name, "is required")
		}
	}
	for _, m := range c.members {
		if rule := allowed[m.name].rule; rule != nil {
			o.check(m.name, rule)
		}
	}
	return o
}

// check applies a rule to a field, if it is a string and nothing is wrong with it yet. So
// a rule runs once, however often a field is repeated.
func (o *object) check(name string, rule func(string) error) {
	if s, ok := o.values[name].(string); ok && !o.has(name) {
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
