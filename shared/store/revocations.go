package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/pgvalue"
)

// Limits of revocations. Every process that checks tokens keeps all revocations in memory.
const (
	// MaxRevocations is how many there can be.
	MaxRevocations = 10_000
	// ReservedRevocations is how many of them only the command line can make. The token of an administrator may be the one
	// that has leaked, and must not be able to fill the list.
	ReservedRevocations = 1_000
	// MaxIssuer is the length of the longest issuer of a revocation, in bytes.
	MaxIssuer = 1024
	// MaxTokenID is the length of the longest jti of a revocation, in bytes.
	MaxTokenID = 512
	// MaxSubject is the length of the longest subject of a revocation, in bytes.
	MaxSubject = 1024
	// MaxNote is the length of the longest note of a revocation, in bytes.
	MaxNote = 1024
)

// Revocation says that a token, or the earlier tokens of a subject, must be refused. Exactly one of TokenID and Subject
// is set.
type Revocation struct {
	// Issuer is the issuer of the tokens, or "" for the keys that accept tokens of any issuer.
	Issuer string
	// TokenID is the claim jti of the one token.
	TokenID string
	// Subject is the subject of the tokens: what auth.claims.subject names, by default the claim sub.
	Subject string
	// Before is set for a subject: the tokens that were issued before are refused. A token without iat counts as such.
	Before *time.Time
	// MadeAt is when the revocation was made first.
	MadeAt time.Time
	// Note says why. It is for people.
	Note string
}

// key returns the arguments that identify a revocation.
func (r Revocation) key() pgx.NamedArgs {
	return pgx.NamedArgs{"issuer": r.Issuer, "token_id": r.TokenID, "subject": r.Subject}
}

// Now returns the time of the database. The clock of an operator's machine may be wrong, and a revocation that is a
// minute too early would miss the token that has just leaked.
func (db *DB) Now(ctx context.Context) (now time.Time, err error) {
	if err := db.queryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return now, fmt.Errorf("time: %w", kindOf(err))
	}
	return pgvalue.Time(now), nil
}

// farthest is how far Before can be in the future: for an issuer whose clock is ahead, and to block somebody for a day.
// A typing error must not lock a user out for years.
const farthest = 24 * time.Hour

// Complete sets the Before of a subject's revocation to MadeAt if it is not set. The error is for a Before that a
// revocation can't have.
func (r *Revocation) Complete() error {
	switch {
	case r.Subject == "" && r.Before != nil:
		return errors.New("only the tokens of a subject have a time; the token with a jti is revoked whenever it was issued")
	case r.Before != nil && r.Before.After(r.MadeAt.Add(farthest)):
		return errors.New("the time is more than a day in the future")
	case r.Before != nil && r.Before.Unix() < 0:
		return errors.New("the time is before 1970")
	case r.Subject != "" && r.Before == nil:
		r.Before = &r.MadeAt
	}
	return nil
}

// Revoke stores a revocation that is complete, and returns it as it is stored. MadeAt is required.
//
// A revocation that exists keeps its MadeAt and the later Before, so that nothing that is revoked is allowed again. It
// is fault.Conflict if there are most already, which is at most MaxRevocations.
func (db *DB) Revoke(ctx context.Context, r Revocation, most int) (stored Revocation, err error) {
	args := r.key()
	args["before"], args["made_at"], args["note"], args["most"] = r.Before, r.MadeAt, r.Note, most
	rows, err := collect[Revocation](ctx, db, `
		INSERT INTO keyway.revocations AS r (issuer, token_id, subject, before, made_at, note)
		SELECT @issuer::text, @token_id::text, @subject::text, @before::timestamptz, @made_at::timestamptz, @note::text
		WHERE (SELECT count(*) FROM keyway.revocations) < @most::int OR EXISTS (
			SELECT FROM keyway.revocations WHERE issuer = @issuer AND token_id = @token_id AND subject = @subject)
		ON CONFLICT (issuer, token_id, subject) DO UPDATE SET
			before = greatest(r.before, excluded.before),
			note = CASE WHEN excluded.note = '' THEN r.note ELSE excluded.note END
		RETURNING issuer, token_id, subject, before, made_at, note`, args)
	if err != nil {
		return stored, fmt.Errorf("revoke: %w", kindOf(err))
	}
	if len(rows) == 0 {
		limit := "the limit"
		if most < MaxRevocations {
			limit = fmt.Sprintf("the limit for requests; the command keyway revoke can make %d more", MaxRevocations-most)
		}
		return stored, fault.Public(fault.Conflict, fmt.Sprintf("There are %d revocations already, which is %s. "+
			"Remove those whose tokens have expired, for example the ones made more than 90 days ago: "+
			"keyway revoke --prune 90d", most, limit), nil)
	}
	return rows[0].utc(), nil
}

