package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The rules for what people may choose, and the life of a session.

// said returns what a rule says is wrong, or "".
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

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
		if got := said(checkUsername(test.username)); got != test.want {
			t.Errorf("%s: checkUsername(%q) = %q, want %q", test.name, test.username, got, test.want)
		}
	}
}

func TestNamesAreFoldedInASCIIOnly(t *testing.T) {
	for name, want := range map[string]string{
		"JohnDOE": "johndoe", "A.b+C-d_E@1": "a.b+c-d_e@1", "@[Z`{": "@[z`{",
		"adm\u0130n": "adm\u0130n", "\u212A": "\u212A", "ÄÖÜ": "ÄÖÜ",
	} {
		if got := foldName(name); got != want {
			t.Errorf("foldName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPasswordRules(t *testing.T) {
	const (
		short  = "must be at least 8 characters long"
		long   = "must be at most 1024 bytes long"
		text   = "must be valid UTF-8 without NUL and U+FFFD"
		name   = "must not contain the username"
		common = "is one of the most common passwords"
	)
	for _, test := range []struct {
		name, password, want string
	}{
		{"the article's", "newpassword", ""},
		{"8 characters", "8 signs.", ""},
		{"8 characters of two bytes", "öäüßÖÄÜé", ""},
		{"1024 bytes", strings.Repeat("p", 1024), ""},
		{"any characters", "\t \U0001F511 'or 1=1--", ""},
		{"a part of the username", "john.do-correct", ""},

		{"nothing", "", short},
		{"7 characters", "7 signs", short},
		{"7 characters in 14 bytes", "öäüßÖÄÜ", short},
		{"1025 bytes", strings.Repeat("p", 1025), long},
		{"a NUL at the end", "8 bytes.\x00", text},
		{"invalid UTF-8", "8 bytes.\xff", text},
		{"U+FFFD, which stands for what could not be read", "8 bytes.\uFFFD", text},
		{"the username", "john.doe", name},
		{"the username in another case", "JOHN.doe", name},
		{"the username and more", "my john.doe 1", name},
		{"the most common one", "password", common},
		{"a common one in another case", "PassWord1", common},
		{"a row of digits", "12345678", common},
		{"a common one of the second thousand", "iloveyou1", common},
	} {
		if got := said(checkPassword(test.password, "john.doe")); got != test.want {
			t.Errorf("%s: checkPassword(%q) = %q, want %q", test.name, test.password, got, test.want)
		}
	}
	// A short name is in many good passwords.
	for username, want := range map[string]string{"hors": name, "hor": ""} {
		if got := said(checkPassword("correct horse", username)); got != want {
			t.Errorf("checkPassword(correct horse) of %q = %q, want %q", username, got, want)
		}
	}
}

// A password that another rule refuses, or that is not in lower case, would be in
// the list for nothing.
func TestCommonPasswordsAreRefusedByTheListAlone(t *testing.T) {
	if n := len(commonPasswords()); n != 3000 {
		t.Errorf("the list has %d passwords, want 3000", n)
	}
	for password := range commonPasswords() {
		if got := said(checkPassword(password, "")); got != "is one of the most common passwords" {
			t.Errorf("checkPassword(%q) = %q, want it refused as common", password, got)
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
		{"a control character beyond ASCII", "jo\u009bhn@example.com", rule},
		{"a line separator", "jo\u2028hn@example.com", rule},
		{"a character that overrides the direction of text", "jo\u202ehn@example.com", rule},
	} {
		if got := said(checkEmail(test.email)); got != test.want {
			t.Errorf("%s: checkEmail(%q) = %q, want %q", test.name, test.email, got, test.want)
		}
	}
}

func TestFullNameRules(t *testing.T) {
	const (
		size   = "must be at most 200 characters long"
		spaces = "must not be only spaces"
		text   = "must be text without control characters"
	)
	for _, test := range []struct {
		name, fullName, want string
	}{
		{"a name", "John Doe", ""},
		{"a name of any script", "Πάτροκλος 山田 O’Neil-Śmigły", ""},
		{"a name written from right to left", "\u05d3\u05d5\u05d3", ""},
		{"200 characters", strings.Repeat("ö", 200), ""},
		{"none", "", ""},

		{"201 characters", strings.Repeat("o", 201), size},
		{"a space", " ", spaces},
		{"spaces of other kinds", "\u00a0\u3000", spaces},
		{"a line break", "John\nDoe", text},
		{"a NUL", "John\x00Doe", text},
		{"an escape, as terminals obey", "\x1b[2JJohn", text},
		{"the first control character beyond ASCII", "John\u0080Doe", text},
		{"NEL", "John\u0085Doe", text},
		{"CSI", "John\u009bDoe", text},
		{"a line separator", "John\u2028Doe", text},
		{"a paragraph separator", "John\u2029Doe", text},
		{"the first override of direction", "John\u202aDoe", text},
		{"the last override of direction", "John\u202eDoe", text},
		{"the first isolate", "John\u2066Doe", text},
		{"the last isolate", "John\u2069Doe", text},
		{"invalid UTF-8", "John\xffDoe", text},
	} {
		if got := said(checkFullName(test.fullName)); got != test.want {
			t.Errorf("%s: checkFullName(%q) = %q, want %q", test.name, test.fullName, got, test.want)
		}
	}
}

func TestRoleRules(t *testing.T) {
	const rule = `must be "user" or "admin"`
	for role, want := range map[Role]string{"user": "", "admin": "", "": rule, "Admin": rule, "root": rule, "admin ": rule} {
		if got := said(checkRole(role)); got != want {
			t.Errorf("checkRole(%q) = %q, want %q", role, got, want)
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
