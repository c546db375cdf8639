package apidoc

import (
	"fmt"
	"slices"
	"strings"
)

const preface = `<!-- Generated from shared/route/table.go and shared/api by "go generate ./shared/apidoc". Do not edit. -->
# HTTP API

Every server answers this reference as an OpenAPI 3.1 document at ` + "`GET /openapi.json`" + `, and as a page that can send requests
at ` + "`GET /docs`" + `. [differences.md](differences.md) lists the differences from AgentOS 3.1.10.

**Authentication.** Every route that isn't public requires ` + "`Authorization: Bearer TOKEN`" + `. The caller needs all scopes of the
route. On a route below ` + "`/agents/{agent_id}`, the scope `agents:ID:run`" + ` is enough in place of ` + "`agents:run`" + `, for that one agent.

**Errors** have the body ` + "`{\"detail\": …}`" + `. The detail is a text; for 422 it can also be a list with one entry for each invalid
input. A 401 also has a ` + "`hint`" + ` that says what to do. A 403 names the ` + "`missing`" + ` scopes and a ` + "`decision_id`" + `, which finds the decision in the
log; it has a ` + "`hint`" + ` when a scope of the token looks as if it was meant for the request but grants nothing. Every route can answer
500 or 503.

**Headers.** Every response has ` + "`X-Request-Id`" + `. A response has ` + "`Retry-After`" + ` when the same request can succeed later. A response that
repeats an earlier one because of its ` + "`Idempotency-Key`" + ` has ` + "`Idempotent-Replayed: true`" + `. Instead of ` + "`last_event_index`" + `, ` + "`resume`" + `
accepts the header ` + "`Last-Event-ID`" + `, which browsers send; each event then has its ` + "`event_index`" + ` as its id.
`

// Markdown returns the text of docs/api.md: every route with its scopes, inputs and
// responses, under one heading for each function.
func Markdown() []byte {
	var families []string
	sections := map[string]*strings.Builder{}
	newDocument().each(func(method, path string, op operation) {
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
		fmt.Fprintf(b, " Responses: %s.\n", responsesDoc(op))
		inputsDoc(b, op)
	})
	text := preface
	for _, family := range families {
		text += sections[family].String()
	}
	return []byte(text)
}

// responsesDoc lists the statuses with the types of their bodies. It leaves out 500
// and 503, which the preface declares for every route.
func responsesDoc(op operation) string {
	var out []string
	for _, status := range op.statuses() {
		if status == "500" || status == "503" {
			continue
		}
		content, bodies := op.Responses[status].Content, []string{}
		if s := content["application/json"].Schema; s != nil {
			bodies = append(bodies, "`"+typeDoc(s)+"`")
		}
		if _, streams := content["text/event-stream"]; streams {
			bodies = append(bodies, "server-sent events")
		}
		out = append(out, strings.TrimSpace(status+" "+strings.Join(bodies, " or ")))
	}
	return strings.Join(out, ", ")
}

// inputsDoc writes a table of the parameters and of the members of the body. Path
// parameters are left out: the heading shows them.
func inputsDoc(b *strings.Builder, op operation) {
	type row struct {
		name, in string
		required bool
		schema   *schema
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
			required := slices.Contains(content.Schema.Required, m.name)
			rows = append(rows, row{m.name, in, required, m.value, m.value.Description})
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
		case r.schema.Default != nil:
			absent = fmt.Sprintf("`%s`", r.schema.Default)
		}
		typeText := strings.ReplaceAll(typeDoc(r.schema), "|", `\|`)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", r.name, r.in, typeText, absent, r.text)
	}
}

// typeDoc names the type of a schema in a few words. It leaves out null where null
// means the same as an absent member.
func typeDoc(s *schema) string {
	alternatives, _ := s.Type.([]string)
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
	case len(alternatives) > 0:
		return alternatives[0]
	}
	return fmt.Sprint(s.Type)
}
