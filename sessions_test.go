package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var monthLife = Lifetimes{Idle: 30 * 24 * time.Hour, Max: 90 * 24 * time.Hour}

func TestNewSession(t *testing.T) {
	u := User{ID: 7, Username: "johndoe", Epoch: 3}
	got := NewSession(u, testNow, monthLife)
	want := Session{
		ID: got.ID, UserID: 7, Epoch: 3, Generation: 1,
		CreatedAt: testNow, LastUsedAt: testNow, ExpiresAt: testNow.Add(monthLife.Idle),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("NewSession() (-want +got):\n%s", diff)
	}
	// A letter has 5 bits, and 26 letters have more than 128, which cannot be guessed.
	if other := NewSession(u, testNow, monthLife); len(got.ID) < 26 || other.ID == got.ID {
		t.Errorf("two calls of NewSession() have the IDs %q and %q, want different ones of 26 letters", got.ID, other.ID)
	}
}

// TestRotate: each row uses the refresh token of a generation on a session of generation 5.
func TestRotate(t *testing.T) {
	for _, test := range []struct {
		name           string
		generation     int64
		after          time.Duration // since the last rotation
		err            error
		wantGeneration int64
		moved          bool // the session is extended
	}{
		{"the current token rotates the session", 5, time.Hour, nil, 6, true},
		{"the current token rotates the session right after the last rotation", 5, 0, nil, 6, true},
		{"the replaced token gets the same successor", 4, 0, nil, 5, false},
		{"the replaced token gets the same successor just before ten seconds", 4, 10*time.Second - 1, nil, 5, false},
		{"the replaced token gets the same successor if the clock is 30 s behind", 4, -30 * time.Second, nil, 5, false},

		{"the replaced token is a replay after ten seconds", 4, 10 * time.Second, ErrReplayed, 5, false},
		{"the replaced token is a replay after an hour", 4, time.Hour, ErrReplayed, 5, false},
		{"the replaced token is a replay if the clock is more than 30 s behind", 4, -30*time.Second - 1, ErrReplayed, 5, false},
		{"an older token is a replay at once", 3, 0, ErrReplayed, 5, false},
		{"the first token is a replay", 1, time.Second, ErrReplayed, 5, false},
		{"a token of a later generation is refused but is not a replay", 6, 0, ErrNotFound, 5, false},
	} {
		old := Session{ID: "S", UserID: 7, Epoch: 3, Generation: 5, CreatedAt: testNow, LastUsedAt: testNow, ExpiresAt: testNow.Add(monthLife.Idle)}
		got, want, now := old, old, testNow.Add(test.after)
		want.Generation = test.wantGeneration
		if test.moved {
			want.LastUsedAt, want.ExpiresAt = now, now.Add(monthLife.Idle)
		}
		err := got.Rotate(test.generation, now, monthLife)
		if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, test.err) {
			t.Errorf("%s: Rotate(%d) after %v = %v, want %v; session (-want +got):\n%s", test.name, test.generation, test.after, err, test.err, diff)
		}
	}
}

// TestRotateInTurns: two tabs use the tokens of one session. The grace period is for the
// last replaced token only, and begins again with each rotation.
func TestRotateInTurns(t *testing.T) {
	s := NewSession(User{ID: 7}, testNow, monthLife)
	for i, step := range []struct {
		generation int64
		after      time.Duration
		err        error
		want       int64
	}{
		{1, 0, nil, 2},
		{1, 2 * time.Second, nil, 2}, // the second tab
		{2, 3 * time.Second, nil, 3}, // with the token that both tabs got
		{2, 12 * time.Second, nil, 3},
		{1, 12 * time.Second, ErrReplayed, 3}, // two rotations old
		{2, 13 * time.Second, ErrReplayed, 3}, // ten seconds after it was replaced
	} {
		if err := s.Rotate(step.generation, testNow.Add(step.after), monthLife); !errors.Is(err, step.err) || s.Generation != step.want {
			t.Errorf("step %d: Rotate(%d) after %v = %v, generation %d, want %v, %d", i+1, step.generation, step.after, err, s.Generation, step.err, step.want)
		}
	}
}

func TestSessionEndsWhenUnusedOrOld(t *testing.T) {
	const day = 24 * time.Hour
	u := User{ID: 7}
	s := NewSession(u, testNow, monthLife)
	for _, step := range []struct {
		name    string
		at      time.Duration // of a refresh, since the login
		expires time.Duration // since the login
	}{
		{"a refresh extends the session by the idle lifetime", 10 * day, 40 * day},
		{"a second refresh extends the session again", 35 * day, 65 * day},
		{"a third refresh extends the session to its maximum lifetime", 60 * day, 90 * day},
		{"a refresh does not extend the session beyond its maximum lifetime", 80 * day, 90 * day},
		{"a refresh in the last second does not extend the session", 90*day - time.Second, 90 * day},
	} {
		if err := s.Rotate(s.Generation, testNow.Add(step.at), monthLife); err != nil {
			t.Fatalf("%s: Rotate() = %v", step.name, err)
		}
		end := testNow.Add(step.expires)
		if !s.ExpiresAt.Equal(end) || !s.Live(u.Epoch, end.Add(-1)) || s.Live(u.Epoch, end) {
			t.Errorf("%s: expires at %v, live just before %v: %v, then: %v", step.name, s.ExpiresAt, end, s.Live(u.Epoch, end.Add(-1)), s.Live(u.Epoch, end))
		}
	}

	short := Lifetimes{Idle: 30 * day, Max: 10 * day}
	if got, want := NewSession(u, testNow, short).ExpiresAt, testNow.Add(10*day); !got.Equal(want) {
		t.Errorf("NewSession() with a maximum lifetime below the idle lifetime expires at %v, want %v", got, want)
	}
}

// TestSessionEndsWithTheEpochOfItsAccount: a password change increments the epoch of the
// account, which ends every session of an older epoch.
func TestSessionEndsWithTheEpochOfItsAccount(t *testing.T) {
	u := User{ID: 7, Epoch: 3}
	s := NewSession(u, testNow, monthLife)
	for epoch, want := range map[int64]bool{2: false, 3: true, 4: false} {
		u.Epoch = epoch
		if got := s.Live(u.Epoch, testNow); got != want {
			t.Errorf("Live() of a session of epoch 3 of an account of epoch %d = %v, want %v", epoch, got, want)
		}
	}
}
