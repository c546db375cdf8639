package acceptance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/route"
)

// door is a protocol by which callers run agents. The tests of this file hold for each of them. A new door is a row of
// doors with these small functions.
type door struct {
	name route.Door
	// runs returns the request that runs an agent with a message, in a session or a new one if it is empty, streamed. The
	// key identifies a repeated request.
	runs func(agent, session, message, key string) ask
	// reads returns what the answer to that request says.
	reads func(t *testing.T, r process.Reply) ended
	// approves returns the request that confirms the call which a run waits for. Nil if the protocol can't: then a person
	// decides by another door.
	approves func(agent, session, runID, callID string) ask
	// sees returns the request that reads a run, which answers its text, and cancels the one that cancels it. Nil if the
	// protocol can't.
	sees, cancels func(agent, session, runID string) ask
	// lists returns the request that lists the agents which the caller may run. Nil if the protocol has none.
	lists func() ask
	// byTool is whether the protocol reports errors about a run in an answer with the status 200, and has no stream.
	byTool bool
}

// ask is a request.
type ask struct {
	method, path string
	body         string
	header       []string // names and values
}

// ended is how the answer to a run ends. With another error than "" it has failed.
type ended struct {
	runID, text string
	state       string // completed, paused or failed
	problem     string // the text of the error
}

const asJSON = "application/json"

// doors are AgentOS's own API, and the protocols beside it.
var doors = []door{
	{
		name: "agentos",
		runs: func(agent, session, message, key string) ask {
			return ask{"POST", "/agents/" + agent + "/runs", "message=" + message + "&session_id=" + session,
				[]string{"Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", key}}
		},
		reads: readsAgentOS,
		approves: func(agent, session, runID, callID string) ask {
			return ask{"POST", "/agents/" + agent + "/runs/" + runID + "/continue", "session_id=" + session +
				`&tools=[{"tool_call_id":"` + callID + `","confirmed":true}]`,
				[]string{"Content-Type", "application/x-www-form-urlencoded"}}
		},
		sees: func(agent, session, runID string) ask {
			return ask{"GET", "/agents/" + agent + "/runs/" + runID + "?session_id=" + session, "", nil}
		},
		cancels: func(agent, _, runID string) ask {
			return ask{"POST", "/agents/" + agent + "/runs/" + runID + "/cancel", "", nil}
		},
		lists: func() ask { return ask{"GET", "/agents", "", nil} },
	},
	{
		name: route.AGUI,
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"threadId": session, "runId": "run-" + key, "tools": []any{},
				"context": []any{}, "messages": []any{map[string]any{"id": "1", "role": "user", "content": message}}})
			return ask{"POST", "/agents/" + agent + "/agui", string(body), []string{"Content-Type", asJSON}}
		},
		reads: readsAGUI,
		approves: func(agent, session, runID, callID string) ask {
			return ask{"POST", "/agents/" + agent + "/agui", `{"threadId":"` + session + `","runId":"approves-` + runID +
				`","messages":[],"resume":[{"interruptId":"` + runID + ":" + callID +
				`","status":"resolved","payload":{"approved":true}}]}`, []string{"Content-Type", asJSON}}
		},
	},
	{
		name: "ai-sdk",
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"id": session, "trigger": "submit-message", "messages": []any{
				map[string]any{"id": "1", "role": "user", "parts": []any{map[string]any{"type": "text", "text": message}}}}})
			return ask{"POST", "/agents/" + agent + "/ai-sdk", string(body),
				[]string{"Content-Type", asJSON, "Idempotency-Key", key}}
		},
		reads: readsAISDK,
		approves: func(agent, session, runID, callID string) ask {
			return ask{"POST", "/agents/" + agent + "/ai-sdk", `{"id":"` + session + `","messages":[{"id":"2",` +
				`"role":"assistant","metadata":{"run_id":"` + runID + `"},"parts":[{"type":"dynamic-tool","toolCallId":"` + callID +
				`","state":"approval-responded","approval":{"id":"x","approved":true}}]}]}`, []string{"Content-Type", asJSON}}
		},
	},
	{
		name: route.OpenAI,
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"model": agent, "stream": true,
				"messages": []any{map[string]any{"role": "user", "content": message}}})
			return ask{"POST", "/v1/chat/completions", string(body),
				[]string{"Content-Type", asJSON, "X-Session-Id", session, "Idempotency-Key", key}}
		},
		reads: readsOpenAI,
		lists: listsModels,
	},
	{
		name: "openai-responses",
		runs: func(agent, session, message, key string) ask {
			body, _ := json.Marshal(map[string]any{"model": agent, "stream": true, "conversation": session, "input": message})
			return ask{"POST", "/v1/responses", string(body), []string{"Content-Type", asJSON, "Idempotency-Key", key}}
		},
		reads: readsResponses,
		sees:  func(_, _, runID string) ask { return ask{"GET", "/v1/responses/" + responseOf(runID), "", nil} },
		cancels: func(_, _, runID string) ask {
			return ask{"POST", "/v1/responses/" + responseOf(runID) + "/cancel", "", nil}
		},
		lists: listsModels,
	},
	{
		name: route.MCP,
		runs: func(agent, session, message, key string) ask {
			return callsTool(agent, key, map[string]any{"message": message, "session_id": session})
		},
		reads: readsMCP,
		approves: func(_, _, runID, callID string) ask {
			return callsTool("continue_run", "", map[string]any{"run_id": runID, "decisions": []any{
				map[string]any{"tool_call_id": callID, "decision": "approve"}}})
		},
		sees:    func(_, _, runID string) ask { return callsTool("get_run", "", map[string]any{"run_id": runID}) },
		cancels: func(_, _, runID string) ask { return callsTool("cancel_run", "", map[string]any{"run_id": runID}) },
		lists:   func() ask { return asksMCP("tools/list", "", map[string]any{}) },
		byTool:  true,
	},
}

