package openai_test

import (
	"encoding/json"
	"fmt"
	"io"
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
			object{"type": "message", "role": "developer", "content": "be <brief>"},
			object{"type": "message", "role": "user", "content": "weather?"},
			object{"type": "message", "role": "assistant", "content": "let me see"},
			object{"type": "function_call", "call_id": "fc_1", "name": "weather", "arguments": "{}"},
			object{"type": "function_call_output", "call_id": "fc_1", "output": ""},
			object{"type": "message", "role": "assistant", "content": ""},
			object{"type": "message", "role": "user", "content": "thanks"},
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
		object{"type": "message", "role": "user", "content": "hello"},
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
			object{"type": "message", "role": "user", "content": "hello"},
			object{"type": "function_call", "call_id": runID, "name": "f", "arguments": "{}"},
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
		"with events of other forms": sse(created, `{"type":"response.reasoning.delta","delta":{"text":"hm"}}`,
			`{"type":"response.new","message":{"a":1},"output_index":"0"}`, hi, completed),
		"with an error that is none": sse(created, strings.Replace(hi, `{"type"`, `{"error":"","type"`, 1),
			strings.Replace(completed, `"response":{`, `"response":{"error":{},`, 1)),
		"with usage of another form": sse(created, hi,
			strings.Replace(completed, `"response":{`, `"response":{"usage":[],`, 1)),
		"followed by HTML": sse(created, hi, completed, "<html>"),
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

// oddCalls are answers with two calls, f with {"n":1} and g with {"n":2}, as servers send them.
var oddCalls = map[string]string{
	"without indexes and numbers (llama.cpp)": sse(
		event("output_item.added", `"item":{"type":"function_call","call_id":"a","name":"f","arguments":""}`),
		event("function_call_arguments.delta", `"item_id":"a","delta":"{\"n\":1}"`),
		event("output_item.added", `"item":{"type":"function_call","call_id":"b","name":"g","arguments":""}`),
		event("function_call_arguments.delta", `"item_id":"b","delta":"{\"n\":2}"`),
		event("output_item.done", `"item":{"type":"function_call","call_id":"a","name":"f","arguments":"{\"n\":1}"}`),
		event("output_item.done", `"item":{"type":"function_call","call_id":"b","name":"g","arguments":"{\"n\":2}"}`),
		completed),
	"as items that are done at once": sse(
		event("output_item.done", `"item":`+oddCall("a", "f", `"{\"n\":1}"`)),
		event("output_item.done", `"item":`+oddCall("b", "g", `"{\"n\":2}"`)), completed),
	"without any ID, one after the other": sse(
		event("output_item.added", `"item":`+oddCall("", "f", `""`)),
		event("function_call_arguments.delta", `"delta":"{\"n\":1}"`),
		event("output_item.done", `"item":`+oddCall("", "f", `""`)),
		event("output_item.added", `"item":`+oddCall("", "g", `""`)),
		event("function_call_arguments.delta", `"delta":"{\"n\""`),
		event("function_call_arguments.delta", `"delta":":2}"`),
		event("output_item.done", `"item":`+oddCall("", "g", `""`)), completed),
	"with the index 0 for both": sse(
		event("output_item.added", `"output_index":0,"item":`+oddCall("a", "f", `""`)),
		event("function_call_arguments.done", `"output_index":0,"item_id":"a","arguments":"{\"n\":1}"`),
		event("output_item.done", `"output_index":0,"item":`+oddCall("a", "f", `"{\"n\":1}"`)),
		event("output_item.added", `"output_index":0,"item":`+oddCall("b", "g", `""`)),
		event("function_call_arguments.done", `"output_index":0,"item_id":"b","arguments":"{\"n\":2}"`),
		event("output_item.done", `"output_index":0,"item":`+oddCall("b", "g", `"{\"n\":2}"`)), completed),
	"with one ID for both": sse(
		event("output_item.done", `"output_index":0,"item":`+oddCall("x", "f", `"{\"n\":1}"`)),
		event("output_item.done", `"output_index":1,"item":`+oddCall("x", "g", `"{\"n\":2}"`)), completed),
	"with one ID for both and no index": sse(
		event("output_item.done", `"item":`+oddCall("x", "f", `"{\"n\":1}"`)),
		event("output_item.done", `"item":`+oddCall("x", "g", `"{\"n\":2}"`)), completed),
	"with events that are repeated": sse(
		event("output_item.added", `"output_index":0,"item":`+oddCall("a", "f", `""`)),
		event("output_item.added", `"output_index":0,"item":`+oddCall("a", "f", `""`)),
		event("function_call_arguments.done", `"output_index":0,"arguments":"{\"n\":1}"`),
		event("function_call_arguments.done", `"output_index":0,"arguments":"{\"n\":1}"`),
		event("output_item.done", `"output_index":0,"item":`+oddCall("a", "f", `"{\"n\":1}"`)),
		event("output_item.done", `"output_index":0,"item":`+oddCall("a", "f", `"{\"n\":1}"`)),
		event("output_item.done", `"output_index":1,"item":`+oddCall("b", "g", `"{\"n\":2}"`)),
		event("output_item.done", `"output_index":1,"item":`+oddCall("b", "g", `"{\"n\":2}"`)), completed),
	"never done": sse(
		event("output_item.added", `"output_index":0,"item":`+oddCall("a", "f", `""`)),
		event("output_item.added", `"output_index":1,"item":`+oddCall("b", "g", `""`)),
		event("function_call_arguments.delta", `"output_index":1,"delta":"{\"n\":2}"`),
		event("function_call_arguments.delta", `"output_index":0,"delta":"{\"n\":1}"`), completed),
	"never done, and without arguments in the list": sse(
		event("output_item.added", `"output_index":0,"item":`+oddCall("a", "f", `""`)),
		event("output_item.added", `"output_index":1,"item":`+oddCall("b", "g", `""`)),
		event("function_call_arguments.delta", `"output_index":1,"delta":"{\"n\":2}"`),
		event("function_call_arguments.delta", `"output_index":0,"delta":"{\"n\":1}"`),
		strings.Replace(completed, `"output":[]`,
			`"output":[`+oddCall("a", "f", "null")+`,`+oddCall("b", "g", `""`)+`]`, 1)),
	"with objects as arguments": sse(
		event("output_item.done", `"output_index":0,"item":`+oddCall("a", "f", `{"n":1}`)),
		event("output_item.done", `"output_index":1,"item":`+oddCall("b", "g", `{"n":2}`)), completed),
	"with IDs of 400 characters": sse(
		event("output_item.done", `"item":`+oddCall(strings.Repeat("x", 400), "f", `"{\"n\":1}"`)),
		event("output_item.done", `"item":`+oddCall(strings.Repeat("y", 400), "g", `"{\"n\":2}"`)), completed),
	"with another ID of the item in each event": sse(
		event("output_item.added", `"output_index":0,"item":{"id":"1","type":"function_call","name":"f","arguments":""}`),
		event("output_item.done",
			`"output_index":0,"item":{"id":"2","type":"function_call","name":"f","arguments":"{\"n\":1}"}`),
		event("output_item.done",
			`"output_index":1,"item":{"id":"3","type":"function_call","name":"g","arguments":"{\"n\":2}"}`),
		completed),
}

// event returns an event of the API with these members.
func event(name, members string) string { return `{"type":"response.` + name + `",` + members + `}` }

// oddCall returns the item of a call whose two IDs are the same.
func oddCall(id, name, arguments string) string {
	return fmt.Sprintf(`{"id":%[1]q,"type":"function_call","call_id":%[1]q,"name":%q,"arguments":%s}`, id, name, arguments)
}

func TestCallsAreToldApartWhateverNamesThem(t *testing.T) {
	t.Parallel()
	for name, stream := range oddCalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := readResponses(t, stream)
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			var got []string
			for _, c := range a.End.ToolCalls {
				got = append(got, c.Name+c.Arguments)
			}
			if diff := cmp.Diff([]string{`f{"n":1}`, `g{"n":2}`}, got); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			checkSentBack(t, a.End)
		})
	}
}

