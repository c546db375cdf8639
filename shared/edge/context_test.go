package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/token"
)

// claims returns claims with only a subject and scopes.
func claims(sub string, scopes ...string) token.Claims {
	return token.Claims{Subject: sub, Scopes: scopes}
}

// rebuilt signs the claims, sends the token through the authorizer and API Gateway, and
// returns the principal that the function sees.
func rebuilt(t tester, a *edge.Authorizer, c token.Claims) *authz.Principal {
	t.Helper()
	answer, err := a.Authorize(context.Background(), event(t, sign(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(answer.Context)
	if err != nil {
		t.Fatal(err)
	}
	// API Gateway adds its own members.
	crossed := map[string]any{"principalId": answer.PrincipalID, "integrationLatency": 12}
	if err := json.Unmarshal(data, &crossed); err != nil {
		t.Fatal(err)
	}
	p, err := edge.Principal(crossed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// verified returns the principal as the verified token names it.
func verified(t tester, c token.Claims) *authz.Principal {
	p := &authz.Principal{
		Subject: c.Subject, SessionID: c.SessionID, Issuer: c.Issuer, TokenID: c.ID, Scopes: c.Scopes,
		ExpiresAt: c.ExpiresAt.UTC(), IssuedAt: c.IssuedAt.UTC(),
		TokenHash: token.Hash([]string{"Bearer " + sign(t, c)}),
	}
	if c.Subject == "" {
		p.SubjectClaim = "sub"
	}
	return p
}

func sameCaller(t tester, want, got *authz.Principal) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the caller changed on the way (-token +function):\n%s", diff)
	}
}

func TestPrincipalSurvivesAPIGateway(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	for name, scopes := range map[string][]string{
		"no scopes":                   {},
		"the empty scope":             {""},
		"a space is no separator":     {"x agent_os:admin"},
		"commas, quotes, brackets":    {`a","agent_os:admin`, `["agent_os:admin"]`, `\u0022`, `'`, "`"},
		"unicode":                     {"agents:日本 🎉:run", "\u2028", "é\n", "\ufeff", "<b>&"},
		"NUL":                         {"a\x00b", "\x00"},
		"repeated and out of order":   {"b:b", "a:a", "b:b"},
		"as many as a token may have": many(4096, "s:%d"),
		"thousands of agents' scopes": many(2000, "agents:%d:read"),
		"one scope of 32 KB":          {strings.Repeat("x", 32<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := token.Claims{Subject: "ann", Scopes: scopes, ExpiresAt: now.Add(time.Hour)}
			sameCaller(t, verified(t, c), rebuilt(t, a, c))
		})
	}
}

func many(n int, format string) (scopes []string) {
	for i := range n {
		scopes = append(scopes, fmt.Sprintf(format, i))
	}
	return scopes
}

func TestPrincipalOfAnyTokenSurvivesAPIGateway(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a", "b"))
	text := func(max int) *rapid.Generator[string] {
		return rapid.StringN(0, 40, max).Filter(func(s string) bool { return !strings.Contains(s, "\x00") })
	}
	scope := rapid.OneOf(rapid.String(), scopeDraw)
	rapid.Check(t, func(t *rapid.T) {
		c := token.Claims{
			Subject: text(1024).Filter(func(s string) bool {
				return !strings.HasPrefix(s, "sa:") &&
					!strings.HasPrefix(s, "__")
			}).Draw(t, "sub"),
			SessionID: text(255).Draw(t, "session"), Issuer: text(1024).Draw(t, "iss"), ID: text(255).Draw(t, "jti"),
			Scopes:    rapid.SliceOf(scope).Draw(t, "scopes"),
			ExpiresAt: now.Add(time.Duration(rapid.Int64Range(1, 1<<32).Draw(t, "exp")) * time.Second),
			IssuedAt:  now.Add(-time.Duration(rapid.Int64Range(0, 1<<30).Draw(t, "age")) * time.Second),
		}
		sameCaller(t, verified(t, c), rebuilt(t, a, c))
	})
}

func TestTokenWithoutExpiryKeepsNoExpiry(t *testing.T) {
	t.Parallel()
	c := declaring("a")
	c.Auth.RequireExp = false
	a := newAuthorizer(t, c)
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Draft{Claims: claims("ann")})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := a.Authorize(t.Context(), event(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := edge.Principal(answer.Context); err != nil || !p.ExpiresAt.IsZero() {
		t.Errorf("%+v %v", p, err)
	}
}

func TestContextHasOnlyStringsAndNoToken(t *testing.T) {
	t.Parallel()
	c := declaring("a")
	c.Digest = "0123456789abcdef"
	a := newAuthorizer(t, c)
	a.Hash = loghash.Keys{"TEST KEY ONLY: the hashes in the logs of the tests"}
	raw := sign(t, token.Claims{Subject: "ann@example.com", Issuer: "https://issuer", SessionID: "s", ID: "j",
		Scopes: []string{"agents:a:run"}})
	answer, err := a.Authorize(t.Context(), event(t, "Bearer "+raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range answer.Context {
		text, ok := value.(string)
		if !ok {
			t.Errorf("%s is %T; API Gateway takes text only", name, value)
		}
		for _, part := range append(strings.Split(raw, "."), raw) {
			if strings.Contains(text, part) {
				t.Errorf("%s holds a part of the token: %s", name, text)
			}
		}
	}
	if answer.Context["scopes"] != `["agents:a:run"]` {
		t.Errorf("the context has the scopes %v", answer.Context["scopes"])
	}
	if answer.Context["digest"] != c.Digest {
		t.Errorf("the context has the digest %v", answer.Context["digest"])
	}
	// The members that access logs and gateway responses are allowed to print.
	for _, public := range []any{answer.PrincipalID, answer.Context["subHash"], answer.Context["tokenHash"]} {
		if text, _ := public.(string); !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(text) {
			t.Errorf("%v is no hash", public)
		}
	}
}

func TestForeignContextIsRejected(t *testing.T) {
	t.Parallel()
	for name, context := range map[string]map[string]any{
		"none":                           nil,
		"an empty one":                   {},
		"without scopes":                 {"sub": "ann", "exp": ""},
		"scopes joined by spaces":        {"sub": "ann", "scopes": "agents:read agent_os:admin"},
		"scopes as a list":               {"sub": "ann", "scopes": []any{"agent_os:admin"}},
		"a list of other things":         {"sub": "ann", "scopes": `[1]`},
		"an object for a list":           {"sub": "ann", "scopes": `{"a": "b"}`},
		"more than a list":               {"sub": "ann", "scopes": `["a:b"] ["agent_os:admin"]`},
		"scopes that are null":           {"sub": "ann", "scopes": `null`},
		"a scope that is null":           {"sub": "ann", "scopes": `[null]`},
		"a scope that half decodes":      {"sub": "ann", "scopes": `["\ud800"]`},
		"an expiry in another spelling":  {"sub": "ann", "scopes": `[]`, "exp": "+12"},
		"the expiry that means never":    {"sub": "ann", "scopes": `[]`, "exp": "-62135596800"},
		"an expiry that is no number":    {"sub": "ann", "scopes": `[]`, "exp": "soon"},
		"an expiry that is not a string": {"sub": "ann", "scopes": `[]`, "exp": 12.0},
		"a subject that is not a string": {"sub": 7, "scopes": `[]`},
		"a token's hash that is none":    {"sub": "ann", "scopes": `[]`, "tokenHash": 1},
		"a session that is not a string": {"sub": "ann", "session_id": true, "scopes": `[]`},
		"limits that are none":           {"sub": "ann", "scopes": `[]`, "limits": `{}`},
		"a limit below 0":                {"sub": "ann", "scopes": `[]`, "limits": `{"concurrent_runs":-1}`},
		"limits in another form":         {"sub": "ann", "scopes": `[]`, "limits": `{"concurrent_runs": 5}`},
		"limits with another member":     {"sub": "ann", "scopes": `[]`, "limits": `{"concurrent_runs":5,"x":1}`},
		"limits that are not a string":   {"sub": "ann", "scopes": `[]`, "limits": 5.0},
		"an audience that is none":       {"sub": "ann", "scopes": `[]`, "audience": "all"},
		"an audience that is no text":    {"sub": "ann", "scopes": `[]`, "audience": true},
		"a nested member for its text":   {"sub": map[string]any{"x": "ann"}, "scopes": `[]`},
	} {
		p, err := edge.Principal(context)
		if !errors.Is(err, fault.Unauthenticated) || p != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
