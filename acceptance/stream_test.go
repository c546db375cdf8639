package acceptance

import (
	"bufio"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// members returns the names of the members of a JSON object, in their order.
func members(t *testing.T, object string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(object))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var out []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(out, " ")
}

// The members of AgentOS 3.1.10's events, in the order recorded for a streamed run.
// AgentOS has event_index only in background runs; Keyway always has it, in that place.
const (
	head    = "created_at event agent_id agent_name run_id session_id nested_depth "
	started = head + "model model_provider event_index"
	content = head + "content workflow_agent content_type reasoning_content model_provider_data event_index"
	metered = head +
		"model model_provider input_tokens output_tokens total_tokens time_to_first_token reasoning_tokens " +
		"cache_read_tokens cache_write_tokens event_index"
	final = head + "content content_type model_provider_data session_state event_index metrics"
)

func TestStreamHasAgentOSEventsAndMembersInOrder(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("hello ", "world")))
	got := r.Run("ann", "assistant", "message", "hi", "session_id", "s-1")
	got.Want(t, "run", 200)
	if kind := got.Header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("content type %q", kind)
	}
	list := process.Frames(t, got.Body)
	if process.Names(list) != allEvents {
		t.Fatalf("events %s\nwant   %s", process.Names(list), allEvents)
	}
	var order []string
	for _, m := range regexp.MustCompile(`(?m)^data: (.*)$`).FindAllStringSubmatch(got.Body, -1) {
		order = append(order, members(t, m[1]))
	}
	want := []string{started, started, content, content, content, metered, head + "event_index", final}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	text := ""
	for i, e := range list {
		if e.Data["event"] != e.Name || e.Data["event_index"] != float64(i) || e.Data["session_id"] != "s-1" {
			t.Errorf("event %d: %v", i, e.Data)
		}
		if e.Name == "RunContent" {
			text += e.Data["content"].(string)
		}
	}
	last := list[len(list)-1].Data
	if text != "hello world" || last["content"] != "hello world" ||
		last["metrics"].(map[string]any)["total_tokens"] == nil {
		t.Errorf("the content is %q, the last event %v", text, last)
	}
}

func TestUnstreamedRunHasAgentOSMembersInOrder(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("hello world")))
	got := r.Run("ann", "assistant", "message", "hi", "stream", "false")
	got.Want(t, "run", 200)
	want := "run_id agent_id agent_name session_id user_id content content_type model_provider_data model " +
		"model_provider session_state created_at status metrics messages tools input"
	if diff := cmp.Diff(want, members(t, got.Body)); diff != "" {
		t.Error(diff)
	}
}

// The client receives the first token while the model still waits: nothing on the way
// buffers the answer.
func TestFirstTokenArrivesBeforeTheModelFinishes(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{})
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("first").Wait(seen).Text(" second")))
	body, kind := process.Form(t, "message", "hi")
	resp := r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), `"content":"first"`) {
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	close(seen) // the model continues only now
	rest := ""
	for lines.Scan() {
		rest += lines.Text() + "\n"
	}
	if !strings.Contains(rest, `"content":" second"`) || !strings.Contains(rest, `"content":"first second"`) {
		t.Errorf("after the first token: %s", rest)
	}
}

// Events that arrive together are flushed together. The last of them must not wait for the
// next event.
func TestLastEventOfABurstIsFlushed(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{})
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("a", "b", "c", "the last").Wait(seen).Text("!")))
	body, kind := process.Form(t, "message", "hi")
	resp := r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), `"content":"the last"`) {
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	close(seen)
	for lines.Scan() && !strings.Contains(lines.Text(), `"content":"abcthe last!"`) {
	}
	if lines.Err() != nil || !strings.Contains(lines.Text(), "RunCompleted") {
		t.Errorf("%v: the stream ended with %q", lines.Err(), lines.Text())
	}
}

func TestUnicodeArrivesUnchanged(t *testing.T) {
	t.Parallel()
	const text = "日本 🎉 é\nline2 <b>&amp;</b> \u2028 שלום"
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("日本 🎉", " é\nline2 <b>&amp;</b> \u2028 שלום")))
	list := process.Frames(t, r.Run("ann", "assistant", "message", text, "session_id", "ü ñ").Body)
	if got := list[len(list)-1].Data["content"]; got != text {
		t.Errorf("completed with %q", got)
	}
	if !strings.Contains(r.Get("ann", "/sessions").Body, "<b>&amp;</b>") {
		t.Error("the session's name is not the unchanged message")
	}
	sent := r.Model.Requests()[0].Body["messages"].([]any)
	if got := sent[len(sent)-1].(map[string]any)["content"]; got != text {
		t.Errorf("the model received %q", got)
	}
}

