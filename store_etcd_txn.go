package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	if by != (Caller{}) {
		reads = append(reads, getKey(user), getKey(session))
	}
	for {
		view, err := e.read(ctx, reads...)
		if err != nil {
			return err
		}
		var asking Session
		if by != (Caller{}) {
			a, err := e.accountIn(view, by.UserID)
			if err != nil {
				return err
			}
			if err := a.allow(by, e.life); err != nil {
				return err
			}
			asking, _ = a.session(by.SessionID, e.life)
		}
		t, refusal := decide(view)
		if len(t.Success) == 0 {
			return refusal
		}
		if by != (Caller{}) {
			t.Compare = append(t.Compare, view.unchanged(user), view.unchanged(session))
			t.until = earlier(earlier(t.until, asking.ExpiresAt), by.Expires)
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
// A transaction can compare keys but not the time. So from t.until on it is neither sent
// nor acknowledged, and must be decided again.
func (e *EtcdStore) commit(ctx context.Context, t etcdTxn) (done bool, err error) {
	if !t.until.IsZero() {
		left := time.Until(t.until)
		if left <= 0 {
			return false, nil
		}
		expiring, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer time.AfterFunc(left, func() { cancel(errExpired) }).Stop()
		ctx = expiring
	}
	view, err := e.txn(ctx, t, true)
	return view.succeeded, err
}

var errExpired = errors.New("the session expired before the cluster responded")

// earlier returns the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// read reads keys, all at the same revision.
func (e *EtcdStore) read(ctx context.Context, ops ...etcdOp) (etcdView, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	return e.txn(ctx, etcdTxn{Success: ops}, false)
}

func (e *EtcdStore) txn(ctx context.Context, t etcdTxn, write bool) (view etcdView, err error) {
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
	view := etcdView{r.Succeeded, r.Header.Revision, map[string]etcdKV{}}
	for i, one := range r.Responses {
		for _, kv := range one.Range.Kvs {
			fits = fits && asked[i].reads(string(kv.Key))
			view.kvs[string(kv.Key)] = kv
		}
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

	until time.Time // the end of the session that the transaction needs, or zero
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
	Value          []byte `json:"value,omitempty"`
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

// An etcdView is what a transaction has read.
type etcdView struct {
	succeeded bool
	revision  int64 // of the cluster; each change increments it
	kvs       map[string]etcdKV
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

func putKey(key, value string) etcdOp {
	return etcdOp{Put: &etcdPut{Key: []byte(key), Value: []byte(value)}}
}

func removeKey(key string) etcdOp { return etcdOp{Delete: getKey(key).Range} }

func removeBetween(from, to string) etcdOp { return etcdOp{Delete: getBetween(from, to).Range} }

func removeAll(prefix string) etcdOp { return removeBetween(prefix, prefixEnd(prefix)) }

// prefixEnd returns the first key after those with a prefix, which ends in /.
func prefixEnd(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }

// reads reports whether a key is one of those that the operation reads.
func (op etcdOp) reads(key string) bool {
	r := op.Range
	return r != nil && (key == string(r.Key) || string(r.Key) < key && key < string(r.RangeEnd))
}

// all returns what a read has found, in the order of the keys.
func (v etcdView) all(read etcdOp) (found []etcdKV) {
	for _, key := range slices.Sorted(maps.Keys(v.kvs)) {
		if read.reads(key) {
			found = append(found, v.kvs[key])
		}
	}
	if limit := int(read.Range.Limit); limit > 0 {
		found = found[:min(limit, len(found))] // another read may have found more
	}
	return found
}

// value returns the value of a key, or "".
func (v etcdView) value(key string) string { return string(v.kvs[key].Value) }

// unchanged returns the comparison that a key is still as it was read, or still absent.
func (v etcdView) unchanged(key string) etcdCompare {
	return etcdCompare{Key: []byte(key), Target: "MOD", Result: "EQUAL", ModRevision: v.kvs[key].ModRevision}
}

// noneNew returns the comparison that no key under the prefix was created since the
// reads.
func (v etcdView) noneNew(prefix string) etcdCompare {
	return etcdCompare{Key: []byte(prefix), RangeEnd: []byte(prefixEnd(prefix)), Target: "CREATE", Result: "LESS", CreateRevision: v.revision + 1}
}

func (kv etcdKV) decode(into any) error {
	if err := json.Unmarshal(kv.Value, into); err != nil {
		return fmt.Errorf("the value of etcd's key %s: %w", kv.Key, err)
	}
	return nil
}
