//go:build unix

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A trial is a server with clients and faults.
type trial struct {
	t      testing.TB
	seed   uint64
	start  time.Time
	length time.Duration
	client *http.Client

	copies  []*atomic.Pointer[clusterCopy]
	writers int      // number of copies that get changes, from the first on
	stores  []string // the -store of each copy
	root    string   // access token of an admin
	endAll  bool     // the server has DELETE /users/{id}/sessions

	file string // the store, or else etcd and net
	etcd *etcdCluster
	net  *proxyNet

	mu       sync.Mutex
	failures []failure
	crashes  []porcupine.Operation
	faults   []porcupine.Annotation
	total    struct{ operations, histories, lost int }
}

// rootPassword is the number of the password of root.
const rootPassword = 1

func newTrial(t testing.TB, length time.Duration) *trial {
	tr := &trial{t: t, seed: cmp.Or(*seedFlag, rand.Uint64()), length: length}
	tr.client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	t.Cleanup(tr.client.CloseIdleConnections)
	return tr
}

func startFileTrial(t testing.TB, length time.Duration) *trial {
	t.Helper()
	tr := newTrial(t, length)
	tr.file = filepath.Join(t.TempDir(), "users.jsonl")
	tr.startCopies(tr.file)
	return tr
}

// startClusterTrial starts three members of etcd and two copies. The function returns the
// address at which a copy reaches a member, or "" if it does not.
func startClusterTrial(t testing.TB, length time.Duration, address func(n *etcdNode, copy int) string) *trial {
	t.Helper()
	tr := newTrial(t, length)
	tr.net = newProxyNet(t)
	var names sync.Map // of the members, by their addresses
	tr.etcd = startEtcdNodes(t, 3, nil, func(n *etcdNode) string {
		address := tr.net.listen(t, n.Name, n.Peer, func(first []byte) string {
			// A member sends its own address in its requests to others.
			_, after, _ := strings.Cut(string(first), "X-Peerurls: http://")
			address, _, _ := strings.Cut(after, "\r\n")
			name, _ := names.Load(address)
			return fmt.Sprint(name)
		})
		names.Store(address, n.Name)
		return address
	})
	var stores []string
	for i := range 2 {
		var list []string
		for _, n := range tr.etcd.nodes {
			if a := address(n, i); a != "" {
				list = append(list, tr.net.listen(t, n.Name, a, func([]byte) string { return copyName(i) }))
			}
		}
		stores = append(stores, "etcd://"+strings.Join(list, ","))
	}
	tr.startCopies(stores...)
	return tr
}

func everyMember(n *etcdNode, _ int) string { return n.Client }

func copyName(n int) string { return fmt.Sprint("copy ", n) }

func (tr *trial) startCopies(stores ...string) {
	tr.t.Helper()
	tr.stores, tr.writers = stores, len(stores)
	for i := range stores {
		tr.copies = append(tr.copies, &atomic.Pointer[clusterCopy]{})
		tr.startCopy(i)
	}
	at := tr.copies[0].Load().url
	login := clusterCall("POST", at+"/token", "", url.Values{"username": {"root"}, "password": {passwordText(rootPassword)}})
	if tr.root, _ = login.body["access_token"].(string); login.status != http.StatusOK {
		tr.t.Fatal(login)
	}
	tr.endAll = strings.Contains(clusterCall("GET", at+"/openapi.json", "", nil).text, `"/users/{id}/sessions"`)
}

// startCopy starts one copy at a new address. The copy trusts X-Forwarded-For, with which
// the clients avoid the throttle.
func (tr *trial) startCopy(n int) {
	tr.t.Helper()
	env := []string{"ADMIN_PASSWORD=" + passwordText(rootPassword)}
	tr.copies[n].Store(startCopy(tr.t, env, "-store", tr.stores[n], "-admin", "root", "-trusted-proxy", "127.0.0.1/32", "-access-ttl", "24h", "-debug-addr", "127.0.0.1:0"))
}

