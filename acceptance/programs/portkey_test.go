package programs

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "Portkey's gateway of models", name: "portkey", pkgs: []string{"@portkey-ai/gateway"},
	tried: "`openai` with the gateway's `headers`: whole runs with two tool calls, history and a " +
		"confirmation; a missing header",
	not:  "this version answers each streamed request with 500; the run ends with RunError",
	date: "2026-11-29",
})

func TestAgentsRunThroughPortkeysGateway(t *testing.T) {
	t.Parallel()
	dir := program(t, "portkey")
	address, port := freeAddress(t)
	script := filepath.Join(dir, "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
	gateway := launch(t, nil, "node", script, "--headless", "--port="+port)
	gateway.awaitHTTP(t, "http://"+address)
	backend := modeltest.NewServerFunc(t, twoCalls)
	const agent = `, model: {provider: openai, id: scripted, ` +
		`headers: {x-portkey-provider: openai, x-portkey-custom-host: "${BACKEND_URL}"}}, ` +
		`tools: [look_up, delete_account], add_history_to_context: true}`
	r := serve(t, "agents:\n  - {id: assistant"+agent+"\n  - {id: without"+
		strings.Replace(agent, "x-portkey-provider: openai, ", "", 1)+"\n", nil,
		"OPENAI_BASE_URL", "http://"+address+"/v1", "OPENAI_API_KEY", "sk-backend", "BACKEND_URL", backend.URL)

	ask(t, r, "assistant", "s", false, "two calls").
		want(t, "two calls", "COMPLETED", "cake, for admin; tea, for admin", "stub: two calls")
	ask(t, r, "assistant", "s", false, "history?").want(t, "history", "COMPLETED", "", "history: 1 user turns: two calls")
	paused := ask(t, r, "assistant", "s", false, `call tool delete_account {"id": 7}`)
	if paused.Status != "PAUSED" {
		t.Fatalf("the run: %+v", paused)
	}
	confirm(t, r, "assistant", "s", false, paused).
		want(t, "continued", "COMPLETED", "account 7 is gone", "tool delete_account returned: account 7 is gone")
	ask(t, r, "without", "t", false, "hi").
		want(t, "without the header", "ERROR", "", "x-portkey-provider header is required")
	// The gateway's own fault. A version without it fails here: then try the rest streamed too.
	ask(t, r, "assistant", "u", true, "hi").want(t, "streamed", "ERROR", "", "Something went wrong")
}
