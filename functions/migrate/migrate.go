package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"

	"github.com/aws/aws-lambda-go/cfn"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// migration updates the schema to the version of this program.
type migration struct {
	cfg    *config.Config
	cfgErr error // why cfg is nil
	log    *slog.Logger
}

// resource answers CloudFormation's event for the custom resource. A delete does nothing:
// the schema holds the data, and outlives the stack. The physical id names the OS and its
// schema, so that an update doesn't replace the resource, which would send a delete.
// A rollback is an update by the previous release's program. It leaves a newer schema as
// it is if it can work with it.
func (m migration) resource(ctx context.Context, e cfn.Event) (id string, data map[string]any, err error) {
	if e.RequestType == cfn.RequestDelete {
		return e.PhysicalResourceID, nil, nil
	}
	if data, err = m.run(ctx); m.cfg != nil {
		id = m.cfg.ID + "/" + m.cfg.Database.Schema
	}
	return id, data, err
}

// run migrates the schema. did has the members schema, from and to (the versions before
// and after), and newer, which is true if the schema is newer than this program. The
// error contains PostgreSQL's own.
func (m migration) run(ctx context.Context) (did map[string]any, err error) {
	defer func() { m.log.InfoContext(ctx, "migrate", "did", did, "err", err) }()
	if m.cfgErr != nil {
		return nil, m.cfgErr
	}
	at, err := m.target(ctx)
	if err != nil {
		return nil, err
	}
	r, err := migrations.Run(ctx, at)
	if errors.Is(err, fault.Unavailable) {
		err = fmt.Errorf("the template's parameter Database: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"schema": m.cfg.Database.Schema, "from": r.From, "to": r.To, "newer": r.Newer}, nil
}

// target returns the schema to migrate and the whole database URL, with the password. An
// IAM token is made for the host and port of the URL, since RDS signs it for them.
func (m migration) target(ctx context.Context) (t migrations.Target, err error) {
	where, err := lambdaboot.Address(m.cfg)
	if err != nil {
		return t, err
	}
	db := m.cfg.Database
	t = migrations.Target{
		URL: where.URL, Schema: db.Schema, OSID: m.cfg.ID, Owners: m.cfg.Auth.Owners(), Role: db.Role, Secure: where.Secure,
		Progress: func(line string) { m.log.InfoContext(ctx, line) },
	}
	if where.Secret != nil {
		if t.URL, err = where.Secret(ctx); err != nil {
			return t, err
		}
	}
	if where.Password == nil {
		return t, nil
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return t, store.ErrURL
	}
	endpoint := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "5432"))
	password, err := where.Password(ctx, endpoint, u.User.Username())
	u.User = url.UserPassword(u.User.Username(), password)
	t.URL = u.String()
	return t, err
}
