// Command agents is the Lambda function that answers which agents there are.
package main

import (
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{Name: route.Agents, Without: []config.Part{config.Keys, config.Data, config.Runs}})
}
