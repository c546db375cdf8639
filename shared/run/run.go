// Package run executes agents: it calls the model and the tools, stores the run, and yields AgentOS's events. It
// decides when a run pauses, ends, is handed over to another process, and is claimed after a crash.
// It knows nothing about HTTP, tokens or scopes. Whether a caller may run an agent is decided before, and repeated
// through Options.Admit when a run is claimed. docs/runs.md describes the life of a run.
package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Runner executes the agents of one OS. It is safe for concurrent use.
type Runner struct {
	services
	agents map[string]Agent
	admit  func(Caller) error
	places store.Places // for the runs that are claimed
	// slots has an element for each run that a request waits for. It is nil if their number has no bound.
	slots chan struct{}
	// undoing has the ids of runs whose start or continuation failed for its caller and is not undone yet.
	undoing sync.Map
}

// Options configure a Runner.
type Options struct {
	// DB stores runs, their events and their leases. Required.
	DB *store.DB
	// Agents are the agents that can be run. Defaults to none.
	Agents []Agent
	// Log receives warnings about leases, events and panics. Required.
	Log *slog.Logger
	// Now returns the present time. Required.
	Now func() time.Time
	// NewID returns a new unique id for a run, a session or a message. Required.
	NewID func() uuid.UUID
	// Queue delivers pending runs to workers, which call Claim. Defaults to none: then background runs execute in
	// this process at once, and runs are never handed over.
	Queue queue.Queue
	// Watch makes each run that lasts longer than one pulse (half a second) leave a delayed message in Queue, so that
	// the run is recovered after a crash even where no process calls Requeue all the time, as on Lambda. It needs
	// Queue. Defaults to false.
	Watch bool
	// MaxRuns is how many runs Run and Continue execute at the same time. Further calls are fault.Unavailable before
	// anything is stored. Defaults to no bound.
	MaxRuns int
	// Admit repeats the authorization decision when Claim continues a run, under the policy then in force. A non-nil
	// error ends the run, and fault.Detail of the error is shown to the caller. Required if Claim is called, also
	// indirectly by Start without a Queue.
	Admit func(Caller) error
	// Revoked returns an error if the token of a run's caller was revoked, which ends the run before its next step. While
	// it is fault.Unavailable, the run waits. Defaults to no check.
	Revoked func(context.Context, Caller) error
	// Limits are those of all runs together; TokensPerRun is that of each. Defaults to none.
	Limits limit.Limits
	// CallersLimited means that callers may have limits. A claim then reads those of the run's caller.
	CallersLimited bool
	// Prices are what models cost. A model without a price costs nothing. Defaults to none.
	Prices config.Prices
	// Notify says which pauses and ends are reported to the operator's webhook. Defaults to none.
	Notify config.Notify
	// Tracer makes the spans of runs. Defaults to none.
	Tracer trace.Tracer
}

// New returns a Runner. It starts no goroutine; the pulse starts with the first run.
func New(o Options) *Runner {
	r := &Runner{
		services: services{
			db: o.DB, log: o.Log, now: o.Now, newID: o.NewID, queue: o.Queue, registry: newRegistry(o.DB, o.Log, o.Now),
			revoked: o.Revoked, limits: o.Limits, tracer: o.Tracer,
			notify: o.Notify,
		},
		agents: map[string]Agent{}, admit: o.Admit,
		places: store.Places{Callers: o.CallersLimited, Agents: map[string]int{}, OS: o.Limits.ConcurrentRuns},
	}
	if r.tracer == nil {
		r.tracer = trace.None().Tracer
	}
	for _, a := range o.Agents {
		a.Tools = []tool.Set{tool.Join(o.Log.With("agent_id", a.ID), a.Tools...)}
		a.price, _ = o.Prices.Of(a.Agent.Model)
		r.agents[a.ID] = a
		if n := a.Limits.ConcurrentRuns; n > 0 {
			r.places.Agents[a.ID] = n
		}
	}
	if o.Watch {
		r.registry.queue = o.Queue
	}
	if o.MaxRuns > 0 {
		r.slots = make(chan struct{}, o.MaxRuns)
	}
	return r
}

