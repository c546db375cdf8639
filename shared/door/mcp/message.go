package mcp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// The codes of JSON-RPC's errors (https://www.jsonrpc.org/specification, section 5.1).
const (
	CodeParse         = -32700
	CodeInvalid       = -32600
	CodeUnknownMethod = -32601
	CodeParams        = -32602
	CodeInternal      = -32603
)

// The codes of MCP's own errors (https://modelcontextprotocol.io/specification/2026-07-28/basic).
const (
	CodeHeader  = -32020 // a header and the message differ
	CodeVersion = -32022 // an unknown version of the protocol
	CodeRefused = -32000 // the HTTP status is the reason
)

// Message is a request or a notification of a client, as Read has checked it.
type Message struct {
	// ID is the id of a request as it was sent. A notification has none.
	ID json.RawMessage
	// Method is one that this server answers, or that of any notification.
	Method string
	params strictjson.Value // an object, or absent or null
}

// Error is an error about a whole message.
type Error struct {
	// Status is that of the HTTP response, and Header are further headers of it. Header defaults to none.
	Status int
	Header http.Header
	// ID is the id of the message as it was sent, or nil if it is unknown.
	ID json.RawMessage
	// Code is one of the codes above.
	Code int
	// Text is for the caller. The answer has its first 2 KB.
	Text string
	// Data is JSON with further members, such as the missing scopes. Defaults to none.
	Data json.RawMessage
}

// Message returns the error as a JSON-RPC response.
func (e *Error) Message() []byte {
	out := appendResponse(nil, e.ID, "error")
	out = strconv.AppendInt(append(out, `{"code":`...), int64(e.Code), 10)
	out = wire.AppendText(append(out, `,"message":`...), fault.Short(e.Text))
	if e.Data != nil {
		out = append(append(out, `,"data":`...), e.Data...)
	}
	return append(out, "}}"...)
}

// Write sends the error as a JSON-RPC error.
func (e *Error) Write(w http.ResponseWriter) {
	for name, values := range e.Header {
		w.Header()[name] = values
	}
	WriteJSON(w, e.Status, e.Message())
}

// WriteJSON sends a message as a whole answer.
func WriteJSON(w http.ResponseWriter, status int, message []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(message)))
	w.WriteHeader(status)
	_, _ = w.Write(message) // the connection may be closed
}

// appendResponse appends a response to the id, up to its member result or error.
func appendResponse(out []byte, id json.RawMessage, member string) []byte {
	if id == nil {
		id = json.RawMessage("null")
	}
	out = append(append(out, `{"jsonrpc":"2.0","id":`...), id...)
	return append(append(append(out, `,"`...), member...), `":`...)
}

// requests are the methods that this server answers. There are no prompts, resources, logging and subscriptions.
var requests = []string{"initialize", "ping", "server/discover", "tools/list", "tools/call"}

// maxID is the largest number that every client reads back as it was sent: a float64 has all integers up to it
// (RFC 8259 section 6).
const maxID = 1<<53 - 1

// Read decides whether a body is a message that the server understands, before anything decodes it: decoded, a body
// of small values takes a hundred times its size, and a decoder sees another value than the reader before it where
// names are repeated. version is the header Mcp-Protocol-Version, or "".
func Read(body []byte, version string) (m Message, e *Error) {
	wrong := func(code int, text string) (Message, *Error) {
		return m, &Error{Status: http.StatusBadRequest, ID: m.ID, Code: code, Text: text}
	}
	if e := strictjson.Check(body, strictjson.Options{
		MaxDepth: bound.MCPDepth.Default, MaxValues: bound.MCPValues.Default, Distinct: true,
	}); e != nil {
		text := fmt.Sprintf("%s, at byte %d of the body", e.Text, e.Offset)
		if e.IsJSON() {
			return wrong(CodeInvalid, text+fmt.Sprintf(". %s. %s, and no two members of one name.",
				bound.MCPDepth.Exceeded(bound.MCPDepth.Default, 0), bound.MCPValues.Exceeded(bound.MCPValues.Default, 0)))
		}
		return wrong(CodeParse, "The body is no JSON document: "+text)
	}
	root := strictjson.Root(string(body))
	if root.Raw[0] == '[' {
		return wrong(CodeInvalid, "A body has one JSON-RPC message, and no batch of several")
	}
	var found [4]strictjson.Value
	if root.Raw[0] != '{' || !root.Find([]string{"jsonrpc", "id", "method", "params"}, found[:]) {
		return wrong(CodeInvalid, "The body must be an object with the members jsonrpc, id, method and params, "+
			"in lower case")
	}
	if id := found[1]; id.Raw != "" {
		if text := wrongID("id", id); text != "" {
			return wrong(CodeInvalid, text)
		}
		m.ID = json.RawMessage(id.Raw)
	}
	tag := ""
	m.params = found[3]
	switch {
	case found[0].IsNone() || !found[0].ReadText(&tag) || tag != "2.0":
		return wrong(CodeInvalid, `jsonrpc must be "2.0"`)
	case found[2].IsNone() || !found[2].ReadText(&m.Method):
		return wrong(CodeInvalid, "method must be a text. This server asks its clients nothing, so that it accepts no "+
			"responses")
	case !m.params.IsNone() && m.params.Raw[0] != '{':
		return wrong(CodeInvalid, "params must be an object")
	}
	notified := strings.HasPrefix(m.Method, "notifications/")
	switch {
	case notified && m.ID != nil:
		return wrong(CodeInvalid, "A notification has no id")
	case notified:
		return m, nil
	case m.ID == nil:
		return wrong(CodeInvalid, "id is missing: only a notification has none")
	case slices.Contains(requests, m.Method):
		return m, nil
	}
	return m, m.fails(version, CodeUnknownMethod, fmt.Sprintf("There is no method %.100q", m.Method))
}

// fails returns an error of the message with the HTTP status that the version of the protocol demands.
func (m Message) fails(version string, code int, text string) *Error {
	e := &Error{Status: http.StatusOK, ID: m.ID, Code: code, Text: text}
	switch {
	case version < Stateless: // its clients take a 404 for the end of their session
	case code == CodeUnknownMethod:
		e.Status = http.StatusNotFound
	case code == CodeParams || code == CodeVersion:
		e.Status = http.StatusBadRequest
	}
	return e
}

// wrongID returns what is wrong with an id that the client has chosen, or "". The answer repeats it, so that it must be
// one that every reader reads in the same way.
func wrongID(name string, id strictjson.Value) string {
	text := ""
	if id.Raw[0] == '"' && id.ReadText(&text) {
		if len(text) > bound.ShortText.Default {
			return fmt.Sprintf("%s should have at most %d bytes", name, bound.ShortText.Default)
		}
		return ""
	}
	if n, err := strconv.ParseInt(id.Raw, 10, 64); err != nil || n > maxID || n < -maxID {
		return name + " must be a text, or an integer from -(2^53-1) to 2^53-1"
	}
	return ""
}
