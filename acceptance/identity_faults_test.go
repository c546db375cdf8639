package acceptance

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// mistake is a token of an issuer, and what a request with it must be answered. Most were answered otherwise before
// tokens were read as their issuers mean them.
type mistake struct {
	name   string
	issuer string // the entry of mistakesYAML
	typ    string // of the header; "" leaves it out
	claims string // besides iss and sub, which are that of the entry and ann
	status int    // of POST /agents/web-search-agent/runs
	says   string
}

// mistakesYAML has one entry for each way to read a token, which its issuer selects.
const mistakesYAML = `
auth:
  algorithms: [RS256]
  keys:
    - {jwks_file: FILE, issuer: "https://default"}
    - {jwks_file: FILE, issuer: "https://scope", claims: {scopes: scope}}
    - {jwks_file: FILE, issuer: "https://path", claims: {scopes: {path: [realm_access, roles]}}}
    - {jwks_file: FILE, issuer: "https://split", claims: {scopes: {claim: permissions, split: true}}}
    - {jwks_file: FILE, issuer: "https://name", claims: {scopes: "https://keyway.example/scopes"}}
    - {jwks_file: FILE, issuer: "https://prefix", claims: {scopes: scope}, prefix: my-agent-os/}
    - {jwks_file: FILE, issuer: "https://both", claims: {scopes: [scp, roles]}}
    - jwks_file: FILE
      issuer: "https://roles"
      claims: {roles: groups}
      grants:
        /web-users: ["agents:web-search-agent:run"]
        WebSearch.User: ["agents:web-search-agent:run"]
        6d5a1b9c-3f0e-4a59-8a43-5f0b7f2d9c11: ["agents:web-search-agent:run"]
        ann@example.org: ["agents:web-search-agent:run"]
    - {jwks_file: FILE, issuer: "https://audience", audience: [app]}
    - {jwks_file: FILE, issuer: "https://accepting", accept: [id_token, bound]}
    - {jwks_file: FILE, issuer: "https://clients", clients: [web, mobile]}
    - {jwks_file: FILE, issuer: ["https://spelled", spelled]}
`

const webRun = `"agents:web-search-agent:run"`

