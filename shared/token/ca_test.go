package token_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/token"
)

func (i *issuer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
}

// otherCA is a certificate that signed nothing.
func otherCA() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate()}))
}

func TestOnlyTheConfiguredCAIsTrusted(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	o := i.options()
	for name, ca := range map[string]string{
		"a text": i.ca(), "a text on one line": strings.ReplaceAll(i.ca(), "\n", `\n`), "a file": writeFile(t, i.ca()),
		"the second of two": otherCA() + i.ca(),
	} {
		o.HTTP = nil // its CAs are those of the system
		o.Keys[0].CA = ca
		follower{t, newVerifier(t, o)}.accepts(a, name)
	}
	o.HTTP = i.Client() // trusts the issuer
	o.Keys[0].CA = otherCA()
	f := follower{t, newVerifier(t, o)}
	f.isUnavailable(a, "another CA")
	wantFault(t, f.Fetch(t.Context())[0], "certificate that is not trusted here", "the CA in ca did not sign it")
	o.HTTP, o.Keys[0].CA = nil, ""
	f = follower{t, newVerifier(t, o)}
	wantFault(t, f.Fetch(t.Context())[0], "certificate that is not trusted here; set ca on this key")
	o.Keys[0].CA, o.Keys[0].JWKSURL = i.ca(), strings.Replace(i.URL, "127.0.0.1", "localhost", 1)
	f = follower{t, newVerifier(t, o)}
	wantFault(t, f.Fetch(t.Context())[0], "certificate for another host name")
}

func TestUnusableCAsAreRefusedWithARemedy(t *testing.T) {
	t.Parallel()
	o := newIssuer(t).options()
	for name, ca := range map[string]string{
		"nothing in it": writeFile(t, "hello"), "a key": string(publicPEM(rsaKey())),
		"a private key beside it": otherCA() + string(pemBlock("PRIVATE KEY", nil)),
	} {
		o.Keys[0].CA = ca
		_, err := token.NewVerifier(o)
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		wantFault(t, err, "keys[0]: ca: holds a private key or no certificate", "-----BEGIN CERTIFICATE-----")
	}
	o.Keys[0].CA = "/nonexistent/ca.pem"
	_, err := token.NewVerifier(o)
	wantFault(t, err, "keys[0]: ca: open /nonexistent/ca.pem", "give the certificate of the CA")
}

// A sidecar, or a service in a compose network.
func TestHTTPIsAcceptedIfTheOperatorSaysThat(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	var address string
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			fmt.Fprint(w, set(a))
			return
		}
		fmt.Fprint(w, describe("issuer", address, "jwks_uri", address+"/keys"))
	}))
	t.Cleanup(plain.Close)
	address = plain.URL
	o := token.Options{Algorithms: []string{"ES256"}, Now: at(now), Keys: []token.KeySource{
		{JWKSURL: plain.URL + "/keys", HTTP: true},
		{Discovery: plain.URL, HTTP: true, Rules: token.Rules{Issuers: []string{plain.URL}}},
	}}
	keys := o.Keys
	for i := range keys {
		o.Keys = keys[i : i+1]
		f := follower{t, newVerifier(t, o)}
		if faults := f.Fetch(t.Context()); faults != nil {
			t.Errorf("entry %d: %v", i, faults)
		}
		c, err := f.Verify(t.Context(), []string{a.token(t, timeless("iss", plain.URL))})
		wantSubject(t, "alice", c, err)
	}
	o.Keys = []token.KeySource{{JWKSURL: "http://keycloak/k"}}
	_, err := token.NewVerifier(o)
	wantFault(t, err, "keys[0]: the JWKS address must be https://host/path")
	o.Keys = []token.KeySource{{Discovery: "http://keycloak/k", Rules: token.Rules{Issuers: []string{"x"}}}}
	_, err = token.NewVerifier(o)
	wantFault(t, err, "keys[0]: the discovery address must be https://host/path")
	o.Keys = []token.KeySource{{Discovery: "https://keycloak"}}
	_, err = token.NewVerifier(o)
	wantFault(t, err, "keys[0]: discovery needs the issuer")
}
