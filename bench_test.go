package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkReadMe is GET /users/me/ through the whole chain, beside a bare
// handler that writes the same bytes in the same run: "ratio" is how much longer
// it takes; over a socket, its inverse is the share of bare net/http.
func BenchmarkReadMe(b *testing.B) {
	w := benchWorld(b)
	r := w.request(b.Context(), "GET /users/me/ as john")
	body := []byte(w.send(b.Context(), "GET /users/me/ as john").body + "\n")
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = jsonType
		w.WriteHeader(http.StatusOK)
		w.Write(body)
	})
	b.Run("handler", func(b *testing.B) {
		sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
	})
	b.Run("handler with an access log", func(b *testing.B) {
		w.server.log = slog.New(slog.NewTextHandler(io.Discard, nil))
		defer func() { w.server.log = slog.New(slog.DiscardHandler) }()
		sideBySide(b, serving(b, bare, r, 200), serving(b, w.handler, r, 200))
	})
	b.Run("socket", func(b *testing.B) {
		bare, ours := &http.Server{Handler: bare}, httpServer(b, w)
		sideBySide(b, asking(b, bare, loopback(b), w.vars["john"]), asking(b, ours, loopback(b), w.vars["john"]))
	})
}

// BenchmarkBadToken is what a flood of forged tokens costs. They are refused by
// their MAC, and nothing is looked up.
func BenchmarkBadToken(b *testing.B) {
	w := benchWorld(b)
	token := w.vars["john"]
	w.vars["forged"] = token[:len(token)-4] + "AAAA"
	r := w.request(b.Context(), "GET /users/me/ as forged")
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/problem+json"}
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(badToken[strings.LastIndexByte(badToken, '\n')+1:] + "\n"))
	})
	sideBySide(b, serving(b, bare, r, 401), serving(b, w.handler, r, 401))
}

// BenchmarkRefreshOverHTTP is POST /token with a refresh token on the memory
// store over a connection, each time with the successor of the one before, beside
// GET /users/me/: "ratio" is how much longer it takes.
func BenchmarkRefreshOverHTTP(b *testing.B) {
	w := benchWorld(b)
	server := func() *http.Server { return httpServer(b, w) }
	talk, refresh := talking(b, server(), loopback(b)), w.vars["john.refresh"]
	sideBySide(b, asking(b, server(), loopback(b), w.vars["john"]), func() {
		body := "grant_type=refresh_token&refresh_token=" + url.QueryEscape(refresh)
		answer := talk(fmt.Sprintf("POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		_, next, _ := strings.Cut(strings.TrimSuffix(answer, "\"}\n"), `"refresh_token":"`)
		if next == refresh || next == "" {
			b.Fatalf("POST /token answers %s", answer)
		}
		refresh = next
	})
}

// BenchmarkWorstBody is what the costliest bodies of the largest size cost, which
// anybody may send: "response-bytes" is the size of the answer.
func BenchmarkWorstBody(b *testing.B) {
	w := benchWorld(b)
	fill := func(open, part, end string) string {
		return open + strings.Repeat(part, (maxBody-len(open)-len(end))/len(part)) + end
	}
	var distinct strings.Builder
	for i := 0; distinct.Len() < maxBody-40; i++ {
		fmt.Fprintf(&distinct, `"%x":0,`, i)
	}
	const form = "application/x-www-form-urlencoded"
	for _, row := range []struct{ name, path, contentType, body string }{
		{"a name and password of normal size", "/users/", "application/json", `{"username":"x","password":"short"}`},
		{"unknown fields", "/users/", "application/json", "{" + strings.TrimSuffix(distinct.String(), ",") + "}"},
		{"one field again and again", "/users/", "application/json", fill("{", `"a":0,`, `"a":0}`)},
		{"nested arrays", "/users/", "application/json", fill(`{"email":`, "[", "")},
		{"a string of escapes", "/users/", "application/json", fill(`{"full_name":"`, `\u0041`, `"}`)},
		{"an email address", "/users/", "application/json", fill(`{"email":"`, `(`, `"}`)},
		{"fields of a form", "/token", form, fill("grant_type=x", "&a%20=b", "")},
		{"distinct fields of a form", "/token", form, "grant_type=x&" + strings.ReplaceAll(strings.ReplaceAll(distinct.String()[:maxBody-100], `"`, ""), ",", "&")},
		{"a token", "/revoke", form, fill("token=", "a", "")},
	} {
		b.Run(row.name, func(b *testing.B) {
			var rec *httptest.ResponseRecorder
			for b.Loop() {
				r := httptest.NewRequest("POST", row.path, strings.NewReader(row.body))
				r.Header.Set("Content-Type", row.contentType)
				rec = httptest.NewRecorder()
				w.handler.ServeHTTP(rec, r)
			}
			b.ReportMetric(float64(rec.Body.Len()), "response-bytes")
		})
	}
}

// httpServer is the server as main configures it.
func httpServer(b *testing.B, w *world) *http.Server {
	return new(settings).httpServer(w.handler, w.server.log)
}

