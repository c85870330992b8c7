package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

var crashCycles = flag.Int("crashcycles", 3, "how often the crash test kills the process that writes")

// crashingChild, in the environment, makes the test below the process that is
// going to be killed.
const crashingChild = "STDAUTH_TEST_CRASHING_CHILD"

// A process writes as fast as it can and says what was acknowledged. It is
// killed (kill -9) in the middle of that, again and again on the same file, and
// each time all that it said is there.
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
		// The moment is counted in answers: it comes on a slow machine too.
		killAfter := 1 + rng.IntN(4000)
		if err := runAndKill(path, killAfter, books); err != nil {
			t.Fatalf("seed %d, cycle %d: %v", seed, cycle, err)
		}
		f := openFile(t, path)
		books.check(f.testedStore)
		if id := f.create(newUser(fmt.Sprintf("after.%d", cycle))).ID; id <= books.lastID {
			t.Errorf("CreateUser = ID %d, but %d was given before the crash", id, books.lastID)
		}
		f.close()
		if t.Failed() {
			t.Fatalf("seed %d, cycle %d, killed after %d answers", seed, cycle, killAfter)
		}
	}
	if len(books.live) == 0 || len(books.gone) == 0 {
		t.Errorf("%d things were made to stay and %d to go: not much of a test", len(books.live), len(books.gone))
	}
}

// A deed is what the writing process says on one line: what has been made or
// renewed (acknowledged), what is about to go (and may be gone from then on),
// and what has gone (acknowledged). Session is empty where it is an account.
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
			os.Exit(1) // too early, which the other process notices
		}
	}
	say := func(d deed) { must(json.NewEncoder(os.Stdout).Encode(d)) }
	s, err := OpenFileStore(ctx, path, testLife, slog.New(slog.DiscardHandler))
	must(err)
	s.live = -compactSlack // the first change starts a compaction, others come with growth

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
				must(s.CreateSession(ctx, made))
				logins[i] = deed{"made", u.ID, u.Username, made.ID, 1}
				say(logins[i])
			}
			for range 20 {
				renewed, _, err := s.UpdateSession(ctx, u.ID, logins[0].Session, func(s *Session, _ User) error {
					return s.Rotate(s.Generation, today(), testLife)
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

// runAndKill starts the writing process, kills it after so many deeds, and
// keeps book of all that it has said.
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
	defer cmd.Wait() // its end is known: it was killed
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
			return fmt.Errorf("after %d deeds the writing process said no more: %w", n, err)
		default:
			return nil // what was cut off in the middle was not said
		}
	}
}

// A bookkeeper knows what must be in the store and what must not.
type bookkeeper struct {
	live   map[key]deed
	gone   map[key]deed
	lastID int64 // that was ever said
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
		for other := range b.live { // an account takes its sessions along
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
		// One refresh more may have been under way.
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
