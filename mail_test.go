package main

import (
	"bufio"
	"bytes"
	order "cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// This file is about mail: first the part of the manual, then its tokens, texts and limits
// and how a mail waits, and at the end what an SMTP server gets, and what a bad one does not
// get. The mails of the worlds go to a terminal; "mail reset as r" waits 200 ms and keeps the
// token of the newest link for a reset.

const (
	verified = `POST /request-verify-token as john ; mail verify as verify ; POST /verify {"token":"$verify"} ; `
	asked    = verified + `POST /forgot-password {"username":"johndoe"} ; mail reset as reset ; `
	reset    = `POST /reset-password {"token":"$reset","new_password":"a new password"}`
	handed   = `POST /users/1/reset-link as admin ; keep link as reset ; `
	mails    = " ; wait 200ms ; GET /docs/mail.json"
)

var (
	mailOff = refusal(404, "mail_off", "This server sends no mail: it was started without -mail")
	badLink = refusal(400, "invalid_mail_token", "The link is not valid: it was used, has expired or is broken")

	verifyMail = linkMail("verify", "johndoe@example.com", "johndoe", "http://127.0.0.1:8000/docs#verify=$verify")
	resetMail  = linkMail("reset", "johndoe@example.com", "johndoe", "http://127.0.0.1:8000/docs#reset=$reset")
)

func TestForgotPassword(t *testing.T) {
	const forgot = `POST /forgot-password {"username":"johndoe"}`
	checkRules(t, []apiRule{
		{"a user who forgot a password asks for a link", verified + forgot, "202"},
		{"the link is sent to the verified address", asked + "GET /docs/mail.json", shownMails(verifyMail, resetMail)},
		{"the link leads to -mail-link", "restart -mail-link=https://app.example.com/account ; " + asked + "GET /docs/mail.json", shownMails(
			linkMail("verify", "johndoe@example.com", "johndoe", "https://app.example.com/account#verify=$verify"),
			linkMail("reset", "johndoe@example.com", "johndoe", "https://app.example.com/account#reset=$reset"))},
		{"without -mail-link it leads to the page of -public-url",
			"restart -public-url=https://id.example.com ; POST /request-verify-token as john ; mail verify as verify ; GET /docs/mail.json",
			shownMails(linkMail("verify", "johndoe@example.com", "johndoe", "https://id.example.com/docs#verify=$verify"))},
		{"the username may be in any case, with spaces around it", verified + `POST /forgot-password {"username":" JohnDOE "} ; mail reset as reset ; GET /docs/mail.json`,
			shownMails(verifyMail, resetMail)},
		{"an address that is not verified gets the same response", forgot, "202"},
		{"an address that is not verified gets no mail", forgot + mails, shownMails()},
		{"an unknown username gets the same response", `POST /forgot-password {"username":"nobody"}`, "202"},
		{"an invalid username gets the same response", `POST /forgot-password {"username":"no body"}`, "202"},
		{"an empty username gets the same response", `POST /forgot-password {"username":""}`, "202"},
		{"a user without an address gets the same response", `POST /forgot-password {"username":"jane"}`, "202"},
		{"a disabled account gets the same response", `POST /forgot-password {"username":"dora"}`, "202"},
		{"a disabled account gets no mail", verified + `PATCH /users/1 as admin {"disabled":true} ; ` + forgot + mails, shownMails(verifyMail)},
		{"a deleted account gets the same response", `POST /forgot-password {"username":"dave"}`, "202"},
		{"a request for a link does not end the current password", asked + "POST /token username=johndoe&password=secret", tokens},
		{"a second mail within a minute is dropped without a word", asked + "wait 59s ; " + forgot + mails, shownMails(verifyMail, resetMail)},
		{"a username is required", `POST /forgot-password {}`, invalidFields("username is required")},
		{"an email address is no username", `POST /forgot-password {"email":"johndoe@example.com"}`, invalidFields("email is not a field of this request", "username is required")},
		{"a store that cannot be read does not change the response", "store vanishes ; " + forgot, "202"},
		{"without -mail there are no links", "restart -demo=false ; " + forgot, mailOff},
		{"only demo servers show mail", "restart -demo=false -mail=terminal ; GET /docs/mail.json", notFound},
	})
}

// TestForgotPasswordWithoutTheStore: the response has gone, so the fault is in the log.
func TestForgotPasswordWithoutTheStore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.do(`POST /forgot-password {"username":"nobody"} ; POST /forgot-password {"username":"johndoe"} ; wait 200ms`)
		w.wantLog("level=ERROR", 0)
		w.do(`store vanishes ; POST /forgot-password {"username":"johndoe"} ; wait 200ms`)
		w.wantLog(`level=ERROR msg="request failed"`, 1)
	})
}

