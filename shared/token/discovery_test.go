package token_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/token"
)

// discovers returns options that ask for the metadata document of an issuer.
func (i *issuer) discovers(address string, issuers ...string) token.Options {
	o := i.options()
	o.Keys[0] = token.KeySource{Discovery: address, Rules: token.Rules{Issuers: issuers}}
	return o
}

// answers makes the issuer serve documents by path. Other paths are 404.
func (i *issuer) answers(documents map[string]string) {
	i.does(func(w http.ResponseWriter, r *http.Request) {
		if text, ok := documents[r.URL.Path]; ok {
			fmt.Fprint(w, text)
			return
		}
		http.NotFound(w, r)
	})
}

func describe(members ...string) string {
	m := map[string]string{}
	for i := 0; i < len(members); i += 2 {
		m[members[i]] = members[i+1]
	}
	return string(must(json.Marshal(m)))
}

func TestDiscoveryFindsTheKeysOfAnIssuer(t *testing.T) {
	t.Parallel()
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	for name, row := range map[string]struct{ issuer, discovery, document string }{
		"OpenID":                     {"/realms/acme", "/realms/acme", "/realms/acme" + openID},
		"OpenID, no path":            {"", "", openID},
		"OpenID, a slash at the end": {"/", "/", openID},
		"OAuth, RFC 8414":            {"/tenant/a", "/tenant/a", oauth + "/tenant/a"},
		"OAuth, no path":             {"", "", oauth},
		"the document itself":        {"/a", "/a" + openID, "/a" + openID},
		"the document of OAuth":      {"/a", oauth + "/a", oauth + "/a"},
		"a document with a query":    {"/a", "/a" + openID + "?p=policy", "/a" + openID},
		"an escaped path":            {"/a%20b", "/a%20b", "/a b" + openID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newKey("a")
			i := newIssuer(t)
			i.answers(map[string]string{
				row.document: describe("issuer", i.URL+row.issuer, "jwks_uri", i.URL+"/keys"), "/keys": set(a),
			})
			f := follower{t, newVerifier(t, i.discovers(i.URL+row.discovery, i.URL+row.issuer))}
			c, err := f.Verify(t.Context(), []string{a.token(t, timeless("iss", i.URL+row.issuer))})
			wantSubject(t, "alice", c, err)
			_, err = f.Verify(t.Context(), []string{a.token(t, timeless("iss", i.URL+"/other"))})
			wantRefusal(t, err, wrongIssuer)
		})
	}
}

// Auth0's issuer has a slash at its end. The spelling is part of the names of owners, so it has to be the issuer's own.
func TestASlashAtTheEndOfAnIssuerCounts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ asked, named string }{{"/a", "/a/"}, {"/a/", "/a"}, {"", "/"}} {
		a := newKey("a")
		i := newIssuer(t)
		i.answers(map[string]string{
			strings.TrimSuffix(row.asked, "/") + "/.well-known/openid-configuration": describe(
				"issuer", i.URL+row.named, "jwks_uri", i.URL+"/keys"),
			"/keys": set(a),
		})
		f := follower{t, newVerifier(t, i.discovers(i.URL+row.asked, i.URL+row.asked))}
		f.isUnavailable(a, "another spelling than that of the document")
		f = follower{t, newVerifier(t, i.discovers(i.URL+row.asked, i.URL+row.named))}
		c, err := f.Verify(t.Context(), []string{a.token(t, timeless("iss", i.URL+row.named))})
		if wantSubject(t, "alice", c, err); c.Realm != i.URL+row.named {
			t.Errorf("realm %q", c.Realm)
		}
	}
}

// The inner and the outer host of one Keycloak are two spellings of one issuer.
func TestTheIssuerOfADocumentIsOneOfTheConfigured(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t)
	i.answers(map[string]string{
		"/.well-known/openid-configuration": describe("issuer", "https://outer", "jwks_uri", i.URL+"/keys"), "/keys": set(a),
	})
	f := follower{t, newVerifier(t, i.discovers(i.URL, "https://inner", "https://outer"))}
	for _, iss := range []string{"https://inner", "https://outer"} {
		c, err := f.Verify(t.Context(), []string{a.token(t, timeless("iss", iss))})
		if wantSubject(t, "alice", c, err); c.Realm != "https://inner" {
			t.Errorf("realm %q", c.Realm)
		}
	}
}

