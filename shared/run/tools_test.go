package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// named returns a tool that calls f.
func named(name string, f func(context.Context, json.RawMessage) (string, error)) tool.Tool {
	return tool.Tool{Name: name, Description: "does " + name, Parameters: json.RawMessage(`{"type":"object"}`), Call: f}
}

// echo returns its arguments.
func echo(_ context.Context, arguments json.RawMessage) (string, error) {
	return string(arguments), nil
}

func executions(t testing.TB, r *wire.Run) (list []wire.ToolExecution) {
	t.Helper()
	decode(t, r.Tools, &list)
	return list
}

func TestTheModelReceivesTheResultOfItsToolCall(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("look", echo)},
		calls("let me see. ", model.ToolCall{ID: "c-1", Name: "look", Arguments: `{"b":1,"a":"x y"}`}), replies("done"))
	list := b.run("hi")
	if got := names(list); got != "RunStarted ModelRequestStarted RunContent ModelRequestCompleted "+
		"ToolCallStarted ToolCallCompleted "+
		"ModelRequestStarted RunContent ModelRequestCompleted RunContentCompleted RunCompleted" {
		t.Error(got)
	}
	requests := b.model.requests()
	if diff := cmp.Diff([]model.ToolSpec{{Name: "look", Description: "does look",
		Parameters: json.RawMessage(`{"type":"object","properties":{}}`)}}, requests[0].Tools); diff != "" {
		t.Error(diff)
	}
	id := callIDs(t, requests[1].Messages[1])[0]
	if diff := cmp.Diff([]model.Message{
		{Role: "user", Content: "hi"},
		{Role: "assistant", Content: "let me see. ",
			ToolCalls: []model.ToolCall{{ID: id, Name: "look", Arguments: `{"b":1,"a":"x y"}`}}},
		{Role: "tool", ToolCallID: id, Content: `{"b":1,"a":"x y"}`},
	}, requests[1].Messages); diff != "" {
		t.Error(diff)
	}
	done := members(t, list[5])
	if text, _ := done["content"].(string); !strings.HasPrefix(text, "look(b=1, a=x y) completed in 0.") {
		t.Errorf("%q", text)
	}
	r := last(list).Result
	call := executions(t, r)[0]
	if call.ToolCallID != id || call.ToolName != "look" || string(call.ToolArgs) != `{"b":1,"a":"x y"}` ||
		*call.ToolCallError || *call.Result != `{"b":1,"a":"x y"}` ||
		call.Metrics.Duration < 0 || call.Metrics.EndTime < call.Metrics.StartTime {
		t.Errorf("%s", r.Tools)
	}
	if string(b.row(r.RunID).Tools) != string(r.Tools) {
		t.Error("the stored row has other tool calls")
	}
}

// Each of the two tools waits for the other, so neither would return if they were called in turn.
func TestToolsOfOneAnswerAreCalledAtTheSameTime(t *testing.T) {
	t.Parallel()
	first, second := make(chan struct{}), make(chan struct{})
	meet := func(mine, other chan struct{}, text string) func(context.Context, json.RawMessage) (string, error) {
		return func(ctx context.Context, _ json.RawMessage) (string, error) {
			close(mine)
			select {
			case <-other:
				return text, nil
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
	}
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("one", meet(first, second, "1")),
		named("two", meet(second, first, "2"))},
		calls("", model.ToolCall{ID: "a", Name: "one"}, model.ToolCall{ID: "b", Name: "two"}), replies("done"))
	list := b.run("hi")
	if got := names(list); !strings.Contains(got,
		"ToolCallStarted ToolCallStarted ToolCallCompleted ToolCallCompleted ModelRequestStarted") {
		t.Error(got)
	}
	if diff := cmp.Diff([]string{"user: hi", "assistant: ", "tool: 1", "tool: 2", "assistant: done"},
		storedMessages(t, b.row(last(list).Result.RunID))); diff != "" {
		t.Errorf("the results are not in the order of the calls: %s", diff)
	}
}

