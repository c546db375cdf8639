package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// KeySource is where verification keys come from: exactly one of HMAC, PEM, JWKSFile,
// JWKSURL and Secret is set. Those of the last two are fetched, and fetched again.
type KeySource struct {
	HMAC     []byte // a shared secret, 32 bytes or more
	PEM      []byte // PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE; line ends may be written \n
	JWKSFile string // a JWK Set (RFC 7517), or what GenerateKeys made
	JWKSURL  string // where a JWK Set is published; https, or http on loopback
	Secret   string // the ARN of an AWS Secrets Manager secret whose text is any of the first three

	Issuer   string   // the key speaks only for tokens with this iss; "": for any
	Audience []string // … and whose aud holds one of these; nil: for any
}

const (
	minSecret  = 32   // bytes; RFC 7518 section 3.2
	minRSABits = 2048 // RFC 7518 section 3.3
)

// algorithms are the JWS names we know, the preferred of each kind of key first.
// "none" is a JWS name too, and must never be here.
var algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA",
}

// methodOf finds an algorithm by its exact name.
func methodOf(alg string) (jwt.SigningMethod, error) {
	for _, known := range algorithms {
		if alg == known {
			return jwt.GetSigningMethod(alg), nil
		}
	}
	return nil, fmt.Errorf("%q is not an algorithm we know; use one of %s", alg, strings.Join(algorithms, ", "))
}

// accepted looks the names up and keeps secrets and public keys apart.
func accepted(names []string) (methods map[string]jwt.SigningMethod, faults []error) {
	methods = map[string]jwt.SigningMethod{}
	var secret, public bool
	for _, alg := range names {
		m, err := methodOf(alg)
		if err != nil {
			faults = append(faults, fmt.Errorf("algorithms: %w", err))
			continue
		}
		methods[alg] = m
		_, hmac := m.(*jwt.SigningMethodHMAC)
		secret, public = secret || hmac, public || !hmac
	}
	if len(names) == 0 {
		faults = append(faults, errors.New("algorithms: none given; use the one your tokens are signed with, such as RS256"))
	}
	if secret && public {
		faults = append(faults, errors.New(
			"algorithms: HMAC and public-key ones together would let a public key pass for a secret; keep one kind"))
	}
	return methods, faults
}

// key is one key as verification uses it.
type key struct {
	id     string   // kid; "": tried whatever the token's kid is
	alg    string   // the only algorithm its JWK allows; "": any that suits
	algs   []string // the accepted algorithms it verifies
	public any      // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	only   restriction
}

// load reads a source that is at hand.
func (s KeySource) load(methods map[string]jwt.SigningMethod) ([]key, error) {
	found, err := s.read()
	if err != nil {
		return nil, err
	}
	return s.fit(found, methods)
}

// fit leaves out the keys that no accepted algorithm uses; if none remains, that is
// a fault.
func (s KeySource) fit(found []key, methods map[string]jwt.SigningMethod) ([]key, error) {
	var usable []key
	var kinds, wanted []string
	for _, alg := range algorithms {
		if methods[alg] != nil {
			wanted = append(wanted, alg)
		}
	}
	for _, k := range found {
		kinds = append(kinds, kind(k.public))
		for _, alg := range wanted {
			if suits(methods[alg], k.public) && (k.alg == "" || k.alg == alg) {
				k.algs = append(k.algs, alg)
			}
		}
		if k.only = (restriction{s.Issuer, s.Audience}); len(k.algs) > 0 {
			usable = append(usable, k)
		}
	}
	// Without a known algorithm the fault is named already.
	if len(usable) == 0 && len(wanted) > 0 {
		return nil, fmt.Errorf("holds %s, which can't verify %s; give a key of that kind or change the algorithms",
			strings.Join(kinds, ", "), strings.Join(wanted, ", "))
	}
	return usable, nil
}

// read returns every key of the source, fit for the algorithms or not.
func (s KeySource) read() ([]key, error) {
	if err := s.exactlyOne(); err != nil {
		return nil, err
	}
	switch {
	case s.JWKSFile != "":
		return readJWKS(s.JWKSFile)
	case len(s.PEM) > 0:
		public, err := publicKey(s.PEM)
		return []key{{public: public}}, err
	}
	return []key{{public: s.HMAC}}, checkSecret(s.HMAC)
}

