package input

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// body reads a JSON body into v, the field that is tagged body: a struct, or a pointer to
// one if the body may be absent. A body of null is absent too.
//
// The order of the checks is FastAPI's: the content type decides first whether the body is
// JSON at all. Only then is it parsed, and after that its members are checked.
func (in *reader) body(w http.ResponseWriter, r *http.Request, v reflect.Value, tag reflect.StructTag) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(in.limits.Of(bound.Body))))
	if err != nil {
		return unreadable(err)
	}
	if v.Type() == reflect.TypeFor[Document]() {
		v.SetBytes(data)
		return nil
	}
	optional := v.Kind() == reflect.Pointer // see the package comment
	if len(data) == 0 {
		if !optional {
			in.missingBody(v.Type())
		}
		return nil
	}
	// To FastAPI, a body of another type is a text, which is no object.
	if tag.Get("media") == "" && !isJSON(r.Header.Get("Content-Type")) {
		in.notAnObject(v, short(string(data)))
		return nil
	}
	// Python fails to decode such a body before it parses it, and so FastAPI has no offset.
	if !utf8.Valid(data) {
		return fault.Public(fault.Invalid, "There was an error parsing the body", nil)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // Python ignores the byte order mark
	if e := strictjson.Check(data, strictjson.Options{}); e != nil {
		at := utf8.RuneCount(data[:e.Offset]) // Python counts characters
		ctx := fault.Members{{Name: "error", Value: e.Text}}
		in.reject("json_invalid", "JSON decode error", struct{}{}, ctx, "body", at)
		return nil
	}
	if optional && string(bytes.TrimSpace(data)) == "null" {
		return nil
	}
	if optional {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	in.object(data, v, tag.Get("closed") != "")
	return nil
}

// ReadObject fills the struct that into points to from a JSON object that came in another way than as the body of a
// request. The tags of the struct are those of a body, and the errors name the members as those of a body. An unknown
// member is an error, and so are two members of one name.
func ReadObject(text []byte, into any, limits bound.Limits) error {
	in := &reader{limits: limits}
	if e := strictjson.Check(text, strictjson.Options{}); !utf8.Valid(text) || e != nil {
		return fault.Public(fault.Invalid, "It is no JSON object", nil)
	}
	in.object(text, reflect.ValueOf(into).Elem(), true)
	return in.err()
}

// isJSON reports whether FastAPI parses a body of this content type as JSON:
// application/json, and application/*+json (RFC 6839 section 3.1).
func isJSON(contentType string) bool {
	media, _, _ := mime.ParseMediaType(contentType)
	subtype, ok := strings.CutPrefix(media, "application/")
	return ok && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}

// missingBody adds the error for a missing body. If the body only wraps one field (embed),
// FastAPI says that the field is missing.
func (in *reader) missingBody(t reflect.Type) {
	if name, ok := embedded(t); ok {
		in.add(fault.Missing("body", name))
		return
	}
	in.add(fault.Missing("body"))
}

// embedded returns the name of the one field of a body that FastAPI wraps in an object. A
// Python function with one parameter Body(embed=True) has such a body.
func embedded(t reflect.Type) (name string, ok bool) {
	if t.Kind() != reflect.Struct || t.NumField() != 1 || t.Field(0).Tag.Get("embed") == "" {
		return "", false
	}
	return t.Field(0).Tag.Get("json"), true
}

// notAnObject adds the error for a body that is something else than an object.
func (in *reader) notAnObject(v reflect.Value, value any) {
	if _, ok := embedded(v.Type()); ok {
		in.missingBody(v.Type())
		return
	}
	const msg = "Input should be a valid dictionary or object to extract fields from"
	in.reject("model_attributes_type", msg, value, nil, "body")
}

// object fills the struct v from a JSON text that strictjson accepts. Of two members of
// one name the last one counts, as in Python. Unknown members are ignored, as in FastAPI,
// unless the body is closed: then the first of them is an error, and so are two members of one name.
// A member of null is the same as an absent one, unless it is required: then its type is
// wrong. For a member that may be any JSON no type is, and null is the same as an absent one.
func (in *reader) object(data []byte, v reflect.Value, closed bool) {
	root := strictjson.Root(string(data))
	if root.Raw[0] != '{' {
		in.notAnObject(v, echo(data))
		return
	}
	count := 0
	for range root.Members() {
		count++
	}
	if in.exceeds(bound.Members, count, "value_error", "body") {
		return
	}
	// A map of raw texts matches names exactly. Decoding into a struct would match them in
	// any case.
	members := make(map[string]json.RawMessage, count)
	for name, value := range root.Members() {
		members[name] = json.RawMessage(value.Raw)
	}
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		raw, ok := members[name]
		switch {
		case ok && string(raw) != "null":
			in.member(v.Field(i), f.Tag, raw, name)
		case f.Tag.Get("required") == "":
			if s, hasDefault := f.Tag.Lookup("default"); hasDefault { // of an integer
				v.Field(i).SetInt(in.integer(s, true, f.Tag, "body", name))
			}
		case ok && v.Field(i).Type() != reflect.TypeFor[JSON]():
			in.wrongType(v.Field(i).Type(), raw, name)
		default:
			// FastAPI shows the whole object in which the member is missing.
			missing := fault.Missing("body", name)
			if f.Tag.Get("embed") == "" {
				missing.Input = echo(data)
			}
			in.add(missing)
		}
		delete(members, name)
	}
	if !closed {
		return
	}
	if name, ok := doubled(data); ok {
		in.reject("value_error", "Value error, two members have this name", nil, nil, "body", name)
	}
	if len(members) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(members)))
		loc := []any{"body"}
		if len(first) <= maxEcho {
			loc = append(loc, first)
		}
		in.reject("extra_forbidden", "Extra inputs are not permitted", nil, nil, loc...)
	}
}

