package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
		write(t, path, readText(t, "testdata/first-version.jsonl"))
		f := need(OpenFileStore(t.Context(), path, monthLife, slog.New(slog.DiscardHandler)))(t)
		testFirstVersion(t, testedStore{f, t}, map[string]string{
			"current":                 "PME2QLKAJLY6HW2GH6VTM6GHV4.2.2.7mB97V24KmYrJdvAorB1ha0wt7GInoIGaffvzY05wxs",
			"replaced":                "PME2QLKAJLY6HW2GH6VTM6GHV4.2.1.UPtPU-rZE0GP79uKn4nTA9GRkHk7NW1h6__1KFEXUqo",
			"ended by a new password": "CROPYV5MY77GL4CXVE2TFBW6UD.3.1.PAawbpdRsIWbU6WNspA2tw6uESJtMdgzk5OUJNGmtFg",
		})
		f.Close()
	})
}

func TestFileWrittenByHandNeedsNoChecksums(t *testing.T) {
	anna := strings.NewReplacer(`"id":1`, `"id":3`, `"role":"user"`, `"role":"admin"`).Replace(annaLine)
	f := openText(t, fileHeader+anna+`{"last_id": 8}`+"\n")
	want := User{ID: 3, Username: "anna", Role: RoleAdmin, CreatedAt: longAgo, PasswordHash: "x"}
	wantEqual(t, "Users", f.users(0, 10), []User{want})
	wantEqual(t, "the next ID", f.create(newUser("next")).ID, 9)
}

func TestFileIsForItsOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	path := storePath(t)
	write(t, path, fileHeader)
	noError(t, os.Chmod(path, 0o644))
	check := func(f openedFile, when string) {
		t.Helper()
		wantEqual(t, "the mode of "+when, need(os.Stat(f.path))(t).Mode(), 0o600)
	}
	f := openFile(t, path)
	check(f, "a file that everyone could read")
	f.create(newUser("johndoe"))
	f.compactNow()
	check(f, "a compacted file")
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
	check("zero bytes in place of a whole buffer", []byte(strings.Repeat("\x00", maxLine)+"the end of a line\"}\n"))

	f = openFile(t, f.path)
	wantEqual(t, "the ID after a torn line", f.create(newUser("next")).ID, 6)
	f.wantKept()
}

const (
	annaLine  = `{"id":1,"user":{"id":1,"username":"anna","role":"user","created_at":"2026-01-02T03:04:05Z","password_hash":"x"}}` + "\n"
	loginLine = `{"id":1,"session":{"id":"S1","user_id":1,"generation":1,"created_at":"2026-01-02T03:04:05Z",` +
		`"last_used_at":"2026-01-02T03:04:05Z","expires_at":"9999-01-02T03:04:05Z"}}` + "\n"
)

// TestLastLineWithoutItsEndIsKept: a text editor may leave out the end of the last line.
func TestLastLineWithoutItsEndIsKept(t *testing.T) {
	anna, ours := strings.TrimSuffix(annaLine, "\n"), strings.TrimSuffix(checkedLine(t, "anna", 1, false), "\n")
	ben := strings.NewReplacer(`"id":1`, `"id":2`, "anna", "ben").Replace(anna)
	for _, row := range []struct {
		name, file string
		want       int // accounts
		after      string
	}{
		{"a last line with a checksum is kept", fileHeader + ours, 1, fileHeader + ours + "\n"},
		{"a last line without a checksum is kept", fileHeader + anna, 1, fileHeader + anna + "\n"},
		{"a last line after others is kept", fileHeader + anna + "\n" + ben, 2, fileHeader + anna + "\n" + ben + "\n"},
		{"a last line with half of a CRLF is kept", fileHeader + anna + "\r", 1, fileHeader + anna + "\r\n"},
		{"a last line followed by spaces is kept", fileHeader + anna + "  ", 1, fileHeader + anna + "  \n"},
		{"a last line without its last byte is dropped", fileHeader + anna[:len(anna)-1], 0, fileHeader},
		{"a last line with a wrong checksum is dropped", fileHeader + strings.Replace(ours, "anna", "Anna", 1), 0, fileHeader},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := storePath(t)
			write(t, path, row.file)
			imported, importErr := ReadFileStore(t.Context(), path)
			f := openFile(t, path)
			wantEqual(t, "accounts", len(f.users(0, 10)), row.want)
			wantEqual(t, "the file", readText(t, path), row.after)
			if row.want == 0 {
				if importErr == nil {
					t.Error("ReadFileStore left a line out without an error")
				}
				return
			}
			wantErr(t, "ReadFileStore", importErr, nil)
			wantEqual(t, "imported accounts", len(testedStore{imported, t}.users(0, 10)), row.want)
			f.create(newUser("next"))
			f.wantKept()
		})
	}
}

