package authz

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// Whatever the scopes are: a token that is meant for the door for MCP alone opens nothing else, and no other token
// opens that door.
func TestATokensAudienceLimitsWhatItOpens(t *testing.T) {
	t.Parallel()
	o := policy(t, admin, Mapping{"POST", "/*", []string{"x:y"}})
	for r := range route.Table.All() {
		path := r.Path(func(string) string { return "a" })
		for audience, opens := range map[Audience]bool{
			ForAPI: !r.Addressed, ForBoth: true, ForMCP: r.Public || r.Addressed || r.AnyToken, 3: r.Public, -1: r.Public,
		} {
			p := &Principal{Scopes: []string{admin}, Audience: audience}
			d := o.Decide(p, r.Method, path)
			if d.Allow != opens || audience.Opens(r) != opens {
				t.Errorf("%s with the audience %d: allowed is %t, want %t", r, audience, d.Allow, opens)
			}
			if opens {
				continue
			}
			err := d.Err("")
			if fault.KindOf(err) != fault.Unauthenticated || !strings.Contains(err.Error(), "audience") {
				t.Errorf("%s with the audience %d: %v", r, audience, err)
			}
			reasons := strings.Join(d.Reasons(func(text string) string { return text }), "; ")
			if !strings.Contains(reasons, "audience (aud)") {
				t.Errorf("%s with the audience %d: %s", r, audience, reasons)
			}
			if p.Admitted().Audience != ForAPI || p.Audience != audience {
				t.Errorf("admitted: %+v", p.Admitted())
			}
		}
		if d := o.Decide(nil, r.Method, path); r.Addressed && d.Allow {
			t.Errorf("%s is open without a token", r)
		}
	}
	// The scopes of the token have no effect on the door itself: its handler decides about what a call names.
	if d := o.Decide(&Principal{Audience: ForMCP}, "POST", "/mcp"); !d.Allow || d.Mapping != "" || len(d.Need) > 0 {
		t.Errorf("%+v", d)
	}
	if _, err := New(route.Table, admin, []Mapping{{"POST", "/mcp", []string{"x:y"}}}); err == nil {
		t.Error("a mapping of the door was accepted")
	}
}
