package token_test

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/token"
)

var weakKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })

func certificate() []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test key only"}, NotAfter: time.Unix(now, 0),
	}
	return must(x509.CreateCertificate(rand.Reader, template, template, rsaKey().Public(), rsaKey()))
}

func jwk(key any, kid, use, alg string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Use: use, Algorithm: alg}
}

// writeJWKS writes a set of keys, each a jose.JSONWebKey or anything else as it is.
func writeJWKS(t *testing.T, keys ...any) string {
	t.Helper()
	return writeFile(t, string(must(json.Marshal(map[string]any{"keys": keys}))))
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPublicKeysAreReadInAllUsualForms(t *testing.T) {
	t.Parallel()
	spki := string(publicPEM(rsaKey()))
	for name, text := range map[string]string{
		"PUBLIC KEY":               spki,
		"RSA PUBLIC KEY":           string(pemBlock("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey))),
		"CERTIFICATE":              string(pemBlock("CERTIFICATE", certificate())),
		"line ends written \\n":    strings.ReplaceAll(spki, "\n", `\n`),
		"line ends written \\r\\n": strings.ReplaceAll(spki, "\n", `\r\n`),
		"Windows line ends":        strings.ReplaceAll(spki, "\n", "\r\n"),
		"text and spaces around":   "my key\n\n" + spki + " \n ",
		"no last line end":         strings.TrimSpace(spki),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := token.Options{
				Algorithms: []string{"RS256"}, Keys: []token.KeySource{{PEM: []byte(text)}}, Now: at(now),
			}
			c, err := verify(t, o, mint(t, jwt.SigningMethodRS256, rsaKey(), alice()))
			wantSubject(t, "alice", c, err)
		})
	}
}

// unusable is a source without a key for alg, and what the error must contain.
type unusable struct {
	alg    string
	source token.KeySource
	want   []string
}

func TestUnusableKeysAreRefusedWithARemedy(t *testing.T) {
	t.Parallel()
	public := publicPEM(rsaKey())
	badExponent := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: rsaKey().N, E: 1})
	secret := func(s []byte) token.KeySource { return token.KeySource{HMAC: s} }
	text := func(s []byte) token.KeySource { return token.KeySource{PEM: s} }
	isKey := []string{"public or private key", "openssl rand"}
	for name, row := range map[string]unusable{
		"a short secret": {
			"HS256", secret([]byte("31 bytes are not quite enough!!")), []string{"31 bytes", "openssl rand"},
		},
		"a secret that is PEM":   {"HS256", secret(public), isKey},
		"a secret from PEM":      {"HS256", secret(pemBody(public)), isKey},
		"a secret that is DER":   {"HS256", secret(certificate()), isKey},
		"a secret that is ssh's": {"HS256", secret([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@home")), isKey},
		"a secret for RS256": {
			"RS256", secret([]byte(testSecret)), []string{"HMAC secret", "can't verify RS256", "change the algorithms"},
		},
		"a public key for HS256": {"HS256", text(public), []string{"RSA key of 2048 bits", "can't verify HS256"}},
		"P-256 for ES384": {
			"ES384", text(publicPEM(ecKey(elliptic.P256()))), []string{"P-256", "can't verify ES384"},
		},
		"P-224": {
			"ES256", text(publicPEM(ecKey(elliptic.P224()))), []string{"P-224", "can't verify ES256"},
		},
		"Ed25519 for RS256":   {"RS256", text(publicPEM(edKey())), []string{"Ed25519 key", "can't verify RS256"}},
		"X25519":              {"EdDSA", text(x25519PEM()), []string{"unsupported kind", "can't verify EdDSA"}},
		"RSA of 1024 bits":    {"RS256", text(publicPEM(weakKey())), []string{"1024 bits", "use 2048 bits or more"}},
		"RSA of exponent one": {"RS256", text(pemBlock("RSA PUBLIC KEY", badExponent)), []string{"exponent 1", "65537"}},
		"a private key":       {"RS256", text(pemBlock("PRIVATE KEY", nil)), []string{"private key", "-pubout"}},
		"an RSA private key":  {"RS256", text(pemBlock("RSA PRIVATE KEY", nil)), []string{"private key", "-pubout"}},
		"a certificate's request": {
			"RS256", text(pemBlock("CERTIFICATE REQUEST", nil)), []string{"CERTIFICATE REQUEST", "PUBLIC KEY"},
		},
		"a broken key":  {"RS256", text(pemBlock("PUBLIC KEY", []byte("x"))), []string{"can't be read", "export"}},
		"no PEM":        {"RS256", text([]byte("hello")), []string{"not PEM", "-----BEGIN"}},
		"PEM cut short": {"RS256", text(public[:100]), []string{"not PEM"}},
		"a chain": {
			"RS256", text(slices.Concat(public, public)), []string{"more than one PEM block", "an entry of its own"},
		},
		"nothing": {"RS256", token.KeySource{}, []string{"0 keys given", "exactly one"}},
		"two sources": {
			"RS256", token.KeySource{PEM: public, JWKSFile: "keys.json"}, []string{"2 keys given", "exactly one"},
		},
	} {
		t.Run(name, row.test)
	}
}

func TestUnusableKeyFilesAreRefusedWithARemedy(t *testing.T) {
	t.Parallel()
	file := func(text string) token.KeySource { return token.KeySource{JWKSFile: writeFile(t, text)} }
	set := func(keys ...any) token.KeySource { return token.KeySource{JWKSFile: writeJWKS(t, keys...)} }
	const zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	offCurve := map[string]string{"kty": "EC", "crv": "P-256", "x": zero, "y": zero}
	for name, row := range map[string]unusable{
		"no such file": {
			"RS256", token.KeySource{JWKSFile: "/nonexistent/k"}, []string{"/nonexistent/k", "keyway keys generate"},
		},
		"a directory":          {"RS256", token.KeySource{JWKSFile: t.TempDir()}, []string{"is a directory"}},
		"text":                 {"RS256", file("hello"), []string{"not a key file", `{"keys"`}},
		"too large":            {"RS256", file(strings.Repeat(" ", 257<<10)), []string{"more than 262144 bytes"}},
		"no set":               {"RS256", file(`{}`), []string{"no signing key", `"keys"`}},
		"an empty set":         {"RS256", file(`{"keys":[]}`), []string{"no signing key"}},
		"a set of text":        {"RS256", set("x"), []string{"key 0", "not a JWK"}},
		"too many keys":        {"RS256", set(make([]any, 101)...), []string{"101 keys", "100"}},
		"a private key":        {"RS256", set(jwk(rsaKey(), "k", "", "")), []string{"key 0", "private key"}},
		"a weak key":           {"RS256", set(jwk(weakKey().Public(), "k", "", "")), []string{`key "k"`, "1024 bits"}},
		"a key off its curve":  {"ES256", set(offCurve), []string{"key 0", "export the keys again"}},
		"symmetric keys only":  {"HS256", set(jwk([]byte(testSecret), "k", "", "")), []string{"no signing key"}},
		"encryption keys only": {"RS256", set(jwk(rsaKey().Public(), "k", "enc", "")), []string{"no signing key"}},
		"another algorithm": {
			"RS256", set(jwk(rsaKey().Public(), "k", "", "PS256")),
			[]string{"holds an RSA key of 2048 bits for PS256 only, which can't verify RS256"},
		},
		"a short secret": {"HS256", file(`{"secret":"short"}`), []string{"5 bytes"}},
		"a secret for RS256": {
			"RS256", file(`{"secret":"` + testSecret + `"}`), []string{"an HMAC secret, which can't verify RS256"},
		},
		"a good and a private key": {
			"RS256", set(jwk(rsaKey().Public(), "", "", ""), jwk(rsaKey(), "", "", "")), []string{"key 1", "private key"},
		},
		"only keys of other kinds": {
			"RS256", set(jwk(rsaKey().Public(), "k", "enc", ""), map[string]string{"kty": "quantum"}),
			[]string{`key "k": it is for another use`, `key 1: its kind (kty) "quantum" is not supported`},
		},
	} {
		t.Run(name, row.test)
	}
}

func (u unusable) test(t *testing.T) {
	t.Parallel()
	_, err := token.NewVerifier(token.Options{
		Algorithms: []string{u.alg}, Keys: []token.KeySource{u.source}, Now: at(now),
	})
	wantFault(t, err, append(u.want, "keys[0]: ")...)
}

func pemBody(text []byte) []byte {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return []byte(strings.Join(lines[1:len(lines)-1], "\n"))
}

func x25519PEM() []byte {
	public := must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey()
	return pemBlock("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(public)))
}

func wantFault(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q:\n%v", part, err)
		}
	}
	for _, secret := range []string{testSecret, "MII"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("error shows key material:\n%v", err)
		}
	}
}

func TestAllErrorsInTheOptionsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	v, err := token.NewVerifier(token.Options{
		Algorithms: []string{"HS256", "RS256", "none", "NONE", "hs512"},
		Keys:       []token.KeySource{{}, {HMAC: []byte("short"), Rules: token.Rules{Issuers: []string{"https://b"}}}},
		Audience:   []string{""}, Issuer: "https://a", Leeway: -time.Second,
	})
	wantFault(t, err, `"none" is not a supported`, `"NONE" is not`, `"hs512" is not`, "use one of HS256, HS384",
		"together would let a public key pass", "keys[0]: 0 keys", "keys[1]: the HMAC secret has 5 bytes",
		`keys[1]: issuer "https://b" differs`, "audience: ", "leeway: -1s", "now: no clock")
	if v != nil {
		t.Error("a verifier in spite of the errors")
	}
	_, err = token.NewVerifier(token.Options{Audience: []string{}, Now: at(now)})
	wantFault(t, err, "algorithms: none given", "keys: none given", "audience: ")
}

func TestKidNarrowsWhenTheSetHasIt(t *testing.T) {
	t.Parallel()
	first, second, nameless := ecKey(elliptic.P256()), ecKey(elliptic.P256()), ecKey(elliptic.P256())
	o := token.Options{
		Algorithms: []string{"ES256"}, Now: at(now), Keys: []token.KeySource{
			{JWKSFile: writeJWKS(t, jwk(first.Public(), "../1", "sig", "ES256"), jwk(second.Public(), "2", "", ""))},
			{PEM: publicPEM(nameless)},
		},
	}
	for name, row := range map[string]struct {
		kid  []string
		key  any
		text string
	}{
		"its own kid":                {[]string{"kid", "../1"}, first, ""},
		"another key's kid":          {[]string{"kid", "2"}, first, badSignature},
		"no kid":                     {nil, second, ""},
		"an empty kid":               {[]string{"kid", ""}, second, ""},
		"an unknown kid":             {[]string{"kid", "3"}, second, ""},
		"a kid with a blank":         {[]string{"kid", "../1 "}, first, ""},
		"a key without kid":          {[]string{"kid", "2"}, nameless, ""},
		"a stranger with a good kid": {[]string{"kid", "2"}, ecKey(elliptic.P256()), badSignature},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := verify(t, o, mint(t, jwt.SigningMethodES256, row.key, alice(), row.kid...))
			if row.text != "" {
				wantRefusal(t, err, row.text)
				return
			}
			wantSubject(t, "alice", c, err)
		})
	}
}

