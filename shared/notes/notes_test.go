package notes_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/notes"
)

// fixed is a model that gives one answer to every request.
type fixed struct {
	parts []model.Part
	err   error // after the parts
	// request and deadline are those of the last call.
	request  model.Request
	deadline time.Time
}

func (*fixed) Describe() model.Description { return model.Description{} }

func (f *fixed) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	f.request = r
	f.deadline, _ = ctx.Deadline()
	return func(yield func(model.Part, error) bool) {
		for _, p := range f.parts {
			if !yield(p, nil) {
				return
			}
		}
		if f.err != nil {
			yield(model.Part{}, f.err)
		}
	}
}

// ended returns the parts of an answer with this text and this finish reason.
func ended(text, reason string) []model.Part {
	return []model.Part{{Text: text}, {End: &model.End{FinishReason: reason}}}
}

func TestNotesAreMergedByADeclaredAgentsModel(t *testing.T) {
	t.Parallel()
	first := &fixed{parts: append([]model.Part{{Text: " One "}}, ended("note.\n", "stop")...)}
	second := &fixed{parts: ended("Another note.", "stop")}
	models := notes.Models{
		{Model: first, Name: "openai:m-1", Timeout: time.Minute},
		{Model: second, Name: "openai:m-2", Timeout: time.Minute},
	}
	for name, want := range map[string]string{
		"": "One note.", "openai:m-1": "One note.", "openai:m-2": "Another note.",
	} {
		got, _, err := models.Merge(t.Context(), name, []string{"likes tea", "lives in Oslo"})
		if err != nil || got != want {
			t.Errorf("%q: %q %v", name, got, err)
		}
	}
	if sent := first.request.Messages; !strings.Contains(sent[1].Content, "- likes tea\n- lives in Oslo") ||
		sent[0].Role != model.System || !first.request.Whole {
		t.Errorf("%+v", first.request)
	}
	if left := time.Until(first.deadline); left <= 0 || left > time.Minute {
		t.Errorf("the model has %s for its answer", left)
	}
	if _, _, err := models.Merge(t.Context(), "openai:other", nil); !errors.Is(err, fault.Invalid) ||
		!strings.Contains(err.Error(), "openai:m-1, openai:m-2") {
		t.Errorf("%v", err)
	}
}

func TestAnIncompleteMergedNoteIsAnError(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]*fixed{
		"cut by OpenAI":            {parts: ended("half a", "length")},
		"cut by its Responses API": {parts: ended("half a", "max_output_tokens")},
		"cut by Bedrock":           {parts: ended("half a", "max_tokens")},
		"too long for the model":   {parts: ended("half a", "model_context_window_exceeded")},
		"empty":                    {parts: ended(" ", "stop")},
		"without an end":           {parts: []model.Part{{Text: "half a"}}},
		"failed":                   {parts: []model.Part{{Text: "x"}}, err: fault.Public(fault.Upstream, "no", nil)},
	} {
		models := notes.Models{{Model: answer, Name: "openai:m-1", Timeout: time.Minute}}
		if got, _, err := models.Merge(t.Context(), "", []string{"a"}); !errors.Is(err, fault.Upstream) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}
