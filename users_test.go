package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The rules for what people may choose, and the life of a session.

func TestUsernameRules(t *testing.T) {
	const rule = "must be 1 to 64 of ASCII letters, digits and @ . + - _"
	for _, test := range []struct {
		name, username, want string
	}{
		{"the article's", "johndoe", ""},
		{"capitals", "JohnDoe", ""},
		{"the ends of the alphabet", "azAZ09", ""},
		{"an email address", "john.doe+test@example-site.com", ""},
		{"every sign", "@.+-_", ""},
		{"one character", "j", ""},
		{"64 characters", strings.Repeat("j", 64), ""},

		{"nothing", "", rule},
		{"65 characters", strings.Repeat("j", 65), rule},
		{"a space", "john doe", rule},
		{"a space at the end", "johndoe ", rule},
		{"a letter that looks like another", "jоhndoe", rule}, // Cyrillic о
		{"a letter with an accent", "jöhndoe", rule},
		{"a NUL", "johndoe\x00", rule},
		{"a line break", "johndoe\n", rule},
		{"invalid UTF-8", "john\xffdoe", rule},
		{"a slash", "john/doe", rule},
		{"a quote", `john"doe`, rule},
		{"a percent sign", "john%20doe", rule},
		{"before A", "@[", rule},
		{"beyond Z", "Z[", rule},
		{"before a", "a`", rule},
		{"beyond z", "z{", rule},
		{"before 0", "0/", rule},
		{"beyond 9", "9:", rule},
	} {
		if got := usernameProblem(test.username); got != test.want {
			t.Errorf("%s: usernameProblem(%q) = %q, want %q", test.name, test.username, got, test.want)
		}
	}
}

func TestPasswordRules(t *testing.T) {
	const (
		size   = "must be 8 to 1024 bytes long"
		text   = "must be valid UTF-8 without NUL"
		name   = "must not be the username"
		common = "is one of the most common passwords"
	)
	for _, test := range []struct {
		name, password, want string
	}{
		{"the article's", "newpassword", ""},
		{"8 bytes", "8 bytes.", ""},
		{"8 bytes in 4 characters", "öäüß", ""},
		{"1024 bytes", strings.Repeat("p", 1024), ""},
		{"any characters", "\t \U0001F511 'or 1=1--", ""},
		{"the username and more", "john.doe1", ""},

		{"nothing", "", size},
		{"7 bytes", "7 bytes", size},
		{"1025 bytes", strings.Repeat("p", 1025), size},
		{"a NUL at the end", "8 bytes.\x00", text},
		{"invalid UTF-8", "8 bytes.\xff", text},
		{"the username", "john.doe", name},
		{"the username in another case", "JOHN.doe", name},
		{"the first that everybody tries", "password", common},
		{"a common one in another case", "PassWord1", common},
		{"a row of digits", "12345678", common},
		{"the last of the list", "secret123", common},
	} {
		if got := passwordProblem(test.password, "john.doe"); got != test.want {
			t.Errorf("%s: passwordProblem(%q) = %q, want %q", test.name, test.password, got, test.want)
		}
	}
}

// A password that the list holds in vain, because another rule refuses it or
// because passwords are compared in lower case, would be a line too much.
func TestCommonPasswordsAreRefusedByTheListAlone(t *testing.T) {
	for _, password := range commonPasswords {
		if got := passwordProblem(password, "x"); got != "is one of the most common passwords" {
			t.Errorf("passwordProblem(%q) = %q, want it refused as common", password, got)
		}
	}
}

func TestEmailRules(t *testing.T) {
	const rule = "must be one email address of at most 254 bytes"
	local := strings.Repeat("a", 50) + "@"
	for _, test := range []struct {
		name, email, want string
	}{
		{"an address", "johndoe@example.com", ""},
		{"a tag and dots", "john.doe+tag@mail.example.com", ""},
		{"an address of this host", "john@localhost", ""},
		{"254 bytes", local + strings.Repeat("a", 254-len(local)), ""},

		{"255 bytes", local + strings.Repeat("a", 255-len(local)), rule},
		{"nothing", "", rule},
		{"no @", "johndoe", rule},
		{"no host", "johndoe@", rule},
		{"no name", "@example.com", rule},
		{"two addresses", "john@example.com, jane@example.com", rule},
		{"a name before it", "John <john@example.com>", rule},
		{"angle brackets", "<john@example.com>", rule},
		{"a comment", "john@example.com (John)", rule},
		{"a space before it", " john@example.com", rule},
		{"a line break behind it", "john@example.com\r\n", rule},
		{"a header behind it", "john@example.com\r\nBcc: all@example.com", rule},
		{"a NUL", "john@example.com\x00", rule},
	} {
		if got := emailProblem(test.email); got != test.want {
			t.Errorf("%s: emailProblem(%q) = %q, want %q", test.name, test.email, got, test.want)
		}
	}
}

