//go:build unix

// Command chaos tests "keyway serve" and the Lambda functions while processes are killed, connections are frozen and
// cut, and answers of the database are lost. It decides which faults occur, which requests are sent meanwhile, and
// what must hold afterwards. docs/chaos.md explains it.
package main

// The files:
//
//   - main.go reads the flags and prints the result, phase.go executes one phase.
//   - postgres.go, proxy.go, server.go start what is tested; faults.go disturbs it.
//   - load.go is the clients, script.go what they ask the model to do, and model.go the model and the tools.
//   - journal.go and evidence.go collect what happened, and audit.go checks it.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// secret is the key of the tokens, for this machine only.
const secret = "chaos-chaos-chaos-chaos-chaos-chaos"

// lab is what all phases share.
type lab struct {
	root, dir string
	program   string
	token     string
	seed      uint64
	pg        *postgres
	began     time.Time
}

// say prints a line of progress.
func (l *lab) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// flags are the command line.
type flags struct {
	seed    uint64
	minutes float64
	servers int
	phase   string
	keep    bool
}

func main() {
	devpg.HoldIfAsked() // this program is started again as the process that holds PostgreSQL
	f, plans := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := chaos(ctx, f, plans)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || !ok {
		stop() // os.Exit runs no deferred calls
		os.Exit(1)
	}
}

// usageText begins the output of --help.
const usageText = `Tests keyway serve and the functions while they are killed and their database is disturbed.
Run it within the repository; docs/chaos.md explains what is checked.

  go run ./acceptance/chaos                  all phases, 20 minutes
  go run ./acceptance/chaos --short          one phase, less than 3 minutes
  go run ./acceptance/chaos --phase pooler   one phase

The exit code is 1 if a promise does not hold. The logs of the servers are kept then.

`

// parse reads the flags and ends the program if one is wrong.
func parse() (flags, []plan) {
	var f flags
	flag.Uint64Var(&f.seed, "seed", 0, "the seed of all random choices; defaults to a random one, which is printed")
	flag.Float64Var(&f.minutes, "minutes", 20, "how long all phases together take")
	flag.IntVar(&f.servers, "servers", 0, "how many servers each phase has; defaults to what the phase has")
	flag.StringVar(&f.phase, "phase", "", "execute only this phase: two, three, pooler or functions")
	flag.BoolVar(&f.keep, "keep", false, "keep the logs of the servers also without a violation")
	short := flag.Bool("short", false, "execute the short form: one phase with two servers, 45 seconds of faults")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usageText)
		flag.PrintDefaults()
	}
	flag.Parse()
	plans := plansFor(f, *short)
	if flag.NArg() > 0 || f.minutes < 1 || f.minutes > 24*60 || f.servers < 0 || f.servers > 9 || len(plans) == 0 {
		fmt.Fprintln(os.Stderr, "chaos: takes flags only; use --minutes 1 to 1440, --servers 1 to 9, and --phase two, "+
			"three, pooler or functions")
		os.Exit(2)
	}
	if f.seed == 0 {
		f.seed = rand.Uint64() >> 1 // #nosec G404 -- a number that is printed
	}
	return f, plans
}

// settling is how much of the time of a phase is not load: its start and the wait for the ends of all runs.
const settling = 100 * time.Second

// plansFor returns the phases, with their shares of the time.
func plansFor(f flags, short bool) (plans []plan) {
	all := []plan{
		{name: "two", servers: 2, long: true}, {name: "three", servers: 3, long: true},
		{name: "pooler", servers: 2, pooler: true}, {name: "functions", functions: true},
	}
	if short {
		return []plan{{
			name: "short", servers: max(2, f.servers), clients: 10, load: 45 * time.Second, killEvery: 5 * time.Second,
		}}
	}
	for _, p := range all {
		if f.phase == "" || f.phase == p.name {
			plans = append(plans, p)
		}
	}
	total := time.Duration(f.minutes * float64(time.Minute))
	for i := range plans {
		p := &plans[i]
		p.load = max(total/time.Duration(len(plans))-settling, 20*time.Second)
		p.killEvery, p.clients = 2700*time.Millisecond, 16
		if f.servers > 0 {
			p.servers = f.servers
		}
	}
	return plans
}

// chaos executes the phases. ok is false if there is a violation.
func chaos(ctx context.Context, f flags, plans []plan) (ok bool, err error) {
	l := &lab{seed: f.seed, began: time.Now()}
	if l.root, err = harness.Root(ctx); err != nil {
		return false, err
	}
	if l.dir, err = os.MkdirTemp("", "keyway-chaos-"); err != nil {
		return false, err
	}
	l.say("seed %d, logs in %s", l.seed, l.dir)
	results, err := l.phases(ctx, plans)
	ok = summarize(os.Stdout, l.seed, results)
	if kills := allKills(results); err == nil && f.minutes >= 20 && f.phase == "" && len(plans) > 1 && kills < minKills {
		fmt.Printf("Only %d processes were killed, %d are required: this machine is too slow.\n", kills, minKills)
		ok = false
	}
	if ok && err == nil && !f.keep {
		return true, os.RemoveAll(l.dir)
	}
	fmt.Println("The logs are in", l.dir)
	return ok, err
}

// minKills is how many processes the whole form must kill.
const minKills = 200

func allKills(results []result) (n int) {
	for _, r := range results {
		n += countKind(r.evidence.Faults, killed)
	}
	return n
}