func TestDocumentsThatCanNotBeUsedAreReportedWithARemedy(t *testing.T) {
	t.Parallel()
	notHTTPS := []string{"jwks_uri that is not https"}
	for name, row := range map[string]struct {
		document string // %[1]s is the issuer's address
		want     []string
	}{
		"of another issuer": {
			`{"issuer":"https://evil.example","jwks_uri":"%[1]s/keys"}`,
			[]string{`of the issuer "https://evil.example", expected https://127.0.0.1`, "write it as issuer of this key"},
		},
		"of a template": {
			`{"issuer":"https://login.microsoftonline.com/{tenantid}/v2.0","jwks_uri":"%[1]s/keys"}`,
			[]string{"for many tenants", "name one tenant", "TENANT-ID/v2.0", "an entry of its own"},
		},
		"without an issuer": {`{"jwks_uri":"%[1]s/keys"}`, []string{"names no issuer", "set discovery to the issuer"}},
		"with two issuers": {
			`{"issuer":"%[1]s","issuer":"%[1]s","jwks_uri":"%[1]s/keys"}`, []string{"not a JSON object"},
		},
		"with a list of them":   {`{"issuer":["%[1]s"],"jwks_uri":"%[1]s/keys"}`, []string{"names no issuer"}},
		"that is a set of keys": {`{"keys":[]}`, []string{"is a set of keys; write jwks_url"}},
		"without keys":          {`{"issuer":"%[1]s"}`, []string{"names no jwks_uri"}},
		"with keys by http": {
			`{"issuer":"%[1]s","jwks_uri":"http://127.0.0.1/keys"}`, []string{"not https", "http: true"},
		},
		"with keys in a file":  {`{"issuer":"%[1]s","jwks_uri":"file:///etc/keys"}`, notHTTPS},
		"with keys of a user":  {`{"issuer":"%[1]s","jwks_uri":"https://u:p@127.0.0.1/"}`, notHTTPS},
		"with keys of no host": {`{"issuer":"%[1]s","jwks_uri":"/keys"}`, notHTTPS},
		"that is a page": {
			`<html>TELLTALE`, []string{"OpenID Connect (the answer is not a JSON object)", "RFC 8414 (status 404)"},
		},
		"that is too large":   {`{"a":"` + strings.Repeat("x", 64<<10) + `"}%[1]s`, []string{"more than 65536 bytes"}},
		"with keys that fail": {`{"issuer":"%[1]s","jwks_uri":"%[1]s/none?TELLTALE"}`, []string{"answered with status 404"}},
		"with keys that are it": {
			`{"issuer":"%[1]s","jwks_uri":"%[1]s/.well-known/openid-configuration"}`, []string{"a metadata document"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newKey("a")
			i := newIssuer(t)
			text := strings.ReplaceAll(row.document, "%[1]s", i.URL)
			i.answers(map[string]string{"/.well-known/openid-configuration": text, "/keys": set(a)})
			f := follower{t, newVerifier(t, i.discovers(i.URL, i.URL))}
			f.isUnavailable(a, name)
			faults := f.Fetch(t.Context())
			if len(faults) != 1 {
				t.Fatal(faults)
			}
			wantFault(t, faults[0], append(slices.Clone(row.want), "keys[0]: https://127.0.0.1:")...)
			if strings.Contains(faults[0].Error(), "TELLTALE") {
				t.Errorf("the error shows the answer or a query: %v", faults[0])
			}
		})
	}
}

// The keys can be on another host. A redirect can't lead there.
func TestOnlyTheDocumentLeadsToAnotherHost(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i, other := newIssuer(t), newIssuer(t, a)
	pool := i.Client().Transport.(*http.Transport).Clone()
	pool.TLSClientConfig.RootCAs.AddCert(other.Certificate())
	pool.DisableKeepAlives = true
	iss := timeless("iss", i.URL)
	for document, ok := range map[string]bool{other.URL + "/keys": true, i.URL + "/moved": false} {
		i.does(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/moved" {
				http.Redirect(w, r, other.URL+"/keys", http.StatusFound)
				return
			}
			fmt.Fprint(w, describe("issuer", i.URL, "jwks_uri", document))
		})
		o := i.discovers(i.URL, i.URL)
		o.HTTP = &http.Client{Transport: pool}
		f := follower{t, newVerifier(t, o)}
		if _, err := f.Verify(t.Context(), []string{a.token(t, iss)}); ok != (err == nil) {
			t.Errorf("%s: %v", document, err)
		}
	}
	other.wantAsked(t, 1, "one document, one redirect")
	i.does(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	o := i.discovers(i.URL, i.URL)
	o.HTTP = &http.Client{Transport: pool}
	follower{t, newVerifier(t, o)}.isUnavailable(a, "a document that is redirected")
	other.wantAsked(t, 1, "a document that is redirected")
}

// The address of the keys can change at the issuer. It is read with each fetch.
func TestDiscoveryFollowsRotations(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t)
	publish := func(path string, keys ...signKey) {
		i.answers(map[string]string{
			"/.well-known/openid-configuration": describe("issuer", i.URL, "jwks_uri", i.URL+path), path: set(keys...),
		})
	}
	publish("/1", a)
	f := follower{t, newVerifier(t, i.discovers(i.URL, i.URL))}
	verify := func(k signKey) error {
		_, err := f.Verify(t.Context(), []string{k.token(t, timeless("iss", i.URL))})
		return err
	}
	if err := verify(a); err != nil {
		t.Error(err)
	}
	i.wantAsked(t, 2, "the document and the set")
	publish("/2", b)
	i.passes(gap)
	if err := verify(b); err != nil {
		t.Error(err)
	}
	i.passes(refresh)
	publish("/3", b)
	wantRefusal(t, verify(a), badSignature)
}
