// Package agui translates between AG-UI 1.0 and runs: the messages and the answers to interrupts of a RunAgentInput,
// and the events of a run. It decides nothing about callers, and stores nothing.
//
// Sources: the AG-UI 1.0 specification (docs.ag-ui.com/spec/1.0) and the verifier of @ag-ui/client 1.0.0, which ends a
// stream at the first event that breaks a rule.
package agui

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Version is the version of the protocol.
const Version = "1.0"

// Conversation is what the messages of a RunAgentInput say.
type Conversation struct {
	// Message is what the user wrote after the last message of the assistant. It is "" if the user wrote nothing.
	Message string
	// Files are the documents in it.
	Files []File

	earlier []message // those up to the last one of the assistant
}

// File is a document in a message.
type File struct {
	Name    string
	Type    string // media type
	Content []byte
}

// message is a message of a RunAgentInput. Its other members don't matter here.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// part is a part of the content of a message.
type part struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Source struct {
		Type     string `json:"type"`
		Value    string `json:"value"`
		MimeType string `json:"mimeType"`
	} `json:"source"`
	Metadata struct {
		Filename string `json:"filename"`
	} `json:"metadata"`
}

// Messages reads messages, a JSON text of at most that many messages. Only users and the assistant have said
// something: messages of the developer and the system would be instructions, which only the operator gives, and those
// of tools, reasoning and activities are the server's own. The error is fault.Invalid and names the member.
func Messages(messages []byte, most int) (c Conversation, err error) {
	list, err := elements("messages", messages, most)
	if err != nil {
		return c, err
	}
	all, last := make([]message, len(list)), -1
	for i, raw := range list {
		if json.Unmarshal([]byte(raw), &all[i]) != nil {
			return c, invalid("messages[%d]: is no message of AG-UI", i)
		}
		switch all[i].Role {
		case "assistant":
			last = i
		case "user", "developer", "system", "tool", "reasoning", "activity":
		default:
			return c, invalid("messages[%d].role: is none of user, assistant, tool, developer, system, reasoning and activity",
				i)
		}
	}
	c.earlier = all[:last+1]
	var texts []string
	for i := last + 1; i < len(all); i++ {
		if all[i].Role != "user" {
			continue
		}
		text, files, err := content(all[i].Content, i)
		if err != nil {
			return c, err
		}
		texts, c.Files = append(texts, text), append(c.Files, files...)
	}
	c.Message = strings.Join(texts, "\n\n")
	return c, nil
}

// HasHistory reports whether there are messages before Message.
func (c Conversation) HasHistory() bool { return len(c.earlier) > 0 }

// History returns the messages before Message, of the user and of the assistant. They are the client's claim. The
// error is fault.Invalid and names the member.
func (c Conversation) History() (turns []run.Turn, err error) {
	for i, m := range c.earlier {
		if m.Role != "user" && m.Role != "assistant" {
			continue
		}
		text, files, err := content(m.Content, i)
		if err == nil && len(files) > 0 {
			err = invalid("messages[%d].content: a document of an earlier message is not supported", i)
		}
		if err != nil {
			return nil, err
		}
		if text != "" { // A message of the assistant that only calls tools has no text.
			turns = append(turns, run.Turn{Role: model.Role(m.Role), Content: text})
		}
	}
	return turns, nil
}

// content reads the content of message i: a text, or a list of parts.
func content(raw json.RawMessage, i int) (text string, files []File, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil, nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return text, nil, storable(text, i)
	}
	var parts []part
	if json.Unmarshal(raw, &parts) != nil {
		return "", nil, invalid("messages[%d].content: is neither a text nor a list of parts", i)
	}
	var texts []string
	for n, p := range parts {
		switch {
		case p.Type == "text":
			texts = append(texts, p.Text)
		case p.Type == "document" && p.Source.Type == "data":
			data, err := base64.StdEncoding.DecodeString(p.Source.Value)
			if err != nil {
				return "", nil, invalid("messages[%d].content[%d].source.value: is no base64", i, n)
			}
			name := p.Metadata.Filename
			if name == "" {
				name = fmt.Sprintf("document-%d", n+1)
			}
			media, _, _ := strings.Cut(p.Source.MimeType, ";")
			files = append(files, File{Name: name, Type: strings.TrimSpace(media), Content: data})
		default:
			return "", nil, invalid("messages[%d].content[%d]: not supported. Agents of this server read text, and documents "+
				"of text whose source is data", i, n)
		}
	}
	text = strings.Join(texts, "\n")
	return text, files, storable(text, i)
}