func TestResetByMail(t *testing.T) {
	const (
		proxied = "restart -demo=false -trusted-proxy=10.0.0.0/8 ; POST /users/1/reset-link as admin"
		named   = `with "X-Forwarded-Proto: https" with "X-Forwarded-Host: id.example.com"`
	)
	badPassword := func(message string) string { return invalidFields("new_password " + message) }
	checkRules(t, []apiRule{
		{"a link sets a new password", asked + reset, "204"},
		{"the new password is that of the account", asked + reset + " ; POST /token username=johndoe&password=a+new+password", tokens},
		{"the old password is not", asked + reset + " ; POST /token username=johndoe&password=secret", wrongLogin},
		{"a reset ends every session", asked + reset + " ; GET /users/me/ as john", badToken},
		{"a reset ends every refresh token", asked + reset + " ; " + refresh, wrongRefresh},
		{"a link works once", asked + reset + " ; " + reset, badLink},
		{"a link works for an hour", asked + "wait 59m59s ; " + reset, "204"},
		{"a link has expired after an hour", asked + "wait 1h ; " + reset, badLink},
		{"a change of the password ends a link", asked + `PUT /users/me/password as john {"current_password":"secret","new_password":"another password"} ; ` + reset, badLink},
		{"a password that an admin sets ends a link", asked + `PUT /users/1/password as admin {"new_password":"another password"} ; ` + reset, badLink},
		{"another address ends a link", asked + `PATCH /users/me/ as john {"email":"other@example.com","current_password":"secret"} ; ` + reset, badLink},
		{"a link of a deleted account does not work", asked + "DELETE /users/1 as admin ; " + reset, badLink},
		{"a link of a disabled account gets the error inactive_user", asked + `PATCH /users/1 as admin {"disabled":true} ; ` + reset, inactive},
		{"a link works again after its account was enabled", asked + `PATCH /users/1 as admin {"disabled":true} ; PATCH /users/1 as admin {"disabled":false} ; ` + reset, "204"},
		{"two links work until one is used",
			asked + "wait 1m ; " + `POST /forgot-password {"username":"johndoe"} ; ` + `mail reset as second ; ` + reset + ` ; ` +
				`POST /reset-password {"token":"$second","new_password":"a new password"}`,
			badLink},
		{"a token that is none is refused", `POST /reset-password {"token":"x","new_password":"a new password"}`, badLink},
		{"an empty token is refused", `POST /reset-password {"token":"","new_password":"a new password"}`, badLink},
		{"a token to verify an address is refused", verified + `POST /reset-password {"token":"$verify","new_password":"a new password"}`, badLink},
		{"an access token is refused", `POST /reset-password {"token":"$john","new_password":"a new password"}`, badLink},
		{"a refresh token is refused", `POST /reset-password {"token":"$john.refresh","new_password":"a new password"}`, badLink},
		{"a link is no access token", asked + "GET /users/me/ as reset", badToken},
		{"a link is no refresh token", asked + "POST /token grant_type=refresh_token&refresh_token=$reset", wrongRefresh},

		{"a new password follows the rules", asked + `POST /reset-password {"token":"$reset","new_password":"short"}`, badPassword("must be at least 8 characters long")},
		{"a new password must not contain the username", asked + `POST /reset-password {"token":"$reset","new_password":"my name is JohnDoe"}`, badPassword("must not contain the username")},
		{"a new password that is refused does not use up the link", asked + `POST /reset-password {"token":"$reset","new_password":"short"} ; ` + reset, "204"},
		{"the rules of a password are not shown without a valid link", `POST /reset-password {"token":"x","new_password":"short"}`, badLink},
		{"nor with a link that was used", asked + reset + ` ; POST /reset-password {"token":"$reset","new_password":"short"}`, badLink},
		{"both fields are required", `POST /reset-password {}`, invalidFields("token is required", "new_password is required")},
		{"a reset forgets failed logins", asked + "repeat 5 POST /token username=johndoe&password=wrong ; " + reset + " ; POST /token username=johndoe&password=a+new+password", tokens},
		{"a login with the old password fails if a link sets a new one meanwhile", asked + "begin " + login + " ; " + reset + " ; end", wrongLogin},
		{"a reset gets a 503 if the store cannot write, and the link still works", asked + "store fails ; " + reset + " ; store works ; " + reset, "204"},
		{"a reset gets a 503 if too many passwords are being checked", asked + "queue fills ; " + reset, tooBusy},
		{"a link works after a restart", asked + "restart ; " + reset, "204"},
		{"a link of the previous key works", asked + "restart SECRET_KEY=another-key-of-thirty-two-bytes-or-more SECRET_KEY_PREVIOUS=" + testKey + " ; " + reset, "204"},
		{"a link of a key that is gone does not", asked + "restart SECRET_KEY=another-key-of-thirty-two-bytes-or-more ; " + reset, badLink},

		{"an admin makes a link to hand over", "POST /users/1/reset-link as admin", `201
{"link":"http://127.0.0.1:8000/docs#reset=<mail token>","expires_at":"2000-01-02T00:00:00Z"}`},
		{"a link that an admin made sets a new password", handed + reset, "204"},
		{"a link that an admin made works for a day", handed + "wait 23h59m59s ; " + reset, "204"},
		{"a link that an admin made has expired after a day", handed + "wait 24h ; " + reset, badLink},
		{"a link that an admin made verifies nothing", handed + reset + " ; POST /token username=johndoe&password=a+new+password ; keep access_token as new ; GET /users/me/ as new", "200\n" + john},
		{"an admin's link works without -mail", "restart -demo=false ; " + handed + reset, "204"},
		{"a user without an address gets a link from an admin", "POST /users/3/reset-link as admin", `201
{"link":"http://127.0.0.1:8000/docs#reset=<mail token>","expires_at":"2000-01-02T00:00:00Z"}`},
		{"an admin makes no link for their own account", "POST /users/2/reset-link as admin", ownPassword},
		{"a trusted proxy says where an admin's link leads", proxied + ` from 10.0.0.1 ` + named, `201
{"link":"https://id.example.com/docs#reset=<mail token>","expires_at":"2000-01-02T00:00:00Z"}`},
		{"a stranger does not say where an admin's link leads", proxied + ` from 192.0.2.7 ` + named, `201
{"link":"http://127.0.0.1:8000/docs#reset=<mail token>","expires_at":"2000-01-02T00:00:00Z"}`},
		{"an admin's link leads to -mail-link, whatever a trusted proxy says", strings.Replace(proxied, " ; ", " -mail-link=https://app.example.com/account ; ", 1) + ` from 10.0.0.1 ` + named, `201
{"link":"https://app.example.com/account#reset=<mail token>","expires_at":"2000-01-02T00:00:00Z"}`},
		{"there is no link for an unknown account", "POST /users/99/reset-link as admin", notFound},
	})
}

// TestResetLinkWithoutAnAddress: a server that listens on no loopback address, without
// -public-url, makes no link that leads nowhere.
func TestResetLinkWithoutAnAddress(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		const call = "POST /users/1/reset-link as admin from 10.0.0.1"
		w.restart("-demo=false", "-trusted-proxy=10.0.0.0/8")
		w.server.PublicURL = ""
		w.want("without an address", call, refusal(404, "not_found", "The server does not know its address: it was started without -public-url"))
		w.want("a trusted proxy names one", call+` with "X-Forwarded-Proto: https" with "X-Forwarded-Host: id.example.com"`, `201
{"link":"https://id.example.com/docs#reset=<mail token>"...`)
		w.server.Mail.Link = "https://app.example.com/account"
		w.want("-mail-link is one", call, `201
{"link":"https://app.example.com/account#reset=<mail token>"...`)
	})
}

