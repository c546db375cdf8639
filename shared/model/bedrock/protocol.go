package bedrock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/restjson1"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// protocol is the protocol of the AWS SDK (smithy-go's restjson1) with limits. The
// SDK's own allocates whatever length a frame of the event stream claims, reads a body
// of any length, and treats a connection that broke within a frame as a clean end of
// the stream. An AWS endpoint does none of this, but a proxy or BaseURL may.
type protocol struct{ *restjson1.Protocol }

// limitProtocol sets the protocol for one call. Each call has its own, because the
// SDK's decoder of events isn't safe for concurrent use.
func limitProtocol(o *bedrockruntime.Options) { o.Protocol = protocol{restjson1.New(nil)} }

// DeserializeEventMessage reads one event.
func (p protocol) DeserializeEventMessage(
	schema *smithy.Schema, registry *smithy.TypeRegistry, body io.Reader,
) (smithy.Deserializable, error) {
	return p.Protocol.DeserializeEventMessage(schema, registry, &limitedBody{body: body, left: upstream.MaxEvent})
}

// maxErrorBody is how much of an HTTP error's body is read.
const maxErrorBody = 64 << 10

// DeserializeResponse reads an answer in one piece, or an HTTP error. The body of a stream
// stays unread. Whether an answer is JSON is checked first, to distinguish an answer that
// broke off from a body that never was an answer.
func (p protocol) DeserializeResponse(
	ctx context.Context, op *smithy.OperationSchema, registry *smithy.TypeRegistry,
	resp *smithyhttp.Response, out smithy.Deserializable,
) error {
	body := resp.Body
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		data, _ := io.ReadAll(io.LimitReader(body, maxErrorBody)) // if it breaks off, the status is still known
		resp.Body = readCloser{bytes.NewReader(data), body}
		err := p.Protocol.DeserializeResponse(ctx, op, registry, resp, out)
		return reportedError{err, upstream.ReportIn(data)}
	} else if !op.IsOutputEventStream() {
		data, err := io.ReadAll(&limitedBody{body: body, left: upstream.MaxEvent})
		if err != nil {
			return readError(err)
		}
		if err := json.Unmarshal(data, &json.RawMessage{}); err != nil {
			text := upstream.DecodeFailureText(data, err)
			return fault.Public(fault.Upstream, text, fmt.Errorf("bedrock: answer: %w", err))
		}
		resp.Body = readCloser{bytes.NewReader(data), body}
	}
	return p.Protocol.DeserializeResponse(ctx, op, registry, resp, out)
}

// reportedError adds to the SDK's error of an HTTP error what the body reports. The SDK
// knows AWS's form alone. Gateways and proxies before AWS have others.
type reportedError struct {
	error
	report upstream.Report
}

func (e reportedError) Unwrap() error { return e.error }

type readCloser struct {
	io.Reader
	io.Closer
}

// limitedBody reads at most left bytes and fails with errTooLong after them. It wraps
// the error of a lost connection in lostError, because the SDK would report an
// unexpected EOF as a clean end.
type limitedBody struct {
	body io.Reader
	left int
}

var errTooLong = errors.New("bedrock: the event or answer is too long")

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.body.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is a lost connection
		err = lostError{err}
	}
	return n, err
}

// lostError marks the error of a connection that broke before the end of the body.
type lostError struct{ cause error }

func (e lostError) Error() string { return "bedrock: the connection is lost: " + e.cause.Error() }
func (e lostError) Unwrap() error { return e.cause }
