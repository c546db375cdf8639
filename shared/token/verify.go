package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Options are the rules for tokens. A token that they don't allow is refused.
type Options struct {
	// Algorithms are JWS names (RFC 7518 section 3.1), such as HS256 or RS256. HMAC and
	// public-key algorithms can't be combined. Required.
	Algorithms []string
	// Keys are tried in this order, except that keys that have to be fetched come last.
	// Required.
	Keys []KeySource
	// Audience are the accepted audiences: the claim aud must contain one of them.
	// Defaults to nil: aud is not checked.
	Audience []string
	// MCP are the audiences of the door for MCP. A token that names one of them is accepted for that door, whatever
	// Audience and the audiences of its source are. Defaults to none: no token is for that door.
	MCP []string
	// Issuer is the required claim iss. Defaults to "": iss is not checked.
	Issuer string
	// RequireExp refuses a token without exp. Defaults to false.
	RequireExp bool
	// Leeway is the difference between the clocks of issuer and server that is accepted
	// for iat, nbf and exp. Defaults to 0.
	Leeway time.Duration

	// Now returns the time. Required.
	Now func() time.Time
	// Lookup reads environment variables, for the AWS credentials with which secrets are
	// read. Defaults to an empty environment.
	Lookup func(string) (string, bool)
	// HTTP sends the requests for keys. Defaults to a client without keep-alive that uses
	// the proxy of the environment.
	HTTP *http.Client
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	o       Options
	methods map[string]jwt.SigningMethod // the accepted algorithms by name
	keys    []key                        // those that were read at the start
	over    []PassedOver                 // those that were read at the start and can't be used
	remotes []*remote                    // sources of keys that are fetched

	everyToken restriction // what every token must contain, whatever its source
}

// SetMCP replaces Options.MCP, for a server that knows its address only when it listens. It must be called before the
// first token is verified.
func (v *Verifier) SetMCP(audience []string) { v.o.MCP = audience }

// SourceError is what is wrong with one source of keys.
type SourceError struct {
	// Index is that of the source in Options.Keys.
	Index int
	// Err names the problem and the remedy.
	Err error
}

// Error implements error.
func (e *SourceError) Error() string { return fmt.Sprintf("keys[%d]: %s", e.Index, e.Err) }

// Unwrap returns the error without the index.
func (e *SourceError) Unwrap() error { return e.Err }

// NewVerifier reads the keys that need no request. Its error joins all that is wrong, each
// with its remedy, and contains no key material. That of a source is a SourceError.
func NewVerifier(o Options) (*Verifier, error) {
	methods, faults := accepted(o.Algorithms)
	faults = append(faults, o.faults()...)

	v := &Verifier{methods: methods}
	for i, source := range o.Keys {
		if err := v.add(fmt.Sprintf("keys[%d]", i), source, o); err != nil {
			faults = append(faults, &SourceError{i, err})
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	o.Keys = nil // they were read above
	v.o, v.everyToken.audience = o, o.Audience
	if o.Issuer != "" {
		v.everyToken.issuers = []string{o.Issuer}
	}
	return v, nil
}

// add reads a source of keys, or prepares to fetch from it.
func (v *Verifier) add(name string, s KeySource, o Options) error {
	from := newSource(name, s.Rules, o.Issuer)
	if s.JWKSURL == "" && s.Discovery == "" && s.Secret == "" {
		found, err := s.load(from, v.methods)
		v.keys, v.over = append(v.keys, found.keys...), append(v.over, found.over...)
		return err
	}
	fetch, err := o.fetcher(s, from, v.methods)
	v.remotes = append(v.remotes, &remote{
		issuers: from.Issuers,
		name:    name, fetch: fetch, now: o.Now, asked: map[kidHash]asked{}, absent: map[kidHash]time.Time{},
	})
	return err
}

// faults returns what is wrong with the options besides the algorithms and keys.
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
		if o.Issuer != "" && len(s.Issuers) > 0 && !slices.Contains(s.Issuers, o.Issuer) {
			faults = append(faults, &SourceError{i, fmt.Errorf("issuer %q differs from issuer %q, so no token could pass; "+
				"remove one", strings.Join(s.Issuers, ", "), o.Issuer)})
		}
	}
	return faults
}

// errNoKey never reaches a caller. It is the error of try for a signature that none of the keys verifies.
var errNoKey = errors.New("no key verifies the signature")

// Verify returns the claims of the token in the values of an Authorization header. The
// value is "Bearer TOKEN", in any case (RFC 9110 section 11.1), or the token alone.
//
// The error is a *fault.Error of kind Unauthenticated. Its detail is the text of AgentOS
// 3.1.10, which uses PyJWT's, except where that text shows content of the token or an
// error of Python. The kind is Unavailable if no known key verifies the token and some
// keys can't be fetched: one of these might verify it.
//
// If keys have to be fetched, one request fetches them, and ctx doesn't end that fetch,
// because other requests wait for it; it ends after 5 seconds. ctx ends the waiting of
// the other requests.
func (v *Verifier) Verify(ctx context.Context, authorization []string) (Claims, error) {
	return v.verify(ctx, authorization, nil)
}

