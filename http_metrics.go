package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// metrics counts events, for the debug listener. Its output is the text format of
// Prometheus (prometheus.io/docs/instrumenting/exposition_formats). Every sample exists
// from the start, at 0, because a rate needs two values.
type metrics struct {
	gauges func() map[string]float64 // what is counted elsewhere, by sample

	mu      sync.Mutex
	counts  map[string]int64        // by sample: name and labels
	took    [len(buckets) + 1]int64 // requests by bucket, not cumulative
	seconds float64                 // the total of all requests
}

// families are the metrics, in the order of the output.
var families = []struct{ name, kind, help string }{
	{"stdauth_build_info", "gauge", "The version of this server. Always 1."},
	{"stdauth_requests_total", "counter", "Requests by route and class of status."},
	{"stdauth_request_duration_seconds", "histogram", "How long requests took."},
	{"stdauth_errors_total", "counter", "Error responses by code."},
	{"stdauth_logins_total", "counter", "Logins with a password by outcome."},
	{"stdauth_refreshes_total", "counter", "Refresh tokens accepted."},
	{"stdauth_replays_total", "counter", "Refresh tokens used again after they were replaced."},
	{"stdauth_sessions_started_total", "counter", "Sessions started."},
	{"stdauth_sessions_ended_total", "counter", "Requests that ended sessions."},
	{"stdauth_mails_total", "counter", "Mails by outcome."},
	{"stdauth_mail_queue_length", "gauge", "Mails that wait to be sent."},
	{"stdauth_hash_queue_length", "gauge", "Passwords that wait to be hashed."},
	{"stdauth_store_file_bytes", "gauge", "Size of the file of a file store."},
	{"stdauth_store_compactions_total", "counter", "Compactions of a file store."},
	{"stdauth_etcd_failovers_total", "counter", "Failovers of an etcd store to another member."},
}

// buckets are the upper bounds of the histogram, in seconds. A login takes 0.1 s.
var buckets = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newMetrics(routes []route, gauges func() map[string]float64) *metrics {
	m := &metrics{gauges: gauges, counts: map[string]int64{
		`stdauth_logins_total{outcome="ok"}`: 0, `stdauth_logins_total{outcome="failed"}`: 0, `stdauth_logins_total{outcome="refused"}`: 0,
		mailSample("sent"): 0, mailSample("failed"): 0, mailSample("dropped"): 0,
		"stdauth_refreshes_total": 0, "stdauth_replays_total": 0, "stdauth_sessions_started_total": 0, "stdauth_sessions_ended_total": 0,
	}}
	for _, p := range problems {
		m.counts[errorSample(p.code)] = 0
	}
	for class := 1; class <= 5; class++ {
		m.counts[requestSample("", class)] = 0 // requests without a route
		for _, r := range routes {
			m.counts[requestSample(r.pattern, class)] = 0
		}
	}
	return m
}

func errorSample(code string) string { return `stdauth_errors_total{code="` + code + `"}` }

func requestSample(pattern string, class int) string {
	method, _, _ := strings.Cut(pattern, " ")
	return `stdauth_requests_total{method="` + method + `",route="` + routeName(pattern) + `",class="` + strconv.Itoa(class) + `xx"}`
}

// count adds one to a sample.
func (m *metrics) count(sample string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[sample]++
}

// observe counts a response.
func (m *metrics) observe(c *call, took time.Duration) {
	sample := requestSample(c.route, min(c.status/100, 5))
	bucket, _ := slices.BinarySearch(buckets[:], took.Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[sample]++
	m.took[bucket]++
	m.seconds += took.Seconds()
	if c.login != "" {
		m.counts[`stdauth_logins_total{outcome="`+c.login+`"}`]++
	}
}

// write writes all samples, by family and then by labels.
func (m *metrics) write(w io.Writer) {
	samples := m.gauges()
	m.mu.Lock()
	defer m.mu.Unlock()
	for sample, n := range m.counts {
		samples[sample] = float64(n)
	}
	names := slices.Sorted(maps.Keys(samples))
	for _, f := range families {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		if f.kind == "histogram" {
			m.writeHistogram(w, f.name)
		}
		for _, name := range names {
			if family, _, _ := strings.Cut(name, "{"); family == f.name {
				fmt.Fprintf(w, "%s %g\n", name, samples[name])
			}
		}
	}
}

func (m *metrics) writeHistogram(w io.Writer, name string) {
	total := int64(0)
	for i, n := range m.took {
		total += n
		bound := "+Inf"
		if i < len(buckets) {
			bound = fmt.Sprint(buckets[i])
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", name, bound, total)
	}
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, m.seconds, name, total)
}

// gauges returns the samples that metrics does not count.
func (s *server) gauges() map[string]float64 {
	version, _ := build()
	g := map[string]float64{
		fmt.Sprintf("stdauth_build_info{version=%q,go=%q}", version, runtime.Version()): 1,

		"stdauth_mail_queue_length": float64(s.mailer.Waiting()),
		"stdauth_hash_queue_length": float64(s.passwords.queue.waiting()),
		"stdauth_store_file_bytes":  0, "stdauth_store_compactions_total": 0, "stdauth_etcd_failovers_total": 0,
	}
	if store, ok := s.store.(interface{ Metrics() map[string]float64 }); ok {
		maps.Copy(g, store.Metrics())
	}
	return g
}

// build returns the version and the commit of this program.
func build() (version, commit string) {
	version, commit = "(devel)", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return version, commit
}
