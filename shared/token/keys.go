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
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// KeySource is where verification keys come from. Exactly one of HMAC, PEM, JWKSFile,
// JWKSURL, Discovery and Secret is required. The keys of the last three are fetched when a
// request needs them, and fetched again regularly.
type KeySource struct {
	// HMAC is a shared secret of at least 32 bytes.
	HMAC []byte
	// PEM is a PUBLIC KEY, an RSA PUBLIC KEY or a CERTIFICATE. Its line ends may be
	// written as \n.
	PEM []byte
	// JWKSFile is the path of a JWK Set (RFC 7517), or of a file that GenerateKeys made.
	JWKSFile string
	// JWKSURL is the address of a published JWK Set: https, or http on loopback, or by HTTP.
	JWKSURL string
	// Discovery is the address of an issuer or of its metadata document, which names the address of the JWK Set. The
	// issuer in the document must be one of Issuers, which are required.
	Discovery string
	// Secret is the ARN of an AWS Secrets Manager secret. The text of the secret is one of
	// the first three.
	Secret string

	// CA is the only CA that is trusted for JWKSURL and Discovery: PEM, or the path of such a file. It is read at the
	// start. Defaults to the CAs of the system.
	CA string
	// HTTP accepts http for JWKSURL and Discovery, at private and loopback addresses, and without a proxy. Defaults to
	// false.
	HTTP bool

	// Rules are the rules for the tokens of these keys.
	Rules
}

// Shorter keys are refused. RFC 7518 section 3.2 requires an HMAC key as long as the hash,
// which is 32 bytes for HS256. The same length is accepted for HS384 and HS512, because 32
// random bytes can't be guessed either way.
const (
	minSecret  = 32   // bytes; RFC 7518 section 3.2
	minRSABits = 2048 // RFC 7518 section 3.3
)

// algorithms are the supported JWS names, with the default for each kind of key first.
// "none" is a JWS name too (RFC 7518 section 3.6). It must never be here: it means that
// a token has no signature.
var algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA",
}

// canonical returns the name in algorithms of an algorithm with two names. RFC 9864 section 2.2 calls EdDSA with keys
// on Ed25519, the only ones that are supported here, Ed25519. The signatures are the same.
func canonical(alg string) string {
	if alg == "Ed25519" {
		return "EdDSA"
	}
	return alg
}

// methodOf returns the algorithm with exactly this name.
func methodOf(alg string) (jwt.SigningMethod, error) {
	if name := canonical(alg); slices.Contains(algorithms, name) {
		return jwt.GetSigningMethod(name), nil
	}
	return nil, fmt.Errorf("%q is not a supported algorithm; use one of %s or Ed25519", alg,
		strings.Join(algorithms, ", "))
}

