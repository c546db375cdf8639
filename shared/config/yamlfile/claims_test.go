package yamlfile_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

// Each row is the end of a file whose first lines are the same. It lists all errors.
func TestErrorsInClaimsAndGrantsHaveTheirPositionAndRemedy(t *testing.T) {
	t.Parallel()
	const begin = "id: os\nagents: [{id: a, model: demo:x}]\nauth:\n  algorithms: [RS256]\n"
	const jwks = "  keys: [{jwks_file: a.json, claims: {roles: groups}, grants: {}},\n"
	for _, row := range []struct{ lines, faults string }{
		{"  keys: [{jwks_file: a.json}]\n  claims:\n    scopes: {path: [a, '']}",
			"7:5: auth.claims.scopes: has an empty name in its path; name each member"},
		{"  keys: [{jwks_file: a.json}]\n  claims:\n    scopes: [scope, {}]",
			"7:21: auth.claims.scopes[1]: names no claim; add claim: NAME"},
		{"  keys: [{jwks_file: a.json}]\n  claims:\n    roles:\n    - claim: groups\n      splt: true",
			"9:7: auth.claims.roles[0].splt: unknown field; did you mean split?"},
		{"  keys: [{jwks_file: a.json}]\n  claims: {subject: {claim: email, split: true}}",
			"6:36: auth.claims.subject.split: has no effect, because this claim holds one value; remove it"},
		{"  keys: [{jwks_file: a.json}]\n  claims: {roles: groups}\n  grants:\n    /web-users: [WebSearch.User]",
			`8:18: auth.grants["/web-users"][0]: is no scope, so it grants nothing; ` +
				"write resource:action or resource:id:action"},
		{"  keys: [{jwks_file: a.json}]\n  claims: {roles: groups}\n  grants:\n    staff: []",
			"8:5: auth.grants.staff: lists no scope; list a scope, or remove the line: a role without a line grants nothing"},
		{"  keys: [{jwks_file: a.json}]\n  claims: {roles: groups}\n  grants:\n    staff: [a:b]\n    staff: [c:d]",
			"9:5: auth.grants.staff: is written twice, first on line 8; keep one of them"},
		{jwks + "    {jwks_file: b.json, claims: {roles: groups}}]",
			"6:5: auth.keys[1]: reads roles, and so does another entry, so it needs grants of its own; " +
				"add grants to this entry; {} grants nothing"},
		{jwks + "    {jwks_file: b.json, claims: {scopes: []}}]",
			"6:34: auth.keys[1].claims.scopes: is an empty list; add an element"},
		{jwks + "    {jwks_file: b.json, accept: [ID_token]}]",
			"6:34: auth.keys[1].accept[0]: is not in the required form; did you mean id_token?"},
		{jwks + "    {jwks_file: b.json, clients: []}]", "6:25: auth.keys[1].clients: is an empty list; add an element"},
		{jwks + "    {jwks_file: b.json, clients: c}]", "6:25: auth.keys[1].clients: is text; write a list"},
		{jwks + "    {jwks_file: b.json, issuer: []}]", "6:25: auth.keys[1].issuer: is an empty list; add an element"},
	} {
		if got := faultsOf(begin+row.lines+"\n", config.Options{}); got != row.faults {
			t.Errorf("%s\ngot\n%s\nwant\n%s", row.lines, got, row.faults)
		}
	}
}
