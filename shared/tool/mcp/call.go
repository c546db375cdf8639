package mcp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

// offer returns the Tools for what the server lists. It leaves out a tool whose name is
// not valid for all providers or is a duplicate, and one whose parameters aren't the
// JSON Schema of an object: a provider would refuse the whole request for one such
// tool. If Allow names a tool that is missing or left out, that is an error, so that
// the operator notices.
func (s *Server) offer(listed []*sdk.Tool) (tools []tool.Tool, err error) {
	unfit := map[string]string{}
	for _, name := range s.o.Allow {
		unfit[name] = "does not exist there"
	}
	seen := map[string]bool{}
	for _, t := range listed {
		if _, allowed := unfit[t.Name]; len(s.o.Allow) > 0 && !allowed || seen[t.Name] {
			continue
		}
		parameters, ok := schema(t.InputSchema)
		switch {
		case !tool.ValidName(t.Name):
			unfit[t.Name] = "has a name that models do not accept"
		case !ok:
			unfit[t.Name] = "has parameters that are not a JSON Schema of an object"
		default:
			delete(unfit, t.Name)
			seen[t.Name] = true
			tools = append(tools, tool.Tool{
				Name: t.Name, Description: t.Description, Parameters: parameters, Call: s.caller(t.Name),
			})
		}
	}
	for _, name := range s.o.Allow {
		if why, bad := unfit[name]; bad {
			text := fmt.Sprintf("The tool server's tool %q %s; correct mcp.allow", name, why)
			return nil, fault.Public(fault.Upstream, text, nil)
		}
	}
	if len(tools) > maxOffered {
		text := fmt.Sprintf("The tool server offers %d tools, models accept %d; name those to use in mcp.allow",
			len(tools), maxOffered)
		return nil, fault.Public(fault.Upstream, text, nil)
	}
	return tools, nil
}

// schema encodes a tool's schema. It returns false if the schema isn't that of an object.
// OpenAI refuses the schema of an object without "properties", so schema adds them.
func schema(v any) (json.RawMessage, bool) {
	m, ok := v.(map[string]any)
	if !ok || m["type"] != "object" {
		return nil, false
	}
	if p, has := m["properties"]; !has {
		m["properties"] = map[string]any{}
	} else if _, ok := p.(map[string]any); !ok {
		return nil, false
	}
	text, err := json.Marshal(m)
	return text, err == nil
}

// caller returns the Call of the tool with this name. Empty arguments count as {}.
func (s *Server) caller(name string) func(context.Context, json.RawMessage) (string, error) {
	return func(ctx context.Context, arguments json.RawMessage) (string, error) {
		if len(bytes.TrimSpace(arguments)) == 0 {
			arguments = json.RawMessage("{}")
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(arguments, &object); err != nil || object == nil {
			return "", fmt.Errorf("arguments of %s: not a JSON object", name)
		}
		ctx, cancel := s.within(ctx, callTime, "The tool server did not answer within 60 seconds")
		defer cancel()
		result, err := s.call(ctx, &sdk.CallToolParams{Name: name, Arguments: arguments})
		if err != nil {
			return "", s.public(ctx, err)
		}
		return resultText(result)
	}
}

// call calls a tool. If the session fails, it repeats the call once in a new session,
// but only if the server can't have started it: a tool may have an effect that must not
// happen twice.
func (s *Server) call(ctx context.Context, p *sdk.CallToolParams) (*sdk.CallToolResult, error) {
	for first := true; ; first = false {
		if err := s.lock(ctx); err != nil {
			return nil, err
		}
		session, err := s.connect(ctx)
		s.unlock()
		if err != nil {
			return nil, err
		}
		seen := &outcome{}
		result, err := session.CallTool(context.WithValue(ctx, outcomeKey{}, seen), p)
		if err == nil {
			return result, nil
		}
		if ctx.Err() != nil || isAnswer(err) {
			return nil, err
		}
		s.drop(session)
		if seen.tooLarge.Load() {
			return nil, errTooLarge
		}
		if !first || !seen.notStarted {
			return nil, cmp.Or(seen.err, err) // the SDK's err wraps no error: it has only a text
		}
	}
}

// resultText returns a result as text for the model, or as an error if the tool failed.
// Structured content is used only if there is no text, since servers usually send the
// same content in both forms.
func resultText(r *sdk.CallToolResult) (string, error) {
	if r.NeedsInput() {
		return "", errors.New("the tool asks a person for input, which is not supported")
	}
	var parts []string
	hasText := false
	for _, c := range r.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			hasText = true
			parts = append(parts, t.Text)
		} else {
			parts = append(parts, describe(c))
		}
	}
	if !hasText && r.StructuredContent != nil {
		if data, err := json.Marshal(r.StructuredContent); err == nil {
			parts = append([]string{string(data)}, parts...)
		}
	}
	text := strings.Join(parts, "\n")
	if r.IsError {
		if text == "" {
			text = "the tool gave no reason"
		}
		return "", errors.New(text)
	}
	return text, nil
}

