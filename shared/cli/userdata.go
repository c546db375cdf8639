package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
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
events, memory and day of use that limits have counted, and last a summary with the numbers of
lines. All lines show one moment.
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
	return `The command deletes the user's sessions, runs, events and memories, and what was counted for
the user's limits. It is refused while runs of the user are in progress. Revoke the user's
tokens first, so that no new data is made; the revocation itself stays. Logs have hashes of
subjects only, and stay: the command prints those of the user. Whatever stops the command, it
reports what it has deleted, and can be repeated.

Exit status 0: deleted, or it could be, 1: refused.

  keyway erase --sub ann
  keyway erase --sub ann --apply`
}

// eraseTimeout bounds erase and export.
const eraseTimeout = 6 * time.Hour

// names are those under which a user is known.
type names struct {
	// owner is the name of the user's data.
	owner string
	// issuers are all spellings of the user's issuer.
	issuers []string
}

// open opens the database and returns the names of the user. remedy is that of openDatabase.
func (u user) open(ctx context.Context, e env, remedy string) (*database, names, error) {
	if u.Sub == "" || len(u.Sub) > store.MaxSubject || !pgvalue.ValidText(u.Sub) {
		return nil, names{}, usage("--sub: write UTF-8 of 1 to %d bytes", store.MaxSubject)
	}
	db, cfg, err := e.openDatabase(ctx, remedy)
	if err != nil {
		return nil, names{}, err
	}
	who, err := u.names(ctx, db, cfg)
	if err != nil {
		db.Close()
		return nil, names{}, err
	}
	noteClaims(e, u.Sub, cfg.Auth)
	return db, who, nil
}

// database is the database that a command uses.
type database struct {
	*store.DB
	// embedded is nil for the database of keyway.yaml.
	embedded *devpg.Server
}

// Close closes the connections, and stops the embedded database if the command has started it.
func (d *database) Close() {
	d.DB.Close()
	if d.embedded != nil {
		_ = d.embedded.Close() // The next start repairs what a stop has left.
	}
}

// openDatabase opens the database of keyway.yaml, and returns the file too. Without one it opens the embedded database
// below --data, which a server may use at the same time. A command makes no database: then the error has the remedy.
func (e env) openDatabase(ctx context.Context, remedy string) (*database, *config.Config, error) {
	cfg, err := e.load(true)
	if err != nil {
		return nil, nil, err
	}
	db, url := &database{}, string(cfg.Database.URL)
	if url == "" {
		if !devpg.Exists(e.cli.Data) {
			return nil, nil, usage("no database: set database.url in keyway.yaml, or DATABASE_URL "+
				"(with the embedded database, %s)", remedy)
		}
		progress := func(line string) { fmt.Fprintln(e.err, line) }
		db.embedded, err = devpg.Start(ctx, devpg.Options{Dir: e.cli.Data, Durable: true, Progress: progress})
		if err != nil {
			return nil, nil, err
		}
		url = db.embedded.URL
	}
	if db.DB, err = store.Open(store.Options{URL: url, Schema: cfg.Database.Schema}); err != nil {
		if db.embedded != nil {
			err = errors.Join(err, db.embedded.Close())
		}
		return nil, nil, err
	}
	return db, cfg, nil
}

// toServe is what to do if there is no database yet, and a route does the same as the command.
func toServe(request string) string {
	return "start keyway serve, and send " + request + " as an administrator"
}

// names returns the names of the user, by the record of the database.
func (u user) names(ctx context.Context, db *database, cfg *config.Config) (names, error) {
	if err := db.Check(ctx); err != nil {
		return names{}, store.AtStart(err)
	}
	issuers := revoke.IssuersOf(cfg.Auth)
	issuer, err := issuers.Choose(u.Issuer, db.Owners())
	if err != nil {
		return names{}, usage("--issuer: %w", err)
	}
	record, err := db.Owners().Adopt(cfg.Auth.Owners(), func() (map[string]bool, error) { return nil, owner.ErrStored })
	if err != nil {
		return names{}, fmt.Errorf("%w; run keyway migrate with this keyway.yaml", err)
	}
	spellings := issuers.Spellings(issuer, db.Owners())
	slices.Sort(spellings)
	return names{record.Name(issuer, issuer, u.Sub), slices.Compact(spellings)}, nil
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
	db, who, err := c.open(ctx, e, toServe("GET /user-data"))
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
	n, err := c.write(ctx, e, db, who.owner, to)
	if err != nil {
		return fmt.Errorf("the export is not complete: %w", err)
	}
	fmt.Fprintf(e.err, "exported: %s, %s, %s of events, %s\n", counted(n["session"], "session"), counted(n["run"], "run"),
		counted(n["events"], "line"), countedMemories(n["memory"]))
	return nil
}

