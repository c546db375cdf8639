package input

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// body reads a JSON body into v, the field that was tagged body: a struct, or a
// pointer to one when the body may be absent.
func (in *reader) body(w http.ResponseWriter, r *http.Request, v reflect.Value) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return unreadable(err)
	}
	optional := v.Kind() == reflect.Pointer
	if len(data) == 0 {
		if !optional {
			in.absent(v.Type())
		}
		return nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		in.notAnObject(v, short(string(data)))
		return nil
	}
	if !utf8.Valid(data) {
		return fault.Public(fault.Invalid, "There was an error parsing the body", nil)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // Python leaves out the mark of UTF-8
	if e := strictjson.Check(data, strictjson.Options{}); e != nil {
		at := utf8.RuneCount(data[:e.Offset]) // Python counts characters
		in.complain("json_invalid", "JSON decode error", struct{}{}, fault.Members{{Name: "error", Value: e.Text}}, "body", at)
		return nil
	}
	if optional && string(bytes.TrimSpace(data)) == "null" {
		return nil
	}
	if optional {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	in.object(data, v)
	return nil
}

// isJSON reports whether FastAPI reads JSON from a body of this content type.
func isJSON(contentType string) bool {
	media, _, _ := mime.ParseMediaType(contentType)
	subtype, ok := strings.CutPrefix(media, "application/")
	return ok && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}

// absent complains of a body that isn't there; of one that only wraps a field
// (embed) FastAPI misses the field.
func (in *reader) absent(t reflect.Type) {
	if name, ok := embedded(t); ok {
		in.faults = append(in.faults, fault.Missing("body", name))
		return
	}
	in.faults = append(in.faults, fault.Missing("body"))
}

func embedded(t reflect.Type) (name string, ok bool) {
	if t.Kind() != reflect.Struct || t.NumField() != 1 || t.Field(0).Tag.Get("embed") == "" {
		return "", false
	}
	return t.Field(0).Tag.Get("json"), true
}

func (in *reader) notAnObject(v reflect.Value, value any) {
	if _, ok := embedded(v.Type()); ok {
		in.absent(v.Type())
		return
	}
	in.complain("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", value, nil, "body")
}

// object fills the struct v from a JSON object that check has passed. Of two equal
// names the last counts, as in Python; unknown ones are left alone.
func (in *reader) object(data []byte, v reflect.Value) {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil || members == nil {
		in.notAnObject(v, echo(data))
		return
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
		case ok:
			in.wrongType(v.Field(i).Type(), raw, name)
		default:
			missing := fault.Missing("body", name)
			if f.Tag.Get("embed") == "" {
				missing.Input = echo(data)
			}
			in.faults = append(in.faults, missing)
		}
	}
}

// member reads one member; null was dealt with.
func (in *reader) member(v reflect.Value, tag reflect.StructTag, raw json.RawMessage, name string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	ok := false
	switch {
	case v.Type() == reflect.TypeFor[Object]():
		if ok = raw[0] == '{'; ok && strictjson.HasNUL(raw) {
			in.complain("value_error", "Value error, a NUL character can't be stored", nil, nil, "body", name)
		} else if ok {
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
	default:
		panic("input: no rule for " + v.Type().String())
	}
	if !ok {
		in.wrongType(v.Type(), raw, name)
	}
}

// list reads a list of texts.
func (in *reader) list(v reflect.Value, tag reflect.StructTag, raw json.RawMessage, name string) {
	var elements []json.RawMessage
	_ = json.Unmarshal(raw, &elements) // check has passed it
	if least, _ := strconv.Atoi(tag.Get("minlen")); len(elements) < least {
		in.complain("too_short", fmt.Sprintf("List should have at least %d item after validation, not %d", least, len(elements)), echo(raw),
			fault.Members{{Name: "field_type", Value: "List"}, {Name: "min_length", Value: least}, {Name: "actual_length", Value: len(elements)}}, "body", name)
		return
	}
	texts := make([]string, len(elements))
	for i, e := range elements {
		if e[0] != '"' && tag.Get("enum") != "" {
			in.notInEnum(echo(e), tag.Get("enum"), "body", name, i)
			continue
		}
		if e[0] != '"' {
			in.complain("string_type", "Input should be a valid string", echo(e), nil, "body", name, i)
			continue
		}
		texts[i] = in.jsonText(reflect.StructTag(`enum:"`+tag.Get("enum")+`" maxbytes:"`+tag.Get("maxbytes")+`"`), e, "body", name, i)
	}
	v.Set(reflect.ValueOf(texts))
}

// jsonText decodes a JSON string and holds it to minlen and maxlen.
func (in *reader) jsonText(tag reflect.StructTag, raw json.RawMessage, loc ...any) string {
	var s string
	_ = json.Unmarshal(raw, &s) // check has passed it
	n := utf8.RuneCountInString(s)
	least, _ := strconv.Atoi(tag.Get("minlen"))
	most, _ := strconv.Atoi(tag.Get("maxlen"))
	switch {
	case n < least:
		in.complain("string_too_short", "String should have at least "+plural(least, "character"), s, fault.Members{{Name: "min_length", Value: least}}, loc...)
	case most > 0 && n > most:
		in.complain("string_too_long", "String should have at most "+plural(most, "character"), echo(raw), fault.Members{{Name: "max_length", Value: most}}, loc...)
	default:
		return in.text(s, tag, loc...)
	}
	return ""
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

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
	}
	in.complain(kind, msg, echo(raw), nil, "body", name)
}

// echo and short show a caller what was sent, unless it is long.
func echo(raw json.RawMessage) any {
	if len(raw) > maxEcho {
		return nil
	}
	return raw
}

func short(text string) any {
	if len(text) > maxEcho {
		return nil
	}
	return text
}

const maxEcho = 1000

// ObjectFrom reads a JSON object that stands as text in a form's field; "" is nil.
// Its error names the field.
func ObjectFrom(text string, loc ...any) (Object, error) {
	if text == "" {
		return nil, nil
	}
	in := &reader{}
	switch e := strictjson.Check([]byte(text), strictjson.Options{}); {
	case e != nil:
		in.complain("json_invalid", "Invalid JSON: "+e.Text, nil, fault.Members{{Name: "error", Value: e.Text}}, loc...)
	case strings.TrimSpace(text)[0] != '{':
		in.complain("dict_type", "Input should be a valid dictionary", echo(json.RawMessage(text)), nil, loc...)
	case strictjson.HasNUL([]byte(text)):
		in.complain("value_error", "Value error, a NUL character can't be stored", nil, nil, loc...)
	default:
		return Object(text), nil
	}
	return nil, fault.Fields(in.faults...)
}
