package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	runtimemetrics "runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkReadMe measures GET /users/me/ through all middleware, and in the same run a
// bare handler that writes the same bytes.
func BenchmarkReadMe(b *testing.B) {
	w := benchWorld(b)
	r := w.request(b.Context(), "GET /users/me/ as john")
	body := []byte(w.send("GET /users/me/ as john").body + "\n")
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = jsonType
		w.WriteHeader(http.StatusOK)
		w.Write(body)
	})
	b.Run("handler", func(b *testing.B) {
		sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
	})
	for name, log := range map[string]slog.Handler{
		"handler with an access log":         slog.NewTextHandler(io.Discard, nil),
		"handler with the log of a terminal": terminalHandler{slog.NewTextHandler(nil, nil), io.Discard},
	} {
		b.Run(name, func(b *testing.B) {
			w.server.log = slog.New(log)
			defer func() { w.server.log = slog.New(slog.DiscardHandler) }()
			sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
		})
	}
	b.Run("socket", func(b *testing.B) {
		bare, ours := &http.Server{Handler: bare}, newHTTPServer(w.handler, w.server.log)
		sideBySide(b, asking(b, bare, loopback(b), w.vars["john"]), asking(b, ours, loopback(b), w.vars["john"]))
	})
}

// BenchmarkRefreshOverHTTP measures POST /token over a connection, with the memory store
// and each time the successor of the last refresh token, and in the same run
// GET /users/me/.
func BenchmarkRefreshOverHTTP(b *testing.B) {
	w := benchWorld(b)
	server := func() *http.Server { return newHTTPServer(w.handler, w.server.log) } // as in main
	talk, refresh := talking(b, server(), loopback(b)), w.vars["john.refresh"]
	sideBySide(b, asking(b, server(), loopback(b), w.vars["john"]), func() {
		body := "grant_type=refresh_token&refresh_token=" + url.QueryEscape(refresh)
		response := talk(fmt.Sprintf("POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		_, next, _ := strings.Cut(strings.TrimSuffix(response, "\"}\n"), `"refresh_token":"`)
		if next == "" { // a session rotates once a second at most
			b.Fatalf("POST /token returns %s", response)
		}
		refresh = next
	})
}

// sideBySide measures two calls in turns of a hundred, in the same run, and reports medians,
// which other load on the machine hardly changes. "ratio" is the time of ours in that of bare.
func sideBySide(b *testing.B, bare, ours func()) {
	b.Helper()
	measure := func(call func()) (nanoseconds float64) {
		const turn = 100
		start := time.Now()
		for range turn {
			call()
		}
		return float64(time.Since(start)) / turn
	}
	var ourTimes, bareTimes, ratios []float64
	for b.Loop() {
		our, bare := measure(ours), measure(bare)
		ourTimes, bareTimes, ratios = append(ourTimes, our), append(bareTimes, bare), append(ratios, our/bare)
	}
	for unit, list := range map[string][]float64{"ratio": ratios, "ns/op": ourTimes, "bare-ns/op": bareTimes} {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], unit)
	}
	b.ReportMetric(testing.AllocsPerRun(1000, ours), "our-allocs/op")
	b.ReportMetric(testing.AllocsPerRun(1000, bare), "bare-allocs/op")
}

// serving returns a function that calls a handler without the server of net/http.
func serving(b *testing.B, h http.Handler, r *http.Request, status int) func() {
	w := &nullWriter{header: http.Header{}}
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != status {
			b.Fatalf("the handler returns %d, want %d", w.status, status)
		}
	}
}

// asking returns a function that sends GET /users/me/ over one connection.
func asking(b *testing.B, srv *http.Server, listener net.Listener, token string) func() {
	talk := talking(b, srv, listener)
	request := "GET /users/me/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	return func() { talk(request) }
}

// talking returns a function that sends a request over one connection and returns its
// response, which must be a 200 and fit in one read.
func talking(b *testing.B, srv *http.Server, listener net.Listener) func(request string) string {
	go srv.Serve(listener)
	b.Cleanup(func() { srv.Close() })
	conn := need(net.Dial("tcp", listener.Addr().String()))(b)
	b.Cleanup(func() { conn.Close() })
	response := make([]byte, 4096)
	return func(request string) string {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(response)
		if err != nil || !bytes.HasPrefix(response[:n], []byte("HTTP/1.1 200 OK")) || response[n-1] != '\n' {
			b.Fatalf("the server returns %q (%v), want a 200", response[:n], err)
		}
		return string(response[:n])
	}
}

