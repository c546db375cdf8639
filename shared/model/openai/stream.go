package openai

import (
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
)

// stream is model.Model's Stream for both APIs. send asks for the answer; read
// yields its text and returns its last part, whose End is nil, without an error,
// when the listener left.
func (o Options) stream(
	ctx context.Context,
	send func(context.Context) (*http.Response, error),
	read func(*http.Response, func(model.Part) bool) (model.Part, error),
) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		request, cancel := context.WithCancel(ctx)
		defer cancel()
		resp, err := send(request)
		if err != nil {
			yield(model.Part{}, o.callError(ctx, resp, err))
			return
		}
		defer resp.Body.Close()
		last, err := read(resp, func(p model.Part) bool { return yield(p, nil) })
		switch {
		case err == nil && last.End == nil: // the listener left
			return
		case err != nil && ctx.Err() != nil:
			yield(model.Part{}, context.Cause(ctx))
		case err != nil:
			yield(model.Part{}, err)
		default:
			yield(last, nil)
			drain(resp.Body, cancel)
		}
	}
}

// drain reads what follows the end mark, normally just the end of the body,
// because HTTP/1.1 re-uses only a connection that was read to its end. A vendor
// who keeps it open instead loses it.
func drain(body io.Reader, cancel func()) {
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, body, 4096) // the answer is complete already
}
