package wire

import "encoding/json"

// UserLine is a line of the answer with a user's data, for administrators. AgentOS has no such type.
type UserLine struct {
	// Kind is session, run, events, memory or spending, and next or end in the last line.
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data,omitempty" holds:"object"`
	// Cursor is in a line of kind next: what to send for the next page.
	Cursor string `json:"cursor,omitempty"`
}

// The kinds of the last line of a page: there is another page, or this one was the last.
const (
	UserLineNext = "next"
	UserLineEnd  = "end"
)

// ErasedUser is the answer to a request to erase a user: how much it has deleted.
type ErasedUser struct {
	Sessions int `json:"sessions"`
	Runs     int `json:"runs"`
	Memories int `json:"memories"`
	// More means that the same request must be sent again for the rest.
	More bool `json:"more"`
}
