package e2e

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A proxyNet has the connections between processes, each through a proxy in this test. It
// can hold back the bytes from one process to another, in one direction or in both. They
// arrive when the network is mended, if the connection is still open, as TCP repeats what
// a network loses.
type proxyNet struct {
	mu      sync.Mutex
	mended  *sync.Cond
	cut     map[direction]bool
	closers map[io.Closer]bool
}

// A direction is from one process to another.
type direction struct{ from, to string }

func newProxyNet(t testing.TB) *proxyNet {
	n := &proxyNet{cut: map[direction]bool{}, closers: map[io.Closer]bool{}}
	n.mended = sync.NewCond(&n.mu)
	t.Cleanup(n.close)
	return n
}

// hold holds back all bytes in these directions until mend.
func (n *proxyNet) hold(directions ...direction) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range directions {
		n.cut[d] = true
	}
}

// mend releases all bytes.
func (n *proxyNet) mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.mended.Broadcast()
}

func (n *proxyNet) close() {
	n.mend()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.closers {
		c.Close()
	}
	n.closers = nil
}

func TestProxyNetHoldsBackOneDirection(t *testing.T) {
	upper := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.Write(bytes.ToUpper(text))
	}))
	defer upper.Close()
	n := newProxyNet(t)
	address := n.listen(t, "server", upper.Listener.Addr().String(), func(first []byte) string {
		if bytes.Contains(first, []byte("User-Agent: alice")) {
			return "alice"
		}
		return "bob"
	})
	ask := func(name string) string {
		client := &http.Client{Timeout: 500 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
		r, _ := http.NewRequest("POST", "http://"+address, strings.NewReader("hello"))
		r.Header.Set("User-Agent", name)
		w, err := client.Do(r)
		if err != nil {
			return "nothing"
		}
		defer w.Body.Close()
		text, _ := io.ReadAll(w.Body)
		return string(text)
	}
	for _, test := range []struct {
		held       direction
		alice, bob string
	}{
		{direction{}, "HELLO", "HELLO"},
		{direction{"alice", "server"}, "nothing", "HELLO"},
		{direction{"server", "bob"}, "HELLO", "nothing"},
	} {
		n.hold(test.held)
		if alice, bob := ask("alice"), ask("bob"); alice != test.alice || bob != test.bob {
			t.Errorf("while %v is held, alice gets %s and bob gets %s, want %s and %s", test.held, alice, bob, test.alice, test.bob)
		}
		n.mend()
	}
}

// listen returns an address of the proxy for the process to, which listens at target. The
// function from returns the client of a connection from its first bytes.
func (n *proxyNet) listen(t testing.TB, to, target string, from func(first []byte) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.keep(l)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.carry(conn, to, target, from)
		}
	}()
	return l.Addr().String()
}

// carry copies the bytes of one connection.
func (n *proxyNet) carry(client net.Conn, to, target string, from func(first []byte) string) {
	defer n.drop(client)
	if !n.keep(client) {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer n.drop(server)
	if !n.keep(server) {
		return
	}
	buf := make([]byte, 32<<10)
	length, err := client.Read(buf)
	if err != nil {
		return
	}
	there := direction{from(buf[:length]), to}
	go func() {
		defer n.drop(client)
		n.copy(client, server, direction{there.to, there.from})
	}()
	n.copy(server, io.MultiReader(bytes.NewReader(buf[:length]), client), there)
}

// copy is like io.Copy, but waits while the direction is held.
func (n *proxyNet) copy(dst io.Writer, src io.Reader, d direction) {
	buf := make([]byte, 32<<10)
	for {
		length, err := src.Read(buf)
		n.mu.Lock()
		for n.cut[d] {
			n.mended.Wait()
		}
		n.mu.Unlock()
		if _, failed := dst.Write(buf[:length]); err != nil || failed != nil {
			return
		}
	}
}

// keep records c to be closed at the end, or closes it if the network is closed.
func (n *proxyNet) keep(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closers == nil {
		c.Close()
		return false
	}
	n.closers[c] = true
	return true
}

func (n *proxyNet) drop(c io.Closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.closers, c)
	c.Close()
}
