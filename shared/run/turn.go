package run

import (
	"bytes"
	"context"
	"encoding/json"
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
	r     *Runner
	agent Agent
	about model.Description
	row   store.Run
	start time.Time

	emit     func(Event, error)
	index    int
	head     wire.Head
	messages []wire.Message
	content  strings.Builder
	data     json.RawMessage // the provider's marks of the last answer
	usage    model.Usage
	first    time.Duration // until the first token; 0: none came
}

// begin makes the turn and its row; nothing is recorded yet.
func (r *Runner) begin(agent Agent, in Input, yield func(Event, error) bool) *turn {
	t := &turn{r: r, agent: agent, about: agent.Model.Describe(), start: r.now()}
	if in.SessionID == "" {
		in.SessionID = r.newID().String()
	}
	t.row = store.Run{
		RunID: r.newID(), Owner: in.Owner, SessionID: in.SessionID, AgentID: agent.ID, AgentName: agent.Name,
		ModelID: t.about.ID, ModelProvider: t.about.Provider, Status: wire.StatusRunning,
		Input: in.Message, CreatedAt: t.start.UTC().Truncate(time.Microsecond),
	}
	t.head = wire.Head{AgentID: agent.ID, AgentName: agent.Name, RunID: t.row.RunID.String(), SessionID: in.SessionID}
	listening := true
	t.emit = func(e Event, err error) {
		listening = listening && yield(e, err) // after a false, yield must not be called again
		t.index++
	}
	return t
}

// at heads an event with its name and time.
func (t *turn) at(name string) wire.Head {
	h := t.head
	h.Event, h.CreatedAt = name, t.r.now().Unix()
	return h
}

func (t *turn) started(name string) {
	t.emit(Event{Event: wire.Started{Head: t.at(name), Model: t.about.ID, ModelProvider: t.about.Provider, EventIndex: t.index}}, nil)
}

// ask calls the model once and passes its answer on as it comes. The answer is
// recorded even when it broke off.
func (t *turn) ask(ctx context.Context, messages []model.Message) (*model.End, model.Message, error) {
	t.started(wire.EventModelRequestStarted)
	t.data = nil
	var text strings.Builder
	var first time.Duration
	var end *model.End
	var err error
	asked := t.r.now()
	for part, partErr := range t.agent.Model.Stream(ctx, model.Request{Messages: messages}) {
		if err = partErr; err != nil {
			break
		}
		marks := storableJSON(part.ProviderData)
		if marks != nil {
			t.data = marks
		}
		if end = part.End; end != nil {
			break
		}
		if part.Opening {
			t.opened(marks)
			continue
		}
		if part.Text != "" && first == 0 {
			first = t.r.now().Sub(asked)
		}
		piece := storable(part.Text)
		text.WriteString(piece)
		t.said(piece, marks)
	}
	if t.first == 0 {
		t.first = first
	}
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
	answer.ToolCalls, answer.Opaque = end.ToolCalls, end.Opaque
	t.record(answer, &wire.MessageMetrics{
		InputTokens: end.Usage.Input, OutputTokens: end.Usage.Output, TotalTokens: end.Usage.Total,
		Duration: t.r.now().Sub(asked).Seconds(), TimeToFirstToken: first.Seconds(),
	})
	t.completed(end.Usage, first)
	return end, answer, nil
}

// opened passes on how the vendor names the answer that now begins.
func (t *turn) opened(marks json.RawMessage) {
	t.emit(Event{Event: wire.ContentOpened{
		Head: t.at(wire.EventRunContent), ContentType: "str", ModelProviderData: marks, EventIndex: t.index,
	}}, nil)
}

// said passes one piece of the answer on, with the marks that came beside it.
func (t *turn) said(piece string, marks json.RawMessage) {
	t.content.WriteString(piece)
	t.emit(Event{Event: wire.Content{
		Head: t.at(wire.EventRunContent), Content: piece, ContentType: "str", ModelProviderData: marks, EventIndex: t.index,
	}}, nil)
}

// completed adds up what one call of the model cost and tells it.
func (t *turn) completed(u model.Usage, first time.Duration) {
	t.usage.Input += u.Input
	t.usage.Output += u.Output
	t.usage.Total += u.Total
	t.emit(Event{Event: wire.ModelCompleted{
		Head: t.at(wire.EventModelRequestCompleted), Model: t.about.ID, ModelProvider: t.about.Provider,
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, TimeToFirstToken: first.Seconds(),
		ReasoningTokens: u.Reasoning, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, EventIndex: t.index,
	}}, nil)
}