func TestVerifiedAddress(t *testing.T) {
	const verify = `POST /verify {"token":"$verify"}`
	yes := func(user string) string {
		return "200\n" + strings.Replace(user, `"email_verified":false`, `"email_verified":true`, 1)
	}
	checkMe := " ; GET /users/me/ as john"
	const newMail = `PATCH /users/me/ as john {"email":"j@example.com","current_password":"secret"}`
	other := strings.Replace(john, "johndoe@example.com", "j@example.com", 1)
	checkRules(t, []apiRule{
		{"a user asks for a link", "POST /request-verify-token as john", "202"},
		{"the link verifies the address", `POST /request-verify-token as john ; mail verify as verify ; ` + verify, "204"},
		{"a verified address shows in the account", verified + "GET /users/me/ as john", yes(john)},
		{"a link may be used twice", verified + verify, "204"},
		{"a link works for a day", "POST /request-verify-token as john ; mail verify as verify ; wait 23h59m59s ; " + verify, "204"},
		{"a link has expired after a day", "POST /request-verify-token as john ; mail verify as verify ; wait 24h ; " + verify, badLink},
		{"a link for a reset verifies nothing", asked + `POST /verify {"token":"$reset"}`, badLink},
		{"an access token verifies nothing", `POST /verify {"token":"$john"}`, badLink},
		{"a token is required", `POST /verify {}`, invalidFields("token is required")},
		{"a link of a disabled account gets the error inactive_user", `POST /request-verify-token as john ; mail verify as verify ; PATCH /users/1 as admin {"disabled":true} ; ` + verify, inactive},
		{"a link of a deleted account does not work", `POST /request-verify-token as john ; mail verify as verify ; DELETE /users/1 as admin ; ` + verify, badLink},
		{"a verified user gets no second link", verified + "wait 2m ; POST /request-verify-token as john" + mails, shownMails(verifyMail)},
		{"a user without an address gets no link", "POST /request-verify-token as jane" + mails, shownMails()},
		{"without -mail no link is sent", "restart -demo=false ; POST /request-verify-token as john", mailOff},
		{"without -mail no link is taken", `POST /request-verify-token as john ; mail verify as verify ; restart -demo=false ; ` + verify, mailOff},

		{"registering with an address sends a link", `POST /users/ {"username":"alice","password":"correct horse","email":"alice@example.com"} ; mail verify as verify ; GET /docs/mail.json`,
			shownMails(linkMail("verify", "alice@example.com", "alice", "http://127.0.0.1:8000/docs#verify=$verify"))},
		{"an account without an address gets no mail", register + mails, shownMails()},
		{"changing the address clears its verification", verified + newMail, "200\n" + other},
		{"the old address is told", verified + `PATCH /users/me/ as john {"email":null,"current_password":"secret"} ; wait 200ms ; GET /docs/mail.json`,
			shownMails(verifyMail, noticeMail("johndoe@example.com", "johndoe", "email address"))},
		{"the new address gets a link, and an old one that was not verified is not told", newMail + ` ; mail verify as second ; GET /docs/mail.json`,
			shownMails(linkMail("verify", "j@example.com", "johndoe", "http://127.0.0.1:8000/docs#verify=$second"))},
		{"a link for the old address does not verify the new one", "POST /request-verify-token as john ; mail verify as verify ; " + newMail + " ; " + verify, badLink},
		{"the same address stays verified", verified + `PATCH /users/me/ as john {"email":"johndoe@example.com","current_password":"secret"}`, yes(john)},
		{"an admin changes the address of a user", verified + `PATCH /users/1 as admin {"email":"j@example.com"}`, "200\n" + other},
		{"nobody verifies an address with a patch", `PATCH /users/1 as admin {"email_verified":true}`, invalidFields("email_verified is not a field of this request")},

		{"a new address needs the current password", `PATCH /users/me/ as john {"email":"j@example.com"}`, invalidFields("current_password is required to change the email address")},
		{"so does no address", `PATCH /users/me/ as john {"email":null}`, invalidFields("current_password is required to change the email address")},
		{"a new address with a wrong password is refused", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"}` + checkMe, "200\n" + john},
		{"a wrong password for a new address gets the error incorrect_password", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"}`, wrongPassword},
		{"it counts as a failed login", `repeat 5 PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"} ; ` + newMail,
			refusal(429, "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
		{"a new full name needs no password", `PATCH /users/me/ as john {"full_name":"John"}`, "200\n" + strings.Replace(john, "John Doe", "John", 1)},
		{"a password that is given is checked", `PATCH /users/me/ as john {"full_name":"John","current_password":"wrong"}`, wrongPassword},
		{"without -mail a new address needs no password", `restart -demo=false ; PATCH /users/me/ as john {"email":"j@example.com"}`, "200\n" + other},
		{"an admin changes their own address with their password only", `PATCH /users/2 as admin {"email":"b@example.com"}`,
			refusal(403, "own_account", "Change your own email address at /users/me/, with your password")},
		{"an admin changes their own name without it", `PATCH /users/2 as admin {"full_name":"Boss"}`, "200\n" + strings.Replace(boss, "Admin User", "Boss", 1)},
	})
}

// TestNotices: the owner of a verified address is told when the password has changed.
func TestNotices(t *testing.T) {
	notice := noticeMail("johndoe@example.com", "johndoe", "password")
	const change = `PUT /users/me/password as john {"current_password":"secret","new_password":"another password"}`
	checkRules(t, []apiRule{
		{"a reset is told to the verified address", asked + reset + mails, shownMails(verifyMail, resetMail, notice)},
		{"so is a change of the password", verified + change + mails, shownMails(verifyMail, notice)},
		{"so is a password that an admin sets", verified + `PUT /users/1/password as admin {"new_password":"another password"}` + mails, shownMails(verifyMail, notice)},
		{"the address of the client is in it", verified + strings.Replace(change, "as john", "as john from 203.0.113.9", 1) + mails,
			strings.Replace(shownMails(verifyMail, notice), "192.0.2.1", "203.0.113.9", 1)},
		{"an address that is not verified is told nothing", change + mails, shownMails()},
		{"the old address is told of a new one, right after a change of the password",
			verified + change + " ; wait 200ms ; POST /token username=johndoe&password=another+password ; keep access_token as new ; " +
				`PATCH /users/me/ as new {"email":null,"current_password":"another password"}` + mails,
			shownMails(verifyMail, notice, noticeMail("johndoe@example.com", "johndoe", "email address"))},
		{"a second change of the password within a minute is not told",
			verified + change + ` ; wait 200ms ; PUT /users/1/password as admin {"new_password":"a third password"}` + mails, shownMails(verifyMail, notice)},
		{"a wrong password tells nothing", verified + `PUT /users/me/password as john {"current_password":"wrong","new_password":"another password"}` + mails, shownMails(verifyMail)},
		{"a link that does not work tells nothing", verified + `POST /reset-password {"token":"x","new_password":"a new password"}` + mails, shownMails(verifyMail)},
	})
}

var testClient = netip.MustParseAddr("192.0.2.1")

var mailUser = User{ID: 1, Username: "johndoe", Email: "johndoe@example.com", Role: RoleUser, Epoch: 3}

func TestMailTokens(t *testing.T) {
	expires := testNow.Add(time.Hour)
	change := func(f func(*User)) User { u := mailUser; f(&u); return u }
	for _, test := range []struct {
		rule          string
		u             User // as it is now
		at            time.Duration
		reset, verify bool // whether its token is good
	}{
		{"a token is good for the account it was made for", mailUser, 0, true, true},
		{"a token is good until it expires", mailUser, time.Hour - time.Second, true, true},
		{"a token has expired at its expiry", mailUser, time.Hour, false, false},
		{"a new password ends a token for a reset", change(func(u *User) { u.SetPassword("x") }), 0, false, true},
		{"a new address ends both", change(func(u *User) { u.Email = "other@example.com" }), 0, false, false},
		{"an address that was removed ends both", change(func(u *User) { u.Email = "" }), 0, false, false},
		{"an address in another case is another address", change(func(u *User) { u.Email = "JohnDoe@example.com" }), 0, false, false},
		{"epoch and address do not run into each other", change(func(u *User) { u.Epoch = 0; u.Email = "3 johndoe@example.com" }), 0, false, false},
		{"a disabled account can use neither", change(func(u *User) { u.Disabled = true }), 0, false, false},
		{"a verified address can be verified again", change(func(u *User) { u.EmailVerified = !u.EmailVerified }), 0, true, true},
		{"a name or a role is not part of a token", change(func(u *User) { u.FullName, u.Role = "John", RoleAdmin }), 0, true, true},
	} {
		for p, want := range map[purpose]bool{resetting: test.reset, verifying: test.verify} {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(testNow.Add(test.at)))
				id, check, err := testTokens().VerifyMail(p, testTokens().SignMail(p, mailUser, expires))
				if id != mailUser.ID || err != nil {
					t.Fatalf("%s: VerifyMail() = %d, %v", test.rule, id, err)
				}
				wantAccepted(t, test.rule+", for "+string(p), check(test.u), want)
			})
		}
	}
}

func TestAttackMailTokenAsAnotherKind(t *testing.T) {
	expires := testNow.Add(time.Hour)
	reset, verify := testTokens().SignMail(resetting, mailUser, expires), testTokens().SignMail(verifying, mailUser, expires)
	refresh := testTokens().SignRefresh(Claims{UserID: 1, SessionID: "S", Generation: expires.Unix()})
	for name, token := range map[string]string{"a reset token": reset, "a verify token": verify} {
		refuseAccess(t, name, token)
		refuseRefresh(t, name, token)
	}
	for _, test := range []struct {
		name, token string
		p           purpose
	}{
		{"a verify token for a reset", verify, resetting},
		{"a reset token to verify", reset, verifying},
		{"a refresh token for a reset", refresh, resetting},
		{"a refresh token to verify", refresh, verifying},
		{"an access token for a reset", testTokens().SignAccess(johnClaims()), resetting},
		{"a reset token with another account", strings.Replace(reset, ".1.", ".2.", 1), resetting},
		{"a reset token with a later expiry", strings.Replace(reset, fmt.Sprint(expires.Unix()), fmt.Sprint(expires.Unix()+1), 1), resetting},
		{"a reset token of another server", NewTokens("stdauth", "another key of thirty-two bytes or so", "").SignMail(resetting, mailUser, expires), resetting},
		{"an empty token", "", resetting},
	} {
		_, _, err := testTokens().VerifyMail(test.p, test.token)
		wantErr(t, test.name, err, ErrMailToken)
	}
}

// TestAttackTextInHeader: nothing that a user chose is in the header. A text has the
// username, which is letters, digits and @ . + - _ alone.
func TestAttackTextInHeader(t *testing.T) {
	u := User{ID: 7, Username: "{link}", Email: "mallory@example.com", FullName: "Free.money\r\nBcc: all@example.com"}
	for _, kind := range []string{"reset", "verify", "notice"} {
		l := newLetter(kind, u, "{link}", "https://app.example.com/#reset=x", "{what}", "password", "{time}", "{client}", "{client}", "192.0.2.1")
		plain := newLetter(kind, mailUser)
		if l.Subject != plain.Subject || strings.ContainsAny(l.Subject, "{}\r\n") || l.To != u.Email {
			t.Errorf("%s: subject %q, to %q", kind, l.Subject, l.To)
		}
		if strings.Contains(l.Text, "money") || strings.Contains(l.Text, u.Email) {
			t.Errorf("the text has what the user typed:\n%s", l.Text)
		}
		if !strings.Contains(l.Text, "Hello {link},\n") {
			t.Errorf("a value was replaced in a value:\n%s", l.Text)
		}
		for line := range strings.Lines(plain.Text) {
			if !isASCII(line) || len(line) > 78+1 {
				t.Errorf("mail_%s.txt has the line %q", kind, line)
			}
		}
	}
}

func TestMailer(t *testing.T) {
	const ms, minute, hour = time.Millisecond, time.Minute, time.Hour
	refused := &textproto.Error{Code: 500, Msg: "johndoe@example.com is a syntax error"}
	later := &textproto.Error{Code: 451, Msg: "later"}
	broken := errors.New("connection reset")
	many := func(n int, every time.Duration) (at []time.Duration) {
		for i := range n {
			at = append(at, time.Duration(i)*every)
		}
		return at
	}
	for _, test := range []struct {
		rule    string
		send    []time.Duration // when letters of one kind are sent to the account
		results []error         // of the attempts; then nil
		want    string          // the log: when, and what
	}{
		{"a mail is sent at once", []time.Duration{0}, nil, "0s sent"},
		{"a refusal is final", []time.Duration{0}, []error{refused}, "0s failed: the server answered 500"},
		{"a mail that the server cannot take now is sent again", []time.Duration{0}, []error{later}, "5s sent"},
		{"so is a mail whose connection broke", []time.Duration{0}, []error{broken}, "5s sent"},
		{"the pauses grow", []time.Duration{0}, []error{later, broken, later}, "35s sent"},
		{"a refusal after a pause is final", []time.Duration{0}, []error{later, refused}, "5s failed: the server answered 500"},
		{"a mail is still tried again near the end of the ten minutes", []time.Duration{0}, slices.Repeat([]error{later}, 12), "9m15s sent"},
		{"after ten minutes a mail is given up", []time.Duration{0}, slices.Repeat([]error{later}, 13), "10m0s failed: the server answered 451"},
		{"an account gets one mail a minute", []time.Duration{0, minute - ms, minute}, nil, "0s sent, 59.999s dropped: too many, 1m0s sent"},
		{"an account gets five mails an hour", many(7, minute), nil, "0s sent, 1m0s sent, 2m0s sent, 3m0s sent, 4m0s sent, 5m0s dropped: too many, 6m0s dropped: too many"},
		{"a sixth mail is sent an hour after the first", append(many(5, minute), hour-minute-ms, hour), nil,
			"0s sent, 1m0s sent, 2m0s sent, 3m0s sent, 4m0s sent, 58m59.999s dropped: too many, 1h0m0s sent"},
		{"a mail that failed counts", []time.Duration{0, ms}, []error{refused}, "0s failed: the server answered 500, 1ms dropped: too many"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			inPost(t, func(p *post) {
				p.results = test.results
				for _, at := range test.send {
					time.Sleep(time.Until(p.start.Add(at)))
					p.Send(newLetter("reset", mailUser), testClient)
					synctest.Wait()
				}
				time.Sleep(hour)
				got := strings.ReplaceAll(strings.Join(p.reports(), ", "), "too many to one account or address", "too many")
				wantEqual(t, "the log", got, test.want)
				wantEqual(t, "the letters that wait at the end", p.Waiting(), 0)
			})
		})
	}
}

