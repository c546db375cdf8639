// Command runs is the Lambda function that runs agents: the only one behind API Gateway
// that streams, and that links models and tools.
package main

import (
	"github.com/keyway-agents/keyway/shared/coldstart"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/roster"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	coldstart.Serve(coldstart.Function{Name: route.Runs, Without: []config.Part{config.Keys, config.ToolNames}, Agents: roster.Open, Queue: sqs.Open})
}
