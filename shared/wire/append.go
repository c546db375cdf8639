package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
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
	dst = AppendString(append(dst, `"content":`...), e.Content)
	dst = strconv.AppendBool(append(dst, `,"workflow_agent":`...), e.WorkflowAgent)
	dst = AppendString(append(dst, `,"content_type":`...), e.ContentType)
	dst = AppendString(append(dst, `,"reasoning_content":`...), e.ReasoningContent)
	if len(e.ModelProviderData) > 0 {
		dst = append(append(dst, `,"model_provider_data":`...), r.dataJSON...)
	}
	return append(strconv.AppendInt(append(dst, `,"event_index":`...), int64(e.EventIndex), 10), '}'), true
}

// appendHead appends the members of a head, with a comma after the last one.
func appendHead(dst []byte, h *Head) []byte {
	dst = strconv.AppendInt(append(dst, `"created_at":`...), h.CreatedAt, 10)
	dst = AppendString(append(dst, `,"event":`...), h.Event)
	dst = AppendString(append(dst, `,"agent_id":`...), h.AgentID)
	dst = AppendString(append(dst, `,"agent_name":`...), h.AgentName)
	dst = AppendString(append(dst, `,"run_id":`...), h.RunID)
	dst = AppendString(append(dst, `,"session_id":`...), h.SessionID)
	dst = strconv.AppendInt(append(dst, `,"nested_depth":`...), int64(h.NestedDepth), 10)
	return append(dst, ',')
}

// AppendString appends a text as a JSON string, as Marshal encodes it, and with the escapes of EscapeLines.
func AppendString(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0 // what is before was appended
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, text[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, '\\', 'b')
			case '\f':
				dst = append(dst, '\\', 'f')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if escaped := escapeOf(r, size); escaped != "" {
			dst = append(append(dst, text[from:i]...), escaped...)
			from = i + size
		}
		i += size
	}
	return append(append(dst, text[from:]...), '"')
}

// escapeOf returns how a character beyond ASCII is escaped, or "" if it is not. encoding/json replaces what is no
// UTF-8.
func escapeOf(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size == 1:
		return `\ufffd`
	case r == '\u0085':
		return `\u0085`
	case r == '\u2028':
		return `\u2028`
	case r == '\u2029':
		return `\u2029`
	}
	return ""
}
