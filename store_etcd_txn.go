package main

import (
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
	asking := len(reads)
	if by != (Caller{}) {
		reads = append(reads, getKey(user), getKey(session))
	}
	for {
		now, err := e.read(ctx, reads...)
		if err != nil {
			return err
		}
		if by != (Caller{}) {
			a, err := now.account(asking, asking+1)
			if err != nil {
				return err
			}
			if err := a.allow(by, e.life); err != nil {
				return err
			}
		}
		t, refusal := decide(now)
		if len(t.Success) == 0 {
			return refusal
		}
		if by != (Caller{}) {
			t.Compare = append(t.Compare, now.unchanged(asking, user), now.unchanged(asking+1, session))
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
func (e *EtcdStore) commit(ctx context.Context, t etcdTxn) (done bool, err error) {
	now, err := e.txn(ctx, t, true)
	return now.succeeded, err
}

// read reads keys, all at the same revision.
func (e *EtcdStore) read(ctx context.Context, ops ...etcdOp) (etcdView, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	return e.txn(ctx, etcdTxn{Success: ops}, false)
}

func (e *EtcdStore) txn(ctx context.Context, t etcdTxn, write bool) (etcdView, error) {
	var reply etcdResponse
	if err := e.gateway.call(ctx, "/v3/kv/txn", t, &reply, write); err != nil {
		return etcdView{}, unavailable(err)
	}
	asked := t.Failure
	if reply.Succeeded {
		asked = t.Success
	}
	// Whatever responds at the address of a member need not be one.
	fits := reply.Header.Revision != 0 && (reply.Succeeded || len(t.Compare) > 0) && len(reply.Responses) == len(asked)
	if !fits {
		return etcdView{}, unavailable(errors.New("the response does not match the transaction"))
	}
	v := etcdView{succeeded: reply.Succeeded, revision: reply.Header.Revision}
	for _, r := range reply.Responses {
		v.found = append(v.found, r.Range.Kvs)
	}
	return v, nil
}

// The messages of etcd that are used here (etcd's rpc.proto and kv.proto). In JSON,
// bytes are base64 and an int64 is a string.

type etcdTxn struct {
	Compare []etcdCompare `json:"compare,omitempty"`
	Success []etcdOp      `json:"success,omitempty"` // if all comparisons are true
	Failure []etcdOp      `json:"failure,omitempty"` // otherwise
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
		Revision int64 `json:",string"`
	}
	Succeeded bool
	Responses []struct {
		Range struct{ Kvs []etcdKV } `json:"response_range"`
	}
}

// An etcdView is the result of the reads of a transaction.
type etcdView struct {
	succeeded bool
	revision  int64      // of the cluster; each change increments it
	found     [][]etcdKV // for each read
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

// value returns the value of the first key that read i found, or "".
func (v etcdView) value(i int) string {
	if len(v.found[i]) == 0 {
		return ""
	}
	return string(v.found[i][0].Value)
}

func (v etcdView) decode(i int, into any) error {
	if len(v.found[i]) == 0 {
		return ErrNotFound
	}
	return v.found[i][0].decode(into)
}

// account returns the account, or nil, from the reads of its user and of its sessions,
// which are then in the order of their logins.
func (v etcdView) account(user, sessions int) (*account, error) {
	a := &account{user: &User{}}
	if err := v.decode(user, a.user); errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	older := func(a, b etcdKV) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	for _, kv := range slices.SortedFunc(slices.Values(v.found[sessions]), older) {
		var s Session
		if err := kv.decode(&s); err != nil {
			return nil, err
		}
		a.sessions = append(a.sessions, s)
	}
	return a, nil
}

// unchanged returns the comparison that a key is still as read i found it, or still
// absent.
func (v etcdView) unchanged(i int, key string) etcdCompare {
	for _, kv := range v.found[i] {
		if string(kv.Key) == key {
			return kv.unchanged()
		}
	}
	return etcdKV{Key: []byte(key)}.unchanged()
}

func (kv etcdKV) unchanged() etcdCompare {
	return etcdCompare{Key: kv.Key, Target: "MOD", Result: "EQUAL", ModRevision: kv.ModRevision}
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
