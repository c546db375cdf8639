// Command config is the Lambda function that answers what is asked about the OS itself.
package main

import (
	"github.com/keyway-agents/keyway/shared/coldstart"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	coldstart.Serve(coldstart.Function{Name: route.Settings, Without: []config.Part{config.Keys, config.Data, config.Runs}})
}
