package main

import (
	"bytes"
	"crypto/tls"
	stdlog "log"
	"log/slog"
	"os"
	"sync"
	"time"
)

// A certificate is a key pair that is read again when its files change, so a renewed
// one needs no restart. If the new pair is broken, the old one stays in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu    sync.Mutex
	pair  *tls.Certificate
	files [2]fileVersion // that were read last, broken or not
}

// A fileVersion tells whether a file has changed.
type fileVersion struct {
	modified time.Time
	size     int64
}

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, files: versions(certFile, keyFile)}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	c.pair = &pair
	return c, err
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}

// anyCertificate is for -check, which asks this machine.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// current returns the pair to use for a handshake.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := versions(c.certFile, c.keyFile)
	if now == c.files {
		return c.pair
	}
	c.files = now
	if pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile); err != nil {
		c.log.Error("cannot use the new certificate; the old one stays in use", "cert", c.certFile, "key", c.keyFile, "error", err)
	} else {
		c.pair = &pair
		c.log.Info("using the new certificate", "cert", c.certFile)
	}
	return c.pair
}

func versions(files ...string) (v [2]fileVersion) {
	for i, name := range files {
		if info, err := os.Stat(name); err == nil {
			v[i] = fileVersion{info.ModTime(), info.Size()}
		}
	}
	return v
}

// newErrorLog returns the log of net/http. Most of its lines are about the mistakes of
// clients and go to the level debug. A failure to accept connections is logged as an
// error.
func newErrorLog(log *slog.Logger) *stdlog.Logger {
	var mu sync.Mutex
	var said time.Time
	return stdlog.New(writerFunc(func(line []byte) (int, error) {
		text := string(bytes.TrimSpace(line))
		if !bytes.Contains(line, []byte("Accept error")) {
			log.Debug(text)
			return len(line), nil
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Since(said) > time.Minute { // net/http tries again at least once a second
			said = time.Now()
			log.Error("cannot accept connections", "error", text)
		}
		return len(line), nil
	}), "", 0)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
