package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

const mergeWords = `You keep notes about one person. Write one note that says everything the notes below say and nothing else:
keep every fact, name each once, put together what belongs together, in the third person. Answer with the note alone.`

// cutShort are the vendors' words for an answer that stopped at a limit.
var cutShort = []string{"length", "max_output_tokens", "max_tokens", "model_context_window_exceeded"}

// Merge asks a model to make one text of several notes about a person. modelID is
// "provider:id" of a declared agent's model, or "" for the first agent's: another
// one is fault.Invalid, since this OS has no key for it.
func (r *Runner) Merge(ctx context.Context, modelID string, notes []string) (string, error) {
	agent, err := r.modelNamed(modelID)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, agent.Timeout)
	defer cancel()
	var text strings.Builder
	var end *model.End
	for part, err := range agent.Model.Stream(ctx, model.Request{Whole: true, Messages: []model.Message{
		{Role: model.System, Content: mergeWords},
		{Role: model.User, Content: "- " + strings.Join(notes, "\n- ")},
	}}) {
		if err != nil {
			return "", fmt.Errorf("merge notes: %w", err)
		}
		text.WriteString(storable(part.Text))
		end = part.End
	}
	merged := strings.TrimSpace(text.String())
	if end == nil || slices.Contains(cutShort, end.FinishReason) || merged == "" {
		return "", fault.Public(fault.Upstream, "The model gave no whole note; the memories are as they were", errors.New("merge notes: cut or empty"))
	}
	return merged, nil
}

func (r *Runner) modelNamed(id string) (Agent, error) {
	var known []string
	for _, a := range r.order {
		name := a.Agent.Model.Provider + ":" + a.Agent.Model.ID
		if id == "" || id == name {
			return a, nil
		}
		known = append(known, name)
	}
	return Agent{}, fault.Public(fault.Invalid, fmt.Sprintf("no agent has the model %q; use one of %s", id, strings.Join(known, ", ")), nil)
}
