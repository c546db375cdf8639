package token_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/token"
)

func claim(path ...string) token.ClaimSource      { return token.ClaimSource{Path: path} }
func splitClaim(path ...string) token.ClaimSource { return token.ClaimSource{Path: path, Split: true} }

// only is one source.
func only(s token.ClaimSource) []token.ClaimSource { return []token.ClaimSource{s} }

// read returns the claims of a token with this payload.
func read(t *testing.T, r token.Rules, payload string) (token.Claims, error) {
	t.Helper()
	o := hmacOptions()
	o.Keys[0].Rules = r
	return verify(t, o, signedText(t, `{"alg":"HS256"}`, payload))
}

func wantScopes(t *testing.T, r token.Rules, payload string, scopes ...string) {
	t.Helper()
	c, err := read(t, r, payload)
	if err != nil {
		t.Errorf("%s: %v", payload, err)
	}
	if diff := cmp.Diff(scopes, c.Scopes, sameWhenEmpty); diff != "" {
		t.Errorf("%s with %+v (-want +got):\n%s", payload, r, diff)
	}
	if c.Origins != nil && len(c.Origins) != len(c.Scopes) {
		t.Errorf("%s: %d origins of %d scopes", payload, len(c.Origins), len(c.Scopes))
	}
}

// nil reads the claim scopes, as AgentOS does. An empty list reads none, so that only roles grant something.
func TestAnEmptyListOfScopesReadsNoClaim(t *testing.T) {
	t.Parallel()
	const payload = `{"scopes":["a:b"],"scope":"a:b","groups":["staff","a:b"]}`
	grants := map[string][]string{"staff": {"c:d"}}
	roles, none := only(claim("groups")), []token.ClaimSource{}
	wantScopes(t, token.Rules{}, payload, "a:b")
	wantScopes(t, token.Rules{Scopes: none}, payload)
	wantScopes(t, token.Rules{Scopes: none, Roles: roles, Grants: grants}, payload, "c:d")
	wantScopes(t, token.Rules{Roles: roles, Grants: grants}, payload, "a:b", "c:d")
	wantScopes(t, token.Rules{Scopes: only(claim())}, payload, "a:b") // its name was an unset variable
}

func TestOnlySpacesSplitAText(t *testing.T) {
	t.Parallel()
	split, whole := token.Rules{Scopes: only(splitClaim("scope"))}, token.Rules{Scopes: only(claim("scope"))}
	for payload, want := range map[string][]string{
		`{"scope":"agents:a:run agents:read profile"}`: {"agents:a:run", "agents:read", "profile"},
		`{"scope":"a:b"}`:                   {"a:b"},
		`{"scope":"  a:b   c:d "}`:          {"a:b", "c:d"},
		`{"scope":"a:b a:b"}`:               {"a:b"},
		`{"scope":""}`:                      nil,
		`{"scope":"   "}`:                   nil,
		`{"scope":"a:b\u0020c:d"}`:          {"a:b", "c:d"},
		`{"scope":"a:b\tc:d"}`:              {"a:b\tc:d"},
		`{"scope":"a:b\nc:d"}`:              {"a:b\nc:d"},
		`{"scope":"a:b\u00a0c:d"}`:          {"a:b\u00a0c:d"},
		`{"scope":"a:b\u2003c:d"}`:          {"a:b\u2003c:d"},
		`{"scope":"a:b\u0000c:d"}`:          {"a:b\x00c:d"},
		`{"scope":"a:b,c:d;e:f+g:h%20i:j"}`: {"a:b,c:d;e:f+g:h%20i:j"},
		`{"scope":["a:b c:d","e:f"]}`:       {"a:b c:d", "e:f"},
		`{"scope":["x agent_os:admin"]}`:    {"x agent_os:admin"},
		`{"scope":[]}`:                      nil,
		`{"scope":["a:b",1]}`:               nil,
		`{"scope":["a:b",["c:d"]]}`:         nil,
		`{"scope":{"a:b":true}}`:            nil,
		`{"scope":1}`:                       nil,
		`{"scope":null}`:                    nil,
		`{"Scope":"a:b"}`:                   nil,
		`{}`:                                nil,
	} {
		wantScopes(t, split, payload, want...)
	}
	wantScopes(t, whole, `{"scope":"a:b  c:d "}`, "a:b  c:d ")
	wantScopes(t, whole, `{"scope":""}`, "")
	wantScopes(t, token.Rules{Scopes: only(splitClaim("x", "y"))}, `{"x":{"y":"a:b c:d"}}`, "a:b", "c:d")
	// AgentOS's claim, as it was before there were sources.
	wantScopes(t, token.Rules{}, `{"scopes":"a:b c:d"}`, "a:b c:d")
	wantScopes(t, token.Rules{}, `{"scopes":["a:b","","a:b"]}`, "a:b", "", "a:b")
}

