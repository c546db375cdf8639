package mcp_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestNamesOfToolsAreAcceptedEverywhereAndNeverCollide(t *testing.T) {
	t.Parallel()
	accepted := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	ours := []string{mcp.GetRun, mcp.ContinueRun, mcp.CancelRun}
	seen := map[string]string{}
	id := rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9._-]{1,64}`), rapid.String(),
		rapid.StringMatching(`[ab._]{0,3}(_[0-9a-f]{12})?`), rapid.SampledFrom(ours),
		rapid.Map(rapid.StringMatching(`[a.]{1,3}`), mcp.ToolName), // an id that is another one's name
	)
	rapid.Check(t, func(t *rapid.T) {
		agent := id.Draw(t, "id")
		name := mcp.ToolName(agent)
		if !accepted.MatchString(name) || slices.Contains(ours, name) {
			t.Fatalf("the tool of %q is %q", agent, name)
		}
		if other, ok := seen[name]; ok && other != agent {
			t.Fatalf("%q and %q are both %q", other, agent, name)
		}
		seen[name] = agent
	})
}

func TestTheNameOfAToolIsTheIDOfItsAgentWherePossible(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"web-search-agent": "web-search-agent", "A_1": "A_1", strings.Repeat("a", 64): strings.Repeat("a", 64),
		"a.b":                         "a_b_2e7336dc8eba",
		"get_run":                     "get_run_3b754d3aae24",
		"x_0123456789ab":              "x_0123456789ab_fd06c865a82a",
		"." + strings.Repeat("b", 63): "_" + strings.Repeat("b", 50) + "_e587a57b89f4",
	} {
		if got := mcp.ToolName(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

// paused is a run that waits for three calls. A fourth one was decided in an earlier pause.
func paused(t *testing.T) wire.Run {
	t.Helper()
	call := func(id string, set func(*wire.ToolExecution)) wire.Requirement {
		one := wire.ToolExecution{ToolCallID: id, ToolName: "pay", ToolArgs: json.RawMessage(`{"for":"tea"}`)}
		set(&one)
		return wire.Requirement{ToolExecution: one}
	}
	text, err := json.Marshal([]wire.Requirement{
		call("confirm", func(c *wire.ToolExecution) { c.RequiresConfirmation = new(true) }),
		call("fill", func(c *wire.ToolExecution) {
			c.RequiresUserInput = new(true)
			c.UserInputSchema = []wire.UserInput{
				{Name: "amount", FieldType: "int", Description: new("How much")},
				{Name: "for", FieldType: "str", Value: json.RawMessage(`"tea"`)},
			}
		}),
		call("execute", func(c *wire.ToolExecution) { c.ExternalExecutionRequired = new(true) }),
		call("decided", func(c *wire.ToolExecution) { c.RequiresConfirmation = new(false) }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return wire.Run{AgentName: "Cashier", RunID: "r", Status: wire.StatusPaused, Requirements: text}
}

func TestAPausedRunAsksOneQuestionForEachCall(t *testing.T) {
	t.Parallel()
	want := map[string]mcp.Question{
		"confirm": {Message: `Cashier wants to call pay with {"for":"tea"}. Is that allowed?`, Fields: []mcp.Field{
			{Name: "approve", Type: "boolean", Description: "Whether the call is allowed", Required: true},
			{Name: "note", Description: "Why not, for the agent"},
		}},
		"fill": {Message: `Cashier wants to call pay with {"for":"tea"}.`, Fields: []mcp.Field{
			{Name: "amount", Type: "integer", Description: "How much", Required: true},
		}},
		"execute": {Message: `Cashier wants to call pay with {"for":"tea"}. What is its result?`, Fields: []mcp.Field{
			{Name: "result", Description: "The result of the call", Required: true},
		}},
	}
	if diff := cmp.Diff(want, mcp.Questions(paused(t))); diff != "" {
		t.Error(diff)
	}
}

// form returns the fields of a form: for each, its value and its name.
func form(parts ...string) map[string]json.RawMessage {
	fields := map[string]json.RawMessage{}
	for i := 0; i < len(parts); i += 2 {
		fields[parts[i+1]] = json.RawMessage(parts[i])
	}
	return fields
}

func TestAnswersOfAFormBecomeDecisions(t *testing.T) {
	t.Parallel()
	decided, open := mcp.Decisions(map[string]mcp.Answer{
		"confirm": {Accepted: true, Values: form(`false`, "approve", `"too dear"`, "note")},
		"fill":    {Accepted: true, Values: form(`9007199254740993`, "amount", `"rum"`, "for")},
		"execute": {Declined: true, Values: form(`"done"`, "result")},
	})
	if open {
		t.Error("a decision is open")
	}
	answers, err := mcp.AnswersTo(paused(t), decided)
	if err != nil {
		t.Fatal(err)
	}
	if a := answers["confirm"]; *a.Confirmed || *a.ConfirmationNote != "too dear" {
		t.Errorf("confirm: %+v", a)
	}
	if a := answers["fill"]; len(a.UserInputSchema) != 1 ||
		string(a.UserInputSchema[0].Value) != "9007199254740993" {
		t.Errorf("fill: %+v: only what the call leaves open is the user's", a)
	}
	if a := answers["execute"]; a.Result != nil {
		t.Errorf("execute: %+v", a)
	}
	if _, err := mcp.AnswersTo(paused(t), map[string]mcp.Decision{"decided": {Approved: true}}); err == nil {
		t.Error("a call of an earlier pause is decided again")
	}
	sent, _ := mcp.Decisions(map[string]mcp.Answer{"confirm": {Accepted: true}})
	if answers, err := mcp.AnswersTo(paused(t), sent); err != nil || *answers["confirm"].Confirmed {
		t.Errorf("a form without its answer allows the call: %v", err)
	}
	if _, open := mcp.Decisions(map[string]mcp.Answer{"confirm": {}}); !open {
		t.Error("a form that was closed counts as a decision")
	}
	if _, open := mcp.Decisions(nil); !open {
		t.Error("no answers count as decisions")
	}
}
