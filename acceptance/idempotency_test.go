package acceptance

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// runWithKey starts a run with an Idempotency-Key. A field file:NAME is sent as a file.
func (r *server) runWithKey(key, sub, agent string, fields ...string) reply {
	r.t.Helper()
	body, kind := upload(r.t, fields...)
	return r.call(sub, "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind, "Idempotency-Key", key)
}

func upload(t *testing.T, fields ...string) (io.Reader, string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(fields); i += 2 {
		h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + fields[i] + `"`}}
		if name, ok := strings.CutPrefix(fields[i], "file:"); ok {
			h = textproto.MIMEHeader{"Content-Disposition": {`form-data; name="files"; filename="` + name + `"`},
				"Content-Type": {"text/plain"}}
		}
		part, err := w.CreatePart(h)
		if err == nil {
			_, err = io.WriteString(part, fields[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, w.FormDataContentType()
}

// uncommented removes the comments of an event stream.
func uncommented(stream string) string {
	var out []string
	for frame := range strings.SplitAfterSeq(stream, "\n\n") {
		if !strings.HasPrefix(frame, ":") {
			out = append(out, frame)
		}
	}
	return strings.Join(out, "")
}

func (r reply) isReplay(t *testing.T, what string, first reply) {
	t.Helper()
	if r.status != first.status || uncommented(r.body) != uncommented(first.body) ||
		r.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s: %d %s\n%v, want the first answer: %d %s", what, r.status, r.body, r.header, first.status, first.body)
	}
	if first.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("%s: the first answer has the header Idempotent-Replayed", what)
	}
}

func TestRepeatedRequestReturnsTheFirstRun(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	whole := []string{"message", "hello", "stream", "false", "session_state", `{"n": 1}`, "metadata",
		`{"a": [1, "ä"]}`, "file:a.txt", "text"}
	first := r.runWithKey("k-1", "ann", "assistant", whole...)
	first.want(t, "the first", 200, `"content":"you said hello`)
	r.runWithKey("k-1", "ann", "assistant", whole...).isReplay(t, "the whole answer", first)

	streamed := []string{"message", "streamed"}
	first = r.runWithKey("k-2", "ann", "assistant", streamed...)
	first.want(t, "the first", 200, "event: RunCompleted")
	r.runWithKey("k-2", "ann", "assistant", streamed...).isReplay(t, "the stream", first)
	r.runWithKey("k-2", "ann", "assistant", "message", "streamed", "stream", "true").isReplay(t,
		"what is the default anyway", first)

	background := []string{"message", "later", "session_id", "s", "stream", "false", "background", "true"}
	first = r.runWithKey("k-3", "ann", "assistant", background...)
	var accepted struct{ RunID, SessionID, Status string }
	decode := func(text string) {
		text = strings.NewReplacer("run_id", "RunID", "session_id", "SessionID").Replace(text)
		if err := json.Unmarshal([]byte(text), &accepted); err != nil {
			t.Fatal(err)
		}
	}
	decode(first.body)
	id := accepted.RunID
	r.awaitStatus("ann", id, "COMPLETED")
	again := r.runWithKey("k-3", "ann", "assistant", background...)
	again.want(t, "in the background", 202, `"status":"COMPLETED"`)
	if decode(again.body); accepted.RunID != id {
		t.Errorf("the repeated request started another run: %s", again.body)
	}
	if n := len(r.model.Requests()); n != 3 {
		t.Errorf("the model was asked %d times", n)
	}
	if got := r.get("ann", "/sessions"); strings.Count(got.body, `"session_id"`) != 3 {
		t.Errorf("sessions: %s", got.body)
	}
}

func TestIdempotencyKeyBelongsToOwnerAgentAndRequest(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	base := []string{"message", "hello", "stream", "false", "session_id", "s", "session_state", `{"n": 1}`, "metadata",
		`{"a": 1}`, "file:a.txt", "text"}
	first := r.runWithKey("k", "ann", "assistant", base...)
	first.want(t, "the first", 200)
	before := r.get("ann", "/sessions/s").body
	for what, other := range map[string][]string{
		"another message":        {"message", "hello!"},
		"a stream":               {"stream", "true"},
		"in the background":      {"background", "true"},
		"another session":        {"session_id", "s2"},
		"another state":          {"session_state", `{"n": 2}`},
		"other metadata":         {"metadata", `{"a": 2}`},
		"another version":        {"version", "2"},
		"another user":           {"user_id", "bob"},
		"another file":           {"file:a.txt", "text!"},
		"a file of another name": {"file:b.txt", "text"},
		"one file more":          {"file:c.txt", "more"},
	} {
		fields := append([]string{}, base...)
		replaced := false
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == other[0] || what == "a file of another name" && fields[i] == "file:a.txt" {
				copy(fields[i:], other)
				replaced = true
			}
		}
		if !replaced {
			fields = append(fields, other...)
		}
		r.runWithKey("k", "ann", "assistant", fields...).want(t, what, 409,
			"Idempotency-Key was already used for another request to this agent; send the same request, or another key")
	}
	if after := r.get("ann", "/sessions/s").body; after != before {
		t.Errorf("a rejected request changed the session: %s, was %s", after, before)
	}
	if n := len(r.model.Requests()); n != 1 {
		t.Errorf("the model was asked %d times", n)
	}

	for what, other := range map[string]reply{
		"another user":  r.runWithKey("k", "admin", "assistant", base...),
		"another agent": r.runWithKey("k", "admin", "finance-agent", base...),
		"another key":   r.runWithKey("K", "ann", "assistant", base...),
		"no key":        r.runWithKey("", "ann", "assistant", base...),
	} {
		if other.status != 200 || other.header.Get("Idempotent-Replayed") != "" || other.body == first.body {
			t.Errorf("%s: %d %s", what, other.status, other.body)
		}
	}
	r.runWithKey(strings.Repeat("k", 513), "ann", "assistant", base...).
		want(t, "a long key", 422, `"loc":["header","Idempotency-Key"]`, "at most 512 bytes")
	r.runWithKey(strings.Repeat("k", 512), "ann", "assistant", base...).want(t, "the longest key", 200)
	r.runWithKey("\xff", "ann", "assistant", base...).want(t, "invalid UTF-8", 422, `"loc":["header","Idempotency-Key"]`)

	// Deleting the run deletes its key.
	r.call("ann", "DELETE", "/sessions/s", nil).want(t, "delete", 204)
	if again := r.runWithKey("k", "ann", "assistant", base...); again.status != 200 ||
		again.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("after its run was deleted: %d %s", again.status, again.body)
	}
}

