package gateway_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/gateway"
)

// step is one request at one time, the wanted status, and how often the verifier has been
// called by then.
type step struct {
	at     time.Duration
	status int
	asked  int64
}

func (g *gate) walk(request, raw string, steps ...step) {
	g.t.Helper()
	for _, s := range steps {
		g.at(s.at)
		if got := g.call(request, bearer(raw)); got.status != s.status || g.asked.Load() != s.asked {
			g.t.Errorf("after %s: %d %s, asked %d times; want %d, %d times", s.at, got.status, got.body, g.asked.Load(),
				s.status, s.asked)
		}
	}
}

func TestTokenIsVerifiedOncePerMinute(t *testing.T) {
	t.Parallel()
	newGate(t, "a").walk("GET /agents", sign(t, "ann", time.Hour, "agents:read"),
		step{0, 200, 1}, step{0, 200, 1}, step{gateway.CacheTTL - time.Nanosecond, 200, 1},
		step{gateway.CacheTTL, 200, 2}, step{2*gateway.CacheTTL - time.Nanosecond, 200, 2},
		step{2 * gateway.CacheTTL, 200, 3})
}

// Between exp and exp plus leeway a token is still valid, but its policy is no longer cached.
func TestPolicyIsNotCachedPastTokenExpiry(t *testing.T) {
	t.Parallel()
	newGate(t, "a").walk("GET /agents", sign(t, "ann", 30*time.Second, "agents:read"),
		step{0, 200, 1}, step{30*time.Second - time.Nanosecond, 200, 1},
		step{30 * time.Second, 200, 2}, step{30 * time.Second, 200, 3}, step{40*time.Second - time.Nanosecond, 200, 4},
		step{40 * time.Second, 401, 5}, step{40 * time.Second, 401, 6})
}

func TestCachedPolicyServesEveryRoute(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a", "b")
	raw := sign(t, "ann", time.Hour, "agents:a:run", "agents:a:read")
	for request, want := range map[string]int{
		"GET /agents": 200, "GET /agents/a": 200, "POST /agents/a/runs": 200, "GET /agents/a/runs/r": 200,
		"POST /agents/b/runs": 403, "GET /agents/b": 403, "GET /sessions": 403, "DELETE /sessions/s": 403, "GET /nope": 404,
		"PUT /agents": 405,
	} {
		if got := g.call(request, bearer(raw)); got.status != want {
			t.Errorf("%s: %d %s, want %d", request, got.status, got.body, want)
		}
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the verifier was asked %d times", n)
	}
}

func TestRejectedTokenIsNotCached(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	raw := sign(t, "ann", time.Hour, "agents:read")
	g.call("GET /agents", bearer(raw))
	// The same token with another one before it is a different header, and an invalid one.
	if got := g.call("GET /agents", bearer(raw), bearer(raw)); got.status != 401 {
		t.Errorf("the cached token twice in one header: status %d", got.status)
	}
	g.walk("GET /agents", sign(t, "ann", -time.Hour), step{0, 401, 2}, step{0, 401, 3})
}

func TestCacheKeepsTokensApart(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a", "b")
	var wg sync.WaitGroup
	for n := range 8 {
		sub := fmt.Sprintf("user-%d", n)
		own, other := []string{"a", "b"}[n%2], []string{"b", "a"}[n%2]
		raw := sign(t, sub, time.Hour, "agents:"+own+":run")
		wg.Go(func() {
			for range 10 {
				if s := g.call("POST /agents/"+own+"/runs", bearer(raw)).seen(t); s.Subject != sub {
					t.Errorf("the token of %s gets the principal %s", sub, s.Subject)
				}
				if got := g.call("POST /agents/"+other+"/runs", bearer(raw)); got.status != 403 {
					t.Errorf("%s runs %s: %d", sub, other, got.status)
				}
			}
		})
	}
	wg.Wait()
}

// The header names the scheme in any case and with any blanks. They make no new entry.
func TestEachSpellingOfTheHeaderFindsTheCachedPolicy(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	raw := sign(t, "ann", time.Hour, "agents:read")
	for _, header := range []string{
		bearer(raw), "authorization: bEaRer " + raw, "Authorization:   BEARER    " + raw + "  ", "Authorization: " + raw,
		"Authorization: bearer \t " + raw,
	} {
		if got := g.call("GET /agents", header); got.status != 200 {
			t.Errorf("%q: %d %s", header, got.status, got.body)
		}
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the verifier was asked %d times", n)
	}
}
