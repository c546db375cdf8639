package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
)

// door is a protocol by which callers run agents. The tests of this file hold for each of them. A new door is a row of
// doors with these small functions.
type door struct {
	name route.Door
	// runs returns the request that runs an agent with a message, in a session or a new one if it is empty, streamed. The
	// key identifies a repeated request.
	runs func(agent, session, message, key string) ask
	// reads returns what the answer to that request says.
	reads func(t *testing.T, r process.Reply) ended
	// approves returns the request that confirms the call which a run waits for. Nil if the protocol can't: then a person
	// decides by another door.
	approves func(agent, session, runID, callID string) ask
	// sees returns the request that reads a run, which answers its text, and cancels the one that cancels it. Nil if the
	// protocol can't.
	sees, cancels func(agent, session, runID string) ask
	// lists returns the request that lists the agents which the caller may run. Nil if the protocol has none.
	lists func() ask
}

// ask is a request.
type ask struct {
	method, path string
	body         string
	header       []string // names and values
}

// ended is how the answer to a run ends. With another error than "" it has failed.
type ended struct {
	runID, text string
	state       string // completed, paused or failed
	problem     string // the text of the error
}

const asJSON = "application/json"

// doors are AgentOS's own API, and the protocols beside it.
var doors = []door{
	{
		name: "agentos",
		runs: func(agent, session, message, key string) ask {
			return ask{"POST", "/agents/" + agent + "/runs", "message=" + message + "&session_id=" + session,
				[]string{"Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", key}}
		},
		reads: readsAgentOS,
		approves: func(agent, session, runID, callID string) ask {
			return ask{"POST", "/agents/" + agent + "/runs/" + runID + "/continue", "session_id=" + session +
				`&tools=[{"tool_call_id":"` + callID + `","confirmed":true}]`,
				[]string{"Content-Type", "application/x-www-form-urlencoded"}}
		},
		sees: func(agent, session, runID string) ask {
			return ask{"GET", "/agents/" + agent + "/runs/" + runID + "?session_id=" + session, "", nil}
		},
		cancels: func(agent, _, runID string) ask {
			return ask{"POST", "/agents/" + agent + "/runs/" + runID + "/cancel", "", nil}
		},
		lists: func() ask { return ask{"GET", "/agents", "", nil} },
	},
	{
		name: route.AGUI,
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"threadId": session, "runId": "run-" + key, "tools": []any{},
				"context": []any{}, "messages": []any{map[string]any{"id": "1", "role": "user", "content": message}}})
			return ask{"POST", "/agents/" + agent + "/agui", string(body), []string{"Content-Type", asJSON}}
		},
		reads: readsAGUI,
		approves: func(agent, session, runID, callID string) ask {
			return ask{"POST", "/agents/" + agent + "/agui", `{"threadId":"` + session + `","runId":"approves-` + runID +
				`","messages":[],"resume":[{"interruptId":"` + runID + ":" + callID +
				`","status":"resolved","payload":{"approved":true}}]}`, []string{"Content-Type", asJSON}}
		},
	},
	{
		name: route.OpenAI,
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"model": agent, "stream": true,
				"messages": []any{map[string]any{"role": "user", "content": message}}})
			return ask{"POST", "/v1/chat/completions", string(body),
				[]string{"Content-Type", asJSON, "X-Session-Id", session, "Idempotency-Key", key}}
		},
		reads: readsOpenAI,
		lists: func() ask { return ask{"GET", "/v1/models", "", nil} },
	},
	{
		name: "openai-responses",
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"model": agent, "stream": true, "conversation": session, "input": message})
			return ask{"POST", "/v1/responses", string(body), []string{"Content-Type", asJSON, "Idempotency-Key", key}}
		},
		reads: readsResponse,
		sees:  func(_, _, runID string) ask { return ask{"GET", "/v1/responses/" + responseOf(runID), "", nil} },
		cancels: func(_, _, runID string) ask {
			return ask{"POST", "/v1/responses/" + responseOf(runID) + "/cancel", "", nil}
		},
	},
}

func readsAgentOS(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	for _, e := range process.Frames(t, r.Body) {
		out.runID = fmt.Sprint(e.Data["run_id"])
		switch e.Name {
		case "RunCompleted":
			out.state, out.text = "completed", fmt.Sprint(e.Data["content"])
		case "RunPaused":
			out.state = "paused"
		case "RunError", "RunCancelled":
			out.state, out.problem = "failed", fmt.Sprint(e.Data["content"])
		}
	}
	return out
}

