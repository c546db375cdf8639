package edge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
)

// byRoles returns an authorizer for the roles of these grants, and the principal behind it of a token with these roles.
func byRoles(t *testing.T, grants config.Grants, roles ...string) (origins, scopes []string, context object) {
	t.Helper()
	i := newIssuer(t)
	entry := asJSON(t, object{"claims": object{"roles": "groups"}, "grants": grants, "issuer": []string{"https://i", "i"}})
	c := i.parsed(t, object{}, entry)
	if c == nil {
		t.Fatal("the file is refused")
	}
	payload, err := json.Marshal(object{"sub": "ann", "iss": "i", "iat": now.Unix() - 5, "jti": "j", "groups": roles})
	if err != nil {
		t.Fatal(err)
	}
	raw := i.sign(`{"alg":"EdDSA"}`, string(payload))
	a := newAuthorizer(t, c)
	p := crossed(t, a, raw)
	issued := now.Add(-5 * time.Second)
	if p.Realm != "https://i" || p.Issuer != "https://i" || p.TokenID != "j" || !p.IssuedAt.Equal(issued) {
		t.Errorf("%+v", p)
	}
	answer, err := a.Authorize(t.Context(), event(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	return p.Origins, p.Scopes, answer.Context
}

func TestOriginsCrossWithAnyNameOfARole(t *testing.T) {
	t.Parallel()
	roles := []string{
		`","agent_os:admin`, `["agent_os:admin"]`, `"`, `\`, `\u0022`, "\x00", "a\nb", "\t", " ", ",", "]", "{}", "=", "null",
		"日本 🎉", "\u2028", "\ufeff", "<b>&", "/web users/x", "*",
		"$X", "$", "}",
	}
	grants, want := config.Grants{}, []string(nil)
	for n, role := range roles {
		grants[role] = []string{fmt.Sprintf("agents:a%d:run", n)}
		want = append(want, fmt.Sprintf("agents:a%d:run from groups=%s", n, role))
	}
	origins, scopes, _ := byRoles(t, grants, roles...)
	var got []string
	for n, s := range scopes {
		got = append(got, s+" from "+origins[n])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Origins only explain decisions: without them, the scopes are the same.
func TestOriginsThatAreTooLongAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		role string
		left bool
	}{
		"8,192 bytes with brackets and quotes": {strings.Repeat("r", 8<<10-len(`["groups="]`)), true},
		"one byte more":                        {strings.Repeat("r", 8<<10-len(`["groups="]`)+1), false},
		"long by its escapes":                  {strings.Repeat("\x01", 2000), false},
	} {
		origins, scopes, context := byRoles(t, config.Grants{row.role: {"agents:a:run"}}, row.role)
		if diff := cmp.Diff([]string{"agents:a:run"}, scopes); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if _, sent := context["origins"]; sent != row.left || (origins != nil) != row.left {
			t.Errorf("%s: sent %t, rebuilt %.40q", name, sent, origins)
		}
	}
	grants := config.Grants{"r": many(4000, "s:%d")}
	origins, scopes, context := byRoles(t, grants, "r")
	if len(scopes) != 4000 || origins != nil || context["origins"] != nil || context["scopes_claim"] != "several claims" {
		t.Errorf("%d scopes, %d origins, %v", len(scopes), len(origins), context["scopes_claim"])
	}
}

func TestTheNameOfTheOnlyClaimWithScopesCrosses(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	a := newAuthorizer(t, i.parsed(t, object{}, object{"claims": object{"scopes": "permissions"}}))
	p := crossed(t, a, i.sign(`{"alg":"EdDSA"}`, `{"sub":"ann","permissions":["agents:read"]}`))
	if p.ScopesClaim != "permissions" || p.Origins != nil || p.Origin(0) != "permissions" {
		t.Errorf("%+v", p)
	}
	if plain := rebuilt(t, newAuthorizer(t, declaring("a")), claims("ann", "agents:read")); plain.ScopesClaim != "" ||
		plain.Origin(0) != "scopes" {
		t.Errorf("%+v", plain)
	}
}

// A context of a plain token is as it was before there were origins.
func TestPlainTokenAddsNothingToTheContext(t *testing.T) {
	t.Parallel()
	answer := authorize(t, newAuthorizer(t, declaring("a")), "agents:a:run")
	for _, name := range []string{"origins", "realm", "iat"} {
		if value, sent := answer.Context[name]; sent {
			t.Errorf("%s is %v", name, value)
		}
	}
	if len(answer.Context) != 9 {
		t.Errorf("%d members", len(answer.Context))
	}
}

func TestContextWithForeignOriginsIsRejected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]object{
		"fewer origins than scopes":   {"origins": `["scope"]`},
		"more origins than scopes":    {"origins": `["a","b","c"]`},
		"no list":                     {"origins": `"scope"`},
		"null":                        {"origins": `null`},
		"a list with null":            {"origins": `["a",null]`},
		"a list of numbers":           {"origins": `[1,2]`},
		"another spelling":            {"origins": `["a", "b"]`},
		"text behind the list":        {"origins": `["a","b"]x`},
		"no text":                     {"origins": []any{"a", "b"}},
		"a realm that is no text":     {"realm": 1},
		"an iat that is a number":     {"iat": 12.0},
		"an iat in another spelling":  {"iat": "+12"},
		"an iat that is no number":    {"iat": "today"},
		"the iat that means no claim": {"iat": "-62135596800"},
	} {
		context := object{"sub": "ann", "scopes": `["a:b","c:d"]`, "origins": `["x","y=z"]`, "iat": "12",
			"realm": "https://i"}
		if p, err := edge.Principal(context); err != nil || len(p.Origins) != 2 || p.Realm != "https://i" {
			t.Fatalf("%+v, %v", p, err)
		}
		for member, value := range change {
			context[member] = value
		}
		if p, err := edge.Principal(context); !errors.Is(err, fault.Unauthenticated) || p != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
