package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// The tests of this file use fakeEtcd, below, instead of etcd. STDAUTH_TEST_ETCD=host:port
// runs some of them on a real cluster, as the tests in e2e/ do.

func TestEtcdStore(t *testing.T) {
	open := func(t *testing.T) Store { return newFakeEtcd().open(t) }
	testStore(t, open)
	testStoreClock(t, open)
}

// TestEtcdStoreOnAFailingCluster: the contract holds while every fifth request to etcd
// fails in some way. Only failures that leave the outcome of a write unknown are absent.
func TestEtcdStoreOnAFailingCluster(t *testing.T) {
	forReads := []fault{refused, loseResponse, noLeader.fault, hang, says(502, "<html>bad gateway</html>")}
	forWrites := []fault{refused, noLeader.fault} // known to have had no effect
	rule := func(name string, test func(t *testing.T, s testedStore)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeEtcd()
				s := testedStore{c.open(t), t}
				var n atomic.Int64
				c.fails(func(r etcdCall) error {
					n, faults := n.Add(1), forReads
					if r.isWrite() {
						faults = forWrites
					}
					if n%5 > 0 {
						return nil
					}
					return faults[n/5%int64(len(faults))](r)
				})
				test(t, s)
				c.fails(nil)
			})
		})
	}
	testAccounts(rule)
	testImport(rule)
	testSessions(rule)
	rule("random operations have the same results as on a simple model", func(t *testing.T, s testedStore) {
		simulate(t, 1000, s.Store, func(s Store) Store { return s })
	})
}

func TestEtcdStoreOnARealCluster(t *testing.T) {
	openRealEtcd(t)
	testStore(t, func(t *testing.T) Store { return openRealEtcd(t) })
}

func TestEtcdAddress(t *testing.T) {
	for _, test := range []struct{ address, want string }{
		{"etcd://127.0.0.1:2379", "[http://127.0.0.1:2379] /stdauth/"},
		{"etcd://127.0.0.1:2379/", "[http://127.0.0.1:2379] /stdauth/"},
		{"etcd://a:1,b:2,[::1]:3", "[http://a:1 http://b:2 http://[::1]:3] /stdauth/"},
		{"etcds://a.example.com:2379/auth/test", "[https://a.example.com:2379] /auth/test/"},

		{"http://127.0.0.1:2379", "an etcd address begins with etcd:// or etcds://"},
		{"etcd:127.0.0.1:2379", "an etcd address begins with etcd:// or etcds://"},
		{"etcd://", `"" in an etcd address is not host:port`},
		{"etcd://a", `"a" in an etcd address is not host:port`},
		{"etcd://a:2379,", `"" in an etcd address is not host:port`},
		{"etcd://a:2379, b:2379", `" b:2379" in an etcd address is not host:port`},
		{"etcd://:2379", `":2379" in an etcd address is not host:port`},
		{"etcd://a:0", `"a:0" in an etcd address is not host:port`},
		{"etcd://a:65536", `"a:65536" in an etcd address is not host:port`},
		{"etcd://a:2379?x", `"a:2379?x" in an etcd address is not host:port`},
		{"etcd://a:2379/b?c", `"b?c" in an etcd address is not a prefix of keys: ASCII letters, digits and @ . + - _ /`},
		{"etcd://root:hunter2@a:2379", "the user of etcd belongs in STDAUTH_ETCD_USERNAME and STDAUTH_ETCD_PASSWORD"},
	} {
		endpoints, prefix, err := parseEtcdAddress(test.address)
		got := fmt.Sprint(endpoints, " ", prefix)
		if err != nil {
			got = err.Error()
		}
		wantEqual(t, "parseEtcdAddress("+test.address+")", got, test.want)
	}
}

func TestEtcdCopiesDoNotAllUseTheSameMember(t *testing.T) {
	first := map[string]bool{}
	for range 100 {
		first[newFakeEtcd().store().gateway.endpoint(0)] = true
	}
	wantEqual(t, "members that are used first", len(first), 3)
}

