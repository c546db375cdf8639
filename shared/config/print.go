package config

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// MarshalJSON writes what is in force, defaults included, in the words of
// keyway.yaml and with secrets masked. It is for people: it does not load again.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	encode(reflect.ValueOf(c)).write(&b)
	return b.Bytes(), nil
}

// String is MarshalJSON's text, indented; so are %v and %+v.
func (c Config) String() string { return string(encode(reflect.ValueOf(c)).indented()) }

// encode leaves out what was not set and has no default: texts, numbers and lists
// that are empty.
func encode(v reflect.Value) *node {
	switch x := v.Interface().(type) {
	case Secret, URL, netip.Prefix:
		return textNode(fmt.Sprint(x))
	case time.Duration:
		return textNode(short(x))
	case []ScopeMapping:
		return encodeMappings(x)
	case Key:
		if x.Literal != "" {
			return textNode(mask)
		}
	case Tool:
		if x.Name != "" {
			return textNode(x.Name)
		}
	}
	n := &node{}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Slice:
		n.kind = listKind
		for _, e := range v.Seq2() {
			n.sub = append(n.sub, encode(e))
		}
	case reflect.Map:
		m := v.Interface().(map[string]Secret)
		for _, key := range slices.Sorted(maps.Keys(m)) {
			n.put(key, textNode(m[key].String()))
		}
	case reflect.Struct:
		encodeFields(n, v)
	case reflect.String:
		return textNode(v.String())
	case reflect.Bool:
		return &node{kind: boolKind, text: fmt.Sprint(v)}
	default:
		return &node{kind: numberKind, text: fmt.Sprint(v)}
	}
	return n
}

func encodeFields(n *node, v reflect.Value) {
	n.kind = objectKind
	for f, field := range v.Fields() {
		name := f.Tag.Get("json")
		_, falls := f.Tag.Lookup("default")
		if name == "-" || field.IsZero() && !falls {
			continue
		}
		n.put(name, encode(field))
	}
}

func encodeMappings(all []ScopeMapping) *node {
	n := &node{kind: objectKind}
	for _, m := range all {
		n.put(m.Method+" "+m.Pattern, encode(reflect.ValueOf(m.Scopes)))
	}
	return n
}

// short is 10m for 10m0s, as people write it.
func short(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
