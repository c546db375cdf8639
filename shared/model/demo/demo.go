// Package demo implements model.Model without a language model: in this process,
// offline and without an API key. The same conversation always gets the same answer. It
// shows how streaming and tools work, and every answer states that it comes from a
// demo.
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
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
)

// Model is the demo model. It repeats the user's last message and lists the tools that
// it was offered. A message with the text
//
//	call tool NAME {json}
//
// makes it call that tool once and report the result.
type Model struct {
	id    string
	delay time.Duration
}

// wordDelay is the pause before each word, so that a person sees the answer arrive word
// by word.
const wordDelay = 15 * time.Millisecond

// New returns a model with this ID. An empty id means "demo".
func New(id string) *Model { return &Model{id: cmp.Or(id, "demo"), delay: wordDelay} }

// Describe returns the names under which AgentOS's clients see the demo.
func (m *Model) Describe() model.Description {
	return model.Describe("demo", m.id)
}

// Stream implements model.Model. Its only error is the cause of a cancelled context.
// Each word is one part and counts as one token.
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

// pause waits before a word and returns the context's cause if it is cancelled.
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

// end returns the End of the answer to r.
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

// hello starts every answer.
const hello = "This is Keyway's demo model: "

// answer returns the text of the answer and the tool calls that it requests. The calls
// have no ID, because the run loop makes one for each.
func answer(r model.Request) (text string, calls []model.ToolCall) {
	prompt, results := lastTurn(r.Messages)
	if len(results) > 0 {
		return hello + strings.Join(results, " "), nil
	}
	tools := "No tools were offered to it."
	if len(r.Tools) > 0 {
		tools = fmt.Sprintf("It was offered the tools %s; say `call tool NAME {json}` and it calls one.", names(r.Tools))
	}
	name, arguments, isCommand := parseCommand(prompt)
	switch {
	case !isCommand:
		return fmt.Sprintf("%sno language model was asked. You said: %s\n\n%s", hello, shorten(prompt), tools), nil
	case !offered(r.Tools, name):
		return fmt.Sprintf("%sthere is no tool %s. %s", hello, shorten(name), tools), nil
	case !json.Valid([]byte(arguments)):
		return fmt.Sprintf("%sit calls %s only with a JSON object, as in `call tool %s {}`.", hello, name, name), nil
	}
	return hello + "it calls " + name + ".", []model.ToolCall{{Name: name, Arguments: arguments}}
}

// lastTurn returns the user's last message, and a sentence for each result that a tool
// has returned since.
func lastTurn(messages []model.Message) (prompt string, results []string) {
	called := map[string]string{} // call id → tool name
	for _, m := range messages {
		switch m.Role {
		case model.User:
			prompt, results = m.Content, nil
		case model.Assistant:
			for _, c := range m.ToolCalls {
				called[c.ID] = c.Name
			}
		case model.ToolRole:
			name := cmp.Or(called[m.ToolCallID], "a tool")
			results = append(results, fmt.Sprintf("%s answered: %s", name, shorten(m.Content)))
		}
	}
	return prompt, results
}

// command matches the command in a message. A name may have the characters that MCP
// servers use in their tools' names, but doesn't end with the full stop of a sentence.
var command = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?is)\bcall tool ([\w./-]*[\w-])\s*(.*)`)
})

// parseCommand finds `call tool NAME {json}` anywhere in text. arguments is the JSON
// object after NAME, "{}" if there is none, and the rest of the text if it starts with
// "{" and isn't valid JSON.
func parseCommand(text string) (name, arguments string, ok bool) {
	found := command().FindStringSubmatch(text)
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

// offered reports whether a tool of that name was offered.
func offered(tools []model.ToolSpec, name string) bool {
	return slices.ContainsFunc(tools, func(t model.ToolSpec) bool { return t.Name == name })
}

// names returns the names of the tools for a sentence.
func names(tools []model.ToolSpec) string {
	all := make([]string, len(tools))
	for i, t := range tools {
		all[i] = t.Name
	}
	return strings.Join(all, ", ")
}

// shorten cuts a text after 1,000 characters. Without the cut, the repetition of a message
// of 100 KB, word by word, would take minutes.
func shorten(text string) string {
	if r := []rune(text); len(r) > 1000 {
		return string(r[:1000]) + "…"
	}
	return text
}
