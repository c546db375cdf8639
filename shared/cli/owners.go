package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// ownersCmd holds the commands about who owns what.
type ownersCmd struct {
	List ownersListCmd `cmd:"" help:"Count what the users of each issuer own."`
	Move ownersMoveCmd `cmd:"" help:"Move what the users of one issuer own to those of another."`
}

// ownersListCmd lists the issuers of the names in the database.
type ownersListCmd struct{}

// Help adds examples to the command's --help.
func (ownersListCmd) Help() string {
	return `Users of the home issuer own data under their bare subjects, and users of another issuer
under issuer#subject. An issuer that no keyway.yaml has named since the record began is
marked: its name is from earlier, or it is the beginning of a subject that contains #.

  DATABASE_URL=postgres://user:password@host:5432/database keyway owners list
  keyway owners list --json`
}

// ownersMoveCmd renames owners.
type ownersMoveCmd struct {
	From    string `placeholder:"ISSUER" help:"${help_owners_from}"`
	To      string `placeholder:"ISSUER" help:"Whose users get the data, in the same form."`
	Subject string `placeholder:"SUBJECT" help:"${help_owners_subject}"`
	Apply   bool   `help:"Make the change. Without it, the command only says what it would change."`
}

// Help adds examples to the command's --help.
func (ownersMoveCmd) Help() string {
	return `Each user of --from loses what they own to the user of --to with the same subject. The command
prints what it would change; with --apply it makes the change, all of it or nothing. It is
refused while runs of these users are in progress, and if both users have a session or
an idempotency key of one id.

Moving to home makes the issuer the home issuer, if the database has none or if keyway.yaml
now names the issuer of the entry that named none. Moving from home leaves none. Running
servers and functions follow within a minute. Repeat the command then, for what they wrote
under the old names meanwhile.

Exit status 0: moved, or it could be, 1: refused.

  keyway owners move --from https://issuer.example.com --to home
  keyway owners move --from https://issuer.example.com --to home --apply
  keyway owners move --from home --to https://issuer.example.com
  keyway owners move --from unnamed --to home
  keyway owners move --subject 'a#b' --apply`
}

// unnamed is how an operator writes the issuer of tokens that have none.
const unnamed = "unnamed"

// target returns the database of keyway.yaml, and the file.
func (e env) target() (migrations.Target, *config.Config, error) {
	cfg, err := e.load(true)
	if err != nil {
		return migrations.Target{}, nil, err
	}
	if cfg.Database.URL == "" {
		return migrations.Target{}, nil, usage("no database: set database.url in keyway.yaml, or DATABASE_URL " +
			"(keyway serve migrates its embedded database by itself)")
	}
	return migrations.Target{
		URL: string(cfg.Database.URL), Schema: cfg.Database.Schema, OSID: cfg.ID, Owners: cfg.Auth.Owners(),
		Role:     cfg.Database.Role,
		Progress: func(line string) { fmt.Fprintln(e.err, line) },
	}, cfg, nil
}

// jsonHolding is a line of owners list.
type jsonHolding struct {
	// Issuer is "" for tokens without an issuer, and for the home issuer if the entries that name none are at home.
	Issuer string `json:"issuer"`
	Home   bool   `json:"home"`
	// Known reports that a keyway.yaml has named the issuer since the record began.
	Known    bool `json:"known"`
	Owners   int  `json:"owners"`
	Sessions int  `json:"sessions"`
	Runs     int  `json:"runs"`
	Memories int  `json:"memories"`
}