// TestFileThatAnEditorSaved: line ends and byte order marks of other systems, at every
// place of a file.
func TestFileThatAnEditorSaved(t *testing.T) {
	const (
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
		"a file written by hand with CRLF is read":              {strings.ReplaceAll(fileHeader+annaLine+`{"last_id":8}`+"\n", "\n", "\r\n"), ""},
		"a file written by hand with CRLF and no end is read":   {strings.ReplaceAll(fileHeader+annaLine+`{"last_id":8}`, "\n", "\r\n"), ""},
		"a header with CRLF is read":                            {strings.ReplaceAll(fileHeader, "\n", "\r\n") + annaLine, ""},
		"a hand-written line with a byte order mark is refused": {fileHeader + "\ufeff" + annaLine, "line 2: an editor has changed it: it " + mark},
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

// TestTornLinesThatSharedASync: the sectors of a write reach the disk in any order. Of
// lines that were written together, the first may be missing and the others complete.
func TestTornLinesThatSharedASync(t *testing.T) {
	line := func(name string, id int64, shared bool) string { return checkedLine(t, name, id, shared) }
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
			if row.want == 0 {
				wantStart(t, before+row.tail, "line 3: ")
				return
			}
			f := openText(t, before+row.tail)
			wantEqual(t, "accounts", len(f.users(0, 10)), row.want)
			f.create(newUser("next"))
			f.wantKept()
		})
	}
}

