package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// silentModel answers with nothing.
type silentModel struct{}

func (silentModel) Describe() model.Description { return model.Description{ID: "silent"} }
func (silentModel) Stream(context.Context, model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { yield(model.Part{End: &model.End{}}, nil) }
}

// inGo is an agent of an operator's program.
func inGo(id string) run.Agent {
	return run.Agent{Agent: config.Agent{ID: id}, Model: silentModel{}}
}

// spoken is what keyway prints on both streams, and its exit status.
func spoken(t *testing.T, own Own, file string, args ...string) (int, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := testEnv(map[string]string{"JWT_VERIFICATION_KEY": config.PublishedSecret})
	e.own, e.out, e.err = own, &out, &out
	return execute(t.Context(), append(args, "--config", path), e), strings.ReplaceAll(out.String(), path, "keyway.yaml")
}

const withoutAgents = `id: os
auth: {keys: ["${JWT_VERIFICATION_KEY}"]}
`

// Agents declared in Go count wherever keyway is asked what there is.
func TestAgentsInGoAreDeclaredAgents(t *testing.T) {
	t.Parallel()
	own := Own{Agents: []run.Agent{inGo("counter"), inGo("office")}}
	if code, out := spoken(t, own, withoutAgents, "config", "check"); code != 0 || !strings.Contains(out, "keyway.yaml is fine: 2 agents") {
		t.Errorf("config check without agents in the file: exit %d\n%s", code, out)
	}
	both := withoutAgents + "agents: [{id: shop, model: demo:x}]\n"
	if code, out := spoken(t, own, both, "config", "check"); code != 0 || !strings.Contains(out, "is fine: 3 agents") {
		t.Errorf("config check with one in the file too: exit %d\n%s", code, out)
	}
	// In a policy GET/agents/* reaches the runs below every agent; for the declared
	// ones that is denied.
	code, out := spoken(t, own, both, "policy", "--token", pyjwt(t, "advanced-scopes")["readonly_user"])
	for _, agent := range []string{"shop", "counter", "office"} {
		if _, denied, _ := strings.Cut(out, `"Deny"`); code != 0 || !strings.Contains(denied, "GET/agents/"+agent+"/runs\"") {
			t.Errorf("the policy denies nothing of %s: exit %d\n%s", agent, code, out)
		}
	}
	// A program without agents of its own still wants some in the file.
	if code, out := spoken(t, Own{}, withoutAgents, "config", "check"); code != exitUsage || !strings.Contains(out, "agents: is missing") {
		t.Errorf("no agents at all: exit %d\n%s", code, out)
	}
}

func TestFaultsOfAgentsInGoAreTold(t *testing.T) {
	t.Parallel()
	noModel, remembers := inGo("a"), inGo("b")
	noModel.Model, remembers.UpdateMemoryOnRun = nil, true
	for want, own := range map[string]Own{
		"keyway.yaml:3:11: agents[0].id: is \"shop\", as an agent declared outside the file already is; give each agent its own id": {Agents: []run.Agent{inGo("shop")}},
		"Options.Agents[1]: the ID \"x\" is taken":                                        {Agents: []run.Agent{inGo("x"), inGo("x")}},
		"Options.Agents[0]: the ID \"a/b\" is not 1 to 64 letters, digits, dots, _ and -": {Agents: []run.Agent{inGo("a/b")}},
		"Options.Agents[0]: the ID \"..\" is not":                                         {Agents: []run.Agent{inGo("..")}},
		"Options.Agents[0]: there is no Model; set one":                                   {Agents: []run.Agent{noModel}},
		"Options.Agents[0].update_memory_on_run: is not part of this version":             {Agents: []run.Agent{remembers}},
	} {
		for _, command := range [][]string{{"config", "check"}, {"can", "--scopes", "agents:read", "GET", "/agents"}, {"serve"}} {
			code, out := spoken(t, own, withoutAgents+"agents: [{id: shop, model: demo:x}]\n", command...)
			if code != exitUsage || !strings.Contains(out, want) {
				t.Errorf("%v: exit %d\n%s\nwant %s", command, code, out, want)
			}
		}
	}
}

