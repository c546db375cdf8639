package openai

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// Decode reads the body of a request to one of the APIs. The error is fault.Invalid or that of a bound, and names the
// parameter.
func Decode(api API, body []byte, limits bound.Limits) (*Request, error) {
	d := &decoder{api: api, limits: limits, seen: map[string]bool{}}
	if err := d.check(body); err != nil {
		return nil, err
	}
	for name, value := range strictjson.Root(string(body)).Members() {
		if d.over(bound.Members, len(d.seen), "") {
			break
		}
		if _, twice := d.seen[name]; twice {
			d.refuse(name, "invalid_value", name+": two members of the body have this name")
		}
		d.seen[name] = value.Raw != "null"
		d.parameter(name, value)
	}
	d.finish()
	if d.err != nil {
		return nil, d.err
	}
	out := d.out
	return &out, nil // and not d.out, which would keep all messages
}

// decoder reads one request. The first error counts: OpenAI's errors name one parameter.
type decoder struct {
	api    API
	limits bound.Limits
	seen   map[string]bool // the members of the body: false for one that is null
	out    Request
	list   []message
	// These count what the whole request has.
	parts, files, fileBytes, references int
	err                                 *fault.Error
}

// message is one message of the conversation.
type message struct {
	role  string // user or assistant
	text  string
	files []File
	// run and param are those of Turn.
	run, param string
}

// check returns an error for a body that is no JSON object.
func (d *decoder) check(body []byte) error {
	wrong := ""
	switch e := strictjson.Check(body, strictjson.Options{}); {
	case !utf8.Valid(body):
		wrong = "The body is not valid UTF-8"
	case e != nil:
		wrong = "The body is not valid JSON: " + e.Text
	case strictjson.Root(string(body)).Raw[0] != '{':
		wrong = "The body must be a JSON object"
	case strictjson.HasNUL(body):
		wrong = "The body contains a NUL character, which can't be stored"
	}
	if wrong == "" {
		return nil
	}
	return refusal("", "invalid_json", wrong)
}

// refusal returns an error that names a parameter.
func refusal(param, code, text string) *fault.Error {
	e := fault.Public(fault.Invalid, text, nil)
	e.Extra = fault.Members{{Name: "param", Value: fault.Short(param)}, {Name: "code", Value: code}}
	return e
}

// Refusal returns the error for a parameter with a value that can't be used.
func Refusal(param, text string) error { return refusal(param, "invalid_value", text) }

// refuse records an error, unless there is one.
func (d *decoder) refuse(param, code, text string) {
	if d.err == nil {
		d.err = refusal(param, code, text)
	}
}

// wrong records that a parameter has the wrong type or value.
func (d *decoder) wrong(param, want string) {
	d.refuse(param, "invalid_value", param+": it must be "+want)
}

// over reports whether n is more than a bound allows, and records the error.
func (d *decoder) over(b *bound.Bound, n int, param string) bool {
	most := d.limits.Of(b)
	if n <= most {
		return false
	}
	text := b.Exceeded(most, n)
	if param != "" {
		text = param + ": " + text
	}
	d.refuse(param, "too_large", text)
	return true
}

// finish makes the request of what was read.
func (d *decoder) finish() {
	conversation := map[API]string{Chat: "messages", Responses: "input"}[d.api]
	for _, name := range []string{"model", conversation} {
		if !d.seen[name] {
			d.refuse(name, "missing_required_parameter", "Missing required parameter: "+name)
		}
	}
	if d.out.Previous != "" && d.out.Session != "" {
		d.refuse("previous_response_id", "invalid_value",
			"previous_response_id and "+d.out.SessionParam+": a request names one of them")
	}
	d.split(conversation)
}

// split divides the conversation behind the last message of the assistant. What follows is the message of the run.
func (d *decoder) split(param string) {
	last := -1
	for i, m := range d.list {
		if m.role == assistant {
			last = i
		}
	}
	d.out.Message, d.out.Files = joined(d.list[last+1:])
	if d.over(bound.Message, len(d.out.Message), param) {
		return
	}
	if strings.TrimSpace(d.out.Message) == "" {
		d.refuse(param, "invalid_value", param+": the last message must be one of the user, with a text")
	}
	d.history(d.list[:last+1], param)
}

