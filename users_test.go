package main

import (
	"fmt"
	"strings"
	"testing"
)

// The rules for the values that people choose: username, password, email, full name
// and role.

func TestUsernameRules(t *testing.T) {
	const rule = "must be 1 to 64 of ASCII letters, digits and @ . + - _"
	checkValues(t, checkUsername, []valueRule{
		{"the username of the article is accepted", "johndoe", ""},
		{"capital letters are accepted", "JohnDoe", ""},
		{"the first and last letters and digits are accepted", "azAZ09", ""},
		{"an email address is accepted", "john.doe+test@example-site.com", ""},
		{"every allowed punctuation is accepted", "@.+-_", ""},
		{"a username of one character is accepted", "j", ""},
		{"a username of 64 characters is accepted", strings.Repeat("j", 64), ""},

		{"an empty username is refused", "", rule},
		{"a username of 65 characters is refused", strings.Repeat("j", 65), rule},
		{"a space is refused", "john doe", rule},
		{"a space at the end is refused", "johndoe ", rule},
		{"a Cyrillic letter that looks like a Latin one is refused", "jоhndoe", rule}, // Cyrillic о
		{"a letter with an accent is refused", "jöhndoe", rule},
		{"NUL is refused", "johndoe\x00", rule},
		{"a line break is refused", "johndoe\n", rule},
		{"invalid UTF-8 is refused", "john\xffdoe", rule},
		{"an opening bracket after @, the character before A, is refused", "@[", rule},
		{"an opening bracket, the character after Z, is refused", "Z[", rule},
		{"a backquote, the character before a, is refused", "a`", rule},
		{"an opening brace, the character after z, is refused", "z{", rule},
		{"a slash, the character before 0, is refused", "0/", rule},
		{"a colon, the character after 9, is refused", "9:", rule},
	})
}

