package configdoc

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
)

// Schema returns docs/keyway.schema.json: the JSON Schema (2020-12) of keyway.yaml. Every
// file that config.Parse accepts is valid against it. The reverse does not hold, because a schema sees
// the file before its variables are replaced: where a text must have a form, the schema also accepts a
// text that contains ${.
func (s Source) Schema() []byte {
	root := &object{}
	root.put("$schema", "https://json-schema.org/draft/2020-12/schema")
	root.put("title", "keyway.yaml")
	root.put("description", "One OS of Keyway. See config.md beside this file.")
	root.putAll(s.typeSchema(reflect.TypeFor[config.Config](), ""))
	var b bytes.Buffer
	if err := encode(&b, root, "  "); err != nil {
		panic("configdoc: the schema cannot be encoded: " + err.Error())
	}
	return b.Bytes()
}

// variableForm is the alternative that every pattern gets: the text contains a variable.
const variableForm = `|\$\{`

// typeSchema returns the schema of a field's type. tag is the field's, for its bounds. The types with a
// notation of their own come first, in the same order as in the decoder of package config.
//
// In a slice, the tags min and max are about its length, and only enum is about its elements. The maximum of
// a whole number is that of a 32-bit int, as in config.Parse.
func (s Source) typeSchema(t reflect.Type, tag reflect.StructTag) *object {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return typed("string", "pattern", config.DurationPattern+variableForm)
	case reflect.TypeFor[netip.Prefix]():
		return typed("string")
	case reflect.TypeFor[[]config.ScopeMapping]():
		return mappingsSchema()
	case reflect.TypeFor[config.Grants]():
		return grantsSchema()
	case reflect.TypeFor[config.Texts](), reflect.TypeFor[config.Sources]():
		o := typed("array")
		one := s.typeSchema(t.Elem(), tag)
		o.put("items", one)
		o.putNumber("minItems", tag.Get("min"))
		either := &object{}
		either.put("anyOf", []*object{one, o})
		return either
	case reflect.TypeFor[config.ClaimSource]():
		return s.shorthandSchema(t)
	case reflect.TypeFor[config.Key](), reflect.TypeFor[config.Tool](), reflect.TypeFor[config.Model]():
		return s.shorthandSchema(t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.typeSchema(t.Elem(), tag)
	case reflect.Slice:
		o := typed("array")
		o.put("items", s.typeSchema(t.Elem(), reflect.StructTag(`enum:"`+tag.Get("enum")+`"`)))
		o.putNumber("minItems", tag.Get("min"))
		return o
	case reflect.Map:
		o := typed("object")
		o.put("additionalProperties", s.typeSchema(t.Elem(), ""))
		return o
	case reflect.Struct:
		return s.objectSchema(t)
	case reflect.Bool:
		return typed("boolean")
	case reflect.Int, reflect.Float64:
		o := typed(map[reflect.Kind]string{reflect.Int: "integer", reflect.Float64: "number"}[t.Kind()])
		o.putNumber("minimum", tag.Get("min"))
		o.putNumber("maximum", tag.Get("max"))
		if t.Kind() == reflect.Int {
			o.putNumber("maximum", strconv.Itoa(math.MaxInt32))
		}
		return o
	}
	return textSchema(tag)
}

// textSchema returns the schema of a text. An enumeration becomes two alternatives, one of the
// words or a text with a variable, so that an editor still offers the words.
func textSchema(tag reflect.StructTag) *object {
	if enum := tag.Get("enum"); enum != "" {
		words := &object{}
		words.put("enum", strings.Split(enum, ","))
		either := &object{}
		either.put("anyOf", []*object{words, typed("string", "pattern", `\$\{`)})
		return either
	}
	o := typed("string")
	if pattern := tag.Get("pattern"); pattern != "" {
		o.put("pattern", pattern+variableForm)
	}
	o.putNumber("minLength", tag.Get("min"))
	o.putNumber("maxLength", tag.Get("max"))
	return o
}

// shorthandSchema returns the schema of a struct that may also be written as one text.
func (s Source) shorthandSchema(t reflect.Type) *object {
	short := typed("string", "description", shorthandDoc[t])
	if t == reflect.TypeFor[config.Model]() {
		short.put("pattern", `^[^:]+:.+$`+variableForm)
	}
	o := &object{}
	o.put("anyOf", []*object{short, s.objectSchema(t)})
	return o
}

// shorthandDoc describes the text form of each struct that has one.
var shorthandDoc = map[reflect.Type]string{
	reflect.TypeFor[config.Key](): "An HMAC secret of at least 32 bytes, or a PEM public key, " +
		"best written as ${JWT_VERIFICATION_KEY}. " +
		"A secret that is written in the file itself is accepted with a warning.",
	reflect.TypeFor[config.ClaimSource](): "The name of a claim, dots and slashes included.",
	reflect.TypeFor[config.Tool]():        "The name of a built-in tool: " + config.OneOf(config.BuiltinTools()) + ".",
	reflect.TypeFor[config.Model]():       "provider:id, such as openai:gpt-4o.",
}

// objectSchema returns the schema of a struct that is written as an object. Members that it does
// not name are invalid, as they are for config.Parse.
func (s Source) objectSchema(t reflect.Type) *object {
	properties, required := &object{}, []string(nil)
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		properties.put(name, s.fieldSchema(t, f))
		if f.Tag.Get("required") == "true" {
			required = append(required, name)
		}
	}
	o := typed("object")
	o.put("additionalProperties", false)
	if len(required) > 0 {
		o.put("required", required)
	}
	o.put("properties", properties)
	return o
}

// fieldSchema returns the schema of a field with its description and default. Editors show both.
func (s Source) fieldSchema(t reflect.Type, f reflect.StructField) *object {
	o := &object{}
	o.put("description", s.comment(t, f))
	if text, ok := f.Tag.Lookup("default"); ok {
		o.put("default", defaultValue(f.Type, text))
	}
	o.putAll(s.typeSchema(f.Type, f.Tag))
	return o
}

// defaultValue returns the tag default as the JSON value that a file would hold.
func defaultValue(t reflect.Type, text string) any {
	switch t.Kind() {
	case reflect.Bool:
		return text == "true"
	case reflect.Int:
		return json.Number(text)
	case reflect.Slice:
		return []string{text}
	}
	return text
}

// scopeForm is the form of a scope: resource:action, resource:id:action or resource:*:action.
const scopeForm = `^[^\s:*]+:([^\s:]+:)?[^\s:*]+$`

// mappingsSchema returns the schema of auth.scope_mappings: "METHOD /path" to a list of scopes. Whether a
// route matches the path is left to config.Parse.
func mappingsSchema() *object {
	scopes := typed("array")
	scopes.put("items", typed("string", "pattern", scopeForm+variableForm))
	scopes.putNumber("minItems", "1")
	names := &object{}
	names.put("pattern", `^(`+strings.Join(config.Methods(), "|")+`) /\S*$`)
	o := typed("object")
	o.put("propertyNames", names)
	o.put("additionalProperties", scopes)
	return o
}

// grantsSchema returns the schema of grants: a name to a list of scopes.
func grantsSchema() *object {
	scopes := typed("array")
	scopes.put("items", typed("string", "pattern", `^\S+$`+variableForm))
	o := typed("object")
	o.put("additionalProperties", scopes)
	return o
}

// typed returns {"type": name} with one more text member, if given.
func typed(name string, member ...string) *object {
	o := &object{}
	o.put("type", name)
	if len(member) == 2 {
		o.put(member[0], member[1])
	}
	return o
}
