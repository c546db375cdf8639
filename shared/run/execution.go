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
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// execution is one attempt at a run in this process: the state of the run, and where its events go. One goroutine uses
// it. Tools are called in goroutines of their own, but they get copies and return their outcome through a channel; the
// pulse sees only the event log.
type execution struct {
	r     *Runner
	agent Agent
	about model.Description
	row   store.Run
	files []wire.File
	// head is common to all events of the run.
	head wire.Head
	// start is when this attempt started.
	start time.Time

	// history are the messages of earlier runs. nil means that they are not read yet.
	history []json.RawMessage
	// wasPaused means that the run was paused and continued.
	wasPaused bool

	// deadline is when this process must have ended the run or handed it over. Zero means never.
	deadline time.Time
	// limitUsed is how much of the agent's time limit earlier attempts have used.
	limitUsed time.Duration
	// savedStep means that this attempt has saved a step, so that another attempt would start further on.
	savedStep bool

	// yield is nil if there is no consumer, or if it has stopped iterating.
	yield func(Event, error) bool
	// index is that of the next event.
	index int
	// events is nil if the run is not streamed.
	events *eventLog

	messages []wire.Message
	calls    []wire.ToolExecution
	// callCount counts the tool calls that the model requested, for the agent's limit.
	callCount int
	// requirements are what a person must decide, or has decided.
	requirements []wire.Requirement
	// paused means that the last step ended with a call that needs a person.
	paused  bool
	content strings.Builder
	// providerData belongs to the last answer.
	providerData json.RawMessage

	// A pause adds the usage so far to the session's totals, and the end adds only what follows. So the usage of a
	// run that was paused is kept in two parts.
	earlierUsage model.Usage
	usage        model.Usage
	// earlierDuration is the time of earlier attempts, before and after pauses.
	earlierDuration time.Duration
	// timeToFirstToken is 0 if no token has come yet.
	timeToFirstToken time.Duration
}

// newExecution makes the execution of a row. about is the model that the agent has now, which may differ from the
// model of an earlier attempt if the configuration was changed meanwhile.
func (r *Runner) newExecution(agent Agent, about model.Description, row store.Run) *execution {
	x := &execution{r: r, agent: agent, about: about, start: r.now(), row: row}
	x.row.ModelID, x.row.ModelProvider = x.about.ID, x.about.Provider
	x.head = wire.Head{
		AgentID: agent.ID, AgentName: agent.Name, RunID: row.RunID.String(), SessionID: row.SessionID,
	}
	if row.Streamed {
		x.events = newEventLog(x.attempt())
	}
	return x
}

// withTimeLimit applies the agent's timeout, of which earlier attempts may have used a part. Time that an attempt
// spent after its last checkpoint is not counted, since nobody knows it after a crash.
func (x *execution) withTimeLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := x.agent.Timeout
	cause := fault.Public(fault.Internal, fmt.Sprintf("The run took longer than its limit of %s", limit), nil)
	return context.WithTimeoutCause(ctx, limit-x.limitUsed, cause)
}

// duration is how long the run has been executed, over all attempts. The time while it was paused does not count.
func (x *execution) duration() time.Duration { return x.earlierDuration + x.r.now().Sub(x.start) }

// deliver passes an event to the log and to the consumer. After yield has returned false it must not be called again;
// the run continues without a consumer, because the client can read the result or resume the stream later.
func (x *execution) deliver(e Event, err error) {
	if x.events != nil && e.Frame == nil {
		e.Frame = x.events.add(x.index, e.Event)
	}
	x.index++
	if x.yield != nil && !x.yield(e, err) {
		x.yield = nil
	}
}

// emit delivers an event that comes without a result and without an error.
func (x *execution) emit(e wire.Event) { x.deliver(Event{Event: e}, nil) }

// headFor returns the head of an event with this name, at the present time.
func (x *execution) headFor(name string) wire.Head {
	h := x.head
	h.Event, h.CreatedAt = name, x.r.now().Unix()
	return h
}

// emitStarted emits RunStarted or ModelRequestStarted.
func (x *execution) emitStarted(name string) {
	x.emit(wire.Started{
		Head: x.headFor(name), Model: x.about.ID, ModelProvider: x.about.Provider, EventIndex: x.index,
	})
}

