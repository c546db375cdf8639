package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// GenerateKeys generates a key for alg and returns it as a JSON document: a JWK Set with
// the public key, and the members private_key and public_key in PEM. For HMAC the set is
// empty, and the member secret has 64 hex digits. The kid is the key's thumbprint (RFC
// 7638), so that two keys never have the same.
//
// random is the source of secrets and Ed25519 keys. RSA and EC keys always use the
// system's source (crypto/rsa and crypto/ecdsa do so since Go 1.26).
func GenerateKeys(alg string, random io.Reader) ([]byte, error) {
	m, err := methodOf(alg)
	if err != nil {
		return nil, fmt.Errorf("generate keys: %w", err)
	}
	f := keyFile{Keys: []json.RawMessage{}}
	if _, ok := m.(*jwt.SigningMethodHMAC); ok {
		secret := make([]byte, minSecret)
		_, err = io.ReadFull(random, secret)
		f.Secret = hex.EncodeToString(secret)
	} else {
		err = f.addKey(m, random)
	}
	if err != nil {
		return nil, fmt.Errorf("generate keys: %w", err)
	}
	text, err := json.MarshalIndent(f, "", "  ")
	return append(text, '\n'), err
}

// addKey generates one key pair and adds it as a JWK and as two PEM blocks. The JWK is for
// verifiers that read a set, public_key is for JWT_VERIFICATION_KEY, and private_key is
// the only part that signs. The JWK names its algorithm, so that no verifier uses the key
// with another one (RFC 7517 section 4.4).
func (f *keyFile) addKey(m jwt.SigningMethod, random io.Reader) error {
	private, err := generate(m, random)
	if err != nil {
		return err
	}
	jwk := jose.JSONWebKey{Key: private.Public(), Algorithm: m.Alg(), Use: "sig"}
	print, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(print)
	raw, err := jwk.MarshalJSON()
	if err != nil {
		return err
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return err
	}
	f.Keys = append(f.Keys, raw)
	f.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secretDER}))
	f.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}))
	return nil
}

// generate returns a new key for m. Every verifier accepts RSA keys of 2048 bits.
func generate(m jwt.SigningMethod, random io.Reader) (crypto.Signer, error) {
	switch m := m.(type) {
	case *jwt.SigningMethodECDSA:
		curves := map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}
		return ecdsa.GenerateKey(curves[m.CurveBits], random)
	case *jwt.SigningMethodEd25519:
		_, private, err := ed25519.GenerateKey(random)
		return private, err
	}
	return rsa.GenerateKey(random, minRSABits)
}
