package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/tool"
)

// recordedTools are the tools of the agents from which AgentOS's answers were recorded.
var recordedTools = []tool.Tool{
	answering("web_search", "Search the web.", "query", "3 results for %s: alpha, beta, gamma"),
	answering("search_docs", "Search the Agno docs.", "query", "docs hit for %s"),
	answering("get_stock_price", "Current price of a stock symbol.", "symbol", "%s 100.00 USD"),
	{
		Name: "boom", Description: "A tool that raises.", Parameters: textSchema("why"),
		Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			why, err := argument(arguments, "why")
			if err != nil {
				return "", err
			}
			return "", fmt.Errorf("boom: %s", why)
		},
	},
	{
		Name: "delete_account", Description: "Delete an account; a human must confirm.",
		Parameters: textSchema("account_id"), Confirm: true,
		Call: answer("account %s deleted", "account_id"),
	},
	{
		Name: "send_mail", Description: "Send a mail; the human supplies the address.",
		Parameters: textSchema("subject", "to_address"), UserInput: []string{"to_address"},
		Call: answer("mail '%s' sent to %s", "subject", "to_address"),
	},
	{Name: "external_job", Description: "Executed outside of the agent.",
		Parameters: textSchema("command"), External: true},
}

// answering returns a tool that formats its one argument into its answer.
func answering(name, description, parameter, format string) tool.Tool {
	return tool.Tool{Name: name, Description: description, Parameters: textSchema(parameter),
		Call: answer(format, parameter)}
}

func answer(format string, parameters ...string) func(context.Context, json.RawMessage) (string, error) {
	return func(_ context.Context, arguments json.RawMessage) (string, error) {
		values := make([]any, len(parameters))
		for i, name := range parameters {
			v, err := argument(arguments, name)
			if err != nil {
				return "", err
			}
			values[i] = v
		}
		return fmt.Sprintf(format, values...), nil
	}
}

// textSchema returns the JSON schema of an object whose members are required texts.
func textSchema(parameters ...string) json.RawMessage {
	properties := map[string]any{}
	for _, name := range parameters {
		properties[name] = map[string]string{"type": "string"}
	}
	schema, err := json.Marshal(map[string]any{"type": "object", "properties": properties, "required": parameters})
	if err != nil {
		panic(err) // a map of strings can always be encoded
	}
	return schema
}

func argument(arguments json.RawMessage, name string) (string, error) {
	var all map[string]string
	err := json.Unmarshal(arguments, &all)
	return all[name], err
}
