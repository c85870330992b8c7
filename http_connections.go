package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// connections is a listener that bounds how many connections are open, in all and for
// each client. For one more than that, it closes the one that has been idle longest, of
// the client that has the most.
type connections struct {
	net.Listener
	proxy  func(netip.Addr) bool // whether each connection from there is a client of its own
	budget budget[any]           // by site, or by connection

	mu   sync.Mutex
	open map[any]map[*connection]bool // by client, as in the budget
}

// A connection is accounted for until it is closed.
type connection struct {
	net.Conn
	idle atomic.Int64 // since when, in Unix nanoseconds, or 0 during a request
	free func()
}

const (
	// This bounds the memory that one client can use: a connection takes 20 KiB.
	clientConnections = 128

	maxStreams = 32 // requests at once on an HTTP/2 connection
)

func newConnections(l net.Listener, total int, proxy func(netip.Addr) bool) *connections {
	return &connections{
		Listener: l,
		proxy:    proxy,
		budget:   budget[any]{total: total, share: 1, most: clientConnections},
		open:     map[any]map[*connection]bool{},
	}
}

func (l *connections) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.admit(conn); c != nil {
			return c, nil
		}
		conn.Close()
	}
}

// admit returns a connection that is accounted for, or nil if there is no room.
func (l *connections) admit(conn net.Conn) *connection {
	c := &connection{Conn: conn}
	c.idle.Store(time.Now().UnixNano())
	from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	addr := from.Addr().Unmap().WithZone("")
	client := any(site(addr))
	if l.proxy(addr) {
		client = c
	}
	if !l.budget.take(client, 1) {
		if l.closeIdlest(); !l.budget.take(client, 1) {
			return nil
		}
	}
	c.free = sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.budget.give(client, 1)
		if delete(l.open[client], c); len(l.open[client]) == 0 {
			delete(l.open, client)
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] == nil {
		l.open[client] = map[*connection]bool{}
	}
	l.open[client][c] = true
	return c
}

func (l *connections) closeIdlest() {
	var idlest *connection
	var most int
	var oldest int64
	l.mu.Lock()
	for _, held := range l.open {
		for c := range held {
			since := c.idle.Load()
			if since != 0 && (len(held) > most || len(held) == most && since < oldest) {
				idlest, most, oldest = c, len(held), since
			}
		}
	}
	l.mu.Unlock()
	if idlest != nil {
		idlest.Close()
	}
}

func (c *connection) Close() error {
	defer c.free() // after the descriptor
	return c.Conn.Close()
}

// CloseWrite is what net/http calls so that the last response arrives.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// noteState is for [http.Server.ConnState]. It takes no lock, because it is called twice
// for each request.
func noteState(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*connection)
	switch {
	case ok && state == http.StateActive:
		c.idle.Store(0)
	case ok && state == http.StateIdle:
		c.idle.Store(time.Now().UnixNano())
	}
}

// occupy takes the share of the client that the call will take: its body, and over
// HTTP/2 also what goes with a request. Over HTTP/1, that is the connection's, so a GET
// costs nothing here.
func (s *server) occupy(c *call, body bodyType) error {
	n := body.limit
	if 0 <= c.ContentLength && c.ContentLength < n {
		n = c.ContentLength
	}
	if c.ProtoMajor == 2 {
		n += streamBytes
	}
	if n > 0 && !s.shares.bytes.take(site(c.from), int(n)) {
		return detailed(ErrBusy, "Too many requests are being read")
	}
	c.holds = int(n)
	return nil
}

func (s *server) release(c *call) {
	if c.holds > 0 {
		s.shares.bytes.give(site(c.from), c.holds)
	}
}
