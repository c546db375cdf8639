//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// The kinds of requests that the load sends.
const (
	kindStream     = "stream"     // a streamed run
	kindWhole      = "whole"      // a run whose result is one answer
	kindBackground = "background" // a run that is read later
	kindKey        = "key"        // a run with an Idempotency-Key, requested twice and again after each failure
	kindPause      = "pause"      // a run that pauses for a person, and continues
	kindCancel     = "cancel"     // a run that is cancelled at some moment, also while it is paused
	kindDelete     = "delete"     // a run whose session is deleted at some moment
	kindFollow     = "follow"     // a run whose events are followed by clients that come and leave
)

// patience is how long a client of the load waits for the end of a run whose process was lost before it leaves. The
// audit checks the run all the same.
const patience = 20 * time.Second

// load is the stream of requests of a phase.
type load struct {
	journal *journal
	// addresses returns the base URLs of the servers that answer.
	addresses func() []string
	token     string
	name      string // of the phase; begins the ids of the requests
	kinds     []string
	tool      string // of the rounds without a pause
	argument  string // of that tool
	client    *http.Client
	number    atomic.Int64
}

// run sends requests with some clients at a time until ctx ends, and then waits until the clients have left.
func (l *load) run(ctx context.Context, clients int, seed uint64) {
	var all sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(1000+i))) // #nosec G404 -- a test repeats its choices by a seed
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c := client{load: l, random: random, history: fmt.Sprintf("%s-history-%d-%d", l.name, i, n/10)}
				// A client that has begun leaves by itself, some time after the end of the load.
				mine, stop := context.WithTimeout(context.WithoutCancel(ctx), 3*patience)
				c.run(mine)
				stop()
				_ = harness.Wait(ctx, time.Duration(random.IntN(200))*time.Millisecond)
			}
		})
	}
	all.Wait()
}

// client sends one request and does with its run what the kind says.
type client struct {
	*load
	random  *rand.Rand
	history string // a session with earlier runs
	r       *request
	others  sync.WaitGroup
}

// compose makes a request of a random kind.
func (c *client) compose() *request {
	kind := c.kinds[c.random.IntN(len(c.kinds))]
	s := script{
		ID: fmt.Sprintf("%s-%d", c.name, c.number.Add(1)), Words: 5 + c.random.IntN(25), Pace: 5 + c.random.IntN(60),
		Rounds: c.random.IntN(3), Calls: 1 + c.random.IntN(3), Tool: c.tool, Argument: c.argument,
		IDs: []string{"usual", "usual", "empty", "same", "long"}[c.random.IntN(5)],
	}
	r := &request{Kind: kind, Session: c.history, Streamed: true}
	if c.random.IntN(2) == 0 {
		r.Session = s.ID
	}
	switch kind {
	case kindWhole:
		r.Streamed = false
	case kindBackground:
		r.Streamed, r.Background = false, true
	case kindKey:
		r.Key = s.ID
		r.Streamed = c.random.IntN(2) == 0
		r.Background = !r.Streamed && c.random.IntN(2) == 0
	case kindDelete:
		r.Session = s.ID
		r.Streamed = c.random.IntN(2) == 0
		r.Background = !r.Streamed
	case kindPause:
		s.Rounds = max(s.Rounds, 1)
		s.Pause = 1 + c.random.IntN(s.Rounds)
		r.Streamed = c.random.IntN(2) == 0
	case kindCancel:
		r.Background = c.random.IntN(2) == 0
		r.Streamed = !r.Background
		if slices.Contains(c.kinds, kindPause) && c.random.IntN(2) == 0 {
			s.Rounds, s.Pause = max(s.Rounds, 1), 1
		}
	}
	r.Script, r.View = s, newView()
	return r
}

// run is the whole work of a client.
func (c *client) run(ctx context.Context) {
	c.r = c.compose()
	c.journal.requested(c.r)
	defer func() {
		c.others.Wait()
		c.r.note(func(h *learned) { h.Over = true })
	}()
	switch c.r.Kind {
	case kindKey:
		c.others.Go(func() {
			v := newView()
			c.start(ctx, 5, &v)
			c.r.note(func(h *learned) { h.Followers = append(h.Followers, v) })
		})
	case kindCancel:
		c.later(ctx, c.cancel)
	case kindDelete:
		c.later(ctx, c.remove)
	case kindFollow:
		for range 2 {
			random := rand.New(rand.NewPCG(c.random.Uint64(), 1)) // #nosec G404 -- see above
			c.others.Go(func() { c.follow(ctx, random) })
		}
	}
	tries := 1
	if c.r.Key != "" {
		tries = 5
	}
	c.start(ctx, tries, &c.r.View)
	c.finish(ctx)
}

