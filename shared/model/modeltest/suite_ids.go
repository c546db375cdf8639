package modeltest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
)

// callIDRules check that no ID of a call that a server sends can make calls or results ambiguous.
var callIDRules = []rule{
	{"calls are in the order of the answer, whatever their IDs are", anyIDsInOrder},
	{"in a request each call has an ID of its own, which its only result names", distinctIDs},
	{"IDs that an earlier version stored become distinct too", storedIDs},
}

// idsOfServers holds the IDs of the calls of each answer, as servers send them.
var idsOfServers = map[string][][]string{
	"none":                {{"", ""}, {""}},
	"one twice":           {{"x", "x"}, {"y"}},
	"of an earlier step":  {{"call_0"}, {"call_0", "call_1"}, {"call_1"}},
	"of 53 characters":    {{strings.Repeat("x", 53), strings.Repeat("x", 52) + "y"}},
	"of 65 characters":    {{strings.Repeat("x", 65), strings.Repeat("x", 64) + "y"}},
	"with odd characters": {{"a\x00b", "größe !", "a.b", "functions.f:0", "\u2028"}, {"a_b"}},
	"like ours":           {{"call00001", "", "call00002"}, {"", "call00003", "call_" + strings.Repeat("0", 32)}},
}

// scriptedCalls returns an answer with calls of these IDs, and the calls. Their names are "f", the number of the answer
// and the number of the call.
func scriptedCalls(answer int, ids []string) (s Script, calls []model.ToolCall) {
	for i, id := range ids {
		c := model.ToolCall{ID: id, Name: fmt.Sprintf("f%d_%d", answer, i), Arguments: fmt.Sprintf(`{"n":%d}`, i)}
		s, calls = s.ToolCallWithID(c.ID, c.Name, c.Arguments), append(calls, c)
	}
	return s, calls
}

// withoutIDs returns the calls without their IDs.
func withoutIDs(calls []model.ToolCall) []model.ToolCall {
	calls = slices.Clone(calls)
	for i := range calls {
		calls[i].ID = ""
	}
	return calls
}

// anyIDsInOrder checks the calls of answers in both forms.
func anyIDsInOrder(t *testing.T, p Provider) {
	for name, answers := range idsOfServers {
		for _, ids := range answers {
			for _, r := range []model.Request{Ask("hello"), askWhole()} {
				s, want := scriptedCalls(1, ids)
				got := p.collectRequest(t, s, r).mustEnd(t).ToolCalls
				if diff := cmp.Diff(withoutIDs(want), withoutIDs(got)); diff != "" {
					t.Errorf("%s: calls (-want +got):\n%s", name, diff)
				}
			}
		}
	}
}

// distinctIDs has conversations as the run loop has them: with IDs of its own, and with the Opaque of each answer. The
// results are in the reverse order of the calls.
func distinctIDs(t *testing.T, p Provider) {
	for name, answers := range idsOfServers {
		srv := NewServerFunc(t, func(r Request) Script {
			if r.N > len(answers) {
				return Text("done")
			}
			s, _ := scriptedCalls(r.N, answers[r.N-1])
			return s
		})
		m, r, n := p.once(t, srv), Ask("hello"), 0
		for range answers {
			end := Collect(bounded(t), t, m, r).mustEnd(t)
			for i := range end.ToolCalls {
				n++
				end.ToolCalls[i].ID = fmt.Sprintf("call_%032x", n)
			}
			r.Messages = append(r.Messages, model.Message{
				Role: model.Assistant, ToolCalls: end.ToolCalls, Opaque: end.Opaque,
			})
			r.Messages = append(r.Messages, results(end.ToolCalls)...)
		}
		Collect(bounded(t), t, m, r).mustEnd(t)
		checkPairs(t, name, srv.Requests()[len(answers)], r)
	}
}

