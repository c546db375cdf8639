// Package cli implements the keyway command. It serves agents over HTTP, each
// caller limited to what the scopes of its token allow, and answers an operator's
// questions about keys, tokens and decisions. It decides what a command prints,
// where it prints it, and with which code it exits. A program that brings tools,
// models or agents of its own calls Main with Options.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// Exit codes besides 0. Scripts and CI depend on them: a denied request is an
// answer, so it must differ from a failure and from a mistake.
const (
	exitFailure = 1 // the command was understood and failed
	exitUsage   = 2 // the command line, keyway.yaml or another input file is wrong
	exitDenied  = 3 // can: denied; whoami: refused; test: a promise is broken; diff: something changes
	exitPaused  = 4 // run: the run waits for a person
)

// cli holds the flags and the commands. Data goes to stdout and everything else to
// stderr, so that a pipe or $(keyway token …) receives only the data.
type cli struct {
	// Config is the file that almost every command reads.
	Config string `short:"c" default:"keyway.yaml" placeholder:"FILE" help:"${help_config}"`
	// Data is the directory of everything that keyway itself writes.
	Data string `default:".keyway" placeholder:"DIR" help:"${help_data}"`
	// JSON makes a command print one JSON value instead of text.
	JSON bool `name:"json" help:"Print JSON instead of text for people."`

	// The commands, in the order of --help: first those that serve, then those that answer
	// questions, then those that deploy. Each has a Help method with examples and a Run method.
	Serve     serveCmd     `cmd:"" help:"Serve the agents over HTTP."`
	Run       runCmd       `cmd:"" help:"Run an agent on a server and print its answer."`
	Chat      chatCmd      `cmd:"" help:"Talk to an agent on a server."`
	Sessions  sessionsCmd  `cmd:"" help:"List your sessions on a server."`
	Token     tokenCmd     `cmd:"" help:"Sign a token."`
	Keys      keysCmd      `cmd:"" help:"Make keys."`
	Can       canCmd       `cmd:"" help:"Explain whether a token or scopes allow a request."`
	Whoami    whoamiCmd    `cmd:"" help:"Explain how a token is read: who it is, what it grants, and why not more."`
	Policy    policyCmd    `cmd:"" help:"Print what the authorizer returns for a token."`
	Test      testCmd      `cmd:"" help:"Test keyway.yaml against a table of promises."`
	Diff      diffCmd      `cmd:"" help:"Show which logged requests a changed keyway.yaml would decide differently."`
	Audit     auditCmd     `cmd:"" help:"Search the log of who changed or read which data."`
	Routes    routesCmd    `cmd:"" help:"List the routes and the scopes they need."`
	Migrate   migrateCmd   `cmd:"" help:"Bring the database schema up to date."`
	Doctor    doctorCmd    `cmd:"" help:"Check everything that a server needs, and name the remedies."`
	Revoke    revokeCmd    `cmd:"" help:"Revoke tokens that have leaked."`
	Runs      runsCmd      `cmd:"" help:"List and cancel the runs that have not ended."`
	Top       topCmd       `cmd:"" help:"Show the runs in progress and what runs have used today."`
	Owners    ownersCmd    `cmd:"" help:"Show and change which issuer's users own what."`
	Export    exportCmd    `cmd:"" help:"Write all data of one user as JSON Lines."`
	Erase     eraseCmd     `cmd:"" help:"Delete all data of one user."`
	Retention retentionCmd `cmd:"" help:"Delete data that is older than retention in keyway.yaml says."`
	Build     buildCmd     `cmd:"" help:"Write keyway.json into the directories of the functions."`
	ConfigCmd configCmd    `cmd:"" name:"config" help:"Check keyway.yaml."`
	Version   versionCmd   `cmd:"" help:"Print the version and the commit of this build."`

	// loaded is the configuration that load returned last; nil before.
	loaded *config.Config
	// chosen reports that --config was given. keyway test uses another default.
	chosen bool
}

