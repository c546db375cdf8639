package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
)

// article is the argument of the tool. The model reads the schema that is made of it.
type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
}

// inStock is a tool in Go. It knows the caller from the verified token and never from
// the model.
func inStock(ctx context.Context, a article) (string, error) {
	return fmt.Sprintf("12 of %s in stock, reserved for %s", a.Name, tool.CallerFrom(ctx).UserID), nil
}

// A program's main function is one call. The result is the whole keyway command, with
// serve, config check, can and the others, and it knows the tool and the agent.
func ExampleMain() {
	stock := tool.Func("in_stock", "Report how many of an article the shop has.", inStock)
	cli.Main(cli.Options{
		// An agent of keyway.yaml uses the tool by its name: tools: [in_stock].
		Tools: []tool.Tool{stock},
		// An agent in Go is served beside those of keyway.yaml.
		Agents: []run.Agent{{
			Agent: config.Agent{ID: "counter", Description: "Looks articles up."},
			Model: demo.New("demo"),
			Tools: []tool.Set{stock},
		}},
	})
}

// Run runs one command inside a program, here to explain a decision about an agent that
// is declared in Go. keyway.yaml then needs no agents of its own.
func ExampleRun() {
	dir, err := os.MkdirTemp("", "keyway-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "keyway.yaml")
	if err := os.WriteFile(file, []byte("id: my-agent-os\n"), 0o600); err != nil {
		panic(err)
	}
	options := cli.Options{Agents: []run.Agent{{Agent: config.Agent{ID: "counter"}, Model: demo.New("demo")}}}
	code := cli.Run(context.Background(),
		[]string{"--config", file, "can", "--scopes", "agents:counter:read", "POST", "/agents/counter/runs"}, options)
	fmt.Println("exit code", code)
	// Output:
	// denied: the route is POST /agents/{agent_id}/runs; it needs agents:run; the token does not grant agents:counter:run
	// exit code 3
}
