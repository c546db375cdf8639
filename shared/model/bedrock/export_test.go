package bedrock

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// NewOnce is New, but the model never repeats a request.
func NewOnce(o Options) *Model { return newModel(o, aws.NopRetryer{}) }

// NewWithoutPauses is New, but the model doesn't pause between its attempts.
func NewWithoutPauses(o Options) *Model {
	return newModel(o, retry.NewStandard(func(s *retry.StandardOptions) {
		s.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(noRetryWithDelay)}, s.Retryables...)
	}))
}

// SafeText gives tests access to Options.safeText.
func SafeText(o Options, text string) string { return o.safeText(text) }
