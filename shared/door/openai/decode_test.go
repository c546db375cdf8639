package openai_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
)

func TestConversationIsDividedBehindTheAgentsLastMessage(t *testing.T) {
	t.Parallel()
	said := func(text string) openai.Turn { return openai.Turn{Text: text} }
	answered := func(text string) openai.Turn { return openai.Turn{Assistant: true, Text: text} }
	for name, row := range map[string]struct {
		api     openai.API
		body    string
		message string
		history []openai.Turn
	}{
		"one message": {openai.Chat, `"messages":[{"role":"user","content":"hi"}]`, "hi", nil},
		"several in a row": {openai.Chat, `"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]`,
			"a\n\nb", nil},
		"parts": {openai.Chat,
			`"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`, "a\n\nb", nil},
		"instructions are left out": {openai.Chat, `"messages":[{"role":"system","content":"be evil"},` +
			`{"role":"developer","content":"be evil"},{"role":"user","content":"hi"}]`, "hi", nil},
		"turns": {openai.Chat, `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},` +
			`{"role":"assistant","content":"c"},{"role":"user","content":"d"}]`,
			"d", []openai.Turn{said("a"), answered("b\n\nc")}},
		"tools of the client": {openai.Chat, `"messages":[{"role":"user","content":"a"},` +
			`{"role":"assistant","content":null,"tool_calls":[]},{"role":"tool","content":"42","tool_call_id":"x"},` +
			`{"role":"assistant","content":"b"},{"role":"user","content":"c"}]`,
			"c", []openai.Turn{said("a\n\n42"), answered("b")}},
		"a text": {openai.Responses, `"input":"hi"`, "hi", nil},
		"items": {openai.Responses, `"input":[{"role":"user","content":"a"},` +
			`{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"}]},` +
			`{"type":"reasoning","summary":[]},{"role":"user","content":[{"type":"input_text","text":"c"}]}]`,
			"c", []openai.Turn{said("a"), answered("b")}},
		"items that are named": {openai.Responses, `"input":[{"role":"user","content":"a"},` +
			`{"type":"item_reference","id":"rs_` + bareID + `"},{"type":"item_reference","id":"msg_` + bareID + `"},` +
			`{"type":"item_reference","id":"rs_` + bareID + `_1"},{"type":"item_reference","id":"msg_` + bareID + `_1"},` +
			`{"role":"user","content":"c"}]`,
			"c", []openai.Turn{said("a"), {Assistant: true, Run: runID, Param: "input[2].id"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, err := openai.Decode(row.api, []byte(`{"model":"a",`+row.body+`}`), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.history, q.History); diff != "" || q.Message != row.message || q.Model != "a" {
				t.Errorf("message %q, history %s", q.Message, diff)
			}
		})
	}
}

func TestErrorNamesTheParameter(t *testing.T) {
	t.Parallel()
	chat := func(members string) string {
		return `{"model":"a","messages":[{"role":"user","content":"hi"}],` + members + `}`
	}
	with := func(messages string) string { return `{"model":"a","messages":[` + messages + `]}` }
	for body, param := range map[string]string{
		`{"messages":[{"role":"user","content":"hi"}]}`: "model",
		`{"model":"a"}`:                 "messages",
		`{"model":"a","messages":null}`: "messages",
		`{"model":null,"messages":[{"role":"user","content":"hi"}]}`: "model",
		chat(`"invented":null`):                          "invented",
		chat(`"temperature":"hot"`):                      "temperature",
		chat(`"max_tokens":"x"`):                         "max_tokens",
		chat(`"parallel_tool_calls":1`):                  "parallel_tool_calls",
		chat(`"metadata":{"k":7}`):                       "metadata",
		chat(`"metadata":{"k":null}`):                    "metadata",
		chat(`"model":"b"`):                              "model",
		chat(`"tools":[{"type":"function"}]`):            "tools",
		chat(`"n":2`):                                    "n",
		chat(`"store":false`):                            "store",
		chat(`"stop":["x"]`):                             "stop",
		chat(`"response_format":{"type":"json_object"}`): "response_format",
		chat(`"stream":"yes"`):                           "stream",
		chat(`"invented":1`):                             "invented",
		chat(`"input":"hi"`):                             "input",
		chat(`"metadata":{"session_id":"a/b"}`):          "metadata.session_id",
		chat(`"metadata":{"session_id":7}`):              "metadata.session_id",
		with(``):                                         "messages",
		with(`{"role":"user","content":"  "}`):           "messages",
		with(`{"role":"assistant","content":"x"}`):       "messages",
		with(`{"role":"king","content":"x"}`):            "messages[0].role",
		with(`{"role":"user","content":7}`):              "messages[0].content",
		with(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}`): "messages[0].content[0]",
		with(`{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}`):       "messages[0].content[0].file",
		with(`{"role":"user","content":[{"type":"file","file":{"file_data":"~"}}]}`): "messages[0].content[0].file" +
			".file_data",
	} {
		_, err := openai.Decode(openai.Chat, []byte(body), nil)
		wantRefusal(t, body, err, param)
	}
	for body, param := range map[string]string{
		`"text":{"format":{"type":"json_schema"}}`:                                         "text.format",
		`"conversation":"c","metadata":{"session_id":"d"}`:                                 "metadata.session_id",
		`"previous_response_id":"resp_` + strings.Repeat("0", 32) + `","conversation":"c"`: "previous_response_id",
		`"tool_choice":"required"`:                                                         "tool_choice",
		`"text":"x"`:                                                                       "text",
		`"instructions":[]`:                                                                "instructions",
		`"reasoning":"high"`:                                                               "reasoning",
		`"include":"all"`:                                                                  "include",
	} {
		_, err := openai.Decode(openai.Responses, []byte(`{"model":"a","input":"hi",`+body+`}`), nil)
		wantRefusal(t, body, err, param)
	}
}

func wantRefusal(t *testing.T, body string, err error, param string) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.Invalid || len(e.Extra) == 0 || e.Extra[0].Value != param {
		t.Errorf("%s: %+v, want one that names %s", body, err, param)
	}
}

func TestWhatAsksForNothingIsAccepted(t *testing.T) {
	t.Parallel()
	body := `{"model":"a","messages":[{"role":"user","content":"hi"}],"tools":[],"n":1,"store":true,"user":"eve",
		"response_format":{ "type": "text" },"temperature":0.5,"max_tokens":null,"stop":null,"logit_bias":{},
		"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}`
	q, err := openai.Decode(openai.Chat, []byte(body), nil)
	if err != nil || !q.Stream || !q.Usage {
		t.Errorf("%+v, %v", q, err)
	}
}

func TestOneWrittenAsAFractionAsksForOneAnswer(t *testing.T) {
	t.Parallel()
	for n, accepted := range map[string]bool{"1": true, "1.0": true, "2": false, "1.5": false, `"1"`: false} {
		body := `{"model":"a","messages":[{"role":"user","content":"hi"}],"n":` + n + `}`
		if _, err := openai.Decode(openai.Chat, []byte(body), nil); (err == nil) != accepted {
			t.Errorf("n of %s: %v", n, err)
		}
	}
}

func TestEachIgnoredParameterHasATypeAndRefusesOthers(t *testing.T) {
	t.Parallel()
	for _, p := range openai.Parameters {
		api, body := openai.Responses, `{"model":"a","input":"hi",`
		if p.API != api {
			api, body = openai.Chat, `{"model":"a","messages":[{"role":"user","content":"hi"}],`
		}
		accepted := 0
		for _, value := range []string{"0.5", `"x"`, "true", "{}", "[]"} {
			if _, err := openai.Decode(api, []byte(body+`"`+p.Name+`":`+value+`}`), nil); err == nil {
				accepted++
			}
		}
		if p.Rule == openai.Ignored && accepted != 1 {
			t.Errorf("%s accepts values of %d types", p.Name, accepted)
		}
	}
}

func TestModelThatNoAgentCanBeIsNotFound(t *testing.T) {
	t.Parallel()
	_, err := openai.Decode(openai.Responses, []byte(`{"model":"a/runs/x","input":"hi"}`), nil)
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.NotFound || e.Extra[0].Value != "model" || e.Extra[1].Value != "model_not_found" {
		t.Errorf("%+v", err)
	}
}

func TestFilesOfTheMessageAreDecoded(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString([]byte("some text"))
	body := `{"model":"a","input":[{"role":"user","content":[{"type":"input_text","text":"read"},
		{"type":"input_file","filename":"a.txt","file_data":"data:text/plain;base64,` + encoded + `"},
		{"type":"input_file","filename":"b.md","file_data":"` + encoded + `"}]}]}`
	q, err := openai.Decode(openai.Responses, []byte(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []openai.File{
		{Name: "a.txt", Type: "text/plain", Content: []byte("some text"), Param: "input[0].content[1]"},
		{Name: "b.md", Content: []byte("some text"), Param: "input[0].content[2]"},
	}
	if diff := cmp.Diff(want, q.Files); diff != "" {
		t.Error(diff)
	}
}

func TestLargeRequestIsRefused(t *testing.T) {
	t.Parallel()
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for name, messages := range map[string]string{
		"messages": many(bound.Turns.Default+1, `{"role":"user","content":"x"}`),
		"parts":    `{"role":"user","content":[` + many(bound.Parts.Default+1, `{"type":"text","text":"x"}`) + `]}`,
		"message":  `{"role":"user","content":"` + strings.Repeat("x", bound.Message.Default+1) + `"}`,
		"history": `{"role":"assistant","content":"` + strings.Repeat("x", bound.History.Default+1) +
			`"},{"role":"user","content":"x"}`,
		"files": `{"role":"user","content":[` + many(bound.Files.Default+1, `{"type":"file","file":{"file_data":""}}`) + `]}`,
	} {
		_, err := openai.Decode(openai.Chat, []byte(`{"model":"a","messages":[`+messages+`]}`), nil)
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Invalid || e.Extra[1].Value != "too_large" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDsOfResponsesAreThoseOfRuns(t *testing.T) {
	t.Parallel()
	const run = "0190b0a4-7c8e-7b1a-8c55-00a1b2c3d4e5"
	if got := openai.RunID(openai.ResponseID(run)); got != run {
		t.Errorf("the id becomes %q", got)
	}
	for _, id := range []string{
		"", "resp_", run, "resp_" + run, "resp_0190B0A47C8E7B1A8C5500A1B2C3D4E5", openai.ChatID(run),
		openai.ResponseID(run) + "0", "resp_" + strings.Repeat("g", 32),
	} {
		if got := openai.RunID(id); got != "" {
			t.Errorf("%q names the run %q", id, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"model":"a","messages":[{"role":"user","content":"hi"}]}`, `[`, `{}`, `{"model":null}`,
		`{"model":"a","input":"hi","metadata":{"session_id":"s"}}`,
		`{"model":"a","input":[{"type":"function_call_output","output":"x"},
			{"role":"user","content":[{"type":"input_file"}]}]}`,
		`{"model":"a","messages":[{"content":[{"type":"file","file":{"file_data":"data:,x"}}]}]}`,
		`{"model":"a","messages":[{"role":"assistant","content":[{"type":"refusal"}]},
			{"role":"user","content":"\ud83d\ude00"}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, api := range []openai.API{openai.Chat, openai.Responses} {
			q, err := openai.Decode(api, []byte(body), nil)
			if err != nil {
				if k := fault.KindOf(err); k != fault.Invalid && k != fault.NotFound {
					t.Errorf("%s: the error is %v of kind %d", body, err, k)
				}
				continue
			}
			if q.Model == "" || strings.TrimSpace(q.Message) == "" || !json.Valid([]byte(body)) || !utf8.ValidString(q.Message) {
				t.Errorf("%s was read as %+v", body, q)
			}
			for i, turn := range q.History {
				if i > 0 && turn.Assistant == q.History[i-1].Assistant {
					t.Errorf("%s: two turns in a row by one sender", body)
				}
			}
			if n := len(q.History); n > 0 && !q.History[n-1].Assistant {
				t.Errorf("%s: the history ends with a message of the user", body)
			}
		}
	})
}
