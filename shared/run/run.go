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
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agent is a declared agent with its opened model and tools. Model and Tools shadow the fields of the same name in
// config.Agent, which hold only their configuration.
type Agent struct {
	config.Agent
	Model model.Model
	Tools []tool.Set
}

// Runner executes the agents of one OS. It is safe for concurrent use.
type Runner struct {
	db       *store.DB
	agents   map[string]Agent
	order    []Agent // in the order of declaration
	log      *slog.Logger
	now      func() time.Time
	newID    func() uuid.UUID
	registry *registry
	queue    queue.Queue
	admit    func(Caller) error
}

// Options configure a Runner.
type Options struct {
	// DB stores runs, their events and their leases. Required.
	DB *store.DB
	// Agents are the agents that can be run. The first one's model is the default of Merge. Defaults to none.
	Agents []Agent
	// Log receives warnings about leases, events and panics. Required.
	Log *slog.Logger
	// Now returns the present time. Required. Leases compare times of different processes, so it must be close to the
	// time of the other processes; see store.LeaseDuration.
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
	// Admit repeats the authorization decision when Claim continues a run, under the policy then in force. A non-nil
	// error ends the run, and fault.Detail of the error is shown to the caller. Required if Claim is called, also
	// indirectly by Start without a Queue.
	Admit func(Caller) error
}

// New returns a Runner. It starts no goroutine; the pulse starts with the first run.
func New(o Options) *Runner {
	r := &Runner{
		db: o.DB, agents: map[string]Agent{}, order: o.Agents, log: o.Log, now: o.Now, newID: o.NewID,
		registry: newRegistry(o.DB, o.Log, o.Now), queue: o.Queue, admit: o.Admit,
	}
	for _, a := range o.Agents {
		r.agents[a.ID] = a
	}
	if o.Watch {
		r.registry.watch = r.Watch
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
	// Files are text files that the model receives with the message. Defaults to none.
	Files []wire.File
	// State is a JSON object that is merged into the session's state, member by member at the top level. Defaults to
	// no change.
	State json.RawMessage
	// Metadata is a JSON object that is stored with the run and has no effect on it. Defaults to none.
	Metadata json.RawMessage
	// Streamed stores the events, so that they can be read again by resume. Defaults to false.
	Streamed bool
	// Caller is the identity that was allowed to run the agent. It is stored until the run ends.
	Caller Caller
	// Request identifies the request for idempotency. Defaults to no key: every request starts a new run.
	Request store.Request
}

// Event is one event of a run. The last one has either Result or HandedOver, unless an error comes with it.
type Event struct {
	// Event is nil if HandedOver is set.
	wire.Event
	// Frame is the event as a server-sent event. It is set for streamed runs only.
	Frame []byte
	// Result is the whole run. It is set on the last event only.
	Result *wire.Run
	// HandedOver means that another process continues the run. It is set on the last event only. It is no event of
	// the run: the next attempt sends the events that follow.
	HandedOver *wire.Accepted
}

// Run runs an agent and yields its events. Once the first event is yielded the run is recorded, and it continues to
// its end even if the consumer stops iterating or ctx is cancelled. Only Cancel, the agent's timeout and ctx's
// deadline stop it. The reason is that a client may lose its connection at any time and read the result later. If the
// process ends, another one continues the run.
//
// An error before the first event comes alone, and nothing has run: fault.NotFound if there is no such agent,
// fault.Unavailable if the database cannot be reached, *store.Repeated if the request was sent before with the same
// idempotency key. An error beside an event is the last one: the run has ended and its end could not be stored, which
// the event also says. A failed model is not an error but a RunError event and Result.Status ERROR.
//
// The last event of a run that waits for a person is RunPaused. A run that does not fit into ctx's deadline is handed
// over between two steps; then the last event has HandedOver.
func (r *Runner) Run(ctx context.Context, in Input) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		x, err := r.prepare(in, wire.StatusRunning)
		if err == nil {
			err = r.recordStart(ctx, x, in.Request)
		}
		if err != nil {
			yield(Event{}, err)
			return
		}
		x.yield = yield
		ctx, unregister := r.registry.register(ctx, x)
		defer unregister()
		r.execute(ctx, x)
	}
}

