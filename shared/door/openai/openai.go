// Package openai translates between OpenAI's API and runs: it decodes requests for chat completions and responses, and
// encodes the events and results of runs as chunks, events and objects of that API. It decides which parameters are
// honoured, ignored or refused. It doesn't know HTTP, callers, policies or the database.
//
// The wire is written here and not taken from OpenAI's library: the types of that library are for clients, and a stream
// that encodes each delta with them would cost more than the run itself.
package openai

import (
	"encoding/json"
	"strings"
)

// API is one of the two APIs for the same runs.
type API string

// The APIs, named as their paths.
const (
	Chat      API = "chat/completions"
	Responses API = "responses"
)

// Request is a request to run an agent.
type Request struct {
	// Model is the id of the agent. It isn't checked.
	Model string
	// Message is the text of the user's messages after the last message of the assistant.
	Message string
	// Files belong to the message. Their content isn't checked.
	Files []File
	// History are the messages before that. The client claims them.
	History []Turn
	// Session is the session that the request names, with the name of the parameter. Both are "" without one.
	Session, SessionParam string
	// Previous is the run of previous_response_id in canonical form, or "".
	Previous string
	// Metadata is the object metadata as it was sent, or nil.
	Metadata json.RawMessage
	// Stream asks for events, Usage for the used tokens in a stream of chat completions, and Background for an answer
	// before the run has ended.
	Stream, Usage, Background bool
}

// Turn is a message that the client claims was said before.
type Turn struct {
	// Assistant is whether the message is presented as the agent's. Otherwise it is the caller's.
	Assistant bool
	Text      string
	Files     []File
	// Run is the run whose answer is the text, if the client names the message instead of repeating it. Param is where.
	Run, Param string
}

// File is a file in a message.
type File struct {
	Name string
	// Type is the media type, or "" if the client sent none.
	Type    string
	Content []byte
	// Param is where the file is in the request.
	Param string
}

// ChatID returns the id of the run as that of a chat completion.
func ChatID(run string) string { return "chatcmpl-" + bare(run) }

// ResponseID returns the id of the run as that of a response.
func ResponseID(run string) string { return responsePrefix + bare(run) }

// messageID returns the id of the run's answer.
func messageID(run string) string { return messagePrefix + bare(run) }

// thoughtsID returns the id of the thoughts of the run's model.
func thoughtsID(run string) string { return thoughtsPrefix + bare(run) }

const (
	responsePrefix = "resp_"
	messagePrefix  = "msg_"
	thoughtsPrefix = "rs_"
)

// bare returns the id of a run without its dashes. Clients expect no more than letters and digits behind the prefix.
func bare(run string) string { return strings.ReplaceAll(run, "-", "") }

// RunID returns the run's id in canonical form for the id of its response. It is "" for a text that is no such id, also
// for one with capital letters: each run has one name.
func RunID(response string) string { return runOf(responsePrefix, response) }

// runOf returns the run of an id with this prefix, or "".
func runOf(prefix, id string) string {
	hex, ok := strings.CutPrefix(id, prefix)
	if !ok || len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]
}

// Models is the answer to GET /v1/models.
type Models struct {
	Object string  `json:"object"` // "list"
	Data   []Model `json:"data"`
}

// Model is an agent that the caller is allowed to run.
type Model struct {
	ID      string `json:"id"`     // the agent's
	Object  string `json:"object"` // "model"
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"` // "keyway"
	Name    string `json:"name"`     // not in OpenAI's API; clients with a list of models show it
}

// NewModel describes an agent. An agent has no time at which it was made, so that Created is 0.
func NewModel(agent, name string) Model {
	return Model{ID: agent, Object: "model", OwnedBy: "keyway", Name: name}
}