// Run prints the home issuer and one line for each issuer.
func (ownersListCmd) Run(ctx context.Context, e env) error {
	at, cfg, err := e.target()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	r, list, err := migrations.Holdings(ctx, at)
	if err != nil {
		return err
	}
	if r == nil {
		r = &owner.Record{}
		fmt.Fprintln(e.err, "warning: the home issuer is not recorded yet; run keyway migrate")
	}
	lines := []jsonHolding{}
	for _, h := range list {
		issuer, home := owner.IssuerOf(h.Group)
		if home && r.Home != nil {
			issuer = *r.Home
		} else if home {
			issuer = ""
		}
		_, known := r.Issuers[issuer]
		lines = append(lines, jsonHolding{
			Issuer: issuer, Home: home, Known: known || home || issuer == "",
			Owners: h.Owners, Sessions: h.Sessions, Runs: h.Runs, Memories: h.Memories,
		})
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"schema": cfg.Database.Schema, "home_issuer": r.Home, "owners": lines})
	}
	switch {
	case r.Home == nil:
		fmt.Fprintln(e.out, "home issuer: none")
	case *r.Home == "":
		fmt.Fprintln(e.out, "home issuer: that of the entries of auth.keys without an issuer")
	case r.Unnamed:
		fmt.Fprintf(e.out, "home issuer: %s, and the entries of auth.keys without an issuer\n", *r.Home)
	default:
		fmt.Fprintln(e.out, "home issuer:", printable(*r.Home))
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ISSUER\tOWNERS\tSESSIONS\tRUNS\tMEMORIES")
	for i, h := range list {
		name := printable(lines[i].Issuer)
		switch {
		case h.Group == "":
			name = "home"
		case lines[i].Home:
			name = "home, subjects with #"
		case lines[i].Issuer == "":
			name = unnamed
		case !lines[i].Known:
			name += " (in no keyway.yaml)"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", name, h.Owners, h.Sessions, h.Runs, h.Memories)
	}
	return w.Flush()
}

// Run moves data, or says what it would move.
func (c ownersMoveCmd) Run(ctx context.Context, e env) error {
	if c.Subject != "" && c.From+c.To != "" || c.Subject == "" && (c.From == "" || c.To == "") {
		return usage("write --from ISSUER --to ISSUER, or --subject SUBJECT; home and unnamed stand for issuers too")
	}
	if c.From == owner.None || c.To == owner.None {
		return usage("none is no issuer; to have no home issuer, write --from home --to ISSUER, the issuer of the home users")
	}
	m := migrations.Move{From: c.From, To: c.To, Subject: c.Subject, Apply: c.Apply}
	if m.From == unnamed {
		m.From = ""
	}
	if m.To == unnamed {
		m.To = ""
	}
	at, _, err := e.target()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	did, err := migrations.MoveOwners(ctx, at, m)
	if err != nil {
		return err
	}
	refused := did.Live > 0 || did.Conflicts > 0
	if e.cli.JSON {
		err = printJSON(e.out, map[string]any{
			"moved": did.Done, "owners": did.Owners, "sessions": did.Sessions, "runs": did.Runs, "memories": did.Memories,
			"live_runs": did.Live, "conflicts": did.Conflicts, "examples": append([]migrations.Conflict{}, did.Examples...),
			"home_issuer": did.Record.Home,
		})
	} else {
		c.print(e, did)
	}
	if err == nil && refused {
		return silent(exitFailure)
	}
	return err
}

// print describes a move to a person.
func (c ownersMoveCmd) print(e env, did migrations.Moved) {
	verb := "would move"
	if did.Done {
		verb = "moved"
	}
	fmt.Fprintf(e.out, "%s: %s, %s, %s, %s\n", verb, counted(did.Owners, "owner"), counted(did.Sessions, "session"),
		counted(did.Runs, "run"), countedMemories(did.Memories))
	if did.Live > 0 {
		fmt.Fprintf(e.err, "refused: %s in progress; wait until they end, or cancel them\n", counted(did.Live, "run"))
	}
	if did.Conflicts > 0 {
		fmt.Fprintf(e.err, "refused: both owners have the same %s; delete one of each, or keep them apart:\n",
			counted(did.Conflicts, "id"))
		for _, x := range did.Examples {
			fmt.Fprintf(e.err, "  %s %q of %q and of %q\n", x.Kind, x.ID, x.From, x.To)
		}
	}
	if !did.Done && did.Live == 0 && did.Conflicts == 0 {
		fmt.Fprintln(e.out, "nothing is changed yet; add --apply")
	}
}

// countedMemories is counted for a word with another plural.
func countedMemories(n int) string {
	if n == 1 {
		return "1 memory"
	}
	return fmt.Sprintf("%d memories", n)
}
