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
				if _, err := db.Revoke(t.Context(), r, store.MaxRevocations); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, token := range []request{
				{row.token, "ann", "t", http.StatusUnauthorized},
				{row.token, "bob", "leaked", http.StatusUnauthorized},
				{row.token, "bob", "t", http.StatusOK},
				{row.other, "ann", "t", http.StatusOK},
			} {
				token.send(t, db, auth)
			}
		})
	}
}

// request is one with a token that was issued an hour ago, and the wanted status.
type request struct {
	issuer, subject, id string
	want                int
}

func (token request) send(t *testing.T, db *store.DB, auth config.Auth) {
	t.Helper()
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	handler := assemble.All(assemble.Parts{
		Config: &config.Config{ID: storetest.OSID, Auth: auth}, Policy: policy, DB: db,
		Log: slog.New(slog.DiscardHandler), Started: time.Now(),
	}).Handler
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/sessions?type=agent", nil)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), &authz.Principal{
		Subject: token.subject, TokenID: token.id, Issuer: token.issuer, Realm: token.issuer,
		IssuedAt: time.Now().Add(-time.Hour), Scopes: []string{"sessions:read"},
	})))
	if w.Code != token.want {
		t.Errorf("%+v: %d %s", token, w.Code, w.Body)
	}
}

// An entry without an issuer gets one that is not at home. Its revoked tokens stay revoked, and users of an issuer that
// was in the file before keep theirs.
func TestARevocationHoldsAfterTheEntryGotAnIssuer(t *testing.T) {
	t.Parallel()
	a, b := config.Key{Issuer: []string{"https://a"}}, config.Key{Issuer: []string{"https://b"}}
	for name, row := range map[string]struct {
		before, after config.Auth
		requests      []request
	}{
		"beside another issuer": {
			config.Auth{Keys: []config.Key{{}, b}}, config.Auth{Keys: []config.Key{a, b}},
			[]request{{"https://a", "ann", "t", 401}, {"https://a", "bob", "t", 200}, {"https://b", "ann", "t", 200}},
		},
		"alone": {
			config.Auth{Keys: []config.Key{{}}}, config.Auth{Keys: []config.Key{a}, HomeIssuer: "none"},
			[]request{{"https://a", "ann", "t", 401}, {"https://a", "bob", "t", 200}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := storetest.EmptyURL(t)
			migrate := func(auth config.Auth) {
				if _, err := migrations.Run(t.Context(), migrations.Target{
					URL: at, Schema: storetest.Schema, OSID: storetest.OSID, Owners: auth.Owners(),
				}); err != nil {
					t.Fatal(err)
				}
			}
			migrate(row.before)
			db := storetest.Open(t, store.Options{URL: at})
			now, err := db.Now(t.Context())
			if err == nil {
				_, err = db.Revoke(t.Context(), store.Revocation{Subject: "ann", Before: &now, MadeAt: now}, 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			migrate(row.after)
			if err := db.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, r := range row.requests {
				r.send(t, db, row.after)
			}
		})
	}
}
