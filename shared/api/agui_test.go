package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// aguiBody returns a RunAgentInput as @ag-ui/client sends it, with these messages and further members.
func aguiBody(thread, run, messages, more string) string {
	return fmt.Sprintf(`{"threadId":%q,"runId":%q,"tools":[],"context":[],"forwardedProps":{},"messages":[%s]%s}`,
		thread, run, messages, more)
}

const saidHi = `{"id":"1","role":"user","content":"Hi"}`

// aguiEvents returns the events of a stream of AG-UI.
func (r reply) aguiEvents(t *testing.T) (events []map[string]any) {
	t.Helper()
	r.want(t, http.StatusOK)
	for frame := range strings.SplitSeq(strings.TrimSuffix(r.Body.String(), "\n\n"), "\n\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(frame, "data: ")), &e); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		events = append(events, e)
	}
	return events
}

// aguiRun returns the run's own id, which the second event has.
func aguiRun(events []map[string]any) string {
	value, _ := events[1]["value"].(map[string]any)
	id, _ := value["run_id"].(string)
	return id
}

func TestAGUIRunsAnAgentAndRepeatsItsEvents(t *testing.T) {
	t.Parallel()
	s := newService(t, text("Hel", "lo"))
	body := aguiBody("t", "r", saidHi, "")
	first := s.do("ann POST /agents/a/agui", body)
	events := first.aguiEvents(t)
	if len(events) != 7 || events[0]["threadId"] != "t" || events[0]["runId"] != "r" || aguiRun(events) == "r" {
		t.Errorf("%v", events)
	}
	s.do("ann GET /agents/a/runs/"+aguiRun(events)+"?session_id=t", "").want(t, 200, `"content":"Hello"`)
	again := s.do("ann POST /agents/a/agui", body)
	if again.Body.String() != first.Body.String() || again.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("%v\n%s\nwant\n%s", again.Header(), again.Body, first.Body)
	}
	s.do("ann POST /agents/a/agui", aguiBody("t", "r", `{"role":"user","content":"else"}`, "")).
		want(t, 409, "runId: the thread has another run of this id")
	s.do("ann POST /agents/a/agui", aguiBody("t2", "r", saidHi, "")).want(t, 200, "RUN_FINISHED")
	if n := s.model.count(); n != 2 {
		t.Errorf("%d calls of the model, want 2", n)
	}
}

func TestPagesNeedNoContentTypeAndMessages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("ann POST /agents/a/agui", aguiBody("t", "r", saidHi, ""), "Content-Type", "").want(t, 200, "RUN_FINISHED")
	s.do("ann POST /agents/a/ai-sdk", `{"id":"u","messages":[{"id":"1","role":"user",
		"parts":[{"type":"text","text":"Hi"}]}]}`, "Content-Type", "text/plain").want(t, 200, `"type":"finish"`)
	s.expect(t, map[string]exchange{
		"none": {"ann POST /agents/a/agui", `{"threadId":"t","runId":"r"}`, 422,
			`{"type":"missing","loc":["body","messages"],"msg":"Field required"`},
		"null": {"ann POST /agents/a/agui", `{"threadId":"t","runId":"r","messages":null}`, 422,
			`{"type":"missing","loc":["body","messages"],"msg":"Field required"`},
		"no list": {"ann POST /agents/a/agui", `{"threadId":"t","runId":"r","messages":{}}`, 400, "messages: is no list"},
		"no JSON": {"ann POST /agents/a/agui", "hello", 422, "JSON decode error"},
	})
}

func TestAnEmptyIdempotencyKeyIsRefusedByEveryRouteThatRunsAnAgent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for request, body := range map[string]string{
		"/agents/a/runs": "message=hi",
		"/agents/a/runs/" + missing + "/continue": "session_id=s&tools=[]",
		"/agents/a/agui":       aguiBody("t", "r", saidHi, ""),
		"/agents/a/ai-sdk":     `{"id":"u","messages":[]}`,
		"/v1/chat/completions": `{"model":"a","messages":[{"role":"user","content":"hi"}]}`,
		"/v1/responses":        `{"model":"a","input":"hi"}`,
	} {
		status := 422
		if strings.HasPrefix(request, "/v1") {
			status = 400
		}
		s.do("ann POST "+request, body, "Idempotency-Key", "").want(t, status, "Idempotency-Key",
			"String should have at least 1 character")
	}
	if n := s.model.count(); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

