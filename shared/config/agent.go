package config

import (
	"reflect"
	"strings"
)

// fromText reads "provider:id"; the id may hold further colons, as Bedrock's do.
func (m *Model) fromText(d *decoder, path string, n *node) {
	provider, id, ok := strings.Cut(n.text, ":")
	if !ok {
		d.fault(path, "is "+seen(path, n), "write provider:id, such as openai:gpt-4o")
		return
	}
	o := &node{}
	o.put("provider", textNode(provider))
	o.put("id", textNode(id))
	d.object(path, o, reflect.ValueOf(m).Elem())
}

// fromText reads the name of a built-in tool.
func (t *Tool) fromText(d *decoder, path string, n *node) {
	if t.Name = n.text; t.Name == "" {
		d.fault(path, "is empty", "use "+OneOf(d.Tools))
	}
}
