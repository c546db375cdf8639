package yamlfile_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// Each row is the end of a file whose first lines are the same. It lists all errors.
func TestErrorsInClaimsAndGrantsHaveTheirPositionAndRemedy(t *testing.T) {
	t.Parallel()
	const begin = "id: os\nagents: [{id: a, model: demo:x}]\nauth:\n  algorithms: [RS256]\n"
	const jwks = "  keys: [{jwks_file: a.json, claims: {roles: groups}, grants: {}},\n"
	const lacks = "lacks auth.issuer, which every token must have, so that none could pass; add the value of " +
		"auth.issuer, or remove auth.issuer"
	const two = "belongs to two issuers; the first spelling of an entry names its issuer, and auth.keys[0] has this " +
		"spelling with another first one; begin the issuer of both entries with the same spelling, or remove this one"
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
		{jwks + "    {jwks_file: b.json, claims: {roles: []}}]",
			"6:34: auth.keys[1].claims.roles: is an empty list; add an element"},
		{jwks + "    {jwks_file: b.json, accept: [ID_token]}]",
			"6:34: auth.keys[1].accept[0]: is not in the required form; did you mean id_token?"},
		{jwks + "    {jwks_file: b.json, clients: []}]", "6:25: auth.keys[1].clients: is an empty list; add an element"},
		{jwks + "    {jwks_file: b.json, clients: c}]", "6:25: auth.keys[1].clients: is text; write a list"},
		{jwks + "    {jwks_file: b.json, issuer: ['', 'https://b']}]",
			"6:34: auth.keys[1].issuer[0]: is empty; give it a value, or remove it"},
		{jwks + "    {jwks_file: b.json, issuer: ''}]", "6:25: auth.keys[1].issuer: is empty; give it a value"},
		{jwks + "    {jwks_file: b.json, clients: [''], audience: [a, '']}]",
			"6:35: auth.keys[1].clients[0]: is empty; give it a value, or remove it\n" +
				"6:54: auth.keys[1].audience[1]: is empty; give it a value, or remove it"},
		{"  keys: [{jwks_file: a.json}]\n  verify_audience: true\n  audience: ['']",
			"7:14: auth.audience[0]: is empty; give it a value, or remove it"},
		{jwks + "    {jwks_file: b.json, issuer: [x, y]}]\n  issuer: z", "6:25: auth.keys[1].issuer: " + lacks},
		{jwks + "    {jwks_file: b.json, issuer: x}]\n  issuer: z", "6:25: auth.keys[1].issuer: " + lacks},
		{"  keys: [{jwks_file: a.json, issuer: [x, y]},\n    {jwks_file: b.json, issuer: [y, z]}]",
			"6:34: auth.keys[1].issuer[0]: " + two},
		{"  keys: [{jwks_file: a.json, issuer: a},\n    {jwks_file: b.json, issuer: [b, a]}]",
			"6:37: auth.keys[1].issuer[1]: " + two},
		{"  keys: [{jwks_file: a.json, issuer: [b, a]},\n    {jwks_file: b.json, issuer: a}]",
			"6:25: auth.keys[1].issuer: " + two},
		{"  keys: [{jwks_file: a.json, issuer: [i, 'https://a']},\n    {discovery: 'https://a'}]",
			"6:6: auth.keys[1].discovery: " + two},
		{"  keys: [{discovery: 'https://a'},\n    {discovery: 'https://a/'}]", "6:6: auth.keys[1].discovery: " + two},
		{"  keys: [{jwks_file: a.json, issuer: 'https://a/'},\n    {discovery: 'https://a'}]",
			"6:6: auth.keys[1].discovery: " + two},
		{"  keys: [{jwks_file: a.json}]\n  claims: {roles: groups}\n  grants:\n    ${GRP}: [a:b]",
			`8:5: auth.grants["${GRP}"]: has a variable in its name, and names can't hold variables; write the name itself`},
		{jwks + "    {jwks_file: b.json, claims: {roles: r}, grants: {'${GRP}': [a:b]}}]",
			`6:54: auth.keys[1].grants["${GRP}"]: has a variable in its name, and names can't hold variables; ` +
				"write the name itself"},
		{jwks + "    {jwks_file: b.json, issuer: []}]", "6:25: auth.keys[1].issuer: is an empty list; add an element"},
	} {
		if got := faultsOf(begin+row.lines+"\n", config.Options{}); got != row.faults {
			t.Errorf("%s\ngot\n%s\nwant\n%s", row.lines, got, row.faults)
		}
	}
}

