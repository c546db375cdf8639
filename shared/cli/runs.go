package cli

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// runsCmd lists or cancels runs in the database that keyway.yaml or DATABASE_URL names.
type runsCmd struct {
	Sub    string  `placeholder:"SUBJECT" help:"${help_runs_sub}"`
	Issuer *string `placeholder:"ISSUER" help:"${help_issuer}"`
	Agent  string  `placeholder:"ID" help:"Only the runs of this agent."`
	Cancel bool    `help:"Cancel the runs of --sub, or of all users with --all."`
	All    bool    `help:"With --cancel and without --sub: cancel the runs of all users."`
}

// Help adds examples to the command's --help.
func (runsCmd) Help() string {
	return `The command shows the runs that are pending, running or paused, the oldest first, at most 1,000.
Cancelled runs stop within a second in the process that executes them. Those that no process
executes end when a server or a worker finds them. An administrator can send GET and DELETE
/active-runs instead.

  keyway runs
  keyway runs --sub ann --cancel
  keyway runs --agent assistant --cancel --all`
}

// runsTimeout bounds the statements of the command.
const runsTimeout = 10 * time.Minute

// Run prints the runs, or cancels them.
func (c runsCmd) Run(ctx context.Context, e env) error {
	switch {
	case c.All && (c.Sub != "" || !c.Cancel):
		return usage("--all is for --cancel without --sub")
	case c.Cancel && c.Sub == "" && !c.All:
		return usage("--cancel: whose runs? give --sub, or --all for those of all users")
	case c.Issuer != nil && c.Sub == "":
		return usage("--issuer is for --sub")
	case len(c.Agent) > store.MaxSubject || !pgvalue.ValidText(c.Agent):
		return usage("--agent: write UTF-8 of at most %d bytes", store.MaxSubject)
	}
	ctx, cancel := context.WithTimeout(ctx, runsTimeout)
	defer cancel()
	db, name, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	defer db.Close()
	q := store.ActiveQuery{Owner: name, AgentID: c.Agent}
	if c.Cancel {
		return c.cancel(ctx, e, db, q)
	}
	return c.list(ctx, e, db, q)
}

// open opens the database and returns the name of the owner of the runs, "" for all users.
func (c runsCmd) open(ctx context.Context, e env) (*database, string, error) {
	request := "GET /active-runs"
	if c.Cancel {
		request = "DELETE /active-runs"
	}
	if c.Sub != "" {
		db, who, err := user{c.Sub, c.Issuer}.open(ctx, e, toServe(request))
		return db, who.owner, err
	}
	db, _, err := e.openDatabase(ctx, toServe(request))
	if err != nil {
		return nil, "", err
	}
	if err := db.Check(ctx); err != nil {
		db.Close()
		return nil, "", store.AtStart(err)
	}
	return db, "", nil
}

// cancel marks all runs of the query, a bounded number with each statement.
func (c runsCmd) cancel(ctx context.Context, e env, db *database, q store.ActiveQuery) error {
	runs := map[any]bool{}
	for more := true; more; {
		var marked []store.Marked
		var err error
		if marked, more, err = db.RequestCancelAll(ctx, store.Viewer{All: true}, q); err != nil {
			return err
		}
		for _, m := range marked {
			runs[m.RunID] = true
		}
	}
	if e.cli.JSON {
		return printJSON(e.out, wire.CancelledRuns{Cancelled: len(runs)})
	}
	_, err := fmt.Fprintf(e.out, "cancelled: %s\n", counted(len(runs), "run"))
	return err
}

// list prints the oldest runs of the query.
func (c runsCmd) list(ctx context.Context, e env, db *database, q store.ActiveQuery) error {
	rows, total, err := db.ActiveRuns(ctx, store.Viewer{All: true}, q, store.MaxCancelled, 1)
	if err != nil {
		return err
	}
	if total > len(rows) {
		fmt.Fprintf(e.err, "note: these are the %d oldest of %d runs\n", len(rows), total)
	}
	if e.cli.JSON {
		list := make([]wire.ActiveRun, len(rows))
		for i, row := range rows {
			list[i] = api.ActiveRunOf(row)
		}
		return printJSON(e.out, list)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.CreatedAt.UTC().Format(time.RFC3339), r.RunID, r.Status,
			printable(cmp.Or(r.AgentID, "-")), printable(cmp.Or(r.Owner, "-")), printable(r.SessionID))
	}
	return w.Flush()
}
