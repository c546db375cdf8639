// Command sessions is the Lambda function that reads and changes sessions in the
// database. It links no model and no tool.
package main

import (
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{
		Name:    route.Sessions,
		Without: []config.Part{config.Keys, config.Runs},
	})
}
