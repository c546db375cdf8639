// Command bench measures bin/keyway serve or the Lambda functions, and beside them any
// other server with AgentOS's API, on one machine and in one run. It decides what is asked, what
// counts as a right answer and how CPU and memory are told; it doesn't know what
// a good figure is and never fails over one. README.md says how to read them.
package main

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
	peer   string
	cell   time.Duration // how long a cell of the load lasts
	rounds int
	tokens int
	json   bool

	authorizer, lambda bool
	starts             int
}

func main() {
	devpg.HoldIfAsked()
	if runtime.GOOS != "linux" {
		fmt.Fprintln(os.Stderr, "bench: CPU and memory are read from Linux's /proc; run it on Linux")
		os.Exit(2)
	}
	f := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure := run
	switch {
	case f.authorizer:
		measure = benchAuthorizer
	case f.lambda:
		measure = benchLambda
	}
	if err := measure(ctx, f); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse() (f flags) {
	flag.StringVar(&f.peer, "peer", "", "shell `command` of a server to measure beside Keyway; it gets PORT and the rest from the environment")
	seconds := flag.Float64("seconds", 3, "how long a cell of the load lasts")
	flag.IntVar(&f.rounds, "rounds", 3, "how often each cell is measured")
	flag.IntVar(&f.tokens, "tokens", 200, "length of the model's answer")
	flag.BoolVar(&f.authorizer, "authorizer", false, "measure the Lambda authorizer instead of the server")
	flag.BoolVar(&f.lambda, "lambda", false, "measure the Lambda functions instead of the server")
	flag.IntVar(&f.starts, "starts", 0, "with --authorizer or --lambda, how often each program is started (40, 5)")
	flag.BoolVar(&f.json, "json", false, "print JSON, with every sample, instead of a Markdown table")
	flag.Parse()
	if f.starts == 0 {
		f.starts = 40
		if f.lambda {
			f.starts = 5
		}
	}
	f.cell = time.Duration(*seconds * float64(time.Second))
	if flag.NArg() > 0 || f.cell < 100*time.Millisecond || f.cell > time.Minute || f.rounds < 1 || f.rounds > 20 ||
		f.tokens < 1 || f.tokens > 10_000 || f.starts < 1 || f.starts > 1000 || f.authorizer && f.lambda {
		fmt.Fprintln(os.Stderr, "bench: takes flags only; --seconds 0.1 to 60, --rounds 1 to 20, --tokens 1 to 10000, --starts 1 to 1000; not both --authorizer and --lambda")
		os.Exit(2)
	}
	return f
}

// build makes the program that is measured: one that lies there may be of yesterday.
func build(ctx context.Context) error {
	if _, err := os.Stat(keywayConfig); err != nil {
		return fmt.Errorf("%w; run it at the top of the repository", err)
	}
	make := exec.CommandContext(ctx, "make", "build")
	make.Stdout, make.Stderr = os.Stderr, os.Stderr
	if err := make.Run(); err != nil {
		return fmt.Errorf("make build: %w", err)
	}
	return nil
}

// run measures everything and prints it. Whatever it started is gone when it
// returns.
func run(ctx context.Context, f flags) (err error) {
	if err := build(ctx); err != nil {
		return err
	}
	b := bench{flags: f, report: report{About: machine(ctx), Seconds: f.cell.Seconds(), Rounds: f.rounds, Tokens: f.tokens}}
	say("starting PostgreSQL and the model")
	lab, err := openLab(ctx, f.tokens)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	b.lab, b.report.About.PostgreSQL = lab, lab.version
	for _, name := range []string{"keyway", "peer"} {
		if name == "peer" && f.peer == "" {
			break
		}
		s, err := lab.subject(ctx, name, f.peer)
		if err != nil {
			return err
		}
		defer s.stop()
		b.subjects = append(b.subjects, s)
		b.report.Subjects = append(b.report.Subjects, name)
	}
	if err := b.measure(ctx); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return b.print()
}

// print writes the figures to stdout, and to stderr what the wrong answers were.
func (b *bench) print() error {
	for _, s := range b.subjects {
		b.report.Errors = append(b.report.Errors, s.failed)
		for _, text := range s.examples {
			say("%s answered wrongly: %s", s.name, text)
		}
		if s.failed > 0 {
			say("%s wrote last:\n%s", s.name, s.tail())
		}
	}
	if b.json {
		return b.report.json(os.Stdout)
	}
	return b.report.markdown(os.Stdout)
}

// say tells whoever waits what is being done; the figures alone go to stdout.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
