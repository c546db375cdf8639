package openai_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// What all providers do with an HTTP error is in modeltest's suite.
func TestTheCallerSeesASafeTextOfAnHTTPError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"an error as a string", modeltest.Fail(404, "").Raw(`{"error":"model \"x\" not found"}`), `model "x" not found`},
		{"a text with a masked key", modeltest.Fail(400, "no sk-proj-****abcd."), "no ***."},
		{"a rejected key", modeltest.Fail(401, "Incorrect API key provided: sk-mo*****6789"),
			"The model's server rejected the API key: check OPENAI_API_KEY or the model's api_key"},
		{"a key without permission", modeltest.Fail(403, "Project has no access to gpt-4o"),
			"The model's server denies access with this API key (check OPENAI_API_KEY or the model's api_key): " +
				"Project has no access to gpt-4o"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := answerOf(t, c.script)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v\nwant the public text %q", a.Err, c.detail)
			}
		})
	}
}

func TestAKeyOfAnyFormIsKeptFromTheCaller(t *testing.T) {
	t.Parallel()
	const key = "hunter2/hunter2"
	m := open(t, modeltest.NewServer(t, modeltest.Fail(400, key+" is no key, is "+key)), openai.Options{APIKey: key})
	a := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
	if want := "*** is no key, is ***"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestTheErrorForAMissingKeyNamesTheVariable(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(401, "You didn't provide an API key"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	m := openai.NewChat(openai.Options{ID: "m", BaseURL: srv.URL, HTTPClient: client})
	a := modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
	want := "The model's server requires an API key: check OPENAI_API_KEY or the model's api_key"
	if fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestTheRetryDelayIsPassedOn(t *testing.T) {
	t.Parallel()
	busy := modeltest.Fail(429, "slow down")
	for name, c := range map[string]struct {
		script modeltest.Script
		want   time.Duration
	}{
		"in milliseconds":  {busy.Header("Retry-After-Ms", "250"), 250 * time.Millisecond},
		"too long to wait": {busy.Header("X-Should-Retry", "true").Header("Retry-After", "60"), time.Minute},
	} {
		a := answerOf(t, c.script)
		e, ok := errors.AsType[*fault.Error](a.Err)
		if !ok || e.Kind != fault.Unavailable || e.RetryAfter != c.want {
			t.Errorf("%s: error %#v, want a retry delay of %v", name, a.Err, c.want)
		}
	}
}
