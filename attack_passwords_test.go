package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// This file has the attacks on passwords, and on those who want to log in meanwhile.

// TestAttackUserEnumeration: the response to a failed login is the same to the byte,
// with all headers, whether the account exists or not.
func TestAttackUserEnumeration(t *testing.T) {
	calls := []string{
		"POST /token username=johndoe&password=guess",
		"POST /token username=nobody&password=guess",
		"POST /token username=dora&password=guess", // disabled
		"POST /token username=dave&password=guess", // deleted
		"POST /token username=no+name+at+all&password=guess",
	}
	inPeopledWorld(t, func(w *world) {
		var want string
		for _, call := range calls {
			a := w.send(w.Context(), call)
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

	// Each response takes one key derivation, which costs far more than everything
	// else. The shortest of several runs is free of other load, and the loop ends when
	// the shortest times are close. A response without a derivation, or with two, never
	// comes close.
	t.Run("a failed login takes the same time for every username", func(t *testing.T) {
		w := loudWorld(t, 20_000)
		least := map[string]time.Duration{}
		quotient := map[string]float64{}
		for run := range 60 {
			for _, call := range calls {
				start := time.Now() // from another address each time, which avoids the throttle
				a := w.send(w.Context(), strings.Replace(call, "/token", fmt.Sprintf("/token from 198.51.100.%d", run), 1))
				if took := time.Since(start); least[call] == 0 || took < least[call] {
					least[call] = took
				}
				if a.status != 401 {
					t.Fatalf("%s\n  got %s", call, w.show(a))
				}
			}
			alike := run >= 3
			for _, call := range calls {
				quotient[call] = float64(least[call]) / float64(least[calls[0]])
				alike = alike && 0.7 < quotient[call] && quotient[call] < 1.4
			}
			if alike {
				return
			}
		}
		t.Errorf("failed logins take %v, in parts of the first: %v\n  want the same time for all", least, quotient)
	})
}

// BenchmarkUserEnumeration reports the medians. They should differ no more than two
// runs of one of them do.
func BenchmarkUserEnumeration(b *testing.B) {
	w := loudWorld(b, DefaultIterations)
	times := map[string][]float64{}
	n := 0
	for b.Loop() {
		for _, name := range []string{"johndoe", "nobody", "dora"} {
			n++
			start := time.Now()
			w.send(b.Context(), fmt.Sprintf("POST /token from 2001:db8:%x:%x::1 username=%s&password=guess", n>>16, n&0xffff, name))
			times[name] = append(times[name], time.Since(start).Seconds()*1e3)
		}
	}
	for name, list := range times {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], name+"-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// TestAttackGuessesAtOnce: of fifty guesses at once only five are hashed. They wait in
// the queue for hashing, and are counted when they leave it.
func TestAttackGuessesAtOnce(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		release := w.occupyHashing(0)
		responses := make(chan int, 50)
		for i := range cap(responses) {
			go func() {
				responses <- w.send(w.Context(), fmt.Sprintf("POST /token username=johndoe&password=guess%d", i)).status
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
		if statuses[401] != 5 || statuses[429] != 45 {
			t.Errorf("50 guesses at once return %v, want 5 times 401 and 45 times 429", statuses)
		}
	})
}

// TestAttackFullQueue: while the queue for hashing is full, a request with a password
// is refused at once, and a request with a token succeeds.
func TestAttackFullQueue(t *testing.T) {
	const busy = "Too many passwords are being checked"
	const register = `POST /users/ {"username":"alice","password":"correct horse"}`
	inPeopledWorld(t, func(w *world) {
		w.do("repeat 5 POST /token from 192.0.2.9 username=johndoe&password=guess")
		release := w.occupyHashing(maxWaiting)
		for _, tt := range []struct{ do, want string }{
			{"POST /token username=johndoe&password=secret", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"POST /token username=nobody&password=secret", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"repeat 9 POST /token username=johndoe&password=guess", oauthRefusal(503, "temporarily_unavailable", "too_busy", busy, "Retry-After: 1")},
			{"repeat 31 " + register, refusal(503, "too_busy", busy, "Retry-After: 1")}, // none of which counts
			{`PUT /users/me/password as john {"current_password":"secret","new_password":"correct horse"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},
			{`DELETE /users/me/ as john {"password":"secret"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},
			{`PUT /users/1/password as admin {"new_password":"correct horse"}`, refusal(503, "too_busy", busy, "Retry-After: 1")},

			{`POST /users/ {"username":"johndoe","password":"correct horse"}`, refusal(400, "username_taken", "Username already registered")},
			{`POST /users/ {"username":"alice","password":"short"}`, invalidFields("password must be at least 8 characters long")},
			{"POST /token from 192.0.2.9 username=johndoe&password=secret", oauthRefusal(429, "temporarily_unavailable", "too_many_failed_logins", "Too many failed logins", "Retry-After: 1")},
			{"GET /users/me/ as john", "200\n" + john},
			{"wait 1m ; POST /token grant_type=refresh_token&refresh_token=$john.refresh", tokens},
		} {
			if got := w.do(tt.do); got != tt.want {
				t.Errorf("with a full queue, %s\n  got %s\n  want %s", tt.do, got, tt.want)
			}
		}
		if log := w.log.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("the log of a full queue has errors, want none: the load is not a fault of the server: %s", log)
		}
		release()
		if got := w.do("POST /token username=johndoe&password=secret"); got != tokens {
			t.Errorf("a login when the queue is empty again\n  got %s\n  want tokens: the refused logins do not count", got)
		}
		if got := w.do(register); !strings.HasPrefix(got, "201\n") {
			t.Errorf("%s when the queue is empty again\n  got %s", register, got)
		}

		// A request whose client has gone gives its place in the queue back.
		release = w.occupyHashing(0)
		response := make(chan *answered, 1)
		gone, giveUp := context.WithCancel(w.Context())
		go func() { response <- w.send(gone, "POST /token username=dora&password=secret") }()
		synctest.Wait()
		giveUp()
		if a := <-response; a.status != 499 {
			t.Errorf("a request whose client has gone is logged as %d, want 499, which is no error of the server", a.status)
		}
		go func() { response <- w.send(w.Context(), "POST /token username=jane&password=secret") }()
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
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.header.Get("Retry-After") != fmt.Sprint(wait) {
				t.Fatalf("one more guess\n  got %s\n  want a wait of %d s", got, wait)
			}
			time.Sleep(time.Duration(wait)*time.Second - time.Millisecond)
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.status != 429 {
				t.Fatalf("a guess 1 ms before %d s\n  got %s\n  want 429", wait, got)
			}
			time.Sleep(time.Millisecond)
			if got := w.do("POST /token username=johndoe&password=guess"); w.last.status != 401 {
				t.Fatalf("a guess after %d s\n  got %s\n  want 401", wait, got)
			}
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

// TestAttackLoginStorm: logins beyond the queue are refused at once, and a login whose
// client has gone takes no place in it.
func TestAttackLoginStorm(t *testing.T) {
	w := loudWorld(t, 1)
	w.addUser("slow", "secret", func(u *User) { u.PasswordHash = Hasher{Iterations: 100_000}.Hash("secret") })
	w.login("john", "johndoe", "secret")
	storm := 3 * (maxWaiting + cap(w.server.passwords.queue.running))
	ctx, giveUp := context.WithCancel(w.Context())
	defer giveUp()
	responses := make(chan *answered, storm)
	for i := range storm {
		go func() {
			responses <- w.send(ctx, fmt.Sprintf("POST /token from 10.0.%d.%d username=slow&password=guess", i>>8, i&255))
		}()
	}
	turnedAway := oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")
	count, received := map[int]int{}, 0
	for count[503] == 0 {
		a := <-responses
		count[a.status]++
		received++
		if got := w.show(a); a.status != 401 && got != turnedAway {
			t.Errorf("in a storm of logins\n  got %s\n  want %s", got, turnedAway)
		}
		if count[401] == storm {
			t.Fatalf("%d logins at once were all hashed, want 503 for some", storm)
		}
	}
	if got := w.do("GET /users/me/ as john"); !strings.HasPrefix(got, "200\n") {
		t.Errorf("GET /users/me/ in a storm of logins\n  got %s", got)
	}
	giveUp()
	for ; received < storm; received++ {
		count[(<-responses).status]++
	}
	if count[401] > maxWaiting/2+cap(w.server.passwords.queue.running) {
		t.Errorf("%d logins whose clients have gone have the statuses %v\n  want the waiting ones out of the queue", storm, count)
	}
	if got, want := w.server.metrics.counts[errorSample("too_busy")], int64(count[503]); got != want {
		t.Errorf("the metric of refused hashes is %d, want %d, the number of 503", got, want)
	}
	if got := w.do("POST /token username=johndoe&password=secret"); !strings.HasPrefix(got, "200\n") {
		t.Errorf("a login after the storm\n  got %s\n  want 200", got)
	}
}

// loudWorld is a world in real time with a real cost of hashing.
func loudWorld(t testing.TB, iterations int) *world {
	w := newWorld(t, iterations)
	w.addUser("dora", "secret", func(u *User) { u.Disabled = true })
	return w
}

// occupyHashing takes all cores, and as many places in the queue as told: first those of
// known clients.
func (w *world) occupyHashing(queue int) (release func()) {
	hashes := w.server.passwords.queue
	for range cap(hashes.running) {
		hashes.running <- struct{}{}
	}
	var places []*place
	for i := range queue {
		place, err := hashes.enter(w.Context(), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), i < knownWaiting)
		if err != nil {
			w.Fatal(err)
		}
		places = append(places, place)
	}
	return func() {
		for _, place := range places {
			place.leave()
		}
		for range cap(hashes.running) {
			hashes.passOn()
		}
	}
}

// manyAtOnce sends n requests at once and returns their responses.
func manyAtOnce(w *world, n int, call func(i int) string) []*answered {
	responses := make([]*answered, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { responses[i] = w.send(w.Context(), call(i)) })
	}
	wg.Wait()
	return responses
}

// TestAttackPasswordSpraying: one password is tried on every account. Each account has
// one failure, but the address has a hundred.
func TestAttackPasswordSpraying(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		const right = "POST /token username=jane&password=secret"
		spray := func(n int) {
			for i := range n {
				if got := w.do(fmt.Sprintf("POST /token username=name%d&password=Summer2026", i)); got != wrongLogin {
					t.Fatalf("guess %d of %d, each at another account\n  got %s\n  want %s", i+1, n, got, wrongLogin)
				}
			}
		}
		spray(99)
		if got := w.do(right); got != tokens {
			t.Errorf("%s after 99 failures from its address\n  got %s\n  want tokens", right, got)
		}
		spray(100)
		if got := w.do(right); w.last.status != 429 || w.last.header.Get("Retry-After") != "1" {
			t.Errorf("%s after 100 failures in a row from its address\n  got %s\n  want a wait of 1 s", right, got)
		}
		if got := w.do(strings.Replace(right, " username", " from 192.0.2.2 username", 1)); got != tokens {
			t.Errorf("%s from another address\n  got %s\n  want tokens", right, got)
		}
		if got := w.do("wait 1s ; POST /token username=name7&password=Summer2026 ; " + right); w.last.header.Get("Retry-After") != "2" {
			t.Errorf("%s after one more failure\n  got %s\n  want a wait of 2 s", right, got)
		}
		if got := w.do("wait 2s ; " + right + " ; POST /token username=name7&password=Summer2026"); got != wrongLogin {
			t.Errorf("a guess after a success\n  got %s\n  want %s: the failures are reset", got, wrongLogin)
		}
	})
}

// TestAttackLoginsOfAVisitor: a page of another site sends wrong passwords from the
// browser of its visitor, to lock the visitor out.
func TestAttackLoginsOfAVisitor(t *testing.T) {
	refused := oauthRefusal(403, "invalid_request", "cross_origin", "Cross-origin request")
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
			if got := w.do("repeat 6 POST /token " + headers + " username=johndoe&password=wrong"); got != refused {
				t.Errorf("POST /token %s\n  got %s\n  want %s", headers, got, refused)
			}
			if got := w.do("POST /token username=johndoe&password=secret"); got != tokens {
				t.Errorf("a login after six requests %s\n  got %s\n  want tokens", headers, got)
			}
		})
	}
}

