package strictjson

import (
	"encoding/json"
	"iter"
	"strings"
)

// Value is one value inside a text that Check accepts. Its methods don't check
// anything again: with any other text they panic or return nonsense.
type Value struct {
	// Raw is the value's text exactly as it was sent, without white space around it.
	// Its first byte shows its type: one of { [ " t f n, or a digit or minus sign.
	Raw string
	// Offset is where Raw starts, in bytes from the start of the text given to Root.
	Offset int
}

// Root returns the value that a text consists of. The text must be one that Check
// accepts.
func Root(text string) Value {
	raw := strings.TrimLeft(text, " \t\r\n")
	return Value{strings.TrimRight(raw, " \t\r\n"), len(text) - len(raw)}
}

// Text decodes a string. It is false for a value of another type. A string without escapes
// is part of Raw, and costs no memory.
func (v Value) Text() (string, bool) {
	switch {
	case v.Raw[0] != '"':
		return "", false
	case strings.IndexByte(v.Raw, '\\') < 0:
		return v.Raw[1 : len(v.Raw)-1], true
	}
	var s string // declared here, because it escapes to the heap
	err := json.Unmarshal([]byte(v.Raw), &s)
	return s, err == nil
}

// Members yields the decoded name and the value of each member of an object, in the
// order of the text. A name that occurs twice is yielded twice: the caller decides
// whether that is an error. It yields nothing for a value of another type.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Raw[0] != '{' {
			return
		}
		// The last byte is the closing bracket.
		for i := v.skip(1); i < len(v.Raw)-1; {
			name := v.part(i)
			value := v.part(v.skip(i + len(name.Raw)))
			text, _ := name.Text()
			if !yield(text, value) {
				return
			}
			i = v.skip(value.Offset - v.Offset + len(value.Raw))
		}
	}
}

// Find sets found[i] to the value of the member names[i] of an object, and leaves it if there is none. It is false
// if a member stands twice or in another case, because encoding/json then decides in its own way, and for a value
// of another type.
func (v Value) Find(names []string, found []Value) bool {
	if v.Raw[0] != '{' {
		return false
	}
members:
	for name, value := range v.Members() {
		for i, known := range names {
			if name == known {
				if found[i].Raw != "" {
					return false
				}
				found[i] = value
				continue members
			}
		}
		for _, known := range names {
			if strings.EqualFold(name, known) {
				return false
			}
		}
	}
	return true
}

// IsNone reports whether a value is absent or null.
func (v Value) IsNone() bool { return v.Raw == "" || v.Raw == "null" }

// ReadText sets to to a string. As with encoding/json, an absent value and null leave it. It is false for any other
// value.
func (v Value) ReadText(to *string) (ok bool) {
	if v.IsNone() {
		return true
	}
	*to, ok = v.Text()
	return ok
}

// Elements yields the elements of an array. It yields nothing for a value of another
// type.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Raw[0] != '[' {
			return
		}
		for i := v.skip(1); i < len(v.Raw)-1; {
			element := v.part(i)
			if !yield(element) {
				return
			}
			i = v.skip(i + len(element.Raw))
		}
	}
}

// skip returns the first position from i on that is neither white space nor a colon
// or comma. Where these may be is known already, because the text is valid.
func (v Value) skip(i int) int {
	for isSpace(v.Raw[i]) || v.Raw[i] == ',' || v.Raw[i] == ':' {
		i++
	}
	return i
}

// part returns the value that starts at i, without the white space behind it.
func (v Value) part(i int) Value {
	return Value{v.Raw[i:valueEnd(v.Raw, i)], v.Offset + i}
}

// valueEnd returns where the value that starts at i ends. It counts brackets instead
// of calling itself, because the sender chooses the depth. Which bracket it is doesn't
// matter in a text that Check accepts.
func valueEnd(text string, i int) int {
	for depth := 0; ; {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			i++
			if depth == 0 {
				return i + strings.IndexAny(text[i:], " \t\r\n,:]}")
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// stringEnd returns where the string that starts at i ends, behind its quote.
func stringEnd(text string, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}
