package lambdahttp

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/keyway-agents/keyway/shared/fault"
)

// buffer keeps an answer until it is whole. As with net/http, the first status counts.
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

// instead is the answer that takes b's place: an error, to the same request.
func (b *buffer) instead(err error) *buffer {
	w := newBuffer()
	w.Header().Set("X-Request-Id", b.Header().Get("X-Request-Id"))
	fault.Write(w, err)
	return w
}

// marshal is what Lambda gets: text as it is, anything else in base64.
func (b *buffer) marshal() (json.RawMessage, error) {
	b.WriteHeader(http.StatusOK)
	answer, err := b.GetProxyResponse()
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// streamed hands each write on; one write is one chunk on the way to API Gateway.
type streamed struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{} // closed when what follows is decided
	status int
	sent   http.Header
}

func (s *streamed) Header() http.Header { return s.header }

func (s *streamed) WriteHeader(status int) {
	s.once.Do(func() {
		s.status, s.sent = status, s.header.Clone()
		close(s.begun)
	})
}

func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.body.Write(p)
}

// FlushError has nothing to do: a write returns when Lambda's client has taken it.
func (s *streamed) FlushError() error {
	s.WriteHeader(http.StatusOK)
	return nil
}

// stream answers as soon as status and headers are known, and sends the rest as it is
// written. An answer that breaks off ends in the error trailer of Lambda's protocol,
// and so is never taken for a whole one.
func (f *Function) stream(ctx context.Context, r *http.Request, done context.CancelFunc) *events.APIGatewayProxyStreamingResponse {
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
