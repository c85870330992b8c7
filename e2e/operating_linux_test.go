package e2e

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDockerfile runs the instructions of the Dockerfile without Docker. The build stage
// runs in a directory, and the other stage becomes the root directory of a process.
func TestDockerfile(t *testing.T) {
	if os.Getuid() != 0 {
		missing(t, "the right of root to chroot and to change the uid", "run the test as root")
	}
	build, root := t.TempDir(), t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // the process must reach its root directory
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	var user uint32
	var entrypoint, healthcheck, env []string
	seen := map[string]string{}
	stage := 0
	for line := range strings.Lines(repoFile(t, "Dockerfile")) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		instruction, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen[instruction] = args
		fields := strings.Fields(args)
		switch {
		case instruction == "FROM":
			if stage++; stage == 1 {
				checkGoImage(t, args)
			} else if args != "scratch" {
				t.Errorf("the image is FROM %s, want scratch", args)
			}
		case instruction == "WORKDIR" && stage == 1 && args == "/src": // the directory build
		case instruction == "COPY" && stage == 1 && args == ". .":
			copyContext(t, build)
		case instruction == "RUN" && stage == 1:
			if out, err := run(t, build, []string{"GOFLAGS=-mod=readonly", "GOPROXY=off"}, "sh", "-c", args); err != nil {
				t.Fatalf("RUN %s: %v\n%s", args, err, out)
			}
		case instruction == "COPY" && stage == 2 && fields[0] == "--from=build":
			owner := "0:0"
			if chown, ok := strings.CutPrefix(fields[1], "--chown="); ok {
				owner, fields = chown, fields[1:]
			}
			from := strings.Replace(fields[1], "/src", build, 1)
			if out, err := run(t, "", nil, "sh", "-c", fmt.Sprintf("mkdir -p %[1]s && cp -a %[2]s %[3]s && chown -R %[4]s %[3]s",
				filepath.Join(root, path.Dir(fields[2])), from, filepath.Join(root, fields[2]), owner)); err != nil {
				t.Fatalf("COPY %s: %v\n%s", args, err, out)
			}
		case instruction == "USER":
			uid, gid, _ := strings.Cut(args, ":")
			n, err := strconv.ParseUint(uid, 10, 32)
			if err != nil || uid != gid {
				t.Fatalf("USER %s, want the same number twice, as an empty image has no names", args)
			}
			user = uint32(n)
		case instruction == "ENV":
			env = fields
		case instruction == "ENTRYPOINT":
			entrypoint = list(t, args)
		case instruction == "HEALTHCHECK":
			_, command, _ := strings.Cut(args, "CMD ")
			healthcheck = list(t, command)
		case instruction == "VOLUME", instruction == "EXPOSE":
		default:
			t.Fatalf("the test does not know the instruction: %s", line)
		}
	}
	if user != 65532 || seen["VOLUME"] != "/data" || seen["EXPOSE"] != "8000" {
		t.Errorf("USER %d, VOLUME %s, EXPOSE %s", user, seen["VOLUME"], seen["EXPOSE"])
	}
	if seen["ENV"] != "STDAUTH_ADDR=:8000 STDAUTH_STORE=/data/users.jsonl" {
		t.Errorf("ENV %q, want the port and a store on the volume", env)
	}
	checkStatic(t, filepath.Join(root, entrypoint[0]))

	// command is a command in a container with the environment in the page.
	command := func(args []string, with ...string) *exec.Cmd {
		with = append([]string{"SECRET_KEY=" + testKey, "ADMIN_PASSWORD=staple battery"}, with...)
		return &exec.Cmd{
			Path: args[0], Args: args, Dir: "/", Env: append(env, with...),
			SysProcAttr: &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}},
		}
	}
	start := func(args ...string) *server {
		t.Helper()
		return startCommand(t, command(append(entrypoint, args...), "STDAUTH_ADDR=127.0.0.1:0"))
	}
	s := start("-admin", "root")
	first, _ := logIn(t, s, "root", "staple battery")
	if out, err := command(healthcheck, "STDAUTH_ADDR="+s.Addr).CombinedOutput(); err != nil {
		t.Errorf("HEALTHCHECK while the server runs: %v %s", err, out)
	}
	s.stop(t)
	if out, err := command(healthcheck, "STDAUTH_ADDR="+s.Addr).CombinedOutput(); err == nil || !strings.Contains(string(out), "connection refused") {
		t.Errorf("HEALTHCHECK after the server has ended: %v %s, want an error", err, out)
	}
	s = start("-admin", "root")
	if err := whoAmI(clusterClient, s.URL, first); err != nil {
		t.Errorf("a token from before the restart: %v", err)
	}
	s.stop(t)

	var status syscall.Stat_t
	file := filepath.Join(root, "data", "users.jsonl")
	if err := syscall.Stat(file, &status); err != nil || status.Uid != user || status.Mode&0o777 != 0o600 {
		t.Errorf("%s belongs to %d and has mode %o (%v), want %d and 600", file, status.Uid, status.Mode&0o777, err, user)
	}
	cmd := command([]string{entrypoint[0], "-store", "/users.jsonl"}, "STDAUTH_ADDR=127.0.0.1:0")
	timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }) // a server that starts nevertheless
	defer timer.Stop()
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "permission denied") {
		t.Errorf("a store outside of the volume: %v %s, want permission denied", err, out)
	}
}

