package assemble_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// Tokens are revoked with one file in force, and stay revoked after the next one is.
func TestRevokedTokensStayRevokedWhenTheFileNamesTheIssuerOtherwise(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		before, after []config.Key
		stored        string // the issuer of the revocations
		token, other  string // issuers of tokens with the revoked subject
	}{
		"an issuer is added": {
			[]config.Key{{}}, []config.Key{{Issuer: []string{"https://a"}}, {Issuer: []string{"https://b"}}},
			"", "https://a", "https://b",
		},
		"a spelling is removed": {
			[]config.Key{{Issuer: []string{"https://old", "https://new"}}, {Issuer: []string{"https://b"}}},
			[]config.Key{{Issuer: []string{"https://new"}}, {Issuer: []string{"https://b"}}},
			"https://old", "https://new", "https://b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := storetest.EmptyURL(t)
			files := [][]config.Key{row.before, row.after}
			if len(row.before) == 1 { // One entry gets an issuer, and after that a second entry is added.
				files = [][]config.Key{row.before, row.after[:1], row.after}
			}
			var auth config.Auth
			for _, keys := range files {
				auth = config.Auth{Keys: keys}
				if _, err := migrations.Run(t.Context(), migrations.Target{
					URL: at, Schema: storetest.Schema, OSID: storetest.OSID, Owners: auth.Owners(),
				}); err != nil {
					t.Fatal(err)
				}
			}
			db := storetest.Open(t, store.Options{URL: at})
			now := time.Now()
			for _, r := range []store.Revocation{
				{Issuer: row.stored, Subject: "ann", Before: &now, MadeAt: now},
				{Issuer: row.stored, TokenID: "leaked", MadeAt: now},
			} {
				if _, err := db.Revoke(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			policy, err := authz.New(route.Table, "agent_os:admin", nil)
			if err != nil {
				t.Fatal(err)
			}
			handler := assemble.All(assemble.Parts{
				Config: &config.Config{ID: storetest.OSID, Auth: auth}, Policy: policy, DB: db,
				Log: slog.New(slog.DiscardHandler), Started: now,
			}).Handler
			for _, token := range []struct {
				issuer, subject, id string
				want                int
			}{
				{row.token, "ann", "t", http.StatusUnauthorized},
				{row.token, "bob", "leaked", http.StatusUnauthorized},
				{row.token, "bob", "t", http.StatusOK},
				{row.other, "ann", "t", http.StatusOK},
			} {
				r := httptest.NewRequestWithContext(t.Context(), "GET", "/sessions?type=agent", nil)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), &authz.Principal{
					Subject: token.subject, TokenID: token.id, Issuer: token.issuer, Realm: token.issuer,
					IssuedAt: now.Add(-time.Hour), Scopes: []string{"sessions:read"},
				})))
				if w.Code != token.want {
					t.Errorf("%+v: %d %s", token, w.Code, w.Body)
				}
			}
		})
	}
}
