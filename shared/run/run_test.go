package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestARunEmitsItsEventsAndIsStored(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("hello ", "world"))
	list := b.run("hi")
	const events = "RunStarted ModelRequestStarted RunContent RunContent ModelRequestCompleted " +
		"RunContentCompleted RunCompleted"
	if names(list) != events {
		t.Fatalf("%s, want %s", names(list), events)
	}
	r := last(list).Result
	for i, want := range []map[string]any{
		0: {"model": "m-1", "model_provider": "Test", "session_id": "s", "nested_depth": 0.0},
		2: {"content": "hello ", "content_type": "str", "model_provider_data": map[string]any{"id": "answer"}},
		3: {"content": "world"},
		4: {"input_tokens": 10.0, "output_tokens": 5.0, "total_tokens": 15.0, "reasoning_tokens": 2.0,
			"cache_read_tokens": 3.0, "cache_write_tokens": 1.0},
		6: {"content": "hello world", "content_type": "str", "session_state": map[string]any{},
			"model_provider_data": map[string]any{"id": "answer"}},
	} {
		got := members(t, list[i])
		for name, value := range want {
			if diff := cmp.Diff(value, got[name]); diff != "" {
				t.Errorf("event %d, %s: %s", i, name, diff)
			}
		}
	}
	if r.Status != wire.StatusCompleted || *r.Content != "hello world" || r.SessionID != "s" || r.UserID != "ann" ||
		r.Input.InputContent != "hi" || string(r.Tools) != "[]" {
		t.Errorf("%+v", r)
	}
	row := b.row(r.RunID)
	if row.Status != "COMPLETED" || *row.Content != "hello world" || row.Owner != "ann" || row.SessionID != "s" ||
		row.ModelID != "m-1" || row.ModelProvider != "Test" || row.CancellationStage != nil {
		t.Errorf("%+v", row)
	}
	if diff := cmp.Diff([]string{"user: hi", "assistant: hello world"}, storedMessages(t, row)); diff != "" {
		t.Error(diff)
	}
}

func TestTheRowIsStoredBeforeTheModelIsCalled(t *testing.T) {
	t.Parallel()
	var b *bench
	seen := ""
	b = newBench(t, func(ctx context.Context, send func(model.Part) bool) error {
		runs, err := b.db.Runs(ctx, store.Viewer{Owner: "ann"}, store.RunQuery{SessionID: "s"})
		if err == nil && len(runs) == 1 {
			seen = runs[0].Status + " " + runs[0].Input
		}
		return replies("x")(ctx, send)
	})
	b.run("hi")
	if seen != "RUNNING hi" {
		t.Errorf("the model found %q", seen)
	}
}

