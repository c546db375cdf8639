package wire_test

import (
	"encoding/json"
	"testing"

	"github.com/keyway-agents/keyway/shared/wire"
)

func FuzzRun(f *testing.F) {
	f.Add("id", "a \"text\"\n\u2028\x85", `{"a": [1, "b \" : c", {}], "d" : "\\"}`, int64(1_700_000_000))
	f.Add("", "\xff<&>\x00", "null", int64(0))
	f.Add("\u0085", "é", "\t[\r\n ] ", int64(-1))
	f.Fuzz(func(t *testing.T, id, text, raw string, at int64) {
		if !json.Valid([]byte(raw)) {
			return // the members of a run are valid JSON
		}
		document := json.RawMessage(raw)
		for _, r := range []*wire.Run{
			{},
			{RunID: id, Metrics: document, Content: new(""), CreatedAt: at},
			{
				RunID: id, AgentID: text, AgentName: text, SessionID: id, UserID: text, Content: &text,
				ContentType: text, ReasoningContent: &id, ModelProviderData: document, Model: text,
				ModelProvider: id, SessionState: document,
				CreatedAt: at, Status: text, CancellationStage: text, Metrics: document, Events: document,
				Messages: document, Metadata: document, Tools: document, Requirements: document,
				Input: wire.RunInput{InputContent: text, Files: document},
			},
		} {
			want, err := wire.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := wire.AppendRun(nil, r); string(got) != string(want) {
				t.Errorf("appended\n%s\nwant\n%s", got, want)
			}
		}
	})
}

func TestARunIsEncodedWithoutAnAllocation(t *testing.T) { //nolint:paralleltest // it counts allocations
	run := &wire.Run{RunID: "r", Content: new("Hello"), Messages: json.RawMessage(`[{"id":"m"}]`)}
	room := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { wire.AppendRun(room, run) }); n > 0 {
		t.Errorf("%g allocations for a run, want none", n)
	}
}
