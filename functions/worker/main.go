// Command worker is the Lambda function that carries the runs that wait: those that
// SQS delivers, and, when the schedule calls it, it hands those whose process died to
// SQS.
package main

import (
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/keyway-agents/keyway/shared/coldstart"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/obs"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/roster"
)

func main() {
	log := obs.NewLogger(os.Stderr, false)
	f := coldstart.Function{Name: "worker", Without: []config.Part{config.Keys, config.ToolNames}, Agents: roster.Open, Queue: sqs.Open}
	runner, db, err := f.Worker(log)
	if err != nil {
		coldstart.Refuse(log, string(f.Name), err)
	}
	lambda.Start(worker{runner, db, log}.handle)
}
