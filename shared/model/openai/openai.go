// Package openai implements model.Model for OpenAI's two APIs, Chat Completions and
// Responses, and for servers that are compatible with them (Azure OpenAI, vLLM,
// Ollama). It decides how a conversation becomes a request, when an answer is complete,
// and which part of a failure a caller sees. It takes its settings from Options alone
// and never reads OPENAI_* from the environment.
package openai

import (
	"net/http"

	"github.com/openai/openai-go/v3/option"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options configure a model.
type Options struct {
	// ID is the provider's name of the model, such as "gpt-4o". Required.
	ID string
	// BaseURL is the address of the API, such as "http://127.0.0.1:8000/v1". Defaults
	// to OpenAI's own.
	BaseURL string
	// APIKey is sent as the bearer token. Defaults to none: no Authorization header is
	// sent.
	APIKey string
	// Temperature is the sampling temperature. Defaults to the provider's own.
	Temperature *float64
	// Headers are sent with each request, in place of those that the SDK sends. Their values
	// don't appear in error texts. The SDK follows no redirect to another origin, so no
	// other server gets them. Defaults to none.
	Headers http.Header
	// HTTPClient sends the requests. Models that share a client share its connections.
	// Defaults to a new client with the timeouts of package upstream.
	HTTPClient *http.Client
}

// requestOptions returns the options for the SDK's services. The services, unlike the
// SDK's NewClient, read nothing from the environment (OPENAI_ORG_ID,
// OPENAI_CUSTOM_HEADERS, …). The SDK repeats a failed request twice, and only before
// the first byte of an answer.
func (o Options) requestOptions() []option.RequestOption {
	client := o.HTTPClient
	if client == nil {
		client = &http.Client{Transport: upstream.NewTransport(upstream.HeaderTimeout)}
	}
	options := []option.RequestOption{
		option.WithEnvironmentProduction(),
		option.WithAPIKey(o.APIKey),
		option.WithHTTPClient(client),
		option.WithMiddleware(limitError),
	}
	if o.BaseURL != "" {
		options = append(options, option.WithBaseURL(o.BaseURL))
	}
	for name := range o.Headers {
		options = append(options, option.WithHeader(name, o.Headers.Get(name)))
	}
	return options
}

// wholeClient returns the client for answers in one piece. Their header comes only when
// the answer is complete, so the default client doesn't limit the wait for it. Only the
// request's context does.
func (o Options) wholeClient() *http.Client {
	if o.HTTPClient != nil {
		return o.HTTPClient
	}
	return &http.Client{Transport: upstream.NewTransport(0)}
}

// limitError is middleware for the SDK.
func limitError(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	resp, err := next(r)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		upstream.LimitError(resp)
	}
	return resp, err
}
