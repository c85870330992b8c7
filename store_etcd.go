package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An EtcdStore keeps accounts and sessions in an etcd cluster, for any number
// of copies of the server at once. It keeps no state of its own: what one copy
// has acknowledged, the next request at any other sees. It promises:
//
//   - When a method returns nil, the change is on the disks of a majority of the
//     cluster's members. Reads are linearizable: they wait for what a majority
//     has, never show less, and so nothing that could still be lost.
//   - A change is one transaction, which happens only if what it was decided on
//     is still so; else it is decided anew.
//   - While the cluster has no majority, all methods return ErrUnavailable
//     within a few seconds. Nothing has to be done afterwards.
//
// All keys begin with the prefix of the address, /stdauth/ if it has none. The
// values are JSON, and `etcdctl get --prefix /stdauth/` shows them all:
//
//	format                               1
//	last_id                              2        or "importing"
//	users/0000000000000000002            {"id":2,"username":"Admin",...}
//	names/admin                          2
//	admins/0000000000000000002           2        there for each active admin
//	sessions/0000000000000000002/IYV3... {"id":"IYV3...","generation":1,...}
//
// A session's key hangs on a lease, and goes with it some time after the
// session has expired; what has expired is not shown meanwhile. All sessions
// that expire within the same ten minutes share a lease: with one for each,
// every login and every refresh would be two writes instead of one.
type EtcdStore struct {
	gateway *gateway
	prefix  string
	log     *slog.Logger

	// Has room for one: the change that lost against another and is on its
	// second try. See change.
	turn chan struct{}

	leases     sync.Map // ID -> true for those that are known to be there
	background sync.WaitGroup

	checked struct { // by Ready
		sync.Mutex
		at  time.Time
		err error
	}
}

const (
	etcdFormat    = "1"
	etcdImporting = `"importing"`

	// Sessions that expire within the same width share a lease. When it ends,
	// etcd does nothing else for 10 microseconds a session: half a second
	// where there were a hundred logins a second.
	leaseWidth = 10 * time.Minute

	// Leases outlive their sessions by this, so that clocks which differ never
	// cut one short.
	leaseSlack = time.Hour

	// Members refuse a transaction of more operations (--max-txn-ops).
	maxEtcdOps = 128

	// A change that lost this often has not lost by chance.
	maxEtcdTries = 100
)

// OpenEtcdStore opens the store at an address such as
// etcd://10.0.0.1:2379,10.0.0.2:2379/prefix, or etcds:// for TLS with the
// system's roots. An empty username is for a cluster without authentication.
func OpenEtcdStore(ctx context.Context, address, username, password string, log *slog.Logger) (*EtcdStore, error) {
	quiet := slog.New(slog.DiscardHandler) // what stops the start is said once, by the caller
	gateway, prefix, err := newGateway(address, username, password, quiet)
	if err != nil {
		return nil, err
	}
	e := newEtcdStore(gateway, prefix, log)
	if err := e.open(ctx); err != nil {
		e.Close()
		return nil, err
	}
	gateway.log = log
	return e, nil
}

func newEtcdStore(gateway *gateway, prefix string, log *slog.Logger) *EtcdStore {
	return &EtcdStore{gateway: gateway, prefix: prefix, log: log, turn: make(chan struct{}, 1)}
}

func (e *EtcdStore) open(ctx context.Context) error {
	if err := e.checkVersion(ctx); err != nil {
		return err
	}
	format := e.prefix + "format"
	err := e.change(ctx, []etcdOp{getKey(format), getFirst(e.prefix), getKey(e.prefix + "last_id")}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		switch value, others := now.value(0), len(now.found[1]) > 0; {
		case value == "" && others:
			return t, fmt.Errorf("the keys under %s are not those of stdauth", e.prefix)
		case value == "":
			return etcdTxn{Compare: []etcdCompare{now.unchanged(0, format)}, Success: []etcdOp{putKey(format, etcdFormat)}}, nil
		case value != etcdFormat:
			return t, fmt.Errorf("the keys under %s were written by another version of stdauth", e.prefix)
		case now.value(2) == etcdImporting:
			return t, fmt.Errorf("an import is under way, or was cut off: then remove the keys under %s and import again", e.prefix)
		}
		return t, nil
	})
	if refusal, ok := errors.AsType[*etcdError](err); ok && refusal.is("user name is empty") {
		return fmt.Errorf("%w: STDAUTH_ETCD_USERNAME and STDAUTH_ETCD_PASSWORD are not set", err)
	}
	if err != nil {
		return err
	}
	return e.probe(ctx)
}

