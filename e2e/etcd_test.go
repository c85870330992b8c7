package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// The etcd of these tests is from its Go module and needs no installation. Each member is
// a process that runs this test binary, and can be killed.

const etcdNodeVariable = "STDAUTH_E2E_ETCD_NODE"

// An etcdNode is one member of a cluster.
type etcdNode struct {
	Name, Dir, Client, Peer string // the latter two are addresses, host:port
	Known                   string // the address at which the others reach Peer
	Cluster                 string // name=url,name=url,...
	TLS                     bool   // between members and clients, self-signed
	Quota                   int64  // bytes; 0 is etcd's default
	Again                   bool   // its data exists

	where func(func()) error // calls a function in the network of the member; nil is that of the test
	cmd   *exec.Cmd
	stdin io.Closer
}

// init makes this process a member if the environment has one.
func init() {
	text := os.Getenv(etcdNodeVariable)
	if text == "" {
		return
	}
	var n etcdNode
	err := json.Unmarshal([]byte(text), &n)
	if err == nil {
		err = n.serve()
	}
	fmt.Fprintln(os.Stderr, "etcd:", err)
	os.Exit(1)
}

// serve runs a member. It ends with the process that started it, which closes the standard
// input.
func (n *etcdNode) serve() error {
	scheme := "http://"
	if n.TLS {
		scheme = "https://"
	}
	client, err := url.Parse(scheme + n.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse("http://" + n.Peer)
	if err != nil {
		return err
	}
	known, err := url.Parse("http://" + n.Known)
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel = n.Name, n.Dir, "error"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*known}
	c.InitialCluster, c.ClientAutoTLS, c.SelfSignedCertValidity = n.Cluster, n.TLS, 1
	c.QuotaBackendBytes = n.Quota
	if n.Again {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return <-e.Err()
}

// start starts the process of the member, and does not wait until it serves.
func (n *etcdNode) start(t testing.TB) {
	t.Helper()
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), etcdNodeVariable+"="+string(text))
	n.cmd.Stderr = os.Stderr
	n.stdin, err = n.cmd.StdinPipe()
	etcdMust(t, err)
	if n.where == nil {
		n.where = func(f func()) error { f(); return nil }
	}
	etcdMust(t, n.where(func() { err = n.cmd.Start() }))
	etcdMust(t, err)
	n.Again = true
}

// kill kills the member (kill -9).
func (n *etcdNode) kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill()
	n.cmd.Wait()
	n.stdin.Close()
	n.cmd = nil
}

func (n *etcdNode) signal(s os.Signal) { n.cmd.Process.Signal(s) }

// An etcdCluster has members that can be started and stopped one by one.
type etcdCluster struct {
	nodes []*etcdNode
}

func startEtcd(t testing.TB, members int) *etcdCluster {
	t.Helper()
	return startEtcdNodes(t, members, nil, nil)
}

// startEtcdNodes starts a cluster. If they are not nil, set sets fields of each member, and
// the members reach each other at the addresses that between returns.
func startEtcdNodes(t testing.TB, members int, set func(*etcdNode), between func(*etcdNode) string) *etcdCluster {
	t.Helper()
	c := &etcdCluster{}
	var list []string
	dir := t.TempDir()
	for i := range members {
		n := &etcdNode{Name: fmt.Sprint("n", i), Dir: filepath.Join(dir, fmt.Sprint("n", i)), Client: etcdFreeAddress(t), Peer: etcdFreeAddress(t)}
		if set != nil {
			set(n)
		}
		if n.Known = n.Peer; between != nil {
			n.Known = between(n)
		}
		c.nodes = append(c.nodes, n)
		list = append(list, n.Name+"=http://"+n.Known)
	}
	for _, n := range c.nodes {
		n.Cluster = strings.Join(list, ",")
		n.start(t)
		t.Cleanup(n.kill)
	}
	if !c.nodes[0].TLS {
		c.wait(t)
	}
	return c
}

// address returns the value of -store for the cluster.
func (c *etcdCluster) address() string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, n.Client)
	}
	return "etcd://" + strings.Join(list, ",")
}

// wait waits until each running member responds for the whole cluster.
func (c *etcdCluster) wait(t testing.TB) {
	t.Helper()
	for _, n := range c.nodes {
		within(t, time.Minute, "the etcd member "+n.Name+" responds", func() bool {
			return n.cmd == nil || etcdCall(n, "/v3/kv/range", map[string]any{"key": "eA=="}, nil) == nil
		})
	}
}