// TestEtcdHandshakeThatHangs: a member that accepts a connection and says nothing does not
// keep its place among the connections. A dial goes on when its request has given up.
func TestEtcdHandshakeThatHangs(t *testing.T) {
	l := loopback(t)
	g, _, err := newGateway("etcds://"+l.Addr().String(), "", "")
	noError(t, err)
	transport := g.client.Transport.(*http.Transport)
	transport.MaxConnsPerHost = 1
	silent := make(chan net.Conn, 1)
	go func() {
		conn, _ := l.Accept()
		silent <- conn
	}()
	read := etcdTxn{Success: []etcdOp{getKey("/stdauth/format")}}
	if _, err := g.try(t.Context(), g.endpoint(0), read); err == nil {
		t.Error("try at a member that says nothing = nil, want an error")
	}
	defer (<-silent).Close()
	member := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"header":{"revision":"1"},"succeeded":true,"responses":[{"response_range":{}}]}`)
	}))
	member.Listener.Close()
	member.Listener = l
	member.StartTLS()
	defer member.Close()
	transport.TLSClientConfig = member.Client().Transport.(*http.Transport).TLSClientConfig
	wantErr(t, "txn when the member works again", errOf(g.txn(t.Context(), read, false)), nil)
}

// TestEtcdStoreIsNotOpened has the errors at the start. Each is one line that names the cause.
func TestEtcdStoreIsNotOpened(t *testing.T) {
	failing := func(f fault) func(*fakeEtcd) { return func(c *fakeEtcd) { c.fails(f) } }
	refusing := func(r etcdRefusal) func(*fakeEtcd) { return func(c *fakeEtcd) { c.refusal = r } }
	user := func(known, given string) func(*fakeEtcd) { return func(c *fakeEtcd) { c.user, c.given = known, given } }
	for _, test := range []struct {
		name string
		set  func(c *fakeEtcd)
		want string // at once, except where each member may work a moment later
	}{
		{"a port that is not one of etcd is refused after a wait", failing(says(404, "<html>no such page\n")), ":2379: not a response of etcd"},
		{"a port that responds in JSON but is not one of etcd is refused after a wait", failing(says(200, "{}")), ":2379: not a response of etcd"},
		{"a cluster that refuses connections is refused after a wait", failing(refused), "connection refused"},
		{"a cluster without a leader is refused after a wait", failing(noLeader.fault), "etcdserver: no leader"},
		{"a missing user is refused", user("alice:secret", ""), "etcdserver: user name is empty"},
		{"a wrong password is refused", user("alice:secret", "alice:guess"), "etcdserver: authentication failed, invalid user ID or password"},
		{"a user without the permission to write is refused by a named member", refusing(denied), ":2379: etcdserver: permission denied"},
		{"a user without the permission to write to an existing store is refused", func(c *fakeEtcd) {
			c.put("/stdauth/format", "1")
			c.refusal = denied
		}, "etcdserver: permission denied"},
		{"a cluster without space is refused", refusing(noSpace), "etcdserver: mvcc: database space exceeded (alarm NOSPACE)"},
		{"a corrupt cluster is refused", refusing(corrupt), "etcdserver: corrupt cluster (alarm CORRUPT)"},
		{"keys of another program are refused", func(c *fakeEtcd) { c.put("/stdauth/config", "x") },
			"the keys under /stdauth/ are not those of stdauth"},
		{"keys of another version are refused", func(c *fakeEtcd) { c.put("/stdauth/format", "2") },
			"the keys under /stdauth/ were written by another version of stdauth"},
		{"keys that another version creates at the same time are refused", func(c *fakeEtcd) {
			c.meanwhile(func() { c.put("/stdauth/format", "2") })
		}, "the keys under /stdauth/ were written by another version of stdauth"},
		{"keys of an interrupted import are refused", func(c *fakeEtcd) { c.put("/stdauth/format", "1"); c.put("/stdauth/last_id", `"importing"`) },
			"an import is under way, or was cut off: then remove the keys under /stdauth/ and import again"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeEtcd()
				test.set(c)
				start := time.Now()
				err := c.store().open(t.Context())
				if err == nil || !strings.HasSuffix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("open = %v\nwant one line that ends in: %s", err, test.want)
				}
				most := time.Duration(0)
				if c.fault != nil && c.count("/v3/kv/txn") > 1 {
					most = etcdPatience
				}
				if took := time.Since(start); took > most {
					t.Errorf("open took %v, want at most %v", took, most)
				}
			})
		})
	}
}

// TestEtcdTokenIsRenewedOnce: a member may forget the tokens of etcd. Of many requests
// that are then refused, one fetches a new token for all.
func TestEtcdTokenIsRenewedOnce(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		c.fails(func(etcdCall) error {
			for range 100 { // all requests are refused before one has a new token
				runtime.Gosched()
			}
			return nil
		})
		for _, forgotten := range []etcdRefusal{lostToken, oldToken} {
			c.forget(forgotten)
			before := c.count("/v3/auth/authenticate")
			errs := atOnce(20, func(n int) error { return errOf(s.Session(t.Context(), s.u.ID, s.made.ID)) })
			wantErr(t, "Session with a token that "+forgotten.Message, errors.Join(errs...), nil)
			wantEqual(t, "new tokens that were fetched", c.count("/v3/auth/authenticate")-before, 1)
		}
	}, withUser)(t)
}

// TestEtcdMemberRefusesEveryToken: a member that has not yet heard of a token, or of its
// user, is left for the next one, also by a write.
func TestEtcdMemberRefusesEveryToken(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		for _, refusal := range []etcdRefusal{lostToken, oldToken} {
			c.fails(at(s.member(), at("/v3/kv/txn", refusal.fault)))
			done := need(s.e.commit(t.Context(), etcdTxn{Success: []etcdOp{putKey("/stdauth/x", "x")}}))(t)
			wantEqual(t, "whether a write is made at the next member after "+refusal.Message, done, true)
		}
	}, withUser)(t)
}

// TestEtcdLogsThatTheClusterIsLostOnce: while the whole cluster is away, the log has one
// line for that, and no fail-overs.
func TestEtcdLogsThatTheClusterIsLostOnce(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		c.fails(refused)
		read := func() { s.e.User(t.Context(), 1) }
		read()
		s.log.Reset()
		for range 10 {
			read()
		}
		c.fails(nil)
		read()
		if got := s.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "the etcd cluster responds again") {
			t.Errorf("the log from when the cluster is lost until it is back:\n%s", got)
		}
	})(t)
}

// TestEtcdWarnsOfClocks: clocks that differ make tokens fail in ways that are hard to
// explain, so the log has one line when they differ too much.
func TestEtcdWarnsOfClocks(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		for _, test := range []struct {
			behind time.Duration
			want   string
		}{
			{leeway, ""}, {-leeway, ""}, {0, ""},
			{10 * time.Minute, "ahead=10m0s"},
			{-10 * time.Minute, "ahead=-10m0s"},
		} {
			s.log.Reset()
			s.e.gateway.skewed.Store(false)
			c.date = time.Now().Add(-test.behind).UTC().Format(http.TimeFormat)
			for range 2 {
				s.e.User(t.Context(), 1)
			}
			if got := s.log.String(); strings.Count(got, "\n") > 1 || !strings.Contains(got, test.want) || test.want == "" && got != "" {
				t.Errorf("the log when a member is %v behind: %q, want %q", test.behind, got, test.want)
			}
		}
	})(t)
}

// TestEtcdRangeHas: a response has only keys that were asked for.
func TestEtcdRangeHas(t *testing.T) {
	for _, test := range []struct {
		read etcdOp
		key  string
		want bool
	}{
		{getKey("b"), "b", true},
		{getKey("b"), "a", false},
		{getKey("b"), "ba", false},
		{getBetween("b", "d"), "a", false},
		{getBetween("b", "d"), "b", true},
		{getBetween("b", "d"), "c", true},
		{getBetween("b", "d"), "d", false},
		{getBetween("b", "d"), "e", false},
		{putKey("b", 1), "b", false},
		{removeKey("b"), "b", false},
	} {
		wantEqual(t, jsonText(t, test.read)+" has the key "+test.key, test.read.Range.has([]byte(test.key)), test.want)
	}
}

// TestEtcdFindsAnAddressAmongThousands: an address is searched page by page to the last
// account, and no further than the limit needs.
func TestEtcdFindsAnAddressAmongThousands(t *testing.T) {
	for _, accounts := range []int64{999, 1000, 1001, 2000, 2500} {
		c := newFakeEtcd()
		s := testedStore{c.open(t), t}
		for id := int64(1); id <= accounts; id++ {
			u := newUser(fmt.Sprint("user", id))
			u.ID, u.Email = id, "other@example.com"
			if id == 1 || id == accounts {
				u.Email = "wanted@example.com"
			}
			c.put(s.Store.(*EtcdStore).userKey(id), jsonText(t, u))
		}
		for _, test := range []struct {
			filter UserFilter
			limit  int
			want   []int64
			reads  int64
		}{
			{UserFilter{Email: "wanted@example.com"}, 10, []int64{1, accounts}, accounts/1000 + 1},
			{UserFilter{Email: "wanted@example.com"}, 1, []int64{1}, 1},
			{UserFilter{Email: "nobody@example.com"}, 1, nil, accounts/1000 + 1},
			{UserFilter{}, 3, []int64{1, 2, 3}, 1},
		} {
			before := c.count("/v3/kv/txn")
			users := need(s.Users(t.Context(), test.filter, 0, test.limit))(t)
			call := fmt.Sprintf("of %d accounts, Users(%v, limit %d)", accounts, test.filter, test.limit)
			wantEqual(t, call, idsOf(users), test.want)
			wantEqual(t, "the reads for it: "+call, int64(c.count("/v3/kv/txn")-before), test.reads)
		}
	}
}

// TestEtcdSessionIsOneRoundTrip: Session reads the session and its account in one round
// trip, as every request with an access token waits for it.
func TestEtcdSessionIsOneRoundTrip(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		before := len(c.calls)
		wantErr(t, "Session", errOf(s.Session(t.Context(), s.u.ID, s.made.ID)), nil)
		wantEqual(t, "requests of Session", len(c.calls)-before, 1)
	})(t)
}

// etcdChanges are all changes of a store.
var etcdChanges = append(changesOfAll[:len(changesOfAll):len(changesOfAll)],
	storeChange{"UpdateUser that changes the password", func(s Store, by Caller, u User, _ Session) error {
		return errOf(s.UpdateUser(context.Background(), by, u.ID, func(u *User) error { u.Epoch++; return nil }))
	}},
	storeChange{"UpdateUser that demotes an admin", func(s Store, by Caller, u User, _ Session) error {
		return errOf(s.UpdateUser(context.Background(), by, u.ID, func(u *User) error { u.Role = RoleUser; return nil }))
	}},
)

// eachEtcdChange runs a test for each of etcdChanges, with one of two admins.
func eachEtcdChange(t *testing.T, outcome string, test func(t *testing.T, c *fakeEtcd, change func() error)) {
	for _, way := range etcdChanges {
		t.Run(way.name+" "+outcome, onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
			s.create(newAdmin("another"))
			root := s.create(newAdmin("root"))
			made := s.login(root)
			test(t, c, func() error { return way.change(s.Store, Caller{}, root, made) })
		}))
	}
}

// TestEtcdResponseLost: a member makes the change, but its response is lost. The outcome
// is unknown, which is ErrUnavailable, and the change is not sent again.
func TestEtcdResponseLost(t *testing.T) {
	eachEtcdChange(t, "is not sent again if its response is lost", func(t *testing.T, c *fakeEtcd, change func() error) {
		before, writes := c.revision, 0
		c.fails(eachWrite(func(r etcdCall) error { writes++; return loseResponse(r) }))
		wantErr(t, "a change whose response is lost", change(), ErrUnavailable)
		wantEqual(t, "writes", writes, 1)
		wantEqual(t, "changes that the cluster has made", c.revision-before, 1)
	})
}

// TestEtcdClientHangsUp: a change is made even if the client has gone.
func TestEtcdClientHangsUp(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		wantErr(t, "EndSession for a client that has gone", s.EndSession(gone, Caller{}, s.u.ID, s.made.ID), nil)
		s.wantGone(s.made)
	})(t)
}

// TestEtcdClientHangsUpWhileReading: a canceled read does not count as a failure of the member.
func TestEtcdClientHangsUpWhileReading(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		gone, cancel := context.WithCancel(t.Context())
		c.fails(func(etcdCall) error { cancel(); return context.Canceled })
		wantErr(t, "Session for a client that goes", errOf(s.Session(gone, s.u.ID, s.made.ID)), context.Canceled)
		wantEqual(t, "fail-overs", s.e.gateway.failOvers.Load(), 0)
	})(t)
}

// TestAttackSessionThatExpiresWithinAChange: whatever takes its time, from the decision on
// a change to the response of the cluster, no change is acknowledged after the session that
// asks for it, or is refreshed, has expired.
func TestAttackSessionThatExpiresWithinAChange(t *testing.T) {
	const late = time.Second // after the session has expired
	changes := []struct {
		name   string
		change func(s testedStore, made Session, decide func()) error
		ended  error
	}{
		{"a change that a session asks for", func(s testedStore, made Session, decide func()) error {
			by := Caller{UserID: made.UserID, SessionID: made.ID}
			return errOf(s.UpdateUser(s.t.Context(), by, made.UserID, func(u *User) error { decide(); u.FullName += "!"; return nil }))
		}, ErrEnded},
		{"a refresh", func(s testedStore, made Session, decide func()) error {
			return errOf(s.UpdateSession(s.t.Context(), made.UserID, made.ID, func(made *Session, _ User) error {
				decide()
				return made.Rotate(made.Generation, time.Now().UTC(), testLife)
			}))
		}, ErrNotFound},
	}
	for _, test := range []struct {
		name   string
		fault  func(c *fakeEtcd) // set when the session has half a second left
		decide time.Duration     // how long the decision takes
		took   time.Duration     // from then on
		want   error             // or that of a session that has ended
		writes int               // in the cluster
	}{
		{name: "is not made if the decision takes too long", fault: func(*fakeEtcd) {}, decide: late, took: late, want: errSessionEnded, writes: 0},
		{name: "is not made if the decision takes until then", fault: func(*fakeEtcd) {}, decide: late / 2, took: late / 2, want: errSessionEnded, writes: 0},
		{name: "is not made if no member accepts it in time", fault: func(c *fakeEtcd) {
			c.fails(eachWrite(until(time.Now().Add(late), noLeader.fault)))
		}, took: late / 2, want: ErrUnavailable, writes: 0},
		{name: "has an unknown outcome if the response comes too late", fault: func(c *fakeEtcd) {
			c.fails(nthWrite(1, func(r etcdCall) error { r.make(); return errHang }))
		}, took: late / 2, want: errExpired, writes: 1},
		{name: "is made if there is time", fault: func(*fakeEtcd) {}, decide: late / 4, took: late / 4, writes: 1},
	} {
		for _, way := range changes {
			t.Run(way.name+" "+test.name, onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
				time.Sleep(time.Until(s.made.ExpiresAt) - late/2)
				test.fault(c)
				before, start, failOvers := c.revision, time.Now(), s.e.gateway.failOvers.Load()
				err := way.change(s.testedStore, s.made, func() { time.Sleep(test.decide) })
				want := test.want
				if want == errSessionEnded {
					want = way.ended
				}
				wantErr(t, "the change", err, want)
				if want == errExpired {
					wantErr(t, "the change", err, ErrUnavailable)
				}
				wantEqual(t, "the time of the change", time.Since(start).Truncate(10*time.Millisecond), test.took)
				wantEqual(t, "the changes in the cluster", int(c.revision-before), test.writes)
				if got := s.e.gateway.failOvers.Load(); test.want != ErrUnavailable && got != failOvers {
					t.Errorf("%d fail-overs, want none", got-failOvers)
				}
			}))
		}
	}
}

var errSessionEnded = errors.New("the session has ended")

func TestEtcdWriteIsSentAgainOnlyIfItHadNoEffect(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		want  error
	}{
		{"a write that was not sent is sent to the next member", refused, nil},
		{"a write that a member without a leader refused is sent again", noLeader.fault, nil},
		{"a write that a busy member refused is sent again", says(429, `{"code":8,"message":"etcdserver: too many requests"}`), nil},
		{"a write during a change of the leader is not sent again", says(503, `{"code":14,"message":"etcdserver: leader changed"}`), ErrUnavailable},
		{"a write whose response is late is not sent again", hang, ErrUnavailable},
		{"a write that a proxy did not pass on is not sent again", says(502, "<html>bad gateway</html>"), ErrUnavailable},
		{"a write that a proxy refuses with the words of etcd is not sent again", etcdRefusal{502, 0, `{"message":"etcdserver: no leader"}`}.fault, ErrUnavailable},
		{"a write that the user may not make is not sent again", denied.fault, ErrUnavailable},
		{"a write whose response breaks off is not sent again", breakOff, ErrUnavailable},
		{"a write whose response is not JSON is not sent again", says(200, "<html>"), ErrUnavailable},
	} {
		t.Run(test.name, onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
			c.fails(nthWrite(1, test.fault))
			wantErr(t, "CreateSession", s.tryLogin(s.u), test.want)
		}))
	}
}

// notEtcd are responses of programs that are not a member of the cluster: a member without
// its gateway, a load balancer, whatever uses the port of a member that has moved.
var notEtcd = map[string]fault{
	"a page that is not found":                  says(404, "404 page not found\n"),
	"a forbidden page":                          says(403, "<html>forbidden</html>"),
	"a redirect":                                says(307, ""),
	"no content":                                says(204, ""),
	"an empty page":                             says(200, ""),
	"a page of HTML":                            says(200, "<html>welcome</html>"),
	"the page of a failing proxy":               says(502, "<html>bad gateway</html>"),
	"an empty object":                           says(200, `{}`),
	"null":                                      says(200, `null`),
	"an object without a revision":              says(200, `{"header":{"cluster_id":"1"},"succeeded":true,"responses":[{},{}]}`),
	"an object without responses":               says(200, `{"header":{"cluster_id":"14841639068965178418","revision":"7"},"succeeded":true}`),
	"half of an object":                         says(200, `{"header":{"cluster_id":"14841639068965178418","revision":"7"},"succeeded":tr`),
	"an object of other types":                  says(200, `{"header":"ok","succeeded":"yes"}`),
	"a refusal without a transaction to refuse": says(200, `{"header":{"cluster_id":"14841639068965178418","revision":"7"}}`),
	"an error of another program with a gateway for gRPC": says(404, `{"code":5,"message":"Not Found","details":[]}`),
	"the permission denied of another program":            says(403, `{"kind":"Status","message":"secrets is forbidden","code":7}`),
	"the words of etcd without its code":                  says(403, `{"message":"etcdserver: permission denied"}`),
	"a response that is too long":                         changed(func(response []byte) []byte { return append(bytes.Repeat([]byte(" "), maxEtcdResponse), response...) }),
	"a response of another cluster": changed(func(response []byte) []byte {
		return bytes.Replace(response, []byte("14841639068965178418"), []byte("5"), 1)
	}),
	"the values of other keys": changed(func(response []byte) []byte {
		return bytes.ReplaceAll(response, []byte(`"key":"L3`), []byte(`"key":"M3`))
	}),
}

// TestAttackOneBadMember: one of three addresses responds with what is not etcd's, for
// ever. All reads succeed, and so do all writes but one that may have been sent to that
// address.
func TestAttackOneBadMember(t *testing.T) {
	for name, response := range notEtcd {
		t.Run(name+" moves on to the next member", onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
			bad := s.member()
			c.fails(at(bad, response))
			before, start := c.count(bad), time.Now()
			wantErr(t, "Session", errOf(s.Session(t.Context(), s.u.ID, s.made.ID)), nil)
			wantEqual(t, "the account in a list", s.users(0, 10), []User{s.u})
			s.rotate(s.made)
			s.e.gateway.failOvers.Add(2) // back to the bad member
			write := etcdTxn{Success: []etcdOp{putKey("/stdauth/x", "x"), getKey("/stdauth/format")}}
			wantErr(t, "a write", errOf(s.e.commit(t.Context(), write)), ErrUnavailable)
			s.login(s.u)
			if took := time.Since(start); took > 50*time.Millisecond {
				t.Errorf("five calls took %v, want no time but that between two tries", took)
			}
			wantEqual(t, "requests to the bad member", c.count(bad)-before, 2)
			wantEqual(t, "requests where a redirect leads", c.count("elsewhere"), 0)
		}))
	}
}

// TestAttackBadMemberRepeatsThePassword: a bad address does not stop the renewal of a
// token, and the log does not repeat what it responds, as that may be the
// password of etcd.
func TestAttackBadMemberRepeatsThePassword(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		bad := s.member()
		for _, status := range []int{200, 400} {
			c.forget(lostToken)
			c.fails(at(bad, at("/v3/auth/authenticate", func(r etcdCall) error { return etcdRefusal{status: status, Message: string(r.body)} })))
			wantEqual(t, "the accounts", s.users(0, 10), []User{s.u})
			s.e.gateway.failOvers.Add(2) // back to the bad member
		}
		if text := s.log.String(); strings.Contains(text, "secret") || strings.Count(text, "a member of the etcd cluster failed") != 2 {
			t.Errorf("the log has the password, or not two fail-overs:\n%s", text)
		}
	}, withUser)(t)
}

// TestEtcdFailOver: if a member fails, in whatever way, the next one is asked and stays
// the first.
func TestEtcdFailOver(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		most  time.Duration
	}{
		{"the client leaves a member that refuses the connection", refused, 0},
		{"the client leaves a member that closes the connection", loseResponse, 0},
		{"the client leaves a member that does not respond in time", hang, etcdTry},
		{"the client leaves a member without a leader", noLeader.fault, 0},
		{"the client leaves a member whose leader has changed", says(503, `{"code":14,"message":"etcdserver: leader changed"}`), 0},
		{"the client leaves a member that timed out", says(504, `{"code":14,"message":"etcdserver: request timed out"}`), 0},
		{"the client leaves a member with too many requests", says(429, `{"code":8,"message":"etcdserver: too many requests"}`), 0},
		{"the client leaves a member behind a proxy with an internal error", says(500, "<html>internal server error</html>"), 0},
		{"the client leaves a member that cancels the call", says(499, `{"code":1,"message":"context canceled"}`), 0},
		{"the client leaves a member that fails in an unknown way", says(500, `{"code":2,"message":"unknown"}`), 0},
		{"the client leaves a member whose time is over", says(504, `{"code":4,"message":"context deadline exceeded"}`), 0},
		{"the client leaves a member that aborts the call", says(409, `{"code":10,"message":"aborted"}`), 0},
		{"the client leaves a member with an internal error", says(500, `{"code":13,"message":"internal"}`), 0},
	} {
		t.Run(test.name, onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
			bad := s.member()
			c.fails(at(bad, test.fault))
			before, start := c.count(bad), time.Now()
			s.rotate(s.made)
			wantEqual(t, "the time of a refresh", time.Since(start), test.most)
			s.rotate(s.made)
			wantEqual(t, "requests to the failing member", c.count(bad)-before, 1)
			wantEqual(t, "the generation", s.sessions(s.u.ID)[0].Generation, 3)
		}))
	}
}

func TestEtcdOfOneMemberLogsNoFailOver(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		s.e.gateway.endpoints = s.e.gateway.endpoints[:1]
		c.fails(refused)
		wantErr(t, "User", errOf(s.User(t.Context(), 1)), ErrUnavailable)
		if got := s.log.String(); strings.Contains(got, "going on with the next") || strings.Count(got, "the etcd cluster does not respond") != 1 {
			t.Errorf("the log of a cluster of one member that is away: %s", got)
		}
	})(t)
}

// etcdReads are all reads of a store, of the account 1 of johndoe and a session.
var etcdReads = map[string]func(s Store) error{
	"User":       func(s Store) error { _, err := s.User(context.Background(), 1); return err },
	"UserByName": func(s Store) error { _, err := s.UserByName(context.Background(), "johndoe"); return err },
	"Users":      func(s Store) error { _, err := s.Users(context.Background(), UserFilter{}, 0, 10); return err },
	"Session":    func(s Store) error { _, _, err := s.Session(context.Background(), 1, "x"); return err },
	"Sessions":   func(s Store) error { _, err := s.Sessions(context.Background(), 1); return err },
}

func TestEtcdReadsFailWithoutTheCluster(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		c.fails(refused)
		for name, read := range etcdReads {
			wantErr(t, name, read(s), ErrUnavailable)
		}
	})(t)
}

// TestEtcdWithoutMajority: without a majority the first requests wait, as a leader may
// soon be elected, and later ones are refused at once. When the majority is back, all
// requests succeed.
func TestEtcdWithoutMajority(t *testing.T) {
	for name, fault := range map[string]fault{
		"requests without a leader are refused":       noLeader.fault,
		"requests that no member accepts are refused": refused,
		"requests without a response are refused":     hang,
	} {
		t.Run(name, onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
			time.Sleep(2 * time.Second) // Ready caches its result for one
			c.fails(fault)
			for range 3 {
				start := time.Now()
				wantErr(t, "Session", errOf(s.Session(t.Context(), s.u.ID, s.made.ID)), ErrUnavailable)
				wantErr(t, "CreateUser", s.tryCreate("another"), ErrUnavailable)
				if took := time.Since(start); took > 2*etcdPatience {
					t.Errorf("two calls took %v, want at most %v", took, 2*etcdPatience)
				}
			}
			start := time.Now()
			wantErr(t, "Ready", s.Ready(t.Context()), ErrUnavailable)
			if took := time.Since(start); took > 0 && name != "requests without a response are refused" {
				t.Errorf("Ready took %v, want it refused at once", took)
			}
			c.fails(nil)
			wantErr(t, "Session when the majority is back", errOf(s.Session(t.Context(), s.u.ID, s.made.ID)), nil)
			c.fails(until(time.Now().Add(time.Second), noLeader.fault))
			wantErr(t, "Session during a later election", errOf(s.Session(t.Context(), s.u.ID, s.made.ID)), nil)
			s.create(newUser("another"))
			time.Sleep(time.Second + 1)
			wantErr(t, "Ready when the majority is back", s.Ready(t.Context()), nil)
		}))
	}
}

// TestEtcdMembersThatHang: members that accept requests and do not respond are a lost
// cluster too. The log says it once, and later requests fail sooner: each looks whether one
// member is back, and the next one looks at another.
func TestEtcdMembersThatHang(t *testing.T) {
	const lost, back = "the etcd cluster does not respond", "the etcd cluster responds again"
	changes := map[string]func(s openedEtcd) error{
		"a read":   func(s openedEtcd) error { return errOf(s.Session(s.t.Context(), s.u.ID, s.made.ID)) },
		"a change": func(s openedEtcd) error { return s.tryUpdate(s.u.ID, func(u *User) { u.FullName += "!" }) },
	}
	for _, members := range []int{1, 3} {
		for name, call := range changes {
			t.Run(fmt.Sprintf("%s fails sooner once it is known that a cluster of %d members hangs", name, members), onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
				s.e.gateway.endpoints = s.e.gateway.endpoints[:members]
				c.fails(hang)
				wantErr(t, "the first call", call(s), ErrUnavailable)
				wantEqual(t, "lines in the log that the cluster is lost", strings.Count(s.log.String(), lost), 1)
				s.log.Reset()
				for range 2 * members {
					start := time.Now()
					wantErr(t, "a later call", call(s), ErrUnavailable)
					if took := time.Since(start); took > etcdPatience/2 {
						t.Errorf("a later call took %v, want at most %v", took, etcdPatience/2)
					}
				}
				c.fails(at(s.member(), hang))
				if members == 1 {
					c.fails(nil)
				}
				wantErr(t, "a call when all members but the next one are back", call(s), nil)
				if got := s.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, back) {
					t.Errorf("the log from when the cluster is lost until it is back:\n%s", got)
				}
				c.fails(until(time.Now().Add(2*time.Second), noLeader.fault))
				wantErr(t, "a call during a later election", call(s), nil)
			}))
		}
	}
}

// TestEtcdWithLittleTimeLeft: one member refuses, and the next has no time to respond. That
// tells nothing about the cluster.
func TestEtcdWithLittleTimeLeft(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		refusing := at(s.member(), refused)
		c.fails(func(r etcdCall) error { return cmp.Or(refusing(r), hang(r)) })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		wantErr(t, "Session", errOf(s.Session(ctx, s.u.ID, s.made.ID)), ErrUnavailable)
		if log := s.log.String(); strings.Contains(log, "the etcd cluster does not respond") || !strings.Contains(log, "failed") {
			t.Errorf("the log has %s; want only that the first member failed", log)
		}
	})(t)
}

// TestEtcdElection: an election takes a second or two, and a request during it waits.
func TestEtcdElection(t *testing.T) {
	eachEtcdChange(t, "waits for the end of an election", func(t *testing.T, c *fakeEtcd, change func() error) {
		c.fails(until(time.Now().Add(2*time.Second), noLeader.fault))
		wantErr(t, "a change during an election", change(), nil)
	})
}

func TestEtcdReady(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		before := len(c.calls)
		for range 10 {
			wantErr(t, "Ready", s.Ready(t.Context()), nil)
		}
		wantEqual(t, "requests of ten calls of Ready within a second", len(c.calls)-before, 1)
		for _, refusal := range []etcdRefusal{noSpace, corrupt} {
			c.refusal = refusal
			time.Sleep(time.Second + 1)
			err := s.Ready(t.Context())
			wantErr(t, "Ready while "+refusal.Message, err, ErrUnavailable)
			p, _ := problemOf(err)
			wantEqual(t, "the response", p.detail, "The store cannot be used at the moment: alarm "+map[etcdRefusal]string{noSpace: "NOSPACE", corrupt: "CORRUPT"}[refusal])
		}
		c.refusal = etcdRefusal{}
		c.remove("/stdauth/format")
		time.Sleep(time.Second + 1)
		wantErr(t, "Ready of a store that was removed", s.Ready(t.Context()), ErrUnavailable)
	})(t)
}

// TestEtcdChangedInBetween: a change is decided again if what it has read changes before its
// write. Here, another copy of the server makes a change in between.
func TestEtcdChangedInBetween(t *testing.T) {
	rule := func(name string, test func(t *testing.T, c *fakeEtcd, one, two testedStore)) {
		t.Run(name, func(t *testing.T) {
			c := newFakeEtcd()
			test(t, c, testedStore{c.open(t), t}, testedStore{c.open(t), t})
		})
	}
	rule("two logins at once leave a hundred sessions", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		u := one.create(newUser("johndoe"))
		for range maxSessions - 1 {
			one.login(u)
		}
		c.meanwhile(func() { two.login(u) })
		one.login(u)
		wantEqual(t, "sessions", len(one.sessions(u.ID)), maxSessions)
	})
	rule("a login is not decided again because of another account", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		john, jane := one.create(newUser("john")), one.create(newUser("jane"))
		before := c.count("/v3/kv/txn")
		c.meanwhile(func() { two.login(john) })
		one.login(jane)
		wantEqual(t, "requests of two logins", c.count("/v3/kv/txn")-before, 4)
	})
	rule("a refresh token that was replaced twice is refused", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		_, made := one.loggedIn("johndoe")
		c.meanwhile(func() { two.rotate(two.rotate(made)) })
		wantErr(t, "a refresh", errOf(one.refresh(made, 1)), ErrReplayed)
		one.wantGone(made)
	})
	rule("the session of a login in between ends with all others", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		u, _ := one.loggedIn("johndoe")
		c.meanwhile(func() { two.login(u) })
		wantErr(t, "EndSessions", one.EndSessions(t.Context(), Caller{}, u.ID, ""), nil)
		wantEqual(t, "Sessions", one.sessions(u.ID), nil)
	})
	rule("a login is refused if the password changes", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		u := one.create(newUser("johndoe"))
		c.meanwhile(func() { two.update(u.ID, func(u *User) { u.Epoch++ }) })
		wantErr(t, "CreateSession", one.tryLogin(u), ErrStale)
	})
	rule("a refresh sees that its account is disabled", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		u, made := one.loggedIn("johndoe")
		c.meanwhile(func() { two.update(u.ID, func(u *User) { u.Disabled = true }) })
		wantErr(t, "UpdateSession", errOf(one.UpdateSession(t.Context(), u.ID, made.ID, func(s *Session, u User) error {
			if u.Disabled {
				return ErrInactive
			}
			return advance(s, u)
		})), ErrInactive)
	})
	rule("the last admin is not demoted if the other one is disabled", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		anna, ben := one.create(newAdmin("anna")), one.create(newAdmin("ben"))
		c.meanwhile(func() { two.update(ben.ID, func(u *User) { u.Disabled = true }) })
		wantErr(t, "UpdateUser", one.tryUpdate(anna.ID, func(u *User) { u.Role = RoleUser }), ErrLastAdmin)
	})
	rule("one of two accounts with one username is created", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		c.meanwhile(func() { two.create(newUser("Anna")) })
		wantErr(t, "CreateUser", one.tryCreate("anna"), ErrUsernameTaken)
	})
	rule("two accounts get two IDs", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		c.meanwhile(func() { two.create(newUser("anna")) })
		wantEqual(t, "the ID of the second", one.create(newUser("ben")).ID, 2)
	})
	imported := []User{{ID: 1, Username: "imported", Role: RoleUser}}
	rule("an import is refused if an account is created", func(t *testing.T, c *fakeEtcd, one, two testedStore) {
		c.meanwhile(func() { two.create(newUser("first")) })
		wantErr(t, "Import", one.Import(t.Context(), imported, 1), ErrNotEmpty)
	})
	for write, name := range map[int64]string{2: "before its accounts", 3: "before its end"} {
		rule("an import is refused if somebody else begins an account "+name, func(t *testing.T, c *fakeEtcd, one, _ testedStore) {
			c.fails(nthWrite(write, func(etcdCall) error { c.put("/stdauth/last_id", "7"); return nil }))
			wantErrText(t, "Import", one.Import(t.Context(), imported, 1), "somebody else")
		})
	}
}

// TestEtcdRetriesAreBounded: a change that always conflicts with others fails in the end.
// No member is blamed for it, not even one that has a moment left to respond.
func TestEtcdRetriesAreBounded(t *testing.T) {
	for name, last := range map[string]fault{
		"a change that always conflicts fails in the end":                           func(etcdCall) error { return nil },
		"a change that conflicts until a member has no time to respond is given up": hang,
	} {
		for _, members := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, of %d members", name, members), onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
				s.e.gateway.endpoints = s.e.gateway.endpoints[:members]
				writes, key, start := 0, s.e.userKey(s.u.ID), time.Now()
				c.fails(func(r etcdCall) error {
					if r.isWrite() {
						writes++
						c.put(key, string(c.kvs[key].value))
					} else if time.Since(start) > etcdPatience-100*time.Millisecond {
						return last(r)
					}
					return nil
				})
				wantErr(t, "UpdateUser", s.tryUpdate(s.u.ID, func(u *User) { u.FullName += "!" }), ErrUnavailable)
				if writes < 100 {
					t.Errorf("UpdateUser made %d tries, want 100 or more, as only the pauses between them take time here", writes)
				}
				wantEqual(t, "fail-overs", s.e.gateway.failOvers.Load(), 0)
				wantEqual(t, "the log", s.log.String(), "")
			}))
		}
	}
}

func TestEtcdKeys(t *testing.T) {
	c := newFakeEtcd()
	s := testedStore{c.open(t), t}
	u := s.create(newAdmin("Anna"))
	made := s.login(u)
	keys := []string{
		"/stdauth/admins/0000000000000000001", "/stdauth/format", "/stdauth/last_id", "/stdauth/names/anna",
		"/stdauth/sessions/0000000000000000001/" + made.ID, "/stdauth/users/0000000000000000001",
	}
	wantEqual(t, "the keys", slices.Sorted(maps.Keys(c.keys())), keys)
	s.login(s.create(newAdmin("ben")))
	s.remove(2)
	wantEqual(t, "the keys after another account was created and deleted", slices.Sorted(maps.Keys(c.keys())), keys)
	s.update(1, func(u *User) { u.Epoch++ })
	wantEqual(t, "the keys after a password change", slices.Sorted(maps.Keys(c.keys())), slices.Delete(keys, 4, 5))
}

// TestEtcdSweepsSessionsThatExpiredLongAgo: the logins of other accounts remove the key
// of a session some time after the session has expired, and never before.
func TestEtcdSweepsSessionsThatExpiredLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeEtcd()
		s := testedStore{c.open(t), t}
		other := s.create(newUser("other"))
		keys := map[string]bool{}
		var last Session
		for n := range 10 {
			made := s.login(s.create(newUser(fmt.Sprint("user", n))))
			keys[s.Store.(*EtcdStore).sessionsOf(made.UserID)+made.ID] = true
			last = made
		}
		left := func() (n int) {
			for key := range c.keys() {
				if keys[key] {
					n++
				}
			}
			return n
		}
		time.Sleep(testLife.Idle / 2)
		s.rotate(last)
		time.Sleep(testLife.Idle/2 + sweepSlack)
		for range 10 {
			s.login(other)
		}
		wantEqual(t, "sessions with a key while the clock of a copy may be behind", left(), 10)
		time.Sleep(time.Second)
		for range 10 {
			s.login(other)
		}
		wantEqual(t, "sessions with a key a second later: the refreshed one", left(), 1)
	})
}

// TestEtcdKeysOfTheFirstVersion: the first version attached the key of each session to a
// lease, which ends some time after the session. A refresh detaches the key.
func TestEtcdKeysOfTheFirstVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in 2000, before its sessions expire
		var kvs []struct {
			Key, Value string
			Lease      int64
		}
		noError(t, json.Unmarshal([]byte(readText(t, "testdata/first-version-etcd.json")), &kvs))
		c := newFakeEtcd()
		for _, kv := range kvs {
			c.kvs[kv.Key] = fakeKV{[]byte(kv.Value), 1, 1, kv.Lease != 0}
		}
		e := c.store()
		e.life = monthLife
		noError(t, e.open(t.Context()))
		s := testedStore{e, t}
		jane := s.rotate(s.sessions(3)[0])
		testFirstVersion(t, s, map[string]string{
			"current":                 "MX72AFDSPIPBZE3L6DKDVPNFMT.2.2.QA3qiwJ8_KVfenMpDR5zaPfjrWgZwT5qVchaFSCWF34",
			"replaced":                "MX72AFDSPIPBZE3L6DKDVPNFMT.2.1.Jn-i9e--UPyFkpmNn5wBtxjKxznfEHnOSBPG5Vz6A64",
			"ended by a new password": "MO3J63MCOEWY2QI32V2C4V5KLE.3.1.kzZWZ0cUMuj3VpfimFIEOQsVogSstxqsvzwYnoHff8o",
		})
		maps.DeleteFunc(c.kvs, func(_ string, kv fakeKV) bool { return kv.leased }) // the leases end
		s.wantGone(Session{UserID: 2, ID: "VXTE6EZ4O4IEMY6LSBNGDVH7S5"})
		if c.keys()[e.sessionsOf(3)+jane.ID] == "" {
			t.Error("a session that this version refreshed ended with the lease of the first version")
		}
	})
}

// TestEtcdImport: an import is several transactions. Until the last one, the store
// cannot be used.
func TestEtcdImport(t *testing.T) {
	users := numberedUsers(100)
	for i := range users {
		users[i].Role = RoleAdmin
	}
	c := newFakeEtcd()
	s := testedStore{c.open(t), t}
	batches := 0
	var sent etcdCall
	c.fails(eachWrite(func(r etcdCall) error {
		batches++
		switch batches {
		case 2:
			sent = r
		case 3:
			wantErr(t, "CreateUser during an import", s.tryCreate("user99"), ErrUnavailable)
			wantErr(t, "a second import", s.Import(t.Context(), users, 0), ErrNotEmpty)
			return denied
		}
		return nil
	}))
	wantErr(t, "Import that is interrupted", s.Import(t.Context(), users, 100), ErrUnavailable)
	c.fails(nil)
	wantErrText(t, "open after an interrupted import", c.store().open(t.Context()), "import")
	c.txn(fakeTxn{Success: []fakeOp{{Delete: &fakeRange{Key: []byte("/stdauth/"), RangeEnd: []byte("/stdauth0")}}}})
	s.Store = c.open(t)
	wantErr(t, "Import", s.Import(t.Context(), users, 120), nil)
	wantEqual(t, "Users", s.users(0, 1000), users)
	wantEqual(t, "the next ID", s.create(newUser("next")).ID, 121)
	s.remove(1)
	before := c.keys()
	noError(t, sent.make())
	wantEqual(t, "the keys after a part of the first import arrived late", c.keys(), before)
}

// TestEtcdImportOfLargeAccounts: accounts that were written by hand may be too large for a
// transaction, or for a list. The import is refused before it leaves a mark.
func TestEtcdImportOfLargeAccounts(t *testing.T) {
	for _, test := range []struct {
		name    string
		value   int // bytes of each account
		refused string
	}{
		{"accounts of the largest size are imported and listed", maxEtcdAccount, ""},
		{"an account that is a byte larger is refused", maxEtcdAccount + 1, `the account "user1" has more than 6000 bytes`},
		{"accounts that are larger than a transaction are refused", 40_000, `the account "user1" has more than 6000 bytes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newFakeEtcd()
			c.fails(func(r etcdCall) error {
				if len(r.body)*3/4 > 1.5*(1<<20) { // of base64
					return etcdRefusal{400, 3, "etcdserver: request is too large"}
				}
				return nil
			})
			s := testedStore{c.open(t), t}
			users := numberedUsers(1000)
			for i := range users {
				users[i].Role = RoleAdmin
				users[i].FullName = "x"
				users[i].FullName = strings.Repeat("x", test.value-len(jsonText(t, users[i]))+1)
			}
			before := c.keys()
			err := s.Import(t.Context(), users, 0)
			if test.refused != "" {
				wantErrText(t, "Import", err, test.refused)
				wantEqual(t, "the keys", c.keys(), before)
				return
			}
			noError(t, err)
			wantEqual(t, "the accounts of a list", len(s.users(0, 1000)), 1000)
		})
	}
}

