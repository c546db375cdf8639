//go:build keycloak

package programs

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// keycloak is a running Keycloak with a realm of the test.
type keycloak struct {
	issuer
	base   string            // of its addresses
	scopes map[string]string // the ids of the client scopes, by name
}

// startKeycloak starts the Keycloak that "make identity" installs, and makes a realm with users, roles and clients,
// which is otherwise as Keycloak makes it. The test takes minutes and has a build tag of its own: CI doesn't build it.
func startKeycloak(t *testing.T) keycloak {
	t.Helper()
	dir := os.Getenv("KEYWAY_KEYCLOAK")
	if dir == "" {
		t.Fatal("KEYWAY_KEYCLOAK is not set; run make identity, which installs Keycloak and runs this test")
	}
	address, port := freeAddress(t)
	k := keycloak{base: "http://" + address, issuer: issuer{name: "keycloak", nonce: "n", recipe: "Keycloak",
		url: "http://" + address + "/realms/acme", authorize: "/protocol/openid-connect/auth",
		token: "/protocol/openid-connect/token"}}
	k.keys = k.url + "/protocol/openid-connect/certs"
	d := launch(t, []string{"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin-password"}, "bash",
		filepath.Join(dir, "bin", "kc.sh"), "start-dev", "--db=dev-mem", "--http-host=127.0.0.1", "--http-port="+port)
	t.Cleanup(func() { // the script passes it on to Java, which would outlive a script that is killed
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(process.Patience):
			t.Error("Keycloak does not end")
		}
	})
	d.awaitHTTP(t, k.base+"/realms/master")
	k.admin(t, "POST", "", `{"realm": "acme", "enabled": true,
		"roles": {"realm": [{"name": "web-users"}, {"name": "finance"},
			{"name": "agents:finance-agent:run"}, {"name": "agents:finance-agent:read"}]},
		"users": [`+k.person("ann", `"web-users"`)+`,
			`+k.person("bob", `"finance", "agents:finance-agent:run", "agents:finance-agent:read"`)+`],
		"clients": [`+k.client("svc", `"serviceAccountsEnabled": true, "standardFlowEnabled": false`)+`,
			`+k.client("web", `"redirectUris": ["`+callback+`"]`)+`]}`)
	k.scopes = map[string]string{}
	for _, name := range []string{"agents:web-search-agent:run", "agents:read"} {
		k.scopes[name] = k.admin(t, "POST", "/acme/client-scopes", `{"name": "`+name+`", "protocol": "openid-connect"}`)
	}
	return k
}

func (k keycloak) person(name, roles string) string {
	return `{"username": "` + name + `", "enabled": true, "email": "` + name + `@example.org", "firstName": "A",
		"lastName": "B", "credentials": [{"type": "password", "value": "` + name + `-password"}],
		"realmRoles": ["default-roles-acme", ` + roles + `]}`
}

func (k keycloak) client(id, more string) string {
	return `{"clientId": "` + id + `", "secret": "` + id + `-secret", ` + more + `}`
}

// admin sends a request to the admin API. It returns the answer, or for a POST the id of what was made.
func (k keycloak) admin(t *testing.T, method, where, body string) string {
	t.Helper()
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"},
		"password": {"admin-password"}}
	login, err := http.NewRequestWithContext(t.Context(), "POST",
		k.base+"/realms/master/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	login.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var token answered
	if _, data := k.send(t, login); json.Unmarshal(data, &token) != nil || token.Access == "" {
		t.Fatalf("no token of the administrator: %s", data)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, k.base+"/admin/realms"+where, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Access)
	req.Header.Set("Content-Type", "application/json")
	location, data := k.send(t, req)
	if location != "" {
		return path.Base(location)
	}
	return string(data)
}

// send returns the Location and the body of a good answer.
func (k keycloak) send(t *testing.T, req *http.Request) (location string, body []byte) {
	t.Helper()
	resp, err := process.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("%s %s: %d %s %v", req.Method, req.URL.Path, resp.StatusCode, body, err)
	}
	return resp.Header.Get("Location"), body
}

// id returns the id of the first object of a list of the admin API.
func (k keycloak) id(t *testing.T, where string) string {
	t.Helper()
	var list []struct{ ID string }
	data := k.admin(t, "GET", where, "")
	if err := json.Unmarshal([]byte(data), &list); err != nil || len(list) == 0 {
		t.Fatalf("%s: %v in %s", where, err, data)
	}
	return list[0].ID
}

