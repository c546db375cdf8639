package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/mcp"
)

// script is a server with sessions of which a test decides what it answers. It offers one
// tool, look.
type script struct {
	t *testing.T
	// call answers tools/call in a session that the server knows. Defaults to the text "done".
	call func(w http.ResponseWriter, r *http.Request, id string)
	// unknown answers a request in a session that the server doesn't know.
	unknown func(w http.ResponseWriter)
	// listen answers GET. Defaults to 405.
	listen http.HandlerFunc
	// list is the result of tools/list. Defaults to one tool, look.
	list string

	mu       sync.Mutex
	sessions int
	known    string            // the id of the one session that is known
	seen     []string          // the methods of the requests, in their order
	bodies   map[string]string // the last body of each method
	headers  map[string]http.Header
}

// restart makes the server lose its session.
func (s *script) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = "none"
}

// count returns how often a method was requested.
func (s *script) count(method string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.seen {
		if m == method {
			n++
		}
	}
	return n
}

// body returns the last body of a method's requests.
func (s *script) body(method string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[method]
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var m struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	_ = json.Unmarshal(body, &m) // a GET and a DELETE have no body
	name := m.Method
	if name == "" {
		name = r.Method // GET, DELETE, or POST for the answer to a question
	}
	s.mu.Lock()
	s.seen = append(s.seen, name)
	if s.bodies == nil {
		s.bodies, s.headers = map[string]string{}, map[string]http.Header{}
	}
	s.bodies[name], s.headers[name] = string(body), r.Header
	known := r.Header.Get("Mcp-Session-Id") == s.known
	if m.Method == "initialize" {
		s.sessions++
		s.known = fmt.Sprint("session-", s.sessions)
		w.Header().Set("Mcp-Session-Id", s.known)
	}
	s.mu.Unlock()
	switch {
	case name == "server/discover":
		http.Error(w, "Bad Request: Missing session ID", http.StatusBadRequest)
	case name == "initialize":
		result(w, string(m.ID), `{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}`)
	case !known && s.unknown != nil:
		s.unknown(w)
	case name == "GET" && s.listen != nil:
		s.listen(w, r)
	case name == "GET":
		w.WriteHeader(http.StatusMethodNotAllowed)
	case name == "tools/list" && s.list != "":
		result(w, string(m.ID), s.list)
	case name == "tools/list":
		result(w, string(m.ID), `{"tools":[{"name":"look","inputSchema":{"type":"object"}}]}`)
	case name == "tools/call" && s.call != nil:
		s.call(w, r, string(m.ID))
	case name == "tools/call":
		result(w, string(m.ID), textOf("done"))
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// result writes a JSON-RPC response with a result.
func result(w http.ResponseWriter, id, result string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, result)
}

// textOf returns the result of a call that is one text.
func textOf(text string) string {
	data, _ := json.Marshal(text)
	return `{"content":[{"type":"text","text":` + string(data) + `}]}`
}

// sendEvents writes server-sent events and flushes them.
func sendEvents(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range events {
		fmt.Fprint(w, e, "\n\n")
	}
	w.(http.Flusher).Flush()
}

// look starts the server and returns its tool.
func (s *script) look(t *testing.T, o mcp.Options) tool.Tool {
	t.Helper()
	s.t = t
	o.URL = serve(t, s).URL + "/mcp"
	return tools(t, open(t, o))["look"]
}

// answers writes a fixed answer.
func answers(status int, contentType, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// lost holds how servers answer in a session that they don't know.
var lost = map[string]func(http.ResponseWriter){
	"fastmcp and mcp 1.30": answers(404, "application/json",
		`{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}`),
	"TypeScript's transport": answers(404, "application/json",
		`{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}`),
	"TypeScript's examples": answers(400, "application/json",
		`{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}`),
	"TypeScript with one transport": answers(400, "application/json",
		`{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}`),
	"mcp 1.8": answers(400, "application/json", `"Bad Request: No valid session ID provided"`),
	"Java": answers(404, "application/json", `{"cause":null,"stackTrace":[{"classLoaderName":"app","methodName":"get"}],`+
		`"jsonRpcError":{"code":-32603,"message":"Session not found: 1"},"message":"Session not found: 1"}`),
	"rmcp and mcp-go": answers(404, "text/plain; charset=utf-8", "Not Found: Session not found"),
	"a gateway":       answers(404, "text/html", "<html><body>404 Not Found</body></html>"),
	"nothing":         answers(404, "", ""),
	"a version that is not spoken any more": answers(400, "application/json",
		`{"jsonrpc":"2.0","id":3,"error":{"code":-32022,"message":"Unsupported protocol version","data":{"supported":[]}}}`),
}

func TestALostSessionIsMadeAnewWhateverTheAnswer(t *testing.T) {
	t.Parallel()
	for name, unknown := range lost {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{unknown: unknown}
			look := s.look(t, mcp.Options{})
			for range 2 {
				s.restart()
				if got, err := look.Call(t.Context(), nil); got != "done" {
					t.Errorf("after a restart: %q, %v", got, err)
				}
			}
			if s.count("initialize") != 3 || s.count("tools/call") != 4 {
				t.Errorf("%v, want each call once in a lost session and once in a new one", s.seen)
			}
			if s.count("DELETE") != 0 {
				t.Error("a session that is unknown was ended")
			}
		})
	}
}

