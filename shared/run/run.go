// Package run is the run loop: it asks the model, calls its tools, records the run
// before and after, and yields what happens as AgentOS's events.
// It knows nothing of HTTP, tokens or scopes: who may run what was decided
// before.
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
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agent is a declared agent with its model and tools opened.
type Agent struct {
	config.Agent
	Model model.Model
	Tools []tool.Set
}

// Runner runs the agents of one OS. It is safe for concurrent use.
type Runner struct {
	db     *store.DB
	agents map[string]Agent
	order  []Agent // as they were declared
	log    *slog.Logger
	now    func() time.Time
	newID  func() uuid.UUID
	live   *live
	queue  queue.Queue
	admit  func(Caller) error
}

// Options of a Runner; all but Queue are required.
type Options struct {
	DB     *store.DB
	Agents []Agent
	Log    *slog.Logger
	Now    func() time.Time
	NewID  func() uuid.UUID
	Queue  queue.Queue        // of the runs that wait; whoever receives one calls Take, and Watch if there is nothing to carry. nil: they are carried here at once
	Watch  bool               // whether each run leaves a message in Queue that outlives this process: where nobody calls Requeue all the time
	Admit  func(Caller) error // decides again about a run that is taken up; its fault.Detail is told
}

// New makes a Runner.
func New(o Options) *Runner {
	r := &Runner{
		db: o.DB, agents: map[string]Agent{}, order: o.Agents, log: o.Log, now: o.Now, newID: o.NewID, live: newLive(o.DB, o.Log, o.Now),
		queue: o.Queue, admit: o.Admit,
	}
	for _, a := range o.Agents {
		r.agents[a.ID] = a
	}
	if o.Watch {
		r.live.watch = r.Watch
	}
	return r
}

// Close gives up what the agents' tools hold. No run may be in progress.
func (r *Runner) Close() (err error) {
	for _, a := range r.agents {
		for _, set := range a.Tools {
			err = errors.Join(err, set.Close())
		}
	}
	return err
}

// Input is one request to run an agent.
type Input struct {
	AgentID   string
	Owner     string // whose session it is; "" for nobody's
	SessionID string // "" makes a new session
	Message   string
	Files     []wire.File
	State     json.RawMessage // a JSON object that is merged into the session's state; nil: none
	Metadata  json.RawMessage // a JSON object of the caller's own; nil: none
	Streamed  bool            // keep the events for Follow
	Caller    Caller          // who was admitted
	Request   store.Request   // by which the same request is known again
}

// Event is one event of a run; the last one carries the whole run, or says that it goes
// on elsewhere.
type Event struct {
	wire.Event                // nil beside HandedOver
	Frame      []byte         // the event as it goes over the wire; of streamed runs only
	Result     *wire.Run      // on the last event only
	HandedOver *wire.Accepted // on the last one only: another process carries the run on, and no event of it tells so
}

// Run runs an agent and yields its events. Once the first event is out the run
// is recorded, and it goes on to its end even when the consumer stops listening
// or ctx is cancelled: only Cancel, the agent's timeout and ctx's deadline stop it.
// When the process ends, another one takes it up.
//
// An error without an event comes first and alone: nothing ran (fault.NotFound:
// no such agent; fault.Unavailable: the database; *store.Repeated: the request came
// before). An error beside an event is
// the last: the run ended, and its end could not be recorded; the event says so.
// A model that failed is no error but a RunError event and Result.Status ERROR.
// The last event of a run that waits for a person is RunPaused. A run that doesn't fit
// into ctx's deadline is handed over between two steps: then the last is HandedOver.
func (r *Runner) Run(ctx context.Context, in Input) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		t, err := r.begin(in, wire.StatusRunning)
		if err == nil {
			err = r.record(ctx, t, in.Request)
		}
		if err != nil {
			yield(Event{}, err)
			return
		}
		t.listen(yield)
		ctx, leave := r.live.enter(ctx, t)
		defer leave()
		r.carry(ctx, t)
	}
}

// Start has an agent run in the background: when Start returns, the run is recorded
// as PENDING and waits for whoever takes it out of the queue. Errors are those of Run.
func (r *Runner) Start(ctx context.Context, in Input) (wire.Accepted, error) {
	t, err := r.begin(in, wire.StatusPending)
	if err != nil {
		return wire.Accepted{}, err
	}
	t.row.Background, t.row.Attempt = true, 0
	if err := r.record(ctx, t, in.Request); err != nil {
		return wire.Accepted{}, err
	}
	if err := r.enqueue(ctx, t.row.RunID); err != nil { // it is accepted all the same: Requeue finds what no queue has
		r.log.WarnContext(ctx, "a run can't be enqueued yet", "run_id", t.row.RunID, "err", err)
	}
	return wire.Accepted{RunID: t.row.RunID.String(), SessionID: t.row.SessionID, Status: wire.StatusPending}, nil
}

