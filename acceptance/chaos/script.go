//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// script is the message of a run. The model reads it from the conversation and does what it says, so that the model
// needs no state: a step that is repeated gets the same answer.
type script struct {
	// ID identifies the request of the load that the run belongs to. No two requests have the same.
	ID string `json:"id"`
	// Rounds is how often the model requests tools before it answers with a text.
	Rounds int `json:"rounds,omitempty"`
	// Calls is how many tools it requests each time.
	Calls int `json:"calls,omitempty"`
	// Pause is the round, from 1, whose calls a person must confirm. 0: none.
	Pause int `json:"pause,omitempty"`
	// Words is the length of the text, and Pace the time between two words in milliseconds.
	Words int `json:"words"`
	Pace  int `json:"pace"`
	// IDs is what the ids of tool calls look like: usual, empty, same or long.
	IDs string `json:"ids,omitempty"`
	// Tool is the tool of the rounds without a pause. Argument is the name of its only argument.
	Tool     string `json:"tool"`
	Argument string `json:"argument"`
}

// marker begins every message of the load.
const marker = "chaos "

func (s script) message() string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // texts and numbers
	}
	return marker + string(text)
}

// parseScript reads a message of the load. ok is false for any other message.
func parseScript(message string) (s script, ok bool) {
	text, found := strings.CutPrefix(message, marker)
	return s, found && json.Unmarshal([]byte(text), &s) == nil
}

// word is a piece of the model's text. The words of a text differ, so that a lost or a doubled one is seen.
func (s script) word(i int) string {
	if i == 0 {
		return s.ID + ":"
	}
	return fmt.Sprintf(" w%d", i)
}

// text is the whole text with which the model ends the run.
func (s script) text() string {
	var b strings.Builder
	for i := range s.Words {
		b.WriteString(s.word(i))
	}
	return b.String()
}

// steps is how often the model is asked if nothing fails.
func (s script) steps() int { return s.Rounds + 1 }

// key names a call in the arguments that the model chooses, so that a call is recognized whatever its id is.
func (s script) key(round, call int) string { return fmt.Sprintf("%s.%d.%d", s.ID, round, call) }

// keys are those of all calls that the model requests.
func (s script) keys() (all []string) {
	for round := 1; round <= s.Rounds; round++ {
		for call := range s.Calls {
			all = append(all, s.key(round, call))
		}
	}
	return all
}

// confirmed are the keys of the calls that a person confirms or, with false, rejects.
func (s script) confirmed(want bool) (some []string) {
	for call := range s.Calls {
		if key := s.key(s.Pause, call); s.Pause > 0 && decision(key) == want {
			some = append(some, key)
		}
	}
	return some
}

// idOf is the script's ID in the key of a call.
func idOf(key string) string { id, _, _ := strings.Cut(key, "."); return id }

// decision is a person's decision about a call. It depends on the key alone, so that a request to continue which is
// sent twice asks for the same.
func decision(key string) bool { return hash(key)%2 == 0 }

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return h.Sum32()
}

// vendorID is the id that the model gives a call. Real providers send such ids too.
func (s script) vendorID(round, call int) string {
	switch s.IDs {
	case "empty":
		return ""
	case "same":
		return "call_0"
	case "long":
		return "call_" + strings.Repeat("x", 50) + s.key(round, call)
	default:
		return fmt.Sprintf("call_%08x", hash(s.key(round, call)))
	}
}

func (s script) pace() time.Duration { return time.Duration(s.Pace) * time.Millisecond }