func TestABrokenModelAnswerEndsInRunError(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		script modeltest.Script
		events string
		reason string
	}{
		"the connection drops": {modeltest.Text("cut o").Drop(),
			"RunStarted ModelRequestStarted RunContent RunContent RunError", "Connection error."},
		"the stream just ends": {modeltest.Text("cut o").Truncate(),
			"RunStarted ModelRequestStarted RunContent RunContent RunError", "ended before it was complete"},
		"the model answers 500": {modeltest.Fail(500, "stub failure 500"),
			"RunStarted ModelRequestStarted RunError", "stub failure 500"},
		"the key is refused": {modeltest.Fail(401, "Incorrect API key provided: sk-secret"),
			"RunStarted ModelRequestStarted RunError", "OPENAI_API_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, "quickstart", modeltest.NewServer(t, row.script, row.script))
			got := r.Run("ann", "assistant", "message", "hi", "session_id", "s")
			got.Want(t, "streamed", 200, row.reason)
			list := process.Frames(t, got.Body)
			last := list[len(list)-1].Data
			if process.Names(list) != row.events || last["error_type"] != "model_provider_error" {
				t.Errorf("%s, last %v", process.Names(list), last)
			}
			if strings.Contains(got.Body, "sk-") {
				t.Errorf("the answer contains an API key: %s", got.Body)
			}
			r.Run("ann", "assistant", "message", "hi", "session_id", "s", "stream", "false").
				Want(t, "not streamed", 200, `"status":"ERROR"`, row.reason)
			r.Get("ann", "/sessions/s/runs").Want(t, "stored", 200, `"status":"ERROR"`, row.reason)
			if strings.Contains(r.Get("ann", "/sessions/s/runs").Body, "COMPLETED") {
				t.Error("an incomplete answer is stored as COMPLETED")
			}
		})
	}
}

func TestRunIsStoredBeforeTheModelIsCalled(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		once.Do(func() { close(asked) })
		return modeltest.Script{}.Wait(answer).Text("done")
	})
	r := start(t, "quickstart", model)
	done := make(chan process.Reply)
	go func() { done <- r.Run("ann", "assistant", "message", "hi", "session_id", "s", "stream", "false") }()
	<-asked
	r.Get("ann", "/sessions/s/runs").Want(t, "while the model thinks", 200, `"status":"RUNNING"`, `"run_input":"hi"`)
	close(answer)
	(<-done).Want(t, "then", 200, `"status":"COMPLETED"`)
	r.Get("ann", "/sessions/s/runs").Want(t, "after", 200, `"status":"COMPLETED"`)
}

func TestConcurrentRunsInOneSessionAreAllStored(t *testing.T) {
	t.Parallel()
	const n = 32
	r := start(t, "quickstart", echoModel(t))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			stream, end := "true", "event: RunCompleted"
			if i%2 == 0 {
				stream, end = "false", `"status":"COMPLETED"`
			}
			r.Run("ann", "assistant", "message", "hi", "session_id", "s", "stream", stream).Want(t, "run", 200, end)
		})
	}
	wg.Wait()
	var runs []struct {
		RunID   string `json:"run_id"`
		Status  string
		Metrics struct {
			Total int `json:"total_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(r.Get("ann", "/sessions/s/runs").Body), &runs); err != nil {
		t.Fatal(err)
	}
	ids, total := map[string]bool{}, 0
	for _, run := range runs {
		ids[run.RunID] = run.Status == "COMPLETED"
		total += run.Metrics.Total
	}
	var session struct {
		Total int `json:"total_tokens"`
	}
	if err := json.Unmarshal([]byte(r.Get("ann", "/sessions/s").Body), &session); err != nil {
		t.Fatal(err)
	}
	if len(ids) != n || total == 0 || session.Total != total {
		t.Errorf("%d of %d runs are stored; the session counts %d tokens, its runs %d", len(ids), n, session.Total, total)
	}
}

func TestFailedFinalWriteIsAnErrorForTheCaller(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	conn, err := pgx.Connect(t.Context(), r.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
			AS $$ BEGIN RAISE EXCEPTION 'secret of the database'; END $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON keyway.runs FOR EACH ROW EXECUTE FUNCTION refuse()`); err != nil {
		t.Fatal(err)
	}
	got := r.Run("ann", "assistant", "message", "hi", "stream", "false")
	got.Want(t, "not streamed", 500, `{"detail":`)
	streamed := r.Run("ann", "assistant", "message", "hi")
	list := process.Frames(t, streamed.Body)
	if last := list[len(list)-1]; last.Name != "RunError" || last.Data["error_type"] != "storage_error" ||
		strings.Contains(process.Names(list), "RunCompleted") {
		t.Errorf("streamed: %s", process.Names(list))
	}
	if strings.Contains(got.Body+streamed.Body, "secret of the database") {
		t.Error("an answer contains the database's error text")
	}
}