func loopback(t testing.TB) net.Listener {
	t.Helper()
	l := need(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	return l
}

// benchWorld returns a world without a log, which would count in the figures.
func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.server.log = slog.New(slog.DiscardHandler)
	w.do("login johndoe as john")
	return w
}

// A nullWriter keeps the header and the status, as net/http does, and discards the body.
type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) WriteHeader(status int)      { w.status = status }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }

// The limit is the work that no signer or verifier can avoid: HMAC-SHA256 with a reused
// hash, and base64url, over the same bytes. The benchmarks of tokens measure it as the bare
// call. The ratio of signing should stay below 1.8, and that of verifying below 2.0.

func BenchmarkSign(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	payload := []byte(ourPayload)
	h := hmac.New(sha256.New, []byte(testSecret))
	var buf [512]byte
	var digest [sha256.Size]byte
	sideBySide(b, func() {
		out := append(buf[:0], jwtHeader+"."...)
		out = base64.RawURLEncoding.AppendEncode(out, payload)
		h.Reset()
		h.Write(out)
		out = append(out, '.')
		base64.RawURLEncoding.AppendEncode(out, h.Sum(digest[:0]))
	}, func() { tokens.SignAccess(johnClaims()) })
}

func BenchmarkVerify(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.SignAccess(johnClaims())
	sideBySide(b, verifyLimit(b, token), func() {
		if _, err := tokens.VerifyAccess(token, testNow); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkReject measures a token with a wrong signature, as an attacker sends it.
func BenchmarkReject(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.SignAccess(johnClaims())
	forged := token[:len(token)-43] + strings.Repeat("A", 43)
	sideBySide(b, verifyLimit(b, token), func() {
		if _, err := tokens.VerifyAccess(forged, testNow); err == nil {
			b.Fatal("VerifyAccess() accepts a forged token")
		}
	})
}

// verifyLimit is the limit of verifying token.
func verifyLimit(b *testing.B, token string) func() {
	text := []byte(token)
	dot, mid := bytes.LastIndexByte(text, '.'), bytes.IndexByte(text, '.')
	h := hmac.New(sha256.New, []byte(testSecret))
	var digest, signature [sha256.Size]byte
	var payload [512]byte
	return func() {
		h.Reset()
		h.Write(text[:dot])
		n, err := base64.RawURLEncoding.Decode(signature[:], text[dot+1:])
		if err != nil || !hmac.Equal(signature[:n], h.Sum(digest[:0])) {
			b.Fatal("the limit refuses the token")
		}
		if _, err := base64.RawURLEncoding.Decode(payload[:], text[mid+1:dot]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSharedSync measures refreshes of 64 clients at once, and in the same run a bare
// write and sync for each.
func BenchmarkSharedSync(b *testing.B) {
	path, all := grownFile(b, 1_000, true)
	s := openFile(b, path)
	b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
	var client atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		mine := &all[int(client.Add(1))%len(all)]
		for pb.Next() {
			if err := refreshOnce(b, s, mine); err != nil {
				b.Error(err)
			}
		}
	})
	reportRaw(b)
}

// The benchmarks of growth run with a thousand, a hundred thousand and a million accounts,
// each with a session. docs/growth.md has the figures.

var million = flag.Bool("million", false, "run the benchmarks of growth with a million accounts and for a whole day, too")

func atEachSize(b *testing.B, run func(b *testing.B, accounts int)) {
	for _, accounts := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			if accounts > 100_000 && !*million {
				b.Skip("takes minutes; set -million to run it")
			}
			run(b, accounts)
		})
	}
}

// grownFile writes the file of a store with the given number of accounts. The first one is
// an admin, and every password is "secret".
func grownFile(b *testing.B, accounts int, withSessions bool) (path string, all []Session) {
	b.Helper()
	path = storePath(b)
	file := need(os.Create(path))(b)
	defer file.Close()
	w := bufio.NewWriterSize(file, 1<<20)
	w.WriteString(fileHeader)
	put := func(c change) { w.Write(need(appendLine(nil, c, false))(b)) }
	hash := Hasher{Iterations: 1}.Hash("secret")
	for _, u := range numberedUsers(accounts) {
		u.PasswordHash = hash
		if u.ID == 1 {
			u.Role = RoleAdmin
		}
		put(change{ID: u.ID, User: &u})
		if withSessions {
			s := newSession(u)
			all = append(all, s)
			put(change{ID: u.ID, Session: &s})
		}
	}
	noError(b, w.Flush())
	return path, all
}

// BenchmarkOpenFileStore compares opening a store with decoding its lines by encoding/json.
func BenchmarkOpenFileStore(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		path, _ := grownFile(b, accounts, true)
		text := []byte(readText(b, path))
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			f := need(OpenFileStore(b.Context(), path, testLife, slog.New(slog.DiscardHandler)))(b)
			f.Close()
		}
		start := time.Now()
		decoded := make([]change, 0, 2*accounts)
		r := bufio.NewReaderSize(bytes.NewReader(text[len(fileHeader):]), maxLine)
		for line, err := r.ReadSlice('\n'); err == nil; line, err = r.ReadSlice('\n') {
			var c change
			noError(b, json.Unmarshal(line, &c))
			decoded = append(decoded, c)
		}
		plain := time.Since(start)
		b.ReportMetric(float64(len(decoded)), "lines")
		b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(plain), "times-plain-json")
	})
}

