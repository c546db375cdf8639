package bedrock_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const rejected = "Amazon Bedrock rejected the AWS credentials: they are wrong or have expired; " +
	`run: eval "$(aws configure export-credentials --format env)", and start again`

// failAs returns a script that fails with an exception of that type.
func failAs(status int, exception, message string) modeltest.Script {
	return modeltest.Fail(status, message).Header("X-Amzn-Errortype", exception)
}

// What all providers do with an HTTP error is in modeltest's suite.
func TestTheCallerSeesASafeTextOfAnHTTPError(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:sts::123456789012:assumed-role/keyway-runs/keyway-runs"
	const denied = "Amazon Bedrock denies access to the model eu.anthropic.claude-sonnet-4-v1:0 in eu-central-1: " +
		"send it one request as a user with permission to subscribe in AWS Marketplace, for example from that " +
		"region's Bedrock console, and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream to this " +
		"server's role (the template's parameters BedrockModel and ModelArns do)"
	const wrongSignature = "The Canonical String should have been 'x-amz-security-token:"
	const noAccess = "You don't have access to the model with the specified model ID."
	const typed = `{"__type":"com.amazon.bedrock#ValidationException","message":"too long"}`
	access, session := credentials.AccessKeyID, credentials.SessionToken
	for _, c := range []struct {
		name   string
		script modeltest.Script
		detail string
	}{
		{"a body that names the type", modeltest.Fail(400, "").Raw(typed), "too long"},
		{"a gateway's form", modeltest.Fail(400, "").Raw(`{"detail":"M"}`), "M"},
		{"a form of OpenAI", modeltest.Fail(400, "").Raw(`{"error":{"message":"M"}}`), "M"},
		{"a proxy's text", modeltest.Fail(502, "").Raw("no upstream"), "no upstream"},
		{"no body", modeltest.Fail(424, "").Raw("{}"), "The model's server answered 424 Failed Dependency"},
		{"a redirect", modeltest.Fail(307, "").Header("Location", "http://127.0.0.1:1/"),
			"The model's server answered 307 Temporary Redirect"},
		{"a text with the session token", modeltest.Fail(400, "no "+session+"!"), "no ***!"},
		{"a text with access keys", modeltest.Fail(400, "no "+access+" or ASIAABCDEFGHIJKLMNOP!"), "no *** or ***!"},
		{"a text with an account", modeltest.Fail(400, "no "+arn+" in 123456789012"), "no *** in ***"},
		{"a model without access", failAs(403, "AccessDeniedException", noAccess), denied},
		{"a role without permission", failAs(403, "AccessDeniedException", "User: "+arn+" is not authorized"), denied},
		{"expired credentials", failAs(403, "ExpiredTokenException", "The security token is expired"), rejected},
		{"unknown credentials", failAs(403, "UnrecognizedClientException", "The token is invalid."), rejected},
		{"a wrong secret key", failAs(403, "InvalidSignatureException", wrongSignature+session+"'"), rejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := answerOf(t, c.script)
			if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("error %v\nwant the public text %q", a.Err, c.detail)
			}
			for _, secret := range []string{modeltest.APIKey, access, session, "123456789012"} {
				if strings.Contains(a.Err.Error(), secret) {
					t.Errorf("the log's text contains %s: %v", secret, a.Err)
				}
			}
		})
	}
}

func TestTheLogHasCodeAndRequestID(t *testing.T) {
	t.Parallel()
	a := answerOf(t, failAs(403, "AccessDeniedException", "no").Header("X-Amzn-Requestid", "r-1"))
	want := `bedrock: 403 Forbidden, code "AccessDeniedException", request id "r-1"`
	if !strings.HasSuffix(a.Err.Error(), want) {
		t.Errorf("%v, want %s at its end", a.Err, want)
	}
}

// TestTheRetryDelayInAWSHeaderIsPassedOn checks the header that only AWS uses.
func TestTheRetryDelayInAWSHeaderIsPassedOn(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Fail(429, "slow down").Header("X-Amz-Retry-After", "1500"))
	e, ok := errors.AsType[*fault.Error](a.Err)
	if !ok || e.Kind != fault.Unavailable || e.RetryAfter != 1500*time.Millisecond {
		t.Errorf("error %#v, want a retry delay of 1.5s", a.Err)
	}
}

func TestOnlyTransientErrorsAreRetried(t *testing.T) {
	t.Parallel()
	throttled := modeltest.Frame("exception", "throttlingException", `{"message":"x"}`)
	for name, script := range map[string]modeltest.Script{
		"a bad request":            modeltest.Fail(400, "bad"),
		"no access":                modeltest.Fail(403, "no"),
		"a stated delay":           modeltest.Fail(429, "later").Header("Retry-After", "60"),
		"a stream that broke":      modeltest.Script{}.Drop(),
		"an exception in a stream": modeltest.Script{}.Raw(throttled),
	} {
		srv := modeltest.NewServer(t, script)
		a := modeltest.Collect(t.Context(), t, bedrock.NewWithoutPauses(optionsFor(t, srv)), modeltest.Ask("hello"))
		if a.Err == nil || len(srv.Requests()) != 1 {
			t.Errorf("%s: error %v after %d requests, want one request", name, a.Err, len(srv.Requests()))
		}
	}
}
