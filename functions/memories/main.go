// Command memories is the Lambda function that answers what is asked of memories.
package main

import (
	"github.com/keyway-agents/keyway/shared/coldstart"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

func main() {
	coldstart.Serve(coldstart.Function{Name: route.Memories, Without: []config.Part{config.Keys, config.Runs}})
}
