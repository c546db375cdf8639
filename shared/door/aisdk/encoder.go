package aisdk

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/wire"
)

// Header is the header of the answer by which AI SDK knows the protocol.
const Header = "X-Vercel-Ai-Ui-Message-Stream"

// Version is the value of Header.
const Version = "v1"

// done ends a stream.
const done = "data: [DONE]\n\n"

// Encoder translates the events of one request to chunks of a UI message stream. Each call of the model is a step. An
// Encoder is for one goroutine.
type Encoder struct {
	buf  bytes.Buffer
	json *json.Encoder // writes to buf

	started, ended, step bool
	text, thought        string // the id of the open part, or ""
	shown                map[string]bool
}

// NewEncoder returns an encoder for one request.
func NewEncoder() *Encoder {
	e := &Encoder{shown: map[string]bool{}}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// Event returns the frames of an event of a run: none for one that a page doesn't show. They are valid until the next
// call.
func (e *Encoder) Event(event wire.Event) []byte {
	e.buf.Reset()
	if !e.ended {
		e.add(event)
	}
	return wire.EscapeLines(e.buf.Bytes())
}

// HandedOver returns the last frames of a request whose run another process continues.
func (e *Encoder) HandedOver(run wire.Accepted) []byte {
	e.buf.Reset()
	if !e.ended {
		e.fail("The run " + run.RunID + " continues in another process. Read it in a while")
	}
	return wire.EscapeLines(e.buf.Bytes())
}

func (e *Encoder) add(event wire.Event) {
	switch v := event.(type) {
	case wire.Started: // of the run, or of a call of the model
		e.start(v.Head, v.Event == wire.EventRunStarted)
		if v.Event == wire.EventModelRequestStarted {
			e.endStep()
			e.step = true
			e.write(chunk{Type: "start-step"})
		}
	case wire.ContentCompleted:
		e.start(v.Head, false)
	case wire.Content:
		e.content(v)
	case wire.ContentOpened: // it can have a thought
		e.content(wire.Content{Head: v.Head, ReasoningContent: v.ReasoningContent, EventIndex: v.EventIndex})
	case wire.ModelCompleted:
		e.closeParts()
	case wire.ToolStarted:
		e.start(v.Head, false)
		e.closeParts()
		// A call that the run was paused for was shown at the pause.
		if t := v.Tool; t.RequiresConfirmation == nil && t.RequiresUserInput == nil && t.ExternalExecutionRequired == nil {
			e.call(t, true)
		}
	case wire.ToolCompleted:
		e.start(v.Head, false)
		e.result(v)
	case wire.Paused:
		e.start(v.Head, false)
		e.pause(v)
	case wire.Completed:
		e.start(v.Head, false)
		e.finish(chunk{Type: "finish", FinishReason: "stop"})
	case wire.Cancelled:
		e.start(v.Head, false)
		e.finish(chunk{Type: "abort", Reason: v.Reason})
	case wire.Failed:
		e.start(v.Head, false)
		e.fail(v.Content)
	case wire.Meta:
		e.fail(v.Error)
	}
}

// start begins the stream. A request that continues a run adds to the message that the page has, and keeps its id.
func (e *Encoder) start(h wire.Head, isNew bool) {
	if e.started {
		return
	}
	e.started = true
	begin := chunk{Type: "start", Metadata: &runIDs{h.RunID, h.SessionID, h.AgentID}}
	if isNew {
		begin.MessageID = h.RunID
	}
	e.write(begin)
}

func (e *Encoder) content(c wire.Content) {
	e.start(c.Head, false)
	if c.ReasoningContent != "" {
		e.closeText()
		if e.thought == "" {
			e.thought = fmt.Sprintf("thought-%d", c.EventIndex)
			e.write(chunk{Type: "reasoning-start", ID: e.thought})
		}
		e.delta("reasoning-delta", e.thought, c.ReasoningContent)
	}
	if c.Content != "" {
		e.closeThought()
		if e.text == "" {
			e.text = fmt.Sprintf("text-%d", c.EventIndex)
			e.write(chunk{Type: "text-start", ID: e.text})
		}
		e.delta("text-delta", e.text, c.Content)
	}
}

// delta writes a piece of a text. There are many, so it does without the reflection of encoding/json.
func (e *Encoder) delta(kind, id, text string) {
	frame := append(e.buf.AvailableBuffer(), `data: {"type":"`+kind+`","id":`...)
	frame = append(wire.AppendText(frame, id), `,"delta":`...)
	e.buf.Write(append(wire.AppendText(frame, text), "}\n\n"...))
}

func (e *Encoder) closeText() {
	if e.text != "" {
		e.write(chunk{Type: "text-end", ID: e.text})
		e.text = ""
	}
}

func (e *Encoder) closeThought() {
	if e.thought != "" {
		e.write(chunk{Type: "reasoning-end", ID: e.thought})
		e.thought = ""
	}
}

func (e *Encoder) closeParts() {
	e.closeText()
	e.closeThought()
}

func (e *Encoder) endStep() {
	e.closeParts()
	if e.step {
		e.step = false
		e.write(chunk{Type: "finish-step"})
	}
}

// call shows a call. Its tool is the server's, unless the page makes the call, or asks its user for the arguments.
func (e *Encoder) call(t wire.ToolExecution, byServer bool) {
	if e.shown[t.ToolCallID] {
		return
	}
	e.shown[t.ToolCallID] = true
	input := t.ToolArgs
	if len(input) == 0 {
		input = json.RawMessage("{}")
	}
	e.write(chunk{
		Type: "tool-input-available", ToolCallID: t.ToolCallID, ToolName: t.ToolName, Input: input, Dynamic: true,
		ByServer: byServer,
	})
}

// result shows the result of a call, which the page has in this message or in the one that the request continues.
func (e *Encoder) result(v wire.ToolCompleted) {
	e.closeParts()
	text := v.Content
	if v.Tool.Result != nil {
		text = *v.Tool.Result
	}
	out := chunk{ToolCallID: v.Tool.ToolCallID, Dynamic: true, ByServer: true}
	if v.Tool.ToolCallError != nil && *v.Tool.ToolCallError {
		out.Type, out.ErrorText = "tool-output-error", &text
	} else {
		out.Type, out.Output = "tool-output-available", &text
	}
	e.write(out)
}

// pause ends the request with a question for each call that waits: for an approval, or for the output of a call.
func (e *Encoder) pause(v wire.Paused) {
	e.closeParts()
	for _, q := range v.Requirements {
		t := q.ToolExecution
		e.call(t, t.RequiresConfirmation != nil)
		if t.RequiresConfirmation != nil {
			id := v.RunID + ":" + t.ToolCallID
			e.write(chunk{Type: "tool-approval-request", ApprovalID: id, ToolCallID: t.ToolCallID})
		}
	}
	e.finish(chunk{Type: "finish", FinishReason: "tool-calls"})
}

func (e *Encoder) fail(text string) { e.finish(chunk{Type: "error", ErrorText: &text}) }

func (e *Encoder) finish(last chunk) {
	e.endStep()
	e.write(last)
	e.buf.WriteString(done)
	e.ended = true
}

func (e *Encoder) write(c chunk) {
	e.buf.WriteString("data: ")
	if err := e.json.Encode(c); err != nil { // it ends with a line end
		panic(fmt.Sprintf("aisdk: %v", err)) // texts and JSON that was stored always encode
	}
	e.buf.WriteByte('\n')
}

// chunk is a chunk of any type. A member that its type doesn't have is left out.
type chunk struct {
	Type         string          `json:"type"`
	ID           string          `json:"id,omitempty"`
	MessageID    string          `json:"messageId,omitempty"`
	Metadata     *runIDs         `json:"messageMetadata,omitempty"`
	ToolCallID   string          `json:"toolCallId,omitempty"`
	ToolName     string          `json:"toolName,omitempty"`
	Input        json.RawMessage `json:"input,omitempty"`
	Output       *string         `json:"output,omitempty"`
	ErrorText    *string         `json:"errorText,omitempty"`
	ApprovalID   string          `json:"approvalId,omitempty"`
	Dynamic      bool            `json:"dynamic,omitempty"`
	ByServer     bool            `json:"providerExecuted,omitempty"`
	FinishReason string          `json:"finishReason,omitempty"`
	Reason       string          `json:"reason,omitempty"`
}

// runIDs are the metadata of a message.
type runIDs struct {
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
	AgentID   string `json:"agent_id"`
}
