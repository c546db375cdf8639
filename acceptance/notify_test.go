package acceptance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestTheWebhookGetsEachPauseAndEnd(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	verifier, err := webhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(r.Body)
		if err == nil {
			err = verifier.Verify(payload, r.Header)
		}
		if err != nil {
			t.Error(err)
		}
		received <- string(payload)
	}))
	t.Cleanup(hook.Close)
	model := modeltest.NewServer(t, modeltest.ToolCall("transfer", `{"account":"SECRET"}`), modeltest.Text("SECRET"))
	config := writeConfig(t, "user_isolation: true", "transfer")
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(text, "notify: {url: \"%s\", secret: \"${HOOK_SECRET}\"}\n", hook.URL), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := startWith(t, process.WithTools, config, model, "HOOK_SECRET", secret)
	paused := r.Run("ann", "assistant", "message", "SECRET", "session_id", "s", "stream", "false")
	paused.Want(t, "the run", 200, `"status":"PAUSED"`)
	run := field(t, paused, "run_id")
	want := func(status string) {
		t.Helper()
		got := <-received
		for _, part := range []string{
			`"type":"run.` + strings.ToLower(status) + `"`, `"status":"` + status + `"`, `"run_id":"` + run + `"`,
			`"session_id":"s"`, `"agent_id":"assistant"`, `"user_id":"ann"`,
		} {
			if !strings.Contains(got, part) || strings.Contains(got, "SECRET") {
				t.Errorf("the webhook gets %s, want %s", got, part)
			}
		}
	}
	want("PAUSED")
	body, kind := process.Form(t, "session_id", "s", "stream", "false", "tools",
		fmt.Sprintf(`[{"tool_call_id":%q,"confirmed":true}]`, transfers(t, paused)["SECRET"].ID))
	r.Call("ann", "POST", "/agents/assistant/runs/"+run+"/continue", body, "Content-Type", kind).
		Want(t, "continued", 200, `"status":"COMPLETED"`)
	want("COMPLETED")
}
