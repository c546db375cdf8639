package yamlfile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// limited returns a file with these lines, where AUTH, OS and AGENT stand.
func limited(auth, os, agent string) string {
	return "id: os\nauth:\n  keys: [\"${K}\"]\n" + auth + os + "agents:\n- id: a\n  model: openai:gpt-4o\n" + agent
}

func TestLimitsAndPricesAreRead(t *testing.T) {
	t.Parallel()
	text := limited(`  claims: {roles: groups, limits: {path: [quota, lim]}}
  grants: {gold: ["agents:read"]}
  limits:
    "*": {concurrent_runs: 2, waiting_runs: 5, runs_per_minute: 10, runs_per_day: 100}
    gold: {tokens_per_run: 5000, tokens_per_day: 100000, usd_per_day: 0.5}
`, `limits: {usd_per_day: 1000000}
prices: {gpt-4o: {input: 3, output: 12}, "openai:gpt-4o": {input: 2.5, output: 10}}
`, "  limits: {concurrent_runs: 1}\n")
	c, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{Lookup: variables(secrets)})
	if err != nil || len(c.Warnings) > 0 {
		t.Fatal(err, c.Warnings)
	}
	everyone := config.Limits{ConcurrentRuns: 2, WaitingRuns: 5, RunsPerMinute: 10, RunsPerDay: 100}
	gold := config.Limits{TokensPerRun: 5000, TokensPerDay: 100000, USDPerDay: 0.5}
	of := c.Auth.LimitsOf(c.Auth.Keys[0])
	if of[config.AnyRole] != everyone || of["gold"] != gold || c.Limits.USDPerDay != 1e6 ||
		c.Agents[0].Limits.ConcurrentRuns != 1 {
		t.Errorf("%+v %+v %+v", of, c.Limits, c.Agents[0].Limits)
	}
	if got := strings.Join(c.Auth.ClaimsOf(c.Auth.Keys[0]).Limits.Names(), "."); got != "quota.lim" {
		t.Error(got)
	}
	for _, row := range []struct {
		model config.Model
		price config.Price
		ok    bool
	}{
		{config.Model{Provider: "openai", ID: "gpt-4o"}, config.Price{Input: 2.5, Output: 10}, true},
		{config.Model{Provider: "openai-responses", ID: "gpt-4o"}, config.Price{Input: 3, Output: 12}, true},
		{config.Model{Provider: "demo", ID: "x"}, config.Price{}, true},
		{config.Model{Provider: "openai", ID: "gpt-5"}, config.Price{}, false},
	} {
		if price, ok := c.Prices.Of(row.model); price != row.price || ok != row.ok {
			t.Errorf("%+v costs %+v, %t", row.model, price, ok)
		}
	}
	if !strings.Contains(c.String(), `"usd_per_day": 0.5`) || !strings.Contains(c.String(), `"gold"`) {
		t.Errorf("it prints itself without its limits: %s", c)
	}
}

func TestAnEntryOfKeysCanHaveItsOwnLimits(t *testing.T) {
	t.Parallel()
	text := `id: os
auth:
  algorithms: [RS256]
  keys:
  - {jwks_url: "https://a/k", issuer: "https://a", audience: [x], limits: {}}
  - {jwks_url: "https://b/k", issuer: "https://b", audience: [x], limits: {"*": {runs_per_day: 1}},
     claims: {limits: lim}}
  - {jwks_url: "https://c/k", issuer: "https://c", audience: [x]}
  claims: {limits: budget}
  limits: {"*": {runs_per_day: 2}}
agents: [{id: a, model: demo:x}]
`
	c, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{})
	if err != nil || len(c.Warnings) > 0 {
		t.Fatal(err, c.Warnings)
	}
	for i, want := range []struct {
		runs  int
		claim string
	}{{0, "budget"}, {1, "lim"}, {2, "budget"}} {
		k := c.Auth.Keys[i]
		if got := c.Auth.LimitsOf(k)[config.AnyRole].RunsPerDay; got != want.runs {
			t.Errorf("keys[%d]: %d", i, got)
		}
		if got := c.Auth.ClaimsOf(k).Limits.Claim; got != want.claim {
			t.Errorf("keys[%d]: %s", i, got)
		}
	}
}

