// Package aisdk translates between the UI messages of AI SDK 7 and runs: what a page sends by its DefaultChatTransport,
// and the chunks of its UI message stream. It decides nothing about callers, and stores nothing.
//
// Source: the package ai 7.0.173 (ui/ui-messages, ui-message-stream/ui-message-chunks).
package aisdk

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/door/agui"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// message is a UI message.
type message struct {
	Role     string `json:"role"`
	Parts    []part `json:"parts"`
	Metadata struct {
		RunID string `json:"run_id"` // from Encoder
	} `json:"metadata"`
}

// part is a part of a message. Which members it has depends on its type.
type part struct {
	Type       string `json:"type"`
	Text       string `json:"text"`
	MediaType  string `json:"mediaType"`
	Filename   string `json:"filename"`
	URL        string `json:"url"`
	ToolCallID string `json:"toolCallId"`
	State      string `json:"state"`
	Approval   *struct {
		Approved bool   `json:"approved"`
		Reason   string `json:"reason"`
	} `json:"approval"`
	Output json.RawMessage `json:"output"`
}

// Read reads messages, a JSON text of at most that many. If the last one is the assistant's, the user has answered its
// questions: runID is the run, and answers are the decisions. Otherwise the conversation is what the user says, as that
// of package agui. The error is fault.Invalid and names the member.
func Read(text []byte, most int) (c agui.Conversation, runID string, answers run.Answers, err error) {
	root, count := strictjson.Root(string(text)), 0
	for range root.Elements() {
		count++
	}
	if count == 0 || count > most {
		return c, "", nil, invalid("messages: is no list of 1 to %d messages", most)
	}
	all := make([]message, 0, count)
	for e := range root.Elements() {
		var m message
		if json.Unmarshal([]byte(e.Raw), &m) != nil {
			return c, "", nil, invalid("messages[%d]: is no UI message", len(all))
		}
		all = append(all, m)
	}
	if last := all[count-1]; last.Role == "assistant" {
		answers := answersOf(last)
		if last.Metadata.RunID == "" || len(answers) == 0 {
			return c, "", nil, invalid("messages: ends with a message of the assistant, and answers none of its questions")
		}
		return c, last.Metadata.RunID, answers, nil
	}
	plain, err := plainOf(all)
	if err == nil {
		c, err = agui.Messages(plain, most)
	}
	return c, "", nil, err
}

// answersOf returns the user's answers in a message of the assistant: to a request for an approval, and the output of
// a call that the page has made, or for which it has asked the user. A run reads only the answers that it waits for.
func answersOf(m message) run.Answers {
	answers := run.Answers{}
	for _, p := range m.Parts {
		switch {
		case p.ToolCallID == "":
		case p.State == "approval-responded" && p.Approval != nil:
			answers[p.ToolCallID] = wire.ToolExecution{
				ToolCallID: p.ToolCallID, Confirmed: &p.Approval.Approved, ConfirmationNote: &p.Approval.Reason,
			}
		case p.State == "output-available":
			answers[p.ToolCallID] = agui.Answer(p.ToolCallID, p.Output)
		}
	}
	return answers
}

// plainOf returns the messages in the form of AG-UI. A page shows calls of tools, thoughts and steps, and they are not
// for the model.
func plainOf(all []message) ([]byte, error) {
	type source struct {
		Type     string `json:"type"`
		Value    string `json:"value"`
		MimeType string `json:"mimeType"`
	}
	type content struct {
		Type     string            `json:"type"`
		Text     string            `json:"text,omitempty"`
		Source   *source           `json:"source,omitempty"`
		Metadata map[string]string `json:"metadata,omitempty"`
	}
	type plain struct {
		Role    string    `json:"role"`
		Content []content `json:"content"`
	}
	var out []plain
	for i, m := range all {
		if m.Role != "user" && m.Role != "assistant" && m.Role != "system" {
			return nil, invalid("messages[%d].role: is none of user, assistant and system", i)
		}
		p := plain{Role: m.Role}
		for n, one := range m.Parts {
			switch one.Type {
			case "text":
				p.Content = append(p.Content, content{Type: "text", Text: one.Text})
			case "file":
				head, data, found := strings.Cut(strings.TrimPrefix(one.URL, "data:"), ";base64,")
				if _, err := base64.StdEncoding.DecodeString(data); !found || !strings.HasPrefix(one.URL, "data:") || err != nil {
					return nil, invalid("messages[%d].parts[%d].url: is no data URL in base64", i, n)
				}
				p.Content = append(p.Content, content{Type: "document", Source: &source{"data", data, head},
					Metadata: map[string]string{"filename": one.Filename}})
			}
		}
		out = append(out, p)
	}
	return wire.Marshal(out)
}

func invalid(format string, args ...any) error {
	return fault.Public(fault.Invalid, fmt.Sprintf(format, args...), nil)
}
