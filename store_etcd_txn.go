package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// change makes every change. It reads, calls decide with the result, and commits the
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
func (e *EtcdStore) change(ctx context.Context, by Caller, reads []etcdOp, decide func(etcdView) (etcdTxn, error)) error {
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
		if err != nil {
			return err
		}
		if err := asking.allow(by, e.life); by != (Caller{}) && err != nil {
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
		if done, err := e.commit(ctx, t); err != nil {
			return err
		} else if done {
			return refusal
		}
		time.Sleep(rand.N(5 * time.Millisecond)) // or the changes that failed would collide again
	}
}

// commit commits a transaction and reports whether its comparisons were true. It is
// sent at most once: if the response is lost, the outcome is unknown.
//
// A transaction can compare keys but not the time. So from the first of t.ends on it is
// neither sent nor acknowledged, and must be decided again.
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
	view, err := e.txn(ctx, t, true)
	return view.succeeded, err
}

var errExpired = errors.New("the session expired before the cluster responded")

// read reads keys, all at the same revision.
func (e *EtcdStore) read(ctx context.Context, ops ...etcdOp) (etcdView, error) {
	return e.txn(ctx, etcdTxn{Success: ops}, false)
}

func (e *EtcdStore) txn(ctx context.Context, t etcdTxn, write bool) (view etcdView, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	err = e.gateway.call(ctx, "/v3/kv/txn", t, write, func(reply []byte) (err error) {
		view, err = e.gateway.view(t, reply)
		return err
	})
	if err != nil {
		return etcdView{}, unavailable(err)
	}
	return view, nil
}

// view returns what a member responds to a transaction. Whatever responds at the address
// of a member need not be one, or may be one of another cluster: what does not match is
// an error.
func (g *gateway) view(t etcdTxn, reply []byte) (etcdView, error) {
	var r etcdResponse
	if err := json.Unmarshal(reply, &r); err != nil || r.Header.Revision == 0 {
		return etcdView{}, errNotEtcd
	}
	asked := t.Failure
	if r.Succeeded {
		asked = t.Success
	}
	fits := (r.Succeeded || len(t.Compare) > 0) && len(r.Responses) == len(asked)
	view := etcdView{r.Succeeded, r.Header.Revision, map[*etcdRange][]etcdKV{}}
	for i := 0; fits && i < len(asked); i++ {
		found := r.Responses[i].Range.Kvs
		fits = !slices.ContainsFunc(found, func(kv etcdKV) bool { return !asked[i].Range.has(kv.Key) })
		view.found[asked[i].Range] = found
	}
	if !fits {
		return etcdView{}, errors.New("the response does not match the transaction")
	}
	g.cluster.CompareAndSwap(nil, &r.Header.Cluster)
	if *g.cluster.Load() != r.Header.Cluster {
		return etcdView{}, errors.New("the response is from another cluster")
	}
	return view, nil
}

// The messages of etcd that are used here (etcd's rpc.proto and kv.proto). In JSON,
// bytes are base64 and an int64 is a string.

type etcdTxn struct {
	Compare []etcdCompare `json:"compare,omitempty"`
	Success []etcdOp      `json:"success,omitempty"` // if all comparisons are true
	Failure []etcdOp      `json:"failure,omitempty"` // otherwise

	ends []time.Time // of the sessions and tokens that the transaction needs; zero is none
}

// An etcdCompare compares a property of a key, or of each key from Key to RangeEnd. The
// numbers of an absent key are 0.
type etcdCompare struct {
	Key            []byte `json:"key"`
	RangeEnd       []byte `json:"range_end,omitempty"`
	Target         string `json:"target"`
	Result         string `json:"result"`
	CreateRevision int64  `json:"create_revision,omitempty,string"`
	ModRevision    int64  `json:"mod_revision,omitempty,string"`
}

// An etcdOp has exactly one of its fields set.
type etcdOp struct {
	Range  *etcdRange `json:"request_range,omitempty"`
	Put    *etcdPut   `json:"request_put,omitempty"`
	Delete *etcdRange `json:"request_delete_range,omitempty"`
}

type etcdRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"` // the first key after the range
	Limit    int64  `json:"limit,omitempty,string"`
}

type etcdPut struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

type etcdKV struct {
	Key, Value     []byte
	CreateRevision int64 `json:"create_revision,string"`
	ModRevision    int64 `json:"mod_revision,string"`
}

type etcdResponse struct {
	Header struct {
		Cluster  string `json:"cluster_id"`
		Revision int64  `json:",string"`
	}
	Succeeded bool
	Responses []struct {
		Range struct{ Kvs []etcdKV } `json:"response_range"`
	}
}

// has reports whether a key is in the range, which may be nil.
func (r *etcdRange) has(key []byte) bool {
	return r != nil && (bytes.Equal(key, r.Key) || bytes.Compare(r.Key, key) < 0 && bytes.Compare(key, r.RangeEnd) < 0)
}

// An etcdView is what a transaction has read.
type etcdView struct {
	succeeded bool
	revision  int64                   // of the cluster; each change increments it
	found     map[*etcdRange][]etcdKV // by each read, in the order of the keys
}

func getKey(key string) etcdOp { return etcdOp{Range: &etcdRange{Key: []byte(key)}} }

func getBetween(from, to string) etcdOp {
	return etcdOp{Range: &etcdRange{Key: []byte(from), RangeEnd: []byte(to)}}
}

func getAll(prefix string) etcdOp { return getBetween(prefix, prefixEnd(prefix)) }

func (op etcdOp) first(n int64) etcdOp {
	op.Range.Limit = n
	return op
}

func putKey(key string, value any) etcdOp {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // unreachable: IDs, accounts and sessions can be marshalled
	}
	return etcdOp{Put: &etcdPut{Key: []byte(key), Value: text}}
}

func removeKey(key string) etcdOp { return etcdOp{Delete: getKey(key).Range} }

func removeBetween(from, to string) etcdOp { return etcdOp{Delete: getBetween(from, to).Range} }

// prefixEnd returns the first key after those with a prefix, which ends in /.
func prefixEnd(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }

func (v etcdView) all(read etcdOp) []etcdKV { return v.found[read.Range] }

// at returns what was found at a key, or the zero value.
func (v etcdView) at(key string) etcdKV {
	for _, found := range v.found {
		for _, kv := range found {
			if string(kv.Key) == key {
				return kv
			}
		}
	}
	return etcdKV{}
}

func (v etcdView) value(key string) string { return string(v.at(key).Value) }

// account returns the account, or nil, from the reads of its user and of some of its
// sessions. They are in the order of their logins.
func (v etcdView) account(user, sessions etcdOp) (*account, error) {
	users, err := values[User](v.all(user))
	if err != nil || len(users) == 0 {
		return nil, err
	}
	found := slices.Clone(v.all(sessions))
	slices.SortFunc(found, func(a, b etcdKV) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	a := &account{user: &users[0]}
	a.sessions, err = values[Session](found)
	return a, err
}

// unchanged returns the comparison that a key is still as it was read, or still absent.
func (v etcdView) unchanged(key string) etcdCompare {
	return etcdCompare{Key: []byte(key), Target: "MOD", Result: "EQUAL", ModRevision: v.at(key).ModRevision}
}

// values decodes the values of keys.
func values[T any](kvs []etcdKV) ([]T, error) {
	decoded := make([]T, len(kvs))
	for i, kv := range kvs {
		if err := json.Unmarshal(kv.Value, &decoded[i]); err != nil {
			return nil, fmt.Errorf("the value of etcd's key %s: %w", kv.Key, err)
		}
	}
	return decoded, nil
}
