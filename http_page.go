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

// code is the server's own source without its tests: the names that do not end in t.go,
// and those that do, but not in st.go.
//
//go:embed *[^t].go *[^s]t.go
var code embed.FS

// contentPolicy lets the page use its own files and this server, and lets
// nothing else into it (Content Security Policy Level 3).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (s *server) openAPI(c *call) (reply, error) { return replyFile(c, "openapi.json") }

// source serves one Go file of this server, as text.
func (s *server) source(c *call) (reply, error) { return replyFile(c, "source/"+c.PathValue("file")) }

func (s *server) docs(c *call) (reply, error) {
	switch file := c.PathValue("file"); {
	case file == "":
		return replyFile(c, "index.html")
	case file == "settings.json":
		return replyJSON(http.StatusOK, s.pageSettings())
	case file == "mail.json" && s.Demo && !c.fromAfar():
		return replyJSON(http.StatusOK, s.mailer.printed())
	case file == "index.html", file == "openapi.json", strings.Contains(file, "/"):
		return reply{}, ErrNotFound // each file has one address
	default:
		return replyFile(c, file)
	}
}

// startID differs in each process, so the page notices a restart.
var startID = rand.Text()

// pageSettings is what the page needs to know about this server.
func (s *server) pageSettings() any {
	registration := "open"
	if s.Closed {
		registration = "closed"
	}
	callers := map[string]admission{}
	for _, route := range s.routes() {
		callers[strings.TrimSuffix(route.pattern, "{$}")] = route.who
	}
	return map[string]any{
		"demo": s.Demo, "issuer": s.Issuer, "access_ttl": int64(s.AccessTTL.Seconds()), "registration": registration,
		"mail": s.mailer != nil, "callers": callers, "start": startID,
	}
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
	content, zipped []byte
	hash            string
}

// pageFiles returns the files by name. They never change, so once is enough.
var pageFiles = sync.OnceValue(func() map[string]pageFile {
	files := map[string]pageFile{}
	page, _ := fs.Sub(web, "web") // no error: what was embedded can be read
	for prefix, folder := range map[string]fs.FS{"": page, "source/": code} {
		names, _ := fs.Glob(folder, "*")
		for _, name := range names {
			content, _ := fs.ReadFile(folder, name)
			files[prefix+name] = pageFile{content, zip(content), fmt.Sprintf("%.8x", sha256.Sum256(content))}
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
	header := map[string]string{
		"Cache-Control": "no-cache", "Vary": "Accept-Encoding, Origin", "Content-Type": mediaTypes[path.Ext(name)],
		"Content-Security-Policy": contentPolicy, "Referrer-Policy": "no-referrer",
	}
	body, etag := file.content, `"`+file.hash+`"`
	if accepted := c.Header.Get("Accept-Encoding"); strings.Contains(accepted, "gzip") && !refusesGzip.MatchString(accepted) {
		body, etag = file.zipped, `"`+file.hash+`-gzip"`
		header["Content-Encoding"] = "gzip"
	}
	header["Etag"] = etag
	// Compared weakly, that is, by what is in the quotes (RFC 9110, section 13.1.2).
	if strings.Contains(c.Header.Get("If-None-Match"), etag) {
		return reply{status: http.StatusNotModified, header: header}, nil
	}
	header["Content-Length"] = strconv.Itoa(len(body))
	return reply{header: header, body: body}, nil
}
