package run

import (
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
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// errModel and errTools mark errors of the model and of the tools, for endingOf. errPaused is no failure: a person must
// decide before the run can continue.
var (
	errModel  = errors.New("model")
	errTools  = errors.New("tools")
	errPaused = errors.New("paused")
	errPanic  = errors.New("panic")
)

// ending is how a leg ends: the run's final status or PAUSED, the text shown to the caller, and AgentOS's error_type.
type ending struct{ status, text, kind string }

// endingOf maps the error that ended a leg to its ending. The text of a timeout states the limit, and that of a
// deadline says that a step did not fit.
func endingOf(runID string, err error) ending {
	failed := ending{status: wire.StatusError, text: pgvalue.CleanText(fault.Detail(err)), kind: "internal_error"}
	switch {
	case err == nil:
		return ending{status: wire.StatusCompleted}
	case errors.Is(err, errPaused):
		return ending{status: wire.StatusPaused}
	case errors.Is(err, errCancelled), errors.Is(err, errDeleted):
		return ending{status: wire.StatusCancelled, text: "Run " + runID + " was cancelled"}
	case errors.Is(err, errTimedOut):
		failed.kind = "run_timeout_error"
	case errors.Is(err, errModel):
		failed.kind = "model_provider_error"
	case errors.Is(err, errTools):
		failed.kind = "tool_error"
	case fault.KindOf(err) == fault.Forbidden:
		failed.kind = "permission_error"
	case fault.KindOf(err) == fault.LimitReached:
		failed.kind = "limit_error"
	}
	return failed
}

// finish stores the end of the run, or its pause, and then emits the last event. err is why the run did not complete;
// nil means that it did. The event comes after the write, so that a client that has received it finds the end in the
// database. If another process continues the run, nothing is recorded, or the run is handed over.
//
// A cause of ctx comes before err: after a cancellation or a timeout, err is only its consequence.
func (l *leg) finish(ctx context.Context, err error) {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, errPaused) {
		err = cause
	}
	var failed error
	if l.shouldHandOver(err) {
		failed = l.handOver(ctx)
	} else if failed = l.end(err); errors.Is(failed, errCancelled) {
		failed = l.end(errCancelled) // The cancellation was accepted before the end could be stored.
	}
	if failed != nil && !errors.Is(failed, errLost) && !errors.Is(failed, errDeleted) {
		// PostgreSQL rejects the data, and would reject it again in every other process. A run that is neither stored nor
		// ended would be executed again, so it ends without its messages.
		l.log.Error("the end of a run cannot be stored", "run_id", l.row.RunID, "err", failed)
		l.state.growing, l.state.ProviderData = growing{}, nil
		failed = l.end(fmt.Errorf("the run's end could not be stored: %w", failed))
	}
	switch {
	case errors.Is(failed, errDeleted):
		l.settle()
		deleted := endingOf(l.head.RunID, failed)
		l.how.status = deleted.status
		last := Event{Event: l.lastEvent(deleted)}
		_ = l.fillRow(wire.StatusCancelled) // The data has been encoded before, for the checkpoint or the end.
		last.Result = l.result()
		l.deliver(last, nil)
	case errors.Is(failed, errLost):
		l.deliverHandedOver(wire.StatusRunning)
	case failed != nil:
		l.how.status, l.how.kind = wire.StatusError, "storage_error"
		l.deliver(Event{Event: wire.Failed{
			Head:    l.headFor(wire.EventRunError),
			Content: "The run's end could not be stored: " + fault.Detail(failed), ErrorType: l.how.kind,
			EventIndex: l.index,
		}}, failed)
	}
}

// shouldHandOver reports whether another process should continue the run after err. A step that was interrupted is
// repeated there, unless it already had this process's full time (no step was saved): a step for which one process's
// time is too short would be repeated without end, so it ends the run.
func (l *leg) shouldHandOver(err error) bool {
	return l.queue != nil && (errors.Is(err, errHandOver) || errors.Is(err, errStepTooLong) && l.steps > 0)
}

// A process that knows its deadline hands its runs over: it makes them PENDING at their last checkpoint and puts them
// into the queue, and another process claims them at once. On Lambda the deadline is that of the invocation; a server
// hands over when it is stopped. A crash cannot do that: its runs continue only after their leases expire, and the
// crash is counted in `losses`. A hand-over is not counted: a long run may be handed over as often as it needs, but it
// may crash only MaxCrashes processes. See docs/adr/0009.
//
// The row is released first: a worker that received the message earlier would find a valid lease and do nothing. If
// this process crashes between the two, Requeue finds the run. Events since the checkpoint are not stored: the next
// attempt repeats that step and sends them again.
func (l *leg) handOver(ctx context.Context) error {
	err := l.persist(func(ctx context.Context) error { return l.db.ReleaseRun(ctx, l.lease.Leg) })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enqueueTimeout)
	defer cancel()
	if err := l.queue.Enqueue(ctx, l.row.RunID, l.row.Spender, 0); err != nil { // Requeue finds the run after a while.
		l.log.Warn("could not enqueue a run after its hand-over; it will be enqueued again later",
			"run_id", l.row.RunID, "err", err)
	}
	l.deliverHandedOver(wire.StatusPending)
	return nil
}

