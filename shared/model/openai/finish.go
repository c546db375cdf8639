package openai

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The reasons for the end of an answer, in lower case. Only "stop", "length", "tool_calls", "content_filter" and
// "function_call" are OpenAI's. The others are those of compatible servers, which often pass on the reason of the API
// behind them.
var (
	// completeReasons are those with which an answer is complete.
	completeReasons = reasons("stop", "tool_calls", "tool_call", "function_call", "tool_use", "end_turn", "stop_sequence",
		"eos", "eos_token", "complete", "completed")
	// failureReasons are those with which the server gave up.
	failureReasons = reasons("error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled")
)

func reasons(names ...string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// checkFinish returns an error for an answer that can't be used because of its finish_reason. After any reason but the
// complete ones, the arguments of the last call may be cut, and nothing in the answer shows whether they are. An answer
// without text is not shown as a success either: the limit of tokens may have been used up by thoughts, or a filter has
// removed the text. A text that was cut is passed on with its reason, as AgentOS does.
func checkFinish(reason string, calls int, said bool) error {
	name := strings.ToLower(reason)
	text := ""
	switch {
	case failureReasons[name]:
		text = fmt.Sprintf("The model's server stopped the answer (%s)", reason)
	case completeReasons[name]:
		return nil
	case calls > 0:
		text = fmt.Sprintf("The model's answer ended within a tool call (%s); ask for less at once", reason)
	case said:
		return nil
	case strings.Contains(name, "filter") || name == "safety" || name == "sensitive" || name == "refusal":
		text = fmt.Sprintf("The model's answer was withheld (%s)", reason)
	default:
		text = fmt.Sprintf("The model's answer ended before it had any text (%s)", reason)
	}
	return fault.Public(fault.Upstream, text, errors.New("openai: finish_reason"))
}