// Start runs an agent in the background, for a client that does not want to wait. When it returns without an error,
// the run is recorded as PENDING and in the queue, for a worker to claim. Errors are those of Run before its first
// event.
func (r *Runner) Start(ctx context.Context, in Input) (wire.Accepted, error) {
	x, err := r.prepare(in, wire.StatusPending)
	if err != nil {
		return wire.Accepted{}, err
	}
	x.row.Background, x.row.Attempt = true, 0
	if err := r.recordStart(ctx, x, in.Request); err != nil {
		return wire.Accepted{}, err
	}
	// The run is accepted even if the queue is down: Requeue finds pending runs without a message.
	if err := r.enqueue(ctx, x.row.RunID); err != nil {
		r.log.WarnContext(ctx, "could not enqueue a new run; it will be enqueued again later",
			"run_id", x.row.RunID, "err", err)
	}
	return wire.Accepted{RunID: x.row.RunID.String(), SessionID: x.row.SessionID, Status: wire.StatusPending}, nil
}

// prepare makes the execution and the row of a new run. Nothing is stored yet. A run that starts at once is attempt 1;
// Start sets 0, because the first claim of a pending run increments the number.
func (r *Runner) prepare(in Input, status string) (*execution, error) {
	agent, ok := r.agents[in.AgentID]
	if !ok {
		return nil, fault.Public(fault.NotFound, "Agent not found", nil)
	}
	row := store.Run{
		RunID: r.newID(), Owner: in.Owner, SessionID: cmp.Or(in.SessionID, r.newID().String()),
		AgentID: agent.ID, AgentName: agent.Name, Status: status, Input: in.Message,
		SessionState: in.State, Metadata: in.Metadata, Streamed: in.Streamed, Attempt: 1,
	}
	caller, err := wire.Marshal(in.Caller)
	if err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	row.Caller = caller
	if len(in.Files) > 0 {
		files, err := wire.Marshal(in.Files)
		if err != nil {
			return nil, fmt.Errorf("files: %w", err)
		}
		row.Files = files
	}
	x := r.newExecution(agent, agent.Model.Describe(), row)
	x.files = in.Files
	x.row.CreatedAt = pgvalue.Time(x.start)
	return x, nil
}

// recordStart stores the run's row and reads the session's state and history, all in one round trip. A background run
// reads its history when it is claimed, because earlier runs of the session may end before that.
func (r *Runner) recordStart(ctx context.Context, x *execution, request store.Request) error {
	options := store.BeginOptions{Request: request}
	if x.agent.AddHistoryToContext && !x.row.Background {
		options.History = x.agent.NumHistoryRuns
	}
	begun, err := r.db.BeginRun(ctx, x.row, options)
	x.row.SessionState, x.history = begun.State, begun.History
	return err
}

// execute executes a run from its beginning to its end, its pause or its hand-over. The events are emitted by the
// goroutine that calls it, so a slow consumer slows the run down rather than filling memory.
func (r *Runner) execute(ctx context.Context, x *execution) {
	ctx, stop := x.withTimeLimit(ctx)
	defer stop()
	defer x.recordPanic(ctx)
	x.emitStarted(wire.EventRunStarted)
	messages, err := r.initialMessages(ctx, x)
	if err == nil {
		err = r.converse(ctx, x, messages, nil)
	}
	x.finish(ctx, err)
}

// maxSteps bounds the model calls of one run. A model that requests tools without end is stopped here, if neither the
// agent's timeout nor its tool_call_limit stops it earlier.
const maxSteps = 100

