package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/wire"
)

// initialMessages builds the first request to the model: the system message, the messages of the session's last runs
// if the agent wants them, and the caller's message with its files. The system message and the caller's message
// become part of the run; the history stays with the runs it came from.
func (r *Runner) initialMessages(ctx context.Context, x *execution) ([]model.Message, error) {
	var out []model.Message
	if text := x.systemMessage(); text != "" {
		out = append(out, x.appendMessage(model.Message{Role: model.System, Content: text}, nil))
	}
	past, err := r.history(ctx, x)
	if err != nil {
		return nil, err
	}
	out = append(out, past...)
	// The stored message and its files are kept apart, as the client sent them. The model receives them as one text.
	x.appendMessage(model.Message{Role: model.User, Content: x.row.Input}, nil)
	x.messages[len(x.messages)-1].Files = x.files
	return append(out, model.Message{Role: model.User, Content: withFiles(x.row.Input, x.files)}), nil
}

// history returns the messages of earlier runs of this session, if the agent has add_history_to_context. BeginRun
// has usually read them already, in its own round trip.
func (r *Runner) history(ctx context.Context, x *execution) (out []model.Message, err error) {
	if !x.agent.AddHistoryToContext {
		return nil, nil
	}
	if x.history == nil {
		x.history, err = r.db.History(ctx, x.row.Owner, x.row.SessionID, x.agent.ID, x.agent.NumHistoryRuns)
		if err != nil {
			return nil, err
		}
	}
	for _, raw := range x.history {
		past, err := pastMessages(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, past...)
	}
	x.history = nil // It may be large, and is needed only once.
	return out, nil
}

// conversationSoFar returns everything that the model received and answered in this run, with the history before it:
// the request from which the next step continues.
func (r *Runner) conversationSoFar(ctx context.Context, x *execution) ([]model.Message, error) {
	messages, err := r.history(ctx, x)
	if err != nil {
		return nil, err
	}
	own := modelMessages(x.messages)
	if len(own) > 0 && own[0].Role == model.System { // The system message comes before the history.
		messages, own = append([]model.Message{own[0]}, messages...), own[1:]
	}
	return append(messages, own...), nil
}

// withFiles appends the text of the caller's files to the message. File names are quoted, because they come from the
// caller like the message itself.
func withFiles(text string, files []wire.File) string {
	var b strings.Builder
	b.WriteString(text)
	for _, f := range files {
		fmt.Fprintf(&b, "\n\n<file name=%q>\n%s\n</file>", f.Filename, f.Content)
	}
	return b.String()
}

// systemMessage builds the system message in AgentOS's order and form, so that a prompt that was tuned there has the
// same effect here. It is "" if the agent configures none of its parts.
func (x *execution) systemMessage() string {
	var b strings.Builder
	if x.agent.Description != "" {
		b.WriteString(x.agent.Description + "\n")
	}
	if text := strings.TrimSpace(x.agent.Instructions); text != "" {
		b.WriteString(text + "\n\n")
	}
	// The order, the line breaks and the tags are those of AgentOS.
	var also []string
	if x.agent.Markdown {
		also = append(also, "Use markdown to format your answers.")
	}
	if x.agent.AddDatetimeToContext {
		also = append(also, fmt.Sprintf("The current time is %s.", x.start.UTC().Format("2006-01-02 15:04:05 MST")))
	}
	if len(also) > 0 {
		b.WriteString("<additional_information>\n- " + strings.Join(also, "\n- ") + "\n</additional_information>\n\n")
	}
	return strings.TrimSpace(b.String())
}

// pastMessages decodes the stored messages of an earlier run. Its system message is left out, because the present
// one replaces it.
func pastMessages(raw json.RawMessage) ([]model.Message, error) {
	var stored []wire.Message
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, fmt.Errorf("stored messages: %w", err)
	}
	return modelMessages(stored, model.System), nil
}

// modelMessages converts stored messages to the form that a model receives, without the messages of some roles. It is
// the inverse of storedMessage, so that a continued run sends the model the same conversation as an uninterrupted one.
func modelMessages(stored []wire.Message, without ...model.Role) (out []model.Message) {
	for _, m := range stored {
		if slices.Contains(without, model.Role(m.Role)) {
			continue
		}
		past := model.Message{Role: model.Role(m.Role), Content: withFiles(m.Content, m.Files), ToolCallID: m.ToolCallID}
		for _, c := range m.ToolCalls {
			past.ToolCalls = append(past.ToolCalls, model.ToolCall{
				ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments,
			})
		}
		out = append(out, past)
	}
	return out
}

// appendMessage adds a message to those of this run and returns it. metrics is nil unless the message is a complete
// answer of the model.
func (x *execution) appendMessage(m model.Message, metrics *wire.MessageMetrics) model.Message {
	// Provider data belongs to complete answers; other messages have none.
	w := x.storedMessage(m)
	if w.Metrics = metrics; metrics != nil {
		w.ProviderData = x.providerData
	}
	x.messages = append(x.messages, w)
	return m
}

// storedMessage converts a message to the form in which it is stored and shown. Names, ids and arguments come from the
// model, which may send anything, so they are made storable. The opaque data of a provider is not stored.
func (x *execution) storedMessage(m model.Message) wire.Message {
	w := wire.Message{
		ID: x.r.newID().String(), Role: string(m.Role), Content: m.Content,
		ToolCallID: pgvalue.CleanText(m.ToolCallID), CreatedAt: x.r.now().Unix(),
	}
	for _, c := range m.ToolCalls {
		w.ToolCalls = append(w.ToolCalls, wire.ToolCall{ID: pgvalue.CleanText(c.ID), Type: "function",
			Function: wire.ToolFunction{Name: pgvalue.CleanText(c.Name), Arguments: pgvalue.CleanText(c.Arguments)}})
	}
	return w
}