// BenchmarkMemoryPerAccount compares the memory of an open file store, which has two
// states, with the bytes of the strings of its accounts.
func BenchmarkMemoryPerAccount(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		perAccount := func(withSessions bool) float64 {
			path, _ := grownFile(b, accounts, withSessions)
			before := heap()
			f := need(OpenFileStore(b.Context(), path, testLife, slog.New(slog.DiscardHandler)))(b)
			defer f.Close()
			return float64(heap()-before) / float64(accounts)
		}
		u := numberedUsers(1)[0]
		text := len(u.Username) + len(u.Email) + len(u.FullName) + len(u.Role) + len(u.PasswordHash)
		var plain, withSession float64
		for b.Loop() {
			plain, withSession = perAccount(false), perAccount(true)
		}
		b.ReportMetric(plain, "B/account")
		b.ReportMetric(plain/float64(text), "times-its-strings")
		b.ReportMetric(withSession-plain, "B/session")
	})
}

// growth measures sequential calls of a store at each size.
func growth(b *testing.B, ask func(s openedFile, mine *Session) error) {
	atEachSize(b, func(b *testing.B, accounts int) {
		path, all := grownFile(b, accounts, true)
		s := openFile(b, path)
		rng := rand.New(rand.NewPCG(1, 2))
		for b.Loop() {
			noError(b, ask(s, &all[rng.IntN(len(all))]))
		}
		reportRaw(b)
	})
}

func BenchmarkGrowthLogin(b *testing.B) {
	growth(b, func(s openedFile, mine *Session) error {
		return errOf(s.CreateSession(b.Context(), newSession(User{ID: mine.UserID})))
	})
}

func BenchmarkGrowthRefresh(b *testing.B) {
	growth(b, func(s openedFile, mine *Session) error { return refreshOnce(b, s, mine) })
}

func refreshOnce(b *testing.B, s Store, mine *Session) error {
	return errOf(s.UpdateSession(b.Context(), mine.UserID, mine.ID, rotateSoon))
}

// BenchmarkGrowthPage measures a page of the list of accounts.
func BenchmarkGrowthPage(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		path, _ := grownFile(b, accounts, true)
		w := benchWorld(b)
		w.store.Store = openFile(b, path)
		w.do("login user1 as admin")
		r := w.request(b.Context(), fmt.Sprintf("GET /users/?limit=100&after=%d as admin", accounts/2))
		page := serving(b, w.handler, r, 200)
		for b.Loop() {
			page()
		}
	})
}

// BenchmarkGrowthDelete measures the deletion of an early account, which must move none of
// those behind it.
func BenchmarkGrowthDelete(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		path, _ := grownFile(b, accounts, true)
		s := openFile(b, path)
		for id := int64(2); b.Loop(); id++ {
			b.StopTimer()
			s.create(newUser(fmt.Sprintf("new%d", id)))
			b.StartTimer()
			s.remove(id)
		}
		reportRaw(b)
	})
}

