package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// This file is the part of the manual that is about mail. The mails of its worlds go to a
// terminal; "mail reset as r" waits 200 ms and keeps the token of the newest link for a reset.

const (
	verified = `POST /request-verify-token as john ; mail verify as verify ; POST /verify {"token":"$verify"} ; `
	asked    = verified + `POST /forgot-password {"username":"johndoe"} ; mail reset as reset ; `
	reset    = `POST /reset-password {"token":"$reset","new_password":"a new password"}`
	handed   = `POST /users/1/reset-link as admin ; keep link as reset ; `
)

var (
	mailOff = refusal(404, "mail_off", "This server sends no mail: it was started without -mail")
	badLink = refusal(400, "invalid_mail_token", "The link is not valid: it was used, has expired or is broken")
)

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
	text := "this address was given for your account. Open this link to confirm that it is\nyours:\n\n" + link + "\n\nIt works for one day. If you have no such account, ignore this mail: without\nthe link, the address is not used for anything.\n"
	if kind == "reset" {
		text = "somebody, probably you, asked for a new password for your account. Open this\nlink to choose one:\n\n" + link + "\n\nIt works once, and for one hour. If it was not you who asked, ignore this\nmail: nothing has changed.\n"
	}
	return [3]string{to, kind, "Hello " + username + ",\n\n" + text}
}

func noticeMail(to, username, what string) [3]string {
	return [3]string{to, "notice", "Hello " + username + ",\n\nthe " + what + " of your account was changed on 1 January 2000 at 00:00:00 UTC,\nfrom the client address 192.0.2.1.\n\n" +
		"If it was you, there is nothing to do. If it was not, somebody else may use\nyour account: tell the people who run this service.\n"}
}

func TestForgotPassword(t *testing.T) {
	const forgot, home = `POST /forgot-password {"username":"johndoe"}`, "http://127.0.0.1:8000/docs"
	verifyMail := linkMail("verify", "johndoe@example.com", "johndoe", home+"#verify=$verify")
	resetMail := linkMail("reset", "johndoe@example.com", "johndoe", home+"#reset=$reset")
	const shown = " ; wait 200ms ; GET /docs/mail.json"
	checkRules(t, []apiRule{
		{"a user who forgot a password asks for a link", verified + forgot, "202"},
		{"the link is sent to the verified address", asked + "GET /docs/mail.json", shownMails(verifyMail, resetMail)},
		{"the link leads to -mail-link", "restart -mail-link=https://app.example.com/account ; " + asked + "GET /docs/mail.json", shownMails(
			linkMail("verify", "johndoe@example.com", "johndoe", "https://app.example.com/account#verify=$verify"), linkMail("reset", "johndoe@example.com", "johndoe", "https://app.example.com/account#reset=$reset"))},
		{"without -mail-link it leads to the page of -public-url", "restart -public-url=https://id.example.com ; POST /request-verify-token as john ; mail verify as verify ; GET /docs/mail.json", shownMails(linkMail("verify", "johndoe@example.com", "johndoe", "https://id.example.com/docs#verify=$verify"))},
		{"the username may be in any case, with spaces around it", verified + `POST /forgot-password {"username":" JohnDOE "} ; mail reset as reset ; GET /docs/mail.json`, shownMails(verifyMail, resetMail)},
		{"an address that is not verified gets the same response", forgot, "202"},
		{"an address that is not verified gets no mail", forgot + shown, shownMails()},
		{"an unknown username gets the same response", `POST /forgot-password {"username":"nobody"}`, "202"},
		{"an invalid username gets the same response", `POST /forgot-password {"username":"no body"}`, "202"},
		{"an empty username gets the same response", `POST /forgot-password {"username":""}`, "202"},
		{"a user without an address gets the same response", `POST /forgot-password {"username":"jane"}`, "202"},
		{"a disabled account gets the same response", `POST /forgot-password {"username":"dora"}`, "202"},
		{"a disabled account gets no mail", verified + `PATCH /users/1 as admin {"disabled":true} ; ` + forgot + shown, shownMails(verifyMail)},
		{"a deleted account gets the same response", `POST /forgot-password {"username":"dave"}`, "202"},
		{"a request for a link does not end the current password", asked + "POST /token username=johndoe&password=secret", tokens},
		{"a second mail within a minute is dropped without a word", asked + "wait 59s ; " + forgot + shown, shownMails(verifyMail, resetMail)},
		{"a username is required", `POST /forgot-password {}`, invalidFields("username is required")},
		{"an email address is no username", `POST /forgot-password {"email":"johndoe@example.com"}`, invalidFields("email is not a field of this request", "username is required")},
		{"a store that cannot be read does not change the response", "store vanishes ; " + forgot, "202"},
		{"without -mail there are no links", "restart -demo=false ; " + forgot, mailOff},
		{"only demo servers show mail", "restart -demo=false -mail=terminal ; GET /docs/mail.json", notFound},
	})
}

