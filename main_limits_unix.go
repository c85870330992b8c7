//go:build unix

package main

import "syscall"

// maxConnections returns how many connections the server may have: three quarters of
// the descriptors of the process, which leaves some for the store and for proxies of the
// operator. Go has raised the limit as far as the system allows (package os).
func maxConnections() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 192 // of 256, the lowest limit in use
	}
	return int(min(uint64(limit.Cur)/4*3, mostConnections))
}
