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
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-lambda-go/lambda"
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
			b.Run(name+"/signature", func(b *testing.B) { benchmarkSignature(b, alg.method, alg.private, raw) })
		}
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
	handler := lambda.NewHandler(a.Authorize)
	measure(b, func() error { _, err := handler.Invoke(b.Context(), payload); return err })
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
