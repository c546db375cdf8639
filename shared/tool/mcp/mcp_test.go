package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/mcp"
	"github.com/keyway-agents/keyway/shared/tool/tooltest"
)

// TestMain fails if a test leaves a goroutine of the client running. The SDK's server
// keeps a session until the client ends it, so goroutines of a server that a test has
// stopped are ignored.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(
		"github.com/modelcontextprotocol/go-sdk/mcp.(*streamableServerConn).Read"))
}

// message is the parameters of the server's tools.
type message struct {
	Text string `json:"text" jsonschema:"the text to return"`
}

// slowness controls the slow tool. It sends to started when it is called, and returns
// when its call is cancelled or quit is closed. A test must close quit, because the
// server's session ends only after its calls.
type slowness struct{ started, quit chan struct{} }

// newServer returns the SDK's own server with a tool of every kind.
func newServer(slow ...slowness) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	sdk.AddTool(s, &sdk.Tool{Name: "echo", Description: "Returns the text."},
		func(_ context.Context, _ *sdk.CallToolRequest, in message) (*sdk.CallToolResult, any, error) {
			return textResult(in.Text), nil, nil
		})
	sdk.AddTool(s, &sdk.Tool{Name: "fail"},
		func(context.Context, *sdk.CallToolRequest, message) (*sdk.CallToolResult, any, error) {
			return nil, nil, errors.New("the kettle is empty")
		})
	sdk.AddTool(s, &sdk.Tool{Name: "slow"}, func(
		ctx context.Context, _ *sdk.CallToolRequest, _ message,
	) (*sdk.CallToolResult, any, error) {
		for _, s := range slow {
			s.started <- struct{}{}
			select {
			case <-ctx.Done():
			case <-s.quit:
			}
		}
		return nil, nil, errors.New("never answered")
	})
	sdk.AddTool(s, &sdk.Tool{Name: "huge"},
		func(context.Context, *sdk.CallToolRequest, message) (*sdk.CallToolResult, any, error) {
			return textResult(strings.Repeat("x", 10<<20)), nil, nil
		})
	raw := func(r sdk.CallToolResult) sdk.ToolHandler {
		return func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			one := r // a copy, because the SDK changes it
			return &one, nil
		}
	}
	object := json.RawMessage(`{"type":"object"}`)
	s.AddTool(&sdk.Tool{Name: "picture", InputSchema: object}, raw(sdk.CallToolResult{Content: []sdk.Content{
		&sdk.TextContent{Text: "look"}, &sdk.ImageContent{MIMEType: "image/png", Data: make([]byte, 123)},
	}}))
	s.AddTool(&sdk.Tool{Name: "figures", InputSchema: object}, raw(sdk.CallToolResult{
		Content: []sdk.Content{}, StructuredContent: map[string]any{"n": 1},
	}))
	return s
}

func textResult(text string) *sdk.CallToolResult {
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}}
}

// handler serves s over Streamable HTTP.
func handler(s *sdk.Server, o *sdk.StreamableHTTPOptions) http.Handler {
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, o)
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

// open returns the set of a server's tools. It is closed when the test ends.
func open(t *testing.T, o mcp.Options) *mcp.Server {
	t.Helper()
	s, err := mcp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// tools returns the tools of a set by name.
func tools(t *testing.T, s *mcp.Server) map[string]tool.Tool {
	t.Helper()
	list, err := s.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]tool.Tool{}
	for _, c := range list {
		if c.Unfit == "" {
			m[c.Name] = c
		}
	}
	return m
}

// text returns arguments with a text.
func text(s string) json.RawMessage {
	data, _ := json.Marshal(message{s})
	return data
}

// kinds holds the ways in which the transport allows a server to respond.
var kinds = map[string]*sdk.StreamableHTTPOptions{
	"stateful": nil, "stateless": {Stateless: true}, "json": {JSONResponse: true},
	"stateless json": {Stateless: true, JSONResponse: true},
}

func TestTheToolsFollowTheRulesOfEveryTool(t *testing.T) {
	t.Parallel()
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, mcp.Options{URL: serve(t, handler(newServer(), o)).URL, Allow: []string{"echo", "picture"}})
			tooltest.Run(t, s, map[string]string{"echo": `{"text":"hi"}`, "picture": `{}`})
		})
	}
}

