package openai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// Rule says what happens with a parameter of a request.
type Rule string

// The rules. A parameter that has none is refused as unknown.
const (
	// Honoured parameters have the effect that OpenAI documents, as far as Note says.
	Honoured Rule = "honoured"
	// Ignored parameters are accepted and have no effect: the agent's own setting counts.
	Ignored Rule = "ignored"
	// Refused parameters are an error, unless their value asks for nothing.
	Refused Rule = "refused"
)

// Parameter is one member of a request's body.
type Parameter struct {
	Name string
	// API is the only one that has it. Defaults to "": both.
	API  API
	Rule Rule
	// Note says more, for the documentation and for the error of a refused parameter.
	Note string

	asksNothing string // the values of a refused parameter that are accepted, as compact JSON, separated by spaces
	read        func(*decoder, strictjson.Value)
	takes       string // what the value of an ignored parameter is, one of kinds
}

// kinds are the types of the values of ignored parameters, by the bytes with which such a value begins. A value of
// another type is an error although it has no effect: the client means something else than this parameter.
var kinds = map[string]string{
	aNumber: "-0123456789", aText: `"`, aFlag: "tf", anObject: "{", aList: "[",
}

const (
	aNumber  = "a number"
	aText    = "a text"
	aFlag    = "true or false"
	anObject = "an object"
	aList    = "a list"
)

