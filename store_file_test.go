package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// This file tests the durability promise at the top of store_file.go, sentence by
// sentence. The contract of all stores is in store_test.go.

func TestFileStore(t *testing.T) {
	open := func(t *testing.T) Store { return openFile(t, storePath(t)).file }
	testStore(t, open)
	testStoreClock(t, open)
}

func TestFileStoreIsTheSameAfterReopening(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	f = f.reopen()
	wantEqual(t, "the store opened again", f.contents(), want)
	if got := f.create(newUser("next")).ID; got != 6 {
		t.Errorf("CreateUser = ID %d, want 6: the deleted account had 5", got)
	}
}

// TestFileStoreRandomOperations makes random calls to the store and to a model, with
// pauses, reopenings and compactions in between.
func TestFileStoreRandomOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := storePath(t)
		f := openFile(t, path)
		simulate(t, 1500, f.file, func(Store) Store {
			time.Sleep(10 * time.Minute)
			f = f.reopen()
			f.compactSoon()
			return f.file
		})
	})
}

// TestFileFormat: the format is a promise too. Later versions read backups, and people
// read the file with text tools.
func TestFileFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the year is 2000
		f := openFile(t, storePath(t))
		u := f.create(User{Username: "johndoe", Role: RoleUser, CreatedAt: longAgo, PasswordHash: "$pbkdf2-sha256$..."})
		s := NewSession(u, today(), testLife)
		s.ID, s.IP = "S1", "192.0.2.1"
		wantErr(t, "CreateSession", errOf(f.CreateSession(t.Context(), s)), nil)
		f.rotate(s)
		wantErr(t, "EndSession", f.EndSession(t.Context(), Caller{}, 1, "S1"), nil)
		wantErr(t, "EndSessions", f.EndSessions(t.Context(), Caller{}, 1, "S2"), nil)
		f.remove(1)
		want := `{"format":"stdauth","version":1}
{"crc":"9167547a","id":1,"user":{"id":1,"username":"johndoe","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"$pbkdf2-sha256$..."}}
{"crc":"5b5909ff","id":1,"session":{"id":"S1","user_id":1,"generation":1,"created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-01T01:00:00Z","ip":"192.0.2.1"}}
{"crc":"119df91b","id":1,"session":{"id":"S1","user_id":1,"generation":2,"created_at":"2000-01-01T00:00:00Z","last_used_at":"2000-01-01T00:00:00Z","expires_at":"2000-01-01T01:00:00Z","ip":"192.0.2.1"}}
{"crc":"234fe9eb","id":1,"ended":"S1"}
{"crc":"ea2ca17a","id":1,"kept":"S2"}
{"crc":"c8762260","id":1,"deleted":true}
`
		wantEqual(t, "the file", string(f.bytes()), want)
	})
}

func TestFileOfTheFirstVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in 2000, before its sessions expire
		path := storePath(t)
		write(t, path, read(t, "testdata/first-version.jsonl"))
		f, err := OpenFileStore(t.Context(), path, monthLife, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		testFirstVersion(t, testedStore{f, t}, map[string]string{
			"current":                 "PME2QLKAJLY6HW2GH6VTM6GHV4.2.2.7mB97V24KmYrJdvAorB1ha0wt7GInoIGaffvzY05wxs",
			"replaced":                "PME2QLKAJLY6HW2GH6VTM6GHV4.2.1.UPtPU-rZE0GP79uKn4nTA9GRkHk7NW1h6__1KFEXUqo",
			"ended by a new password": "CROPYV5MY77GL4CXVE2TFBW6UD.3.1.PAawbpdRsIWbU6WNspA2tw6uESJtMdgzk5OUJNGmtFg",
		})
		f.Close()
	})
}

func TestFileWrittenByHandNeedsNoChecksums(t *testing.T) {
	path := storePath(t)
	write(t, path, fileHeader+`
{"id":3,"user":{"id":3,"username":"anna","role":"admin","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}
{"last_id": 8}
`[1:])
	f := openFile(t, path)
	want := User{ID: 3, Username: "anna", Role: RoleAdmin, CreatedAt: longAgo, PasswordHash: "x"}
	wantEqual(t, "Users", f.users(0, 10), []User{want})
	if got := f.create(newUser("next")).ID; got != 9 {
		t.Errorf("CreateUser = ID %d, want 9", got)
	}
}

func TestFileIsForItsOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	path := storePath(t)
	write(t, path, fileHeader)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(f openedFile, when string) {
		info, err := os.Stat(f.path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v (%v), want 0600", when, info.Mode(), err)
		}
	}
	f := openFile(t, path)
	check(f, "a file that everyone could read")
	f.create(newUser("johndoe"))
	f.compactNow()
	check(f, "after a compaction")
	check(openFile(t, storePath(t)), "a new file")
}

// TestTornLastLineIsDropped: a crash in the middle of a write leaves any part of the line.
func TestTornLastLineIsDropped(t *testing.T) {
	f := filledStore(t)
	before, acknowledged := f.contents(), f.bytes()
	f.create(newUser("torn"))
	torn := f.bytes()[len(acknowledged):]
	f.close()

	check := func(name string, tail []byte) {
		write(t, f.path, string(acknowledged)+string(tail))
		again, logs := openFileLog(t, f.path)
		wantEqual(t, name+": the store", again.contents(), before)
		wantEqual(t, name+": the file", string(f.bytes()), string(acknowledged))
		if len(tail) > 0 {
			logs.await(fmt.Sprintf("bytes=%d", len(tail)))
		}
		again.close()
	}
	for n := range len(torn) - 1 {
		check(fmt.Sprintf("cut off after %d of %d bytes", n, len(torn)), torn[:n])
	}
	for _, n := range []int{1, 512, 2 * maxLine} {
		check(fmt.Sprintf("%d zero bytes", n), make([]byte, n))
	}
	zeros := bytes.Clone(torn)
	clear(zeros[10:20])
	check("zero bytes in the middle of the line", zeros)
	check("zero bytes in the middle of a line without its end", zeros[:len(zeros)-1])
	clear(zeros[:len(zeros)-1])
	check("zero bytes up to the line end", zeros)

	f = openFile(t, f.path)
	if got := f.create(newUser("next")).ID; got != 6 {
		t.Errorf("CreateUser after a torn line = ID %d, want 6", got)
	}
	want := f.contents()
	wantEqual(t, "the store with a new line in place of the torn one", f.reopen().contents(), want)
}

// TestLastLineWithoutItsEndIsKept: a text editor may leave out the end of the last line.
func TestLastLineWithoutItsEndIsKept(t *testing.T) {
	anna := `{"id":1,"user":{"id":1,"username":"anna","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}`
	var u User
	wantErr(t, "Unmarshal", json.Unmarshal([]byte(anna[len(`{"id":1,"user":`):len(anna)-1]), &u), nil)
	ours, err := appendLine(nil, change{ID: 1, User: &u}, false)
	wantErr(t, "appendLine", err, nil)
	ben := strings.NewReplacer(`"id":1`, `"id":2`, "anna", "ben").Replace(anna)
	for _, row := range []struct {
		name, file string
		want       int // accounts, or -1 if the file is refused
		after      string
	}{
		{"a last line with a checksum is kept", fileHeader + strings.TrimSpace(string(ours)), 1, fileHeader + string(ours)},
		{"a last line without a checksum is kept", fileHeader + anna, 1, fileHeader + anna + "\n"},
		{"a last line after others is kept", fileHeader + anna + "\n" + ben, 2, fileHeader + anna + "\n" + ben + "\n"},
		{"a last line with half of a CRLF is kept", fileHeader + anna + "\r", 1, fileHeader + anna + "\r\n"},
		{"a last line followed by spaces is kept", fileHeader + anna + "  ", 1, fileHeader + anna + "  \n"},
		{"a last line without its last byte is dropped", fileHeader + anna[:len(anna)-1], 0, fileHeader},
		{"a last line with a wrong checksum is dropped", fileHeader + strings.Replace(strings.TrimSpace(string(ours)), "anna", "Anna", 1), 0, fileHeader},
		{"a last line that is no change is refused", fileHeader + anna + "\n" + anna + "\n" + `{"id":9,"ended":"S1"}`, -1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := storePath(t)
			write(t, path, row.file)
			imported, importErr := ReadFileStore(t.Context(), path)
			f, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
			if row.want < 0 {
				if err == nil || importErr == nil || !strings.Contains(err.Error(), "line 4: no account has the ID 9") {
					t.Errorf("OpenFileStore: got error %v, and ReadFileStore %v", err, importErr)
				}
				wantEqual(t, "the file", read(t, path), row.file)
				return
			}
			wantErr(t, "OpenFileStore", err, nil)
			wantEqual(t, "accounts", len(testedStore{f, t}.users(0, 10)), row.want)
			wantErr(t, "Close", f.Close(), nil)
			wantEqual(t, "the file", read(t, path), row.after)
			if row.want == 0 {
				if importErr == nil {
					t.Error("ReadFileStore left a line out without an error")
				}
				return
			}
			wantErr(t, "ReadFileStore", importErr, nil)
			wantEqual(t, "imported accounts", len(testedStore{imported, t}.users(0, 10)), row.want)
			again := openFile(t, path)
			again.create(newUser("next"))
			want := again.contents()
			wantEqual(t, "the store with another line, opened again", again.reopen().contents(), want)
		})
	}
}

