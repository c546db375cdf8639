package acceptance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// newsServer answers every web search with one result, in the HTML of DuckDuckGo.
func newsServer(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<div class="result__body"><a class="result__a" href="https://example.org/">News of %s</a></div>`,
			r.FormValue("q"))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documentTokens returns the tokens of the document's two callers, signed by keyway token.
func documentTokens(t *testing.T, vars map[string]string, file string) map[string]string {
	t.Helper()
	token := func(sub, session, scopes string) string {
		return process.Keyway.Prints(t, vars, "token", "--config", file, "--sub", sub, "--session", session,
			"--scopes", scopes, "--ttl", "24h")
	}
	return map[string]string{
		"user_123":  token("user_123", "session_456", "agents:read,agents:run"),
		"admin_789": token("admin_789", "admin_session_123", "agent_os:admin"),
	}
}

// checkDocument checks every promise of the document.
func (r *server) checkDocument(t *testing.T, what string) {
	t.Helper()
	const agent = "research-agent"
	for sub, session := range map[string]string{"user_123": "session_456", "admin_789": "admin_session_123"} {
		if got := r.Get(sub, "/agents").IDs(t); got != agent {
			t.Errorf("%s: %s lists %q", what, sub, got)
		}
		// The session in the token wins over the session in the form.
		r.Run(sub, agent, "message", "Search for latest AI news", "session_id", "another", "stream", "false").
			Want(t, what+": "+sub+" runs", 200,
				`"session_id":"`+session+`"`, "The tool says: ", "News of latest AI news")
	}
	// "agent_os:admin - full access". The user has only two scopes.
	r.Get("admin_789", "/sessions/session_456?user_id=user_123").
		Want(t, what+": the administrator reads the user's session", 200)
	r.Get("user_123", "/sessions").Want(t, what+": the user lists sessions", 403, `"missing":["sessions:read"]`)
	r.Get("user_123", "/config").Want(t, what+": the user reads the config", 403)
	r.Get("-", "/agents").Want(t, what+": nobody lists agents", 401)
}

func newsModel(t *testing.T) *modeltest.Server {
	t.Helper()
	return toolCallingModel(t, "web_search", `{"query":"latest AI news"}`)
}

// "Set JWT_SIGNING_KEY and JWT_VERIFICATION_KEY environment variables".
func TestDocumentBasicRBACAsymmetric(t *testing.T) {
	t.Parallel()
	const example = "basic-rbac-asymmetric"
	keys := map[string]string{
		"JWT_VERIFICATION_KEY": readFile(t, "testdata/rs256-test-public.pem"),
		"JWT_SIGNING_KEY":      readFile(t, "testdata/rs256-test-private.pem"),
	}
	r := start(t, example, newsModel(t), "JWT_VERIFICATION_KEY", keys["JWT_VERIFICATION_KEY"],
		"WEBSEARCH_BASE_URL", newsServer(t))
	r.checkDocument(t, "tokens of PyJWT")
	r.Tokens = documentTokens(t, keys, filepath.Join("..", "examples", example, "keyway.yaml"))
	r.checkDocument(t, "tokens of keyway token")
	r.Tokens["other"] = process.PyJWT(t, "quickstart")["admin"]
	r.Get("other", "/agents").Want(t, "an HS256 token", 401)
}

// "Or generate keys": keyway writes a file and keeps it if it already exists.
func TestDocumentBasicRBACAsymmetricWithAKeyFile(t *testing.T) {
	t.Parallel()
	file := copyExample(t, "basic-rbac-asymmetric", "keyway-with-key-file.yaml")
	keys := filepath.Join(filepath.Dir(file), "keys.json")
	generate := func() string {
		process.Keyway.Prints(t, nil, "keys", "generate", "--alg", "RS256", "--out", keys)
		return readFile(t, keys)
	}
	if first := generate(); generate() != first {
		t.Error("the key file was generated again")
	}
	r := start(t, file, newsModel(t), "WEBSEARCH_BASE_URL", newsServer(t))
	r.Tokens = documentTokens(t, nil, file)
	r.checkDocument(t, "keys of a file")
	r.Tokens = process.PyJWT(t, "basic-rbac-asymmetric")
	r.Get("admin_789", "/agents").Want(t, "a token of another key", 401)
}

// "Generate keys at runtime for testing", with persistence across reloads.
func TestDocumentBasicRBACAsymmetricInDevelopment(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "basic-rbac-asymmetric")
	vars := map[string]string{"DATABASE_URL": storetest.EmptyURL(t), "OPENAI_BASE_URL": newsModel(t).URL,
		"WEBSEARCH_BASE_URL": newsServer(t)}
	var tokens map[string]string
	for range 2 { // the second server accepts the tokens of the first
		r := d.serve(t, vars)
		if tokens == nil {
			tokens = map[string]string{}
			for sub, scopes := range map[string]string{"user_123": "agents:read,agents:run", "admin_789": "agent_os:admin"} {
				session := map[string]string{"user_123": "session_456", "admin_789": "admin_session_123"}[sub]
				tokens[sub] = process.Keyway.Prints(t, nil,
					"token", "--config", d.config(), "--data", d.data(), "--sub", sub, "--session",
					session, "--scopes", scopes)
			}
		}
		r.Tokens = tokens
		r.checkDocument(t, "keys of --dev")
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
}