// program builds the example of an operator's own program.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "own-tools")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../examples/own-tools")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// serveProgram runs it as an operator would.
func serveProgram(t *testing.T, bin string, m *modeltest.Server) *running {
	t.Helper()
	r := &running{t: t, tokens: pyjwt(t, "own-tools"), model: m, stderr: &syncBuffer{}}
	cmd := exec.CommandContext(t.Context(), bin, "serve", "--addr", "127.0.0.1:0", "--config", "../../examples/own-tools/keyway.yaml", "--data", t.TempDir())
	cmd.Stderr = r.stderr
	cmd.Env = []string{
		"JWT_VERIFICATION_KEY=" + config.PublishedSecret, "DATABASE_URL=" + storetest.EmptyURL(t),
		"OPENAI_BASE_URL=" + m.URL, "OPENAI_API_KEY=sk-test", "PATH=" + os.Getenv("PATH"),
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); r.stderr.close() }() // the test's context kills it
	r.url = r.said(`serves \S+ at (http://\S+)`)[1]
	return r
}

// content is what a run that isn't streamed said.
func (r reply) content(t *testing.T) string {
	t.Helper()
	var run struct{ Content string }
	if err := json.Unmarshal([]byte(r.body), &run); err != nil || r.status != 200 {
		t.Fatalf("%d %.300s: %v", r.status, r.body, err)
	}
	return run.Content
}

func TestAnOperatorsProgramHasItsOwnToolsModelsAndAgents(t *testing.T) {
	t.Parallel()
	bin := program(t)
	check := exec.CommandContext(t.Context(), bin, "config", "check", "--config", "../../examples/own-tools/keyway.yaml")
	check.Env = []string{"JWT_VERIFICATION_KEY=" + strings.Repeat("k", 32)}
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "own-tools/keyway.yaml is fine: 2 agents") {
		t.Errorf("its config check: %v\n%s", err, out)
	}
	m := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, _ := r.Body["messages"].([]any)
		last, _ := messages[len(messages)-1].(map[string]any)
		said, _ := last["content"].(string)
		if last["role"] == "tool" {
			return modeltest.Text(said)
		}
		return modeltest.ToolCall("in_stock", said) // what the user says are the arguments
	})
	r := serveProgram(t, bin, m)
	ask := func(sub, agent, message string) string {
		t.Helper()
		return r.run(sub, agent, "message", message, "stream", "false").content(t)
	}
	// keyway.yaml's agent: a typed argument, and whose token it is.
	if got := ask("ann", "shop", `{"name":"Tea","want":3}`); got != "12 of Tea in stock, enough for ann: true" {
		t.Errorf("the tool says %q", got)
	}
	if got := ask("bob", "shop", `{"name":"tea","want":13}`); got != "12 of tea in stock, enough for bob: false" {
		t.Errorf("the tool says %q", got)
	}
	// A model cannot choose the caller, and hears which argument is wrong.
	for arguments, want := range map[string]string{
		`{"name":"tea","user_id":"bob"}`: `user_id`, `{"name":"tea","want":"three"}`: `/properties/want`, `{"want":1}`: `missing properties: ["name"]`,
		`{"name":"milk"}`: `there is no article "milk"; there are tea and coffee`,
	} {
		if got := ask("ann", "shop", arguments); !strings.Contains(got, want) {
			t.Errorf("%s: the model hears %q, want %s", arguments, got, want)
		}
	}
	if got := offered(m.Requests()[0]); got != "in_stock" {
		t.Errorf("the model is offered %q", got)
	}
	// The agent and the model in Go, which ask no server.
	asked := len(m.Requests())
	if got := ask("ann", "counter", "tea"); got != "12 of tea in stock, enough for ann: true" {
		t.Errorf("the agent in Go says %q", got)
	}
	if n := len(m.Requests()); n != asked {
		t.Error("the agent in Go asked keyway.yaml's model")
	}
	// It is declared: listed after the file's, with its scopes.
	if got := r.get("ann", "/agents").ids(t); got != "shop counter" {
		t.Errorf("the agents are %q", got)
	}
	if got := r.get("counter_only", "/agents").ids(t); got != "counter" {
		t.Errorf("who may read counter lists %q", got)
	}
	r.run("counter_only", "counter", "message", "tea").want(t, "its own agent", 200, "event: ToolCallCompleted", "event: RunCompleted")
	r.run("counter_only", "shop", "message", "tea").want(t, "another agent", 403, `"missing":["agents:shop:run"]`)
	r.get("counter_only", "/agents/shop").want(t, "reads another agent", 403)
}
