package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// jsonObject is a JSON object that keeps the order of its members. Other JSON values are
// []any, string, json.Number, bool and nil.
type jsonObject struct {
	names  []string
	values map[string]any
}

func (o *jsonObject) get(name string) any {
	if o == nil {
		return nil
	}
	return o.values[name]
}

// ordered decodes a JSON text. Objects become *jsonObject.
func ordered(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	v, err := orderedValue(dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more follows the JSON value")
	}
	return v, nil
}

func orderedValue(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := orderedValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	case json.Delim('{'):
		o := &jsonObject{values: map[string]any{}}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := orderedValue(dec)
			if err != nil {
				return nil, err
			}
			if _, twice := o.values[name.(string)]; twice {
				return nil, fmt.Errorf("the member %s appears twice", name)
			}
			o.names = append(o.names, name.(string))
			o.values[name.(string)] = v
		}
		_, err = dec.Token()
		return o, err
	}
	return token, nil
}

// brief formats a value for a difference. Long texts are cut; objects show only their
// members, arrays only their length.
func brief(v any) string {
	switch v := v.(type) {
	case *jsonObject:
		return "{" + strings.Join(v.names, ", ") + "}"
	case []any:
		return fmt.Sprintf("[%d]", len(v))
	case string:
		if r := []rune(v); len(r) > 100 {
			v = string(r[:100]) + "…"
		}
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v) // a string can always be encoded
		return strings.TrimSuffix(b.String(), "\n")
	case nil:
		return "null"
	}
	return fmt.Sprint(v)
}