// checkVersion refuses a cluster whose gateway does not speak our language.
func (e *EtcdStore) checkVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	var version struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"` // the oldest of all members, "not_decided" at the start
	}
	if _, err := e.gateway.call(ctx, "/version", nil, &version); err != nil {
		return unavailable(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(version.Cluster, "%d.%d.", &major, &minor); err != nil {
		fmt.Sscanf(version.Server, "%d.%d.", &major, &minor)
	}
	if major < 3 || major == 3 && minor < 4 {
		return fmt.Errorf("etcd 3.4 or later is needed, the cluster's version is %q", cmp.Or(version.Cluster, version.Server))
	}
	return nil
}

func (e *EtcdStore) userKey(id int64) string    { return fmt.Sprintf("%susers/%019d", e.prefix, id) }
func (e *EtcdStore) adminKey(id int64) string   { return fmt.Sprintf("%sadmins/%019d", e.prefix, id) }
func (e *EtcdStore) nameKey(name string) string { return e.prefix + "names/" + strings.ToLower(name) }
func (e *EtcdStore) sessionsOf(userID int64) string {
	return fmt.Sprintf("%ssessions/%019d/", e.prefix, userID)
}

func (e *EtcdStore) CreateUser(ctx context.Context, u User) (User, error) {
	name, lastID := e.nameKey(u.Username), e.prefix+"last_id"
	err := e.change(ctx, []etcdOp{getKey(name), getKey(lastID)}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		if now.value(0) != "" {
			return t, ErrUsernameTaken
		}
		last, err := parseID(now.value(1))
		if err != nil {
			return t, unavailable(errors.New("an import is under way"))
		}
		u.ID = last + 1
		// Whoever takes a name changes the counter, so it speaks for both.
		t.Compare = []etcdCompare{now.unchanged(1, lastID)}
		t.Success = append(e.putUser(u), putKey(name, formatID(u.ID)), putKey(lastID, formatID(u.ID)))
		return t, nil
	})
	return u, err
}

// putUser returns what keeps an account but its name, which never changes.
func (e *EtcdStore) putUser(u User) []etcdOp {
	ops := []etcdOp{putKey(e.userKey(u.ID), jsonValue(u))}
	if activeAdmin(&u) {
		return append(ops, putKey(e.adminKey(u.ID), formatID(u.ID)))
	}
	return ops
}

func activeAdmin(u *User) bool { return u != nil && u.Role == RoleAdmin && !u.Disabled }

func (e *EtcdStore) User(ctx context.Context, id int64) (u User, err error) {
	now, err := e.read(ctx, getKey(e.userKey(id)))
	if err != nil {
		return u, err
	}
	return u, now.decode(0, &u)
}

// UserByName takes two steps, for a name that nobody has as well, so that the
// time of a login does not tell. No change can come between them that matters:
// a name keeps its ID for as long as it is there, and no ID is used again.
func (e *EtcdStore) UserByName(ctx context.Context, name string) (User, error) {
	now, err := e.read(ctx, getKey(e.nameKey(name)))
	if err != nil {
		return User{}, err
	}
	id, err := parseID(now.value(0))
	if err != nil {
		return User{}, err
	}
	return e.User(ctx, id)
}

func (e *EtcdStore) Users(ctx context.Context, after int64, limit int) ([]User, error) {
	page := getBetween(e.userKey(max(after, 0)+1), prefixEnd(e.prefix+"users/"))
	page.Range.Limit = int64(limit)
	if limit <= 0 || after == math.MaxInt64 {
		return []User{}, nil
	}
	now, err := e.read(ctx, page)
	if err != nil {
		return nil, err
	}
	users := make([]User, len(now.found[0]))
	for i, kv := range now.found[0] {
		if err := kv.decode(&users[i]); err != nil {
			return nil, err
		}
	}
	return users, nil
}

func (e *EtcdStore) UpdateUser(ctx context.Context, id int64, update func(*User) error) (u User, err error) {
	err = e.changeUser(ctx, id, func(old User) (*User, error) {
		u = old
		err := update(&u)
		u.ID, u.Username, u.CreatedAt = old.ID, old.Username, old.CreatedAt
		return &u, err
	})
	return u, err
}

func (e *EtcdStore) DeleteUser(ctx context.Context, id int64, check func(User) error) error {
	return e.changeUser(ctx, id, func(u User) (*User, error) { return nil, check(u) })
}

