package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// followers is how many clients follow one run.
	followers = 40
	// joinPatience is how long the followers may take until they have all past events.
	joinPatience = 4 * time.Minute
	// shortEvery is the least time between two short runs of another caller. More of them
	// would add to the figures of the followers.
	shortEvery = 100 * time.Millisecond
)

// followedRuns measures a streamed run that clients follow from its first event to its
// end, while another caller starts short runs. The run has a quarter of the steps: a
// server that reads the whole run for each follower would need an hour for all of them.
func (m *stepsBench) followedRuns(ctx context.Context) error {
	n := max(1, m.steps/4)
	name := fmt.Sprintf("a streamed run of %d steps, %d followers", n, followers)
	say("%s", name)
	for range m.rounds {
		for i := range m.subjects {
			if err := m.followedRun(ctx, i, n, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// followedRun measures one such run. The bytes from PostgreSQL are those until the last
// follower has the last event.
func (m *stepsBench) followedRun(ctx context.Context, i, n int, name string) error {
	s := m.subjects[i]
	before, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	shorts := s.startShorts(ctx, m.lab.model.fast.text)
	var clients sync.WaitGroup
	err = s.streamSteps(ctx, takeSteps(n), n, func(id string) {
		for range followers {
			clients.Go(func() {
				if err := s.follow(ctx, id, n, func() {}); err != nil {
					s.wrong(err)
				}
			})
		}
	})
	if err != nil {
		s.wrong(err)
	}
	ended := time.Now()
	clients.Wait()
	after, failed := m.cost(ctx, i)
	short := shorts.stop()
	if err := cmp.Or(ctx.Err(), failed); err != nil {
		return err
	}
	d := after.since(before)
	m.report.add(i, name+": from PostgreSQL, MB", mb(d.received))
	m.report.add(i, name+": to PostgreSQL, MB", mb(d.sent))
	m.report.add(i, name+": statements", float64(d.statements))
	m.report.add(i, name+": CPU, s", d.cpu.Seconds())
	m.report.add(i, name+": time of the run, s", ended.Sub(before.at).Seconds())
	m.report.add(i, name+": time until the last follower ends, s", after.at.Sub(before.at).Seconds())
	m.addShorts(i, name, short)
	return nil
}

// addShorts reports the times of the short runs.
func (m *stepsBench) addShorts(i int, name string, short []time.Duration) {
	if len(short) == 0 {
		return
	}
	m.report.add(i, name+": a short run meanwhile, ms", median(inMS(short)))
	m.report.add(i, name+": the slowest short run meanwhile, ms", ms(slices.Max(short)))
}

// followersOfAWaitingRun measures clients that follow a run which has all of its results
// and waits for the model: first what it costs until they have the past events, and then
// what it costs while nothing happens.
func (m *stepsBench) followersOfAWaitingRun(ctx context.Context) error {
	name := fmt.Sprintf("a waiting run of %d steps, %d followers", m.steps, followers)
	say("%s", name)
	for range m.rounds {
		for i := range m.subjects {
			if err := m.waitingRun(ctx, i, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitingRun measures the followers of one such run.
func (m *stepsBench) waitingRun(ctx context.Context, i int, name string) error {
	s, p := m.subjects[i], newPause()
	m.lab.model.pause.Store(p)
	defer m.lab.model.pause.Store(nil)
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- s.streamSteps(ctx, takeStepsAndWait(m.steps), m.steps, func(id string) { started <- id })
	}()
	var measured error
	select {
	case <-p.reached:
		// RunStarted came before the model was asked.
		measured = m.measureFollowers(ctx, i, <-started, name)
		close(p.release)
		if err := <-ended; err != nil {
			s.wrong(err)
		}
	case err := <-ended:
		s.wrong(cmp.Or(err, errors.New("a run did not wait")))
	}
	return cmp.Or(ctx.Err(), measured)
}

// measureFollowers connects the followers of a run that waits, and measures them.
func (m *stepsBench) measureFollowers(ctx context.Context, i int, id, name string) error {
	s := m.subjects[i]
	before, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	following, leave := context.WithCancel(ctx)
	joined := make(chan struct{}, followers)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer leave()
	for range followers {
		clients.Go(func() {
			// A follower has left at the end of the measurement; it must not have been sent away.
			err := s.follow(following, id, m.steps, func() { joined <- struct{}{} })
			if following.Err() == nil {
				s.wrong(cmp.Or(err, errors.New("a follower's stream ended before the run")))
			}
		})
	}
	patience := time.After(joinPatience)
	for n := range followers {
		select {
		case <-joined:
		case <-patience:
			s.wrong(fmt.Errorf("only %d of %d followers have the past events after %s", n, followers, joinPatience))
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	quiet, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	d := quiet.since(before)
	m.report.add(i, name+" join: from PostgreSQL, MB", mb(d.received))
	m.report.add(i, name+" join: CPU, s", d.cpu.Seconds())
	m.report.add(i, name+" join: time, s", quiet.at.Sub(before.at).Seconds())
	shorts := s.startShorts(ctx, m.lab.model.fast.text)
	select {
	case <-time.After(m.cell):
	case <-ctx.Done():
	}
	after, err := m.cost(ctx, i)
	short := shorts.stop()
	if err != nil {
		return err
	}
	d = after.since(quiet)
	seconds := after.at.Sub(quiet.at).Seconds()
	m.report.add(i, name+": from PostgreSQL, MB per second", mb(d.received)/seconds)
	m.report.add(i, name+": statements per second", float64(d.statements)/seconds)
	m.report.add(i, name+": CPU per second, ms", ms(d.cpu)/seconds)
	m.addShorts(i, name, short)
	return nil
}

// shorts are the short runs of a caller that starts one after the other.
type shorts struct {
	end  chan struct{}
	done chan struct{}
	// took holds the times of the right answers. It is read after done.
	took []time.Duration
}

// startShorts starts the caller.
func (s *subject) startShorts(ctx context.Context, text string) *shorts {
	c := &shorts{end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for {
			begin := time.Now()
			if err := s.run(ctx, text); err != nil {
				s.wrong(err)
			} else {
				c.took = append(c.took, time.Since(begin))
			}
			select {
			case <-c.end:
				return
			case <-ctx.Done():
				return
			case <-time.After(max(0, shortEvery-time.Since(begin))):
			}
		}
	}()
	return c
}

// stop waits for the run that is under way and returns the times of all.
func (c *shorts) stop() []time.Duration {
	close(c.end)
	<-c.done
	return c.took
}

// streamSteps starts a streamed run of n steps, calls started with its id, and waits for
// its end.
func (s *subject) streamSteps(ctx context.Context, message string, n int, started func(id string)) error {
	body, err := s.post(ctx, agentSteps, strings.ToLower(rand.Text()), message, true)
	if err != nil {
		return err
	}
	defer body.Close()
	return readSteps(body, n, func(e event) error {
		if string(e.name) != "RunStarted" {
			return nil
		}
		var m struct {
			RunID string `json:"run_id"`
		}
		err := json.Unmarshal(e.data, &m)
		if err == nil {
			started(m.RunID)
		}
		return err
	})
}

// follow follows a run of n steps from its first event to its last. It calls joined when
// all past events have arrived.
func (s *subject) follow(ctx context.Context, id string, n int, joined func()) error {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	// All writes go to memory and can't fail.
	if err := errors.Join(w.WriteField("last_event_index", "-1"), w.Close()); err != nil {
		return err
	}
	path := "/agents/" + agentSteps + "/runs/" + id + "/resume"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, &form)
	if err != nil {
		return err
	}
	r.Header = s.bearer()
	r.Header.Set("Content-Type", w.FormDataContentType())
	body, err := s.send(r)
	if err != nil {
		return err
	}
	defer body.Close()
	return readSteps(body, n, func(e event) error {
		if string(e.name) == "subscribed" {
			joined()
		}
		return nil
	})
}

// readSteps reads the stream of a run of n steps and calls see for each event. It expects
// n results of the tool, and RunCompleted as the last event.
func readSteps(body io.Reader, n int, see func(event) error) error {
	var last string
	results := 0
	for e, err := range heads(body) {
		if err == nil {
			err = see(e)
		}
		if err != nil {
			return fmt.Errorf("a stream of steps broke off: %w", err)
		}
		if last = string(e.name); last == "ToolCallCompleted" {
			results++
		}
	}
	if last != "RunCompleted" || results != n {
		return fmt.Errorf("a stream of %d steps ended with %q and %d results", n, last, results)
	}
	return nil
}

// heads yields the events of a stream like events, but only the first 32 KB of a line. An
// event with a result has 100 KB and the last one all results: forty clients that kept
// them would need gigabytes.
func heads(body io.Reader) iter.Seq2[event, error] {
	return func(yield func(event, error) bool) {
		lines := bufio.NewReaderSize(body, 32<<10)
		var p eventParser
		for {
			line, more, err := lines.ReadLine()
			if err == io.EOF && p.within {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				if err != io.EOF {
					yield(event{}, err)
				}
				return
			}
			if !p.line(line, yield) {
				return
			}
			for more && err == nil {
				_, more, err = lines.ReadLine() // an error is returned by the next call, too
			}
		}
	}
}
