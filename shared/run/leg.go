package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agent is a declared agent with its opened model and tools. Model and Tools shadow the fields of the same name in
// config.Agent, which hold only their configuration.
type Agent struct {
	config.Agent
	Model model.Model
	Tools []tool.Set
	price config.Price // of the model's tokens
}

// Cost returns what tokens cost, in millionths of a US dollar, rounded up. A price is in US dollars per million tokens,
// so in millionths per token.
func Cost(p config.Price, u model.Usage) int64 {
	return int64(math.Ceil(min(p.Input*float64(u.Input)+p.Output*float64(u.Output), math.MaxInt32*1e6)))
}

// services are what all legs of a process share.
type services struct {
	db       *store.DB
	log      *slog.Logger
	now      func() time.Time
	newID    func() uuid.UUID
	queue    queue.Queue
	registry *registry
	revoked  func(context.Context, Caller) error // nil for no check
	limits   limit.Limits                        // of the OS
	tracer   trace.Tracer
	notify   config.Notify
}

// leg is the execution of a run by this process, from its start, continuation or claim to its end, pause or hand-over.
// One goroutine uses it. Tools are called in goroutines of their own, but they get copies and return their outcome
// through a channel; the registry sees only the lease with the event log.
type leg struct {
	services
	outbox
	state
	lease *lease

	agent Agent
	// about is the model that the agent has now, which may differ from the model of an earlier leg if the configuration
	// was changed meanwhile.
	about model.Description
	row   store.Run
	// caller is the one of the start, or of the last continuation.
	caller Caller
	// history are the messages of earlier runs. nil means that they are not read yet.
	history []json.RawMessage
	// first is the model call that was sent while the run began. It is nil if there is none, or if it is read already.
	first *firstCall
	// wasPaused means that the run was paused before this leg.
	wasPaused bool
	// start is when this leg started.
	start time.Time
	// processEnd is when this process must have ended the run or handed it over. Zero means never.
	processEnd time.Time
	// saved is the part of the state that the last of the leg's steps checkpoints has stored.
	saved growing
	steps int
	// span is nil until the leg is executed or its first model call is sent.
	span trace.Span
	// how is how the leg has ended, for its span. Its status may also be trace.HandedOver.
	how struct{ status, kind string }
}

// traced is the model as spans show it.
func (l *leg) traced() trace.Model {
	return trace.Model{Provider: l.agent.Agent.Model.Provider, ID: l.about.ID}
}

// traceIn returns a context with the span of the leg.
func (l *leg) traceIn(ctx context.Context) context.Context {
	if l.span != nil {
		return trace.With(ctx, l.span)
	}
	ctx, l.span = trace.Leg(trace.Continue(ctx, l.caller.Trace), l.tracer, trace.Run{
		ID: l.head.RunID, AgentID: l.agent.ID, AgentName: l.agent.Name, Model: l.traced(), Attempt: l.row.Attempt,
	})
	return ctx
}

// newLeg makes the leg of a row. An agent without a model can only end the run.
func (s services) newLeg(agent Agent, row store.Run) *leg {
	about := model.Description{ID: row.ModelID, Provider: row.ModelProvider}
	if agent.Model != nil {
		about = agent.Model.Describe()
	}
	l := &leg{services: s, agent: agent, about: about, row: row, wasPaused: row.Messages != nil, start: s.now()}
	if row.ModelID != about.ID || row.ModelProvider != about.Provider { // Another model cannot read it.
		l.row.Opaque = nil
	}
	l.row.ModelID, l.row.ModelProvider = about.ID, about.Provider
	l.outbox = outbox{index: store.FirstIndex(row.Attempt), head: wire.Head{
		AgentID: agent.ID, AgentName: agent.Name, RunID: row.RunID.String(), SessionID: row.SessionID,
	}}
	return l
}

// enter registers the leg, whose row has this id of a leg, and returns the context of its execution. From then on,
// only a cancellation of the run, a lost lease, a hand-over, the agent's time limit and ctx's deadline stop it.
func (l *leg) enter(ctx context.Context, id uuid.UUID) (_ context.Context, stop func()) {
	fence := store.Leg{RunID: l.row.RunID, Attempt: l.row.Attempt, ID: id}
	if l.row.Streamed {
		l.events = newEventLog(fence)
	}
	end, limited := ctx.Deadline()
	ctx, l.lease = l.registry.enter(ctx, fence, l.events)
	stopAtEnd := func() {}
	if limited {
		cause := errStepTooLong
		if l.queue == nil {
			cause = errNoQueue
		}
		l.processEnd = end
		ctx, stopAtEnd = context.WithDeadlineCause(ctx, end, cause)
	}
	// The time that a leg spent after its last checkpoint is not counted, since nobody knows it after a crash. The time
	// before a pause does not count either, because the limit applies from the start or from the last continuation.
	limit, used := l.agent.Timeout, l.state.Duration-l.pausedAfter
	cause := fault.Public(fault.Internal, fmt.Sprintf("The run took longer than its limit of %s", limit), errTimedOut)
	ctx, stopAtLimit := context.WithTimeoutCause(ctx, limit-used, cause)
	stopFirst := l.first.follow(ctx)
	return ctx, func() {
		stopFirst()
		stopAtLimit()
		stopAtEnd()
		l.lease.cancel(nil)
		l.lease.lose(nil)
		l.registry.leave(l.lease)
	}
}