// TestFileThatAnEditorSaved: line ends and byte order marks of other systems, at every
// place of a file.
func TestFileThatAnEditorSaved(t *testing.T) {
	const (
		anna = `{"id":1,"user":{"id":1,"username":"anna","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}` + "\n"
		mark = "begins with a byte order mark; save the file as UTF-8 without one"
		crlf = "ends in CRLF; save the file with LF as line ends"
	)
	f := filledStore(t)
	f.close()
	ours := string(f.bytes())
	lines := strings.SplitAfter(strings.TrimSuffix(ours, "\n"), "\n")
	var utf16 strings.Builder
	utf16.WriteString("\xff\xfe")
	for _, c := range ours {
		utf16.WriteString(string([]byte{byte(c), 0}))
	}
	for name, row := range map[string]struct{ file, want string }{
		"a file of ours with CRLF is refused":                   {strings.ReplaceAll(ours, "\n", "\r\n"), "line 2: an editor has changed it: it " + crlf},
		"a file of ours with a byte order mark is refused":      {"\ufeff" + ours, "line 1: an editor has changed it: it " + mark},
		"a file in UTF-16 is refused":                           {utf16.String(), "line 1: an editor has changed it: it " + mark},
		"a file written by hand with CRLF is read":              {strings.ReplaceAll(fileHeader+anna+`{"last_id":8}`+"\n", "\n", "\r\n"), ""},
		"a file written by hand with CRLF and no end is read":   {strings.ReplaceAll(fileHeader+anna+`{"last_id":8}`, "\n", "\r\n"), ""},
		"a header with CRLF is read":                            {strings.ReplaceAll(fileHeader, "\n", "\r\n") + anna, ""},
		"a hand-written line with a byte order mark is refused": {fileHeader + "\ufeff" + anna, "line 2: an editor has changed it: it " + mark},
	} {
		t.Run(name, func(t *testing.T) { wantStart(t, row.file, row.want) })
	}
	for i := 1; i < len(lines); i++ {
		for _, edit := range []struct{ name, line, want string }{
			{"CRLF", strings.TrimSuffix(lines[i], "\n") + "\r\n", crlf},
			{"a byte order mark", "\ufeff" + lines[i], mark},
			{"a byte order mark and CRLF", "\ufeff" + strings.TrimSuffix(lines[i], "\n") + "\r\n", mark},
		} {
			t.Run(fmt.Sprintf("%s in line %d is refused", edit.name, i+1), func(t *testing.T) {
				edited := slices.Clone(lines)
				edited[i] = edit.line
				wantStart(t, strings.Join(edited, ""), fmt.Sprintf("line %d: an editor has changed it: it %s", i+1, edit.want))
			})
		}
	}
}

// wantStart opens a store on a file. It wants an error and an unchanged file, or no error.
func wantStart(t *testing.T, file, want string) {
	t.Helper()
	path := storePath(t)
	write(t, path, file)
	f, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
	if want == "" {
		wantErr(t, "OpenFileStore", err, nil)
		before := testedStore{f, t}.contents()
		wantErr(t, "Close", f.Close(), nil)
		wantEqual(t, "the store opened again", openFile(t, path).contents(), before)
		return
	}
	if err == nil {
		f.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("OpenFileStore: got error %v, want %q", err, want)
	}
	wantEqual(t, "the file", read(t, path), file)
	if _, err := ReadFileStore(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("ReadFileStore: got error %v, want %q", err, want)
	}
}

// TestTornLinesThatSharedASync: the sectors of a write reach the disk in any order. Of
// lines that were written together, the first may be missing and the others complete.
func TestTornLinesThatSharedASync(t *testing.T) {
	line := func(name string, id int64, shared bool) string {
		u := newUser(name)
		u.ID = id
		b, err := appendLine(nil, change{ID: id, User: &u}, shared)
		wantErr(t, "appendLine", err, nil)
		return string(b)
	}
	zeros := func(text string, from, to int) string {
		return text[:from] + strings.Repeat("\x00", to-from) + text[to:]
	}
	before := fileHeader + line("anna", 1, false)
	first, second, third := line("ben", 2, false), line("cleo", 3, true), line("dora", 4, true)
	for _, row := range []struct {
		name, tail string
		want       int // accounts, or 0 if the file is refused
	}{
		{"three complete lines are read", first + second + third, 4},
		{"a first line with zero bytes drops all three lines", zeros(first, 5, 50) + second + third, 1},
		{"a first line with zero bytes and a last line without an end drop all three lines", zeros(first, 5, 50) + second + third[:90], 1},
		{"a second line with zero bytes drops the last two lines", first + zeros(second, 5, 50) + third, 2},
		{"zero bytes across the end of the first line drop all three lines", zeros(first+second, len(first)-9, len(first)+9) + third, 1},
		{"a first and a third line with zero bytes drop all three lines", zeros(first, 5, 50) + second + zeros(third, 5, 50), 1},
		{"zero bytes in place of all three lines are dropped", zeros(first+second+third, 0, len(first+second+third)), 1},
		{"zero bytes before a line of a later sync are refused", zeros(first, 5, 50) + second + line("dora", 4, false), 0},
		{"zero bytes before a damaged line are refused", zeros(first, 5, 50) + strings.Replace(second, "cleo", "Cleo", 1) + third, 0},
		{"a damaged first line without zero bytes is refused", strings.Replace(first, "ben", "Ben", 1) + second + third, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := storePath(t)
			write(t, path, before+row.tail)
			if row.want == 0 {
				_, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
				if err == nil || !strings.Contains(err.Error(), "line 3: ") {
					t.Errorf("OpenFileStore: got error %v, want one about line 3", err)
				}
				wantEqual(t, "the file", read(t, path), before+row.tail)
				return
			}
			f := openFile(t, path)
			wantEqual(t, "accounts", len(f.users(0, 10)), row.want)
			f.create(newUser("next"))
			want := f.contents()
			wantEqual(t, "the store opened again", f.reopen().contents(), want)
		})
	}
}

func TestTornHeaderIsWrittenAgain(t *testing.T) {
	path := storePath(t)
	for n := range len(fileHeader) {
		for _, zeros := range []int{0, 1, len(fileHeader) - n} {
			write(t, path, fileHeader[:n]+strings.Repeat("\x00", zeros))
			f := openFile(t, path)
			f.create(newUser("johndoe"))
			f = f.reopen()
			if got := len(f.users(0, 10)); got != 1 {
				t.Errorf("%d bytes of the header and %d zero bytes: %d accounts after the first registration", n, zeros, got)
			}
			f.close()
		}
	}
}

// TestDamageStopsTheStart changes every byte of every line but the last, one at a time.
// The store must not open, must name the line in its error, and must not change the file.
func TestDamageStopsTheStart(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	f.close()
	whole := f.bytes()
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') // just before the last line
	line, start := 1, 0
	for i := range last {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x01
		call := fmt.Sprintf("line %d, byte %d damaged: %q", line, i-start, damaged[start:i+1])
		write(t, f.path, string(damaged))
		again, err := OpenFileStore(t.Context(), f.path, testLife, slog.New(slog.DiscardHandler))
		switch {
		case err == nil && line > 1 && i-start >= 2 && i-start <= 4:
			// Only the name "crc" is outside of the checksum. A line without it
			// is valid, as one that was written by hand.
			wantEqual(t, call, testedStore{again, t}.contents(), want)
		case err == nil:
			t.Errorf("%s: OpenFileStore succeeded, want an error", call)
		case !strings.Contains(err.Error(), fmt.Sprintf("line %d: ", line)):
			t.Errorf("%s: got error %q, want one with \"line %d\"", call, err, line)
		}
		if err == nil {
			again.Close()
		}
		if !bytes.Equal(f.bytes(), damaged) {
			t.Errorf("%s: the file was changed", call)
		}
		if whole[i] == '\n' {
			line, start = line+1, i+1
		}
	}
	if line < 10 {
		t.Errorf("the test damaged %d lines, want 10 or more", line)
	}
}

