package openai

import (
	"context"
	"iter"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// ask implements model.Asker's Ask for both APIs. send sends the request. read
// yields the answer's text and returns its last part; a last part without End and
// without an error means that the consumer stopped reading.
func (o Options) ask(
	ctx context.Context,
	send func(context.Context) (*http.Response, error),
	read func(*http.Response, func(model.Part) bool) (model.Part, error),
) iter.Seq2[model.Part, error] {
	request, cancel := context.WithCancel(ctx)
	resp, err := send(request) //nolint:bodyclose // the sequence closes it, and so does the end of ctx
	return func(yield func(model.Part, error) bool) {
		defer cancel()
		if err != nil {
			yield(model.Part{}, o.callError(ctx, err))
			return
		}
		defer resp.Body.Close()
		if !upstream.IsAnswer(resp) {
			yield(model.Part{}, o.provider().StatusError(resp))
			return
		}
		last, err := read(resp, func(p model.Part) bool { return yield(p, nil) })
		switch {
		case err == nil && last.End == nil: // the consumer stopped reading
			return
		case err != nil && ctx.Err() != nil:
			yield(model.Part{}, context.Cause(ctx))
		case err != nil:
			yield(model.Part{}, err)
		default:
			yield(last, nil)
			upstream.Drain(resp.Body, cancel)
		}
	}
}
