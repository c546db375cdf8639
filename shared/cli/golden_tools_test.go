package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keyway-agents/keyway/shared/tool"
)

// recordedTools are the tools of the agents that AgentOS was recorded with.
var recordedTools = Own{Tools: []tool.Tool{
	answering("web_search", "Search the web.", "query", "3 results for %s: alpha, beta, gamma"),
	answering("search_docs", "Search the Agno docs.", "query", "docs hit for %s"),
	answering("get_stock_price", "Current price of a stock symbol.", "symbol", "%s 100.00 USD"),
	{
		Name: "boom", Description: "A tool that raises.", Parameters: oneText("why"),
		Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			why, err := argument(arguments, "why")
			return "", errors.Join(err, fmt.Errorf("boom: %s", why))
		},
	},
}}

// answering is a tool with one argument that it puts into its answer.
func answering(name, description, parameter, answer string) tool.Tool {
	return tool.Tool{
		Name: name, Description: description, Parameters: oneText(parameter),
		Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			s, err := argument(arguments, parameter)
			return fmt.Sprintf(answer, s), err
		},
	}
}

func oneText(parameter string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"object","properties":{%[1]q:{"type":"string"}},"required":[%[1]q]}`, parameter))
}

func argument(arguments json.RawMessage, name string) (string, error) {
	var all map[string]string
	err := json.Unmarshal(arguments, &all)
	return all[name], err
}
