package main

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file holds the cryptography: access tokens (JWT, RFC 7519, signed with HS256),
// opaque tokens and password hashes. It is given the keys and the time; it reads no
// clock, store or request.

// ErrToken is all that a caller learns about a refused token. Naming the check that
// failed would help only a forger.
var ErrToken = errors.New("invalid token")

const maxToken = 4096 // bytes; ours are about 350

// Claims are the contents of a token. A refresh token has only the first three. Of an
// access token, this server uses UserID and SessionID, and reads name and role from the
// store; the token has them for other programs.
type Claims struct {
	UserID              int64
	SessionID           string
	Generation          int64 // of a refresh token; 0 in an access token
	Username            string
	Role                Role
	IssuedAt, ExpiresAt int64 // Unix seconds
}

// ValidAt reports whether the token can be used at the given time.
func (c Claims) ValidAt(now time.Time) bool {
	// Expired at exp, not after it (RFC 7519, section 4.1.4).
	return now.Unix() < c.ExpiresAt && c.IssuedAt <= now.Add(leeway).Unix()
}

// An hs256 is HMAC-SHA256 (RFC 2104) with one key. Setting up an HMAC costs more than
// using it, so a pool keeps them.
type hs256 struct{ sync.Pool }

// A mac is a keyed HMAC and the text that it signs.
type mac struct {
	hash hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

func newHS256(key []byte) *hs256 {
	return &hs256{sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key)} }}}
}

// sign appends a dot and the MAC in base64url to the text. The result is valid
// until m is put back.
func (m *mac) sign() []byte {
	m.hash.Reset()
	m.hash.Write(m.text)
	m.text = base64url.AppendEncode(append(m.text, '.'), m.hash.Sum(m.sum[:0]))
	return m.text
}

// base64url is the encoding of tokens: no padding (RFC 7515, section 2), and no
// stray bits in the last character (RFC 4648, section 3.5).
var base64url = base64.RawURLEncoding.Strict()

// Tokens signs and verifies all kinds of token. Its methods may be called concurrently.
type Tokens struct {
	prefix string               // the payload of every access token up to the value of sub
	access []*hs256             // the first signs, all verify
	opaque map[purpose][]*hs256 // likewise
}

// A purpose is what an opaque token is for, and the label of its key. So a token of one
// kind is never accepted as another (RFC 8725, section 3.12).
type purpose string

const (
	refreshing purpose = "stdauth refresh token"
	resetting  purpose = "stdauth reset token" // in a mail, as the next
	verifying  purpose = "stdauth verify token"
)

// NewTokens returns Tokens that sign with secret. If previous is not empty, it
// still verifies, but never signs.
func NewTokens(issuer, secret, previous string) *Tokens {
	iss := appendText(nil, issuer)
	t := &Tokens{prefix: fmt.Sprintf(`{"iss":%s,"aud":%s,"sub":"`, iss, iss), opaque: map[purpose][]*hs256{}}
	for _, s := range []string{secret, previous} {
		if s == "" {
			continue
		}
		t.access = append(t.access, newHS256([]byte(s)))
		for _, p := range []purpose{refreshing, resetting, verifying} {
			derived, err := hkdf.Key(sha256.New, []byte(s), nil, string(p), sha256.Size)
			if err != nil {
				panic(err) // unreachable: only for a length that is out of range
			}
			t.opaque[p] = append(t.opaque[p], newHS256(derived))
		}
	}
	return t
}

// jwtHeader is {"alg":"HS256","typ":"JWT"} in base64url, the header of every
// access token.
const jwtHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// SignAccess signs an access token.
func (t *Tokens) SignAccess(c Claims) string {
	var room [512]byte
	m := t.access[0].Get().(*mac)
	defer t.access[0].Put(m)
	m.text = base64url.AppendEncode(append(m.text[:0], jwtHeader+"."...), t.appendClaims(room[:0], c))
	return string(m.sign())
}

