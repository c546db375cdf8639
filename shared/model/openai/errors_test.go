package openai_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

func TestAnHTTPErrorSaysWhatTheCallerMayRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 495) + " " + modeltest.APIKey
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"the vendor's own words", modeltest.Fail(400, " bad tool name "), "bad tool name"},
		{"an error that is a text", modeltest.Fail(404, "").Raw(`{"error":"model \"x\" not found"}`), `model "x" not found`},
		{"a message beside no error", modeltest.Fail(422, "").Raw(`{"object":"error","message":"too long"}`), "too long"},
		{"a proxy's page", modeltest.Fail(502, "").Raw("<html>"), "The model's server answered 502 Bad Gateway"},
		{"an unknown status", modeltest.Fail(599, ""), "The model's server answered 599 "},
		{"words with the key", modeltest.Fail(400, "no "+modeltest.APIKey+"!"), "no ***!"},
		{"words with a masked key", modeltest.Fail(400, "no sk-proj-****abcd."), "no ***."},
		{"the key across the cut at 500", modeltest.Fail(400, long), strings.Repeat("é", 495) + " ***"},
		{"more than 500 characters", modeltest.Fail(400, strings.Repeat("é", 501)), strings.Repeat("é", 500)},
		{"a rejected key", modeltest.Fail(401, "Incorrect API key provided: sk-mo*****6789"),
			"The model's server rejected the API key: check OPENAI_API_KEY or the model's api_key"},
		{"a key without a right", modeltest.Fail(403, "Project has no access to gpt-4o"),
			"The model's server refuses access with this API key (check OPENAI_API_KEY or the model's api_key): Project has no access to gpt-4o"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := hear(t, c.script)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v\nwant the public text %q", a.Err, c.detail)
			}
			if strings.Contains(a.Err.Error(), modeltest.APIKey) {
				t.Errorf("the log's text has the key in it: %v", a.Err)
			}
		})
	}
}

func TestAKeyOfAnyFormIsKeptFromTheCaller(t *testing.T) {
	t.Parallel()
	const key = "hunter2/hunter2"
	srv := modeltest.NewServer(t, modeltest.Fail(400, key+" is no key, is "+key))
	a := modeltest.Listen(t.Context(), t, open(t, srv, openai.Options{APIKey: key}), modeltest.Ask("hello"))
	if want := "*** is no key, is ***"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestAnEndlessErrorPageIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	modeltest.LeavesEndlessPage(t, func(c *http.Client) model.Model { return openai.NewChat(openai.Options{HTTPClient: c}) })
}

func TestAMissingKeyIsNamedAsTheRemedy(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Fail(401, "You didn't provide an API key"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	m := openai.NewChat(openai.Options{ID: "m", BaseURL: srv.URL, HTTPClient: client})
	a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello"))
	if want := "The model's server wants an API key: check OPENAI_API_KEY or the model's api_key"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestTheVendorsHintWhenToRetry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, value string
		want          time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "1.5", 1500 * time.Millisecond},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
		{"Retry-After", "Sun, 01 Nov 2026 10:00:30 GMT", 30 * time.Second},
		{"Retry-After", "Sun, 01 Nov 2026 09:00:00 GMT", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "soon", 0},
	} {
		t.Run(c.header+" "+c.value, func(t *testing.T) {
			t.Parallel()
			a := hear(t, modeltest.Fail(429, "slow down").
				Header("Date", "Sun, 01 Nov 2026 10:00:00 GMT").Header(c.header, c.value))
			e, ok := errors.AsType[*fault.Error](a.Err)
			if !ok || e.Kind != fault.Unavailable || e.RetryAfter != c.want {
				t.Errorf("error %#v, want a hint of %v", a.Err, c.want)
			}
		})
	}
}

func TestARequestIsTriedThreeTimesBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	busy := modeltest.Fail(503, "busy").Header("X-Should-Retry", "true").Header("Retry-After-Ms", "1")
	if a := hear(t, busy, busy, modeltest.Text("at last")); a.Err != nil || a.Text != "at last" {
		t.Errorf("text %q, error %v", a.Text, a.Err)
	}
	if a := hear(t, busy, busy, busy); fault.Detail(a.Err) != "busy" {
		t.Errorf("error %v after three tries", a.Err)
	}
}

func TestNothingIsTriedAgainAfterTheFirstByte(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Script{}.Drop())
	a := modeltest.Listen(t.Context(), t, open(t, srv, openai.Options{}), modeltest.Ask("hello"))
	if a.Err == nil || len(srv.Requests()) != 1 {
		t.Errorf("error %v after %d requests, want one request", a.Err, len(srv.Requests()))
	}
}

func TestALongWaitIsTheCallersToMake(t *testing.T) {
	t.Parallel()
	busy := modeltest.Fail(429, "slow down").Header("X-Should-Retry", "true").Header("Retry-After", "60")
	a := hear(t, busy)
	if e, ok := errors.AsType[*fault.Error](a.Err); !ok || e.RetryAfter != time.Minute {
		t.Errorf("error %#v, want a hint of one minute", a.Err)
	}
}

func TestAVendorWhoCannotBeReached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		kind   fault.Kind
		detail string
	}{
		{"refuses the connection", errors.New("connection refused"), fault.Upstream, "Connection error."},
		{"does not answer in time", timeout{}, fault.Upstream, "Request timed out."},
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
				m := openai.NewChat(openai.Options{ID: "m", BaseURL: "http://vendor.test/v1", HTTPClient: client})
				a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello"))
				if fault.KindOf(a.Err) != c.kind || fault.Detail(a.Err) != c.detail || tries != 3 {
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

func TestARequestThatCannotBeMadeIsNotTheVendorsFault(t *testing.T) {
	t.Parallel()
	r := modeltest.Ask("hello")
	r.Tools = append(r.Tools, broken)
	a := modeltest.Listen(t.Context(), t, openai.NewChat(openai.Options{HTTPClient: canned("", nil)}), r)
	if fault.KindOf(a.Err) != fault.Internal || a.Err == nil {
		t.Errorf("error %v, want an internal one", a.Err)
	}
}

func TestAnswersThatAreNoStreamPointAtBaseURL(t *testing.T) {
	t.Parallel()
	a := hear(t, modeltest.Script{}.Raw("<html>welcome</html>\n").Header("Content-Type", "text/html").Truncate())
	if want := "The model's server did not answer with an event stream: check base_url"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

var broken = model.ToolSpec{Name: "f", Parameters: []byte("{")}