func TestToolsAreListedInANewSessionToo(t *testing.T) {
	t.Parallel()
	s := &script{unknown: lost["fastmcp and mcp 1.30"]}
	now := time.Unix(1_800_000_000, 0)
	set := open(t, mcp.Options{URL: serve(t, s).URL, Now: func() time.Time { return now }})
	tools(t, set)
	s.restart()
	now = now.Add(time.Hour)
	if got := tools(t, set); len(got) != 1 || s.count("initialize") != 2 {
		t.Errorf("%d tools, requests %v", len(got), s.seen)
	}
}

func TestAServerThatNeverKnowsItsSessionIsNotAskedWithoutEnd(t *testing.T) {
	t.Parallel()
	s := &script{}
	look := s.look(t, mcp.Options{})
	s.call = func(w http.ResponseWriter, _ *http.Request, _ string) { lost["TypeScript's transport"](w) }
	_, err := look.Call(t.Context(), nil)
	if err == nil || !strings.Contains(fault.Detail(err), "several instances") || s.count("tools/call") != 2 {
		t.Errorf("%v, requests %v", err, s.seen)
	}
}

func TestARefusalWithAnotherReasonIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"wrong arguments": {answers(400, "application/json",
			`{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"invalid session_id"}}`), "invalid session_id"},
		"an unknown method": {answers(404, "application/json",
			`{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"Method not found"}}`), "Method not found"},
		"a tool without a way back to the client": {answers(400, "application/json",
			`{"jsonrpc":"2.0","id":3,"error":{"code":-32600,"message":"Cannot send 'elicitation/create': no back-channel"}}`),
			"no back-channel"},
		"a page": {answers(400, "text/html", "<p>Your session is invalid</p>"), "400 Bad Request"},
		"a failure": {answers(500, "application/json",
			`{"jsonrpc":"2.0","id":3,"error":{"code":-32603,"message":"session expired"}}`), "500 Internal Server Error"},
		"a broken connection": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "closed the connection"},
		"no answer":           {answers(200, "text/event-stream", ": hello\n\n"), "closed the connection before it answered"},
		"half an answer": {answers(200, "text/event-stream", `data: {"jsonrpc":"2.0","id":3,"resu`),
			"can't be read"},
		"no JSON":          {answers(200, "application/json", `{"jsonrpc":`), "can't be read"},
		"no result":        {answers(200, "application/json", `{"jsonrpc":"2.0","id":4}`), "can't be read"},
		"a result of null": {answers(200, "application/json", `{"jsonrpc":"2.0","id":4,"result":null}`), "can't be read"},
		"another's answer": {answers(200, "application/json", `{"jsonrpc":"2.0","id":99,"result":{}}`), "can't be read"},
		"a page as answer": {answers(200, "text/html", `<html>`), "answered with text/html, which is not MCP"},
		"no body":          {answers(202, "", ``), "answered with nothing"},
		"a wrong result": {answers(200, "application/json", `{"jsonrpc":"2.0","id":4,"result":[1]}`),
			"result can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{}
			look := s.look(t, mcp.Options{})
			s.call = func(w http.ResponseWriter, _ *http.Request, id string) {
				if s.count("tools/call") > 1 {
					result(w, id, textOf("done"))
					return
				}
				if id != "4" { // server/discover, initialize and tools/list have the first ids
					t.Errorf("the call has the id %s", id)
				}
				c.answer(w)
			}
			_, err := look.Call(t.Context(), nil)
			if err == nil || !strings.Contains(fault.Detail(err)+err.Error(), c.want) || s.count("tools/call") != 1 {
				t.Errorf("%v, want %q; requests %v", err, c.want, s.seen)
			}
			if got, err := look.Call(t.Context(), nil); got != "done" {
				t.Errorf("the next call: %q, %v", got, err)
			}
		})
	}
}