// list reads a command as a list, because an empty image has no shell.
func list(t *testing.T, args string) (command []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(args), &command); err != nil {
		t.Fatalf("%s is not a list: %v", args, err)
	}
	return command
}

// checkGoImage checks that the image has the Go release in go.mod.
func checkGoImage(t *testing.T, from string) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(repoFile(t, "go.mod"))
	if m == nil || from != "golang:"+m[1]+" AS build" {
		t.Errorf("FROM %s, and go.mod has %v", from, m)
	}
}

// copyContext copies the files that .dockerignore does not exclude, as "COPY . ." does. The
// last matching pattern decides.
func copyContext(t *testing.T, to string) {
	t.Helper()
	var patterns []string
	for line := range strings.Lines(repoFile(t, ".dockerignore")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			patterns = append(patterns, line)
		}
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		ignored := false
		for _, pattern := range patterns {
			bare, exception := strings.CutPrefix(pattern, "!")
			if match, err := filepath.Match(bare, entry.Name()); err != nil {
				t.Fatalf(".dockerignore: %s: %v", pattern, err)
			} else if match {
				ignored = !exception
			}
		}
		if ignored {
			continue
		}
		if out, err := run(t, "", nil, "cp", "-r", filepath.Join("..", entry.Name()), to); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(to, "*_test.go")); len(files) > 0 {
		t.Errorf(".dockerignore does not exclude the tests: %v", files)
	}
}

// TestSecretFiles: systemd accepts the lines in docs/operating.md, and the server starts with
// the files that the page names.
func TestSecretFiles(t *testing.T) {
	analyze := find(t, "apt-get install systemd", "systemd-analyze")
	page, dir := repoFile(t, "docs/operating.md"), t.TempDir()
	_, ini, _ := strings.Cut(page, "```ini\n")
	ini, _, _ = strings.Cut(ini, "```")
	unit := filepath.Join(dir, "stdauth.service")
	text := strings.NewReplacer("/usr/local/bin/stdauth", binary, "/etc/stdauth", dir+"/stdauth").Replace(repoFile(t, "docs/stdauth.service"))
	writeFile(t, unit, text)
	if err := os.Mkdir(unit+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(unit+".d", "key.conf"), ini)
	if out, err := run(t, "", nil, analyze, "verify", "--man=no", unit); err != nil || out != "" {
		t.Errorf("systemd-analyze verify with\n%s: %v\n%s", ini, err, out)
	}

	for kind, want := range map[string]int{"ini": 1, "yaml": 4} {
		found := 0
		for _, block := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
			env := []string{}
			for _, m := range regexp.MustCompile(`(\w+)_FILE(?:: |=|, value: )([\w/%-]+)`).FindAllStringSubmatch(block[1], -1) {
				file := filepath.Join(dir, filepath.Base(m[2]))
				writeFile(t, file, map[string]string{"SECRET_KEY": testKey, "ADMIN_PASSWORD": "staple battery"}[m[1]]+"\n")
				env = append(env, m[1]+"_FILE="+file)
			}
			found += len(env)
			s := startServer(t, append(env, "-store", filepath.Join(t.TempDir(), "users.jsonl"), "-admin", "root")...)
			if strings.Contains(block[1], "ADMIN_PASSWORD") {
				logIn(t, s, "root", "staple battery")
			}
			s.stop(t)
		}
		if found != want {
			t.Errorf("docs/operating.md has %d files of secrets in %s, want %d", found, kind, want)
		}
	}
}

