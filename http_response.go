package main

import (
	"encoding/json"
	"net/http"
)

// A response records its outcome for the log and the metrics. Handlers set user, target
// and login.
type response struct {
	http.ResponseWriter
	id     string // X-Request-Id
	status int
	bytes  int64
	user   int64  // the account that called, or that a login was for
	target int64  // the account that an admin's request was about
	login  string // "ok" or "failed", of a login
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// respond writes a JSON body and a line break, so that a shell prompts on a new line.
func respond(w *response, status int, body []byte) error {
	if h := w.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = jsonType
	}
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // an error means that the client has gone
	return nil
}

var jsonType = []string{"application/json"}

func respondJSON(w *response, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return respond(w, status, b)
}

// respondEnded writes a 204 after a change that ended sessions. It returns err, and writes
// nothing if that is not nil.
func (s *server) respondEnded(w *response, err error) error {
	if err == nil {
		s.metrics.count("stdauth_sessions_ended_total")
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
