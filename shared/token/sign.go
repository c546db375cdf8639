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

// SigningKey is where a signing key comes from: exactly one of HMAC, PEM and File
// is set.
type SigningKey struct {
	HMAC []byte // a shared secret, 32 bytes or more
	PEM  []byte // PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY; line ends may be written \n
	File string // what GenerateKeys made

	// Algorithm is the JWS name to sign with. "": the file's own, else HS256, RS256,
	// the curve's ES algorithm or EdDSA.
	Algorithm string
}

// Signer signs tokens with one key. It is safe for concurrent use; the zero value
// signs nothing.
type Signer struct {
	method  jwt.SigningMethod
	private any // []byte, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	kid     string
}

// LoadSigner reads the key. Its error names the remedy and no key material.
func LoadSigner(k SigningKey) (Signer, error) {
	s, own, err := k.read()
	if err == nil && own != "" && k.Algorithm != "" && own != k.Algorithm {
		err = fmt.Errorf("%s holds a key for %s, not for %s; make another file with: keyway keys generate --alg %s --out FILE", k.File, own, k.Algorithm, k.Algorithm)
	}
	if err == nil {
		s.method, err = signingMethod(cmp.Or(k.Algorithm, own), publicOf(s.private))
	}
	if err != nil {
		return Signer{}, fmt.Errorf("signing key: %w", err)
	}
	return s, nil
}

// read returns a signer without its method, and the algorithm the key asks for.
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

// signingMethod is alg, or without one the first that suits the key.
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
	if len(f.Keys) == 0 { // AgentOS's own demo writes such files
		return s, "", nil
	}
	keys, err := f.public()
	if err != nil {
		return s, "", fmt.Errorf("%s: %w", path, err)
	}
	// A file in rotation lists older keys too; the kid must be the signing key's.
	for _, k := range keys {
		if same, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); ok && same.Equal(publicOf(s.private)) {
			s.kid, alg = k.id, k.alg
		}
	}
	return s, alg, nil
}

// privateKey reads what openssl and GenerateKeys write.
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

// publicOf is the half that verifies; a secret is its own.
func publicOf(private any) any {
	if k, ok := private.(crypto.Signer); ok {
		return k.Public()
	}
	return private
}

// Draft is a token before it is signed. Zero fields are left out of it; scopes are
// always written.
type Draft struct {
	Claims
	Audience []string
	IssuedAt time.Time

	// Names of the claims; "" is AgentOS's: scopes, sub, session_id.
	ScopesClaim, SubjectClaim, SessionClaim string
}

// Sign makes the token, in JWS compact form. Claims that a Verifier would refuse are
// an error here.
func (s Signer) Sign(d Draft) (string, error) {
	if s.method == nil {
		return "", errors.New("sign: no key loaded")
	}
	sessionClaim := cmp.Or(d.SessionClaim, defaultSessionClaim)
	if err := d.check(sessionClaim); err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	// An absent scopes claim would do too; an empty one says it was meant.
	claims := jwt.MapClaims{cmp.Or(d.ScopesClaim, defaultScopesClaim): append([]string{}, d.Scopes...)}
	for name, value := range map[string]string{
		cmp.Or(d.SubjectClaim, defaultSubjectClaim): d.Subject,
		sessionClaim: d.SessionID, "iss": d.Issuer, "jti": d.ID,
	} {
		if value != "" {
			claims[name] = value
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
	if s.kid != "" {
		t.Header["kid"] = s.kid
	}
	return t.SignedString(s.private)
}
