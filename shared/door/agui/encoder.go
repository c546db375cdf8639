package agui

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/wire"
)

// The codes of RUN_ERROR that don't come from the run itself.
const (
	// CodeContinues means that the run has not ended: another process continues it.
	CodeContinues = "run_continues"
	// CodeStream means that the events of the run can't be read any more.
	CodeStream = "stream_error"
)

// Encoder translates the events of one request to those of AG-UI. The stream begins with RUN_STARTED. It has no event
// after RUN_FINISHED or RUN_ERROR, and what was opened is closed before these. An Encoder is for one goroutine.
type Encoder struct {
	thread, run string // as the client named them
	buf         bytes.Buffer
	json        *json.Encoder // writes to buf

	started, ended bool
	text, thought  open   // the open message, and the open thought
	plain          bool   // buf has no line end of which a client could take it for that of a frame
	parent         string // the id of the last text message of this answer of the model, or ""
	shown          map[string]bool
	usage          []usage
}

// open is a message that is open.
type open struct {
	id   string // "" for none
	head []byte // of the frames with its pieces
}

// opened returns the message whose pieces are events of this type.
func opened(id, kind string) open {
	head := wire.AppendText([]byte(`data: {"type":"`+kind+`","messageId":`), id)
	return open{id, append(head, `,"delta":`...)}
}

// add writes a piece of the message.
func (o open) add(to *bytes.Buffer, text string) {
	frame := append(to.AvailableBuffer(), o.head...)
	to.Write(append(wire.AppendText(frame, text), "}\n\n"...))
}

