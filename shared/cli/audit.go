package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/owner"
)

// auditCmd searches the audit log.
type auditCmd struct {
	Actor  string `placeholder:"SUB" help:"What this caller did: the subject of its tokens."`
	Owner  string `placeholder:"SUB" help:"What was done to the data of this user."`
	Object string `placeholder:"ID" help:"What was done to this session, run or memory, or to the token with this jti."`
	Action string `placeholder:"NAME" help:"Only this action, such as delete_session."`
	Issuer string `placeholder:"URL" help:"The issuer of SUB, if keyway.yaml doesn't name it any more."`
	Since  moment `placeholder:"TIME" help:"Only from this time on, as in 2026-11-29, 2026-11-29T12:00:00Z or 7d (ago)."`
	Until  moment `placeholder:"TIME" help:"Only before this time."`
	// Log is the log to read; empty: the files below --data.
	Log string `placeholder:"FILE" help:"${help_audit_log}"`
}

// Help explains what the log has, and adds examples.
func (auditCmd) Help() string {
	return `Prints who changed which data, and what administrators read: one line for each request.

  keyway audit --since 7d
  keyway audit --owner ann@example.com
  keyway audit --actor root --action delete_session --json
  keyway audit --object 5a0c5ae2-2f6e-4a7c-b4ab-8f7b1b2a6d0a
  aws logs tail LOG_GROUP --since 7d --format short --filter-pattern '{ $.msg = "audit" }' |
    LOG_HASH_KEY=… keyway audit --log - --owner ann@example.com

The log has no names but keyed hashes. --actor, --owner and --object are hashed with the keys
of the log: those in LOG_HASH_KEY, or else in the file log.key below --data. A line that was
written with a key that is gone can't be found by a name.

Exit status 0: something was found, 3: nothing, 2: a file or a flag is wrong.`
}

// moment is a time, or an age before now.
type moment struct {
	at  time.Time
	ago time.Duration
}

// UnmarshalText parses a day, a time or an age.
func (m *moment) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			m.at = at
			return nil
		}
	}
	var a age
	if err := a.UnmarshalText(text); err != nil {
		return fmt.Errorf("%q is no time; write it as in 2026-11-29, 2026-11-29T12:00:00Z, 7d or 30m", text)
	}
	m.ago = time.Duration(a)
	return nil
}

// time returns the moment; zero if none was given.
func (m moment) time(now time.Time) time.Time {
	if m.ago > 0 {
		return now.Add(-m.ago)
	}
	return m.at
}

// Run searches the log.
func (c auditCmd) Run(e env) error {
	q, err := c.query(e)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	shown, found := 0, audit.Found{}
	show := func(l audit.Line, text []byte) error {
		if e.cli.JSON {
			_, err := fmt.Fprintf(e.out, "%s\n", text)
			shown++
			return err
		}
		if shown++; shown == 1 {
			fmt.Fprintln(table, "TIME\tACTOR\tACTION\tOBJECT\tOWNER\tSOURCE\tSTATUS\tREQUEST")
		}
		_, err := fmt.Fprintln(table, strings.Join(columns(l), "\t"))
		return err
	}
	files := []string{c.Log}
	if c.Log == "" {
		files = auditFiles(e.cli.Data)
	}
	for _, file := range files {
		err := search(e, q, file, &found, show)
		if c.Log == "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return usageError{err}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return conclude(e, strings.Join(files, " and "), shown, found)
}

// conclude reports what the log lacks, and why nothing was found.
func conclude(e env, where string, shown int, found audit.Found) error {
	if found.Lost > 0 {
		fmt.Fprintf(e.err, "warning: %s could not be written when the log was, and are missing\n",
			counted(found.Lost, "line"))
	}
	if found.Broken > 0 {
		fmt.Fprintf(e.err, "warning: %s can't be read\n", counted(found.Broken, "line"))
	}
	switch {
	case shown > 0:
		return nil
	case found.Lines == 0:
		return usage(`no line of the audit log in %s (%s of other logs): keyway looks for JSON lines with "msg":"audit"`,
			where, counted(found.Other, "line"))
	}
	fmt.Fprintf(e.err, "nothing found in %s\n", counted(found.Lines, "line"))
	return silent(exitDenied)
}

func search(e env, q audit.Query, file string, found *audit.Found, show func(audit.Line, []byte) error) error {
	in := e.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	return q.Search(in, found, show)
}

// columns returns a line as cells of a table. The log is a text that others may have written, so control characters
// are quoted.
func columns(l audit.Line) []string {
	actor := l.Actor
	if l.Admin {
		actor += " (admin)"
	}
	object := strings.TrimSpace(l.Object + " " + strings.Join(l.Objects[:min(len(l.Objects), 3)], ","))
	if n := max(l.Count, len(l.Objects)); n > 3 {
		object += fmt.Sprintf(" and %d more", n-3)
	}
	owners := strings.Join(l.Owners[:min(len(l.Owners), 3)], ",")
	if len(l.Owners) > 3 {
		owners += fmt.Sprintf(" and %d more", len(l.Owners)-3)
	}
	if l.AllOwners {
		owners = "all"
	}
	cells := []string{
		l.Time.UTC().Format("2006-01-02T15:04:05Z"), actor, l.Action, object, owners, l.Source, fmt.Sprint(l.Status),
		l.RequestID,
	}
	for i, c := range cells {
		cells[i] = cmp.Or(printable(c), "-")
	}
	return cells
}

// query returns what the flags select.
func (c auditCmd) query(e env) (audit.Query, error) {
	now := time.Now()
	q := audit.Query{Action: c.Action, Since: c.Since.time(now), Until: c.Until.time(now)}
	if c.Actor == "" && c.Owner == "" && c.Object == "" {
		return q, nil
	}
	keys, err := e.readKeys()
	if err != nil {
		return q, err
	}
	if len(keys) == 0 {
		return q, usage("no key of the log: set %s, or --data to the directory that has log.key", loghash.Variable)
	}
	issuers := c.issuers(e)
	if c.Actor != "" {
		for _, i := range issuers {
			q.Actors = append(q.Actors, keys.Subjects(i, c.Actor)...)
		}
	}
	if c.Owner != "" {
		// The name of an owner is the subject, or has the issuer in front; see package owner.
		names := []string{c.Owner, owner.HomeName(c.Owner)}
		for _, i := range issuers {
			names = append(names, owner.Group(i)+c.Owner)
		}
		for _, name := range names {
			q.Owners = append(q.Owners, audit.OwnerHashes(keys, name)...)
		}
	}
	if c.Object != "" {
		q.Objects = audit.ObjectHashes(keys, c.Object)
	}
	return q, nil
}

// issuers returns the issuers that a subject may belong to: the one of --issuer, or those of keyway.yaml and none. A
// file that is missing or wrong names none: an old log can be searched without it.
func (c auditCmd) issuers(e env) []string {
	if c.Issuer != "" {
		return []string{c.Issuer}
	}
	all := []string{""}
	if cfg, err := e.loadRules(e.cli.Config); err == nil {
		all = append(all, issuersOf(cfg.Auth)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func issuersOf(auth config.Auth) (all []string) {
	all = append(all, auth.Issuer)
	for _, k := range auth.Keys {
		all = append(all, k.Issuers()...)
	}
	return all
}
