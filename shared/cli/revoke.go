package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// revokeCmd revokes tokens in the database that keyway.yaml or DATABASE_URL names.
type revokeCmd struct {
	JTI    string  `name:"jti" placeholder:"ID" help:"Revoke the one token with this claim jti."`
	Sub    string  `placeholder:"SUBJECT" help:"${help_revoke_sub}"`
	Issuer *string `placeholder:"ISSUER" help:"${help_issuer}"`
	Before string  `placeholder:"TIME" help:"${help_before}"`
	Note   string  `placeholder:"TEXT" help:"Why, for people."`
	List   bool    `help:"List the revocations, the oldest first."`
	Undo   bool    `help:"Undo the revocation with these --jti or --sub, and --issuer."`
	Prune  age     `placeholder:"AGE" help:"${help_prune}"`
}

// Help adds examples to the command's --help.
func (revokeCmd) Help() string {
	return `A revoked token is refused within 10 seconds by keyway serve and by the functions that have
a database, and runs end before their next step. The command needs the database, as keyway
migrate does; an administrator can send POST /revocations instead, until the list has 9,000 rows of 10,000.

  keyway revoke --sub ann --note "stolen laptop"      all tokens of ann that were issued until now
  keyway revoke --sub ann --before "1h ago"           those that were issued more than an hour ago
  keyway revoke --jti 4f1c…                           one token
  keyway revoke --list
  keyway revoke --undo --sub ann
  keyway revoke --prune 90d                           those whose tokens have expired since`
}

// revokeTimeout bounds the statements of the command.
const revokeTimeout = time.Minute

// Run changes or prints the revocations.
func (c revokeCmd) Run(ctx context.Context, e env) error {
	if err := c.check(); err != nil {
		return err
	}
	db, cfg, err := e.openDatabase(ctx, "an administrator sends POST /revocations to keyway serve")
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if err := db.Check(ctx); err != nil {
		return store.AtStart(err)
	}
	switch {
	case c.List:
		return c.list(ctx, e, db, cfg.Auth)
	case c.Prune > 0:
		return c.prune(ctx, e, db)
	}
	r := store.Revocation{TokenID: c.JTI, Subject: c.Sub, Note: c.Note}
	if r.Issuer, err = c.issuer(revoke.IssuersOf(cfg.Auth), db.Owners()); err != nil {
		return usage("--issuer: %w", err)
	}
	if c.Undo {
		return c.undo(ctx, e, db, r, revoke.IssuersOf(cfg.Auth).Spellings(r.Issuer, db.Owners()))
	}
	noteClaims(e, c.Sub, cfg.Auth)
	return c.revoke(ctx, e, db, r)
}

// noteClaims says which claim --sub is compared with if a file reads another one than sub.
func noteClaims(e env, subject string, a config.Auth) {
	if subject == "" {
		return
	}
	sources := []config.ClaimSource{a.Claims.Subject}
	for _, k := range a.Keys {
		sources = append(sources, k.Claims.Subject)
	}
	noted := map[string]bool{}
	for _, source := range sources {
		names := strings.Join(source.Names(), ", ")
		if names != "" && names != "sub" && !noted[names] {
			noted[names] = true
			fmt.Fprintf(e.err, "note: the subject of a token is what claims.subject names in keyway.yaml: %s; "+
				"what was revoked while it named another claim must be revoked again\n", names)
		}
	}
}

// check reports flags that do not fit together.
func (c revokeCmd) check() error {
	selected := c.JTI != "" || c.Sub != "" || c.Issuer != nil
	switch {
	case c.List && (selected || c.Undo || c.Prune > 0 || c.Before != "" || c.Note != ""),
		c.Prune > 0 && (selected || c.Undo || c.Before != "" || c.Note != ""):
		return usage("--list and --prune take no other flag")
	case c.List || c.Prune > 0:
		return nil
	case (c.JTI == "") == (c.Sub == ""):
		return usage("give one of --jti and --sub, or --list")
	case c.Before != "" && (c.Undo || c.JTI != ""):
		return usage("--before is for --sub: the token with a jti is revoked whenever it was issued")
	case jwtText.MatchString(c.JTI):
		return usage("--jti is the claim jti of a token, and not the token itself")
	}
	for _, text := range []struct {
		flag, text string
		most       int
	}{
		{"--jti", c.JTI, store.MaxTokenID}, {"--sub", c.Sub, store.MaxSubject}, {"--note", c.Note, store.MaxNote},
		{"--issuer", c.named(), store.MaxIssuer},
	} {
		if len(text.text) > text.most || !pgvalue.ValidText(text.text) {
			return usage("%s: write UTF-8 of at most %d bytes", text.flag, text.most)
		}
	}
	return nil
}