// NewEncoder returns an encoder for a request of this thread and run.
func NewEncoder(threadID, runID string) *Encoder {
	e := &Encoder{thread: threadID, run: runID, shown: map[string]bool{}}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// Event returns the frames of an event of a run: none for one that AG-UI doesn't show. They are valid until the next
// call.
func (e *Encoder) Event(event wire.Event) []byte {
	e.begin()
	if !e.ended {
		e.add(event)
	}
	return e.frames()
}

// HandedOver returns the last frames of a request whose run another process continues.
func (e *Encoder) HandedOver(wire.Accepted) []byte {
	e.begin()
	if !e.ended {
		e.fail("The run continues in another process. Send the same request again, with the same runId, to receive its "+
			"events from the first one.", CodeContinues)
	}
	return e.frames()
}

func (e *Encoder) begin() {
	e.buf.Reset()
	e.plain = true
}

// frames returns what was written. Most events are pieces of messages, in which AppendText has escaped the line ends.
func (e *Encoder) frames() []byte {
	if e.plain {
		return e.buf.Bytes()
	}
	return wire.EscapeLines(e.buf.Bytes())
}

func (e *Encoder) add(event wire.Event) {
	switch v := event.(type) {
	case wire.Started: // also the start of each call of the model
		e.start(v.Head)
		e.closeMessages()
		e.parent = ""
	case wire.Content:
		e.start(v.Head)
		e.content(v)
	case wire.ContentOpened: // it can have a thought
		e.start(v.Head)
		e.content(wire.Content{Head: v.Head, ReasoningContent: v.ReasoningContent, EventIndex: v.EventIndex})
	case wire.ModelCompleted:
		e.start(v.Head)
		e.closeMessages()
		e.count(v)
	case wire.ContentCompleted: // also the start of a request that continues a run
		e.start(v.Head)
		e.closeMessages()
	case wire.ToolStarted:
		e.start(v.Head)
		e.call(v.Tool)
	case wire.ToolCompleted:
		e.start(v.Head)
		e.result(v)
	case wire.Paused:
		e.start(v.Head)
		e.pause(v)
	case wire.Completed:
		e.start(v.Head)
		if state := v.SessionState; !Empty(state) {
			e.write(snapshot{"STATE_SNAPSHOT", state})
		}
		e.finish(&outcome{Type: "success"})
	case wire.Cancelled:
		e.start(v.Head)
		e.finish(&outcome{Type: "cancelled"})
	case wire.Failed:
		e.start(v.Head)
		e.fail(v.Content, v.ErrorType)
	case wire.Meta: // about the stream: of these, a door gets only an error
		e.fail(v.Error, CodeStream)
	}
}

// start begins the stream with the first event, whichever it is. The run's own id and session follow in a custom event,
// because the runId of AG-UI is the client's.
func (e *Encoder) start(h wire.Head) {
	if e.started {
		return
	}
	e.started = true
	e.write(runStarted{"RUN_STARTED", e.thread, e.run, Version})
	e.write(custom{"CUSTOM", "keyway.run", runIDs{h.RunID, h.SessionID, h.AgentID}})
}

// content adds a piece of an answer. The ids of messages are unique among those of all requests for the run, and the
// same whenever its events are read again.
func (e *Encoder) content(c wire.Content) {
	if c.ReasoningContent != "" {
		e.closeText()
		if e.thought.id == "" {
			id := e.messageID(c)
			e.thought = opened(id, "REASONING_MESSAGE_CONTENT")
			e.write(named{Type: "REASONING_START", MessageID: id})
			e.write(named{Type: "REASONING_MESSAGE_START", MessageID: id, Role: "reasoning"})
		}
		e.thought.add(&e.buf, c.ReasoningContent)
	}
	if c.Content != "" {
		e.closeThought()
		if e.text.id == "" {
			id := e.messageID(c)
			if c.ReasoningContent != "" { // One event has both, and two messages must not have one id.
				id += "-text"
			}
			e.text, e.parent = opened(id, "TEXT_MESSAGE_CONTENT"), id
			e.write(named{Type: "TEXT_MESSAGE_START", MessageID: id, Role: "assistant"})
		}
		e.text.add(&e.buf, c.Content)
	}
}

func (e *Encoder) messageID(c wire.Content) string {
	return fmt.Sprintf("%s-%d", c.RunID, c.EventIndex)
}

func (e *Encoder) closeText() {
	if e.text.id != "" {
		e.write(named{Type: "TEXT_MESSAGE_END", MessageID: e.text.id})
		e.text = open{}
	}
}

func (e *Encoder) closeThought() {
	if e.thought.id != "" {
		e.write(named{Type: "REASONING_MESSAGE_END", MessageID: e.thought.id})
		e.write(named{Type: "REASONING_END", MessageID: e.thought.id})
		e.thought = open{}
	}
}

func (e *Encoder) closeMessages() {
	e.closeText()
	e.closeThought()
}

// call shows a call with all of its arguments. A call that the run was paused for was shown at the pause, in the stream
// of an earlier request: a client that is shown it again would add the arguments a second time.
func (e *Encoder) call(t wire.ToolExecution) {
	e.closeMessages()
	pausedFor := t.RequiresConfirmation != nil || t.RequiresUserInput != nil || t.ExternalExecutionRequired != nil
	if e.shown[t.ToolCallID] || pausedFor {
		return
	}
	e.show(t)
}

func (e *Encoder) show(t wire.ToolExecution) {
	e.shown[t.ToolCallID] = true
	e.write(toolStart{"TOOL_CALL_START", t.ToolCallID, t.ToolName, e.parent})
	if len(t.ToolArgs) > 0 && string(t.ToolArgs) != "null" {
		e.write(toolArgs{"TOOL_CALL_ARGS", t.ToolCallID, string(t.ToolArgs)})
	}
	e.write(toolEnd{"TOOL_CALL_END", t.ToolCallID})
}

// result shows the result of a call. A call without a result has failed, and its text says how.
func (e *Encoder) result(v wire.ToolCompleted) {
	e.closeMessages()
	text := v.Content
	if v.Tool.Result != nil {
		text = *v.Tool.Result
	}
	e.write(toolResult{"TOOL_CALL_RESULT", fmt.Sprintf("%s-%d", v.RunID, v.EventIndex), v.Tool.ToolCallID, text, "tool"})
}

// pause ends the request with an interrupt for each call that waits for a person.
func (e *Encoder) pause(v wire.Paused) {
	e.closeMessages()
	out := &outcome{Type: "interrupt"}
	for _, q := range v.Requirements {
		t := q.ToolExecution
		if !e.shown[t.ToolCallID] {
			e.show(t)
		}
		out.Interrupts = append(out.Interrupts, interruptOf(v.RunID, t))
	}
	if len(out.Interrupts) == 0 { // AG-UI has no interrupt without a question.
		e.fail(v.Content, CodeStream)
		return
	}
	e.finish(out)
}

// interruptOf returns the question about one call. Its id names the run, so that the answer needs no other reference.
func interruptOf(runID string, t wire.ToolExecution) interrupt {
	what := fmt.Sprintf("%s(%s)", t.ToolName, wire.FormatArguments(t.ToolArgs))
	out := interrupt{ID: runID + ":" + t.ToolCallID, ToolCallID: t.ToolCallID}
	switch {
	case t.RequiresConfirmation != nil:
		out.Reason, out.Message = "confirmation", "The agent wants to call "+what+". Allow it?"
		out.Schema = json.RawMessage(`{"type":"object","properties":{"approved":{"type":"boolean"},` +
			`"note":{"type":"string"}},"required":["approved"]}`)
	case t.RequiresUserInput != nil:
		out.Reason, out.Message = "input_required", "The agent wants to call "+what+" and needs more arguments."
		out.Schema = formSchema(t.UserInputSchema)
	default:
		out.Reason, out.Message = "tool_call", "The agent wants the client to call "+what+"."
		out.Schema = json.RawMessage(`{"description":"The result of the call."}`)
	}
	return out
}

// jsonTypes are the types of JSON Schema by Python's names, which AgentOS's forms have.
var jsonTypes = map[string]string{
	"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
}

// formSchema returns the schema of the open arguments of a call.
func formSchema(form []wire.UserInput) json.RawMessage {
	properties, required := map[string]any{}, []string{}
	for _, f := range form {
		if f.Value == nil || string(f.Value) == "null" {
			properties[f.Name] = map[string]string{"type": jsonTypes[f.FieldType]}
			required = append(required, f.Name)
		}
	}
	out, _ := wire.Marshal(map[string]any{"type": "object", "properties": properties, "required": required})
	return out
}

// count adds the tokens of one call of the model.
func (e *Encoder) count(v wire.ModelCompleted) {
	at := len(e.usage)
	for i := range e.usage {
		if e.usage[i].Model == v.Model && e.usage[i].Provider == v.ModelProvider {
			at = i
		}
	}
	if at == len(e.usage) {
		e.usage = append(e.usage, usage{Provider: v.ModelProvider, Model: v.Model})
	}
	u := &e.usage[at]
	u.Input += v.InputTokens
	u.Output += v.OutputTokens
	u.Total += v.TotalTokens
	u.Reasoning += v.ReasoningTokens
	u.Cached += v.CacheReadTokens
	u.CacheWrite += v.CacheWriteTokens
}

func (e *Encoder) finish(o *outcome) {
	e.closeMessages()
	e.write(runFinished{"RUN_FINISHED", e.thread, e.run, o, e.usage})
	e.ended = true
}

func (e *Encoder) fail(text, code string) {
	e.closeMessages()
	e.write(runError{"RUN_ERROR", text, code, e.usage})
	e.ended = true
}

// write adds one frame. JSON escapes line ends, so that no text can end the frame.
func (e *Encoder) write(v any) {
	e.plain = false
	e.buf.WriteString("data: ")
	if err := e.json.Encode(v); err != nil { // it ends with a line end
		panic(fmt.Sprintf("agui: %T: %v", v, err)) // texts, numbers and JSON that was stored always encode
	}
	e.buf.WriteByte('\n')
}

// The events of AG-UI. An optional member is left out and never null: the verifier rejects null.
type (
	runStarted struct {
		Type     string `json:"type"`
		ThreadID string `json:"threadId"`
		RunID    string `json:"runId"`
		Version  string `json:"protocolVersion"`
	}
	custom struct {
		Type  string `json:"type"`
		Name  string `json:"name"`
		Value runIDs `json:"value"`
	}
	runIDs struct {
		RunID     string `json:"run_id"`
		SessionID string `json:"session_id"`
		AgentID   string `json:"agent_id"`
	}
	named struct {
		Type      string `json:"type"`
		MessageID string `json:"messageId"`
		Role      string `json:"role,omitempty"`
	}
	toolStart struct {
		Type   string `json:"type"`
		ID     string `json:"toolCallId"`
		Name   string `json:"toolCallName"`
		Parent string `json:"parentMessageId,omitempty"`
	}
	toolArgs struct {
		Type  string `json:"type"`
		ID    string `json:"toolCallId"`
		Delta string `json:"delta"`
	}
	toolEnd struct {
		Type string `json:"type"`
		ID   string `json:"toolCallId"`
	}
	toolResult struct {
		Type      string `json:"type"`
		MessageID string `json:"messageId"`
		ID        string `json:"toolCallId"`
		Content   string `json:"content"`
		Role      string `json:"role"`
	}
	snapshot struct {
		Type     string          `json:"type"`
		Snapshot json.RawMessage `json:"snapshot"`
	}
	runFinished struct {
		Type     string   `json:"type"`
		ThreadID string   `json:"threadId"`
		RunID    string   `json:"runId"`
		Outcome  *outcome `json:"outcome,omitempty"`
		Usage    []usage  `json:"usage,omitempty"`
	}
	outcome struct {
		Type       string      `json:"type"`
		Interrupts []interrupt `json:"interrupts,omitempty"`
	}
	interrupt struct {
		ID         string          `json:"id"`
		Reason     string          `json:"reason"`
		Message    string          `json:"message"`
		ToolCallID string          `json:"toolCallId"`
		Schema     json.RawMessage `json:"responseSchema"`
	}
	usage struct {
		Provider   string `json:"provider"`
		Model      string `json:"model"`
		Input      int    `json:"inputTokens"`
		Output     int    `json:"outputTokens"`
		Total      int    `json:"totalTokens"`
		Reasoning  int    `json:"reasoningTokens,omitempty"`
		Cached     int    `json:"cachedInputTokens,omitempty"`
		CacheWrite int    `json:"cacheWriteInputTokens,omitempty"`
	}
	runError struct {
		Type    string  `json:"type"`
		Message string  `json:"message"`
		Code    string  `json:"code,omitempty"`
		Usage   []usage `json:"usage,omitempty"`
	}
)