func TestNamesAreFoldedInASCIIOnly(t *testing.T) {
	for name, want := range map[string]string{
		"JohnDOE": "johndoe", "A.b+C-d_E@1": "a.b+c-d_e@1", "@[Z`{": "@[z`{",
		"adm\u0130n": "adm\u0130n", "\u212A": "\u212A", "ÄÖÜ": "ÄÖÜ",
	} {
		wantEqual(t, "foldName("+name+")", foldName(name), want)
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
	checkValues(t, func(password string) error { return checkPassword(password, "john.doe") }, []valueRule{
		{"the password of the article is accepted", "newpassword", ""},
		{"a password of 8 characters is accepted", "8 signs.", ""},
		{"a password of 8 characters of two bytes is accepted", "öäüßÖÄÜé", ""},
		{"a password of 1024 bytes is accepted", strings.Repeat("p", 1024), ""},
		{"any characters are accepted", "\t \U0001F511 'or 1=1--", ""},
		{"a part of the username is accepted", "john.do-correct", ""},

		{"an empty password is refused", "", short},
		{"a password of 7 characters is refused", "7 signs", short},
		{"a password of 7 characters in 14 bytes is refused", "öäüßÖÄÜ", short},
		{"a password of 1025 bytes is refused", strings.Repeat("p", 1025), long},
		{"NUL at the end is refused", "8 bytes.\x00", text},
		{"invalid UTF-8 is refused", "8 bytes.\xff", text},
		{"U+FFFD, which replaces invalid characters, is refused", "8 bytes.\uFFFD", text},
		{"the username is refused", "john.doe", name},
		{"the username in another case is refused", "JOHN.doe", name},
		{"a password that contains the username is refused", "my john.doe 1", name},
		{"the most common password is refused", "password", common},
		{"a common password in another case is refused", "PassWord1", common},
		{"a row of digits is refused", "12345678", common},
		{"a less common password on the list is refused", "iloveyou1", common},
	})
	wantEqual(t, "checkPassword(admin) of admin", said(checkPassword("admin", "admin")), short)
	// A username of 3 characters occurs in many good passwords.
	for username, want := range map[string]string{"hors": name, "hor": ""} {
		wantEqual(t, "checkPassword(correct horse) of "+username, said(checkPassword("correct horse", username)), want)
	}
}

// TestCommonPasswordsAreRefusedByTheListAlone: a password on the list that another rule
// refuses, or that is not in lower case, would be useless there.
func TestCommonPasswordsAreRefusedByTheListAlone(t *testing.T) {
	wantEqual(t, "the length of the list", len(commonPasswords()), 3000)
	for password := range commonPasswords() {
		wantEqual(t, password, said(checkPassword(password, "")), "is one of the most common passwords")
	}
}

func TestEmailRules(t *testing.T) {
	const rule = "must be one email address of at most 254 bytes"
	local := strings.Repeat("a", 50) + "@"
	checkValues(t, checkEmail, []valueRule{
		{"an email address is accepted", "johndoe@example.com", ""},
		{"a tag and dots are accepted", "john.doe+tag@mail.example.com", ""},
		{"an address of localhost is accepted", "john@localhost", ""},
		{"an address of 254 bytes is accepted", local + strings.Repeat("a", 254-len(local)), ""},

		{"an address of 255 bytes is refused", local + strings.Repeat("a", 255-len(local)), rule},
		{"an empty address is refused", "", rule},
		{"an address without an @ is refused", "johndoe", rule},
		{"an address without a host is refused", "johndoe@", rule},
		{"an address without a local part is refused", "@example.com", rule},
		{"two addresses are refused", "john@example.com, jane@example.com", rule},
		{"a display name is refused", "John <john@example.com>", rule},
		{"angle brackets are refused", "<john@example.com>", rule},
		{"a comment is refused", "john@example.com (John)", rule},
		{"a leading space is refused", " john@example.com", rule},
		{"a line break at the end is refused", "john@example.com\r\n", rule},
		{"a header after the address is refused", "john@example.com\r\nBcc: all@example.com", rule},
		{"NUL is refused", "john@example.com\x00", rule},
		{"a control character beyond ASCII is refused", "jo\u009bhn@example.com", rule},
		{"a line separator is refused", "jo\u2028hn@example.com", rule},
		{"a direction override is refused", "jo\u202ehn@example.com", rule},
	})
}

func TestFullNameRules(t *testing.T) {
	const (
		size   = "must be at most 200 characters long"
		spaces = "must not be only spaces"
		text   = "must be text without control characters"
	)
	checkValues(t, checkFullName, []valueRule{
		{"a full name is accepted", "John Doe", ""},
		{"a full name of any script is accepted", "Πάτροκλος 山田 O’Neil-Śmigły", ""},
		{"a full name written from right to left is accepted", "\u05d3\u05d5\u05d3", ""},
		{"a full name of 200 characters is accepted", strings.Repeat("ö", 200), ""},
		{"an empty full name is accepted", "", ""},

		{"a full name of 201 characters is refused", strings.Repeat("o", 201), size},
		{"a space alone is refused", " ", spaces},
		{"spaces beyond ASCII alone are refused", "\u00a0\u3000", spaces},
		{"a line break is refused", "John\nDoe", text},
		{"NUL is refused", "John\x00Doe", text},
		{"an escape sequence of a terminal is refused", "\x1b[2JJohn", text},
		{"the first control character beyond ASCII is refused", "John\u0080Doe", text},
		{"the control character NEL is refused", "John\u0085Doe", text},
		{"the control character CSI is refused", "John\u009bDoe", text},
		{"a line separator is refused", "John\u2028Doe", text},
		{"a paragraph separator is refused", "John\u2029Doe", text},
		{"the first direction override is refused", "John\u202aDoe", text},
		{"the last direction override is refused", "John\u202eDoe", text},
		{"the first direction isolate is refused", "John\u2066Doe", text},
		{"the last direction isolate is refused", "John\u2069Doe", text},
		{"invalid UTF-8 is refused", "John\xffDoe", text},
	})
}

func TestRoleRules(t *testing.T) {
	const rule = `must be "user" or "admin"`
	for role, want := range map[Role]string{"user": "", "admin": "", "": rule, "Admin": rule, "root": rule, "admin ": rule} {
		wantEqual(t, fmt.Sprintf("checkRole(%q)", role), said(checkRole(role)), want)
	}
}

// A valueRule is a value and what is wrong with it, or "".
type valueRule struct{ name, value, want string }

func checkValues(t *testing.T, check func(string) error, rules []valueRule) {
	t.Helper()
	for _, test := range rules {
		wantEqual(t, fmt.Sprintf("%s: %q", test.name, test.value), said(check(test.value)), test.want)
	}
}

// said returns the text of the error of a rule, or "".
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
