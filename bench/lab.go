package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// lab is what all subjects share: a PostgreSQL server, a model, and the key of the tokens.
type lab struct {
	// dir holds the database, and the log of each subject.
	dir   string
	pg    *devpg.Server
	model *model
	// version is PostgreSQL's version, for the report.
	version string
	// secret is the HMAC key that the subjects verify tokens with.
	secret string
	// token is an administrator's token.
	token string
}

// openLab starts PostgreSQL and the model. PostgreSQL is durable, as in production: a
// commit waits for the disk, which is a large part of the time of a run. Without fsync, a
// server that commits often would look better than it is. All subjects share the
// PostgreSQL server, so they have the same version, settings and disk.
func openLab(ctx context.Context, tokens int) (l *lab, err error) {
	// After an error, close stops what had been started until then.
	l = &lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "keyway-bench-"); err != nil {
		return l, err
	}
	if err = os.Chmod(l.dir, 0o755); err != nil { // #nosec G302 -- PostgreSQL may run as another user, which must enter
		return l, err
	}
	l.pg, err = devpg.Start(ctx, devpg.Options{
		Dir: l.dir, Durable: true, Progress: func(line string) { say("%s", line) },
	})
	if err != nil {
		return l, err
	}
	conn, err := pgx.Connect(ctx, l.pg.URL)
	if err != nil {
		return l, err
	}
	defer conn.Close(ctx)
	if err = conn.QueryRow(ctx, "SHOW server_version").Scan(&l.version); err != nil {
		return l, err
	}
	// HS256 wants a key of 256 bits or more (RFC 7518, section 3.2). rand.Read never fails.
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	l.secret = hex.EncodeToString(secret)
	l.token = adminToken(l.secret, time.Now())
	l.model, err = serveModel(ctx, tokens)
	return l, err
}

// close stops PostgreSQL and the model, and removes all files.
func (l *lab) close() (err error) {
	if l.model != nil {
		err = l.model.close()
	}
	// devpg may have chosen another directory than l.dir, if this is root.
	if l.pg != nil {
		err = errors.Join(err, l.pg.Close(), os.RemoveAll(l.pg.Dir))
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// database creates an empty database and returns its URL. The scheme is postgresql:
// SQLAlchemy does not accept postgres.
func (l *lab) database(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, l.pg.URL)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", err
	}
	u, err := url.Parse(l.pg.URL)
	if err != nil {
		return "", err
	}
	u.Scheme, u.Path = "postgresql", "/"+name
	return u.String(), nil
}

// subject returns a server that is not started yet, with a database of its own. command
// returns the program and its arguments. All subjects get the same model, key and
// environment, so that a difference in the figures comes from the programs. Proxies
// are switched off in the environment, since all requests of a subject go to this machine.
func (l *lab) subject(ctx context.Context, name string, command func(port string) []string) (*subject, error) {
	db, err := l.database(ctx, "bench_"+name)
	if err != nil {
		return nil, fmt.Errorf("database for %s: %w", name, err)
	}
	// The log is a file, as in production with a collector, and not a pipe that this
	// process would have to read.
	log, err := os.Create(filepath.Join(l.dir, name+".stderr"))
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, command: command, token: l.token, log: log, client: newClient()}
	s.env = append(os.Environ(), "DATABASE_URL="+db, "OPENAI_BASE_URL="+l.model.url, "OPENAI_API_KEY=sk-bench",
		"JWT_VERIFICATION_KEY="+l.secret, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	return s, nil
}

// adminToken returns an HS256 token of an administrator that is valid for a day. It is
// made here and not by "keyway token", because the peer must be measurable alone.
func adminToken(secret string, now time.Time) string {
	claims, err := json.Marshal(map[string]any{
		"sub": "bench", "aud": "bench", "scopes": []string{"agent_os:admin"},
		"iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	if err != nil {
		panic(err) // strings and numbers
	}
	// A JWS in compact form (RFC 7515): header, payload and signature in base64url.
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}
