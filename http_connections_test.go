package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnectionsMakeRoom: above its limits, the server closes the connection that has
// been idle longest, of the client that has the most. Each step opens connections from an
// address, and tells which ones are closed for them.
func TestConnectionsMakeRoom(t *testing.T) {
	type step struct {
		do   string // "open ADDRESS", "busy NAME", "idle NAME" or "close NAME"; open names a connection a, b, c ...
		want string // the connections that are closed for it, or that it is refused
	}
	for _, test := range []struct {
		name  string
		total int
		steps []step
	}{
		{"one client keeps as many connections as are left free", 8, []step{
			{"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.1", "a"}, {"open 192.0.2.1", "b"},
		}},
		{"the connection that has been idle longest makes room", 4, []step{
			{"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"busy a", ""}, {"idle a", ""}, {"open 192.0.2.1", "b"}, {"open 192.0.2.1", "a"},
		}},
		{"a connection that serves a request is not closed", 4, []step{
			{"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"busy a", ""}, {"open 192.0.2.1", "b"}, {"busy c", ""}, {"open 192.0.2.1", "refused"}, {"idle c", ""}, {"open 192.0.2.1", "c"},
		}},
		{"a client with few connections takes the place of one with many", 6, []step{
			{"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.2", ""}, {"open 192.0.2.2", ""}, {"open 192.0.2.3", ""}, {"open 192.0.2.4", "a"},
		}},
		{"an IPv6 /48 is one client", 4, []step{
			{"open 2001:db8:1::1", ""}, {"open 2001:db8:1:2::1", ""}, {"open 2001:db8:1:3::1", "a"}, {"open 2001:db8:2::1", ""},
		}},
		{"a proxy may have all connections, and no more", 3, []step{
			{"open 198.51.100.1", ""}, {"open 198.51.100.1", ""}, {"open 198.51.100.1", ""}, {"busy a", ""}, {"busy b", ""}, {"busy c", ""}, {"open 198.51.100.1", "refused"}, {"open 192.0.2.1", "refused"},
		}},
		{"a connection that its client has closed makes room", 4, []step{
			{"open 192.0.2.1", ""}, {"open 192.0.2.1", ""}, {"close a", ""}, {"open 192.0.2.1", ""}, {"open 192.0.2.1", "b"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newConnections(nil, test.total, netip.MustParsePrefix("198.51.100.0/24").Contains)
				open := map[string]*connection{}
				for i, s := range test.steps {
					time.Sleep(time.Second)
					var keyword, object, got string
					fmt.Sscan(s.do, &keyword, &object)
					switch keyword {
					case "open":
						ends := &fakeConn{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(object), 1234))}
						if c := l.admit(ends); c != nil {
							open[string(rune('a'+len(open)))] = c
						} else {
							got = "refused"
							ends.closed = true
						}
					case "busy":
						noteState(open[object], http.StateActive)
					case "idle":
						noteState(open[object], http.StateIdle)
					case "close":
						open[object].Close()
						open[object].Conn.(*fakeConn).told = true
					}
					for name, c := range open {
						if fake := c.Conn.(*fakeConn); fake.closed && !fake.told {
							got += name
							fake.told = true
						}
					}
					if got != s.want {
						t.Errorf("step %d, %s: %q, want %q", i+1, s.do, got, s.want)
					}
				}
				for _, c := range open {
					c.Close()
				}
				if len(l.open) != 0 || l.budget.used != 0 || len(l.budget.held) != 0 {
					t.Errorf("when all are closed, %v are open and %v held, want none", l.open, l.budget.held)
				}
			})
		})
	}
}

// A fakeConn is a connection that only knows whether it was closed.
type fakeConn struct {
	net.Conn
	addr         net.Addr
	closed, told bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.addr }
func (c *fakeConn) Close() error         { c.closed = true; return nil }
