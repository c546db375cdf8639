package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/wire"
)

// conversation returns the request from which the next step continues: the system message, the messages of the
// session's last runs if the agent wants them, and the messages of this run. The history stays with the runs it came
// from.
func (l *leg) conversation(at position) (messages []model.Message, err error) {
	if at == atStart {
		if err := l.addInput(); err != nil {
			return nil, err
		}
	}
	if messages, err = l.pastMessages(); err != nil {
		return nil, err
	}
	own := modelMessages(l.Messages)
	if len(own) > 0 && own[0].Role == model.System { // The system message comes before the history.
		messages, own = append([]model.Message{own[0]}, messages...), own[1:]
	}
	return append(messages, own...), nil
}

// addInput adds the system message and the caller's message to the run. The stored message and its files are kept
// apart, as the client sent them. The model receives them as one text.
func (l *leg) addInput() error {
	if text := l.systemMessage(); text != "" {
		l.appendMessage(model.Message{Role: model.System, Content: text}, nil)
	}
	input := l.appendMessage(model.Message{Role: model.User, Content: l.row.Input}, nil)
	if len(l.row.Files) == 0 {
		return nil
	}
	return json.Unmarshal(l.row.Files, &input.Files)
}

// pastMessages returns the messages of earlier runs of this session, if the agent has add_history_to_context. Their
// system messages are left out, because the present one replaces them. BeginRun has usually read them already, in its
// own round trip. A conversation that the caller sent replaces them all.
func (l *leg) pastMessages() (out []model.Message, err error) {
	if l.row.History != nil {
		return claimedMessages(l.row.History)
	}
	if !l.readsHistory() {
		return nil, nil
	}
	if l.history == nil {
		err = l.persist(func(ctx context.Context) (err error) {
			l.history, err = l.db.History(ctx, l.row.Owner, l.row.SessionID, l.agent.ID, l.agent.NumHistoryRuns)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, raw := range l.history {
		var stored []message
		if err := json.Unmarshal(raw, &stored); err != nil {
			return nil, fmt.Errorf("stored messages: %w", err)
		}
		out = append(out, modelMessages(stored, model.System)...)
	}
	l.history = nil // It may be large, and is needed only once.
	return out, nil
}

// readsHistory reports whether the model receives earlier runs of the session.
func (l *leg) readsHistory() bool { return l.agent.AddHistoryToContext && l.row.History == nil }

// claimedMessages returns the conversation that the caller sent.
func claimedMessages(history json.RawMessage) (out []model.Message, err error) {
	var turns []Turn
	if err := json.Unmarshal(history, &turns); err != nil {
		return nil, fmt.Errorf("stored conversation: %w", err)
	}
	for _, t := range turns {
		out = append(out, model.Message{Role: t.Role, Content: t.Content})
	}
	return out, nil
}

// Turn is one message of a conversation that a caller sent.
type Turn struct {
	Role    model.Role `json:"role"` // model.User or model.Assistant
	Content string     `json:"content"`
}

// WithFiles appends the text of the caller's files to the message. File names are quoted, because they come from the
// caller like the message itself.
func WithFiles(text string, files []wire.File) string {
	var b strings.Builder
	b.WriteString(text)
	for _, f := range files {
		fmt.Fprintf(&b, "\n\n<file name=%q>\n%s\n</file>", f.Filename, f.Content)
	}
	return b.String()
}

// systemMessage builds the system message in AgentOS's order and form, so that a prompt that was tuned there has the
// same effect here. It is "" if the agent configures none of its parts.
func (l *leg) systemMessage() string {
	var b strings.Builder
	if l.agent.Description != "" {
		b.WriteString(l.agent.Description + "\n")
	}
	if text := strings.TrimSpace(l.agent.Instructions); text != "" {
		b.WriteString(text + "\n\n")
	}
	// The order, the line breaks and the tags are those of AgentOS.
	var also []string
	if l.agent.Markdown {
		also = append(also, "Use markdown to format your answers.")
	}
	if l.agent.AddDatetimeToContext {
		also = append(also, fmt.Sprintf("The current time is %s.", l.start.UTC().Format("2006-01-02 15:04:05 MST")))
	}
	if len(also) > 0 {
		b.WriteString("<additional_information>\n- " + strings.Join(also, "\n- ") + "\n</additional_information>\n\n")
	}
	return strings.TrimSpace(b.String())
}

// modelMessages converts stored messages to the form that a model receives, without the messages of some roles. It is
// the inverse of storedMessage, so that a continued run sends the model the same conversation as an uninterrupted one.
func modelMessages(stored []message, without ...model.Role) (out []model.Message) {
	for _, m := range stored {
		if slices.Contains(without, model.Role(m.Role)) {
			continue
		}
		past := model.Message{
			Role: model.Role(m.Role), Content: WithFiles(m.Content, m.Files), ToolCallID: m.ToolCallID,
			Reasoning: m.ReasoningContent, ProviderData: m.ProviderData, Opaque: m.Opaque,
		}
		for _, c := range m.ToolCalls {
			past.ToolCalls = append(past.ToolCalls, model.ToolCall{
				ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments,
			})
		}
		out = append(out, past)
	}
	return out
}

// appendMessage adds a message to those of this run. metrics is nil unless the message is a complete answer of the
// model. Provider data belongs to complete answers; other messages have none. The returned pointer is valid until the
// next message is added.
func (l *leg) appendMessage(m model.Message, metrics *wire.MessageMetrics) *wire.Message {
	w := l.storedMessage(m)
	if w.Metrics = metrics; metrics != nil {
		w.ProviderData = l.ProviderData
	}
	l.Messages = append(l.Messages, message{Message: w, Opaque: m.Opaque, OpaqueOf: opaqueOf(l.row)})
	return &l.Messages[len(l.Messages)-1].Message
}

// storedMessage converts a message to the form in which it is stored and shown.
func (l *leg) storedMessage(m model.Message) wire.Message {
	w := wire.Message{
		ID: l.newID().String(), Role: string(m.Role), Content: m.Content, ReasoningContent: m.Reasoning,
		ToolCallID: m.ToolCallID, CreatedAt: l.now().Unix(),
	}
	for _, c := range m.ToolCalls {
		w.ToolCalls = append(w.ToolCalls, wire.ToolCall{ID: c.ID, Type: "function",
			Function: wire.ToolFunction{Name: c.Name, Arguments: c.Arguments}})
	}
	return w
}