// answerTool tells the model that the tool it asked for isn't there. The words
// are AgentOS's.
func (t *turn) answerTool(call model.ToolCall) model.Message {
	m := model.Message{Role: model.ToolRole, ToolCallID: call.ID, Content: "Error: The requested tool does not exist or is not available."}
	t.messages = append(t.messages, t.message(m))
	t.messages[len(t.messages)-1].ToolName = storable(call.Name)
	return m
}

// end records how the run ended and says so. err is why it did not complete;
// nil: it did.
func (t *turn) end(ctx context.Context, err error) {
	status, text, kind := reason(ctx, t.head.RunID, err)
	content := t.content.String()
	switch status {
	case wire.StatusCompleted:
		t.emit(Event{Event: wire.ContentCompleted{Head: t.at(wire.EventRunContentCompleted), EventIndex: t.index}}, nil)
	case wire.StatusError:
		content = text
	case wire.StatusCancelled:
		t.row.CancellationStage = new("EXECUTING")
	}
	t.row.Status, t.row.Content = status, &content
	metrics := t.metrics()
	if err := t.store(ctx, metrics); err != nil {
		t.emit(Event{Event: wire.Failed{
			Head: t.at(wire.EventRunError), Content: "The run's end could not be stored: " + fault.Detail(err),
			ErrorType: "storage_error", EventIndex: t.index,
		}}, err)
		return
	}
	last := Event{Result: t.result(metrics)}
	switch status {
	case wire.StatusCompleted:
		last.Event = wire.Completed{
			Head: t.at(wire.EventRunCompleted), Content: content, ContentType: "str", ModelProviderData: t.data,
			SessionState: t.row.SessionState, EventIndex: t.index, Metrics: metrics,
		}
	case wire.StatusCancelled:
		last.Event = wire.Cancelled{Head: t.at(wire.EventRunCancelled), Content: content, Reason: text, EventIndex: t.index}
	default:
		last.Event = wire.Failed{Head: t.at(wire.EventRunError), Content: text, ErrorType: kind, EventIndex: t.index}
	}
	t.emit(last, nil)
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
	if t.row.Status == wire.StatusCompleted {
		t.row.Tools = json.RawMessage("[]")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return t.r.db.FinishRun(ctx, t.row, store.Usage{
		ModelID: t.about.ID, ModelFamily: t.about.Family, Input: t.usage.Input, Output: t.usage.Output, Total: t.usage.Total,
	}, t.r.now().UTC().Truncate(time.Microsecond))
}

func (t *turn) metrics() wire.Metrics {
	m := wire.Metrics{
		InputTokens: t.usage.Input, OutputTokens: t.usage.Output, TotalTokens: t.usage.Total,
		TimeToFirstToken: t.first.Seconds(), Duration: t.r.now().Sub(t.start).Seconds(),
	}
	if t.usage.Total > 0 {
		m.Details = &wire.MetricsDetails{Model: []wire.ModelMetrics{{
			InputTokens: t.usage.Input, OutputTokens: t.usage.Output, TotalTokens: t.usage.Total,
			ID: t.about.ID, Provider: t.about.Family,
		}}}
	}
	return m
}

// result is the run as the caller of a run that isn't streamed gets it.
func (t *turn) result(metrics wire.Metrics) *wire.Run {
	r := &wire.Run{
		RunID: t.head.RunID, AgentID: t.agent.ID, AgentName: t.agent.Name, SessionID: t.row.SessionID, UserID: t.row.Owner,
		Content: t.row.Content, ContentType: "str", ModelProviderData: t.data, Model: t.about.ID, ModelProvider: t.about.Provider,
		SessionState: t.row.SessionState, CreatedAt: t.row.CreatedAt.Unix(), Status: t.row.Status, Metrics: metrics,
		Messages: t.messages, Tools: t.row.Tools, Input: wire.RunInput{InputContent: t.row.Input},
	}
	if t.row.CancellationStage != nil {
		r.CancellationStage = *t.row.CancellationStage
	}
	return r
}

// storable makes text fit for PostgreSQL and JSON: a model may say anything, NUL
// and broken UTF-8 included.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// storableJSON is storable for JSON, in which NUL hides as an escape.
func storableJSON(data json.RawMessage) json.RawMessage {
	return bytes.ReplaceAll(data, []byte(`\u0000`), []byte(`\ufffd`))
}
