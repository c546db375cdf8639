package input

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/pgvalue"
)

// values fills fields from named texts. It converts the texts into numbers and booleans as pydantic does. loc is
// FastAPI's name for the place of the texts: "query", "header" or "body".
func (in *reader) values(v reflect.Value, fields []field, values url.Values, loc string) {
	for i := range fields {
		in.value(v.FieldByIndex(fields[i].index), &fields[i], values[fields[i].name], loc)
	}
}

// value reads one field. If a name occurs several times, the last value counts, as in
// Starlette. A list contains all values.
func (in *reader) value(v reflect.Value, f *field, given []string, loc string) {
	tag, name := f.tag, f.name
	if v.Kind() == reflect.Slice { // of strings
		if in.exceedsTag(tag, len(given), "too_long", loc, name) {
			return
		}
		for i, s := range given {
			v.Set(reflect.Append(v, reflect.ValueOf(in.text(s, elementTag(tag), loc, name, i))))
		}
		return
	}
	s, ok := "", len(given) > 0
	if ok {
		s = given[len(given)-1]
	}
	if loc == "header" && ok && !in.header(s, given, tag, name) {
		return
	}
	if s == "" && f.required { // to FastAPI, an empty form field is missing
		in.add(fault.Missing(loc, name))
		return
	}
	// An empty value is the same as an absent one in a form, and for a text without an enum.
	// Elsewhere it is a wrong value: there is no empty number and no empty word.
	if !ok || s == "" && (loc == "body" || v.Kind() == reflect.String && !f.enum) {
		if !f.hasPreset {
			return
		}
		s = f.preset
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(in.boolean(s, loc, name))
	case reflect.Int, reflect.Int64:
		v.SetInt(in.integer(s, v.Type().Bits() == 64 && v.Kind() == reflect.Int64, tag, loc, name))
	case reflect.String:
		v.SetString(in.text(s, tag, loc, name))
	default:
		panic("input: no rule for " + v.Type().String()) // a mistake in the struct, found by its first test
	}
}

// header reports whether a header can be read, and adds an error if not. One that the sender has set by mistake, from
// a variable without a value, would otherwise count as absent. Two that differ could be read differently by a proxy.
func (in *reader) header(s string, given []string, tag reflect.StructTag, name string) bool {
	switch {
	case len(given) > 1:
		in.reject("value_error", "Value error, the header was sent more than once", nil, nil, "header", name)
	case s == "" && tag.Get("minlen") != "":
		in.reject("string_too_short", "String should have at least 1 character", s,
			fault.Members{{Name: "min_length", Value: 1}}, "header", name)
	default:
		return true
	}
	return false
}

// text returns s if PostgreSQL can store it (see pgvalue.ValidText), it is not too long and
// it is one of the enum. Otherwise it adds an error and returns "".
func (in *reader) text(s string, tag reflect.StructTag, loc ...any) string {
	switch {
	case !utf8.ValidString(s):
		const msg = "Input should be a valid string, unable to parse raw data as a unicode string"
		in.reject("string_unicode", msg, nil, nil, loc...)
	case !pgvalue.ValidText(s): // the UTF-8 is valid, so that s contains NUL
		in.reject("value_error", "Value error, a NUL character can't be stored", short(s), nil, loc...)
	case in.exceedsTag(tag, len(s), "string_too_long", loc...):
	case tag.Get("newid") != "" && s != "" && !IsNewID(s):
		in.reject("value_error", "Value error, "+NewID, short(s), nil, loc...)
	case tag.Get("unsupported") != "" && !means(s, tag.Get("means")):
		in.reject("value_error", "Value error, not supported: "+tag.Get("unsupported"), short(s), nil, loc...)
	case tag.Get("enum") != "":
		return in.enum(s, tag.Get("enum"), loc...)
	default:
		return s
	}
	return ""
}

// exceedsTag is exceeds for the bound that a tag names, if it names one.
func (in *reader) exceedsTag(tag reflect.StructTag, sent int, kind string, loc ...any) bool {
	name := tag.Get("bound")
	return name != "" && in.exceeds(bound.Named(name), sent, kind, loc...)
}

