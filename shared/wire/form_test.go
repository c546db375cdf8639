package wire_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/wire"
)

func TestAFormHasTheOpenArgumentsAndTheModelsValues(t *testing.T) {
	t.Parallel()
	const parameters = `{"type":"object","properties":{"to":{"type":"string"},"count":{"type":"integer"},
		"price":{"type":"number"},"now":{"type":"boolean"},"lines":{"type":"array"},"more":{"type":"object"},
		"either":{"type":["string","null"]}}}`
	got := wire.InputForm(json.RawMessage(`{"to":"the model's choice","count":3,"unknown":1}`),
		json.RawMessage(parameters), []string{"to", "extra"})
	want := []wire.UserInput{
		{Name: "count", FieldType: "int", Value: json.RawMessage("3")},
		{Name: "either", FieldType: "str"},
		{Name: "extra", FieldType: "str"},
		{Name: "lines", FieldType: "list"},
		{Name: "more", FieldType: "dict"},
		{Name: "now", FieldType: "bool"},
		{Name: "price", FieldType: "float"},
		{Name: "to", FieldType: "str"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]wire.UserInput{{Name: "to", FieldType: "str"}},
		wire.InputForm(json.RawMessage("{}"), json.RawMessage("no schema"), []string{"to"})); diff != "" {
		t.Errorf("without a readable schema: %s", diff)
	}
}

func TestAPausedRunHasAgentOSsText(t *testing.T) {
	t.Parallel()
	confirm := wire.Requirement{ToolExecution: wire.ToolExecution{RequiresConfirmation: new(true)}}
	fill := wire.Requirement{ToolExecution: wire.ToolExecution{RequiresUserInput: new(true)}}
	external := wire.Requirement{ToolExecution: wire.ToolExecution{ExternalExecutionRequired: new(true)}}
	for want, requirements := range map[string][]wire.Requirement{
		"I have tools to execute, but I need confirmation.":                                    {confirm, confirm},
		"I have tools to execute, but I need user input.":                                      {fill},
		"I have tools to execute, but it needs external execution.":                            {external},
		"I have tools to execute, but I need confirmation or external execution.":              {external, confirm},
		"I have tools to execute, but I need confirmation, user input, or external execution.": {fill, external, confirm},
	} {
		if got := wire.PausedText(requirements); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestArgumentsAreShownAsInAgentOS(t *testing.T) {
	t.Parallel()
	for arguments, want := range map[string]string{
		`{"s":"a","n":1.5,"o":{"x":[1,2]},"z":null,"b":true}`: `s=a, n=1.5, o={"x":[1,2]}, z=null, b=true`,
		`{"b":"say \"hi\"","a":""}`:                           `b=say "hi", a=`,
		`{}`:                                                  "",
	} {
		if got := wire.FormatArguments(json.RawMessage(arguments)); got != want {
			t.Errorf("%s: got %q, want %q", arguments, got, want)
		}
	}
}
