package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// An EtcdStore keeps accounts and sessions in an etcd cluster, for any number of
// copies of the server. It has no state of its own: a change that one copy has
// acknowledged is visible to the next request at any other. It promises:
//
//   - When a method returns nil, the change is on the disks of a majority of the
//     members. Reads are linearizable: they see what a majority has, and nothing that
//     could still be lost.
//   - While the cluster has no majority, all methods return ErrUnavailable within a
//     few seconds. Afterwards they work again without help.
//
// All keys begin with the prefix in the address, by default /stdauth/. The values are
// JSON. `etcdctl get --prefix /stdauth/` lists them:
//
//	format                               1
//	last_id                              2        or "importing"
//	users/0000000000000000002            {"id":2,"username":"Admin",...}
//	names/admin                          2
//	admins/0000000000000000002           2        present for each active admin
//	sessions/0000000000000000002/IYV3... {"id":"IYV3...","generation":1,...}
type EtcdStore struct {
	decisions

	gateway *gateway
	prefix  string
	swept   atomic.Pointer[string] // the session key at which the next sweep begins

	checked struct { // by Ready
		sync.Mutex
		at  time.Time
		err error
	}
}

const (
	etcdFormat    = "1"
	etcdImporting = `"importing"`

	// Members refuse transactions with more operations (--max-txn-ops).
	maxEtcdOps = 128

	// Each change of an account also reads this many keys of sessions. A login or a refresh
	// removes those that expired long ago. It adds one at most, so they do not pile up.
	sweptKeys = 4

	// Sessions stay this long after they expire, because the clocks of copies differ.
	sweepSlack = time.Hour
)

// OpenEtcdStore opens the store at an address such as
// etcd://10.0.0.1:2379,10.0.0.2:2379/prefix, or etcds:// for TLS with the system's
// roots. An empty username is for a cluster without authentication.
func OpenEtcdStore(ctx context.Context, address, username, password string, life Lifetimes, log *slog.Logger) (*EtcdStore, error) {
	gateway, prefix, err := newGateway(address, username, password)
	if err != nil {
		return nil, err
	}
	e := newEtcdStore(gateway, prefix, life)
	err = e.open(ctx) // quietly: the caller reports what prevents the start
	gateway.log = log
	return e, err
}

func newEtcdStore(g *gateway, prefix string, life Lifetimes) *EtcdStore {
	e := &EtcdStore{gateway: g, prefix: prefix}
	e.decisions = decisions{life, e.atomically}
	e.sweep(nil)
	return e
}

func (e *EtcdStore) open(ctx context.Context) error {
	format, counter, first := e.prefix+"format", e.prefix+"last_id", getAll(e.prefix).first(1)
	err := e.step(ctx, Caller{}, []etcdOp{getKey(format), getKey(counter), first}, func(view etcdView) (t etcdTxn, err error) {
		switch value := view.value(format); {
		case value == "" && len(view.all(first)) > 0:
			return t, fmt.Errorf("the keys under %s are not those of stdauth", e.prefix)
		case value == "":
			return etcdTxn{Compare: []etcdCompare{view.unchanged(format)}, Success: []etcdOp{putKey(format, json.RawMessage(etcdFormat))}}, nil
		case value != etcdFormat:
			return t, fmt.Errorf("the keys under %s were written by another version of stdauth", e.prefix)
		case view.value(counter) == etcdImporting:
			return t, fmt.Errorf("an import is under way, or was cut off: then remove the keys under %s and import again", e.prefix)
		}
		return t, nil
	})
	if err != nil {
		return err
	}
	return e.probe(ctx)
}

func (e *EtcdStore) userKey(id int64) string    { return fmt.Sprintf("%susers/%019d", e.prefix, id) }
func (e *EtcdStore) adminKey(id int64) string   { return fmt.Sprintf("%sadmins/%019d", e.prefix, id) }
func (e *EtcdStore) nameKey(name string) string { return e.prefix + "names/" + foldName(name) }
func (e *EtcdStore) sessionsOf(userID int64) string {
	return fmt.Sprintf("%ssessions/%019d/", e.prefix, userID)
}

