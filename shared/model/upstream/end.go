package upstream

import (
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The reasons for the end of an answer, in lower case, of all APIs. Compatible servers
// often pass on the reason of the API behind them, so there is one list for all.
var (
	// completeReasons are those with which an answer is complete.
	completeReasons = set("stop", "tool_calls", "tool_call", "function_call", "tool_use", "end_turn", "stop_sequence",
		"eos", "eos_token", "complete", "completed")
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
	case completeReasons[name]:
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

// Whole reports whether an answer comes in one piece. The content type says so, and not the
// request: LiteLLM answers a request for a stream with JSON where the server behind it has
// no streams. asked is what the request asked for, for any other content type.
func Whole(contentType string, asked bool) bool {
	switch kind, _, _ := mime.ParseMediaType(contentType); kind {
	case "application/json":
		return true
	case "text/event-stream":
		return false
	}
	return asked
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