// TestEtcdImportStops: whoever stops an import need not wait for its end.
func TestEtcdImportStops(t *testing.T) {
	c := newFakeEtcd()
	s := testedStore{c.open(t), t}
	users := numberedUsers(200)
	ctx, stop := context.WithCancel(t.Context())
	writes := 0
	c.fails(eachWrite(func(etcdCall) error {
		if writes++; writes == 2 {
			stop()
		}
		return nil
	}))
	wantErr(t, "Import that is stopped", s.Import(ctx, users, 0), context.Canceled)
	wantEqual(t, "the writes of the import", writes, 2)
}

// TestEtcdDamagedValue: a value that is not an account is an error and is not overwritten.
func TestEtcdDamagedValue(t *testing.T) {
	onEtcd(func(t *testing.T, c *fakeEtcd, s openedEtcd) {
		c.put("/stdauth/sessions/0000000000000000001/x", "{")
		err := errOf(s.Sessions(t.Context(), s.u.ID))
		const damaged = "the value of etcd's key /stdauth/sessions/0000000000000000001/x"
		wantErrText(t, "Sessions of an account with a damaged one", err, damaged)
		wantErrText(t, "UpdateUser of an account with a damaged session", s.tryUpdate(s.u.ID, func(*User) {}), damaged)
		c.put("/stdauth/users/0000000000000000001", "{")
		const want = "the value of etcd's key /stdauth/users/0000000000000000001"
		wantErrText(t, "UpdateUser", s.tryUpdate(s.u.ID, func(*User) {}), want)
		err = errOf(s.CreateUser(t.Context(), Caller{UserID: s.u.ID, SessionID: "x"}, newUser("another")))
		wantErrText(t, "CreateUser by a damaged account", err, want)
		for name, read := range etcdReads {
			wantErrText(t, name+" of a damaged account", read(s), want)
		}
		c.put("/stdauth/names/johndoe", "x")
		if _, err := s.UserByName(t.Context(), s.u.Username); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("UserByName of a damaged name = %v, want an error that is not ErrNotFound", err)
		}
	})(t)
}

