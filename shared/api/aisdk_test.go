package api_test

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"testing"
)

const chatHi = `{"id":"c","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"hi"}]}]}`

// begin sends a request and returns the id of its run, when the answer has begun, and how to wait for its end.
func (s *service) begin(request, body string) (run string, end func() string) {
	w := &firstWrite{ResponseRecorder: httptest.NewRecorder(), begun: make(chan string)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve(w, request, body)
	}()
	return <-w.begun, func() string { <-ended; return w.Body.String() }
}

func TestAChatInProgressIsResumed(t *testing.T) {
	t.Parallel()
	first, second := make(chan struct{}), make(chan struct{})
	s := newService(t, waitFor(first), callTool("door"), waitFor(second))
	s.do("ann GET /agents/a/ai-sdk/c/stream", "").want(t, 204)
	s.do("ann GET /agents/none/ai-sdk/c/stream", "").want(t, 404, "Agent not found")
	s.do("ann GET /agents/a/ai-sdk/a%00b/stream", "").want(t, 204) // it can be the id of no session
	run, end := s.begin("ann POST /agents/a/ai-sdk", chatHi)
	// One of another user, agent or chat isn't found.
	for _, request := range []string{"bob GET /agents/a/ai-sdk/c/stream", "ann GET /agents/b/ai-sdk/c/stream",
		"ann GET /agents/a/ai-sdk/d/stream", "bound GET /agents/a/ai-sdk/c/stream"} {
		if r := s.do(request, "").want(t, 204); r.Body.Len() > 0 || r.Header().Get("X-Run-Id") != "" {
			t.Errorf("%s: %v %s", request, r.Header(), r.Body)
		}
	}
	again, resumed := s.begin("ann GET /agents/a/ai-sdk/c/stream", "")
	close(first)
	if whole := end(); again != run || resumed() != whole {
		t.Errorf("run %s: %s\nwant %s: %s", again, resumed(), run, whole)
	}
	s.do("ann GET /agents/a/ai-sdk/c/stream", "").want(t, 204)

	paused := s.do("ann POST /agents/a/ai-sdk", chatHi).want(t, 200, "tool-approval-request")
	s.do("ann GET /agents/a/ai-sdk/c/stream", "").want(t, 204)
	call := regexp.MustCompile(`"toolCallId":"([^"]+)"`).FindStringSubmatch(paused.Body.String())[1]
	run, end = s.begin("ann POST /agents/a/ai-sdk", fmt.Sprintf(`{"id":"c","messages":[{"id":"2","role":"assistant",
		"metadata":{"run_id":%q},"parts":[{"type":"dynamic-tool","toolCallId":%q,"state":"approval-responded",
		"approval":{"id":"x","approved":true}}]}]}`, paused.Header().Get("X-Run-Id"), call))
	again, resumed = s.begin("ann GET /agents/a/ai-sdk/c/stream", "")
	close(second)
	if rest := end(); again != run || resumed() != rest {
		t.Errorf("run %s: %s\nwant what follows the pause of %s: %s", again, resumed(), run, rest)
	}
}
