// Package limit decides which limits apply to a caller, to an agent and to the whole OS, and what the answer
// is once one is reached. It knows no token, no route and no storage: package token reads the claims, package config
// the file, and package store counts.
package limit

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// Limits bounds what runs may use. 0 is no limit, for each field.
type Limits struct {
	// ConcurrentRuns is the number of runs that execute at the same time.
	ConcurrentRuns int `json:"concurrent_runs,omitempty"`
	// WaitingRuns is the number of background runs that wait for a worker.
	WaitingRuns int `json:"waiting_runs,omitempty"`
	// RunsPerMinute and RunsPerDay are the number of runs that begin in a minute and in a day of UTC.
	RunsPerMinute int `json:"runs_per_minute,omitempty"`
	RunsPerDay    int `json:"runs_per_day,omitempty"`
	// TokensPerRun is the number of model tokens of one run, input and output together.
	TokensPerRun int `json:"tokens_per_run,omitempty"`
	// TokensPerDay is the number of model tokens of all runs of a day of UTC.
	TokensPerDay int `json:"tokens_per_day,omitempty"`
	// USDPerDay is the cost of all runs of a day of UTC, by the prices in keyway.yaml.
	USDPerDay float64 `json:"usd_per_day,omitempty"`
}

// None reports whether nothing is limited.
func (l Limits) None() bool { return l == Limits{} }

// AtBegin reports whether a limit must be checked when a run begins. TokensPerRun is checked by the run itself.
func (l Limits) AtBegin() bool {
	l.TokensPerRun = 0
	return !l.None()
}

// Largest returns the larger of each two limits, and the only one where one of them has none: what a caller with two
// roles may use. A role that doesn't set a limit doesn't lift it.
func (l Limits) Largest(other Limits) Limits {
	return l.each(other, func(a, b int) int { return max(a, b) }, func(a, b float64) float64 { return max(a, b) })
}

// Tightest returns the smaller of each two limits. No limit is larger than any.
func (l Limits) Tightest(other Limits) Limits { return l.each(other, tighter, tighter) }

// Or returns l with the limits of fallback where l has none.
func (l Limits) Or(fallback Limits) Limits { return l.each(fallback, first, first) }

func (l Limits) each(o Limits, count func(a, b int) int, amount func(a, b float64) float64) Limits {
	return Limits{
		ConcurrentRuns: count(l.ConcurrentRuns, o.ConcurrentRuns),
		WaitingRuns:    count(l.WaitingRuns, o.WaitingRuns),
		RunsPerMinute:  count(l.RunsPerMinute, o.RunsPerMinute),
		RunsPerDay:     count(l.RunsPerDay, o.RunsPerDay),
		TokensPerRun:   count(l.TokensPerRun, o.TokensPerRun),
		TokensPerDay:   count(l.TokensPerDay, o.TokensPerDay),
		USDPerDay:      amount(l.USDPerDay, o.USDPerDay),
	}
}

// tighter returns the smaller limit.
func tighter[N int | float64](a, b N) N {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// first returns the first one that is a limit.
func first[N int | float64](a, b N) N {
	if a != 0 {
		return a
	}
	return b
}

// All returns the limits that are set, with their values.
func (l Limits) All() iter.Seq2[Name, float64] {
	return func(yield func(Name, float64) bool) {
		for _, one := range []struct {
			name  Name
			value float64
		}{
			{ConcurrentRuns, float64(l.ConcurrentRuns)}, {WaitingRuns, float64(l.WaitingRuns)},
			{RunsPerMinute, float64(l.RunsPerMinute)}, {RunsPerDay, float64(l.RunsPerDay)},
			{TokensPerRun, float64(l.TokensPerRun)}, {TokensPerDay, float64(l.TokensPerDay)}, {USDPerDay, l.USDPerDay},
		} {
			if one.value != 0 && !yield(one.name, one.value) {
				return
			}
		}
	}
}

// Of returns one limit, and 0 for no limit.
func (l Limits) Of(name Name) float64 {
	for other, value := range l.All() {
		if other == name {
			return value
		}
	}
	return 0
}

// The smallest usd_per_day in a claim, which is what package store counts in, and the largest limit of each kind, as in
// keyway.yaml. Sums of such numbers fit into 64 bits in every unit.
const (
	leastUSD = 1e-6
	most     = 1e12
)

// ErrClaim is the error of FromClaim.
var ErrClaim = errors.New("a limit must be a whole number from 1 to 1,000,000,000,000, and usd_per_day a number " +
	"from 0.000001")

// FromClaim reads the limits in a claim: a JSON object with the names of keyway.yaml. raw is its text, which package
// strictjson has checked. unknown are the members with other names, which limit nothing.
//
// A limit of 0 is an error and not "no limit": an issuer that writes 0 wants to allow nothing, and the token is
// then refused.
func FromClaim(raw string) (l Limits, unknown []string, err error) {
	if raw == "" || raw[0] != '{' {
		return l, nil, fmt.Errorf("the limits are no object: %w", ErrClaim)
	}
	counts := l.counts()
	seen := map[string]bool{}
	for name, value := range (strictjson.Value{Raw: raw}).Members() {
		count, known := counts[name]
		switch {
		case !known && name != string(USDPerDay):
			unknown = append(unknown, name)
			continue
		case seen[name]:
			return Limits{}, nil, fmt.Errorf("%s occurs twice: %w", name, ErrClaim)
		case known:
			n, err := strconv.ParseInt(value.Raw, 10, 64)
			if err != nil || n < 1 || n > most {
				return Limits{}, nil, fmt.Errorf("%s: %w", name, ErrClaim)
			}
			*count = int(n)
		default:
			n, err := strconv.ParseFloat(value.Raw, 64)
			if err != nil || n < leastUSD || n > most {
				return Limits{}, nil, fmt.Errorf("%s: %w", name, ErrClaim)
			}
			l.USDPerDay = n
		}
		seen[name] = true
	}
	return l, unknown, nil
}

// counts returns where each limit is stored, except USDPerDay, which is no whole number.
func (l *Limits) counts() map[string]*int {
	return map[string]*int{
		string(ConcurrentRuns): &l.ConcurrentRuns, string(WaitingRuns): &l.WaitingRuns,
		string(RunsPerMinute): &l.RunsPerMinute, string(RunsPerDay): &l.RunsPerDay,
		string(TokensPerRun): &l.TokensPerRun, string(TokensPerDay): &l.TokensPerDay,
	}
}

// Text encodes limits for the context of API Gateway's authorizer, which holds only texts. It is "" for none.
func (l Limits) Text() string {
	if l.None() {
		return ""
	}
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // Only an infinite number cannot be encoded, and none is a limit.
	}
	return string(text)
}

// FromText is the reverse of Text. ok is false for a text that Text does not return.
func FromText(text string) (l Limits, ok bool) {
	if text == "" {
		return l, true
	}
	if json.Unmarshal([]byte(text), &l) != nil || l.Text() != text {
		return Limits{}, false
	}
	for _, value := range l.All() {
		if value < 0 {
			return Limits{}, false
		}
	}
	return l, true
}
