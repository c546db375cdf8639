package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/store"
)

// user is how a command names whose data it is about.
type user struct {
	Sub    string  `required:"" placeholder:"SUBJECT" help:"${help_user_sub}"`
	Issuer *string `placeholder:"ISSUER" help:"${help_issuer}"`
}

// exportCmd writes what a user has.
type exportCmd struct {
	user
	Out string `placeholder:"FILE" help:"The new file to write. Defaults to standard output."`
}

// Help adds examples to the command's --help.
func (exportCmd) Help() string {
	return `The output is JSON Lines: first a manifest, then one line for each session, run, batch of
events and memory, and last a summary with the numbers of lines. All lines show one moment.
Without the summary the export is not complete, and the exit status is 1.

  keyway export --sub ann > ann.jsonl
  keyway export --sub ann --issuer https://issuer.example.com --out ann.jsonl`
}

// eraseCmd deletes what a user has.
type eraseCmd struct {
	user
	Apply bool `help:"Delete. Without it, the command only says what it would delete."`
}

// Help adds examples to the command's --help.
func (eraseCmd) Help() string {
	return `The command deletes the user's sessions, runs, events and memories. It is refused while runs of
the user are in progress. Revoke the user's tokens first, so that no new data is made; the
revocation itself stays. Logs hold hashes of subjects only, and stay. Whatever stops the
command, it can be repeated.

Exit status 0: deleted, or it could be, 1: refused.

  keyway erase --sub ann
  keyway erase --sub ann --apply`
}

// eraseTimeout bounds erase and export.
const eraseTimeout = 6 * time.Hour

// open opens the database and returns the name under which the user's data is stored.
func (u user) open(ctx context.Context, e env) (*store.DB, string, error) {
	if u.Sub == "" || len(u.Sub) > store.MaxSubject || !pgvalue.ValidText(u.Sub) {
		return nil, "", usage("--sub: write UTF-8 of 1 to %d bytes", store.MaxSubject)
	}
	db, cfg, err := e.openDatabase("")
	if err != nil {
		return nil, "", err
	}
	name, err := u.owner(ctx, db, cfg)
	if err != nil {
		db.Close()
		return nil, "", err
	}
	noteClaims(e, u.Sub, cfg.Auth)
	return db, name, nil
}

// openDatabase opens the database of keyway.yaml, and returns the file too. embedded says what to do with the embedded
// database, which a command can't open, and is "" if there is nothing to do.
func (e env) openDatabase(embedded string) (*store.DB, *config.Config, error) {
	cfg, err := e.load(true)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Database.URL == "" {
		const remedy = "no database: set database.url in keyway.yaml, or DATABASE_URL"
		if embedded != "" {
			embedded = " (with the embedded database, " + embedded + ")"
		}
		return nil, nil, usage("%s%s", remedy, embedded)
	}
	db, err := store.Open(store.Options{URL: string(cfg.Database.URL), Schema: cfg.Database.Schema})
	return db, cfg, err
}

// owner returns the name of the user's data, by the record of the database.
func (u user) owner(ctx context.Context, db *store.DB, cfg *config.Config) (string, error) {
	if err := db.Check(ctx); err != nil {
		return "", store.AtStart(err)
	}
	issuer, err := revoke.IssuersOf(cfg.Auth).Choose(u.Issuer, db.Owners())
	if err != nil {
		return "", usage("--issuer: %w", err)
	}
	record, err := db.Owners().Adopt(cfg.Auth.Owners(), func() (map[string]bool, error) { return nil, owner.ErrStored })
	if err != nil {
		return "", fmt.Errorf("%w; run keyway migrate with this keyway.yaml", err)
	}
	return record.Name(issuer, issuer, u.Sub), nil
}

// exportLine is the first or the last line of an export.
type exportLine struct {
	Kind string `json:"kind"`
	// Format, Subject, Owner and At are set in the manifest. Owner is the name under which the data is stored.
	Format  int        `json:"format,omitempty"`
	Subject string     `json:"sub,omitempty"`
	Owner   string     `json:"user_id,omitempty"`
	At      *time.Time `json:"exported_at,omitempty"`
	// Lines are set in the summary: the number of lines of each kind.
	Lines map[string]int `json:"lines,omitempty"`
}

// Run writes the export.
func (c exportCmd) Run(ctx context.Context, e env) (err error) {
	ctx, cancel := context.WithTimeout(ctx, eraseTimeout)
	defer cancel()
	db, name, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	defer db.Close()
	to := e.out
	if c.Out != "" {
		// #nosec G304 -- the operator names the file
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return usage("--out: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	n, err := c.write(ctx, e, db, name, to)
	if err != nil {
		return fmt.Errorf("the export is not complete: %w", err)
	}
	fmt.Fprintf(e.err, "exported: %s, %s, %s of events, %s\n", counted(n["session"], "session"), counted(n["run"], "run"),
		counted(n["events"], "line"), countedMemories(n["memory"]))
	return nil
}

// write writes the lines of an export and returns their numbers.
func (c exportCmd) write(ctx context.Context, e env, db *store.DB, name string, to io.Writer) (map[string]int, error) {
	buffered := bufio.NewWriter(to)
	lines := json.NewEncoder(buffered)
	lines.SetEscapeHTML(false)
	now, err := db.Now(ctx)
	if err == nil {
		err = lines.Encode(exportLine{Kind: "manifest", Format: 1, Subject: c.Sub, Owner: name, At: &now})
	}
	if err != nil {
		return nil, err
	}
	n, all := map[string]int{}, 0
	err = db.ExportUser(ctx, name, func(item store.UserItem) error {
		n[item.Kind]++
		if all++; all%10_000 == 0 {
			fmt.Fprintf(e.err, "%d lines so far\n", all)
		}
		return lines.Encode(item)
	})
	if err == nil {
		err = lines.Encode(exportLine{Kind: "summary", Lines: n})
	}
	return n, errors.Join(err, buffered.Flush())
}

// Run deletes, or says what it would delete.
func (c eraseCmd) Run(ctx context.Context, e env) error {
	ctx, cancel := context.WithTimeout(ctx, eraseTimeout)
	defer cancel()
	db, name, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	defer db.Close()
	var had store.UserCounts
	if c.Apply {
		had, err = db.EraseUser(ctx, name)
	} else {
		had, err = db.CountUser(ctx, name)
	}
	refused := had.Live > 0
	if err != nil && !refused {
		return err
	}
	if e.cli.JSON {
		err = printJSON(e.out, map[string]any{"erased": c.Apply && !refused, "sessions": had.Sessions, "runs": had.Runs,
			"memories": had.Memories, "live_runs": had.Live})
		if err == nil && refused {
			err = silent(exitFailure)
		}
		return err
	}
	verb := "would erase"
	if c.Apply && !refused {
		verb = "erased"
	}
	fmt.Fprintf(e.out, "%s: %s, %s, %s\n", verb, counted(had.Sessions, "session"), counted(had.Runs, "run"),
		countedMemories(had.Memories))
	switch {
	case refused:
		fmt.Fprintf(e.err, "refused: %s in progress; wait until they end, or cancel them\n", counted(had.Live, "run"))
		return silent(exitFailure)
	case !c.Apply:
		fmt.Fprintln(e.out, "nothing is erased yet; add --apply")
	}
	return nil
}