// appendClaims appends the payload of an access token.
func (t *Tokens) appendClaims(b []byte, c Claims) []byte {
	b = strconv.AppendInt(append(b, t.prefix...), c.UserID, 10)
	b = appendText(append(b, `","sid":`...), c.SessionID)
	b = appendText(append(b, `,"username":`...), c.Username)
	b = appendText(append(b, `,"role":`...), string(c.Role))
	b = strconv.AppendInt(append(b, `,"iat":`...), c.IssuedAt, 10)
	b = strconv.AppendInt(append(b, `,"exp":`...), c.ExpiresAt, 10)
	return append(b, '}')
}

// readClaims reads the claims by the literal text that appendClaims writes between
// them. It accepts anything, because its caller writes the claims again and compares.
// So a value with a character that JSON escapes is refused; names, roles and session
// IDs have none.
func (t *Tokens) readClaims(payload string) (c Claims) {
	upTo := func(end string) (value string) {
		value, payload, _ = strings.Cut(payload, end)
		return value
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64)
		return n
	}
	payload = strings.TrimPrefix(payload, t.prefix)
	c.UserID = number(upTo(`","sid":"`))
	c.SessionID = upTo(`","username":"`)
	c.Username = upTo(`","role":"`)
	c.Role = Role(upTo(`","iat":`))
	c.IssuedAt = number(upTo(`,"exp":`))
	c.ExpiresAt = number(upTo(`}`))
	return c
}

// VerifyAccess returns the claims of an access token, or ErrToken if this server did
// not sign it or it is not valid now.
func (t *Tokens) VerifyAccess(token string, now time.Time) (Claims, error) {
	c, err := t.ReadAccess(token)
	if err != nil || !c.ValidAt(now) {
		return Claims{}, ErrToken
	}
	return c, nil
}

// ReadAccess returns the claims of an access token, expired or not, or ErrToken if
// this server did not sign it.
//
// A token is genuine if its MAC is right and the text under the MAC is what this server
// writes for the claims in it. The MAC is checked first, so nothing that a forger wrote
// is read, least of all the algorithm (RFC 8725, section 3.1). The comparison then
// refuses every other algorithm, encoding, order, duplicate and unknown claim, and
// "crit" (RFC 7515, section 4.1.11), even under the right key.
func (t *Tokens) ReadAccess(token string) (Claims, error) {
	signed, ok := authentic(t.access, token)
	encoded, ours := strings.CutPrefix(signed, jwtHeader+".")
	if !ok || !ours {
		return Claims{}, ErrToken
	}
	var decoded, written [512]byte // enough for the usual issuer; a longer payload is allocated
	payload, err := base64url.AppendDecode(decoded[:0], []byte(encoded))
	// The decoder skips line breaks, which RFC 4648, section 3.3, forbids.
	if err != nil || base64url.EncodedLen(len(payload)) != len(encoded) {
		return Claims{}, ErrToken
	}
	c := t.readClaims(string(payload))
	if !bytes.Equal(t.appendClaims(written[:0], c), payload) {
		return Claims{}, ErrToken
	}
	return c, nil
}

// appendText appends s as a JSON string. Most strings need no escaping; for them it is
// four times as fast as encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // any string can be marshalled
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// SignRefresh signs a refresh token. The store keeps only the generation. So nothing in
// a store can be used as a token, the same generation always gives the same token, and
// a forged token is refused without a look at the store.
func (t *Tokens) SignRefresh(c Claims) string {
	return t.sign(refreshing, c.SessionID, c.UserID, c.Generation)
}

// VerifyRefresh returns the claims of a refresh token, or ErrToken if this server did not
// sign it. [Session.Rotate] decides whether it is the current one.
func (t *Tokens) VerifyRefresh(token string) (c Claims, err error) {
	c.SessionID, c.UserID, c.Generation, err = t.open(refreshing, token)
	return c, err
}

// sign returns an opaque token: a word, an account and a number in clear, and a MAC over
// them.
func (t *Tokens) sign(p purpose, word string, userID, number int64) string {
	m := t.opaque[p][0].Get().(*mac)
	defer t.opaque[p][0].Put(m)
	m.text = fmt.Appendf(m.text[:0], "%s.%d.%d", word, userID, number)
	return string(m.sign())
}

