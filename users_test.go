package main

import (
	"strings"
	"testing"
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