// TestMailLimits: which letters share a limit.
func TestMailLimits(t *testing.T) {
	first := newLetter("reset", mailUser)
	for _, test := range []struct {
		rule  string
		other *letter
		want  string
	}{
		{"another kind of mail to the same account has a limit of its own", &letter{kind: "notice", user: 1, To: "johndoe@example.com"}, "sent"},
		{"another account has a limit of its own", &letter{kind: "reset", user: 2, To: "jane@example.com"}, "sent"},
		{"another account with the same address shares its limit", &letter{kind: "reset", user: 2, To: "johndoe@example.com"}, "dropped"},
		{"so does one with the address in another case", &letter{kind: "reset", user: 2, To: "JohnDoe@Example.com"}, "dropped"},
		{"a new address of an account shares its limit", &letter{kind: "reset", user: 1, To: "other@example.com"}, "dropped"},
		{"an address with a line break gets no mail", &letter{kind: "reset", user: 2, To: "jane@example.com\r\nBcc: all@example.com"}, "dropped"},
		{"an account without an address gets no mail", &letter{kind: "reset", user: 2}, "dropped"},
	} {
		inPost(t, func(p *post) {
			p.Send(first, testClient)
			p.Send(test.other, testClient)
			synctest.Wait()
			got := p.reports()
			if len(got) == 2 && strings.Contains(got[0], "dropped") { // before the first was sent
				slices.Reverse(got)
			}
			if len(got) != 2 || got[0] != "0s sent" || !strings.HasPrefix(got[1], "0s "+test.want) {
				t.Errorf("%s: %q, want %s", test.rule, got, test.want)
			}
		})
	}
}

