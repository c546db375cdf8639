// Package anthropic talks to Claude through Anthropic's Messages API, and to servers
// that speak it. It decides how a conversation becomes a request, when an answer is
// complete, and what the caller may read of a failure. It knows nothing of agents,
// tools or configuration, and never reads ANTHROPIC_* from the environment.
package anthropic

import (
	"context"
	"iter"
	"net/http"
	"strings"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options say which model to use and where.
type Options struct {
	ID          string       // the vendor's name of the model: "claude-sonnet-4-5"
	BaseURL     string       // "http://127.0.0.1:8000", with or without /v1; "" is Anthropic's own
	APIKey      string       // "" sends no X-Api-Key header
	Temperature *float64     // nil leaves it to the vendor
	HTTPClient  *http.Client // nil makes one; share one between models to share its connections
}

// maxTokens bounds an answer. The API has no default of its own; this is AgentOS's.
const maxTokens = 8192

// Model is a model behind POST /v1/messages.
type Model struct {
	options Options
	service sdk.MessageService
	patient *http.Client // for answers in one piece
}

// New makes a model from the options alone.
func New(o Options) *Model {
	return &Model{options: o, service: sdk.NewMessageService(o.requestOptions()...), patient: o.client(0)}
}

// maxRetryDelay is how long a run waits on a vendor's Retry-After. A longer one is
// passed on to the caller, who doesn't hold a lease and a connection meanwhile.
const maxRetryDelay = 10 * time.Second

// requestOptions are for the SDK's service, which unlike its NewClient takes nothing
// from the environment (ANTHROPIC_AUTH_TOKEN, ANTHROPIC_PROFILE, …). The SDK itself
// retries twice, and only before a stream's first byte. Its spans are off, since an
// environment variable could make them carry prompts.
func (o Options) requestOptions() []option.RequestOption {
	options := []option.RequestOption{
		option.WithEnvironmentProduction(),
		option.WithoutOpenTelemetry(),
		option.WithHTTPClient(o.client(upstream.HeaderPatience)),
		option.WithMiddleware(checkResponse),
	}
	if o.APIKey != "" {
		options = append(options, option.WithAPIKey(o.APIKey))
	}
	if o.BaseURL != "" {
		base := strings.TrimSuffix(strings.TrimRight(o.BaseURL, "/"), "/v1") // other vendors' addresses have it
		options = append(options, option.WithBaseURL(base))
	}
	return options
}

// client follows no redirect: the key's header, unlike Authorization, would go along
// to another host. header is how long it waits for the answer's where no client is
// configured, and 0 is as long as the request's context does.
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

// checkResponse keeps the SDK from reading an error without end, and from waiting as
// long as a vendor says.
func checkResponse(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	resp, err := next(r)
	if err != nil || isAnswer(resp) {
		return resp, err
	}
	upstream.CapError(resp)
	switch wait := upstream.RetryAfter(resp.Header, upstream.RetryMilliseconds); {
	case wait > maxRetryDelay:
		resp.Header.Set("X-Should-Retry", "false")
	case wait == 0: // maybe a number that only the SDK can read
		resp.Header.Del("Retry-After")
		resp.Header.Del(upstream.RetryMilliseconds)
	}
	return resp, nil
}

func isAnswer(resp *http.Response) bool { return resp.StatusCode < http.StatusMultipleChoices }

// Describe uses the peer's names.
func (m *Model) Describe() model.Description {
	return model.Describe("anthropic", m.options.ID)
}

// Stream implements model.Model. The vendor's end mark is message_stop, once it said
// why it stopped: with it an answer is whole, whatever becomes of the connection then;
// without it the answer is an error, also after a clean end. What a model thinks is no
// part of the answer; it goes back to the vendor in Opaque.
func (m *Model) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		request, cancel := context.WithCancel(ctx)
		defer cancel()
		c := m.options.conversation(r)
		resp, err := m.send(request, c, r.Whole)
		if err != nil {
			yield(model.Part{}, m.options.callError(ctx, resp, err))
			return
		}
		defer resp.Body.Close()
		if !isAnswer(resp) { // a redirect
			yield(model.Part{}, m.options.statusError(resp))
			return
		}
		a := &answer{options: m.options, tools: c.tools, contentType: resp.Header.Get("Content-Type")}
		read := a.readStream
		if r.Whole {
			read = a.readWhole
		}
		end, err := read(resp.Body, func(p model.Part) bool { return yield(p, nil) })
		switch {
		case err == nil && end == nil: // the listener left
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

// noAttemptLimit is more than a run may take. Without one the SDK gives each attempt at
// a whole answer ten minutes, and then asks for the same answer again.
const noAttemptLimit = 24 * time.Hour

// send lets the SDK build, authorize, send and retry the request, but takes the body as
// it is: see docs/adr/0003.
func (m *Model) send(ctx context.Context, c *conversation, whole bool) (*http.Response, error) {
	var resp *http.Response
	if whole {
		_, err := m.service.New(ctx, c.params, option.WithResponseBodyInto(&resp),
			option.WithHTTPClient(m.patient), option.WithRequestTimeout(noAttemptLimit))
		return resp, err
	}
	err := m.service.NewStreaming(ctx, c.params, option.WithResponseBodyInto(&resp)).Err()
	return resp, err
}
