package token

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SigningKey is where a signing key comes from. Exactly one of HMAC, PEM and File is
// required.
type SigningKey struct {
	// HMAC is a shared secret of at least 32 bytes.
	HMAC []byte
	// PEM is a PRIVATE KEY, an RSA PRIVATE KEY or an EC PRIVATE KEY. Its line ends may be
	// written as \n.
	PEM []byte
	// File is the path of a file that GenerateKeys made.
	File string

	// Algorithm is the JWS name to sign with. Defaults to the algorithm that File names,
	// or else to HS256, RS256, the ES algorithm of the curve, or EdDSA.
	Algorithm string
}

// Signer signs tokens with one key. It is safe for concurrent use. The zero value signs
// nothing.
type Signer struct {
	method  jwt.SigningMethod
	private any // []byte, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	kid     string
}

// LoadSigner reads the key. Its error names the remedy and contains no key material.
func LoadSigner(k SigningKey) (Signer, error) {
	s, own, err := k.read()
	if err == nil && own != "" && k.Algorithm != "" && own != canonical(k.Algorithm) {
		err = fmt.Errorf("%s holds a key for %s, not for %s; make another file with: "+
			"keyway keys generate --alg %s --out FILE", k.File, own, k.Algorithm, k.Algorithm)
	}
	if err == nil {
		s.method, err = signingMethod(cmp.Or(k.Algorithm, own), publicOf(s.private))
	}
	if err != nil {
		return Signer{}, fmt.Errorf("signing key: %w", err)
	}
	return s, nil
}

// read returns a signer without its method, and the algorithm that the file names.
func (k SigningKey) read() (s Signer, alg string, err error) {
	if err := exactlyOne("an HMAC secret, a PEM key and a key file", len(k.HMAC), len(k.PEM), len(k.File)); err != nil {
		return s, "", err
	}
	switch {
	case k.File != "":
		return readSigningFile(k.File)
	case len(k.PEM) > 0:
		s.private, err = privateKey(k.PEM)
		return s, "", err
	}
	return Signer{private: k.HMAC}, "", checkSecret(k.HMAC)
}

// signingMethod returns alg, or if it is empty the first algorithm that suits the key.
func signingMethod(alg string, public any) (jwt.SigningMethod, error) {
	if alg != "" {
		m, err := methodOf(alg)
		if err == nil && !suits(m, public) {
			err = fmt.Errorf("%s can't sign %s; choose another algorithm or key", kind(public), alg)
		}
		return m, err
	}
	for _, alg := range algorithms {
		if m := jwt.GetSigningMethod(alg); suits(m, public) {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s can't sign; make another with: keyway keys generate", kind(public))
}

// readSigningFile reads a file that GenerateKeys made. A file with a secret signs with the
// secret; every other file needs its private_key.
func readSigningFile(path string) (s Signer, alg string, err error) {
	f, err := readKeyFile(path)
	switch {
	case err != nil:
		return s, "", err
	case f.Secret != "":
		return Signer{private: []byte(f.Secret)}, "", checkSecret([]byte(f.Secret))
	case f.PrivateKey == "":
		return s, "", fmt.Errorf(`%s has no "private_key"; sign where the file was generated`, path)
	}
	if s.private, err = privateKey([]byte(f.PrivateKey)); err != nil {
		return s, "", fmt.Errorf("%s: private_key: %w", path, err)
	}
	if len(f.Keys) == 0 { // the demo of AgentOS writes such files
		return s, "", nil
	}
	found, err := f.public()
	if err != nil {
		return s, "", fmt.Errorf("%s: %w", path, err)
	}
	// During a rotation the file lists older keys too. The kid must be the signing key's.
	for _, k := range found.keys {
		if same, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); ok && same.Equal(publicOf(s.private)) {
			s.kid, alg = k.id, k.alg
		}
	}
	return s, alg, nil
}

// privateKey reads a PEM block as openssl and GenerateKeys write it.
func privateKey(text []byte) (any, error) {
	b, err := block(text)
	if err != nil {
		return nil, err
	}
	var private any
	switch b.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(b.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the private key is encrypted; decrypt it first (openssl pkey -in key.pem -out plain.pem)")
	default:
		return nil, fmt.Errorf("PEM of type %q can't sign; give the private key", b.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("PEM %s can't be read: %w; export it again (openssl pkey -in key.pem)", b.Type, err)
	}
	return private, checkPublic(publicOf(private))
}

// publicOf returns the key that verifies. For a secret it is the secret itself.
func publicOf(private any) any {
	if k, ok := private.(crypto.Signer); ok {
		return k.Public()
	}
	return private
}

// Draft is a token before it is signed. A claim with a zero value is left out of the
// token, except for the scopes.
type Draft struct {
	Claims
	// Audience is the claim aud. Defaults to none.
	Audience []string

	// ScopesClaim is where the scopes are. Defaults to the claim scopes.
	ScopesClaim ClaimSource
	// SubjectClaim is where the user is. Defaults to the claim sub.
	SubjectClaim ClaimSource
	// SessionClaim is where the session is. Defaults to the claim session_id.
	SessionClaim ClaimSource
}

// The names of the claims that AgentOS 3.1.10 reads if the operator chose no others.
const (
	defaultScopesClaim  = "scopes"
	defaultSubjectClaim = "sub"
	defaultSessionClaim = "session_id"
)

// Sign returns the token in JWS compact form (RFC 7515 section 7.1). Claims that every
// Verifier would refuse are an error.
func (s Signer) Sign(d Draft) (string, error) {
	if s.method == nil {
		return "", errors.New("sign: no key loaded")
	}
	read := newSource("", Rules{
		Scopes: []ClaimSource{d.ScopesClaim}, Subject: d.SubjectClaim, Session: d.SessionClaim,
	}, "")
	if err := d.check(read.Session.String()); err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	claims := jwt.MapClaims{}
	// An absent claim would mean the same; an empty one shows that it is intended.
	read.Scopes[0].Put(claims, append([]string{}, d.Scopes...))
	for _, text := range []struct {
		at    ClaimSource
		value string
	}{
		{read.Subject, d.Subject}, {read.Session, d.SessionID},
		{ClaimSource{Path: []string{"iss"}}, d.Issuer}, {ClaimSource{Path: []string{"jti"}}, d.ID},
	} {
		if text.value != "" {
			text.at.Put(claims, text.value)
		}
	}
	for name, at := range map[string]time.Time{"iat": d.IssuedAt, "exp": d.ExpiresAt} {
		if !at.IsZero() {
			claims[name] = at.Unix()
		}
	}
	if len(d.Audience) > 0 {
		claims["aud"] = d.Audience
	}
	t := jwt.NewWithClaims(s.method, claims)
	// Without a kid, a verifier with several keys has to try each of them.
	if s.kid != "" {
		t.Header["kid"] = s.kid
	}
	return t.SignedString(s.private)
}
