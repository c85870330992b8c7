//go:build ours

package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// With the tag ours, the files of the store are compiled with these.

func init() { makers["stdauth"] = maker{fillOurs, openOurs} }

var life = Lifetimes{Idle: idle, Max: lifetime}

// fillOurs writes each session three times, so that the first change starts a compaction.
func fillOurs(dir string, n int) error {
	file, err := os.Create(filepath.Join(dir, "users.jsonl"))
	if err != nil {
		return err
	}
	defer file.Close()
	w := bufio.NewWriterSize(file, 1<<20)
	w.WriteString(fileHeader)
	var line []byte
	now := time.Now().UTC()
	for id := int64(1); id <= int64(n); id++ {
		name := fmt.Sprintf("user%d", id)
		u := User{ID: id, Username: name, Email: name + "@example.com", FullName: "User " + name, Role: RoleUser, CreatedAt: now, PasswordHash: hash}
		s := Session{ID: sessionOf(id), UserID: id, Generation: 1, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(idle), UserAgent: agent, IP: "192.0.2.1"}
		for i, c := range []change{{ID: id, User: &u}, {ID: id, Session: &s}, {ID: id, Session: &s}, {ID: id, Session: &s}} {
			if i > 1 {
				s.Generation++
			}
			if line, err = appendLine(line[:0], c, false); err != nil {
				return err
			}
			w.Write(line)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return file.Sync()
}

type ours struct{ *FileStore }

func openOurs(dir string, clients int) (bank, error) {
	f, err := OpenFileStore(context.Background(), filepath.Join(dir, "users.jsonl"), life, slog.New(slog.DiscardHandler))
	return ours{f}, err
}

func (o ours) register(name string) (int64, error) {
	u := User{Username: name, Email: name + "@example.com", FullName: "User " + name, Role: RoleUser, CreatedAt: time.Now().UTC(), PasswordHash: hash}
	u, err := o.CreateUser(context.Background(), Caller{}, u)
	return u.ID, err
}

func (o ours) refresh(id int64, session string) error {
	_, _, err := o.UpdateSession(context.Background(), id, session, func(s *Session, u User) error {
		if u.Disabled {
			return ErrInactive
		}
		now := time.Now().UTC()
		s.Generation, s.LastUsedAt, s.ExpiresAt = s.Generation+1, now, now.Add(idle)
		return nil
	})
	return err
}

func (o ours) remove(id int64) error { return o.DeleteUser(context.Background(), Caller{}, id) }

func (o ours) close() error { return o.Close() }
