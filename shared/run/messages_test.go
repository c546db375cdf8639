package run_test

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

const noTool = "Error: The requested tool does not exist or is not available."

func TestARunContinuesAfterACallOfAnUnknownTool(t *testing.T) {
	t.Parallel()
	first, second := model.ToolCall{ID: "c-1", Name: "search", Arguments: `{"q":"cats"}`}, model.ToolCall{ID: "c-2",
		Name: "delete_all", Arguments: "not JSON"}
	b := newBench(t, calls("let me see. ", first, second), replies("nothing there"))
	list := b.run("hi")
	const events = "RunStarted ModelRequestStarted RunContent ModelRequestCompleted " +
		"ModelRequestStarted RunContent ModelRequestCompleted RunContentCompleted RunCompleted"
	if names(list) != events {
		t.Errorf("%s, want %s", names(list), events)
	}
	requests := b.model.requests()
	ids := callIDs(t, requests[1].Messages[1])
	first.ID, second.ID = ids[0], ids[1]
	want := []model.Message{
		{Role: model.User, Content: "hi"}, {Role: model.Assistant, Content: "let me see. ",
			ToolCalls: []model.ToolCall{first, second}},
		{Role: model.ToolRole, ToolCallID: ids[0], Content: noTool}, {Role: model.ToolRole, ToolCallID: ids[1],
			Content: noTool},
	}
	if diff := cmp.Diff(want, requests[1].Messages); diff != "" || len(requests) != 2 ||
		len(requests[0].Tools)+len(requests[1].Tools) != 0 {
		t.Errorf("%d requests: %s", len(requests), diff)
	}
	r := last(list).Result
	var messages []wire.Message
	decode(t, r.Messages, &messages)
	if diff := cmp.Diff([]string{"user: hi", "assistant: let me see. ", "tool: " + noTool, "tool: " + noTool,
		"assistant: nothing there"}, storedMessages(t, b.row(r.RunID))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]wire.ToolCall{
		{ID: ids[0], Type: "function", Function: wire.ToolFunction{Name: "search", Arguments: `{"q":"cats"}`}},
		{ID: ids[1], Type: "function", Function: wire.ToolFunction{Name: "delete_all", Arguments: "not JSON"}},
	}, messages[1].ToolCalls); diff != "" {
		t.Error(diff)
	}
	if m := messages[3]; m.ToolName != "delete_all" || m.ToolCallID != ids[1] {
		t.Errorf("%+v", m)
	}
}

func TestARunEndsAfter100ModelCalls(t *testing.T) {
	t.Parallel()
	b := newBench(t, calls("", model.ToolCall{ID: "c", Name: "again"}))
	list := b.run("hi")
	end := members(t, last(list))
	if n := len(b.model.requests()); n != 100 {
		t.Errorf("the model was called %d times", n)
	}
	if last(list).Name() != "RunError" || end["content"] != "The model asked for tools 100 times in a row" ||
		end["error_type"] != "model_provider_error" {
		t.Errorf("%v", end)
	}
	var metrics wire.Metrics
	decode(t, last(list).Result.Metrics, &metrics)
	if row := b.row(last(list).Result.RunID); row.Status != "ERROR" || metrics.TotalTokens != 1500 {
		t.Errorf("%s, %+v", row.Status, metrics)
	}
}

