package token_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The times that docs/keys.md promises.
const (
	gap     = 10 * time.Second
	minute  = time.Minute
	refresh = 5 * time.Minute
	day     = 24 * time.Hour

	maxAsked = 64 // kids
)

// signKey is a key of an issuer, with the kid of its tokens.
type signKey struct {
	kid     string
	private crypto.Signer
}

func newKey(kid string) signKey { return signKey{kid, ecKey(elliptic.P256())} }

func (k signKey) token(tb testing.TB, claims jwt.MapClaims) string {
	tb.Helper()
	return mint(tb, jwt.SigningMethodES256, k.private, claims, "kid", k.kid)
}

// issuer publishes keys over HTTP. The test sets the clock.
type issuer struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	clock  *atomic.Int64 // added to now
}

func newIssuer(t *testing.T, keys ...signKey) *issuer {
	t.Helper()
	i := &issuer{clock: &atomic.Int64{}}
	i.publish(keys...)
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) does(h http.HandlerFunc) { i.answer.Store(&h) }

func (i *issuer) says(text string) {
	i.does(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

func (i *issuer) publish(keys ...signKey) { i.says(set(keys...)) }

func set(keys ...signKey) string {
	jwks := []any{}
	for _, k := range keys {
		jwks = append(jwks, jwk(k.private.Public(), k.kid, "sig", ""))
	}
	return string(must(json.Marshal(map[string]any{"keys": jwks})))
}

func (i *issuer) passes(d time.Duration) { i.clock.Add(int64(d)) }

func (i *issuer) wantAsked(t *testing.T, want int64, when string) {
	t.Helper()
	if got := i.asked.Load(); got != want {
		t.Errorf("%s: the keys were fetched %d times, want %d", when, got, want)
	}
}

func (i *issuer) source() token.KeySource { return token.KeySource{JWKSURL: i.URL + "/jwks?TELLTALE"} }

func (i *issuer) options(sources ...token.KeySource) token.Options {
	return token.Options{
		Algorithms: []string{"ES256"}, Keys: append([]token.KeySource{i.source()}, sources...), HTTP: i.Client(),
		Now: func() time.Time { return time.Unix(now, i.clock.Load()) },
	}
}

// timeless returns claims without an expiry.
func timeless(more ...string) jwt.MapClaims {
	c := alice(more...)
	delete(c, "exp")
	return c
}

// follower verifies tokens with the keys of an issuer.
type follower struct {
	t *testing.T
	*token.Verifier
}

func (i *issuer) follower(t *testing.T, sources ...token.KeySource) follower {
	t.Helper()
	return follower{t, newVerifier(t, i.options(sources...))}
}

func (f follower) accepts(k signKey, when string) {
	f.t.Helper()
	if _, err := f.Verify(f.t.Context(), []string{k.token(f.t, timeless())}); err != nil {
		f.t.Errorf("%s: refused with %v", when, err)
	}
}

func (f follower) refuses(k signKey, when string) {
	f.t.Helper()
	_, err := f.Verify(f.t.Context(), []string{k.token(f.t, timeless())})
	if !errors.Is(err, fault.Unauthenticated) || fault.Detail(err) != badSignature {
		f.t.Errorf("%s: error %v, want %q", when, err, badSignature)
	}
}

func (f follower) isUnavailable(k signKey, when string) {
	f.t.Helper()
	_, err := f.Verify(f.t.Context(), []string{k.token(f.t, timeless())})
	status, header, body := fault.Answer(err)
	want := `{"detail":"The signing keys can't be fetched, try again"}`
	if status != 503 || header.Get("Retry-After") != "10" || string(body) != want {
		f.t.Errorf("%s: %d %v %s, want 503", when, status, header, body)
	}
	if said := fmt.Sprintf("%v %+v %#v", err, err, err.Error()); strings.Contains(said, "TELLTALE") {
		f.t.Errorf("%s: the error shows the address's query or answer: %s", when, said)
	}
}

func TestKeysAreFetchedByTheFirstRequestThatNeedsThem(t *testing.T) {
	t.Parallel()
	a, own := newKey("a"), newKey("own")
	i := newIssuer(t, a)
	f := i.follower(t, token.KeySource{PEM: publicPEM(own.private)})
	f.accepts(own, "a key at hand")
	i.wantAsked(t, 0, "a key at hand")
	f.accepts(a, "a key at the address")
	f.accepts(a, "again")
	i.wantAsked(t, 1, "two requests")
}

func TestKeyAddedAtTheAddressIsAcceptedInTheFirstRequest(t *testing.T) {
	t.Parallel()
	a, b, nameless := newKey("a"), newKey("b"), newKey("")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.publish(a, b)
	i.passes(gap)
	f.accepts(b, "the first request with the new key")
	f.accepts(a, "the old key beside it")
	i.wantAsked(t, 2, "one key added")
	i.publish(nameless)
	i.passes(gap)
	f.accepts(nameless, "a key without a name")
	i.wantAsked(t, 3, "another added")
}

func TestKeyRemovedAtTheAddressIsRefusedAfterFiveMinutes(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t, a, b)
	f := i.follower(t)
	f.accepts(a, "before")
	i.publish(b)
	i.passes(refresh - 1)
	f.accepts(a, "within the bound")
	i.passes(1)
	f.refuses(a, "after the bound, in the first request")
	f.accepts(b, "the key that stayed")
	i.publish()
	i.passes(refresh)
	f.refuses(b, "all keys removed")
}

func TestKeyReplacedUnderAKnownKidIsFetchedWithTheOthers(t *testing.T) {
	t.Parallel()
	a, replaced := newKey("a"), newKey("a")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.publish(replaced)
	i.passes(gap)
	f.refuses(replaced, "a signature under a kid that is known")
	i.wantAsked(t, 1, "anybody can send a known kid")
	i.passes(refresh - gap)
	f.accepts(replaced, "after the bound")
	f.refuses(a, "the key that was replaced")
	i.wantAsked(t, 2, "after the bound")
}

func TestKnownKeysAreAcceptedForADayWhileTheAddressIsDown(t *testing.T) {
	t.Parallel()
	elsewhere := newIssuer(t)
	for name, down := range map[string]http.HandlerFunc{
		"500":           func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"keys":[]} TELLTALE`, 500) },
		"206, a part":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206); fmt.Fprint(w, `{"keys":[]}`) },
		"a broken line": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			fmt.Fprint(w, `{"keys":[]}`)
		},
		"a page":           func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>TELLTALE") },
		"no keys member":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"TELLTALE":[]}`) },
		"keys of no list":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":{"TELLTALE":1}}`) },
		"two keys members": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[],"keys":[]}`) },
		"over 256 KB": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[]}`, strings.Repeat(" ", 256<<10))
		},
		"over 100 keys": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{}%s]}`, strings.Repeat(",{}", 100))
		},
		"another host": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		},
		"another scheme": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/TELLTALE", http.StatusFound)
		},
		"endless redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newKey("a"), newKey("b")
			i := newIssuer(t)
			i.does(down)
			f := i.follower(t)
			f.isUnavailable(a, "never had keys")
			i.publish(a)
			i.passes(gap)
			f.accepts(a, "up")
			i.does(down)
			i.passes(gap)
			f.isUnavailable(b, "an unknown key, with known ones: no set lacks it yet")
			i.passes(day - gap - 1)
			f.accepts(a, "down for a day")
			i.passes(1)
			f.isUnavailable(a, "down for longer")
			i.publish(b)
			i.passes(gap)
			f.accepts(b, "up again")
		})
	}
	elsewhere.wantAsked(t, 0, "redirects")
}

func TestRedirectsStayOnTheConfiguredHost(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	for last, ok := range map[string]bool{"/jwksxxx": true, "/jwksxxxx": false} {
		i := newIssuer(t)
		i.does(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != last {
				http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
				return
			}
			fmt.Fprint(w, set(a))
		})
		if f := i.follower(t); ok {
			f.accepts(a, "three redirects on the same host")
		} else {
			f.isUnavailable(a, "four redirects")
		}
		i.wantAsked(t, 4, last)
	}
}

// downgrade is a network in which https redirects to http on the same host and port,
// where an attacker on the way could answer.
type downgrade struct{ answer string }

func (d downgrade) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.URL.Scheme == "https" {
		http.Redirect(w, r, "http://"+r.URL.Host+"/jwks", http.StatusFound)
	} else {
		fmt.Fprint(w, d.answer)
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func TestRedirectNeverLeavesTLS(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	o := newIssuer(t).options()
	o.HTTP = &http.Client{Transport: downgrade{set(a)}}
	follower{t, newVerifier(t, o)}.isUnavailable(a, "a redirect to http")
	o.Keys[0].JWKSURL = strings.Replace(o.Keys[0].JWKSURL, "https:", "http:", 1)
	follower{t, newVerifier(t, o)}.accepts(a, "the same network, asked by http")
}

func TestFloodOfUnknownKeysCausesOneFetchPerGap(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	_, rest, _ := strings.Cut(newKey("").token(t, timeless()), ".") // signed once, because any invalid signature is enough
	const gaps, each = 10, 1000
	var unavailable atomic.Int64
	for g := range gaps {
		i.passes(gap)
		var wg sync.WaitGroup
		for w := range 20 {
			wg.Go(func() {
				for n := range each / 20 {
					head := must(json.Marshal(map[string]string{"alg": "ES256", "kid": fmt.Sprintf("%d-%d-%d", g, w, n)}))
					_, err := f.Verify(t.Context(), []string{encode(head) + "." + rest})
					switch {
					case errors.Is(err, fault.Unavailable):
						unavailable.Add(1)
					case !errors.Is(err, fault.Unauthenticated):
						t.Errorf("a forged token: %v", err)
					}
				}
			})
		}
		wg.Wait()
		f.accepts(a, "amid the flood")
		if n := unavailable.Swap(0); n > maxAsked {
			t.Errorf("gap %d: %d answers are 503, want %d at most", g, n, maxAsked)
		}
	}
	i.wantAsked(t, 1+gaps, "10,000 unknown kids in 10 gaps")
}

func TestFailedFetchesKeepTheGapToo(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.says("TELLTALE")
	f := i.follower(t)
	for n := range 100 {
		f.isUnavailable(newKey(fmt.Sprint(n)), "down")
	}
	i.wantAsked(t, 1, "100 requests without keys")
	i.passes(gap)
	f.isUnavailable(newKey("a"), "still down")
	i.wantAsked(t, 2, "one gap later")
}

func TestManyRequestsWithANewKeyShareOneFetch(t *testing.T) {
	t.Parallel()
	a, b := newKey("a"), newKey("b")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.passes(gap)
	arrived, release := make(chan struct{}), make(chan struct{})
	i.does(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-release; fmt.Fprint(w, set(a, b)) })
	var wg sync.WaitGroup
	wg.Go(func() { f.accepts(b, "the first") })
	<-arrived
	for range 50 {
		wg.Go(func() { f.accepts(b, "one of the others") })
	}
	f.accepts(a, "a known key meanwhile")
	close(release)
	wg.Wait()
	i.wantAsked(t, 2, "51 requests with one new key")
}

func TestMissingKidCausesOneFetchAMinute(t *testing.T) {
	t.Parallel()
	a, gone := newKey("a"), newKey("gone")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.refuses(gone, "the first time")
	i.wantAsked(t, 1, "the first time")
	for range 5 {
		i.passes(gap)
		f.refuses(gone, "within a minute")
	}
	i.wantAsked(t, 1, "within a minute")
	f.refuses(newKey("other"), "another kid")
	i.wantAsked(t, 2, "another kid")
	i.publish(gone)
	i.passes(gap)
	f.accepts(gone, "after a minute")
	i.wantAsked(t, 3, "after a minute")
}

func TestSlowAddressDelaysNoTokenWithAKnownKey(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.passes(refresh)
	arrived, release := make(chan struct{}), make(chan struct{})
	i.does(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-release; fmt.Fprint(w, set(a)) })
	var wg sync.WaitGroup
	wg.Go(func() { f.accepts(a, "the one that fetches") })
	<-arrived
	for range 100 {
		f.accepts(a, "the others, with the old keys")
	}
	i.wantAsked(t, 2, "one that fetches")
	close(release)
	wg.Wait()
	f.accepts(a, "after")
	i.wantAsked(t, 2, "confirmed")
}

func TestAFetchContinuesWhenItsCallerLeaves(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	i.does(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-release; fmt.Fprint(w, set(a)) })
	f := i.follower(t)
	var wg sync.WaitGroup
	first, leave := context.WithCancel(t.Context())
	wg.Go(func() { _, _ = f.Verify(first, []string{a.token(t, timeless())}) })
	<-arrived
	wg.Go(func() { f.accepts(a, "the one that waits") })
	leave()
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Verify(impatient, []string{a.token(t, timeless())}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("one that doesn't wait: %v", err)
	}
	close(release)
	wg.Wait()
	i.wantAsked(t, 1, "three callers")
}

// mute is a network that never answers.
type mute struct{}

func (mute) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestAFetchEndsAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	raw := a.token(t, timeless())
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, token.Options{
			Algorithms: []string{"ES256"}, HTTP: &http.Client{Transport: mute{}}, Now: time.Now,
			Keys: []token.KeySource{
				{JWKSURL: "https://a.example", Rules: token.Rules{Issuers: []string{"a"}}},
				{JWKSURL: "https://b.example", Rules: token.Rules{Issuers: []string{"b"}}},
			},
		})
		start := time.Now()
		_, err := v.Verify(t.Context(), []string{raw})
		if took := time.Since(start); took != 5*time.Second || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%v after %v, want Unavailable after 5s for both", err, took)
		}
		for _, want := range []string{
			"keys[0]: https://a.example: did not answer within 5s", "keys[1]: https://b.example: did not",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error %q lacks %q", err, want)
			}
		}
	})
}

// slow is a network in which a metadata document takes three seconds, and the set that it names never comes.
type slow struct{}

func (slow) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/.well-known/") {
		time.Sleep(3 * time.Second)
		w := httptest.NewRecorder()
		fmt.Fprint(w, `{"issuer":"https://a.example","jwks_uri":"https://a.example/keys"}`)
		resp := w.Result()
		resp.Request = r
		return resp, nil
	}
	return mute{}.RoundTrip(r)
}

func TestADocumentAndItsSetHaveFiveSecondsTogether(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	raw := a.token(t, timeless("iss", "https://a.example"))
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, token.Options{
			Algorithms: []string{"ES256"}, HTTP: &http.Client{Transport: slow{}}, Now: time.Now,
			Keys: []token.KeySource{
				{Discovery: "https://a.example", Rules: token.Rules{Issuers: []string{"https://a.example"}}},
			},
		})
		start := time.Now()
		_, err := v.Verify(t.Context(), []string{raw})
		if took := time.Since(start); took != 5*time.Second || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%v after %v, want Unavailable after 5s", err, took)
		}
	})
}

// trap is a network that panics after it was sprung.
type trap struct {
	http.RoundTripper
	sprung atomic.Bool
}

func (t *trap) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.sprung.Load() {
		panic("TELLTALE")
	}
	return t.RoundTripper.RoundTrip(r)
}

func TestPanicInAFetchIsAFailedFetch(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	o, network := i.options(), &trap{RoundTripper: i.Client().Transport}
	o.HTTP = &http.Client{Transport: network}
	f := follower{t, newVerifier(t, o)}
	network.sprung.Store(true)
	f.isUnavailable(a, "a panic")
	network.sprung.Store(false)
	i.passes(gap)
	f.accepts(a, "afterwards")
}

func TestAClockThatIsSetBackDoesNotExtendAKey(t *testing.T) {
	t.Parallel()
	a := newKey("a")
	i := newIssuer(t, a)
	f := i.follower(t)
	f.accepts(a, "before")
	i.publish()
	i.passes(-time.Hour)
	f.refuses(a, "an hour earlier")
}

// Both clocks have whole seconds in the header Date, so a smaller difference is none.
func TestTheClocksOfIssuersAreCompared(t *testing.T) {
	t.Parallel()
	ahead := map[time.Duration]time.Duration{0: 0, time.Minute: time.Minute, -time.Minute: -59 * time.Second}
	for by, want := range ahead {
		a := newKey("a")
		i := newIssuer(t, a)
		i.does(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Unix(now, 0).Add(by).UTC().Format(http.TimeFormat))
			fmt.Fprint(w, set(a))
		})
		v := newVerifier(t, i.options())
		if faults := v.Fetch(t.Context()); len(faults) > 0 {
			t.Fatal(faults)
		}
		if got := v.Clocks(); len(got) != 1 || got[0] != (token.Clock{Source: "keys[0]", Ahead: want}) {
			t.Errorf("%v: %v", by, got)
		}
	}
}
