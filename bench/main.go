// Command bench measures "keyway serve" or the Lambda functions, and in the same run, on
// the same machine, another build of Keyway or another server with AgentOS's API. It decides which requests are
// sent, which answers are right, and how CPU and memory are measured. It has no limits
// to meet and never fails because of a figure. README.md explains the figures.
package main

// The files, by what they measure:
//
//   - The servers: lab.go starts what they share, subject.go starts and stops a server,
//     ask.go sends requests and checks answers, grow.go fills the sessions, and measure.go
//     measures. streams.go measures open streams and the writes of runs. model.go is the model that all of them use.
//   - The doors: doors.go sends the same runs by another API.
//   - Runs of many steps: steps.go measures what they cost in the database, and followers.go
//     what many clients cost that follow one run. stepmodel.go is their model and their tool.
//   - The functions: lambda.go measures them. gateway.go turns requests into events as API
//     Gateway does, runtimeapi.go hands the events out as Lambda does, and roundtrips.go
//     counts round trips to the database.
//   - The authorizer: authorizer.go measures it, and emptylambda is its lower bound.
//   - process_linux.go reads CPU and memory from /proc, quota_linux.go limits the CPU with a
//     cgroup, and report.go prints the table.

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// flags are the command line.
type flags struct {
	// peer is the shell command of the other server; empty: Keyway alone.
	peer string
	// base is the path of another keyway program, which is measured first; empty: none. With authorizer or lambda it is
	// a directory of programs of another build.
	base string
	// cell is how long the load of a cell lasts.
	cell time.Duration
	// rounds is how often each cell is measured.
	rounds int
	// tokens is the length of the model's answer.
	tokens int
	// growth measures a database that grows by SQL, instead of the cells of the server.
	growth bool
	// report is the directory of the report with charts; empty: none.
	report string
	// only is a part of the names of the cells to measure; empty: all.
	only string
	// json prints every sample instead of the table.
	json bool
	// authorizer and lambda choose what is measured instead of the server.
	authorizer, lambda bool
	// warm leaves out everything but the warm functions, with lambda.
	warm bool
	// door is the name of another API for the same runs, which is measured beside AgentOS's instead of the server; empty:
	// not.
	door string
	// steps chooses runs of up to this many steps instead of the server; 0: not.
	steps int
	// resultKB is the size of a tool's result, with steps, in KiB.
	resultKB int
	// starts is how often each program is started, with authorizer or lambda.
	starts int
}

