package limit_test

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
)

// limits draws limits, of which some are no limit.
func limits(t *rapid.T, name string) limit.Limits {
	n := func(field string) int { return rapid.IntRange(0, 3).Draw(t, name+" "+field) }
	return limit.Limits{
		ConcurrentRuns: n("concurrent"), WaitingRuns: n("waiting"), RunsPerMinute: n("minute"), RunsPerDay: n("day"),
		TokensPerRun: n("tokens"), TokensPerDay: n("tokens a day"), USDPerDay: float64(n("usd")) / 2,
	}
}

// allows reports whether l allows n of each. It is the meaning of limits, written independently.
func allows(l limit.Limits, n int) [7]bool {
	ok := func(limit float64) bool { return limit == 0 || float64(n) <= limit }
	return [7]bool{
		ok(float64(l.ConcurrentRuns)), ok(float64(l.WaitingRuns)), ok(float64(l.RunsPerMinute)), ok(float64(l.RunsPerDay)),
		ok(float64(l.TokensPerRun)), ok(float64(l.TokensPerDay)), ok(l.USDPerDay),
	}
}

// limited reports which limits are set: those that don't allow just anything.
func limited(l limit.Limits) (set [7]bool) {
	for i, allowed := range allows(l, 1<<40) {
		set[i] = !allowed
	}
	return set
}

func TestTheTightestAllowsWhatBothAllowAndTheLargestWhatOneThatLimitsAllows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, n := limits(t, "a"), limits(t, "b"), rapid.IntRange(1, 4).Draw(t, "n")
		of, other := allows(a, n), allows(b, n)
		tightest, largest := allows(a.Tightest(b), n), allows(a.Largest(b), n)
		limited, otherLimited := limited(a), limited(b)
		for i := range of {
			want := limited[i] && of[i] || otherLimited[i] && other[i] || !limited[i] && !otherLimited[i]
			if tightest[i] != (of[i] && other[i]) || largest[i] != want {
				t.Fatalf("%+v and %+v: tightest %+v, largest %+v", a, b, a.Tightest(b), a.Largest(b))
			}
		}
	})
}

func TestLimitsCrossAsText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := limits(t, "limits")
		if got, ok := limit.FromText(want.Text()); !ok || got != want {
			t.Fatalf("%+v came back as %+v, %t", want, got, ok)
		}
	})
	for _, text := range []string{
		"{}", "null", " {}", `{"concurrent_runs":0}`, `{"concurrent_runs":1,"x":1}`, `{"usd_per_day":1.0}`, "x",
		`{"concurrent_runs":-1}`, `{"usd_per_day":-0.5}`,
	} {
		if l, ok := limit.FromText(text); ok {
			t.Errorf("%s is %+v", text, l)
		}
	}
}

func TestAClaimHoldsLimits(t *testing.T) {
	t.Parallel()
	l, unknown, err := limit.FromClaim(`{"concurrent_runs": 2, "usd_per_day": 0.5, "tier": "gold"}`)
	if err != nil || l != (limit.Limits{ConcurrentRuns: 2, USDPerDay: 0.5}) || len(unknown) != 1 || unknown[0] != "tier" {
		t.Errorf("%+v %q %v", l, unknown, err)
	}
}

func TestAClaimThatIsNoLimitIsAnError(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `5`, `[]`, `null`, `"x"`, `{"concurrent_runs":0}`, `{"concurrent_runs":-1}`, `{"concurrent_runs":1.5}`,
		`{"concurrent_runs":"5"}`, `{"concurrent_runs":null}`, `{"concurrent_runs":1e3}`,
		`{"runs_per_day":99999999999999999999}`,
		`{"runs_per_day":1000000000001}`,
		`{"usd_per_day":1e13}`, `{"usd_per_day":1e-7}`,
		`{"usd_per_day":0}`, `{"usd_per_day":-1}`, `{"usd_per_day":1e999}`, `{"usd_per_day":"1"}`,
		`{"tokens_per_day":5,"tokens_per_day":6}`,
	} {
		if l, _, err := limit.FromClaim(text); !errors.Is(err, limit.ErrClaim) {
			t.Errorf("%s: %+v, %v", text, l, err)
		}
	}
}

func TestAReachedLimitSaysWhichAndWhenToTryAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		use                  limit.Use
		body, retry, rate, q string
	}{
		{
			limit.Use{Name: limit.ConcurrentRuns, Whose: limit.Caller, Limit: 10, Used: 10},
			`{"detail":"You have 10 runs in progress, and concurrent_runs allows 10; try again when one has ended",` +
				`"limit":{"name":"concurrent_runs","of":"caller","limit":10,"used":10,"left":0}}`,
			"2", `"concurrent_runs";r=0;t=2`, `"concurrent_runs";q=10;qu="concurrent-runs"`,
		},
		{
			limit.Use{Name: limit.TokensPerDay, Whose: limit.Agent, Limit: 1e6, Used: 1000400, Reset: 90*time.Minute + 1},
			`{"detail":"All callers of this agent have used 1,000,400 tokens today (UTC), and tokens_per_day ` +
				`allows 1,000,000; try again in 5401 seconds",` +
				`"limit":{"name":"tokens_per_day","of":"agent","limit":1000000,"used":1000400,"left":0,"resets_in":5401}}`,
			"5401", `"tokens_per_day";r=0;t=5401`, `"tokens_per_day";q=1000000;qu="tokens";w=86400`,
		},
		{
			limit.Use{Name: limit.USDPerDay, Whose: limit.OS, Limit: 2.5, Used: 2.75, Reset: time.Second},
			`{"detail":"All callers have used 2.75 US dollars today (UTC), and usd_per_day allows 2.50; try ` +
				`again in 1 seconds",` +
				`"limit":{"name":"usd_per_day","of":"os","limit":2.5,"used":2.75,"left":0,"resets_in":1}}`,
			"1", `"usd_per_day";r=0;t=1`, `"usd_per_day";q=2;qu="usd";w=86400`,
		},
	} {
		status, header, body := fault.Answer(c.use.Error())
		if status != http.StatusTooManyRequests || string(body) != c.body || header.Get("Retry-After") != c.retry ||
			header.Get("RateLimit") != c.rate || header.Get("RateLimit-Policy") != c.q {
			t.Errorf("%d %v\n%s", status, header, body)
		}
	}
	const want = "1,234 tokens, and tokens_per_run allows 1,000"
	if text := limit.ErrRunTokens(1234, 1000).Error(); !strings.Contains(text, want) {
		t.Error(text)
	}
}

// docs/budgets.md shows an answer. Its members and headers are those that a caller gets.
func TestTheAnswerInTheDocumentsIsTheOneOfTheServer(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/budgets.md")
	if err != nil {
		t.Fatal(err)
	}
	use := limit.Use{Name: limit.RunsPerDay, Whose: limit.Caller, Limit: 100, Used: 100, Reset: 90 * time.Minute}
	_, header, body := fault.Answer(use.Error())
	for _, want := range []string{
		string(body), "`" + header.Get("RateLimit") + "`", "`" + header.Get("RateLimit-Policy") + "`",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/budgets.md does not have %s", want)
		}
	}
}
