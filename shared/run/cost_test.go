package run_test

import (
	"context"
	"encoding/json"
	"iter"
	"runtime"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// talker is a model whose answers have so many tokens.
type talker struct{ tokens int }

func (talker) Describe() model.Description { return model.Describe("openai", "gpt-4o") }

func (m *talker) Stream(context.Context, model.Request) iter.Seq2[model.Part, error] {
	data := json.RawMessage(`{"id":"chatcmpl-1"}`)
	return func(yield func(model.Part, error) bool) {
		for range m.tokens {
			if !yield(model.Part{Text: " word", ProviderData: data}, nil) {
				return
			}
		}
		yield(model.Part{End: &model.End{FinishReason: "stop"}}, nil)
	}
}

// A token costs the event that consumers receive, and a part of the memory that holds its frame. The difference of two
// long answers leaves out what a run itself costs. The test is not parallel, because others would allocate meanwhile.
func TestATokenCostsFewAllocations(t *testing.T) { //nolint:paralleltest // see above
	const few, many = 500, 4500
	m := &talker{}
	r := newRunner(storetest.New(t), config.Agent{}, m)
	allocated := func(tokens int) (count, bytes uint64) {
		var before, after runtime.MemStats
		m.tokens = tokens
		runtime.ReadMemStats(&before)
		events := 0
		for e, err := range r.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", Message: "m", Streamed: true}) {
			if err != nil || e.Frame == nil {
				t.Fatalf("an event without a frame: %v", err)
			}
			events++
		}
		runtime.ReadMemStats(&after)
		if events < tokens {
			t.Fatalf("%d events for %d tokens", events, tokens)
		}
		return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
	}
	allocated(few) // The first run opens a connection.
	count, bytes := allocated(few)
	countMany, bytesMany := allocated(many)
	perToken, bytesOf := float64(countMany-count)/(many-few), float64(bytesMany-bytes)/(many-few)
	// One allocation is the event. The frame has some 300 bytes, and is copied to the statement and to the connection.
	if perToken > 2.5 || bytesOf > 2500 {
		t.Errorf("a token costs %.1f allocations and %.0f bytes", perToken, bytesOf)
	}
	t.Logf("a token costs %.2f allocations and %.0f bytes", perToken, bytesOf)
}
