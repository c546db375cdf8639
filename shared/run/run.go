// Package run is the run loop: it asks the model, records the run before and
// after, and yields what happens as AgentOS's events.
// It knows nothing of HTTP, tokens or scopes: who may run what was decided
// before.
package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agent is a declared agent with its model opened.
type Agent struct {
	config.Agent
	Model model.Model
}

// Runner runs the agents of one OS. It is safe for concurrent use.
type Runner struct {
	db     *store.DB
	agents map[string]Agent
	now    func() time.Time
	newID  func() uuid.UUID
	live   *live
}

// Options of a Runner; all are required.
type Options struct {
	DB     *store.DB
	Agents []Agent
	Log    *slog.Logger
	Now    func() time.Time
	NewID  func() uuid.UUID
}

// New makes a Runner.
func New(o Options) *Runner {
	r := &Runner{db: o.DB, agents: map[string]Agent{}, now: o.Now, newID: o.NewID, live: newLive(o.DB, o.Log, o.Now)}
	for _, a := range o.Agents {
		r.agents[a.ID] = a
	}
	return r
}

// Input is one request to run an agent.
type Input struct {
	AgentID   string
	Owner     string // whose session it is; "" for nobody's
	SessionID string // "" makes a new session
	Message   string
}

// Event is one event of a run; the last one carries the whole run.
type Event struct {
	wire.Event
	Result *wire.Run // on the last event only
}

// Run runs an agent and yields its events. Once the first event is out the run
// is recorded, and it goes on to its end even when the consumer stops listening
// or ctx is cancelled: only Cancel, the agent's timeout and the end of the
// process stop it.
//
// An error without an event comes first and alone: nothing ran (fault.NotFound:
// no such agent; fault.Unavailable: the database). An error beside an event is
// the last: the run ended, and its end could not be recorded; the event says so.
// A model that failed is no error but a RunError event and Result.Status ERROR.
func (r *Runner) Run(ctx context.Context, in Input) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		agent, ok := r.agents[in.AgentID]
		if !ok {
			yield(Event{}, fault.Public(fault.NotFound, "Agent not found", nil))
			return
		}
		t := r.begin(agent, in, yield)
		var err error
		if t.row.SessionState, err = r.db.BeginRun(ctx, t.row); err != nil {
			yield(Event{}, err)
			return
		}
		ctx, stop := r.live.enter(context.WithoutCancel(ctx), t.row.RunID, agent.Timeout)
		defer stop()
		defer t.panicked(ctx)
		t.started(wire.EventRunStarted)
		t.end(ctx, r.converse(ctx, t))
	}
}

// maxSteps bounds the model calls of one run: a model that asks for tools for
// ever is stopped here at the latest.
const maxSteps = 100

// converse calls the model until it answers without asking for a tool.
func (r *Runner) converse(ctx context.Context, t *turn) error {
	messages, err := r.context(ctx, t)
	if err != nil {
		return err
	}
	for range maxSteps {
		end, answer, err := t.ask(ctx, messages)
		if err != nil {
			return err
		}
		if len(end.ToolCalls) == 0 {
			return nil
		}
		messages = append(messages, answer)
		for _, call := range end.ToolCalls {
			messages = append(messages, t.answerTool(call))
		}
	}
	return fault.Public(fault.Upstream, fmt.Sprintf("The model asked for tools %d times in a row", maxSteps), errModel)
}

// Cancel stops a run, here or in the process that carries it (within a second).
// It reports whether the viewer has such a run.
func (r *Runner) Cancel(ctx context.Context, v store.Viewer, q store.RunQuery) (bool, error) {
	found, err := r.db.RequestCancel(ctx, v, q)
	if err != nil || !found {
		return found, err
	}
	if id, err := uuid.Parse(q.RunID); err == nil {
		r.live.cancel(id)
	}
	return true, nil
}

// Wait returns when no run is in progress here, or with ctx's error.
func (r *Runner) Wait(ctx context.Context) error { return r.live.wait(ctx) }

// errModel marks an error as the model's.
var errModel = errors.New("model")

// reason turns what ended a run into what is told of it. status is the run's
// last; text goes to the caller; kind is AgentOS's error_type.
func reason(ctx context.Context, runID string, err error) (status, text, kind string) {
	switch cause := context.Cause(ctx); {
	case err == nil:
		return wire.StatusCompleted, "", ""
	case errors.Is(cause, errCancelled):
		return wire.StatusCancelled, "Run " + runID + " was cancelled", ""
	case cause != nil: // the timeout's own error says how long it was
		return wire.StatusError, cause.Error(), "run_timeout_error"
	case errors.Is(err, errModel):
		return wire.StatusError, fault.Detail(err), "model_provider_error"
	}
	return wire.StatusError, fault.Detail(err), "internal_error"
}
