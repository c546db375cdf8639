// Command own-tools is the whole keyway command with a tool, a model and an agent that are
// written in Go. Copy it as the start of a program of your own; README.md shows how to run
// it and how to move it into a module of your own.
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

// 1. A tool.

// stock is the data of the shop. A real tool would read a database here.
var stock = map[string]int{"tea": 12, "coffee": 0}

// article is the parameters of the tool. The model sees each field: its name is in the
// json tag, its description in the jsonschema tag. A field with omitempty is optional.
type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
	Want int    `json:"want,omitempty" jsonschema:"how many are wanted; 1 by default"`
}

// inStock is the work of the tool. The text that it returns is the result, which the model
// reads. The model reads an error too, so that it can correct its call.
//
// The user comes from the verified token, never from the model: the text of a message can
// make a model name another user.
func inStock(ctx context.Context, a article) (string, error) {
	have, known := stock[strings.ToLower(a.Name)]
	if !known {
		return "", fmt.Errorf("there is no article %q; there are tea and coffee", a.Name)
	}
	user := tool.CallerFrom(ctx).UserID
	return fmt.Sprintf("%d of %s in stock, enough for %s: %t", have, a.Name, user, have >= max(a.Want, 1)), nil
}

// 2. A model. Most programs don't need their own: in keyway.yaml an agent names a model of
// OpenAI, Anthropic or Amazon Bedrock.

// clerk is a model that uses no language model. It calls the tool in_stock with the user's
// message as the name of the article, and answers with the tool's result.
type clerk struct{}

// Describe implements model.Model. Clients see these names.
func (clerk) Describe() model.Description {
	return model.Description{ID: "clerk-1", Name: "Clerk", Provider: "Shop", Family: "Shop"}
}

// Stream implements model.Model. It returns a sequence of parts: any number of parts with
// text, and then one part with End. It is called once for each step of a run: first with
// the user's message, and again after the tool call, with the tool's result as the last
// message.
func (clerk) Stream(_ context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		last := r.Messages[len(r.Messages)-1]

		// The second step: answer with the tool's result. yield returns false when the
		// run no longer reads the answer; nothing may be yielded after that.
		if last.Role == model.ToolRole {
			if yield(model.Part{Text: last.Content}, nil) {
				yield(model.Part{End: &model.End{FinishReason: "stop"}}, nil)
			}
			return
		}

		// The first step: request a call of the tool. It needs no ID: the run loop makes
		// one.
		arguments, err := json.Marshal(article{Name: last.Content})
		if err != nil {
			yield(model.Part{}, err)
			return
		}
		call := model.ToolCall{Name: "in_stock", Arguments: string(arguments)}
		yield(model.Part{End: &model.End{ToolCalls: []model.ToolCall{call}, FinishReason: "tool_calls"}}, nil)
	}
}

// 3. The program.

func main() {
	look := tool.Func("in_stock", "Returns how many of an article the shop has.", inStock)
	cli.Main(cli.Options{
		// The agents in keyway.yaml can name these tools: "tools: [in_stock]".
		Tools: []tool.Tool{look},
		// These agents are served beside those in keyway.yaml.
		Agents: []run.Agent{{
			Agent: config.Agent{ID: "counter", Name: "Counter", Description: "Looks articles up."},
			Model: clerk{},
			Tools: []tool.Set{look},
		}},
	})
}
