package main

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file is the cryptography, and nothing else: access tokens (JWT, RFC
// 7519, signed with HS256), refresh tokens, and password hashes. It reads no
// clock, no store and no request; it is given the time.

// ErrToken is all that a caller learns of a refused token. Which check it was
// would only help whoever is forging one.
var ErrToken = errors.New("invalid token")

const (
	maxToken = 4096             // bytes; ours are about 350
	leeway   = 30 * time.Second // for the clock of another copy of the server

	minSecret = 32 // bytes: as long as the hash's output (RFC 7518, section 3.2)
)

// knownSecrets stand in articles and documentation. Everybody can sign with
// them.
var knownSecrets = []string{
	"your-secret-key-keep-it-safe-and-dont-share-it-with-anyone",       // the article this server began with
	"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", // the FastAPI tutorial
	"a-string-secret-at-least-256-bits-long",                           // jwt.io
}

// secretProblem says what is wrong with a signing key, or "".
func secretProblem(secret string) string {
	if len(secret) < minSecret {
		return fmt.Sprintf("must be at least %d bytes long", minSecret)
	}
	if slices.Contains(knownSecrets, secret) {
		return "is a published example"
	}
	return ""
}

// Claims are what an access token says. Only UserID and SessionID are ever
// acted on: the account they lead to, its name and its role are the store's.
type Claims struct {
	UserID    int64
	SessionID string
	Username  string
	Role      Role
	IssuedAt  time.Time // to the second in ours
	ExpiresAt time.Time // to the second in ours
}

// A RefreshToken is what a refresh token says: one turn of one session.
type RefreshToken struct {
	UserID     int64
	SessionID  string
	Generation int64
}

// Tokens signs and verifies both kinds of token. Its methods may be called at
// once.
type Tokens struct {
	issuer  string
	access  []*hs256 // the first signs, all verify
	refresh []*hs256
	opening string // how the payload of every token of ours begins
}

// NewTokens makes Tokens of the signing key and, if previous is not empty, of
// the key before it, which still verifies and never signs.
func NewTokens(issuer, secret, previous string) *Tokens {
	t := &Tokens{issuer: issuer}
	for _, s := range []string{secret, previous} {
		if s == "" {
			continue
		}
		// One key for one purpose: with a key of their own, refresh tokens can
		// never pass for access tokens, nor the reverse (RFC 8725, section 3.12).
		derived, err := hkdf.Key(sha256.New, []byte(s), nil, "stdauth refresh token", sha256.Size)
		if err != nil {
			panic(err) // only for lengths that are out of range
		}
		t.access = append(t.access, newHS256([]byte(s)))
		t.refresh = append(t.refresh, newHS256(derived))
	}
	iss := string(appendText(nil, issuer))
	t.opening = `{"iss":` + iss + `,"aud":` + iss + `,"sub":"`
	return t
}

// jwtHeader is the header of every token we issue: {"alg":"HS256","typ":"JWT"}.
const jwtHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// Access signs an access token.
func (t *Tokens) Access(c Claims) string {
	var room [512]byte
	p := append(room[:0], t.opening...)
	p = strconv.AppendInt(p, c.UserID, 10)
	p = appendText(append(p, `","sid":`...), c.SessionID)
	p = appendText(append(p, `,"username":`...), c.Username)
	p = appendText(append(p, `,"role":`...), string(c.Role))
	p = strconv.AppendInt(append(p, `,"iat":`...), c.IssuedAt.Unix(), 10)
	p = strconv.AppendInt(append(p, `,"exp":`...), c.ExpiresAt.Unix(), 10)
	p = append(p, '}')

	m := t.access[0].get()
	defer t.access[0].put(m)
	m.text = base64url.AppendEncode(append(m.text, jwtHeader+"."...), p)
	return string(m.sign())
}

// VerifyAccess returns the claims of a valid access token, or ErrToken. Nothing
// that an outsider wrote is looked into before the MAC has been found right:
// not the header, which may not choose how it is verified (RFC 8725, section
// 3.1), and not the payload.
func (t *Tokens) VerifyAccess(token string, now time.Time) (Claims, error) {
	signed, ok := authentic(t.access, token)
	if !ok {
		return Claims{}, ErrToken
	}
	header, payload, ok := strings.Cut(signed, ".")
	if !ok || !headerOK(header) {
		return Claims{}, ErrToken
	}
	var room [512]byte // for our own tokens; longer ones get more
	decoded, err := decodeBase64url(room[:0], payload)
	if err != nil {
		return Claims{}, ErrToken
	}
	text := string(decoded)
	c, notBefore, ok := t.readOwn(text)
	if !ok {
		if c, notBefore, err = t.readClaims([]byte(text)); err != nil {
			return Claims{}, ErrToken
		}
	}
	// Expired at exp, not after it (RFC 7519, section 4.1.4).
	ahead := now.Add(leeway)
	if !now.Before(c.ExpiresAt) || c.IssuedAt.After(ahead) || notBefore.After(ahead) {
		return Claims{}, ErrToken
	}
	return c, nil
}

// headerOK checks the header of a token whose MAC is right. Unknown members
// mean nothing to us (RFC 7515, section 4); "crit" names some that we would
// have to understand (section 4.1.11), and we understand none.
func headerOK(header string) bool {
	if header == jwtHeader {
		return true
	}
	decoded, err := decodeBase64url(nil, header)
	if err != nil {
		return false
	}
	h, err := uniqueMembers(decoded, "alg", "typ", "crit")
	if err != nil || h["crit"] != nil {
		return false
	}
	alg, ok := jsonText(h["alg"])
	if !ok || alg != "HS256" {
		return false
	}
	if h["typ"] == nil {
		return true
	}
	typ, ok := jsonText(h["typ"])
	// A media type: in any case, perhaps in full (RFC 7515, section 4.1.9).
	return ok && (strings.EqualFold(typ, "JWT") || strings.EqualFold(typ, "application/jwt"))
}

// readOwn reads a payload that has the very shape that Access gives it, which
// is every payload but a foreign one. Its ok is false for any other, however
// valid: then readClaims decides.
func (t *Tokens) readOwn(payload string) (c Claims, notBefore time.Time, ok bool) {
	r := shape{payload, true}
	r.skip(t.opening)
	c.UserID = r.number(`","sid":"`)
	c.SessionID = r.text(`","username":"`)
	c.Username = r.text(`","role":"`)
	c.Role = Role(r.text(`","iat":`))
	c.IssuedAt = time.Unix(r.number(`,"exp":`), 0)
	c.ExpiresAt = time.Unix(r.number(`}`), 0)
	return c, notBefore, r.ok && r.rest == "" && c.SessionID != "" && c.Username != ""
}

// A shape is text that is taken apart step by step. Once a step fails, ok is
// false for good.
type shape struct {
	rest string
	ok   bool
}

func (s *shape) skip(literal string) {
	rest, ok := strings.CutPrefix(s.rest, literal)
	s.rest, s.ok = rest, s.ok && ok
}

// text takes the inside of a string without escapes, and next.
func (s *shape) text(next string) string {
	i := plainLength(s.rest)
	text := s.rest[:i]
	s.rest = s.rest[i:]
	s.skip(next)
	return text
}

// number takes a whole number from 1, and next. Twelve digits are within the
// range of dates that readClaims takes.
func (s *shape) number(next string) (n int64) {
	i := 0
	for ; i < len(s.rest) && '0' <= s.rest[i] && s.rest[i] <= '9'; i++ {
		n = n*10 + int64(s.rest[i]-'0')
	}
	s.ok = s.ok && 0 < i && i <= 12 && s.rest[0] != '0'
	s.rest = s.rest[i:]
	s.skip(next)
	return n
}

// readClaims reads any payload by the book. Every claim of ours must be there,
// once, spelt right and of its type; others are ignored (RFC 7519, section 4).
func (t *Tokens) readClaims(payload []byte) (c Claims, notBefore time.Time, err error) {
	m, err := uniqueMembers(payload, "iss", "aud", "sub", "sid", "username", "role", "iat", "exp", "nbf")
	if err != nil {
		return c, notBefore, err
	}
	text := func(name string) string {
		s, ok := jsonText(m[name])
		if !ok {
			err = ErrToken
		}
		return s
	}
	date := func(name string) time.Time {
		// Seconds, perhaps with a fraction (RFC 7519, section 2). ParseFloat
		// takes more than JSON does, but m holds valid JSON.
		f, e := strconv.ParseFloat(string(m[name]), 64)
		if e != nil || f < 0 || f > 1<<40 {
			err = ErrToken
		}
		whole, fraction := math.Modf(f)
		return time.Unix(int64(whole), int64(fraction*1e9))
	}
	sub := text("sub")
	c = Claims{SessionID: text("sid"), Username: text("username"), Role: Role(text("role")), IssuedAt: date("iat"), ExpiresAt: date("exp")}
	c.UserID, _ = strconv.ParseInt(sub, 10, 64)
	if m["nbf"] != nil {
		notBefore = date("nbf")
	}
	ours := c.UserID > 0 && sub == strconv.FormatInt(c.UserID, 10) && c.SessionID != "" && c.Username != ""
	if !ours || text("iss") != t.issuer || !t.inAudience(m["aud"]) {
		err = ErrToken
	}
	return c, notBefore, err
}

// inAudience: "aud" is one string, or an array of them (RFC 7519, section
// 4.1.3).
func (t *Tokens) inAudience(aud json.RawMessage) bool {
	var list []json.RawMessage
	if json.Unmarshal(aud, &list) != nil {
		list = []json.RawMessage{aud}
	}
	found := false
	for _, value := range list {
		s, ok := jsonText(value)
		if !ok {
			return false
		}
		found = found || s == t.issuer
	}
	return found
}

// Refresh signs a refresh token: session, account and generation in clear, and
// a MAC over them. The store keeps the generation only, so that nothing in it
// can be used as a token; the same generation always gives the same token; and
// a forged one is refused without asking the store.
func (t *Tokens) Refresh(r RefreshToken) string {
	m := t.refresh[0].get()
	defer t.refresh[0].put(m)
	m.text = fmt.Appendf(m.text, "%s.%d.%d", r.SessionID, r.UserID, r.Generation)
	return string(m.sign())
}

// VerifyRefresh returns what a genuine refresh token says, or ErrToken. Whether
// it is the current one is for the session to say: see [Session.Rotate].
func (t *Tokens) VerifyRefresh(token string) (RefreshToken, error) {
	signed, ok := authentic(t.refresh, token)
	if !ok {
		return RefreshToken{}, ErrToken
	}
	// The MAC is over the text, so what it says is what we once wrote.
	part := strings.Split(signed, ".")
	if len(part) != 3 {
		return RefreshToken{}, ErrToken
	}
	id, err := strconv.ParseInt(part[1], 10, 64)
	generation, err2 := strconv.ParseInt(part[2], 10, 64)
	if err != nil || err2 != nil {
		return RefreshToken{}, ErrToken
	}
	return RefreshToken{UserID: id, SessionID: part[0], Generation: generation}, nil
}

// authentic reports whether token ends in the MAC, under one of the keys, of
// all that stands before its last dot, and returns that. It is the text of the
// MACs that is compared, in constant time: each has just one spelling that
// passes, with no padding, line break or stray bit.
func authentic(keys []*hs256, token string) (signed string, ok bool) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 || len(token) > maxToken {
		return "", false
	}
	match := 0
	for _, k := range keys {
		m := k.get()
		m.text = append(m.text, token[:dot]...)
		match |= subtle.ConstantTimeCompare(m.sign()[dot:], []byte(token[dot:]))
		k.put(m)
	}
	return token[:dot], match == 1
}