func TestTornHeaderIsWrittenAgain(t *testing.T) {
	for n := range len(fileHeader) {
		for _, zeros := range []int{0, 1, len(fileHeader) - n} {
			f := openText(t, fileHeader[:n]+strings.Repeat("\x00", zeros))
			f.create(newUser("johndoe"))
			f.wantKept().close()
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
		again, err := openQuietly(t, f.path)
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
	more := func(old, new string) string {
		return fileHeader + annaLine + strings.Replace(annaLine, old, new, 1) + loginLine
	}
	for _, row := range []struct{ name, file, want string }{
		{"a file of a later version is refused", `{"format":"stdauth","version":2}` + "\n", "line 1: written by another version"},
		{"a file of another program is refused", "Dear diary,\n", "line 1: not a file of stdauth"},
		{"a file of another program of one line without an end is refused", "Dear diary", "line 1: not a file of stdauth"},
		{"a file of another program of one long line is refused", strings.Repeat("x", 2*maxLine), "line 1: not a file of stdauth"},
		{"a file of zero bytes is refused", strings.Repeat("\x00", 2*maxLine), "line 1: not a file of stdauth"},
		{"a header with a trailing space is refused", strings.TrimSpace(fileHeader) + " \n", "line 1: "},
		{"a file without a header is refused", annaLine + loginLine, "line 1: not a file of stdauth"},

		{"an empty line is refused", fileHeader + annaLine + "\n" + loginLine, "line 3: "},
		{"a line that is not JSON is refused", fileHeader + annaLine + "johndoe\n" + loginLine, "line 3: "},
		{"a line without a change is refused", fileHeader + annaLine + "{}\n" + loginLine, "line 3: "},
		{"a line of more than 64 KiB is refused", fileHeader + annaLine + strings.Repeat(" ", maxLine) + loginLine, "line 3: "},
		{"zero bytes in the middle of the file are refused", fileHeader + annaLine + "\x00\x00\x00\n" + loginLine, "line 3: "},
		{"a last line without an end that is no change is refused", fileHeader + annaLine + annaLine + `{"id":9,"ended":"S1"}`, "line 4: no account has the ID 9"},
		{"a checksum of nine digits is refused", fileHeader + strings.Replace(checkedLine(t, "anna", 1, false), crcOpening, crcOpening+"1", 1), "line 2: the checksum"},
		{"a complete last line that is not JSON is refused", fileHeader + annaLine + "johndoe\n", "line 3: "},

		{"an account without an ID is refused", fileHeader + strings.ReplaceAll(annaLine, `"id":1,`, "") + annaLine + loginLine, "line 2: not a change"},
		{"a line of an ID alone is refused", fileHeader + annaLine + `{"id":1}` + "\n" + loginLine, "line 3: not a change"},
		{"a last line that is too long and has no end is refused", fileHeader + annaLine + strings.Repeat(" ", 2*maxLine), "line 3: "},

		{"an ID not above the last one is refused", fileHeader + `{"last_id":1}` + "\n" + annaLine + loginLine, "line 3: the ID 1 is not above"},
		{"an ID below 1 is refused", fileHeader + strings.ReplaceAll(annaLine, `"id":1`, `"id":-1`) + loginLine, "line 2: not a change"},
		{"a username of two accounts is refused", fileHeader + annaLine + strings.ReplaceAll(annaLine, `"id":1`, `"id":2`) + loginLine, "line 3: username already registered"},
		{"a line that changes a username is refused", more("anna", "ben"), "line 3: an account does not change its name"},
		{"an invalid username is refused", fileHeader + strings.Replace(annaLine, "anna", "an na", 1) + loginLine, "line 2: not an account"},
		{"an unknown role is refused", more(`"role":"user"`, `"role":"root"`), "line 3: not an account"},
		{"a line with two different IDs is refused", more(`"id":1,"username"`, `"id":2,"username"`), "line 3: not an account"},
		{"a session without an account is refused", fileHeader + loginLine + annaLine, "line 2: no account has the ID 1"},
		{"a session with the ID of another account is refused", fileHeader + annaLine + strings.Replace(loginLine, `"user_id":1`, `"user_id":2`, 1) + loginLine, "line 3: not a session"},
		{"a session without an ID is refused", fileHeader + annaLine + strings.Replace(loginLine, "S1", "", 1) + loginLine, "line 3: not a session"},
	} {
		t.Run(row.name, func(t *testing.T) { wantStart(t, row.file, row.want) })
	}
	for name, path := range map[string]string{
		"a directory is refused":                               t.TempDir(),
		"a file in a directory that does not exist is refused": filepath.Join(t.TempDir(), "none", "users.jsonl"),
	} {
		if f, err := openQuietly(t, path); err == nil {
			f.Close()
			t.Errorf("%s: OpenFileStore succeeded", name)
		}
	}
}

func TestFileStoreRefusesWhatItCouldNotReplay(t *testing.T) {
	f := filledStore(t)
	want := f.contents()
	noRole := User{Username: "norole", CreatedAt: longAgo}
	long, late := newSession(f.user(1)), newSession(f.user(1))
	long.UserAgent, late.ExpiresAt = strings.Repeat("x", maxLine), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, err := range map[string]error{
		"an account without a username is refused":                                 f.tryCreate(""),
		"an account without a role is refused":                                     errOf(f.CreateUser(t.Context(), Caller{}, noRole)),
		"a full name over 64 KiB is refused":                                       f.tryUpdate(1, func(u *User) { u.FullName = strings.Repeat("x", maxLine) }),
		"a user agent over 64 KiB is refused":                                      errOf(f.CreateSession(t.Context(), long)),
		"a date beyond the year 9999, which JSON times cannot express, is refused": errOf(f.CreateSession(t.Context(), late)),
	} {
		if err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: got error %v, want one other than ErrUnavailable", name, err)
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
	longest := maxLine - len(need(lineOf(nil, 1))(t)) + 1
	lines := need(lineOf([]byte(fileHeader), longest))(t)
	lines = need(lineOf(lines, longest))(t)
	wantEqual(t, "bytes of two lines of the maximum length", len(lines), len(fileHeader)+2*maxLine)
	wantEqual(t, "bytes read of the longest full name", len(openText(t, string(lines)).user(1).FullName), longest)

	after, err := lineOf(lines, longest+1)
	if err == nil || !bytes.Equal(after, lines) {
		t.Errorf("appendLine of %d bytes: error %v and %d bytes, want an error and the %d before it", maxLine+1, err, len(after), len(lines))
	}
	after, err = appendLine(lines, change{ID: 1, User: &User{CreatedAt: longAgo.AddDate(8000, 0, 0)}}, false)
	if err == nil || !bytes.Equal(after, lines) {
		t.Errorf("appendLine of the year 10026: error %v and %d bytes, want an error and the %d before it", err, len(after), len(lines))
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
		wantErr(t, "OpenFileStore of a file in use, by "+filepath.Base(path), errOf(openQuietly(t, path)), errLocked)
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
		f, err := openQuietly(t, path)
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

// TestClockSetBackBetweenStarts: the clock was ahead when a session was refreshed. A start
// ends no session that is live by the clock of now, and lets none last for longer.
func TestClockSetBackBetweenStarts(t *testing.T) {
	f := openFile(t, storePath(t))
	john, jane := f.create(newUser("john")), f.create(newUser("jane"))
	ahead, live := f.login(john), f.login(jane)
	_, _, err := f.UpdateSession(t.Context(), john.ID, ahead.ID, func(s *Session, _ User) error {
		s.LastUsedAt, s.ExpiresAt = s.LastUsedAt.Add(40*time.Hour), s.ExpiresAt.Add(40*time.Hour)
		return nil
	})
	wantErr(t, "UpdateSession", err, nil)
	f = f.reopen()
	wantEqual(t, "the other sessions", f.sessions(jane.ID), []Session{live})
	if got := f.sessions(john.ID); len(got) != 1 || time.Until(got[0].ExpiresAt) > testLife.Idle {
		t.Errorf("the sessions are %v, want one that lasts for %v at most", got, testLife.Idle)
	} else {
		wantEqual(t, "the sessions a moment later, whose end does not move with the clock", f.sessions(john.ID), got)
	}
}

func TestFailedDiskEndsAllChanges(t *testing.T) {
	fails := func(op string) func(openedFile) { return func(f openedFile) { f.watch(failing(op)) } }
	full := func(room int) func(openedFile) {
		return func(f openedFile) { f.file.file = &fullDisk{f.file.file, room} }
	}
	for _, row := range []struct {
		name string
		fail func(f openedFile)
		want error
	}{
		{"a failed write ends all changes", fails("write"), errFaulty},
		{"a failed sync ends all changes", fails("sync"), errFaulty},
		{"a full disk ends all changes", full(0), syscall.ENOSPC},
		{"a disk that is full after a byte ends all changes", full(1), syscall.ENOSPC},
		{"a disk that is full after 40 bytes ends all changes", full(40), syscall.ENOSPC},
		{"a disk that is full after 200 bytes ends all changes", full(200), syscall.ENOSPC},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := filledStore(t)
			before := f.contents()
			u, session := f.user(2), f.sessions(2)[0]
			row.fail(f)

			wantErr(t, "the first change after the disk failed", f.tryCreate("unlucky"), row.want)
			for _, way := range changesOfAll {
				wantErr(t, way.name+" after the failure", way.change(f.Store, Caller{}, u, session), ErrUnavailable)
			}
			nothing := func(*Session, User) error { return nil }
			wantErr(t, "UpdateSession that changes nothing after the failure", errOf(f.UpdateSession(t.Context(), 2, session.ID, nothing)), ErrUnavailable)
			wantErr(t, "Ready after the failure", f.Ready(t.Context()), ErrUnavailable)
			wantEqual(t, "the contents for readers after the failure", f.contents(), before)
			wantErr(t, "Close after the failure was returned", f.file.Close(), nil)

			again := openFile(t, f.path)
			after := again.contents()
			delete(after, "User(6)") // a change whose sync failed may or may not be on the disk
			delete(after, "Sessions(6)")
			wantEqual(t, "the store opened again on a working disk", after, before)
			wantErr(t, "Ready of the store opened again", again.Ready(t.Context()), nil)
			again.create(newUser("lucky"))
		})
	}
}

func TestDiskThatFailsWhileOpeningStopsTheStart(t *testing.T) {
	for _, op := range []string{"stat", "second stat", "truncate", "chmod", "write", "sync", "folder sync"} {
		for _, name := range []string{"new.jsonl", "old.jsonl"} {
			dir := t.TempDir()
			disk := need(openFolder(dir))(t)
			defer disk.Close()
			old := openFile(t, filepath.Join(dir, "old.jsonl"))
			old.create(newUser("johndoe"))
			old.close()
			stats := 0
			faulty := watchedFolder{disk, func(now string) error {
				if now == "stat" {
					if stats++; stats == 2 {
						now = "second stat"
					}
				}
				return failing(op)(now)
			}}
			_, err := openFileStore(t.Context(), faulty, name, testLife, slog.New(slog.DiscardHandler))
			wantErr(t, "openFileStore of "+name+" with a "+op+" that fails", err, errFaulty)
			_, err = os.Stat(filepath.Join(dir, name))
			wantEqual(t, "whether "+name+" exists after a start that failed at a "+op, err == nil, name == "old.jsonl")
		}
	}
}

// TestReplacedFolderIsNoticed: an operator moves the folder away and puts a copy in its place.
// The next start would read the copy.
func TestReplacedFolderIsNoticed(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	noError(t, os.Mkdir(folder, 0o700))
	path := filepath.Join(folder, "users.jsonl")
	f := openFile(t, path)
	f.create(newUser("johndoe"))
	noError(t, errors.Join(os.Rename(folder, folder+".old"), os.CopyFS(folder, os.DirFS(folder+".old"))))
	wantErr(t, "CreateUser after the folder was replaced", f.tryCreate("jane"), ErrUnavailable)
	wantErr(t, "Ready after the folder was replaced", f.Ready(t.Context()), ErrUnavailable)
}

func TestFolderThatCannotBeReadIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	noError(t, os.Mkdir(path, 0o700))
	folder := need(openFolder(path))(t)
	f := need(folder.OpenFile("users.jsonl", os.O_CREATE|os.O_RDWR, 0o600))(t)
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

func TestReadersSeeOnlyWhatIsDurable(t *testing.T) {
	for _, row := range []struct {
		name, waits   string
		disk, changes error
	}{
		{"readers see changes only after their sync succeeds", "sync", nil, nil},
		{"readers never see changes whose sync fails", "sync", errFaulty, ErrUnavailable},
		{"readers never see changes whose write fails", "write", errFaulty, ErrUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := openFile(t, storePath(t))
				var users []User
				var sessions []Session
				for i := range changesOfAll {
					users = append(users, f.create(newUser(fmt.Sprint("user", i))))
					sessions = append(sessions, f.login(users[i]))
				}
				before := f.contents()
				disk := f.slowDown(row.waits)
				done := make(chan error, len(changesOfAll))
				for i, way := range changesOfAll {
					go func() { done <- way.change(f.Store, Caller{}, users[i], sessions[i]) }()
					synctest.Wait() // until everything waits for the disk
					// A read that waited for the sync would never return.
					wantEqual(t, "the contents for readers during "+way.name, f.contents(), before)
				}
				if len(done) > 0 {
					t.Fatalf("%d changes were acknowledged before the disk did, the first with %v", len(done), <-done)
				}
				disk.finish(row.disk)
				for range cap(done) {
					wantErr(t, "a change that waited for the disk", <-done, row.changes)
				}
				if row.disk != nil {
					wantEqual(t, "the contents for readers after the failure", f.contents(), before)
					synctest.Wait() // until the writer is idle
					wantEqual(t, "what the disk was asked to do, the failure included", disk.asked.Load(), 1)
					wantEqual(t, "compactions after the failure", f.file.Metrics()["stdauth_store_compactions_total"], 0)
					return
				}
				wantEqual(t, "the accounts after the sync", idsOf(f.users(0, 10)), []int64{1, 2, 4, 5, 6, 7, 8})
				f.wantKept()
			})
		})
	}
}

func TestChangesThatWaitShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		disk := f.slowDown("sync")
		done := make(chan error, 64)
		for n := range 64 {
			go func() { done <- f.tryCreate(fmt.Sprintf("user%d", n)) }()
			if n == 0 {
				synctest.Wait() // until its sync has begun
			}
		}
		synctest.Wait() // until the others wait
		disk.finish(nil)
		for range 64 {
			wantErr(t, "CreateUser", <-done, nil)
		}
		wantEqual(t, "syncs: one for the first change, one for those that arrived during it", disk.asked.Load(), 2)
		wantEqual(t, "accounts", len(f.users(0, 100)), 64)
		wantEqual(t, "lines marked with same_sync", strings.Count(string(f.bytes()), `","same_sync":true,"id":`), 62)
	})
}

func TestCloseWaitsForChangesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		disk := f.slowDown("sync")
		done, closed := make(chan error, 3), make(chan error, 1)
		for n := range 3 { // one being synced, two waiting for the next
			go func() { done <- f.tryCreate(fmt.Sprintf("user%d", n)) }()
			synctest.Wait()
		}
		go func() { closed <- f.file.Close() }()
		synctest.Wait()
		if len(closed)+len(done) > 0 {
			t.Fatalf("before the sync returned, %d Close and %d changes returned, want none", len(closed), len(done))
		}
		late := make(chan error, 1)
		go func() { late <- f.tryCreate("late") }()
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
	lines := strings.Count(string(f.bytes()), "\n")
	if want := 1 + 4 + 5 + 1; lines != want || len(f.bytes()) >= before {
		t.Errorf("the file has %d lines, %d bytes; want %d lines (header, accounts, sessions, last ID) and less than %d bytes", lines, len(f.bytes()), want, before)
	}
	f = f.reopen()
	wantEqual(t, "the store opened again", f.contents(), want)
	wantEqual(t, "the ID after that of the deleted account", f.create(newUser("next")).ID, 6)
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
	f.watch(failing("new write"))
	f.compactSoon()
	f.create(newUser("first"))
	tries := 0
	more := func() int { tries += f.logs.count("could not compact the store"); return tries }
	for more() == 0 { // a store that is closed gives the compaction up
		time.Sleep(time.Millisecond)
	}
	for i := range 5 {
		f.create(newUser(fmt.Sprint("later", i)))
	}
	f.file.Close()
	wantEqual(t, "tries", more(), 1)
}

