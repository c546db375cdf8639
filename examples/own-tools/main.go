// Command own-tools is keyway with a tool, a model and an agent written in Go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
)

// stock stands for a database of one's own.
var stock = map[string]int{"tea": 12, "coffee": 0}

type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
	Want int    `json:"want,omitempty" jsonschema:"how many are wanted; 1 when left out"`
}

// inStock knows for whom it answers from the verified token, never from the model.
func inStock(ctx context.Context, a article) (string, error) {
	have, known := stock[strings.ToLower(a.Name)]
	if !known {
		return "", fmt.Errorf("there is no article %q; there are tea and coffee", a.Name)
	}
	who := tool.CallerFrom(ctx).UserID
	return fmt.Sprintf("%d of %s in stock, enough for %s: %t", have, a.Name, who, have >= max(a.Want, 1)), nil
}

// clerk is a model without a language model: it takes what the user says for an
// article, asks the tool, and says what the tool said.
type clerk struct{}

// Describe implements model.Model.
func (clerk) Describe() model.Description {
	return model.Description{ID: "clerk-1", Name: "Clerk", Provider: "Shop", Family: "Shop"}
}

// Stream implements model.Model.
func (clerk) Stream(_ context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		last := r.Messages[len(r.Messages)-1]
		if last.Role == model.ToolRole {
			if yield(model.Part{Text: last.Content}, nil) {
				yield(model.Part{End: &model.End{FinishReason: "stop"}}, nil)
			}
			return
		}
		arguments, err := json.Marshal(article{Name: last.Content})
		if err != nil {
			yield(model.Part{}, err)
			return
		}
		call := model.ToolCall{ID: fmt.Sprintf("call_%d", len(r.Messages)), Name: "in_stock", Arguments: string(arguments)}
		yield(model.Part{End: &model.End{ToolCalls: []model.ToolCall{call}, FinishReason: "tool_calls"}}, nil)
	}
}

func main() {
	look := tool.Func("in_stock", "Tell how many of an article the shop has.", inStock)
	cli.Main(cli.Options{
		Tools: []tool.Tool{look}, // keyway.yaml's agents name it in tools
		Agents: []run.Agent{{ // beside those of keyway.yaml
			Agent: config.Agent{ID: "counter", Name: "Counter", Description: "Looks articles up."},
			Model: clerk{},
			Tools: []tool.Set{look},
		}},
	})
}
