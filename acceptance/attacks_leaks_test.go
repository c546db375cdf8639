package acceptance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// traffic records the requests that a server receives.
type traffic struct {
	mu   sync.Mutex
	text []string
}

// proxy starts a server that records each request before next answers it.
func (o *traffic) proxy(t *testing.T, next http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dump, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		o.mu.Lock()
		o.text = append(o.text, string(dump))
		o.mu.Unlock()
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// checkLacks fails if no request was recorded, or if a request contains one of the words.
func (o *traffic) checkLacks(t *testing.T, receiver string, words ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	all := strings.Join(o.text, "\n")
	if len(o.text) == 0 {
		t.Errorf("%s received no request", receiver)
	}
	for _, word := range words {
		if strings.Contains(all, word) {
			t.Errorf("%s received %q:\n%s", receiver, word, all)
		}
	}
}

// Neither the model nor a tool receives the caller's token, whatever arguments the model
// sends. The log contains neither the token nor the text of the conversation.
func TestCallersTokenReachesNeitherModelNorToolNorLog(t *testing.T) {
	t.Parallel()
	const subject, prompt, found = "ann-marie@example.org", "hydrangea", "delphinium"
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch last := lastMessage(r); {
		case strings.Contains(last, found):
			return modeltest.Text("The tool says: ", last)
		case strings.Contains(last, "unexpected additional properties"): // user_id and the others were rejected
			return modeltest.ToolCall("web_search", `{"query":"news"}`)
		}
		return modeltest.ToolCall("web_search",
			`{"query":"news","user_id":"bob","session_id":"bobs","authorization":"Bearer x"}`)
	})
	var toModel, toTool traffic
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<div class="result__body"><a class="result__a" href="https://example.org/">%s</a></div>`, found)
	})
	toVendor := httputil.NewSingleHostReverseProxy(must(url.Parse(strings.TrimSuffix(model.URL, "/v1"))))
	r := start(t, writeConfig(t, "user_isolation: true", "websearch"), model, "OPENAI_BASE_URL",
		toModel.proxy(t, toVendor)+"/v1", "WEBSEARCH_BASE_URL", toTool.proxy(t, page))
	token := hmacForge("HS256", config.PublishedSecret).token(payload("sub", `"`+subject+`"`))
	r.Tokens["marie"] = token
	r.Run("marie", "assistant", "message", prompt, "session_id", "s-1", "stream", "false").
		Want(t, "run", 200, found, `"user_id":"`+subject+`"`)
	r.Run("marie", "assistant", "message", "", "stream", "false").Want(t, "a bad run", 422)
	r.Run("marie", "nobody", "message", prompt).Want(t, "no such agent", 404)
	r.Get("marie", "/sessions?session_name="+prompt).Want(t, "the session", 200, prompt)
	r.Tokens["forged"] = attacker("HS256").token(payload("sub", `"`+subject+`"`))
	r.Get("forged", "/sessions").Want(t, "a forged token", 401)

	parts := append(strings.Split(token, "."), strings.Split(r.Tokens["forged"], ".")...)
	toModel.checkLacks(t, "the model", append(parts, subject)...)
	toTool.checkLacks(t, "the tool", append(parts, subject, "s-1", "bobs", "sk-test")...)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	log := r.Stderr.String()
	for _, word := range append(parts, subject, prompt, found, config.PublishedSecret, "sk-test") {
		if strings.Contains(log, word) {
			t.Errorf("the log contains %q:\n%s", word, log)
		}
	}
	if strings.Count(log, "\n") < 5 {
		t.Errorf("the log has no line for each request:\n%s", log)
	}
}

// Each issuer has its own users: "ann" of one issuer is not "ann" of another.
func TestSameSubjectOfAnotherIssuerIsAnotherUser(t *testing.T) {
	t.Parallel()
	ours, theirs := rsaForge("RS256", issuerRSA()), rsaForge("RS256", attackerRSA())
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ours.json": `{"keys":[` + ours.jwk + `]}`, "theirs.json": `{"keys":[` + theirs.jwk + `]}`,
		"keyway.yaml": `{id: fort, agents: [{id: a, model: "openai:model-a"}], auth: {algorithms: [RS256], keys: [
			{jwks_file: ours.json, issuer: "https://ours"}, {jwks_file: theirs.json, issuer: "https://theirs"}]}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, filepath.Join(dir, "keyway.yaml"), echoModel(t))
	scopes := `["agents:read","agents:run","sessions:read","sessions:write","sessions:delete",` +
		`"memories:read","memories:write","memories:delete"]`
	r.Tokens = map[string]string{
		"ann":   ours.token(payload("iss", `"https://ours"`, "scopes", scopes)),
		"other": theirs.token(payload("iss", `"https://theirs"`, "scopes", scopes)),
		// A subject that imitates the stored form "issuer#subject" is still a subject.
		"imitating subject": theirs.token(payload("iss", `"https://theirs"`, "scopes", scopes, "sub", `"https://ours#ann"`)),
		"wrong issuer":      theirs.token(payload("iss", `"https://ours"`, "scopes", scopes)),
		"no issuer":         theirs.token(payload("scopes", scopes)),
		"long": theirs.token(payload("iss", `"https://theirs"`, "scopes", scopes, "sub",
			`"`+strings.Repeat("x", 1020)+`"`)),
	}
	id := field(t, r.Run("ann", "a", "message", private, "session_id", "hers", "stream", "false"), "run_id")
	memory := field(t, r.json("ann", "POST", "/memories", `{"memory":"`+private+`"}`), "memory_id")
	for _, who := range []string{"other", "imitating subject"} {
		for path, status := range map[string]int{
			"/sessions": 200, "/sessions?user_id=ann": 200, "/sessions?user_id=https://ours%23ann": 200, "/sessions/hers": 404,
			"/sessions/hers/runs?user_id=https://ours%23ann": 404,
			"/agents/a/runs/" + id + "?session_id=hers":      404, "/memories": 200, "/memories/" + memory: 404,
		} {
			got := r.Get(who, path)
			got.Want(t, who+": "+path, status)
			if strings.Contains(got.Body, private) {
				t.Errorf("%s: %s: %s", who, path, got.Body)
			}
		}
		r.Call(who, "DELETE", "/sessions/hers", nil).Want(t, "delete", 204)
		r.Call(who, "DELETE", "/memories/"+memory, nil).Want(t, "delete", 204)
		r.Run(who, "a", "message", "mine", "session_id", "hers", "stream", "false").
			Want(t, "a session of the same name for the other user", 200)
	}
	for _, who := range []string{"wrong issuer", "no issuer"} {
		r.Get(who, "/sessions").Want(t, who, 401)
	}
	for _, path := range []string{"/sessions", "/memories"} {
		r.Get("long", path).Want(t, "issuer and subject longer than a column", 403, "longer than")
	}
	r.Get("ann", "/sessions/hers/runs").Want(t, "hers", 200, private)
	r.Get("ann", "/memories/"+memory).Want(t, "hers", 200, private)
}

// AgentOS trusts $JWT_VERIFICATION_KEY even if its configuration doesn't name it. Keyway
// trusts only the keys that keyway.yaml names.
func TestKeyNotNamedInConfigIsNotTrusted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(file,
		[]byte(`{id: fort, agents: [{id: a, model: "openai:model-a"}], auth: {keys: ["${OTHER_KEY}"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, file, echoModel(t), "JWT_VERIFICATION_KEY", issuerSecret, "OTHER_KEY", strings.Repeat("other ", 6))
	r.Tokens = map[string]string{"named": hmacForge("HS256", strings.Repeat("other ", 6)).token(payload()),
		"stray": hmacForge("HS256", issuerSecret).token(payload())}
	r.Get("named", "/agents").Want(t, "the key that the file names", 200)
	r.Get("stray", "/agents").Want(t, "a key of the environment", 401, badSignature)
}
