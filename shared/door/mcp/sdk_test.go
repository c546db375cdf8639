package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/door/mcp"
)

// outcome is what a client sees of an answer.
type outcome struct {
	Status int
	ID     any
	Code   int // of an error, or 0
	Result any
}

// outcomeOf reads an answer: JSON, or a stream with one message. The SDK also answers errors about a whole message as
// plain text.
func outcomeOf(t interface{ Fatalf(string, ...any) }, w *httptest.ResponseRecorder) (o outcome) {
	o.Status = w.Code
	body := w.Body.Bytes()
	if len(body) == 0 {
		return o
	}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		return outcome{Status: w.Code, Code: mcp.CodeInvalid}
	}
	if _, data, ok := bytes.Cut(body, []byte("data: ")); ok {
		body = data
	}
	var m struct {
		ID     any                 `json:"id"`
		Result any                 `json:"result"`
		Error  *struct{ Code int } `json:"error"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	o.ID, o.Result = m.ID, m.Result
	if r, ok := m.Result.(map[string]any); ok && r["resultType"] == "input_required" {
		delete(r, "content") // null, by the SDK
	}
	if m.Error != nil {
		o.Code = m.Error.Code
	}
	return o
}

// toolFields are the parameters of the tools of this test.
var toolFields = []mcp.Field{
	{Name: "message", Description: "What to say", Required: true},
	{Name: "all", Type: "array", Description: "Several", Fields: []mcp.Field{{Name: "a", Required: true}, {Name: "b"}}},
}

// toolNames are the tools. Each answers in another way.
var toolNames = []string{"answers", "asks", "fails"} // in the order of the SDK

// ours answers a request by the package.
func ours(h http.Header, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m, e := mcp.Read([]byte(body), h.Get(mcp.VersionHeader))
	if e != nil {
		e.Write(w)
		return w
	}
	response, e := mcp.Server{ID: "os", Name: "The OS", Version: "1"}.Answer(h, m, mcp.Offer{
		Tools: func() (tools []mcp.Tool) {
			for _, name := range toolNames {
				tools = append(tools, mcp.Tool{
					Name: name, Title: "T " + name, Description: "D <" + name + ">", Fields: toolFields,
					ReadOnly: name == "answers",
				})
			}
			return tools
		},
		Call: func(tool string, c mcp.Call) (mcp.Result, error) {
			switch {
			case tool == "asks" && c.Asks && c.State == "":
				return mcp.Result{State: "s", Questions: map[string]mcp.Question{"k": {
					Message: "Is that allowed?", Fields: []mcp.Field{{Name: "approve", Type: "boolean", Required: true}},
				}}}, nil
			case tool == "answers" || tool == "asks":
				accepted := c.Answers["k"].Accepted
				return mcp.Result{
					Texts: []string{"fine", fmt.Sprint(string(c.Arguments), c.State, accepted)}, Data: map[string]int{"a": 1},
				}, nil
			case tool == "fails":
				return mcp.Result{Texts: []string{"no"}, Failed: true}, nil
			}
			return mcp.Result{}, mcp.ErrUnknownTool
		},
		Refused: func(error) *mcp.Error { return nil },
		Notify:  func([]byte) {},
	})
	switch {
	case e != nil:
		e.Write(w)
	case response == nil:
		w.WriteHeader(http.StatusAccepted)
	default:
		mcp.WriteJSON(w, http.StatusOK, response)
	}
	return w
}

// newSDK makes the same server by the official SDK.
func newSDK() http.Handler {
	server := sdk.NewServer(&sdk.Implementation{Name: "os", Title: "The OS", Version: "1"}, &sdk.ServerOptions{
		Capabilities: &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{}},
		SetCacheable: func(_ context.Context, _ sdk.Request, c *sdk.Cacheable) { c.CacheScope = "private" },
		Logger:       slog.New(slog.DiscardHandler),
	})
	text := func(s string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Description: s} }
	schema := &jsonschema.Schema{
		Type: "object", Required: []string{"message"}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
		Properties: map[string]*jsonschema.Schema{
			"message": text("What to say"),
			"all": {Type: "array", Description: "Several", Items: &jsonschema.Schema{
				Type: "object", Required: []string{"a"},
				Properties: map[string]*jsonschema.Schema{"a": text(""), "b": text("")},
			}},
		},
	}
	for _, name := range toolNames {
		server.AddTool(&sdk.Tool{
			Name: name, Title: "T " + name, Description: "D <" + name + ">", InputSchema: schema,
			Annotations: &sdk.ToolAnnotations{
				Title: "T " + name, ReadOnlyHint: name == "answers", OpenWorldHint: new(true),
			},
		}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			p, form := r.Params, (*sdk.ElicitationCapabilities)(nil)
			if c := r.ClientCapabilities(); c != nil {
				form = c.Elicitation
			}
			init := r.Session.InitializeParams()
			asks := init != nil && init.ProtocolVersion >= mcp.Stateless && form != nil && (form.Form != nil || form.URL == nil)
			if name == "asks" && asks && p.RequestState == "" {
				return &sdk.CallToolResult{RequestState: "s", InputRequests: sdk.InputRequestMap{"k": &sdk.ElicitParams{
					Mode: "form", Message: "Is that allowed?", RequestedSchema: &jsonschema.Schema{
						Type: "object", Required: []string{"approve"},
						Properties: map[string]*jsonschema.Schema{"approve": {Type: "boolean"}},
					},
				}}}, nil
			}
			if name == "fails" {
				return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "no"}}, IsError: true}, nil
			}
			answer, _ := p.InputResponses["k"].(*sdk.ElicitResult)
			accepted := answer != nil && answer.Action == "accept"
			return &sdk.CallToolResult{StructuredContent: map[string]int{"a": 1}, Content: []sdk.Content{
				&sdk.TextContent{Text: "fine"},
				&sdk.TextContent{Text: fmt.Sprint(string(p.Arguments), p.RequestState, accepted)},
			}}, nil
		})
	}
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{
		Stateless: true, Logger: slog.New(slog.DiscardHandler), DisableLocalhostProtection: true,
	})
}

// bySDK answers a request by the official SDK.
func bySDK(server http.Handler, h http.Header, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
	r.Header = h.Clone()
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return w
}

// The package speaks the protocol itself. The official SDK is a second implementation: the two must give any client the
// same answers, but for the texts of errors and for the differences that the next test lists.
func TestEveryRequestIsAnsweredAsByTheOfficialSDK(t *testing.T) {
	t.Parallel()
	server := newSDK()
	rarely := func(t *rapid.T, label string) bool { return rapid.IntRange(0, 9).Draw(t, label) == 0 }
	kinds := map[string]int{}
	property := func(t *rapid.T) {
		version := rapid.SampledFrom([]string{
			"", "2026-07-28", "2026-07-28", "2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2099-01-01",
			"1999-01-01",
		}).Draw(t, "version")
		method := rapid.SampledFrom([]string{
			"tools/call", "tools/call", "tools/call", "tools/list", "initialize", "ping", "server/discover",
		}).Draw(t, "method")
		params := map[string]any{}
		if version >= mcp.Stateless || rarely(t, "odd meta") {
			meta := map[string]any{
				"io.modelcontextprotocol/protocolVersion": version,
				"io.modelcontextprotocol/clientCapabilities": rapid.SampledFrom([]any{
					map[string]any{}, map[string]any{"elicitation": map[string]any{}},
					map[string]any{"elicitation": map[string]any{"form": map[string]any{}, "url": map[string]any{}}},
					map[string]any{"elicitation": map[string]any{"url": map[string]any{}}},
				}).Draw(t, "capabilities"),
			}
			if rarely(t, "no capabilities") && version == mcp.Stateless {
				delete(meta, "io.modelcontextprotocol/clientCapabilities")
			}
			if rarely(t, "other version") {
				meta["io.modelcontextprotocol/protocolVersion"] = rapid.SampledFrom([]any{
					"2025-11-25", "2026-07-28", "x",
				}).Draw(t, "meta version")
			}
			params["_meta"] = meta
		}
		name := rapid.SampledFrom(append(toolNames, "asks", "unknown")).Draw(t, "name")
		switch method {
		case "tools/call":
			params["name"] = name
			if !rarely(t, "no arguments") {
				params["arguments"] = map[string]any{"message": rapid.SampledFrom([]string{"m", "<é\u2028>"}).Draw(t, "text")}
			}
			if rapid.Bool().Draw(t, "second round") {
				params["requestState"] = "s"
				params["inputResponses"] = map[string]any{"k": map[string]any{
					"action":  rapid.SampledFrom([]any{"accept", "decline", "cancel"}).Draw(t, "action"),
					"content": map[string]any{"approve": true},
				}}
			}
			if version < mcp.Stateless && rarely(t, "wrong type") {
				params[rapid.SampledFrom([]string{"requestState", "inputResponses"}).Draw(t, "member")] = 5
			}
		case "initialize":
			params["protocolVersion"] = rapid.SampledFrom([]any{
				"2025-11-25", "2025-06-18", "2024-11-05", "2026-07-28", "2000-01-01",
			}).Draw(t, "asked")
			params["capabilities"], params["clientInfo"] = map[string]any{}, map[string]any{"name": "c", "version": "1"}
		}
		message := map[string]any{"jsonrpc": "2.0", "method": method, "params": params}
		message["id"] = rapid.SampledFrom([]any{1, "a", 0, "é"}).Draw(t, "id")
		body, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{
			"Content-Type": {rapid.SampledFrom([]string{
				"application/json", "application/json; charset=utf-8", "application/json", "text/plain",
			}).Draw(t, "kind")},
			"Accept": {rapid.SampledFrom([]string{
				"application/json, text/event-stream", "*/*", "text/*;q=0.5,application/*", "application/json",
			}).Draw(t, "accept")},
		}
		if version != "" {
			h.Set("Mcp-Protocol-Version", version)
		}
		if !rarely(t, "no headers") {
			h.Set("Mcp-Method", method)
			h.Set("Mcp-Name", name)
		}
		if rarely(t, "other header") {
			name := rapid.SampledFrom([]string{"Mcp-Method", "Mcp-Name", "Last-Event-Id"}).Draw(t, "header")
			if name != "Last-Event-Id" || version < mcp.Stateless {
				h.Set(name, "other")
			}
		}
		want, got := outcomeOf(t, bySDK(server, h, string(body))), outcomeOf(t, ours(h, string(body)))
		// The SDK's plain texts have no code.
		plain := want.Code == mcp.CodeInvalid && got.Code != 0 && want.Status == got.Status
		if diff := cmp.Diff(want, got); diff != "" && !plain {
			t.Fatalf("%v\n%s\n(-SDK +ours)\n%s", h, body, diff)
		}
		kinds[fmt.Sprintf("%s %d %d", method, want.Status, want.Code)]++
	}
	for range 20 { // 2,000 requests, of which some are rare
		rapid.Check(t, property)
	}
	for _, kind := range []string{
		"tools/call 200 0", "tools/call 200 -32602", "tools/call 400 -32020", "tools/list 200 0", "initialize 200 0",
		"ping 200 0", "ping 404 -32601", "server/discover 200 0", "tools/list 400 -32022", "tools/list 400 -32602",
		"tools/call 415 -32600", "tools/call 400 -32600",
	} {
		if kinds[kind] == 0 {
			t.Errorf("no request was answered with %s: %v", kind, kinds)
		}
	}
}

// A header that is read in two ways would let a proxy decide about another tool than the one that is called.
func TestTheHeadersOfAMessageAreReadInOneWay(t *testing.T) {
	t.Parallel()
	const called, twice, wrong = `"result"`, "must be sent once", "must be the name of the tool"
	for _, c := range []struct {
		tool, name  string // in the body and in the header
		more, value string // one more header
		want        string
	}{
		{"answers", "answers", "", "", called},
		{"answers", "=?base64?YW5zd2Vycw==?=", "", "", called}, // as the protocol demands
		{"wörter", "=?base64?d8O2cnRlcg==?=", "", "", "unknown tool"},
		{"answers", "=?base64?YW5zd2Vycw?=", "", "", wrong},
		{"answers", "=?BASE64?YW5zd2Vycw==?=", "", "", wrong},
		{"answers", "=?base64?=", "", "", wrong},
		{"=?base64?YW5zd2Vycw==?=", "=?base64?YW5zd2Vycw==?=", "", "", wrong},
		{"answers", "answers", "Last-Event-Id", "1", called}, // of no meaning any more; the SDK refuses it
		{"answers", "answers", "Mcp-Name", "asks", twice},
		{"answers", "answers", "Mcp-Method", "tools/list", twice},
		{"answers", "answers", "Mcp-Protocol-Version", "2025-11-25", twice},
	} {
		h := http.Header{
			"Content-Type": {"application/json"}, "Accept": {"*/*"}, "Mcp-Protocol-Version": {mcp.Stateless},
			"Mcp-Method": {"tools/call"}, "Mcp-Name": {c.name},
		}
		if c.more != "" {
			h.Add(c.more, c.value)
		}
		w := ours(h, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+c.tool+`","arguments":{},"_meta":{`+
			`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`)
		refused := c.want == twice || c.want == wrong
		if !strings.Contains(w.Body.String(), c.want) || refused != strings.Contains(w.Body.String(), `"code":-32020`) {
			t.Errorf("%s with Mcp-Name %s and %s: %d %s", c.tool, c.name, c.more, w.Code, w.Body)
		}
	}
}

