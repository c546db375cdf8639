// Package configdoc makes docs/config.md and docs/keyway.schema.json from the struct tags of
// config.Config, so that both always describe the fields that config.Parse reads. Only
// "go generate" and tests use it; no program links it.
package configdoc

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
)

//go:generate go test -run TestTheDocumentsAreThoseOfTheStructs -update .

const preface = `<!-- Generated from shared/config/config.go by "go generate ./shared/config/configdoc". Do not edit. -->
# keyway.yaml

One file describes one OS. JSON is accepted wherever YAML is. Whatever this page does not name is refused, and every
fault is reported at once, with line, column and remedy: ` + "`keyway config check`" + ` prints them. Editors complete the file
with [keyway.schema.json](keyway.schema.json); its first line may say so:

` + "```yaml" + `
# yaml-language-server: $schema=docs/keyway.schema.json
id: my-agent-os
auth:
  keys:
    - ${JWT_VERIFICATION_KEY}
agents:
  - id: web-search-agent
    model: openai:gpt-4o
` + "```" + `

**Variables.** ` + "`${VAR}`" + ` in any text is replaced from the environment; ` + "`$${`" + ` is a plain ` + "`${`" + `. A variable that is unset or
empty is a fault when serving, but for one of several ` + "`auth.keys`" + `, which is left out ([keys.md](keys.md#one-file-for-several-places)).
With ` + "`--dev`" + ` the value counts as not written instead, except in ` + "`scope_mappings`" + `, where leaving out a scope would open a route.

**Without being named** in the file, these variables count:

| Variable | Is |
|---|---|
| ` + "`DATABASE_URL`" + ` | the database, unless ` + "`database.url`" + ` says another |
| ` + "`JWT_SIGNING_KEY`" + ` | what ` + "`keyway token`" + ` and ` + "`serve --dev`" + ` sign with: a PEM private key or an HMAC secret |
| ` + "`KEYWAY_TOKEN`" + ` | the caller's token for ` + "`keyway can` and `keyway policy`" + ` |
| ` + "`OPENAI_API_KEY`, `OPENAI_BASE_URL`, `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL`" + ` | the key and the server of a model, unless ` + "`model`" + ` says others |
| ` + "`AWS_REGION` (or `AWS_DEFAULT_REGION`), `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`" + ` | for Bedrock, Secrets Manager, SQS and logins to RDS. No profile and no file of AWS's is read |
| ` + "`AWS_ENDPOINT_URL`, or with `_BEDROCK_RUNTIME`, `_SECRETS_MANAGER`, `_SQS`" + ` at its end | a server in place of AWS's |
| ` + "`HACKERNEWS_BASE_URL`, `WEBSEARCH_BASE_URL`" + ` | where those tools search instead |
| ` + "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`" + ` | the proxy for addresses that the operator wrote |
| ` + "`KEYWAY_POSTGRES`" + ` | which PostgreSQL ` + "`serve`" + ` runs: ` + "`fetch`" + `, or the directory of its programs |
| ` + "`DATABASE_ROLE`" + ` | a role that ` + "`keyway migrate`" + ` lets read and write rows, and makes where it is missing |
| ` + "`DATABASE_SECRET`, `DATABASE_IAM`, `KEYWAY_QUEUE_URL`" + ` | of the Lambda functions; the template sets them |

**In a Lambda function** the file is ` + "`keyway.json`" + `, which ` + "`keyway build`" + ` makes of it: canonical, with variables as written.
A function asks only for the variables of what it acts on. Besides ` + "`DATABASE_URL`" + `, ` + "`DATABASE_SECRET`" + ` may name the secret that
holds the database's address (read anew for each connection; one that allows a connection
without TLS is refused), and ` + "`DATABASE_IAM=true`" + ` makes AWS's token of the function's role the password;
the address then says ` + "`sslmode=verify-full`" + `. The migrate function heeds ` + "`DATABASE_ROLE`" + `.

**Not served yet.** This page and the schema already describe ` + "`limits` and `update_memory_on_run`" + `.
A file that uses one of them is refused, at its line, so that nobody relies on what isn't there.

**Durations** have a unit: ` + "`10s`, `1h30m`" + `. **YAML anchors**, aliases and merge keys work; tags and several documents in one
file do not.
`

// Markdown is docs/config.md: every field with type, default and meaning.
func Markdown() []byte {
	var b strings.Builder
	b.WriteString(preface)
	section(&b, "", reflect.TypeFor[config.Config](), "")
	return []byte(b.String())
}

// section writes the table of t, then those of the structs in it.
func section(b *strings.Builder, path string, t reflect.Type, doc string) {
	title := "Top level"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if short := shorthandDoc[t]; short != "" {
		fmt.Fprintf(b, "%s As a text: %s As an object:\n\n", doc, lowerFirst(short))
	} else if doc != "" {
		fmt.Fprintf(b, "%s\n\n", doc)
	}
	b.WriteString("| Field | Type | Default | Meaning |\n|---|---|---|---|\n")
	var below strings.Builder
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, typeName(f.Type), defaultDoc(f), meaning(f))
		at, inner := config.Member(path, name), f.Type
		if inner.Kind() == reflect.Slice {
			at, inner = at+"[]", inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && strings.HasSuffix(typeName(inner), "object") && inner != reflect.TypeFor[config.ScopeMapping]() {
			section(&below, at, inner, f.Tag.Get("doc"))
		}
	}
	b.WriteString(below.String())
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[netip.Prefix]():
		return "network"
	case reflect.TypeFor[[]config.ScopeMapping]():
		return "object of lists"
	}
	if shorthandDoc[t] != "" {
		return "text or object"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "object of text"
	case reflect.Struct:
		return "object"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	case reflect.Float64:
		return "number"
	}
	return "text"
}

func defaultDoc(f reflect.StructField) string {
	if f.Tag.Get("required") == "true" {
		return "**required**"
	}
	if s, ok := f.Tag.Lookup("default"); ok {
		if f.Type.Kind() == reflect.Slice {
			s = "[" + s + "]"
		}
		return "`" + s + "`"
	}
	return f.Tag.Get("absent")
}

func meaning(f reflect.StructField) string {
	s := f.Tag.Get("doc")
	if enum := f.Tag.Get("enum"); enum != "" {
		s += " One of `" + strings.ReplaceAll(enum, ",", "`, `") + "`."
	}
	if pattern := f.Tag.Get("pattern"); pattern != "" {
		s += " Form: `" + pattern + "`."
	}
	if least, most := f.Tag.Get("min"), f.Tag.Get("max"); f.Type.Kind() == reflect.String && most != "" {
		s += " At most " + most + " bytes."
	} else if most != "" {
		s += " From " + least + " to " + most + "."
	}
	if example := f.Tag.Get("example"); example != "" {
		s += " Example: `" + example + "`."
	}
	return strings.ReplaceAll(s, "|", `\|`)
}