func TestAResultBecomesText(t *testing.T) {
	t.Parallel()
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := tools(t, open(t, mcp.Options{URL: serve(t, handler(newServer(), o)).URL}))
			for tool, want := range map[string]string{
				"echo": "größe 日本", "picture": "look\n[image/png, 123 bytes]", "figures": `{"n":1}`,
			} {
				if got, err := all[tool].Call(t.Context(), text("größe 日本")); err != nil || got != want {
					t.Errorf("%s: %q, %v, want %q", tool, got, err, want)
				}
			}
			if _, err := all["fail"].Call(t.Context(), text("x")); err == nil || err.Error() != "the kettle is empty" {
				t.Errorf("a tool that fails: %v", err)
			}
			_, err := all["echo"].Call(t.Context(), json.RawMessage(`{}`))
			if err == nil || !strings.Contains(err.Error(), "text") {
				t.Errorf("a missing argument: %v", err)
			}
			_, err = all["huge"].Call(t.Context(), text("x"))
			if err == nil || !strings.Contains(fault.Detail(err), "larger than 4 MiB") {
				t.Errorf("10 MB: %.200v", err)
			}
			if got, err := all["echo"].Call(t.Context(), text("still here")); err != nil || got != "still here" {
				t.Errorf("after 10 MB: %q, %v", got, err)
			}
		})
	}
}

func TestACallEndsWithItsContextAndWithTheSet(t *testing.T) {
	t.Parallel()
	slow := slowness{make(chan struct{}), make(chan struct{})}
	srv := serve(t, handler(newServer(slow), nil))
	t.Cleanup(func() { close(slow.quit) })
	s := open(t, mcp.Options{URL: srv.URL})
	all := tools(t, s)
	why := errors.New("the user pressed stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-slow.started; cancel(why) }()
	if _, err := all["slow"].Call(ctx, text("x")); !errors.Is(err, why) {
		t.Errorf("%v, want the cause", err)
	}
	if got, err := all["echo"].Call(t.Context(), text("on")); got != "on" {
		t.Errorf("the next call: %q, %v", got, err)
	}
	done := make(chan error, 1)
	go func() { _, err := all["slow"].Call(t.Context(), text("x")); done <- err }()
	<-slow.started
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a call when the set is closed: %v", err)
	}
	if _, err := s.Tools(t.Context()); err == nil {
		t.Error("a closed set has tools")
	}
}

func TestToolsAreListedOnceAMinute(t *testing.T) {
	t.Parallel()
	var lists atomic.Int64
	server := newServer()
	server.AddReceivingMiddleware(func(next sdk.MethodHandler) sdk.MethodHandler {
		return func(ctx context.Context, method string, r sdk.Request) (sdk.Result, error) {
			if method == "tools/list" {
				lists.Add(1)
			}
			return next(ctx, method, r)
		}
	})
	now := time.Unix(1_800_000_000, 0)
	s := open(t, mcp.Options{URL: serve(t, handler(server, nil)).URL, Now: func() time.Time { return now }})
	for range 3 {
		tools(t, s)
	}
	first := lists.Load()
	now = now.Add(time.Minute)
	tools(t, s)
	if first != 1 || lists.Load() != 2 {
		t.Errorf("listed %d times in the first minute, %d in two", first, lists.Load())
	}
}

// restart serves h at the address of a server that was stopped.
func restart(t *testing.T, address string, h http.Handler) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}} //nolint:gosec // a test's
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
}

func TestARestartedServerIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := httptest.NewServer(handler(newServer(), o))
			s := open(t, mcp.Options{URL: first.URL})
			echo := tools(t, s)["echo"]
			first.CloseClientConnections()
			first.Close()
			_, err := echo.Call(t.Context(), text("x"))
			if fault.KindOf(err) != fault.Unavailable || strings.Contains(fault.Detail(err), "127.0.0.1") {
				t.Errorf("while it is stopped: %v", err)
			}
			restart(t, strings.TrimPrefix(first.URL, "http://"), handler(newServer(), o))
			if got, err := echo.Call(t.Context(), text("again")); got != "again" {
				t.Errorf("after the restart: %q, %v", got, err)
			}
			if got := tools(t, s); len(got) != 6 {
				t.Errorf("%d tools after the restart", len(got))
			}
		})
	}
}

