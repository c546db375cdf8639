package lambdaboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/token"
)

// Where describes how to connect to the database.
type Where struct {
	// URL is the database's URL. It is "" if Secret is set.
	URL string
	// Secret reads the URL from AWS Secrets Manager. It is nil if URL is set.
	Secret func(context.Context) (string, error)
	// Password makes the password of a new connection to endpoint ("host:port"). If it is
	// nil, the URL's password is used.
	Password func(ctx context.Context, endpoint, user string) (string, error)
	// Secure rejects a connection that would send a credential to a server without
	// verified identity. It is nil for a URL in the environment without IAM, for which
	// sslmode in the URL decides.
	Secure func(*pgx.ConnConfig) error
}

// noDatabase is the error of a function that needs a database and has none.
const noDatabase = "database.url: no database is configured; set the template's parameter Database, or DATABASE_URL, " +
	"or DATABASE_SECRET to the ARN of a secret that holds the database's URL"

// secretTimeout bounds how long a request waits for the secret with the database's URL.
const secretTimeout = 5 * time.Second

// Address returns how to connect to the configuration's database. With IAM, a URL in the
// environment is checked at once; a URL in a secret is checked with each connection,
// since the secret is read only then.
func Address(cfg *config.Config) (w Where, err error) {
	db := cfg.Database
	switch {
	case db.URL != "":
		w.URL = string(db.URL)
	case db.Secret != "":
		w.Secure = requireTLS
		w.Secret = func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, secretTimeout)
			defer cancel()
			text, err := token.ReadSecret(ctx, db.Secret, token.Options{Now: time.Now, Lookup: os.LookupEnv})
			if err != nil {
				return "", fmt.Errorf("DATABASE_SECRET: %w", err)
			}
			return text, nil
		}
	default:
		return w, errors.New(noDatabase)
	}
	if db.IAM {
		w.Password, w.Secure = iamToken, requireVerifiedTLS
		if c, err := pgx.ParseConfig(w.URL); db.URL != "" && err == nil {
			return w, requireVerifiedTLS(c)
		}
	}
	return w, nil
}

// iamToken makes an authentication token of RDS, which PostgreSQL accepts in place of a
// password (RDS User Guide, "IAM database authentication"). It is a request signed with
// the function's own credentials, valid for 15 minutes. Signing needs no network, so each
// connection gets a new one.
func iamToken(ctx context.Context, endpoint, user string) (string, error) {
	region, credentials := awsenv.Region(os.LookupEnv), awsenv.Provider(os.LookupEnv)
	token, err := auth.BuildAuthToken(ctx, endpoint, region, user, credentials)
	if err != nil {
		return "", fmt.Errorf("DATABASE_IAM: %w", err)
	}
	return token, nil
}
