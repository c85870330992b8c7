package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// A server without deadlines can be held up by anybody who sends slowly, and
// net/http sets those of a connection up to eight times for each request. Hardly
// one of them ever passes, but each has the runtime change a timer: together an
// eighth of what GET /users/me/ costs. This file only notes them, and wakes who
// reads or writes now and then to see whether one has passed.

// patience is how long a read or a write sleeps at a time. That makes no deadline
// late: one that comes sooner is set as it is.
const patience = 30 * time.Second

// A lazyListener accepts connections with lazy deadlines.
type lazyListener struct{ net.Listener }

func (l lazyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newLazyConn(c), nil
}

// A lazyConn is a connection that keeps its deadlines as the one in it does. As
// net/http and crypto/tls have it, one goroutine at a time may read and one may
// write. Who writes is woken now and then, fills up the send buffer, and goes on
// waiting. After Close, a deadline that has passed is still what a read tells.
type lazyConn struct {
	net.Conn
	read, write deadline
}

func newLazyConn(c net.Conn) *lazyConn {
	return &lazyConn{Conn: c, read: deadline{set: c.SetReadDeadline}, write: deadline{set: c.SetWriteDeadline}}
}

// CloseWrite lets net/http say that no more will come, and wait for the client
// to read what has: it looks for this method.
func (c *lazyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *lazyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *lazyConn) SetReadDeadline(t time.Time) error  { return c.read.want(t) }
func (c *lazyConn) SetWriteDeadline(t time.Time) error { return c.write.want(t) }

func (c *lazyConn) Read(b []byte) (int, error) {
	return c.read.keep(b, c.Conn.Read)
}

func (c *lazyConn) Write(b []byte) (int, error) {
	return c.write.keep(b, c.Conn.Write)
}

// A deadline is one of the two of a connection.
type deadline struct {
	set func(time.Time) error

	mu     sync.Mutex
	wanted time.Time // zero: never
	armed  time.Time // what the connection has; zero: not known to lie ahead
	busy   bool      // somebody reads or writes just now
}

// want asks for a deadline. It is set at once if somebody waits who would
// otherwise wake too late.
func (d *deadline) want(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if !d.busy || t.IsZero() || !t.Before(d.armed) {
		return nil
	}
	d.armed = t
	return d.set(t)
}

// keep reads or writes until that is done or the wanted deadline has passed. That
// the armed one has passed means nothing by itself.
func (d *deadline) keep(b []byte, do func([]byte) (int, error)) (done int, err error) {
	for {
		if err := d.enter(); err != nil {
			return done, err
		}
		n, err := do(b[done:])
		done += n
		if again := d.leave(err); !again {
			return done, err
		}
	}
}

func (d *deadline) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sooner := !d.wanted.IsZero() && d.wanted.Before(d.armed)
	if d.armed.IsZero() || sooner {
		now := time.Now()
		next := now.Add(patience)
		if !d.wanted.IsZero() && d.wanted.Before(next) {
			next = d.wanted
		}
		if !next.After(now) {
			return os.ErrDeadlineExceeded
		}
		d.armed = next
		if err := d.set(next); err != nil {
			return err
		}
	}
	d.busy = true
	return nil
}

// leave reports whether a deadline has passed that nobody wanted.
func (d *deadline) leave(err error) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.armed = time.Time{}
	return d.wanted.IsZero() || time.Now().Before(d.wanted)
}
