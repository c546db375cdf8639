package bedrock_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// TestMain fails if a test leaves a goroutine running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBedrockPassesTheSuiteForProviders(t *testing.T) {
	t.Parallel()
	options := func(baseURL string, client *http.Client) bedrock.Options {
		return bedrock.Options{
			ID: "eu.anthropic.claude-sonnet-4-v1:0", Region: "eu-central-1", BaseURL: baseURL,
			HTTPClient: client, Credentials: credentials,
		}
	}
	modeltest.Run(t, modeltest.Provider{
		Open: func(baseURL string, client *http.Client) model.Model { return bedrock.New(options(baseURL, client)) },
		OpenOnce: func(baseURL string, client *http.Client) model.Model {
			return bedrock.NewOnce(options(baseURL, client))
		},
	})
}

var credentials = bedrock.Credentials{
	AccessKeyID: "AKIAMODELTEST0123456", SecretAccessKey: modeltest.APIKey,
	SessionToken: "IQoJmodeltest+session/token==",
}

// optionsFor returns options for srv. Their connections are closed when the test ends.
func optionsFor(t *testing.T, srv *modeltest.Server) bedrock.Options {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return bedrock.Options{
		ID: "eu.anthropic.claude-sonnet-4-v1:0", Region: "eu-central-1", BaseURL: srv.URL,
		HTTPClient: &http.Client{Transport: transport}, Credentials: credentials,
	}
}

