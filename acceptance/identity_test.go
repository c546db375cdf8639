package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

var update = flag.Bool("update", false, "write docs/identity.md again")

// identityAgents are the agents of the recipes in docs/identity.md.
const identityAgents = "\nid: identity\nagents:\n  - {id: web-search-agent, model: \"demo:x\"}\n" +
	"  - {id: finance-agent, model: \"demo:x\"}\n"

// localIssuer signs tokens with a key of its own, which file publishes.
type localIssuer struct {
	file  string
	forge forge
	kid   string // of the key; "" publishes none
}

// newLocalIssuer makes an issuer whose tokens are signed with ES256 if the configuration wants it, else with RS256.
func newLocalIssuer(t *testing.T, yaml string) localIssuer {
	t.Helper()
	i := localIssuer{file: filepath.Join(t.TempDir(), "keys.json"), forge: rsaForge("RS256", issuerRSA())}
	if strings.Contains(yaml, "algorithms: [ES256]") {
		i.forge = ecForge("ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	}
	i.publish(t)
	return i
}

// publish writes the file.
func (i localIssuer) publish(t *testing.T) {
	t.Helper()
	jwk := i.forge.jwk
	if i.kid != "" {
		jwk = fmt.Sprintf(`{"kid":%q,`, i.kid) + jwk[1:]
	}
	if err := os.WriteFile(i.file, []byte(`{"keys":[`+jwk+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
}

// typs are the headers' typ by issuer. The others send none.
var typs = map[string]string{"Keycloak": "JWT", "Auth0": "at+jwt", "Entra ID": "JWT", "oidc-provider": "at+jwt",
	"Google": "JWT", "Firebase": "JWT", "Supabase": "JWT"}

// sign returns a token with these claims, issued now and valid for an hour.
func (i localIssuer) sign(t *testing.T, typ, claims string) string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(claims), &o); err != nil {
		t.Fatalf("%v in %s", err, claims)
	}
	o["iat"], o["exp"] = time.Now().Unix(), time.Now().Add(time.Hour).Unix()
	header := map[string]string{"alg": i.forge.alg}
	for name, value := range map[string]string{"typ": typ, "kid": i.kid} {
		if value != "" {
			header[name] = value
		}
	}
	return i.forge.jws(string(must(json.Marshal(header))), string(must(json.Marshal(o))))
}

// asBob is ann's token with bob in her place: another subject, address and role.
func asBob(claims string) string {
	return strings.NewReplacer("ann", "bob", "Ann", "Bob", "web-users", "finance",
		`"permissions": ["agents:web-search-agent:read", "agents:web-search-agent:run"`,
		`"permissions": ["agents:finance-agent:read", "agents:finance-agent:run"`).Replace(claims)
}

// serveIdentity starts keyway serve, not for development, with the text as its keyway.yaml.
func serveIdentity(t *testing.T, yaml string) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, process.Keyway, map[string]string{"DATABASE_URL": storetest.EmptyURL(t)}, "--config", file,
		"--data", t.TempDir())
	r.URL = r.AwaitLog(`serves \S+ at (http://\S+)`)[1]
	r.Tokens = map[string]string{}
	return r
}

