// Package pgvalue decides which texts and times PostgreSQL stores unchanged, and converts the others. Text from a
// caller is checked with ValidText and rejected. Text from a model or a tool is converted with CleanText, because
// nobody could send it again. Times are converted with Time before they are stored. JSON is converted by
// strictjson.MakeStorable.
package pgvalue

import (
	"strings"
	"time"
	"unicode/utf8"
)

// replacement is U+FFFD, Unicode's replacement character.
const replacement = "\uFFFD"

// ValidText reports whether a text column can hold text: it is valid UTF-8 and has no NUL. PostgreSQL's manual,
// section 8.3: "the character with code zero (sometimes called NUL) cannot be stored". The database's encoding is
// UTF-8, so PostgreSQL rejects any other bytes.
func ValidText(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

// CleanText returns text with each NUL and each byte of invalid UTF-8 replaced by U+FFFD, so that ValidText holds. JSON
// that encoding/json writes has the same replacements, so a text is equal wherever it is stored.
func CleanText(text string) string {
	if ValidText(text) { // Nearly all texts are, and the rest of this function costs three copies.
		return text
	}
	return strings.ReplaceAll(string([]rune(text)), "\x00", replacement)
}

// Time returns t as a timestamptz column gives it back: in UTC, without the digits below a microsecond, which
// PostgreSQL does not keep (manual, section 8.5). Code that writes a time converts it first, so that the value in
// memory equals the value that is read later.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
