package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	growthSizes   = flag.String("growth.accounts", "1000", "the sizes of BenchmarkStores, separated by commas")
	growthTime    = flag.Duration("growth.time", 3*time.Second, "how long each store makes changes")
	growthClients = []int{1, 64}
)

// BenchmarkStores compares the file store with SQLite and bbolt: the same registrations,
// refreshes and deletions on each, by programs that sync every change. The folder growth
// has them. It needs a C compiler, for SQLite.
func BenchmarkStores(b *testing.B) {
	program := buildGrowth(b)
	for size := range strings.SplitSeq(*growthSizes, ",") {
		for _, store := range []string{"stdauth", "SQLite", "bbolt"} {
			for _, clients := range growthClients {
				b.Run(fmt.Sprintf("accounts=%s/%s/clients=%d", size, store, clients), func(b *testing.B) {
					dir := b.TempDir()
					run := func(duration time.Duration) []byte {
						cmd := exec.CommandContext(b.Context(), program, "-store", store, "-dir", dir, "-accounts", size, "-clients", fmt.Sprint(clients), "-for", duration.String())
						cmd.Stderr = os.Stderr
						out, err := cmd.Output()
						if err != nil {
							b.Fatal(err)
						}
						return out
					}
					run(0) // fills the folder
					var figures map[string]float64
					for b.Loop() {
						if err := json.Unmarshal(run(*growthTime), &figures); err != nil {
							b.Fatal(err)
						}
					}
					for unit, name := range map[string]string{
						"changes/s": "Rate", "ms-p50": "P50", "ms-p99": "P99", "ms-p999": "P999", "ms-worst": "Worst", "ms-start": "Start", "MB-disk": "Disk", "MB-memory": "Memory",
					} {
						b.ReportMetric(figures[name], unit)
					}
				})
			}
		}
	}
}

// buildGrowth compiles the program with the files of the store, which are in another
// module, as if they were beside it.
func buildGrowth(b *testing.B) (program string) {
	b.Helper()
	replace := map[string]string{}
	for _, pattern := range []string{"users.go", "users_common_passwords.txt", "sessions.go", "store.go", "store_change.go", "store_memory.go", "store_file*.go"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil || len(files) == 0 {
			b.Fatalf("no file is named %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			from, err := filepath.Abs(file)
			if err != nil {
				b.Fatal(err)
			}
			to, err := filepath.Abs(filepath.Join("growth", filepath.Base(file)))
			if err != nil {
				b.Fatal(err)
			}
			replace[to] = from
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		b.Fatal(err)
	}
	program = filepath.Join(dir, "growth")
	build := exec.Command("go", "build", "-tags", "ours", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./growth")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}
