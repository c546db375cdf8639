package input

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
)

// testdata/fastapi.json contains the answers of FastAPI 0.165 with pydantic 2.14, which
// AgentOS 3.1.10 uses, to requests with these inputs, which were declared in Python.
type (
	inQuery struct {
		Type     string   `query:"type" enum:"agent,team,workflow"`
		Limit    int      `query:"limit" default:"20" min:"1"`
		Page     int      `query:"page" default:"1" min:"1"`
		Order    string   `query:"order" default:"desc" enum:"asc,desc"`
		Name     string   `query:"name" required:"true"`
		After    *int64   `query:"created_after"`
		Delete   bool     `query:"delete_media"`
		Statuses []string `query:"status"`
	}
	inOptional struct {
		Body *struct {
			ID    *string `json:"session_id"`
			Name  *string `json:"session_name"`
			State Object  `json:"session_state"`
		} `body:"json"`
	}
	inEmbed struct {
		Body struct {
			Name string `json:"session_name" required:"true" embed:"true"`
		} `body:"json"`
	}
	inDelete struct {
		Body struct {
			IDs   []string `json:"session_ids" required:"true" minlen:"1"`
			Types []string `json:"session_types" required:"true" minlen:"1" enum:"agent,team,workflow"`
		} `body:"json"`
	}
	inMemory struct {
		Body struct {
			Memory string   `json:"memory" required:"true" minlen:"1" maxlen:"50"`
			User   *string  `json:"user_id"`
			Topics []string `json:"topics"`
		} `body:"json"`
	}
	inForm struct {
		Message string `form:"message" required:"true"`
		Stream  bool   `form:"stream" default:"true"`
		Version *int   `form:"version"`
		Files   []File `form:"files"`
	}
)

// sent is one request in the table.
type sent struct {
	Model, Query, Body, Type string
	Status                   int
	Answer                   json.RawMessage
}

func (s sent) request() *http.Request {
	body := make([]byte, 0, len(s.Body)) // the table has one character for each byte
	for _, r := range s.Body {
		body = append(body, byte(r))
	}
	r := httptest.NewRequest("POST", "/?"+s.Query, strings.NewReader(string(body)))
	if s.Type != "" {
		r.Header.Set("Content-Type", s.Type)
	}
	return r
}

// read returns the input as it was read, in the form of the Python program's answers.
func (s sent) read() (any, error) {
	w, r := httptest.NewRecorder(), s.request()
	type object = map[string]any
	orNil := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	switch s.Model {
	case "q":
		var in inQuery
		err := Read(w, r, &in, nil)
		return object{
			"type": orNil(in.Type), "limit": in.Limit, "page": in.Page, "order": in.Order, "name": in.Name,
			"created_after": in.After, "delete_media": in.Delete, "status": in.Statuses,
		}, err
	case "optional":
		var in inOptional
		err := Read(w, r, &in, nil)
		return object{"body": in.Body}, err
	case "embed":
		var in inEmbed
		err := Read(w, r, &in, nil)
		return in.Body.Name, err
	case "delete":
		var in inDelete
		err := Read(w, r, &in, nil)
		return in.Body, err
	case "memory":
		var in inMemory
		err := Read(w, r, &in, nil)
		return in.Body, err
	default:
		var in inForm
		err := Read(w, r, &in, nil)
		files := [][]any{}
		for _, f := range in.Files {
			files = append(files, []any{f.Name, orNil(f.Type)})
		}
		return object{"message": in.Message, "stream": in.Stream, "version": in.Version, "files": files}, err
	}
}

// differences are the requests that get another answer than in FastAPI, on purpose. part is
// the query or body, or after a ~ a part of it, and says is a part of the answer.
var differences = []struct{ model, part, says, why string }{
	{"q", "name=", `"type":"missing"`, "an empty id identifies nothing"},
	{"q", "name=x&page=99999999999999999999", `"type":"int_parsing","loc":["query","page"]`, "no page beyond 32 bits"},
	{"q", "name=x&page=2147483648", `"type":"int_parsing","loc":["query","page"]`, "no page beyond 32 bits"},
	{"q", "name=x&created_after=9223372036854775808", `"type":"int_parsing","loc":["query","created_after"]`, "too large"},
	{"q", "name=x&limit=1.0", `"type":"int_parsing"`, "Python's spelling of numbers"},
	{"q", "name=x&limit=1_0", `"type":"int_parsing"`, "Python's spelling of numbers"},
	{"q", "name=%ff", `"type":"string_unicode","loc":["query","name"]`, "text that can't be stored is refused"},
	{"q", "name=a%00b", `"type":"value_error","loc":["query","name"]`, "PostgreSQL's text has no NUL"},
	{"optional", `{"session_state":NaN}`, `"type":"json_invalid","loc":["body",17]`, "NaN is not JSON"},
	{"form", "message=%ff", `"type":"string_unicode","loc":["body","message"]`, "text that can't be stored is refused"},
	{"form", "message=%zz", "error parsing the body", "a percent sign without digits"},
	{"form", "message=Ã©", `"message":"é"`, "bytes of a form are UTF-8, not Latin-1"},
	{"form", "~\r\n\r\nÿ\r\n", `"type":"string_unicode","loc":["body","message"]`, "can't be stored"},
	{"form", `~name="message"; filename`, `"type":"missing","loc":["body","message"]`, "a file is not a message"},
	{"form", "~; charset=x", `["../b/a.txt","text/plain"]`, "the type without its parameters"},
	{"form", `~C:\\`, `"C:\\x\\a.txt"`, "the name stays as it was sent"},
	{"form", "~preamble", `"message":"hi"`, "RFC 2046 allows a preamble"},
	{"form", "~boundary=--X", "Missing boundary in multipart.", "an empty boundary is a missing one"},
}

func TestInputIsReadAsInFastAPI(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/fastapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var table []sent
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	used := map[int]bool{}
	for _, row := range table {
		value, err := row.read()
		status, got := http.StatusOK, []byte(nil)
		if err != nil {
			status, _, got = fault.Answer(err)
		} else if got, err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
		if other := row.difference(); other >= 0 {
			used[other] = true
			if d := differences[other]; !strings.Contains(string(got), d.says) {
				t.Errorf("%+v: %d %s, want %s: %s", row, status, got, d.says, d.why)
			}
			continue
		}
		if status != row.Status || !same(t, got, row.Answer, status == http.StatusOK) {
			t.Errorf("%s ?%s %q of type %q:\n got %d %s\nwant %d %s",
				row.Model, row.Query, row.Body, row.Type, status, got, row.Status, row.Answer)
		}
	}
	for i, d := range differences {
		if !used[i] {
			t.Errorf("no request has the difference %q", d.part)
		}
	}
}

func (s sent) difference() int {
	for i, d := range differences {
		part, ok := strings.CutPrefix(d.part, "~")
		contains := ok && strings.Contains(s.Type+s.Body, part)
		if s.Model == d.model && (s.Query == d.part || s.Body == d.part || contains) {
			return i
		}
	}
	return -1
}

// same compares JSON. For an error the order of the members must be FastAPI's too.
func same(t *testing.T, got, want []byte, anyOrder bool) bool {
	t.Helper()
	if !anyOrder {
		return string(got) == compact(t, want)
	}
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil {
		t.Fatalf("not JSON: %s or %s", got, want)
	}
	return cmp.Equal(a, b)
}

func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	text, err := fault.Members{{Name: "x", Value: raw}}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), `{"x":`), "}")
}
