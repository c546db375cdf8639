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

// keyFile is what GenerateKeys makes: a JWK Set (RFC 7517 section 5, which lets it
// have further members) beside what signs. A set from elsewhere has Keys only.
type keyFile struct {
	Keys       []json.RawMessage `json:"keys"`
	PrivateKey string            `json:"private_key,omitempty"` // PEM, PKCS #8
	PublicKey  string            `json:"public_key,omitempty"`  // PEM, for JWT_VERIFICATION_KEY
	Secret     string            `json:"secret,omitempty"`      // HMAC; its text is the key, as PyJWT takes it
}

// A set is small; these keep a wrong file, or a hostile one, from costing much.
const (
	maxKeyFile = 64 << 10
	maxKeys    = 20
)

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

// public reads the keys that verify. RFC 7517 section 5 has us pass over those meant
// for something else or of a kind we don't know; a broken, weak or private one is a
// fault. A symmetric JWK ("oct") is passed over: a set is for publishing.
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
			keys = append(keys, key{id: jwk.KeyID, alg: jwk.Algorithm, public: jwk.Key})
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

// publicJWK is nil, nil for a key to pass over. The rest go-jose checks: members,
// encodings, a point on its curve.
func publicJWK(raw json.RawMessage) (*jose.JSONWebKey, error) {
	var about struct {
		Kty, Use string
		Ops      []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return nil, fmt.Errorf("not a JWK: %w", err)
	}
	// RFC 7517 sections 4.2 and 4.3: absent, neither use nor key_ops restricts the key.
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
		return nil, errors.New("a private key; keep only its public members, or use private_key beside the set")
	}
	return &jwk, checkPublic(jwk.Key)
}
