package config

import (
	"cmp"
	"reflect"
	"strings"
)

// WithDefaults returns a with the defaults of keyway.yaml in the fields that are zero: Name becomes
// the ID, and every other field gets the default of its struct tag. A program that declares agents
// in Go calls it, so that such an agent behaves like one of the file. Model and Tools are left as
// they are.
func (a Agent) WithDefaults() Agent {
	a.Name = cmp.Or(a.Name, a.ID)
	d := &decoder{}
	for f, v := range reflect.ValueOf(&a).Elem().Fields() {
		if text, ok := f.Tag.Lookup("default"); ok && v.IsZero() {
			d.value(f.Name, defaultNode(f.Type, text), v, f.Tag)
		}
	}
	return a
}

// Unsupported returns an error for each setting of the agent that keyway.yaml may have but that this version does not
// enforce. A configuration with one of them must be rejected: an operator must not rely on a limit that has no effect.
// at is the agent's own path, such as agents[1].
func Unsupported(at string, a Agent) (faults []Fault) {
	for _, setting := range []struct {
		path string
		set  bool
	}{
		{"update_memory_on_run", a.UpdateMemoryOnRun},
	} {
		if setting.set {
			faults = append(faults, Fault{
				Path: Member(at, setting.path), Text: "is not part of this version", Remedy: "leave it out",
			})
		}
	}
	return faults
}

// fromText reads the short form of a model, "provider:id". Only the first colon separates, because
// the ids of Bedrock contain colons themselves. Both parts then go through the same checks as the
// fields of the long form.
func (m *Model) fromText(d *decoder, path string, n *node) {
	provider, id, ok := strings.Cut(n.text, ":")
	if !ok {
		d.fault(path, "is "+seen(path, n), "write provider:id, such as openai:gpt-4o")
		return
	}
	o := &node{}
	for _, part := range [...][2]string{{"provider", provider}, {"id", id}} {
		sub := textNode(part[1])
		if n.hasVariable { // a message must not show its value
			sub.raw, sub.hasVariable = n.raw, true
		}
		o.put(part[0], sub)
	}
	d.object(path, o, reflect.ValueOf(m).Elem())
}

// fromText reads the name of a tool. Whether such a tool exists is checked later, by checkTools.
func (t *Tool) fromText(d *decoder, path string, n *node) {
	if t.Name = n.text; t.Name == "" {
		d.fault(path, "is empty", "use "+OneOf(d.Tools))
	}
}
