package config_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
)

// claiming returns a file with these members of auth besides its key.
func claiming(members string) []byte {
	return file(`"auth": {"keys": ["${KEY}"], ` + members + `}`)
}

// trusting returns a file with entries of auth.keys that are fetched, and these members of auth.
func trusting(members string, entries ...string) []byte {
	var keys []string
	for i, e := range entries {
		keys = append(keys, fmt.Sprintf(`{"jwks_url": "https://i%d.example/keys", "issuer": "https://i%d.example"%s}`, i, i,
			e))
	}
	return file(`"auth": {"algorithms": ["RS256"], "verify_audience": true, "keys": [` + strings.Join(keys,
		",") + `]` + members + `}`)
}

func TestClaimSourcesHaveThreeForms(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for text, want := range map[string]config.Sources{
		`"scope"`:                               {{Claim: "scope"}},
		`"https://x/y.z"`:                       {{Claim: "https://x/y.z"}},
		`{"claim": "scopes", "split": true}`:    {{Claim: "scopes", Split: &yes}},
		`{"claim": "scope", "split": false}`:    {{Claim: "scope", Split: &no}},
		`{"path": ["realm_access", "roles"]}`:   {{Path: []string{"realm_access", "roles"}}},
		`{"path": ["a"], "split": true}`:        {{Path: []string{"a"}, Split: &yes}},
		`["scp", {"path": ["a", "b"]}]`:         {{Claim: "scp"}, {Path: []string{"a", "b"}}},
		`["scp"]`:                               {{Claim: "scp"}},
		`["${CLAIM}", {"claim": "x.${CLAIM}"}]`: {{Claim: "groups"}, {Claim: "x.groups"}},
		`{"path": ["${CLAIM}", "$${CLAIM}"]}`:   {{Path: []string{"groups", "${CLAIM}"}}},
	} {
		env := lookup(map[string]string{"KEY": key["KEY"], "CLAIM": "groups"})
		for _, name := range []string{"scopes", "roles"} {
			c := mustParse(t, claiming(`"claims": {"`+name+`": `+text+`}, "grants": {}`), config.Options{Lookup: env})
			got := c.Auth.Claims.Scopes
			if name == "roles" {
				got = c.Auth.Claims.Roles
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s %s", name, text, diff)
			}
		}
	}
}

func TestOnlyTheClaimsOfTheStandardsAreSplitByDefault(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, row := range []struct {
		source config.ClaimSource
		want   bool
	}{
		{config.ClaimSource{Claim: "scope"}, true}, {config.ClaimSource{Claim: "scp"}, true},
		{config.ClaimSource{Claim: "scopes"}, false}, {config.ClaimSource{Claim: "Scope"}, false},
		{config.ClaimSource{Claim: "permissions"}, false}, {config.ClaimSource{Path: []string{"scope"}}, false},
		{config.ClaimSource{Path: []string{"a", "scope"}}, false},
		{config.ClaimSource{Claim: "scope", Split: &no}, false}, {config.ClaimSource{Claim: "scopes", Split: &yes}, true},
		{config.ClaimSource{Path: []string{"a"}, Split: &yes}, true},
	} {
		if row.source.Splits() != row.want {
			t.Errorf("%+v splits: %t", row.source, !row.want)
		}
	}
}

func TestWrongClaimSourcesAreErrors(t *testing.T) {
	t.Parallel()
	const forms = "; write text, or its fields: claim, split, path"
	for text, want := range map[string]string{
		`{"scopes": {}}`:                             "auth.claims.scopes: names no claim; add claim: NAME",
		`{"scopes": ["scope", {}]}`:                  "auth.claims.scopes[1]: names no claim; add claim: NAME",
		`{"roles": {}}`:                              "auth.claims.roles: names no claim; add claim: NAME",
		`{"subject": {}}`:                            "auth.claims.subject: names no claim; add claim: NAME",
		`{"session": {"claim": ""}}`:                 "auth.claims.session: names no claim; add claim: NAME",
		`{"scopes": {"split": true}}`:                "auth.claims.scopes: names no claim; add claim: NAME",
		`{"roles": []}`:                              "auth.claims.roles: is an empty list; add an element",
		`{"scopes": ""}`:                             "auth.claims.scopes: is empty; give it a value",
		`{"scopes": ["scope", ""]}`:                  "auth.claims.scopes[1]: is empty; give it a value",
		`{"scopes": null}`:                           "auth.claims.scopes: is empty; give it a value",
		`{"scopes": [null]}`:                         "auth.claims.scopes[0]: is empty; give it a value",
		`{"scopes": 1}`:                              "auth.claims.scopes: is a number" + forms,
		`{"scopes": [["a"]]}`:                        "auth.claims.scopes[0]: is a list" + forms,
		`{"subject": ["a"]}`:                         "auth.claims.subject: is a list" + forms,
		`{"scopes": {"path": []}}`:                   "auth.claims.scopes.path: is an empty list; add an element",
		`{"scopes": {"path": ["a", ""]}}`:            "auth.claims.scopes: has an empty name in its path; name each member",
		`{"scopes": {"path": "a.b"}}`:                "auth.claims.scopes.path: is text; write a list",
		`{"scopes": {"claim": "a", "path": ["b"]}}`:  "auth.claims.scopes: has a claim and a path; keep one of them",
		`{"scopes": {"claim": "a", "split": "yes"}}`: `auth.claims.scopes.split: is "yes"; write true or false`,
		`{"scopes": {"claim": "a", "splt": true}}`:   "auth.claims.scopes.splt: unknown field; did you mean split?",
		`{"subject": {"claim": "a", "split": true}}`: "auth.claims.subject.split: has no effect, because this claim " +
			"holds one value; remove it",
		`{"scopes": "a\u0000"}`: "auth.claims.scopes: has a NUL character; remove it",
		`{"scopes": "${UNSET}"}`: "auth.claims.scopes: ${UNSET} is unset or empty; set UNSET, or " +
			"write $${ for a literal ${",
		`{"scopes": "a", "scopes": "b"}`:           "auth.claims.scopes: is written twice; keep one of them",
		`{"scopes": {"claim": "a", "claim": "b"}}`: "auth.claims.scopes.claim: is written twice; keep one of them",
	} {
		wantErrors(t, claiming(`"claims": `+text), config.Options{}, want)
	}
}