// doubled returns the name of a member that an object has twice, if it is short enough to be repeated in an error.
func doubled(object []byte) (name string, ok bool) {
	seen, members := map[string]bool{}, json.NewDecoder(bytes.NewReader(object))
	_, _ = members.Token() // the brace; strictjson has accepted the text
	for members.More() {
		token, _ := members.Token()
		name, _ := token.(string)
		var value json.RawMessage
		_ = members.Decode(&value)
		if seen[name] && len(name) <= maxEcho {
			return name, true
		}
		seen[name] = true
	}
	return "", false
}

// member reads one member that is not null. The first byte of its text shows its JSON type,
// which must be the field's.
func (in *reader) member(v reflect.Value, tag reflect.StructTag, raw json.RawMessage, name string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	ok := false
	switch {
	case v.Type() == reflect.TypeFor[Object]():
		// An object is stored as it was sent, so that it must be storable.
		if ok = raw[0] == '{'; ok && strictjson.HasNUL(raw) {
			in.reject("value_error", "Value error, a NUL character can't be stored", nil, nil, "body", name)
		} else if ok && !in.exceedsTag(tag, len(raw), "value_error", "body", name) {
			v.SetBytes(raw)
		}
	case v.Type() == reflect.TypeFor[JSON]():
		if ok = true; !in.exceedsTag(tag, len(raw), "value_error", "body", name) {
			v.SetBytes(raw)
		}
	case v.Kind() == reflect.Slice:
		if ok = raw[0] == '['; ok {
			in.list(v, tag, raw, name)
		}
	case v.Kind() == reflect.String:
		if ok = raw[0] == '"'; ok {
			v.SetString(in.jsonText(tag, raw, "body", name))
		}
	case v.Kind() == reflect.Bool:
		if ok = raw[0] == 't' || raw[0] == 'f'; ok {
			v.SetBool(raw[0] == 't')
		}
	case v.Kind() == reflect.Int64:
		if ok = raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9'; ok {
			v.SetInt(in.integer(string(raw), true, tag, "body", name))
		}
	default:
		panic("input: no rule for " + v.Type().String())
	}
	if !ok {
		in.wrongType(v.Type(), raw, name)
	}
}

// list reads a list of texts or of objects. It reports each wrong element with its index, as pydantic
// does, but a list that is too short only once.
func (in *reader) list(v reflect.Value, tag reflect.StructTag, raw json.RawMessage, name string) {
	// The elements are counted before memory is allocated for them.
	root, count := strictjson.Root(string(raw)), 0
	for range root.Elements() {
		count++
	}
	if in.exceedsTag(tag, count, "too_long", "body", name) {
		return
	}
	if least, _ := strconv.Atoi(tag.Get("minlen")); count < least {
		msg := fmt.Sprintf("List should have at least %d item after validation, not %d", least, count)
		in.reject("too_short", msg, echo(raw), fault.Members{
			{Name: "field_type", Value: "List"}, {Name: "min_length", Value: least},
			{Name: "actual_length", Value: count},
		}, "body", name)
		return
	}
	if v.Type().Elem().Kind() == reflect.Struct {
		in.objects(v, tag, root, count, name)
		return
	}
	texts, i := make([]string, count), -1
	for element := range root.Elements() {
		e := json.RawMessage(element.Raw)
		i++
		if e[0] != '"' && tag.Get("enum") != "" {
			in.notInEnum(echo(e), tag.Get("enum"), "body", name, i)
			continue
		}
		if e[0] != '"' {
			in.reject("string_type", "Input should be a valid string", echo(e), nil, "body", name, i)
			continue
		}
		texts[i] = in.jsonText(elementTag(tag), e, "body", name, i)
	}
	v.Set(reflect.ValueOf(texts))
}

