package main

import (
	"bytes"
	order "cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// These attacks go through mail: its links, its limits, and what it tells. Those on the
// tokens and the queue alone are in mail_test.go.

// TestAttackForgottenPasswordEnumeration: neither a response nor its time shows which accounts
// exist and which addresses are verified. The store is not even asked
// before the response is written.
func TestAttackForgottenPasswordEnumeration(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(verified)
		w.obey("store vanishes")
		var first string
		for _, name := range []string{"johndoe", "admin", "jane", "dora", "dave", "nobody", "x", strings.Repeat("x", 1000), "johndoe@example.com"} {
			start := time.Now()
			a := w.send(fmt.Sprintf(`POST /forgot-password {"username":%q}`, name))
			a.header.Del("X-Request-Id")
			got := fmt.Sprint(a.status, a.header, a.body)
			if first == "" {
				first = got
			}
			if got != first || a.status != 202 || time.Since(start) != 0 {
				t.Errorf("forgot-password for %.20s: %s after %v\n  want %s at once", name, got, time.Since(start), first)
			}
		}
		w.obey("store works")
		time.Sleep(time.Second)
		if mails := w.server.mailer.printed(); len(mails) != 2 || mails[1].To != "johndoe@example.com" {
			t.Errorf("the mails are %v, want one to verify and one to reset", mails)
		}
	})
}

// TestAttackMailBombOverHTTP: for an hour, attackers ask for mail to one user, from one
// address or from 300. The user gets five mails, and others get theirs.
func TestAttackMailBombOverHTTP(t *testing.T) {
	for _, addresses := range []int{1, 300} {
		inPeopledWorld(t, func(w *world) {
			w.addUser("victim", withAddress("victim@example.com"))
			w.addUser("other", withAddress("other@example.com"))
			for i := range 1200 {
				w.send(fmt.Sprintf(`POST /forgot-password from 198.51.%d.%d {"username":"victim"}`, i%addresses/100, i%addresses%100))
				time.Sleep(3 * time.Second)
			}
			w.want("another user's request", `POST /forgot-password {"username":"other"}`, "202")
			time.Sleep(time.Second)
			mails := map[string]int{}
			for _, m := range w.server.mailer.printed() {
				mails[m.To]++
			}
			if mails["victim@example.com"] > mailsAnHour || mails["other@example.com"] != 1 {
				t.Errorf("from %d addresses, in an hour: %v", addresses, mails)
			}
		})
	}
}

// TestAttackStolenAccessToken: a thief of an access token wants to stay: to have the
// address, the password, or a link.
func TestAttackStolenAccessToken(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(verified)
		w.do(strings.ReplaceAll(verified, "john", "admin"))
		before := w.contents()
		for _, call := range []string{
			`PATCH /users/me/ as john {"email":"thief@example.com"}`,
			`PATCH /users/me/ as john {"email":"thief@example.com","current_password":""}`,
			`PATCH /users/me/ as john {"email":"thief@example.com","current_password":"guess"}`,
			`PATCH /users/me/ as john {"email":"thief@example.com","current_password":null}`,
			`PATCH /users/me/ as john {"email":null}`,
			`PATCH /users/me/ as john {"email_verified":true}`,
			`PATCH /users/1 as john {"email":"thief@example.com"}`,
			`PUT /users/me/password as john {"current_password":"guess","new_password":"correct horse"}`,
			"POST /users/1/reset-link as john",
			`POST /verify {"token":"$john"}`,
			`POST /reset-password {"token":"$john","new_password":"correct horse"}`,
			`POST /reset-password {"token":"$verify","new_password":"correct horse"}`,
			`PATCH /users/me/ as admin {"email":"thief@example.com"}`,
			`PATCH /users/2 as admin {"email":"thief@example.com"}`,
			`PATCH /users/2 as admin {"email":"thief@example.com","current_password":"guess"}`,
			"POST /users/2/reset-link as admin",
			`PUT /users/2/password as admin {"new_password":"correct horse"}`,
		} {
			if got := w.do(call); got < "400" {
				t.Errorf("%s\n  got %s\n  want a refusal", call, got)
			}
		}
		wantEqual(t, "the store after the attack", w.contents(), before)
		const change = `PATCH /users/me/ as john {"email":"thief@example.com","current_password":"`
		w.want("a sixth guess of the password", "repeat 5 "+change+`guess"} ; `+change+`secret"}`, "429...")
	})
}

