package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"net/http"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/agui"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
)

// aguiRun is the input of POST /agents/{agent_id}/agui: AG-UI's RunAgentInput, without members that have no effect
// here, such as forwardedProps.
type aguiRun struct {
	Body struct {
		ThreadID string     `json:"threadId" required:"true" minlen:"1" bound:"new_id" newid:"true" doc:"The session."`
		RunID    string     `json:"runId" required:"true" minlen:"1" bound:"short_text" doc:"An id of this request that the client chooses. The same request with the same runId is answered with the events of the run that the first one started or continued."`
		Messages input.JSON `json:"messages" required:"true" bound:"body" doc:"The conversation. Only what the user wrote after the last message of the assistant is new. The messages before count in a new session only."`
		State    input.JSON `json:"state" bound:"session_state" doc:"An object that is merged into the session's state. Ignored with resume."`
		Tools    input.JSON `json:"tools" bound:"body" doc:"Not supported: the agent has its own tools. Must be empty."`
		Context  input.JSON `json:"context" bound:"files_size" doc:"Objects with description and value, which the agent reads with the message."`
		Resume   input.JSON `json:"resume" bound:"tool_results" doc:"The answers to the interrupts of a paused run: objects with interruptId, status and payload."`
	} `body:"json" media:"any"`
	Key string `header:"Idempotency-Key" minlen:"1" bound:"idempotency_key" doc:"Used in place of runId to recognize a repeated request."`
}

// agui starts a run, or continues one with resume. The answer is a stream of AG-UI's events. Every check that can end
// in a 4xx comes before the run starts.
func (a Runs) agui(w http.ResponseWriter, r *request, in *aguiRun) error {
	runID, answers, err := agui.Answers(in.Body.Resume, r.bounds.Of(bound.ToolCalls))
	if err != nil {
		return err
	}
	session, err := boundSession(r)
	if err != nil {
		return err
	}
	session = cmp.Or(session, in.Body.ThreadID) // the token is valid for this session only
	in.Body.ThreadID = session                  // also for what request returns
	if !agui.Empty(in.Body.Tools) {
		return fault.Public(fault.Invalid,
			"tools: not supported. The agent has its own tools, and can't call those of a client", nil)
	}
	var events iter.Seq2[run.Event, error]
	if runID != "" {
		setIDs(w, runID, session)
		events, r, err = a.continueChat(r, session, runID, answers, in.request())
	} else {
		events, r, err = a.aguiBegin(r, in, session)
	}
	if err != nil {
		return err
	}
	in.Body.Messages, in.Body.Context, in.Body.State, in.Body.Resume = nil, nil, nil, nil // they may be large
	err = a.answerChat(w, r, events, agui.NewEncoder(session, in.Body.RunID))
	switch {
	case errors.Is(err, store.ErrKeyInUse) && in.Key == "":
		return fault.Public(fault.Conflict, "runId: the thread has another run of this id. "+
			"Send the same request again, or a new runId", nil)
	case runID != "":
		return notFound(err, "Run not found")
	}
	return err
}

// aguiBegin starts a run with what a RunAgentInput says.
func (a Runs) aguiBegin(r *request, in *aguiRun, session string) (iter.Seq2[run.Event, error], *request, error) {
	said, err := agui.Messages(in.Body.Messages, r.bounds.Of(bound.Messages))
	context, err2 := agui.Context(in.Body.Context, r.bounds.Of(bound.Messages))
	if err := cmp.Or(err, err2); err != nil {
		return nil, nil, err
	}
	return a.beginChat(r, chat{
		session: session, said: said, context: context, state: in.Body.State, request: in.request(),
	})
}

// answerChat sends the events of a run, or those of the run that the same request has caused before.
func (a Runs) answerChat(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error], to encoder) error {
	err := a.streamAs(w, r, events, to)
	if earlier, ok := errors.AsType[*store.Repeated](err); ok {
		return a.repeatStream(w, r, earlier, to)
	}
	return err
}

// chat is what a client says that keeps the conversation itself.
type chat struct {
	session string
	said    agui.Conversation
	context []agui.File
	state   input.JSON
	request store.Request
}

