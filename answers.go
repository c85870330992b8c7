package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file reads bodies and writes answers. A form or an object is read whole
// or not at all, and everything that is wrong with it is said at once.

const maxBody = 64 << 10 // bytes

// A form is the body of the OAuth endpoints. An empty field counts as absent
// (RFC 6749, section 3.2).
type form map[string]string

func readForm(w http.ResponseWriter, r *http.Request) (form, error) {
	body, err := readBody(w, r, "application/x-www-form-urlencoded")
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badRequest("The body is not a valid form") // err would quote the password
	}
	f := form{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > 1 {
			return nil, badRequest("A form field is repeated") // forbidden in section 3.2
		}
		f[name] = values.Get(name)
	}
	return f, nil
}

func (f form) require(names ...string) error {
	for _, name := range names {
		if f[name] == "" {
			return badRequest("Missing form field: " + name)
		}
	}
	return nil
}

// A kind is what a field of a JSON body may hold.
type kind string

const (
	text       kind = "must be a string"
	textOrNull kind = "must be a string or null"
	boolean    kind = "must be true or false"
)

// fields are the names that a JSON body may have.
type fields map[string]kind

// An object is a JSON body: what was given, as string, bool or nil, and what
// is wrong with it so far.
type object struct {
	values map[string]any
	bad    invalid
}

// readJSON reads an object of no other fields than the allowed ones. What is
// not JSON is an error; a wrong field is kept for err, with all others.
func readJSON(w http.ResponseWriter, r *http.Request, allowed fields) (*object, error) {
	accepted := []string{"application/json"}
	if r.Method == http.MethodPatch {
		accepted = []string{"application/merge-patch+json", "application/json"}
	}
	body, err := readBody(w, r, accepted...)
	if err != nil {
		return nil, err
	}
	list, err := members(body)
	if err == errNotObject {
		return nil, invalid{{"", err.Error()}}
	}
	if err != nil {
		return nil, badRequest("The body is not JSON: " + err.Error())
	}
	o := &object{values: map[string]any{}}
	for _, m := range list {
		kind, known := allowed[m.name]
		_, twice := o.values[m.name]
		switch {
		case !known:
			o.bad.add(m.name, "is not a field of this request")
			continue
		case twice:
			o.bad.add(m.name, "is given more than once")
			continue
		}
		value, ok := kind.read(m.value)
		switch {
		case !ok && kind != boolean && m.value[0] == '"':
			o.bad.add(m.name, "has half of a surrogate pair")
		case !ok:
			o.bad.add(m.name, string(kind))
		}
		o.values[m.name] = value
	}
	return o, nil
}

func (k kind) read(value json.RawMessage) (v any, ok bool) {
	switch string(value) {
	case "null":
		return nil, k == textOrNull
	case "true", "false":
		return value[0] == 't', k == boolean
	}
	s, ok := jsonText(value)
	return s, ok && k != boolean
}

func (o *object) require(names ...string) {
	for _, name := range names {
		if _, given := o.values[name]; !given {
			o.bad.add(name, "is required")
		}
	}
}

// check applies a rule to a field that was given as a string.
func (o *object) check(name string, rule func(string) error) {
	if s, ok := o.values[name].(string); ok {
		if err := rule(s); err != nil {
			o.bad.add(name, err.Error())
		}
	}
}

func (o *object) text(name string) string {
	s, _ := o.values[name].(string)
	return s
}

// patch applies the fields that were given to u: null removes (RFC 7396).
func (o *object) patch(u *User) {
	for name, value := range o.values {
		switch name {
		case "email":
			u.Email, _ = value.(string)
		case "full_name":
			u.FullName, _ = value.(string)
		case "disabled":
			u.SetDisabled(value.(bool))
		case "role":
			u.Role = Role(value.(string))
		}
	}
}

// err returns what is wrong with the object, if anything.
func (o *object) err() error {
	if len(o.bad) == 0 {
		return nil
	}
	return o.bad
}