func TestPathLeadsThroughObjectsOnly(t *testing.T) {
	t.Parallel()
	r := token.Rules{Scopes: only(claim("a", "b", "c"))}
	for payload, want := range map[string][]string{
		`{"a":{"b":{"c":["x:y"]}}}`:                                {"x:y"},
		`{"a":{"b":{"c":"x:y z:w"}}}`:                              {"x:y z:w"},
		`{"a":{"b":{"c":["x:y"],"d":1},"e":[]},"b":{"c":"no:no"}}`: {"x:y"},
		`{"a":{"b":{"\u0063":["x:y"]}}}`:                           {"x:y"},
		`{"a":[{"b":{"c":["x:y"]}}]}`:                              nil,
		`{"a":{"b":[{"c":["x:y"]}]}}`:                              nil,
		`{"a":{"b":["c"]}}`:                                        nil,
		`{"a":{"b":"c"}}`:                                          nil,
		`{"a":{"b":null}}`:                                         nil,
		`{"a":{"b":{"c":null}}}`:                                   nil,
		`{"a":{"b":{"c":{"x:y":1}}}}`:                              nil,
		`{"a":{"b":{}}}`:                                           nil,
		`{"a.b.c":["x:y"]}`:                                        nil,
		`{"a":{"b.c":["x:y"]}}`:                                    nil,
		`{"a":{"":{"b":{"c":["x:y"]}}}}`:                           nil,
		`{"a":"{\"b\":{\"c\":[\"x:y\"]}}"}`:                        nil,
		`{"a":true}`:                                               nil,
		`{}`:                                                       nil,
	} {
		wantScopes(t, r, payload, want...)
	}
	deep := strings.Repeat(`{"a":`, 3000) + `["x:y"]` + strings.Repeat("}", 3000)
	wantScopes(t, token.Rules{Scopes: only(claim(slices.Repeat([]string{"a"}, 3000)...))}, deep, "x:y")
	wantScopes(t, token.Rules{Scopes: only(claim(slices.Repeat([]string{"a"}, 3001)...))}, deep)
	wantScopes(t, token.Rules{Scopes: only(claim("https://keyway.example/scopes"))},
		`{"https://keyway.example/scopes":["x:y"]}`, "x:y")
}

// Another reader could take the other one of two members.
func TestMemberThatIsReadOccursOnce(t *testing.T) {
	t.Parallel()
	const twice = "Invalid token: Invalid payload string: two members of one name"
	r := token.Rules{Scopes: []token.ClaimSource{claim("a", "b"), claim("scopes")}, Subject: claim("u", "id"),
		Session: claim("u", "session")}
	for payload, text := range map[string]string{
		`{"a":{"b":["x:y"],"b":["z:w"]}}`:      twice,
		`{"a":{"b":["x:y"],"\u0062":["z:w"]}}`: twice,
		`{"a":{"b":null,"b":["z:w"]}}`:         twice,
		`{"a":{"b":["z:w"],"b":null}}`:         twice,
		`{"a":{"b":{},"b":[]}}`:                twice,
		`{"u":{"id":"ann","id":"bob"}}`:        twice,
		`{"u":{"session":"s","session":"t"}}`:  twice,
		`{"a":{"b":["x:y"]},"a":{}}`:           twice,
		`{"a":{"c":1,"c":2,"b":[]}}`:           "",
		`{"u":{"x":{"id":1,"id":2}}}`:          "",
	} {
		_, err := read(t, r, payload)
		if text == "" {
			if err != nil {
				t.Errorf("%s: %v", payload, err)
			}
			continue
		}
		wantRefusal(t, err, text)
	}
}