func TestCancelStopsARunImmediately(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("so far").Wait(hold).Text("never")))
	body, kind := process.Form(t, "message", "hi", "session_id", "s")
	resp := r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	defer resp.Body.Close()
	lines, stream, runID := bufio.NewScanner(resp.Body), "", ""
	for lines.Scan() {
		stream += lines.Text() + "\n"
		if m := regexp.MustCompile(`"run_id":"([^"]+)"`).FindStringSubmatch(lines.Text()); m != nil {
			runID = m[1]
		}
		if strings.Contains(lines.Text(), `"content":"so far"`) {
			r.Call("bob", "POST", "/agents/assistant/runs/"+runID+"/cancel", nil).
				Want(t, "bob cancels her run", 404, "Run not found")
			r.Call("ann", "POST", "/agents/assistant/runs/"+runID+"/cancel", nil).Want(t, "she cancels it", 200, "{}")
		}
	}
	list := process.Frames(t, stream)
	last := list[len(list)-1]
	if last.Name != "RunCancelled" || last.Data["content"] != "so far" ||
		last.Data["reason"] != "Run "+runID+" was cancelled" {
		t.Errorf("%s: %v", process.Names(list), last.Data)
	}
	r.Get("ann", "/agents/assistant/runs/"+runID+"?session_id=s").
		Want(t, "stored", 200, `"status":"CANCELLED","cancellation_stage":"EXECUTING"`, `"content":"so far"`)
	r.Call("ann", "POST", "/agents/assistant/runs/"+runID+"/cancel", nil).Want(t, "again", 200, "{}")
	r.Call("ann", "POST", "/agents/assistant/runs/nope/cancel", nil).Want(t, "an unknown run", 404, "Run not found")
	r.Call("admin", "POST", "/agents/assistant/runs/nope/cancel", nil).
		Want(t, "an unknown run, asked by an administrator", 200, "{}")
	r.Call("admin", "POST", "/agents/nope/runs/nope/cancel", nil).Want(t, "an unknown agent", 404, "Agent not found")
}

func TestDisconnectedClientDoesNotStopTheRun(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("first").Wait(gone).Text(" second")))
	body, kind := process.Form(t, "message", "hi", "session_id", "s")
	resp := r.Open("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind)
	if _, err := io.ReadAtLeast(resp.Body, make([]byte, 1), 1); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	process.Client.CloseIdleConnections()
	close(gone)
	if err := r.Stop(); err != nil { // waits for runs in progress
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), r.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var status, content string
	if err := conn.QueryRow(t.Context(), "SELECT status, content FROM keyway.runs").Scan(&status, &content); err != nil ||
		status != "COMPLETED" || content != "first second" {
		t.Errorf("the run is %s with the content %q, error %v", status, content, err)
	}
}

func TestHistoryReachesTheModel(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for _, message := range []string{"one", "two", "three", "four", "five"} {
		r.Run("ann", "assistant", "message", message, "session_id", "s").Want(t, message, 200, "RunCompleted")
	}
	r.Run("ann", "finance-agent", "message", "x", "session_id", "s").Want(t, "another agent", 403)
	var received []string
	for _, m := range r.Model.Requests()[4].Body["messages"].([]any) {
		if m := m.(map[string]any); m["role"] != "system" {
			received = append(received, m["role"].(string)+": "+m["content"].(string))
		}
	}
	want := []string{"user: two", "assistant: you said two", "user: three", "assistant: you said three", "user: four",
		"assistant: you said four", "user: five"}
	if diff := cmp.Diff(want, received); diff != "" {
		t.Error(diff)
	}
}
