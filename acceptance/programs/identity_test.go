package programs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

var _ = tried(entry{
	program: "oidc-provider, an issuer", name: "oidc-provider", pkgs: []string{"oidc-provider"},
	tried: "tokens of services (`scope`) and of two users who log in (`roles` through grants), a new key, a second " +
		"issuer that is added while the server runs and has a user of the same name, a revocation; ID tokens, " +
		"opaque tokens and tokens bound to a key are refused",
	not:  "its access tokens are opaque unless the client asks for a resource: see [identity.md](identity.md)",
	date: "2026-11-29",
})

var _ = tried(entry{
	program: "Spring Authorization Server, an issuer", name: "spring-authorization-server",
	pkgs:  []string{"spring-security-oauth2-authorization-server"},
	tried: "the same, as the second issuer beside oidc-provider",
	not:   "the audience of its tokens is the client's id",
	date:  "2026-11-29",
})

// oidcProvider starts an issuer made of npm's oidc-provider.
func oidcProvider(t *testing.T) issuer {
	t.Helper()
	dir := program(t, "oidc-provider")
	address, port := freeAddress(t)
	launch(t, nil, "node", "testdata/oidc-provider/server.mjs", dir, port).awaitHTTP(t, "http://"+address+"/jwks")
	return issuer{name: "node", nonce: "n", recipe: "oidc-provider", url: "http://" + address,
		authorize: "/auth", token: "/token", keys: "http://" + address + "/jwks", resource: "urn:keyway"}
}

// spring starts an issuer made of Spring Authorization Server.
func spring(t *testing.T) issuer {
	t.Helper()
	dir := program(t, "spring-authorization-server")
	address, port := freeAddress(t)
	const source = "testdata/spring-authorization-server/Issuer.java" // Java compiles it
	launch(t, nil, "java", "-cp", filepath.Join(dir, "lib", "*"), source, port).
		awaitHTTP(t, "http://"+address+"/oauth2/jwks")
	return issuer{name: "spring", nonce: "n", recipe: "Spring Authorization Server", url: "http://" + address,
		authorize: "/oauth2/authorize", token: "/oauth2/token", keys: "http://" + address + "/oauth2/jwks"}
}

// entries are the entries of auth.keys of the recipe in docs/identity.md, with the issuer's real address.
func (i issuer) entries(t *testing.T) string {
	t.Helper()
	_, entries, _ := strings.Cut(process.RecipeOf(t, i.recipe).YAML, "\n  keys:")
	return strings.ReplaceAll(strings.TrimSuffix(entries, "\n"), "https://login.example.org",
		i.url+"\n      http: true")
}

// osConfig is a keyway.yaml of two agents, whose callers have the tokens of these entries of auth.keys.
func osConfig(keys ...string) string {
	return "id: identity\nauth:\n  algorithms: [RS256, ES256, EdDSA]\n  keys:" + strings.Join(keys, "") + `
agents:
  - {id: web-search-agent, model: "demo:x"}
  - {id: finance-agent, model: "demo:x"}
`
}

// identityOS starts keyway serve --dev, which reloads the file when it changes.
func identityOS(t *testing.T, keys ...string) (r *process.Server, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "keyway.yaml")
	rewrite(t, file, keys...)
	db := storetest.EmptyURL(t)
	r = process.Serve(t, process.Keyway, map[string]string{"DATABASE_URL": db},
		"--dev", "--config", file, "--data", t.TempDir())
	r.DB = db
	r.URL = r.AwaitLog(`keyway \S+ at (http://\S+)`)[1]
	r.Tokens = map[string]string{}
	return r, file
}

