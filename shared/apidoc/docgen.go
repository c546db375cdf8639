package apidoc

import (
	"fmt"
	"slices"
	"strings"
)

const preface = `<!-- Generated from shared/route/table.go and shared/api by "go generate ./shared/api". Do not edit. -->
# HTTP API

A server answers this page as an OpenAPI 3.1 document at ` + "`GET /openapi.json`" + ` and for reading and trying at ` + "`GET /docs`" + `. Where it
differs from AgentOS 3.1.10 is told in [differences.md](differences.md).

**Callers.** Every route that isn't public asks for ` + "`Authorization: Bearer TOKEN`" + `. All the scopes of a route are needed. For a route
below ` + "`/agents/{agent_id}`, `agents:ID:run`" + ` stands for ` + "`agents:run`" + ` of that one agent.

**Refusals** have the body ` + "`{\"detail\": …}`" + `: a text, or for 422 a list with one entry for each input that is wrong. 401 also
has a ` + "`hint`" + ` that says what to do, and so has 403 when a scope of the token looks meant for the request but grants nothing. 403
tells the ` + "`missing`" + ` scopes and a ` + "`decision_id`" + `, under which the log has the decision. Any route may answer 500 or 503.

**Headers.** Every answer has ` + "`X-Request-Id`" + `, and one that is worth trying again ` + "`Retry-After`" + `. An answer that an
` + "`Idempotency-Key`" + ` brought back has ` + "`Idempotent-Replayed: true`" + `. In place of ` + "`last_event_index`, `resume`" + ` takes
` + "`Last-Event-ID`" + `, as a browser sends it, and then each event has its ` + "`event_index`" + ` as its id.
`

// Markdown is docs/api.md: every route with its scopes, parameters and answers.
func Markdown() []byte {
	var families []string
	sections := map[string]*strings.Builder{}
	d := documentOf()
	d.each(func(method, path string, op operation) {
		family := string(op.Tags[0])
		b := sections[family]
		if b == nil {
			b = new(strings.Builder)
			sections[family], families = b, append(families, family)
			fmt.Fprintf(b, "\n## %s\n", strings.ToUpper(family[:1])+family[1:])
		}
		fmt.Fprintf(b, "\n### `%s %s`\n\n%s. ", method, path, op.Summary)
		if len(op.Scopes) == 0 {
			b.WriteString("Public.")
		} else {
			fmt.Fprintf(b, "Scopes: `%s`.", strings.Join(op.Scopes, "`, `"))
		}
		fmt.Fprintf(b, " Answers: %s.\n", answersDoc(op))
		inputsDoc(b, op)
	})
	text := preface
	for _, family := range families {
		text += sections[family].String()
	}
	return []byte(text)
}

// answersDoc lists what is said for each status.
func answersDoc(op operation) string {
	var out []string
	for _, status := range op.statuses() {
		if status == "500" || status == "503" {
			continue // the preface has said it
		}
		content, is := op.Responses[status].Content, []string{}
		if s := content["application/json"].Schema; s != nil {
			is = append(is, "`"+typeDoc(s)+"`")
		}
		if _, streams := content["text/event-stream"]; streams {
			is = append(is, "server-sent events")
		}
		out = append(out, strings.TrimSpace(status+" "+strings.Join(is, " or ")))
	}
	return strings.Join(out, ", ")
}

// inputsDoc writes the table of parameters and of the body's members.
func inputsDoc(b *strings.Builder, op operation) {
	type row struct {
		name, in string
		required bool
		is       *schema
		text     string
	}
	var rows []row
	for _, p := range op.Parameters {
		if p.In != "path" {
			rows = append(rows, row{p.Name, p.In, p.Required, p.Schema, p.Description})
		}
	}
	if op.Body != nil {
		in, content := "JSON", op.Body.Content["application/json"]
		if content.Schema == nil {
			in, content = "form", op.Body.Content["multipart/form-data"]
		}
		for _, m := range content.Schema.Properties {
			is := m.Value.(*schema)
			rows = append(rows, row{m.Name, in, slices.Contains(content.Schema.Required, m.Name), is, is.Description})
		}
	}
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n| Input | In | Type | Default | Meaning |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		absent := ""
		switch {
		case r.required:
			absent = "**required**"
		case r.is.Default != nil:
			absent = fmt.Sprintf("`%s`", r.is.Default)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", r.name, r.in, strings.ReplaceAll(typeDoc(r.is), "|", `\|`), absent, r.text)
	}
}

// typeDoc says in a few words what a schema holds. Where null counts as absent it
// goes without saying.
func typeDoc(s *schema) string {
	words, _ := s.Type.([]string)
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	case len(s.AnyOf) > 0:
		var each []string
		for _, one := range s.AnyOf {
			each = append(each, typeDoc(one))
		}
		return strings.Join(each, " | ")
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, ", ")
	case s.Items != nil:
		return "list of " + typeDoc(s.Items)
	case s.ContentMediaType != "":
		return "file"
	case len(words) > 0:
		return words[0]
	}
	return fmt.Sprint(s.Type)
}