func TestResetByMail(t *testing.T) {
	badPassword := func(message string) string { return invalidFields("new_password " + message) }
	checkRules(t, []apiRule{
		{"a link sets a new password", asked + reset, "204"},
		{"the new password is that of the account", asked + reset + " ; POST /token username=johndoe&password=a+new+password", tokens},
		{"the old password is not", asked + reset + " ; POST /token username=johndoe&password=secret", wrongLogin},
		{"a reset ends every session", asked + reset + " ; GET /users/me/ as john", badToken},
		{"a reset ends every refresh token", asked + reset + " ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", wrongRefresh},
		{"a link works once", asked + reset + " ; " + reset, badLink},
		{"a link works for an hour", asked + "wait 59m59s ; " + reset, "204"},
		{"a link has expired after an hour", asked + "wait 1h ; " + reset, badLink},
		{"a change of the password ends a link", asked + `PUT /users/me/password as john {"current_password":"secret","new_password":"another password"} ; ` + reset, badLink},
		{"a password that an admin sets ends a link", asked + `PUT /users/1/password as admin {"new_password":"another password"} ; ` + reset, badLink},
		{"another address ends a link", asked + `PATCH /users/me/ as john {"email":"other@example.com","current_password":"secret"} ; ` + reset, badLink},
		{"a link of a deleted account does not work", asked + "DELETE /users/1 as admin ; " + reset, badLink},
		{"a link of a disabled account gets the error inactive_user", asked + `PATCH /users/1 as admin {"disabled":true} ; ` + reset, inactive},
		{"a link works again after its account was enabled", asked + `PATCH /users/1 as admin {"disabled":true} ; PATCH /users/1 as admin {"disabled":false} ; ` + reset, "204"},
		{"two links work until one is used", asked + "wait 1m ; " + `POST /forgot-password {"username":"johndoe"} ; mail reset as second ; ` + reset + ` ; POST /reset-password {"token":"$second","new_password":"a new password"}`, badLink},
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
		{"a reset gets a 503 if the store cannot write, and the link still works", asked + "store fails ; " + reset + " ; store works ; " + reset, "204"},
		{"a reset gets a 503 if too many passwords are being checked", asked + "queue fills ; " + reset, refusal(503, "too_busy", "Too many passwords are being checked", "Retry-After: 1")},
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
		{"an admin makes no link for their own account", "POST /users/2/reset-link as admin", refusal(403, "own_account", "Change your own password at /users/me/password, with the current one")},
		{"there is no link for an unknown account", "POST /users/99/reset-link as admin", notFound},
	})
}

