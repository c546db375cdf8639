package run_test

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
)

// thinks is an answer with thoughts before its text and its calls, and with data that the provider requires back.
func thinks(thoughts, text string, wanted ...model.ToolCall) answer {
	return func(_ context.Context, send func(model.Part) bool) error {
		send(model.Part{Reasoning: thoughts})
		if text != "" {
			send(model.Part{Text: text, ProviderData: json.RawMessage(`{"id": "answer"}`)})
		}
		end := model.End{Usage: usage, ToolCalls: wanted}
		if len(wanted) > 0 {
			end.Opaque = json.RawMessage(`["sealed"]`)
		}
		send(model.Part{End: &end})
		return nil
	}
}

func TestThoughtsAreShownBesideTheAnswerAsInAgentOS(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("free", echo)},
		thinks("first ", "", model.ToolCall{ID: "f", Name: "free"}), thinks("then", "done"))
	list := b.run("hi")
	var shown []string
	for _, e := range list {
		if m := members(t, e); m["event"] == "RunContent" || m["event"] == "RunCompleted" {
			content, has := m["content"]
			if !has {
				content = "absent"
			}
			shown = append(shown, strings.Join([]string{m["event"].(string), content.(string),
				m["reasoning_content"].(string)}, "|"))
		}
	}
	want := []string{
		"RunContent|absent|first ", "RunContent|absent|then", "RunContent|done|", "RunCompleted|done|first then",
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	r := last(list).Result
	row := b.row(r.RunID)
	if *r.ReasoningContent != "first then" || *row.ReasoningContent != "first then" ||
		lastMessage(t, r).ReasoningContent != "then" {
		t.Errorf("the result has %q, the row %q, the answer %q", *r.ReasoningContent, *row.ReasoningContent,
			lastMessage(t, r).ReasoningContent)
	}
	if got := b.model.requests()[1].Messages[1].Reasoning; got != "first " {
		t.Errorf("the second request has the thoughts %q", got)
	}
}

// sealed returns which messages of a request have the provider's data.
func sealed(r model.Request) (out string) {
	for _, m := range r.Messages {
		out += " " + string(m.Role) + string(m.Opaque)
	}
	return strings.TrimSpace(out)
}

const sealedCall = `user assistant["sealed"] tool`

func TestWhatAProviderRequiresBackSurvivesAPauseAndIsNotShown(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, thinks("", "", knock))
	list := b.run("hi")
	r := last(list).Result
	row := b.row(r.RunID)
	for name, text := range map[string][]byte{
		"the last event": last(list).Frame, "the messages": row.Messages, "the result's messages": r.Messages,
	} {
		if strings.Contains(string(text), "sealed") {
			t.Errorf("%s: %s", name, text)
		}
	}
	other := &scripted{answers: []answer{replies("done")}}
	second := newRunner(b.db, config.Agent{}, other, d.tool(confirm))
	list = b.collect(second.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r)))
	if got := sealed(other.requests()[0]); got != sealedCall {
		t.Errorf("the request after the pause has %s", got)
	}
	if row = b.row(last(list).Result.RunID); row.Opaque != nil || row.Status != "COMPLETED" {
		t.Errorf("%s, and the row still has %s", row.Status, row.Opaque)
	}
}

func TestWhatAProviderRequiresBackSurvivesACrash(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("free", echo)},
		thinks("p", "", model.ToolCall{ID: "f", Name: "free"}), hangs(nil, "never"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi"}, 2)
	b.expireLeases(1)
	other := &scripted{answers: []answer{replies("done")}}
	second := newRunner(b.db, config.Agent{}, other, named("free", echo))
	row := b.claimAndExecute(second, id)
	if got := sealed(other.requests()[0]); got != sealedCall || row.Status != "COMPLETED" {
		t.Errorf("%s, the request has %s", row.Status, got)
	}
	if strings.Contains(string(row.Messages), "sealed") {
		t.Errorf("the messages are %s", row.Messages)
	}
}

// renamed is the same model under another name.
type renamed struct{ *scripted }

func (renamed) Describe() model.Description { return model.Description{ID: "m-2", Provider: "Test"} }

func TestAnotherModelDoesNotGetWhatThePreviousOneRequires(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, thinks("", "", knock))
	r := last(b.run("hi")).Result
	other := renamed{&scripted{answers: []answer{replies("done")}}}
	second := newRunnerLogging(b.db, config.Agent{}, other, io.Discard, d.tool(confirm))
	b.collect(second.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r)))
	if got := sealed(other.requests()[0]); got != "user assistant tool" {
		t.Errorf("the other model gets %s", got)
	}
}

func TestAfterACrashEachModelGetsOnlyWhatItRequiresItself(t *testing.T) {
	t.Parallel()
	free := named("free", echo)
	call := func(id string) model.ToolCall { return model.ToolCall{ID: id, Name: "free"} }
	b := newBenchWith(t, config.Agent{}, []tool.Set{free}, thinks("p", "", call("f")), hangs(nil, "never"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi"}, 2)
	b.expireLeases(1)
	other := renamed{&scripted{answers: []answer{thinks("p", "", call("g")), hangs(nil, "never"), replies("done")}}}
	second := newRunnerLogging(b.db, config.Agent{}, other, io.Discard, free)
	execute, claimed, err := second.Claim(t.Context(), uuid.MustParse(id))
	if err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	go execute()
	await(t, func() bool { return len(other.requests()) > 1 })
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second'") // not into the queue
	third := newRunnerLogging(b.db, config.Agent{}, other, io.Discard, free)
	row := b.claimAndExecute(third, id)
	for i, want := range []string{
		"user assistant tool", `user assistant tool assistant["sealed"] tool`, `user assistant tool assistant["sealed"] tool`,
	} {
		if got := sealed(other.requests()[i]); got != want || row.Status != "COMPLETED" {
			t.Errorf("%s, request %d of the other model has %s", row.Status, i, got)
		}
	}
}