// mapper adds a protocol mapper to a client. config are names and values.
func (k keycloak) mapper(t *testing.T, client, kind string, config map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"name": kind, "protocol": "openid-connect", "protocolMapper": kind,
		"config": config})
	if err != nil {
		t.Fatal(err)
	}
	k.admin(t, "POST", "/acme/clients/"+k.id(t, "/acme/clients?clientId="+client)+"/protocol-mappers/models", string(body))
}

// entry is one entry of auth.keys for the realm. more are further lines of it.
func (k keycloak) entry(more string) string {
	return "\n    - jwks_url: \"" + k.keys + "\"\n      issuer: \"" + k.url + "\"\n      clients: [svc, web]\n" + more
}

// The recipes of docs/identity.md on a real Keycloak. They run one after the other on one realm, because a Keycloak
// takes a minute to start.
func TestKeycloak(t *testing.T) {
	t.Parallel()
	k := startKeycloak(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"the token of a new realm is valid and grants nothing", k.plain},
		{"nested roles grant to users and client scopes to services", k.recipeOfPage},
		{"a role mapper named scopes needs no claims in keyway.yaml", k.roleMapper},
		{"client scopes are split, and grant to every user unless a role is tied to them", k.clientScopes},
		{"an ID token and a token that is bound to a key are refused", k.others},
		{"a client that switches to ES256 is served", k.otherAlgorithm},
		{"a new key is fetched without a restart", k.rotation},
	} {
		t.Run(part.name, part.test)
	}
}

func (k keycloak) plain(t *testing.T) {
	r, _ := identityOS(t, k.entry(""))
	r.Tokens["svc"] = k.service(t, "").Access
	r.Tokens["ann"] = k.user(t, "ann", "openid").Access
	header, payload := claims(t, r.Tokens["svc"])
	if header["typ"] != "JWT" || payload["scope"] == nil || payload["scopes"] != nil {
		t.Errorf("a token of a new realm: %v %v", header, payload)
	}
	for _, who := range []string{"svc", "ann"} {
		r.Get(who, "/agents/web-search-agent").Want(t, who, 403, `"missing":["agents:web-search-agent:read"]`)
	}
}

// recipeOfPage is the recipe of docs/identity.md, for people and for services.
func (k keycloak) recipeOfPage(t *testing.T) {
	for _, client := range []string{"web", "svc"} {
		k.mapper(t, client, "oidc-audience-mapper", map[string]string{"included.custom.audience": "my-agent-os",
			"access.token.claim": "true"})
	}
	svc := k.id(t, "/acme/clients?clientId=svc")
	for _, name := range []string{"agents:web-search-agent:run", "agents:read"} {
		k.admin(t, "PUT", "/acme/clients/"+svc+"/default-client-scopes/"+k.scopes[name], "")
	}
	r, _ := identityOS(t, k.entries(t))
	k.checkUsersAsking(t, r, "openid")
	k.checkService(t, r, "")
}

// bob's realm role agents:finance-agent:run is a scope by its name.
func (k keycloak) roleMapper(t *testing.T) {
	k.mapper(t, "web", "oidc-usermodel-realm-role-mapper", map[string]string{"claim.name": "scopes", "multivalued": "true",
		"jsonType.label": "String", "access.token.claim": "true"})
	r, _ := identityOS(t, k.entry("      audience: [my-agent-os]"))
	r.Tokens["bob"], r.Tokens["ann"] = k.user(t, "bob", "openid").Access, k.user(t, "ann", "openid").Access
	r.Run("bob", "finance-agent", "message", "hi", "stream", "false").Want(t, "bob runs the own agent", 200)
	r.Run("bob", "web-search-agent", "message", "hi").Want(t, "bob runs the other agent", 403)
	if got := r.Get("bob", "/agents").IDs(t); got != "finance-agent" {
		t.Errorf("bob lists %q", got)
	}
	r.Run("ann", "finance-agent", "message", "hi").Want(t, "ann has no such role", 403)
}

