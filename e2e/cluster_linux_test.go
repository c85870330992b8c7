package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sites are three places that reach each other, and nothing else. Each is a network
// namespace with one address and a cable to each of the others.
type sites struct{ name string }

// startNetwork needs the rights of root, and the program ip.
func startNetwork(t testing.TB) sites {
	t.Helper()
	find(t, "apt-get install iproute2", "ip")
	n := sites{fmt.Sprint("stdauth-", os.Getpid(), "-")}
	if out, err := exec.Command("ip", "netns", "add", n.site(0)).CombinedOutput(); err != nil {
		missing(t, "a network namespace", "run the test as root ("+strings.TrimSpace(string(out))+")")
	}
	exec.Command("ip", "netns", "del", n.site(0)).Run()
	for i := range 3 {
		n.ip(t, "netns", "add", n.site(i))
		t.Cleanup(func() { exec.Command("ip", "netns", "del", n.site(i)).Run() })
		n.ip(t, "-n", n.site(i), "address", "add", siteAddress(i)+"/32", "dev", "lo")
		n.ip(t, "-n", n.site(i), "link", "set", "lo", "up")
	}
	for i := range 3 {
		j := (i + 1) % 3
		n.ip(t, "link", "add", cable(j), "netns", n.site(i), "type", "veth", "peer", "name", cable(i), "netns", n.site(j))
		for _, end := range [][2]int{{i, j}, {j, i}} {
			n.ip(t, "-n", n.site(end[0]), "link", "set", cable(end[1]), "up")
			n.ip(t, "-n", n.site(end[0]), "route", "add", siteAddress(end[1])+"/32", "dev", cable(end[1]), "src", siteAddress(end[0]))
		}
	}
	return n
}

func (n sites) site(i int) string { return fmt.Sprint(n.name, i) }

// cable is the name of the cable to a site, at the other end.
func cable(to int) string { return fmt.Sprint("to", to) }

// siteAddress is an address for documentation (RFC 5737), so no real host has it.
func siteAddress(i int) string { return fmt.Sprint("192.0.2.", i+1) }

func (n sites) ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// cut makes all packets between two sites disappear without a trace: they go to a
// hardware address that nobody has.
func (n sites) cut(t testing.TB, i, j int) {
	t.Helper()
	for _, end := range [][2]int{{i, j}, {j, i}} {
		n.ip(t, "-n", n.site(end[0]), "neigh", "replace", siteAddress(end[1]), "lladdr", "02:00:00:00:00:01", "dev", cable(end[1]), "nud", "permanent")
	}
}

func (n sites) mend(t testing.TB, i, j int) {
	t.Helper()
	for _, end := range [][2]int{{i, j}, {j, i}} {
		n.ip(t, "-n", n.site(end[0]), "neigh", "del", siteAddress(end[1]), "dev", cable(end[1]))
	}
}