// An hs256 is HMAC-SHA256 (RFC 2104) with one key. Setting up an HMAC costs
// more than using it, so they are kept for the next call.
type hs256 struct{ pool sync.Pool }

// A mac is one HMAC with the text that it signs.
type mac struct {
	hash   hash.Hash
	text   []byte
	digest [sha256.Size]byte
}

func newHS256(key []byte) *hs256 {
	return &hs256{sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key)} }}}
}

func (k *hs256) get() *mac { return k.pool.Get().(*mac) }

func (k *hs256) put(m *mac) {
	m.text = m.text[:0]
	k.pool.Put(m)
}

// sign appends a dot to the text and its MAC in base64url, and returns it all,
// good until m is put back.
func (m *mac) sign() []byte {
	m.hash.Reset()
	m.hash.Write(m.text)
	m.text = base64url.AppendEncode(append(m.text, '.'), m.hash.Sum(m.digest[:0]))
	return m.text
}

// base64url is the encoding of tokens: no padding, and no stray bits in the
// last character (RFC 7515, section 2, and RFC 4648, section 3.5).
var base64url = base64.RawURLEncoding.Strict()

// decodeBase64url appends to dst what s encodes. The decoder would pass over
// line breaks (RFC 4648, section 3.3, forbids it).
func decodeBase64url(dst []byte, s string) ([]byte, error) {
	if strings.Contains(s, "\n") || strings.Contains(s, "\r") {
		return nil, ErrToken
	}
	return base64url.AppendDecode(dst, []byte(s))
}