// The package differs from the SDK only where this test lists it.
func TestTheDifferencesToTheOfficialSDKAreKnown(t *testing.T) {
	t.Parallel()
	server := newSDK()
	const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":`
	const now = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
		`"io.modelcontextprotocol/clientCapabilities":{}}`
	for name, c := range map[string]struct {
		version, body string
		sdk, ours     outcome
	}{
		"an error has a code": {"", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":5}}`,
			outcome{Status: 200}, outcome{Status: 200, Code: mcp.CodeParams}},
		"initialize without params": {"", `{"jsonrpc":"2.0","id":1,"method":"initialize"}`,
			outcome{Status: 400, Code: mcp.CodeInvalid}, outcome{Status: 200, Code: mcp.CodeParams}},
		"a wrong type is no wrong header": {"2026-07-28", call + `{"name":"answers","requestState":5,` + now + `}}`,
			outcome{Status: 400, Code: mcp.CodeHeader}, outcome{Status: 400, Code: mcp.CodeParams}},
		"a cursor of nobody": {"2025-11-25", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}`,
			outcome{Status: 200, Code: mcp.CodeParams}, outcome{Status: 200, Code: mcp.CodeParams}},
		"a token that no client reads back": {"2025-11-25", call + `{"name":"answers","_meta":{"progressToken":1.5}}}`,
			outcome{Status: 200}, outcome{Status: 200, Code: mcp.CodeParams}},
		"a member in another case": {"2025-11-25", call + `{"Name":"answers"}}`,
			outcome{Status: 200, Code: mcp.CodeParams}, outcome{Status: 200, Code: mcp.CodeParams}},
	} {
		h := http.Header{"Content-Type": {"application/json"}, "Accept": {"*/*"}}
		if c.version != "" {
			h.Set("Mcp-Protocol-Version", c.version)
			h.Set("Mcp-Method", "tools/call")
			h.Set("Mcp-Name", "answers")
		}
		for side, got := range map[*outcome]outcome{
			&c.sdk: outcomeOf(t, bySDK(server, h, c.body)), &c.ours: outcomeOf(t, ours(h, c.body)),
		} {
			if got.Status != side.Status || got.Code != side.Code {
				t.Errorf("%s: %+v, want %+v", name, got, *side)
			}
		}
	}
}

// BenchmarkAnswer measures one call of a tool, by the package and by the SDK.
func BenchmarkAnswer(b *testing.B) {
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"answers","arguments":{"message":"m"}}}`
	h := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {"2025-11-25"},
	}
	server := newSDK()
	for name, answer := range map[string]func() *httptest.ResponseRecorder{
		"ours": func() *httptest.ResponseRecorder { return ours(h, body) },
		"SDK":  func() *httptest.ResponseRecorder { return bySDK(server, h, body) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if w := answer(); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "fine") {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
