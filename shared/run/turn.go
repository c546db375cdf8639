package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// turn is one run in progress: what was said so far, and what it cost.
type turn struct {
	r       *Runner
	agent   Agent
	about   model.Description
	row     store.Run
	files   []wire.File
	earlier []json.RawMessage // what was said in earlier runs; nil: not read yet
	start   time.Time
	spent   time.Duration // before this leg, of a run that was continued

	continued bool

	until   time.Time     // when this process has no more time for it; zero: never
	used    time.Duration // of the agent's limit, by the processes that carried it before
	stepped bool          // a step was recorded in this leg, so another process starts further on

	yield    func(Event, error) bool // nil: nobody listens any more
	index    int
	events   *eventLog // nil: the run isn't streamed
	head     wire.Head
	messages []wire.Message
	calls    []wire.ToolExecution
	called   int                // tool calls that the model asked for
	waiting  []wire.Requirement // what a person has to decide, or has decided
	paused   bool               // somebody has to decide before the run goes on
	content  strings.Builder
	data     json.RawMessage // the provider's marks of the last answer
	before   model.Usage     // of earlier legs
	usage    model.Usage     // of this one
	first    time.Duration   // until the first token; 0: none came
}

// newTurn makes the turn of a row.
func (r *Runner) newTurn(agent Agent, about model.Description, row store.Run) *turn {
	t := &turn{r: r, agent: agent, about: about, start: r.now(), row: row}
	t.row.ModelID, t.row.ModelProvider = t.about.ID, t.about.Provider
	t.head = wire.Head{AgentID: agent.ID, AgentName: agent.Name, RunID: row.RunID.String(), SessionID: row.SessionID}
	if row.Streamed {
		t.events = newEventLog(t.held())
	}
	return t
}

// limited bounds how long the run may take from now on. What other processes took for
// it counts, up to where they left it.
func (t *turn) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := t.agent.Timeout
	return context.WithTimeoutCause(ctx, limit-t.used, fault.Public(fault.Internal, fmt.Sprintf("The run took longer than its limit of %s", limit), nil))
}

// listen sends the events that follow to yield, until it says that it heard
// enough.
func (t *turn) listen(yield func(Event, error) bool) { t.yield = yield }

// emit tells one event. After a false, yield must not be called again.
func (t *turn) emit(e Event, err error) {
	if t.events != nil && e.Frame == nil {
		e.Frame = t.events.add(t.index, e.Event)
	}
	t.index++
	if t.yield != nil && !t.yield(e, err) {
		t.yield = nil
	}
}

// tell is emit of an event that is nothing but itself.
func (t *turn) tell(e wire.Event) { t.emit(Event{Event: e}, nil) }

// at heads an event with its name and time.
func (t *turn) at(name string) wire.Head {
	h := t.head
	h.Event, h.CreatedAt = name, t.r.now().Unix()
	return h
}

func (t *turn) started(name string) {
	t.tell(wire.Started{Head: t.at(name), Model: t.about.ID, ModelProvider: t.about.Provider, EventIndex: t.index})
}

// ask calls the model once and passes its answer on as it comes. The answer is
// recorded even when it broke off.
func (t *turn) ask(ctx context.Context, messages []model.Message, tools []model.ToolSpec) (*model.End, model.Message, error) {
	t.started(wire.EventModelRequestStarted)
	t.data = nil
	var text strings.Builder
	var first time.Duration
	var end *model.End
	var err error
	asked := t.r.now()
	for part, partErr := range t.agent.Model.Stream(ctx, model.Request{Messages: messages, Tools: tools, Whole: t.events == nil}) {
		if err = partErr; err != nil {
			break
		}
		part.ProviderData = storableJSON(part.ProviderData)
		if part.ProviderData != nil {
			t.data = part.ProviderData
		}
		if end = part.End; end != nil {
			break
		}
		if first == 0 && !part.Opening { // an empty piece counts, as in AgentOS
			first = t.r.now().Sub(asked)
		}
		part.Text = storable(part.Text)
		text.WriteString(part.Text)
		t.said(part)
	}
	t.first = cmp.Or(t.first, first)
	if err == nil && end == nil {
		err = fault.Public(fault.Upstream, "The model's answer ended before it was complete", nil)
	}
	answer := model.Message{Role: model.Assistant, Content: text.String()}
	if err != nil {
		if answer.Content != "" {
			t.record(answer, nil)
		}
		return nil, answer, fmt.Errorf("%w: %w", errModel, err)
	}
	t.first = cmp.Or(t.first, t.r.now().Sub(asked)) // of an answer of nothing but tool calls
	answer.ToolCalls, answer.Opaque = end.ToolCalls, end.Opaque
	t.record(answer, &wire.MessageMetrics{
		InputTokens: end.Usage.Input, OutputTokens: end.Usage.Output, TotalTokens: end.Usage.Total,
		Duration: t.r.now().Sub(asked).Seconds(), TimeToFirstToken: first.Seconds(),
	})
	t.completed(end.Usage, first)
	return end, answer, nil
}

