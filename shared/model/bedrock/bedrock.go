// Package bedrock implements model.Model for the models of Amazon Bedrock, by its
// Converse API. It decides how a conversation becomes a request, when an answer is
// complete, and which part of a failure a caller sees. It takes credentials, region and
// address from Options alone and never reads the environment or AWS's configuration
// files.
package bedrock

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"

	"github.com/keyway-agents/keyway/shared/model"
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
	client      *bedrockruntime.Client
	wholeClient sender // for answers in one piece
}

// New returns a model configured by o alone. It doesn't connect.
func New(o Options) *Model {
	return newModel(o, retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxBackoff = maxBackoff
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(noRetryWithDelay)}, s.Retryables...)
	}))
}

// maxBackoff limits the pauses between the SDK's three attempts. All attempts come
// before the first byte of an answer.
const maxBackoff = 10 * time.Second

// noRetryWithDelay forbids the SDK to repeat a request if the response states a delay.
// The caller gets the error with that delay as Retry-After instead: a run that only
// waits would hold its lease, a connection and, on Lambda, paid time.
func noRetryWithDelay(err error) aws.Ternary {
	if _, header := response(err); upstream.RetryAfter(header) > 0 {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// newModel returns a model whose failed requests are repeated as retryer decides.
func newModel(o Options, retryer aws.Retryer) *Model {
	client := withoutRedirects(o.HTTPClient, upstream.HeaderTimeout)
	credentials := aws.Credentials{
		AccessKeyID: o.Credentials.AccessKeyID, SecretAccessKey: o.Credentials.SecretAccessKey,
		SessionToken: o.Credentials.SessionToken,
	}
	options := bedrockruntime.Options{
		Region: o.Region, Retryer: retryer, HTTPClient: client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return credentials, nil
		}),
	}
	if o.BaseURL != "" {
		options.BaseEndpoint = &o.BaseURL
	}
	return &Model{
		options: o, client: bedrockruntime.New(options, ignoreEnvironment),
		wholeClient: withoutRedirects(o.HTTPClient, 0),
	}
}

// ignoreEnvironment undoes what the SDK's New does if the environment has
// AWS_BEARER_TOKEN_BEDROCK: it would send that token instead of a signature, and the
// requests would have another identity than the configured one
// (https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html).
func ignoreEnvironment(o *bedrockruntime.Options) {
	o.BearerAuthTokenProvider, o.AuthSchemePreference, o.APIOptions = nil, nil, nil
}

// withoutRedirects returns a client that doesn't follow redirects: a signature is valid
// for one host only, and the session token in its header must not reach another host.
// header is the limit for the response's header where no client is configured; see
// upstream.NewTransport.
func withoutRedirects(configured *http.Client, header time.Duration) sender {
	client := &http.Client{}
	if configured != nil {
		*client = *configured
	} else {
		client.Transport = upstream.NewTransport(header)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return sender{client}
}

// sender sends requests whose bodies the SDK can't close. The SDK (smithy-go v1.28) closes
// the body as soon as the header of the response has arrived. If net/http has not noticed
// the end of the body by then, it takes that for a failed request and closes the connection
// in the middle of the answer. This happens with servers that are near.
type sender struct{ client *http.Client }

// Do implements the SDK's HTTPClient.
func (s sender) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body) // it is in memory already
		if err != nil {
			return nil, err
		}
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return s.client.Do(r) // #nosec G704 -- the address is the region's or the operator's
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
	return func(yield func(model.Part, error) bool) {
		request, cancel := context.WithCancel(ctx)
		defer cancel()
		read := m.stream
		if r.Whole {
			read = m.whole
		}
		end, err := read(request, r, func(p model.Part) bool { return yield(p, nil) })
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
