package run

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// storableJSON is storable for valid JSON, in which NUL and halves of surrogate
// pairs hide as escapes, and numbers may be larger than any: with one of them the
// run's row could never be read as jsonb again. Everything else stays as it is.
func storableJSON(data json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	out.Grow(len(data))
	inText := false
	for i := 0; i < len(data); {
		n := 1
		switch c := data[i]; {
		case c == '"':
			inText = !inText
		case c == '\\':
			var fine bool
			if n, fine = escape(data[i:]); !fine {
				out.WriteString(`\ufffd`)
				i += n
				continue
			}
		case !inText && (c == '-' || c >= '0' && c <= '9'):
			n = len(data[i:]) - len(bytes.TrimLeft(data[i:], "+-.0123456789eE"))
			out.Write(number(data[i : i+n]))
			i += n
			continue
		}
		out.Write(data[i : i+n])
		i += n
	}
	if data == nil {
		return nil
	}
	return out.Bytes()
}

// escape is the length of the escape that data begins with, both halves of a pair
// together, and whether it stands for a character that can be stored.
func escape(data []byte) (length int, fine bool) {
	unit := func(at int) (rune, bool) {
		if len(data) < at+6 || data[at] != '\\' || data[at+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(data[at+2:at+6]), 16, 16)
		return rune(n), err == nil
	}
	r, ok := unit(0)
	switch {
	case !ok:
		return min(2, len(data)), true
	case !utf16.IsSurrogate(r):
		return 6, r != 0
	}
	if low, _ := unit(6); utf16.DecodeRune(r, low) != utf8.RuneError {
		return 12, true
	}
	return 6, false
}

// number is a number as it is, unless no float64 holds it: then it is what a reader
// would make of it, 0 or nothing.
func number(text []byte) []byte {
	f, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil:
		return []byte("null")
	case f == 0 && bytes.ContainsAny(text, "eE"):
		return []byte("0")
	case len(text) > 1000: // PostgreSQL keeps 16,383 digits of a fraction
		return strconv.AppendFloat(nil, f, 'g', -1, 64)
	}
	return text
}