// Tokens of the shapes of docs/identity.md, two users, and four requests: the own agent, the other agent, the list of
// agents, the sessions. The configuration is that of the page.
func TestTheRecipesOfEachIssuerOpenTheRightDoors(t *testing.T) {
	t.Parallel()
	for _, recipe := range process.Recipes(t) {
		t.Run(recipe.Issuer, func(t *testing.T) {
			t.Parallel()
			i := newLocalIssuer(t, recipe.YAML)
			r := serveIdentity(t, recipe.WithKeys(i.file)+identityAgents)
			typ := typs[recipe.Issuer]
			r.Tokens["ann"] = i.sign(t, typ, recipe.Tokens[0])
			r.Tokens["bob"] = i.sign(t, typ, asBob(recipe.Tokens[0]))
			own := map[string]string{"ann": "web-search-agent", "bob": "finance-agent"}
			other := map[string]string{"ann": "bob", "bob": "ann"}
			for who := range own {
				r.Run(who, own[who], "message", "hi", "stream", "false", "session_id", "of-"+who).
					Want(t, who+" runs the own agent", 200, `"session_id":"of-`+who+`"`)
				r.Run(who, own[other[who]], "message", "hi", "stream", "false").
					Want(t, who+" runs the other agent", 403, `"missing":["agents:`+own[other[who]]+`:run"]`)
				if got := r.Get(who, "/agents").IDs(t); got != own[who] {
					t.Errorf("%s lists %q", who, got)
				}
			}
			for who := range own {
				r.Get(who, "/sessions?type=agent").Want(t, who+" lists sessions", 200, `"total_count":1`, `"of-`+who+`"`)
				r.Get(who, "/sessions/of-"+other[who]+"?type=agent").Want(t, who+" reads the other's session", 404)
			}
			if len(recipe.Tokens) > 1 {
				r.Tokens["svc"] = i.sign(t, typ, recipe.Tokens[1])
				r.checkService(t)
			}
		})
	}
}

// checkService checks a token whose scopes are agents:web-search-agent:run and agents:read.
func (r *server) checkService(t *testing.T) {
	t.Helper()
	r.Run("svc", "web-search-agent", "message", "hi", "stream", "false").Want(t, "the service runs its agent", 200)
	r.Run("svc", "finance-agent", "message", "hi").Want(t, "the service runs the other agent", 403)
	if got := r.Get("svc", "/agents").IDs(t); got != "web-search-agent finance-agent" {
		t.Errorf("the service lists %q", got)
	}
	r.Get("svc", "/sessions?type=agent").Want(t, "the service lists sessions", 403, `"missing":["sessions:read"]`)
}

func TestEachSnippetOfTheIdentityPageIsAValidConfiguration(t *testing.T) {
	t.Parallel()
	for _, recipe := range process.Recipes(t) {
		if _, err := yamlfile.Parse(recipe.Issuer, []byte(recipe.YAML+identityAgents), config.Options{}); err != nil {
			t.Errorf("%s: %v", recipe.Issuer, err)
		}
	}
}

// printed is a token of docs/identity.md, and what whoami prints about it.
var printed = regexp.MustCompile("(?s)\n```json\n(.*?)```\n(?:\n```text\n.*?```\n)?")

// The page shows what keyway whoami prints about its tokens, without the time of expiry. make generate writes it.
func TestTheIdentityPageShowsWhatWhoamiPrints(t *testing.T) {
	t.Parallel()
	file := process.Path("docs/identity.md")
	page := readFile(t, file)
	sections := strings.Split(page, "\n## ")
	for n, recipe := range process.Recipes(t) {
		dir := t.TempDir()
		i := newLocalIssuer(t, recipe.YAML)
		keywayYAML := filepath.Join(dir, "keyway.yaml")
		if err := os.WriteFile(keywayYAML, []byte(recipe.WithKeys(i.file)+identityAgents), 0o600); err != nil {
			t.Fatal(err)
		}
		names := []string{"ann", "service"}
		sections[n+1] = printed.ReplaceAllStringFunc(sections[n+1], func(block string) string {
			claims, who := printed.FindStringSubmatch(block)[1], names[0]
			names = names[1:]
			out := process.Keyway.Prints(t, nil, "--config", keywayYAML, "whoami", "--token",
				i.sign(t, typs[recipe.Issuer], claims))
			out = regexp.MustCompile(`(?m)^(expires|issued) .*\n`).ReplaceAllString(out+"\n", "")
			out = strings.ReplaceAll(out, dir+"/", "")
			return "\n```json\n" + claims + "```\n\n```text\n$ keyway whoami --token @" + who + ".jwt\n" + out + "```\n"
		})
	}
	switch want := strings.Join(sections, "\n## "); {
	case *update:
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	case want != page:
		t.Error("docs/identity.md differs from what whoami prints: run make generate")
	}
}
