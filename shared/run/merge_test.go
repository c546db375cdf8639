package run_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

func TestNotesAreMergedByADeclaredAgentsModel(t *testing.T) {
	t.Parallel()
	b := newBenchFor(t, config.Agent{Model: config.Model{Provider: "openai", ID: "m-1"}}, replies(" One ", "note.\n"))
	for _, id := range []string{"", "openai:m-1"} {
		got, err := b.runner.Merge(t.Context(), id, []string{"likes tea", "lives in Oslo"})
		if err != nil || got != "One note." {
			t.Errorf("%q %v", got, err)
		}
	}
	if requests := b.model.requests()[0].Messages; !strings.Contains(requests[1].Content,
		"- likes tea\n- lives in Oslo") || requests[0].Role != model.System {
		t.Errorf("%+v", requests)
	}
	if _, err := b.runner.Merge(t.Context(), "openai:other", nil); !errors.Is(err, fault.Invalid) ||
		!strings.Contains(err.Error(), "openai:m-1") {
		t.Errorf("%v", err)
	}
}

func TestAnIncompleteMergedNoteIsAnError(t *testing.T) {
	t.Parallel()
	cut := func(reason string) answer {
		return func(_ context.Context, send func(model.Part) bool) error {
			send(model.Part{Text: "half a"})
			send(model.Part{End: &model.End{FinishReason: reason}})
			return nil
		}
	}
	for name, answer := range map[string]answer{
		"cut by OpenAI": cut("length"), "cut by its Responses API": cut("max_output_tokens"),
		"cut by Bedrock": cut("max_tokens"), "too long for the model": cut("model_context_window_exceeded"),
		"empty": replies(" "), "failed": fails(fault.Public(fault.Upstream, "no", nil), "x"),
	} {
		b := newBench(t, answer)
		if got, err := b.runner.Merge(t.Context(), "", []string{"a"}); !errors.Is(err, fault.Upstream) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}
