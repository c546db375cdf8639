package openai_test

import (
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

// canned returns a client that answers every request with this stream. If got isn't
// nil, it receives the last request.
func canned(body string, got **http.Request) *http.Client {
	return &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		if got != nil {
			*got = r
		}
		_ = r.Body.Close()
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r,
		}, nil
	})}
}

// read returns the model's answer from a stream.
func read(t *testing.T, stream string) modeltest.Answer {
	t.Helper()
	m := openai.NewChat(openai.Options{ID: "m", HTTPClient: canned(stream, nil)})
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

// sse returns a stream of chunks.
func sse(chunks ...string) string { return "data: " + strings.Join(chunks, "\n\ndata: ") + "\n\n" }

const stop = `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`

func TestTextIsReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	hi := `{"id":"c1","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}`
	for name, stream := range map[string]string{
		"as OpenAI does":                   sse(hi, stop, "[DONE]"),
		"without [DONE]":                   sse(hi, stop),
		"without a space after the colon":  strings.ReplaceAll(sse(hi, stop, "[DONE]"), "data: ", "data:"),
		"with CRLF":                        strings.ReplaceAll(sse(hi, stop, "[DONE]"), "\n", "\r\n"),
		"with comments, names, ids, retry": ": ping\n\nevent: x\nid: 1\nretry: 5\n" + sse(hi) + ":\n" + sse(stop),
		"one value on two data lines": "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"hi\"}}]}\n\n" +
			sse(stop),
		"without a last blank line":           strings.TrimSpace(sse(hi, stop)),
		"the end in the same chunk":           sse(strings.Replace(hi, "null", `"stop"`, 1)),
		"as a refusal":                        sse(strings.Replace(hi, "content", "refusal", 1), stop),
		"as a refusal beside an empty text":   sse(strings.Replace(hi, `"content"`, `"content":"","refusal"`, 1), stop),
		"after Azure's chunk without choices": sse(`{"id":"","choices":[],"prompt_filter_results":[]}`, hi, stop),
		"with a null error":                   sse(strings.Replace(hi, `{"id"`, `{"error":null,"id"`, 1), stop),
		"with unknown members": sse(
			strings.Replace(hi, `{"id"`, `{"obfuscation":"xxxx","service_tier":{},"id"`, 1), stop),
		"after a null content": sse(`{"id":"c1","choices":[{"delta":{"content":null}}]}`, hi, stop),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := read(t, stream)
			if a.Err != nil || a.Text != "hi" || a.End.FinishReason != "stop" {
				t.Errorf("text %q, end %+v, error %v", a.Text, a.End, a.Err)
			}
			if len(a.Parts) != 2 {
				t.Errorf("%d parts, want the text and the end", len(a.Parts))
			}
		})
	}
}

func TestToolCallsAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	delta := func(calls string) string {
		return `{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[` + calls + `]}}]}`
	}
	want := []model.ToolCall{{ID: "a", Name: "first", Arguments: `{"x":1}`}, {ID: "b", Name: "second", Arguments: `{}`}}
	for name, stream := range map[string]string{
		"whole, in one chunk": sse(delta(`{"index":0,"id":"a","function":{"name":"first","arguments":"{\"x\":1}"}},
			{"index":1,"id":"b","function":{"name":"second","arguments":"{}"}}`), stop),
		"the second one first": sse(
			delta(`{"index":1,"id":"b","function":{"name":"second","arguments":"{}"}}`),
			delta(`{"index":0,"id":"a","function":{"name":"first","arguments":"{\"x\":1}"}}`), stop),
		"name and arguments in pieces, the id repeated": sse(
			delta(`{"index":0,"id":"a","function":{"name":"fi"}},{"index":7,"id":"b","function":{"name":"sec"}}`),
			delta(`{"index":0,"id":"a","function":{"name":"rst","arguments":"{\"x\""}}`),
			delta(`{"index":7,"id":"b","function":{"name":"ond","arguments":"{}"}}`),
			delta(`{"index":0,"id":"a","function":{"arguments":":1}"}}`), stop),
	} {
		t.Run(strings.ReplaceAll(name, "\n", " "), func(t *testing.T) {
			t.Parallel()
			a := read(t, strings.ReplaceAll(stream, ",\n", ","))
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			if diff := cmp.Diff(want, a.End.ToolCalls); diff != "" {
				t.Errorf("tool calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissingIdentifiersAreLeftOut(t *testing.T) {
	t.Parallel()
	for chunk, want := range map[string]string{
		`{"id":"c1","choices":[{"delta":{"content":"a"}}]}`: `{"id":"c1"}`,
		`{"system_fingerprint":null,"id":"c1"}`:             `{"id":"c1"}`,
		`{"choices":[{"delta":{"content":"a"}}]}`:           ``,
	} {
		a := read(t, sse(chunk, strings.Replace(stop, `"id":"c1",`, "", 1)))
		if got := string(a.Parts[len(a.Parts)-1].ProviderData); got != want {
			t.Errorf("%s: provider data %s, want %s", chunk, got, want)
		}
	}
}

func TestAMissingTotalIsInputPlusOutput(t *testing.T) {
	t.Parallel()
	const usage = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":null}}`
	a := read(t, sse(stop, usage))
	if diff := cmp.Diff(model.Usage{Input: 3, Output: 4, Total: 7}, a.End.Usage); diff != "" {
		t.Error(diff)
	}
}

func TestTheFinishReasonIsPassedOn(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Text("too lo").Finish("length"))
	if a.Err != nil || a.End.FinishReason != "length" {
		t.Errorf("end %+v, error %v", a.End, a.Err)
	}
}

func TestAnAnswerWithFinishReasonIsCompleteWhateverFollows(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Text("whole").Raw("data: "+stop+"\n\n").Drop())
	if a.Err != nil || a.Text != "whole" || a.End.FinishReason != "stop" {
		t.Errorf("text %q, end %+v, error %v", a.Text, a.End, a.Err)
	}
	for _, rest := range []string{"data: [DO", "data: <html>\n\n", `data: {"usage":`, "data: [DONE]\n\ndata: x"} {
		if a := read(t, sse(delta(`"content":"whole"`), stop)+rest); a.Err != nil || a.Text != "whole" {
			t.Errorf("followed by %q: text %q, error %v", rest, a.Text, a.Err)
		}
	}
}

func TestAnInvalidStreamIsAnError(t *testing.T) {
	t.Parallel()
	const (
		noAnswer = "The model's server sent something that is not an answer"
		cutShort = "The model's answer ended before it was complete"
		tooLong  = "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once"
	)
	for _, c := range []struct{ name, stream, detail string }{
		{"not JSON", sse("<html>"), noAnswer},
		{"another form of JSON", sse(`{"choices":"none"}`), noAnswer},
		{"a list", sse(`[1,2]`), noAnswer},
		{"two events that make one value only together", "data: {\"choices\":\n\n" + sse(stop), cutShort},
		{"nothing at all", "", cutShort},
		{"[DONE] at once", sse("[DONE]"), cutShort},
		{"an event cut in two", `data: {"id":"c1","choices":[{"delta":{"content":"hal`, cutShort},
		{"an error in OpenAI's form", sse(`{"error":{"message":"out of memory","code":500}}`), "out of memory"},
		{"an error as a string", sse(`{"error":"out of memory"}`), "out of memory"},
		{"an error after the end mark", sse(stop, `{"error":{"message":"overloaded"}}`), "overloaded"},
		{"an error without a text", sse(`{"error":{"message":""}}`), noAnswer},
		{"an empty error", sse(`{"error":{}}`), cutShort},
		{"a line of more than 10 MB", sse(strings.Repeat(" ", 11<<20)), tooLong},
		{"a value that is nested without end", strings.Repeat("data: "+strings.Repeat("[", 4<<10)+"\n", 8), noAnswer},
		{"a value of more than 10 MB on many lines",
			`data: {"x":[` + strings.Repeat("\ndata: 1"+strings.Repeat("0", 64<<10)+",", 176), tooLong},
		{"arguments of more than 10 MB", strings.Repeat(sse(`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"`+
			strings.Repeat("x", 1<<20)+`"}}]}}]}`), 11), tooLong},
		{"IDs of more than 10 MB",
			strings.Repeat(sse(`{"choices":[{"delta":{"tool_calls":[{"id":"`+strings.Repeat("x", 1<<20)+`"}]}}]}`), 11),
			tooLong},
		{"more calls than a request has tools", manyCalls(129), tooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := read(t, c.stream)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v, want the public text %q", a.Err, c.detail)
			}
		})
	}
}

func manyCalls(n int) (stream string) {
	for i := range n {
		stream += sse(fmt.Sprintf(`{"choices":[{"delta":{"tool_calls":[{"index":%d}]}}]}`, i))
	}
	return stream + sse(stop)
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(sse(`{"id":"c1","choices":[{"delta":{"content":"a"}}]}`, stop, "[DONE]")))
	const call = `{"choices":[{"delta":{"tool_calls":[{"index":-1,"function":{"name":"f"}}]},` +
		`"finish_reason":"tool_calls"}]}`
	f.Add([]byte(sse(call)))
	f.Add([]byte(sse(`{"error":{"message":"m"}}`)))
	f.Add([]byte("data:\r\n: c\ndata: {\ndata: }\n\n"))
	for _, form := range callForms {
		f.Add([]byte(sse(append(form.chunks, stop)...)))
	}
	for _, form := range textForms {
		f.Add([]byte(sse(append(form.chunks, stop)...)))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		a := read(t, string(stream))
		if a.End != nil && a.End.FinishReason == "" {
			t.Errorf("the end %+v has no finish reason", a.End)
		}
		if a.End != nil && strings.EqualFold(a.End.FinishReason, "length") && len(a.End.ToolCalls) > 0 {
			t.Errorf("calls of an answer that was cut: %+v", a.End)
		}
		if a.Err != nil && (fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) == "") {
			t.Errorf("error %v, want an error of the provider with a public text", a.Err)
		}
	})
}
