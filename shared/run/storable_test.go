package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/tool"
)

// A run with text that PostgreSQL rejects would be executed again and again if its end could not be stored.
func TestARunEndsOnceWhateverTextItsModelAndToolsSend(t *testing.T) {
	t.Parallel()
	const dirty, clean = "bad\x00and\xffbad", "bad\ufffdand\ufffdbad"
	fails := named("t", func(context.Context, json.RawMessage) (string, error) { return "", errors.New(dirty) })
	public := named("t", func(context.Context, json.RawMessage) (string, error) {
		return "", fault.Public(fault.Upstream, dirty, nil)
	})
	ends := func(err error) answer { return func(context.Context, func(model.Part) bool) error { return err } }
	call := func(name, arguments string) answer {
		return calls("", model.ToolCall{ID: dirty, Name: name, Arguments: arguments})
	}
	provider := func(_ context.Context, send func(model.Part) bool) error {
		send(model.Part{Text: "x", ProviderData: json.RawMessage(`{"id":"` + "bad\\u0000and\xffbad" + `"}`)})
		send(model.Part{End: &model.End{Usage: usage}})
		return nil
	}
	for name, row := range map[string]struct {
		tools   []tool.Set
		answers []answer
		status  string
		content string
		stored  string // a part of the stored row
	}{
		"the model's error": {nil, []answer{ends(fault.Public(fault.Upstream, dirty, nil))}, "ERROR", clean, ""},
		"the model's error after text": {nil, []answer{func(_ context.Context, send func(model.Part) bool) error {
			send(model.Part{Text: dirty})
			return fault.Public(fault.Upstream, dirty, nil)
		}}, "ERROR", clean, clean},
		"a tool's error":        {tools(fails), []answer{call("t", ""), replies("done")}, "COMPLETED", "done", clean},
		"a tool's public error": {tools(public), []answer{call("t", ""), replies("done")}, "COMPLETED", "done", clean},
		"an error of the list of tools": {[]tool.Set{broken{fault.Public(fault.Upstream, dirty, nil)}},
			[]answer{replies("never")}, "ERROR", clean, ""},
		"the provider's data": {nil, []answer{provider}, "COMPLETED", "x", clean},
		"arguments": {tools(named("t", echo)), []answer{call("t", `{"a":"bad\u0000and`+"\xff"+`bad"}`), replies("done")},
			"COMPLETED", "done", clean},
		"arguments that are no JSON": {tools(named("t", echo)), []answer{call("t", dirty), replies("done")},
			"COMPLETED", "done", clean},
		"a name": {nil, []answer{call(dirty, ""), replies("done")}, "COMPLETED", "done", clean},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBenchWith(t, agentOnly, row.tools, row.answers...)
			list := b.collect(b.runner.Run(t.Context(), streamed))
			r := last(list).Result
			if r.Status != row.status || *r.Content != row.content || members(t, last(list))["content"] != row.content {
				t.Errorf("%s %q: %v", r.Status, *r.Content, members(t, last(list)))
			}
			stored := b.row(r.RunID)
			if stored.Status != row.status || *stored.Content != row.content || stored.Attempt != 1 {
				t.Errorf("%+v", stored)
			}
			whole := string(stored.Messages) + string(stored.ProviderData) + string(stored.Tools) + *stored.Content
			whole = strings.NewReplacer(`\\ufffd`, "\ufffd", `\ufffd`, "\ufffd").Replace(whole) // JSON has both forms.
			if !strings.Contains(whole, row.stored) {
				t.Errorf("the row has %q, want %q", whole, row.stored)
			}
			// The routes of sessions read the columns as jsonb, which rejects more than json does.
			if _, err := b.db.Runs(t.Context(), ann, storeQuery{RunID: r.RunID, ByLength: true}); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(sentFrames(list), b.frames(r.RunID)); diff != "" {
				t.Errorf("the stored events: %s", diff)
			}
			want := len(row.answers)
			if row.content == clean && row.tools != nil {
				want = 0
			}
			if n := len(b.model.requests()); n != want {
				t.Errorf("the model was called %d times", n)
			}
			b.expireLeases(0)
		})
	}
}