// errTimedOut marks the causes of a context that ended because of a time limit. errStepTooLong and errNoQueue are those
// of this process's deadline. With a queue, only a step that got the process's full time ends the run; see
// shouldHandOver.
var (
	errTimedOut    = errors.New("time limit")
	errStepTooLong = fault.Public(fault.Internal, "One step of the run (a model call or a round of tool calls) "+
		"exceeded this server's time limit for a request", errTimedOut)
	errNoQueue = fault.Public(fault.Internal, "The run exceeded this server's time limit for a request, and no queue "+
		"is configured to continue it", errTimedOut)
)

// duration is how long the run has been executed, over all legs. The time while it was paused does not count.
func (l *leg) duration() time.Duration { return l.state.Duration + l.now().Sub(l.start) }

// A write is tried again after firstPause, then after twice the time, up to longestPause.
const firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second

// persist writes to the database, and tries again for as long as the leg has its lease. Every write may have happened
// although its answer was lost, so each can be repeated. It returns the error of the write if another try would have
// the same one, and errLost or errDeleted if the lease is gone.
func (l *leg) persist(write func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := write(l.lease.ctx)
		switch cause := context.Cause(l.lease.ctx); {
		case err == nil:
			return nil
		case cause != nil:
			return cause
		case fault.KindOf(err) == fault.Conflict:
			return l.whyLost()
		case !store.Transient(err):
			return err
		case pause == firstPause:
			l.log.Warn("could not store a run; will try again while its lease is valid",
				"run_id", l.row.RunID, "err", err)
		}
		select {
		case <-l.lease.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// whyLost returns errDeleted if the run does not exist any more, and errLost otherwise. A write can notice the loss
// before the pulse does.
func (l *leg) whyLost() error {
	pulses, err := l.db.Pulse(l.lease.ctx, []store.Leg{l.lease.Leg}, false)
	if err == nil && pulses[0].Deleted {
		return errDeleted
	}
	return errLost
}

// save stores a checkpoint together with the events so far, in one statement. pending is what the model has requested
// and what the next step will execute. If this process may not have enough time for another step, save returns
// errHandOver.
func (l *leg) save(ctx context.Context, pending []model.ToolCall) error {
	rest, added := l.state, l.state.growing.since(l.saved)
	rest.growing, rest.PendingCalls, rest.Duration = growing{}, pending, l.duration()
	c := store.Checkpoint{Step: l.steps, Events: l.events.pending()}
	if l.events != nil {
		c.Next = l.index
	}
	var err error
	if c.Data, err = encode(rest); err == nil {
		c.Added, err = encode(added)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	var cancelled bool
	err = l.persist(func(ctx context.Context) (err error) {
		cancelled, err = l.db.Checkpoint(ctx, l.lease.Leg, c)
		return err
	})
	if err != nil {
		return err
	}
	l.events.stored(c.Events)
	l.saved = l.state.growing
	l.steps++
	switch {
	case cancelled:
		return errCancelled
	case l.tooLateForNextStep(ctx):
		return errHandOver
	}
	return nil
}

// budget is whose use a run counts for.
func (s services) budget(spender string, c Caller, a Agent) store.Budget {
	return store.Budget{Spender: spender, Caller: c.Limits, Agent: limit.Limits(a.Limits), OS: s.limits}
}

// mayContinue returns an error if the run must end before its next step. Each step calls it first.
func (l *leg) mayContinue(ctx context.Context) error {
	// The tokens of an answer are known at its end, so a run may use more than it is allowed to by one answer.
	allowed := l.caller.Limits.Tightest(limit.Limits(l.agent.Limits)).Tightest(l.limits).TokensPerRun
	if used := l.EarlierUsage.Total + l.Usage.Total; allowed > 0 && used >= allowed {
		return limit.ErrRunTokens(used, allowed)
	}
	return l.checkNotRevoked(ctx)
}

// checkNotRevoked returns an error if the token of the run's caller was revoked. So a run ends at its next step, also
// in a process that has claimed it. While nobody can say, the run waits; its time limit and its lease still end it.
func (l *leg) checkNotRevoked(ctx context.Context) error {
	if l.revoked == nil {
		return nil
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := l.revoked(ctx, l.caller)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !store.Transient(err):
			return fault.Public(fault.Forbidden, "The run was stopped because its token was revoked", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// minStepTime is the time that a process must have left to start another step. With less, it hands the run over
// instead of starting a step that the deadline would interrupt. Most model answers take less than a minute.
const minStepTime = time.Minute

// tooLateForNextStep reports whether the run should be handed over now, because its next step might not finish
// before this process's deadline. It is false without a queue, since no other process would receive the run. It is
// false too if ctx ends at the agent's own time limit, because that limit would end the run in any process.
func (l *leg) tooLateForNextStep(ctx context.Context) bool {
	end, limited := ctx.Deadline()
	return limited && end.Equal(l.processEnd) && end.Sub(l.now()) < minStepTime && l.queue != nil
}

// headFor returns the head of an event with this name, at the present time.
func (l *leg) headFor(name string) wire.Head {
	h := l.head
	h.Event, h.CreatedAt = name, l.now().Unix()
	return h
}

// emitStarted emits RunStarted or ModelRequestStarted.
func (l *leg) emitStarted(name string) {
	l.emit(wire.Started{
		Head: l.headFor(name), Model: l.about.ID, ModelProvider: l.about.Provider, EventIndex: l.index,
	})
}
