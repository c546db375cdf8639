package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

const (
	now           = 1893456000 // 2030-01-01T00:00:00Z
	testSecret    = "test key only: forty-four bytes of no secret"
	anotherSecret = "test key only: some other forty-four letters"
	badSignature  = "Invalid token: Signature verification failed"
	badAlgorithm  = "Invalid token: The specified alg value is not allowed"
	tooManyScopes = "Invalid token: More than 4096 scopes or 32768 bytes of scopes"
	wrongAudience = "Invalid token audience - token not valid for this AgentOS instance"
	wrongIssuer   = "Invalid token: Invalid issuer"
)

// mint signs with the library itself, so that a test of Verify doesn't depend on Sign.
func mint(tb testing.TB, m jwt.SigningMethod, key any, claims jwt.MapClaims, header ...string) string {
	tb.Helper()
	t := jwt.NewWithClaims(m, claims)
	for i := 0; i < len(header); i += 2 {
		t.Header[header[i]] = header[i+1]
	}
	raw, err := t.SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func alice(more ...string) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "alice", "scopes": []string{"agents:read"}, "exp": now + 60}
	for i := 0; i < len(more); i += 2 {
		c[more[i]] = more[i+1]
	}
	return c
}

func hmacOptions() token.Options {
	return token.Options{
		Algorithms: []string{"HS256"}, Keys: []token.KeySource{{HMAC: []byte(testSecret)}}, Now: at(now),
	}
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func ecKey(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

func edKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(private crypto.Signer) []byte {
	return pemBlock("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(private.Public())))
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func verify(t *testing.T, o token.Options, raw string) (token.Claims, error) {
	t.Helper()
	return newVerifier(t, o).Verify(t.Context(), []string{"Bearer " + raw})
}

func wantSubject(t *testing.T, want string, c token.Claims, err error) {
	t.Helper()
	if err != nil || c.Subject != want {
		t.Errorf("subject %q, error %v; want subject %q", c.Subject, err, want)
	}
}

func TestSizesAreBounded(t *testing.T) {
	t.Parallel()
	scopes := func(n, size int) jwt.MapClaims {
		return jwt.MapClaims{"sub": "alice", "scopes": slices.Repeat([]string{strings.Repeat("s", size)}, n)}
	}
	for name, row := range map[string]struct {
		claims jwt.MapClaims
		text   string
	}{
		"4096 scopes pass":                          {scopes(4096, 4), ""},
		"4097 scopes don't":                         {scopes(4097, 1), tooManyScopes},
		"4097 empty scopes don't":                   {scopes(4097, 0), tooManyScopes},
		"32 KB of scopes pass":                      {scopes(32, 1024), ""},
		"32 KB of scopes and some don't":            {scopes(33, 1024), tooManyScopes},
		"one scope of 32 KB and a byte doesn't":     {scopes(1, 32<<10+1), tooManyScopes},
		"100 KB of token don't":                     {scopes(1, 75<<10), "Invalid token: Longer than 65536 bytes"},
		"4097 scopes that aren't all text are none": {jwt.MapClaims{"sub": "alice", "scopes": make([]any, 4097)}, ""},
		"40 KB of an unused claim pass": {
			jwt.MapClaims{"sub": "alice", "x": strings.Repeat("x", 40<<10)}, "",
		},
		"a subject of 40 KB doesn't": {
			alice("sub", strings.Repeat("x", 40<<10)), "Invalid token subject",
		},
		"an issuer of 2 KB doesn't, even if not checked": {alice("iss", strings.Repeat("x", 2<<10)), wrongIssuer},
		"an issuer with NUL doesn't":                     {alice("iss", "a\x00"), wrongIssuer},
		"nesting of an unused claim passes":              {jwt.MapClaims{"sub": "alice", "x": nested(500)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := verify(t, hmacOptions(), mint(t, jwt.SigningMethodHS256, []byte(testSecret), row.claims))
			if row.text != "" {
				wantRefusal(t, err, row.text)
				return
			}
			wantSubject(t, "alice", c, err)
		})
	}
}

func nested(depth int) any {
	v := any("bottom")
	for range depth {
		v = []any{v}
	}
	return v
}

func TestATooLongTokenIsRefusedBeforeItIsParsed(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, hmacOptions())
	_, err := v.Verify(t.Context(), []string{strings.Repeat("a", 100<<10)})
	wantRefusal(t, err, "Invalid token: Longer than 65536 bytes")
	_, err = v.Verify(t.Context(), []string{strings.Repeat("a", 64<<10)})
	wantRefusal(t, err, "Invalid token: Not enough segments")
}

func TestSeveralHeaderValuesAreRefused(t *testing.T) {
	t.Parallel()
	good := "Bearer " + mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice())
	v := newVerifier(t, hmacOptions())
	for _, values := range [][]string{{good, good}, {good, ""}, {"", good}, {"", ""}} {
		_, err := v.Verify(t.Context(), values)
		wantRefusal(t, err, "Ambiguous Authorization header")
	}
	_, err := v.Verify(t.Context(), []string{good + ", " + good})
	wantRefusal(t, err, "Invalid token: Invalid payload padding")
}

func TestPublicKeyIsNeverASecret(t *testing.T) {
	t.Parallel()
	text := publicPEM(rsaKey())
	der, _ := pem.Decode(text)
	for name, secret := range map[string][]byte{
		"PEM": text, "PEM without its last line end": text[:len(text)-1], "DER": der.Bytes,
		"PKCS1 DER": x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), "modulus": rsaKey().N.Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, alg := range []string{"RS256", "PS256", "RS512"} {
				o := token.Options{Algorithms: []string{alg}, Keys: []token.KeySource{{PEM: text}}, Now: at(now)}
				_, err := verify(t, o, mint(t, jwt.SigningMethodHS256, secret, alice()))
				wantRefusal(t, err, badAlgorithm)
			}
		})
	}
}

