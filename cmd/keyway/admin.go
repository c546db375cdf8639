package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// configCmd holds the commands about keyway.yaml.
type configCmd struct {
	Check checkCmd `cmd:"" help:"Check keyway.yaml: every fault at once, with its place and remedy."`
}

type checkCmd struct{}

// Run checks without opening anything. Variables that are not set here are told
// as warnings: they may be set where the server runs.
func (checkCmd) Run(e env) error {
	cfg, err := e.load(true)
	if faults, ok := errors.AsType[config.Faults](err); ok && e.cli.JSON {
		if err := printJSON(e.out, map[string]any{"ok": false, "faults": faults}); err != nil {
			return err
		}
		return silent(exitUsage)
	}
	if err != nil {
		return err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	var notes []string
	for _, w := range cfg.Warnings {
		notes = append(notes, "warning: "+w.String())
	}
	for path, variable := range cfg.Unset {
		notes = append(notes, fmt.Sprintf("warning: %s: %s is not set here", path, variable))
	}
	if len(cfg.Auth.Keys) == 0 && len(cfg.Unset) == 0 {
		notes = append(notes, "warning: auth.keys: there is none; only keyway serve --dev will start")
	}
	notes = append(notes, easier(policy)...)
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"ok": true, "digest": cfg.Digest, "notes": append([]string{}, notes...)})
	}
	for _, n := range notes {
		fmt.Fprintln(e.err, n)
	}
	fmt.Fprintf(e.out, "%s is fine: %d agents, digest %.12s\n", e.cli.Config, len(cfg.Agents), cfg.Digest)
	return nil
}

// easier names the routes that a mapping opens to scopes that the route itself
// would not be content with.
func easier(policy *authz.Policy) (notes []string) {
	for r := range route.Table.All() {
		if r.Public {
			continue
		}
		d := policy.Decide(&authz.Principal{}, r.Method, r.Path(func(name string) string { return "example" }))
		if d.Mapping == "" {
			continue
		}
		held := scope.NewSet(texts(d.Need), "")
		for _, n := range r.Needs {
			if !held.Covers(n) {
				notes = append(notes, fmt.Sprintf("note: %s is open to %s, without its own %s",
					r, strings.Join(texts(d.Need), " + "), strings.Join(texts(r.Needs), " + ")))
				break
			}
		}
	}
	return notes
}

// migrateCmd migrates the database that keyway.yaml or DATABASE_URL names.
type migrateCmd struct{}

// Run migrates and says from where to where.
func (migrateCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	if cfg.Database.URL == "" {
		return usage("no database: set database.url in keyway.yaml, or DATABASE_URL (keyway serve migrates its embedded database by itself)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	r, err := migrations.Run(ctx, migrations.Target{URL: string(cfg.Database.URL), Schema: cfg.Database.Schema, OSID: cfg.ID})
	if err != nil {
		return fmt.Errorf("%s", cmp.Or(publicDetail(err), err.Error()))
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"schema": cfg.Database.Schema, "from": r.From, "to": r.To})
	}
	fmt.Fprintf(e.out, "schema %s: version %d, was %d\n", cfg.Database.Schema, r.To, r.From)
	return nil
}

// publicDetail is the text of an error that has one for people, with its cause:
// whoever types the command may see both.
func publicDetail(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Error()
	}
	return ""
}

// versionCmd prints what this is.
type versionCmd struct{}

// Run prints it.
func (versionCmd) Run(e env) error {
	if e.cli.JSON {
		return printJSON(e.out, map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(e.out, "keyway %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
