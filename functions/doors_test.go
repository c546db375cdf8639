package functions_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
)

// doors are the requests by which callers run agent a in session s, and what their answers have: at the end, and when
// the run continues after it. The table of all doors is in acceptance.
var doors = map[string]struct {
	run             request
	done, continues string
	first           string // what comes before the model has finished
}{
	"AgentOS": {
		request{path: "/agents/a/runs", body: "message=hello&session_id=s", headers: map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "Idempotency-Key": "k"}},
		"event: RunCompleted", ": the run continues", `"one"`,
	},
	"AG-UI": {
		request{path: "/agents/a/agui", headers: map[string]string{"Content-Type": "application/json"},
			body: `{"threadId":"s","runId":"r","messages":[{"id":"1","role":"user","content":"hello"}]}`},
		`"outcome":{"type":"success"}`, `"code":"run_continues"`, `"one"`,
	},
	"AI SDK": {
		request{path: "/agents/a/ai-sdk", headers: map[string]string{"Content-Type": "application/json",
			"Idempotency-Key": "k"},
			body: `{"id":"s","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"hello"}]}]}`},
		`"finishReason":"stop"`, "continues in another process", `"one"`,
	},
	"MCP": {
		request{path: "/mcp", headers: map[string]string{"Content-Type": "application/json", "Idempotency-Key": "k",
			"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-11-25"},
			body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"message":"hello",` +
				`"session_id":"s"},"_meta":{"progressToken":"p"}}}`},
		`"status":"completed"`, `"status":"running"`, "asks the model",
	},
	"OpenAI": {
		request{path: "/v1/chat/completions", headers: map[string]string{"Content-Type": "application/json",
			"Idempotency-Key": "k", "X-Session-Id": "s"},
			body: `{"model":"a","stream":true,"messages":[{"role":"user","content":"hello"}]}`},
		`"finish_reason":"stop"`, `"code":"run_continues"`, `"one"`,
	},
	"OpenAI's responses": {
		request{path: "/v1/responses", headers: map[string]string{"Content-Type": "application/json",
			"Idempotency-Key": "k"},
			body: `{"model":"a","stream":true,"conversation":"s","input":"hello"}`},
		`event: response.completed`, `event: response.in_progress`, `"one"`,
	},
}

// The first events arrive before the model has finished, whichever door the request uses.
func TestEveryDoorStreamsThroughLambda(t *testing.T) {
	t.Parallel()
	for name, door := range doors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			received := make(chan struct{})
			f := deploy(t, keyway, modeltest.Text("one").Wait(received).Text("two")).start("runs")
			door.run.method, door.run.scopes = "POST", everything
			a := f.Invoke(door.run.event(t), time.Minute)
			all, open := "", true
			for {
				chunk, ok := a.Next()
				if !ok {
					break
				}
				if all += string(chunk); open && strings.Contains(all, door.first) {
					open = false
					close(received)
				}
			}
			if open || !strings.Contains(all, `two`) || !strings.Contains(all, door.done) {
				t.Errorf("%s", all)
			}
		})
	}
}

// At Lambda's deadline the answer says that the run continues. The same request then has the whole answer.
func TestEveryDoorHandsOverAtLambdasDeadline(t *testing.T) {
	t.Parallel()
	endpoint := sqstest.Start(t)
	for name, door := range doors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, endpoint, modeltest.ToolCall("no_such_tool", `{}`), modeltest.Text("done"))
			door.run.method, door.run.scopes, door.run.limit = "POST", everything, patience
			got := s.runs.ask(door.run)
			got.want(t, "the answer at the deadline", 200, door.continues)
			if strings.Contains(got.Body, door.done) {
				t.Errorf("the answer has an end: %s", got.Body)
			}
			s.hold(1, 0)
			s.delivers(s.start("worker"), 1)
			s.becomes(s.only(), "COMPLETED", "done", 2, 0)
			door.run.limit = 0
			s.runs.ask(door.run).want(t, "the same request", 200, "done", door.done)
			if n := len(s.model.Requests()); n != 2 {
				t.Errorf("the model was asked %d times", n)
			}
		})
	}
}
