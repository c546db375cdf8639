package apidoc

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/wire"
)

// schema holds the keywords of JSON Schema 2020-12 that the document uses. OpenAPI 3.1
// uses that version of JSON Schema. The zero schema accepts any value.
//
// Bounds that are 0 are left out, which means no bound. Minimum and Maximum are
// pointers, because 0 is a bound that an integer can have.
type schema struct {
	Ref              string          `json:"$ref,omitempty"`
	Type             any             `json:"type,omitempty"` // a string, or a []string of alternatives
	Format           string          `json:"format,omitempty"`
	ContentMediaType string          `json:"contentMediaType,omitempty"`
	ContentSchema    *schema         `json:"contentSchema,omitempty"`
	Description      string          `json:"description,omitempty"`
	Enum             []string        `json:"enum,omitempty"`
	Default          any             `json:"default,omitempty"`
	Minimum          *int64          `json:"minimum,omitempty"`
	Maximum          *int64          `json:"maximum,omitempty"`
	MinLength        int             `json:"minLength,omitempty"`
	MaxLength        int             `json:"maxLength,omitempty"`
	MinItems         int             `json:"minItems,omitempty"`
	Items            *schema         `json:"items,omitempty"`
	AnyOf            []*schema       `json:"anyOf,omitempty"`
	Properties       object[*schema] `json:"properties,omitempty"`
	Required         []string        `json:"required,omitempty"`
}

// typed is a schema of one JSON type without further bounds.
func typed(name string) *schema { return &schema{Type: name} }

// refTo refers to a schema of the components by its name.
func refTo(name string) *schema { return &schema{Ref: "#/components/schemas/" + name} }

// orNull returns a schema that accepts null besides what s accepts. It may change s. A
// reference is wrapped, because the referred schema is shared; for a simple type, the
// list of types is shorter than anyOf. The zero schema accepts null already.
func orNull(s *schema) *schema {
	switch name, single := s.Type.(string); {
	case s.Ref != "":
		return &schema{AnyOf: []*schema{s, typed("null")}}
	case len(s.AnyOf) > 0:
		s.AnyOf = append(s.AnyOf, typed("null"))
	case single:
		s.Type = []string{name, "null"}
	}
	return s
}

// A Go type becomes a schema by one of two sets of rules.
//
// What the server writes (schemas.of, schemas.object) follows encoding/json: a member has
// the name in the field's json tag, and is required unless the tag has omitempty. A pointer
// without omitempty is a nullable member. A json.RawMessage has no type of its own; its
// tag holds names what it contains.
//
// What the server reads (inputSchema) follows package input: a field has the name and
// the place of its tag, and is optional unless it has the tag required. min, max, minlen,
// maxlen, enum and default become the keywords of the same meaning. bound becomes a
// sentence of the description.

// schemas collects the schemas of the structs that the document refers to, by their
// names. Each struct is described once, however many routes use it.
type schemas struct {
	byName map[string]*schema
}