// elementTag returns the tag for each element of a list.
func elementTag(list reflect.StructTag) reflect.StructTag {
	return reflect.StructTag(`enum:"` + list.Get("enum") + `" bound:"` + list.Get("each") + `"`)
}

// NewID says which texts IsNewID rejects, in errors and in the OpenAPI document.
const NewID = `A new id can't be . or .., contain / \ ? # % or a control character, or begin or end with a space.`

// IsNewID reports whether a caller can choose this text as the id of something that a path will
// name. Many clients put ids into a path as they are: then a slash or a question mark ends
// the id, and the request reaches what the part before it names. URL parsers remove "." and
// "..", control characters and outer spaces, and read a backslash as a slash (URL standard,
// section 4.4). A percent sign would be decoded a second time.
func IsNewID(s string) bool {
	isBad := func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`/\?#%`, r) }
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, isBad) && strings.Trim(s, " ") == s
}

// means reports whether the text of a field that is not supported asks for nothing: if it is
// empty JSON, or one of the words, which are separated by commas.
func means(s, words string) bool {
	s = strings.TrimSpace(s)
	switch s {
	case "", "null", "{}", "[]":
		return true
	}
	return slices.Contains(strings.Split(words, ","), strings.ToLower(s))
}

// enum returns s if it is one of the words, which are separated by commas.
func (in *reader) enum(s, words string, loc ...any) string {
	if slices.Contains(strings.Split(words, ","), s) {
		return s
	}
	in.notInEnum(short(s), words, loc...)
	return ""
}

// notInEnum adds pydantic's error, which lists the allowed words in quotes, with "or" before
// the last one.
func (in *reader) notInEnum(value any, words string, loc ...any) {
	list := strings.Split(words, ",")
	quoted := make([]string, len(list))
	for i, w := range list {
		quoted[i] = "'" + w + "'"
	}
	expected := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	in.reject("enum", "Input should be "+expected, value, fault.Members{{Name: "expected", Value: expected}}, loc...)
}

// boolean accepts the words that pydantic accepts, in any case. Its result is false after an
// error.
func (in *reader) boolean(s string, loc ...any) bool {
	switch strings.ToLower(s) {
	case "1", "true", "t", "yes", "y", "on":
		return true
	case "0", "false", "f", "no", "n", "off":
		return false
	}
	const msg = "Input should be a valid boolean, unable to interpret input"
	in.reject("bool_parsing", msg, short(s), nil, loc...)
	return false
}

// integer parses a number and checks the tags min and max. A number for an int has 32
// bits: a larger page or limit is a mistake. An int64 has 64.
func (in *reader) integer(s string, wide bool, tag reflect.StructTag, loc ...any) int64 {
	bits := 32
	if wide {
		bits = 64
	}
	// Python's int() ignores white space too. Its other spellings, such as 1_0, are refused.
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, bits)
	least, bounded := tag.Lookup("min")
	min, _ := strconv.ParseInt(least, 10, 64)
	switch {
	case err != nil:
		const msg = "Input should be a valid integer, unable to parse string as an integer"
		in.reject("int_parsing", msg, short(s), nil, loc...)
	case bounded && n < min:
		in.reject("greater_than_equal", fmt.Sprintf("Input should be greater than or equal to %d", min), short(s),
			fault.Members{{Name: "ge", Value: min}}, loc...)
	default:
		in.atMost(n, s, tag, loc...)
	}
	return n
}

// atMost checks the tag max. The error has the shape of pydantic's for the constraint le
// (less than or equal).
func (in *reader) atMost(n int64, given string, tag reflect.StructTag, loc ...any) {
	text, bounded := tag.Lookup("max")
	most, _ := strconv.ParseInt(text, 10, 64)
	if bounded && n > most {
		in.reject("less_than_equal", fmt.Sprintf("Input should be less than or equal to %d", most), short(given),
			fault.Members{{Name: "le", Value: most}}, loc...)
	}
}