// callModel calls the model once, emits the parts of its answer as they arrive, and adds the answer to the run's
// messages. An answer that breaks off is recorded too, so that the stored run shows what the client has seen, but it
// is never treated as complete: a stream without an end is an error.
func (x *execution) callModel(
	ctx context.Context, messages []model.Message, tools []model.ToolSpec,
) (*model.End, model.Message, error) {
	x.emitStarted(wire.EventModelRequestStarted)
	x.providerData = nil
	var text strings.Builder
	var first time.Duration
	var end *model.End
	var err error
	sent := x.r.now()
	// Nobody receives parts if the run is not streamed; see docs/adr/0006.
	request := model.Request{Messages: messages, Tools: tools, Whole: x.events == nil}
	for part, partErr := range x.agent.Model.Stream(ctx, request) {
		if err = partErr; err != nil {
			break
		}
		part.ProviderData = strictjson.MakeStorable(part.ProviderData)
		if part.ProviderData != nil {
			x.providerData = part.ProviderData
		}
		if end = part.End; end != nil {
			break
		}
		if first == 0 && !part.Opening { // An empty part counts as the first token, as in AgentOS.
			first = x.r.now().Sub(sent)
		}
		part.Text = pgvalue.CleanText(part.Text)
		text.WriteString(part.Text)
		x.emitPart(part)
	}
	x.timeToFirstToken = cmp.Or(x.timeToFirstToken, first)
	if err == nil && end == nil {
		err = fault.Public(fault.Upstream, "The model's answer ended before it was complete", nil)
	}
	answer := model.Message{Role: model.Assistant, Content: text.String()}
	if err != nil {
		if answer.Content != "" {
			x.appendMessage(answer, nil)
		}
		return nil, answer, fmt.Errorf("%w: %w", errModel, err)
	}
	// An answer with tool calls only has no part; then the whole answer counts as the first token.
	x.timeToFirstToken = cmp.Or(x.timeToFirstToken, x.r.now().Sub(sent))
	answer.ToolCalls, answer.Opaque = end.ToolCalls, end.Opaque
	x.appendMessage(answer, &wire.MessageMetrics{
		InputTokens: end.Usage.Input, OutputTokens: end.Usage.Output, TotalTokens: end.Usage.Total,
		Duration: x.r.now().Sub(sent).Seconds(), TimeToFirstToken: first.Seconds(),
	})
	x.addUsage(end.Usage, first)
	return end, answer, nil
}

// emitPart emits one part of an answer. An opening part has no text: some providers send the id of an answer before its
// text, and AgentOS emits an event for it.
func (x *execution) emitPart(part model.Part) {
	x.content.WriteString(part.Text)
	head := x.headFor(wire.EventRunContent)
	if part.Opening {
		x.emit(wire.ContentOpened{
			Head: head, ContentType: "str", ModelProviderData: part.ProviderData, EventIndex: x.index,
		})
		return
	}
	x.emit(wire.Content{
		Head: head, Content: part.Text, ContentType: "str", ModelProviderData: part.ProviderData, EventIndex: x.index,
	})
}

// addUsage adds the usage of one model call to that of the run and emits ModelRequestCompleted. The details of the
// usage (reasoning and cache tokens) are sent with the event but not stored.
func (x *execution) addUsage(u model.Usage, first time.Duration) {
	x.usage.Input += u.Input
	x.usage.Output += u.Output
	x.usage.Total += u.Total
	x.emit(wire.ModelCompleted{
		Head:  x.headFor(wire.EventModelRequestCompleted),
		Model: x.about.ID, ModelProvider: x.about.Provider,
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, TimeToFirstToken: first.Seconds(),
		ReasoningTokens: u.Reasoning, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite,
		EventIndex: x.index,
	})
}

// finish stores the end of the run, or its pause, and then emits the last event. err is why the run did not complete;
// nil means that it did. The event comes after the write, so that a client that has received it finds the end in the
// database. If the lease is lost, nothing is recorded. If another process continues the run, it is handed over.
func (x *execution) finish(ctx context.Context, err error) {
	switch {
	case errors.Is(err, errLost) || errors.Is(context.Cause(ctx), errLost):
		x.emitUnstored(errLost)
		return
	case x.shouldHandOver(ctx, err):
		x.handOver(ctx)
		return
	}
	status, text, kind := reason(ctx, x.head.RunID, err)
	// The stored content of a completed or cancelled run is the text so far. That of a failed run is the reason.
	content := x.content.String()
	switch status {
	case wire.StatusCompleted, wire.StatusPaused:
		x.emit(wire.ContentCompleted{Head: x.headFor(wire.EventRunContentCompleted), EventIndex: x.index})
	case wire.StatusError:
		content = text
	case wire.StatusCancelled:
		x.row.CancellationStage = new("EXECUTING")
	}
	if status == wire.StatusPaused {
		content = pausedText(x.requirements)
	}
	x.row.Status, x.row.Content = status, &content
	metrics := x.metrics()
	last := Event{Event: x.lastEvent(status, text, kind, metrics)}
	if x.events != nil {
		last.Frame = x.events.add(x.index, last.Event) // It is stored with the end, in the same statement.
	}
	// If the write fails, the last event is not sent: a client must not see an end that the database does not have.
	if err := x.storeEnd(ctx, metrics); err != nil {
		x.emitUnstored(err)
		return
	}
	last.Result = x.result()
	x.deliver(last, nil)
}

// emitUnstored sends the connected client an error that says why the final state could not be stored. It is not
// recorded as an event of the run: the run has not ended in the database, or another attempt records its end.
func (x *execution) emitUnstored(err error) {
	// Without the event log, deliver encodes no frame, and nothing is stored.
	e := wire.Failed{
		Head:    x.headFor(wire.EventRunError),
		Content: "The run's end could not be stored: " + fault.Detail(err), ErrorType: "storage_error",
		EventIndex: x.index,
	}
	x.events = nil
	x.deliver(Event{Event: e}, err)
}

