package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestOneMoreThreadWhileHashing: GOMAXPROCS is one more than the number of cores while
// any hash runs. It belongs to the process, so this runs in one of its own. Afterwards Go
// follows the CPU limit of its container again, unless the operator has set GOMAXPROCS.
func TestOneMoreThreadWhileHashing(t *testing.T) {
	const child = "STDAUTH_TEST_THREADS"
	if os.Getenv(child) != "" {
		threads := func() int { return runtime.GOMAXPROCS(0) }
		before := threads()
		NewPasswords(1)
		got := []int{threads() - before}
		for _, step := range []func(){hashBegins, hashBegins, hashEnds, hashEnds} {
			step()
			got = append(got, threads()-before)
		}
		fmt.Println("threads", got, followsLimit(t))
		return
	}
	for _, test := range []struct{ env, want string }{
		{"", "threads [0 1 1 1 0] true"},
		{"GOMAXPROCS=7", "threads [0 1 1 1 0] false"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneMoreThreadWhileHashing$", "-test.count=1")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=", child+"=1", test.env)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("with %q in the environment, GOMAXPROCS relative to its initial value with 0, 1, 2, 1 and 0 hashes, and whether it follows the limit: %s (%v)\nwant %s", test.env, out, err, test.want)
		}
	}
}

// followsLimit reports whether GOMAXPROCS changes when the process may use one CPU only.
func followsLimit(t *testing.T) bool {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || runtime.NumCPU() == 1 {
		t.Fatalf("%d threads (%v) on %d CPUs, want two CPUs", len(threads), err, runtime.NumCPU())
	}
	var allowed, one [128]byte
	size, set := uintptr(len(one)), uintptr(unsafe.Pointer(&one))
	if _, _, errno := syscall.Syscall(syscall.SYS_SCHED_GETAFFINITY, 0, size, uintptr(unsafe.Pointer(&allowed))); errno != 0 {
		t.Fatal(errno)
	}
	for i, b := range allowed {
		if b != 0 {
			one[i] = b & -b // its lowest bit
			break
		}
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(id), size, set); errno != 0 && errno != syscall.ESRCH {
			t.Fatal(errno)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if runtime.GOMAXPROCS(0) == 1 {
			return true
		}
	}
	return false
}
