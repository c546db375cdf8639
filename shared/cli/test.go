package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/policycheck"
)

// testCmd tests keyway.yaml against tables of promises.
type testCmd struct {
	Files []string `arg:"" name:"file" help:"A table of promises, such as policies.yaml."`
}

// Help explains how a table is written.
func (testCmd) Help() string {
	return `A table names callers, and states as sentences what each may and may not do:

  config: keyway.yaml                      the default; relative to the table's directory
  callers:
    ann: [agents:read, agents:web:run]     scopes
    old: {sub: ann, exp: -1h}              claims; missing ones get valid values
    anonymous: none                        no token
  tests:
    - ann may POST /agents/web/runs
    - ann may not POST /agents/finance/runs without agents:finance:run
    - ann may GET /agents and sees only web and finance
    - old may not GET /agents and gets 401 Token has expired

Every sentence is tested against the server's decision and against the authorizer's
policy. No key is needed: the tokens are signed with a key made for the test. See
docs/policies.md.

Exit status 0: all promises hold, 3: at least one doesn't, 2: a file is wrong.

  keyway test policies.yaml
  keyway test --config new.yaml examples/*/policies.yaml --json`
}

// tested is the outcome of one table.
type tested struct {
	table *policycheck.Table
	// config is the file that the table was tested against.
	config string
	// results holds one result for each promise, in the table's order.
	results []policycheck.Result
}

// Run tests every table and prints each promise that is broken. If a table can't be
// read, it reports the errors of all tables and tests none.
func (c testCmd) Run(e env) error {
	// The errors of all tables are collected, so that one run of CI shows all of them.
	var all []tested
	var faults config.Faults
	for _, path := range c.Files {
		// Errors of a table and of its configuration have the same form: file, line, remedy.
		t, err := e.testTable(path)
		if found, ok := errors.AsType[config.Faults](err); ok {
			faults = append(faults, found...)
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, t)
	}
	if len(faults) > 0 {
		return e.badTables(faults)
	}
	// All results are counted before anything is printed: JSON begins with the verdict.
	failed := 0
	for _, t := range all {
		for _, r := range t.results {
			if !r.OK {
				failed++
			}
		}
	}
	var err error
	if e.cli.JSON {
		err = printJSON(e.out, jsonTested(all, failed))
	} else {
		printTested(printer{e.out, isTerminal(e.out)}, all, failed)
	}
	// A broken promise is a result like a denied request, not a failure of the command.
	if err == nil && failed > 0 {
		err = silent(exitDenied)
	}
	return err
}

// badTables reports the errors of all tables, as JSON if --json is given.
func (e env) badTables(faults config.Faults) error {
	if !e.cli.JSON {
		return usageError{faults}
	}
	if err := printJSON(e.out, map[string]any{"ok": false, "faults": jsonFaults(faults)}); err != nil {
		return err
	}
	return silent(exitUsage)
}

// testTable tests the table in a file against --config if that flag is given,
// otherwise against the configuration that the table names.
func (e env) testTable(path string) (tested, error) {
	table, err := policycheck.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return tested{}, usage("there is no %s: keyway test --help shows how a table begins", path)
	}
	if err != nil {
		return tested{}, usageError{err}
	}
	t := tested{table: table, config: table.Config}
	if e.cli.chosen {
		t.config = e.cli.Config
	}
	cfg, err := e.loadRules(t.config)
	if err != nil {
		return t, err
	}
	// Hold signs the callers' tokens with a key of its own, and verifies them with it.
	if t.results, err = table.Check(cfg, time.Now); err != nil {
		return t, usageError{err}
	}
	asWritten(cfg, &t.results)
	return t, nil
}

// loadRules loads a configuration for its rules about tokens and scopes, as test and
// diff need it: they run in CI, where the server's variables are not set. A key may
// come from such a variable, since nothing is verified with it. Any other setting of
// auth must be known: with an unset issuer, for example, other tokens would be
// accepted than on the server, and the test would pass or fail for no reason.
func (e env) loadRules(path string) (*config.Config, error) {
	// e is a copy, so the flag changes for this call only.
	chosen := *e.cli
	chosen.Config = path
	shared := e.cli
	e.cli = &chosen
	cfg, err := e.load(true)
	if err != nil {
		return nil, err
	}
	shared.loaded = cfg
	if at, name := unsetRule(cfg); at != "" {
		return nil, usage("%s: %s needs the variable %s, which is not set; set it to its value on the server", path, at, name)
	}
	return cfg, nil
}

// unsetRule returns the first setting of auth, besides the keys, whose variable is not set, and the variable.
func unsetRule(cfg *config.Config) (at, variable string) {
	for _, at := range slices.Sorted(maps.Keys(cfg.Unset)) {
		if strings.HasPrefix(at, "auth.") && !strings.HasPrefix(at, "auth.keys") {
			return at, cfg.Unset[at]
		}
	}
	return "", ""
}

// printTested prints one line for each promise. For a broken one it adds its place in
// the table, what was expected, and the reasons of the decision.
func printTested(w printer, all []tested, failed int) {
	count := 0
	for _, t := range all {
		// With one table, its name is on the command line above.
		if len(all) > 1 {
			w.line("%s, tested against %s", w.bold(t.table.File), t.config)
		}
		for _, r := range t.results {
			count++
			if r.OK {
				w.line("ok      %s", r.Text)
			} else {
				w.line("%s  %s", w.bold("FAILED"), r.Text)
				w.line("        %s:%d: expected %s, got %s: %s",
					t.table.File, r.Line, r.Expected, r.Got, strings.Join(r.Reasons, "; "))
			}
			if r.Note != "" {
				w.line("        note: %s", r.Note)
			}
		}
	}
	if failed == 0 {
		w.line("%s", w.bold(counted(count, "promise")+" kept"))
		return
	}
	w.line("%s", w.bold(fmt.Sprintf("%s, %d not kept", counted(count, "promise"), failed)))
}

// counted returns a number with its noun, which gets an s unless n is 1.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// jsonTested returns the outcome in the form that --json prints.
func jsonTested(all []tested, failed int) any {
	// row is one promise; Expected and Got are equal if it holds.
	type row struct {
		Line     int      `json:"line"`
		Test     string   `json:"test"`
		OK       bool     `json:"ok"`
		Expected string   `json:"expected"`
		Got      string   `json:"got"`
		Reasons  []string `json:"reasons"`
		Note     string   `json:"note,omitempty"`
	}
	// file is one table.
	type file struct {
		File   string `json:"file"`
		Config string `json:"config"`
		Tests  []row  `json:"tests"`
	}
	var files []file
	for _, t := range all {
		f := file{File: t.table.File, Config: t.config}
		for _, r := range t.results {
			f.Tests = append(f.Tests, row{r.Line, r.Text, r.OK, r.Expected, r.Got, r.Reasons, r.Note})
		}
		files = append(files, f)
	}
	return map[string]any{"ok": failed == 0, "failed": failed, "files": files}
}
