package openai

import "strings"

// Some models write their thoughts into the answer, between these tags, and their servers pass them on as text.
const openTag, closeTag = "<think>", "</think>"

// tags separates the thoughts at the beginning of an answer from its text. Tags anywhere else are text: an answer may
// be about them. White space around the thoughts is left out, as in AgentOS.
type tags struct {
	state thinking
	held  string // the end of what has arrived, as long as it may be a part of a tag
}

type thinking int

const (
	notBegun thinking = iota // only white space and a part of the tag have arrived
	begun                    // the tag has arrived, but no thought
	within
	ended // no text has arrived after the thoughts
	outside
)

// maxHeld is how much is held back at most.
const maxHeld = 1 << 10

// white is the white space around thoughts.
const white = " \t\r\n"

// split adds a piece of the answer and returns what is known to be text and what is known to be thoughts.
func (t *tags) split(s string) (said, thoughts string) {
	if t.state == outside || s == "" {
		return s, ""
	}
	s, t.held = t.held+s, ""
	if t.state == notBegun {
		switch trimmed := strings.TrimLeft(s, white); {
		case strings.HasPrefix(trimmed, openTag):
			t.state, s = begun, trimmed[len(openTag):]
		case strings.HasPrefix(openTag, trimmed) && len(s) < maxHeld:
			t.held = s
			return "", ""
		default:
			t.state = outside
			return s, ""
		}
	}
	if t.state == begun {
		if s = strings.TrimLeft(s, white); s != "" {
			t.state = within
		}
	}
	if t.state == within {
		var found bool
		if thoughts, s, found = strings.Cut(s, closeTag); !found {
			thoughts, t.held = hold(thoughts)
			return "", thoughts
		}
		thoughts, t.state = strings.TrimRight(thoughts, white), ended
	}
	if t.state == ended {
		if s = strings.TrimLeft(s, white); s != "" {
			t.state = outside
		}
	}
	return s, thoughts
}

// hold divides thoughts into what can be passed on, and white space and a part of the closing tag at the end.
func hold(thoughts string) (known, held string) {
	end := len(thoughts)
	for n := min(len(closeTag)-1, len(thoughts)); n > 0; n-- {
		if strings.HasSuffix(thoughts, closeTag[:n]) {
			end -= n
			break
		}
	}
	end = len(strings.TrimRight(thoughts[:end], white))
	if len(thoughts)-end > maxHeld {
		end = len(thoughts)
	}
	return thoughts[:end], thoughts[end:]
}

// rest returns what is held back when the answer ends.
func (t *tags) rest() (said, thoughts string) {
	s := t.held
	switch t.held = ""; t.state {
	case notBegun:
		return s, ""
	case within:
		return "", s
	}
	return "", ""
}