func listsModels() ask { return ask{"GET", "/v1/models", "", nil} }

// responseOf is the id of a run in OpenAI's API.
func responseOf(runID string) string { return "resp_" + strings.ReplaceAll(runID, "-", "") }

// callsTool is a call of a tool by MCP. An agent is a tool.
func callsTool(tool, key string, arguments map[string]any) ask {
	return asksMCP("tools/call", key, map[string]any{"name": tool, "arguments": arguments})
}

func asksMCP(method, key string, params map[string]any) ask {
	body, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	header := []string{
		"Content-Type", asJSON, "Accept", asJSON + ", text/event-stream", "Mcp-Protocol-Version", "2025-11-25",
	}
	if key != "" {
		header = append(header, "Idempotency-Key", key)
	}
	return ask{"POST", "/mcp", string(body), header}
}

func readsAgentOS(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	for _, e := range process.Frames(t, r.Body) {
		out.runID = fmt.Sprint(e.Data["run_id"])
		switch e.Name {
		case "RunCompleted":
			out.state, out.text = "completed", fmt.Sprint(e.Data["content"])
		case "RunPaused":
			out.state = "paused"
		case "RunError", "RunCancelled":
			out.state, out.problem = "failed", fmt.Sprint(e.Data["content"])
		}
	}
	return out
}

func readsAGUI(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	for _, e := range dataOf(t, r.Body) {
		switch e["type"] {
		case "CUSTOM":
			value, _ := e["value"].(map[string]any)
			out.runID = fmt.Sprint(value["run_id"])
		case "TEXT_MESSAGE_CONTENT":
			out.text += fmt.Sprint(e["delta"])
		case "RUN_FINISHED":
			result, _ := e["outcome"].(map[string]any)
			out.state = map[any]string{"success": "completed", "interrupt": "paused", "cancelled": "failed"}[result["type"]]
		case "RUN_ERROR":
			out.state, out.problem = "failed", fmt.Sprint(e["message"])
		}
	}
	return out
}

func readsAISDK(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	for _, e := range dataOf(t, r.Body) {
		switch e["type"] {
		case "start":
			value, _ := e["messageMetadata"].(map[string]any)
			out.runID = fmt.Sprint(value["run_id"])
		case "text-delta":
			out.text += fmt.Sprint(e["delta"])
		case "finish":
			out.state = map[any]string{"stop": "completed", "tool-calls": "paused"}[e["finishReason"]]
		case "error":
			out.state, out.problem = "failed", fmt.Sprint(e["errorText"])
		}
	}
	return out
}

func readsOpenAI(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	out.runID = r.Header.Get("X-Run-Id")
	for _, e := range dataOf(t, r.Body) {
		if failed, ok := e["error"].(map[string]any); ok {
			out.state, out.problem = "failed", fmt.Sprint(failed["message"])
		}
		choices, _ := e["choices"].([]any)
		for _, c := range choices {
			choice, _ := c.(map[string]any)
			delta, _ := choice["delta"].(map[string]any)
			text, _ := delta["content"].(string)
			out.text += text
			if choice["finish_reason"] != nil {
				out.state = "completed"
			}
		}
	}
	if strings.Contains(out.text, "waits for a person's decision") {
		out.state = "paused"
	}
	return out
}

func readsResponses(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	out.runID = r.Header.Get("X-Run-Id")
	for _, e := range dataOf(t, r.Body) {
		switch e["type"] {
		case "response.output_text.delta":
			out.text += fmt.Sprint(e["delta"])
		case "response.completed":
			out.state = "completed"
		case "response.incomplete":
			out.state = "paused"
		case "error":
			out.state, out.problem = "failed", fmt.Sprint(e["message"])
		}
	}
	return out
}

func readsMCP(t *testing.T, r process.Reply) (out ended) {
	t.Helper()
	answers := dataOf(t, r.Body)
	answer := answers[len(answers)-1]
	if failed, ok := answer["error"].(map[string]any); ok {
		return ended{state: "failed", problem: fmt.Sprint(failed["message"])}
	}
	result, _ := answer["result"].(map[string]any)
	data, _ := result["structuredContent"].(map[string]any)
	text, _ := data["content"].(string)
	id, _ := data["run_id"].(string)
	if result["isError"] != true {
		state, _ := data["status"].(string)
		return ended{runID: id, text: text, state: state}
	}
	if text == "" {
		text = fmt.Sprint(result["content"])
	}
	return ended{runID: id, state: "failed", problem: text}
}

// dataOf returns the data of each event of a stream, or the one JSON document of another answer.
func dataOf(t *testing.T, body string) (events []map[string]any) {
	t.Helper()
	for line := range strings.Lines(body) {
		data, isData := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !isData && !strings.HasPrefix(data, "{") || data == "[DONE]" {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		t.Fatalf("no data in %q", body)
	}
	return events
}