// mistakes are numbered as the faults that real issuers showed.
var mistakes = []mistake{
	// 1: a text called scope or scp is a list.
	{"scope of one", "scope", "at+jwt", `"scope":"agents:web-search-agent:run"`, 200, ""},
	{"scope of four", "scope", "JWT", `"scope":"agents:web-search-agent:run agents:read profile email"`, 200, ""},
	{"scope with openid first", "scope", "JWT", `"scope":"openid agents:web-search-agent:run"`, 200, ""},
	{"scope with two spaces", "scope", "JWT", `"scope":" openid  agents:web-search-agent:run "`, 200, ""},
	{"scope with a tab", "scope", "JWT", `"scope":"openid\tagents:web-search-agent:run"`, 403, ""},
	{"scope as a list", "scope", "", `"scope":["agents:web-search-agent:run","agents:read"]`, 200, ""},
	{"scope as a list with a space", "scope", "", `"scope":["openid agents:web-search-agent:run"]`, 403, ""},
	{"scopes is not split", "default", "JWT", `"scopes":"openid agents:web-search-agent:run"`, 403, ""},
	{"a claim that is split on request", "split", "JWT", `"permissions":"openid agents:web-search-agent:run"`, 200, ""},

	// 2: a path, and a name with slashes.
	{"nested roles", "path", "JWT", `"realm_access":{"roles":["offline_access",` + webRun + `]}`, 200, ""},
	{"a claim with the path as its name", "path", "JWT", `"realm_access.roles":[` + webRun + `]`, 403, ""},
	{"a claim that is a URL", "name", "JWT", `"https://keyway.example/scopes":[` + webRun + `]`, 200, ""},

	// 3: groups of any form grant through grants, and never by their name.
	{"a group with a slash", "roles", "JWT", `"groups":["/web-users"]`, 200, ""},
	{"a role with a dot", "roles", "JWT", `"groups":["WebSearch.User"]`, 200, ""},
	{"a group's GUID", "roles", "JWT", `"groups":["6d5a1b9c-3f0e-4a59-8a43-5f0b7f2d9c11"]`, 200, ""},
	{"an address", "roles", "JWT", `"groups":"ann@example.org"`, 200, ""},
	{"a group named like a scope", "roles", "JWT", `"groups":[` + webRun + `]`, 403, ""},
	{"a group named like the administrator", "roles", "JWT", `"groups":["agent_os:admin"]`, 403, ""},

	// 4: a prefix.
	{"prefixed scopes", "prefix", "", `"scope":"openid my-agent-os/agents:web-search-agent:run"`, 200, ""},
	{"a scope without the prefix", "prefix", "", `"scope":"agents:web-search-agent:run"`, 403, ""},
	{"another prefix", "prefix", "", `"scope":"other/agents:web-search-agent:run"`, 403, ""},

	// 5: claims of one entry; users and services of one issuer.
	{"a user's scp", "both", "JWT", `"scp":"profile agents:web-search-agent:run"`, 200, ""},
	{"a service's roles", "both", "JWT", `"roles":[` + webRun + `]`, 200, ""},
	{"the claim of another entry", "both", "JWT", `"scopes":[` + webRun + `]`, 403, ""},

	// 7: ID tokens.
	{"Keycloak's ID token", "default", "JWT", `"typ":"ID","azp":"app","scopes":[` + webRun + `]`, 401, "ID token"},
	{"Keycloak's ID token for the audience", "audience", "JWT", `"typ":"ID","aud":"app","scopes":[` + webRun + `]`, 401,
		"ID token"},
	{"Cognito's ID token", "default", "", `"token_use":"id","scopes":[` + webRun + `]`, 401, "ID token"},
	{"an ID token with at_hash", "default", "", `"at_hash":"x","aud":"app","scopes":[` + webRun + `]`, 401, "ID token"},
	{"an ID token with nonce", "default", "JWT", `"nonce":"x","aud":"app","scopes":[` + webRun + `]`, 401, "ID token"},
	{"a nonce in an access token", "default", "at+jwt", `"nonce":"x","scopes":[` + webRun + `]`, 200, ""},
	{"an ID token that is accepted", "accepting", "JWT", `"typ":"ID","scopes":[` + webRun + `]`, 200, ""},
	{"a logout token that nobody accepts", "accepting", "logout+jwt", `"scopes":[` + webRun + `]`, 401, ""},
	{"a type with its family, in capitals", "default", "Application/AT+JWT", `"scopes":[` + webRun + `]`, 200, ""},

	// 8: tokens that are bound to a key.
	{"a DPoP token as bearer", "default", "JWT", `"cnf":{"jkt":"x"},"scopes":[` + webRun + `]`, 401, "bound to a key"},
	{"a certificate-bound token", "default", "JWT", `"cnf":{"x5t#S256":"x"},"scopes":[` + webRun + `]`, 401,
		"bound to a key"},
	{"a bound token that is accepted", "accepting", "JWT", `"cnf":{"jkt":"x"},"scopes":[` + webRun + `]`, 200, ""},

	// 9: the client, for issuers without an audience.
	{"Cognito's client", "clients", "", `"client_id":"web","scopes":[` + webRun + `]`, 200, ""},
	{"another client of the pool", "clients", "", `"client_id":"other","scopes":[` + webRun + `]`, 401, "Invalid client"},
	{"Keycloak's client", "clients", "JWT", `"azp":"web","client_id":"mobile","scopes":[` + webRun + `]`, 200, ""},
	{"one of two clients", "clients", "JWT", `"azp":"other","client_id":"web","scopes":[` + webRun + `]`, 401, ""},
	{"Okta's client", "clients", "", `"cid":"web","scopes":[` + webRun + `]`, 200, ""},
	{"no client", "clients", "", `"scopes":[` + webRun + `]`, 401, ""},

	// 20: two spellings of one issuer.
	{"one spelling", "spelled", "JWT", `"scopes":[` + webRun + `]`, 200, ""},
	{"the other spelling", "spelled", "JWT", `"iss":"spelled","scopes":[` + webRun + `]`, 200, ""},
	{"a third spelling", "spelled", "JWT", `"iss":"https://spelled/","scopes":[` + webRun + `]`, 401, ""},

	// 24: what a client may ask for is not what a user may do.
	{"a scope that the client asked for, beside roles", "roles", "JWT",
		`"scope":"agents:web-search-agent:run","groups":["others"]`, 403, ""},
}

