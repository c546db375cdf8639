package cli

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/route"
)

// limitLine is a limit that applies to a request. Its member names are part of the output of --json.
type limitLine struct {
	Name limit.Name `json:"name"`
	// Of is "caller", "agent" or "os".
	Of    limit.Whose `json:"of"`
	Limit float64     `json:"limit"`
}

// String returns the line for people.
func (l limitLine) String() string {
	whose := map[limit.Whose]string{
		limit.Caller: "of this caller", limit.Agent: "of all callers of the agent", limit.OS: "of all callers",
	}[l.Of]
	return fmt.Sprintf("limit: %s %s %s", l.Name, amount(l.Limit), whose)
}

// limitsOf returns the limits that apply if the request begins or continues a run, or merges memories, which uses a
// model too.
func limitsOf(cfg *config.Config, p *authz.Principal, d authz.Decision) (lines []limitLine) {
	if !d.Allow || d.Route == nil ||
		!slices.Contains([]route.Name{route.CreateRun, route.ContinueRun, route.MergeMemories}, d.Route.Name) {
		return nil
	}
	add := func(whose limit.Whose, limits limit.Limits) {
		for name, value := range limits.All() {
			lines = append(lines, limitLine{name, whose, value})
		}
	}
	add(limit.Caller, p.Limits)
	for _, a := range cfg.Agents {
		if a.ID == d.Params["agent_id"] {
			add(limit.Agent, limit.Limits(a.Limits))
		}
	}
	add(limit.OS, limit.Limits(cfg.Limits))
	return lines
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
	return `note: auth.limits: is absent, so that one token can use all capacity; add limits: {"*": {concurrent_runs: 10, ` +
		`runs_per_minute: 60}} to auth`
}