func TestFullNameRules(t *testing.T) {
	const rule = "must be at most 200 characters without control characters"
	for _, test := range []struct {
		name, fullName, want string
	}{
		{"a name", "John Doe", ""},
		{"a name of any script", "Πάτροκλος 山田 O’Neil-Śmigły", ""},
		{"200 characters", strings.Repeat("ö", 200), ""},

		{"201 characters", strings.Repeat("o", 201), rule},
		{"a line break", "John\nDoe", rule},
		{"a NUL", "John\x00Doe", rule},
		{"an escape, as terminals obey", "\x1b[2JJohn", rule},
		{"a control character beyond ASCII", "John\u0085Doe", rule},
		{"invalid UTF-8", "John\xffDoe", rule},
	} {
		if got := fullNameProblem(test.fullName); got != test.want {
			t.Errorf("%s: fullNameProblem(%q) = %q, want %q", test.name, test.fullName, got, test.want)
		}
	}
}

func TestRoleRules(t *testing.T) {
	const rule = `must be "user" or "admin"`
	for role, want := range map[Role]string{"user": "", "admin": "", "": rule, "Admin": rule, "root": rule, "admin ": rule} {
		if got := roleProblem(role); got != want {
			t.Errorf("roleProblem(%q) = %q, want %q", role, got, want)
		}
	}
}

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
	// 128 bits or more, of 5 a letter: nobody guesses one.
	if other := NewSession(u, testNow, monthLife); len(got.ID) < 26 || other.ID == got.ID {
		t.Errorf("NewSession() twice has the ids %q and %q", got.ID, other.ID)
	}
}

// Each row presents the refresh token of some generation to a session that is at
// generation 5 since its last rotation.
func TestRotate(t *testing.T) {
	for _, test := range []struct {
		name           string
		generation     int64
		after          time.Duration // since the last rotation
		err            error
		wantGeneration int64
		moved          bool // the session is prolonged
	}{
		{"the current token moves the session on", 5, time.Hour, nil, 6, true},
		{"the current token does so at once, too", 5, 0, nil, 6, true},
		{"the token before it gets the same successor", 4, 0, nil, 5, false},
		{"and for almost ten seconds", 4, 10*time.Second - 1, nil, 5, false},
		{"even if the clock was set back", 4, -time.Minute, nil, 5, false},

		{"the token before it is a replay after ten seconds", 4, 10 * time.Second, ErrReplayed, 5, false},
		{"the token before it is a replay after an hour", 4, time.Hour, ErrReplayed, 5, false},
		{"an older token is a replay at once", 3, 0, ErrReplayed, 5, false},
		{"the first token is a replay", 1, time.Second, ErrReplayed, 5, false},
		{"a token that is yet to come is of a store since lost", 6, 0, ErrNotFound, 5, false},
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

// Two tabs and a lost answer: the grace is for one step back, and starts anew
// with each rotation.
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
		{2, 3 * time.Second, nil, 3}, // goes on with what both were given
		{2, 12 * time.Second, nil, 3},
		{1, 12 * time.Second, ErrReplayed, 3}, // two steps back
		{2, 13 * time.Second, ErrReplayed, 3}, // its ten seconds are over
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
		{"a refresh prolongs the session", 10 * day, 40 * day},
		{"and once more", 35 * day, 65 * day},
		{"up to its greatest age", 60 * day, 90 * day},
		{"and no further", 80 * day, 90 * day},
		{"to the last moment", 90*day - time.Second, 90 * day},
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
		t.Errorf("NewSession() with a greatest age below the idle time expires at %v, want %v", got, want)
	}
}

// A change of password raises the account's epoch, and with it ends every
// session of an older one.
func TestSessionEndsWithTheEpochOfItsAccount(t *testing.T) {
	u := User{ID: 7, Epoch: 3}
	s := NewSession(u, testNow, monthLife)
	for epoch, want := range map[int64]bool{2: false, 3: true, 4: false} {
		u.Epoch = epoch
		if got := s.Live(u.Epoch, testNow); got != want {
			t.Errorf("Live() of a session of epoch 3 with the account at %d = %v, want %v", epoch, got, want)
		}
	}
}