func readsAGUI(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	for _, e := range dataOf(t, r.Body) {
		switch e["type"] {
		case "CUSTOM":
			value, _ := e["value"].(map[string]any)
			out.runID = fmt.Sprint(value["run_id"])
		case "TEXT_MESSAGE_CONTENT":
			out.text += fmt.Sprint(e["delta"])
		case "RUN_FINISHED":
			result, _ := e["outcome"].(map[string]any)
			out.state = map[any]string{"success": "completed", "interrupt": "paused", "cancelled": "failed"}[result["type"]]
		case "RUN_ERROR":
			out.state, out.problem = "failed", fmt.Sprint(e["message"])
		}
	}
	return out
}

func readsOpenAI(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	out.runID = r.Header.Get("X-Run-Id")
	for _, e := range dataOf(t, strings.TrimSuffix(uncommented(r.Body), "data: [DONE]\n\n")) {
		if failed, ok := e["error"].(map[string]any); ok {
			out.state, out.problem = "failed", fmt.Sprint(failed["message"])
		}
		choices, _ := e["choices"].([]any)
		for _, c := range choices {
			choice, _ := c.(map[string]any)
			delta, _ := choice["delta"].(map[string]any)
			text, _ := delta["content"].(string)
			out.text += text
			if choice["finish_reason"] != nil {
				out.state = "completed"
			}
		}
	}
	if strings.Contains(out.text, "waits for a person's decision") {
		out.state = "paused"
	}
	return out
}

// responseOf is the id of a run as that of a response.
func responseOf(runID string) string { return "resp_" + strings.ReplaceAll(runID, "-", "") }

func readsResponse(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	out.runID = r.Header.Get("X-Run-Id")
	for _, e := range process.Frames(t, strings.TrimSuffix(uncommented(r.Body), "data: [DONE]\n\n")) {
		switch e.Name {
		case "response.output_text.delta":
			out.text += fmt.Sprint(e.Data["delta"])
		case "response.completed":
			out.state = "completed"
		case "response.incomplete":
			out.state = "paused"
		case "error":
			out.state, out.problem = "failed", fmt.Sprint(e.Data["message"])
		}
	}
	return out
}

// dataOf returns the JSON of each event of a stream without names.
func dataOf(t *testing.T, stream string) (events []map[string]any) {
	t.Helper()
	for frame := range strings.SplitSeq(strings.TrimSpace(uncommented(stream)), "\n\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(frame, "data: ")), &e); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		events = append(events, e)
	}
	return events
}

// doored is a server with all doors. Of its agents, "open" and "other" are for those with their scopes, and a scope
// mapping closes "mapped" to all but those with vault:run.
type doored struct {
	*server
	db *pgx.Conn
	// The model answers "wait" after this channel is closed.
	release chan struct{}
}