// converse is the run loop. It calls the model and the requested tools in turn, with a checkpoint after each step,
// until an answer requests no tool or a tool needs a person (errPaused). pending are tool calls that the model has
// requested already, in an earlier attempt.
func (r *Runner) converse(
	ctx context.Context, x *execution, messages []model.Message, pending []model.ToolCall,
) error {
	tools, err := x.loadTools(ctx)
	if err != nil {
		return err
	}
	for range maxSteps {
		if len(pending) == 0 {
			end, answer, err := x.callModel(ctx, messages, tools.specs)
			if err != nil {
				return err
			}
			if pending = end.ToolCalls; len(pending) == 0 {
				return nil
			}
			messages = append(messages, answer)
			if err := x.save(ctx, pending); err != nil {
				return err
			}
		}
		results, err := x.callTools(ctx, tools, pending)
		if err != nil {
			return err
		}
		if x.paused {
			return errPaused
		}
		messages, pending = append(messages, results...), nil
		if err := x.save(ctx, nil); err != nil {
			return err
		}
	}
	return fault.Public(fault.Upstream, fmt.Sprintf("The model asked for tools %d times in a row", maxSteps), errModel)
}

// Cancel sets the mark in the database first, so that the cancellation survives a crash of either process. It stops a
// run: at once if this process executes it, and within a second if another process does. A pending or paused run ends
// here. Cancel reports whether the viewer has such a run; one that has ended stays as it is.
func (r *Runner) Cancel(ctx context.Context, v store.Viewer, id uuid.UUID) (bool, error) {
	found, err := r.db.RequestCancel(ctx, v, store.RunQuery{RunID: id.String()}, r.dbNow())
	if err != nil || !found {
		return found, err
	}
	for attempt := range r.registry.attemptsAt(id) {
		r.registry.cancel(attempt, errCancelled)
	}
	_, _, err = r.Claim(ctx, id) // Claim ends a pending run that is to be cancelled.
	return true, err
}

// StoreEvents stores the events so far of a run, if this process executes it. Otherwise the pulse of the process that
// does stores them within half a second. A request to resume calls it, so that a client that reconnects to the same
// process is not behind.
func (r *Runner) StoreEvents(ctx context.Context, id uuid.UUID) error {
	return r.registry.storeEventsOf(ctx, id)
}

// Wait returns when this process executes no run, or with ctx's error. A server that stops calls it before it closes
// the database, because a run stores its end with its last statement.
func (r *Runner) Wait(ctx context.Context) error { return r.registry.wait(ctx) }

// errModel and errTools mark errors of the model and of the tools, for reason. errPaused is no failure: a person must
// decide before the run can continue.
var (
	errModel  = errors.New("model")
	errTools  = errors.New("tools")
	errPaused = errors.New("paused")
)

// reason maps the error that ended a run to the run's final status, the text shown to the caller, and AgentOS's
// error_type. A cause of ctx comes before err: after a cancellation or a timeout, err is only its consequence. The
// text of a timeout states the limit, and that of a deadline says that a step did not fit.
func reason(ctx context.Context, runID string, err error) (status, text, kind string) {
	switch cause := context.Cause(ctx); {
	case err == nil:
		return wire.StatusCompleted, "", ""
	case errors.Is(err, errPaused):
		return wire.StatusPaused, "", ""
	case errors.Is(cause, errCancelled):
		return wire.StatusCancelled, "Run " + runID + " was cancelled", ""
	case cause != nil:
		return wire.StatusError, cause.Error(), "run_timeout_error"
	case errors.Is(err, errModel):
		return wire.StatusError, fault.Detail(err), "model_provider_error"
	case errors.Is(err, errTools):
		return wire.StatusError, fault.Detail(err), "tool_error"
	}
	if fault.KindOf(err) == fault.Forbidden {
		return wire.StatusError, fault.Detail(err), "permission_error"
	}
	return wire.StatusError, fault.Detail(err), "internal_error"
}
