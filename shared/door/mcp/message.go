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
	CodeInternal      = -32603
)

// Error is an error about a whole message.
type Error struct {
	// Status is that of the HTTP response.
	Status int
	// ID is the id of the message as it was sent, or nil if it is unknown.
	ID json.RawMessage
	// Code is one of the codes above.
	Code int
	// Text is for the caller. Write shortens it.
	Text string
}

// Write sends the error as a JSON-RPC error.
func (e *Error) Write(w http.ResponseWriter) {
	type inner struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	id := e.ID
	if id == nil {
		id = json.RawMessage("null")
	}
	body, _ := wire.Marshal(struct { // never fails
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   inner           `json:"error"`
	}{"2.0", id, inner{e.Code, fault.Short(e.Text)}})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the connection may be closed
}

// requests are the methods that this server answers, and notifications those that it accepts. There are no prompts,
// resources, logging and subscriptions.
var (
	requests      = []string{"initialize", "ping", "server/discover", "tools/list", "tools/call"}
	notifications = []string{"notifications/initialized", "notifications/cancelled", "notifications/progress",
		"notifications/roots/list_changed"}
)

// maxID is the largest number that every client reads back as it was sent: a float64 has all integers up to it
// (RFC 8259 section 6).
const maxID = 1<<53 - 1

// Check decides whether a body is a message that the server understands, before anything decodes it: decoded, a body
// of small values takes a hundred times its size, and a decoder sees another value than the reader before it where
// names are repeated. It returns the id of a request, and nil for a notification. ignored means that it is a
// notification that means nothing here. version is the header Mcp-Protocol-Version, or "".
func Check(body []byte, version string) (id json.RawMessage, ignored bool, e *Error) {
	wrong := func(code int, text string) (json.RawMessage, bool, *Error) {
		return nil, false, &Error{Status: http.StatusBadRequest, ID: id, Code: code, Text: text}
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
	given, params := found[1], found[3]
	if given.Raw != "" {
		if text := wrongID(given); text != "" {
			return wrong(CodeInvalid, text)
		}
		id = json.RawMessage(given.Raw)
	}
	tag, method := "", ""
	switch {
	case found[0].IsNone() || !found[0].ReadText(&tag) || tag != "2.0":
		return wrong(CodeInvalid, `jsonrpc must be "2.0"`)
	case found[2].IsNone() || !found[2].ReadText(&method):
		return wrong(CodeInvalid, "method must be a text. This server asks its clients nothing, so that it accepts no "+
			"responses")
	case !params.IsNone() && params.Raw[0] != '{':
		return wrong(CodeInvalid, "params must be an object")
	}
	notified := strings.HasPrefix(method, "notifications/")
	switch {
	case notified && id != nil:
		return wrong(CodeInvalid, "A notification has no id")
	case notified:
		return nil, !slices.Contains(notifications, method), nil
	case id == nil:
		return wrong(CodeInvalid, "id is missing: only a notification has none")
	case slices.Contains(requests, method):
		return id, false, nil
	}
	e = &Error{
		Status: http.StatusOK, ID: id, Code: CodeUnknownMethod, Text: fmt.Sprintf("There is no method %.100q", method),
	}
	if version >= Stateless { // clients of older versions take a 404 for the end of their session
		e.Status = http.StatusNotFound
	}
	return nil, false, e
}

// Stateless is the first version of the protocol without sessions.
const Stateless = "2026-07-28"

// wrongID returns what is wrong with the id of a message, or "". The answer repeats the id, so that it must be one that
// every reader reads in the same way.
func wrongID(id strictjson.Value) string {
	text := ""
	if id.Raw[0] == '"' && id.ReadText(&text) {
		if len(id.Raw) > bound.ShortText.Default {
			return fmt.Sprintf("id should have at most %d bytes", bound.ShortText.Default)
		}
		return ""
	}
	if n, err := strconv.ParseInt(id.Raw, 10, 64); err != nil || n > maxID || n < -maxID {
		return "id must be a text, or an integer from -(2^53-1) to 2^53-1"
	}
	return ""
}
