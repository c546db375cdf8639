// Command worker is the Lambda function that executes background runs. SQS invokes it with
// the ids of pending runs. A schedule invokes it without any, and it then puts orphaned
// runs (runs whose process crashed) back into the queue, and deletes data that is too old.
package main

import (
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/notify"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/trace/otlp"
)

func main() {
	log := logging.NewLogger(os.Stderr, false)
	f := lambdaboot.Function{
		Name:    "worker",
		Without: []config.Part{config.Keys, config.ToolNames},
		Agents:  agents.Open,
		Queue:   sqs.Open,
		Trace:   otlp.Open,
	}
	w := worker{log: log}
	var err error
	if w.Worker, err = f.Worker(log); err == nil {
		w.notices, err = notify.New(w.Notify, w.DB, log, time.Now)
	}
	if err != nil {
		logging.Exit(log, "the function "+string(f.Name), err)
	}
	lambda.Start(w.handle)
}