// checkStatic checks that a program has no interpreter, as an empty image has none.
func checkStatic(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not a static binary", file)
		}
	}
}

// TestSystemdUnit: systemd accepts the unit, and the commands of docs/operating.md install
// it. A directory stands for the root of the machine, and the test starts the server with
// the command in the unit.
func TestSystemdUnit(t *testing.T) {
	analyze := find(t, "apt-get install systemd", "systemd-analyze")
	find(t, "apt-get install openssl", "openssl")
	machine, bin := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"go":        `[ "$*" = "build -o stdauth ." ] && cp ` + binary + ` stdauth`,
		"sudo":      `exec "$@"`,
		"systemctl": `echo systemctl "$@"`,
	} {
		writeFile(t, filepath.Join(bin, name), "#!/bin/sh\n"+text+"\n")
		if err := os.Chmod(filepath.Join(bin, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"docs", "usr/local/bin", "etc/systemd/system", "var/lib/stdauth"} {
		if err := os.MkdirAll(filepath.Join(machine, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(machine, "docs/stdauth.service"), repoFile(t, "docs/stdauth.service"))
	here := strings.NewReplacer("/usr/local/bin/", machine+"/usr/local/bin/", "/etc/", machine+"/etc/", "/var/lib/", machine+"/var/lib/")
	_, commands, _ := strings.Cut(repoFile(t, "docs/operating.md"), "\n```sh\n")
	commands, _, _ = strings.Cut(commands, "```")
	out, err := run(t, machine, []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, "sh", "-ec", here.Replace(commands))
	if want := "systemctl daemon-reload\nsystemctl enable --now stdauth\n"; err != nil || out != want {
		t.Fatalf("%s\nprints %q (%v), want %q", commands, out, err, want)
	}

	installed := filepath.Join(machine, "etc/systemd/system/stdauth.service")
	unit, err := os.ReadFile(installed)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, installed, here.Replace(string(unit))) // with the paths of the directory
	if out, err := run(t, "", nil, analyze, "verify", "--man=no", installed); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	set := map[string]string{}
	for line := range strings.Lines(here.Replace(string(unit))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			set[name] = value
		}
	}
	for name, want := range map[string]string{"WantedBy": "multi-user.target", "StateDirectory": "stdauth", "Restart": "on-failure", "RestartSec": "5"} {
		if set[name] != want {
			t.Errorf("%s=%s, want %s", name, set[name], want)
		}
	}
	if stop, _ := strconv.Atoi(set["TimeoutStopSec"]); stop <= 10 {
		t.Errorf("TimeoutStopSec=%d, want more than the 10 s for requests under way", stop)
	}

	env, err := os.ReadFile(set["EnvironmentFile"])
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(set["EnvironmentFile"]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600, as it has the key", set["EnvironmentFile"], info.Mode())
	}
	args := strings.Fields(set["ExecStart"])
	cmd := exec.Command(args[0], append(args[1:], "-addr", "127.0.0.1:0", "-debug-addr", "127.0.0.1:0")...)
	cmd.Env = strings.Split(strings.TrimSpace(string(env)), "\n")
	s := startCommand(t, cmd)
	logIn(t, s, "root", "staple battery")
	start := time.Now()
	s.stop(t)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the server took %v to stop, want at most 5s", took)
	}
}