// requestLines returns the messages of a request as "role: content", with their tool calls.
func requestLines(messages []model.Message) (lines []string) {
	for _, m := range messages {
		line := string(m.Role) + ": " + m.Content
		for _, c := range m.ToolCalls {
			line += fmt.Sprintf(" [%s %s %s]", c.ID, c.Name, c.Arguments)
		}
		if m.ToolCallID != "" {
			line += " <" + m.ToolCallID + ">"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestHistoryIncludesToolMessages(t *testing.T) {
	t.Parallel()
	agent := config.Agent{AddHistoryToContext: true, NumHistoryRuns: 2, Instructions: "Be kind."}
	b := newBenchFor(t, agent,
		replies("zero"),
		calls("", model.ToolCall{ID: "c-1", Name: "search", Arguments: "{}"},
			model.ToolCall{ID: "c-2", Name: "look"}), replies("one"),
		fails(fault.Upstream, "broken"),
		replies("two"),
		replies("three"))
	for _, message := range []string{"run 0", "run 1", "a run that fails", "run 2"} {
		b.run(message)
	}
	for _, in := range []run.Input{
		{AgentID: "a", Owner: "ann", SessionID: "another session", Message: "x"}, {AgentID: "a", Owner: "bob",
			SessionID: "s", Message: "x"},
	} {
		b.collect(b.runner.Run(t.Context(), in))
		requests := b.model.requests()
		if diff := cmp.Diff([]string{"system: Be kind.", "user: x"},
			requestLines(requests[len(requests)-1].Messages)); diff != "" {
			t.Errorf("%+v receives messages of others: %s", in, diff)
		}
	}
	list := b.run("run 3")
	requests := b.model.requests()
	ids := callIDs(t, requests[2].Messages[4]) // as the model received them in their own run
	want := []string{
		"system: Be kind.",
		"user: run 1", "assistant:  [" + ids[0] + " search {}] [" + ids[1] + " look ]",
		"tool: " + noTool + " <" + ids[0] + ">", "tool: " + noTool + " <" + ids[1] + ">", "assistant: one",
		"user: run 2", "assistant: two",
		"user: run 3",
	}
	if diff := cmp.Diff(want, requestLines(requests[len(requests)-1].Messages)); diff != "" {
		t.Error(diff)
	}
	// A run stores its own messages, not those of its history.
	if diff := cmp.Diff([]string{"system: Be kind.", "user: run 3", "assistant: three"},
		storedMessages(t, b.row(last(list).Result.RunID))); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutTheSettingThereIsNoHistory(t *testing.T) {
	t.Parallel()
	b := newBenchFor(t, config.Agent{NumHistoryRuns: 3}, replies("x"))
	b.run("run 0")
	b.run("run 1")
	if diff := cmp.Diff([]string{"user: run 1"}, requestLines(b.model.requests()[1].Messages)); diff != "" {
		t.Error(diff)
	}
}

func TestTheSystemMessageHasTheFormOfAgentOS(t *testing.T) {
	t.Parallel()
	shared := newBench(t)
	const also = "<additional_information>\n- %s\n</additional_information>"
	markdown := "Use markdown to format your answers."
	for name, row := range map[string]struct {
		agent config.Agent
		want  string
	}{
		"nothing":            {config.Agent{}, ""},
		"blank instructions": {config.Agent{Instructions: " \n"}, ""},
		"markdown":           {config.Agent{Markdown: true}, fmt.Sprintf(also, markdown)},
		"instructions":       {config.Agent{Instructions: "\nBe kind.\n"}, "Be kind."},
		"a description":      {config.Agent{Description: "You search."}, "You search."},
		"all but time": {config.Agent{Description: "You search.", Instructions: "Be kind.", Markdown: true},
			"You search.\nBe kind.\n\n" + fmt.Sprintf(also, markdown)},
		"the time": {config.Agent{AddDatetimeToContext: true}, fmt.Sprintf(also, "The current time is TIME.")},
		"markdown and then it": {config.Agent{AddDatetimeToContext: true, Markdown: true},
			fmt.Sprintf(also, markdown+"\n- The current time is TIME.")},
	} {
		t.Run(name, func(t *testing.T) {
			b := shared.withModel(t, row.agent, replies("x"))
			b.run("hi")
			got := ""
			if first := b.model.requests()[0].Messages[0]; first.Role == model.System {
				got = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`).ReplaceAllString(first.Content, "TIME")
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A client may keep the conversation itself. The model gets what the client sent, and nothing of it is stored as a
// message of the run.
func TestAConversationOfTheCallerReplacesTheSessionsHistory(t *testing.T) {
	t.Parallel()
	agent := config.Agent{AddHistoryToContext: true, NumHistoryRuns: 2}
	b := newBenchFor(t, agent, replies("first"), replies("second"))
	b.run("in the session")
	given := []run.Turn{{Role: model.User, Content: "mine"}, {Role: model.Assistant, Content: "claimed"}}
	r := last(b.collect(b.runner.Run(t.Context(), run.Input{
		AgentID: "a", Owner: "ann", SessionID: "s", Message: "now", History: given,
	}))).Result
	want := []model.Message{{Role: model.User, Content: "mine"}, {Role: model.Assistant, Content: "claimed"},
		{Role: model.User, Content: "now"}}
	if diff := cmp.Diff(want, b.model.requests()[1].Messages); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"user: now", "assistant: second"}, storedMessages(t, b.row(r.RunID))); diff != "" {
		t.Error(diff)
	}
}
