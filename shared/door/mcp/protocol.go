package mcp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// versions are the versions of the protocol that the server speaks, the newest first.
var versions = []string{Stateless, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

// Stateless is the first version of the protocol without sessions. Before it, a client introduces itself by initialize;
// since then, each request says which version it is of and what its client can do.
const Stateless = "2026-07-28"

// The headers of a client.
const (
	VersionHeader = "Mcp-Protocol-Version"
	methodHeader  = "Mcp-Method"
	nameHeader    = "Mcp-Name"
)

// The members of _meta that describe a request since Stateless.
const (
	metaVersion      = "io.modelcontextprotocol/protocolVersion"
	metaCapabilities = "io.modelcontextprotocol/clientCapabilities"
	metaServer       = "io.modelcontextprotocol/serverInfo"
)

// Server answers the messages of clients. It keeps nothing from one to the next, so that any process can answer any
// message, in each version of the protocol.
type Server struct {
	// ID and Name are those of the OS, and Version is Keyway's. Clients show them. Name defaults to none.
	ID, Name, Version string
}

// Offer is what one caller can use. All its members are required.
type Offer struct {
	// Tools returns what the caller is allowed to call, in the order of the list.
	Tools func() []Tool
	// Call calls the tool of that name. An error is a result that the client's model reads, unless Refused reports it.
	// ErrUnknownTool means that there is no such tool.
	Call func(tool string, c Call) (Result, error)
	// Refused reports whether an error of a call refuses the caller, so that the answer has its HTTP status: a client then
	// knows which scopes to ask for.
	Refused func(error) *Error
	// Notify sends a message to the client before the answer.
	Notify func(message []byte)
}

// ErrUnknownTool is the error of a call of a tool that doesn't exist.
var ErrUnknownTool = errors.New("unknown tool")

// Answer returns the response to a request, or an error, and neither for a notification. It returns when the call of a
// tool has returned.
func (s Server) Answer(h http.Header, m Message, o Offer) (response []byte, e *Error) {
	q, e := m.request(h)
	if e != nil || m.ID == nil {
		return nil, e
	}
	out := appendResponse(nil, m.ID, "result")
	switch {
	case m.Method == "initialize" && !q.stateless():
		version := ""
		if !q.params[paramVersion].ReadText(&version) || version == "" {
			return nil, m.fails(q.version, CodeParams, "params.protocolVersion must be a text")
		}
		out = s.appendInitialized(out, version)
	case m.Method == "ping" && !q.stateless():
		out = append(out, "{}"...)
	case m.Method == "server/discover" && q.stateless():
		out = s.appendDiscovered(out)
	case m.Method == "tools/list":
		if cursor := ""; !q.params[paramCursor].ReadText(&cursor) || cursor != "" {
			return nil, m.fails(q.version, CodeParams, "params.cursor is unknown: the list has one page")
		}
		out = s.appendList(out, o.Tools(), q.stateless())
	case m.Method == "tools/call":
		result, e := m.call(q, o)
		if e != nil {
			return nil, e
		}
		if out, e = s.appendResult(out, result, q.stateless()); e != nil {
			e.ID = m.ID
			return nil, e
		}
	default:
		return nil, m.fails(q.version, CodeUnknownMethod,
			fmt.Sprintf("The method %s is of another version of the protocol", m.Method))
	}
	return append(out, '}'), nil
}

// request is what a message contains beside its method.
type request struct {
	version string // of the protocol, or "" if it is unknown
	asks    bool   // the client can show forms to its user, and repeats a call with the answers
	// progress is the token by which the client wants to see progress, or "".
	progress     string
	capabilities strictjson.Value
	params       [len(paramNames)]strictjson.Value
}

// The members of params that the server reads.
const (
	paramMeta = iota
	paramVersion
	paramCursor
	paramName
	paramArguments
	paramState
	paramResponses
)

var paramNames = [...]string{
	"_meta", "protocolVersion", "cursor", "name", "arguments", "requestState", "inputResponses",
}

// stateless reports whether the request is of a version without sessions.
func (q request) stateless() bool { return q.version >= Stateless }

// request reads the headers of a message and its params. They must agree, because a proxy between a client and
// this server decides by the headers.
func (m Message) request(h http.Header) (q request, e *Error) {
	wrong := func(status, code int, text string) (request, *Error) {
		return q, &Error{Status: status, ID: m.ID, Code: code, Text: text}
	}
	for _, name := range []string{VersionHeader, methodHeader, nameHeader} {
		if len(h.Values(name)) > 1 { // a proxy may decide by another one than this server
			return wrong(http.StatusBadRequest, CodeHeader, name+" must be sent once")
		}
	}
	q.version = h.Get(VersionHeader)
	asJSON, asEvents := accepted(h.Values("Accept"))
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case q.version != "" && !q.stateless() && !slices.Contains(versions, q.version):
		return wrong(http.StatusBadRequest, CodeInvalid,
			VersionHeader+" names an unknown version. Known are "+strings.Join(versions, ", "))
	case kind != "application/json":
		return wrong(http.StatusUnsupportedMediaType, CodeInvalid, "Content-Type must be application/json")
	case !asJSON || !asEvents:
		return wrong(http.StatusBadRequest, CodeInvalid, "Accept must have application/json and text/event-stream")
	case !q.stateless() && len(h.Values("Last-Event-Id")) > 0: // a later version ignores it
		return wrong(http.StatusBadRequest, CodeInvalid, "A message continues no earlier stream: it has no Last-Event-ID")
	}
	if !m.params.IsNone() && !m.params.Find(paramNames[:], q.params[:]) {
		return q, m.fails(q.version, CodeParams, "A member of params has a name in another case than the protocol's")
	}
	if m.ID != nil {
		if e := m.readMeta(&q); e != nil {
			return q, e
		}
	}
	if !q.stateless() {
		// An older client has sent its capabilities in another request, and no process remembers them.
		return q, nil
	}
	named, name := decoded(h.Get(nameHeader)), ""
	switch {
	case h.Get(methodHeader) != m.Method:
		return wrong(http.StatusBadRequest, CodeHeader, methodHeader+" must be the method of the message")
	case m.Method == "tools/call" && (!q.params[paramName].ReadText(&name) || name == "" || named != name):
		return wrong(http.StatusBadRequest, CodeHeader, nameHeader+" must be the name of the tool, params.name")
	case m.ID != nil && !slices.Contains(versions, q.version):
		e := m.fails(q.version, CodeVersion, "Unknown version of the protocol")
		e.Data, _ = json.Marshal(struct { // never fails
			Supported []string `json:"supported"`
			Requested string   `json:"requested"`
		}{versions, fault.Short(q.version)})
		return q, e
	case m.ID != nil && !q.readCapabilities():
		return q, m.fails(q.version, CodeParams,
			"params._meta must have the member "+metaCapabilities+", an object of objects")
	}
	return q, nil
}

