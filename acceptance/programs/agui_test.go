package programs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var (
	_ = tried(entry{
		program: "AG-UI's client for JavaScript", name: "agui-node", pkgs: []string{"@ag-ui/client", "@ag-ui/core"},
		tried: "runs, thoughts, a tool, pauses of all kinds with `resume`, an error, a refused token, and a request that " +
			"is sent again after the connection was lost. Its verifier and the schemas accept each event",
		date: "2026-11-30",
	})
	_ = tried(entry{
		program: "AG-UI's types for Python", name: "agui-python", pkgs: []string{"ag-ui-protocol"},
		tried: "requests that the types make, and streams with thoughts, a pause and an error that they validate",
		date:  "2026-11-30",
	})
)

var _ = tried(entry{
	program: "AI SDK's chat, the class below useChat, with DefaultChatTransport", name: "openai-node",
	pkgs: []string{"ai"},
	tried: "runs, a tool, thoughts, approvals, a form, an error, a refused token, and a page that resumes an answer in " +
		"progress, at `/agents/{agent_id}/ai-sdk`",
	date: "2026-11-30",
})

const withTools = `agents:
  - {id: assistant, model: "openai-responses:gpt-5.2", tools: [look_up, delete_account, book, sign]}
`

// serveAGUI starts keyway with a model that does what the user's words say.
func serveAGUI(t *testing.T, release <-chan struct{}) *process.Server {
	t.Helper()
	return serve(t, withTools, modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		said := lastOf(r)
		switch word, rest, _ := strings.Cut(said, " "); word {
		case "look":
			return modeltest.Text("Let me look.").ToolCall("look_up", `{"what":"tea"}`)
		case "delete":
			return modeltest.ToolCall("delete_account", `{"id":`+rest+`}`)
		case "book":
			return modeltest.ToolCall("book", `{"film":"Alien"}`)
		case "sign":
			return modeltest.ToolCall("sign", `{"text":"a deed"}`)
		case "think":
			return modeltest.Script{}.Thoughts("hm").Text("so it is")
		case "break":
			return modeltest.Text("half").Truncate()
		case "slow":
			return modeltest.Text("first ").Wait(release).Text("second")
		}
		return modeltest.Text("you said ", said)
	}))
}

// lastOf returns the text of the last item that the model received.
func lastOf(r modeltest.Request) string {
	items, _ := r.Body["input"].([]any)
	last, _ := items[len(items)-1].(map[string]any)
	if output, ok := last["output"]; ok { // of a tool
		return fmt.Sprint(output)
	}
	return fmt.Sprint(last["content"])
}

// node runs a script of testdata with the packages that are installed for it, and returns its output.
func node(t *testing.T, name, script string, args ...string) string {
	t.Helper()
	dir, work := program(t, name), t.TempDir()
	text, err := os.ReadFile(filepath.Join("testdata", name, script))
	if err == nil {
		err = os.WriteFile(filepath.Join(work, script), text, 0o600)
	}
	if err == nil { // It finds its packages beside the script.
		err = os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(work, "node_modules"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join(work, script)}, args...)...)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, problems.String(), out)
	}
	return string(out)
}