// record writes the run's row and learns what it starts with. One in the background
// hears its history when it is taken.
func (r *Runner) record(ctx context.Context, t *turn, request store.Request) error {
	how := store.Beginning{Request: request}
	if t.agent.AddHistoryToContext && !t.row.Background {
		how.History = t.agent.NumHistoryRuns
	}
	begun, err := r.db.BeginRun(ctx, t.row, how)
	t.row.SessionState, t.earlier = begun.State, begun.History
	return err
}

// carry takes a recorded run to its end.
func (r *Runner) carry(ctx context.Context, t *turn) {
	ctx, stop := t.limited(ctx)
	defer stop()
	defer t.panicked(ctx)
	t.started(wire.EventRunStarted)
	messages, err := r.context(ctx, t)
	if err == nil {
		err = r.converse(ctx, t, messages, nil)
	}
	t.end(ctx, err)
}

// maxSteps bounds the model calls of one run: a model that asks for tools for
// ever is stopped here at the latest.
const maxSteps = 100

// converse calls the model until it answers without asking for a tool, or until a
// tool waits for a person. asked is what the model has asked for already.
func (r *Runner) converse(ctx context.Context, t *turn, messages []model.Message, asked []model.ToolCall) error {
	tools, err := t.tools(ctx)
	if err != nil {
		return err
	}
	for range maxSteps {
		if len(asked) == 0 {
			end, answer, err := t.ask(ctx, messages, tools.specs)
			if err != nil {
				return err
			}
			if asked = end.ToolCalls; len(asked) == 0 {
				return nil
			}
			messages = append(messages, answer)
			if err := t.save(ctx, asked); err != nil {
				return err
			}
		}
		results, err := t.call(ctx, tools, asked)
		if err != nil {
			return err
		}
		if t.paused {
			return errPaused
		}
		messages, asked = append(messages, results...), nil
		if err := t.save(ctx, nil); err != nil {
			return err
		}
	}
	return fault.Public(fault.Upstream, fmt.Sprintf("The model asked for tools %d times in a row", maxSteps), errModel)
}

// Cancel stops a run, here or in the process that carries it (within a second); one
// that waits ends here. It reports whether the viewer has such a run.
func (r *Runner) Cancel(ctx context.Context, v store.Viewer, q store.RunQuery) (bool, error) {
	found, err := r.db.RequestCancel(ctx, v, q, r.clock())
	if err != nil || !found {
		return found, err
	}
	id, err := uuid.Parse(q.RunID)
	if err != nil { // it names several, which nobody asks for
		return true, nil
	}
	for h := range r.live.attempts(id) {
		r.live.cancel(h, errCancelled)
	}
	_, err = r.Take(ctx, id) // which ends it: it is cancelled
	return true, err
}

// StoreEvents stores what a run has told so far, if it is carried here, rather than
// within half a second.
func (r *Runner) StoreEvents(ctx context.Context, id uuid.UUID) error {
	return r.live.storeNow(ctx, id)
}

// Wait returns when no run is in progress here, or with ctx's error.
func (r *Runner) Wait(ctx context.Context) error { return r.live.wait(ctx) }

// errModel and errTools mark an error as theirs; errPaused is no failure: a person
// has to go on.
var (
	errModel  = errors.New("model")
	errTools  = errors.New("tools")
	errPaused = errors.New("paused")
)

// reason turns what ended a run into what is told of it. status is the run's
// last; text goes to the caller; kind is AgentOS's error_type.
func reason(ctx context.Context, runID string, err error) (status, text, kind string) {
	switch cause := context.Cause(ctx); {
	case err == nil:
		return wire.StatusCompleted, "", ""
	case errors.Is(err, errPaused):
		return wire.StatusPaused, "", ""
	case errors.Is(cause, errCancelled):
		return wire.StatusCancelled, "Run " + runID + " was cancelled", ""
	case cause != nil: // the timeout's own error says how long it was, the deadline's that a step didn't fit
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

// begin makes the turn and its row; nothing is recorded yet.
func (r *Runner) begin(in Input, status string) (*turn, error) {
	agent, ok := r.agents[in.AgentID]
	if !ok {
		return nil, fault.Public(fault.NotFound, "Agent not found", nil)
	}
	row := store.Run{
		RunID: r.newID(), Owner: in.Owner, SessionID: cmp.Or(in.SessionID, r.newID().String()), AgentID: agent.ID, AgentName: agent.Name,
		Status: status, Input: in.Message, SessionState: in.State, Metadata: in.Metadata, Streamed: in.Streamed, Attempt: 1,
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
	t := r.newTurn(agent, agent.Model.Describe(), row)
	t.files = in.Files
	t.row.CreatedAt = t.start.UTC().Truncate(time.Microsecond)
	return t, nil
}