// accepted returns the methods of the algorithms. It refuses HMAC together with
// public-key algorithms: an attacker could then use a public key, which everybody knows,
// as an HMAC secret (RFC 8725 section 2.1).
func accepted(names []string) (methods map[string]jwt.SigningMethod, faults []error) {
	methods = map[string]jwt.SigningMethod{}
	var secret, public bool
	for _, alg := range names {
		m, err := methodOf(alg)
		if err != nil {
			faults = append(faults, fmt.Errorf("algorithms: %w", err))
			continue
		}
		methods[m.Alg()] = m
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
	id     string   // kid; "" if it has none, and then it is tried for every token
	alg    string   // the only algorithm that its JWK allows, or ""
	algs   []string // the accepted algorithms that it can verify
	public any      // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	from   *source  // the source that the key is from
}

// load reads a source that needs no request.
func (s KeySource) load(from *source, methods map[string]jwt.SigningMethod) (batch, error) {
	found, err := s.read()
	if err != nil {
		return batch{}, err
	}
	return from.usable(found, methods)
}

// usable returns the keys that an accepted algorithm can use, and passes over the others. It
// is an error if there are none; the batch is then valid too.
func (from *source) usable(found batch, methods map[string]jwt.SigningMethod) (batch, error) {
	all := batch{over: found.over, date: found.date}
	var kinds, wanted []string
	for _, alg := range algorithms {
		if methods[alg] != nil {
			wanted = append(wanted, alg)
		}
	}
	for i, k := range found.keys {
		for _, alg := range wanted {
			if suits(methods[alg], k.public) && (k.alg == "" || k.alg == alg) {
				k.algs = append(k.algs, alg)
			}
		}
		if k.from = from; len(k.algs) > 0 {
			all.keys = append(all.keys, k)
			continue
		}
		what := kind(k.public)
		if slices.ContainsFunc(wanted, func(alg string) bool { return suits(methods[alg], k.public) }) {
			what += " for " + brief(k.alg) + " only" // as its JWK says
		}
		kinds = append(kinds, what)
		all.over = append(all.over, PassedOver{
			Key: keyName(i, k.id), kid: k.id,
			Why: fmt.Sprintf("it is %s, which can't verify %s", what, strings.Join(wanted, ", ")),
		})
	}
	for i := range all.over {
		all.over[i].Source = from.name
	}
	// Without any supported algorithm, accepted has reported the error already.
	if len(all.keys) == 0 && len(wanted) > 0 {
		return all, fmt.Errorf("holds %s, which can't verify %s; give a key of that kind or change the algorithms",
			strings.Join(kinds, ", "), strings.Join(wanted, ", "))
	}
	return all, nil
}

// read returns all keys of the source, whether or not an accepted algorithm can use them.
func (s KeySource) read() (batch, error) {
	if err := s.exactlyOne(); err != nil {
		return batch{}, err
	}
	switch {
	case s.JWKSFile != "":
		return readJWKS(s.JWKSFile)
	case len(s.PEM) > 0:
		public, err := publicKey(s.PEM)
		return batch{keys: []key{{public: public}}}, err
	}
	return batch{keys: []key{{public: s.HMAC}}}, checkSecret(s.HMAC)
}

func (s KeySource) exactlyOne() error {
	return exactlyOne("an HMAC secret, a PEM key, a key file, a JWKS address, an issuer's address and a secret's ARN",
		len(s.HMAC), len(s.PEM), len(s.JWKSFile), len(s.JWKSURL), len(s.Discovery), len(s.Secret))
}

// exactlyOne refuses several keys in one source: the operator would have to guess which
// of them counts.
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

// suits reports whether an algorithm uses this kind of key. Each algorithm has its own
// kind, so that no public key is ever used as a secret (RFC 8725 section 2.1), and each
// ES algorithm has its own curve (RFC 7518 section 3.4).
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

// kind describes a key in an error.
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

// checkSecret refuses a secret that is short enough to be guessed, and one that is a
// public key: everybody who knows that key could sign tokens.
func checkSecret(secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("the HMAC secret has %d bytes; use %d random bytes or more (openssl rand -hex 32)",
			len(secret), minSecret)
	}
	// The lines between BEGIN and END of a PEM block are DER in base64.
	bare := strings.Join(strings.Fields(string(secret)), "")
	der, err := base64.StdEncoding.DecodeString(bare)
	if err != nil {
		der = secret
	}
	_, notKey := x509.ParsePKIXPublicKey(der)
	_, notCert := x509.ParseCertificate(der)
	if notKey == nil || notCert == nil || bytes.Contains(secret, []byte("-----BEGIN")) ||
		strings.HasPrefix(bare, "ssh-") {
		return errors.New("the HMAC secret is a public or private key; give it as PEM, " +
			"or make a secret (openssl rand -hex 32)")
	}
	return nil
}

// checkPublic refuses RSA keys that are too weak.
func checkPublic(public any) error {
	k, ok := public.(*rsa.PublicKey)
	if ok && (k.N.BitLen() < minRSABits || k.E < 3) {
		return fmt.Errorf("the RSA key has %d bits and exponent %d; use %d bits or more and exponent 65537",
			k.N.BitLen(), k.E, minRSABits)
	}
	return nil
}

// block returns the one PEM block of a text. In environment variables, line ends are
// often written as \n.
func block(text []byte) (*pem.Block, error) {
	text = []byte(strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(string(text)))
	b, rest := pem.Decode(text)
	if b != nil && b.Type == "EC PARAMETERS" { // openssl ecparam writes it before the key
		b, rest = pem.Decode(rest)
	}
	if b == nil {
		return nil, errors.New("not PEM; the text must start with -----BEGIN, whole and with its line ends")
	}
	if more, _ := pem.Decode(rest); more != nil {
		// In a chain of certificates the second one is a CA, which signs no tokens.
		return nil, errors.New(
			"more than one PEM block; give each key an entry of its own, and only the first certificate of a chain")
	}
	return b, nil
}

// publicKey reads a verification key. Only the key of a certificate counts. Its dates
// and its issuer are not checked, because the operator chose this certificate.
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
			return nil, errors.New("a private key; give the public key only (openssl pkey -in key.pem -pubout)")
		}
		return nil, fmt.Errorf("PEM of type %q; use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", b.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("PEM %s can't be read: %w; "+
			"export it again (openssl pkey -pubin -in key.pem -pubout)", b.Type, err)
	}
	return public, checkPublic(public)
}
