// Package protocol speaks the Model Context Protocol with one client, by the official SDK. It is without sessions: each
// request stands for itself, so that any process can answer it. It serves the versions of the SDK, from 2026-07-28
// down to 2024-11-05.
package protocol

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/fault"
)

// New makes a server of an OS, which is described by its id, its name and Keyway's version. The server returns when the
// calls of a request have returned, also if the client has disconnected.
func New(id, name, version string) mcp.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: id, Title: name, Version: version}, &sdk.ServerOptions{
		Capabilities: &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{}},
		// The list is one caller's, and a change of tokens or of keyway.yaml changes it.
		SetCacheable: func(_ context.Context, _ sdk.Request, c *sdk.Cacheable) { c.CacheScope = "private" },
		Logger:       slog.New(slog.DiscardHandler), // it would log what clients send
	})
	// The tools are those of a request. To add them to a server of its own would cost more than the rest of the
	// request, so that the SDK knows one tool, which stands for all.
	server.AddTool(&sdk.Tool{Name: anyTool, InputSchema: &jsonschema.Schema{Type: "object"}}, call)
	server.AddReceivingMiddleware(offered)
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{
		Stateless: true,
		Logger:    slog.New(slog.DiscardHandler),
		// A web page that reaches this server under another name has no token, and a proxy on this machine is allowed.
		DisableLocalhostProtection: true,
		MaxRequestBodyBytes:        -1, // the caller has bounded the body
	})
	return func(w http.ResponseWriter, r *http.Request, offer mcp.Offer) {
		a := &answer{ResponseWriter: w, offer: offer}
		handler.ServeHTTP(a, r.WithContext(context.WithValue(r.Context(), contextKey{}, a)))
		a.end()
	}
}

// anyTool is the name by which the SDK knows all tools. No client can call it: it is no name of a tool.
const anyTool = "any tool"

// contextKey is the key of the *answer in the context of a request.
type contextKey struct{}

// toolKey is the key of the tool that is called in the context of a call.
type toolKey struct{}

// offered answers a list and chooses the tool of a call, by what is offered to the request's caller.
func offered(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (sdk.Result, error) {
		a, ok := ctx.Value(contextKey{}).(*answer)
		if !ok {
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: "Internal server error"}
		}
		switch req := req.(type) {
		case *sdk.ListToolsRequest:
			list := &sdk.ListToolsResult{Tools: []*sdk.Tool{}, Cacheable: sdk.Cacheable{CacheScope: "private"}}
			for _, tool := range a.offer.Tools {
				list.Tools = append(list.Tools, described(tool))
			}
			return list, nil
		case *sdk.CallToolRequest:
			name := req.Params.Name
			i := slices.IndexFunc(a.offer.Tools, func(t mcp.Tool) bool { return t.Name == name })
			if i < 0 {
				if err := a.offer.Unlisted(name); err != nil {
					return a.failed(err)
				}
				return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: fmt.Sprintf("unknown tool %.100q", name)}
			}
			req.Params.Name = anyTool
			ctx = context.WithValue(ctx, toolKey{}, a.offer.Tools[i])
		}
		return next(ctx, method, req)
	}
}

// call executes a call of the tool in ctx.
func call(ctx context.Context, req *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
	a, _ := ctx.Value(contextKey{}).(*answer)
	tool, ok := ctx.Value(toolKey{}).(mcp.Tool)
	if a == nil || !ok {
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: "Internal server error"}
	}
	a.working.Add(1)
	defer a.working.Done()
	c := callOf(ctx, req)
	c.Begun = a.keepAlive
	result, err := tool.Call(c)
	if err != nil {
		return a.failed(err)
	}
	return resultOf(result), nil
}

// described returns the tool as the SDK lists it.
func described(t mcp.Tool) *sdk.Tool {
	input := schema(t.Fields)
	input.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}} // false
	return &sdk.Tool{
		Name: t.Name, Title: t.Title, Description: t.Description, InputSchema: input,
		Annotations: &sdk.ToolAnnotations{Title: t.Title, ReadOnlyHint: t.ReadOnly, OpenWorldHint: new(true)},
	}
}

// schema returns the JSON Schema of an object with these fields.
func schema(fields []mcp.Field) *jsonschema.Schema {
	out := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}}
	for _, f := range fields {
		property := &jsonschema.Schema{Type: cmp.Or(f.Type, "string"), Description: f.Description}
		if f.Fields != nil {
			property.Items = schema(f.Fields)
		}
		out.Properties[f.Name] = property
		out.PropertyOrder = append(out.PropertyOrder, f.Name)
		if f.Required {
			out.Required = append(out.Required, f.Name)
		}
	}
	return out
}

// callOf returns a call in the words of package mcp.
func callOf(ctx context.Context, req *sdk.CallToolRequest) mcp.Call {
	call := mcp.Call{Arguments: req.Params.Arguments, State: req.Params.RequestState, Asks: asks(req)}
	for key, response := range req.Params.InputResponses {
		if form, ok := response.(*sdk.ElicitResult); ok {
			if call.Answers == nil {
				call.Answers = map[string]mcp.Answer{}
			}
			call.Answers[key] = mcp.Answer{
				Accepted: form.Action == "accept", Declined: form.Action == "decline", Values: form.Content,
			}
		}
	}
	if token := req.Params.GetProgressToken(); token != nil {
		n := 0.0
		call.Progress = func(text string) {
			n++
			_ = req.Session.NotifyProgress(context.WithoutCancel(ctx), &sdk.ProgressNotificationParams{
				ProgressToken: token, Message: text, Progress: n,
			})
		}
	}
	return call
}

