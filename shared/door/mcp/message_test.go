package mcp_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/fault"
)

func TestOnlyAMessageThatAllReadersUnderstandAlikeIsAccepted(t *testing.T) {
	t.Parallel()
	const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"`
	deep := strings.Repeat(`[`, bound.MCPDepth.Default+1) + strings.Repeat(`]`, bound.MCPDepth.Default+1)
	for body, want := range map[string]int{
		ping + `}`:                      0,
		" " + ping + `,"params":null} `: 0,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`: 0,
		``:                                     mcp.CodeParse,
		`{`:                                    mcp.CodeParse,
		ping + `} {}`:                          mcp.CodeParse,
		ping + `,"a":"` + "\xff\"}":            mcp.CodeParse,
		ping + `,"a":NaN}`:                     mcp.CodeParse,
		`null`:                                 mcp.CodeInvalid,
		`[` + ping + `}]`:                      mcp.CodeInvalid,
		ping + `,"id":2}`:                      mcp.CodeInvalid,
		ping + `,"ID":2}`:                      mcp.CodeInvalid,
		ping + `,"params":{"a":1,"a":2}}`:      mcp.CodeInvalid,
		ping + `,"params":[]}`:                 mcp.CodeInvalid,
		ping + `,"params":{"a":` + deep + `}}`: mcp.CodeInvalid,
		`{"id":1,"method":"ping"}`:             mcp.CodeInvalid,
		`{"jsonrpc":"1.0","id":1,"method":"ping"}`:                 mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1}`:                                 mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1,"result":{}}`:                     mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1,"Method":"ping"}`:                 mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1,"method":5}`:                      mcp.CodeInvalid,
		`{"jsonrpc":"2.0","method":"ping"}`:                        mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1,"method":"notifications/a"}`:      mcp.CodeInvalid,
		`{"jsonrpc":"2.0","id":1,"method":"resources/list"}`:       mcp.CodeUnknownMethod,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/list"}`:         mcp.CodeUnknownMethod,
		`{"jsonrpc":"2.0","id":1,"method":"logging/setLevel"}`:     mcp.CodeUnknownMethod,
		`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}`: mcp.CodeUnknownMethod,
	} {
		_, e := mcp.Read([]byte(body), "2025-11-25")
		if got := e; got == nil && want != 0 || got != nil && got.Code != want {
			t.Errorf("%.80q: %+v, want %d", body, e, want)
		}
	}
	if m, e := mcp.Read([]byte(`{"jsonrpc":"2.0","method":"notifications/other"}`), ""); e != nil || m.ID != nil {
		t.Errorf("an unknown notification: %+v %+v", m, e)
	}
}

func TestAnIDIsRepeatedExactlyOrRefused(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		`1`: true, `0`: true, `-9007199254740991`: true, `9007199254740991`: true, `""`: true, `"a\u00e9"`: true,
		`9007199254740992`: false, `9007199254740993`: false, `1.5`: false, `1.0`: false, `1e3`: false, `1e30`: false,
		`null`: false, `true`: false, `{}`: false, `[1]`: false,
		`"` + strings.Repeat("a", 1024) + `"`: true, `"` + strings.Repeat(`\u0061`, 1024) + `"`: true,
		`"` + strings.Repeat("a", 1025) + `"`: false, `"` + strings.Repeat("é", 513) + `"`: false,
	} {
		m, e := mcp.Read([]byte(`{"jsonrpc":"2.0","method":"ping","id":`+id+`}`), "")
		switch {
		case ok && (e != nil || string(m.ID) != id):
			t.Errorf("%.50s: %s %+v", id, m.ID, e)
		case !ok && (e == nil || e.Code != mcp.CodeInvalid || e.Status != 400 || e.ID != nil):
			t.Errorf("%.50s is accepted: %s %+v", id, m.ID, e)
		}
	}
}

// Decoded, such a body takes seventy times its size. The reader of it stops at the first value too many.
func TestABodyOfMillionsOfValuesIsReadOnlyUntilTheLastAllowedOne(t *testing.T) {
	t.Parallel()
	for _, before := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"x":[`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{"experimental":{"x":[`,
	} {
		body := before + strings.Repeat(`{"a":1},`, 1_200_000)
		// What follows is no JSON, and is not reached.
		if _, e := mcp.Read([]byte(body), ""); e == nil || e.Code != mcp.CodeInvalid ||
			!strings.Contains(e.Text, "Too many values") {
			t.Errorf("%+v", e)
		}
	}
}

func TestAnErrorAboutAMessageIsShortJSONRPC(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("m", 1<<20)
	_, e := mcp.Read([]byte(`{"jsonrpc":"2.0","id":"a<b","method":"`+long+`"}`), mcp.Stateless)
	if e == nil || e.Status != 404 {
		t.Fatalf("%+v", e)
	}
	e.Text += long
	w := httptest.NewRecorder()
	e.Write(w)
	var got struct {
		Version string `json:"jsonrpc"`
		ID      string `json:"id"`
		Error   struct{ Code int }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Version != "2.0" || got.ID != "a<b" ||
		got.Error.Code != mcp.CodeUnknownMethod || w.Header().Get("Content-Type") != "application/json" ||
		w.Body.Len() > fault.MaxText+200 {
		t.Errorf("%v %.300s", err, w.Body)
	}
}

func TestADecisionMustFitItsCall(t *testing.T) {
	t.Parallel()
	values := map[string]json.RawMessage{"amount": json.RawMessage(`7`)}
	for _, c := range []struct {
		id, want string
		decision mcp.Decision
	}{
		{"execute", "result is required", mcp.Decision{Approved: true}},
		{"execute", "", mcp.Decision{Approved: true, Result: new("")}},
		{"execute", "", mcp.Decision{}},
		{"confirm", `doesn't ask for "amount"`, mcp.Decision{Approved: true, Values: values}},
		{"confirm", "", mcp.Decision{Approved: true, Values: values, Form: true}},
		{"fill", "", mcp.Decision{Approved: true, Values: values}},
		{"fill", `doesn't ask for "for"`, mcp.Decision{Values: map[string]json.RawMessage{"for": json.RawMessage(`1`)}}},
	} {
		_, err := mcp.AnswersTo(paused(t), map[string]mcp.Decision{c.id: c.decision})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %+v: %v", c.id, c.decision, err)
		}
	}
}