func TestUnsupportedKeysInASetAreIgnored(t *testing.T) {
	t.Parallel()
	set := writeJWKS(t,
		map[string]string{"kty": "quantum", "kid": "q"},
		map[string]string{"kty": "OKP", "crv": "X25519", "x": "AAAA"},
		map[string]any{"kty": "RSA", "key_ops": []string{"encrypt"}, "n": "AQAB", "e": "AQAB"},
		jwk(ecKey(elliptic.P256()).Public(), "enc", "enc", ""),
		jwk([]byte(testSecret), "oct", "sig", "HS256"),
		jwk(rsaKey().Public(), "rsa", "sig", "RS256"),
		jwk(edKey().Public(), "ed", "sig", "EdDSA"),
	)
	o := token.Options{
		Algorithms: []string{"RS256", "RS512", "EdDSA"}, Keys: []token.KeySource{{JWKSFile: set}}, Now: at(now),
	}
	c, err := verify(t, o, mint(t, jwt.SigningMethodRS256, rsaKey(), alice(), "kid", "rsa"))
	wantSubject(t, "alice", c, err)
	c, err = verify(t, o, mint(t, jwt.SigningMethodEdDSA, edKey(), alice()))
	wantSubject(t, "alice", c, err)
	_, err = verify(t, o, mint(t, jwt.SigningMethodRS512, rsaKey(), alice(), "kid", "rsa"))
	wantRefusal(t, err, badSignature) // the JWK says RS256 only
}

