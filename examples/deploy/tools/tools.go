// Package tools holds the operator's own tools in Go. The functions of a deployment use
// them beside the built-in ones.
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

// All are the tools of this package. The agents of keyway.yaml can name them.
var All = []tool.Tool{tool.Func("in_stock", "Return how many of an article the shop has.", inStock)}

// Open opens the agents of keyway.yaml with the tools of this package. It replaces
// agents.Open in the functions runs and worker.
func Open(cfg *config.Config, lookup func(string) (string, bool)) ([]run.Agent, error) {
	return agents.Options{Lookup: lookup, Tools: All}.Open(cfg, cfg.Agents)
}

// stock is the data of the shop. A real tool would read a database here.
var stock = map[string]int{"tea": 12, "coffee": 0}

// article is the tool's argument. The model sees the schema that is made from it.
type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
}

// inStock gets the user from the verified token, because a user id in the arguments would be
// the model's choice, which the text of a message can influence.
func inStock(ctx context.Context, a article) (string, error) {
	have, known := stock[strings.ToLower(a.Name)]
	if !known {
		return "", fmt.Errorf("the shop has no article %q; it has tea and coffee", a.Name)
	}
	return fmt.Sprintf("%d of %s, says the shop to %s", have, a.Name, tool.CallerFrom(ctx).UserID), nil
}
