package wire

import "unicode/utf8"

// AppendText appends a text as a JSON string. It does what encoding/json does without its reflection, and escapes what
// EscapeLines escapes as well.
func AppendText(to []byte, s string) []byte {
	const hex = "0123456789abcdef"
	to = append(to, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		if !escaped(r, size) {
			i += size
			continue
		}
		to = append(to, s[start:i]...)
		switch r {
		case '"', '\\':
			to = append(to, '\\', c)
		case '\n':
			to = append(to, '\\', 'n')
		case '\r':
			to = append(to, '\\', 'r')
		case '\t':
			to = append(to, '\\', 't')
		default:
			to = append(to, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
		i += size
		start = i
	}
	to = append(to, s[start:]...)
	return append(to, '"')
}

// escaped reports whether a character can't be written as it is. Bytes that are no UTF-8 become U+FFFD.
func escaped(r rune, size int) bool {
	switch {
	case r < ' ' || r == '"' || r == '\\':
		return true
	case r == utf8.RuneError:
		return size == 1
	}
	return r == '\u0085' || r == '\u2028' || r == '\u2029'
}