// describe returns the text that replaces a content of another kind than text.
func describe(c sdk.Content) string {
	switch c := c.(type) {
	case *sdk.ImageContent:
		return fmt.Sprintf("[%s, %d bytes]", c.MIMEType, len(c.Data))
	case *sdk.AudioContent:
		return fmt.Sprintf("[%s, %d bytes]", c.MIMEType, len(c.Data))
	case *sdk.ResourceLink:
		return fmt.Sprintf("[%s: %s]", c.Name, c.URI)
	case *sdk.EmbeddedResource:
		if c.Resource == nil {
			return "[an empty resource]"
		}
		if c.Resource.Text != "" {
			return c.Resource.Text
		}
		return fmt.Sprintf("[%s, %s, %d bytes]", c.Resource.URI, c.Resource.MIMEType, len(c.Resource.Blob))
	}
	return "[content of an unknown kind]"
}

// answered returns the message of an error that the server itself sent. ok is false for
// other errors. The SDK uses the same type for its own failures; their codes
// distinguish them.
func answered(err error) (message string, ok bool) {
	e, ok := errors.AsType[*jsonrpc.Error](err)
	if !ok || slices.Contains(sdkCodes, e.Code) {
		return "", false
	}
	return e.Message, true
}

// sdkCodes holds the codes of the SDK's own failures: "client is closing", "server is
// closing" and "rejected by transport", in its package internal/jsonrpc2.
var sdkCodes = []int64{-32003, -32004, -32005}

// isAnswer reports whether err is an answer of the server or an error of this package, and
// not a failure of the session. The session can then still be used.
func isAnswer(err error) bool {
	if _, ok := answered(err); ok {
		return true
	}
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

// outcome is what limitedTransport observed of one call. The SDK's errors don't show
// it.
type outcome struct {
	// err is the transport's error.
	err error
	// notStarted states that the server can't have started the call: it refused the
	// connection, or it answered 404, which is how a server reports an unknown session
	// (specification, "Session Management").
	notStarted bool
	// tooLarge states that the response exceeded maxBody. The SDK reads the body in a
	// goroutine of its own.
	tooLarge atomic.Bool
}

// outcomeKey is the context key under which a call passes its outcome to the transport.
type outcomeKey struct{}

// limitedTransport limits each response to maxBody bytes and records the outcome of
// calls.
type limitedTransport struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b *limitedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	seen, _ := r.Context().Value(outcomeKey{}).(*outcome)
	if err != nil {
		if seen != nil {
			seen.err, seen.notStarted = err, errors.Is(err, syscall.ECONNREFUSED)
		}
		return nil, err
	}
	if seen != nil {
		seen.notStarted = resp.StatusCode == http.StatusNotFound
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxBody, seen: seen}
	return resp, nil
}

// CloseIdleConnections is called by http.Client.CloseIdleConnections.
func (b *limitedTransport) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// limitedBody fails with errTooLarge after left bytes. It reads one byte more than left
// to distinguish a body that ends there from one that is larger.
type limitedBody struct {
	io.ReadCloser
	left int
	seen *outcome // nil outside of calls
}

// errTooLarge is the error of a response with more than maxBody bytes.
var errTooLarge = fault.Public(fault.Upstream, "The tool server's answer is larger than 4 MiB", nil)

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		if b.seen != nil {
			b.seen.tooLarge.Store(true)
		}
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