// lastEvent returns the event that ends the run or pauses it. status, text and kind are those of reason; the content
// is in the row already.
func (x *execution) lastEvent(status, text, kind string, metrics wire.Metrics) wire.Event {
	switch status {
	case wire.StatusCompleted:
		return wire.Completed{
			Head: x.headFor(wire.EventRunCompleted), Content: *x.row.Content, ContentType: "str",
			ModelProviderData: x.providerData, SessionState: x.row.SessionState, EventIndex: x.index, Metrics: metrics,
		}
	case wire.StatusPaused:
		return wire.Paused{
			Head: x.headFor(wire.EventRunPaused), Content: *x.row.Content, Tools: x.calls,
			Requirements: x.requirements, EventIndex: x.index,
		}
	case wire.StatusCancelled:
		return wire.Cancelled{
			Head: x.headFor(wire.EventRunCancelled), Content: *x.row.Content, Reason: text, EventIndex: x.index,
		}
	}
	return wire.Failed{
		Head: x.headFor(wire.EventRunError), Content: text, ErrorType: kind, EventIndex: x.index,
	}
}

// recordPanic records a run as failed if its model or consumer panicked, and then continues the panic. Otherwise the
// row would stay RUNNING, and the run would be executed, and perhaps panic, again in another process.
func (x *execution) recordPanic(ctx context.Context) {
	p := recover()
	if p == nil {
		return
	}
	x.row.Status, x.row.Content = wire.StatusError, new("Internal server error")
	if err := x.storeEnd(ctx, x.metrics()); err != nil {
		p = fmt.Sprintf("%v; and the run's end could not be stored: %v", p, err)
	}
	panic(p)
}

// finishTimeout bounds the last write of a run. The write ignores the cancellation of the run's context, because that
// may be the reason why the run ends.
const finishTimeout = 15 * time.Second

// storeEnd writes the end of the run, or its pause, with the remaining events. The run's tools are stored as [] if it
// has completed without a tool call, and as NULL if it ended otherwise.
func (x *execution) storeEnd(ctx context.Context, metrics wire.Metrics) (err error) {
	x.row.ProviderData = x.providerData
	if x.row.Messages, err = wire.Marshal(x.messages); err != nil {
		return fmt.Errorf("messages: %w", err)
	}
	if x.row.Metrics, err = wire.Marshal(metrics); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if x.row.Requirements = nil; len(x.requirements) > 0 {
		if x.row.Requirements, err = wire.Marshal(x.requirements); err != nil {
			return fmt.Errorf("requirements: %w", err)
		}
	}
	if x.row.Tools = nil; len(x.calls) > 0 {
		x.row.Tools, err = wire.Marshal(x.calls)
	} else if x.row.Status == wire.StatusCompleted {
		x.row.Tools = json.RawMessage("[]")
	}
	if err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	rest, done := x.events.drainAtEnd()
	defer done()
	return x.r.db.FinishRun(ctx, x.row, rest, store.Usage{
		ModelID: x.about.ID, ModelFamily: x.about.Family,
		Input: x.usage.Input, Output: x.usage.Output, Total: x.usage.Total,
	}, x.r.dbNow())
}

// metrics are those of the whole run, over all attempts and pauses. The usage of a step that is repeated after a crash
// counts once, because the crashed attempt could not store its part.
func (x *execution) metrics() wire.Metrics {
	u := model.Usage{
		Input: x.earlierUsage.Input + x.usage.Input, Output: x.earlierUsage.Output + x.usage.Output,
		Total: x.earlierUsage.Total + x.usage.Total,
	}
	m := wire.Metrics{
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total,
		TimeToFirstToken: x.timeToFirstToken.Seconds(), Duration: x.duration().Seconds(),
	}
	if u.Total > 0 {
		m.Details = &wire.MetricsDetails{Model: []wire.ModelMetrics{{
			InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, ID: x.about.ID, Provider: x.about.Family,
		}}}
	}
	return m
}

// result is the run as a client receives it that did not ask for a stream. It has the values that were just stored, so
// the row need not be read again.
func (x *execution) result() *wire.Run {
	r := &wire.Run{
		RunID: x.head.RunID, AgentID: x.agent.ID, AgentName: x.agent.Name, SessionID: x.row.SessionID,
		UserID: x.row.Owner, Content: x.row.Content, ContentType: "str", ModelProviderData: x.providerData,
		Model: x.about.ID, ModelProvider: x.about.Provider, SessionState: x.row.SessionState,
		CreatedAt: x.row.CreatedAt.Unix(), Status: x.row.Status, Metrics: x.row.Metrics, Messages: x.row.Messages,
		Metadata: x.row.Metadata, Tools: x.row.Tools, Requirements: x.row.Requirements,
		Input: wire.RunInput{InputContent: x.row.Input, Files: x.row.Files},
	}
	if x.wasPaused {
		r.Events = json.RawMessage("[]") // AgentOS reads a continued run back from its storage, which adds the member.
	}
	if x.row.CancellationStage != nil {
		r.CancellationStage = *x.row.CancellationStage
	}
	return r
}
