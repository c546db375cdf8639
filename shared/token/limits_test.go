package token_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/token"
)

// tiers are the rules of the examples.
var tiers = token.Rules{
	Roles: only(claim("groups")), LimitsFrom: claim("lim"),
	Limits: map[string]limit.Limits{
		"*":      {ConcurrentRuns: 2, RunsPerDay: 100},
		"silver": {ConcurrentRuns: 5, TokensPerDay: 1000},
		"gold":   {ConcurrentRuns: 20},
		"intern": {ConcurrentRuns: 1},
	},
}

func TestLimitsOfACaller(t *testing.T) {
	t.Parallel()
	plain := tiers
	plain.Roles = nil
	everyone, lowered := limit.Limits{ConcurrentRuns: 2, RunsPerDay: 100}, limit.Limits{ConcurrentRuns: 3, RunsPerDay: 100}
	for name, row := range map[string]struct {
		rules   token.Rules
		payload string
		want    limit.Limits
	}{
		"every caller": {tiers, `{}`, everyone},
		"a role": {tiers, `{"groups":["silver"]}`,
			limit.Limits{ConcurrentRuns: 5, RunsPerDay: 100, TokensPerDay: 1000}},
		"a smaller role": {tiers, `{"groups":"intern"}`, limit.Limits{ConcurrentRuns: 1, RunsPerDay: 100}},
		"two roles": {tiers, `{"groups":["gold","silver"]}`,
			limit.Limits{ConcurrentRuns: 20, RunsPerDay: 100, TokensPerDay: 1000}},
		"a role without any":  {tiers, `{"groups":["staff"]}`, everyone},
		"a role called *":     {tiers, `{"groups":["*","intern"]}`, limit.Limits{ConcurrentRuns: 1, RunsPerDay: 100}},
		"no roles are read":   {plain, `{"groups":["gold"]}`, everyone},
		"no rules":            {token.Rules{}, `{"groups":["gold"],"lim":{"concurrent_runs":1}}`, limit.Limits{}},
		"a claim that lowers": {tiers, `{"groups":["gold"],"lim":{"concurrent_runs":3}}`, lowered},
		"a claim that raises": {tiers, `{"lim":{"concurrent_runs":50}}`, everyone},
		"a claim of its own": {plain, `{"lim":{"usd_per_day":0.5,"tier":"x"}}`,
			limit.Limits{ConcurrentRuns: 2, RunsPerDay: 100, USDPerDay: 0.5}},
		"an empty claim":  {tiers, `{"lim":{}}`, everyone},
		"a claim of null": {tiers, `{"lim":null}`, everyone},
		"only a claim": {token.Rules{LimitsFrom: claim("a", "b")}, `{"a":{"b":{"runs_per_minute":7}}}`,
			limit.Limits{RunsPerMinute: 7}},
		"null on the way": {token.Rules{LimitsFrom: claim("a", "b")}, `{"a":null}`, limit.Limits{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := read(t, row.rules, row.payload)
			if err != nil || c.Limits != row.want {
				t.Errorf("%+v, want %+v (%v)", c.Limits, row.want, err)
			}
		})
	}
}

// A malformed limit must not mean "no limit". The caller learns nothing of the claim that is configured.
func TestATokenWithMalformedLimitsIsRefused(t *testing.T) {
	t.Parallel()
	nested := token.Rules{LimitsFrom: claim("a", "b")}
	for payload, cause := range map[string]string{
		`{"lim":5}`:                                   "lim: the limits are no object: " + limit.ErrClaim.Error(),
		`{"lim":"{}"}`:                                "lim: the limits are no object: " + limit.ErrClaim.Error(),
		`{"lim":{"concurrent_runs":0}}`:               "lim: concurrent_runs: " + limit.ErrClaim.Error(),
		`{"lim":{"usd_per_day":-1}}`:                  "lim: usd_per_day: " + limit.ErrClaim.Error(),
		`{"lim":{"runs_per_day":1e3}}`:                "lim: runs_per_day: " + limit.ErrClaim.Error(),
		`{"lim":{"runs_per_day":null}}`:               "lim: runs_per_day: " + limit.ErrClaim.Error(),
		`{"lim":{"waiting_runs":"5"}}`:                "lim: waiting_runs: " + limit.ErrClaim.Error(),
		`{"a":{"b":[]}}`:                              "a.b: the limits are no object: " + limit.ErrClaim.Error(),
		`{"lim":{"runs_per_day":1,"runs_per_day":2}}`: "lim: runs_per_day occurs twice: " + limit.ErrClaim.Error(),
	} {
		rules := tiers
		if payload[2] == 'a' {
			rules = nested
		}
		_, err := read(t, rules, payload)
		got, ok := errors.AsType[token.Cause](err)
		if !ok || string(got) != cause || fmt.Sprint(err) == "" {
			t.Errorf("%s: %v: %v", payload, err, got)
		}
		wantRefusal(t, err, "Invalid token: Invalid limits")
	}
	if _, err := read(t, nested, `{"a":{"b":{},"b":{"runs_per_day":1}}}`); err == nil {
		t.Error("two members with limits are accepted")
	}
}