func TestTheModelReceivesTheOutcomeOfAToolCall(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		arguments string
		do        func(context.Context, json.RawMessage) (string, error)
		received  string // by the model
		failed    bool
		ran       bool
	}{
		"an error": {"{}", func(context.Context, json.RawMessage) (string, error) { return "", errors.New("boom: test") },
			"boom: test", true, true},
		"an error with a public text": {"{}", func(context.Context, json.RawMessage) (string, error) {
			return "", fault.Public(fault.Upstream, "try later", errors.New("secret"))
		}, "try later", true, true},
		"a panic": {"{}", func(context.Context, json.RawMessage) (string, error) { panic("secret") },
			"Error: t failed with an internal error.", true, true},
		"no arguments at all":  {"", echo, "{}", false, true},
		"arguments in blanks":  {" {\"a\": 1}\n", echo, `{"a": 1}`, false, true},
		"text for arguments":   {"not JSON", echo, "Error: the arguments of t are not a JSON object: ", true, false},
		"null for arguments":   {"null", echo, "Error: the arguments of t are not a JSON object: ", true, false},
		"a list for arguments": {"[1]", echo, "Error: the arguments of t are not a JSON object: ", true, false},
		"NUL in the arguments": {`{"a":"x\u0000y"}`, echo, `{"a":"x\ufffdy"}`, false, true},
		"text that can't be stored": {"{}", func(context.Context, json.RawMessage) (string, error) {
			return "a\x00b\xff",
				nil
		}, "a\x00b\xff", false, true},
		"an answer without text": {"{}", func(context.Context, json.RawMessage) (string, error) { return "", nil }, "",
			false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBenchWith(t, config.Agent{}, []tool.Set{named("t", row.do)},
				calls("", model.ToolCall{ID: "c", Name: "t", Arguments: row.arguments}), replies("done"))
			list := b.run("hi")
			r := last(list).Result
			received := b.model.requests()[1].Messages[2].Content
			if r.Status != "COMPLETED" || received != row.received && (row.ran || !strings.HasPrefix(received, row.received)) {
				t.Errorf("%s, the model received %q", r.Status, received)
			}
			got := names(list)
			if strings.Contains(got, "ToolCallStarted") != row.ran ||
				strings.Contains(got, "ToolCallCompleted ToolCallError") != (row.failed && row.ran) {
				t.Error(got)
			}
			var messages []wire.Message
			decode(t, r.Messages, &messages)
			if m := messages[2]; m.ToolCallError == nil || *m.ToolCallError != row.failed || m.ToolName != "t" {
				t.Errorf("%+v", m)
			}
			stored := strings.ReplaceAll(strings.ToValidUTF8(received, "\ufffd"), "\x00", "\ufffd")
			if messages[2].Content != stored {
				t.Errorf("the stored result is %q, want %q", messages[2].Content, stored)
			}
			if strings.Contains(string(r.Messages)+string(r.Tools), "secret") {
				t.Error("the stored run contains the secret")
			}
		})
	}
}

func TestALongResultIsTruncatedWithANote(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("t",
		func(context.Context, json.RawMessage) (string, error) { return strings.Repeat("é", 5<<20), nil })},
		calls("", model.ToolCall{ID: "c", Name: "t"}), replies("done"))
	r := last(b.run("hi")).Result
	requests := b.model.requests()[1].Messages[2].Content
	if len(requests) > 101<<10 || !strings.HasSuffix(requests,
		"é\n[The answer had 10485760 bytes; only the first 102400 are shown.]") {
		t.Errorf("%d bytes, ending with %q", len(requests), requests[max(0, len(requests)-100):])
	}
	if r.Status != "COMPLETED" || len(r.Tools) > 110<<10 {
		t.Errorf("%s, tools of %d bytes", r.Status, len(r.Tools))
	}
}

