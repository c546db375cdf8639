// Command config is the Lambda function that answers requests about the OS itself: its
// configuration, its health and its documentation. It uses no database and no model.
package main

import (
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	lambdaboot.Serve(lambdaboot.Function{
		Name:    route.Settings,
		Without: []config.Part{config.Keys, config.Data, config.Runs},
	})
}
