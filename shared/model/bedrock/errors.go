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
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The texts of failures that come without one from the vendor. The first two are
// those of model/openai and so of AgentOS 3.1.10.
const (
	textConnection = "Connection error."
	textTimeout    = "Request timed out."
	textCutShort   = "The model's answer ended before it was complete"
	textNoAnswer   = "The model's server sent something that is not an answer"
	textNoStream   = "The model's server did not answer with an event stream: check base_url"
	textTooLong    = "The model's server sent an event of more than 10 MB"
)

// NoCredentials is what to do where there are none, or those there are have expired.
const NoCredentials = `run: eval "$(aws configure export-credentials --format env)"`

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
	text := textNoAnswer
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooLong):
		text = textTooLong
	case isNet && timeout.Timeout():
		text = textTimeout
	case errors.As(err, new(lostError)):
		text = textConnection
	}
	return fault.Public(fault.Upstream, text, err)
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
		e.Kind, e.RetryAfter = fault.Unavailable, retryAfter(header)
	case badCredentials[code] || status == http.StatusUnauthorized:
		e.Detail = "Amazon Bedrock rejected the AWS credentials: they are wrong or have expired; " + NoCredentials + ", and start again"
	case code == "AccessDeniedException" || status == http.StatusForbidden:
		e.Detail = fmt.Sprintf("Amazon Bedrock denies access to the model %s in %s: grant access to it in that region's Bedrock console (Model access),"+
			" and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream to this server's role", o.public(o.ID), o.Region)
	}
	return e
}

// secretive finds what AWS's words may hold of an account: ARNs, access keys and
// account numbers.
var secretive = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\barn:aws[^\s"',;]*|\b(AKIA|ASIA)[A-Z0-9]{12,}|\b[0-9]{12}\b`)
})

// public makes a vendor's text fit for the caller: without what is secretive, and at
// most 500 characters, cut last so that no piece of a secret survives the cut.
func (o Options) public(text string) string {
	for _, secret := range []string{o.Credentials.SessionToken, o.Credentials.SecretAccessKey, o.Credentials.AccessKeyID} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	text = strings.TrimSpace(secretive().ReplaceAllString(text, "***"))
	if r := []rune(text); len(r) > 500 {
		text = string(r[:500])
	}
	return text
}

// retryAfter reads X-Amz-Retry-After, milliseconds, or Retry-After, seconds or a
// date (RFC 9110, section 10.2.3), the latter against the response's own Date so
// that clocks need not agree. Unreadable or past: 0.
func retryAfter(h http.Header) time.Duration {
	wait, err := time.ParseDuration(h.Get("X-Amz-Retry-After") + "ms")
	if err != nil {
		wait, err = time.ParseDuration(h.Get("Retry-After") + "s")
	}
	if err != nil {
		at, _ := http.ParseTime(h.Get("Retry-After"))
		now, _ := http.ParseTime(h.Get("Date"))
		wait = at.Sub(now)
	}
	return max(wait, 0)
}
