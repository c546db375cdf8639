package configdoc_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// An editor that checks a file with the schema must not mark what the server accepts.
func TestSchemaAcceptsEveryNotationOfClaimsAndGrants(t *testing.T) {
	t.Parallel()
	s := schema(t)
	for _, auth := range []string{
		"claims: {scopes: scope}",
		"claims: {scopes: {claim: scope}}",
		"claims: {scopes: {claim: scope, split: false}}",
		"claims: {scopes: {path: [a, b], split: true}}",
		"claims: {scopes: [scope, {path: [a]}, {claim: 'https://x/y', split: true}]}",
		"claims: {roles: groups}, grants: {}",
		"claims: {scopes: [], roles: groups}, grants: {}",
		"claims: {roles: [{path: [realm_access, roles]}, groups]}, grants: {/web users: [a:b, 'a:*:b'], 'x\"': " +
			"[agent_os:admin]}",
		"claims: {subject: {path: [user, id]}, session: {claim: sid}}",
		"claims: {limits: lim}, limits: {'*': {runs_per_day: 1}}",
		"keys: [{jwks_file: a.json, limits: {}, claims: {limits: {path: [a, b]}}}]",
		"keys: [{jwks_file: a.json, claims: {scopes: scp}}]",
		"keys: [{jwks_file: a.json, claims: {scopes: [scp, {path: [a]}], roles: {claim: g, split: true}, subject: uid, " +
			"session: {path: [s]}}, grants: {g: [a:b]}, prefix: rs/, clients: [c], accept: [id_token, bound]}]",
		"keys: [{jwks_file: a.json, issuer: 'https://i', prefix: ''}]",
		"keys: [{jwks_file: a.json, issuer: ['https://i', i], audience: [x]}]",
		"keys: [{discovery: 'https://i', accept: [], grants: {}, claims: {}}]",
	} {
		text := "id: os\nagents: [{id: a, model: demo:x}]\nauth: {algorithms: [RS256], keys: [{jwks_file: k.json}], " +
			"" + auth + "}\n"
		if auth[0] == 'k' {
			text = "id: os\nagents: [{id: a, model: demo:x}]\nauth: {algorithms: [RS256], " + auth + "}\n"
		}
		if _, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{}); err != nil {
			t.Errorf("%s: %v", auth, err)
			continue
		}
		if err := validate(s, canonical(t, text)); err != nil {
			t.Errorf("the schema refuses %s: %v", auth, err)
		}
	}
}

func TestSchemaMarksWrongClaimsAndGrants(t *testing.T) {
	t.Parallel()
	s := schema(t)
	for _, auth := range []string{
		"claims: {roles: []}", "claims: {scopes: 1}", "claims: {scopes: {clam: x}}",
		"claims: {scopes: {claim: x, split: 1}}",
		"claims: {scopes: {path: a.b}}", "claims: {subject: [a]}", "grants: []", "grants: {a: a:b}", "grants: {a: [1]}",
		"keys: [{jwks_file: a.json, accept: [x]}]", "keys: [{jwks_file: a.json, clients: c}]",
		"keys: [{jwks_file: a.json, prefix: [p]}]", "limits: {a: 1}", "limits: {a: {x: 1}}",
		"limits: {a: {usd_per_day: x}}", "keys: [{jwks_file: a.json, claims: {scope: x}}]",
	} {
		text := "id: os\nagents: [{id: a, model: demo:x}]\nauth: {algorithms: [RS256], " + auth + "}\n"
		if err := validate(s, canonical(t, text)); err == nil {
			t.Errorf("the schema accepts %s", auth)
		}
	}
}
