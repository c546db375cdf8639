// Command withtools is keyway with the tools that the acceptance tests call. The arguments
// after its own flags are keyway's command line.
//
//	withtools -- serve --addr 127.0.0.1:0
//
// With -recorded it has the tools of the agents from which AgentOS's answers were recorded,
// instead of its usual tools. With -leaks it exits with 1 if keyway leaves goroutines or
// files open when it stops.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

func main() {
	// The process that holds the embedded PostgreSQL is this program, started again without
	// flags, so this comes before their parsing.
	devpg.HoldIfAsked()
	recorded := flag.Bool("recorded", false, "have the tools that AgentOS was recorded with")
	leaks := flag.Bool("leaks", false, "fail when goroutines or files are open after keyway has stopped")
	flag.Parse()
	options := cli.Options{Tools: usualTools()}
	if *recorded {
		options.Tools = recordedTools
	}
	keyway := func() int { return cli.Run(context.Background(), flag.Args(), options) }
	if *leaks {
		os.Exit(withoutLeaks(keyway))
	}
	os.Exit(keyway())
}