// finish follows the run to its end, and continues it if it pauses.
func (c *client) finish(ctx context.Context) {
	leave := time.Now().Add(patience)
	for ctx.Err() == nil && time.Now().Before(leave) {
		run := c.r.run()
		if run == "" {
			return
		}
		var end string
		c.r.note(func(h *learned) { end = h.End })
		switch {
		case end == "PAUSED" && c.r.Kind == kindPause:
			c.resolve(ctx, run)
		case end == "PAUSED" && c.r.Kind == kindCancel:
			c.others.Wait() // for the cancellation
			c.poll(ctx, run)
			return
		case end != "":
			return
		case c.r.Streamed:
			c.resume(ctx, run, &c.r.View)
		default:
			c.poll(ctx, run)
		}
		_ = harness.Wait(ctx, 200*time.Millisecond)
	}
}

// send sends a request to one of the servers. fields are the form; nil sends none.
func (c *client) send(
	ctx context.Context, method, path string, fields url.Values, header ...string,
) (*http.Response, error) {
	addresses := c.addresses()
	if len(addresses) == 0 {
		_ = harness.Wait(ctx, 100*time.Millisecond)
		return nil, fmt.Errorf("no server answers")
	}
	var body io.Reader
	if fields != nil {
		body = strings.NewReader(fields.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, addresses[rand.IntN(len(addresses))]+path, body) // #nosec G404
	if err != nil {
		return nil, err
	}
	if fields != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return c.load.client.Do(req)
}

const runsPath = "/agents/chaos/runs"

// start requests the run, up to this many times as long as no server acknowledges it.
func (c *client) start(ctx context.Context, tries int, v *view) {
	r := c.r
	fields := url.Values{
		"message": {r.Script.message()}, "session_id": {r.Session}, "stream": {fmt.Sprint(r.Streamed)},
		"background": {fmt.Sprint(r.Background)},
	}
	var header []string
	if r.Key != "" {
		header = []string{"Idempotency-Key", r.Key}
	}
	for range tries {
		resp, err := c.send(ctx, http.MethodPost, runsPath, fields, header...)
		if err != nil {
			r.note(func(h *learned) { h.Statuses = append(h.Statuses, 0) })
			_ = harness.Wait(ctx, 300*time.Millisecond)
			continue
		}
		r.note(func(h *learned) {
			h.Statuses = append(h.Statuses, resp.StatusCode)
			*v = newView()
		})
		c.answer(resp, v)
		if resp.StatusCode < 300 && r.run() != "" {
			return
		}
		_ = harness.Wait(ctx, 300*time.Millisecond)
	}
}

// answer reads the answer to a request that starts or continues the run: a stream, into v, or JSON.
func (c *client) answer(resp *http.Response, v *view) {
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		c.stream(resp.Body, v)
		return
	}
	var about struct {
		Run    string          `json:"run_id"`
		Status string          `json:"status"`
		Tools  json.RawMessage `json:"tools"`
	}
	if json.NewDecoder(resp.Body).Decode(&about) != nil || resp.StatusCode >= 300 {
		return
	}
	c.r.note(func(h *learned) {
		h.acknowledged(about.Run)
		if isEnd(about.Status) || about.Status == "PAUSED" {
			h.ended(about.Status)
			if h.Tools == nil {
				h.Tools = about.Tools
			}
		}
	})
}

// isEnd reports whether a run with this status has ended.
func isEnd(status string) bool {
	return status == "COMPLETED" || status == "ERROR" || status == "CANCELLED"
}

// ends are the statuses of the events that end a run, or pause it.
var ends = map[string]string{
	"RunCompleted": "COMPLETED", "RunError": "ERROR", "RunCancelled": "CANCELLED", "RunPaused": "PAUSED",
}

// about are the members of events that the load reads.
type about struct {
	Run     string          `json:"run_id"`
	Tools   json.RawMessage `json:"tools"`
	Missed  *int            `json:"missed_events"`
	Current *int            `json:"current_event_count"`
	Total   *int            `json:"total_events"`
	Stored  *int            `json:"total_buffered"`
}

// anew reports that an event about the stream announces all events from the first one on.
func (a about) anew() bool {
	missed, total := a.Missed, a.Current
	if a.Total != nil {
		missed, total = a.Total, a.Stored
	}
	return missed != nil && total != nil && *missed == *total && *total > 0
}

// stream reads events into v. Only the main client's view is its request's View; others pass one of their own.
func (c *client) stream(body io.Reader, v *view) {
	fresh := true
	_ = readFrames(body, func(f frame) bool { // the stream of a process that was killed breaks off
		var a about
		_ = json.Unmarshal([]byte(f.Data), &a)
		c.r.note(func(h *learned) {
			if f.Index < 0 {
				if fresh = true; a.anew() {
					*v = view{Frames: map[int]frame{}, Last: -1, FromStart: true, Wrong: v.Wrong}
				}
				return
			}
			v.add(f, fresh)
			fresh = false
			h.acknowledged(a.Run)
			if status, ok := ends[f.Event]; ok {
				h.ended(status)
			}
			switch f.Event {
			case "RunPaused":
				h.Tools = a.Tools
			case "RunContinued":
				h.Continued = true
			}
		})
		return true
	})
}