// named returns the value of --issuer, or "".
func (c revokeCmd) named() string {
	if c.Issuer == nil {
		return ""
	}
	return *c.Issuer
}

// issuer returns the issuer of the revocation. One that keyway.yaml no longer names can still be undone.
func (c revokeCmd) issuer(known revoke.Issuers, recorded *owner.Record) (string, error) {
	switch {
	case c.Undo && c.Issuer != nil:
		return *c.Issuer, nil
	case c.Undo:
		recorded = nil
	}
	return known.Choose(c.Issuer, recorded)
}

// revoke stores a revocation. Its times are by the clock of the database.
func (c revokeCmd) revoke(ctx context.Context, e env, db *database, r store.Revocation) (err error) {
	if r.MadeAt, err = db.Now(ctx); err != nil {
		return err
	}
	if r.Before, err = c.before(r.MadeAt); err == nil {
		err = r.Complete()
	}
	if err != nil {
		return usage("--before: %w", err)
	}
	if r, err = db.Revoke(ctx, r, store.MaxRevocations); err != nil {
		return err
	}
	if e.cli.JSON {
		return printJSON(e.out, api.RevocationOf(r))
	}
	_, err = fmt.Fprintf(e.out, "revoked: %s; it takes effect within %.0f seconds\n", about(r), revoke.Fresh.Seconds())
	return err
}

// before returns the time that --before names, or nil.
func (c revokeCmd) before(now time.Time) (*time.Time, error) {
	if c.Before == "" {
		return nil, nil
	}
	if t, err := time.Parse(time.RFC3339, c.Before); err == nil {
		return &t, nil
	}
	var ago age
	if ago.UnmarshalText([]byte(strings.TrimSuffix(c.Before, " ago"))) != nil {
		return nil, fmt.Errorf("%q is no time; write it as in 2026-11-29T12:00:00Z or \"1h ago\"", c.Before)
	}
	return new(now.Add(-time.Duration(ago))), nil
}

// about names the tokens of a revocation.
func about(r store.Revocation) string {
	of := ""
	if r.Issuer != "" {
		of = " of " + printable(r.Issuer)
	}
	if r.Subject == "" {
		return fmt.Sprintf("the token with the jti %s%s", printable(r.TokenID), of)
	}
	return fmt.Sprintf("the tokens of the subject %s%s that were issued before %s", printable(r.Subject), of,
		r.Before.Format(time.RFC3339))
}

// undo removes a revocation, under each of the spellings of its issuer.
func (c revokeCmd) undo(ctx context.Context, e env, db *database, r store.Revocation, issuers []string) error {
	found, err := db.UndoRevocation(ctx, r, issuers)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("there is no such revocation of the issuer %q; see keyway revoke --list, and name the issuer that "+
			"it shows with --issuer (\"\" for -)", r.Issuer)
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"undone": true})
	}
	_, err = fmt.Fprintf(e.out, "undone; it takes effect within %.0f seconds\n", revoke.Fresh.Seconds())
	return err
}

// prune removes the revocations that are older than --prune.
func (c revokeCmd) prune(ctx context.Context, e env, db *database) error {
	now, err := db.Now(ctx)
	if err != nil {
		return err
	}
	n, err := db.PruneRevocations(ctx, now.Add(-time.Duration(c.Prune)))
	if err != nil {
		return err
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"removed": n})
	}
	_, err = fmt.Fprintf(e.out, "removed %s\n", counted(int(n), "revocation"))
	return err
}

// list prints all revocations. a is the auth of keyway.yaml.
func (c revokeCmd) list(ctx context.Context, e env, db *database, a config.Auth) error {
	rows, _, err := db.RevocationPage(ctx, math.MaxInt32, 1)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(rows, func(r store.Revocation) bool { return r.Subject != "" }); i >= 0 {
		noteClaims(e, rows[i].Subject, a)
	}
	if e.cli.JSON {
		list := make([]wire.Revocation, len(rows))
		for i, r := range rows {
			list[i] = api.RevocationOf(r)
		}
		return printJSON(e.out, list)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		before := "any time"
		if r.Before != nil {
			before = "before " + r.Before.Format(time.RFC3339)
		}
		kind := "jti"
		if r.Subject != "" {
			kind = "sub"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.MadeAt.Format(time.RFC3339), kind,
			printable(cmp.Or(r.TokenID, r.Subject)), printable(cmp.Or(r.Issuer, "-")), before, printable(r.Note))
	}
	return w.Flush()
}

// printable returns text as one cell of a table. Subjects come from tokens, and may hold control characters.
func printable(text string) string {
	quoted := fmt.Sprintf("%q", text)
	if quoted == `"`+text+`"` {
		return text
	}
	return quoted
}