// objects reads a list of objects whose members are texts or objects. Unknown members are ignored, unless the list is
// closed: then one of them is an error.
func (in *reader) objects(v reflect.Value, list reflect.StructTag, root strictjson.Value, count int, name string) {
	v.Set(reflect.MakeSlice(v.Type(), count, count))
	t, i := v.Type().Elem(), -1
	for element := range root.Elements() {
		i++
		if element.Raw[0] != '{' {
			const msg = "Input should be a valid dictionary or object to extract fields from"
			in.reject("model_attributes_type", msg, echo(json.RawMessage(element.Raw)), nil, "body", name, i)
			continue
		}
		members := map[string]json.RawMessage{}
		for member, value := range element.Members() {
			if hasMember(t, member) {
				members[member] = json.RawMessage(value.Raw)
				continue
			}
			if list.Get("closed") == "" {
				continue
			}
			loc := []any{"body", name, i}
			if len(member) <= maxEcho {
				loc = append(loc, member)
			}
			in.reject("extra_forbidden", "Extra inputs are not permitted", nil, nil, loc...)
		}
		for f := range t.NumField() {
			tag := t.Field(f).Tag
			member := tag.Get("json")
			switch raw, ok := members[member]; {
			case ok && t.Field(f).Type == reflect.TypeFor[Object]():
				in.member(v.Index(i).Field(f), tag, raw, name+"."+member)
			case ok && raw[0] == '"':
				text, to := in.jsonText(tag, raw, "body", name, i, member), v.Index(i).Field(f)
				if to.Kind() == reflect.Pointer {
					to.Set(reflect.ValueOf(&text))
				} else {
					to.SetString(text)
				}
			case ok:
				in.reject("string_type", "Input should be a valid string", echo(raw), nil, "body", name, i, member)
			case tag.Get("required") != "":
				missing := fault.Missing("body", name, i, member)
				missing.Input = echo(json.RawMessage(element.Raw))
				in.add(missing)
			}
		}
	}
}

// hasMember reports whether a struct has a field for the member of an object.
func hasMember(t reflect.Type, member string) bool {
	for f := range t.NumField() {
		if t.Field(f).Tag.Get("json") == member {
			return true
		}
	}
	return false
}

// jsonText decodes a JSON string and checks minlen and maxlen, in characters as in Python.
func (in *reader) jsonText(tag reflect.StructTag, raw json.RawMessage, loc ...any) string {
	var s string
	_ = json.Unmarshal(raw, &s) // strictjson has accepted it
	n := utf8.RuneCountInString(s)
	least, _ := strconv.Atoi(tag.Get("minlen"))
	most, _ := strconv.Atoi(tag.Get("maxlen"))
	switch {
	case n < least:
		in.reject("string_too_short", "String should have at least "+plural(least, "character"), s,
			fault.Members{{Name: "min_length", Value: least}}, loc...)
	case most > 0 && n > most:
		in.reject("string_too_long", "String should have at most "+plural(most, "character"), echo(raw),
			fault.Members{{Name: "max_length", Value: most}}, loc...)
	default:
		return in.text(s, tag, loc...)
	}
	return ""
}

// plural returns the number and the word, as in pydantic's messages.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// wrongType adds pydantic's error for a member of another type than the field. pydantic has
// a name and a message for each type.
func (in *reader) wrongType(t reflect.Type, raw json.RawMessage, name string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	kind, msg := "string_type", "Input should be a valid string"
	switch {
	case t == reflect.TypeFor[Object]():
		kind, msg = "dict_type", "Input should be a valid dictionary"
	case t.Kind() == reflect.Slice:
		kind, msg = "list_type", "Input should be a valid list"
	case t.Kind() == reflect.Bool:
		kind, msg = "bool_type", "Input should be a valid boolean"
	case t.Kind() == reflect.Int64:
		kind, msg = "int_type", "Input should be a valid integer"
	}
	in.reject(kind, msg, echo(raw), nil, "body", name)
}

// echo returns the input for the error, as FastAPI does, unless it is long: an error must
// not be larger than the request that caused it.
func echo(raw json.RawMessage) any {
	if len(raw) > maxEcho {
		return nil
	}
	return raw
}

// short is echo for text that is not JSON. The result is any, because nil becomes null in
// the answer.
func short(text string) any {
	if len(text) > maxEcho {
		return nil
	}
	return text
}

// maxEcho is how many bytes of an input an error repeats.
const maxEcho = 1000

// ObjectFrom parses a JSON object in the text of a form's field. It returns nil for an empty
// text. loc is where the field is, and becomes part of the error, which is
// fault.Unprocessable.
func ObjectFrom(text string, loc ...any) (Object, error) {
	if text == "" {
		return nil, nil
	}
	in := &reader{}
	// The checks and their texts are pydantic's for the type Json[dict].
	switch e := strictjson.Check([]byte(text), strictjson.Options{}); {
	case e != nil:
		in.reject("json_invalid", "Invalid JSON: "+e.Text, nil,
			fault.Members{{Name: "error", Value: e.Text}}, loc...)
	case strings.TrimSpace(text)[0] != '{':
		in.reject("dict_type", "Input should be a valid dictionary", echo(json.RawMessage(text)), nil, loc...)
	case strictjson.HasNUL([]byte(text)):
		in.reject("value_error", "Value error, a NUL character can't be stored", nil, nil, loc...)
	default:
		return Object(text), nil
	}
	return nil, in.err()
}
