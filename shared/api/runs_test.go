package api_test

import (
	"bytes"
	"context"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/store"
)

func TestARunIsAnsweredAsEventsJSONOrAccepted(t *testing.T) {
	t.Parallel()
	s := newService(t, text("fi", "ne"))
	got := s.do("ann POST /agents/a/runs", "message=hello").want(t, 200, "event: RunStarted", "event: RunCompleted")
	if media := got.Header().Get("Content-Type"); !strings.HasPrefix(media, "text/event-stream") {
		t.Errorf("the stream's media type is %q", media)
	}
	body := "message=hello&stream=false&session_id=s" +
		"&session_state=" + url.QueryEscape(`{"n":1}`) + "&metadata=" + url.QueryEscape(`{"m":2}`)
	got = s.do("ann POST /agents/a/runs", body).
		want(t, 200, `"status":"COMPLETED"`, `"content":"fine"`, `"session_id":"s"`,
			`"user_id":"ann"`, `"session_state":{"n":1}`, `"metadata":{"m":2}`)
	id := got.field(t, "run_id")
	s.do("ann GET /agents/a/runs?session_id=s", "").want(t, 200, `"run_id":"`+id)
	s.do("ann GET /agents/a/runs?session_id=s&status=completed", "").want(t, 200, `"run_id":"`+id)
	s.do("ann GET /agents/a/runs?session_id=s&status=error", "").want(t, 200, `[]`)
	s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").want(t, 200, `"content":"fine"`)
	s.do("ann POST /agents/a/runs/"+id+"/cancel", "").want(t, 200, `{}`)
	s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").want(t, 200, `"status":"COMPLETED"`)
	got = s.do("ann POST /agents/a/runs", "message=later&stream=false&background=true&session_id=s").
		want(t, 202, `"session_id":"s"`)
	if got.field(t, "run_id") == "" {
		t.Errorf("no run id: %s", got.Body)
	}
}

