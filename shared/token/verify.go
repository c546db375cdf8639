package token

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Options says which tokens are accepted. Everything that it doesn't name is refused.
type Options struct {
	Algorithms []string    // JWS names (RFC 7518): HS256, RS256 …; HMAC and public-key never together
	Keys       []KeySource // tried in this order, those to be fetched last
	Audience   []string    // aud must hold one of these; nil: not checked
	Issuer     string      // iss must be this; "": not checked
	RequireExp bool        // a token without exp is refused
	Leeway     time.Duration

	// Names of the claims; "" is AgentOS's: scopes, sub, session_id.
	ScopesClaim, SubjectClaim, SessionClaim string

	Now func() time.Time

	// For keys that are fetched: the environment, where AWS credentials are, and who
	// sends the requests; nil: an empty one, and a client of our own.
	Lookup func(string) (string, bool)
	HTTP   *http.Client
}

// Verifier tells genuine tokens from others. It is safe for concurrent use.
type Verifier struct {
	o       Options
	methods map[string]jwt.SigningMethod // the accepted ones, by alg
	keys    []key
	remotes []*remote // keys that are fetched
}

// NewVerifier reads the keys. Its error names every fault at once, each with its
// remedy, and no key material.
func NewVerifier(o Options) (*Verifier, error) {
	o.ScopesClaim = cmp.Or(o.ScopesClaim, defaultScopesClaim)
	o.SubjectClaim = cmp.Or(o.SubjectClaim, defaultSubjectClaim)
	o.SessionClaim = cmp.Or(o.SessionClaim, defaultSessionClaim)
	methods, faults := accepted(o.Algorithms)
	faults = append(faults, o.faults()...)

	v := &Verifier{methods: methods}
	for i, source := range o.Keys {
		if err := v.add(fmt.Sprintf("keys[%d]", i), source, o); err != nil {
			faults = append(faults, fmt.Errorf("keys[%d]: %w", i, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	o.Keys = nil // loaded above
	v.o = o
	return v, nil
}

// add reads the source, or remembers whom to ask.
func (v *Verifier) add(name string, s KeySource, o Options) error {
	if s.JWKSURL == "" && s.Secret == "" {
		keys, err := s.load(v.methods)
		v.keys = append(v.keys, keys...)
		return err
	}
	fetch, err := o.fetcher(s, v.methods)
	v.remotes = append(v.remotes, &remote{name: name, fetch: fetch, now: o.Now, absent: map[string]time.Time{}})
	return err
}

// faults lists what is wrong with the options besides algorithms and keys.
func (o Options) faults() (faults []error) {
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(o.Keys) == 0 {
		add("keys: none given; give an HMAC secret, a PEM public key, a JWKS file or where to fetch keys")
	}
	if o.Audience != nil && (len(o.Audience) == 0 || slices.Contains(o.Audience, "")) {
		add("audience: an empty value matches no token; name the audience or turn the check off")
	}
	if o.Leeway < 0 {
		add("leeway: %v is negative; use 0s or more", o.Leeway)
	}
	if o.Now == nil {
		add("now: no clock given; pass time.Now")
	}
	for i, s := range o.Keys {
		if o.Issuer != "" && s.Issuer != "" && o.Issuer != s.Issuer {
			add("keys[%d]: issuer %q differs from issuer %q, so no token could pass; remove one", i, s.Issuer, o.Issuer)
		}
	}
	return faults
}

// errNoKey is what try says of a signature that none of its keys made.
var errNoKey = errors.New("no key verifies the signature")

// Verify reads the values of the request's Authorization header, "Bearer X" in any
// case or X alone, and returns what the token claims. The error is a *fault.Error of
// kind Unauthenticated; its text is AgentOS 3.1.10's (which uses PyJWT's), except
// where that shows the token's content or a Python error. It is of kind Unavailable
// when no key verifies the token and some can't be fetched.
//
// ctx bounds the waiting for a fetch that another request makes; its own is bounded
// by itself, since others wait for it. Keys at hand need none.
func (v *Verifier) Verify(ctx context.Context, authorization []string) (Claims, error) {
	raw, err := bearer(authorization)
	if err != nil {
		return Claims{}, err
	}
	p, err := split(raw)
	if err != nil {
		return Claims{}, err
	}
	if p.method, err = v.method(p.header); err != nil {
		return Claims{}, err
	}
	p.kid, _ = p.header.text("kid")
	c, err := v.try(p, v.keys)
	if err != nil && len(v.remotes) > 0 {
		c, err = v.tryFetched(ctx, p, err)
	}
	if errors.Is(err, errNoKey) {
		// One text for an unknown key, a wrong one and a changed token: which it was is
		// nobody's business before a signature holds.
		err = denyToken("Signature verification failed")
	}
	return c, err
}

// try judges p by keys. The error is errNoKey when none of them made the signature.
func (v *Verifier) try(p parts, keys []key) (Claims, error) {
	known := p.kid != "" && slices.ContainsFunc(keys, func(k key) bool { return k.id == p.kid })
	refusal := errNoKey
	for _, k := range keys {
		if known && k.id != "" && k.id != p.kid {
			continue
		}
		if !slices.Contains(k.algs, p.method.Alg()) || p.method.Verify(p.signed, p.signature, k.public) != nil {
			continue
		}
		c, err := v.claims(p.payload, k.only)
		if err == nil {
			return c, nil
		}
		refusal = err // the same key may serve another issuer further down
	}
	return Claims{}, refusal
}

// bearer finds the one token. RFC 9110 allows one Authorization; of two, a proxy
// and we might each believe another.
func bearer(authorization []string) (string, error) {
	if len(authorization) > 1 {
		return "", deny("Ambiguous Authorization header")
	}
	value := bare(strings.Join(authorization, ""))
	switch {
	case value == "":
		return "", deny("Authorization header missing")
	case len(value) > maxToken:
		return "", denyToken("Longer than %d bytes", maxToken)
	case strings.HasPrefix(value, "agno_pat_"):
		return "", deny("Service accounts are not enabled on this AgentOS instance")
	}
	return value, nil
}

// bare is the header's value without its scheme.
func bare(value string) string {
	const scheme, ows = "bearer ", " \t" // RFC 9110 section 5.6.3
	value = strings.Trim(value, ows)
	if len(value) > len(scheme) && strings.EqualFold(value[:len(scheme)], scheme) {
		value = strings.Trim(value[len(scheme):], ows)
	}
	return value
}

// parts of a JWS in compact form (RFC 7515 section 7.1). payload stays unread until
// a signature over signed has been verified.
type parts struct {
	header    object
	payload   []byte
	signature []byte
	signed    string

	method jwt.SigningMethod // what the header asks for, once it is one of ours
	kid    string
}

// split cuts at the first and the last dot, as PyJWT does: surplus dots make a bad
// payload, not a bad count.
func split(raw string) (p parts, err error) {
	last := max(strings.LastIndexByte(raw, '.'), 0)
	head, payload, ok := strings.Cut(raw[:last], ".")
	if !ok {
		return p, denyToken("Not enough segments")
	}
	p.signed = raw[:last]
	header, err := segment(head, "header")
	if err != nil {
		return p, err
	}
	if p.header, err = parseObject(header); err != nil {
		return p, denyToken("Invalid header string: %v", err)
	}
	if p.payload, err = segment(payload, "payload"); err != nil {
		return p, err
	}
	p.signature, err = segment(raw[last+1:], "crypto")
	return p, err
}

// segment decodes unpadded base64url with one spelling per value; the standard
// library's decoder would skip line ends.
func segment(s, name string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, denyToken("Invalid %s padding", name)
	}
	return data, nil
}

// method is the algorithm the header asks for, if it is one of ours. Nothing else
// in the header is believed: jku, x5u, jwk and x5c never lead to a key, and kid is
// only compared.
func (v *Verifier) method(header object) (jwt.SigningMethod, error) {
	if raw, ok := header["kid"]; ok && raw[0] != '"' {
		return nil, denyToken("Key ID header parameter must be a string")
	}
	// RFC 7515 section 4.1.11: an extension we don't understand invalidates the
	// token, and we understand none. b64 (RFC 7797) changes what was signed, even
	// where crit forgot to say so.
	_, crit := header["crit"]
	_, b64 := header["b64"]
	if crit || b64 {
		return nil, denyToken("Unsupported critical extension")
	}
	if _, ok := header["alg"]; !ok {
		return nil, denyToken("Algorithm not specified")
	}
	alg, _ := header.text("alg")
	m, ok := v.methods[alg]
	if !ok {
		return nil, denyToken("The specified alg value is not allowed")
	}
	return m, nil
}
