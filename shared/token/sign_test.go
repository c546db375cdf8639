package token_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/token"
)

func newSigner(tb testing.TB, k token.SigningKey) token.Signer {
	tb.Helper()
	s, err := token.LoadSigner(k)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestGeneratedFileSignsAndVerifies(t *testing.T) {
	t.Parallel()
	want := token.Claims{
		Subject: "alice", SessionID: "s1", Issuer: "https://a", ID: "t1",
		Scopes: []string{"agents:read", "", "agents:read"}, IssuedAt: time.Unix(now, 0).UTC(),
		ExpiresAt: time.Unix(now+3600, 0).UTC(),
		Realm:     "https://a", Source: "keys[0]",
	}
	for _, alg := range []string{
		"HS256", "HS384", "HS512", "RS256", "RS384", "PS256", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
	} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, string(must(token.GenerateKeys(alg, rand.Reader))))
			raw, err := newSigner(t, token.SigningKey{File: file, Algorithm: alg}).Sign(token.Draft{
				Claims: want, Audience: []string{"my-agent-os"},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := verify(t, token.Options{
				Algorithms: []string{alg}, Keys: []token.KeySource{{JWKSFile: file}}, Now: at(now),
				Audience: []string{"my-agent-os"}, Issuer: "https://a", RequireExp: true,
			}, raw)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("error %v, claims (-want +got):\n%s", err, diff)
			}
		})
	}
}

type keyFile struct {
	Keys       []map[string]string `json:"keys"`
	PrivateKey string              `json:"private_key"`
	PublicKey  string              `json:"public_key"`
	Secret     string              `json:"secret"`
}

