package lambdahttp

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/keyway-agents/keyway/shared/fault"
)

// buffer is a ResponseWriter that collects a whole answer. The proxy library's writer
// lets a second WriteHeader replace the status; buffer keeps the first one, as net/http
// does, so that a handler answers the same on both.
type buffer struct {
	*core.ProxyResponseWriter
	begun bool
}

func newBuffer() *buffer { return &buffer{ProxyResponseWriter: core.NewProxyResponseWriter()} }

// WriteHeader implements http.ResponseWriter.
func (b *buffer) WriteHeader(status int) {
	if !b.begun {
		b.begun = true
		b.ProxyResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (b *buffer) Write(p []byte) (int, error) {
	b.begun = true
	return b.ProxyResponseWriter.Write(p)
}

// replacement returns an error answer to send in place of b. It keeps the request id:
// a caller who reports the error names that id, and the log line has it too.
func (b *buffer) replacement(err error) *buffer {
	w := newBuffer()
	w.Header().Set("X-Request-Id", b.Header().Get("X-Request-Id"))
	fault.Write(w, err)
	return w
}

// marshal encodes the answer for API Gateway. A body of valid UTF-8 is sent as text,
// any other in base64 with isBase64Encoded.
func (b *buffer) marshal() (json.RawMessage, error) {
	b.WriteHeader(http.StatusOK)
	answer, err := b.GetProxyResponse()
	if err != nil {
		return nil, err
	}
	// Without escapes for HTML, which would make six bytes of one.
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err = encoder.Encode(answer)
	return out.Bytes(), err
}

// streamed is a ResponseWriter that sends each Write at once. One Write becomes one
// chunk of the POST to Lambda's Runtime API, so an event of a run reaches the client
// without waiting for the next.
type streamed struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{} // closed when status and sent are set
	status int
	sent   http.Header
}

// Header implements http.ResponseWriter.
func (s *streamed) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter. Headers that are set later have no
// effect, as in net/http.
func (s *streamed) WriteHeader(status int) {
	s.once.Do(func() {
		s.status, s.sent = status, s.header.Clone()
		close(s.begun)
	})
}

// Write implements http.ResponseWriter.
func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.body.Write(p)
}

// FlushError sends the headers. The body needs no flush: a Write to the pipe returns
// when the Runtime API's client has read it.
func (s *streamed) FlushError() error {
	s.WriteHeader(http.StatusOK)
	return nil
}

// stream runs the handler in a goroutine and returns as soon as status and headers are
// known; aws-lambda-go then sends them and copies Body while the handler writes it.
//
// If the handler is aborted, Body ends with an error. aws-lambda-go reports it in the
// trailers Lambda-Runtime-Function-Error-Type and -Body of the Runtime API, so that Lambda
// doesn't take the part that was sent for a complete answer.
//
// ctx is the context of the invocation. It ends later than the request's context, so
// Settle can use the reserve too.
func (f *Function) stream(
	ctx context.Context, r *http.Request, done context.CancelFunc,
) *events.APIGatewayProxyStreamingResponse {
	body, w := io.Pipe()
	s := &streamed{header: http.Header{}, body: w, begun: make(chan struct{})}
	go func() {
		defer done()
		err := f.serve(s, r)
		s.WriteHeader(http.StatusOK)
		f.settle(ctx)
		_ = w.CloseWithError(err)
	}()
	<-s.begun
	return &events.APIGatewayProxyStreamingResponse{StatusCode: s.status, MultiValueHeaders: s.sent, Body: body}
}
