package main

import (
	"encoding/json"
	"net/http"
)

// A response remembers what became of it, for the log and the metrics. Handlers fill
// in whom it was about.
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

// answer writes a body of JSON and a line break, so that the prompt of a shell does
// not stick to it.
func answer(w *response, status int, body []byte) error {
	if h := w.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = jsonType
	}
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // that the client has gone is no error of ours
	return nil
}

var jsonType = []string{"application/json"}

func answerJSON(w *response, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return answer(w, status, b)
}

// noContent answers 204 to a change that has ended sessions, unless there is an error.
func (s *server) noContent(w *response, err error) error {
	if err == nil {
		s.metrics.count("stdauth_sessions_ended_total")
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
