package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// burst is how many bytes of a fast model's answer are written at once. A client
	// behind a network sees the events of a fast model in such groups.
	burst = 16 << 10
	// pace is a slow model's time between two events, and before the first. It is longer than
	// the 4 ms for which Keyway collects events, so each event is written alone.
	pace = 10 * time.Millisecond
	// pacedTokens is the length of the slow model's answer. It is short, because the cell
	// that uses it measures the first token only.
	pacedTokens = 3
)

// model replaces the provider: it serves OpenAI's chat completions with a fixed answer.
// A real model takes seconds, and its time varies more than the figures that are compared.
// With a fixed answer, the figures show only the server between the model and the caller.
type model struct {
	// url is the base URL, with /v1.
	url string
	// fast answers at once; paced waits before each event; held stops after the first text, until the pause is
	// released.
	fast, paced, held *answer
	// now is the answer in use.
	now atomic.Pointer[answer]
	// watch observes the model; nil: nothing does.
	watch atomic.Pointer[watch]
	// pause stops the answers that wait; nil: none waits.
	pause atomic.Pointer[pause]
	web   *http.Server
}

// watch holds functions that the model calls. countRuns uses them to count what a server
// does before it asks the model, and while the model streams.
type watch struct {
	// asked is called when a request arrives.
	asked func()
	// quiet is called after each gap, before the next event is written.
	quiet func()
}

// answer is a fixed answer, encoded once for both ways to ask for it.
type answer struct {
	// text is the whole text, which a right answer of a server holds.
	text string
	// whole is the JSON of an answer that is not streamed.
	whole []byte
	// pieces are the events of a stream; each piece is written and flushed at once.
	pieces [][]byte
	// gap is the pause before each piece.
	gap time.Duration
	// holds means that the answer stops after its first piece, like one that takes steps and waits.
	holds bool
}

// serveModel starts the model on a free port. tokens is the length of its answers.
func serveModel(ctx context.Context, tokens int) (*model, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &model{
		url:  "http://" + l.Addr().String() + "/v1",
		fast: newAnswer(tokens, burst, 0), paced: newAnswer(pacedTokens, 0, pace), held: newHeldAnswer(tokens),
	}
	m.now.Store(m.fast)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", m.complete)
	m.web = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = m.web.Serve(l) }()
	return m, nil
}

func (m *model) close() error { return m.web.Close() }

// complete answers POST /v1/chat/completions. It ignores the question, unless that asks
// for steps.
func (m *model) complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server has left
	}
	if n, waits, ok := steps(body); ok {
		m.step(w, r, body, n, waits)
		return
	}
	var in struct {
		Stream   bool  `json:"stream"`
		Messages []any `json:"messages"`
	}
	if err := json.Unmarshal(body, &in); err != nil || len(in.Messages) == 0 {
		http.Error(w, `{"error":{"message":"not a chat request"}}`, http.StatusBadRequest)
		return
	}
	m.reply(w, r, in.Stream, false)
}

// reply sends the answer in use. If waits is true, a stream stops after its first piece
// until the pause is released.
func (m *model) reply(w http.ResponseWriter, r *http.Request, stream, waits bool) {
	a := m.now.Load()
	// The watch is loaded once, so that one request is observed by one watch.
	watch := m.watch.Load()
	if watch != nil {
		watch.asked()
	}
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.whole)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i, piece := range a.pieces {
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
		if p := m.pause.Load(); i == 0 && (waits || a.holds) && p != nil {
			select {
			case p.reached <- struct{}{}:
			default: // the run was continued, and its last answer is asked for again
			}
			select {
			case <-p.release:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// newHeldAnswer makes an answer whose first piece has the role and the first token, and whose second one has the rest.
func newHeldAnswer(tokens int) *answer {
	a := newAnswer(tokens, 0, 0)
	a.holds, a.pieces = true, [][]byte{bytes.Join(a.pieces[:2], nil), bytes.Join(a.pieces[2:], nil)}
	return a
}

// answerHead begins every answer, and every event of a streamed one.
const answerHead = `{"id":"chatcmpl-bench","object":"%s","created":1700000000,"model":"gpt-4o",` +
	`"service_tier":"default","system_fingerprint":"fp_bench",`

// chunk returns an event of a stream that ends with rest.
func chunk(rest string) []byte {
	return []byte("data: " + fmt.Sprintf(answerHead, "chat.completion.chunk") + rest + "\n\n")
}

// newAnswer makes an answer with this number of tokens, streamed in pieces of at least
// size bytes; if size is 0, each event is a piece. The tokens differ from each other, so
// that a server that loses one or sends one twice gives a wrong answer. The events have
// the members that OpenAI's events have, since parsing them is part of a server's work.
func newAnswer(tokens, size int, gap time.Duration) *answer {
	usage := fmt.Sprintf(`"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}`, tokens, tokens+10)
	choice := func(delta, finish string) []byte {
		const choices = `"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}],"usage":null}`
		return chunk(fmt.Sprintf(choices, delta, finish))
	}
	// add appends an event to the current piece, and begins a new one if it is long enough.
	a := &answer{gap: gap}
	var piece []byte
	add := func(event []byte) {
		if piece = append(piece, event...); len(piece) >= size {
			a.pieces, piece = append(a.pieces, piece), nil
		}
	}
	add(choice(`"role":"assistant","content":"","refusal":null`, "null"))
	for i := range tokens {
		// The first token has no space before it, as with a real model.
		token := strings.TrimPrefix(fmt.Sprintf(" word%d", i), strings.Repeat(" ", max(0, 1-i)))
		a.text += token
		add(choice(`"content":"`+token+`"`, "null"))
	}
	add(choice("", `"stop"`))
	add(chunk(`"choices":[],` + usage))
	add([]byte("data: [DONE]\n\n"))
	if len(piece) > 0 {
		a.pieces = append(a.pieces, piece)
	}
	a.whole = []byte(fmt.Sprintf(answerHead, "chat.completion") +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"` + a.text +
		`","refusal":null},"logprobs":null,"finish_reason":"stop"}],` + usage)
	return a
}