func TestGrantsAreListsOfScopes(t *testing.T) {
	t.Parallel()
	const literal = "; set UNSET, or write $${ for a literal ${"
	for grants, want := range map[string]string{
		`[]`:           "auth.grants: is a list; write lines such as web-users: [agents:read]",
		`null`:         "auth.grants: is empty; give it a value",
		`{"a": "x:y"}`: "auth.grants.a: is text; write a list of scopes",
		`{"a": null}`:  "auth.grants.a: is empty; write a list of scopes",
		`{"a": []}`: "auth.grants.a: lists no scope; list a scope, or remove the line: a role without a line " +
			"grants nothing",
		`{"a": [1]}`:         "auth.grants.a[0]: is a number; write a scope, such as app:read",
		`{"a": ["x:y z:w"]}`: `auth.grants.a[0]: is "x:y z:w"; write one scope in each element, without spaces`,
		`{"b": ["x"], "a": ["y"]}`: "auth.grants.a[0]: is no scope, so it grants nothing; write resource:action or " +
			"resource:id:action\n" +
			"auth.grants.b[0]: is no scope, so it grants nothing; write resource:action or resource:id:action",
		`{"": ["x:y"]}`: "auth.grants: has an empty name; name a role or group",
		`{"${KEY}": ["x:y"], "a-${B}": ["x:y"]}`: `auth.grants["${KEY}"]: has a variable in its name, and names can't hold ` +
			"variables; write the name itself\n" +
			`auth.grants["a-${B}"]: has a variable in its name, and names can't hold variables; write the name itself`,
		`{"/web users": ["a"]}`: `auth.grants["/web users"][0]: is no scope, so it grants nothing; ` +
			`write resource:action or resource:id:action`,
		`{"a": ["x:y"], "a": ["z:w"]}`: "auth.grants.a: is written twice; keep one of them",
		`{"a": ["x:y", "${UNSET}"]}`:   "auth.grants.a[1]: ${UNSET} is unset or empty" + literal,
		`{"a": "${UNSET}"}`:            "auth.grants.a: ${UNSET} is unset or empty" + literal,
	} {
		for _, dev := range []bool{false, true} {
			wantErrors(t, claiming(`"claims": {"roles": "groups"}, "grants": `+grants), config.Options{Dev: dev}, want)
		}
	}
	c := mustParse(t, claiming(`"claims": {"roles": "groups"}, "admin_scope": "boss", "grants": {"a\"b,]": ["x:y",
		"boss"]}`),
		config.Options{})
	if diff := cmp.Diff(config.Grants{`a"b,]`: {"x:y", "boss"}}, c.Auth.Grants); diff != "" || len(c.Warnings) > 0 {
		t.Error(diff, c.Warnings)
	}
}