// Close releases what the agents' tools hold, such as connections to MCP servers. No run may be in progress; see Wait.
func (r *Runner) Close() (err error) {
	for _, a := range r.agents {
		for _, set := range a.Tools {
			err = errors.Join(err, set.Close())
		}
	}
	return err
}

// Input is one request to run an agent. Its texts must satisfy pgvalue.ValidText.
type Input struct {
	// AgentID is the id of a declared agent. Required.
	AgentID string
	// Owner is the user whose session it is. Defaults to "": a session without a user.
	Owner string
	// SessionID is the session of the run. It is created if it does not exist. Defaults to a new id.
	SessionID string
	// Message is the caller's message to the agent.
	Message string
	// History is the conversation before the message, as the caller sent it. The model receives it in place of the
	// earlier runs of the session, also if the agent doesn't use these. It is the caller's claim: it is stored beside
	// the run, and never as messages of the run or the session. Defaults to none: the agent's own setting counts.
	History []Turn
	// Files are text files that the model receives with the message. Defaults to none.
	Files []wire.File
	// State is a JSON object that is merged into the session's state, member by member at every level. Defaults to
	// no change.
	State json.RawMessage
	// MaxState is the size of the largest state that the session may have after the merge. Defaults to no limit.
	MaxState int
	// Metadata is a JSON object that is stored with the run and has no effect on it. Defaults to none.
	Metadata json.RawMessage
	// Streamed stores the events, so that they can be read again by resume. Defaults to false.
	Streamed bool
	// Caller is the identity that was allowed to run the agent. It is stored until the run ends.
	Caller Caller
	// Spender is the owner name of the caller's own issuer and subject, for the caller's limits. Defaults to "", with
	// which all callers without a subject are counted together.
	Spender string
	// Request identifies the request for idempotency. Defaults to no key: every request starts a new run.
	Request store.Request
}

// Run runs an agent and yields its events. Once the first event is yielded the run is recorded, and it continues to
// its end even if the consumer stops iterating or ctx is cancelled. Only Cancel, the agent's timeout and ctx's
// deadline stop it. The reason is that a client may lose its connection at any time and read the result later. If the
// process ends, another one continues the run.
//
// An error before the first event comes alone, and nothing has run: fault.NotFound if there is no such agent,
// fault.Unavailable if the database cannot be reached or this process executes MaxRuns runs, *store.Repeated if the
// request was sent before with the same idempotency key, fault.LimitReached if a limit of the caller, the agent or
// the OS is reached. An error beside an event is the last one: the run has ended and its end could not be stored,
// which the event also says. A failed model is not an error but a RunError event and Result.Status ERROR.
//
// The last event of a run that waits for a person is RunPaused. The last event has HandedOver if another process
// continues the run: one that does not fit into ctx's deadline is handed over between two steps, and one that lost its
// lease has been claimed by another process, or soon will be.
func (r *Runner) Run(ctx context.Context, in Input) iter.Seq2[Event, error] {
	return r.yieldEvents(ctx, func() (*leg, uuid.UUID, position, error) {
		id := r.newID()
		l, err := r.newRun(in, wire.StatusRunning, 1)
		if err == nil {
			err = r.begin(ctx, l, &id, in)
		}
		return l, id, atStart, err
	})
}

// yieldEvents executes the leg that begin has recorded, and yields its events. Inlined, it would put the input of
// the run on the stack of its caller for as long as the run is executed.
//
//go:noinline
func (r *Runner) yieldEvents(
	ctx context.Context, begin func() (*leg, uuid.UUID, position, error),
) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if r.slots != nil {
			select {
			case r.slots <- struct{}{}:
				defer func() { <-r.slots }()
			default:
				yield(Event{}, tryAgain("The server executes as many runs as it can, try again"))
				return
			}
		}
		l, id, at, err := begin()
		if err != nil {
			yield(Event{}, err)
			return
		}
		l.yield = yield
		ctx, stop := l.enter(ctx, id)
		defer stop()
		l.execute(ctx, at)
	}
}

