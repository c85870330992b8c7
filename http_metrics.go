package main

import (
	"expvar"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// metrics counts events, for the debug listener. Its output is the text format of
// Prometheus (prometheus.io/docs/instrumenting/exposition_formats). Every sample exists
// from the start, at 0, because a rate needs two values: newServer adds those that other
// parts count.
type metrics struct {
	samples expvar.Map                     // by name and labels, but for those of the histogram
	took    [len(buckets) + 1]atomic.Int64 // requests by bucket, not cumulative
	seconds expvar.Float                   // the total of all requests
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

func newMetrics(routes []route) *metrics {
	m := &metrics{}
	for _, sample := range []string{
		`stdauth_logins_total{outcome="ok"}`, `stdauth_logins_total{outcome="failed"}`, `stdauth_logins_total{outcome="refused"}`,
		`stdauth_mails_total{outcome="sent"}`, `stdauth_mails_total{outcome="failed"}`, `stdauth_mails_total{outcome="dropped"}`,
		"stdauth_refreshes_total", "stdauth_replays_total", "stdauth_sessions_started_total", "stdauth_sessions_ended_total",
	} {
		m.samples.Add(sample, 0)
	}
	for _, r := range append(routes, route{}) { // and requests without a route
		for class := 1; class <= 5; class++ {
			m.samples.Add(requestSample(r.pattern, class), 0)
		}
	}
	version, _ := build()
	m.samples.Add(fmt.Sprintf("stdauth_build_info{version=%q,go=%q}", version, runtime.Version()), 1)
	return m
}

func errorSample(code string) string { return `stdauth_errors_total{code="` + code + `"}` }

func requestSample(pattern string, class int) string {
	method, _, _ := strings.Cut(pattern, " ")
	return `stdauth_requests_total{method="` + method + `",route="` + routeName(pattern) + `",class="` + strconv.Itoa(class) + `xx"}`
}

// gauge adds a sample that is counted elsewhere.
func (m *metrics) gauge(sample string, read func() any) { m.samples.Set(sample, expvar.Func(read)) }

func (m *metrics) count(sample string) { m.samples.Add(sample, 1) }

// observe counts a response.
func (m *metrics) observe(c *call, took time.Duration) {
	m.count(requestSample(c.route, min(c.status/100, 5)))
	bucket, _ := slices.BinarySearch(buckets[:], took.Seconds())
	m.took[bucket].Add(1)
	m.seconds.Add(took.Seconds())
	if c.login != "" {
		m.count(`stdauth_logins_total{outcome="` + c.login + `"}`)
	}
}

// write writes all samples, by family and then by labels.
func (m *metrics) write(w io.Writer) {
	for _, f := range families {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		if f.kind == "histogram" {
			m.writeHistogram(w, f.name)
		}
		m.samples.Do(func(sample expvar.KeyValue) {
			if family, _, _ := strings.Cut(sample.Key, "{"); family == f.name {
				fmt.Fprintln(w, sample.Key, sample.Value)
			}
		})
	}
}

func (m *metrics) writeHistogram(w io.Writer, name string) {
	total := int64(0)
	for i := range m.took {
		total += m.took[i].Load()
		bound := "+Inf"
		if i < len(buckets) {
			bound = fmt.Sprint(buckets[i])
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", name, bound, total)
	}
	fmt.Fprintf(w, "%s_sum %v\n%s_count %d\n", name, &m.seconds, name, total)
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