// decoded returns the text of a header that its client has encoded, because it is no plain ASCII
// (https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http#value-encoding). Any other
// header is returned as it is.
func decoded(header string) string {
	inner, begins := strings.CutPrefix(header, "=?base64?")
	inner, ends := strings.CutSuffix(inner, "?=")
	if !begins || !ends {
		return header
	}
	text, err := base64.StdEncoding.DecodeString(inner)
	if err != nil {
		return ""
	}
	return string(text)
}

// readMeta reads the version and the token in _meta.
func (m Message) readMeta(q *request) *Error {
	const version, token, capabilities = 0, 1, 2
	var found [3]strictjson.Value
	wrong := func(code int, text string) *Error {
		return &Error{Status: http.StatusBadRequest, ID: m.ID, Code: code, Text: text}
	}
	if meta := q.params[paramMeta]; !meta.IsNone() &&
		!meta.Find([]string{metaVersion, "progressToken", metaCapabilities}, found[:]) {
		return m.fails(q.version, CodeParams, "params._meta must be an object, with the names of the protocol in their case")
	}
	if !found[token].IsNone() {
		if text := wrongID("params._meta.progressToken", found[token]); text != "" {
			return m.fails(q.version, CodeParams, text)
		}
		q.progress = found[token].Raw
	}
	q.capabilities = found[capabilities]
	said := ""
	switch {
	case !found[version].ReadText(&said) || said == "" && q.stateless():
		return wrong(CodeParams, "params._meta must have the member "+metaVersion)
	case said != "" && said != q.version:
		return wrong(CodeHeader, VersionHeader+" must be the version in params._meta")
	}
	return nil
}