// tryAgain is an error after which the same request may succeed soon.
func tryAgain(text string) error {
	e := fault.Public(fault.Unavailable, text, nil)
	e.RetryAfter = 2 * time.Second
	return e
}

// newRun makes the leg and the row of a new run. Nothing is stored yet. A run that starts at once is attempt 1; a
// pending run is attempt 0, because its first claim increments the number.
func (r *Runner) newRun(in Input, status string, attempt int) (*leg, error) {
	agent, ok := r.agents[in.AgentID]
	if !ok {
		return nil, fault.Public(fault.NotFound, "Agent not found", nil)
	}
	row := store.Run{
		RunID: r.newID(), Owner: in.Owner, Spender: in.Spender, SessionID: cmp.Or(in.SessionID, r.newID().String()),
		AgentID: agent.ID, AgentName: agent.Name, Status: status, Input: in.Message,
		SessionState: in.State, Metadata: in.Metadata, Streamed: in.Streamed, CreatedAt: pgvalue.Time(r.now()),
		Background: status == wire.StatusPending, Attempt: attempt,
	}
	var err error
	if row.Caller, err = wire.Marshal(in.Caller); err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	if len(in.History) > 0 {
		if row.History, err = wire.Marshal(in.History); err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	}
	if len(in.Files) > 0 {
		if row.Files, err = wire.Marshal(in.Files); err != nil {
			return nil, fmt.Errorf("files: %w", err)
		}
	}
	l := r.newLeg(agent, row)
	l.caller = in.Caller
	return l, nil
}

// begin stores the run's row and reads the session's state and history, all in one round trip. A background run reads
// its history when it is claimed, because earlier runs of the session may end before that.
//
// A client that disconnects meanwhile does not interrupt the statement, since nobody would know then whether the
// run is stored. If the database does not answer, the caller gets an error and the run must not be executed later.
func (r *Runner) begin(ctx context.Context, l *leg, id *uuid.UUID, in Input) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	options := store.BeginOptions{
		Leg: id, Request: in.Request, Budget: r.budget(in.Spender, l.caller, l.agent),
		MaxState: in.MaxState,
	}
	if l.readsHistory() && !l.row.Background {
		options.History = l.agent.NumHistoryRuns
	}
	asker, ok := l.agent.Model.(model.Asker)
	if ok && l.row.Streamed && !l.row.Background && (options.History > 0 || !l.readsHistory()) {
		options.Ready = func(begun store.BeginResult) {
			if l.first == nil { // Otherwise the statement was repeated, and the call is sent already.
				l.history = begun.History
				l.askFirst(ctx, asker)
			}
		}
	}
	begun, err := r.db.BeginRun(context.WithoutCancel(ctx), l.row, options)
	if err != nil && l.first != nil {
		l.first.cancel(err)
	}
	if store.Transient(err) {
		r.undo(l.row.RunID, func(ctx context.Context) error { return r.db.WithdrawRun(ctx, l.row.RunID, id) })
	}
	l.row.SessionState, l.row.StateInSession = begun.State, begun.StateInSession
	if l.first == nil {
		l.history = begun.History
	}
	return err
}

// undoAgain is how soon an undone statement is undone once more.
const undoAgain = 3 * time.Second

// undo undoes a statement that may have been executed although its caller got an error. It returns at once, and tries
// until the run's lease would expire. It does not end with the first success: a connection that hangs may deliver the
// statement later.
func (r *Runner) undo(run uuid.UUID, statement func(context.Context) error) {
	r.undoing.Store(run, nil)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), store.LeaseDuration)
		defer cancel()
		for pause := firstPause; ctx.Err() == nil; <-time.After(pause) {
			if !store.Transient(statement(ctx)) {
				r.undoing.Delete(run)
				pause = undoAgain
			}
		}
		r.undoing.Delete(run)
	}()
}

