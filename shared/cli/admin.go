package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/version"
)

// configCmd holds the commands about keyway.yaml.
type configCmd struct {
	Check checkCmd `cmd:"" help:"Check keyway.yaml: report every error at once, with its place and remedy."`
}

// checkCmd checks keyway.yaml. Without Fetch it connects to nothing, so that it works in
// CI, where neither the variables nor the issuer of the server are there.
type checkCmd struct {
	// Fetch also reads the files of keys and fetches the others, as serve does.
	Fetch bool `help:"${help_fetch}"`
}

// Help adds examples to the command's --help.
func (checkCmd) Help() string {
	return `Reads the file and connects to nothing. An unset variable, or a file that serve accepts
with --dev only, is a warning here and not an error: the server may run elsewhere, with
another environment. With --fetch it also reads or fetches the keys once, and warns of
keys that can't be used, as serve does at its start.

Exit status 0: the file is fine, 2: it has errors.

  keyway config check
  keyway config check --fetch
  keyway config check --config examples/quickstart/keyway.yaml --json`
}

// Run prints the errors of keyway.yaml, or its digest and the warnings about it.
func (c checkCmd) Run(e env) error {
	// As with --dev: what only --dev accepts becomes a warning below.
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
	// Building the policy finds the errors in scope mappings that config can't know.
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	notes := e.warnings(cfg)
	for _, n := range cfg.Notes {
		notes = append(notes, "note: "+n.String())
	}
	if text := noLimits(cfg); text != "" {
		notes = append(notes, text)
	}
	notes = append(notes, weakerMappings(policy, cfg)...)
	if c.Fetch {
		authorizer, err := e.authorizer(cfg)
		if err != nil {
			return err
		}
		unusable, err := fetchKeys(authorizer)
		if err != nil {
			return err
		}
		notes = append(notes, unusable...)
	}
	asWritten(cfg, &notes)
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"ok": true, "digest": cfg.Digest, "notes": append([]string{}, notes...)})
	}
	for _, n := range notes {
		fmt.Fprintln(e.err, n)
	}
	fmt.Fprintf(e.out, "%s is fine: %s, digest %.12s\n", e.cli.Config, counted(len(cfg.Agents), "agent"), cfg.Digest)
	return nil
}

// jsonFault is config.Fault with member names in lower case. Editors and CI read it.
type jsonFault struct {
	File string `json:"file"`
	// Line and Column begin at 1. They are 0 if the place is unknown.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the setting, such as agents[1].model.
	Path string `json:"path"`
	// Text is what is wrong, and Remedy what to do.
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
}

// jsonFaults converts the errors of a file for --json.
func jsonFaults(faults []config.Fault) (out []jsonFault) {
	for _, f := range faults {
		out = append(out, jsonFault(f))
	}
	return out
}

// warnings returns what config check and build report without failing: unwise
// settings, variables that are not set in this environment, and errors that serve
// reports without --dev.
func (e env) warnings(cfg *config.Config) (notes []string) {
	for _, w := range cfg.Warnings {
		notes = append(notes, "warning: "+w.String())
	}
	for _, path := range slices.Sorted(maps.Keys(cfg.Unset)) {
		notes = append(notes, fmt.Sprintf("warning: %s: %s is not set here", path, cfg.Unset[path]))
	}
	// Loaded again as serve does without --dev; the errors of that are warnings here.
	_, err := e.load(false)
	faults, _ := errors.AsType[config.Faults](err)
	for _, f := range faults {
		if _, unset := cfg.Unset[f.Path]; !unset { // else the loop above has reported it
			notes = append(notes, "warning: "+f.String())
		}
	}
	return notes
}

// weakerMappings returns a note for each route that a scope mapping opens to a token
// without the scopes that the route needs by default. That is allowed, since a
// mapping replaces the default, but it is often not what the operator meant.
//
// A mapping may apply to some IDs only ("GET /agents/web*"). So each route is tried
// with a neutral ID, and with the ID of each mapping.
func weakerMappings(policy *authz.Policy, cfg *config.Config) (notes []string) {
	auth := cfg.Auth
	for r := range route.Table.All() {
		examples := []string{r.Pattern}
		for _, m := range auth.ScopeMappings {
			examples = append(examples, m.Pattern)
		}
		// family and param turn a need such as agents:run into agents:ID:run.
		family, param := r.Resource()
		for _, example := range examples {
			d := policy.Decide(&authz.Principal{}, r.Method, pathLike(r.Pattern, example))
			// A caller that has exactly the mapping's scopes: is a default scope missing?
			held := scope.NewSet(scopeNames(d.Need), auth.AdminScope)
			missing := func(n scope.Need) bool { return !held.Covers(n.On(family, d.Params[param])) }
			if d.Route != r || d.Mapping == "" || !slices.ContainsFunc(r.Decides().Needs, missing) {
				continue
			}
			// Several examples may show the same fact; it is reported once.
			need := scopeNames(d.Need)
			asWritten(cfg, &need)
			note := fmt.Sprintf("note: %q opens %s to %s, without its own %s",
				d.Mapping, r, inLine(strings.Join(need, " + ")), strings.Join(scopeNames(r.Decides().Needs), " + "))
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// pathLike returns a path that matches the route pattern. It takes each ID from the
// same place of example, if example has one there, and "example" otherwise; a
// wildcard in an ID becomes "example" too.
func pathLike(pattern, example string) string {
	segments, ids := strings.Split(pattern, "/"), strings.Split(example, "/")
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

// Help adds examples to the command's --help.
func (migrateCmd) Help() string {
	return `Migrations only add; a schema never goes back to an earlier version. The command can be
repeated, and several at once wait for each other.

  DATABASE_URL=postgres://user:password@host:5432/database keyway migrate

With DATABASE_ROLE=keyway_app, that role can read and write rows and nothing else. The
role is created without a password if it does not exist.`
}

// migrateTimeout bounds a migration, with the wait for another one that is running.
const migrateTimeout = 10 * time.Minute

// Run migrates the schema and prints its version before and after.
func (migrateCmd) Run(ctx context.Context, e env) error {
	at, cfg, err := e.target()
	if err != nil {
		return err
	}
	// A migration of a large table may take minutes, and another one may run before it.
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	r, err := migrations.Run(ctx, at)
	if err != nil {
		return err
	}
	// from is 0 for a new schema; to is what this program, or a newer one, has made of it.
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{
			"schema": cfg.Database.Schema, "from": r.From, "to": r.To, "newer": r.Newer,
		})
	}
	// A newer Keyway's schema is not changed: its migrations are a superset of these.
	if r.Newer {
		fmt.Fprintf(e.out, "schema %s: version %d, migrated by a newer Keyway; this one works with it, nothing to do\n",
			cfg.Database.Schema, r.To)
		return nil
	}
	fmt.Fprintf(e.out, "schema %s: version %d, was %d\n", cfg.Database.Schema, r.To, r.From)
	return nil
}

// versionCmd prints which build this program is.
type versionCmd struct{}

// Help adds examples to the command's --help.
func (versionCmd) Help() string {
	return `Prints the version, the Git commit if the build recorded one, the Go version and the
platform. "(modified)" means that the checkout had changes that were not committed.

  keyway version
  keyway version --json`
}

// Run prints the build.
func (versionCmd) Run(e env) error {
	if e.cli.JSON {
		return printJSON(e.out, version.ThisBuild())
	}
	_, err := fmt.Fprintf(e.out, "keyway %s\n", version.ThisBuild())
	return err
}
