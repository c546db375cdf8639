package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/route"
)

// sendMCP sends a body to the door with these headers, in addition to those of every client or in place of them.
func (s *service) sendMCP(body string, header ...string) reply {
	s.t.Helper()
	return s.do("ann POST /mcp", body, append([]string{
		"Content-Type", "application/json", "Accept", "application/json, text/event-stream",
	}, header...)...)
}

func TestAnErrorAboutAnMCPMessageIsAJSONRPCError(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const ping = `{"jsonrpc":"2.0","id":7,"method":"ping"}`
	const tool = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":`
	long := strings.Repeat("x", 60_000)
	for _, c := range []struct {
		name, body string
		header     []string
		status     int
		want       string
	}{
		{"no JSON", `{`, nil, 400, `"id":null,"error":{"code":-32700,`},
		{"a batch", `[` + ping + `]`, nil, 400, `"id":null,"error":{"code":-32600,`},
		{"a large number as the id", `{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}`, nil, 400,
			`"id":null,"error":{"code":-32600,`},
		{"a large body", ping + strings.Repeat(" ", 4<<20), nil, 413, `"id":null,"error":{"code":-32600,`},
		{"a method of another server", `{"jsonrpc":"2.0","id":7,"method":"resources/list"}`, nil, 200,
			`"id":7,"error":{"code":-32601,`},
		{"the same in the newest version", `{"jsonrpc":"2.0","id":7,"method":"resources/list"}`,
			[]string{"Mcp-Protocol-Version", "2026-07-28"}, 404, `"id":7,"error":{"code":-32601,`},
		{"another type of body", ping, []string{"Content-Type", "text/plain"}, 415, `"id":7,"error":{"code":-32600,`},
		{"another type of answer", ping, []string{"Accept", "text/html"}, 400, `"id":7,"error":{"code":-32600,`},
		{"an unknown version", ping, []string{"Mcp-Protocol-Version", "1999-01-01"}, 400, `"id":7,"error":{"code":-32600,`},
		{"a name that is a number", tool + `{"name":5}}`, nil, 200, `"id":7,"error":{"code":-32602,`},
		{"arguments that are a long text", tool + `{"name":["` + long + `"]}}`, nil, 200, `"error":{"code":-32602,`},
		{"an unknown tool with a long name", tool + `{"name":"` + long + `"}}`, nil, 200, `"error":{"code":-32602,`},
		{"a long header that doesn't fit", tool + `{"name":"a","arguments":{},"_meta":{` +
			`"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`,
			[]string{"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", long}, 400, `"id":7,"error":{"code":-32020,`},
	} {
		w := s.sendMCP(c.body, c.header...)
		kind, text := w.Header().Get("Content-Type"), w.Body.String()
		if w.Code != c.status || !strings.Contains(text, c.want) || len(text) > 3000 ||
			c.status != 200 && kind != "application/json" {
			t.Errorf("%s: %d %s %.400s", c.name, w.Code, kind, text)
		}
		for _, word := range []string{"*mcp.", "unmarshal", "Go struct", "json:", "%!"} {
			if strings.Contains(text, word) {
				t.Errorf("%s: the answer shows %q: %.400s", c.name, word, text)
			}
		}
	}
}

