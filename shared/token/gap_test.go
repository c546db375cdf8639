package token_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// asksAgain checks that the answer is a 503 with this Retry-After, in seconds.
func (f follower) asksAgain(k signKey, after, when string) {
	f.t.Helper()
	_, err := f.Verify(f.t.Context(), []string{k.token(f.t, timeless())})
	if status, header, _ := fault.Answer(err); status != 503 || header.Get("Retry-After") != after {
		f.t.Errorf("%s: %d, Retry-After %q, want 503 and %s: %v", when, status, header.Get("Retry-After"), after, err)
	}
}

// Keycloak publishes a key in the request that signs the first token with it, also if the keys
// were fetched some seconds before.
func TestTokenOfAKeyThatIsPublishedWithinTheGapIsNotRefused(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.passes(3 * time.Second)
	i.publish(a, b)
	f.asksAgain(b, "7", "within the gap")
	f.accepts(a, "the known key meanwhile")
	i.passes(4 * time.Second)
	f.asksAgain(b, "3", "still within the gap")
	i.wantAsked(t, 1, "within the gap")
	i.passes(3 * time.Second)
	f.accepts(b, "after the gap")
	i.wantAsked(t, 2, "after the gap")
}

func TestUnknownKidIsRefusedOnceAFetchLacksIt(t *testing.T) {
	t.Parallel()
	a, x, y := newKey("a"), newKey("x"), newKey("y")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.passes(3 * time.Second)
	f.asksAgain(x, "7", "x within the gap")
	f.asksAgain(y, "7", "y within the gap")
	i.passes(7 * time.Second)
	f.refuses(x, "the fetch lacks x")
	f.refuses(y, "the same fetch lacks y")
	f.refuses(x, "x again")
	i.wantAsked(t, 2, "one fetch for both")
	i.passes(gap)
	f.refuses(x, "within a minute")
	i.wantAsked(t, 2, "within a minute")
}

// A set that was requested before the key was published says nothing about it.
func TestOnlyAFetchThatBeganAfterTheQuestionAnswersIt(t *testing.T) {
	t.Parallel()
	a, b, c := newKey("a"), newKey("b"), newKey("c")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.passes(gap)
	arrived, release := make(chan struct{}), make(chan struct{})
	i.does(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-release; fmt.Fprint(w, set(a)) })
	var wg sync.WaitGroup
	wg.Go(func() { f.refuses(c, "the one that fetches") })
	<-arrived
	waits := make(chan struct{})
	wg.Go(func() { close(waits); f.asksAgain(b, "10", "the one that came later") })
	<-waits
	close(release)
	wg.Wait()
	i.publish(a, b)
	i.passes(gap)
	f.accepts(b, "after the gap")
}

func TestTokensWithoutAKidAndSetsWithUnnamedKeysAreRefusedWithinTheGap(t *testing.T) {
	t.Parallel()
	a, nameless := newKey("a"), newKey("")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	f.refuses(newKey(""), "a token without kid")
	i = newIssuer(t, a, nameless)
	f = i.follower(t)
	f.accepts(a, "before")
	f.refuses(newKey("x"), "a set with an unnamed key")
}

// Anybody can send any kid. The memory of those that are asked for is bounded, and full of
// forged kids it refuses a further one, as it is without the memory.
func TestMemoryOfUnknownKidsIsBounded(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	forged := signKey{"", a.private}
	for n := range maxAsked {
		forged.kid = fmt.Sprint(n)
		if n == 0 || n == maxAsked-1 {
			f.asksAgain(signKey{forged.kid, newKey("").private}, "10", "one of the first")
			continue
		}
		f.asksAgain(signKey{forged.kid, ecOther}, "10", "one of the first")
	}
	f.refuses(newKey("one more"), "a full memory")
	i.passes(gap)
	f.refuses(newKey("another"), "the fetch")
	f.asksAgain(newKey("next"), "10", "an empty memory")
	i.wantAsked(t, 2, "all kids")
}

// ecOther is a key that no issuer publishes.
var ecOther = newKey("").private