// phases starts what all phases share and executes them.
func (l *lab) phases(ctx context.Context, plans []plan) (results []result, err error) {
	l.say("building keyway with a clock that can be wrong")
	if l.program, err = buildServer(ctx, l.root, l.dir); err != nil {
		return nil, err
	}
	if l.token, err = mint(time.Now().Add(48 * time.Hour)); err != nil {
		return nil, err
	}
	if err := l.checkClock(ctx); err != nil {
		return nil, err
	}
	if l.pg, err = openPostgres(ctx, l.dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.pg.Close()) }()
	for _, p := range plans {
		one := &phase{plan: p, lab: l, dir: filepath.Join(l.dir, p.name)}
		r, err := one.run(ctx)
		if err != nil {
			return results, err
		}
		results = append(results, r)
		l.say("%s: %d violations", p.name, len(r.violations))
	}
	return results, nil
}

// mint returns a token of a user named ann. It was issued an hour ago, so that a server whose clock is behind accepts
// it.
func mint(expires time.Time) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "ann", "iat": time.Now().Add(-time.Hour).Unix(), "exp": expires.Unix(),
		"scopes": []string{"agents:read", "agents:run", "sessions:read", "sessions:write", "sessions:delete"},
	}).SignedString([]byte(secret))
}

// checkClock fails if $CHAOS_CLOCK does not move the clock of the program: a token that expires in 60 seconds must have
// expired for a process that is 90 seconds ahead, and for no other.
func (l *lab) checkClock(ctx context.Context) error {
	token, err := mint(time.Now().Add(time.Minute))
	if err != nil {
		return err
	}
	for clock, valid := range map[string]bool{"0s": true, "90s": false, "-90s": true} {
		cmd := exec.CommandContext(ctx, l.program, "can", "--config", l.config(), "--token", token, "GET",
			"/agents") // #nosec G204 -- built by the harness
		cmd.Env = append(os.Environ(), "JWT_VERIFICATION_KEY="+secret, "OPENAI_API_KEY=sk-chaos", "CHAOS_CLOCK="+clock)
		if out, err := cmd.CombinedOutput(); (err == nil) != valid {
			return fmt.Errorf("a clock that is wrong by %s has no effect: %w\n%s", clock, err, out)
		}
	}
	return nil
}

// config is the keyway.yaml of the servers.
func (l *lab) config() string { return filepath.Join(l.root, "acceptance/chaos/testdata/keyway.yaml") }

// summarize prints the table of faults and ends and every violation. It returns whether everything holds.
func summarize(w *os.File, seed uint64, results []result) bool {
	kinds, ends := map[string]int{}, map[string]int{}
	hit, total := 0, 0
	for _, r := range results {
		for _, f := range r.evidence.Faults {
			kinds[f.Kind]++
			total++
			if f.Running > 0 {
				hit++
			}
		}
		for _, row := range r.evidence.Rows {
			ends[row.Status]++
		}
	}
	fmt.Fprintf(w, "\nSeed %d\n\n| Fault | Times |\n|---|---:|\n", seed)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(w, "| %s | %d |\n", kind, kinds[kind])
	}
	fmt.Fprintf(w, "\n%d of %d faults found runs in progress.\n\n| Runs that are | Number |\n|---|---:|\n", hit, total)
	for _, status := range slices.Sorted(maps.Keys(ends)) {
		fmt.Fprintf(w, "| %s | %d |\n", status, ends[status])
	}
	fmt.Fprint(w, "\n| Compared by the audit | Number |\n|---|---:|\n")
	for _, c := range compared(results) {
		fmt.Fprintf(w, "| %s | %d |\n", c.what, c.n)
	}
	ok := len(results) > 0
	for _, r := range results {
		for _, v := range r.violations {
			ok = false
			fmt.Fprintf(w, "\nVIOLATION in %s: %s", r.plan.name, v)
		}
	}
	fmt.Fprintln(w)
	return ok
}

// counted is a line of the table of what the audit compared.
type counted struct {
	what string
	n    int
}

// compared counts what the audit had to compare. It shows that a result without violations is not one without cases.
func compared(results []result) []counted {
	out := []counted{
		{what: "runs that were acknowledged"}, {what: "requests that were refused or not answered"},
		{what: "streams that a client read to the end"}, {what: "visits of followers to the end"},
		{what: "cancellations that were acknowledged"}, {what: "sessions that were deleted"},
		{what: "paused runs that were continued"}, {what: "model calls"}, {what: "model calls that a crash repeated"},
		{what: "tool calls"}, {what: "tool calls that a crash repeated"},
	}
	count := func(i int, is bool) {
		if is {
			out[i].n++
		}
	}
	for _, r := range results {
		for _, q := range r.evidence.Requests {
			count(0, len(q.Runs) > 0)
			count(1, len(q.Runs) == 0)
			count(2, q.View.FromStart && q.View.end() != "")
			for _, v := range q.Followers {
				count(3, v.FromStart && v.end() != "")
			}
			count(4, !q.Cancelled.IsZero())
			count(5, !q.Deleted.IsZero())
			count(6, q.Continued)
		}
		asks, calls := map[string]bool{}, map[string]bool{}
		for _, a := range r.evidence.Asks {
			step := fmt.Sprintf("%s %d", a.Script.ID, a.Step)
			count(7, true)
			count(8, asks[step])
			asks[step] = true
		}
		for _, c := range r.evidence.Calls {
			count(9, true)
			count(10, calls[c.Key])
			calls[c.Key] = true
		}
	}
	return out
}
