// Package lambdahttp turns API Gateway's proxy events into requests for an
// http.Handler, and turns its responses into answers for Lambda, buffered or streamed.
// It takes the caller's identity from the authorizer's context. It decides no
// permission and knows no route.
package lambdahttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdaruntime"
	"github.com/keyway-agents/keyway/shared/logging"
)

// Options configure a Function.
type Options struct {
	// Handler answers the requests. It finds the principal with authz.From; a request
	// without a valid authorizer context has none. Required.
	Handler http.Handler
	// Log receives one line per request. Required.
	Log *slog.Logger
	// Streamed makes every answer a streamed one: each Write of Handler is sent at
	// once. API Gateway accepts such an answer only on a method with the transfer
	// mode STREAM (in SAM's words, ResponseTransferMode: RESPONSE_STREAM), and
	// sam local not at all: it answers 502. Defaults to buffered answers.
	Streamed bool
	// Settle waits for the work that a request left running. It is called after
	// Handler and before the end of the answer, because Lambda freezes the process as
	// soon as the answer is complete: a goroutine would stop until the next request,
	// or forever. Its ctx ends with the invocation. Defaults to no wait.
	Settle func(context.Context) error
}

// Function answers the proxy events of a REST API. It is safe for concurrent use.
type Function struct {
	Options
	handler http.Handler
}

// New makes a Function.
func New(o Options) *Function {
	return &Function{o, logging.Requests(o.Log, noted(o.Handler))}
}

// Start serves Lambda's invocations. It doesn't return.
func Start(o Options) { lambdaruntime.Start(o.Log, New(o).Invoke) }

const (
	// maxAnswer is Lambda's limit for a buffered answer, 6 MB, in bytes.
	maxAnswer = 6 << 20
	// MaxJSON is the length of a JSON body that a buffered answer always has room for. In the
	// answer the body is a JSON string, in which one byte becomes two at most, and a
	// character of three bytes six. The rest is for the headers.
	MaxJSON = maxAnswer/2 - 64<<10
	// reserve is the time between a request's deadline and Lambda's. At Lambda's
	// deadline the process is ended without notice, so a request must have stored its
	// state and sent its answer before.
	reserve = 5 * time.Second
)

// Invoke answers one event. The error is not nil only for an event that is not a request of API Gateway, and if the
// answer can't be sent; every failure of Handler is an HTTP answer.
func (f *Function) Invoke(in *lambdaruntime.Invocation) error {
	ctx, cancel := withReserve(in.Deadline)
	defer cancel()
	r, err := request(ctx, in)
	switch {
	case err != nil:
		return err
	case f.Streamed:
		return f.stream(in, r)
	}
	return in.Answer(f.whole(in, r))
}

// withReserve returns a context that ends earlier than the deadline, by the reserve. If less than
// twice the reserve is left, the context ends after half of the remaining time.
func withReserve(end time.Time) (context.Context, context.CancelFunc) {
	if end.IsZero() {
		return context.WithCancel(context.Background())
	}
	return context.WithDeadline(context.Background(), end.Add(-min(reserve, time.Until(end)/2)))
}

// whole returns the buffered answer as JSON. It encodes the answer itself, since the
// limit counts the encoded bytes: quotes and base64 make an answer longer. Lambda
// would turn an answer over the limit into an error without a hint for the caller.
func (f *Function) whole(in *lambdaruntime.Invocation, r *http.Request) []byte {
	w := newBuffer()
	if err := f.serve(w, r); err != nil {
		w = w.replacement(fault.Internal)
	}
	f.settle(in)
	data := w.marshal()
	if len(data) > maxAnswer {
		id := w.Header().Get("X-Request-Id")
		f.Log.WarnContext(r.Context(), "answer too large", "request_id", id, "bytes", len(data))
		data = w.replacement(errTooLarge).marshal()
	}
	return data
}

// stream sends the answer while the handler writes it.
//
// If the handler is aborted, the answer ends with an error in the trailers of the Runtime API, so that Lambda
// doesn't take the part that was sent for a complete answer.
func (f *Function) stream(in *lambdaruntime.Invocation, r *http.Request) error {
	s := &streamed{in: in, header: http.Header{}}
	err := f.serve(s, r)
	if f.Settle != nil && err == nil {
		err = s.FlushError() // the client has the whole answer while Settle waits
		f.settle(in)
	}
	return s.end(err)
}

var (
	errTooLarge = fault.Public(fault.TooLarge,
		"The answer is larger than the 6 MB that a Lambda function can send; request a part of it with limit and page. "+
			"One run that is too large is answered by GET /agents/{agent_id}/runs/{run_id}", nil)
	errAborted = errors.New("the response was aborted")
)

// serve runs the handler. A panic that arrives here was logged by package logging, and
// means that the status had been sent already (see logging.Requests).
func (f *Function) serve(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if recover() != nil {
			err = errAborted
		}
	}()
	f.handler.ServeHTTP(w, r)
	return nil
}

// settle waits for the work that the request left running. Its error is only logged,
// because the answer has been sent or encoded by then. The unfinished work is a run,
// which another process recovers from the database.
//
// Its context is that of the invocation. It ends later than the request's, so that Settle can use the reserve too.
func (f *Function) settle(in *lambdaruntime.Invocation) {
	if f.Settle == nil {
		return
	}
	ctx, cancel := in.Context()
	defer cancel()
	if err := f.Settle(ctx); err != nil {
		f.Log.WarnContext(ctx, "work of the request was interrupted by the end of the invocation", "err", err)
	}
}
