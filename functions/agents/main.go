// Command agents is the Lambda function that lists the agents. It uses no database and
// no model, so neither needs to be configured for it.
package main

import (
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{
		Name:    route.Agents,
		Without: []config.Part{config.Keys, config.Data, config.Runs},
	})
}
