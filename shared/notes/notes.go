// Package notes combines several notes about a person into one. A model of a declared agent writes the combined note.
package notes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
)

const mergePrompt = "You keep notes about one person. " +
	"Write one note that says everything the notes below say and nothing else:\n" +
	"keep every fact, name each once, put together what belongs together, in the third person. " +
	"Answer with the note alone."

// truncatedReasons are the finish reasons by which providers report an answer that stopped at a limit. A note that
// was cut off must not replace the notes it was made from.
var truncatedReasons = []string{"length", "max_output_tokens", "max_tokens", "model_context_window_exceeded"}

// Model is the opened model of a declared agent.
type Model struct {
	model.Model
	// Name has the form "provider:id", as the agent's configuration names the model. Required.
	Name string
	// Timeout is the agent's time limit. It bounds one merge. Required.
	Timeout time.Duration
	// Cost returns what tokens of the model cost, in millionths of a US dollar. Defaults to nothing.
	Cost func(model.Usage) int64
}

// Spent is what a merge has used, also one that has failed after its answer.
type Spent struct {
	Tokens   int
	MicroUSD int64 // millionths of a US dollar
}

// Models are the models of the declared agents, in the order of declaration. Only these models can merge notes, because
// only these have been opened.
type Models []Model

// Merge asks a model to combine several notes about a person into one text, and returns that text. name is the
// Model.Name of one of the models; "" means the first model. Any other model is fault.Invalid, because this server has
// no credentials for it. If the model fails, or its answer is empty or cut off, the error is fault.Upstream.
func (m Models) Merge(ctx context.Context, name string, notes []string) (merged string, spent Spent, err error) {
	chosen, err := m.named(name)
	if err != nil {
		return "", spent, err
	}
	ctx, cancel := context.WithTimeout(ctx, chosen.Timeout)
	defer cancel()
	// The notes are one message with a list, and the instruction is another, so that a note cannot easily pose as an
	// instruction.
	var text strings.Builder
	var end *model.End
	for part, err := range chosen.Stream(ctx, model.Request{Whole: true, Messages: []model.Message{
		{Role: model.System, Content: mergePrompt},
		{Role: model.User, Content: "- " + strings.Join(notes, "\n- ")},
	}}) {
		if err != nil {
			return "", spent, fmt.Errorf("merge notes: %w", err)
		}
		text.WriteString(pgvalue.CleanText(part.Text))
		end = part.End
	}
	if end != nil {
		spent.Tokens = end.Usage.Total
		if chosen.Cost != nil {
			spent.MicroUSD = chosen.Cost(end.Usage)
		}
	}
	merged = strings.TrimSpace(text.String())
	if end == nil || slices.Contains(truncatedReasons, end.FinishReason) || merged == "" {
		return "", spent, fault.Public(fault.Upstream, "The model returned an incomplete note; the memories are unchanged",
			errors.New("merge notes: the answer is truncated or empty"))
	}
	return merged, spent, nil
}

// Knows returns nil if Merge accepts the name of a model, and its error otherwise.
func (m Models) Knows(name string) error {
	_, err := m.named(name)
	return err
}

// named returns the first model with this name, or the first of all if name is "".
func (m Models) named(name string) (Model, error) {
	var known []string
	for _, one := range m {
		if name == "" || name == one.Name {
			return one, nil
		}
		known = append(known, one.Name)
	}
	text := fmt.Sprintf("no agent has the model %q; use one of %s", name, strings.Join(known, ", "))
	return Model{}, fault.Public(fault.Invalid, text, nil)
}
