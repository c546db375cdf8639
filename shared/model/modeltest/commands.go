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

// Commands is a stub model that obeys the first line of the user's last message. Tests
// that compare Keyway with AgentOS use it: the golden transcripts were recorded from an
// AgentOS whose stub model obeys the same commands, with the same chunks and token
// counts.
//
//	echo: X                             answers X
//	call tool NAME {"a": 1}             calls a tool, then reports its result
//	call tools [["N1", {}], ["N2", {}]] calls several tools at once
//	slow N [MS]                         answers "chunk-0 " to "chunk-N-1 "; ignores MS
//	fail [STATUS]                       fails with an HTTP error, by default 500
//	fail-mid N                          answers N chunks, then drops the connection
//	remember X                          calls add_memory if it is offered; confirms it
//	history?                            reports the user's earlier messages
//	system?                             reports the system message
//
// Any other message is repeated after "stub: ". Each word counts as one token.
type Commands struct {
	// Pause returns, for each chunk of "slow", a channel that must be closed before the
	// chunk is sent. It is called for all chunks when the request arrives. Defaults to
	// no pauses.
	Pause func(chunk int) <-chan struct{}
}

// Obey returns the answer to a request of OpenAI's Chat Completions or Responses API.
func (c Commands) Obey(r Request) Script {
	conv := parseConversation(r.Body)
	text, calls, special := conv.obey(c)
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
	return s.Usage(model.Usage{Input: conv.words, Output: words, Total: conv.words + words})
}

// pieces matches the chunks of an answer: a word and the space after it.
var pieces = regexp.MustCompile(`\S+\s*|\s+`)

// call is a tool call that a command requests.
type call struct {
	name      string
	arguments json.RawMessage
}

// members returns the arguments by name. Each counts as one token.
func (c call) members() map[string]any {
	var m map[string]any
	_ = json.Unmarshal(c.arguments, &m) // no object has no members
	return m
}

// turn is one message of either API. tool is the name of the tool in a tool's message.
type turn struct{ role, text, tool string }

// conversation is the conversation in a request, independent of the API.
type conversation struct {
	turns   []turn
	last    int             // the index of the user's last turn, or -1
	offered map[string]bool // names of the offered tools
	words   int             // of all turns
}

// parseConversation reads the conversation from the body of a request.
func parseConversation(body map[string]any) conversation {
	t := conversation{last: -1, offered: map[string]bool{}}
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
	called := map[any]string{} // names of tools by the call's ID
	for _, m := range append(objects(body["messages"]), objects(body["input"])...) {
		t.add(m, called)
	}
	for i, turn := range t.turns {
		t.words += len(strings.Fields(turn.text))
		if turn.role == "user" {
			t.last = i
		}
	}
	return t
}

// add adds one message of Chat Completions or one item of the Responses API.
func (t *conversation) add(m map[string]any, called map[any]string) {
	for _, c := range objects(m["tool_calls"]) {
		f, _ := c["function"].(map[string]any)
		called[c["id"]], _ = f["name"].(string)
	}
	role, _ := m["role"].(string)
	switch {
	case m["type"] == "function_call":
		called[m["call_id"]], _ = m["name"].(string)
	case m["type"] == "function_call_output":
		t.turns = append(t.turns, turn{"tool", contentText(m["output"]), called[m["call_id"]]})
	case role != "":
		t.turns = append(t.turns, turn{role, contentText(m["content"]), called[m["tool_call_id"]]})
	}
}

// objects returns the JSON objects in a decoded JSON array.
func objects(list any) (out []map[string]any) {
	l, _ := list.([]any)
	for _, v := range l {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// contentText returns the text of a message's content, which may be a list of parts.
func contentText(content any) string {
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

// The commands. A memory manager's prompt contains "remember" within other text and
// tags, which memoryNoise removes.
var (
	toolCommand   = regexp.MustCompile(`^call tool (\S+)\s*(\{.*\})?$`)
	slowCommand   = regexp.MustCompile(`^slow (\d+)( \d+)?$`)
	failCommand   = regexp.MustCompile(`^fail( \d{3})?$`)
	breakCommand  = regexp.MustCompile(`^fail-mid (\d+)$`)
	memoryCommand = regexp.MustCompile(`(?:^|\s|>|")remember (.+)`)
	memoryNoise   = regexp.MustCompile(`</?[a-z_]+>|["']+$`)
)

// obey returns the answer to the command: a text, or tool calls, or a script. text is
// the text of that script, for the count of its words.
func (t conversation) obey(c Commands) (text string, calls []call, special *Script) {
	prompt := ""
	if t.last >= 0 {
		prompt = strings.TrimSpace(t.turns[t.last].text)
	}
	if t.offered["add_memory"] {
		return t.remember(prompt)
	}
	line, _, _ := strings.Cut(prompt, "\n")
	line = strings.TrimSpace(line)
	if calls, ok := parseCalls(line); ok {
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
	return t.textAnswer(prompt, line), nil, nil
}

// textAnswer returns the answer to the commands that only answer a text.
func (t conversation) textAnswer(prompt, line string) string {
	if text, ok := strings.CutPrefix(prompt, "echo:"); ok {
		return strings.TrimSpace(text)
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

// texts returns the texts of the turns with one of the roles.
func (t conversation) texts(turns []turn, roles ...string) (out []string) {
	for _, turn := range turns {
		if slices.Contains(roles, turn.role) {
			out = append(out, strings.TrimSpace(turn.text))
		}
	}
	return out
}

// remember returns the answer to AgentOS's memory manager, which offers add_memory.
func (t conversation) remember(prompt string) (string, []call, *Script) {
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

// parseCalls returns the calls that a line commands.
func parseCalls(line string) (calls []call, ok bool) {
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

// results returns a sentence for each result of a tool since the user's last message.
func (t conversation) results() string {
	var out []string
	for _, turn := range t.turns[t.last+1:] {
		if turn.role == "tool" {
			out = append(out, fmt.Sprintf("tool %s returned: %s", turn.tool, turn.text))
		}
	}
	return strings.Join(out, "; ")
}

// chunks returns the script of n chunks with their pauses, and its text.
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

// number returns the value of digits.
func number(digits string) int {
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	if err != nil {
		panic(err) // the regular expressions match digits only
	}
	return n
}

// spaced returns JSON as Python writes it, with a space after each colon and comma.
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