// enqueueTimeout bounds the message about a run that is handed over.
const enqueueTimeout = 15 * time.Second

// deliverHandedOver reports to the consumer that another process continues the run.
func (l *leg) deliverHandedOver(status string) {
	l.how.status = trace.HandedOver
	l.registry.leave(l.lease)
	l.deliver(Event{HandedOver: &wire.Accepted{
		RunID: l.head.RunID, SessionID: l.row.SessionID, Status: status,
	}}, nil)
}

// end stores the end of the run, or its pause, with the remaining events, and delivers the last event. It returns
// errCancelled, and has stored nothing, if the run is to be cancelled.
func (l *leg) end(err error) error {
	if errors.Is(err, errLost) || errors.Is(err, errDeleted) {
		return err
	}
	o := endingOf(l.head.RunID, err)
	if o.status == wire.StatusCompleted || o.status == wire.StatusPaused {
		l.emit(wire.ContentCompleted{Head: l.headFor(wire.EventRunContentCompleted), EventIndex: l.index})
	}
	last := Event{Event: l.lastEvent(o)}
	l.row.Notify = l.notify.Reports(o.status)
	if err := l.fillRow(o.status); err != nil {
		return err
	}
	var events []store.Events
	events, last.Frame = l.events.withLast(l.index, last.Event, l.row.StateInSession)
	var cancelled bool
	err = l.persist(func(ctx context.Context) (err error) {
		cancelled, err = l.db.FinishRun(ctx, l.lease.Leg, l.row, events, l.spent(), pgvalue.Time(l.now()))
		return err
	})
	if err != nil {
		return err
	}
	if cancelled {
		return errCancelled
	}
	l.how.status, l.how.kind = o.status, o.kind
	if l.row.Notify {
		l.wakeReporter()
	}
	// The leg has no lease any more: the next one may begin while a slow consumer reads the last event.
	l.registry.leave(l.lease)
	last.Result = l.result()
	l.deliver(last, nil)
	return nil
}

// wakeReporter sends a message about a run whose end is to be reported, where no process looks for notices all the
// time: the worker that receives it reports them.
func (l *leg) wakeReporter() {
	if l.registry.queue == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), enqueueTimeout)
	defer cancel()
	if err := l.queue.Enqueue(ctx, l.row.RunID, l.row.Spender, 0); err != nil {
		l.log.Warn("could not wake the worker for a notice; it is reported later", "run_id", l.row.RunID, "err", err)
	}
}

// spent is what the run has used since its start, or since its last pause.
func (l *leg) spent() store.Usage {
	return store.Usage{
		ModelID: l.about.ID, ModelFamily: l.about.Family,
		Input: l.Usage.Input, Output: l.Usage.Output, Total: l.Usage.Total, MicroUSD: Cost(l.agent.price, l.Usage),
	}
}

// settleTimeout bounds the statement of settle, with its repetitions.
const settleTimeout = 30 * time.Second

