package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
)

// This file has the attacks on passwords, and on those who want to log in meanwhile.

// failedLogins are with all kinds of usernames.
var failedLogins = []string{
	"POST /token username=johndoe&password=guess",
	"POST /token username=nobody&password=guess",
	"POST /token username=dora&password=guess", // disabled
	"POST /token username=dave&password=guess", // deleted
	"POST /token username=no+name+at+all&password=guess",
}

// TestAttackUserEnumeration: the response to a failed login is the same to the byte,
// with all headers, whether the account exists or not.
func TestAttackUserEnumeration(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		var want string
		for _, call := range failedLogins {
			a := w.send(call)
			a.header.Del("X-Request-Id")
			got := fmt.Sprint(a.status, a.header, a.body)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s\n  got  %s\n  want %s\n  as for every other", call, got, want)
			}
		}
	})
}

// TestAttackGuessesAtOnce: of fifty guesses at once only five are hashed. They wait in
// the queue for hashing, and are counted when they leave it.
func TestAttackGuessesAtOnce(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		release := w.occupyHashing(0)
		responses := make(chan int, 50)
		for i := range cap(responses) {
			go func() {
				responses <- w.send(fmt.Sprintf("POST /token username=johndoe&password=guess%d", i)).status
			}()
		}
		synctest.Wait()
		if len(responses) > 0 {
			t.Errorf("%d of 50 guesses return while all cores hash, want them to wait", len(responses))
		}
		release()
		statuses := map[int]int{}
		for range cap(responses) {
			statuses[<-responses]++
		}
		wantEqual(t, "the statuses of 50 guesses at once", statuses, map[int]int{401: 5, 429: 45})
	})
}

// TestAttackFullQueue: while the queue for hashing is full, a request with a password
// is refused at once, and a request with a token succeeds.
func TestAttackFullQueue(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do("repeat 5 POST /token from 192.0.2.9 username=johndoe&password=guess")
		release := w.occupyHashing(maxWaiting)
		for _, tt := range []struct{ do, want string }{
			{"POST /token username=johndoe&password=secret", tooBusyOAuth},
			{"POST /token username=nobody&password=secret", tooBusyOAuth},
			{"repeat 9 POST /token username=johndoe&password=guess", tooBusyOAuth},
			{"repeat 31 " + register, tooBusy}, // no refusal counts
			{`PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`, tooBusy},
			{`DELETE /users/me/ as john {"password":"secret"}`, tooBusy},
			{`PUT /users/1/password as admin {"new_password":"correct horse"}`, tooBusy},

			{`POST /users/ {"username":"johndoe","password":"correct horse"}`, nameTaken},
			{`POST /users/ {"username":"alice","password":"short"}`, invalidFields("password must be at least 8 characters long")},
			{"POST /token from 192.0.2.9 username=johndoe&password=secret", tooManyLogins("1")},
			{"GET /users/me/ as john", "200\n" + john},
			{"wait 1m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		} {
			w.want("with a full queue", tt.do, tt.want)
		}
		w.wantLog("level=ERROR", 0) // the load is not a fault of the server
		release()
		w.want("a login when the queue is empty again", "POST /token username=johndoe&password=secret", tokens)
		if got := w.do(register); !strings.HasPrefix(got, "201\n") {
			t.Errorf("%s when the queue is empty again\n  got %s", register, got)
		}

		// A request whose client has gone gives its place in the queue back.
		release = w.occupyHashing(0)
		response := make(chan *answered, 1)
		gone, giveUp := context.WithCancel(w.Context())
		go func() { response <- w.sendIn(gone, "POST /token username=dora&password=secret") }()
		synctest.Wait()
		giveUp()
		if a := <-response; a.status != 499 {
			t.Errorf("a request whose client has gone is logged as %d, want 499, which is no error of the server", a.status)
		}
		go func() { response <- w.send("POST /token username=jane&password=secret") }()
		synctest.Wait()
		release()
		if a := <-response; a.status != 200 {
			t.Errorf("%s after all waiting clients have gone\n  got %s\n  want tokens", a.call, w.show(a))
		}
	})
}

// TestAttackPatientGuessing: the wait doubles from one second to five minutes and stays there.
func TestAttackPatientGuessing(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do("repeat 5 POST /token username=johndoe&password=guess")
		for _, wait := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
			const guess = "POST /token username=johndoe&password=guess"
			w.want("one more guess", guess, tooManyLogins(fmt.Sprint(wait)))
			w.want("a guess 1 ms before the end of the wait", fmt.Sprintf("wait %dms ; %s", wait*1000-1, guess), tooManyLogins("1"))
			w.want("a guess at the end of the wait", "wait 1ms ; "+guess, wrongLogin)
		}
	})
}

