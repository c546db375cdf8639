package input

import (
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of JSON, which every later reader recurses into.
const maxDepth = 512

// syntaxError is what is wrong with a JSON text, in the words of Python's json
// module, which FastAPI passes on.
type syntaxError struct {
	at   int // byte offset
	text string
}

func (e *syntaxError) Error() string { return e.text }

// check reports the first mistake in a JSON text, or nil. It is stricter than
// encoding/json, which mends lone surrogates, and than Python, which takes NaN
// and numbers that no float holds: what has no one meaning can't be stored.
// data must be valid UTF-8.
func check(data []byte) (err *syntaxError) {
	s := &scanner{data: data}
	defer func() {
		if p := recover(); p != nil {
			err = p.(*syntaxError) // anything else is a mistake of this package
		}
	}()
	s.space()
	s.value(0)
	s.space()
	if s.i < len(data) {
		s.fail(s.i, "Extra data")
	}
	return nil
}

// scanner walks over a text; a mistake is a panic that check catches.
type scanner struct {
	data []byte
	i    int
}

func (s *scanner) fail(at int, text string) { panic(&syntaxError{at, text}) }

func (s *scanner) space() {
	for s.i < len(s.data) && (s.data[s.i] == ' ' || s.data[s.i] == '\t' || s.data[s.i] == '\n' || s.data[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) is(c byte) bool { return s.i < len(s.data) && s.data[s.i] == c }

func (s *scanner) value(depth int) {
	if depth > maxDepth {
		s.fail(s.i, "Nesting is too deep")
	}
	if s.i >= len(s.data) {
		s.fail(s.i, "Expecting value")
	}
	switch c := s.data[s.i]; {
	case c == '{':
		s.object(depth)
	case c == '[':
		s.array(depth)
	case c == '"':
		s.text()
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	default:
		for _, word := range []string{"true", "false", "null"} {
			if len(s.data)-s.i >= len(word) && string(s.data[s.i:s.i+len(word)]) == word {
				s.i += len(word)
				return
			}
		}
		s.fail(s.i, "Expecting value")
	}
}

func (s *scanner) object(depth int) {
	s.i++
	s.space()
	if s.is('}') {
		s.i++
		return
	}
	for {
		if !s.is('"') {
			s.fail(s.i, "Expecting property name enclosed in double quotes")
		}
		s.text()
		s.space()
		if !s.is(':') {
			s.fail(s.i, "Expecting ':' delimiter")
		}
		s.i++
		s.space()
		s.value(depth + 1)
		if s.endOr('}') {
			return
		}
	}
}

func (s *scanner) array(depth int) {
	s.i++
	s.space()
	if s.is(']') {
		s.i++
		return
	}
	for {
		s.value(depth + 1)
		if s.endOr(']') {
			return
		}
	}
}

// endOr reads what follows a member or element: the closing bracket, or a comma.
func (s *scanner) endOr(closing byte) bool {
	s.space()
	if s.is(closing) {
		s.i++
		return true
	}
	if !s.is(',') {
		s.fail(s.i, "Expecting ',' delimiter")
	}
	s.i++
	s.space()
	return false
}

func (s *scanner) text() {
	start := s.i
	for s.i++; ; {
		switch {
		case s.i >= len(s.data):
			s.fail(start, "Unterminated string starting at")
		case s.data[s.i] == '"':
			s.i++
			return
		case s.data[s.i] < 0x20:
			s.fail(s.i, "Invalid control character at")
		case s.data[s.i] == '\\':
			s.escape(start)
		default:
			s.i++
		}
	}
}

func (s *scanner) escape(start int) {
	at := s.i
	if s.i+1 >= len(s.data) {
		s.fail(start, "Unterminated string starting at")
	}
	s.i += 2
	switch s.data[s.i-1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return
	case 'u':
	default:
		s.fail(at, `Invalid \escape`)
	}
	r := s.hex()
	if !utf16.IsSurrogate(r) {
		return
	}
	low := rune(0)
	if s.is('\\') && s.i+1 < len(s.data) && s.data[s.i+1] == 'u' {
		s.i += 2
		low = s.hex()
	}
	if utf16.DecodeRune(r, low) == utf8.RuneError {
		s.fail(at, "Half a surrogate pair")
	}
}

// hex reads four digits; what is wrong with them is found at the u.
func (s *scanner) hex() (r rune) {
	at := s.i - 1
	for range 4 {
		c := byte(0)
		if s.i < len(s.data) {
			c = s.data[s.i]
		}
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			s.fail(at, `Invalid \uXXXX escape`)
		}
		s.i++
	}
	return r
}

// number reads as much as is a number in RFC 8259's grammar, as Python does: of 1.x
// it is the 1, and the mistake is what follows. What no float64 holds is refused:
// PostgreSQL would keep 1e999 with its thousand digits, and no reader could take it
// back.
func (s *scanner) number() {
	start := s.i
	if s.is('-') {
		s.i++
	}
	if s.is('0') {
		s.i++
	} else if !s.digits() {
		s.fail(start, "Expecting value")
	}
	if end := s.i; s.is('.') {
		if s.i++; !s.digits() {
			s.i = end
		}
	}
	if end := s.i; s.is('e') || s.is('E') {
		if s.i++; s.is('+') || s.is('-') {
			s.i++
		}
		if !s.digits() {
			s.i = end
		}
	}
	if !holds(s.data[start:s.i]) {
		s.fail(start, "Number out of range")
	}
}

// digits reports whether it read any.
func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.data) && s.data[s.i] >= '0' && s.data[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}
