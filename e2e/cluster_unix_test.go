//go:build unix

package e2e

import (
	"net/url"
	"syscall"
	"testing"
	"time"
)

// The leader of etcd freezes: its connections stay open, and nothing is ever
// answered. When it thaws, it still takes itself for the leader for a moment,
// and must not tell anybody what was so before.
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
	t.Logf("the leader froze twice: %d changes acknowledged, %d answers 503, the longest pause without any acknowledged %v",
		load.acknowledged.Load(), load.unavailable.Load(), load.longest().Round(10*time.Millisecond))
	if longest := load.longest(); longest > 6*time.Second {
		t.Errorf("the longest pause was %v", longest)
	}
}

// A copy whose member of etcd has been away asks it for a token that was revoked
// in the meantime. The member must find out before it answers.
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
		answer := make(chan clusterAnswer, 1)
		go func() { answer <- u.get(there.url, "/users/me/") }()
		time.Sleep(100 * time.Millisecond)
		away.cmd.Process.Signal(syscall.SIGCONT)
		if a := <-answer; a.status != 401 {
			t.Errorf("a token that was revoked at the other copy: %v, want 401", a)
		}
	}
}