// rewrite writes the file as editors do, by a new file under the old name.
func rewrite(t *testing.T, file string, keys ...string) {
	t.Helper()
	err := os.WriteFile(file+".new", []byte(osConfig(keys...)), 0o600)
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const svcScopes = "agents:web-search-agent:run agents:read"

const webScopes = "openid agents:web-search-agent:run agents:web-search-agent:read agents:read"

// checkUsers is checkUsersAsking for the scopes of web-search-agent, which must not help bob.
func (i issuer) checkUsers(t *testing.T, r *process.Server) {
	t.Helper()
	i.checkUsersAsking(t, r, webScopes)
}

// checkUsersAsking checks the table of two users by four requests: ann may use web-search-agent and bob finance-agent.
// scopes are what their client asks for.
func (i issuer) checkUsersAsking(t *testing.T, r *process.Server, scopes string) {
	t.Helper()
	for user, own := range map[string]string{"ann": "web-search-agent", "bob": "finance-agent"} {
		who, other := i.name+" "+user, "finance-agent"
		if user == "bob" {
			other = "web-search-agent"
		}
		r.Tokens[who] = i.user(t, user, scopes).Access
		r.Run(who, own, "message", "hi", "stream", "false", "session_id", i.name+"-"+user).
			Want(t, who+" runs the own agent", 200, `"COMPLETED"`)
		r.Run(who, other, "message", "hi", "stream", "false").
			Want(t, who+" runs the other agent", 403, `"missing":["agents:`+other+`:run"]`)
		if got := r.Get(who, "/agents").IDs(t); got != own {
			t.Errorf("%s lists %q", who, got)
		}
	}
	i.checkSessions(t, r)
}

// checkSessions checks that each user has one session, whatever other issuers have users of the same name.
func (i issuer) checkSessions(t *testing.T, r *process.Server) {
	t.Helper()
	for user, other := range map[string]string{"ann": "bob", "bob": "ann"} {
		who := i.name + " " + user
		r.Get(who, "/sessions?type=agent").Want(t, who+" lists sessions", 200, `"total_count":1`,
			`"session_id":"`+i.name+"-"+user+`"`)
		r.Get(who, "/sessions/"+i.name+"-"+other+"?type=agent").Want(t, who+" asks for the session of "+other, 404)
	}
}

// checkService checks a token of the client svc, which asks for these scopes, and whose scopes are read.
func (i issuer) checkService(t *testing.T, r *process.Server, scopes string) {
	t.Helper()
	who := i.name + " svc"
	r.Tokens[who] = i.service(t, scopes).Access
	r.Run(who, "web-search-agent", "message", "hi", "stream", "false").Want(t, who+" runs its agent", 200)
	r.Run(who, "finance-agent", "message", "hi", "stream", "false").Want(t, who+" runs the other agent", 403)
	if got := r.Get(who, "/agents").IDs(t); got != "web-search-agent finance-agent" {
		t.Errorf("%s lists %q", who, got)
	}
	r.Get(who, "/sessions?type=agent").Want(t, who+" lists sessions", 403, `"missing":["sessions:read"]`)
}

// refuses checks that a token is answered with 401.
func refuses(t *testing.T, r *process.Server, what, token, says string) {
	t.Helper()
	r.Tokens[what] = token
	r.Get(what, "/agents").Want(t, what, 401, says)
}

// settles checks the status for a token of a key that was unknown. Until the keys can be fetched again, the answers ask
// to come back. meanwhile are other statuses that it can have before.
func settles(t *testing.T, r *process.Server, who string, status int, meanwhile ...int) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for deadline := time.Now().Add(process.Patience); ; <-tick.C {
		got := r.Get(who, "/agents")
		if got.Status == status {
			return
		}
		again := got.Status == 503 && got.Header.Get("Retry-After") != "" || slices.Contains(meanwhile, got.Status)
		if !again || time.Now().After(deadline) {
			t.Fatalf("%s: %d %s", who, got.Status, got.Body)
		}
	}
}

// checkRotation checks that a new key needs no restart, and that tokens of the old key stay good while it is
// published.
func (i issuer) checkRotation(t *testing.T, r *process.Server) {
	t.Helper()
	who := i.name + " ann"
	post(t, i.url+"/rotate")
	r.Tokens[who+", new key"] = i.user(t, "ann", webScopes).Access
	before, _ := claims(t, r.Tokens[who])
	after, _ := claims(t, r.Tokens[who+", new key"])
	if before["kid"] == after["kid"] {
		t.Fatalf("%s signs with the same key %v", i.name, after["kid"])
	}
	settles(t, r, who+", new key", 200)
	r.Get(who, "/agents").Want(t, who+", old key", 200)
	r.Get(who+", new key", "/sessions?type=agent").Want(t, who+", new key", 200, `"total_count":1`)
}

