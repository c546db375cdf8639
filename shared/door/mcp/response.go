package mcp

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// appendInitialized appends the result of initialize. The version is the client's, if it is one with sessions that the
// server speaks, and the newest of those otherwise.
func (s Server) appendInitialized(out []byte, version string) []byte {
	if version == Stateless || !slices.Contains(versions, version) {
		version = versions[1]
	}
	out = wire.AppendText(append(out, `{"protocolVersion":`...), version)
	out = s.appendInfo(append(out, `,"capabilities":{"tools":{}},"serverInfo":`...))
	return append(out, '}')
}

// appendDiscovered appends the result of server/discover.
func (s Server) appendDiscovered(out []byte) []byte {
	out = strictjson.AppendTexts(append(out, `{"supportedVersions":`...), versions)
	return s.appendEnd(append(out, `,"capabilities":{"tools":{}},`+uncached+`,`...), "complete")
}

// uncached forbids clients to keep a result: a list is one caller's, and a change of tokens or of keyway.yaml changes
// it.
const uncached = `"ttlMs":0,"cacheScope":"private"`

// appendInfo appends what the server is.
func (s Server) appendInfo(out []byte) []byte {
	out = wire.AppendText(append(out, `{"name":`...), s.ID)
	if s.Name != "" {
		out = wire.AppendText(append(out, `,"title":`...), s.Name)
	}
	out = wire.AppendText(append(out, `,"version":`...), s.Version)
	return append(out, '}')
}

// appendEnd appends the members that all results since Stateless have, and closes the result.
func (s Server) appendEnd(out []byte, kind string) []byte {
	out = append(append(append(out, `"resultType":"`...), kind...), `","_meta":{"`+metaServer+`":`...)
	return append(s.appendInfo(out), "}}"...)
}

// appendList appends the result of tools/list.
func (s Server) appendList(out []byte, tools []Tool, stateless bool) []byte {
	out = append(out, `{"tools":[`...)
	for i, t := range tools {
		if i > 0 {
			out = append(out, ',')
		}
		title := cmp.Or(t.Title, t.Name)
		out = wire.AppendText(append(out, `{"name":`...), t.Name)
		out = wire.AppendText(append(out, `,"title":`...), title)
		out = wire.AppendText(append(out, `,"description":`...), t.Description)
		out = appendSchema(append(out, `,"inputSchema":`...), t.Fields, true)
		out = wire.AppendText(append(out, `,"annotations":{"title":`...), title)
		out = strconv.AppendBool(append(out, `,"readOnlyHint":`...), t.ReadOnly)
		out = append(out, `,"idempotentHint":false,"openWorldHint":true}}`...)
	}
	out = append(out, `],`+uncached...)
	if !stateless {
		return append(out, '}')
	}
	return s.appendEnd(append(out, ','), "complete")
}

// appendSchema appends the JSON Schema of an object with these fields. closed means that it has no others.
func appendSchema(out []byte, fields []Field, closed bool) []byte {
	out = append(out, `{"type":"object","properties":{`...)
	var required []string
	for i, f := range fields {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(wire.AppendText(out, f.Name), `:{"type":`...)
		out = wire.AppendText(out, cmp.Or(f.Type, "string"))
		if f.Description != "" {
			out = wire.AppendText(append(out, `,"description":`...), f.Description)
		}
		if f.Fields != nil {
			out = appendSchema(append(out, `,"items":`...), f.Fields, false)
		}
		out = append(out, '}')
		if f.Required {
			required = append(required, f.Name)
		}
	}
	out = append(out, '}')
	if required != nil {
		out = strictjson.AppendTexts(append(out, `,"required":`...), required)
	}
	if closed {
		out = append(out, `,"additionalProperties":false`...)
	}
	return append(out, '}')
}

// appendResult appends the result of a call.
func (s Server) appendResult(out []byte, r Result, stateless bool) ([]byte, *Error) {
	out = append(out, '{')
	if r.Questions != nil {
		return s.appendEnd(appendQuestions(out, r), "input_required"), nil
	}
	out = append(out, `"content":[`...)
	for i, text := range r.Texts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(wire.AppendText(append(out, `{"type":"text","text":`...), text), '}')
	}
	out = append(out, ']')
	if r.Data != nil {
		data, err := wire.Marshal(r.Data)
		if err != nil {
			return nil, &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Text: "Internal server error"}
		}
		out = append(append(out, `,"structuredContent":`...), data...)
	}
	if r.Failed {
		out = append(out, `,"isError":true`...)
	}
	if !stateless {
		return append(out, '}'), nil
	}
	return s.appendEnd(append(out, ','), "complete"), nil
}

// appendQuestions appends the forms for the client's user.
func appendQuestions(out []byte, r Result) []byte {
	out = append(out, `"inputRequests":{`...)
	for i, key := range slices.Sorted(maps.Keys(r.Questions)) {
		if i > 0 {
			out = append(out, ',')
		}
		q := r.Questions[key]
		out = append(wire.AppendText(out, key), `:{"method":"elicitation/create","params":{"mode":"form","message":`...)
		out = append(wire.AppendText(out, q.Message), `,"requestedSchema":`...)
		out = append(appendSchema(out, q.Fields, false), "}}"...)
	}
	out = append(out, `},"requestState":`...)
	return append(wire.AppendText(out, r.State), ',')
}

// appendProgress appends a notification: the call with this token has come to its nth step.
func appendProgress(out []byte, token string, n int, text string) []byte {
	out = append(out, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":`...)
	out = strconv.AppendInt(append(append(out, token...), `,"progress":`...), int64(n), 10)
	return append(wire.AppendText(append(out, `,"message":`...), text), "}}"...)
}