// sideBySide measures ours, and in the same run, a part at a time, bare.
func sideBySide(b *testing.B, bare, ours func()) {
	b.Helper()
	var before, after runtime.MemStats
	measure := func(f func(), n int) (nanoseconds, allocs float64) {
		runtime.ReadMemStats(&before)
		start := time.Now()
		for range n {
			f()
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		return float64(took), float64(after.Mallocs - before.Mallocs)
	}
	const part = 500
	var bareTime, bareAllocs, ourTime, ourAllocs float64
	n := 0
	for b.Loop() {
		if n%part == 0 {
			b.StopTimer()
			took, allocs := measure(bare, part)
			bareTime, bareAllocs = bareTime+took, bareAllocs+allocs
			took, allocs = measure(ours, part)
			ourTime, ourAllocs = ourTime+took, ourAllocs+allocs
			b.StartTimer()
		}
		n++
		ours()
	}
	measured := float64((n + part - 1) / part * part)
	b.ReportMetric(ourTime/bareTime, "ratio")
	b.ReportMetric(bareTime/measured, "bare-ns/op")
	b.ReportMetric(math.Round(bareAllocs/measured), "bare-allocs/op")
	b.ReportMetric(math.Round(ourAllocs/measured), "our-allocs/op")
}

// serving calls a handler, with nothing of net/http around it.
func serving(b *testing.B, h http.Handler, r *http.Request, status int) func() {
	w := &nullWriter{header: http.Header{}}
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != status {
			b.Fatalf("answers %d, want %d", w.status, status)
		}
	}
}

// asking asks a server over one connection, again and again.
func asking(b *testing.B, srv *http.Server, listener net.Listener, token string) func() {
	talk := talking(b, srv, listener)
	request := "GET /users/me/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	return func() { talk(request) }
}

// talking sends requests to a server over one connection, and returns the
// answers, which are 200 and small enough to come in one piece.
func talking(b *testing.B, srv *http.Server, listener net.Listener) func(request string) string {
	go srv.Serve(listener)
	b.Cleanup(func() { srv.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	answer := make([]byte, 4096)
	return func(request string) string {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 OK")) || answer[n-1] != '\n' {
			b.Fatalf("answers %q (%v)", answer[:n], err)
		}
		return string(answer[:n])
	}
}

func loopback(b *testing.B) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchWorld has no log, so that the figures are those of the API.
func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.server.log = slog.New(slog.DiscardHandler)
	w.login("john", "johndoe", "secret")
	return w
}

// A nullWriter keeps the header and the status, as net/http does, and throws the
// body away.
type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) WriteHeader(status int)      { w.status = status }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }

// The limit is what no signer or verifier can avoid: HMAC-SHA256 with a reused
// hash and base64url, over the same bytes, with nothing parsed and nothing
// kept. Sign, verify and reject report their cost in multiples of it, taken in
// the same run: "x-limit". Sign should stay under 1.8, verify under 2.0.

func BenchmarkSign(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	payload := []byte(ourPayload)
	h := hmac.New(sha256.New, []byte(testSecret))
	var buf [512]byte
	var digest [sha256.Size]byte
	againstLimit(b, func() {
		tokens.Access(johnClaims())
	}, func() {
		out := append(buf[:0], jwtHeader+"."...)
		out = base64.RawURLEncoding.AppendEncode(out, payload)
		h.Reset()
		h.Write(out)
		out = append(out, '.')
		base64.RawURLEncoding.AppendEncode(out, h.Sum(digest[:0]))
	})
}

func BenchmarkVerify(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.Access(johnClaims())
	againstLimit(b, func() {
		if _, err := tokens.VerifyAccess(token, testNow); err != nil {
			b.Fatal(err)
		}
	}, verifyLimit(b, token))
}

// A wrong signature: what an attacker's token costs.
func BenchmarkReject(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.Access(johnClaims())
	forged := token[:len(token)-43] + strings.Repeat("A", 43)
	againstLimit(b, func() {
		if _, err := tokens.VerifyAccess(forged, testNow); err == nil {
			b.Fatal("a forged token passed")
		}
	}, verifyLimit(b, token))
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

// againstLimit times work and limit in turns, a hundred calls each, and reports
// medians: so a noisy neighbour meets both, or is left out.
func againstLimit(b *testing.B, work, limit func()) {
	const turn = 100
	var nanoseconds, ratios []float64
	for b.Loop() {
		start := time.Now()
		for range turn {
			work()
		}
		between := time.Now()
		for range turn {
			limit()
		}
		atWork, atLimit := between.Sub(start), time.Since(between)
		nanoseconds = append(nanoseconds, float64(atWork.Nanoseconds())/turn)
		ratios = append(ratios, float64(atWork)/float64(atLimit))
	}
	median := func(list []float64) float64 {
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(median(ratios), "x-limit")
	b.ReportMetric(median(nanoseconds), "ns/op")
	b.ReportMetric(testing.AllocsPerRun(1000, work), "allocs")
}

// What a guess costs: DefaultIterations should take about 0.1 s.
func BenchmarkHash(b *testing.B) {
	h := Hasher{Iterations: DefaultIterations}
	for b.Loop() {
		h.Hash("secret")
	}
}

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
