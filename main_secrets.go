package main

import (
	"cmp"
	"errors"
	"io"
	"os"
	"strings"
	"unicode"
)

// This file reads the secrets. They come from the environment or from files, never from
// flags, because every user of a machine can see the flags of a process.

// readSecrets reads each secret X from its variable or from the file that X_FILE names.
func (set *settings) readSecrets(getenv func(string) string) error {
	read := func(name string, to *string) (err error) {
		*to = getenv(name)
		if path := getenv(name + "_FILE"); path != "" {
			if *to != "" {
				return set.bad(name+"_FILE", errors.New("cannot be set with "+name))
			}
			set.given[name] = name + "_FILE"
			*to, err = readSecret(path)
		}
		if err = cmp.Or(err, checkIf(*to, checkPasted)); err != nil {
			return set.bad(name, err)
		}
		return nil
	}
	return cmp.Or(
		read("SECRET_KEY", &set.secret),
		read("SECRET_KEY_PREVIOUS", &set.previous),
		read("ADMIN_PASSWORD", &set.adminPassword),
		read("NEW_PASSWORD", &set.newPassword),
		read("MAIL_PASSWORD", &set.Mail.Password),
		read("INTROSPECT_CLIENT", &set.introspectClient),
		read("STDAUTH_ETCD_PASSWORD", &set.etcdPassword),
	)
}

const maxSecretFile = 64 << 10 // bytes

// readSecret reads a file without the line end that most editors put at its end.
func readSecret(path string) (string, error) {
	if err := checkText(path); err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile))
	if len(content) == maxSecretFile { // perhaps a device without an end
		err = errors.New("the file is too large")
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if err == nil && secret == "" {
		err = errors.New("the file is empty")
	}
	return secret, err
}

// checkPasted refuses what editors, shells and files of variables add to a secret.
func checkPasted(secret string) error {
	last := len(secret) - 1
	switch {
	case strings.TrimSpace(secret) != secret && checkText(secret) == nil:
		return errors.New("must not begin or end with a space")
	case strings.HasPrefix(secret, "\uFEFF"):
		return errors.New("must not begin with a byte order mark")
	case last > 0 && secret[0] == secret[last] && (secret[0] == '"' || secret[0] == '\''):
		return errors.New("must not be enclosed in quotes")
	}
	return checkText(secret)
}

// checkText refuses control characters, such as the carriage return of a file that was
// written on Windows.
func checkText(value string) error {
	return must(!strings.ContainsFunc(value, unicode.IsControl), "must not contain control characters, such as a line end")
}
