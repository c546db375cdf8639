package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/store"
)

// topCmd shows the runs in progress and what runs have used today.
type topCmd struct {
	Interval   time.Duration `default:"2s" help:"The time between two looks at the database, at least 1s."`
	Once       bool          `help:"Print once. --json does that too."`
	ShowOwners bool          `name:"show-owners" help:"Show the names of users in place of their hashes in logs."`
}

// Help adds examples to the command's --help.
func (topCmd) Help() string {
	return `Shows the runs that are pending, running or paused, the oldest first, and what the runs that
ended today (UTC) have used. In a terminal the picture is drawn again and again until ctrl-C, or q
and Enter. Users are shown by the hashes that logs have, if their key is there.

  keyway top
  keyway top --once --show-owners
  keyway top --json`
}

// The most that top shows.
const (
	topRuns  = 100
	topUsage = 1000 // rows of agent, user and model; more are not in the sums of a day
)

// looked is what top has read at one moment. Its member names are part of the output of --json.
type looked struct {
	Time time.Time `json:"time"`
	// Live is the number of runs in progress, of which Runs has the oldest.
	Live  int      `json:"live"`
	Runs  []topRun `json:"runs"`
	Today topUsed  `json:"today"`
	// Used has the agents, users and models of today, those with the most runs first.
	Used []topUsed `json:"used"`
}

type topRun struct {
	RunID   string `json:"run_id"`
	Status  string `json:"status"`
	AgentID string `json:"agent_id"`
	// Owner is the hash that logs have, or with --show-owners the name.
	Owner   string  `json:"owner"`
	Seconds float64 `json:"seconds"` // since its beginning
	Attempt int     `json:"attempt"`
}

type topUsed struct {
	AgentID string `json:"agent_id,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Model   string `json:"model,omitempty"`
	Runs    int    `json:"runs"`
	Input   int64  `json:"input_tokens"`
	Output  int64  `json:"output_tokens"`
	// USD is null if no model has a price.
	USD *float64 `json:"usd"`
}

// Run shows the picture once, or until the operator ends it.
func (c topCmd) Run(ctx context.Context, e env) error {
	if c.Interval < time.Second {
		return usage("--interval: write at least 1s")
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	keys, err := e.readKeys()
	if err != nil {
		return err
	}
	db, _, err := e.openDatabase(ctx, toServe("GET /active-runs"))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Check(ctx); err != nil {
		return store.AtStart(err)
	}
	if c.Once || e.cli.JSON || !isTerminal(e.out) {
		l, err := c.look(ctx, db.DB, keys)
		if err != nil {
			return err
		}
		if e.cli.JSON {
			return printJSON(e.out, l)
		}
		return l.draw(e.out, 0)
	}
	return c.watch(ctx, e, db.DB, keys)
}

// watch draws the picture again and again.
func (c topCmd) watch(ctx context.Context, e env, db *store.DB, keys loghash.Keys) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		// This goroutine ends with the process: nothing interrupts the reading of a terminal.
		for lines := bufio.NewScanner(e.in); lines.Scan(); {
			if strings.TrimSpace(lines.Text()) == "q" {
				cancel()
			}
		}
	}()
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	for {
		l, err := c.look(ctx, db, keys)
		var picture strings.Builder
		switch {
		case ctx.Err() != nil:
			return nil
		case store.Transient(err): // It may be back in a moment.
			fmt.Fprintf(&picture, "%v\n", err)
		case err != nil:
			return err
		default:
			err = l.draw(&picture, terminalWidth(e.out))
		}
		// The cursor goes home, and what an earlier picture had more is erased.
		text := strings.ReplaceAll(picture.String(), "\n", "\x1b[K\n")
		if _, err2 := fmt.Fprint(e.out, "\x1b[H", text, "\x1b[J"); err2 != nil {
			return errors.Join(err, err2)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look reads the database.
func (c topCmd) look(ctx context.Context, db *store.DB, keys loghash.Keys) (l looked, err error) {
	name := func(owner string) string {
		switch {
		case owner == "" || c.ShowOwners:
			return owner
		case len(keys) == 0:
			return "(hidden)"
		}
		return audit.OwnerHashes(keys, owner)[0]
	}
	all := store.Viewer{All: true}
	if l.Time, err = db.Now(ctx); err != nil {
		return l, err
	}
	rows, live, err := db.ActiveRuns(ctx, all, store.ActiveQuery{}, topRuns, 1)
	if err != nil {
		return l, err
	}
	l.Live, l.Runs, l.Used = live, []topRun{}, []topUsed{}
	for _, r := range rows {
		l.Runs = append(l.Runs, topRun{
			RunID: r.RunID.String(), Status: r.Status, AgentID: r.AgentID, Owner: name(r.Owner),
			Seconds: l.Time.Sub(r.CreatedAt).Seconds(), Attempt: r.Attempt,
		})
	}
	today := l.Time.UTC().Truncate(24 * time.Hour)
	used, _, err := db.UsageByDay(ctx, all, store.UsageQuery{From: today, To: today.AddDate(0, 0, 1)}, topUsage, 1)
	if err != nil {
		return l, err
	}
	for _, u := range used {
		one := topUsed{
			AgentID: u.AgentID, Owner: name(u.Owner), Model: u.ModelID, Runs: u.Runs, Input: u.Input, Output: u.Output,
			USD: u.Cost,
		}
		l.Used = append(l.Used, one)
		t := &l.Today
		t.Runs, t.Input, t.Output = t.Runs+u.Runs, t.Input+u.Input, t.Output+u.Output
		if u.Cost != nil {
			sum := *u.Cost
			if t.USD != nil {
				sum += *t.USD
			}
			t.USD = &sum
		}
	}
	return l, nil
}

// draw writes the picture for people. Lines have at most width characters, unless it is 0.
func (l looked) draw(to io.Writer, width int) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s  %s in progress; ended today: %s, %d input and %d output tokens, %s\n\n",
		l.Time.UTC().Format(time.TimeOnly), counted(l.Live, "run"), counted(l.Today.Runs, "run"), l.Today.Input,
		l.Today.Output, dollars(l.Today.USD))
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "AGENT\tSTATUS\tSINCE\tUSER\tRUN\n")
	for _, r := range l.Runs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(cmp.Or(r.AgentID, "-")), r.Status,
			time.Duration(r.Seconds*float64(time.Second)).Round(time.Second), printable(cmp.Or(r.Owner, "-")), r.RunID)
	}
	fmt.Fprint(w, "\t\t\t\t\nAGENT\tRUNS\tCOST\tUSER\tMODEL, TOKENS\n")
	const most = 20
	for _, u := range l.Used[:min(len(l.Used), most)] {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s, %d + %d\n", printable(cmp.Or(u.AgentID, "-")), u.Runs, dollars(u.USD),
			printable(cmp.Or(u.Owner, "-")), printable(u.Model), u.Input, u.Output)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		line = strings.TrimRight(line, " \n")
		if runes := []rune(line); width > 0 && len(runes) > width {
			line = string(runes[:width-1]) + "…"
		}
		if _, err := fmt.Fprintln(to, line); err != nil {
			return err
		}
	}
	return nil
}

// dollars writes a cost, and a dash if no model has a price.
func dollars(usd *float64) string {
	if usd == nil {
		return "$ -"
	}
	return "$ " + strconv.FormatFloat(*usd, 'f', 4, 64)
}
