package main

import (
	"crypto/tls"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// listenTLS returns the listener with TLS. A handshake reads the key pair again if its
// files have changed, so a renewed one needs no restart. If the new pair cannot be used,
// the old one stays in use, and a handshake a minute later tries again.
func listenTLS(l net.Listener, certFile, keyFile string, log *slog.Logger) (net.Listener, error) {
	version := func() (v string) { // differs when the files do
		for _, name := range []string{certFile, keyFile} {
			if info, err := os.Stat(name); err == nil {
				v += fmt.Sprintln(info.ModTime(), info.Size())
			}
		}
		return v
	}
	read := version()    // of the files that were read last, broken or not
	var failed time.Time // when they could not be used, else zero: chmod, say, leaves version as it is
	first, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	pair := &first
	var mu sync.Mutex
	current := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := version(); now != read || !failed.IsZero() && time.Since(failed) >= time.Minute {
			read, failed = now, time.Time{}
			if renewed, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
				failed = time.Now()
				log.Error("cannot use the new certificate; the old one stays in use", "cert", certFile, "key", keyFile, "error", err)
			} else {
				pair = &renewed
				log.Info("using the new certificate", "cert", certFile)
			}
		}
		return pair, nil
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: current}), nil
}

func checkKeyPair(certFile, keyFile string) error {
	_, err := tls.LoadX509KeyPair(certFile, keyFile)
	return err
}

// anyCertificate is for -check, which asks this machine.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// newErrorLog returns the log of net/http.
func newErrorLog(log *slog.Logger) *stdlog.Logger {
	return stdlog.New(&errorLog{log: log, once: limit{total: 1, period: time.Minute}}, "", 0)
}

// An errorLog logs what net/http writes. Most of it is about the mistakes of clients, and
// goes to the level debug. A failure to accept connections is an error, but net/http tries
// again at least once a second.
type errorLog struct {
	log  *slog.Logger
	once limit // a minute
}

func (l *errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if !strings.Contains(text, "Accept error") {
		l.log.Debug(text)
	} else if l.once.take(nil, 1) == nil {
		l.log.Error("cannot accept connections", "error", text)
	}
	return len(line), nil
}
