package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var (
	screenshots = flag.String("screenshots", "", "write the pictures that README.md shows to this `folder`")
	everyState  = flag.Bool("every", false, "with -screenshots, write those of every state too")
)

// A tab is one page of a headless browser. It reports errors of the page to the test.
type tab struct {
	t    testing.TB
	ctx  context.Context
	mu   sync.Mutex
	bad  []string // console errors, exceptions, violations of the policy
	urls []string // of all requests
}

// openPage starts a server and opens its page in a wide window.
func openPage(t testing.TB) (*server, *tab) {
	t.Helper()
	s, b := startServer(t), openTab(t, 1280, 900, "light")
	b.open(s)
	return s, b
}

// openTab starts a browser that can reach nothing but this machine.
func openTab(t testing.TB, width, height int64, scheme string) *tab {
	t.Helper()
	path := find(t, "apt-get install chromium", "chromium", "chromium-browser", "google-chrome", "chrome")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to sandbox for root
	}
	ctx, cancelBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	b := &tab{t: t}
	ctx, cancelTab := chromedp.NewContext(ctx, chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		b.check()
		cancelTab()
		cancelBrowser()
	})
	if err := chromedp.Do(ctx); err != nil { // starts the browser
		t.Fatal(err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancelTime)
	b.ctx = ctx
	b.do(chromedp.EmulateViewport(width, height))
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
	return b
}

// call gives the browser a command of its protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// watch runs in the page before its own scripts.
const watch = `
	window.shift = 0;
	new PerformanceObserver((list) => {
		for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
	}).observe({type: "layout-shift", buffered: true});
	document.addEventListener("securitypolicyviolation", (event) => console.error("violates " + event.violatedDirective + ": " + event.blockedURI));
`

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if slices.Contains([]string{"error", "warning", "assert"}, string(e.Type)) {
			var words []string
			for _, arg := range e.Args {
				words = append(words, string(arg.Value)+arg.Description)
			}
			b.bad = append(b.bad, "console: "+strings.Join(words, " "))
		}
	case *runtime.EventExceptionThrown:
		b.bad = append(b.bad, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		// The browser notes each answer from 400 up as a network error: those
		// are what the walkthrough is about.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.bad = append(b.bad, fmt.Sprintf("log: %s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		b.urls = append(b.urls, e.Request.URL)
	}
}

// check fails the test for anything that must not happen on the page.
func (b *tab) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bad := range b.bad {
		b.t.Error(bad)
	}
	for _, raw := range b.urls {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "data" && u.Hostname() != "127.0.0.1" {
			b.t.Errorf("a request to another host: %s", raw)
		}
	}
}

func (b *tab) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.urls)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the browser did not come to it in time: %w", err)
		}
		b.t.Fatal(err)
	}
}

func (b *tab) open(s *server) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.URL+"/docs"), chromedp.WaitReady(chromedp.CSS(".op")), chromedp.WaitEnabled(chromedp.CSS("#search-open")))
}

func (b *tab) visit(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// forgive forgets what has gone wrong so far.
func (b *tab) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = nil
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// eval returns what a JavaScript expression gives.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// js runs JavaScript for its effect.
func js(code string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](code)
}

// until waits for a JavaScript expression to become true.
func (b *tab) until(expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](fmt.Sprintf("Boolean(%s)", expression), chromedp.WithPollingTimeout(45*time.Second))); err != nil {
		b.t.Fatalf("never: %s (%v)\nthe page says: %s", expression, err, eval[string](b, "document.body.innerText.slice(0, 3000)"))
	}
}

func (b *tab) signIn(account string) {
	b.t.Helper()
	// The form is folded while somebody else is signed in.
	b.do(js(fmt.Sprintf(`document.querySelector("[data-demo=%s]").click()`, account)))
	b.until(fmt.Sprintf(`document.getElementById("chip-name").textContent === %q && document.querySelector("#check-session.pass")`, account))
}
