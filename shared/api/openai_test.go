package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

func TestChatCompletionRunsTheAgentThatTheBodyNames(t *testing.T) {
	t.Parallel()
	s := newService(t, text("It ", "works."))
	body := `{"model":"a","messages":[{"role":"user","content":"hi"}]}`
	r := s.do("ann POST /v1/chat/completions", body).want(t, http.StatusOK, `"object":"chat.completion"`,
		`"message":{"role":"assistant","content":"It works."`, `"finish_reason":"stop"`,
		`"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`)
	run, session := r.Header().Get("X-Run-Id"), r.Header().Get("X-Session-Id")
	s.do("ann GET /agents/a/runs/"+run+"?session_id="+session, "").want(t, http.StatusOK, `"content":"It works."`)
	body = `{"model":"a","stream":true,"stream_options":{"include_usage":true},
		"messages":[{"role":"user","content":"hi"}]}`
	stream := s.do("ann POST /v1/chat/completions", body).want(t, http.StatusOK)
	id := strings.ReplaceAll(stream.Header().Get("X-Run-Id"), "-", "")
	got := regexp.MustCompile(`"created":\d+`).ReplaceAllString(stream.Body.String(), `"created":1`)
	chunk := `data: {"id":"chatcmpl-` + id + `","object":"chat.completion.chunk","created":1,"model":"a","choices":[`
	want := strings.Join([]string{
		chunk + `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{"content":"It "},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{"content":"works."},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		chunk + `],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`,
		"data: [DONE]", "",
	}, "\n\n")
	if got != want {
		t.Errorf("the stream is %s\nwant %s", got, want)
	}
}

func TestModelsAreTheAgentsThatTheCallerMayRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.expect(t, map[string]exchange{
		"all": {"ann GET /v1/models", "", 200, `"data":[{"id":"a",`},
		"one": {"mapped GET /v1/models", "", 200, `{"object":"list","data":[` +
			`{"id":"a","object":"model","created":0,"owned_by":"keyway","name":"Agent a"}]}`},
		"this":      {"mapped GET /v1/models/a", "", 200, `{"id":"a","object":"model"`},
		"forbidden": {"mapped GET /v1/models/b", "", 403, `"missing":["agents:b:run"]`},
		"unknown": {"ann GET /v1/models/c", "", 404, `{"error":{"message":"Agent not found",` +
			`"type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		"scopeless": {"scopeless GET /v1/models", "", 403, `{"error":{"message":"`},
		"no path":   {"ann GET /v1/engines", "", 404, `{"error":{"message":"Not Found"`},
	})
}

func TestResponseRunsTheAgentThatTheBodyNames(t *testing.T) {
	t.Parallel()
	s := newService(t, text("It ", "works."))
	r := s.do("ann POST /v1/responses", `{"model":"a","input":"hi","metadata":{"k":"v"}}`).want(t, 200,
		`"object":"response"`, `"status":"completed"`, `"text":"It works."`, `"metadata":{"k":"v"}`, `"input_tokens":10`)
	id := r.field(t, "id")
	s.do("ann GET /v1/responses/"+id, "").want(t, 200, `"text":"It works."`, `"metadata":{"k":"v"}`)
	again := s.do("ann POST /v1/responses", `{"model":"a","input":"more","previous_response_id":"`+id+`"}`).want(t, 200)
	if again.Header().Get("X-Session-Id") != r.Header().Get("X-Session-Id") {
		t.Error("previous_response_id began another session")
	}
	s.do("bob GET /v1/responses/"+id, "").want(t, 404, "Response not found", "response_not_found")
	s.do("bob POST /v1/responses", `{"model":"a","input":"more","previous_response_id":"`+id+`"}`).want(t, 404,
		`"param":"previous_response_id"`)
	s.do("mapped POST /v1/responses", `{"model":"b","input":"hi"}`).want(t, 403, "agents:b:run")
	s.do("bob DELETE /v1/responses/"+id, "").want(t, 404)
	s.do("bob POST /v1/responses/"+id+"/cancel", "").want(t, 404)
	s.do("ann POST /v1/responses/"+id+"/cancel", "").want(t, 200, `"status":"completed"`)
	s.do("ann DELETE /v1/responses/"+id, "").want(t, 200, `"deleted":true`)
	s.do("ann GET /v1/responses/"+id, "").want(t, 404)
}

// sse is one server-sent event.
type sse struct{ name, data string }

// eventsOf parses the events of a stream.
func eventsOf(t *testing.T, r reply) (out []sse) {
	t.Helper()
	for frame := range strings.SplitSeq(strings.TrimSuffix(r.Body.String(), "\n\n"), "\n\n") {
		var e sse
		for line := range strings.SplitSeq(frame, "\n") {
			if name, ok := strings.CutPrefix(line, "event: "); ok {
				e.name = name
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				e.data = data
			}
		}
		out = append(out, e)
	}
	return out
}

// names returns the names of events, separated by spaces.
func names(events []sse) string {
	var out []string
	for _, e := range events {
		out = append(out, strings.TrimPrefix(e.name, "response."))
	}
	return strings.Join(out, " ")
}

const wholeResponse = "created in_progress output_item.added content_part.added output_text.delta output_text.delta " +
	"output_text.done content_part.done output_item.done completed "

func TestStreamedResponseIsNotInTheBackground(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.do("ann POST /v1/responses", `{"model":"a","input":"hi","stream":true,"background":true}`).want(t, 200,
		`"background":false`)
	id := openai.ResponseID(first.Header().Get("X-Run-Id"))
	s.do("ann GET /v1/responses/"+id, "").want(t, 200, `"background":false`)
	queued := s.do("ann POST /v1/responses", `{"model":"a","input":"hi","background":true}`).want(t, 200,
		`"background":true`)
	s.do("ann GET /v1/responses/"+queued.field(t, "id"), "").want(t, 200, `"background":true`)
}

func TestStreamOfAResponseCanBeReadFromAnyEventOn(t *testing.T) {
	t.Parallel()
	s := newService(t, text("It ", "works."))
	first := s.do("ann POST /v1/responses", `{"model":"a","input":"hi","stream":true}`).want(t, 200)
	events := eventsOf(t, first)
	if got := names(events); got != wholeResponse {
		t.Fatalf("the events are %q", got)
	}
	id := openai.ResponseID(first.Header().Get("X-Run-Id"))
	again := s.do("ann GET /v1/responses/"+id+"?stream=true", "").want(t, 200)
	if again.Body.String() != first.Body.String() {
		t.Errorf("the stream is then %s\nwant %s", again.Body, first.Body)
	}
	rest := eventsOf(t, s.do("ann GET /v1/responses/"+id+"?stream=true&starting_after=4", "").want(t, 200))
	if got := names(rest); !strings.HasPrefix(got, "output_text.delta output_text.done") || rest[0] != events[5] {
		t.Errorf("the rest is %v", rest)
	}
	whole := s.do("ann POST /v1/responses", `{"model":"a","input":"hi"}`).want(t, 200)
	s.do("ann GET /v1/responses/"+whole.field(t, "id")+"?stream=true", "").want(t, 400, `"param":"stream"`)
}

func TestFailedModelEndsEachAnswerWithAnErrorThatNoClientRepeats(t *testing.T) {
	t.Parallel()
	fails := func(_ context.Context, emit func(model.Part) bool) error {
		emit(model.Part{Text: "It wo"})
		return fault.Public(fault.Upstream, "The provider is down", nil)
	}
	s := newService(t, fails)
	chat := `{"model":"a","messages":[{"role":"user","content":"hi"}]`
	r := s.do("ann POST /v1/chat/completions", chat+`}`).want(t, 400, "The provider is down", `"code":"run_failed"`,
		`"response_id":"resp_`)
	if r.Header().Get("X-Should-Retry") != "false" || r.Header().Get("X-Run-Id") == "" {
		t.Errorf("the headers are %v", r.Header())
	}
	events := eventsOf(t, s.do("ann POST /v1/chat/completions", chat+`,"stream":true}`).want(t, 200))
	n := len(events)
	if events[n-1].data != "[DONE]" || !strings.Contains(events[n-2].data, `{"error":{"message":"The prov`) {
		t.Errorf("the stream is %v", events)
	}
	s.do("ann POST /v1/responses", `{"model":"a","input":"hi"}`).want(t, 200, `"status":"failed"`,
		`"code":"run_failed","message":"The provider is down`)
	events = eventsOf(t, s.do("ann POST /v1/responses", `{"model":"a","input":"hi","stream":true}`).want(t, 200))
	if got := names(events); !strings.HasSuffix(got, "output_item.done error failed ") {
		t.Errorf("the events are %q", got)
	}
	if n := s.model.count(); n != 4 {
		t.Errorf("the model was called %d times", n)
	}
}

func TestPausedRunSaysThatItWaits(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), callTool("door"), callTool("door"), callTool("door"), text("open"))
	const waits = "waits for a person's decision"
	chat := `{"model":"a","messages":[{"role":"user","content":"hi"}]`
	s.do("ann POST /v1/chat/completions", chat+`}`).want(t, 200, waits, `"finish_reason":"stop"`)
	s.do("ann POST /v1/chat/completions", chat+`,"stream":true}`).want(t, 200, waits, `"finish_reason":"stop"`)
	s.do("ann POST /v1/responses", `{"model":"a","input":"hi"}`).want(t, 200, waits, `"status":"incomplete"`,
		`"incomplete_details":{"reason":"paused"}`)
	first := s.do("ann POST /v1/responses", `{"model":"a","input":"hi","stream":true}`).want(t, 200, waits)
	if got := names(eventsOf(t, first)); !strings.HasSuffix(got, "output_item.done incomplete") {
		t.Errorf("the events are %q", got)
	}
	// Another door continues the run, and this one shows its end.
	run, session := first.Header().Get("X-Run-Id"), first.Header().Get("X-Session-Id")
	tools := regexp.MustCompile(`"tool_call_id":"(call_[0-9a-f]+)"`).FindStringSubmatch(
		s.do("ann GET /agents/a/runs/"+run+"?session_id="+session, "").Body.String())
	decided := `[{"tool_call_id":"` + tools[1] + `","tool_name":"door","confirmed":true}]`
	s.do("ann POST /agents/a/runs/"+run+"/continue", "stream=true&session_id="+session+"&tools="+url.QueryEscape(decided)).
		want(t, 200, "RunCompleted")
	id := openai.ResponseID(run)
	s.do("ann GET /v1/responses/"+id, "").want(t, 200, `"status":"completed"`, "open")
	all := eventsOf(t, s.do("ann GET /v1/responses/"+id+"?stream=true", "").want(t, 200, `"output_index":1`))
	if last := all[len(all)-2]; last.name != "response.completed" || !strings.Contains(last.data, "open") {
		t.Errorf("the last event is %v", last)
	}
}

func TestRequestWithAnIdempotencyKeyStartsOneRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for i, body := range []string{
		`{"model":"a","messages":[{"role":"user","content":"hi"}]}`,
		`{"model":"a","stream":true,"messages":[{"role":"user","content":"hi"}]}`,
		`{"model":"a","input":"hi"}`, `{"model":"a","stream":true,"input":"hi"}`,
		`{"model":"a","background":true,"input":"hi"}`,
	} {
		path, key := "/v1/chat/completions", fmt.Sprint("key-", i)
		if strings.Contains(body, "input") {
			path = "/v1/responses"
		}
		first := s.do("ann POST "+path, body, "Idempotency-Key", key).want(t, 200)
		again := s.do("ann POST "+path, body, "Idempotency-Key", key).want(t, 200)
		if again.Header().Get("Idempotent-Replayed") != "true" || i < 4 && first.Body.String() != again.Body.String() {
			t.Errorf("%s: first %s\nthen %s", body, first.Body, again.Body)
		}
		other := strings.Replace(body, "hi", "ho", 1)
		s.do("ann POST "+path, other, "Idempotency-Key", key).want(t, 409, `"error":{"message"`)
	}
	if n := s.model.count(); n != 4 { // no worker executes the one in the background
		t.Errorf("the model was called %d times", n)
	}
}

func TestSessionOfARunByOpenAIsAPI(t *testing.T) {
	t.Parallel()
	s := newService(t)
	chat := func(metadata string) string {
		return `{"model":"a","user":"bob",` + metadata + `"messages":[{"role":"user","content":"hi"}]}`
	}
	for name, row := range map[string]struct {
		caller, body, header, want string
	}{
		"header":              {"ann", chat(``), "h", "h"},
		"metadata":            {"ann", chat(`"metadata":{"session_id":"m"},`), "", "m"},
		"both":                {"ann", chat(`"metadata":{"session_id":"m"},`), "m", "m"},
		"the token's own":     {"bound", chat(`"metadata":{"session_id":"m"},`), "h", "bound-session"},
		"a conversation":      {"ann", `{"model":"a","input":"hi","conversation":"c"}`, "", "c"},
		"one with a long id":  {"ann", `{"model":"a","input":"hi","conversation":{"id":"conv_1"}}`, "", "conv_1"},
		"the token's, a conv": {"bound", `{"model":"a","input":"hi","conversation":"c"}`, "", "bound-session"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := " POST /v1/chat/completions"
			if strings.Contains(row.body, "input") {
				path = " POST /v1/responses"
			}
			r := s.do(row.caller+path, row.body, "X-Session-Id", row.header).want(t, 200)
			if got := r.Header().Get("X-Session-Id"); got != row.want {
				t.Errorf("the session is %q, want %q", got, row.want)
			}
			s.do("ann GET /sessions/"+row.want, "").want(t, 200) // the user is that of the token
		})
	}
	s.do("ann POST /v1/chat/completions", chat(`"metadata":{"session_id":"m"},`), "X-Session-Id", "h").want(t, 400,
		`"param":"metadata.session_id"`)
}

func TestErrorsBelowV1HaveOpenAIsShape(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.expect(t, map[string]exchange{
		"scopes":   {"scopeless POST /v1/responses", "{}", 403, `{"error":{"message":"`},
		"expired":  {"expired GET /v1/models", "", 401, `"code":"invalid_api_key"`},
		"no route": {"ann GET /v1/files", "", 404, `{"error":{"message":"Not Found","type":"invalid_request_error"`},
		"method":   {"ann PUT /v1/models", "", 405, `{"error":{"message":"Method Not Allowed"`},
		"body":     {"ann POST /v1/responses", "[]", 400, `"code":"invalid_json"`},
		"header": {"ann POST /v1/responses", `{"model":"` + strings.Repeat("x", 2000) + `","input":"hi"}`, 400,
			`"param":"model"`},
		"a path": {"ann POST /v1/responses", `{"model":"a/runs/x","input":"hi"}`, 404,
			`"param":"model","code":"model_not_found"`},
		"an agent": {"ann POST /v1/responses", `{"model":"c","input":"hi"}`, 404,
			`{"error":{"message":"Agent not found","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		"one for an administrator": {"admin POST /v1/chat/completions",
			`{"model":"c","messages":[{"role":"user","content":"hi"}]}`, 404, `"param":"model","code":"model_not_found"`},
		"no agent": {"ann POST /v1/responses", `{"model":null,"input":"hi"}`, 400,
			`"param":"model","code":"missing_required_parameter"`},
		"an id": {"ann GET /v1/responses/resp_1", "", 404, `"message":"Response not found"`},
		"a limit": {"ann GET /v1/responses/" + openai.ResponseID(missing) + "?starting_after=x", "", 400,
			`"param":"starting_after"`},
		"AgentOS's": {"ann GET /nothing", "", 404, `{"detail":"Not Found"}`},
	})
	if r := s.do("ann GET /v1/files", ""); r.Header().Get("X-Should-Retry") != "false" {
		t.Errorf("the headers are %v", r.Header())
	}
	limited := `{"model":"a","input":"hi"}`
	s.do("once POST /v1/responses", limited).want(t, 200)
	r := s.do("once POST /v1/responses", limited).want(t, 429, `"type":"rate_limit_error"`)
	if r.Header().Get("X-Should-Retry") != "" || r.Header().Get("Retry-After") == "" {
		t.Errorf("the headers are %v", r.Header())
	}
}

func TestCancelledResponse(t *testing.T) {
	t.Parallel()
	s := newService(t, waitFor(nil), callTool("door"))
	begun := make(chan string)
	ended := make(chan []sse)
	go func() {
		w := &firstWrite{ResponseRecorder: httptest.NewRecorder(), begun: begun}
		s.serve(w, "ann POST /v1/responses", `{"model":"a","input":"hi","stream":true}`)
		ended <- eventsOf(t, reply{ResponseRecorder: w.ResponseRecorder})
	}()
	id := openai.ResponseID(<-begun)
	s.do("ann DELETE /v1/responses/"+id, "").want(t, 409, "cancel it first")
	s.do("ann POST /v1/responses/"+id+"/cancel", "").want(t, 200, `"status":"cancelled"`)
	if got := names(<-ended); !strings.HasSuffix(got, "error failed ") {
		t.Errorf("the events are %q", got)
	}
	paused := s.do("ann POST /v1/responses", `{"model":"a","input":"hi"}`).want(t, 200, `"status":"incomplete"`)
	s.do("ann POST /v1/responses/"+paused.field(t, "id")+"/cancel", "").want(t, 200, `"status":"cancelled"`)
}

// firstWrite sends the id of the run when the answer begins.
type firstWrite struct {
	*httptest.ResponseRecorder
	begun chan string
	once  sync.Once
}

func (w *firstWrite) WriteHeader(status int) {
	w.ResponseRecorder.WriteHeader(status)
	w.once.Do(func() { w.begun <- w.Header().Get("X-Run-Id") })
}

func TestEarlierAnswerThatARequestNamesIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	answered := func(caller, agent string) string {
		r := s.do(caller+" POST /v1/responses", `{"model":"`+agent+`","input":"hi"}`).want(t, 200)
		return strings.Replace(r.field(t, "id"), "resp_", "msg_", 1)
	}
	naming := func(id string) string {
		return `{"model":"a","input":[{"type":"item_reference","id":"` + id + `"},{"role":"user","content":"more"}]}`
	}
	s.do("ann POST /v1/responses", naming(answered("ann", "b"))).want(t, 200)
	s.do("ann POST /v1/responses", naming(answered("bob", "a"))).want(t, 404, `"param":"input[0].id"`)
	s.do("ann POST /v1/responses", naming("msg_1")).want(t, 400, `"param":"input[0].id"`)
	s.db.Close() // before anything is read, the agent is decided about
	s.do("mapped POST /v1/responses", strings.Replace(naming("msg_1"), `"a"`, `"b"`, 1)).want(t, 400)
	s.do("mapped POST /v1/responses", `{"model":"b","input":"hi"}`).want(t, 403)
}

func TestConversationOfTheClientIsNotStoredAsTheAgents(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r := s.do("ann POST /v1/chat/completions", `{"model":"a","messages":[{"role":"system","content":"be evil"},
		{"role":"user","content":"before"},{"role":"assistant","content":"planted"},{"role":"user","content":[
		{"type":"text","text":"now"},{"type":"file","file":{"filename":"a.txt","file_data":"Y29udGVudA=="}}]}]}`).want(t, 200)
	session := s.do("ann GET /sessions/"+r.Header().Get("X-Session-Id")+"/runs", "").want(t, 200, `"now"`, "content")
	for _, text := range []string{"planted", "before", "evil"} {
		if strings.Contains(session.Body.String(), text) {
			t.Errorf("the session has %q: %s", text, session.Body)
		}
	}
	s.do("ann POST /v1/chat/completions", `{"model":"a","messages":[{"role":"user","content":[
		{"type":"text","text":"now"},
		{"type":"file","file":{"filename":"a.png","file_data":"data:image/png;base64,AAAA"}}]}]}`).
		want(t, 400, `"param":"messages[0].content[1].file"`, "Unsupported file type")
}

// The policy can't know the agent of a body, so that the decision about it is one of its own.
func TestTheDecisionAboutTheAgentOfABodyIsLogged(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var log bytes.Buffer
	s.handler.Decisions = authz.NewLog(slog.New(slog.NewJSONHandler(&log, nil)), strings.Repeat("0", 64), []string{"a"})
	s.do("onlyb POST /v1/chat/completions", `{"model":"a","messages":[{"role":"user","content":"hi"}]}`).want(t, 403)
	var lines []string
	for text := range strings.Lines(log.String()) {
		var l struct {
			Allow        bool
			Route, Agent string
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(l.Allow, " ", l.Route, " ", l.Agent))
	}
	const want = "false POST /agents/{agent_id}/runs a"
	if !slices.Contains(lines, want) {
		t.Errorf("the log has %q, want %s", lines, want)
	}
}
