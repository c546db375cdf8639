package cli

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
)

// silentModel is a model whose answer is empty.
type silentModel struct{}

func (silentModel) Describe() model.Description { return model.Description{ID: "silent"} }
func (silentModel) Stream(context.Context, model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { yield(model.Part{End: &model.End{}}, nil) }
}

// goAgent is an agent declared in Go.
func goAgent(id string) run.Agent {
	return run.Agent{Agent: config.Agent{ID: id}, Model: silentModel{}}
}

// output runs a command with a keyway.yaml. It returns the exit status, and stdout and stderr
// together.
func output(t *testing.T, own Options, file string, args ...string) (int, string) {
	t.Helper()
	path := writeConfig(t, file)
	var out bytes.Buffer
	e := testEnv(map[string]string{"JWT_VERIFICATION_KEY": config.PublishedSecret})
	e.own, e.out, e.err = own, &out, &out
	return execute(t.Context(), append(args, "--config", path), e), strings.ReplaceAll(out.String(), path, "keyway.yaml")
}

const withoutAgents = `id: os
auth: {keys: ["${JWT_VERIFICATION_KEY}"]}
`

// Every command counts the agents declared in Go like those of keyway.yaml.
func TestAgentsInGoCountAsDeclared(t *testing.T) {
	t.Parallel()
	own := Options{Agents: []run.Agent{goAgent("counter"), goAgent("office")}}
	if code, out := output(t, own, withoutAgents, "config", "check"); code != 0 ||
		!strings.Contains(out, "keyway.yaml is fine: 2 agents") {
		t.Errorf("config check without agents in the file: exit %d\n%s", code, out)
	}
	both := withoutAgents + "agents: [{id: shop, model: demo:x}]\n"
	if code, out := output(t, own, both, "config", "check"); code != 0 || !strings.Contains(out, "is fine: 3 agents") {
		t.Errorf("config check with one in the file too: exit %d\n%s", code, out)
	}
	// In an IAM policy, GET/agents/* also matches the runs of every agent. The policy denies
	// those again for each declared agent.
	code, out := output(t, own, both, "policy", "--token", pyjwt(t, "advanced-scopes")["readonly_user"])
	for _, agent := range []string{"shop", "counter", "office"} {
		if _, denied, _ := strings.Cut(out, `"Deny"`); code != 0 || !strings.Contains(denied, "GET/agents/"+agent+"/runs\"") {
			t.Errorf("the policy does not deny the runs of %s: exit %d\n%s", agent, code, out)
		}
	}
	// A program without agents in Go needs some in the file.
	if code, out := output(t, Options{}, withoutAgents, "config", "check"); code != exitUsage ||
		!strings.Contains(out, "agents: is missing") {
		t.Errorf("no agents at all: exit %d\n%s", code, out)
	}
}

func TestErrorsOfAgentsInGoAreReported(t *testing.T) {
	t.Parallel()
	noModel, remembers := goAgent("a"), goAgent("b")
	noModel.Model, remembers.UpdateMemoryOnRun = nil, true
	for want, own := range map[string]Options{
		"keyway.yaml:3:11: agents[0].id: is \"shop\", which an agent declared in Go already has; give each agent its " +
			"own id": {Agents: []run.Agent{goAgent("shop")}},
		"Options.Agents[1]: the ID \"x\" is taken": {Agents: []run.Agent{goAgent("x"),
			goAgent("x")}},
		"Options.Agents[0]: the ID \"a/b\" is not 1 to 64 letters, digits, dots, _ " +
			"and -": {Agents: []run.Agent{goAgent("a/b")}},
		"Options.Agents[0]: the ID \"..\" is not":                             {Agents: []run.Agent{goAgent("..")}},
		"Options.Agents[0]: there is no Model; set one":                       {Agents: []run.Agent{noModel}},
		"Options.Agents[0].update_memory_on_run: is not part of this version": {Agents: []run.Agent{remembers}},
	} {
		for _, command := range [][]string{{"config", "check"},
			{"can", "--scopes", "agents:read", "GET", "/agents"}, {"serve"}} {
			code, out := output(t, own, withoutAgents+"agents: [{id: shop, model: demo:x}]\n", command...)
			if code != exitUsage || !strings.Contains(out, want) {
				t.Errorf("%v: exit %d\n%s\nwant %s", command, code, out, want)
			}
		}
	}
}