func TestCompactionKeepsTheLastIDOfAStoreWithoutAccounts(t *testing.T) {
	f := openFile(t, storePath(t))
	f.remove(f.create(newUser("deleted")).ID)
	f.compactNow()
	wantEqual(t, "the ID after that of the deleted account", f.reopen().create(newUser("next")).ID, 2)
}

func TestWriterThatWakesForNothingDoesNotCompact(t *testing.T) {
	f := filledStore(t)
	f.compactSoon()
	if f.file.flush() {
		t.Error("without changes, flush wants a compaction")
	}
}

func TestChangeThatChangesNothingIsNotWritten(t *testing.T) {
	f := filledStore(t)
	old := f.sessions(2)[0]
	renewed := f.rotate(old)
	before := f.bytes()
	wantEqual(t, "a refresh that is sent again", need(f.refresh(old, old.Generation))(t), renewed)
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

// TestChangesDuringACompaction: a compaction is held at its first sync of the new file.
func TestChangesDuringACompaction(t *testing.T) {
	held := func(t *testing.T) (openedFile, *heldDisk) {
		f := filledStore(t)
		d := &heldDisk{began: make(chan struct{}), goOn: make(chan struct{})}
		f.watch(d.before)
		f.compact()
		<-d.began
		return f, d
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
		f.wantNoNewFile()
		f.create(newUser("afterwards"))
		f.wantKept()
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
		f.wantNoNewFile()
		wantEqual(t, "the store opened again", openFile(t, f.path).contents(), want)
	})
	t.Run("a compaction that takes the last space of the disk makes room for a change", func(t *testing.T) {
		f, d := held(t)
		d.full.Store(true)
		f.create(newUser("late"))
		wantErr(t, "Ready", f.Ready(t.Context()), nil)
		f.wantNoNewFile()
		f.wantKept()
	})
	t.Run("a disk that fails during a compaction leaves no new file", func(t *testing.T) {
		f, d := held(t)
		d.broken.Store(true)
		time.AfterFunc(10*time.Millisecond, d.release)
		wantErr(t, "CreateUser", f.tryCreate("unlucky"), ErrUnavailable)
		f.wantNoNewFile()
		wantEqual(t, "new files that were created", d.created.Load(), 1)
	})
}