// leader returns the leader.
func (c *etcdCluster) leader(t testing.TB) *etcdNode {
	t.Helper()
	for _, n := range c.nodes {
		if n.cmd != nil && n.leads() {
			return n
		}
	}
	t.Fatal("the etcd cluster has no leader")
	return nil
}

// leads reports whether the member believes that it is the leader.
func (n *etcdNode) leads() bool {
	var status struct {
		Header struct {
			MemberID string `json:"member_id"`
		}
		Leader string
	}
	err := etcdCall(n, "/v3/maintenance/status", map[string]any{}, &status)
	return err == nil && status.Leader == status.Header.MemberID
}

// size returns the size of the database of a member, after older values are removed.
func (c *etcdCluster) size(t testing.TB) int64 {
	t.Helper()
	c.nodes[0].compact(t)
	return c.databaseSize(t)
}

// compact removes older values from the database of a member, and makes its file smaller.
func (n *etcdNode) compact(t testing.TB) {
	t.Helper()
	etcdCall(n, "/v3/kv/compaction", map[string]any{"revision": fmt.Sprint(n.revision(t)), "physical": true}, nil)
	etcdMust(t, etcdCall(n, "/v3/maintenance/defragment", map[string]any{}, nil))
}

// revision returns the number of changes of the cluster.
func (n *etcdNode) revision(t testing.TB) int64 {
	t.Helper()
	var found struct {
		Header struct {
			Revision int64 `json:",string"`
		}
	}
	etcdMust(t, etcdCall(n, "/v3/kv/range", map[string]any{"key": "eA=="}, &found))
	return found.Header.Revision
}

var etcdClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

func etcdCall(n *etcdNode, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	w, err := etcdClient.Post("http://"+n.Client+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer w.Body.Close()
	response, err := io.ReadAll(w.Body)
	if err == nil && w.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", path, response)
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(response, out)
}

func etcdFreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A clusterCopy is one copy of the server.
type clusterCopy struct {
	url    string
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr output
}

// clusterEnv is the environment of all copies.
var clusterEnv = []string{"SECRET_KEY=0c4b8f2d7e6a49d3b1f5c8e7a2d4906f"}

func clusterCommand(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	return clusterCommandOf(binary, env, args...)
}

func clusterCommandOf(program string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(append(cleanEnv(), clusterEnv...), env...)
	return cmd
}

// launchCopy starts a copy and does not wait for it.
func launchCopy(t testing.TB, env []string, args ...string) *clusterCopy {
	t.Helper()
	return launchCopyOf(t, binary, env, args...)
}

func launchCopyOf(t testing.TB, program string, env []string, args ...string) *clusterCopy {
	t.Helper()
	addr := etcdFreeAddress(t)
	c := &clusterCopy{url: "http://" + addr}
	c.cmd = clusterCommandOf(program, env, append([]string{"-addr", addr}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.stop(t) })
	return c
}

func startCopy(t testing.TB, env []string, args ...string) *clusterCopy {
	t.Helper()
	c := launchCopy(t, env, args...)
	c.wait(t)
	return c
}

// wait waits until the copy has opened its store.
func (c *clusterCopy) wait(t testing.TB) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the log of the server:\n%s", c.stderr.String())
		}
	}()
	within(t, 20*time.Second, "the server is ready", func() bool { return clusterCall("GET", c.url+"/readyz", "", nil).status == 200 })
}

// stop ends the copy with SIGTERM, and fails the test if it does not end.
func (c *clusterCopy) stop(t testing.TB) {
	if c.cmd.ProcessState != nil {
		return
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(15*time.Second, func() { c.cmd.Process.Kill() })
	if err := c.cmd.Wait(); err != nil && late.Stop() {
		t.Errorf("the server ended with %v:\n%s", err, c.stderr.String())
	}
}

func (c *clusterCopy) signal(s os.Signal) { c.cmd.Process.Signal(s) }

func (c *clusterCopy) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// TestEtcdContract runs the contract test of the stores on this etcd, as a user who may only
// read and write the keys of the stores.
func TestEtcdContract(t *testing.T) {
	c := startEtcd(t, 1)
	etcdSetUpUsers(t, c.nodes[0], http.DefaultClient, "/stdauth-test/")
	test := exec.Command("go", "test", "-count=1", "-v", "-run", "TestEtcdStoreOnARealCluster", ".")
	test.Dir = ".."
	test.Env = append(os.Environ(), "STDAUTH_TEST_ETCD="+c.nodes[0].Client, "STDAUTH_ETCD_USERNAME=stdauth", "STDAUTH_ETCD_PASSWORD=hunter2")
	out, err := test.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestEtcdStoreOnARealCluster/")) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d rules hold", bytes.Count(out, []byte("--- PASS: TestEtcdStoreOnARealCluster/")))
}