func TestEachAlgorithmIsBoundToItsKindOfKey(t *testing.T) {
	t.Parallel()
	p256, p384 := ecKey(elliptic.P256()), ecKey(elliptic.P384())
	o := token.Options{
		Algorithms: []string{"RS256", "ES256", "ES384", "EdDSA"}, Now: at(now),
		Keys: []token.KeySource{
			{PEM: publicPEM(rsaKey())}, {PEM: publicPEM(p256)}, {PEM: publicPEM(p384)}, {PEM: publicPEM(edKey())},
		},
	}
	for _, row := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		text   string
	}{
		{"RS256 with the RSA key", jwt.SigningMethodRS256, rsaKey(), ""},
		{"ES256 with the P-256 key", jwt.SigningMethodES256, p256, ""},
		{"ES384 with the P-384 key", jwt.SigningMethodES384, p384, ""},
		{"EdDSA with the Ed25519 key", jwt.SigningMethodEdDSA, edKey(), ""},
		{"PS256, which is not listed", jwt.SigningMethodPS256, rsaKey(), badAlgorithm},
		{"ES512, which is not listed", jwt.SigningMethodES512, ecKey(elliptic.P521()), badAlgorithm},
		{"ES256 with a stranger's P-256 key", jwt.SigningMethodES256, ecKey(elliptic.P256()), badSignature},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, err := verify(t, o, mint(t, row.method, row.key, alice()))
			if row.text != "" {
				wantRefusal(t, err, row.text)
				return
			}
			wantSubject(t, "alice", c, err)
		})
	}
}

func TestEveryConfiguredKeyIsTried(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys = []token.KeySource{{HMAC: []byte(anotherSecret)}, {HMAC: []byte(testSecret)}}
	for _, secret := range []string{testSecret, anotherSecret} {
		c, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(secret), alice()))
		wantSubject(t, "alice", c, err)
	}
	_, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"exp": now - 1}))
	wantRefusal(t, err, "Token has expired")
}

func TestAKeyVerifiesTokensOfItsIssuerAndAudienceOnly(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys = []token.KeySource{
		{HMAC: []byte(testSecret), Rules: token.Rules{Issuers: []string{"https://a"}}},
		{HMAC: []byte(anotherSecret), Rules: token.Rules{Issuers: []string{"https://b"}, Audience: []string{"x"}}},
	}
	for _, row := range []struct {
		name, secret string
		claims       jwt.MapClaims
		text         string
	}{
		{"a's key for a", testSecret, alice("iss", "https://a"), ""},
		{"a's key for b", testSecret, alice("iss", "https://b"), wrongIssuer},
		{"a's key without an issuer", testSecret, alice(), `Invalid token: Token is missing the "iss" claim. ` +
			`Issuer verification requires this claim to be present in the token.`},
		{"b's key for b and x", anotherSecret, alice("iss", "https://b", "aud", "x"), ""},
		{"b's key for b and y", anotherSecret, alice("iss", "https://b", "aud", "y"), wrongAudience},
		{"b's key for a and x", anotherSecret, alice("iss", "https://a", "aud", "x"), wrongIssuer},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(row.secret), row.claims))
			if row.text != "" {
				wantRefusal(t, err, row.text)
				return
			}
			wantSubject(t, "alice", c, err)
		})
	}
}

