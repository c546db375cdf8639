package wire_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/wire"
)

func FuzzSessions(f *testing.F) {
	f.Add("s", "a \"name\"\n\u2028\x85", `{"a": [1, "b \" : c", {}], "d" : "\\"}`, int64(1_700_000_000), 3, 1)
	f.Add("", "\xff<&>", "", int64(0), 0, 0)
	f.Add("\u0085", "é", "\t[\r\n ] ", int64(-1), -7, 2)
	f.Fuzz(func(t *testing.T, id, text, raw string, at int64, n, models int) {
		if raw != "" && !json.Valid([]byte(raw)) {
			return // PostgreSQL returns valid JSON only
		}
		full := wire.Session{
			SessionID: id, SessionName: text, SessionState: json.RawMessage(raw),
			CreatedAt: wire.Time{Time: time.Unix(at%1e11, 0)}, UpdatedAt: wire.Time{Time: time.Unix(at%1e10, 0)},
			SessionType: text, UserID: text, AgentID: id, TeamID: text,
			WorkflowID: id, Summary: json.RawMessage(raw), TotalTokens: n, Metadata: json.RawMessage(raw),
			Omitted: []string{text, id}[:max(0, min(2, n))],
			Metrics: &wire.SessionMetrics{InputTokens: n, TotalTokens: -n, OutputTokens: 1},
		}
		full.Metrics.Details.Model = []wire.SessionModelMetrics{}
		for range max(0, min(3, models)) {
			full.Metrics.Details.Model = append(full.Metrics.Details.Model, wire.SessionModelMetrics{
				ID: id, Provider: text, InputTokens: n, TotalTokens: 2, OutputTokens: 3,
			})
		}
		for _, page := range []wire.Page[wire.Session]{
			{Data: []wire.Session{}, Meta: wire.PageOf(1, 20, 0)},
			{Data: []wire.Session{full, {SessionID: id}}[:max(0, min(2, models))], Meta: wire.PageOf(n, 7, models)},
			{Data: []wire.Session{{SessionName: text}, full}, Meta: wire.PageOf(2, 1, 2)},
		} {
			want, err := wire.Marshal(page)
			if err != nil {
				t.Fatal(err)
			}
			if got := wire.AppendSessions(nil, slices.Values(page.Data), page.Meta); string(got) != string(want) {
				t.Errorf("appended\n%s\nwant\n%s", got, want)
			}
		}
	})
}

// A page has three allocations for its loop, however many sessions it has.
func TestASessionOfAPageIsEncodedWithoutAnAllocation(t *testing.T) { //nolint:paralleltest // it counts allocations
	one := wire.Session{
		SessionID: "s", SessionName: "Hello", SessionState: json.RawMessage(`{"a": 1}`), SessionType: "agent", UserID: "u",
		CreatedAt: wire.Time{Time: time.Unix(1, 0)}, UpdatedAt: wire.Time{Time: time.Unix(2, 0)}, AgentID: "a",
		Metrics: &wire.SessionMetrics{Details: wire.SessionMetricsDetails{Model: make([]wire.SessionModelMetrics, 1)}},
	}
	page, meta := slices.Values(slices.Repeat([]wire.Session{one}, 20)), wire.PageOf(1, 20, 20)
	room := make([]byte, 0, 16<<10)
	if n := testing.AllocsPerRun(100, func() { wire.AppendSessions(room, page, meta) }); n > 3 {
		t.Errorf("%g allocations for a page of 20, want 3", n)
	}
}
