package replay

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ran is a logged run of the agent web.
func ran(scopes, origins, issuer string, allow bool) string {
	rest := `,"status":403,"missing":["agents:web:run"]`
	if allow {
		rest = ""
	}
	return fmt.Sprintf(`{"msg":"decision","allow":%t%s,"principal":"aa","scopes":%s,"origins":%s,"issuer":%q,`+
		`"route":"POST /agents/{agent_id}/runs","agent":"web","config":"00"}`+"\n", allow, rest, scopes, origins, issuer)
}

func TestChangedGrantsAreReplayed(t *testing.T) {
	t.Parallel()
	const run = `["agents:web:run","a:b"]`
	for name, row := range map[string]struct {
		line   string
		grants map[string][]string
		want   Verdict
	}{
		"the same grants": {
			ran(run, `["groups=web","scope"]`, "i", true), map[string][]string{"web": {"agents:web:run"}}, ""},
		"a role lost its grant": {
			ran(run, `["groups=web","scope"]`, "i", true), map[string][]string{"web": {"x:y"}}, Refused},
		"a role got a grant": {
			ran(`["x:y"]`, `["groups=web"]`, "i", false), map[string][]string{"web": {"agents:run"}}, Allowed},
		"a role with an equals sign": {
			ran(`["x:y"]`, `["groups=cn=web,o=x"]`, "i", false), map[string][]string{"cn=web,o=x": {"agents:run"}}, Allowed},
		"scopes of a claim stay": {ran(run, `["scope","groups=web"]`, "i", true), nil, ""},
		"another role was changed": {
			ran(run, `["groups=web","scope"]`, "i", true), map[string][]string{"web": {"agents:run"}, "x": {}}, ""},
		"the name of a scope as role": {
			ran(`["x:y"]`, `["groups=agents:run"]`, "i", false), map[string][]string{"x": {"agents:run"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l Log
			if err := l.Read(strings.NewReader(row.line), time.Time{}); err != nil {
				t.Fatal(err)
			}
			r := l.Replay(Rules{Policy: policy(t), Agents: []string{"web"}, Digest: "00",
				Grants: func(issuer string) (map[string][]string, bool) { return row.grants, issuer == "i" }})
			verdict := Verdict("")
			if len(r.Changes) > 0 {
				verdict = r.Changes[0].Verdict
			}
			if verdict != row.want || r.Replayed != 1 || r.Granted != 1 || r.NoGrants != 0 {
				t.Errorf("%q, want %q: %+v", verdict, row.want, r)
			}
		})
	}
}

func TestRolesOfAnUnknownIssuerAreCounted(t *testing.T) {
	t.Parallel()
	var l Log
	text := ran(`["agents:run"]`, `["groups=web"]`, "other", true) +
		ran(`["agents:run"]`, `["scope"]`, "other", true) + // has no role
		ran(`["agents:run","a:b"]`, `["groups=web"]`, "i", true) // origins that don't fit the scopes
	if err := l.Read(strings.NewReader(text), time.Time{}); err != nil {
		t.Fatal(err)
	}
	r := l.Replay(Rules{Policy: policy(t), Agents: []string{"web"}, Digest: "00",
		Grants: func(issuer string) (map[string][]string, bool) { return nil, issuer == "i" }})
	if r.NoGrants != 1 || r.Replayed != 2 || r.Granted != 0 || len(r.Changes) != 0 {
		t.Errorf("%+v", r)
	}
}
