package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"
)

// This file changes accounts without a request: -import, -reset-password, -admin and
// the demo accounts.

// importAccounts copies the accounts of the file in -import into an empty store.
func (set *settings) importAccounts(ctx context.Context, store Store, stdout io.Writer) error {
	source, err := ReadFileStore(ctx, set.importFile)
	if err != nil {
		return set.bad("-import", err)
	}
	users, _ := source.Users(ctx, UserFilter{}, 0, math.MaxInt) // from memory
	set.leftBehind = "the store may have a part of the accounts"
	if err := store.Import(ctx, users, source.lastID); err != nil {
		return set.bad("-import", err)
	}
	fmt.Fprintf(stdout, "imported %d accounts\n", len(users))
	return nil
}

// resetPassword sets the password of the account in -reset-password, which ends its
// sessions, and enables it.
func (set *settings) resetPassword(ctx context.Context, store Store, stdout io.Writer) error {
	u, err := store.UserByName(ctx, set.resetName)
	if err != nil {
		return set.bad("-reset-password", fmt.Errorf("%s in %s: %w", set.resetName, set.store, err))
	}
	hash, err := hashGiven(set.newPassword, u.Username, stdout)
	if err != nil {
		return err
	}
	set.leftBehind = "the password of " + u.Username + " may have changed"
	_, err = store.UpdateUser(ctx, Caller{}, u.ID, func(u *User) error {
		u.SetPassword(hash)
		u.Disabled = false
		return nil
	})
	if err == nil {
		fmt.Fprintf(stdout, "set the password of %s; its sessions have ended\n", u.Username)
	}
	return err
}

// hashGiven hashes the operator's password or, if there is none, a generated one. That is
// shown before anything is changed: nobody could log in with a password that was lost.
func hashGiven(password, username string, stdout io.Writer) (string, error) {
	if password == "" {
		password = rand.Text()
		_, err := fmt.Fprintf(stdout, "the new password of %s is %s, shown only now\n", username, password)
		if err == nil && discards(stdout) {
			err = errors.New("standard output is discarded")
		}
		if err != nil {
			return "", fmt.Errorf("the new password of %s cannot be shown: %w", username, err)
		}
	}
	return Hasher{DefaultIterations}.Hash(password), nil
}

// createAccounts creates the accounts that the settings ask for.
func (set *settings) createAccounts(ctx context.Context, store Store, stdout io.Writer, log *slog.Logger) error {
	if set.Demo {
		for _, u := range demoUsers {
			u.CreatedAt = time.Now().UTC().Truncate(time.Second)
			if _, err := store.CreateUser(ctx, Caller{}, u); err != nil {
				return err
			}
		}
	}
	if set.adminName != "" {
		return set.createAdmin(ctx, store, stdout, log)
	}
	return nil
}

// demoUsers are the article's accounts. Their password is "secret", which is too short
// for any other account. The hashes are here because computing them would take longer
// than the rest of the start.
var demoUsers = []User{
	{Username: "johndoe", FullName: "John Doe", Email: "johndoe@example.com", Role: RoleUser,
		PasswordHash: "$pbkdf2-sha256$i=600000,l=32$wCTYlC4myfQbaqlDOdUSrw$7ElW5ggu6RMgfHStGE2PAsH0YYTxThsZ8MMOwvxoqnk"},
	{Username: "admin", FullName: "Admin User", Email: "admin@example.com", Role: RoleAdmin,
		PasswordHash: "$pbkdf2-sha256$i=600000,l=32$QMED7Cw3tivP4CeWpYQDFA$UyPh6yQ1oNfPqQNoeXG4iXWahuuOcyno5UrzeYqHu2s"},
}

// createAdmin creates the account in -admin, unless the name is taken.
func (set *settings) createAdmin(ctx context.Context, store Store, stdout io.Writer, log *slog.Logger) error {
	if u, err := store.UserByName(ctx, set.adminName); !errors.Is(err, ErrNotFound) {
		if err == nil && u.Role != RoleAdmin {
			log.Warn("the account of -admin exists, but is not an admin", "account", u.Username)
		}
		return err
	}
	hash, err := hashGiven(set.adminPassword, set.adminName, stdout)
	if err != nil {
		return err
	}
	u := User{Username: set.adminName, Role: RoleAdmin, CreatedAt: time.Now().UTC().Truncate(time.Second), PasswordHash: hash}
	_, err = store.CreateUser(ctx, Caller{}, u)
	if errors.Is(err, ErrUsernameTaken) {
		log.Warn("another copy of the server has just created the account of -admin; its password is the one of that copy", "account", u.Username)
		return nil
	}
	if err == nil {
		fmt.Fprintf(stdout, "created the admin %s and set its password\n", u.Username)
	}
	return err
}
