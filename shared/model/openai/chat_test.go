package openai_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// TestMain fails if a test leaves a goroutine running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestChatPassesTheSuiteForProviders(t *testing.T) {
	t.Parallel()
	modeltest.Run(t, modeltest.Provider{Open: func(baseURL string, client *http.Client) model.Model {
		return openai.NewChat(openai.Options{
			ID: "gpt-4o", BaseURL: baseURL, APIKey: modeltest.APIKey, HTTPClient: client,
		})
	}})
}

// open returns a chat model on srv. Its connections are closed when the test ends.
func open(t *testing.T, srv *modeltest.Server, o openai.Options) *openai.Chat {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	if o.ID == "" {
		o.ID = "gpt-4o"
	}
	o.BaseURL, o.HTTPClient = srv.URL, &http.Client{Transport: transport}
	if o.APIKey == "" {
		o.APIKey = modeltest.APIKey
	}
	return openai.NewChat(o)
}

// answerOf returns the answer to "hello" of a server with these scripts.
func answerOf(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	m := open(t, modeltest.NewServer(t, scripts...), openai.Options{})
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

func TestChatDescribeReturnsAgentOSNames(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "gpt-4o", Name: "OpenAIChat", Provider: "OpenAI", Family: "OpenAI Chat"}
	if diff := cmp.Diff(want, openai.NewChat(openai.Options{ID: "gpt-4o"}).Describe()); diff != "" {
		t.Error(diff)
	}
}

func TestARequestHasTheWholeConversation(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	m := open(t, srv, openai.Options{Temperature: new(0.0)})
	a := modeltest.Collect(t.Context(), t, m, model.Request{
		Messages: []model.Message{
			{Role: model.System, Content: "be <brief>"},
			{Role: model.User, Content: "weather?"},
			{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: "call_1", Name: "weather", Arguments: "{bad"}}},
			{Role: model.ToolRole, ToolCallID: "call_1", Content: ""},
			{Role: model.Assistant},
			{Role: model.User, Content: "thanks"},
		},
		Tools: []model.ToolSpec{
			{Name: "weather", Description: "current weather", Parameters: []byte(citySchema)},
			{Name: "now"},
		},
	})
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	type object = map[string]any
	want := object{
		"model": "gpt-4o", "temperature": 0.0, "stream": true, "stream_options": object{"include_usage": true},
		"messages": []any{
			object{"role": "system", "content": "be <brief>"},
			object{"role": "user", "content": "weather?"},
			object{"role": "assistant", "content": "", "tool_calls": []any{object{
				"id": "call_1", "type": "function", "function": object{"name": "weather", "arguments": "{}"},
			}}},
			object{"role": "tool", "tool_call_id": "call_1", "content": ""},
			object{"role": "assistant", "content": ""},
			object{"role": "user", "content": "thanks"},
		},
		"tools": []any{
			object{"type": "function", "function": object{
				"name": "weather", "description": "current weather",
				"parameters": object{"type": "object", "properties": object{"city": object{"type": "string"}}},
			}},
			object{"type": "function", "function": object{"name": "now"}},
		},
	}
	if diff := cmp.Diff(want, srv.Requests()[0].Body); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestEachPartHasTheProvidersIdentifiers(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Text("hel", "", "lo"))
	for _, p := range a.Parts {
		if got, want := string(p.ProviderData), `{"id":"chatcmpl-1","system_fingerprint":"fp_modeltest"}`; got != want {
			t.Errorf("provider data %s, want %s", got, want)
		}
	}
	if &a.Parts[0].ProviderData[0] != &a.Parts[3].ProviderData[0] {
		t.Error("the provider data is encoded anew for each part")
	}
}

// citySchema is a tool's schema for the tests of requests.
const citySchema = `{"type":"object","properties":{"city":{"type":"string"}}}`

