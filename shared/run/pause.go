package run

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// A tool may need a person: to confirm the call, to fill in arguments, or to execute it outside of Keyway. Then the
// run is stored as PAUSED, and no process or lease is bound while the person decides. The stored calls carry marks of
// what is required, in AgentOS's form, so that its user interface can show them. Runner.Continue brings the decisions.

// needsPerson reports whether a person must act before the tool is called, and marks the call accordingly. A tool with
// several of the settings has only the first one of this order.
func needsPerson(call *wire.ToolExecution, one tool.Tool) bool {
	switch {
	case one.Confirm:
		call.RequiresConfirmation = new(true)
	case len(one.UserInput) > 0:
		call.RequiresUserInput, call.UserInputSchema = new(true), inputForm(call.ToolArgs, one)
	case one.External:
		call.ExternalExecutionRequired = new(true)
	default:
		return false
	}
	return true
}

// pythonTypes maps JSON Schema's types to the names that AgentOS sends, which are Python's.
var pythonTypes = map[string]string{
	"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
}

// inputForm returns the arguments of a call as a form, for a client that shows it to a person. Its fields are the
// arguments that a person must supply and the other parameters of the tool, sorted by name. The model's values are
// filled in, except those of the arguments that a person must supply.
func inputForm(args json.RawMessage, one tool.Tool) []wire.UserInput {
	var given map[string]json.RawMessage
	var schema struct {
		Properties map[string]struct{ Type any }
	}
	_ = json.Unmarshal(args, &given)            // parseArguments made sure that it is an object.
	_ = json.Unmarshal(one.Parameters, &schema) // Without a readable schema the form has only one.UserInput.
	// Names in UserInput that the schema does not have are shown too, so that a mistake in the tool is visible.
	names := slices.Clone(one.UserInput)
	for name := range schema.Properties {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	form := make([]wire.UserInput, len(names))
	for i, name := range names {
		kind, _ := schema.Properties[name].Type.(string)
		form[i] = wire.UserInput{Name: name, FieldType: pythonTypes[kind]}
		if form[i].FieldType == "" {
			form[i].FieldType = "str"
		}
		if !slices.Contains(one.UserInput, name) {
			form[i].Value = given[name]
		}
	}
	return form
}

// pausedText returns AgentOS's text for a paused run. Clients written for AgentOS may compare it, so even its grammar
// is kept.
func pausedText(requirements []wire.Requirement) string {
	var confirm, input, external bool
	for _, w := range requirements {
		confirm = confirm || w.ToolExecution.RequiresConfirmation != nil
		input = input || w.ToolExecution.RequiresUserInput != nil
		external = external || w.ToolExecution.ExternalExecutionRequired != nil
	}
	if external && !confirm && !input {
		return "I have tools to execute, but it needs external execution."
	}
	var needs []string
	for _, n := range []struct {
		needed bool
		text   string
	}{{confirm, "confirmation"}, {input, "user input"}, {external, "external execution"}} {
		if n.needed {
			needs = append(needs, n.text)
		}
	}
	last := len(needs) - 1
	text := needs[last]
	if last > 0 {
		text = strings.Join(needs[:last], ", ") + map[bool]string{true: ", or ", false: " or "}[last > 1] + text
	}
	return "I have tools to execute, but I need " + text + "."
}
