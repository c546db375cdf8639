package openai

import (
	"encoding/json"
	"testing"

	"github.com/keyway-agents/keyway/shared/wire"
)

// FuzzText compares with encoding/json, which the events of AgentOS's protocol are written with.
func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "é €😀 <&>", "\u0085\u2028\u2029", "\xff\xc3(", "\ufffd",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := wire.AppendText(nil, s)
		var back, want string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%q becomes %s: %v", s, got, err)
		}
		data, _ := wire.Marshal(s)
		_ = json.Unmarshal(data, &want)
		if back != want {
			t.Errorf("%q becomes %s, which is read as %q", s, got, back)
		}
		if string(wire.EscapeLines(got)) != string(got) {
			t.Errorf("%s contains a line end", got)
		}
	})
}
