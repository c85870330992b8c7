package main

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// web is the page and the description of the API. It is part of the binary, and
// loads nothing from anywhere else.
//
//go:embed web
var web embed.FS

// contentPolicy lets the page use its own files and this server, and lets
// nothing else into it (Content Security Policy Level 3).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (s *server) openAPI(w http.ResponseWriter, r *http.Request, _ caller) error {
	return serveFile(w, r, "openapi.json")
}

func (s *server) docs(w http.ResponseWriter, r *http.Request, _ caller) error {
	w.Header().Set("Content-Security-Policy", contentPolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	switch file := r.PathValue("file"); file {
	case "":
		return serveFile(w, r, "index.html")
	case "settings.json":
		return answerJSON(w, http.StatusOK, s.pageSettings())
	case "index.html", "openapi.json":
		return ErrNotFound // each file has one address
	default:
		return serveFile(w, r, file)
	}
}

// pageSettings is what the page needs to know of this server.
func (s *server) pageSettings() any {
	registration := "open"
	if s.Closed {
		registration = "closed"
	}
	return struct {
		Demo         bool   `json:"demo"`
		Issuer       string `json:"issuer"`
		AccessTTL    int64  `json:"access_ttl"` // seconds
		Registration string `json:"registration"`
	}{s.Demo, s.Issuer, int64(s.AccessTTL.Seconds()), registration}
}

// mediaTypes are those of the files in web. The mime package would ask the
// machine, and machines differ.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

// A pageFile is a file of web, and the hash that tells its versions apart.
type pageFile struct {
	content []byte
	etag    string
}

// pageFiles has each file by name. They are part of the binary, so once is enough.
var pageFiles = sync.OnceValue(func() map[string]pageFile {
	entries, err := web.ReadDir("web")
	files := map[string]pageFile{}
	for _, e := range entries {
		content, e2 := web.ReadFile("web/" + e.Name())
		files[e.Name()] = pageFile{content, fmt.Sprintf(`"%.8x"`, sha256.Sum256(content))}
		err = errors.Join(err, e2)
	}
	if err != nil {
		panic(err) // what was embedded can be read
	}
	return files
})

// serveFile serves a file of web. It may be kept, and must be asked for again:
// after an update, a browser never has files of two versions.
func serveFile(w http.ResponseWriter, r *http.Request, name string) error {
	file, ok := pageFiles()[name]
	if !ok {
		return ErrNotFound
	}
	h := w.Header()
	h.Set("Content-Type", mediaTypes[path.Ext(name)])
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Origin")
	h.Set("ETag", file.etag)
	// Compared weakly, that is, by what is in the quotes (RFC 9110, section 13.1.2).
	if strings.Contains(r.Header.Get("If-None-Match"), file.etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(file.content)))
	w.Write(file.content)
	return nil
}
