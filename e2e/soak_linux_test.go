package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

var soakFor = flag.Duration("soak", 4*time.Second, "duration of the soak test")

// TestSoak: the clients of the tests of linearizability use a file store for the duration
// in -soak. In the first half the server is killed (kill -9) and started again and again,
// and in the second half it runs on. All acknowledged changes must stay, and at the end
// the server must have no more memory, goroutines and open files than in the middle.
//
//	go -C e2e test -v -run TestSoak -soak 3m
func TestSoak(t *testing.T) {
	tr := startFileTrial(t, *soakFor)
	var middle, end usage
	tr.run([]plan{oneAccount, oneAccount, oneAccount, patient}, 4, func(rnd *rand.Rand) {
		switch now := tr.now(); {
		case now < *soakFor/2:
			tr.crash(rnd, func() {})
		case now < *soakFor*5/8:
			tr.sleep(rnd, *soakFor/20) // caches and pools fill
		case middle == usage{}:
			middle = measure(t, tr.copies[0].Load())
		default:
			tr.sleep(rnd, *soakFor/20)
			end = measure(t, tr.copies[0].Load())
		}
	})
	tr.report()
	if len(tr.crashes) == 0 {
		t.Error("the server was never killed")
	}
	t.Logf("%d kills\n%-12s %8s %8s", len(tr.crashes), "", "middle", "end")
	for _, row := range []struct {
		what             string
		middle, end, may int // the allowed growth
	}{
		{"RSS, KB", middle.rss, end.rss, middle.rss/4 + 8<<10},
		{"heap, KB", middle.heap, end.heap, middle.heap/4 + 4<<10}, // the accounts stay
		{"goroutines", middle.goroutines, end.goroutines, 20},
		{"open files", middle.files, end.files, 20},
	} {
		t.Logf("%-12s %8d %8d", row.what, row.middle, row.end)
		if row.middle == 0 || row.end == 0 || row.end > row.middle+row.may {
			t.Errorf("%s: %d in the middle and %d at the end, want some and no growth", row.what, row.middle, row.end)
		}
	}
}

// usage has the resources of the process of a server.
type usage struct{ rss, heap, goroutines, files int }

var (
	residentSize    = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)
	heapInUse       = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`)
	totalGoroutines = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

// measure returns the usage after a garbage collection.
func measure(t testing.TB, c *clusterCopy) usage {
	t.Helper()
	number := func(from *regexp.Regexp, text []byte) int {
		found := from.FindSubmatch(text)
		if found == nil {
			t.Fatalf("%v is not in\n%s", from, text)
		}
		n, _ := strconv.Atoi(string(found[1]))
		return n
	}
	profile := func(name string) []byte {
		resp, err := http.Get(debugURL(t, &c.stderr) + "/debug/pprof/" + name)
		etcdMust(t, err)
		return readAll(t, resp, http.StatusOK)
	}
	heap := profile("heap?gc=1&debug=1")
	process := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	status, err := os.ReadFile(process + "status")
	etcdMust(t, err)
	files, err := os.ReadDir(process + "fd")
	etcdMust(t, err)
	return usage{number(residentSize, status), number(heapInUse, heap) >> 10, number(totalGoroutines, profile("goroutine?debug=1")), len(files)}
}