// asks reports whether the client understands questions: from 2026-07-28 on, if it can show forms. What an older
// client can do, it has said in another request, and no process remembers that.
func asks(req *sdk.CallToolRequest) bool {
	p := req.Session.InitializeParams()
	capable := req.ClientCapabilities()
	return p != nil && p.ProtocolVersion >= mcp.Stateless && capable != nil && capable.Elicitation != nil &&
		(capable.Elicitation.Form != nil || capable.Elicitation.URL == nil)
}

// resultOf returns a result in the SDK's words.
func resultOf(r mcp.Result) *sdk.CallToolResult {
	if r.Questions != nil {
		out := &sdk.CallToolResult{RequestState: r.State, InputRequests: sdk.InputRequestMap{}}
		for key, q := range r.Questions {
			out.InputRequests[key] = &sdk.ElicitParams{Mode: "form", Message: q.Message, RequestedSchema: schema(q.Fields)}
		}
		return out
	}
	out := &sdk.CallToolResult{IsError: r.Failed, StructuredContent: r.Data}
	for _, text := range r.Texts {
		out.Content = append(out.Content, &sdk.TextContent{Text: text})
	}
	return out
}

// answer is the response to one request. The SDK answers a call with an event stream and the status 200. A refusal
// has the status and the headers of HTTP instead, so that clients see which scopes to ask for.
type answer struct {
	http.ResponseWriter
	offer   mcp.Offer
	working sync.WaitGroup

	mu      sync.Mutex
	refusal *mcp.Refusal
	status  int          // of an error of the SDK's that is a plain text, or 0
	held    bytes.Buffer // what the SDK has written since either
	begun   bool
	ended   bool
	idle    *time.Timer // see keepAlive
}

// idleTime is the longest time without a byte while a call is executed. Proxies commonly close connections that are
// idle for 60 seconds.
const idleTime = 15 * time.Second

// keepAlive sends a comment whenever nothing was sent for some time.
func (a *answer) keepAlive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle == nil {
		a.idle = time.AfterFunc(idleTime, a.comment)
	}
}

// comment sends a comment, which clients ignore.
func (a *answer) comment() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.refused() {
		return
	}
	a.begun = true
	if _, err := a.ResponseWriter.Write([]byte(": keep-alive\n\n")); err != nil {
		return
	}
	_ = http.NewResponseController(a.ResponseWriter).Flush()
	a.idle.Reset(idleTime)
}

// failed returns the answer to a call that ended with an error.
func (a *answer) failed(err error) (*sdk.CallToolResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.offer.Refused(err)
	if r == nil {
		out := &sdk.CallToolResult{}
		out.SetError(err)
		return out, nil
	}
	if !a.begun {
		a.refusal = r
	}
	return nil, &jsonrpc.Error{Code: codeRefused, Message: r.Text, Data: r.Data}
}

// codeRefused is the code of an error that the HTTP status explains.
const codeRefused = -32000

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.refused() {
		return
	}
	if status >= http.StatusBadRequest && strings.HasPrefix(a.Header().Get("Content-Type"), "text/plain") {
		a.status = status
		return
	}
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.ended:
		return 0, http.ErrHandlerTimeout
	case a.refused():
		return a.held.Write(p)
	}
	a.begun = true
	if _, err := a.ResponseWriter.Write(cleared(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// refused reports whether the answer is an error with an HTTP status, which end writes.
func (a *answer) refused() bool { return a.refusal != nil || a.status != 0 }

// FlushError sends what was written.
func (a *answer) FlushError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.refused() {
		return nil
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// end waits for the calls, and answers a refusal.
func (a *answer) end() {
	a.working.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if a.idle != nil {
		a.idle.Stop()
	}
	switch {
	case a.refusal != nil:
	case a.status != 0:
		e := mcp.Error{Status: a.status, ID: a.offer.ID, Code: mcp.CodeInvalid, Text: strings.TrimSpace(a.held.String())}
		if a.status >= http.StatusInternalServerError {
			e.Code, e.Text = mcp.CodeInternal, "Internal server error"
		}
		e.Write(a.ResponseWriter)
		return
	default:
		return
	}
	h := a.Header()
	h.Set("Content-Type", "application/json")
	for name, values := range a.refusal.Header {
		h[name] = values
	}
	a.ResponseWriter.WriteHeader(a.refusal.Status)
	_, _ = a.ResponseWriter.Write(message(a.held.Bytes()))
}

// cleared returns what the SDK writes, with a clear and short text if it is an error: those of the SDK name Go's types
// and repeat the header or the value that is wrong.
func cleared(written []byte) []byte {
	if !bytes.Contains(written, []byte(`"error":{"code":`)) {
		return written
	}
	text := message(written)
	var m struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   *jsonrpc.Error  `json:"error"`
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Error == nil {
		return written // a result whose data look like an error
	}
	said := fault.Short(m.Error.Message)
	if strings.Contains(said, "unmarshaling") {
		m.Error.Code, said = jsonrpc.CodeInvalidParams, "A member of params has another type than the protocol's"
	}
	if said == m.Error.Message {
		return written
	}
	m.Error.Message = said
	short, err := json.Marshal(m)
	if err != nil {
		return written
	}
	return bytes.Replace(written, text, short, 1)
}

// message returns the JSON of the one event that the SDK has written.
func message(written []byte) json.RawMessage {
	for line := range bytes.Lines(written) {
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			return bytes.TrimSpace(data)
		}
	}
	return bytes.TrimSpace(written)
}