func TestInvalidRunRequestsNameTheInput(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.run("ann", "s", "hello")
	before := s.model.count()
	t.Cleanup(func() {
		if n := s.model.count() - before; n > 0 {
			t.Errorf("the model was called %d times for invalid requests", n)
		}
	})
	long := strings.Repeat("x", 1025)
	s.expect(t, map[string]exchange{
		"no message": {
			"ann POST /agents/a/runs", "stream=false", 422, `"type":"missing","loc":["body","message"]`,
		},
		"an empty message": {"ann POST /agents/a/runs", "message=", 422, `"loc":["body","message"]`},
		"a stream that is no boolean": {
			"ann POST /agents/a/runs", "message=m&stream=maybe", 422, `"type":"bool_parsing","loc":["body","stream"]`,
		},
		"a version that is no number": {
			"ann POST /agents/a/runs", "message=m&version=one", 422, `"loc":["body","version"]`,
		},
		"a session id of 256 bytes": {
			"ann POST /agents/a/runs", "message=m&session_id=" + long[:256], 422, `"loc":["body","session_id"]`,
		},
		"a user id of 1025 bytes": {
			"ann POST /agents/a/runs", "message=m&user_id=" + long, 422, `"loc":["body","user_id"]`,
		},
		"a state that is no JSON": {
			"ann POST /agents/a/runs", "message=m&session_state={", 422,
			`"type":"json_invalid","loc":["body","session_state"]`,
		},
		"a state with a number that PostgreSQL cannot store": {
			"ann POST /agents/a/runs", "message=m&session_state={\"n\":0." + strings.Repeat("1", 16_384) + "}", 422,
			`"type":"json_invalid","loc":["body","session_state"`,
		},
		"metadata that are a list": {
			"ann POST /agents/a/runs", "message=m&metadata=[]", 422, `"type":"dict_type","loc":["body","metadata"]`,
		},
		"images":                         {"ann POST /agents/a/runs", "message=m&images=[{}]", 400, "images"},
		"input files":                    {"ann POST /agents/a/runs", "message=m&input_files=x", 400, "input_files"},
		"text in the place of a file":    {"ann POST /agents/a/runs", "message=m&files=x", 422, `"loc":["body","files",0]`},
		"a broken percent sign":          {"ann POST /agents/a/runs", "message=%zz", 400, "error parsing the body"},
		"an unknown agent":               {"admin POST /agents/nope/runs", "message=m", 404, "Agent not found"},
		"a caller without a subject":     {"noname POST /agents/a/runs", "message=m", 403, "missing a user identity"},
		"a list without a session":       {"ann GET /agents/a/runs", "", 422, `"loc":["query","session_id"]`},
		"a list of an unknown session":   {"ann GET /agents/a/runs?session_id=x", "", 404, "Session not found"},
		"a list of another agent":        {"ann GET /agents/b/runs?session_id=s", "", 404, "Session not found"},
		"a list of an unknown agent":     {"admin GET /agents/x/runs?session_id=s", "", 404, "Agent not found"},
		"a run without a session":        {"ann GET /agents/a/runs/" + id, "", 422, `"loc":["query","session_id"]`},
		"a run of another session":       {"ann GET /agents/a/runs/" + id + "?session_id=x", "", 404, "Run not found"},
		"a run of another agent":         {"ann GET /agents/b/runs/" + id + "?session_id=s", "", 404, "Run not found"},
		"a run id that is no UUID":       {"ann GET /agents/a/runs/nonsense?session_id=s", "", 404, "Run not found"},
		"cancelling an unknown run":      {"ann POST /agents/a/runs/" + missing + "/cancel", "", 404, "Run not found"},
		"cancelling by another agent":    {"ann POST /agents/b/runs/" + id + "/cancel", "", 404, "Run not found"},
		"an administrator's unknown run": {"admin POST /agents/a/runs/" + missing + "/cancel", "", 200, "{}"},
		"continuing without a session": {
			"ann POST /agents/a/runs/" + id + "/continue", "stream=false", 400, "session_id is required",
		},
		"continuing with broken tools": {
			"ann POST /agents/a/runs/" + id + "/continue", "session_id=s&tools=[", 400, "Invalid JSON in tools field",
		},
		"continuing from an unknown word": {
			"ann POST /agents/a/runs/" + id + "/continue", "session_id=s&continue_from=start", 400, "Invalid continue_from",
		},
		"continuing an unknown run": {
			"ann POST /agents/a/runs/" + missing + "/continue", "session_id=s", 404, "Run not found",
		},
		"continuing an ended run": {
			"ann POST /agents/a/runs/" + id + "/continue", "session_id=s&stream=false", 409, "",
		},
	})
}

func TestARunOfAnotherOwnerLooksLikeAMissingOne(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	id := s.run("ann", "hers", "secret") // paused
	s.expectLikeMissing("bob", []exchange{
		{"GET /agents/a/runs?session_id=SESSION", "", 404, ""},
		{"GET /agents/a/runs?session_id=SESSION&user_id=ann", "", 404, ""},
		{"GET /agents/a/runs/RUN?session_id=SESSION", "", 404, ""},
		{"GET /agents/a/runs/RUN?session_id=SESSION&user_id=ann", "", 404, ""},
		{"POST /agents/a/runs/RUN/cancel", "", 404, ""},
		{"POST /agents/a/runs/RUN/continue", "session_id=SESSION&stream=false&user_id=ann", 404, ""},
		{"POST /agents/a/runs/RUN/resume", "session_id=SESSION", 404, ""},
	}, "hers", id, missing)
	s.do("ann GET /agents/a/runs/"+id+"?session_id=hers", "").want(t, 200, `"status":"PAUSED"`)
	s.do("admin GET /agents/a/runs/"+id+"?session_id=hers&user_id=bob", "").want(t, 404)
	s.do("admin GET /agents/a/runs/"+id+"?session_id=hers&user_id=ann", "").want(t, 200)
}