// settle counts the tokens of a run that was deleted. Otherwise a caller who deletes the session would get them back.
func (l *leg) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := l.db.Settle(ctx, l.lease.Leg, l.spent())
		if err == nil {
			return
		}
		if ctx.Err() != nil || !store.Transient(err) {
			l.log.Error("the tokens of a deleted run cannot be counted", "run_id", l.row.RunID, "err", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// lastEvent returns the event that ends the run or pauses it, and sets the row's content. The content of a completed or
// cancelled run is the text so far. That of a failed run is the reason.
func (l *leg) lastEvent(o ending) wire.Event {
	content := pgvalue.CleanText(l.Content)
	switch o.status {
	case wire.StatusPaused:
		content = wire.PausedText(l.Requirements)
	case wire.StatusError:
		content = o.text
	case wire.StatusCancelled:
		if l.wasPaused && l.Answers == nil { // It was cancelled while it was paused.
			content = *l.row.Content
		}
	}
	l.row.Content, l.row.ReasoningContent = &content, l.reasoning()
	switch o.status {
	case wire.StatusCompleted:
		return wire.Completed{
			Head: l.headFor(wire.EventRunCompleted), Content: content, ContentType: "str",
			ReasoningContent:  l.row.ReasoningContent,
			ModelProviderData: l.ProviderData, SessionState: l.row.SessionState, EventIndex: l.index, Metrics: l.metrics(),
		}
	case wire.StatusPaused:
		return wire.Paused{
			Head: l.headFor(wire.EventRunPaused), Content: content, Tools: l.Calls,
			Requirements: l.Requirements, EventIndex: l.index,
		}
	case wire.StatusCancelled:
		return wire.Cancelled{
			Head: l.headFor(wire.EventRunCancelled), Content: content, Reason: o.text, EventIndex: l.index,
		}
	}
	return wire.Failed{
		Head: l.headFor(wire.EventRunError), Content: o.text, ErrorType: o.kind, EventIndex: l.index,
	}
}

// reasoning returns the thoughts of all answers of the run, or nil if there are none.
func (l *leg) reasoning() *string {
	var b strings.Builder
	for _, m := range l.Messages {
		b.WriteString(m.ReasoningContent)
	}
	if b.Len() == 0 {
		return nil
	}
	return new(pgvalue.CleanText(b.String()))
}

// fillRow sets the columns of the end. The run's tools are stored as [] if it has completed without a tool call, and as
// NULL if it ended otherwise.
func (l *leg) fillRow(status string) error {
	l.row.Status, l.row.ProviderData = status, l.ProviderData
	if l.row.CancellationStage = nil; status == wire.StatusCancelled {
		l.row.CancellationStage = new("EXECUTING")
	}
	var errs [5]error
	shown, opaque := make([]wire.Message, len(l.Messages)), map[string]json.RawMessage{}
	for i, m := range l.Messages {
		if shown[i] = m.Message; m.Opaque != nil {
			opaque[m.ID] = m.Opaque
		}
	}
	if l.row.Messages = nil; len(shown) > 0 {
		l.row.Messages, errs[0] = encode(shown)
	}
	if l.row.Opaque = nil; status == wire.StatusPaused && len(opaque) > 0 {
		l.row.Opaque, errs[4] = encode(opaque)
	}
	l.row.Metrics, errs[1] = encode(l.metrics())
	if l.row.Requirements = nil; len(l.Requirements) > 0 {
		l.row.Requirements, errs[2] = encode(l.Requirements)
	}
	if l.row.Tools = nil; len(l.Calls) > 0 {
		l.row.Tools, errs[3] = encode(l.Calls)
	} else if status == wire.StatusCompleted {
		l.row.Tools = json.RawMessage("[]")
	}
	return errors.Join(errs[:]...)
}

// metrics are those of the whole run, over all legs and pauses. The usage of a step that is repeated after a crash
// counts once, because the crashed process could not store its part.
func (l *leg) metrics() wire.Metrics {
	u := model.Usage{
		Input: l.EarlierUsage.Input + l.Usage.Input, Output: l.EarlierUsage.Output + l.Usage.Output,
		Total: l.EarlierUsage.Total + l.Usage.Total,
	}
	m := wire.Metrics{
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total,
		Cost:             float64(Cost(l.agent.price, u)) / 1e6,
		TimeToFirstToken: l.TimeToFirstToken.Seconds(), Duration: l.duration().Seconds(),
	}
	if u.Total > 0 {
		m.Details = &wire.MetricsDetails{Model: []wire.ModelMetrics{{
			InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, ID: l.about.ID, Provider: l.about.Family,
		}}}
	}
	return m
}

// result is the run as a client receives it that did not ask for a stream. It has the values that were just stored, so
// the row need not be read again.
func (l *leg) result() *wire.Run {
	r := &wire.Run{
		RunID: l.head.RunID, AgentID: l.agent.ID, AgentName: l.agent.Name, SessionID: l.row.SessionID,
		UserID: l.row.Owner, Content: l.row.Content, ContentType: "str", ReasoningContent: l.row.ReasoningContent,
		ModelProviderData: l.ProviderData,
		Model:             l.about.ID, ModelProvider: l.about.Provider, SessionState: l.row.SessionState,
		CreatedAt: l.row.CreatedAt.Unix(), Status: l.row.Status, Metrics: l.row.Metrics, Messages: l.row.Messages,
		Metadata: l.row.Metadata, Tools: l.row.Tools, Requirements: l.row.Requirements,
		Input: wire.RunInput{InputContent: l.row.Input, Files: l.row.Files},
	}
	if l.wasPaused {
		r.Events = json.RawMessage("[]") // AgentOS reads a continued run back from its storage, which adds the member.
	}
	if l.row.CancellationStage != nil {
		r.CancellationStage = *l.row.CancellationStage
	}
	return r
}

// recordPanic records a run as failed if its model or consumer panicked, and then continues the panic. Otherwise the
// row would stay RUNNING, and the run would be executed, and perhaps panic, again in another process.
func (l *leg) recordPanic() {
	p := recover()
	if p == nil {
		return
	}
	l.yield = nil // The consumer may be what panicked.
	l.finish(context.Background(), errPanic)
	panic(p)
}
