// Command runs is the Lambda function that executes runs in the foreground. It is the
// only function behind API Gateway that streams its answers, and the only one that links
// models and tools. It puts background runs into the queue for the worker.
package main

import (
	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/trace/otlp"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{
		Name:    route.Runs,
		Without: []config.Part{config.Keys, config.ToolNames},
		Agents:  agents.Open,
		Queue:   sqs.Open,
		Trace:   otlp.Open,
	})
}