// TestAttackNamesThatFold: some functions fold letters of other scripts to ASCII. No
// such letter matches one of a username, neither at a login nor in the throttle.
func TestAttackNamesThatFold(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim", "secret")
		for _, name := range []string{"adm%C4%B0n", "adm%C4%B1n", "%E2%84%AAim", "%C5%BFara"} {
			if got := w.do("POST /token username=" + name + "&password=secret"); got != wrongLogin {
				t.Errorf("POST /token of %s\n  got %s\n  want %s", name, got, wrongLogin)
			}
		}
		w.do("repeat 5 POST /token username=%E2%84%AAim&password=wrong")
		if got := w.do("POST /token username=kim&password=secret"); got != tokens {
			t.Errorf("a login after five failures of a name that folds to this one\n  got %s\n  want tokens", got)
		}
	})
}

// TestAttackStrangersFromEverywhere: strangers from many networks fill the queue for
// hashing. A client from whose network the account has a live session still logs in, and
// no stranger learns which names have an account.
func TestAttackStrangersFromEverywhere(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.addUser("kim", "secret")
		for _, from := range []string{"2001:db8:1::1", "192.0.2.77"} {
			w.do("POST /token from " + from + " username=johndoe&password=secret")
		}
		w.keepTokens("left")
		w.do("POST /revoke token=$left")
		q := w.server.passwords.queue
		for range cap(q.running) {
			q.running <- struct{}{}
		}
		for i := 0; ; i++ {
			if _, err := q.enter(w.Context(), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), false); err != nil {
				break
			}
		}
		counting := &countingStore{Store: w.store}
		w.server.store = counting
		busy := oauthRefusal(503, "temporarily_unavailable", "too_busy", "Too many passwords are being checked", "Retry-After: 1")
		for _, tt := range []struct{ who, login, want string }{
			{"the owner from the network of a session", "POST /token username=johndoe&password=secret", tokens},
			{"the owner from the /48 of a session", "POST /token from 2001:db8:1:9::1 username=johndoe&password=secret", tokens},
			{"the owner from another network", "POST /token from 192.0.2.9 username=johndoe&password=secret", busy},
			{"the owner from the network of a session that has ended", "POST /token from 192.0.2.77 username=johndoe&password=secret", busy},
			{"an owner without sessions", "POST /token username=kim&password=secret", busy},
			{"a stranger who tries a name without an account", "POST /token from 192.0.2.9 username=nobody&password=secret", busy},
			{"a stranger who tries a name with an account", "POST /token from 192.0.2.9 username=johndoe&password=guess", busy},
			{"a stranger who registers", `POST /users/ from 192.0.2.9 {"username":"mallory","password":"correct horse"}`, refusal(503, "too_busy", "Too many passwords are being checked", "Retry-After: 1")},
		} {
			response := make(chan *answered, 1)
			counting.calls = ""
			go func() { response <- w.send(w.Context(), tt.login) }()
			synctest.Wait()
			if strings.Contains(tt.login, "/token") && counting.calls != "UserByName Sessions " {
				t.Errorf("%s: the server calls %sof the store, want the same for all", tt.who, counting.calls)
			}
			q.passOn() // a core is free, and goes to a known client if one waits
			synctest.Wait()
			for len(q.running) < cap(q.running) {
				q.running <- struct{}{}
			}
			if got := w.show(<-response); got != tt.want {
				t.Errorf("%s\n  got %s\n  want %s", tt.who, got, tt.want)
			}
		}
	})
}

