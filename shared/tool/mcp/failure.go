package mcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The codes of JSON-RPC's errors that this package distinguishes. unsupportedVersion is
// MCP's: the server does not speak the version of the request.
const (
	invalidRequest     = -32600
	methodNotFound     = -32601
	invalidParams      = -32602
	serverError        = -32000
	notFound           = -32001
	unsupportedVersion = -32022
)

// rpcError is an error that the server answered with.
type rpcError struct {
	Code    int64  `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *rpcError) Error() string { return e.Message }

// newRPCError decodes the member error of a message. What isn't an error in the form of
// JSON-RPC is its own message.
func newRPCError(text json.RawMessage) *rpcError {
	e := &rpcError{}
	if json.Unmarshal(text, e) != nil || e.Message == "" {
		e.Message = string(text)
	}
	return e
}

// lostError is the error of a request that the server refused because it doesn't know
// the session. It has executed nothing.
type lostError struct{ cause error }

// Error implements error.
func (e *lostError) Error() string { return "the session is unknown: " + e.cause.Error() }

// httpError is the error of a request that got no answer in MCP's form. status is 0 if
// there was no response.
type httpError struct {
	status int
	err    error // a fault.Error
}

// Error implements error.
func (e *httpError) Error() string { return e.err.Error() }

// Unwrap returns the error for the caller.
func (e *httpError) Unwrap() error { return e.err }

// beforeMCP reports whether the request didn't reach MCP: another request of another
// version would fail in the same way.
func (e *httpError) beforeMCP() bool {
	return e.status < http.StatusBadRequest || e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
}

// refusal returns the error for a response with a status of 300 or more. It reads the
// body.
func (c *session) refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read has to do
	var answer message
	isRPC := json.Unmarshal(body, &answer) == nil && len(answer.Error) > 0 && answer.Error[0] == '{'
	e := newRPCError(answer.Error)
	isRPC = isRPC && e.Code != 0
	cause := c.s.describe(resp, body)
	if c.lost(resp, body, e, isRPC) {
		return &lostError{cause}
	}
	status := resp.StatusCode
	if isRPC && (status == http.StatusBadRequest || status == http.StatusNotFound) {
		return e
	}
	if status == http.StatusInternalServerError && c.id != "" {
		// Some servers answer so to a session that they don't know. The next request makes a new one.
		c.s.forget(c)
	}
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	detail, kind := "The tool server answered "+text, fault.Upstream
	switch {
	case status < http.StatusBadRequest:
		detail = fmt.Sprintf("The tool server's address redirects (%s); write the address of MCP itself in mcp.url", text)
	case status == http.StatusUnauthorized:
		detail = "The tool server refused: " + text + "; check the token in mcp.headers"
	case status == http.StatusForbidden:
		detail = "The tool server refused: " + text + "; check what the token in mcp.headers is allowed to do"
	case status == http.StatusNotFound:
		detail += "; check the path in mcp.url"
	case status == http.StatusMethodNotAllowed:
		detail += "; Keyway needs Streamable HTTP, whose address often ends in /mcp, not the older SSE transport (/sse)"
	case status == http.StatusTooManyRequests:
		detail, kind = detail+"; try again later", fault.Unavailable
	case status >= http.StatusInternalServerError:
		detail, kind = detail+"; try again later, and look at its log", fault.Unavailable
	}
	if isRPC {
		detail += ": " + c.s.safe(e.Message, maxMessage)
	}
	return &httpError{status, fault.Public(kind, detail, cause)}
}

// lost reports whether a response states that the server doesn't know the session, or
// not the version of the protocol that was agreed. A server answers that after a restart, after an
// idle time, and when another version of the server was started.
//
// The specification wants 404. Servers send it with JSON-RPC of several codes, plain
// text, a stack trace, or nothing, and some send 400 with a sentence. A 404 that names
// another error is none of these: a stateless server answers so to an unknown method.
func (c *session) lost(resp *http.Response, body []byte, e *rpcError, isRPC bool) bool {
	text := strings.ToLower(string(body))
	if isRPC {
		text = strings.ToLower(e.Message)
	}
	switch {
	case isRPC && e.Code == unsupportedVersion:
		return c.version != ""
	case resp.StatusCode == http.StatusNotFound && c.id != "":
		return !isRPC || e.Code != methodNotFound && e.Code != invalidParams || namesSession(text)
	case resp.StatusCode == http.StatusBadRequest && c.version != "":
		codes := []int64{invalidRequest, serverError, notFound}
		return (isRPC && slices.Contains(codes, e.Code) || !isRPC && mediaType(resp) != "text/html") && namesSession(text)
	}
	return false
}

// namesSession reports whether a text, in lower case, says that a session is missing or
// unknown.
func namesSession(text string) bool {
	about := func(s string) bool { return strings.Contains(text, s) }
	return about("not initialized") || about("session") && slices.ContainsFunc([]string{
		"not found", "not exist", "doesn't exist", "no such", "unknown", "no valid", "invalid", "missing", "required",
		"expired", "terminated", "closed",
	}, about)
}

// noMCP returns the error for a successful response of a type that MCP doesn't have.
func (s *Server) noMCP(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read has to do
	what := "nothing"
	if len(body) > 0 {
		what = cmp.Or(s.safe(mediaType(resp), 60), "data without a type")
	}
	text := "The tool server answered with " + what + ", which is not MCP; check mcp.url"
	return &httpError{resp.StatusCode, fault.Public(fault.Upstream, text, s.describe(resp, body))}
}

// unreadable returns the error for a part of the protocol that can't be decoded.
func (s *Server) unreadable(what string, err error) error {
	cause := fmt.Errorf("mcp server %s: %s", s.host, s.safe(err.Error(), maxLogged))
	return fault.Public(fault.Upstream, "The tool server's "+what+" can't be read: it does not follow MCP", cause)
}

// errEnded marks a response that ended before the answer.
var errEnded = errors.New("the response ended before the answer")

// broken returns the error for a response that ended before the answer, cleanly (err is
// nil) or not.
func (s *Server) broken(err error) error {
	if err, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	cause := fmt.Errorf("mcp server %s: %w", s.host, errEnded)
	if err != nil {
		cause = fmt.Errorf("%w: %s", cause, s.safe(withoutURL(err).Error(), maxLogged))
	}
	return fault.Public(fault.Unavailable, "The tool server closed the connection before it answered", cause)
}

// unreachable returns the error for a request that got no response.
func (s *Server) unreachable(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok { // of the egress rules, or of this package
		return &httpError{0, e}
	}
	err = withoutURL(err)
	text := "The tool server cannot be reached"
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		text += ": the connection was refused; check that it runs, and the port in mcp.url"
	case isDNS && dns.IsNotFound:
		text += ": its name is not known; check the host in mcp.url"
	case untrusted:
		text += ": its certificate is not trusted; check the host in mcp.url, and the certificate's issuer and dates"
	case noTLS || errors.Is(err, http.ErrSchemeMismatch):
		text += ": it does not speak TLS; check http and https in mcp.url"
	case isTimeout && timeout.Timeout():
		text += ": the connection took too long"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		text += ": it closed the connection before it answered"
	}
	cause := fmt.Errorf("mcp server %s: %s", s.host, s.safe(err.Error(), maxLogged))
	return &httpError{0, fault.Public(fault.Unavailable, text, cause)}
}

// withoutURL returns the cause of a url.Error. The URL itself can contain a key.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok && !errors.Is(err, context.Canceled) {
		return e.Err
	}
	return err
}

// The lengths of a server's texts, in characters.
const (
	maxMessage = 1000 // in an error that the model and the caller see
	maxLogged  = 300  // in the log
)

// describe returns the cause of a refusal, for the log: the status, and how the body
// begins.
func (s *Server) describe(resp *http.Response, body []byte) error {
	return fmt.Errorf("mcp server %s: status %d, content type %q, body %q",
		s.host, resp.StatusCode, s.safe(mediaType(resp), 60), s.safe(string(body), maxLogged))
}

// safe returns a text of the server in a form that may be shown and logged: secrets are
// replaced by "***", control characters by spaces, and it is cut after most characters.
func (s *Server) safe(text string, most int) string {
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	r := []rune(strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)))
	if len(r) > most {
		return string(r[:most]) + "…"
	}
	return string(r)
}

// secretsOf returns what could be a key in the configuration of a server: the values of
// headers, also without a scheme such as Bearer, and of the URL the password, the query
// and long parts of the path, each as it is written and decoded. Short values are left
// out: each text has them by chance.
func secretsOf(u *url.URL, header http.Header) (secrets []string) {
	add := func(s string) {
		if len(s) >= 8 && !slices.Contains(secrets, s) {
			secrets = append(secrets, s)
		}
	}
	addCredentials := func(base64Text string) {
		if decoded, err := base64.StdEncoding.DecodeString(base64Text); err == nil {
			_, password, _ := strings.Cut(string(decoded), ":")
			add(password)
		}
	}
	for _, values := range header {
		for _, v := range values {
			add(v)
			for _, part := range strings.Fields(v) {
				add(part)
			}
			if scheme, credentials, _ := strings.Cut(v, " "); strings.EqualFold(scheme, "Basic") {
				addCredentials(strings.TrimSpace(credentials))
			}
		}
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		decoded, _ := url.QueryUnescape(value) // an error leaves nothing
		add(value)
		add(decoded)
	}
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		if decoded, err := url.PathUnescape(part); err == nil && len(part) >= 16 {
			add(part)
			add(decoded)
		}
	}
	if password, ok := u.User.Password(); ok {
		add(password)
		_, escaped, _ := strings.Cut(u.User.String(), ":")
		add(escaped)
		add(base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))) // as net/http sends it
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}
