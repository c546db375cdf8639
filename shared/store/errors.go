package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/fault"
)

// kindOf gives a database error a fault.Kind and a public text with the remedy. The error's own text stays for the
// log, because it may contain host names, table names or data. The classes of error codes are those of PostgreSQL's
// manual, appendix A.
func kindOf(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.NotFound
	}
	if isUnverified(err) {
		return fault.Public(fault.Unavailable, "TLS verification of the database server failed: its certificate is missing, "+
			"not trusted or for another host; check database.url (or DATABASE_URL; on AWS see the template's parameter "+
			"Database)", err)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok { // The server was not reached, or the connection broke.
		return unavailable(err)
	}
	if remedy := refusal(err); remedy != "" {
		return fault.Public(fault.Unavailable, remedy, err)
	}
	switch class(pg) {
	case "08", "53", "57", "40", "25": // connection, resources, operator intervention, serialization, read-only
		return unavailable(err)
	case "22": // text or numbers that PostgreSQL cannot hold
		return fault.Public(fault.Invalid, "The request holds text or numbers that can't be stored", err)
	case "54": // a limit of PostgreSQL, such as 256 MB of jsonb
		return fault.Public(fault.TooLarge, "The request holds more than can be stored", err)
	}
	if pg.Code == "42P01" || pg.Code == "3F000" { // no such table, no such schema
		return fault.Public(fault.Unavailable, "The database schema is missing; run keyway migrate", err)
	}
	if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting { // no statement was wrong
		return unavailable(err)
	}
	return fmt.Errorf("%w: %w", fault.Internal, err)
}

// class returns the class of an error's code, which is its first two characters.
func class(pg *pgconn.PgError) string { return pg.Code[:min(2, len(pg.Code))] }

// refusal returns the remedy if the database, or a pooler before it, refuses this server, and will refuse it again. It
// returns "" for other errors.
//
// PgBouncer has one code for everything: 08P01, protocol violation. Pgpool-II has XX000 for a wrong password. Their
// texts are the only way to distinguish a wrong password from a pooler that is full. A text that is not known counts as
// one that passes.
func refusal(err error) string {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ""
	}
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(pg.Message, text) })
	}
	connect, connecting := errors.AsType[*pgconn.ConnectError](err)
	pooler := pg.Code == "08P01"
	switch {
	case pooler && has("transaction blocks not allowed"):
		return "A pooler before the database forbids transactions (pool_mode=statement); set pool_mode=transaction for " +
			"this database, or let database.url (or DATABASE_URL) lead past the pooler"
	case connecting && (pooler && has("unsupported startup parameter") ||
		pg.Code == "42704" || pg.Code == "22023" || pg.Code == "42501"): // unknown, a wrong value, not allowed to set
		return "The database, or a pooler before it, refuses " + refusedParameter(connect.Config, pg.Message) + " of " +
			"database.url (or DATABASE_URL); leave it out. A setting of PostgreSQL belongs to the role (ALTER ROLE … SET); " +
			"whether statements can be prepared, Keyway finds out itself"
	case class(pg) == "28", pg.Code == "3D000", // the user or the password, the name of the database
		connecting && class(pg) == "55", // a database that allows no connections
		(pooler || connecting) && has("authentication failed", "no such user", "no such database", "does not exist",
			"login rejected", "is disabled", "SSL required", "no authentication method"):
		return "The database rejects this server's user, password or database name; check database.url (or DATABASE_URL)"
	}
	return ""
}

// refusedParameter returns the parameter of a URL that a message of PostgreSQL or of PgBouncer is about. The driver
// sends each parameter that it does not know to the server.
func refusedParameter(c *pgconn.Config, message string) string {
	var found string
	for name := range c.RuntimeParams {
		if strings.Contains(message, name) && len(name) > len(found) {
			found = name
		}
	}
	if found == "" {
		return "a parameter"
	}
	return "the parameter " + found
}

// isUnverified distinguishes a wrong server from one that is down, because the remedy differs: waiting does not help.
// It reports whether a connection failed because the server offers no TLS, or a certificate that is not trusted or is
// for another host. pgconn has no error type for a server without TLS, only the text.
//
// The driver joins the errors of all its attempts. With sslmode=prefer or allow one attempt is without TLS, so a server
// without TLS is no problem: the text is there too, and the cause is another one. And a server that has sent an error
// of its own was accepted before.
func isUnverified(err error) bool {
	if _, answered := errors.AsType[*pgconn.PgError](err); answered {
		return false
	}
	if _, bad := errors.AsType[*tls.CertificateVerificationError](err); bad {
		return true
	}
	connect, ok := errors.AsType[*pgconn.ConnectError](err)
	plain := ok && (connect.Config.TLSConfig == nil || slices.ContainsFunc(connect.Config.Fallbacks,
		func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil }))
	return !plain && strings.Contains(err.Error(), "server refused TLS connection")
}

// AtStart gives an error of the database a text with the remedy, for a program that starts and cannot work without it.
// An error that has such a text, and one that only PostgreSQL's own text explains, stays as it is.
func AtStart(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	known := kindOf(err)
	if _, ok := errors.AsType[*fault.Error](known); !ok {
		return err
	}
	pg, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case answered && pg.Code == "25006":
		return readOnly(err)
	case answered && refusal(err) == "" && !Transient(known): // PostgreSQL's text says more.
		return err
	case !answered && !isUnverified(err):
		return fault.Public(fault.Unavailable, "the database can't be reached; check database.url (or DATABASE_URL)", err)
	}
	return known
}

// readOnly is the error of a start with a database that accepts no writes.
func readOnly(err error) error {
	return fault.Public(fault.Unavailable, "the database accepts no writes: it is a standby, or its "+
		"default_transaction_read_only is on; let database.url (or DATABASE_URL) name the primary (with several hosts, add "+
		"target_session_attrs=read-write), or switch the setting off", err)
}

// Transient reports whether an error of this package may not happen again if the call is repeated later: the database
// was not reached, did not answer, or was not ready.
func Transient(err error) bool { return errors.Is(err, fault.Unavailable) }

// unavailable is an error that a caller may repeat after two seconds.
func unavailable(err error) error {
	e := fault.Public(fault.Unavailable, "The database is not available, try again", err)
	e.RetryAfter = 2 * time.Second
	return e
}
