// Package client calls a Keyway server: it runs agents, continues, cancels and reads their runs, and lists sessions.
//
// A stream that is cut is resumed, and a request to run an agent is never executed twice, because each has an
// Idempotency-Key. The package has no retry of its own for other requests.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	sse "github.com/tmaxmax/go-sse"
)

// Client calls one server with one token. It is safe for concurrent use.
type Client struct {
	// URL is the address of the server, such as http://127.0.0.1:7777. Below a stage of API Gateway it has the stage's
	// name. Required.
	URL string
	// Token is the caller's token. Defaults to none, for the public routes.
	Token string
	// HTTP sends the requests. Its timeout must not be shorter than a run. Redirects are not followed. Defaults to a
	// client without a timeout.
	HTTP *http.Client
}

// Error is an answer with a status of 300 or more: redirects are not followed.
type Error struct {
	Status int
	// Detail is the server's text, and Hint what it says about a remedy, or "".
	Detail, Hint string
	// RetryAfter is how long to wait before the same request is worth another try. It is 0 if the answer does not say.
	RetryAfter time.Duration
	// RequestID is the id of the request in the server's logs.
	RequestID string
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), e.Detail)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// The sizes of what is read of one answer, in bytes.
const (
	maxBody  = 64 << 20
	maxEvent = 16 << 20
)

// send sends a request and returns the answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, form url.Values, key string) (*http.Response, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	// The message must not reach a server that the caller has not named.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	e := &Error{Status: answer.StatusCode, RequestID: answer.Header.Get("X-Request-Id")}
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	e.RetryAfter = time.Duration(max(seconds, 0)) * time.Second
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxEvent))
	var says struct {
		Detail  json.RawMessage `json:"detail"`
		Hint    string          `json:"hint"`
		Message string          `json:"message"` // of API Gateway itself
	}
	if err == nil {
		err = json.Unmarshal(text, &says)
	}
	switch {
	case e.Status < 400:
		e.Detail = "the address leads to " + answer.Header.Get("Location")
	case err != nil:
		e.Detail = "the answer has no reason"
	case json.Unmarshal(says.Detail, &e.Detail) != nil: // The faults of 422 are a list.
		e.Detail = cmp.Or(string(says.Detail), says.Message)
	}
	e.Hint = says.Hint
	return nil, e
}

// get reads a JSON document.
func (c *Client) get(ctx context.Context, path string, into any) error {
	answer, err := c.send(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(into)
}

// Event is one event of a run. Fields that its kind does not have are empty.
type Event struct {
	// Name is AgentOS's name, such as RunContent.
	Name      string `json:"event"`
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
	AgentID   string `json:"agent_id"`
	Index     *int   `json:"event_index"`
	// Content is a piece of the answer (RunContent), the whole one (RunCompleted), or the reason (RunError).
	Content   string `json:"content"`
	Reasoning string `json:"reasoning_content"`
	ErrorType string `json:"error_type"`
	// Tool is the call of ToolCallStarted, ToolCallCompleted and ToolCallError, and Tools are those of RunPaused.
	Tool  *Tool  `json:"tool"`
	Tools []Tool `json:"tools"`
	// Metrics are those of RunCompleted.
	Metrics Metrics `json:"metrics"`
	// Raw is the whole event.
	Raw json.RawMessage `json:"-"`
}

// Metrics are the tokens and the time of a run.
type Metrics struct {
	InputTokens  int      `json:"input_tokens"`
	OutputTokens int      `json:"output_tokens"`
	TotalTokens  int      `json:"total_tokens"`
	Duration     float64  `json:"duration"` // seconds
	Cost         *float64 `json:"cost"`     // US dollars; nil without a price
}

// Tool is one tool call.
type Tool struct {
	ID     string          `json:"tool_call_id"`
	Name   string          `json:"tool_name"`
	Args   json.RawMessage `json:"tool_args"`
	Result *string         `json:"result"`
	Failed *bool           `json:"tool_call_error"`
	// Confirm, UserInput and External say what a person must do before the run continues.
	Confirm   *bool `json:"requires_confirmation"`
	UserInput *bool `json:"requires_user_input"`
	External  *bool `json:"external_execution_required"`
}

// Ends reports whether no event of the run follows, unless the run is continued.
func (e Event) Ends() bool {
	switch e.Name {
	case "RunCompleted", "RunError", "RunCancelled", "RunPaused":
		return true
	}
	return false
}

// Input is a request to run an agent.
type Input struct {
	Message string
	// SessionID is the session. Defaults to a new one.
	SessionID string
	// Key is the Idempotency-Key: a repeated request with the same key runs nothing again. Defaults to a random one.
	Key string
}

// Run runs an agent and yields its events as they arrive, to the end of the run or its pause. If the connection is
// lost, it resumes the stream. An error ends the sequence: *Error if the server refused the request.
func (c *Client) Run(ctx context.Context, agent string, in Input) iter.Seq2[Event, error] {
	form := url.Values{"message": {in.Message}, "stream": {"true"}}
	if in.SessionID != "" {
		form.Set("session_id", in.SessionID)
	}
	return c.stream(ctx, agent, "/agents/"+url.PathEscape(agent)+"/runs", form, cmp.Or(in.Key, rand.Text()))
}

// Decision is what a person says about a call of a paused run.
type Decision struct {
	CallID    string `json:"tool_call_id"`
	Confirmed bool   `json:"confirmed"`
	// Note is shown to the model if the call is rejected.
	Note string `json:"confirmation_note,omitempty"`
	// Result is the result of a call that was executed outside of the server.
	Result *string `json:"result,omitempty"`
}

// Continue continues a paused run, and yields the events that follow as Run does.
func (c *Client) Continue(ctx context.Context, paused Event, decisions []Decision) iter.Seq2[Event, error] {
	tools, err := json.Marshal(decisions)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(Event{}, err) }
	}
	form := url.Values{"session_id": {paused.SessionID}, "stream": {"true"}, "tools": {string(tools)}}
	return c.stream(ctx, paused.AgentID, runPath(paused.AgentID, paused.RunID)+"/continue", form, rand.Text())
}

