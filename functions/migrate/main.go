// Command migrate is the Lambda function that brings the database schema up to date
// when a stack is deployed: a custom resource of CloudFormation, whose failure fails
// the deployment. Invoked by hand, it answers what it did.
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
	cfg, err := deployed.Config(config.Keys, config.Shown, config.Runs)
	m := migration{cfg: cfg, refused: err, log: log} // told with the resource: CloudFormation would wait an hour for a function that ended
	resource := cfn.LambdaWrap(m.resource)
	lambda.Start(func(ctx context.Context, data json.RawMessage) (any, error) {
		var e cfn.Event
		if json.Unmarshal(data, &e) == nil && e.ResponseURL != "" {
			return resource(ctx, e)
		}
		return m.run(ctx)
	})
}
