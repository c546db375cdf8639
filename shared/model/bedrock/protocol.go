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

// protocol is the SDK's own with bounds: it takes any length that a frame claims and
// any body, and a connection that is lost within a frame for a clean end. Each call
// has its own, because the SDK's decoder of events is not safe for concurrent use.
type protocol struct{ *restjson1.Protocol }

func ownProtocol(o *bedrockruntime.Options) { o.Protocol = protocol{restjson1.New(nil)} }

// DeserializeEventMessage reads one event.
func (p protocol) DeserializeEventMessage(schema *smithy.Schema, registry *smithy.TypeRegistry, body io.Reader) (smithy.Deserializable, error) {
	return p.Protocol.DeserializeEventMessage(schema, registry, &bounded{body: body, left: upstream.MaxEvent})
}

// maxErrorBody bounds what is read of an HTTP error.
const maxErrorBody = 64 << 10

// DeserializeResponse reads an answer in one piece, or an error. A stream's body is
// left alone.
func (p protocol) DeserializeResponse(
	ctx context.Context, op *smithy.OperationSchema, registry *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable,
) error {
	body := resp.Body
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		resp.Body = readCloser{io.LimitReader(body, maxErrorBody), body}
	} else if !op.IsOutputEventStream() {
		data, err := io.ReadAll(&bounded{body: body, left: upstream.MaxEvent})
		if err != nil {
			return readError(err)
		}
		if err := json.Unmarshal(data, &json.RawMessage{}); err != nil {
			return fault.Public(fault.Upstream, upstream.CutOrJunk(data, err), fmt.Errorf("bedrock: answer: %w", err))
		}
		resp.Body = readCloser{bytes.NewReader(data), body}
	}
	return p.Protocol.DeserializeResponse(ctx, op, registry, resp, out)
}

type readCloser struct {
	io.Reader
	io.Closer
}

// bounded reads at most left bytes and says of a lost connection that it is lost.
type bounded struct {
	body io.Reader
	left int
}

var errTooLong = errors.New("bedrock: an event or answer without end")

func (b *bounded) Read(p []byte) (int, error) {
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

// lostError is why a body could not be read to its end.
type lostError struct{ cause error }

func (e lostError) Error() string { return "bedrock: the connection is lost: " + e.cause.Error() }
func (e lostError) Unwrap() error { return e.cause }
