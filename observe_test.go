package main

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLogLinesStayWholeAndInOrder(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	l := &lineWriter{w: writerFunc(func(b []byte) (int, error) {
		runtime.Gosched()
		return got.Write(b)
	})}
	var all sync.WaitGroup
	const writers, lines = 50, 1000
	for w := range writers {
		all.Go(func() {
			for n := range lines {
				fmt.Fprintf(l, "%d %d\n", w, n)
				runtime.Gosched()
			}
		})
	}
	all.Wait()
	l.Flush()
	next := map[int]int{}
	for line := range strings.Lines(got.String()) {
		var w, n int
		if _, err := fmt.Sscanf(line, "%d %d\n", &w, &n); err != nil || n != next[w] {
			t.Fatalf("got line %q (%v), want %d %d", line, err, w, next[w])
		}
		next[w]++
	}
	for w := range writers {
		if next[w] != lines {
			t.Errorf("%d of %d lines of writer %d", next[w], lines, w)
		}
	}
}

// TestLogToASlowReader: a pipe that nobody reads for a while takes 64 KiB, and
// then the log waits.
func TestLogToASlowReader(t *testing.T) {
	t.Parallel()
	begun, read := make(chan int, 100), make(chan struct{})
	l := &lineWriter{w: writerFunc(func(b []byte) (int, error) {
		begun <- len(b)
		<-read
		return len(b), nil
	})}
	line := bytes.Repeat([]byte("x"), 1<<10)
	l.Write(line)
	got := []int{<-begun} // at once, without a Flush

	const total = 200
	var taken atomic.Int64
	done := make(chan struct{})
	go func() {
		for range total {
			l.Write(line)
			taken.Add(1)
		}
		close(done)
	}()
	for taken.Load() < maxLines>>10-1 {
		runtime.Gosched()
	}
	time.Sleep(10 * time.Millisecond) // for one too many
	if n := taken.Load(); n != maxLines>>10-1 {
		t.Errorf("%d lines of 1 KiB were taken while nobody read, want %d", n, maxLines>>10-1)
	}
	close(read)
	<-done
	for sum := 1 << 10; sum < (1+total)<<10; {
		n := <-begun // the rest too
		got, sum = append(got, n), sum+n
	}
	l.Flush()
	close(begun)
	if diff := cmp.Diff([]int{1 << 10, maxLines}, got[:2]); diff != "" {
		t.Errorf("the first two writes (-want +got):\n%s", diff)
	}
	for n := range begun {
		t.Errorf("%d bytes too many were written", n)
	}
}
