//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

const (
	// honestCallers is how many callers use the server as it is meant.
	honestCallers = 10
	// honestPause is the time between two of their requests.
	honestPause = 500 * time.Millisecond
	// honestPatience is how long a caller repeats a request that got no answer, 429 or 503, before it has failed.
	honestPatience = 30 * time.Second
)

// honest is what the honest callers of a pass have seen.
type honest struct {
	mu sync.Mutex
	// took has the time of each request that was answered as it should be, with its repetitions.
	took []time.Duration
	// failed describes the requests that were not.
	failed []string
	// repeated counts the requests that were sent again.
	repeated int
}

// call runs the honest callers until ctx ends. A request that has begun is finished.
func (h *honest) call(ctx context.Context, base string) error {
	var all sync.WaitGroup
	for i := range honestCallers {
		token, err := mint(fmt.Sprintf("honest-%d", i), nil)
		if err != nil {
			return err
		}
		c := caller{honest: h, url: base, token: token, client: &http.Client{Transport: &http.Transport{}}}
		all.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				one, stop := context.WithTimeout(context.WithoutCancel(ctx), honestPatience)
				c.once(one, n)
				stop()
				_ = harness.Wait(ctx, honestPause)
			}
		})
	}
	all.Wait()
	return nil
}

// caller is an honest caller.
type caller struct {
	*honest
	url, token string
	client     *http.Client
}

// once does the n-th thing that a caller does, and notes how long it took.
func (c caller) once(ctx context.Context, n int) {
	began := time.Now()
	session := fmt.Sprintf("chat-%d", n/8)
	var err error
	switch n % 4 {
	case 0:
		err = c.completes(ctx, form("message", "hello", "session_id", session))
	case 1:
		err = c.streams(ctx, form("message", "hello", "session_id", session, "stream", "true"))
	case 2:
		_, err = c.send(ctx, "GET", "/sessions?type=agent&limit=5", nil)
	case 3:
		err = c.waits(ctx, form("message", "hello", "session_id", session, "background", "true"), session)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = append(c.failed, fmt.Sprintf("%s: %s", [...]string{"run", "stream", "list", "background run"}[n%4], err))
		return
	}
	c.took = append(c.took, time.Since(began))
}

// send sends a request, and again if the server is too busy, until ctx ends.
func (c caller) send(ctx context.Context, method, path string, body []byte) (answer string, err error) {
	for {
		var status int
		status, answer, err = c.try(ctx, method, path, body)
		switch {
		case err == nil && status < 300:
			return answer, nil
		case err == nil && status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable:
			return "", fmt.Errorf("%s %s: %d %.200s", method, path, status, answer)
		case err == nil:
			err = fmt.Errorf("%s %s: %d %.200s", method, path, status, answer)
		}
		if harness.Wait(ctx, 200*time.Millisecond) != nil {
			return "", err
		}
		c.mu.Lock()
		c.repeated++
		c.mu.Unlock()
	}
}

func (c caller) try(ctx context.Context, method, path string, body []byte) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(string(body)))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", asForm)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), err
}

// result is what a caller reads of a run.
type result struct {
	ID      string `json:"run_id"`
	Status  string `json:"status"`
	Content string `json:"content"`
}

// completed fails unless the answer is that of a completed run.
func completed(answer string) error {
	var r result
	if err := json.Unmarshal([]byte(answer), &r); err != nil || r.Status != "COMPLETED" || r.Content != answerText {
		return fmt.Errorf("not completed: %.200s", answer)
	}
	return nil
}

// completes requests a run, whose answer must be the model's.
func (c caller) completes(ctx context.Context, form []byte) error {
	answer, err := c.send(ctx, "POST", runs, form)
	if err != nil {
		return err
	}
	return completed(answer)
}

// streams requests a stream, which must end with the model's answer.
func (c caller) streams(ctx context.Context, form []byte) error {
	answer, err := c.send(ctx, "POST", runs, form)
	if err == nil && (!strings.Contains(answer, "event: RunCompleted") || !strings.Contains(answer, answerText)) {
		err = fmt.Errorf("not completed: %.200s", answer)
	}
	return err
}

// waits requests a run in the background and reads it until it has ended.
func (c caller) waits(ctx context.Context, form []byte, session string) error {
	answer, err := c.send(ctx, "POST", runs, form)
	if err != nil {
		return err
	}
	var r result
	if err := json.Unmarshal([]byte(answer), &r); err != nil || r.ID == "" {
		return fmt.Errorf("no id: %.200s", answer)
	}
	for {
		answer, err = c.send(ctx, "GET", runs+"/"+r.ID+"?session_id="+session, nil)
		if err == nil {
			err = json.Unmarshal([]byte(answer), &r)
		}
		if err != nil || r.Status != "PENDING" && r.Status != "RUNNING" {
			break
		}
		if harness.Wait(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("it is %s after %s", r.Status, honestPatience)
		}
	}
	if err != nil {
		return err
	}
	return completed(answer)
}
