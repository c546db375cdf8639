package config

import (
	"slices"
	"strings"
)

// Part is a part of the file that some programs never act on.
type Part int

// The parts. Who may do what is no part: every program decides.
const (
	Keys      Part = iota // with which tokens are verified: where each of auth.keys comes from
	Data                  // database
	Shown                 // what callers are shown and which pages may call: names, descriptions, models, cors
	Runs                  // what a run needs: instructions, tools, a model's address, egress
	ToolNames             // which names of tools there are: for a program that opens the tools, and then knows
)

// covers reports whether the value at path belongs to the part.
func (p Part) covers(path string) bool {
	path = withoutIndices(path)
	member, ofAgent := strings.CutPrefix(path, "agents[].")
	shown := member == "name" || member == "description" || member == "model" || member == "model.provider" || member == "model.id"
	switch p {
	case Keys:
		return slices.Contains([]string{"auth.keys[]", "auth.keys[].jwks_file", "auth.keys[].jwks_url", "auth.keys[].secret"}, path)
	case Data:
		return within(path, "database")
	case Shown:
		return path == "name" || path == "description" || within(path, "cors") || ofAgent && shown
	case Runs:
		return within(path, "egress") || ofAgent && !shown && member != "id"
	}
	return false
}

// withoutIndices is agents[].id for agents[12].id.
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

// needless reports whether the program does without the value at path.
func (d *decoder) needless(path string) bool {
	return slices.ContainsFunc(d.Without, func(p Part) bool { return p.covers(path) })
}

// parameters are those of the template, by the variable that each fills.
var parameters = map[string]string{
	"JWT_KEY_SECRET": "JwtKeySecret", "DATABASE_URL": "Database", "DATABASE_SECRET": "DatabaseUrlSecret",
}

// set is the remedy for an unset variable: on Lambda it is the template that sets one.
func (d *decoder) set(name string) string {
	function, _ := d.Lookup("AWS_LAMBDA_FUNCTION_NAME")
	switch parameter := parameters[name]; {
	case function == "":
		return "set " + name
	case parameter != "":
		return "set the template's parameter " + parameter + ", or " + name + " in the function's environment"
	}
	return "set " + name + " in the function's environment, in the template"
}