// readCapabilities reads what the client of a request can do. It is false if the request doesn't contain that.
func (q *request) readCapabilities() bool {
	var forms, kinds [2]strictjson.Value
	switch c := q.capabilities; {
	case c.IsNone() || !c.Find([]string{"elicitation"}, forms[:1]),
		!forms[0].IsNone() && !forms[0].Find([]string{"form", "url"}, kinds[:]):
		return false
	}
	q.asks = !forms[0].IsNone() && (!kinds[0].IsNone() || kinds[1].IsNone())
	return true
}

// accepted returns which of the two kinds of answers a client accepts (RFC 9110 section 12.5.1, without weights).
func accepted(accept []string) (asJSON, asEvents bool) {
	for _, value := range accept {
		for kind := range strings.SplitSeq(value, ",") {
			kind, _, _ = strings.Cut(kind, ";")
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "application/json", "application/*":
				asJSON = true
			case "text/event-stream", "text/*":
				asEvents = true
			case "*/*":
				asJSON, asEvents = true, true
			}
		}
	}
	return asJSON, asEvents
}

// call executes the call of a tool.
func (m Message) call(q request, o Offer) (result Result, e *Error) {
	c := Call{Asks: q.asks}
	name, state := "", q.params[paramState]
	wrong := func(text string) (Result, *Error) { return result, m.fails(q.version, CodeParams, text) }
	if !q.params[paramName].ReadText(&name) || name == "" {
		return wrong("params.name must be the name of a tool")
	}
	if !state.ReadText(&c.State) {
		return wrong("params.requestState must be a text")
	}
	if given := q.params[paramArguments]; !given.IsNone() {
		c.Arguments = json.RawMessage(given.Raw)
	}
	if given := q.params[paramResponses]; !given.IsNone() {
		var ok bool
		if c.Answers, ok = answersOf(given); !ok {
			return wrong("params.inputResponses must have objects with the members action and content, " +
				"as the answers to forms have them")
		}
	}
	if q.progress != "" {
		n := 0
		c.Progress = func(text string) {
			n++
			o.Notify(appendProgress(nil, q.progress, n, text))
		}
	}
	result, err := o.Call(name, c)
	switch {
	case err == nil:
		return result, nil
	case errors.Is(err, ErrUnknownTool):
		return wrong(fmt.Sprintf("unknown tool %.100q", name))
	}
	if e := o.Refused(err); e != nil {
		e.ID, e.Code = m.ID, CodeRefused
		return result, e
	}
	return Result{Texts: []string{err.Error()}, Failed: true}, nil
}

// answersOf reads the answers to forms. It is false if they are none.
func answersOf(given strictjson.Value) (map[string]Answer, bool) {
	if given.Raw[0] != '{' {
		return nil, false
	}
	answers := map[string]Answer{}
	for key, value := range given.Members() {
		var found [2]strictjson.Value
		action := ""
		if !value.Find([]string{"action", "content"}, found[:]) || !found[0].ReadText(&action) || action == "" {
			return nil, false
		}
		a := Answer{Accepted: action == "accept", Declined: action == "decline"}
		if content := found[1]; !content.IsNone() {
			if content.Raw[0] != '{' {
				return nil, false
			}
			a.Values = map[string]json.RawMessage{}
			for name, field := range content.Members() {
				a.Values[name] = json.RawMessage(field.Raw)
			}
		}
		answers[key] = a
	}
	return answers, true
}
