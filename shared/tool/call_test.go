package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

func TestACallHasOneOutcomeWhateverTheToolDoes(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		do   func() (string, error)
		want tool.Outcome
	}{
		"a result": {func() (string, error) { return "sunny", nil }, tool.Outcome{Text: "sunny"}},
		"an ordinary error": {func() (string, error) { return "x", errors.New("no such city") }, tool.Outcome{
			Text: "no such city", Failed: true,
		}},
		"a public error": {func() (string, error) {
			return "", fmt.Errorf("GET http://10.0.0.1: %w",
				fault.Public(fault.Upstream, "the service does not answer", errors.New("dial tcp 10.0.0.1")))
		}, tool.Outcome{Text: "the service does not answer", Failed: true}},
		"a panic": {func() (string, error) { panic("index of a secret") }, tool.Outcome{
			Text: "Error: weather failed with an internal error.", Failed: true, Panicked: "index of a secret",
		}},
	} {
		one := tool.Tool{Name: "weather", Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			if string(arguments) != `{"city":"Oslo"}` {
				t.Errorf("%s: the tool received %s", name, arguments)
			}
			return row.do()
		}}
		calls := 0
		now := func() time.Time {
			calls++
			return start.Add(time.Duration(calls) * time.Second)
		}
		row.want.Start, row.want.End = start.Add(time.Second), start.Add(2*time.Second)
		got := tool.Call(t.Context(), one, json.RawMessage(`{"city":"Oslo"}`), now)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestALongResultIsTruncatedAtACharacter(t *testing.T) {
	t.Parallel()
	const limit = 100 << 10
	fits := strings.Repeat("a", limit)
	if tool.Truncate(fits) != fits {
		t.Error("a text of 100 KiB is truncated")
	}
	// The limit is inside the last character, which has two bytes.
	want := fits[:limit-1] + "\n[The answer had 102401 bytes; only the first 102400 are shown.]"
	if got := tool.Truncate(fits[:limit-1] + "é"); got != want {
		t.Errorf("it ends with %q", got[limit-10:])
	}
	long := tool.Tool{Name: "long", Call: func(context.Context, json.RawMessage) (string, error) {
		return fits + fits, errors.New(fits + "b")
	}}
	if got := tool.Call(t.Context(), long, nil, time.Now).Text; got != tool.Truncate(fits+"b") {
		t.Errorf("the text of an error has %d bytes", len(got))
	}
}