func TestAnUnknownSessionIsReplaced(t *testing.T) {
	t.Parallel()
	var h atomic.Value
	h.Store(handler(newServer(), nil))
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Load().(http.Handler).ServeHTTP(w, r)
	}))
	echo := tools(t, open(t, mcp.Options{URL: srv.URL}))["echo"]
	h.Store(handler(newServer(), nil))
	if got, err := echo.Call(t.Context(), text("again")); got != "again" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestACallThatMayHaveStartedIsNotRepeated(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	h := handler(newServer(), nil)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.Header.Get("X-Break") == "1" && r.ContentLength > 0 {
			body := make([]byte, r.ContentLength)
			_, _ = r.Body.Read(body)
			if strings.Contains(string(body), `"tools/call"`) {
				calls.Add(1)
				panic(http.ErrAbortHandler)
			}
			r.Body = http.NoBody
			r2 := r.Clone(r.Context())
			r2.Body = readCloser{strings.NewReader(string(body))}
			r = r2
		}
		h.ServeHTTP(w, r)
	}))
	s := open(t, mcp.Options{URL: srv.URL, Headers: map[string]string{"X-Break": "1"}})
	echo := tools(t, s)["echo"]
	if _, err := echo.Call(t.Context(), text("x")); err == nil || calls.Load() != 1 {
		t.Errorf("%v after %d calls, want an error after one", err, calls.Load())
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestHeadersAreSentToTheServersOriginOnly(t *testing.T) {
	t.Parallel()
	leaked := make(chan http.Header, 1)
	other := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked <- r.Header }))
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer configured" {
			t.Errorf("headers %v", r.Header)
		}
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	s := open(t, mcp.Options{URL: srv.URL, Headers: map[string]string{"Authorization": "Bearer configured"}})
	if _, err := s.Tools(t.Context()); err == nil || !strings.Contains(fmt.Sprint(err), "egress.allow") {
		t.Errorf("%v, want the egress rule", err)
	}
	select {
	case h := <-leaked:
		t.Errorf("the other origin received a request with %v", h)
	default:
	}
}

func TestTheAllowedToolsAreOfferedAndAMissingOneIsAnError(t *testing.T) {
	t.Parallel()
	url := serve(t, handler(newServer(), nil)).URL
	if got := tools(t, open(t, mcp.Options{URL: url, Allow: []string{"echo"}})); len(got) != 1 || got["echo"].Name == "" {
		t.Errorf("%d tools", len(got))
	}
	_, err := open(t, mcp.Options{URL: url, Allow: []string{"echo", "ehco"}}).Tools(t.Context())
	if err == nil || !strings.Contains(fault.Detail(err), `"ehco" does not exist there; correct mcp.allow`) {
		t.Errorf("%v", err)
	}
}

func TestToolsThatModelsCannotCallAreUnfitOrAnError(t *testing.T) {
	t.Parallel()
	object := json.RawMessage(`{"type":"object"}`)
	never := func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return nil, errors.New("never")
	}
	server := func(list ...*sdk.Tool) string {
		s := sdk.NewServer(&sdk.Implementation{Name: "liar", Version: "1"}, nil)
		for _, c := range list {
			s.AddTool(c, never)
		}
		return serve(t, handler(s, nil)).URL
	}
	odd := server(
		&sdk.Tool{Name: "good", InputSchema: object},
		&sdk.Tool{Name: "with.dot", InputSchema: object},
		&sdk.Tool{Name: strings.Repeat("n", 128), InputSchema: object},
		&sdk.Tool{Name: "list", InputSchema: json.RawMessage(`{"type":"object","properties":[1]}`)})
	if got := tools(t, open(t, mcp.Options{URL: odd})); len(got) != 1 || got["good"].Name == "" {
		t.Errorf("tools %v", got)
	}
	_, err := open(t, mcp.Options{URL: odd, Allow: []string{"with.dot"}}).Tools(t.Context())
	if err == nil || !strings.Contains(fault.Detail(err), "has a name that models do not accept") {
		t.Errorf("a name with a dot: %v", err)
	}
	var crowd []*sdk.Tool
	for i := range 10_000 {
		crowd = append(crowd, &sdk.Tool{Name: fmt.Sprint("t", i), InputSchema: object})
	}
	many := server(crowd...)
	_, err = open(t, mcp.Options{URL: many}).Tools(t.Context())
	if err == nil || !strings.Contains(fault.Detail(err), "mcp.allow") {
		t.Errorf("10,000 tools: %v", err)
	}
}
