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

// Where is how the database is reached.
type Where struct {
	URL      string
	Secret   func(context.Context) (string, error) // tells the URL; nil: it is known
	Password func(ctx context.Context, endpoint, user string) (string, error)
	Secure   func(*pgx.ConnConfig) error // checks that what is sent is for the database alone; nil: as the URL says
}

// noDatabase names what the template sets.
const noDatabase = "database.url: there is no database; set the template's parameter Database, or DATABASE_URL, or DATABASE_SECRET to the ARN of a secret that holds its URL"

// secretPatience bounds how long a request waits for the secret of its database.
const secretPatience = 5 * time.Second

// Address finds out how the database is reached.
func Address(cfg *config.Config) (w Where, err error) {
	db := cfg.Database
	switch {
	case db.URL != "":
		w.URL = string(db.URL)
	case db.Secret != "":
		w.Secure = encrypted
		w.Secret = func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, secretPatience)
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
		w.Password, w.Secure = iam, secure
		if c, err := pgx.ParseConfig(w.URL); db.URL != "" && err == nil { // told at once; what a secret says, with the first connection
			return w, secure(c)
		}
	}
	return w, nil
}

// iam makes a password for RDS: a signed request that is valid for 15 minutes (RDS User
// Guide, "IAM database authentication").
func iam(ctx context.Context, endpoint, user string) (string, error) {
	token, err := auth.BuildAuthToken(ctx, endpoint, awsenv.Region(os.LookupEnv), user, awsenv.Provider(os.LookupEnv))
	if err != nil {
		return "", fmt.Errorf("DATABASE_IAM: %w", err)
	}
	return token, nil
}