// TestMailThatIsRefusedDoesNotCount: somebody else has used up the mail of an address for
// this minute. A try in that time does not cost its owner the next minute.
func TestMailThatIsRefusedDoesNotCount(t *testing.T) {
	inPost(t, func(p *post) {
		p.Send(newLetter("reset", User{ID: 2, Username: "jane", Email: mailUser.Email}), testClient)
		for range 2 {
			time.Sleep(mailInterval / 2)
			p.Send(newLetter("reset", mailUser), testClient)
		}
		synctest.Wait()
		wantEqual(t, "the log", strings.Join(p.reports(), ", "), "0s sent, 30s dropped: too many to one account or address, 1m0s sent")
	})
}

// TestAttackMailBomb: one client, or many, ask for mail as fast as they can.
func TestAttackMailBomb(t *testing.T) {
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	for _, test := range []struct {
		attack       string
		from         func(i int) netip.Addr
		user         func(i int) User
		letters      int // of 600, that wait at most
		victimWaits  bool
		sentToVictim int
	}{
		{"one account from one address", func(int) netip.Addr { return testClient }, func(int) User { return mailUser }, 1, true, 1},
		{"one account from 300 addresses", func(i int) netip.Addr { return client(i % 300) }, func(int) User { return mailUser }, 1, true, 1},
		{"600 accounts from one address", func(int) netip.Addr { return testClient }, numberedMailUser, 128, true, 1},
		{"600 accounts from 300 addresses", func(i int) netip.Addr { return client(i % 300) }, numberedMailUser, maxMails, false, 0},
		{"600 accounts with one address", func(i int) netip.Addr { return client(i % 300) }, func(i int) User { u := numberedMailUser(i); u.Email = "victim@example.com"; return u }, 1, true, 1},
	} {
		inPost(t, func(p *post) {
			p.hang = true // the queue must hold them all
			for i := range 600 {
				p.Send(newLetter("reset", test.user(i)), test.from(i))
			}
			synctest.Wait()
			if p.Waiting() > test.letters || p.Waiting() < min(test.letters, maxMails-1) {
				t.Errorf("%s: %d letters wait, want %d", test.attack, p.Waiting(), test.letters)
			}
			before := p.Waiting()
			p.Send(newLetter("reset", User{ID: 1000, Username: "jane", Email: "jane@example.com"}), client(1000))
			wantEqual(t, test.attack+": a mail of somebody else is taken", p.Waiting() > before, test.victimWaits)
		})
	}
}

// TestLetterThatFindsNoPlace: a letter that the full queue refuses does not count for its
// account, which gets its mail when there is room again.
func TestLetterThatFindsNoPlace(t *testing.T) {
	inPost(t, func(p *post) {
		p.takes = time.Millisecond
		for i := range maxMails/2 + 1 {
			p.Send(newLetter("reset", numberedMailUser(i)), testClient)
		}
		time.Sleep(time.Second)
		p.Send(newLetter("reset", numberedMailUser(maxMails/2)), testClient)
		time.Sleep(time.Second)
		if got := p.reports(); len(got) != maxMails/2+2 || got[0] != "0s dropped: too many mails wait" || got[len(got)-1] != "1.001s sent" {
			t.Errorf("the log says %q, want one mail dropped, and sent when it is asked for again", got)
		}
	})
}

// TestRequestsForMailAreShared: too many requests are refused, whether there are accounts
// or not, and however many letters wait.
func TestRequestsForMailAreShared(t *testing.T) {
	for _, known := range []bool{false, true} {
		inPost(t, func(p *post) {
			p.hang = true
			taken := 0
			for i := range 300 {
				err := p.Later(testClient, func(context.Context) {
					if known {
						p.Send(newLetter("reset", numberedMailUser(i)), testClient)
					}
				})
				if err == nil {
					taken++
				} else if !errors.Is(err, ErrMailBusy) {
					t.Errorf("Later() = %v, want ErrMailBusy", err)
				}
			}
			wantEqual(t, fmt.Sprintf("the requests that one client may have wait, with accounts: %v", known), taken, maxMails/2)
			time.Sleep(mailDelay)
			synctest.Wait()
			for taken = 0; p.Later(testClient, func(context.Context) {}) == nil; {
				taken++
			}
			wantEqual(t, fmt.Sprintf("the requests that one client may have wait, with accounts: %v", known), taken, maxMails/2)
			time.Sleep(time.Second)
		})
	}
}

// TestLookUpComesAfterTheAnswer: what Later does takes no time of the request.
func TestLookUpComesAfterTheAnswer(t *testing.T) {
	inPost(t, func(p *post) {
		var done atomic.Bool
		p.Later(testClient, func(context.Context) { done.Store(true) })
		time.Sleep(mailDelay - 1)
		synctest.Wait()
		if done.Load() {
			t.Error("the look-up came before the answer can have gone")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !done.Load() {
			t.Error("the look-up did not come")
		}
	})
}

func TestMailerStops(t *testing.T) {
	two := func(p *post) {
		p.Send(newLetter("reset", mailUser), testClient)
		p.Send(newLetter("verify", mailUser), testClient)
	}
	for _, test := range []struct {
		rule  string
		begin func(p *post)
		after time.Duration
		want  []string
	}{
		{"a mail that is being sent is finished", func(p *post) { p.takes = 4999 * time.Millisecond; two(p) }, 0, []string{"4.999s sent", "9.998s sent"}},
		{"a request that was answered is still looked up", func(p *post) {
			p.Later(testClient, func(context.Context) { p.Send(newLetter("reset", mailUser), testClient) })
		}, 0, []string{"100ms sent"}},
		{"a mail that waits for its next attempt is dropped", func(p *post) {
			p.results = []error{errors.New("connection refused")}
			p.Send(newLetter("reset", mailUser), testClient)
		}, time.Second, []string{"1s dropped: connection refused"}},
		{"a server that hangs delays the end by the grace period at most", func(p *post) { p.hang = true; two(p) }, 0,
			[]string{"10s dropped: context canceled", "10s dropped: context canceled"}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			inPost(t, func(p *post) {
				test.begin(p)
				synctest.Wait()
				time.Sleep(test.after)
				ctx, cancel := context.WithTimeout(context.Background(), gracePeriod)
				defer cancel()
				p.Stop(ctx)
				wantEqual(t, "the log", p.reports(), test.want)
			})
		})
	}
}