// Resume yields the events of a run after the one with this index, and follows the run to its end. -1 means all events.
func (c *Client) Resume(ctx context.Context, agent, run string, after int) iter.Seq2[Event, error] {
	return c.stream(ctx, agent, runPath(agent, run)+"/resume", afterForm(after), "")
}

func afterForm(index int) url.Values {
	if index < 0 {
		return url.Values{}
	}
	return url.Values{"last_event_index": {strconv.Itoa(index)}}
}

// Cancel cancels a run. It returns when the server has recorded that; the run stops soon after.
func (c *Client) Cancel(ctx context.Context, agent, run string) error {
	answer, err := c.send(ctx, http.MethodPost, runPath(agent, run)+"/cancel", url.Values{}, "")
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func runPath(agent, run string) string {
	return "/agents/" + url.PathEscape(agent) + "/runs/" + url.PathEscape(run)
}

// resumes is how often a stream is resumed without any event in between, before it is given up.
const resumes = 5

// stream sends the request and yields the events. If the stream is cut, it is resumed. If no event has arrived, the
// request itself is repeated: its Idempotency-Key makes that safe.
func (c *Client) stream(ctx context.Context, agent, path string, form url.Values, key string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		last := Event{}
		for failures := 0; ; {
			before := last
			ended, stopped, err := c.read(ctx, path, form, key, &last, yield)
			switch {
			case ended || stopped:
				return
			case ctx.Err() != nil:
				yield(Event{}, ctx.Err())
				return
			case last.RunID != "" && (before.Index == nil || *last.Index > *before.Index):
				failures = 0
			}
			refused, isAnswer := errors.AsType[*Error](err)
			again := !isAnswer || refused.Status == http.StatusServiceUnavailable && last.RunID != ""
			if failures++; !again || failures > resumes {
				yield(Event{}, cut(err))
				return
			}
			if last.RunID != "" {
				path, form, key = runPath(agent, last.RunID)+"/resume", afterForm(*last.Index), ""
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(failures) * 200 * time.Millisecond):
			}
		}
	}
}

// cut is the error of a stream that ends without the last event of its run.
func cut(err error) error {
	if err == nil {
		return errors.New("the stream ended before the run did")
	}
	return err
}

// read yields the events of one answer. ended means that the run's last event was among them, and stopped that the
// caller wants no more.
func (c *Client) read(
	ctx context.Context, path string, form url.Values, key string, last *Event, yield func(Event, error) bool,
) (ended, stopped bool, err error) {
	answer, err := c.send(ctx, http.MethodPost, path, form, key)
	if err != nil {
		return false, false, err
	}
	defer answer.Body.Close()
	for frame, err := range sse.Read(answer.Body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return false, false, err
		}
		e := Event{Raw: bytes.Clone([]byte(frame.Data))}
		if err := json.Unmarshal(e.Raw, &e); err != nil {
			return false, false, fmt.Errorf("an event that is no JSON object: %w", err)
		}
		if e.Index == nil { // It is about the stream, such as catch_up, and not about the run.
			continue
		}
		if last.Index != nil && *e.Index <= *last.Index && e.RunID == last.RunID {
			continue
		}
		*last = e
		if !yield(e, nil) {
			return false, true, nil
		}
		if e.Ends() {
			return true, false, nil
		}
	}
	return false, false, nil
}

// Session is a row of the list of sessions.
type Session struct {
	ID        string `json:"session_id"`
	Name      string `json:"session_name"`
	AgentID   string `json:"agent_id"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// Sessions returns a page of the caller's sessions, the last changed first, and how many there are. limit is at most
// 1,000, and page begins with 1.
func (c *Client) Sessions(ctx context.Context, limit, page int) (list []Session, total int, err error) {
	var answer struct {
		Data []Session `json:"data"`
		Meta struct {
			Total int `json:"total_count"`
		} `json:"meta"`
	}
	query := url.Values{
		"limit": {strconv.Itoa(limit)}, "page": {strconv.Itoa(page)}, "sort_by": {"updated_at"}, "sort_order": {"desc"},
	}
	err = c.get(ctx, "/sessions?"+query.Encode(), &answer)
	return answer.Data, answer.Meta.Total, err
}
