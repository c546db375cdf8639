// Package mcp is the door for clients of the Model Context Protocol, from version 2024-11-05 to 2026-07-28
// (https://modelcontextprotocol.io/specification/2026-07-28). It decides which messages the server understands, how
// agents look as tools (their names, descriptions and parameters), and how a run looks as the result of a tool. It
// decides about no caller, and starts no run.
package mcp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// Tool is one tool of the list.
type Tool struct {
	// Name has 1 to 64 characters of [A-Za-z0-9_-], which every vendor's API accepts. Required.
	Name string
	// Title is for people. Defaults to the name.
	Title string
	// Description is for the model that chooses the tool.
	Description string
	// Fields are the parameters, all of them members of one object. No other member is accepted.
	Fields []Field
	// ReadOnly means that a call changes nothing. Defaults to false.
	ReadOnly bool
}

// Field is a parameter of a tool.
type Field struct {
	// Name is the member's name. Required.
	Name string
	// Type is a JSON type. Defaults to string.
	Type string
	// Description is for the model.
	Description string
	// Required means that a call without it is wrong. Defaults to false.
	Required bool
	// Fields are the members of each element, if Type is array. Defaults to none.
	Fields []Field
}

// Call is one call of a tool.
type Call struct {
	// Arguments is a JSON object as the client has sent it, which nobody has checked.
	Arguments json.RawMessage
	// Asks means that the client can ask its user in the same call: Result.Questions is understood.
	Asks bool
	// Answers are the user's answers to the questions of an earlier result, by their key, and State is the State of that
	// result. Both are what the client says.
	Answers map[string]Answer
	State   string
	// Progress shows the client what happens meanwhile. It is nil if the client doesn't want to know.
	Progress func(text string)
}

// Answer is a user's answer to a question.
type Answer struct {
	// Accepted and Declined are what the user chose; neither means that the user has not decided.
	Accepted, Declined bool
	// Values are the fields of the form, as they were sent.
	Values map[string]json.RawMessage
}

// Result is the result of a call.
type Result struct {
	// Texts are for the client's model.
	Texts []string
	// Data is a JSON object with the same for programs. Defaults to none.
	Data any
	// Failed marks the result as an error. Defaults to false.
	Failed bool
	// Questions are for the client's user, by keys of our choice; the result then has nothing else but State. The client
	// repeats its call with the answers. Defaults to none.
	Questions map[string]Question
	// State comes back with the answers.
	State string
}

// Question is a form for a person.
type Question struct {
	Message string
	Fields  []Field
}

// The tools beside those of agents.
const (
	GetRun      = "get_run"
	ContinueRun = "continue_run"
	CancelRun   = "cancel_run"
)

// maxName is the number of characters that every vendor's API accepts in the name of a tool.
const maxName = 64

// fitted is the form of the names that ToolName changes. No other name has it, so that a changed name equals no
// unchanged one.
var fitted = regexp.MustCompile(`_[0-9a-f]{12}$`)

// ToolName returns the name of the tool for an agent: its id, if that is a name of a tool. Otherwise other characters
// become _, and a part of the id's hash follows. The name depends on nothing but the id, so that it stays the same
// when other agents come and go, and two ids have the same name only if their hashes begin with the same 48 bits.
func ToolName(agent string) string {
	name := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, agent)
	ours := []string{GetRun, ContinueRun, CancelRun, ""}
	if name == agent && len(name) <= maxName && !fitted.MatchString(name) && !slices.Contains(ours, name) {
		return name
	}
	hash := sha256.Sum256([]byte(agent))
	end := "_" + hex.EncodeToString(hash[:6])
	return name[:min(len(name), maxName-len(end))] + end
}

// Describe returns the description of the tool for an agent.
func Describe(name, description string) string {
	text := "Sends a message to the agent " + name
	if description = strings.TrimSpace(description); description != "" {
		text += ". " + strings.TrimSuffix(description, ".")
	}
	return text + ". The result is the agent's answer. The agent remembers earlier messages of the same session_id, " +
		"which each result names."
}