// longHelp holds the help of flags that is too long for a struct tag, which cannot
// be wrapped. A tag refers to it as ${name}.
var longHelp = map[string]string{
	"help_config": "The file that describes the OS, in YAML or JSON. Defaults to keyway.yaml.",
	"help_data": "The directory of the local database, generated keys and logged decisions. " +
		"Defaults to .keyway.",
	"help_dev": "Serve for development, on this machine only: make a key and print tokens, answer with the demo model " +
		"where a model's key is missing, and reload keyway.yaml when it changes.",
	"help_url": "The server. Defaults to the variable KEYWAY_URL, else to http://127.0.0.1:7777.",
	"help_token": "The caller's token: the token itself, - for standard input, or @FILE. " +
		"Defaults to the variable KEYWAY_TOKEN.",
	"help_alg": "RS256 (the default), RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA (Ed25519) for a " +
		"key pair; HS256, HS384 or HS512 for a secret that you put into an environment variable.",
	"help_fetch": "Also read the files of keys, fetch the keys at addresses and in secrets, and warn of those that " +
		"can't be used.",
	"help_out": "The file to write: a JWKS that also holds private_key and public_key as PEM, or the secret. " +
		"A file that exists is kept.",
	"help_since": "Replay the decisions of the last 7d, 24h or 30m. Without --log, they come from the files that " +
		"keyway serve writes below --data.",
	"help_issuer": "The issuer of the tokens (claim iss). Needed if tokens of several issuers are accepted. " +
		"Defaults to the one issuer that keyway.yaml names.",
	"help_revoke_sub": "Revoke the tokens with this subject: the claim that auth.claims.subject names, by default sub.",
	"help_user_sub":   "Whose data it is: the value of the claim that auth.claims.subject names, by default sub.",
	"help_runs_sub": "Only the runs of this user: the value of the claim that auth.claims.subject names, " +
		"by default sub.",
	"help_before": "With --sub: revoke the tokens that were issued before, as in 2026-11-29T12:00:00Z or \"1h ago\", " +
		"and those without iat. Defaults to now.",
	"help_prune": "Remove the revocations that are older than 90d, 24h or 30m, because their tokens have expired.",
	"help_audit_log": "A log that holds lines of the audit log; - is standard input. Defaults to the files that keyway " +
		"serve writes below --data.",
	"help_log": "A log that holds decisions as lines of JSON; - is standard input.",
	"help_owners_from": "Whose data is moved: an issuer, home for the home issuer, or unnamed for tokens without an " +
		"issuer.",
	"help_owners_subject": "Move what is stored under this subject of the home issuer, which contains a #, to the name " +
		"that it has today.",
	"help_stack": "Also check this CloudFormation stack with the command aws: its state, its outputs and its last errors.",
	"help_dirs": "The directories to write keyway.json to. Defaults to each directory below .aws-sam/build " +
		"that holds a bootstrap.",
}

// env is everything outside the flags that a command reads or writes. Tests replace
// it; Run fills it from Options.
type env struct {
	// own holds the operator's tools and agents; its other fields are the ones below.
	own Options
	// cli holds the flags that all commands share.
	cli *cli
	// out receives data, err everything else, and in is standard input.
	out io.Writer
	err io.Writer
	in  io.Reader
	// lookup returns an environment variable.
	lookup func(string) (string, bool)
	// now is the clock that tokens are verified with. Tokens are signed with the real one.
	now func() time.Time
}

// description begins the output of keyway --help.
const description = `Serve LLM agents behind JWT scopes, with AgentOS's API.

Examples:

  keyway serve --dev                                   try it: makes a database, a key and tokens
  keyway token --sub ann --scopes agents:read,agents:web-search-agent:run
  keyway can --scopes agents:read POST /agents/web-search-agent/runs
  keyway config check`

// execute parses args, runs the command and returns its exit code. Unlike Main it
// does not end the process, so that tests and embedding programs can call it.
func execute(ctx context.Context, args []string, e env) int {
	e.cli = &cli{}
	// kong calls Exit after it has printed --help, and expects that the process ends.
	exit := -1
	// An error here is a mistake in the struct tags above, which every test would find.
	parser, err := kong.New(e.cli, kong.Name("keyway"), kong.Description(description),
		kong.Writers(e.out, e.err), kong.PostBuild(writeLongHelp), kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(e.err, "keyway:", err)
		return exitFailure
	}
	command, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(e.err, "keyway: %s\nRun keyway --help, or keyway COMMAND --help.\n", withoutTokens(err.Error()))
		return exitUsage
	}
	// The default value of --config looks like a given one, except in the parsed path.
	e.cli.chosen = slices.ContainsFunc(command.Path, func(p *kong.Path) bool {
		return p.Flag != nil && p.Flag.Name == "config"
	})
	// kong passes a command's Run the parameters that it asks for, by their type.
	command.BindTo(ctx, (*context.Context)(nil))
	return e.report(command.Run(e))
}