func TestOneKeyCanVerifyTwoIssuers(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys = []token.KeySource{
		{HMAC: []byte(testSecret), Rules: token.Rules{Issuers: []string{"https://a"}}},
		{HMAC: []byte(testSecret), Rules: token.Rules{Issuers: []string{"https://b"}}},
	}
	for _, issuer := range []string{"https://a", "https://b"} {
		c, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice("iss", issuer)))
		wantSubject(t, "alice", c, err)
	}
}

func TestTheAudienceOfTheOSIsRequiredForEveryKey(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Audience = []string{"my-agent-os"}
	o.Keys[0].Audience = []string{"x"}
	both := alice()
	both["aud"] = []string{"x", "my-agent-os"}
	c, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), both))
	wantSubject(t, "alice", c, err)
	for _, aud := range []string{"x", "my-agent-os"} {
		_, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice("aud", aud)))
		wantRefusal(t, err, wrongAudience)
	}
}

func TestClaimNamesAreConfigurable(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys[0].Subject.Path, o.Keys[0].Session.Path = []string{"uid"}, []string{"sid"}
	o.Keys[0].Scopes = []token.ClaimSource{{Path: []string{"https://example.org/permissions"}}}
	claims := jwt.MapClaims{"uid": "bob", "https://example.org/permissions": "a:b", "sid": "s1"}
	maps.Copy(claims, alice("session_id", "ignored"))
	got, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), claims))
	want := token.Claims{
		Subject: "bob", Scopes: []string{"a:b"}, ScopesClaim: "https://example.org/permissions", SessionID: "s1",
		Source: "keys[0]", ExpiresAt: time.Unix(now+60, 0).UTC(),
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v, claims (-want +got):\n%s", err, diff)
	}
	_, err = verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"sid": 1}))
	wantRefusal(t, err, "Invalid token: sid must be a string of at most 255 bytes")
	_, err = verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"uid": "sa:bot"}))
	wantRefusal(t, err, "Invalid token subject")
}

func TestExpiryFollowsTheClock(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	var clock time.Time
	o.Now = func() time.Time { return clock }
	v := newVerifier(t, o)
	header := []string{"Bearer " + mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice())}
	clock = time.Unix(now+59, 999)
	c, err := v.Verify(t.Context(), header)
	wantSubject(t, "alice", c, err)
	clock = time.Unix(now+60, 0)
	_, err = v.Verify(t.Context(), header)
	wantRefusal(t, err, "Token has expired")
}

func TestRefusalShowsNothingOfTheToken(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"crit":    mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice(), "crit", "TELLTALE"),
		"issuer":  mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice("iss", "TELLTALE\x00")),
		"subject": mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice("sub", "sa:TELLTALE")),
		"alg":     mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice(), "alg", "TELLTALE"),
		"forged":  mint(t, jwt.SigningMethodHS256, []byte(anotherSecret), alice("sub", "TELLTALE")),
	} {
		_, err := verify(t, hmacOptions(), raw)
		if fault.KindOf(err) != fault.Unauthenticated || strings.Contains(err.Error(), "TELLTALE") {
			t.Errorf("%s: refused with %v", name, err)
		}
	}
}

func TestVerifierIsSharedByManyGoroutines(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, hmacOptions())
	header := []string{mint(t, jwt.SigningMethodHS256, []byte(testSecret), alice())}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				c, err := v.Verify(t.Context(), header)
				wantSubject(t, "alice", c, err)
			}
		})
	}
	wg.Wait()
}

// RFC 9864 gives EdDSA with Ed25519 keys the name Ed25519.
func TestEd25519AndEdDSAAreOneAlgorithm(t *testing.T) {
	t.Parallel()
	for _, configured := range []string{"EdDSA", "Ed25519"} {
		for _, published := range []string{"EdDSA", "Ed25519", ""} {
			o := token.Options{
				Algorithms: []string{configured}, Now: at(now),
				Keys: []token.KeySource{{JWKSFile: writeJWKS(t, jwk(edKey().Public(), "ed", "sig", published))}},
			}
			for _, signed := range []string{"EdDSA", "Ed25519"} {
				c, err := verify(t, o, mint(t, jwt.SigningMethodEdDSA, edKey(), alice(), "alg", signed, "kid", "ed"))
				if wantSubject(t, "alice", c, err); err != nil {
					t.Errorf("algorithms [%s], JWK %q, token %s", configured, published, signed)
				}
			}
			for _, other := range []string{"Ed448", "ed25519", "EDDSA"} {
				_, err := verify(t, o, mint(t, jwt.SigningMethodEdDSA, edKey(), alice(), "alg", other, "kid", "ed"))
				wantRefusal(t, err, badAlgorithm)
			}
		}
	}
}
