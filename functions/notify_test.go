package functions_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
)

// The function that ends a run wakes the worker, and the worker reports the end. What the webhook refuses stays, and a
// delayed message wakes a worker again.
func TestTheWorkerReportsTheEndOfARunToTheWebhook(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	verifier, err := webhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var received []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(r.Body)
		if err == nil {
			err = verifier.Verify(payload, r.Header)
		}
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if received = append(received, string(payload)); len(received) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(hook.Close)
	s := newStack(t, sqstest.Start(t), modeltest.Text("done"))
	file := strings.Replace(keyway, "{", `{"notify":{"url":"`+hook.URL+`","secret":"${HOOK_SECRET}"},`, 1)
	if err := os.WriteFile(filepath.Join(s.dir, "keyway.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	s.environment = append(s.environment, "HOOK_SECRET="+secret)
	body, headers := form("message", "hello", "session_id", "s")
	s.start("runs").ask(request{
		method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body,
	}).want(t, "the run", 200, "RunCompleted")
	s.hold(1, 0)
	worker := s.start("worker")
	s.delivers(worker, 1)
	s.until(func() bool { return s.delayed() == 1 }) // for the next try, in 5 seconds
	s.sql("UPDATE keyway.notices SET next_at = now()")
	s.looks(worker)
	mu.Lock()
	defer mu.Unlock()
	if len(received) != 2 || received[0] != received[1] || !strings.Contains(received[0], `"type":"run.completed"`) ||
		!strings.Contains(received[0], `"run_id":"`+s.only()+`"`) || s.number("SELECT count(*) FROM keyway.notices") != 0 {
		t.Errorf("the webhook gets %q", received)
	}
}

// delayed returns how many messages of the queue are not delivered yet because of their delay.
func (s *stack) delayed() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.attribute(s.queue, types.QueueAttributeNameApproximateNumberOfMessagesDelayed))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