// TestNewFileIsSyncedInPieces: one sync of all of it would keep the writer from the disk.
func TestNewFileIsSyncedInPieces(t *testing.T) {
	f := filledStore(t)
	f.file.pieceSize = 100
	var syncs atomic.Int64
	f.watch(func(op string) error {
		if op == "new sync" {
			syncs.Add(1)
		}
		return nil
	})
	f.compactNow()
	if got, lines := syncs.Load(), int64(strings.Count(string(f.bytes()), "\n")); got < lines/2 {
		t.Errorf("the new file, with %d lines of about 100 bytes, was synced %d times, want once for two lines at least", lines, got)
	}
}

// TestCompactionWaitsUntilItPays: a compaction writes everything live again. It waits
// until the file has grown by as much.
func TestCompactionWaitsUntilItPays(t *testing.T) {
	var file strings.Builder
	file.WriteString(fileHeader)
	for id := 1; file.Len() <= 2*compactSlack; id++ {
		next := fmt.Sprint(id)
		file.WriteString(strings.NewReplacer(`id":1`, `id":`+next, "S1", "S"+next, "anna", "u"+next).Replace(annaLine + loginLine))
	}
	f := openText(t, file.String())
	var compactions atomic.Int64
	f.watch(func(op string) error {
		if op == "new open" {
			compactions.Add(1)
		}
		return nil
	})
	for id := range int64(10) {
		f.update(1+id, func(u *User) { u.FullName = strings.Repeat("x", compactSlack/8) })
	}
	f.close()
	wantEqual(t, "compactions before the file has doubled", compactions.Load(), 0)
	if !bytes.HasPrefix(f.bytes(), []byte(file.String())) {
		t.Error("the file was rewritten, want the new lines appended")
	}
}

// TestCompactionComesAlsoAfterReopening: a file with few live lines is compacted at the
// first change after it is opened.
func TestCompactionComesAlsoAfterReopening(t *testing.T) {
	f := openText(t, fileHeader+annaLine+strings.Repeat(loginLine, 2*compactSlack/len(loginLine)))
	f.create(newUser("next"))
	f.logs.await("compacted the store")
}

func TestFileStaysSmallUnderSteadyRefreshing(t *testing.T) {
	f := openFile(t, storePath(t))
	var all []Session
	for n := range 10 {
		all = append(all, f.login(f.create(newUser(fmt.Sprintf("user%d", n)))))
	}
	refreshes, compactions := 0, 0
	for ; compactions < 3; refreshes += len(all) {
		errs := atOnce(len(all), func(n int) error {
			return errOf(f.UpdateSession(t.Context(), all[n].UserID, all[n].ID, rotateSoon))
		})
		wantErr(t, "UpdateSession", errors.Join(errs...), nil)
		compactions += f.logs.count("compacted the store")
		if refreshes > 100_000 {
			t.Fatalf("%d compactions in %d refreshes", compactions, refreshes)
		}
	}
	if got := len(f.bytes()); got > 2*compactSlack {
		t.Errorf("after %d refreshes the file has %d bytes, want at most %d", refreshes, got, 2*compactSlack)
	}
	f.wantKept()
}

