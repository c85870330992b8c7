package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// A person at a terminal is told in words; everything else reads the log.
func TestTerminal(t *testing.T) {
	_, slave := openPTY(t)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		name string
		file *os.File
		want bool
	}{
		{"a terminal is one", slave, true},
		{"a file is none", file, false},
		{"the null device is none: what is written there is lost", null, false},
	} {
		if got := isTerminal(test.file); got != test.want {
			t.Errorf("%s: isTerminal(%s) = %t, want %t", test.name, test.file.Name(), got, test.want)
		}
	}
}

// openPTY opens a pseudo-terminal: what is written to slave is read from master.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var lock, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &lock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatalf("ioctl %#x: %v", request, errno)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
