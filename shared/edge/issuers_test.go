package edge_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// realTokens are tokens in the shapes of identity providers, with files that read them. "refused" stands for the scopes
// of a token that is not accepted.
var realTokens = []struct{ name, auth, entry, header, payload, scopes string }{
	{"Keycloak, default", `{}`, `{}`, `{"alg":"EdDSA","typ":"JWT","kid":"k"}`, keycloak, ""},
	{"Keycloak, realm roles", `{"claims":{"roles":{"path":["realm_access","roles"]}},
		"grants":{"web-users":["agents:a:run","agents:a:read"],"owners":["agent_os:admin"]}}`, `{}`,
		`{"alg":"EdDSA","typ":"JWT"}`, keycloak, "agents:a:read agents:a:run"},
	{"Keycloak, roles of a client", `{}`, `{"claims":{"roles":{"path":["resource_access","app","roles"]}},
		"grants":{"manage-account":["sessions:read"]}}`, `{"alg":"EdDSA","typ":"JWT"}`, keycloak, "sessions:read"},
	{"Keycloak, client scopes", `{"claims":{"scopes":"scope"}}`, `{}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"66d9","typ":"Bearer","azp":"app","aud":["os","account"],"scope":"agents:a:run agents:read profile email"}`,
		"agents:a:run agents:read email profile"},
	{"Keycloak, a group in the admin's name", `{"claims":{"roles":"groups"},"grants":{"/web-users":["agents:a:run"]}}`,
		`{}`,
		`{"alg":"EdDSA"}`, `{"sub":"u","groups":["/web-users","agent_os:admin"],"typ":"Bearer"}`, "agents:a:run"},
	{"Keycloak, ID token", `{}`, `{}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"u","typ":"ID","aud":"app","at_hash":"x","scopes":["agents:a:run"]}`, "refused"},
	{"Keycloak, DPoP", `{}`, `{}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"u","typ":"DPoP","cnf":{"jkt":"x"},"scope":"profile","scopes":["agents:a:run"]}`, "refused"},
	{"Keycloak, DPoP accepted", `{}`, `{"accept":["bound"]}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"u","typ":"DPoP","cnf":{"jkt":"x"},"scope":"profile","scopes":["agents:a:run"]}`, "agents:a:run"},
	{"Keycloak, logout token", `{}`, `{"accept":["id_token","bound"]}`, `{"alg":"EdDSA","typ":"logout+jwt"}`,
		`{"sub":"u","typ":"Logout","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`, "refused"},
	{"oidc-provider", `{"claims":{"scopes":"scope"}}`, `{}`, `{"alg":"EdDSA","typ":"at+jwt","kid":"k"}`,
		`{"sub":"svc","client_id":"svc","aud":"urn:keyway","scope":"agents:a:run agents:read","jti":"j"}`,
		"agents:a:run agents:read"},
	{"Spring Authorization Server", `{"claims":{"scopes":"scope"}}`, `{"audience":["svc"]}`, `{"alg":"EdDSA"}`,
		`{"sub":"svc","aud":"svc","scope":["agents:a:run","agents:read openid"]}`, "agents:a:run agents:read openid"},
	{"Cognito, a user", `{}`, `{"clients":["c1"],"prefix":"my-agent-os/","claims":{"scopes":"scope",
		"roles":"cognito:groups"},
		"grants":{"web-users":["agents:a:read"]}}`, `{"alg":"EdDSA","kid":"k"}`,
		`{"sub":"u","token_use":"access","client_id":"c1","cognito:groups":["web-users","my-agent-os/web-users"],
		"scope":"my-agent-os/agents:a:run agents:b:run openid"}`, "agents:a:read agents:a:run"},
	{"Cognito, another app of the pool", `{}`, `{"clients":["c1"],"prefix":"my-agent-os/","claims":{"scopes":"scope"}}`,
		`{"alg":"EdDSA","kid":"k"}`,
		`{"sub":"u","token_use":"access","client_id":"c2","scope":"my-agent-os/agents:a:run"}`, "refused"},
	{"Cognito, ID token", `{}`, `{}`, `{"alg":"EdDSA","kid":"k"}`, `{"sub":"u","token_use":"id","aud":"c1"}`, "refused"},
	{"Auth0", `{"claims":{"scopes":["permissions","https://keyway.example/scopes"]}}`, `{"audience":["https://os"]}`,
		`{"alg":"EdDSA","typ":"JWT"}`, `{"sub":"auth0|1","aud":["https://os","https://t.eu.auth0.com/userinfo"],"azp":"c",
		"scope":"openid profile","permissions":["agents:a:run"],"https://keyway.example/scopes":["agents:read"]}`,
		"agents:a:run agents:read"},
	{"Entra ID, a user", `{}`, `{"claims":{"scopes":"scp","roles":["roles","groups"]},
		"grants":{"WebSearch.User":["agents:b:run"],
		"0f3c2b1a-0000-4000-8000-000000000001":["sessions:read"]}}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"u","tid":"t","scp":"agents:a:run agents:read","roles":["WebSearch.User"],
		"groups":["0f3c2b1a-0000-4000-8000-000000000001","0f3c2b1a-0000-4000-8000-000000000002"]}`,
		"agents:a:run agents:b:run agents:read sessions:read"},
	{"Okta", `{}`, `{"clients":["c"],"claims":{"scopes":"scp"}}`, `{"alg":"EdDSA"}`,
		`{"sub":"ann@example.com","cid":"c","scp":["agents:a:run","agents:read"]}`, "agents:a:run agents:read"},
	{"Supabase", `{}`, `{"claims":{"roles":{"path":["app_metadata","roles"]}},"grants":{"staff":["agents:a:run"]}}`,
		`{"alg":"EdDSA","typ":"JWT"}`, `{"sub":"u","role":"authenticated","app_metadata":{"provider":"email",
			"roles":["staff"]},
		"user_metadata":{"roles":["agent_os:admin"]}}`, "agents:a:run"},
	{"Google", `{}`, `{"accept":["id_token"],"claims":{"roles":["hd","email"]},
		"grants":{"ann@example.com":["agents:a:run"],
		"example.com":["agents:read"]}}`, `{"alg":"EdDSA","typ":"JWT"}`,
		`{"sub":"1","azp":"c","aud":"c","hd":"example.com","email":"ann@example.com","at_hash":"x","nonce":"n"}`,
		"agents:a:run agents:read"},
	{"AgentOS", `{}`, `{}`, `{"alg":"EdDSA","typ":"JWT"}`, `{"sub":"u","scopes":["agents:a:run","x agent_os:admin"]}`,
		"agents:a:run x agent_os:admin"},
	{"AgentOS, one text", `{}`, `{}`, `{"alg":"EdDSA","typ":"JWT"}`, `{"sub":"u","scopes":"agents:a:run profile"}`,
		"agents:a:run profile"},
	{"a path through a list", `{"claims":{"scopes":{"path":["a","b"]}}}`, `{}`, `{"alg":"EdDSA"}`,
		`{"sub":"u","a":[{"b":"agent_os:admin"}]}`, ""},
	{"a member twice", `{"claims":{"scopes":{"path":["a","b"]}}}`, `{}`, `{"alg":"EdDSA"}`,
		`{"sub":"u","a":{"b":"agents:read","b":"agent_os:admin"}}`, "refused"},
	{"not split", `{"claims":{"scopes":{"claim":"scope","split":false}}}`, `{}`, `{"alg":"EdDSA"}`,
		`{"sub":"u","scope":"agents:a:run agent_os:admin"}`, "agents:a:run agent_os:admin"},
	{"a prefix that completes a scope", `{}`, `{"claims":{"scopes":"scope"},"prefix":"agent_os:"}`, `{"alg":"EdDSA"}`,
		`{"sub":"u","scope":"agent_os:admin agent_os: agent_os:agent_os:admin"}`, "admin agent_os:admin"},
	{"no grants of its own", `{"claims":{"roles":"groups"},"grants":{"staff":["agents:read"]}}`, `{"grants":{}}`,
		`{"alg":"EdDSA"}`,
		`{"sub":"u","groups":["staff"]}`, ""},
}

const keycloak = `{"exp":1893459600,"iat":1893455990,"jti":"trrtcc:1","iss":"http://127.0.0.1:21001/realms/acme",
	"aud":"account",
	"sub":"66d9","typ":"Bearer","azp":"app","acr":"1","sid":"s","realm_access":{"roles":["offline_access","web-users",
	"default-roles-acme","uma_authorization"]},"resource_access":{"account":{"roles":["manage-account"]},
	"app":{"roles":["manage-account"]}},"scope":"profile email","preferred_username":"ann"}`

func TestTokensOfIdentityProvidersGiveTheirScopes(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	for _, row := range realTokens {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := claimed{decoded(t, row.auth), decoded(t, row.entry), row.header, row.payload}
			if i.parsed(t, c.auth, c.entry) == nil {
				t.Fatal("the file is refused")
			}
			scopes, ok := c.examine(t, i)
			if ok != (row.scopes != "refused") {
				t.Fatalf("accepted: %t", ok)
			}
			got := ""
			for _, s := range slices.Sorted(maps.Keys(scopes)) {
				got += " " + s
			}
			if want := " " + row.scopes; ok && got != want && got+" " != want {
				t.Error(cmp.Diff(want, got))
			}
		})
	}
}