func TestAPausedRunContinuesWithTheDecisions(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ tools, result string }{
		"confirmed": {`[{"tool_call_id":"ID","confirmed":true}]`, "opened"},
		"rejected":  {`[{"tool_call_id":"ID","confirmed":false,"confirmation_note":"not today"}]`, "not today"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, callTool("door"), text("done"))
			id := s.run("ann", "s", "open")
			paused := s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").
				want(t, 200, `"status":"PAUSED"`, `"requires_confirmation":true`)
			call := regexp.MustCompile(`call_[0-9a-f]{32}`).FindString(paused.Body.String())
			body := "session_id=s&stream=false&tools=" + url.QueryEscape(strings.Replace(row.tools, "ID", call, 1))
			s.do("ann POST /agents/a/runs/"+id+"/continue", body).
				want(t, 200, `"status":"COMPLETED"`, `"content":"done"`, row.result)
		})
	}
}

func TestCancellingAPausedRunEndsIt(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	id := s.run("ann", "s", "open")
	s.do("ann POST /agents/a/runs/"+id+"/cancel?session_id=s", "").want(t, 200, "{}")
	s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").want(t, 200, `"status":"CANCELLED"`)
	s.do("ann POST /agents/a/runs/"+id+"/continue", "session_id=s&stream=false").want(t, 409)
}

func TestCancellingARunningRunStopsTheModel(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	s := newService(t, waitFor(never))
	ended := make(chan reply, 1)
	go func() { ended <- s.do("ann POST /agents/a/runs", "message=m&stream=false&session_id=s") }()
	id := s.running("s")
	s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").want(t, 200, `"status":"RUNNING"`)
	s.do("ann POST /agents/a/runs/"+id+"/cancel", "").want(t, 200, "{}")
	(<-ended).want(t, 200, `"status":"CANCELLED"`)
}

// running waits until the session has a run whose model was called, and returns its
// id.
func (s *service) running(session string) string {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		runs, err := s.db.Runs(context.Background(), store.Viewer{All: true}, store.RunQuery{SessionID: session})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(runs) > 0 && s.model.count() > 0 {
			return runs[0].RunID.String()
		}
	}
	s.t.Fatal("no run has begun after a minute")
	return ""
}

func TestATokenForOneSessionRunsInThatSession(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("bound POST /agents/a/runs", "message=m&stream=false&session_id=other").
		want(t, 200, `"session_id":"bound-session"`)
}

func TestOnlyTextFilesAreAccepted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, row := range map[string]struct {
		file, media, content string
		status               int
		text                 string
	}{
		"plain text":                 {"notes.txt", "text/plain", "some notes", 200, `"filename":"notes.txt"`},
		"text by its extension":      {"notes.md", "application/octet-stream", "# Notes", 200, `"format":"md"`},
		"JSON":                       {"data", "application/json", "{}", 200, `"mime_type":"application/json"`},
		"a picture":                  {"cat.png", "image/png", "PNG", 400, "Unsupported file type"},
		"bytes that are not UTF-8":   {"notes.txt", "text/plain", "\xff", 400, "Unsupported file type"},
		"an empty file":              {"notes.txt", "text/plain", "", 400, "Empty file"},
		"a name of 256 bytes":        {strings.Repeat("x", 256), "text/plain", "notes", 400, "at most 255 bytes"},
		"an extension of no meaning": {"notes.exe", "application/octet-stream", "notes", 400, "Unsupported file type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			for field, value := range map[string]string{"message": "read this", "stream": "false"} {
				if err := form.WriteField(field, value); err != nil {
					t.Fatal(err)
				}
			}
			part, err := form.CreatePart(textproto.MIMEHeader{
				"Content-Disposition": {`form-data; name="files"; filename="` + row.file + `"`}, "Content-Type": {row.media},
			})
			if err == nil {
				_, err = part.Write([]byte(row.content))
			}
			if err = errors.Join(err, form.Close()); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/agents/a/runs", &body)
			r.Header.Set("Content-Type", form.FormDataContentType())
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"])))
			reply{w, name}.want(t, row.status, row.text)
		})
	}
}