// With --dev an unset variable leaves out a source. It never shortens a path, which would then lead to another claim.
func TestDevLeavesOutSourcesWithUnsetVariables(t *testing.T) {
	t.Parallel()
	dev := config.Options{Dev: true}
	for text, want := range map[string]config.Sources{
		`"${UNSET}"`:              {{Claim: "scopes"}},
		`["scope", "${UNSET}"]`:   {{Claim: "scope"}},
		`["${UNSET}"]`:            {{Claim: "scopes"}}, // and not [], which reads no scopes
		`[{"claim": "${UNSET}"}]`: {{Claim: "scopes"}},
		`{"claim": "${UNSET}"}`:   {{Claim: "scopes"}},
		`[]`:                      {},
	} {
		if diff := cmp.Diff(want, mustParse(t, claiming(`"claims": {"scopes": `+text+`}`),
			dev).Auth.Claims.Scopes); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	c := mustParse(t, claiming(`"claims": {"subject": {"claim": "${UNSET}"}, "session": {"claim": "${UNSET}"}}`), dev)
	if c.Auth.Claims.Subject.Claim != "sub" || c.Auth.Claims.Session.Claim != "session_id" {
		t.Errorf("%+v", c.Auth.Claims)
	}
	wantErrors(t, claiming(`"claims": {"scopes": {"path": ["a", "${UNSET}"]}}`), dev,
		"auth.claims.scopes.path[1]: ${UNSET} is unset or empty; set UNSET, or write $${ for a literal ${")
}

func TestEachEntryThatReadsRolesHasItsOwnGrants(t *testing.T) {
	t.Parallel()
	const needed = ": reads roles, and so does another entry, so it needs grants of its own; add grants to this entry; " +
		"{} grants nothing"
	const reads, granted = `, "claims": {"roles": "groups"}`, `, "claims": {"roles": "groups"},
		"grants": {"staff": ["a:b"]}`
	const global = `, "claims": {"roles": "roles"}, "grants": {"staff": ["a:b"]}`
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"one entry reads roles":     {trusting(global, reads), ""},
		"each has grants":           {trusting("", granted, granted), ""},
		"an empty object is enough": {trusting(global, granted, `, "grants": {}`), ""},
		"one of two":                {trusting("", granted, ""), ""},
		"the first has none":        {trusting("", reads, granted), "auth.keys[0]" + needed},
		"both read those of auth": {trusting(global, "", granted, ""),
			"auth.keys[0]" + needed + "\nauth.keys[2]" + needed},
		"two texts have one set of keys": {file(`"auth": {"keys": ["${KEY}", "${KEY}"]` + global + `}`), ""},
		"an entry that is left out": {
			file(`"auth": {"keys": ["${KEY}", {"secret": "${EMPTY}"}]` + global + `}`), ""},
	} {
		env := lookup(map[string]string{"KEY": key["KEY"], "EMPTY": ""})
		if row.want != "" {
			wantErrors(t, row.data, config.Options{Lookup: env}, row.want)
		} else if _, faults := config.Parse(row.data, config.Options{Lookup: env}); faults != nil {
			t.Errorf("%s: %v", name, config.Faults(faults))
		}
	}
}

func TestClaimsOfAnEntryReplaceThoseOfAuthNameByName(t *testing.T) {
	t.Parallel()
	c := mustParse(t, trusting(`, "claims": {"scopes": "scope", "subject": "uid", "session": {"path": ["a", "b"]}}`,
		"", `, "claims": {"scopes": ["scp", "x"], "roles": "groups"}, "grants": {}`, `, "claims": {"subject": "sub"}`,
		`, "claims": {"scopes": []}`),
		config.Options{}).Auth
	session := config.ClaimSource{Path: []string{"a", "b"}}
	for i, want := range []config.Claims{
		{Scopes: config.Sources{{Claim: "scope"}}, Subject: config.ClaimSource{Claim: "uid"}, Session: session},
		{Scopes: config.Sources{{Claim: "scp"}, {Claim: "x"}}, Roles: config.Sources{{Claim: "groups"}},
			Subject: config.ClaimSource{Claim: "uid"}, Session: session},
		{Scopes: config.Sources{{Claim: "scope"}}, Subject: config.ClaimSource{Claim: "sub"}, Session: session},
		{Scopes: config.Sources{}, Subject: config.ClaimSource{Claim: "uid"}, Session: session},
	} {
		if diff := cmp.Diff(want, c.ClaimsOf(c.Keys[i])); diff != "" {
			t.Errorf("entry %d: %s", i, diff)
		}
	}
}

// What keyway config show prints of these settings, a file can contain.
func TestPrintedClaimsAndGrantsParseAgain(t *testing.T) {
	t.Parallel()
	for _, data := range [][]byte{
		trusting(`, "claims": {"scopes": "scope"}`, ""),
		trusting(`, "claims": {"scopes": ["scope", {"path": ["a", "b"], "split": true}], "roles": {"path": ["realm_access",
			"roles"]},
			"subject": {"path": ["user", "id"]}, "session": "sid"}, "grants": {"x y": ["a:b", "agent_os:admin"]}`,
			`, "claims": {"scopes": {"claim": "scope", "split": false}, "subject": "uid"}, "prefix": "rs/", "clients": ["c"],
			"grants": {}, "accept": ["id_token", "bound"]`),
		trusting(`, "claims": {"roles": ["groups"]}, "grants": {"a": ["a:b"]}`, `, "grants": {"\"]": ["c:d"]}`),
		trusting(`, "claims": {"scopes": [], "roles": "groups"}, "grants": {"a": ["a:b"]}`, ""),
		trusting("", `, "claims": {"scopes": []}`),
	} {
		c := mustParse(t, data, config.Options{})
		var printed map[string]json.RawMessage
		if err := json.Unmarshal([]byte(c.String()), &printed); err != nil {
			t.Fatal(err)
		}
		again := mustParse(t, file(`"auth": `+string(printed["auth"])), config.Options{})
		if !reflect.DeepEqual(c.Auth, again.Auth) {
			t.Errorf("%s\nprints\n%s\n%s", data, printed["auth"], cmp.Diff(c.Auth, again.Auth))
		}
	}
}