// TestEtcdOverHTTP runs the store over sockets, with two members, one of them down.
func TestEtcdOverHTTP(t *testing.T) {
	c := newFakeEtcd()
	members := map[string]*httptest.Server{}
	address := "etcd:/"
	for range 2 {
		member := httptest.NewServer(c)
		defer member.Close()
		members[member.URL] = member
		address += "," + member.Listener.Addr().String()
	}
	address = strings.Replace(address, ",", "/", 1)
	var log bytes.Buffer
	e := need(OpenEtcdStore(t.Context(), address, "", "", testLife, slog.New(slog.NewTextHandler(&log, nil))))(t)
	defer e.Close()
	s := testedStore{e, t}
	u := s.create(newUser("johndoe"))
	members[e.gateway.endpoints[0]].Close()
	s.login(u)
	wantIn(t, "the log", log.String(), "a member of the etcd cluster failed")
}

// openRealEtcd returns an empty store on a real cluster.
func openRealEtcd(t testing.TB) *EtcdStore {
	t.Helper()
	hostport := os.Getenv("STDAUTH_TEST_ETCD")
	if hostport == "" {
		t.Skip("STDAUTH_TEST_ETCD=host:port is not set")
	}
	address := fmt.Sprintf("etcd://%s/stdauth-test/%d", hostport, time.Now().UnixNano())
	e, err := OpenEtcdStore(t.Context(), address, os.Getenv("STDAUTH_ETCD_USERNAME"), os.Getenv("STDAUTH_ETCD_PASSWORD"), testLife, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.gateway.txn(context.Background(), etcdTxn{Success: []etcdOp{{Delete: getAll(e.prefix).Range}}}, true)
		e.Close()
	})
	return e
}

