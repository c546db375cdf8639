package modeltest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Form is one way in which compatible servers differ from an API's own server. A script
// in any form means the same answer. An API ignores the forms that it can't have.
type Form string

// The forms. The servers in the comments are those that were seen to send them.
const (
	// NoOpening leaves out the event that opens an answer (llama.cpp).
	NoOpening Form = "no opening event"
	// NoIndexes leaves out all indexes and numbers of events (llama.cpp, LiteLLM).
	NoIndexes Form = "no indexes"
	// SameIndex has the index 0 for everything (Ollama behind LiteLLM, Gemini).
	SameIndex Form = "the index 0 for everything"
	// Named repeats ID, type and name in each piece of a call (llama-cpp-python).
	Named Form = "ID and name in each piece of a call"
	// WholeArguments has no pieces of arguments. They are a text in the call's first event
	// that can have them.
	WholeArguments Form = "arguments in one piece"
	// ObjectArguments is WholeArguments with an object in place of the text.
	ObjectArguments Form = "arguments as an object"
	// DeltasOnly has the arguments in pieces alone, where the API repeats them at the end.
	DeltasOnly Form = "arguments in pieces alone"
	// NoItems has the calls in the last event alone.
	NoItems Form = "calls in the last event alone"
	// Repeated sends the event that begins or ends an item twice.
	Repeated Form = "events twice"
	// Messages has a member message in place of delta.
	Messages Form = "message in place of delta"
	// NullContent has content null beside calls (llama.cpp).
	NullContent Form = "content null"
	// ListContent has a list of parts in place of a text (Mistral).
	ListContent Form = "content as a list"
	// FloatCounts counts tokens in floating point.
	FloatCounts Form = "counts as 10.0"
	// EarlyUsage has the usage in the first chunk, and none in the last.
	EarlyUsage Form = "usage at the start"
	// LateUsage has zeros at the start, and the whole usage at the end (LiteLLM).
	LateUsage Form = "usage at the end alone"
	// NoNames leaves out the names of events (LiteLLM).
	NoNames Form = "no names of events"
	// OtherForm answers with JSON where a stream was requested (LiteLLM), and with a stream
	// where JSON was.
	OtherForm Form = "the form that was not requested"
)

// Forms are all forms.
var Forms = []Form{
	NoOpening, NoIndexes, SameIndex, Named, WholeArguments, ObjectArguments, DeltasOnly, NoItems, Repeated, Messages,
	NullContent, ListContent, FloatCounts, EarlyUsage, LateUsage, NoNames, OtherForm,
}

// As sends the answer in these forms.
func (s Script) As(forms ...Form) Script {
	s.forms = append(slices.Clip(s.forms), forms...)
	return s
}

// has reports whether the script has a form.
func (s Script) has(f Form) bool { return slices.Contains(s.forms, f) }

// pieces returns the arguments of a call as they follow its start: in pieces of three
// characters, or none if the start has them.
func (s Script) pieces(c callStep) (out []string) {
	if s.inOnePiece(c) {
		return nil
	}
	for piece := range slices.Chunk([]rune(c.arguments), 3) {
		out = append(out, string(piece))
	}
	return out
}

// inOnePiece reports whether a call has its arguments in one piece.
func (s Script) inOnePiece(c callStep) bool {
	return s.has(WholeArguments) || s.has(ObjectArguments) || !utf8.ValidString(c.arguments)
}

// whole returns the arguments of a call in one piece: an object or a text.
func (s Script) whole(c callStep) any {
	if s.has(ObjectArguments) && json.Valid([]byte(c.arguments)) {
		return json.RawMessage(c.arguments)
	}
	return c.arguments
}

// oneAfterTheOther reports whether each call is complete before the next one starts,
// because nothing else shows to which call a piece belongs.
func (s Script) oneAfterTheOther() bool { return s.has(NoIndexes) || s.has(SameIndex) }

// index sets the members of an event that are indexes as the script's forms want them.
func (s Script) index(event map[string]any, names ...string) {
	for _, name := range names {
		if _, ok := event[name]; !ok {
			continue
		}
		switch {
		case s.has(NoIndexes):
			delete(event, name)
		case s.has(SameIndex):
			event[name] = 0
		}
	}
}

// counts returns a usage with its numbers as the script's forms want them.
func (s Script) counts(usage map[string]any) map[string]any {
	if !s.has(FloatCounts) {
		return usage
	}
	usage = maps.Clone(usage)
	for name, v := range usage {
		switch v := v.(type) {
		case int:
			usage[name] = json.RawMessage(fmt.Sprintf("%d.0", v))
		case map[string]any:
			usage[name] = s.counts(v)
		}
	}
	return usage
}

// sendCalls sends calls that directly follow each other. start sends the start of one,
// piece a piece of its arguments, and end its end. Parallel calls are interleaved: all
// starts, one piece of each call, then the next piece of each, and all ends.
func (s Script) sendCalls(
	group []callStep, start func(call int), piece func(call int, piece string), end func(call int),
) {
	if s.oneAfterTheOther() {
		for i, c := range group {
			start(i)
			for _, p := range s.pieces(c) {
				piece(i, p)
			}
			end(i)
		}
		return
	}
	pieces, longest := make([][]string, len(group)), 0
	for i, c := range group {
		start(i)
		pieces[i] = s.pieces(c)
		longest = max(longest, len(pieces[i]))
	}
	for turn := range longest {
		for i := range group {
			if turn < len(pieces[i]) {
				piece(i, pieces[i][turn])
			}
		}
	}
	for i := range group {
		end(i)
	}
}
