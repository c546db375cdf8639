package limit

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Name is the name of a limit in keyway.yaml, in a claim and in answers.
type Name string

// The limits.
const (
	ConcurrentRuns Name = "concurrent_runs"
	WaitingRuns    Name = "waiting_runs"
	RunsPerMinute  Name = "runs_per_minute"
	RunsPerDay     Name = "runs_per_day"
	TokensPerRun   Name = "tokens_per_run"
	TokensPerDay   Name = "tokens_per_day"
	USDPerDay      Name = "usd_per_day"
	// MergesPerMinute is the number of merges of memories that one caller can begin in a minute. No file sets it.
	MergesPerMinute Name = "merges_per_minute"
)

// Whose says whose use is counted.
type Whose string

// Those whose use is counted: one caller's, that of all runs of an agent, and that of the OS.
const (
	Caller Whose = "caller"
	Agent  Whose = "agent"
	OS     Whose = "os"
)

// Use is how much of one limit is used.
type Use struct {
	Name  Name
	Whose Whose
	// Limit and Used are counts; of USDPerDay they are US dollars.
	Limit, Used float64
	// Reset is the time until the count begins anew. It is 0 for runs in progress and waiting runs: then a place becomes
	// free when a run ends.
	Reset time.Duration
}

// Left is what is left, and never negative.
func (u Use) Left() float64 { return max(0, u.Limit-u.Used) }

// Reached reports whether nothing is left.
func (u Use) Reached() bool { return u.Used >= u.Limit }

// retryPlace is the Retry-After of a limit that a run's end resets: when that is, nobody knows.
const retryPlace = 2 * time.Second

// units are how a limit counts, for the quota unit of RateLimit-Policy and for people.
var units = map[Name]struct{ quota, used string }{
	ConcurrentRuns:  {"concurrent-runs", "have %s runs in progress"},
	WaitingRuns:     {"waiting-runs", "have %s runs that wait"},
	RunsPerMinute:   {"runs", "have begun %s runs in this minute"},
	MergesPerMinute: {"merges", "have merged memories %s times in this minute"},
	RunsPerDay:      {"runs", "have begun %s runs today (UTC)"},
	TokensPerDay:    {"tokens", "have used %s tokens today (UTC)"},
	USDPerDay:       {"usd", "have used %s US dollars today (UTC)"},
}

// Error returns the 429 about a limit that is reached. Its body has the member limit, for programs, and its headers are
// Retry-After (RFC 9110 section 10.2.3) and the fields RateLimit and RateLimit-Policy of the IETF's draft
// (draft-ietf-httpapi-ratelimit-headers-10).
func (u Use) Error() *fault.Error {
	unit := units[u.Name]
	subject := map[Whose]string{Caller: "You", Agent: "All callers of this agent", OS: "All callers"}[u.Whose]
	used := fmt.Sprintf(unit.used, number(u.Used))
	detail := fmt.Sprintf("%s %s, and %s allows %s", subject, used, u.Name, number(u.Limit))
	wait := u.Reset
	if wait <= 0 {
		wait = retryPlace
		detail += "; try again when one has ended"
	} else {
		detail += fmt.Sprintf("; try again in %d seconds", seconds(wait))
	}
	e := fault.Public(fault.LimitReached, detail, nil)
	e.RetryAfter = wait
	e.Extra = fault.Members{{Name: "limit", Value: u.Members()}}
	e.Header = http.Header{
		"Ratelimit":        {fmt.Sprintf("%q;r=%d;t=%d", u.Name, int64(u.Left()), seconds(wait))},
		"Ratelimit-Policy": {u.policy(unit.quota)},
	}
	return e
}

// policy is the value of RateLimit-Policy. A quota is a whole number there, so a part of a dollar is left out.
func (u Use) policy(unit string) string {
	text := fmt.Sprintf("%q;q=%d;qu=%q", u.Name, int64(u.Limit), unit)
	switch u.Name {
	case RunsPerMinute, MergesPerMinute:
		text += ";w=60"
	case RunsPerDay, TokensPerDay, USDPerDay:
		text += ";w=86400"
	}
	return text
}

// Members are the use as JSON: {name, of, limit, used, left, resets_in}, the last in seconds and only if the time
// resets it.
func (u Use) Members() fault.Members {
	ms := fault.Members{
		{Name: "name", Value: u.Name}, {Name: "of", Value: u.Whose}, {Name: "limit", Value: u.Limit},
		{Name: "used", Value: u.Used}, {Name: "left", Value: u.Left()},
	}
	if u.Reset > 0 {
		ms = append(ms, fault.Member{Name: "resets_in", Value: seconds(u.Reset)})
	}
	return ms
}

// seconds rounds up, so that a client that waits for it does not come too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// number writes counts without a fraction, and groups thousands.
func number(n float64) string {
	if n != math.Trunc(n) || math.Abs(n) >= 1<<53 {
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
	text := strconv.FormatInt(int64(n), 10)
	var b strings.Builder
	for i, digit := range text {
		if i > 0 && digit != '-' && (len(text)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

// ErrRunTokens is the reason with which a run ends that has used the tokens that one run may use.
func ErrRunTokens(used, limit int) error {
	return fault.Public(fault.LimitReached, fmt.Sprintf(
		"The run ended because it has used %s tokens, and %s allows %s",
		number(float64(used)), TokensPerRun, number(float64(limit))), nil)
}
