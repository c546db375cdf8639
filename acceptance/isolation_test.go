package acceptance

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

// private is a word that all of ann's data contains, and nothing else.
const private = "chrysanthemum"

// IDs of runs and memories that do not exist.
const (
	noRun    = "00000000-0000-4000-8000-000000000000"
	noMemory = "00000000-0000-4000-8000-000000000001"
)

// attempt is a request for a user's data. ANN is replaced by the user, HERS by the user's
// session, RUN, PAUSED, RUNNING and MEMORY by IDs of the user's runs and memory, and HEX by that of RUN without dashes.
type attempt struct {
	route   route.Name
	request string // method and path
	body    string // JSON if it begins with {, else a form
	status  int    // for a caller without such data
	shows   bool   // whether an administrator's answer contains the private word
}

// attempts has every route that reads or writes a user's data, with every way to name the
// data.
var attempts = []attempt{
	{route.CreateRun, "POST /agents/assistant/runs", "message=hello&stream=false&session_id=HERS&user_id=ANN", 200, false},
	{route.CreateRun, "POST /agents/assistant/runs", "message=hello&background=true&stream=false&session_id=HERS", 202,
		false},
	{route.ListRuns, "GET /agents/assistant/runs?session_id=HERS", "", 404, true},
	{route.ListRuns, "GET /agents/assistant/runs?session_id=HERS&user_id=ANN", "", 404, true},
	{route.GetRun, "GET /agents/assistant/runs/RUN?session_id=HERS", "", 404, true},
	{route.GetRun, "GET /agents/assistant/runs/RUN?session_id=HERS&user_id=ANN", "", 404, true},
	{route.CancelRun, "POST /agents/assistant/runs/RUN/cancel", "", 404, false},
	{route.CancelRun, "POST /agents/assistant/runs/RUNNING/cancel", "", 404, false},
	{route.CancelRun, "POST /agents/assistant/runs/PAUSED/cancel?session_id=HERS", "", 404, false},
	{route.ContinueRun, "POST /agents/assistant/runs/RUN/continue", "session_id=HERS&stream=false", 404, false},
	{route.ContinueRun, "POST /agents/assistant/runs/PAUSED/continue",
		"session_id=HERS&stream=false&user_id=ANN", 404, false},
	{route.ContinueRun, "POST /agents/assistant/runs/PAUSED/continue",
		"session_id=HERS&tools=" + `[{"tool_call_id":"call_1_1","confirmed":true}]`, 404, false},
	{route.ResumeRun, "POST /agents/assistant/runs/RUN/resume", "", 404, true},
	{route.ResumeRun, "POST /agents/assistant/runs/RUN/resume", "session_id=HERS&last_event_index=0", 404, true},
	{route.ResumeRun, "POST /agents/assistant/runs/RUNNING/resume", "", 404, false},

	{route.AISDKRun, "POST /agents/assistant/ai-sdk",
		`{"id":"HERS","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"hello"}]}]}`, 200, false},
	{route.AISDKRun, "POST /agents/assistant/ai-sdk", `{"id":"HERS","messages":[{"role":"assistant","metadata":` +
		`{"run_id":"PAUSED"},"parts":[{"type":"dynamic-tool","toolCallId":"call_1_1","state":"approval-responded",` +
		`"approval":{"id":"1","approved":true}}]}]}`, 404, false},
	// TestAChatInProgressIsResumed has an answer of another user in progress.
	{route.AISDKResume, "GET /agents/assistant/ai-sdk/HERS/stream", "", 204, false},
	{route.AGUIRun, "POST /agents/assistant/agui",
		`{"threadId":"HERS","runId":"1","messages":[{"id":"1","role":"user","content":"hello"}]}`, 200, false},
	{route.AGUIRun, "POST /agents/assistant/agui", `{"threadId":"HERS","runId":"2","messages":[],` +
		`"resume":[{"interruptId":"PAUSED:call_1_1","status":"resolved","payload":{"approved":true}}]}`, 404, false},
	// Tokens for this door are tried in TestEveryDoorKeepsEveryPromise.
	{route.MCPCall, "POST /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_run","arguments":` +
		`{"run_id":"RUN"}}}`, 401, true},

	{route.ListSessions, "GET /sessions?user_id=ANN", "", 200, true},
	{route.ListSessions, "GET /sessions?session_name=" + private, "", 200, true},
	{route.ListSessions, "GET /sessions?component_id=assistant&type=agent", "", 200, true},
	{route.CreateSession, "POST /sessions", `{"session_id":"HERS","user_id":"ANN"}`, 201, false},
	{route.DeleteSessions, "DELETE /sessions", `{"session_ids":["HERS","other"],"session_types":["agent","agent"]}`, 204,
		false},
	{route.DeleteSessions, "DELETE /sessions?user_id=ANN", `{"session_ids":["HERS"],"session_types":["agent"]}`, 204,
		false},
	{route.GetSession, "GET /sessions/HERS", "", 404, true},
	{route.GetSession, "GET /sessions/HERS?user_id=ANN&type=agent", "", 404, true},
	{route.ChangeSession, "PATCH /sessions/HERS", `{"session_name":"mine"}`, 404, true},
	{route.ChangeSession, "PATCH /sessions/HERS?user_id=ANN",
		`{"session_state":{"a":1},"metadata":{"a":1},"summary":{"a":1}}`, 404, true},
	{route.RenameSession, "POST /sessions/HERS/rename?user_id=ANN", `{"session_name":"mine"}`, 404, true},
	{route.DeleteSession, "DELETE /sessions/HERS?user_id=ANN", "", 204, false},
	{route.DeleteSession, "DELETE /sessions/HERS", "", 204, false},
	{route.SessionRuns, "GET /sessions/HERS/runs", "", 404, true},
	{route.SessionRuns, "GET /sessions/HERS/runs?user_id=ANN&status=completed", "", 404, true},
	{route.SessionPreviews, "GET /sessions/HERS/run-previews?user_id=ANN", "", 404, true},
	{route.SessionRun, "GET /sessions/HERS/runs/RUN?user_id=ANN", "", 404, true},

	{route.ListMemories, "GET /memories?user_id=ANN", "", 200, true},
	{route.ListMemories, "GET /memories?search_content=" + private, "", 200, true},
	{route.ListMemories, "GET /memories?topics=" + private, "", 200, true},
	{route.CreateMemory, "POST /memories", `{"memory":"planted","user_id":"ANN"}`, 200, false},
	{route.DeleteMemories, "DELETE /memories", `{"memory_ids":["MEMORY"]}`, 204, false},
	{route.DeleteMemories, "DELETE /memories", `{"memory_ids":["MEMORY"],"user_id":"ANN"}`, 204, false},
	{route.GetMemory, "GET /memories/MEMORY?user_id=ANN", "", 404, true},
	{route.ChangeMemory, "PATCH /memories/MEMORY", `{"memory":"mine","user_id":"ANN","topics":[]}`, 404, false},
	{route.DeleteMemory, "DELETE /memories/MEMORY?user_id=ANN", "", 204, false},
	{route.MemoryTopics, "GET /memory_topics?user_id=ANN", "", 200, true},
	{route.MemoryStats, "GET /user_memory_stats?user_id=ANN", "", 200, false},
	{route.Metrics, "GET /metrics?user_id=ANN", "", 200, false},
	{route.RefreshMetrics, "POST /metrics/refresh?user_id=ANN", "", 200, false},
	{route.MergeMemories, "POST /optimize-memories", `{"user_id":"ANN","apply":true}`, 404, false},

	{route.Completions, "POST /v1/chat/completions", `{"model":"assistant","user":"ANN",
		"metadata":{"session_id":"HERS"},"messages":[{"role":"user","content":"hello"}]}`, 200, false},
	{route.Responses, "POST /v1/responses",
		`{"model":"assistant","user":"ANN","conversation":"HERS","input":"hello"}`, 200, false},
	{route.Responses, "POST /v1/responses", `{"model":"assistant","previous_response_id":"resp_HEX","input":"hello"}`, 404,
		false},
	{route.Response, "GET /v1/responses/resp_HEX", "", 404, true},
	{route.Response, "GET /v1/responses/resp_HEX?stream=true", "", 404, true},
	{route.CancelResponse, "POST /v1/responses/resp_HEX/cancel", "", 404, true},
	{route.DeleteResponse, "DELETE /v1/responses/resp_HEX", "", 404, false},
}

// ownerless are the routes whose answers contain no user's data, and those that only administrators open.
var ownerless = []route.Name{
	route.Index, route.Health, route.HealthHead, route.Ready, route.ReadyHead, route.Info, route.OpenAPI, route.Docs,
	route.Console, route.ConsoleFile, route.MCPResource, route.MCPResourceRoot,
	route.Config, route.WhoAmI, route.Can, route.ListAgents, route.GetAgent, route.ListTeams, route.ListWorkflows,
	route.ListRevocations, route.Revoke, route.UndoRevocation, route.ListActiveRuns, route.CancelActiveRuns,
	route.ExportUserData, route.EraseUserData, route.RefreshStatus, route.Usage,
	route.Decisions, route.Diff, route.DevToken, route.DevSignIn,
	route.Models, route.Model,
}

func TestEveryRouteIsInTheIsolationTable(t *testing.T) {
	t.Parallel()
	known := map[route.Name]bool{}
	for _, name := range ownerless {
		known[name] = true
	}
	for _, a := range attempts {
		known[a.route] = true
	}
	for rt := range route.Table.All() {
		if !known[rt.Name] {
			t.Errorf("%s is in neither attempts nor ownerless: add how another user could ask for data through it", rt)
		}
	}
}

// isolatedOS is a server with user isolation. ann has rows in every table.
type isolatedOS struct {
	*server
	db      *pgx.Conn
	anns    *strings.Replacer // fills an attempt with the IDs of ann's data
	missing *strings.Replacer // fills it with IDs of nothing
	neutral *strings.Replacer // replaces both kinds of IDs in an answer
}

// startIsolated starts an isolatedOS and creates ann's data: a completed run, a paused run,
// a running run, a session with all its members, and a memory.
func startIsolated(t *testing.T) *isolatedOS {
	t.Helper()
	holding, release := make(chan struct{}), make(chan struct{})
	model := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		switch said := lastMessage(r); {
		case strings.HasPrefix(said, "pay"):
			return modeltest.ToolCall("pay", `{"for":"`+private+`"}`)
		case strings.HasPrefix(said, "wait"):
			close(holding)
			return modeltest.Text("a ").Wait(release).Text("b")
		default:
			return modeltest.Text("you said ", said)
		}
	})
	h := &isolatedOS{server: startWith(t, process.WithTools, writeConfig(t, "user_isolation: true"), model)}
	var err error
	if h.db, err = pgx.Connect(t.Context(), h.server.DB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close(context.Background()) })
	t.Cleanup(func() { close(release) })
	run := field(t, h.Run("ann", "assistant", "message", private, "session_id", "hers", "stream", "true"), "run_id")
	paused := field(t, h.Run("ann", "assistant", "message", "pay "+private, "session_id", "hers",
		"stream", "false"), "run_id")
	running := field(t, h.Run("ann", "assistant", "message", "wait "+private, "session_id", "hers", "stream", "false",
		"background", "true"), "run_id")
	<-holding
	h.json("ann", "PATCH", "/sessions/hers",
		`{"session_state":{"s":"`+private+`"},"metadata":{"m":"`+private+`"},"summary":{"s":"`+private+`"}}`).
		Want(t, "patch", 200)
	memory := field(t, h.json("ann", "POST", "/memories", `{"memory":"`+private+`","topics":["`+private+`"]}`),
		"memory_id")
	bare := strings.NewReplacer("-", "")
	h.anns = strings.NewReplacer("HERS", "hers", "ANN", "ann", "RUNNING", running, "RUN", run, "PAUSED",
		paused, "MEMORY", memory, "HEX", bare.Replace(run))
	h.missing = strings.NewReplacer("HERS", "gone", "ANN", "zoe", "RUNNING", noRun, "RUN", noRun, "PAUSED",
		noRun, "MEMORY", noMemory, "HEX", bare.Replace(noRun))
	h.neutral = strings.NewReplacer("hers", "HERS", "gone", "HERS", running, "ID", run, "ID", paused, "ID", noRun, "ID",
		memory, "ID", noMemory, "ID")
	return h
}

// writeConfig writes a keyway.yaml with one line under auth and one agent, assistant, that
// has these tools. tools defaults to pay.
func writeConfig(t *testing.T, auth string, tools ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keyway.yaml")
	text := fmt.Sprintf(`id: quickstart