// TestAttackLinkOfAnotherAccount: the token of one account does not reset or verify another.
func TestAttackLinkOfAnotherAccount(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(asked)
		for _, name := range []string{"reset", "verify"} {
			w.vars["forged"] = strings.Replace(w.vars[name], ".1.", ".2.", 1)
			for _, call := range []string{`POST /reset-password {"token":"$forged","new_password":"correct horse"}`, `POST /verify {"token":"$forged"}`} {
				w.want("the token to "+name+" of another account", call, badLink)
			}
		}
		// Names are reused, IDs and so tokens are not.
		w.do(`DELETE /users/1 as admin ; POST /users/ {"username":"johndoe","password":"battery staple","email":"johndoe@example.com"}`)
		w.want("a link of a deleted account, for the next one of its name", reset, badLink)
	})
}

// TestAttackLinkWithForeignHost: somebody asks for a link in a user's name and sends a
// Host of their own, to get the token with the next click.
func TestAttackLinkWithForeignHost(t *testing.T) {
	for _, settings := range []string{"-public-url=https://id.example.com", "-mail-link=https://app.example.com/account", "-demo=false"} {
		inPeopledWorld(t, func(w *world) {
			w.restart("-mail=terminal", settings)
			w.server.Demo = false // its guard would refuse a foreign Host at once
			w.server.mailer = startMail(MailConfig{Target: mailTerminal}, &bytes.Buffer{}, w.server.log, w.server.metrics.count)
			w.addUser("victim", withAddress("victim@example.com"))
			for i, header := range []string{"Host: evil.example", "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example",
				"X-Original-Host: evil.example", "Origin: http://127.0.0.1:8000", "Referer: https://evil.example/"} {
				for _, call := range []string{`POST /forgot-password with %q {"username":"victim"}`, "POST /users/3/reset-link as admin with %q"} {
					a := w.send(fmt.Sprintf(call, header))
					if strings.Contains(fmt.Sprint(a.header, a.body), "evil") {
						t.Errorf("%s\n  got %s", a.call, w.show(a))
					}
				}
				time.Sleep(time.Hour)
				mails := w.server.mailer.printed()
				if len(mails) != i+1 || strings.Contains(fmt.Sprint(mails), "evil") || !strings.Contains(mails[i].Text, "\n"+order.Or(w.server.Mail.Link, w.server.PublicURL+"/docs")+"#reset=") {
					t.Fatalf("with %s, the mails are %v", header, mails)
				}
			}
		})
	}
}

// TestAttackLinkThroughProxy: a trusted proxy copies the Host of a stranger who asks for a
// link in a user's name. The metadata may show it to the stranger, but no mail has it.
func TestAttackLinkThroughProxy(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.restart("-demo=false", "-mail=terminal", "-trusted-proxy=192.0.2.0/24")
		w.addUser("victim", withAddress("victim@example.com"))
		const evil = `with "X-Forwarded-Proto: https" with "X-Forwarded-Host: evil.example" `
		w.want("the proxy is believed", "GET /.well-known/oauth-authorization-server "+evil+"; keep issuer as host", "200...")
		wantEqual(t, "the proxy is believed", w.vars["host"], "https://evil.example")
		for _, call := range []string{
			`POST /forgot-password ` + evil + `{"username":"victim"}`, "POST /request-verify-token as john " + evil,
			`POST /users/ ` + evil + `{"username":"alice","password":"correct horse","email":"alice@example.com"}`,
		} {
			w.do(call)
		}
		time.Sleep(time.Second)
		mails := w.server.mailer.printed()
		if len(mails) != 3 || strings.Contains(fmt.Sprint(mails), "evil") || strings.Count(fmt.Sprint(mails), "\nhttp://127.0.0.1:8000/docs#") != 3 {
			t.Errorf("the mails are %v, want three with links to the server", mails)
		}
	})
}

