// Package input reads what a caller sent into a struct whose tags say what is
// taken: query, form and JSON body. What doesn't fit is answered in FastAPI's
// shape, all faults at once.
// It knows no route and no caller; the tags are also what the OpenAPI document
// is made of.
//
// A field is read from the place its tag names, under that name:
//
//	query:"limit"   the query string
//	form:"message"  a multipart or urlencoded body
//	json:"topics"   a JSON body, below a field tagged body:"json"
//
// and checked by the tags required, default, min (integers), minlen and maxlen
// (characters of JSON text, elements of a list), maxbytes (text) and enum. An
// embedded struct's fields count as the struct's own. A body that may be absent
// is a pointer.
package input

import (
	"net/http"
	"net/url"
	"reflect"
	"strconv"
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

// queryOf reads the query as Starlette does: a pair that can't be decoded counts
// for nothing, and & alone separates.
func queryOf(r *http.Request) url.Values {
	if r.URL.RawQuery == "" {
		return nil
	}
	return pairs(r.URL.RawQuery)
}

// pairs is url.ParseQuery as browsers do it: ; is an ordinary character, and a
// broken percent sign stands for itself.
func pairs(text string) url.Values {
	out := url.Values{}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name = unescape(name)
		out[name] = append(out[name], unescape(value))
	}
	return out
}

func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s):
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
			b.WriteByte('%')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// places tells where a struct is read from.
type places struct {
	query, form bool
	body        []int // index of the field tagged body
}

func placesOf(t reflect.Type) (p places) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Anonymous:
			inner := placesOf(f.Type)
			p.query, p.form = p.query || inner.query, p.form || inner.form
		case f.Tag.Get("query") != "":
			p.query = true
		case f.Tag.Get("form") != "":
			p.form = true
		case f.Tag.Get("body") != "":
			p.body = f.Index
		}
	}
	return p
}
