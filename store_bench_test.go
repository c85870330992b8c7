package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// The disk decides what a change costs, and no two disks are alike. So these
// benchmarks measure a bare equivalent in the same run, and report the ratio.

// The cost of a registration's write does not depend on how many there were.
func BenchmarkCreateUser(b *testing.B) {
	for _, accounts := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("file/accounts=%d", accounts), func(b *testing.B) {
			s := openFile(b, storePath(b))
			fill(b, s, accounts)
			n := 0
			for b.Loop() {
				n++
				s.create(newUser(fmt.Sprintf("new%d", n)))
			}
			reportRaw(b)
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, kind := range storeKinds {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", kind.name, clients), func(b *testing.B) {
				s := kind.open(b)
				all := fill(b, s, 1_000)
				for i := range all {
					all[i] = s.login(User{ID: all[i].UserID})
				}
				procs := runtime.GOMAXPROCS(0)
				b.SetParallelism(max(1, clients/procs))
				var client atomic.Int64
				refresh := func(mine Session) Session {
					renewed, _, err := s.UpdateSession(b.Context(), mine.UserID, mine.ID, func(s *Session, _ User) error {
						return s.Rotate(s.Generation, time.Now(), testLife)
					})
					if err != nil {
						b.Error(err)
					}
					return renewed
				}
				b.ReportAllocs()
				if clients == 1 {
					for b.Loop() {
						all[0] = refresh(all[0])
					}
				} else {
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						mine := all[int(client.Add(1))%len(all)]
						for pb.Next() {
							mine = refresh(mine)
						}
					})
				}
				if kind.name == "file" {
					reportRaw(b)
				}
			})
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for _, kind := range storeKinds {
		b.Run(kind.name+"/accounts=100000", func(b *testing.B) {
			s := kind.open(b)
			all := fill(b, s, 100_000)
			rng := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for b.Loop() {
				want := &all[rng.IntN(len(all))]
				if _, u, err := s.Session(b.Context(), want.UserID, want.ID); err != nil || u.ID != want.UserID {
					b.Fatalf("Session(%d, %s) = %d, %v", want.UserID, want.ID, u.ID, err)
				}
			}
		})
	}
}

// Opening a store beside reading the same lines with encoding/json alone.
func BenchmarkOpenFileStore(b *testing.B) {
	const accounts = 100_000
	s := openFile(b, storePath(b))
	fill(b, s, accounts)
	s.close()
	text := s.bytes()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		f, err := OpenFileStore(b.Context(), s.path, testLife, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	start := time.Now()
	decoded := make([]change, 0, 2*accounts)
	r := bufio.NewReaderSize(bytes.NewReader(text[len(fileHeader):]), maxLine)
	for line, err := r.ReadSlice('\n'); err == nil; line, err = r.ReadSlice('\n') {
		var c change
		if err := json.Unmarshal(line, &c); err != nil {
			b.Fatal(err)
		}
		decoded = append(decoded, c)
	}
	plain := time.Since(start)
	b.ReportMetric(float64(len(decoded)), "lines")
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(plain), "times-plain-json")
}

// Memory beside the bytes of the strings that an account consists of.
func BenchmarkMemoryPerAccount(b *testing.B) {
	const accounts = 200_000
	source := openFile(b, storePath(b))
	if err := source.Import(b.Context(), numberedUsers(accounts), 0); err != nil {
		b.Fatal(err)
	}
	u := source.user(accounts)
	text := len(u.Username) + len(u.Email) + len(u.FullName) + len(u.Role) + len(u.PasswordHash)
	source.close()
	var perAccount float64
	for b.Loop() {
		before := heap()
		m, err := ReadFileStore(b.Context(), source.path)
		if err != nil {
			b.Fatal(err)
		}
		perAccount = float64(heap()-before) / accounts
		runtime.KeepAlive(m)
	}
	b.ReportMetric(perAccount, "B/account")
	b.ReportMetric(perAccount/float64(text), "times-its-strings")
}

var storeKinds = []struct {
	name string
	open func(b *testing.B) testedStore
}{
	{"memory", func(b *testing.B) testedStore { return testedStore{NewMemoryStore(testLife), b} }},
	{"file", func(b *testing.B) testedStore { return openFile(b, storePath(b)).testedStore }},
}

// fill makes n accounts with a session each.
func fill(b *testing.B, s Store, n int) []Session {
	b.Helper()
	if err := s.Import(b.Context(), numberedUsers(n), 0); err != nil {
		b.Fatal(err)
	}
	all := make([]Session, n)
	errs := atOnce(256, func(client int) error { // so that they share syncs
		for i := client; i < n; i += 256 {
			all[i] = newSession(User{ID: int64(i + 1)})
			if err := s.CreateSession(b.Context(), all[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return all
}

func numberedUsers(n int) []User {
	list := make([]User, n)
	for i := range list {
		list[i] = newUser(fmt.Sprintf("user%d", i+1))
		list[i].ID = int64(i + 1)
		list[i].PasswordHash = "$pbkdf2-sha256$i=600000,l=32$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	}
	return list
}

// reportRaw compares the benchmark so far with the least that durability costs
// without sharing: a line appended and synced for each change.
func reportRaw(b *testing.B) {
	b.StopTimer()
	ours := float64(b.Elapsed()) / float64(b.N)
	file, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	line := append(bytes.Repeat([]byte("x"), 299), '\n')
	start, n := time.Now(), min(b.N, 1000)
	for range n {
		if _, err := file.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	raw := float64(time.Since(start)) / float64(n)
	b.ReportMetric(raw, "raw-sync-ns/op")
	b.ReportMetric(raw/ours, "times-raw-rate")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
