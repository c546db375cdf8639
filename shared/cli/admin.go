package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// configCmd holds the commands about keyway.yaml.
type configCmd struct {
	Check checkCmd `cmd:"" help:"Check keyway.yaml: every fault at once, with its place and remedy."`
}

type checkCmd struct{}

// Help shows what to type.
func (checkCmd) Help() string {
	return `Nothing is opened but the file. What serve would refuse for want of a variable, or
without --dev, is a warning here: it may be fine where the server runs.

  keyway config check
  keyway config check --config examples/quickstart/keyway.yaml --json`
}

// Run checks without opening anything.
func (checkCmd) Run(e env) error {
	cfg, err := e.load(true)
	if faults, ok := errors.AsType[config.Faults](err); ok && e.cli.JSON {
		if err := printJSON(e.out, map[string]any{"ok": false, "faults": jsonFaults(faults)}); err != nil {
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
	notes := append(e.warnings(cfg), easier(policy, cfg.Auth)...)
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"ok": true, "digest": cfg.Digest, "notes": append([]string{}, notes...)})
	}
	for _, n := range notes {
		fmt.Fprintln(e.err, n)
	}
	agents := "1 agent"
	if n := len(cfg.Agents); n != 1 {
		agents = fmt.Sprintf("%d agents", n)
	}
	fmt.Fprintf(e.out, "%s is fine: %s, digest %.12s\n", e.cli.Config, agents, cfg.Digest)
	return nil
}

// jsonFault is config.Fault with JSON's usual names.
type jsonFault struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Path   string `json:"path"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
}

func jsonFaults(faults []config.Fault) (out []jsonFault) {
	for _, f := range faults {
		out = append(out, jsonFault(f))
	}
	return out
}

// warnings are what is unwise, what waits for a variable, and what serve would
// refuse without --dev.
func (e env) warnings(cfg *config.Config) (notes []string) {
	for _, w := range cfg.Warnings {
		notes = append(notes, "warning: "+w.String())
	}
	for _, path := range slices.Sorted(maps.Keys(cfg.Unset)) {
		notes = append(notes, fmt.Sprintf("warning: %s: %s is not set here", path, cfg.Unset[path]))
	}
	_, err := e.load(false)
	faults, _ := errors.AsType[config.Faults](err)
	for _, f := range faults {
		if _, waits := cfg.Unset[f.Path]; !waits {
			notes = append(notes, "warning: "+f.String())
		}
	}
	return notes
}

// easier names the routes that a mapping opens to scopes that the route itself
// would not be content with. A mapping with an id of its own is tried with it.
func easier(policy *authz.Policy, auth config.Auth) (notes []string) {
	for r := range route.Table.All() {
		paths := []string{r.Pattern}
		for _, m := range auth.ScopeMappings {
			paths = append(paths, m.Pattern)
		}
		family, param := r.Resource()
		for _, like := range paths {
			d := policy.Decide(&authz.Principal{}, r.Method, instance(r.Pattern, like))
			held := scope.NewSet(texts(d.Need), auth.AdminScope)
			short := func(n scope.Need) bool { return !held.Covers(n.On(family, d.Params[param])) }
			if d.Route != r || d.Mapping == "" || !slices.ContainsFunc(r.Needs, short) {
				continue
			}
			note := fmt.Sprintf("note: %q opens %s to %s, without its own %s",
				d.Mapping, r, strings.Join(texts(d.Need), " + "), strings.Join(texts(r.Needs), " + "))
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// instance is a path of the route pattern whose ids are those that another path
// has in the same places, stars aside.
func instance(pattern, like string) string {
	segments, ids := strings.Split(pattern, "/"), strings.Split(like, "/")
	for i, s := range segments {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		segments[i] = "example"
		if i < len(ids) && !strings.HasPrefix(ids[i], "{") {
			segments[i] = strings.ReplaceAll(ids[i], "*", "example")
		}
	}
	return strings.Join(segments, "/")
}

// migrateCmd migrates the database that keyway.yaml or DATABASE_URL names.
type migrateCmd struct{}

// Help shows what to type.
func (migrateCmd) Help() string {
	return `Forward only, and safe to repeat; several at once wait for each other.

  DATABASE_URL=postgres://user:password@host:5432/database keyway migrate

With DATABASE_ROLE=keyway_app that role may read and write rows, and nothing else; it is made where it is missing, without a password.`
}

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
	r, err := migrations.Run(ctx, migrations.Target{URL: string(cfg.Database.URL), Schema: cfg.Database.Schema, OSID: cfg.ID, Role: cfg.Database.Role})
	if err != nil {
		return err
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"schema": cfg.Database.Schema, "from": r.From, "to": r.To, "newer": r.Newer})
	}
	if r.Newer {
		fmt.Fprintf(e.out, "schema %s: version %d, of a newer Keyway, which works with this one; nothing to do\n", cfg.Database.Schema, r.To)
		return nil
	}
	fmt.Fprintf(e.out, "schema %s: version %d, was %d\n", cfg.Database.Schema, r.To, r.From)
	return nil
}

// versionCmd prints what this is.
type versionCmd struct{}

// Help shows what to type.
func (versionCmd) Help() string {
	return `Examples:

  keyway version
  keyway version --json`
}

// Run prints it.
func (versionCmd) Run(e env) error {
	if e.cli.JSON {
		return printJSON(e.out, map[string]string{"version": assemble.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(e.out, "keyway %s %s %s/%s\n", assemble.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
