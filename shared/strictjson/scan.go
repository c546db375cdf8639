package strictjson

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner is a recursive descent parser that builds nothing. Each of its methods
// reads one construct at i and moves i behind it. A method that can fail returns
// false after it has set err. Where Python's json module finds an error decides the
// order of the checks here: see the table in strictjson_test.go.
type scanner struct {
	data    []byte
	options Options
	i       int
	values  int // how many values have begun
	err     Error
}

// fail records the error and returns false, so that a caller can return its result.
func (s *scanner) fail(offset int, text string) bool {
	s.err = Error{offset, text}
	return false
}

// space skips the four characters that RFC 8259 section 2 calls white space.
func (s *scanner) space() {
	for s.i < len(s.data) && isSpace(s.data[s.i]) {
		s.i++
	}
}

// isSpace reports whether c is white space in JSON.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// at reports whether the next byte is c.
func (s *scanner) at(c byte) bool { return s.i < len(s.data) && s.data[s.i] == c }

// value reads a value that depth objects and arrays enclose.
func (s *scanner) value(depth int) bool {
	if depth > s.options.MaxDepth {
		return s.fail(s.i, tooDeep)
	}
	if s.values++; s.options.MaxValues > 0 && s.values > s.options.MaxValues {
		return s.fail(s.i, tooMany)
	}
	if s.i >= len(s.data) {
		return s.fail(s.i, "Expecting value")
	}
	switch c := s.data[s.i]; {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.text()
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.data)-s.i >= len(word) && string(s.data[s.i:s.i+len(word)]) == word {
			s.i += len(word)
			return true
		}
	}
	return s.fail(s.i, "Expecting value")
}

// object reads { and everything up to its }. It compares the names only for Options.Distinct: a comparison
// needs memory for each object, and only some callers need it.
func (s *scanner) object(depth int) bool {
	s.i++
	s.space()
	if s.at('}') {
		s.i++
		return true
	}
	var names map[string]bool
	if s.options.Distinct {
		names = map[string]bool{}
	}
	for {
		if !s.at('"') {
			return s.fail(s.i, "Expecting property name enclosed in double quotes")
		}
		start := s.i
		if !s.text() {
			return false
		}
		if names != nil {
			name, _ := Value{Raw: string(s.data[start:s.i])}.Text()
			if names[name] {
				return s.fail(start, repeated)
			}
			names[name] = true
		}
		s.space()
		if !s.at(':') {
			return s.fail(s.i, "Expecting ':' delimiter")
		}
		s.i++
		s.space()
		if !s.value(depth + 1) {
			return false
		}
		if more, ok := s.comma('}'); !more {
			return ok
		}
	}
}

// array reads [ and everything up to its ].
func (s *scanner) array(depth int) bool {
	s.i++
	s.space()
	if s.at(']') {
		s.i++
		return true
	}
	for {
		if !s.value(depth + 1) {
			return false
		}
		if more, ok := s.comma(']'); !more {
			return ok
		}
	}
}

// comma reads what follows a member or an element: a comma, after which more follow,
// or the closing bracket. ok is false if it is neither.
func (s *scanner) comma(closing byte) (more, ok bool) {
	s.space()
	if s.at(closing) {
		s.i++
		return false, true
	}
	if !s.at(',') {
		return false, s.fail(s.i, "Expecting ',' delimiter")
	}
	s.i++
	s.space()
	return true, true
}

// text reads a string. As in Python, a string without an end is reported where it begins,
// and every other error where it is.
func (s *scanner) text() bool {
	start := s.i
	for s.i++; s.i < len(s.data); {
		switch c := s.data[s.i]; {
		case c == '"':
			s.i++
			return true
		case c < 0x20:
			return s.fail(s.i, "Invalid control character at")
		case c == '\\':
			if !s.escape(start) {
				return false
			}
		case c < utf8.RuneSelf:
			s.i++
		default:
			r, size := utf8.DecodeRune(s.data[s.i:])
			if r == utf8.RuneError && size == 1 {
				return s.fail(s.i, notUTF8)
			}
			s.i += size
		}
	}
	return s.fail(start, "Unterminated string starting at")
}

// escape reads a backslash and what belongs to it, in the string that begins at start.
func (s *scanner) escape(start int) bool {
	backslash := s.i
	if s.i+1 >= len(s.data) {
		return s.fail(start, "Unterminated string starting at")
	}
	s.i += 2
	switch s.data[backslash+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		return s.unicode(backslash)
	}
	return s.fail(backslash, `Invalid \escape`)
}

// unicode reads \uXXXX, or two of them if the first is half of a surrogate pair
// (RFC 8259 section 7).
func (s *scanner) unicode(backslash int) bool {
	const invalid = `Invalid \uXXXX escape`
	high, ok := codeUnit(s.data[backslash:])
	if !ok {
		return s.fail(backslash+1, invalid)
	}
	if s.i = backslash + escapeSize; !utf16.IsSurrogate(high) {
		return true
	}
	low := rune(0)
	if bytes.HasPrefix(s.data[s.i:], []byte(`\u`)) {
		if low, ok = codeUnit(s.data[s.i:]); !ok {
			return s.fail(s.i+1, invalid)
		}
		s.i += escapeSize
	}
	if utf16.DecodeRune(high, low) == utf8.RuneError {
		return s.fail(backslash, halfSurrogate)
	}
	return true
}

// escapeSize is the length of one escape of a code unit.
const escapeSize = len(`\uXXXX`)

// codeUnit is the UTF-16 code unit of the escape \uXXXX that data starts with. ok is
// false if data starts with anything else.
func codeUnit(data []byte) (unit rune, ok bool) {
	if len(data) < escapeSize || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(data[2:escapeSize]), 16, 16)
	return rune(n), err == nil
}

// number reads the longest number of RFC 8259's grammar, as Python does: of "1.x" it
// reads the 1, and the error is in what follows.
func (s *scanner) number() bool {
	start := s.i
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		return s.fail(start, "Expecting value")
	}
	if end := s.i; s.at('.') {
		if s.i++; !s.digits() {
			s.i = end
		}
	}
	if end := s.i; s.at('e') || s.at('E') {
		if s.i++; s.at('+') || s.at('-') {
			s.i++
		}
		if !s.digits() {
			s.i = end
		}
	}
	if !s.options.AnyNumber && (s.i-start > maxNumberText || !isFloat64(s.data[start:s.i])) {
		return s.fail(start, outOfRange)
	}
	return true
}

// digits reads digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.data) && s.data[s.i] >= '0' && s.data[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// isFloat64 reports whether a float64 can represent a JSON number, rounded if
// necessary. A number other than 0 must not be rounded to 0.
func isFloat64(number []byte) bool {
	f, err := strconv.ParseFloat(string(number), 64)
	mantissa, _, _ := bytes.Cut(bytes.ToLower(number), []byte("e"))
	return err == nil && (f != 0 || !bytes.ContainsAny(mantissa, "123456789"))
}
