package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A gateway is a client of an etcd cluster. etcd's protocol is gRPC, but every member
// also accepts the same calls as JSON over HTTP ("gRPC gateway" in etcd's
// documentation), so net/http and encoding/json are enough.
//
// It calls one member until that member fails, and then goes on with the next.
type gateway struct {
	endpoints          []string // such as http://10.0.0.1:2379
	username, password string
	client             *http.Client
	log                *slog.Logger

	failOvers atomic.Uint32          // modulo len(endpoints), the member to call
	lost      atomic.Bool            // the last call found no working member
	skewed    atomic.Bool            // the clock of a member was found to differ
	cluster   atomic.Pointer[string] // the ID of the first that responded

	renewing sync.Mutex
	token    atomic.Pointer[string] // for the user
}

const (
	// How long to wait for one member, and for all. A new leader is elected one to two
	// seconds after the old one was last heard of (--election-timeout, 1 s): a request
	// survives that.
	etcdTry      = 1500 * time.Millisecond
	etcdPatience = 4 * time.Second

	maxEtcdResponse = 8 << 20 // bytes; a thousand accounts are under 4 MiB
	maxEtcdAccount  = 6000    // bytes; a thousand in base64 are under maxEtcdResponse
	maxEtcdConns    = 256     // more requests would only wait inside etcd
)

// newGateway parses an address as in -store. It does not connect yet.
func newGateway(address, username, password string) (g *gateway, prefix string, err error) {
	endpoints, prefix, err := parseEtcdAddress(address)
	if err != nil {
		return nil, "", err
	}
	transport := &http.Transport{ // no proxy: the cluster is part of this server
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
		MaxIdleConnsPerHost: maxEtcdConns,
		MaxConnsPerHost:     maxEtcdConns,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: time.Second, // a dial goes on, and counts, after its request has given up
	}
	// Members do not redirect. Following a redirect could send keys and etcd's password
	// to any address.
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// Copies of the server should not all use the same member, nor all go to the same
	// one when it fails.
	rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	return &gateway{
		endpoints: endpoints, username: username, password: password, log: slog.New(slog.DiscardHandler),
		client: &http.Client{Transport: transport, CheckRedirect: noRedirect},
	}, prefix, nil
}

// parseEtcdAddress splits etcd://host:port,host:port/prefix. It must not have a user
// and password, because every user of the machine can see a command line.
func parseEtcdAddress(address string) (endpoints []string, prefix string, err error) {
	scheme, rest, _ := strings.Cut(address, "://")
	base, ok := map[string]string{"etcd": "http://", "etcds": "https://"}[scheme]
	if !ok {
		return nil, "", errors.New("an etcd address begins with etcd:// or etcds://")
	}
	if strings.Contains(rest, "@") {
		return nil, "", errors.New("the user of etcd belongs in STDAUTH_ETCD_USERNAME and STDAUTH_ETCD_PASSWORD")
	}
	hosts, path, _ := strings.Cut(rest, "/")
	for hostport := range strings.SplitSeq(hosts, ",") {
		host, port, err := net.SplitHostPort(hostport)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" || strings.ContainsAny(host, " ?#%\\\"<>") {
			return nil, "", fmt.Errorf("%q in an etcd address is not host:port", hostport)
		}
		endpoints = append(endpoints, base+hostport)
	}
	path = cmp.Or(strings.Trim(path, "/"), "stdauth")
	if strings.ContainsFunc(path, func(c rune) bool { return !isPlain(string(c)) && c != '/' }) {
		return nil, "", fmt.Errorf("%q in an etcd address is not a prefix of keys: ASCII letters, digits and @ . + - _ /", path)
	}
	return endpoints, "/" + path + "/", nil
}

// A verdict on a call says what may follow.
type verdict int

const (
	verdictStop    verdict = iota // it succeeded, or every member would refuse it
	verdictRetry                  // it had no effect, and another member may accept it
	verdictUnknown                // it may have had an effect, and another member may respond
)