func jsonText(t *testing.T, value any) string {
	t.Helper()
	text := need(json.Marshal(value))(t)
	return string(text)
}

// changed is a fault that handles a request and changes the response.
func changed(change func(response []byte) []byte) fault {
	return func(r etcdCall) error {
		response, err := r.handle(r.path, r.body, "")
		if err != nil {
			return err
		}
		text, _ := json.Marshal(response)
		return etcdRefusal{status: 200, Message: string(change(text))}
	}
}

// fakeEtcd is a cluster of three members that always agree. It has the keys, leases,
// users and errors of etcd that the store uses. Its messages are declared apart from
// those of the store, to catch a misspelt member there.
type fakeEtcd struct {
	user, given string      // with their passwords: the one that etcd knows, and that of the store
	refusal     etcdRefusal // of every write
	date        string      // of each response

	mu               sync.Mutex // guards the fields below
	fault            fault      // if not nil, called before each request
	calls            []etcdCall
	revision, logins int64
	kvs              map[string]fakeKV
	token            string
	forgotten        etcdRefusal
}

type fakeKV struct {
	value            []byte
	created, changed int64
	leased           bool // it goes with its lease, unless it is put again
}

// An etcdCall is a request to a member.
type etcdCall struct {
	*fakeEtcd
	host, path string
	body       []byte
}

