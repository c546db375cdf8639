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

// context builds what the model hears: the operator's words, the session's last
// runs when the agent wants them, and the caller's message.
func (r *Runner) context(ctx context.Context, t *turn) ([]model.Message, error) {
	var out []model.Message
	if text := t.systemMessage(); text != "" {
		out = append(out, t.record(model.Message{Role: model.System, Content: text}, nil))
	}
	past, err := r.history(ctx, t)
	if err != nil {
		return nil, err
	}
	out = append(out, past...)
	t.record(model.Message{Role: model.User, Content: t.row.Input}, nil)
	t.messages[len(t.messages)-1].Files = t.files
	return append(out, model.Message{Role: model.User, Content: withFiles(t.row.Input, t.files)}), nil
}

// history is what was said in earlier runs, when the agent wants to hear it.
func (r *Runner) history(ctx context.Context, t *turn) (out []model.Message, err error) {
	if !t.agent.AddHistoryToContext {
		return nil, nil
	}
	if t.earlier == nil {
		if t.earlier, err = r.db.History(ctx, t.row.Owner, t.row.SessionID, t.agent.ID, t.agent.NumHistoryRuns); err != nil {
			return nil, err
		}
	}
	for _, raw := range t.earlier {
		past, err := recall(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, past...)
	}
	t.earlier = nil // it may be long, and is heard once
	return out, nil
}

// withFiles shows the model a message with its files. Their names are the caller's
// words like the message itself.
func withFiles(text string, files []wire.File) string {
	var b strings.Builder
	b.WriteString(text)
	for _, f := range files {
		fmt.Fprintf(&b, "\n\n<file name=%q>\n%s\n</file>", f.Filename, f.Content)
	}
	return b.String()
}

// systemMessage has the operator's words in the order and form of AgentOS, so
// that a prompt tuned there behaves the same here.
func (t *turn) systemMessage() string {
	var b strings.Builder
	if t.agent.Description != "" {
		b.WriteString(t.agent.Description + "\n")
	}
	if text := strings.TrimSpace(t.agent.Instructions); text != "" {
		b.WriteString(text + "\n\n")
	}
	var also []string
	if t.agent.Markdown {
		also = append(also, "Use markdown to format your answers.")
	}
	if t.agent.AddDatetimeToContext {
		also = append(also, fmt.Sprintf("The current time is %s.", t.start.UTC().Format("2006-01-02 15:04:05 MST")))
	}
	if len(also) > 0 {
		b.WriteString("<additional_information>\n- " + strings.Join(also, "\n- ") + "\n</additional_information>\n\n")
	}
	return strings.TrimSpace(b.String())
}

// recall reads an earlier run's stored messages. Its system message is left out:
// today's stands in its place.
func recall(raw json.RawMessage) ([]model.Message, error) {
	var stored []wire.Message
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, fmt.Errorf("stored messages: %w", err)
	}
	return heard(stored, model.System), nil
}

// heard turns what was recorded back into what the model heard, without the
// messages of some roles.
func heard(said []wire.Message, without ...model.Role) (out []model.Message) {
	for _, m := range said {
		if slices.Contains(without, model.Role(m.Role)) {
			continue
		}
		past := model.Message{Role: model.Role(m.Role), Content: withFiles(m.Content, m.Files), ToolCallID: m.ToolCallID}
		for _, c := range m.ToolCalls {
			past.ToolCalls = append(past.ToolCalls, model.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments})
		}
		out = append(out, past)
	}
	return out
}

// record keeps a message of this run, with its cost when it is an answer, and
// gives it back.
func (t *turn) record(m model.Message, cost *wire.MessageMetrics) model.Message {
	w := t.message(m)
	if w.Metrics = cost; cost != nil {
		w.ProviderData = t.data
	}
	t.messages = append(t.messages, w)
	return m
}

func (t *turn) message(m model.Message) wire.Message {
	w := wire.Message{
		ID: t.r.newID().String(), Role: string(m.Role), Content: m.Content, ToolCallID: storable(m.ToolCallID), CreatedAt: t.r.now().Unix(),
	}
	for _, c := range m.ToolCalls {
		w.ToolCalls = append(w.ToolCalls, wire.ToolCall{ID: storable(c.ID), Type: "function",
			Function: wire.ToolFunction{Name: storable(c.Name), Arguments: storable(c.Arguments)}})
	}
	return w
}