func TestTheIDOfAnMCPMessageComesBackAsItWasSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, id := range []string{`9007199254740991`, `-9007199254740991`, `0`, `"a"`, `""`} {
		w := s.sendMCP(`{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}`)
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"id":`+id+`,`) {
			t.Errorf("%s: %d %s", id, w.Code, w.Body)
		}
	}
}

func TestAWrongDecisionOfAnMCPClientConsumesNothing(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("done"))
	c := s.connect("ann", nil)
	result, _, data := c.call("a", map[string]any{"message": "open it"})
	members, _ := result.StructuredContent.(map[string]any)
	calls, _ := members["tool_calls"].([]any)
	if len(calls) != 1 {
		t.Fatalf("%v", members)
	}
	call, _ := calls[0].(map[string]any)
	id := call["tool_call_id"]
	for want, decisions := range map[string][]any{
		"decisions.0.approve: Extra inputs": {
			map[string]any{"tool_call_id": id, "decision": "approve", "approve": true}},
		"Two decisions are about": {map[string]any{"tool_call_id": id, "decision": "approve"},
			map[string]any{"tool_call_id": id, "decision": "reject"}},
		"doesn't ask for": {
			map[string]any{"tool_call_id": id, "decision": "approve", "values": map[string]any{"a": 1}}},
	} {
		result, text, _ := c.call("continue_run", map[string]any{"run_id": data["run_id"], "decisions": decisions})
		if !result.IsError || !strings.Contains(text, want) {
			t.Errorf("%s: %s", want, text)
		}
	}
	// The state of a run of agent a, at the tool of agent b.
	w := s.sendMCP(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b","arguments":{},`+
		`"requestState":%q,"inputResponses":{%q:{"action":"accept","content":{"approve":true}}},"_meta":{`+
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`,
		data["run_id"], id), "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "b")
	if !strings.Contains(w.Body.String(), "Run not found") || !strings.Contains(w.Body.String(), `"isError":true`) {
		t.Errorf("the run at another agent: %d %s", w.Code, w.Body)
	}
	_, text, got := c.call("continue_run", map[string]any{"run_id": data["run_id"], "decisions": []any{
		map[string]any{"tool_call_id": id, "decision": "approve"},
	}})
	if got["status"] != "completed" {
		t.Errorf("after them: %s", text)
	}
	if result, text, _ := c.call("cancel_run", map[string]any{"run_id": data["run_id"]}); !result.IsError ||
		!strings.Contains(text, "has ended already, with the status completed") {
		t.Errorf("a run that has ended is cancelled: %s", text)
	}
}

func TestTheTextOfAWrongMCPArgumentHasNoEmptyName(t *testing.T) {
	t.Parallel()
	c := newService(t).connect("ann", nil)
	result, text, _ := c.call("a", map[string]any{"message": "m", strings.Repeat("x", 2000): 1})
	if !result.IsError || !strings.HasPrefix(text, "Wrong arguments. Extra inputs are not permitted") {
		t.Errorf("%.300s", text)
	}
}

func TestAWebPageOfAnotherOriginDoesNotReachTheDoorForMCP(t *testing.T) {
	t.Parallel()
	h := api.Origins([]string{"https://app.example.com"}, route.Table, http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, c := range []struct {
		method, path, origin string
		want                 int
	}{
		{"POST", "/mcp", "", 200},
		{"POST", "/mcp", "https://app.example.com", 200},
		{"POST", "/mcp", "https://APP.example.com", 200},
		{"POST", "/mcp", "https://os.test", 403}, // the Host header: a page can make its name resolve to this server
		{"POST", "/mcp", "https://evil.test", 403},
		{"POST", "/mcp", "https://os.test.evil.test", 403},
		{"POST", "/mcp", "null", 403},
		{"OPTIONS", "/mcp", "https://evil.test", 200},
		{"POST", "/agents/a/runs", "https://evil.test", 200},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, "https://os.test"+c.path, nil)
		r.Header.Set("Origin", c.origin)
		if h.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%+v: %d %s", c, w.Code, w.Body)
		}
	}
}

func TestAnEmptyOrLongIdempotencyKeyOfAnMCPCallIsRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	call := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"message":"hi"}}}`
	for _, header := range [][]string{{"Idempotency-Key", ""}, {"Idempotency-Key", strings.Repeat("k", 10_000)}} {
		if w := s.sendMCP(call, header...); w.Code != 422 || !strings.Contains(w.Body.String(), "Idempotency-Key") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if n := s.model.count(); n != 0 {
		t.Errorf("%d calls of the model", n)
	}
}
