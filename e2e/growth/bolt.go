package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

func init() { makers["bbolt"] = maker{fillBolt, openBolt} }

var users, names, sessions = []byte("users"), []byte("names"), []byte("sessions")

type boltUser struct {
	ID                                            int64
	Username, Email, FullName, Role, PasswordHash string
	Disabled                                      bool
	CreatedAt                                     time.Time
	Epoch                                         int64
}

type boltSession struct {
	ID                               string
	UserID, Epoch, Generation        int64
	CreatedAt, LastUsedAt, ExpiresAt time.Time
	UserAgent, IP                    string
}

func key(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func put(tx *bbolt.Tx, bucket, key []byte, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, text)
}

func get(tx *bbolt.Tx, bucket, key []byte, value any) error {
	text := tx.Bucket(bucket).Get(key)
	if text == nil {
		return errors.New("not found")
	}
	return json.Unmarshal(text, value)
}

func putUser(tx *bbolt.Tx, name string) (id int64, err error) {
	if tx.Bucket(names).Get([]byte(strings.ToLower(name))) != nil {
		return 0, errors.New("taken")
	}
	next, err := tx.Bucket(users).NextSequence()
	if err != nil {
		return 0, err
	}
	u := boltUser{ID: int64(next), Username: name, Email: name + "@example.com", FullName: "User " + name, Role: "user", PasswordHash: hash, CreatedAt: time.Now().UTC()}
	if err := put(tx, users, key(u.ID), u); err != nil {
		return 0, err
	}
	return u.ID, tx.Bucket(names).Put([]byte(strings.ToLower(name)), key(u.ID))
}

func fillBolt(dir string, n int) error {
	db, err := bbolt.Open(filepath.Join(dir, "users.bolt"), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	for made := 0; made < n; {
		err := db.Update(func(tx *bbolt.Tx) error {
			for _, bucket := range [][]byte{users, names, sessions} {
				if _, err := tx.CreateBucketIfNotExists(bucket); err != nil {
					return err
				}
			}
			for range min(100_000, n-made) {
				made++
				id, err := putUser(tx, fmt.Sprintf("user%d", made))
				if err != nil {
					return err
				}
				now := time.Now().UTC()
				s := boltSession{sessionOf(id), id, 0, 1, now, now, now.Add(idle), agent, "192.0.2.1"}
				if err := put(tx, sessions, append(key(id), s.ID...), s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A bolt shares syncs among clients, if there are several.
type bolt struct {
	db     *bbolt.DB
	change func(func(*bbolt.Tx) error) error
}

func openBolt(dir string, clients int) (bank, error) {
	db, err := bbolt.Open(filepath.Join(dir, "users.bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	if clients == 1 {
		return bolt{db, db.Update}, nil
	}
	db.MaxBatchSize = clients
	return bolt{db, db.Batch}, nil
}

func (b bolt) register(name string) (id int64, err error) {
	err = b.change(func(tx *bbolt.Tx) (err error) {
		id, err = putUser(tx, name)
		return err
	})
	return id, err
}

func (b bolt) refresh(id int64, session string) error {
	return b.change(func(tx *bbolt.Tx) error {
		var u boltUser
		var s boltSession
		of := append(key(id), session...)
		if err := errors.Join(get(tx, users, key(id), &u), get(tx, sessions, of, &s)); err != nil {
			return err
		}
		now := time.Now().UTC()
		if s.Epoch != u.Epoch || u.Disabled || !now.Before(s.ExpiresAt) {
			return errors.New("ended")
		}
		s.Generation, s.LastUsedAt, s.ExpiresAt = s.Generation+1, now, now.Add(idle)
		return put(tx, sessions, of, s)
	})
}

func (b bolt) remove(id int64) error {
	return b.change(func(tx *bbolt.Tx) error {
		var u boltUser
		if err := get(tx, users, key(id), &u); err != nil {
			return err
		}
		of := tx.Bucket(sessions).Cursor()
		for k, _ := of.Seek(key(id)); k != nil && strings.HasPrefix(string(k), string(key(id))); k, _ = of.Next() {
			if err := of.Delete(); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(users).Delete(key(id)), tx.Bucket(names).Delete([]byte(strings.ToLower(u.Username))))
	})
}

func (b bolt) close() error { return b.db.Close() }
