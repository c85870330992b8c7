package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestConnKeepsDeadlines: one row is what happens to a connection of which
// nothing comes, and when and how its read ends.
func TestConnKeepsDeadlines(t *testing.T) {
	const never = time.Duration(-1) // no deadline
	type set struct{ at, deadline time.Duration }
	for _, tt := range []struct {
		rule string
		sets []set
		want string
	}{
		{"no deadline", nil, "9m59s EOF"},
		{"one that comes soon", []set{{0, time.Second}}, "1s timeout"},
		{"one that comes after the connection has woken twice", []set{{0, 2*patience + time.Second}}, "1m1s timeout"},
		{"one that comes with a waking", []set{{0, patience}}, "30s timeout"},
		{"one that has passed", []set{{0, -time.Hour}}, "0s timeout"},
		{"one that is now", []set{{0, 0}}, "0s timeout"},
		{"brought forward while the read waits", []set{{0, time.Minute}, {time.Second, 2 * time.Second}}, "2s timeout"},
		{"put off while the read waits", []set{{0, 2 * time.Second}, {time.Second, time.Minute}}, "1m0s timeout"},
		{"taken back while the read waits", []set{{0, 2 * time.Second}, {time.Second, never}}, "9m59s EOF"},
		{"made to pass while the read waits, as net/http does", []set{{0, never}, {time.Second, -time.Hour}}, "1s timeout"},
		{"brought forward and put off again", []set{{0, time.Minute}, {time.Second, 3 * time.Second}, {2 * time.Second, 50 * time.Second}}, "50s timeout"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				c, start := newLazyConn(ours), time.Now()
				apply := func(s set) {
					var deadline time.Time
					if s.deadline != never {
						deadline = start.Add(s.deadline)
					}
					if err := c.SetReadDeadline(deadline); err != nil {
						t.Error(err)
					}
				}
				for _, s := range tt.sets {
					if s.at == 0 {
						apply(s)
					} else {
						time.AfterFunc(s.at, func() { apply(s) })
					}
				}
				time.AfterFunc(10*time.Minute-time.Second, func() { theirs.Close() })
				_, err := c.Read(make([]byte, 1))
				if got := fmt.Sprint(time.Since(start), " ", ending(err)); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestConnIsLikeThatInIt has the same things happen at the same times to a
// connection with lazy deadlines and to one without, and compares what comes of
// them: bytes, errors and times.
func TestConnIsLikeThatInIt(t *testing.T) {
	for seed := range uint64(300) {
		plain := lifeOf(t, seed, func(c net.Conn) net.Conn { return c })
		ours := lifeOf(t, seed, func(c net.Conn) net.Conn { return newLazyConn(c) })
		if diff := cmp.Diff(plain, ours); diff != "" {
			t.Fatalf("life %d (-plain +ours):\n%s", seed, diff)
		}
	}
}

// ending is an error without the words that the kind of connection puts before.
func ending(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "timeout"
	}
	return fmt.Sprint(err)
}

// lifeOf is ten minutes in which somebody reads, somebody writes, somebody sets
// deadlines and the other end does as it likes.
func lifeOf(t *testing.T, seed uint64, wrap func(net.Conn) net.Conn) (log []string) {
	synctest.Test(t, func(t *testing.T) {
		inner, theirs := net.Pipe()
		c, start := wrap(inner), time.Now()
		var mu sync.Mutex
		note := func(format string, a ...any) {
			mu.Lock()
			defer mu.Unlock()
			if time.Since(start) >= 10*time.Minute {
				return // closed, of which a deadline that has passed knows nothing
			}
			log = append(log, fmt.Sprintf("%15v ", time.Since(start))+fmt.Sprintf(format, a...))
		}
		var all sync.WaitGroup
		actor := func(number uint64, act func(r *rand.Rand)) {
			r := rand.New(rand.NewPCG(seed, number))
			all.Go(func() {
				for time.Since(start) < 10*time.Minute {
					time.Sleep(time.Duration(1 + r.Int64N(int64(20*time.Second))))
					act(r)
				}
			})
		}
		actor(1, func(r *rand.Rand) {
			b := make([]byte, 1+r.IntN(8))
			n, err := c.Read(b)
			note("read %x %s", b[:n], ending(err))
		})
		actor(2, func(r *rand.Rand) {
			n, err := c.Write(make([]byte, 1+r.IntN(8)))
			note("wrote %d %s", n, ending(err))
		})
		actor(3, func(r *rand.Rand) {
			deadline := time.Now().Add(time.Duration(r.Int64N(int64(2 * time.Minute))))
			switch r.IntN(5) {
			case 0:
				deadline = time.Time{}
			case 1:
				deadline = time.Unix(1, 0)
			}
			set := []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline}[r.IntN(3)]
			if err := set(deadline); err != nil {
				note("set: %v", err)
			}
		})
		actor(4, func(r *rand.Rand) {
			theirs.Write([]byte{byte(r.Int()), byte(r.Int())})
		})
		actor(5, func(r *rand.Rand) {
			theirs.Read(make([]byte, 1+r.IntN(4)))
		})
		time.Sleep(10 * time.Minute)
		c.Close()
		theirs.Close()
		all.Wait()
	})
	slices.Sort(log)
	return log
}

// TestConnSetsFewDeadlines: a second of requests, as net/http goes about them.
func TestConnSetsFewDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, theirs := net.Pipe()
		counted := &countsDeadlines{Conn: inner}
		c := newLazyConn(counted)
		go io.Copy(theirs, theirs) // an echo
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		for range 1000 {
			c.SetReadDeadline(in(10 * time.Second))
			c.SetReadDeadline(in(30 * time.Second))
			c.SetWriteDeadline(in(time.Minute))
			c.SetReadDeadline(time.Time{}) // to see whether the client goes
			c.SetReadDeadline(time.Unix(1, 0))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Time{})
			if _, err := c.Write([]byte("xx")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(in(2 * time.Minute))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Time{})
			time.Sleep(time.Millisecond)
		}
		if counted.sets != 2 {
			t.Errorf("set %d deadlines, want one for reading and one for writing", counted.sets)
		}
		c.Close()
		theirs.Close()
	})
}

type countsDeadlines struct {
	net.Conn
	sets int
}

func (c *countsDeadlines) SetReadDeadline(t time.Time) error {
	c.sets++
	return c.Conn.SetReadDeadline(t)
}

func (c *countsDeadlines) SetWriteDeadline(t time.Time) error {
	c.sets++
	return c.Conn.SetWriteDeadline(t)
}

// net/http closes half of a connection so that an answer to a body that it has
// not read arrives: it must find the method.
func TestConnClosesHalf(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := lazyListener{inner}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("there is no CloseWrite")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("the client reads %q, %v, want the end", rest, err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d, %v: the other half is closed too", n, err)
	}
}
