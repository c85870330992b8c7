//go:build unix

package main

import "syscall"

// descriptors returns how many file descriptors the process may have. Go has raised the
// limit as far as the system allows (package os).
func descriptors() uint64 {
	var rlimit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &rlimit) != nil {
		return 256 // the lowest limit in use
	}
	return uint64(rlimit.Cur)
}