// utc returns r with its times in UTC.
func (r Revocation) utc() Revocation {
	if r.Before != nil {
		r.Before = new(pgvalue.Time(*r.Before))
	}
	r.MadeAt = pgvalue.Time(r.MadeAt)
	return r
}

// UndoRevocation removes the revocations with the TokenID or Subject of r, and reports whether there was one. Those
// of a subject must have one of the issuers, which are the spellings of one. A TokenID is revoked whatever the
// issuer is, so all of its revocations are removed.
func (db *DB) UndoRevocation(ctx context.Context, r Revocation, issuers []string) (bool, error) {
	args := r.key()
	args["issuers"] = issuers
	n, err := db.exec(ctx, `DELETE FROM keyway.revocations
		WHERE (issuer = ANY(@issuers::text[]) OR token_id <> '') AND token_id = @token_id AND subject = @subject`, args)
	if err != nil {
		return false, fmt.Errorf("undo a revocation: %w", kindOf(err))
	}
	return n > 0, nil
}

// PruneRevocations removes the revocations that were made before a time and are about no token that was issued after
// it, and returns how many there were.
func (db *DB) PruneRevocations(ctx context.Context, before time.Time) (int64, error) {
	n, err := db.exec(ctx, `DELETE FROM keyway.revocations
		WHERE made_at < @limit AND (before IS NULL OR before < @limit)`, pgx.NamedArgs{"limit": before})
	if err != nil {
		return 0, fmt.Errorf("prune revocations: %w", kindOf(err))
	}
	return n, nil
}

// RevocationPage returns one page of the revocations, the oldest first, and the number of all of them. limit and page
// are at least 1.
func (db *DB) RevocationPage(ctx context.Context, limit, page int) (list []Revocation, total int, err error) {
	list, total, err = paged(ctx, db, pgx.RowToStructByName[Revocation], listing{
		on: db.pages, columns: `issuer, token_id, subject, before, made_at, note`, from: `keyway.revocations`,
		order: `made_at, issuer, token_id, subject`, limit: limit, page: page,
	}, pgx.NamedArgs{})
	if err != nil {
		return nil, 0, fmt.Errorf("revocations: %w", kindOf(err))
	}
	for i, r := range list {
		list[i] = r.utc()
	}
	return list, total, nil
}

// revoked are the columns that decide about a token.
const revoked = `SELECT issuer, token_id, subject, before, made_at, '' AS note FROM keyway.revocations`

// Revocations returns all revocations without their notes, in one round trip.
func (db *DB) Revocations(ctx context.Context) ([]Revocation, error) {
	list, err := collect[Revocation](ctx, db, revoked, nil)
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", kindOf(err))
	}
	return list, nil
}

// CheckedRevocations is Check and Revocations in one round trip, for the first request of a function.
func (db *DB) CheckedRevocations(ctx context.Context) (list []Revocation, err error) {
	var b pgx.Batch
	b.Queue(db.text(schemaVersion))
	b.Queue(db.text(revoked))
	var misfit error
	err = db.batch(ctx, &b, func(answers pgx.BatchResults) error {
		var version, oldest int
		var owners *owner.Record
		if err := answers.QueryRow().Scan(&version, &oldest, &owners); err != nil {
			return err
		}
		// In an older schema the second statement fails, because it has no such table.
		if misfit = db.fits(version, oldest, owners); misfit != nil {
			return nil
		}
		rows, _ := answers.Query() // CollectRows returns its error.
		list, err = pgx.CollectRows(rows, pgx.RowToStructByName[Revocation])
		return err
	})
	if misfit != nil {
		return nil, misfit
	}
	if err != nil {
		return nil, fmt.Errorf("schema version and revocations: %w", kindOf(err))
	}
	return list, nil
}
