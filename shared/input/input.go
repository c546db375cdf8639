// Package input reads a request into a struct. The tags of the struct say what the
// request may contain: query, headers, form and JSON body. If the request doesn't fit,
// the error has FastAPI's shape and names all wrong inputs at once. The package knows no
// route and no caller. The OpenAPI document is generated from the same tags.
package input

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
)

// Object is a JSON object exactly as it was sent. It is not decoded, because the program
// only stores it and returns it: decoding would change numbers and the order of members.
// PostgreSQL's jsonb can store it.
type Object []byte

// MarshalJSON writes the object as it is, and an absent one as null.
func (o Object) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("null"), nil
	}
	return o, nil
}

// Document is a whole body as it was sent, with at most as many bytes as a body may have. Nothing else is checked.
type Document []byte

// JSON is any JSON value exactly as it was sent, for a handler that reads it itself. PostgreSQL's jsonb may refuse it.
type JSON []byte

// MarshalJSON writes the value as it is, and an absent one as null.
func (j JSON) MarshalJSON() ([]byte, error) { return Object(j).MarshalJSON() }

// File is an uploaded file.
type File struct {
	// Name is the caller's name for the file. It must not be used as a path.
	Name string
	// Type is the media type that the caller sent, without parameters.
	Type    string
	Content []byte
}

// Read fills the struct that into points to. The error is fault.Unprocessable with all
// wrong inputs, fault.Invalid for a body that can't be parsed, or fault.TooLarge. After an
// error the struct may be filled in part.
//
// A field is read from the place that its tag names, under that name:
//
//	query:"limit"   the query string
//	header:"X-Key"  a header, in its canonical spelling
//	form:"message"  a multipart or urlencoded body
//	json:"topics"   a JSON body, in the struct of a field tagged body:"json"
//
// Further tags say what it may contain:
//
//	required:"true"    it must be present; in a query or form it must not be empty either
//	default:"20"       its value if it is absent; otherwise that is the zero value; in JSON for an integer only
//	min:"1" max:"100"  the range of an integer
//	minlen:"1"         the fewest characters of a JSON text, or elements of a list; a header must not be empty
//	maxlen:"50"        the most characters of a JSON text
//	bound:"message"    the name of a bound, see package bound: the most bytes of a text or an object,
//	                   the most elements of a list, or the most files
//	each:"topic"       the bound of each element of a list of texts
//	enum:"asc,desc"    the words that are allowed
//	newid:"true"       a text that IsNewID accepts
//	unsupported:"why"  nothing: a value is an error with this text, unless it is empty JSON,
//	means:"false"      or one of these words
//	media:"any"        with body:"json": the Content-Type doesn't matter; otherwise it must be that of JSON
//	closed:"true"      with body:"json": an unknown member is an error; otherwise it is ignored
//	                   with a list of objects: the same for the members of each
//	embed:"true"       the only member of a body, which FastAPI wraps in an object
//
// The body may be a Document instead of a struct.
//
// The type of a field is bool, int, int64, string, []string, a pointer to one of these (nil
// if the input is absent), []File in a form, Object or JSON in a body, or in a body a list of structs
// with texts and Objects. Any other type panics,
// so that the first test of a struct finds it. The fields of an embedded struct count as
// fields of the struct itself. A body that may be absent is a pointer to a struct.
//
// testdata/fastapi.json contains FastAPI's answers to many requests, with which the tests
// compare. Text that PostgreSQL can't store (NUL, invalid UTF-8, half surrogate pairs) is
// an error here, so that no later part of the program has to handle it.
func Read(w http.ResponseWriter, r *http.Request, into any, limits bound.Limits) error {
	v := reflect.ValueOf(into).Elem()
	in := &reader{limits: limits}
	places := placesOf(v.Type())
	if len(places.query) > 0 {
		in.query(v, places.query, r.URL.RawQuery)
	}
	in.values(v, places.header, url.Values(r.Header), "header")
	var err error
	switch {
	case places.hasForm:
		err = in.form(w, r, v, places.form)
	case places.body != nil:
		err = in.body(w, r, v.FieldByIndex(places.body), v.Type().FieldByIndex(places.body).Tag)
	}
	if err != nil {
		return err
	}
	return in.err()
}

// reader collects the errors in one request.
type reader struct {
	limits bound.Limits
	// faults are the first errors, and total is the number of all. A request may be wrong in a million places.
	faults []fault.Field
	total  int
}