// said passes one piece of the answer on.
func (t *turn) said(part model.Part) {
	t.content.WriteString(part.Text)
	if part.Opening {
		t.tell(wire.ContentOpened{Head: t.at(wire.EventRunContent), ContentType: "str", ModelProviderData: part.ProviderData, EventIndex: t.index})
		return
	}
	t.tell(wire.Content{Head: t.at(wire.EventRunContent), Content: part.Text, ContentType: "str", ModelProviderData: part.ProviderData, EventIndex: t.index})
}

// completed adds up what one call of the model cost and tells it.
func (t *turn) completed(u model.Usage, first time.Duration) {
	t.usage.Input += u.Input
	t.usage.Output += u.Output
	t.usage.Total += u.Total
	t.tell(wire.ModelCompleted{
		Head: t.at(wire.EventModelRequestCompleted), Model: t.about.ID, ModelProvider: t.about.Provider,
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, TimeToFirstToken: first.Seconds(),
		ReasoningTokens: u.Reasoning, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, EventIndex: t.index,
	})
}

// end records how the run ended and says so. err is why it did not complete;
// nil: it did. Of a run that is lost nothing is recorded, and one that goes on elsewhere
// has not ended.
func (t *turn) end(ctx context.Context, err error) {
	switch {
	case errors.Is(err, errLost) || errors.Is(context.Cause(ctx), errLost):
		t.unstored(errLost)
		return
	case t.goesOn(ctx, err):
		t.handOver(ctx)
		return
	}
	status, text, kind := reason(ctx, t.head.RunID, err)
	content := t.content.String()
	switch status {
	case wire.StatusCompleted, wire.StatusPaused:
		t.tell(wire.ContentCompleted{Head: t.at(wire.EventRunContentCompleted), EventIndex: t.index})
	case wire.StatusError:
		content = text
	case wire.StatusCancelled:
		t.row.CancellationStage = new("EXECUTING")
	}
	if status == wire.StatusPaused {
		content = pausedText(t.waiting)
	}
	t.row.Status, t.row.Content = status, &content
	metrics := t.metrics()
	last := Event{Event: t.lastEvent(status, text, kind, metrics)}
	if t.events != nil {
		last.Frame = t.events.add(t.index, last.Event)
	}
	if err := t.store(ctx, metrics); err != nil {
		t.unstored(err)
		return
	}
	last.Result = t.result()
	t.emit(last, nil)
}

// unstored says to who listens here that the run's end is not known here. It is not
// an event of the run's.
func (t *turn) unstored(err error) {
	e := wire.Failed{
		Head: t.at(wire.EventRunError), Content: "The run's end could not be stored: " + fault.Detail(err),
		ErrorType: "storage_error", EventIndex: t.index,
	}
	t.events = nil
	t.emit(Event{Event: e}, err)
}

