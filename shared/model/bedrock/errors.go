package bedrock

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError returns the error for a request that got no answer. The cases are in the
// order from the most specific: an error of this package's protocol; an exception that
// the API named; an HTTP error without one, such as a proxy's page; a failure on the
// network; a response that is JSON but no answer. In all other cases the request was never
// sent (because a tool's schema isn't JSON, for example), so the cause is not the provider
// and the error is an internal one.
func (o Options) callError(err error) error {
	if own, ok := errors.AsType[*fault.Error](err); ok {
		return own
	}
	status, header := response(err)
	body, _ := errors.AsType[reportedError](err) // zero if there is none
	if exception, ok := errors.AsType[smithy.APIError](err); ok {
		return o.apiError(exception, status, header, body.report)
	}
	if status >= http.StatusMultipleChoices {
		return o.apiError(&smithy.GenericAPIError{}, status, header, body.report)
	}
	if sent, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return readError(lostError{sent.Err})
	}
	if status > 0 {
		return readError(err)
	}
	return fmt.Errorf("bedrock: %w", err)
}

// readError returns the error for a provider that can't be reached, a connection that
// broke, or bytes that can't be decoded.
func readError(err error) error {
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooLong):
		return fault.Public(fault.Upstream, upstream.TooLong, err)
	case isNet && timeout.Timeout() || errors.As(err, new(lostError)):
		return upstream.ConnectionError(err)
	}
	return fault.Public(fault.Upstream, upstream.NoAnswer, err)
}

// response returns status and header of the HTTP response to which err belongs; 0 and
// nil if there is none.
func response(err error) (status int, header http.Header) {
	e, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if ok && e.Response != nil && e.Response.Response != nil {
		return e.Response.StatusCode, e.Response.Header
	}
	return 0, nil
}

// badCredentials holds the codes of requests whose signature AWS did not accept
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html). Some
// codes exist with and without the suffix "Exception".
var badCredentials = map[string]bool{
	"UnrecognizedClientException": true, "InvalidClientTokenId": true,
	"InvalidSignatureException": true, "SignatureDoesNotMatch": true, "IncompleteSignatureException": true,
	"MissingAuthenticationTokenException": true, "MissingAuthenticationToken": true,
	"ExpiredTokenException": true, "ExpiredToken": true, "RequestExpired": true,
}

// throttled holds the codes of requests that may be repeated later.
var throttled = map[string]bool{
	"ThrottlingException": true, "TooManyRequestsException": true,
	"ModelNotReadyException": true, "Throttling": true,
}

// unknown is the SDK's replacement for an error code or message that is missing.
const unknown = "UnknownError"

// apiError returns the error for an exception of the API. status is 0 if the exception
// arrived within a stream. report is what the body of an HTTP error has where the exception
// has no message.
//
// The log gets the code and the request ID only, not the message: the message of
// InvalidSignatureException repeats the headers of the request, the session token among
// them. For bad credentials and denied access the caller sees a remedy instead of AWS's
// message, because the message names the account and the role.
func (o Options) apiError(
	exception smithy.APIError, status int, header http.Header, report upstream.Report,
) error {
	code, message := exception.ErrorCode(), exception.ErrorMessage()
	if message == code || message == unknown {
		message = ""
	}
	about := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	if status == 0 {
		about = code
	}
	if message == "" && status >= http.StatusBadRequest && !strings.EqualFold(report.Text, http.StatusText(status)) {
		message = report.Text
	}
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(o.safeText(message), "The model's server answered "+about),
		Cause:  fmt.Errorf("bedrock: %s, code %q, request id %q", about, code, header.Get("X-Amzn-Requestid")),
	}
	switch {
	case throttled[code] || report.Busy || status == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = fault.Unavailable, upstream.RetryAfter(header)
	case badCredentials[code] || status == http.StatusUnauthorized:
		e.Detail = "Amazon Bedrock rejected the AWS credentials: they are wrong or have expired; " +
			awsenv.Remedy + ", and start again"
	case code == "AccessDeniedException" || status == http.StatusForbidden:
		e.Detail = fmt.Sprintf("Amazon Bedrock denies access to the model %s in %s: %s",
			o.safeText(o.ID), o.Region, accessRemedy)
	}
	return e
}

// accessRemedy covers both reasons for AccessDeniedException, which its message doesn't
// distinguish reliably. A model that AWS Marketplace sells must be invoked once by an
// identity with permission to subscribe. Without that, calls can succeed for up to 15
// minutes and then fail
// (https://docs.aws.amazon.com/bedrock/latest/userguide/model-access.html); and the
// role of this server needs two IAM permissions, which the SAM template grants by its
// parameters.
const accessRemedy = "send it one request as a user with permission to subscribe in AWS Marketplace, for example from" +
	" that region's Bedrock console, and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream to this" +
	" server's role (the template's parameters BedrockModel and ModelArns do)"

// secretPattern matches what AWS's messages may reveal of an account: ARNs, access keys
// and account numbers.
var secretPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\barn:aws[^\s"',;]*|\b(AKIA|ASIA)[A-Z0-9]{12,}|\b[0-9]{12}\b`)
})

// safeText returns one of AWS's texts without credentials and without what identifies
// the account.
func (o Options) safeText(text string) string {
	c := o.Credentials
	return upstream.SafeText(text, secretPattern(), c.SessionToken, c.SecretAccessKey, c.AccessKeyID)
}
