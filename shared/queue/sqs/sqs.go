// Package sqs is the queue on AWS: Amazon SQS. The visibility timeout and the dead-letter queue are configured at the
// queue itself, in template.yaml.
package sqs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/awsenv"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/queue"
)

// Queue implements queue.Queue.
type Queue struct {
	client *sqs.Client
	url    string
}

// Open opens the queue with this URL. It sends no request yet. lookup reads environment variables, as a Lambda function
// has them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; AWS_REGION if the URL has no region;
// AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL for a server other than AWS. An invalid URL, or a missing region, is
// fault.Invalid.
func Open(queueURL string, lookup func(string) (string, bool)) (queue.Queue, error) {
	env := awsenv.Lookup(lookup)
	u, err := url.Parse(queueURL)
	if err != nil || u.Host == "" {
		const text = "KEYWAY_QUEUE_URL is %q; it looks like https://sqs.eu-west-1.amazonaws.com/123456789012/runs"
		return nil, fault.Public(fault.Invalid, fmt.Sprintf(text, queueURL), nil)
	}
	region := cmp.Or(regionOf(u.Host), awsenv.Region(env))
	if region == "" {
		return nil, fault.Public(fault.Invalid, "KEYWAY_QUEUE_URL names no region; set AWS_REGION", nil)
	}
	// The options are set one by one: loading AWS's default configuration would read files and make requests that a
	// function does not need, at each cold start.
	o := sqs.Options{Region: region, Credentials: awsenv.Provider(env)}
	if endpoint := awsenv.Endpoint(env, "SQS"); endpoint != "" {
		o.BaseEndpoint = &endpoint
	}
	return &Queue{sqs.New(o), queueURL}, nil
}

// regionOf returns the region in a host name of AWS, sqs.<region>.amazonaws.com or amazonaws.com.cn, or "".
func regionOf(host string) string {
	parts := strings.Split(host, ".")
	if len(parts) >= 4 && parts[0] == "sqs" && parts[2] == "amazonaws" {
		return parts[1]
	}
	return ""
}

// group returns the message group of a share: a hash of 32 bits, of the queue and the name. Two names may have the same
// one, and then have one share together.
func (q *Queue) group(share string) string {
	sum := sha256.Sum256([]byte(q.url + "\x00" + share))
	return hex.EncodeToString(sum[:4])
}

// maxDelay is the longest delay that SQS accepts.
const maxDelay = 15 * time.Minute

// Enqueue implements queue.Queue. The delay is rounded up to whole seconds and limited to maxDelay: a message that
// arrives too early is harmless, since its receiver finds the lease valid and watches the run again.
//
// The message group makes a standard queue a fair one: see docs/adr/0023.
func (q *Queue) Enqueue(ctx context.Context, id uuid.UUID, share string, after time.Duration) error {
	delay := max(0, min(after+time.Second-1, maxDelay)) / time.Second
	_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: &q.url, MessageBody: aws.String(id.String()), DelaySeconds: int32(delay),
		MessageGroupId: aws.String(q.group(share)),
	})
	return unavailable("enqueue run "+id.String(), err)
}

const (
	maxBatch    = 10 // the most messages that SQS returns at a time
	waitSeconds = 20 // SQS's longest wait for a message (long polling)
)

// Receive implements queue.Queue. A message that holds no run id is acknowledged here and dropped: it would be
// delivered again and again.
func (q *Queue) Receive(ctx context.Context, limit int) (out []queue.Message, err error) {
	answer, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: int32(min(limit, maxBatch)), WaitTimeSeconds: waitSeconds,
	})
	if err != nil {
		return nil, unavailable("receive runs", err)
	}
	for _, m := range answer.Messages {
		id, err := uuid.Parse(aws.ToString(m.Body))
		message := queue.Message{RunID: id, Receipt: aws.ToString(m.ReceiptHandle)}
		if err == nil {
			out = append(out, message)
		} else if err := q.Acknowledge(ctx, message); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Acknowledge implements queue.Queue. SQS may deliver a message once more although it was deleted; its receiver then
// finds nothing to claim.
func (q *Queue) Acknowledge(ctx context.Context, m queue.Message) error {
	_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &m.Receipt})
	return unavailable("acknowledge run "+m.RunID.String(), err)
}

// unavailable gives an error of SQS the kind fault.Unavailable. Whatever the reason is, a caller can only try again
// later.
func unavailable(what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", what, fault.Public(fault.Unavailable, "The queue is not available, try again", err))
}