// verify sets x, if it isn't nil, to what the token is and how it was read.
func (v *Verifier) verify(ctx context.Context, authorization []string, x *Explanation) (Claims, error) {
	raw, err := Sent(authorization)
	if err != nil {
		return Claims{}, err
	}
	p, err := split(raw)
	if err != nil {
		return Claims{}, err
	}
	if p.explain = x; x != nil {
		x.sawHeader(p.header)
	}
	if p.method, err = v.method(p.header); err != nil {
		return Claims{}, err
	}
	p.kid, _ = p.header.text("kid") // method has refused a kid that is not a string
	c, err := v.try(p, v.keys, errNoKey)
	if err != nil && len(v.remotes) > 0 {
		c, err = v.tryFetched(ctx, p, err)
	}
	if errors.Is(err, errNoKey) {
		// An unknown key, a wrong key and a changed token get the same text. Without a valid
		// signature, a caller must not find out which keys exist. The operator's log gets more.
		err = denyToken("Signature verification failed")
		if cause := v.unusable(p.kid); cause != "" {
			err = denyBecause(Cause(cause), fault.Detail(err))
		}
	}
	return c, err
}

// try verifies the token with each of the keys. If one of them has the token's kid,
// keys with another kid are skipped; a key without kid is always tried. refusal is the
// error so far, errNoKey at first; it is returned if none of the keys verifies the
// signature, or none has a reason that helps more.
func (v *Verifier) try(p parts, keys []key, refusal error) (Claims, error) {
	known := p.kid != "" && slices.ContainsFunc(keys, func(k key) bool { return k.id == p.kid })
	var narrow *Claims // accepted for the door for MCP alone
	for _, k := range keys {
		if known && k.id != "" && k.id != p.kid {
			continue
		}
		if !slices.Contains(k.algs, p.method.Alg()) || p.method.Verify(p.signed, p.signature, k.public) != nil {
			continue
		}
		so := Explanation{}
		if p.explain != nil {
			so = *p.explain
		}
		c, err := v.claims(p, k.from)
		if err == nil && c.For != ForMCP {
			return c, nil
		}
		if err == nil {
			// The same key can be listed again, with an audience that the token has.
			if narrow == nil {
				narrow = &c
			}
			continue
		}
		// The same key can be listed again, for another issuer.
		if isForeign(err) && !isForeign(refusal) && !errors.Is(refusal, errNoKey) {
			if p.explain != nil {
				*p.explain = so // the explanation is that of the refusal
			}
			continue
		}
		refusal = err
	}
	if narrow != nil {
		return *narrow, nil
	}
	return Claims{}, refusal
}

// Sent returns the token in the values of an Authorization header, as Verify reads it. It refuses
// several values: RFC 9110 section 11.6.2 allows one, and a proxy might check one of them while this
// program uses the other. The token is not verified.
func Sent(authorization []string) (string, error) {
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

// bare returns the value of the header without its scheme.
func bare(value string) string {
	const scheme, ows = "bearer ", " \t" // RFC 9110 section 5.6.3
	value = strings.Trim(value, ows)
	if len(value) > len(scheme) && strings.EqualFold(value[:len(scheme)], scheme) {
		value = strings.Trim(value[len(scheme):], ows)
	}
	return value
}

// parts are the parts of a JWS in compact form (RFC 7515 section 7.1). The payload is
// not parsed before the signature over signed has been verified.
type parts struct {
	header    object
	payload   []byte
	signature []byte
	signed    string

	method  jwt.SigningMethod // the algorithm in the header, if it is accepted
	kid     string
	explain *Explanation // see Verifier.verify
}

// split cuts the token at its first and its last dot, as PyJWT does. With more than two
// dots the payload is not base64url, and that is the error.
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

// segment decodes unpadded base64url (RFC 7515 section 2). It accepts one spelling of
// each value only: no line ends, which the standard library's decoder skips, and no
// surplus bits in the last character. Otherwise one signed token would have several
// texts, and so several hashes in the logs.
func segment(s, name string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, denyToken("Invalid %s padding", name)
	}
	return data, nil
}

// method returns the algorithm in the header if the operator accepts it. RFC 8725
// section 3.1: the operator decides about algorithms, and the token only chooses among
// them, so that "none", and HS256 with a public key as its secret, never pass. The other
// members of the header are not trusted either (RFC 8725 section 3.10): jku, x5u, jwk and
// x5c never lead to a key, and kid is only compared with the names of known keys.
func (v *Verifier) method(header object) (jwt.SigningMethod, error) {
	if raw, ok := header["kid"]; ok && raw[0] != '"' {
		return nil, denyToken("Key ID header parameter must be a string")
	}
	// RFC 7515 section 4.1.11: a critical extension that a verifier doesn't understand
	// makes the token invalid, and this one understands none. b64 (RFC 7797) changes what
	// was signed, so that it is refused even if crit doesn't list it.
	_, crit := header["crit"]
	_, b64 := header["b64"]
	if crit || b64 {
		return nil, denyToken("Unsupported critical extension")
	}
	if _, ok := header["alg"]; !ok {
		return nil, denyToken("Algorithm not specified")
	}
	alg, _ := header.text("alg")
	m, ok := v.methods[canonical(alg)]
	if !ok {
		return nil, denyToken("The specified alg value is not allowed")
	}
	return m, nil
}
