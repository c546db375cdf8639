package bedrock_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// TestMain looks for what the tests left running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBedrockDoesWhatEveryModelMust(t *testing.T) {
	t.Parallel()
	modeltest.Run(t, func(t *testing.T, srv *modeltest.Server) model.Model {
		t.Helper()
		return bedrock.Once(on(t, srv))
	})
}

var credentials = bedrock.Credentials{
	AccessKeyID: "AKIAMODELTEST0123456", SecretAccessKey: modeltest.APIKey, SessionToken: "IQoJmodeltest+session/token==",
}

// on are options for srv whose connections end with the test.
func on(t *testing.T, srv *modeltest.Server) bedrock.Options {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return bedrock.Options{
		ID: "eu.anthropic.claude-sonnet-4-v1:0", Region: "eu-central-1", BaseURL: srv.URL,
		HTTPClient: &http.Client{Transport: transport}, Credentials: credentials,
	}
}

// hear is the answer to "hello" of a server with these scripts, asked once for each.
func hear(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	return modeltest.Listen(t.Context(), t, bedrock.Once(on(t, modeltest.NewServer(t, scripts...))), modeltest.Ask("hello"))
}

func TestItIsNamedAsAgentOSNamesIt(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "amazon.nova-lite-v1:0", Name: "AwsBedrock", Provider: "AwsBedrock", Family: "AwsBedrock"}
	if diff := cmp.Diff(want, bedrock.New(bedrock.Options{ID: "amazon.nova-lite-v1:0"}).Describe()); diff != "" {
		t.Error(diff)
	}
}

