package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Whole answers a struct with every member: what T would leave out is null. Some
// routes of AgentOS leave absent members out, others show them, for the same data.
type Whole[T any] struct{ Value T }

// MarshalJSON writes the members in the order of T's fields.
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
