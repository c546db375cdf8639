package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// A streamed answer has an event for each token, and encoding/json needs most of the time that such an event costs. So
// the event of a token is encoded by the functions of this file. The bytes are those of encoding/json, which
// FuzzContent compares.

// repeated holds what the last event had in JSON. The next one has the same head, except once a second, and the same
// data of its provider.
type repeated struct {
	head     Head
	headJSON []byte // with a comma at its end
	data     []byte
	dataJSON []byte
}

// appendContent appends a Content as JSON. ok is false, and nothing is appended, if its ModelProviderData is not
// valid.
func (r *repeated) appendContent(dst []byte, e *Content) (_ []byte, ok bool) {
	if r.headJSON == nil || r.head != e.Head {
		r.head, r.headJSON = e.Head, appendHead(r.headJSON[:0], &e.Head)
	}
	if len(e.ModelProviderData) > 0 && !bytes.Equal(r.data, e.ModelProviderData) {
		var compact bytes.Buffer
		if json.Compact(&compact, e.ModelProviderData) != nil {
			return dst, false
		}
		r.data, r.dataJSON = bytes.Clone(e.ModelProviderData), EscapeLines(compact.Bytes())
	}
	dst = append(append(dst, '{'), r.headJSON...)
	dst = AppendText(append(dst, `"content":`...), e.Content)
	dst = strconv.AppendBool(append(dst, `,"workflow_agent":`...), e.WorkflowAgent)
	dst = AppendText(append(dst, `,"content_type":`...), e.ContentType)
	dst = AppendText(append(dst, `,"reasoning_content":`...), e.ReasoningContent)
	if len(e.ModelProviderData) > 0 {
		dst = append(append(dst, `,"model_provider_data":`...), r.dataJSON...)
	}
	return append(strconv.AppendInt(append(dst, `,"event_index":`...), int64(e.EventIndex), 10), '}'), true
}

// appendHead appends the members of a head, with a comma after the last one.
func appendHead(dst []byte, h *Head) []byte {
	dst = strconv.AppendInt(append(dst, `"created_at":`...), h.CreatedAt, 10)
	dst = AppendText(append(dst, `,"event":`...), h.Event)
	dst = AppendText(append(dst, `,"agent_id":`...), h.AgentID)
	dst = AppendText(append(dst, `,"agent_name":`...), h.AgentName)
	dst = AppendText(append(dst, `,"run_id":`...), h.RunID)
	dst = AppendText(append(dst, `,"session_id":`...), h.SessionID)
	dst = strconv.AppendInt(append(dst, `,"nested_depth":`...), int64(h.NestedDepth), 10)
	return append(dst, ',')
}

// AppendText appends a text as a JSON string, as Marshal encodes it, and with the escapes of EscapeLines.
func AppendText(dst []byte, text string) []byte {
	if !strings.Contains(text, "\u0085") { // strictjson escapes the other line ends
		return strictjson.AppendText(dst, text)
	}
	return append(dst, EscapeLines(strictjson.AppendText(nil, text))...)
}
