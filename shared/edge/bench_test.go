package edge_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
)

// BenchmarkAuthorize measures the whole answer to an event (token, policy, context), and
// the bare verification of the same signature. The difference is the authorizer's own cost.
func BenchmarkAuthorize(b *testing.B) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for _, alg := range []struct {
		method  jwt.SigningMethod
		private any
		literal string
	}{
		{jwt.SigningMethodHS256, []byte(key), key},
		{jwt.SigningMethodRS256, rsaKey, publicPEM(b, rsaKey)},
		{jwt.SigningMethodES256, ecKey, publicPEM(b, ecKey)},
	} {
		c := declaring("web-search-agent", "finance-agent")
		c.Auth.Algorithms, c.Auth.Keys = []string{alg.method.Alg()}, []config.Key{{Literal: config.Secret(alg.literal)}}
		a := newAuthorizer(b, c)
		for _, scopes := range [][]string{{"agents:web-search-agent:run"}, many(100, "agents:agent-%d:run")} {
			raw, err := jwt.NewWithClaims(alg.method, jwt.MapClaims{
				"sub": "ann", "iss": "https://issuer", "iat": now.Unix(), "exp": now.Unix() + 3600, "scopes": scopes,
			}).SignedString(alg.private)
			if err != nil {
				b.Fatal(err)
			}
			name := fmt.Sprintf("%s/%d", alg.method.Alg(), len(scopes))
			b.Run(name+"/whole", func(b *testing.B) { benchmarkWhole(b, a, raw) })
			b.Run(name+"/event", func(b *testing.B) { benchmarkEvent(b, a, raw) })
			b.Run(name+"/first", func(b *testing.B) { benchmarkFirst(b, a, raw) })
			b.Run(name+"/signature", func(b *testing.B) { benchmarkSignature(b, alg.method, alg.private, raw) })
		}
	}
}

// BenchmarkRoles measures the answer to a token with one scope, to one with five, to one with twenty roles of which
// three
// grant these five, and to one that has these roles too and whose roles are not read. The last two differ by what
// reading
// roles costs; the others, by the length of the token and of the policy as well.
func BenchmarkRoles(b *testing.B) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	five := []string{"agents:web-search-agent:run", "agents:web-search-agent:read", "sessions:read", "sessions:write",
		"memories:read"}
	c := declaring("web-search-agent", "finance-agent")
	c.Auth.Algorithms, c.Auth.Keys = []string{"RS256"}, []config.Key{{Literal: config.Secret(publicPEM(b, private))}}
	plain := newAuthorizer(b, c)
	c.Auth.Claims.Roles = config.Sources{{Path: []string{"realm_access", "roles"}}}
	c.Auth.Grants = config.Grants{"web-users": five[:2], "editors": five[2:4], "staff": five[4:]}
	mapped := newAuthorizer(b, c)
	roles := append(many(17, "department-%d"), "staff", "web-users", "editors")
	for _, row := range []struct {
		name string
		a    *edge.Authorizer
		more jwt.MapClaims
	}{
		{"one scope", plain, jwt.MapClaims{"scopes": five[:1]}},
		{"five scopes", plain, jwt.MapClaims{"scopes": five}},
		{"five scopes, 20 roles unread", plain, jwt.MapClaims{"scopes": five, "realm_access": object{"roles": roles}}},
		{"20 roles", mapped, jwt.MapClaims{"realm_access": object{"roles": roles}}},
	} {
		claims := jwt.MapClaims{"sub": "ann", "iss": "https://issuer", "iat": now.Unix(), "exp": now.Unix() + 3600}
		maps.Copy(claims, row.more)
		raw, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(private)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(row.name+"/whole", func(b *testing.B) { benchmarkWhole(b, row.a, raw) })
		b.Run(row.name+"/event", func(b *testing.B) { benchmarkEvent(b, row.a, raw) })
	}
}

func benchmarkWhole(b *testing.B, a *edge.Authorizer, raw string) {
	e := event(b, "Bearer "+raw)
	measure(b, func() error { _, err := a.Authorize(b.Context(), e); return err })
}

// benchmarkEvent includes the decoding of the event and the encoding of the answer, as in
// the Lambda function.
func benchmarkEvent(b *testing.B, a *edge.Authorizer, raw string) {
	payload, err := json.Marshal(event(b, "Bearer "+raw))
	if err != nil {
		b.Fatal(err)
	}
	measure(b, func() error { _, err := a.Answer(b.Context(), payload); return err })
}

// benchmarkFirst is benchmarkEvent for tokens of which none has had its scopes before, so that each policy is made. As
// many stages as no authorizer has stand for the scopes.
func benchmarkFirst(b *testing.B, a *edge.Authorizer, raw string) {
	var payloads [][]byte
	for i := range 1000 {
		e := event(b, "Bearer "+raw)
		e.MethodArn = strings.Replace(e.MethodArn, "/", fmt.Sprintf("/s%d", i), 1)
		payload, err := json.Marshal(e)
		if err != nil {
			b.Fatal(err)
		}
		payloads = append(payloads, payload)
	}
	n := 0
	measure(b, func() error { n++; _, err := a.Answer(b.Context(), payloads[n%len(payloads)]); return err })
}

func benchmarkSignature(b *testing.B, m jwt.SigningMethod, private any, raw string) {
	public := private
	if k, ok := private.(crypto.Signer); ok {
		public = k.Public()
	}
	last := strings.LastIndexByte(raw, '.')
	signature, err := jwt.NewParser().DecodeSegment(raw[last+1:])
	if err != nil {
		b.Fatal(err)
	}
	measure(b, func() error { return m.Verify(raw[:last], signature, public) })
}

// measure reports processor time as well as elapsed time, which other processes lengthen.
// With -cpu 1 it is the time of the loop and of the garbage collector.
func measure(b *testing.B, op func() error) {
	b.Helper()
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-begin)/float64(b.N), "cpu-ns/op")
}

func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func publicPEM(b *testing.B, private crypto.Signer) string {
	b.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		b.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
