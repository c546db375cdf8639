package mcp_test

import (
	"encoding/json"
	"net/http"
	"testing"
)

// Whatever a client sends, the answer is a JSON document that repeats the id, or no content for a notification.
func FuzzAnswer(f *testing.F) {
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
		`"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"progressToken":7}`
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}`,
		`{"jsonrpc":"2.0","id":"a","method":"tools/list","params":{"cursor":null}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"asks","arguments":{"message":"m"},` + meta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"asks","requestState":"s","inputResponses":{"k":` +
			`{"action":"accept","content":{"approve":true}}},` + meta + `}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`,
		`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{` + meta + `}}`, `{`, `[]`, `null`,
	} {
		for _, version := range []string{"", "2026-07-28", "2025-11-25", "2099-01-01"} {
			f.Add(body, version, "tools/call", "asks")
		}
	}
	f.Fuzz(func(t *testing.T, body, version, method, name string) {
		h := http.Header{"Content-Type": {"application/json"}, "Accept": {"*/*"}}
		h.Set("Mcp-Protocol-Version", version)
		h.Set("Mcp-Method", method)
		h.Set("Mcp-Name", name)
		w := ours(h, body)
		if w.Code == http.StatusAccepted && w.Body.Len() == 0 {
			return
		}
		var m struct {
			Version string           `json:"jsonrpc"`
			ID      *json.RawMessage `json:"id"`
			Result  *json.RawMessage `json:"result"`
			Error   *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || m.Version != "2.0" {
			t.Fatalf("%d %v %s", w.Code, err, w.Body)
		}
		if (m.Result == nil) == (m.Error == nil) || m.Error != nil && (m.Error.Code == 0 || m.Error.Message == "") ||
			m.Result != nil && w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
