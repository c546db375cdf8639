package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// object is a JSON object of a token: member name → JSON text of the value. It is
// read once and strictly, because encoding/json alone takes the last of two equal
// names, matches names in any case, and mends broken text: three ways for two
// readers to see two tokens in one.
type object map[string]string

// parseObject refuses what RFC 7515 section 4 and RFC 7519 section 4 forbid (equal
// names) and text without one meaning. Only the top level is searched for equal
// names: nothing below it is read by name.
func parseObject(data []byte) (object, error) {
	if !utf8.Valid(data) || !json.Valid(data) || loneSurrogate(data) {
		return nil, errors.New("not valid JSON")
	}
	doc := strings.Trim(string(data), " \t\r\n")
	if doc[0] != '{' {
		return nil, errors.New("must be a json object")
	}
	o, name, named := object{}, "", false
	for item := range items(doc) {
		if named = !named; named {
			name, _ = text(item)
			continue
		}
		if _, twice := o[name]; twice {
			return nil, errors.New("two members of one name")
		}
		o[name] = item
	}
	return o, nil
}

// text is the string called name; absent and null are "". It is false when the
// value is of another type.
func (o object) text(name string) (string, bool) {
	raw := o[name]
	if raw == "" || raw == "null" {
		return "", true
	}
	return text(raw)
}

// list is the strings called name. One string is a list of one; a list with
// anything else in it, and any other type, is nil.
func (o object) list(name string) []string {
	raw := o[name]
	if raw == "" {
		return nil
	}
	if s, ok := text(raw); ok {
		return []string{s}
	}
	if raw[0] != '[' {
		return nil
	}
	list := make([]string, 0, strings.Count(raw, ",")+1)
	for item := range items(raw) {
		s, ok := text(item)
		if !ok {
			return nil
		}
		list = append(list, s)
	}
	return list
}

// text decodes a JSON string; false for any other value.
func text(raw string) (string, bool) {
	switch {
	case raw[0] != '"':
		return "", false
	case strings.IndexByte(raw, '\\') < 0:
		return raw[1 : len(raw)-1], true
	}
	var s string // here, because it escapes to the heap
	err := json.Unmarshal([]byte(raw), &s)
	return s, err == nil
}

// items yields the JSON texts directly inside an object or array: of an object,
// names and values in turn. As doc is valid JSON, colons and commas tell nothing.
func items(doc string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 1; i < len(doc)-1; {
			if strings.IndexByte(" \t\r\n,:", doc[i]) >= 0 {
				i++
				continue
			}
			end := valueEnd(doc, i)
			if !yield(doc[i:end]) {
				return
			}
			i = end
		}
	}
}

// valueEnd is where the value that starts at i ends. It counts brackets rather than
// recurse: the depth is the sender's choice.
func valueEnd(doc string, i int) int {
	for depth := 0; ; {
		switch doc[i] {
		case '"':
			i = stringEnd(doc, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			i++
			if depth == 0 {
				return i + strings.IndexAny(doc[i:], " \t\r\n,:]}")
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// stringEnd is where the string that starts at i ends, past its quote.
func stringEnd(doc string, i int) int {
	for i++; doc[i] != '"'; i++ {
		if doc[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// loneSurrogate finds half a UTF-16 pair in valid JSON. encoding/json turns each
// into U+FFFD, so two subjects would become one.
func loneSurrogate(data []byte) bool {
	for {
		i := bytes.IndexByte(data, '\\')
		if i < 0 {
			return false
		}
		r, isRune := unicodeEscape(data[i:])
		if !isRune {
			data = data[i+2:]
			continue
		}
		data = data[i+6:]
		if !utf16.IsSurrogate(r) {
			continue
		}
		low, _ := unicodeEscape(data)
		if utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		data = data[6:]
	}
}

// unicodeEscape reads the \uXXXX that data starts with.
func unicodeEscape(data []byte) (rune, bool) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	return rune(n), err == nil
}