func TestFailedCompactionLeavesTheOldFileInUse(t *testing.T) {
	for name, fails := range map[string]string{
		"a compaction that cannot create the new file leaves the old one": "new open",
		"a compaction that cannot write the new file leaves the old one":  "new write",
		"a compaction that cannot sync the new file leaves the old one":   "new sync",
		"a compaction that cannot rename the new file leaves the old one": "rename",
	} {
		t.Run(name, func(t *testing.T) {
			f := filledStore(t)
			f.watch(failing(fails))
			f.compact()
			f.logs.await("could not compact the store")
			f.wantNoNewFile() // with which a full disk would stay full
			f.create(newUser("afterwards"))
			wantErr(t, "Ready", f.Ready(t.Context()), nil)
			f = f.wantKept()
			f.compactNow()
			f.wantKept()
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
		again.wantKept().close()
	}
}

func TestReadingALargeFileCanBeStopped(t *testing.T) {
	path := storePath(t)
	text := fileHeader + strings.Repeat(`{"last_id":7}`+"\n", 3000)
	write(t, path, text)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "OpenFileStore", errOf(OpenFileStore(ctx, path, testLife, slog.New(slog.DiscardHandler))), context.Canceled)
	wantEqual(t, "the file", readText(t, path), text)
	openFile(t, path) // the file is not locked either
}

func TestUnfinishedFileIsNotImported(t *testing.T) {
	path := storePath(t)
	for text, want := range map[string]string{fileHeader + annaLine[:10]: "line 2: it is incomplete", "": "the file is empty"} {
		write(t, path, text)
		wantErrText(t, fmt.Sprintf("ReadFileStore of %q", text), errOf(ReadFileStore(t.Context(), path)), want)
	}
	wantErr(t, "ReadFileStore of no file", errOf(ReadFileStore(t.Context(), path+".none")), os.ErrNotExist)
}

func TestInterruptedImportLeavesAnEmptyStore(t *testing.T) {
	users := numberedUsers(1000)
	for _, fails := range []string{"new write", "new sync", "rename"} {
		t.Run("an import that fails at a "+fails, func(t *testing.T) {
			f := openFile(t, storePath(t))
			f.watch(failing(fails))
			if err := f.Import(t.Context(), users, 2000); err == nil {
				t.Fatal("Import succeeded, want an error")
			}
			f = f.reopen()
			wantEqual(t, "Users", f.users(0, 10), nil)
			wantErr(t, "Import, again", f.Import(t.Context(), users, 2000), nil)
			wantErr(t, "Import, once more", f.Import(t.Context(), users, 2000), ErrNotEmpty)
			wantEqual(t, "the next ID", f.create(newUser("next")).ID, 2001)
			f.wantKept()
		})
	}
}

func TestCancelledImportLeavesAnEmptyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, storePath(t))
		ctx, cancel := context.WithCancel(t.Context())
		f.watch(func(op string) error {
			if op == "new open" {
				cancel()
				synctest.Wait()
			}
			return nil
		})
		if err := f.Import(ctx, numberedUsers(10), 10); err == nil {
			t.Error("Import succeeded, want an error")
		}
		wantEqual(t, "Users", f.reopen().users(0, 10), nil)
	})
}

func TestImportThatMayNotBeDurableEndsTheChanges(t *testing.T) {
	f := openFile(t, storePath(t))
	f.watch(failing("folder sync"))
	wantErr(t, "Import", f.Import(t.Context(), numberedUsers(3), 0), errFaulty)
	wantErr(t, "CreateUser", f.tryCreate("late"), ErrUnavailable)
	wantErr(t, "Ready", f.Ready(t.Context()), ErrUnavailable)
	wantEqual(t, "the next ID of the store opened again", f.reopen().create(newUser("next")).ID, 4)
}

func TestLinkToAnAbsentFileIsRefused(t *testing.T) {
	path, absent := storePath(t), filepath.Join(t.TempDir(), "absent")
	notOnWindows(t, os.Symlink(absent, path))
	wantErr(t, "OpenFileStore", errOf(openQuietly(t, path)), os.ErrNotExist)
	if _, err := os.Lstat(absent); err == nil {
		t.Error("OpenFileStore created the file behind the link")
	}
}

// wantStart opens a store on a file. It wants no error, or an error and an unchanged file,
// and a file that is not the store's beside it.
func wantStart(t *testing.T, file, want string) {
	t.Helper()
	if want == "" {
		openText(t, file).wantKept()
		return
	}
	path := storePath(t)
	write(t, path, file)
	write(t, path+".new", "somebody else's")
	f, err := openQuietly(t, path)
	if err == nil {
		f.Close()
	}
	wantErrText(t, "OpenFileStore", err, want)
	wantErrText(t, "ReadFileStore", errOf(ReadFileStore(t.Context(), path)), want)
	wantEqual(t, "the file", readText(t, path), file)
	wantEqual(t, "the file beside it", readText(t, path+".new"), "somebody else's")
}

// checkedLine returns the line of a new account, as the store writes it.
func checkedLine(t testing.TB, name string, id int64, shared bool) string {
	t.Helper()
	u := newUser(name)
	u.ID = id
	return string(need(appendLine(nil, change{ID: id, User: &u}, shared))(t))
}

// A heldDisk holds a compaction at the first sync of the new file until goOn is closed.
type heldDisk struct {
	began, goOn  chan struct{}
	once         sync.Once
	created      atomic.Int64
	full, broken atomic.Bool
}

func (d *heldDisk) release() { d.once.Do(func() { close(d.goOn) }) }

