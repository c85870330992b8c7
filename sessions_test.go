package main

import (
	"errors"
	"fmt"
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
	wantEqual(t, "NewSession()", got, want)
	// A letter has 5 bits, and 26 letters have more than 128, which cannot be guessed.
	if other := NewSession(u, testNow, monthLife); len(got.ID) < 26 || other.ID == got.ID {
		t.Errorf("two calls of NewSession() have the IDs %q and %q, want different ones of 26 letters", got.ID, other.ID)
	}
}

// TestRotate: each row uses the refresh token of a generation on a session of generation 5.
func TestRotate(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, test := range []struct {
		name       string
		generation int64
		after      time.Duration // since the last rotation
		err        error
		rotated    bool
	}{
		{"the current token rotates the session", 5, time.Hour, nil, true},
		{"the current token rotates the session a second after the last rotation", 5, time.Second, nil, true},
		{"the current token is its own successor within a second", 5, time.Second - 1, nil, false},
		{"the current token is its own successor at once", 5, 0, nil, false},
		{"the current token is its own successor at a copy whose clock is 30 s behind", 5, -30 * time.Second, nil, false},
		{"the current token rotates the session if the clock was set back by more than 30 s", 5, -30*time.Second - 1, nil, true},
		{"the current token rotates the session if the clock was set back by a year", 5, -year, nil, true},

		{"the replaced token gets the same successor at once", 4, 0, nil, false},
		{"the replaced token gets the same successor just before a minute", 4, time.Minute - 1, nil, false},
		{"the replaced token gets the same successor at a copy whose clock is 30 s behind", 4, -30 * time.Second, nil, false},
		{"the replaced token is a replay after a minute", 4, time.Minute, ErrReplayed, false},
		{"the replaced token is a replay after an hour", 4, time.Hour, ErrReplayed, false},
		{"the replaced token is refused and no replay if the clock was set back by more than 30 s", 4, -30*time.Second - 1, ErrNotFound, false},
		{"the replaced token is refused and no replay if the clock was set back by a year", 4, -year, ErrNotFound, false},

		{"an older token is a replay at once", 3, 0, ErrReplayed, false},
		{"an older token is a replay within the grace period", 3, 30 * time.Second, ErrReplayed, false},
		{"an older token is a replay although the clock was set back by a year", 3, -year, ErrReplayed, false},
		{"the first token is a replay", 1, time.Second, ErrReplayed, false},
		{"a token of a later generation is refused and no replay", 6, 0, ErrNotFound, false},
		{"a token of a later generation is refused and no replay if the clock was set back by a year", 6, -year, ErrNotFound, false},
	} {
		old := Session{
			ID: "S", UserID: 7, Epoch: 3, Generation: 5,
			CreatedAt: testNow.Add(-2 * year), LastUsedAt: testNow, ExpiresAt: testNow.Add(monthLife.Idle),
		}
		life := Lifetimes{Idle: monthLife.Idle, Max: 9 * year}
		got, want, now := old, old, testNow.Add(test.after)
		if test.rotated {
			want.Generation, want.LastUsedAt, want.ExpiresAt = 6, now, now.Add(life.Idle)
		}
		err := got.Rotate(test.generation, now, life)
		if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, test.err) {
			t.Errorf("%s: Rotate(%d) after %v = %v, want %v; session (-want +got):\n%s", test.name, test.generation, test.after, err, test.err, diff)
		}
		wantEqual(t, test.name+": Superseded()", old.Superseded(test.generation, now), test.generation == 4 && err == nil)
	}
}