func TestParseMail(t *testing.T) {
	const server, from, link = "smtp://user@mail.example.com:587", "Example <no-reply@example.com>", "https://app.example.com/account"
	for _, test := range []struct {
		rule string
		c    MailConfig
		want string // the setting that is named, or empty
	}{
		{"no mail needs no settings", MailConfig{}, ""},
		{"the terminal needs no settings", MailConfig{Target: "terminal"}, ""},
		{"a link without mail is for an admin's reset links", MailConfig{Link: link}, ""},
		{"an SMTP server with all it needs", MailConfig{server, from, link, "secret"}, ""},
		{"a server without a user needs no password", MailConfig{"smtp://127.0.0.1:25", from, link, ""}, ""},
		{"a server without a port", MailConfig{"smtps://mail.example.com", from, link, ""}, ""},
		{"a user with an @", MailConfig{"smtps://me@example.com@mail.example.com", from, link, "secret"}, ""},
		{"a sender without a name", MailConfig{server, "no-reply@example.com", link, "secret"}, ""},
		{"a sender with a name that is not ASCII", MailConfig{server, "Café <no-reply@example.com>", link, "secret"}, ""},
		{"a link with a query", MailConfig{server, from, "http://localhost:3000/?page=account", "secret"}, ""},

		{"another scheme", MailConfig{"http://mail.example.com", from, link, ""}, "-mail"},
		{"a server without a scheme", MailConfig{"mail.example.com:587", from, link, ""}, "-mail"},
		{"a URL without a host", MailConfig{"smtp://:587", from, link, ""}, "-mail"},
		{"a URL with a path", MailConfig{"smtp://mail.example.com/inbox", from, link, ""}, "-mail"},
		{"a URL that is not one", MailConfig{"smtp://%zz", from, link, ""}, "-mail"},
		{"a word", MailConfig{"on", from, link, ""}, "-mail"},
		{"a password in the URL", MailConfig{"smtp://user:secret@mail.example.com", from, link, "secret"}, "-mail"},
		{"a user without a password", MailConfig{server, from, link, ""}, "MAIL_PASSWORD"},
		{"a password without a user", MailConfig{"smtp://mail.example.com", from, link, "secret"}, "MAIL_PASSWORD"},
		{"a server without a sender", MailConfig{server, "", link, "secret"}, "-mail-from"},
		{"a sender without an address", MailConfig{server, "Example", link, "secret"}, "-mail-from"},
		{"two senders", MailConfig{server, "a@example.com, b@example.com", link, "secret"}, "-mail-from"},
		{"a sender with a line break", MailConfig{server, "\"Example\r\nBcc: all\" <no-reply@example.com>", link, "secret"}, "-mail-from"},
		{"a sender whose address is too long", MailConfig{server, strings.Repeat("a", 250) + "@example.com", link, "secret"}, "-mail-from"},
		{"a sender whose address is not ASCII", MailConfig{server, "café@example.com", link, "secret"}, "-mail-from"},
		{"a server without a link", MailConfig{server, from, "", "secret"}, "-mail-link"},
		{"a link without a host", MailConfig{server, from, "/account", "secret"}, "-mail-link"},
		{"a link that runs code", MailConfig{server, from, "javascript://x/", "secret"}, "-mail-link"},
		{"a link with a fragment", MailConfig{server, from, "https://app.example.com/#", "secret"}, "-mail-link"},
		{"a link with a space", MailConfig{server, from, "https://app.example.com/my account", "secret"}, "-mail-link"},
		{"a link that is not ASCII", MailConfig{server, from, "https://app.example.com/é", "secret"}, "-mail-link"},
	} {
		_, setting, err := parseMail(test.c)
		if setting != test.want || (err != nil) != (test.want != "") {
			t.Errorf("%s: parseMail() = %q, %v; want %q", test.rule, setting, err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "%zz")) {
			t.Errorf("%s: the error quotes the value: %v", test.rule, err)
		}
	}
}

func TestPrinterShowsAMailAsAPersonReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &printer{w: &out}
		for i := range maxPrinted + 5 {
			out.Reset()
			u := numberedMailUser(i)
			noError(t, p.deliver(t.Context(), newLetter("verify", u, "{link}", "http://localhost:8000/docs#verify=x")))
		}
		text := linkMail("verify", "user24@example.com", "user24", "http://localhost:8000/docs#verify=x")[2]
		line := strings.Repeat("-", 72)
		wantEqual(t, "the terminal shows", out.String(), "\n"+line+"\nTo: user24@example.com\nSubject: Confirm your email address\n\n"+text+line+"\n\n")
		if len(p.newest) != maxPrinted || p.newest[0].To != "user5@example.com" {
			t.Errorf("%d mails are kept, the first to %s; want the newest %d", len(p.newest), p.newest[0].To, maxPrinted)
		}
		shown, err := json.Marshal(p.newest[maxPrinted-1])
		wantEqual(t, "the page shows", string(shown), fmt.Sprintf(`{"to":"user24@example.com","subject":"Confirm your email address","text":%q,"sent_at":"2000-01-01T00:00:00Z"}`, text))
		wantErr(t, "the letter in JSON", err, nil)
	})
}

// TestPrinterWithoutATerminal: standard output is closed, so each letter is tried again and
// again. The page shows it once.
func TestPrinterWithoutATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		r.Close()
		m := startMail(MailConfig{Target: mailTerminal}, w, slog.New(slog.DiscardHandler), func(string) {})
		for i := range 2 {
			m.Send(newLetter("verify", numberedMailUser(i)), testClient)
		}
		time.Sleep(2 * mailPatience)
		var shown []string
		for _, l := range m.printed() {
			shown = append(shown, l.To)
		}
		slices.Sort(shown)
		wantEqual(t, "the page shows mails to", shown, []string{"user0@example.com", "user1@example.com"})
		m.Stop(t.Context())
	})
}

// TestMessage: the message is what RFC 5322 and RFC 2047 say, and the conversation what
// RFC 5321 says.
func TestMessage(t *testing.T) {
	atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
		l := newLetter("reset", mailUser, "{link}", "https://app.example.com/account#reset=token")
		l.Text += ".\n..a line that begins with a dot\nGrüße\n"
		noError(t, s.deliver(t.Context(), l))
		want := []string{
			"EHLO example.com", "STARTTLS", "EHLO example.com",
			"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00user\x00secret")),
			"MAIL FROM:<no-reply@example.com> BODY=8BITMIME", "RCPT TO:<johndoe@example.com>", "DATA", "QUIT",
		}
		wantEqual(t, "the server hears", f.heard, want)
		got := need(mail.ReadMessage(strings.NewReader(f.message)))(t)
		wantHeader := mail.Header{
			"From": {"=?utf-8?q?Caf=C3=A9?= <no-reply@example.com>"}, "To": {"<johndoe@example.com>"}, "Subject": {"Set a new password"},
			"Date": {"Sat, 01 Jan 2000 00:00:00 +0000"}, "Message-Id": {"<" + l.id + "@example.com>"}, "Mime-Version": {"1.0"},
			"Content-Type": {"text/plain; charset=utf-8"}, "Content-Transfer-Encoding": {"8bit"}, "Auto-Submitted": {"auto-generated"},
		}
		wantEqual(t, "the header", got.Header, wantHeader)
		wantEqual(t, "the body", string(need(io.ReadAll(got.Body))(t)), strings.ReplaceAll(l.Text, "\n", "\r\n"))
		wantEqual(t, "the sender", need(new(mime.WordDecoder).DecodeHeader(got.Header.Get("From")))(t), "Café <no-reply@example.com>")
	})
}

