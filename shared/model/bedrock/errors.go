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

// callError classifies why a request got no answer.
func (o Options) callError(err error) error {
	if own, ok := errors.AsType[*fault.Error](err); ok { // protocol's
		return own
	}
	status, header := response(err)
	if said, ok := errors.AsType[smithy.APIError](err); ok {
		return o.vendorError(said, status, header)
	}
	if status >= http.StatusMultipleChoices { // a proxy's page
		return o.vendorError(&smithy.GenericAPIError{}, status, header)
	}
	if sent, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return readError(lostError{sent.Err})
	}
	if status > 0 { // JSON, but no answer
		return readError(err)
	}
	return fmt.Errorf("bedrock: %w", err) // never left this process: not the vendor's fault
}

// readError is for a vendor who can't be reached or is lost, or whose bytes make no
// sense.
func readError(err error) error {
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooLong):
		return fault.Public(fault.Upstream, upstream.TooLong, err)
	case isNet && timeout.Timeout() || errors.As(err, new(lostError)):
		return upstream.Lost(err)
	}
	return fault.Public(fault.Upstream, upstream.NoAnswer, err)
}

// response is the head of the HTTP response that err is about; 0 for none.
func response(err error) (status int, header http.Header) {
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && e.Response != nil && e.Response.Response != nil {
		return e.Response.StatusCode, e.Response.Header
	}
	return 0, nil
}

// badCredentials are the codes of requests that AWS couldn't assign to anybody.
var badCredentials = map[string]bool{
	"UnrecognizedClientException": true, "InvalidClientTokenId": true, "InvalidSignatureException": true, "SignatureDoesNotMatch": true,
	"IncompleteSignatureException": true, "MissingAuthenticationTokenException": true, "MissingAuthenticationToken": true,
	"ExpiredTokenException": true, "ExpiredToken": true, "RequestExpired": true,
}

// throttled are the codes of requests that may come again later.
var throttled = map[string]bool{
	"ThrottlingException": true, "TooManyRequestsException": true, "ModelNotReadyException": true, "Throttling": true,
}

const unknown = "UnknownError"

// retryMilliseconds is AWS's own header for when to ask again.
const retryMilliseconds = "X-Amz-Retry-After"

// vendorError turns an exception into a fault with the vendor's own words. status is
// 0 for one within a stream. The log gets code and request id only: the words of
// some exceptions repeat the request's headers, credentials among them.
func (o Options) vendorError(said smithy.APIError, status int, header http.Header) error {
	code, words := said.ErrorCode(), said.ErrorMessage()
	if words == code || words == unknown { // the SDK's stand-in for words that are missing
		words = ""
	}
	about := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	if status == 0 {
		about = code
	}
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(o.public(words), "The model's server answered "+about),
		Cause:  fmt.Errorf("bedrock: %s, code %q, request id %q", about, code, header.Get("X-Amzn-Requestid")),
	}
	switch {
	case throttled[code] || status == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = fault.Unavailable, upstream.RetryAfter(header, retryMilliseconds)
	case badCredentials[code] || status == http.StatusUnauthorized:
		e.Detail = "Amazon Bedrock rejected the AWS credentials: they are wrong or have expired; " + awsenv.Remedy + ", and start again"
	case code == "AccessDeniedException" || status == http.StatusForbidden:
		e.Detail = fmt.Sprintf("Amazon Bedrock denies access to the model %s in %s: ask it once in that region's Bedrock console, as somebody who may subscribe in AWS Marketplace,"+
			" and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream to this server's role, as the template's parameters BedrockModel and ModelArns do", o.public(o.ID), o.Region)
	}
	return e
}

// secretive finds what AWS's words may hold of an account: ARNs, access keys and
// account numbers.
var secretive = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\barn:aws[^\s"',;]*|\b(AKIA|ASIA)[A-Z0-9]{12,}|\b[0-9]{12}\b`)
})

// public makes a vendor's text fit for the caller.
func (o Options) public(text string) string {
	return upstream.Words(text, secretive(), o.Credentials.SessionToken, o.Credentials.SecretAccessKey, o.Credentials.AccessKeyID)
}