// err returns the error with all wrong inputs, or nil without any. If there are more than the answer lists, the member
// total is the number of all.
func (in *reader) err() error {
	if in.total == 0 {
		return nil
	}
	e := fault.Fields(in.faults...)
	if in.total > len(in.faults) {
		e.Extra = fault.Members{{Name: "total", Value: in.total}}
	}
	return e
}

// add adds an error.
func (in *reader) add(f fault.Field) {
	if in.total++; in.total <= in.limits.Of(bound.Faults) {
		in.faults = append(in.faults, f)
	}
}

// reject adds an error. kind, msg and ctx are pydantic's, and loc is where the input is.
func (in *reader) reject(kind, msg string, value any, ctx fault.Members, loc ...any) {
	in.add(fault.Field{Type: kind, Loc: loc, Msg: msg, Input: value, Ctx: ctx})
}

// exceeds reports whether more was sent than a bound allows, and adds the error. kind is pydantic's.
func (in *reader) exceeds(b *bound.Bound, sent int, kind string, loc ...any) bool {
	most := in.limits.Of(b)
	if sent <= most {
		return false
	}
	ctx := fault.Members{{Name: "max_length", Value: most}, {Name: "actual_length", Value: sent}}
	if kind == "too_long" {
		ctx = append(fault.Members{{Name: "field_type", Value: "List"}}, ctx...)
	}
	in.reject(kind, b.Exceeded(most, sent), nil, ctx, loc...)
	return true
}

// query parses the query. As in Starlette, a percent sign without two hex digits is an
// ordinary character.
func (in *reader) query(v reflect.Value, fields []field, text string) {
	if in.exceeds(bound.Fields, countPairs(text), "value_error", "query") {
		return
	}
	values, _ := pairs(text)
	in.values(v, fields, values, "query")
}

// countPairs returns how many names and values pairs would collect at most, before it does.
func countPairs(text string) int {
	if text == "" {
		return 0
	}
	return strings.Count(text, "&") + 1
}

// pairs parses names and values as browsers write them (URL standard, section 5.1). A
// semicolon is an ordinary character: net/url treats it as an error. broken is true if
// some percent sign has no two hex digits.
func pairs(text string) (values url.Values, broken bool) {
	values = url.Values{}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := unescape(name)
		value, err2 := unescape(value)
		broken = broken || err != nil || err2 != nil
		values[name] = append(values[name], value)
	}
	return values, broken
}

// unescape decodes %XX and +. With an error it returns s itself.
func unescape(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	out, err := url.QueryUnescape(s)
	if err != nil {
		return s, err
	}
	return out, nil
}

// places are the parts of a request that a struct is read from, by the tags of its fields and of the structs embedded
// in it.
type places struct {
	// query, header and form are the fields that are read from there.
	query, header, form []field
	// hasForm is whether the struct has a form, also one with files only.
	hasForm bool
	body    []int // index of the field tagged body
}

// field is one field of a struct, with the parts of its tag that each request needs.
type field struct {
	index []int
	name  string
	tag   reflect.StructTag
	// required and enum are whether the tag has these, and preset is its default.
	required, enum, hasPreset bool
	preset                    string
}

// known are the places of the structs that were read before: to read the tags takes longer than to read a request.
var known sync.Map // reflect.Type → places

// placesOf returns the places of a struct. A struct has a form or a body, never both, because a request has one body.
func placesOf(t reflect.Type) places {
	if p, ok := known.Load(t); ok {
		return p.(places) //nolint:forcetypeassert // the map holds nothing else
	}
	p := places{}
	p.add(t, nil)
	known.Store(t, p)
	return p
}

// add adds the fields of a struct. parent is the index of the struct in the outer one.
func (p *places) add(t reflect.Type, parent []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		one := field{index: append(slices.Clone(parent), i), tag: f.Tag}
		one.required, one.enum = f.Tag.Get("required") != "", f.Tag.Get("enum") != ""
		one.preset, one.hasPreset = f.Tag.Lookup("default")
		at := func(place string) bool { one.name = f.Tag.Get(place); return one.name != "" }
		switch {
		case f.Anonymous:
			p.add(f.Type, one.index)
		case at("query"):
			p.query = append(p.query, one)
		case at("header"):
			p.header = append(p.header, one)
		case at("form"):
			p.hasForm = true
			if f.Type != reflect.TypeFor[[]File]() { // files reads those
				p.form = append(p.form, one)
			}
		case f.Tag.Get("body") != "":
			p.body = one.index
		}
	}
}
