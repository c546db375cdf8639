package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

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

// Limits for a key file, a fetched set and a secret. Real ones are far smaller; a wrong
// or hostile one must not cost much time or memory.
const (
	maxKeyFile = 64 << 10
	maxKeys    = 20
)

// readKeyFile reads a file that the operator wrote. Other than a token or a fetched set, it
// is trusted, so that encoding/json is strict enough for it.
func readKeyFile(path string) (f keyFile, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, fmt.Errorf("%w; make the file with: keyway keys generate --out %s", err, path)
	case err != nil:
		return f, err
	case len(data) > maxKeyFile:
		return f, fmt.Errorf("%s has more than %d bytes; remove the keys that no longer sign", path, maxKeyFile)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf(`%s is not a key file: %w; it must be JSON like {"keys": [...]}`, path, err)
	}
	return f, nil
}

// readJWKS returns the verification keys of a key file.
func readJWKS(path string) ([]key, error) {
	f, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := f.public()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// public returns the keys that can verify tokens. It ignores keys for another use and of
// an unknown kind, as RFC 7517 section 5 recommends, and symmetric ones ("oct"), because
// a set is meant to be published. A broken, weak or private key is an error: the operator
// wrote the file and can correct it.
func (f keyFile) public() ([]key, error) {
	var keys []key
	var faults []error
	if len(f.Keys) > maxKeys {
		return nil, fmt.Errorf("holds %d keys; %d is the most, remove those that no longer sign", len(f.Keys), maxKeys)
	}
	for i, raw := range f.Keys {
		jwk, err := publicJWK(raw)
		if err != nil {
			faults = append(faults, fmt.Errorf("key %d: %w", i, err))
		}
		if jwk != nil {
			keys = append(keys, key{id: jwk.KeyID, alg: canonical(jwk.Algorithm), public: jwk.Key})
		}
	}
	if f.Secret != "" {
		faults = append(faults, checkSecret([]byte(f.Secret)))
		keys = append(keys, key{public: []byte(f.Secret)})
	}
	if len(keys) == 0 && len(faults) == 0 {
		return nil, errors.New(`holds no signing key; a JWKS is JSON like {"keys": [{"kty": "RSA", …}]}`)
	}
	return keys, errors.Join(faults...)
}

// publicJWK returns nil, nil for a key to ignore. go-jose checks the members, their
// encodings, and that a point is on its curve.
func publicJWK(raw json.RawMessage) (*jose.JSONWebKey, error) {
	var about struct {
		Kty, Use string
		Ops      []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return nil, fmt.Errorf("not a JWK: %w", err)
	}
	// RFC 7517 sections 4.2 and 4.3: without use and key_ops, the key is for every use.
	verifies := (about.Use == "" || about.Use == "sig") && (about.Ops == nil || slices.Contains(about.Ops, "verify"))
	if !verifies || !slices.Contains([]string{"RSA", "EC", "OKP"}, about.Kty) {
		return nil, nil
	}
	var jwk jose.JSONWebKey
	switch err := jwk.UnmarshalJSON(raw); {
	case errors.Is(err, jose.ErrUnsupportedKeyType):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w; export it again from the issuer", err)
	case !jwk.IsPublic():
		return nil, errors.New("a private key; keep only its public members, or put it into private_key beside the set")
	}
	return &jwk, checkPublic(jwk.Key)
}