// judge returns the verdict on a call that returned err. Whatever is not a response of
// etcd is unknown: a load balancer's page does not tell what has happened behind it.
func (g *gateway) judge(err error) verdict {
	e, refused := errors.AsType[*etcdError](err)
	_, alarmed := errors.AsType[Alarm](err)
	op, failed := errors.AsType[*net.OpError](err)
	switch {
	case err == nil:
		return verdictStop
	case failed && op.Op == "dial":
		return verdictRetry // not sent
	case !refused:
		return verdictUnknown
	case e.wantsToken() && g.username != "", e.is("no leader"), e.is("too many requests"):
		return verdictRetry // etcd checks for these first
	case e.Code == 3, e.Code == 7, alarmed: // invalid argument, permission denied
		return verdictStop
	}
	return verdictUnknown
}

// txn sends a transaction to one member after the other until ctx is done, for
// etcdPatience at most, or half of it while the cluster is lost. A write is sent again only
// if it cannot have succeeded; otherwise its outcome is unknown.
func (g *gateway) txn(ctx context.Context, t etcdTxn, write bool) (view etcdView, err error) {
	patience := etcdPatience
	if g.lost.Load() {
		patience /= 2 // one member that hangs, and a look at the next
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	defer func() {
		if err != nil {
			err = unavailable(err)
		}
	}()
	for tries := 1; ; tries++ {
		at := g.failOvers.Load()
		view, err = g.try(ctx, g.endpoint(at), t)
		found := g.judge(err)
		switch {
		case found == verdictStop:
			if g.lost.CompareAndSwap(true, false) {
				g.log.Info("the etcd cluster responds again")
			}
			return view, err
		case errors.Is(ctx.Err(), context.Canceled): // by the caller, not by the member
			return view, context.Cause(ctx)
		case ctx.Err() != nil: // before the member has had etcdTry, so it has not failed
			if tries > 1 && time.Since(start) > etcdTry { // but another has
				g.lose()
			}
			return view, err
		}
		// Another call may have gone on to the next member already.
		if g.failOvers.CompareAndSwap(at, at+1) && len(g.endpoints) > 1 && !g.lost.Load() {
			g.log.Warn("a member of the etcd cluster failed, going on with the next", "failed", g.endpoint(at), "next", g.endpoint(at+1), "error", err)
		}
		if write && found == verdictUnknown || tries%len(g.endpoints) == 0 && !g.pause(ctx, tries/len(g.endpoints)) {
			return view, err
		}
	}
}

func (g *gateway) endpoint(at uint32) string { return g.endpoints[at%uint32(len(g.endpoints))] }

// pause waits before the next round of all members, longer each time. It returns false
// if another round is useless: no time is left, or the cluster is known to be lost and
// this call was only to find out whether it is back.
func (g *gateway) pause(ctx context.Context, rounds int) bool {
	wait := min(50*time.Millisecond<<rounds, 500*time.Millisecond)
	wait += rand.N(wait) // so that calls do not all come back together
	if end, _ := ctx.Deadline(); time.Until(end) < wait {
		g.lose()
	}
	if g.lost.Load() {
		return false
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func (g *gateway) lose() {
	if g.lost.CompareAndSwap(false, true) {
		g.log.Error("the etcd cluster does not respond")
	}
}

// try sends a transaction to one member, and once more if it wants a new token.
func (g *gateway) try(ctx context.Context, endpoint string, t etcdTxn) (view etcdView, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTry)
	defer cancel()
	var reply etcdResponse
	token := g.token.Load()
	err = g.post(ctx, endpoint+"/v3/kv/txn", token, t, &reply)
	if refusal, ok := errors.AsType[*etcdError](err); ok && refusal.wantsToken() && g.username != "" {
		if err = g.renew(ctx, endpoint, token); err == nil {
			err = g.post(ctx, endpoint+"/v3/kv/txn", g.token.Load(), t, &reply)
		}
	}
	if err == nil {
		view, err = g.view(t, reply)
	}
	if err != nil {
		return etcdView{}, fmt.Errorf("%s: %w", endpoint, err)
	}
	return view, nil
}

// renew replaces the refused token. Members forget their tokens when they restart, or
// after five minutes without use. One call fetches a token for all, because checking a
// password is expensive for etcd too.
func (g *gateway) renew(ctx context.Context, endpoint string, refused *string) error {
	g.renewing.Lock()
	defer g.renewing.Unlock()
	if g.token.Load() != refused {
		return nil
	}
	var granted struct{ Token string }
	err := g.post(ctx, endpoint+"/v3/auth/authenticate", nil, map[string]string{"name": g.username, "password": g.password}, &granted)
	if err == nil && granted.Token == "" {
		err = errNotEtcd
	}
	if err == nil {
		g.token.Store(&granted.Token)
	}
	return err
}

// post sends in to a member and decodes its response.
func (g *gateway) post(ctx context.Context, url string, token *string, in, out any) error {
	body, _ := json.Marshal(in) // of strings, bytes and integers, so it succeeds
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	// A member without a leader should say so at once instead of waiting (etcd's
	// WithRequireLeader; the gateway passes this header on).
	r.Header = http.Header{"Content-Type": {"application/json"}, "Grpc-Metadata-Hasleader": {"true"}}
	if token != nil {
		r.Header.Set("Authorization", *token)
	}
	w, err := g.client.Do(r)
	if err != nil {
		return errors.Unwrap(err) // which does not repeat the URL
	}
	defer w.Body.Close()
	date, err := http.ParseTime(w.Header.Get("Date"))
	if by := time.Since(date); err == nil && by.Abs() > leeway && g.skewed.CompareAndSwap(false, true) {
		g.log.Warn("the clocks of this copy and of a member of the etcd cluster differ", "member", r.URL.Host, "ahead", by.Round(time.Second))
	}
	reply, err := io.ReadAll(io.LimitReader(w.Body, maxEtcdResponse)) // a longer one is cut, so it is not JSON
	switch {
	case err != nil:
		return err
	case w.StatusCode != http.StatusOK:
		return refusalIn(reply)
	case json.Unmarshal(reply, out) != nil:
		return errNotEtcd
	}
	return nil
}

// view returns what a member responds to a transaction. Whatever responds at the address
// of a member need not be one, or may be one of another cluster: what does not match is
// an error.
func (g *gateway) view(t etcdTxn, r etcdResponse) (etcdView, error) {
	asked := t.Failure
	if r.Succeeded {
		asked = t.Success
	}
	if r.Header.Revision == 0 || !r.Succeeded && len(t.Compare) == 0 || len(r.Responses) != len(asked) {
		return etcdView{}, errNotEtcd
	}
	view := etcdView{r.Succeeded, r.Header.Revision, map[*etcdRange][]etcdKV{}, map[string]etcdKV{}}
	for i, op := range asked {
		view.found[op.Range] = r.Responses[i].Range.Kvs
		for _, kv := range view.found[op.Range] {
			if !op.Range.has(kv.Key) {
				return etcdView{}, errNotEtcd
			}
			view.at[string(kv.Key)] = kv
		}
	}
	g.cluster.CompareAndSwap(nil, &r.Header.Cluster)
	if *g.cluster.Load() != r.Header.Cluster {
		return etcdView{}, errors.New("the response is from another cluster")
	}
	return view, nil
}

// errNotEtcd quotes nothing of the response, which could repeat the request with etcd's
// password.
var errNotEtcd = errors.New("not a response of etcd")

// An etcdError is an error response of etcd.
type etcdError struct {
	Code    int    // of gRPC (google.golang.org/grpc/codes)
	Message string // listed in etcd's api/v3rpc/rpctypes/error.go
}

func (e *etcdError) Error() string { return e.Message }

// refusalIn returns the error in a response: an etcdError, with the [Alarm] that is its
// cause, or errNotEtcd.
func refusalIn(reply []byte) error {
	e := &etcdError{}
	json.Unmarshal(reply, e) // what it cannot decode stays empty
	switch {
	case e.Code == 0 || !strings.HasPrefix(e.Message, "etcdserver: "):
		return errNotEtcd
	case e.is("database space exceeded"):
		return fmt.Errorf("%w (%w)", e, Alarm("NOSPACE"))
	case e.is("corrupt cluster"):
		return fmt.Errorf("%w (%w)", e, Alarm("CORRUPT"))
	}
	return e
}

// wantsToken reports whether a call was refused, without effect, for lack of a valid
// token.
func (e *etcdError) wantsToken() bool {
	return e.is("user name is empty") || e.is("invalid auth token") || e.is("revision of auth store is old")
}

func (e *etcdError) is(message string) bool { return strings.HasSuffix(e.Message, message) }
