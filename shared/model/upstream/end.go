package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The reasons for the end of an answer, in lower case, of all APIs. Compatible servers
// often pass on the reason of the API behind them, so there is one list for all.
var (
	// completeReasons are those with which an answer is complete.
	completeReasons = set("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed")
	// callReasons are those of a complete answer with tool calls.
	callReasons = set("tool_calls", "tool_call", "function_call", "tool_use")
	// failureReasons are those with which the server gave up.
	failureReasons = set("error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled",
		"failed")
	// withheldReasons are those of a filter.
	withheldReasons = set("content_filter", "content_filtered", "guardrail_intervened", "refusal", "safety", "sensitive",
		"prohibited_content", "blocklist", "recitation")
)

func set(names ...string) map[string]bool {
	s := make(map[string]bool, len(names))
	for _, name := range names {
		s[name] = true
	}
	return s
}

// EndError returns the fault.Upstream error for an answer that ended regularly but can't be
// used, or nil. reason is the provider's reason, calls the number of calls of tools, and
// said whether there was a text that isn't empty.
//
// After any reason but the complete ones, the arguments of the last call may be cut, and
// nothing in the answer shows whether they are: such calls are never made. An answer
// without text isn't shown as a success either: thoughts may have used up the limit of
// tokens, or a filter has removed the text. A text that was cut is passed on with its
// reason, as AgentOS does.
func EndError(reason string, calls int, said bool) error {
	name, text := strings.ToLower(reason), ""
	switch {
	case failureReasons[name]:
		text = fmt.Sprintf("The model's server stopped the answer (%s)", reason)
	case callReasons[name] && calls == 0 && !said:
		text = fmt.Sprintf("The model's answer has neither text nor tool calls (%s)", reason)
	case completeReasons[name], callReasons[name]:
		return nil
	case withheldReasons[name] && (calls > 0 || !said):
		text = fmt.Sprintf("The model's answer was withheld (%s)", reason)
	case calls > 0:
		text = fmt.Sprintf("The model's answer ended within a tool call (%s); ask for less at once", reason)
	case said:
		return nil
	default:
		text = fmt.Sprintf("The model's answer ended before it had any text (%s)", reason)
	}
	return fault.Public(fault.Upstream, text, errors.New("the reason for the answer's end"))
}

// Whole reports whether the body of an answer is one piece, and not a stream. The first
// character shows it, and not the request or the content type: LiteLLM answers a request for
// a stream with JSON where the server behind it has no streams, and servers write an error
// as JSON into a response that they have declared a stream. Only a body that begins as
// neither is what its content type says, or else what the request asked for. resp.Body is
// replaced by one that can still be read from its beginning.
func Whole(resp *http.Response, asked bool) bool {
	switch begin := beginning(resp); begin {
	case '{', '[':
		return true
	case 'd', 'e', 'i', 'r', ':': // data, event, id, retry, a comment
		return false
	}
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind {
	case "application/json":
		return true
	case "text/event-stream":
		return false
	}
	return asked
}

// beginning returns the first character of a body after white space and a byte order mark; 0
// if there is none among the first 64 bytes.
func beginning(resp *http.Response) (first byte) {
	read := make([]byte, 0, 64)
	for first == 0 && len(read) < cap(read) {
		n, err := resp.Body.Read(read[len(read) : len(read)+1])
		if read = read[:len(read)+n]; err != nil {
			break // the next read returns it again
		}
		if text := bytes.TrimSpace(bytes.TrimPrefix(read, byteOrderMark)); len(text) == 1 && text[0] < utf8.RuneSelf {
			first = text[0]
		}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(read), resp.Body), resp.Body}
	return first
}

// Lenient decodes a JSON value as far as it has the form of into. It is for what an answer
// is complete without, such as its usage: members of another form stay as they are.
func Lenient(data []byte, into any) error {
	err := json.Unmarshal(data, into)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil
	}
	return err
}

// OtherForm reports whether an event could not be decoded only because a member has another
// form than in the events that are read. Such an event has another type and reports no
// error, so it can be ignored.
func (e *Events) OtherForm(err error, eventType string, isRead map[string]bool) bool {
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok && !isRead[eventType] && ReportIn(e.last) == Report{}
}

// Count is a number of tokens. Gateways that compute in floating point send 6.0, and some
// send "6". It is 0 for anything that is not a number that an int can hold.
type Count int

// UnmarshalJSON implements json.Unmarshaler.
func (c *Count) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	if *c = 0; err == nil && f > 0 && f < 1<<53 {
		*c = Count(f)
	}
	return nil
}
