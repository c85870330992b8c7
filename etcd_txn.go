package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// change is how everything changes: it reads, lets decide say what shall happen
// to what was found, and does it in a transaction whose comparisons say that
// nothing has changed meanwhile; if something has, all begins anew. Where there
// is nothing to happen, what decide saw is durable already: a majority had it.
//
// Whoever lost against another takes turns with all at this copy who did, so
// that fifty refreshes of one session at once need fifty rounds at most, not
// fifty times fifty.
//
// A change is made or not, however soon the client hangs up: a thief who sends
// a stolen token must not save its session by hanging up.
func (e *EtcdStore) change(ctx context.Context, reads []etcdOp, decide func(context.Context, etcdView) (etcdTxn, error)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), etcdPatience)
	defer cancel()
	waited := false
	for range maxEtcdTries {
		now, err := e.read(ctx, reads...)
		if err != nil {
			return err
		}
		t, err := decide(ctx, now)
		if err != nil || len(t.Success) == 0 {
			return err
		}
		done, err := e.commit(ctx, t)
		switch {
		case e.leaseMissing(err):
			continue
		case done || err != nil:
			return err
		case waited:
			continue
		}
		select {
		case e.turn <- struct{}{}:
			waited = true
			defer func() { <-e.turn }()
		case <-ctx.Done():
			return unavailable(errors.New("too many changes at once"))
		}
	}
	return unavailable(fmt.Errorf("others came first %d times", maxEtcdTries))
}

// commit makes a change whose comparisons are true, and reports whether they
// were.
//
// The gateway may send it twice, and the first may still be on its way. That is
// safe, because each change makes one of its own comparisons false, so that of
// all that was sent one at most happens:
//
//	CreateUser      compares the counter of IDs, and counts up
//	UpdateUser      compares the account, and writes it
//	DeleteUser      compares the account, and removes it
//	CreateSession   compares that there is no new session, and makes one
//	UpdateSession   compares the session, and writes it
//	EndSession      compares the session, and removes it
//	EndSessions     compares that there is no new session: those it has seen
//	                can be removed twice
//	Import          compares that it is under way: until then, a batch can be
//	                written twice
//
// If one that was sent again did not happen, and yet all is as it would have it,
// the one before did. If all is otherwise, that one may have happened too and
// others gone on from there: nobody can say.
func (e *EtcdStore) commit(ctx context.Context, t etcdTxn) (done bool, err error) {
	for _, op := range t.Success {
		t.Failure = append(t.Failure, op.reads())
	}
	again, now, err := e.txn(ctx, t)
	switch {
	case err != nil || now.succeeded || !again:
		return now.succeeded, err
	case now.shows(t.Success):
		return true, nil
	}
	return false, unavailable(errors.New("the answer to a change got lost"))
}

// read returns what the keys hold, all at one time.
func (e *EtcdStore) read(ctx context.Context, ops ...etcdOp) (etcdView, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	_, now, err := e.txn(ctx, etcdTxn{Success: ops})
	return now, err
}

func (e *EtcdStore) txn(ctx context.Context, t etcdTxn) (again bool, now etcdView, err error) {
	var answer etcdAnswer
	if again, err = e.gateway.call(ctx, "/v3/kv/txn", t, &answer); err != nil {
		return again, now, unavailable(err)
	}
	asked := t.Failure
	if answer.Succeeded {
		asked = t.Success
	}
	if len(answer.Responses) != len(asked) {
		return again, now, unavailable(errors.New("the answer does not fit the transaction"))
	}
	return again, answer.view(), nil
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// The messages of etcd, as far as they are needed (etcd's rpc.proto and
// kv.proto). JSON has []byte in base64 and the int64 as strings.

type etcdTxn struct {
	Compare []etcdCompare `json:"compare,omitempty"`
	Success []etcdOp      `json:"success,omitempty"` // if all comparisons are true
	Failure []etcdOp      `json:"failure,omitempty"` // if not
}

// An etcdCompare compares a property of a key, or of each key from Key to
// RangeEnd. Where there is no key, numbers are 0.
type etcdCompare struct {
	Key            []byte `json:"key"`
	RangeEnd       []byte `json:"range_end,omitempty"`
	Target         string `json:"target"`
	Result         string `json:"result"`
	CreateRevision int64  `json:"create_revision,omitempty,string"`
	ModRevision    int64  `json:"mod_revision,omitempty,string"`
	Value          []byte `json:"value,omitempty"`
}

// An etcdOp has one of its fields set.
type etcdOp struct {
	Range  *etcdRange `json:"request_range,omitempty"`
	Put    *etcdPut   `json:"request_put,omitempty"`
	Delete *etcdRange `json:"request_delete_range,omitempty"`
}

type etcdRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"` // the first key that does not belong to it
	Limit    int64  `json:"limit,omitempty,string"`
}