func (r etcdCall) isWrite() bool {
	return r.path == "/v3/kv/txn" && (bytes.Contains(r.body, []byte("request_put")) || bytes.Contains(r.body, []byte("request_delete")))
}

// make does what the request asks for.
func (r etcdCall) make() error { return errOf(r.handle(r.path, r.body, "")) }

// A fault is called with a request before it reaches a member. An error is returned in
// place of the response.
type fault func(r etcdCall) error

// An etcdRefusal is an error of etcd, in the form of its gateway.
type etcdRefusal struct {
	status  int
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (r etcdRefusal) Error() string { return r.Message }

func (r etcdRefusal) fault(etcdCall) error { return r }

func newFakeEtcd() *fakeEtcd {
	return &fakeEtcd{revision: 1, kvs: map[string]fakeKV{}}
}

// store returns a store that is not yet open.
func (c *fakeEtcd) store() *EtcdStore {
	user, password, _ := strings.Cut(c.given, ":")
	gateway, prefix, err := newGateway("etcd://one:2379,two:2379,three:2379", user, password)
	if err != nil {
		panic(err)
	}
	gateway.client.Transport = c
	return newEtcdStore(gateway, prefix, testLife)
}

// open returns the store of one copy of the server.
func (c *fakeEtcd) open(t *testing.T) *EtcdStore {
	t.Helper()
	e := c.store()
	noError(t, e.open(t.Context()))
	t.Cleanup(func() { e.Close() })
	return e
}

// RoundTrip makes the cluster an http.RoundTripper without a socket, as testing/synctest
// needs.
func (c *fakeEtcd) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Grpc-Metadata-Hasleader") != "true" || r.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("a request for which a member without a leader would wait, or that is not JSON: %v", r.Header)
	}
	runtime.Gosched() // other requests run while a real cluster responds
	c.mu.Lock()
	call := etcdCall{c, r.URL.Host, r.URL.Path, body}
	c.calls = append(c.calls, call)
	fault := c.fault
	c.mu.Unlock()
	if fault != nil {
		err = fault(call)
	}
	if err == errHang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if err == errBreaksOff {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(iotest.ErrReader(err))}, nil
	}
	if _, ok := errors.AsType[etcdRefusal](err); err != nil && !ok {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Date", c.date)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err == nil {
		c.ServeHTTP(w, r)
	} else {
		c.response(w, nil, err)
	}
	return w.Result(), nil
}

