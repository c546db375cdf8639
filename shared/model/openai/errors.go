package openai

import (
	"context"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError returns the error for a request that got no response. A cancelled context
// yields its cause, as model.Model requires.
func (o Options) callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return o.provider().SendError(err)
}

// provider returns what the errors of OpenAI's two APIs have in common.
func (o Options) provider() upstream.KeyedProvider {
	return upstream.KeyedProvider{
		Name: "openai", Key: o.APIKey, Headers: o.Headers, Variable: "OPENAI_API_KEY", RequestID: "X-Request-Id",
	}
}
