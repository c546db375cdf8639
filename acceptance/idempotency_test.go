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

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// runWithKey starts a run with an Idempotency-Key. A field file:NAME is sent as a file.
func (r *server) runWithKey(key, sub, agent string, fields ...string) process.Reply {
	r.t.Helper()
	body, kind := upload(r.t, fields...)
	return r.Call(sub, "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind, "Idempotency-Key", key)
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
	for line := range strings.Lines(stream) {
		if !strings.HasPrefix(line, ":") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func isReplay(t *testing.T, what string, r, first process.Reply) {
	t.Helper()
	if r.Status != first.Status || uncommented(r.Body) != uncommented(first.Body) ||
		r.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s: %d %s\n%v, want the first answer: %d %s", what, r.Status, r.Body, r.Header, first.Status, first.Body)
	}
	if first.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("%s: the first answer has the header Idempotent-Replayed", what)
	}
}

func TestRepeatedRequestReturnsTheFirstRun(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	whole := []string{"message", "hello", "stream", "false", "session_state", `{"n": 1}`, "metadata",
		`{"a": [1, "ä"]}`, "file:a.txt", "text"}
	first := r.runWithKey("k-1", "ann", "assistant", whole...)
	first.Want(t, "the first", 200, `"content":"you said hello`)
	isReplay(t, "the whole answer", r.runWithKey("k-1", "ann", "assistant", whole...), first)

	streamed := []string{"message", "streamed"}
	first = r.runWithKey("k-2", "ann", "assistant", streamed...)
	first.Want(t, "the first", 200, "event: RunCompleted")
	isReplay(t, "the stream", r.runWithKey("k-2", "ann", "assistant", streamed...), first)
	isReplay(t, "what is the default anyway",
		r.runWithKey("k-2", "ann", "assistant", "message", "streamed", "stream", "true"), first)

	background := []string{"message", "later", "session_id", "s", "stream", "false", "background", "true"}
	first = r.runWithKey("k-3", "ann", "assistant", background...)
	var accepted struct{ RunID, SessionID, Status string }
	decode := func(text string) {
		text = strings.NewReplacer("run_id", "RunID", "session_id", "SessionID").Replace(text)
		if err := json.Unmarshal([]byte(text), &accepted); err != nil {
			t.Fatal(err)
		}
	}
	decode(first.Body)
	id := accepted.RunID
	r.awaitStatus("ann", id, "COMPLETED")
	again := r.runWithKey("k-3", "ann", "assistant", background...)
	again.Want(t, "in the background", 202, `"status":"COMPLETED"`)
	if decode(again.Body); accepted.RunID != id {
		t.Errorf("the repeated request started another run: %s", again.Body)
	}
	if n := len(r.Model.Requests()); n != 3 {
		t.Errorf("the model was asked %d times", n)
	}
	if got := r.Get("ann", "/sessions"); strings.Count(got.Body, `"session_id"`) != 3 {
		t.Errorf("sessions: %s", got.Body)
	}
}

func TestIdempotencyKeyBelongsToOwnerAgentAndRequest(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	base := []string{"message", "hello", "stream", "false", "session_id", "s", "session_state", `{"n": 1}`, "metadata",
		`{"a": 1}`, "file:a.txt", "text"}
	first := r.runWithKey("k", "ann", "assistant", base...)
	first.Want(t, "the first", 200)
	before := r.Get("ann", "/sessions/s").Body
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
		r.runWithKey("k", "ann", "assistant", fields...).Want(t, what, 409,
			"Idempotency-Key was already used for another request to this agent; send the same request, or another key")
	}
	if after := r.Get("ann", "/sessions/s").Body; after != before {
		t.Errorf("a rejected request changed the session: %s, was %s", after, before)
	}
	if n := len(r.Model.Requests()); n != 1 {
		t.Errorf("the model was asked %d times", n)
	}

	unkeyed, kind := upload(t, base...)
	for what, other := range map[string]process.Reply{
		"another user":  r.runWithKey("k", "admin", "assistant", base...),
		"another agent": r.runWithKey("k", "admin", "finance-agent", base...),
		"another key":   r.runWithKey("K", "ann", "assistant", base...),
		"no key":        r.Call("ann", "POST", "/agents/assistant/runs", unkeyed, "Content-Type", kind),
	} {
		if other.Status != 200 || other.Header.Get("Idempotent-Replayed") != "" || other.Body == first.Body {
			t.Errorf("%s: %d %s", what, other.Status, other.Body)
		}
	}
	r.runWithKey("", "ann", "assistant", base...).
		Want(t, "an empty key", 422, `"loc":["header","Idempotency-Key"]`, "at least 1 character")
	r.runWithKey(strings.Repeat("k", 513), "ann", "assistant", base...).
		Want(t, "a long key", 422, `"loc":["header","Idempotency-Key"]`, "at most 512 bytes")
	r.runWithKey(strings.Repeat("k", 512), "ann", "assistant", base...).Want(t, "the longest key", 200)
	r.runWithKey("\xff", "ann", "assistant", base...).Want(t, "invalid UTF-8", 422, `"loc":["header","Idempotency-Key"]`)

	// Deleting the run deletes its key.
	r.Call("ann", "DELETE", "/sessions/s", nil).Want(t, "delete", 204)
	if again := r.runWithKey("k", "ann", "assistant", base...); again.Status != 200 ||
		again.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("after its run was deleted: %d %s", again.Status, again.Body)
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
			replies := make([]process.Reply, n)
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
				if got.Header.Get("Idempotent-Replayed") == "" {
					started++
				}
				if got.Status != 200 || uncommented(got.Body) != uncommented(replies[0].Body) ||
					!strings.Contains(got.Body, " second") {
					t.Errorf("answer %d: %d %s, want %s", i, got.Status, got.Body, replies[0].Body)
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
	first.Want(t, "the first", 200, `"status":"ERROR"`)
	isReplay(t, "the failed run", r.runWithKey("k", "ann", "assistant", "message", "hi", "stream", "false"), first)
}

func TestRepeatedContinuationContinuesOnce(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, func(q modeltest.Request) modeltest.Script {
		if lastMessage(q) == "pay" {
			return modeltest.ToolCall("pay", `{"for":"tea"}`)
		}
		return modeltest.Text("paid")
	})
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true"), model)
	for stream, end := range map[string]string{"true": "event: RunCompleted", "false": `"status":"COMPLETED"`} {
		paused := r.Run("ann", "assistant", "message", "pay", "session_id", "s", "stream", "false")
		paused.Want(t, "the run", 200, `"status":"PAUSED"`)
		var calls struct {
			Tools []map[string]any `json:"tools"`
		}
		if err := json.Unmarshal([]byte(paused.Body), &calls); err != nil || len(calls.Tools) != 1 {
			t.Fatalf("%v %s", err, paused.Body)
		}
		proceed := func(sub, key string, confirmed bool) process.Reply {
			calls.Tools[0]["confirmed"] = confirmed
			tools, err := json.Marshal(calls.Tools)
			if err != nil {
				t.Fatal(err)
			}
			body, kind := process.Form(t, "session_id", "s", "stream", stream, "tools", string(tools))
			return r.Call(sub, "POST", "/agents/assistant/runs/"+field(t, paused, "run_id")+"/continue", body,
				"Content-Type", kind, "Idempotency-Key", key)
		}
		before := len(model.Requests())
		first := proceed("ann", "k", true)
		first.Want(t, "continue", 200, end, "paid")
		if again := proceed("ann", "k", true); stream == "true" {
			isReplay(t, "the continuation", again, first)
		} else if again.Want(t, "again", 200, end, "paid"); again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the header is missing: %v", again.Header)
		}
		proceed("ann", "k", false).Want(t, "another decision", 409, "Idempotency-Key was already used")
		proceed("ann", "other", true).Want(t, "another key", 409, "Cannot continue run")
		proceed("bob", "k", true).Want(t, "another user", 404, "Run not found")
		if n := len(model.Requests()) - before; n != 1 {
			t.Errorf("the model was asked %d times", n)
		}
	}
}
