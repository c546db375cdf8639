// Package lambdahttp turns API Gateway's proxy events into requests for an
// http.Handler, and turns its responses into answers for Lambda, buffered or streamed.
// It takes the caller's identity from the authorizer's context. It decides no
// permission and knows no route.
package lambdahttp

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/keyway-agents/keyway/shared/fault"
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
	return &Function{o, logging.Requests(o.Log, withCaller(o.Handler))}
}

// Start serves Lambda's invocations. It doesn't return.
func Start(o Options) { lambda.Start(New(o).Invoke) }

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

// Invoke answers one event. The result is a JSON message for a buffered answer and an
// *events.APIGatewayProxyStreamingResponse for a streamed one. The error is not nil
// only for an event that is not a request of API Gateway; every failure of Handler is
// an HTTP answer.
func (f *Function) Invoke(ctx context.Context, e events.APIGatewayProxyRequest) (any, error) {
	inTime, cancel := withReserve(ctx)
	r, err := request(inTime, e)
	switch {
	case err != nil:
		cancel()
		return nil, err
	case f.Streamed:
		return f.stream(ctx, r, cancel), nil
	}
	defer cancel()
	return f.whole(ctx, r)
}

// withReserve returns a context that ends earlier than ctx, by the reserve. If less than
// twice the reserve is left, the context ends after half of the remaining time.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	end, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(reserve, time.Until(end)/2)))
}

// whole returns the buffered answer as JSON. It encodes the answer itself, since the
// limit counts the encoded bytes: quotes and base64 make an answer longer. Lambda
// would turn an answer over the limit into an error without a hint for the caller.
func (f *Function) whole(ctx context.Context, r *http.Request) (json.RawMessage, error) {
	w := newBuffer()
	if err := f.serve(w, r); err != nil {
		w = w.replacement(fault.Internal)
	}
	f.settle(ctx)
	data, err := w.marshal()
	if err == nil && len(data) > maxAnswer {
		id := w.Header().Get("X-Request-Id")
		f.Log.WarnContext(ctx, "answer too large", "request_id", id, "bytes", len(data))
		data, err = w.replacement(errTooLarge).marshal()
	}
	return data, err
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
func (f *Function) settle(ctx context.Context) {
	if f.Settle == nil {
		return
	}
	if err := f.Settle(ctx); err != nil {
		f.Log.WarnContext(ctx, "work of the request was interrupted by the end of the invocation", "err", err)
	}
}
