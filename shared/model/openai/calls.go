package openai

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// toolDelta is a piece of a tool call.
type toolDelta struct {
	Index    index `json:"index"`
	ID       text  `json:"id"`
	Function struct {
		Name      text `json:"name"`
		Arguments text `json:"arguments"`
	} `json:"function"`
	// ExtraContent is Google's. It holds the signature of the thoughts before the call.
	ExtraContent json.RawMessage `json:"extra_content"`
}

// index states to which call a piece belongs. Some servers leave it out.
type index struct {
	n     int
	known bool
}

// UnmarshalJSON implements json.Unmarshaler. Anything but a whole number counts as absent.
func (i *index) UnmarshalJSON(data []byte) error {
	n, err := strconv.Atoi(string(bytes.Trim(data, `"`)))
	*i = index{n: n, known: err == nil}
	return nil
}

// call is a tool call as far as it has arrived.
type call struct {
	index     index
	id, name  text
	arguments []byte
	extra     json.RawMessage
	renamed   bool // the name came again after complete arguments
}

// calls assembles the tool calls of an answer. They may arrive interleaved.
//
// A piece continues the call that has its index, and a piece without an index the call of its id or the last call. But
// servers number all calls 0 (Gemini's endpoint, Ollama behind LiteLLM), leave the index out, repeat the name or all
// members in each piece (llama-cpp-python), or send no ids. So a piece begins a new call in these cases too:
//   - it has an id that no call of its index has, and a name;
//   - its arguments begin an object, the arguments so far are a complete one, and a name has
//     come with the piece or after that object. If the piece has the id of the call, equal
//     arguments are a repetition;
//   - it has another name, and arguments have arrived already.
//
// Before the first arguments, another name is a further piece of the name, or the name from
// its beginning.
type calls struct {
	list []call
	held int // bytes of all calls
}

// maxCalls is how many calls one answer may have. OpenAI allows as many tools in a
// request (https://platform.openai.com/docs/api-reference/chat/create).
const maxCalls = 128

// add adds the pieces of one chunk.
func (c *calls) add(pieces []toolDelta) error {
	for i, d := range pieces {
		to := c.find(&d, i > 0)
		if to == nil {
			order := d.Index
			if !order.known {
				order.n = len(c.list)
			}
			c.list = append(c.list, call{index: order})
			to = &c.list[len(c.list)-1]
		}
		to.add(d)
		c.held += len(d.ID) + len(d.Function.Name) + len(d.Function.Arguments) + len(d.ExtraContent)
		if len(c.list) > maxCalls || c.held > upstream.MaxEvent {
			return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many or too long tool calls"))
		}
	}
	return nil
}

// find returns the call that a piece continues, or nil if the piece begins a new one. follows states that the piece is
// not the first one in its chunk. A new call gets the name that came before its first piece.
func (c *calls) find(d *toolDelta, follows bool) *call {
	var last, same *call
	for i := range c.list {
		one := &c.list[i]
		if d.Index.known && one.index != d.Index {
			continue
		}
		last = one
		if d.ID != "" && one.id == d.ID {
			same = one // the newest of this id
		}
	}
	name, arguments := d.Function.Name, d.Function.Arguments
	switch {
	case last == nil:
	case same != nil:
		if name != "" && same.endedBefore(arguments) && !equalJSON(same.arguments, arguments) {
			return nil
		}
		return same
	case d.ID != "" && last.id != "" && (name != "" || arguments == ""):
		return nil
	case name == "" && last.renamed && last.endedBefore(arguments):
		d.Function.Name = last.name
		return nil
	case name == "":
	case !d.Index.known && follows, last.endedBefore(arguments), len(last.arguments) > 0 && name != last.name:
		return nil
	}
	return last
}

// endedBefore reports whether a piece begins other arguments, because those of the call are complete.
func (c *call) endedBefore(piece text) bool {
	return strings.HasPrefix(strings.TrimSpace(string(piece)), "{") && c.complete()
}

// equalJSON reports whether two texts are the same JSON in any layout.
func equalJSON(a []byte, b text) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, []byte(b)) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// maxChecked is how long arguments may be to be checked for completeness. The check reads all of them.
const maxChecked = 64 << 10

// complete reports whether the arguments are a whole JSON object.
func (c *call) complete() bool {
	arguments := bytes.TrimSpace(c.arguments)
	return len(arguments) <= maxChecked && bytes.HasPrefix(arguments, []byte("{")) &&
		bytes.HasSuffix(arguments, []byte("}")) && json.Valid(arguments)
}

// add adds a piece. A name or arguments that repeat all that is there are a repetition.
func (c *call) add(d toolDelta) {
	if c.id == "" {
		c.id = d.ID
	}
	switch name := d.Function.Name; {
	case name == "":
	case strings.HasPrefix(string(name), string(c.name)):
		c.renamed = c.name != "" && c.complete()
		c.name = name
	default:
		c.name += name
	}
	if arguments := d.Function.Arguments; !c.endedBefore(arguments) || !equalJSON(c.arguments, arguments) {
		c.arguments = append(c.arguments, arguments...)
	}
	if upstream.Present(d.ExtraContent) {
		c.extra = d.ExtraContent
	}
}

// all returns the calls in the order of their indices. A call without name and arguments is none: some servers send an
// empty element.
func (c *calls) all() []call {
	slices.SortStableFunc(c.list, func(x, y call) int { return cmp.Compare(x.index.n, y.index.n) })
	return slices.DeleteFunc(c.list, func(one call) bool { return one.name == "" && len(one.arguments) == 0 })
}
