package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"

	"github.com/google/jsonschema-go/jsonschema"
)

// validName is what every vendor accepts as a function's name.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidName reports whether a model may be offered a tool of this name.
func ValidName(name string) bool { return validName.MatchString(name) }

// Func makes a Tool of a Go function. Its parameters are the fields of the struct
// T: named by their json tags, described by their jsonschema tags, optional with
// omitempty or omitzero. Arguments that do not fit T never reach f; the model gets
// an error that names the field. Func panics when name is not a ValidName or T has
// no JSON Schema: both are mistakes in the program.
func Func[T any](name, description string, f func(context.Context, T) (string, error)) Tool {
	if !ValidName(name) {
		panic(fmt.Sprintf("tool.Func: the name %q is not of the form %s", name, validName))
	}
	parameters, resolved := schemaOf[T](name)
	call := func(ctx context.Context, arguments json.RawMessage) (string, error) {
		in, err := decode[T](resolved, arguments)
		if err != nil {
			return "", fmt.Errorf("arguments of %s: %w", name, err)
		}
		return f(ctx, in)
	}
	return Tool{Name: name, Description: description, Parameters: parameters, Call: call}
}

// JSON is Func for a result that is not text: the model reads it as JSON.
func JSON[T, R any](name, description string, f func(context.Context, T) (R, error)) Tool {
	return Func(name, description, func(ctx context.Context, in T) (string, error) {
		out, err := f(ctx, in)
		if err != nil {
			return "", err
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false) // \u003c costs the model six tokens' worth of text
		if err := enc.Encode(out); err != nil {
			return "", fmt.Errorf("result of %s: %w", name, err)
		}
		return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
	})
}

func schemaOf[T any](name string) (json.RawMessage, *jsonschema.Resolved) {
	if t := reflect.TypeFor[T](); t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("tool.Func: the parameters of %s are %s; use a struct", name, t))
	}
	schema, err := jsonschema.For[T](nil)
	if err != nil {
		panic(fmt.Sprintf("tool.Func: the parameters of %s: %v", name, err))
	}
	if schema.Type != "object" { // time.Time, big.Int and their like are structs, too
		panic(fmt.Sprintf("tool.Func: the parameters of %s are a %s in JSON; use a struct with fields", name, schema.Type))
	}
	if schema.Properties == nil {
		schema.Properties = map[string]*jsonschema.Schema{} // OpenAI refuses an object without it
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		panic(fmt.Sprintf("tool.Func: the parameters of %s: %v", name, err))
	}
	text, err := json.Marshal(schema)
	if err != nil {
		panic(fmt.Sprintf("tool.Func: the parameters of %s: %v", name, err))
	}
	return text, resolved
}

// decode reads arguments into a T. Nothing at all counts as no arguments, which is
// what some models send for a tool without any.
func decode[T any](schema *jsonschema.Resolved, arguments json.RawMessage) (in T, err error) {
	if len(bytes.TrimSpace(arguments)) == 0 {
		arguments = json.RawMessage("{}")
	}
	var loose any
	if err := json.Unmarshal(arguments, &loose); err != nil {
		return in, fmt.Errorf("not JSON: %w", err)
	}
	if err := schema.Validate(loose); err != nil {
		return in, err
	}
	err = json.Unmarshal(arguments, &in)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok { // 1e30 and 10.0 are integers to a schema
		return in, fmt.Errorf("%s: %s does not fit the type %s", e.Field, e.Value, e.Type)
	}
	return in, err
}
