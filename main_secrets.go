package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"unicode"
)

// This file reads secrets. They come from the environment or from files, never from
// flags, because every user of a machine can see the flags of a process.

// readSecret returns the secret X from its variable or from the file that X_FILE names,
// and which of the two has it.
func readSecret(name string, getenv func(string) string) (secret, from string, err error) {
	secret, from = getenv(name), name
	if path := getenv(name + "_FILE"); path != "" {
		from = name + "_FILE"
		if secret != "" {
			return "", from, errors.New("cannot be set with " + name)
		}
		if secret, err = readSecretFile(path); err != nil {
			return "", from, err
		}
	}
	return secret, from, checkPasted(secret)
}

const maxSecretFile = 64 << 10 // bytes

// readSecretFile reads a file without the line end that most editors put at its end.
func readSecretFile(path string) (string, error) {
	if err := checkText(path); err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile))
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case len(content) == maxSecretFile: // perhaps a device without an end
		err = errors.New("the file is too large")
	case err == nil && secret == "":
		err = errors.New("the file is empty")
	}
	return secret, err
}

// checkPasted refuses what editors, shells and files of variables add to a secret.
func checkPasted(secret string) error {
	if err := checkText(secret); err != nil {
		return err
	}
	last := len(secret) - 1
	switch {
	case strings.TrimSpace(secret) != secret:
		return errors.New("must not begin or end with a space")
	case strings.HasPrefix(secret, "\uFEFF"):
		return errors.New("must not begin with a byte order mark")
	case last > 0 && secret[0] == secret[last] && (secret[0] == '"' || secret[0] == '\''):
		return errors.New("must not be enclosed in quotes")
	}
	return nil
}

// checkText refuses control characters, such as the carriage return of a file that was
// written on Windows.
func checkText(value string) error {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("must not contain control characters, such as a line end")
	}
	return nil
}
