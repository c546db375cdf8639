package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// FuzzJWKS parses any answer of an address. Every accepted key is public and strong, and
// no HMAC algorithm uses it.
func FuzzJWKS(f *testing.F) {
	for _, seed := range []string{
		`{"keys":[]}`, `{"keys":null}`, `{"keys":{}}`, `{"Keys":[]}`, `{"keys":[],"keys":[]}`, `[]`,
		`{"keys":[{},null,1,"x",[]]}`,
		`{"keys":[{"kty":"oct","k":"dGVzdCBrZXkgb25seSB0ZXN0IGtleSBvbmx5IHRlc3Qga2V5","alg":"HS256"}],"secret":"x"}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"é"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseSet(data)
		if n := len(set.keys) + len(set.over); err != nil && n > 0 || n > maxKeys {
			t.Fatalf("%d keys, error %v", n, err)
		}
		for _, k := range set.keys {
			if err := checkPublic(k.public); err != nil {
				t.Error(err)
			}
			switch k.public.(type) {
			case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			default:
				t.Errorf("a key of type %T", k.public)
			}
			for _, m := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
				if suits(m, k.public) {
					t.Errorf("%s takes a %T", m.Alg(), k.public)
				}
			}
		}
	})
}