func TestUnusableFilesAreRefusedAndLeftAlone(t *testing.T) {
	const (
		anna  = `{"id":1,"user":{"id":1,"username":"anna","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}` + "\n"
		login = `{"id":1,"session":{"id":"S1","user_id":1,"generation":1,"created_at":"2026-01-02T03:04:05Z","last_used_at":"2026-01-02T03:04:05Z","expires_at":"2026-01-02T03:04:05Z"}}` + "\n"
	)
	more := func(old, new string) string { return fileHeader + anna + strings.Replace(anna, old, new, 1) + login }
	for _, row := range []struct{ name, file, want string }{
		{"a file of a later version is refused", `{"format":"stdauth","version":2}` + "\n", "line 1: written by another version"},
		{"a file of another program is refused", "Dear diary,\n", "line 1: not a file of stdauth"},
		{"a file of another program of one line without an end is refused", "Dear diary", "line 1: not a file of stdauth"},
		{"a file of another program of one long line is refused", strings.Repeat("x", 2*maxLine), "line 1: not a file of stdauth"},
		{"a file of zero bytes is refused", strings.Repeat("\x00", 2*maxLine), "line 1: not a file of stdauth"},
		{"a header with a trailing space is refused", strings.TrimSpace(fileHeader) + " \n", "line 1: "},
		{"a file without a header is refused", anna + login, "line 1: not a file of stdauth"},

		{"an empty line is refused", fileHeader + anna + "\n" + login, "line 3: "},
		{"a line that is not JSON is refused", fileHeader + anna + "johndoe\n" + login, "line 3: "},
		{"a line without a change is refused", fileHeader + anna + "{}\n" + login, "line 3: "},
		{"a line of more than 64 KiB is refused", fileHeader + anna + strings.Repeat(" ", maxLine) + login, "line 3: "},
		{"zero bytes in the middle of the file are refused", fileHeader + anna + "\x00\x00\x00\n" + login, "line 3: "},
		{"a complete last line that is not JSON is refused", fileHeader + anna + "johndoe\n", "line 3: "},

		{"an account without an ID is refused", fileHeader + strings.ReplaceAll(anna, `"id":1,`, "") + anna + login, "line 2: not a change"},
		{"a line of an ID alone is refused", fileHeader + anna + `{"id":1}` + "\n" + login, "line 3: not a change"},
		{"a last line that is too long and has no end is refused", fileHeader + anna + strings.Repeat(" ", 2*maxLine), "line 3: "},

		{"an ID not above the last one is refused", fileHeader + `{"last_id":1}` + "\n" + anna + login, "line 3: the ID 1 is not above"},
		{"an ID below 1 is refused", fileHeader + strings.ReplaceAll(anna, `"id":1`, `"id":-1`) + login, "line 2: not a change"},
		{"a username of two accounts is refused", fileHeader + anna + strings.ReplaceAll(anna, `"id":1`, `"id":2`) + login, "line 3: username already registered"},
		{"a line that changes a username is refused", more("anna", "ben"), "line 3: an account does not change its name"},
		{"an invalid username is refused", fileHeader + strings.Replace(anna, "anna", "an na", 1) + login, "line 2: not an account"},
		{"an unknown role is refused", more(`"role":"user"`, `"role":"root"`), "line 3: not an account"},
		{"a line with two different IDs is refused", more(`"id":1,"username"`, `"id":2,"username"`), "line 3: not an account"},
		{"a session without an account is refused", fileHeader + login + anna, "line 2: no account has the ID 1"},
		{"a session with the ID of another account is refused", fileHeader + anna + strings.Replace(login, `"user_id":1`, `"user_id":2`, 1) + login, "line 3: not a session"},
		{"a session without an ID is refused", fileHeader + anna + strings.Replace(login, "S1", "", 1) + login, "line 3: not a session"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := storePath(t)
			write(t, path, row.file)
			write(t, path+".new", "somebody else's")
			f, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
			if err == nil {
				f.Close()
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("OpenFileStore: got error %v, want %q", err, row.want)
			}
			_, err = ReadFileStore(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("ReadFileStore: got error %v, want %q", err, row.want)
			}
			wantEqual(t, "the file", read(t, path), row.file)
			wantEqual(t, "the file beside it", read(t, path+".new"), "somebody else's")
		})
	}
	t.Run("a directory is refused", func(t *testing.T) {
		if f, err := OpenFileStore(t.Context(), t.TempDir(), testLife, slog.New(slog.DiscardHandler)); err == nil {
			f.Close()
			t.Error("OpenFileStore of a directory succeeded")
		}
	})
	t.Run("a file in a directory that does not exist is refused", func(t *testing.T) {
		_, err := OpenFileStore(t.Context(), filepath.Join(t.TempDir(), "none", "users.jsonl"), testLife, slog.New(slog.DiscardHandler))
		wantErr(t, "OpenFileStore", err, os.ErrNotExist)
	})
}

// TestFileStoreRefusesWhatItCouldNotReplay: a change that could not be read again is not
// written.
func TestFileStoreRefusesWhatItCouldNotReplay(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	for _, row := range []struct {
		name   string
		change func() error
	}{
		{"an account without a username is refused", func() error { _, err := f.CreateUser(t.Context(), Caller{}, newUser("")); return err }},
		{"an account without a role is refused", func() error {
			u := newUser("norole")
			u.Role = ""
			_, err := f.CreateUser(t.Context(), Caller{}, u)
			return err
		}},
		{"a full name over 64 KiB is refused", func() error {
			_, err := f.UpdateUser(t.Context(), Caller{}, 1, func(u *User) error { u.FullName = strings.Repeat("x", maxLine); return nil })
			return err
		}},
		{"a user agent over 64 KiB is refused", func() error {
			s := newSession(f.user(1))
			s.UserAgent = strings.Repeat("x", maxLine)
			return errOf(f.CreateSession(t.Context(), s))
		}},
		{"a date beyond the year 9999, which JSON times cannot express, is refused", func() error {
			s := newSession(f.user(1))
			s.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
			return errOf(f.CreateSession(t.Context(), s))
		}},
	} {
		if err := row.change(); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: got error %v, want one other than ErrUnavailable", row.name, err)
		}
	}
	wantEqual(t, "the store", f.contents(), want)
	wantEqual(t, "the store opened again", f.reopen().contents(), want)
}

// TestLongestLine: the writer and the reader have the same maximum length of a line,
// wherever the line is among those written together.
func TestLongestLine(t *testing.T) {
	lineOf := func(b []byte, fullName int) ([]byte, error) {
		u := User{ID: 1, Username: "anna", Role: RoleUser, CreatedAt: longAgo, PasswordHash: "x", FullName: strings.Repeat("x", fullName)}
		return appendLine(b, change{ID: 1, User: &u}, false)
	}
	short, err := lineOf(nil, 1)
	wantErr(t, "appendLine", err, nil)
	longest := maxLine - len(short) + 1

	lines, err := lineOf([]byte(fileHeader), longest)
	wantErr(t, fmt.Sprintf("appendLine of %d bytes", maxLine), err, nil)
	lines, err = lineOf(lines, longest)
	wantErr(t, fmt.Sprintf("appendLine of %d bytes after others", maxLine), err, nil)
	wantEqual(t, "bytes of two lines of the maximum length", len(lines), len(fileHeader)+2*maxLine)

	path := storePath(t)
	write(t, path, string(lines))
	wantEqual(t, "bytes read of the longest full name", len(openFile(t, path).user(1).FullName), longest)

	after, err := lineOf(lines, longest+1)
	if err == nil || !bytes.Equal(after, lines) {
		t.Errorf("appendLine of %d bytes: error %v and %d bytes, want an error and the %d before it", maxLine+1, err, len(after), len(lines))
	}
}

func TestOneFileHasOneStore(t *testing.T) {
	f := filledStore(t)
	link := filepath.Join(t.TempDir(), "link.jsonl")
	if err := os.Symlink(f.path, link); err != nil {
		t.Log("no symbolic links here:", err) // as on some Windows machines
		link = f.path
	}
	for _, path := range []string{f.path, link} {
		_, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
		wantErr(t, "OpenFileStore of a file in use, by "+filepath.Base(path), err, errLocked)
	}
	f.create(newUser("johndoe2")) // the open store still works
	want := f.contents()

	m, err := ReadFileStore(t.Context(), link)
	wantErr(t, "ReadFileStore of a file in use", err, nil)
	m.life = testLife // which an import does not need
	wantEqual(t, "the store read while in use", testedStore{m, t}.contents(), want)

	f.close()
	again := openFile(t, link)
	wantEqual(t, "the store opened through a link", again.contents(), want)
	again.compactNow()
	again.close()
	wantEqual(t, "the target of the link after a compaction through it", openFile(t, f.path).contents(), want)
}

// childOpens, in the environment, makes the test below run as the other process.
const childOpens = "STDAUTH_TEST_CHILD_OPENS"

func TestOneFileHasOneProcess(t *testing.T) {
	if path := os.Getenv(childOpens); path != "" {
		f, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
		fmt.Printf("the child got: %v\n", err)
		if err == nil {
			f.Close()
		}
		return
	}
	f := filledStore(t)
	child := func(want string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestOneFileHasOneProcess$")
		cmd.Env = append(os.Environ(), childOpens+"="+f.path)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "the child got: "+want) {
			t.Errorf("another process opened the file: got %v and %q, want %q", err, out, want)
		}
	}
	child(errLocked.Error())
	f.close()
	child("<nil>")
}

// TestClockSetBackBetweenStarts: the clock was ahead when a token was replaced, so how long ago that was is unknown.
// The token is refused, and its session goes on, but not for longer than one of now.
func TestClockSetBackBetweenStarts(t *testing.T) {
	path := storePath(t)
	f := openFile(t, path)
	u := f.create(newUser("johndoe"))
	s := f.login(u)
	s.Generation, s.LastUsedAt, s.ExpiresAt = 2, s.LastUsedAt.Add(40*time.Hour), s.ExpiresAt.Add(40*time.Hour)
	_, _, err := f.UpdateSession(t.Context(), u.ID, s.ID, func(session *Session, _ User) error { *session = s; return nil })
	wantErr(t, "UpdateSession", err, nil)
	f.close()

	f = openFile(t, path)
	_, _, err = f.UpdateSession(t.Context(), u.ID, s.ID, func(s *Session, _ User) error { return s.Rotate(1, time.Now(), testLife) })
	wantErr(t, "a refresh with a token that was replaced in 40 hours", err, ErrNotFound)
	got := f.sessions(u.ID)
	if len(got) != 1 || time.Until(got[0].ExpiresAt) > testLife.Idle {
		t.Errorf("the sessions are %v, want one that lasts for %v at most", got, testLife.Idle)
	}
}