// A Hasher hashes passwords with PBKDF2-HMAC-SHA256 (RFC 8018, section 5.2).
type Hasher struct {
	// Iterations is the cost of a guess, to us and to a thief of the store.
	// Tests lower it.
	Iterations int

	// Pause, if not nil, is called every pauseEvery iterations, to let others
	// have the processor.
	Pause func()
}

// pauseEvery iterations take about a quarter of a millisecond.
const pauseEvery = 1500

// DefaultIterations is OWASP's figure for PBKDF2-HMAC-SHA256 (Password Storage
// Cheat Sheet): about 0.1 s of one core.
const DefaultIterations = 600_000

const (
	saltSize = 16 // bytes: no two accounts share one, and no table fits all
	keySize  = sha256.Size

	// A hash that asks for more, from a file that was tampered with, would be
	// a way to keep the server busy.
	maxIterations = 10 * DefaultIterations
)

// Hash returns a PHC string: algorithm, cost, salt and key, so that a later
// version can raise the cost and still check what this one wrote
// (https://github.com/P-H-C/phc-string-format).
func (h Hasher) Hash(password string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	key := h.derive(password, salt, h.Iterations, keySize)
	return formatPHC(h.Iterations, salt, key)
}

// Check reports whether password is the one that phc was made of, and if so,
// whether phc is weaker than what Hash would make now. A phc that cannot be
// read, such as the empty one of an account that does not exist, matches no
// password and costs as much as any other: an answer's time tells nothing.
func (h Hasher) Check(password, phc string) (ok, weak bool) {
	iterations, salt, want, readable := parsePHC(phc)
	if !readable {
		iterations, salt, want = h.Iterations, make([]byte, saltSize), make([]byte, keySize)
	}
	got := h.derive(password, salt, iterations, len(want))
	ok = hmac.Equal(got, want) && readable && hashable(password)
	return ok, ok && (iterations < h.Iterations || len(salt) < saltSize || len(want) < keySize)
}

