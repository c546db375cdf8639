package input

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

const (
	formKind      = "application/x-www-form-urlencoded"
	multipartKind = "multipart/form-data; boundary=X"
)

// ask reads a body into an input; length < 0 sends it without its length.
func ask(into any, kind string, body io.Reader, length int64) error {
	r := httptest.NewRequest("POST", "/", body)
	r.ContentLength = length
	r.Header.Set("Content-Type", kind)
	return Read(httptest.NewRecorder(), r, into, nil)
}

func TestABodyHasTenMegabytesAtMost(t *testing.T) {
	t.Parallel()
	for kind, frame := range map[string][2]string{
		"application/json": {`{"session_state":{"a":"`, `"}}`},
		formKind:           {"message=", ""},
		multipartKind:      {"--X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n", "\r\n--X--\r\n"},
	} {
		most := bound.Body.Default
		for n, want := range map[int]fault.Kind{most: 0, most + 1: fault.TooLarge, most + 1<<20: fault.TooLarge} {
			body := frame[0] + strings.Repeat("x", n-len(frame[0])-len(frame[1])) + frame[1]
			for _, length := range []int64{int64(n), -1} {
				into := any(new(inForm))
				if kind == "application/json" {
					into = new(inOptional)
				}
				err := ask(into, kind, strings.NewReader(body), length)
				if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
					t.Errorf("%s of %d bytes with Content-Length %d: %v", kind, n, length, err)
				}
			}
		}
	}
}

func TestAHeaderIsReadOnceAndIsNotEmptyIfItNamesARequest(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		session, key []string
		want         string // the name of the wrong header
	}{
		{nil, nil, ""},
		{[]string{"s"}, []string{"k"}, ""},
		{[]string{""}, nil, ""},
		{nil, []string{""}, "X-Key"},
		{nil, []string{"k", "k"}, "X-Key"},
		{[]string{"s", "t"}, nil, "X-Session"},
		{[]string{"", "t"}, nil, "X-Session"},
	} {
		var into struct {
			Session string `header:"X-Session"`
			Key     string `header:"X-Key" minlen:"1"`
		}
		r := httptest.NewRequest("POST", "/", nil)
		r.Header["X-Session"], r.Header["X-Key"] = row.session, row.key
		err := Read(httptest.NewRecorder(), r, &into, nil)
		e, _ := errors.AsType[*fault.Error](err)
		got := ""
		if e != nil && len(e.Fields) == 1 && e.Fields[0].Loc[0] == "header" {
			got, _ = e.Fields[0].Loc[1].(string)
		}
		if got != row.want || (err == nil) != (row.want == "") {
			t.Errorf("%q and %q: %v", row.session, row.key, err)
		}
	}
}

func TestAnIncompleteBodyIsAnError(t *testing.T) {
	t.Parallel()
	const whole = "--X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nhi\r\n" +
		"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n\r\nhello\r\n--X--\r\n"
	for n := 1; n < strings.LastIndex(whole, "--X--")+len("--X--"); n++ {
		in := inForm{}
		err := ask(&in, multipartKind, strings.NewReader(whole[:n]), int64(n))
		if !errors.Is(err, fault.Invalid) || fault.Detail(err) != "Invalid multipart data." {
			t.Errorf("%q: %v", whole[:n], err)
		}
	}
	broken := io.MultiReader(strings.NewReader(`{"session_state":{}}`), failing{})
	err := ask(&inOptional{}, "application/json", broken, -1)
	if !errors.Is(err, fault.Invalid) || strings.Contains(fault.Detail(err), "reset") {
		t.Errorf("%v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset by 10.0.0.7") }

func TestLongInputIsNotEchoed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for body, into := range map[string]any{
		"message=hi&stream=" + long:                    new(inForm),
		"message=hi&version=" + long:                   new(inForm),
		"message=" + long + "%00":                      new(inForm),
		"message=hi&files=" + long:                     new(inForm),
		`{"session_types":["` + long + `"]}`:           new(inDelete),
		`{"session_ids":"` + long + `"}`:               new(inDelete),
		`{"session_ids":["` + long + `\u0000"]}`:       new(inDelete),
		`{"memory":"` + long + `"}`:                    new(inMemory),
		`["` + long + `"]`:                             new(inMemory),
		`{"memory":"x","user_id":["` + long + `"]}`:    new(inMemory),
		`{"session_state":"` + long + `"}`:             new(inOptional),
		`{"session_state":{"a":"` + long + `\u0000"}}`: new(inOptional),
		"this is text and not JSON" + long:             new(inOptional),
	} {
		kind := "application/json"
		switch {
		case strings.HasPrefix(body, "message"):
			kind = formKind
		case strings.HasPrefix(body, "this"):
			kind = "text/plain"
		}
		status, _, answer := fault.Answer(ask(into, kind, strings.NewReader(body), int64(len(body))))
		if status != 422 || len(answer) > 1000 {
			t.Errorf("%.40s: %d with %d bytes", body, status, len(answer))
		}
	}
}