// TestDelivery: what a server does, and what comes of it. Whatever it does, it gets a
// password and a letter only under TLS, with a certificate of its name.
func TestDelivery(t *testing.T) {
	type delivery struct {
		rule   string
		server func(s *smtpServer, f *fakeSMTP)
		want   string // the reason in the log, or "sent"
		within time.Duration
	}
	rules := []delivery{
		{"a server with STARTTLS takes a mail", func(*smtpServer, *fakeSMTP) {}, "sent", 0},
		{"so does one with TLS from the start", func(s *smtpServer, f *fakeSMTP) { s.implicit, f.implicit = true, true }, "sent", 0},
		{"a server that needs no password is asked for no login", func(s *smtpServer, f *fakeSMTP) { s.user = ""; f.answers["AUTH"] = "drop" }, "sent", 0},
		{"a server on this machine needs no TLS without a password", func(s *smtpServer, f *fakeSMTP) { s.user, s.host, f.noTLS = "", "127.0.0.1", true }, "sent", 0},
		{"a server that answers QUIT with an error has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "500 what?" }, "sent", 0},
		{"a server that drops the connection at QUIT has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "drop" }, "sent", 0},
		{"a server that hangs at QUIT has the mail", func(_ *smtpServer, f *fakeSMTP) { f.answers["QUIT"] = "hang" }, "sent", 10 * time.Second},

		{"a server without STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.noTLS = true }, "the server does not offer STARTTLS", 0},
		{"a server on this machine without STARTTLS gets the mail, but not the password", func(s *smtpServer, f *fakeSMTP) { s.host, f.noTLS, f.answers["AUTH"] = "localhost", true, "drop" }, "sent", 0},
		{"a server on this machine with STARTTLS is asked for the login", func(s *smtpServer, f *fakeSMTP) { s.host, f.answers["AUTH"] = "localhost", "535 wrong" }, "the server answered 535", 0},
		{"a server without STARTTLS that needs no password gets nothing", func(s *smtpServer, f *fakeSMTP) { s.user, f.noTLS = "", true }, "the server does not offer STARTTLS", 0},
		{"a server that refuses STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.answers["STARTTLS"] = "454 not now" }, "the server answered 454", 0},
		{"a server that goes on in clear after STARTTLS gets nothing", func(_ *smtpServer, f *fakeSMTP) { f.clearTLS = true }, "tls: first record does not look like a TLS handshake", 0},
		{"a certificate of another name is refused", func(s *smtpServer, _ *fakeSMTP) { s.config.ServerName = "example.org" },
			"x509: certificate is valid for example.com, *.example.com, not example.org", 0},
		{"a certificate of nobody is refused", func(s *smtpServer, _ *fakeSMTP) { s.config.RootCAs = x509.NewCertPool() }, "x509: certificate signed by unknown authority", 0},
		{"an expired certificate is refused", func(*smtpServer, *fakeSMTP) { time.Sleep(100 * 365 * 24 * time.Hour) }, "x509: certificate has expired or is not yet valid", 0},
		{"answers that came before TLS do not count after it", func(_ *smtpServer, f *fakeSMTP) {
			f.answers["STARTTLS"] = "220 ready\r\n250 mail.example.com\r\n235 you are in"
		}, "sent", 0},
		{"TLS 1.1 is refused", func(_ *smtpServer, f *fakeSMTP) { f.config.MaxVersion = tls.VersionTLS11 }, "remote error: tls: protocol version not supported", 0},

		{"a wrong password is final", func(_ *smtpServer, f *fakeSMTP) { f.answers["AUTH"] = "535 wrong" }, "the server answered 535", 0},
		{"an unknown recipient is final", func(_ *smtpServer, f *fakeSMTP) { f.answers["RCPT"] = "550 johndoe@example.com is unknown" }, "the server answered 550", 0},
		{"a server that is busy is asked again", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "421 busy" }, "the server answered 421", 0},
		{"a refused message", func(_ *smtpServer, f *fakeSMTP) { f.answers["."] = "554 spam" }, "the server answered 554", 0},
		{"a server that drops the connection after the message", func(_ *smtpServer, f *fakeSMTP) { f.answers["."] = "drop" }, "EOF", 0},
		{"a server that speaks something else", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "johndoe@example.com HTTP/1.1 400" }, "the server does not speak SMTP", 0},
		{"an endless line", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "220 " + strings.Repeat("x", 1<<20) }, "EOF", 0},
		{"a million lines", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = strings.Repeat("220-x\r\n", 1<<17) }, "EOF", 0},
		{"an address that is not ASCII, at a server that knows only ASCII", func(_ *smtpServer, f *fakeSMTP) { f.to = "jürgen@example.com" }, "the server answered 553", 0},
		{"an address that is not ASCII, at a server that knows Unicode", func(_ *smtpServer, f *fakeSMTP) { f.to, f.unicode = "jürgen@example.com", true }, "sent", 0},

		{"a server that sends a byte a second", func(_ *smtpServer, f *fakeSMTP) { f.answers["greeting"] = "drip" }, "context deadline exceeded", smtpPatience},
		{"a server that cannot be reached", func(s *smtpServer, _ *fakeSMTP) {
			s.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, "context deadline exceeded", smtpPatience},
	}
	for _, step := range []string{"greeting", "EHLO", "STARTTLS", "TLS", "AUTH", "MAIL", "RCPT", "DATA", "message", "."} {
		hang := func(_ *smtpServer, f *fakeSMTP) { f.answers[step] = "hang" }
		rules = append(rules, delivery{"a server that hangs at " + step, hang, "context deadline exceeded", smtpPatience})
	}
	for _, test := range rules {
		t.Run(test.rule, func(t *testing.T) {
			atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
				f.to = "johndoe@example.com"
				test.server(s, f)
				start, got := time.Now(), "sent"
				l := newLetter("reset", User{ID: 1, Username: "johndoe", Email: f.to}, "{link}", "https://app.example.com/#reset=token")
				if err := s.deliver(t.Context(), l); err != nil {
					got = mailReason(err)
				}
				if !strings.Contains(got, test.want) || strings.Contains(got, "@") {
					t.Errorf("%q, want %q", got, test.want)
				}
				if took := time.Since(start); took > test.within {
					t.Errorf("it took %v, want %v at most", took, test.within)
				}
				synctest.Wait()
				if delivered := strings.Contains(f.message, "reset=token"); delivered != (test.want == "sent") && f.answers["."] == "" && f.answers["message"] == "" {
					t.Errorf("the server has the message: %v", delivered)
				}
				if i := slices.IndexFunc(f.inClear, func(line string) bool {
					return strings.HasPrefix(line, "AUTH") || !isLoopback(s.host) && strings.Contains(line, "example.com>")
				}); i >= 0 {
					t.Errorf("the server hears in clear: %q", f.inClear[i])
				}
			})
		})
	}
}

// TestDeliveryEndsWithItsContext: a server that hangs does not delay the end.
func TestDeliveryEndsWithItsContext(t *testing.T) {
	for _, step := range []string{"greeting", "TLS", "AUTH", "."} {
		atServer(t, func(t *testing.T, s *smtpServer, f *fakeSMTP) {
			f.answers[step] = "hang"
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			err := s.deliver(ctx, newLetter("reset", mailUser))
			if took := time.Since(start); err == nil || took != time.Second {
				t.Errorf("hanging at %s: deliver() = %v after %v, want an error after 1 s", step, err, took)
			}
		})
	}
}