// readBody reads a body of one of the accepted types, whole.
func readBody(w http.ResponseWriter, r *http.Request, accepted ...string) ([]byte, error) {
	given, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(accepted, given) || len(r.Header["Content-Type"]) > 1 {
		return nil, &problem{status: http.StatusUnsupportedMediaType, code: "invalid_request", detail: "The Content-Type must be " + strings.Join(accepted, " or ")}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &problem{status: http.StatusRequestEntityTooLarge, code: "invalid_request", detail: fmt.Sprintf("The body must be at most %d bytes long", maxBody)}
	}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		return nil, &problem{status: http.StatusRequestTimeout, code: "invalid_request", detail: "The request took too long to arrive"}
	}
	if err != nil {
		return nil, badRequest("The body could not be read")
	}
	return body, nil
}

// invalid is a 422: every field that is wrong, and why.
type invalid []fieldError

type fieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (i invalid) Error() string {
	if len(i) == 1 {
		return strings.TrimSpace(i[0].Field + " " + i[0].Message)
	}
	return fmt.Sprintf("%d fields are not valid", len(i))
}

// add says what is wrong with a field, once.
func (i *invalid) add(field, message string) {
	if !slices.ContainsFunc(*i, func(e fieldError) bool { return e.Field == field }) {
		*i = append(*i, fieldError{field, message})
	}
}

// number reads a whole number from the query.
func (i *invalid) number(r *http.Request, name string, least, most, absent int64) int64 {
	query := r.URL.Query()
	if !query.Has(name) {
		return absent
	}
	n, err := strconv.ParseInt(query.Get(name), 10, 64)
	oneSpelling := strconv.FormatInt(n, 10) == query.Get(name)
	if err != nil || !oneSpelling || n < least || n > most || len(query[name]) > 1 {
		i.add(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n
}

// A problem is an error that knows its answer (RFC 9457).
type problem struct {
	status    int
	code      string        // for the OAuth endpoints (RFC 6749, section 5.2)
	challenge string        // WWW-Authenticate (RFC 6750, section 3)
	detail    string        // for people; may be shown
	retry     time.Duration // Retry-After
}

func (p *problem) Error() string { return p.detail }

func badRequest(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: "invalid_request", detail: detail}
}

// What the layers above the handlers, and the handlers, have to say.
var (
	errNoCredentials  = &problem{401, "invalid_client", "Bearer", "Not authenticated", 0}
	errLogin          = &problem{401, "invalid_grant", "Bearer", "Incorrect username or password", 0}
	errRefresh        = &problem{400, "invalid_grant", "", "The refresh token is not valid", 0}
	errForbidden      = &problem{403, "insufficient_scope", `Bearer error="insufficient_scope"`, "Not enough permissions", 0}
	errTwoCredentials = &problem{400, "invalid_request", `Bearer error="invalid_request"`, "More than one Authorization header", 0}
	errQuery          = &problem{400, "invalid_request", "", "The query string is not valid", 0}
	errSecretInQuery  = &problem{400, "invalid_request", `Bearer error="invalid_request"`, "A name or a secret must not be sent in the query string", 0}
	errMethod         = &problem{405, "", "", "Method not allowed", 0}
	errGone           = &problem{499, "", "", "The client has gone", 0} // nginx's number
	errInternal       = &problem{500, "server_error", "", "Internal error", 0}
)

// problems are the answers for the errors of the chapters below, which know
// nothing of HTTP.
var problems = []struct {
	err error
	problem
}{
	{ErrToken, problem{401, "invalid_token", `Bearer error="invalid_token"`, "Could not validate credentials", 0}},
	{ErrEnded, problem{401, "invalid_token", `Bearer error="invalid_token"`, "Could not validate credentials", 0}},
	{ErrStale, problem{401, "invalid_token", `Bearer error="invalid_token"`, "Could not validate credentials", 0}},
	{ErrPassword, problem{403, "invalid_grant", "", "Incorrect password", 0}},
	{ErrBusy, problem{503, "temporarily_unavailable", "", "Too many passwords are being checked", time.Second}},
	{ErrInactive, problem{400, "invalid_grant", "", "Inactive user", 0}},
	{ErrNotFound, problem{404, "", "", "Not found", 0}},
	{ErrUsernameTaken, problem{400, "", "", "Username already registered", 0}},
	{ErrLastAdmin, problem{409, "", "", "The last active admin cannot be demoted, disabled or deleted", 0}},
	{ErrUnavailable, problem{503, "temporarily_unavailable", "", "The store cannot be used at the moment", 5 * time.Second}},
}

// problemOf finds the answer for an error; nil if nobody has foreseen it.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if bad, ok := errors.AsType[invalid](err); ok {
		return &problem{status: http.StatusUnprocessableEntity, detail: "The request is not valid: " + bad.Error()}
	}
	if throttled, ok := errors.AsType[ThrottledError](err); ok {
		return &problem{status: http.StatusTooManyRequests, code: "temporarily_unavailable", detail: "Too many failed logins", retry: throttled.Wait}
	}
	for i := range problems {
		if errors.Is(err, problems[i].err) {
			return &problems[i].problem
		}
	}
	return nil
}