// The codes -32003 to -32005 are those that the SDK uses for failures of its own.
func TestTheMessageOfAServersErrorReachesTheModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, want string }{
		{`{"code":-32003,"message":"quota used up"}`, "quota used up"},
		{`{"code":-32004,"message":"the shop is closed"}`, "the shop is closed"},
		{`{"code":-32005,"message":"rejected"}`, "rejected"},
		{`{"code":-32603,"message":"the kettle is empty"}`, "the kettle is empty"},
		{`{"code":1}`, `{"code":1}`}, {`"plain"`, `"plain"`},
		{`{"code":1,"message":"` + strings.Repeat("x", 5000) + `"}`, strings.Repeat("x", 1000) + "…"},
		{`{"code":1,"message":"token configured-token was\nrefused"}`, "token *** was refused"},
	} {
		s := &script{}
		look := s.look(t, mcp.Options{Headers: map[string]string{"Authorization": "Bearer configured-token"}})
		s.call = func(w http.ResponseWriter, _ *http.Request, id string) {
			answers(200, "application/json", `{"jsonrpc":"2.0","id":`+id+`,"error":`+c.body+`}`)(w)
		}
		_, err := look.Call(t.Context(), nil)
		if want := "The tool server returned an error: " + c.want; err == nil || fault.Detail(err) != want {
			t.Errorf("%s: %v, want %s", c.body, err, want)
		}
		if _, _ = look.Call(t.Context(), nil); s.count("initialize") != 1 {
			t.Errorf("%s: the session was dropped", c.body)
		}
	}
}

// refusals holds what servers answer that can't be used, and what a person has to know.
var refusals = map[string]struct {
	answer func(http.ResponseWriter)
	kind   fault.Kind
	want   string
}{
	"401": {answers(401, "application/json", `{"error":"invalid_token"}`), fault.Upstream,
		"refused: 401 Unauthorized; check the token in mcp.headers"},
	"403": {answers(403, "text/plain", "no"), fault.Upstream, "refused: 403 Forbidden; check what the token"},
	"404": {answers(404, "text/html", "<html>"), fault.Upstream, "answered 404 Not Found; check the path in mcp.url"},
	"405": {answers(405, "text/plain", "Method Not Allowed"), fault.Upstream, "needs Streamable HTTP"},
	"429": {answers(429, "text/plain", ""), fault.Unavailable, "429 Too Many Requests; try again later"},
	"500": {answers(500, "text/plain", "configured-token failed"), fault.Unavailable,
		"500 Internal Server Error; try again"},
	"502": {answers(502, "text/html", "<html>"), fault.Unavailable, "502 Bad Gateway; try again later"},
	"a page": {answers(200, "text/html; charset=utf-8", "<html>configured-token"), fault.Upstream,
		"answered with text/html, which is not MCP; check mcp.url"},
	"a redirect to a login page": {func(w http.ResponseWriter) {
		w.Header().Set("Location", "/login?key=configured-token")
		w.WriteHeader(302)
	}, fault.Upstream, "redirects (302 Found); write the address of MCP itself"},
	"another version": {answers(200, "application/json",
		`{"jsonrpc":"2.0","id":2,"result":{"protocolVersion":"2099-01-01"}}`),
		fault.Upstream, `speaks version "2099-01-01" of MCP`},
}

func TestTheErrorOfAConnectionHasTheCauseAndARemedy(t *testing.T) {
	t.Parallel()
	for name, c := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.answer(w) }))
			checkUnusable(t, mcp.Options{URL: srv.URL + "/mcp?key=configured-key"}, c.kind, c.want)
		})
	}
}