type etcdPut struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
	Lease int64  `json:"lease,omitempty,string"`
}

type etcdLease struct {
	ID  int64 `json:"ID,string"`
	TTL int64 `json:"TTL,omitempty,string"` // seconds
}

type etcdKV struct {
	Key, Value     []byte
	CreateRevision int64 `json:"create_revision,string"`
	ModRevision    int64 `json:"mod_revision,string"`
}

type etcdAnswer struct {
	Header struct {
		Revision int64 `json:",string"`
	}
	Succeeded bool
	Responses []struct {
		Range struct{ Kvs []etcdKV } `json:"response_range"`
	}
}

// An etcdView is what the ranges of a transaction found.
type etcdView struct {
	succeeded bool
	revision  int64      // of the whole cluster, counts up with each change
	found     [][]etcdKV // for each operation
}

func (a *etcdAnswer) view() etcdView {
	v := etcdView{succeeded: a.Succeeded, revision: a.Header.Revision}
	for _, r := range a.Responses {
		v.found = append(v.found, r.Range.Kvs)
	}
	return v
}

func getKey(key string) etcdOp { return etcdOp{Range: &etcdRange{Key: []byte(key)}} }

func getBetween(from, to string) etcdOp {
	return etcdOp{Range: &etcdRange{Key: []byte(from), RangeEnd: []byte(to)}}
}

func getAll(prefix string) etcdOp { return getBetween(prefix, prefixEnd(prefix)) }

func getFirst(prefix string) etcdOp {
	op := getAll(prefix)
	op.Range.Limit = 1
	return op
}

func putKey(key, value string) etcdOp { return putLeased(key, value, 0) }

func putLeased(key, value string, lease int64) etcdOp {
	return etcdOp{Put: &etcdPut{Key: []byte(key), Value: []byte(value), Lease: lease}}
}

func removeKey(key string) etcdOp { return etcdOp{Delete: getKey(key).Range} }

func removeBetween(from, to string) etcdOp { return etcdOp{Delete: getBetween(from, to).Range} }

func removeAll(prefix string) etcdOp { return removeBetween(prefix, prefixEnd(prefix)) }

// prefixEnd returns the first key behind all that begin with prefix, which ends in /.
func prefixEnd(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }

// reads returns the range of what op writes.
func (op etcdOp) reads() etcdOp {
	if op.Put != nil {
		return getKey(string(op.Put.Key))
	}
	return etcdOp{Range: op.Delete}
}

// shows reports whether ops have happened, or need not happen, given what their
// keys hold.
func (v etcdView) shows(ops []etcdOp) bool {
	for i, op := range ops {
		if op.Put != nil && v.value(i) != string(op.Put.Value) || op.Delete != nil && len(v.found[i]) > 0 {
			return false
		}
	}
	return true
}

// value returns the value of the one key that read i may have found, or "".
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

// unchanged compares whether the key of read i is as it was.
func (v etcdView) unchanged(i int, key string) etcdCompare {
	kv := etcdKV{Key: []byte(key)}
	if len(v.found[i]) > 0 {
		kv = v.found[i][0]
	}
	return kv.unchanged()
}

func (kv etcdKV) unchanged() etcdCompare {
	return etcdCompare{Key: kv.Key, Target: "MOD", Result: "EQUAL", ModRevision: kv.ModRevision}
}

// noneNew compares whether no key under the prefix was made since the view.
func (v etcdView) noneNew(prefix string) etcdCompare {
	return etcdCompare{Key: []byte(prefix), RangeEnd: []byte(prefixEnd(prefix)), Target: "CREATE", Result: "LESS", CreateRevision: v.revision + 1}
}

func (kv etcdKV) decode(into any) error {
	if err := json.Unmarshal(kv.Value, into); err != nil {
		return fmt.Errorf("the value of etcd's key %s: %w", kv.Key, err)
	}
	return nil
}