func (s KeySource) exactlyOne() error {
	return exactlyOne("an HMAC secret, a PEM key, a key file, a JWKS address and a secret's ARN",
		len(s.HMAC), len(s.PEM), len(s.JWKSFile), len(s.JWKSURL), len(s.Secret))
}

// exactlyOne: of two keys the operator would have to guess which one counts.
func exactlyOne(of string, lengths ...int) error {
	given := 0
	for _, n := range lengths {
		given += min(n, 1)
	}
	if given != 1 {
		return fmt.Errorf("%d keys given; give exactly one of %s", given, of)
	}
	return nil
}

// suits binds each algorithm to its own kind of key, so that no public key is ever
// used as a secret, and each ES algorithm to its curve (RFC 7518 section 3.4).
func suits(m jwt.SigningMethod, public any) (ok bool) {
	switch m := m.(type) {
	case *jwt.SigningMethodHMAC:
		_, ok = public.([]byte)
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		_, ok = public.(*rsa.PublicKey)
	case *jwt.SigningMethodECDSA:
		k, isEC := public.(*ecdsa.PublicKey)
		ok = isEC && k.Params().BitSize == m.CurveBits
	case *jwt.SigningMethodEd25519:
		_, ok = public.(ed25519.PublicKey)
	}
	return ok
}

// kind names a key for the operator.
func kind(public any) string {
	switch k := public.(type) {
	case []byte:
		return "an HMAC secret"
	case *rsa.PublicKey:
		return fmt.Sprintf("an RSA key of %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "an EC key on " + k.Params().Name
	case ed25519.PublicKey:
		return "an Ed25519 key"
	}
	return fmt.Sprintf("a key of an unsupported kind (%T)", public)
}

// checkSecret refuses a secret that can be guessed and one that everybody knows: a
// public key given as a secret would let its readers sign.
func checkSecret(secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("the HMAC secret has %d bytes; use %d random bytes or more (openssl rand -hex 32)",
			len(secret), minSecret)
	}
	// PEM's body without its frame is base64 of DER.
	bare := strings.Join(strings.Fields(string(secret)), "")
	der, err := base64.StdEncoding.DecodeString(bare)
	if err != nil {
		der = secret
	}
	_, notKey := x509.ParsePKIXPublicKey(der)
	_, notCert := x509.ParseCertificate(der)
	if notKey == nil || notCert == nil || bytes.Contains(secret, []byte("-----BEGIN")) ||
		strings.HasPrefix(bare, "ssh-") {
		return errors.New("the HMAC secret is a public or private key; give it as PEM, or make a secret (openssl rand -hex 32)")
	}
	return nil
}

// checkPublic refuses keys too weak to mean anything.
func checkPublic(public any) error {
	k, ok := public.(*rsa.PublicKey)
	if ok && (k.N.BitLen() < minRSABits || k.E < 3) {
		return fmt.Errorf("the RSA key has %d bits and exponent %d; use %d bits or more and exponent 65537",
			k.N.BitLen(), k.E, minRSABits)
	}
	return nil
}

// block reads text that holds one PEM block. Environment variables often carry the
// line ends written out, as \n.
func block(text []byte) (*pem.Block, error) {
	text = []byte(strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(string(text)))
	b, rest := pem.Decode(text)
	if b != nil && b.Type == "EC PARAMETERS" { // openssl ecparam puts it before the key
		b, rest = pem.Decode(rest)
	}
	if b == nil {
		return nil, errors.New("not PEM; the text must start with -----BEGIN, whole and with its line ends")
	}
	if more, _ := pem.Decode(rest); more != nil {
		// Of a chain the second is a certificate authority, which signs no tokens.
		return nil, errors.New(
			"more than one PEM block; give each key an entry of its own, and of a chain the first certificate only")
	}
	return b, nil
}

// publicKey reads a verification key. Of a certificate only the key counts: neither
// its dates nor its issuer are looked at, since the operator named it.
func publicKey(text []byte) (any, error) {
	b, err := block(text)
	if err != nil {
		return nil, err
	}
	var public any
	switch b.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(b.Bytes); err == nil {
			public = c.PublicKey
		}
	default:
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			return nil, errors.New("a private key; verifying needs the public half only (openssl pkey -in key.pem -pubout)")
		}
		return nil, fmt.Errorf("PEM of type %q; use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", b.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("PEM %s can't be read: %w; export it again (openssl pkey -pubin -in key.pem -pubout)", b.Type, err)
	}
	return public, checkPublic(public)
}
