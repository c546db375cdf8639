package anthropic_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestAnHTTPErrorSaysWhatTheCallerMayRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 495) + " " + modeltest.APIKey
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"the vendor's own words", modeltest.Fail(400, " max_tokens: too many "), "max_tokens: too many"},
		{"a gateway's message", modeltest.Fail(422, "").Raw(`{"message":"no such route"}`), "no such route"},
		{"an error of another form", modeltest.Fail(500, "").Raw(`{"error":"oops"}`), "The model's server answered 500 Internal Server Error"},
		{"a proxy's page", modeltest.Fail(502, "").Raw("<html>"), "The model's server answered 502 Bad Gateway"},
		{"an unknown status", modeltest.Fail(599, ""), "The model's server answered 599 "},
		{"a redirect", modeltest.Fail(307, "").Raw("moved").Header("Location", "http://127.0.0.1:1/"), "The model's server answered 307 Temporary Redirect"},
		{"words with the key", modeltest.Fail(400, "no "+modeltest.APIKey+"!"), "no ***!"},
		{"words with a masked key", modeltest.Fail(400, "no sk-ant-api03-****abcd."), "no ***."},
		{"the key across the cut at 500", modeltest.Fail(400, long), strings.Repeat("é", 495) + " ***"},
		{"a rejected key", modeltest.Fail(401, "invalid x-api-key"), "The model's server rejected the API key: check ANTHROPIC_API_KEY or the model's api_key"},
		{"a key without a right", modeltest.Fail(403, "Your API key does not have permission"),
			"The model's server refuses access with this API key (check ANTHROPIC_API_KEY or the model's api_key): Your API key does not have permission"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, whole := range []bool{false, true} {
				r := modeltest.Ask("hello")
				r.Whole = whole
				a := modeltest.Listen(t.Context(), t, anthropic.New(on(t, modeltest.NewServer(t, c.script))), r)
				if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
					t.Errorf("whole %t: error %v\nwant the public text %q", whole, a.Err, c.detail)
				}
				if strings.Contains(a.Err.Error(), modeltest.APIKey) {
					t.Errorf("the log's text has the key in it: %v", a.Err)
				}
			}
		})
	}
}

func TestTheLogLearnsStatusAndRequest(t *testing.T) {
	t.Parallel()
	a := hear(t, modeltest.Fail(400, "words").Header("Request-Id", "req_011"))
	if a.Err == nil || !strings.Contains(a.Err.Error(), `status 400 Bad Request, request id "req_011"`) {
		t.Errorf("%v", a.Err)
	}
}

func TestAMissingKeyIsNamedAsTheRemedy(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(401, "x-api-key header is required"))
	o := on(t, srv)
	o.APIKey = ""
	a := modeltest.Listen(t.Context(), t, anthropic.New(o), modeltest.Ask("hello"))
	if want := "The model's server wants an API key: check ANTHROPIC_API_KEY or the model's api_key"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
	if header := srv.Requests()[0].Header; header["X-Api-Key"] != nil || header["Authorization"] != nil {
		t.Errorf("sent without a key: %v", header)
	}
}

func TestAKeyOfAnyFormIsKeptFromTheCaller(t *testing.T) {
	t.Parallel()
	o := on(t, modeltest.NewServer(t, modeltest.Fail(400, "hunter2/hunter2 is no key, is hunter2/hunter2")))
	o.APIKey = "hunter2/hunter2"
	a := modeltest.Listen(t.Context(), t, anthropic.New(o), modeltest.Ask("hello"))
	if want := "*** is no key, is ***"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestWhatIsBusyMayBeAskedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script modeltest.Script
		hint   time.Duration
	}{
		"too many requests":        {modeltest.Fail(429, "slow down"), 0},
		"overloaded":               {modeltest.Fail(529, "slow down"), 0},
		"overloaded by its status": {modeltest.Fail(529, "").Raw(`{"message":"slow down"}`), 0},
		"overloaded by its type":   {modeltest.Fail(500, "").Raw(`{"type":"error","error":{"type":"overloaded_error","message":"slow down"}}`), 0},
		"with seconds":             {modeltest.Fail(529, "slow down").Header("Retry-After", "7"), 7 * time.Second},
		"with milliseconds":        {modeltest.Fail(429, "slow down").Header("Retry-After-Ms", "250"), 250 * time.Millisecond},
		"with a minute":            {modeltest.Fail(429, "slow down").Header("Retry-After", "60").Header("X-Should-Retry", "true"), time.Minute},
		"with a date":              {modeltest.Fail(429, "slow down").Header("Retry-After", "Sun, 01 Nov 2026 10:00:30 GMT").Header("Date", "Sun, 01 Nov 2026 10:00:00 GMT"), 30 * time.Second},
		"with a hint of no sense":  {modeltest.Fail(429, "slow down").Header("Retry-After", "9e9"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := hear(t, c.script)
			e, ok := errors.AsType[*fault.Error](a.Err)
			if !ok || e.Kind != fault.Unavailable || e.Detail != "slow down" || e.RetryAfter != c.hint {
				t.Errorf("error %#v, want a hint of %v", a.Err, c.hint)
			}
		})
	}
}

func TestARequestIsTriedThreeTimesBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	busy := modeltest.Fail(529, "busy").Header("X-Should-Retry", "true").Header("Retry-After-Ms", "1")
	if a := hear(t, busy, busy, modeltest.Text("at last")); a.Err != nil || a.Text != "at last" {
		t.Errorf("text %q, error %v", a.Text, a.Err)
	}
	if a := hear(t, busy, busy, busy); fault.Detail(a.Err) != "busy" {
		t.Errorf("error %v after three tries", a.Err)
	}
}

func TestNothingIsAskedTwiceAfterTheFirstByte(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		srv := modeltest.NewServer(t, modeltest.Text("hello").Drop())
		r := modeltest.Ask("hello")
		r.Whole = whole
		a := modeltest.Listen(t.Context(), t, anthropic.New(on(t, srv)), r)
		if fault.Detail(a.Err) != "Connection error." || len(srv.Requests()) != 1 {
			t.Errorf("whole %t: error %v after %d requests, want one request", whole, a.Err, len(srv.Requests()))
		}
	}
}

// A number that only the SDK could read would make it wait for 285 years.
func TestAHintOfNoSenseHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries, begun := 0, time.Now()
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			tries++
			_ = r.Body.Close()
			return &http.Response{
				StatusCode: http.StatusServiceUnavailable, Request: r, Body: http.NoBody, Header: http.Header{"Retry-After": {"9e9"}},
			}, nil
		})}
		a := modeltest.Listen(t.Context(), t, anthropic.New(anthropic.Options{HTTPClient: client}), modeltest.Ask("hello"))
		if took := time.Since(begun); a.Err == nil || tries != 3 || took > 5*time.Second {
			t.Errorf("%v after %d tries and %v", a.Err, tries, took)
		}
	})
}

// The SDK would give a whole answer ten minutes, and then ask for it again.
func TestALongAnswerIsAskedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			tries++
			_ = r.Body.Close()
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return &http.Response{
				StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn"}`)),
			}, nil
		})}
		for name, limit := range map[string]time.Duration{"no limit": 0, "two hours": 2 * time.Hour} {
			ctx, cancel := t.Context(), func() {}
			if limit > 0 {
				ctx, cancel = context.WithTimeout(ctx, limit)
			}
			tries = 0
			r := modeltest.Ask("hello")
			r.Whole = true
			a := modeltest.Listen(ctx, t, anthropic.New(anthropic.Options{HTTPClient: client}), r)
			cancel()
			if a.Err != nil || a.Text != "hi" || tries != 1 {
				t.Errorf("%s: %q, %v after %d tries", name, a.Text, a.Err, tries)
			}
		}
	})
}

func TestAVendorWhoCannotBeReached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		detail string
	}{
		{"refuses the connection", errors.New("connection refused"), "Connection error."},
		{"does not answer in time", timeout{}, "Request timed out."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // the SDK waits between its tries
				tries := 0
				client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
					tries++
					_ = r.Body.Close()
					return nil, c.err
				})}
				m := anthropic.New(anthropic.Options{ID: "m", BaseURL: "http://vendor.test", HTTPClient: client})
				a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello"))
				if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail || tries != 3 {
					t.Errorf("error %v after %d tries, want %q after 3", a.Err, tries, c.detail)
				}
			})
		})
	}
}

type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func TestAnEndlessErrorPageIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	modeltest.LeavesEndlessPage(t, func(c *http.Client) model.Model { return anthropic.New(anthropic.Options{HTTPClient: c}) })
}

// net/http takes X-Api-Key along to another host.
func TestTheKeyStaysWithTheHostItIsFor(t *testing.T) {
	t.Parallel()
	var strayed atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		hear(t, modeltest.Fail(status, "").Raw("moved").Header("Location", other.URL))
	}
	if n := strayed.Load(); n != 0 {
		t.Errorf("%d requests went on to another host", n)
	}
}
