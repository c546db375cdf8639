package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
)

// limitLine is a limit that applies to a request. Its member names are part of the output of --json.
type limitLine struct {
	Name limit.Name `json:"name"`
	// Of is "caller", "agent" or "os".
	Of    limit.Whose `json:"of"`
	Limit float64     `json:"limit"`
	// Used and Left are absent if no database was read, and for tokens_per_run.
	Used *float64 `json:"used,omitempty"`
	Left *float64 `json:"left,omitempty"`
}

// String returns the line for people.
func (l limitLine) String() string {
	whose := map[limit.Whose]string{
		limit.Caller: "of this caller", limit.Agent: "of all callers of the agent", limit.OS: "of all callers",
	}[l.Of]
	text := fmt.Sprintf("limit: %s %s %s", l.Name, amount(l.Limit), whose)
	if l.Used != nil {
		text += fmt.Sprintf(", %s used, %s left", amount(*l.Used), amount(*l.Left))
	}
	return text
}

// limitsOf returns the limits that apply if the request begins or continues a run, or merges memories, which uses a
// model too. With a database it also returns what is used; if that can't be read, it prints a warning.
func (e env) limitsOf(ctx context.Context, cfg *config.Config, p *authz.Principal, d authz.Decision) (
	lines []limitLine,
) {
	if !d.Allow || d.Route == nil ||
		!slices.Contains([]route.Name{route.CreateRun, route.ContinueRun, route.MergeMemories}, d.Route.Name) {
		return nil
	}
	budget, agent := store.Budget{Caller: p.Limits, OS: limit.Limits(cfg.Limits)}, d.Params["agent_id"]
	for _, a := range cfg.Agents {
		if a.ID == agent {
			budget.Agent = limit.Limits(a.Limits)
		}
	}
	add := func(whose limit.Whose, limits limit.Limits) {
		for name, value := range limits.All() {
			lines = append(lines, limitLine{Name: name, Of: whose, Limit: value})
		}
	}
	add(limit.Caller, budget.Caller)
	add(limit.Agent, budget.Agent)
	add(limit.OS, budget.OS)
	if len(lines) == 0 || cfg.Database.URL == "" {
		return lines
	}
	uses, err := used(ctx, cfg, p, budget, agent)
	if err != nil {
		fmt.Fprintf(e.err, "warning: what is used is not known: %v\n", err)
		return lines
	}
	for _, u := range uses {
		for i := range lines {
			if l := &lines[i]; l.Name == u.Name && l.Of == u.Whose {
				l.Used, l.Left = new(u.Used), new(u.Left())
			}
		}
	}
	return lines
}

// usesTimeout bounds the statements of used.
const usesTimeout = 10 * time.Second

// used reads what is used of a budget.
func used(ctx context.Context, cfg *config.Config, p *authz.Principal, b store.Budget, agent string) (
	[]limit.Use, error,
) {
	ctx, cancel := context.WithTimeout(ctx, usesTimeout)
	defer cancel()
	db, err := store.Open(store.Options{URL: string(cfg.Database.URL), Schema: cfg.Database.Schema})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.Check(ctx); err != nil {
		return nil, store.AtStart(err)
	}
	owners := db.Owners()
	if owners == nil {
		return nil, errors.New("the database has not recorded the issuers yet; run keyway migrate")
	}
	b.Spender = owners.Name(p.Realm, p.Issuer, p.Subject)
	return db.Uses(ctx, b, agent)
}

// amount writes a limit without an exponent.
func amount(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// noLimits notes that nothing limits what one caller uses, with the lines to add. It is "" if something does: a claim
// can only lower limits, and is not known here.
func noLimits(cfg *config.Config) string {
	limited := len(cfg.Auth.Limits) > 0
	for _, k := range cfg.Auth.Keys {
		limited = limited || len(k.Limits) > 0
	}
	if limited {
		return ""
	}
	return `note: auth.limits: is absent, so that one token can use all capacity; add limits: {"*": ` +
		`{concurrent_runs: 10, runs_per_minute: 60}} to auth`
}
