package protocol

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/door/mcp"
)

// BenchmarkServer measures one call of a tool that does nothing, among five tools.
func BenchmarkServer(b *testing.B) {
	tool := mcp.Tool{
		Name: "a", Description: "d", Fields: []mcp.Field{{Name: "message", Required: true}, {Name: "session_id"}},
		Call: func(mcp.Call) (mcp.Result, error) { return mcp.Result{Texts: []string{"fine"}}, nil },
	}
	serve := New("os", "", "1")
	offer := mcp.Offer{Unlisted: func(string) error { return nil }}
	for _, name := range []string{"a", "b", "get_run", "continue_run", "cancel_run"} {
		tool.Name = name
		offer.Tools = append(offer.Tools, tool)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"message":"m"}}}`))
		r.Header = http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Mcp-Protocol-Version": {"2025-11-25"},
		}
		w := httptest.NewRecorder()
		serve(w, r, offer)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "fine") {
			b.Fatal(w.Code, w.Body)
		}
	}
}
