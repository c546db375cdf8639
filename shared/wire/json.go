package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Marshal is json.Marshal without the escaping of <, > and &, which AgentOS doesn't do
// either.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	err := encode(&buf, v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

func encode(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Whole writes a struct with every member: a member that T would leave out is null. For
// the same data, some routes of AgentOS leave absent members out and others write null.
type Whole[T any] struct{ Value T }

// MarshalJSON writes the members in the order of T's fields. T must be a struct in which
// every field has a json tag with a name.
func (w Whole[T]) MarshalJSON() ([]byte, error) {
	v := reflect.ValueOf(w.Value)
	b := bytes.NewBufferString("{")
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + name + `":`)
		if options != "" && v.Field(i).IsZero() {
			b.WriteString("null")
			continue
		}
		value, err := Marshal(v.Field(i).Interface())
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

var _ json.Marshaler = Whole[struct{}]{}