func TestSubjectAndSessionCanBeMembersOfAnObject(t *testing.T) {
	t.Parallel()
	r := token.Rules{Subject: claim("user", "id"), Session: claim("user", "session")}
	c, err := read(t, r, `{"sub":"mallory","user":{"id":"ann","session":"s"}}`)
	if err != nil || c.Subject != "ann" || c.SessionID != "s" {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = read(t, r, `{"sub":"mallory","user":["ann"]}`)
	wantSubject(t, "", c, err)
	_, err = read(t, r, `{"user":{"id":7}}`)
	wantRefusal(t, err, "Invalid token: Subject must be a string")
	_, err = read(t, r, `{"user":{"id":"sa:bot"}}`)
	wantRefusal(t, err, "Invalid token subject")
	_, err = read(t, r, `{"user":{"session":["s"]}}`)
	wantRefusal(t, err, "Invalid token: user.session must be a string of at most 255 bytes")
}

func TestPrefixLimitsScopesAndNeverRoles(t *testing.T) {
	t.Parallel()
	r := token.Rules{
		Scopes: []token.ClaimSource{splitClaim("scope"), claim("scopes")}, Roles: only(claim("groups")), Prefix: "rs/",
		Grants: map[string][]string{"staff": {"sessions:read"}, "rs/staff": {"memories:read"}},
	}
	for payload, want := range map[string][]string{
		`{"scope":"rs/a:b c:d xrs/e:f RS/g:h rs/rs/i:j"}`: {"a:b", "rs/i:j"},
		`{"scope":"agent_os:admin rs/x"}`:                 {"x"},
		`{"scope":"rs/ rs/"}`:                             nil, // nothing is left
		`{"scope":"rs/ a:b"}`:                             nil,
		`{"scopes":["rs/a:b c:d","rs/ e:f"]}`:             {"a:b c:d", " e:f"},
		`{"scopes":["a:b"]}`:                              nil,
		`{"groups":["staff"]}`:                            {"sessions:read"},
		`{"groups":["rs/staff"]}`:                         {"memories:read"},
		`{"scope":"rs/a:b","groups":["staff","rs/"]}`:     {"a:b", "sessions:read"},
	} {
		wantScopes(t, r, payload, want...)
	}
}

func TestRolesGrantNothingButTheirGrants(t *testing.T) {
	t.Parallel()
	r := token.Rules{
		Roles: []token.ClaimSource{claim("realm_access", "roles"), claim("groups")},
		Grants: map[string][]string{
			"users": {"agents:a:run", "sessions:read"}, "admins": {"agent_os:admin"}, "none": {}, "": {"memories:delete"},
			"a b": {"config:read"},
		},
	}
	for payload, want := range map[string][]string{
		`{"groups":["users"]}`:                     {"agents:a:run", "sessions:read"},
		`{"groups":"users"}`:                       {"agents:a:run", "sessions:read"},
		`{"groups":"users admins"}`:                nil,
		`{"groups":"a b"}`:                         {"config:read"},
		`{"groups":["agent_os:admin"]}`:            nil,
		`{"groups":["agents:a:run"]}`:              nil,
		`{"groups":["Users","users ","none","x"]}`: nil,
		`{"groups":["admins"]}`:                    {"agent_os:admin"},
		`{"groups":{"admins":true}}`:               nil,
		`{"groups":["admins",1]}`:                  nil,
		`{"groups":["users","users"],"scopes":["sessions:read","agents:read"],"realm_access":{"roles":["users"]}}`: {
			"sessions:read", "agents:read", "agents:a:run"},
		`{"scopes":["users"]}`: {"users"},
	} {
		wantScopes(t, r, payload, want...)
	}
	wantScopes(t, token.Rules{Roles: only(claim("groups"))}, `{"groups":["agent_os:admin"]}`)
	wantScopes(t, token.Rules{Grants: r.Grants}, `{"groups":["users"],"roles":["users"]}`)
}

func TestOriginsSayWhereEachScopeIsFrom(t *testing.T) {
	t.Parallel()
	r := token.Rules{
		Scopes: []token.ClaimSource{splitClaim("scope"), claim("permissions")}, Roles: only(claim("realm_access", "roles")),
		Grants: map[string][]string{"users": {"agents:a:run", "sessions:read"}, "staff": {"sessions:read", "config:read"}},
	}
	c, err := read(t, r, `{"scope":"agents:read  sessions:read","permissions":["agents:read","memories:read"],
		"realm_access":{"roles":["users","offline_access","staff"]}}`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, s := range c.Scopes {
		got = append(got, s+" from "+c.Origins[i])
	}
	if diff := cmp.Diff([]string{
		"agents:read from scope", "sessions:read from scope", "memories:read from permissions",
		"agents:a:run from realm_access.roles=users", "config:read from realm_access.roles=staff",
	}, got); diff != "" {
		t.Error(diff)
	}
	if c, err := read(t, token.Rules{}, `{"scopes":["agents:read"]}`); err != nil || c.Origins != nil {
		t.Errorf("the only claim has the origins %q, %v", c.Origins, err)
	}
}

func TestBoundsHoldAfterExpansion(t *testing.T) {
	t.Parallel()
	texts := func(n int, format string) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf(format, i))
		}
		return list
	}
	object := func(members map[string]any) string { return string(must(json.Marshal(members))) }
	roles := texts(4096, "r%d")
	grants := map[string][]string{"many": texts(4096, "s:%d"), "more": {"x:y"}, "long": {strings.Repeat("l", 32<<10)}}
	each := map[string][]string{}
	for _, role := range roles {
		each[role] = append(texts(4, "a:%d"), "agents:"+role+":run")
	}
	for name, row := range map[string]struct {
		grants        map[string][]string
		scopes, roles []string
		count         int // of the scopes; 0 if the token is refused
	}{
		"4,096 scopes of one role": {grants, nil, []string{"many"}, 4096},
		"the same again and again": {grants, texts(1000, "s:%d"), slices.Repeat([]string{"many"}, 4000),
			4096},
		"one more of another role":                 {grants, nil, []string{"many", "more"}, 0},
		"one more of the token":                    {grants, []string{"t"}, []string{"many"}, 0},
		"32 KB of one role":                        {grants, nil, []string{"long"}, 1},
		"one byte more":                            {grants, []string{"t"}, []string{"long"}, 0},
		"2,000 roles of 5 scopes, 4 of them equal": {each, nil, roles[:2000], 2004},
		"roles of too many bytes":                  {each, nil, roles, 0},
		"4,097 times one scope":                    {grants, slices.Repeat([]string{"a:b"}, 4097), nil, 1},
	} {
		r := token.Rules{Roles: only(claim("roles")), Grants: row.grants}
		c, err := read(t, r, object(map[string]any{"sub": "ann", "scopes": row.scopes, "roles": row.roles}))
		if row.count == 0 {
			if err == nil {
				t.Errorf("%s: accepted with %d scopes", name, len(c.Scopes))
				continue
			}
			wantRefusal(t, err, tooManyScopes)
			continue
		}
		if err != nil || len(c.Scopes) != row.count || len(c.Origins) != row.count {
			t.Errorf("%s: %d scopes, %d origins, %v", name, len(c.Scopes), len(c.Origins), err)
		}
	}
}

func TestWhatGrantsNothingIsExplained(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys[0].Rules = token.Rules{
		Scopes: []token.ClaimSource{splitClaim("scope"), claim("permissions")}, Roles: only(claim("groups")), Prefix: "rs/",
		Grants: map[string][]string{"staff": {"a:b"}, "idle": {}},
	}
	v := newVerifier(t, o)
	raw := signedText(t, `{"alg":"HS256"}`, `{"scope":"openid rs/a:b rs/","permissions":{"rs/c:d":1},"groups":["staff",
		"x","idle"]}`)
	x, err := v.Explain(t.Context(), []string{raw})
	if err != nil || !slices.Equal(x.Claims.Scopes, []string{"a:b"}) {
		t.Errorf("%+v, %v", x.Claims, err)
	}
	if diff := cmp.Diff([]token.Ignored{
		{Claim: "scope", Value: "openid", Why: "it does not begin with the prefix rs/"},
		{Claim: "scope", Value: "rs/", Why: "it names no scope"},
		{Claim: "permissions", Why: "it is neither a string nor a list of strings"},
		{Claim: "groups", Value: "x", Why: "no grant has this name"},
	}, x.Ignored); diff != "" {
		t.Error(diff)
	}
}
