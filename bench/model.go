package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// burst is how much of a fast model's answer comes in one piece.
	burst = 16 << 10
	// pace is a slow model's time between two events, and before the first.
	pace = 10 * time.Millisecond
	// pacedTokens is short: the cell that uses it waits for the first alone.
	pacedTokens = 3
)

// model stands in for a vendor: OpenAI's chat completions with a fixed answer, so
// that what is measured is the server between it and the caller.
type model struct {
	url         string // …/v1
	fast, paced *answer
	now         atomic.Pointer[answer] // what it answers
	watch       atomic.Pointer[watch]
	web         *http.Server
}

// watch is told what happens at the model.
type watch struct {
	asked func() // a question came
	quiet func() // nothing was said for a gap; the next event leaves afterwards
}

// answer is one answer in both forms.
type answer struct {
	text   string
	whole  []byte   // not streamed
	pieces [][]byte // streamed: a write and a flush each
	gap    time.Duration
}

func serveModel(ctx context.Context, tokens int) (*model, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &model{url: "http://" + l.Addr().String() + "/v1", fast: newAnswer(tokens, burst, 0), paced: newAnswer(pacedTokens, 0, pace)}
	m.now.Store(m.fast)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", m.complete)
	m.web = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = m.web.Serve(l) }()
	return m, nil
}

func (m *model) close() error { return m.web.Close() }

func (m *model) complete(w http.ResponseWriter, r *http.Request) {
	a := m.now.Load()
	var in struct {
		Stream   bool  `json:"stream"`
		Messages []any `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Messages) == 0 {
		http.Error(w, `{"error":{"message":"not a chat request"}}`, http.StatusBadRequest)
		return
	}
	watch := m.watch.Load()
	if watch != nil {
		watch.asked()
	}
	if !in.Stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.whole)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, piece := range a.pieces {
		if a.gap > 0 {
			select {
			case <-time.After(a.gap):
			case <-r.Context().Done():
				return
			}
		}
		if watch != nil {
			watch.quiet()
		}
		if _, err := w.Write(piece); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
	}
}

// newAnswer makes an answer of so many tokens whose stream comes in pieces of at
// least size bytes (0: every event alone). The tokens differ, so that one that is
// lost or comes twice is seen.
func newAnswer(tokens, size int, gap time.Duration) *answer {
	const head = `{"id":"chatcmpl-bench","object":"%s","created":1700000000,"model":"gpt-4o","service_tier":"default","system_fingerprint":"fp_bench",`
	usage := fmt.Sprintf(`"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}`, tokens, tokens+10)
	chunk := func(rest string) string {
		return "data: " + fmt.Sprintf(head, "chat.completion.chunk") + rest + "\n\n"
	}
	choice := func(delta, finish string) string {
		return chunk(fmt.Sprintf(`"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}],"usage":null}`, delta, finish))
	}
	a := &answer{gap: gap}
	var piece []byte
	add := func(event string) {
		if piece = append(piece, event...); len(piece) >= size {
			a.pieces, piece = append(a.pieces, piece), nil
		}
	}
	add(choice(`"role":"assistant","content":"","refusal":null`, "null"))
	for i := range tokens {
		token := strings.TrimPrefix(fmt.Sprintf(" word%d", i), strings.Repeat(" ", max(0, 1-i)))
		a.text += token
		add(choice(`"content":"`+token+`"`, "null"))
	}
	add(choice("", `"stop"`))
	add(chunk(`"choices":[],` + usage))
	add("data: [DONE]\n\n")
	if len(piece) > 0 {
		a.pieces = append(a.pieces, piece)
	}
	a.whole = []byte(fmt.Sprintf(head, "chat.completion") + `"choices":[{"index":0,"message":{"role":"assistant","content":"` + a.text +
		`","refusal":null},"logprobs":null,"finish_reason":"stop"}],` + usage)
	return a
}
