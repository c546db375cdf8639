package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// doorsConfig is the configuration with doors. Other builds, with which the server is compared, may not know them.
const doorsConfig = "bench/doors.yaml"

// door is another API for the same runs; see docs/doors.md. A subject with a door sends its streams and its runs by it.
type door struct {
	name, path string
	// body is the body of a request. A door that only streams has no other.
	body func(session string, stream bool) map[string]any
	// text begins the text in an event with a piece of the answer, and last is in the last event that has JSON.
	text, last string
	// whole begins the text in an answer that isn't streamed; "" if there are none.
	whole string
	// only means that the door sends no pieces of the answer.
	only bool
}

// doors are those that can be measured beside AgentOS's own API.
var doors = []door{
	{
		name: "chat", path: "/v1/chat/completions", text: `"delta":{"content":"`, last: `"finish_reason":"stop"`,
		whole: `"role":"assistant","content":"`,
		body: func(session string, stream bool) map[string]any {
			return map[string]any{"model": agent, "stream": stream, "metadata": map[string]any{"session_id": session},
				"messages": []any{map[string]any{"role": "user", "content": message}}}
		},
	},
	{
		name: "responses", path: "/v1/responses", text: `"logprobs":[],"delta":"`, last: `"type":"response.completed"`,
		whole: `"type":"output_text","text":"`,
		body: func(session string, stream bool) map[string]any {
			return map[string]any{"model": agent, "stream": stream, "conversation": session, "input": message}
		},
	},
	{
		name: "agui", path: "/agents/" + agent + "/agui", text: `"delta":"`, last: `"RUN_FINISHED"`,
		body: func(session string, _ bool) map[string]any {
			return map[string]any{"threadId": session, "runId": session, "tools": []any{}, "context": []any{},
				"messages": []any{map[string]any{"id": "1", "role": "user", "content": message}}}
		},
	},
	{
		name: "mcp", path: "/mcp", whole: `"content":[{"type":"text","text":"`, only: true,
		body: func(session string, _ bool) map[string]any {
			return map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
				"name": agent, "arguments": map[string]any{"message": message, "session_id": session}}}
		},
	},
}

// doorNamed returns the door with the name, and nil if there is none.
func doorNamed(name string) *door {
	if i := slices.IndexFunc(doors, func(d door) bool { return d.name == name }); i >= 0 {
		return &doors[i]
	}
	return nil
}

// benchDoor measures the same runs by AgentOS's API and by another door.
func benchDoor(ctx context.Context, f flags) error {
	return measureServers(ctx, f, doorsConfig, (*bench).measureDoor)
}

// measureDoor measures what a door can change: the CPU of a run, the time to its first text, and the memory of a
// stream.
func (b *bench) measureDoor(ctx context.Context) error {
	b.subjects[1].door = doorNamed(b.door)
	for _, s := range b.subjects {
		if _, err := s.start(ctx); err != nil {
			return err
		}
	}
	for _, c := range b.cells() {
		streamed := strings.HasPrefix(c.name, "a streamed run")
		if streamed && b.subjects[1].door.only {
			continue
		}
		if !streamed && (c.name != "a run, not streamed" || b.subjects[1].door.whole == "") || !b.wanted(c.String()) {
			continue
		}
		say("%s", c)
		for range b.rounds {
			for i := range b.subjects {
				if err := b.measureCell(ctx, i, c); err != nil {
					return err
				}
			}
		}
	}
	if b.subjects[1].door.only {
		return nil
	}
	return cmp.Or(b.measureFirstText(ctx), b.measureOpenStreams(ctx))
}

// send asks by the door of the subject. text must be the answer. It returns the time to the first text of a stream.
func (d *door) send(ctx context.Context, s *subject, text string, stream bool) (first time.Duration, err error) {
	begin := time.Now()
	data, err := json.Marshal(d.body(strings.ToLower(rand.Text()), stream))
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+d.path, bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	r.Header = s.bearer()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	body, err := s.send(r)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var got bytes.Buffer
	if !stream {
		if _, err = got.ReadFrom(body); err == nil && !bytes.Contains(got.Bytes(), []byte(d.whole+text+`"`)) {
			err = fmt.Errorf("%s answered %.200s", d.path, got.Bytes())
		}
		return 0, err
	}
	ended := false
	for e, err := range events(body) {
		if err != nil {
			return 0, fmt.Errorf("a stream broke off: %w", err)
		}
		// The texts of the model need no escapes, so that nothing is decoded.
		if _, piece, ok := bytes.Cut(e.data, []byte(d.text)); ok {
			piece, _, _ = bytes.Cut(piece, []byte(`"`))
			got.Write(piece)
			if first == 0 && len(piece) > 0 {
				first = time.Since(begin)
			}
		}
		ended = ended || bytes.Contains(e.data, []byte(d.last))
	}
	if !ended || got.String() != text || first == 0 {
		return 0, fmt.Errorf("a stream of %s ended (%t) with %.80q", d.path, ended, got.Bytes())
	}
	return first, nil
}
