package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
	New   string `arg:"" name:"new.yaml" help:"The changed keyway.yaml."`
	Since age    `placeholder:"AGE" help:"Decisions of the last 7d, 24h, 30m; without --log, of what keyway serve logged below --data."`
	Log   string `placeholder:"FILE" help:"A log with decisions, JSON lines; - is standard input."`
}

// Help shows what to type, and what a replay can't know.
func (diffCmd) Help() string {
	return `Asks the new file about every request that the log holds, and prints in Markdown
what it would newly allow and newly refuse, fit for a pull request's comment.

  keyway diff new.yaml --since 7d
  keyway diff new.yaml --log decisions.jsonl --json
  aws logs tail /aws/lambda/NAME --since 7d --format short --filter-pattern '{ $.msg = "decision" }' |
    keyway diff new.yaml --log -

Lines that are no decision are passed over and counted. The log has scopes, routes and
agents, and no other id: a mapping of one session, run or memory can't be replayed
exactly, and the report names it. Nor is it known which tokens the new file would
believe (auth.keys, algorithms, issuer, audience, leeway, claims), or whose sessions are
shown (user_isolation).

Exit status 0: nothing changes, 3: something does, 2: a file is wrong or holds no decision.`
}

// age is a duration that may be written in days.
type age time.Duration

// UnmarshalText reads 7d, 24h, 90m.
func (a *age) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 || d > 3650*24*time.Hour {
		return fmt.Errorf("%q is no age; write it as in 7d, 24h or 30m", text)
	}
	*a = age(d)
	return nil
}

// Run reports what changes.
func (c diffCmd) Run(e env) error {
	if c.Log == "" && c.Since == 0 {
		return usage("no decisions to replay: give --since 7d for those that keyway serve logged below --data, or --log FILE")
	}
	cfg, err := e.rules(c.New)
	if err != nil {
		return err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return usageError{err}
	}
	log, err := c.read(e)
	if err != nil {
		return err
	}
	report := log.Replay(replacement(cfg, policy))
	if e.cli.JSON {
		err = printJSON(e.out, jsonDiff(c.New, log, report))
	} else {
		_, err = io.WriteString(e.out, markdown(c.New, log, report))
	}
	if err == nil && len(report.Changes) > 0 {
		err = silent(exitDenied)
	}
	return err
}

// replacement is the new configuration as a replay sees it.
func replacement(cfg *config.Config, policy *authz.Policy) replay.New {
	n := replay.New{Policy: policy, Digest: cfg.Digest}
	for _, m := range cfg.Auth.ScopeMappings {
		n.Mappings = append(n.Mappings, authz.Mapping{Method: m.Method, Path: m.Pattern, Scopes: m.Scopes})
	}
	for _, a := range cfg.Agents {
		n.Agents = append(n.Agents, a.ID)
	}
	return n
}

// read reads the log that the flags name. None of its lines is an error; all of them
// without a decision is.
func (c diffCmd) read(e env) (*replay.Log, error) {
	var since time.Time
	if c.Since > 0 {
		since = time.Now().Add(-time.Duration(c.Since))
	}
	log, files := &replay.Log{}, []string{c.Log}
	if c.Log == "" { // the older one first; there may be only one
		files = []string{filepath.Join(e.cli.Data, "decisions.1.jsonl"), filepath.Join(e.cli.Data, "decisions.jsonl")}
	}
	for _, file := range files {
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
	switch {
	case log.Decisions > 0:
		return log, nil
	case log.Old > 0:
		return nil, usage("nothing in %s is younger than --since, which leaves out %s: give a longer one", where, counted(log.Old, "decision"))
	}
	return nil, usage(`no decision in %s (%s, %d of them broken): keyway looks for JSON lines with "msg":"decision", which serve writes to its log and below --data`,
		where, counted(log.Passed+log.Broken, "line"), log.Broken)
}

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

// jsonDiff is the report for programs.
func jsonDiff(file string, log *replay.Log, r replay.Report) any {
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
		Log      read                            `json:"log"`
	}{file, r.Counts, r.Changes, r.Unsure, r.Mappings,
		read{log.Decisions, r.Replayed, log.Skipped, log.Passed, log.Broken, log.Old, log.Configs}}
}