auth:
  keys: ["${JWT_VERIFICATION_KEY}"]
  %s
agents:
  - {id: assistant, model: "openai:gpt-4o", add_history_to_context: true, tools: [%s]}
`, auth, cmp.Or(strings.Join(tools, ", "), "pay"))
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// lastMessage returns the last message in a request to the model.
func lastMessage(r modeltest.Request) string {
	messages, _ := r.Body["messages"].([]any)
	last, _ := messages[len(messages)-1].(map[string]any)
	return fmt.Sprint(last["content"])
}

// json sends a request with a JSON body.
func (r *server) json(sub, method, path, body string) process.Reply {
	r.t.Helper()
	return r.Call(sub, method, path, strings.NewReader(body), "Content-Type", "application/json")
}

// field returns a member of the answer's JSON object, or of the first event of a stream.
func field(t *testing.T, r process.Reply, name string) string {
	t.Helper()
	text := r.Body
	if _, data, ok := strings.Cut(text, "data: "); ok {
		text, _, _ = strings.Cut(data, "\n")
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(text), &members); err != nil || r.Status > 299 || members[name] == nil {
		t.Fatalf("%d %.300s has no %s: %v", r.Status, r.Body, name, err)
	}
	return fmt.Sprint(members[name])
}

// try sends an attempt with these names.
func (h *isolatedOS) try(sub string, a attempt, names *strings.Replacer) process.Reply {
	h.t.Helper()
	method, path, _ := strings.Cut(names.Replace(a.request), " ")
	switch body := names.Replace(a.body); {
	case body == "":
		return h.Call(sub, method, path, nil)
	case body[0] == '{':
		return h.json(sub, method, path, body)
	default:
		return h.Call(sub, method, path, strings.NewReader(body), "Content-Type", "application/x-www-form-urlencoded")
	}
}

// everything returns all of ann's rows as text, without lease_until, which changes while a
// run executes.
func (h *isolatedOS) everything() (rows string) {
	h.t.Helper()
	err := h.db.QueryRow(h.t.Context(), `
		SELECT jsonb_pretty(jsonb_build_object(
			'sessions', (SELECT jsonb_agg(s ORDER BY s.session_id) FROM keyway.sessions s WHERE owner = 'ann'),
			'usage',    (SELECT jsonb_agg(u ORDER BY u.session_id) FROM keyway.session_usage u WHERE owner = 'ann'),
			'runs',     (SELECT jsonb_agg(to_jsonb(r) - 'lease_until' ORDER BY r.seq) FROM keyway.runs r WHERE owner = 'ann'),
			'events',   (SELECT jsonb_agg(e ORDER BY e.run_id, e.first_index)
			             FROM keyway.run_events e JOIN keyway.runs USING (run_id) WHERE owner = 'ann'),
			'memories', (SELECT jsonb_agg(m ORDER BY m.memory_id) FROM keyway.memories m WHERE owner = 'ann')))`).Scan(&rows)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, table := range []string{"sessions", "usage", "runs", "events", "memories"} {
		if !strings.Contains(rows, "\n    \""+table+"\": [") {
			h.t.Fatalf("ann has no %s: %s", table, rows)
		}
	}
	return rows
}

// On every route with a user's data, another user gets the same answer as for data that
// doesn't exist, and changes nothing.
func TestAnotherUsersDataLooksMissing(t *testing.T) {
	t.Parallel()
	h := startIsolated(t)
	h.Tokens["bob"] = withEveryScope("bob")
	before := h.everything()
	for _, a := range attempts {
		anns, missing := h.try("bob", a, h.anns), h.try("bob", a, h.missing)
		// bob created data of his own, with new IDs and times
		if a.status < 300 && a.route != route.ListSessions && a.route != route.ListMemories {
			anns.Body, missing.Body = shape(anns.Body), shape(missing.Body)
		}
		if anns.Status != missing.Status || h.neutral.Replace(anns.Body) != h.neutral.Replace(missing.Body) {
			t.Errorf("%s: for ann's data %d %s, for missing data %d %s", a.request, anns.Status, anns.Body,
				missing.Status, missing.Body)
		}
		if anns.Status != a.status || strings.Contains(anns.Body, private) {
			t.Errorf("%s: %d %s, want %d", a.request, anns.Status, anns.Body, a.status)
		}
		// The next attempt must not find what bob created under ann's IDs.
		h.clear("bob")
	}
	if after := h.everything(); after != before {
		t.Errorf("ann's data changed from\n%s\nto\n%s", before, after)
	}
	for _, r := range h.Model.Requests()[3:] {
		if strings.Contains(fmt.Sprint(r.Body["messages"]), private) {
			t.Errorf("the model of bob's run received ann's text: %v", r.Body["messages"])
		}
	}
}

// withEveryScope returns a token of a user with each scope that a route needs.
func withEveryScope(sub string) string {
	scopes, _ := json.Marshal(allBut(scope.Need{})) // a list of strings can always be encoded
	issuer := hmacForge("HS256", config.PublishedSecret)
	return issuer.token(payload("sub", `"`+sub+`"`, "scopes", string(scopes)))
}

// clear deletes the data of an owner. Background runs end by themselves.
func (h *isolatedOS) clear(owner string) {
	h.t.Helper()
	for _, table := range []string{"sessions", "memories"} {
		if _, err := h.db.Exec(h.t.Context(), "DELETE FROM keyway."+table+" WHERE owner = $1", owner); err != nil {
			h.t.Fatal(err)
		}
	}
}

// shape replaces the values of a JSON document by their types, and those of each event of a stream.
func shape(body string) string {
	if strings.HasPrefix(body, "data: ") {
		var events []string
		for data := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
			events = append(events, shape(strings.TrimPrefix(data, "data: ")))
		}
		return strings.Join(events, "\n")
	}
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return body
	}
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for name := range v {
				v[name] = strip(v[name])
			}
			return v
		case []any:
			for i := range v {
				v[i] = strip(v[i])
			}
			return v
		}
		return fmt.Sprintf("%T", v)
	}
	text, _ := json.Marshal(strip(v)) // decoded JSON can always be encoded
	return string(text)
}

func TestTokenWithoutSubjectOwnsNothing(t *testing.T) {
	t.Parallel()
	h := startIsolated(t)
	before := h.everything()
	for _, a := range attempts {
		if a.route == route.MCPCall {
			continue
		}
		for _, names := range []*strings.Replacer{h.anns, h.missing} {
			h.try("", a, names).Want(t, a.request, 403, `"Authenticated request is missing a user identity",`,
				`"hint":"The claim \"sub\" of the token is absent or empty. Ask the issuer for a token that names its user there"}`)
		}
	}
	h.Get("", "/sessions").Want(t, "a list", 403, "missing a user identity")
	if after := h.everything(); after != before {
		t.Errorf("ann's data changed from\n%s\nto\n%s", before, after)
	}
	var rows int
	if err := h.db.QueryRow(t.Context(),
		"SELECT (SELECT count(*) FROM keyway.sessions) + (SELECT count(*) FROM keyway.memories)").Scan(&rows); err != nil ||
		rows != 2 {
		t.Errorf("there are %d rows, error %v; want ann's session and her memory", rows, err)
	}
}

func TestOwnerAndAdministratorSeeTheData(t *testing.T) {
	t.Parallel()
	h := startIsolated(t)
	for _, a := range attempts {
		if !a.shows || a.route == route.MCPCall {
			continue
		}
		for _, sub := range []string{"ann", "admin"} {
			h.try(sub, a, h.anns).Want(t, sub+": "+a.request, 200, private)
		}
	}
	h.Get("admin", "/user_memory_stats").Want(t, "statistics", 200, `"user_id":"ann","total_memories":1`)
	h.Get("ann", "/user_memory_stats?user_id=bob").Want(t, "another user's name does not widen the answer", 200,
		`"data":[]`)
}