// TestEtcdAlarm: a full or corrupt cluster takes no changes until an operator disarms the
// alarm. Meanwhile the log and /readyz name it, and reads go on.
func TestEtcdAlarm(t *testing.T) {
	cluster := startEtcdNodes(t, 1, func(n *etcdNode) { n.Quota = 4 << 20 }, nil)
	n := cluster.nodes[0]
	c := startCopy(t, nil, "-store", cluster.address())
	u := clusterRegister(t, c.url, "johndoe")
	other := clusterLogin(t, c.url, "johndoe")
	put := func() error {
		return etcdCall(n, "/v3/kv/put", map[string]any{"key": []byte("other"), "value": make([]byte, 1<<20)}, nil)
	}
	for tries := 0; put() == nil; tries++ {
		if tries > 10 {
			t.Fatal("10 MiB fit into a quota of 4 MiB")
		}
	}
	want := func(during string, changes int) {
		t.Helper()
		time.Sleep(1100 * time.Millisecond) // /readyz asks the cluster once a second
		refresh := clusterRefresh(c.url, u.refresh)
		if refresh.status == 200 {
			u.take(refresh)
		}
		got := []int{
			u.get(c.url, "/users/me/").status, u.get(c.url, "/readyz").status, refresh.status,
			clusterCall("POST", c.url+"/token", "", url.Values{"username": {"johndoe"}, "password": {clusterPassword}}).status,
		}
		if want := []int{200, changes, changes, changes}; !slices.Equal(got, want) {
			t.Errorf("%s: GET /users/me/, /readyz, a refresh and a login are %d, want %d", during, got, want)
		}
	}
	said := func(alarm string) {
		t.Helper()
		if a := u.get(c.url, "/readyz"); !strings.HasSuffix(fmt.Sprint(a.body["detail"]), ": alarm "+alarm) {
			t.Errorf("GET /readyz: %v, want the alarm %s", a, alarm)
		}
		if log := c.stderr.String(); !strings.Contains(log, "(alarm "+alarm+")") {
			t.Errorf("the log does not name the alarm %s:\n%s", alarm, log)
		}
	}

	want("on a full cluster", 503)
	said("NOSPACE")
	if a := clusterCall("POST", c.url+"/revoke", "", url.Values{"token": {other.access}}); a.status != 200 || other.get(c.url, "/users/me/").status != 401 {
		t.Errorf("a logout on a full cluster: %v, want 200, as it needs no space", a)
	}
	n.compact(t)
	disarm := func() {
		t.Helper()
		var raised struct{ Alarms []map[string]any }
		etcdMust(t, etcdCall(n, "/v3/maintenance/alarm", map[string]any{"action": "GET"}, &raised))
		for _, alarm := range raised.Alarms {
			alarm["action"] = "DEACTIVATE"
			etcdMust(t, etcdCall(n, "/v3/maintenance/alarm", alarm, nil))
		}
	}
	disarm()
	want("on a cluster that has space again", 200)
	etcdMust(t, etcdCall(n, "/v3/maintenance/alarm", map[string]any{"action": "ACTIVATE", "alarm": "CORRUPT"}, nil))
	want("on a corrupt cluster", 503)
	said("CORRUPT")
	disarm()
	want("on a cluster whose alarm is disarmed", 200)
}

