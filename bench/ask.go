package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime/multipart"
	"net/http"
	"strings"
	"time"
)

// The two agents of every subject. Runs are of the first.
const (
	agent        = "bench-agent"
	agentHistory = "bench-agent-hist"
)

func (s *subject) health(ctx context.Context) error {
	_, err := s.get(ctx, "/health", nil)
	return err
}

// listAgents asks for the agents and expects both.
func (s *subject) listAgents(ctx context.Context) error {
	body, err := s.get(ctx, "/agents", s.bearer())
	if err == nil && !(bytes.Contains(body, []byte(`"`+agent+`"`)) && bytes.Contains(body, []byte(`"`+agentHistory+`"`))) {
		err = fmt.Errorf("GET /agents lists other agents: %.200q", body)
	}
	return err
}

func (s *subject) bearer() http.Header { return http.Header{"Authorization": {"Bearer " + s.token}} }

func (s *subject) get(ctx context.Context, path string, header http.Header) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header = header
	body, err := s.send(r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// grownSession is the session that holds many runs.
const grownSession = "grown"

// listSessions asks for the newest sessions and expects a full page of many.
func (s *subject) listSessions(ctx context.Context) error {
	body, err := s.get(ctx, "/sessions?type=agent&limit=20", s.bearer())
	if err != nil {
		return err
	}
	var page struct {
		Data []json.RawMessage
		Meta struct {
			Total int `json:"total_count"`
		}
	}
	if err = json.Unmarshal(body, &page); err == nil && (len(page.Data) != 20 || page.Meta.Total < listed) {
		err = fmt.Errorf("GET /sessions lists %d of %d", len(page.Data), page.Meta.Total)
	}
	return err
}

// session asks for the session that grew and expects everything said in it.
func (s *subject) session(ctx context.Context) error {
	body, err := s.get(ctx, "/sessions/"+grownSession+"?type=agent", s.bearer())
	if err != nil {
		return err
	}
	if n := bytes.Count(body, []byte(`"role":"user"`)) + bytes.Count(body, []byte(`"role":"assistant"`)); n < 2*grown {
		return fmt.Errorf("GET /sessions/%s shows %d messages of %d runs", grownSession, n, grown)
	}
	return nil
}

// run asks for a run in a session of its own and expects the whole text.
func (s *subject) run(ctx context.Context, text string) error {
	return s.runIn(ctx, agent, strings.ToLower(rand.Text()), text)
}

// runIn is run of an agent in a session.
func (s *subject) runIn(ctx context.Context, agent, session, text string) error {
	body, err := s.post(ctx, agent, session, false)
	if err != nil {
		return err
	}
	defer body.Close()
	var out struct{ Status, Content string }
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return err
	}
	if out.Status != "COMPLETED" || out.Content != text {
		return fmt.Errorf("a run ended as %s with %.80q", out.Status, out.Content)
	}
	_, err = io.Copy(io.Discard, body) // or the connection isn't used again
	return err
}

// stream asks for a run as a stream and expects its last event to hold the whole
// text. It tells how long the first text took.
func (s *subject) stream(ctx context.Context, text string) (first time.Duration, err error) {
	begin := time.Now()
	body, err := s.post(ctx, agent, strings.ToLower(rand.Text()), true)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var last event
	for e, err := range events(body) {
		if err != nil {
			return 0, fmt.Errorf("a stream broke off: %w", err)
		}
		if last = e; first == 0 && string(e.name) == "RunContent" && e.content() != "" {
			first = time.Since(begin)
		}
	}
	if string(last.name) != "RunCompleted" || first == 0 {
		return 0, fmt.Errorf("a stream ended with %q: %.200s", last.name, last.data)
	}
	if got := last.content(); got != text {
		return 0, fmt.Errorf("a streamed run ended with %.80q", got)
	}
	return first, nil
}

// post starts a run the way AgentOS's clients do.
func (s *subject) post(ctx context.Context, agent, session string, stream bool) (io.ReadCloser, error) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	err := errors.Join(w.WriteField("message", "Say the words."), w.WriteField("stream", fmt.Sprint(stream)),
		w.WriteField("session_id", session), w.Close())
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/agents/"+agent+"/runs", &form)
	if err != nil {
		return nil, err
	}
	r.Header = s.bearer()
	r.Header.Set("Content-Type", w.FormDataContentType())
	return s.send(r)
}

// send returns the body of a 200.
func (s *subject) send(r *http.Request) (io.ReadCloser, error) {
	resp, err := s.client.Do(r) // #nosec G704 -- a server that the benchmark started
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, resp.Status, text)
	}
	return resp.Body, nil
}

// event is a server-sent event; its slices hold until the next one is read.
type event struct{ name, data []byte }

// content is the member that holds text in RunContent and RunCompleted.
func (e event) content() string {
	var m struct {
		Content string `json:"content"`
	}
	_ = json.Unmarshal(e.data, &m) // no text, then
	return m.Content
}

// events reads a stream to its end.
func events(body io.Reader) iter.Seq2[event, error] {
	return func(yield func(event, error) bool) {
		lines := bufio.NewScanner(body)
		lines.Buffer(make([]byte, 64<<10), 8<<20)
		var e event
		within := false // an event began and did not end
		for lines.Scan() {
			line := lines.Bytes()
			within = len(line) > 0
			if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
				e.name = append(e.name[:0], name...)
			} else if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				e.data = append(e.data[:0], data...)
			} else if len(line) == 0 && len(e.data) > 0 {
				if !yield(e, nil) {
					return
				}
				e.data = e.data[:0]
			}
		}
		err := lines.Err()
		if err == nil && within {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			yield(event{}, err)
		}
	}
}

// direct asks the model itself and tells how long its first text took: what no
// server in between can be faster than.
func (m *model) direct(ctx context.Context, client *http.Client) (first time.Duration, err error) {
	const question = `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Say the words."}]}`
	begin := time.Now()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url+"/chat/completions", strings.NewReader(question))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for e, err := range events(resp.Body) {
		if err != nil {
			return 0, err
		}
		if first == 0 && bytes.Contains(e.data, []byte(`"delta":{"content":"w`)) {
			first = time.Since(begin)
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("the model answered %s without text", resp.Status)
	}
	return first, nil
}
