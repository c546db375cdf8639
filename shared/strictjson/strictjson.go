// Package strictjson decides whether a text is JSON that all readers understand in the
// same way, and it returns the parts of such a text exactly as they were sent.
// encoding/json is more lenient: it replaces invalid UTF-8 and half surrogate pairs, and
// it keeps the last of two members of one name. Two readers can then see two values in
// one text (RFC 8259 sections 4 and 8), which is dangerous in a token and loses data in
// the database.
package strictjson

// Check judges a text. Root, Members and Elements walk over a text that Check accepts.
// HasNUL and MakeStorable are about what PostgreSQL's jsonb can store.

// DefaultMaxDepth is how many objects and arrays may enclose a value when
// Options.MaxDepth is 0. Later readers recurse once per level, so that the depth
// must have a bound.
const DefaultMaxDepth = 512

// maxNumberText is the length of the longest number, in bytes. PostgreSQL's numeric, and
// so its jsonb, stores at most 16,383 digits after the decimal point. A text of this
// length has fewer, even with the smallest exponent of a float64, -324.
const maxNumberText = 16_000

// Options relaxes what Check requires. The zero value is the strictest.
type Options struct {
	// MaxDepth is how many objects and arrays may enclose a value. More than 9,999
	// makes no sense, because encoding/json refuses a deeper text. Defaults to
	// DefaultMaxDepth.
	MaxDepth int
	// AnyNumber accepts numbers that no float64 can represent, such as 1e999 and 1e-999. Set
	// it if numbers are not read, or are checked later. Defaults to false.
	AnyNumber bool
	// MaxValues is how many values the text may have: texts, numbers, true, false, null, objects and arrays, and no
	// names. A tree of them takes far more memory than their text. Defaults to 0: no limit.
	MaxValues int
	// Distinct refuses two members of one name in an object, at any depth. The names of the objects that enclose a value
	// are kept meanwhile, so that it needs MaxValues. Defaults to false.
	Distinct bool
}

// Error is the first error in a text. It is no Go error: callers build theirs from the Text.
type Error struct {
	// Offset is where the error is, in bytes from the start of the text. A caller that
	// shows it to a person may have to count characters instead.
	Offset int
	// Text describes the error. A syntax error has the words of Python's json module,
	// because FastAPI sends these to its clients. The errors that only this
	// package reports have its own words.
	Text string
}

// What Check refuses although encoding/json accepts it.
const (
	// encoding/json replaces invalid bytes by U+FFFD, so that two names become one.
	notUTF8 = "Invalid UTF-8"
	// A half pair stands for no character. encoding/json replaces it too, and
	// PostgreSQL's jsonb refuses it.
	halfSurrogate = "Half a surrogate pair"
	// PostgreSQL would store 1e999 with its thousand digits, and no reader that uses
	// float64 could read it back. A reader would see 1e-999 as 0. See maxNumberText too.
	outOfRange = "Number out of range"
	// See DefaultMaxDepth.
	tooDeep = "Nesting is too deep"
	// See Options.MaxValues and Options.Distinct.
	tooMany  = "Too many values"
	repeated = "Two members have one name"
)

// IsJSON reports whether the text with this error is JSON all the same, as far as it was read: it exceeds an option.
func (e *Error) IsJSON() bool { return e.Text == tooDeep || e.Text == tooMany || e.Text == repeated }

// Check returns the first error in data, or nil if data is one JSON value. It accepts
// the grammar of RFC 8259 only: Python's NaN and Infinity and a byte order mark are
// errors. All that it accepts, encoding/json accepts too. Members of one name are no
// error here, because each reader decides about these: see Value.Members.
func Check(data []byte, o Options) *Error {
	if o.MaxDepth == 0 {
		o.MaxDepth = DefaultMaxDepth
	}
	s := scanner{data: data, options: o}
	s.space()
	if !s.value(0) {
		return &Error{s.err.Offset, s.err.Text} // a copy, so that s stays on the stack
	}
	s.space()
	if s.i < len(data) {
		return &Error{s.i, "Extra data"}
	}
	return nil
}
