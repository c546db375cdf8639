package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"

	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// The handlers of OpenAI's API. Package door/openai says what its parameters mean.

// models answers the agents that the caller is allowed to run.
func (a Runs) models(_ context.Context, r *request, _ nothing) (openai.Models, error) {
	out := openai.Models{Object: "list", Data: []openai.Model{}}
	for _, agent := range a.runnable(r) {
		out.Data = append(out.Data, openai.NewModel(agent.ID, agent.Name))
	}
	return out, nil
}

// model answers one agent. The policy has decided about it, as the run's own route.
func (a Runs) model(_ context.Context, r *request, _ nothing) (openai.Model, error) {
	agent, err := a.Agents.find(r.param("agent_id"))
	if err != nil {
		return openai.Model{}, openai.NoModel()
	}
	return openai.NewModel(agent.ID, agent.Name), nil
}

// openAIRun is the input of POST /v1/chat/completions and POST /v1/responses.
type openAIRun struct {
	Body    input.Document `body:"json" bound:"body" doc:"As in OpenAI's API. docs/doors.md says which members are honoured, ignored and refused."`
	Session string         `header:"X-Session-Id" bound:"new_id" newid:"true" doc:"The session that the run continues. Defaults to the one that the body names, or to a new one."`
	Key     string         `header:"Idempotency-Key" minlen:"1" bound:"idempotency_key" doc:"A text that the caller chooses. The same request with the same key is answered with the run that the first one started."`
}

// openAIAsked is what the answer to a request depends on, besides the run. The request itself isn't kept while a stream
// is open.
type openAIAsked struct {
	stream, usage bool
	of            openai.Of
}

// complete runs an agent and answers a chat completion, as a stream or as a whole.
func (a Runs) complete(w http.ResponseWriter, r *request, in *openAIRun) error {
	asked, r, begin, err := a.openAIInput(r, in, openai.Chat)
	if err != nil {
		return err
	}
	events := a.eventsOf(r, begin)
	if asked.stream {
		err = a.streamAs(w, r, events, openai.NewChatStream(asked.usage))
	} else {
		err = a.completion(w, r, events)
	}
	earlier, repeats := errors.AsType[*store.Repeated](err)
	switch {
	case !repeats:
		return err
	case asked.stream:
		return a.repeatStream(w, r, earlier, openai.NewChatStream(asked.usage))
	}
	return a.repeatCompletion(w, r, earlier)
}

// openAIInput decides about the agent that the body names, and returns the request as one to run it, with the input of
// the run. Nothing is stored yet.
func (a Runs) openAIInput(r *request, in *openAIRun, api openai.API) (*openAIAsked, *request, *run.Input, error) {
	q, err := openai.Decode(api, in.Body, r.bounds)
	if err == nil {
		r, err = r.as(route.CreateRun, map[string]string{"agent_id": q.Model})
	}
	if err != nil {
		return nil, nil, nil, err
	}
	asked := &openAIAsked{
		stream: q.Stream, usage: q.Usage,
		of: openai.Of{Background: q.Background, Previous: q.Previous, Metadata: q.Metadata},
	}
	input, err := a.runOfOpenAI(r, q, in)
	if err != nil {
		return nil, nil, nil, err
	}
	// The session is the one that the run gets: two tokens for two sessions don't repeat each other's requests.
	input.Request = requestOf(in.Key, []any{api, in.Session, input.SessionID, []byte(in.Body)})
	in.Body = nil // it may be large
	return asked, r, input, nil
}

// runOfOpenAI returns the input of the run that a decoded request asks for.
func (a Runs) runOfOpenAI(r *request, q *openai.Request, in *openAIRun) (*run.Input, error) {
	if _, err := a.Agents.find(q.Model); err != nil {
		return nil, openai.NoModel()
	}
	owner, err := a.Isolation.owner(r, "")
	spender, err2 := a.Isolation.spender(r)
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	session, err := a.sessionOf(r, q, in.Session, owner)
	if err != nil {
		return nil, err
	}
	out := &run.Input{
		AgentID: q.Model, Owner: owner, SessionID: session, Message: q.Message, Metadata: q.Metadata,
		Streamed: q.Stream, Caller: callerOf(r), Spender: spender,
	}
	if out.Files, err = a.filesOf(q.Files); err != nil {
		return nil, err
	}
	// In a session, the agent's own setting decides how much of the earlier runs the model receives.
	if session == "" {
		if out.History, err = a.historyOf(r, q.History); err != nil {
			return nil, err
		}
	}
	r.audit.Object("session", session)
	return out, nil
}

// sessionOf returns the session that the run continues, or "" for a new one. The token's own session comes first.
func (a Runs) sessionOf(r *request, q *openai.Request, header, owner string) (string, error) {
	only, err := boundSession(r)
	if err != nil {
		return "", err
	}
	session, param := q.Session, q.SessionParam
	if q.Previous != "" {
		param = "previous_response_id"
		if session, err = a.earlierSession(r, q.Previous, owner); err != nil {
			return "", err
		}
	}
	if only != "" {
		return only, nil
	}
	if header != "" && session != "" && header != session {
		return "", openai.Refusal(param, "The header X-Session-Id names another session than "+param)
	}
	return cmp.Or(header, session), nil
}

