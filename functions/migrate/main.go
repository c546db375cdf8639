// Command migrate is the Lambda function that updates the database schema when a stack
// is deployed. It is a custom resource of CloudFormation: if it fails, the deployment
// fails. Invoked by hand, it returns the schema's version before and after.
package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/aws/aws-lambda-go/cfn"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/deployed"
	"github.com/keyway-agents/keyway/shared/logging"
)

func main() {
	log := logging.NewLogger(os.Stderr, false)
	// Unlike the other functions, this one starts with an invalid configuration too, and
	// reports the error as the resource's failure. If the process ended instead,
	// CloudFormation would get no answer and wait until its timeout.
	cfg, err := deployed.Config(config.Keys, config.Shown, config.Runs)
	m := migration{cfg: cfg, cfgErr: err, log: log}
	resource := cfn.LambdaWrap(m.resource)
	lambda.Start(func(ctx context.Context, data json.RawMessage) (any, error) {
		var e cfn.Event
		if json.Unmarshal(data, &e) == nil && e.ResponseURL != "" {
			return resource(ctx, e)
		}
		return m.run(ctx)
	})
}
