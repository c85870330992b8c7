package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// web is the page and the description of the API. It is part of the binary, and
// loads nothing from anywhere else.
//
//go:embed web
var web embed.FS

// code is the server's own source. go:embed has no pattern that leaves out the
// tests, so a test sees to it that no file is missing.
//
//go:embed auth.go auth_throttle.go handlers.go handlers_mail.go handlers_stack.go handlers_token.go handlers_users.go
//go:embed http_body.go http_browser.go http_call.go http_connections.go http_errors.go http_log.go http_metrics.go http_middleware.go http_page.go http_proxy.go
//go:embed mail.go mail_delivery.go main.go main_limits_unix.go main_limits_windows.go main_offline.go main_secrets.go main_settings.go main_terminal.go main_tls.go
//go:embed sessions.go shares.go store.go store_change.go store_etcd.go store_etcd_client.go store_etcd_txn.go
//go:embed store_file.go store_file_compact.go store_file_folder.go store_file_lines.go store_file_lock_unix.go store_file_lock_windows.go
//go:embed store_memory.go users.go
var code embed.FS

// contentPolicy lets the page use its own files and this server, and lets
// nothing else into it (Content Security Policy Level 3).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (s *server) openAPI(c *call) (reply, error) { return replyFile(c, "openapi.json") }

// source serves one Go file of this server, as text.
func (s *server) source(c *call) (reply, error) { return replyFile(c, "source/"+c.PathValue("file")) }

func (s *server) docs(c *call) (out reply, err error) {
	switch file := c.PathValue("file"); {
	case file == "":
		out, err = replyFile(c, "index.html")
	case file == "settings.json":
		out, err = replyJSON(http.StatusOK, s.pageSettings())
	case file == "mail.json" && s.Demo && !c.fromAfar():
		out, err = replyJSON(http.StatusOK, s.mailer.shown())
	case file == "index.html", file == "openapi.json", strings.Contains(file, "/"):
		err = ErrNotFound // each file has one address
	default:
		out, err = replyFile(c, file)
	}
	if out.header == nil {
		out.header = map[string]string{}
	}
	out.header["Content-Security-Policy"] = contentPolicy
	out.header["Referrer-Policy"] = "no-referrer"
	return out, err
}

// startID differs in each process, so the page notices a restart.
var startID = rand.Text()

// pageSettings is what the page needs to know about this server.
func (s *server) pageSettings() any {
	registration := "open"
	if s.Closed {
		registration = "closed"
	}
	callers := map[string]who{}
	for _, route := range s.routes() {
		callers[strings.TrimSuffix(route.pattern, "{$}")] = route.who
	}
	return struct {
		Demo         bool           `json:"demo"`
		Issuer       string         `json:"issuer"`
		AccessTTL    int64          `json:"access_ttl"` // seconds
		Registration string         `json:"registration"`
		Start        string         `json:"start"`
		Mail         bool           `json:"mail"`
		Callers      map[string]who `json:"callers"` // by route
	}{s.Demo, s.Issuer, int64(s.AccessTTL.Seconds()), registration, startID, s.mailer != nil, callers}
}

// mediaTypes are those of the files. The mime package would ask the machine, and
// machines differ.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".go":   "text/plain; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

// A pageFile is one of the files, as it is and compressed. The hash tells its
// versions apart.
type pageFile struct {
	content []byte
	zipped  func() []byte
	hash    string
}

// pageFiles returns the files by name. They never change, so once is enough.
var pageFiles = sync.OnceValue(func() map[string]pageFile {
	files := map[string]pageFile{}
	for prefix, from := range map[string]embed.FS{"": web, "source/": code} {
		err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := from.ReadFile(name)
			zipped := sync.OnceValue(func() []byte { return zip(content) })
			files[prefix+path.Base(name)] = pageFile{content, zipped, fmt.Sprintf("%.8x", sha256.Sum256(content))}
			return err
		})
		if err != nil {
			panic(err) // unreachable: what was embedded can be read
		}
	}
	return files
})

func zip(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(content) // a Buffer returns no error
	w.Close()
	return b.Bytes()
}

// refusesGzip matches a weight of 0 (RFC 9110, section 12.4.2).
var refusesGzip = regexp.MustCompile(`gzip\s*;\s*q=0(\.0*)?\s*(,|$)`)

// replyFile serves a file. Browsers may cache it but must revalidate it: after an
// update, a browser never has files of two versions.
func replyFile(c *call, name string) (reply, error) {
	file, ok := pageFiles()[name]
	if !ok {
		return reply{}, ErrNotFound
	}
	out, etag := reply{body: file.content}, `"`+file.hash+`"`
	accepted := c.Header.Get("Accept-Encoding")
	zipped := strings.Contains(accepted, "gzip") && !refusesGzip.MatchString(accepted)
	if zipped {
		out.body, etag = file.zipped(), `"`+file.hash+`-gzip"`
	}
	out.header = map[string]string{"Cache-Control": "no-cache", "Vary": "Accept-Encoding, Origin", "Etag": etag, "Content-Type": mediaTypes[path.Ext(name)]}
	// Compared weakly, that is, by what is in the quotes (RFC 9110, section 13.1.2).
	if strings.Contains(c.Header.Get("If-None-Match"), etag) {
		out.status, out.body = http.StatusNotModified, nil
		return out, nil
	}
	if zipped {
		out.header["Content-Encoding"] = "gzip"
	}
	out.header["Content-Length"] = strconv.Itoa(len(out.body))
	return out, nil
}
