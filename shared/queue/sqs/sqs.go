// Package sqs is the queue on AWS.
package sqs

import (
	"cmp"
	"context"
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

// Queue is a queue.Queue. How long a message may take to be acknowledged, and where
// one goes that nobody acknowledges, is the queue's own configuration.
type Queue struct {
	client *sqs.Client
	url    string
}

// Open prepares the queue with this URL; nothing is asked yet. lookup is the
// environment, from which credentials come as they do in a Lambda function:
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; AWS_REGION, where the
// URL doesn't say; AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL for a server that isn't
// AWS. A URL that is none is fault.Invalid.
func Open(queueURL string, lookup func(string) (string, bool)) (queue.Queue, error) {
	env := awsenv.Lookup(lookup)
	u, err := url.Parse(queueURL)
	if err != nil || u.Host == "" {
		return nil, fault.Public(fault.Invalid, fmt.Sprintf("KEYWAY_QUEUE_URL is %q; it looks like https://sqs.eu-west-1.amazonaws.com/123456789012/runs", queueURL), nil)
	}
	region := cmp.Or(regionOf(u.Host), awsenv.Region(env))
	if region == "" {
		return nil, fault.Public(fault.Invalid, "KEYWAY_QUEUE_URL names no region; set AWS_REGION", nil)
	}
	o := sqs.Options{Region: region, Credentials: awsenv.Provider(env)}
	if endpoint := awsenv.Endpoint(env, "SQS"); endpoint != "" {
		o.BaseEndpoint = &endpoint
	}
	return &Queue{sqs.New(o), queueURL}, nil
}

// regionOf reads the region of a host of AWS's: sqs.<region>.amazonaws.com, and .cn.
func regionOf(host string) string {
	parts := strings.Split(host, ".")
	if len(parts) >= 4 && parts[0] == "sqs" && parts[2] == "amazonaws" {
		return parts[1]
	}
	return ""
}

// mostDelay is the longest that SQS keeps a message back.
const mostDelay = 15 * time.Minute

// Enqueue implements queue.Queue, in whole seconds.
func (q *Queue) Enqueue(ctx context.Context, id uuid.UUID, after time.Duration) error {
	delay := max(0, min(after+time.Second-1, mostDelay)) / time.Second
	_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: aws.String(id.String()), DelaySeconds: int32(delay)})
	return unavailable("enqueue run "+id.String(), err)
}

const (
	mostAtOnce  = 10 // what SQS gives
	waitSeconds = 20 // as long as it waits
)

// Receive implements queue.Queue. What is no run's id is nobody's, and acknowledged
// here.
func (q *Queue) Receive(ctx context.Context, limit int) (out []queue.Message, err error) {
	answer, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: int32(min(limit, mostAtOnce)), WaitTimeSeconds: waitSeconds,
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

// Acknowledge implements queue.Queue.
func (q *Queue) Acknowledge(ctx context.Context, m queue.Message) error {
	_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &m.Receipt})
	return unavailable("acknowledge run "+m.RunID.String(), err)
}

// unavailable gives an error of SQS's its kind: whatever it is, trying again later is
// all that a caller can do.
func unavailable(what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", what, fault.Public(fault.Unavailable, "The queue is not available, try again", err))
}