func TestAGUIsClientAcceptsEveryEvent(t *testing.T) {
	t.Parallel()
	program(t, "agui-node")
	release := make(chan struct{})
	door := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(release) }))
	defer door.Close()
	r := serveAGUI(t, release)
	type step struct {
		Step, Types, Failed, Last, Text, Roles string
		Wrong                                  []string
		Interrupts                             [][]string
		Count                                  int
	}
	var got []string
	out := bufio.NewScanner(strings.NewReader(node(t, "agui-node", "client.mjs", r.URL, r.Tokens["ann"], door.URL)))
	for out.Scan() {
		var s step
		if err := json.Unmarshal(out.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v", out.Bytes(), err)
		}
		if len(s.Wrong) > 0 {
			t.Errorf("%s: %v", s.Step, s.Wrong)
		}
		var types []string // each piece of a text is shown once
		for _, one := range strings.Fields(s.Types) {
			if !slices.Contains(types, one) || !strings.HasSuffix(one, "_CONTENT") {
				types = append(types, one)
			}
		}
		line := fmt.Sprintf("%s: %s%s%s", s.Step, strings.Join(types, " "), s.Text, s.Roles)
		failed, _, _ := strings.Cut(s.Failed, ": Not enough segments") // the hint has tests of its own
		for _, part := range []any{s.Interrupts, s.Last, failed} {
			if text := fmt.Sprint(part); text != "" && text != "[]" {
				line += " | " + text
			}
		}
		got = append(got, line)
	}
	const (
		text   = " TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT TEXT_MESSAGE_END"
		call   = " TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END"
		begins = ": RUN_STARTED CUSTOM"
		unmet  = "no resume:  | Thread has 1 pending interrupt(s) not addressed by resume: ID"
	)
	asks := func(id string) string {
		return "[[confirmation The agent wants to call delete_account(id=" + id + "). Allow it?]]"
	}
	want := []string{
		"a run" + begins + text + " RUN_FINISHED | you said hello",
		"a tool" + begins + text + call + " TOOL_CALL_RESULT TEXT_MESSAGE_START TEXT_MESSAGE_END" +
			" RUN_FINISHED | you said tea, for ann",
		"thoughts" + begins + " REASONING_START REASONING_MESSAGE_START REASONING_MESSAGE_CONTENT REASONING_MESSAGE_END " +
			"REASONING_END" + text + " RUN_FINISHED | so it is",
		"messages: user assistant user assistant tool assistant user reasoning assistant",
		"approve" + begins + call + " RUN_FINISHED | " + asks("7"),
		unmet,
		"approve, resumed" + begins + " TOOL_CALL_RESULT" + text + " RUN_FINISHED | you said account 7 is gone",
		"reject" + begins + call + " RUN_FINISHED | " + asks("8") +
			" | you said account 7 is gone",
		unmet,
		"reject, resumed" + begins + text + " RUN_FINISHED | you said keep it",
		"cancel" + begins + call + " RUN_FINISHED | " + asks("9") +
			" | you said keep it",
		unmet,
		"cancel, resumed" + begins + text + " RUN_FINISHED | you said Function call was rejected by the user",
		"input" + begins + call + " RUN_FINISHED | " +
			"[[input_required The agent wants to call book(film=Alien) and needs more arguments.]] | " +
			"you said Function call was rejected by the user",
		unmet,
		"input, resumed" + begins + " TOOL_CALL_RESULT" + text + " RUN_FINISHED | you said 2 seats for Alien",
		"external" + begins + call + " RUN_FINISHED | " +
			"[[tool_call The agent wants the client to call sign(text=a deed).]] | you said 2 seats for Alien",
		unmet,
		"external, resumed" + begins + text + " RUN_FINISHED | you said signed by hand",
		"an error" + begins + text + " RUN_ERROR | half | model_provider_error: The model's answer ended before it was " +
			"complete",
		`no token:  | thrown: HTTP 401: {"detail":"Invalid token`,
		`a tool of the page:  | thrown: HTTP 400: {"detail":"tools: not supported. The agent has its own tools, and ` +
			`can't call those of a client"}`,
		"reconnected" + begins + text + " RUN_FINISHED | first second",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAGUIsTypesForPythonValidateAStream(t *testing.T) {
	t.Parallel()
	python := filepath.Join(program(t, "agui-python"), "bin/python")
	r := serveAGUI(t, nil)
	const text = " TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT TEXT_MESSAGE_END"
	for said, want := range map[string]string{
		"think": "RUN_STARTED CUSTOM REASONING_START REASONING_MESSAGE_START REASONING_MESSAGE_CONTENT " +
			"REASONING_MESSAGE_END REASONING_END" + text + " RUN_FINISHED",
		"delete 7": "RUN_STARTED CUSTOM TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END RUN_FINISHED",
		"break":    "RUN_STARTED CUSTOM" + text + " RUN_ERROR",
	} {
		body, err := exec.CommandContext(t.Context(), python, "testdata/agui-python/validate.py", "input", said, "r", said).
			Output()
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		answer := r.Open("ann", "POST", "/agents/assistant/agui", strings.NewReader(string(body)),
			"Content-Type", "application/json")
		cmd := exec.CommandContext(t.Context(), python, "testdata/agui-python/validate.py")
		stream, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = strings.NewReader(string(stream))
		got, err := cmd.CombinedOutput()
		if types := strings.Join(strings.Fields(string(got)), " "); err != nil || types != want {
			t.Errorf("%s: %v\n%s\nwant %s, of\n%s", said, err, got, want, stream)
		}
	}
}

func TestAISDKsChatRunsAnAgent(t *testing.T) {
	t.Parallel()
	program(t, "openai-node")
	release := make(chan struct{})
	door := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(release) }))
	defer door.Close()
	r := serveAGUI(t, release)
	var got []string
	for line := range strings.Lines(node(t, "openai-node", "ui.mjs", r.URL, r.Tokens["ann"], door.URL)) {
		var s struct {
			Step, Role, Error, Named string
			Count                    int
			Parts                    []string
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		s.Error, _, _ = strings.Cut(s.Error, ": Not enough segments")
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s: %s %d %s %s %s", s.Step, s.Role, s.Count, s.Named,
			strings.Join(s.Parts, ", "), s.Error)))
	}
	want := []string{
		"a run: assistant 2 ui step-start, text you said hello",
		"a tool: assistant 4 ui step-start, text Let me look., look_up output-available tea, for ann, step-start, " +
			"text you said tea, for ann",
		"thoughts: assistant 6 ui step-start, reasoning hm, text so it is",
		"a pause: assistant 8 ui step-start, delete_account approval-requested",
		"approved: assistant 8 ui step-start, delete_account output-available account 7 is gone, step-start, " +
			"text you said account 7 is gone",
		"another pause: assistant 10 ui step-start, delete_account approval-requested",
		"denied: assistant 10 ui step-start, delete_account approval-responded, step-start, text you said keep it",
		"input: assistant 12 ui step-start, book input-available",
		"given: assistant 12 ui step-start, book output-available 2 seats for Alien, step-start, " +
			"text you said 2 seats for Alien",
		"an error: assistant 2 ui-error step-start, text half The model's answer ended before it was complete",
		`no token: user 1  text hello {"detail":"Invalid token`,
		"resumed: assistant 2 ui-slow step-start, text first second",
		"nothing to resume: assistant 2 ui-slow step-start, text first second",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
