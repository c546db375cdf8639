// Command agents is the Lambda function that answers which agents there are.
package main

import (
	"github.com/keyway-agents/keyway/shared/coldstart"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	coldstart.Serve(coldstart.Function{Name: route.Agents, Without: []config.Part{config.Keys, config.Data, config.Runs}})
}