// checkSentBack checks that a request with the calls of an answer is one that OpenAI accepts.
func checkSentBack(t *testing.T, end *model.End) {
	t.Helper()
	answer := model.Message{Role: model.Assistant, ToolCalls: end.ToolCalls, Opaque: end.Opaque}
	for i := range answer.ToolCalls {
		answer.ToolCalls[i].ID = strings.Replace(runID, "0", fmt.Sprint(i), 1)
	}
	input, _ := inputWith(t, answer).([]any)
	for _, i := range input {
		item, _ := i.(object)
		if item["type"] != "function_call" {
			continue
		}
		id, hasID := item["id"].(string)
		arguments, _ := item["arguments"].(string)
		callID, _ := item["call_id"].(string)
		if hasID && (id == "" || len(id) > 64) || callID == "" || len(callID) > 64 || item["name"] == "" ||
			!strings.HasPrefix(arguments, "{") || !json.Valid([]byte(arguments)) {
			t.Errorf("item %v", item)
		}
	}
}

// The answer is hi, with the thought hm, in each form.
func TestTextAndThoughtsAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	const (
		summary = `{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]}`
		open    = `{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}`
		message = `{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"hi"}]}`
	)
	list := strings.Replace(completed, `"output":[]`, `"output":[`+open+","+message+"]", 1)
	for name, stream := range map[string]string{
		"deltas of a summary":      sse(created, event("reasoning_summary_text.delta", `"delta":"hm"`), hi, completed),
		"deltas of open reasoning": sse(created, event("reasoning_text.delta", `"delta":"hm"`), hi, completed),
		"deltas and items": sse(event("reasoning_text.delta", `"delta":"hm"`),
			itemDone(0, open), hi, itemDone(1, message), list),
		"items without deltas":     sse(created, itemDone(0, summary), itemDone(1, message), completed),
		"only the list at the end": sse(created, list),
		"a text in place of a list": sse(created, event("reasoning_text.delta", `"delta":"hm"`),
			itemDone(0, `{"type":"message","content":"hi"}`), completed),
	} {
		a := readResponses(t, stream)
		if a.Err != nil || a.Text != "hi" || a.Reasoning != "hm" {
			t.Errorf("%s: text %q, thoughts %q, error %v", name, a.Text, a.Reasoning, a.Err)
		}
	}
	whole := openai.NewResponses(openai.Options{ID: "m", HTTPClient: cannedJSON(
		`{"id":"resp_1","object":"response","status":"completed","output":[` + summary + "," + message + `],` +
			`"usage":{"input_tokens":6.0,"output_tokens":"2","total_tokens":null}}`)})
	a := modeltest.Collect(t.Context(), t, whole, modeltest.Ask("hello"))
	if want := (model.Usage{Input: 6, Output: 2, Total: 8}); a.Err != nil || a.Text+a.Reasoning != "hihm" ||
		a.End.Usage != want {
		t.Errorf("JSON in place of a stream: text %q, thoughts %q, end %+v, error %v", a.Text, a.Reasoning, a.End, a.Err)
	}
}