// serveMistakes starts keyway serve with mistakesYAML. Each issuer has a key of its own.
func serveMistakes(t *testing.T) (r *server, issuers map[string]localIssuer) {
	t.Helper()
	issuers = map[string]localIssuer{}
	yaml := regexp.MustCompile(`FILE(?:, |\n      )issuer: \[?"https://(\w+)"`).ReplaceAllStringFunc(mistakesYAML,
		func(entry string) string {
			i := newLocalIssuer(t, "")
			i.kid = strings.Trim(entry[strings.LastIndexByte(entry, '/'):], `/"`)
			i.publish(t)
			issuers[i.kid] = i
			return strings.Replace(entry, "FILE", i.file, 1)
		})
	return serveIdentity(t, yaml+identityAgents), issuers
}

func TestTokensOfRealIssuersAreReadAsTheyMeanThem(t *testing.T) {
	t.Parallel()
	r, issuers := serveMistakes(t)
	for _, m := range mistakes {
		claims := `{"iss":"https://` + m.issuer + `","sub":"ann",` + m.claims + "}"
		r.Tokens["ann"] = issuers[m.issuer].sign(t, m.typ, claims)
		r.Run("ann", "web-search-agent", "message", "hi", "stream", "false").Want(t, m.name, m.status, m.says)
	}
	// 8: as the client of a DPoP token sends it.
	bound := issuers["accepting"].sign(t, "JWT", `{"iss":"https://accepting","sub":"ann","cnf":{"jkt":"x"}}`)
	r.Call("-", "GET", "/agents", nil, "Authorization", "DPoP "+bound).Want(t, "the scheme DPoP", 401)
}

// Fault 20: one set of users.
func TestSpellingsOfAnIssuerHaveTheSameUsers(t *testing.T) {
	t.Parallel()
	r, issuers := serveMistakes(t)
	const scopes = `"sub":"ann","scopes":["agents:web-search-agent:run","sessions:read"]}`
	r.Tokens["one"] = issuers["spelled"].sign(t, "JWT", `{"iss":"https://spelled",`+scopes)
	r.Tokens["other"] = issuers["spelled"].sign(t, "JWT", `{"iss":"spelled",`+scopes)
	r.Run("one", "web-search-agent", "message", "hi", "stream", "false", "session_id", "mine").Want(t, "a run", 200)
	r.Get("other", "/sessions?type=agent").Want(t, "the other spelling", 200, `"total_count":1`, `"mine"`)
	r.Tokens["another"] = issuers["default"].sign(t, "JWT", `{"iss":"https://default",`+scopes)
	r.Get("another", "/sessions?type=agent").Want(t, "another issuer's ann", 200, `"total_count":0`)
}

// Fault 19, and the warning of fault 2.
func TestConfigCheckWarnsOfKeysForAllServicesAndOfDottedNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	i, file := newLocalIssuer(t, ""), filepath.Join(dir, "keyway.yaml")
	for _, keys := range []string{"{jwks_file: " + i.file + "}", string(must(json.Marshal(i.forge.verifies)))} {
		yaml := "auth:\n  algorithms: [RS256]\n  claims: {scopes: realm_access.roles}\n  keys: [" + keys + "]\n"
		if err := os.WriteFile(file, []byte(yaml+identityAgents), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := process.Keyway.Command(t, nil, "config", "check", "--config", file)
		out, err := cmd.CombinedOutput()
		for _, want := range []string{"auth.keys[0]: accepts tokens that its issuer made for other services",
			`is the claim with the name "realm_access.roles", dots included`, "{path: [realm_access, roles]}"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: no %q in %s", err, want, out)
			}
		}
	}
}

