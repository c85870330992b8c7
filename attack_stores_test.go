package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// This file has the attacks on what a store keeps.

// TestAttackRegistrationRace: fifty registrations of one name at once create one account.
func TestAttackRegistrationRace(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		statuses := map[int]int{}
		for _, a := range manyAtOnce(w, 50, func(i int) string {
			return fmt.Sprintf(`POST /users/ from 192.0.2.%d {"username":"%s","password":"correct horse"}`, i, []string{"alice", "Alice", "ALICE"}[i%3])
		}) {
			statuses[a.status]++
		}
		wantEqual(t, "the statuses of 50 registrations of one name at once", statuses, map[int]int{201: 1, 400: 49})
	})
}

// TestAttackLastAdminRace: if two admins demote and disable each other at once, one stays.
func TestAttackLastAdminRace(t *testing.T) {
	inPeopledWorld(t, func(w *world) {
		w.do(`PATCH /users/1 as admin {"role":"admin"}`)
		statuses := map[int]int{}
		for _, a := range manyAtOnce(w, 2, func(i int) string {
			return []string{`PATCH /users/1 as admin {"role":"user"}`, `PATCH /users/2 as john {"disabled":true}`}[i]
		}) {
			statuses[a.status]++
		}
		users, _ := w.store.Users(w.Context(), UserFilter{}, 0, 10)
		if count := len(slices.DeleteFunc(users, func(u User) bool { return u.Role != RoleAdmin || u.Disabled })); count != 1 {
			t.Errorf("after two admins demoted and disabled each other: %d active admins and the statuses %v; want one admin", count, statuses)
		}
	})
}

// TestAttackPlantedLink: an attacker who can write to the directory of the store plants
// a symbolic link where the store writes next.
func TestAttackPlantedLink(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	target := filepath.Join(t.TempDir(), "precious")
	write(t, target, "precious")
	notOnWindows(t, os.Symlink(target, f.path+".new"))
	f.compactNow()
	wantEqual(t, "the store beside a planted link", f.reopen().contents(), want)
	wantEqual(t, "the file behind a planted link", readText(t, target), "precious")
}

// TestAttackSecondName: the file of a running store has a second name, so another
// process could use it without finding a lock beside it.
func TestAttackSecondName(t *testing.T) {
	f := filledStore(t)
	second := filepath.Join(t.TempDir(), "second.jsonl")
	notOnWindows(t, os.Link(f.path, second))
	_, err := OpenFileStore(t.Context(), second, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore by a second name", err, errLocked)
	f.compactNow()
	_, err = OpenFileStore(t.Context(), f.path, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore after a compaction", err, errLocked)
}

// TestAttackDescriptors: clients take every file descriptor that a compaction frees. It
// needs one for the new file, and none once the old file is no longer in use.
func TestAttackDescriptors(t *testing.T) {
	f := filledStore(t)
	few := &fewDescriptors{folder: f.file.folder, left: 1}
	f.file.folder = few
	f.compactNow()
	wantErr(t, "Ready after a compaction with one descriptor", f.Ready(t.Context()), nil)
	f.compact()
	f.logs.await("could not compact the store")
	f.create(newUser("late"))
	want := f.contents()
	wantEqual(t, "the store opened again", f.reopen().contents(), want)
}

// TestAttackReplacedFile: the file is replaced or removed while the store runs. Writes
// to the old file would be lost at the next start, and none is acknowledged.
func TestAttackReplacedFile(t *testing.T) {
	for what, replace := range map[string]func(path string) error{
		"replaced by another": func(path string) error { return os.Rename(path+".other", path) },
		"removed":             os.Remove,
		"replaced by a link":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink(path+".other", path)) },
		"truncated":           func(path string) error { return os.Truncate(path, 0) },
		"appended to": func(path string) error {
			other, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = other.WriteString("{}\n")
			return errors.Join(err, other.Close())
		},
	} {
		f := filledStore(t)
		before := f.contents()
		write(t, f.path+".other", fileHeader)
		notOnWindows(t, replace(f.path))
		_, err := f.CreateUser(t.Context(), Caller{}, newUser("late"))
		wantErr(t, "CreateUser in a file that was "+what, err, ErrUnavailable)
		wantErr(t, "Ready with a file that was "+what, f.Ready(t.Context()), ErrUnavailable)
		f.logs.await("takes no more changes")
		wantEqual(t, "the contents that readers see of a file that was "+what, f.contents(), before)
	}
	// The file is replaced after the last change, while a compaction is under way.
	f := filledStore(t)
	write(t, f.path+".other", fileHeader)
	f.file.folder = replacingFolder{f.file.folder, f.path}
	f.compact()
	f.logs.await("takes no more changes")
	wantEqual(t, "the file that took the place of the store's", readText(t, f.path), fileHeader)
	if _, err := os.Stat(f.path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of the new file = %v, want none", err)
	}
}

// TestAttackEtcdRedirect: a member of the cluster, or an impostor, redirects to another
// address. The name and the password of the etcd user are not sent there.
func TestAttackEtcdRedirect(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++ }))
	defer elsewhere.Close()
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer member.Close()
	_, err := OpenEtcdStore(t.Context(), "etcd://"+member.Listener.Addr().String(), "alice", "a secret", testLife, slog.New(slog.DiscardHandler))
	if err == nil || asked > 0 {
		t.Errorf("OpenEtcdStore with a member that redirects: %v, and %d requests to the other address; want an error and none", err, asked)
	}
}

// TestAttackFileDescriptors: an attacker opens connections until the process has no
// file descriptors left. That is logged once a minute, not a thousand times a second.
func TestAttackFileDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		errorLog := newErrorLog(slog.New(slog.NewTextHandler(&log, nil)))
		for range 100 {
			errorLog.Print("http: Accept error: accept tcp 127.0.0.1:8000: accept4: too many open files; retrying in 1s")
			errorLog.Print("http: TLS handshake error from 192.0.2.1:1234: EOF")
			time.Sleep(time.Second)
		}
		got := log.String()
		if strings.Count(got, "level=ERROR") != 2 || !strings.Contains(got, "too many open files") || strings.Contains(got, "handshake") {
			t.Errorf("the log of 100 s is\n%s\nwant an error at once, one after a minute, and nothing about clients", got)
		}
	})
}

// A fewDescriptors opens only so many files.
type fewDescriptors struct {
	folder
	left int
}

func (d *fewDescriptors) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if d.left--; d.left < 0 {
		return nil, syscall.EMFILE
	}
	return d.folder.OpenFile(name, flag, perm)
}

func (d replacingFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if err := os.Rename(d.path+".other", d.path); err != nil {
		return nil, err
	}
	return d.folder.OpenFile(name, flag, perm)
}

// A replacingFolder replaces the file of a store when a compaction creates the new one.
type replacingFolder struct {
	folder
	path string
}
