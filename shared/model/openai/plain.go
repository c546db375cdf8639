package openai

import (
	"bytes"
	"unicode/utf8"
)

// Nearly all chunks of a long answer add a text and nothing else. encoding/json needs most of the time that such a
// chunk costs, so readPlain reads them. It knows few forms, and whatever has another one is left to encoding/json.

// readPlain reads a chunk that adds a text at most, and reports whether data is one. Then c is what encoding/json
// would have made of data: FuzzPlainChunks compares the two.
func readPlain(data []byte, c *chunk) bool {
	p := plainReader{data: data}
	*c = chunk{}
	if !p.object(&c.Choices[0], ofChunk) || p.i != len(data) || p.seen&seenChoices == 0 {
		*c = chunk{}
		return false
	}
	return true
}

// plainReader reads a chunk from its beginning. Its methods return false for what they do not know.
type plainReader struct {
	data []byte
	i    int
	seen int // the members that were read and may not come twice
}

const (
	seenChoices = 1 << iota
	seenDelta
	seenContent
	seenRole
)

// level is which object of a chunk is read.
type level int

const (
	ofChunk level = iota
	ofChoice
	ofDelta
)

// object reads an object and each of its members.
func (p *plainReader) object(into *choice, l level) bool {
	if !p.next('{') {
		return false
	}
	for {
		name, ok := p.text()
		if !ok || !p.next(':') || !p.member(l, name, into) {
			return false
		}
		if p.next('}') {
			return true
		}
		if !p.next(',') {
			return false
		}
	}
}

// member reads the value of a member with this name into the choice. It is no function that object gets, because the
// reader would be allocated then.
func (p *plainReader) member(l level, name []byte, into *choice) bool {
	switch l {
	case ofChunk:
		return p.memberOfChunk(name, into)
	case ofChoice:
		return p.memberOfChoice(name, into)
	default:
		return p.memberOfDelta(name, into)
	}
}

// memberOfChunk reads a member of the chunk itself.
func (p *plainReader) memberOfChunk(name []byte, into *choice) bool {
	switch string(name) {
	case "choices":
		return p.once(seenChoices) && p.next('[') && p.object(into, ofChoice) && p.next(']')
	case "usage", "error":
		return p.null()
	case "id", "object", "created", "model", "service_tier", "system_fingerprint", "provider", "obfuscation":
		return p.skip()
	}
	return false
}

// memberOfChoice reads a member of the only choice.
func (p *plainReader) memberOfChoice(name []byte, into *choice) bool {
	switch string(name) {
	case "delta":
		return p.once(seenDelta) && p.object(into, ofDelta)
	case "index", "logprobs", "native_finish_reason":
		return p.skip()
	case "finish_reason":
		return p.null()
	}
	return false
}

// memberOfDelta reads a member of the delta.
func (p *plainReader) memberOfDelta(name []byte, into *choice) bool {
	switch string(name) {
	case "content":
		said, ok := p.anyText()
		if !ok || !p.once(seenContent) {
			return false
		}
		into.Delta.Content = content{text: said, present: true}
		return true
	case "role":
		who, ok := p.text()
		into.Delta.Role = "assistant"
		return ok && p.once(seenRole) && string(who) == "assistant"
	case "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call":
		return p.null()
	}
	return false
}

// once reports whether a member has not been read before.
func (p *plainReader) once(what int) bool {
	before := p.seen
	p.seen |= what
	return before&what == 0
}

// next reads a character, and white space before it and after it.
func (p *plainReader) next(c byte) bool {
	p.space()
	if p.i == len(p.data) || p.data[p.i] != c {
		return false
	}
	p.i++
	p.space()
	return true
}

func (p *plainReader) space() {
	for p.i < len(p.data) && (p.data[p.i] == ' ' || p.data[p.i] == '\t') {
		p.i++
	}
}

// null reads the literal of that name.
func (p *plainReader) null() bool {
	const w = "null"
	if !bytes.HasPrefix(p.data[p.i:], []byte(w)) {
		return false
	}
	p.i += len(w)
	return true
}

// text reads a string without an escape, and returns what is between its quotes.
func (p *plainReader) text() ([]byte, bool) {
	if p.i == len(p.data) || p.data[p.i] != '"' {
		return nil, false
	}
	from := p.i + 1
	for i := from; i < len(p.data); i++ {
		switch c := p.data[i]; {
		case c == '"':
			p.i = i + 1
			return p.data[from:i], true
		case c == '\\' || c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// anyText reads a string and returns its value.
func (p *plainReader) anyText() (string, bool) {
	from := p.i
	if said, ok := p.text(); ok && utf8.Valid(said) {
		return string(said), true
	}
	if p.i = from; p.i == len(p.data) || p.data[p.i] != '"' {
		return "", false
	}
	for i := from + 1; i < len(p.data); i++ {
		switch c := p.data[i]; {
		case c < ' ':
			return "", false
		case c == '\\':
			i++
		case c == '"':
			p.i = i + 1
			said, err := unquote(p.data[from:p.i])
			return said, err == nil
		}
	}
	return "", false
}

// skip reads a string, null or a natural number.
func (p *plainReader) skip() bool {
	if _, ok := p.text(); ok {
		return true
	}
	if p.null() {
		return true
	}
	from := p.i
	for p.i < len(p.data) && p.data[p.i] >= '0' && p.data[p.i] <= '9' {
		p.i++
	}
	n := p.i - from
	return n > 0 && (n == 1 || p.data[from] != '0')
}
