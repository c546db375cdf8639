package modeltest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

// serverRules are "servers as they are": what servers that imitate an API really send must
// mean what its own server would have meant.
var serverRules = []rule{
	{"an answer means the same in every form", sameInEveryForm},
	{"calls of one name and one ID stay apart in every form", equalCallsInEveryForm},
	{"thoughts are shown beside the text", thoughtsShown},
	{"arguments that are no object reach the run loop, and not the server again", brokenArguments},
	{"an answer that was cut inside a call is an error with its reason", cutCalls},
	{"an answer that ended before any text is an error with its reason", nothingSaid},
	{"a text that was cut is an answer with its reason", cutText},
	{"the reason in an HTTP error is found in every form", errorBodies},
	{"the reason in an error within a stream is found in every form", errorEvents},
}

// everyForm calls check with a script in each form, for both kinds of requests.
func everyForm(s Script, check func(name string, s Script, r model.Request)) {
	for _, f := range Forms {
		bothKinds(func(kind string, r model.Request) { check(kind+", "+string(f), s.As(f), r) })
	}
}

// everyTwoForms is everyForm for each two forms.
func everyTwoForms(s Script, check func(name string, s Script, r model.Request)) {
	for i, one := range Forms {
		for _, other := range Forms[i+1:] {
			name := fmt.Sprintf(", %s and %s", one, other)
			bothKinds(func(kind string, r model.Request) { check(kind+name, s.As(one, other), r) })
		}
	}
}

// bothKinds calls check with a request for each kind of answer.
func bothKinds(check func(kind string, r model.Request)) {
	check("streamed", Ask("hello"))
	check("whole", askWhole())
}

// sameInEveryForm compares an answer in every form with the plain one.
func sameInEveryForm(t *testing.T, p Provider) {
	s := Text("let ", "me see").
		ToolCall("web_search", `{"query":"größe \"x\""}`).ToolCall("web_search", `{"n":12345678901234567890}`).
		ToolCall("now", "")
	plain := p.collect(t, s).mustEnd(t)
	check := func(name string, s Script, r model.Request) {
		a := p.collectRequest(t, s, r)
		if a.Err != nil || a.Text != "let me see" {
			t.Errorf("%s: text %q, error %v", name, a.Text, a.Err)
			return
		}
		if diff := cmp.Diff(normal(plain), normal(*a.End)); diff != "" {
			t.Errorf("%s: end (-plain +form):\n%s", name, diff)
		}
	}
	everyForm(s, check)
	everyTwoForms(s, check)
}

// normal returns what must be the same in an End in every form. An empty text and {}
// are the same arguments.
func normal(end model.End) model.End {
	end.Opaque, end.ToolCalls = nil, withoutIDs(end.ToolCalls)
	for i, c := range end.ToolCalls {
		if c.Arguments == "" {
			end.ToolCalls[i].Arguments = "{}"
		}
	}
	return end
}

// equalCallsInEveryForm sends two calls that differ in their arguments alone. Forms with one
// index for everything are left out where the calls have one ID too: then nothing but
// their order would show that they are two.
func equalCallsInEveryForm(t *testing.T, p Provider) {
	for _, id := range []string{"", "x"} {
		s := Script{}.ToolCallWithID(id, "f", `{"n":1}`).ToolCallWithID(id, "f", `{"n":2}`)
		want := []model.ToolCall{{Name: "f", Arguments: `{"n":1}`}, {Name: "f", Arguments: `{"n":2}`}}
		everyForm(s, func(name string, s Script, r model.Request) {
			if s.oneAfterTheOther() {
				return
			}
			end := p.collectRequest(t, s, r).mustEnd(t)
			if diff := cmp.Diff(want, withoutIDs(end.ToolCalls)); diff != "" {
				t.Errorf("%s, with the ID %q: calls (-want +got):\n%s", name, id, diff)
			}
		})
	}
}

