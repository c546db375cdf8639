package acceptance

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
)

// odd are texts that a parser on their way might interpret: SQL, patterns, paths, control
// characters. They are valid and can be stored.
var odd = []string{
	"%", "_", `\`, `\\%`, `'; DROP TABLE keyway.runs; --`, `" OR 1=1`, "$1", "@owner", "{{.schema}}", "keyway.sessions",
	"\u202eשלום\u202c", "é\u0301😀\U0010ffff",
	"\ufeff", "\u2028\u2029", "\r\nX-Evil: 1\r\n\r\n", "\t\x01\x1f\x7f", "NaN", "null", "-1", "9223372036854775808",
	"../../etc/passwd", " ", `{"a":1}`,
	`\u0000`, `\\u0000`, "<script>&amp;</script>",
}

// impossible are texts that PostgreSQL can't store: NUL and invalid UTF-8.
var impossible = []string{"\x00", "a\x00b", "\xff\xfe", "\xed\xa0\x80", "\xc0\x80"}

// internals matches texts of PostgreSQL, pgx and Go that no answer may contain.
var internals = regexp.MustCompile(`SQLSTATE|\bpq:|pgx|ERROR:|goroutine|` +
	`keyway\.(sessions|runs|memories)|violates|unnest`)

// checkNoInternalError fails for a 5xx answer, for an error that shows internals, and for an
// error without a JSON body. sent is the caller's own text, which an error may repeat.
func checkNoInternalError(t *testing.T, what string, r process.Reply, sent string) {
	t.Helper()
	if len(what) > 200 {
		what = what[:200]
	}
	if r.Status >= 500 {
		t.Errorf("%s: %d %.300s", what, r.Status, r.Body)
	}
	if r.Status >= 400 && internals.MatchString(r.Body) && !internals.MatchString(sent) {
		t.Errorf("%s: the answer shows internals: %.300s", what, r.Body)
	}
	if r.Status >= 400 && !json.Valid([]byte(r.Body)) {
		t.Errorf("%s: %d without a JSON body: %.300s", what, r.Status, r.Body)
	}
}

// The names of query parameters, form fields and members of JSON bodies. Each name is sent
// to every route of its kind. A route must ignore the names that it doesn't know.
var (
	queries = []string{
		"type", "component_id", "user_id", "session_name", "limit", "page", "sort_by", "sort_order", "db_id", "table",
		"topics", "search_content",
		"agent_id", "team_id", "session_id", "status", "created_after", "created_before", "delete_media",
	}
	fields = []string{
		"message", "session_id", "user_id", "session_state", "metadata", "background", "version", "tools", "continue_from",
		"last_event_index", "files",
	}
	bodyMembers = []string{
		"session_id", "session_name", "session_state", "metadata", "summary", "user_id", "agent_id", "team_id",
		"workflow_id", "session_ids",
		"session_types", "memory", "topics", "memory_ids",
	}
	// oddJSON are values for a member of a body.
	oddJSON = []string{
		"null", "true", "1", "1.5", "-0", "1e308", "1e309", "1e999", "-1e999", "1e-400", "1e-99999", "0e99999", "NaN",
		"Infinity", `""`, `"\u0000"`, `"\ud800"`,
		`"\udc00\ud800"`, "[]", "[null]", `[[]]`, `[""]`, `["\u0000"]`, `["\ud800"]`, "{}", `{"":""}`, `{"\u0000":1}`,
		`{"a":"\u0000"}`, `{"a":"\ud800"}`, `{"a":NaN}`,
		`{"a":1e999}`, `{"a":1e-99999}`, `{"a":0e99999}`, `{"a":0.` + strings.Repeat("1", 20000) + `}`, `{"a":1,"a":2}`,
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000),
		strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000),
		strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500), `"` + strings.Repeat("x", 6000) + `"`,
	}
)

// validBodies has the members that any route requires, and then one more: its name and its value.
const validBodies = `{"memory":"m","session_name":"n","session_ids":["x"],"session_types":["agent"],` +
	`"memory_ids":["x"],%q:%s}`