func (e *EtcdStore) CreateUser(ctx context.Context, by Caller, u User) (User, error) {
	name, counter := e.nameKey(u.Username), e.prefix+"last_id"
	err := e.step(ctx, by, []etcdOp{getKey(name), getKey(counter)}, func(view etcdView) (t etcdTxn, err error) {
		if view.value(name) != "" {
			return t, ErrUsernameTaken
		}
		last, err := strconv.ParseInt(cmp.Or(view.value(counter), "0"), 10, 64)
		if err != nil {
			return t, unavailable(errors.New("an import is under way"))
		}
		u.ID = last + 1
		// A new name changes the counter, so comparing the counter is enough.
		t.Compare = []etcdCompare{view.unchanged(counter)}
		t.Success = append(e.putUser(u), putKey(name, u.ID), putKey(counter, u.ID))
		return t, nil
	})
	return u, err
}

// putUser returns the operations that store an account, except for its name key, which
// never changes.
func (e *EtcdStore) putUser(u User) []etcdOp {
	ops := []etcdOp{putKey(e.userKey(u.ID), u)}
	if u.ActiveAdmin() {
		return append(ops, putKey(e.adminKey(u.ID), u.ID))
	}
	return ops
}

func (e *EtcdStore) User(ctx context.Context, id int64) (User, error) {
	a, err := e.account(ctx, id)
	if a == nil {
		return User{}, cmp.Or(err, ErrNotFound)
	}
	return *a.user, nil
}

// UserByName takes two steps, also for an unknown name, so that the time of a login
// reveals nothing. A change between them does not matter: a name keeps its ID as long
// as it exists, and IDs are not reused.
func (e *EtcdStore) UserByName(ctx context.Context, name string) (User, error) {
	key := e.nameKey(name)
	view, err := e.read(ctx, getKey(key))
	if err != nil {
		return User{}, err
	}
	id, err := strconv.ParseInt(cmp.Or(view.value(key), "0"), 10, 64)
	if err != nil {
		return User{}, err
	}
	return e.User(ctx, id)
}

// Users finds a name by its key, but an address only by reading all accounts.
func (e *EtcdStore) Users(ctx context.Context, filter UserFilter, after int64, limit int) ([]User, error) {
	others := func(u User) bool { return u.ID <= after || filter.Email != "" && u.Email != filter.Email }
	if filter.Name != "" {
		u, err := e.UserByName(ctx, filter.Name)
		if errors.Is(err, ErrNotFound) || err == nil && others(u) {
			return []User{}, nil
		}
		return []User{u}, err
	}
	users, size := []User{}, limit
	if filter.Email != "" {
		size = 1000
	}
	for from := max(after, 0); len(users) < limit && from < math.MaxInt64; {
		page := getBetween(e.userKey(from+1), prefixEnd(e.prefix+"users/")).first(int64(size))
		view, err := e.read(ctx, page)
		found, damaged := values[User](view.all(page))
		if err = cmp.Or(err, damaged); err != nil {
			return nil, err
		}
		if from = math.MaxInt64; len(found) == size { // there may be more
			from = found[size-1].ID
		}
		users = append(users, slices.DeleteFunc(found, others)...)
	}
	return users[:min(limit, len(users))], nil
}

// atomically is the function that [decisions] needs.
func (e *EtcdStore) atomically(ctx context.Context, by Caller, id int64, d decision) error {
	twoAdmins := getAll(e.prefix + "admins/").first(2) // at least one is another account's
	user, sessions, toSweep := getKey(e.userKey(id)), getAll(e.sessionsOf(id)), e.sweepNext()
	return e.step(ctx, by, []etcdOp{user, sessions, twoAdmins, toSweep}, func(view etcdView) (t etcdTxn, err error) {
		old, err := view.account(user, sessions)
		if old == nil || err != nil {
			return t, cmp.Or(err, ErrNotFound)
		}
		own := func(kv etcdKV) bool { return string(kv.Key) == e.adminKey(id) }
		others := slices.DeleteFunc(view.all(twoAdmins), own)
		c, refusal := d.on(old, func() bool { return len(others) > 0 })
		if c == (change{}) {
			return t, refusal
		}
		t = e.transaction(old, c, view, toSweep)
		if old.endsAdmin(c) {
			// This admin may go only while the other one exists. If two admins demote
			// each other at once, at two copies, the later transaction fails.
			t.Compare = append(t.Compare, view.unchanged(string(others[0].Key)))
			t.Success = append(t.Success, removeKey(e.adminKey(id)))
		}
		return t, refusal
	})
}

