package openai_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

type object = map[string]any

func TestResponsesPassesTheSuiteForProviders(t *testing.T) {
	t.Parallel()
	modeltest.Run(t, modeltest.Provider{Streams: true, Open: func(baseURL string, client *http.Client) model.Model {
		return openai.NewResponses(openai.Options{
			ID: "gpt-4o", BaseURL: baseURL, APIKey: modeltest.APIKey, HTTPClient: client,
		})
	}})
}

// openResponses returns a model on srv. Its connections are closed when the test ends.
func openResponses(t *testing.T, srv *modeltest.Server, o openai.Options) *openai.Responses {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	o.BaseURL, o.APIKey, o.HTTPClient = srv.URL, modeltest.APIKey, &http.Client{Transport: transport}
	if o.ID == "" {
		o.ID = "gpt-4o"
	}
	return openai.NewResponses(o)
}

// responsesAnswerOf returns the answer to "hello" of a server with these scripts.
func responsesAnswerOf(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	m := openResponses(t, modeltest.NewServer(t, scripts...), openai.Options{})
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

// readResponses returns the model's answer from a stream.
func readResponses(t *testing.T, stream string) modeltest.Answer {
	t.Helper()
	m := openai.NewResponses(openai.Options{ID: "m", HTTPClient: canned(stream, nil)})
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

func TestResponsesDescribeReturnsAgentOSNames(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "gpt-5.2", Name: "OpenAIResponses", Provider: "OpenAI", Family: "OpenAI Responses"}
	if diff := cmp.Diff(want, openai.NewResponses(openai.Options{ID: "gpt-5.2"}).Describe()); diff != "" {
		t.Error(diff)
	}
}

func TestARequestHasTheWholeConversationAsItems(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	m := openResponses(t, srv, openai.Options{Temperature: new(0.0)})
	a := modeltest.Collect(t.Context(), t, m, model.Request{
		Messages: []model.Message{
			{Role: model.System, Content: "be <brief>"},
			{Role: model.User, Content: "weather?"},
			{Role: model.Assistant, Content: "let me see", ToolCalls: []model.ToolCall{
				{ID: "fc_1", Name: "weather", Arguments: "{bad"},
			}},
			{Role: model.ToolRole, ToolCallID: "fc_1", Content: ""},
			{Role: model.Assistant, Opaque: json.RawMessage(`{"of":"another provider"}`)},
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
	want := object{
		"model": "gpt-4o", "temperature": 0.0, "stream": true, "store": false,
		"input": []any{
			object{"role": "developer", "content": "be <brief>"},
			object{"role": "user", "content": "weather?"},
			object{"role": "assistant", "content": "let me see"},
			object{"type": "function_call", "call_id": "fc_1", "name": "weather", "arguments": "{bad"},
			object{"type": "function_call_output", "call_id": "fc_1", "output": ""},
			object{"role": "assistant", "content": ""},
			object{"role": "user", "content": "thanks"},
		},
		"tools": []any{
			object{
				"type": "function", "name": "weather", "description": "current weather", "strict": false,
				"parameters": object{"type": "object", "properties": object{"city": object{"type": "string"}}},
			},
			object{"type": "function", "name": "now", "strict": false},
		},
	}
	if diff := cmp.Diff(want, srv.Requests()[0].Body); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestOnlyReasoningModelsAreAskedForEncryptedReasoning(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]any{
		"gpt-5.2": []any{"reasoning.encrypted_content"}, "o3-mini": []any{"reasoning.encrypted_content"},
		"gpt-4o": nil, "gpt-5-chat-latest": nil, "llama": nil,
	} {
		srv := modeltest.NewServer(t, modeltest.Text("done"))
		modeltest.Collect(t.Context(), t, openResponses(t, srv, openai.Options{ID: id}), modeltest.Ask("hello"))
		if diff := cmp.Diff(want, srv.Requests()[0].Body["include"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

const (
	created   = `{"type":"response.created","response":{"id":"resp_1","output":[]}}`
	hi        = `{"type":"response.output_text.delta","delta":"hi"}`
	completed = `{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[],"error":null}}`
)

func itemDone(index int, item string) string {
	return fmt.Sprintf(`{"type":"response.output_item.done","output_index":%d,"item":%s}`, index, item)
}

const (
	encrypted   = `{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"gAAA"}`
	unencrypted = `{"id":"rs_2","type":"reasoning","summary":[]}`
	call        = `{"id":"fc_1","call_id":"call_1","type":"function_call","name":"f","arguments":"{}",` +
		`"status":"completed"}`
)

// The items of one step's answer are sent with the next step's request.
func TestTheItemsOfAnAnswerAreSentBackWithTheToolsResults(t *testing.T) {
	t.Parallel()
	stream := sse(created, itemDone(2, call), itemDone(0, encrypted), itemDone(1, unencrypted), completed)
	a := readResponses(t, stream)
	if diff := cmp.Diff([]model.ToolCall{{ID: "call_1", Name: "f", Arguments: "{}"}}, a.End.ToolCalls); diff != "" {
		t.Fatalf("tool calls (-want +got):\n%s", diff)
	}
	a.End.ToolCalls[0].ID = runID
	got := inputWith(t,
		model.Message{Role: model.Assistant, Content: "kept elsewhere", ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque},
		model.Message{Role: model.ToolRole, ToolCallID: runID, Content: "42"})
	want := []any{
		object{"role": "user", "content": "hello"},
		object{"id": "rs_1", "type": "reasoning", "summary": []any{}, "encrypted_content": "gAAA"},
		object{
			"id": "fc_1", "call_id": "call_1", "type": "function_call", "name": "f", "arguments": "{}",
			"status": "completed",
		},
		object{"type": "function_call_output", "call_id": "call_1", "output": "42"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("input (-want +got):\n%s", diff)
	}
}

// inputWith returns the input of a request that has these messages after the user's.
func inputWith(t *testing.T, messages ...model.Message) any {
	t.Helper()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	r := modeltest.Ask("hello")
	r.Messages = append(r.Messages, messages...)
	modeltest.Collect(t.Context(), t, openResponses(t, srv, openai.Options{}), r)
	return srv.Requests()[0].Body["input"]
}

// The API requires that a call and its output have the same call_id, which no other call has, of at most 64
// characters.
func TestACallIDThatIsMissingOrRepeatedIsReplacedInTheItem(t *testing.T) {
	t.Parallel()
	var items []string
	const form = `{"id":"fc_%d",%s"type":"function_call","name":"f","arguments":"{}","n":1.50}`
	for i, id := range []string{`"call_id":"x",`, `"call_id":"x",`, "", `"call_id":"` + strings.Repeat("y", 65) + `",`} {
		items = append(items, fmt.Sprintf(form, i, id))
	}
	answer := model.Message{Role: model.Assistant, Opaque: json.RawMessage("[" + strings.Join(items, ",") + "]")}
	messages := []model.Message{answer}
	for i := range items {
		id := strings.Replace(runID, "0", fmt.Sprint(i), 1)
		messages[0].ToolCalls = append(messages[0].ToolCalls, model.ToolCall{ID: id, Name: "f", Arguments: "{}"})
		messages = append(messages, model.Message{Role: model.ToolRole, ToolCallID: id, Content: fmt.Sprint(i)})
	}
	input, _ := inputWith(t, messages...).([]any)
	for i, want := range []string{"x", "call00001", "call00002", "call00003"} {
		item := object{
			"id": fmt.Sprintf("fc_%d", i), "call_id": want, "type": "function_call", "name": "f", "arguments": "{}", "n": 1.5,
		}
		output := object{"type": "function_call_output", "call_id": want, "output": fmt.Sprint(i)}
		if diff := cmp.Diff([]any{item, output}, []any{input[1+i], input[5+i]}); diff != "" {
			t.Errorf("call %d (-want +got):\n%s", i, diff)
		}
	}
}

// A run may continue with another provider's model than before its pause.
func TestTheOpaqueOfAnotherProviderIsNotSent(t *testing.T) {
	t.Parallel()
	for _, opaque := range []string{`[{"type":"thinking","text":"hm"},{"type":"tool_use"}]`, `{"ids":["a"]}`, `[1]`} {
		got := inputWith(t,
			model.Message{
				Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: runID, Name: "f"}}, Opaque: json.RawMessage(opaque),
			},
			model.Message{Role: model.ToolRole, ToolCallID: runID, Content: "42"})
		want := []any{
			object{"role": "user", "content": "hello"},
			object{"type": "function_call", "call_id": runID, "name": "f", "arguments": ""},
			object{"type": "function_call_output", "call_id": runID, "output": "42"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("input (-want +got):\n%s", diff)
		}
	}
}

func TestAnAnswerWithoutCallsHasNoOpaque(t *testing.T) {
	t.Parallel()
	if a := readResponses(t, sse(created, itemDone(0, encrypted), hi, completed)); a.End.Opaque != nil {
		t.Errorf("opaque %s", a.End.Opaque)
	}
}

// AgentOS shows the ID before the first text, and not again with each piece.
func TestTheAnswersIDIsInTheOpeningPartOnly(t *testing.T) {
	t.Parallel()
	a := responsesAnswerOf(t, modeltest.Text("hel", "", "lo"))
	id := json.RawMessage(`{"response_id":"resp_1"}`)
	want := []model.Part{
		{ProviderData: id, Opening: true}, {Text: "hel"}, {}, {Text: "lo"}, {ProviderData: id, End: a.End},
	}
	if diff := cmp.Diff(want, a.Parts); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	if a.End.FinishReason != "completed" {
		t.Errorf("finish reason %q", a.End.FinishReason)
	}
}

func TestResponsesAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	const reasoning = `{"type":"response.reasoning_summary_text.delta","delta":"hm"}`
	for name, stream := range map[string]string{
		"as OpenAI does":                   "event: response.created\n" + sse(created, hi, completed),
		"with [DONE]":                      sse(created, hi, completed, "[DONE]"),
		"without an opening":               sse(hi, completed),
		"as a refusal":                     sse(created, strings.Replace(hi, "output_text", "refusal", 1), completed),
		"with reasoning that is not shown": sse(created, reasoning, hi, completed),
		"with a null error": sse(
			created, hi, strings.Replace(completed, `{"type"`, `{"error":null,"type"`, 1)),
		"with unknown events": sse(created, `{"type":"response.new","item":[1],"delta":"x"}`, hi, completed),
		"followed by HTML":    sse(created, hi, completed, "<html>"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := readResponses(t, stream)
			if a.Err != nil || a.Text != "hi" || a.End.FinishReason != "completed" {
				t.Fatalf("text %q, end %+v, error %v", a.Text, a.End, a.Err)
			}
			if got := string(a.Parts[len(a.Parts)-1].ProviderData); got != `{"response_id":"resp_1"}` {
				t.Errorf("provider data %s", got)
			}
		})
	}
}

func TestCallsAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	list := strings.Replace(completed, `"output":[]`, `"output":[`+encrypted+","+call+"]", 1)
	for name, stream := range map[string]string{
		"as items, and no list":  sse(created, itemDone(0, encrypted), itemDone(1, call), completed),
		"as items and as a list": sse(created, itemDone(0, encrypted), itemDone(1, call), list),
		"as a list only":         sse(created, list),
	} {
		a := readResponses(t, stream)
		if diff := cmp.Diff([]model.ToolCall{{ID: "call_1", Name: "f", Arguments: "{}"}}, a.End.ToolCalls); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if want := "[" + encrypted + "," + call + "]"; string(a.End.Opaque) != want {
			t.Errorf("%s: opaque %s", name, a.End.Opaque)
		}
	}
}

func TestTheReasonOfAnIncompleteResponseIsItsFinishReason(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"max_output_tokens", "content_filter"} {
		a := responsesAnswerOf(t, modeltest.Text("too lo").Finish(reason))
		if a.Err != nil || a.Text != "too lo" || a.End.FinishReason != reason ||
			a.End.Usage != modeltest.DefaultUsage() {
			t.Errorf("end %+v, error %v", a.End, a.Err)
		}
	}
	a := readResponses(t, sse(created, `{"type":"response.incomplete","response":{}}`))
	if a.Err != nil || a.End.FinishReason != "incomplete" {
		t.Errorf("without a reason: end %+v, error %v", a.End, a.Err)
	}
}

func TestAnInvalidResponsesStreamIsAnError(t *testing.T) {
	t.Parallel()
	const (
		noAnswer = "The model's server sent something that is not an answer"
		cutShort = "The model's answer ended before it was complete"
		tooLong  = "The model's server sent an event of more than 10 MB"
	)
	big := itemDone(0, `{"type":"message","text":"`+strings.Repeat("x", 1<<20)+`"}`)
	for _, c := range []struct{ name, stream, detail string }{
		{"not JSON", sse("<html>"), noAnswer},
		{"a list", sse(`[1,2]`), noAnswer},
		{"an item that is no object", sse(created, itemDone(0, `"call"`), completed), noAnswer},
		{"nothing at all", "", cutShort},
		{"[DONE] at once", sse("[DONE]"), cutShort},
		{"all items and no end", sse(created, hi, itemDone(0, call)), cutShort},
		{"a chat completion", sse(stop, "[DONE]"), cutShort},
		{"an error event",
			sse(created, `{"type":"error","code":"server_error","message":"overloaded sk-abc"}`), "overloaded ***"},
		{"an error event in the form of an HTTP error",
			sse(created, `{"type":"error","error":{"message":"overloaded"}}`), "overloaded"},
		{"an error without a type", sse(`{"error":"out of memory"}`), "out of memory"},
		{"a failed response", sse(created,
			`{"type":"response.failed","response":{"error":{"code":"server_error","message":"it broke"}}}`), "it broke"},
		{"a failed response without words", sse(created, `{"type":"response.failed","response":{}}`), noAnswer},
		{"a line of more than 10 MB", sse(strings.Repeat(" ", 11<<20)), tooLong},
		{"items of more than 10 MB", sse(created) + strings.Repeat(sse(big), 11), tooLong},
		{"more items than calls can have", sse(created) + strings.Repeat(sse(itemDone(0, encrypted)), 257), tooLong},
		{"more calls than a request has tools",
			sse(created) + strings.Repeat(sse(itemDone(0, call)), 129) + sse(completed), tooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := readResponses(t, c.stream)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v, want the public text %q", a.Err, c.detail)
			}
		})
	}
}

func FuzzResponses(f *testing.F) {
	f.Add([]byte(sse(created, hi, completed)))
	f.Add([]byte(sse(created, itemDone(1, call), itemDone(0, encrypted), completed)))
	f.Add([]byte(sse(`{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"}}}`)))
	f.Add([]byte(sse(`{"type":"error","message":"m"}`)))
	f.Add([]byte(sse(`{"type":"response.completed","response":{"output":[null,{}]}}`)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		a := readResponses(t, string(stream))
		if a.End != nil && (a.End.FinishReason == "" || (a.End.Opaque != nil && !json.Valid(a.End.Opaque))) {
			t.Errorf("the end %+v has no finish reason or an invalid Opaque", a.End)
		}
		if a.Err != nil && (fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) == "") {
			t.Errorf("error %v, want an error of the provider with a public text", a.Err)
		}
	})
}
