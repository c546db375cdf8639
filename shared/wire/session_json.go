package wire

import (
	"encoding/json"
	"iter"
	"strconv"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// A page of a list of sessions has some 300 members, and encoding/json needed more time for them than to read their
// rows. So the functions of this file append it. The bytes are those of encoding/json, which FuzzSessions compares.

// AppendSessions appends a page of sessions as Marshal encodes a Page of them. The state, the metadata and the summary
// of a session must be valid JSON, as PostgreSQL's are.
func AppendSessions(dst []byte, sessions iter.Seq[Session], meta PageMeta) []byte {
	dst = append(dst, `{"data":[`...)
	first := true
	for s := range sessions {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = s.appendTo(dst)
	}
	dst = strconv.AppendInt(append(dst, `],"meta":{"page":`...), int64(meta.Page), 10)
	dst = strconv.AppendInt(append(dst, `,"limit":`...), int64(meta.Limit), 10)
	dst = strconv.AppendInt(append(dst, `,"total_pages":`...), int64(meta.TotalPages), 10)
	dst = strconv.AppendInt(append(dst, `,"total_count":`...), int64(meta.TotalCount), 10)
	return append(dst, `,"search_time_ms":0}}`...)
}

// appendTo appends the session as JSON.
func (s *Session) appendTo(dst []byte) []byte {
	dst = strictjson.AppendText(append(dst, `{"session_id":`...), s.SessionID)
	dst = strictjson.AppendText(append(dst, `,"session_name":`...), s.SessionName)
	dst = appendDocument(dst, `,"session_state":`, s.SessionState)
	dst = s.CreatedAt.appendTo(append(dst, `,"created_at":`...))
	dst = s.UpdatedAt.appendTo(append(dst, `,"updated_at":`...))
	dst = strictjson.AppendText(append(dst, `,"session_type":`...), s.SessionType)
	dst = appendUnlessEmpty(dst, `,"user_id":`, s.UserID)
	dst = appendUnlessEmpty(dst, `,"agent_id":`, s.AgentID)
	dst = appendUnlessEmpty(dst, `,"team_id":`, s.TeamID)
	dst = appendUnlessEmpty(dst, `,"workflow_id":`, s.WorkflowID)
	dst = appendDocument(dst, `,"session_summary":`, s.Summary)
	if s.Metrics != nil {
		dst = s.Metrics.appendTo(append(dst, `,"metrics":`...))
	}
	if s.TotalTokens != 0 {
		dst = strconv.AppendInt(append(dst, `,"total_tokens":`...), int64(s.TotalTokens), 10)
	}
	dst = appendDocument(dst, `,"metadata":`, s.Metadata)
	if len(s.Omitted) > 0 {
		dst = strictjson.AppendTexts(append(dst, `,"omitted":`...), s.Omitted)
	}
	return append(dst, '}')
}

// appendTo appends the metrics as JSON.
func (m *SessionMetrics) appendTo(dst []byte) []byte {
	dst = append(dst, `{"details":{"model":[`...)
	for i, one := range m.Details.Model {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strictjson.AppendText(append(dst, `{"id":`...), one.ID)
		dst = strictjson.AppendText(append(dst, `,"provider":`...), one.Provider)
		dst = append(appendTokens(append(dst, ','), one.InputTokens, one.TotalTokens, one.OutputTokens), '}')
	}
	return append(appendTokens(append(dst, `]},`...), m.InputTokens, m.TotalTokens, m.OutputTokens), '}')
}

func appendTokens(dst []byte, input, total, output int) []byte {
	dst = strconv.AppendInt(append(dst, `"input_tokens":`...), int64(input), 10)
	dst = strconv.AppendInt(append(dst, `,"total_tokens":`...), int64(total), 10)
	return strconv.AppendInt(append(dst, `,"output_tokens":`...), int64(output), 10)
}

// appendUnlessEmpty appends a member with a text, unless that is empty. name is as it is in JSON.
func appendUnlessEmpty(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	return strictjson.AppendText(append(dst, name...), text)
}

// appendDocument appends a member with a JSON text, unless that is empty.
func appendDocument(dst []byte, name string, text json.RawMessage) []byte {
	if len(text) == 0 {
		return dst
	}
	return appendCompact(append(dst, name...), text)
}

// appendCompact appends a valid JSON text without its spaces and line breaks between values, as encoding/json does.
func appendCompact(dst, text []byte) []byte {
	start, quoted := 0, false // start is that of what was not appended yet
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && (c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			dst = append(dst, text[start:i]...)
			start = i + 1
		}
	}
	return append(dst, text[start:]...)
}
