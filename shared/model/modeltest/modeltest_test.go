package modeltest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/smithy-go/eventstream"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// post sends a chat request and returns the status and the body as far as it came.
func post(t *testing.T, srv *modeltest.Server, body string) (status int, stream string, err error) {
	t.Helper()
	url := srv.URL + "/chat/completions"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk-secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

const ask = `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`

// chunk returns a chat completion chunk of the first answer.
func chunk(choices, usage string) string {
	return `data: {"choices":[` + choices + `],"created":1700000000,"id":"chatcmpl-1","model":"m",` +
		`"object":"chat.completion.chunk","system_fingerprint":"fp_modeltest","usage":` + usage + "}\n\n"
}

func delta(d, finish string) string {
	return chunk(`{"delta":`+d+`,"finish_reason":`+finish+`,"index":0,"logprobs":null}`, "null")
}

var opening = delta(`{"content":"","refusal":null,"role":"assistant"}`, "null")

func TestScriptsBecomeChatCompletionStreams(t *testing.T) {
	t.Parallel()
	total := chunk("", `{"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":2},"prompt_tokens":10,`+
		`"prompt_tokens_details":{"cache_write_tokens":0,"cached_tokens":3},"total_tokens":15}`)
	const done = "data: [DONE]\n\n"
	call := func(c string) string { return delta(`{"tool_calls":[`+c+`]}`, "null") }
	for _, c := range []struct {
		name   string
		script modeltest.Script
		want   string
	}{
		{"the zero script", modeltest.Script{}, opening + delta("{}", `"stop"`) + total + done},
		{"text", modeltest.Text("a", "é<").NoUsage(),
			opening + delta(`{"content":"a"}`, "null") + delta(`{"content":"é<"}`, "null") + delta("{}", `"stop"`) + done},
		{"parallel calls", modeltest.ToolCall("f", `{"é":1}`).ToolCall("g", "{}").NoUsage(), opening +
			call(`{"function":{"arguments":"","name":"f"},"id":"call_1_1","index":0,"type":"function"}`) +
			call(`{"function":{"arguments":"","name":"g"},"id":"call_1_2","index":1,"type":"function"}`) +
			call(`{"function":{"arguments":"{\"é"},"index":0}`) +
			call(`{"function":{"arguments":"{}"},"index":1}`) +
			call(`{"function":{"arguments":"\":1"},"index":0}`) +
			call(`{"function":{"arguments":"}"},"index":0}`) +
			delta("{}", `"tool_calls"`) + done},
		{"a clean end without end marks", modeltest.Text("a").Truncate(), opening + delta(`{"content":"a"}`, "null")},
		{"raw bytes", modeltest.Script{}.Raw("oops").Truncate(), "oops"},
		{"another reason", modeltest.Script{}.Finish("length").NoUsage(), opening + delta("{}", `"length"`) + done},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, got, err := post(t, modeltest.NewServer(t, c.script), ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("stream (-want +got):\n%s", diff)
			}
		})
	}
}

func TestACharacterOutsideASCIIIsSentInTwoWrites(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("naïve"))
	host := strings.TrimSuffix(strings.TrimPrefix(srv.URL, "http://"), "/v1")
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+
		"Content-Length: 15\r\n\r\n{\"stream\":true}")
	raw, err := io.ReadAll(c)
	if err != nil || !bytes.Contains(raw, []byte("na\xc3\r\n")) || !bytes.Contains(raw, []byte("\r\n\xafve")) {
		t.Errorf("HTTP chunks %q, error %v: none ends within the ï", raw, err)
	}
}

func TestUsageComesOnlyOnRequest(t *testing.T) {
	t.Parallel()
	_, got, _ := post(t, modeltest.NewServer(t, modeltest.Text("a")), `{"stream":true}`)
	if strings.Contains(got, "prompt_tokens") {
		t.Errorf("usage in %s", got)
	}
}

