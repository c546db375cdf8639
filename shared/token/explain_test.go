package token_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/token"
)

func TestTokenWithoutScopesSaysWhatItHasInstead(t *testing.T) {
	t.Parallel()
	roles := token.Rules{Roles: only(claim("realm_access", "roles")), Grants: map[string][]string{"a": {"x:y"}}}
	for name, row := range map[string]struct {
		rules          token.Rules
		payload        string
		absent, unread string
	}{
		"Keycloak's default": {token.Rules{},
			`{"scope":"profile email","realm_access":{"roles":["offline_access"]},"resource_access":{"account":{"roles":[]}}}`,
			`"scopes"`, "it has scope, realm_access, resource_access"},
		"Cognito": {token.Rules{}, `{"cognito:groups":["web"],"scope":"rs/a:b","client_id":"c"}`,
			`"scopes"`, "it has scope, cognito:groups"},
		"a claim with a namespace": {
			token.Rules{}, `{"https://k.example/roles":["a"],"roles":[]}`, `"scopes"`, "it has https://k.example/roles"},
		"an object": {
			token.Rules{}, `{"scopes":{"a:b":true}}`, "", "its scopes is neither a string nor a list of strings"},
		"a list with a number": {
			token.Rules{}, `{"scopes":["a:b",1]}`, "", "its scopes is neither a string nor a list of strings"},
		"an empty list":  {token.Rules{}, `{"scopes":[]}`, "", ""},
		"nothing at all": {token.Rules{}, `{"sub":"ann"}`, `"scopes"`, ""},
		"null":           {token.Rules{}, `{"scopes":null,"scope":null}`, `"scopes"`, ""},
		"a role without a grant": {
			roles, `{"realm_access":{"roles":["b"]}}`,
			`"scopes"`, "it has realm_access; none of the values of its realm_access.roles grants scopes here"},
		"no prefix": {
			token.Rules{Prefix: "rs/"}, `{"scopes":["a:b"]}`, "", "none of the values of its scopes grants scopes here"},
		"a scope":                   {roles, `{"realm_access":{"roles":["a"]}}`, "", ""},
		"a scope of another server": {token.Rules{}, `{"scopes":["openid"],"permissions":["a:b"]}`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := read(t, row.rules, row.payload)
			if err != nil || c.Absent != row.absent || c.Unread != row.unread {
				t.Errorf("%q and %q, want %q and %q (%v)", c.Absent, c.Unread, row.absent, row.unread, err)
			}
		})
	}
}

// The texts cross to the functions, so that a token must not decide about their length.
func TestExplanationOfMissingScopesIsBounded(t *testing.T) {
	t.Parallel()
	var claims []string
	for i := range 200 {
		claims = append(claims, fmt.Sprintf(`"https://%d.%s/roles":["x"]`, i, strings.Repeat("é", 50)))
	}
	many := token.Rules{}
	for range 100 {
		many.Scopes = append(many.Scopes, claim(strings.Repeat("s", 1000)))
	}
	c, err := read(t, many, "{"+strings.Join(claims, ",")+"}")
	if err != nil || len(c.Absent) > 1000 || len(c.Unread) > 1000 || c.Absent == "" || c.Unread == "" {
		t.Errorf("%d and %d bytes, %v", len(c.Absent), len(c.Unread), err)
	}
}

func TestTokenWithoutSubjectNamesTheClaim(t *testing.T) {
	t.Parallel()
	c, err := read(t, token.Rules{Subject: claim("user", "id")}, `{"sub":"ann","scopes":["a:b"]}`)
	if err != nil || c.SubjectClaim != "user.id" {
		t.Errorf("%q, %v", c.SubjectClaim, err)
	}
	if c, err = read(t, token.Rules{}, `{"sub":"ann"}`); err != nil || c.SubjectClaim != "" {
		t.Errorf("%q of a token with a subject, %v", c.SubjectClaim, err)
	}
}

