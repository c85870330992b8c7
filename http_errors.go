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
	errMailOff        = errors.New("this server sends no mail")
	errClient         = errors.New("wrong ID or secret of a client")
	errOpening        = detailed(ErrUnavailable, "The store is being read")
)

const (
	bearer            = "Bearer"
	invalidToken      = `Bearer error="invalid_token"`
	invalidRequest    = `Bearer error="invalid_request"`
	insufficientScope = `Bearer error="insufficient_scope"`

	statusClientGone = 499 // nginx's number, for the log: nobody receives it
)

// problems maps errors to responses.
var problems = []problem{
	{errNoCredentials, 401, "not_authenticated", "invalid_client", bearer, 0, "Not authenticated"},
	{ErrToken, 401, "invalid_token", "invalid_token", invalidToken, 0, "Could not validate credentials"},
	{ErrEnded, 401, "invalid_token", "invalid_token", invalidToken, 0, "Could not validate credentials"},
	{errLogin, 401, "incorrect_login", "invalid_grant", bearer, 0, "Incorrect username or password"},
	{errClient, 401, "incorrect_login", "invalid_client", `Basic realm="stdauth"`, 0, "Incorrect client ID or secret"},
	{errRefresh, 400, "invalid_refresh_token", "invalid_grant", "", 0, "The refresh token is not valid"},
	{ErrInactive, 400, "inactive_user", "invalid_grant", "", 0, "Inactive user"},
	{ErrNotAdmin, 403, "not_enough_permissions", "insufficient_scope", insufficientScope, 0, "Not enough permissions"},
	{ErrUsernameTaken, 400, "username_taken", "", "", 0, "Username already registered"},
	{errNotJSON, 400, "not_json", "", "", 0, ""},
	{errInvalidFields, 422, "invalid_fields", "", "", 0, ""},
	{errInvalidRequest, 400, "invalid_request", "invalid_request", "", 0, ""},
	{errGrantType, 400, "unsupported_grant_type", "unsupported_grant_type", "", 0, "grant_type must be password or refresh_token"},
	{ErrPassword, 403, "incorrect_password", "", "", 0, "Incorrect password"},
	{ErrNotFound, 404, "not_found", "", "", 0, "Not found"},
	{errCrossOrigin, 403, "cross_origin", "invalid_request", "", 0, "Cross-origin request"},
	{errOwnAccount, 403, "own_account", "", "", 0, ""},
	{ErrMailOff, 404, "mail_off", "", "", 0, "This server sends no mail: it was started without -mail"},
	{ErrMailToken, 400, "invalid_mail_token", "", "", 0, "The link is not valid: it was used, has expired or is broken"},
	{errMediaType, 415, "unsupported_media_type", "invalid_request", "", 0, ""},
	{errTooLarge, 413, "too_large", "invalid_request", "", 0, ""},
	{errCredentials, 400, "invalid_request", "invalid_request", invalidRequest, 0, ""},
	{ErrUnavailable, 503, "store_unavailable", "temporarily_unavailable", "", 5 * time.Second, "The store cannot be used at the moment"},
	{ErrThrottled, 429, "too_many_failed_logins", "temporarily_unavailable", "", 0, "Too many failed logins"},
	{ErrRegistrations, 429, "too_many_registrations", "", "", 0, "Too many accounts were registered from this network"},
	{ErrChanges, 429, "too_many_changes", "", "", 0, "Too many changes of this account"},
	{ErrBusy, 503, "too_busy", "temporarily_unavailable", "", time.Second, "Too many passwords are being checked"},
	{ErrMailBusy, 503, "too_busy", "", "", time.Second, "Too many mails wait to be sent"},
	{ErrLastAdmin, 409, "last_admin", "", "", 0, "The last active admin cannot be demoted, disabled or deleted"},
	{errMethod, 405, "method_not_allowed", "", "", 0, "Method not allowed"},
	{errSlow, 408, "request_timeout", "invalid_request", "", 0, "The request took too long to arrive"},
	{errInternal, 500, "internal_error", "server_error", "", 0, "Internal error"},
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
	for _, p = range problems { // the last is errInternal
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