// step makes every change. It reads, calls decide with the result, and commits the
// transaction that decide returns. If the comparisons of the transaction fail, because
// something has changed since, it starts again. A transaction without operations is no
// change. decide may return both a transaction and an error, as described at
// [decisions].
//
// The caller's session and account are read and compared as well, so the change is made
// only while the caller may make it.
//
// A client that hangs up does not stop a change. Otherwise a thief could save the
// session of a stolen token by hanging up in time.
func (e *EtcdStore) step(ctx context.Context, by Caller, reads []etcdOp, decide func(etcdView) (etcdTxn, error)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), etcdPatience)
	defer cancel()
	user, session := e.userKey(by.UserID), e.sessionsOf(by.UserID)+by.SessionID
	readUser, readSession := getKey(user), getKey(session)
	if by != (Caller{}) {
		reads = append(reads, readUser, readSession)
	}
	for {
		view, err := e.read(ctx, reads...)
		if err != nil {
			return err
		}
		asking, err := view.account(readUser, readSession)
		if err == nil && by != (Caller{}) {
			err = asking.allow(by, e.life)
		}
		if err != nil {
			return err
		}
		t, refusal := decide(view)
		if len(t.Success) == 0 {
			return refusal
		}
		if by != (Caller{}) {
			s, _ := asking.session(by.SessionID, e.life)
			t.ends = append(t.ends, s.ExpiresAt, by.Expires)
			t.Compare = append(t.Compare, view.unchanged(user), view.unchanged(session))
		}
		if done, err := e.commit(ctx, t); done || err != nil {
			return cmp.Or(err, refusal)
		}
		time.Sleep(rand.N(5 * time.Millisecond)) // or the changes that failed would collide again
	}
}

// commit commits a transaction and reports whether its comparisons were true. It is
// sent at most once: if the response is lost, the outcome is unknown.
//
// A transaction can compare keys but not the time. So after the first of t.ends it is not
// sent, and must be decided again. If that time comes while it is under way, it is not
// acknowledged, and its outcome is unknown.
func (e *EtcdStore) commit(ctx context.Context, t etcdTxn) (done bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, end := range t.ends {
		if left := time.Until(end); left > 0 {
			defer time.AfterFunc(left, func() { cancel(errExpired) }).Stop()
		} else if !end.IsZero() {
			return false, nil
		}
	}
	view, err := e.gateway.txn(ctx, t, true)
	return view.succeeded, err
}

var errExpired = errors.New("the session expired before the cluster responded")

// read reads keys, all at the same revision.
func (e *EtcdStore) read(ctx context.Context, ops ...etcdOp) (etcdView, error) {
	return e.gateway.txn(ctx, etcdTxn{Success: ops}, false)
}

// transaction returns the transaction for a change of an account. It fails if the account
// has changed, or has a session that is newer than the reads.
func (e *EtcdStore) transaction(old *account, c change, view etcdView, toSweep etcdOp) (t etcdTxn) {
	user, sessions, next := e.userKey(c.ID), e.sessionsOf(c.ID), old.apply(c)
	noneNew := etcdCompare{Key: []byte(sessions), RangeEnd: []byte(prefixEnd(sessions)), Target: "CREATE", Result: "LESS", CreateRevision: view.revision + 1}
	t.Compare = []etcdCompare{view.unchanged(user), noneNew}
	switch {
	case c.Deleted:
		t.Success, next.sessions = []etcdOp{removeKey(user), removeKey(e.nameKey(old.user.Username))}, nil
	case c.User != nil:
		t.Success = e.putUser(*c.User)
	case c.Session != nil:
		t.Compare = append(t.Compare, view.unchanged(sessions+c.Session.ID))
		renewed, _ := old.session(c.Session.ID, e.life) // none if it is a new one
		t.ends = append(t.ends, renewed.ExpiresAt)
		t.Success = append(e.sweep(view.all(toSweep)), putKey(sessions+c.Session.ID, c.Session))
	case c.Ended != "":
		t.Compare = append(t.Compare, view.unchanged(sessions+c.Ended))
	}
	for _, s := range old.sessions {
		if !slices.ContainsFunc(next.sessions, func(left Session) bool { return left.ID == s.ID }) {
			t.Success = append(t.Success, removeKey(sessions+s.ID))
		}
	}
	return t
}

// sweepNext returns a read of the next few session keys.
func (e *EtcdStore) sweepNext() etcdOp {
	return getBetween(*e.swept.Load(), prefixEnd(e.prefix+"sessions/")).first(sweptKeys)
}