// derive is PBKDF2, the same as crypto/pbkdf2, but for the pauses.
func (h Hasher) derive(password string, salt []byte, iterations, size int) []byte {
	prf := hmac.New(sha256.New, []byte(password))
	sum := func(u []byte, text ...[]byte) []byte {
		prf.Reset()
		for _, t := range text {
			prf.Write(t)
		}
		return prf.Sum(u[:0])
	}
	var key []byte
	u, t := make([]byte, sha256.Size), make([]byte, sha256.Size)
	for block := uint32(1); len(key) < size; block++ {
		u = sum(u, salt, binary.BigEndian.AppendUint32(nil, block))
		copy(t, u)
		for i := 1; i < iterations; i++ {
			if i%pauseEvery == 0 && h.Pause != nil {
				h.Pause()
			}
			u = sum(u, u)
			subtle.XORBytes(t, t, u)
		}
		key = append(key, t...)
	}
	return key[:size]
}

func formatPHC(iterations int, salt, key []byte) string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$pbkdf2-sha256$i=%d,l=%d$%s$%s", iterations, len(key), encode(salt), encode(key))
}

func parsePHC(phc string) (iterations int, salt, key []byte, ok bool) {
	part := strings.Split(phc, "$")
	if len(part) != 5 {
		return 0, nil, nil, false
	}
	cost, _, _ := strings.Cut(strings.TrimPrefix(part[2], "i="), ",")
	iterations, _ = strconv.Atoi(cost)
	salt, _ = base64.RawStdEncoding.DecodeString(part[3])
	key, _ = base64.RawStdEncoding.DecodeString(part[4])

	// Whatever was passed over up to here, be it an error, a sign, a line break
	// or another algorithm's name, shows when it is written anew.
	ok = phc == formatPHC(iterations, salt, key)
	// A short key would match many passwords, an empty one all of them.
	ok = ok && 1 <= iterations && iterations <= maxIterations && len(salt) >= 8 && 16 <= len(key) && len(key) <= 64
	return iterations, salt, key, ok
}