// history makes turns of the messages. Several in a row by one sender become one, because some providers of models
// require that user and assistant take turns. One that only names a run stays alone.
func (d *decoder) history(list []message, param string) {
	size := 0
	for _, m := range list {
		size += len(m.text)
	}
	if d.over(bound.History, size, param) {
		return
	}
	list = slices.DeleteFunc(list, func(m message) bool { // a call of a tool
		return m.text == "" && len(m.files) == 0 && m.run == ""
	})
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].role == list[0].role && list[n].run == "" && list[0].run == "" {
			n++
		}
		turn := Turn{Assistant: list[0].role == assistant, Run: list[0].run, Param: list[0].param}
		turn.Text, turn.Files = joined(list[:n])
		d.out.History, list = append(d.out.History, turn), list[n:]
	}
}

// joined returns the texts of messages as one, and their files.
func joined(list []message) (string, []File) {
	var texts []string
	var files []File
	for _, m := range list {
		if m.text != "" {
			texts = append(texts, m.text)
		}
		files = append(files, m.files...)
	}
	return strings.Join(texts, between), files
}

// between separates the texts of messages in a row by the same sender.
const between = "\n\n"

// The parameters with a simple value.

func (d *decoder) model(v strictjson.Value) {
	text, ok := v.Text()
	if !ok || text == "" || len(text) > d.limits.Of(bound.ShortText) {
		d.wrong("model", "the id of an agent")
	} else if !input.IsNewID(text) { // an id that no agent has, and that no path can name
		d.err = cmp.Or(d.err, NoModel())
	}
	d.out.Model = text
}

// NoModel is the error for a model that is the id of no agent.
func NoModel() *fault.Error {
	e := fault.Public(fault.NotFound, "Agent not found", nil)
	e.Extra = fault.Members{{Name: "param", Value: "model"}, {Name: "code", Value: "model_not_found"}}
	return e
}

func (d *decoder) flag(param string, v strictjson.Value, to *bool) {
	if *to = v.Raw == "true"; v.Raw[0] != 't' && v.Raw[0] != 'f' {
		d.wrong(param, "true or false")
	}
}

func (d *decoder) streamOptions(v strictjson.Value) {
	if v.Raw[0] != '{' {
		d.wrong("stream_options", "an object")
	}
	for name, value := range v.Members() {
		if name == "include_usage" && value.Raw != "null" {
			d.flag("stream_options.include_usage", value, &d.out.Usage)
		}
	}
}

// metadata keeps the object. Its values are texts, as in OpenAI's API.
func (d *decoder) metadata(v strictjson.Value) {
	if v.Raw[0] != '{' {
		d.wrong("metadata", "an object")
		return
	}
	if d.over(bound.Metadata, len(v.Raw), "metadata") {
		return
	}
	d.out.Metadata = []byte(v.Raw)
	for name, value := range v.Members() {
		if name == "session_id" {
			d.session("metadata.session_id", value)
		} else if value.Raw[0] != '"' {
			d.wrong("metadata", "an object whose values are texts")
		}
	}
}

func (d *decoder) conversation(v strictjson.Value) {
	id := v
	for name, value := range v.Members() {
		if name == "id" {
			id = value
		}
	}
	d.session("conversation", id)
}

// session records the session that a parameter names. Two parameters may name the same one.
func (d *decoder) session(param string, v strictjson.Value) {
	id, ok := v.Text()
	switch {
	case !ok:
		d.wrong(param, "the id of a session")
	case d.over(bound.NewID, len(id), param):
	case !input.IsNewID(id):
		d.refuse(param, "invalid_value", param+": "+input.NewID)
	case d.out.Session != "" && d.out.Session != id:
		d.refuse(param, "invalid_value", param+": "+d.out.SessionParam+" names another session")
	}
	d.out.Session, d.out.SessionParam = id, cmp.Or(d.out.SessionParam, param)
}

func (d *decoder) previous(v strictjson.Value) {
	id, ok := v.Text()
	if !ok {
		d.wrong("previous_response_id", "the id of a response")
	}
	if d.out.Previous = RunID(id); ok && d.out.Previous == "" {
		d.err = cmp.Or(d.err, NoResponse("previous_response_id"))
	}
}

// NoResponse is the error for an id that is of no response of the caller.
func NoResponse(param string) *fault.Error {
	e := fault.Public(fault.NotFound, "Response not found", nil)
	e.Extra = fault.Members{{Name: "param", Value: param}, {Name: "code", Value: "response_not_found"}}
	return e
}

// text accepts the format text and any verbosity.
func (d *decoder) text(v strictjson.Value) {
	if v.Raw[0] != '{' {
		d.wrong("text", "an object")
	}
	for name, value := range v.Members() {
		if name == "format" && value.Raw != "null" && compact(value) != `{"type":"text"}` {
			d.refuse("text.format", "unsupported_parameter", "text.format: not supported: answers are text")
		}
	}
}
