package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// metrics counts what happens, for the debug listener. It is written in the text
// format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats). Every
// sample is there from the start, at 0: a rate needs two of them.
type metrics struct {
	requests map[string]*[6]atomic.Int64 // by pattern and first digit of the status
	counts   map[string]*atomic.Int64    // by name and label
	took     []atomic.Int64              // requests by bucket, not cumulated
	sum      atomic.Int64                // of their durations, in nanoseconds
	gauges   func() map[string]float64   // by name and label
}

// families are the metrics, in the order in which they are written.
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
	{"stdauth_hash_queue_length", "gauge", "Passwords that wait to be hashed."},
	{"stdauth_store_file_bytes", "gauge", "Size of the file of a file store."},
	{"stdauth_store_compactions_total", "counter", "Compactions of a file store."},
	{"stdauth_etcd_failovers_total", "counter", "Times that an etcd store went on to another member."},
}

// buckets are the upper bounds of the histogram, in seconds. A login takes 0.1 s.
var buckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newMetrics(routes []route, gauges func() map[string]float64) *metrics {
	m := &metrics{
		requests: map[string]*[6]atomic.Int64{"": {}}, // "" is for requests that came to no route
		counts:   map[string]*atomic.Int64{},
		took:     make([]atomic.Int64, len(buckets)+1),
		gauges:   gauges,
	}
	for _, r := range routes {
		m.requests[r.pattern] = new([6]atomic.Int64)
	}
	for _, p := range problems {
		m.counts[`stdauth_errors_total{code="`+p.code+`"}`] = new(atomic.Int64)
	}
	for _, name := range []string{
		`logins_total{outcome="ok"}`, `logins_total{outcome="failed"}`, "refreshes_total", "replays_total", "sessions_started_total", "sessions_ended_total",
	} {
		m.counts["stdauth_"+name] = new(atomic.Int64)
	}
	return m
}

// count adds one to a sample, which must exist.
func (m *metrics) count(sample string) { m.counts[sample].Add(1) }

// observe counts a response.
func (m *metrics) observe(pattern string, w *response, took time.Duration) {
	classes, ok := m.requests[pattern]
	if !ok {
		classes = m.requests[""]
	}
	classes[min(w.status/100, 5)].Add(1)
	bucket, _ := slices.BinarySearch(buckets, took.Seconds())
	m.took[bucket].Add(1)
	m.sum.Add(int64(took))
	if w.login != "" {
		m.count(`stdauth_logins_total{outcome="` + w.login + `"}`)
	}
}

// write writes all samples.
func (m *metrics) write(w io.Writer) {
	samples := map[string]float64{}
	for pattern, classes := range m.requests {
		method, _, _ := strings.Cut(pattern, " ")
		for class := 1; class <= 5; class++ {
			samples[fmt.Sprintf(`stdauth_requests_total{method=%q,route=%q,class="%dxx"}`, method, routeOf(pattern), class)] = float64(classes[class].Load())
		}
	}
	for name, n := range m.counts {
		samples[name] = float64(n.Load())
	}
	maps.Copy(samples, m.gauges())
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
	for i := range m.took {
		total += m.took[i].Load()
		bound := "+Inf"
		if i < len(buckets) {
			bound = fmt.Sprint(buckets[i])
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", name, bound, total)
	}
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, time.Duration(m.sum.Load()).Seconds(), name, total)
}

// gauges returns the samples that are not counted here.
func (s *server) gauges() map[string]float64 {
	version, _ := build()
	g := map[string]float64{
		fmt.Sprintf("stdauth_build_info{version=%q,go=%q}", version, runtime.Version()): 1,

		"stdauth_hash_queue_length": float64(s.passwords.Waiting()),
		"stdauth_store_file_bytes":  0, "stdauth_store_compactions_total": 0, "stdauth_etcd_failovers_total": 0,
	}
	if store, ok := s.store.(interface{ Metrics() map[string]float64 }); ok {
		maps.Copy(g, store.Metrics())
	}
	return g
}

// build returns the version of this program and the commit that it was built from.
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
