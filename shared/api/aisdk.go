package api

import (
	"cmp"
	"iter"
	"net/http"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/aisdk"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
)

// aiSDKRun is the input of POST /agents/{agent_id}/ai-sdk: what AI SDK's DefaultChatTransport sends, without members
// that have no effect here, such as trigger.
type aiSDKRun struct {
	Body struct {
		ID       string     `json:"id" required:"true" minlen:"1" bound:"new_id" newid:"true" doc:"The chat, which is the session."`
		Messages input.JSON `json:"messages" required:"true" bound:"body" doc:"The UI messages. Only what the user wrote after the last message of the assistant is new. If the last one is the assistant's, its answers to questions continue a paused run."`
	} `body:"json" media:"any"`
	Key string `header:"Idempotency-Key" minlen:"1" bound:"idempotency_key" doc:"A text that the caller chooses. The same request with the same key is answered with the events of the run that the first one started or continued."`
}

// aiSDK starts a run, or continues the one whose questions the last message answers. The answer is AI SDK's UI message
// stream.
func (a Runs) aiSDK(w http.ResponseWriter, r *request, in *aiSDKRun) error {
	said, runID, answers, err := aisdk.Read(in.Body.Messages, r.bounds.Of(bound.Messages))
	session, err2 := boundSession(r)
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	session = cmp.Or(session, in.Body.ID) // the token is valid for this session only
	in.Body.ID = session
	request := requestOf(in.Key, in.Body)
	var events iter.Seq2[run.Event, error]
	if runID != "" {
		setIDs(w, runID, session)
		events, r, err = a.continueChat(r, session, runID, answers, request)
	} else {
		events, r, err = a.beginChat(r, chat{session: session, said: said, request: request})
	}
	if err != nil {
		return err
	}
	in.Body.Messages = nil // they may be large
	w.Header().Set(aisdk.Header, aisdk.Version)
	if err = a.answerChat(w, r, events, aisdk.NewEncoder()); err != nil {
		w.Header().Del(aisdk.Header)
	}
	if runID != "" {
		return notFound(err, "Run not found")
	}
	return err
}

// aiSDKResume sends the answer that is in progress in a chat from its beginning, and follows it to its end. AI SDK asks
// for it when a page is opened (useChat with resume), and takes 204 for a chat without such an answer.
func (a Runs) aiSDKResume(w http.ResponseWriter, r *request, _ *nothing) error {
	agent := r.param("agent_id")
	if _, err := r.as(route.CreateRun, map[string]string{"agent_id": agent}); err != nil {
		return err
	}
	if _, err := a.Agents.find(agent); err != nil {
		return err
	}
	session, err := boundSession(r)
	owner, err2 := a.Isolation.owner(r, "")
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	session = cmp.Or(session, r.param("session_id")) // the token is valid for this session only
	r.audit.Object("session", session)
	head, err := a.DB.RunInProgress(r.Context(), owner, session, agent)
	if fault.KindOf(err) == fault.NotFound {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	logging.Note(r.Context(), "run_id", head.RunID.String())
	r.audit.Object("run", head.RunID.String())
	if r, err = r.as(route.ResumeRun, map[string]string{"agent_id": agent, "run_id": head.RunID.String()}); err != nil {
		return err
	}
	ctx, stop := a.whileValid(r)
	defer stop()
	setIDs(w, head.RunID.String(), head.SessionID)
	w.Header().Set(aisdk.Header, aisdk.Version)
	f := follower{
		runs: a, run: head.RunID, caller: callerKey(r), streamed: true, attempt: head.Attempt, after: -1, plain: true,
		to: aisdk.NewEncoder(), newest: true,
	}
	if err = f.follow(ctx, w); err != nil {
		w.Header().Del(aisdk.Header)
	}
	return err
}