// checkUnusable checks the error of a server whose tools can't be listed.
func checkUnusable(t *testing.T, o mcp.Options, kind fault.Kind, want string) {
	t.Helper()
	o.Headers = map[string]string{"Authorization": "Bearer configured-token"}
	_, err := open(t, o).Tools(t.Context())
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(e.Detail, want) {
		t.Fatalf("%v, want %q", err, want)
	}
	if strings.Contains(e.Detail, "127.0.0.1") || strings.Contains(e.Detail, "localhost") {
		t.Errorf("%q has the address", e.Detail)
	}
	if all := fmt.Sprint(e.Detail, e.Cause); strings.Contains(all, "configured-") || strings.Contains(all, "\n") {
		t.Errorf("%q has a secret or a line end", all)
	}
}

func TestTheErrorOfAServerThatCannotBeReachedHasTheCause(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewTLSServer(&script{})
	t.Cleanup(untrusted.Close)
	untrusted.Config.ErrorLog = nil
	plain := serve(t, &script{})
	for url, want := range map[string]string{
		closed.URL:                        "the connection was refused; check that it runs, and the port in mcp.url",
		untrusted.URL:                     "its certificate is not trusted",
		"https" + plain.URL[len("http"):]: "it does not speak TLS; check http and https in mcp.url",
		"http://no-such-host.invalid/mcp": "its name is not known; check the host in mcp.url",
	} {
		checkUnusable(t, mcp.Options{URL: url}, fault.Unavailable, "The tool server cannot be reached: "+want)
	}
}

func TestAListThatCannotBeReadIsAnErrorAndAnEntryIsLeftOut(t *testing.T) {
	t.Parallel()
	s := &script{list: `{"tools":{"look":1}}`}
	checkUnusable(t, mcp.Options{URL: serve(t, s).URL}, fault.Upstream, "list of tools can't be read")
	s = &script{list: `{"tools":[null,{"name":5},{"inputSchema":{}},{"name":"look"},{"name":"look"},` +
		`{"name":"list","inputSchema":{"type":"array"}},` +
		`{"name":"research","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}]}`}
	all, err := open(t, mcp.Options{URL: serve(t, s).URL}).Tools(t.Context())
	var unfit []string
	for _, c := range all {
		unfit = append(unfit, c.Name+" "+c.Unfit)
	}
	want := []string{" has no entry that can be read in its server's list", " has no entry that can be read in its " +
		"server's list", " has no entry that can be read in its server's list", "look ", "look is listed twice by its server",
		"list has parameters that can't be used: it is not the schema of an object",
		"research must be called as a task of MCP, which is not supported"}
	if err != nil || !slices.Equal(unfit, want) {
		t.Errorf("%q, %v, want %q", unfit, err, want)
	}
}

func TestPagesWithoutEndAreNotRead(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(n int) string{
		"the same cursor": func(int) string { return "again" }, "new cursors": func(n int) string { return fmt.Sprint(n) },
	} {
		s := &script{}
		n := 0
		srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			s.mu.Lock()
			s.list = `{"tools":[],"nextCursor":"` + next(n) + `"}`
			s.mu.Unlock()
			s.ServeHTTP(w, r)
		}))
		if got, err := open(t, mcp.Options{URL: srv.URL}).Tools(t.Context()); err != nil || len(got) != 0 || n > 1100 {
			t.Errorf("%s: %v, %v after %d requests", name, got, err, n)
		}
	}
}

// A server may send ever more pages within the time of a connection.
func TestAListWithoutEndIsNotKept(t *testing.T) {
	t.Parallel()
	for name, page := range map[string]func(n int) string{
		"long cursors": func(n int) string {
			return fmt.Sprintf(`{"tools":[],"nextCursor":"%d%s"}`, n, strings.Repeat("c", 1<<20))
		},
		"long tools": func(n int) string {
			return fmt.Sprintf(`{"tools":[{"name":"t%d","description":"%s"}],"nextCursor":"%[1]d"}`, n,
				strings.Repeat("d", 1<<20))
		},
	} {
		s, n := &script{}, 0
		srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			s.mu.Lock()
			s.list = page(n)
			s.mu.Unlock()
			s.ServeHTTP(w, r)
		}))
		_, err := open(t, mcp.Options{URL: srv.URL}).Tools(t.Context())
		if err == nil || !strings.Contains(fault.Detail(err), "list of tools is larger than 4 MiB") || n > 10 {
			t.Errorf("%s: %v after %d requests", name, err, n)
		}
	}
}

