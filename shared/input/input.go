// Package input reads what a caller sent into a struct whose tags say what is
// taken: query, form and JSON body. What doesn't fit is answered in FastAPI's
// shape, all faults at once.
// It knows no route and no caller; the tags are also what the OpenAPI document
// is made of.
//
// A field is read from the place its tag names, under that name:
//
//	query:"limit"   the query string
//	header:"X-Key"  a header, in its canonical spelling
//	form:"message"  a multipart or urlencoded body
//	json:"topics"   a JSON body, below a field tagged body:"json"
//
// and checked by the tags required, default, min and max (integers), minlen and maxlen
// (characters of JSON text, elements of a list), maxbytes (text) and enum. An
// embedded struct's fields count as the struct's own. A body that may be absent
// is a pointer.
package input

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// MaxBody is the largest request body that is read. API Gateway takes 10 MB and
// hands a function 6 MB; the local server is as strict as the outer of the two.
const MaxBody = 10 << 20

// Object is a JSON object as it was sent: it can be stored, and nothing in it was
// changed.
type Object []byte

// MarshalJSON gives it back as it is; an absent one is null.
func (o Object) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("null"), nil
	}
	return o, nil
}

// File is an uploaded file.
type File struct {
	Name    string // as the caller named it; never a path to open
	Type    string // the media type it was sent with, without parameters
	Content []byte
}

// Read fills the struct that into points to. An error is fault.Unprocessable with
// every fault, fault.Invalid for a body that can't be read at all, or
// fault.TooLarge.
func Read(w http.ResponseWriter, r *http.Request, into any) error {
	v := reflect.ValueOf(into).Elem()
	in := &reader{}
	places := placesOf(v.Type())
	if places.query {
		in.values(v, "query", queryOf(r))
	}
	if places.header {
		in.values(v, "header", url.Values(r.Header))
	}
	var err error
	switch {
	case places.form:
		err = in.form(w, r, v)
	case places.body != nil:
		err = in.body(w, r, v.FieldByIndex(places.body))
	}
	if err != nil {
		return err
	}
	if len(in.faults) > 0 {
		return fault.Fields(in.faults...)
	}
	return nil
}

// reader collects what is wrong.
type reader struct {
	faults []fault.Field
}

func (in *reader) complain(kind, msg string, value any, ctx fault.Members, loc ...any) {
	in.faults = append(in.faults, fault.Field{Type: kind, Loc: loc, Msg: msg, Input: value, Ctx: ctx})
}

// queryOf reads the query. A broken percent sign stands for itself, as in
// Starlette.
func queryOf(r *http.Request) url.Values {
	if r.URL.RawQuery == "" {
		return nil
	}
	values, _ := pairs(r.URL.RawQuery)
	return values
}

// pairs reads names and values as browsers write them: ; is an ordinary character.
// broken tells that a percent sign escapes nothing.
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

// places tells where a struct is read from.
type places struct {
	query, header, form bool
	body                []int // index of the field tagged body
}

func placesOf(t reflect.Type) (p places) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Anonymous:
			inner := placesOf(f.Type)
			p.query, p.header, p.form = p.query || inner.query, p.header || inner.header, p.form || inner.form
		case f.Tag.Get("query") != "":
			p.query = true
		case f.Tag.Get("header") != "":
			p.header = true
		case f.Tag.Get("form") != "":
			p.form = true
		case f.Tag.Get("body") != "":
			p.body = f.Index
		}
	}
	return p
}