// TestRotateInTurns: tabs use the tokens of one session.
func TestRotateInTurns(t *testing.T) {
	type step struct {
		generation int64
		at         time.Duration // since the login
		err        error
		want       int64 // the generation afterwards
	}
	const s = time.Second
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"the first token rotates the session right after the login", []step{{1, 0, nil, 2}}},
		{"two tabs get the same successor, and each can use it", []step{{1, 5 * s, nil, 2}, {1, 6 * s, nil, 2}, {2, 7 * s, nil, 3}, {2, 12 * s, nil, 3}}},
		{"a third tab that is late gets the same successor as two that refresh twice at once", []step{
			{1, 5 * s, nil, 2}, {1, 5 * s, nil, 2}, {2, 5*s + 1, nil, 2}, {2, 6*s - 1, nil, 2}, {1, 6 * s, nil, 2}, {1, 65*s - 1, nil, 2},
		}},
		{"a client whose response was lost tries again after 11 s", []step{{1, 5 * s, nil, 2}, {1, 16 * s, nil, 2}, {2, 20 * s, nil, 3}}},
		{"a client that refreshes without pause rotates the session once a second", []step{
			{1, 0, nil, 2}, {2, s / 2, nil, 2}, {2, s, nil, 3}, {3, s + s/2, nil, 3}, {3, 2 * s, nil, 4},
		}},
		{"the grace period is for the last replaced token only", []step{{1, 0, nil, 2}, {2, 3 * s, nil, 3}, {1, 4 * s, ErrReplayed, 3}}},
		{"the grace period begins with the replacement", []step{{1, 0, nil, 2}, {2, 30 * s, nil, 3}, {2, 89 * s, nil, 3}, {2, 90 * s, ErrReplayed, 3}}},
	} {
		session := NewSession(User{ID: 7}, testNow, monthLife)
		for i, step := range test.steps {
			if err := session.Rotate(step.generation, testNow.Add(step.at), monthLife); !errors.Is(err, step.err) || session.Generation != step.want {
				t.Errorf("%s, step %d: Rotate(%d) at %v = %v, generation %d, want %v, %d",
					test.name, i+1, step.generation, step.at, err, session.Generation, step.err, step.want)
			}
		}
	}
}

// TestSessionFromTheFuture: each row is a session that began, and was used last, at times
// relative to now, because the clock was ahead.
func TestSessionFromTheFuture(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		name           string
		created, used  time.Duration // since now
		expires        time.Duration // since now, as the store shows it
		afterARotation time.Duration // since now, likewise
	}{
		{"a session of now lasts as long as the lifetimes say", 0, 0, 30 * day, 30 * day},
		{"a session from a copy whose clock is 30 s ahead lasts as long as that copy says", leeway, leeway, 30*day + leeway, 30 * day},
		{"a session that begins in a year lasts no longer than one of now", 365 * day, 365 * day, 30 * day, 30 * day},
		{"a session that was used in a year lasts no longer than one of now", 0, 365 * day, 30 * day, 30 * day},
		{"a session that was used in a year does not last beyond its maximum lifetime", -80 * day, 365 * day, 10 * day, 10 * day},
	} {
		s := Session{Generation: 5, CreatedAt: testNow.Add(test.created), LastUsedAt: testNow.Add(test.used)}
		s.ExpiresAt = s.expiry(monthLife)
		wantEqual(t, test.name+": its life", s.Within(monthLife, testNow).ExpiresAt.Sub(testNow), test.expires)
		wantErr(t, test.name+": Rotate()", s.Rotate(5, testNow, monthLife), nil)
		if got := s.ExpiresAt.Sub(testNow); s.Generation == 6 && got != test.afterARotation {
			t.Errorf("%s: after a refresh it expires after %v, want %v", test.name, got, test.afterARotation)
		}
		for now := testNow; s.Live(0, now); now = now.Add(day) {
			if age := now.Sub(testNow); age > monthLife.Max {
				t.Fatalf("%s: it lives although it is refreshed for %v since", test.name, age)
			}
			s.Rotate(s.Generation, now, monthLife)
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
		wantErr(t, step.name+": Rotate()", s.Rotate(s.Generation, testNow.Add(step.at), monthLife), nil)
		end := testNow.Add(step.expires)
		if !s.ExpiresAt.Equal(end) || !s.Live(u.Epoch, end.Add(-1)) || s.Live(u.Epoch, end) {
			t.Errorf("%s: expires at %v, live just before %v: %v, then: %v", step.name, s.ExpiresAt, end, s.Live(u.Epoch, end.Add(-1)), s.Live(u.Epoch, end))
		}
	}

	short := Lifetimes{Idle: 30 * day, Max: 10 * day}
	wantEqual(t, "the end of a session whose maximum lifetime is below the idle lifetime", NewSession(u, testNow, short).ExpiresAt, testNow.Add(10*day))
}

// TestSessionEndsWithTheEpochOfItsAccount: a password change increments the epoch of the
// account, which ends every session of an older epoch.
func TestSessionEndsWithTheEpochOfItsAccount(t *testing.T) {
	u := User{ID: 7, Epoch: 3}
	s := NewSession(u, testNow, monthLife)
	for epoch, want := range map[int64]bool{2: false, 3: true, 4: false} {
		wantEqual(t, fmt.Sprintf("Live() of a session of epoch 3 of an account of epoch %d", epoch), s.Live(epoch, testNow), want)
	}
}
