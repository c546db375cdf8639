// Package configdoc makes docs/config.md and docs/keyway.schema.json from config.Config, so that both
// always describe the fields that config.Parse reads. Only "go generate" and tests use it; no program
// links it.
package configdoc

// A field is described in one place, its declaration in config.go. The struct tags have the name, the
// default, the bounds and an example. The comment has the meaning; it is read from the source file, since a
// program does not contain its comments. The texts that belong to no field are in preface.txt and
// shorthandDoc.

import (
	_ "embed"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
)

//go:generate go test -run TestDocumentsAreUpToDate -update .

// preface is the page above the tables.
//
//go:embed preface.txt
var preface string

// Markdown returns docs/config.md: every field with its type, default and meaning.
func (s Source) Markdown() []byte {
	var b strings.Builder
	b.WriteString(preface)
	s.section(&b, "", reflect.TypeFor[config.Config](), "")
	s.section(&b, "claim", reflect.TypeFor[config.ClaimSource](), "A place in the claims of a token.")
	s.section(&b, "limits", reflect.TypeFor[config.Limits](), "What runs may use. [budgets.md](budgets.md) "+
		"says whose runs each limit counts, and how limits of several places combine.")
	s.section(&b, "price", reflect.TypeFor[config.Price](), "What the tokens of a model cost.")
	return []byte(b.String())
}

// section writes the table of t, then the sections of the structs in it. doc is the comment of the
// field of type t.
func (s Source) section(b *strings.Builder, path string, t reflect.Type, doc string) {
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
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, typeName(f.Type), defaultDoc(f), meaning(f, s.comment(t, f)))
		at := config.Member(path, name)
		if f.Type.Kind() == reflect.Slice {
			at += "[]"
		}
		if inner := structIn(f.Type); inner != nil {
			s.section(&below, at, inner, s.comment(t, f))
		}
	}
	b.WriteString(below.String()) // after the whole table, because Markdown has no nested tables
}

// lowerFirst makes the beginning of a sentence fit after a colon.
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// typeName returns the type of a field in the words of the file: an operator writes a "whole number" or a
// "list of text", and does not know Go's types.
func typeName(t reflect.Type) string {
	switch t { // types with a notation of their own, before the Go kinds that they are built on
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[netip.Prefix]():
		return "network"
	case reflect.TypeFor[[]config.ScopeMapping](), reflect.TypeFor[config.Grants]():
		return "object of lists"
	case reflect.TypeFor[config.Texts]():
		return "text or list of text"
	case reflect.TypeFor[config.Sources]():
		return "claim or list of claims"
	case reflect.TypeFor[config.ClaimSource]():
		return "claim"
	case reflect.TypeFor[config.Limits]():
		return "limits"
	case reflect.TypeFor[config.RoleLimits]():
		return "object of limits"
	case reflect.TypeFor[config.Prices]():
		return "object of prices"
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

// defaultDoc returns the cell of the column Default: that the field is required, its fixed default, or what
// an absent field means. It is empty if absence means nothing in particular.
func defaultDoc(f reflect.StructField) string {
	if f.Tag.Get("required") == "true" {
		return "**required**"
	}
	if text, ok := f.Tag.Lookup("default"); ok {
		if f.Type.Kind() == reflect.Slice {
			text = "[" + text + "]"
		}
		return "`" + text + "`"
	}
	return f.Tag.Get("absent")
}

// meaning returns the cell of the column Meaning: the comment, and the bounds of the tags. A list has no
// sentence about its length, since only "not empty" occurs and the fields that need an element are required.
// A "|" would end the cell, so it is escaped.
func meaning(f reflect.StructField, comment string) string {
	s := comment
	if enum := f.Tag.Get("enum"); enum != "" {
		s += " One of `" + strings.ReplaceAll(enum, ",", "`, `") + "`."
	}
	if pattern := f.Tag.Get("pattern"); pattern != "" {
		s += " Pattern: `" + pattern + "`."
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
