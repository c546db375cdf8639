package config

import (
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Schema is docs/keyway.schema.json: JSON Schema 2020-12 of keyway.yaml, made of
// the tags on Config. It is looser than Parse and never stricter: where a text
// has a form, ${VAR} may stand for it.
func Schema() []byte {
	root := &node{}
	root.put("$schema", textNode("https://json-schema.org/draft/2020-12/schema"))
	root.put("title", textNode("keyway.yaml"))
	root.put("description", textNode("One OS of Keyway. See config.md beside this file."))
	s := typeSchema(reflect.TypeFor[Config](), "")
	for i, key := range s.keys {
		root.put(key, s.sub[i])
	}
	return root.indented()
}

const variableForm = `|\$\{`

// typeSchema describes t; tag is that of the field, for its bounds.
func typeSchema(t reflect.Type, tag reflect.StructTag) *node {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return typed("string", "pattern", durations+variableForm)
	case reflect.TypeFor[netip.Prefix]():
		return typed("string")
	case reflect.TypeFor[[]ScopeMapping]():
		return mappingsSchema()
	case reflect.TypeFor[Key](), reflect.TypeFor[Tool](), reflect.TypeFor[Model]():
		return shorthandSchema(t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), tag)
	case reflect.Slice:
		n := typed("array")
		n.put("items", typeSchema(t.Elem(), reflect.StructTag(`enum:"`+tag.Get("enum")+`"`)))
		n.putNumber("minItems", tag.Get("min"))
		return n
	case reflect.Map:
		n := typed("object")
		n.put("additionalProperties", typed("string"))
		return n
	case reflect.Struct:
		return objectSchema(t)
	case reflect.Bool:
		return typed("boolean")
	case reflect.Int, reflect.Float64:
		n := typed(map[reflect.Kind]string{reflect.Int: "integer", reflect.Float64: "number"}[t.Kind()])
		n.putNumber("minimum", tag.Get("min"))
		n.putNumber("maximum", tag.Get("max"))
		if t.Kind() == reflect.Int {
			n.putNumber("maximum", strconv.Itoa(math.MaxInt32))
		}
		return n
	}
	return textSchema(tag)
}

func textSchema(tag reflect.StructTag) *node {
	n := typed("string")
	if enum := tag.Get("enum"); enum != "" {
		words := &node{kind: listKind}
		for word := range strings.SplitSeq(enum, ",") {
			words.sub = append(words.sub, textNode(word))
		}
		known := &node{}
		known.put("enum", words)
		either := &node{}
		either.put("anyOf", &node{kind: listKind, sub: []*node{known, typed("string", "pattern", `\$\{`)}})
		return either
	}
	if pattern := tag.Get("pattern"); pattern != "" {
		n.put("pattern", textNode(pattern+variableForm))
	}
	n.putNumber("minLength", tag.Get("min"))
	n.putNumber("maxLength", tag.Get("max"))
	return n
}

// shorthandSchema is that of a struct which may be written as one text.
func shorthandSchema(t reflect.Type) *node {
	short := typed("string", "description", shorthandDoc[t])
	if t == reflect.TypeFor[Model]() {
		short.put("pattern", textNode(`^[^:]+:.+$`+variableForm))
	}
	n := &node{}
	n.put("anyOf", &node{kind: listKind, sub: []*node{short, objectSchema(t)}})
	return n
}

var shorthandDoc = map[reflect.Type]string{
	reflect.TypeFor[Key]():   "An HMAC secret of at least 32 bytes, or a PEM public key; best as ${JWT_VERIFICATION_KEY}. A secret written here works, with a warning.",
	reflect.TypeFor[Tool]():  "The name of a built-in tool: " + either(builtinTools) + ".",
	reflect.TypeFor[Model](): "provider:id, such as openai:gpt-4o.",
}

func objectSchema(t reflect.Type) *node {
	n := typed("object")
	n.put("additionalProperties", &node{kind: boolKind, text: "false"})
	properties, required := &node{kind: objectKind}, &node{kind: listKind}
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		properties.put(name, fieldSchema(f))
		if f.Tag.Get("required") == "true" {
			required.sub = append(required.sub, textNode(name))
		}
	}
	if len(required.sub) > 0 {
		n.put("required", required)
	}
	n.put("properties", properties)
	return n
}

func fieldSchema(f reflect.StructField) *node {
	n := &node{}
	n.put("description", textNode(f.Tag.Get("doc")))
	if s, ok := f.Tag.Lookup("default"); ok {
		n.put("default", defaultNode(f.Type, s))
	}
	s := typeSchema(f.Type, f.Tag)
	for i, key := range s.keys {
		n.put(key, s.sub[i])
	}
	return n
}

func mappingsSchema() *node {
	scopes := typed("array")
	scopes.put("items", typed("string", "pattern", `^\S+$`+variableForm))
	scopes.putNumber("minItems", "1")
	names := &node{}
	names.put("pattern", textNode(`^(`+strings.Join(methods, "|")+`) /\S*$`))
	n := typed("object")
	n.put("propertyNames", names)
	n.put("additionalProperties", scopes)
	return n
}

// typed is {"type": name} with one more text member, if given.
func typed(name string, member ...string) *node {
	n := &node{}
	n.put("type", textNode(name))
	if len(member) == 2 {
		n.put(member[0], textNode(member[1]))
	}
	return n
}

// putNumber adds a member unless the number is empty or the member is there.
func (n *node) putNumber(key, s string) {
	if s != "" && n.member(key) == nil {
		n.put(key, &node{kind: numberKind, text: s})
	}
}
