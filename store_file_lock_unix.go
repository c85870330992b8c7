//go:build unix && !aix && !solaris && !illumos

package main

import (
	"os"
	"syscall"
)

// lockFile opens a file, creating it if absent, and locks it for this process. The lock
// ends with the process, even in a crash. A link in its place is refused.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, errLocked
		}
		return nil, err
	}
	return f, nil
}
