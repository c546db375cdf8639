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
	switch pg.Code[:2] {
	case "08", "53", "57", "40", "25": // connection, resources, operator intervention, serialization, read-only
		return unavailable(err)
	case "22": // text or numbers that PostgreSQL cannot hold
		return fault.Public(fault.Invalid, "The request holds text or numbers that can't be stored", err)
	case "54": // a limit of PostgreSQL, such as 256 MB of jsonb
		return fault.Public(fault.TooLarge, "The request holds more than can be stored", err)
	}
	if pg.Code[:2] == "28" || pg.Code == "3D000" { // the user, the password or the name of the database
		return fault.Public(fault.Unavailable,
			"The database rejects this server's user, password or database name; check database.url (or DATABASE_URL)", err)
	}
	if pg.Code == "42P01" || pg.Code == "3F000" { // no such table, no such schema
		return fault.Public(fault.Unavailable, "The database schema is missing; run keyway migrate", err)
	}
	return fmt.Errorf("%w: %w", fault.Internal, err)
}

// isUnverified distinguishes a wrong server from one that is down, because the remedy differs: waiting does not help.
// It reports whether a connection failed because the server offers no TLS, or a certificate that is not trusted or is
// for another host. pgconn has no error type for a server without TLS, only the text. With sslmode=prefer, a server
// without TLS is no problem: the text is there too, and the cause is another one.
func isUnverified(err error) bool {
	if _, bad := errors.AsType[*tls.CertificateVerificationError](err); bad {
		return true
	}
	connect, ok := errors.AsType[*pgconn.ConnectError](err)
	plain := ok && slices.ContainsFunc(connect.Config.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.TLSConfig == nil
	})
	return !plain && strings.Contains(err.Error(), "server refused TLS connection")
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