// thoughtsShown checks that thoughts are apart from the text, in both kinds of answers.
func thoughtsShown(t *testing.T, p Provider) {
	s := Script{}.Thoughts("h", "m").Text("hi").ToolCall("f", `{"n":1}`)
	everyForm(s, func(name string, s Script, r model.Request) {
		a := p.collectRequest(t, s, r)
		a.mustEnd(t)
		// The whole answer of the Responses API has its thoughts in items, which Script doesn't play.
		if lost := p.Streams && s.has(OtherForm); a.Text != "hi" || a.Reasoning != "hm" && !lost {
			t.Errorf("%s: text %q, thoughts %q", name, a.Text, a.Reasoning)
		}
	})
}

// brokenArguments are what models write in place of a JSON object.
func brokenArguments(t *testing.T, p Provider) {
	for _, broken := range []string{`{"half":`, `["BROKEN"]`, `BROKEN`, `{"a":1}{"BROKEN":2}`, "\"BROKEN\"", " "} {
		srv := NewServer(t, ToolCall("f", broken), Text("done"))
		m, r := p.once(t, srv), Ask("hello")
		end := Collect(bounded(t), t, m, r).mustEnd(t)
		if want := []model.ToolCall{{Name: "f", Arguments: broken}}; !cmp.Equal(want, withoutIDs(end.ToolCalls)) {
			t.Errorf("%s: calls %+v", broken, end.ToolCalls)
		}
		calls := withoutIDs(end.ToolCalls)
		calls[0].ID = "call_0123456789abcdef0123456789abcdef" // the form of the run loop
		r.Messages = append(r.Messages,
			model.Message{Role: model.Assistant, ToolCalls: calls, Opaque: end.Opaque},
			model.Message{Role: model.ToolRole, ToolCallID: calls[0].ID, Content: "not an object"})
		Collect(bounded(t), t, m, r).mustEnd(t)
		sent, err := json.Marshal(srv.Requests()[1].Body)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(sent); strings.Contains(text, "BROKEN") || strings.Contains(text, "half") {
			t.Errorf("%s: the next request is %s", broken, text)
		}
	}
}

// api returns the path to which the model sends its requests.
func (p Provider) api(t *testing.T) string {
	t.Helper()
	srv := NewServer(t, Text("hi"))
	Collect(bounded(t), t, p.once(t, srv), Ask("hello")).mustEnd(t)
	return srv.Requests()[0].Path
}

// reasons returns the reasons of an API for an answer that was cut, and for one that a
// filter withheld.
func reasons(path string) (cut, withheld []string) {
	switch converse, _ := isConverse(path); {
	case path == pathChat:
		return []string{"length"}, []string{"content_filter"}
	case path == pathResponses:
		return []string{"max_output_tokens", "incomplete"}, []string{"content_filter"}
	case converse:
		return []string{"max_tokens", "model_context_window_exceeded"}, []string{"content_filtered", "guardrail_intervened"}
	default:
		return []string{"max_tokens", "model_context_window_exceeded"}, []string{"refusal"}
	}
}

// cutCalls checks calls that look whole, half and empty: only the reason shows whether they
// are. Opaque thoughts change nothing.
func cutCalls(t *testing.T, p Provider) {
	cut, withheld := reasons(p.api(t))
	for _, reason := range append(cut, withheld...) {
		for _, arguments := range []string{`{"n":1}`, ""} {
			for _, s := range []Script{ToolCall("f", arguments), Text("hi").ToolCall("f", arguments)} {
				for _, r := range []model.Request{Ask("hello"), askWhole()} {
					a := p.collectRequest(t, s.Finish(reason), r)
					a.mustFail(t, fault.Upstream, fault.Detail(a.Err))
					if !strings.Contains(fault.Detail(a.Err), "("+reason+")") {
						t.Errorf("public text %q, want one with the reason %s", fault.Detail(a.Err), reason)
					}
				}
			}
		}
	}
}

