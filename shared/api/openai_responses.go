package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// respondTo runs an agent and answers a response: as a stream, as a whole, or with background at once.
func (a Runs) respondTo(w http.ResponseWriter, r *request, in *openAIRun) error {
	asked, r, begin, err := a.openAIInput(r, in, openai.Responses)
	if err != nil {
		return err
	}
	// A run with a stream is executed at once, so that it isn't stored as one in the background either.
	asked.of.Background = asked.of.Background && !asked.stream
	switch {
	case asked.stream:
		err = a.streamAs(w, r, a.eventsOf(r, begin), openai.NewResponseStream(asked.of))
	case asked.of.Background:
		err = a.startResponse(w, r, begin, asked.of)
	default:
		err = a.response(w, r, begin, asked.of)
	}
	earlier, repeats := errors.AsType[*store.Repeated](err)
	switch {
	case !repeats:
		return err
	case asked.stream:
		return a.repeatStream(w, r, earlier, openai.NewResponseStream(asked.of))
	}
	return a.repeatResponse(w, r, earlier, asked.of)
}

// startResponse answers the queued response once the run is stored. Another process may execute it.
func (a Runs) startResponse(w http.ResponseWriter, r *request, begin *run.Input, of openai.Of) error {
	accepted, err := a.Runner.Start(r.Context(), *begin)
	if err != nil {
		return err
	}
	logging.Note(r.Context(), "run_id", accepted.RunID)
	r.audit.Object("run", accepted.RunID)
	return writeResponse(w, wire.Run{
		RunID: accepted.RunID, SessionID: accepted.SessionID, AgentID: begin.AgentID, CreatedAt: a.Now().Unix(),
		Status: accepted.Status,
	}, of)
}

// response answers with the response of the run, once it has ended or was handed over. A failed run is a response as
// well: clients read its status.
func (a Runs) response(w http.ResponseWriter, r *request, begin *run.Input, of openai.Of) error {
	result, err := a.resultOf(w, r, a.eventsOf(r, begin))
	if openai.IsHandedOver(err) {
		return a.storedResponse(w, r, store.Viewer{All: true}, w.Header().Get("X-Run-Id"), of)
	}
	if err != nil {
		return err
	}
	return writeResponse(w, *result, of)
}

// repeatResponse answers a repeated request with the response of the first one. Without background it waits for the end
// of the run.
func (a Runs) repeatResponse(w http.ResponseWriter, r *request, earlier *store.Repeated, of openai.Of) error {
	noteRepeat(w, r, earlier)
	id := earlier.Run.RunID.String()
	if !of.Background {
		ctx, stop := a.whileValid(r)
		defer stop()
		if _, _, err := a.endOf(ctx, r, earlier.Run); err != nil {
			return notFound(err, "Response not found")
		}
		if err := endedToken(ctx); err != nil {
			return err
		}
	}
	return a.storedResponse(w, r, store.Viewer{All: true}, id, of)
}

// storedResponse answers with the response of a stored run. The request may be past its deadline.
func (a Runs) storedResponse(w http.ResponseWriter, r *request, v store.Viewer, id string, of openai.Of) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), readTime)
	defer stop()
	row, err := a.DB.Run(ctx, v, store.RunQuery{RunID: id})
	if err != nil {
		return notFoundResponse(err)
	}
	of.Background = of.Background || row.Background
	return writeResponse(w, runOf(row), of)
}

// readTime is how long one row may take to read when the request is over.
const readTime = 3 * time.Second

// writeResponse answers with the response of a run.
func writeResponse(w http.ResponseWriter, r wire.Run, of openai.Of) error {
	used, err := metricsOf(r)
	if err != nil {
		return err
	}
	if of.Metadata == nil {
		of.Metadata = r.Metadata
	}
	setIDs(w, r.RunID, r.SessionID)
	return writeJSON(w, http.StatusOK, openai.NewResponse(r, used, of))
}

// notFoundResponse is notFound with OpenAI's text.
func notFoundResponse(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return openai.NoResponse("response_id")
	}
	return err
}

