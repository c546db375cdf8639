package api

import (
	"cmp"
	"iter"
	"net/http"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/aisdk"
	"github.com/keyway-agents/keyway/shared/input"
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
