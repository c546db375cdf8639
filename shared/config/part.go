package config

import (
	"slices"
	"strings"
)

// Part is a part of the file that some programs never act on.
type Part int

// The parts. Who may do what is no part: every program decides.
const (
	Keys  Part = iota // with which tokens are verified: where each of auth.keys comes from
	Data              // database
	Shown             // what callers are shown and which pages may call: names, descriptions, models, cors
	Runs              // what a run needs: instructions, tools, a model's address, egress
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

// set is the remedy for an unset variable: on Lambda nobody sets one by hand, the
// template does, from a parameter.
func (d *decoder) set(name string) string {
	if function, _ := d.Lookup("AWS_LAMBDA_FUNCTION_NAME"); function == "" {
		return "set " + name
	}
	return "set the template's parameter " + parameter(name) + ", or " + name + " in the function's environment"
}

// parameter is the name that a template gives a variable: JwtKeySecret for
// JWT_KEY_SECRET.
func parameter(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.ToLower(name), "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
