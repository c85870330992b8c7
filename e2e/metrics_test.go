package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The server writes /metrics by hand. These tests read it with the code of Prometheus.

// scrape reads /metrics as Prometheus does, and returns the samples by their name and
// labels.
func scrape(t testing.TB, s *server) (families map[string]*dto.MetricFamily, samples map[string]float64) {
	t.Helper()
	resp, err := http.Get(debugURL(t, s.log) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if format := expfmt.ResponseFormat(resp.Header); format.FormatType() != expfmt.TypeTextPlain {
		t.Errorf("/metrics has the Content-Type %q, want one that Prometheus knows", resp.Header.Get("Content-Type"))
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err = parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatalf("/metrics: %v", err)
	}
	samples = map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			id := name
			if labels != nil {
				id += "{" + strings.Join(labels, ",") + "}"
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				samples[id] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				samples[id] = m.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				samples[id+"_count"], samples[id+"_sum"] = float64(m.Histogram.GetSampleCount()), m.Histogram.GetSampleSum()
				last := uint64(0)
				for _, b := range m.Histogram.Bucket {
					if b.GetCumulativeCount() < last {
						t.Errorf("%s: the bucket up to %v has fewer observations than the one below", id, b.GetUpperBound())
					}
					last = b.GetCumulativeCount()
				}
				if last != m.Histogram.GetSampleCount() {
					t.Errorf("%s: the last bucket has %d of %d observations", id, last, m.Histogram.GetSampleCount())
				}
			default:
				t.Errorf("%s is of type %v", name, f.GetType())
			}
		}
	}
	return families, samples
}

func TestMetrics(t *testing.T) {
	s := startServer(t, "SECRET_KEY="+testKey, "ADMIN_PASSWORD=staple battery", "-admin", "root",
		"-store", filepath.Join(t.TempDir(), "users.jsonl"), "-debug-addr", "127.0.0.1:0")
	families, before := scrape(t, s)
	for name, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no HELP", name)
		}
		if strings.HasSuffix(name, "_total") != (f.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s is a %v", name, f.GetType())
		}
	}
	for id, value := range before {
		switch {
		case strings.HasPrefix(id, "stdauth_build_info{"), id == "stdauth_store_file_bytes", strings.Contains(id, "duration"), strings.Contains(id, "/readyz"):
		case value != 0:
			t.Errorf("%s starts at %v, want 0", id, value)
		}
	}

	// The events below have different counts where a mistake could exchange them.
	access, refresh := logIn(t, s, "root", "staple battery")
	post := func(path string, form url.Values, want int) []byte {
		t.Helper()
		resp, err := http.PostForm(s.URL+path, form)
		if err != nil {
			t.Fatal(err)
		}
		return readAll(t, resp, want)
	}
	for range 2 {
		post("/token", url.Values{"username": {"root"}, "password": {"guess"}}, http.StatusUnauthorized)
	}
	newest := refresh
	for range 3 {
		time.Sleep(1100 * time.Millisecond) // a token rotates once a second at most
		var next struct {
			RefreshToken string `json:"refresh_token"`
		}
		if err := json.Unmarshal(post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {newest}}, http.StatusOK), &next); err != nil {
			t.Fatal(err)
		}
		newest = next.RefreshToken
	}
	if err := whoAmI(http.DefaultClient, s.URL, access); err != nil {
		t.Fatal(err)
	}
	post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}, http.StatusBadRequest) // replayed
	if resp, err := http.Get(s.URL + "/nowhere"); err != nil {
		t.Fatal(err)
	} else {
		readAll(t, resp, http.StatusNotFound)
	}

	_, after := scrape(t, s)
	got := map[string]float64{}
	for id, value := range after {
		if change := value - before[id]; change != 0 && !strings.Contains(id, "file_bytes") && !strings.HasSuffix(id, "_sum") {
			got[id] = change
		}
	}
	want := map[string]float64{
		`stdauth_requests_total{method="POST",route="/token",class="2xx"}`:    4,
		`stdauth_requests_total{method="POST",route="/token",class="4xx"}`:    3,
		`stdauth_requests_total{method="GET",route="/users/me/",class="2xx"}`: 1,
		`stdauth_requests_total{method="",route="",class="4xx"}`:              1,
		`stdauth_request_duration_seconds_count`:                              9,
		`stdauth_logins_total{outcome="ok"}`:                                  1,
		`stdauth_logins_total{outcome="failed"}`:                              2,
		`stdauth_errors_total{code="incorrect_login"}`:                        2,
		`stdauth_errors_total{code="invalid_refresh_token"}`:                  1,
		`stdauth_errors_total{code="not_found"}`:                              1,
		`stdauth_refreshes_total`:                                             3,
		`stdauth_replays_total`:                                               1,
		`stdauth_sessions_started_total`:                                      1,
		`stdauth_sessions_ended_total`:                                        1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the changes of the samples are\n%v, want\n%v", got, want)
	}
	if took := after["stdauth_request_duration_seconds_sum"]; took < 0.1 || took > 60 {
		t.Errorf("nine requests, three of them with a password, took %v s", took)
	}
	if after["stdauth_store_file_bytes"] <= before["stdauth_store_file_bytes"] {
		t.Error("stdauth_store_file_bytes has not grown")
	}
	missing := slices.DeleteFunc(slices.Sorted(maps.Keys(before)), func(id string) bool { _, there := after[id]; return there })
	if len(missing) > 0 || len(before) != len(after) {
		t.Errorf("/metrics has %d samples at first and %d later; missing: %v", len(before), len(after), missing)
	}
}

// TestPromtool: promtool of Prometheus accepts the metrics, and the expressions for alerts
// in the pages.
func TestPromtool(t *testing.T) {
	promtool := find(t, "apt-get install prometheus", "promtool")
	s := startServer(t, "-debug-addr", "127.0.0.1:0")
	resp, err := http.Get(debugURL(t, s.log) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(string(readAll(t, resp, http.StatusOK)))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}

	rules := []string{"groups:", "- name: docs", "  rules:"}
	found := 0
	for _, name := range []string{"docs/operating.md", "docs/etcd.md"} {
		_, table, _ := strings.Cut(repoFile(t, name), "| alert on |")
		table, _, _ = strings.Cut(table, "\n\n")
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
			rules = append(rules, fmt.Sprintf("  - alert: Rule%d\n    expr: %q", found, m[1]))
			found++
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	writeFile(t, file, strings.Join(rules, "\n"))
	if out, err := run(t, "", nil, promtool, "check", "rules", file); err != nil || !strings.Contains(out, fmt.Sprintf("SUCCESS: %d rules found", found)) || found < 15 {
		t.Errorf("promtool check rules of %d rules, want 15 or more: %v\n%s", found, err, out)
	}
}
