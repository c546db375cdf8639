package migrations

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/owner"
)

// adopt brings the record of the owners up to date with the file. was is what state has read, so that most starts
// need no further statement.
func (t Target) adopt(ctx context.Context, conn *pgx.Conn, was *owner.Record) error {
	notLooked := func() (map[string]bool, error) { return nil, owner.ErrStored }
	if was != nil {
		if next, err := was.Adopt(t.Owners, notLooked); err == nil && was.Fits(next) {
			return nil
		}
	}
	return t.locked(ctx, conn, func(tx pgx.Tx) error {
		was, err := t.owners(ctx, tx)
		if err != nil {
			return err
		}
		next, err := was.Adopt(t.Owners, func() (map[string]bool, error) { return t.groups(ctx, tx) })
		if err != nil || was.Fits(next) {
			return err
		}
		groups, err := t.groups(ctx, tx)
		if err != nil {
			return err
		}
		if err := t.reportFirst(ctx, tx, was, next); err != nil {
			return err
		}
		t.reportNew(was, next, groups)
		return t.setOwners(ctx, tx, next)
	})
}

// reportFirst reports whose data the existing data is, when the owners are recorded for the first time. An earlier
// version stored no issuer with it, so nothing shows whether the only entry of the file was replaced with the update.
func (t Target) reportFirst(ctx context.Context, tx pgx.Tx, was, next *owner.Record) error {
	if was != nil || next.Home == nil || *next.Home == "" {
		return nil
	}
	held, err := t.holdings(ctx, tx, "position('#' IN owner) = 0 AND owner <> ''", nil)
	for _, h := range held {
		t.report("first record of the owners: users of %[1]s own the existing data (sessions: %[2]d, runs: %[3]d, memories: "+
			"%[4]d); if it is of users of another issuer, stop now, and move it: keyway owners move --from home --to ISSUER "+
			"--apply", *next.Home, h.Sessions, h.Runs, h.Memories)
	}
	return err
}

// reportNew reports issuers that the file names for the first time. An operator who has only changed how an issuer is
// written learns so that its users are others now. Names that begin like those of the new issuer's users can be of an
// earlier version, from a subject that contains #.
func (t Target) reportNew(was, next *owner.Record, groups map[string]bool) {
	if was == nil {
		return
	}
	for spelling, issuer := range next.Issuers {
		_, known := was.Issuers[spelling]
		if !known && spelling == issuer && (next.Home == nil || *next.Home != issuer) {
			t.report("the issuer %s is new here, so its users own data of their own; if it is another spelling of an "+
				"issuer that was here before, list both in one entry of auth.keys", issuer)
			if groups[owner.Group(issuer)] {
				t.report("warning: users of %[1]s own data already; if it is of users of another issuer whose subjects begin "+
					"with %[2]s, stop, and move it: keyway owners list, keyway owners move --subject '%[2]sSUBJECT'", issuer,
					owner.Group(issuer))
			}
		}
	}
}

// owners reads the record in a transaction that has the lock. It is nil if nothing is recorded.
func (t Target) owners(ctx context.Context, tx pgx.Tx) (r *owner.Record, err error) {
	err = tx.QueryRow(ctx, "SELECT NULLIF(owners, 'null') FROM "+t.table("os")).Scan(&r)
	return r, err
}

func (t Target) setOwners(ctx context.Context, tx pgx.Tx, r *owner.Record) error {
	var now time.Time
	if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return err
	}
	r.Date(now.UTC())
	text, err := json.Marshal(r)
	if err == nil {
		_, err = tx.Exec(ctx, "UPDATE "+t.table("os")+" SET owners = $1::jsonb", string(text))
	}
	return err
}

// group is the group of a name in SQL; see owner.Stored.
const group = `CASE WHEN position('#' IN owner) = 0 THEN '' ELSE split_part(owner, '#', 1) || '#' END`

// groups returns the groups of the names in the database; see owner.Stored. It reads the owners of all rows.
func (t Target) groups(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	rows, _ := tx.Query(ctx, `SELECT DISTINCT `+group+` FROM (SELECT owner FROM `+t.table("sessions")+` UNION
		SELECT owner FROM `+t.table("memories")+`) AS names WHERE owner <> ''`) // CollectRows returns its error.
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	all := map[string]bool{}
	for _, g := range list {
		all[g] = true
	}
	return all, err
}