// Fault 22.
func TestAnIssuerCanPublishManyKeys(t *testing.T) {
	t.Parallel()
	i := newLocalIssuer(t, "")
	var keys []string
	for range 59 {
		keys = append(keys, ecForge("ES256", newEC(elliptic.P256())).jwk)
	}
	set := `{"keys":[` + strings.Join(append(keys, i.forge.jwk), ",") + `]}`
	published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, set)
	}))
	t.Cleanup(published.Close)
	r := serveIdentity(t, "auth:\n  algorithms: [RS256, ES256]\n  keys: [{jwks_url: \""+published.URL+
		"\", http: true, clients: [web]}]\n"+identityAgents)
	r.Tokens["ann"] = i.sign(t, "JWT", `{"sub":"ann","azp":"web","scopes":["agents:read"]}`)
	r.Get("ann", "/agents").Want(t, "a token of the last of 60 keys", 200)
}

// testsOfFaults names the tests of each fault that real issuers showed.
var testsOfFaults = map[string]string{
	"1 a scope claim with spaces was one scope":            "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"2 no nested claim could be read":                      "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"3 no role or group could grant":                       "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"3 a mapping with a group had no place and no remedy":  "TestNotesNameTheEffectsThatAnOperatorMayNotExpect",
	"4 no prefix could be removed":                         "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"5 all issuers had to use the same claims":             "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"6 a second issuer renamed every owner":                "TestASecondIssuerLeavesEverybodysSessions",
	"7 ID tokens were accepted":                            "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"8 tokens that are bound to a key were accepted":       "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"9 tokens of any client were accepted":                 "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"10 absent scopes had no explanation":                  "TestTokenWithoutScopesSaysWhatItHasInstead",
	"11 a wrong issuer or audience was not named":          "TestRefusalAfterAGoodSignatureSaysWhatIsExpected",
	"12 a set without a usable key had no warning":         "TestUnusableKeysAreWarnedOf",
	"13 a key within the gap was refused":                  "TestTokenOfAKeyThatIsPublishedWithinTheGapIsNotRefused",
	"14 Ed25519 was no algorithm":                          "TestEd25519AndEdDSAAreOneAlgorithm",
	"15 no discovery":                                      "TestDiscoveryFindsTheKeysOfAnIssuer",
	"16 http inside a network was refused":                 "TestServeNamesTheRemedyForHTTP",
	"17 no CA could be given":                              "TestOnlyTheConfiguredCAIsTrusted",
	"18 a file of keys was read more strictly":             "TestUnsupportedKeysInASetAreIgnored",
	"19 a file of keys without audience had no warning":    "TestConfigCheckWarnsOfKeysForAllServicesAndOfDottedNames",
	"20 an issuer could not have two spellings":            "TestSpellingsOfAnIssuerHaveTheSameUsers",
	"21 encrypted and opaque tokens had no fitting hint":   "TestA401HasAChallengeAndAHint",
	"22 more than 20 keys locked everybody out":            "TestAnIssuerCanPublishManyKeys",
	"23 a token without a subject had no fitting hint":     "TestTokenWithoutSubjectNamesTheClaim",
	"24 a client's scope was taken for the user's":         "TestTokensOfRealIssuersAreReadAsTheyMeanThem",
	"24 real Keycloak: a scope needs a role":               "TestKeycloak",
	"the shapes of all tokens, two users, four requests":   "TestTheRecipesOfEachIssuerOpenTheRightDoors",
	"real issuers: users, roles, rotation, two issuers":    "TestUsersOfRealIssuersReachWhatTheirRolesGrant",
	"real issuers: ID, opaque and bound tokens":            "TestTokensOfRealIssuersThatAreNoAccessTokensAreRefused",
	"rotation and new issuers through the built functions": "TestDeployedFunctionsFollowRotationsAndNewIssuers",
}

func TestEachFaultOfRealIssuersHasATest(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for _, dir := range []string{".", "programs", "../functions", "../shared"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(readFile(t, path), -1) {
				declared[m[1]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	has := map[string]bool{}
	for fault, test := range testsOfFaults {
		number, _, _ := strings.Cut(fault, " ")
		if has[number] = true; !declared[test] {
			t.Errorf("%s: there is no test %s", fault, test)
		}
	}
	for n := 1; n <= 24; n++ {
		if !has[fmt.Sprint(n)] {
			t.Errorf("fault %d has no test", n)
		}
	}
}