// writeLongHelp writes the texts of longHelp into the values whose help names one. kong's own variables can do that
// too, but kong would then search the text of each variable for further ones, for each flag of each command, at every
// start.
func writeLongHelp(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if v, ok := node.(*kong.Value); ok && strings.HasPrefix(v.Help, "${") {
			v.Help = longHelp[strings.Trim(v.Help, "${}")]
		}
		return next(nil)
	})
}

// report prints the error of a command, unless the command printed it, and returns
// the exit code that belongs to it.
func (e env) report(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[silent](err); ok {
		return int(s)
	}
	if _, ok := errors.AsType[config.Faults](err); ok {
		// Each line begins with file:line:column, which editors and CI make a link of.
		// A prefix "keyway:" would hide that.
		fmt.Fprintln(e.err, err)
	} else {
		message := plain(withoutTokens(err.Error())) // It may hold what a server sent.
		if e.cli.loaded != nil {
			message = e.cli.loaded.AsWritten(message)
		}
		fmt.Fprintln(e.err, "keyway:", message)
	}
	// config.Faults alone are no usage error: a command wraps them if the user can correct
	// them.
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

// jwtText matches a JSON Web Token: the base64url of a header always begins with
// eyJ, which is {" in base64.
var jwtText = regexp.MustCompile(`eyJ[\w-]*\.[\w.-]+`)

// withoutTokens removes tokens from a message. A token that was typed as an argument
// is quoted in the parser's error, and CI keeps what a command prints.
func withoutTokens(message string) string { return jwtText.ReplaceAllString(message, "***") }

// silent is an error that only carries an exit code, for a command that has already
// printed everything.
type silent int

// Error names the exit code. No command prints it.
func (s silent) Error() string { return fmt.Sprintf("exit %d", int(s)) }

// usageError is an error that the user can correct in the command line or in a file:
// exit code 2.
type usageError struct{ error }

// Unwrap makes errors.Is and errors.AsType find the error inside.
func (u usageError) Unwrap() error { return u.error }

// usage returns a usageError with a formatted text, as fmt.Errorf does.
func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// noFile is the error of a missing keyway.yaml. A new user meets it first, so it
// holds the shortest file that works.
const noFile = `there is no %s: name your file with --config, or begin with these lines in a new one
  id: my-agent-os
  agents: [{id: assistant, model: "openai:gpt-4o"}]
and try it with: keyway serve --dev`

// load reads keyway.yaml and the agents of Options. dev accepts what only
// "serve --dev" accepts, such as a file without keys. The error is a usageError and
// holds every error of the file at once, each with its place and remedy.
func (e env) load(dev bool) (*config.Config, error) {
	o, err := e.options(dev)
	if err != nil {
		return nil, err
	}
	cfg, err := yamlfile.Load(e.cli.Config, o)
	// No file at all is a first try and not a typing error: the answer is how to begin.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(noFile, e.cli.Config)
	}
	if err != nil {
		return nil, usageError{err}
	}
	e.cli.loaded = cfg
	return cfg, nil
}

// options are those with which load reads keyway.yaml.
func (e env) options(dev bool) (o config.Options, err error) {
	// A name that is used twice must be found before the file is read: an agent of the
	// file would otherwise get the other tool of that name.
	tools, err := builtin.Names(e.own.Tools)
	if err != nil {
		return o, usageError{err}
	}
	inGo, err := e.own.declaredAgents()
	if err != nil {
		return o, usageError{err}
	}
	// Check, Tools, Agents and MatchesRoute let config find errors about things that it does
	// not know itself: models, tools in Go, agents in Go, and routes.
	return config.Options{
		Lookup: e.lookup, Dev: dev, Check: unsupported, Tools: tools, Agents: inGo,
		MatchesRoute: func(method, pattern string) bool { return authz.Reaches(route.Table, method, pattern) },
	}, nil
}

// unsupported returns an error for each setting that keyway.yaml may hold and this
// version does not implement. Ignoring such a setting would be worse than an error:
// the operator would rely on a limit that nothing enforces.
func unsupported(cfg *config.Config) (faults []config.Fault) {
	for i, a := range cfg.Agents {
		// Ignoring the key would be a surprise too: requests would be signed with other
		// credentials than the operator wrote.
		at := config.Element("agents", i)
		if a.Model.Provider == "bedrock" && a.Model.APIKey != "" {
			faults = append(faults, config.Fault{
				Path:   at + ".model.api_key",
				Text:   "is not for bedrock, which signs with the AWS credentials of the environment",
				Remedy: "leave it out",
			})
		}
		faults = append(faults, config.Unsupported(at, a)...)
	}
	return faults
}
