package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/model"
)

// client is a client of the door for MCP, with the token of one caller.
type client struct {
	*sdk.ClientSession
	t *testing.T
}

// as makes each request one of a caller.
type as struct{ caller string }

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Caller", a.caller)
	return http.DefaultTransport.RoundTrip(r)
}

// listen serves the handler over HTTP. The caller is in the header X-Caller.
func (s *service) listen() string {
	s.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers[r.Header.Get("X-Caller")])))
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

// connect connects a client of the SDK, which speaks 2026-07-28.
func (s *service) connect(caller string, o *sdk.ClientOptions) client {
	s.t.Helper()
	transport := &sdk.StreamableClientTransport{
		Endpoint: s.listen() + "/mcp", HTTPClient: &http.Client{Transport: as{caller}}, MaxRetries: -1,
		DisableStandaloneSSE: true,
	}
	named := &sdk.Implementation{Name: "test", Version: "1"}
	session, err := sdk.NewClient(named, o).Connect(s.t.Context(), transport, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = session.Close() })
	return client{session, s.t}
}

// call calls a tool and returns the texts of the result and its data.
func (c client) call(tool string, arguments map[string]any) (
	result *sdk.CallToolResult, text string, data map[string]string,
) {
	c.t.Helper()
	result, err := c.CallTool(c.t.Context(), &sdk.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, part := range result.Content {
		if t, ok := part.(*sdk.TextContent); ok {
			text += t.Text + "\n"
		}
	}
	data = map[string]string{}
	members, _ := result.StructuredContent.(map[string]any)
	for name, value := range members {
		if s, ok := value.(string); ok {
			data[name] = s
		}
	}
	return result, text, data
}

func (c client) tools() (names []string) {
	c.t.Helper()
	for tool, err := range c.Tools(c.t.Context(), nil) {
		if err != nil {
			c.t.Fatal(err)
		}
		names = append(names, tool.Name)
	}
	return names
}

func TestAnMCPClientSeesTheAgentsThatItsCallerMayRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ours := []string{"get_run", "continue_run", "cancel_run"}
	for caller, agents := range map[string][]string{"ann": {"a", "b"}, "onlyb": {"b"}, "mapped": {"a"}} {
		if diff := cmp.Diff(append(agents, ours...), s.connect(caller, nil).tools()); diff != "" {
			t.Errorf("%s: %s", caller, diff)
		}
	}
}

func TestAnMCPClientRunsAnAgentAndContinuesItsSession(t *testing.T) {
	t.Parallel()
	s := newService(t, text("fi", "ne"))
	c := s.connect("ann", nil)
	result, answer, data := c.call("a", map[string]any{"message": "hello"})
	if result.IsError || !strings.HasPrefix(answer, "fine\n") || data["status"] != "completed" {
		t.Fatalf("%q %v", answer, data)
	}
	_, _, again := c.call("a", map[string]any{"message": "more", "session_id": data["session_id"]})
	if again["session_id"] != data["session_id"] || again["run_id"] == data["run_id"] {
		t.Errorf("the second run is %v", again)
	}
	_, text, got := c.call("get_run", map[string]any{"run_id": data["run_id"]})
	if got["content"] != "fine" || !strings.Contains(text, data["session_id"]) {
		t.Errorf("get_run: %s %v", text, got)
	}
	// AgentOS's own routes see the same run.
	s.do("ann GET /agents/a/runs/"+data["run_id"]+"?session_id="+data["session_id"], "").want(t, 200, `"fine"`)
	if _, text, _ := s.connect("bob", nil).call("get_run", map[string]any{"run_id": data["run_id"]}); !strings.Contains(
		text, "Run not found") {
		t.Errorf("another caller gets %s", text)
	}
}

func TestAnMCPCallOfAForbiddenAgentNamesTheMissingScope(t *testing.T) {
	t.Parallel()
	s := newService(t)
	url := s.listen() + "/mcp"
	for _, tool := range []string{"a", "no-such-agent"} {
		for version, meta := range map[string]string{
			"2025-11-25": `{}`,
			"2026-07-28": `{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
				`"io.modelcontextprotocol/clientCapabilities":{}}`,
		} {
			body := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"` + tool +
				`","arguments":{"message":"m"},"_meta":` + meta + `}}`
			status, header, answer := post(t, url, "onlyb", version, tool, body)
			want := `Bearer error="insufficient_scope", scope="agents:` + tool + `:run"`
			if status != 403 || header.Get("WWW-Authenticate") != want ||
				!strings.Contains(answer, `"id":7`) || !strings.Contains(answer, "agents:run") {
				t.Errorf("%s %s: %d %q %s", tool, version, status, header.Get("WWW-Authenticate"), answer)
			}
		}
	}
	if n := s.model.count(); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

