// Command growth runs the same changes on the file store of stdauth, on SQLite and on
// bbolt, and prints what they took. BenchmarkStores in the folder above builds it, with
// the files of the store beside these, and starts it for each store and size.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A bank keeps accounts and their sessions. A method that returns nil has synced its
// change to the disk.
type bank interface {
	register(name string) (id int64, err error)
	refresh(id int64, session string) error
	remove(id int64) error
	close() error
}

// A maker fills a folder with accounts 1 to n, each with the session sessionOf, or opens
// what is in the folder.
type maker struct {
	fill func(dir string, n int) error
	open func(dir string, clients int) (bank, error)
}

var makers = map[string]maker{}

func sessionOf(id int64) string { return fmt.Sprintf("SESSION%019d", id) }

const (
	hash     = "$pbkdf2-sha256$i=600000,l=32$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	agent    = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
	idle     = 30 * 24 * time.Hour
	lifetime = 90 * 24 * time.Hour
)

// A result has the figures of one run.
type result struct {
	Start, P50, P99, P999, Worst float64 // ms
	Rate                         float64 // changes a second
	Disk, Memory                 float64 // MB
}

func main() {
	store := flag.String("store", "", "which store")
	dir := flag.String("dir", "", "its folder")
	accounts := flag.Int("accounts", 1000, "how many accounts the folder has")
	clients := flag.Int("clients", 1, "how many clients make changes at once")
	duration := flag.Duration("for", 3*time.Second, "how long; 0 fills the folder instead")
	flag.Parse()
	m := makers[*store]
	if *duration == 0 {
		if err := m.fill(*dir, *accounts); err != nil {
			log.Fatal(err)
		}
		return
	}
	start := time.Now()
	b, err := m.open(*dir, *clients)
	if err == nil {
		err = b.refresh(1, sessionOf(1))
	}
	if err != nil {
		log.Fatal(err)
	}
	r := result{Start: ms(time.Since(start))}
	took := work(b, int64(*accounts), *clients, *duration)
	slices.Sort(took)
	at := func(share float64) float64 { return ms(took[int(share*float64(len(took)-1))]) }
	r.P50, r.P99, r.P999, r.Worst = at(0.5), at(0.99), at(0.999), at(1)
	r.Rate = float64(len(took)) / duration.Seconds()
	r.Disk, r.Memory = size(*dir), resident()
	if err := b.close(); err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// work makes changes: of ten, eight refreshes, a registration and the deletion of an
// account.
func work(b bank, accounts int64, clients int, duration time.Duration) (all []time.Duration) {
	var mu sync.Mutex
	var done sync.WaitGroup
	end := time.Now().Add(duration)
	for client := range int64(clients) {
		done.Go(func() {
			var took []time.Duration
			var made []int64
			rng := rand.New(rand.NewPCG(uint64(client), uint64(os.Getpid())))
			for n := 0; time.Now().Before(end); n++ {
				mine := 1 + client + int64(clients)*rng.Int64N(accounts/int64(clients)) // no other client's
				start := time.Now()
				var err error
				switch {
				case n%10 == 0:
					var id int64
					id, err = b.register(fmt.Sprintf("new.%d.%d.%d", os.Getpid(), client, n))
					made = append(made, id)
				case n%10 == 5:
					err = b.remove(made[len(made)-1])
					made = made[:len(made)-1]
				default:
					err = b.refresh(mine, sessionOf(mine))
				}
				if err != nil {
					log.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	done.Wait()
	return all
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// size returns the size of all files of a folder in MB.
func size(dir string) (mb float64) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			mb += float64(info.Size()) / 1e6
		}
		return err
	})
	return mb
}

// resident returns the largest resident memory of this process so far in MB.
func resident() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0 // only Linux has it
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb / 1000
}
