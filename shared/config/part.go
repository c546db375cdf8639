package config

import (
	"slices"
	"strings"
)

// Part is a group of settings that some programs do not use. Each Lambda function lists those parts,
// and then needs no environment variable for them: a function gets only the secrets that it needs.
type Part int

// The parts. The rules for access (scopes, mappings, audiences, issuers) belong to no part, because
// every program decides about access.
const (
	// Keys is the sources of the entries of auth.keys: needed to verify tokens.
	Keys Part = iota
	// Data is database.
	Data
	// Shown is what clients are shown, and cors: names, descriptions, and the names of models.
	Shown
	// Runs is what only the execution of a run needs: instructions, tools, limits, the address and key
	// of a model, egress, the webhook.
	Runs
	// ToolNames is the names in tools. A program that opens the tools itself leaves the check out,
	// because opening a tool that does not exist fails anyway.
	ToolNames
)

// covers reports whether the value at path belongs to the part.
func (p Part) covers(path string) bool {
	path = withoutIndices(path)
	member, ofAgent := strings.CutPrefix(path, "agents[].")
	shown := slices.Contains([]string{"name", "description", "model", "model.provider", "model.id"}, member)
	switch p {
	case Keys:
		source, ofKey := strings.CutPrefix(path, "auth.keys[].")
		return path == "auth.keys[]" || ofKey && slices.Contains(keySources, source)
	case Data:
		return within(path, "database")
	case Shown:
		return path == "name" || path == "description" || within(path, "cors") || ofAgent && shown
	case Runs:
		return within(path, "egress") || within(path, "notify") || ofAgent && !shown && member != "id"
	}
	return false
}

// withoutIndices returns agents[].id for agents[12].id.
func withoutIndices(path string) string {
	var b strings.Builder
	for rest := path; ; {
		before, after, found := strings.Cut(rest, "[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, rest, _ = strings.Cut(after, "]")
		b.WriteString("[]")
	}
}

func (d *decoder) without(p Part) bool { return slices.Contains(d.Without, p) }

// unneeded reports whether the value at path belongs to a part that the program does not use.
func (d *decoder) unneeded(path string) bool {
	return slices.ContainsFunc(d.Without, func(p Part) bool { return p.covers(path) })
}

// templateParameters maps environment variables of the functions to the parameters of template.yaml
// that set them.
var templateParameters = map[string]string{
	"JWT_KEY_SECRET": "JwtKeySecret", "DATABASE_URL": "Database", "DATABASE_SECRET": "DatabaseUrlSecret",
}

// howToSet returns the remedy for an unset variable. On Lambda the template sets variables, so the
// remedy names its parameter.
func (d *decoder) howToSet(name string) string {
	function, _ := d.Lookup("AWS_LAMBDA_FUNCTION_NAME") // Lambda sets it in every function
	switch parameter := templateParameters[name]; {
	case function == "":
		return "set " + name
	case parameter != "":
		return "set the template's parameter " + parameter + ", or " + name + " in the function's environment"
	}
	return "set " + name + " in the function's environment, in the template"
}
