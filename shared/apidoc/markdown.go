package apidoc

import (
	_ "embed" // the preface
	"fmt"
	"slices"
	"strings"
)

// notice is the first line of docs/api.md.
const notice = "<!-- Generated from shared/route/table.go and shared/api " +
	"by \"go generate ./shared/apidoc\". Do not edit. -->\n"

// preface is the part of docs/api.md that is true for every route.
//
//go:embed preface.md
var preface string

// Markdown returns the text of docs/api.md: every route with its scopes, inputs and
// responses, under one heading for each function. It is made of the same document as
// OpenAPI, so the two can't differ. It panics like OpenAPI.
func Markdown() []byte {
	// The routes of one function need not be adjacent in the table. They share one section.
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
		switch {
		case len(op.Security) == 0:
			b.WriteString("Public.")
		case len(op.Scopes) == 0:
			b.WriteString("Any valid token.")
		default:
			fmt.Fprintf(b, "Scopes: `%s`.", strings.Join(op.Scopes, "`, `"))
		}
		fmt.Fprintf(b, " Responses: %s.\n", responsesDoc(op))
		inputsDoc(b, op)
	})
	text := notice + preface
	for _, family := range families {
		text += sections[family].String()
	}
	return []byte(text)
}

// responsesDoc lists the responses of an operation in one line, such as
// "200 `Run` or server-sent events, 202 `Accepted`, 401". It leaves out 500 and
// 503, which the preface declares for every route.
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

// inputsDoc writes a Markdown table of the inputs, nothing for an operation without any:
// the parameters and the members of the body. Path parameters are left out, because the
// heading shows them.
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
	if _, isFile := op.content("application/yaml"); isFile {
		rows = append(rows, row{"", "body", true, typed("string"), "The text of a keyway.yaml (application/yaml)."})
	} else if op.Body != nil {
		in, content := "JSON", op.Body.Content["application/json"]
		if content.Schema == nil { // the multipart form, because only it can contain files
			in, content = "form", op.Body.Content["multipart/form-data"]
		}
		if len(content.Schema.Properties) == 0 {
			rows = append(rows, row{"", "body", true, content.Schema, content.Schema.Description})
		}
		for _, m := range content.Schema.Properties {
			required := slices.Contains(content.Schema.Required, m.name)
			rows = append(rows, row{m.name, in, required, m.value, m.value.Description})
		}
	}
	if len(rows) == 0 {
		return
	}
	// A required input has no default, so the column Default has room for the word.
	b.WriteString("\n| Input | In | Type | Default | Meaning |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		absent := ""
		switch {
		case r.required:
			absent = "**required**"
		case r.schema.Default != nil:
			absent = fmt.Sprintf("`%s`", r.schema.Default)
		}
		// A | would end the cell, also between backquotes (GitHub Flavored Markdown, tables).
		typeText := strings.ReplaceAll(typeDoc(r.schema), "|", `\|`)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", r.name, r.in, typeText, absent, r.text)
	}
}

// typeDoc names the type of a schema in a few words: the name of a struct, the values of
// an enum, "list of …", "file" for uploaded bytes, or the JSON type. It leaves out null
// where null means the same as an absent member, which in a request it always does.
func typeDoc(s *schema) string {
	// For a type that can be null, orNull has made a list of two types: the type and null.
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
	if s.Type == nil {
		return "any"
	}
	return fmt.Sprint(s.Type)
}