// cannedJSON returns a client that answers every request with this JSON.
func cannedJSON(body string) *http.Client {
	return &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		return &http.Response{
			StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})}
}

func TestJSONThatIsNoAnswerIsAnError(t *testing.T) {
	t.Parallel()
	const (
		noAnswer = "The model's server sent something that is not an answer"
		cutShort = "The model's answer ended before it was complete"
	)
	for body, want := range map[string]string{
		`{"detail":"M"}`: "M",
		`{"status":"failed","error":{"code":"server_error","message":"M"}}`: "M",
		`{"status":"in_progress","output":[]}`:                              noAnswer,
		`{"status":"completed"`:                                             cutShort,
	} {
		m := openai.NewResponses(openai.Options{ID: "m", HTTPClient: cannedJSON(body)})
		a := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
		if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != want {
			t.Errorf("%s: error %v, want %q", body, a.Err, want)
		}
	}
}

// Servers of open models want the reasoning itself back. That of OpenAI is stored nowhere.
func TestReasoningThatCarriesItselfIsSentBack(t *testing.T) {
	t.Parallel()
	const open = `{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"",` +
		`"content":[{"type":"reasoning_text","text":"hm"}]}`
	const liteLLM = `{"id":"rs_2","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]}`
	a := readResponses(t, sse(
		itemDone(0, open), itemDone(1, liteLLM), itemDone(2, unencrypted), itemDone(3, call), completed))
	if want := "[" + open + "," + liteLLM + "," + call + "]"; a.Err != nil || string(a.End.Opaque) != want {
		t.Errorf("opaque %s, error %v", a.End.Opaque, a.Err)
	}
}

