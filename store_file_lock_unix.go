//go:build unix && !aix && !solaris && !illumos

package main

import (
	"os"
	"syscall"
)

// lock locks a file against other processes until it is closed. The lock also ends with
// the process, even in a crash.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return errLocked
	}
	return err
}