// Each row lists all errors and warnings of a file.
func TestFaultsOfLimitsHaveTheirPlaceAndRemedy(t *testing.T) {
	t.Parallel()
	const (
		unpriced = "%d:3: agents[0].model: has no price, and %s has usd_per_day; add prices: " +
			`{"openai:gpt-4o": {input: USD, output: USD}}, in US dollars for 1,000,000 tokens`
		roles = "has roles, which have no effect, because no claim with roles is read; add roles to auth.claims"
	)
	for _, row := range []struct{ auth, os, agent, want string }{
		{"", "", "  limits: {concurrent_runs: 0}\n", "7:12: agents[0].limits.concurrent_runs: is 0; use at least 1"},
		{"", "limits: {runs_per_day: 1.5}\n", "", "4:10: limits.runs_per_day: is 1.5; write a whole number"},
		{"", "limits: {tokens_per_day: 10000000000000}\n", "",
			"4:10: limits.tokens_per_day: is 10000000000000; use at most 1000000000000"},
		{"", "limits: {run_per_day: 1}\n", "", "4:10: limits.run_per_day: unknown field; did you mean runs_per_day?"},
		{"", "limits: 5\n", "", "4:1: limits: is a number; write its fields: concurrent_runs, waiting_runs, " +
			"runs_per_minute, runs_per_day, tokens_per_run, tokens_per_day, usd_per_day"},
		{"  limits: {\"*\": {}}\n", "", "", "4:12: auth.limits[\"*\"]: limits nothing; write a limit, or remove the line: " +
			"a role without one has the limits of *"},
		{"  limits: {\"${K}\": {runs_per_day: 1}}\n  claims: {roles: g}\n  grants: {}\n", "", "",
			"4:12: auth.limits[\"${K}\"]: has a variable in its name, and names can't hold variables; write the name itself"},
		{"  limits: {\"\": {runs_per_day: 1}}\n  claims: {roles: g}\n  grants: {}\n", "", "",
			"4:3: auth.limits: has an empty name; name a role or group, or * for every caller"},
		{"  limits: {gold: {runs_per_day: 1}}\n", "", "", "4:3: auth.limits: " + roles},
		{"  claims: {limits: {claim: lim, split: true}}\n", "", "",
			"4:33: auth.claims.limits.split: has no effect, because this claim holds one value; remove it"},
		{"", "limits: {usd_per_day: 5}\n", "", fmt.Sprintf(unpriced, 7, "limits")},
		{"", "", "  limits: {usd_per_day: 5}\n", fmt.Sprintf(unpriced, 6, "agents[0].limits")},
		{"  limits: {\"*\": {usd_per_day: 5}}\n", "", "", fmt.Sprintf(unpriced, 7, `auth.limits["*"]`)},
		{"  claims: {limits: lim}\n", "", "", "7:3: agents[0].model: has no price, so that its runs cost nothing of a " +
			`usd_per_day in auth.claims.limits; add prices: {"openai:gpt-4o": {input: USD, output: USD}}, in US dollars for ` +
			"1,000,000 tokens"},
		{"", "prices: {gpt-4o: {input: 1}}\n", "", "4:10: prices.gpt-4o.output: is missing; add output: 10"},
		{"", "prices: {gpt-4o: {input: -1, output: 1}}\n", "", "4:19: prices.gpt-4o.input: is -1; use at least 0"},
	} {
		t.Run(row.auth+row.os+row.agent, func(t *testing.T) {
			t.Parallel()
			text := limited(row.auth, row.os, row.agent)
			o := config.Options{Lookup: variables(secrets)}
			c, err := yamlfile.Parse("keyway.yaml", []byte(text), o)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = config.Faults(c.Warnings).Error()
			}
			got = strings.ReplaceAll(got, "keyway.yaml:", "")
			if got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
		})
	}
}

// The group "gold" of one issuer must not be that of another by accident.
func TestIssuersWithRolesNeedLimitsOfTheirOwn(t *testing.T) {
	t.Parallel()
	const file = `id: os
auth:
  algorithms: [RS256]
  claims: {roles: groups}
  keys:
  - {jwks_url: "https://a/k", issuer: "https://a", audience: [x], grants: {}LIMITS}
  - {jwks_url: "https://b/k", issuer: "https://b", audience: [x], grants: {}LIMITS}
  limits: {NAME: {runs_per_day: 2}}
agents: [{id: a, model: demo:x}]
`
	for _, row := range []struct {
		limits, name string
		faults       int
	}{{"", "gold", 2}, {"", `"*"`, 0}, {", limits: {}", "gold", 0}} {
		text := strings.NewReplacer("LIMITS", row.limits, "NAME", row.name).Replace(file)
		_, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if n := strings.Count(got, "needs limits of its own; add limits to this entry; {} limits nothing"); n != row.faults {
			t.Errorf("%+v: %s", row, got)
		}
	}
}

func variables(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}
