//go:build unix

package e2e

import (
	"net/url"
	"syscall"
	"testing"
	"time"
)

// TestClusterLeaderFreezes: the leader of etcd freezes with its connections open, and
// responds to nothing. When it continues, it believes for a moment that it is still the
// leader, and must not return old values.
func TestClusterLeaderFreezes(t *testing.T) {
	c := startCluster(t)
	load := c.startLoad(t, 8)
	for range 2 {
		time.Sleep(time.Second)
		leader := c.etcd.leader(t)
		leader.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(6 * time.Second)
		leader.cmd.Process.Signal(syscall.SIGCONT)
	}
	time.Sleep(time.Second)
	load.stop(t)
	t.Logf("the leader froze twice: %d changes acknowledged, %d responses 503, and at most %v without an acknowledged change",
		load.acknowledged.Load(), load.unavailable.Load(), load.longest().Round(10*time.Millisecond))
	if longest := load.longest(); longest > 6*time.Second {
		t.Errorf("%v passed without an acknowledged change, want at most 6s", longest)
	}
}

// TestClusterLogoutWhileAMemberIsAway: a token is revoked while a member of etcd is
// frozen. The member must learn of that before it responds to its copy.
func TestClusterLogoutWhileAMemberIsAway(t *testing.T) {
	c := &cluster{etcd: startEtcd(t, 3)}
	leader := c.etcd.leader(t)
	away := c.etcd.nodes[0]
	if away == leader {
		away = c.etcd.nodes[1]
	}
	here, there := startCopy(t, nil, "-store", "etcd://"+leader.Client), startCopy(t, nil, "-store", "etcd://"+away.Client)
	clusterRegister(t, here.url, "johndoe")
	for range 10 {
		u := clusterLogin(t, here.url, "johndoe")
		if a := u.get(there.url, "/users/me/"); a.status != 200 {
			t.Fatal(a)
		}
		away.cmd.Process.Signal(syscall.SIGSTOP)
		clusterCall("POST", here.url+"/revoke", "", url.Values{"token": {u.access}})
		response := make(chan clusterAnswer, 1)
		go func() { response <- u.get(there.url, "/users/me/") }()
		time.Sleep(100 * time.Millisecond)
		away.cmd.Process.Signal(syscall.SIGCONT)
		if a := <-response; a.status != 401 {
			t.Errorf("GET /users/me/ with a token that was revoked at the other copy: %v, want 401", a)
		}
	}
}
