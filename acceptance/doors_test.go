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
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
)

// doored is a server with all doors. Of its agents, "open" and "other" are for those with their scopes, and a scope
// mapping closes "mapped" to all but those with vault:run.
type doored struct {
	*server
	db *pgx.Conn
	// The model closes asked when it receives "wait", and answers after release is closed.
	asked, release chan struct{}
}

func startDoored(t *testing.T) *doored {
	t.Helper()
	d := &doored{asked: make(chan struct{}), release: make(chan struct{})}
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch said := lastMessage(r); {
		case strings.HasPrefix(said, "pay"):
			return modeltest.ToolCall("pay", `{"for":"tea"}`)
		case strings.HasPrefix(said, "wait"):
			close(d.asked)
			return modeltest.Text("first ").Wait(d.release).Text("second")
		case strings.HasPrefix(said, "break"):
			return modeltest.Text("half").Truncate()
		default:
			return modeltest.Text("you said ", said)
		}
	})
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	err := os.WriteFile(file, []byte(`id: quickstart
public_url: https://agents.example.com
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
	d.Tokens["ann without scopes"] = tokenOf("ann")
	return d
}

// tokenOf returns a token of a user with these scopes.
func tokenOf(sub string, scopes ...string) string {
	list, _ := json.Marshal(append([]string{}, scopes...)) // a list of strings can always be encoded
	return hmacForge("HS256", config.PublishedSecret).token(payload("sub", `"`+sub+`"`, "scopes", string(list),
		"aud", `"https://agents.example.com/mcp"`))
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

// becomes polls a run until it has this status.
func (d *doored) becomes(t *testing.T, id, status string) {
	t.Helper()
	for end := time.Now().Add(process.Patience); d.run(t, "status", id) != status; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("run %s is %s, not %s", id, d.run(t, "status", id), status)
		}
	}
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
		if !one.byTool && got.Status != 404 || got.Status == 403 || !strings.Contains(got.Body, "no") || d.rows(t) != before {
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
		if again := one.reads(t, reply); again != first || !one.byTool && reply.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%+v, want %+v", again, first)
		}
		if now := len(d.Model.Requests()); now != before {
			t.Errorf("the model was asked %d times more", now-before)
		}
		if other := d.send("ann", one.runs("open", "repeated", "else", "repeated")); other.Status != 409 &&
			!(one.byTool && strings.Contains(one.reads(t, other).problem, "was already used for another request")) {
			t.Errorf("another request: %d %s", other.Status, other.Body)
		}
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
		go func() {
			<-d.asked
			leave()
		}()
		if answer, err := process.Client.Do(r); err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err == nil {
				t.Error("the answer has ended before the client left")
			}
		}
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
			d.refuses(t, "ann without scopes", approve, "agents:")
			d.hides(t, "bob", by, approve)
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
				d.hides(t, "bob", by, see)
			}
		}
		stream := d.Call("ann", "POST", "/agents/open/runs/"+run.runID+"/resume", nil)
		if one.byTool { // A run without a stream has no events.
			stream.Want(t, "resumed by AgentOS's client", 200, "event: replay", `"status":"COMPLETED"`)
		} else {
			stream.Want(t, "resumed by AgentOS's client", 200, "event: RunCompleted", `"content":"you said hello"`)
		}
	}},
	{"every door that can cancel the run does", func(t *testing.T, d *doored, one door) {
		for _, by := range doors {
			if by.cancels == nil {
				continue
			}
			name := "cancelled-" + string(by.name)
			paused := one.reads(t, d.send("ann", one.runs("open", name, "pay", name)))
			d.hides(t, "bob", by, by.cancels("open", name, paused.runID))
			if got := d.send("ann", by.cancels("open", name, paused.runID)); got.Status > 299 {
				t.Errorf("%s: %d %s", by.name, got.Status, got.Body)
			}
			d.becomes(t, paused.runID, "CANCELLED")
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

// hides checks that another user's run looks like none.
func (d *doored) hides(t *testing.T, sub string, by door, a ask) {
	t.Helper()
	got := d.send(sub, a)
	if got.Status != 404 && !(by.byTool && strings.Contains(got.Body, "Run not found")) {
		t.Errorf("%s %s by %s: %d %s", a.method, a.path, by.name, got.Status, got.Body)
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
	route.AISDKRun: func(agent, _ string) ask {
		return doorOf("ai-sdk").runs(agent, "probe", "hello", "probe")
	},
	route.AISDKResume: func(agent, _ string) ask {
		return ask{"GET", "/agents/" + agent + "/ai-sdk/before/stream", "", nil}
	},
	route.Completions: func(agent, _ string) ask { return doorOf(route.OpenAI).runs(agent, "probe", "hello", "probe") },
	route.Model:       func(agent, _ string) ask { return ask{"GET", "/v1/models/" + agent, "", nil} },
	route.Responses: func(agent, _ string) ask {
		return doorOf("openai-responses").runs(agent, "probe", "hello", "probe")
	},
	route.Response:       func(_, run string) ask { return ask{"GET", "/v1/responses/" + responseOf(run), "", nil} },
	route.DeleteResponse: func(_, run string) ask { return ask{"DELETE", "/v1/responses/" + responseOf(run), "", nil} },
	route.CancelResponse: func(_, run string) ask { return doorOf("openai-responses").cancels("", "", run) },
	route.MCPCall:        func(agent, _ string) ask { return doorOf(route.MCP).runs(agent, "probe", "hello", "probe") },
	route.Models:         nil, // the list is in the table of the doors
	// They describe the door, and name no agent.
	route.MCPResource: nil, route.MCPResourceRoot: nil,
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
		case r.As != route.CreateRun && !r.Public && !r.Addressed:
			t.Errorf("%s is decided by itself", r)
		case probe == nil:
			continue
		}
		d.refuses(t, "only", probe("other", runs["other"]), "agents:other:run")
		d.refuses(t, "ann", probe("mapped", runs["mapped"]), "vault:run")
	}
	// By these tools of MCP a caller reaches an agent through a run.
	for _, by := range []func(agent, session, run string) ask{doorOf(route.MCP).sees, doorOf(route.MCP).cancels,
		func(agent, session, run string) ask { return doorOf(route.MCP).approves(agent, session, run, "x") }} {
		d.refuses(t, "only", by("other", "before", runs["other"]), "agents:other:")
	}
}
