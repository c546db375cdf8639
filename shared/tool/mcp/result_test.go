package mcp

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// results holds results of calls as servers send them, and what the model reads.
var results = []struct{ name, result, text, failure string }{
	{"FastMCP's dict",
		`{"content":[{"type":"text","text":"{\"a\":1}"}],"structuredContent":{"a":1},"isError":false}`, `{"a":1}`, ""},
	{"indented",
		`{"content":[{"type":"text","text":"{\n  \"a\": 1\n}"}],"structuredContent":{"a":1}}`, "{\n  \"a\": 1\n}", ""},
	{"FastMCP's number", `{"content":[{"type":"text","text":"42"}],"structuredContent":{"result":42}}`, "42", ""},
	{"FastMCP's string", `{"content":[{"type":"text","text":"on"}],"structuredContent":{"result":"on"}}`, "on", ""},
	{"FastMCP's list", `{"content":[{"type":"text","text":"[1,2]"}],"structuredContent":{"result":[1,2]}}`, "[1,2]", ""},
	{"Python's list, a text for each", `{"content":[{"type":"text","text":"1"},{"type":"text","text":"b"}],` +
		`"structuredContent":{"result":[1,"b"]}}`, "1\nb", ""},
	{"nothing", `{"content":[]}`, "", ""},
	{"Python's None", `{"content":[],"structuredContent":{"result":null}}`, `{"result":null}`, ""},
	{"an empty list", `{"content":[],"structuredContent":{"result":[]}}`, `{"result":[]}`, ""},
	{"structured content only",
		`{"structuredContent":{"order_id":9007199254740993}}`, `{"order_id":9007199254740993}`, ""},
	{"a summary and the data", `{"content":[{"type":"text","text":"2 orders"}],"structuredContent":{"orders":[1, 2]}}`,
		"2 orders\n{\"orders\":[1, 2]}", ""},
	{"other digits",
		`{"content":[{"type":"text","text":"{\"id\":9007199254740992}"}],"structuredContent":{"id":9007199254740993}}`,
		"{\"id\":9007199254740992}\n{\"id\":9007199254740993}", ""},
	{"a wrapped list that the texts don't have",
		`{"content":[{"type":"text","text":"1"}],"structuredContent":{"result":[1,2]}}`,
		"1\n{\"result\":[1,2]}", ""},
	{"no structured content", `{"content":[{"type":"text","text":"x"}],"structuredContent":null}`, "x", ""},
	{"other kinds",
		`{"content":[{"type":"image","mimeType":"image/png","data":"AAAA"},{"type":"audio","mimeType":"audio/wav",` +
			`"data":"AA=="},{"type":"resource_link","name":"n","uri":"u"},` +
			`{"type":"resource","resource":{"uri":"u","text":"t"}},` +
			`{"type":"resource","resource":{"uri":"u","mimeType":"m","blob":"AAA="}},{"type":"resource"},{"type":"hologram"}]}`,
		"[image/png, 3 bytes]\n[audio/wav, 1 bytes]\n[n: u]\nt\n[u, m, 2 bytes]\n[an empty resource]\n" +
			"[content of an unknown kind]", ""},
	{"a failure", `{"content":[{"type":"text","text":"the kettle is empty"}],"isError":true}`, "", "the kettle is empty"},
	{"a failure with data",
		`{"content":[{"type":"text","text":"no"}],"structuredContent":{"code":7},"isError":true}`, "", "no\n{\"code\":7}"},
	{"a failure without a reason", `{"content":[],"isError":true}`, "", "the tool gave no reason"},
	{"a question",
		`{"resultType":"input_required","inputRequests":{}}`,
		"", "the tool asks the client for input, which is not supported"},
	{"not a result", `{"content":"text"}`, "", "An upstream service failed"},
}

func TestTheModelReadsEachPartOfAResultOnce(t *testing.T) {
	t.Parallel()
	for _, c := range results {
		text, err := resultText(json.RawMessage(c.result))
		if text != c.text || (err != nil) != (c.failure != "") || err != nil && !strings.Contains(err.Error(), c.failure) &&
			c.name != "not a result" {
			t.Errorf("%s: %q, %v, want %q, %q", c.name, text, err, c.text, c.failure)
		}
	}
}

// FuzzResultText checks, for any result, that structured content reaches the model byte for
// byte or is in the texts, and that nothing is added.
func FuzzResultText(f *testing.F) {
	for _, c := range results {
		f.Add([]byte(c.result))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := resultText(data)
		var r callResult
		if json.Unmarshal(data, &r) != nil {
			if err == nil {
				t.Errorf("%q becomes %q", data, text)
			}
			return
		}
		if err != nil {
			text = err.Error()
		}
		only := len(r.Content) == 0 && len(r.Structured) > 0 && string(r.Structured) != "null" && r.Type != "input_required"
		if only && text != string(r.Structured) {
			t.Errorf("%s becomes %q", r.Structured, text)
		}
		if strictjson.Check(data, strictjson.Options{AnyNumber: true}) == nil && len(text) > len(data)+100 {
			t.Errorf("%d bytes become %d", len(data), len(text))
		}
	})
}

// transport answers every request with the same response.
type transport struct{ contentType, body string }

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {f.contentType}}, Request: r,
		Body: io.NopCloser(strings.NewReader(f.body)),
	}, nil
}

// FuzzAnswer reads any response to a call. Its result must be a text of JSON in the
// response, and an answer that was cut off must be an error.
func FuzzAnswer(f *testing.F) {
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"n":9007199254740993}}}`
	for _, body := range []string{
		answer, "[" + answer + "]", "data: " + answer + "\n\n", "event: message\r\ndata: " + answer + "\r\n\r\n",
		"\ufeffid: 7\rdata: " + answer, ": ping\n\ndata: {\"method\":\"ping\",\"id\":1}\n\ndata: " + answer + "\n\n",
		`data: {"jsonrpc":"2.0","id":1,"resu`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32003,"message":"x"}}`,
		"data:\ndata: {\"id\":\"1\",\ndata: \"result\":{}}\n\n", "retry: 10\nid: 1\n\n", `{"id":1,"error":"text"}`,
		"data: " + `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}` + "\n\n",
	} {
		f.Add("application/json", body)
		f.Add("text/event-stream", body)
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		if strings.Contains(body, "id") && strings.Contains(contentType, "event-stream") && strings.Contains(body, "id:") {
			return // such a stream would be continued, after a pause
		}
		s, err := New(Options{URL: "http://server.example/mcp"})
		if err != nil {
			t.Fatal(err)
		}
		s.client = &http.Client{Transport: transport{contentType, body}}
		c := &session{s: s, version: stateful, progress: map[string]func(){}}
		result, _, err := c.request(t.Context(), outgoing{method: "tools/call", name: "look", progress: func() {}})
		if err == nil && (!json.Valid(result) || len(result) > len(body)) {
			t.Errorf("%q has the result %q", body, result)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
