package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/wire"
)

func head(name string) wire.Head {
	return wire.Head{
		CreatedAt: 1795302420, Event: name, AgentID: "research-agent", AgentName: "Research Agent",
		RunID: "r-1", SessionID: "s-1",
	}
}

func frame(t testing.TB, e wire.Event) string {
	t.Helper()
	var b bytes.Buffer
	if err := wire.NewEncoder(&b).Encode(e); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every event that Keyway sends is byte for byte as in AgentOS 3.1.10. event_index is as in
// its background runs.
func TestFramesAreAgentOSs(t *testing.T) {
	t.Parallel()
	const members = `"agent_id":"research-agent","agent_name":"Research Agent","run_id":"r-1","session_id":"s-1",` +
		`"nested_depth":0,`
	const marks = `{"id":"chatcmpl-1","system_fingerprint":"stub"}`
	tokens := wire.ModelMetrics{InputTokens: 58, OutputTokens: 20, TotalTokens: 78, ID: "gpt-4o", Provider: "OpenAI Chat"}
	for _, row := range []struct {
		event wire.Event
		want  string // the members after Head's
	}{
		{
			wire.Started{Head: head(wire.EventRunStarted), Model: "gpt-4o", ModelProvider: "OpenAI"},
			`"model":"gpt-4o","model_provider":"OpenAI","event_index":0}`,
		},
		{
			wire.Started{
				Head: head(wire.EventModelRequestStarted), Model: "gpt-4o", ModelProvider: "OpenAI", EventIndex: 1,
			},
			`"model":"gpt-4o","model_provider":"OpenAI","event_index":1}`,
		},
		{
			wire.Content{
				Head: head(wire.EventRunContent), Content: "日本 ", ContentType: "str",
				ModelProviderData: json.RawMessage(marks), EventIndex: 2,
			},
			`"content":"日本 ","workflow_agent":false,"content_type":"str","reasoning_content":"",` +
				`"model_provider_data":` + marks + `,"event_index":2}`,
		},
		{
			wire.Content{Head: head(wire.EventRunContent), ContentType: "str", EventIndex: 2},
			`"content":"","workflow_agent":false,"content_type":"str","reasoning_content":"","event_index":2}`,
		},
		{
			wire.ModelCompleted{
				Head: head(wire.EventModelRequestCompleted), Model: "gpt-4o", ModelProvider: "OpenAI",
				InputTokens: 58, OutputTokens: 20, TotalTokens: 78, TimeToFirstToken: 0.02730720299996392, EventIndex: 23,
			},
			`"model":"gpt-4o","model_provider":"OpenAI","input_tokens":58,"output_tokens":20,"total_tokens":78,` +
				`"time_to_first_token":0.02730720299996392,"reasoning_tokens":0,"cache_read_tokens":0,` +
				`"cache_write_tokens":0,"event_index":23}`,
		},
		{
			wire.ContentCompleted{Head: head(wire.EventRunContentCompleted), EventIndex: 24},
			`"event_index":24}`,
		},
		{
			wire.Completed{
				Head: head(wire.EventRunCompleted), Content: "chunk-0 ", ContentType: "str",
				ModelProviderData: json.RawMessage(marks), SessionState: json.RawMessage(`{}`), EventIndex: 25,
				Metrics: wire.Metrics{
					InputTokens: 58, OutputTokens: 20, TotalTokens: 78, TimeToFirstToken: 0.11070828300012181,
					Duration: 2.133432660000153, Details: &wire.MetricsDetails{Model: []wire.ModelMetrics{tokens}},
				},
			},
			`"content":"chunk-0 ","content_type":"str","model_provider_data":` + marks + `,"session_state":{},` +
				`"event_index":25,"metrics":{"input_tokens":58,"output_tokens":20,"total_tokens":78,` +
				`"time_to_first_token":0.11070828300012181,"duration":2.133432660000153,"details":{"model":[` +
				`{"input_tokens":58,"output_tokens":20,"total_tokens":78,"id":"gpt-4o","provider":"OpenAI Chat"}]}}}`,
		},
		{
			wire.Failed{
				Head: head(wire.EventRunError), Content: "Connection error.", ErrorType: "model_provider_error", EventIndex: 3,
			},
			`"content":"Connection error.","error_type":"model_provider_error","event_index":3}`,
		},
		{
			wire.Cancelled{
				Head: head(wire.EventRunCancelled), Content: "chunk-0 ", Reason: "Run r-1 was cancelled", EventIndex: 4,
			},
			`"content":"chunk-0 ","reason":"Run r-1 was cancelled","event_index":4}`,
		},
	} {
		name := row.event.Name()
		start := `{"created_at":1795302420,"event":"` + name + `",` + members
		want := "event: " + name + "\ndata: " + start + row.want + "\n\n"
		if diff := cmp.Diff(want, frame(t, row.event)); diff != "" {
			t.Error(diff)
		}
		read, err := wire.ParseFrame([]byte(want))
		if diff := cmp.Diff(row.event, read); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
}

func TestAFrameHasOneLineOfDataForAnyText(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"line feeds":           "a\nb\n\ndata: forged\n\nevent: RunCompleted\n",
		"carriage returns":     "a\rb\r\n",
		"other line ends":      "a\u2028b\u2029c\u0085d\v\f",
		"HTML":                 `<b>&amp;</b> "quoted" \back/`,
		"unicode":              "日本 🎉 é שלום",
		"control characters":   "\x00\x01\x1b\x7f",
		"nothing":              "",
		"JSON within the JSON": `{"event":"RunCompleted"}`,
	} {
		got := frame(t, wire.Content{Head: head(wire.EventRunContent), Content: text})
		if strings.Count(got, "\n") != 3 || strings.ContainsAny(got, "\r") || !strings.HasSuffix(got, "}\n\n") {
			t.Errorf("%s: %q", name, got)
		}
		if lines := pythonLines(got); len(lines) != 3 {
			t.Errorf("%s: Python reads %d lines: %q", name, len(lines), lines)
		}
		if back := content(t, got); back != text {
			t.Errorf("%s: %q came back as %q", name, text, back)
		}
	}
	if got := frame(t, wire.Content{Content: "<b>&</b> 日本"}); !strings.Contains(got, `"<b>&</b> 日本"`) {
		t.Errorf("text is escaped without need: %s", got)
	}
}

// pythonLines splits a text as Python's str.splitlines does. httpx, and so AgentOS's client, reads
// streams by these lines.
func pythonLines(text string) (lines []string) {
	const ends = "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"
	for text != "" {
		n := strings.IndexAny(text, ends)
		if n < 0 {
			return append(lines, text)
		}
		_, size := utf8.DecodeRuneInString(text[n:])
		if strings.HasPrefix(text[n:], "\r\n") {
			size = 2
		}
		lines, text = append(lines, text[:n]), text[n+size:]
	}
	return lines
}

// content parses a frame as a client does, and returns its content.
func content(t testing.TB, frame string) string {
	t.Helper()
	_, data, ok := strings.Cut(frame, "\ndata: ")
	var e struct{ Content string }
	if err := json.Unmarshal([]byte(data), &e); err != nil || !ok {
		t.Fatalf("%v: %q", err, frame)
	}
	return e.Content
}

// JSON of others in a member is written on one line. encoding/json doesn't escape what is in it.
func TestForeignJSONIsPutOnOneLine(t *testing.T) {
	t.Parallel()
	got := frame(t, wire.Completed{
		Head: head(wire.EventRunCompleted), ModelProviderData: json.RawMessage("{\"a\u0085\":\"\u2028\u2029\"}"),
	})
	if len(pythonLines(got)) != 3 || !strings.Contains(got, `{"a\u0085":"\u2028\u2029"}`) {
		t.Errorf("%q", got)
	}
	got = frame(t, wire.Completed{
		Head: head(wire.EventRunCompleted), SessionState: json.RawMessage("{\n  \"a\": [1,\r\n2]\n}"),
		ModelProviderData: json.RawMessage(" null "),
	})
	if strings.Count(got, "\n") != 3 || !strings.Contains(got, `"session_state":{"a":[1,2]}`) ||
		!strings.Contains(got, `"model_provider_data":null`) {
		t.Errorf("%q", got)
	}
}

func TestInvalidJSONIsAnErrorAndNothingIsWritten(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	e := wire.NewEncoder(&b)
	err := e.Encode(wire.Completed{Head: head(wire.EventRunCompleted), SessionState: json.RawMessage("{nonsense")})
	if err == nil || !strings.Contains(err.Error(), "RunCompleted") || b.Len() > 0 {
		t.Errorf("%v, and %q was written", err, &b)
	}
	err = e.Encode(wire.ContentCompleted{Head: head(wire.EventRunContentCompleted)})
	if err != nil || !strings.HasPrefix(b.String(), "event: RunContentCompleted\ndata: {") {
		t.Errorf("the next frame: %v %q", err, &b)
	}
}

type writes struct {
	sizes []int
	err   error
}

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), w.err
}