// shownMails is what GET /docs/mail.json returns: each mail is address, kind and text.
func shownMails(mails ...[3]string) string {
	list := make([]string, len(mails))
	for i, m := range mails {
		subject := map[string]string{"verify": "Confirm your email address", "reset": "Set a new password", "notice": "Your account was changed"}[m[1]]
		text, _ := json.Marshal(m[2])
		list[i] = fmt.Sprintf(`{"to":%q,"subject":%q,"text":%s,"sent_at":"2000-01-01T00:00:00Z"}`, m[0], subject, text)
	}
	return "200\n[" + strings.Join(list, ",\n") + "]\n"
}

func linkMail(kind, to, username, link string) [3]string {
	text := "this address was given for your account. Open this link to confirm that it is\nyours:\n\n" + link +
		"\n\nIt works for one day. If you have no such account, ignore this mail: without\nthe link, the address is not used for anything.\n"
	if kind == "reset" {
		text = "somebody, probably you, asked for a new password for your account. Open this\nlink to choose one:\n\n" + link +
			"\n\nIt works once, and for one hour. If it was not you who asked, ignore this\nmail: nothing has changed.\n"
	}
	return [3]string{to, kind, "Hello " + username + ",\n\n" + text}
}

func noticeMail(to, username, what string) [3]string {
	return [3]string{to, "notice", "Hello " + username + ",\n\nthe " + what + " of your account was changed on 1 January 2000 at 00:00:00 UTC,\nfrom the client address 192.0.2.1.\n\n" +
		"If it was you, there is nothing to do. If it was not, somebody else may use\nyour account: tell the people who run this service.\n"}
}

func numberedMailUser(i int) User {
	return User{ID: int64(i + 2), Username: fmt.Sprint("user", i), Email: fmt.Sprintf("user%d@example.com", i)}
}

// A post is a Mailer whose letters go nowhere.
type post struct {
	*Mailer
	start   time.Time
	results []error       // of the next attempts; then nil
	takes   time.Duration // each attempt
	hang    bool          // each attempt lasts until the end

	log  printed
	mu   sync.Mutex
	busy bool
}

func inPost(t *testing.T, test func(p *post)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &post{start: time.Now()}
		p.Mailer = NewMailer(p, slog.New(slog.NewJSONHandler(&p.log, nil)), func(string) {})
		test(p)
		p.cancel()
		p.work.Wait()
	})
}

func (p *post) deliver(ctx context.Context, l *letter) error {
	p.mu.Lock()
	two := p.busy
	p.busy = true
	var err error
	if len(p.results) > 0 {
		err, p.results = p.results[0], p.results[1:]
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy = false
	}()
	if two {
		panic("two letters are delivered at once")
	}
	if p.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(p.takes)
	return err
}

// reports returns what the log says of letters: when, and what became of them.
func (p *post) reports() (reports []string) {
	for line := range strings.Lines(p.log.String()) {
		var said struct {
			Time        time.Time
			Mail, Error string
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			panic(err)
		}
		report := said.Time.Sub(p.start).String() + " " + said.Mail
		if said.Error != "" {
			report += ": " + said.Error
		}
		reports = append(reports, report)
	}
	return reports
}

// A fakeSMTP is an SMTP server at the other end of a pipe, which misbehaves as told.
type fakeSMTP struct {
	config                             tls.Config
	implicit, noTLS, clearTLS, unicode bool
	to                                 string

	// answers replaces answers, by command; besides, "greeting", "TLS" for the handshake,
	// "message" before the message was read and "." after. "hang" answers nothing, "drop"
	// closes the connection, "drip" sends a byte a second.
	answers map[string]string

	heard, inClear []string
	message        string
}

// atServer runs a test with a server and a client that trusts it. The certificate is that of
// httptest, for *.example.com until 2084.
func atServer(t *testing.T, test func(t *testing.T, s *smtpServer, f *fakeSMTP)) {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSMTP{answers: map[string]string{}}
		f.config.Certificates = web.TLS.Certificates
		s, _, err := parseMail(MailConfig{"smtp://user@mail.example.com", "Café <no-reply@example.com>", "https://app.example.com", "secret"})
		if err != nil {
			t.Fatal(err)
		}
		s.config.RootCAs = x509.NewCertPool()
		s.config.RootCAs.AddCert(web.Certificate())
		s.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			wantEqual(t, "what is dialled", network+" "+addr, "tcp mail.example.com:587")
			ours, theirs := net.Pipe()
			go f.serve(theirs)
			return ours, nil
		}
		test(t, s, f)
		time.Sleep(2 * time.Hour) // until the server has given up
	})
}

func (f *fakeSMTP) serve(conn net.Conn) {
	defer conn.Close()
	secure := f.implicit
	if f.implicit {
		conn = tls.Server(conn, &f.config)
	}
	if !f.answer(conn, "greeting", "220 mail.example.com ESMTP") {
		return
	}
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		f.heard = append(f.heard, line)
		if !secure {
			f.inClear = append(f.inClear, line)
		}
		verb, _, _ := strings.Cut(line, " ")
		usual := order.Or(map[string]string{"STARTTLS": "220 ready", "AUTH": "235 ok", "DATA": "354 go on", "QUIT": "221 bye"}[verb], "250 ok")
		if verb == "EHLO" {
			usual = "250-mail.example.com\r\n250-8BITMIME\r\n"
			if f.unicode {
				usual += "250-SMTPUTF8\r\n"
			}
			if !secure && !f.noTLS {
				usual += "250-STARTTLS\r\n"
			}
			usual += "250 AUTH PLAIN"
		}
		if !f.answer(conn, verb, usual) {
			return
		}
		switch verb {
		case "STARTTLS":
			if f.answers["STARTTLS"] == "454 not now" || f.clearTLS {
				continue
			}
			if f.answers["TLS"] == "hang" {
				io.Copy(io.Discard, conn)
				return
			}
			conn, secure = tls.Server(conn, &f.config), true
			r = bufio.NewReader(conn)
		case "DATA":
			if f.answers["message"] == "hang" {
				time.Sleep(time.Hour)
			}
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				f.message += strings.TrimPrefix(line, ".")
			}
			if !f.answer(conn, ".", "250 taken") {
				return
			}
		case "QUIT":
			return
		}
	}
}

// answer sends the answer to a command, and reports whether to go on.
func (f *fakeSMTP) answer(conn net.Conn, command, usual string) bool {
	switch special := f.answers[command]; special {
	case "":
		_, err := io.WriteString(conn, usual+"\r\n")
		return err == nil
	case "hang":
		io.Copy(io.Discard, conn)
		return false
	case "drop":
		return false
	case "drip":
		for {
			time.Sleep(time.Second)
			if _, err := io.WriteString(conn, "x"); err != nil {
				return false
			}
		}
	default:
		_, err := io.WriteString(conn, special+"\r\n")
		return err == nil
	}
}
