package apidoc

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/wire"
)

// schema is a JSON Schema (2020-12), as far as the OpenAPI document needs it.
type schema struct {
	Ref              string        `json:"$ref,omitempty"`
	Type             any           `json:"type,omitempty"` // a word, or several
	Format           string        `json:"format,omitempty"`
	ContentMediaType string        `json:"contentMediaType,omitempty"`
	ContentSchema    *schema       `json:"contentSchema,omitempty"`
	Description      string        `json:"description,omitempty"`
	Enum             []string      `json:"enum,omitempty"`
	Default          any           `json:"default,omitempty"`
	Minimum          *int64        `json:"minimum,omitempty"`
	Maximum          *int64        `json:"maximum,omitempty"`
	MinLength        int           `json:"minLength,omitempty"`
	MaxLength        int           `json:"maxLength,omitempty"`
	MinItems         int           `json:"minItems,omitempty"`
	Items            *schema       `json:"items,omitempty"`
	AnyOf            []*schema     `json:"anyOf,omitempty"`
	Properties       fault.Members `json:"properties,omitempty"` // of *schema
	Required         []string      `json:"required,omitempty"`
}

func typed(word string) *schema { return &schema{Type: word} }

// orNull is s or null.
func orNull(s *schema) *schema {
	switch word, plain := s.Type.(string); {
	case s.Ref != "":
		return &schema{AnyOf: []*schema{s, typed("null")}}
	case len(s.AnyOf) > 0:
		s.AnyOf = append(s.AnyOf, typed("null"))
	case plain:
		s.Type = []string{word, "null"}
	}
	return s
}

// schemas are the structs that a document refers to, by name.
type schemas struct {
	byName map[string]*schema
}

// held are the structs that the tag holds may name.
var held = byName(wire.Message{}, wire.Metrics{}, wire.ToolExecution{}, wire.Requirement{}, wire.File{}, wire.SessionMetrics{}, wire.UserInput{})

func byName(structs ...any) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, v := range structs {
		out[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	return out
}

// of is the schema of what encoding/json makes of t; tag is that of its field.
func (s *schemas) of(t reflect.Type, tag reflect.StructTag) *schema {
	if holds := tag.Get("holds"); holds != "" {
		return s.holding(holds)
	}
	switch t {
	case reflect.TypeFor[wire.Time](), reflect.TypeFor[wire.MicroTime](), reflect.TypeFor[wire.ISOTime]():
		return &schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[any]():
		return &schema{}
	case reflect.TypeFor[json.RawMessage]():
		panic("apidoc: say with the tag holds what is in it")
	}
	switch t.Kind() {
	case reflect.Pointer:
		return orNull(s.of(t.Elem(), tag))
	case reflect.Slice:
		return &schema{Type: "array", Items: s.of(t.Elem(), "")}
	case reflect.Struct:
		return s.ref(t)
	case reflect.Bool:
		return typed("boolean")
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer", Format: "int64"}
	case reflect.Float64:
		return typed("number")
	case reflect.String:
		return typed("string")
	}
	panic("apidoc: no schema for " + t.String())
}

// holding reads the tag holds; see package wire.
func (s *schemas) holding(text string) *schema {
	out := &schema{}
	for one := range strings.SplitSeq(text, "|") {
		word, list := strings.CutSuffix(one, "[]")
		var is *schema
		switch t, ok := held[word]; {
		case ok:
			is = s.ref(t)
		case word == "any":
			is = &schema{}
		case word == "object" || word == "null":
			is = typed(word)
		default:
			panic("apidoc: holds " + text + ": no such struct")
		}
		if list {
			is = &schema{Type: "array", Items: is}
		}
		out.AnyOf = append(out.AnyOf, is)
	}
	if len(out.AnyOf) == 1 {
		return out.AnyOf[0]
	}
	return out
}

// ref refers to a struct, which becomes one of the document's.
func (s *schemas) ref(t reflect.Type) *schema {
	name := nameOf(t)
	if _, known := s.byName[name]; !known {
		s.byName[name] = nil // a struct may be in itself
		s.byName[name] = s.object(t)
	}
	return &schema{Ref: "#/components/schemas/" + name}
}

// nameOf is the Go name; Page[Session] is PageSession.
func nameOf(t reflect.Type) string {
	name, of, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return strings.ToUpper(name[:1]) + name[1:] // api.nothing is Nothing
	}
	return name + strings.TrimSuffix(of[strings.LastIndex(of, ".")+1:], "]")
}

// object describes a struct. A member with omitempty may be absent, or in a Whole
// null.
func (s *schemas) object(t reflect.Type) *schema {
	out, whole := typed("object"), strings.HasPrefix(t.Name(), "Whole[")
	if whole {
		t = t.Field(0).Type
	}
	for _, f := range reflect.VisibleFields(t) {
		name, omits, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue // an embedded struct: its fields are visible too
		}
		ft := f.Type
		if omits != "" && ft.Kind() == reflect.Pointer {
			ft = ft.Elem() // what would be null is absent
		}
		is := s.of(ft, f.Tag)
		if omits != "" && whole {
			is = orNull(is)
		}
		out.Properties = append(out.Properties, fault.Member{Name: name, Value: is})
		if omits == "" || whole {
			out.Required = append(out.Required, name)
		}
	}
	return out
}

// inputOf is the schema of one input that is read by package input, which may be a
// list. place is the tag that names it.
func inputOf(f reflect.StructField, place string) *schema {
	t, tag := f.Type, f.Tag
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	out := &schema{}
	switch {
	case t == reflect.TypeFor[[]input.File]():
		out.Type, out.Items = "array", &schema{Type: "string", ContentMediaType: "application/octet-stream"}
	case t == reflect.TypeFor[input.Object]():
		out.Type = "object"
	case t.Kind() == reflect.Slice:
		out.Type, out.Items, out.MinItems = "array", textSchema(tag), number(tag, "minlen")
	case t.Kind() == reflect.Bool:
		out.Type = "boolean"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		out.Type, out.Format = "integer", "int64"
		if least, ok := tag.Lookup("min"); ok {
			n, _ := strconv.ParseInt(least, 10, 64)
			out.Minimum = &n
		}
		if t.Kind() == reflect.Int {
			out.Format, out.Maximum = "int32", new(int64(math.MaxInt32))
		}
		if most, ok := tag.Lookup("max"); ok {
			n, _ := strconv.ParseInt(most, 10, 64)
			out.Maximum = &n
		}
	default:
		out = textSchema(tag)
		out.MinLength, out.MaxLength = number(tag, "minlen"), number(tag, "maxlen")
		if place != "json" && tag.Get("required") != "" {
			out.MinLength = 1 // an empty one counts as none
		}
	}
	if s, ok := tag.Lookup("default"); ok {
		out.Default = s
		if out.Type != "string" {
			out.Default = json.RawMessage(s)
		}
	}
	out.Description = tag.Get("doc")
	if most := tag.Get("maxbytes"); most != "" {
		out.Description = strings.TrimSpace(out.Description + " At most " + most + " bytes.")
	}
	return out
}

func textSchema(tag reflect.StructTag) *schema {
	out := typed("string")
	if words := tag.Get("enum"); words != "" {
		out.Enum = strings.Split(words, ",")
	}
	return out
}

func number(tag reflect.StructTag, name string) int {
	n, _ := strconv.Atoi(tag.Get(name))
	return n
}

// fields are those of an input struct that are read from a place: query, header,
// form or json.
func fields(t reflect.Type, place string) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get(place) == "" })
}
