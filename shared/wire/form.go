package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// pythonTypes maps JSON Schema's types to the names that AgentOS sends, which are Python's.
var pythonTypes = map[string]string{
	"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
}

// InputForm returns the arguments of a tool call as a form, for a client that shows it to a person. args is the JSON
// object that the model sent, parameters the JSON Schema of the tool's arguments, and open names the arguments that a
// person must supply. The fields are the open arguments and the other parameters of the tool, sorted by name. The
// model's values are filled in, except those of the open arguments. A type that parameters do not name is str.
func InputForm(args, parameters json.RawMessage, open []string) []UserInput {
	var given map[string]json.RawMessage
	var schema struct {
		Properties map[string]struct{ Type any }
	}
	_ = json.Unmarshal(args, &given)        // It is an object.
	_ = json.Unmarshal(parameters, &schema) // Without a readable schema the form has only the open arguments.
	// Open arguments that the schema does not have are shown too, so that a mistake in the tool is visible.
	names := slices.Clone(open)
	for name := range schema.Properties {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	form := make([]UserInput, len(names))
	for i, name := range names {
		kind, _ := schema.Properties[name].Type.(string)
		form[i] = UserInput{Name: name, FieldType: pythonTypes[kind]}
		if form[i].FieldType == "" {
			form[i].FieldType = "str"
		}
		if !slices.Contains(open, name) {
			form[i].Value = given[name]
		}
	}
	return form
}

// PausedText returns AgentOS's text for a paused run, which waits for at least one requirement. Clients written for
// AgentOS may compare it, so even its grammar is kept.
func PausedText(requirements []Requirement) string {
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

// FormatArguments writes the arguments of a tool call, a JSON object, as AgentOS shows them: "a=1, b=text". They have
// the order of the object. A string has no quotes; any other value is its JSON.
func FormatArguments(arguments json.RawMessage) string {
	// A decoder reads the members in their order; a map would lose it.
	d := json.NewDecoder(bytes.NewReader(arguments))
	_, _ = d.Token() // the opening brace
	var parts []string
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if d.Decode(&value) != nil {
			break
		}
		var text string
		if value[0] != '"' || json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		parts = append(parts, fmt.Sprintf("%v=%s", name, text))
	}
	return strings.Join(parts, ", ")
}
