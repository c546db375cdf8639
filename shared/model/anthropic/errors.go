package anthropic

import (
	"context"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError returns the error for a request that got no answer. resp is nil if the
// provider wasn't reached; otherwise its body is still unread. A cancelled context
// yields its cause, as model.Model requires.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && !isAnswer(resp) {
		return o.provider().StatusError(resp)
	}
	return o.provider().SendError(err)
}

// provider returns what all errors of the Messages API have in common.
func (o Options) provider() upstream.KeyedProvider {
	return upstream.KeyedProvider{
		Name: "anthropic", Key: o.APIKey, Headers: o.Headers, Variable: "ANTHROPIC_API_KEY", RequestID: "Request-Id",
	}
}