func TestAWrongObjectInAFormFieldIsAnError(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                         "",
		"{}":                       "",
		` {"a":[1,{"b":null}]} `:   "",
		`{"a":"\\u0000"}`:          "", // a backslash and u0000
		`{"a":"\u0000"}`:           `"type":"value_error","loc":["body","session_state"]`,
		`{"\u0000":1}`:             `"type":"value_error","loc":["body","session_state"]`,
		`{"a":"\\\u0000"}`:         `"type":"value_error","loc":["body","session_state"]`,
		"null":                     `"type":"dict_type","loc":["body","session_state"]`,
		"[]":                       `"type":"dict_type","loc":["body","session_state"]`,
		`"x"`:                      `"type":"dict_type","loc":["body","session_state"]`,
		" ":                        `"type":"json_invalid","loc":["body","session_state"]`,
		"{":                        `"type":"json_invalid","loc":["body","session_state"]`,
		`{"a":NaN}`:                `"type":"json_invalid","loc":["body","session_state"]`,
		`{"a":1e999}`:              `"type":"json_invalid","loc":["body","session_state"]`,
		`{"a":"\ud800"}`:           `"type":"json_invalid","loc":["body","session_state"]`,
		strings.Repeat("[", 10000): `"type":"json_invalid","loc":["body","session_state"]`,
	} {
		o, err := ObjectFrom(text, "body", "session_state")
		if says == "" {
			if err != nil || string(o) != text {
				t.Errorf("%q: %s %v", text, o, err)
			}
			continue
		}
		if status, _, answer := fault.Answer(err); status != 422 || !strings.Contains(string(answer), says) {
			t.Errorf("%q: %d %s", text, status, answer)
		}
	}
}

// wantStorable fails for a text that PostgreSQL can't store.
func wantStorable(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			t.Errorf("%q was accepted", s)
		}
	}
}

// wantStorableJSON fails for JSON that PostgreSQL's jsonb can't store.
func wantStorableJSON(t *testing.T, o Object) {
	t.Helper()
	if o == nil {
		return
	}
	var v map[string]any
	if err := json.Unmarshal(o, &v); err != nil || strictjson.HasNUL(o) || bytes.IndexByte(o, 0) >= 0 || !utf8.Valid(o) {
		t.Errorf("%q was accepted: %v", o, err)
	}
}

// sound fails for an error that is not a 4xx, or without a JSON body.
func sound(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if status, _, body := fault.Answer(err); status < 400 || status > 499 || !json.Valid(body) {
		t.Errorf("%v: %d %s", err, status, body)
	}
}

func FuzzReadQuery(f *testing.F) {
	for _, s := range []string{
		"name=x", "name=%00", "name=%ff&limit=0", "status=a&status=%zz", ";&=&&name",
		"created_after=-9223372036854775808",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		var in inQuery
		err := Read(httptest.NewRecorder(), r, &in, nil)
		if sound(t, err); err != nil {
			return
		}
		wantStorable(t, append(in.Statuses, in.Type, in.Order, in.Name)...)
		if in.Limit < 1 || in.Page < 1 || in.Limit > 1<<31-1 {
			t.Errorf("%q: limit %d, page %d", query, in.Limit, in.Page)
		}
	})
}

func FuzzReadForm(f *testing.F) {
	f.Add(formKind, "message=hi&stream=0")
	f.Add(multipartKind, "--X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nhi\r\n"+
		"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a\"\r\n\r\nz\r\n--X--\r\n")
	f.Add("multipart/form-data; boundary=\"\x00\"", "--")
	f.Fuzz(func(t *testing.T, kind, body string) {
		var in inForm
		err := ask(&in, kind, strings.NewReader(body), int64(len(body)))
		if sound(t, err); err == nil {
			wantStorable(t, in.Message)
		}
	})
}

