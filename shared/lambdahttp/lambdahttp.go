// Package lambdahttp carries requests from API Gateway to an http.Handler and its
// answers back, whole or as they are written.
// It decides who the caller is, by what the authorizer said, and never what the
// caller may do; it knows no route.
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

// Options of a Function. Handler and Log are required.
type Options struct {
	Handler http.Handler // finds the caller in the request's context
	Log     *slog.Logger
	// Streamed sends each write on as it comes. API Gateway must ask for it by the
	// route's transfer mode, and sam local can't.
	Streamed bool
	// Settle waits for what a request left running; nil: nothing is left. Lambda
	// freezes the process as soon as the answer is out.
	Settle func(context.Context) error
}

// Function answers API Gateway's proxy events (REST). It is safe for concurrent use.
type Function struct {
	Options
	handler http.Handler
}

// New makes a Function.
func New(o Options) *Function {
	return &Function{o, logging.Requests(o.Log, caller(o.Handler))}
}

// Start serves Lambda's invocations and doesn't return.
func Start(o Options) { lambda.Start(New(o).Invoke) }

const (
	// maxAnswer is how many bytes Lambda takes for an answer that is not streamed.
	maxAnswer = 6 << 20
	// reserve is how long before Lambda's deadline a request has to be done: time to
	// store why it wasn't, and to say so.
	reserve = 5 * time.Second
)

// Invoke answers one event. It fails for an event that is no request; whatever goes
// wrong with a request is an answer.
func (f *Function) Invoke(ctx context.Context, e events.APIGatewayProxyRequest) (any, error) {
	inTime, cancel := early(ctx)
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

// early ends some time before ctx does.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	end, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(reserve, time.Until(end)/2)))
}

// whole answers with all that was written, as JSON that is known to fit.
func (f *Function) whole(ctx context.Context, r *http.Request) (json.RawMessage, error) {
	w := newBuffer()
	if err := f.serve(w, r); err != nil {
		w = w.instead(fault.Internal)
	}
	f.settle(ctx)
	data, err := w.marshal()
	if err == nil && len(data) > maxAnswer {
		f.Log.WarnContext(ctx, "answer too large", "request_id", w.Header().Get("X-Request-Id"), "bytes", len(data))
		data, err = w.instead(fault.Public(fault.TooLarge, "The answer is larger than the 6 MB that a Lambda function can send; ask for less, with limit and page", nil)).marshal()
	}
	return data, err
}

var errBroken = errors.New("the answer broke off")

// serve runs the handler. Package logging has logged a panic that arrives here: it came too late
// for another status.
func (f *Function) serve(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if recover() != nil {
			err = errBroken
		}
	}()
	f.handler.ServeHTTP(w, r)
	return nil
}

func (f *Function) settle(ctx context.Context) {
	if f.Settle == nil {
		return
	}
	if err := f.Settle(ctx); err != nil {
		f.Log.WarnContext(ctx, "what a request left running is cut off", "err", err)
	}
}
