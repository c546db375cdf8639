package cli

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/tool"
)

// Options are what a Go program adds to the keyway command, and the streams and
// the environment that the command uses. The zero value is plain keyway.
type Options struct {
	// Tools are tools written in Go. An agent of keyway.yaml uses one by naming it
	// in its list of tools. The name must differ from the built-in tools' names.
	// Defaults to none.
	Tools []tool.Tool

	// Agents are agents written in Go. They are served, listed and authorized like
	// the agents of keyway.yaml, and appear after them. Each needs an ID of its own
	// and a Model. An empty Name becomes the ID; Timeout and NumHistoryRuns default
	// to what keyway.yaml's agents have. Defaults to none.
	Agents []run.Agent

	// Stdout receives the command's data: a token, a decision, JSON.
	// Defaults to os.Stdout.
	Stdout io.Writer

	// Stderr receives everything else: progress, warnings, errors and the server's
	// log. Colours and readable log lines are used only if it is a terminal.
	// Defaults to os.Stderr.
	Stderr io.Writer

	// Stdin is where "--token -" and "--log -" read from. Defaults to os.Stdin.
	Stdin io.Reader

	// LookupEnv returns an environment variable, and whether it is set. The embedded
	// PostgreSQL is a child process and inherits the real environment all the same.
	// Defaults to os.LookupEnv.
	LookupEnv func(name string) (value string, set bool)

	// Now is the clock that tokens are verified with. Defaults to assemble.Now.
	Now func() time.Time
}

// Main runs the keyway command with the arguments of the process, and ends the
// process with the command's exit code. It never returns.
//
// Call it first in main: the process that watches over the embedded PostgreSQL is
// the same program, started again, and Main is where it recognizes its role.
func Main(o Options) {
	// In the holder of the embedded PostgreSQL this call does not return.
	devpg.HoldIfAsked()
	os.Exit(Run(context.Background(), os.Args[1:], o))
}

// Run runs one keyway command and returns its exit code: 0 for success, 1 for a
// failure, 2 for a wrong command line or a wrong keyway.yaml, and 3 for a denied
// request, a broken promise (test) or a changed decision (diff). args are the
// arguments without the program's name.
//
// The end of ctx stops "keyway serve" as SIGTERM does: runs in progress get their
// time to end. It cancels "keyway migrate". The other commands are short and
// ignore it.
//
// A program whose command starts the embedded PostgreSQL (serve without
// DATABASE_URL) must call devpg.HoldIfAsked first in main, which Main does itself.
func Run(ctx context.Context, args []string, o Options) int {
	// The streams are read here and not when the package is loaded, so that a test may
	// replace os.Stdout before it calls Run.
	e := env{own: o, out: o.Stdout, err: o.Stderr, in: o.Stdin, lookup: o.LookupEnv, now: o.Now}
	if e.out == nil {
		e.out = os.Stdout
	}
	if e.err == nil {
		e.err = os.Stderr
	}
	if e.in == nil {
		e.in = os.Stdin
	}
	if e.lookup == nil {
		e.lookup = os.LookupEnv
	}
	if e.now == nil {
		e.now = assemble.Now
	}
	return execute(ctx, args, e)
}