func TestHostileTextIsNeverAnInternalError(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true"), echoModel(t))
	r.Run("ann", "assistant", "message", "hi", "session_id", "s").Want(t, "run", 200)
	texts := append(append([]string{strings.Repeat("x", 5000)}, odd...), impossible...)
	for rt := range route.Table.All() {
		t.Run(rt.String(), func(t *testing.T) {
			r.json("ann", "POST", "/sessions", `{"session_id":"s"}`) // an earlier route may have deleted it
			path := rt.Path(func(name string) string {
				return map[string]string{"agent_id": "assistant", "session_id": "s"}[name] +
					map[string]string{"run_id": noRun, "memory_id": noMemory}[name]
			})
			for _, text := range texts {
				here := rt.Path(func(name string) string { return url.PathEscape(text) })
				checkNoInternalError(t, here, r.Call("ann", rt.Method, here, nil), text)
				if rt.Method != "GET" {
					continue
				}
				for _, name := range queries {
					with := path + "?session_id=s&" + name + "=" + url.QueryEscape(text)
					checkNoInternalError(t, with, r.Call("ann", rt.Method, with, nil), text)
				}
			}
			if rt.Method == "GET" {
				return
			}
			if rt.Function == route.Runs {
				for _, text := range append(texts, oddJSON...) {
					for _, name := range fields {
						body := url.Values{"message": {"hi"}, "stream": {"false"}, "session_id": {"of runs"}}
						body.Set(name, text)
						got := r.Call("ann", rt.Method, path, strings.NewReader(body.Encode()), "Content-Type",
							"application/x-www-form-urlencoded")
						checkNoInternalError(t, path+" "+body.Encode(), got, text)
					}
				}
				return
			}
			for _, value := range oddJSON {
				for _, name := range bodyMembers {
					body := fmt.Sprintf(validBodies, name, value)
					checkNoInternalError(t, path+" "+name+" "+value, r.json("ann", rt.Method, path, body), "")
				}
			}
			for _, text := range odd {
				for _, name := range bodyMembers {
					quoted, _ := json.Marshal(text)
					body := fmt.Sprintf(validBodies, name, quoted)
					checkNoInternalError(t, path+" "+body, r.json("ann", rt.Method, path, body), text)
				}
			}
		})
	}
}

