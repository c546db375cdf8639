// Package bedrock implements model.Model for the models of Amazon Bedrock, by its
// Converse API. It decides how a conversation becomes a request, when an answer is
// complete, and which part of a failure a caller sees. It takes credentials, region and
// address from Options alone and never reads the environment or AWS's configuration
// files.
package bedrock

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options configure a model.
type Options struct {
	// ID is the ID or ARN of a model or of an inference profile, such as
	// "eu.amazon.nova-lite-v1:0". Required.
	ID string
	// Region is the AWS region, such as "eu-central-1". It is part of the host name and
	// of every signature. Required.
	Region string
	// BaseURL is the address of another server that implements the API. Defaults to
	// AWS's own in Region.
	BaseURL string
	// Temperature is the sampling temperature. Defaults to the model's own.
	Temperature *float64
	// HTTPClient sends the requests, but never follows a redirect. Models that share a
	// client share its connections. Defaults to a new client with the timeouts of
	// package upstream.
	HTTPClient *http.Client
	// Credentials sign the requests. Required.
	Credentials Credentials
}

// Credentials are AWS credentials. SessionToken is empty for the long-term credentials
// of a user and required for those of a role.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// Model is a model behind the Converse API, POST /model/{id}/converse and
// /model/{id}/converse-stream.
type Model struct {
	options     Options
	client      *http.Client // for streams
	wholeClient *http.Client // for answers in one piece
	signer      *v4.Signer
	credentials aws.Credentials
	retryer     aws.Retryer
	// skew is by how much AWS's clock is ahead of this computer's, in nanoseconds; 0 until AWS refuses a signature for
	// it.
	skew atomic.Int64
}

// New returns a model configured by o alone. It doesn't connect.
func New(o Options) *Model {
	return newModel(o, retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxBackoff = maxBackoff
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(noRetryWithDelay)}, s.Retryables...)
	}))
}

// maxBackoff limits the pauses between the three attempts of the SDK's retryer. All
// attempts come before the first byte of an answer.
const maxBackoff = 10 * time.Second

// noRetryWithDelay forbids the retryer to repeat a request if the response states a delay,
// or if the model is still being loaded. The caller gets the error, with that delay as
// Retry-After, instead: a run that only waits would hold its lease, a connection and, on
// Lambda, paid time.
func noRetryWithDelay(err error) aws.Ternary {
	e, ok := errors.AsType[*httpError](err)
	if ok && (upstream.RetryAfter(e.header) > 0 || e.code == modelNotReady && e.status == http.StatusTooManyRequests) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// newModel returns a model whose failed requests are repeated as retryer decides.
func newModel(o Options, retryer aws.Retryer) *Model {
	return &Model{
		options: o, client: withoutRedirects(o.HTTPClient, upstream.HeaderTimeout),
		wholeClient: withoutRedirects(o.HTTPClient, 0), signer: v4.NewSigner(), retryer: retryer,
		credentials: aws.Credentials{
			AccessKeyID: o.Credentials.AccessKeyID, SecretAccessKey: o.Credentials.SecretAccessKey,
			SessionToken: o.Credentials.SessionToken,
		},
	}
}

// withoutRedirects returns a client that doesn't follow redirects: a signature is valid
// for one host only, and the session token in its header must not reach another host.
// header is the limit for the response's header where no client is configured; see
// upstream.NewTransport.
func withoutRedirects(configured *http.Client, header time.Duration) *http.Client {
	client := &http.Client{}
	if configured != nil {
		*client = *configured
	} else {
		client.Transport = upstream.NewTransport(header)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// Describe returns AgentOS's names for this model.
func (m *Model) Describe() model.Description {
	return model.Describe("bedrock", m.options.ID)
}

// Stream implements model.Model. An answer is complete when its stop reason has
// arrived. What happens to the connection afterwards doesn't matter: at worst the usage
// is missing and counts as zero. Without a stop reason the answer is an error, also
// after a clean end of the body. The model's reasoning isn't part of the answer's text, but
// of Part.Reasoning and, where the API requires it back, of End.Opaque.
func (m *Model) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { m.Ask(ctx, r)(yield) }
}

// Ask implements model.Asker.
func (m *Model) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	request, cancel := context.WithCancel(ctx)
	resp, tools, err := m.request(request, r) //nolint:bodyclose // the sequence closes it, and so does the end of ctx
	return func(yield func(model.Part, error) bool) {
		defer cancel()
		var end *model.End
		if err == nil {
			defer func() { _ = resp.Body.Close() }()
			piece := func(p model.Part) bool { return yield(p, nil) }
			if r.Whole {
				end, err = m.whole(resp, tools, piece)
			} else {
				end, err = m.stream(resp, tools, cancel, piece)
			}
		}
		switch {
		case err == nil && end == nil: // the consumer stopped reading
		case err != nil && ctx.Err() != nil:
			yield(model.Part{}, context.Cause(ctx))
		case err != nil:
			yield(model.Part{}, err)
		default:
			yield(model.Part{End: end}, nil)
		}
	}
}

// request sends a request, and returns the names that the tools have in it.
func (m *Model) request(ctx context.Context, r model.Request) (*http.Response, *names.Map, error) {
	c, err := m.options.conversation(r)
	if err != nil {
		return nil, nil, err
	}
	client, operation := m.client, "converse-stream"
	if r.Whole {
		client, operation = m.wholeClient, "converse"
	}
	resp, err := m.post(ctx, client, operation, c.request)
	if err != nil {
		return nil, nil, m.options.callError(err)
	}
	return resp, c.names, nil
}
