package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The figures are measured on request only, as other load on the machine would spoil
// them:
//
//	go test -v -run TestClusterFigures -etcd.figures 5s .
//	go test -v -run TestClusterSizes -etcd.figures 1s .
//	go test -v -run TestClusterFilling -etcd.figures 10s .
var clusterFigures = flag.Duration("etcd.figures", 0, "how long to measure each figure of the etcd store, in each of three rounds")

func onlyForFigures(t *testing.T) {
	if *clusterFigures == 0 {
		t.Skip("needs -etcd.figures")
	}
}

// TestClusterFigures measures authenticated requests to one copy and to two. For
// comparison it measures them with a file, the same transaction by HTTP, and a range by
// etcd's own client.
func TestClusterFigures(t *testing.T) {
	onlyForFigures(t)
	// To make the figures comparable, each copy uses a member of its own that is not
	// the leader, and the transaction goes to the first of these members.
	c := &cluster{etcd: startEtcd(t, 3)}
	var endpoints []string
	for _, n := range c.etcd.nodes {
		if n != c.etcd.leader(t) {
			c.copies = append(c.copies, startCopy(t, nil, "-log-level", "warn", "-store", "etcd://"+n.Client))
			endpoints = append(endpoints, "http://"+n.Client)
		}
	}
	file := startCopy(t, nil, "-log-level", "warn", "-store", filepath.Join(t.TempDir(), "users.jsonl"))
	u, inFile := clusterRegister(t, c.url(0), "johndoe"), clusterRegister(t, file.url, "johndoe")
	key, _ := clusterSession(t, c.etcd)
	userKey := "/stdauth/users/0000000000000000001"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	txn := fmt.Sprintf(`{"success":[{"request_range":{"key":%q}},{"request_range":{"key":%q}}]}`, b64(key), b64(userKey))
	native, err := clientv3.New(clientv3.Config{Endpoints: endpoints[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()

	me := func(u *clusterUser, urls ...string) func(n int) error {
		return func(n int) error {
			r, err := http.NewRequest("GET", urls[n%len(urls)]+"/users/me/", nil)
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+u.access)
			return clusterDo(r)
		}
	}
	kinds := []struct {
		name string
		call func(n int) error
	}{
		{"range by etcd's own client", func(int) error { _, err := native.Get(context.Background(), key); return err }},
		{"the transaction by HTTP", func(n int) error {
			r, err := http.NewRequest("POST", endpoints[0]+"/v3/kv/txn", strings.NewReader(txn))
			if err != nil {
				return err
			}
			return clusterDo(r)
		}},
		{"GET /users/me/, one copy", me(u, c.url(0))},
		{"GET /users/me/, two copies", me(u, c.url(0), c.url(1))},
		{"GET /users/me/, file store", me(inFile, file.url)},
	}
	for _, clients := range []int{1, 64} {
		results := make([][]clusterFigure, len(kinds))
		for range 3 {
			for i, kind := range kinds {
				results[i] = append(results[i], clusterMeasure(t, clients, kind.call))
			}
		}
		for i, kind := range kinds {
			r := results[i]
			slices.SortFunc(r, func(a, b clusterFigure) int { return int(a.perSecond - b.perSecond) })
			t.Logf("%2d clients  %-28s %7.0f/s   median %8v   p99 %8v", clients, kind.name, r[1].perSecond, r[1].median.Round(time.Microsecond), r[1].p99.Round(10*time.Microsecond))
		}
	}
}

// databaseSize returns the part of the database that is in use, old values too.
func (c *etcdCluster) databaseSize(t testing.TB) int64 {
	t.Helper()
	var status struct {
		InUse int64 `json:"dbSizeInUse,string"`
	}
	etcdMust(t, etcdCall(c.nodes[0], "/v3/maintenance/status", map[string]any{}, &status))
	return status.InUse
}

type clusterFigure struct {
	perSecond   float64
	median, p99 time.Duration
}

func clusterMeasure(t *testing.T, clients int, call func(n int) error) clusterFigure {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for n := range clients {
		wg.Go(func() {
			var mine []time.Duration
			for last := time.Now(); last.Sub(start) < *clusterFigures; {
				if err := call(n); err != nil {
					t.Error(err)
					return
				}
				now := time.Now()
				mine = append(mine, now.Sub(last))
				last = now
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("no call was measured")
	}
	return clusterFigure{float64(len(all)) / time.Since(start).Seconds(), all[len(all)/2], all[len(all)*99/100]}
}

func clusterDo(r *http.Request) error {
	w, err := clusterClient.Do(r)
	if err != nil {
		return err
	}
	defer w.Body.Close()
	if _, err = io.Copy(io.Discard, w.Body); err == nil && w.StatusCode != 200 {
		err = fmt.Errorf("%s: %d", r.URL, w.StatusCode)
	}
	return err
}

// clusterSession returns the key and the value of the only session.
func clusterSession(t *testing.T, c *etcdCluster) (key, value string) {
	t.Helper()
	var found struct{ Kvs []struct{ Key, Value []byte } }
	if err := etcdCall(c.nodes[0], "/v3/kv/range", map[string]any{"key": []byte("/stdauth/sessions/"), "range_end": []byte("/stdauth/sessions0")}, &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Kvs) != 1 {
		t.Fatalf("etcd has %d sessions, want 1", len(found.Kvs))
	}
	return string(found.Kvs[0].Key), string(found.Kvs[0].Value)
}

// TestClusterFilling measures how fast one account can fill etcd, with clients that make
// the same change without pause.
func TestClusterFilling(t *testing.T) {
	onlyForFigures(t)
	c := startEtcd(t, 1)
	at := startCopy(t, nil, "-log-level", "error", "-store", c.address()).url
	for _, kind := range []struct {
		name    string
		clients int
		change  func(u *clusterUser, n int) clusterAnswer
	}{
		{"refreshes of one session", 1, func(u *clusterUser, _ int) clusterAnswer {
			a := clusterRefresh(at, u.refresh)
			if a.status == 200 {
				u.take(a)
			}
			return a
		}},
		{"changes of the full name", 8, func(u *clusterUser, n int) clusterAnswer {
			return clusterCall("PATCH", at+"/users/me/", u.access, map[string]string{"full_name": strconv.Itoa(n)})
		}},
		{"logins", 8, func(*clusterUser, int) clusterAnswer {
			return clusterCall("POST", at+"/token", "", url.Values{"username": {"logins"}, "password": {clusterPassword}})
		}},
	} {
		name, _, _ := strings.Cut(kind.name, " ")
		u := clusterRegister(t, at, name)
		var mu sync.Mutex
		var statuses [600]int
		size, revision := c.databaseSize(t), c.nodes[0].revision(t)
		var wg sync.WaitGroup
		start := time.Now()
		for client := range kind.clients {
			wg.Go(func() {
				for n := client; time.Since(start) < *clusterFigures; n += kind.clients {
					a := kind.change(u, n)
					mu.Lock()
					statuses[a.status]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		took, changes := time.Since(start).Seconds(), c.nodes[0].revision(t)-revision
		grown := c.databaseSize(t) - size
		perHour := float64(grown) / took * 3600
		t.Logf("%-26s %7.1f/s answered, %4d of them 429; %7.1f/s written, %5.0f bytes each, %6.1f MB an hour, 2 GiB after %.1f h",
			kind.name, float64(statuses[200])/took, statuses[429], float64(changes)/took, float64(grown)/float64(max(changes, 1)), perHour/1e6, float64(2<<30)/perHour)
	}
}

// TestClusterSizes measures the size of an account and of a session in etcd: on disk,
// where its default limit is 2 GiB, and in memory.
func TestClusterSizes(t *testing.T) {
	onlyForFigures(t)
	const accounts, sessions = 50_000, 50_000
	file := filepath.Join(t.TempDir(), "users.jsonl")
	clusterWriteAccounts(t, file, accounts)
	c := startEtcd(t, 1)
	n := c.nodes[0]
	// The member is restarted before each measurement, which frees its temporary memory.
	measure := func() (size, memory int64, start time.Time) {
		size = c.size(t)
		n.kill()
		n.start(t)
		c.wait(t)
		time.Sleep(2 * time.Second)
		return size, etcdMemory(t, n), time.Now()
	}
	said := func(what string, count int, size, memory int64, took time.Duration) {
		newSize, newMemory, _ := measure()
		t.Logf("%-34s %4d bytes on disk, %4d in memory; %d created in %v", what, (newSize-size)/int64(count), (newMemory-memory)/int64(count), count, took.Round(time.Millisecond))
	}

	size, memory, start := measure()
	if out, err := clusterCommand(t, nil, "-store", c.address(), "-import", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said("an account", accounts, size, memory, time.Since(start))

	copy := startCopy(t, nil, "-store", c.address())
	clusterRegister(t, copy.url, "johndoe")
	copy.stop(t)
	key, value := clusterSession(t, c)
	t.Logf("the key and the value of a session have %d and %d bytes", len(key), len(value))
	prefix := key[:len(key)-10]
	size, memory, start = measure()
	for i := 0; i < sessions; i += 100 {
		ops := []any{}
		for n := i; n < i+100; n++ {
			ops = append(ops, map[string]any{"request_put": map[string]any{"key": fmt.Appendf(nil, "%s%010d", prefix, n), "value": []byte(value)}})
		}
		etcdMust(t, etcdCall(n, "/v3/kv/txn", map[string]any{"success": ops}, nil))
	}
	said("a session", sessions, size, memory, time.Since(start))
}

func etcdMust(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// etcdMemory returns the main memory of a member in bytes, without the pages of its file,
// which the system caches.
func etcdMemory(t testing.TB, n *etcdNode) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	etcdMust(t, err)
	_, after, _ := bytes.Cut(status, []byte("RssAnon:"))
	field, _, _ := bytes.Cut(bytes.TrimSpace(after), []byte(" "))
	kib, err := strconv.ParseInt(string(field), 10, 64)
	etcdMust(t, err)
	return kib << 10
}

// clusterWriteAccounts writes the file of a store by hand.
func clusterWriteAccounts(t testing.TB, path string, n int) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(`{"format":"stdauth","version":1}` + "\n")
	for id := 1; id <= n; id++ {
		name := fmt.Sprintf("user%06d", id)
		user := map[string]any{
			"id": id, "username": name, "email": name + "@example.com", "full_name": "Full Name " + strconv.Itoa(id), "role": "user", "created_at": "2026-01-02T03:04:05Z",
			"password_hash": "$pbkdf2-sha256$i=600000,l=32$wCTYlC4myfQbaqlDOdUSrw$7ElW5ggu6RMgfHStGE2PAsH0YYTxThsZ8MMOwvxoqnk",
		}
		line, err := json.Marshal(map[string]any{"id": id, "user": user})
		etcdMust(t, err)
		b.Write(append(line, '\n'))
	}
	etcdMust(t, os.WriteFile(path, b.Bytes(), 0o600))
}