// storable checks that the database can store the content of message i.
func storable(text string, i int) error {
	if pgvalue.ValidText(text) {
		return nil
	}
	return invalid("messages[%d].content: a NUL character can't be stored", i)
}

// Context reads the context of a RunAgentInput, a JSON text or nil, as files that the model reads with the message.
func Context(context []byte, most int) (files []File, err error) {
	list, err := elements("context", context, most)
	for i, raw := range list {
		var entry struct{ Description, Value *string }
		if json.Unmarshal([]byte(raw), &entry) != nil || entry.Description == nil || entry.Value == nil {
			return nil, invalid("context[%d]: is no object with the texts description and value", i)
		}
		files = append(files, File{
			Name: fmt.Sprintf("context-%d.txt", i+1), Type: "text/plain",
			Content: []byte(*entry.Description + "\n" + *entry.Value),
		})
	}
	return files, err
}

// Answers reads resume, a JSON text or nil: the answers to the interrupts of a paused run. runID is "" without any
// entry. The payload of a call that needs a confirmation is {"approved": true}; anything else rejects the call. That of
// a call that needs input has a member for each open argument, and that of a call which the client executes is the
// result. Which of them a call needs is not known here, so that an answer holds all three: a run reads only the one
// that it has asked for.
func Answers(resume []byte, most int) (runID string, answers run.Answers, err error) {
	list, err := elements("resume", resume, most)
	if len(list) > 0 {
		answers = run.Answers{}
	}
	for i, raw := range list {
		var entry struct {
			InterruptID string          `json:"interruptId"`
			Status      string          `json:"status"`
			Payload     json.RawMessage `json:"payload"`
		}
		if json.Unmarshal([]byte(raw), &entry) != nil || entry.Status != "resolved" && entry.Status != "cancelled" {
			return "", nil, invalid("resume[%d]: is no object with interruptId and the status resolved or cancelled", i)
		}
		of, call, found := strings.Cut(entry.InterruptID, ":")
		switch {
		case !found:
			return "", nil, invalid("resume[%d].interruptId: is no id of an interrupt of this server", i)
		case i > 0 && of != runID:
			return "", nil, invalid("resume[%d].interruptId: belongs to another run than the one before", i)
		}
		if _, twice := answers[call]; twice {
			return "", nil, invalid("resume[%d].interruptId: was answered before in this list", i)
		}
		runID, answers[call] = of, wire.ToolExecution{ToolCallID: call}
		if entry.Status == "resolved" {
			answers[call] = Answer(call, entry.Payload)
		}
	}
	return runID, answers, err
}

// Answer returns the answer to one question of a paused run, as Answers does.
func Answer(call string, payload json.RawMessage) wire.ToolExecution {
	out := wire.ToolExecution{ToolCallID: call}
	if len(payload) == 0 || string(payload) == "null" {
		return out
	}
	var text string
	if json.Unmarshal(payload, &text) != nil {
		text = string(payload)
	}
	out.Result = &text
	var members map[string]json.RawMessage
	if json.Unmarshal(payload, &members) != nil {
		return out
	}
	approved, note := false, ""
	_ = json.Unmarshal(members["approved"], &approved) // anything but true rejects
	_ = json.Unmarshal(members["note"], &note)
	out.Confirmed, out.ConfirmationNote = &approved, &note
	for name, value := range members {
		out.UserInputSchema = append(out.UserInputSchema, wire.UserInput{Name: name, Value: value})
	}
	return out
}

// elements returns the elements of a JSON array, after it has counted them. nil and null have none.
func elements(name string, text []byte, most int) (list []string, err error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	root, count := strictjson.Root(string(text)), 0
	if root.Raw[0] != '[' {
		return nil, invalid("%s: is no list", name)
	}
	for range root.Elements() {
		count++
	}
	if count > most {
		return nil, invalid("%s: has more than %d elements", name, most)
	}
	list = make([]string, 0, count)
	for e := range root.Elements() {
		list = append(list, e.Raw)
	}
	return list, nil
}

// Empty reports whether a JSON text is absent, null, or a list or an object without elements.
func Empty(text []byte) bool {
	switch strings.Join(strings.Fields(string(text[:min(len(text), 16)])), "") {
	case "", "null", "[]", "{}":
		return true
	}
	return false
}

func invalid(format string, args ...any) error {
	return fault.Public(fault.Invalid, fmt.Sprintf(format, args...), nil)
}
