// Package tools is what the functions of a deployment add to the built-in tools, in Go.
package tools

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
)

// All are the tools that keyway.yaml's agents may name.
var All = []tool.Tool{tool.Func("in_stock", "Tell how many of an article the shop has.", inStock)}

// Open opens the agents of keyway.yaml with them, in agents.Open's place.
func Open(cfg *config.Config, lookup func(string) (string, bool)) ([]run.Agent, error) {
	return agents.Options{Lookup: lookup, Tools: All}.Open(cfg, cfg.Agents)
}

// stock stands for a database of one's own.
var stock = map[string]int{"tea": 12, "coffee": 0}

type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
}

// inStock knows for whom it answers from the verified token, never from the model.
func inStock(ctx context.Context, a article) (string, error) {
	have, known := stock[strings.ToLower(a.Name)]
	if !known {
		return "", fmt.Errorf("there is no article %q; there are tea and coffee", a.Name)
	}
	return fmt.Sprintf("%d of %s, says the shop to %s", have, a.Name, tool.CallerFrom(ctx).UserID), nil
}