func TestEachFrameIsOneWriteAndItsErrorIsReturned(t *testing.T) {
	t.Parallel()
	w := &writes{}
	e := wire.NewEncoder(w)
	for range 3 {
		if err := e.Encode(wire.ContentCompleted{Head: head(wire.EventRunContentCompleted)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.sizes) != 3 {
		t.Errorf("three frames in %d writes", len(w.sizes))
	}
	w.err = errors.New("gone")
	if err := e.Encode(wire.ContentCompleted{}); !errors.Is(err, w.err) {
		t.Errorf("the writer's error became %v", err)
	}
}

// An empty line after a comment would end an event without data.
func TestACommentIsOneLineAndEndsNoEvent(t *testing.T) {
	t.Parallel()
	for _, text := range []string{wire.KeepAlive, wire.RunContinues} {
		if !strings.HasPrefix(text, ":") || !strings.HasSuffix(text, "\n") || len(pythonLines(text)) != 1 {
			t.Errorf("%q", text)
		}
	}
}

func TestMarshalEscapesNoMoreThanJSONRequires(t *testing.T) {
	t.Parallel()
	got, err := wire.Marshal(map[string]string{"a": "<&>\n"})
	if err != nil || string(got) != `{"a":"<&>\n"}` {
		t.Errorf("%q %v", got, err)
	}
	if _, err := wire.Marshal(func() {}); err == nil {
		t.Error("a function was marshalled")
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("a\nb", `{"a":"b"}`, "r\r\n")
	f.Add("\xff\x00\u2028", "{\n}", "")
	f.Add("data: x\n\n", "[1, 2]", "event: y")
	f.Add("\u0085", "{\"\u0085\":\"\u2029\"}", "\v\f\x1c\u0085")
	f.Fuzz(func(t *testing.T, text, state, id string) {
		h := head(wire.EventRunContent)
		h.SessionID, h.AgentName = id, id
		events := []wire.Event{
			wire.Content{Head: h, Content: text},
			wire.Failed{Head: h, Content: text, ErrorType: id},
			wire.Cancelled{Head: h, Content: text, Reason: id},
			wire.Completed{
				Head: h, Content: text, SessionState: json.RawMessage(state), ModelProviderData: json.RawMessage(state),
			},
		}
		for _, e := range events {
			var b bytes.Buffer
			if err := wire.NewEncoder(&b).Encode(e); err != nil {
				if json.Valid([]byte(state)) || b.Len() > 0 {
					t.Errorf("%v, and %q was written", err, &b)
				}
				continue
			}
			if got := b.String(); strings.Count(got, "\n") != 3 || len(pythonLines(got)) != 3 || !utf8.ValidString(got) {
				t.Errorf("%q is not one frame", got)
			}
			if back := content(t, b.String()); utf8.ValidString(text) && back != text {
				t.Errorf("%q came back as %q", text, back)
			}
		}
	})
}

// standard returns the frame of an event as encoding/json makes it.
func standard(e wire.Event) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("event: " + e.Name() + "\ndata: ")
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(e)
	b.WriteString("\n")
	return wire.EscapeLines(b.Bytes()), err
}

func FuzzContent(f *testing.F) {
	f.Add("a\nb", `{"a":"b"}`, "r\r\n", 0)
	f.Add("\xff\x00\u2028\u2029\u0085\ufffd", "{\n}", "\"\\/\b\f\t\x1f\x7f<&>", 1)
	f.Add("日本 🎉\xed\xa0\x80", "{", "é", 1<<22)
	f.Add("", "{\"\u0085\":\"\u2029<\"}", "", -1)
	f.Fuzz(func(t *testing.T, text, data, id string, n int) {
		e := wire.NewEncoder(nil)
		h := head(wire.EventRunContent)
		// The encoder keeps the head and the data from event to event.
		for _, event := range []wire.Content{
			{Head: h, Content: text, EventIndex: n},
			{Head: h, Content: text, ModelProviderData: json.RawMessage(data), ContentType: id},
			{Head: wire.Head{AgentID: id, SessionID: text, NestedDepth: n, CreatedAt: int64(n)}, ReasoningContent: text},
			{Head: h, ModelProviderData: json.RawMessage(data), WorkflowAgent: true},
			{Head: h, ModelProviderData: json.RawMessage(`{"id":1}`), Content: id},
		} {
			want, wantErr := standard(event)
			got, err := e.Append([]byte("before"), event)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%v, want %v", err, wantErr)
			}
			if err != nil {
				want = nil
			}
			if string(got) != "before"+string(want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}
