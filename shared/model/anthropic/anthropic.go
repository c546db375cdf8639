// Package anthropic implements model.Model for Anthropic's Messages API and for servers
// that are compatible with it. It decides how a conversation becomes a request, when an
// answer is complete, and which part of a failure a caller sees. It takes its settings
// from Options alone and never reads ANTHROPIC_* from the environment.
package anthropic

import (
	"cmp"
	"context"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options configure a model.
type Options struct {
	// ID is Anthropic's name of the model, such as "claude-sonnet-4-5". Required.
	ID string
	// BaseURL is the address of the API, such as "http://127.0.0.1:8000", with or
	// without /v1 at its end. Defaults to Anthropic's own.
	BaseURL string
	// APIKey is sent in the header X-Api-Key. Defaults to none: the header isn't sent.
	APIKey string
	// Temperature is the sampling temperature. Defaults to the provider's own.
	Temperature *float64
	// Headers are sent with each request, in place of those that this package sends. Their values
	// don't appear in error texts. Defaults to none.
	Headers http.Header
	// HTTPClient sends the requests, but never follows a redirect. Models that share a
	// client share its connections. Defaults to a new client with the timeouts of
	// package upstream.
	HTTPClient *http.Client
}

// maxTokens limits the length of an answer. The Messages API requires max_tokens and
// has no default; this one is AgentOS's.
const maxTokens = 8192

// Model is a model behind the Messages API, POST /v1/messages.
type Model struct {
	options  Options
	endpoint upstream.Endpoint
	// streams and whole are the clients for streamed answers and for those in one piece, whose header comes only when the
	// answer is complete.
	streams, whole *http.Client
}

// New returns a model configured by o alone. It doesn't connect.
func New(o Options) *Model {
	return &Model{options: o, endpoint: o.endpoint(), streams: o.client(upstream.HeaderTimeout), whole: o.client(0)}
}

const (
	// baseURL is Anthropic's own address, and apiVersion the version of the API that this package speaks.
	baseURL    = "https://api.anthropic.com"
	apiVersion = "2023-06-01"
)

// endpoint returns the address of the API, with the headers of each request. A BaseURL may end with /v1, because the
// addresses of other providers do.
func (o Options) endpoint() upstream.Endpoint {
	header := http.Header{"Anthropic-Version": {apiVersion}}
	if o.APIKey != "" {
		header.Set("X-Api-Key", o.APIKey)
	}
	for name := range o.Headers {
		header.Set(name, o.Headers.Get(name))
	}
	base := strings.TrimSuffix(upstream.Address(cmp.Or(o.BaseURL, baseURL), ""), "/v1")
	return upstream.Endpoint{URL: base + "/v1/messages", Header: header}
}

// client returns a client that doesn't follow redirects. On a redirect to another host
// net/http removes the header Authorization but not X-Api-Key, so that host would receive
// the key. header limits the wait for the response's header if no HTTPClient is
// configured; see upstream.NewTransport.
func (o Options) client(header time.Duration) *http.Client {
	client := &http.Client{}
	if o.HTTPClient != nil {
		*client = *o.HTTPClient
	} else {
		client.Transport = upstream.NewTransport(header)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// Describe returns AgentOS's names for this model.
func (m *Model) Describe() model.Description {
	return model.Describe("anthropic", m.options.ID)
}

// Stream implements model.Model. An answer is complete when message_stop has arrived
// and a stop_reason before it. What happens to the connection afterwards doesn't
// matter. Without them the answer is an error, also after a clean end of the body. The
// model's thinking isn't part of the answer's text, but of Part.Reasoning. It is in
// End.Opaque too, because the API requires it back with the results of tools.
func (m *Model) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { m.Ask(ctx, r)(yield) }
}

// Ask implements model.Asker.
func (m *Model) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	request, cancel := context.WithCancel(ctx)
	c := m.options.conversation(r)
	resp, err := m.send(request, c, r.Whole) //nolint:bodyclose // the sequence closes it, and so does the end of ctx
	return func(yield func(model.Part, error) bool) {
		defer cancel()
		if err != nil {
			yield(model.Part{}, m.options.callError(ctx, err))
			return
		}
		defer resp.Body.Close()
		if !upstream.IsAnswer(resp) {
			yield(model.Part{}, m.options.provider().StatusError(resp))
			return
		}
		a := &answer{options: m.options, tools: c.tools, contentType: resp.Header.Get("Content-Type")}
		read := a.readStream
		if upstream.Whole(resp, r.Whole) {
			read = a.readWhole
		}
		end, err := read(resp.Body, func(p model.Part) bool { return yield(p, nil) })
		switch {
		case err == nil && end == nil: // the consumer stopped reading
		case err != nil && ctx.Err() != nil:
			yield(model.Part{}, context.Cause(ctx))
		case err != nil:
			yield(model.Part{}, err)
		default:
			yield(model.Part{End: end}, nil)
			upstream.Drain(resp.Body, cancel)
		}
	}
}

// send sends the request and returns the response with its body unread.
func (m *Model) send(ctx context.Context, c *conversation, whole bool) (*http.Response, error) {
	if whole {
		return m.endpoint.Post(ctx, m.whole, c.params)
	}
	c.params.Stream = true
	return m.endpoint.Post(ctx, m.streams, c.params)
}
