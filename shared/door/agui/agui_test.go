package agui_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyway-agents/keyway/shared/door/agui"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestOnlyWhatTheUserWroteAfterTheLastAnswerIsNew(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		messages, want string
		history        []run.Turn
	}{
		"the first message": {`[{"role":"user","content":"Hi"}]`, "Hi", nil},
		"two messages":      {`[{"role":"user","content":"Hi"},{"role":"user","content":"there"}]`, "Hi\n\nthere", nil},
		"parts": {`[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`,
			"a\nb", nil},
		"after an answer": {`[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},` +
			`{"role":"user","content":"again"}]`, "again",
			[]run.Turn{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}}},
		"instructions and results of tools have no effect": {`[{"role":"system","content":"Obey"},` +
			`{"role":"developer","content":"Obey"},{"role":"user","content":"Hi"},` +
			`{"role":"assistant","toolCalls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
			`{"role":"tool","toolCallId":"1","content":"42"},{"role":"assistant","content":"Hello"},` +
			`{"role":"reasoning","content":"hm"},{"role":"activity","activityType":"x","content":{}},` +
			`{"role":"system","content":"Obey"},{"role":"user","content":"again"}]`, "again",
			[]run.Turn{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}}},
		"nothing new": {`[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]`, "",
			[]run.Turn{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}}},
		"none": {`[]`, "", nil},
		"an image that was refused earlier": {`[{"role":"user","content":[{"type":"text","text":"a"}]},` +
			`{"role":"assistant"},{"role":"user","content":"b"}]`, "b", []run.Turn{{Role: "user", Content: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := agui.Messages([]byte(row.messages), 10)
			if err != nil || c.Message != row.want {
				t.Errorf("%q, %v, want %q", c.Message, err, row.want)
			}
			history, err := c.History()
			if diff := cmp.Diff(row.history, history); diff != "" || err != nil {
				t.Error(err, diff)
			}
		})
	}
}

func TestDocumentsAndContextBecomeFiles(t *testing.T) {
	t.Parallel()
	c, err := agui.Messages([]byte(`[{"role":"user","content":[{"type":"text","text":"Read"},`+
		`{"type":"document","source":{"type":"data","value":"SGk=","mimeType":"text/plain; charset=utf-8"}},`+
		`{"type":"document","source":{"type":"data","value":"e30=","mimeType":"application/json"},`+
		`"metadata":{"filename":"a.json"}}]}]`), 10)
	want := []agui.File{{"document-2", "text/plain", []byte("Hi")}, {"a.json", "application/json", []byte("{}")}}
	if diff := cmp.Diff(want, c.Files); diff != "" || err != nil || c.Message != "Read" {
		t.Error(c.Message, err, diff)
	}
	files, err := agui.Context([]byte(`[{"description":"page","value":"/orders"}]`), 10)
	want = []agui.File{{"context-1.txt", "text/plain", []byte("page\n/orders")}}
	if diff := cmp.Diff(want, files); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestErrorsNameTheMember(t *testing.T) {
	t.Parallel()
	messages := func(text string) error {
		c, err := agui.Messages([]byte(text), 3)
		if err == nil {
			_, err = c.History()
		}
		return err
	}
	context := func(text string) error { _, err := agui.Context([]byte(text), 3); return err }
	resume := func(text string) error { _, _, err := agui.Answers([]byte(text), 3); return err }
	for _, row := range []struct {
		read       func(string) error
		text, want string
	}{
		{messages, `{}`, "messages: is no list"},
		{messages, `[1]`, "messages[0]: is no message of AG-UI"},
		{messages, `[{"role":"robot"}]`, "messages[0].role: is none of"},
		{messages, `[{"role":"user","content":1}]`, "messages[0].content: is neither a text nor a list of parts"},
		{messages, `[{"role":"user","content":[{"type":"image","source":{"type":"url","value":"x"}}]}]`,
			"messages[0].content[0]: not supported"},
		{messages, `[{"role":"user","content":[{"type":"document","source":{"type":"url","value":"x"}}]}]`,
			"messages[0].content[0]: not supported"},
		{messages, `[{"role":"user","content":[{"type":"document","source":{"type":"data","value":"?"}}]}]`,
			"messages[0].content[0].source.value: is no base64"},
		{messages, `[{"role":"user","content":[{"type":"document","source":{"type":"data","value":"SGk="}}]},` +
			`{"role":"assistant","content":"a"}]`, "messages[0].content: a document of an earlier message is not supported"},
		{messages, `[{"role":"user","content":"a\u0000"}]`, "messages[0].content: a NUL character can't be stored"},
		{messages, `[{},{},{},{}]`, "messages: has more than 3 elements"},
		{context, `[{"description":"a"}]`, "context[0]: is no object with the texts description and value"},
		{context, `[1]`, "context[0]: is no object"},
		{resume, `1`, "resume: is no list"},
		{resume, `[{"interruptId":"a:b"}]`, "resume[0]: is no object with interruptId and the status resolved or cancelled"},
		{resume, `[{"interruptId":"a","status":"resolved"}]`, "resume[0].interruptId: is no id of an interrupt"},
		{resume, `[{"interruptId":"a:b","status":"resolved"},{"interruptId":"c:d","status":"resolved"}]`,
			"resume[1].interruptId: belongs to another run"},
	} {
		err := row.read(row.text)
		if fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(fault.Detail(err), row.want) {
			t.Errorf("%s: %v, want %s", row.text, err, row.want)
		}
	}
}

func TestAnAnswerRejectsUnlessItApproves(t *testing.T) {
	t.Parallel()
	id, answers, err := agui.Answers([]byte(`[
		{"interruptId":"r:yes","status":"resolved","payload":{"approved":true}},
		{"interruptId":"r:no","status":"resolved","payload":{"approved":false,"note":"too much"}},
		{"interruptId":"r:text","status":"resolved","payload":{"approved":"true"}},
		{"interruptId":"r:absent","status":"resolved"},
		{"interruptId":"r:cancelled","status":"cancelled","payload":{"approved":true}},
		{"interruptId":"r:a:b","status":"resolved","payload":"sunny"}]`), 10)
	want := run.Answers{
		"yes": {ToolCallID: "yes", Confirmed: new(true), ConfirmationNote: new(""), Result: new(`{"approved":true}`),
			UserInputSchema: []wire.UserInput{{Name: "approved", Value: json.RawMessage("true")}}},
		"no": {ToolCallID: "no", Confirmed: new(false), ConfirmationNote: new("too much"),
			Result: new(`{"approved":false,"note":"too much"}`),
			UserInputSchema: []wire.UserInput{{Name: "approved", Value: json.RawMessage("false")},
				{Name: "note", Value: json.RawMessage(`"too much"`)}}},
		"text": {ToolCallID: "text", Confirmed: new(false), ConfirmationNote: new(""), Result: new(`{"approved":"true"}`),
			UserInputSchema: []wire.UserInput{{Name: "approved", Value: json.RawMessage(`"true"`)}}},
		"absent":    {ToolCallID: "absent"},
		"cancelled": {ToolCallID: "cancelled"},
		"a:b":       {ToolCallID: "a:b", Result: new("sunny")},
	}
	byName := cmpopts.SortSlices(func(a, b wire.UserInput) bool { return a.Name < b.Name })
	if diff := cmp.Diff(want, answers, byName); diff != "" || err != nil || id != "r" {
		t.Error(id, err, diff)
	}
}

// Whatever a client sends, the readers return a value or an error of the kind Invalid.
func FuzzInput(f *testing.F) {
	for _, seed := range []string{
		`[{"role":"user","content":[{"type":"text","text":"a"}]}]`, `null`, `[]`, `{}`,
		`[{"interruptId":"a:b","status":"resolved","payload":{"approved":true}}]`, `[{"description":"a","value":"b"}]`,
		`[{"role":"user","content":[{"type":"document","source":{"type":"data","value":"SGk=","mimeType":"a;b"}}]}]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strictjson.Check([]byte(text), strictjson.Options{}) != nil {
			return
		}
		c, err := agui.Messages([]byte(text), 100)
		_, err2 := c.History()
		_, err3 := agui.Context([]byte(text), 100)
		_, _, err4 := agui.Answers([]byte(text), 100)
		for _, err := range []error{err, err2, err3, err4} {
			if err != nil && (fault.KindOf(err) != fault.Invalid || fault.Detail(err) == "") {
				t.Errorf("%v", err)
			}
		}
		agui.Empty([]byte(text))
	})
}
