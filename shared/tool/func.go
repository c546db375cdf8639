package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/google/jsonschema-go/jsonschema"
)

// ValidName reports whether name has the form that all providers accept for a tool:
// 1 to 64 characters of A-Z, a-z, 0-9, "_" and "-". It uses no regular expression, because
// compiling one costs every Lambda function 60 KB of memory at its start.
func ValidName(name string) bool {
	for _, c := range []byte(name) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return 1 <= len(name) && len(name) <= 64
}

// Func returns a Tool that calls f. Its parameters are the fields of the struct T:
// named by their json tags, described by their jsonschema tags, and optional if the
// json tag has omitempty or omitzero. Arguments that don't fit T never reach f; the
// model reads an error that names the field.
//
// Func panics if name is not a ValidName or if T has no JSON Schema of an object. Both
// are mistakes in the program, which its first start reveals.
func Func[T any](name, description string, f func(context.Context, T) (string, error)) Tool {
	if !ValidName(name) {
		panic(fmt.Sprintf("tool.Func: the name %q is not of 1 to 64 letters, digits, _ and -", name))
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

// JSON is Func for a result that isn't a text: the model reads it as JSON. HTML
// characters aren't escaped, because \u003c costs the model several tokens for one
// character.
func JSON[T, R any](name, description string, f func(context.Context, T) (R, error)) Tool {
	return Func(name, description, func(ctx context.Context, in T) (string, error) {
		out, err := f(ctx, in)
		if err != nil {
			return "", err
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(out); err != nil {
			return "", fmt.Errorf("result of %s: %w", name, err)
		}
		return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
	})
}

// schemaOf returns the JSON Schema of T, encoded for the model and resolved for checking
// arguments. Some structs aren't objects in JSON (time.Time, big.Int), so the schema's
// type is checked too. OpenAI refuses the schema of an object without "properties".
func schemaOf[T any](name string) (json.RawMessage, *jsonschema.Resolved) {
	if t := reflect.TypeFor[T](); t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("tool.Func: the parameters of %s are %s; use a struct", name, t))
	}
	schema, err := jsonschema.For[T](nil)
	if err != nil {
		panic(fmt.Sprintf("tool.Func: the parameters of %s: %v", name, err))
	}
	if schema.Type != "object" {
		panic(fmt.Sprintf("tool.Func: the parameters of %s are a %s in JSON; use a struct with fields", name, schema.Type))
	}
	if schema.Properties == nil {
		schema.Properties = map[string]*jsonschema.Schema{}
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

// decode reads arguments into a T. Empty arguments count as {}, because some models
// send nothing for a tool without parameters. Decoding can fail after the schema has
// accepted the arguments: 1e30 and 10.0 are integers for JSON Schema, but not for Go's
// int.
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
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return in, fmt.Errorf("%s: %s does not fit the type %s", e.Field, e.Value, e.Type)
	}
	return in, err
}