func (k keycloak) clientScopes(t *testing.T) {
	web := k.id(t, "/acme/clients?clientId=web")
	for _, id := range k.scopes {
		k.admin(t, "PUT", "/acme/clients/"+web+"/optional-client-scopes/"+id, "")
	}
	const wanted = "openid agents:web-search-agent:run agents:read"
	r, _ := identityOS(t, k.entry("      claims: {scopes: scope}"))
	for _, who := range []string{"ann", "bob"} {
		r.Tokens[who] = k.user(t, who, wanted).Access
		r.Run(who, "web-search-agent", "message", "hi", "stream", "false").
			Want(t, who+" has the scope because the client asked for it", 200)
		r.Run(who, "finance-agent", "message", "hi").Want(t, who+" runs the other agent", 403)
	}
	role := k.admin(t, "GET", "/acme/roles/web-users", "")
	for _, id := range k.scopes {
		k.admin(t, "POST", "/acme/client-scopes/"+id+"/scope-mappings/realm", "["+role+"]")
	}
	for who, status := range map[string]int{"ann": 200, "bob": 403} {
		r.Tokens[who] = k.user(t, who, wanted).Access
		r.Run(who, "web-search-agent", "message", "hi", "stream", "false").
			Want(t, who+" has the scope only with the role web-users", status)
	}
}

func (k keycloak) others(t *testing.T) {
	r, _ := identityOS(t, k.entry(""))
	ann := k.user(t, "ann", "openid")
	if _, payload := claims(t, ann.ID); payload["typ"] != "ID" {
		t.Errorf("an ID token: %v", payload)
	}
	refuses(t, r, "an ID token", ann.ID, "ID token")
	bound := k.ask(t, "svc", k.dpop(t), "grant_type", "client_credentials")
	if _, payload := claims(t, bound.Access); bound.Type != "DPoP" || payload["cnf"] == nil {
		t.Errorf("Keycloak sends no token that is bound to a key: %s %v", bound.Type, payload)
	}
	refuses(t, r, "a token that is bound to a key", bound.Access, "bound to a key")
}

// attribute sets an attribute of the client web.
func (k keycloak) attribute(t *testing.T, name, value string) {
	t.Helper()
	where := "/acme/clients/" + k.id(t, "/acme/clients?clientId=web")
	var client map[string]any
	if err := json.Unmarshal([]byte(k.admin(t, "GET", where, "")), &client); err != nil {
		t.Fatal(err)
	}
	attributes, _ := client["attributes"].(map[string]any)
	attributes[name] = value
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(client); err != nil {
		t.Fatal(err)
	}
	k.admin(t, "PUT", where, body.String())
}

// Keycloak publishes the new key in the request that first signs with it, seconds after Keyway has fetched the keys.
func (k keycloak) otherAlgorithm(t *testing.T) {
	r, _ := identityOS(t, k.entries(t))
	r.Tokens["before"] = k.user(t, "ann", "openid").Access
	r.Get("before", "/agents").Want(t, "RS256", 200)
	k.attribute(t, "access.token.signed.response.alg", "ES256")
	defer k.attribute(t, "access.token.signed.response.alg", "RS256")
	r.Tokens["after"] = k.user(t, "ann", "openid").Access
	if header, _ := claims(t, r.Tokens["after"]); header["alg"] != "ES256" {
		t.Fatalf("the client did not switch: %v", header)
	}
	settles(t, r, "after", 200)
	r.Get("before", "/agents").Want(t, "RS256", 200)
}

func (k keycloak) rotation(t *testing.T) {
	r, _ := identityOS(t, k.entries(t))
	r.Tokens["before"] = k.user(t, "ann", "openid").Access
	r.Get("before", "/agents").Want(t, "the first key", 200)
	k.admin(t, "POST", "/acme/components", `{"name": "next", "providerId": "rsa-generated",
		"providerType": "org.keycloak.keys.KeyProvider", "parentId": "`+k.realmID(t)+`", "config": {"priority": ["200"]}}`)
	r.Tokens["after"] = k.user(t, "ann", "openid").Access
	first, _ := claims(t, r.Tokens["before"])
	second, _ := claims(t, r.Tokens["after"])
	if first["kid"] == second["kid"] {
		t.Fatalf("the same key signs: %v", first)
	}
	settles(t, r, "after", 200)
	r.Get("before", "/agents").Want(t, "the first key", 200)
}

func (k keycloak) realmID(t *testing.T) string {
	t.Helper()
	var realm struct{ ID string }
	if err := json.Unmarshal([]byte(k.admin(t, "GET", "/acme", "")), &realm); err != nil {
		t.Fatal(err)
	}
	return realm.ID
}
