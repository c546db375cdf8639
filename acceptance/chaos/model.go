//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// What the model reports for each of its answers.
const (
	promptTokens = 10
	answerTokens = 5
)

// outside is what the runs use: a model that speaks OpenAI's chat completions, and the server of the tools. Each
// process under test has addresses of its own, which begin with its name, so that the journal says which process asked.
type outside struct {
	url     string
	journal *journal
	web     *http.Server
}

// openOutside starts the server on a free port.
func openOutside(ctx context.Context, j *journal) (*outside, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &outside{url: "http://" + l.Addr().String(), journal: j}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{process}/v1/chat/completions", o.complete)
	mux.HandleFunc("POST /{process}/tools/{tool}", o.call)
	mux.HandleFunc("GET /{process}/user/{key}", o.user)
	o.web = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = o.web.Serve(l) }()
	return o, nil
}

func (o *outside) close() error { return o.web.Close() }

// message is a message of the conversation, as the model receives it.
type message struct {
	Role       string `json:"role"`
	Content    any    `json:"content"`
	ToolCallID string `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string `json:"id"`
		Function struct {
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// text is the content, which is a text or a list of parts with a text.
func (m message) text() string {
	switch c := m.Content.(type) {
	case string:
		return c
	case []any:
		var b strings.Builder
		for _, part := range c {
			if object, ok := part.(map[string]any); ok {
				fmt.Fprint(&b, object["text"])
			}
		}
		return b.String()
	}
	return ""
}

// readConversation finds the script of the run and the number of its steps so far. wrong describes what a conversation
// never has: a message twice, or a call without exactly one result.
func readConversation(messages []message) (s script, step int, wrong string) {
	seen := map[string]bool{}
	once := func(what string) {
		if seen[what] {
			wrong = "the conversation has " + what + " twice"
		}
		seen[what] = true
	}
	open := map[string]bool{} // the ids of calls that have no result yet
	for _, m := range messages {
		if m.Role != "tool" && len(open) > 0 {
			wrong = fmt.Sprintf("calls without a result: %d", len(open))
			clear(open)
		}
		switch m.Role {
		case "user":
			if next, ok := parseScript(m.text()); ok {
				s, step = next, 0
				once("the message of " + s.ID)
			}
		case "assistant":
			step++
			if text := m.text(); text != "" {
				once("the answer " + text)
			}
			for _, c := range m.ToolCalls {
				once("the call " + c.Function.Arguments)
				if open[c.ID] {
					wrong = fmt.Sprintf("two calls of one answer have the id %q", c.ID)
				}
				open[c.ID] = true
			}
		case "tool":
			if !open[m.ToolCallID] {
				wrong = fmt.Sprintf("a result for no open call, id %q", m.ToolCallID)
			}
			delete(open, m.ToolCallID)
		}
	}
	return s, step, wrong
}

// complete answers POST /v1/chat/completions as the script of the conversation says.
func (o *outside) complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Stream   bool      `json:"stream"`
		Messages []message `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, `{"error":{"message":"not a chat request"}}`, http.StatusBadRequest)
		return
	}
	a := &ask{Process: r.PathValue("process")}
	a.Script, a.Step, a.Wrong = readConversation(in.Messages)
	done := o.journal.began(a)
	err := o.answer(w, r, a, in.Stream)
	done(err == nil)
}

// answer writes the model's answer to a, in pieces or as a whole.
func (o *outside) answer(w http.ResponseWriter, r *http.Request, a *ask, streamed bool) error {
	s := a.Script
	if !streamed {
		if err := harness.Wait(r.Context(), s.pace()*time.Duration(s.Words)); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		reason, content := "stop", map[string]any{"role": "assistant", "content": s.text()}
		if !a.final() {
			reason, content = "tool_calls", map[string]any{"role": "assistant", "tool_calls": s.toolCalls(a.Step + 1)}
		}
		return json.NewEncoder(w).Encode(chunk("message", content, reason))
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(deltas ...map[string]any) error {
		for _, d := range deltas {
			data, err := json.Marshal(d)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
				return err
			}
		}
		return http.NewResponseController(w).Flush()
	}
	if err := send(chunk("delta", map[string]any{"role": "assistant", "content": ""}, nil)); err != nil {
		return err
	}
	reason := "stop"
	if a.final() {
		for i := range s.Words {
			if err := harness.Wait(r.Context(), s.pace()); err != nil {
				return err
			}
			if err := send(chunk("delta", map[string]any{"content": s.word(i)}, nil)); err != nil {
				return err
			}
		}
	} else {
		reason = "tool_calls"
		if err := harness.Wait(r.Context(), s.pace()*time.Duration(s.Words)/2); err != nil {
			return err
		}
		if err := send(chunk("delta", map[string]any{"tool_calls": s.toolCalls(a.Step + 1)}, nil)); err != nil {
			return err
		}
	}
	last := chunk("delta", map[string]any{}, nil)
	last["choices"] = []any{}
	last["usage"] = usage
	if err := send(chunk("delta", map[string]any{}, reason), last); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "data: [DONE]\n\n")
	return err
}

var usage = map[string]any{
	"prompt_tokens": promptTokens, "completion_tokens": answerTokens, "total_tokens": promptTokens + answerTokens,
}

// chunk is a chunk of a stream (kind is delta), or a whole answer (kind is message).
func chunk(kind string, content map[string]any, reason any) map[string]any {
	out := map[string]any{
		"id": "chatcmpl-chaos", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-4o",
		"choices": []any{map[string]any{"index": 0, kind: content, "finish_reason": reason}},
	}
	if kind == "message" {
		out["object"], out["usage"] = "chat.completion", usage
	}
	return out
}

// toolCalls are the calls that the model requests in a round.
func (s script) toolCalls(round int) (calls []map[string]any) {
	name, argument := s.Tool, s.Argument
	if round == s.Pause {
		name, argument = "pay", "key"
	}
	for i := range s.Calls {
		arguments, err := json.Marshal(map[string]string{argument: s.key(round, i)})
		if err != nil {
			panic(err) // texts
		}
		calls = append(calls, map[string]any{
			"index": i, "id": s.vendorID(round, i), "type": "function",
			"function": map[string]any{"name": name, "arguments": string(arguments)},
		})
	}
	return calls
}

// call answers a call of the tools note and pay.
func (o *outside) call(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o.record(w, r, call{
		Key: q.Get("key"), Tool: r.PathValue("tool"), Run: q.Get("run"), ID: q.Get("call"), Process: r.PathValue("process"),
	}, "noted "+q.Get("key"))
}

// user answers a call of the built-in tool get_user_details. The functions have it, since they have no tools in Go.
func (o *outside) user(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimSuffix(r.PathValue("key"), ".json")
	o.record(w, r, call{Key: key, Tool: "get_user_details", Process: r.PathValue("process")},
		fmt.Sprintf(`{"id":%q,"karma":1}`, key))
}

// record notes a call and answers after a moment.
func (o *outside) record(w http.ResponseWriter, r *http.Request, c call, answer string) {
	defer o.journal.called(c)()
	if harness.Wait(r.Context(), time.Duration(hash(c.Key)%400)*time.Millisecond) == nil {
		_, _ = fmt.Fprint(w, answer) // #nosec G705 -- no browser reads it
	}
}
