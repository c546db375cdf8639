package bedrock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// exception is an error that the API named, by the status of a response or within a stream.
type exception struct{ code, message string }

func (e exception) Error() string { return "bedrock: exception " + e.code }

// ErrorCode returns the name, for the SDK's retryer.
func (e exception) ErrorCode() string { return e.code }

// httpError is a response whose status is no success. code and message are empty if its
// body isn't AWS's.
type httpError struct {
	exception

	status int
	header http.Header
	report upstream.Report // what the body has in the form of another server, such as a gateway or proxy
}

// HTTPStatusCode returns the status, for the SDK's retryer.
func (e *httpError) HTTPStatusCode() int { return e.status }

// maxErrorBody is how much of an HTTP error's body is read.
const maxErrorBody = 64 << 10

// readHTTPError reads the body of an HTTP error. If it breaks off, the status is still known.
func readHTTPError(resp *http.Response) *httpError {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := &httpError{status: resp.StatusCode, header: resp.Header, report: upstream.ReportIn(data)}
	if read, err := readException(resp.Header.Get("X-Amzn-Errortype"), data); err == nil {
		e.exception = read
	}
	return e
}

// readException reads an exception in the form of AWS's protocol restJson1
// (https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#operation-error-serialization).
// code is its name if that is not in the body.
func readException(code string, body []byte) (exception, error) {
	var in struct {
		Type    string `json:"__type"`
		Code    any    `json:"code"` // a text, or the number of the status
		Message string `json:"message"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
		return exception{}, err
	}
	other, _ := in.Code.(string)
	code, _, _ = strings.Cut(cmp.Or(code, in.Type, other, unknown), ":")
	if _, name, ok := strings.Cut(code, "#"); ok {
		code = name
	}
	return exception{code, in.Message}, nil
}

// sendError is the error of a request that got no response.
type sendError struct{ cause error }

func (e sendError) Error() string { return "bedrock: no response: " + e.cause.Error() }
func (e sendError) Unwrap() error { return e.cause }

// ConnectionError reports to the SDK's retryer that the request may be repeated.
func (e sendError) ConnectionError() bool { return true }

// callError returns the error for a request that got no answer. If it was never sent (because
// the address is invalid, for example), the cause is not the provider, and the error is an
// internal one.
func (o Options) callError(err error) error {
	if e, ok := errors.AsType[*httpError](err); ok {
		return o.apiError(e.exception, e.status, e.header, e.report)
	}
	if sent, ok := errors.AsType[sendError](err); ok {
		return readError(lostError(sent))
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
	modelNotReady: true, "Throttling": true,
}

// modelNotReady is the code for a model that is being loaded, which takes longer than the pauses between attempts.
const modelNotReady = "ModelNotReadyException"

// unknown is the code of an exception without a name.
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
	exception exception, status int, header http.Header, report upstream.Report,
) error {
	code, message := exception.code, exception.message
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