// While the source is down, a kid that was asked for stays open, and is refused when the source
// is up and lacks it.
func TestAFetchThatFailsAnswersNoQuestion(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.says("down")
	i.passes(gap)
	for range 10 {
		f.asksAgain(b, "10", "down")
		i.passes(gap)
	}
	i.publish(a)
	f.refuses(b, "up, and without the key")
	i.wantAsked(t, 12, "one fetch a gap")
}

// published is a network in which every address answers with a set.
type published struct{ set atomic.Pointer[string] }

func (p *published) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	fmt.Fprint(w, *p.set.Load())
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func TestFewRequestsWaitForTheLastSecondOfTheGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newKey("a"), newKey("b")
		network := &published{}
		before, after := set(a), set(a, b)
		network.set.Store(&before)
		f := follower{t, newVerifier(t, token.Options{
			Algorithms: []string{"ES256"}, Keys: []token.KeySource{{JWKSURL: "https://i.example"}}, Now: time.Now,
			HTTP: &http.Client{Transport: network},
		})}
		f.accepts(a, "before")
		network.set.Store(&after)
		time.Sleep(gap - time.Second - 1)
		f.asksAgain(b, "2", "more than a second before")
		time.Sleep(500 * time.Millisecond)
		raw, start := b.token(t, timeless()), time.Now()
		var wg sync.WaitGroup
		var accepted, asked atomic.Int64
		for range 30 {
			wg.Go(func() {
				_, err := f.Verify(t.Context(), []string{raw})
				if status, header, _ := fault.Answer(err); err == nil {
					accepted.Add(1)
				} else if status == 503 && header.Get("Retry-After") == "1" {
					asked.Add(1)
				}
			})
		}
		wg.Wait()
		if accepted.Load() != 8 || asked.Load() != 22 || time.Since(start) > time.Second {
			t.Errorf("%d waited and were accepted, %d got 503, in %v", accepted.Load(), asked.Load(), time.Since(start))
		}
	})
}

// Two entries with one address and other clients are how two applications of one issuer get other rules. The set of one
// of them can be read while that of the other can't.
func TestAnotherEntryWithTheKeyHidesNoUnreadSource(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t, a)
	web, svc := i.source(), i.source()
	web.Issuers, web.Clients = []string{"https://a"}, []string{"web"}
	svc.Issuers, svc.Clients = []string{"https://a"}, []string{"svc"}
	var asked atomic.Int64
	fails := func(nth int64, keys ...signKey) { // the request with this number fails
		i.does(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) == nth {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			fmt.Fprint(w, set(keys...))
		})
	}
	fails(1, a)
	o := i.options()
	o.Keys = []token.KeySource{web, svc}
	f := follower{t, newVerifier(t, o)}
	if faults := f.Fetch(t.Context()); len(faults) != 1 {
		t.Fatalf("%d sources failed, want one: %v", len(faults), faults)
	}
	status := func(k signKey, client, iss string) int {
		_, err := f.Verify(t.Context(), []string{k.token(t, timeless("iss", iss, "azp", client))})
		if err == nil {
			return http.StatusOK
		}
		code, _, _ := fault.Answer(err)
		return code
	}
	both := func(k signKey) [2]int { return [2]int{status(k, "web", "https://a"), status(k, "svc", "https://a")} }
	// Which of the two requests failed is not known.
	if got := both(a); got != [2]int{503, 200} && got != [2]int{200, 503} {
		t.Errorf("after a failed fetch: %v, want one 200 and one 503", got)
	}
	i.passes(gap)
	if got := both(a); got != [2]int{200, 200} {
		t.Errorf("after the gap: %v", got)
	}
	if got := status(a, "other", "https://a"); got != 401 {
		t.Errorf("a client of no entry: %d", got)
	}
	before := asked.Load()
	if got := status(a, "web", "https://b"); got != 401 || asked.Load() != before {
		t.Errorf("another issuer: %d after %d fetches, want 401 and none", got, asked.Load()-before)
	}
	i.passes(gap)
	fails(asked.Load()+1, a, b) // b is new, and one of the two sources misses it
	if got := both(b); got != [2]int{503, 200} && got != [2]int{200, 503} {
		t.Errorf("a new key that one source missed: %v, want one 200 and one 503", got)
	}
	i.passes(gap)
	if got := both(b); got != [2]int{200, 200} {
		t.Errorf("the new key after the gap: %v", got)
	}
}
