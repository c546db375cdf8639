package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
)

// Commands is a model that does what the user's last message says in its first
// line, for tests that compare with AgentOS: the stub model that AgentOS was
// recorded with obeys the same commands with the same chunks and token counts.
//
//	echo: X                             says X
//	call tool NAME {"a": 1}             calls a tool, then tells what it returned
//	call tools [["N1", {}], ["N2", {}]] calls several at once
//	slow N [MS]                         says "chunk-0 " to "chunk-N-1 "; MS is not waited
//	fail [STATUS]                       an HTTP error, 500 unless told
//	fail-mid N                          N chunks, then the connection breaks
//	remember X                          calls add_memory, where it is offered; says so
//	history?                            tells the user's earlier messages
//	system?                             tells the system message
//
// Anything else is repeated after "stub: ". Tokens are words.
type Commands struct {
	// Pause, when it is set, is asked before each chunk of "slow"; the answer is held
	// until what it returns is closed. It is asked for all chunks at once, at first.
	Pause func(chunk int) <-chan struct{}
}

// Obey answers a request of OpenAI's chat or Responses API.
func (c Commands) Obey(r Request) Script {
	talk := listen(r.Body)
	text, calls, special := talk.obey(c)
	var s Script
	words := len(strings.Fields(text))
	switch {
	case special != nil:
		s = *special
	case len(calls) > 0:
		words = 0
		for _, call := range calls {
			s = s.ToolCall(call.name, spaced(call.arguments))
			words += 1 + len(call.members())
		}
	default:
		s = Text(pieces.FindAllString(text, -1)...)
		if text == "" {
			s = Text("")
		}
	}
	return s.Usage(model.Usage{Input: talk.words, Output: words, Total: talk.words + words})
}

// pieces cuts an answer into the stream's chunks: a word and the space behind it.
var pieces = regexp.MustCompile(`\S+\s*|\s+`)

type call struct {
	name      string
	arguments json.RawMessage
}

func (c call) members() map[string]any {
	var m map[string]any
	_ = json.Unmarshal(c.arguments, &m) // no object has no members
	return m
}

// turn is one message of either API; tool names who answers.
type turn struct{ role, text, tool string }

// talk is a conversation as both APIs tell it.
type talk struct {
	turns   []turn
	last    int             // the index of the user's last turn, or -1
	offered map[string]bool // tools, by name
	words   int
}

func listen(body map[string]any) talk {
	t := talk{last: -1, offered: map[string]bool{}}
	for _, tool := range objects(body["tools"]) {
		if f, ok := tool["function"].(map[string]any); ok {
			tool = f
		}
		name, _ := tool["name"].(string)
		t.offered[name] = true
	}
	if s, _ := body["instructions"].(string); s != "" {
		t.turns = append(t.turns, turn{role: "system", text: s})
	}
	if s, ok := body["input"].(string); ok {
		t.turns = append(t.turns, turn{role: "user", text: s})
	}
	called := map[any]string{} // tool names by call id
	for _, m := range append(objects(body["messages"]), objects(body["input"])...) {
		t.hear(m, called)
	}
	for i, said := range t.turns {
		t.words += len(strings.Fields(said.text))
		if said.role == "user" {
			t.last = i
		}
	}
	return t
}

// hear adds one message of the chat API or one item of the Responses API.
func (t *talk) hear(m map[string]any, called map[any]string) {
	for _, c := range objects(m["tool_calls"]) {
		f, _ := c["function"].(map[string]any)
		called[c["id"]], _ = f["name"].(string)
	}
	role, _ := m["role"].(string)
	switch {
	case m["type"] == "function_call":
		called[m["call_id"]], _ = m["name"].(string)
	case m["type"] == "function_call_output":
		t.turns = append(t.turns, turn{"tool", flat(m["output"]), called[m["call_id"]]})
	case role != "":
		t.turns = append(t.turns, turn{role, flat(m["content"]), called[m["tool_call_id"]]})
	}
}