// beginChat starts a run.
func (a Runs) beginChat(r *request, c chat) (iter.Seq2[run.Event, error], *request, error) {
	r, err := r.as(route.CreateRun, map[string]string{"agent_id": r.param("agent_id")})
	if err != nil {
		return nil, nil, err
	}
	request, err := a.chatInput(r, c)
	if err != nil {
		return nil, nil, err
	}
	r.audit.Object("session", c.session)
	return a.Runner.Run(r.Context(), request), r, nil
}

// chatInput returns what the run gets. In a session that has no run of the agent, the messages before the new one are
// the conversation until now. Otherwise the session itself is.
func (a Runs) chatInput(r *request, c chat) (run.Input, error) {
	owner, err := a.Isolation.owner(r, "")
	spender, err2 := a.Isolation.spender(r)
	if err := cmp.Or(err, err2); err != nil {
		return run.Input{}, err
	}
	out := run.Input{
		AgentID: r.param("agent_id"), Owner: owner, SessionID: c.session, Streamed: true, Caller: callerOf(r),
		MaxState: r.bounds.Of(bound.SessionState), Spender: spender, Request: c.request, Message: c.said.Message,
	}
	if out.State, err = stateOf(c.state); err != nil {
		return out, err
	}
	var files []input.File
	for _, f := range append(c.context, c.said.Files...) {
		files = append(files, input.File{Name: f.Name, Type: f.Type, Content: f.Content})
	}
	if out.Files, err = a.textFiles(files); err != nil {
		return out, err
	}
	if most := r.bounds.Of(bound.Message); len(out.Message) > most {
		return out, fault.Public(fault.Unprocessable, "messages: "+bound.Message.Exceeded(most, len(out.Message)), nil)
	}
	if out.Message == "" {
		return out, fault.Public(fault.Invalid,
			"messages: has no text of the user after the last message of the assistant", nil)
	}
	if !c.said.HasHistory() {
		return out, nil
	}
	known, err := a.DB.HasRuns(r.Context(), owner, c.session, out.AgentID)
	if err != nil || known {
		return out, err
	}
	if out.History, err = c.said.History(); err != nil {
		return out, err
	}
	return out, checkConversation(r, out.History)
}

// checkConversation refuses a conversation that is too long to be stored with each run.
func checkConversation(r *request, turns []run.Turn) error {
	length := 0
	for _, t := range turns {
		length += len(t.Content)
	}
	if most := r.bounds.Of(bound.Conversation); length > most {
		return bound.Conversation.Fault(most, length)
	}
	return nil
}

// stateOf returns the state to merge: an object, or nil for none.
func stateOf(state input.JSON) (json.RawMessage, error) {
	if agui.Empty(state) {
		return nil, nil
	}
	if state[0] != '{' {
		return nil, fault.Public(fault.Invalid, "state: is no object, as the state of a session is", nil)
	}
	object, err := input.ObjectFrom(string(state), "body", "state")
	return json.RawMessage(object), err
}

// continueChat continues a paused run.
func (a Runs) continueChat(
	r *request, session, runID string, answers run.Answers, request store.Request,
) (iter.Seq2[run.Event, error], *request, error) {
	r, err := r.as(route.ContinueRun, map[string]string{"agent_id": r.param("agent_id"), "run_id": runID})
	if err != nil {
		return nil, nil, err
	}
	viewer, err := a.Isolation.viewer(r)
	spender, err2 := a.Isolation.spender(r)
	if err := cmp.Or(err, err2); err != nil {
		return nil, nil, err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return nil, nil, err
	}
	r.audit.Object("run", runID)
	q := store.RunQuery{AgentID: r.param("agent_id"), RunID: runID, SessionID: session}
	return a.Runner.Continue(r.Context(), viewer, q, run.Continuation{
		Answers: answers, OnlyAsked: true, Streamed: true, Caller: callerOf(r), Spender: spender, Request: request,
	}), r, nil
}

// request identifies the request: by the key in its header, or else by its runId within the thread.
func (in aguiRun) request() store.Request {
	key := in.Key
	if key != "" {
		in.Body.RunID = "" // a client that repeats its request may have chosen a new one
	} else {
		sum := sha256.Sum256([]byte(in.Body.ThreadID + "\x00" + in.Body.RunID))
		key = "agui-" + hex.EncodeToString(sum[:])
	}
	return requestOf(key, in.Body)
}