// Behind a load balancer the second request of a session may reach an instance that doesn't know it.
func TestASessionThatIsLostWhileItIsMadeIsAnErrorWithARemedy(t *testing.T) {
	t.Parallel()
	s := &script{unknown: lost["TypeScript's transport"]}
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.restart()
		s.ServeHTTP(w, r)
	}))
	checkUnusable(t, mcp.Options{URL: srv.URL}, fault.Upstream, "several instances")
	if s.count("initialize") != 2 {
		t.Errorf("requests %v", s.seen)
	}
}

func TestASlowListDoesNotDelayCalls(t *testing.T) {
	t.Parallel()
	s, now := &script{t: t}, time.Unix(1_800_000_000, 0)
	listing, release := make(chan struct{}), make(chan struct{})
	var again atomic.Bool
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if again.Load() && strings.Contains(string(body), "tools/list") {
			close(listing)
			<-release
		}
		s.ServeHTTP(w, r)
	}))
	set := open(t, mcp.Options{URL: srv.URL, Now: func() time.Time { return now }})
	look := tools(t, set)["look"]
	again.Store(true)
	now = now.Add(time.Hour)
	listed := make(chan error)
	go func() { _, err := set.Tools(t.Context()); listed <- err }()
	<-listing
	if got, err := look.Call(t.Context(), nil); got != "done" {
		t.Errorf("%q, %v", got, err)
	}
	close(release)
	if err := <-listed; err != nil {
		t.Error(err)
	}
}

// The text of an integer above 2^53 changes in each reader that uses float64.
func TestNumbersStayAsTheyWereSent(t *testing.T) {
	t.Parallel()
	const sent = `{"id":9007199254740993, "f":1.0,"e":1e2,"big":123456789012345678901234567890,"n":-0,"t":"<&>ü"}`
	for name, asEvent := range map[string]bool{"as JSON": false, "as an event": true} {
		s := &script{}
		look := s.look(t, mcp.Options{})
		s.call = func(w http.ResponseWriter, _ *http.Request, id string) {
			r := `{"content":[],"structuredContent":` + sent + `}`
			if asEvent {
				sendEvents(w, `data: {"jsonrpc":"2.0","id":`+id+`,"result":`+r+`}`)
				return
			}
			result(w, id, r)
		}
		const arguments = ` {"id": 9007199254740993,"f":1.0,"e":1e2,"twice":1,"twice":2,"t":"<&>ü"} `
		if got, err := look.Call(t.Context(), json.RawMessage(arguments)); got != sent {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if body := s.body("tools/call"); !strings.Contains(body, `"arguments":`+arguments) {
			t.Errorf("%s: the server received %s", name, body)
		}
	}
}

// A server closes the stream of a call so that it needs no connection for a slow tool, and
// states when to come back (SEP-1699).
func TestAStreamThatTheServerClosesIsContinued(t *testing.T) {
	t.Parallel()
	for name, first := range map[string][]string{
		"on purpose":           {"id: 1\nretry: 1\ndata:"},
		"without a time":       {"id: 1\ndata: "},
		"after progress":       {"id: 0\ndata:", "id: 1\ndata: " + `{"jsonrpc":"2.0","method":"notifications/message"}`},
		"with other line ends": {"id: 1\r\nretry: 5\r\ndata:\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{}
			var id string
			resumed := 0
			s.listen = func(w http.ResponseWriter, r *http.Request) {
				switch last := r.Header.Get("Last-Event-ID"); {
				case last == "":
					w.WriteHeader(http.StatusMethodNotAllowed)
				case last == "1" && resumed < 7: // more often than attempts without progress
					resumed++
					w.WriteHeader(http.StatusServiceUnavailable)
					if resumed > 2 {
						resumed = 7
					}
				case last == "1":
					sendEvents(w, "id: 2\nretry: 1\ndata:")
				default:
					sendEvents(w, `data: {"jsonrpc":"2.0",`+"\ndata: "+`"id":`+id+`,"result":`+textOf("late")+`}`)
				}
			}
			s.call = func(w http.ResponseWriter, _ *http.Request, called string) {
				id = called
				sendEvents(w, first...)
			}
			look := s.look(t, mcp.Options{})
			if got, err := look.Call(t.Context(), nil); got != "late" {
				t.Errorf("%q, %v", got, err)
			}
			if s.count("tools/call") != 1 || s.count("DELETE") != 0 {
				t.Errorf("requests %v", s.seen)
			}
		})
	}
}

