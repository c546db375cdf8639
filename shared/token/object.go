package token

import (
	"errors"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// object is a JSON object of a token or key set: member name → the value's JSON text,
// exactly as it was sent. It is read once and strictly, so that no second reader can
// see another token in the same bytes. encoding/json alone would allow that: it keeps
// the last of two equal names, matches names in any case, and replaces invalid text.
type object map[string]string

// tokenJSON allows large numbers and deep nesting, as encoding/json does, because a
// token may have claims that are not read here. maxToken bounds the work.
var tokenJSON = strictjson.Options{MaxDepth: 9_999, AnyNumber: true}

// parseObject refuses all text that strictjson refuses, and two members of one name.
// RFC 7515 section 4 (header) and RFC 7519 section 4 (claims) forbid to write these,
// and leave a reader the choice between refusing them and keeping the last. Only the
// top level is searched for equal names: nothing below it is read by name.
func parseObject(data []byte) (object, error) {
	if strictjson.Check(data, tokenJSON) != nil {
		return nil, errors.New("not valid JSON")
	}
	root := strictjson.Root(string(data))
	if root.Raw[0] != '{' {
		return nil, errors.New("must be a json object")
	}
	o := object{}
	for name, value := range root.Members() {
		if _, twice := o[name]; twice {
			return nil, errors.New("two members of one name")
		}
		o[name] = value.Raw
	}
	return o, nil
}

// text returns the string of a member. An absent member and null are "". It is false
// when the value is of another type.
func (o object) text(name string) (string, bool) {
	raw := o[name]
	if raw == "" || raw == "null" {
		return "", true
	}
	return strictjson.Value{Raw: raw}.Text()
}

// list returns the strings of a member. One string is a list of one, as RFC 7519
// section 4.1.3 has it for aud. A list with anything else in it, and any other type,
// is nil.
func (o object) list(name string) []string {
	value := strictjson.Value{Raw: o[name]}
	if value.Raw == "" {
		return nil
	}
	if s, ok := value.Text(); ok {
		return []string{s}
	}
	return stringsIn(value)
}

// stringsIn returns the elements of a list of strings, and nil for any other value: half
// of a list of scopes would be a guess.
func stringsIn(value strictjson.Value) []string {
	if value.Raw[0] != '[' {
		return nil
	}
	list := make([]string, 0, strings.Count(value.Raw, ",")+1)
	for element := range value.Elements() {
		s, ok := element.Text()
		if !ok {
			return nil
		}
		list = append(list, s)
	}
	return list
}