func startDoored(t *testing.T) *doored {
	t.Helper()
	d := &doored{release: make(chan struct{})}
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch said := lastMessage(r); {
		case strings.HasPrefix(said, "pay"):
			return modeltest.ToolCall("pay", `{"for":"tea"}`)
		case strings.HasPrefix(said, "wait"):
			return modeltest.Text("first ").Wait(d.release).Text("second")
		case strings.HasPrefix(said, "break"):
			return modeltest.Text("half").Truncate()
		default:
			return modeltest.Text("you said ", said)
		}
	})
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	err := os.WriteFile(file, []byte(`id: quickstart
auth:
  keys: ["${JWT_VERIFICATION_KEY}"]
  scope_mappings: {"POST /agents/mapped/runs": ["vault:run"]}
agents:
  - {id: open, model: "openai:gpt-4o", add_history_to_context: true, tools: [pay]}
  - {id: other, model: "openai:gpt-4o"}
  - {id: mapped, model: "openai:gpt-4o"}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d.server = startWith(t, process.WithTools, file, model)
	if d.db, err = pgx.Connect(t.Context(), d.DB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.db.Close(context.Background()) })
	for sub, scopes := range map[string]string{
		"ann": "agents:read agents:run", "bob": "agents:read agents:run", "empty": "",
		"only": "agents:open:read agents:open:run", "vault": "vault:run",
	} {
		d.Tokens[sub] = tokenOf(sub, strings.Fields(scopes)...)
	}
	return d
}

// tokenOf returns a token of a user with these scopes.
func tokenOf(sub string, scopes ...string) string {
	list, _ := json.Marshal(append([]string{}, scopes...)) // a list of strings can always be encoded
	return hmacForge("HS256", config.PublishedSecret).token(payload("sub", `"`+sub+`"`, "scopes", string(list)))
}

// send sends a request with the token of sub, or without one for "-".
func (d *doored) send(sub string, a ask) process.Reply {
	d.t.Helper()
	return d.Call(sub, a.method, a.path, strings.NewReader(a.body), a.header...)
}

// rows counts the runs and the sessions.
func (d *doored) rows(t *testing.T) (n int) {
	t.Helper()
	err := d.db.QueryRow(t.Context(),
		"SELECT (SELECT count(*) FROM keyway.runs) + (SELECT count(*) FROM keyway.sessions)").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run is one field of the run of an id.
func (d *doored) run(t *testing.T, field, id string) (value string) {
	t.Helper()
	row := d.db.QueryRow(t.Context(), "SELECT "+field+" FROM keyway.runs WHERE run_id = $1", id)
	if err := row.Scan(&value); err != nil {
		t.Fatalf("%s of run %q: %v", field, id, err)
	}
	return value
}

// call is the id of the call that a run waits for.
func (d *doored) call(t *testing.T, id string) string {
	t.Helper()
	return d.run(t, "requirements->0->'tool_execution'->>'tool_call_id'", id)
}

// The table of all doors: each claim holds for each of them.
func TestEveryDoorKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	for _, one := range doors {
		t.Run(string(one.name), func(t *testing.T) {
			t.Parallel()
			d := startDoored(t)
			for _, promise := range promises {
				t.Run(promise.claim, func(t *testing.T) { promise.holds(t, d, one) })
			}
		})
	}
}

// promises are executed in this order on one server.
var promises = []struct {
	claim string
	holds func(*testing.T, *doored, door)
}{
	{"no token is a 401", func(t *testing.T, d *doored, one door) {
		before := d.rows(t)
		got := d.send("-", one.runs("open", "s", "hello", "k"))
		if got.Status != 401 || got.Header.Get("WWW-Authenticate") == "" || d.rows(t) != before {
			t.Errorf("%d %v %s", got.Status, got.Header, got.Body)
		}
	}},
	{"a token without scopes is a 403", func(t *testing.T, d *doored, one door) {
		d.refuses(t, "empty", one.runs("open", "s", "hello", "k"), "agents:")
	}},
	{"another agent's token is a 403 that names the scope", func(t *testing.T, d *doored, one door) {
		d.refuses(t, "only", one.runs("other", "s", "hello", "k"), "agents:other:run")
	}},
	{"a scope mapping closes an agent", func(t *testing.T, d *doored, one door) {
		d.refuses(t, "ann", one.runs("mapped", "s", "hello", "k"), "vault:run")
		got := one.reads(t, d.send("vault", one.runs("mapped", "mapped", "hello", "mapped")))
		if got.state != "completed" || got.text != "you said hello" {
			t.Errorf("with the scope of the mapping: %+v", got)
		}
	}},
	{"an unknown agent is a 404", func(t *testing.T, d *doored, one door) {
		before := d.rows(t)
		got := d.send("ann", one.runs("nobody", "s", "hello", "k"))
		if got.Status != 404 || !strings.Contains(got.Body, "not found") || d.rows(t) != before {
			t.Errorf("%d %s", got.Status, got.Body)
		}
	}},
	{"a list has the caller's agents only", func(t *testing.T, d *doored, one door) {
		if one.lists == nil {
			return
		}
		got := d.send("only", one.lists())
		got.Want(t, "the list", 200, `"open"`)
		if strings.Contains(got.Body, `"other"`) || strings.Contains(got.Body, `"mapped"`) {
			t.Errorf("%s", got.Body)
		}
	}},
	{"a session belongs to its user", func(t *testing.T, d *doored, one door) {
		d.completes(t, one, "ann", "shared", private, "ann-1")
		seen := len(d.Model.Requests())
		d.completes(t, one, "bob", "shared", "hello", "bob-1")
		for _, r := range d.Model.Requests()[seen:] {
			if strings.Contains(fmt.Sprint(r.Body["messages"]), private) {
				t.Errorf("the model of bob's run received %v", r.Body["messages"])
			}
		}
		if got := d.completes(t, one, "ann", "shared", "again", "ann-2"); d.run(t, "owner", got.runID) != "ann" {
			t.Errorf("%+v", got)
		}
		requests := d.Model.Requests()
		if asked := fmt.Sprint(requests[len(requests)-1].Body["messages"]); !strings.Contains(asked, private) {
			t.Errorf("ann's second run has no history: %s", asked)
		}
	}},
	{"a repeated request starts no second run", func(t *testing.T, d *doored, one door) {
		first, before := d.completes(t, one, "ann", "repeated", "hello", "repeated"), len(d.Model.Requests())
		reply := d.send("ann", one.runs("open", "repeated", "hello", "repeated"))
		if again := one.reads(t, reply); again != first || reply.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%+v, want %+v", again, first)
		}
		if now := len(d.Model.Requests()); now != before {
			t.Errorf("the model was asked %d times more", now-before)
		}
		d.send("ann", one.runs("open", "repeated", "else", "repeated")).Want(t, "another request", 409)
	}},
	{"a client that disconnects stops no run", func(t *testing.T, d *doored, one door) {
		a := one.runs("open", "left", "wait", "left")
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		r, err := http.NewRequestWithContext(ctx, a.method, d.URL+a.path, strings.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+d.Tokens["ann"])
		for i := 0; i < len(a.header); i += 2 {
			r.Header.Set(a.header[i], a.header[i+1])
		}
		answer, err := process.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAtLeast(answer.Body, make([]byte, 1), 1); err != nil {
			t.Fatal(err)
		}
		leave()
		answer.Body.Close()
		close(d.release)
		// The client that comes back with the same request gets the whole answer.
		if got := one.reads(t, d.send("ann", a)); got.state != "completed" || got.text != "first second" {
			t.Errorf("%+v", got)
		}
	}},
	{"a pause is shown, and every door that can continue it does", func(t *testing.T, d *doored, one door) {
		for _, by := range doors {
			if by.approves == nil {
				continue
			}
			name := "paused-" + string(by.name)
			paused := one.reads(t, d.send("ann", one.runs("open", name, "pay", name)))
			if paused.state != "paused" || d.run(t, "status", paused.runID) != "PAUSED" {
				t.Errorf("%+v", paused)
				continue
			}
			approve := by.approves("open", name, paused.runID, d.call(t, paused.runID))
			d.refuses(t, "empty", approve, "agents:")
			if got := d.send("bob", approve); got.Status != 404 {
				t.Errorf("bob continues ann's run by %s: %d %s", by.name, got.Status, got.Body)
			}
			done := by.reads(t, d.send("ann", approve))
			if done.runID != paused.runID || done.state != "completed" || !strings.HasSuffix(done.text, `paid {"for":"tea"}`) {
				t.Errorf("continued by %s: %+v", by.name, done)
			}
		}
	}},
	{"a model that breaks off is an error with our text", func(t *testing.T, d *doored, one door) {
		got := one.reads(t, d.send("ann", one.runs("open", "broken", "break", "broken")))
		if got.state != "failed" || got.problem == "" || got.problem != d.run(t, "content", got.runID) ||
			d.run(t, "status", got.runID) != "ERROR" {
			t.Errorf("%+v", got)
		}
	}},
	{"every door that can see the run does", func(t *testing.T, d *doored, one door) {
		run := d.completes(t, one, "ann", "seen", "hello", "seen")
		for _, by := range doors {
			if by.sees != nil {
				see := by.sees("open", "seen", run.runID)
				d.send("ann", see).Want(t, "seen by "+string(by.name), 200, "you said hello")
				d.send("bob", see).Want(t, "bob sees it by "+string(by.name), 404)
			}
		}
		stream := d.Call("ann", "POST", "/agents/open/runs/"+run.runID+"/resume", nil)
		stream.Want(t, "resumed by AgentOS's client", 200, "event: RunCompleted", `"content":"you said hello"`)
	}},
	{"every door that can cancel the run does", func(t *testing.T, d *doored, one door) {
		for _, by := range doors {
			if by.cancels == nil {
				continue
			}
			name := "cancelled-" + string(by.name)
			paused := one.reads(t, d.send("ann", one.runs("open", name, "pay", name)))
			if got := d.send("bob", by.cancels("open", name, paused.runID)); got.Status != 404 {
				t.Errorf("bob cancels ann's run by %s: %d %s", by.name, got.Status, got.Body)
			}
			if got := d.send("ann", by.cancels("open", name, paused.runID)); got.Status > 299 {
				t.Errorf("%s: %d %s", by.name, got.Status, got.Body)
			}
			// Its last event comes after its end is stored.
			d.Call("ann", "POST", "/agents/open/runs/"+paused.runID+"/resume", nil).
				Want(t, "the end", 200, "event: RunCancelled")
		}
	}},
}

// refuses checks that a request is refused with a 403 that names the scope, and that nothing is stored.
func (d *doored) refuses(t *testing.T, sub string, a ask, scope string) {
	t.Helper()
	before, asked := d.rows(t), len(d.Model.Requests())
	if got := d.send(sub, a); got.Status != 403 || !strings.Contains(got.Body, scope) {
		t.Errorf("%s %s: %d %s, want a 403 that names %s", a.method, a.path, got.Status, got.Body, scope)
	}
	if d.rows(t) != before || len(d.Model.Requests()) != asked {
		t.Errorf("%s %s has stored something, or asked the model", a.method, a.path)
	}
}

// completes runs the agent open and wants an answer.
func (d *doored) completes(t *testing.T, one door, sub, session, message, key string) ended {
	t.Helper()
	reply := d.send(sub, one.runs("open", session, message, key))
	got := one.reads(t, reply)
	if reply.Status != 200 || got.state != "completed" || got.text != "you said "+message || got.runID == "" {
		t.Errorf("%d %+v: %s", reply.Status, got, reply.Body)
	}
	return got
}

// probes are the requests by which a caller could reach an agent through each route of the doors. run is a run of the
// agent that belongs to the caller, from when the caller was allowed to run it.
var probes = map[route.Name]func(agent, run string) ask{
	route.AGUIRun: func(agent, _ string) ask {
		return doorOf(route.AGUI).runs(agent, "probe", "hello", "probe")
	},
	route.Completions: func(agent, _ string) ask { return doorOf(route.OpenAI).runs(agent, "probe", "hello", "probe") },
	route.Model:       func(agent, _ string) ask { return ask{"GET", "/v1/models/" + agent, "", nil} },
	route.Models:      nil, // the list is in the table of the doors
	route.Responses: func(agent, _ string) ask {
		return doorOf("openai-responses").runs(agent, "probe", "hello", "probe")
	},
	route.Response: func(_, run string) ask {
		return ask{"GET", "/v1/responses/" + responseOf(run) + "?stream=true", "", nil}
	},
	route.CancelResponse: func(agent, run string) ask { return doorOf("openai-responses").cancels(agent, "", run) },
	route.DeleteResponse: func(_, run string) ask { return ask{"DELETE", "/v1/responses/" + responseOf(run), "", nil} },
}

func doorOf(name route.Door) door {
	return doors[slices.IndexFunc(doors, func(d door) bool { return d.name == name })]
}

// The doors have no second way to decide: whichever of their routes a request uses, an agent that the token doesn't
// open is refused as the run's own route refuses it, and nothing is stored.
func TestNoRouteOfADoorReachesAnAgentThatTheRunRouteRefuses(t *testing.T) {
	t.Parallel()
	d := startDoored(t)
	// Both callers have a run of the agent, from when they had more scopes.
	runs := map[string]string{}
	for agent, sub := range map[string]string{"other": "only", "mapped": "ann"} {
		d.Tokens["earlier"] = tokenOf(sub, "agents:run", "vault:run")
		reply := d.send("earlier", doors[0].runs(agent, "before", "hello", "before"))
		if runs[agent] = doors[0].reads(t, reply).runID; runs[agent] == "" {
			t.Fatalf("%d %s", reply.Status, reply.Body)
		}
	}
	for r := range route.Table.All() {
		probe, known := probes[r.Name]
		switch {
		case r.Door == "":
			continue
		case !known:
			t.Errorf("%s is not in probes: add how a caller could reach an agent by it", r)
			continue
		case r.As != route.CreateRun && !r.Public:
			t.Errorf("%s is decided by itself", r)
		case probe == nil:
			continue
		}
		d.refuses(t, "only", probe("other", runs["other"]), "agents:other:run")
		d.refuses(t, "ann", probe("mapped", runs["mapped"]), "vault:run")
	}
}
