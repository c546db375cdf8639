package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The versions of the protocol. From stateless on there are no sessions: each request
// carries what the server needs to know of the client.
const (
	stateless = "2026-07-28"
	stateful  = "2025-11-25"
)

// older holds the versions with sessions that a server may choose instead of stateful.
var older = []string{stateful, "2025-06-18", "2025-03-26", "2024-11-05"}

// session is one session at the server, or, for a stateless server, what it said about
// itself.
type session struct {
	s       *Server
	version string
	id      string // empty if the server doesn't use session ids
	lastID  atomic.Int64

	mu       sync.Mutex
	progress map[string]func() // by the id of the call
	listening
}

// newSession makes a session. It first asks as a client of a stateless server does; a
// server with sessions refuses that in one of many ways, and is then asked as the older
// versions do.
func (s *Server) newSession(ctx context.Context) (*session, error) {
	c := &session{s: s, version: stateless, progress: map[string]func(){}}
	known, err := c.discover(ctx)
	if known {
		return c, nil
	}
	if e, ok := errors.AsType[*httpError](err); ctx.Err() != nil || ok && e.beforeMCP() {
		return nil, err
	}
	c.version = ""
	if err := c.initialize(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// discover asks which versions the server supports, and reports whether it is stateless.
func (c *session) discover(ctx context.Context) (bool, error) {
	result, _, err := c.request(ctx, outgoing{method: "server/discover"})
	if err != nil {
		return false, err
	}
	var found struct {
		Versions []string `json:"supportedVersions"`
	}
	err = json.Unmarshal(result, &found)
	return err == nil && slices.Contains(found.Versions, stateless), err
}

// initialize makes a session of the older versions.
func (c *session) initialize(ctx context.Context) error {
	result, header, err := c.request(ctx, outgoing{method: "initialize", params: members{
		{"protocolVersion", stateful}, {"capabilities", struct{}{}}, {"clientInfo", c.s.about()},
	}})
	if err != nil {
		return err
	}
	var chosen struct {
		Version string `json:"protocolVersion"`
	}
	if err := json.Unmarshal(result, &chosen); err != nil || !slices.Contains(older, chosen.Version) {
		text := fmt.Sprintf("The tool server speaks version %q of MCP, which is not supported; update the server or Keyway",
			c.s.safe(chosen.Version, 40))
		return fault.Public(fault.Upstream, text, err)
	}
	c.version, c.id = chosen.Version, header.Get("Mcp-Session-Id")
	if err := c.notify(ctx, "notifications/initialized", nil); err != nil {
		c.s.closing.Go(c.end)
		return err
	}
	return nil
}

// implementation is what a client says about itself.
type implementation struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// about describes this client.
func (s *Server) about() implementation { return implementation{"keyway", s.o.Version} }

// listTools reads the pages of the list of tools. It stops when every tool in allow is
// found, so that a server with many tools can be used by naming some of them.
func (c *session) listTools(ctx context.Context, allow []string) (listed []json.RawMessage, err error) {
	missing := make(map[string]bool, len(allow))
	for _, name := range allow {
		missing[name] = true
	}
	cursors := map[string]bool{}
	size := 0
	for cursor := ""; ; {
		o := outgoing{method: "tools/list"}
		if cursor != "" {
			o.params = members{{"cursor", cursor}}
		}
		result, _, err := c.request(ctx, o)
		if err != nil {
			return nil, err
		}
		page := struct {
			Tools []json.RawMessage `json:"tools"`
			Next  string            `json:"nextCursor"`
		}{}
		if err := json.Unmarshal(result, &page); err != nil {
			return nil, c.s.unreadable("list of tools", err)
		}
		if size += len(result); size > maxBody {
			const text = "The tool server's list of tools is larger than 4 MiB; name those to use in mcp.allow"
			return nil, fault.Public(fault.Upstream, text, nil)
		}
		if listed = append(listed, page.Tools...); len(listed) > maxListed {
			const text = "The tool server lists more than 1000 tools; name those to use in mcp.allow"
			return nil, fault.Public(fault.Upstream, text, nil)
		}
		for _, t := range page.Tools {
			delete(missing, nameOf(t))
		}
		// A server that repeats a cursor, or sends ever new ones without tools, would keep this loop running.
		cursor = page.Next
		if cursor == "" || len(allow) > 0 && len(missing) == 0 || cursors[cursor] || len(cursors) == maxListed {
			return listed, nil
		}
		cursors[cursor] = true
	}
}

// callTool calls a tool and returns its result. progress is called whenever the server
// reports progress. If ctx ends first, the server gets a notification.
func (c *session) callTool(
	ctx context.Context, name string, arguments json.RawMessage, headers http.Header, progress func(),
) (json.RawMessage, error) {
	defer c.listen(ctx)()
	result, _, err := c.request(ctx, outgoing{
		method: "tools/call", name: name, header: headers, progress: progress,
		params: members{{"name", name}, {"arguments", arguments}},
	})
	return result, err
}

// abandon notifies the server that nobody waits for the answer to a request any more. A
// stateless server notices that by the closed connection.
func (c *session) abandon(id string) {
	if c.version == stateless {
		return
	}
	c.s.background(func() {
		ctx, cancel := context.WithTimeout(c.s.life, closeTime)
		defer cancel()
		_ = c.notify(ctx, "notifications/cancelled", members{{"requestId", json.RawMessage(id)}}) // it is only a courtesy
	})
}

// end ends the session at the server. An error would mean that there is none any more.
func (c *session) end() {
	c.stopListening()
	if c.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	r, err := c.newRequest(ctx, http.MethodDelete, nil)
	if err != nil {
		return
	}
	if resp, err := c.s.client.Do(r); err == nil {
		_ = resp.Body.Close()
	}
}

// nextID returns an id that no other request of the session has.
func (c *session) nextID() string { return strconv.FormatInt(c.lastID.Add(1), 10) }

// watch calls progress for each progress notification for the request id, until the
// returned function is called.
func (c *session) watch(id string, progress func()) (stop func()) {
	if progress == nil {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress[id] = progress
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.progress, id)
	}
}

// progressed handles a progress notification. Its token is the id of the call, as a
// number or, from some servers, as a string.
func (c *session) progressed(params json.RawMessage) {
	var p struct {
		Token json.RawMessage `json:"progressToken"`
	}
	if json.Unmarshal(params, &p) != nil {
		return
	}
	c.mu.Lock()
	progress := c.progress[unquoted(p.Token)]
	c.mu.Unlock()
	if progress != nil {
		progress()
	}
}

// answerQuestion answers a request of the server. This client has no roots, and neither
// a model nor a person for a server's questions, so it refuses at once; otherwise the
// tool would wait until the call's time is over.
func (c *session) answerQuestion(ctx context.Context, m message) {
	reply := members{{"jsonrpc", "2.0"}, {"id", m.ID}}
	switch m.Method {
	case "ping":
		reply = append(reply, pair{"result", struct{}{}})
	case "roots/list":
		reply = append(reply, pair{"result", map[string][]string{"roots": {}}})
	default:
		refusal := rpcError{Code: methodNotFound, Message: "Keyway does not support " + c.s.safe(m.Method, 60)}
		reply = append(reply, pair{"error", refusal})
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	_ = c.send(ctx, reply.json()) // if the answer doesn't arrive, the call itself fails
}

// notify sends a notification.
func (c *session) notify(ctx context.Context, method string, params members) error {
	note := members{{"jsonrpc", "2.0"}, {"method", method}}
	if params != nil {
		note = append(note, pair{"params", params.json()})
	}
	return c.send(ctx, note.json())
}

// send sends a message that has no answer.
func (c *session) send(ctx context.Context, body []byte) error {
	r, err := c.newRequest(ctx, http.MethodPost, body)
	if err != nil {
		return err
	}
	resp, err := c.s.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return c.refusal(resp)
	}
	return nil
}
