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

// connections bounds how many connections are open, in all and for each client. To make
// room for one more, it closes the longest idle connection of the client that has the most.
type connections struct {
	limit limit                 // by network, or by connection
	proxy func(netip.Addr) bool // whether each connection from there is a client of its own
	open  sync.Map              // a *connection by net.Conn: without a lock, because note is called twice for each request
}

type connection struct {
	client any
	idle   atomic.Int64 // since when, in Unix nanoseconds, or 0 during a request
}

const (
	// This bounds the memory that one client can use: a connection takes 20 KiB.
	clientConnections = 128

	maxStreams = 32 // requests at once on an HTTP/2 connection
)

func newConnections(total int, proxy func(netip.Addr) bool) *connections {
	return &connections{limit: limit{total: total, most: clientConnections, refusal: ErrBusy}, proxy: proxy}
}

// note is for [http.Server.ConnState].
func (l *connections) note(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn() // closing it waits for nobody
	}
	switch state {
	case http.StateNew:
		l.add(conn)
	case http.StateActive, http.StateIdle:
		var since int64
		if state == http.StateIdle {
			since = time.Now().UnixNano()
		}
		if c, ok := l.open.Load(conn); ok {
			c.(*connection).idle.Store(since)
		}
	default:
		l.close(conn)
	}
}

// add accounts for a connection, or closes it if there is no room.
func (l *connections) add(conn net.Conn) {
	addr := peer(conn.RemoteAddr().String())
	c := &connection{client: network(addr)}
	if l.proxy(addr) {
		c.client = c
	}
	c.idle.Store(time.Now().UnixNano())
	if l.limit.take(c.client, 1) != nil {
		if l.makeRoom(c.client); l.limit.take(c.client, 1) != nil {
			conn.Close()
			return
		}
	}
	l.open.Store(conn, c)
}

// makeRoom closes a connection for a new one of the client. Those of other clients make
// room only if they have more than it has.
func (l *connections) makeRoom(client any) {
	var idlest net.Conn
	var most int
	var oldest int64
	mine := l.limit.holds(client)
	for conn, value := range l.open.Range {
		c := value.(*connection)
		held, since := l.limit.holds(c.client), c.idle.Load()
		if since != 0 && (held > mine || c.client == client) && (held > most || held == most && since < oldest) {
			idlest, most, oldest = conn.(net.Conn), held, since
		}
	}
	if idlest != nil {
		l.close(idlest)
	}
}

// close closes a connection, after which it counts no more.
func (l *connections) close(conn net.Conn) {
	conn.Close()
	if c, ok := l.open.LoadAndDelete(conn); ok {
		l.limit.give(c.(*connection).client, 1)
	}
}

// takeBytes takes what the call will hold of shares.bytes: its body of at most n bytes, and
// over HTTP/2 also what goes with a request. Over HTTP/1, that belongs to the connection,
// so a GET takes none.
func (s *server) takeBytes(c *call, n int64) error {
	if c.ContentLength >= 0 {
		n = min(n, c.ContentLength)
	}
	if c.ProtoMajor == 2 {
		n += streamBytes
	}
	if n == 0 {
		return nil
	}
	if err := s.shares.bytes.take(network(c.from), int(n)); err != nil {
		return detailed(err, "Too many requests are being read")
	}
	c.taken = int(n)
	return nil
}

func (s *server) giveBytes(c *call) {
	if c.taken > 0 {
		s.shares.bytes.give(network(c.from), c.taken)
	}
}