// nothingSaid checks answers without text, also with thoughts, which are no text.
func nothingSaid(t *testing.T, p Provider) {
	cut, withheld := reasons(p.api(t))
	for _, s := range []Script{{}, Text(""), Script{}.Thoughts("hm")} {
		for _, r := range []model.Request{Ask("hello"), askWhole()} {
			for _, reason := range cut {
				p.collectRequest(t, s.Finish(reason), r).
					mustFail(t, fault.Upstream, "The model's answer ended before it had any text ("+reason+")")
			}
			for _, reason := range withheld {
				p.collectRequest(t, s.Finish(reason), r).
					mustFail(t, fault.Upstream, "The model's answer was withheld ("+reason+")")
			}
		}
	}
	p.collect(t, Script{}.Thoughts("hm")).mustEnd(t) // a regular end
}

// cutText checks that the caller gets a text as far as it came.
func cutText(t *testing.T, p Provider) {
	cut, withheld := reasons(p.api(t))
	for _, reason := range append(cut, withheld...) {
		for _, r := range []model.Request{Ask("hello"), askWhole()} {
			a := p.collectRequest(t, Text("half a ").Finish(reason), r)
			if end := a.mustEnd(t); a.Text != "half a " || end.FinishReason != reason {
				t.Errorf("text %q, end %+v", a.Text, end)
			}
		}
	}
}

// bodies are errors as servers send them, with the reason M.
var bodies = map[string]string{
	"OpenAI":                      `{"error":{"message":"M","type":"invalid_request_error","param":null,"code":null}}`,
	"Anthropic":                   `{"type":"error","error":{"type":"api_error","message":"M"}}`,
	"Ollama":                      `{"error":"M"}`,
	"Gemini":                      `[{"error":{"code":400,"message":"M","status":"INVALID_ARGUMENT"}}]`,
	"FastAPI":                     `{"detail":"M"}`,
	"FastAPI's validation":        `{"detail":[{"type":"missing","loc":["body","n"],"msg":"M"}]}`,
	"an API gateway":              `{"message":"M"}`,
	"Cloudflare":                  `{"success":false,"errors":[{"code":7000,"message":"M"}]}`,
	"an error within an error":    `{"error":{"error":{"message":"M"}}}`,
	"llama.cpp":                   `{"code":500,"message":"M","type":"server_error"}`,
	"a text":                      `M`,
	"an event in place of a body": "data: {\"error\":{\"message\":\"M\",\"code\":\"500\"}}\n\n",
}

// errorBodies checks HTTP errors.
func errorBodies(t *testing.T, p Provider) {
	for name, body := range bodies {
		for _, r := range []model.Request{Ask("hello"), askWhole()} {
			a := p.collectRequest(t, Fail(http.StatusInternalServerError, "").Raw(body), r)
			a.mustFail(t, fault.Upstream, fault.Detail(a.Err))
			if text := fault.Detail(a.Err); text != "M" && text != "M (body.n)" {
				t.Errorf("%s: public text %q", name, text)
			}
		}
	}
}

// errorEvents checks errors after a piece of text: as data of an event named error, as data
// of an event without a name, and as a field of its own. The Converse API has exceptions in
// their place.
func errorEvents(t *testing.T, p Provider) {
	if converse, _ := isConverse(p.api(t)); converse {
		return
	}
	for name, body := range bodies {
		events := []string{"event: error\ndata: " + body + "\n\n", "error: " + body + "\n\n"}
		if json.Valid([]byte(body)) {
			events = append(events, "data: "+body+"\n\n")
		}
		for _, event := range events {
			if strings.HasPrefix(body, "data:") {
				event = body
			}
			a := p.collect(t, Text("half").Raw(event))
			a.mustFail(t, fault.Upstream, fault.Detail(a.Err))
			if text := fault.Detail(a.Err); a.Text != "half" || text != "M" && text != "M (body.n)" {
				t.Errorf("%s: text %q, public text %q, event %q", name, a.Text, text, event)
			}
		}
	}
	busy := "event: error\ndata: {\"error\":{\"code\":\"429\",\"type\":\"throttling_error\",\"message\":\"M\"}}\n\n"
	p.collect(t, Text("half").Raw(busy)).mustFail(t, fault.Unavailable, "M")
}
