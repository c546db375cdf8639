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
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// errAddress keeps what may hold a password out of every log.
var errAddress = errors.New("the database URL can't be read; it looks like postgres://user:password@host:5432/database")

// migration is the schema's way to the version of this program.
type migration struct {
	cfg     *config.Config
	refused error // why there is no cfg
	log     *slog.Logger
}

// resource answers CloudFormation. The schema stays when the stack goes: it holds the
// data. Its name is the resource's id, so that no update replaces it. A rollback is an
// update by the program of before, which lets a newer schema be as long as it works with it.
func (m migration) resource(ctx context.Context, e cfn.Event) (id string, data map[string]any, err error) {
	if e.RequestType == cfn.RequestDelete {
		return e.PhysicalResourceID, nil, nil
	}
	if data, err = m.run(ctx); m.cfg != nil {
		id = m.cfg.ID + "/" + m.cfg.Database.Schema
	}
	return id, data, err
}

// run migrates, and tells from which version to which. The error holds PostgreSQL's.
func (m migration) run(ctx context.Context) (did map[string]any, err error) {
	defer func() { m.log.InfoContext(ctx, "migrate", "did", did, "err", err) }()
	if m.refused != nil {
		return nil, m.refused
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

// target is the schema to migrate, at the whole address, password included.
func (m migration) target(ctx context.Context) (t migrations.Target, err error) {
	where, err := lambdaboot.Address(m.cfg)
	if err != nil {
		return t, err
	}
	t = migrations.Target{URL: where.URL, Schema: m.cfg.Database.Schema, OSID: m.cfg.ID, Role: m.cfg.Database.Role, Secure: where.Secure}
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
		return t, errAddress
	}
	password, err := where.Password(ctx, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "5432")), u.User.Username())
	u.User = url.UserPassword(u.User.Username(), password)
	t.URL = u.String()
	return t, err
}