// TestAttackHeaderInjection: a line break in any field that reaches a mail adds no header
// and no recipient. A store could have it from a file that was written by hand.
func TestAttackHeaderInjection(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		for _, bad := range []string{`\r\nBcc: all@example.com`, `\nBcc: all@example.com`, `\r`, `\u0000`, `\u0085`, `\u2028`, ` all@example.com`, `,all@example.com`, `>`, `" <all@example.com>`} {
			for _, call := range []string{
				`POST /users/ {"username":"mallory%s","password":"correct horse","email":"m@example.com"}`,
				`POST /users/ {"username":"mallory","password":"correct horse","email":"m@example.com%s"}`,
				`POST /users/ {"username":"mallory","password":"correct horse","email":"m%s@example.com"}`,
				`PATCH /users/me/ as john {"email":"m@example.com%s","current_password":"secret"}`,
			} {
				w.want("an injection", fmt.Sprintf(call, strings.ReplaceAll(bad, `"`, `\"`)), "422...")
			}
		}
		for i, address := range []string{"a@example.com\r\nBcc: all@example.com", "a@example.com, all@example.com", "a@example.com\n\nHello", "<a@example.com>", "a@example.com\x00"} {
			name := fmt.Sprint("byhand", i)
			w.addUser(name, withAddress(address))
			w.do(fmt.Sprintf(`POST /forgot-password {"username":%q}`, name))
		}
		time.Sleep(time.Second)
		if mails := w.server.mailer.printed(); len(mails) > 0 {
			t.Errorf("mails were sent: %v", mails)
		}
		w.wantLog("level=WARN msg=mail mail=dropped", 5)
	})
}

// TestAttackTokenInMetrics: a token is in no metric and in no line of the log, whatever
// route it is sent to. searchForSecrets looks for it in the log.
func TestAttackTokenInMetrics(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(asked)
		for _, call := range []string{
			`POST /verify {"token":"$reset"}`, `POST /reset-password {"token":"$reset","new_password":"x"}`, `POST /reset-password {"token":"$reset"}`,
			"GET /users/me/ as reset", "GET /docs/$reset", "GET /docs?reset=$reset", `POST /reset-password?token=$reset {}`,
			"POST /revoke token=$reset", "POST /introspect as admin token=$reset", `GET /docs with "Referer: http://127.0.0.1:8000/docs#reset=$reset"`,
		} {
			w.send(call)
		}
		var metrics bytes.Buffer
		w.server.metrics.write(&metrics)
		for _, secret := range []string{w.vars["reset"], w.vars["verify"], "johndoe@example.com"} {
			if strings.Contains(metrics.String(), secret) || strings.Contains(w.log.String(), secret) {
				t.Errorf("%s is in the metrics or in the log", secret)
			}
		}
		if !strings.Contains(metrics.String(), `stdauth_mails_total{outcome="sent"} 2`) {
			t.Errorf("the metrics do not count two mails:\n%s", metrics.String())
		}
	})
}