// post sends one message, as clients of this version of the protocol do.
func post(t *testing.T, url, caller, version, tool, body string) (status int, h http.Header, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"X-Caller": {caller}, "Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {version}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {tool},
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

func TestAnMCPClientWithFormsAsksItsUserAboutAPausedRun(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]struct{ status, text string }{
		"accept":  {"completed", "done"},
		"decline": {"completed", "done"},
		"cancel":  {"paused", "continue_run"},
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			s := newService(t, callTool("door"), text("done"))
			var asked []string
			c := s.connect("ann", &sdk.ClientOptions{
				Capabilities: &sdk.ClientCapabilities{Elicitation: &sdk.ElicitationCapabilities{}},
				ElicitationHandler: func(_ context.Context, r *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					asked = append(asked, r.Params.Message)
					return &sdk.ElicitResult{Action: action, Content: map[string]any{"approve": true}}, nil
				},
			})
			_, text, data := c.call("a", map[string]any{"message": "open it"})
			if data["status"] != want.status || !strings.Contains(text, want.text) {
				t.Errorf("%s %v", text, data)
			}
			if !slices.Equal(asked, []string{"Agent a wants to call door with {}. Is that allowed?"}) {
				t.Errorf("the user was asked %q", asked)
			}
		})
	}
}

func TestAnMCPClientWithoutFormsContinuesAPausedRunByATool(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("done"))
	c := s.connect("ann", nil)
	result, explained, data := c.call("a", map[string]any{"message": "open it"})
	if data["status"] != "paused" || !strings.Contains(explained, "continue_run") {
		t.Fatalf("%s %v", explained, data)
	}
	var paused struct {
		ToolCalls []struct {
			ID    string `json:"tool_call_id"`
			Tool  string `json:"tool"`
			Needs string `json:"needs"`
		} `json:"tool_calls"`
	}
	members, err := json.Marshal(result.StructuredContent)
	if err == nil {
		err = json.Unmarshal(members, &paused)
	}
	if err != nil || len(paused.ToolCalls) != 1 || paused.ToolCalls[0].Needs != "approval" {
		t.Fatalf("%v %s", err, members)
	}
	decide := func(id, decision string) (*sdk.CallToolResult, string, map[string]string) {
		return c.call("continue_run", map[string]any{
			"run_id": data["run_id"], "decisions": []any{map[string]any{"tool_call_id": id, "decision": decision}},
		})
	}
	if result, text, _ := decide("call_x", "approve"); !result.IsError || !strings.Contains(text, "does not wait for") {
		t.Errorf("a decision about another call: %s", text)
	}
	if result, text, _ := decide(paused.ToolCalls[0].ID, "maybe"); !result.IsError ||
		!strings.Contains(text, "decisions.0.decision") {
		t.Errorf("a wrong decision: %s", text)
	}
	if _, text, got := decide(paused.ToolCalls[0].ID, "approve"); got["status"] != "completed" ||
		!strings.HasPrefix(text, "done") {
		t.Errorf("%s %v", text, got)
	}
	if result, text, _ := decide(paused.ToolCalls[0].ID, "approve"); !result.IsError ||
		!strings.Contains(text, "Cannot continue run") {
		t.Errorf("a second decision: %s", text)
	}
}

func TestAnMCPClientCancelsARun(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("done"))
	c := s.connect("ann", nil)
	_, _, data := c.call("a", map[string]any{"message": "open it"})
	c.call("cancel_run", map[string]any{"run_id": data["run_id"]})
	if _, text, got := c.call("get_run", map[string]any{"run_id": data["run_id"]}); got["status"] != "cancelled" {
		t.Errorf("%s %v", text, got)
	}
}

func TestWrongArgumentsOfAnMCPCallAreNamed(t *testing.T) {
	t.Parallel()
	c := newService(t).connect("ann", nil)
	for want, arguments := range map[string]map[string]any{
		"message: Field required":                       {},
		"message: String should have at least":          {"message": ""},
		"session_id: Value error, A new id can't be":    {"message": "m", "session_id": "a/b"},
		"extra: Extra inputs are not permitted":         {"message": "m", "extra": 1},
		"message: String should have at most 1048576 b": {"message": strings.Repeat("m", 1<<20+1)},
	} {
		if result, text, _ := c.call("a", arguments); !result.IsError || !strings.Contains(text, want) {
			t.Errorf("%.100s\nlacks %s", text, want)
		}
	}
}

func TestAnMCPRequestIsOneBoundedMessage(t *testing.T) {
	t.Parallel()
	url := newService(t).listen() + "/mcp"
	for body, want := range map[string]int{
		`[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]`: 400,
		`{`:                           400,
		strings.Repeat(" ", 10<<20+1): 413,
		strings.Repeat(" ", 4<<20+1):  413,
		strings.Repeat(" ", 4<<20):    400, // It is read, and no message.
	} {
		if status, _, answer := post(t, url, "ann", "2025-03-26", "", body); status != want {
			t.Errorf("%.20s: %d %.200s", body, status, answer)
		}
	}
}

