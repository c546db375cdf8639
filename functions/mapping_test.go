package functions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// stack is a deployment with the template's queues.
type stack struct {
	deployment
	aws         *sqs.Client
	queue       string // the URL of RunQueue
	givenUp     string // the URL of RunsGivenUp
	environment []string
	runs        function
	limit       time.Duration // of a worker's invocation
}

// template returns a value of template.yaml, at the path below Resources.
func template[T any](t *testing.T, path string) (value T) {
	t.Helper()
	at, err := yaml.PathString("$.Resources." + path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := at.Read(file, &value); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return value
}

// newStack creates the queues as CloudFormation would, and starts the function runs.
func newStack(t *testing.T, endpoint string, scripts ...modeltest.Script) *stack {
	t.Helper()
	s := &stack{deployment: deploy(t, keyway, scripts...), aws: sqstest.Client(endpoint)}
	s.givenUp = s.create("given-up-"+uuid.NewString(), nil)
	redrive, err := json.Marshal(map[string]any{
		"deadLetterTargetArn": s.attribute(s.givenUp, types.QueueAttributeNameQueueArn),
		"maxReceiveCount":     template[int](t, "RunQueue.Properties.RedrivePolicy.maxReceiveCount"),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.queue = s.create("runs-"+uuid.NewString(), map[string]string{
		"RedrivePolicy":     string(redrive),
		"VisibilityTimeout": fmt.Sprint(template[int](t, "RunQueue.Properties.VisibilityTimeout")),
	})
	s.environment = []string{"KEYWAY_QUEUE_URL=" + s.queue}
	for name, value := range sqstest.Environment(endpoint) {
		s.environment = append(s.environment, name+"="+value)
	}
	s.limit = time.Duration(template[int](t, "WorkerFunction.Properties.Timeout")) * time.Second
	s.runs = s.start("runs")
	return s
}

func (s *stack) create(name string, attributes map[string]string) (address string) {
	s.t.Helper()
	made, err := s.aws.CreateQueue(s.t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		s.t.Fatal(err)
	}
	return *made.QueueUrl
}

func (s *stack) attribute(queue string, name types.QueueAttributeName) string {
	s.t.Helper()
	a, err := s.aws.GetQueueAttributes(s.t.Context(),
		&sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []types.QueueAttributeName{name}})
	if err != nil {
		s.t.Fatal(err)
	}
	return a.Attributes[string(name)]
}

// start starts a function with the queue's URL in its environment.
func (s *stack) start(name string) function {
	s.t.Helper()
	return s.deployment.start(name, s.environment...)
}

// hold checks the number of messages in the two queues.
func (s *stack) hold(queue, givenUp int) {
	s.t.Helper()
	if got := [2]int{s.count(s.queue), s.count(s.givenUp)}; got != [2]int{queue, givenUp} {
		s.t.Errorf("%d messages wait, and %d are given up; want %d and %d", got[0], got[1], queue, givenUp)
	}
}

// count returns the number of messages in a queue, received or not. It doesn't count delayed
// messages.
func (s *stack) count(queue string) (n int) {
	s.t.Helper()
	for _, part := range []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible} {
		some, err := strconv.Atoi(s.attribute(queue, part))
		if err != nil {
			s.t.Fatal(err)
		}
		n += some
	}
	return n
}

func (s *stack) send(body string) {
	s.t.Helper()
	if _, err := s.aws.SendMessage(s.t.Context(),
		&sqs.SendMessageInput{QueueUrl: &s.queue, MessageBody: &body}); err != nil {
		s.t.Fatal(err)
	}
}

// receive waits for at least one message.
func (s *stack) receive(queue string, most int) []types.Message {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		got, err := s.aws.ReceiveMessage(s.t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &queue, MaxNumberOfMessages: int32(most), WaitTimeSeconds: 2,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(got.Messages) > 0 {
			return got.Messages
		}
	}
	s.t.Fatal("no message was received in time")
	return nil
}

// poll receives once from a queue that must have no visible message.
func (s *stack) poll() {
	s.t.Helper()
	got, err := s.aws.ReceiveMessage(s.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.queue})
	if err != nil || len(got.Messages) > 0 {
		s.t.Errorf("%d messages, %v", len(got.Messages), err)
	}
}

// patience is the time limit for anything that should take a moment.
const patience = 30 * time.Second

// delivery is a batch of messages, which a worker is processing. It does the part of Lambda's
// event source mapping.
type delivery struct {
	*stack
	worker   function
	messages []types.Message
}

// sends receives n messages and sends them to a worker, without waiting for its answer.
func (s *stack) sends(worker function, n int) delivery {
	s.t.Helper()
	d := delivery{stack: s, worker: worker}
	for len(d.messages) < n {
		d.messages = append(d.messages, s.receive(s.queue, n-len(d.messages))...)
	}
	var e events.SQSEvent
	for _, m := range d.messages {
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle, Body: *m.Body, Md5OfBody: *m.MD5OfBody,
			Attributes:  m.Attributes,
			EventSource: "aws:sqs", EventSourceARN: s.attribute(s.queue, types.QueueAttributeNameQueueArn),
			AWSRegion: "eu-west-1",
		})
	}
	data, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	worker.Send(data, s.limit)
	return d
}