func TestFailedDiskEndsAllChanges(t *testing.T) {
	broken := errors.New("input/output error")
	rows := []struct {
		name string
		disk func(file) file
		want error
	}{
		{"a failed write ends all changes", func(a file) file { return failingDisk{a, broken, nil} }, broken},
		{"a failed sync ends all changes", func(a file) file { return failingDisk{a, nil, broken} }, broken},
	}
	for _, room := range []int{0, 1, 40, 200} {
		rows = append(rows, struct {
			name string
			disk func(file) file
			want error
		}{
			fmt.Sprintf("a disk that is full after %d bytes ends all changes", room),
			func(a file) file { return &fullDisk{a, room} },
			syscall.ENOSPC,
		})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := filledStore(t)
			before := f.contents()
			u, session := f.user(2), f.sessions(2)[0]
			f.file.file = row.disk(f.file.file)

			_, err := f.CreateUser(t.Context(), Caller{}, newUser("unlucky"))
			wantErr(t, "the first change after the disk failed", err, row.want)
			for call, change := range map[string]func() error{
				"CreateUser": func() error { _, err := f.CreateUser(t.Context(), Caller{}, newUser("later")); return err },
				"UpdateUser": func() error {
					_, err := f.UpdateUser(t.Context(), Caller{}, 2, func(u *User) error { u.Epoch++; return nil })
					return err
				},
				"DeleteUser":    func() error { return f.DeleteUser(t.Context(), Caller{}, 3) },
				"CreateSession": func() error { return errOf(f.CreateSession(t.Context(), newSession(u))) },
				"EndSession":    func() error { return f.EndSession(t.Context(), Caller{}, 2, session.ID) },
				"EndSessions":   func() error { return f.EndSessions(t.Context(), Caller{}, 2, "") },
				"UpdateSession": func() error {
					_, _, err := f.UpdateSession(t.Context(), 2, session.ID, func(s *Session, _ User) error { s.Generation++; return nil })
					return err
				},
				"UpdateSession that changes nothing": func() error {
					_, _, err := f.UpdateSession(t.Context(), 2, session.ID, func(*Session, User) error { return nil })
					return err
				},
				"Ready": func() error { return f.Ready(t.Context()) },
			} {
				wantErr(t, call+" after the failure", change(), ErrUnavailable)
			}
			wantEqual(t, "the contents for readers after the failure", f.contents(), before)
			_, err = f.UserByName(t.Context(), "unlucky")
			wantErr(t, "UserByName of the account that was not acknowledged", err, ErrNotFound)
			wantErr(t, "Close after the failure was returned", f.file.Close(), nil)
			wantEqual(t, "compactions after the failure", f.file.Metrics()["stdauth_store_compactions_total"], 0)

			again := openFile(t, f.path)
			after := again.contents()
			if _, ok := after["User(6)"]; ok {
				// A change whose sync failed may or may not be on the disk.
				delete(after, "User(6)")
				delete(after, "Sessions(6)")
			}
			wantEqual(t, "the store opened again on a working disk", after, before)
			wantErr(t, "Ready of the store opened again", again.Ready(t.Context()), nil)
			again.create(newUser("lucky"))
		})
	}
}

func TestDiskThatFailsWhileOpeningStopsTheStart(t *testing.T) {
	for _, op := range []string{"stat", "second stat", "truncate", "chmod", "write", "sync", "sync of the folder"} {
		for _, name := range []string{"new.jsonl", "old.jsonl"} {
			dir := t.TempDir()
			disk, err := openFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			old := openFile(t, filepath.Join(dir, "old.jsonl"))
			old.create(newUser("johndoe"))
			old.close()
			_, err = openFileStore(t.Context(), faultyFolder{disk, op}, name, testLife, slog.New(slog.DiscardHandler))
			wantErr(t, "openFileStore of "+name+" with a "+op+" that fails", err, errFaulty)
			_, err = os.Stat(filepath.Join(dir, name))
			if exists := err == nil; exists != (name == "old.jsonl") {
				t.Errorf("after a start that failed at a %s, %s exists: %v", op, name, exists)
			}
		}
	}
}

var errFaulty = errors.New("input/output error")

// A faultyFolder fails at one operation, on all its files.
type faultyFolder struct {
	folder
	fails string
}

func (d faultyFolder) Sync() error {
	if d.fails == "sync of the folder" {
		return errFaulty
	}
	return d.folder.Sync()
}

func (d faultyFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := d.folder.OpenFile(name, flag, perm)
	return &faultyFile{file: f, fails: d.fails}, err
}

type faultyFile struct {
	file
	fails string
	stats int
}

func (f *faultyFile) at(op string) error {
	if op == f.fails {
		return errFaulty
	}
	return nil
}

func (f *faultyFile) Stat() (fs.FileInfo, error) {
	f.stats++
	if err := f.at("stat"); err != nil {
		return nil, err
	}
	if err := f.at("second stat"); err != nil && f.stats == 2 {
		return nil, err
	}
	return f.file.Stat()
}

func (f *faultyFile) WriteAt(b []byte, offset int64) (int, error) {
	if err := f.at("write"); err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, offset)
}

func (f *faultyFile) Truncate(size int64) error {
	return errors.Join(f.at("truncate"), f.file.Truncate(size))
}
func (f *faultyFile) Chmod(mode fs.FileMode) error {
	return errors.Join(f.at("chmod"), f.file.Chmod(mode))
}
func (f *faultyFile) Sync() error { return errors.Join(f.at("sync"), f.file.Sync()) }

func TestChangeThatWaitsForAFailingSyncFailsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := filledStore(t)
		disk := f.slowDown()
		errs := make(chan error, 2)
		for _, name := range []string{"first", "second"} {
			go func() {
				_, err := f.CreateUser(t.Context(), Caller{}, newUser(name))
				errs <- err
			}()
			synctest.Wait()
		}
		disk.finish(errors.New("input/output error"))
		wantErr(t, "the change that is being synced", <-errs, ErrUnavailable)
		wantErr(t, "the change that waits for the next sync", <-errs, ErrUnavailable)
		f.file.Close()
		wantEqual(t, "syncs", disk.syncs.Load(), 1)
		wantEqual(t, "compactions", f.file.Metrics()["stdauth_store_compactions_total"], 0)
	})
}

func TestZeroBytesOfAWholeBufferAreTorn(t *testing.T) {
	path := storePath(t)
	f := openFile(t, path)
	f.create(newUser("johndoe"))
	f.close()
	sound := read(t, path)
	write(t, path, sound+strings.Repeat("\x00", maxLine)+`the end of a line"}`+"\n")
	openFile(t, path)
	wantEqual(t, "the file", read(t, path), sound)
}

func TestChecksumHasEightDigits(t *testing.T) {
	path := storePath(t)
	f := openFile(t, path)
	f.create(newUser("johndoe"))
	f.close()
	write(t, path, strings.Replace(read(t, path), crcOpening, crcOpening+"1", 1))
	if f, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler)); err == nil {
		f.Close()
		t.Error("OpenFileStore accepts a checksum of nine digits")
	}
}

// TestReplacedFolderIsNoticed: an operator moves the folder away and puts a copy in its place.
// The next start would read the copy.
func TestReplacedFolderIsNoticed(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "users.jsonl")
	f := openFile(t, path)
	f.create(newUser("johndoe"))
	if err := errors.Join(os.Rename(folder, folder+".old"), os.CopyFS(folder, os.DirFS(folder+".old"))); err != nil {
		t.Fatal(err)
	}
	_, err := f.CreateUser(t.Context(), Caller{}, newUser("jane"))
	wantErr(t, "CreateUser after the folder was replaced", err, ErrUnavailable)
	wantErr(t, "Ready after the folder was replaced", f.Ready(t.Context()), ErrUnavailable)
}

func TestFolderThatCannotBeReadIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	folder, err := openFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := folder.OpenFile("users.jsonl", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	folder.Close()
	os.RemoveAll(path)
	if ours, err := folder.Holds("users.jsonl", f); ours || err == nil {
		t.Errorf("Holds = %t, %v, want false and an error", ours, err)
	}
	if err := folder.Sync(); err == nil {
		t.Error("Sync = nil, want an error")
	}
}