func TestRefusalAfterAGoodSignatureSaysWhatIsExpected(t *testing.T) {
	t.Parallel()
	r := token.Rules{Issuers: []string{"http://127.0.0.1/r", "http://kc/r"}, Audience: []string{"os"},
		Clients: []string{"web"}}
	for payload, want := range map[string]string{
		`{}`:           `aud is absent, expected "os"`,
		`{"aud":"os"}`: `iss is absent, expected "http://127.0.0.1/r" or "http://kc/r"`,
		`{"aud":"os","iss":"http://localhost/r"}`: `iss is "http://localhost/r", expected "http://127.0.0.1/r" ` +
			`or "http://kc/r"`,
		`{"aud":["account"],"iss":"http://kc/r"}`:          `aud is ["account"], expected "os"`,
		`{"aud":"os","iss":"http://kc/r"}`:                 `azp, client_id and cid are absent, expected "web"`,
		`{"aud":"os","iss":"http://kc/r","cid":"mobile"}`:  `cid is "mobile", expected "web"`,
		`{"aud":"` + strings.Repeat("x", 40000) + `"}`:     `aud is "` + strings.Repeat("x", 199) + `…, expected "os"`,
		`{"aud":"os","iss":"http://kc/r","azp":["web"]}`:   `azp is ["web"], expected "web"`,
		`{"aud":"os","iss":"http://kc/r","client_id":"w"}`: `client_id is "w", expected "web"`,
		`{"aud":"os","iss":"http://127.0.0.1/r/","azp":""}`: `iss is "http://127.0.0.1/r/", expected "http://127.0.0.1/r" ` +
			`or "http://kc/r"`,
	} {
		_, err := read(t, r, payload)
		if m, ok := errors.AsType[token.Cause](err); !ok || m.Error() != want {
			t.Errorf("%.80s: %v, want %s", payload, err, want)
		}
	}
	// Without a good signature, nothing is said about what is expected.
	_, err := verify(t, hmacOptions(), signedText(t, `{"alg":"HS256"}`, `{"iss":"x"}`)+"A")
	if _, ok := errors.AsType[token.Cause](err); ok || err == nil {
		t.Errorf("a token with a wrong signature: %v", err)
	}
}

func TestExplanationSaysWhatATokenIs(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys[0].Rules = token.Rules{Roles: only(claim("groups"))}
	v := newVerifier(t, o)
	for name, row := range map[string]struct {
		header, payload string
		want            token.Explanation
	}{
		"an access token": {`{"alg":"HS256","typ":"at+jwt","kid":"k"}`, `{"iss":"i","aud":"os","azp":"web","client_id":"c"}`,
			token.Explanation{Algorithm: "HS256", Type: "at+jwt", KeyID: "k", Kind: "access token", Issuer: "i",
				Audience: []string{"os"}, Clients: []string{"azp=web", "client_id=c"}}},
		"an ID token": {`{"alg":"HS256"}`, `{"typ":"ID","aud":["a","b"]}`,
			token.Explanation{Algorithm: "HS256", Kind: "ID token", Audience: []string{"a", "b"}}},
		"a bound token": {`{"alg":"HS256"}`, `{"cnf":{"jkt":"x"}}`,
			token.Explanation{Algorithm: "HS256", Kind: "access token that is bound to a key"}},
		"a logout token": {`{"alg":"HS256"}`, `{"typ":"Logout"}`,
			token.Explanation{Algorithm: "HS256", Kind: "logout token"}},
		"a logout token by its header": {`{"alg":"HS256","typ":"logout+jwt"}`, `{}`,
			token.Explanation{Algorithm: "HS256", Type: "logout+jwt", Kind: "another kind of token"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, _ := v.Explain(t.Context(), []string{signedText(t, row.header, row.payload)})
			row.want.Signer, row.want.Absent = "keys[0]", []string{"scopes", "groups"}
			row.want.Reads, row.want.RolesFrom = []string{"scopes"}, []string{"groups"}
			x.Claims = token.Claims{}
			if diff := cmp.Diff(row.want, x); diff != "" {
				t.Error(diff)
			}
		})
	}
	// Nothing but the header is shown of a token that nobody has signed.
	x, err := v.Explain(t.Context(), []string{signedText(t, `{"alg":"HS256","typ":"JWT"}`, `{"iss":"i"}`) + "A"})
	if diff := cmp.Diff(token.Explanation{Algorithm: "HS256", Type: "JWT"}, x); diff != "" || err == nil {
		t.Error(diff, err)
	}
}
