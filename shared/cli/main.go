// Package cli is the keyway command: it serves agents to whom their token allows,
// and answers an operator's questions about keys, tokens and decisions. An
// operator's own program calls Main with tools, models and agents of its own.
package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// Exit codes besides 0: a failure, a mistake in use or configuration, a denial.
const (
	exitFailure = 1
	exitUsage   = 2
	exitDenied  = 3
)

// cli is the command line. Data goes to stdout, everything else to stderr.
type cli struct {
	Config string `short:"c" default:"keyway.yaml" placeholder:"FILE" help:"The description of the OS, YAML or JSON (keyway.yaml)."`
	Data   string `default:".keyway" placeholder:"DIR" help:"Where the local database, generated keys and decisions are kept (.keyway)."`
	JSON   bool   `name:"json" help:"Print JSON where a program may read the output."`

	Serve     serveCmd   `cmd:"" help:"Serve the agents over HTTP."`
	Token     tokenCmd   `cmd:"" help:"Sign a token."`
	Keys      keysCmd    `cmd:"" help:"Make keys."`
	Can       canCmd     `cmd:"" help:"Tell whether a token or scopes allow a request, and why."`
	Policy    policyCmd  `cmd:"" help:"Print what the authorizer returns for a token."`
	Test      testCmd    `cmd:"" help:"Hold keyway.yaml to a table of promises."`
	Diff      diffCmd    `cmd:"" help:"Tell what a changed keyway.yaml would allow and refuse of what was asked."`
	Routes    routesCmd  `cmd:"" help:"List the routes and the scopes they need."`
	Migrate   migrateCmd `cmd:"" help:"Bring the database schema up to date."`
	Build     buildCmd   `cmd:"" help:"Write keyway.json into what is deployed."`
	ConfigCmd configCmd  `cmd:"" name:"config" help:"Check keyway.yaml."`
	Version   versionCmd `cmd:"" help:"Print the version."`

	chosen bool // --config was given
}

// env is what a command acts on besides its flags, so that tests can be the
// outside world.
type env struct {
	own    Own
	cli    *cli
	out    io.Writer
	err    io.Writer
	in     io.Reader
	lookup func(string) (string, bool)
	now    func() time.Time // for tokens and keys
}

const description = `Serve LLM agents behind JWT scopes, with AgentOS's API.

Examples:

  keyway serve --dev                                   try it: a database, a key and tokens are made
  keyway token --sub ann --scopes agents:read,agents:web-search-agent:run
  keyway can --scopes agents:read POST /agents/web-search-agent/runs
  keyway config check`

// Own is what an operator's Go code adds to keyway.yaml. The zero Own adds nothing.
type Own struct {
	Tools  []tool.Tool // keyway.yaml's agents name them in tools
	Agents []run.Agent // served after those of keyway.yaml; ID and Model are required
}

// Main is the whole command; it ends the process.
func Main(own Own) {
	devpg.HoldIfAsked()
	os.Exit(execute(os.Args[1:], env{own: own, out: os.Stdout, err: os.Stderr, in: os.Stdin, lookup: os.LookupEnv, now: time.Now}))
}

// execute is main without the process: it returns the exit code.
func execute(args []string, e env) int {
	e.cli = &cli{}
	exit := -1
	parser, err := kong.New(e.cli, kong.Name("keyway"), kong.Description(description),
		kong.Writers(e.out, e.err), kong.Exit(func(code int) { exit = code }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(e.err, "keyway:", err)
		return exitFailure
	}
	ctx, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(e.err, "keyway: %s\nRun keyway --help, or keyway COMMAND --help.\n", jwtText.ReplaceAllString(err.Error(), "***"))
		return exitUsage
	}
	e.cli.chosen = slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == "config" })
	if err = ctx.Run(e); err == nil {
		return 0
	}
	if s, ok := errors.AsType[silent](err); ok {
		return int(s)
	}
	if _, ok := errors.AsType[config.Faults](err); ok {
		fmt.Fprintln(e.err, err) // each line begins with its place, for editors
	} else {
		fmt.Fprintln(e.err, "keyway:", jwtText.ReplaceAllString(err.Error(), "***"))
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

// jwtText finds a token that was typed where none belongs: what is said of it may
// end up in a log.
var jwtText = regexp.MustCompile(`eyJ[\w-]*\.[\w.-]+`)

// silent ends the program with a code when everything was said already.
type silent int

func (s silent) Error() string { return fmt.Sprintf("exit %d", int(s)) }

// usageError is a mistake of the user: exit code 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// noFile tells a newcomer how to begin.
const noFile = `there is no %s: name your file with --config, or begin with these lines in a new one
  id: my-agent-os
  agents: [{id: assistant, model: "openai:gpt-4o"}]
and try it with: keyway serve --dev`

// load reads keyway.yaml; the error holds every fault.
func (e env) load(dev bool) (*config.Config, error) {
	tools, err := builtin.Names(e.own.Tools)
	if err != nil {
		return nil, usageError{err}
	}
	agents, err := e.own.declared()
	if err != nil {
		return nil, usageError{err}
	}
	cfg, err := yamlfile.Load(e.cli.Config, config.Options{
		Lookup: e.lookup, Dev: dev, Check: notServed, Tools: tools, Agents: agents,
		MatchesRoute: func(method, pattern string) bool { return authz.Reaches(route.Table, method, pattern) },
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(noFile, e.cli.Config)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

// notServed finds what keyway.yaml may say and this version doesn't do.
func notServed(cfg *config.Config) (faults []config.Fault) {
	fault := func(remedy string, path ...string) {
		faults = append(faults, config.Fault{Path: strings.Join(path, "."), Text: "is not part of this version", Remedy: remedy})
	}
	for i, a := range cfg.Agents {
		at := config.Element("agents", i)
		if a.Model.Provider == "bedrock" && a.Model.APIKey != "" {
			faults = append(faults, config.Fault{
				Path: at + ".model.api_key", Text: "is not for bedrock, which signs with the AWS credentials of the environment", Remedy: "leave it out",
			})
		}
		for _, path := range run.Unsupported(a) {
			fault("leave it out", at, path)
		}
	}
	return faults
}
