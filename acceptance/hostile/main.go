//go:build linux

// Command hostile abuses "keyway serve" in more than twenty ways, with one token and with none, while ten honest
// callers use it. It decides what is sent, which answers are allowed, and how much memory, disk and time of others the
// abuse may take.
package main

// The files:
//
//   - main.go reads the flags and prints the result, pass.go executes a pass with one configuration.
//   - kinds.go has the kinds of abuse, attacker.go what they use, and honest.go the honest callers.
//   - server.go starts what is tested and measures it, model.go is the model.
//   - check.go decides what holds.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// lab is what all passes share.
type lab struct {
	root, dir string
	program   string
	pg        harness.Postgres
	model     *model
	began     time.Time
}

// say prints a line of progress.
func (l *lab) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// flags are the command line.
type flags struct {
	short              bool
	scale              int
	binary, kind, pass string
}

func main() {
	devpg.HoldIfAsked() // this program is started again as the process that holds PostgreSQL
	f := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := hostile(ctx, f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
	}
	if err != nil || !ok {
		stop() // os.Exit runs no deferred calls
		os.Exit(1)
	}
}

// usageText begins the output of --help.
const usageText = `Abuses keyway serve while honest callers use it, and checks what that costs them.
Run it within the repository. It needs Linux.

  go run ./acceptance/hostile                    with limits and without, compared with well-behaved callers
  go run ./acceptance/hostile --short            with limits, without the comparison, less than a minute
  go run ./acceptance/hostile --binary PROGRAM   another build of keyway, without limits

The exit code is 1 if something does not hold. The logs of the server are kept then.

`

// parse reads the flags and ends the program if one is wrong.
func parse() (f flags) {
	flag.BoolVar(&f.short, "short", false, "send less, and compare no times")
	flag.IntVar(&f.scale, "scale", 4, "how many times what --short sends is sent, 1 to 100")
	flag.StringVar(&f.binary, "binary", "", "the program to abuse; defaults to one that is built from this source")
	flag.StringVar(&f.kind, "kind", "", "do only the kind of abuse with this name")
	flag.StringVar(&f.pass, "pass", "", "execute only this pass: limits or defaults")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usageText)
		flag.PrintDefaults()
	}
	flag.Parse()
	known := func(k abuse) bool { return k.name == f.kind }
	if flag.NArg() > 0 || f.scale < 1 || f.scale > 100 || f.kind != "" && !slices.ContainsFunc(kinds, known) ||
		!slices.Contains([]string{"", "limits", "defaults"}, f.pass) {
		fmt.Fprintln(os.Stderr, "hostile: takes flags only; use --pass limits or defaults, --scale 1 to 100, "+
			"and --kind with one of these names:")
		for _, k := range kinds {
			fmt.Fprintln(os.Stderr, "  "+k.name)
		}
		os.Exit(2)
	}
	return f
}

// passes returns the passes to execute.
func (f flags) passes(l *lab) (list []pass) {
	for _, p := range []pass{{name: "limits", compared: true}, {name: "defaults"}} {
		p.lab, p.scale = l, f.scale
		if f.short {
			p.scale, p.compared = 1, false
		}
		p.only = f.kind
		switch {
		case f.pass != "" && f.pass != p.name:
		case f.short && f.pass == "" && p.name != "limits":
		case f.binary != "" && f.pass == "" && p.name != "defaults": // an earlier build may know no limits
		default:
			list = append(list, p)
		}
	}
	return list
}

// hostile executes the passes. ok is false if something does not hold.
func hostile(ctx context.Context, f flags) (ok bool, err error) {
	l := &lab{began: time.Now()}
	if l.root, err = harness.Root(ctx); err != nil {
		return false, err
	}
	if l.dir, err = os.MkdirTemp("", "keyway-hostile-"); err != nil {
		return false, err
	}
	l.say("logs in %s", l.dir)
	results, err := l.execute(ctx, f)
	ok = summarize(os.Stdout, results)
	if ok && err == nil {
		return true, os.RemoveAll(l.dir)
	}
	fmt.Println("The logs are in", l.dir)
	return ok, err
}

// execute starts what all passes share, and executes them.
func (l *lab) execute(ctx context.Context, f flags) (results []evidence, err error) {
	if l.program, err = program(ctx, f.binary, l.root, l.dir); err != nil {
		return nil, err
	}
	if l.pg, err = harness.OpenPostgres(ctx, l.dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.pg.Close()) }()
	if l.model, err = openModel(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.model.close()) }()
	for _, p := range f.passes(l) {
		e, err := p.run(ctx)
		if err != nil {
			return results, err
		}
		results = append(results, e)
	}
	return results, nil
}

// summarize prints what was done and every violation. It returns whether everything holds.
func summarize(w io.Writer, results []evidence) bool {
	ok := len(results) > 0
	for _, e := range results {
		fmt.Fprintf(w, "\nPass %s\n\n| Abuse | Answers | Sent | Received | Disk | Memory |\n", e.pass)
		fmt.Fprint(w, "|---|---|---:|---:|---:|---:|\n")
		for _, d := range e.deeds {
			var answers []string
			for _, status := range slices.Sorted(maps.Keys(d.statuses)) {
				answers = append(answers, fmt.Sprintf("%d × %s", d.statuses[status], statusName(status)))
			}
			disk, memory := "", ""
			if !d.lasting {
				disk, memory = megabytes(d.growth), megabytes(d.peak)
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", d.name, strings.Join(answers, ", "), megabytes(d.sent),
				megabytes(d.received), disk, memory)
		}
		fmt.Fprintf(w, "\nHonest callers: %d requests completed, %d failed, %d repeated; 99th percentile %s", e.completed,
			len(e.failed), e.repeated, e.hostile.Round(time.Millisecond))
		if e.calm > 0 {
			fmt.Fprintf(w, ", and %s beside as many well-behaved requests", e.calm.Round(time.Millisecond))
		}
		fmt.Fprintf(w, "\nSent %s, the disk grew by %s, the most memory was %s\n", megabytes(e.sent), megabytes(e.growth),
			megabytes(e.peak))
		for _, wrong := range check(e) {
			ok = false
			fmt.Fprintf(w, "VIOLATION: %s\n", wrong)
		}
	}
	return ok
}
