package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// Merge asks a model to combine several notes about a person into one text, and returns that text. modelID has the
// form "provider:id" and must name a model that one of the configured agents uses; "" means the model of the first
// agent. Any other model is fault.Invalid, because this server has no credentials for it. If the model fails, or its
// answer is empty or cut off, the error is fault.Upstream.
func (r *Runner) Merge(ctx context.Context, modelID string, notes []string) (string, error) {
	agent, err := r.agentWithModel(modelID)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, agent.Timeout)
	defer cancel()
	// The notes are one message with a list, and the instruction is another, so that a note cannot easily pose as an
	// instruction.
	var text strings.Builder
	var end *model.End
	for part, err := range agent.Model.Stream(ctx, model.Request{Whole: true, Messages: []model.Message{
		{Role: model.System, Content: mergePrompt},
		{Role: model.User, Content: "- " + strings.Join(notes, "\n- ")},
	}}) {
		if err != nil {
			return "", fmt.Errorf("merge notes: %w", err)
		}
		text.WriteString(pgvalue.CleanText(part.Text))
		end = part.End
	}
	merged := strings.TrimSpace(text.String())
	if end == nil || slices.Contains(truncatedReasons, end.FinishReason) || merged == "" {
		return "", fault.Public(fault.Upstream, "The model returned an incomplete note; the memories are unchanged",
			errors.New("merge notes: the answer is truncated or empty"))
	}
	return merged, nil
}

// agentWithModel finds a model among those of the declared agents, since only these have been opened. It returns the
// first agent whose configured model is id ("provider:id"), or the first agent if id is "".
func (r *Runner) agentWithModel(id string) (Agent, error) {
	var known []string
	for _, a := range r.order {
		name := a.Agent.Model.Provider + ":" + a.Agent.Model.ID
		if id == "" || id == name {
			return a, nil
		}
		known = append(known, name)
	}
	text := fmt.Sprintf("no agent has the model %q; use one of %s", id, strings.Join(known, ", "))
	return Agent{}, fault.Public(fault.Invalid, text, nil)
}