// Not parallel: Setenv changes the environment of all tests.
func TestTheProcessEnvironmentIsNotRead(t *testing.T) {
	for name, value := range map[string]string{
		"OPENAI_API_KEY": "leaked", "OPENAI_ADMIN_KEY": "leaked", "OPENAI_BASE_URL": "http://127.0.0.1:1/leaked",
		"OPENAI_ORG_ID": "leaked", "OPENAI_PROJECT_ID": "leaked", "OPENAI_CUSTOM_HEADERS": "X-Leaked: leaked",
	} {
		t.Setenv(name, value)
	}
	for key, want := range map[string]string{"sk-mine": "Bearer sk-mine", "": ""} {
		var got *http.Request
		m := openai.NewChat(openai.Options{ID: "m", APIKey: key, HTTPClient: canned("data: [DONE]\n\n", &got)})
		modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
		if got.URL.String() != "https://api.openai.com/v1/chat/completions" {
			t.Errorf("request to %s", got.URL)
		}
		if auth := got.Header.Get("Authorization"); auth != want {
			t.Errorf("Authorization %q with the key %q, want %q", auth, key, want)
		}
		for name, values := range got.Header {
			leaked := strings.Contains(strings.ToLower(name+strings.Join(values, " ")), "leaked")
			if leaked || strings.HasPrefix(name, "Openai-") {
				t.Errorf("header %s: %v comes from the environment", name, values)
			}
		}
	}
}

const runID = "call_0123456789abcdef0123456789abcdef" // an ID of the run loop

// The server gets its own IDs back: some models see them in their prompt and imitate them.
func TestTheServersOwnIDsAreSentBackWithTheToolsResults(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		long := strings.Repeat("x", 41)
		srv := modeltest.NewServer(t, modeltest.Script{}.ToolCallWithID("functions.f:0", "f", "{}").
			ToolCallWithID(long, "g", "{}").ToolCallWithID("a b", "h", "{}"), modeltest.Text("done"))
		m, r := open(t, srv, openai.Options{}), modeltest.Ask("hello")
		r.Whole = whole
		end := modeltest.Collect(t.Context(), t, m, r).End
		if want := `{"ids":["functions.f:0","",""]}`; string(end.Opaque) != want {
			t.Errorf("opaque %s, want %s", end.Opaque, want)
		}
		answer := model.Message{Role: model.Assistant, ToolCalls: end.ToolCalls, Opaque: end.Opaque}
		for i := range end.ToolCalls {
			end.ToolCalls[i].ID = runID[:len(runID)-1] + string(rune('0'+i))
		}
		r.Messages = append(r.Messages, answer,
			model.Message{Role: model.ToolRole, ToolCallID: end.ToolCalls[0].ID, Content: "of f"},
			model.Message{Role: model.ToolRole, ToolCallID: end.ToolCalls[1].ID, Content: "of g"},
			model.Message{Role: model.ToolRole, ToolCallID: end.ToolCalls[2].ID, Content: "of h"})
		modeltest.Collect(t.Context(), t, m, r)
		messages, _ := srv.Requests()[1].Body["messages"].([]any)
		want := []any{
			object{"role": "tool", "tool_call_id": "functions.f:0", "content": "of f"},
			object{"role": "tool", "tool_call_id": "call00001", "content": "of g"},
			object{"role": "tool", "tool_call_id": "call00002", "content": "of h"},
		}
		if diff := cmp.Diff(want, messages[2:]); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	}
}

// OpenAI refuses IDs of more than 40 characters, and Mistral all but those with 9 letters and digits.
func TestIDsOfEarlierRunsFitAllServers(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]string{
		strings.Repeat("x", 53): "call00001", runID: "call00001", "": "call00001",
		strings.Repeat("x", 40): strings.Repeat("x", 40), "D681PevKs": "D681PevKs",
	} {
		srv := modeltest.NewServer(t, modeltest.Text("done"))
		r := modeltest.Ask("hello")
		r.Messages = append(r.Messages,
			model.Message{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: stored, Name: "f"}}},
			model.Message{Role: model.ToolRole, ToolCallID: stored, Content: "found"})
		modeltest.Collect(t.Context(), t, open(t, srv, openai.Options{}), r)
		messages, _ := srv.Requests()[0].Body["messages"].([]any)
		call := object{"id": want, "type": "function", "function": object{"name": "f", "arguments": "{}"}}
		wanted := []any{
			object{"role": "assistant", "content": "", "tool_calls": []any{call}},
			object{"role": "tool", "tool_call_id": want, "content": "found"},
		}
		if diff := cmp.Diff(wanted, messages[1:]); diff != "" {
			t.Errorf("messages for the ID %q (-want +got):\n%s", stored, diff)
		}
	}
}
