package edge_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/token"
)

// The issuer that a metadata document must name is the one that the tokens must have: the entry's,
// else the one of auth, else the one that discovery names.
func TestTheDocumentOfDiscoveryNamesTheIssuerOfTheTokens(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.json")
	data, err := token.GenerateKeys("ES256", rand.Reader)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	var made struct{ Keys json.RawMessage }
	if err == nil {
		err = json.Unmarshal(data, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.LoadSigner(token.SigningKey{File: file})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		ofAuth, ofEntry, inDocument string // ADDRESS is that of the issuer, in front of each
		realm                       string // "-" if the document is refused
	}{
		"derived":                     {"", "", "/acme", "/acme"},
		"derived, with a slash":       {"", "", "/acme/", "-"},
		"derived, another":            {"", "", "/other", "-"},
		"of auth":                     {"/acme", "", "/acme", "/acme"},
		"of auth, with a slash":       {"/acme/", "", "/acme/", "/acme/"},
		"of auth, another":            {"/acme/", "", "/acme", "-"},
		"of the entry":                {"", "/other", "/other", "/other"},
		"of the entry, not the other": {"", "/other", "/acme", "-"},
		"of the entry, exactly":       {"", "/acme", "/acme/", "-"},
		"of both":                     {"/acme", "/acme", "/acme", "/acme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var address string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/keys" {
					fmt.Fprintf(w, `{"keys":%s}`, made.Keys)
					return
				}
				fmt.Fprintf(w, `{"issuer":"%s","jwks_uri":"%s/keys"}`, address+row.inDocument, address)
			}))
			t.Cleanup(server.Close)
			address = server.URL
			auth := map[string]any{"algorithms": []string{"ES256"}}
			entry := map[string]any{"discovery": address + "/acme", "http": true}
			if row.ofAuth != "" {
				auth["issuer"] = address + row.ofAuth
			}
			if row.ofEntry != "" {
				entry["issuer"] = address + row.ofEntry
			}
			auth["keys"] = []any{entry}
			text, err := json.Marshal(map[string]any{
				"id": "os", "auth": auth, "agents": []any{map[string]string{"id": "a", "model": "demo:x"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			c, faults := config.Parse(text, config.Options{})
			if faults != nil {
				t.Fatal(faults)
			}
			a, err := edge.New(c, edge.Outside{Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			raw, err := signer.Sign(token.Draft{Claims: token.Claims{
				Subject: "ann", Issuer: address + row.inDocument, ExpiresAt: clock().AddDate(1, 0, 0),
			}})
			if err != nil {
				t.Fatal(err)
			}
			claims, err := a.Verifier.Verify(t.Context(), []string{raw})
			if (err == nil) != (row.realm != "-") {
				t.Fatalf("%v", err)
			}
			if err == nil && (claims.Realm != address+row.realm || claims.Issuer != claims.Realm) {
				t.Errorf("realm %q, issuer %q, want %q", claims.Realm, claims.Issuer, address+row.realm)
			}
		})
	}
}
