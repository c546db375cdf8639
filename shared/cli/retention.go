package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/store"
)

// retentionCmd holds the command about old data.
type retentionCmd struct {
	Run retentionRunCmd `cmd:"" help:"Delete now what is too old."`
}

// retentionRunCmd deletes what is older than keyway.yaml says.
type retentionRunCmd struct {
	DryRun bool `help:"Only say what would be deleted."`
}

// Help adds examples to the command's --help.
func (retentionRunCmd) Help() string {
	return `keyway serve does the same every hour, and on AWS the function worker does. It needs retention
in keyway.yaml, for example:

  retention: {events: 30d, runs: 90d, sessions: 365d}

Runs that have not ended are kept, and their sessions too. Only keyway serve removes files of
logs.

  keyway retention run --dry-run
  keyway retention run`
}

// Run sweeps once.
func (c retentionRunCmd) Run(ctx context.Context, e env) error {
	db, cfg, err := e.openDatabase(ctx, "keyway serve deletes what is too old")
	if err != nil {
		return err
	}
	defer db.Close()
	keep := dataRetention(cfg.Retention)
	if (keep == store.Retention{}) {
		return usage("keyway.yaml has no retention of data, so all data is kept; for example: " +
			"retention: {events: 30d, runs: 90d}")
	}
	ctx, cancel := context.WithTimeout(ctx, eraseTimeout)
	defer cancel()
	if err := db.Check(ctx); err != nil {
		return store.AtStart(err)
	}
	act, verb := db.Sweep, "deleted"
	if c.DryRun {
		act, verb = db.Sweepable, "would delete"
	}
	did, err := act(ctx, keep)
	if err == nil && e.cli.JSON {
		return printJSON(e.out, did)
	}
	if err == nil || !c.DryRun { // What was deleted before an error is deleted.
		fmt.Fprintf(e.out, "%s: %s, %s, the events of %s\n", verb, counted(int(did.Sessions), "session"),
			counted(int(did.Runs), "run"), counted(int(did.Events), "run"))
	}
	return err
}

// sweepEvery is how often keyway serve deletes what is too old. A random part keeps several servers apart.
const sweepEvery = time.Hour

// sweepOften calls sweep about once in sweepEvery until ctx ends.
func sweepOften(ctx context.Context, sweep func(context.Context)) {
	for {
		wait := sweepEvery/2 + rand.N(sweepEvery) // #nosec G404 -- it only keeps several servers apart
		select {
		case <-time.After(wait):
			sweep(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// sweep deletes what is too old by the configuration that is in force.
func (s *server) sweep(ctx context.Context) {
	keep := s.retention.Load()
	s.expireLogs(*keep)
	did, err := s.db.Sweep(ctx, dataRetention(*keep))
	if err != nil && ctx.Err() == nil {
		s.log.Warn("could not delete all data that is too old; will try again", "err", err)
	}
	if did != (store.Swept{}) {
		s.log.Info("deleted data that is too old", "sessions", did.Sessions, "runs", did.Runs, "runs_without_events",
			did.Events)
	}
}

// expireLogs removes files of logs that are too old. Of those without a time, nothing is removed here.
func (s *server) expireLogs(keep config.Retention) {
	for _, f := range s.logFiles {
		age := keep.Decisions
		if f.name == auditLog {
			age = keep.Audit
		}
		if age == 0 {
			continue
		}
		removed, err := f.expire(time.Now(), age)
		if err != nil {
			s.log.Warn("could not remove all files of the log that are too old; will try again", "log", f.name, "err", err)
		}
		if removed > 0 {
			s.log.Info("removed files of the log that are too old", "log", f.name, "files", removed)
		}
	}
}

// dataRetention is what keyway.yaml says about the database.
func dataRetention(r config.Retention) store.Retention {
	return store.Retention{Events: r.Events, Runs: r.Runs, Sessions: r.Sessions}
}