// answerOf returns the answer to "hello" of a server with these scripts.
func answerOf(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	m := bedrock.NewOnce(optionsFor(t, modeltest.NewServer(t, scripts...)))
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

// wholeAnswerOf returns the same for a request that permits an answer in one piece.
func wholeAnswerOf(t *testing.T, srv *modeltest.Server) modeltest.Answer {
	t.Helper()
	r := modeltest.Ask("hello")
	r.Whole = true
	return modeltest.Collect(t.Context(), t, bedrock.NewOnce(optionsFor(t, srv)), r)
}

func TestDescribeReturnsAgentOSNames(t *testing.T) {
	t.Parallel()
	const id = "amazon.nova-lite-v1:0"
	want := model.Description{ID: id, Name: "AwsBedrock", Provider: "AwsBedrock", Family: "AwsBedrock"}
	if diff := cmp.Diff(want, bedrock.New(bedrock.Options{ID: id}).Describe()); diff != "" {
		t.Error(diff)
	}
}

// requestBody returns the body of the request that the model sends for r.
func requestBody(t *testing.T, r model.Request, change func(*bedrock.Options)) map[string]any {
	t.Helper()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	o := optionsFor(t, srv)
	if change != nil {
		change(&o)
	}
	if a := modeltest.Collect(t.Context(), t, bedrock.NewOnce(o), r); a.Err != nil {
		t.Fatal(a.Err)
	}
	return srv.Requests()[0].Body
}

type object = map[string]any

func text(s string) object { return object{"text": s} }

func use(id, name string, input object) object {
	return object{"toolUse": object{"toolUseId": id, "name": name, "input": input}}
}

func result(id string, content object) object {
	return object{"toolResult": object{"toolUseId": id, "content": []any{content}}}
}

func TestARequestHasTheWholeConversation(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{
		Messages: []model.Message{
			{Role: model.System, Content: "be <brief>"},
			{Role: model.User, Content: "weather?\n\n--- notes.txt ---\nrain, \"heavy\""},
			{Role: model.Assistant, Content: "let me see", ToolCalls: []model.ToolCall{
				{ID: "call_1", Name: "weather", Arguments: `{"city":"Köln","days":12345678901234567890,"f":1.50}`},
				{ID: "call_2", Name: "now", Arguments: ""},
			}},
			{Role: model.ToolRole, ToolCallID: "call_1", Content: "rain"},
			{Role: model.ToolRole, ToolCallID: "call_2", Content: ""},
			{Role: model.Assistant, Content: "it rains"},
			{Role: model.User, Content: "thanks"},
		},
		Tools: []model.ToolSpec{
			{Name: "weather", Description: "forecast", Parameters: []byte(
				`{"type":"object","properties":{"days":{"type":"integer","maximum":16}},"required":[]}`)},
			{Name: "now"},
		},
	}, func(o *bedrock.Options) { o.Temperature = new(0.1) })
	want := object{
		"inferenceConfig": object{"temperature": 0.1},
		"system":          []any{text("be <brief>")},
		"messages": []any{
			object{"role": "user", "content": []any{text("weather?\n\n--- notes.txt ---\nrain, \"heavy\"")}},
			object{"role": "assistant", "content": []any{
				text("let me see"),
				use("call_1", "weather", object{"city": "Köln", "days": 12345678901234567890.0, "f": 1.5}),
				use("call_2", "now", object{}),
			}},
			object{"role": "user", "content": []any{
				result("call_1", text("rain")), result("call_2", object{"json": object{"result": ""}}),
			}},
			object{"role": "assistant", "content": []any{text("it rains")}},
			object{"role": "user", "content": []any{text("thanks")}},
		},
		"toolConfig": object{"tools": []any{
			object{"toolSpec": object{"name": "weather", "description": "forecast", "inputSchema": object{"json": object{
				"type": "object", "properties": object{"days": object{"type": "integer", "maximum": 16.0}}, "required": []any{},
			}}}},
			object{"toolSpec": object{"name": "now", "inputSchema": object{"json": object{"type": "object"}}}},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestTemperatureIsSentOnlyIfItIsSet(t *testing.T) {
	t.Parallel()
	got := requestBody(t, modeltest.Ask("hi"), nil)
	if got["inferenceConfig"] != nil || got["toolConfig"] != nil || got["system"] != nil {
		t.Errorf("request %v", got)
	}
	got = requestBody(t, modeltest.Ask("hi"), func(o *bedrock.Options) { o.Temperature = new(0.0) })
	if !cmp.Equal(got["inferenceConfig"], any(object{"temperature": 0.0})) {
		t.Errorf("request %v", got)
	}
}

// The Converse API refuses consecutive turns of one role, and blank texts.
func TestTurnsAlternateAndNoTextIsBlank(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{Messages: []model.Message{
		{Role: model.System, Content: " \n"},
		{Role: model.System, Content: "one"},
		{Role: model.User, Content: "a"},
		{Role: model.Assistant, Content: ""},
		{Role: model.User, Content: "b"},
		{Role: model.Assistant, Content: "\t", ToolCalls: []model.ToolCall{{ID: "c", Name: "f", Arguments: "{}"}}},
		{Role: model.ToolRole, ToolCallID: "c", Content: "done"},
		{Role: model.System, Content: "two"},
		{Role: model.User, Content: "c"},
	}}, nil)
	delete(got, "toolConfig")
	want := object{
		"system": []any{text("one"), text("two")},
		"messages": []any{
			object{"role": "user", "content": []any{text("a"), text("b")}},
			object{"role": "assistant", "content": []any{use("c", "f", object{})}},
			object{"role": "user", "content": []any{result("c", text("done")), text("c")}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// The API refuses a conversation that calls a tool without declaring it.
func TestACalledToolThatIsNoLongerOfferedIsDeclared(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{
		Messages: []model.Message{
			{Role: model.User, Content: "a"},
			{Role: model.Assistant, ToolCalls: []model.ToolCall{
				{ID: "1", Name: "old"}, {ID: "2", Name: "old"}, {ID: "3", Name: "new"},
			}},
			{Role: model.ToolRole, ToolCallID: "1", Content: "x"},
			{Role: model.ToolRole, ToolCallID: "2", Content: "x"},
			{Role: model.ToolRole, ToolCallID: "3", Content: "x"},
		},
		Tools: []model.ToolSpec{{Name: "new"}},
	}, nil)
	schema := object{"json": object{"type": "object"}}
	const former = "Can not be called any more."
	want := object{"tools": []any{
		object{"toolSpec": object{"name": "new", "inputSchema": schema}},
		object{"toolSpec": object{"name": "old", "description": former, "inputSchema": schema}},
	}}
	if diff := cmp.Diff(want, got["toolConfig"]); diff != "" {
		t.Error(diff)
	}
}

// The API accepts names of the form [a-zA-Z0-9_-]{1,64} only. The tools of MCP servers
// may have others.
func TestAToolIsCalledByItsOwnNameWhateverItsForm(t *testing.T) {
	t.Parallel()
	calls := modeltest.ToolCall("docs_search", "{}").ToolCall("docs_search_2", "{}")
	srv := modeltest.NewServer(t, calls, modeltest.Text("done"))
	m := bedrock.NewOnce(optionsFor(t, srv))
	r := modeltest.Ask("hi")
	r.Tools = []model.ToolSpec{{Name: "docs.search"}, {Name: "docs/search"}}
	a := modeltest.Collect(t.Context(), t, m, r)
	if a.Err != nil || len(a.End.ToolCalls) != 2 {
		t.Fatalf("end %+v, error %v", a.End, a.Err)
	}
	if one, two := a.End.ToolCalls[0].Name, a.End.ToolCalls[1].Name; one != "docs.search" || two != "docs/search" {
		t.Errorf("calls of %q and %q", one, two)
	}
	r.Messages = append(r.Messages,
		model.Message{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: "weird id!", Name: "docs/search"}}},
		model.Message{Role: model.ToolRole, ToolCallID: "weird id!", Content: "found"})
	if a = modeltest.Collect(t.Context(), t, m, r); a.Err != nil {
		t.Fatal(a.Err)
	}
	messages, _ := srv.Requests()[1].Body["messages"].([]any)
	want := []any{
		object{"role": "assistant", "content": []any{use("call00001", "docs_search_2", object{})}},
		object{"role": "user", "content": []any{result("call00001", text("found"))}},
	}
	if diff := cmp.Diff(want, messages[1:]); diff != "" {
		t.Error(diff)
	}
}