func (c *fakeEtcd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var response any
	if err == nil {
		response, err = c.handle(r.URL.Path, body, r.Header.Get("Authorization"))
	}
	c.response(w, response, err)
}

func (c *fakeEtcd) response(w http.ResponseWriter, response any, err error) {
	if refused, ok := errors.AsType[etcdRefusal](err); ok {
		w.Header().Set("Location", "http://elsewhere/") // for a redirect
		w.WriteHeader(refused.status)
		if response = refused; refused.Code == 0 {
			io.WriteString(w, refused.Message)
			return
		}
	}
	json.NewEncoder(w).Encode(response)
}

func (c *fakeEtcd) handle(path string, body []byte, token string) (response any, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path == "/v3/auth/authenticate" {
		var in struct{ Name, Password string }
		if err := strict(body, &in); err != nil {
			return nil, err
		}
		if in.Name+":"+in.Password != c.user {
			return nil, etcdRefusal{400, 3, "etcdserver: authentication failed, invalid user ID or password"}
		}
		c.logins++
		c.token = fmt.Sprint("token.", c.logins)
		return map[string]string{"token": c.token}, nil
	}
	switch {
	case c.user != "" && token == "":
		return nil, etcdRefusal{400, 3, "etcdserver: user name is empty"}
	case c.user != "" && token != c.token:
		return nil, cmp.Or(c.forgotten, lostToken)
	}
	if path != "/v3/kv/txn" {
		return nil, etcdRefusal{404, 0, "404 page not found"}
	}
	var in fakeTxn
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	return c.txn(in)
}

func strict(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return etcdRefusal{400, 3, err.Error()}
	}
	return nil
}