func TestAStreamThatCannotBeContinuedFailsTheCallOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"the session is lost":   {lost["fastmcp and mcp 1.30"], "ended the session before it answered"},
		"no streams":            {answers(405, "", ""), "405 Method Not Allowed"},
		"nothing new, for ever": {answers(200, "text/event-stream", "id: 1\ndata:\n\n"), "closed the connection"},
	} {
		s := &script{}
		s.listen = func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Last-Event-ID") == "" {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			c.answer(w)
		}
		s.call = func(w http.ResponseWriter, _ *http.Request, _ string) { sendEvents(w, "id: 1\nretry: 1\ndata:") }
		look := s.look(t, mcp.Options{})
		if _, err := look.Call(t.Context(), nil); err == nil || !strings.Contains(fault.Detail(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if s.count("tools/call") != 1 {
			t.Errorf("%s: the call was repeated", name)
		}
		s.call = nil
		if got, err := look.Call(t.Context(), nil); got != "done" {
			t.Errorf("%s, the next call: %q, %v", name, got, err)
		}
	}
}

// A server asks in the stream of the call, or in one that the client opened before.
func TestAServersQuestionsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{
		"roots/list": `"result":{"roots":[]}`, "ping": `"result":{}`,
		"sampling/createMessage": `"error":{"code":-32601,"message":"Keyway does not support sampling/createMessage"}`,
		"elicitation/create":     `"error":{"code":-32601,"message":"Keyway does not support elicitation/create"}`,
	} {
		for name, ownStream := range map[string]bool{"in the call's stream": true, "in the other stream": false} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				question := `data: {"jsonrpc":"2.0","id":"q-1","method":"` + method + `","params":{}}`
				asked, answered := make(chan struct{}), make(chan struct{})
				s := &script{listen: func(w http.ResponseWriter, r *http.Request) {
					sendEvents(w)
					select {
					case <-asked:
						sendEvents(w, question)
					case <-r.Context().Done():
					}
					<-r.Context().Done()
				}}
				srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s.ServeHTTP(w, r)
					if s.count(http.MethodPost) == 1 && r.Method == http.MethodPost {
						select {
						case <-answered:
						default:
							close(answered)
						}
					}
				}))
				s.call = func(w http.ResponseWriter, r *http.Request, id string) {
					sendEvents(w)
					if ownStream {
						sendEvents(w, question)
					} else {
						close(asked)
					}
					select {
					case <-answered:
						sendEvents(w, `data: {"jsonrpc":"2.0","id":`+id+`,"result":`+textOf("after the answer")+`}`)
					case <-r.Context().Done():
					}
				}
				look := tools(t, open(t, mcp.Options{URL: srv.URL}))["look"]
				if got, err := look.Call(t.Context(), nil); got != "after the answer" {
					t.Fatalf("%q, %v", got, err)
				}
				if body := s.body(http.MethodPost); body != `{"jsonrpc":"2.0","id":"q-1",`+want+`}` {
					t.Errorf("answered %s", body)
				}
			})
		}
	}
}

