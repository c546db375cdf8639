package bedrock_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const rejected = `Amazon Bedrock rejected the AWS credentials: they are wrong or have expired; run: eval "$(aws configure export-credentials --format env)", and start again`

func failAs(status int, exception, message string) modeltest.Script {
	return modeltest.Fail(status, message).Header("X-Amzn-Errortype", exception)
}

func TestAnHTTPErrorSaysWhatTheCallerMayRead(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:sts::123456789012:assumed-role/keyway-runs/keyway-runs"
	const denied = "Amazon Bedrock denies access to the model eu.anthropic.claude-sonnet-4-v1:0 in eu-central-1: ask it once in that region's Bedrock" +
		" console, as somebody who may subscribe in AWS Marketplace, and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream to this server's role, as the template's parameters BedrockModel and ModelArns do"
	long := strings.Repeat("é", 495) + " " + modeltest.APIKey
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"the vendor's own words", modeltest.Fail(400, " The provided model identifier is invalid. "), "The provided model identifier is invalid."},
		{"a body that names the type", modeltest.Fail(400, "").Raw(`{"__type":"com.amazon.bedrock#ValidationException","message":"too long"}`), "too long"},
		{"a proxy's page", modeltest.Fail(502, "").Raw("<html>"), "The model's server answered 502 Bad Gateway"},
		{"no body", modeltest.Fail(424, "").Raw("{}"), "The model's server answered 424 Failed Dependency"},
		{"an unknown status", modeltest.Fail(599, ""), "The model's server answered 599"},
		{"a redirect", modeltest.Fail(307, "").Header("Location", "http://127.0.0.1:1/"), "The model's server answered 307 Temporary Redirect"},
		{"words with the secret key", modeltest.Fail(400, "no "+modeltest.APIKey+"!"), "no ***!"},
		{"words with the session token", modeltest.Fail(400, "no "+credentials.SessionToken+"!"), "no ***!"},
		{"words with the access key", modeltest.Fail(400, "no "+credentials.AccessKeyID+" or ASIAABCDEFGHIJKLMNOP!"), "no *** or ***!"},
		{"words with an account", modeltest.Fail(400, "no "+arn+" in 123456789012"), "no *** in ***"},
		{"the key across the cut at 500", modeltest.Fail(400, long), strings.Repeat("é", 495) + " ***"},
		{"more than 500 characters", modeltest.Fail(400, strings.Repeat("é", 501)), strings.Repeat("é", 500)},
		{"a model without access", failAs(403, "AccessDeniedException", "You don't have access to the model with the specified model ID."), denied},
		{"a role without the right", failAs(403, "AccessDeniedException", "User: "+arn+" is not authorized to perform: bedrock:InvokeModel"), denied},
		{"expired credentials", failAs(403, "ExpiredTokenException", "The security token included in the request is expired"), rejected},
		{"unknown credentials", failAs(403, "UnrecognizedClientException", "The security token included in the request is invalid."), rejected},
		{"a wrong secret key", failAs(403, "InvalidSignatureException", "The Canonical String should have been 'x-amz-security-token:"+credentials.SessionToken+"'"), rejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := hear(t, c.script)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v\nwant the public text %q", a.Err, c.detail)
			}
			for _, secret := range []string{modeltest.APIKey, credentials.AccessKeyID, credentials.SessionToken, "123456789012"} {
				if strings.Contains(a.Err.Error(), secret) {
					t.Errorf("the log's text has %s in it: %v", secret, a.Err)
				}
			}
		})
	}
}

func TestTheLogLearnsCodeAndRequest(t *testing.T) {
	t.Parallel()
	a := hear(t, failAs(403, "AccessDeniedException", "no").Header("X-Amzn-Requestid", "r-1"))
	if want := `bedrock: 403 Forbidden, code "AccessDeniedException", request id "r-1"`; !strings.HasSuffix(a.Err.Error(), want) {
		t.Errorf("%v, want %s at its end", a.Err, want)
	}
}

func TestTheVendorsHintWhenToRetry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, value string
		want          time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"X-Amz-Retry-After", "1500", 1500 * time.Millisecond},
		{"Retry-After", "Sun, 01 Nov 2026 10:00:30 GMT", 30 * time.Second},
		{"Retry-After", "Sun, 01 Nov 2026 09:00:00 GMT", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "soon", 0},
	} {
		t.Run(c.header+" "+c.value, func(t *testing.T) {
			t.Parallel()
			a := hear(t, modeltest.Fail(429, "slow down").Header("Date", "Sun, 01 Nov 2026 10:00:00 GMT").Header(c.header, c.value))
			e, ok := errors.AsType[*fault.Error](a.Err)
			if !ok || e.Kind != fault.Unavailable || e.RetryAfter != c.want {
				t.Errorf("error %#v, want a hint of %v", a.Err, c.want)
			}
		})
	}
}

func TestARequestIsTriedThreeTimesBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	for _, busy := range []modeltest.Script{modeltest.Fail(503, "busy"), modeltest.Fail(429, "busy")} {
		m := bedrock.Hasty(on(t, modeltest.NewServer(t, busy, busy, modeltest.Text("at last"))))
		if a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello")); a.Err != nil || a.Text != "at last" {
			t.Errorf("text %q, error %v", a.Text, a.Err)
		}
		m = bedrock.Hasty(on(t, modeltest.NewServer(t, busy, busy, busy)))
		if a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello")); fault.Detail(a.Err) != "busy" {
			t.Errorf("error %v after three tries", a.Err)
		}
	}
}

func TestWhatIsWrongIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]modeltest.Script{
		"a bad request":           modeltest.Fail(400, "bad"),
		"no access":               modeltest.Fail(403, "no"),
		"a wait that is named":    modeltest.Fail(429, "later").Header("Retry-After", "60"),
		"a stream that broke":     modeltest.Script{}.Drop(),
		"an exception within one": modeltest.Script{}.Raw(modeltest.Frame("exception", "throttlingException", `{"message":"x"}`)),
	} {
		srv := modeltest.NewServer(t, script)
		a := modeltest.Listen(t.Context(), t, bedrock.Hasty(on(t, srv)), modeltest.Ask("hello"))
		if a.Err == nil || len(srv.Requests()) != 1 {
			t.Errorf("%s: error %v after %d requests, want one request", name, a.Err, len(srv.Requests()))
		}
	}
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
			tries := 0
			client := &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
				tries++
				_ = r.Body.Close()
				return nil, c.err
			})}
			m := bedrock.Hasty(bedrock.Options{ID: "m", Region: "eu-central-1", HTTPClient: client, Credentials: credentials})
			a := modeltest.Listen(t.Context(), t, m, modeltest.Ask("hello"))
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail || tries != 3 {
				t.Errorf("error %v after %d tries, want %q after 3", a.Err, tries, c.detail)
			}
		})
	}
}

type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func TestAnEndlessErrorPageIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	modeltest.LeavesEndlessPage(t, func(c *http.Client) model.Model {
		return bedrock.Once(bedrock.Options{ID: "m", Region: "eu-central-1", HTTPClient: c, Credentials: credentials})
	})
}
