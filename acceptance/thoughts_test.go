package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// thinkersFile has an agent for each API. All ask one server.
const thinkersFile = `id: quickstart
auth:
  keys: ["${JWT_VERIFICATION_KEY}"]
agents:
  - {id: chat, model: "openai:gemini-3-pro", tools: [transfer]}
  - {id: responses, model: "openai-responses:gpt-5.2", tools: [transfer]}
  - {id: messages, model: "anthropic:claude-sonnet-4-5", tools: [transfer]}
  - {id: converse, model: "bedrock:eu.anthropic.claude-sonnet-4-v1:0", tools: [transfer]}
`

// The marks that the servers require back unchanged with the result of a call.
const (
	googleMark = `data: {"choices":[{"index":0,"delta":{"tool_calls":[` +
		`{"index":0,"extra_content":{"google":{"thought_signature":"MARK"}}}]}}]}` + "\n\n"
	openAIMark = `data: {"type":"response.output_item.done","output_index":0,` +
		`"item":{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"MARK"}}` + "\n\n"
	anthropicMark = `data: {"type":"content_block_delta","index":0,` +
		`"delta":{"type":"signature_delta","signature":"MARK"}}` + "\n\n"
	bedrockPayload = `{"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"MARK"}}}`
)

// thinks answers with thoughts, a call and the API's mark, and then with "done".
func thinks(r modeltest.Request) modeltest.Script {
	sent, _ := json.Marshal(r.Body) // it was decoded from JSON
	if strings.Contains(string(sent), "to GOOD as") {
		return modeltest.Text("done")
	}
	thought, arguments := modeltest.Script{}.Thoughts("I ", "think"), `{"account":"GOOD"}`
	switch {
	case r.Path == "/v1/chat/completions":
		return thought.ToolCall("transfer", arguments).Raw(googleMark)
	case r.Path == "/v1/responses":
		return thought.Raw(openAIMark).ToolCall("transfer", arguments)
	case r.Path == "/v1/messages":
		return thought.Raw(anthropicMark).ToolCall("transfer", arguments)
	}
	return thought.Raw(modeltest.Frame("event", "contentBlockDelta", bedrockPayload)).ToolCall("transfer", arguments)
}

// A person decides about the call in another request, in which another process may continue the run.
func TestThoughtsAreShownAndTheirMarksSentBackAfterAPause(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, thinks)
	name := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(name, []byte(thinkersFile), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startWith(t, process.WithTools, name, model,
		"ANTHROPIC_BASE_URL", strings.TrimSuffix(model.URL, "/v1"), "ANTHROPIC_API_KEY", modeltest.APIKey,
		"AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model.URL, "AWS_DEFAULT_REGION", "eu-central-1",
		"AWS_ACCESS_KEY_ID", "AKIAMODELTEST0123456", "AWS_SECRET_ACCESS_KEY", modeltest.APIKey)
	for _, agent := range []string{"chat", "responses", "messages", "converse"} {
		paused := r.Run("admin", agent, "message", "hi", "session_id", agent)
		paused.Want(t, agent, 200, `"reasoning_content":"I "`, `"reasoning_content":"think"`, "event: RunPaused")
		if strings.Contains(paused.Body, "MARK") {
			t.Errorf("%s: the caller sees the mark: %s", agent, paused.Body)
		}
		before := len(model.Requests())
		continueRun(t, r, agent, paused.Body).Want(t, agent+", continued", 200, `"content":"done"`, `"status":"COMPLETED"`)
		sent, err := json.Marshal(model.Requests()[before].Body)
		if err != nil || !strings.Contains(string(sent), "MARK") || !strings.Contains(string(sent), "to GOOD as") {
			t.Errorf("%s: the request after the pause is %s", agent, sent)
		}
	}
}

func TestClientsOfOpenAIReadThoughts(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		return modeltest.Script{}.Thoughts("I ", "think").Text("so it is")
	}))
	for _, c := range []struct{ path, body, stream, text string }{
		{"/v1/chat/completions", `{"model":"assistant","messages":[{"role":"user","content":"hi"}]`,
			`"delta":{"reasoning_content":"think"}`, `"reasoning_content":"I think"`},
		{"/v1/responses", `{"model":"assistant","input":"hi"`,
			`"delta":"think"`, `"type":"reasoning","summary":[{"type":"summary_text","text":"I think"}]`},
	} {
		r.Call("admin", "POST", c.path, strings.NewReader(c.body+"}")).Want(t, c.path, 200, c.text, "so it is")
		r.Call("admin", "POST", c.path, strings.NewReader(c.body+`,"stream":true}`)).
			Want(t, c.path, 200, c.stream, "so it is")
		key := []string{"Idempotency-Key", "one" + c.path}
		r.Call("admin", "POST", c.path, strings.NewReader(c.body+"}"), key...).Want(t, c.path, 200)
		r.Call("admin", "POST", c.path, strings.NewReader(c.body+"}"), key...).Want(t, c.path+" again", 200, c.text)
	}
}

// continueRun confirms the calls of a run that paused in a stream, and returns the whole answer.
func continueRun(t *testing.T, r *server, agent, stream string) process.Reply {
	t.Helper()
	var paused struct {
		RunID string `json:"run_id"`
		Tools []execution
	}
	_, data, _ := strings.Cut(stream, "event: RunPaused\ndata: ")
	data, _, _ = strings.Cut(data, "\n")
	if err := json.Unmarshal([]byte(data), &paused); err != nil || len(paused.Tools) != 1 {
		t.Fatalf("%s: %v", data, err)
	}
	decision := fmt.Sprintf(`[{"tool_call_id":%q,"confirmed":true}]`, paused.Tools[0].ID)
	body, kind := process.Form(t, "session_id", agent, "stream", "false", "tools", decision)
	return r.Call("admin", "POST", "/agents/"+agent+"/runs/"+paused.RunID+"/continue", body, "Content-Type", kind)
}
