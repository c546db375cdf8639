package token_test

import (
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/token"
)

// BenchmarkVerify measures Verify, and for comparison the check of the signature alone.
func BenchmarkVerify(b *testing.B) {
	ec := ecKey(elliptic.P256())
	for _, alg := range []struct {
		method  jwt.SigningMethod
		private any
		source  token.KeySource
	}{
		{jwt.SigningMethodHS256, []byte(testSecret), token.KeySource{HMAC: []byte(testSecret)}},
		{jwt.SigningMethodRS256, rsaKey(), token.KeySource{PEM: publicPEM(rsaKey())}},
		{jwt.SigningMethodES256, ec, token.KeySource{PEM: publicPEM(ec)}},
	} {
		for _, scopes := range []int{1, 100} {
			claims := alice("iss", "https://issuer")
			claims["iat"], claims["scopes"] = now, slices.Repeat([]string{"agents:web-search-agent:run"}, scopes)
			raw := mint(b, alg.method, alg.private, claims)
			name := fmt.Sprintf("%s/%d scopes", alg.method.Alg(), scopes)
			b.Run(name+"/whole", func(b *testing.B) {
				v := newVerifier(b, token.Options{
					Algorithms: []string{alg.method.Alg()}, Keys: []token.KeySource{alg.source}, Now: at(now),
				})
				benchmarkWhole(b, v, raw)
			})
			b.Run(name+"/signature", func(b *testing.B) { benchmarkSignature(b, alg.method, alg.private, raw) })
		}
	}
}

// BenchmarkLongestToken measures tokens of 64 KB that make the most work of their roles: the time must grow with
// the length of the token, and not with its square or with the number of repetitions.
func BenchmarkLongestToken(b *testing.B) {
	var scopes, roles []string
	grants := map[string][]string{}
	for i := range 5500 {
		scopes, roles = append(scopes, fmt.Sprintf("s:%d", i)), append(roles, fmt.Sprintf("r%d", i))
		grants[roles[i]] = []string{"a:b"}
	}
	grants["many"] = scopes[:4000]
	for name, roles := range map[string][]string{
		"one role repeated": slices.Repeat([]string{"many"}, 5500), "many roles": roles, "unknown roles": scopes,
	} {
		o := hmacOptions()
		o.Keys[0].Rules = token.Rules{Roles: only(claim("roles")), Grants: grants}
		raw := signedText(b, `{"alg":"HS256"}`, string(must(json.Marshal(map[string]any{"roles": roles}))))
		b.Run(name, func(b *testing.B) { benchmarkWhole(b, newVerifier(b, o), raw) })
	}
}

func benchmarkWhole(b *testing.B, v *token.Verifier, raw string) {
	header := []string{"Bearer " + raw}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), header); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkSignature(b *testing.B, m jwt.SigningMethod, private any, raw string) {
	public := private
	if k, ok := private.(crypto.Signer); ok {
		public = k.Public()
	}
	signed, encoded := raw[:strings.LastIndexByte(raw, '.')], raw[strings.LastIndexByte(raw, '.')+1:]
	signature := must(jwt.NewParser().DecodeSegment(encoded))
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Verify(signed, signature, public); err != nil {
			b.Fatal(err)
		}
	}
}