func generated(t *testing.T, alg string) (f keyFile) {
	t.Helper()
	if err := json.Unmarshal(must(token.GenerateKeys(alg, rand.Reader)), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAGeneratedFileContainsTheJWKAndBothPEMs(t *testing.T) {
	t.Parallel()
	for alg, members := range map[string]map[string]string{
		"RS256": {"kty": "RSA", "e": "AQAB"},
		"PS256": {"kty": "RSA", "e": "AQAB"},
		"ES256": {"kty": "EC", "crv": "P-256"},
		"ES512": {"kty": "EC", "crv": "P-521"},
		"EdDSA": {"kty": "OKP", "crv": "Ed25519"},
	} {
		f := generated(t, alg)
		if len(f.Keys) != 1 || f.Keys[0]["kid"] == "" || f.Keys[0]["use"] != "sig" || f.Keys[0]["alg"] != alg {
			t.Fatalf("%s: keys are %v", alg, f.Keys)
		}
		for name, want := range members {
			if got := f.Keys[0][name]; got != want {
				t.Errorf("%s: %s is %q, want %q", alg, name, got, want)
			}
		}
		for _, private := range []string{"d", "p", "q", "k"} {
			if _, ok := f.Keys[0][private]; ok {
				t.Errorf("%s: the public set has the private member %q", alg, private)
			}
		}
		raw := must(newSigner(t, token.SigningKey{PEM: []byte(f.PrivateKey), Algorithm: alg}).Sign(token.Draft{
			Claims: token.Claims{Subject: "alice"},
		}))
		o := token.Options{Algorithms: []string{alg}, Keys: []token.KeySource{{PEM: []byte(f.PublicKey)}}, Now: at(now)}
		c, err := verify(t, o, raw)
		wantSubject(t, "alice", c, err)
	}
}

func TestAGeneratedSecretHas32RandomBytes(t *testing.T) {
	t.Parallel()
	random := bytes.NewReader(slices.Repeat([]byte{0xa5}, 32))
	doc := must(token.GenerateKeys("HS256", random))
	want := "{\n  \"keys\": [],\n  \"secret\": \"" + strings.Repeat("a5", 32) + "\"\n}\n"
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
	if a, b := generated(t, "HS256"), generated(t, "HS256"); a.Secret == b.Secret {
		t.Error("two secrets are equal")
	}
}

func TestNoKeyIsGeneratedWithoutRandomnessOrForUnknownAlgorithms(t *testing.T) {
	t.Parallel()
	broken := errors.New("no entropy")
	for _, alg := range []string{"HS256", "EdDSA"} {
		if doc, err := token.GenerateKeys(alg, iotest.ErrReader(broken)); !errors.Is(err, broken) {
			t.Errorf("%s: document %q, error %v", alg, doc, err)
		}
	}
	for _, alg := range []string{"", "none", "rs256", "ES256K"} {
		_, err := token.GenerateKeys(alg, rand.Reader)
		wantFault(t, err, "generate keys: ", "use one of HS256")
	}
}

func TestTheKidIsTheSigningKeys(t *testing.T) {
	t.Parallel()
	newer := generated(t, "ES256")
	kid := newer.Keys[0]["kid"]
	newer.Keys = slices.Concat(generated(t, "ES256").Keys, newer.Keys, generated(t, "RS256").Keys)
	file := writeFile(t, string(must(json.Marshal(newer))))
	raw := must(newSigner(t, token.SigningKey{File: file}).Sign(token.Draft{}))
	got, _, err := jwt.NewParser().ParseUnverified(raw, jwt.MapClaims{})
	want := map[string]any{"alg": "ES256", "typ": "JWT", "kid": kid}
	if err != nil || cmp.Diff(want, got.Header) != "" {
		t.Errorf("error %v, header %v, want %v", err, got.Header, want)
	}
}

func TestPrivateKeysAreReadInAllUsualForms(t *testing.T) {
	t.Parallel()
	ec := ecKey(elliptic.P384())
	pkcs8 := string(pemBlock("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey()))))
	sec1 := pemBlock("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec)))
	agentOS := string(must(json.Marshal(map[string]string{"private_key": pkcs8, "public_key": "unread"})))
	for name, row := range map[string]struct {
		key token.SigningKey
		alg string
	}{
		"PKCS8": {token.SigningKey{PEM: []byte(pkcs8)}, "RS256"},
		"PKCS1": {
			token.SigningKey{PEM: pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))}, "RS256",
		},
		"SEC1": {token.SigningKey{PEM: sec1}, "ES384"},
		"SEC1 after its parameters": {
			token.SigningKey{PEM: slices.Concat(pemBlock("EC PARAMETERS", []byte("x")), sec1)}, "ES384",
		},
		"line ends written \\n":        {token.SigningKey{PEM: []byte(strings.ReplaceAll(pkcs8, "\n", `\n`))}, "RS256"},
		"asked for PS512":              {token.SigningKey{PEM: []byte(pkcs8), Algorithm: "PS512"}, "PS512"},
		"a secret":                     {token.SigningKey{HMAC: []byte(testSecret)}, "HS256"},
		"a file of AgentOS's own demo": {token.SigningKey{File: writeFile(t, agentOS)}, "RS256"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := must(newSigner(t, row.key).Sign(token.Draft{}))
			public := map[string]any{
				"RS256": rsaKey().Public(), "PS512": rsaKey().Public(), "ES384": ec.Public(), "HS256": []byte(testSecret),
			}
			key := func(*jwt.Token) (any, error) { return public[row.alg], nil }
			_, err := jwt.Parse(raw, key, jwt.WithValidMethods([]string{row.alg}))
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnusableSigningKeysAreRefusedWithARemedy(t *testing.T) {
	t.Parallel()
	text := func(kind string, der []byte) token.SigningKey { return token.SigningKey{PEM: pemBlock(kind, der)} }
	file := func(text string) token.SigningKey { return token.SigningKey{File: writeFile(t, text)} }
	weak := must(x509.MarshalPKCS8PrivateKey(weakKey()))
	pkcs8 := pemBlock("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey())))
	badSet := must(json.Marshal(map[string]any{"keys": []string{"x"}, "private_key": string(pkcs8)}))
	for name, row := range map[string]struct {
		key  token.SigningKey
		want []string
	}{
		"nothing":        {token.SigningKey{}, []string{"0 keys given", "exactly one"}},
		"two":            {token.SigningKey{HMAC: []byte(testSecret), File: "k"}, []string{"2 keys given"}},
		"a short secret": {token.SigningKey{HMAC: []byte("short")}, []string{"5 bytes", "openssl rand"}},
		"a secret for RS256": {
			token.SigningKey{HMAC: []byte(testSecret), Algorithm: "RS256"}, []string{"an HMAC secret can't sign RS256"},
		},
		"an unknown name": {
			token.SigningKey{HMAC: []byte(testSecret), Algorithm: "none"}, []string{`"none"`, "use one of HS256"},
		},
		"a public key":     {token.SigningKey{PEM: publicPEM(rsaKey())}, []string{"PUBLIC KEY", "give the private key"}},
		"an encrypted key": {text("ENCRYPTED PRIVATE KEY", nil), []string{"encrypted", "openssl pkey"}},
		"a broken key":     {text("PRIVATE KEY", []byte("x")), []string{"can't be read", "openssl pkey"}},
		"a weak key":       {text("PRIVATE KEY", weak), []string{"1024 bits", "2048"}},
		"P-224": {
			text("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey(elliptic.P224())))), []string{"P-224 can't sign"},
		},
		"no file":             {token.SigningKey{File: "/nonexistent/k"}, []string{"/nonexistent/k", "keyway keys generate"}},
		"a published set":     {file(`{"keys":[]}`), []string{`no "private_key"`, "generated"}},
		"a broken file key":   {file(`{"private_key":"x"}`), []string{"private_key: not PEM"}},
		"a broken file set":   {file(string(badSet)), []string{"key 0: it is not a JWK"}},
		"a short file secret": {file(`{"secret":"short"}`), []string{"5 bytes"}},
		"a file's other alg": {
			token.SigningKey{File: writeFile(t, string(must(token.GenerateKeys("RS256", rand.Reader)))), Algorithm: "PS256"},
			[]string{"for RS256, not for PS256", "--alg PS256"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := token.LoadSigner(row.key)
			wantFault(t, err, append(row.want, "signing key: ")...)
			if raw, err := s.Sign(token.Draft{}); err == nil {
				t.Errorf("the signer that failed to load signed %q", raw)
			}
		})
	}
}

func TestClaimsThatVerifyRefusesAreNotSigned(t *testing.T) {
	t.Parallel()
	s := newSigner(t, token.SigningKey{HMAC: []byte(testSecret)})
	for name, claims := range map[string]token.Claims{
		"a reserved subject":       {Subject: "sa:bot"},
		"a long subject":           {Subject: strings.Repeat("x", 1025)},
		"a broken subject":         {Subject: "\xff"},
		"a long session":           {SessionID: strings.Repeat("x", 256)},
		"a long token id":          {ID: strings.Repeat("x", 256)},
		"an issuer with NUL":       {Issuer: "\x00"},
		"broken scopes":            {Scopes: []string{"agents:\xff:run"}},
		"4097 scopes":              {Scopes: make([]string, 4097)},
		"an expiry past year 9999": {ExpiresAt: time.Unix(now*1000, 0)},
	} {
		if raw, err := s.Sign(token.Draft{Claims: claims}); err == nil {
			t.Errorf("%s: signed %q", name, raw)
		}
	}
}

func TestSignUsesTheConfiguredClaimNamesAndLeavesOutEmptyClaims(t *testing.T) {
	t.Parallel()
	s := newSigner(t, token.SigningKey{HMAC: []byte(testSecret)})
	payload := func(d token.Draft) any {
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(must(s.Sign(d)), claims); err != nil {
			t.Fatal(err)
		}
		return map[string]any(claims)
	}
	if diff := cmp.Diff(any(map[string]any{"scopes": []any{}}), payload(token.Draft{})); diff != "" {
		t.Errorf("empty draft (-want +got):\n%s", diff)
	}
	want := any(map[string]any{
		"uid": "u", "sid": "s", "perm": []any{"a:b"}, "aud": []any{"x"}, "iat": float64(now), "exp": float64(now + 1),
	})
	got := payload(token.Draft{
		Claims: token.Claims{
			Subject: "u", SessionID: "s", Scopes: []string{"a:b"}, IssuedAt: time.Unix(now, 0), ExpiresAt: time.Unix(now+1, 5),
		},
		Audience:     []string{"x"},
		SubjectClaim: token.ClaimSource{Path: []string{"uid"}}, SessionClaim: token.ClaimSource{Path: []string{"sid"}},
		ScopesClaim: token.ClaimSource{Path: []string{"perm"}},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("full draft (-want +got):\n%s", diff)
	}
}