// resume follows the run's events from the last one in v.
func (c *client) resume(ctx context.Context, run string, v *view) {
	fields := url.Values{"session_id": {c.r.Session}}
	c.r.note(func(*learned) {
		if v.Last >= 0 {
			fields.Set("last_event_index", fmt.Sprint(v.Last))
		}
	})
	resp, err := c.send(ctx, http.MethodPost, runsPath+"/"+run+"/resume", fields)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	c.stream(resp.Body, v)
}

// poll reads the run once.
func (c *client) poll(ctx context.Context, run string) {
	resp, err := c.send(ctx, http.MethodGet, runsPath+"/"+run+"?session_id="+url.QueryEscape(c.r.Session), nil)
	if err == nil && resp.StatusCode == http.StatusOK {
		c.answer(resp, nil)
	} else if err == nil {
		resp.Body.Close()
	}
}

// resolve continues the paused run with the decisions about its calls, and reads the answer.
func (c *client) resolve(ctx context.Context, run string) {
	var tools []map[string]any
	c.r.note(func(h *learned) { _ = json.Unmarshal(h.Tools, &tools) })
	for _, t := range tools {
		arguments, _ := t["tool_args"].(map[string]any)
		if key, ok := arguments["key"].(string); ok && t["tool_name"] == "pay" {
			t["confirmed"] = decision(key)
		}
	}
	list, err := json.Marshal(tools)
	if err != nil || len(tools) == 0 {
		return
	}
	streamed := c.random.IntN(2) == 0
	fields := url.Values{"session_id": {c.r.Session}, "tools": {string(list)}, "stream": {fmt.Sprint(streamed)}}
	resp, err := c.send(ctx, http.MethodPost, runsPath+"/"+run+"/continue", fields)
	if err != nil {
		return
	}
	if resp.StatusCode == http.StatusConflict { // an earlier request, whose answer was lost, has continued it
		resp.Body.Close()
		c.r.note(func(h *learned) { h.End = "" })
		c.poll(ctx, run)
		return
	}
	if resp.StatusCode >= 300 {
		resp.Body.Close()
		return
	}
	c.r.note(func(h *learned) {
		h.End, h.Continued = "", true
		c.r.Streamed = streamed
		if h.View.Frames[h.View.Last].Event != "RunPaused" {
			h.View.FromStart = false // its client has left before the pause
		}
	})
	c.answer(resp, &c.r.View)
}

// later waits until the run is acknowledged and then for a random time, and does what it is asked.
func (c *client) later(ctx context.Context, do func(ctx context.Context, run string) bool) {
	delay := time.Duration(c.random.IntN(2000)) * time.Millisecond
	c.others.Go(func() {
		for end := time.Now().Add(patience); c.r.run() == "" && time.Now().Before(end) && ctx.Err() == nil; {
			_ = harness.Wait(ctx, 20*time.Millisecond)
		}
		run := c.r.run()
		if run == "" {
			return
		}
		_ = harness.Wait(ctx, delay)
		for range 20 {
			if do(ctx, run) || ctx.Err() != nil {
				return
			}
			_ = harness.Wait(ctx, 500*time.Millisecond)
		}
	})
}

// cancel cancels the run and reports whether a server acknowledged it.
func (c *client) cancel(ctx context.Context, run string) bool {
	resp, err := c.send(ctx, http.MethodPost, runsPath+"/"+run+"/cancel", url.Values{})
	if err != nil {
		return false
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		c.r.note(func(h *learned) { h.Cancelled = time.Now() })
	}
	return resp.StatusCode == http.StatusOK
}

// remove deletes the session and reports whether a server acknowledged it.
func (c *client) remove(ctx context.Context, _ string) bool {
	c.r.note(func(h *learned) { h.Asked = true })
	resp, err := c.send(ctx, http.MethodDelete, "/sessions/"+url.PathEscape(c.r.Session), nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	if resp.StatusCode < 300 {
		c.r.note(func(h *learned) { h.Deleted, h.End = time.Now(), "DELETED" })
	}
	// An earlier request, whose answer was lost, may have deleted it: then it is not found.
	return resp.StatusCode < 300 || resp.StatusCode == http.StatusNotFound
}

// follow follows the run as a client that comes and leaves several times, and at last stays.
func (c *client) follow(ctx context.Context, random *rand.Rand) {
	v := newView()
	end := time.Now().Add(patience)
	for n := 0; time.Now().Before(end) && ctx.Err() == nil && v.end() == ""; n++ {
		if run := c.r.run(); run != "" {
			stay := time.Duration(20+random.IntN(600)) * time.Millisecond
			if n > 30 {
				stay = patience
			}
			visit, leave := context.WithTimeout(ctx, stay)
			c.resume(visit, run, &v)
			leave()
		}
		_ = harness.Wait(ctx, time.Duration(random.IntN(100))*time.Millisecond)
	}
	c.r.note(func(h *learned) { h.Followers = append(h.Followers, v) })
}