func TestUsersOfRealIssuersReachWhatTheirRolesGrant(t *testing.T) {
	t.Parallel()
	node, java := oidcProvider(t), spring(t)
	r, file := identityOS(t, node.entries(t))
	node.checkUsers(t, r)
	node.checkService(t, r, svcScopes)

	r.Tokens["spring stranger"] = java.service(t, "agents:read").Access
	settles(t, r, "spring stranger", 401)
	rewrite(t, file, java.entries(t), node.entries(t))
	r.AwaitLog(`keyway\.yaml changed and is in force`)
	java.checkUsers(t, r)
	java.checkService(t, r, svcScopes)
	node.checkSessions(t, r)
	node.checkRotation(t, r)
	java.checkRotation(t, r)
	node.checkRevocation(t, r, file)
	r.Get("spring ann", "/sessions?type=agent").Want(t, "the other issuer's ann", 200, `"total_count":1`)
}

// checkRevocation checks that the tokens that ann has are refused after ten seconds, and her next one and bob's are
// not.
func (i issuer) checkRevocation(t *testing.T, r *process.Server, file string) {
	t.Helper()
	process.Keyway.Prints(t, map[string]string{"DATABASE_URL": r.DB}, "--config", file, "revoke", "--sub", "ann",
		"--issuer", i.url)
	settles(t, r, i.name+" ann", 401, 200)
	r.Get(i.name+" bob", "/agents").Want(t, "bob", 200)
	r.Tokens["next"] = i.user(t, "ann", webScopes).Access
	r.Get("next", "/sessions?type=agent").Want(t, "ann's next token", 200, `"total_count":1`)
}

// anyClient is an entry of auth.keys that takes the tokens of both clients, so that only the kind of a token can be the
// reason to refuse it. more are further lines.
func (i issuer) anyClient(more string) string {
	return "\n    - jwks_url: \"" + i.keys + "\"\n      issuer: \"" + i.url + "\"\n" +
		"      audience: [web, svc, urn:keyway]\n      claims: {roles: roles}\n" +
		"      grants: {web-users: [\"agents:read\"]}" + more
}

func TestTokensOfRealIssuersThatAreNoAccessTokensAreRefused(t *testing.T) {
	t.Parallel()
	node, java := oidcProvider(t), spring(t)
	strict, _ := identityOS(t, node.anyClient(""), java.anyClient(""))
	const accept = "\n      accept: [id_token, bound]"
	lax, _ := identityOS(t, node.anyClient(accept), java.anyClient(accept))
	for _, i := range []issuer{node, java} {
		bound := i.ask(t, "svc", i.dpop(t), "grant_type", "client_credentials", "scope", "agents:read")
		if _, payload := claims(t, bound.Access); bound.Type != "DPoP" || payload["cnf"] == nil {
			t.Errorf("%s sends no token that is bound to a key: %s %v", i.name, bound.Type, payload)
		}
		for says, token := range map[string]string{"bound to a key": bound.Access,
			"ID token": i.user(t, "ann", webScopes).ID} {
			refuses(t, strict, i.name+"'s token", token, says)
			lax.Tokens[says] = token
			lax.Get(says, "/sessions").Want(t, i.name+"'s token, if it is accepted: "+says, 403, `"missing":["sessions:read"]`)
		}
	}
	node.resource = ""
	refuses(t, strict, "oidc-provider's opaque token", node.service(t, "agents:read").Access, "")

	// Nothing marks this one. It grants nothing, because the issuer adds roles to access tokens only.
	java.nonce = ""
	strict.Tokens["unmarked"] = java.user(t, "ann", webScopes).ID
	strict.Get("unmarked", "/agents").Want(t, "Spring's ID token without a nonce", 403)
}
