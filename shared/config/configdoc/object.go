package configdoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// object is a JSON object that keeps the order in which its members were put. A map would sort
// them, and a reader of the schema expects the description first and the fields in the order of
// the page.
type object struct {
	members []member
}

// member is one name and value. The value is anything that encoding/json can encode.
type member struct {
	name  string
	value any
}

// put adds a member. It does not look for an earlier one of the same name.
func (o *object) put(name string, value any) {
	o.members = append(o.members, member{name, value})
}

// putNumber adds a numeric member. An empty digits means that the field has no such bound, and a
// member that is already set wins.
func (o *object) putNumber(name, digits string) {
	if digits == "" || slices.ContainsFunc(o.members, func(m member) bool { return m.name == name }) {
		return
	}
	o.put(name, json.Number(digits))
}

// putAll adds the members of other, in their order.
func (o *object) putAll(other *object) {
	o.members = append(o.members, other.members...)
}

// MarshalJSON implements json.Marshaler. It encodes the members itself, since json.Marshal would escape <, >
// and & in them.
func (o *object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o.members {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(&b, m.name, ""); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := encode(&b, m.value, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode appends v as JSON. It leaves <, > and & as they are, because people read the file.
func encode(b *bytes.Buffer, v any, indent string) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}