// filesOf converts the files of a message. The error names the one that is no text.
func (a Runs) filesOf(files []openai.File) (out []wire.File, err error) {
	for _, f := range files {
		one, err := a.textFiles([]input.File{{Name: f.Name, Type: f.Type, Content: f.Content}})
		if err != nil {
			return nil, openai.Refusal(f.Param, f.Param+": "+fault.Detail(err))
		}
		out = append(out, one...)
	}
	return out, nil
}

// historyOf converts the conversation that the client sent. It reads the messages that the client only names.
func (a Runs) historyOf(r *request, turns []openai.Turn) (out []run.Turn, err error) {
	for _, t := range turns {
		files, err := a.filesOf(t.Files)
		if err != nil {
			return nil, err
		}
		if t.Run != "" {
			if t.Text, err = a.answerOf(r, t); err != nil {
				return nil, err
			}
		}
		role := model.User
		if t.Assistant {
			role = model.Assistant
		}
		out = append(out, run.Turn{Role: role, Content: run.WithFiles(t.Text, files)})
	}
	return out, nil
}

// answerOf returns the answer of the run that a turn names. The caller must be allowed to run its agent.
func (a Runs) answerOf(r *request, t openai.Turn) (string, error) {
	head, viewer, _, err := a.headOf(r, openai.ResponseID(t.Run))
	if fault.KindOf(err) == fault.NotFound {
		return "", openai.NoResponse(t.Param)
	}
	if err != nil {
		return "", err
	}
	row, err := a.DB.Run(r.Context(), viewer, store.RunQuery{RunID: head.RunID.String()})
	return text(row.Content), err
}

// noteIDs sets the headers with the ids of the run and its session at the first event, before the answer begins.
func noteIDs(w http.ResponseWriter, first wire.Event) {
	if begun, ok := first.(wire.Started); ok && begun.Event == wire.EventRunStarted {
		setIDs(w, begun.RunID, begun.SessionID)
	}
}

// setIDs sets the headers by which a client of another API finds the run in AgentOS's.
func setIDs(w http.ResponseWriter, run, session string) {
	w.Header().Set("X-Run-Id", run)
	w.Header().Set("X-Session-Id", session)
}

// completion answers with the chat completion of the run, once it has ended.
func (a Runs) completion(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error]) error {
	result, err := a.resultOf(w, r, events)
	if err != nil {
		return err
	}
	return writeCompletion(w, *result)
}

// resultOf waits for the end of a run. An error before the first event is that of the run's own route. After it, the
// run has begun and a client must not send the request again.
func (a Runs) resultOf(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error]) (*wire.Run, error) {
	for e, err := range events {
		noteIDs(w, e.Event)
		id := w.Header().Get("X-Run-Id")
		switch {
		case err != nil && e.Event == nil:
			return nil, err
		case err != nil:
			return nil, openai.Unstored(id, err)
		case e.Result != nil:
			logging.Note(r.Context(), "run_id", id)
			r.audit.Object("run", id)
			return e.Result, nil
		case e.HandedOver != nil:
			logging.Note(r.Context(), "handed_over", id)
			r.audit.Object("run", id)
			return nil, openai.HandedOver(id)
		}
	}
	return nil, fmt.Errorf("the run ended without a result: %w", fault.Internal)
}

// repeatCompletion answers a repeated request with the chat completion of the first one.
func (a Runs) repeatCompletion(w http.ResponseWriter, r *request, earlier *store.Repeated) error {
	noteRepeat(w, r, earlier)
	setIDs(w, earlier.Run.RunID.String(), earlier.Run.SessionID)
	ctx, stop := a.whileValid(r)
	defer stop()
	whole, _, err := a.endOf(ctx, r, earlier.Run)
	switch {
	case err != nil:
		return notFound(err, "Run not found")
	case whole != nil:
		return writeCompletion(w, runOf(*whole))
	}
	return cmp.Or(endedToken(ctx), openai.HandedOver(earlier.Run.RunID.String()))
}

// writeCompletion answers with the chat completion of a run, or returns the error with which it ended.
func writeCompletion(w http.ResponseWriter, result wire.Run) error {
	used, err := metricsOf(result)
	if err != nil {
		return err
	}
	out, err := openai.NewCompletion(result, used)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// metricsOf returns the metrics of a run, which has none before its first step has ended.
func metricsOf(r wire.Run) (used wire.Metrics, err error) {
	if len(r.Metrics) > 0 {
		if err := json.Unmarshal(r.Metrics, &used); err != nil {
			return used, fmt.Errorf("metrics of run %s: %w", r.RunID, err)
		}
	}
	return used, nil
}
