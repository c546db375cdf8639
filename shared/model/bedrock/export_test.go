package bedrock

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// Once is New without further tries.
func Once(o Options) *Model { return newModel(o, aws.NopRetryer{}) }

// Hasty is New without pauses between the tries.
func Hasty(o Options) *Model {
	return newModel(o, retry.NewStandard(func(s *retry.StandardOptions) {
		s.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(waitIsTheCallers)}, s.Retryables...)
	}))
}

// Public is what of a vendor's text a caller may hear.
func Public(o Options, text string) string { return o.public(text) }