// changeUser makes next(old) of an account, nil for none.
func (e *EtcdStore) changeUser(ctx context.Context, id int64, next func(old User) (*User, error)) error {
	key := e.userKey(id)
	someAdmins := getFirst(e.prefix + "admins/")
	someAdmins.Range.Limit = 2 // one of them is another
	return e.change(ctx, []etcdOp{getKey(key), someAdmins}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		var old User
		if err := now.decode(0, &old); err != nil {
			return t, err
		}
		u, err := next(old)
		if err != nil || u != nil && *u == old {
			return t, err
		}
		t.Compare = []etcdCompare{now.unchanged(0, key)}
		if activeAdmin(&old) && !activeAdmin(u) {
			// This admin may go because another is there, and only while it
			// is: of two who demote each other at once, at two copies, the
			// later transaction does not find its other any more.
			other := slices.IndexFunc(now.found[1], func(kv etcdKV) bool { return string(kv.Key) != e.adminKey(id) })
			if other < 0 {
				return t, ErrLastAdmin
			}
			t.Compare = append(t.Compare, now.found[1][other].unchanged())
			t.Success = append(t.Success, removeKey(e.adminKey(id)))
		}
		if u == nil {
			t.Success = append(t.Success, removeKey(key), removeKey(e.nameKey(old.Username)), removeAll(e.sessionsOf(id)))
			return t, nil
		}
		t.Success = append(t.Success, e.putUser(*u)...)
		if u.Epoch != old.Epoch {
			t.Success = append(t.Success, removeAll(e.sessionsOf(id)))
		}
		return t, nil
	})
}

func (e *EtcdStore) CreateSession(ctx context.Context, s Session) error {
	user, sessions := e.userKey(s.UserID), e.sessionsOf(s.UserID)
	return e.change(ctx, []etcdOp{getKey(user), getAll(sessions)}, func(ctx context.Context, now etcdView) (t etcdTxn, err error) {
		var u User
		if err := now.decode(0, &u); err != nil {
			return t, err
		}
		switch {
		case u.Epoch != s.Epoch:
			return t, ErrStale
		case u.Disabled:
			return t, ErrInactive
		}
		lease, err := e.lease(ctx, s.ExpiresAt)
		if err != nil {
			return t, err
		}
		live, err := now.sessions(1, u)
		if err != nil {
			return t, err
		}
		// Without the second comparison two logins at once could leave one
		// session too many, and a login that is sent twice would be two.
		t.Compare = []etcdCompare{now.unchanged(0, user), now.noneNew(sessions)}
		t.Success = append(t.Success, putLeased(sessions+s.ID, jsonValue(s), lease))
		live = live[max(0, len(live)-maxSessions+1):]
		for _, kv := range now.found[1] {
			stays := slices.ContainsFunc(live, func(s Session) bool { return sessions+s.ID == string(kv.Key) })
			if !stays && len(t.Success) < maxEtcdOps {
				t.Success = append(t.Success, removeKey(string(kv.Key)))
			}
		}
		return t, nil
	})
}

func (e *EtcdStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	now, err := e.read(ctx, getKey(e.sessionsOf(userID)+id), getKey(e.userKey(userID)))
	if err != nil {
		return Session{}, User{}, err
	}
	return now.session()
}

func (e *EtcdStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	now, err := e.read(ctx, getKey(e.userKey(userID)), getAll(e.sessionsOf(userID)))
	if err != nil {
		return nil, err
	}
	var u User
	if err := now.decode(0, &u); errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return now.sessions(1, u)
}

func (e *EtcdStore) UpdateSession(ctx context.Context, userID int64, id string, update func(*Session, User) error) (s Session, u User, err error) {
	session, user := e.sessionsOf(userID)+id, e.userKey(userID)
	err = e.change(ctx, []etcdOp{getKey(session), getKey(user)}, func(ctx context.Context, now etcdView) (t etcdTxn, err error) {
		old, owner, err := now.session()
		if err != nil {
			return t, err
		}
		changed := old
		err = update(&changed, owner)
		s, u = old, owner
		s.Generation, s.LastUsedAt, s.ExpiresAt = changed.Generation, changed.LastUsedAt, changed.ExpiresAt
		if err != nil || s == old {
			return t, err
		}
		lease, err := e.lease(ctx, s.ExpiresAt)
		if err != nil {
			return t, err
		}
		t.Compare = []etcdCompare{now.unchanged(0, session), now.unchanged(1, user)}
		t.Success = []etcdOp{putLeased(session, jsonValue(s), lease)}
		return t, nil
	})
	return s, u, err
}

