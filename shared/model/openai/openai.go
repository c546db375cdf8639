// Package openai talks to OpenAI and to servers that speak its API. It decides how
// a conversation becomes a request, when an answer is complete, and what the
// caller may read of a failure. It knows nothing of agents, tools or
// configuration, and never reads OPENAI_* from the environment.
package openai

import (
	"net/http"
	"time"

	"github.com/openai/openai-go/v3/option"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options say which model to use and where.
type Options struct {
	ID          string       // the vendor's name of the model: "gpt-4o"
	BaseURL     string       // "http://127.0.0.1:8000/v1"; "" is OpenAI's own
	APIKey      string       // "" sends no Authorization header
	Temperature *float64     // nil leaves it to the vendor
	HTTPClient  *http.Client // nil makes one; share one between models to share its connections
}

// maxRetryDelay is how long a run waits on a vendor's Retry-After. A longer one is
// passed on to the caller, who doesn't hold a lease and a connection meanwhile.
const maxRetryDelay = 10 * time.Second

// requestOptions are for the SDK's services, which unlike its NewClient take
// nothing from the environment (OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS, …). The SDK
// itself retries twice, and only before a stream's first byte.
func (o Options) requestOptions() []option.RequestOption {
	client := o.HTTPClient
	if client == nil {
		client = &http.Client{Transport: upstream.NewTransport(upstream.HeaderPatience)}
	}
	options := []option.RequestOption{
		option.WithEnvironmentProduction(),
		option.WithAPIKey(o.APIKey),
		option.WithHTTPClient(client),
		option.WithMaxRetryDelay(maxRetryDelay),
		option.WithMiddleware(capErrorBody),
	}
	if o.BaseURL != "" {
		options = append(options, option.WithBaseURL(o.BaseURL))
	}
	return options
}

// patientClient is the configured client, or one that waits for a header as long as
// the request's context does.
func (o Options) patientClient() *http.Client {
	if o.HTTPClient != nil {
		return o.HTTPClient
	}
	return &http.Client{Transport: upstream.NewTransport(0)}
}

func capErrorBody(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	resp, err := next(r)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		upstream.CapError(resp)
	}
	return resp, err
}