func TestADroppedConnectionBreaksTheBody(t *testing.T) {
	t.Parallel()
	_, got, err := post(t, modeltest.NewServer(t, modeltest.Text("a").Drop()), ask)
	if !errors.Is(err, io.ErrUnexpectedEOF) || got != opening+delta(`{"content":"a"}`, "null") {
		t.Errorf("body %q, error %v, want what came first and an unexpected end", got, err)
	}
}

func TestAFailureIsAnHTTPErrorInOpenAIsForm(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(429, "slow down"), modeltest.Fail(502, "").Raw("<html>"))
	status, body, _ := post(t, srv, ask)
	want := `{"error":{"code":null,"message":"slow down","param":null,"type":"scripted"}}` + "\n"
	if status != 429 || body != want {
		t.Errorf("status %d, body %s", status, body)
	}
	if status, body, _ = post(t, srv, ask); status != 502 || body != "<html>" {
		t.Errorf("status %d, body %s", status, body)
	}
}

func TestRequestsAreKeptWithoutCredentials(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		return modeltest.Text(fmt.Sprint(r.N, r.Body["model"]))
	})
	_, _, _ = post(t, srv, ask)
	if _, got, _ := post(t, srv, ask); !strings.Contains(got, `"2m"`) {
		t.Errorf("the second answer is %s", got)
	}
	r := srv.Requests()[1]
	if r.N != 2 || r.Path != "/v1/chat/completions" || r.Body["stream"] != true || r.Header.Get("Authorization") != "***" {
		t.Errorf("request %+v", r)
	}
}

func TestAScriptIsAValue(t *testing.T) {
	t.Parallel()
	base := modeltest.Text("a").NoUsage()
	first, second := base.Text("b").Header("X", "1"), base.Text("c").Header("X", "2")
	for script, want := range map[*modeltest.Script]string{&first: `"b"`, &second: `"c"`} {
		if _, got, _ := post(t, modeltest.NewServer(t, *script), ask); !strings.Contains(got, want) {
			t.Errorf("stream %s, want %s in it", got, want)
		}
	}
}

// recorder records the failures of a test that is expected to fail.
type recorder struct {
	testing.TB
	failures bytes.Buffer
}

func (*recorder) Helper()                           {}
func (r *recorder) Error(args ...any)               { fmt.Fprintln(&r.failures, args...) }
func (r *recorder) Errorf(form string, args ...any) { fmt.Fprintf(&r.failures, form+"\n", args...) }

func TestARequestWithoutAScriptFailsTheTest(t *testing.T) {
	t.Parallel()
	rec := &recorder{TB: t}
	status, _, _ := post(t, modeltest.NewServer(rec), ask)
	if status != 500 || !strings.Contains(rec.failures.String(), "no script is left") {
		t.Errorf("status %d, failures %q", status, rec.failures.String())
	}
}

// parts is a model that yields its elements: parts and errors.
type parts []any

func (parts) Describe() model.Description { return model.Description{} }

func (p parts) Stream(context.Context, model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		for _, v := range p {
			part, _ := v.(model.Part)
			err, _ := v.(error)
			if !yield(part, err) {
				return
			}
		}
	}
}

func TestCollectFailsOnASequenceThatBreaksARule(t *testing.T) {
	t.Parallel()
	text, end, err := model.Part{Text: "a"}, model.Part{End: &model.End{}}, errors.New("lost")
	for _, c := range []struct {
		name string
		m    parts
		want string // "" for a sequence that breaks no rule
	}{
		{"text and end", parts{text, end}, ""},
		{"text and error", parts{text, err}, ""},
		{"nothing", parts{}, "neither an error nor an end"},
		{"no end", parts{text}, "neither an error nor an end"},
		{"text after the end", parts{end, text}, "after the end"},
		{"text after an error", parts{err, text}, "after the end"},
		{"two ends", parts{end, end}, "after the end"},
		{"an end with text", parts{model.Part{Text: "a", End: &model.End{}}}, "has the text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec := &recorder{TB: t}
			modeltest.Collect(t.Context(), rec, c.m, modeltest.Ask("hello"))
			got := rec.failures.String()
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("failures %q, want %q", got, c.want)
			}
		})
	}
}