func TestACallOfMCPIsAudited(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	mcp := func(call string) (reply, []line) {
		return a.send("ann", "POST /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/`+call+`}`,
			"Accept", "application/json, text/event-stream", "Mcp-Protocol-Version", "2025-11-25")
	}
	if got, lines := mcp(`list"`); len(lines) > 0 {
		t.Errorf("a list: %s %+v", got.Body, lines)
	}
	got, lines := mcp(`call","params":{"name":"a","arguments":{"message":"m"}}`)
	if len(lines) != 1 || lines[0].Action != "mcp.call" || lines[0].Agent != "a" || lines[0].Object != "run" {
		t.Errorf("a call: %s %+v", got.Body, lines)
	}
}

func TestAnMCPClientSeesProgressIfItAsksForIt(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("done"))
	seen := make(chan string, 10)
	c := s.connect("ann", &sdk.ClientOptions{
		Capabilities: &sdk.ClientCapabilities{Elicitation: &sdk.ElicitationCapabilities{}},
		ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			return &sdk.ElicitResult{Action: "accept", Content: map[string]any{"approve": true}}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
			seen <- r.Params.Message
		},
	})
	params := &sdk.CallToolParams{Name: "a", Arguments: map[string]any{"message": "open it"}}
	params.SetProgressToken("p")
	if _, err := c.CallTool(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"asks the model", "calls door", "door has answered", "asks the model"} {
		if got := <-seen; got != want {
			t.Errorf("the client sees %q, want %q", got, want)
		}
	}
}

func TestARunContinuesWhenItsMCPClientDisconnects(t *testing.T) {
	t.Parallel()
	go1, begun := make(chan struct{}), make(chan struct{})
	s := newService(t, func(ctx context.Context, emit func(model.Part) bool) error {
		close(begun)
		return waitFor(go1)(ctx, emit)
	})
	c := s.connect("ann", nil)
	ctx, disconnect := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := c.CallTool(ctx, &sdk.CallToolParams{
			Name: "a", Arguments: map[string]any{"message": "m", "session_id": "s"},
		})
		ended <- err
	}()
	<-begun
	disconnect()
	if err := <-ended; err == nil {
		t.Error("the call has a result")
	}
	close(go1)
	var runs []struct {
		ID string `json:"run_id"`
	}
	list := s.do("ann GET /agents/a/runs?session_id=s", "").want(t, 200)
	if err := json.Unmarshal(list.Body.Bytes(), &runs); err != nil || len(runs) != 1 {
		t.Fatalf("%v %s", err, list.Body)
	}
	s.do("ann POST /agents/a/runs/"+runs[0].ID+"/resume", "").want(t, 200)
	for {
		_, text, data := c.call("get_run", map[string]any{"run_id": runs[0].ID})
		if data["status"] == "completed" {
			break
		}
		if data["status"] != "running" {
			t.Fatalf("%s %v", text, data)
		}
	}
}

func TestAnMCPCallThatOutlivesItsRequestAnswersItsID(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), waitFor(nil))
	_, _, data := s.connect("ann", nil).call("a", map[string]any{"message": "m", "session_id": "s"})
	list := s.do("ann GET /agents/a/runs/"+data["run_id"]+"?session_id=s", "").want(t, 200).Body.String()
	_, id, _ := strings.Cut(list, `"tool_call_id":"`)
	id, _, _ = strings.Cut(id, `"`)
	// A function's deadline comes with the request.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(authz.WithPrincipal(r.Context(), callers["ann"]), 3*time.Second)
		defer cancel()
		s.handler.ServeHTTP(w, r.WithContext(ctx))
	}))
	defer server.Close()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"continue_run","arguments":{"run_id":"` +
		data["run_id"] + `","decisions":[{"tool_call_id":"` + id + `","decision":"approve"}]}}}`
	status, _, answer := post(t, server.URL+"/mcp", "ann", "2025-11-25", "", body)
	if status != 200 || !strings.Contains(answer, `"status":"running"`) || !strings.Contains(answer, "get_run") {
		t.Errorf("%d %s", status, answer)
	}
}

func TestARepeatedMCPCallIsAnsweredWithTheFirstRun(t *testing.T) {
	t.Parallel()
	s := newService(t, text("one"), text("two"))
	url := s.listen() + "/mcp"
	call := func(message, key string) string {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"message":"` +
			message + `"}}}`
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{
			"X-Caller": {"ann"}, "Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Idempotency-Key": {key},
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := call("m", "k")
	if again := call("m", "k"); again != first || !strings.Contains(first, "one") {
		t.Errorf("%s\n%s", first, again)
	}
	if other := call("n", "k"); !strings.Contains(other, `"isError":true`) {
		t.Errorf("another request with the key: %s", other)
	}
	if next := call("m", "l"); !strings.Contains(next, "two") {
		t.Errorf("another key: %s", next)
	}
}