// Parameters are all that a request may have. docs/doors.md has the same table.
var Parameters = []Parameter{
	{Name: "model", Rule: Honoured, Note: "the id of the agent", read: (*decoder).model},
	{Name: "messages", API: Chat, Rule: Honoured, Note: "see below", read: (*decoder).messages},
	{Name: "input", API: Responses, Rule: Honoured, Note: "a text or a list of items; see below", read: (*decoder).input},
	{Name: "stream", Rule: Honoured, read: func(d *decoder, v strictjson.Value) { d.flag("stream", v, &d.out.Stream) }},
	{Name: "stream_options", Rule: Honoured, Note: "`include_usage` of chat completions; the others have no effect",
		read: (*decoder).streamOptions},
	{Name: "metadata", Rule: Honoured, Note: "texts, stored with the run; `session_id` names the session",
		read: (*decoder).metadata},
	{Name: "conversation", API: Responses, Rule: Honoured, Note: "the id of the session, as a text or as `{\"id\": …}`",
		read: (*decoder).conversation},
	{Name: "previous_response_id", API: Responses, Rule: Honoured, Note: "the session of that run is continued",
		read: (*decoder).previous},
	{Name: "background", API: Responses, Rule: Honoured,
		Note: "without effect together with `stream`: no run ends when its client disconnects",
		read: func(d *decoder, v strictjson.Value) { d.flag("background", v, &d.out.Background) }},
	{Name: "instructions", API: Responses, Rule: Ignored, Note: "the agent has its own, which no caller replaces",
		takes: aText},

	{Name: "temperature", Rule: Ignored, takes: aNumber},
	{Name: "top_p", Rule: Ignored, takes: aNumber},
	{Name: "frequency_penalty", Rule: Ignored, takes: aNumber},
	{Name: "presence_penalty", Rule: Ignored, takes: aNumber},
	{Name: "seed", API: Chat, Rule: Ignored, takes: aNumber},
	{Name: "max_tokens", API: Chat, Rule: Ignored, takes: aNumber},
	{Name: "max_completion_tokens", API: Chat, Rule: Ignored, takes: aNumber},
	{Name: "max_output_tokens", API: Responses, Rule: Ignored, takes: aNumber},
	{Name: "reasoning_effort", API: Chat, Rule: Ignored, takes: aText},
	{Name: "reasoning", API: Responses, Rule: Ignored, takes: anObject},
	{Name: "verbosity", API: Chat, Rule: Ignored, takes: aText},
	{Name: "service_tier", Rule: Ignored, takes: aText},
	{Name: "parallel_tool_calls", Rule: Ignored, takes: aFlag},
	{Name: "prediction", API: Chat, Rule: Ignored, takes: anObject},
	{Name: "prompt_cache_key", Rule: Ignored, takes: aText},
	{Name: "prompt_cache_retention", Rule: Ignored, takes: aText},
	{Name: "prompt_cache_options", Rule: Ignored, takes: anObject},
	{Name: "safety_identifier", Rule: Ignored, takes: aText},
	{Name: "user", Rule: Ignored, Note: "the token names the user", takes: aText},
	{Name: "truncation", API: Responses, Rule: Ignored, takes: aText},
	{Name: "include", API: Responses, Rule: Ignored, takes: aList},

	{Name: "tools", Rule: Refused, Note: "the agent has its own tools", asksNothing: "[]"},
	{Name: "tool_choice", Rule: Refused, Note: "the agent has its own tools", asksNothing: `"auto" "none"`},
	{Name: "functions", API: Chat, Rule: Refused, Note: "the agent has its own tools", asksNothing: "[]"},
	{Name: "function_call", API: Chat, Rule: Refused, Note: "the agent has its own tools", asksNothing: `"auto" "none"`},
	{Name: "max_tool_calls", API: Responses, Rule: Refused, Note: "the agent's own limits count"},
	{Name: "web_search_options", API: Chat, Rule: Refused, Note: "the agent has its own tools"},
	{Name: "n", API: Chat, Rule: Refused, Note: "a run has one answer", asksNothing: "1 1.0"},
	{Name: "store", Rule: Refused, Note: "every run is stored", asksNothing: "true"},
	{Name: "stop", API: Chat, Rule: Refused, Note: "the agent decides where its answer ends", asksNothing: `[] ""`},
	{Name: "response_format", API: Chat, Rule: Refused, Note: "answers are text", asksNothing: `{"type":"text"}`},
	{Name: "text", API: Responses, Rule: Refused, Note: "answers are text", read: (*decoder).text},
	{Name: "modalities", API: Chat, Rule: Refused, Note: "answers are text", asksNothing: `["text"]`},
	{Name: "audio", API: Chat, Rule: Refused, Note: "answers are text"},
	{Name: "logprobs", API: Chat, Rule: Refused, Note: "agents have no probabilities", asksNothing: "false"},
	{Name: "top_logprobs", Rule: Refused, Note: "agents have no probabilities", asksNothing: "0"},
	{Name: "logit_bias", API: Chat, Rule: Refused, Note: "agents have no probabilities", asksNothing: "{}"},
	{Name: "prompt", API: Responses, Rule: Refused, Note: "there are no stored prompts"},
	{Name: "moderation", Rule: Refused, Note: "the agent's model decides"},
	{Name: "background_options", API: Responses, Rule: Refused, Note: "a run in the background has none"},
	{Name: "image", API: Responses, Rule: Refused, Note: "answers are text"},
	{Name: "access_programs", API: Responses, Rule: Refused, Note: "there are none"},
	{Name: "context_management", API: Responses, Rule: Refused, Note: "the agent's own setting counts", asksNothing: "[]"},
}

// parameter reads one member of the body.
func (d *decoder) parameter(name string, v strictjson.Value) {
	i := slices.IndexFunc(Parameters, func(p Parameter) bool {
		return p.Name == name && (p.API == "" || p.API == d.api)
	})
	switch {
	case i < 0:
		d.refuse(name, "unknown_parameter", "Unknown parameter: "+name+". This server has no such parameter of "+
			string(d.api))
	case v.Raw == "null":
	case Parameters[i].Rule == Ignored:
		if takes := Parameters[i].takes; !strings.Contains(kinds[takes], v.Raw[:1]) {
			d.wrong(name, takes)
		}
	case Parameters[i].read != nil:
		Parameters[i].read(d, v)
	case !slices.Contains(strings.Fields(Parameters[i].asksNothing), compact(v)):
		d.refuse(name, "unsupported_parameter", name+": not supported: "+Parameters[i].Note)
	}
}

// compact returns a short value without white space, and "" for a long one.
func compact(v strictjson.Value) string {
	if len(v.Raw) > 64 {
		return ""
	}
	var b bytes.Buffer
	_ = json.Compact(&b, []byte(v.Raw)) // strictjson has accepted it
	return b.String()
}