func TestARepeatedRequestIsAnsweredWithItsFirstRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const key = "Idempotency-Key"
	for name, fields := range map[string]string{
		"JSON": "&stream=false", "events": "", "background": "&stream=false&background=true",
	} {
		t.Run(name, func(t *testing.T) {
			body := "message=m" + fields
			first := s.do("ann POST /agents/a/runs", body, key, name)
			again := s.do("ann POST /agents/a/runs", body, key, name).want(t, first.Code)
			if first.Header().Get("Idempotent-Replayed") != "" || again.Header().Get("Idempotent-Replayed") != "true" {
				t.Errorf("Idempotent-Replayed: %v, then %v", first.Header(), again.Header())
			}
			if name == "events" && again.Body.String() != first.Body.String() {
				t.Errorf("first %s\nagain %s", first.Body, again.Body)
			}
			if name != "events" && again.field(t, "run_id") != first.field(t, "run_id") {
				t.Errorf("first %s\nagain %s", first.Body, again.Body)
			}
		})
	}
	s.do("ann POST /agents/a/runs", "message=other&stream=false", key, "JSON").want(t, http.StatusConflict)
	s.do("ann POST /agents/a/runs", "message=m", key, strings.Repeat("k", 513)).
		want(t, 422, `"loc":["header","Idempotency-Key"]`)
	bobs := s.do("bob POST /agents/a/runs", "message=m&stream=false", key, "JSON").want(t, 200, `"user_id":"bob"`)
	if bobs.Header().Get("Idempotent-Replayed") != "" {
		t.Error("a key of one user found a run of another")
	}
}

// paused runs agent "a" until its tool needs a person, and returns the run's id and a
// form that confirms the call.
func (s *service) paused(session string, fields string) (id, confirm string) {
	s.t.Helper()
	body := "message=open&session_id=" + session + fields
	run := s.do("ann POST /agents/a/runs", body).want(s.t, 200, "requires_confirmation").Body.String()
	id = regexp.MustCompile(`"run_id":"([0-9a-f-]{36})"`).FindStringSubmatch(run)[1]
	call := regexp.MustCompile(`call_[0-9a-f]{32}`).FindString(run)
	return id, "session_id=" + session + fields + "&tools=" +
		url.QueryEscape(`[{"tool_call_id":"`+call+`","confirmed":true}]`)
}

func TestARepeatedContinuationIsAnsweredWithTheFirstOne(t *testing.T) {
	t.Parallel()
	const key = "Idempotency-Key"
	for name, fields := range map[string]string{"JSON": "&stream=false", "events": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, callTool("door"), text("done"))
			id, confirm := s.paused("s", fields)
			path := "ann POST /agents/a/runs/" + id + "/continue"
			// All of them at the same time: one continues the run.
			replies := make([]reply, 6)
			var all sync.WaitGroup
			for i := range replies {
				all.Go(func() { replies[i] = s.do(path, confirm, key, "k") })
			}
			all.Wait()
			replies = append(replies, s.do(path, confirm, key, "k"))
			continued := 0
			for _, got := range replies {
				got.want(t, 200, "opened", "done")
				if got.Header().Get("Idempotent-Replayed") == "" {
					continued++
				}
				if name == "events" && got.Body.String() != replies[0].Body.String() {
					t.Errorf("one answer is %s\nanother one %s", got.Body, replies[0].Body)
				}
			}
			if names := eventNames(replies[0].Body.String()); name == "events" &&
				(names[0] != "RunContinued" || names[len(names)-1] != "RunCompleted") {
				t.Errorf("the answer has the events %s", names)
			}
			if n := s.model.count(); continued != 1 || n != 2 {
				t.Errorf("%d requests continued the run, the model was asked %d times", continued, n)
			}
			other := strings.Replace(confirm, "true", "false", 1)
			s.do(path, other, key, "k").want(t, 409, "Idempotency-Key was already used for another request")
			s.do(path, confirm, key, "another").want(t, 409, "Cannot continue run")
			s.do(path, confirm).want(t, 409, "Cannot continue run")
			s.do(path, confirm, key, strings.Repeat("k", 513)).want(t, 422, `"loc":["header","Idempotency-Key"]`)
			// The key belongs to the run.
			s.do("bob"+strings.TrimPrefix(path, "ann"), confirm, key, "k").want(t, 404)
		})
	}
}

