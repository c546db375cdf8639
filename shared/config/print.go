package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// MarshalJSON implements json.Marshaler. It writes the settings that are in force, defaults included,
// under the names of keyway.yaml and with secrets masked. The result is for people to read. Parse
// cannot read it back, because the secrets are missing.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	encode(reflect.ValueOf(c)).write(&b)
	return b.Bytes(), nil
}

// String returns the JSON of MarshalJSON, indented. Package fmt uses it for %v and %+v.
func (c Config) String() string { return string(encode(reflect.ValueOf(c)).indented()) }

// encode returns v as a node. Zero fields without a default are left out.
func encode(v reflect.Value) *node {
	switch x := v.Interface().(type) {
	case Secret, URL, netip.Prefix:
		return textNode(fmt.Sprint(x))
	case time.Duration:
		return textNode(short(x))
	case []ScopeMapping:
		return encodeMappings(x)
	case Key:
		if x.isText() {
			return textNode(mask)
		}
	case ClaimSource:
		if x.Claim != "" && x.Split == nil {
			return textNode(x.Claim)
		}
	case Sources:
		if len(x) == 1 {
			return encode(reflect.ValueOf(x[0]))
		}
	case Texts:
		if len(x) == 1 {
			return textNode(x[0])
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
		n.kind = objectKind
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			n.put(key.String(), encode(v.MapIndex(key)))
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

// encodeFields adds the fields of a struct to n. A zero field with a default stays: the operator set it
// to that value, such as false.
func encodeFields(n *node, v reflect.Value) {
	n.kind = objectKind
	for f, field := range v.Fields() {
		name := f.Tag.Get("json")
		_, hasDefault := f.Tag.Lookup("default")
		if name == "-" || field.IsZero() && !hasDefault {
			continue
		}
		n.put(name, encode(field))
	}
}

// encodeMappings returns scope mappings as the object that they are in the file, in their order.
func encodeMappings(all []ScopeMapping) *node {
	n := &node{kind: objectKind}
	for _, m := range all {
		n.put(m.Method+" "+m.Pattern, encode(reflect.ValueOf(m.Scopes)))
	}
	return n
}

// short formats a duration as an operator would write it: 10m instead of 10m0s.
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