type fakeTxn struct {
	Compare []struct {
		Key            []byte `json:"key"`
		RangeEnd       []byte `json:"range_end"`
		Target         string `json:"target"`
		Result         string `json:"result"`
		CreateRevision int64  `json:"create_revision,string"`
		ModRevision    int64  `json:"mod_revision,string"`
		Value          []byte `json:"value"`
	} `json:"compare"`
	Success []fakeOp `json:"success"`
	Failure []fakeOp `json:"failure"`
}

type fakeOp struct {
	Range *fakeRange `json:"request_range"`
	Put   *struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	} `json:"request_put"`
	Delete *fakeRange `json:"request_delete_range"`
}

type fakeRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end"`
	Limit    int    `json:"limit,string"`
}

// txn has the rules of etcd: at most 128 operations, and no key written twice.
func (c *fakeEtcd) txn(in fakeTxn) (any, error) {
	writes, written := false, map[string]bool{}
	for i, op := range slices.Concat(in.Success, in.Failure) {
		writes = writes || op.Range == nil
		if op.Put == nil {
			continue
		}
		if written[string(op.Put.Key)] {
			return nil, etcdRefusal{400, 3, "etcdserver: duplicate key given in txn request"}
		}
		written[string(op.Put.Key)] = i < len(in.Success)
	}
	switch {
	case max(len(in.Compare), len(in.Success), len(in.Failure)) > 128:
		return nil, etcdRefusal{400, 3, "etcdserver: too many operations in txn request"}
	case writes && c.refusal.Code != 0:
		return nil, c.refusal
	}
	succeeded := true
	for _, cmp := range in.Compare {
		keys := c.find(fakeRange{cmp.Key, cmp.RangeEnd, 0})
		if len(keys) == 0 {
			keys = []string{""} // an unknown key compares like one of zeros
		}
		for _, key := range keys {
			kv := c.kvs[key]
			switch cmp.Target + " " + cmp.Result {
			case "MOD EQUAL":
				succeeded = succeeded && kv.changed == cmp.ModRevision
			case "CREATE LESS":
				succeeded = succeeded && kv.created < cmp.CreateRevision
			case "VALUE EQUAL":
				succeeded = succeeded && key != "" && bytes.Equal(kv.value, cmp.Value)
			default:
				return nil, etcdRefusal{400, 3, "not a comparison of the fake"}
			}
		}
	}
	ops := in.Failure
	if succeeded {
		ops = in.Success
	}
	next := c.revision + 1
	responses := []map[string]any{}
	for _, op := range ops {
		switch {
		case op.Range != nil:
			responses = append(responses, map[string]any{"response_range": map[string]any{"kvs": c.list(*op.Range)}})
		case op.Put != nil:
			old := c.kvs[string(op.Put.Key)]
			c.kvs[string(op.Put.Key)] = fakeKV{op.Put.Value, cmp.Or(old.created, next), next, false}
			c.revision = next
			responses = append(responses, map[string]any{"response_put": map[string]any{}})
		default:
			for _, key := range c.find(*op.Delete) {
				delete(c.kvs, key)
				c.revision = next
			}
			responses = append(responses, map[string]any{"response_delete_range": map[string]any{}})
		}
	}
	return map[string]any{
		"header": map[string]string{"cluster_id": "14841639068965178418", "revision": fmt.Sprint(c.revision)}, "succeeded": succeeded, "responses": responses,
	}, nil
}

func (c *fakeEtcd) find(r fakeRange) (keys []string) {
	for key := range c.kvs {
		if key == string(r.Key) || len(r.RangeEnd) > 0 && string(r.Key) <= key && key < string(r.RangeEnd) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if r.Limit > 0 {
		keys = keys[:min(r.Limit, len(keys))]
	}
	return keys
}

func (c *fakeEtcd) list(r fakeRange) []map[string]any {
	kvs := []map[string]any{}
	for _, key := range c.find(r) {
		kv := c.kvs[key]
		kvs = append(kvs, map[string]any{
			"key": []byte(key), "value": kv.value, "create_revision": fmt.Sprint(kv.created), "mod_revision": fmt.Sprint(kv.changed),
		})
	}
	return kvs
}

// An openedEtcd is a store on a fakeEtcd, with the account u and its session made.
type openedEtcd struct {
	testedStore
	e    *EtcdStore
	u    User
	made Session
	log  *bytes.Buffer
}

// onEtcd returns a test that runs in a bubble of testing/synctest.
func onEtcd(test func(t *testing.T, c *fakeEtcd, s openedEtcd), set ...func(*fakeEtcd)) func(t *testing.T) {
	return func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newFakeEtcd()
			for _, set := range set {
				set(c)
			}
			s := openedEtcd{e: c.open(t), log: &bytes.Buffer{}}
			s.testedStore = testedStore{s.e, t}
			s.e.gateway.log = slog.New(slog.NewTextHandler(s.log, nil))
			s.u = s.create(newUser("johndoe"))
			s.made = s.login(s.u)
			test(t, c, s)
		})
	}
}

func withUser(c *fakeEtcd) { c.user, c.given = "alice:secret", "alice:secret" }

// member returns the host of the member that the store asks first.
func (s openedEtcd) member() string {
	return strings.TrimPrefix(s.e.gateway.endpoint(s.e.gateway.failOvers.Load()), "http://")
}

// The methods below let a test change and inspect the cluster.

func (c *fakeEtcd) put(key, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	c.kvs[key] = fakeKV{[]byte(value), cmp.Or(c.kvs[key].created, c.revision), c.revision, false}
}

func (c *fakeEtcd) remove(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	delete(c.kvs, key)
}

func (c *fakeEtcd) keys() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := map[string]string{}
	for key, kv := range c.kvs {
		keys[key] = string(kv.value)
	}
	return keys
}

// count returns how many requests were to a member, or to a path.
func (c *fakeEtcd) count(to string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.calls {
		if r.host == to || r.path == to {
			n++
		}
	}
	return n
}

func (c *fakeEtcd) fails(f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// meanwhile makes a change before the next write.
func (c *fakeEtcd) meanwhile(change func()) {
	c.fails(nthWrite(1, func(etcdCall) error { change(); return nil }))
}

func (c *fakeEtcd) forget(why etcdRefusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.forgotten = "forgotten", why
}

var (
	noLeader  = etcdRefusal{503, 14, "etcdserver: no leader"}
	noSpace   = etcdRefusal{429, 8, "etcdserver: mvcc: database space exceeded"}
	corrupt   = etcdRefusal{500, 15, "etcdserver: corrupt cluster"}
	denied    = etcdRefusal{403, 7, "etcdserver: permission denied"}
	lostToken = etcdRefusal{401, 16, "etcdserver: invalid auth token"}
	oldToken  = etcdRefusal{400, 3, "etcdserver: revision of auth store is old"}

	errHang      = errors.New("no response")
	errBreaksOff = errors.New("the connection is reset within the answer")
)

func refused(etcdCall) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}

func hang(etcdCall) error { return errHang }

// loseResponse makes the request and closes the connection.
func loseResponse(r etcdCall) error {
	r.make()
	return &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
}

// breakOff makes the request and closes the connection within the response.
func breakOff(r etcdCall) error {
	r.make()
	return errBreaksOff
}

func says(status int, body string) fault {
	r := etcdRefusal{status: status, Message: body}
	json.Unmarshal([]byte(body), &r)
	return r.fault
}

// when is a fault of some requests.
func when(applies func(r etcdCall) bool, f fault) fault {
	return func(r etcdCall) error {
		if applies(r) {
			return f(r)
		}
		return nil
	}
}

// at is a fault of a member, or of a path.
func at(to string, f fault) fault {
	return when(func(r etcdCall) bool { return r.host == to || r.path == to }, f)
}

func until(over time.Time, f fault) fault {
	return when(func(etcdCall) bool { return time.Now().Before(over) }, f)
}

func eachWrite(f fault) fault { return when(etcdCall.isWrite, f) }

func nthWrite(n int64, f fault) fault {
	var writes atomic.Int64
	return when(func(r etcdCall) bool { return r.isWrite() && writes.Add(1) == n }, f)
}