// run makes a number of clients use an account for each plan, one account after the other,
// until the time is over or a history fails. Meanwhile it calls fault again and again, if
// that is not nil.
func (tr *trial) run(plans []plan, clients int, fault func(*rand.Rand)) {
	tr.start = time.Now()
	var wg sync.WaitGroup
	for n, p := range plans {
		wg.Go(func() {
			for life := 0; tr.goesOn() && (life == 0 || !p.once); life++ {
				rnd := rand.New(rand.NewPCG(tr.seed, uint64(n<<32+life)))
				h := newHistory(tr, p, fmt.Sprintf("account-%d-%d", n, life))
				h.live(clients, rnd)
				tr.check(h)
			}
		})
	}
	for rnd := rand.New(rand.NewPCG(tr.seed, 1<<63)); fault != nil && tr.goesOn(); {
		fault(rnd)
	}
	wg.Wait()
}

func (tr *trial) now() time.Duration { return time.Since(tr.start) }

// enough is the minimum number of operations. A slow machine gets more time for them.
const enough = 200

func (tr *trial) goesOn() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	length := tr.length
	if tr.total.operations < enough {
		length += 20 * time.Second
	}
	return tr.now() < length && len(tr.failures) == 0
}

// sleep waits for a random time from d/2 to d.
func (tr *trial) sleep(rnd *rand.Rand, d time.Duration) {
	d = d/2 + time.Duration(rnd.Int64N(int64(d/2)))
	for end := time.Now().Add(d); tr.goesOn() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// crash kills the only copy after a while, calls meanwhile, and starts the copy again.
func (tr *trial) crash(rnd *rand.Rand, meanwhile func()) {
	tr.sleep(rnd, 1500*time.Millisecond)
	defer tr.fault("killed")()
	begin := tr.now()
	tr.copies[0].Load().kill()
	tr.mu.Lock()
	o := operation{number: -1 - len(tr.crashes), action: crash, begin: begin, end: tr.now()}
	tr.crashes = append(tr.crashes, porcupine.Operation{Input: o, Output: answer{status: 1}, Call: int64(o.begin), Return: int64(o.end)})
	tr.mu.Unlock()
	meanwhile()
	tr.startCopy(0)
}

// fault records a fault for the drawing. The returned function ends it.
func (tr *trial) fault(what string) (over func()) {
	begin := tr.now()
	return func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.faults = append(tr.faults, porcupine.Annotation{Tag: "faults", Start: int64(begin), End: int64(tr.now()), Description: what})
	}
}

// clusterFault causes a random fault of the cluster after a while, and ends it later.
func (tr *trial) clusterFault(rnd *rand.Rand) {
	tr.sleep(rnd, time.Second)
	tr.etcd.wait(tr.t)
	l := slices.IndexFunc(tr.etcd.nodes, (*etcdNode).leads)
	if l < 0 {
		return // an election is under way
	}
	leader := tr.etcd.nodes[l]
	i, n := rnd.IntN(3), rnd.IntN(2)
	member, other := tr.etcd.nodes[i], tr.etcd.nodes[(i+1+rnd.IntN(2))%3]
	name, c := copyName(n), tr.copies[n].Load()
	faults := []struct {
		what     string
		do, undo func()
	}{
		{"the leader is killed", leader.kill, func() { leader.start(tr.t) }},
		{member.Name + " is killed", member.kill, func() { member.start(tr.t) }},
		{"the leader is frozen", func() { leader.signal(syscall.SIGSTOP) }, func() { leader.signal(syscall.SIGCONT) }},
		{member.Name + " is frozen", func() { member.signal(syscall.SIGSTOP) }, func() { member.signal(syscall.SIGCONT) }},
		{"the leader is cut off from the others", func() { tr.cut(leader, both) }, tr.net.mend},
		{"nothing comes from the leader to the others", func() { tr.cut(leader, from) }, tr.net.mend},
		{"nothing comes from the others to the leader", func() { tr.cut(leader, to) }, tr.net.mend},
		{member.Name + " is cut off from " + other.Name, func() { tr.hold(member.Name, other.Name, both) }, tr.net.mend},
		{"nothing comes from " + member.Name + " to " + other.Name, func() { tr.hold(member.Name, other.Name, from) }, tr.net.mend},
		{name + " is cut off from " + member.Name, func() { tr.hold(name, member.Name, both) }, tr.net.mend},
		{"nothing comes from " + name + " to " + member.Name, func() { tr.hold(name, member.Name, from) }, tr.net.mend},
		{"nothing comes from " + member.Name + " to " + name, func() { tr.hold(name, member.Name, to) }, tr.net.mend},
		{name + " is killed", c.kill, func() { tr.startCopy(n) }},
		{name + " is frozen", func() { c.signal(syscall.SIGSTOP) }, func() { c.signal(syscall.SIGCONT) }},
	}
	f := faults[rnd.IntN(len(faults))]
	defer tr.fault(f.what)()
	f.do()
	defer f.undo()
	tr.sleep(rnd, 3*time.Second) // an election takes one or two seconds
}