func TestTheToolCallLimitIsEnforced(t *testing.T) {
	t.Parallel()
	done := 0
	count := func(context.Context, json.RawMessage) (string, error) { done++; return "ok", nil }
	two := []model.ToolCall{{ID: "a", Name: "t"}, {ID: "b", Name: "t"}}
	b := newBenchWith(t, config.Agent{ToolCallLimit: 1}, []tool.Set{named("t", count)}, calls("", two[0]),
		calls("", two...), replies("done"))
	list := b.run("hi")
	if done != 1 || strings.Count(names(list), "ToolCallStarted") != 1 || last(list).Result.Status != "COMPLETED" {
		t.Errorf("%d calls: %s", done, names(list))
	}
	const refused = "Tool call limit reached. Tool call t not executed. Don't try to execute it again."
	requests := b.model.requests()[2].Messages
	if requests[4].Content != refused || requests[5].Content != refused {
		t.Errorf("%+v", requests)
	}
}

func TestAToolReceivesItsCaller(t *testing.T) {
	t.Parallel()
	var got tool.Caller
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("t",
		func(ctx context.Context, _ json.RawMessage) (string, error) {
			got = tool.CallerFrom(ctx)
			return "", nil
		})}, calls("", model.ToolCall{ID: "c-7", Name: "t", Arguments: `{"user_id":"mallory"}`}), replies("done"))
	r := last(b.run("hi")).Result
	id := callIDs(t, b.model.requests()[1].Messages[1])[0]
	if diff := cmp.Diff(tool.Caller{UserID: "ann", AgentID: "a", SessionID: "s", RunID: r.RunID, CallID: id},
		got); diff != "" {
		t.Error(diff)
	}
}

// The tool ignores its context.
func TestACancelledRunDoesNotWaitForItsTools(t *testing.T) {
	t.Parallel()
	busy, release := make(chan struct{}), make(chan struct{})
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("t", func(context.Context, json.RawMessage) (string, error) {
		close(busy)
		<-release
		return "late", nil
	})}, calls("", model.ToolCall{ID: "c", Name: "t"}))
	defer close(release)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		<-busy
		b.cancelAll()
	}()
	list := b.run("hi")
	<-asked // The cancel request may last longer than the run, and needs the database.
	if r := last(list).Result; r.Status != "CANCELLED" || last(list).Name() != "RunCancelled" {
		t.Errorf("%s %s", r.Status, names(list))
	}
}

type broken struct{ err error }

func (s broken) Tools(context.Context) ([]tool.Tool, error) { return nil, s.err }
func (s broken) Close() error                               { return nil }

func TestToolsThatCannotBeListedEndTheRunBeforeTheModelIsCalled(t *testing.T) {
	t.Parallel()
	set := broken{fault.Public(fault.Upstream, "the MCP server does not answer", errors.New("dial tcp 10.0.0.1"))}
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("t", echo), set}, replies("never"))
	list := b.run("hi")
	end := members(t, last(list))
	if names(list) != "RunStarted RunError" || end["content"] != "the MCP server does not answer" ||
		end["error_type"] != "tool_error" || len(b.model.requests()) != 0 {
		t.Errorf("%s %v", names(list), end)
	}
	if row := b.row(last(list).Result.RunID); row.Status != "ERROR" || *row.Content != "the MCP server does not answer" {
		t.Errorf("%+v", row)
	}
}

func TestTheFirstOfTwoToolsWithTheSameNameIsUsed(t *testing.T) {
	t.Parallel()
	other := named("t", func(context.Context, json.RawMessage) (string, error) { return "second", nil })
	b := newBenchWith(t, config.Agent{}, []tool.Set{named("t", echo), other},
		calls("", model.ToolCall{ID: "c", Name: "t"}), replies("done"))
	b.run("hi")
	if r := b.model.requests(); len(r[0].Tools) != 1 || r[1].Messages[2].Content != "{}" {
		t.Errorf("%+v", r)
	}
}

// cancelAll cancels every run of the database.
func (b *bench) cancelAll() {
	rows, err := b.db.Runs(context.Background(), everyone, storeQuery{})
	if err != nil {
		b.t.Error(err)
	}
	for _, r := range rows {
		if _, err := b.runner.Cancel(context.Background(), everyone, r.RunID); err != nil {
			b.t.Error(err)
		}
	}
}