func (e *EtcdStore) EndSession(ctx context.Context, userID int64, id string) error {
	session, user := e.sessionsOf(userID)+id, e.userKey(userID)
	return e.change(ctx, []etcdOp{getKey(session), getKey(user)}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		if _, _, err := now.session(); err != nil {
			return t, err
		}
		return etcdTxn{Compare: []etcdCompare{now.unchanged(0, session)}, Success: []etcdOp{removeKey(session)}}, nil
	})
}

func (e *EtcdStore) EndSessions(ctx context.Context, userID int64, keep string) error {
	user, sessions := e.userKey(userID), e.sessionsOf(userID)
	return e.change(ctx, []etcdOp{getKey(user), getAll(sessions)}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		if now.value(0) == "" {
			return t, ErrNotFound
		}
		// That there is no new session makes it safe to send this twice: what
		// comes late must not end a session that was made in between.
		t.Compare = []etcdCompare{now.unchanged(0, user), now.noneNew(sessions)}
		for _, kv := range now.found[1] {
			if string(kv.Key) != sessions+keep {
				t.Success = append(t.Success, removeBetween(sessions, sessions+keep), removeBetween(sessions+keep+"\x00", prefixEnd(sessions)))
				return t, nil
			}
		}
		return t, nil
	})
}

// Import marks the store while it is under way, so that an import that was cut
// off is not taken for a store, and nobody registers meanwhile.
func (e *EtcdStore) Import(ctx context.Context, users []User, lastID int64) error {
	// Another store says whether these can be accounts at all.
	if err := NewMemoryStore().Import(ctx, users, lastID); err != nil {
		return err
	}
	counter := e.prefix + "last_id"
	err := e.change(ctx, []etcdOp{getKey(counter)}, func(_ context.Context, now etcdView) (t etcdTxn, err error) {
		if now.value(0) != "" && now.value(0) != "0" {
			return t, ErrNotEmpty
		}
		return etcdTxn{Compare: []etcdCompare{now.unchanged(0, counter)}, Success: []etcdOp{putKey(counter, etcdImporting)}}, nil
	})
	if err != nil {
		return err
	}
	// An account is three keys at most. The counter is compared by its value,
	// so that a batch which comes late cannot undo what was changed after the
	// import.
	underWay := etcdCompare{Key: []byte(counter), Target: "VALUE", Result: "EQUAL", Value: []byte(etcdImporting)}
	total, said := len(users), time.Now()
	for batch := range slices.Chunk(users, maxEtcdOps/3) {
		t := etcdTxn{Compare: []etcdCompare{underWay}}
		for _, u := range batch {
			lastID = max(lastID, u.ID)
			t.Success = append(append(t.Success, e.putUser(u)...), putKey(e.nameKey(u.Username), formatID(u.ID)))
		}
		if err := e.mustCommit(ctx, t); err != nil {
			return err
		}
		if users = users[len(batch):]; time.Since(said) > time.Second {
			said = time.Now()
			e.log.Info("importing", "accounts", total-len(users), "of", total)
		}
	}
	return e.mustCommit(ctx, etcdTxn{Compare: []etcdCompare{underWay}, Success: []etcdOp{putKey(counter, formatID(lastID))}})
}

func (e *EtcdStore) mustCommit(ctx context.Context, t etcdTxn) error {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	done, err := e.commit(ctx, t)
	if err == nil && !done {
		err = errors.New("the keys of the import have been changed by someone else")
	}
	return err
}

// Ready asks at most once a second: anybody may ask the server for it, and each
// time costs the cluster a write to its logs.
func (e *EtcdStore) Ready(ctx context.Context) error {
	e.checked.Lock()
	defer e.checked.Unlock()
	if time.Since(e.checked.at) > time.Second {
		e.checked.err = e.probe(context.WithoutCancel(ctx))
		e.checked.at = time.Now()
	}
	return e.checked.err
}

// probe finds out whether the cluster takes writes, which it does not without a
// majority, without room, or from a user without permission. Its transaction
// goes all the way of one that writes, and then finds that it has nothing to.
func (e *EtcdStore) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	format := e.prefix + "format"
	never := etcdCompare{Key: []byte(format), Target: "CREATE", Result: "LESS"} // than 0
	_, now, err := e.txn(ctx, etcdTxn{Compare: []etcdCompare{never}, Success: []etcdOp{putKey(format, etcdFormat)}, Failure: []etcdOp{getKey(format)}})
	if err == nil && now.value(0) != etcdFormat {
		err = unavailable(fmt.Errorf("the key %s is gone", format))
	}
	return err
}