func TestConcurrentEqualRequestsStartOneRun(t *testing.T) {
	t.Parallel()
	for what, fields := range map[string][]string{"whole": {"message", "hi", "stream", "false"},
		"streamed": {"message", "hi"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			asked, release := make(chan struct{}, 100), make(chan struct{})
			model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
				asked <- struct{}{}
				return modeltest.Text("first").Wait(release).Text(" second")
			})
			r := start(t, "quickstart", model)
			const n = 12
			replies := make([]reply, n)
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					replies[i] = r.runWithKey("k", "ann", "assistant", append([]string{"session_id", "s"}, fields...)...)
				})
			}
			<-asked
			close(release)
			all.Wait()
			started := 0
			for i, got := range replies {
				if got.header.Get("Idempotent-Replayed") == "" {
					started++
				}
				if got.status != 200 || uncommented(got.body) != uncommented(replies[0].body) ||
					!strings.Contains(got.body, " second") {
					t.Errorf("answer %d: %d %s, want %s", i, got.status, got.body, replies[0].body)
				}
			}
			if n := len(model.Requests()); started != 1 || n != 1 {
				t.Errorf("%d runs were started, the model was asked %d times", started, n)
			}
		})
	}
}

func TestFailedRunIsReturnedAgainForItsKey(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServer(t, modeltest.Text("half").Truncate()))
	first := r.runWithKey("k", "ann", "assistant", "message", "hi", "stream", "false")
	first.want(t, "the first", 200, `"status":"ERROR"`)
	r.runWithKey("k", "ann", "assistant", "message", "hi", "stream", "false").isReplay(t, "the failed run", first)
}

func TestRepeatedContinuationContinuesOnce(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, func(q modeltest.Request) modeltest.Script {
		if lastMessage(q) == "pay" {
			return modeltest.ToolCall("pay", `{"for":"tea"}`)
		}
		return modeltest.Text("paid")
	})
	r := startWith(t, withTools, writeConfig(t, "user_isolation: true"), model)
	for stream, end := range map[string]string{"true": "event: RunCompleted", "false": `"status":"COMPLETED"`} {
		paused := r.run("ann", "assistant", "message", "pay", "session_id", "s", "stream", "false")
		paused.want(t, "the run", 200, `"status":"PAUSED"`)
		var calls struct {
			Tools []map[string]any `json:"tools"`
		}
		if err := json.Unmarshal([]byte(paused.body), &calls); err != nil || len(calls.Tools) != 1 {
			t.Fatalf("%v %s", err, paused.body)
		}
		proceed := func(sub, key string, confirmed bool) reply {
			calls.Tools[0]["confirmed"] = confirmed
			tools, err := json.Marshal(calls.Tools)
			if err != nil {
				t.Fatal(err)
			}
			body, kind := form(t, "session_id", "s", "stream", stream, "tools", string(tools))
			return r.call(sub, "POST", "/agents/assistant/runs/"+field(t, paused, "run_id")+"/continue", body,
				"Content-Type", kind, "Idempotency-Key", key)
		}
		before := len(model.Requests())
		first := proceed("ann", "k", true)
		first.want(t, "continue", 200, end, "paid")
		if again := proceed("ann", "k", true); stream == "true" {
			again.isReplay(t, "the continuation", first)
		} else if again.want(t, "again", 200, end, "paid"); again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the header is missing: %v", again.header)
		}
		proceed("ann", "k", false).want(t, "another decision", 409, "Idempotency-Key was already used")
		proceed("ann", "other", true).want(t, "another key", 409, "Cannot continue run")
		proceed("bob", "k", true).want(t, "another user", 404, "Run not found")
		if n := len(model.Requests()) - before; n != 1 {
			t.Errorf("the model was asked %d times", n)
		}
	}
}
