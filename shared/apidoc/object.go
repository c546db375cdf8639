package apidoc

import (
	"bytes"

	"github.com/keyway-agents/keyway/shared/wire"
)

// object is a JSON object that keeps the order of its members. The order of paths
// and properties in the documents is the order of the route table and of the struct
// fields, which encoding/json doesn't keep for a map.
type object[V any] []member[V]

// member is one member of an object. Names aren't checked: nothing in this package adds a
// name twice.
type member[V any] struct {
	name  string
	value V
}

// MarshalJSON writes the members in order. It returns the first error of a value, which
// encoding/json passes on with the name of this type.
func (o object[V]) MarshalJSON() ([]byte, error) {
	// wire.Marshal writes <, > and & as they are. json.Marshal would escape them, which
	// is valid JSON but hard to read in a description.
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := wire.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := wire.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
