//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestEtcdPage runs the commands of docs/etcd.md in one shell, from top to bottom, with a
// real etcd and its etcdctl, and compares their output with that in the page.
func TestEtcdPage(t *testing.T) {
	for _, tool := range []struct{ name, install string }{
		{"etcd", "apt-get install etcd-server"}, {"etcdctl", "apt-get install etcd-client"}, {"curl", "apt-get install curl"}, {"openssl", "apt-get install openssl"},
	} {
		find(t, tool.install, tool.name)
	}
	sh := startPaste(t)
	// The page imports a file. This one has the admin that the page would create.
	if out, err := run(t, sh.dir, []string{"SECRET_KEY=" + testKey, "ADMIN_PASSWORD=staple battery"}, "sh", "-c",
		binary+" -addr 127.0.0.1:0 -store users.jsonl -admin root >/dev/null 2>log & until grep -q listening log; do kill -0 $! || exit; sleep 0.1; done; kill $!; wait"); err != nil {
		t.Fatalf("a file of accounts: %v\n%s", err, out)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?").FindAllStringSubmatch(repoFile(t, "docs/etcd.md"), -1)
	if len(blocks) < 12 {
		t.Fatalf("the test found %d blocks of commands in docs/etcd.md, want 12 or more", len(blocks))
	}
	for _, block := range blocks {
		commands, want := block[1], block[2]
		got, status := sh.paste(commands)
		switch {
		case status != 0:
			t.Fatalf("%s\nended with status %d:\n%s\n%s", commands, status, got, sh.stderr)
		case want != "" && got != want:
			t.Fatalf("%s\noutput (-page +got):\n- %s\n+ %s\n%s", commands, want, got, sh.stderr)
		case strings.Contains(commands, "-import ") && got != "imported 1 accounts\n":
			t.Fatalf("-import prints %q", got)
		}
	}
}

// A paster runs the blocks of a page in a shell. It replaces the ports and the directory
// of the page by free ones.
type paster struct {
	t       *testing.T
	dir     string
	in      io.Writer
	out     *bufio.Reader
	stderr  *output
	replace *strings.Replacer
}

func startPaste(t *testing.T) *paster {
	dir := t.TempDir()
	// "go build" copies the server that the test has built.
	writeFile(t, filepath.Join(dir, "go"), "#!/bin/sh\n[ \"$*\" = 'build -o stdauth .' ] && cp "+binary+" stdauth\n")
	if err := os.Chmod(filepath.Join(dir, "go"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, one, _ := strings.Cut(etcdFreeAddress(t), ":")
	_, two, _ := strings.Cut(etcdFreeAddress(t), ":")
	digit := freeDigit(t)
	p := &paster{t: t, dir: dir, stderr: &output{}, replace: strings.NewReplacer(
		"2379", "2"+digit+"79", "2380", "2"+digit+"80", "8001", one, "8002", two, "/tmp/etcd", filepath.Join(dir, "etcd"))}
	cmd := exec.Command("sh")
	cmd.Dir, cmd.Stderr = dir, p.stderr
	cmd.Env = append(cleanEnv(), "PATH="+dir+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
		t.Fatal(err1, err2, err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		in.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // including processes of a failed test
		cmd.Wait()
	})
	return p
}

// paste returns the output of a block and the status of its last command.
func (p *paster) paste(block string) (printed string, status int) {
	p.t.Helper()
	const end = "\x1e"
	fmt.Fprintf(p.in, "%s\nprintf '\\036%%d\\n' $?\n", p.replace.Replace(block))
	printed, err1 := p.out.ReadString(end[0])
	last, err2 := p.out.ReadString('\n')
	if _, err := fmt.Sscan(last, &status); err1 != nil || err2 != nil || err != nil {
		p.t.Fatalf("%s\nthe shell ended: %v %v %v\n%s\n%s", block, err1, err2, err, printed, p.stderr)
	}
	printed = strings.ReplaceAll(strings.TrimSuffix(printed, end), filepath.Join(p.dir, "etcd"), "/tmp/etcd")
	return regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(printed, "2026-01-02T03:04:05Z"), status
}

// freeDigit returns a digit with which the six ports of the page are free.
func freeDigit(t *testing.T) string {
	t.Helper()
	for _, digit := range []string{"4", "5", "6"} {
		free := true
		for _, port := range []string{"12379", "12380", "22379", "22380", "32379", "32380"} {
			l, err := net.Listen("tcp", "127.0.0.1:"+port[:2]+digit+port[3:])
			if err == nil {
				l.Close()
			}
			free = free && err == nil
		}
		if free {
			return digit
		}
	}
	t.Fatal("the ports of docs/etcd.md are in use with every digit")
	return ""
}