// TestEtcdWithTLSAndUsers: the cluster has TLS, and a user for the server that may only
// read and write the keys of the server. A member forgets the token of the user when it
// restarts.
func TestEtcdWithTLSAndUsers(t *testing.T) {
	c := startEtcdNodes(t, 1, func(n *etcdNode) { n.TLS = true }, nil)
	certificate := filepath.Join(c.nodes[0].Dir, "fixtures", "client", "cert.pem")
	within(t, 30*time.Second, "etcd writes its certificate", func() bool {
		_, err := os.Stat(certificate)
		return err == nil
	})
	tls := "SSL_CERT_FILE=" + certificate // replaces the roots of the system
	store := "etcds" + strings.TrimPrefix(c.address(), "etcd")
	pem, err := os.ReadFile(certificate)
	etcdMust(t, err)
	etcdSetUpUsers(t, c.nodes[0], clusterTrusting(t, pem), "/stdauth/")
	for _, test := range []struct{ env, want string }{
		{"STDAUTH_ETCD_USERNAME= STDAUTH_ETCD_PASSWORD=", "user name is empty"},
		{"STDAUTH_ETCD_PASSWORD=guess", "authentication failed, invalid user ID or password"},
		{"STDAUTH_STORE=" + store + "/elsewhere", "permission denied"},
		{"STDAUTH_ETCD_USERNAME=reader", "permission denied"},
		{"STDAUTH_ETCD_USERNAME=writer", "permission denied"},
		{"STDAUTH_ETCD_USERNAME=accounts", "permission denied"},
		{"STDAUTH_STORE=etcd" + strings.TrimPrefix(store, "etcds"), "EOF"},
		{"SSL_CERT_FILE=/nowhere", "certificate signed by unknown authority"},
	} {
		env := []string{tls, "STDAUTH_STORE=" + store, "STDAUTH_ETCD_USERNAME=stdauth", "STDAUTH_ETCD_PASSWORD=hunter2"}
		cmd := clusterCommand(t, append(env, strings.Fields(test.env)...))
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || bytes.Count(out, []byte("\n")) != 1 || !bytes.HasPrefix(out, []byte("stdauth: -store (STDAUTH_STORE): ")) || !bytes.Contains(out, []byte(test.want)) {
			t.Errorf("with %s the server ended with %v and printed\n%s\nwant status 2 and one line with: %s", test.env, err, out, test.want)
		}
	}
	copy := startCopy(t, []string{tls, "STDAUTH_ETCD_USERNAME=stdauth", "STDAUTH_ETCD_PASSWORD=hunter2"}, "-store", store)
	c0 := clusterRegister(t, copy.url, "johndoe")
	if a := clusterRefresh(copy.url, c0.refresh); a.status != 200 {
		t.Errorf("a refresh with the rights of the user: %v, want 200", a)
	}
	if log := copy.stderr.String(); strings.Contains(log, "permission denied") {
		t.Errorf("the log has a refused call of etcd:\n%s", log)
	}
	c.nodes[0].kill()
	c.nodes[0].start(t)
	within(t, 30*time.Second, "a request succeeds after the member restarted", func() bool {
		status := c0.get(copy.url, "/users/me/").status
		if status != 200 && status != 503 {
			t.Fatalf("GET /users/me/ after the member restarted = %d, want 503 and then 200", status)
		}
		return status == 200
	})
}

// etcdSetUpUsers creates the users, as the documentation of etcd does with etcdctl: stdauth,
// who may read and write the keys with a prefix, and three who may do less.
func etcdSetUpUsers(t *testing.T, n *etcdNode, client *http.Client, prefix string) {
	t.Helper()
	scheme := "http://"
	if n.TLS {
		scheme = "https://"
	}
	end := func(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }
	type call struct {
		path string
		in   map[string]any
	}
	calls := []call{
		{"/v3/auth/user/add", map[string]any{"name": "root", "password": "root"}},
		{"/v3/auth/role/add", map[string]any{"name": "root"}},
		{"/v3/auth/user/grant", map[string]any{"user": "root", "role": "root"}},
	}
	for _, user := range []struct{ name, permission, prefix string }{
		{"stdauth", "READWRITE", prefix},
		{"reader", "READ", prefix},
		{"writer", "WRITE", prefix},
		{"accounts", "READWRITE", prefix + "users/"},
	} {
		permission := map[string]any{"permType": user.permission, "key": []byte(user.prefix), "range_end": []byte(end(user.prefix))}
		calls = append(calls,
			call{"/v3/auth/user/add", map[string]any{"name": user.name, "password": "hunter2"}},
			call{"/v3/auth/role/add", map[string]any{"name": user.name}},
			call{"/v3/auth/role/grant", map[string]any{"name": user.name, "perm": permission}},
			call{"/v3/auth/user/grant", map[string]any{"user": user.name, "role": user.name}})
	}
	for _, call := range append(calls, call{"/v3/auth/enable", map[string]any{}}) {
		body, err := json.Marshal(call.in)
		if err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, call.path+" succeeds", func() bool {
			w, err := client.Post(scheme+n.Client+call.path, "application/json", bytes.NewReader(body))
			if err == nil {
				w.Body.Close()
			}
			return err == nil && w.StatusCode == 200
		})
	}
}
