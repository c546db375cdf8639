// Package openai implements model.Model for OpenAI's two APIs, Chat Completions and
// Responses, and for servers that are compatible with them (Azure OpenAI, vLLM,
// Ollama). It decides how a conversation becomes a request, when an answer is complete,
// and which part of a failure a caller sees. It takes its settings from Options alone
// and never reads OPENAI_* from the environment.
package openai

import (
	"cmp"
	"net/http"
	"time"

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
	// Headers are sent with each request, in place of those that this package sends. Their values
	// don't appear in error texts. No redirect to another origin is followed, so no
	// other server gets them. Defaults to none.
	Headers http.Header
	// HTTPClient sends the requests. Models that share a client share its connections.
	// Defaults to a new client with the timeouts of package upstream.
	HTTPClient *http.Client
}

// baseURL is OpenAI's own address.
const baseURL = "https://api.openai.com/v1"

// endpoint returns the address of one of the APIs, with the headers of each request.
func (o Options) endpoint(path string) upstream.Endpoint {
	header := http.Header{}
	if o.APIKey != "" {
		header.Set("Authorization", "Bearer "+o.APIKey)
	}
	for name := range o.Headers {
		header.Set(name, o.Headers.Get(name))
	}
	return upstream.Endpoint{URL: upstream.Address(cmp.Or(o.BaseURL, baseURL), path), Header: header}
}

// client returns a client that follows redirects within the API's own origin only: any other server would get the
// headers of the operator. header limits the wait for the response's header if no HTTPClient is
// configured; see upstream.NewTransport.
func (o Options) client(header time.Duration) *http.Client {
	client := &http.Client{}
	if o.HTTPClient != nil {
		*client = *o.HTTPClient
	} else {
		client.Transport = upstream.NewTransport(header)
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		first := via[0].URL
		if len(via) > maxRedirects || r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return client
}

// maxRedirects is how many redirects one request may follow.
const maxRedirects = 5
