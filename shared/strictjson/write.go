package strictjson

import "unicode/utf8"

// AppendText appends a string as JSON, with the bytes that encoding/json writes without SetEscapeHTML: " and \ and
// control characters are escaped, invalid UTF-8 becomes U+FFFD, and U+2028 and U+2029, which end a line in JavaScript,
// are escaped too.
func AppendText[T string | []byte](out []byte, s T) []byte {
	out = append(out, '"')
	start := 0 // of what was not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			out = appendEscape(append(out, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(append(out, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			out = append(append(out, s[start:i]...), `\u202`...)
			out = append(out, hex[r&0xF])
			start = i + size
		}
		i += size
	}
	return append(append(out, s[start:]...), '"')
}

// AppendTexts appends a list of strings as JSON. A nil list is [].
func AppendTexts(out []byte, list []string) []byte {
	out = append(out, '[')
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = AppendText(out, s)
	}
	return append(out, ']')
}

const hex = "0123456789abcdef"

// appendEscape appends the escape of an ASCII character.
func appendEscape(out []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(out, '\\', c)
	case '\b':
		return append(out, `\b`...)
	case '\f':
		return append(out, `\f`...)
	case '\n':
		return append(out, `\n`...)
	case '\r':
		return append(out, `\r`...)
	case '\t':
		return append(out, `\t`...)
	}
	return append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
}
