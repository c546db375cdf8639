package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyFile is the file that GenerateKeys makes: a JWK Set together with the key that
// signs. RFC 7517 section 5 allows further members in a set. A set from another program
// has Keys only.
type keyFile struct {
	Keys       []json.RawMessage `json:"keys"`
	PrivateKey string            `json:"private_key,omitempty"` // PEM, PKCS #8
	PublicKey  string            `json:"public_key,omitempty"`  // PEM, for JWT_VERIFICATION_KEY
	Secret     string            `json:"secret,omitempty"`      // HMAC; the text itself is the key, as in PyJWT
}

// Limits for a key file, a fetched set and a secret. Real ones are smaller; a wrong or hostile
// one must not cost much time or memory. Certificates (x5c) make a key of Keycloak 1.5 KB long
// and one of other issuers 6 KB. A token that names no known kid is tried with each key, so
// that 100 RSA keys cost 4 ms.
const (
	maxSet    = 256 << 10 // bytes of a key file or a fetched set
	maxKeys   = 100
	maxSecret = 64 << 10 // bytes; AWS Secrets Manager accepts no more
)

// batch is what a source contains: the keys that can be used, and those that were passed over.
type batch struct {
	keys []key
	over []PassedOver
	date time.Time // when it was sent, by the clock of its server; zero if unknown
}

// PassedOver is a key that verifies nothing, although its source contains it.
type PassedOver struct {
	// Source names the source, such as keys[0].
	Source string
	// Key is such as `key "kid"`, or "key 1" for the second one if it has no kid. "" stands for the whole
	// source, which has no usable key.
	Key string
	// Why is a clause such as "its kid is not a string".
	Why string

	kid string
}

// String returns a sentence about the key, such as `keys[0] passes over the key "a": it is …`.
func (p PassedOver) String() string {
	if p.Key == "" {
		return p.Source + ": " + p.Why
	}
	return fmt.Sprintf("%s: passes over %s: %s", p.Source, p.Key, p.Why)
}

// readKeyFile reads a file that the operator wrote. Other than a token or a fetched set, it
// is trusted, so that encoding/json is strict enough for it.
func readKeyFile(path string) (f keyFile, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, fmt.Errorf("%w; make the file with: keyway keys generate --out %s", err, path)
	case err != nil:
		return f, err
	case len(data) > maxSet:
		return f, fmt.Errorf("%s has more than %d bytes; remove the keys that no longer sign", path, maxSet)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf(`%s is not a key file: %w; it must be JSON like {"keys": [...]}`, path, err)
	}
	return f, nil
}

// readJWKS returns the verification keys of a key file.
func readJWKS(path string) (batch, error) {
	f, err := readKeyFile(path)
	if err != nil {
		return batch{}, err
	}
	b, err := f.public()
	if err != nil {
		return batch{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// public returns the keys that can verify tokens. It passes over the others, as RFC 7517
// section 5 recommends: the operator may have got the set from an issuer, and can't change
// it. A private key is an error, because it is in the wrong place and may already be known
// to others. A set without any usable key is an error too.
func (f keyFile) public() (b batch, err error) {
	if len(f.Keys) > maxKeys {
		return b, fmt.Errorf("holds %d keys; %d is the most, remove those that no longer sign", len(f.Keys), maxKeys)
	}
	var faults []error
	for i, raw := range f.Keys {
		if err := b.add(i, raw); errors.Is(err, errPrivate) {
			faults = append(faults, fmt.Errorf("key %d: a private key; keep only its public members, "+
				"or put it into private_key beside the set", i))
		}
	}
	if f.Secret != "" {
		faults = append(faults, checkSecret([]byte(f.Secret)))
		b.keys = append(b.keys, key{public: []byte(f.Secret)})
	}
	if err := errors.Join(faults...); err != nil {
		return batch{}, err
	}
	switch {
	case len(b.keys) > 0:
	case len(b.over) > 0:
		return batch{}, fmt.Errorf("holds no signing key that can be used: %s; export the keys again from the issuer, "+
			"or give others", because(b.over))
	default:
		return batch{}, errors.New(`holds no signing key; a JWKS is JSON like {"keys": [{"kty": "RSA", …}]}`)
	}
	return b, nil
}

// because lists why keys were passed over, for an error. It names at most five.
func because(over []PassedOver) string {
	const most = 5
	var all []string
	for _, p := range over[:min(len(over), most)] {
		all = append(all, p.Key+": "+p.Why)
	}
	if more := len(over) - most; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}

// add reads the JWK at a place in a set. It returns the error with which it passed over the key.
func (b *batch) add(place int, raw []byte) error {
	k, err := publicJWK(raw)
	if err == nil {
		b.keys = append(b.keys, k)
		return nil
	}
	b.over = append(b.over, PassedOver{Key: keyName(place, k.id), Why: brief(err.Error()), kid: k.id})
	return err
}

// keyName names a key of a set in a message.
func keyName(place int, kid string) string {
	if kid == "" {
		return fmt.Sprintf("key %d", place)
	}
	return "key " + strconv.Quote(brief(kid))
}

var errPrivate = errors.New("it is a private key, which nobody but its issuer should have")

// publicJWK returns a public key for signatures. Otherwise the error is a clause that says why
// the key can't be used, and the key has its kid only. go-jose checks the members, their
// encodings, and that a point is on its curve.
func publicJWK(raw []byte) (k key, err error) {
	var about struct {
		Kty, Use, Crv string
		Kid           any
		Ops           []string `json:"key_ops"`
	}
	err = json.Unmarshal(raw, &about)
	var isText bool
	k.id, isText = about.Kid.(string)
	// RFC 7517 sections 4.2 and 4.3: without use and key_ops, the key is for every use.
	switch {
	case err != nil || len(raw) == 0 || raw[0] != '{':
		return k, errors.New("it is not a JWK")
	case about.Kid != nil && !isText:
		return k, errors.New("its kid is not a string")
	case about.Use != "" && about.Use != "sig":
		return k, fmt.Errorf("it is for another use than signatures, %s", brief(strconv.Quote(about.Use)))
	case about.Ops != nil && !slices.Contains(about.Ops, "verify"):
		return k, errors.New("its key_ops lack verify")
	case about.Kty == "oct":
		return k, errors.New("it is a secret (oct), which no set can publish")
	case !slices.Contains([]string{"RSA", "EC", "OKP"}, about.Kty):
		return k, fmt.Errorf("its kind (kty) %s is not supported", brief(strconv.Quote(about.Kty)))
	case about.Kty != "RSA" && !slices.Contains([]string{"P-256", "P-384", "P-521", "Ed25519"}, about.Crv):
		return k, fmt.Errorf("its curve %s is not supported", brief(strconv.Quote(about.Crv)))
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return k, fmt.Errorf("its members can't be read (%w)", err)
	}
	if !jwk.IsPublic() {
		return k, errPrivate
	}
	if err := checkPublic(jwk.Key); err != nil {
		return k, err
	}
	return key{id: jwk.KeyID, alg: canonical(jwk.Algorithm), public: jwk.Key}, nil
}
