package api

import (
	"errors"
	"iter"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

const endedRun = "0190b0a4-7c8e-7b1a-8c55-00a1b2c3d4e5"

// begun yields the start of a run, and then its last item.
func begun(last run.Event, err error) iter.Seq2[run.Event, error] {
	return func(yield func(run.Event, error) bool) {
		head := wire.Head{Event: wire.EventRunStarted, RunID: endedRun, SessionID: "s", AgentID: "a"}
		if yield(run.Event{Event: wire.Started{Head: head}}, nil) {
			yield(last, err)
		}
	}
}

// Once a run has begun, no answer makes a client send the request again.
func TestAnErrorOfARunThatHasBegunIsNotRepeated(t *testing.T) {
	t.Parallel()
	over := run.Event{HandedOver: &wire.Accepted{RunID: endedRun, SessionID: "s", Status: "RUNNING"}}
	lost := run.Event{Event: wire.Failed{Content: "The run's end could not be stored"}}
	for name, row := range map[string]struct {
		events iter.Seq2[run.Event, error]
		status int
		text   string
	}{
		"handed over":   {begun(over, nil), 400, "The run continues. GET /v1/responses/resp_0190b0a4"},
		"end is lost":   {begun(lost, fault.Unavailable), 400, `"code":"run_failed"`},
		"nothing began": {one(run.Event{}, fault.Public(fault.Unavailable, "full", nil)), 503, `"message":"full"`},
	} {
		w := httptest.NewRecorder()
		err := (Runs{}).completion(w, &request{Request: httptest.NewRequest("POST", "/", nil)}, row.events)
		if err == nil || w.Body.Len() > 0 {
			t.Fatalf("%s: %v, answered %s", name, err, w.Body)
		}
		fault.WriteOpenAI(w, err)
		final := w.Header().Get("X-Should-Retry") == "false"
		if w.Code != row.status || final != (row.status != 503) || !strings.Contains(w.Body.String(), row.text) {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
		if row.status == 400 && w.Header().Get("X-Run-Id") != endedRun {
			t.Errorf("%s: the headers are %v", name, w.Header())
		}
	}
}

func TestAStreamThatIsHandedOverSaysHowToReadTheRest(t *testing.T) {
	t.Parallel()
	over := run.Event{HandedOver: &wire.Accepted{RunID: endedRun, SessionID: "s", Status: "RUNNING"}}
	for to, texts := range map[encoder][]string{
		openai.NewChatStream(false): {`"code":"run_continues"`, "/v1/responses/resp_0190b0a4"},
		openai.NewResponseStream(openai.Of{}): {"event: response.in_progress\ndata: " +
			`{"type":"response.in_progress","sequence_number":2,`, `"status":"in_progress"`},
	} {
		w := httptest.NewRecorder()
		r := &request{Request: httptest.NewRequest("POST", "/", nil)}
		err := (Runs{}).streamAs(w, r, begun(over, nil), to)
		for _, text := range append(texts, wire.RunContinues) {
			if err != nil || !strings.Contains(w.Body.String(), text) {
				t.Errorf("%v: %s\nlacks %s", err, w.Body, text)
			}
		}
		if w.Header().Get("X-Run-Id") != endedRun || w.Header().Get("X-Session-Id") != "s" {
			t.Errorf("the headers are %v", w.Header())
		}
	}
	full := errors.New("full")
	if err := (Runs{}).streamAs(httptest.NewRecorder(), &request{}, one(run.Event{}, full),
		openai.NewChatStream(false)); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}
