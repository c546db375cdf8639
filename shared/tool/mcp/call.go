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

// offer makes Tools of what the server lists. One whose name no vendor takes, whose
// name came before or whose parameters are no JSON Schema of an object is left out,
// and an error only when Allow names it.
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
			unfit[t.Name] = "has a name that models do not take"
		case !ok:
			unfit[t.Name] = "has parameters that are not a JSON Schema of an object"
		default:
			delete(unfit, t.Name)
			seen[t.Name] = true
			tools = append(tools, tool.Tool{Name: t.Name, Description: t.Description, Parameters: parameters, Call: s.caller(t.Name)})
		}
	}
	for _, name := range s.o.Allow {
		if why, bad := unfit[name]; bad {
			return nil, fault.Public(fault.Upstream, fmt.Sprintf("The tool server's tool %q %s; correct mcp.allow", name, why), nil)
		}
	}
	if len(tools) > maxOffered {
		return nil, fault.Public(fault.Upstream, fmt.Sprintf("The tool server offers %d tools, models take %d; name those to use in mcp.allow", len(tools), maxOffered), nil)
	}
	return tools, nil
}

func schema(v any) (json.RawMessage, bool) {
	m, ok := v.(map[string]any)
	if !ok || m["type"] != "object" {
		return nil, false
	}
	if p, has := m["properties"]; !has {
		m["properties"] = map[string]any{} // OpenAI refuses an object without it
	} else if _, ok := p.(map[string]any); !ok {
		return nil, false
	}
	text, err := json.Marshal(m)
	return text, err == nil
}

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
		return read(result)
	}
}

// call tries again, once and in a new session, only when the server cannot have
// begun: a tool may do something that must not be done twice.
func (s *Server) call(ctx context.Context, p *sdk.CallToolParams) (*sdk.CallToolResult, error) {
	for again := true; ; again = false {
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
		if !again || !seen.notBegun {
			return nil, cmp.Or(seen.err, err) // the SDK keeps only the text of the transport's error
		}
	}
}

// read is a result as text.
func read(r *sdk.CallToolResult) (string, error) {
	if r.NeedsInput() {
		return "", errors.New("the tool asks a person for input, which is not supported")
	}
	var parts []string
	texts := false
	for _, c := range r.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			texts = true
			parts = append(parts, t.Text)
		} else {
			parts = append(parts, describe(c))
		}
	}
	if !texts && r.StructuredContent != nil {
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

// answered is the message of an error that the server itself sent. The SDK gives
// its own failures the same type.
func answered(err error) (string, bool) {
	e, ok := errors.AsType[*jsonrpc.Error](err)
	if !ok || slices.Contains(sdkCodes, e.Code) {
		return "", false
	}
	return e.Message, true
}

// sdkCodes are "client is closing", "server is closing" and "rejected by
// transport" in the SDK's internal/jsonrpc2.
var sdkCodes = []int64{-32003, -32004, -32005}

// isAnswer reports whether the session is well in spite of err.
func isAnswer(err error) bool {
	if _, ok := answered(err); ok {
		return true
	}
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

// outcome is what the transport saw of one call.
type outcome struct {
	err      error
	notBegun bool        // no server has read the request, or it knew no such session
	tooLarge atomic.Bool // set by whoever reads the body
}

type outcomeKey struct{}

// bounded caps every answer and tells outcome what happened.
type bounded struct{ http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	seen, _ := r.Context().Value(outcomeKey{}).(*outcome)
	if err != nil {
		if seen != nil {
			seen.err, seen.notBegun = err, errors.Is(err, syscall.ECONNREFUSED)
		}
		return nil, err
	}
	if seen != nil {
		seen.notBegun = resp.StatusCode == http.StatusNotFound
	}
	resp.Body = &body{ReadCloser: resp.Body, left: maxBody, seen: seen}
	return resp, nil
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (b *bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

type body struct {
	io.ReadCloser
	left int
	seen *outcome // nil outside of calls
}

var errTooLarge = fault.Public(fault.Upstream, "The tool server's answer is larger than 4 MiB", nil)

func (b *body) Read(p []byte) (int, error) {
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