// A way is the direction of the bytes that are held back.
type way int

const (
	both way = iota
	from
	to
)

// cut holds back the bytes between a member and all others.
func (tr *trial) cut(n *etcdNode, w way) {
	for _, other := range tr.etcd.nodes {
		if other != n {
			tr.hold(n.Name, other.Name, w)
		}
	}
}

// hold holds back the bytes from a to b, from b to a, or both.
func (tr *trial) hold(a, b string, w way) {
	if w != to {
		tr.net.hold(direction{a, b})
	}
	if w != from {
		tr.net.hold(direction{b, a})
	}
}

// checkFor is the time that porcupine has for one history.
const checkFor = 30 * time.Second

// A failure is a history that is not linearizable, with the reason.
type failure struct {
	history *history
	why     string
}

// check checks a complete history with porcupine.
func (tr *trial) check(h *history) {
	tr.mu.Lock()
	tr.total.histories++
	tr.mu.Unlock()
	operations := tr.withCrashes(h)
	switch porcupine.CheckOperationsTimeout(newModel(h.first), operations, checkFor) {
	case porcupine.Unknown:
		tr.fail(h, "was not checked within %v", checkFor)
	case porcupine.Illegal:
		tr.fail(h, "is not linearizable, found after %v\n%s", tr.now().Round(time.Millisecond), explain(h.first, operations))
	}
}

// withCrashes returns the operations of a history and the crashes of the server.
func (tr *trial) withCrashes(h *history) []porcupine.Operation {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Concat(h.operations, tr.crashes)
}

func (tr *trial) fail(h *history, format string, args ...any) {
	f := failure{h, fmt.Sprintf("%s of %d operations, seed %d, ", h.name, len(h.operations), tr.seed) + fmt.Sprintf(format, args...)}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.failures = append(tr.failures, f)
}

func (tr *trial) count(out answer) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.total.operations++
	if out.lost() {
		tr.total.lost++
	}
}

func (tr *trial) String() string {
	return fmt.Sprintf("seed %d, %v: %d operations in %d histories, %d faults, %d responses lost",
		tr.seed, tr.now().Round(time.Millisecond), tr.total.operations, tr.total.histories, len(tr.faults), tr.total.lost)
}

// report fails the test if a history was not linearizable, and draws it.
func (tr *trial) report() {
	tr.t.Helper()
	for _, f := range tr.failures {
		tr.t.Errorf("%s\nA drawing is in %s", f.why, tr.draw(f.history))
	}
	tr.t.Log(tr)
}

// mustFail fails the test if all histories were linearizable.
func (tr *trial) mustFail() {
	tr.t.Helper()
	tr.t.Log(tr)
	if len(tr.failures) == 0 {
		tr.t.Error("all histories are linearizable, want one that is not, as the server has a bug")
		return
	}
	tr.t.Log(tr.failures[0].why)
}

// draw writes an HTML page with a history and the faults, and returns its path.
func (tr *trial) draw(h *history) string {
	model := newModel(h.first)
	_, info := porcupine.CheckOperationsVerbose(model, tr.withCrashes(h), checkFor)
	info.AddAnnotations(tr.faults)
	file, err := os.CreateTemp("", "linearizability-"+h.name+"-*.html")
	if err == nil {
		err = errors.Join(porcupine.Visualize(model, info, file), file.Close())
	}
	if err != nil {
		return err.Error()
	}
	return file.Name()
}