// TestReadersSeeOnlyWhatIsDurable: a change that waits for its sync, or whose sync
// failed, is not visible to readers.
func TestReadersSeeOnlyWhatIsDurable(t *testing.T) {
	for _, row := range []struct {
		name string
		sync error
	}{
		{"readers see changes only after their sync succeeds", nil},
		{"readers never see changes whose sync fails", errors.New("input/output error")},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := filledStore(t)
				before := f.contents()
				session := f.sessions(2)[0]
				disk := f.slowDown()
				done := make(chan error, 7)
				for _, change := range []func() error{
					func() error { _, err := f.CreateUser(t.Context(), Caller{}, newUser("new")); return err },
					func() error {
						_, err := f.UpdateUser(t.Context(), Caller{}, 1, func(u *User) error { u.Email = ""; return nil })
						return err
					},
					func() error { return f.DeleteUser(t.Context(), Caller{}, 3) },
					func() error {
						_, err := f.CreateUser(t.Context(), Caller{}, newUser(before["User(3)"].(User).Username))
						return err
					},
					func() error { return errOf(f.CreateSession(t.Context(), newSession(before["User(1)"].(User)))) },
					func() error { return f.EndSessions(t.Context(), Caller{}, 2, session.ID) },
					func() error {
						_, _, err := f.UpdateSession(t.Context(), 2, session.ID, func(s *Session, _ User) error { s.Generation++; return nil })
						return err
					},
				} {
					go func() { done <- change() }()
					synctest.Wait() // until everything waits for the disk
					// A read that waited for the sync would never return.
					wantEqual(t, "the contents for readers during the sync", f.contents(), before)
				}
				if len(done) > 0 {
					t.Fatalf("%d changes were acknowledged before the sync returned, the first with %v", len(done), <-done)
				}
				disk.finish(row.sync)
				for range cap(done) {
					if err := <-done; row.sync == nil {
						wantErr(t, "a change whose sync succeeded", err, nil)
					} else {
						wantErr(t, "a change whose sync failed", err, ErrUnavailable)
					}
				}
				if row.sync != nil {
					wantEqual(t, "the contents for readers after the failure", f.contents(), before)
					return
				}
				after := f.contents()
				wantEqual(t, "the accounts after the sync", slices.Collect(func(yield func(int64) bool) {
					for _, u := range f.users(0, 10) {
						yield(u.ID)
					}
				}), []int64{1, 2, 4, 6, 7})
				wantEqual(t, "the store opened again", f.reopen().contents(), after)
			})
		})
	}
}

func TestChangesThatWaitShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		disk := f.slowDown()
		done := make(chan error, 64)
		register := func(n int) {
			go func() {
				_, err := f.CreateUser(t.Context(), Caller{}, newUser(fmt.Sprintf("user%d", n)))
				done <- err
			}()
		}
		register(0)
		synctest.Wait() // until the sync of the first has begun
		for n := range 63 {
			register(1 + n)
		}
		synctest.Wait() // until the others wait
		disk.finish(nil)
		for range 64 {
			wantErr(t, "CreateUser", <-done, nil)
		}
		if got := disk.syncs.Load(); got != 2 {
			t.Errorf("64 changes took %d syncs, want 2: one for the first, one for those that arrived during it", got)
		}
		wantEqual(t, "accounts", len(f.users(0, 100)), 64)
		wantEqual(t, "lines marked with same_sync", strings.Count(string(f.bytes()), `","same_sync":true,"id":`), 62)
	})
}

// TestRetriedRefreshWaitsForTheFirst: a retried refresh returns the token of the
// generation that the first request has made. Before that generation is on the disk, a
// crash could still lose it.
func TestRetriedRefreshWaitsForTheFirst(t *testing.T) {
	for _, row := range []struct {
		name  string
		ahead int // changes before the first request
		sync  error
	}{
		{"a retry during the sync of the first request waits", 0, nil},
		{"a retry during the failing sync of the first request fails", 0, errors.New("input/output error")},
		{"a retry while the first request waits for the next sync waits", 1, nil},
		{"a retry while the first request waits for the next sync, which fails, fails", 1, errors.New("input/output error")},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := filledStore(t)
				old := f.sessions(2)[0]
				disk := f.slowDown()
				for range row.ahead {
					go f.CreateUser(t.Context(), Caller{}, newUser("ahead"))
					synctest.Wait()
				}
				type response struct {
					s   Session
					err error
				}
				responses := make(chan response, 2)
				now := today().Add(refreshPause)
				for range 2 {
					go func() {
						s, _, err := f.UpdateSession(t.Context(), 2, old.ID, func(s *Session, _ User) error { return s.Rotate(old.Generation, now, testLife) })
						responses <- response{s, err}
					}()
					synctest.Wait()
				}
				for range row.ahead {
					disk.results <- nil
					synctest.Wait()
				}
				if len(responses) > 0 {
					t.Fatalf("UpdateSession returned before the sync: %+v", <-responses)
				}
				disk.finish(row.sync)
				for range cap(responses) {
					a := <-responses
					if row.sync != nil {
						wantErr(t, "UpdateSession", a.err, ErrUnavailable)
						continue
					}
					wantErr(t, "UpdateSession", a.err, nil)
					wantEqual(t, "the generation of the successor", a.s.Generation, old.Generation+1)
				}
			})
		})
	}
}

func TestCloseWaitsForChangesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		disk := f.slowDown()
		done, closed := make(chan error, 3), make(chan error, 1)
		for n := range 3 { // one being synced, two waiting for the next
			go func() {
				_, err := f.CreateUser(t.Context(), Caller{}, newUser(fmt.Sprintf("user%d", n)))
				done <- err
			}()
			synctest.Wait()
		}
		go func() { closed <- f.file.Close() }()
		synctest.Wait()
		if len(closed)+len(done) > 0 {
			t.Fatalf("before the sync returned, %d Close and %d changes returned, want none", len(closed), len(done))
		}
		late := make(chan error, 1)
		go func() {
			_, err := f.CreateUser(t.Context(), Caller{}, newUser("late"))
			late <- err
		}()
		synctest.Wait()
		disk.finish(nil)
		wantErr(t, "a change after Close began", <-late, ErrUnavailable)
		for range cap(done) {
			wantErr(t, "a change under way", <-done, nil)
		}
		wantErr(t, "Close", <-closed, nil)
		wantEqual(t, "accounts in the store opened again", len(openFile(t, f.path).users(0, 10)), 3)
	})
}

func TestCompactionKeepsEverythingThatCounts(t *testing.T) {
	f := filledStore(t)
	want, before := f.contents(), len(f.bytes())
	f.compactNow()
	wantEqual(t, "the store", f.contents(), want)
	lines := strings.Count(string(f.bytes()), "\n")
	if want := 1 + 4 + 5 + 1; lines != want || len(f.bytes()) >= before {
		t.Errorf("the file has %d lines, %d bytes; want %d lines (header, accounts, sessions, last ID) and less than %d bytes", lines, len(f.bytes()), want, before)
	}
	f = f.reopen()
	wantEqual(t, "the store opened again", f.contents(), want)
	if got := f.create(newUser("next")).ID; got != 6 {
		t.Errorf("CreateUser = ID %d, want 6: the deleted account had 5", got)
	}
}

func TestFileStoreCountsItsBytesAndCompactions(t *testing.T) {
	f := filledStore(t)
	want := func(compactions float64) {
		t.Helper()
		wantEqual(t, "Metrics", f.file.Metrics(), map[string]float64{
			"stdauth_store_file_bytes": float64(len(f.bytes())), "stdauth_store_compactions_total": compactions,
		})
	}
	want(0)
	f.compactNow()
	want(1)
	f.create(newUser("afterwards"))
	want(1)
	f = f.reopen()
	want(0)
}

func TestFailedCompactionIsNotTriedAgainAtOnce(t *testing.T) {
	f := filledStore(t)
	f.file.folder = brokenFolder{f.file.folder, "write"}
	f.compactSoon()
	for i := range 5 {
		f.create(newUser(fmt.Sprint("later", i)))
	}
	f.file.Close()
	if got := f.logs.count("could not compact the store"); got != 1 {
		t.Errorf("there were %d tries, want 1", got)
	}
}

func TestFailedCompactionLeavesNoNewFileBehind(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		f := filledStore(t)
		f.file.folder = brokenFolder{f.file.folder, op}
		f.compact()
		f.logs.await("could not compact the store")
		if _, err := os.Stat(f.path + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after a %s of the new file failed, Stat of it = %v, want none: a full disk would stay full", op, err)
		}
	}
}

func TestCompactionKeepsTheLastIDOfAStoreWithoutAccounts(t *testing.T) {
	f := openFile(t, storePath(t))
	f.remove(f.create(newUser("deleted")).ID)
	f.compactNow()
	if got := f.reopen().create(newUser("next")).ID; got != 2 {
		t.Errorf("CreateUser = ID %d, want 2: the deleted account's 1 is not given again", got)
	}
}

func TestWriterThatWakesForNothingDoesNotCompact(t *testing.T) {
	if f := filledStore(t); f.file.flush() {
		t.Error("without changes, flush wants a compaction")
	}
}

func TestChangeThatChangesNothingIsNotWritten(t *testing.T) {
	f := filledStore(t)
	old := f.sessions(2)[0]
	renewed := f.rotate(old)
	before := f.bytes()
	again, _, err := f.UpdateSession(t.Context(), 2, old.ID, func(s *Session, _ User) error { return s.Rotate(old.Generation, today(), testLife) })
	wantErr(t, "a refresh that is sent again", err, nil)
	wantEqual(t, "a refresh that is sent again", again, renewed)
	f.update(2, func(*User) {})
	wantEqual(t, "the file", string(f.bytes()), string(before))
}

func TestCompactionLeavesExpiredSessionsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		u := f.create(newUser("johndoe"))
		over, live := f.login(u), f.login(u)
		time.Sleep(testLife.Idle / 2)
		live = f.rotate(live)
		time.Sleep(testLife.Idle / 2)
		f.compactNow()
		text := string(f.bytes())
		if strings.Contains(text, over.ID) || !strings.Contains(text, live.ID) {
			t.Errorf("want the live session %s and not the expired session %s in the file:\n%s", live.ID, over.ID, text)
		}
	})
}