func main() {
	// This program is started again as the process that holds PostgreSQL.
	devpg.HoldIfAsked()
	if runtime.GOOS != "linux" {
		fmt.Fprintln(os.Stderr, "bench: CPU and memory are read from Linux's /proc; run it on Linux")
		os.Exit(2)
	}
	f := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Each mode prints its own table, since they have no figure in common.
	measure := run
	switch {
	case f.authorizer:
		measure = benchAuthorizer
	case f.lambda:
		measure = benchLambda
	case f.steps > 0:
		measure = benchSteps
	case f.door != "":
		measure = benchDoor
	}
	if err := measure(ctx, f); err != nil {
		stop() // os.Exit runs no deferred calls
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the flags and ends the program if one is wrong.
func parse() (f flags) {
	flag.StringVar(&f.peer, "peer", "", "shell `command` of a server to measure beside Keyway; "+
		"it reads PORT, DATABASE_URL, OPENAI_BASE_URL, OPENAI_API_KEY and JWT_VERIFICATION_KEY from the environment")
	flag.StringVar(&f.base, "base", "", "`path` of another keyway program to compare with; "+
		"with --lambda or --authorizer, a directory that make bench-base has filled")
	seconds := flag.Float64("seconds", 3, "how long the load of a cell lasts")
	flag.IntVar(&f.rounds, "rounds", 3, "how often each cell is measured")
	flag.BoolVar(&f.growth, "growth", false, "measure a database of 1,000 and of 1,000,000 sessions, after the cells")
	flag.StringVar(&f.report, "report", "", "write benchmarks.md with charts below this `directory` too")
	flag.StringVar(&f.only, "only", "", "measure only the cells of the server whose name contains this `text`")
	flag.IntVar(&f.tokens, "tokens", 200, "the length of the model's answer")
	flag.BoolVar(&f.authorizer, "authorizer", false, "measure the Lambda authorizer instead of the server")
	flag.BoolVar(&f.lambda, "lambda", false, "measure the Lambda functions instead of the server")
	flag.BoolVar(&f.warm, "warm", false, "with --lambda, measure warm functions only")
	flag.StringVar(&f.door, "door", "", "measure runs by another `API` (chat, responses, agui or mcp) beside AgentOS's, "+
		"instead of the server")
	flag.IntVar(&f.steps, "steps", 0, "measure runs of up to this many steps, and their followers, instead of the server")
	flag.IntVar(&f.resultKB, "result-kb", maxResultKB, "with --steps, the size of a tool's result in KiB")
	flag.IntVar(&f.starts, "starts", 0, "with --authorizer or --lambda, how often each program is started; "+
		"defaults to 40 and 5")
	flag.BoolVar(&f.json, "json", false, "print JSON, with every sample, instead of a Markdown table")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usageText)
		flag.PrintDefaults()
	}
	flag.Parse()
	if f.starts == 0 {
		f.starts = 40
		if f.lambda {
			f.starts = 5
		}
	}
	// The limits keep a mistyped number from a run of hours.
	f.cell = time.Duration(*seconds * float64(time.Second))
	if flag.NArg() > 0 || f.cell < 100*time.Millisecond || f.cell > time.Minute || f.rounds < 1 || f.rounds > 20 ||
		f.tokens < 1 || f.tokens > 10_000 || f.starts < 1 || f.starts > 1000 ||
		f.steps < 0 || f.steps > maxSteps || f.resultKB < 1 || f.resultKB > maxResultKB {
		fmt.Fprintf(os.Stderr, "bench: takes flags only; use --seconds 0.1 to 60, --rounds 1 to 20, --tokens 1 to 10000, "+
			"--starts 1 to 1000, --steps 1 to %d and --result-kb 1 to %d\n", maxSteps, maxResultKB)
		os.Exit(2)
	}
	if text := f.conflict(); text != "" {
		fmt.Fprintln(os.Stderr, "bench:", text)
		os.Exit(2)
	}
	return f
}

// conflict returns why two flags exclude each other, or "".
func (f flags) conflict() string {
	switch {
	case f.authorizer && f.lambda, (f.authorizer || f.lambda) && f.steps > 0:
		return "use one of --authorizer, --lambda and --steps"
	case f.report != "" && f.base == "" && f.peer == "":
		return "--report compares two servers; use --base or --peer"
	case f.growth && f.peer != "":
		return "--growth fills Keyway's own tables; use --base"
	case f.base != "" && f.peer != "":
		return "use --base or --peer, because the table compares two servers"
	case f.door != "" && doorNamed(f.door) == nil:
		return "--door is chat, responses, agui or mcp"
	case f.door != "" && (f.base != "" || f.peer != "" || f.authorizer || f.lambda || f.steps > 0):
		return "--door compares two APIs of one server; use it alone"
	case f.warm && !f.lambda:
		return "--warm measures functions; use it with --lambda"
	case f.peer != "" && f.steps > 0:
		return "--steps needs an agent that a peer does not declare; use --base"
	}
	return ""
}

// server is a server to measure: the name of its column, and its command.
type server struct {
	name    string
	command func(port string) []string
}

// servers returns the servers to measure in the order of the columns. The first one is
// the divisor of the last column. Each keyway program gets the configuration file.
func (f flags) servers(config string) []server {
	keyway := func(program string) func(string) []string {
		// The client and the server use 127.0.0.1 and not localhost, which may be ::1 first.
		return func(port string) []string {
			return []string{program, "serve", "--config", config, "--addr", "127.0.0.1:" + port}
		}
	}
	switch {
	case f.door != "":
		return []server{{"agentos", keyway(keywayBinary)}, {f.door, keyway(keywayBinary)}}
	case f.base != "":
		return []server{{"before", keyway(f.base)}, {"after", keyway(keywayBinary)}}
	case f.peer != "":
		return []server{{"keyway", keyway(keywayBinary)},
			{"peer", func(string) []string { return []string{"sh", "-c", f.peer} }}}
	}
	return []server{{"keyway", keyway(keywayBinary)}}
}