func objects(list any) (out []map[string]any) {
	l, _ := list.([]any)
	for _, v := range l {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// flat is the text of a content, which may come in parts.
func flat(content any) string {
	if s, ok := content.(string); ok {
		return s
	}
	var texts []string
	for _, part := range objects(content) {
		s, _ := part["text"].(string)
		texts = append(texts, s)
	}
	return strings.Join(texts, "\n")
}

var (
	toolCommand   = regexp.MustCompile(`^call tool (\S+)\s*(\{.*\})?$`)
	slowCommand   = regexp.MustCompile(`^slow (\d+)( \d+)?$`)
	failCommand   = regexp.MustCompile(`^fail( \d{3})?$`)
	breakCommand  = regexp.MustCompile(`^fail-mid (\d+)$`)
	memoryCommand = regexp.MustCompile(`(?:^|\s|>|")remember (.+)`)
	memoryNoise   = regexp.MustCompile(`</?[a-z_]+>|["']+$`)
)

// obey finds what to do: say a text, make calls, or play a script of its own,
// whose text is then told for the count.
func (t talk) obey(c Commands) (text string, calls []call, special *Script) {
	prompt := ""
	if t.last >= 0 {
		prompt = strings.TrimSpace(t.turns[t.last].text)
	}
	if t.offered["add_memory"] {
		return t.remember(prompt)
	}
	line, _, _ := strings.Cut(prompt, "\n")
	line = strings.TrimSpace(line)
	if calls, ok := wishes(line); ok {
		if results := t.results(); results != "" {
			return results, nil, nil
		}
		return "", calls, nil
	}
	if m := failCommand.FindStringSubmatch(line); m != nil {
		status := 500
		if m[1] != "" {
			status = number(m[1])
		}
		s := Fail(status, fmt.Sprintf("stub failure %d", status))
		return "", nil, &s
	}
	if m := slowCommand.FindStringSubmatch(line); m != nil {
		return c.chunks(number(m[1]))
	}
	if m := breakCommand.FindStringSubmatch(line); m != nil {
		text, _, s := Commands{}.chunks(number(m[1]))
		broken := s.Drop()
		return text, nil, &broken
	}
	return t.say(prompt, line), nil, nil
}

// say is what only needs words.
func (t talk) say(prompt, line string) string {
	if said, ok := strings.CutPrefix(prompt, "echo:"); ok {
		return strings.TrimSpace(said)
	}
	if what, ok := strings.CutPrefix(line, "remember "); ok {
		return "remembered: " + what
	}
	switch line {
	case "history?":
		earlier := t.texts(t.turns[:t.last], "user")
		return fmt.Sprintf("history: %d user turns: %s", len(earlier), strings.Join(earlier, " | "))
	case "system?":
		return strings.Join(t.texts(t.turns, "system", "developer"), "\n")
	}
	return "stub: " + prompt
}

func (t talk) texts(turns []turn, roles ...string) (out []string) {
	for _, said := range turns {
		if slices.Contains(roles, said.role) {
			out = append(out, strings.TrimSpace(said.text))
		}
	}
	return out
}

// remember is what a memory manager's call is answered with.
func (t talk) remember(prompt string) (string, []call, *Script) {
	m := memoryCommand.FindStringSubmatch(prompt)
	if m == nil {
		return "No changes were made.", nil, nil
	}
	what := strings.TrimSpace(memoryNoise.ReplaceAllString(m[1], ""))
	if t.results() != "" {
		return "remembered: " + what, nil, nil
	}
	arguments, err := json.Marshal(map[string]any{"memory": what, "topics": []string{"stub"}})
	if err != nil {
		panic(err) // texts always encode
	}
	return "", []call{{"add_memory", arguments}}, nil
}

func wishes(line string) (calls []call, ok bool) {
	if m := toolCommand.FindStringSubmatch(line); m != nil {
		if m[2] == "" {
			m[2] = "{}"
		}
		return []call{{m[1], json.RawMessage(m[2])}}, true
	}
	list, ok := strings.CutPrefix(line, "call tools ")
	if !ok {
		return nil, false
	}
	var pairs [][2]json.RawMessage
	if err := json.Unmarshal([]byte(list), &pairs); err != nil {
		return nil, false
	}
	for _, p := range pairs {
		calls = append(calls, call{strings.Trim(string(p[0]), `"`), p[1]})
	}
	return calls, true
}

// results tells what the tools returned since the user's last turn.
func (t talk) results() string {
	var out []string
	for _, said := range t.turns[t.last+1:] {
		if said.role == "tool" {
			out = append(out, fmt.Sprintf("tool %s returned: %s", said.tool, said.text))
		}
	}
	return strings.Join(out, "; ")
}

func (c Commands) chunks(n int) (string, []call, *Script) {
	var s Script
	text := ""
	for i := range n {
		if c.Pause != nil {
			s = s.Wait(c.Pause(i))
		}
		chunk := fmt.Sprintf("chunk-%d ", i)
		text += chunk
		s = s.Text(chunk)
	}
	return text, nil, &s
}

func number(digits string) int {
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	if err != nil {
		panic(err) // the expressions admit digits only
	}
	return n
}

// spaced writes JSON as Python does, with a space behind each colon and comma.
func spaced(text json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return string(text)
	}
	var out strings.Builder
	quoted, escaped := false, false
	for _, r := range b.String() {
		out.WriteRune(r)
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ':' || r == ','):
			out.WriteByte(' ')
		}
	}
	return out.String()
}
