package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A problem is the response to an error (RFC 9457).
type problem struct {
	err       error
	status    int
	code      string        // for programs
	oauth     string        // for the OAuth endpoints (RFC 6749, section 5.2)
	challenge string        // WWW-Authenticate (RFC 6750, section 3)
	retry     time.Duration // Retry-After
	detail    string        // for people; see detailed
}

// The errors of the handlers. Their responses are in problems.
var (
	errNoCredentials  = errors.New("no credentials")
	errLogin          = errors.New("login failed")
	errRefresh        = errors.New("refresh failed")
	errInvalidRequest = errors.New("invalid request")
	errNotJSON        = errors.New("not JSON")
	errInvalidFields  = errors.New("invalid fields")
	errGrantType      = errors.New("unsupported grant type")
	errCredentials    = errors.New("credentials where they must not be")
	errCrossOrigin    = errors.New("cross-origin request")
	errOwnAccount     = errors.New("an admin's own account")
	errMediaType      = errors.New("wrong content type")
	errTooLarge       = errors.New("body too large")
	errMethod         = errors.New("method not allowed")
	errSlow           = errors.New("the request took too long")
	errInternal       = errors.New("internal error")
	errClient         = errors.New("wrong ID or secret of a client")
	errOwnPassword    = detailed(errOwnAccount, "Change your own password at /users/me/password, with the current one")
	errOpening        = detailed(ErrUnavailable, "The store is being read")
)

const (
	invalidToken     = `Bearer error="invalid_token"`
	statusClientGone = 499 // nginx's number, for the log: nobody receives it
)

// problems maps errors to responses. The first match counts; the last is for the rest.
var problems = []problem{
	{err: errNoCredentials, status: 401, code: "not_authenticated", oauth: "invalid_client", challenge: "Bearer", detail: "Not authenticated"},
	{err: ErrToken, status: 401, code: "invalid_token", oauth: "invalid_token", challenge: invalidToken, detail: "Could not validate credentials"},
	{err: ErrEnded, status: 401, code: "invalid_token", oauth: "invalid_token", challenge: invalidToken, detail: "Could not validate credentials"},
	{err: errLogin, status: 401, code: "incorrect_login", oauth: "invalid_grant", challenge: "Bearer", detail: "Incorrect username or password"},
	{err: errClient, status: 401, code: "incorrect_login", oauth: "invalid_client", challenge: `Basic realm="stdauth"`, detail: "Incorrect client ID or secret"},
	{err: errRefresh, status: 400, code: "invalid_refresh_token", oauth: "invalid_grant", detail: "The refresh token is not valid"},
	{err: ErrInactive, status: 400, code: "inactive_user", oauth: "invalid_grant", detail: "Inactive user"},
	{err: ErrNotAdmin, status: 403, code: "not_enough_permissions", oauth: "insufficient_scope", challenge: `Bearer error="insufficient_scope"`, detail: "Not enough permissions"},
	{err: ErrUsernameTaken, status: 400, code: "username_taken", detail: "Username already registered"},
	{err: errNotJSON, status: 400, code: "not_json"},
	{err: errInvalidFields, status: 422, code: "invalid_fields"},
	{err: errInvalidRequest, status: 400, code: "invalid_request", oauth: "invalid_request"},
	{err: errGrantType, status: 400, code: "unsupported_grant_type", oauth: "unsupported_grant_type", detail: "grant_type must be password or refresh_token"},
	{err: ErrPassword, status: 403, code: "incorrect_password", detail: "Incorrect password"},
	{err: ErrNotFound, status: 404, code: "not_found", detail: "Not found"},
	{err: errCrossOrigin, status: 403, code: "cross_origin", oauth: "invalid_request", detail: "Cross-origin request"},
	{err: errOwnAccount, status: 403, code: "own_account"},
	{err: ErrMailOff, status: 404, code: "mail_off", detail: "This server sends no mail: it was started without -mail"},
	{err: ErrMailToken, status: 400, code: "invalid_mail_token", detail: "The link is not valid: it was used, has expired or is broken"},
	{err: errMediaType, status: 415, code: "unsupported_media_type", oauth: "invalid_request"},
	{err: errTooLarge, status: 413, code: "too_large", oauth: "invalid_request"},
	{err: errCredentials, status: 400, code: "invalid_request", oauth: "invalid_request", challenge: `Bearer error="invalid_request"`},
	{err: ErrUnavailable, status: 503, code: "store_unavailable", oauth: "temporarily_unavailable", retry: 5 * time.Second, detail: "The store cannot be used at the moment"},
	{err: ErrThrottled, status: 429, code: "too_many_failed_logins", oauth: "temporarily_unavailable", detail: "Too many failed logins"},
	{err: ErrRegistrations, status: 429, code: "too_many_registrations", detail: "Too many accounts were registered from this network"},
	{err: ErrChanges, status: 429, code: "too_many_changes", detail: "Too many changes of this account"},
	{err: ErrBusy, status: 503, code: "too_busy", oauth: "temporarily_unavailable", retry: time.Second, detail: "Too many passwords are being checked"},
	{err: ErrMailBusy, status: 503, code: "too_busy", retry: time.Second, detail: "Too many mails wait to be sent"},
	{err: ErrLastAdmin, status: 409, code: "last_admin", detail: "The last active admin cannot be demoted, disabled or deleted"},
	{err: errMethod, status: 405, code: "method_not_allowed", detail: "Method not allowed"},
	{err: errSlow, status: 408, code: "request_timeout", oauth: "invalid_request", detail: "The request took too long to arrive"},
	{err: errInternal, status: 500, code: "internal_error", oauth: "server_error", detail: "Internal error"},
}

