package token_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/token"
)

var encode = base64.RawURLEncoding.EncodeToString

// The other keys of a set with a broken or unsupported key are accepted.
func TestOneBadKeyInAFetchedSetIsIgnored(t *testing.T) {
	t.Parallel()
	good := newKey("good")
	const zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	bad := map[string]any{
		"text":            "x",
		"null":            nil,
		"an empty object": map[string]string{},
		"off its curve":   map[string]string{"kty": "EC", "crv": "P-256", "x": zero, "y": zero, "kid": "bad"},
		"a private key":   jwk(newKey("").private, "bad", "", ""),
		"a weak key":      jwk(weakKey().Public(), "bad", "", ""),
		"a secret":        jwk([]byte(testSecret), "bad", "sig", "HS256"),
		"an unknown kind": map[string]string{"kty": "quantum", "kid": "bad"},
		"for encryption":  jwk(newKey("").private.Public(), "bad", "enc", ""),
		"another curve":   jwk(ecKey(elliptic.P384()).Public(), "bad", "", ""),
	}
	for name, key := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t)
			keys := []any{key, jwk(good.private.Public(), "good", "", "")}
			i.says(string(must(json.Marshal(map[string]any{"keys": keys}))))
			f := i.follower(t)
			f.accepts(good, "beside "+name)
			i.passes(gap)
			f.refuses(newKey("bad"), name)
		})
	}
}

func TestSecretInAFetchedSetNeverVerifies(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	keys := []any{jwk([]byte(testSecret), "s", "sig", "HS256")}
	i.says(string(must(json.Marshal(map[string]any{"keys": keys, "secret": testSecret}))))
	raw := mint(t, jwt.SigningMethodHS256, []byte(testSecret), timeless(), "kid", "s")
	_, err := i.follower(t).Verify(t.Context(), []string{raw})
	wantRefusal(t, err, badAlgorithm)
	o := i.options()
	o.Algorithms = []string{"HS256"}
	_, err = token.NewVerifier(o)
	wantFault(t, err, "keys[0]: the algorithm HS256 needs a shared secret", "HS256")
	o.Algorithms = []string{"HS256", "ES256"}
	_, err = token.NewVerifier(o)
	wantFault(t, err, "keep one kind")
}

// Two issuers have an address each. Keys that one of them publishes never verify tokens
// of the other, not even under a kid of the other.
func TestKeysOfAnAddressVerifyTokensOfItsIssuerOnly(t *testing.T) {
	t.Parallel()
	a, b := newKey("same"), newKey("same")
	ia, ib := newIssuer(t, a), newIssuer(t, b)
	o := ia.options(ib.source())
	o.Keys[0].Issuers, o.Keys[1].Issuers = []string{"https://a"}, []string{"https://b"}
	pool := ia.Client().Transport.(*http.Transport).Clone()
	pool.TLSClientConfig.RootCAs.AddCert(ib.Certificate())
	pool.DisableKeepAlives = true
	o.HTTP = &http.Client{Transport: pool}
	f := follower{t, newVerifier(t, o)}
	for name, row := range map[string]struct {
		key  signKey
		iss  string
		text string
	}{
		"a's key for a":       {a, "https://a", ""},
		"b's key for b":       {b, "https://b", ""},
		"a's key for b":       {a, "https://b", wrongIssuer},
		"b's key for a":       {b, "https://a", wrongIssuer},
		"a stranger's, for a": {newKey("same"), "https://a", badSignature},
	} {
		c, err := f.Verify(t.Context(), []string{row.key.token(t, timeless("iss", row.iss))})
		if row.text != "" {
			wantRefusal(t, err, row.text)
			continue
		}
		if wantSubject(t, "alice", c, err); err != nil {
			t.Log(name)
		}
	}
	// The other's key, published here, verifies tokens of this issuer only.
	ib.publish(a, b)
	ib.passes(gap)
	_, err := f.Verify(t.Context(), []string{a.token(t, timeless("iss", "https://c"))})
	wantRefusal(t, err, wrongIssuer)
}

func TestHeadersOfATokenNeverLeadToAKey(t *testing.T) {
	t.Parallel()
	evil := newKey("evil")
	trap, i := newIssuer(t, evil), newIssuer(t, newKey("a"))
	raw := mint(t, jwt.SigningMethodES256, evil.private, timeless(),
		"kid", trap.URL, "jku", trap.URL, "x5u", trap.URL, "iss", trap.URL)
	_, err := i.follower(t).Verify(t.Context(), []string{raw})
	wantRefusal(t, err, badSignature)
	trap.wantAsked(t, 0, "jku, x5u and kid")
}

func TestUnsafeAddressesAreRefused(t *testing.T) {
	t.Parallel()
	o := token.Options{Algorithms: []string{"ES256"}, Now: at(now)}
	for _, address := range []string{
		"http://issuer.example/k", "ftp://127.0.0.1/k", "https:///k", "https://%zz", "file:///etc/keys", "//x/k",
		"http://127.0.0.1.example",
	} {
		o.Keys = []token.KeySource{{JWKSURL: address}}
		_, err := token.NewVerifier(o)
		wantFault(t, err, "keys[0]: the JWKS address must be https://host/path")
	}
	o.Keys = []token.KeySource{{JWKSURL: "https://a", Secret: "b"}}
	_, err := token.NewVerifier(o)
	wantFault(t, err, "2 keys given", "exactly one")
}

// The default client accepts http on loopback, and no certificate of an unknown CA.
func TestDefaultClientFetches(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, set(a))
	}))
	t.Cleanup(plain.Close)
	i := newIssuer(t, a)
	o := i.options()
	o.HTTP = nil
	untrusting := follower{t, newVerifier(t, o)}
	untrusting.isUnavailable(a, "a certificate of an unknown CA")
	faults := untrusting.Fetch(t.Context())
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "certificate that is not trusted") {
		t.Errorf("faults %v", faults)
	}
	o.Keys[0].JWKSURL = plain.URL
	trusting := follower{t, newVerifier(t, o)}
	if faults := trusting.Fetch(t.Context()); faults != nil {
		t.Errorf("faults %v", faults)
	}
	trusting.accepts(a, "http on loopback")
}