func TestAGUIRepeatsByAKeyWhateverTheRunID(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.do("ann POST /agents/a/agui", aguiBody("t", "r", saidHi, ""), "Idempotency-Key", "k").aguiEvents(t)
	again := s.do("ann POST /agents/a/agui", aguiBody("t", "r2", saidHi, ""), "Idempotency-Key", "k").aguiEvents(t)
	if aguiRun(first) != aguiRun(again) || again[0]["runId"] != "r2" {
		t.Errorf("%v\n%v", first, again)
	}
}

func TestAGUIPausesAndResumes(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("It is open"))
	paused := s.do("ann POST /agents/a/agui", aguiBody("t", "r1", saidHi, "")).aguiEvents(t)
	outcome, _ := paused[len(paused)-1]["outcome"].(map[string]any)
	list, _ := outcome["interrupts"].([]any)
	if len(list) != 1 {
		t.Fatalf("%v", paused)
	}
	asked, _ := list[0].(map[string]any)
	resume := func(thread, run, payload string) string {
		return aguiBody(thread, run, saidHi, fmt.Sprintf(`,"state":{"a":1},"resume":[{"interruptId":%q,"status":"resolved",`+
			`"payload":%s}]`, asked["id"], payload))
	}
	approve := `{"approved":true}`
	s.do("bob POST /agents/a/agui", resume("t", "r2", approve)).want(t, 404, "Run not found")
	s.do("ann POST /agents/b/agui", resume("t", "r2", approve)).want(t, 404, "Run not found")
	s.do("ann POST /agents/a/agui", resume("t2", "r2", approve)).want(t, 404, "Run not found")
	first := s.do("ann POST /agents/a/agui", resume("t", "r2", approve))
	first.want(t, 200, `"runId":"r2"`, `"type":"TOOL_CALL_RESULT"`, `"content":"opened"`, `"delta":"It is open"`,
		`"outcome":{"type":"success"}`)
	if strings.Contains(first.Body.String(), "TOOL_CALL_START") {
		t.Errorf("the call is shown a second time: %s", first.Body)
	}
	if again := s.do("ann POST /agents/a/agui", resume("t", "r2", approve)); again.Body.String() != first.Body.String() {
		t.Errorf("%s\nwant\n%s", again.Body, first.Body)
	}
	s.do("ann POST /agents/a/agui", resume("t", "r3", approve)).want(t, 409, "run is completed")
	// The first request has still the events that it had: those up to the pause.
	again := s.do("ann POST /agents/a/agui", aguiBody("t", "r1", saidHi, "")).aguiEvents(t)
	if len(again) != len(paused) || aguiRun(again) != aguiRun(paused) {
		t.Errorf("%v\nwant\n%v", again, paused)
	}
}

func TestAGUIRejectsWhatItCannotHonor(t *testing.T) {
	t.Parallel()
	s := newService(t)
	long := strings.Repeat("x", 1<<20+1)
	s.expect(t, map[string]exchange{
		"tools": {"ann POST /agents/a/agui", `{"threadId":"t","runId":"r","messages":[` + saidHi + `],` +
			`"tools":[{"name":"f","description":"","parameters":{}}]}`, 400, "tools: not supported"},
		"a state that is no object": {"ann POST /agents/a/agui", aguiBody("t", "r", saidHi, `,"state":[1]`), 400,
			"state: is no object"},
		"no message": {"ann POST /agents/a/agui", aguiBody("t", "r", "", ""), 400,
			"messages: has no text of the user after the last message of the assistant"},
		"no thread":       {"ann POST /agents/a/agui", `{"runId":"r","messages":[]}`, 422, `"loc":["body","threadId"]`},
		"an empty run id": {"ann POST /agents/a/agui", aguiBody("t", "", saidHi, ""), 422, `"loc":["body","runId"]`},
		"a thread with /": {"ann POST /agents/a/agui", aguiBody("a/b", "r", saidHi, ""), 422, `"loc":["body","threadId"]`},
		"no agent":        {"ann POST /agents/zzz/agui", aguiBody("t", "r", saidHi, ""), 404, "Agent not found"},
		"too long": {"ann POST /agents/a/agui", aguiBody("t", "r", `{"role":"user","content":"`+long+`"}`, ""), 422,
			"messages: "},
		"a long history": {"ann POST /agents/a/agui", aguiBody("t", "r", `{"role":"user","content":"`+long+
			`"},{"role":"assistant","content":"a"},`+saidHi, ""), 422, "The conversation before the message"},
		"a binary document": {"ann POST /agents/a/agui", aguiBody("t", "r", `{"role":"user","content":[`+
			`{"type":"document","source":{"type":"data","value":"AAA=","mimeType":"application/pdf"}}]}`, ""), 400,
			"Unsupported file type"},
	})
	if n := s.model.count(); n != 0 {
		t.Errorf("%d calls of the model", n)
	}
}

