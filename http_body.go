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
	maxBody  = 64 << 10 // bytes
	maxForm  = 8 << 10  // bytes: room for two tokens
	formType = "application/x-www-form-urlencoded"
)

var (
	noBody    bodyType
	formBody  = bodyType{[]string{formType}, maxForm}
	jsonBody  = bodyType{[]string{"application/json"}, maxBody}
	patchBody = bodyType{[]string{"application/merge-patch+json", "application/json"}, maxBody}
)

// A body is the parsed body of a request.
type body struct {
	form    form     // of a formBody
	members []member // of a jsonBody or a patchBody
}

// read reads the whole body of a request and parses it.
func (b *body) read(w http.ResponseWriter, r *http.Request, accepted bodyType) error {
	if accepted.limit == 0 {
		return nil
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, accepted.limit))
	given, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";") // a parameter changes nothing
	given = strings.ToLower(strings.TrimSpace(given))
	if !slices.Contains(accepted.types, given) || len(r.Header["Content-Type"]) > 1 {
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
		b.form, err = parseForm(string(text))
	} else {
		b.members, err = parseObject(text)
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
	if syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(body, &whole)); ok { // no other error
		return nil, detailed(errNotJSON, fmt.Sprintf("The body is not JSON: %v (byte %d)", syntax, syntax.Offset))
	}
	d := json.NewDecoder(bytes.NewReader(whole)) // it finds no error, because Unmarshal found none
	if open, _ := d.Token(); open != json.Delim('{') {
		return nil, invalid{{"", "must be a JSON object"}}
	}
	var members []member
	for d.More() {
		name, _ := d.Token()
		m := member{name: name.(string)}
		d.Decode(&m.value)
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

// read returns the text of a value: a string, "true" or "false", or "" for null. It
// refuses a string with U+FFFD: encoding/json replaces half of a surrogate pair with
// that character, so two passwords could become one.
func (k kind) read(value json.RawMessage) (text string, err error) {
	switch first := value[0]; {
	case first == '"' && k != boolKind:
		err = json.Unmarshal(value, &text)
		if strings.ContainsRune(text, utf8.RuneError) {
			return "", errors.New("must not contain U+FFFD or half of a surrogate pair")
		}
		return text, err
	case first == 'n' && k == textOrNullKind:
		return "", nil
	case (first == 't' || first == 'f') && k == boolKind:
		return string(value), nil
	}
	return "", errors.New(string(k))
}

// A field is the type of a member and a rule for its text.
type field struct {
	kind
	rule func(string) error // may be nil
}

// fields are the members that a JSON body may have.
type fields map[string]field

var usernameField = field{textKind, checkUsername}
var textField = field{textKind, nil} // also for a password, whose rule depends on the username
var emailField = field{textOrNullKind, checkEmail}
var fullNameField = field{textOrNullKind, checkFullName}
var disabledField = field{boolKind, nil}
var roleField = field{textKind, func(role string) error { return checkRole(Role(role)) }}

// An object is a JSON body: the texts of its values, and the errors found so far.
type object struct {
	values map[string]string
	invalid
}

// object decodes the body. It records unknown, repeated and mistyped fields, those that
// break their rule, and missing ones.
func (b body) object(allowed fields, required ...string) *object {
	o := &object{values: map[string]string{}}
	for _, m := range b.members {
		f, known := allowed[m.name]
		if !known {
			o.add(m.name, "is not a field of this request")
			continue
		}
		if _, twice := o.values[m.name]; twice {
			o.add(m.name, "is given more than once")
			continue
		}
		text, err := f.kind.read(m.value)
		if m.name == "username" {
			text = trimName(text)
		}
		if err == nil && f.rule != nil && (text != "" || f.kind == textKind) { // an empty one may count as null
			err = f.rule(text)
		}
		if err != nil {
			o.add(m.name, err.Error())
		}
		o.values[m.name] = text
	}
	for _, name := range required {
		if _, given := o.values[name]; !given {
			o.add(name, "is required")
		}
	}
	return o
}

// check applies a rule to a field, if it is given and nothing is wrong with it yet.
func (o *object) check(name string, rule func(string) error) {
	if text, given := o.values[name]; given && !o.has(name) {
		if err := rule(text); err != nil {
			o.add(name, err.Error())
		}
	}
}

func (o *object) text(name string) string { return o.values[name] }

// patch applies the given fields to u. A null removes a value (RFC 7396).
func (o *object) patch(u *User) {
	for name, text := range o.values {
		switch name {
		case "email":
			u.Email = text
		case "full_name":
			u.FullName = text
		case "disabled":
			u.Disabled = text == "true"
		case "role":
			u.Role = Role(text)
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
