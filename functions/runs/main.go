// Command runs is the Lambda function that runs agents: the only one behind API Gateway
// that streams, and that links models and tools.
package main

import (
	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{Name: route.Runs, Without: []config.Part{config.Keys, config.ToolNames}, Agents: agents.Open, Queue: sqs.Open})
}