func TestARunWithoutASessionCreatesOne(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	ids := map[string]bool{}
	for range 2 {
		r := last(b.collect(b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", Message: "hi"}))).Result
		if _, err := uuid.Parse(r.SessionID); err != nil || b.row(r.RunID).SessionID != r.SessionID {
			t.Errorf("session %q: %v", r.SessionID, err)
		}
		ids[r.SessionID] = true
	}
	if len(ids) != 2 {
		t.Error("two runs without a session have the same session")
	}
}

// onlyError returns the error of a run that yields nothing else, and checks that the model was not called.
func onlyError(t *testing.T, b *bench, ctx context.Context, in run.Input) error { //nolint:revive // t comes first
	t.Helper()
	var got error
	n := 0
	for e, err := range b.runner.Run(ctx, in) {
		n++
		if e.Event != nil || e.Result != nil {
			t.Errorf("%+v comes with %v", e, err)
		}
		got = err
	}
	if n != 1 || got == nil || len(b.model.requests()) != 0 {
		t.Errorf("%d yields, error %v, %d model calls", n, got, len(b.model.requests()))
	}
	return got
}

func TestAnUnknownAgentIsNotFound(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	for _, id := range []string{"nope", "", "A"} {
		err := onlyError(t, b, t.Context(), run.Input{AgentID: id, Owner: "ann", Message: "hi"})
		if !errors.Is(err, fault.NotFound) || fault.Detail(err) != "Agent not found" {
			t.Errorf("%q: %v", id, err)
		}
	}
	if n := b.count("runs") + b.count("sessions"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestNothingRunsWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	b.runner = newRunner(open(t, "postgres://u:sesame@127.0.0.1:1/x?connect_timeout=2"), config.Agent{}, b.model)
	err := onlyError(t, b, t.Context(), run.Input{AgentID: "a", Owner: "ann", Message: "hi"})
	if !errors.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("%v", err)
	}
}

func TestNothingRunsIfTheRunCannotBeStored(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	if err := onlyError(t, b, t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
		Message: "a\x00b"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := onlyError(t, b, gone, run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
		Message: "hi"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has disconnected already: %v", err)
	}
	if n := b.count("runs"); n != 0 {
		t.Errorf("%d runs", n)
	}
}

func TestAModelErrorEndsTheRunWithItsText(t *testing.T) {
	t.Parallel()
	shared := newBench(t)
	for name, row := range map[string]struct {
		answer answer
		events string
		reason string
		said   []string
	}{
		"at once": {fails(fault.Public(fault.Upstream, "Connection error.", errors.New("dial 10.0.0.7"))),
			"RunStarted ModelRequestStarted RunError", "Connection error.", []string{"user: hi"}},
		"in the middle": {fails(fault.Public(fault.Unavailable, "Rate limit reached", nil), "so ", "far"),
			"RunStarted ModelRequestStarted RunContent RunContent RunError", "Rate limit reached", []string{"user: hi",
				"assistant: so far"}},
		"without a public reason": {fails(errors.New("dial 10.0.0.7: refused"), "so far"),
			"RunStarted ModelRequestStarted RunContent RunError", "Internal server error", []string{"user: hi",
				"assistant: so far"}},
		"by ending without an end mark": {fails(nil, "so far"),
			"RunStarted ModelRequestStarted RunContent RunError", "The model's answer ended before it was complete",
			[]string{"user: hi", "assistant: so far"}},
		"by sending nothing": {fails(nil),
			"RunStarted ModelRequestStarted RunError", "The model's answer ended before it was complete", []string{"user: hi"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := shared.withModel(t, config.Agent{}, row.answer)
			list := b.run("hi")
			end, r := members(t, last(list)), last(list).Result
			if names(list) != row.events || end["content"] != row.reason || end["error_type"] != "model_provider_error" {
				t.Errorf("%s: %v", names(list), end)
			}
			stored := b.row(r.RunID)
			if r.Status != "ERROR" || *r.Content != row.reason || stored.Status != "ERROR" || *stored.Content != row.reason {
				t.Errorf("%+v, stored %+v", r, stored)
			}
			if diff := cmp.Diff(row.said, storedMessages(t, stored)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnAgentsTimeoutEndsItsRun(t *testing.T) {
	t.Parallel()
	b := newBenchFor(t, config.Agent{Timeout: 30 * time.Millisecond}, hangs(nil, "so far"))
	list := b.run("hi")
	end := members(t, last(list))
	const reason = "The run took longer than its limit of 30ms"
	if last(list).Name() != "RunError" || end["content"] != reason || end["error_type"] != "run_timeout_error" {
		t.Errorf("%s: %v", names(list), end)
	}
	if row := b.row(last(list).Result.RunID); row.Status != "ERROR" || *row.Content != reason {
		t.Errorf("%+v", row)
	}
}

func TestAConsumerThatStopsIteratingDoesNotStopTheRun(t *testing.T) {
	t.Parallel()
	shared := newBench(t)
	for _, after := range []string{"RunStarted", "RunContent", "RunCompleted"} {
		b := shared.withModel(t, config.Agent{}, calls("let me see ", model.ToolCall{ID: "c-1", Name: "search"}),
			replies("found ", "it"))
		id := ""
		for e, err := range b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
			if err != nil {
				t.Fatal(err)
			}
			if id = members(t, e)["run_id"].(string); e.Name() == after {
				break
			}
		}
		if row := b.row(id); row.Status != "COMPLETED" || *row.Content != "let me see found it" {
			t.Errorf("after %s: %+v", after, row)
		}
	}
}

func TestAClientThatDisconnectsDoesNotStopTheRun(t *testing.T) {
	t.Parallel()
	disconnected := make(chan struct{})
	b := newBench(t, hangs(disconnected, "first"))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var list []run.Event
	for e, err := range b.runner.Run(ctx, run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, e); e.Name() == "RunContent" && ctx.Err() == nil {
			leave()
			close(disconnected)
		}
	}
	if last(list).Name() != "RunCompleted" || *b.row(last(list).Result.RunID).Content != "first and the rest" {
		t.Errorf("%s", names(list))
	}
}

func TestTextThatCannotBeStoredIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t,
		calls("a\x00b", model.ToolCall{ID: "id\x00", Name: "to\xffol", Arguments: "{\x00}"}),
		func(_ context.Context, send func(model.Part) bool) error {
			send(model.Part{Text: "c\xff\xfed 日本 🎉", ProviderData: json.RawMessage(`{"id":"x\u0000y"}`)})
			send(model.Part{End: &model.End{}})
			return nil
		})
	list := b.run("hi")
	r := last(list).Result
	const whole = "a\ufffdbc\ufffd\ufffdd 日本 🎉"
	if last(list).Name() != "RunCompleted" || members(t, last(list))["content"] != whole || *r.Content != whole ||
		*b.row(r.RunID).Content != whole {
		t.Errorf("%s: %q", names(list), *r.Content)
	}
	if diff := cmp.Diff([]string{
		"user: hi", "assistant: a\ufffdb", "tool: Error: The requested tool does not exist or is not available.",
		"assistant: c\ufffd\ufffdd 日本 🎉",
	}, storedMessages(t, b.row(r.RunID))); diff != "" {
		t.Error(diff)
	}
	var messages []wire.Message
	decode(t, r.Messages, &messages)
	call := messages[1].ToolCalls[0]
	if !callIDForm.MatchString(call.ID) || call.Function.Name != "to\ufffdol" || call.Function.Arguments != "{\ufffd}" ||
		messages[2].ToolCallID != call.ID || messages[2].ToolName != "to\ufffdol" {
		t.Errorf("%+v %+v", call, messages[2])
	}
	if data := string(b.row(r.RunID).ProviderData); data != `{"id":"x\ufffdy"}` {
		t.Errorf("provider data %s", data)
	}
}

func TestTheUsageOfARunIsTheSumOfItsModelCalls(t *testing.T) {
	t.Parallel()
	tool := model.ToolCall{ID: "c", Name: "search"}
	b := newBench(t, calls("", tool), calls("", tool), replies("done"))
	r := last(b.run("hi")).Result
	var metrics wire.Metrics
	var messages []wire.Message
	decode(t, r.Metrics, &metrics)
	decode(t, r.Messages, &messages)
	if metrics.InputTokens != 30 || metrics.OutputTokens != 15 || metrics.TotalTokens != 45 || metrics.Duration <= 0 ||
		metrics.TimeToFirstToken <= 0 {
		t.Errorf("%+v", metrics)
	}
	if diff := cmp.Diff([]wire.ModelMetrics{{InputTokens: 30, OutputTokens: 15, TotalTokens: 45, ID: "m-1",
		Provider: "Test Chat"}}, metrics.Details.Model); diff != "" {
		t.Error(diff)
	}
	total := 0
	for _, m := range messages {
		if m.Metrics != nil {
			total += m.Metrics.TotalTokens
		}
	}
	b.run("again") // one more model call
	s, err := b.db.Session(t.Context(), store.Viewer{Owner: "ann"}, "s", "")
	if diff := cmp.Diff(store.Usages{{ModelID: "m-1", Family: "Test Chat", Input: 40, Output: 20, Total: 60}},
		s.Usage); err != nil || diff != "" || total != 45 {
		t.Errorf("%v, messages count %d: %s", err, total, diff)
	}
	var stored wire.Metrics
	if err := json.Unmarshal(b.row(r.RunID).Metrics, &stored); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(metrics, stored); diff != "" {
		t.Errorf("stored: %s", diff)
	}
}

func TestAModelWithoutUsageCountsNoTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(_ context.Context, send func(model.Part) bool) error {
		send(model.Part{Text: "x"})
		send(model.Part{End: &model.End{}})
		return nil
	})
	r := last(b.run("hi")).Result
	if r.Status != "COMPLETED" || tokens(t, r) != 0 || strings.Contains(string(r.Metrics), "details") ||
		r.ModelProviderData != nil {
		t.Errorf("%+v", r)
	}
}

// AgentOS's Responses models send the id of the answer first, and the parts without it.
func TestAnOpeningPartIsAnEventWithoutContent(t *testing.T) {
	t.Parallel()
	marks := json.RawMessage(`{"response_id":"resp_1"}`)
	b := newBench(t, func(_ context.Context, send func(model.Part) bool) error {
		send(model.Part{ProviderData: marks, Opening: true})
		send(model.Part{Text: "hi"})
		send(model.Part{ProviderData: marks, End: &model.End{}})
		return nil
	})
	list := b.run("hello")
	var contents []string
	for _, e := range list {
		if e.Name() == wire.EventRunContent {
			raw, err := wire.Marshal(e.Event)
			if err != nil {
				t.Fatal(err)
			}
			_, members, _ := strings.Cut(string(raw), `"nested_depth":0,`)
			contents = append(contents, members)
		}
	}
	want := []string{
		`"workflow_agent":false,"content_type":"str","reasoning_content":"",` +
			`"model_provider_data":{"response_id":"resp_1"},"event_index":2}`,
		`"content":"hi","workflow_agent":false,"content_type":"str","reasoning_content":"","event_index":3}`,
	}
	if diff := cmp.Diff(want, contents); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if r := last(list).Result; string(r.ModelProviderData) != string(marks) ||
		string(lastMessage(t, r).ProviderData) != string(marks) {
		t.Errorf("the run has %s, its answer %s", r.ModelProviderData, lastMessage(t, r).ProviderData)
	}
}

func TestOpaqueDataReturnsToTheProviderWithTheToolResult(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(_ context.Context, send func(model.Part) bool) error {
		send(model.Part{End: &model.End{ToolCalls: []model.ToolCall{{ID: "c", Name: "f"}},
			Opaque: json.RawMessage(`["sealed"]`)}})
		return nil
	}, replies("done"))
	b.run("hello")
	var opaque []string
	for _, m := range b.model.requests()[1].Messages {
		opaque = append(opaque, string(m.Role)+string(m.Opaque))
	}
	if got := strings.Join(opaque, " "); !strings.HasSuffix(got, `user assistant["sealed"] tool`) {
		t.Errorf("the second request has %s", got)
	}
}

// The provider data of one answer must not appear with another answer.
func TestEachAnswerHasItsOwnProviderData(t *testing.T) {
	t.Parallel()
	marked := func(text, marks string, wanted ...model.ToolCall) answer {
		return func(_ context.Context, send func(model.Part) bool) error {
			send(model.Part{Text: text, ProviderData: json.RawMessage(marks)})
			send(model.Part{End: &model.End{ToolCalls: wanted}})
			return nil
		}
	}
	b := newBench(t, marked("one", `{"id":"1"}`, model.ToolCall{ID: "c"}), calls("two", model.ToolCall{ID: "d"}),
		marked("three", `{"id":"3"}`))
	list := b.run("hi")
	var parts []string
	for _, e := range list {
		if c, ok := e.Event.(wire.Content); ok {
			parts = append(parts, c.Content+string(c.ModelProviderData))
		}
	}
	var kept []string
	var messages []wire.Message
	decode(t, last(list).Result.Messages, &messages)
	for _, m := range messages {
		if m.Role == "assistant" {
			kept = append(kept, m.Content+string(m.ProviderData))
		}
	}
	want := []string{`one{"id":"1"}`, `two`, `three{"id":"3"}`}
	if diff := cmp.Diff(want, parts) + cmp.Diff(want, kept); diff != "" {
		t.Error(diff)
	}
}

func TestAnEndThatCannotBeStoredIsAnErrorWithTheLastEvent(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{
		"the model has answered": nil, "the model has failed": errors.New("broken"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, end := endsAfter(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					RAISE EXCEPTION 'disk of db-7 is full'; END $$;
				CREATE TRIGGER refuse BEFORE UPDATE ON keyway.runs FOR EACH ROW EXECUTE FUNCTION refuse()`, answer)
			data := members(t, last(list))
			if !errors.Is(end, fault.Internal) || last(list).Name() != "RunError" || last(list).Result != nil ||
				data["error_type"] != "storage_error" ||
				data["content"] != "The run's end could not be stored: Internal server error" {
				t.Errorf("%v: %s, %v", end, names(list), data)
			}
			if strings.Contains(names(list), "RunCompleted") {
				t.Errorf("%s, %v", names(list), data)
			}
		})
	}
}

// endsAfter runs agent "a", whose model changes the database and then answers or fails. It returns the events and the
// error of the last one.
func endsAfter(t *testing.T, trouble string, fails error) (list []run.Event, end error) {
	t.Helper()
	var b *bench
	b = newBench(t, func(ctx context.Context, send func(model.Part) bool) error {
		if b.sql(trouble); fails != nil {
			return fails
		}
		return replies("x")(ctx, send)
	})
	for e, err := range b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if end != nil {
			t.Errorf("%v is followed by %+v", end, e)
		}
		list, end = append(list, e), err
	}
	return list, end
}

func TestTheClientOfADeletedRunLearnsThatItWasCancelled(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{
		"the model has answered": nil, "the model has failed": errors.New("broken"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, end := endsAfter(t, "DELETE FROM keyway.sessions", answer)
			r := last(list).Result
			if end != nil || last(list).HandedOver != nil || last(list).Name() != "RunCancelled" || r == nil ||
				r.Status != "CANCELLED" || strings.Contains(names(list[:len(list)-1]), "RunError") {
				t.Errorf("%+v, %v", last(list), end)
			}
		})
	}
}

func TestARunThatAnotherProcessEndedBelongsToIt(t *testing.T) {
	t.Parallel()
	list, end := endsAfter(t, `UPDATE keyway.runs
		SET status = 'ERROR', content = 'x', lease_until = NULL, finished_at = now()`, nil)
	over := last(list).HandedOver
	if end != nil || over == nil || over.Status != "RUNNING" || last(list).Event != nil || last(list).Result != nil {
		t.Errorf("%+v, %v", last(list), end)
	}
}

// The database has no answer for as long as the lease is valid, so another process will continue the run.
func TestAnEndIsTriedUntilTheLeaseEnds(t *testing.T) {
	t.Parallel()
	for _, returns := range []bool{true, false} {
		var b *bench
		b = newBench(t, func(ctx context.Context, send func(model.Part) bool) error {
			b.sql("ALTER TABLE keyway.runs RENAME TO gone")
			return replies("x")(ctx, send)
		})
		var log syncLog
		var ahead atomic.Int64
		o := options(b.db, agentOnly, b.model, &log)
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		b.runner = run.New(o)
		done := make(chan run.Event, 1)
		go func() {
			var last run.Event
			for e, err := range b.runner.Run(context.Background(), streamed) {
				if last = e; err != nil {
					t.Error(err)
				}
			}
			done <- last
		}()
		await(t, func() bool { return strings.Contains(log.String(), "could not store a run") })
		if returns {
			b.sql("ALTER TABLE keyway.gone RENAME TO runs")
		} else {
			ahead.Store(int64(55 * time.Second))
		}
		end := <-done
		if returns {
			if end.Result == nil || end.Result.Status != "COMPLETED" || b.row(end.Result.RunID).Status != "COMPLETED" {
				t.Errorf("%+v", end)
			}
		} else if end.HandedOver == nil || end.HandedOver.Status != "RUNNING" || end.Event != nil {
			t.Errorf("%+v", end)
		}
		if n := len(b.model.requests()); n != 1 {
			t.Errorf("the model was called %d times", n)
		}
	}
}

func TestARunnerExecutesManyRunsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	const n = 16
	done := make(chan string, n)
	for i := range n {
		go func() {
			end := ""
			for e, err := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
				Message: fmt.Sprint(i)}) {
				if err != nil {
					end = err.Error()
				} else if e.Result != nil {
					end = e.Result.Status + " " + e.Result.Input.InputContent
				}
			}
			done <- end
		}()
	}
	got := map[string]bool{}
	for range n {
		got[<-done] = true
	}
	for i := range n {
		if !got[fmt.Sprintf("COMPLETED %d", i)] {
			t.Errorf("run %d is missing in %v", i, got)
		}
	}
	s, err := b.db.Session(t.Context(), store.Viewer{Owner: "ann"}, "s", "")
	if err != nil || s.Usage[0].Total != 15*n {
		t.Errorf("%+v %v", s.Usage, err)
	}
}
