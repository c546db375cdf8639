package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
)

// of returns the answer for a token whose policy has about this many bytes.
func of(bytes int, until time.Time) admission {
	return admission{principal: &authz.Principal{}, until: until, policy: events.APIGatewayCustomAuthorizerPolicy{
		Statement: []events.IAMPolicyStatement{{Resource: []string{strings.Repeat("x", bytes)}}},
	}}
}

func TestAFullCacheLosesItsOldestEntryOnly(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_893_456_000, 0)
	for name, c := range map[string]*cache{
		"by entries": newCache(3, 1<<20), "by bytes": newCache(1000, 3*bytesOf(of(10_000, now))),
	} {
		for n := range byte(5) {
			c.put(key{n}, of(10_000, now.Add(time.Minute)))
		}
		c.put(key{4}, of(10_000, now.Add(time.Hour))) // replaces its own entry
		var kept []byte
		for n := range byte(5) {
			if _, ok := c.get(key{n}, now); ok {
				kept = append(kept, n)
			}
		}
		if fmt.Sprint(kept) != "[2 3 4]" || c.oldest.Len() != 3 || c.bytes != 3*bytesOf(of(10_000, now)) {
			t.Errorf("%s: %v are left, %d entries with %d bytes", name, kept, c.oldest.Len(), c.bytes)
		}
		for n := range byte(5) {
			_, ok := c.get(key{n}, now.Add(time.Minute))
			if ok != (n == 4) {
				t.Errorf("%s: the entry %d after a minute: %t", name, n, ok)
			}
		}
		if c.oldest.Len() != 1 || len(c.entries) != 1 {
			t.Errorf("%s: entries that have ended stay: %d", name, c.oldest.Len())
		}
	}
}

func TestAnEntryLargerThanTheCacheIsNotKept(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_893_456_000, 0)
	c := newCache(10, 100_000)
	c.put(key{1}, of(1000, now.Add(time.Minute)))
	c.put(key{2}, of(200_000, now.Add(time.Minute)))
	_, small := c.get(key{1}, now)
	if _, large := c.get(key{2}, now); !small || large || c.bytes != bytesOf(of(1000, now)) {
		t.Errorf("small %t, large %t, %d bytes", small, large, c.bytes)
	}
}