// BenchmarkGrowthCompaction measures a compaction, and the latency of 16 clients that
// refresh and one that reads, before and during it.
func BenchmarkGrowthCompaction(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		path, all := grownFile(b, accounts, true)
		s := openFile(b, path)
		compactions := func() float64 { return s.file.Metrics()["stdauth_store_compactions_total"] }
		var quiet, busy waits
		quiet.during(b, s, all, func() bool { return len(quiet.refreshes) < 2000 })
		live, most := float64(heap()), 0.0
		var took time.Duration
		for b.Loop() {
			s.compactSoon()
			start, before := time.Now(), compactions()
			busy.during(b, s, all, func() bool {
				most = max(most, heapAtLastGC())
				return compactions() == before
			})
			took += time.Since(start)
		}
		b.ReportMetric(most/live, "times-heap-meanwhile")
		b.ReportMetric(took.Seconds()/float64(b.N), "s/compaction")
		quiet.report(b, "before")
		busy.report(b, "meanwhile")
	})
}

// waits has the durations of requests.
type waits struct {
	mu               sync.Mutex
	refreshes, reads []time.Duration
}

// during makes refreshes and reads while goOn returns true.
func (w *waits) during(b *testing.B, s openedFile, all []Session, goOn func() bool) {
	const clients = 17
	errs := atOnce(clients, func(client int) (err error) {
		for i, on := client, true; on && err == nil; i += clients {
			mine := &all[i%len(all)]
			list := &w.refreshes
			start := time.Now()
			if client == 0 {
				list = &w.reads
				_, _, err = s.Session(b.Context(), mine.UserID, mine.ID)
			} else {
				err = refreshOnce(b, s, mine)
			}
			took := time.Since(start)
			w.mu.Lock()
			*list = append(*list, took)
			on = goOn()
			w.mu.Unlock()
			if client == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
		return err
	})
	noError(b, errors.Join(errs...))
}

func (w *waits) report(b *testing.B, when string) {
	for _, part := range []struct {
		name string
		list []time.Duration
	}{{"refresh", w.refreshes}, {"read", w.reads}} {
		slices.Sort(part.list)
		b.ReportMetric(part.list[len(part.list)*99/100].Seconds()*1000, "p99-ms-"+part.name+"-"+when)
		b.ReportMetric(part.list[len(part.list)-1].Seconds()*1000, "max-ms-"+part.name+"-"+when)
	}
}

// BenchmarkGrowthDay measures the size of the file during a day: each session is refreshed
// every half an hour for eight hours.
func BenchmarkGrowthDay(b *testing.B) {
	atEachSize(b, func(b *testing.B, accounts int) {
		if accounts > 1_000 && !*million {
			b.Skip("takes minutes; set -million to run it")
		}
		path, all := grownFile(b, accounts, true)
		s := openFile(b, path)
		size := func() float64 { return s.file.Metrics()["stdauth_store_file_bytes"] }
		live, largest := size(), 0.0
		for b.Loop() {
			for range 16 {
				errs := atOnce(256, func(client int) error {
					for i := client; i < len(all); i += 256 {
						if err := refreshOnce(b, s, &all[i]); err != nil {
							return err
						}
						if client == 0 {
							largest = max(largest, size())
						}
					}
					return nil
				})
				noError(b, errors.Join(errs...))
			}
		}
		b.ReportMetric(live/1e6, "MB-live")
		b.ReportMetric(largest/live, "times-live-at-most")
		b.ReportMetric(s.file.Metrics()["stdauth_store_compactions_total"]/float64(b.N), "compactions/day")
		b.ReportMetric(float64(16*accounts*b.N)/b.Elapsed().Seconds(), "refreshes/s")
	})
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

// reportRaw compares the benchmark with one append and one sync for each change, the least
// that durability costs without sharing.
func reportRaw(b *testing.B) {
	b.StopTimer()
	ours := float64(b.Elapsed()) / float64(b.N)
	file := need(os.Create(filepath.Join(b.TempDir(), "raw")))(b)
	defer file.Close()
	line := append(bytes.Repeat([]byte("x"), 299), '\n')
	start, n := time.Now(), min(b.N, 1000)
	for range n {
		if _, err := file.Write(line); err != nil {
			b.Fatal(err)
		}
		noError(b, file.Sync())
	}
	raw := float64(time.Since(start)) / float64(n)
	b.ReportMetric(raw, "raw-sync-ns/op")
	b.ReportMetric(raw/ours, "times-raw-rate")
}

// heapAtLastGC returns the bytes that the last garbage collection left.
func heapAtLastGC() float64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(sample)
	return float64(sample[0].Value.Uint64())
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
