package modeltest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// failureRules check errors: their kind, and the text that callers see.
var failureRules = []rule{
	{"an answer cut short is an error", cutShort},
	{"an invalid event is an error", malformed},
	{"a response that is no stream points at base_url", noStream},
	{"an HTTP error has its kind and its public text", httpErrors},
	{"the public text of an HTTP error has no secrets", errorTexts},
	{"an endless error page isn't read to its end", endlessErrorPage},
	{"the retry delay of a busy provider is passed on", retryDelays},
	{"a provider that can't be reached is tried three times", unreachable},
}

// cutShort ends answers without an end mark: cleanly, and by a lost connection, within
// text, within a call and before both.
func cutShort(t *testing.T, p Provider) {
	a := p.collect(t, Text("hel", "lo").Truncate())
	a.mustFail(t, fault.Upstream, cutShortText)
	if a.Text != "hello" {
		t.Errorf("text %q before the cut, want %q", a.Text, "hello")
	}
	p.collect(t, Script{}.Truncate()).mustFail(t, fault.Upstream, cutShortText)
	p.collect(t, ToolCall("f", `{"half":`).Truncate()).mustFail(t, fault.Upstream, cutShortText)
	p.collect(t, Text("hel", "lo").Drop()).mustFail(t, fault.Upstream, connectionText)
	p.collect(t, ToolCall("f", `{"half":`).Drop()).mustFail(t, fault.Upstream, connectionText)
}

// malformed sends bytes that are no event in any of the APIs.
func malformed(t *testing.T, p Provider) {
	a := p.collect(t, Text("ok").Raw("data: {\"id\": nonsense}\n\n").Text("never"))
	a.mustFail(t, fault.Upstream, noAnswerText)
	if a.Text != "ok" {
		t.Errorf("text %q, want %q", a.Text, "ok")
	}
}

// noStream answers with the page of a web server, as a wrong base_url would get.
func noStream(t *testing.T, p Provider) {
	page := Script{}.Raw("<html>welcome to this server</html>\n").Header("Content-Type", "text/html").Truncate()
	p.collect(t, page).mustFail(t, fault.Upstream, noStreamText)
}

// httpErrors checks the kinds of HTTP errors, and that the text for a rejected
// credential names what to check.
func httpErrors(t *testing.T, p Provider) {
	p.collect(t, Fail(http.StatusInternalServerError, "stub failure 500")).
		mustFail(t, fault.Upstream, "stub failure 500")
	p.collect(t, Fail(http.StatusNotFound, "The model `gpt-0` does not exist")).
		mustFail(t, fault.Upstream, "The model `gpt-0` does not exist")
	p.collect(t, Fail(http.StatusTooManyRequests, "slow down")).
		mustFail(t, fault.Unavailable, "slow down")

	denied := p.collect(t, Fail(http.StatusUnauthorized, "Incorrect API key provided: "+APIKey))
	denied.mustFail(t, fault.Upstream, fault.Detail(denied.Err))
	if text := fault.Detail(denied.Err); !namesCredential(text) || strings.Contains(text, "sk-") {
		t.Errorf("public text %q, want one that names the API key or the AWS credentials and doesn't show them", text)
	}
}

func namesCredential(text string) bool {
	return strings.Contains(text, "API key") || strings.Contains(text, "AWS credentials")
}

// errorTexts checks that the provider's text is shown, trimmed, without the key and cut
// at 500 characters, for both forms of answers.
func errorTexts(t *testing.T, p Provider) {
	e := strings.Repeat("é", 501)
	for name, c := range map[string]struct {
		script Script
		detail string
	}{
		"the provider's text":       {Fail(400, " bad tool name "), "bad tool name"},
		"a proxy's page":            {Fail(502, "").Raw("<html>"), "The model's server answered 502 Bad Gateway"},
		"an unknown status":         {Fail(599, ""), "The model's server answered 599"},
		"a text with the key":       {Fail(400, "no "+APIKey+"!"), "no ***!"},
		"the key across the cut":    {Fail(400, e[:2*495]+" "+APIKey), e[:2*495] + " ***"},
		"more than 500 characters":  {Fail(400, e), e[:2*500]},
		"a message beside no error": {Fail(422, "").Raw(`{"message":"no such route"}`), "no such route"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, whole := range []bool{false, true} {
				r := Ask("hello")
				r.Whole = whole
				a := p.collectRequest(t, c.script, r)
				a.mustFail(t, fault.Upstream, fault.Detail(a.Err))
				if got := strings.TrimRight(fault.Detail(a.Err), " "); got != c.detail {
					t.Errorf("public text %q, want %q", got, c.detail)
				}
			}
		})
	}
}

