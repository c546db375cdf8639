package api_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/store"
)

func TestARunOverALimitIsA429WithTheLimitAndWhenToTryAgain(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.run("once", "s1", "hi")
	for _, body := range []string{
		"stream=false&message=hi&session_id=s2", "message=hi&session_id=s2", // A stream is refused before its first event.
		"stream=false&background=true&message=hi&session_id=s2",
	} {
		got := s.do("once POST /agents/a/runs", body).want(t, 429,
			`"limit":{"name":"runs_per_day","of":"caller","limit":1,"used":1,"left":0,"resets_in":`)
		for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
			if got.Header().Get(name) == "" {
				t.Errorf("%s: no %s", body, name)
			}
		}
		if got.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", body, got.Header())
		}
	}
	s.do("admin GET /sessions/s2", "").want(t, 404)
	s.run("bob", "s3", "hi") // Another caller has limits of their own, or none.
}

func TestARepeatedRequestIsNoFurtherRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for range 2 {
		s.do("once POST /agents/a/runs", "stream=false&message=hi&session_id=s1", "Idempotency-Key", "k").want(t, 200)
	}
	s.do("once POST /agents/a/runs", "stream=false&message=hi&session_id=s1", "Idempotency-Key", "other").want(t, 429)
}

func TestMergesOfOneCallerAreBounded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.remember("ann", "likes tea")
	refused := 0
	for range 2*store.MergesPerMinute + 1 { // In at most two minutes.
		got := s.do("ann POST /optimize-memories", `{"user_id":"ann","apply":false}`)
		if got.Code == 429 {
			refused++
			got.want(t, 429, `"name":"merges_per_minute"`)
		}
	}
	if refused == 0 || s.model.count() > 2*store.MergesPerMinute {
		t.Errorf("%d are refused, the model was called %d times", refused, s.model.count())
	}
	s.remember("once", "likes tea") // A merge counts as a run of its caller.
	s.run("once", "s1", "hi")
	s.do("once POST /optimize-memories", `{"user_id":"once"}`).want(t, 429, `"name":"runs_per_day"`)
}
