package scope

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRemedyCorrectsAScopeThatLooksMeant(t *testing.T) {
	t.Parallel()
	const one, all = `write "agents:web-search:run", or "agents:run" for all`, `write "agents:run"`
	for _, row := range []struct{ held, needed, want string }{
		{"agents:*", "agents:run", all},
		{"agents:*", "agents:web-search:run", one},
		{"*:run", "agents:run", all},
		{"agents:*:*", "agents:run", all},
		{"agents:web-search:*", "agents:web-search:run", `write "agents:web-search:run"`},
		{"agents:web*:run", "agents:web-search:run", `write "agents:web-search:run"`},
		{"agents::run", "agents:run", all},
		{":agents:run:", "agents:run", all},
		{"AGENTS:RUN", "agents:run", all},
		{"Agents:Web-Search:Run", "agents:web-search:run", `write "agents:web-search:run"`},
		{" agents:run", "agents:run", all},
		{"agents:read agents:run", "agents:run", "write each scope as a separate string"},
		{"agents:read,agents:*", "agents:run", "write each scope as a separate string"},
		{"SYSTEM:read", "config:read", `write "config:read"`},

		{"agents:read", "agents:run", ""},
		{"agents:finance:run", "agents:web-search:run", ""},
		{"agents:web*:run", "agents:finance:run", ""},
		{"agents:web-search:run", "agents:run", ""}, // correct, but for one agent only
		{"sessions:*", "agents:run", ""},
		{"agents:read sessions:run", "agents:run", ""},
		{"agents", "agents:run", ""},
		{"*", "agents:run", ""},
		{"a:b:c:d", "agents:run", ""},
		{"agents:[:run", "agents:web-search:run", ""},
		{"", "agents:run", ""},
		{" , ", "agents:run", ""},
		{strings.Repeat("*", 10_000) + ":run", "agents:run", ""},
	} {
		if got := Remedy(row.held, need(t, row.needed)); got != row.want {
			t.Errorf("%.60q for %s: %q, want %q", row.held, row.needed, got, row.want)
		}
	}
}

// A scope that follows the advice grants the need.
func TestRemedyGrantsTheNeed(t *testing.T) {
	t.Parallel()
	resource := rapid.SampledFrom([]string{"agents", "AGENTS", "agent*", "*", "a?ents", "", "[a", "system"})
	id := rapid.SampledFrom([]string{"", ":a", ":A", ":a-b", ":a*", ":*", ":**", ":", "::a", ":a:a"})
	action := rapid.SampledFrom([]string{":run", ":RUN", ":*", ":r?n", "::run", ":", " agents:run", ":read", "run"})
	advised := 0
	rapid.Check(t, func(t *rapid.T) {
		held := resource.Draw(t, "resource") + id.Draw(t, "id") + action.Draw(t, "action")
		needed := rapid.SampledFrom([]string{"", "a", "A", "a-b", "*", "a:b", "a b"}).Draw(t, "needed")
		n := Need{Resource: "agents", ID: needed, Action: "run"}
		_, rest, quoted := strings.Cut(Remedy(held, n), `"`)
		if !quoted {
			return
		}
		advised++
		for text := range strings.SplitSeq(`"`+rest, ", or ") {
			advice, _, _ := strings.Cut(text[1:], `"`)
			if !NewSet([]string{advice}, "").Covers(n) || n.ID == "*" {
				t.Fatalf("%q for %s: %q does not help", held, n, advice)
			}
		}
	})
	if advised == 0 {
		t.Error("no scope got any advice, so that the property was never tested")
	}
}