// write writes the lines of an export and returns their numbers.
func (c exportCmd) write(ctx context.Context, e env, db *database, name string, to io.Writer) (map[string]int, error) {
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
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM) // for the report of what was done until then
	defer stop()
	keys, err := e.readKeys()
	if err != nil {
		return err
	}
	db, who, err := c.open(ctx, e, toServe("DELETE /user-data"))
	if err != nil {
		return err
	}
	defer db.Close()
	r := erasure{applied: c.Apply, keyed: len(keys) > 0, Hashes: hashes{Owner: audit.OwnerHashes(keys, who.owner)}}
	for _, issuer := range who.issuers {
		r.Hashes.Subject = append(r.Hashes.Subject, keys.Subjects(issuer, c.Sub)...)
	}
	if r.UserCounts, err = db.CountUser(ctx, who.owner); err != nil {
		return err
	}
	if c.Apply && r.Live == 0 {
		r.UserCounts = store.UserCounts{}
		for more := true; more && err == nil; {
			var did store.UserCounts
			did, more, err = db.EraseUser(ctx, who.owner, 1)
			r.Sessions, r.Runs, r.Memories = r.Sessions+did.Sessions, r.Runs+did.Runs, r.Memories+did.Memories
		}
		r.Erased = err == nil
	}
	return errors.Join(r.print(e), err)
}

// erasure is the report of erase.
type erasure struct {
	// Erased reports that nothing is left.
	Erased bool `json:"erased"`
	// UserCounts are what was deleted, or what would be deleted.
	store.UserCounts
	// Hashes are what logs have in the place of the user's name. An erasure doesn't remove them.
	Hashes hashes `json:"hashes"`
	// applied reports that the command deletes, and keyed that it has the keys of the logs.
	applied, keyed bool
}

// hashes are the hashes of a user by the current key of the logs, by the earlier ones, and without a key.
type hashes struct {
	// Subject are those of the caller: actor in the audit log, principal in decisions.
	Subject []string `json:"subject"`
	// Owner are those in owners of the audit log.
	Owner []string `json:"owner"`
}

// print prints the report, also that of an erasure that was interrupted. The error is silent if the report has the
// reason.
func (r erasure) print(e env) (err error) {
	if r.Live > 0 {
		err = silent(exitFailure)
	}
	if e.cli.JSON {
		return errors.Join(printJSON(e.out, r), err)
	}
	verb := "would erase"
	switch {
	case r.Erased:
		verb = "erased"
	case r.applied && r.Live == 0:
		verb = "erased so far"
	}
	fmt.Fprintf(e.out, "%s: %s, %s, %s\n", verb, counted(r.Sessions, "session"), counted(r.Runs, "run"),
		countedMemories(r.Memories))
	switch {
	case r.Live > 0:
		fmt.Fprintf(e.err, "refused: %s in progress; wait until they end, or cancel them\n", counted(r.Live, "run"))
	case !r.applied:
		fmt.Fprintln(e.out, "nothing is erased yet; add --apply")
	case !r.Erased:
		fmt.Fprintln(e.out, "not all is erased; repeat the command")
	}
	fmt.Fprintf(e.out, "in logs, as actor or principal: %s\n", strings.Join(r.Hashes.Subject, " "))
	if r.keyed {
		fmt.Fprintf(e.out, "in logs, as one of owners: %s\n", strings.Join(r.Hashes.Owner, " "))
	} else {
		fmt.Fprintf(e.err, "note: the keyed hashes need the key of the log: set %s, or --data to the directory that has "+
			"log.key\n", loghash.Variable)
	}
	return err
}