// sweep returns operations that remove the keys of sessions that expired long ago.
func (e *EtcdStore) sweep(kvs []etcdKV) (ops []etcdOp) {
	next := e.prefix + "sessions/" // from the beginning
	if len(kvs) == sweptKeys {
		next = string(kvs[sweptKeys-1].Key) + "\x00"
	}
	e.swept.Store(&next)
	for _, kv := range kvs {
		var s Session
		if err := json.Unmarshal(kv.Value, &s); err == nil && time.Since(s.ExpiresAt) > sweepSlack {
			ops = append(ops, removeKey(string(kv.Key)))
		}
	}
	return ops
}

func (e *EtcdStore) Session(ctx context.Context, userID int64, id string) (Session, User, error) {
	a, err := e.account(ctx, userID, getKey(e.sessionsOf(userID)+id))
	if s, ok := a.session(id, e.life); ok {
		return s, *a.user, nil
	}
	return Session{}, User{}, cmp.Or(err, ErrNotFound)
}

func (e *EtcdStore) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	a, err := e.account(ctx, userID, getAll(e.sessionsOf(userID)))
	return a.live(e.life), err
}

// account returns an account, or nil, with the sessions that the reads find.
func (e *EtcdStore) account(ctx context.Context, id int64, sessions ...etcdOp) (*account, error) {
	user := getKey(e.userKey(id))
	view, err := e.read(ctx, append(sessions, user)...)
	if err != nil {
		return nil, err
	}
	return view.account(user, sessions...)
}

// Import marks the store while it runs, so that nobody registers meanwhile, and a store
// whose import was interrupted is not used.
func (e *EtcdStore) Import(ctx context.Context, users []User, lastID int64) error {
	checked := NewMemoryStore(e.life)
	if err := checked.Import(ctx, users, lastID); err != nil {
		return err
	}
	for _, u := range users { // one written by hand could be too large for a transaction
		if len(putKey("", u).Put.Value) > maxEtcdAccount {
			return fmt.Errorf("the account %q has more than %d bytes", u.Username, maxEtcdAccount)
		}
	}
	counter := e.prefix + "last_id"
	step := func(from string, refusal error, ops ...etcdOp) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return e.step(ctx, Caller{}, []etcdOp{getKey(counter)}, func(view etcdView) (t etcdTxn, err error) {
			if cmp.Or(view.value(counter), "0") != from {
				return t, refusal
			}
			return etcdTxn{Compare: []etcdCompare{view.unchanged(counter)}, Success: ops}, nil
		})
	}
	taken := errors.New("somebody else has changed the keys of the import")
	if err := step("0", ErrNotEmpty, putKey(counter, json.RawMessage(etcdImporting))); err != nil {
		return err
	}
	for batch := range slices.Chunk(users, maxEtcdOps/3) { // an account has three keys at most
		var ops []etcdOp
		for _, u := range batch {
			ops = append(append(ops, e.putUser(u)...), putKey(e.nameKey(u.Username), u.ID))
		}
		if err := step(etcdImporting, taken, ops...); err != nil {
			return err
		}
	}
	return step(etcdImporting, taken, putKey(counter, checked.lastID))
}

// Ready asks the cluster at most once a second, because anybody may call it and each
// check costs the cluster a write to its logs.
func (e *EtcdStore) Ready(ctx context.Context) error {
	e.checked.Lock()
	defer e.checked.Unlock()
	if time.Since(e.checked.at) > time.Second {
		e.checked.err = e.probe(context.WithoutCancel(ctx))
		e.checked.at = time.Now()
	}
	return e.checked.err
}

// probe returns an error if the cluster takes no writes: without a majority, without
// space, or from a user without permission. Its transaction contains a write, so the
// cluster treats it as one, but its comparison is always false.
func (e *EtcdStore) probe(ctx context.Context) error {
	format := e.prefix + "format"
	never := etcdCompare{Key: []byte(format), Target: "CREATE", Result: "LESS"} // than 0
	view, err := e.gateway.txn(ctx, etcdTxn{Compare: []etcdCompare{never}, Success: []etcdOp{putKey(format, json.RawMessage(etcdFormat))}, Failure: []etcdOp{getKey(format)}}, false)
	if err == nil && view.value(format) != etcdFormat {
		err = unavailable(fmt.Errorf("the key %s is gone", format))
	}
	return err
}

// Metrics returns samples for [metrics].
func (e *EtcdStore) Metrics() map[string]float64 {
	return map[string]float64{"stdauth_etcd_failovers_total": float64(e.gateway.failOvers.Load())}
}

// Close waits for nothing, because the cluster finishes changes under way.
func (e *EtcdStore) Close() error {
	e.gateway.client.CloseIdleConnections()
	return nil
}
