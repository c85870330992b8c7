package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestAttackIdleConnections: one address opens more connections than the process has
// descriptors, and leaves them idle. Others are served nevertheless.
func TestAttackIdleConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server")
	}
	t.Parallel()
	cmd := exec.CommandContext(soon(t), "sh", "-c", `ulimit -n 64 && exec "$0" -addr 127.0.0.1:0`, buildServer(t))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	addr := ""
	lines := bufio.NewScanner(stderr)
	for addr == "" && lines.Scan() {
		_, rest, _ := strings.Cut(lines.Text(), "msg=listening url=http://")
		addr, _, _ = strings.Cut(rest, " ")
	}
	go func() {
		for lines.Scan() {
		}
	}()
	for i := range 100 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("idle connection %d: %v", i+1, err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") // else it is closed after 10 s
		conn.SetReadDeadline(time.Now().Add(time.Second))
		conn.Read(make([]byte, 1000)) // an error means that the server does not accept it
	}
	for i := range 3 {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))}
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: from}).DialContext}}
		resp, err := client.Get(fmt.Sprintf("http://%s/healthz", addr))
		if err != nil {
			t.Errorf("a request from %v beside 100 idle connections, with 64 descriptors: %v", from, err)
			continue
		}
		resp.Body.Close() // and stays open
	}
}
