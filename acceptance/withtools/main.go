// Command withtools is keyway with the tools that the acceptance tests need. It
// decides nothing about a server: everything after its own flags is keyway's command
// line.
//
//	withtools -- serve --addr 127.0.0.1:0
//
// With -recorded it has the tools of the agents that AgentOS was recorded with, in
// place of its usual ones. With -leaks it fails when keyway, after it has stopped, has
// goroutines or files open.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

func main() {
	devpg.HoldIfAsked() // before the flags: the process that holds PostgreSQL is this program without any
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