func TestProgressExtendsTheTimeOfACall(t *testing.T) {
	t.Parallel()
	const limit = 500 * time.Millisecond
	s := &script{}
	s.call = func(w http.ResponseWriter, r *http.Request, id string) {
		for range 8 { // in all, twice the limit
			select {
			case <-time.After(limit / 4):
			case <-r.Context().Done():
				return
			}
			sendEvents(w, `data: {"method":"notifications/progress","params":{"progressToken":`+id+`,"progress":1}}`)
		}
		sendEvents(w, `data: {"jsonrpc":"2.0","id":`+id+`,"result":`+textOf("slow")+`}`)
	}
	look := s.look(t, mcp.Options{Timeout: limit})
	if got, err := look.Call(t.Context(), nil); got != "slow" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestACallWithoutProgressEndsAndTheServerIsNotified(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.call = func(w http.ResponseWriter, r *http.Request, id string) {
		sendEvents(w, `data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"another"}}`)
		<-r.Context().Done()
	}
	set := open(t, mcp.Options{URL: serve(t, s).URL, Timeout: 300 * time.Millisecond})
	look := tools(t, set)["look"]
	_, err := look.Call(t.Context(), nil)
	if fault.KindOf(err) != fault.Unavailable || fault.Detail(err) != "The tool server did not answer within 0.3 seconds" {
		t.Errorf("%v", err)
	}
	s.call = nil
	if got, err := look.Call(t.Context(), nil); got != "done" || s.count("initialize") != 1 {
		t.Errorf("the next call: %q, %v, requests %v", got, err, s.seen)
	}
	for deadline := time.Now().Add(10 * time.Second); s.count("notifications/cancelled") == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("requests %v", s.seen)
		}
		time.Sleep(time.Millisecond)
	}
	if body := s.body("notifications/cancelled"); !strings.Contains(body, `{"requestId":4}`) {
		t.Errorf("%s", body)
	}
	if s.count("DELETE") != 0 {
		t.Error("the session was ended")
	}
	_ = set.Close()
	if s.count("DELETE") != 1 {
		t.Error("Close did not end the session")
	}
}

func TestTheServerLearnsWhoCalls(t *testing.T) {
	t.Parallel()
	s := &script{}
	look := s.look(t, mcp.Options{Version: "1.2.3"})
	if _, err := look.Call(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for method, h := range s.headers {
		if h.Get("User-Agent") != "keyway/1.2.3" {
			t.Errorf("%s has the User-Agent %q", method, h.Get("User-Agent"))
		}
	}
	if !strings.Contains(s.bodies["initialize"], `"clientInfo":{"name":"keyway","version":"1.2.3"}`) {
		t.Errorf("%s", s.bodies["initialize"])
	}
	h := s.headers["tools/call"]
	if h.Get("Mcp-Session-Id") != "session-1" || h.Get("Mcp-Protocol-Version") != "2025-11-25" {
		t.Errorf("the call has the headers %v", h)
	}
}

func TestAStatelessServerGetsArgumentsInHeaders(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 1)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Mcp-Method") {
		case "server/discover":
			result(w, "1", `{"supportedVersions":["2026-07-28"],"capabilities":{}}`)
		case "tools/list":
			result(w, "2", `{"tools":[{"name":"look","inputSchema":{"type":"object","properties":{`+
				`"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},`+
				`"deep":{"type":"object","properties":{"ok":{"type":"boolean","x-mcp-header":"Ok"}}},`+
				`"none":{"type":"string","x-mcp-header":"None"}}}},`+
				`{"name":"bad","inputSchema":{"type":"object","properties":{"a":{"type":"array","x-mcp-header":"A"}}}}]}`)
		case "tools/call":
			headers <- r.Header
			result(w, "3", textOf("done"))
		}
	}))
	set := tools(t, open(t, mcp.Options{URL: srv.URL}))
	if len(set) != 1 {
		t.Errorf("%d tools; a header of an array is not valid", len(set))
	}
	got, err := set["look"].Call(t.Context(), json.RawMessage(`{"region":" zürich","n":5,"deep":{"ok":true},"none":null}`))
	if err != nil || got != "done" {
		t.Fatalf("%q, %v", got, err)
	}
	h := <-headers
	for name, want := range map[string]string{
		"Mcp-Name": "look", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Session-Id": "", "Mcp-Param-N": "5",
		"Mcp-Param-Ok": "true", "Mcp-Param-None": "", "Mcp-Param-Region": "=?base64?IHrDvHJpY2g=?=",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, h.Get(name), want)
		}
	}
}

func TestManyCallsShareOneNewSession(t *testing.T) {
	t.Parallel()
	s := &script{unknown: lost["fastmcp and mcp 1.30"]}
	look := s.look(t, mcp.Options{})
	s.restart()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := look.Call(context.WithoutCancel(t.Context()), nil); got != "done" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := s.count("initialize"); n != 2 {
		t.Errorf("%d sessions", n)
	}
}