func TestAGUIMergesStateAndReadsContext(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("ann POST /agents/a/agui", `{"threadId":"t","runId":"r","messages":[`+saidHi+`],"state":{"lang":"it"},`+
		`"context":[{"description":"page","value":"/orders"}]}`).
		want(t, 200, `{"type":"STATE_SNAPSHOT","snapshot":{"lang":"it"}}`)
	s.do("ann GET /sessions/t", "").want(t, 200, `"lang":`)
	s.do("ann GET /sessions/t/runs", "").want(t, 200, "page\\n/orders")
}

func TestTheSessionOfATokenReplacesTheThread(t *testing.T) {
	t.Parallel()
	s := newService(t)
	events := s.do("bound POST /agents/a/agui", aguiBody("other", "r", saidHi, "")).aguiEvents(t)
	if events[0]["threadId"] != "bound-session" {
		t.Errorf("%v", events[0])
	}
	s.do("ann GET /sessions/other", "").want(t, 404)
}

// A token for one session repeats no request that has run in another one, also of the same user.
func TestATokenForASessionRepeatsNoRequestOfAnotherSession(t *testing.T) {
	t.Parallel()
	s := newService(t, text("secret"), text("own"))
	asked := aguiBody("t", "r", saidHi, "")
	s.do("ann POST /agents/a/agui", asked).want(t, 200, "secret")
	got := s.do("bound POST /agents/a/agui", asked)
	if got.want(t, 200, `"threadId":"bound-session"`, "own"); strings.Contains(got.Body.String(), "secret") {
		t.Error(got.Body)
	}
	for request, body := range map[string]string{
		" POST /agents/a/agui":       aguiBody("t", "r2", saidHi, ""),
		" POST /v1/chat/completions": `{"model":"a","messages":[{"role":"user","content":"hi"}]}`,
		" POST /v1/responses":        `{"model":"a","input":"hi"}`,
		" POST /agents/a/ai-sdk": `{"id":"t","messages":[` +
			`{"id":"1","role":"user","parts":[{"type":"text","text":"hi"}]}]}`,
	} {
		key := []string{"Idempotency-Key", request}
		s.do("ann"+request, body, key...).want(t, 200)
		s.do("bound"+request, body, key...).want(t, 409)
		s.do("ann"+request, body, key...).want(t, 200)
	}
}

func TestAGUIAnswersOnlyWhatTheRunWaitsFor(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("It is open"))
	paused := s.do("ann POST /agents/a/agui", aguiBody("t", "r1", saidHi, "")).aguiEvents(t)
	outcome, _ := paused[len(paused)-1]["outcome"].(map[string]any)
	list, _ := outcome["interrupts"].([]any)
	interrupt, _ := list[0].(map[string]any)
	right, _ := interrupt["id"].(string)
	answer := `{"interruptId":%q,"status":"resolved","payload":{"approved":true}}`
	for n, row := range []struct{ resume, text string }{
		{fmt.Sprintf(answer, aguiRun(paused)+":call_other"), "does not wait for an answer about call_other"},
		{fmt.Sprintf(answer, right) + "," + fmt.Sprintf(answer, aguiRun(paused)+":call_other"), "does not wait"},
		{fmt.Sprintf(answer, right) + "," + fmt.Sprintf(answer, right), "resume[1].interruptId: was answered before"},
	} {
		s.do("ann POST /agents/a/agui", aguiBody("t", fmt.Sprint("wrong", n), "", `,"resume":[`+row.resume+"]")).
			want(t, 400, row.text)
	}
	s.do("ann POST /agents/a/agui", aguiBody("t", "r2", "", `,"resume":[`+fmt.Sprintf(answer, right)+"]")).
		want(t, 200, "It is open", "RUN_FINISHED")
}