func (d *heldDisk) before(op string) error {
	switch {
	case op == "new open":
		d.created.Add(1)
	case op == "new sync":
		select {
		case <-d.goOn:
		default:
			close(d.began)
			<-d.goOn
		}
	case op == "new remove":
		d.full.Store(false) // which makes room
	case op == "write" && d.full.Load():
		d.release()
		return syscall.ENOSPC
	case op == "sync" && d.broken.Load():
		return errFaulty
	}
	return nil
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

// openText opens a store on a file with this text.
func openText(t testing.TB, text string) openedFile {
	t.Helper()
	path := storePath(t)
	write(t, path, text)
	return openFile(t, path)
}

// openQuietly is OpenFileStore for files that may be refused.
func openQuietly(t testing.TB, path string) (*FileStore, error) {
	return OpenFileStore(t.Context(), path, testLife, slog.New(slog.DiscardHandler))
}

func openFileLog(t testing.TB, path string) (openedFile, logLines) {
	t.Helper()
	logger, logs := newLog()
	f := need(OpenFileStore(t.Context(), path, testLife, logger))(t)
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
	noError(t, f.EndSession(t.Context(), Caller{}, john.ID, ended.ID))
	f.login(john)
	jane := f.create(newUser("jane"))
	f.login(jane)
	kept := f.login(jane)
	noError(t, f.EndSessions(t.Context(), Caller{}, jane.ID, kept.ID))
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
	noError(f.t, f.file.Close())
}

func (f openedFile) reopen() openedFile {
	f.t.Helper()
	f.close()
	return openFile(f.t, f.path)
}

// wantKept opens the store again, which must have the same contents.
func (f openedFile) wantKept() openedFile {
	f.t.Helper()
	want := f.contents()
	f = f.reopen()
	wantEqual(f.t, "the store opened again", f.contents(), want)
	return f
}

func (f openedFile) wantNoNewFile() {
	f.t.Helper()
	wantErr(f.t, "Stat of the new file of a compaction", errOf(os.Stat(f.path+".new")), os.ErrNotExist)
}

func (f openedFile) bytes() []byte { return []byte(readText(f.t, f.path)) }

// A watchedFolder calls before with each operation of its own and of its files, as in
// "folder sync" and "sync", or "new sync" for the new file of a compaction. If before
// returns an error, so does the operation.
type watchedFolder struct {
	folder
	before func(op string) error
}

type watchedFile struct {
	file
	of     string // "" or "new "
	before func(op string) error
}

func (f openedFile) watch(before func(op string) error) {
	f.file.folder, f.file.file = watchedFolder{f.file.folder, before}, watchedFile{f.file.file, "", before}
}

// failing makes one operation fail.
func failing(fails string) func(op string) error {
	return func(op string) error {
		if op == fails {
			return errFaulty
		}
		return nil
	}
}

var errFaulty = errors.New("input/output error")

func newOr(name string) string {
	if strings.HasSuffix(name, ".new") {
		return "new "
	}
	return ""
}

func (d watchedFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if err := d.before(newOr(name) + "open"); err != nil {
		return nil, err
	}
	f, err := d.folder.OpenFile(name, flag, perm)
	return watchedFile{f, newOr(name), d.before}, err
}

func (d watchedFolder) Rename(from, to string) error {
	if err := d.before("rename"); err != nil {
		return err
	}
	return d.folder.Rename(from, to)
}

func (d watchedFolder) Remove(name string) error {
	return errors.Join(d.before(newOr(name)+"remove"), d.folder.Remove(name))
}

func (d watchedFolder) Sync() error { return errors.Join(d.before("folder sync"), d.folder.Sync()) }

func (f watchedFile) Stat() (fs.FileInfo, error) {
	info, err := f.file.Stat()
	return info, errors.Join(f.before(f.of+"stat"), err)
}

func (f watchedFile) WriteAt(b []byte, offset int64) (int, error) {
	if err := f.before(f.of + "write"); err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, offset)
}

func (f watchedFile) Truncate(size int64) error {
	return errors.Join(f.before(f.of+"truncate"), f.file.Truncate(size))
}

func (f watchedFile) Chmod(mode fs.FileMode) error {
	return errors.Join(f.before(f.of+"chmod"), f.file.Chmod(mode))
}

func (f watchedFile) Sync() error { return errors.Join(f.before(f.of+"sync"), f.file.Sync()) }

// compactSoon makes the next change start a compaction.
func (f openedFile) compactSoon() { f.file.live = -compactSlack }

// compact starts a compaction by a change that changes nothing.
func (f openedFile) compact() {
	f.t.Helper()
	f.compactSoon()
	err := f.file.ahead.step(Caller{}, func() (change, error) { return change{LastID: f.file.ahead.lastID}, nil })
	wantErr(f.t, "a change that changes nothing", err, nil)
}

func (f openedFile) compactNow() {
	f.t.Helper()
	f.compact()
	f.logs.await("compacted the store")
}

// slowDown puts the file on a disk whose writes or syncs block until it is finished.
func (f openedFile) slowDown(waits string) *slowDisk {
	d := &slowDisk{finished: make(chan struct{})}
	f.watch(func(op string) error {
		if op != waits {
			return nil
		}
		d.asked.Add(1)
		<-d.finished
		return d.result
	})
	return d
}

type slowDisk struct {
	asked    atomic.Int64
	finished chan struct{}
	result   error // of all of them
}

func (d *slowDisk) finish(result error) {
	d.result = result
	close(d.finished)
}

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
	noError(t, os.WriteFile(path, []byte(text), 0o600))
}

// notOnWindows fails a test for an error, or skips it on Windows, which may not allow what
// was tried.
func notOnWindows(t testing.TB, err error) {
	t.Helper()
	switch {
	case err != nil && runtime.GOOS == "windows":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

func readText(t testing.TB, path string) string {
	t.Helper()
	text := need(os.ReadFile(path))(t)
	return string(text)
}