func TestVerifiedAddress(t *testing.T) {
	const verify = `POST /verify {"token":"$verify"}`
	yes := func(user string) string {
		return "200\n" + strings.Replace(user, `"email_verified":false`, `"email_verified":true`, 1)
	}
	checkMe := " ; GET /users/me/ as john"
	johnMail := linkMail("verify", "johndoe@example.com", "johndoe", "http://127.0.0.1:8000/docs#verify=$verify")
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
		{"a verified user gets no second link", verified + "wait 1h ; POST /request-verify-token as john ; wait 200ms ; GET /docs/mail.json", shownMails(johnMail)},
		{"a user without an address gets no link", "POST /request-verify-token as jane ; wait 200ms ; GET /docs/mail.json", shownMails()},
		{"without -mail no link is sent", "restart -demo=false ; POST /request-verify-token as john", mailOff},
		{"without -mail no link is taken", `POST /request-verify-token as john ; mail verify as verify ; restart -demo=false ; ` + verify, mailOff},

		{"registering with an address sends a link", `POST /users/ {"username":"alice","password":"correct horse","email":"alice@example.com"} ; mail verify as verify ; GET /docs/mail.json`,
			shownMails(linkMail("verify", "alice@example.com", "alice", "http://127.0.0.1:8000/docs#verify=$verify"))},
		{"an account without an address gets no mail", `POST /users/ {"username":"alice","password":"correct horse"} ; wait 200ms ; GET /docs/mail.json`, shownMails()},
		{"changing the address clears its verification", verified + newMail, "200\n" + other},
		{"the old address is told", verified + `PATCH /users/me/ as john {"email":null,"current_password":"secret"} ; wait 200ms ; GET /docs/mail.json`, shownMails(johnMail, noticeMail("johndoe@example.com", "johndoe", "email address"))},
		{"the new address gets a link, and an old one that was not verified is not told", newMail + ` ; mail verify as second ; GET /docs/mail.json`, shownMails(linkMail("verify", "j@example.com", "johndoe", "http://127.0.0.1:8000/docs#verify=$second"))},
		{"a link for the old address does not verify the new one", "POST /request-verify-token as john ; mail verify as verify ; " + newMail + " ; " + verify, badLink},
		{"the same address stays verified", verified + `PATCH /users/me/ as john {"email":"johndoe@example.com","current_password":"secret"}`, yes(john)},
		{"an admin changes the address of a user", verified + `PATCH /users/1 as admin {"email":"j@example.com"}`, "200\n" + other},
		{"nobody verifies an address with a patch", `PATCH /users/1 as admin {"email_verified":true}`, invalidFields("email_verified is not a field of this request")},

		{"a new address needs the current password", `PATCH /users/me/ as john {"email":"j@example.com"}`, invalidFields("current_password is required to change the email address")},
		{"so does no address", `PATCH /users/me/ as john {"email":null}`, invalidFields("current_password is required to change the email address")},
		{"a new address with a wrong password is refused", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"}` + checkMe, "200\n" + john},
		{"a wrong password for a new address gets the error incorrect_password", `PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"}`, refusal(403, "incorrect_password", "Incorrect password")},
		{"it counts as a failed login", `repeat 5 PATCH /users/me/ as john {"email":"j@example.com","current_password":"wrong"} ; ` + newMail, refusal(429, "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
		{"a new full name needs no password", `PATCH /users/me/ as john {"full_name":"John"}`, "200\n" + strings.Replace(john, "John Doe", "John", 1)},
		{"a password that is given is checked", `PATCH /users/me/ as john {"full_name":"John","current_password":"wrong"}`, refusal(403, "incorrect_password", "Incorrect password")},
		{"without -mail a new address needs no password", `restart -demo=false ; PATCH /users/me/ as john {"email":"j@example.com"}`, "200\n" + other},
		{"an admin changes their own address with their password only", `PATCH /users/2 as admin {"email":"b@example.com"}`, refusal(403, "own_account", "Change your own email address at /users/me/, with your password")},
		{"an admin changes their own name without it", `PATCH /users/2 as admin {"full_name":"Boss"}`, "200\n" + strings.Replace(boss, "Admin User", "Boss", 1)},
	})
}

// TestNotices: the owner of a verified address is told when the password has changed.
func TestNotices(t *testing.T) {
	verifyMail := linkMail("verify", "johndoe@example.com", "johndoe", "http://127.0.0.1:8000/docs#verify=$verify")
	resetMail := linkMail("reset", "johndoe@example.com", "johndoe", "http://127.0.0.1:8000/docs#reset=$reset")
	notice := noticeMail("johndoe@example.com", "johndoe", "password")
	const shown = " ; wait 200ms ; GET /docs/mail.json"
	const change = `PUT /users/me/password as john {"current_password":"secret","new_password":"another password"}`
	checkRules(t, []apiRule{
		{"a reset is told to the verified address", asked + reset + shown, shownMails(verifyMail, resetMail, notice)},
		{"so is a change of the password", verified + change + shown, shownMails(verifyMail, notice)},
		{"so is a password that an admin sets", verified + `PUT /users/1/password as admin {"new_password":"another password"}` + shown, shownMails(verifyMail, notice)},
		{"the address of the client is in it", verified + strings.Replace(change, "as john", "as john from 203.0.113.9", 1) + shown, strings.Replace(shownMails(verifyMail, notice), "192.0.2.1", "203.0.113.9", 1)},
		{"an address that is not verified is told nothing", change + shown, shownMails()},
		{"a wrong password tells nothing", verified + `PUT /users/me/password as john {"current_password":"wrong","new_password":"another password"}` + shown, shownMails(verifyMail)},
		{"a link that does not work tells nothing", verified + `POST /reset-password {"token":"x","new_password":"a new password"}` + shown, shownMails(verifyMail)},
	})
}
