//go:build unix

package e2e

import (
	"syscall"
	"testing"
	"time"
)

// TestClusterWithoutItsLeader: clients make changes at both copies while etcd loses its
// leader, twice. Changes stop until a new leader is elected, and no acknowledged one is
// lost. A leader that was frozen believes for a moment that it is still the leader, and
// must not return old values.
func TestClusterWithoutItsLeader(t *testing.T) {
	for _, test := range []struct {
		name      string
		end, undo func(leader *etcdNode)
	}{
		{"changes go on after the leader is killed", (*etcdNode).kill, func(leader *etcdNode) { leader.start(t) }},
		{"changes go on after the leader freezes", func(leader *etcdNode) { leader.signal(syscall.SIGSTOP) }, func(leader *etcdNode) { leader.signal(syscall.SIGCONT) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startCluster(t)
			load := c.startLoad(t, 8)
			for range 2 {
				time.Sleep(2 * time.Second)
				leader := c.etcd.leader(t)
				test.end(leader)
				time.Sleep(6 * time.Second)
				test.undo(leader)
				c.etcd.wait(t)
			}
			load.stop(t)
			t.Logf("%d changes acknowledged, %d responses 503, and at most %v without an acknowledged change",
				load.acknowledged.Load(), load.unavailable.Load(), load.longest().Round(10*time.Millisecond))
			if longest := load.longest(); longest > 6*time.Second {
				t.Errorf("%v passed without an acknowledged change, want at most 6s", longest)
			}
		})
	}
}
