package sqs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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
)

// visibility is the shortest that SQS has.
const visibility = time.Second

const (
	visible   = types.QueueAttributeNameApproximateNumberOfMessages
	invisible = types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
)

// moto is the address of an imitation of AWS that ends with the test.
func moto(t *testing.T) string {
	t.Helper()
	server := os.Getenv("KEYWAY_MOTO_SERVER")
	if server == "" {
		if reason := "KEYWAY_MOTO_SERVER names no moto_server; run make moto, which says what to set"; os.Getenv("CI") != "" {
			t.Fatal(reason)
		} else {
			t.Skip(reason)
		}
	}
	cmd := exec.CommandContext(t.Context(), server, "-H", "127.0.0.1", "-p", "0")
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if at := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(lines.Text()); at != "" {
			go func() { // or it would block
				for lines.Scan() {
				}
			}()
			return at
		}
	}
	t.Fatal("moto_server ended without an address")
	return ""
}

func environment(endpoint string) func(string) (string, bool) {
	vars := map[string]string{
		"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "test key only", "AWS_ENDPOINT_URL": endpoint,
	}
	return func(name string) (string, bool) { text, ok := vars[name]; return text, ok }
}

// client is the service's own, for what a template does.
func client(endpoint string) *awssqs.Client {
	return awssqs.New(awssqs.Options{Region: "eu-west-1", BaseEndpoint: &endpoint, Credentials: aws.CredentialsProviderFunc(
		func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "test key only"}, nil
		})})
}

var queues atomic.Int64

func create(t *testing.T, endpoint string) string {
	t.Helper()
	made, err := client(endpoint).CreateQueue(t.Context(), &awssqs.CreateQueueInput{
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
	endpoint := moto(t)
	queuetest.Run(t, func(t *testing.T) queuetest.Bench {
		t.Helper()
		url := create(t, endpoint)
		return queuetest.Bench{
			Queue: open(t, url, endpoint), Other: open(t, url, endpoint), NewID: uuid.New,
			Late: func(ctx context.Context) { none(ctx, t, client(endpoint), url) },
		}
	})
}

// none asks until nothing is on its way to anybody.
func none(ctx context.Context, t *testing.T, c *awssqs.Client, url string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		a, err := c.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{invisible}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Attributes[string(invisible)] == "0" {
			return
		}
	}
	t.Fatal("what was received stays invisible")
}

func TestAMessageThatIsNoRunIsThrownAway(t *testing.T) {
	t.Parallel()
	endpoint := moto(t)
	url := create(t, endpoint)
	if _, err := client(endpoint).SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("hello")}); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, url, endpoint).Receive(t.Context(), 1); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	none(t.Context(), t, client(endpoint), url)
	a, err := client(endpoint).GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{visible}})
	if err != nil || a.Attributes[string(visible)] != "0" {
		t.Errorf("%v %v", a, err)
	}
}

func TestAQueueThatCannotBeAskedIsUnavailable(t *testing.T) {
	t.Parallel()
	q := open(t, "http://127.0.0.1:1/123456789012/runs", "http://127.0.0.1:1")
	if err := q.Enqueue(t.Context(), uuid.New(), 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	bare, err := sqs.Open("https://sqs.eu-west-1.amazonaws.com/123456789012/runs", func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.Enqueue(t.Context(), uuid.New(), 0); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no AWS credentials in the environment") {
		t.Errorf("no credentials: %v", err)
	}
}

func TestAURLThatIsNoQueuesIsRefused(t *testing.T) {
	t.Parallel()
	for url, remedy := range map[string]string{"": "it looks like https://sqs.", "runs": "it looks like https://sqs.", "http://[": "it looks like", "http://127.0.0.1:5000/1/runs": "set AWS_REGION"} {
		_, err := sqs.Open(url, func(string) (string, bool) { return "", false })
		if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.Detail(err), remedy) {
			t.Errorf("%q: %v", url, err)
		}
	}
}