// retryDelays checks Retry-After, with seconds and with dates relative to Date, and the
// headers of gateways. The header with milliseconds differs between providers and is in
// their own tests.
func retryDelays(t *testing.T, p Provider) {
	for value, want := range map[string]time.Duration{
		"7":                             7 * time.Second,
		"1.5":                           1500 * time.Millisecond,
		"60":                            time.Minute,
		"Sun, 01 Nov 2026 10:00:30 GMT": 30 * time.Second,
		"Sun, 01 Nov 2026 09:00:00 GMT": 0,
		"-3":                            0,
		"9e9":                           0,
		"soon":                          0,
	} {
		for _, header := range []string{"Retry-After", "llm_provider-retry-after"} {
			t.Run(header+" "+value, func(t *testing.T) {
				t.Parallel()
				busy := Fail(http.StatusTooManyRequests, "slow down").Header(header, value)
				a := p.collect(t, busy.Header("Date", "Sun, 01 Nov 2026 10:00:00 GMT"))
				e, ok := errors.AsType[*fault.Error](a.Err)
				if !ok || e.Kind != fault.Unavailable || e.RetryAfter != want {
					t.Errorf("error %#v, want a retry delay of %v", a.Err, want)
				}
			})
		}
	}
	far := Fail(http.StatusTooManyRequests, "slow down").Header("X-Should-Retry", "true")
	if a := p.collect(t, far.Header("llm_provider-retry-after", "60")); fault.KindOf(a.Err) != fault.Unavailable {
		t.Errorf("error %v, and the request was repeated, want one request", a.Err)
	}
}

// unreachable runs in a synctest bubble, in which the pauses between the attempts
// take no real time.
func unreachable(t *testing.T, p Provider) {
	for name, c := range map[string]struct {
		err    error
		detail string
	}{
		"refused":   {errors.New("connection refused"), connectionText},
		"timed out": {timeout{}, timeoutText},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				client := &http.Client{Transport: Transport(func(r *http.Request) (*http.Response, error) {
					attempts++
					_ = r.Body.Close()
					return nil, c.err
				})}
				a := Collect(t.Context(), t, p.Open("http://provider.test/v1", client), Ask("hello"))
				a.mustFail(t, fault.Upstream, c.detail)
				if attempts != 3 {
					t.Errorf("%d attempts, want 3", attempts)
				}
			})
		})
	}
}

// timeout is a net.Error that is a timeout.
type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// Transport is a function that serves as the transport of an http.Client.
type Transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// endlessErrorPage answers 404 with 1 MB of spaces, of which most must stay unread.
func endlessErrorPage(t *testing.T, p Provider) {
	page := &spaces{left: 1 << 20}
	client := &http.Client{Transport: Transport(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		resp := &http.Response{StatusCode: http.StatusNotFound, Request: r, Header: http.Header{}}
		resp.Body = io.NopCloser(page)
		return resp, nil
	})}
	a := Collect(t.Context(), t, p.OpenOnce("http://provider.test/v1", client), Ask("hello"))
	a.mustFail(t, fault.Upstream, "The model's server answered 404 Not Found")
	if page.left < 900<<10 {
		t.Errorf("only %d bytes of 1 MB are unread", page.left)
	}
}

// spaces is a page of left spaces.
type spaces struct{ left int }

func (p *spaces) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	p.left -= n
	return n, nil
}