// open returns what sign has signed, or ErrToken. The text must be what sign writes.
func (t *Tokens) open(p purpose, token string) (word string, userID, number int64, err error) {
	signed, ok := authentic(t.opaque[p], token)
	if !ok {
		return "", 0, 0, ErrToken
	}
	word, rest, _ := strings.Cut(signed, ".")
	user, last, _ := strings.Cut(rest, ".")
	userID, _ = strconv.ParseInt(user, 10, 64)
	number, _ = strconv.ParseInt(last, 10, 64)
	if fmt.Sprintf("%s.%d.%d", word, userID, number) != signed {
		return "", 0, 0, ErrToken
	}
	return word, userID, number, nil
}

// authentic reports whether the token ends in the MAC, under one of the keys, of the
// text before its last dot, and returns that text. It compares the MACs in base64url
// and in constant time. So a MAC has one spelling: no padding, line break or stray bit
// passes.
func authentic(keys []*hs256, token string) (signed string, ok bool) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 || len(token) > maxToken {
		return "", false
	}
	match := 0
	for _, k := range keys {
		m := k.Get().(*mac)
		m.text = append(m.text[:0], token[:dot]...)
		match |= subtle.ConstantTimeCompare(m.sign()[dot:], []byte(token[dot:]))
		k.Put(m)
	}
	return token[:dot], match == 1
}

// A Hasher hashes passwords with PBKDF2-HMAC-SHA256 (RFC 8018, section 5.2).
type Hasher struct {
	Iterations int // the cost of a guess, for this server and for a thief of the store
}

// DefaultIterations is OWASP's figure for PBKDF2-HMAC-SHA256 (Password Storage
// Cheat Sheet): about 0.1 s of one core.
const DefaultIterations = 600_000

const (
	saltSize = 16 // bytes: no two accounts share a salt (NIST SP 800-132, section 5.1)
	keySize  = sha256.Size

	// Without a limit, a hash in a store that was tampered with could take hours to
	// check.
	maxIterations = 10 * DefaultIterations
)

// Hash returns a PHC string: the algorithm, its cost, the salt and the key. A later
// version can raise the cost and still check the hashes of this one. The format is
// described at https://github.com/P-H-C/phc-string-format.
func (h Hasher) Hash(password string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	return formatPHC(h.Iterations, salt, derive(password, salt, h.Iterations, keySize))
}

// Check reports whether phc is a hash of password, and if so, whether it is weaker than
// what Hash returns. A phc that cannot be parsed matches no password; for an account
// that does not exist it is empty. Every check takes at least as long as one with
// h.Iterations, so its time reveals nothing about the account.
func (h Hasher) Check(password, phc string) (ok, weak bool) {
	iterations, salt, want, parsed := parsePHC(phc)
	if !parsed {
		iterations, salt, want = h.Iterations, make([]byte, saltSize), make([]byte, keySize)
	}
	// A longer key would take twice as long, and its first 32 bytes are as good.
	want = want[:min(len(want), keySize)]
	got := derive(password, salt, iterations, len(want))
	if missing := h.Iterations - iterations; missing > 0 {
		derive(password, salt, missing, keySize)
	}
	ok = hmac.Equal(got, want) && parsed && hashable(password)
	return ok, ok && (iterations < h.Iterations || len(salt) < saltSize || len(want) < keySize)
}

func derive(password string, salt []byte, iterations, size int) []byte {
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, size)
	if err != nil { // only in FIPS 140 mode, for an imported salt that is shorter than ours
		pbkdf2.Key(sha256.New, password, make([]byte, saltSize), iterations, keySize) // takes as long
	}
	return key // no key matches no password
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

	// Like an access token, a hash is valid if it is what we would write. The
	// comparison finds every error ignored above, and any other algorithm.
	ok = phc == formatPHC(iterations, salt, key)
	// A short key would match many passwords, an empty one every password.
	ok = ok && 1 <= iterations && iterations <= maxIterations && len(salt) >= 8 && 16 <= len(key) && len(key) <= 64
	return iterations, salt, key, ok
}
