package strictjson

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// PostgreSQL's jsonb is stricter than JSON (its documentation, section 8.14): it
// refuses the escape \u0000 and half surrogate pairs, and its numbers are of type
// numeric, which has up to 16,383 digits after the decimal point.

// replacement is U+FFFD, with which encoding/json replaces half surrogate pairs too.
const replacement = `\ufffd`

// maxNumber is how many bytes of a number MakeStorable keeps as they are. It is far
// above the 17 digits of a float64 and far below the limit of PostgreSQL's numeric.
const maxNumber = 1000

// HasNUL reports whether a text that Check accepts contains \u0000 in any string or
// name. It is the only thing that Check accepts, without AnyNumber, and that no jsonb can store.
func HasNUL(data []byte) bool {
	for {
		i := bytes.IndexByte(data, '\\')
		if i < 0 {
			return false
		}
		if bytes.HasPrefix(data[i:], []byte(`\u0000`)) {
			return true
		}
		data = data[i+2:]
	}
}

// MakeStorable returns JSON that PostgreSQL's jsonb can store and that readers with
// float64 can read back. It is for texts of others that must not be refused, such as
// what a model returned: one such text in a row would make the row unreadable for
// ever. \u0000 and half surrogate pairs become \ufffd, numbers too large for a float64
// become null, numbers too small become 0, and very long numbers are rounded. All else
// stays byte for byte. Valid JSON stays valid, and nil stays nil.
func MakeStorable(data []byte) []byte {
	if data == nil {
		return nil
	}
	var out bytes.Buffer
	out.Grow(len(data))
	// The text is not parsed: quotes show where strings are, and only in a string is a
	// backslash. So invalid JSON does no harm either.
	inText := false
	for i := 0; i < len(data); {
		n := 1
		switch c := data[i]; {
		case c == '"':
			inText = !inText
		case c == '\\':
			var storable bool
			if n, storable = escape(data[i:]); !storable {
				out.WriteString(replacement)
				i += n
				continue
			}
		case !inText && (c == '-' || c >= '0' && c <= '9'):
			n = len(data[i:]) - len(bytes.TrimLeft(data[i:], "+-.0123456789eE"))
			out.Write(storableNumber(data[i : i+n]))
			i += n
			continue
		}
		out.Write(data[i : i+n])
		i += n
	}
	return out.Bytes()
}

// escape returns the length of the escape that data starts with, both halves of a
// surrogate pair together, and whether it stands for a character that can be stored.
func escape(data []byte) (length int, storable bool) {
	unit, ok := codeUnit(data)
	switch {
	case !ok:
		return min(2, len(data)), true
	case !utf16.IsSurrogate(unit):
		return escapeSize, unit != 0
	}
	if low, _ := codeUnit(data[escapeSize:]); utf16.DecodeRune(unit, low) != utf8.RuneError {
		return 2 * escapeSize, true
	}
	return escapeSize, false
}

// storableNumber returns the number itself, or what a reader with float64 would see
// in its place.
func storableNumber(text []byte) []byte {
	f, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil:
		return []byte("null")
	case f == 0 && bytes.ContainsAny(text, "eE"):
		return []byte("0")
	case len(text) > maxNumber:
		return strconv.AppendFloat(nil, f, 'g', -1, 64)
	}
	return text
}
