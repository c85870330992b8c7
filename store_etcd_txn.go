package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The messages of etcd that are used here (etcd's rpc.proto and kv.proto). In JSON,
// bytes are base64 and an int64 is a string.

type etcdTxn struct {
	Compare []etcdCompare `json:"compare,omitempty"`
	Success []etcdOp      `json:"success,omitempty"` // if all comparisons are true
	Failure []etcdOp      `json:"failure,omitempty"` // otherwise

	ends []time.Time // when a session or token that the transaction needs ends, see commit; zero is never
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
	Put    *etcdRange `json:"request_put,omitempty"`
	Delete *etcdRange `json:"request_delete_range,omitempty"`
}

type etcdRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"` // the first key after the range, if not of one key
	Limit    int64  `json:"limit,omitempty,string"`
	Value    []byte `json:"value,omitempty"` // to put
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
	at        map[string]etcdKV       // by each key that was found
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
	text, _ := json.Marshal(value) // IDs, accounts and sessions of now can be marshalled
	return etcdOp{Put: &etcdRange{Key: []byte(key), Value: text}}
}

func removeKey(key string) etcdOp { return etcdOp{Delete: getKey(key).Range} }

// prefixEnd returns the first key after those with a prefix, which ends in /.
func prefixEnd(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }

func (v etcdView) all(read etcdOp) []etcdKV { return v.found[read.Range] }

func (v etcdView) value(key string) string { return string(v.at[key].Value) }

// account returns the account, or nil, from the reads of its user and of some of its
// sessions. They are in the order of their logins.
func (v etcdView) account(user etcdOp, sessions ...etcdOp) (*account, error) {
	users, err := values[User](v.all(user))
	if err != nil || len(users) == 0 {
		return nil, err
	}
	var found []etcdKV
	for _, read := range sessions {
		found = append(found, v.all(read)...)
	}
	slices.SortFunc(found, func(a, b etcdKV) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	a := &account{user: &users[0]}
	a.sessions, err = values[Session](found)
	return a, err
}

// unchanged returns the comparison that a key is still as it was read, or still absent.
func (v etcdView) unchanged(key string) etcdCompare {
	return etcdCompare{Key: []byte(key), Target: "MOD", Result: "EQUAL", ModRevision: v.at[key].ModRevision}
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