// fail answers with an error. One that nobody has foreseen is for the log only.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, gone := problemOf(err), r.Context().Err() != nil
	s.count(err)
	switch {
	case p == nil && gone:
		p = errGone // for the log: nobody reads it
	case p == nil:
		s.log.Error("request failed", "route", r.Pattern, "error", err)
		p = errInternal
	case errors.Is(err, ErrUnavailable) && !gone:
		s.log.Error("the store failed", "route", r.Pattern, "error", err)
	}
	h := w.Header()
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retry+time.Second-1)/time.Second)))
	}
	var body []byte
	if oauth := r.URL.Path == "/token" || r.URL.Path == "/revoke" || r.URL.Path == "/introspect"; oauth && p != errMethod {
		h["Content-Type"], body = jsonType, p.oauthJSON()
	} else {
		h["Content-Type"], body = problemType, p.problemJSON(err)
	}
	w.WriteHeader(p.status)
	w.Write(body)
}

// count counts the errors that tell of an attack.
func (s *server) count(err error) {
	_, throttled := errors.AsType[ThrottledError](err)
	switch {
	case throttled:
		s.stats.Add("throttled", 1)
	case errors.Is(err, ErrBusy):
		s.stats.Add("hashing_refused", 1)
	case errors.Is(err, errLogin), errors.Is(err, ErrPassword):
		s.stats.Add("wrong_passwords", 1)
	}
}

// oauthJSON is the body of RFC 6749, section 5.2, with the article's detail.
func (p *problem) oauthJSON() []byte {
	b := appendText([]byte(`{"error":`), cmp.Or(p.code, "invalid_request"))
	b = appendText(append(b, `,"error_description":`...), p.detail)
	b = appendText(append(b, `,"detail":`...), p.detail)
	return append(b, '}')
}

// problemJSON is the body of RFC 9457.
func (p *problem) problemJSON(err error) []byte {
	b := appendText([]byte(`{"title":`), http.StatusText(p.status))
	b = strconv.AppendInt(append(b, `,"status":`...), int64(p.status), 10)
	b = appendText(append(b, `,"detail":`...), p.detail)
	if bad, ok := errors.AsType[invalid](err); ok {
		list, _ := json.Marshal(bad) // strings can always be written
		b = append(append(b, `,"errors":`...), list...)
	}
	return append(b, '}')
}

var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
)

// answer writes a body of JSON. That the client has gone is no error of ours.
func answer(w http.ResponseWriter, status int, body []byte) error {
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	w.Write(body)
	return nil
}

func answerJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return answer(w, status, b)
}

// noContent answers 204, unless err says otherwise.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