// detailed wraps err with the detail of its response.
func detailed(err error, detail string) error { return &detailedError{err, detail} }

type detailedError struct {
	error
	detail string
}

func (e *detailedError) Unwrap() error { return e.error }

// An invalid lists the invalid fields of a request: each once, and at most maxInvalid.
type invalid []fieldError

type fieldError struct {
	Field   string `json:"field"` // "" for the body as a whole
	Message string `json:"message"`
}

const (
	maxInvalid   = 20
	maxFieldName = 100 // bytes of a name that are repeated in the response
)

func (i *invalid) add(field, message string) {
	if len(field) > maxFieldName {
		field = strings.ToValidUTF8(field[:maxFieldName], "") + "..."
	}
	if !i.has(field) {
		*i = append(*i, fieldError{field, message})
	}
}

// has reports whether the list has an error of the field, or no room for one.
func (i *invalid) has(field string) bool {
	return len(*i) >= maxInvalid || slices.ContainsFunc(*i, func(e fieldError) bool { return e.Field == field })
}

// err returns the list as an error, or nil if it is empty.
func (i invalid) err() error {
	if len(i) == 0 {
		return nil
	}
	return i
}

func (i invalid) Error() string {
	if len(i) == 1 {
		return strings.TrimSpace(i[0].Field + " " + i[0].Message)
	}
	return strconv.Itoa(len(i)) + " fields are invalid"
}

func (i invalid) Unwrap() error { return errInvalidFields }

// problemOf returns the response to an error, and the invalid fields if it is about
// fields. An error that is not in problems is an internal error.
func problemOf(err error) (p problem, fields []fieldError) {
	for _, p = range problems {
		if errors.Is(err, p.err) {
			break
		}
	}
	if e, ok := errors.AsType[*detailedError](err); ok {
		p.detail = e.detail
	}
	if e, ok := errors.AsType[invalid](err); ok {
		p.detail, fields = "The request is invalid: "+e.Error(), e
	}
	if alarm, ok := errors.AsType[Alarm](err); ok {
		p.detail += ": " + alarm.Error()
	}
	if e, ok := errors.AsType[LaterError](err); ok {
		p.retry = e.After
	}
	return p, fields
}