// Each row is auth of a file with the agent a. It lists all warnings.
func TestWarningsAboutClaimsAndEntriesHaveTheirPositionAndRemedy(t *testing.T) {
	t.Parallel()
	const order = ", and the first of the two that accepts a token decides its subject and scopes; join them, or give " +
		"each an issuer or clients that the other has not"
	const shared = "is read for scopes and for roles, so a group named like a scope grants it; read scopes from another " +
		"claim; scopes: [] reads roles only"
	const mail = "is an address that its user or the issuer can change or give to another person, who then owns the " +
		"same data; use sub"
	const compare = "which this file does not declare; compare it with the ids in agents"
	const keys = "verify_audience: true\n  keys: [{jwks_file: k.json}]\n  "
	entries := func(first, second string) string {
		return "verify_audience: true\n  keys:\n  - {" + first + "}\n  - {" + second + "}"
	}
	const twice = "7:5: auth.keys[1]: has the same keys as auth.keys[0]" + order
	for name, row := range map[string]struct{ auth, want string }{
		"the same address, without issuers": {entries("jwks_file: k.json", "jwks_file: ./k.json, audience: [x]"), twice},
		"the same address and issuer": {
			entries("jwks_url: https://i/k, issuer: i", "jwks_url: https://i/k, issuer: i"), twice},
		"issuers that overlap": {
			entries("jwks_url: https://i/k, issuer: [i, j]", "jwks_url: https://i/k, issuer: [i, l]"), twice},
		"one issuer is any": {entries("jwks_file: k.json, issuer: i", "jwks_file: k.json"), twice},
		"two forms of discovery": {
			entries("discovery: https://i/a", "discovery: https://i/a/.well-known/openid-configuration, clients: [c]"), twice},
		"clients that overlap": {
			entries("discovery: https://i, clients: [c, d]", "discovery: https://i, clients: [d]"), twice},
		"the same secret": {
			"algorithms: [HS256]\n  verify_audience: true\n  keys:\n  - {secret: \"${ARN}\"}\n  - {secret: \"${ARN}\"}",
			twice},
		"the same text": {"algorithms: [HS256]\n  verify_audience: true\n  keys:\n  - ${K}\n  - ${K}",
			twice},
		"auth.issuer is that of both": {
			entries("jwks_file: k.json, issuer: i", "jwks_file: k.json, issuer: [i, j]") + "\n  issuer: i", twice},
		"different issuers": {entries("jwks_file: k.json, issuer: i", "jwks_file: k.json, issuer: j"), ""},
		"different clients": {entries("discovery: https://i, clients: [c]", "discovery: https://i, clients: [d]"), ""},
		"different keys":    {entries("jwks_file: k.json, issuer: i", "jwks_file: l.json, issuer: i"), ""},
		"spellings of one issuer": {
			entries("jwks_file: k.json, issuer: [i, j]", "jwks_file: l.json, issuer: [i, l, j]"), ""},
		"one issuer, with and without a slash": {
			entries("discovery: https://i, clients: [c]", "discovery: https://i/, issuer: https://i, clients: [d]"), ""},
		"another issuer's keys": {entries("discovery: https://i", "discovery: https://j"), ""},

		"a claim for both": {keys + "claims: {scopes: groups, roles: groups}\n  grants: {g: [a:b]}",
			"6:28: auth.claims.roles: " + shared},
		"a path and a claim, both of one name": {
			keys + "claims: {scopes: [scope, {path: [g]}], roles: [r, g]}\n  grants: {g: [a:b]}",
			"6:53: auth.claims.roles[1]: " + shared},
		"roles of the entry": {"claims: {scopes: g}\n  verify_audience: true\n  keys: [{jwks_file: k.json, " +
			"claims: {roles: g}, grants: {g: [a:b]}}]", "6:39: auth.keys[0].claims.roles: " + shared},
		"scopes of the entry": {"claims: {roles: g}\n  verify_audience: true\n  keys: [{jwks_file: k.json, " +
			"claims: {scopes: g}, grants: {g: [a:b]}}]", "6:39: auth.keys[0].claims.scopes: " + shared},
		"the default claim for roles": {keys + "claims: {roles: scopes}\n  grants: {g: [a:b]}",
			"6:12: auth.claims.roles: " + shared},
		"roles only":      {keys + "claims: {scopes: [], roles: groups}\n  grants: {g: [a:b]}", ""},
		"different paths": {keys + "claims: {scopes: {path: [a, g]}, roles: {path: [b, g]}}\n  grants: {g: [a:b]}", ""},
		"neither": {keys + "claims: {scopes: []}",
			"5:10: auth.keys[0]: reads neither scopes nor roles, so its tokens grant nothing; add roles to claims, and grants"},

		"a path in one name": {keys + "claims: {roles: {path: [realm_access.roles]}}\n  grants: {g: [a:b]}",
			`6:12: auth.claims.roles: has the name "realm_access.roles" in its path, dots included; if it stands for several ` +
				"names, write each of them: realm_access, roles"},
		"a path in one name with a slash": {keys + "claims: {roles: {path: [x, a.b/c]}}\n  grants: {g: [a:b]}",
			`6:12: auth.claims.roles: has the name "a.b/c" in its path, dots included; if it stands for several ` +
				"names, write each of them: a, b/c"},
		"a claim with a dot and a slash": {keys + "claims: {session: {claim: a.b/c}}",
			`6:12: auth.claims.session: is the claim with the name "a.b/c", dots included; if it is a member of an object, ` +
				"write {path: [a, b/c]}"},
		"names in a namespace": {
			keys + "claims: {scopes: \"https://x.y/z\", roles: {path: [\"https://x.y/z\", a]}}\n  grants: {g: [a:b]}", ""},

		"an address inside an object": {
			keys + "claims: {subject: {path: [user, email]}}", "6:12: auth.claims.subject: " + mail},
		"an address": {keys + "claims: {subject: email}", "6:12: auth.claims.subject: " + mail},
		"no address": {keys + "claims: {subject: {path: [email, id]}}", ""},

		"an agent that is not there": {
			keys + "claims: {roles: g}\n  grants: {g: [\"agents:a:run\", \"agents:aa:run\", \"agents:*:run\", agents:read]}",
			`7:32: auth.grants.g[1]: is about the agent "aa", ` + compare},
		"an agent of an entry": {
			"verify_audience: true\n  keys: [{jwks_file: k.json, claims: {roles: g}, grants: {g: [\"agents:b:run\"]}}]",
			`5:63: auth.keys[0].grants.g[0]: is about the agent "b", ` + compare},
		"an id of another resource": {keys + "claims: {roles: g}\n  grants: {g: [\"teams:b:run\"]}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := "id: os\nauth:\n  algorithms: [RS256]\n  " + row.auth + "\nagents: [{id: a, model: \"demo:x\"}]\n"
			if strings.HasPrefix(row.auth, "algorithms") {
				text = strings.Replace(text, "  algorithms: [RS256]\n", "", 1)
			}
			c, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{Lookup: func(name string) (string, bool) {
				if name == "ARN" {
					return "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf", true
				}
				return secrets[name], true
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(config.Faults(c.Warnings).Error(), "keyway.yaml:", ""); got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
		})
	}
}

// A program can declare agents in Go, and its file then names none or some of them.
func TestGrantsForAgentsInGoAreNotWarnedOf(t *testing.T) {
	t.Parallel()
	const auth = "id: os\nauth:\n  keys: [${K}]\n  claims: {roles: g}\n  grants: {g: [\"agents:b:run\"]}\n"
	inGo := []config.Agent{{ID: "c"}}
	for _, row := range []struct {
		text string
		o    config.Options
	}{
		{auth + "agents: [{id: a, model: \"demo:x\"}]\n", config.Options{Agents: inGo}},
		{auth, config.Options{Agents: inGo}},
		{auth, config.Options{Without: []config.Part{config.Runs}}},
	} {
		row.o.Lookup = func(name string) (string, bool) { v, ok := secrets[name]; return v, ok }
		c, err := yamlfile.Parse("keyway.yaml", []byte(row.text), row.o)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %v", row.text, c.Warnings)
		}
	}
}