func TestAcceptedTextIsStoredUnchanged(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true"), echoModel(t))
	type object = map[string]any
	read := func(path string) object {
		var v object
		got := r.Get("ann", path)
		if err := json.Unmarshal([]byte(got.Body), &v); err != nil || got.Status != 200 {
			t.Fatalf("%s: %d %.300s", path, got.Status, got.Body)
		}
		return v
	}
	same := func(what string, got, want any) {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	for _, text := range append(odd, strings.Repeat("ж\u202e", 800)) {
		nested := object{"text": text, "list": []any{text, nil, true, 1.5, object{}}, "of": object{"n": object{text: text}}}
		state, _ := json.Marshal(nested)
		quoted, _ := json.Marshal(text)
		id := field(t, r.json("ann", "POST", "/sessions", fmt.Sprintf(`{"session_name":%s,"session_state":%s,"metadata":%s}`,
			quoted, state, state)), "session_id")
		r.json("ann", "PATCH", "/sessions/"+id, fmt.Sprintf(`{"summary":%s}`, state)).Want(t, "patch", 200)
		s := read("/sessions/" + id)
		same("session_name", s["session_name"], text)
		for _, name := range []string{"session_state", "metadata", "session_summary"} {
			same(name, s[name], nested)
		}
		topic := quoted
		if len(text) > 1024 {
			topic = []byte(`"long"`)
		}
		memory := field(t, r.json("ann", "POST", "/memories", fmt.Sprintf(`{"memory":%s,"topics":[%s]}`,
			quoted, topic)), "memory_id")
		m := read("/memories/" + memory)
		same("memory", m["memory"], text)
		if len(text) <= 1024 {
			same("topics", m["topics"], []any{text})
		}

		body, kind := process.Form(t,
			"message", "m"+text, "stream", "false", "session_id", "run-"+id, "metadata", string(state),
			"session_state", string(state))
		run := field(t, r.Call("ann", "POST", "/agents/assistant/runs", body, "Content-Type", kind), "run_id")
		got := read("/agents/assistant/runs/" + run + "?session_id=run-" + id)
		same("message", got["input"].(object)["input_content"], "m"+text)
		same("answer", got["content"], "you said m"+text)
		same("metadata of a run", got["metadata"], nested)
		same("session_state of a run", got["session_state"], nested)
		same("chat", read("/sessions/run-" + id)["chat_history"].([]any)[0].(object)["content"], "m"+text)
	}
}

func TestFileReachesTheModelUnchanged(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for _, text := range odd {
		name := strings.NewReplacer(`\`, "", `"`, "", "\r", "", "\n", "", "\x7f", "", "\x01", "", "\x1f", "", "\t", "", "%",
			"", "\u2028", "", "\u2029", "").Replace(text) + ".txt"
		body := part("message", "hi") + part("stream", "false") + part("session_id", "s") +
			"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"" + name +
			"\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text + "\r\n--X--\r\n"
		got := r.Call("ann", "POST", "/agents/assistant/runs", strings.NewReader(body), "Content-Type", multipartKind)
		got.Want(t, "run with "+text, 200)
		var run struct {
			Input struct {
				Files []struct{ Filename, Content string }
			}
		}
		if err := json.Unmarshal([]byte(got.Body), &run); err != nil || len(run.Input.Files) != 1 {
			t.Errorf("%q: %v %.300s", text, err, got.Body)
			continue
		}
		if f := run.Input.Files[0]; f.Filename != name || f.Content != text {
			t.Errorf("file %q is stored as %q, its text %q as %q", name, f.Filename, text, f.Content)
		}
		requests := r.Model.Requests()
		if received := lastMessage(requests[len(requests)-1]); !strings.Contains(received, text) {
			t.Errorf("the model received %q, want %q in it", received, text)
		}
	}
}

func TestWildcardsInFiltersAreLiteral(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for _, text := range []string{"100%", "100x", "a_b", "axb", `c\d`, "cxd", `e\%f`, "exf"} {
		quoted, _ := json.Marshal(text)
		r.json("ann", "POST", "/sessions", fmt.Sprintf(`{"session_name":%s}`, quoted)).Want(t, text, 201)
		r.json("ann", "POST", "/memories", fmt.Sprintf(`{"memory":%s,"topics":[%s]}`, quoted, quoted)).Want(t, text, 200)
	}
	for part, found := range map[string]int{"%": 2, "0%": 1, "_": 1, "a_b": 1, `\`: 2, `\d`: 1, `\%`: 1, "%f": 1, "x": 4,
		"A_B": 1, "100": 2, "%%": 0, "a%b": 0} {
		for _, path := range []string{"/sessions?session_name=", "/memories?search_content="} {
			got := r.Get("ann", path+url.QueryEscape(part))
			if got.Want(t, path+part, 200, fmt.Sprintf(`"total_count":%d`,
				found)); strings.Count(got.Body, `"user_id"`) != found {
				t.Errorf("%s%s: %s", path, part, got.Body)
			}
		}
	}
	r.Get("ann", "/memories?topics="+url.QueryEscape("100%")).Want(t, "a topic", 200, `"total_count":1`)
	r.Get("ann", "/memories?topics="+url.QueryEscape("a%")).Want(t, "no topic", 200, `"total_count":0`)
}

func TestOddRequestBodiesAreClientErrors(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	r.json("ann", "POST", "/sessions", `{"session_id":"s"}`).Want(t, "create", 201)
	big := func(n int) string {
		return `{"session_state":{"a":"` + strings.Repeat("x", n-len(`{"session_state":{"a":""}}`)) + `"}}`
	}
	const objectOnly = "Input should be a valid dictionary or object to extract fields from"
	for name, row := range map[string]struct {
		kind, body string
		status     int
		says       string
	}{
		"equal names, the last counts": {"application/json", `{"session_name":"a","session_name":"b"}`,
			200, `"session_name":"b"`},
		"equal names below":      {"application/json", `{"metadata":{"x":1,"x":2}}`, 200, `"metadata":{"x":2}`},
		"a byte order mark":      {"application/json", "\ufeff" + `{"session_name":"c"}`, 200, `"session_name":"c"`},
		"another's content type": {"text/plain", `{"session_name":"a"}`, 422, objectOnly},
		"no content type":        {"", `{"session_name":"a"}`, 422, objectOnly},
		"a form":                 {"application/x-www-form-urlencoded", "session_name=a", 422, objectOnly},
		"trailing garbage": {"application/json", `{"session_name":"a"}x`, 422,
			`"loc":["body",20],"msg":"JSON decode error","input":{},"ctx":{"error":"Extra data"}`},
		"two documents": {"application/json", `{}{}`, 422, "Extra data"},
		"no body":       {"application/json", "", 422, `"type":"missing","loc":["body"]`},
		"null":          {"application/json", "null", 422, objectOnly},
		"an array":      {"application/json", `[{"session_name":"a"}]`, 422, objectOnly},
		"UTF-16": {"application/json", "\xff\xfe{\x00}\x00", 400,
			"There was an error parsing the body"},
		"nothing to change":        {"application/json", "{}", 200, `"session_id":"s"`},
		"10 MB":                    {"application/json", big(10 << 20), 422, `should have at most 262144 bytes`},
		"10 MB and a byte":         {"application/json", big(10<<20 + 1), 413, "10 MB"},
		"gzip that isn't unpacked": {"application/json", "\x1f\x8b\x08\x00", 400, "There was an error parsing the body"},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.Call("ann", "PATCH", "/sessions/s", strings.NewReader(row.body), "Content-Type", row.kind)
			got.Want(t, name, row.status, row.says)
			if row.status < 500 && row.status >= 400 {
				checkNoInternalError(t, name, got, "")
			}
			chunked := r.Call("ann", "PATCH", "/sessions/s", struct{ *strings.Reader }{strings.NewReader(row.body)},
				"Content-Type", row.kind)
			chunked.Want(t, name+", without its length", row.status, row.says)
		})
	}
	r.Call("ann", "GET", "/sessions/s", strings.NewReader("{broken"), "Content-Type", "application/json").
		Want(t, "a body on GET", 200)
	r.Get("ann", "/sessions?session_name="+strings.Repeat("x", 60<<10)).
		Want(t, "a filter of 60 KB", 422, `"loc":["query","session_name"]`)
	r.Get("ann", "/sessions?x="+strings.Repeat("x", 60<<10)).Want(t, "60 KB of nothing", 200)
	r.Get("ann", "/sessions?x="+strings.Repeat("x", 100<<10)).Want(t, "more than all headers may have", 431)
	if got := r.Get("ann", "/sessions?x="+strings.Repeat("x", 2<<20)); got.Status < 400 || got.Status > 499 {
		t.Errorf("a query of 2 MB: %d %.100s", got.Status, got.Body)
	}
	run := field(t, r.Run("ann", "assistant", "message", "hi", "session_id", "r"), "run_id")
	for _, id := range []string{"", "x", "-1", "99999999999", "-99999999999", "9223372036854775807",
		"9223372036854775808", "1e3"} {
		got := r.Call("ann", "POST", "/agents/assistant/runs/"+run+"/resume", nil, "Last-Event-ID", id)
		got.Want(t, "Last-Event-ID "+id, 200, `event: `)
	}
}

// Every later request for a session returns the arguments that a model or a person wrote
// into its runs. Invalid values must not make such a session unreadable.
func TestNothingInARunMakesItsSessionUnreadable(t *testing.T) {
	t.Parallel()
	values := []string{
		`"\u0000"`, `"\\u0000"`, `"\ud800"`, `"\udc00\ud83d\ude00"`, "1e999", "1e-99999", "0e99999",
		`{"\u0000":1}`, `{"\ud800":1}`,
		strings.Repeat("[", 9990) + strings.Repeat("]", 9990), `"\\ud800"`,
	}
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		last := lastMessage(r)
		for i, value := range values {
			switch last {
			case fmt.Sprintf("model %d", i):
				return modeltest.ToolCall("echo", `{"for":`+value+`}`)
			case fmt.Sprintf("person %d", i):
				return modeltest.ToolCall("ask", `{}`)
			}
		}
		return modeltest.Text("done")
	})
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: true", "ask", "echo"), model)
	for i, value := range values {
		session := fmt.Sprintf("s%d", i)
		r.Run("ann", "assistant", "message", fmt.Sprintf("model %d", i), "session_id", session, "stream", "false").
			Want(t, "model "+value, 200, `"status":"COMPLETED"`)
		paused := r.Run("ann", "assistant", "message", fmt.Sprintf("person %d", i), "session_id", session, "stream", "false")
		paused.Want(t, "person "+value, 200, `"status":"PAUSED"`)
		run := field(t, paused, "run_id")
		var calls struct {
			Tools []struct {
				ID string `json:"tool_call_id"`
			}
		}
		if err := json.Unmarshal([]byte(paused.Body), &calls); err != nil || len(calls.Tools) != 1 {
			t.Fatalf("%v %s", err, paused.Body)
		}
		tools := fmt.Sprintf(`[{"tool_call_id":%q,"user_input_schema":[{"name":"for","value":%s}]}]`,
			calls.Tools[0].ID, value)
		body, kind := process.Form(t, "session_id", session, "stream", "false", "tools", tools)
		checkNoInternalError(t, "continue with "+value, r.Call("ann", "POST", "/agents/assistant/runs/"+run+"/continue", body,
			"Content-Type", kind), "")
		for _, path := range []string{
			"/sessions", "/sessions/" + session, "/sessions/" + session + "/runs", "/sessions/" + session + "/run-previews",
			"/sessions/" + session + "/runs/" + run, "/agents/assistant/runs?session_id=" + session,
			"/agents/assistant/runs/" + run + "?session_id=" + session,
		} {
			got := r.Get("ann", path)
			if got.Want(t, path+" after "+value[:min(len(value), 20)], 200); !json.Valid([]byte(got.Body)) {
				t.Errorf("%s after %s: the answer is not JSON: %.200s", path, value, got.Body)
			}
		}
	}
}
