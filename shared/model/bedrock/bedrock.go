// Package bedrock talks to the models of Amazon Bedrock through its Converse API.
// It decides how a conversation becomes a request, when an answer is complete, and
// what the caller may read of a failure. It knows nothing of agents or
// configuration, and takes credentials and region from its options alone, never
// from the environment or from AWS's files.
package bedrock

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Options say which model to use, where, and as whom.
type Options struct {
	ID          string       // a model's or inference profile's id or ARN: "eu.amazon.nova-lite-v1:0"
	Region      string       // "eu-central-1"; part of the host's name and of every signature
	BaseURL     string       // another address that speaks the API; "" is AWS's own in Region
	Temperature *float64     // nil leaves it to the model
	HTTPClient  *http.Client // nil makes one; share one between models to share its connections

	Credentials Credentials
}

// Credentials sign the requests. SessionToken is empty for those of a user.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// Model is a model behind POST /model/{id}/converse and converse-stream.
type Model struct {
	options Options
	client  *bedrockruntime.Client
	patient *http.Client // for answers in one piece
}

// New makes a model from the options alone.
func New(o Options) *Model {
	return newModel(o, retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxBackoff = maxBackoff
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(waitIsTheCallers)}, s.Retryables...)
	}))
}

// maxBackoff bounds the pauses between the SDK's three tries, all of them before
// a stream's first byte.
const maxBackoff = 10 * time.Second

// waitIsTheCallers holds the SDK back where the vendor says when to come again: the
// caller is told, and holds no lease and no connection meanwhile.
func waitIsTheCallers(err error) aws.Ternary {
	if _, header := response(err); upstream.RetryAfter(header, retryMilliseconds) > 0 {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

func newModel(o Options, retryer aws.Retryer) *Model {
	client := signedOnly(o.HTTPClient, upstream.HeaderPatience)
	c := o.Credentials
	options := bedrockruntime.Options{
		Region: o.Region, Retryer: retryer, HTTPClient: client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}, nil
		}),
	}
	if o.BaseURL != "" {
		options.BaseEndpoint = &o.BaseURL
	}
	return &Model{options: o, client: bedrockruntime.New(options, ignoreEnvironment), patient: signedOnly(o.HTTPClient, 0)}
}

// ignoreEnvironment undoes what the SDK does by itself where AWS_BEARER_TOKEN_BEDROCK
// is set: it would send that in place of a signature.
func ignoreEnvironment(o *bedrockruntime.Options) {
	o.BearerAuthTokenProvider, o.AuthSchemePreference, o.APIOptions = nil, nil, nil
}

// signedOnly is a client that follows no redirect: a signature is for one host, and
// a session token must not reach another. header is how long it waits for the
// answer's where no client is configured, and 0 is as long as the request's context
// does.
func signedOnly(configured *http.Client, header time.Duration) *http.Client {
	client := &http.Client{}
	if configured != nil {
		*client = *configured
	} else {
		client.Transport = upstream.NewTransport(header)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// Describe uses the peer's names.
func (m *Model) Describe() model.Description {
	return model.Describe("bedrock", m.options.ID)
}

// Stream implements model.Model. The vendor's end mark is the stop reason: with it
// an answer is whole, whatever becomes of the connection then (at worst the usage
// is missing and counts as zero); without it the answer is an error, also after a
// clean end. What a model thinks aloud is no part of the answer.
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
		case err == nil && end == nil: // the listener left
		case err != nil && ctx.Err() != nil:
			yield(model.Part{}, context.Cause(ctx))
		case err != nil:
			yield(model.Part{}, err)
		default:
			yield(model.Part{End: end}, nil)
		}
	}
}