// sent is the body of the one request that asking r makes.
func sent(t *testing.T, r model.Request, change func(*bedrock.Options)) map[string]any {
	t.Helper()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	o := on(t, srv)
	if change != nil {
		change(&o)
	}
	if a := modeltest.Listen(t.Context(), t, bedrock.Once(o), r); a.Err != nil {
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

func TestTheWholeConversationReachesTheVendor(t *testing.T) {
	t.Parallel()
	got := sent(t, model.Request{
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
			{Name: "weather", Description: "tells it", Parameters: []byte(`{"type":"object","properties":{"days":{"type":"integer","maximum":16}},"required":[]}`)},
			{Name: "now"},
		},
	}, func(o *bedrock.Options) { o.Temperature = new(0.1) })
	want := object{
		"inferenceConfig": object{"temperature": 0.1},
		"system":          []any{text("be <brief>")},
		"messages": []any{
			object{"role": "user", "content": []any{text("weather?\n\n--- notes.txt ---\nrain, \"heavy\"")}},
			object{"role": "assistant", "content": []any{
				text("let me see"), use("call_1", "weather", object{"city": "Köln", "days": 12345678901234567890.0, "f": 1.5}), use("call_2", "now", object{}),
			}},
			object{"role": "user", "content": []any{result("call_1", text("rain")), result("call_2", object{"json": object{"result": ""}})}},
			object{"role": "assistant", "content": []any{text("it rains")}},
			object{"role": "user", "content": []any{text("thanks")}},
		},
		"toolConfig": object{"tools": []any{
			object{"toolSpec": object{"name": "weather", "description": "tells it", "inputSchema": object{"json": object{
				"type": "object", "properties": object{"days": object{"type": "integer", "maximum": 16.0}}, "required": []any{},
			}}}},
			object{"toolSpec": object{"name": "now", "inputSchema": object{"json": object{"type": "object"}}}},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestTemperatureIsLeftToTheModelUnlessItIsSet(t *testing.T) {
	t.Parallel()
	if got := sent(t, modeltest.Ask("hi"), nil); got["inferenceConfig"] != nil || got["toolConfig"] != nil || got["system"] != nil {
		t.Errorf("%v", got)
	}
	if got := sent(t, modeltest.Ask("hi"), func(o *bedrock.Options) { o.Temperature = new(0.0) }); !cmp.Equal(got["inferenceConfig"], any(object{"temperature": 0.0})) {
		t.Errorf("%v", got)
	}
}

// The Converse API refuses two turns of one role in a row and texts that are blank.
func TestTurnsAlternateAndNoTextIsBlank(t *testing.T) {
	t.Parallel()
	got := sent(t, model.Request{Messages: []model.Message{
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

// A conversation that calls a tool which is not declared is refused.
func TestAToolThatIsNoLongerOfferedIsDeclaredAllTheSame(t *testing.T) {
	t.Parallel()
	got := sent(t, model.Request{
		Messages: []model.Message{
			{Role: model.User, Content: "a"},
			{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: "1", Name: "old"}, {ID: "2", Name: "old"}, {ID: "3", Name: "new"}}},
			{Role: model.ToolRole, ToolCallID: "1", Content: "x"}, {Role: model.ToolRole, ToolCallID: "2", Content: "x"}, {Role: model.ToolRole, ToolCallID: "3", Content: "x"},
		},
		Tools: []model.ToolSpec{{Name: "new"}},
	}, nil)
	want := object{"tools": []any{
		object{"toolSpec": object{"name": "new", "inputSchema": object{"json": object{"type": "object"}}}},
		object{"toolSpec": object{"name": "old", "description": "Can not be called any more.", "inputSchema": object{"json": object{"type": "object"}}}},
	}}
	if diff := cmp.Diff(want, got["toolConfig"]); diff != "" {
		t.Error(diff)
	}
}

// The pattern is [a-zA-Z0-9_-]{1,64}; an MCP server's tools may be named otherwise,
// and are called by their own name.
func TestToolsOfAnyNameAreCalledByIt(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.ToolCall("docs_search", "{}").ToolCall("docs_search_2", "{}"), modeltest.Text("done"))
	m := bedrock.Once(on(t, srv))
	r := modeltest.Ask("hi")
	r.Tools = []model.ToolSpec{{Name: "docs.search"}, {Name: "docs/search"}}
	a := modeltest.Listen(t.Context(), t, m, r)
	if a.Err != nil || len(a.End.ToolCalls) != 2 || a.End.ToolCalls[0].Name != "docs.search" || a.End.ToolCalls[1].Name != "docs/search" {
		t.Fatalf("%v %+v", a.Err, a.End)
	}
	r.Messages = append(r.Messages,
		model.Message{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: "weird id!", Name: "docs/search"}}},
		model.Message{Role: model.ToolRole, ToolCallID: "weird id!", Content: "found"})
	if a = modeltest.Listen(t.Context(), t, m, r); a.Err != nil {
		t.Fatal(a.Err)
	}
	messages, _ := srv.Requests()[1].Body["messages"].([]any)
	want := []any{
		object{"role": "assistant", "content": []any{use("weird_id_", "docs_search_2", object{})}},
		object{"role": "user", "content": []any{result("weird_id_", text("found"))}},
	}
	if diff := cmp.Diff(want, messages[1:]); diff != "" {
		t.Error(diff)
	}
}

func TestEveryTextIsAPart(t *testing.T) {
	t.Parallel()
	a := hear(t, modeltest.Text("hel", "", "lo"))
	var texts []string
	for _, p := range a.Parts {
		if p.End == nil {
			texts = append(texts, p.Text)
		}
	}
	if diff := cmp.Diff([]string{"hel", "", "lo"}, texts); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
}

func TestARequestThatCannotBeMadeIsNotTheVendorsFault(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		r := modeltest.Ask("hello")
		r.Whole, r.Tools = whole, []model.ToolSpec{{Name: "f", Parameters: []byte("{")}}
		a := modeltest.Listen(t.Context(), t, bedrock.Once(on(t, modeltest.NewServer(t))), r)
		if a.Err == nil || !strings.Contains(a.Err.Error(), "the parameters of tool f are not JSON") {
			t.Errorf("error %v", a.Err)
		}
	}
}