func TestScriptsBecomeResponsesStreamsByThePath(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("a", "é").ToolCall("f", "{ }!").NoUsage())
	resp, err := http.Post(srv.URL+"/responses", "application/json", strings.NewReader(`{"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, frame := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		name, data, _ := strings.Cut(strings.TrimPrefix(frame, "event: "), "\ndata: ")
		if !strings.Contains(data, fmt.Sprintf(`"sequence_number":%d,`, i)) || !strings.Contains(data, `"type":"`+name+`"`) {
			t.Errorf("event %d is %s", i, frame)
		}
		names = append(names, strings.TrimPrefix(name, "response."))
	}
	want := "created in_progress output_item.added content_part.added output_text.delta output_text.delta " +
		"output_text.done content_part.done output_item.done output_item.added function_call_arguments.delta " +
		"function_call_arguments.delta function_call_arguments.done output_item.done completed"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("events %s", got)
	}
	for _, part := range []string{
		`"text":"aé"`, `"id":"msg_1_0"`, `"output_index":1`, `"call_id":"fc_call_1_1_api"`, `"id":"fc_call_1_1"`,
		`"arguments":"{ }!"`, `"id":"resp_1"`,
	} {
		if !strings.Contains(string(raw), part) {
			t.Errorf("%s is not in %s", part, raw)
		}
	}
}

func TestAWholeResponseIsTheLastOneOfItsStream(t *testing.T) {
	t.Parallel()
	script := modeltest.Text("a", "é").ToolCall("f", "{ }!").Finish("max_output_tokens")
	srv := modeltest.NewServer(t, script, script)
	var bodies []string
	for _, stream := range []string{"true", "false"} {
		asked := strings.NewReader(`{"model":"m","stream":` + stream + `}`)
		resp, err := http.Post(srv.URL+"/responses", "application/json", asked)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		first := strings.NewReplacer("resp_2", "resp_1", "msg_2_", "msg_1_", "call_2_", "call_1_")
		bodies = append(bodies, first.Replace(string(raw)))
	}
	last := bodies[0][strings.LastIndex(bodies[0], "data: "):]
	if whole := strings.TrimSpace(bodies[1]); !strings.Contains(last, `"response":`+whole) {
		t.Errorf("%s is not in %s", whole, last)
	}
}

func TestScriptsBecomeConverseStreamsByThePath(t *testing.T) {
	t.Parallel()
	exception := modeltest.Frame("exception", "oops", "{}")
	srv := modeltest.NewServer(t, modeltest.Text("a", "é").ToolCall("f", "{ }!").Raw(exception))
	resp, err := http.Post(srv.URL+"/model/m%3A0/converse-stream", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []string
	for {
		m, err := eventstream.NewDecoder().Decode(resp.Body, nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind := m.Headers.Get(":message-type").String()
		got = append(got, m.Headers.Get(":"+kind+"-type").String()+" "+strings.TrimSpace(string(m.Payload)))
	}
	want := []string{
		`messageStart {"role":"assistant"}`,
		`contentBlockDelta {"contentBlockIndex":0,"delta":{"text":"a"}}`,
		`contentBlockDelta {"contentBlockIndex":0,"delta":{"text":"é"}}`,
		`contentBlockStop {"contentBlockIndex":0}`,
		`contentBlockStart {"contentBlockIndex":1,"start":{"toolUse":{"name":"f","toolUseId":"call_1_1"}}}`,
		`contentBlockDelta {"contentBlockIndex":1,"delta":{"toolUse":{"input":"{ }"}}}`,
		`contentBlockDelta {"contentBlockIndex":1,"delta":{"toolUse":{"input":"!"}}}`,
		`contentBlockStop {"contentBlockIndex":1}`,
		`oops {}`,
		`messageStop {"stopReason":"tool_use"}`,
		`metadata {"metrics":{"latencyMs":1},"usage":{"cacheReadInputTokens":3,"cacheWriteInputTokens":0,` +
			`"inputTokens":10,"outputTokens":5,"totalTokens":15}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/vnd.amazon.eventstream" {
		t.Errorf("content type %q", kind)
	}
}

func TestScriptsBecomeMessagesStreamsByThePath(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("a", "é").ToolCall("f", "{ }!").Raw("event: error\ndata: oops\n\n"))
	resp, err := http.Post(srv.URL+"/messages", "application/json", strings.NewReader(`{"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	const tokens = `"output_tokens_details":{"thinking_tokens":2}`
	want := []string{
		`message_start {"message":{"content":[],"id":"msg_1","model":"m","role":"assistant","stop_reason":null,` +
			`"stop_sequence":null,"type":"message","usage":{"cache_creation_input_tokens":0,"cache_read_input_tokens":3,` +
			`"input_tokens":10,"output_tokens":1,"service_tier":"standard"}},"type":"message_start"}`,
		`ping {"type":"ping"}`,
		`content_block_start {"content_block":{"text":"","type":"text"},"index":0,"type":"content_block_start"}`,
		`content_block_delta {"delta":{"text":"a","type":"text_delta"},"index":0,"type":"content_block_delta"}`,
		`content_block_delta {"delta":{"text":"é","type":"text_delta"},"index":0,"type":"content_block_delta"}`,
		`content_block_stop {"index":0,"type":"content_block_stop"}`,
		`content_block_start {"content_block":{"id":"call_1_1","input":{},"name":"f","type":"tool_use"},"index":1,` +
			`"type":"content_block_start"}`,
		`content_block_delta {"delta":{"partial_json":"","type":"input_json_delta"},"index":1,"type":"content_block_delta"}`,
		`content_block_delta {"delta":{"partial_json":"{ }","type":"input_json_delta"},"index":1,` +
			`"type":"content_block_delta"}`,
		`content_block_delta {"delta":{"partial_json":"!","type":"input_json_delta"},"index":1,"type":"content_block_delta"}`,
		`content_block_stop {"index":1,"type":"content_block_stop"}`,
		`error oops`,
		`message_delta {"delta":{"stop_reason":"tool_use","stop_sequence":null},"type":"message_delta",` +
			`"usage":{"output_tokens":5,` + tokens + `}}`,
		`message_stop {"type":"message_stop"}`,
	}
	var got []string
	for frame := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n\n") {
		name, data, _ := strings.Cut(strings.TrimPrefix(frame, "event: "), "\ndata: ")
		got = append(got, name+" "+data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAnHTTPErrorOfMessagesHasAnthropicsForm(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(529, "Overloaded"))
	resp, err := http.Post(srv.URL+"/messages", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	want := `{"error":{"message":"Overloaded","type":"overloaded_error"},"request_id":"req_scripted",` +
		`"type":"error"}` + "\n"
	if err != nil || resp.StatusCode != 529 || string(raw) != want {
		t.Errorf("status %d, body %s, error %v", resp.StatusCode, raw, err)
	}
}

// A form that changes nothing would let every model pass.
func TestEachFormChangesTheAnswersOfSomeAPI(t *testing.T) {
	t.Parallel()
	script := modeltest.Script{}.Thoughts("hm").Text("hi").ToolCall("f", `{"n":1}`).ToolCall("g", `{"n":2}`)
	answer := func(s modeltest.Script, path, body string) string {
		srv := modeltest.NewServer(t, s)
		resp, err := http.Post(srv.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	apis := map[string]string{
		"/chat/completions": ask, "/responses": `{"stream":true}`, "/messages": `{"stream":true}`,
		"/model/m/converse-stream": `{}`,
	}
	for _, form := range modeltest.Forms {
		changed := 0
		for path, body := range apis {
			if answer(script, path, body) != answer(script.As(form), path, body) {
				changed++
			}
		}
		if changed == 0 {
			t.Errorf("%s changes nothing", form)
		}
	}
}