func TestACallThatWasCutIsNeverMade(t *testing.T) {
	t.Parallel()
	const half = `{"id":"fc_1","call_id":"call_1","type":"function_call","name":"f","arguments":"{\"n\"","status":%q}`
	for name, c := range map[string]struct{ stream, want string }{
		"by a limit": {sse(itemDone(0, call), event("incomplete",
			`"response":{"incomplete_details":{"reason":"max_output_tokens"}}`)), "max_output_tokens"},
		"before its arguments": {sse(event("output_item.added",
			`"item":`+oddCall("a", "f", `""`)), completed), "incomplete"},
		"by the state of the item": {sse(itemDone(0, fmt.Sprintf(half, "incomplete")), completed), "incomplete"},
	} {
		a := readResponses(t, c.stream)
		want := "The model's answer ended within a tool call (" + c.want + "); ask for less at once"
		if fault.Detail(a.Err) != want {
			t.Errorf("%s: error %v, want %q", name, a.Err, want)
		}
	}
}

func TestNamesThatOpenAIRefusesAreMappedAndBack(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.ToolCall("docs_search", "{}"), modeltest.Text("done"))
	m, r := openResponses(t, srv, openai.Options{}), modeltest.Ask("hello")
	r.Tools = []model.ToolSpec{{Name: "docs.search"}}
	a := modeltest.Collect(t.Context(), t, m, r)
	if a.Err != nil || a.End.ToolCalls[0].Name != "docs.search" {
		t.Fatalf("end %+v, error %v", a.End, a.Err)
	}
	r.Messages = append(r.Messages, model.Message{
		Role: model.Assistant, ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque,
	})
	modeltest.Collect(t.Context(), t, m, r)
	input, _ := srv.Requests()[1].Body["input"].([]any)
	if item, _ := input[1].(object); item["name"] != "docs_search" {
		t.Errorf("item %v", item)
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
	for name, last := range map[string]string{
		"without a reason":                    `{"type":"response.incomplete","response":{}}`,
		"by the status of response.completed": strings.Replace(completed, `"status":"completed"`, `"status":"incomplete"`, 1),
	} {
		a := readResponses(t, sse(created, hi, last))
		if a.Err != nil || a.End.FinishReason != "incomplete" {
			t.Errorf("%s: end %+v, error %v", name, a.End, a.Err)
		}
	}
}

func TestAnInvalidResponsesStreamIsAnError(t *testing.T) {
	t.Parallel()
	const (
		noAnswer = "The model's server sent something that is not an answer"
		cutShort = "The model's answer ended before it was complete"
		tooLong  = "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once"
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
		{"more items than calls can have", sse(created) + many(257, encrypted), tooLong},
		{"more calls than a request has tools", sse(created) + many(129, call) + sse(completed), tooLong},
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

// many returns the events of n items that differ in their index.
func many(n int, item string) (stream string) {
	for i := range n {
		stream += sse(itemDone(i, item))
	}
	return stream
}

func FuzzResponses(f *testing.F) {
	for _, stream := range oddCalls {
		f.Add([]byte(stream))
	}
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
		if a.Err != nil && (fault.KindOf(a.Err) == fault.Internal || fault.Detail(a.Err) == "") {
			t.Errorf("error %v, want an error of the provider with a public text", a.Err)
		}
	})
}