// Close waits for the sweeping of leases. Changes under way are not the
// store's, but the cluster's.
func (e *EtcdStore) Close() error {
	e.background.Wait()
	e.gateway.client.CloseIdleConnections()
	return nil
}

// lease returns a lease that ends after the time at, and not long after. Its ID
// says when, so all copies mean the same one, and granting it twice does
// nothing.
func (e *EtcdStore) lease(ctx context.Context, at time.Time) (id int64, err error) {
	end := at.Truncate(leaseWidth).Add(leaseWidth)
	id = e.leaseID(end)
	if _, known := e.leases.Load(id); known {
		return id, nil
	}
	ttl := max(time.Until(end)+leaseSlack, leaseSlack)
	var answer struct{}
	_, err = e.gateway.call(ctx, "/v3/lease/grant", etcdLease{ID: id, TTL: int64(ttl / time.Second)}, &answer)
	if refusal, ok := errors.AsType[*etcdError](err); err != nil && !(ok && refusal.is("lease already exists")) {
		return 0, unavailable(err)
	}
	e.leases.Store(id, true)
	e.background.Go(e.sweep)
	return id, nil
}

// leaseID is 39 bits for the store, so that no lease of others is taken for one
// of ours, and 24 for the end.
func (e *EtcdStore) leaseID(end time.Time) int64 {
	store := sha256.Sum256([]byte("leases of stdauth under " + e.prefix))
	return int64(binary.BigEndian.Uint64(store[:])>>25)<<24 | end.Unix()/int64(leaseWidth/time.Second)
}

// leaseMissing reports whether err says that a lease is not there after all, as
// when the cluster was set up anew from a backup. Then none is known to be.
func (e *EtcdStore) leaseMissing(err error) bool {
	refusal, ok := errors.AsType[*etcdError](err)
	missing := ok && refusal.is("requested lease not found")
	if missing {
		e.leases.Clear()
	}
	return missing
}

// sweep ends the leases that are due. etcd does so by itself, but a new leader
// lets them all begin anew (lease checkpoints are still an experiment), and ours
// may be of a month: with an election a month they would never end. It runs
// when a lease is new to this copy, which happens every ten minutes; what it
// does not come to is for the next time.
func (e *EtcdStore) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), etcdPatience)
	defer cancel()
	var there struct{ Leases []etcdLease }
	if _, err := e.gateway.call(ctx, "/v3/lease/leases", struct{}{}, &there); err != nil {
		e.log.Warn("cannot list the leases of etcd; expired sessions may stay for longer", "error", err)
		return
	}
	due := e.leaseID(time.Now().Add(-leaseSlack))
	for _, lease := range there.Leases {
		if lease.ID>>24 != due>>24 || lease.ID > due {
			continue
		}
		e.leases.Delete(lease.ID)
		// Another copy may have been faster.
		if _, err := e.gateway.call(ctx, "/v3/lease/revoke", etcdLease{ID: lease.ID}, &struct{}{}); err != nil {
			e.log.Debug("cannot end a lease of etcd", "error", err)
		}
	}
}

// session returns the session and the account that the first two reads were
// for, if they belong together.
func (v etcdView) session() (s Session, u User, err error) {
	if err = v.decode(0, &s); err == nil {
		err = v.decode(1, &u)
	}
	if err == nil && !s.Live(u.Epoch, time.Now()) {
		err = ErrNotFound
	}
	if err != nil {
		return Session{}, User{}, err
	}
	return s, u, nil
}

// sessions returns the account's live sessions among those of read i, in the
// order of their logins.
func (v etcdView) sessions(i int, u User) (live []Session, err error) {
	kvs := slices.SortedFunc(slices.Values(v.found[i]), func(a, b etcdKV) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	now := time.Now()
	for _, kv := range kvs {
		var s Session
		if err := kv.decode(&s); err != nil {
			return nil, err
		}
		if s.Live(u.Epoch, now) {
			live = append(live, s)
		}
	}
	return live, nil
}

func jsonValue(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // accounts and sessions can always be written
	}
	return string(text)
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }

// parseID reads what formatID wrote, and 0 from nothing.
func parseID(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 64)
}