// TestAttackSlowMailServer: while a mail server hangs, every response comes at once.
func TestAttackSlowMailServer(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		p := &post{hang: true}
		w.server.mailer = NewMailer(p, w.server.log, w.server.metrics.count)
		start := time.Now()
		for _, call := range []string{
			`POST /users/ {"username":"alice","password":"correct horse","email":"alice@example.com"}`, "POST /request-verify-token as john",
			`POST /forgot-password {"username":"johndoe"}`, `PATCH /users/me/ as john {"email":"j@example.com","current_password":"secret"}`,
			"POST /users/1/reset-link as admin", "GET /users/me/ as john",
		} {
			if got := w.do(call); got > "300" || time.Since(start) > 0 {
				t.Errorf("%s\n  got %s\n  after %v", call, got, time.Since(start))
			}
		}
		ctx, cancel := context.WithTimeout(w.Context(), gracePeriod)
		defer cancel()
		w.server.mailer.Stop(ctx)
		wantEqual(t, "the time of the end", time.Since(start), gracePeriod)
	})
}

// TestAttackResetsAtOnce: of thirty resets with one token at once, one wins.
func TestAttackResetsAtOnce(t *testing.T) {
	everyStore(t, func(t *testing.T, w *world, u User) {
		token := w.resetToken(u)
		responses := manyAtOnce(w, 30, func(i int) string {
			return fmt.Sprintf(`POST /reset-password {"token":%q,"new_password":"new password %d"}`, token, i)
		})
		var won []int
		for i, a := range responses {
			switch a.status {
			case 204:
				won = append(won, i)
			case 400, 503: // used, or one address has too many hashes waiting
			default:
				t.Errorf("a reset gets %s", w.show(a))
			}
		}
		if len(won) != 1 {
			t.Fatalf("%d resets win, want one", len(won))
		}
		w.want("a login with the password of the winner", fmt.Sprintf("POST /token username=johndoe&password=new+password+%d", won[0]), tokens)
	})
}

// TestAttackLoginDuringReset: logins and refreshes with what a thief knows are under way
// while the password is reset. No such login leaves a live session.
func TestAttackLoginDuringReset(t *testing.T) {
	everyStore(t, func(t *testing.T, w *world, u User) {
		for round := range 10 {
			w.do("login johndoe as thief")
			token, next := w.resetToken(u), fmt.Sprintf("new password %d", round)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { w.send("POST /token username=johndoe&password=secret") })
				wg.Go(func() { w.send("POST /token grant_type=refresh_token&refresh_token=$thief.refresh") })
			}
			wg.Go(func() {
				if a := w.send(fmt.Sprintf(`POST /reset-password {"token":%q,"new_password":%q}`, token, next)); a.status != 204 {
					t.Errorf("the reset gets %s", w.show(a))
				}
			})
			wg.Wait()
			if live, err := w.store.Sessions(w.Context(), u.ID); len(live) > 0 || err != nil {
				t.Fatalf("round %d: %d sessions live after the reset, %v", round, len(live), err)
			}
			// Back to the old password, for the next round.
			u = testedStore{w.store, t}.update(u.ID, func(u *User) { u.SetPassword(Hasher{1}.Hash("secret")) })
		}
	})
}

// TestAttackExpiredLinkAfterAWait: a link that expires while its request waits for a hash
// does nothing.
func TestAttackExpiredLinkAfterAWait(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(asked + "wait 59m58s")
		release := w.hold(reset, "its hash")
		time.Sleep(3 * time.Second)
		if a := release(); w.show(a) != badLink {
			t.Errorf("a link that expired while its request waited: %s", w.show(a))
		}
	})
}

// everyStore runs a test over HTTP before each kind of store, with the account johndoe, and
// a link to reset its password.
func everyStore(t *testing.T, test func(t *testing.T, w *world, u User)) {
	for name, open := range map[string]func(t *testing.T) Store{
		"memory": func(*testing.T) Store { return NewMemoryStore(monthLife) },
		"file":   func(t *testing.T) Store { return openFile(t, storePath(t)).file },
		"etcd":   func(t *testing.T) Store { return newFakeEtcd().open(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store.Store = open(t)
			u := w.addUser("johndoe", withAddress("johndoe@example.com"))
			test(t, w, u)
		})
	}
}

func (w *world) resetToken(u User) string {
	return w.server.tokens.SignMail(resetting, u, time.Now().Add(time.Hour))
}
