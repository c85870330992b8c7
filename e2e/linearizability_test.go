//go:build unix

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// In these tests many clients send random requests about a few accounts at once, while
// processes are killed and frozen and connections are cut. All requests and responses are
// recorded. Porcupine searches an order of the requests in which the contract yields these
// responses, with each request taking effect at one moment between its beginning and its
// end. A history with such an order is linearizable (Herlihy and Wing, 1990): the server
// cannot be told from one that handles one request at a time.
//
//	go -C e2e test -v -run 'Linearizable|Checker' -linearizability 1m

var (
	linearizabilityFor = flag.Duration("linearizability", 5*time.Second, "approximate duration of each test of linearizability")
	seedFlag           = flag.Uint64("seed", 0, "seed of the tests of linearizability; 0 chooses a random one")
)

// TestHistoriesOfAFileStoreThatIsKilledAreLinearizable: a copy that is killed and started
// again on its file has all acknowledged changes. Its histories are durably linearizable.
// Each life of the copy begins with a compaction.
func TestHistoriesOfAFileStoreThatIsKilledAreLinearizable(t *testing.T) {
	tr := startFileTrial(t, *linearizabilityFor)
	padded, compactions := int64(1<<62), 0
	tr.run([]plan{oneAccount, oneAccount, oneAccount, patient}, 4, func(rnd *rand.Rand) {
		tr.crash(rnd, func() {
			info, err := os.Stat(tr.file)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() < padded {
				compactions++
			}
			padded = padLines(t, tr.file)
		})
	})
	tr.report()
	if compactions < 2 { // the first life has none
		t.Error("no compaction was finished before a kill, want some")
	}
	t.Logf("%d lives of the copy finished a compaction", compactions-1)
}

// padLines adds lines that change nothing to a file, unless its last line is torn, and
// returns its size. A compaction removes them.
func padLines(t testing.TB, file string) (size int64) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, bytes.Repeat([]byte(`{"last_id":1}`+"\n"), 30_000)...)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return int64(len(text))
}

// TestHistoriesOfTwoCopiesOverThreeMembersAreLinearizable: two copies of the server use
// three members of etcd. Any of them may be killed or frozen for a while, and any
// connection between two of them may be held back, in one direction or in both.
func TestHistoriesOfTwoCopiesOverThreeMembersAreLinearizable(t *testing.T) {
	tr := startClusterTrial(t, *linearizabilityFor*3/2, everyMember)
	tr.run([]plan{oneAccount, oneAccount, oneAccount, patient}, 4, tr.clusterFault)
	tr.report()
}

// TestHistoriesOfTwoAdminsAreLinearizable: the only two admins demote and disable each
// other at once. One active admin stays, and a demoted one can no longer act as an admin.
func TestHistoriesOfTwoAdminsAreLinearizable(t *testing.T) {
	t.Run("the histories of two admins on a file store are linearizable", func(t *testing.T) {
		letTwoAdminsFight(t, func(left time.Duration) *trial { return startFileTrial(t, left) })
	})
	t.Run("the histories of two admins on two copies over three members are linearizable", func(t *testing.T) {
		letTwoAdminsFight(t, func(left time.Duration) *trial { return startClusterTrial(t, left, everyMember) })
	})
}

func letTwoAdminsFight(t *testing.T, start func(left time.Duration) *trial) {
	for left := *linearizabilityFor / 4; left > 0 && !t.Failed(); {
		tr := start(left)
		tr.run([]plan{twoAdmins}, 6, nil)
		tr.report()
		left -= tr.now()
	}
}

// TestCheckerFindsAnAcknowledgementBeforeTheSync: a server that acknowledges a change
// before the sync loses it in a power cut. Here the file loses its last lines.
func TestCheckerFindsAnAcknowledgementBeforeTheSync(t *testing.T) {
	tr := startFileTrial(t, 20*time.Second)
	tr.run([]plan{planted, planted}, 4, func(rnd *rand.Rand) {
		tr.crash(rnd, func() { removeLines(t, tr.file, 8) })
	})
	tr.mustFail()
}

func removeLines(t testing.TB, file string, n int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(bytes.Lines(text))
	if err := os.WriteFile(file, bytes.Join(lines[:max(1, len(lines)-n)], nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCheckerFindsAReadFromAStaleMember: a member of etcd that is cut off from the others
// has old values. Here one of the copies makes serializable reads from such a member,
// which do not ask a majority.
func TestCheckerFindsAReadFromAStaleMember(t *testing.T) {
	var away *etcdNode
	tr := startClusterTrial(t, 20*time.Second, func(n *etcdNode, copy int) string {
		if away == nil && !n.leads() {
			away = n
		}
		switch {
		case copy == 0:
			return n.Client
		case n == away:
			return etcdProxy(t, n.Client, readWhatIsThere)
		}
		return ""
	})
	tr.writers = 1 // the other copy cannot write
	tr.cut(away, both)
	tr.run([]plan{planted, planted}, 4, nil)
	tr.mustFail()
}

// readWhatIsThere makes the reads of a call serializable: the member returns its own
// values.
func readWhatIsThere(r *http.Request, call map[string]any) {
	r.Header.Del("Grpc-Metadata-Hasleader")
	if strings.HasSuffix(r.URL.Path, "/range") {
		call["serializable"] = true
	}
	for _, op := range objects(call["success"]) {
		if read, ok := op["request_range"].(map[string]any); ok {
			read["serializable"] = true
		}
	}
}

// TestCheckerFindsARefreshRetriedWithoutItsComparison: a transaction that refreshes a
// session compares the session with the one that was read. Here the transaction is sent
// again a moment later, without that comparison.
func TestCheckerFindsARefreshRetriedWithoutItsComparison(t *testing.T) {
	tr := startClusterTrial(t, 20*time.Second, func(n *etcdNode, _ int) string {
		return etcdProxy(t, n.Client, func(r *http.Request, call map[string]any) {
			if renewsSession(call) {
				time.AfterFunc(30*time.Millisecond, func() {
					etcdCall(n, r.URL.Path, map[string]any{"success": call["success"]}, nil)
				})
			}
		})
	})
	tr.run([]plan{planted, planted}, 4, nil)
	tr.mustFail()
}

// renewsSession reports whether a call writes the key of a session, and compares it.
func renewsSession(call map[string]any) bool {
	for _, op := range objects(call["success"]) {
		put, _ := op["request_put"].(map[string]any)
		for _, compare := range objects(call["compare"]) {
			text, _ := put["key"].(string)
			key, _ := base64.StdEncoding.DecodeString(text)
			if compare["key"] == text && bytes.Contains(key, []byte("/sessions/")) {
				return true
			}
		}
	}
	return false
}

// objects returns the objects of a JSON array.
func objects(array any) (list []map[string]any) {
	all, _ := array.([]any)
	for _, v := range all {
		if o, ok := v.(map[string]any); ok {
			list = append(list, o)
		}
	}
	return list
}

// etcdProxy returns the address of a proxy for a member, which changes the calls with
// change.
func etcdProxy(t testing.TB, member string, change func(r *http.Request, call map[string]any)) string {
	t.Helper()
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(http.StatusBadGateway) },
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: member})
			body, _ := io.ReadAll(r.In.Body)
			var call map[string]any
			if json.Unmarshal(body, &call) == nil {
				change(r.Out, call)
				body, _ = json.Marshal(call)
			}
			r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		},
	})
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}
