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
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// What all providers do with an HTTP error is in modeltest's suite.
func TestTheCallerSeesASafeTextOfAnHTTPError(t *testing.T) {
	t.Parallel()
	const moved = "The model's server answered 307 Temporary Redirect"
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"a redirect", modeltest.Fail(307, "").Raw("moved").Header("Location", "http://127.0.0.1:1/"), moved},
		{"a text with a masked key", modeltest.Fail(400, "no sk-ant-api03-****abcd."), "no ***."},
		{"a rejected key", modeltest.Fail(401, "invalid x-api-key"),
			"The model's server rejected the API key: check ANTHROPIC_API_KEY or the model's api_key"},
		{"a key without permission", modeltest.Fail(403, "Your API key does not have permission"),
			"The model's server denies access with this API key (check ANTHROPIC_API_KEY or the model's api_key): " +
				"Your API key does not have permission"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, a := range map[string]modeltest.Answer{
				"streamed": answerOf(t, c.script), "whole": wholeAnswerOf(t, modeltest.NewServer(t, c.script)),
			} {
				if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
					t.Errorf("%s: error %v\nwant the public text %q", name, a.Err, c.detail)
				}
			}
		})
	}
}

func TestTheLogHasStatusAndRequestID(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Fail(400, "words").Header("Request-Id", "req_011"))
	if a.Err == nil || !strings.Contains(a.Err.Error(), `status 400 Bad Request, request id "req_011"`) {
		t.Errorf("error %v", a.Err)
	}
}

func TestTheErrorForAMissingKeyNamesTheVariable(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(401, "x-api-key header is required"))
	o := optionsFor(t, srv)
	o.APIKey = ""
	a := modeltest.Collect(t.Context(), t, anthropic.New(o), modeltest.Ask("hello"))
	want := "The model's server requires an API key: check ANTHROPIC_API_KEY or the model's api_key"
	if fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
	if header := srv.Requests()[0].Header; header["X-Api-Key"] != nil || header["Authorization"] != nil {
		t.Errorf("a model without a key sent %v", header)
	}
}

func TestAKeyOfAnyFormIsKeptFromTheCaller(t *testing.T) {
	t.Parallel()
	const key = "hunter2/hunter2"
	o := optionsFor(t, modeltest.NewServer(t, modeltest.Fail(400, key+" is no key, is "+key)))
	o.APIKey = key
	a := modeltest.Collect(t.Context(), t, anthropic.New(o), modeltest.Ask("hello"))
	if want := "*** is no key, is ***"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestABusyProviderIsUnavailable(t *testing.T) {
	t.Parallel()
	const overloaded = `{"type":"error","error":{"type":"overloaded_error","message":"slow down"}}`
	for name, c := range map[string]struct {
		script modeltest.Script
		delay  time.Duration
	}{
		"overloaded":                     {modeltest.Fail(529, "slow down"), 0},
		"overloaded, by the status only": {modeltest.Fail(529, "").Raw(`{"message":"slow down"}`), 0},
		"overloaded, by the type only":   {modeltest.Fail(500, "").Raw(overloaded), 0},
		"overloaded, with a delay":       {modeltest.Fail(529, "slow down").Header("Retry-After", "7"), 7 * time.Second},
		"a delay in milliseconds": {
			modeltest.Fail(429, "slow down").Header("Retry-After-Ms", "250"), 250 * time.Millisecond},
		"a delay that is too long to wait": {
			modeltest.Fail(429, "slow down").Header("Retry-After", "60").Header("X-Should-Retry", "true"), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answerOf(t, c.script)
			e, ok := errors.AsType[*fault.Error](a.Err)
			if !ok || e.Kind != fault.Unavailable || e.Detail != "slow down" || e.RetryAfter != c.delay {
				t.Errorf("error %#v, want a retry delay of %v", a.Err, c.delay)
			}
		})
	}
}

// A reader of floating point numbers would wait for 285 years.
func TestInvalidRetryAfterIsIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		attempts, start := 0, time.Now()
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			attempts++
			_ = r.Body.Close()
			return &http.Response{
				StatusCode: http.StatusServiceUnavailable, Request: r, Body: http.NoBody,
				Header: http.Header{"Retry-After": {"9e9"}},
			}, nil
		})}
		m := anthropic.New(anthropic.Options{HTTPClient: client})
		a := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
		if took := time.Since(start); a.Err == nil || attempts != 3 || took > 5*time.Second {
			t.Errorf("%v after %d attempts and %v", a.Err, attempts, took)
		}
	})
}

// No limit but that of the run ends an answer in one piece: a second request would cost the operator a second answer.
func TestAnAnswerThatTakesAnHourIsRequestedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
			attempts++
			_ = r.Body.Close()
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			body := `{"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn"}`
			return &http.Response{
				StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(body)),
			}, nil
		})}
		for name, limit := range map[string]time.Duration{"no limit": 0, "two hours": 2 * time.Hour} {
			ctx, cancel := t.Context(), func() {}
			if limit > 0 {
				ctx, cancel = context.WithTimeout(ctx, limit)
			}
			attempts = 0
			r := modeltest.Ask("hello")
			r.Whole = true
			a := modeltest.Collect(ctx, t, anthropic.New(anthropic.Options{HTTPClient: client}), r)
			cancel()
			if a.Err != nil || a.Text != "hi" || attempts != 1 {
				t.Errorf("%s: %q, %v after %d attempts", name, a.Text, a.Err, attempts)
			}
		}
	})
}

// On a redirect to another host net/http removes Authorization, but not X-Api-Key.
func TestARedirectDoesNotSendTheKeyToAnotherHost(t *testing.T) {
	t.Parallel()
	var redirected atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { redirected.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		answerOf(t, modeltest.Fail(status, "").Raw("moved").Header("Location", other.URL))
	}
	if n := redirected.Load(); n != 0 {
		t.Errorf("the other host received %d requests", n)
	}
}