// A file with the set of an issuer is read like the set at its address: the good keys count.
func TestUnusableKeysAreNamedWithTheirReason(t *testing.T) {
	t.Parallel()
	const zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	withX5C := map[string]any{}
	if err := json.Unmarshal(must(json.Marshal(jwk(rsaKey().Public(), "x5c", "sig", ""))), &withX5C); err != nil {
		t.Fatal(err)
	}
	withX5C["x5c"] = []string{"broken"}
	keys := []any{
		jwk(rsaKey().Public(), "good", "sig", "RS256"),
		jwk(rsaKey().Public(), "enc", "enc", "RSA-OAEP"), jwk(weakKey().Public(), "weak", "", ""),
		map[string]any{"kty": "RSA", "kid": 7}, map[string]any{"kty": "EC", "crv": "secp256k1", "kid": "curve"},
		map[string]any{"kty": "EC", "crv": "P-256", "x": zero, "y": zero, "kid": "off"}, withX5C,
		jwk(rsaKey().Public(), "rs512", "sig", "RS512"), jwk(ecKey(elliptic.P256()).Public(), "ec", "", ""),
		map[string]any{"kty": "RSA", "kid": "ops", "key_ops": []string{"encrypt"}},
		jwk([]byte(testSecret), "oct", "sig", "HS256"), "text", map[string]any{"kty": "OKP", "crv": "X25519", "kid": "x"},
	}
	want := map[string]string{
		`key "enc"`: `it is for another use than signatures, "enc"`, `key "weak"`: "has 1024 bits",
		"key 3": "its kid is not a string", `key "curve"`: `its curve "secp256k1" is not supported`,
		`key "off"`: "not on declared curve", `key "x5c"`: "x5c",
		`key "rs512"`: "it is an RSA key of 2048 bits for RS512 only, which can't verify RS256",
		`key "ec"`:    "it is an EC key on P-256, which can't verify RS256", `key "ops"`: "its key_ops lack verify",
		`key "oct"`: "it is a secret (oct), which no set can publish", "key 11": "it is not a JWK",
		`key "x"`: `its curve "X25519" is not supported`,
	}
	i := newIssuer(t)
	i.says(string(must(json.Marshal(map[string]any{"keys": keys}))))
	fetched := i.options()
	fetched.Algorithms = []string{"RS256"}
	for name, o := range map[string]token.Options{
		"a file": {Algorithms: []string{"RS256"}, Now: at(now), Keys: []token.KeySource{{JWKSFile: writeJWKS(t, keys...)}}},
		"a set":  fetched,
	} {
		v := newVerifier(t, o)
		if faults := v.Fetch(t.Context()); faults != nil {
			t.Fatal(faults)
		}
		c, err := v.Verify(t.Context(), []string{mint(t, jwt.SigningMethodRS256, rsaKey(), timeless(), "kid", "good")})
		wantSubject(t, "alice", c, err)
		over := v.PassedOver()
		for _, p := range over {
			if want[p.Key] == "" || !strings.Contains(p.Why, want[p.Key]) || p.Source != "keys[0]" {
				t.Errorf("%s: %v", name, p)
			}
		}
		if len(over) != len(want) {
			t.Errorf("%s: %d keys are passed over, want %d", name, len(over), len(want))
		}
	}
}

func TestARandomSecretThatLooksLikeDERIsAccepted(t *testing.T) {
	t.Parallel()
	random := base64.StdEncoding.EncodeToString(slices.Repeat([]byte{0x30, 0x82}, 24))
	o := hmacOptions()
	o.Keys = []token.KeySource{{HMAC: []byte(random)}}
	c, err := verify(t, o, mint(t, jwt.SigningMethodHS256, []byte(random), alice()))
	wantSubject(t, "alice", c, err)
}

// The caller does not see the cause; the log of the operator has it.
func TestARefusalHasTheReasonWhyItsKeyIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keys []any
		want string
	}{
		"a weak key": {
			[]any{jwk(rsaKey().Public(), "good", "sig", "RS256"), jwk(weakKey().Public(), "weak", "", "")}, "has 1024 bits",
		},
		"a set without a usable key": {[]any{jwk(ecKey(elliptic.P256()).Public(), "ec", "", "")}, "has no usable key"},
	} {
		i := newIssuer(t)
		i.says(string(must(json.Marshal(map[string]any{"keys": c.keys}))))
		o := i.options()
		o.Algorithms = []string{"RS256"}
		raw := mint(t, jwt.SigningMethodRS256, weakKey(), timeless(), "kid", "weak")
		_, err := newVerifier(t, o).Verify(t.Context(), []string{raw})
		wantRefusal(t, err, badSignature)
		if cause, ok := errors.AsType[token.Cause](err); !ok || !strings.Contains(string(cause), c.want) {
			t.Errorf("%s: the cause is %q, want %s", name, cause, c.want)
		}
	}
}
