package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/replay"
)

// diffCmd replays logged decisions against a changed keyway.yaml.
type diffCmd struct {
	// New is the changed file. The file in force (--config) is not read, because the log
	// holds its decisions.
	New string `arg:"" name:"new.yaml" help:"The changed keyway.yaml."`
	// Since leaves out older decisions; 0: none is left out.
	Since age `placeholder:"AGE" help:"${help_since}"`
	// Log is the log to read; empty: the files below --data.
	Log string `placeholder:"FILE" help:"${help_log}"`
}

// Help explains what a replay cannot know, and adds examples.
func (diffCmd) Help() string {
	return `Decides about every request in the log again, by the new file, and prints in Markdown
what the new file would newly allow and newly refuse. The report fits into a comment on a
pull request.

  keyway diff new.yaml --since 7d
  keyway diff new.yaml --log decisions.jsonl --json
  aws logs tail /aws/lambda/NAME --since 7d --format short --filter-pattern '{ $.msg = "decision" }' |
    keyway diff new.yaml --log -

Lines that are no decision are skipped and counted. The log holds scopes, routes and the
IDs of agents, but no other IDs: a mapping for one session, run or memory can't be
replayed exactly, and the report names it. Two things are not compared: which tokens the
new file would accept (auth.keys, algorithms, issuer, audience, leeway, claims), and whose
sessions a caller sees (user_isolation).

Exit status 0: nothing changes, 3: something does, 2: a file is wrong or holds no decision.`
}

// maxAge is the longest --since: ten years.
const maxAge = 3650 * 24 * time.Hour

// age is a duration that may be written in days.
type age time.Duration

// UnmarshalText parses 7d, 24h or 90m.
func (a *age) UnmarshalText(text []byte) error {
	// Go's durations have no unit d, since a day may have 23 or 25 hours. For the age of a
	// log entry, 24 hours are exact enough.
	d, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 || d > maxAge {
		return fmt.Errorf("%q is no age; write it as in 7d, 24h or 30m", text)
	}
	*a = age(d)
	return nil
}

// Run prints which logged requests the new file decides differently.
func (c diffCmd) Run(e env) error {
	if c.Log == "" && c.Since == 0 {
		return usage("no decisions to replay: give --since 7d for those that keyway serve logged below --data, or --log FILE")
	}
	cfg, err := e.loadRules(c.New)
	if err != nil {
		return err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	log, err := c.readDecisions(e)
	if err != nil {
		return err
	}
	report := log.Replay(newRules(cfg, policy))
	asWritten(cfg, &report)
	if e.cli.JSON {
		err = printJSON(e.out, jsonDiff(c.New, log, report))
	} else {
		_, err = io.WriteString(e.out, markdown(c.New, log, report))
	}
	// A changed decision is no failure, but CI must be able to stop at one.
	if err == nil && len(report.Changes) > 0 {
		err = silent(exitDenied)
	}
	return err
}

// newRules returns what a replay needs to know of the new configuration.
func newRules(cfg *config.Config, policy *authz.Policy) replay.Rules {
	n := replay.Rules{Policy: policy, Digest: cfg.Digest, Grants: grantsOf(cfg.Auth)}
	for _, m := range cfg.Auth.ScopeMappings {
		n.Mappings = append(n.Mappings, authz.Mapping{Method: m.Method, Path: m.Pattern, Scopes: m.Scopes})
	}
	for _, a := range cfg.Agents {
		n.Agents = append(n.Agents, a.ID)
	}
	return n
}

// grantsOf returns the function that says what the roles of an issuer grant. Several entries of auth.keys can be for
// one issuer; if their grants differ, the log doesn't show which of them counted.
func grantsOf(auth config.Auth) func(issuer string) (map[string][]string, bool) {
	keys := auth.Keys
	if len(keys) == 0 { // with --dev, or because the variables of all keys are unset here
		keys = []config.Key{{}}
	}
	return func(issuer string) (grants map[string][]string, ok bool) {
		for _, k := range keys {
			own := k.Issuers()
			if auth.Issuer != "" && len(own) == 0 {
				own = []string{auth.Issuer}
			}
			if issuer != "" && !slices.Contains(own, issuer) || issuer == "" && len(own) > 0 {
				continue
			}
			these := map[string][]string(auth.GrantsOf(k))
			if ok && !maps.EqualFunc(grants, these, slices.Equal) {
				return nil, false
			}
			grants, ok = these, true
		}
		return grants, ok
	}
}

// readDecisions reads the log that the flags name, or the files below --data. A line
// that is no decision is no error, since a server's log holds other lines too. A log
// without any decision is one: an empty report would look like "nothing changes".
func (c diffCmd) readDecisions(e env) (*replay.Log, error) {
	var since time.Time
	if c.Since > 0 {
		since = time.Now().Add(-time.Duration(c.Since))
	}
	// The files are read in the order of time, so that first and last seen are right.
	log, files := &replay.Log{}, []string{c.Log}
	if c.Log == "" {
		files = decisionFiles(e.cli.Data)
	}
	for _, file := range files {
		// A server whose log was never rotated has no older file. A server that has decided
		// nothing yet has neither file.
		err := readLog(e, log, file, since)
		if c.Log == "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, usageError{err}
		}
	}
	where := strings.Join(files, " and ")
	if c.Log == "-" {
		where = "standard input"
	}
	// An error says which of the two likely mistakes it was: --since, or the wrong file.
	switch {
	case log.Decisions > 0:
		return log, nil
	case log.Old > 0:
		return nil, usage("nothing in %s is younger than --since, which leaves out %s: give a longer one",
			where, counted(log.Old, "decision"))
	}
	return nil, usage(`no decision in %s (%s, %d of them broken): keyway looks for JSON lines with "msg":"decision", `+
		`which serve writes to its log and below --data`, where, counted(log.Passed+log.Broken, "line"), log.Broken)
}

// readLog adds the decisions of one file, or of standard input (-), to log.
func readLog(e env, log *replay.Log, file string, since time.Time) error {
	if file == "-" {
		return log.Read(e.in, since)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return log.Read(f, since)
}

// jsonDiff returns the report in the form that --json prints.
func jsonDiff(file string, log *replay.Log, r replay.Report) any {
	// read describes the log: how many lines were read, and what they were.
	type read struct {
		Decisions int            `json:"decisions"`
		Replayed  int            `json:"replayed"`
		Skipped   replay.Skipped `json:"not_replayable"`
		Passed    int            `json:"other_lines"`
		Broken    int            `json:"broken_lines"`
		Old       int            `json:"older"`
		Configs   map[string]int `json:"configs"`
	}
	return struct {
		New      string                          `json:"new"`
		Counts   map[replay.Verdict]replay.Count `json:"counts"`
		Changes  []replay.Change                 `json:"changes"`
		Unsure   int                             `json:"unsure"`
		Mappings []string                        `json:"unsure_mappings"`
		Granted  int                             `json:"from_grants,omitempty"`
		NoGrants int                             `json:"unknown_grants,omitempty"`
		Log      read                            `json:"log"`
	}{file, r.Counts, r.Changes, r.Unsure, r.Mappings, r.Granted, r.NoGrants,
		read{log.Decisions, r.Replayed, log.Skipped, log.Passed, log.Broken, log.Old, log.Configs}}
}