// TestCompactionKeepsChangesMadeMeanwhile: changes during a compaction are in the new file.
func TestCompactionKeepsChangesMadeMeanwhile(t *testing.T) {
	f := filledStore(t)
	for n := range 3 {
		f.compactSoon()
		errs := atOnce(20, func(i int) error {
			_, err := f.CreateUser(t.Context(), Caller{}, newUser(fmt.Sprintf("meanwhile%d.%d", n, i)))
			return err
		})
		wantErr(t, "CreateUser", errors.Join(errs...), nil)
		f.logs.await("compacted the store")
	}
	want := f.contents()
	wantEqual(t, "the store opened again", f.reopen().contents(), want)
}

// TestChangesDuringACompaction: a compaction is held at its first sync of the new file.
func TestChangesDuringACompaction(t *testing.T) {
	held := func(t *testing.T) (openedFile, *heldFolder) {
		f := filledStore(t)
		d := &heldFolder{folder: f.file.folder, began: make(chan struct{}), goOn: make(chan struct{})}
		f.file.folder, f.file.file = d, heldFile{f.file.file, d, false}
		f.compact()
		<-d.began
		return f, d
	}
	noNewFile := func(t *testing.T, f openedFile) {
		t.Helper()
		if _, err := os.Stat(f.path + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat of the new file = %v, want none", err)
		}
	}
	t.Run("changes do not wait for a compaction, and are in the new file", func(t *testing.T) {
		f, d := held(t)
		for n := range 50 {
			f.rotate(f.login(f.create(newUser(fmt.Sprint("meanwhile", n)))))
		}
		f.remove(3)
		want := f.contents()
		d.release()
		f.logs.await("compacted the store")
		wantEqual(t, "the store after the compaction", f.contents(), want)
		noNewFile(t, f)
		f.create(newUser("afterwards"))
		want = f.contents()
		wantEqual(t, "the store opened again", f.reopen().contents(), want)
	})
	t.Run("a compaction that is due during another one does not start", func(t *testing.T) {
		f, d := held(t)
		for n := range 5 { // the file has no limit yet
			f.create(newUser(fmt.Sprint("meanwhile", n)))
		}
		d.release()
		f.logs.await("compacted the store")
		wantEqual(t, "new files that were created", d.created.Load(), 1)
	})
	t.Run("a store that is closed during a compaction gives it up", func(t *testing.T) {
		f, d := held(t)
		f.create(newUser("meanwhile"))
		want := f.contents()
		time.AfterFunc(10*time.Millisecond, d.release)
		f.close()
		noNewFile(t, f)
		wantEqual(t, "the store opened again", openFile(t, f.path).contents(), want)
	})
	t.Run("a compaction that takes the last space of the disk makes room for a change", func(t *testing.T) {
		f, d := held(t)
		d.full.Store(true)
		f.create(newUser("late"))
		wantErr(t, "Ready", f.Ready(t.Context()), nil)
		noNewFile(t, f)
		want := f.contents()
		wantEqual(t, "the store opened again", f.reopen().contents(), want)
	})
	t.Run("a disk that fails during a compaction leaves no new file", func(t *testing.T) {
		f, d := held(t)
		d.broken.Store(true)
		time.AfterFunc(10*time.Millisecond, d.release)
		_, err := f.CreateUser(t.Context(), Caller{}, newUser("unlucky"))
		wantErr(t, "CreateUser", err, ErrUnavailable)
		noNewFile(t, f)
		wantEqual(t, "new files that were created", d.created.Load(), 1)
	})
}

// A heldFolder holds a compaction at the first sync of the new file until goOn is closed.
type heldFolder struct {
	folder
	began, goOn  chan struct{}
	once         sync.Once
	created      atomic.Int64
	full, broken atomic.Bool
}

func (d *heldFolder) release() { d.once.Do(func() { close(d.goOn) }) }

func (d *heldFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	d.created.Add(1)
	f, err := d.folder.OpenFile(name, flag, perm)
	return heldFile{f, d, true}, err
}

func (d *heldFolder) Holds(name string, f file) (bool, error) {
	return d.folder.Holds(name, f.(heldFile).file)
}

// Remove makes room.
func (d *heldFolder) Remove(name string) error {
	d.full.Store(false)
	return d.folder.Remove(name)
}

type heldFile struct {
	file
	in  *heldFolder
	new bool
}

func (f heldFile) WriteAt(b []byte, offset int64) (int, error) {
	if !f.new && f.in.full.Load() {
		f.in.release()
		return 0, syscall.ENOSPC
	}
	return f.file.WriteAt(b, offset)
}

func (f heldFile) Sync() error {
	select {
	case <-f.in.goOn:
	default:
		if f.new {
			close(f.in.began)
			<-f.in.goOn
		}
	}
	if !f.new && f.in.broken.Load() {
		return errors.New("input/output error")
	}
	return f.file.Sync()
}

// TestCompactionWaitsUntilItPays: a compaction writes everything live again. It waits
// until the file has grown by as much.
func TestCompactionWaitsUntilItPays(t *testing.T) {
	path := storePath(t)
	var file strings.Builder
	file.WriteString(fileHeader)
	for id := 1; file.Len() <= 2*compactSlack; id++ {
		fmt.Fprintf(&file, `{"id":%d,"user":{"id":%d,"username":"u%d","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}`+"\n", id, id, id)
		fmt.Fprintf(&file, `{"id":%d,"session":{"id":"S%d","user_id":%d,"generation":1,"created_at":"2026-01-02T03:04:05Z","last_used_at":"2026-01-02T03:04:05Z","expires_at":"9999-01-02T03:04:05Z"}}`+"\n", id, id, id)
	}
	write(t, path, file.String())
	f := openFile(t, path)
	for id := range int64(10) {
		f.update(1+id, func(u *User) { u.FullName = "New Name" })
	}
	f.close()
	if f.logs.count("compacted the store") > 0 {
		t.Errorf("10 changes of a file of %d bytes started a compaction, want none before it has doubled", file.Len())
	}
	if grown := f.bytes(); !strings.HasPrefix(string(grown), file.String()) {
		t.Error("the file was rewritten, want the new lines appended")
	}
}

// TestCompactionComesAlsoAfterReopening: a file with few live lines is compacted at the
// first change after it is opened.
func TestCompactionComesAlsoAfterReopening(t *testing.T) {
	path := storePath(t)
	const (
		anna  = `{"id":1,"user":{"id":1,"username":"anna","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}` + "\n"
		renew = `{"id":1,"session":{"id":"S1","user_id":1,"generation":1,"created_at":"2026-01-02T03:04:05Z","last_used_at":"2026-01-02T03:04:05Z","expires_at":"9999-01-02T03:04:05Z"}}` + "\n"
	)
	write(t, path, fileHeader+anna+strings.Repeat(renew, 2*compactSlack/len(renew)))
	f := openFile(t, path)
	f.create(newUser("next"))
	f.logs.await("compacted the store")
}

// TestFileStaysSmallUnderSteadyRefreshing: each refresh replaces an older line, and
// compactions keep the file small.
func TestFileStaysSmallUnderSteadyRefreshing(t *testing.T) {
	f := openFile(t, storePath(t))
	var all []Session
	for n := range 10 {
		all = append(all, f.login(f.create(newUser(fmt.Sprintf("user%d", n)))))
	}
	refreshes, compactions := 0, 0
	for ; compactions < 3; refreshes += len(all) {
		errs := atOnce(len(all), func(n int) error {
			_, _, err := f.UpdateSession(t.Context(), all[n].UserID, all[n].ID, func(s *Session, _ User) error {
				return rotateSoon(s)
			})
			return err
		})
		wantErr(t, "UpdateSession", errors.Join(errs...), nil)
		compactions += f.logs.count("compacted the store")
		if refreshes > 100_000 {
			t.Fatalf("%d compactions in %d refreshes", compactions, refreshes)
		}
	}
	want := f.contents()
	if got := len(f.bytes()); got > 2*compactSlack {
		t.Errorf("after %d refreshes the file has %d bytes, want at most %d", refreshes, got, 2*compactSlack)
	}
	wantEqual(t, "the store opened again", f.reopen().contents(), want)
}

