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
	o.ID, o.BaseURL, o.HTTPClient = "gpt-4o", srv.URL, &http.Client{Transport: transport}
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
			object{"role": "assistant", "tool_calls": []any{object{
				"id": "call_1", "type": "function", "function": object{"name": "weather", "arguments": "{bad"},
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
