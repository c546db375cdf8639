//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// slowRun is the message of a run whose model takes a while, and modelTime is how long that is.
const (
	slowRun   = "wait before the answer"
	modelTime = 2 * time.Second
)

// answerText is what the model answers, always.
const answerText = "fine"

// model speaks OpenAI's chat completions.
type model struct {
	url string
	web *http.Server
}

// openModel starts the model on a free port.
func openModel(ctx context.Context) (*model, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", complete)
	m := &model{url: "http://" + l.Addr().String() + "/v1"}
	m.web = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = m.web.Serve(l) }()
	return m, nil
}

func (m *model) close() error { return m.web.Close() }

var asksToWait = regexp.MustCompile(slowRun + `"?\W*$`)

// complete answers a request, streamed or as a whole.
func complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Stream   bool `json:"stream"`
		Messages []struct {
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Messages) == 0 {
		http.Error(w, `{"error":{"message":"not a chat request"}}`, http.StatusBadRequest)
		return
	}
	last := in.Messages[len(in.Messages)-1].Content
	if asksToWait.Match(last[max(0, len(last)-100):]) && harness.Wait(r.Context(), modelTime) != nil {
		return
	}
	const about = `"id":"chatcmpl-hostile","created":1700000000,"model":"gpt-4o"`
	const usage = `"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`
	if !in.Stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{%s,"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",`+
			`"content":%q},"finish_reason":"stop"}],%s}`, about, answerText, usage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, rest := range []string{
		fmt.Sprintf(`"choices":[{"index":0,"delta":{"role":"assistant","content":%q},"finish_reason":null}]`, answerText),
		`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`,
		`"choices":[],` + usage,
	} {
		_, _ = fmt.Fprintf(w, "data: {%s,\"object\":\"chat.completion.chunk\",%s}\n\n", about, rest)
	}
	_, _ = fmt.Fprint(w, "data: [DONE]\n\n")
}