// at calls f in the namespace of a site. What f dials or starts is there.
func (n sites) at(i int, f func()) error {
	done := make(chan error)
	go func() {
		// Without UnlockOSThread the thread ends with the goroutine, and its namespace is
		// not used for anything else.
		runtime.LockOSThread()
		file, err := os.Open("/var/run/netns/" + n.site(i))
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

// dial connects to an address of a site from within that site.
func (n sites) dial(ctx context.Context, kind, address string) (c net.Conn, err error) {
	var site int
	if _, err := fmt.Sscanf(address, "192.0.2.%d:", &site); err != nil {
		return (&net.Dialer{}).DialContext(ctx, kind, address)
	}
	if failed := n.at(site-1, func() { c, err = (&net.Dialer{}).DialContext(ctx, kind, address) }); failed != nil {
		return nil, failed
	}
	return c, err
}

// TestClusterPartition: packets between sites disappear, each with a member of etcd and a
// copy of the server. A copy that has no majority on its side responds with 503 and never
// with what was true before; the others go on. When the network is mended, all copies
// know all changes.
func TestClusterPartition(t *testing.T) {
	n := startNetwork(t)
	for _, client := range []*http.Client{etcdClient, clusterClient} {
		transport := client.Transport.(*http.Transport)
		transport.DialContext = n.dial
		t.Cleanup(func() { transport.CloseIdleConnections(); transport.DialContext = nil })
	}
	site := 0
	c := &cluster{etcd: startEtcdNodes(t, 3, func(m *etcdNode) {
		i := site
		m.Client, m.Peer = siteAddress(i)+":2379", siteAddress(i)+":2380"
		m.where = func(f func()) error { return n.at(i, f) }
		site++
	}, nil)}
	for i := range 3 {
		copy := &clusterCopy{url: "http://" + siteAddress(i) + ":8000"}
		copy.cmd = clusterCommand(t, nil, "-addr", siteAddress(i)+":8000", "-store", c.etcd.address())
		copy.cmd.Stdout, copy.cmd.Stderr = &copy.stdout, &copy.stderr
		var err error
		etcdMust(t, n.at(i, func() { err = copy.cmd.Start() }))
		etcdMust(t, err)
		t.Cleanup(func() { copy.stop(t) })
		copy.wait(t)
		c.copies = append(c.copies, copy)
	}
	stays := clusterRegister(t, c.url(0), "johndoe")
	load := c.startLoad(t, 3)
	for _, round := range []struct {
		name      string
		away      int // the site that is cut off, from the leader on
		from      []int
		otherSide bool // it has no majority
	}{
		{"the leader is cut off from both followers", 0, []int{1, 2}, true},
		{"a follower is cut off from the leader and the other follower", 1, []int{0, 2}, true},
		{"a follower is cut off from the leader alone", 1, []int{0}, false},
	} {
		t.Run(round.name, func(t *testing.T) {
			leader := slices.Index(c.etcd.nodes, c.etcd.leader(t))
			away, there := (leader+round.away)%3, (leader+round.from[0])%3
			ended := clusterLogin(t, c.url(there), "johndoe")
			for _, at := range []int{away, there} {
				if a := ended.get(c.url(at), "/users/me/"); a.status != 200 {
					t.Fatalf("GET /users/me/ before the cut: %v", a)
				}
			}
			for _, from := range round.from {
				n.cut(t, away, (leader+from)%3)
			}
			start := time.Now()
			within(t, 8*time.Second, "a logout on the side of the majority", func() bool {
				a := clusterCall("POST", c.url(there)+"/revoke", "", url.Values{"token": {ended.access}})
				return a.status == 200 && ended.get(c.url(there), "/users/me/").status == 401
			})
			t.Logf("a change succeeded %v after the cut", time.Since(start).Round(10*time.Millisecond))
			if !round.otherSide {
				within(t, 8*time.Second, "each copy knows of the logout", func() bool {
					return ended.get(c.url(away), "/users/me/").status == 401 && stays.get(c.url(away), "/users/me/").status == 200
				})
			} else {
				wantUnavailable(t, c.url(away), stays, ended)
			}
			for _, from := range round.from {
				n.mend(t, away, (leader+from)%3)
			}
			start = time.Now()
			within(t, 20*time.Second, "the copy that was cut off works again", func() bool {
				status := ended.get(c.url(away), "/users/me/").status
				if status != 401 && status != 503 {
					t.Fatalf("GET /users/me/ with a token that was revoked on the other side: %d", status)
				}
				return status == 401 && stays.get(c.url(away), "/users/me/").status == 200
			})
			t.Logf("it worked again %v after the network was mended", time.Since(start).Round(10*time.Millisecond))
			c.etcd.wait(t)
		})
	}
	load.stop(t)
	t.Logf("%d changes acknowledged, %d responses 503, and at most %v without an acknowledged change",
		load.acknowledged.Load(), load.unavailable.Load(), load.longest().Round(10*time.Millisecond))
}

// wantUnavailable makes requests to a copy without a majority, all at once.
func wantUnavailable(t *testing.T, at string, stays, ended *clusterUser) {
	t.Helper()
	var wg sync.WaitGroup
	for name, call := range map[string]func() clusterAnswer{
		"GET /users/me/":                     func() clusterAnswer { return stays.get(at, "/users/me/") },
		"GET /users/me/ of an ended session": func() clusterAnswer { return ended.get(at, "/users/me/") },
		"a refresh":                          func() clusterAnswer { return clusterRefresh(at, ended.refresh) },
		"GET /readyz":                        func() clusterAnswer { return stays.get(at, "/readyz") },
		"a login": func() clusterAnswer {
			return clusterCall("POST", at+"/token", "", url.Values{"username": {"johndoe"}, "password": {clusterPassword}})
		},
	} {
		wg.Go(func() {
			start := time.Now()
			if a := call(); a.status != 503 || time.Since(start) > 6*time.Second {
				t.Errorf("%s at a copy without a majority: %v after %v, want 503 within 6s", name, a, time.Since(start))
			}
		})
	}
	wg.Wait()
}
