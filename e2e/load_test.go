package e2e

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// In a storm many clients log in without pause. Each login costs a tenth of a second of a
// core, and requests with a token must be served meanwhile.

// TestLoginStorm has the rules that hold on any machine. It starts logins until the server
// refuses one; then all clients give up.
func TestLoginStorm(t *testing.T) {
	s := startServer(t, "-debug-addr", "127.0.0.1:0")
	access, _ := logIn(t, s, "admin", "secret") // another account, as the sessions of johndoe are limited to 100
	probe := startProbe(t, s, access)

	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	clients := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer clients.CloseIdleConnections()
	responses, started := make(chan clusterAnswer, 1000), 0
	ended, turnedAway := 0, 0
	for turnedAway == 0 && started < cap(responses) {
		select {
		case a := <-responses:
			ended++
			turnedAway += a.checkLogin(t)
		default:
			started++
			go func() { responses <- tryLogin(ctx, clients, s) }()
			time.Sleep(time.Millisecond) // lets the clients run
		}
	}
	if turnedAway == 0 {
		t.Errorf("none of %d logins at once was refused, want some", started)
	}
	giveUp()
	for ; ended < started; ended++ {
		if a := <-responses; !errors.Is(a.err, context.Canceled) {
			a.checkLogin(t)
		}
	}

	// When the server has noticed, a new login waits for the running hash, and not for
	// the clients that have gone.
	for noticed := time.Now().Add(time.Minute); tryLogin(t.Context(), http.DefaultClient, s).checkLogin(t) > 0; {
		if time.Now().After(noticed) {
			t.Fatal("logins are still refused a minute after all clients have gone")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if made := metric(t, s, `stdauth_logins_total{outcome="ok"}`); made > float64(started)/2 {
		t.Errorf("%.0f logins were completed for %d clients that have gone, want most of them out of the queue", made, started)
	}
	if asked, _ := probe.stop(); asked < 10 {
		t.Errorf("the test sent %d GET /users/me/ in the storm, want 10 or more", asked)
	}
}

// BenchmarkLoginStorm measures 64 clients that log in without pause, and one that sends
// GET /users/me/ every 5 ms. It reports the latency of that request, in the storm and
// before it, and the logins per second, compared with the rate of the hash alone. One
// iteration is one round, and the figures are medians of the rounds.
//
//	go -C e2e test -run '^$' -bench LoginStorm -benchtime 3x
//
// On one core, taskset binds the server and the bare hash to the first core, and the
// clients to the others. Without taskset, GOMAXPROCS=1 limits the server to one core at a
// time, which it shares with the clients.
func BenchmarkLoginStorm(b *testing.B) {
	for cores := 1; cores <= min(2, runtime.NumCPU()); cores++ {
		b.Run(fmt.Sprintf("cores=%d", cores), func(b *testing.B) {
			s := startServer(b, fmt.Sprintf("GOMAXPROCS=%d", cores))
			access, _ := logIn(b, s, "admin", "secret")
			var bind []string
			if taskset, err := exec.LookPath("taskset"); err == nil && cores == 1 && runtime.NumCPU() > 1 {
				bind = []string{taskset, "-c", "0"}
				bindTo(b, s.cmd.Process.Pid, "0")
				bindTo(b, os.Getpid(), fmt.Sprintf("1-%d", runtime.NumCPU()-1))
				b.Cleanup(func() { bindTo(b, os.Getpid(), fmt.Sprintf("0-%d", runtime.NumCPU()-1)) })
			}
			figures := map[string][]float64{}
			for b.Loop() {
				quiet := startProbe(b, s, access)
				time.Sleep(2 * time.Second)
				_, idle := quiet.stop()
				hashes := bareHashRate(b, bind, cores)

				probe := startProbe(b, s, access)
				logins := storm(b, s, 64, 5*time.Second)
				_, busy := probe.stop()
				for name, value := range map[string]float64{
					"idle-p50-ms": percentile(idle, 50), "idle-p99-ms": percentile(idle, 99),
					"storm-p50-ms": percentile(busy, 50), "storm-p99-ms": percentile(busy, 99),
					"logins/s": logins, "hashes/s": hashes, "logins/hash": logins / hashes,
				} {
					figures[name] = append(figures[name], value)
				}
			}
			for name, values := range figures {
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLoginStormWithResets is the same storm, in which each client also asks for a
// reset after each login, on all cores.
//
//	go -C e2e test -run '^$' -bench LoginStormWithResets -benchtime 3x
func BenchmarkLoginStormWithResets(b *testing.B) {
	s := startServer(b)
	access, _ := logIn(b, s, "admin", "secret")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: resetConnections, MaxConnsPerHost: resetConnections}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var without, with []float64
	for b.Loop() {
		for _, resets := range []bool{false, true} {
			ctx, stop := context.WithCancel(b.Context())
			var asking sync.WaitGroup
			for n := range 64 {
				asking.Go(func() {
					for resets && ctx.Err() == nil {
						body := strings.NewReader(fmt.Sprintf(`{"username":"user%d"}`, n))
						if resp, err := client.Post(s.URL+"/forgot-password", "application/json", body); err == nil {
							resp.Body.Close()
						}
						time.Sleep(time.Second) // as long as a login takes
					}
				})
			}
			probe := startProbe(b, s, access)
			storm(b, s, 64, 5*time.Second)
			_, busy := probe.stop()
			stop()
			asking.Wait()
			if resets {
				with = append(with, percentile(busy, 99))
			} else {
				without = append(without, percentile(busy, 99))
			}
		}
	}
	slices.Sort(without)
	slices.Sort(with)
	b.ReportMetric(without[len(without)/2], "storm-p99-ms")
	b.ReportMetric(with[len(with)/2], "with-resets-p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkVictimLogin measures the share of the logins of a victim that succeed while 300
// connections try passwords for random names without pause, from one address or from 300.
// The victim is known, because the account has a live session from the same network, or a
// stranger. The addresses are in X-Forwarded-For, as from a trusted proxy. A refused client
// comes again after 0.1 s, as all of them run on the machine of the server.
//
//	go -C e2e test -run '^$' -bench VictimLogin -benchtime 1x
func BenchmarkVictimLogin(b *testing.B) {
	for _, addresses := range []int{1, 300} {
		for _, known := range []bool{true, false} {
			b.Run(fmt.Sprintf("addresses=%d/known=%v", addresses, known), func(b *testing.B) { victimLogin(b, addresses, known) })
		}
	}
}

func victimLogin(b *testing.B, addresses int, known bool) {
	s := startServer(b, "ADMIN_PASSWORD=staple battery", "-trusted-proxy", "127.0.0.1/32,::1/128", "-admin", "root")
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 301}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	home := "203.0.113.9"
	if a := loginFrom(ctx, client, s, home, "root", "staple battery"); a.status != http.StatusOK {
		b.Fatalf("a login before the attack = %d %s %v", a.status, a.text, a.err)
	}
	from := home
	if !known {
		from = "203.0.113.10"
	}
	var attackers sync.WaitGroup
	for n := range 300 {
		attackers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				a := loginFrom(ctx, client, s, fmt.Sprintf("198.51.%d.%d", 100+n%addresses/250, 1+n%addresses%250), fmt.Sprintf("user%d-%d", n, i), "wrong")
				if a.status != http.StatusUnauthorized {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	time.Sleep(12 * time.Second) // until the queue is full
	tries, made, slowest := 0, 0, time.Duration(0)
	for b.Loop() {
		for range 30 {
			start := time.Now()
			tries++
			if a := loginFrom(b.Context(), client, s, from, "root", "staple battery"); a.status == http.StatusOK {
				made++
				slowest = max(slowest, time.Since(start))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	stop()
	attackers.Wait()
	b.ReportMetric(100*float64(made)/float64(tries), "%made")
	b.ReportMetric(slowest.Seconds(), "slowest-s")
	b.ReportMetric(0, "ns/op")
}

// One address may have 128 connections. For one more, the server closes an idle one, and a
// POST that is on its way there is lost. So the 64 of a storm leave room for these.
const (
	probeConnections = 40
	resetConnections = 16
)

// storm makes a number of clients log in without pause, and returns the rate of successful
// logins.
func storm(t testing.TB, s *server, clients int, d time.Duration) (perSecond float64) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	start := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, last := 0, start
	for range clients {
		wg.Go(func() {
			for time.Since(start) < d {
				a := tryLogin(t.Context(), client, s)
				a.checkLogin(t)
				if a.status == http.StatusOK {
					mu.Lock()
					made, last = made+1, time.Now()
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return float64(made) / last.Sub(start).Seconds()
}

func tryLogin(ctx context.Context, client *http.Client, s *server) clusterAnswer {
	return loginFrom(ctx, client, s, "", "johndoe", "secret")
}

// loginFrom logs in from an address behind a trusted proxy.
func loginFrom(ctx context.Context, client *http.Client, s *server, address, username, password string) clusterAnswer {
	r := clusterRequest("POST", s.URL+"/token", "", url.Values{"username": {username}, "password": {password}})
	if address != "" {
		r.Header.Set("X-Forwarded-For", address)
	}
	return clusterSend(client, r.WithContext(ctx))
}

// checkLogin checks that a login with the right password succeeds or gets a Retry-After. It
// returns 1 in the second case.
func (a clusterAnswer) checkLogin(t testing.TB) int {
	t.Helper()
	later := a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
	switch seconds, _ := strconv.Atoi(a.header.Get("Retry-After")); {
	case a.err != nil:
		t.Errorf("POST /token: %v", a.err)
	case later && seconds < 1:
		t.Errorf("POST /token = %d with Retry-After %q, want a number of seconds", a.status, a.header.Get("Retry-After"))
	case !later && a.status != http.StatusOK:
		t.Errorf("POST /token = %d %s, want 200, or 429 or 503 with Retry-After", a.status, a.text)
	}
	if later {
		return 1
	}
	return 0
}

// A probe sends GET /users/me/ every 5 ms, without waiting for the last response.
type probe struct {
	quit func()         // may be called twice
	done chan []float64 // the latencies in ms
}

func startProbe(t testing.TB, s *server, access string) *probe {
	quit := make(chan struct{})
	p := &probe{sync.OnceFunc(func() { close(quit) }), make(chan []float64, 1)}
	ended := make(chan struct{})
	t.Cleanup(func() { p.quit(); <-ended }) // a failed test does not call stop
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: probeConnections, MaxConnsPerHost: probeConnections}, Timeout: time.Minute}
	go func() {
		defer close(ended)
		defer client.CloseIdleConnections()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var took []float64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				wg.Wait()
				p.done <- took
				return
			case due := <-tick.C:
				wg.Go(func() {
					if err := whoAmI(client, s.URL, access); err != nil {
						t.Errorf("GET /users/me/: %v", err)
					}
					mu.Lock()
					took = append(took, float64(time.Since(due).Microseconds())/1000)
					mu.Unlock()
				})
			}
		}
	}()
	return p
}

// stop returns the number of requests of the probe, and their latencies in ms.
func (p *probe) stop() (asked int, took []float64) {
	p.quit()
	took = <-p.done
	return len(took), took
}

func whoAmI(client *http.Client, base, access string) error {
	req, err := http.NewRequest("GET", base+"/users/me/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+access)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s", resp.Status, body)
	}
	return err
}

func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)*p/100, len(values)-1)]
}

// onlyHash, in the environment, makes TestMain hash passwords and run no tests.
const onlyHash = "STDAUTH_TEST_ONLY_HASH"

// bareHashRate returns how many passwords a second a process can hash that does nothing
// else, on as many cores as the server has.
func bareHashRate(t testing.TB, bind []string, cores int) float64 {
	command := append(slices.Clone(bind), os.Args[0])
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(cleanEnv(), fmt.Sprintf("GOMAXPROCS=%d", cores), onlyHash+"=3s")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	rate, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return rate
}

// hashOnly hashes for the duration on all its cores, and prints the rate.
func hashOnly(duration string) int {
	d, err := time.ParseDuration(duration)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	start := time.Now()
	rates := make([]float64, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range rates {
		wg.Go(func() {
			n := 0
			for ; time.Since(start) < d; n++ {
				if _, err := pbkdf2.Key(sha256.New, "secret", make([]byte, 16), 600_000, 32); err != nil {
					panic(err) // unreachable: only for invalid lengths
				}
			}
			rates[i] = float64(n) / time.Since(start).Seconds()
		})
	}
	wg.Wait()
	sum := 0.0
	for _, rate := range rates {
		sum += rate
	}
	fmt.Println(sum)
	return 0
}

// bindTo binds all threads of a process, including later ones, to some cores.
func bindTo(t testing.TB, pid int, cores string) {
	t.Helper()
	if out, err := exec.Command("taskset", "-a", "-c", "-p", cores, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		t.Errorf("taskset: %v\n%s", err, out)
	}
}

// debugURL returns the URL of the debug listener.
func debugURL(t testing.TB, log *output) string {
	t.Helper()
	_, rest, found := strings.Cut(log.String(), "msg=debugging metrics=")
	at, _, ok := strings.Cut(rest, "/metrics")
	if !found || !ok {
		t.Fatalf("the server has no debug listener\n%s", log)
	}
	return at
}

// metric returns the value of a sample of /metrics. Its name includes the labels.
func metric(t testing.TB, s *server, sample string) float64 {
	t.Helper()
	resp, err := http.Get(debugURL(t, s.log) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text := string(readAll(t, resp, http.StatusOK))
	_, rest, found := strings.Cut(text, "\n"+sample+" ")
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if !found || err != nil {
		t.Fatalf("/metrics has no number for %s:\n%s", sample, text)
	}
	return n
}
