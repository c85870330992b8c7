package main

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

func init() { makers["SQLite"] = maker{fillSQLite, openSQLite} }

const schema = `
create table users (
	id integer primary key autoincrement, username text not null, folded text not null unique, email text, full_name text,
	disabled integer not null default 0, role text not null, created_at integer not null, password_hash text not null,
	epoch integer not null default 0
);
create table sessions (
	id text primary key, user_id integer not null references users on delete cascade, epoch integer not null,
	generation integer not null, created_at integer not null, last_used_at integer not null, expires_at integer not null,
	user_agent text, ip text
) without rowid;
create index sessions_of on sessions (user_id);
`

const (
	newUser    = `insert into users (username, folded, email, full_name, role, created_at, password_hash) values (?, lower(?), ?, ?, 'user', ?, ?)`
	newSession = `insert into sessions values (?, ?, 0, 1, ?, ?, ?, ?, '192.0.2.1')`
)

func database(dir string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", filepath.Join(dir, "users.db")+"?_journal_mode=WAL&_synchronous=FULL&_foreign_keys=on&_txlock=immediate&_cache_size=-64000")
	if err == nil {
		db.SetMaxOpenConns(1) // SQLite has one writer at a time; waiting here is cheaper than its busy handler
	}
	return db, err
}

func fillSQLite(dir string, n int) error {
	db, err := database(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(schema); err != nil {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	user, err := tx.Prepare(newUser)
	if err != nil {
		return err
	}
	session, err := tx.Prepare(newSession)
	if err != nil {
		return err
	}
	now := time.Now()
	for id := int64(1); id <= int64(n); id++ {
		name := fmt.Sprintf("user%d", id)
		if _, err := user.Exec(name, name, name+"@example.com", "User "+name, now.Unix(), hash); err != nil {
			return err
		}
		if _, err := session.Exec(sessionOf(id), id, now.UnixNano(), now.UnixNano(), now.Add(idle).UnixNano(), agent); err != nil {
			return err
		}
	}
	return tx.Commit()
}

type sqlite struct {
	db                                *sql.DB
	newUser, session, update, oldUser *sql.Stmt
}

func openSQLite(dir string, clients int) (bank, error) {
	db, err := database(dir)
	if err != nil {
		return nil, err
	}
	var failed error
	prepare := func(query string) *sql.Stmt {
		s, err := db.Prepare(query)
		failed = errors.Join(failed, err)
		return s
	}
	return sqlite{
		db: db, newUser: prepare(newUser),
		session: prepare(`select s.generation, s.epoch, s.expires_at, u.epoch, u.disabled from sessions s join users u on u.id = s.user_id where s.id = ? and u.id = ?`),
		update:  prepare(`update sessions set generation = ?, last_used_at = ?, expires_at = ? where id = ?`),
		oldUser: prepare(`delete from users where id = ?`),
	}, failed
}

func (s sqlite) register(name string) (int64, error) {
	r, err := s.newUser.Exec(name, name, name+"@example.com", "User "+name, time.Now().Unix(), hash)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

func (s sqlite) refresh(id int64, session string) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var generation, epoch, expires, current int64
	var disabled bool
	if err := tx.Stmt(s.session).QueryRow(session, id).Scan(&generation, &epoch, &expires, &current, &disabled); err != nil {
		return err
	}
	now := time.Now()
	if epoch != current || disabled || expires <= now.UnixNano() {
		return errors.New("ended")
	}
	if _, err := tx.Stmt(s.update).Exec(generation+1, now.UnixNano(), now.Add(idle).UnixNano(), session); err != nil {
		return err
	}
	return tx.Commit()
}

func (s sqlite) remove(id int64) error {
	_, err := s.oldUser.Exec(id)
	return err
}

func (s sqlite) close() error { return s.db.Close() }