// A countingStore writes down the reads of a login.
type countingStore struct {
	Store
	calls string
}

func (s *countingStore) UserByName(ctx context.Context, name string) (User, error) {
	s.calls += "UserByName "
	return s.Store.UserByName(ctx, name)
}

func (s *countingStore) Sessions(ctx context.Context, id int64) ([]Session, error) {
	s.calls += "Sessions "
	return s.Store.Sessions(ctx, id)
}

// TestAttackImportedHash: a hash in the store is stronger than those of the server. Once
// the server has met it, every login takes as long, so it does not reveal its account.
func TestAttackImportedHash(t *testing.T) {
	w := newWorld(t, 1000)
	w.addUser("imported", "secret", func(u *User) { u.PasswordHash = Hasher{Iterations: 300_000}.Hash("secret") })
	w.server.meetHashes(t.Context())
	quickest := map[string]time.Duration{}
	for i := range 100 {
		for _, name := range []string{"imported", "johndoe", "nobody"} {
			start := time.Now()
			w.do(fmt.Sprintf("POST /token from 192.0.2.%d username=%s&password=wrong", i, name))
			took := time.Since(start)
			if w.last.status != 401 {
				t.Fatalf("a wrong login as %s = %d, want 401", name, w.last.status)
			}
			if quickest[name] == 0 || took < quickest[name] {
				quickest[name] = took
			}
		}
		// Other programs can only slow logins down. A leak is a factor of 300.
		if most, least := max(quickest["imported"], quickest["johndoe"], quickest["nobody"]), min(quickest["imported"], quickest["johndoe"], quickest["nobody"]); i >= 4 && most < 3*least {
			return
		}
	}
	t.Errorf("the quickest wrong logins take %v, want the same for all names", quickest)
}