// holds reports whether n of the thing that is limited are allowed. 0 is no limit.
func holds(l limit.Limits, name limit.Name, n float64) bool {
	return l.Of(name) == 0 || n <= l.Of(name)
}

var allLimits = []limit.Name{
	limit.ConcurrentRuns, limit.WaitingRuns, limit.RunsPerMinute, limit.RunsPerDay, limit.TokensPerRun,
	limit.TokensPerDay, limit.USDPerDay,
}

func anyLimits(t *rapid.T, name string) limit.Limits {
	n := func(field string) int { return rapid.IntRange(0, 3).Draw(t, name+" "+field) }
	return limit.Limits{
		ConcurrentRuns: n("a"), WaitingRuns: n("b"), RunsPerMinute: n("c"), RunsPerDay: n("d"), TokensPerRun: n("e"),
		TokensPerDay: n("f"), USDPerDay: float64(n("g")) / 2,
	}
}

func TestAClaimNeverRaisesALimitAndARoleNeverLosesByAnother(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		rules := token.Rules{Roles: only(claim("groups")), LimitsFrom: claim("lim"), Limits: map[string]limit.Limits{}}
		for _, role := range []string{"*", "a", "b", "c"} {
			if rapid.Bool().Draw(rt, role) {
				rules.Limits[role] = anyLimits(rt, role)
			}
		}
		roles := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.ID[string]).Draw(rt, "roles")
		own := anyLimits(rt, "claim")
		limits := func(roles []string, own limit.Limits) limit.Limits {
			payload := map[string]any{"groups": roles}
			if !own.None() {
				payload["lim"] = own
			}
			text, err := json.Marshal(payload)
			if err != nil {
				t.Fatal(err)
			}
			c, err := read(t, rules, string(text))
			if err != nil {
				rt.Fatal(err)
			}
			return c.Limits
		}
		ofFile, all := limits(roles, limit.Limits{}), limits(roles, own)
		for _, name := range allLimits {
			for _, n := range []float64{0.5, 1, 1.5, 2, 3, 1e9} {
				if holds(all, name, n) != (holds(ofFile, name, n) && holds(own, name, n)) {
					rt.Errorf("%v of %s: %+v with the claim %+v, %+v without", n, name, all, own, ofFile)
				}
			}
		}
		for i := range roles {
			one := limits(roles[i:i+1], limit.Limits{})
			for name, value := range rules.Limits[roles[i]].All() {
				if one.Of(name) != value || ofFile.Of(name) < value {
					rt.Errorf("the role %s has %v of %s; with %q it has %v", roles[i], value, name, roles, ofFile.Of(name))
				}
			}
		}
		backwards := slices.Clone(roles)
		slices.Reverse(backwards)
		if limits(backwards, own) != all {
			rt.Errorf("the order of %q matters", roles)
		}
	})
}

func TestExplanationSaysWhereEachLimitIsFrom(t *testing.T) {
	t.Parallel()
	o := hmacOptions()
	o.Keys[0].Rules = tiers
	x, err := newVerifier(t, o).Explain(t.Context(), []string{signedText(t, `{"alg":"HS256"}`,
		`{"groups":["silver","gold","staff"],"lim":{"tokens_per_day":10,"concurrent_runs":30,"tier":"x"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	want := []token.LimitOrigin{
		{Name: limit.ConcurrentRuns, Value: 20, From: "groups=gold"}, {Name: limit.RunsPerDay, Value: 100, From: "*"},
		{Name: limit.TokensPerDay, Value: 10, From: "lim"},
	}
	if diff := cmp.Diff(want, x.Limits); diff != "" {
		t.Error(diff)
	}
	ignored := []token.Ignored{{Claim: "groups", Value: "staff", Why: "no grant has this name"},
		{Claim: "lim.tier", Why: "no limit has this name"}}
	if diff := cmp.Diff(ignored, x.Ignored); diff != "" {
		t.Error(diff)
	}
}