// holdable returns the structs that the tag holds can name, by name. The tag is a
// text, so it can't refer to a Go type directly.
func holdable() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, v := range []any{
		wire.Message{}, wire.Metrics{}, wire.ToolExecution{}, wire.Requirement{}, wire.File{}, wire.SessionMetrics{},
		wire.UserInput{}, wire.ModelCount{},
	} {
		out[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	return out
}

// of returns the schema of the JSON that encoding/json writes for a t. tag is the
// tag of the field that has the type; empty for an element of a list. It panics for a
// kind that the wire types don't use.
func (s *schemas) of(t reflect.Type, tag reflect.StructTag) *schema {
	if holds := tag.Get("holds"); holds != "" {
		return s.holding(holds)
	}
	switch t { // types with a MarshalJSON of their own
	case reflect.TypeFor[wire.Time](), reflect.TypeFor[wire.MicroTime](), reflect.TypeFor[wire.ISOTime]():
		return &schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[any]():
		return &schema{}
	case reflect.TypeFor[json.RawMessage]():
		panic("apidoc: a json.RawMessage needs the tag holds, which names its content")
	}
	switch t.Kind() {
	case reflect.Pointer: // object has removed a pointer that omitempty leaves out
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

// holding returns the schema that the tag holds declares. Package wire documents the
// tag.
func (s *schemas) holding(text string) *schema {
	structs, out := holdable(), &schema{}
	for alternative := range strings.SplitSeq(text, "|") {
		word, list := strings.CutSuffix(alternative, "[]")
		var one *schema
		switch t, ok := structs[word]; {
		case ok:
			one = s.ref(t)
		case word == "any":
			one = &schema{}
		case word == "object" || word == "null":
			one = typed(word)
		default:
			panic("apidoc: the tag holds:\"" + text + "\" names an unknown struct")
		}
		if list {
			one = &schema{Type: "array", Items: one}
		}
		out.AnyOf = append(out.AnyOf, one)
	}
	if len(out.AnyOf) == 1 {
		return out.AnyOf[0]
	}
	return out
}

// ref returns a reference to the schema of a struct, and adds the schema when it is
// missing.
func (s *schemas) ref(t reflect.Type) *schema {
	name := schemaName(t)
	if _, known := s.byName[name]; !known {
		s.byName[name] = nil // ends the recursion for a struct that contains itself
		s.byName[name] = s.object(t)
	}
	return refTo(name)
}

// schemaName returns the Go name of the type, with its first letter in upper case. A
// generic type has its argument in the name: Page[Session] is PageSession.
func schemaName(t reflect.Type) string {
	name, argument, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return strings.ToUpper(name[:1]) + name[1:] // api's struct for {} is nothing
	}
	return name + strings.TrimSuffix(argument[strings.LastIndex(argument, ".")+1:], "]")
}

// object returns the schema of a struct. A member with omitempty may be absent. Inside a
// wire.Whole it is never absent but may be null, because wire.Whole writes every member
// of the value that it holds.
func (s *schemas) object(t reflect.Type) *schema {
	out, whole := typed("object"), strings.HasPrefix(t.Name(), "Whole[")
	if whole {
		t = t.Field(0).Type
	}
	for _, f := range reflect.VisibleFields(t) {
		name, omits, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue // an embedded struct: VisibleFields lists its fields too
		}
		ft := f.Type
		if omits != "" && ft.Kind() == reflect.Pointer {
			ft = ft.Elem() // a nil pointer is left out, not written as null
		}
		property := s.of(ft, f.Tag)
		if omits != "" && whole {
			property = orNull(property)
		}
		out.Properties = append(out.Properties, member[*schema]{name, property})
		if omits == "" || whole {
			out.Required = append(out.Required, name)
		}
	}
	return out
}

// inputSchema returns the schema of one field that package input reads. place is the
// tag that names the field: query, header, form or json. The other tags become the
// schema's bounds and description. Package input checks requests by the same tags, so
// the document can't promise a bound that is not checked.
func inputSchema(f reflect.StructField, place string) *schema {
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
	case t == reflect.TypeFor[input.JSON](): // any type
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		out.Type, out.Items = "array", objectOf(fields(t.Elem(), "json"), "json")
	case t.Kind() == reflect.Slice:
		// minlen is the number of elements here. For a text it is the number of characters.
		out.Type, out.Items, out.MinItems = "array", textSchema(tag), number(tag, "minlen")
	case t.Kind() == reflect.Bool:
		out.Type = "boolean"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		out.Type, out.Format = "integer", "int64"
		if t.Kind() == reflect.Int { // package input reads an int as 32 bits
			out.Format, out.Maximum = "int32", new(int64(math.MaxInt32))
		}
		if _, bounded := tag.Lookup("min"); bounded {
			out.Minimum = new(int64(number(tag, "min")))
		}
		if _, bounded := tag.Lookup("max"); bounded {
			out.Maximum = new(int64(number(tag, "max")))
		}
	default:
		out = textSchema(tag)
		out.MinLength, out.MaxLength = number(tag, "minlen"), number(tag, "maxlen")
		if place != "json" && tag.Get("required") != "" {
			out.MinLength = 1 // outside of JSON an empty text counts as absent
		}
	}
	if s, ok := tag.Lookup("default"); ok {
		out.Default = s
		if out.Type != "string" {
			out.Default = json.RawMessage(s) // a number or a boolean, written without quotes
		}
	}
	out.Description = tag.Get("doc")
	if name := tag.Get("bound"); name != "" { // JSON Schema counts characters only
		out.Description = strings.TrimSpace(out.Description + " " + atMost(bound.Named(name),
			t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8))
	}
	if tag.Get("newid") != "" {
		out.Description += " " + input.NewID
	}
	return out
}

// atMost describes a bound: that of a list counts elements, any other one bytes.
func atMost(b *bound.Bound, isList bool) string {
	unit, by := " bytes", ""
	if isList {
		unit = ""
	}
	if b.Settable {
		by = " by default"
	}
	return "At most " + strconv.Itoa(b.Default) + unit + by + "."
}

// textSchema returns the schema of a text, or of one element of a list of texts: a string
// with the values of the tag enum, if the field has that tag.
func textSchema(tag reflect.StructTag) *schema {
	out := typed("string")
	if words := tag.Get("enum"); words != "" {
		out.Enum = strings.Split(words, ",")
	}
	return out
}

// number reads a tag as an integer; 0 when it is missing or no number. Package input reads
// the same tags in the same way.
func number(tag reflect.StructTag, name string) int {
	n, _ := strconv.Atoi(tag.Get(name))
	return n
}

// fields lists the fields of an input struct that have the tag place, those of
// embedded structs included, in the order of the struct.
func fields(t reflect.Type, place string) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get(place) == "" })
}