// A run that pauses twice is continued twice, and each key finds its own continuation.
func TestEachContinuationHasItsOwnKey(t *testing.T) {
	t.Parallel()
	const key = "Idempotency-Key"
	s := newService(t, callTool("door"), callTool("door"), text("done"))
	id, confirm := s.paused("s", "")
	path := "ann POST /agents/a/runs/" + id + "/continue"
	first := s.do(path, confirm, key, "first").want(t, 200, "event: RunPaused").Body.String()
	calls := regexp.MustCompile(`call_[0-9a-f]{32}`).FindAllString(first, -1)
	again := "session_id=s&tools=" + url.QueryEscape(`[{"tool_call_id":"`+calls[len(calls)-1]+`","confirmed":true}]`)
	if got := s.do(path, confirm, key, "first").want(t, 200).Body.String(); got != first {
		t.Errorf("while it is paused again: %s\nwant %s", got, first)
	}
	second := s.do(path, again, key, "second").want(t, 200, "event: RunCompleted").Body.String()
	if got := s.do(path, again, key, "second").want(t, 200).Body.String(); got != second {
		t.Errorf("the second continuation: %s\nwant %s", got, second)
	}
	// The events since the first continuation include those of the second one.
	if got := s.do(path, confirm, key, "first").want(t, 200).Body.String(); got != first+second {
		t.Errorf("the first continuation: %s\nwant %s", got, first+second)
	}
}

// AgentOS's clients send these fields. A caller must learn that a run would not do what they ask.
func TestFieldsThatThisVersionDoesNotSupportAreNamed(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	id := s.run("ann", "s", "hello")
	before := s.model.count()
	table := map[string]exchange{}
	for path, fields := range map[string][]string{
		"/agents/a/runs": {
			"output_schema={\"type\":\"object\"}", "dependencies={\"a\":1}", "knowledge_filters={\"a\":1}",
			"knowledge_filters=[{\"op\":\"EQ\"}]", "factory_input={\"a\":1}", "files_metadata=[{\"a\":1}]",
			"add_history_to_context=true", "add_history_to_context=false", "add_dependencies_to_context=true",
			"add_session_state_to_context=True", "stream_events=false",
		},
		"/agents/a/runs/" + id + "/continue": {
			"input=more", "fork=true", "regenerate=true", "replace_original=true", "additional_instructions=x",
			"output_schema={\"type\":\"object\"}", "dependencies={\"a\":1}", "knowledge_filters={\"a\":1}",
			"session_state={\"a\":1}", "metadata={\"a\":1}",
		},
	} {
		for _, field := range fields {
			name, value, _ := strings.Cut(field, "=")
			body := "message=m&session_id=s&" + name + "=" + url.QueryEscape(value)
			want := `"loc":["body","` + name + `"],"msg":"Value error, not supported: `
			table[path+" "+field] = exchange{"ann POST " + path, body, 422, want}
		}
	}
	t.Run("named", func(t *testing.T) { s.expect(t, table) })
	if s.model.count() != before {
		t.Error("the model was called")
	}
	const nothing = "&output_schema=null&dependencies=%7B%7D&knowledge_filters=[]&factory_input=&files_metadata=[]" +
		"&add_dependencies_to_context=False&add_session_state_to_context=false&stream_events=true&retries=1&debug_mode=true"
	s.do("ann POST /agents/a/runs", "message=m&stream=false&session_id=s"+nothing).want(t, 200, `"status":"PAUSED"`)
	const defaults = "&continue_from=end&fork=false&regenerate=False&replace_original=&additional_instructions=&input="
	s.do("ann POST /agents/a/runs/"+id+"/continue", "stream=false&session_id=s"+defaults).want(t, 200)
}

// The session of a token is made by its issuer, not by the request.
func TestATokenForASessionThatNoPathReachesIsForbidden(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/agents/a/runs", strings.NewReader("message=m"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	p := *callers["bound"]
	p.SessionID = "a/b"
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), &p)))
	reply{w, "a/b"}.want(t, 403, "The session of the token is not valid")
}