// ends waits for the worker's answer and deletes the messages that it doesn't name as failed.
// If the worker failed, ends deletes none. It returns the bodies of the other messages, which
// become visible again.
func (d delivery) ends() (again []string) {
	d.t.Helper()
	a := d.worker.Answer()
	body := a.Body()
	var out events.SQSEventResponse
	if err := json.Unmarshal(body, &out); err != nil {
		d.t.Fatalf("%s: %v", body, err)
	}
	reports := slices.Contains(template[[]string](d.t,
		"WorkerFunction.Properties.Events.Waiting.Properties.FunctionResponseTypes"), "ReportBatchItemFailures")
	for _, m := range d.messages {
		named := slices.ContainsFunc(out.BatchItemFailures,
			func(f events.SQSBatchItemFailure) bool { return f.ItemIdentifier == *m.MessageId })
		if a.Kind == "error" || reports && named {
			again = append(again, *m.Body)
			d.isLate(m)
			continue
		}
		if _, err := d.aws.DeleteMessage(d.t.Context(),
			&sqs.DeleteMessageInput{QueueUrl: &d.queue, ReceiptHandle: m.ReceiptHandle}); err != nil {
			d.t.Error(err)
		}
	}
	return again
}

// isLate ends the visibility timeout of a message, so that it is received again.
func (d delivery) isLate(m types.Message) {
	d.t.Helper()
	if _, err := d.aws.ChangeMessageVisibility(d.t.Context(),
		&sqs.ChangeMessageVisibilityInput{QueueUrl: &d.queue, ReceiptHandle: m.ReceiptHandle}); err != nil {
		d.t.Error(err)
	}
}

// delivers sends n messages to a worker, and checks which ones must be delivered again.
func (s *stack) delivers(worker function, n int, again ...string) {
	s.t.Helper()
	if diff := cmp.Diff(again, s.sends(worker, n).ends()); diff != "" {
		s.t.Errorf("delivered again: %s\n%s", diff, worker.Stderr)
	}
}

// looks invokes a worker as the schedule does, so that it looks for orphaned runs.
func (s *stack) looks(worker function) {
	s.t.Helper()
	event, err := os.ReadFile("../events/worker-schedule.json")
	if err != nil {
		s.t.Fatal(err)
	}
	a := worker.Invoke(event, time.Minute)
	if body := a.Body(); a.Kind != "response" {
		s.t.Fatalf("%s\n%s", body, worker.Stderr)
	}
}

// accepts starts a run of ann's in session s, in the background.
func (s *stack) accepts() (id string) {
	s.t.Helper()
	body, headers := form("message", "hello", "session_id", "s", "background", "true", "stream", "false")
	got := s.runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body})
	got.want(s.t, "the run", 202, `"status":"PENDING"`)
	var accepted struct {
		ID string `json:"run_id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &accepted); err != nil {
		s.t.Fatal(err)
	}
	return accepted.ID
}

// about sends a request about one run to the function runs.
func (s *stack) about(sub, scopes, id, what string) reply {
	s.t.Helper()
	r := request{method: "POST", path: "/agents/a/runs/" + id + what, sub: sub, scopes: scopes}
	if what == "" {
		r.method, r.path = "GET", r.path+"?session_id=s"
	}
	return s.runs.ask(r)
}

// becomes reads a run as its owner, and checks the attempts and crashes in its row.
func (s *stack) becomes(id, status, content string, attempt, losses int) {
	s.t.Helper()
	got := s.about("ann", everything, id, "")
	got.want(s.t, "its owner", 200, `"status":"`+status+`"`, `"content":"`+content+`"`)
	db, err := store.Open(store.Options{URL: s.db, Schema: storetest.Schema})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Run(s.t.Context(), store.Viewer{All: true}, store.RunQuery{RunID: id})
	if err != nil || r.Attempt != attempt || r.Losses != losses {
		s.t.Errorf("run %s: attempt %d after %d losses, want %d after %d; %v", id, r.Attempt, r.Losses, attempt, losses, err)
	}
}

// asked waits until the model has received this number of requests.
func (s *stack) asked(n int) {
	s.t.Helper()
	s.until(func() bool { return len(s.model.Requests()) >= n })
}

// killer returns a function that kills a worker which was started after the call. It waits until
// PostgreSQL has executed the statements that the worker had sent.
func (s *stack) killer() func(function) {
	s.t.Helper()
	connections := func() int {
		return s.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '" + role +
			"'")
	}
	others := connections()
	return func(worker function) {
		s.t.Helper()
		worker.Kill()
		s.until(func() bool { return connections() <= others })
	}
}

// until waits until the condition is true.
func (s *stack) until(so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("the condition did not become true in time")
		}
	}
}

// sql changes the database directly.
func (s *stack) sql(statement string) { s.t.Helper(); execute(s.t, s.owner, statement) }

// number returns the number that a query selects.
func (s *stack) number(query string) (n int) {
	s.t.Helper()
	one(s, query, &n)
	return n
}

// only returns the id of the only run in the database.
func (s *stack) only() (id string) {
	s.t.Helper()
	one(s, "SELECT run_id::text FROM keyway.runs", &id)
	return id
}

func one(s *stack, query string, into any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(s.t.Context(), query).Scan(into); err != nil {
		s.t.Fatal(err)
	}
}
