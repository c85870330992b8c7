package main

import (
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// lock locks a file against other processes until it is closed. Windows closes it with
// the process, even in a crash. A locked byte cannot be read by others, so this is one
// behind the end of any file.
func lock(f *os.File) error {
	const failImmediately, exclusive, lockViolation = 1, 2, syscall.Errno(33)
	at := syscall.Overlapped{OffsetHigh: 1 << 30}
	ok, _, err := lockFileEx.Call(f.Fd(), failImmediately|exclusive, 0, 1, 0, uintptr(unsafe.Pointer(&at)))
	if ok == 0 && err == lockViolation {
		return errLocked
	}
	if ok == 0 {
		return err
	}
	return nil
}
