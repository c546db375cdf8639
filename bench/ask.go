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

// The two agents that every subject declares; see keyway.yaml and agentos/app.py.
const (
	// agent answers without the session's earlier runs. Most cells use it.
	agent = "bench-agent"
	// agentHistory gets the last three runs of the session with each request.
	agentHistory = "bench-agent-hist"
)

// health asks for GET /health, which needs no token and no database.
func (s *subject) health(ctx context.Context) error {
	_, err := s.get(ctx, "/health", nil)
	return err
}

// listAgents asks for GET /agents and expects both agents in the answer. The request
// needs a valid token and no database, so its cost is mostly that of authorization.
func (s *subject) listAgents(ctx context.Context) error {
	body, err := s.get(ctx, "/agents", s.bearer())
	if err == nil && !(bytes.Contains(body, []byte(`"`+agent+`"`)) && bytes.Contains(body, []byte(`"`+agentHistory+`"`))) {
		err = fmt.Errorf("GET /agents lists other agents: %.200q", body)
	}
	return err
}

// bearer returns the header with the administrator's token.
func (s *subject) bearer() http.Header { return http.Header{"Authorization": {"Bearer " + s.token}} }

// get sends a GET request and returns the whole body of a 200.
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

// listSessions asks for the newest 20 sessions. It expects a full page, and a total of at
// least the sessions that fill made: a server that counts fewer has not stored them all.
func (s *subject) listSessions(ctx context.Context) error {
	body, err := s.get(ctx, "/sessions?type=agent&limit=20", s.bearer())
	if err != nil {
		return err
	}
	// AgentOS's form of a page: data, and meta with the total.
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

// session asks for the session of many runs and expects the messages of all of them.
func (s *subject) session(ctx context.Context) error {
	body, err := s.get(ctx, "/sessions/"+grownSession+"?type=agent", s.bearer())
	if err != nil {
		return err
	}
	// Counting the roles is enough: decoding half a megabyte in the benchmark's process
	// would take CPU from the server on the same machine.
	if n := bytes.Count(body, []byte(`"role":"user"`)) + bytes.Count(body, []byte(`"role":"assistant"`)); n < 2*grown {
		return fmt.Errorf("GET /sessions/%s shows %d messages of %d runs", grownSession, n, grown)
	}
	return nil
}

// run starts a run in a new session and expects the model's whole text.
func (s *subject) run(ctx context.Context, text string) error {
	if s.door != nil {
		_, err := s.door.send(ctx, s, text, false)
		return err
	}
	return s.runIn(ctx, agent, strings.ToLower(rand.Text()), text)
}

// runIn starts a run of an agent in a session, waits for its end, and expects the status
// COMPLETED and the model's whole text. A server that loses text does less work than one
// that does not, so its time must not count.
func (s *subject) runIn(ctx context.Context, agent, session, text string) error {
	body, err := s.post(ctx, agent, session, message, false)
	if err != nil {
		return err
	}
	defer body.Close()
	var out struct{ Status, Content string }
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return err
	}
	// A run that failed is answered with 200 as well; its status says so.
	if out.Status != "COMPLETED" || out.Content != text {
		return fmt.Errorf("a run ended as %s with %.80q", out.Status, out.Content)
	}
	// net/http reuses a connection only if its body was read to the end.
	_, err = io.Copy(io.Discard, body)
	return err
}

// stream starts a run as a stream of server-sent events, and expects the last event to be
// RunCompleted with the model's whole text. It returns the time from the request to the
// first event with text.
//
// Every event is read, but few are decoded: the benchmark shares the machine's cores with
// the servers, and its own work would slow down the faster one more.
func (s *subject) stream(ctx context.Context, text string) (first time.Duration, err error) {
	if s.door != nil {
		return s.door.send(ctx, s, text, true)
	}
	begin := time.Now()
	body, err := s.post(ctx, agent, strings.ToLower(rand.Text()), message, true)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	// Only the last event is decoded, and the first ones until one has text.
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

// message is the message of an ordinary run. The model ignores it.
const message = "Say the words."

// post starts a run with a multipart form, as AgentOS's clients do, and returns the body
// of a 200.
func (s *subject) post(ctx context.Context, agent, session, message string, stream bool) (io.ReadCloser, error) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	// All writes go to memory and can't fail.
	err := errors.Join(w.WriteField("message", message), w.WriteField("stream", fmt.Sprint(stream)),
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

// send sends a request and returns the body of a 200. Another status is an error that
// holds the beginning of the body.
func (s *subject) send(r *http.Request) (io.ReadCloser, error) {
	// The client follows no proxy and asks for no compression; see newClient.
	resp, err := s.client.Do(r) // #nosec G704 -- a server that the benchmark started
	if err != nil {
		return nil, err
	}
	// AgentOS and Keyway answer 200 to every request of the benchmark, also to a new run.
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, resp.Status, text)
	}
	return resp.Body, nil
}

// event is a server-sent event. Its slices are valid until the next event is read: a
// benchmark that allocated for each event would measure its own garbage collector.
type event struct{ name, data []byte }

// content returns the text of a RunContent or RunCompleted event, and "" for others.
func (e event) content() string {
	var m struct {
		Content string `json:"content"`
	}
	_ = json.Unmarshal(e.data, &m) // an error leaves the text empty
	return m.Content
}

// events yields the events of a stream. A stream that ends in the middle of an event
// yields io.ErrUnexpectedEOF last: the server broke it off.
func events(body io.Reader) iter.Seq2[event, error] {
	return func(yield func(event, error) bool) {
		lines := bufio.NewScanner(body)
		// RunCompleted holds the whole run in one line, with the history of its session.
		lines.Buffer(make([]byte, 64<<10), 8<<20)
		var p eventParser
		for lines.Scan() {
			if !p.line(lines.Bytes(), yield) {
				return
			}
		}
		err := lines.Err()
		if err == nil && p.within {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			yield(event{}, err)
		}
	}
}

// eventParser makes events of lines.
type eventParser struct {
	e event
	// within reports that an event has begun and not ended: an empty line ends it.
	within bool
}

// line adds a line, and yields the event that it completes. It returns false when yield
// has returned false.
func (p *eventParser) line(line []byte, yield func(event, error) bool) bool {
	// Every line that is not empty begins or continues an event. That includes a comment
	// (": ping") and an event's id: both are followed by an empty line.
	p.within = len(line) > 0
	if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
		p.e.name = append(p.e.name[:0], name...)
	} else if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
		p.e.data = append(p.e.data[:0], data...)
	} else if len(line) == 0 && len(p.e.data) > 0 {
		if !yield(p.e, nil) {
			return false
		}
		p.e.data = p.e.data[:0]
	}
	return true
}

// direct asks the model without a server in between, and returns the time to its first
// text. No server can be faster. measureFirstText subtracts this time, and what is left is
// the time that the server adds.
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
		// The first event has the role and an empty text; word0 begins with w.
		if first == 0 && bytes.Contains(e.data, []byte(`"delta":{"content":"w`)) {
			first = time.Since(begin)
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("the model answered %s without text", resp.Status)
	}
	return first, nil
}