// Continuation is a request to continue a paused run.
type Continuation struct {
	// Answers are the decisions. A call without one counts as rejected.
	Answers Answers
	// OnlyAsked refuses answers about other calls than those that the run waits for, with fault.Invalid. Without it,
	// they have no effect, and a call without an answer counts as rejected. Defaults to false, as in AgentOS.
	OnlyAsked bool
	// Streamed has the same meaning as in Input. A run that was streamed before the pause stays so.
	Streamed bool
	// Caller is the identity that was allowed to continue the run. It replaces that of the start.
	Caller Caller
	// Spender has the same meaning as in Input. From then on, the run counts for it.
	Spender string
	// Request identifies the request for idempotency. Defaults to no key: a repeated request is fault.Conflict.
	Request store.Request
}

// Continue continues a paused run. It behaves like Run, with other errors before the first event: fault.NotFound if
// the viewer has no such run, and fault.Conflict if the run is not paused, or no longer, or is to be cancelled. At
// most one caller continues a pause, so a decision cannot be changed: what was rejected stays rejected.
func (r *Runner) Continue(
	ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation,
) iter.Seq2[Event, error] {
	return r.yieldEvents(ctx, func() (*leg, uuid.UUID, position, error) {
		id := r.newID()
		l, err := r.claimPaused(ctx, v, q, c, id)
		return l, id, atAnswers, err
	})
}

// claimPaused makes a paused run RUNNING in this process. At most one caller succeeds. The decisions are stored as
// the run's checkpoint in the same statement, so that they survive a crash.
func (r *Runner) claimPaused(
	ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation, id uuid.UUID,
) (*leg, error) {
	row, err := r.db.Run(ctx, v, q)
	if err != nil {
		return nil, err
	}
	if _, busy := r.undoing.Load(row.RunID); busy {
		return nil, tryAgain("An earlier request to continue the run has failed and is being undone, try again")
	}
	agent, ok := r.agents[row.AgentID]
	if !ok {
		return nil, fault.Public(fault.NotFound, "Agent not found", nil)
	}
	if c.OnlyAsked && row.Status == wire.StatusPaused {
		if err := checkAsked(row.Requirements, c.Answers); err != nil {
			return nil, err
		}
	}
	row.Streamed = row.Streamed || c.Streamed
	answers := c.Answers
	if answers == nil {
		answers = Answers{} // In a checkpoint, nil means that the run was not continued.
	}
	if row.Checkpoint, err = wire.Marshal(state{Answers: answers}); err != nil {
		return nil, fmt.Errorf("answers: %w", err)
	}
	row.Checkpoint = strictjson.MakeStorable(row.Checkpoint)
	if row.Caller, err = wire.Marshal(c.Caller); err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	index, claimed, err := r.db.ContinueRun(context.WithoutCancel(ctx), row, id, c.Request,
		r.budget(c.Spender, c.Caller, agent))
	if store.Transient(err) { // The caller is asked to try again, so the run must be paused then.
		r.undo(row.RunID, func(ctx context.Context) error {
			return r.db.WithdrawContinuation(ctx, row.RunID, id, c.Request.Key)
		})
	}
	if err != nil {
		return nil, err
	}
	if !claimed {
		text := fmt.Sprintf("Cannot continue run %s: run is %s", row.RunID, strings.ToLower(row.Status))
		return nil, fault.Public(fault.Conflict, text, nil)
	}
	l := r.newLeg(agent, row)
	l.caller = c.Caller
	// A run without stored events may belong to a later attempt, whose indices begin higher.
	l.index = max(index, store.FirstIndex(row.Attempt))
	l.state, _, err = restore(l.row)
	return l, err
}

// StoreEvents stores the events so far of a run, if this process executes it. Otherwise the pulse of the process that
// does stores them within half a second. A request to resume calls it, so that a client that reconnects to the same
// process is not behind. It returns when the events are stored or ctx ends, which does not interrupt the statement.
func (r *Runner) StoreEvents(ctx context.Context, id uuid.UUID) error {
	return r.registry.storeEventsOf(ctx, id)
}

// HandOver stops the runs that this process executes and hands each over to another process. It returns how many
// there are. Wait returns when all of them are handed over.
func (r *Runner) HandOver() int { return r.registry.handOver() }

// Wait returns when this process executes no run, or with ctx's error. A server that stops calls it before it closes
// the database, because a run stores its end with its last statement.
func (r *Runner) Wait(ctx context.Context) error { return r.registry.wait(ctx) }