// headOf returns the run of a response that the caller sees, and the request as one to run its agent. It must be
// allowed as the run's own route, and as each of the other routes, which do the same in AgentOS's API.
func (a Runs) headOf(r *request, response string, also ...route.Name) (
	head store.RunHead, viewer store.Viewer, inner *request, err error,
) {
	id := openai.RunID(response)
	if viewer, err = a.Isolation.viewer(r); err != nil {
		return head, viewer, nil, err
	}
	if id == "" {
		return head, viewer, nil, openai.NoResponse("response_id")
	}
	head, err = a.DB.RunHead(r.Context(), viewer, store.RunQuery{RunID: id})
	if err != nil {
		return head, viewer, nil, notFoundResponse(err)
	}
	r.audit.Owner(head.Owner)
	r.audit.Object("run", id)
	params := map[string]string{"agent_id": head.AgentID, "run_id": id, "session_id": head.SessionID}
	inner, err = r.as(route.CreateRun, params)
	for _, name := range also {
		if err == nil {
			_, err = r.as(name, params)
		}
	}
	return head, viewer, inner, err
}

// getResponse is the input of GET /v1/responses/{response_id}.
type getResponse struct {
	Stream bool `query:"stream" default:"false" doc:"Whether the answer is the stream of the response, which must have been streamed at first."`
	After  *int `query:"starting_after" doc:"The sequence number of the last event that the client has, in a stream. Without it, all events are sent."`
}

// readResponse answers the response of a run, or its stream from an event on.
func (a Runs) readResponse(w http.ResponseWriter, r *request, in getResponse) error {
	head, viewer, inner, err := a.headOf(r, r.param("response_id"), route.ResumeRun)
	if err != nil {
		return err
	}
	if !in.Stream {
		return a.storedResponse(w, inner, viewer, head.RunID.String(), openai.Of{})
	}
	if !head.Streamed {
		return openai.Refusal("stream", "stream: this response was not streamed when it was created, so it has no events")
	}
	row, err := a.DB.Run(r.Context(), viewer, store.RunQuery{RunID: head.RunID.String()})
	if err != nil {
		return notFoundResponse(err)
	}
	to := openai.NewResponseStream(openai.Of{Metadata: row.Metadata})
	if in.After != nil {
		to.Skip(*in.After)
	}
	ctx, stop := a.whileValid(inner)
	defer stop()
	f := follower{
		runs: a, run: head.RunID, caller: callerKey(inner), streamed: true, attempt: head.Attempt, after: -1,
		plain: true, to: to, through: true,
	}
	setIDs(w, head.RunID.String(), head.SessionID)
	return f.follow(ctx, w)
}

// cancelResponse asks the run of a response to stop, and answers the response when it has ended, or after cancelTime as
// it is then. A response that has ended stays as it is.
func (a Runs) cancelResponse(w http.ResponseWriter, r *request, _ nothing) error {
	head, viewer, inner, err := a.headOf(r, r.param("response_id"), route.CancelRun)
	if err != nil {
		return err
	}
	if _, err := a.Runner.Cancel(r.Context(), viewer, head.RunID); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(r.Context(), cancelTime)
	defer stop()
	if _, _, err := a.endOf(ctx, inner, head); err != nil {
		return notFoundResponse(err)
	}
	return a.storedResponse(w, inner, viewer, head.RunID.String(), openai.Of{})
}

// cancelTime is how long an answer waits for the end of a cancelled run. Another process sees the request within half a
// second.
const cancelTime = 3 * time.Second

// deleteResponse deletes the run of a response. Its session stays, and the caller needs what deleting that one needs.
func (a Runs) deleteResponse(ctx context.Context, r *request, _ nothing) (openai.Deleted, error) {
	id := r.param("response_id")
	head, viewer, _, err := a.headOf(r, id, route.DeleteSession)
	if err != nil {
		return openai.Deleted{}, err
	}
	err = a.DB.DeleteRun(ctx, viewer, head.RunID)
	return openai.Deleted{ID: id, Object: "response", Deleted: true}, notFoundResponse(err)
}

// earlierSession returns the session of the run that previous_response_id names. The run must be the owner's own, also
// for an administrator: the session of another user would be a new one.
func (a Runs) earlierSession(r *request, previous, owner string) (string, error) {
	missing := openai.NoResponse("previous_response_id")
	head, _, _, err := a.headOf(r, openai.ResponseID(previous))
	switch {
	case fault.KindOf(err) == fault.NotFound || err == nil && head.Owner != owner:
		return "", missing
	}
	return head.SessionID, err
}