// TestAttackThrottleMemory: guesses at a hundred thousand names from as many addresses
// do not fill the memory, and do not erase the failures of an attacker during a wait.
func TestAttackThrottleMemory(t *testing.T) {
	keys := func(i int) [2]throttleKey {
		return throttleKeys(fmt.Sprint("name", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	synctest.Test(t, func(t *testing.T) { // where the delay does not end meanwhile
		throttle := &NewPasswords(1).throttle
		mine := keys(-1)
		for range freeTries {
			throttle.fail(mine)
		}
		most := 0
		for i := range 3 * throttleHalf {
			throttle.fail(keys(i))
			most = max(most, len(throttle.newer)+len(throttle.older))
			if i == throttleHalf/2-2 && throttle.check(mine) == nil {
				t.Errorf("after %d other failures, the delay is lost", i)
			}
		}
		if most > 2*throttleHalf {
			t.Errorf("the throttle has had %d entries, want %d at most", most, 2*throttleHalf)
		}
	})
}

// TestAttackPasswordSpraying: one password is tried on every account. Each account has
// one failure, but the address has a hundred.
func TestAttackPasswordSpraying(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		const right = "POST /token username=jane&password=secret"
		const guess = "POST /token username=name$i&password=Summer2026"
		w.want("99 guesses at as many accounts", "repeat 99 "+guess, wrongLogin)
		w.want("after 99 failures from its address", right, tokens)
		w.want("100 guesses at as many accounts", "repeat 100 "+guess, wrongLogin)
		w.want("after 100 failures in a row from its address", right, tooManyLogins("1"))
		w.want("from another address", strings.Replace(right, " username", " from 192.0.2.2 username", 1), tokens)
		w.want("after one more failure", "wait 1s ; POST /token username=name7&password=Summer2026 ; "+right, tooManyLogins("2"))
		w.want("a guess after a success", "wait 2s ; "+right+" ; POST /token username=name7&password=Summer2026", wrongLogin)
	})
}

// TestAttackLoginsOfAVisitor: a page of another site sends wrong passwords from the
// browser of its visitor, to lock the visitor out.
func TestAttackLoginsOfAVisitor(t *testing.T) {
	for _, headers := range []string{
		`with "Sec-Fetch-Site: cross-site" with "Origin: https://evil.example"`,
		`with "Sec-Fetch-Site: same-site" with "Origin: https://other.app.example"`,
		`with "Sec-Fetch-Site: cross-site"`,
		`with "Origin: https://evil.example"`,
		`with "Origin: null"`,
		`with "Sec-Fetch-Site: cross-site" with "Origin: http://localhost.evil.example:3000"`,
		`with "Origin: http://example.com"`, // the Host: the page has made its name resolve to this machine
	} {
		inPeopledWorld(t, func(w *world) {
			w.want("a login by a page", "repeat 6 POST /token "+headers+" username=johndoe&password=wrong", crossOriginOAuth)
			w.want("a login of the visitor after that", login, tokens)
		})
	}
}

// TestAttackNamesThatFold: some functions fold letters of other scripts to ASCII. No
// such letter matches one of a username, neither at a login nor in the throttle.
func TestAttackNamesThatFold(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim")
		for _, name := range []string{"adm%C4%B0n", "adm%C4%B1n", "%E2%84%AAim", "%C5%BFara"} {
			w.want("a login by a name that folds", "POST /token username="+name+"&password=secret", wrongLogin)
		}
		w.do("repeat 5 POST /token username=%E2%84%AAim&password=wrong")
		w.want("a login after five failures of a name that folds to this one", "POST /token username=kim&password=secret", tokens)
	})
}

// TestAttackStrangersFromEverywhere: strangers from many networks fill the queue for
// hashing. A client from whose network the account has a live session still logs in, and
// no stranger learns which names have an account.
func TestAttackStrangersFromEverywhere(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim")
		for _, from := range []string{"2001:db8:1::1", "192.0.2.77"} {
			w.do("POST /token from " + from + " username=johndoe&password=secret")
		}
		w.keepTokens("left")
		w.do("POST /revoke token=$left")
		q := w.server.passwords.queue
		for range cap(q.running) {
			q.running <- struct{}{}
		}
		for stranger := 0; q.places.take(stranger, 1) == nil; stranger++ {
		}
		calls := ""
		w.store.stage(func(method string) error {
			calls += method + " "
			return nil
		})
		for _, tt := range []struct{ who, login, want string }{
			{"the owner from the network of a session", "POST /token username=johndoe&password=secret", tokens},
			{"the owner from the /48 of a session", "POST /token from 2001:db8:1:9::1 username=johndoe&password=secret", tokens},
			{"the owner from another network", "POST /token from 192.0.2.9 username=johndoe&password=secret", tooBusyOAuth},
			{"the owner from the network of a session that has ended", "POST /token from 192.0.2.77 username=johndoe&password=secret", tooBusyOAuth},
			{"an owner without sessions", "POST /token username=kim&password=secret", tooBusyOAuth},
			{"a stranger who tries a name without an account", "POST /token from 192.0.2.9 username=nobody&password=secret", tooBusyOAuth},
			{"a stranger who tries a name with an account", "POST /token from 192.0.2.9 username=johndoe&password=guess", tooBusyOAuth},
			{"a stranger who registers", `POST /users/ from 192.0.2.9 {"username":"mallory","password":"correct horse"}`, tooBusy},
		} {
			response := make(chan *answered, 1)
			calls = ""
			go func() { response <- w.send(tt.login) }()
			synctest.Wait()
			if strings.Contains(tt.login, "/token") {
				wantEqual(t, "what the server asks the store, for "+tt.who, calls, "UserByName Sessions ")
			}
			q.passOn() // a core is free, and goes to a known client if one waits
			synctest.Wait()
			for len(q.running) < cap(q.running) {
				q.running <- struct{}{}
			}
			wantEqual(t, tt.who, w.show(<-response), tt.want)
		}
	})
}

// loudWorld is a world in real time with a real cost of hashing.
func loudWorld(t testing.TB, iterations int) *world {
	w := newWorld(t, iterations)
	w.addUser("dora", func(u *User) { u.Disabled = true })
	return w
}