// storedIDs has the same conversations as earlier versions stored them: with the server's IDs and without Opaque.
func storedIDs(t *testing.T, p Provider) {
	for name, answers := range idsOfServers {
		r := Ask("hello")
		for i, ids := range answers {
			_, calls := scriptedCalls(i+1, ids)
			byOrder := results(calls)
			slices.Reverse(byOrder)
			r.Messages = append(r.Messages, model.Message{Role: model.Assistant, ToolCalls: calls})
			r.Messages = append(r.Messages, byOrder...)
		}
		srv := NewServer(t, Text("done"))
		Collect(bounded(t), t, p.once(t, srv), r).mustEnd(t)
		checkPairs(t, name, srv.Requests()[0], r)
	}
}

// results returns a result for each call, the last call's first. Its text is the name of the call.
func results(calls []model.ToolCall) (messages []model.Message) {
	for _, c := range slices.Backward(calls) {
		messages = append(messages, model.Message{Role: model.ToolRole, ToolCallID: c.ID, Content: c.Name})
	}
	return messages
}

// idForms holds what each API accepts as the ID of a call, by the path's end.
var idForms = map[string]*regexp.Regexp{
	pathChat:           regexp.MustCompile(`^[!-~]{1,40}$`),
	pathResponses:      regexp.MustCompile(`^[!-~]{1,64}$`),
	pathMessages:       regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`),
	"/converse-stream": regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`),
}

// checkPairs checks that a request has all calls of r, each with an ID of its own and one result, that of the call.
func checkPairs(t *testing.T, name string, sent Request, r model.Request) {
	t.Helper()
	var form *regexp.Regexp
	for path, f := range idForms {
		if strings.HasSuffix(sent.Path, path) {
			form = f
		}
	}
	var want, got []string
	for _, m := range r.Messages {
		for _, c := range m.ToolCalls {
			want = append(want, c.Name)
		}
	}
	var pairs callPairs
	pairs.collect(sent.Body["messages"])
	pairs.collect(sent.Body["input"])
	results := map[string][]string{}
	for _, result := range pairs.results {
		results[result.id] = append(results[result.id], result.text)
	}
	for _, call := range pairs.calls {
		got = append(got, call.text)
		if !form.MatchString(call.id) || !cmp.Equal(results[call.id], []string{call.text}) {
			t.Errorf("IDs %s: the call of %s has the ID %q and the results of %q", name, call.text, call.id, results[call.id])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(pairs.results) != len(pairs.calls) {
		t.Errorf("IDs %s: %d results, calls (-want +got):\n%s", name, len(pairs.results), diff)
	}
}

// callPairs are the calls and the results in the body of a request.
type callPairs struct {
	calls, results []identified
}

// identified is a call or a result: its ID, and the name of the call or the text of the result.
type identified struct{ id, text string }

// collect adds the calls and results in a part of a body, in the form of any of the APIs.
func (p *callPairs) collect(part any) {
	list, _ := part.([]any)
	for _, one := range list {
		one, _ := one.(object)
		p.collect(one["content"])
		p.collect(one["tool_calls"])
		use, _ := one["toolUse"].(object)
		result, _ := one["toolResult"].(object)
		function, _ := one["function"].(object)
		switch {
		case use != nil:
			p.calls = append(p.calls, identified{text(use["toolUseId"]), text(use["name"])})
		case result != nil:
			p.results = append(p.results, identified{text(result["toolUseId"]), text(result["content"])})
		case function != nil:
			p.calls = append(p.calls, identified{text(one["id"]), text(function["name"])})
		case one["role"] == "tool":
			p.results = append(p.results, identified{text(one["tool_call_id"]), text(one["content"])})
		case one["type"] == "tool_use":
			p.calls = append(p.calls, identified{text(one["id"]), text(one["name"])})
		case one["type"] == "tool_result":
			p.results = append(p.results, identified{text(one["tool_use_id"]), text(one["content"])})
		case one["type"] == "function_call":
			p.calls = append(p.calls, identified{text(one["call_id"]), text(one["name"])})
		case one["type"] == "function_call_output":
			p.results = append(p.results, identified{text(one["call_id"]), text(one["output"])})
		}
	}
}

// text returns a text, or that of a list with one block of text.
func text(value any) string {
	if list, _ := value.([]any); len(list) == 1 {
		block, _ := list[0].(object)
		value = block["text"]
	}
	text, _ := value.(string)
	return text
}