func FuzzReadBody(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"session_id":"\u0000"}`, `{"session_state":{"a":"\ud800"},"session_name":""}`,
		`{"session_state":{"\\u0000":1e308}}`, "\ufeff{}", `[]`, "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var in inOptional
		err := ask(&in, "application/json", strings.NewReader(body), int64(len(body)))
		if sound(t, err); err != nil || in.Body == nil {
			return
		}
		for _, p := range []*string{in.Body.ID, in.Body.Name} {
			if p != nil {
				wantStorable(t, *p)
			}
		}
		wantStorableJSON(t, in.Body.State)
	})
}

func TestAnIDThatAPathCanNotNameIsAnError(t *testing.T) {
	t.Parallel()
	type named struct {
		ID string `form:"id" newid:"true"`
	}
	read := func(id string) (named, error) {
		var in named
		body := "id=" + url.QueryEscape(id)
		return in, ask(&in, formKind, strings.NewReader(body), int64(len(body)))
	}
	for _, id := range []string{
		".", "..", "a/", "/a", "a/b", `a\b`, "a?b", "a#b", "a%b", "a%2Fb", " a", "a ", "a\tb", "a\nb", "\x7f", "a\u0085",
	} {
		_, err := read(id)
		status, _, answer := fault.Answer(err)
		if status != 422 || !strings.Contains(string(answer), `"type":"value_error","loc":["body","id"]`) {
			t.Errorf("%q: %d %s", id, status, answer)
		}
	}
	for _, id := range []string{"", "a", "...", "a.b", "a b", "a:b@c;d,e=f&g+h", "日本", "é", "{a}", `a*'"<>|`} {
		if _, err := read(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestAFieldThatIsNotSupportedIsAnErrorUnlessItAsksForNothing(t *testing.T) {
	t.Parallel()
	type unsupported struct {
		Schema string `form:"schema" unsupported:"answers are text"`
		Flag   string `form:"flag" unsupported:"no flags" means:"false,0"`
	}
	for body, name := range map[string]string{
		"": "", "schema=": "", "schema=null": "", "schema=%7B%7D": "", "schema=+[]+": "",
		"flag=false": "", "flag=False": "", "flag=0": "", "flag=": "", "flag=null": "",
		"schema=false": "schema", "schema=0": "schema", "schema=[1]": "schema", "schema=x": "schema",
		"schema=%7B%22a%22:1%7D": "schema", "flag=true": "flag", "flag=1": "flag",
	} {
		err := ask(new(unsupported), formKind, strings.NewReader(body), int64(len(body)))
		if name == "" {
			if err != nil {
				t.Errorf("%s: %v", body, err)
			}
			continue
		}
		status, _, answer := fault.Answer(err)
		want := `"loc":["body","` + name + `"],"msg":"Value error, not supported: `
		if status != 422 || !strings.Contains(string(answer), want) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
}

func TestABodyCanHaveAListOfObjectsAndAnInteger(t *testing.T) {
	t.Parallel()
	type inObjects struct {
		Body struct {
			List []struct {
				Name string `json:"name" required:"true" minlen:"1" bound:"new_id"`
				Note string `json:"note" bound:"new_id"`
			} `json:"list" bound:"filters"`
			Seconds int64 `json:"seconds" default:"60" min:"1" max:"100"`
		} `body:"json"`
	}
	read := func(body string) (in inObjects, answer string) {
		err := ask(&in, "application/json", strings.NewReader(body), int64(len(body)))
		if err == nil {
			return in, ""
		}
		_, _, text := fault.Answer(err)
		return in, string(text)
	}
	in, wrong := read(`{"list":[{"name":"a","note":"n","other":{"deep":[1]}},{"name":"b"}],"seconds":7}`)
	if wrong != "" || len(in.Body.List) != 2 || in.Body.List[0].Note != "n" || in.Body.List[1].Name != "b" ||
		in.Body.Seconds != 7 {
		t.Errorf("%+v %s", in, wrong)
	}
	if in, wrong := read(`{}`); wrong != "" || in.Body.List != nil || in.Body.Seconds != 60 {
		t.Errorf("%+v %s", in, wrong)
	}
	for body, want := range map[string]string{
		`{"list":[{"name":"a"},[]]}`:     `"type":"model_attributes_type","loc":["body","list",1]`,
		`{"list":[{"note":"n"}]}`:        `"type":"missing","loc":["body","list",0,"name"]`,
		`{"list":[{"name":7}]}`:          `"type":"string_type","loc":["body","list",0,"name"]`,
		`{"list":[{"name":""}]}`:         `"type":"string_too_short","loc":["body","list",0,"name"]`,
		`{"list":[{"name":"a\u0000b"}]}`: `"loc":["body","list",0,"name"],"msg":"Value error, a NUL character`,
		`{"list":[` + strings.TrimSuffix(strings.Repeat(`{},`, 101), ",") + `]}`: `"type":"too_long","loc":["body","list"]`,
		`{"seconds":"7"}`: `"type":"int_type","loc":["body","seconds"]`,
		`{"seconds":1.5}`: `"type":"int_parsing","loc":["body","seconds"]`,
		`{"seconds":0}`:   `"type":"greater_than_equal","loc":["body","seconds"]`,
		`{"seconds":101}`: `"type":"less_than_equal","loc":["body","seconds"]`,
	} {
		if _, got := read(body); !strings.Contains(got, want) {
			t.Errorf("%.60s: %s", body, got)
		}
	}
}
