package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/queue/queuetest"
	"github.com/keyway-agents/keyway/shared/queue/sqs"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
)

const (
	visible   = types.QueueAttributeNameApproximateNumberOfMessages
	invisible = types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
)

// environment is the environment of a program that uses the server at endpoint.
func environment(endpoint string) func(string) (string, bool) {
	vars := sqstest.Environment(endpoint)
	return func(name string) (string, bool) { text, ok := vars[name]; return text, ok }
}

var queues atomic.Int64

func create(t *testing.T, endpoint string, visibility time.Duration) string {
	t.Helper()
	made, err := sqstest.Client(endpoint).CreateQueue(t.Context(), &awssqs.CreateQueueInput{
		QueueName:  aws.String(fmt.Sprintf("runs-%d", queues.Add(1))),
		Attributes: map[string]string{"VisibilityTimeout": fmt.Sprint(int(visibility.Seconds()))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return *made.QueueUrl
}

func open(t *testing.T, url, endpoint string) queue.Queue {
	t.Helper()
	q, err := sqs.Open(url, environment(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestSQSIsAQueue(t *testing.T) {
	t.Parallel()
	isAQueue(t, sqstest.Start(t), false)
}

func TestElasticMQIsAQueue(t *testing.T) {
	t.Parallel()
	isAQueue(t, sqstest.StartElasticMQ(t), true)
}

func isAQueue(t *testing.T, endpoint string, singleUse bool) {
	t.Helper()
	queuetest.Run(t, func(t *testing.T, visibility time.Duration) queuetest.Fixture {
		t.Helper()
		url := create(t, endpoint, visibility)
		return queuetest.Fixture{
			SingleUse: singleUse,
			Queue:     open(t, url, endpoint), Other: open(t, url, endpoint), NewID: uuid.New,
			WaitUntilVisible: func(ctx context.Context) { awaitVisible(ctx, t, sqstest.Client(endpoint), url) },
			// A standard queue delivers a message at least once. The stand-in for SQS sometimes gives two receivers the same
			// message.
			Duplicates: 4,
		}
	})
}

// awaitVisible polls until the queue has no invisible message.
func awaitVisible(ctx context.Context, t *testing.T, c *awssqs.Client, url string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		a, err := c.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &url,
			AttributeNames: []types.QueueAttributeName{invisible}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Attributes[string(invisible)] == "0" {
			return
		}
	}
	t.Fatal("received messages stay invisible")
}

func TestAMessageWithoutARunIDIsDropped(t *testing.T) {
	t.Parallel()
	dropsMessageWithoutRunID(t, sqstest.Start(t))
}

func TestAMessageWithoutARunIDIsDroppedFromElasticMQ(t *testing.T) {
	t.Parallel()
	dropsMessageWithoutRunID(t, sqstest.StartElasticMQ(t))
}

func dropsMessageWithoutRunID(t *testing.T, endpoint string) {
	t.Helper()
	url := create(t, endpoint, time.Second)
	if _, err := sqstest.Client(endpoint).SendMessage(t.Context(),
		&awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("hello")}); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, url, endpoint).Receive(t.Context(), 1); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	awaitVisible(t.Context(), t, sqstest.Client(endpoint), url)
	a, err := sqstest.Client(endpoint).GetQueueAttributes(t.Context(),
		&awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{visible}})
	if err != nil || a.Attributes[string(visible)] != "0" {
		t.Errorf("%v %v", a, err)
	}
}

func TestAQueueThatCannotBeReachedIsUnavailable(t *testing.T) {
	t.Parallel()
	vars := sqstest.Environment("")
	vars["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1" // the variable for all services
	q, err := sqs.Open("http://127.0.0.1:1/123456789012/runs",
		func(name string) (string, bool) { text, ok := vars[name]; return text, ok })
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Enqueue(t.Context(), uuid.New(), "ann", 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v", err)
	}
	bare, err := sqs.Open("https://sqs.eu-west-1.amazonaws.com/123456789012/runs",
		func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.Enqueue(t.Context(), uuid.New(), "ann", 0); !errors.Is(err, fault.Unavailable) ||
		!strings.Contains(err.Error(), "no AWS credentials in the environment") {
		t.Errorf("no credentials: %v", err)
	}
}

func TestAnInvalidQueueURLIsRejected(t *testing.T) {
	t.Parallel()
	for url, remedy := range map[string]string{"": "it looks like https://sqs.", "runs": "it looks like https://sqs.",
		"http://[": "it looks like", "http://127.0.0.1:5000/1/runs": "set AWS_REGION"} {
		_, err := sqs.Open(url, func(string) (string, bool) { return "", false })
		if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Detail(err), remedy) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestEachMessageNamesTheShareItCountsIn(t *testing.T) {
	t.Parallel()
	namesShares(t, sqstest.Start(t))
}

func TestEachMessageToElasticMQNamesTheShareItCountsIn(t *testing.T) {
	t.Parallel()
	namesShares(t, sqstest.StartElasticMQ(t))
}

// namesShares sends messages of two callers, at once and delayed. SQS delivers those of a caller with few messages
// before those of one with many by their message groups; no stand-in for SQS imitates the order.
func namesShares(t *testing.T, endpoint string) {
	t.Helper()
	url := create(t, endpoint, time.Minute)
	q, who := open(t, url, endpoint), map[string]string{}
	for i := range 8 {
		id, caller, delay := uuid.New(), []string{"low@example.com", "bob@example.com"}[i%2], time.Duration(i/4)*time.Second
		if err := q.Enqueue(t.Context(), id, caller, delay); err != nil {
			t.Fatal(err)
		}
		who[id.String()] = caller
	}
	groups := map[string]string{}
	for deadline := time.Now().Add(30 * time.Second); len(who) > 0 && time.Now().Before(deadline); {
		got, err := sqstest.Client(endpoint).ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url,
			MaxNumberOfMessages: 10, WaitTimeSeconds: 1,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageGroupId}})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got.Messages {
			group := m.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]
			caller := who[*m.Body]
			if known, ok := groups[caller]; group == "" || strings.Contains(group, caller) || ok && known != group {
				t.Errorf("a message of %s is in the group %q, another one in %q", caller, group, known)
			}
			groups[caller] = group
			delete(who, *m.Body)
		}
	}
	if len(who) > 0 || len(groups) != 2 || groups["low@example.com"] == groups["bob@example.com"] {
		t.Errorf("%d messages are missing, and the groups are %v", len(who), groups)
	}
}