// lastEvent says how the run ended.
func (t *turn) lastEvent(status, text, kind string, metrics wire.Metrics) wire.Event {
	switch status {
	case wire.StatusCompleted:
		return wire.Completed{
			Head: t.at(wire.EventRunCompleted), Content: *t.row.Content, ContentType: "str", ModelProviderData: t.data,
			SessionState: t.row.SessionState, EventIndex: t.index, Metrics: metrics,
		}
	case wire.StatusPaused:
		return wire.Paused{
			Head: t.at(wire.EventRunPaused), Content: *t.row.Content, Tools: t.calls, Requirements: t.waiting, EventIndex: t.index,
		}
	case wire.StatusCancelled:
		return wire.Cancelled{Head: t.at(wire.EventRunCancelled), Content: *t.row.Content, Reason: text, EventIndex: t.index}
	}
	return wire.Failed{Head: t.at(wire.EventRunError), Content: text, ErrorType: kind, EventIndex: t.index}
}

// panicked records a run whose model (or consumer) panicked as failed, and lets
// the panic go on: the row must not look alive.
func (t *turn) panicked(ctx context.Context) {
	p := recover()
	if p == nil {
		return
	}
	t.row.Status, t.row.Content = wire.StatusError, new("Internal server error")
	if err := t.store(ctx, t.metrics()); err != nil {
		p = fmt.Sprintf("%v; and the run's end could not be stored: %v", p, err)
	}
	panic(p)
}

// finishTimeout bounds the last write of a run, which no cancellation reaches.
const finishTimeout = 15 * time.Second

func (t *turn) store(ctx context.Context, metrics wire.Metrics) (err error) {
	t.row.ProviderData = t.data
	if t.row.Messages, err = wire.Marshal(t.messages); err != nil {
		return fmt.Errorf("messages: %w", err)
	}
	if t.row.Metrics, err = wire.Marshal(metrics); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if t.row.Requirements = nil; len(t.waiting) > 0 {
		if t.row.Requirements, err = wire.Marshal(t.waiting); err != nil {
			return fmt.Errorf("requirements: %w", err)
		}
	}
	if t.row.Tools = nil; len(t.calls) > 0 {
		t.row.Tools, err = wire.Marshal(t.calls)
	} else if t.row.Status == wire.StatusCompleted {
		t.row.Tools = json.RawMessage("[]")
	}
	if err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	rest, done := t.events.rest()
	defer done()
	return t.r.db.FinishRun(ctx, t.row, rest, store.Usage{
		ModelID: t.about.ID, ModelFamily: t.about.Family, Input: t.usage.Input, Output: t.usage.Output, Total: t.usage.Total,
	}, t.r.clock())
}

func (t *turn) metrics() wire.Metrics {
	u := model.Usage{Input: t.before.Input + t.usage.Input, Output: t.before.Output + t.usage.Output, Total: t.before.Total + t.usage.Total}
	m := wire.Metrics{
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total,
		TimeToFirstToken: t.first.Seconds(), Duration: (t.spent + t.r.now().Sub(t.start)).Seconds(),
	}
	if u.Total > 0 {
		m.Details = &wire.MetricsDetails{Model: []wire.ModelMetrics{{
			InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, ID: t.about.ID, Provider: t.about.Family,
		}}}
	}
	return m
}

// result is the run as the caller of a run that isn't streamed gets it.
func (t *turn) result() *wire.Run {
	r := &wire.Run{
		RunID: t.head.RunID, AgentID: t.agent.ID, AgentName: t.agent.Name, SessionID: t.row.SessionID, UserID: t.row.Owner,
		Content: t.row.Content, ContentType: "str", ModelProviderData: t.data, Model: t.about.ID, ModelProvider: t.about.Provider,
		SessionState: t.row.SessionState, CreatedAt: t.row.CreatedAt.Unix(), Status: t.row.Status, Metrics: t.row.Metrics,
		Messages: t.row.Messages, Metadata: t.row.Metadata, Tools: t.row.Tools, Requirements: t.row.Requirements,
		Input: wire.RunInput{InputContent: t.row.Input, Files: t.row.Files},
	}
	if t.continued {
		r.Events = json.RawMessage("[]") // AgentOS reads such a run back, and shows so
	}
	if t.row.CancellationStage != nil {
		r.CancellationStage = *t.row.CancellationStage
	}
	return r
}

// storable makes text fit for PostgreSQL and JSON: a model or a tool may say
// anything, NUL and broken UTF-8 included.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
