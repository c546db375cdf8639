// Package demo is a model that runs in this process: offline, without a key, and
// always with the same answer to the same conversation. It shows how streaming and
// tools work and says in every answer that it is a demo. It knows nothing of any
// vendor, and nothing that it was not just told.
package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
)

// Model is the demo model. It echoes what the user said and lists the tools it was
// offered. A user who says
//
//	call tool NAME {json}
//
// makes it call that tool, once, and report the result.
type Model struct {
	id    string
	delay time.Duration
}

// Option changes a new Model.
type Option func(*Model)

// WithDelay sets the pause before each word; without it, it is 15 ms, so that a
// newcomer sees the answer stream. 0 is no pause.
func WithDelay(d time.Duration) Option { return func(m *Model) { m.delay = d } }

// New makes a model. An empty id is "demo".
func New(id string, options ...Option) *Model {
	m := &Model{id: cmp.Or(id, "demo"), delay: 15 * time.Millisecond}
	for _, o := range options {
		o(m)
	}
	return m
}

// Describe names the demo for what it is.
func (m *Model) Describe() model.Description {
	return model.Describe("demo", m.id)
}

// Stream implements model.Model. Its only error is the context's cause. Usage
// counts words.
func (m *Model) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		text, calls := answer(r)
		for word := range strings.SplitAfterSeq(text, " ") {
			if err := m.pause(ctx); err != nil {
				yield(model.Part{}, err)
				return
			}
			if !yield(model.Part{Text: word}, nil) {
				return
			}
		}
		yield(model.Part{End: end(r, text, calls)}, nil)
	}
}

func (m *Model) pause(ctx context.Context) error {
	if m.delay > 0 {
		t := time.NewTimer(m.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

func end(r model.Request, text string, calls []model.ToolCall) *model.End {
	e := &model.End{ToolCalls: calls, FinishReason: "stop"}
	if len(calls) > 0 {
		e.FinishReason = "tool_calls"
	}
	for _, msg := range r.Messages {
		e.Usage.Input += len(strings.Fields(msg.Content))
	}
	e.Usage.Output = len(strings.Fields(text))
	e.Usage.Total = e.Usage.Input + e.Usage.Output
	return e
}

const hello = "This is Keyway's demo model: "

// answer decides what to say and what to call.
func answer(r model.Request) (text string, calls []model.ToolCall) {
	said, results := lastTurn(r.Messages)
	if len(results) > 0 {
		return hello + strings.Join(results, " "), nil
	}
	tools := "No tools were offered to it."
	if len(r.Tools) > 0 {
		tools = fmt.Sprintf("It was offered the tools %s; say `call tool NAME {json}` and it calls one.", names(r.Tools))
	}
	name, arguments, wanted := wish(said)
	switch {
	case !wanted:
		return fmt.Sprintf("%sno language model was asked. You said: %s\n\n%s", hello, shorten(said), tools), nil
	case !offered(r.Tools, name):
		return fmt.Sprintf("%sthere is no tool %s. %s", hello, shorten(name), tools), nil
	case !json.Valid([]byte(arguments)):
		return fmt.Sprintf("%sit calls %s only with a JSON object, as in `call tool %s {}`.", hello, name, name), nil
	}
	id := fmt.Sprintf("call_demo_%d", len(r.Messages)) // new in each turn, the same in each repetition
	return hello + "it calls " + name + ".", []model.ToolCall{{ID: id, Name: name, Arguments: arguments}}
}

// lastTurn finds what the user said last, and what tools have answered since.
func lastTurn(messages []model.Message) (said string, results []string) {
	called := map[string]string{} // call id → tool name
	for _, m := range messages {
		switch m.Role {
		case model.User:
			said, results = m.Content, nil
		case model.Assistant:
			for _, c := range m.ToolCalls {
				called[c.ID] = c.Name
			}
		case model.ToolRole:
			name := cmp.Or(called[m.ToolCallID], "a tool")
			results = append(results, fmt.Sprintf("%s answered: %s", name, shorten(m.Content)))
		}
	}
	return said, results
}

// A name may hold what MCP servers put into theirs, but a sentence's full stop is
// no part of it.
var command = regexp.MustCompile(`(?is)\bcall tool ([\w./-]*[\w-])\s*(.*)`)

// wish reads `call tool NAME {json}` anywhere in text. Arguments are the JSON
// object to the right of NAME, "{}" when there is none, and what stands there when
// it is broken.
func wish(text string) (name, arguments string, ok bool) {
	found := command.FindStringSubmatch(text)
	if found == nil {
		return "", "", false
	}
	name, rest := found[1], found[2]
	if !strings.HasPrefix(rest, "{") {
		return name, "{}", true
	}
	var object json.RawMessage
	if json.NewDecoder(strings.NewReader(rest)).Decode(&object) != nil {
		return name, rest, true
	}
	return name, string(object), true
}

func offered(tools []model.ToolSpec, name string) bool {
	return slices.ContainsFunc(tools, func(t model.ToolSpec) bool { return t.Name == name })
}

func names(tools []model.ToolSpec) string {
	all := make([]string, len(tools))
	for i, t := range tools {
		all[i] = t.Name
	}
	return strings.Join(all, ", ")
}

// shorten keeps an echo readable: an answer streams slower than it is pasted.
func shorten(text string) string {
	if r := []rune(text); len(r) > 1000 {
		return string(r[:1000]) + "…"
	}
	return text
}
