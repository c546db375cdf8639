package api_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestChatCompletionRunsTheAgentThatTheBodyNames(t *testing.T) {
	t.Parallel()
	s := newService(t, text("It ", "works."))
	body := `{"model":"a","messages":[{"role":"user","content":"hi"}]}`
	r := s.do("ann POST /v1/chat/completions", body).want(t, http.StatusOK, `"object":"chat.completion"`,
		`"message":{"role":"assistant","content":"It works."`, `"finish_reason":"stop"`,
		`"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`)
	run, session := r.Header().Get("X-Run-Id"), r.Header().Get("X-Session-Id")
	s.do("ann GET /agents/a/runs/"+run+"?session_id="+session, "").want(t, http.StatusOK, `"content":"It works."`)
	body = `{"model":"a","stream":true,"stream_options":{"include_usage":true},
		"messages":[{"role":"user","content":"hi"}]}`
	stream := s.do("ann POST /v1/chat/completions", body).want(t, http.StatusOK)
	id := strings.ReplaceAll(stream.Header().Get("X-Run-Id"), "-", "")
	got := regexp.MustCompile(`"created":\d+`).ReplaceAllString(stream.Body.String(), `"created":1`)
	chunk := `data: {"id":"chatcmpl-` + id + `","object":"chat.completion.chunk","created":1,"model":"a","choices":[`
	want := strings.Join([]string{
		chunk + `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{"content":"It "},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{"content":"works."},"finish_reason":null}]}`,
		chunk + `{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		chunk + `],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`,
		"data: [DONE]", "",
	}, "\n\n")
	if got != want {
		t.Errorf("the stream is %s\nwant %s", got, want)
	}
}

func TestModelsAreTheAgentsThatTheCallerMayRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.expect(t, map[string]exchange{
		"all": {"ann GET /v1/models", "", 200, `"data":[{"id":"a",`},
		"one": {"mapped GET /v1/models", "", 200, `{"object":"list","data":[` +
			`{"id":"a","object":"model","created":0,"owned_by":"keyway","name":"Agent a"}]}`},
		"this":      {"mapped GET /v1/models/a", "", 200, `{"id":"a","object":"model"`},
		"forbidden": {"mapped GET /v1/models/b", "", 403, `"missing":["agents:b:run"]`},
		"unknown": {"ann GET /v1/models/c", "", 404, `{"error":{"message":"Agent not found",` +
			`"type":"invalid_request_error","param":null,"code":"not_found"}}`},
		"scopeless": {"scopeless GET /v1/models", "", 403, `{"error":{"message":"`},
		"no path":   {"ann GET /v1/engines", "", 404, `{"error":{"message":"Not Found"`},
	})
}