// usageText begins the output of --help.
const usageText = `Measures keyway serve, and another server with AgentOS's API beside it. Run it at the top
of the repository; bench/README.md explains the figures.

  go run ./bench                                             Keyway alone, three minutes
  go run ./bench --peer 'exec PYTHON bench/agentos/app.py'   beside AgentOS, seven minutes
  go run ./bench --authorizer                                the Lambda authorizer
  go run ./bench --base PROGRAM                              beside another build of Keyway
  go run ./bench --steps 80 --base PROGRAM                   runs of many steps, and their followers
  go run ./bench --door chat                                 runs by OpenAI's API beside the same by AgentOS's
  go run ./bench --lambda                                    the Lambda functions
  go run ./bench --lambda --base DIRECTORY                   beside those of another build

`

// build builds bin/keyway. It always does: a binary that exists may be older than the
// source.
func build(ctx context.Context) error {
	if _, err := os.Stat(keywayConfig); err != nil {
		return fmt.Errorf("%w; run bench at the top of the repository", err)
	}
	make := exec.CommandContext(ctx, "make", "build")
	make.Stdout, make.Stderr = os.Stderr, os.Stderr
	// The output of make goes to stderr, like everything but the figures.
	if err := make.Run(); err != nil {
		return fmt.Errorf("make build: %w", err)
	}
	return nil
}

// run measures the servers and prints the figures. When it returns, every process that
// it started has ended.
func run(ctx context.Context, f flags) error {
	return measureServers(ctx, f, keywayConfig, func(b *bench, ctx context.Context) error {
		if err := b.measure(ctx); err != nil || !f.growth {
			return err
		}
		return b.measureGrowth(ctx)
	})
}

// measureServers builds Keyway, describes the servers, calls measure, which starts them,
// and prints the figures.
func measureServers(
	ctx context.Context, f flags, config string, measure func(*bench, context.Context) error,
) (err error) {
	if err := build(ctx); err != nil {
		return err
	}
	// The machine is described first: its load averages must not include this run.
	b := bench{flags: f, report: report{
		About: machine(ctx), Seconds: f.cell.Seconds(), Rounds: f.rounds, Tokens: f.tokens,
	}}
	say("starting PostgreSQL and the model")
	lab, err := openLab(ctx, f.tokens)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	b.lab, b.report.About.PostgreSQL = lab, lab.version
	for _, server := range f.servers(config) {
		s, err := lab.subject(ctx, server.name, server.command)
		if err != nil {
			return err
		}
		defer s.stop()
		b.subjects = append(b.subjects, s)
		b.report.Subjects = append(b.report.Subjects, s.name)
	}
	if err := measure(&b, ctx); err != nil {
		// After ctrl-C, the error of an interrupted request would only distract.
		return cmp.Or(context.Cause(ctx), err)
	}
	return b.print()
}

// print writes the figures to stdout, and the wrong answers to stderr.
func (b *bench) print() error {
	// A wrong answer does not end the benchmark: the other figures are valid.
	for _, s := range b.subjects {
		b.report.Errors = append(b.report.Errors, s.failed)
		for _, text := range s.examples {
			say("%s answered wrongly: %s", s.name, text)
		}
		if s.failed > 0 {
			say("%s wrote last:\n%s", s.name, s.tail())
		}
	}
	if b.flags.report != "" {
		if err := b.report.publish(b.flags.report); err != nil {
			return err
		}
	}
	if b.json {
		return b.report.json(os.Stdout)
	}
	return b.report.markdown(os.Stdout)
}

// say prints a line about the progress to stderr. Only the figures go to stdout, so that
// they can be redirected to a file.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