func TestFailedCompactionLeavesTheOldFileInUse(t *testing.T) {
	for _, row := range []struct {
		name string
		fail func(t *testing.T, f openedFile)
	}{
		{"a compaction that cannot create the new file leaves the old one", func(t *testing.T, f openedFile) {
			if err := os.MkdirAll(filepath.Join(f.path+".new", "not empty"), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"a compaction that cannot write the new file leaves the old one", func(t *testing.T, f openedFile) {
			f.file.folder = brokenFolder{f.file.folder, "write"}
		}},
		{"a compaction that cannot sync the new file leaves the old one", func(t *testing.T, f openedFile) {
			f.file.folder = brokenFolder{f.file.folder, "sync"}
		}},
		{"a compaction that cannot rename the new file leaves the old one", func(t *testing.T, f openedFile) {
			f.file.folder = brokenFolder{f.file.folder, "rename"}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := filledStore(t)
			sound := f.file.folder
			row.fail(t, f)
			f.compact()
			f.logs.await("could not compact the store")
			f.file.folder = sound
			f.create(newUser("afterwards"))
			wantErr(t, "Ready", f.Ready(t.Context()), nil)
			want := f.contents()
			if err := os.RemoveAll(f.path + ".new"); err != nil {
				t.Fatal(err)
			}
			f = f.reopen()
			wantEqual(t, "the store opened again", f.contents(), want)
			f.compactNow()
			wantEqual(t, "the store after a compaction that succeeds", f.reopen().contents(), want)
		})
	}
}

func TestRestOfACompactionIsIgnored(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	f.close()
	for _, rest := range []string{"", fileHeader, fileHeader + `{"last_id":99}` + "\n", "{"} {
		write(t, f.path+".new", rest)
		again := openFile(t, f.path)
		wantEqual(t, fmt.Sprintf("the store beside a file of %q", rest), again.contents(), want)
		again.compactNow()
		again = again.reopen()
		wantEqual(t, fmt.Sprintf("the store beside a file of %q, compacted", rest), again.contents(), want)
		again.close()
	}
}

func TestReadingALargeFileCanBeStopped(t *testing.T) {
	path := storePath(t)
	text := fileHeader + strings.Repeat(`{"last_id":7}`+"\n", 3000)
	write(t, path, text)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := OpenFileStore(ctx, path, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore", err, context.Canceled)
	wantEqual(t, "the file", read(t, path), text)
	openFile(t, path) // the file is not locked either
}

func TestFileStoreIsImportedFromAnother(t *testing.T) {
	source := filledStore(t)
	m, err := ReadFileStore(t.Context(), source.path)
	wantErr(t, "ReadFileStore", err, nil)
	target := openFile(t, storePath(t))
	wantErr(t, "Import", target.Import(t.Context(), testedStore{m, t}.users(0, 100), m.lastID), nil)
	want := source.users(0, 100)
	wantEqual(t, "Users", target.users(0, 100), want)
	target = target.reopen()
	wantEqual(t, "Users of the store opened again", target.users(0, 100), want)
	if got := target.create(newUser("next")).ID; got != 6 {
		t.Errorf("CreateUser = ID %d, want 6: the deleted account had 5", got)
	}
	cut := storePath(t)
	write(t, cut, read(t, source.path)[:len(fileHeader)+10])
	if _, err = ReadFileStore(t.Context(), cut); err == nil || !strings.Contains(err.Error(), "line 2: it is incomplete") {
		t.Errorf("ReadFileStore of a file that was cut off: got error %v, want one that names line 2", err)
	}
	_, err = ReadFileStore(t.Context(), filepath.Join(t.TempDir(), "none"))
	wantErr(t, "ReadFileStore of no file", err, os.ErrNotExist)
	empty := storePath(t)
	write(t, empty, "")
	if _, err := ReadFileStore(t.Context(), empty); err == nil {
		t.Error("ReadFileStore of an empty file succeeded, want an error, as its name may be mistyped")
	}
}

func TestInterruptedImportLeavesAnEmptyStore(t *testing.T) {
	users := numberedUsers(1000)
	for _, fails := range []string{"write", "sync", "rename"} {
		t.Run("an import that fails at a "+fails, func(t *testing.T) {
			f := openFile(t, storePath(t))
			f.file.folder = brokenFolder{f.file.folder, fails}
			if err := f.Import(t.Context(), users, 2000); err == nil {
				t.Fatal("Import succeeded, want an error")
			}
			f = f.reopen()
			wantEqual(t, "Users", f.users(0, 10), nil)
			wantErr(t, "Import, again", f.Import(t.Context(), users, 2000), nil)
			wantErr(t, "Import, once more", f.Import(t.Context(), users, 2000), ErrNotEmpty)
			if got := f.create(newUser("next")).ID; got != 2001 {
				t.Errorf("CreateUser = ID %d, want 2001", got)
			}
			want := f.contents()
			wantEqual(t, "the store opened again", f.reopen().contents(), want)
		})
	}
}

func TestImportThatMayNotBeDurableEndsTheChanges(t *testing.T) {
	f := openFile(t, storePath(t))
	f.file.folder = faultyFolder{f.file.folder, "sync of the folder"}
	wantErr(t, "Import", f.Import(t.Context(), numberedUsers(3), 0), errFaulty)
	_, err := f.CreateUser(t.Context(), Caller{}, newUser("late"))
	wantErr(t, "CreateUser", err, ErrUnavailable)
	wantErr(t, "Ready", f.Ready(t.Context()), ErrUnavailable)
	f = f.reopen()
	if got := f.create(newUser("next")).ID; got != 4 {
		t.Errorf("CreateUser of the store opened again = ID %d, want 4", got)
	}
}

func TestLinkToAnAbsentFileIsRefused(t *testing.T) {
	path, absent := storePath(t), filepath.Join(t.TempDir(), "absent")
	if err := os.Symlink(absent, path); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	_, err := OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
	wantErr(t, "OpenFileStore", err, os.ErrNotExist)
	if _, err := os.Lstat(absent); err == nil {
		t.Error("OpenFileStore created the file behind the link")
	}
}

// An openedFile is a FileStore under test.
type openedFile struct {
	testedStore
	file *FileStore
	path string
	logs logLines
}

func storePath(t testing.TB) string { return filepath.Join(t.TempDir(), "users.jsonl") }

func openFile(t testing.TB, path string) openedFile {
	t.Helper()
	f, _ := openFileLog(t, path)
	return f
}

func openFileLog(t testing.TB, path string) (openedFile, logLines) {
	t.Helper()
	logger, logs := newLog()
	f, err := OpenFileStore(t.Context(), path, testLife, logger)
	if err != nil {
		t.Fatalf("OpenFileStore: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return openedFile{testedStore{f, t}, f, path, logs}, logs
}

// filledStore returns a store with every kind of change in its file. It has the
// accounts 1 to 4 with five sessions; account 5 was deleted.
func filledStore(t testing.TB) openedFile {
	t.Helper()
	f := openFile(t, storePath(t))
	admin := newUser("admin")
	admin.Role = RoleAdmin
	f.login(f.create(admin))
	john := f.create(newUser("John.Doe"))
	f.login(john)
	john = f.update(john.ID, func(u *User) { u.Epoch, u.PasswordHash = 1, "new hash" })
	first, ended := f.login(john), f.login(john)
	f.rotate(f.rotate(first))
	if err := f.EndSession(t.Context(), Caller{}, john.ID, ended.ID); err != nil {
		t.Fatal(err)
	}
	f.login(john)
	jane := f.create(newUser("jane"))
	f.login(jane)
	kept := f.login(jane)
	if err := f.EndSessions(t.Context(), Caller{}, jane.ID, kept.ID); err != nil {
		t.Fatal(err)
	}
	plain := f.create(User{Username: "plain", Role: RoleUser, CreatedAt: longAgo, PasswordHash: "x"})
	f.login(plain)
	f.update(plain.ID, func(u *User) { u.Disabled = true })
	deleted := f.create(newUser("deleted"))
	f.login(deleted)
	f.remove(deleted.ID)
	return f
}

func (f openedFile) close() {
	f.t.Helper()
	if err := f.file.Close(); err != nil {
		f.t.Fatalf("Close: %v", err)
	}
}

func (f openedFile) reopen() openedFile {
	f.t.Helper()
	f.close()
	return openFile(f.t, f.path)
}

func (f openedFile) bytes() []byte { return []byte(read(f.t, f.path)) }

// A brokenFolder fails at one operation on new files.
type brokenFolder struct {
	folder
	fails string
}

func (d brokenFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := d.folder.OpenFile(name, flag, perm)
	if err == nil && flag&os.O_EXCL != 0 {
		return brokenFile{f, d.fails}, nil
	}
	return f, err
}

func (d brokenFolder) Rename(from, to string) error {
	if d.fails == "rename" {
		return errors.New("rename: input/output error")
	}
	return d.folder.Rename(from, to)
}

type brokenFile struct {
	file
	fails string
}

func (f brokenFile) WriteAt(b []byte, offset int64) (int, error) {
	if f.fails == "write" {
		return 0, errors.New("write: input/output error")
	}
	return f.file.WriteAt(b, offset)
}

func (f brokenFile) Sync() error {
	if f.fails == "sync" {
		return errors.New("sync: input/output error")
	}
	return f.file.Sync()
}

// compactSoon makes the next change start a compaction.
func (f openedFile) compactSoon() { f.file.live = -compactSlack }

// compact starts a compaction by a change that changes nothing.
func (f openedFile) compact() {
	f.t.Helper()
	f.compactSoon()
	err := f.file.ahead.change(Caller{}, func() (change, error) { return change{LastID: f.file.ahead.lastID}, nil })
	wantErr(f.t, "a change that changes nothing", err, nil)
}

func (f openedFile) compactNow() {
	f.t.Helper()
	f.compact()
	f.logs.await("compacted the store")
}

// slowDown puts the file on a disk whose syncs block until they get a result.
func (f openedFile) slowDown() *slowDisk {
	disk := &slowDisk{file: f.file.file, results: make(chan error)}
	f.file.file = disk
	return disk
}

// Each sync of a slowDisk waits for a result. After results is closed, all syncs return
// last.
type slowDisk struct {
	file
	syncs   atomic.Int64
	results chan error
	last    error
}

func (d *slowDisk) Sync() error {
	d.syncs.Add(1)
	err, one := <-d.results
	if !one {
		err = d.last
	}
	if err != nil {
		return err
	}
	return d.file.Sync()
}

func (d *slowDisk) finish(err error) {
	d.last = err
	close(d.results)
}

type failingDisk struct {
	file
	write, sync error
}

func (d failingDisk) WriteAt(p []byte, off int64) (int, error) {
	if d.write != nil {
		return 0, d.write
	}
	return d.file.WriteAt(p, off)
}

func (d failingDisk) Sync() error { return d.sync }

// A fullDisk writes only the bytes that it has room for, as a real disk does.
type fullDisk struct {
	file
	room int
}

func (d *fullDisk) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.file.WriteAt(p[:min(len(p), d.room)], off)
	d.room -= n
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return n, err
}

// logLines are the lines that a store has logged and no test has read yet.
type logLines chan string

func newLog() (*slog.Logger, logLines) {
	c := make(logLines, 1000)
	return slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelDebug})), c
}

func (c logLines) Write(line []byte) (int, error) {
	c <- string(line)
	return len(line), nil
}

// await returns when text has been logged.
func (c logLines) await(text string) {
	late := time.After(2 * time.Minute)
	for {
		select {
		case line, open := <-c:
			if !open || strings.Contains(line, text) {
				return
			}
		case <-late:
			panic("the log never says: " + text)
		}
	}
}

// count returns how many lines since the last call contain text.
func (c logLines) count(text string) (n int) {
	for {
		select {
		case line := <-c:
			if strings.Contains(line, text) {
				n++
			}
		default:
			return n
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLineThatCannotBeIsNotBegun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]change{
		"a session of the year 10000 is refused":  {ID: 1, Session: &Session{ExpiresAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"an account of the year 10000 is refused": {ID: 1, User: &User{CreatedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"a session of 64 KiB is refused":          {ID: 1, Session: &Session{UserAgent: strings.Repeat("x", maxLine)}},
	} {
		if got, err := appendLine([]byte("a line\n"), c, false); string(got) != "a line\n" || err == nil {
			t.Errorf("%s: appendLine = %.100q, %v, want the line before and an error", name, got, err)
		}
	}
}

var crashCycles = flag.Int("crashcycles", 3, "how often the crash test kills the process that writes")

// crashingChild, in the environment, makes the test below run as the process that is
// killed.
const crashingChild = "STDAUTH_TEST_CRASHING_CHILD"

// TestNoAcknowledgedChangeIsLostInACrash: a process writes as fast as it can and prints
// each acknowledged change. It is killed (kill -9) again and again on the same file,
// and after each time every printed change is in the file.
func TestNoAcknowledgedChangeIsLostInACrash(t *testing.T) {
	if path := os.Getenv(crashingChild); path != "" {
		writeUntilKilled(t, path)
		return
	}
	if testing.Short() {
		t.Skip("kills and starts processes")
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	path := storePath(t)
	books := newBookkeeper()
	for cycle := range *crashCycles {
		// The moment is counted in printed lines, which suits a slow machine too.
		killAfter := 1 + rng.IntN(4000)
		if err := runAndKill(path, killAfter, books); err != nil {
			t.Fatalf("seed %d, cycle %d: %v", seed, cycle, err)
		}
		f := openFile(t, path)
		books.check(f.testedStore)
		if id := f.create(newUser(fmt.Sprintf("after.%d", cycle))).ID; id <= books.lastID {
			t.Errorf("CreateUser = ID %d, want more than %d, which was used before the crash", id, books.lastID)
		}
		f.close()
		if t.Failed() {
			t.Fatalf("seed %d, cycle %d, killed after %d lines", seed, cycle, killAfter)
		}
	}
	if len(books.live) == 0 || len(books.gone) == 0 {
		t.Errorf("the test has %d live and %d deleted accounts and sessions, want some of each", len(books.live), len(books.gone))
	}
}

// A deed is a line of the writing process: an account or a session was created or
// refreshed (acknowledged), is about to be deleted, or was deleted (acknowledged).
// Session is empty for an account.
type deed struct {
	Verb       string // "made", "going", "gone"
	UserID     int64
	Name       string // of the account
	Session    string
	Generation int64
}

// writeUntilKilled registers, logs in, refreshes, logs out and deletes from
// several goroutines, and never returns.
func writeUntilKilled(t *testing.T, path string) {
	ctx := t.Context()
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "the writing process:", err)
			os.Exit(1) // the other process reports the early end
		}
	}
	say := func(d deed) { must(json.NewEncoder(os.Stdout).Encode(d)) }
	disk, err := openFolder(filepath.Dir(path))
	must(err)
	restless := &restlessFolder{folder: disk}
	s, err := openFileStore(ctx, restless, filepath.Base(path), testLife, slog.New(slog.DiscardHandler))
	must(err)
	s.live, s.piece = -compactSlack, 1<<12 // the first change starts a compaction, which takes many steps
	restless.store = s

	atOnce(8, func(n int) error {
		for i := 0; ; i++ {
			u, err := s.CreateUser(ctx, Caller{}, newUser(fmt.Sprintf("user.%d.%d.%d", os.Getpid(), n, i)))
			must(err)
			account := deed{UserID: u.ID, Name: u.Username}
			account.Verb = "made"
			say(account)
			var logins [2]deed
			for i := range logins {
				made := newSession(u)
				must(errOf(s.CreateSession(ctx, made)))
				logins[i] = deed{"made", u.ID, u.Username, made.ID, 1}
				say(logins[i])
			}
			for range 20 {
				renewed, _, err := s.UpdateSession(ctx, u.ID, logins[0].Session, func(s *Session, _ User) error {
					return rotateSoon(s)
				})
				must(err)
				logins[0].Generation = renewed.Generation
				say(logins[0])
			}
			logins[1].Verb = "going"
			say(logins[1])
			must(s.EndSession(ctx, Caller{}, u.ID, logins[1].Session))
			logins[1].Verb = "gone"
			say(logins[1])
			if i%4 == 0 {
				continue
			}
			account.Verb = "going"
			say(account)
			must(s.DeleteUser(ctx, Caller{}, u.ID))
			account.Verb = "gone"
			say(account)
		}
	})
}

// runAndKill starts the writing process, kills it after a number of deeds, and records
// everything that it has printed.
// A restlessFolder makes a compaction start when another has ended.
type restlessFolder struct {
	folder
	store *FileStore
}

// Sync is called by the writer when the new file has its name.
func (d *restlessFolder) Sync() error {
	if d.store != nil {
		d.store.live = -compactSlack
	}
	return d.folder.Sync()
}

func runAndKill(path string, deeds int, books *bookkeeper) error {
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoAcknowledgedChangeIsLostInACrash$")
	cmd.Env = append(os.Environ(), crashingChild+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait() // its error is that it was killed
	said := json.NewDecoder(out)
	for n := 0; ; n++ {
		if n == deeds {
			if err := cmd.Process.Kill(); err != nil {
				return err
			}
		}
		var d deed
		switch err := said.Decode(&d); {
		case err == nil:
			books.note(d)
		case n < deeds:
			cmd.Process.Kill()
			return fmt.Errorf("the writing process ended after %d deeds: %w", n, err)
		default:
			return nil // the last line may be incomplete, and then it is not acknowledged
		}
	}
}

// A bookkeeper records the changes that the store must have and those it must not have.
type bookkeeper struct {
	live   map[key]deed
	gone   map[key]deed
	lastID int64 // the greatest one printed
}

type key struct {
	userID  int64
	session string
}

func newBookkeeper() *bookkeeper { return &bookkeeper{live: map[key]deed{}, gone: map[key]deed{}} }

func (b *bookkeeper) note(d deed) {
	k := key{d.UserID, d.Session}
	b.lastID = max(b.lastID, d.UserID)
	switch d.Verb {
	case "made":
		b.live[k] = d
	case "going":
		for other := range b.live { // an account is deleted with its sessions
			if other == k || d.Session == "" && other.userID == d.UserID {
				delete(b.live, other)
			}
		}
	case "gone":
		b.gone[k] = d
	}
}

func (b *bookkeeper) check(s testedStore) {
	s.t.Helper()
	for _, d := range b.live {
		if d.Session == "" {
			u, err := s.UserByName(s.t.Context(), d.Name)
			if err != nil || u.ID != d.UserID {
				s.t.Errorf("acknowledged: %+v; UserByName = ID %d, %v", d, u.ID, err)
			}
			continue
		}
		// One more refresh may have been under way.
		got, _, err := s.Session(s.t.Context(), d.UserID, d.Session)
		if err != nil || got.Generation != d.Generation && got.Generation != d.Generation+1 {
			s.t.Errorf("acknowledged: %+v; Session = generation %d, %v", d, got.Generation, err)
		}
	}
	for _, d := range b.gone {
		if d.Session == "" {
			_, err := s.UserByName(s.t.Context(), d.Name)
			wantErr(s.t, "UserByName of an account whose deletion was acknowledged", err, ErrNotFound)
		}
		_, _, err := s.Session(s.t.Context(), d.UserID, d.Session)
		wantErr(s.t, "Session whose end was acknowledged", err, ErrNotFound)
	}
}
