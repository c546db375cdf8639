package programs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// outcome is how a run ended, whether it was streamed or not.
type outcome struct {
	RunID   string `json:"run_id"`
	Status  string // COMPLETED, PAUSED or ERROR
	Content string // the answer, or the error
	Tools   []execution
	// Reasoning is what the model thought.
	Reasoning string `json:"reasoning_content"`
	Metrics   struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
	}
}

// execution is a call of a tool.
type execution struct {
	ID     string          `json:"tool_call_id"`
	Name   string          `json:"tool_name"`
	Args   json.RawMessage `json:"tool_args"`
	Result string
}

// results are the results of the tools, sorted: a stream has them in the order in which the tools
// end.
func (o outcome) results() string {
	var list []string
	for _, e := range o.Tools {
		list = append(list, e.Result)
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// ask runs an agent for the administrator in a session, streamed or not. A streamed run must have
// sent the text of its answer in pieces that make up the whole.
func ask(t *testing.T, r *process.Server, agent, session string, stream bool, message string) outcome {
	t.Helper()
	body, kind := process.Form(t, "message", message, "session_id", session, "stream", fmt.Sprint(stream))
	return result(t, r.Call("admin", "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind), stream)
}

// confirm continues a paused run and confirms its calls.
func confirm(t *testing.T, r *process.Server, agent, session string, stream bool, paused outcome) outcome {
	t.Helper()
	var tools []map[string]any
	for _, e := range paused.Tools {
		tools = append(tools, map[string]any{"tool_call_id": e.ID, "confirmed": true})
	}
	decisions, err := json.Marshal(tools)
	if err != nil {
		t.Fatal(err)
	}
	body, kind := process.Form(t, "session_id", session, "stream", fmt.Sprint(stream), "tools", string(decisions))
	path := "/agents/" + agent + "/runs/" + paused.RunID + "/continue"
	return result(t, r.Call("admin", "POST", path, body, "Content-Type", kind), stream)
}

// result reads the answer to a request for a run.
func result(t *testing.T, reply process.Reply, stream bool) (o outcome) {
	t.Helper()
	if reply.Status != 200 {
		t.Fatalf("%d %s", reply.Status, reply.Body)
	}
	if !stream {
		if err := json.Unmarshal([]byte(reply.Body), &o); err != nil {
			t.Fatalf("%v: %s", err, reply.Body)
		}
		return o
	}
	var pieces strings.Builder
	for _, e := range process.Frames(t, reply.Body) {
		data, err := json.Marshal(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		var event struct {
			outcome
			Tool execution
		}
		if err := json.Unmarshal(data, &event); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		o.RunID = event.RunID
		switch e.Name {
		case "RunContent":
			pieces.WriteString(event.Content)
		case "ToolCallCompleted":
			o.Tools = append(o.Tools, event.Tool)
		case "RunPaused":
			o.Status, o.Tools = "PAUSED", event.Tools
		case "RunError":
			o.Status, o.Content = "ERROR", event.Content
		case "RunCompleted":
			o.Status, o.Content, o.Metrics = "COMPLETED", event.Content, event.Metrics
			o.Reasoning = event.Reasoning
			if pieces.String() != event.Content {
				t.Errorf("the pieces make up %q, and the run's answer is %q", &pieces, event.Content)
			}
		}
	}
	return o
}

// want checks how a run ended, what its tools answered, and that the answer is content, or for an
// error contains it.
func (o outcome) want(t *testing.T, what, status, results, content string) {
	t.Helper()
	same := o.Content == content || status == "ERROR" && strings.Contains(o.Content, content)
	if o.Status != status || o.results() != results || !same {
		t.Errorf("%s: %s with the results %q and the answer %q, want %s, %q and %q",
			what, o.Status, o.results(), o.Content, status, results, content)
	}
}

// apisOn returns the agents on a model, one for each API.
func apisOn(model string) (agents []string) {
	for _, provider := range []string{"openai", "openai-responses", "anthropic"} {
		agents = append(agents, provider+"-on-"+model)
	}
	return agents
}

// agentsOn declares the agents of apisOn for each of these models. They have a tool that is called
// at once, and one that a person confirms.
func agentsOn(models ...string) string {
	yaml := "agents:\n"
	for _, model := range models {
		for _, agent := range apisOn(model) {
			provider, _, _ := strings.Cut(agent, "-on-")
			yaml += fmt.Sprintf("  - {id: %s, model: %q, tools: [look_up, delete_account], add_history_to_context: true}\n",
				agent, provider+":"+model)
		}
	}
	return yaml
}

// eachWay calls test for each of the agents, with streamed and with whole runs, in a session of its
// own.
func eachWay(t *testing.T, name string, agents []string, test func(t *testing.T, agent, session string, stream bool)) {
	t.Helper()
	for _, agent := range agents {
		for _, stream := range []bool{true, false} {
			way := fmt.Sprintf("%s/%s/stream=%v", name, agent, stream)
			t.Run(way, func(t *testing.T) { test(t, agent, strings.ReplaceAll(way, "/", "-"), stream) })
		}
	}
}

// counted reports whether the run has counts of tokens in both directions.
func (o outcome) counted() bool { return !slices.Contains([]int{o.Metrics.Input, o.Metrics.Output}, 0) }
