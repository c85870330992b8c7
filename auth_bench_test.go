package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"
)

// The limit is what no signer or verifier can avoid: HMAC-SHA256 with a reused
// hash and base64url, over the same bytes, with nothing parsed and nothing
// kept. Sign, verify and reject report their cost in multiples of it, taken in
// the same run: "x-limit". Sign should stay under 1.8, verify under 2.0.

func BenchmarkSign(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	payload := []byte(ourPayload)
	h := hmac.New(sha256.New, []byte(testSecret))
	var buf [512]byte
	var digest [sha256.Size]byte
	againstLimit(b, func() {
		tokens.Access(johnClaims())
	}, func() {
		out := append(buf[:0], jwtHeader+"."...)
		out = base64.RawURLEncoding.AppendEncode(out, payload)
		h.Reset()
		h.Write(out)
		out = append(out, '.')
		base64.RawURLEncoding.AppendEncode(out, h.Sum(digest[:0]))
	})
}

func BenchmarkVerify(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.Access(johnClaims())
	againstLimit(b, func() {
		if _, err := tokens.VerifyAccess(token, testNow); err != nil {
			b.Fatal(err)
		}
	}, verifyLimit(b, token))
}

// A wrong signature: what an attacker's token costs.
func BenchmarkReject(b *testing.B) {
	tokens := NewTokens("stdauth", testSecret, "")
	token := tokens.Access(johnClaims())
	forged := token[:len(token)-43] + strings.Repeat("A", 43)
	againstLimit(b, func() {
		if _, err := tokens.VerifyAccess(forged, testNow); err == nil {
			b.Fatal("a forged token passed")
		}
	}, verifyLimit(b, token))
}

// verifyLimit is the limit of verifying token.
func verifyLimit(b *testing.B, token string) func() {
	text := []byte(token)
	dot, mid := bytes.LastIndexByte(text, '.'), bytes.IndexByte(text, '.')
	h := hmac.New(sha256.New, []byte(testSecret))
	var digest, signature [sha256.Size]byte
	var payload [512]byte
	return func() {
		h.Reset()
		h.Write(text[:dot])
		n, err := base64.RawURLEncoding.Decode(signature[:], text[dot+1:])
		if err != nil || !hmac.Equal(signature[:n], h.Sum(digest[:0])) {
			b.Fatal("the limit refuses the token")
		}
		if _, err := base64.RawURLEncoding.Decode(payload[:], text[mid+1:dot]); err != nil {
			b.Fatal(err)
		}
	}
}

// againstLimit times work and limit in turns, a hundred calls each, and reports
// medians: so a noisy neighbour meets both, or is left out.
func againstLimit(b *testing.B, work, limit func()) {
	const turn = 100
	var nanoseconds, ratios []float64
	for b.Loop() {
		start := time.Now()
		for range turn {
			work()
		}
		between := time.Now()
		for range turn {
			limit()
		}
		atWork, atLimit := between.Sub(start), time.Since(between)
		nanoseconds = append(nanoseconds, float64(atWork.Nanoseconds())/turn)
		ratios = append(ratios, float64(atWork)/float64(atLimit))
	}
	median := func(list []float64) float64 {
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(median(ratios), "x-limit")
	b.ReportMetric(median(nanoseconds), "ns/op")
	b.ReportMetric(testing.AllocsPerRun(1000, work), "allocs")
}

// What a guess costs: DefaultIterations should take about 0.1 s.
func BenchmarkHash(b *testing.B) {
	h := Hasher{Iterations: DefaultIterations}
	for b.Loop() {
		h.Hash("secret")
	}
}
