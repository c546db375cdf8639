package openai_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// These tests hold what servers other than OpenAI's send. docs/models.md names the servers.

// delta returns a chunk with a delta.
func delta(members string) string {
	return `{"id":"c1","choices":[{"index":0,"delta":{` + members + `}}]}`
}

// toolDelta returns a chunk with pieces of tool calls.
func toolDelta(pieces ...string) string {
	return delta(`"tool_calls":[` + strings.Join(pieces, ",") + `]`)
}

// callForms are streams with tool calls, and what they mean.
var callForms = []struct {
	name   string
	chunks []string
	want   []model.ToolCall
}{
	{"the name is repeated in each piece", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":""}}`),
		toolDelta(`{"index":0,"function":{"name":"echo","arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"function":{"name":"echo","arguments":"\"hi\"}"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{"text":"hi"}`}}},
	{"id, type and name in each piece, beside function_call", []string{
		delta(`"role":null,"content":null,"function_call":{"name":"echo","arguments":"{"},"tool_calls":[` +
			`{"index":0,"id":"c","type":"function","function":{"name":"echo","arguments":"{"}}]`),
		delta(`"role":null,"content":null,"function_call":{"name":"echo","arguments":"}"},"tool_calls":[` +
			`{"index":0,"id":"c","type":"function","function":{"name":"echo","arguments":"}"}}]`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{}`}}},
	{"the name is in pieces", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"ec"}}`),
		toolDelta(`{"index":0,"function":{"name":"ho","arguments":"{}"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{}`}}},
	{"two calls have index 0, in two chunks", []string{
		toolDelta(`{"index":0,"id":"a","function":{"name":"echo","arguments":"{\"text\":\"one\"}"}}`),
		toolDelta(`{"index":0,"id":"b","function":{"name":"echo","arguments":"{\"text\":\"two\"}"}}`),
	}, []model.ToolCall{
		{ID: "a", Name: "echo", Arguments: `{"text":"one"}`}, {ID: "b", Name: "echo", Arguments: `{"text":"two"}`},
	}},
	{"two calls without an index, in one chunk", []string{
		toolDelta(`{"id":"a","function":{"name":"echo","arguments":"{\"text\":\"one\"}"}}`,
			`{"id":"b","function":{"name":"echo","arguments":"{\"text\":\"two\"}"}}`),
	}, []model.ToolCall{
		{ID: "a", Name: "echo", Arguments: `{"text":"one"}`}, {ID: "b", Name: "echo", Arguments: `{"text":"two"}`},
	}},
	{"two calls without index and id, in one chunk", []string{
		toolDelta(`{"function":{"name":"echo","arguments":"{}"}}`, `{"function":{"name":"echo","arguments":"{}"}}`),
	}, []model.ToolCall{{Name: "echo", Arguments: `{}`}, {Name: "echo", Arguments: `{}`}}},
	{"two calls of index 0 without ids", []string{
		toolDelta(`{"index":0,"id":"","function":{"name":"transfer","arguments":"{\"account\":\"GOOD\"}"}}`),
		toolDelta(`{"index":0,"id":"","function":{"name":"transfer","arguments":"{\"account\":\"BAD\"}"}}`),
	}, []model.ToolCall{
		{Name: "transfer", Arguments: `{"account":"GOOD"}`}, {Name: "transfer", Arguments: `{"account":"BAD"}`},
	}},
	{"two calls of index 0 without ids, with other names and in pieces", []string{
		toolDelta(`{"index":0,"function":{"name":"first","arguments":"{\"x\":"}}`),
		toolDelta(`{"index":0,"function":{"arguments":"1}"}}`),
		toolDelta(`{"index":0,"function":{"name":"second","arguments":""}}`),
		toolDelta(`{"index":0,"function":{"arguments":"{}"}}`),
	}, []model.ToolCall{{Name: "first", Arguments: `{"x":1}`}, {Name: "second", Arguments: `{}`}}},
	{"pieces without index and id continue the last call", []string{
		toolDelta(`{"id":"a","function":{"name":"first","arguments":"{}"}}`),
		toolDelta(`{"id":"b","function":{"name":"second","arguments":"{"}}`),
		toolDelta(`{"function":{"arguments":"}"}}`),
	}, []model.ToolCall{{ID: "a", Name: "first", Arguments: `{}`}, {ID: "b", Name: "second", Arguments: `{}`}}},
	{"interleaved pieces of index 0 belong to the call of their id", []string{
		toolDelta(`{"index":0,"id":"a","function":{"name":"first","arguments":"{"}}`),
		toolDelta(`{"index":0,"id":"b","function":{"name":"second","arguments":"{"}}`),
		toolDelta(`{"index":0,"id":"a","function":{"arguments":"}"}}`),
		toolDelta(`{"index":0,"id":"b","function":{"arguments":"}"}}`),
	}, []model.ToolCall{{ID: "a", Name: "first", Arguments: `{}`}, {ID: "b", Name: "second", Arguments: `{}`}}},
	{"each piece has a new id", []string{
		toolDelta(`{"index":0,"id":"a","function":{"name":"echo","arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"id":"b","function":{"arguments":"\"hi\"}"}}`),
	}, []model.ToolCall{{ID: "a", Name: "echo", Arguments: `{"text":"hi"}`}}},
	{"the ids are empty, and the indices differ", []string{
		toolDelta(`{"index":0,"id":"","function":{"name":"transfer","arguments":"{}"}}`,
			`{"index":1,"id":"","function":{"name":"transfer","arguments":"{}"}}`),
	}, []model.ToolCall{{Name: "transfer", Arguments: `{}`}, {Name: "transfer", Arguments: `{}`}}},
	{"two calls have the same id, and the indices differ", []string{
		toolDelta(`{"index":0,"id":"x","function":{"name":"first","arguments":"{}"}}`,
			`{"index":1,"id":"x","function":{"name":"second","arguments":"{}"}}`),
	}, []model.ToolCall{{ID: "x", Name: "first", Arguments: `{}`}, {ID: "x", Name: "second", Arguments: `{}`}}},
	{"the arguments are an object", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":{"text": "hi", "n": 9007199254740993}}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{"text":"hi","n":9007199254740993}`}}},
	{"the arguments and the id are null", []string{
		toolDelta(`{"index":0,"id":null,"function":{"name":"now","arguments":null}}`),
	}, []model.ToolCall{{Name: "now"}}},
	{"the whole call is repeated at the end", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{\"text\":\"hi\"}"}}`),
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{\"text\":\"hi\"}"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{"text":"hi"}`}}},
	{"the name comes from its beginning each time", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"ec","arguments":""}}`),
		toolDelta(`{"index":0,"function":{"name":"echo"}}`),
		toolDelta(`{"index":0,"function":{"name":"echo","arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"function":{"name":"echo","arguments":"\"hi\"}"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{"text":"hi"}`}}},
	{"the whole call is repeated in another layout", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"function":{"arguments":"\"hi\"}"}}`),
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{ \"text\": \"hi\" }"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{"text":"hi"}`}}},
	{"two calls have the same id and the same index", []string{
		toolDelta(`{"index":0,"id":"x","function":{"name":"echo","arguments":"{\"text\":\"one\"}"}}`),
		toolDelta(`{"index":0,"id":"x","function":{"name":"echo","arguments":"{\"text\":\"two\"}"}}`),
	}, []model.ToolCall{
		{ID: "x", Name: "echo", Arguments: `{"text":"one"}`}, {ID: "x", Name: "echo", Arguments: `{"text":"two"}`},
	}},
	{"two calls have the same id and no index, in one chunk", []string{
		toolDelta(`{"id":"x","function":{"name":"echo","arguments":"{\"text\":\"one\"}"}}`,
			`{"id":"x","function":{"name":"echo","arguments":"{\"text\":\"two\"}"}}`),
	}, []model.ToolCall{
		{ID: "x", Name: "echo", Arguments: `{"text":"one"}`}, {ID: "x", Name: "echo", Arguments: `{"text":"two"}`},
	}},
	{"two calls of index 0 without ids, of the same name and in pieces", []string{
		toolDelta(`{"index":0,"id":"","function":{"name":"echo","arguments":""}}`),
		toolDelta(`{"index":0,"id":"","function":{"arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"id":"","function":{"arguments":"\"one\"}"}}`),
		toolDelta(`{"index":0,"id":"","function":{"name":"echo","arguments":""}}`),
		toolDelta(`{"index":0,"id":"","function":{"arguments":"{\"text\":"}}`),
		toolDelta(`{"index":0,"id":"","function":{"arguments":"\"two\"}"}}`, `{"index":1}`),
	}, []model.ToolCall{{Name: "echo", Arguments: `{"text":"one"}`}, {Name: "echo", Arguments: `{"text":"two"}`}}},
	{"something follows the arguments", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{}"}}`),
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"}"}}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{}}`}}},
	{"an element is empty", []string{
		toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":"{}"}}`), toolDelta(`{"index":1}`),
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{}`}}},
	{"the index is a text", []string{
		toolDelta(`{"index":"0","id":"a","function":{"name":"first","arguments":"{}"}}`,
			`{"index":"1","id":"b","function":{"name":"second","arguments":"{}"}}`),
	}, []model.ToolCall{{ID: "a", Name: "first", Arguments: `{}`}, {ID: "b", Name: "second", Arguments: `{}`}}},
	{"they come in a message in place of a delta", []string{
		`{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"echo","arguments":"{}"}}]}}]}`,
	}, []model.ToolCall{{ID: "c", Name: "echo", Arguments: `{}`}}},
}

func TestToolCallsAreReadAsServersSendThem(t *testing.T) {
	t.Parallel()
	for _, form := range callForms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			for _, finish := range []string{"tool_calls", "stop"} {
				a := read(t, sse(append(form.chunks, strings.Replace(stop, "stop", finish, 1))...))
				if a.Err != nil {
					t.Fatal(a.Err)
				}
				if diff := cmp.Diff(form.want, a.End.ToolCalls); diff != "" {
					t.Errorf("tool calls (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// textForms are streams that mean the text "x" and the thoughts "p", or one of the two.
var textForms = []struct {
	name           string
	chunks         []string
	text, thoughts string
}{
	{"reasoning_content", []string{delta(`"content":null,"reasoning_content":"p"`), delta(`"content":"x"`)}, "x", "p"},
	{"reasoning", []string{delta(`"content":"","reasoning":"p"`), delta(`"content":"x"`)}, "x", "p"},
	{"reasoning_content as a list", []string{
		delta(`"reasoning_content":[{"type":"text","text":"p"}]`), delta(`"content":"x"`)}, "x", "p"},
	{"both names of the same thoughts", []string{delta(`"reasoning":"p","reasoning_content":"p"`), delta(`"content":"x"`)},
		"x", "p"},
	{"a list of parts", []string{delta(`"content":[{"type":"thinking","thinking":[{"type":"text","text":"p"}]},` +
		`{"type":"text","text":"x"}]`)}, "x", "p"},
	{"a list with thoughts as a string and a reference", []string{
		delta(`"content":[{"type":"thinking","thinking":"p"},{"type":"reference","reference_ids":[1]}]`),
		delta(`"content":[{"type":"text","text":"x"}]`)}, "x", "p"},
	{"a list of texts", []string{delta(`"content":[{"type":"thinking","thinking":["p"]},"x"]`)}, "x", "p"},
	{"an empty delta beside a message", []string{
		`{"choices":[{"delta":{"role":"assistant","content":""},"message":{"content":"x"}}]}`}, "x", ""},
	{"a byte order mark", []string{delta(`"content":"x"`)}, "x", ""},
	{"reasoning_details that are no list of objects", []string{
		delta(`"content":"x","reasoning":"p","reasoning_details":"p"`), delta(`"reasoning_details":["p"]`)}, "x", "p"},
	{"an error that is none", []string{
		`{"error":"","choices":[{"delta":{"content":"x"}}]}`, `{"error":{},"choices":[{"delta":{},"error":false}]}`},
		"x", ""},
	{"a success as a message", []string{
		`{"code":0,"message":"Success","choices":[{"delta":{"role":"assistant"}}]}`, delta(`"content":"x"`)}, "x", ""},
	{"one part", []string{delta(`"content":{"type":"text","text":"x"}`)}, "x", ""},
	{"a message in place of the delta", []string{`{"choices":[{"message":{"role":"assistant","content":"x"}}]}`}, "x", ""},
	{"a message that repeats the deltas", []string{
		`{"choices":[{"delta":{"content":"x"},"message":{"content":"x"}}]}`,
		`{"choices":[{"delta":{},"message":{"content":"x"}}]}`}, "x", ""},
	{"tags", []string{delta(`"content":"<think>p</think>x"`)}, "x", "p"},
	{"tags in pieces, with white space", []string{
		delta(`"content":"\n<thi"`), delta(`"content":"nk>\n"`), delta(`"content":"p\n"`), delta(`"content":"\n</th"`),
		delta(`"content":"ink>\n"`), delta(`"content":"\nx"`)}, "x", "p"},
	{"tags without thoughts", []string{delta(`"content":"<think>\n\n</think>\n\nx"`)}, "x", ""},
	{"a tag that is never closed", []string{delta(`"content":"<think>p </thin"`)}, "", "p </thin"},
	{"a tag within the text", []string{delta(`"content":"x <think>p</think>"`)}, "x <think>p</think>", ""},
	{"the beginning of another tag", []string{delta(`"content":"<th"`), delta(`"content":">x"`)}, "<th>x", ""},
	{"the beginning of a tag and no more", []string{delta(`"content":"<th"`)}, "<th", ""},
	{"escapes and invalid UTF-8", []string{delta("\"content\":\"\\u0041\xff\"")}, "A\ufffd", ""},
}

func TestTextAndThoughtsAreReadAsServersSendThem(t *testing.T) {
	t.Parallel()
	for _, form := range textForms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			stream := sse(append(form.chunks, stop)...)
			if form.name == "a byte order mark" {
				stream = "\ufeff" + stream
			}
			a := read(t, stream)
			if a.Err != nil || a.Text != form.text || a.Reasoning != form.thoughts {
				t.Errorf("text %q, thoughts %q, error %v", a.Text, a.Reasoning, a.Err)
			}
		})
	}
}

func TestUsageIsReadFromAnyChunkInAnyForm(t *testing.T) {
	t.Parallel()
	want := model.Usage{Input: 3, Output: 4, Total: 7}
	const counts = `"usage":{"prompt_tokens":3,"completion_tokens":4}`
	for name, chunks := range map[string][]string{
		"beside an empty list":   {stop, `{"choices":[],` + counts + `}`},
		"beside an empty delta":  {stop, `{"choices":[{"delta":{}}],` + counts + `}`},
		"in floating point":      {stop, `{"usage":{"prompt_tokens":3.0,"completion_tokens":4.0,"total_tokens":7.0}}`},
		"as texts":               {stop, `{"usage":{"prompt_tokens":"3","completion_tokens":"4"}}`},
		"within the choice":      {strings.Replace(stop, `"delta"`, counts+`,"delta"`, 1)},
		"before zeros":           {`{` + counts + `}`, stop, `{"usage":{"prompt_tokens":0}}`},
		"in each chunk, the sum": {`{"usage":{"prompt_tokens":3,"completion_tokens":1}}`, stop, `{` + counts + `}`},
		"with details that are a list": {stop,
			strings.Replace(`{`+counts+`}`, "4}", `4,"prompt_tokens_details":[]}`, 1)},
		"before another form": {stop, `{` + counts + `}`, `{"usage":[]}`, `{"usage":"","choices":[{"usage":7}]}`},
		"with details that are null": {stop,
			strings.Replace(`{`+counts+`}`, "4}", `4,"prompt_tokens_details":{"cached_tokens":null}}`, 1)},
	} {
		a := read(t, sse(append([]string{delta(`"content":"x"`)}, chunks...)...))
		if a.Err != nil {
			t.Errorf("%s: %v", name, a.Err)
		} else if diff := cmp.Diff(want, a.End.Usage); diff != "" {
			t.Errorf("%s: usage (-want +got):\n%s", name, diff)
		}
	}
	if a := read(t, sse(delta(`"content":"x"`), stop)); a.Err != nil || a.End.Usage != (model.Usage{}) {
		t.Errorf("without usage: %+v %v", a.End, a.Err)
	}
}

func TestAnAnswerThatWasCutIsNotASuccess(t *testing.T) {
	t.Parallel()
	const (
		within = "The model's answer ended within a tool call ("
		none   = "The model's answer ended before it had any text ("
	)
	call := toolDelta(`{"index":0,"id":"c","function":{"name":"noargs","arguments":""}}`)
	whole := toolDelta(`{"index":0,"id":"c","function":{"name":"noargs","arguments":"{}"}}`)
	for _, c := range []struct{ chunk, finish, want string }{
		{call, "length", within + "length); ask for less at once"},
		{whole, "length", within + "length); ask for less at once"},
		{whole, "content_filter", "The model's answer was withheld (content_filter)"},
		{whole, "MAX_TOKENS", within + "MAX_TOKENS); ask for less at once"},
		{whole, "unknown", within + "unknown); ask for less at once"},
		{delta(`"content":""`), "length", none + "length)"},
		{delta(`"reasoning_content":"I think"`), "length", none + "length)"},
		{delta(`"content":""`), "content_filter", "The model's answer was withheld (content_filter)"},
		{delta(`"content":"<think>I thi"`), "length", none + "length)"},
		{delta(`"content":null`), "tool_calls", "The model's answer has neither text nor tool calls (tool_calls)"},
		{delta(`"function_call":{"name":"noargs","arguments":"{}"}`), "function_call",
			"The model's answer has neither text nor tool calls (function_call)"},
		{delta(`"content":"half"`), "insufficient_system_resource",
			"The model's server stopped the answer (insufficient_system_resource)"},
	} {
		a := read(t, sse(c.chunk, strings.Replace(stop, "stop", c.finish, 1)))
		if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.want {
			t.Errorf("%s with %s: error %v, want the public text %q", c.chunk, c.finish, a.Err, c.want)
		}
	}
	for _, c := range []struct{ chunk, finish string }{
		{delta(`"content":"half"`), "length"}, {delta(`"content":"half"`), "content_filter"}, {delta(`"content":""`), "stop"},
		{delta(`"content":"half"`), "tool_calls"},
		{whole, "STOP"}, {whole, "function_call"}, {whole, "end_turn"},
	} {
		a := read(t, sse(c.chunk, strings.Replace(stop, "stop", c.finish, 1)))
		if a.Err != nil || a.End.FinishReason != c.finish {
			t.Errorf("%s with %s: end %+v, error %v", c.chunk, c.finish, a.End, a.Err)
		}
	}
}

func TestAnErrorWithinAStreamIsFoundInAnyForm(t *testing.T) {
	t.Parallel()
	for _, event := range []string{
		`{"error":{"message":"M","code":"500"}}`, `{"error":"M"}`, `[{"error":{"message":"M"}}]`, `{"detail":"M"}`,
		`{"detail":[{"msg":"M"}]}`, `{"object":"error","message":"M","code":400}`, `{"choices":null,"error":{"message":"M"}}`,
		`{"choices":[{"delta":{"content":""},"finish_reason":"error","error":{"code":502,"message":"M"}}]}`,
	} {
		a := read(t, sse(delta(`"content":"x"`), event))
		if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != "M" {
			t.Errorf("%s: error %v", event, a.Err)
		}
	}
	a := read(t, sse(delta(`"role":"assistant"`), `{"type":"ping"}`, delta(`"content":"x"`), stop))
	if a.Err != nil || a.Text != "x" {
		t.Errorf("events of other kinds: text %q, error %v", a.Text, a.Err)
	}
}

// whole answers a request with a body of this type.
func whole(contentType, body string) *http.Client {
	client := canned(body, nil)
	inner := client.Transport
	client.Transport = modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		resp, err := inner.RoundTrip(r)
		resp.Header.Set("Content-Type", contentType)
		return resp, err
	})
	return client
}

func TestAnAnswerMayComeInTheOtherFormThanWasAskedFor(t *testing.T) {
	t.Parallel()
	const completion = `{"id":"c1","choices":[{"message":{"content":"x","reasoning_content":"p","tool_calls":[` +
		`{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"a","function":{"name":"f","arguments":"{}"}}]},` +
		`"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1}}`
	twice := model.ToolCall{ID: "a", Name: "f", Arguments: "{}"}
	for _, asked := range []bool{false, true} {
		r := modeltest.Ask("hello")
		r.Whole = asked
		m := openai.NewChat(openai.Options{ID: "m", HTTPClient: whole("application/json; charset=utf-8", completion)})
		a := modeltest.Collect(t.Context(), t, m, r)
		if a.Err != nil || a.Text != "x" || a.Reasoning != "p" {
			t.Fatalf("in one piece, whole %v: %+v", asked, a)
		}
		if diff := cmp.Diff([]model.ToolCall{twice, twice}, a.End.ToolCalls); diff != "" {
			t.Errorf("in one piece, whole %v (-want +got):\n%s", asked, diff)
		}
		for _, contentType := range []string{"text/event-stream", "text/plain", "application/json", ""} {
			stream := ": wait\n\n" + sse(delta(`"content":"x"`), stop)
			m = openai.NewChat(openai.Options{ID: "m", HTTPClient: whole(contentType, stream)})
			if a := modeltest.Collect(t.Context(), t, m, r); a.Err != nil || a.Text != "x" {
				t.Errorf("as a stream of the type %q, whole %v: %+v", contentType, asked, a)
			}
			m = openai.NewChat(openai.Options{ID: "m", HTTPClient: whole(contentType, "\n"+completion)})
			if a := modeltest.Collect(t.Context(), t, m, r); a.Err != nil || a.Text != "x" {
				t.Errorf("in one piece of the type %q, whole %v: %+v", contentType, asked, a)
			}
			m = openai.NewChat(openai.Options{ID: "m", HTTPClient: whole(contentType, `{"error":{"message":"M"}}`)})
			if a := modeltest.Collect(t.Context(), t, m, r); fault.Detail(a.Err) != "M" {
				t.Errorf("an error of the type %q, whole %v: %v", contentType, asked, a.Err)
			}
		}
	}
}

// conversation returns the messages of the second request: after the user's message, the answer that the model gave to
// the first one and a result for each of its calls.
func conversation(t *testing.T, chunks ...string) []any {
	t.Helper()
	return conversationWith(t, "m", func(m model.Message) model.Message { return m }, chunks...)
}

// conversationWith is conversation with an answer that was changed before it is sent back, to a model of this ID.
func conversationWith(t *testing.T, id string, change func(model.Message) model.Message, chunks ...string) []any {
	t.Helper()
	a := read(t, sse(append(chunks, strings.Replace(stop, "stop", "tool_calls", 1))...))
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	answer := model.Message{
		Role: model.Assistant, Content: a.Text, Reasoning: a.Reasoning, ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque,
		ProviderData: a.Parts[len(a.Parts)-1].ProviderData,
	}
	r := modeltest.Ask("hello")
	r.Messages = append(r.Messages, change(answer))
	for _, c := range a.End.ToolCalls {
		r.Messages = append(r.Messages, model.Message{Role: model.ToolRole, ToolCallID: c.ID, Content: "done"})
	}
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	modeltest.Collect(t.Context(), t, open(t, srv, openai.Options{ID: id}), r)
	messages, _ := srv.Requests()[0].Body["messages"].([]any)
	return messages[1:]
}

// sent returns an assistant's message as it is sent, with a call of echo.
func sent(id string, extra object, call object) object {
	out := object{"role": "assistant", "content": "", "tool_calls": []any{merged(object{
		"id": id, "type": "function", "function": object{"name": "echo", "arguments": "{}"},
	}, call)}}
	return merged(out, extra)
}

func merged(to, from object) object {
	for name, value := range from {
		to[name] = value
	}
	return to
}

const echo = `{"index":0,"id":"c","function":{"name":"echo","arguments":"{}"}}`

func TestServersGetBackWhatTheyRequire(t *testing.T) {
	t.Parallel()
	signed := `{"index":0,"id":"c","extra_content":{"google":{"thought_signature":"S"}},` +
		`"function":{"name":"echo","arguments":"{}"}}`
	signature := object{"extra_content": object{"google": object{"thought_signature": "S"}}}
	for name, c := range map[string]struct {
		chunks []string
		want   object
	}{
		"DeepSeek's thoughts": {
			[]string{delta(`"reasoning_content":"I "`), delta(`"reasoning_content":"think"`), toolDelta(echo)},
			sent("c", object{"reasoning_content": "I think"}, nil),
		},
		"Gemini's signature": {[]string{toolDelta(signed)}, sent("c", nil, signature)},
		"Gemini's signature of the answer": {
			[]string{delta(`"content":"","extra_content":{"google":{"thought_signature":"S"}}`), toolDelta(echo)},
			sent("c", signature, nil),
		},
		"OpenRouter's details": {
			[]string{
				delta(`"reasoning":"I ","reasoning_details":[{"type":"reasoning.text","index":0,"text":"I "}]`),
				delta(`"reasoning":"think","reasoning_details":[{"type":"reasoning.text","index":0,"text":"think"}]`),
				delta(`"reasoning_details":[{"type":"reasoning.text","index":0,"text":null,"signature":"S"}]`),
				delta(`"reasoning_details":[{"type":"reasoning.encrypted","index":1,"data":"E"}]`), toolDelta(echo),
			},
			sent("c", object{"reasoning_details": []any{
				object{"type": "reasoning.text", "index": 0.0, "text": "I think", "signature": "S"},
				object{"type": "reasoning.encrypted", "index": 1.0, "data": "E"},
			}}, nil),
		},
		"nothing of other thoughts (Groq refuses them)": {
			[]string{delta(`"reasoning":"I think"`), toolDelta(echo)}, sent("c", nil, nil),
		},
		"nothing of thoughts in tags": {
			[]string{delta(`"content":"<think>I think</think>"`), toolDelta(echo)}, sent("c", nil, nil),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(any(c.want), conversation(t, c.chunks...)[0]); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// DeepSeek requires the thoughts of a turn with calls in all later requests, also in those of later runs. The history
// of a session has no Opaque.
func TestThoughtsGoBackFromTheHistoryOfASession(t *testing.T) {
	t.Parallel()
	history := func(m model.Message) model.Message {
		m.Opaque = nil
		return m
	}
	for id, extra := range map[string]object{
		"m":       {"reasoning_content": "I think"},
		"another": nil, // Groq refuses DeepSeek's thoughts when an agent moves from one to the other
	} {
		got := conversationWith(t, id, history, delta(`"reasoning_content":"I think"`), toolDelta(echo))
		want := sent("c", extra, nil)
		if diff := cmp.Diff(any(want), got[0]); diff != "" {
			t.Errorf("message to %s (-want +got):\n%s", id, diff)
		}
	}
	alone := conversation(t, delta(`"reasoning_content":"I think"`), delta(`"content":"hi"`))
	if diff := cmp.Diff(any(object{"role": "assistant", "content": "hi"}), alone[0]); diff != "" {
		t.Errorf("without calls (-want +got):\n%s", diff)
	}
}

// DeepSeek's first chunk has an empty reasoning_content, also if no thoughts follow, and DeepSeek wants that back.
// In a turn with calls it wants the member in every answer, also in that of another model.
func TestAModelThatSendsThoughtsGetsTheirMemberInAllAnswersOfATurnWithCalls(t *testing.T) {
	t.Parallel()
	a := read(t, sse(delta(`"role":"assistant","content":null,"reasoning_content":""`), toolDelta(echo),
		strings.Replace(stop, "stop", "tool_calls", 1)))
	if a.Err != nil || a.Reasoning != "" {
		t.Fatal(a.Reasoning, a.Err)
	}
	call := func(m model.Message) []model.Message {
		m.Role, m.ToolCalls = model.Assistant, []model.ToolCall{{ID: "c", Name: "echo", Arguments: "{}"}}
		return []model.Message{m, {Role: model.ToolRole, ToolCallID: "c", Content: "done"}}
	}
	user := model.Message{Role: model.User, Content: "and?"}
	r := modeltest.Ask("hello")
	r.Messages = append(r.Messages, model.Message{Role: model.Assistant, Content: "alone"}, user)
	r.Messages = append(r.Messages, call(model.Message{Reasoning: "another model's"})...)
	r.Messages = append(r.Messages, model.Message{Role: model.Assistant, Content: "at the end"}, user)
	r.Messages = append(r.Messages, call(model.Message{ProviderData: a.Parts[len(a.Parts)-1].ProviderData})...)
	for id, want := range map[string][]any{"m": {nil, "", "", ""}, "another": {nil, nil, nil, nil}} {
		srv := modeltest.NewServer(t, modeltest.Text("done"))
		modeltest.Collect(t.Context(), t, open(t, srv, openai.Options{ID: id}), r)
		var got []any
		messages, _ := srv.Requests()[0].Body["messages"].([]any)
		for _, m := range messages {
			if m, _ := m.(map[string]any); m["role"] == "assistant" {
				got = append(got, m["reasoning_content"])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("reasoning_content to %s (-want +got):\n%s", id, diff)
		}
	}
}

func TestArgumentsThatAreNotAnObjectGoBackAsAnEmptyOne(t *testing.T) {
	t.Parallel()
	for _, arguments := range []string{`"{\"text\":"`, `""`, `"null"`, `"[1]"`, `"{} {}"`} {
		got := conversation(t, toolDelta(`{"index":0,"id":"c","function":{"name":"echo","arguments":`+arguments+`}}`))
		if diff := cmp.Diff(any(sent("c", nil, nil)), got[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", arguments, diff)
		}
	}
}

func TestNamesOfToolsFitTheAPIAndAreMappedBack(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65)
	srv := modeltest.NewServer(t, modeltest.ToolCall("files_read", "{}"), modeltest.Text("done"))
	m := open(t, srv, openai.Options{})
	r := modeltest.Ask("hello")
	r.Tools = []model.ToolSpec{{Name: "files.read"}, {Name: long}}
	a := modeltest.Collect(t.Context(), t, m, r)
	if a.Err != nil || len(a.End.ToolCalls) != 1 || a.End.ToolCalls[0].Name != "files.read" {
		t.Fatalf("%+v", a)
	}
	r.Messages = append(r.Messages, model.Message{Role: model.Assistant, ToolCalls: a.End.ToolCalls},
		model.Message{Role: model.ToolRole, ToolCallID: a.End.ToolCalls[0].ID})
	modeltest.Collect(t.Context(), t, m, r)
	body := srv.Requests()[1].Body
	tools, _ := body["tools"].([]any)
	want := []any{
		object{"type": "function", "function": object{"name": "files_read"}},
		object{"type": "function", "function": object{"name": long[:64]}},
	}
	if diff := cmp.Diff(want, tools); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
	messages, _ := body["messages"].([]any)
	calls, _ := messages[1].(object)["tool_calls"].([]any)
	if got := calls[0].(object)["function"].(object)["name"]; got != "files_read" {
		t.Errorf("the history names %v", got)
	}
}
